//! Recording, pending entries, credits, escrow, payout.
#![allow(missing_docs)]

mod common;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::{SolEvent, SolValue};
use common::{AMOUNT, CHARGE, MODEL, Net, OTHER_MODEL, Payment, ROYALTY, assert_reverts, nonce, pending, root, who};
use opg_contracts::{
    FeeVault, ModelRegistry, ReceiptLedger, addresses, state,
    state::Spent,
    system_tx::{self, BatchEntry},
};
use opg_genesis::evm::CallError;
use opg_primitives::{
    ids,
    money::{Amount, split},
};
use proptest::prelude::*;

fn payment_id(entry: &BatchEntry) -> B256 {
    ids::payment_id(entry.payer, entry.nonce).0
}

#[test]
fn a_settled_payment_is_credited_at_once_and_paid_after_its_window() {
    let mut net = Net::new();
    let entry = net.paid_and_recorded(0, AMOUNT, CHARGE);
    assert_eq!(
        state::read_spent(&net.evm, payment_id(&entry)).unwrap(),
        Spent::Credited
    );
    let shares = split(Amount(CHARGE), ROYALTY, false, false, true).unwrap();
    let parts = [
        (who("node-0"), shares.node.0),
        (who("creator"), shares.creator.0),
        (who("treasury"), shares.treasury.0),
        (addresses::INSURANCE, shares.insurance.0),
        (who("alice"), AMOUNT - CHARGE),
    ];
    assert_eq!(parts.iter().map(|(_, amount)| amount).sum::<u128>(), AMOUNT);
    for (payee, amount) in parts {
        assert_eq!(net.credited(payee, 0), amount);
        assert_eq!(net.withdrawable(payee, 0), 0);
        if payee != addresses::INSURANCE {
            assert_eq!(net.withdraw(payee, 0, 100).unwrap(), 0);
        }
    }
    net.tick(599);
    assert_eq!(net.withdraw(who("alice"), 0, 100).unwrap(), 0);
    net.tick(1);
    let before = net.opg(who("node-0"));
    assert_eq!(net.withdrawable(who("node-0"), 0), shares.node.0);
    assert_eq!(net.withdraw(who("node-0"), 0, 100).unwrap(), shares.node.0);
    assert_eq!(net.opg(who("node-0")), before + shares.node.0);
    assert_eq!(net.withdraw(who("node-0"), 0, 100).unwrap(), 0);
    for payee in ["creator", "treasury", "alice"] {
        assert!(net.withdraw(who(payee), 0, 1).unwrap() > 0);
    }
    let insurance = FeeVault::withdrawCall {
        payee: addresses::INSURANCE,
        nodeId: net.nodes[0],
        max: U256::MAX,
    };
    let refused = net.evm.call(who("anyone"), addresses::FEE_VAULT, insurance);
    assert_reverts::<FeeVault::CannotWithdraw, _>(refused);
    assert_eq!(state::vault_balance(&net.evm, net.nodes[0]).unwrap(), shares.insurance);
    assert_eq!(
        state::vault_outstanding(&net.evm, net.nodes[0]).unwrap(),
        shares.insurance
    );
}

#[test]
fn the_whole_amount_can_be_charged_or_none() {
    let mut net = Net::new();
    let to = net.deposit(0);
    for (seq, charge) in [(0, AMOUNT), (1, 0)] {
        net.settle(&Payment::new("alice", to, AMOUNT, nonce(seq))).unwrap();
        let entry = net.entry(0, seq, "alice", nonce(seq), AMOUNT, charge);
        net.record(&[entry]).unwrap();
    }
    assert_eq!(net.credited(who("alice"), 0), AMOUNT);
    net.tick(600);
    assert_eq!(net.withdraw(who("alice"), 0, 9).unwrap(), AMOUNT);
}

