//! Artefacts of a real model's answers: what they prove, and what they are refused for.

use alloy_primitives::B256;
use opg_artefact::{ArtefactError, MAX_ARTEFACT_BYTES, ZkArtefact, statement};
use opg_primitives::{
    ids::{Keyset, ModelRoot, NodeId, ReceiptId},
    money::{Amount, Price, Usage},
};
use opg_receipt::{Core, FinishReason, UsageUnit};
use opg_samples::{Sale, cases, edit, payment, proof};
use opg_zkml::ProveError;
use proptest::{prelude::*, sample::Index};
use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

const DONE: u64 = 1_790_000_000;

fn core(seed: u64) -> (Core, Vec<u8>) {
    let keyset = Keyset {
        node_id: NodeId(B256::repeat_byte(1)),
        receipt_key: B256::repeat_byte(8),
        settlement_key: alloy_primitives::Address::repeat_byte(2),
        hpke_key: B256::ZERO,
        tls_spki: B256::ZERO,
    };
    let payer = opg_payments::signature::SecretKey::from_byte_array(&[9; 32]).unwrap();
    let price = Price {
        per_call: Amount(1_000),
        per_mtok_in: Amount(0),
        per_mtok_out: Amount(0),
    };
    let sale = Sale {
        chain_id: 10_740,
        keyset: &keyset,
        seq: seed,
        model: ("demo/digits-mlp", ModelRoot(B256::repeat_byte(3))),
        ask: price,
        royalty_bps: 0,
        usage: (UsageUnit::Calls, Usage { input: 1, output: 1 }),
        payment: payment(
            10_740,
            &keyset,
            &payer,
            Amount(1_000),
            B256::with_last_byte(seed as u8),
            DONE + 600,
        ),
    };
    let mut core = sale.core();
    let answer = proof::zk(&mut core, seed, DONE);
    core.check_consistency().unwrap();
    (core, answer)
}

/// One proven answer, made once.
fn sample() -> &'static (Core, Vec<u8>) {
    static SAMPLE: OnceLock<(Core, Vec<u8>)> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let (core, answer) = core(1);
        let artefact = proof::artefact(&core, 1, &answer);
        (core, artefact)
    })
}

#[test]
fn an_artefact_proves_its_receipt_and_no_other() {
    let (core, bytes) = sample();
    let artefact = ZkArtefact::decode(bytes).unwrap();
    assert_eq!(artefact.program(), proof::program_root());
    assert_eq!(artefact.encode(), *bytes);
    assert!(bytes.len() < MAX_ARTEFACT_BYTES && artefact.proof_bytes() < bytes.len());
    artefact.verify(core).unwrap();

    // The answer to another request, with the statement that belongs to it.
    let (other, _) = self::core(2);
    assert!(matches!(
        artefact.verify(&other),
        Err(ArtefactError::Commitment {
            what: "the request's body",
            ..
        })
    ));
}

/// Every field that the statement is made of, and every field that ties the proof to its occasion.
#[test]
fn a_changed_core_is_not_proven() {
    let (core, bytes) = sample();
    let artefact = ZkArtefact::decode(bytes).unwrap();
    // What the node could sign instead, with a statement that agrees with it.
    type Change = fn(&mut Core);
    let changes: [(&str, Change); 8] = [
        ("the request's body", |c| c.request.body = B256::ZERO),
        ("the answer", |c| c.response.commitment = B256::ZERO),
        ("response.leaves", |c| c.response.leaves = 2),
        ("response.finish", |c| c.response.finish = FinishReason::Length),
        ("transcript", |c| c.receipt_id = ReceiptId(B256::ZERO)),
        ("transcript", |c| c.quote.nonce = B256::ZERO),
        ("transcript", |c| c.node_id = NodeId(B256::ZERO)),
        ("response.finish", |c| c.response.finish = FinishReason::Error),
    ];
    for (what, change) in changes {
        let mut core = core.clone();
        change(&mut core);
        let hash = statement(&core, &artefact.program());
        core.evidence.as_mut().unwrap().statement_hash = Some(hash);
        let error = artefact.verify(&core).unwrap_err();
        match (what, &error) {
            // The proof was made for another occasion: its challenges are others.
            ("transcript", ArtefactError::Proof(_)) => {}
            ("transcript", _) => panic!("{error}"),
            (what, error) => assert!(error.to_string().contains(what), "{what}: {error}"),
        }
    }
    // Another model or program gives another statement.
    let mut other = core.clone();
    other.model.served_root = ModelRoot(B256::ZERO);
    assert!(artefact.verify(&other).is_err());
    other = core.clone();
    other.evidence = None;
    assert!(matches!(artefact.verify(&other), Err(ArtefactError::Receipt { .. })));
}

