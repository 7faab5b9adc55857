//! Wrappers taken off hostile bytes: no panic, nothing invented, nothing accepted that the verifier would not accept.

mod common;

use common::Random;
use opg_evidence::{
    Kind, Reject, TrustRoots,
    container::{self, Companions, JsonForm, MAX_FILE, Step},
    dcap,
};

/// Names of the sample files.
fn files() -> Vec<String> {
    let Some(folder) = common::folder() else {
        return Vec::new();
    };
    let table = std::fs::read_to_string(folder.join("PROVENANCE.tsv")).expect("PROVENANCE.tsv");
    let names = table.lines().skip(1).filter_map(|line| line.split('\t').next());
    names
        .filter(|name| folder.join(name).is_file())
        .map(str::to_owned)
        .collect()
}

/// Whatever a file is taken for, the answer is a document or a refusal; the document is never longer than the file.
fn look(bytes: &[u8]) {
    for kind in Kind::ALL {
        if let Ok(found) = container::unwrap(kind, bytes) {
            assert!(found.document.len() <= bytes.len());
            assert!(
                !found.steps.is_empty() || found.document == bytes,
                "what is changed is said"
            );
        }
    }
    let mut beside = Companions::default();
    if beside.add(bytes).is_ok() {
        let _ = beside.snp();
    }
}

#[test]
fn mutants_of_every_sample() {
    let mut random = Random(0x5eed);
    for name in files() {
        let file = common::sample(&name).expect("a sample");
        look(&file);
        for _ in 0..common::cases(60) {
            let mut mutant = file.clone();
            for _ in 0..=random.below(3) {
                match random.below(4) {
                    0 => {
                        let at = random.below(mutant.len());
                        mutant[at] = random.below(256) as u8;
                    }
                    1 => mutant.truncate(random.below(mutant.len()) + 1),
                    2 => {
                        let at = random.below(mutant.len());
                        mutant.insert(at, random.below(256) as u8);
                    }
                    _ => {
                        let (from, to) = (random.below(mutant.len()), random.below(mutant.len()));
                        let part = mutant[from.min(to)..from.max(to)].to_vec();
                        mutant.extend(part);
                    }
                }
            }
            look(&mutant);
        }
    }
}

/// The same quote out of four wrappings has one identity; a changed byte in any of them is noticed.
#[test]
fn layers_do_not_change_what_is_verified() {
    let Some(raw) = common::sample("tdx/trustee_az-tdx-vtpm_td-quote.bin") else {
        return;
    };
    let at = 1_700_000_000;
    let id = |file: &[u8]| -> Result<_, Reject> {
        let found = container::unwrap(Kind::Tdx, file)?;
        let claims = dcap::check_signatures(Kind::Tdx, &found.document, &TrustRoots::pinned(), at)?;
        Ok((claims.evidence_id, found.steps))
    };
    let (wanted, steps) = id(&raw).expect("a good quote");
    assert_eq!(steps, [Step::ZeroPadding { bytes: 70 }]);
    let length = u32::try_from(raw.len() << 2 | 1).expect("short").to_le_bytes();
    let scale = [&[0, 0], &length[..2], &raw, b"more"].concat();
    for (file, first) in [
        (hex::encode(&raw).into_bytes(), Step::Hexadecimal),
        (scale.clone(), Step::Dstack { left: 4 }),
        (
            format!(r#"{{"attestation": "{}"}}"#, hex::encode(&scale)).into_bytes(),
            Step::Json(JsonForm::DstackAttestation),
        ),
        (
            common::sample("tdx/trustee_az-tdx-vtpm_evidence-v0.json").expect("a sample"),
            Step::Json(JsonForm::AzureTdxV0),
        ),
    ] {
        let (found, steps) = id(&file).expect("a good quote");
        assert_eq!((found, &steps[0]), (wanted, &first));
        assert!(id(&file[..file.len() / 2]).is_err(), "{first}");
    }
}

#[test]
fn files_of_the_wrong_kind_are_named() {
    for (name, kind) in [
        ("tdx/trustee_az-tdx-vtpm_evidence-v0.json", Kind::Snp),
        ("snp/trustee_az-snp-vtpm_evidence-v1.json", Kind::Tdx),
        ("tdx/dstack_quote-report.json", Kind::Nitro),
        ("tdx/dstack_tdx-lite-attestation.json", Kind::Snp),
        ("snp/dstack_sev_snp_attestation.bin", Kind::Nitro),
    ] {
        let Some(file) = common::sample(name) else { return };
        let refused = container::unwrap(kind, &file).expect_err(name);
        assert!(matches!(refused, Reject::WrongKind { .. }), "{name}: {refused}");
    }
    assert!(container::unwrap(Kind::Snp, &vec![b'0'; MAX_FILE + 1]).is_err());
}

/// The forms of which the folder has no sample, made out of those that it has: the same parts in the other encodings.
#[test]
fn other_forms_of_the_same_evidence() {
    use base64::{
        Engine as _,
        engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
    };
    use serde_json::{Value, json};
    let Some(file) = common::sample("tdx/trustee_az-tdx-vtpm_evidence-v0.json") else {
        return;
    };
    let old: Value = serde_json::from_slice(&file).expect("JSON");
    let bytes = |value: &Value| -> Vec<u8> { serde_json::from_value(value.clone()).expect("bytes") };
    let quote = &old["tpm_quote"];
    let pcrs = quote["pcrs"].as_array().expect("a list").iter();
    let new = json!({
        "version": 1,
        "hcl_report": URL_SAFE_NO_PAD.encode(bytes(&old["hcl_report"])),
        "td_quote": URL_SAFE_NO_PAD.encode(bytes(&old["td_quote"])),
        "tpm_quote": {
            "message": hex::encode(bytes(&quote["message"])),
            "signature": hex::encode(bytes(&quote["signature"])),
            "pcrs": pcrs.map(|value| hex::encode(bytes(value))).collect::<Vec<_>>(),
        },
    });
    let unwrap = |kind, value: &Value| container::unwrap(kind, value.to_string().as_bytes());
    let one = container::unwrap(Kind::Tdx, &file).expect("version 0");
    let other = unwrap(Kind::Tdx, &new).expect("version 1");
    assert_eq!((&one.document, &one.companions), (&other.document, &other.companions));
    assert_eq!(other.steps[0], Step::Json(JsonForm::AzureTdxV1));
    let mut later = new.clone();
    later["version"] = 2.into();
    assert!(matches!(unwrap(Kind::Tdx, &later), Err(Reject::Version { got: 2, .. })));

    let coco = json!({ "quote": STANDARD.encode(bytes(&old["td_quote"])), "cc_eventlog": null });
    let found = unwrap(Kind::Tdx, &coco).expect("a quote");
    assert_eq!(
        (&found.document, found.companions),
        (&one.document, Companions::default())
    );

    let file = common::sample("snp/trustee_az-snp-vtpm_evidence-v1.json").expect("a sample");
    let mut snp: Value = serde_json::from_slice(&file).expect("JSON");
    let one = container::unwrap(Kind::Snp, &file).expect("version 1");
    snp["version"] = 2.into();
    let other = unwrap(Kind::Snp, &snp).expect("version 2");
    assert_eq!((&one.document, &one.companions), (&other.document, &other.companions));
    assert_eq!(other.steps[0].name(), "json-azure-snp-v2");
    snp["version"] = 3.into();
    assert!(matches!(unwrap(Kind::Snp, &snp), Err(Reject::Version { got: 3, .. })));
}
