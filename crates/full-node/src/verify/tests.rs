use super::{fixture::*, *};
use alloy_primitives::U256;
use opg_contracts::{slots, state::FEE_UNIT};
use opg_primitives::{
    ids::{KeysetDigest, ModelRoot, NodeId, ReceiptId},
    money::Amount,
};
use opg_receipt::{ChannelRecord, Core, Evidence, ModeRecord};

fn verdict(world: &World, receipt: &SignedReceipt) -> Result<BatchEntry, Reject> {
    judge(world, receipt, None)
}

fn judge(world: &World, receipt: &SignedReceipt, artefact: Option<&[u8]>) -> Result<BatchEntry, Reject> {
    let item = check_receipt(receipt, &world.state, &world.rules, NOW, artefact);
    let item = item.map_err(|error| match error {
        CheckError::Rejected(reject) => reject,
        CheckError::State(never) => match never {},
    })?;
    Ok(*item.payment().expect("an authorization of its own"))
}

/// The verdict on a receipt that a channel pays for.
fn judge_channel(world: &World, core: Core) -> Result<ChannelEntry, Rule> {
    let item = check_receipt(&world.sign(core), &world.state, &world.rules, NOW, None);
    match item {
        Ok(BatchItem::Channel(entry)) => Ok(entry),
        Ok(BatchItem::Payment(entry)) => panic!("not a channel's: {entry:?}"),
        Err(CheckError::Rejected(reject)) => Err(reject.rule),
        Err(CheckError::State(never)) => match never {},
    }
}

/// The rule that a good core breaks after `change`, signed by the right keys.
fn rule_after(change: impl FnOnce(&mut World, &mut Core)) -> Rule {
    let mut world = World::new();
    let mut core = world.core(0);
    change(&mut world, &mut core);
    verdict(&world, &world.sign(core)).unwrap_err().rule
}

#[test]
fn a_good_receipt_becomes_its_entry() {
    let world = World::new();
    let receipt = world.receipt(7);
    let entry = verdict(&world, &receipt).unwrap();
    let core = receipt.core();
    assert_eq!(
        (entry.node_id, entry.keyset, entry.seq),
        (core.node_id.0, core.keyset.0, 7)
    );
    assert_eq!((entry.payer, entry.nonce), (world.payer_address(), core.payment.nonce));
    assert_eq!(
        (entry.amount, entry.charge, entry.royalty_bps, entry.mode),
        (1_000, core.price.charge.0, ROYALTY, 0)
    );
}

#[test]
fn chain_and_registry() {
    assert_eq!(rule_after(|_, c| c.chain_id = 1), Rule::ChainId);
    assert_eq!(rule_after(|_, c| c.registry = Address::ZERO), Rule::Registry);
}

#[test]
fn who_may_sign() {
    assert_eq!(
        rule_after(|_, c| c.keyset = KeysetDigest(B256::repeat_byte(1))),
        Rule::KeysetUnknown
    );
    assert_eq!(rule_after(|w, _| w.set_keyset(1, 50)), Rule::KeysetRevoked);
    assert_eq!(
        rule_after(|_, c| c.node_id = NodeId(B256::repeat_byte(1))),
        Rule::KeysetNode
    );
    assert_eq!(rule_after(|w, _| w.set_node(MIN_BOND, 50)), Rule::NodeInactive);
    assert_eq!(rule_after(|w, _| w.set_node(MIN_BOND - 1, 0)), Rule::Bond);
    // The bond covers the fees of two days; older ones count no more.
    let day = NOW / 86_400;
    let covers = |w: &mut World| w.set_node(5 * FEE_UNIT, 0);
    for (today, yesterday, counted) in [(6, 0, day), (0, 6, day), (3, 3, day), (6, 0, day - 1)] {
        let rule = rule_after(|w, _| {
            covers(w);
            w.set_fees(today, yesterday, counted);
        });
        assert_eq!(rule, Rule::Bond, "{today} {yesterday} {counted}");
    }
    for (today, yesterday, counted) in [(5, 0, day), (2, 3, day), (5, 6, day - 1), (6, 6, day - 2)] {
        let mut world = World::new();
        covers(&mut world);
        world.set_fees(today, yesterday, counted);
        verdict(&world, &world.receipt(0)).unwrap();
    }
    let gone = |w: &mut World, _: &mut Core| {
        let base = slots::node_base(w.keyset.node_id.0);
        w.state.set(addresses::NODE_REGISTRY, base, U256::ZERO);
    };
    assert_eq!(rule_after(gone), Rule::NodeUnknown);
    let world = World::new();
    let stranger = ed25519_dalek::SigningKey::from_bytes(&[6; 32]);
    let forged = SignedReceipt::sign(world.core(0), &stranger).unwrap();
    assert_eq!(verdict(&world, &forged).unwrap_err().rule, Rule::Signature);
}

