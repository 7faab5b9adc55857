//! TDX quotes of the software attester: what is good is accepted as simulated and nowhere else, and what Intel's
//! infrastructure could say against a platform is said here, so that every refusal is driven.
#![cfg(feature = "soft")]

mod common;

use dcap_qvl::{QuoteCollateralV3, verify::QuoteVerifier};
use opg_evidence::{
    Claims, Development, EvidenceVerifier as _, Expected, Kind, Policy, Reject, Signer, TcbStatus, TrustRoots,
    dcap::{self, IntelCollateral, KnownSignatures, SgxVerifier, TdxVerifier},
    soft::{SoftTdx, TDX_FMSPC, TdxCollateralSpec, TdxRequest},
};
use opg_primitives::mode::Grade;
use serde_json::Value;
use std::sync::OnceLock;

const NOW: u64 = 1_800_000_000;
const DAY: u64 = 86_400;
const SEPT_VE_DISABLE: u64 = 1 << 28;

fn platform() -> SoftTdx {
    SoftTdx::new(&[7; 32], NOW - DAY, NOW + 3_650 * DAY)
}

fn roots(platform: &SoftTdx) -> TrustRoots<Development> {
    TrustRoots::development(vec![platform.anchor()])
}

fn spec() -> TdxCollateralSpec {
    TdxCollateralSpec::new(NOW - 3_600, NOW + 30 * DAY)
}

fn request() -> TdxRequest {
    TdxRequest::new([9; 64])
}

/// Signatures of good collateral, good quotes and this platform's chain.
fn known() -> &'static KnownSignatures {
    static KNOWN: OnceLock<KnownSignatures> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let platform = platform();
        let mut collateral = platform.collateral(&spec());
        for bound in [[9; 64], [10; 64]] {
            let quote = platform.quote(&TdxRequest::new(bound));
            collateral
                .remember(Kind::Tdx, &quote, &roots(&platform), NOW)
                .expect("a good quote");
        }
        collateral.known().clone()
    })
}

/// Every judgement of this file, with nothing known and with all that good quotes teach: the same.
fn judge(raw: &[u8], collateral: IntelCollateral, at: u64) -> Result<Claims, Reject> {
    let roots = roots(&platform());
    let verify = |collateral: IntelCollateral| {
        let verdict = TdxVerifier.verify(raw, &Some(collateral), &roots, at);
        verdict.map(|verdict| verdict.into_claims())
    };
    let plain = verify(collateral.clone());
    assert_eq!(verify(collateral.with_known(known().clone())), plain);
    plain
}

fn good(raw: &[u8]) -> Result<Claims, Reject> {
    judge(raw, platform().collateral(&spec()), NOW)
}

fn name(outcome: Result<Claims, Reject>) -> &'static str {
    outcome.map_or_else(|reject| reject.name(), |_| "ACCEPTED")
}

#[test]
fn a_generated_quote_is_simulated() {
    let platform = platform();
    let raw = platform.quote(&request());
    assert_eq!(raw, self::platform().quote(&request()), "same seed, same bytes");
    let collateral = platform.collateral(&spec());
    assert_eq!(collateral, self::platform().collateral(&spec()));
    let verdict = TdxVerifier
        .verify(&raw, &Some(collateral), &roots(&platform), NOW)
        .expect("a good quote");
    assert_eq!(verdict.grade(), Grade::Simulated);
    let claims = verdict.claims();
    assert_eq!(
        (claims.kind, claims.format.as_str(), claims.debug),
        (Kind::Tdx, "tdx-v4-td10", false)
    );
    assert_eq!(claims.bound.as_ref(), [9; 64]);
    assert_eq!(claims.measurement.get("mrtd"), Some(request().mr_td.as_slice()));
    assert_eq!(claims.tcb.status, TcbStatus::UpToDate);
    assert_eq!(
        (claims.tcb.eval_number, claims.tcb.dynamic_platform),
        (Some(1), Some(false))
    );
    assert_eq!((claims.not_before, claims.not_after), (NOW - 3_600, NOW + 30 * DAY - 1));
    assert!(matches!(&claims.signer, Signer::Ppid(id) if id.as_ref().len() == 16));
    let accepted = Policy::default().judge(
        verdict.clone(),
        &Expected {
            bound: Some(&[9; 64]),
            ..Expected::default()
        },
        NOW,
    );
    assert_eq!(accepted.expect("up to date").verdict().grade(), Grade::Simulated);
    // The signature layer of our own reads the same.
    let own = dcap::check_signatures(Kind::Tdx, &raw, &roots(&platform), NOW).expect("good signatures");
    assert_eq!(
        (own.evidence_id, &own.measurement, &own.signer),
        (claims.evidence_id, &claims.measurement, &claims.signer)
    );
}

