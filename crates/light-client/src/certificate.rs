//! Finalization certificates: BLS12-381 multisignatures over simplex proposals.
//!
//! This is an implementation of its own on `blst`, so that a light client needs none of the consensus code and the two
//! check each other in tests. The signed bytes are
//! ```text
//! namespace = "opg/consensus/v1/" || lower-case hex of the genesis digest || "_FINALIZE"
//! message   = varint(len namespace) || namespace || proposal
//! proposal  = varint epoch || varint view || varint parent view || digest (32)
//! certificate = u64 number of validators || bitmap, lowest bit first || signature in G1 (48)
//! ```
//! Bit `i` of the bitmap is the validator at position `i` of the set sorted by network identity.

use crate::error::ProofError;
use alloy_primitives::{B256, FixedBytes};
use blst::{
    BLST_ERROR,
    min_sig::{PublicKey, Signature},
};
use opg_contracts::{GenesisFile, possession_namespace, seats::Seat};
use opg_primitives::domain::Tag;

/// Hash-to-curve suite of votes.
const VOTE_DST: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";
/// Hash-to-curve suite of proofs of possession.
const POSSESSION_DST: &[u8] = b"BLS_POP_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";
/// What simplex appends to the namespace for finalization votes.
const FINALIZE: &[u8] = b"_FINALIZE";
/// Most bytes of a varint of 64 bits.
const MAX_VARINT: usize = 10;
/// Most bytes of a proposal: three varints and a digest.
const MAX_PROPOSAL: usize = 3 * MAX_VARINT + 32;

/// The validators of an epoch, keys checked.
#[derive(Debug, Clone)]
pub struct ValidatorSet {
    /// Sorted by identity.
    keys: Vec<PublicKey>,
    namespace: Vec<u8>,
    genesis_digest: B256,
}

/// A decoded simplex proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proposal {
    /// Epoch.
    pub epoch: u64,
    /// View.
    pub view: u64,
    /// View of the parent.
    pub parent_view: u64,
    /// Digest of the consensus block.
    pub digest: B256,
}

impl ValidatorSet {
    /// Reads the keys of a genesis file and checks each proof of possession. Without those a validator could choose its
    /// key as a function of the others' and sign for all of them.
    ///
    /// # Errors
    /// [`ProofError::Validator`] naming the validator, [`ProofError::ValidatorSet`] for an empty set or a key used twice.
    pub fn from_genesis(genesis: &GenesisFile) -> Result<Self, ProofError> {
        let mut members = Vec::with_capacity(genesis.validators.len());
        for validator in &genesis.validators {
            let invalid = |what| ProofError::Validator {
                name: validator.name.clone(),
                what,
            };
            let key = PublicKey::key_validate(validator.bls.as_slice()).map_err(|_| invalid("BLS key"))?;
            let proof = Signature::sig_validate(validator.bls_possession.as_slice(), true)
                .map_err(|_| invalid("proof of possession"))?;
            let namespace = possession_namespace(genesis.chain_id, validator.operator, 0);
            let message = unique(&namespace, validator.bls.as_slice());
            match proof.verify(false, &message, POSSESSION_DST, &[], &key, false) {
                BLST_ERROR::BLST_SUCCESS => members.push((validator.identity, validator.bls, key)),
                _ => return Err(invalid("proof of possession")),
            }
        }
        Self::new(genesis.digest(), members)
    }

    /// The set of a later epoch, as certified state names it. Who admits a seat to the state checks its proofs of possession
    /// (D16); here the keys are only checked to be keys.
    ///
    /// # Errors
    /// [`ProofError::Seat`] naming the seat, [`ProofError::ValidatorSet`] for an empty set or a key used twice.
    pub fn from_seats(genesis_digest: B256, seats: &[Seat]) -> Result<Self, ProofError> {
        let members = seats.iter().enumerate().map(|(seat, keys)| {
            let key = PublicKey::key_validate(keys.bls.as_slice()).map_err(|_| ProofError::Seat { seat })?;
            Ok::<_, ProofError>((keys.identity, keys.bls, key))
        });
        Self::new(genesis_digest, members.collect::<Result<_, _>>()?)
    }

