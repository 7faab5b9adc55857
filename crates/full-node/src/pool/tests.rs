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
    let batch = pool.check_batch(&receipts, &world.state, NOW).unwrap();
    assert_eq!(
        batch.iter().map(|(_, e)| e.seq()).collect::<Vec<_>>(),
        (0..40).collect::<Vec<_>>(),
        "order is kept"
    );
    let again = pool.check_batch(&receipts, &world.state, NOW).unwrap();
    assert_eq!(again.len(), 40);

    let rule = |receipts: &[Bytes]| match pool.check_batch(receipts, &world.state, NOW) {
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

/// Proofs are no part of a block: a validator votes for what it has verified itself, and a leader gives the others time.
#[test]
fn a_batch_with_a_proof_needs_the_proof() {
    let mut world = World::new();
    world.set_program(opg_samples::proof::program_root());
    let mut core = world.core(0);
    let answer = opg_samples::proof::zk(&mut core, 0, NOW);
    let artefact = Bytes::from(opg_samples::proof::artefact(&core, 0, &answer));
    let receipt = world.sign(core);
    let batch = [receipt.cose().clone()];
    let pool = pool(&world, |_| {});
    match pool.check_batch(&batch, &world.state, NOW) {
        Err((0, CheckError::Rejected(reject))) => assert_eq!(reject.rule, Rule::EvidenceMissing),
        other => panic!("{other:?}"),
    }
    assert_eq!(submit(&pool, &world, &receipt), Err(Rule::EvidenceMissing));
    pool.submit_now(receipt.cose(), Some(artefact.clone()), &world.state, NOW)
        .unwrap();
    assert_eq!(pool.size(), (1, receipt.cose().len() + artefact.len()));
    assert_eq!(pool.check_batch(&batch, &world.state, NOW).unwrap().len(), 1);

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
    assert_eq!(pool.select(&world.state, NOW, room(10, 1 << 20)).unwrap().len(), 1);
    let waiting = pool.waiting_longer_than(Duration::ZERO, 10);
    assert_eq!(waiting[0].artefact, Some(artefact));
}
