//! Registration of evidence: what validators accept, and everything that a node, or somebody who sees its document, could change.
#![cfg(feature = "soft")]
#![allow(missing_docs)]

use opg_evidence::{
    Anchor, Kind, Policy, Reject,
    binding::{Binding, attestation_nonce},
    container::Companions,
    registration::{self, MAX_COLLATERAL, MAX_VALIDITY_S, Memory, Rules, Submission, encode_collateral},
    soft::{NitroRequest, SoftNitro, SoftTdx, TdxCollateralSpec, TdxRequest},
};
use opg_primitives::mode::Grade;

const START: u64 = 1_700_000_000;
const END: u64 = 2_500_000_000;
const NOW: u64 = 1_800_000_000;
const SEED: [u8; 32] = [7; 32];

fn binding() -> Binding {
    Binding {
        keyset: [1; 32],
        nonce: attestation_nonce(&[2; 32], &[3; 32], 4),
        chain_id: 10_740,
        registry: [5; 20],
        operator: [6; 20],
        payment: [7; 20],
        endpoint: "http://127.0.0.1:8610".to_owned(),
        role: "inference".to_owned(),
        config: [8; 32],
    }
}

/// Kind, document, collateral and root of a software attester that binds the statement.
struct Made {
    kind: Kind,
    document: Vec<u8>,
    collateral: Vec<u8>,
    root: Anchor,
}

fn tdx() -> Made {
    let platform = SoftTdx::new(&SEED, START, END);
    let mut data = [0; 64];
    data[..32].copy_from_slice(&binding().digest().unwrap());
    let mut beside = Companions::default();
    beside.intel = Some(platform.collateral(&TdxCollateralSpec::new(NOW, NOW + 86_400)));
    Made {
        kind: Kind::Tdx,
        document: platform.quote(&TdxRequest::new(data)),
        collateral: encode_collateral(&beside).unwrap(),
        root: platform.anchor(),
    }
}

fn nitro() -> Made {
    let attester = SoftNitro::new(&SEED, NOW - 60, NOW + 10_000);
    Made {
        kind: Kind::Nitro,
        document: attester.document(&NitroRequest {
            timestamp_ms: NOW * 1_000,
            user_data: Some(binding().digest().unwrap().to_vec()),
            ..NitroRequest::default()
        }),
        collateral: Vec::new(),
        root: attester.anchor(),
    }
}

fn rules(made: &Made, development: bool, policy: Policy) -> Rules {
    let root = (made.root.kind().as_str(), made.root.label(), made.root.der());
    Rules {
        policy: Some(policy),
        ..Rules::new(development, [root])
    }
}

fn judge(made: &Made, binding: &Binding, rules: &Rules, at: u64) -> Result<registration::Registered, Reject> {
    let submission = Submission {
        kind: made.kind.code(),
        binding,
        document: &made.document,
        collateral: &made.collateral,
    };
    let found = registration::judge(&submission, rules, &mut Memory::default(), at);
    // What a stranger checks without a policy is never stricter than what validators check with the default one.
    if found.is_ok() {
        registration::examine(&submission, rules, at).unwrap();
    }
    found
}

#[test]
fn bound_evidence_is_accepted_as_simulated_and_for_twelve_hours_at_most() {
    for made in [tdx(), nitro()] {
        let registered = judge(&made, &binding(), &rules(&made, true, Policy::default()), NOW).unwrap();
        assert_eq!(registered.grade, Grade::Simulated);
        assert_eq!(registered.expires_at, NOW + MAX_VALIDITY_S);
        for (asked, given) in [(60, 60), (10 * MAX_VALIDITY_S, MAX_VALIDITY_S)] {
            let policy = Policy {
                validity_s: Some(asked),
                ..Policy::default()
            };
            let registered = judge(&made, &binding(), &rules(&made, true, policy), NOW).unwrap();
            assert_eq!(registered.expires_at, NOW + given);
        }
    }
}

#[test]
fn a_production_chain_refuses_a_software_attester_even_if_its_root_is_named() {
    for made in [tdx(), nitro()] {
        let refused = judge(&made, &binding(), &rules(&made, false, Policy::default()), NOW).unwrap_err();
        assert!(matches!(refused, Reject::RootNotPinned { .. }), "{refused}");
        // Another development network's root does not help either.
        let foreign = SoftTdx::new(&[9; 32], START, END).anchor();
        let root = (foreign.kind().as_str(), foreign.label(), foreign.der());
        let rules = Rules {
            policy: Some(Policy::default()),
            ..Rules::new(true, [root])
        };
        assert!(judge(&made, &binding(), &rules, NOW).is_err());
    }
}

