//! Software attester: evidence in the vendors' exact formats under development roots, for local networks and tests.
//!
//! It protects nothing and says so: its verdicts are simulated by type, its names and module identifiers carry
//! `SOFTWARE-ATTESTER-NOT-HARDWARE`. Same seed and arguments, same bytes. For SNP see [`crate::snp::soft`].
//!
//! ```
//! use opg_evidence::{EvidenceVerifier, Reject, TrustRoots, nitro::NitroVerifier, soft::{NitroRequest, SoftNitro}};
//!
//! let attester = SoftNitro::new(&[7; 32], 1_800_000_000, 1_800_010_800);
//! let document = attester.document(&NitroRequest { timestamp_ms: 1_800_000_000_000, ..NitroRequest::default() });
//! let roots = TrustRoots::development(vec![attester.anchor()]);
//!
//! let verdict = NitroVerifier::new().verify(&document, &(), &roots, 1_800_000_060)?;
//! assert_eq!(verdict.grade().as_str(), "simulated");
//! let hardware = NitroVerifier::new().verify(&document, &(), &TrustRoots::pinned(), 1_800_000_060);
//! assert!(matches!(hardware, Err(Reject::RootNotPinned { .. })));
//! # Ok::<(), Reject>(())
//! ```
//!
//! A TDX platform makes its own collateral as well:
//!
//! ```
//! use opg_evidence::{
//!     EvidenceVerifier, Reject, TrustRoots,
//!     dcap::TdxVerifier,
//!     soft::{SoftTdx, TdxCollateralSpec, TdxRequest},
//! };
//!
//! let platform = SoftTdx::new(&[7; 32], 1_800_000_000, 1_900_000_000);
//! let quote = platform.quote(&TdxRequest::new([9; 64]));
//! let collateral = platform.collateral(&TdxCollateralSpec::new(1_800_000_000, 1_802_592_000));
//! let roots = TrustRoots::development(vec![platform.anchor()]);
//!
//! let verdict = TdxVerifier.verify(&quote, &Some(collateral), &roots, 1_800_000_060)?;
//! assert_eq!(verdict.grade().as_str(), "simulated");
//! # Ok::<(), Reject>(())
//! ```

mod cert;
pub(crate) mod encode;
mod nitro;
mod tdx;

pub use cert::{CertSpec, SoftKey};
pub use nitro::{MODULE_ID, NitroRequest, PROTECTED_ES384, SoftNitro};
pub use tdx::{SoftTdx, TDX_FMSPC, TdxCollateralSpec, TdxRequest};

/// Organisation in every certificate's name.
pub(crate) const ORGANISATION: &str = "SOFTWARE ATTESTER, NOT HARDWARE";