#[test]
fn a_pending_receipt_is_credited_once_its_payment_settles() {
    let mut net = Net::new();
    let entry = net.entry(0, 0, "alice", nonce(0), AMOUNT, CHARGE);
    let done = net.record(&[entry]).unwrap();
    let release = net.evm.timestamp() + 600;
    let waiting = pending(&entry, release);
    let event = done[0]
        .logs
        .iter()
        .find_map(|log| ReceiptLedger::PaymentsPending::decode_log(log).ok())
        .unwrap();
    assert_eq!(
        (event.nodeId, event.modelRoot, event.creator),
        (entry.node_id, MODEL, who("creator"))
    );
    assert_eq!((event.mode, event.releaseAt, event.count), (0, release, U256::ONE));
    let word = system_tx::pending_word(keccak256(waiting.abi_encode()));
    assert_eq!(
        state::read_spent(&net.evm, payment_id(&entry)).unwrap(),
        Spent::Pending(word)
    );
    assert!(state::is_spent(&net.evm, payment_id(&entry)).unwrap());
    let view = ReceiptLedger::pendingHashCall { entry: waiting.clone() };
    assert_eq!(net.evm.view(addresses::RECEIPT_LEDGER, view).unwrap(), word);
    assert_eq!(net.credited(who("node-0"), 0), 0);

    // Not before it is settled, and not on any other terms.
    assert_eq!(net.credit_settled(vec![waiting.clone()]), 0);
    let to = net.deposit(0);
    net.settle(&Payment::new("alice", to, AMOUNT, nonce(0))).unwrap();
    let altered = [
        ReceiptLedger::PendingEntry {
            charge: CHARGE + 1,
            ..waiting.clone()
        },
        ReceiptLedger::PendingEntry {
            nodeId: net.nodes[1],
            ..waiting.clone()
        },
        ReceiptLedger::PendingEntry {
            creator: who("thief"),
            ..waiting.clone()
        },
        ReceiptLedger::PendingEntry {
            router: who("thief"),
            ..waiting.clone()
        },
        ReceiptLedger::PendingEntry {
            royaltyBps: 3_000,
            ..waiting.clone()
        },
        ReceiptLedger::PendingEntry {
            mode: 2,
            ..waiting.clone()
        },
        ReceiptLedger::PendingEntry {
            releaseAt: 0,
            ..waiting.clone()
        },
        ReceiptLedger::PendingEntry {
            modelRoot: OTHER_MODEL,
            ..waiting.clone()
        },
        ReceiptLedger::PendingEntry {
            payer: who("bob"),
            ..waiting.clone()
        },
    ];
    assert_eq!(net.credit_settled(altered.to_vec()), 0);
    // Twice in one call, and again: once.
    assert_eq!(net.credit_settled(vec![waiting.clone(), waiting.clone()]), 1);
    assert_eq!(net.credit_settled(vec![waiting]), 0);
    let shares = split(Amount(CHARGE), ROYALTY, false, false, true).unwrap();
    assert_eq!(net.credited(who("node-0"), 0), shares.node.0);
    assert_eq!(net.credited(who("alice"), 0), AMOUNT - CHARGE);
    assert_eq!(net.withdrawable(who("node-0"), 0), 0);
    net.tick(600);
    assert_eq!(net.withdraw(who("node-0"), 0, 1).unwrap(), shares.node.0);
}

#[test]
fn a_payment_settled_after_the_window_is_released_at_once() {
    let mut net = Net::new();
    let entry = net.entry(0, 0, "alice", nonce(0), AMOUNT, CHARGE);
    net.record(&[entry]).unwrap();
    let waiting = pending(&entry, net.evm.timestamp() + 600);
    net.tick(10_000);
    let to = net.deposit(0);
    net.settle(&Payment::new("alice", to, AMOUNT, nonce(0))).unwrap();
    assert_eq!(net.credit_settled(vec![waiting]), 1);
    assert_eq!(net.withdrawable(who("alice"), 0), AMOUNT - CHARGE);
    // It is not in a queue, so no item has to be looked at.
    assert_eq!(net.withdraw(who("alice"), 0, 0).unwrap(), AMOUNT - CHARGE);
}

