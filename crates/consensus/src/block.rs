//! The block that consensus agrees on, its byte format and its digest (`docs/specs/ledger.md` §10).

use alloy_primitives::{B256, Bytes};
use bytes::{BufMut, Bytes as RawBytes};
use commonware_codec::{Buf, Copying, DecodeExt as _, EncodeSize, Error, FixedSize as _, Read, ReadExt as _, Write};
use commonware_consensus::{BoundedBlock, Heightable, types::Height};
use commonware_cryptography::{Digestible, Hasher as _, Sha256, sha256::Digest};
use std::sync::Arc;

/// Largest EVM block, RLP bytes.
pub const MAX_EVM_BYTES: usize = 4_000_000;

/// Largest receipt, bytes.
pub const MAX_RECEIPT_BYTES: usize = 4_096;

/// Most receipts in a block.
pub const MAX_RECEIPTS: usize = 16_384;

/// Most receipt bytes in a block, without length prefixes.
pub const MAX_RECEIPTS_BYTES: usize = 4 << 20;

/// Most proofs that a block names. Evidence of a vote for an invalid one has to hold them all.
pub const MAX_PROOFS: usize = 128;

/// Bytes of [`ChainBlock::envelope`].
pub const ENVELOPE_BYTES: usize = 104;

const HEAD_BYTES: usize = 72;
const NAME_BYTES: usize = 64;

/// The proof that a block names for the answer of one of its receipts. The proof itself travels beside the block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProofName {
    /// Core hash of the receipt.
    pub core_hash: B256,
    /// SHA-256 of the artefact.
    pub artefact: B256,
}

/// One block: an envelope around an EVM block, the receipts it settles, and the names of their proofs.
///
/// Bytes: `parent (32) || height u64 || evm_hash (32) || body`, with `body = evm || receipts || proofs`,
/// `evm = u32 length || EVM RLP`, `receipts = u32 count || (u32 length || receipt)*` and
/// `proofs = u32 count || (core hash (32) || artefact hash (32))*`, all integers big-endian.
/// Every block has exactly one encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainBlock {
    /// Digest of the block below; the genesis digest at height 0.
    pub parent: B256,
    /// Height; equals the number of the EVM block.
    pub height: u64,
    /// Hash of the EVM block. Not checked against `evm` by the format: the application does.
    pub evm_hash: B256,
    /// RLP of the EVM block; empty at height 0.
    pub evm: Bytes,
    /// Receipts in batch order.
    pub receipts: Vec<Bytes>,
    /// The proofs of those receipts that have one, in the same order. Not checked against `receipts` by the format: the application
    /// does.
    pub proofs: Vec<ProofName>,
}

/// What a block's digest commits to, with the proofs that it names laid open and the rest as hashes: enough to show which proofs a
/// vote for the block was about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opening {
    /// [`ChainBlock::envelope`].
    pub envelope: [u8; ENVELOPE_BYTES],
    /// SHA-256 of the body's first part.
    pub evm: B256,
    /// SHA-256 of the body's second part.
    pub receipts: B256,
    /// The body's third part.
    pub proofs: Vec<ProofName>,
}

impl Opening {
    /// Digest of the block, if the parts are those of the envelope.
    pub fn digest(&self) -> Option<B256> {
        let body = body_hash(self.evm, self.receipts, sha256(&[&encode_proofs(&self.proofs)]));
        self.envelope
            .ends_with(body.as_slice())
            .then(|| envelope_digest(&self.envelope))
    }

