//! Judgement of the platform by `dcap-qvl`.

use super::{
    body,
    memory::{self, KnownSignatures, Remembering},
    quote::Quote,
    signature,
};
use crate::{
    claims::{Claims, Kind, TcbStatus, UnixSeconds},
    reject::Reject,
    roots::{RootGrade, TrustRoots},
    x509::Window,
};
use dcap_qvl::{PckCertFlag, Policy, QuoteClaims, QuoteCollateralV3, TcbStatus as IntelStatus, verify::QuoteVerifier};

/// Most bytes of collateral in JSON; real ones have 14 to 25 kB.
pub const MAX_COLLATERAL: usize = 1_048_576;

/// TCB info, QE identity, revocation lists and their issuer chains, as Intel's service signs them.
///
/// It may know signatures that were found valid before ([`Self::with_known`], [`Self::remember`]): then judgements that use it do not
/// compute them again, and are otherwise the same.
#[derive(Debug, Clone)]
pub struct IntelCollateral {
    parts: QuoteCollateralV3,
    known: KnownSignatures,
}

/// Of the same content; what is known about it is no part of it.
impl PartialEq for IntelCollateral {
    fn eq(&self, other: &Self) -> bool {
        self.parts == other.parts
    }
}

impl Eq for IntelCollateral {}

impl IntelCollateral {
    /// Reads the JSON form of `QuoteCollateralV3`. A platform chain in it is dropped: the one inside the quote counts.
    ///
    /// # Errors
    /// [`Reject`] for more than [`MAX_COLLATERAL`] bytes or another shape. Signatures are checked with the quote.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Reject> {
        if bytes.len() > MAX_COLLATERAL {
            return Err(Reject::TooLong {
                what: "the collateral",
                limit: MAX_COLLATERAL,
                got: bytes.len(),
            });
        }
        let parts: QuoteCollateralV3 =
            serde_json::from_slice(bytes).map_err(|error| Reject::Collateral { why: error.to_string() })?;
        Ok(Self {
            parts: QuoteCollateralV3 {
                // The library would prefer it to the chain inside the quote, which then nobody would look at.
                pck_certificate_chain: None,
                ..parts
            },
            known: KnownSignatures::default(),
        })
    }

    /// The same collateral with signatures that are known to be valid, from [`Self::known`] of any other.
    #[must_use]
    pub fn with_known(self, known: KnownSignatures) -> Self {
        Self { known, ..self }
    }

    /// The signatures that are known to be valid.
    #[must_use]
    pub const fn known(&self) -> &KnownSignatures {
        &self.known
    }

    /// Judges a quote, and remembers every signature that the judgement found valid, those of the collateral and of the platform's chain
    /// among them. Nothing is remembered of a quote that is refused.
    ///
    /// # Errors
    /// As [`crate::EvidenceVerifier::verify`] of the kind.
    pub fn remember<G: RootGrade>(
        &mut self,
        kind: Kind,
        raw: &[u8],
        roots: &TrustRoots<G>,
        at: UnixSeconds,
    ) -> Result<Claims, Reject> {
        let quote = super::parse(kind, raw)?;
        let Self { parts, known } = self;
        memory::learning(known, || judge_parts(&quote, parts, roots, at))
    }

    pub(super) const fn parts(&self) -> &QuoteCollateralV3 {
        &self.parts
    }

    /// The same JSON form, for storing and handing on.
    ///
    /// # Errors
    /// [`Reject::Collateral`] if it cannot be written, which text and bytes always can.
    pub fn to_json(&self) -> Result<Vec<u8>, Reject> {
        serde_json::to_vec(&self.parts).map_err(|error| Reject::Collateral { why: error.to_string() })
    }

    #[cfg(feature = "soft")]
    pub(crate) fn from_parts(parts: QuoteCollateralV3) -> Self {
        Self {
            parts,
            known: KnownSignatures::default(),
        }
    }
}

/// The least that no policy of ours may lower. Everything else is judged by [`crate::Policy`] on the claims.
struct Floor;

impl Policy for Floor {
    fn validate(&self, claims: &QuoteClaims) -> anyhow::Result<()> {
        anyhow::ensure!(
            claims.tcb.status != IntelStatus::Revoked,
            "TCB status is invalid: Revoked"
        );
        Ok(())
    }
}

pub(super) fn judge<G: RootGrade>(
    quote: &Quote<'_>,
    collateral: &IntelCollateral,
    roots: &TrustRoots<G>,
    at: UnixSeconds,
) -> Result<Claims, Reject> {
    memory::with(&collateral.known, || judge_parts(quote, &collateral.parts, roots, at))
}

fn judge_parts<G: RootGrade>(
    quote: &Quote<'_>,
    parts: &QuoteCollateralV3,
    roots: &TrustRoots<G>,
    at: UnixSeconds,
) -> Result<Claims, Reject> {
    let anchor = signature::anchor(quote, roots)?;
    let judged = QuoteVerifier::<Remembering>::new_with_config(anchor.der().to_vec())
        .verify_with_policy(quote.raw, parts, at, &Floor)
        .map_err(|error| reason(quote, roots, at, &format!("{error:#}")))?;
    let claims = claims(quote, &judged)?;
    // The library compares no list's issue date with the time.
    if at < claims.not_before {
        return Err(Reject::CollateralNotYetValid {
            what: "a revocation list",
        });
    }
    if at > claims.not_after {
        return Err(Reject::CollateralExpired {
            what: "a part of the collateral",
        });
    }
    Ok(claims)
}

