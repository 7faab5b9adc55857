//! Queues, escrow windows, payout in steps, relayed settlement.
#![allow(missing_docs)]

mod common;

use alloy_primitives::U256;
use common::{AMOUNT, CHARGE, Net, Payment, ROYALTY, nonce, pending, who};
use opg_contracts::{FeeVault, addresses, state, system_tx::BatchEntry};
use opg_primitives::money::{Amount, split};

#[test]
fn windows_differ_by_mode_and_routers_are_paid() {
    let mut net = Net::new();
    let to = net.deposit(0);
    let router = who("router");
    for (mode, window) in [(0u8, 600), (1, 600), (2, 0), (3, 700)] {
        let seq = u64::from(mode);
        net.settle(&Payment::new("alice", to, AMOUNT, nonce(seq))).unwrap();
        let entry = net.entry(0, seq, "alice", nonce(seq), AMOUNT, CHARGE);
        net.record(&[BatchEntry {
            mode,
            router: Some(router),
            ..entry
        }])
        .unwrap();
        let queue = FeeVault::queueCall {
            payee: router,
            nodeId: net.nodes[0],
            mode,
            max: U256::from(9),
        };
        let items = net.evm.view(addresses::FEE_VAULT, queue).unwrap();
        let share = split(Amount(CHARGE), ROYALTY, true, false, true).unwrap().router.0;
        if window == 0 {
            assert!(items.is_empty());
            assert_eq!(net.withdrawable(router, 0), share);
        } else {
            let due = net.evm.timestamp() + window;
            assert_eq!(
                items.iter().map(|i| (i.amount, i.releaseAt)).collect::<Vec<_>>(),
                [(share, due)]
            );
        }
    }
}

#[test]
fn queues_merge_equal_times_and_pay_in_steps() {
    let mut net = Net::new();
    let alice = who("alice");
    let refund = AMOUNT - CHARGE;
    for seq in 0..5 {
        net.paid_and_recorded(2 * seq, AMOUNT, CHARGE);
        net.paid_and_recorded(2 * seq + 1, AMOUNT, CHARGE);
        net.tick(10);
    }
    let queue = FeeVault::queueCall {
        payee: alice,
        nodeId: net.nodes[0],
        mode: 0,
        max: U256::from(100),
    };
    let items = net.evm.view(addresses::FEE_VAULT, queue.clone()).unwrap();
    assert_eq!(
        items.iter().map(|item| item.amount).collect::<Vec<_>>(),
        [2 * refund; 5]
    );
    assert!(items.windows(2).all(|pair| pair[0].releaseAt + 10 == pair[1].releaseAt));
    net.tick(600 - 50 + 20); // three of five are released
    assert_eq!(net.withdrawable(alice, 0), 6 * refund);
    assert_eq!(net.withdraw(alice, 0, 0).unwrap(), 0);
    assert_eq!(net.withdraw(alice, 0, 2).unwrap(), 4 * refund);
    assert_eq!(net.withdraw(alice, 0, 100).unwrap(), 2 * refund);
    net.tick(1_000);
    assert_eq!(net.withdraw(alice, 0, 1).unwrap(), 2 * refund);
    assert_eq!(net.withdraw(alice, 0, 1).unwrap(), 2 * refund);
    assert!(net.evm.view(addresses::FEE_VAULT, queue).unwrap().is_empty());
    assert_eq!(net.credited(alice, 0), 0);
    // The emptied queue works again.
    net.paid_and_recorded(100, AMOUNT, CHARGE);
    assert_eq!(net.credited(alice, 0), refund);
}

/// A credit that comes late, with an earlier release time than the newest, joins the newest: it waits a little longer, never
/// shorter, and blocks nothing.
#[test]
fn late_credits_keep_the_queue_in_order() {
    let mut net = Net::new();
    let (alice, to) = (who("alice"), net.deposit(0));
    let late = net.entry(0, 1_000, "alice", nonce(1_000), AMOUNT, CHARGE);
    net.record(&[late]).unwrap();
    let waiting = pending(&late, net.evm.timestamp() + 600);
    net.tick(100);
    net.paid_and_recorded(0, AMOUNT, CHARGE);
    net.tick(100);
    net.settle(&Payment::new("alice", to, AMOUNT, late.nonce)).unwrap();
    assert_eq!(net.credit_settled(vec![waiting]), 1);
    net.tick(400); // the late one's own time
    assert_eq!(net.withdrawable(alice, 0), 0);
    net.tick(100);
    assert_eq!(net.withdraw(alice, 0, 9).unwrap(), 2 * (AMOUNT - CHARGE));
}

#[test]
fn the_vault_settles_and_sweeps() {
    let mut net = Net::new();
    let to = net.deposit(0);
    let good = Payment::new("alice", to, AMOUNT, nonce(1));
    let other = Payment::new("bob", net.deposit(1), AMOUNT, nonce(2));
    let forged = Payment {
        signature: other.signature.clone(),
        ..Payment::new("carol", to, AMOUNT, nonce(3))
    };
    let authorizations = vec![
        forged.for_vault(net.nodes[0]),
        good.for_vault(net.nodes[0]),
        good.for_vault(net.nodes[0]),
        other.for_vault(net.nodes[1]),
        // Signed for node 1: node 0 cannot have it.
        other.for_vault(net.nodes[0]),
    ];
    let call = FeeVault::settleCall { authorizations };
    let settled = net.evm.call(who("anyone"), addresses::FEE_VAULT, call).unwrap();
    assert_eq!(settled, [false, true, false, true, false]);
    for node in 0..2 {
        assert_eq!(state::vault_balance(&net.evm, net.nodes[node]).unwrap().0, AMOUNT);
        let deposit = net.deposit(node);
        assert_eq!(net.opg(deposit), 0);
        assert!(!net.evm.code(deposit).is_empty());
    }
    let none = FeeVault::settleCall {
        authorizations: Vec::new(),
    };
    assert!(
        net.evm
            .call(who("anyone"), addresses::FEE_VAULT, none)
            .unwrap()
            .is_empty()
    );
    // Later payments to the existing clone.
    net.settle(&Payment::new("alice", to, 5, nonce(9))).unwrap();
    let sweep = FeeVault::sweepCall { nodeId: net.nodes[0] };
    assert_eq!(
        net.evm
            .call(who("anyone"), addresses::FEE_VAULT, sweep.clone())
            .unwrap(),
        U256::from(5)
    );
    assert_eq!(
        net.evm.call(who("anyone"), addresses::FEE_VAULT, sweep).unwrap(),
        U256::ZERO
    );
}
