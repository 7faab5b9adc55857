//! Cases against validators and nodes: verdict, freeze, appeal, distribution; and everything that must not lead to a slash.
#![allow(missing_docs)]

mod common;

use alloy_primitives::{Address, B256, U256, keccak256};
use common::{
    Net, assert_reverts,
    staking::{APPEAL, BOND, EPOCH, JAIL, OPG_UNIT, SLASHING, STAKING, UNBONDING, staking_net, timelock},
    who,
};
use opg_contracts::{
    NodeRegistry, OPG, Slashing, Staking, addresses,
    seats::{self, SeatReport},
    staking, state,
};
use opg_genesis::evm::CallError;
use proptest::prelude::*;

const EQUIVOCATION: u8 = 1;
const INVALID_VOTE: u8 = 2;
const DOWNTIME: u8 = 3;
const FORGED: u8 = 4;
const WRONG: u8 = 5;
const FROZEN: u8 = 2;
const EXECUTED: u8 = 4;
const DISMISSED: u8 = 5;

fn net() -> Net {
    let mut net = staking_net();
    net.approve("node-0");
    net
}

/// The rule, written down again: burn 5, challenger 3, user 2 of 10 by largest remainder; a shortfall takes from the burn first.
fn split(nominal: u128, taken: u128) -> [u128; 3] {
    let weights = [5, 3, 2];
    let mut parts = weights.map(|w| nominal / 10 * w + nominal % 10 * w / 10);
    let mut order = [0, 1, 2];
    order.sort_by_key(|i| (std::cmp::Reverse(nominal % 10 * weights[*i] % 10), *i));
    let left = nominal - parts.iter().sum::<u128>();
    for i in order.into_iter().take(left as usize) {
        parts[i] += 1;
    }
    let user = parts[2].min(taken);
    let challenger = parts[1].min(taken - user);
    [taken - user - challenger, challenger, user]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn slashes_divide_without_rest(nominal in 0u128..1_000_000_000_000_000_000_000_000_000, short in 0u128..1_000_000) {
        let mut net = staking_net();
        for (nominal, taken) in [
            (nominal, nominal),
            (nominal, nominal - nominal * short / 1_000_000),
            (nominal % 20, nominal % 20),
            (nominal % 20, nominal % 7 % (nominal % 20 + 1)),
        ] {
            let call = Slashing::splitCall { nominal: U256::from(nominal), taken: U256::from(taken) };
            let parts = net.evm.view(SLASHING, call).unwrap();
            let got = [parts.burn, parts.challenger, parts.user].map(|part| part.to::<u128>());
            prop_assert_eq!(got, split(nominal, taken));
            prop_assert_eq!(got.iter().sum::<u128>(), taken);
        }
    }
}

/// What Slashing owes: bonds of cases that are not over, and credits.
#[track_caller]
fn assert_credits_backed(net: &mut Net, accounts: &[&str]) {
    let count: u64 = net.evm.view(SLASHING, Slashing::caseCountCall {}).unwrap().to();
    let mut owed: u128 = accounts.iter().map(|account| net.credit(account)).sum();
    for id in 0..count {
        let case = net.case(id);
        if [1, 2, 3].contains(&case.status) {
            owed += case.bond + case.appealBond;
        }
    }
    assert_eq!(net.opg(SLASHING), owed);
}

