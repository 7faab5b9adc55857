//! Hostile receipts: changed bytes, weak keys, fields that contradict each other.

mod common;

use ed25519_dalek::SigningKey;
use opg_primitives::{
    B256,
    ids::ReceiptId,
    mode::{Grade, Mode},
    money::Amount,
};
use opg_receipt::{
    Core, Evidence, FinishReason, PreparedKey, ReceiptError, ReceiptFile, SignatureError, SignedQuote, SignedReceipt,
    UpstreamRecord, file::MAX_FILE_BYTES, verify_batch,
};
use opg_vectors::{RECEIPT_FILE, bytes, load};
use proptest::prelude::*;

fn public() -> [u8; 32] {
    common::key().verifying_key().to_bytes()
}

#[test]
fn every_bit_of_a_receipt_is_covered() {
    let good = common::receipt().cose().to_vec();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            let accepted = SignedReceipt::decode(&bytes).and_then(|receipt| receipt.verify_signature(&public()));
            assert!(accepted.is_err(), "byte {at} bit {bit}");
        }
    }
    for length in 0..good.len() {
        assert!(SignedReceipt::decode(&good[..length]).is_err());
    }
    let mut longer = good;
    longer.push(0);
    assert!(SignedReceipt::decode(&longer).is_err());
}

#[test]
fn every_bit_of_a_quote_is_covered() {
    let good = common::quote().cose().to_vec();
    for at in 0..good.len() {
        let mut bytes = good.clone();
        bytes[at] ^= 1 << (at % 8);
        let accepted = SignedQuote::decode(&bytes).and_then(|quote| quote.verify_signature(&public()));
        assert!(accepted.is_err(), "byte {at}");
    }
}

/// The record of a closed model: no text without bounds, no root but its own, no proof of what nobody can compute again.
#[test]
fn upstream_records_are_bounded_and_agree_with_their_core() {
    let good = Core::decode(&bytes(&load("receipt")["with_upstream"]["payload"])).expect("a core");
    good.check_consistency().expect("consistent");
    let record = good.upstream.clone().expect("a record");
    let refused = |change: &dyn Fn(&mut Core), field: &str, decodes: bool| {
        let mut core = good.clone();
        change(&mut core);
        let error = core.check_consistency().expect_err(field).to_string();
        assert!(error.contains(field), "{field}: {error}");
        assert_eq!(Core::decode(&core.encode()).is_ok(), decodes, "{field}");
    };
    let record_of = |core: &mut Core, change: &dyn Fn(&mut UpstreamRecord)| {
        change(core.upstream.as_mut().expect("a record"));
    };
    type Change = fn(&mut UpstreamRecord);
    let texts: [(&str, Change); 9] = [
        ("upstream.provider", |r| r.provider = String::new()),
        ("upstream.host", |r| r.host = "a".repeat(201)),
        ("upstream.host", |r| r.host = "API.anthropic.com".into()),
        ("upstream.host", |r| r.host = "api.anthropic.com ".into()),
        ("upstream.model", |r| r.model = "m".repeat(129)),
        ("upstream.transform", |r| r.transform = "\u{1b}[2J".into()),
        ("upstream.response_id", |r| r.response_id = Some("é".into())),
        ("upstream.response_id", |r| r.response_id = Some(String::new())),
        ("upstream.reported_model", |r| r.reported_model = Some("x".repeat(129))),
    ];
    for (field, change) in texts {
        refused(&|core| record_of(core, &change), field, false);
    }
    // Another model, host or provider than the root says: well-formed, but not this core's.
    let others: [Change; 3] = [
        |r| r.model = "claude-opus-4-5".into(),
        |r| r.host = "api.anthropic.com.example".into(),
        |r| r.provider = "compatible".into(),
    ];
    for change in others {
        refused(&|core| record_of(core, &change), "upstream.model", true);
    }
    refused(
        &|core| record_of(core, &|r| r.complete = false),
        "upstream.complete",
        true,
    );
    let proven = |core: &mut Core| {
        core.mode.asked = Mode::Zk;
        core.mode.min_grade = Grade::Hardware;
        core.mode.served = Mode::Zk;
        core.mode.grade = Grade::Hardware;
        core.evidence = Some(Evidence {
            statement_hash: Some(B256::repeat_byte(1)),
            proof_deadline: Some(core.times.done / 1_000 + 1),
            ..Evidence::default()
        });
    };
    refused(&proven, "upstream", true);
    // Half a peer, a later version, and one key more.
    let pairs = |change: &dyn Fn(&mut Vec<(ciborium::Value, ciborium::Value)>)| {
        let mut value: ciborium::Value = ciborium::from_reader(good.encode().as_slice()).expect("CBOR");
        let map = value.as_map_mut().expect("a map");
        change(map.last_mut().expect("key 21").1.as_map_mut().expect("a map"));
        let mut bytes = Vec::new();
        ciborium::into_writer(&value, &mut bytes).expect("writing to memory");
        Core::decode(&bytes)
    };
    assert_eq!(pairs(&|_| ()).expect("unchanged").upstream, Some(record));
    assert!(
        pairs(&|map| map.retain(|(key, _)| *key != 12.into())).is_err(),
        "half a peer"
    );
    assert!(pairs(&|map| map[0].1 = 2.into()).is_err(), "a later version");
    assert!(pairs(&|map| map.push((15.into(), 0.into()))).is_err(), "an unknown key");
}

