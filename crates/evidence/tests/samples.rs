//! Every Nitro, TDX, SGX and GPU row of the table of expected verdicts, against real public documents. The SNP, Azure
//! SNP and TPM rows are in `snp_samples.rs`; `no_row_is_left_out` sees that every row belongs to one of the two.

mod common;

use common::{Row, rows};
use opg_evidence::{
    Claims, EvidenceVerifier, Expected, Kind, Policy, Reject, RootGrade, TcbStatus, TrustRoots,
    container::{self, Companions, Step, Unwrapped},
    dcap::{self, IntelCollateral, SgxVerifier, TdxVerifier},
    nitro::{self, NitroVerifier},
    nvidia::{GpuCertificates, NvidiaVerifier},
};
use std::collections::BTreeMap;

/// The one table from the reason classes of the sample folder to codes of ours.
fn codes(class: &str) -> &'static [&'static str] {
    match class {
        "MALFORMED" => &["MALFORMED", "TRUNCATED", "NOT_CANONICAL", "TRAILING_BYTES", "ALGORITHM"],
        "CERT_EXPIRED" => &["CERT_EXPIRED"],
        "CERT_NOT_YET_VALID" => &["CERT_NOT_YET_VALID"],
        "CERT_SIGNATURE" => &["CERT_SIGNATURE"],
        "DEBUG_MODE" => &["DEBUG_MODE"],
        "NONCE_MISMATCH" => &["NONCE_MISMATCH"],
        "ROOT_NOT_PINNED" => &["ROOT_NOT_PINNED"],
        "DYNAMIC_PLATFORM" => &["DYNAMIC_PLATFORM"],
        "COLLATERAL_EXPIRED" => &["COLLATERAL_EXPIRED"],
        "TRAILING_BYTES" => &["TRAILING_BYTES"],
        "TCB_STATUS" => &["TCB_STATUS"],
        "NO_COLLATERAL" => &["NO_COLLATERAL"],
        "SPDM_SIGNATURE" => &["SPDM_SIGNATURE"],
        "CHAIN" => &["CHAIN_NAMES", "CERT_SIGNATURE", "CHAIN_INCOMPLETE", "ROOT_NOT_PINNED"],
        "CHAIN_INCOMPLETE" => &["CHAIN_INCOMPLETE"],
        "CHAIN_BROKEN" => &["CHAIN_NAMES", "CERT_SIGNATURE"],
        "UNSIGNED_TOKEN" => &["UNSIGNED_TOKEN"],
        other => panic!("no codes for the class {other}"),
    }
}

fn check(row: &Row, outcome: &Result<Claims, Reject>) {
    match (row.expect.as_str(), outcome) {
        ("ACCEPT", Ok(_)) => {}
        ("REJECT", Err(reject)) => {
            assert!(Reject::ALL.contains(&(reject.code(), reject.name())));
            let fits = row.reason == "ANY" || row.reason.split('|').any(|class| codes(class).contains(&reject.name()));
            assert!(
                fits,
                "{} {}: {reject} ({}), expected {}",
                row.file,
                row.variant,
                reject.name(),
                row.reason
            );
        }
        _ => panic!(
            "{} {}: expected {} {}, got {outcome:?}",
            row.file, row.variant, row.expect, row.reason
        ),
    }
}

fn judge<V: EvidenceVerifier, G: RootGrade>(
    verifier: &V,
    raw: &[u8],
    collateral: &V::Collateral,
    roots: &TrustRoots<G>,
    at: u64,
    policy: &Policy,
    expected: &Expected<'_>,
) -> Result<Claims, Reject> {
    let verdict = verifier.verify(raw, collateral, roots, at)?;
    policy
        .judge(verdict, expected, at)
        .map(|accepted| accepted.claims().clone())
}

fn unwrap(kind: Kind, name: &str) -> Unwrapped {
    container::unwrap(kind, &common::sample(name).expect("a sample")).expect("a document")
}

fn nitro_document(name: &str) -> Vec<u8> {
    let found = unwrap(Kind::Nitro, name);
    assert!(
        matches!(found.steps[..], [Step::Base64] | [Step::Dstack { .. }]),
        "{found:?}"
    );
    // The wrapper's length is that of the one CBOR item inside.
    assert_eq!(nitro::item_length(&found.document), Ok(found.document.len()));
    found.document
}