#[test]
fn an_equivocation_runs_its_course() {
    let mut net = net();
    net.stake("alice", "operator-1", 75_000 * OPG_UNIT).unwrap();
    net.stake("bob", "operator-1", 10_000 * OPG_UNIT).unwrap();
    let early = net.unstake("bob", "operator-1", 4_000 * OPG_UNIT).unwrap();
    net.next_epoch();
    let id = net.unstake("alice", "operator-1", 5_000 * OPG_UNIT).unwrap();

    // The bond is a tenth of the least slash of everything that is liable for epoch 1: not what left in epoch 0.
    let liable = (BOND + 75_000 * OPG_UNIT) + 6_000 * OPG_UNIT;
    let carol = net.opg(who("carol"));
    let case = net
        .report(EQUIVOCATION, who("operator-1").into_word(), 1, b"two votes")
        .unwrap();
    let bond = liable / 20 / 10;
    assert_eq!(carol - net.opg(who("carol")), bond);
    assert_eq!(net.case(case).status, 1);
    // A report alone does nothing.
    assert_eq!(net.validator("operator-1").openCases, 0);
    net.verdict(case, true, B256::ZERO, 0);
    assert_eq!(net.case(case).status, FROZEN);
    assert!(net.validator("operator-1").jailedUntil.to::<u64>() > 0);
    assert!(!net.validator("operator-1").tombstoned);

    // Frozen: nothing liable leaves, nothing new comes, and nothing is distributed before the time is over.
    assert_reverts::<Staking::NoStakeTaken, _>(net.stake("bob", "operator-1", 1));
    assert_reverts::<Slashing::WrongState, _>(net.execute(case));
    net.tick(UNBONDING);
    assert_reverts::<Staking::NotReady, _>(net.withdraw_stake("alice", id));
    net.withdraw_stake("bob", early).unwrap();
    assert_eq!(net.burned(), 0);

    let before = (net.opg(addresses::INSURANCE), net.evm.balance(Address::ZERO));
    net.execute(case).unwrap();
    assert_reverts::<Slashing::WrongState, _>(net.execute(case));
    // One of four seats: three times a quarter.
    let taken = liable * 3 / 4;
    assert_eq!(net.stake_of("operator-1"), (liable - 5_000 * OPG_UNIT) / 4);
    assert_eq!(net.own_stake("operator-1", "operator-1"), BOND / 4);
    assert_eq!(net.own_stake("operator-1", "alice"), 70_000 * OPG_UNIT / 4);
    assert_eq!(net.votes("alice"), 70_000 * OPG_UNIT / 4);
    let [burn, challenger, user] = split(taken, taken);
    assert_eq!(net.burned(), burn);
    assert_eq!(net.evm.balance(Address::ZERO) - before.1, U256::from(burn));
    assert_eq!(net.opg(addresses::INSURANCE) - before.0, user);
    assert_eq!(net.credit("carol"), challenger + bond);
    assert_credits_backed(&mut net, &["carol"]);
    assert_eq!(net.withdraw_stake("alice", id).unwrap(), 5_000 * OPG_UNIT / 4);
    net.slashing("carol", Slashing::withdrawCall {}).unwrap();
    assert_eq!(net.opg(who("carol")), carol + challenger);
    net.slashing("carol", Slashing::withdrawCall {}).unwrap();
    assert_eq!(net.opg(who("carol")), carol + challenger, "credits are paid once");
    assert!(net.validator("operator-1").tombstoned);
    assert_reverts::<Staking::CannotUnjail, _>(net.staking("operator-1", Staking::unjailCall {}));
    assert_reverts::<Staking::CannotEnter, _>(net.staking(
        "operator-1",
        Staking::enterCall {
            operator: who("operator-1"),
        },
    ));
    net.assert_stake_backed(10);
}

/// Economics 6.2: the more seats do it, the more it costs; a third loses all.
#[test]
fn correlated_faults_cost_more() {
    for (faulty, ppm) in [(1usize, 500_000u32), (2, 1_000_000)] {
        let mut net = net();
        net.register(4, 0, BOND).unwrap();
        net.register(5, 0, BOND).unwrap();
        net.next_epoch();
        assert_eq!(net.seated().len(), 6);
        let cases: Vec<_> = (0..faulty)
            .map(|i| net.convict(EQUIVOCATION, &format!("operator-{i}"), 1, true))
            .collect();
        // The neighbouring epoch counts, another class does not.
        let other = net.convict(INVALID_VOTE, "operator-5", 1, true);
        for case in &cases {
            let rate = Slashing::ratePpmCall { id: U256::from(*case) };
            assert_eq!(net.evm.view(SLASHING, rate).unwrap(), ppm);
        }
        let rate = Slashing::ratePpmCall { id: U256::from(other) };
        assert_eq!(net.evm.view(SLASHING, rate).unwrap(), 500_000);
        net.tick(APPEAL);
        for (i, case) in cases.iter().enumerate() {
            net.execute(*case).unwrap();
            let left = BOND - BOND * u128::from(ppm) / 1_000_000;
            assert_eq!(net.stake_of(&format!("operator-{i}")), left);
            assert_eq!(net.votes(&format!("operator-{i}")), left);
        }
        net.assert_stake_backed(10);
        // Stake that is worth nothing leaves without a wei.
        let id = net.unstake("operator-0", "operator-0", u128::MAX).unwrap();
        net.tick(UNBONDING);
        if ppm == 1_000_000 {
            assert_reverts::<Staking::NotReady, _>(net.withdraw_stake("operator-0", id));
        } else {
            assert_eq!(net.withdraw_stake("operator-0", id).unwrap(), BOND / 2);
        }
    }
}

