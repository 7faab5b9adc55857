//! `Payouts.sol` beside the real staking contract: who may say a payout root, how many have to, and what nobody can do. The tree of
//! `opg_contracts::payouts` is what `HomeFeeVault.sol` takes.
#![allow(missing_docs)]

mod common;

use alloy_primitives::{Address, B256, U256};
use common::{
    Net, assert_reverts,
    staking::{BOND, STAKING, staking_net},
    who,
};
use opg_contracts::{
    HomeFeeVault, Payouts, StateReader as _,
    payouts::{Payout, PayoutList, ROOT_SLOT},
};
use opg_genesis::evm::CallError;
use opg_primitives::money::Amount;

const ROOT: B256 = B256::repeat_byte(0x11);
const OTHER: B256 = B256::repeat_byte(0x22);

fn deployed(net: &mut Net) -> Address {
    net.deploy("payouts", &Payouts::BYTECODE, STAKING)
}

fn say(net: &mut Net, at: Address, operator: &str, number: u64, root: B256) -> Result<(), CallError> {
    let call = Payouts::sayCall {
        number_: number,
        root_: root,
    };
    net.evm.call(who(operator), at, call).map(|_| ())
}

fn root(net: &Net, at: Address) -> B256 {
    net.evm.storage(at, ROOT_SLOT).unwrap().into()
}

#[test]
fn a_quorum_of_seats_says_a_root() {
    let mut net = staking_net();
    let at = deployed(&mut net);
    for (operator, expected) in [
        ("operator-0", B256::ZERO),
        ("operator-2", B256::ZERO),
        ("operator-3", ROOT),
    ] {
        say(&mut net, at, operator, 1, ROOT).unwrap();
        assert_eq!(root(&net, at), expected, "three of four");
    }
    // The fourth comes too late for this number, and may say the next one.
    assert_reverts::<Payouts::WrongNumber, _>(say(&mut net, at, "operator-1", 1, ROOT));
    say(&mut net, at, "operator-1", 2, OTHER).unwrap();
    assert_eq!(root(&net, at), ROOT);
}

/// What a minority, a stranger, or a validator without a seat can do: nothing.
#[test]
fn fewer_than_a_quorum_say_nothing() {
    let mut net = staking_net();
    let at = deployed(&mut net);
    for stranger in ["alice", "system-0", "mallory"] {
        assert_reverts::<Payouts::NotSeated, _>(say(&mut net, at, stranger, 1, OTHER));
    }
    // Registered, with stake, and without a seat in this epoch.
    net.register(4, 0, BOND).unwrap();
    assert_reverts::<Payouts::NotSeated, _>(say(&mut net, at, "operator-4", 1, OTHER));
    // Two of four for another root, and once each.
    for operator in ["operator-0", "operator-1"] {
        say(&mut net, at, operator, 1, OTHER).unwrap();
        for again in [OTHER, ROOT] {
            assert_reverts::<Payouts::SaidAlready, _>(say(&mut net, at, operator, 1, again));
        }
    }
    say(&mut net, at, "operator-2", 1, ROOT).unwrap();
    say(&mut net, at, "operator-3", 1, ROOT).unwrap();
    assert_eq!(root(&net, at), B256::ZERO, "two and two");
    for (number, what) in [(0, ROOT), (2, ROOT), (u64::MAX, ROOT)] {
        assert_reverts::<Payouts::WrongNumber, _>(say(&mut net, at, "operator-0", number, what));
    }
    assert_reverts::<Payouts::ZeroRoot, _>(say(&mut net, at, "operator-0", 1, B256::ZERO));
    // A number that is split in two is open again in the next epoch, and what was said in the last one counts no more.
    net.end_epoch_with(&[]);
    let seated = net.seated();
    assert!(seated.contains(&who("operator-4")), "{seated:?}");
    for (i, operator) in ["operator-4", "operator-0", "operator-1", "operator-2"]
        .into_iter()
        .enumerate()
    {
        say(&mut net, at, operator, 1, ROOT).unwrap();
        let expected = if i == 3 { ROOT } else { B256::ZERO };
        assert_eq!(root(&net, at), expected, "four of five");
    }
}

/// Every leaf of trees of many sizes is taken by the contract's own check, and nothing else is.
#[test]
fn the_vault_takes_the_proofs_of_the_tree() {
    let mut net = staking_net();
    let token = common::who("token");
    let arguments = (token, who("checkpoint"), who("payouts"), B256::ZERO);
    let vault = net.deploy("home-vault", &HomeFeeVault::BYTECODE, arguments);
    for count in [1u8, 2, 3, 7, 8, 20] {
        let entries = (0..count).map(|i| Payout {
            payee: Address::repeat_byte(i + 1),
            node_id: B256::repeat_byte(i / 3 + 1),
            cumulative: Amount(u128::from(i) + 1),
        });
        let list = PayoutList::new(entries).unwrap();
        // The root as `setRoot` would leave it: the vault's first slot.
        net.evm.set_storage(vault, U256::ZERO, list.root().into());
        let call = HomeFeeVault::payoutRootCall {};
        assert_eq!(net.evm.view(vault, call).unwrap(), list.root());
        for entry in list.entries() {
            let claim = list.claim(entry.payee, entry.node_id).unwrap();
            let mut more = claim.clone();
            more.leaf.cumulative += U256::ONE;
            // The leaf is taken, and then the token is asked, which is not there.
            let taken = net.evm.call(who("anyone"), vault, claim);
            assert_eq!(taken.unwrap_err(), CallError::Revert(Default::default()));
            let refused = net.evm.call(who("anyone"), vault, more);
            assert_reverts::<HomeFeeVault::InvalidProof, _>(refused);
        }
    }
}
