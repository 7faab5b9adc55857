//! The public SNP documents in the folder of samples, read where it lies; skipped loudly where it does not.
#![allow(dead_code)]

use crate::common;
use opg_evidence::{
    Claims, EvidenceVerifier as _, Kind, Reject, TrustRoots,
    container::{self, Companions},
    snp::{SnpCollateral, SnpVerifier},
};

/// Seconds at which most samples are valid.
pub(crate) const AT: u64 = 1_700_000_000;

/// A sample; the caller has seen that the folder is there.
pub(crate) fn read(name: &str) -> Vec<u8> {
    common::sample(name).expect("the folder of samples")
}

/// What some files hold beside a document.
pub(crate) fn beside(names: &[&str]) -> Companions {
    let mut found = Companions::default();
    for name in names {
        assert!(found.add(&read(name)).expect(name).is_some(), "{name}");
    }
    found
}

/// Collateral of some files, the endorsement certificate first.
pub(crate) fn collateral(names: &[&str]) -> SnpCollateral {
    beside(names).snp().expect("one endorsement certificate")
}

/// The report in a sample, unwrapped.
pub(crate) fn report(name: &str, bytes: &[u8]) -> Vec<u8> {
    container::unwrap(Kind::Snp, bytes).expect(name).document
}

pub(crate) fn name(outcome: Result<Claims, Reject>) -> &'static str {
    outcome.map_or_else(|reject| reject.name(), |_| "ACCEPTED")
}

/// A report and its collateral of every real family in the corpus.
pub(crate) fn real() -> Vec<(&'static str, Vec<u8>, SnpCollateral, u64)> {
    if common::folder().is_none() {
        return Vec::new();
    }
    [
        (
            "snp/virtee_report_milan.hex",
            &["snp/virtee_vcek_milan.der", "snp/google_milan.testcer"][..],
            AT,
        ),
        (
            "snp/msft_turin_attestation_report.bin",
            &["snp/msft_turin_vcek.pem", "snp/msft_turin_ask.pem"],
            1_771_000_000,
        ),
        (
            "snp/trustee_snp_test-vlek-report.bin",
            &["snp/trustee_snp_test-vlek.der", "snp/google_milanvlek.testcer"],
            1_740_000_000,
        ),
    ]
    .into_iter()
    .map(|(name, beside, at)| (name, report(name, &read(name)), collateral(beside), at))
    .collect()
}

pub(crate) fn hardware(raw: &[u8], beside: &SnpCollateral, at: u64) -> Result<Claims, Reject> {
    SnpVerifier::new()
        .verify(raw, beside, &TrustRoots::pinned(), at)
        .map(|verdict| verdict.into_claims())
}
