//! Trust anchors and the grade that follows from them. The grade is a type, not a flag (D9).
//!
//! [`TrustRoots<Hardware>`] has one constructor, [`TrustRoots::pinned`], without an argument: nobody can add a root to
//! it. A software attester's roots are [`TrustRoots<Development>`]. A [`Verdict<G>`] is made only by a verifier of this
//! crate under roots of the same grade, and nothing converts one grade into the other:
//!
//! ```compile_fail,E0308
//! use opg_evidence::{Development, Hardware, Verdict};
//!
//! fn upgrade(verdict: Verdict<Development>) -> Verdict<Hardware> {
//!     verdict
//! }
//! ```
//!
//! ```compile_fail,E0277
//! use opg_evidence::{Development, Hardware, Verdict};
//!
//! fn upgrade(verdict: Verdict<Development>) -> Verdict<Hardware> {
//!     verdict.into()
//! }
//! ```
//!
//! A grade of one's own is not possible either, the trait is sealed:
//!
//! ```compile_fail,E0277
//! #[derive(Debug, Clone, Copy)]
//! struct Better;
//! impl opg_evidence::RootGrade for Better {
//!     const GRADE: opg_primitives::mode::Grade = opg_primitives::mode::Grade::Hardware;
//! }
//! ```

use crate::claims::{Claims, Kind};
use opg_primitives::mode::Grade;
use sha2::{Digest, Sha256};
use std::{borrow::Cow, fmt, marker::PhantomData};

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Hardware {}
    impl Sealed for super::Development {}
}

/// Which roots a verdict rests on.
pub trait RootGrade: sealed::Sealed + fmt::Debug + Copy + 'static {
    /// The word that receipts and pages show.
    const GRADE: Grade;
}

/// Roots of hardware vendors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hardware;

/// Roots of a software attester; its verdicts are `simulated`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Development;

impl RootGrade for Hardware {
    const GRADE: Grade = Grade::Hardware;
}

impl RootGrade for Development {
    const GRADE: Grade = Grade::Simulated;
}

/// One self-signed root certificate, trusted by its exact bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Anchor {
    kind: Kind,
    label: Cow<'static, str>,
    der: Cow<'static, [u8]>,
    sha256: [u8; 32],
}

impl Anchor {
    /// A root for evidence of one kind. `label` is shown to people (SNP: the product, `Milan`, `Genoa`, `Turin`).
    #[must_use]
    pub fn new(kind: Kind, label: impl Into<Cow<'static, str>>, der: impl Into<Cow<'static, [u8]>>) -> Self {
        let der = der.into();
        let sha256 = Sha256::digest(&der).into();
        Self {
            kind,
            label: label.into(),
            der,
            sha256,
        }
    }

    /// Kind of evidence that it anchors.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    /// Name for people.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The certificate (DER).
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// SHA-256 of the certificate (DER).
    #[must_use]
    pub const fn sha256(&self) -> &[u8; 32] {
        &self.sha256
    }
}

impl fmt::Debug for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Anchor({} {} {})", self.kind, self.label, hex::encode(self.sha256))
    }
}

/// Trust anchors of one grade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustRoots<G: RootGrade> {
    anchors: Vec<Anchor>,
    grade: PhantomData<G>,
}

impl TrustRoots<Hardware> {
    /// The vendors' roots, compiled in: AWS Nitro Enclaves G1, Intel SGX Root CA (TDX and SGX), AMD ARK Milan, Genoa
    /// and Turin, NVIDIA Device Identity CA.
    #[must_use]
    pub fn pinned() -> Self {
        let intel: &'static [u8] = include_bytes!("../roots/intel-sgx-root.der");
        let nitro: &'static [u8] = include_bytes!("../roots/aws-nitro-enclaves-g1.der");
        let nvidia: &'static [u8] = include_bytes!("../roots/nvidia-device-identity.der");
        let mut anchors = vec![
            Anchor::new(Kind::Nitro, "AWS Nitro Enclaves G1", nitro),
            Anchor::new(Kind::Tdx, "Intel SGX Root CA", intel),
            Anchor::new(Kind::Sgx, "Intel SGX Root CA", intel),
            Anchor::new(Kind::NvidiaGpu, "NVIDIA Device Identity CA", nvidia),
        ];
        anchors.extend(crate::snp::pinned_anchors());
        Self {
            anchors,
            grade: PhantomData,
        }
    }
}

impl TrustRoots<Development> {
    /// Roots of software attesters. Whatever they are, verdicts under them are simulated.
    #[must_use]
    pub const fn development(anchors: Vec<Anchor>) -> Self {
        Self {
            anchors,
            grade: PhantomData,
        }
    }
}

impl<G: RootGrade> TrustRoots<G> {
    /// The anchors of a kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &Anchor> {
        self.anchors.iter().filter(move |anchor| anchor.kind == kind)
    }

    /// The anchor of a kind with exactly these certificate bytes.
    #[must_use]
    pub fn find(&self, kind: Kind, der: &[u8]) -> Option<&Anchor> {
        self.of(kind).find(|anchor| anchor.der() == der)
    }

    /// The grade of verdicts under these roots.
    #[must_use]
    pub const fn grade(&self) -> Grade {
        G::GRADE
    }
}

/// Claims whose signatures and chain are good under roots of grade `G`. No policy has looked at them yet.
///
/// Only this crate's verifiers make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict<G: RootGrade> {
    claims: Claims,
    grade: PhantomData<G>,
}

impl<G: RootGrade> Verdict<G> {
    /// To be called by verifiers only, after every check, with `_roots` the set that anchored the chain.
    pub(crate) const fn new(claims: Claims, _roots: &TrustRoots<G>) -> Self {
        Self {
            claims,
            grade: PhantomData,
        }
    }

    /// What the document says.
    #[must_use]
    pub const fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The claims alone; the grade is gone with the verdict.
    #[must_use]
    pub fn into_claims(self) -> Claims {
        self.claims
    }

    /// Hardware or simulated.
    #[must_use]
    pub const fn grade(&self) -> Grade {
        G::GRADE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fingerprints as the vendors publish them (AWS: Nitro Enclaves user guide, "Verifying the root of trust";
    /// Intel: Provisioning Certification Service; NVIDIA: nvtrust local verifier's trust store).
    #[test]
    fn pinned_roots_have_the_published_fingerprints() {
        let roots = TrustRoots::pinned();
        let one = |kind| hex::encode(roots.of(kind).next().unwrap().sha256());
        assert_eq!(
            one(Kind::Nitro),
            "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b"
        );
        assert_eq!(
            one(Kind::Tdx),
            "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
        );
        assert_eq!(one(Kind::Sgx), one(Kind::Tdx));
        assert!(one(Kind::NvidiaGpu).starts_with("102bf659d5419614"));
    }

    #[test]
    fn grades() {
        assert_eq!(TrustRoots::pinned().grade(), Grade::Hardware);
        assert_eq!(TrustRoots::development(Vec::new()).grade(), Grade::Simulated);
    }
}