/// Terms are those of the recorded receipt, whatever becomes of the model.
#[test]
fn a_pending_receipt_keeps_its_terms() {
    use opg_contracts::ModelRegistry;
    let mut net = Net::new();
    let entry = net.entry(0, 0, "alice", nonce(0), AMOUNT, CHARGE);
    net.record(&[entry]).unwrap();
    let waiting = pending(&entry, net.evm.timestamp() + 600);
    net.tick(600);
    net.set_royalty(MODEL, 3_000);
    let give = ModelRegistry::transferCreatorCall {
        modelRoot: MODEL,
        to: who("heir"),
    };
    net.evm.call(who("creator"), addresses::MODEL_REGISTRY, give).unwrap();
    let to = net.deposit(0);
    net.settle(&Payment::new("alice", to, AMOUNT, nonce(0))).unwrap();
    assert_eq!(net.credit_settled(vec![waiting]), 1);
    assert_eq!(net.credited(who("creator"), 0), CHARGE / 10);
    assert_eq!(net.credited(who("heir"), 0), 0);
}

#[test]
fn cancelled_or_misdirected_payments_are_never_credited() {
    let mut net = Net::new();
    // Paid to the other node, or another amount to this one.
    for (seq, node, value) in [(0, 1, AMOUNT), (1, 0, AMOUNT - 1), (2, 0, AMOUNT + 1)] {
        let to = net.deposit(node);
        net.settle(&Payment::new("alice", to, value, nonce(seq))).unwrap();
        let entry = net.entry(0, seq, "alice", nonce(seq), AMOUNT, CHARGE);
        net.record(&[entry]).unwrap();
        assert_eq!(net.credit_settled(vec![pending(&entry, net.evm.timestamp() + 600)]), 0);
    }
    assert_eq!(state::vault_outstanding(&net.evm, net.nodes[0]).unwrap(), Amount::ZERO);
    assert_eq!(state::vault_outstanding(&net.evm, net.nodes[1]).unwrap(), Amount::ZERO);
}

/// A payer signs one nonce for two nodes; the receipt of the one that was not paid is recorded first.
#[test]
fn a_receipt_that_was_never_paid_gives_way() {
    let mut net = Net::new();
    let wrong = net.entry(1, 0, "alice", nonce(0), AMOUNT, CHARGE);
    net.record(&[wrong]).unwrap();
    let waiting = pending(&wrong, net.evm.timestamp() + 600);
    let drop = |net: &mut Net, entries| -> u64 {
        let call = ReceiptLedger::dropUnpayableCall { entries };
        net.evm
            .call(who("anyone"), addresses::RECEIPT_LEDGER, call)
            .unwrap()
            .to()
    };
    // As long as it can still be paid it stays.
    assert_eq!(drop(&mut net, vec![waiting.clone()]), 0);
    let to = net.deposit(0);
    net.settle(&Payment::new("alice", to, AMOUNT, nonce(0))).unwrap();
    let right = net.entry(0, 0, "alice", nonce(0), AMOUNT, CHARGE);
    assert_reverts::<ReceiptLedger::PaymentSpent, _>(net.record(&[right]));
    let other = ReceiptLedger::PendingEntry {
        charge: 1,
        ..waiting.clone()
    };
    assert_eq!(drop(&mut net, vec![other, waiting.clone(), waiting.clone()]), 1);
    net.record(&[right]).unwrap();
    assert_eq!(net.credited(who("alice"), 0), AMOUNT - CHARGE);
    // A credited payment is never dropped, nor one that is pending and paid.
    let right = pending(&right, net.evm.timestamp() + 600);
    assert_eq!(drop(&mut net, vec![waiting, right]), 0);
    let paid = net.entry(0, 1, "bob", nonce(1), AMOUNT, CHARGE);
    net.record(&[paid]).unwrap();
    net.settle(&Payment::new("bob", to, AMOUNT, nonce(1))).unwrap();
    let paid = pending(&paid, net.evm.timestamp() + 600);
    assert_eq!(drop(&mut net, vec![paid.clone()]), 0);
    assert_eq!(net.credit_settled(vec![paid]), 1);
}