#[test]
fn among_many_seats_the_least_slash_is_five_per_cent() {
    let mut file = common::staking::staking_file_with(70);
    file.parameters.staking.as_mut().unwrap().max_seats = 70;
    let mut net = Net::of(&file);
    net.approve("carol");
    for i in 4..64 {
        net.register(i, 0, BOND).unwrap();
    }
    net.next_epoch();
    let case = net.convict(EQUIVOCATION, "operator-9", 1, true);
    net.tick(APPEAL);
    net.execute(case).unwrap();
    assert_eq!(net.stake_of("operator-9"), BOND * 95 / 100);
}

/// The attack the whole thing is about: equivocate, then leave before anybody reports it.
#[test]
fn leaving_before_a_slash_is_no_escape() {
    let mut net = net();
    net.next_epoch();
    // The fault is of epoch 1; the stake leaves in the same epoch, the report comes two epochs later.
    let id = net.unstake("operator-0", "operator-0", u128::MAX).unwrap();
    net.staking("operator-0", Staking::exitCall {}).unwrap();
    net.next_epoch();
    net.next_epoch();
    let case = net.convict(EQUIVOCATION, "operator-0", 1, true);
    net.tick(UNBONDING);
    assert_reverts::<Staking::NotReady, _>(net.withdraw_stake("operator-0", id));
    net.execute(case).unwrap();
    assert_eq!(net.withdraw_stake("operator-0", id).unwrap(), BOND / 4);
    net.assert_stake_backed(5);

    // Stake that left before the fault's epoch is not liable, and evidence is too old once stake of its epoch may be gone.
    let mut net = common_net_with_early_leaver();
    let case = net.convict(EQUIVOCATION, "operator-0", 1, true);
    net.tick(APPEAL);
    net.execute(case).unwrap();
    net.tick(UNBONDING);
    assert_eq!(net.withdraw_stake("alice", 0).unwrap(), 1_000);
    let mut net = common_net_with_early_leaver();
    net.next_epoch();
    net.tick(UNBONDING - 1);
    net.report(EQUIVOCATION, who("operator-0").into_word(), 1, b"x")
        .unwrap();
    net.tick(1);
    let late = net.report(EQUIVOCATION, who("operator-0").into_word(), 1, b"x");
    assert_reverts::<Slashing::TooOld, _>(late);
}

fn common_net_with_early_leaver() -> Net {
    let mut net = net();
    net.stake("alice", "operator-0", 1_000).unwrap();
    net.unstake("alice", "operator-0", u128::MAX).unwrap();
    net.next_epoch();
    net
}

/// Filling a pool's list of buckets makes what leaves later count as of now: nothing gets out of a slash's reach.
#[test]
fn many_small_exits_do_not_hide_a_large_one() {
    let mut net = net();
    net.stake("alice", "operator-0", 10_000).unwrap();
    net.stake("bob", "operator-0", 1_000_000).unwrap();
    let fault = net.epoch();
    let first = net.unstake("bob", "operator-0", u128::MAX).unwrap();
    for _ in 0..80 {
        net.unstake("alice", "operator-0", 10).unwrap();
        net.tick(10);
        net.end_epoch();
    }
    let case = net.convict(EQUIVOCATION, "operator-0", fault + 40, true);
    let old = net.convict(INVALID_VOTE, "operator-0", fault + 79, true);
    net.tick(UNBONDING);
    let unbonding = |net: &mut Net, account: &str, id: u64| -> u128 {
        let call = Staking::unbondingValueCall {
            account: who(account),
            id: U256::from(id),
        };
        net.evm.view(STAKING, call).unwrap().to()
    };
    net.execute(case).unwrap();
    assert_eq!(unbonding(&mut net, "bob", first), 1_000_000, "bob left long before");
    assert_eq!(unbonding(&mut net, "alice", 39), 10);
    for id in 40..80 {
        assert_eq!(unbonding(&mut net, "alice", id), 2, "exit {id}");
    }
    net.execute(old).unwrap();
    net.assert_stake_backed(200);
}

