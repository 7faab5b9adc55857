//! Receipt, quote, commitments, file and lifecycle against the golden vectors, which another implementation wrote.

mod common;

use opg_primitives::{
    B256,
    ids::Keyset,
    mode::{Grade, Mode},
};
use opg_receipt::{
    Core, Event, LeafKind, Lifecycle, PaymentMethod, PaymentScheme, ReceiptFile, SignedQuote, SignedReceipt, State,
    commit,
    file::{Leaf, Opening},
    quote::request_digest,
    rolling_hash, stream,
};
use opg_vectors::{HANDOVERS_FILE, RECEIPT_FILE, bytes, list, load, text};
use serde_json::Value;
use std::collections::BTreeMap;

fn b256(value: &Value) -> B256 {
    B256::from_slice(&bytes(value))
}

#[test]
fn cores_decode_and_encode_to_the_same_bytes() {
    let v = load("receipt");
    let public: [u8; 32] = bytes(&v["public"]).try_into().expect("32 bytes");
    let names = [
        "receipt",
        "with_evidence_and_router",
        "paid_by_permit",
        "paid_up_to",
        "paid_by_channel",
        "with_upstream",
        "with_bare_upstream",
    ];
    for name in names {
        let payload = bytes(&v[name]["payload"]);
        let core = Core::decode(&payload).expect("a core");
        assert_eq!(core.encode(), payload);
        assert_eq!(core.core_hash(), b256(&v[name]["core_hash"]));
        let signed = SignedReceipt::decode(&bytes(&v[name]["cose"])).expect("a receipt");
        assert_eq!(signed.core(), &core);
        assert_eq!(signed.core_hash(), core.core_hash());
        signed.verify_signature(&public).expect("a valid signature");
        // Ed25519 is deterministic: our own signature is the golden one.
        let ours = SignedReceipt::sign(core, &common::key()).expect("signed");
        assert_eq!(ours.cose().to_vec(), bytes(&v[name]["cose"]));
    }
    let with = Core::decode(&bytes(&v["with_evidence_and_router"]["payload"])).expect("a core");
    assert_eq!(with.mode.served, Mode::Tee);
    assert_eq!(with.mode.grade, Grade::Simulated);
    assert!(with.evidence.is_some() && with.router.is_some());
    with.check_consistency().expect("consistent");
}

#[test]
fn payments_of_every_scheme_have_their_own_fields_and_ids() {
    let v = load("receipt");
    let core = |name: &str| Core::decode(&bytes(&v[name]["payload"])).expect("a core");
    let payments = [
        ("paid_by_permit", PaymentScheme::Exact, PaymentMethod::Permit2),
        ("paid_up_to", PaymentScheme::Upto, PaymentMethod::Permit2),
        (
            "paid_by_channel",
            PaymentScheme::BatchSettlement,
            PaymentMethod::Voucher,
        ),
    ];
    for (name, scheme, method) in payments {
        let core = core(name);
        core.check_consistency().expect("consistent");
        core.check_quote(&common::quote()).expect("agreement");
        let payment = &core.payment;
        assert_eq!((payment.scheme, payment.method), (scheme, method), "{name}");
        assert_eq!(payment.channel.is_some(), method == PaymentMethod::Voucher, "{name}");
        assert_eq!(payment.facilitator.is_some(), scheme == PaymentScheme::Upto, "{name}");
        assert_eq!(payment.id().0, b256(&v[name]["payment_id"]), "{name}");
        let taken = if scheme == PaymentScheme::Exact {
            payment.amount
        } else {
            core.price.charge
        };
        assert_eq!(payment.due(core.price.charge), taken, "{name}");
    }
    // A field of one scheme is an error in another, and so is a missing one.
    let mut wrong = core("paid_by_channel");
    wrong.payment.scheme = PaymentScheme::Exact;
    assert!(Core::decode(&wrong.encode()).is_err());
    let mut wrong = core("paid_by_channel");
    wrong.payment.channel = None;
    assert!(Core::decode(&wrong.encode()).is_err());
    let mut wrong = core("paid_up_to");
    wrong.payment.facilitator = None;
    assert!(Core::decode(&wrong.encode()).is_err());
    let mut wrong = core("paid_by_permit");
    wrong.payment.facilitator = Some(wrong.payment.payer);
    assert!(Core::decode(&wrong.encode()).is_err());
    // The voucher must cover the call, under a delay that fits the contract's type.
    let mut wrong = core("paid_by_channel");
    let amount = wrong.payment.amount;
    if let Some(channel) = &mut wrong.payment.channel {
        channel.ceiling.0 = amount.0 - 1;
    }
    assert!(wrong.check_consistency().is_err());
    let mut wrong = core("paid_by_channel");
    if let Some(channel) = &mut wrong.payment.channel {
        channel.withdraw_delay = 1 << 40;
    }
    assert!(wrong.check_consistency().is_err());
}

