//! The public SNP documents in the folder of samples, read where it lies; skipped loudly where it does not.
#![allow(dead_code)]

use crate::common;
use base64::{Engine, engine::general_purpose::STANDARD};
use opg_evidence::{
    Claims, EvidenceVerifier as _, Reject, TrustRoots,
    snp::{SnpCollateral, SnpVerifier},
    x509::Certificate,
};

/// Seconds at which most samples are valid.
pub(crate) const AT: u64 = 1_700_000_000;

/// A sample; the caller has seen that the folder is there.
pub(crate) fn read(name: &str) -> Vec<u8> {
    common::sample(name).expect("the folder of samples")
}

/// Blocks of a PEM text with a label.
pub(crate) fn pem(text: &str, label: &str) -> Vec<Vec<u8>> {
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    text.split(&begin)
        .skip(1)
        .map(|block| {
            let body: String = block.split(&end).next().unwrap().split_whitespace().collect();
            STANDARD.decode(body).unwrap()
        })
        .collect()
}

/// Adds a file of certificates (DER or PEM, lists included) to collateral.
pub(crate) fn add(collateral: &mut SnpCollateral, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) if text.contains("-----BEGIN") => {
            collateral.certificates.extend(pem(text, "CERTIFICATE"));
            collateral.crls.extend(pem(text, "X509 CRL"));
        }
        _ => collateral.certificates.push(bytes.to_vec()),
    }
}

/// Collateral of some files, the endorsement certificate first.
pub(crate) fn collateral(names: &[&str]) -> SnpCollateral {
    let mut found = SnpCollateral::default();
    for name in names {
        add(&mut found, &read(name));
    }
    endorsement_first(&mut found);
    found
}

/// Moves the VCEK or VLEK to the front: the one that is no authority.
pub(crate) fn endorsement_first(collateral: &mut SnpCollateral) {
    collateral
        .certificates
        .sort_by_key(|der| Certificate::parse(der).is_ok_and(|c| c.is_authority()));
}

/// The report in a sample, unwrapped.
pub(crate) fn report(name: &str, bytes: &[u8]) -> Vec<u8> {
    if name.ends_with(".hex") {
        return hex::decode(std::str::from_utf8(bytes).unwrap().trim()).unwrap();
    }
    if name.contains("dstack_sev_snp_attestation") {
        return bytes[4..4 + 1184].to_vec();
    }
    if name.ends_with(".txt") {
        return pem(std::str::from_utf8(bytes).unwrap(), "REPORT").remove(0);
    }
    bytes.to_vec()
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
