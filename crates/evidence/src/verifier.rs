//! The one trait of all verifiers.

use crate::{
    claims::{Kind, UnixSeconds},
    reject::Reject,
    roots::{RootGrade, TrustRoots, Verdict},
};

/// Verifies evidence of one kind: signatures, certificate chain, validity at a time, vendor collateral.
///
/// Pure (D13): the same arguments give the same answer on every machine; no clock, no I/O, no randomness, no panic on
/// any bytes. What the guest is and whether it is wanted is the policy's matter ([`crate::policy::Policy::judge`]): a
/// debug guest with good signatures verifies here and is refused there.
pub trait EvidenceVerifier {
    /// Kind verified.
    const KIND: Kind;

    /// What must lie beside the document.
    type Collateral: ?Sized;

    /// Verifies `raw` at the time `at` under `roots`.
    ///
    /// # Errors
    /// The first failure found.
    fn verify<G: RootGrade>(
        &self,
        raw: &[u8],
        collateral: &Self::Collateral,
        roots: &TrustRoots<G>,
        at: UnixSeconds,
    ) -> Result<Verdict<G>, Reject>;
}
