//! From a certificate to an EVM header (ledger.md §10).
//!
//! A certificate signs the digest of a consensus block. The block's envelope opens the digest to its parent, height and
//! EVM block hash; a block below the certified one is reached by following parents; the EVM header opens the block hash
//! to the batch root and the state root.

use crate::{
    certificate::{Proposal, ValidatorSet},
    error::{ProofError, same},
};
use alloy_consensus::Header;
use alloy_primitives::B256;
use alloy_rlp::Decodable as _;
use opg_primitives::hash::{keccak, sha256};
use opg_receipt::file::{ENVELOPE_BYTES, Finality, MAX_ENVELOPES};

/// Most bytes of a header; real ones have about 600.
const MAX_HEADER: usize = 4_096;

/// A block that a quorum of validators finalised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertifiedBlock {
    /// EVM block hash.
    pub hash: B256,
    /// The EVM header.
    pub header: Header,
    /// Digests of the consensus blocks from this one up to the certified one, at least one.
    pub digests: Vec<B256>,
    /// The proposal that was signed.
    pub proposal: Proposal,
    /// How many validators signed.
    pub signers: usize,
}

/// Opened envelope of a consensus block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope {
    /// Digest of the parent block; the genesis digest at height 0.
    pub parent: B256,
    /// Height, equal to the EVM block's number.
    pub height: u64,
    /// EVM block hash.
    pub evm_hash: B256,
    /// SHA-256 of the block's body.
    pub body_hash: B256,
}

impl Envelope {
    /// Opens the 104 bytes.
    ///
    /// # Errors
    /// [`ProofError::Malformed`] for any other length.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProofError> {
        let bytes: &[u8; ENVELOPE_BYTES] = bytes.try_into().map_err(|_| {
            let reason = format!("expected {ENVELOPE_BYTES} bytes, got {}", bytes.len());
            ProofError::malformed("envelope", reason)
        })?;
        let (parent, rest) = bytes.split_at(32);
        let (height, rest) = rest.split_at(8);
        let (evm_hash, body_hash) = rest.split_at(32);
        Ok(Self {
            parent: B256::from_slice(parent),
            height: height.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)),
            evm_hash: B256::from_slice(evm_hash),
            body_hash: B256::from_slice(body_hash),
        })
    }
}

/// Checks a block against the validators. That they are those of the proposal's epoch is for the caller to see to:
/// [`Epochs::verify`](crate::handover::Epochs::verify) does.
///
/// # Errors
/// [`ProofError`] naming the first link that does not hold.
pub fn verify(finality: &Finality, validators: &ValidatorSet) -> Result<CertifiedBlock, ProofError> {
    let mut block = open(finality)?;
    // Last, as it costs two pairings and the hashes above cost nothing.
    let (signers, _) = validators.verify(&finality.proposal, &finality.certificate)?;
    block.signers = signers;
    Ok(block)
}

/// Everything but the certificate: what it would certify, by nobody.
pub(crate) fn open(finality: &Finality) -> Result<CertifiedBlock, ProofError> {
    if finality.envelopes.len() > MAX_ENVELOPES {
        let reason = format!("{}, at most {MAX_ENVELOPES} are allowed", finality.envelopes.len());
        return Err(ProofError::malformed("list of envelopes", reason));
    }
    let proposal = Proposal::decode(&finality.proposal)?;
    let mut digests = Vec::with_capacity(finality.envelopes.len());
    let mut target: Option<Envelope> = None;
    let mut below: Option<(B256, u64)> = None;
    for bytes in &finality.envelopes {
        let envelope = Envelope::decode(bytes)?;
        if let Some((digest, height)) = below {
            same("parent of an envelope", digest, envelope.parent)?;
            if height.checked_add(1) != Some(envelope.height) {
                let expected = format!("{height} + 1");
                return Err(ProofError::mismatch("height of an envelope", expected, envelope.height));
            }
        }
        let digest = sha256(bytes);
        digests.push(digest);
        below = Some((digest, envelope.height));
        target = target.or(Some(envelope));
    }
    let (Some(target), Some((top, _))) = (target, below) else {
        return Err(ProofError::malformed("list of envelopes", "empty"));
    };
    same("digest of the certified block", proposal.digest, top)?;
    let header = decode_header(&finality.header)?;
    let hash = keccak(&finality.header);
    same("EVM block hash", target.evm_hash, hash)?;
    if header.number != target.height {
        return Err(ProofError::mismatch(
            "number of the EVM block",
            target.height,
            header.number,
        ));
    }
    Ok(CertifiedBlock {
        hash,
        header,
        digests,
        proposal,
        signers: 0,
    })
}

fn decode_header(bytes: &[u8]) -> Result<Header, ProofError> {
    const WHAT: &str = "header";
    if bytes.len() > MAX_HEADER {
        let reason = format!("{} bytes, at most {MAX_HEADER} are allowed", bytes.len());
        return Err(ProofError::malformed(WHAT, reason));
    }
    let mut rest = bytes;
    let header = Header::decode(&mut rest).map_err(|error| ProofError::malformed(WHAT, error))?;
    // One header has one encoding, or its hash would not name it.
    if !rest.is_empty() || alloy_rlp::encode(&header) != bytes {
        return Err(ProofError::malformed(WHAT, "not the canonical RLP"));
    }
    Ok(header)
}
