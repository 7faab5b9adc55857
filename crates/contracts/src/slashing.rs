//! What `Slashing` takes reports about, and the bytes of their evidence (staking.md §7).

use crate::{addresses, state::CodeReader};
use alloy_primitives::{Address, B256};

/// Two votes of one validator that exclude each other. Evidence: `kind || vote || vote` (ledger.md §13).
pub const EQUIVOCATION: u8 = 1;
/// A validator's vote for a block that names an invalid proof. Evidence: the vote and the opening of the block (ledger.md §13), then
/// [`encode_proof_evidence`], then the addresses of [data contracts](data_contract) that hold the proof.
pub const INVALID_VOTE: u8 = 2;
/// A validator that won too few of its leader views; recorded by `endEpoch`, without evidence.
pub const DOWNTIME: u8 = 3;
/// A receipt of a node that claims attestation which the registry does not have. Evidence: the receipt.
pub const FORGED_EVIDENCE: u8 = 4;
/// Two receipts of one keyset with one number, evidence: [`encode_receipts`]; or a receipt whose answer is not that of the program that it
/// names, evidence: [`encode_proof_evidence`] with index 0, and the addresses of [data contracts](data_contract) that hold a proof of
/// the right answer.
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

/// Most bytes of one data contract: EIP-170's limit of code, less the first byte.
pub const MAX_PART: usize = 24_575;
/// First byte of a data contract's code, the opcode STOP: whoever calls it runs nothing.
const STOP: u8 = 0;
/// Of [`data_contract`]: returns the STOP and everything behind this code.
const INIT_CODE: [u8; 7] = [0x80, 0x60, 0x0a, 0x3d, 0x39, 0x3d, 0xf3];

/// Init code of a contract that holds data and does nothing: evidence that is too long for a report is published in such contracts.
///
/// `None` if the part is longer than [`MAX_PART`].
#[must_use]
pub fn data_contract(part: &[u8]) -> Option<Vec<u8>> {
    let size = u16::try_from(part.len() + 1).ok()?;
    if part.len() > MAX_PART {
        return None;
    }
    // PUSH2 size, DUP1, PUSH1 10, RETURNDATASIZE, CODECOPY, RETURNDATASIZE, RETURN
    Some([&[0x61][..], &size.to_be_bytes(), &INIT_CODE, &[STOP], part].concat())
}

/// Address of the [`data_contract`] of a part when the CREATE2 deployer makes it with salt zero: the same, whoever sends it.
#[must_use]
pub fn data_address(init_code: &[u8]) -> Address {
    addresses::CREATE2_DEPLOYER.create2_from_code(B256::ZERO, init_code)
}

/// What data contracts hold together; `None` if one holds no data, or all of them more than `limit`.
///
/// # Errors
/// The state could not be read.
pub fn published<R: CodeReader>(state: &R, parts: &[Address], limit: usize) -> Result<Option<Vec<u8>>, R::Error> {
    let mut data = Vec::new();
    for part in parts {
        let code = state.code(*part)?;
        let Some((&STOP, part)) = code.split_first() else {
            return Ok(None);
        };
        if data.len() + part.len() > limit {
            return Ok(None);
        }
        data.extend_from_slice(part);
    }
    Ok(Some(data))
}

/// Whether evidence of class [`WRONG_INFERENCE`] is a receipt and where a proof is, and not two receipts: no receipt is empty.
#[must_use]
pub fn is_about_a_proof(evidence: &[u8]) -> bool {
    evidence.starts_with(&[0; 4])
}

/// Second part of evidence of class [`INVALID_VOTE`]: `u32 index || u32 length || receipt`, big-endian. `index` is the proof's among those
/// that the block names, `receipt` the one whose answer it does not prove.
///
/// `None` if the receipt is longer than [`MAX_EVIDENCE`].
#[must_use]
pub fn encode_proof_evidence(index: u32, receipt: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(receipt.len()).ok()?;
    (receipt.len() <= MAX_EVIDENCE).then(|| [&index.to_be_bytes(), &length.to_be_bytes(), receipt].concat())
}

/// Index, receipt and addresses of data contracts at the end of evidence of class [`INVALID_VOTE`]; `None` for anything else.
#[must_use]
pub fn decode_proof_evidence(bytes: &[u8]) -> Option<(usize, &[u8], Vec<Address>)> {
    let (index, rest) = bytes.split_first_chunk::<4>()?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let (receipt, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    let parts = rest.chunks_exact(Address::len_bytes());
    if !parts.remainder().is_empty() {
        return None;
    }
    let index = usize::try_from(u32::from_be_bytes(*index)).ok()?;
    Some((index, receipt, parts.map(Address::from_slice).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StateReader;
    use alloy_primitives::{Bytes, U256};

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

    #[test]
    fn evidence_about_a_proof_comes_back() {
        let parts = [Address::repeat_byte(1), Address::repeat_byte(2)];
        let mut bytes = encode_proof_evidence(3, b"receipt").unwrap();
        assert_eq!(decode_proof_evidence(&bytes), Some((3, &b"receipt"[..], Vec::new())));
        parts.iter().for_each(|part| bytes.extend_from_slice(part.as_slice()));
        assert_eq!(
            decode_proof_evidence(&bytes),
            Some((3, &b"receipt"[..], parts.to_vec()))
        );
        for end in [0, 7, 14, bytes.len() - 1] {
            assert_eq!(decode_proof_evidence(&bytes[..end]), None);
        }
        assert_eq!(encode_proof_evidence(0, &[0; MAX_EVIDENCE + 1]), None);
    }

    struct Codes(Vec<(Address, Bytes)>);

    impl StateReader for Codes {
        type Error = std::convert::Infallible;

        fn storage(&self, _: Address, _: U256) -> Result<U256, Self::Error> {
            Ok(U256::ZERO)
        }
    }

    impl CodeReader for Codes {
        fn code(&self, address: Address) -> Result<Bytes, Self::Error> {
            let found = self.0.iter().find(|(at, _)| *at == address);
            Ok(found.map(|(_, code)| code.clone()).unwrap_or_default())
        }
    }

    #[test]
    fn published_parts_come_together_within_the_limit() {
        let at = Address::repeat_byte;
        let code = |bytes: &'static [u8]| Bytes::from_static(bytes);
        let state = Codes(vec![
            (at(1), code(b"\0one")),
            (at(2), code(b"\0")),
            (at(3), code(b"\x60code")),
        ]);
        let together = |parts: &[Address], limit| published(&state, parts, limit).unwrap();
        assert_eq!(together(&[at(1), at(2), at(1)], 6), Some(b"oneone".to_vec()));
        assert_eq!(together(&[at(1), at(1)], 5), None);
        assert_eq!(together(&[at(3)], 100), None, "a program is no data");
        assert_eq!(together(&[at(4)], 100), None, "nothing is there");
        assert_eq!(data_contract(&[0; MAX_PART + 1]), None);
        let init = data_contract(b"one").unwrap();
        assert_eq!(alloy_primitives::hex::encode(&init), "61000480600a3d393df3006f6e65");
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
