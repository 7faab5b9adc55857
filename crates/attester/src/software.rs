//! Software attesters behind the same trait: the vendors' formats under development roots.

use crate::{Attester, Evidence, error::AttestError, report_data};
use opg_evidence::{
    Anchor, Kind, UnixSeconds,
    container::Companions,
    snp::{
        Product,
        soft::{SoftPki, SoftSnp, Validity},
    },
    soft::{NitroRequest, SoftNitro, SoftTdx, TdxCollateralSpec, TdxRequest},
};
use opg_primitives::mode::Grade;
use std::fmt;

/// Dates of roots and authorities: constant, so that a seed has one root for each format.
const NOT_BEFORE: UnixSeconds = 1_700_000_000;
/// Last second of the same (2049, the last year of a `UTCTime`).
const NOT_AFTER: UnixSeconds = 2_500_000_000;
/// Seconds for which the signing certificate of a Nitro document is valid, as AWS has it.
const NITRO_WINDOW: UnixSeconds = 3 * 3_600;
/// Seconds for which Intel's collateral is valid, as Intel has it.
const COLLATERAL_WINDOW: UnixSeconds = 30 * 86_400;
/// Seconds between two versions of it.
const COLLATERAL_STEP: UnixSeconds = 86_400;
/// Bits of the development RSA keys: verifiers take 2,048 and more, larger ones take seconds to make.
const RSA_BITS: usize = 2_048;

/// Whose format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SoftwareFormat {
    /// AWS Nitro documents.
    Nitro,
    /// Intel TDX quotes with their collateral.
    Tdx,
    /// AMD SEV-SNP reports with their certificates.
    Snp,
}

enum Inner {
    Nitro([u8; 32]),
    Tdx(Box<SoftTdx>),
    Snp(Box<SoftSnp>, Anchor),
}

/// Makes evidence that protects nothing, for development networks. Everything follows from the seed and the time of a
/// document, so whoever knows the network's seed knows its roots.
pub struct SoftwareAttester(Inner);

impl SoftwareAttester {
    /// An attester of a seed.
    ///
    /// # Errors
    /// [`AttestError::Software`] if the RSA keys of the SNP format cannot be made.
    pub fn new(format: SoftwareFormat, seed: [u8; 32]) -> Result<Self, AttestError> {
        Ok(Self(match format {
            SoftwareFormat::Nitro => Inner::Nitro(seed),
            SoftwareFormat::Tdx => Inner::Tdx(Box::new(SoftTdx::new(&seed, NOT_BEFORE, NOT_AFTER))),
            SoftwareFormat::Snp => {
                let why = |error: opg_evidence::snp::soft::SoftError| AttestError::Software { why: error.to_string() };
                let dates = Validity {
                    not_before: NOT_BEFORE,
                    not_after: NOT_AFTER,
                };
                let pki = SoftPki::generate_with(seed, dates, RSA_BITS).map_err(why)?;
                let chip = SoftSnp::new(&pki, Product::Genoa, seed).map_err(why)?;
                Inner::Snp(Box::new(chip), pki.anchor(Product::Genoa).map_err(why)?)
            }
        }))
    }
}

impl fmt::Debug for SoftwareAttester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SoftwareAttester")
            .field("kind", &self.kind())
            .finish_non_exhaustive()
    }
}

/// A Nitro attester whose authorities have constant dates and whose signing certificate is made for `now`.
fn nitro(seed: &[u8; 32], now: UnixSeconds) -> SoftNitro {
    let mut attester = SoftNitro::new(seed, NOT_BEFORE, NOT_AFTER);
    if let Some((leaf, _)) = attester.chain.last_mut() {
        leaf.not_before = now.saturating_sub(3);
        leaf.not_after = now.saturating_add(NITRO_WINDOW);
    }
    attester
}

impl Attester for SoftwareAttester {
    fn kind(&self) -> Kind {
        match &self.0 {
            Inner::Nitro(_) => Kind::Nitro,
            Inner::Tdx(_) => Kind::Tdx,
            Inner::Snp(..) => Kind::Snp,
        }
    }

    fn grade(&self) -> Grade {
        Grade::Simulated
    }

    fn attest(&self, bound: &[u8; 32], now: UnixSeconds) -> Result<Evidence, AttestError> {
        let mut beside = Companions::default();
        let document = match &self.0 {
            Inner::Nitro(seed) => nitro(seed, now).document(&NitroRequest {
                timestamp_ms: now.saturating_mul(1_000),
                user_data: Some(bound.to_vec()),
                ..NitroRequest::default()
            }),
            Inner::Tdx(platform) => {
                // By the day, so that all nodes of a network hand in the same version: a chain takes no older one than it has seen.
                let issued = now - now % COLLATERAL_STEP;
                let spec = TdxCollateralSpec::new(issued, issued.saturating_add(COLLATERAL_WINDOW));
                beside.intel = Some(platform.collateral(&spec));
                platform.quote(&TdxRequest::new(report_data(bound)))
            }
            Inner::Snp(chip, _) => {
                beside.certificates.clone_from(&chip.collateral().certificates);
                chip.quote(report_data(bound))
            }
        };
        Ok(Evidence {
            kind: self.kind(),
            document,
            beside,
        })
    }

    fn development_roots(&self) -> Vec<Anchor> {
        vec![match &self.0 {
            Inner::Nitro(seed) => nitro(seed, NOT_BEFORE).anchor(),
            Inner::Tdx(platform) => platform.anchor(),
            Inner::Snp(_, anchor) => anchor.clone(),
        }]
    }
}