/// An answer in other words for the same integers, or with another label, is not the answer.
#[test]
fn an_answer_has_one_text() {
    let (mut core, answer) = core(3);
    let text = String::from_utf8(answer).unwrap();
    let relabel = |text: &str| {
        let at = text.find("\"label\":[").unwrap() + 9;
        let digit = &text[at..=at];
        let other = if digit == "1" { "2" } else { "1" };
        format!("{}{other}{}", &text[..at], &text[at + 1..])
    };
    for (changed, words) in [(format!(" {text}"), "canonical"), (relabel(&text), "label")] {
        let leaf =
            opg_receipt::commit::response_leaf(&proof::SALT, opg_receipt::LeafKind::Tensors, 0, changed.as_bytes());
        core.response.commitment = opg_receipt::commit::response(&[leaf]).unwrap();
        let hash = statement(&core, &proof::program_root());
        core.evidence.as_mut().unwrap().statement_hash = Some(hash);
        let made = ZkArtefact::prove(
            &AtomicBool::new(false),
            proof::program(),
            &core,
            proof::SALT,
            &proof::body(3),
            changed.as_bytes(),
            &mut |_| {},
        );
        let error = made.unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
}

/// A proof that nobody wants any more ends at its next step.
#[test]
fn proving_can_be_cancelled() {
    let (core, answer) = core(4);
    let cancel = AtomicBool::new(false);
    let mut steps = 0;
    let made = ZkArtefact::prove(
        &cancel,
        proof::program(),
        &core,
        proof::SALT,
        &proof::body(4),
        &answer,
        &mut |_| {
            steps += 1;
            if steps == 3 {
                cancel.store(true, Ordering::Relaxed);
            }
        },
    );
    assert!(
        matches!(made, Err(ArtefactError::Prove(ProveError::Cancelled))),
        "{made:?}"
    );
    assert_eq!(steps, 3);
}

#[test]
fn hostile_bytes_are_refused() {
    let (_, bytes) = sample();
    for end in [0, 1, 30, bytes.len() / 2, bytes.len() - 1] {
        assert!(ZkArtefact::decode(&bytes[..end]).is_err(), "{end}");
    }
    let mut longer = bytes.clone();
    longer.push(0);
    assert!(matches!(ZkArtefact::decode(&longer), Err(ArtefactError::Cbor(_))));
    assert!(matches!(
        ZkArtefact::decode(&vec![0; MAX_ARTEFACT_BYTES + 1]),
        Err(ArtefactError::Cbor(_))
    ));
}

proptest! {
    #![proptest_config(cases(64))]

    /// No edit of an artefact proves the receipt: every byte of it is bound.
    #[test]
    fn no_edited_artefact_proves_anything(edit in edit(), flip in any::<(Index, u8)>()) {
        let (core, bytes) = sample();
        let mut edited = bytes.clone();
        edit.apply(&mut edited);
        let mut flipped = bytes.clone();
        let at = flip.0.index(flipped.len());
        flipped[at] ^= 1 << (flip.1 % 8);
        for changed in [edited, flipped] {
            if changed != *bytes && let Ok(artefact) = ZkArtefact::decode(&changed) {
                prop_assert!(artefact.verify(core).is_err());
            }
        }
    }
}

/// A node that answers something else than its program is refuted by anyone who has request and program, and an honest one by nobody.
#[test]
fn a_wrong_answer_is_refuted() {
    let never = AtomicBool::new(false);
    let refute = |core: &Core| {
        ZkArtefact::refute(
            &never,
            proof::program(),
            core,
            proof::SALT,
            &proof::body(1),
            &mut |_| {},
        )
    };
    let (honest, bytes) = sample();
    assert!(matches!(refute(honest), Err(ArtefactError::Agrees)));
    let agreeing = ZkArtefact::decode(bytes).unwrap();
    assert!(matches!(agreeing.contradicts(honest), Err(ArtefactError::Agrees)));

    let mut wrong = honest.clone();
    wrong.response.commitment = B256::repeat_byte(0x66);
    let evidence = wrong.evidence.as_mut().unwrap();
    evidence.statement_hash = None;
    wrong.evidence.as_mut().unwrap().statement_hash = Some(statement(&wrong, &proof::program_root()));
    let right = refute(&wrong).unwrap();
    right.contradicts(&wrong).unwrap();
    assert!(matches!(
        right.verify(&wrong),
        Err(ArtefactError::Commitment { what: "the answer", .. })
    ));
    let again = ZkArtefact::decode(&right.encode()).unwrap();
    again.contradicts(&wrong).unwrap();
    // It is about this receipt: not about the honest one, one of another program, or one to another request.
    assert!(right.contradicts(honest).is_err());
    for change in [
        (|core: &mut Core| core.evidence.as_mut().unwrap().statement_hash = Some(B256::ZERO)) as fn(&mut Core),
        |core| core.request.body = B256::ZERO,
        |core| core.receipt_id = ReceiptId(B256::ZERO),
        |core| core.node_id = NodeId(B256::ZERO),
        |core| core.quote.nonce = B256::ZERO,
        |core| core.response.finish = FinishReason::Length,
    ] {
        let mut other = wrong.clone();
        change(&mut other);
        assert!(right.contradicts(&other).is_err());
    }
    // A proof that does not hold refutes nothing.
    let mut bytes = right.encode();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let forged = ZkArtefact::decode(&bytes).unwrap();
    assert!(matches!(forged.contradicts(&wrong), Err(ArtefactError::Proof(_))));
    let stopped = AtomicBool::new(true);
    let cancelled = ZkArtefact::refute(
        &stopped,
        proof::program(),
        &wrong,
        proof::SALT,
        &proof::body(1),
        &mut |_| {},
    );
    assert!(matches!(cancelled, Err(ArtefactError::Prove(ProveError::Cancelled))));
}
