//! Evidence of a machine with GPUs: CPU evidence that vouches for GPU evidence.
//!
//! A GPU's report says nothing of the machine that shows it, so a report of an honest GPU elsewhere could be shown. Two
//! rules join them: the GPU signs a nonce that only this statement has ([`gpu_nonce`]), and the CPU's report binds the
//! identities of the very reports beside it ([`bound`]).

use crate::{
    claims::{Claims, EvidenceId, Kind},
    reject::Reject,
};
use opg_primitives::domain::Tag;
use sha2::{Digest, Sha256};

/// Nonce that GPU number `index` must sign for the statement with digest `statement`.
#[must_use]
pub fn gpu_nonce(statement: &[u8; 32], index: u32) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(Tag::GpuNonce.as_str());
    hash.update(statement);
    hash.update(index.to_be_bytes());
    hash.finalize().into()
}

/// What the CPU's report must bind: the statement and the GPUs' evidence, in the order of their numbers.
#[must_use]
pub fn bound(statement: &[u8; 32], gpus: &[EvidenceId]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(Tag::CompositeEvidence.as_str());
    hash.update(statement);
    hash.update((gpus.len() as u64).to_be_bytes());
    for gpu in gpus {
        hash.update(gpu.0);
    }
    hash.finalize().into()
}

/// Checks that `cpu` vouches for all of `gpus` and for nothing else, for the statement with digest `statement`.
///
/// # Errors
/// [`Reject::WrongKind`], [`Reject::NonceAbsent`], [`Reject::NonceMismatch`], [`Reject::Duplicate`] for one GPU shown
/// twice, [`Reject::BindingMismatch`].
pub fn check(statement: &[u8; 32], cpu: &Claims, gpus: &[Claims]) -> Result<(), Reject> {
    let mut ids = Vec::with_capacity(gpus.len());
    for (index, gpu) in (0u32..).zip(gpus) {
        if gpu.kind != Kind::NvidiaGpu {
            return Err(Reject::WrongKind {
                expected: Kind::NvidiaGpu.as_str(),
            });
        }
        let nonce = gpu.nonce.as_ref().ok_or(Reject::NonceAbsent)?;
        if nonce.as_ref() != gpu_nonce(statement, index) {
            return Err(Reject::NonceMismatch);
        }
        if gpus.iter().filter(|other| other.signer == gpu.signer).count() > 1 {
            return Err(Reject::Duplicate { what: "a GPU" });
        }
        ids.push(gpu.evidence_id);
    }
    let wanted = bound(statement, &ids);
    let (head, rest) = cpu.bound.as_ref().split_at_checked(wanted.len()).unwrap_or_default();
    if cpu.kind != Kind::NvidiaGpu && head == wanted && rest.iter().all(|byte| *byte == 0) {
        Ok(())
    } else {
        Err(Reject::BindingMismatch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of a separate calculation in Python (hashlib).
    #[test]
    fn golden_vectors() {
        assert_eq!(
            hex::encode(gpu_nonce(&[7; 32], 3)),
            "d26d37b3ed573d4ae27c645efff6af10000efc3abf07296030cc58d4ad09d452"
        );
        assert_eq!(
            hex::encode(bound(&[7; 32], &[EvidenceId([1; 32]), EvidenceId([2; 32])])),
            "781fb13c4a35fd161c6a1443f3ea69e38c07b9354d7c832afc1856a77ffb57ab"
        );
    }
}