#[test]
fn nitro_rows() {
    let mut ids = BTreeMap::new();
    for row in rows(|row| row.kind == "nitro") {
        let document = nitro_document(&row.file);
        let hardware = TrustRoots::pinned();
        let (policy, plain) = (Policy::default(), Expected::default());
        let verifier = NitroVerifier::new();
        let outcome = match row.variant.as_str() {
            "unstripped" => {
                let whole = common::sample(&row.file).expect("a sample");
                judge(&verifier, &whole, &(), &hardware, row.at, &policy, &plain)
            }
            "dev-root" => {
                let roots = TrustRoots::development(Vec::new());
                judge(&verifier, &document, &(), &roots, row.at, &policy, &plain)
            }
            "wrong-nonce" => {
                let expected = Expected {
                    nonce: Some(&[0; 20]),
                    ..plain
                };
                judge(&verifier, &document, &(), &hardware, row.at, &policy, &expected)
            }
            "crypto-only" => {
                let verdict = verifier
                    .verify(&document, &(), &hardware, row.at)
                    .expect("good signatures");
                assert_eq!(row.expect, "SIG_OK");
                assert!(verdict.claims().debug);
                assert_ne!(verdict.claims().measurement.get("pcr4"), Some([0; 48].as_slice()));
                continue;
            }
            "base" | "late" | "early" => judge(&verifier, &document, &(), &hardware, row.at, &policy, &plain),
            other => panic!("an unknown variant {other}"),
        };
        check(&row, &outcome);
        if let Ok(claims) = outcome {
            ids.insert(row.file, claims.evidence_id);
        }
    }
    if common::folder().is_none() {
        return;
    }
    let equal = [
        "nitro/dstack_nsm-attest_nitro_attestation.bin",
        "nitro/dstack_nsm-qvl_nitro_attestation.bin",
    ];
    assert_eq!(ids[equal[0]], ids[equal[1]]);
    assert_ne!(ids[equal[0]], ids["nitro/opengradient_attestation_doc.b64"]);
}

#[test]
fn nitro_claims_of_the_production_document() {
    if common::folder().is_none() {
        return;
    }
    let document = nitro_document("nitro/opengradient_attestation_doc.b64");
    let at = 1_770_918_962;
    let mut verifier = NitroVerifier::new();
    let verdict = verifier
        .verify(&document, &(), &TrustRoots::pinned(), at)
        .expect("a good document");
    let claims = verdict.claims().clone();
    assert_eq!((claims.not_before, claims.not_after), (1_770_918_959, 1_770_929_762));
    assert!(hex::encode(claims.measurement.get("pcr0").expect("PCR0")).starts_with("9baef839"));
    assert_eq!(
        hex::encode(claims.nonce.as_ref().expect("a nonce")),
        "0123456789abcdef0123456789abcdef01234567"
    );
    assert_eq!(claims.public_key.as_ref().map(|key| key.0.len()), Some(5));
    let keys = nitro::NitridingUserData::parse(claims.bound.as_ref()).expect("nitriding user data");
    assert_ne!(keys.tls_certificate, keys.application_key);
    // With the chain remembered the answer is the same, and the signatures that remain are still checked.
    verifier
        .remember(&document, &TrustRoots::pinned(), at)
        .expect("a good document");
    assert_eq!(verifier.remembered(), 3);
    assert_eq!(
        verifier
            .verify(&document, &(), &TrustRoots::pinned(), at)
            .expect("again")
            .into_claims(),
        claims
    );
    let mut changed = document.clone();
    *changed.last_mut().expect("bytes") ^= 1;
    assert!(matches!(
        verifier.verify(&changed, &(), &TrustRoots::pinned(), at),
        Err(Reject::Signature { .. })
    ));
    let late = verifier.verify(&document, &(), &TrustRoots::pinned(), 1_770_929_763);
    assert!(matches!(late, Err(Reject::CertExpired { .. })));
}

fn kind(row: &Row) -> Kind {
    if row.kind.starts_with("sgx") {
        Kind::Sgx
    } else {
        Kind::Tdx
    }
}

