//! TDX and SGX quotes that an attacker may hand in, made out of the real ones of the sample folder. None is accepted,
//! none panics.

mod common;

use opg_evidence::{
    Anchor, Claims, EvidenceVerifier as _, Kind, Reject, TrustRoots,
    dcap::{self, IntelCollateral, KnownSignatures, SgxVerifier, TdxVerifier},
};
use std::sync::OnceLock;

const TDX_AT: u64 = 1_750_414_563;
const SGX_AT: u64 = 1_750_416_971;

fn tdx() -> Option<(Vec<u8>, Option<IntelCollateral>)> {
    let json = common::sample("tdx/phala_tdx_quote_collateral.json")?;
    Some((
        common::sample("tdx/phala_tdx_quote")?,
        Some(IntelCollateral::from_json(&json).expect("collateral")),
    ))
}

fn sgx() -> Option<(Vec<u8>, Option<IntelCollateral>)> {
    let json = common::sample("sgx/phala_sgx_quote_collateral.json")?;
    Some((
        common::sample("sgx/phala_sgx_quote")?,
        Some(IntelCollateral::from_json(&json).expect("collateral")),
    ))
}

/// With nothing known, and with everything that the unchanged quote teaches: the same.
fn judge(raw: &[u8], collateral: &Option<IntelCollateral>) -> Result<Claims, Reject> {
    static KNOWN: OnceLock<KnownSignatures> = OnceLock::new();
    let known = KNOWN.get_or_init(|| {
        let (quote, collateral) = tdx().expect("samples");
        let mut collateral = collateral.expect("collateral");
        collateral
            .remember(Kind::Tdx, &quote, &TrustRoots::pinned(), TDX_AT)
            .expect("a good quote");
        collateral.known().clone()
    });
    let plain = judge_plainly(raw, collateral);
    let knowing = collateral
        .clone()
        .map(|collateral| collateral.with_known(known.clone()));
    assert_eq!(judge_plainly(raw, &knowing), plain);
    plain
}

fn judge_plainly(raw: &[u8], collateral: &Option<IntelCollateral>) -> Result<Claims, Reject> {
    TdxVerifier
        .verify(raw, collateral, &TrustRoots::pinned(), TDX_AT)
        .map(|verdict| verdict.into_claims())
}

#[test]
fn no_changed_byte_changes_what_is_accepted() {
    let Some((mut raw, collateral)) = tdx() else { return };
    let good = judge(&raw, &collateral).expect("a good quote");
    let end = 4_936;
    // Every seventh offset with the judge, every offset with the signature layer.
    for at in 0..raw.len() {
        let bit = 1 << (at % 8);
        raw[at] ^= bit;
        let own = dcap::check_signatures(Kind::Tdx, &raw, &TrustRoots::pinned(), TDX_AT);
        let judged = (at % 7 == 0 || at >= end).then(|| judge(&raw, &collateral));
        // Text between and around the PEM blocks and its line ends carry nothing; they are outside the identity.
        for claims in [own.ok(), judged.and_then(Result::ok)].into_iter().flatten() {
            assert_eq!(claims.evidence_id, good.evidence_id, "byte {at}");
            assert_eq!(
                (&claims.measurement, &claims.bound),
                (&good.measurement, &good.bound),
                "byte {at}"
            );
            assert!((1_218..end).contains(&at), "byte {at} is outside the certificate text");
        }
        raw[at] ^= bit;
    }
}

#[test]
fn lengths() {
    let Some((raw, collateral)) = tdx() else { return };
    let good = judge(&raw, &collateral).expect("a good quote");
    for length in 0..4_936 {
        assert!(
            dcap::check_signatures(Kind::Tdx, &raw[..length], &TrustRoots::pinned(), TDX_AT).is_err(),
            "{length}"
        );
    }
    for length in [4_936, 4_937, 5_005] {
        assert_eq!(
            judge(&raw[..length], &collateral).expect("zeros only").evidence_id,
            good.evidence_id
        );
    }
    let padded = [raw.as_slice(), &[0; 3_000]].concat();
    assert_eq!(
        judge(&padded, &collateral).expect("zeros only").evidence_id,
        good.evidence_id
    );
    let tail = [raw.as_slice(), &[1]].concat();
    assert!(matches!(judge(&tail, &collateral), Err(Reject::TrailingBytes { .. })));
    assert!(matches!(
        judge(&vec![0; 20_000], &collateral),
        Err(Reject::TooLong { .. })
    ));
}