/// What is learned from one quote serves another of the platform, and a refused quote teaches nothing.
#[test]
fn only_good_quotes_teach() {
    let platform = platform();
    let roots = roots(&platform);
    let mut collateral = platform.collateral(&spec());
    let good = platform.quote(&request());
    let mut bad = good.clone();
    bad[100] ^= 1;
    assert!(collateral.remember(Kind::Tdx, &bad, &roots, NOW).is_err());
    assert!(collateral.remember(Kind::Tdx, &good, &roots, NOW + 31 * DAY).is_err());
    assert!(collateral.remember(Kind::Sgx, &good, &roots, NOW).is_err());
    assert!(collateral.known().is_empty());
    collateral
        .remember(Kind::Tdx, &good, &roots, NOW)
        .expect("a good quote");
    let first = collateral.known().len();
    assert!(first >= 8, "{first} signatures");
    // Another quote of the same platform adds the signature of the quote itself, and of its quoting enclave at most.
    let other = platform.quote(&TdxRequest::new([10; 64]));
    collateral
        .remember(Kind::Tdx, &other, &roots, NOW)
        .expect("a good quote");
    assert!((first + 1..=first + 2).contains(&collateral.known().len()));
    // What is known is no part of what the collateral is.
    assert_eq!(collateral, platform.collateral(&spec()));
    let late = TdxVerifier.verify(&good, &Some(collateral), &roots, NOW + 31 * DAY);
    assert_eq!(
        late.unwrap_err().name(),
        "COLLATERAL_EXPIRED",
        "time is looked at each time"
    );
}

#[test]
fn and_nowhere_else() {
    let platform = platform();
    let raw = platform.quote(&request());
    let collateral = Some(platform.collateral(&spec()));
    let hardware = TdxVerifier.verify(&raw, &collateral, &TrustRoots::pinned(), NOW);
    assert_eq!(hardware.unwrap_err(), Reject::RootNotPinned { kind: "tdx" });
    let other = SoftTdx::new(&[8; 32], NOW - DAY, NOW + DAY);
    let foreign = TdxVerifier.verify(&raw, &collateral, &roots(&other), NOW);
    assert_eq!(foreign.unwrap_err(), Reject::RootNotPinned { kind: "tdx" });
    let sgx = SgxVerifier.verify(&raw, &collateral, &roots(&platform), NOW);
    assert_eq!(sgx.unwrap_err(), Reject::WrongKind { expected: "sgx" });
    // Several platforms in one trust set: each stands on its own root, in any order.
    for anchors in [
        vec![platform.anchor(), other.anchor()],
        vec![other.anchor(), platform.anchor()],
    ] {
        let both = TrustRoots::development(anchors);
        assert!(TdxVerifier.verify(&raw, &collateral, &both, NOW).is_ok());
        let late = TdxVerifier.verify(&raw, &collateral, &both, NOW + 31 * DAY);
        assert_eq!(late.unwrap_err().name(), "COLLATERAL_EXPIRED");
        let theirs = TdxVerifier.verify(&raw, &Some(other.collateral(&spec())), &both, NOW);
        assert_eq!(theirs.unwrap_err().name(), "COLLATERAL");
    }
    if let (Some(real), Some(json)) = (
        common::sample("tdx/phala_tdx_quote"),
        common::sample("tdx/phala_tdx_quote_collateral.json"),
    ) {
        let collateral = Some(IntelCollateral::from_json(&json).expect("collateral"));
        let outcome = TdxVerifier.verify(&real, &collateral, &roots(&platform), 1_750_414_563);
        assert_eq!(outcome.unwrap_err(), Reject::RootNotPinned { kind: "tdx" });
    }
}