#[test]
fn a_flipped_byte_never_passes() {
    let world = World::new();
    let good = world.receipt(3);
    for at in 0..good.cose().len() {
        let mut bytes = good.cose().to_vec();
        bytes[at] ^= 1;
        if let Ok(changed) = SignedReceipt::decode(&bytes) {
            assert!(verdict(&world, &changed).is_err(), "byte {at}");
        }
    }
}

#[test]
fn a_sequence_number_is_recorded_once() {
    let mark = |w: &mut World, c: &mut Core| {
        let slot = slots::seq_word(c.keyset.0, 0);
        w.state.set(addresses::RECEIPT_LEDGER, slot, U256::ONE);
    };
    assert_eq!(rule_after(mark), Rule::SeqUsed);
    let mut world = World::new();
    world.state.set(
        addresses::RECEIPT_LEDGER,
        slots::seq_word(world.core(0).keyset.0, 0),
        U256::ONE,
    );
    verdict(&world, &world.receipt(1)).unwrap();
    verdict(&world, &world.receipt(256)).unwrap();
}

#[test]
fn whom_and_how_is_paid() {
    let repaid = |change: fn(&mut Core)| {
        rule_after(move |w, c| {
            change(c);
            w.pay(c);
        })
    };
    assert_eq!(repaid(|c| c.payment.payee = Address::repeat_byte(1)), Rule::Payee);
    assert_eq!(repaid(|c| c.price.asset = Address::repeat_byte(1)), Rule::Asset);
    assert_eq!(repaid(|c| c.payment.valid_after = NOW), Rule::PaymentEarly);
    assert_eq!(repaid(|c| c.payment.valid_before = NOW), Rule::PaymentExpired);
    assert_eq!(rule_after(|_, c| c.payment.valid_before += 1), Rule::PaymentSignature);
    assert_eq!(
        rule_after(|_, c| c.payment.signature = Default::default()),
        Rule::PaymentSignature
    );
    assert_eq!(rule_after(|w, _| w.set_balance(999)), Rule::PaymentFunds);
}

#[test]
fn settled_payments() {
    let mut world = World::new();
    let mut core = world.core(0);
    let (payee, nonce) = (world.deposit(), core.payment.nonce);
    // settled: neither signature, time nor balance matter any more
    world.settle(&core, payee, 1_000);
    world.set_balance(0);
    core.payment.signature = vec![1, 2, 3].into();
    core.payment.valid_before = 5;
    verdict(&world, &world.sign(core.clone())).unwrap();

    world.settle(&core, payee, 999);
    assert_eq!(
        verdict(&world, &world.sign(core.clone())).unwrap_err().rule,
        Rule::PaymentSettled
    );
    world.settle(&core, Address::repeat_byte(1), 1_000);
    assert_eq!(
        verdict(&world, &world.sign(core.clone())).unwrap_err().rule,
        Rule::PaymentSettled
    );
    let slot = slots::opg_settlement(world.payer_address(), nonce);
    world.state.set(addresses::OPG, slot, state::cancelled_hash().into());
    assert_eq!(
        verdict(&world, &world.sign(core.clone())).unwrap_err().rule,
        Rule::PaymentCancelled
    );
    for spent in [U256::ONE, U256::ONE << 255] {
        world
            .state
            .set(addresses::RECEIPT_LEDGER, slots::spent(core.payment.id().0), spent);
        assert_eq!(
            verdict(&world, &world.sign(core.clone())).unwrap_err().rule,
            Rule::PaymentSpent
        );
    }
}

