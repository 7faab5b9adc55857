//! Collateral without a quote, and the rule that it is not rolled back: on Intel's own collateral of two dates for one platform, and on
//! that of a software attester.
#![cfg(feature = "soft")]
#![allow(missing_docs)]

mod common;

use common::sample;
use opg_evidence::{
    Anchor, Kind, Policy, Reject, TrustRoots,
    binding::Binding,
    container::Companions,
    dcap::IntelCollateral,
    registration::{Memory, Rules, Submission, encode_collateral, judge, judge_collateral},
    snp::{
        Product,
        soft::{SoftPki, SoftSnp, Validity},
    },
    soft::{SoftTdx, TdxCollateralSpec},
    versions::{CollateralVersion, Newest},
};
use serde_json::Value;

const START: u64 = 1_700_000_000;
const END: u64 = 2_500_000_000;
const NOW: u64 = 1_800_000_000;
/// 2025-06-20 and 2026-10-09, within the two collaterals' dates.
const OLD_AT: u64 = 1_750_377_600;
const NEW_AT: u64 = 1_791_504_000;

fn real(name: &str) -> Option<Value> {
    let bytes = sample(&format!("tdx/{name}"))?;
    Some(serde_json::from_slice(&bytes).expect("JSON"))
}

fn collateral(value: &Value) -> IntelCollateral {
    IntelCollateral::from_json(value.to_string().as_bytes()).expect("collateral")
}

fn check(value: &Value, at: u64) -> Result<Vec<CollateralVersion>, Reject> {
    collateral(value).verify_parts(Kind::Tdx, &TrustRoots::pinned(), at)
}

/// Intel signed both, for one family of platforms, fifteen months and three evaluations apart.
#[test]
fn intels_older_collateral_is_older_than_its_newer() {
    let (Some(old), Some(new)) = (
        real("phala_tdx_quote_collateral.json"),
        real("phala_tdx_quote_td15ex_collateral.json"),
    ) else {
        return;
    };
    let (old, new) = (check(&old, OLD_AT).unwrap(), check(&new, NEW_AT).unwrap());
    assert_eq!((old.len(), new.len()), (4, 4));
    assert_eq!(
        (old[0].number, old[1].number, new[0].number, new[1].number),
        (17, 17, 20, 20)
    );
    assert_eq!(old[0].issued_at, 1_750_328_163, "2025-06-19T10:16:03Z");
    for (old, new) in old.iter().zip(&new) {
        assert_eq!(old.subject, new.subject, "the same part");
        let mut newest = Newest::default();
        assert!(newest.raise(old) && newest.raise(new));
        assert!(old.is_older_than(&newest) && !new.is_older_than(&newest));
    }
    let subjects: std::collections::BTreeSet<_> = new.iter().map(|version| version.subject).collect();
    assert_eq!(subjects.len(), 4);
}