#[test]
fn one_slash_for_one_fault() {
    let mut net = net();
    let first = net.convict(EQUIVOCATION, "operator-0", 0, true);
    // The same fault by other evidence, before and after the slash: true, known, and the bond goes back.
    let second = net.convict(EQUIVOCATION, "operator-0", 0, true);
    assert_eq!(net.case(second).status, DISMISSED);
    assert_eq!(net.validator("operator-0").openCases, 1);
    net.tick(APPEAL);
    net.execute(first).unwrap();
    let stake = net.stake_of("operator-0");
    let third = net.convict(EQUIVOCATION, "operator-0", 0, true);
    assert_eq!(net.case(third).status, DISMISSED);
    assert_reverts::<Slashing::WrongState, _>(net.execute(third));
    // Verdicts again, and on cases that await none, change nothing.
    for id in [first, second, third, 99] {
        net.verdict(id, true, B256::ZERO, 0);
        net.verdict(id, false, B256::ZERO, 0);
    }
    assert_eq!(net.stake_of("operator-0"), stake);
    assert_eq!(net.case(first).status, EXECUTED);
    assert_credits_backed(&mut net, &["carol"]);
}

#[test]
fn false_reports_cost_their_challenger() {
    let mut net = net();
    let carol = net.opg(who("carol"));
    let case = net.convict(EQUIVOCATION, "operator-0", 0, false);
    let bond = BOND / 20 / 10;
    assert_eq!(net.case(case).status, DISMISSED);
    assert_eq!(carol - net.opg(who("carol")), bond);
    assert_eq!(net.credit("operator-0"), bond / 2);
    assert_eq!(net.burned(), bond - bond / 2);
    assert_eq!((net.credit("carol"), net.stake_of("operator-0")), (0, BOND));
    assert_eq!(net.validator("operator-0").openCases, 0);
    assert_credits_backed(&mut net, &["operator-0"]);
    // The same fault can still be proven by better evidence.
    let better = net.convict(EQUIVOCATION, "operator-0", 0, true);
    assert_eq!(net.case(better).status, FROZEN);
}

#[test]
fn reports_are_bounded_and_about_somebody() {
    let mut net = net();
    let operator = who("operator-0").into_word();
    for (class, subject, epoch) in [(0, operator, 0), (DOWNTIME, operator, 0), (6, operator, 0)] {
        assert_reverts::<Slashing::UnknownClass, _>(net.report(class, subject, epoch, b"x"));
    }
    for (class, subject, epoch) in [
        (EQUIVOCATION, who("alice").into_word(), 0),
        (EQUIVOCATION, operator, 1),
        (INVALID_VOTE, operator, u64::MAX),
        (FORGED, B256::repeat_byte(9), 0),
        // the operator once more, under another word: it would be slashed twice for one fault
        (EQUIVOCATION, operator | B256::from(U256::from(1) << 160), 0),
    ] {
        assert_reverts::<Slashing::NotAccusable, _>(net.report(class, subject, epoch, b"x"));
    }
    for evidence in [vec![], vec![0; 16_385]] {
        assert_reverts::<Slashing::InvalidEvidence, _>(net.report(EQUIVOCATION, operator, 0, &evidence));
    }
    net.next_block();
    let call = Slashing::reportEquivocationCall {
        operator: who("operator-0"),
        epoch: 0,
        evidence: vec![1].into(),
    };
    for _ in 0..4 {
        net.slashing("carol", call.clone()).unwrap();
    }
    assert_reverts::<Slashing::TooMany, _>(net.slashing("carol", call.clone()));
    net.next_block();
    net.slashing("carol", call.clone()).unwrap();
    // Without the bond there is no case.
    assert!(net.slashing("anyone", call).is_err());
    let epoch = net.epoch();
    let verdict = Slashing::recordVerdictsCall { verdicts: vec![] };
    net.evm.set_coinbase(who("system-0"));
    for account in ["alice", "operator-0", "system-1"] {
        assert_reverts::<Slashing::NotSystemTransaction, _>(net.slashing(account, verdict.clone()));
    }
    assert_eq!(net.epoch(), epoch);
    // A report that nobody judges ends with the bond back.
    let expire = |id: u64| Slashing::expireCall { id: U256::from(id) };
    assert_reverts::<Slashing::WrongState, _>(net.slashing("anyone", expire(0)));
    net.tick(APPEAL);
    let bond = net.case(0).bond;
    net.slashing("anyone", expire(0)).unwrap();
    assert_eq!(net.credit("carol"), bond);
    assert_reverts::<Slashing::WrongState, _>(net.slashing("anyone", expire(0)));
    net.verdict(0, true, B256::ZERO, 0);
    assert_eq!(net.case(0).status, DISMISSED);
}