#[test]
fn what_was_served_and_what_it_costs() {
    assert_eq!(rule_after(|_, c| c.receipt_id = ReceiptId(B256::ZERO)), Rule::ReceiptId);
    assert_eq!(
        rule_after(|_, c| c.model.served_root = ModelRoot(B256::ZERO)),
        Rule::ModelServed
    );
    let unknown = |_: &mut World, c: &mut Core| {
        c.model.asked_root = ModelRoot(B256::ZERO);
        c.model.served_root = ModelRoot(B256::ZERO);
    };
    assert_eq!(rule_after(unknown), Rule::ModelUnknown);
    assert_eq!(rule_after(|_, c| c.price.royalty_bps += 1), Rule::Royalty);
    assert_eq!(rule_after(|_, c| c.price.ask.per_call = Amount(101)), Rule::Ask);
    let more = |_: &mut World, c: &mut Core| c.price.ask.per_mtok_out.0 += 1;
    assert_eq!(rule_after(more), Rule::Ask);
    assert_eq!(rule_after(|_, c| c.price.charge.0 += 1), Rule::Charge);
    assert_eq!(rule_after(|_, c| c.price.charge.0 -= 1), Rule::Charge);
    assert_eq!(rule_after(|_, c| c.usage.output += 1_000), Rule::Charge);
}

/// A node whose prices are in USD asks for less than it registered, but no less than the creator allows.
#[test]
fn an_ask_lies_between_a_quarter_of_the_reference_and_the_registered_one() {
    // The core asks for the reference price; the node has registered `registered`, and the model changed at `changed_at`.
    let judged = |registered: fn(&Price) -> Price, reference: fn(&Price) -> Price, changed_at: u64| {
        let mut world = World::new();
        let core = world.core(0);
        let asked = world.price;
        let (node, root) = (core.node_id.0, world.root);
        world.set_model_at(&reference(&asked), changed_at);
        world.state.set_price(
            addresses::NODE_REGISTRY,
            slots::ask_base(node, root),
            &registered(&asked),
        );
        verdict(&world, &world.sign(core)).map_err(|reject| reject.rule)
    };
    fn times(price: &Price, times: u128, more: u128) -> Price {
        let of = |amount: Amount| Amount(amount.0 * times + if amount.is_zero() { 0 } else { more });
        Price {
            per_call: of(price.per_call),
            per_mtok_in: of(price.per_mtok_in),
            per_mtok_out: of(price.per_mtok_out),
        }
    }
    let long_ago = NOW - 600;
    judged(|p| times(p, 3, 0), |p| *p, long_ago).unwrap();
    judged(|p| times(p, 16, 0), |p| times(p, 4, 0), long_ago).unwrap();
    // below a quarter of the reference, unless the terms have just changed
    let dumped = judged(|p| times(p, 16, 0), |p| times(p, 4, 1), long_ago);
    assert_eq!(dumped.unwrap_err(), Rule::Ask);
    judged(|p| times(p, 16, 0), |p| times(p, 4, 1), long_ago + 1).unwrap();
    // what is registered counts, whatever became of the reference since
    judged(|p| *p, |p| times(p, 100, 0), long_ago).unwrap();
    // above what is registered never
    let above = |p: &Price| Price {
        per_call: Amount(p.per_call.0 - 1),
        ..times(p, 2, 0)
    };
    assert_eq!(judged(above, |p| *p, NOW).unwrap_err(), Rule::Ask);
}

#[test]
fn a_charge_may_be_less_after_a_failure_only() {
    let world = World::new();
    for (finish, passes) in [
        (FinishReason::Error, true),
        (FinishReason::Cancelled, true),
        (FinishReason::Length, false),
    ] {
        let mut core = world.core(0);
        core.price.charge = Amount(0);
        core.response.finish = finish;
        assert_eq!(verdict(&world, &world.sign(core)).is_ok(), passes, "{finish:?}");
    }
    // and never more than what was signed
    let mut core = world.core(0);
    core.usage.output = 1_000_000;
    core.price.charge = core.payment.amount;
    verdict(&world, &world.sign(core)).unwrap();
}

