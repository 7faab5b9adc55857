//! Reads of `EvidenceRegistry`: what is attested, until when, and the policy; and the system transaction that records verdicts.

use crate::{
    addresses,
    bindings::EvidenceRegistry,
    slots,
    state::{StateReader, field, some},
};
use alloy_primitives::{B256, Bytes, U256, keccak256};
use alloy_sol_types::SolCall;

/// What validators found about one submission, and a version of vendor collateral that they verified, as `record` takes them.
pub use EvidenceRegistry::{Verdict, Version};

/// Most submissions of one block: `EvidenceRegistry.MAX_PER_BLOCK`.
pub const MAX_PER_BLOCK: usize = 8;
/// Most collateral of one block without a document: `EvidenceRegistry.MAX_COLLATERAL_PER_BLOCK`.
pub const MAX_COLLATERAL_PER_BLOCK: usize = 2;
/// Most versions of collateral of one block: four of each submission.
pub const MAX_VERSIONS: usize = 4 * (MAX_PER_BLOCK + MAX_COLLATERAL_PER_BLOCK);
/// Gas limit of the system transaction: eight records of five new slots, two more and an event each, and a slot and an event of every
/// version.
pub const GAS_LIMIT: u64 = 3_000_000;
/// Most bytes of a policy: `EvidenceRegistry.MAX_POLICY`.
pub const MAX_POLICY: usize = 16_384;

/// What validators found about the submissions of a block: what `record` takes.
#[derive(Debug, Clone, Default)]
pub struct Findings {
    /// One for each submission of a document, in order.
    pub verdicts: Vec<Verdict>,
    /// Versions of collateral that are newer than what the chain has, at most [`MAX_VERSIONS`].
    pub versions: Vec<Version>,
}

impl Findings {
    /// Whether there is nothing to record.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.verdicts.is_empty() && self.versions.is_empty()
    }
}

/// Accepted evidence (`EvidenceRegistry.evidence`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EvidenceRecord {
    /// The node.
    pub node_id: B256,
    /// Digest of the keyset that it binds.
    pub keyset: B256,
    /// Hash of what runs there.
    pub measurement: B256,
    /// Hash of what signed.
    pub signer: B256,
    /// Timestamp of the block with the submission, seconds.
    pub registered_at: u64,
    /// Last second at which receipts may refer to it.
    pub expires_at: u64,
    /// Policy that accepted it.
    pub epoch: u64,
    /// Number of its kind.
    pub kind: u8,
    /// Code of its grade (receipt.md §4).
    pub grade: u8,
}

/// The policy in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyEpoch {
    /// Its number, from 1; 0 if there is none.
    pub number: u64,
    /// When it was set, seconds.
    pub since: u64,
}

/// Reads accepted evidence; `None` if there is none of this identity.
///
/// # Errors
/// Those of the reader.
pub fn read<R: StateReader>(state: &R, evidence_id: B256) -> Result<Option<EvidenceRecord>, R::Error> {
    let base = slots::evidence_base(evidence_id);
    let word = |offset: u64| state.storage(addresses::EVIDENCE_REGISTRY, base.wrapping_add(U256::from(offset)));
    let packed = word(4)?;
    let registered_at = field(packed, 0, 40);
    if registered_at == 0 {
        return Ok(None);
    }
    Ok(Some(EvidenceRecord {
        node_id: word(0)?.into(),
        keyset: word(1)?.into(),
        measurement: word(2)?.into(),
        signer: word(3)?.into(),
        registered_at,
        expires_at: field(packed, 40, 40),
        epoch: field(packed, 80, 40),
        // Eight bits each, by the mask in `field`.
        kind: field(packed, 120, 8) as u8,
        grade: field(packed, 128, 8) as u8,
    }))
}