#[test]
fn other_versions_kinds_and_roots() {
    let Some((raw, collateral)) = tdx() else { return };
    let with = |at: usize, value: u8| {
        let mut changed = raw.clone();
        changed[at] = value;
        judge(&changed, &collateral).expect_err("a refusal").name()
    };
    assert_eq!(with(0, 6), "VERSION");
    assert_eq!(with(0, 3), "FIELD_VALUE");
    assert_eq!(with(2, 3), "ALGORITHM");
    assert_eq!(with(4, 0), "FIELD_VALUE", "SGX in version 4");
    assert_eq!(with(12, 0), "QE_IDENTITY", "another vendor");
    let as_sgx = SgxVerifier.verify(&raw, &collateral, &TrustRoots::pinned(), TDX_AT);
    assert!(matches!(as_sgx, Err(Reject::WrongKind { .. })));
    let none = TdxVerifier.verify(&raw, &collateral, &TrustRoots::development(Vec::new()), TDX_AT);
    assert!(matches!(none, Err(Reject::RootNotPinned { .. })));
    let foreign = TrustRoots::pinned()
        .of(Kind::Nitro)
        .next()
        .expect("a root")
        .der()
        .to_vec();
    let foreign = TrustRoots::development(vec![Anchor::new(Kind::Tdx, "foreign", foreign)]);
    assert!(TdxVerifier.verify(&raw, &collateral, &foreign, TDX_AT).is_err());
}

#[test]
fn collateral_of_another_platform_or_time() {
    let (Some((quote, own)), Some((enclave, other))) = (tdx(), sgx()) else {
        return;
    };
    assert!(judge(&quote, &other).is_err(), "SGX collateral for a TDX quote");
    assert!(
        SgxVerifier
            .verify(&enclave, &own, &TrustRoots::pinned(), SGX_AT)
            .is_err()
    );
    for at in [0, 1_600_000_000, 1_750_000_000, 1_760_000_000, 1_900_000_000, u64::MAX] {
        assert!(
            TdxVerifier.verify(&quote, &own, &TrustRoots::pinned(), at).is_err(),
            "at {at}"
        );
    }
}

#[test]
fn changed_collateral() {
    let Some(json) = common::sample("tdx/phala_tdx_quote_collateral.json") else {
        return;
    };
    let (raw, _) = tdx().expect("a quote");
    let text = String::from_utf8(json).expect("text");
    for (from, to) in [
        ("UpToDate", "OutOfDat"),
        (
            "\\\"tcbEvaluationDataNumber\\\":17",
            "\\\"tcbEvaluationDataNumber\\\":18",
        ),
        ("\\\"pcesvn\\\":", "\\\"pcesvm\\\":"),
    ] {
        assert!(text.contains(from), "{from}");
        let changed = IntelCollateral::from_json(text.replacen(from, to, 1).as_bytes()).expect("JSON");
        assert!(judge(&raw, &Some(changed)).is_err(), "{from} changed");
    }
    assert!(IntelCollateral::from_json(b"{}").is_err());
    assert!(IntelCollateral::from_json(&vec![b' '; dcap::MAX_COLLATERAL + 1]).is_err());
}

#[test]
fn keys_and_reports_swapped_between_quotes() {
    let (Some((first, collateral)), Some(second)) = (tdx(), common::sample("tdx/trustee_tdx_quote_6.dat")) else {
        return;
    };
    // Body of one quote under the signature section of another, and back.
    for (body, rest) in [(&first, &second), (&second, &first)] {
        let mixed = [&body[..632], &rest[632..]].concat();
        assert!(matches!(judge(&mixed, &collateral), Err(Reject::Signature { .. })));
    }
    // The attestation key of another quote.
    let mut mixed = first.clone();
    mixed[700..764].copy_from_slice(&second[700..764]);
    assert!(matches!(
        judge(&mixed, &collateral),
        Err(Reject::QeKeyBinding | Reject::Signature { .. })
    ));
}
