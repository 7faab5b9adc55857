//! Every SNP, Azure SNP and TPM row of the table of expected verdicts, against real public documents.

mod common;
mod snp_support;

use base64::{Engine, engine::general_purpose::STANDARD};
use common::Row;
use opg_evidence::{
    EvidenceVerifier, Expected, Kind, Policy, Reject, TrustRoots,
    claims::Claims,
    container::{self, Checked, Companions, Step, TpmEvidence},
    snp::{
        SnpCollateral, SnpVerifier, azure,
        azure::HclReport,
        tpm::{AttestationKey, TpmQuote, rsassa_signature},
    },
};
use serde_json::Value;
use snp_support::{beside, collateral, read, report};

/// Rows of the table that belong here.
fn rows() -> Vec<Row> {
    common::rows(|row| row.kind.starts_with("snp-") || row.kind == "tpm-quote" || row.kind == "azure-hcl")
}

/// Names of rejects that a reason of the table stands for: its own, and for a changed byte also the stricter refusal.
fn class(reason: &str) -> Vec<&str> {
    reason
        .split('|')
        .flat_map(|reason| {
            if reason == "SIGNATURE" {
                vec!["SIGNATURE", "RESERVED_NOT_ZERO"]
            } else {
                vec![reason]
            }
        })
        .collect()
}

fn judge(row: &Row, report: &[u8], collateral: &SnpCollateral) -> Result<Claims, Reject> {
    let verdict = SnpVerifier::new().verify(report, collateral, &TrustRoots::pinned(), row.at)?;
    let mut warm = SnpVerifier::new();
    warm.remember(collateral, &TrustRoots::pinned(), row.at).unwrap();
    assert_eq!(
        Ok(&verdict),
        warm.verify(report, collateral, &TrustRoots::pinned(), row.at).as_ref()
    );
    let policy = Policy {
        max_vmpl: u8::from(row.variant == "vmpl1-allowed"),
        ..snp_policy()
    };
    policy
        .judge(verdict, &Expected::default(), row.at)
        .map(|accepted| accepted.claims().clone())
}

/// The table's default policy: no debug, VMPL 0, any measurement. SNP has no vendor status.
fn snp_policy() -> Policy {
    Policy::default()
}

fn check(row: &Row, outcome: Result<Claims, Reject>) {
    let label = format!("{} {}", row.file, row.variant);
    match (row.expect.as_str(), outcome) {
        ("ACCEPT", Ok(claims)) => println!("{label}: accepted, {} {}", claims.format, claims.evidence_id),
        ("REJECT", Err(reject)) => {
            assert!(
                class(&row.reason).contains(&reject.name()),
                "{label}: {} but expected {}",
                reject.name(),
                row.reason
            );
            println!("{label}: {} {}: {reject}", reject.code(), reject.name());
        }
        (expected, outcome) => panic!("{label}: expected {expected} {}, got {outcome:?}", row.reason),
    }
}

#[test]
fn reports() {
    if common::folder().is_none() {
        return;
    }
    let mut seen = 0;
    for row in rows() {
        if !row.file.starts_with("snp/") || matches!(row.kind.as_str(), "snp-cert" | "snp-ca" | "tpm-quote") {
            continue;
        }
        seen += 1;
        let found = container::unwrap(Kind::Snp, &read(&row.file)).expect(&row.file);
        let (mut bytes, mut beside) = (found.document, found.companions);
        assert_eq!(
            row.kind.ends_with("-azure"),
            found.steps.contains(&Step::AzureHcl),
            "{row:?}"
        );
        if row.expect == "PARSE" {
            opg_evidence::snp::Report::parse(&bytes).unwrap();
            let refused = SnpVerifier::new().verify(&bytes, &SnpCollateral::default(), &TrustRoots::pinned(), row.at);
            assert_eq!(refused.map(|_| ()), Err(Reject::NoVcek));
            continue;
        }
        match row.variant.as_str() {
            "reserved-flip" => bytes[0x3a] ^= 1,
            "padding" => bytes[0x2dc] = 1,
            _ => {}
        }
        for name in &row.companions {
            assert!(beside.add(&read(name)).expect(name).is_some(), "{name}");
        }
        let outcome = beside.snp().and_then(|collateral| judge(&row, &bytes, &collateral));
        if let Ok(claims) = &outcome {
            azure(&row, claims, &beside);
        }
        check(&row, outcome);
    }
    assert_eq!(seen, 22, "rows of the table");
}

