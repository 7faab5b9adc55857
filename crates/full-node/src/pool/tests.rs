use super::*;
use crate::verify::fixture::*;
use alloy_primitives::U256;
use opg_contracts::{addresses, slots};

fn pool(world: &World, change: impl FnOnce(&mut Bounds)) -> Arc<Pool> {
    let mut bounds = Bounds {
        receipts: 100,
        bytes: 1 << 20,
        node_receipts: 50,
        min_bond: MIN_BOND,
        expiry: 60,
    };
    change(&mut bounds);
    Arc::new(Pool::new(world.rules, bounds, 2, Arc::default()).unwrap())
}

/// Room for the costs of everything.
fn room(receipts: usize, bytes: usize) -> Room {
    Room {
        receipts,
        bytes,
        cost: u64::MAX,
    }
}

fn submit(pool: &Pool, world: &World, receipt: &SignedReceipt) -> Result<Inserted, Rule> {
    match pool.submit_now(receipt.cose(), None, &world.state, NOW) {
        Ok(submitted) => Ok(submitted.inserted),
        Err(SubmitError::Rejected(reject)) => Err(reject.rule),
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn submission_is_idempotent_and_exclusive() {
    let world = World::new();
    let pool = pool(&world, |_| {});
    let receipt = world.receipt(0);
    let submitted = pool
        .submit(receipt.cose().clone(), None, world.state.clone(), NOW)
        .await
        .unwrap();
    assert_eq!(submitted.inserted, Inserted::New);
    assert_eq!(submit(&pool, &world, &receipt), Ok(Inserted::Known));
    assert_eq!(pool.size(), (1, receipt.cose().len()));

    let mut same_seq = world.core(0);
    same_seq.times.done = 99;
    assert_eq!(submit(&pool, &world, &world.sign(same_seq)), Err(Rule::SeqDuplicate));
    let mut same_payment = world.core(5);
    same_payment.payment.nonce = receipt.core().payment.nonce;
    world.pay(&mut same_payment);
    assert_eq!(
        submit(&pool, &world, &world.sign(same_payment)),
        Err(Rule::PaymentDuplicate)
    );
    assert!(pool.by_id(receipt.core().receipt_id.0).is_some());
    assert!(pool.by_id(B256::ZERO).is_none());
}

#[test]
fn junk_is_refused_with_its_rule() {
    let world = World::new();
    let pool = pool(&world, |_| {});
    let rule = |bytes: Vec<u8>| match pool.submit_now(&bytes.into(), None, &world.state, NOW) {
        Err(SubmitError::Rejected(reject)) => reject.rule,
        other => panic!("{other:?}"),
    };
    assert_eq!(rule(vec![0; 4_097]), Rule::Size);
    assert_eq!(rule(vec![]), Rule::Encoding);
    assert_eq!(rule(vec![0xff; 300]), Rule::Encoding);
    let mut trailing = world.receipt(0).cose().to_vec();
    trailing.push(0);
    assert_eq!(rule(trailing), Rule::Encoding);
    assert_eq!(pool.size(), (0, 0));
}

#[test]
fn quota_grows_with_the_bond_and_comes_back() {
    let mut world = World::new();
    let pool = pool(&world, |b| b.node_receipts = 2);
    for seq in 0..2 {
        submit(&pool, &world, &world.receipt(seq)).unwrap();
    }
    assert_eq!(submit(&pool, &world, &world.receipt(2)), Err(Rule::Quota));
    world.set_node(2 * MIN_BOND, 0);
    submit(&pool, &world, &world.receipt(2)).unwrap();
    submit(&pool, &world, &world.receipt(3)).unwrap();
    assert_eq!(submit(&pool, &world, &world.receipt(4)), Err(Rule::Quota));
    pool.finalized(&[Arc::new(world.receipt(0))], NOW);
    submit(&pool, &world, &world.receipt(4)).unwrap();
}

#[test]
fn the_pool_is_bounded() {
    let world = World::new();
    let by_count = pool(&world, |b| b.receipts = 1);
    submit(&by_count, &world, &world.receipt(0)).unwrap();
    assert_eq!(submit(&by_count, &world, &world.receipt(1)), Err(Rule::PoolFull));
    let by_bytes = pool(&world, |b| b.bytes = world.receipt(0).cose().len() + 1);
    submit(&by_bytes, &world, &world.receipt(0)).unwrap();
    assert_eq!(submit(&by_bytes, &world, &world.receipt(1)), Err(Rule::PoolFull));
}

#[test]
fn a_finalized_receipt_takes_its_rivals_along() {
    let world = World::new();
    let pool = pool(&world, |_| {});
    submit(&pool, &world, &world.receipt(0)).unwrap();
    submit(&pool, &world, &world.receipt(1)).unwrap();
    // another receipt with the sequence number of one, and the payment of the other
    let mut rival = world.core(0);
    rival.payment.nonce = world.core(1).payment.nonce;
    pool.finalized(&[Arc::new(world.sign(rival))], NOW);
    assert_eq!(pool.size(), (0, 0));
}

#[test]
fn receipts_expire_by_block_time() {
    let world = World::new();
    let pool = pool(&world, |_| {});
    submit(&pool, &world, &world.receipt(0)).unwrap();
    pool.finalized(&[], NOW + 60);
    assert_eq!(pool.size().0, 1);
    pool.finalized(&[], NOW + 61);
    assert_eq!(pool.size().0, 0);
}

#[test]
fn selection_checks_against_the_parent_again() {
    let mut world = World::new();
    let pool = pool(&world, |_| {});
    for seq in (0..6).rev() {
        submit(&pool, &world, &world.receipt(seq)).unwrap();
    }
    let sequences = |world: &World, max, bytes| -> Vec<u64> {
        pool.select(&world.state, NOW, room(max, bytes))
            .unwrap()
            .iter()
            .map(|(_, entry)| entry.seq())
            .collect()
    };
    assert_eq!(
        sequences(&world, 100, 1 << 20),
        [0, 1, 2, 3, 4, 5],
        "grouped and in order"
    );
    assert_eq!(sequences(&world, 2, 1 << 20), [4, 5], "oldest first");
    assert_eq!(sequences(&world, 100, world.receipt(0).cose().len() + 9).len(), 1);

    // What verifying a block costs is bounded too: each of these costs a unit.
    let costing = |cost| Room {
        cost,
        ..room(100, 1 << 20)
    };
    assert_eq!(pool.select(&world.state, NOW, costing(4)).unwrap().len(), 4);
    assert!(pool.select(&world.state, NOW, costing(0)).unwrap().is_empty());

    // recorded by a parent that may not become final: waits, and leaves when that must be settled; no funds: waits
    let slot = slots::seq_word(world.core(0).keyset.0, 0);
    world.state.set(addresses::RECEIPT_LEDGER, slot, U256::from(0b11));
    assert_eq!(sequences(&world, 100, 1 << 20), [2, 3, 4, 5]);
    assert_eq!(pool.size().0, 6);
    assert_eq!(
        sequences(&world, 2, 1 << 20).len(),
        2,
        "what can not pass now stands behind what can"
    );
    pool.select(&world.state, NOW + SETTLE_SECS, room(100, 1 << 20))
        .unwrap();
    assert_eq!(pool.size().0, 4);
    world.set_balance(0);
    assert!(sequences(&world, 100, 1 << 20).is_empty());
    assert_eq!(pool.size().0, 4);
    // expired authorization: only settlement can help
    assert!(
        pool.select(&world.state, NOW + 601, room(100, 1 << 20))
            .unwrap()
            .is_empty()
    );
}

#[test]
fn a_batch_is_judged_like_single_receipts() {
    let world = World::new();
    let pool = pool(&world, |_| {});
    let receipts: Vec<Bytes> = (0..40).map(|seq| world.receipt(seq).cose().clone()).collect();
    let batch = pool.check_batch(&receipts, &[], &world.state, NOW).unwrap();
    assert_eq!(
        batch.iter().map(|(_, e)| e.seq()).collect::<Vec<_>>(),
        (0..40).collect::<Vec<_>>(),
        "order is kept"
    );
    let again = pool.check_batch(&receipts, &[], &world.state, NOW).unwrap();
    assert_eq!(again.len(), 40);

    let rule = |receipts: &[Bytes]| match pool.check_batch(receipts, &[], &world.state, NOW) {
        Err((at, CheckError::Rejected(reject))) => (at, reject.rule),
        other => panic!("{other:?}"),
    };
    let mut twice = receipts.clone();
    twice.push(receipts[3].clone());
    assert_eq!(rule(&twice), (40, Rule::SeqDuplicate));
    let mut tampered = receipts.clone();
    let mut bytes = tampered[5].to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    tampered[5] = bytes.into();
    assert_eq!(
        rule(&tampered),
        (5, Rule::Signature),
        "a known core with another signature is checked"
    );
    assert_eq!(rule(&[Bytes::from_static(b"x")]), (0, Rule::Encoding));
}

/// A block names its proofs: a validator votes for what it has verified itself, and a leader gives the others time.
#[test]
fn a_batch_with_a_proof_needs_the_proof() {
    let (world, receipt, artefact) = proven();
    let batch = [receipt.cose().clone()];
    let name = name(&receipt, &artefact);
    let pool = pool(&world, |_| {});
    let rule = |names: &[ProofName]| match pool.check_batch(&batch, names, &world.state, NOW) {
        Ok(batch) => panic!("{} receipts", batch.len()),
        Err((_, CheckError::Rejected(reject))) => reject.rule,
        Err((_, CheckError::State(never))) => match never {},
    };
    assert_eq!(rule(&[name]), Rule::EvidenceMissing);
    assert_eq!(submit(&pool, &world, &receipt), Err(Rule::EvidenceMissing));
    pool.submit_now(receipt.cose(), Some(artefact.clone()), &world.state, NOW)
        .unwrap();
    assert_eq!(pool.size(), (1, receipt.cose().len() + artefact.len()));
    assert_eq!(pool.check_batch(&batch, &[name], &world.state, NOW).unwrap().len(), 1);
    // no name, one that nobody needs, one too many, and another proof, which has not come
    let stranger = ProofName {
        core_hash: B256::repeat_byte(1),
        ..name
    };
    let other = ProofName {
        artefact: B256::repeat_byte(1),
        ..name
    };
    assert_eq!(rule(&[]), Rule::Evidence);
    assert_eq!(rule(&[stranger]), Rule::Evidence);
    assert_eq!(rule(&[name, stranger]), Rule::Evidence);
    assert_eq!(rule(&[stranger, name]), Rule::Evidence);
    assert_eq!(rule(&[name, name]), Rule::Evidence);
    assert_eq!(rule(&[other]), Rule::EvidenceMissing);
    let plain = world.receipt(1);
    let named = name_of(&plain, B256::ZERO);
    let found = pool.check_batch(&[plain.cose().clone()], &[named], &world.state, NOW);
    assert!(matches!(found, Err((0, CheckError::Rejected(reject))) if reject.rule == Rule::Evidence));

    assert!(pool.select(&world.state, NOW, room(10, 1 << 20)).unwrap().is_empty());
    std::thread::sleep(PROOF_SPREAD);
    let cheap = Room {
        cost: 599,
        ..room(10, 1 << 20)
    };
    assert!(
        pool.select(&world.state, NOW, cheap).unwrap().is_empty(),
        "a proof costs 600 units"
    );
    let selected = pool.select(&world.state, NOW, room(10, 1 << 20)).unwrap();
    assert_eq!(selected.len(), 1);
    let names = pool.names(selected.iter().map(|(receipt, _)| receipt.as_ref()));
    assert_eq!(names, Some(vec![name]));
    let waiting = pool.waiting_longer_than(Duration::ZERO, 10);
    assert_eq!(waiting[0].artefact, Some(artefact));
}

/// The leader has another valid proof than the one that came here, or an invalid one: a validator takes the one that the block names,
/// and no other.
#[test]
fn another_proof_is_taken_when_a_block_names_it() {
    let (world, receipt, artefact) = proven();
    let batch = [receipt.cose().clone()];
    let name = name(&receipt, &artefact);
    let mut forged = artefact.to_vec();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    let forged = Bytes::from(forged);
    let bad = name_of(&receipt, sha256(&forged));
    let pool = pool(&world, |_| {});
    let send = |artefact: &Bytes| pool.submit_now(receipt.cose(), Some(artefact.clone()), &world.state, NOW);
    assert!(send(&forged).is_err());
    assert_eq!(pool.known(&bad), None, "nobody asked for it");

    assert_eq!(pool.missing_proofs(&[name, bad]), [name, bad]);
    assert!(!pool.has_proofs(&[name]) && !pool.has_proofs(&[bad]));
    let reject = send(&forged).map(drop);
    assert!(matches!(reject, Err(SubmitError::Rejected(reject)) if reject.rule == Rule::EvidenceInvalid));
    assert!(matches!(pool.known(&bad), Some(Known::Bad { artefact, .. }) if artefact == forged));
    assert!(pool.has_proofs(&[bad]));
    let judged = pool.check_batch(&batch, &[bad], &world.state, NOW);
    assert!(
        matches!(judged, Err((0, CheckError::Rejected(reject))) if reject.rule == Rule::EvidenceInvalid),
        "no vote, and never one"
    );
    // the good one, beside it
    send(&artefact).unwrap();
    assert!(pool.has_proofs(&[name, bad]));
    assert_eq!(pool.check_batch(&batch, &[name], &world.state, NOW).unwrap().len(), 1);
    assert!(pool.check_batch(&batch, &[bad], &world.state, NOW).is_err());
    let id = receipt.core().receipt_id.0;
    let receipts = [Arc::new(receipt)];
    assert_eq!(pool.artefacts(&receipts, &[name]), [(id, artefact)]);
    assert_eq!(pool.artefacts(&receipts, &[bad]), []);
    pool.finalized(&receipts, NOW);
    assert_eq!((pool.known(&name), pool.known(&bad)), (None, None));
}

/// A receipt of mode zk with its proof.
fn proven() -> (World, SignedReceipt, Bytes) {
    let mut world = World::new();
    world.set_program(opg_samples::proof::program_root());
    let mut core = world.core(0);
    let answer = opg_samples::proof::zk(&mut core, 0, NOW);
    let artefact = Bytes::from(opg_samples::proof::artefact(&core, 0, &answer));
    let receipt = world.sign(core);
    (world, receipt, artefact)
}

fn name(receipt: &SignedReceipt, artefact: &[u8]) -> ProofName {
    name_of(receipt, sha256(artefact))
}

fn name_of(receipt: &SignedReceipt, artefact: B256) -> ProofName {
    ProofName {
        core_hash: receipt.core_hash(),
        artefact,
    }
}
