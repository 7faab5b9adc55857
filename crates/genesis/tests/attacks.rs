//! Everyone tries to take what is not theirs: payers, nodes, relayers, creators, proposers, strangers.
#![allow(missing_docs)]

mod common;

use alloy_primitives::{Address, Bytes, U256};
use alloy_sol_types::SolCall;
use common::{
    MODEL, Net, OTHER_MODEL, Payment, TestForwarder, TestGasBurner, assert_reverts, nonce, pending, root, who,
};
use opg_contracts::{
    DepositAddress, FeeVault, ModelRegistry, NodeRegistry, OPG, ReceiptLedger, addresses, state,
    system_tx::{self, BatchEntry},
};
use opg_genesis::evm::CallError;
use opg_primitives::money::Amount;

const AMOUNT: u128 = 9_000;
const CHARGE: u128 = 4_000;

fn holders() -> Vec<Address> {
    [
        "alice",
        "bob",
        "carol",
        "node-0",
        "node-1",
        "ecosystem",
        "creator",
        "treasury",
        "thief",
        "heir",
    ]
    .map(who)
    .into()
}

fn recorded(net: &mut Net) -> BatchEntry {
    net.paid_and_recorded(1, AMOUNT, CHARGE)
}

/// A relayer shows a payment for one node to another, and to itself.
#[test]
fn a_payment_reaches_only_the_node_it_names() {
    let mut net = Net::new();
    let payment = Payment::new("alice", net.deposit(0), AMOUNT, nonce(1));
    for to in [net.deposit(1), who("thief"), addresses::FEE_VAULT] {
        assert_reverts::<OPG::InvalidAuthorizationSignature, _>(net.settle(&Payment { to, ..payment.clone() }));
    }
    // A receipt of the other node for it never earns anything, settled or not.
    let stolen = net.entry(1, 0, "alice", nonce(1), AMOUNT, CHARGE);
    net.record(&[stolen]).unwrap();
    net.settle(&payment).unwrap();
    assert_eq!(net.credit_settled(vec![pending(&stolen, net.evm.timestamp() + 600)]), 0);
    assert_eq!(state::vault_outstanding(&net.evm, net.nodes[1]).unwrap(), Amount::ZERO);
}

/// The same payment twice: on chain, in the ledger, in the vault.
#[test]
fn a_payment_counts_once() {
    let mut net = Net::new();
    let entry = recorded(&mut net);
    let again = Payment::new("alice", net.deposit(0), AMOUNT, nonce(1));
    assert_reverts::<OPG::AuthorizationUsedOrCanceled, _>(net.settle(&again));
    let second = BatchEntry { seq: 2, ..entry };
    assert_reverts::<ReceiptLedger::PaymentSpent, _>(net.record(&[second]));
    assert_eq!(net.credit_settled(vec![pending(&entry, net.evm.timestamp() + 600)]), 0);
    assert_eq!(net.credit_settled(vec![pending(&second, net.evm.timestamp() + 600)]), 0);
    net.assert_conserved(&holders());
}

/// The payer takes the money back after the receipt, in every way there is.
#[test]
fn a_payer_cannot_take_back_a_settled_payment() {
    let mut net = Net::new();
    recorded(&mut net);
    let (vault, deposit) = (addresses::FEE_VAULT, net.deposit(0));
    let pull = OPG::transferFromCall {
        from: deposit,
        to: who("alice"),
        value: U256::from(AMOUNT),
    };
    assert_reverts::<OPG::ERC20InsufficientAllowance, _>(net.evm.call(who("alice"), addresses::OPG, pull));
    net.tick(600);
    let refund = net.withdraw(who("alice"), 0, 100).unwrap();
    assert_eq!(refund, AMOUNT - CHARGE);
    assert_eq!(net.withdraw(who("alice"), 0, 100).unwrap(), 0);
    assert_eq!(net.withdraw(who("alice"), 1, 100).unwrap(), 0);
    let pull = OPG::transferFromCall {
        from: vault,
        to: who("alice"),
        value: U256::ONE,
    };
    assert_reverts::<OPG::ERC20InsufficientAllowance, _>(net.evm.call(who("alice"), addresses::OPG, pull));
    net.assert_conserved(&holders());
}