    /// `envelope || evm || receipts || u32 count || (core hash || artefact hash)*`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.envelope.to_vec();
        out.extend_from_slice(self.evm.as_slice());
        out.extend_from_slice(self.receipts.as_slice());
        out.extend_from_slice(&encode_proofs(&self.proofs));
        out
    }

    /// Reads an opening, and returns what comes after it.
    pub fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (envelope, rest) = bytes.split_first_chunk::<ENVELOPE_BYTES>()?;
        let (evm, rest) = rest.split_first_chunk::<32>()?;
        let (receipts, rest) = rest.split_first_chunk::<32>()?;
        let (count, rest) = rest.split_first_chunk::<4>()?;
        let count = usize::try_from(u32::from_be_bytes(*count)).ok()?;
        if count > MAX_PROOFS {
            return None;
        }
        let (names, rest) = rest.split_at_checked(count * NAME_BYTES)?;
        let name = |name: &[u8]| ProofName {
            core_hash: B256::from_slice(&name[..32]),
            artefact: B256::from_slice(&name[32..]),
        };
        let opening = Self {
            envelope: *envelope,
            evm: evm.into(),
            receipts: receipts.into(),
            proofs: names.chunks_exact(NAME_BYTES).map(name).collect(),
        };
        Some((opening, rest))
    }
}

fn sha256(parts: &[&[u8]]) -> B256 {
    B256::from_slice(Sha256::hash(parts).as_ref())
}

fn body_hash(evm: B256, receipts: B256, proofs: B256) -> B256 {
    sha256(&[evm.as_slice(), receipts.as_slice(), proofs.as_slice()])
}

/// The body's third part.
fn encode_proofs(proofs: &[ProofName]) -> Vec<u8> {
    let mut out = Vec::with_capacity(4 + NAME_BYTES * proofs.len());
    out.extend_from_slice(&length_prefix(proofs.len()));
    for name in proofs {
        out.extend_from_slice(name.core_hash.as_slice());
        out.extend_from_slice(name.artefact.as_slice());
    }
    out
}

/// Why bytes are not a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a consensus block: {0}")]
pub struct CodecError(String);

impl ChainBlock {
    /// The block at height 0. Both sides know its contents, so it carries none.
    pub fn genesis(genesis_digest: B256, evm_genesis: B256) -> Self {
        Self {
            parent: genesis_digest,
            height: 0,
            evm_hash: evm_genesis,
            evm: Bytes::new(),
            receipts: Vec::new(),
            proofs: Vec::new(),
        }
    }

    /// SHA-256 of the encoded EVM block and of the encoded receipts, the body's first two parts.
    fn part_hashes(&self) -> (B256, B256) {
        let evm = sha256(&[&length_prefix(self.evm.len()), &self.evm]);
        let count = length_prefix(self.receipts.len());
        let lengths: Vec<_> = self.receipts.iter().map(|r| length_prefix(r.len())).collect();
        let mut parts: Vec<&[u8]> = Vec::with_capacity(1 + 2 * self.receipts.len());
        parts.push(&count);
        for (length, receipt) in lengths.iter().zip(&self.receipts) {
            parts.extend([&length[..], receipt]);
        }
        (evm, sha256(&parts))
    }

    /// SHA-256 of the SHA-256 hashes of the body's three parts, so that each can be shown without the others.
    pub fn body_hash(&self) -> B256 {
        let (evm, receipts) = self.part_hashes();
        body_hash(evm, receipts, sha256(&[&encode_proofs(&self.proofs)]))
    }

    /// `parent || height || evm_hash || body_hash`: what a light client needs of a block.
    pub fn envelope(&self) -> [u8; ENVELOPE_BYTES] {
        self.envelope_with(self.body_hash())
    }

    fn envelope_with(&self, body_hash: B256) -> [u8; ENVELOPE_BYTES] {
        let mut envelope = [0; ENVELOPE_BYTES];
        envelope[..32].copy_from_slice(self.parent.as_slice());
        envelope[32..40].copy_from_slice(&self.height.to_be_bytes());
        envelope[40..72].copy_from_slice(self.evm_hash.as_slice());
        envelope[72..].copy_from_slice(body_hash.as_slice());
        envelope
    }

    /// Shows the proofs that the block names.
    pub fn opening(&self) -> Opening {
        let (evm, receipts) = self.part_hashes();
        let body = body_hash(evm, receipts, sha256(&[&encode_proofs(&self.proofs)]));
        Opening {
            envelope: self.envelope_with(body),
            evm,
            receipts,
            proofs: self.proofs.clone(),
        }
    }

    /// What consensus signs: SHA-256 of the envelope. It commits to every byte of the block.
    pub fn digest(&self) -> B256 {
        envelope_digest(&self.envelope())
    }