fn claims(quote: &Quote<'_>, judged: &QuoteClaims) -> Result<Claims, Reject> {
    let window = Window {
        not_before: judged.latest_issue_date,
        // The library takes a list's next update as the first second at which the list is stale.
        not_after: judged.earliest_expiration_date.saturating_sub(1),
    };
    let pck = &judged.platform.pck;
    let mut claims = body::claims(quote, &pck.ppid, window)?;
    claims.tcb.status = status(judged.tcb.status);
    claims.tcb.advisories.clone_from(&judged.tcb.advisory_ids);
    claims.tcb.eval_number = Some(judged.tcb.eval_data_number);
    claims.tcb.dynamic_platform = flag(pck.dynamic_platform);
    claims
        .tcb
        .components
        .insert("pcesvn".to_owned(), u64::from(pck.pce_svn));
    claims.smt = flag(pck.smt_enabled);
    Ok(claims)
}

const fn flag(flag: PckCertFlag) -> Option<bool> {
    match flag {
        PckCertFlag::True => Some(true),
        PckCertFlag::False => Some(false),
        PckCertFlag::Undefined => None,
    }
}

const fn status(status: IntelStatus) -> TcbStatus {
    match status {
        IntelStatus::UpToDate => TcbStatus::UpToDate,
        IntelStatus::OutOfDateConfigurationNeeded => TcbStatus::OutOfDateConfigurationNeeded,
        IntelStatus::OutOfDate => TcbStatus::OutOfDate,
        IntelStatus::ConfigurationAndSWHardeningNeeded => TcbStatus::ConfigurationAndSwHardeningNeeded,
        IntelStatus::ConfigurationNeeded => TcbStatus::ConfigurationNeeded,
        IntelStatus::SWHardeningNeeded => TcbStatus::SwHardeningNeeded,
        IntelStatus::Revoked => TcbStatus::Revoked,
        IntelStatus::TDRelaunchAdvised => TcbStatus::RelaunchAdvised,
        IntelStatus::TDRelaunchAdvisedConfigurationNeeded => TcbStatus::RelaunchAdvisedConfigurationNeeded,
    }
}

/// Sentences of `dcap-qvl` =0.7.1 with the refusal that each means. It has no typed errors; the exact version is pinned
/// and the tests drive the sentences.
const SENTENCES: &[(&str, fn(String) -> Reject)] = &[
    // Ahead of the guest's: a quoting enclave in debug mode is none of Intel's.
    ("QE report validation failed", |_| Reject::QeIdentity),
    ("Debug mode is enabled", |_| Reject::DebugMode),
    ("TCBInfo expired", |_| Reject::CollateralExpired {
        what: "the TCB info",
    }),
    ("QE Identity expired", |_| Reject::CollateralExpired {
        what: "the QE identity",
    }),
    ("CrlExpired", |_| Reject::CollateralExpired {
        what: "a revocation list",
    }),
    ("issue date is in the future", |_| Reject::CollateralNotYetValid {
        what: "TCB info or QE identity",
    }),
    ("CertRevoked", |_| Reject::CertRevoked {
        what: "a certificate of the platform or its collateral",
    }),
    ("TCB status is invalid: Revoked", |_| Reject::TcbStatus {
        got: "Revoked",
    }),
    ("No matching TCB level", |_| Reject::TcbLevel),
    ("below minimum required from TDX module", |_| Reject::TcbLevel),
    ("Signature is invalid for qe_report", |_| Reject::QeReportSignature),
    ("QE report hash mismatch", |_| Reject::QeKeyBinding),
    ("QE ", |_| Reject::QeIdentity),
    ("TD profiling", |why| Reject::TdAttributes { why }),
    ("TD attributes", |why| Reject::TdAttributes { why }),
    ("TD migration", |why| Reject::TdAttributes { why }),
    ("SERVTD_EXT", |why| Reject::TdAttributes { why }),
    ("SEPT_VE_DISABLE", |why| Reject::TdAttributes { why }),
    ("MR service TD", |why| Reject::TdAttributes { why }),
    ("collateral", |why| Reject::Collateral { why }),
    ("Fmspc mismatch", |why| Reject::Collateral { why }),
    ("TCB Info", |why| Reject::Collateral { why }),
    ("Failed to decode TcbInfo", |why| Reject::Collateral { why }),
    ("Failed to decode QeIdentity", |why| Reject::Collateral { why }),
    ("Failed to parse root CA CRL", |why| Reject::Collateral { why }),
    ("Failed to parse PCK CRL", |why| Reject::Collateral { why }),
    ("InvalidCrlSignature", |why| Reject::Collateral { why }),
    ("UnknownRevocationStatus", |why| Reject::Collateral { why }),
];

/// The refusal behind an error: what our own signature layer says if it refuses too, else the sentence's meaning.
fn reason<G: RootGrade>(quote: &Quote<'_>, roots: &TrustRoots<G>, at: UnixSeconds, error: &str) -> Reject {
    let own = signature::check(quote, roots, at).err();
    let meaning = SENTENCES
        .iter()
        .find(|(sentence, _)| error.contains(sentence))
        .map(|(_, make)| make(bounded(error)));
    match (own, meaning) {
        // At a time past everything both are true; the collateral is what a relying party can renew.
        (Some(Reject::CertExpired { .. } | Reject::CertNotYetValid { .. }), Some(meaning)) => meaning,
        (Some(own), _) => own,
        (None, Some(meaning)) => meaning,
        // The platform's chain is good, so it is a signer of the collateral.
        (None, None) if error.contains("CertExpired") => Reject::CollateralExpired {
            what: "a certificate of the collateral",
        },
        (None, None) if error.contains("CertNotValidYet") => Reject::CollateralNotYetValid {
            what: "a certificate of the collateral",
        },
        (None, None) => Reject::Quote { why: bounded(error) },
    }
}

fn bounded(text: &str) -> String {
    text.chars().take(256).collect()
}