#[test]
fn deposit_addresses_obey_the_vault_only() {
    let mut net = Net::new();
    recorded(&mut net);
    let sweep = FeeVault::sweepCall { nodeId: net.nodes[0] };
    net.evm.call(who("anyone"), addresses::FEE_VAULT, sweep).unwrap();
    let deposit = net.deposit(0);
    net.settle(&Payment::new("alice", deposit, 5, nonce(2))).unwrap();
    for caller in ["thief", "node-0", "system-0"] {
        for target in [deposit, addresses::DEPOSIT_IMPLEMENTATION] {
            let call = DepositAddress::forwardCall { amount: U256::from(5) };
            assert_reverts::<DepositAddress::NotVault, _>(net.evm.call(who(caller), target, call));
        }
    }
    assert_eq!(net.opg(deposit), 5);
    assert!(
        net.evm.send(who("alice"), deposit, U256::ONE, Bytes::new()).is_err(),
        "native coin would be lost"
    );
}

#[test]
fn only_the_ledger_credits() {
    let mut net = Net::new();
    recorded(&mut net);
    for caller in ["thief", "node-0", "system-0", "treasury"] {
        let call = FeeVault::creditCall {
            nodeId: net.nodes[0],
            mode: 2,
            releaseAt: 0,
            payees: vec![who("thief")],
            amounts: vec![U256::from(AMOUNT)],
        };
        assert_reverts::<FeeVault::NotLedger, _>(net.evm.call(who(caller), addresses::FEE_VAULT, call));
    }
    net.assert_conserved(&holders());
}

/// Credits of one node are never paid from another node's money.
#[test]
fn a_node_cannot_draw_on_another() {
    let mut net = Net::new();
    recorded(&mut net);
    // Node 1 holds unrelated money.
    let to = net.deposit(1);
    net.settle(&Payment::new("bob", to, 1_000_000, nonce(5))).unwrap();
    net.tick(600);
    for payee in ["node-0", "creator", "treasury", "alice"] {
        assert_eq!(net.withdraw(who(payee), 1, 100).unwrap(), 0);
    }
    let paid: u128 = ["node-0", "creator", "treasury", "alice"]
        .map(|p| net.withdraw(who(p), 0, 100).unwrap())
        .iter()
        .sum();
    let kept = state::vault_balance(&net.evm, net.nodes[0]).unwrap().0;
    assert_eq!(paid + kept, AMOUNT);
    assert_eq!(kept, net.credited(addresses::INSURANCE, 0));
    net.assert_conserved(&holders());
}

/// Somebody calls the ledger in the proposer's name, through code that the proposer's account delegates to (EIP-7702).
#[test]
fn a_delegated_proposer_account_does_not_record() {
    let mut net = Net::new();
    let forwarder = net.deploy("forwarder", &TestForwarder::BYTECODE, ());
    let system = who("system-0");
    net.evm
        .set_code(system, [&[0xef, 0x01, 0x00], forwarder.as_slice()].concat().into());
    let groups = system_tx::chunks(&[net.entry(0, 0, "alice", nonce(1), AMOUNT, CHARGE)]).remove(0);
    let data = system_tx::calldata(1, root(1), 1, 0, groups);
    let call = TestForwarder::forwardCall {
        target: addresses::RECEIPT_LEDGER,
        data: data.clone(),
    };
    let result = net.evm.call(who("thief"), system, call.clone());
    assert_reverts::<ReceiptLedger::NotSystemTransaction, _>(result);
    // Also when the proposer itself is tricked into calling a contract that calls the ledger.
    assert_reverts::<ReceiptLedger::NotSystemTransaction, _>(net.evm.call(system, forwarder, call));
    net.evm
        .send(system, addresses::RECEIPT_LEDGER, U256::ZERO, data)
        .unwrap();
}