#[test]
fn a_payment_without_a_receipt_goes_back() {
    const LEDGER: Address = addresses::RECEIPT_LEDGER;
    let mut net = Net::new();
    let (alice, to, node) = (who("alice"), net.deposit(0), net.nodes[0]);
    let request = |nonce, amount| ReceiptLedger::requestRefundCall {
        nodeId: node,
        payer: alice,
        nonce,
        amount,
        method: 0,
    };
    let refund = |nonce, amount| ReceiptLedger::refundCall {
        nodeId: node,
        payer: alice,
        nonce,
        amount,
        method: 0,
    };
    let unsettled = net.evm.call(alice, LEDGER, request(nonce(0), AMOUNT));
    assert_reverts::<ReceiptLedger::PaymentNotSettled, _>(unsettled);
    for seq in 0..2 {
        net.settle(&Payment::new("alice", to, AMOUNT, nonce(seq))).unwrap();
    }
    let more = net.evm.call(alice, LEDGER, request(nonce(0), AMOUNT + 1));
    assert_reverts::<ReceiptLedger::PaymentNotSettled, _>(more);
    assert_reverts::<ReceiptLedger::RefundNotDue, _>(net.evm.call(alice, LEDGER, refund(nonce(0), AMOUNT)));
    for seq in 0..2 {
        net.evm
            .call(who("anyone"), LEDGER, request(nonce(seq), AMOUNT))
            .unwrap();
    }
    assert_reverts::<ReceiptLedger::RefundNotDue, _>(net.evm.call(alice, LEDGER, request(nonce(0), AMOUNT)));
    net.tick(86_399);
    assert_reverts::<ReceiptLedger::RefundNotDue, _>(net.evm.call(alice, LEDGER, refund(nonce(0), AMOUNT)));
    // The node brings one of the two receipts in time.
    let entry = net.entry(0, 0, "alice", nonce(1), AMOUNT, CHARGE);
    net.record(&[entry]).unwrap();
    net.tick(1);
    assert_reverts::<ReceiptLedger::PaymentSpent, _>(net.evm.call(alice, LEDGER, refund(nonce(1), AMOUNT)));
    net.evm.call(who("anyone"), LEDGER, refund(nonce(0), AMOUNT)).unwrap();
    assert_reverts::<ReceiptLedger::PaymentSpent, _>(net.evm.call(alice, LEDGER, refund(nonce(0), AMOUNT)));
    assert_eq!(net.withdraw(alice, 0, 0).unwrap(), AMOUNT);
    assert_eq!(net.credited(alice, 0), AMOUNT - CHARGE);
    // A receipt that comes after the refund is too late.
    let late = net.entry(0, 1, "alice", nonce(0), AMOUNT, CHARGE);
    assert_reverts::<ReceiptLedger::PaymentSpent, _>(net.record(&[late]));
}