#[test]
fn a_royalty_change_has_notice() {
    let mut world = World::new();
    world.set_royalty(ROYALTY + 1, ROYALTY, NOW - 599);
    verdict(&world, &world.receipt(0)).unwrap();
    world.set_royalty(ROYALTY + 1, ROYALTY, NOW - 600);
    assert_eq!(verdict(&world, &world.receipt(0)).unwrap_err().rule, Rule::Royalty);
}

#[test]
fn modes_without_a_verifier_are_refused() {
    for (asked, served) in [(Mode::Replay, Mode::None), (Mode::None, Mode::Replay)] {
        assert_eq!(
            rule_after(|_, c| c.mode = ModeRecord {
                asked,
                served,
                ..ModeRecord::NONE
            }),
            Rule::Mode
        );
    }
    assert_eq!(rule_after(|_, c| c.mode.grade = Grade::Simulated), Rule::Grade);
    assert_eq!(rule_after(|_, c| c.mode.min_grade = Grade::Hardware), Rule::Grade);
    assert_eq!(
        rule_after(|_, c| c.evidence = Some(Evidence {
            policy_epoch: Some(1),
            ..Default::default()
        })),
        Rule::Evidence
    );
    assert!(
        Rule::Mode.message().contains("replay"),
        "D17: replay is refused with its reason"
    );
}

/// A receipt of mode zk at `NOW`, with its proof, in a world that knows the program.
fn proven(world: &mut World, seq: u64) -> (Core, Vec<u8>) {
    world.set_program(opg_samples::proof::program_root());
    let mut core = world.core(seq);
    let answer = opg_samples::proof::zk(&mut core, seq, NOW);
    let artefact = opg_samples::proof::artefact(&core, seq, &answer);
    (core, artefact)
}

#[test]
fn a_proven_answer_is_verified() {
    let mut world = World::new();
    let (core, artefact) = proven(&mut world, 0);
    let receipt = world.sign(core.clone());
    let entry = judge(&world, &receipt, Some(&artefact)).unwrap();
    assert_eq!(entry.mode, Mode::Zk.code());

    let rule = |world: &World, core: &Core, artefact: Option<&[u8]>| {
        judge(world, &world.sign(core.clone()), artefact).unwrap_err().rule
    };
    assert_eq!(rule(&world, &core, None), Rule::EvidenceMissing);
    let mut damaged = artefact.clone();
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    assert_eq!(rule(&world, &core, Some(&damaged)), Rule::EvidenceInvalid);
    assert_eq!(rule(&world, &core, Some(b"no proof")), Rule::EvidenceInvalid);
    // the proof of another receipt
    let (other, others) = proven(&mut world, 1);
    assert_eq!(rule(&world, &core, Some(&others)), Rule::EvidenceInvalid);
    // another answer than the proven one
    let mut lie = core.clone();
    lie.response.commitment = other.response.commitment;
    assert_eq!(rule(&world, &lie, Some(&artefact)), Rule::EvidenceInvalid);
    // a program that nobody registered
    let unknown = World::new();
    assert_eq!(rule(&unknown, &core, Some(&artefact)), Rule::ProgramUnknown);
    // too late, by the block's clock
    let deadline = core.evidence.unwrap().proof_deadline.unwrap();
    world.settle(&core, world.deposit(), core.payment.amount.0);
    let at = |time| check_receipt(&receipt, &world.state, &world.rules, time, Some(&artefact));
    at(deadline).unwrap();
    match at(deadline + 1) {
        Err(CheckError::Rejected(reject)) => assert_eq!(reject.rule, Rule::EvidenceLate),
        other => panic!("{other:?}"),
    }
    // evidence that says nothing, or promises a proof for ever
    let mut empty = core.clone();
    empty.evidence.as_mut().unwrap().statement_hash = None;
    assert_eq!(rule(&world, &empty, Some(&artefact)), Rule::Consistency);
    let mut patient = core.clone();
    patient.evidence.as_mut().unwrap().proof_deadline = Some(NOW + 3_601);
    assert_eq!(rule(&world, &patient, Some(&artefact)), Rule::Consistency);
    // a proof that nobody asked for, and one under a receipt of mode none
    let mut unasked = core.clone();
    (unasked.mode.asked, unasked.mode.min_grade) = (Mode::None, Grade::None);
    assert_eq!(rule(&world, &unasked, Some(&artefact)), Rule::Mode);
    assert_eq!(rule(&world, &world.core(5), Some(&artefact)), Rule::Evidence);
    let mut simulated = core.clone();
    simulated.mode.grade = Grade::Simulated;
    assert_eq!(rule(&world, &simulated, Some(&artefact)), Rule::Grade);
}