/// A payer's contract burns all gas it is given: the others of the batch settle all the same.
#[test]
fn a_gas_burning_wallet_does_not_stop_a_settlement() {
    let mut net = Net::new();
    let wallet = net.deploy("burner", &TestGasBurner::BYTECODE, ());
    let good = Payment::new("alice", net.deposit(0), AMOUNT, nonce(1));
    let good = good.for_vault(net.nodes[0]);
    let burning = FeeVault::Authorization {
        from: wallet,
        ..good.clone()
    };
    let authorizations = vec![burning, good];
    let data = FeeVault::settleCall { authorizations }.abi_encode();
    let done = net
        .evm
        .send_with_gas(who("anyone"), addresses::FEE_VAULT, U256::ZERO, data.into(), 1_000_000)
        .unwrap();
    assert_eq!(
        FeeVault::settleCall::abi_decode_returns(&done.output).unwrap(),
        [false, true]
    );
    assert!(done.gas_used < 800_000);
}

/// A creator tries to raise the royalty of work already done, and to take over somebody else's model.
#[test]
fn a_creator_takes_no_more_than_the_receipt_says() {
    let mut net = Net::new();
    let entry = recorded(&mut net);
    net.tick(600);
    net.set_royalty(MODEL, 3_000);
    assert_eq!(
        net.credited(who("creator"), 0),
        CHARGE * u128::from(entry.royalty_bps) / 10_000
    );
    let give = ModelRegistry::transferCreatorCall {
        modelRoot: OTHER_MODEL,
        to: who("thief"),
    };
    let result = net.evm.call(who("thief"), addresses::MODEL_REGISTRY, give);
    assert_reverts::<ModelRegistry::NotCreator, _>(result);
}

#[test]
fn bonds_leave_to_their_operators_only() {
    let mut net = Net::new();
    let (id, held) = (net.nodes[0], net.opg(addresses::NODE_REGISTRY));
    let leave = NodeRegistry::deactivateCall { nodeId: id };
    net.evm.call(who("node-0"), addresses::NODE_REGISTRY, leave).unwrap();
    net.tick(1_000);
    for thief in ["thief", "node-1", "system-0"] {
        let call = NodeRegistry::withdrawBondCall { nodeId: id };
        assert_reverts::<NodeRegistry::NotOperator, _>(net.evm.call(who(thief), addresses::NODE_REGISTRY, call));
    }
    assert_eq!(net.opg(addresses::NODE_REGISTRY), held);
    net.assert_conserved(&holders());
}

/// Running out of gas inside the settlement look-up must not look like "not settled".
#[test]
fn a_system_transaction_short_of_gas_reverts_as_a_whole() {
    let mut net = Net::new();
    let to = net.deposit(0);
    net.settle(&Payment::new("alice", to, AMOUNT, nonce(1))).unwrap();
    let entry = net.entry(0, 1, "alice", nonce(1), AMOUNT, CHARGE);
    let data = system_tx::calldata(1, root(1), 1, 0, system_tx::chunks(&[entry]).remove(0));
    let needed = 400_000;
    for gas in (40_000..needed).step_by(7_001) {
        let result = net.evm.send_with_gas(
            who("system-0"),
            addresses::RECEIPT_LEDGER,
            U256::ZERO,
            data.clone(),
            gas,
        );
        match result {
            Ok(_) => {
                assert_eq!(
                    state::read_spent(&net.evm, payment_id(&entry)).unwrap(),
                    state::Spent::Credited
                );
                assert!(net.credited(who("node-0"), 0) > 0);
                return;
            }
            Err(CallError::Halt(_) | CallError::Revert(_) | CallError::Invalid(_)) => {
                assert_eq!(
                    state::read_spent(&net.evm, payment_id(&entry)).unwrap(),
                    state::Spent::Unspent
                );
            }
            Err(other) => panic!("{other}"),
        }
    }
    panic!("{needed} gas are not enough");
}

fn payment_id(entry: &BatchEntry) -> alloy_primitives::B256 {
    opg_primitives::ids::payment_id(entry.payer, entry.nonce).0
}