#[test]
fn records_of_closed_models() {
    let v = load("receipt");
    let core = |name: &str| Core::decode(&bytes(&v[name]["payload"])).expect("a core");
    let (full, bare) = (core("with_upstream"), core("with_bare_upstream"));
    let record = full.upstream.clone().expect("a record");
    let root = b256(&v["closed_model_root"]);
    assert_eq!((record.model_root().0, full.model.served_root.0), (root, root));
    assert_eq!(
        (record.host.as_str(), record.response_id.as_deref()),
        ("api.anthropic.com", Some("msg_01"))
    );
    let salt = b256(&v["salt"]);
    let hash = |data: &[u8]| opg_primitives::hash::sha256(data);
    assert_eq!(
        record.request,
        opg_receipt::core::upstream::request_commitment(&salt, &hash(b"sent"))
    );
    assert_eq!(
        record.answer,
        opg_receipt::core::upstream::answer_commitment(&salt, &hash(b"came"))
    );
    let rest = bare.upstream.clone().expect("a record");
    assert!(rest.peer.is_none() && rest.response_id.is_none() && rest.reported_model.is_none());
    for core in [&full, &bare] {
        core.check_consistency().expect("consistent");
    }
}

#[test]
fn quote_and_agreement() {
    let v = load("receipt");
    let quote = common::quote();
    let public: [u8; 32] = bytes(&v["public"]).try_into().expect("32 bytes");
    assert_eq!(quote.quote().encode(), bytes(&v["quote"]["payload"]));
    assert_eq!(quote.digest(), b256(&v["quote"]["digest"]));
    quote.verify_signature(&public).expect("a valid signature");
    let ours = SignedQuote::sign(quote.quote().clone(), &common::key()).expect("signed");
    assert_eq!(ours, quote);
    common::core().check_quote(&quote).expect("agreement");
    common::core().check_consistency().expect("consistent");
    // A receipt is no quote and a quote no receipt.
    assert!(SignedQuote::decode(common::receipt().cose()).is_err());
    assert!(SignedReceipt::decode(quote.cose()).is_err());
}

#[test]
fn commitments() {
    let v = load("receipt");
    let core = common::core();
    let (salt, body) = (b256(&v["salt"]), bytes(&v["body"]));
    assert_eq!(commit::request(&salt, &body), core.request.body);
    assert_eq!(commit::params(&salt, text(&v["params"])), core.request.params);
    let leaves: Vec<B256> = list(&v["leaves"])
        .iter()
        .enumerate()
        .map(|(i, leaf)| {
            let kind = LeafKind::try_from(leaf["kind"].as_u64().expect("a code") as u8);
            let hash = commit::response_leaf(&salt, kind.expect("a kind"), i as u32, &bytes(&leaf["bytes"]));
            assert_eq!(hash, b256(&leaf["hash"]));
            hash
        })
        .collect();
    assert_eq!(commit::response(&leaves), Some(core.response.commitment));
    let digest = request_digest(text(&v["method"]), text(&v["path"]), &body);
    assert_eq!(digest, common::quote().quote().request_digest);
    let rolling = list(&v["chunks"])
        .iter()
        .fold(stream::EMPTY, |hash, chunk| rolling_hash(hash, &bytes(chunk)));
    assert_eq!(rolling, core.stream.rolling_hash);
    assert_eq!(rolling, b256(&v["rolling_hash"]));
}