#[test]
fn an_appeal_asks_once_for_a_second_verdict() {
    let appeal = |id: u64, evidence: &[u8]| Slashing::appealCall {
        id: U256::from(id),
        evidence: evidence.to_vec().into(),
    };
    for upheld in [true, false] {
        let mut net = net();
        let case = net.convict(EQUIVOCATION, "operator-0", 0, true);
        assert_reverts::<Slashing::NotAccused, _>(net.slashing("alice", appeal(case, b"evidence")));
        assert_reverts::<Slashing::InvalidEvidence, _>(net.slashing("operator-0", appeal(case, b"other")));
        net.next_block();
        net.slashing("operator-0", appeal(case, b"evidence")).unwrap();
        assert_reverts::<Slashing::WrongState, _>(net.slashing("operator-0", appeal(case, b"evidence")));
        let bond = net.case(case).bond;
        net.tick(APPEAL);
        // No distribution while it is under way.
        assert_reverts::<Slashing::WrongState, _>(net.execute(case));
        net.verdict(case, upheld, B256::ZERO, 0);
        if upheld {
            net.execute(case).unwrap();
            let taken = BOND * 3 / 4;
            let [burn, challenger, _] = split(taken, taken);
            assert_eq!(net.credit("carol"), challenger + bond + bond / 2);
            assert_eq!(net.burned(), burn + bond - bond / 2);
            assert_eq!(net.credit("operator-0"), 0);
        } else {
            assert_eq!(net.case(case).status, DISMISSED);
            assert_eq!((net.credit("carol"), net.credit("operator-0")), (bond, bond));
            assert_eq!((net.burned(), net.stake_of("operator-0")), (0, BOND));
            assert_reverts::<Slashing::WrongState, _>(net.execute(case));
            // It is free again, and eligible once its time in jail is over.
            net.staking("operator-0", Staking::unjailCall {}).unwrap();
            assert!(
                net.evm
                    .view(
                        STAKING,
                        Staking::isEligibleCall {
                            operator: who("operator-0")
                        }
                    )
                    .unwrap()
            );
        }
        assert_credits_backed(&mut net, &["carol", "operator-0"]);
    }
    // Too late, and never about being down.
    let mut net = net();
    let case = net.convict(EQUIVOCATION, "operator-0", 0, true);
    net.tick(APPEAL);
    assert_reverts::<Slashing::WrongState, _>(net.slashing("operator-0", appeal(case, b"evidence")));
}