/// Newest accepted evidence of a keyset; `None` if there is none.
///
/// # Errors
/// Those of the reader.
pub fn latest<R: StateReader>(state: &R, keyset: B256) -> Result<Option<B256>, R::Error> {
    let id = state.storage(addresses::EVIDENCE_REGISTRY, slots::evidence_latest(keyset))?;
    Ok((!id.is_zero()).then(|| id.into()))
}

/// When a measurement or signer was revoked, seconds; `None` if it was not.
///
/// # Errors
/// Those of the reader.
pub fn revoked_at<R: StateReader>(state: &R, subject: B256) -> Result<Option<u64>, R::Error> {
    let word = state.storage(addresses::EVIDENCE_REGISTRY, slots::evidence_revoked(subject))?;
    Ok(some(field(word, 0, 40)))
}

/// The newest version of a part of vendor collateral (`EvidenceRegistry.newest`): its number and when it was issued, seconds. Zeros if
/// none was seen.
///
/// # Errors
/// Those of the reader.
pub fn newest<R: StateReader>(state: &R, subject: B256) -> Result<(u64, u64), R::Error> {
    let word = state.storage(addresses::EVIDENCE_REGISTRY, slots::evidence_newest(subject))?;
    Ok((field(word, 0, 64), field(word, 64, 40)))
}

/// The policy in force.
///
/// # Errors
/// Those of the reader.
pub fn policy_epoch<R: StateReader>(state: &R) -> Result<PolicyEpoch, R::Error> {
    let word = state.storage(addresses::EVIDENCE_REGISTRY, slots::evidence_epoch())?;
    Ok(PolicyEpoch {
        number: field(word, 0, 40),
        since: field(word, 40, 40),
    })
}

/// Until when receipts may refer to evidence by this state (`EvidenceRegistry.validUntil`), apart from its keyset's own
/// revocation; `None` if what it says is revoked. `grace` is the contract's.
///
/// # Errors
/// Those of the reader.
pub fn valid_until<R: StateReader>(state: &R, record: &EvidenceRecord, grace: u64) -> Result<Option<u64>, R::Error> {
    for subject in [record.measurement, record.signer] {
        if revoked_at(state, subject)?.is_some() {
            return Ok(None);
        }
    }
    let policy = policy_epoch(state)?;
    Ok(Some(if record.epoch == policy.number {
        record.expires_at
    } else {
        record.expires_at.min(policy.since.saturating_add(grace))
    }))
}

/// The policy's bytes; empty if there is none, or more than [`MAX_POLICY`], which the contract does not allow.
///
/// # Errors
/// Those of the reader.
pub fn policy<R: StateReader>(state: &R) -> Result<Vec<u8>, R::Error> {
    let slot = slots::evidence_policy();
    let head = state.storage(addresses::EVIDENCE_REGISTRY, slot)?;
    // Solidity's `bytes`: up to 31 in the slot with twice the length in the lowest byte, else twice the length plus one.
    if !head.bit(0) {
        let length = usize::try_from(field(head, 1, 7)).unwrap_or(0).min(31);
        return Ok(head.to_be_bytes::<32>()[..length].to_vec());
    }
    let length = usize::try_from(head >> 1).unwrap_or(usize::MAX);
    if length > MAX_POLICY {
        return Ok(Vec::new());
    }
    let first = U256::from_be_bytes(keccak256(slot.to_be_bytes::<32>()).0);
    let mut bytes = Vec::with_capacity(length + 32);
    for word in 0..length.div_ceil(32) {
        let value = state.storage(addresses::EVIDENCE_REGISTRY, first.wrapping_add(U256::from(word)))?;
        bytes.extend_from_slice(&value.to_be_bytes::<32>());
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// Calldata of the system transaction: `EvidenceRegistry.record`.
#[must_use]
pub fn calldata(findings: &Findings) -> Bytes {
    let Findings { verdicts, versions } = findings.clone();
    EvidenceRegistry::recordCall { verdicts, versions }.abi_encode().into()
}