    /// Checks the format's bounds.
    ///
    /// # Errors
    /// [`CodecError`] naming the bound.
    pub fn check_bounds(&self) -> Result<(), CodecError> {
        let total: usize = self.receipts.iter().map(|receipt| receipt.len()).sum();
        let largest = self.receipts.iter().map(|receipt| receipt.len()).max();
        for (what, got, limit) in [
            ("EVM bytes", self.evm.len(), MAX_EVM_BYTES),
            ("receipts", self.receipts.len(), MAX_RECEIPTS),
            ("proofs", self.proofs.len(), MAX_PROOFS),
            ("receipt bytes", total, MAX_RECEIPTS_BYTES),
            ("bytes of one receipt", largest.unwrap_or(0), MAX_RECEIPT_BYTES),
        ] {
            if got > limit {
                return Err(CodecError(format!("{got} {what}, at most {limit}")));
            }
        }
        Ok(())
    }

    /// The one encoding of this block.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.encoded_len());
        self.write_to(&mut out);
        out
    }

    /// Decodes exactly one block.
    ///
    /// # Errors
    /// [`CodecError`] if a bound is exceeded or bytes are missing or left over.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let wire = Wire::decode(Copying(bytes)).map_err(|e| CodecError(e.to_string()))?;
        Ok(Arc::unwrap_or_clone(wire.0))
    }

    fn encoded_len(&self) -> usize {
        let receipts: usize = self.receipts.iter().map(|receipt| 4 + receipt.len()).sum();
        HEAD_BYTES + 12 + self.evm.len() + receipts + NAME_BYTES * self.proofs.len()
    }

    fn write_to(&self, out: &mut impl BufMut) {
        out.put_slice(self.parent.as_slice());
        out.put_u64(self.height);
        out.put_slice(self.evm_hash.as_slice());
        out.put_slice(&length_prefix(self.evm.len()));
        out.put_slice(&self.evm);
        out.put_slice(&length_prefix(self.receipts.len()));
        for receipt in &self.receipts {
            out.put_slice(&length_prefix(receipt.len()));
            out.put_slice(receipt);
        }
        out.put_slice(&encode_proofs(&self.proofs));
    }
}

/// Digest of a block from its [`ChainBlock::envelope`].
pub fn envelope_digest(envelope: &[u8; ENVELOPE_BYTES]) -> B256 {
    B256::from_slice(Sha256::hash(&[envelope]).as_ref())
}

/// Lengths are bounded far below 2³² wherever blocks are made; a longer one saturates and is refused
/// by every decoder.
fn length_prefix(length: usize) -> [u8; 4] {
    u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes()
}

/// The block as the engine handles it: shared, so that clones are free.
#[derive(Debug, Clone)]
pub(crate) struct Wire(pub(crate) Arc<ChainBlock>);

impl Write for Wire {
    fn write(&self, out: &mut impl BufMut) {
        self.0.write_to(out);
    }
}

impl EncodeSize for Wire {
    fn encode_size(&self) -> usize {
        self.0.encoded_len()
    }
}

fn read_bytes(input: &mut impl Buf, limit: usize) -> Result<Bytes, Error> {
    let length = u32::read(input)? as usize;
    if length > limit {
        return Err(Error::InvalidLength(length));
    }
    let bytes: RawBytes = input.try_take_owned(length).map_err(|_| Error::EndOfBuffer)?;
    Ok(bytes.into())
}

impl Read for Wire {
    type Cfg = ();