/// What was verified once is not verified again, but the program must be registered in the state at hand.
#[test]
fn a_proof_is_verified_once() {
    let mut world = World::new();
    let (core, artefact) = proven(&mut world, 0);
    let receipt = world.sign(core);
    let judge = |world: &World, artefact, proven| {
        check(&receipt, &View::new(&world.state), &world.rules, NOW, artefact, proven)
    };
    let proven = judge(&world, Some(&artefact), Proven::default()).unwrap().proven;
    assert_eq!(proven.program, Some(opg_samples::proof::program_root()));
    assert_eq!(judge(&world, None, proven).unwrap().proven, proven);
    match judge(&World::new(), None, proven) {
        Err(CheckError::Rejected(reject)) => assert_eq!(reject.rule, Rule::ProgramUnknown),
        other => panic!("{other:?}"),
    }
}

/// A node that could not serve what was asked may say so, and earns nothing.
#[test]
fn less_than_asked_earns_nothing() {
    let world = World::new();
    let mut core = world.core(0);
    (core.mode.asked, core.mode.min_grade) = (Mode::Zk, Grade::Hardware);
    assert_eq!(
        verdict(&world, &world.sign(core.clone())).unwrap_err().rule,
        Rule::Consistency
    );
    core.response.finish = FinishReason::Error;
    core.price.charge = Amount::ZERO;
    assert_eq!(verdict(&world, &world.sign(core)).unwrap().charge, 0);
}

#[test]
fn the_core_must_not_contradict_itself() {
    assert_eq!(rule_after(|_, c| c.times.received = 9), Rule::Consistency);
    assert_eq!(rule_after(|_, c| c.prev = B256::repeat_byte(1)), Rule::Consistency);
}

#[test]
fn proven_signatures_are_not_checked_again() {
    let world = World::new();
    let stranger = ed25519_dalek::SigningKey::from_bytes(&[6; 32]);
    let mut core = world.core(0);
    core.payment.signature = Default::default();
    let forged = SignedReceipt::sign(core, &stranger).unwrap();
    let view = View::new(&world.state);
    let all = Proven {
        receipt: true,
        payment: true,
        program: None,
    };
    let admitted = check(&forged, &view, &world.rules, NOW, None, all).unwrap();
    assert_eq!(admitted.proven, all);
    assert!(
        check(
            &forged,
            &view,
            &world.rules,
            NOW,
            None,
            Proven { payment: false, ..all }
        )
        .is_err()
    );
}

#[test]
fn a_settled_payment_does_not_prove_the_signature() {
    let mut world = World::new();
    let core = world.core(0);
    world.settle(&core, world.deposit(), 1_000);
    let admitted = check(
        &world.sign(core),
        &View::new(&world.state),
        &world.rules,
        NOW,
        None,
        Proven::default(),
    )
    .unwrap();
    assert_eq!(
        admitted.proven,
        Proven {
            receipt: true,
            payment: false,
            program: None,
        }
    );
}