/// A platform chain beside the quote does not stand in for the one inside it.
#[test]
fn a_chain_in_the_collateral_is_not_read() {
    let platform = platform();
    let raw = platform.quote(&request());
    let json = platform.collateral(&spec()).to_json().expect("JSON");
    let mut parts: QuoteCollateralV3 = serde_json::from_slice(&json).expect("the library's own shape");
    let start = raw.windows(10).position(|part| part == b"-----BEGIN").expect("a chain");
    parts.pck_certificate_chain = Some(String::from_utf8(raw[start..].to_vec()).expect("PEM"));
    let mut broken = raw.clone();
    // Inside the platform's certificate.
    broken[start + 500] ^= 1;
    let library = QuoteVerifier::new(platform.anchor().der().to_vec());
    assert!(
        library.verify(&broken, &parts, NOW).is_ok(),
        "the library takes the other chain"
    );
    let with_chain = serde_json::to_vec(&parts).expect("JSON");
    let collateral = IntelCollateral::from_json(&with_chain).expect("JSON");
    assert_eq!(collateral, platform.collateral(&spec()));
    assert!(judge(&broken, collateral.clone(), NOW).is_err());
    assert!(judge(&raw, collateral, NOW).is_ok());
}

/// `dcap-qvl` called as anybody would call it.
#[test]
fn the_library_alone_agrees() {
    let platform = platform();
    let raw = platform.quote(&request());
    let json = platform.collateral(&spec()).to_json().expect("JSON");
    let parts: QuoteCollateralV3 = serde_json::from_slice(&json).expect("the library's own shape");
    let own = QuoteVerifier::new(platform.anchor().der().to_vec());
    assert!(own.verify(&raw, &parts, NOW).is_ok());
    assert!(QuoteVerifier::new_prod().verify(&raw, &parts, NOW).is_err());
    assert_eq!(
        IntelCollateral::from_json(&json).expect("JSON"),
        platform.collateral(&spec())
    );
}

#[test]
fn attributes_that_open_the_domain() {
    let with = |attributes| {
        let changed = TdxRequest {
            attributes,
            ..request()
        };
        name(good(&platform().quote(&changed)))
    };
    assert_eq!(with(SEPT_VE_DISABLE), "ACCEPTED");
    assert_eq!(with(SEPT_VE_DISABLE | 1), "DEBUG_MODE");
    for (bit, what) in [(4, "profiling"), (17, "reserved"), (29, "migration"), (40, "reserved")] {
        assert_eq!(with(SEPT_VE_DISABLE | 1 << bit), "TD_ATTRIBUTES", "{what}");
    }
    assert_eq!(with(0), "TD_ATTRIBUTES", "SEPT_VE_DISABLE off");
}

/// Version 5 with a TD 1.5 report: the service domain's measurement must be zero.
#[test]
fn service_domains() {
    let version5 = |service: [u8; 48]| {
        let old = SoftTdx::statement(&request());
        let mut new = old[..48].to_vec();
        new[0] = 5;
        new.extend(3u16.to_le_bytes());
        new.extend(648u32.to_le_bytes());
        new.extend(&old[48..]);
        // The module's versions of now: the same as at launch.
        new.extend(&old[48..64]);
        new.extend(service);
        platform().seal(&new)
    };
    let claims = good(&version5([0; 48])).expect("a good quote");
    assert_eq!(claims.format, "tdx-v5-td15");
    assert_eq!(claims.measurement.get("mrservicetd"), Some([0; 48].as_slice()));
    assert_eq!(name(good(&version5([1; 48]))), "TD_ATTRIBUTES");
}