/// Whatever is changed in real collateral, no version of it counts.
#[test]
fn changed_collateral_has_no_version() {
    let Some(good) = real("phala_tdx_quote_td15ex_collateral.json") else {
        return;
    };
    let other = real("phala_tdx_quote_collateral.json").expect("the other sample");
    check(&good, NEW_AT).unwrap();
    // not at another time
    assert!(matches!(
        check(&good, OLD_AT),
        Err(Reject::CollateralNotYetValid { .. } | Reject::CertNotYetValid { .. })
    ));
    assert!(matches!(
        check(&good, NEW_AT + 60 * 86_400),
        Err(Reject::CollateralExpired { .. })
    ));
    // a later number than Intel signed, and every other change of a byte of what is signed
    let tcb = good["tcb_info"].as_str().unwrap();
    let mut forged = good.clone();
    forged["tcb_info"] = tcb
        .replace("\"tcbEvaluationDataNumber\":20", "\"tcbEvaluationDataNumber\":99")
        .into();
    assert_ne!(forged, good);
    assert_eq!(check(&forged, NEW_AT), Err(Reject::Signature { what: "the TCB info" }));
    for (field, what) in [("tcb_info", "the TCB info"), ("qe_identity", "the QE identity")] {
        let text = good[field].as_str().unwrap();
        for at in (0..text.len()).step_by(37) {
            let mut bytes = text.as_bytes().to_vec();
            bytes[at] ^= 1;
            let Ok(changed) = String::from_utf8(bytes) else {
                continue;
            };
            let mut forged = good.clone();
            forged[field] = changed.into();
            let refused = check(&forged, NEW_AT).unwrap_err();
            assert!(
                matches!(&refused, Reject::Signature { what: named } if *named == what)
                    || matches!(refused, Reject::Collateral { .. }),
                "{field} byte {at}: {refused}"
            );
        }
    }
    for field in ["root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature"] {
        let hex = good[field].as_str().unwrap();
        for at in (0..hex.len()).step_by(61) {
            let mut digits: Vec<u8> = hex.bytes().collect();
            digits[at] = if digits[at] == b'0' { b'1' } else { b'0' };
            let mut forged = good.clone();
            forged[field] = String::from_utf8(digits).unwrap().into();
            assert!(check(&forged, NEW_AT).is_err(), "{field} digit {at}");
        }
    }
    // parts of another date, under the same signer: each is good, but their dates are over
    for field in ["tcb_info", "qe_identity"] {
        let mut mixed = good.clone();
        mixed[field] = other[field].clone();
        mixed[format!("{field}_signature")] = other[format!("{field}_signature")].clone();
        assert!(
            matches!(check(&mixed, NEW_AT), Err(Reject::CollateralExpired { .. })),
            "{field}"
        );
    }
    // chains: absent, swapped, of somebody else
    for (field, text) in [
        ("tcb_info_issuer_chain", ""),
        ("pck_crl_issuer_chain", ""),
        ("tcb_info_issuer_chain", good["pck_crl_issuer_chain"].as_str().unwrap()),
        ("pck_crl_issuer_chain", good["tcb_info_issuer_chain"].as_str().unwrap()),
    ] {
        let mut forged = good.clone();
        forged[field] = text.into();
        assert!(check(&forged, NEW_AT).is_err(), "{field}");
    }
    let soft = SoftTdx::new(&[7; 32], START, END).collateral(&TdxCollateralSpec::new(NEW_AT, NEW_AT + 86_400));
    assert!(matches!(
        soft.verify_parts(Kind::Tdx, &TrustRoots::pinned(), NEW_AT),
        Err(Reject::RootNotPinned { .. })
    ));
}

fn rules(root: &Anchor) -> Rules {
    Rules::new(true, [(root.kind().as_str(), root.label(), root.der())])
}

#[test]
fn collateral_alone_is_judged_under_its_root_and_must_hold_nothing_else() {
    let platform = SoftTdx::new(&[7; 32], START, END);
    let made = |change: &dyn Fn(&mut TdxCollateralSpec)| {
        let mut spec = TdxCollateralSpec::new(NOW, NOW + 86_400);
        change(&mut spec);
        let mut beside = Companions::default();
        beside.intel = Some(platform.collateral(&spec));
        beside
    };
    let judge = |beside: &Companions, rules: &Rules, at| {
        judge_collateral(Kind::Tdx.code(), &encode_collateral(beside).unwrap(), rules, at)
    };
    let rules = rules(&platform.anchor());
    let versions = judge(&made(&|_| ()), &rules, NOW).unwrap();
    assert_eq!(versions.len(), 4);
    assert!(versions.iter().all(|version| version.issued_at == NOW));
    // its own number and date follow
    let newer = judge(&made(&|spec| spec.eval_number = 9), &rules, NOW).unwrap();
    assert_eq!((newer[0].number, newer[1].number), (9, 9));
    let earlier = judge(&made(&|spec| spec.issued = NOW - 50), &rules, NOW).unwrap();
    let newest = Newest {
        number: versions[0].number,
        issued_at: versions[0].issued_at,
    };
    assert!(earlier[0].subject == versions[0].subject && earlier[0].is_older_than(&newest));
    // another platform family has versions of its own
    let family = judge(&made(&|spec| spec.fmspc = [9; 6]), &rules, NOW).unwrap();
    assert_ne!(family[0].subject, versions[0].subject);
    assert_eq!(family[1].subject, versions[1].subject, "one QE identity for all");
    // a revoked authority's list counts for nothing, nor does anything that is stale
    let refused = judge(&made(&|spec| spec.authority_revoked = true), &rules, NOW).unwrap_err();
    assert!(matches!(refused, Reject::CertRevoked { .. }), "{refused}");
    let refused = judge(&made(&|_| ()), &rules, NOW + 86_401).unwrap_err();
    assert!(matches!(refused, Reject::CollateralExpired { .. }), "{refused}");
    // a production chain does not know the root
    let production = Rules::new(false, [("tdx", "x", platform.anchor().der())]);
    assert!(matches!(
        judge(&made(&|_| ()), &production, NOW),
        Err(Reject::RootNotPinned { .. })
    ));
    // kinds, and files that nothing would look at
    let bytes = encode_collateral(&made(&|_| ())).unwrap();
    for kind in [0, 1, 4, 5, 255] {
        judge_collateral(kind, &bytes, &rules, NOW).unwrap_err();
    }
    let mut more = made(&|_| ());
    more.certificates.push(platform.anchor().der().to_vec());
    assert!(matches!(judge(&more, &rules, NOW), Err(Reject::NoCollateral { .. })));
    assert!(matches!(
        judge_collateral(Kind::Tdx.code(), &[], &rules, NOW),
        Err(Reject::NoCollateral { .. })
    ));
}