#[test]
fn sequence_numbers_and_payments_count_once() {
    let mut net = Net::new();
    let entry = net.paid_and_recorded(300, AMOUNT, CHARGE);
    assert!(state::seq_used(&net.evm, entry.keyset, 300).unwrap());
    assert!(!state::seq_used(&net.evm, entry.keyset, 301).unwrap());
    assert!(!state::seq_used(&net.evm, net.keysets[1], 300).unwrap());
    let word = ReceiptLedger::sequencesCall {
        keyset: entry.keyset,
        word: U256::ONE,
    };
    assert_eq!(
        net.evm.view(addresses::RECEIPT_LEDGER, word).unwrap(),
        U256::ONE << (300 - 256)
    );
    let same_seq = net.entry(0, 300, "alice", nonce(9), AMOUNT, CHARGE);
    assert_reverts::<ReceiptLedger::SequenceUsed, _>(net.record(&[same_seq]));
    for node in 0..2 {
        let same_payment = net.entry(node, 301, "alice", nonce(300), AMOUNT, CHARGE);
        assert_reverts::<ReceiptLedger::PaymentSpent, _>(net.record(&[same_payment]));
    }
    // Also within one batch, and for a payment that is only pending.
    let (a, b) = (
        net.entry(0, 1, "bob", nonce(1), 5, 5),
        net.entry(0, 2, "bob", nonce(1), 5, 5),
    );
    assert_reverts::<ReceiptLedger::PaymentSpent, _>(net.record(&[a, b]));
    let c = BatchEntry { nonce: nonce(2), ..a };
    assert_reverts::<ReceiptLedger::SequenceUsed, _>(net.record(&[a, c]));
    let far = BatchEntry {
        seq: u64::MAX,
        nonce: nonce(3),
        ..a
    };
    net.record(&[far]).unwrap();
    assert!(state::seq_used(&net.evm, far.keyset, u64::MAX).unwrap());
    assert_reverts::<ReceiptLedger::SequenceUsed, _>(net.record(&[BatchEntry { nonce: nonce(4), ..far }]));
}

#[test]
fn impossible_entries_revert() {
    let mut net = Net::new();
    let good = net.entry(0, 0, "alice", nonce(0), AMOUNT, CHARGE);
    let above = BatchEntry {
        charge: AMOUNT + 1,
        ..good
    };
    assert_reverts::<ReceiptLedger::ChargeAboveAmount, _>(net.record(&[above]));
    let node = BatchEntry {
        node_id: nonce(1),
        ..good
    };
    assert_reverts::<ReceiptLedger::UnknownNode, _>(net.record(&[node]));
    let model = BatchEntry {
        model_root: nonce(1),
        ..good
    };
    assert_reverts::<ReceiptLedger::UnknownModel, _>(net.record(&[model]));
    assert_reverts::<ReceiptLedger::UnknownMode, _>(net.record(&[BatchEntry { mode: 4, ..good }]));
    let royalty = BatchEntry {
        royalty_bps: 10_001,
        ..good
    };
    assert_reverts::<ReceiptLedger::InvalidRoyalty, _>(net.record(&[royalty]));
}

#[test]
fn a_height_has_one_root() {
    let mut net = Net::new();
    let entry = |net: &Net, seq| net.entry(0, seq, "alice", nonce(seq), AMOUNT, CHARGE);
    let first = entry(&net, 0);
    net.record(&[first]).unwrap();
    assert_eq!(state::batch_root(&net.evm, 1).unwrap(), Some(root(1)));
    assert_eq!(state::batch_root(&net.evm, 2).unwrap(), None);
    let view = ReceiptLedger::rootsCall { height: 1 };
    assert_eq!(net.evm.view(addresses::RECEIPT_LEDGER, view).unwrap(), root(1));
    let mut send = |height, root, chunk, seq| {
        let groups = system_tx::chunks(&[entry(&net, seq)]).remove(0);
        let data = system_tx::calldata(height, root, 2, chunk, groups);
        net.evm
            .send(who("system-0"), addresses::RECEIPT_LEDGER, U256::ZERO, data)
            .map(|_| ())
    };
    assert_reverts::<ReceiptLedger::InvalidRoot, _>(send(1, root(1), 0, 1)); // began already
    assert_reverts::<ReceiptLedger::InvalidRoot, _>(send(1, root(2), 1, 1)); // another root
    assert_reverts::<ReceiptLedger::InvalidRoot, _>(send(2, root(2), 1, 1)); // did not begin
    assert_reverts::<ReceiptLedger::InvalidRoot, _>(send(2, B256::ZERO, 0, 1));
    send(1, root(1), 1, 1).unwrap();
    send(2, root(2), 0, 2).unwrap();
}