#[test]
fn what_collateral_says_against_a_platform() {
    let raw = platform().quote(&request());
    let with = |change: fn(&mut TdxCollateralSpec)| {
        let mut changed = spec();
        change(&mut changed);
        judge(&raw, platform().collateral(&changed), NOW)
    };
    assert_eq!(name(with(|_| ())), "ACCEPTED");
    assert_eq!(name(with(|spec| spec.platform_revoked = true)), "CERT_REVOKED");
    assert_eq!(name(with(|spec| spec.authority_revoked = true)), "CERT_REVOKED");
    assert_eq!(name(with(|spec| spec.status = TcbStatus::Revoked)), "TCB_STATUS");
    assert_eq!(name(with(|spec| spec.svn = 2)), "TCB_LEVEL");
    assert_eq!(name(with(|spec| spec.qe_svn = 5)), "QE_IDENTITY");
    assert_eq!(name(with(|spec| spec.fmspc[0] ^= 1)), "COLLATERAL");
    assert_eq!(name(with(|spec| spec.status = TcbStatus::NotApplicable)), "COLLATERAL");
    assert_ne!(TDX_FMSPC, [0; 6]);

    // What the vendor leaves to the relying party is the policy's matter.
    let judged = |change: fn(&mut TdxCollateralSpec), policy: &Policy| {
        let mut changed = spec();
        change(&mut changed);
        let verdict = TdxVerifier
            .verify(&raw, &Some(platform().collateral(&changed)), &roots(&platform()), NOW)
            .expect("a verdict");
        policy
            .judge(verdict, &Expected::default(), NOW)
            .map(|accepted| accepted.claims().clone())
    };
    let out_of_date: fn(&mut TdxCollateralSpec) = |spec| {
        spec.status = TcbStatus::OutOfDate;
        spec.advisories = vec!["INTEL-SA-00001".to_owned()];
    };
    let mut policy = Policy::default();
    assert_eq!(name(judged(out_of_date, &policy)), "TCB_STATUS");
    policy.tcb_statuses.insert(TcbStatus::OutOfDate);
    assert_eq!(name(judged(out_of_date, &policy)), "ADVISORY");
    policy.accepted_advisories.insert("INTEL-SA-00001".to_owned());
    assert_eq!(name(judged(out_of_date, &policy)), "ACCEPTED");
    let newer = Policy {
        min_eval_number: Some(2),
        ..Policy::default()
    };
    assert_eq!(
        name(judged(|_| (), &newer)),
        "EVALUATION_NUMBER",
        "a roll-back to older data"
    );
    assert_eq!(name(judged(|spec| spec.eval_number = 2, &newer)), "ACCEPTED");
}

#[test]
fn times() {
    let raw = platform().quote(&request());
    let at = |at| judge(&raw, platform().collateral(&spec()), at);
    for (second, expected) in [
        (NOW - 3_601, "COLLATERAL_NOT_YET_VALID"),
        (NOW - 3_600, "ACCEPTED"),
        (NOW + 30 * DAY - 1, "ACCEPTED"),
        (NOW + 30 * DAY, "COLLATERAL_EXPIRED"),
        (0, "COLLATERAL_NOT_YET_VALID"),
        (u64::MAX, "COLLATERAL_EXPIRED"),
    ] {
        assert_eq!(name(at(second)), expected, "{second}");
    }
    // The platform's certificates end before its collateral does.
    let far = TdxCollateralSpec::new(NOW - 3_600, NOW + 9_999 * DAY);
    let late = judge(&raw, platform().collateral(&far), NOW + 3_651 * DAY);
    assert_eq!(name(late), "CERT_EXPIRED");
    let early = TdxCollateralSpec::new(NOW - 10 * DAY, NOW + DAY);
    assert_eq!(
        name(judge(&raw, platform().collateral(&early), NOW - 2 * DAY)),
        "CERT_NOT_YET_VALID"
    );
    // Same keys, but the signer of the collateral has a certificate of its own times.
    let signed_by = |from, to| SoftTdx::new(&[7; 32], from, to).collateral(&spec());
    assert_eq!(
        name(judge(&raw, signed_by(NOW - 2 * DAY, NOW - DAY), NOW)),
        "COLLATERAL_EXPIRED"
    );
    assert_eq!(
        name(judge(&raw, signed_by(NOW + DAY, NOW + 2 * DAY), NOW)),
        "COLLATERAL_NOT_YET_VALID"
    );
}