/// Azure's runtime data and the quote of its virtual TPM belong to the report that they came with, and to no other.
fn azure(row: &Row, claims: &Claims, beside: &Companions) {
    let checked = beside.check(claims).expect(&row.file);
    let with_quote = row.file.ends_with(".json");
    assert_eq!(
        checked.len(),
        usize::from(row.kind.ends_with("-azure")) + usize::from(with_quote)
    );
    let Some(blob) = beside.wrapper() else { return };
    assert!(matches!(checked[0], Checked::RuntimeData { .. }));
    let (report, runtime) = azure::split(blob).unwrap();
    azure::check_runtime(report, runtime).unwrap();
    assert!(azure::check_runtime(report, &runtime[1..]).is_err());
    let mut other = claims.clone();
    other.bound.0[0] ^= 1;
    assert_eq!(beside.check(&other).unwrap_err().name(), "INNER_HASH");
    if with_quote {
        let mut changed = beside.clone();
        changed.tpm.as_mut().unwrap().message[40] ^= 1;
        assert_eq!(changed.check(claims).unwrap_err().name(), "SIGNATURE");
        changed = beside.clone();
        changed.tpm.as_mut().unwrap().registers[0][0] ^= 1;
        assert_eq!(changed.check(claims).unwrap_err().name(), "INNER_HASH");
    }
}

#[test]
fn certificates() {
    if common::folder().is_none() {
        return;
    }
    let roots = TrustRoots::pinned();
    let mut seen = 0;
    for row in rows()
        .into_iter()
        .filter(|row| row.kind == "snp-cert" || row.kind == "snp-ca")
    {
        seen += 1;
        let mut files = vec![row.file.as_str()];
        files.extend(row.names());
        let beside = beside(&files);
        assert!(!beside.certificates.is_empty());
        if row.kind == "snp-ca" {
            for der in &beside.certificates {
                let certificate = opg_evidence::x509::Certificate::parse(der).unwrap();
                let root = certificate.subject == certificate.issuer;
                assert_eq!(
                    root,
                    roots.find(opg_evidence::Kind::Snp, der).is_some(),
                    "{}: every root is pinned",
                    row.file
                );
            }
            continue;
        }
        let outcome = SnpVerifier::new().remember(&beside.snp().expect(&row.file), &roots, row.at);
        match row.expect.as_str() {
            "AUX" => assert_eq!(outcome, Ok(()), "{}", row.file),
            _ => assert_eq!(
                outcome.map_err(|reject| reject.name()),
                Err(row.reason.as_str()),
                "{}",
                row.file
            ),
        }
    }
    assert_eq!(seen, 16, "rows of the table");
}

/// The real Genoa list revokes serial 0x20001; the authority in use is 0x20002.
#[test]
fn revocation_lists() {
    if common::folder().is_none() {
        return;
    }
    let file = read("snp/openpcc_azure_sevsnp_report.txt");
    let report = report("snp/openpcc_azure_sevsnp_report.txt", &file);
    let beside = collateral(&["snp/openpcc_sev_certificates.txt"]);
    assert_eq!(beside.crls.len(), 2);
    let roots = TrustRoots::pinned();
    let verify = |beside: &SnpCollateral, at| {
        SnpVerifier::new()
            .verify(&report, beside, &roots, at)
            .map(|v| v.into_claims())
    };
    let claims = verify(&beside, 1_755_000_000).unwrap();
    assert_eq!(
        claims.not_after, 1_762_131_600,
        "the list's next update ends the window"
    );
    assert_eq!(verify(&beside, 1_762_131_601).unwrap_err().name(), "COLLATERAL_EXPIRED");
    let mut without = beside.clone();
    without.crls.clear();
    assert!(verify(&without, 1_762_131_601).is_ok());
    // A list whose revoked serial was changed, or any other byte of it, is no list any more.
    for at in (0..beside.crls[0].len()).step_by(7) {
        let mut changed = beside.clone();
        changed.crls[0][at] ^= 1;
        match verify(&changed, 1_755_000_000) {
            Err(_) => {}
            Ok(same) => assert_eq!(
                same.evidence_id, claims.evidence_id,
                "issuer name changed: not this root's list"
            ),
        }
    }
}

