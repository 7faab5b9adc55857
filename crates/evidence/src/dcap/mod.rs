//! Intel TDX and SGX quotes (DCAP).
//!
//! With collateral the judgement is `dcap-qvl`'s (chain, revocation, QE identity, TCB level), always through
//! `verify_with_policy`; around it stands a reader of our own that knows where a quote ends. Without collateral only
//! the signatures can be checked ([`check_signatures`]), and the verifiers answer [`Reject::NoCollateral`]. What the
//! run-time registers of a trust domain stand for is read from its event log ([`eventlog`]).

mod body;
pub mod eventlog;
mod judge;
mod memory;
mod parts;
mod quote;
mod signature;

pub use judge::{IntelCollateral, MAX_COLLATERAL};
pub use memory::KnownSignatures;
#[cfg(feature = "soft")]
pub(crate) use quote::INTEL_VENDOR;
pub use quote::{MAX_QUOTE, Quote};

use crate::{
    claims::{Claims, Kind, UnixSeconds},
    reject::Reject,
    roots::{RootGrade, TrustRoots, Verdict},
    verifier::EvidenceVerifier,
    versions::CollateralVersion,
};

/// Verifies TDX quotes: version 4, and version 5 with TD 1.0, 1.5 and 1.5 extended reports.
#[derive(Debug, Clone, Copy, Default)]
pub struct TdxVerifier;

/// Verifies SGX quotes of version 3.
#[derive(Debug, Clone, Copy, Default)]
pub struct SgxVerifier;

impl EvidenceVerifier for TdxVerifier {
    const KIND: Kind = Kind::Tdx;
    type Collateral = Option<IntelCollateral>;

    fn verify<G: RootGrade>(
        &self,
        raw: &[u8],
        collateral: &Self::Collateral,
        roots: &TrustRoots<G>,
        at: UnixSeconds,
    ) -> Result<Verdict<G>, Reject> {
        verify(Self::KIND, raw, collateral.as_ref(), roots, at)
    }
}

impl EvidenceVerifier for SgxVerifier {
    const KIND: Kind = Kind::Sgx;
    type Collateral = Option<IntelCollateral>;

    fn verify<G: RootGrade>(
        &self,
        raw: &[u8],
        collateral: &Self::Collateral,
        roots: &TrustRoots<G>,
        at: UnixSeconds,
    ) -> Result<Verdict<G>, Reject> {
        verify(Self::KIND, raw, collateral.as_ref(), roots, at)
    }
}

/// Checks the signatures of a TDX or SGX quote without judging its platform: quote signature, quoting enclave's report,
/// binding of the attestation key, platform chain to a pinned root. The claims say [`crate::TcbStatus::NoCollateral`].
///
/// # Errors
/// The first failure.
pub fn check_signatures<G: RootGrade>(
    kind: Kind,
    raw: &[u8],
    roots: &TrustRoots<G>,
    at: UnixSeconds,
) -> Result<Claims, Reject> {
    signature::check(&parse(kind, raw)?, roots, at)
}

/// Versions of the collateral with which a quote was found good under `roots`.
///
/// # Errors
/// As the judgement of the quote, so none after a good one.
pub(crate) fn versions<G: RootGrade>(
    kind: Kind,
    raw: &[u8],
    collateral: &IntelCollateral,
    roots: &TrustRoots<G>,
) -> Result<Vec<CollateralVersion>, Reject> {
    collateral.versions(signature::anchor(&parse(kind, raw)?, roots)?.sha256())
}

fn parse(kind: Kind, raw: &[u8]) -> Result<Quote<'_>, Reject> {
    let quote = Quote::parse(raw)?;
    if quote.kind == kind {
        Ok(quote)
    } else {
        Err(Reject::WrongKind {
            expected: kind.as_str(),
        })
    }
}

fn verify<G: RootGrade>(
    kind: Kind,
    raw: &[u8],
    collateral: Option<&IntelCollateral>,
    roots: &TrustRoots<G>,
    at: UnixSeconds,
) -> Result<Verdict<G>, Reject> {
    let quote = parse(kind, raw)?;
    let Some(collateral) = collateral else {
        // A broken or debug quote is named as such, whether or not there is collateral.
        let claims = signature::check(&quote, roots, at)?;
        return Err(if claims.debug {
            Reject::DebugMode
        } else {
            Reject::NoCollateral {
                what: "TCB info, QE identity and revocation lists",
            }
        });
    };
    let claims = judge::judge(&quote, collateral, roots, at)?;
    Ok(Verdict::new(claims, roots))
}