#[test]
fn only_system_transactions_record() {
    let mut net = Net::new();
    let groups = system_tx::chunks(&[net.entry(0, 0, "alice", nonce(0), AMOUNT, CHARGE)]).remove(0);
    let data = system_tx::calldata(1, root(1), 1, 0, groups);
    let mut send = |from: &str, coinbase: &str| {
        net.evm.set_coinbase(who(coinbase));
        net.evm
            .send(who(from), addresses::RECEIPT_LEDGER, U256::ZERO, Bytes::clone(&data))
            .map(|_| ())
    };
    for (from, coinbase) in [
        ("alice", "system-0"),    // anybody
        ("system-1", "system-0"), // a validator that is not the proposer
        ("alice", "alice"),       // a coinbase that is not registered
        ("operator-0", "operator-0"),
    ] {
        assert_reverts::<ReceiptLedger::NotSystemTransaction, _>(send(from, coinbase));
    }
    send("system-3", "system-3").unwrap();
}

fn split_on_chain(net: &mut Net, charge: u128, royalty: u16, router: bool) -> Result<ReceiptLedger::Shares, CallError> {
    let call = ReceiptLedger::splitCall {
        charge,
        royaltyBps: royalty,
        hasRouter: router,
    };
    net.evm.view(addresses::RECEIPT_LEDGER, call)
}

#[track_caller]
fn assert_same_split(net: &mut Net, charge: u128, royalty: u16, router: bool) {
    let ours = split(Amount(charge), royalty, router, false, true).unwrap();
    let theirs = split_on_chain(net, charge, royalty, router).unwrap();
    let word = |amount: Amount| amount.to_u256();
    assert_eq!(
        theirs,
        ReceiptLedger::Shares {
            node: word(ours.node),
            creator: word(ours.creator),
            treasury: word(ours.treasury),
            insurance: word(ours.insurance),
            router: word(ours.router),
        }
    );
}

#[test]
fn split_equals_the_rust_one_for_small_and_extreme_charges() {
    let mut net = Net::new();
    for charge in (0..200).chain([u128::MAX, 10u128.pow(27)]) {
        for (royalty, router) in [(0, false), (1_000, true), (3_000, false), (2_999, true)] {
            assert_same_split(&mut net, charge, royalty, router);
        }
    }
    assert_reverts::<ReceiptLedger::InvalidRoyalty, _>(split_on_chain(&mut net, 1, 10_001, false));
}

proptest! {
    #![proptest_config(opg_samples::cases(8))]

    #[test]
    fn split_equals_the_rust_one(cases in prop::collection::vec((any::<u128>(), 0u16..=3_000, any::<bool>()), 100)) {
        let mut net = Net::new();
        for (charge, royalty, router) in cases {
            assert_same_split(&mut net, charge >> (charge % 120), royalty, router);
        }
    }
}

/// Ids computed in Rust and in Solidity are the same.
#[test]
fn identifiers_agree() {
    let mut net = Net::new();
    let (payer, n) = (Address::repeat_byte(3), nonce(5));
    let id = ReceiptLedger::paymentIdOfCall { payer, nonce: n };
    assert_eq!(
        net.evm.view(addresses::RECEIPT_LEDGER, id).unwrap(),
        ids::payment_id(payer, n).0
    );
    let call = FeeVault::depositAddressOfCall { nodeId: n };
    assert_eq!(
        net.evm.view(addresses::FEE_VAULT, call).unwrap(),
        common::deposit_address(n)
    );
}