/// Nobody is slashed by an account's decision: governance can end cases and set bounded numbers, that is all.
#[test]
fn governance_frees_and_never_slashes() {
    let mut net = net();
    let case = net.convict(EQUIVOCATION, "operator-0", 0, true);
    let dismiss = |id: u64| Slashing::dismissCall { id: U256::from(id) };
    assert_reverts::<Slashing::NotGovernance, _>(net.slashing("operator-0", dismiss(case)));
    net.evm.call(timelock(), SLASHING, dismiss(case)).unwrap();
    assert_eq!((net.case(case).status, net.stake_of("operator-0")), (DISMISSED, BOND));
    assert_reverts::<Slashing::WrongState, _>(net.evm.call(timelock(), SLASHING, dismiss(case)));
    let governance = timelock();
    let freeze = Staking::freezeCall {
        operator: who("operator-1"),
        fault: 0,
        until: alloy_primitives::Uint::MAX,
    };
    let unfreeze = Staking::unfreezeCall {
        operator: who("operator-1"),
        fault: 0,
        ppm: 1_000_000,
        tombstone: true,
    };
    let node = net.nodes[0];
    for account in [governance, who("alice"), who("system-0")] {
        assert_reverts::<Staking::NotSlashing, _>(net.evm.call(account, STAKING, freeze.clone()));
        assert_reverts::<Staking::NotSlashing, _>(net.evm.call(account, STAKING, unfreeze.clone()));
        let call = NodeRegistry::freezeCall { nodeId: node };
        assert_reverts::<NodeRegistry::NotSlashing, _>(net.evm.call(account, addresses::NODE_REGISTRY, call));
        let call = NodeRegistry::unfreezeCall {
            nodeId: node,
            amount: U256::MAX,
            deactivated: true,
        };
        assert_reverts::<NodeRegistry::NotSlashing, _>(net.evm.call(account, addresses::NODE_REGISTRY, call));
    }
    let p = net.evm.view(SLASHING, Slashing::parametersCall {}).unwrap();
    let good = Slashing::Parameters {
        minBond: p.minBond,
        appealWindow: p.appealWindow,
        equivocationPpm: p.equivocationPpm,
        downtimePpm: p.downtimePpm,
        correlation: p.correlation,
    };
    let set = |p: &Slashing::Parameters| Slashing::setParametersCall { parameters_: p.clone() };
    assert_reverts::<Slashing::NotGovernance, _>(net.slashing("alice", set(&good)));
    type Change = fn(&mut Slashing::Parameters);
    let changes: [Change; 8] = [
        |p| p.minBond = 0,
        |p| p.minBond = u128::MAX,
        |p| p.appealWindow = alloy_primitives::Uint::ZERO,
        |p| p.appealWindow = alloy_primitives::Uint::MAX,
        |p| p.equivocationPpm = 1_000_001,
        |p| p.downtimePpm = 100_001,
        |p| p.correlation = 0,
        |p| p.correlation = 101,
    ];
    for change in changes {
        let mut bad = good.clone();
        change(&mut bad);
        assert_reverts::<Slashing::OutOfRange, _>(net.evm.call(governance, SLASHING, set(&bad)));
    }
    net.evm.call(governance, SLASHING, set(&good)).unwrap();
}

#[test]
fn being_down_costs_a_hundredth_of_a_per_cent_once() {
    let mut net = net();
    let report = Slashing::reportDowntimeCall {
        operator: who("operator-0"),
    };
    assert_reverts::<Slashing::NotDown, _>(net.slashing("anyone", report.clone()));
    net.tick(EPOCH);
    net.end_epoch_with(&[("operator-0", 0, 4)]);
    let case: u64 = net.slashing("anyone", report.clone()).unwrap().to();
    assert_reverts::<Slashing::NotDown, _>(net.slashing("anyone", report.clone()));
    let appeal = Slashing::appealCall {
        id: U256::from(case),
        evidence: vec![].into(),
    };
    assert_reverts::<Slashing::WrongState, _>(net.slashing("operator-0", appeal));
    net.tick(APPEAL);
    net.execute(case).unwrap();
    let taken = BOND / 10_000;
    assert_eq!(net.stake_of("operator-0"), BOND - taken);
    assert_eq!(net.credit("anyone"), split(taken, taken)[1]);
    assert!(!net.validator("operator-0").tombstoned);
    assert_reverts::<Slashing::NotDown, _>(net.slashing("anyone", report.clone()));
    // Again, in another epoch.
    net.tick(JAIL);
    // A wei more, for the rounding.
    net.stake("operator-0", "operator-0", taken + 1).unwrap();
    net.staking("operator-0", Staking::unjailCall {}).unwrap();
    net.end_epoch_with(&[("operator-0", 0, 4)]);
    net.slashing("anyone", report).unwrap();
    assert_credits_backed(&mut net, &["anyone"]);
}

fn bond_of(net: &Net, node: usize) -> u128 {
    state::read_node(&net.evm, net.nodes[node]).unwrap().unwrap().bond.0
}