#[test]
fn canonical_json_sorts_at_every_level() {
    let value = serde_json::json!({"b": [{"z": 1, "a": null}], "a": "ü", "A": 0.5});
    assert_eq!(
        commit::canonical_json(&value),
        r#"{"A":0.5,"a":"ü","b":[{"a":null,"z":1}]}"#
    );
    let params: Value = serde_json::from_str(text(&load("receipt")["params"])).expect("JSON");
    assert_eq!(commit::canonical_json(&params), text(&load("receipt")["params"]));
}

#[test]
fn the_file_is_written_byte_for_byte() {
    let v = load("receipt");
    let parsed = ReceiptFile::parse_strict(RECEIPT_FILE).expect("the golden file");
    assert_eq!(parsed.to_bytes(), RECEIPT_FILE);

    let keyset: Keyset = serde_json::from_value(load("ids")["keyset"].clone()).expect("the golden keyset");
    let cose = |name: &str| bytes(&v[name]["cose"]).into();
    let mut file = ReceiptFile::new(cose("receipt"), keyset, cose("quote"));
    file.opening = Some(Opening {
        salt: b256(&v["salt"]),
        method: "POST".into(),
        path: "/v1/chat/completions".into(),
        body: bytes(&v["body"]).into(),
        params: text(&v["params"]).into(),
        leaves: vec![
            Leaf {
                kind: LeafKind::Reasoning,
                bytes: b"Hmm.".to_vec().into(),
            },
            Leaf {
                kind: LeafKind::Text,
                bytes: "Grüße!".as_bytes().to_vec().into(),
            },
        ],
    });
    assert_eq!(file, parsed);
}

/// Hand-overs come last, and a file without them is what it was before there were any.
#[test]
fn hand_overs_extend_the_file_without_changing_it() {
    let v = load("seats");
    let parsed = ReceiptFile::parse_strict(HANDOVERS_FILE).expect("the golden file");
    assert_eq!(parsed.to_bytes(), HANDOVERS_FILE);
    assert_eq!(parsed.handovers.len(), 1);
    let handover = &parsed.handovers[0];
    assert_eq!((handover.epoch, handover.seats.to_vec()), (1, bytes(&v["encoded"])));
    let slot = &handover.state.accounts[0].slots[0];
    assert_eq!(
        (slot.key, slot.value),
        (b256(&v["slot_of_epoch_1"]), b256(&v["set_hash"]))
    );
    let mut without = parsed;
    without.handovers.clear();
    assert_eq!(without.to_bytes(), RECEIPT_FILE);
    // an empty list has another spelling already: absence
    let golden = std::str::from_utf8(RECEIPT_FILE).expect("UTF-8");
    let empty = golden.replace("\"payment\": null", "\"payment\": null,\n  \"handovers\": []");
    assert_ne!(empty, golden);
    assert!(ReceiptFile::parse_strict(empty.as_bytes()).is_err());
}

#[test]
fn every_other_spelling_of_a_file_is_refused() {
    let golden = std::str::from_utf8(RECEIPT_FILE).expect("UTF-8");
    let refused = |text: &str, why: &str| {
        assert_ne!(text, golden, "{why} changed nothing");
        assert!(ReceiptFile::parse_strict(text.as_bytes()).is_err(), "{why}");
    };
    refused(golden.trim_end(), "no final newline");
    refused(&format!("{golden}\n"), "two newlines");
    refused(&format!(" {golden}"), "leading space");
    refused(&golden.replace("  \"", "\t\""), "tabs");
    refused(&golden.replace("null", "null "), "a space");
    refused(&golden.replace("0xd28458", "0xD28458"), "upper-case hex");
    refused(&golden.replace("\"version\": 1", "\"version\": 2"), "another version");
    refused(&golden.replace("\"version\": 1", "\"version\": 1.0"), "a float");
    refused(&golden.replace("opg-receipt-file", "opg-receipt"), "another type");
    refused(
        &golden.replace("\"payment\": null", "\"payment\": null,\n  \"x\": 1"),
        "a new key",
    );
    refused(
        &golden.replace("  \"payment\": null", "  \"payment\": null,\n  \"payment\": null"),
        "a key twice",
    );
    refused(&golden.replace(",\n  \"payment\": null", ""), "a missing key");
    refused(&golden.replace("POST", "\\u0050OST"), "an escape");
    assert!(ReceiptFile::parse_strict(b"").is_err());
    assert!(ReceiptFile::parse_strict("[".repeat(100_000).as_bytes()).is_err());
}