/// The COSE bytes as an independent CBOR library reads them.
#[test]
fn ciborium_reads_the_cose_structure() {
    let receipt = common::receipt();
    let value: ciborium::Value = ciborium::from_reader(receipt.cose().as_ref()).expect("CBOR");
    let ciborium::Value::Tag(18, inner) = value else {
        panic!("tag 18")
    };
    let parts = inner.into_array().expect("an array");
    assert_eq!(parts.len(), 4);
    let protected = parts[0].as_bytes().expect("bytes");
    let header: ciborium::Value = ciborium::from_reader(protected.as_slice()).expect("CBOR");
    let header = header.into_map().expect("a map");
    assert_eq!(header[0], (1.into(), (-8).into()));
    assert_eq!(header[1].1.as_text(), Some("application/opg-receipt+cbor"));
    assert_eq!(parts[2].as_bytes(), Some(&receipt.core().encode()));
    // The signed structure, rebuilt with that library and checked with dalek alone.
    let structure = ciborium::Value::Array(vec![
        "Signature1".into(),
        ciborium::Value::Bytes(protected.clone()),
        ciborium::Value::Bytes(b"opg/receipt/v1".to_vec()),
        parts[2].clone(),
    ]);
    let mut signed = Vec::new();
    ciborium::into_writer(&structure, &mut signed).expect("writing to memory");
    let signature: [u8; 64] = parts[3].as_bytes().expect("bytes")[..].try_into().expect("64");
    common::key()
        .verifying_key()
        .verify_strict(&signed, &ed25519_dalek::Signature::from_bytes(&signature))
        .expect("the same bytes are signed");
}

#[test]
fn weak_and_misspelt_keys_are_refused() {
    let receipt = common::receipt();
    let mut identity = [0u8; 32];
    identity[0] = 1;
    // y = p + 1 spells the identity a second time, y = 2 is on no point of the curve.
    let mut misspelt = [0xff; 32];
    (misspelt[0], misspelt[31]) = (0xee, 0x7f);
    let mut off_curve = [0u8; 32];
    off_curve[0] = 2;
    for key in [identity, [0; 32], misspelt, off_curve] {
        assert_eq!(
            receipt.verify_signature(&key),
            Err(ReceiptError::Signature {
                what: "receipt",
                source: SignatureError::Key
            })
        );
    }
    let other = SigningKey::from_bytes(&[9; 32]).verifying_key().to_bytes();
    assert_eq!(
        receipt.verify_signature(&other),
        Err(ReceiptError::Signature {
            what: "receipt",
            source: SignatureError::Mismatch
        })
    );
}

/// `s + L` verifies in lax implementations: a second signature for the same receipt.
#[test]
fn malleated_signatures_are_refused() {
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut bytes = common::receipt().cose().to_vec();
    let start = bytes.len() - 32;
    let mut carry = 0u16;
    for (byte, add) in bytes[start..].iter_mut().zip(ORDER) {
        carry += u16::from(*byte) + u16::from(add);
        *byte = carry as u8;
        carry >>= 8;
    }
    let receipt = SignedReceipt::decode(&bytes).expect("well-formed");
    assert!(receipt.verify_signature(&public()).is_err());
}

