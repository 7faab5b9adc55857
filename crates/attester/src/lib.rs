//! Attesters: where a node's evidence comes from.
//!
//! The Nitro security module, the kernel's report interface for TDX and SEV-SNP, and software attesters that make the
//! same formats under development roots, behind one trait ([`Attester`]). Verification is `opg-evidence`'s.
//!
//! # Invariants
//! - Hardware is detected at start ([`detect`]); software is used only where it is named ([`Choice::Software`]). No
//!   failure of hardware ever leads to software: it is an error.
//! - A document is handed out only if it binds what was asked for. Nothing else of it is trusted here: whoever relies on
//!   it verifies it.
//! - The grade follows from the attester's type, and its verdicts from the roots that verify them; nothing here can lift
//!   a simulated document to hardware.
//!
//! ```
//! use opg_attester::{Attester, Choice, Paths, SoftwareAttester, SoftwareFormat, open};
//! use opg_evidence::{EvidenceVerifier, TrustRoots, nitro::NitroVerifier};
//!
//! let software = SoftwareAttester::new(SoftwareFormat::Nitro, [7; 32])?;
//! let attester = open(Choice::Software, &Paths::default(), Some(software))?;
//! let evidence = attester.attest(&[9; 32], 1_800_000_000)?;
//!
//! let roots = TrustRoots::development(attester.development_roots());
//! let verdict = NitroVerifier::new().verify(&evidence.document, &(), &roots, 1_800_000_060)?;
//! assert_eq!(verdict.grade().as_str(), "simulated");
//! assert_eq!(verdict.claims().bound.as_ref(), [9; 32]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Status
//! The Nitro device and the kernel's report interface are written after their published interfaces and not yet run on
//! such hardware. Intel's collateral, and AMD's certificates where the host gives none, must be fetched by the caller.
#![deny(unsafe_code)]

mod choice;
mod error;
mod nsm;
mod software;
mod tsm;

pub use self::{
    choice::{Choice, Paths, UnknownChoice, detect, open},
    error::AttestError,
    nsm::Nsm,
    software::{SoftwareAttester, SoftwareFormat},
    tsm::{Provider, Tsm},
};
use opg_evidence::{Anchor, Kind, UnixSeconds, container::Companions};
use opg_primitives::mode::Grade;

/// A document and what its verifier needs beside it, as far as the attester has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// Kind of evidence.
    pub kind: Kind,
    /// The document, without wrappers; a TDX quote may have zero padding.
    pub document: Vec<u8>,
    /// SNP: certificates that the host gave. Software: everything. Nitro carries its chain inside.
    pub beside: Companions,
}

/// Something that makes evidence about the machine that it runs on.
pub trait Attester: std::fmt::Debug + Send + Sync {
    /// Kind of the evidence.
    fn kind(&self) -> Kind;

    /// The grade of verdicts on its evidence: hardware, or simulated.
    fn grade(&self) -> Grade;

    /// Makes evidence that binds `bound`, the digest of a binding statement
    /// ([`opg_evidence::binding::Binding::digest`]): the first 32 bytes of the report data, zeros after it, or the user
    /// data of a Nitro document. Blocks, up to seconds: a quoting service may ask another machine.
    ///
    /// `now` dates the evidence of a software attester; hardware dates its own.
    ///
    /// # Errors
    /// [`AttestError`].
    fn attest(&self, bound: &[u8; 32], now: UnixSeconds) -> Result<Evidence, AttestError>;

    /// Roots under which its evidence verifies; none for hardware, whose roots are pinned.
    fn development_roots(&self) -> Vec<Anchor> {
        Vec::new()
    }
}

/// The 64 bytes of report data for a digest.
fn report_data(bound: &[u8; 32]) -> [u8; 64] {
    let mut data = [0; 64];
    for (to, from) in data.iter_mut().zip(bound) {
        *to = *from;
    }
    data
}