/// What a node's bond has to cover: fees of today and yesterday, neither refunds nor older ones. Validators read it from the slot.
#[test]
fn fees_of_two_days_are_counted_beside_what_a_node_owes() {
    let mut net = Net::new();
    let node = net.nodes[0];
    let fees = |net: &mut Net| {
        let now = net.evm.timestamp();
        let view = net
            .evm
            .view(addresses::FEE_VAULT, FeeVault::recentFeesCall { nodeId: node });
        let read = state::vault_recent_fees(&net.evm, node, now).unwrap();
        assert_eq!(view.unwrap(), U256::from(read), "the contract and the reader agree");
        read / state::FEE_UNIT
    };
    assert_eq!(fees(&mut net), 0);
    // From the first second of a day on.
    net.tick(86_400 - net.evm.timestamp() % 86_400);
    net.paid_and_recorded(0, AMOUNT, CHARGE);
    let charge = CHARGE.div_ceil(state::FEE_UNIT);
    assert_eq!(fees(&mut net), charge);
    net.paid_and_recorded(1, AMOUNT, 0);
    assert_eq!(fees(&mut net), charge, "a payment that goes back whole is no fee");
    net.paid_and_recorded(2, AMOUNT, CHARGE);
    assert_eq!(fees(&mut net), 2 * charge);
    // Paid out or not, they count the whole next day, with that day's own.
    net.tick(600);
    assert!(net.withdraw(who("node-0"), 0, 100).unwrap() > 0);
    net.tick(86_400 - 600);
    assert_eq!(fees(&mut net), 2 * charge);
    net.paid_and_recorded(3, AMOUNT, CHARGE);
    assert_eq!(fees(&mut net), 3 * charge);
    net.tick(86_399);
    assert_eq!(fees(&mut net), 3 * charge);
    // The day after, those of the first day do not.
    net.tick(1);
    assert_eq!(fees(&mut net), charge);
    net.tick(86_400);
    assert_eq!(fees(&mut net), 0);
    // Another node's are its own, and a day without any forgets.
    net.tick(10 * 86_400);
    net.paid_and_recorded(4, AMOUNT, CHARGE);
    assert_eq!(fees(&mut net), charge);
    assert_eq!(
        state::vault_recent_fees(&net.evm, net.nodes[1], net.evm.timestamp()).unwrap(),
        0
    );
    assert!(state::vault_outstanding(&net.evm, node).unwrap().0 > 0);
}