    fn new(genesis_digest: B256, mut members: Vec<(B256, FixedBytes<96>, PublicKey)>) -> Result<Self, ProofError> {
        members.sort_by_key(|(identity, ..)| *identity);
        if members.is_empty() {
            return Err(ProofError::ValidatorSet("no validators"));
        }
        if members.windows(2).any(|pair| matches!(pair, [a, b] if a.0 == b.0)) {
            return Err(ProofError::ValidatorSet("two validators with the same identity"));
        }
        let mut compressed: Vec<_> = members.iter().map(|(_, bls, _)| *bls).collect();
        compressed.sort_unstable();
        if compressed.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
            return Err(ProofError::ValidatorSet("two validators with the same BLS key"));
        }
        let mut namespace = format!("{}{genesis_digest:x}", Tag::Consensus).into_bytes();
        namespace.extend_from_slice(FINALIZE);
        Ok(Self {
            keys: members.into_iter().map(|(_, _, key)| key).collect(),
            namespace,
            genesis_digest,
        })
    }

    /// Number of validators.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there are no validators; never true for a set that was built.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Digest of the genesis file the set comes from.
    #[must_use]
    pub const fn genesis_digest(&self) -> B256 {
        self.genesis_digest
    }

    /// Signers that a certificate needs: `n − ⌊(n − 1)/3⌋`, which is `2f + 1` for `n = 3f + 1`.
    #[must_use]
    pub fn quorum(&self) -> usize {
        self.len() - self.len().saturating_sub(1) / 3
    }

    /// Checks a certificate and gives the number of its signers and the proposal they signed.
    ///
    /// # Errors
    /// [`ProofError`] unless both encodings are canonical and a quorum signed exactly these bytes.
    pub fn verify(&self, proposal: &[u8], certificate: &[u8]) -> Result<(usize, Proposal), ProofError> {
        let decoded = Proposal::decode(proposal)?;
        let (signers, signature) = self.decode_certificate(certificate)?;
        let quorum = self.quorum();
        if signers.len() < quorum {
            let (got, validators) = (signers.len(), self.len());
            return Err(ProofError::Quorum {
                expected: quorum,
                got,
                validators,
            });
        }
        let message = unique(&self.namespace, proposal);
        // The signature was checked to be in the group and not infinity when it was decoded, the keys when the set was
        // built.
        match signature.fast_aggregate_verify(false, &message, VOTE_DST, &signers) {
            BLST_ERROR::BLST_SUCCESS => Ok((signers.len(), decoded)),
            _ => Err(ProofError::Signature),
        }
    }

    fn decode_certificate(&self, bytes: &[u8]) -> Result<(Vec<&PublicKey>, Signature), ProofError> {
        const WHAT: &str = "certificate";
        let bitmap_len = self.len().div_ceil(8);
        let expected = 8 + bitmap_len + 48;
        if bytes.len() != expected {
            return Err(ProofError::malformed(
                WHAT,
                format!("expected {expected} bytes, got {}", bytes.len()),
            ));
        }
        let (count, rest) = bytes.split_at(8);
        let (bitmap, signature) = rest.split_at(bitmap_len);
        let count = count.iter().fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
        if count != self.len() as u64 {
            return Err(ProofError::mismatch("validators in the certificate", self.len(), count));
        }
        let bit = |i: usize| bitmap.get(i / 8).is_some_and(|byte| byte >> (i % 8) & 1 == 1);
        if (self.len()..bitmap_len * 8).any(bit) {
            return Err(ProofError::malformed(WHAT, "bits beyond the last validator"));
        }
        let signers = self
            .keys
            .iter()
            .enumerate()
            .filter(|(i, _)| bit(*i))
            .map(|(_, key)| key)
            .collect();
        // Only the compressed form has 48 bytes; `sig_validate` refuses infinity and points outside the group.
        let signature = Signature::sig_validate(signature, true)
            .map_err(|_| ProofError::malformed(WHAT, "the signature is no point of the group"))?;
        Ok((signers, signature))
    }
}

impl Proposal {
    /// Decodes a proposal.
    ///
    /// # Errors
    /// [`ProofError::Malformed`] unless the bytes are the shortest encoding of a proposal.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProofError> {
        const WHAT: &str = "proposal";
        if bytes.len() > MAX_PROPOSAL {
            let reason = format!("{} bytes, at most {MAX_PROPOSAL} are allowed", bytes.len());
            return Err(ProofError::malformed(WHAT, reason));
        }
        let (epoch, rest) = varint(bytes)?;
        let (view, rest) = varint(rest)?;
        let (parent_view, rest) = varint(rest)?;
        let digest = B256::try_from(rest).map_err(|_| ProofError::malformed(WHAT, "its digest has not 32 bytes"))?;
        Ok(Self {
            epoch,
            view,
            parent_view,
            digest,
        })
    }
}

/// Reads a little-endian base-128 integer in its shortest form.
fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), ProofError> {
    let mut value = 0u64;
    for (i, byte) in bytes.iter().enumerate().take(MAX_VARINT) {
        let (bits, last) = (u64::from(byte & 0x7f), byte & 0x80 == 0);
        // The tenth byte holds the single bit that is left; a final zero byte would be a longer form.
        if (i == MAX_VARINT - 1 && bits > 1) || (last && bits == 0 && i > 0) {
            break;
        }
        value |= bits << (7 * i);
        if last {
            let rest = bytes.get(i + 1..).unwrap_or_default();
            return Ok((value, rest));
        }
    }
    Err(ProofError::malformed(
        "proposal",
        "not the shortest encoding of an integer",
    ))
}

/// `varint(len namespace) || namespace || message`.
fn unique(namespace: &[u8], message: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(MAX_VARINT + namespace.len() + message.len());
    let mut length = namespace.len();
    while length >= 0x80 {
        // The low seven bits, and a mark that more follow.
        bytes.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(namespace);
    bytes.extend_from_slice(message);
    bytes
}