#[test]
fn a_batch_has_each_sequence_number_and_payment_once() {
    let world = World::new();
    let first = World::new();
    let entry = |seq| verdict(&first, &first.receipt(seq)).unwrap();
    let item = |seq| BatchItem::Payment(entry(seq));
    check_unique(&[item(0), item(1), item(2)]).unwrap();
    let (at, reject) = check_unique(&[item(0), item(1), item(0)]).unwrap_err();
    assert_eq!((at, reject.rule), (2, Rule::SeqDuplicate));
    let same_payment = BatchItem::Payment(BatchEntry { seq: 9, ..entry(0) });
    assert_eq!(
        check_unique(&[item(0), same_payment]).unwrap_err().1.rule,
        Rule::PaymentDuplicate
    );
    // One channel pays for many receipts, but each of them has a sequence number of its own.
    let mut world = world;
    let channel = |world: &World, seq| BatchItem::Channel(judge_channel(world, world.channel_core(seq)).unwrap());
    let id = world.channel_core(0).payment.nonce;
    world.set_channel(id, 1_000_000, 0, 0);
    check_unique(&[channel(&world, 0), channel(&world, 1), item(2)]).unwrap();
    let (at, reject) = check_unique(&[channel(&world, 0), item(1), channel(&world, 1)]).unwrap_err();
    assert_eq!((at, reject.rule), (2, Rule::SeqDuplicate));
    check_unique(&[]).unwrap();
}

#[test]
fn a_channel_pays_for_what_it_holds() {
    let mut world = World::new();
    let core = world.channel_core(3);
    let (id, ceiling, charge) = (core.payment.nonce, 5_000, core.price.charge.0);
    assert_eq!(
        judge_channel(&world, core.clone()),
        Err(Rule::ChannelFunds),
        "nothing deposited"
    );
    world.set_channel(id, ceiling - 1, 0, 0);
    assert_eq!(judge_channel(&world, core.clone()), Err(Rule::ChannelFunds));
    world.set_channel(id, ceiling, 0, 0);
    let entry = judge_channel(&world, core.clone()).unwrap();
    assert_eq!((entry.seq, entry.charge), (3, charge));
    assert_eq!(entry.channel.receiver, world.deposit());
    assert_eq!(opg_contracts::x402::channel_id(&entry.channel, CHAIN), id);
    // Claims do not lower the balance, and what is recorded for other receipts is spent.
    world.set_channel(id, ceiling, ceiling, ceiling - charge);
    judge_channel(&world, core.clone()).unwrap();
    world.set_channel(id, ceiling, ceiling, ceiling - charge + 1);
    assert_eq!(judge_channel(&world, core), Err(Rule::ChannelSpent));
}

#[test]
fn a_channel_is_the_nodes_and_its_voucher_the_payers() {
    let mut world = World::new();
    let core = world.channel_core(0);
    world.set_channel(core.payment.nonce, 1_000_000, 0, 0);
    let changed = |change: &dyn Fn(&mut Core)| {
        let mut core = world.channel_core(0);
        change(&mut core);
        judge_channel(&world, core).unwrap_err()
    };
    let channel = |core: &mut Core, change: &dyn Fn(&mut ChannelRecord)| change(core.payment.channel.as_mut().unwrap());
    assert_eq!(changed(&|c| c.payment.payee = Address::repeat_byte(9)), Rule::Payee);
    assert_eq!(changed(&|c| c.price.asset = Address::repeat_byte(9)), Rule::Asset);
    // Any field of the channel is part of its id.
    assert_eq!(changed(&|c| channel(c, &|r| r.salt = B256::ZERO)), Rule::Channel);
    assert_eq!(changed(&|c| channel(c, &|r| r.withdraw_delay += 1)), Rule::Channel);
    assert_eq!(changed(&|c| channel(c, &|r| r.withdraw_delay = 1)), Rule::Channel);
    assert_eq!(changed(&|c| c.payment.payer = Address::repeat_byte(9)), Rule::Channel);
    assert_eq!(changed(&|c| c.payment.nonce = B256::ZERO), Rule::Channel);
    // The ceiling is what is signed.
    assert_eq!(changed(&|c| channel(c, &|r| r.ceiling.0 += 1)), Rule::PaymentSignature);
    assert_eq!(
        changed(&|c| c.payment.signature = Default::default()),
        Rule::PaymentSignature
    );
    assert_eq!(changed(&|c| c.price.charge.0 += 1), Rule::Charge);
}