#[test]
fn batches_agree_with_single_verdicts() {
    let good = common::receipt();
    let mut bytes = good.cose().to_vec();
    *bytes.last_mut().expect("bytes") ^= 1;
    let bad = SignedReceipt::decode(&bytes).expect("well-formed");
    let other = SigningKey::from_bytes(&[9; 32]).verifying_key().to_bytes();
    let (own, foreign) = (
        PreparedKey::new(&public()).expect("key"),
        PreparedKey::new(&other).expect("key"),
    );
    let mut items = vec![(&good, &own), (&bad, &own), (&good, &foreign)];
    // more than share an inversion
    for _ in 0..300 {
        items.push((&good, &own));
    }
    let single: Vec<_> = items
        .iter()
        .map(|(r, key)| r.verify_signature(key.as_bytes()))
        .collect();
    assert_eq!(verify_batch(&items), single);
    assert_eq!(single.iter().filter(|verdict| verdict.is_ok()).count(), 301);
    for ((receipt, key), verdict) in items.iter().zip(&single).take(3) {
        assert_eq!(receipt.verify_prepared(key), *verdict);
    }
    assert!(verify_batch(&[]).is_empty());
    // what is no key for the one is none for the other
    for bytes in [[0; 32], [0xff; 32], [1; 32]] {
        assert_eq!(
            PreparedKey::new(&bytes).map(|_| ()),
            match good.verify_signature(&bytes) {
                Err(
                    error @ ReceiptError::Signature {
                        source: SignatureError::Key,
                        ..
                    },
                ) => Err(error),
                _ => Ok(()),
            }
        );
    }
}

#[test]
fn receipts_are_bounded() {
    let mut core = common::core();
    core.payment.signature = vec![1; 1_024].into();
    SignedReceipt::sign(core.clone(), &common::key()).expect("1 024 bytes are allowed");
    core.payment.signature = vec![1; 1_025].into();
    assert!(matches!(
        SignedReceipt::sign(core, &common::key()),
        Err(ReceiptError::TooLong {
            what: "payment.signature",
            limit: 1_024,
            got: 1_025
        })
    ));
    assert!(matches!(
        SignedReceipt::decode(&vec![0; 4_097]),
        Err(ReceiptError::TooLong {
            limit: 4_096,
            got: 4_097,
            ..
        })
    ));
    assert!(matches!(
        ReceiptFile::parse_strict(&vec![b' '; MAX_FILE_BYTES + 1]),
        Err(ReceiptError::TooLong { .. })
    ));
    for name in ["x".repeat(201), "a\u{1b}[2Jb".into(), "a\nb".into()] {
        let mut core = common::core();
        core.model.asked = name;
        assert!(SignedReceipt::sign(core, &common::key()).is_err());
    }
}

/// Each case changes one thing; the error must name the field.
#[test]
fn contradictions_name_the_field() {
    type Change = fn(&mut Core);
    let cases: &[(&str, Change)] = &[
        ("receipt_id", |core| core.receipt_id = ReceiptId(B256::ZERO)),
        ("receipt_id", |core| core.chain_id += 1),
        ("receipt_id", |core| core.quote.nonce = B256::ZERO),
        ("prev", |core| core.prev = B256::repeat_byte(1)),
        ("prev", |core| core.seq = 1),
        ("times", |core| core.times.first_output = core.times.done + 1),
        ("times", |core| core.times.received = core.times.first_output + 1),
        ("stream", |core| core.stream.streamed = false),
        ("payment.valid_before", |core| {
            core.payment.valid_after = core.payment.valid_before
        }),
        ("mode.min_grade", |core| core.mode.min_grade = Grade::Simulated),
        ("mode.grade", |core| core.mode.grade = Grade::Hardware),
        ("mode.grade", |core| core.mode.served = Mode::Tee),
        ("evidence", |core| {
            core.evidence = Some(Evidence {
                policy_epoch: Some(1),
                ..Evidence::default()
            });
        }),
        ("evidence", |core| {
            (core.mode.served, core.mode.grade) = (Mode::Tee, Grade::Hardware);
        }),
        ("price.charge", |core| core.price.charge.0 += 1),
        ("price.charge", |core| core.price.charge.0 -= 1),
        ("price.charge", |core| core.usage.output += 1),
        ("price.charge", |core| core.price.charge = Amount::ZERO),
        ("price.charge", |core| {
            (core.mode.asked, core.mode.min_grade) = (Mode::Tee, Grade::None)
        }),
        ("price", |core| core.price.royalty_bps = 3_001),
    ];
    for (field, change) in cases {
        let mut core = common::core();
        change(&mut core);
        let error = core.check_consistency().expect_err(field).to_string();
        assert!(error.starts_with(&format!("field {field}:")), "{field}: {error}");
    }
}