/// A provider's model is proved to be one by the hash that is its root: then it has no royalty, and nearly all of a charge passes through
/// the node to the provider, whichever way it is paid.
#[test]
fn charges_of_closed_models_pass_through() {
    let mut net = Net::new();
    let (provider, host, name) = ("openai", "api.openai.com", "gpt-4.1");
    let model = opg_receipt::closed_model_root(provider, host, name).0;
    let parts = || (provider.to_owned(), host.to_owned(), name.to_owned());
    let mark = |(provider, host, model)| ModelRegistry::markClosedCall { provider, host, model };
    let (provider_, host_, model_) = parts();
    let on_chain = ModelRegistry::closedRootCall {
        provider: provider_,
        host: host_,
        model: model_,
    };
    assert_eq!(net.evm.view(addresses::MODEL_REGISTRY, on_chain).unwrap(), model);

    // Nothing is closed that is not registered, or that only sounds so.
    let unknown = net.evm.call(who("anyone"), addresses::MODEL_REGISTRY, mark(parts()));
    assert_reverts::<ModelRegistry::InvalidModel, _>(unknown);
    // Somebody was first, and asks the highest royalty.
    let commit = ModelRegistry::commitCall {
        commitment: keccak256((model, who("creator"), B256::ZERO).abi_encode()),
    };
    net.evm.call(who("creator"), addresses::MODEL_REGISTRY, commit).unwrap();
    net.next_block();
    net.next_block();
    let reveal = ModelRegistry::revealCall {
        modelRoot: model,
        salt: B256::ZERO,
        name: "openai/gpt-4.1".into(),
        uri: String::new(),
        royaltyBps: 3_000,
        price: ModelRegistry::Price {
            perCall: 1,
            perMtokIn: 0,
            perMtokOut: 0,
        },
    };
    net.evm.call(who("creator"), addresses::MODEL_REGISTRY, reveal).unwrap();
    let terms = state::read_model_terms(&net.evm, model).unwrap().unwrap();
    assert_eq!((terms.royalty_bps, terms.closed), (3_000, false));
    let other = mark((provider.to_owned(), host.to_owned(), "gpt-4.1 ".to_owned()));
    let other = net.evm.call(who("anyone"), addresses::MODEL_REGISTRY, other);
    assert_reverts::<ModelRegistry::InvalidModel, _>(other);
    net.evm
        .call(who("anyone"), addresses::MODEL_REGISTRY, mark(parts()))
        .unwrap();
    let terms = state::read_model_terms(&net.evm, model).unwrap().unwrap();
    assert!(terms.closed);
    assert_eq!((terms.royalty_bps, terms.previous_royalty_bps), (0, 3_000));
    let again = net.evm.call(who("anyone"), addresses::MODEL_REGISTRY, mark(parts()));
    assert_reverts::<ModelRegistry::InvalidModel, _>(again);
    net.tick(10 * 86_400);
    let royal = ModelRegistry::setTermsCall {
        modelRoot: model,
        royaltyBps: 1,
        price: ModelRegistry::Price {
            perCall: 1,
            perMtokIn: 0,
            perMtokOut: 0,
        },
    };
    let royal = net.evm.call(who("creator"), addresses::MODEL_REGISTRY, royal);
    assert_reverts::<ModelRegistry::ClosedRoyalty, _>(royal);

    // 100 of every 104 are the provider's price; 2 are the node's, a half each the auditors' and the treasury's, one the router's.
    let charge = 208 * 500_000_003;
    let call = |has_router| ReceiptLedger::splitOfCall {
        modelRoot: model,
        charge,
        royaltyBps: 0,
        hasRouter: has_router,
    };
    let unit = U256::from(charge / 208);
    let shares = net.evm.view(addresses::RECEIPT_LEDGER, call(true)).unwrap();
    assert_eq!(shares.node, unit * U256::from(204));
    assert_eq!((shares.insurance, shares.treasury), (unit, unit));
    assert_eq!((shares.router, shares.creator), (unit * U256::from(2), U256::ZERO));
    let shares = net.evm.view(addresses::RECEIPT_LEDGER, call(false)).unwrap();
    assert_eq!(shares.node, unit * U256::from(206));

    // What is recorded is split so: settled before, and pending until later.
    let closed = |net: &Net, seq| BatchEntry {
        model_root: model,
        royalty_bps: 0,
        ..net.entry(0, seq, "alice", nonce(seq), charge, charge)
    };
    let to = net.deposit(0);
    let treasury = net.credited(who("treasury"), 0);
    net.settle(&Payment::new("alice", to, charge, nonce(0))).unwrap();
    let entry = closed(&net, 0);
    net.record(&[entry]).unwrap();
    let unit: u128 = unit.to();
    let node = net.credited(who("node-0"), 0);
    assert_eq!((node, net.credited(who("treasury"), 0) - treasury), (unit * 206, unit));
    let entry = closed(&net, 1);
    net.record(&[entry]).unwrap();
    let release = net.evm.timestamp() + 600;
    net.settle(&Payment::new("alice", to, charge, nonce(1))).unwrap();
    assert_eq!(net.credit_settled(vec![pending(&entry, release)]), 1);
    assert_eq!(net.credited(who("node-0"), 0), unit * 412);
    // Other models are split as before.
    let open = net.evm.view(
        addresses::RECEIPT_LEDGER,
        ReceiptLedger::splitOfCall {
            modelRoot: MODEL,
            charge,
            royaltyBps: ROYALTY,
            hasRouter: true,
        },
    );
    assert_eq!(open.unwrap(), split_on_chain(&mut net, charge, ROYALTY, true).unwrap());
}
