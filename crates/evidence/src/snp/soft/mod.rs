//! Software attester: reports, endorsement certificates and authorities in AMD's exact formats under development roots.
//!
//! Nothing here protects anything. The roots go into [`TrustRoots::development`](crate::TrustRoots::development), so
//! every verdict is simulated; names say so as well. Everything follows from a seed: same seed, same bytes.
//!
//! ```no_run
//! use opg_evidence::{EvidenceVerifier, TrustRoots, snp::{Product, SnpVerifier, soft::{SoftPki, SoftSnp, Validity}}};
//!
//! let validity = Validity { not_before: 1_750_000_000, not_after: 2_000_000_000 };
//! let pki = SoftPki::generate([7; 32], validity)?; // RSA keys: seconds, so make one and keep it
//! let attester = SoftSnp::new(&pki, Product::Turin, [1; 32])?;
//! let report = attester.quote([9; 64]);
//! let roots = TrustRoots::development(vec![pki.anchor(Product::Turin)?]);
//! let verdict = SnpVerifier::new().verify(&report, attester.collateral(), &roots, 1_760_000_000)?;
//! assert_eq!(verdict.claims().bound.as_ref(), [9; 64]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attester;
mod pki;

pub use self::{
    attester::SoftSnp,
    pki::{SoftEndorsement, SoftError, SoftPki, Validity},
};