#[test]
fn a_charge_may_be_less_after_an_error_only() {
    for finish in [FinishReason::Error, FinishReason::Cancelled] {
        let mut core = common::core();
        core.response.finish = finish;
        core.check_consistency().expect("the full charge");
        core.price.charge = Amount::ZERO;
        core.check_consistency().expect("nothing");
        core.price.charge = core.payment.amount.saturating_add(Amount(1));
        assert!(core.check_consistency().is_err());
    }
    // The signed amount is a cap.
    let mut core = common::core();
    core.usage.output = 1_000_000;
    core.price.charge = core.payment.amount;
    core.check_consistency().expect("capped");
    // Less verification than asked for earns nothing.
    let mut core = common::core();
    core.mode.asked = Mode::Tee;
    core.price.charge = Amount::ZERO;
    core.check_consistency().expect("nothing earned");
}

#[test]
fn a_receipt_that_breaks_its_quote_names_the_field() {
    type Change = fn(&mut Core);
    let cases: &[(&str, Change)] = &[
        ("quote.digest", |core| core.quote.digest = B256::ZERO),
        ("model.asked_root", |core| core.model.asked_root = B256::ZERO.into()),
        ("price.ask", |core| core.price.ask.per_mtok_out.0 += 1),
        ("price.royalty_bps", |core| core.price.royalty_bps += 1),
        ("payment.payee", |core| core.payment.payee = core.payment.payer),
        ("payment.amount", |core| core.payment.amount.0 += 1),
        ("mode.asked", |core| core.mode.asked = Mode::Zk),
    ];
    for (field, change) in cases {
        let mut core = common::core();
        change(&mut core);
        let error = core.check_quote(&common::quote()).expect_err(field).to_string();
        assert!(error.starts_with(&format!("field {field}:")), "{field}: {error}");
    }
}

proptest! {
    #![proptest_config(opg_samples::cases(600))]

    /// No panic, and whatever decodes is the canonical encoding of what it says.
    #[test]
    fn mutated_cores_decode_canonically_or_not_at_all(
        edits in prop::collection::vec(opg_samples::edit(), 1..6),
    ) {
        let good = common::core().encode();
        let mut bytes = good;
        for edit in edits {
            edit.apply(&mut bytes);
        }
        if let Ok(core) = Core::decode(&bytes) {
            prop_assert_eq!(core.encode(), bytes);
            let _ = core.check_consistency();
            let _ = core.check_quote(&common::quote());
        }
    }

    #[test]
    fn mutated_messages_never_verify(
        edits in prop::collection::vec(opg_samples::edit(), 1..6),
    ) {
        let good = common::receipt().cose().to_vec();
        let mut bytes = good.clone();
        for edit in edits {
            edit.apply(&mut bytes);
        }
        let verdict = SignedReceipt::decode(&bytes).and_then(|r| r.verify_signature(&public()));
        prop_assert!(verdict.is_err() || bytes == good);
    }

    #[test]
    fn mutated_files_are_canonical_or_refused(edit in opg_samples::edit()) {
        let mut bytes = RECEIPT_FILE.to_vec();
        edit.apply(&mut bytes);
        if let Ok(file) = ReceiptFile::parse_strict(&bytes) {
            prop_assert_eq!(file.to_bytes(), bytes);
        }
    }
}