#[test]
fn forged_evidence_costs_a_node_everything() {
    let mut net = net();
    let node = net.nodes[0];
    let bond = bond_of(&net, 0);
    let carol = net.opg(who("carol"));
    let case = net.report(FORGED, node, 77, b"document").unwrap();
    assert_eq!(carol - net.opg(who("carol")), bond / 10);
    net.verdict(case, true, keccak256("document"), 0);
    // Leaving now takes nothing away.
    let registry = addresses::NODE_REGISTRY;
    let leave = NodeRegistry::deactivateCall { nodeId: node };
    net.evm.call(who("node-0"), registry, leave).unwrap();
    net.tick(2_000);
    let withdraw = NodeRegistry::withdrawBondCall { nodeId: node };
    assert_reverts::<NodeRegistry::BondLocked, _>(net.evm.call(who("node-0"), registry, withdraw.clone()));
    net.execute(case).unwrap();
    assert_eq!(bond_of(&net, 0), 0);
    assert_reverts::<NodeRegistry::BondLocked, _>(net.evm.call(who("node-0"), registry, withdraw));
    let [burn, challenger, _] = split(bond, bond);
    assert_eq!(net.credit("carol"), challenger + bond / 10);
    assert_eq!(net.burned(), burn);
    // The other node's bond is its own.
    assert_eq!(bond_of(&net, 1), 1_000 * OPG_UNIT);
    assert_eq!(net.opg(registry), 1_000 * OPG_UNIT);
    assert_credits_backed(&mut net, &["carol"]);
}

#[test]
fn wrong_inference_costs_fifty_fees_and_the_third_time_everything() {
    let mut net = net();
    let node = net.nodes[0];
    let bond = bond_of(&net, 0);
    let convict = |net: &mut Net, fault: &str, fee: u128| {
        let case = net.report(WRONG, node, 0, fault.as_bytes()).unwrap();
        net.verdict(case, true, keccak256(fault), fee);
        case
    };
    // A small fee: one per cent of the bond; the user has its fee twice, the rest is the insurance's.
    let fee = 1_000_003;
    let first = convict(&mut net, "seq 1", fee);
    // The same two receipts again: no second case. Others of the same keyset: another one.
    let again = convict(&mut net, "seq 1", fee);
    assert_eq!(net.case(again).status, DISMISSED);
    net.tick(APPEAL);
    let insurance = net.opg(addresses::INSURANCE);
    net.execute(first).unwrap();
    let taken = bond / 100;
    let [burn, _, user] = split(taken, taken);
    assert_eq!(bond_of(&net, 0), bond - taken);
    assert_eq!(net.credit("bob"), 2 * fee);
    assert_eq!(net.opg(addresses::INSURANCE) - insurance, user - 2 * fee);
    assert_eq!(net.burned(), burn);
    // A large one: fifty times, and at most what there is. The burn is short first, the user last.
    let fee = 30 * OPG_UNIT;
    let second = convict(&mut net, "seq 2", fee);
    net.tick(APPEAL);
    let bob = net.credit("bob");
    let left = bond - taken;
    net.execute(second).unwrap();
    let [_, challenger, user] = split(50 * fee, left);
    assert_eq!(bond_of(&net, 0), 0);
    assert_eq!(user, 300 * OPG_UNIT);
    assert_eq!(net.credit("bob") - bob, 2 * fee);
    assert_eq!(challenger, 450 * OPG_UNIT);
    assert_credits_backed(&mut net, &["carol", "bob"]);

    // Three small ones in an epoch.
    let mut net = self::net();
    let cases: Vec<_> = ["a", "b", "c"].map(|fault| convict(&mut net, fault, 1)).into();
    net.tick(APPEAL);
    for case in cases {
        net.execute(case).unwrap();
    }
    assert_eq!(bond_of(&net, 0), 0);
    assert!(
        state::read_node(&net.evm, node).unwrap().unwrap().inactive_at.is_some(),
        "it has left for ever"
    );
}

