//! What `Slashing` takes reports about, and the bytes of their evidence (staking.md §7).

/// Two votes of one validator that exclude each other. Evidence: `kind || vote || vote` (ledger.md §13).
pub const EQUIVOCATION: u8 = 1;
/// A validator's vote for a block with an invalid proof. Blocks do not name proofs, so no evidence proves it yet.
pub const INVALID_VOTE: u8 = 2;
/// A validator that won too few of its leader views; recorded by `endEpoch`, without evidence.
pub const DOWNTIME: u8 = 3;
/// A receipt of a node that claims attestation which the registry does not have. Evidence: the receipt.
pub const FORGED_EVIDENCE: u8 = 4;
/// Two receipts of one keyset with one number. Evidence: [`encode_receipts`].
pub const WRONG_INFERENCE: u8 = 5;
/// Most bytes of evidence: `Slashing.MAX_EVIDENCE`.
pub const MAX_EVIDENCE: usize = 16_384;

/// Evidence of class [`WRONG_INFERENCE`]: the first receipt's length in four bytes, big-endian, and both receipts.
///
/// `None` if they are more than [`MAX_EVIDENCE`].
#[must_use]
pub fn encode_receipts(first: &[u8], second: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(first.len()).ok()?;
    let bytes = [&length.to_be_bytes(), first, second].concat();
    (bytes.len() <= MAX_EVIDENCE).then_some(bytes)
}

/// Both receipts of [`encode_receipts`]; `None` for anything else.
#[must_use]
pub fn decode_receipts(evidence: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = evidence.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_receipts_come_back() {
        let bytes = encode_receipts(b"one", b"the other").unwrap();
        assert_eq!(bytes[..4], [0, 0, 0, 3]);
        assert_eq!(decode_receipts(&bytes), Some((&b"one"[..], &b"the other"[..])));
        assert_eq!(decode_receipts(&bytes[..6]), None);
        assert_eq!(decode_receipts(&[]), None);
        assert_eq!(decode_receipts(&[0xff; 8]), None);
        assert_eq!(encode_receipts(&[0; MAX_EVIDENCE], b""), None);
    }

    /// The numbers are the contract's.
    #[test]
    fn constants_are_those_of_the_source() {
        let source = include_str!("../../../contracts/src/Slashing.sol");
        for (name, value) in [
            ("EQUIVOCATION", EQUIVOCATION),
            ("INVALID_VOTE", INVALID_VOTE),
            ("DOWNTIME", DOWNTIME),
            ("FORGED_EVIDENCE", FORGED_EVIDENCE),
            ("WRONG_INFERENCE", WRONG_INFERENCE),
        ] {
            assert!(
                source.contains(&format!("uint8 public constant {name} = {value};")),
                "{name}"
            );
        }
        assert!(source.contains("uint256 public constant MAX_EVIDENCE = 16_384;"));
    }
}