#[test]
fn the_state_machine_has_exactly_the_specified_transitions() {
    let v = load("lifecycle");
    let words: Vec<&str> = list(&v["states"]).iter().map(text).collect();
    assert_eq!(words, State::ALL.map(State::as_str));
    for state in State::ALL {
        assert_eq!(state.as_str().parse(), Ok(state));
        assert_eq!(serde_json::to_value(state).expect("JSON"), state.as_str());
    }

    let proof = Event::Verify {
        mode: Mode::Tee,
        grade: Grade::Hardware,
    };
    let events = [
        ("authorise", Event::Authorise),
        ("execute", Event::Execute),
        ("check", Event::Check),
        ("verify", proof),
        ("finalise", Event::Finalise),
        ("settle", Event::Settle),
        ("release", Event::Release),
        ("expire", Event::Expire),
        ("dispute", Event::Dispute),
        ("refund", Event::Refund),
        ("slash", Event::Slash),
        ("dismiss", Event::Dismiss),
    ];
    // Every lifecycle that can be reached, by breadth, and every event tried in it.
    let mut expected: Vec<(String, String, String)> = list(&v["transitions"])
        .iter()
        .map(|t| (text(&t["from"]).into(), text(&t["event"]).into(), text(&t["to"]).into()))
        .collect();
    let mut found = BTreeMap::new();
    let mut todo = vec![Lifecycle::quoted(Mode::None), Lifecycle::quoted(Mode::Tee)];
    let mut seen = Vec::new();
    while let Some(lifecycle) = todo.pop() {
        if seen.contains(&lifecycle) {
            continue;
        }
        seen.push(lifecycle);
        let json = serde_json::to_string(&lifecycle).expect("JSON");
        assert_eq!(serde_json::from_str::<Lifecycle>(&json).expect("reachable"), lifecycle);
        if lifecycle.mode() == Mode::None {
            assert_ne!(lifecycle.state(), State::Verified);
            assert!(!lifecycle.to_string().contains("verified"));
        }
        let mut moved = false;
        for (name, event) in events {
            if let Ok(next) = lifecycle.apply(event) {
                let from = lifecycle.state().to_string();
                found.insert((from, name.to_owned(), next.state().to_string()), ());
                todo.push(next);
                moved = true;
            }
        }
        assert_eq!(moved, !lifecycle.state().is_terminal(), "{lifecycle}");
    }
    expected.sort();
    assert_eq!(found.into_keys().collect::<Vec<_>>(), expected);
}

#[test]
fn impossible_lifecycles_do_not_read() {
    for json in [
        r#"{"state":"verified","mode":"none","grade":"none"}"#,
        r#"{"state":"verified","mode":"none","grade":"hardware"}"#,
        r#"{"state":"checked","mode":"tee","grade":"none"}"#,
        r#"{"state":"final","mode":"tee","grade":"none"}"#,
        r#"{"state":"final","mode":"none","grade":"hardware"}"#,
        r#"{"state":"settled","mode":"none","grade":"none","disputed_from":"final"}"#,
        r#"{"state":"disputed","mode":"none","grade":"none"}"#,
        r#"{"state":"dismissed","mode":"none","grade":"none","disputed_from":"executed"}"#,
        r#"{"state":"disputed","mode":"none","grade":"none","disputed_from":"quoted"}"#,
        r#"{"state":"disputed","mode":"none","grade":"simulated","disputed_from":"final"}"#,
    ] {
        assert!(serde_json::from_str::<Lifecycle>(json).is_err(), "{json}");
    }
    let wrong = Lifecycle::quoted(Mode::Tee)
        .apply(Event::Authorise)
        .expect("authorised");
    let executed = wrong.apply(Event::Execute).expect("executed");
    assert!(executed.apply(Event::Check).is_err());
    assert!(
        executed
            .apply(Event::Verify {
                mode: Mode::Zk,
                grade: Grade::Hardware
            })
            .is_err()
    );
    assert!(
        executed
            .apply(Event::Verify {
                mode: Mode::Tee,
                grade: Grade::None
            })
            .is_err()
    );
}