#[test]
fn whoever_changes_one_thing_that_is_bound_is_refused() {
    let base = binding();
    let changed = [
        Binding {
            keyset: [9; 32],
            ..base.clone()
        },
        Binding {
            nonce: attestation_nonce(&[9; 32], &[3; 32], 4),
            ..base.clone()
        },
        Binding {
            nonce: attestation_nonce(&[2; 32], &[9; 32], 4),
            ..base.clone()
        },
        Binding {
            nonce: attestation_nonce(&[2; 32], &[3; 32], 5),
            ..base.clone()
        },
        Binding {
            chain_id: 8_453,
            ..base.clone()
        },
        Binding {
            registry: [9; 20],
            ..base.clone()
        },
        Binding {
            operator: [9; 20],
            ..base.clone()
        },
        Binding {
            payment: [9; 20],
            ..base.clone()
        },
        Binding {
            endpoint: "http://127.0.0.1:8611".to_owned(),
            ..base.clone()
        },
        Binding {
            role: "router".to_owned(),
            ..base.clone()
        },
        Binding {
            config: [9; 32],
            ..base.clone()
        },
    ];
    for made in [tdx(), nitro()] {
        let rules = rules(&made, true, Policy::default());
        for binding in &changed {
            let refused = judge(&made, binding, &rules, NOW).unwrap_err();
            assert_eq!(refused.code(), Reject::BindingMismatch.code(), "{refused}");
        }
    }
}

#[test]
fn time_policy_kind_and_form_decide() {
    let made = tdx();
    let good = rules(&made, true, Policy::default());
    assert!(
        judge(&made, &binding(), &good, NOW + 2 * 86_400).is_err(),
        "collateral is over"
    );
    assert!(judge(&made, &binding(), &good, START - 1).is_err(), "before its root");
    let none = Rules {
        policy: None,
        ..good.clone()
    };
    assert!(matches!(judge(&made, &binding(), &none, NOW), Err(Reject::NoPolicy)));
    let other: Policy = serde_json::from_str(r#"{"kinds": ["nitro"]}"#).unwrap();
    assert!(matches!(
        judge(&made, &binding(), &rules(&made, true, other), NOW),
        Err(Reject::KindNotAllowed { .. })
    ));
    let measured: Policy = serde_json::from_str(&format!(
        r#"{{"measurements": {{"tdx": [{{"mrtd": "{}"}}]}}}}"#,
        "ff".repeat(48)
    ))
    .unwrap();
    assert!(matches!(
        judge(&made, &binding(), &rules(&made, true, measured), NOW),
        Err(Reject::Measurement)
    ));
    for kind in [0, Kind::NvidiaGpu.code(), 6, 255] {
        let submission = Submission {
            kind,
            binding: &binding(),
            document: &made.document,
            collateral: &made.collateral,
        };
        assert!(matches!(
            registration::judge(&submission, &good, &mut Memory::default(), NOW),
            Err(Reject::KindNotAllowed { .. })
        ));
    }
    // Without its collateral a quote is never accepted.
    let bare = Made {
        collateral: Vec::new(),
        ..tdx()
    };
    assert!(matches!(
        judge(&bare, &binding(), &good, NOW),
        Err(Reject::NoCollateral { .. })
    ));
}

/// Every byte of a document and of its collateral counts, or is refused; nothing panics.
#[test]
fn changed_bytes_are_refused_or_say_the_same() {
    let made = tdx();
    let rules = rules(&made, true, Policy::default());
    let id = judge(&made, &binding(), &rules, NOW).unwrap().claims.evidence_id;
    let (mut accepted, mut refused) = (0, 0);
    for at in (0..made.document.len()).step_by(7) {
        let mut changed = tdx_with(&made, |document, _| document[at] ^= 1 << (at % 8));
        changed.root = made.root.clone();
        match judge(&changed, &binding(), &rules, NOW) {
            Ok(found) => {
                assert_eq!(found.claims.evidence_id, id, "byte {at} changes what is said");
                accepted += 1;
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused > 9 * accepted, "{refused} refused, {accepted} accepted");
    for at in (0..made.collateral.len()).step_by(997) {
        let changed = tdx_with(&made, |_, collateral| collateral[at] ^= 0x20);
        if let Ok(found) = judge(&changed, &binding(), &rules, NOW) {
            assert_eq!(found.claims.evidence_id, id);
        }
    }
    for length in [0, 1, 48, made.document.len() / 2, made.document.len() - 1] {
        let cut = tdx_with(&made, |document, _| document.truncate(length));
        assert!(judge(&cut, &binding(), &rules, NOW).is_err());
    }
}

fn tdx_with(made: &Made, change: impl FnOnce(&mut Vec<u8>, &mut Vec<u8>)) -> Made {
    let (mut document, mut collateral) = (made.document.clone(), made.collateral.clone());
    change(&mut document, &mut collateral);
    Made {
        kind: made.kind,
        document,
        collateral,
        root: made.root.clone(),
    }
}

#[test]
fn collateral_is_read_strictly() {
    let made = tdx();
    let again = registration::decode_collateral(&made.collateral).unwrap();
    assert_eq!(encode_collateral(&again).unwrap(), made.collateral);
    for bytes in [&b"\x81"[..], b"\x81\x01", b"\x81\x43abc", b"\xa0", b"\x00", b"not CBOR"] {
        assert!(registration::decode_collateral(bytes).is_err(), "{bytes:?}");
    }
    let mut long = made.collateral;
    long.resize(MAX_COLLATERAL + 1, 0);
    assert!(registration::decode_collateral(&long).is_err());
}