/// The quote in a file, without its padding, and what else the file and its companions hold.
fn quote(row: &Row) -> (Vec<u8>, Companions) {
    let mut found = unwrap(kind(row), &row.file);
    for name in row.names() {
        let file = common::sample(name).expect("a sample");
        assert!(found.companions.add(&file).expect("a companion").is_some(), "{name}");
    }
    (found.document, found.companions)
}

fn judge_quote(row: &Row, raw: &[u8], beside: &Companions, policy: &Policy) -> Result<Claims, Reject> {
    let (roots, expected) = (TrustRoots::pinned(), Expected::default());
    match kind(row) {
        Kind::Sgx => judge(&SgxVerifier, raw, &beside.intel, &roots, row.at, policy, &expected),
        _ => judge(&TdxVerifier, raw, &beside.intel, &roots, row.at, policy, &expected),
    }
}

fn is_quote(row: &Row) -> bool {
    row.kind.starts_with("tdx-v") || row.kind == "sgx-v3" || row.kind == "tdx-azure-vtpm"
}

#[test]
fn quote_rows() {
    let mut ids = BTreeMap::new();
    for row in rows(is_quote) {
        let (mut raw, beside) = quote(&row);
        let mut policy = Policy::default();
        match row.variant.as_str() {
            "base" | "stale" | "foreign-collateral" => {}
            "strict-platform" => policy.allow_dynamic_platform = false,
            "lenient" => {
                policy.tcb_statuses.insert(TcbStatus::ConfigurationAndSwHardeningNeeded);
                policy
                    .accepted_advisories
                    .extend(["INTEL-SA-00289", "INTEL-SA-00615"].map(str::to_owned));
            }
            "tail-changed" => {
                // With its padding again, which the verifier takes as long as it is zero.
                raw = common::sample(&row.file).expect("a sample");
                let at = raw.len() - 35;
                assert_eq!(raw[at], 0);
                raw[at] = 1;
                let found = container::unwrap(Kind::Tdx, &raw).expect("no layer");
                assert_eq!(
                    (found.document.as_slice(), found.steps.as_slice()),
                    (raw.as_slice(), &[][..])
                );
            }
            other => panic!("an unknown variant {other}"),
        }
        let outcome = judge_quote(&row, &raw, &beside, &policy);
        match row.expect.as_str() {
            "SIG_OK_NO_COLLATERAL" => {
                assert!(
                    matches!(outcome, Err(Reject::NoCollateral { .. })),
                    "{}: {outcome:?}",
                    row.file
                );
                let claims = dcap::check_signatures(Kind::Tdx, &raw, &TrustRoots::pinned(), row.at).expect(&row.file);
                assert_eq!(claims.tcb.status, TcbStatus::NoCollateral);
                beside.check(&claims).expect("companions that belong to the quote");
                ids.insert(row.file.clone(), claims.evidence_id);
            }
            "EITHER" => assert!(matches!(outcome, Err(Reject::TrailingBytes { .. })), "{outcome:?}"),
            _ => check(&row, &outcome),
        }
        if let Ok(claims) = outcome {
            // The second implementation reads the same from the same quote.
            let kind = claims.kind;
            let own = dcap::check_signatures(kind, &raw, &TrustRoots::pinned(), row.at).expect("good signatures");
            assert_eq!(own.evidence_id, claims.evidence_id);
            assert_eq!(
                (own.measurement, own.signer, own.debug),
                (claims.measurement, claims.signer, false)
            );
        }
    }
    if common::folder().is_some() {
        let azure = [
            "tdx/trustee_az-tdx-vtpm_evidence-v0.json",
            "tdx/trustee_az-tdx-vtpm_td-quote.bin",
        ];
        assert_eq!(ids[azure[0]], ids[azure[1]]);
    }
}

