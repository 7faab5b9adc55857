//! Attestation evidence of trusted execution environments: AWS Nitro, Intel TDX and SGX, AMD SEV-SNP, NVIDIA GPU.
//!
//! A verifier takes bytes, collateral, roots and a time and gives a [`Verdict`] or a [`Reject`]; a [`Policy`] then
//! accepts or refuses the verdict. What each kind of evidence proves and does not prove is in `docs/evidence.md`.
//!
//! # Invariants
//! - Pure: no I/O, no clock, no randomness, no panic on any input (D13).
//! - The grade is a type: a verdict under development roots is never one under hardware roots ([`roots`]).
//! - The identity of evidence is that of its signed statement, not of malleable bytes ([`identity`]).
//! - One [`Reject`] variant per failure, numbers stable.
//!
//! # Example
//! ```
//! use opg_evidence::{EvidenceVerifier, Reject, TrustRoots, nitro::NitroVerifier};
//!
//! let refused = NitroVerifier::new().verify(b"not CBOR", &(), &TrustRoots::pinned(), 1_770_918_962);
//! assert!(matches!(refused, Err(Reject::Malformed { .. })));
//! ```
//!
//! # Status
//! GPU reports: signatures and chain only, the reference manifest (RIM) and revocation (OCSP) are not checked and the
//! verdict says so. Attesters for real hardware are in the crate `attester`: they need I/O.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod binding;
pub mod claims;
pub mod container;
pub mod dcap;
pub mod der;
pub mod identity;
pub mod nitro;
pub mod nvidia;
pub mod pem;
pub mod policy;
pub mod registration;
pub mod reject;
pub mod roots;
pub mod snp;
#[cfg(feature = "soft")]
pub mod soft;
pub mod verifier;
pub mod versions;
pub mod x509;

mod bytes;

pub use crate::{
    claims::{Claims, EvidenceId, HexBytes, Kind, Measurement, Signer, TcbStatus, TcbVerdict, UnixSeconds},
    policy::{Accepted, Expected, Policy},
    reject::Reject,
    roots::{Anchor, Development, Hardware, RootGrade, TrustRoots, Verdict},
    verifier::EvidenceVerifier,
};