#[test]
fn lists_of_amds_format_have_versions_too() {
    let dates = Validity {
        not_before: START,
        not_after: END,
    };
    let pki = SoftPki::generate_with([7; 32], dates, 2_048).unwrap();
    let rules = rules(&pki.anchor(Product::Genoa).unwrap());
    let list = |issued, number, serials: &[u8]| {
        let validity = Validity {
            not_before: issued,
            not_after: issued + 86_400,
        };
        let mut beside = Companions::default();
        beside
            .lists
            .push(pki.revocation_list(Product::Genoa, serials, number, validity).unwrap());
        encode_collateral(&beside).unwrap()
    };
    let alone = |bytes: &[u8], at| judge_collateral(Kind::Snp.code(), bytes, &rules, at);
    let (first, second) = (
        alone(&list(NOW - 100, 4, &[]), NOW).unwrap(),
        alone(&list(NOW, 5, &[3]), NOW).unwrap(),
    );
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_eq!(first[0].subject, second[0].subject);
    assert_eq!((first[0].number, second[0].number), (4, 5));
    let mut newest = Newest::default();
    assert!(newest.raise(&first[0]) && newest.raise(&second[0]));
    assert!(first[0].is_older_than(&newest));
    let mut forged = list(NOW, 5, &[]);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert!(matches!(alone(&forged, NOW), Err(Reject::Signature { .. })));
    alone(&list(NOW + 10, 6, &[]), NOW).unwrap_err();

    // beside a report: its list's version; without one version 0, so that leaving it out is older than any
    let chip = SoftSnp::new(&pki, Product::Genoa, [7; 32]).unwrap();
    let binding = Binding {
        keyset: [1; 32],
        nonce: [2; 32],
        chain_id: 10_740,
        registry: [3; 20],
        operator: [4; 20],
        payment: [5; 20],
        endpoint: "http://127.0.0.1:8610".to_owned(),
        role: "inference".to_owned(),
        config: [6; 32],
    };
    let mut data = [0; 64];
    data[..32].copy_from_slice(&binding.digest().unwrap());
    let rules = Rules {
        policy: Some(Policy::default()),
        ..rules
    };
    let mut memory = Memory::default();
    let mut register = |lists: Vec<Vec<u8>>| {
        let mut beside = Companions::default();
        beside.certificates.clone_from(&chip.collateral().certificates);
        beside.lists = lists;
        let submission = Submission {
            kind: Kind::Snp.code(),
            binding: &binding,
            document: &chip.quote(data),
            collateral: &encode_collateral(&beside).unwrap(),
        };
        judge(&submission, &rules, &mut memory, NOW).map(|registered| registered.versions)
    };
    let der = |issued, number, serials: &[u8]| {
        let validity = Validity {
            not_before: issued,
            not_after: issued + 86_400,
        };
        pki.revocation_list(Product::Genoa, serials, number, validity).unwrap()
    };
    assert_eq!(
        register(vec![der(NOW, 5, &[3])]).unwrap(),
        second,
        "the ASVK is revoked, the chip is under the ASK"
    );
    let without = register(Vec::new()).unwrap();
    assert_eq!((without[0].subject, without[0].number), (second[0].subject, 0));
    assert!(without[0].is_older_than(&newest));
    let both = register(vec![der(NOW, 5, &[3]), der(NOW - 100, 4, &[])]).unwrap();
    assert!(
        both.iter().any(|version| version.is_older_than(&newest)),
        "every list counts"
    );
    assert!(matches!(
        register(vec![der(NOW, 5, &[2])]),
        Err(Reject::CertRevoked { .. })
    ));
}