/// Collateral put together of parts: every part must stand by itself.
#[test]
fn mixed_collateral() {
    let raw = platform().quote(&request());
    let json = |spec: &TdxCollateralSpec, platform: &SoftTdx| -> Value {
        serde_json::from_slice(&platform.collateral(spec).to_json().expect("JSON")).expect("JSON")
    };
    let own = json(&spec(), &platform());
    let with = |field: &str, value: &Value| {
        let mut mixed = own.clone();
        mixed[field] = value.clone();
        let mixed = IntelCollateral::from_json(mixed.to_string().as_bytes()).expect("a shape that fits");
        name(judge(&raw, mixed, NOW))
    };
    let later = json(&TdxCollateralSpec::new(NOW + 1, NOW + DAY), &platform());
    let foreign = json(&spec(), &SoftTdx::new(&[8; 32], NOW - DAY, NOW + DAY));
    let older = json(&TdxCollateralSpec::new(NOW - 2 * DAY, NOW - DAY), &platform());
    let fields: Vec<&String> = own.as_object().expect("an object").keys().collect();
    assert_eq!(fields.len(), 9);
    for field in fields {
        assert_eq!(with(field, &own[field]), "ACCEPTED");
        // The issuer chain of the platform's list is in the quote as well, this copy of it is not read; the TCB info is
        // the same for every platform of this attester.
        let ignored = field == "pck_crl_issuer_chain" || foreign[field] == own[field];
        assert_eq!(foreign[field] == own[field], field == "tcb_info");
        assert_eq!(with(field, &foreign[field]) == "ACCEPTED", ignored, "{field}");
    }
    for list in ["root_ca_crl", "pck_crl"] {
        assert_eq!(with(list, &foreign[list]), "COLLATERAL", "{list}");
        assert_eq!(with(list, &later[list]), "COLLATERAL_NOT_YET_VALID", "{list}");
        assert_eq!(with(list, &older[list]), "COLLATERAL_EXPIRED", "{list}");
    }
    for part in ["tcb_info", "qe_identity"] {
        let signature = format!("{part}_signature");
        assert_eq!(with(&signature, &foreign[&signature]), "COLLATERAL");
        for set in [&later, &older] {
            let mut mixed = own.clone();
            mixed[part] = set[part].clone();
            mixed[&signature] = set[&signature].clone();
            let mixed = IntelCollateral::from_json(mixed.to_string().as_bytes()).expect("a shape that fits");
            let outcome = name(judge(&raw, mixed, NOW));
            let expected = if std::ptr::eq(set, &later) {
                "COLLATERAL_NOT_YET_VALID"
            } else {
                "COLLATERAL_EXPIRED"
            };
            assert_eq!(outcome, expected, "{part}");
        }
    }
}

#[test]
fn every_changed_byte_is_refused_or_carries_nothing() {
    let raw = platform().quote(&request());
    let id = good(&raw).expect("a good quote").evidence_id;
    let text = raw.windows(10).position(|part| part == b"-----BEGIN").expect("a chain");
    let trusted = roots(&platform());
    let collateral = Some(platform().collateral(&spec()));
    let mut changed = raw.clone();
    for at in 0..raw.len() {
        changed[at] ^= 1 << (at % 8);
        // All of what is signed; the certificates' text at every fifth byte.
        if at < text || at % 5 == 0 {
            match TdxVerifier.verify(&changed, &collateral, &trusted, NOW) {
                Err(_) => {}
                Ok(verdict) => {
                    assert!(at >= text, "byte {at} accepted");
                    assert_eq!(verdict.claims().evidence_id, id, "byte {at}");
                }
            }
        }
        changed[at] = raw[at];
    }
    for end in 0..raw.len() {
        assert!(dcap::Quote::parse(&raw[..end]).is_err(), "cut at {end}");
    }
    let padded = [raw.as_slice(), &[0; 70]].concat();
    assert_eq!(good(&padded).expect("zeros only").evidence_id, id);
    let tail = [padded.as_slice(), &[1]].concat();
    assert_eq!(name(good(&tail)), "TRAILING_BYTES");
}

#[test]
fn the_twin_signature_has_the_same_identity() {
    let raw = platform().quote(&request());
    let at = 632 + 4;
    let signature = p256::ecdsa::Signature::from_slice(&raw[at..at + 64]).expect("a signature");
    let (r, s) = signature.split_scalars();
    let twin = p256::ecdsa::Signature::from_scalars(r.to_bytes(), (-*s).to_bytes()).expect("a signature");
    let mut changed = raw.clone();
    changed[at..at + 64].copy_from_slice(&twin.to_bytes());
    assert_ne!(raw, changed);
    assert_eq!(
        good(&raw).expect("good").evidence_id,
        good(&changed).expect("the twin").evidence_id
    );
}

#[test]
fn without_collateral() {
    let verify = |request: &TdxRequest| {
        TdxVerifier
            .verify(&platform().quote(request), &None, &roots(&platform()), NOW)
            .unwrap_err()
            .name()
    };
    assert_eq!(verify(&request()), "NO_COLLATERAL");
    let debug = TdxRequest {
        attributes: SEPT_VE_DISABLE | 1,
        ..request()
    };
    assert_eq!(verify(&debug), "DEBUG_MODE");
}