#[test]
fn a_quote_without_report_data_binds_nothing() {
    for row in rows(|row| row.file == "tdx/google_cos-113-tdx-quote.dat") {
        let (raw, _) = quote(&row);
        let claims = dcap::check_signatures(Kind::Tdx, &raw, &TrustRoots::pinned(), row.at).expect("good signatures");
        assert_eq!(claims.bound.as_ref(), [0; 64]);
    }
    for row in rows(|row| row.file == "sgx/phala_sgx_quote" && row.variant == "lenient") {
        let (raw, beside) = quote(&row);
        let verdict = SgxVerifier.verify(&raw, &beside.intel, &TrustRoots::pinned(), row.at);
        let mut policy = Policy::default();
        policy.tcb_statuses.insert(TcbStatus::ConfigurationAndSwHardeningNeeded);
        let verdict = verdict.expect("good signatures");
        let advisory = policy.judge(verdict.clone(), &Expected::default(), row.at);
        assert!(
            matches!(advisory, Err(Reject::Advisory { .. })),
            "the advisories are judged on their own"
        );
        policy
            .accepted_advisories
            .extend(verdict.claims().tcb.advisories.clone());
        let bound = |text| Expected {
            bound: Some(text),
            ..Expected::default()
        };
        assert!(policy.judge(verdict.clone(), &bound(b"Hello, world!"), row.at).is_ok());
        assert_eq!(
            policy.judge(verdict.clone(), &bound(b"Hello, world"), row.at),
            Err(Reject::BindingMismatch)
        );
        assert_eq!(
            policy.judge(verdict, &bound(&[0; 64]), row.at),
            Err(Reject::BindingMismatch)
        );
    }
}

#[test]
fn gpu_rows() {
    for row in rows(|row| row.kind.starts_with("nvidia")) {
        let file = common::sample(&row.file).expect("a sample");
        let roots = TrustRoots::pinned();
        if row.kind == "nvidia-cert" {
            let chain = GpuCertificates::from_pem(&file).expect("PEM");
            let outcome = NvidiaVerifier::check_chain(&chain, &roots, row.at);
            match row.expect.as_str() {
                "AUX" => assert!(outcome.is_ok(), "{outcome:?}"),
                _ => check(&row, &Err(outcome.expect_err("a broken chain"))),
            }
            continue;
        }
        if row.kind == "nvidia-claims" {
            let outcome = NvidiaVerifier.verify(&file, &GpuCertificates::default(), &roots, row.at);
            check(&row, &outcome.map(|verdict| verdict.into_claims()));
            continue;
        }
        let found = container::unwrap(Kind::NvidiaGpu, &file).expect("a report");
        assert_eq!(found.steps, [Step::Hexadecimal, Step::ZeroPadding { bytes: 1 }]);
        let mut raw = found.document;
        if row.variant == "flip" {
            raw[10] ^= 1;
        }
        let chain = common::sample(&row.companions[0]).expect("a chain");
        let chain = GpuCertificates::from_pem(&chain).expect("PEM");
        let outcome = NvidiaVerifier.verify(&raw, &chain, &roots, row.at);
        if row.expect == "SIG_OK" {
            let verdict = outcome.expect("good signatures");
            let judged = Policy::default().judge(verdict, &Expected::default(), row.at);
            assert_eq!(judged, Err(Reject::RimNotChecked));
        } else {
            check(&row, &outcome.map(|verdict| verdict.into_claims()));
        }
    }
}

#[test]
fn collateral_files_parse_where_they_are_whole() {
    for row in rows(|row| row.expect == "AUX" && row.file.ends_with("_collateral.json")) {
        let file = common::sample(&row.file).expect("a sample");
        assert!(IntelCollateral::from_json(&file).is_ok(), "{}", row.file);
        assert!(
            IntelCollateral::from_json(&file[..file.len() - 1]).is_err(),
            "{} cut short",
            row.file
        );
    }
}

/// Each kind belongs to one test, here or elsewhere.
#[test]
fn no_row_is_left_out() {
    let mut seen = BTreeMap::<&str, usize>::new();
    for row in rows(|_| true) {
        let kind = row.kind.as_str();
        let place = match kind {
            "nitro" => "nitro_rows",
            _ if is_quote(&row) => "quote_rows",
            _ if kind.starts_with("nvidia") => "gpu_rows",
            _ if kind.starts_with("snp-") || kind == "azure-hcl" || kind == "tpm-quote" => "snp_samples",
            "ccel" => "eventlog",
            // Parts of collateral: their signatures are checked with a quote, inside whole collateral.
            _ if kind.ends_with("-collateral") && row.expect == "AUX" => "collateral",
            _ => panic!("nobody looks at {row:?}"),
        };
        *seen.entry(place).or_default() += 1;
    }
    assert!(seen.is_empty() || seen.len() == 6, "{seen:?}");
}