    fn read_cfg(input: &mut impl Buf, _: &()) -> Result<Self, Error> {
        let parent = B256::new(<[u8; 32]>::read(input)?);
        let height = u64::read(input)?;
        let evm_hash = B256::new(<[u8; 32]>::read(input)?);
        let evm = read_bytes(input, MAX_EVM_BYTES)?;
        let count = u32::read(input)? as usize;
        if count > MAX_RECEIPTS {
            return Err(Error::InvalidLength(count));
        }
        let mut total = 0;
        // a count is cheap to claim: memory grows with what is really there
        let mut receipts = Vec::with_capacity(count.min(input.remaining() / 4));
        for _ in 0..count {
            let receipt = read_bytes(input, MAX_RECEIPT_BYTES)?;
            total += receipt.len();
            if total > MAX_RECEIPTS_BYTES {
                return Err(Error::InvalidLength(total));
            }
            receipts.push(receipt);
        }
        let count = u32::read(input)? as usize;
        if count > MAX_PROOFS {
            return Err(Error::InvalidLength(count));
        }
        let mut proofs = Vec::with_capacity(count);
        for _ in 0..count {
            proofs.push(ProofName {
                core_hash: B256::new(<[u8; 32]>::read(input)?),
                artefact: B256::new(<[u8; 32]>::read(input)?),
            });
        }
        Ok(Self(Arc::new(ChainBlock {
            parent,
            height,
            evm_hash,
            evm,
            receipts,
            proofs,
        })))
    }
}

impl Digestible for Wire {
    type Digest = Digest;

    fn digest(&self) -> Digest {
        to_digest(self.0.digest())
    }
}

impl Heightable for Wire {
    fn height(&self) -> Height {
        Height::new(self.0.height)
    }
}

impl commonware_consensus::Block for Wire {
    fn parent(&self) -> Digest {
        to_digest(self.0.parent)
    }
}

impl BoundedBlock for Wire {
    fn max_encode_size(_: &()) -> usize {
        HEAD_BYTES + 12 + MAX_EVM_BYTES + MAX_RECEIPTS_BYTES + 4 * MAX_RECEIPTS + NAME_BYTES * MAX_PROOFS
    }
}

pub(crate) fn to_digest(hash: B256) -> Digest {
    const { assert!(Digest::SIZE == 32) };
    Digest::from(hash.0)
}