/// A node without a bond left is nobody that a fault can be charged to, and its receipts are not admissible.
#[test]
fn totals_never_exceed_the_bond() {
    let mut net = net();
    let node = net.nodes[1];
    let bond = bond_of(&net, 1);
    let cases: Vec<u64> = (0..3u8)
        .map(|i| {
            let case = net.report(FORGED, node, 0, &[i]).unwrap();
            net.verdict(case, true, B256::repeat_byte(i + 1), 0);
            case
        })
        .collect();
    net.tick(APPEAL);
    let before = net.opg(SLASHING);
    let mut taken = 0;
    for case in &cases {
        let held = bond_of(&net, 1);
        net.execute(*case).unwrap();
        taken += held - bond_of(&net, 1);
    }
    assert_eq!(taken, bond);
    assert!(net.opg(SLASHING) <= before + bond);
    assert_reverts::<Slashing::NotAccusable, _>(net.report(FORGED, node, 0, b"more"));
    assert_credits_backed(&mut net, &["carol"]);
}

/// Verdicts must never fail: a block whose system transaction reverts is invalid.
#[test]
fn four_verdicts_fit_their_system_transaction() {
    let mut net = net();
    net.next_block();
    let subjects = [0, 1, 2, 3].map(|i| who(&format!("operator-{i}")));
    let mut verdicts = Vec::new();
    for (i, operator) in subjects.into_iter().enumerate() {
        let call = Slashing::reportEquivocationCall {
            operator,
            epoch: 0,
            evidence: vec![1; 16_384].into(),
        };
        let id = net.slashing("carol", call).unwrap();
        verdicts.push(Slashing::Verdict {
            id,
            valid: i != 3,
            fault: B256::ZERO,
            fee: 0,
            user: Address::ZERO,
        });
    }
    let data = staking::verdicts_calldata(verdicts);
    let done = net.system(SLASHING, data, staking::VERDICTS_GAS).unwrap();
    println!("four verdicts: {} gas", done.gas_used);
    assert!(done.gas_used < staking::VERDICTS_GAS / 2);
    // All seats jailed at once: the set stays, and the chain goes on.
    net.tick(EPOCH);
    let report: Vec<_> = net
        .seats(0)
        .iter()
        .map(|seat| SeatReport {
            operator: seat.operator,
            led: 0,
            missed: 10,
        })
        .collect();
    let data = seats::end_epoch_calldata(0, &report);
    net.system(STAKING, data, staking::END_EPOCH_GAS).unwrap();
    assert_eq!(net.seats(1), net.seats(0));
}

/// What was burned is gone from the supply, and nowhere else.
#[test]
fn burns_leave_the_supply_and_can_never_move() {
    let mut net = net();
    let supply: u128 = net.evm.view(addresses::OPG, OPG::totalSupplyCall {}).unwrap().to();
    let case = net.convict(EQUIVOCATION, "operator-0", 0, true);
    net.tick(APPEAL);
    net.execute(case).unwrap();
    let after: u128 = net.evm.view(addresses::OPG, OPG::totalSupplyCall {}).unwrap().to();
    assert_eq!(supply - after, net.burned());
    assert_eq!(net.evm.balance(Address::ZERO), U256::from(net.burned()));
    let refused: Result<_, CallError> = net.slashing("anyone", Slashing::executeCall { id: U256::from(case) });
    assert!(refused.is_err());
}

/// Validators judge votes of old epochs by the seats that they read from storage: they are those of the contract, whatever came since.
#[test]
fn seats_of_every_epoch_are_read_from_storage() {
    let mut net = net();
    for i in 4..16 {
        let bond = (25_000 + i as u128) * OPG_UNIT;
        net.register(i, 0, bond).unwrap();
        net.next_epoch();
    }
    assert_eq!(net.epoch(), 12);
    let mut sets = std::collections::HashSet::new();
    for epoch in 0..=12 {
        let read = seats::read_seats(&net.evm, epoch).unwrap();
        let said = net.seats(epoch);
        assert_eq!(read.len(), said.len());
        for (read, said) in read.iter().zip(&said) {
            let read = (read.operator, read.identity, read.bls.to_vec(), read.system);
            assert_eq!(
                read,
                (said.operator, said.consensusKey, said.blsKey.to_vec(), said.system)
            );
        }
        assert_eq!(seats::hash(&read), seats::read_set_hash(&net.evm, epoch).unwrap());
        sets.insert(seats::hash(&read));
    }
    assert!(sets.len() > 8, "the sets were different ones");
    assert!(seats::read_seats(&net.evm, 13).unwrap().is_empty());
}