#[test]
fn tpm_quotes() {
    if common::folder().is_none() {
        return;
    }
    let mut seen = 0;
    for row in rows().into_iter().filter(|row| row.kind == "tpm-quote") {
        seen += 1;
        let file = read(&row.file);
        if row.expect == "PARSE" {
            let quote = TpmQuote::parse(&file).unwrap();
            assert_eq!(quote.selections.len(), 1);
            for end in 0..file.len() {
                assert!(TpmQuote::parse(&file[..end]).is_err());
            }
            assert!(TpmQuote::parse(&[&file[..], &[0]].concat()).is_err());
            continue;
        }
        let (message, signature, registers, key) = if row.file == "tpm/trustee_tpm_evidence.json" {
            let json: Value = serde_json::from_slice(&file).unwrap();
            let quote = &json["tpm_quote"];
            let base64 = |value: &Value| STANDARD.decode(value.as_str().unwrap()).unwrap();
            let structure = base64(&quote["signature"]);
            let signature = rsassa_signature(&structure).unwrap().to_vec();
            (
                base64(&quote["message"]),
                signature,
                hex_list(&quote["pcrs"]),
                AttestationKey::Spki(base64(&json["ak_public"])),
            )
        } else {
            let blob = read(&row.companions[0]);
            let key = HclReport::parse(&blob).unwrap().runtime().unwrap().attestation_key;
            let TpmEvidence {
                message,
                signature,
                registers,
            } = TpmEvidence::parse(&file).unwrap();
            for end in (0..file.trim_ascii_end().len()).step_by(3) {
                assert!(TpmEvidence::parse(&file[..end]).is_err(), "{} cut at {end}", row.file);
            }
            (message, signature, registers, key)
        };
        let quote = TpmQuote::verify(&message, &signature, &key).unwrap();
        let selected = quote.check_registers(&registers).unwrap();
        assert!(!selected.is_empty());
        let mut changed = registers.clone();
        changed[usize::from(selected[0])][0] ^= 1;
        assert_eq!(quote.check_registers(&changed).unwrap_err().name(), "INNER_HASH");
        for bit in 0..message.len() * 8 {
            let mut message = message.clone();
            message[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                TpmQuote::verify(&message, &signature, &key).unwrap_err().name(),
                "SIGNATURE"
            );
        }
    }
    assert_eq!(seen, 6, "rows of the table");
}

fn hex_list(value: &Value) -> Vec<[u8; 32]> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|value| hex::decode(text(value)).unwrap().try_into().unwrap())
        .collect()
}

/// Azure's wrapper: no truncation, no trailing bytes but zeros, no changed header.
#[test]
fn azure_wrappers_are_strict() {
    if common::folder().is_none() {
        return;
    }
    for (name, kind) in [
        ("snp/trustee_az-snp-vtpm_hcl-report.bin", azure::HclHardware::Snp),
        ("tdx/trustee_az-tdx-vtpm_hcl-report.bin", azure::HclHardware::Tdx),
    ] {
        let blob = read(name);
        let wrapper = HclReport::parse(&blob).unwrap();
        assert_eq!(wrapper.hardware, kind);
        assert_eq!(wrapper.runtime().unwrap().user_data.len(), 64);
        let end = 0x4d4 + wrapper.claims.len();
        for cut in 0..end {
            assert!(HclReport::parse(&blob[..cut]).is_err(), "{name} cut at {cut}");
        }
        assert_eq!(HclReport::parse(&blob[..end]).unwrap(), wrapper);
        for at in (0..0x20).chain(0x4c0..0x4d4).chain(end..blob.len()) {
            for bit in 0..8 {
                let mut changed = blob.clone();
                changed[at] ^= 1 << bit;
                let still = HclReport::parse(&changed);
                // The wrapper's version is 1 or 2 without a difference in layout; the last header field is a length.
                assert!(still.is_err() || at == 4, "{name} byte {at:#x} bit {bit}");
            }
        }
        for at in 0x4d4..end {
            let mut changed = blob.clone();
            changed[at] ^= 1;
            let changed = HclReport::parse(&changed).unwrap();
            if kind == azure::HclHardware::Snp {
                assert_eq!(
                    azure::check_runtime(changed.report, changed.claims).unwrap_err().name(),
                    "INNER_HASH"
                );
            }
        }
    }
}