pub(crate) fn from_digest(digest: &Digest) -> B256 {
    B256::from_slice(digest.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block() -> impl Strategy<Value = ChainBlock> {
        let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
        let receipts = prop::collection::vec(bytes(300), 0..20);
        let proofs = prop::collection::vec((any::<[u8; 32]>(), any::<[u8; 32]>()), 0..5);
        (
            any::<[u8; 32]>(),
            any::<u64>(),
            any::<[u8; 32]>(),
            bytes(2_000),
            receipts,
            proofs,
        )
            .prop_map(|(parent, height, evm_hash, evm, receipts, proofs)| ChainBlock {
                parent: parent.into(),
                height,
                evm_hash: evm_hash.into(),
                evm: evm.into(),
                receipts: receipts.into_iter().map(Bytes::from).collect(),
                proofs: proofs
                    .into_iter()
                    .map(|(core, artefact)| name(core, artefact))
                    .collect(),
            })
    }

    fn name(core_hash: impl Into<B256>, artefact: impl Into<B256>) -> ProofName {
        let (core_hash, artefact) = (core_hash.into(), artefact.into());
        ProofName { core_hash, artefact }
    }

    proptest! {
        #[test]
        fn round_trip(block in block()) {
            let bytes = block.encode();
            prop_assert_eq!(bytes.len(), Wire(Arc::new(block.clone())).encode_size());
            prop_assert_eq!(ChainBlock::decode(&bytes), Ok(block));
        }

        #[test]
        fn one_block_one_encoding(block in block(), at in any::<prop::sample::Index>(), flip in 1..=255u8) {
            let mut bytes = block.encode();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            if let Ok(other) = ChainBlock::decode(&bytes) {
                prop_assert_eq!(other.encode(), bytes);
                prop_assert_ne!(other.digest(), block.digest());
            }
        }

        #[test]
        fn truncated_or_extended_bytes_are_refused(block in block(), cut in any::<prop::sample::Index>()) {
            let mut bytes = block.encode();
            prop_assert!(ChainBlock::decode(&bytes[..cut.index(bytes.len())]).is_err());
            bytes.push(0);
            prop_assert!(ChainBlock::decode(&bytes).is_err());
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = ChainBlock::decode(&bytes);
            let _ = Opening::decode(&bytes);
        }

        #[test]
        fn an_opening_shows_the_proofs_of_one_block_only(block in block(), at in any::<prop::sample::Index>(), flip in 1..=255u8) {
            let opening = block.opening();
            prop_assert_eq!(opening.digest(), Some(block.digest()));
            prop_assert_eq!(&opening.proofs, &block.proofs);
            let mut bytes = opening.encode();
            let end = bytes.len();
            bytes.extend(b"rest");
            prop_assert_eq!(Opening::decode(&bytes), Some((opening, &b"rest"[..])));
            let at = at.index(end);
            bytes[at] ^= flip;
            if let Some((other, _)) = Opening::decode(&bytes) {
                prop_assert_ne!(other.digest(), Some(block.digest()));
            }
        }
    }

    #[test]
    fn the_digest_opens_to_the_evm_hash() {
        let block = ChainBlock {
            parent: B256::repeat_byte(1),
            height: 0x0102_0304_0506_0708,
            evm_hash: B256::repeat_byte(2),
            evm: Bytes::from_static(b"evm"),
            receipts: vec![Bytes::from_static(b"r0"), Bytes::new()],
            proofs: vec![name([3; 32], [4; 32])],
        };
        let evm = [&[0, 0, 0, 3][..], b"evm"].concat();
        let receipts = [&[0, 0, 0, 2, 0, 0, 0, 2][..], b"r0", &[0; 4]].concat();
        let proofs = [&[0, 0, 0, 1][..], &[3; 32], &[4; 32]].concat();
        assert_eq!(&block.encode()[HEAD_BYTES..], [&evm[..], &receipts, &proofs].concat());
        let envelope = block.envelope();
        assert_eq!(&envelope[40..72], block.evm_hash.as_slice());
        let hashes = [&evm, &receipts, &proofs].map(|part| Sha256::hash(&[part]));
        let body = Sha256::hash(&[&hashes[0], &hashes[1], &hashes[2]]);
        assert_eq!(&envelope[72..], body.as_ref());
        assert_eq!(block.digest().as_slice(), Sha256::hash(&[&envelope]).as_ref());
        assert_eq!(from_digest(&Wire(Arc::new(block.clone())).digest()), block.digest());
    }

    #[test]
    fn bounds_hold_in_both_directions() {
        let mut block = ChainBlock::genesis(B256::ZERO, B256::ZERO);
        let full = Bytes::from(vec![7; MAX_RECEIPT_BYTES]);
        block.receipts = vec![full.clone(); MAX_RECEIPTS_BYTES / MAX_RECEIPT_BYTES];
        block.evm = Bytes::from(vec![1; MAX_EVM_BYTES]);
        block.proofs = vec![name([1; 32], [2; 32]); MAX_PROOFS];
        assert_eq!(block.check_bounds(), Ok(()));
        assert!(block.encode().len() <= Wire::max_encode_size(&()));
        assert_eq!(ChainBlock::decode(&block.encode()).as_ref(), Ok(&block));

        let mut more = block.clone();
        more.receipts.push(Bytes::from_static(b"x"));
        let mut longer = block.clone();
        longer.receipts = vec![Bytes::from(vec![7; MAX_RECEIPT_BYTES + 1])];
        let mut bigger = block.clone();
        bigger.evm = Bytes::from(vec![1; MAX_EVM_BYTES + 1]);
        let mut many = block.clone();
        many.receipts = vec![Bytes::new(); MAX_RECEIPTS + 1];
        let mut proven = block.clone();
        proven.proofs.push(name([1; 32], [2; 32]));
        assert_eq!(Opening::decode(&proven.opening().encode()), None);
        for bad in [more, longer, bigger, many, proven] {
            assert!(bad.check_bounds().is_err());
            assert!(ChainBlock::decode(&bad.encode()).is_err());
        }
    }

    #[test]
    fn a_claimed_count_allocates_nothing() {
        let mut bytes = ChainBlock::genesis(B256::ZERO, B256::ZERO).encode();
        let end = bytes.len();
        bytes[end - 8..end - 4].copy_from_slice(&(MAX_RECEIPTS as u32).to_be_bytes());
        assert!(ChainBlock::decode(&bytes).is_err());
    }
}
