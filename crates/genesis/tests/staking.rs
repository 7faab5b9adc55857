//! Validators, stake, rewards, epochs and votes: the real bytecode, from the genesis set on.
#![allow(missing_docs)]

mod common;

use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use common::{
    CHAIN_ID, Net, START, assert_reverts, key, sign,
    staking::{
        BOND, EPOCH, JAIL, OPERATORS, OPG_UNIT, STAKING, UNBONDING, bls, bls_point, bls_possession, preimage,
        registration, seat, staking_file, staking_file_with, staking_net, timelock,
    },
    who,
};
use opg_contracts::{
    Emission, KeyProofs, OPG, Staking, ValidatorKeys, Vesting, addresses,
    genesis_file::SUPPLY,
    seats::{self, SeatReport},
    staking, state,
    supply::STAKING_REWARDS,
};
use opg_genesis::evm::Evm;
use opg_primitives::money::Amount;

/// When the first epoch ends: the chain is a second old when the tests begin.
const FIRST: u64 = EPOCH + 1;

/// The bucket's release between two times since the start.
fn released(from: u64, to: u64) -> u128 {
    let schedule = STAKING_REWARDS.schedule(addresses::EMISSION, START, Amount::ZERO);
    let at = |time: u64| schedule.released(STAKING_REWARDS.total, START + time).0;
    at(to) - at(from)
}

/// What `shares` of `all` get of `amount`, by the accumulator's own steps.
fn accrued(amount: u128, shares: u128, all: u128) -> u128 {
    let per_share = (U256::from(amount) << 96_usize) / U256::from(all);
    ((U256::from(shares) * per_share) >> 96_usize).to()
}

/// Equal but for the roundings of two rewards.
#[track_caller]
fn assert_near(got: u128, exact: u128) {
    assert!(got <= exact && exact - got <= 2, "{got} of {exact}");
}

/// The validators' part of it for one of `seats`.
fn seat_part(from: u64, to: u64, seats: u128) -> u128 {
    let fresh = released(from, to);
    (fresh - fresh * 200_000 / 1_000_000 - fresh * 100_000 / 1_000_000) / seats
}

#[test]
fn the_genesis_set_is_epoch_zero_and_its_stake_is_bonded() {
    let file = staking_file();
    let mut net = staking_net();
    let set = staking::genesis_seats(&file);
    assert_eq!(net.seats(0), set);
    let hash = seats::read_set_hash(&net.evm, 0).unwrap();
    assert_eq!(hash, keccak256(preimage(&set)));
    assert_eq!(seats::read_set_hash(&net.evm, 1).unwrap(), B256::ZERO);
    assert_eq!(net.total_stake(), 4 * BOND);
    assert_eq!(net.opg(STAKING), 4 * BOND);
    for validator in &file.validators {
        let call = Staking::isSystemCall {
            account: validator.system,
        };
        assert!(net.evm.view(STAKING, call).unwrap());
        assert!(state::is_system(&net.evm, validator.system).unwrap());
        assert!(!state::is_system(&net.evm, validator.operator).unwrap());
    }
    for i in 0..4 {
        let operator = format!("operator-{i}");
        assert_eq!(net.stake_of(&operator), BOND);
        assert_eq!(net.votes(&operator), BOND);
        assert_eq!(net.opg(who(&operator)), 75_000 * OPG_UNIT);
    }
    net.assert_stake_backed(0);
}

#[test]
fn a_file_without_stake_keeps_its_set() {
    let mut net = Net::new();
    assert_eq!(net.total_stake(), 0);
    net.next_epoch();
    assert_eq!(net.epoch(), 1);
    assert_eq!(net.seats(1), net.seats(0), "nobody is eligible, so the old set stays");
    assert!(state::is_system(&net.evm, who("system-2")).unwrap());
}

#[test]
fn stake_of_the_file_must_be_there() {
    let mut file = staking_file();
    let at = file
        .allocations
        .iter()
        .position(|a| a.address == who("operator-2"))
        .unwrap();
    let missing = file.allocations[at].wrapped.0 - BOND + 1;
    file.allocations[at].wrapped.0 -= missing;
    file.allocations.last_mut().unwrap().wrapped.0 += missing;
    let refused = file.validate().unwrap_err().to_string();
    assert!(refused.contains("validators[2].operator"), "{refused}");
    let mut file = staking_file();
    file.vesting[0].beneficiary = who("alice");
    let refused = file.validate().unwrap_err().to_string();
    assert!(refused.contains("vesting[0].beneficiary"), "{refused}");
    let mut file = staking_file();
    file.parameters.unbonding = 899;
    let refused = file.validate().unwrap_err().to_string();
    assert!(refused.contains("parameters.unbonding"), "{refused}");
}

#[test]
fn parameters_of_the_file_are_those_that_the_contracts_take() {
    use opg_contracts::StakingParameters;
    type Change = fn(&mut StakingParameters);
    let changes: [(&str, Change); 14] = [
        ("min_self_bond", |p| p.min_self_bond = Amount(OPG_UNIT - 1)),
        ("challenger_bond", |p| p.challenger_bond = Amount(0)),
        ("unbonding", |p| p.unbonding = 0),
        ("unbonding", |p| p.unbonding = 366 * 86_400),
        ("jail_time", |p| p.jail_time = 0),
        ("max_seats", |p| p.max_seats = 3),
        ("max_seats", |p| p.max_seats = 101),
        ("commission_step", |p| p.commission_step = 0),
        ("min_views", |p| p.min_views = 0),
        ("min_led_ppm", |p| p.min_led_ppm = 900_001),
        ("nodes_ppm", |p| p.nodes_ppm = 800_001),
        ("appeal_window", |p| p.appeal_window = 0),
        ("downtime_ppm", |p| p.downtime_ppm = 0),
        ("correlation", |p| p.correlation = 0),
    ];
    for (field, change) in changes {
        let mut file = staking_file();
        change(file.parameters.staking.as_mut().unwrap());
        let refused = file.validate().unwrap_err().to_string();
        assert!(refused.contains(&format!("parameters.staking.{field}")), "{refused}");
    }
    // The defaults, and the extremes of every range, build.
    let mut file = staking_file();
    file.parameters.unbonding = 40 * 86_400;
    file.parameters.staking = Some(StakingParameters {
        unbonding: 1,
        jail_time: 365 * 86_400,
        max_seats: 100,
        commission_step: 10_000,
        min_views: u32::MAX,
        min_led_ppm: 900_000,
        auditors_ppm: 1_000_000,
        nodes_ppm: 0,
        appeal_window: 30 * 86_400,
        equivocation_ppm: 1_000_000,
        downtime_ppm: 100_000,
        correlation: 100,
        ..StakingParameters::default()
    });
    opg_genesis::build(&file).unwrap();
}

/// The encoding of a point's y.
fn little(y: U256) -> B256 {
    B256::from(y.to_le_bytes::<32>())
}

#[test]
fn registration_needs_both_proofs_fresh_keys_and_a_bond() {
    let mut net = staking_net();
    net.approve("operator-4");
    for _ in 0..3 {
        net.next_epoch();
    }
    let good = registration("operator-4", "operator-4", 3);
    let call = |keys: &ValidatorKeys::KeyRegistration| Staking::registerCall {
        keys: keys.clone(),
        commissionBps: 500,
        bond: U256::from(BOND),
    };
    // Proofs of another operator, chain or epoch.
    let other = registration("operator-5", "operator-4", 3);
    let refuse_key = |net: &mut Net, keys: ValidatorKeys::KeyRegistration| {
        assert_reverts::<KeyProofs::NotBlsKey, _>(net.staking("operator-4", call(&keys)));
    };
    let mut keys = good.clone();
    keys.possession = other.possession.clone();
    refuse_key(&mut net, keys.clone());
    keys.possession = bls_possession(&bls("operator-4"), CHAIN_ID + 1, who("operator-4"), 3);
    refuse_key(&mut net, keys.clone());
    keys.possession = bls_possession(&bls("operator-4"), CHAIN_ID, who("operator-4"), 2);
    refuse_key(&mut net, keys.clone());
    // A key that is another's with a proof that is one's own.
    keys = good.clone();
    keys.blsKey = bls_point(&bls("operator-5"));
    refuse_key(&mut net, keys.clone());
    // Infinity and missing bytes.
    keys.blsKey = vec![0; 256].into();
    keys.possession = vec![0; 128].into();
    refuse_key(&mut net, keys.clone());
    keys = good.clone();
    keys.possession = good.possession[..127].to_vec().into();
    refuse_key(&mut net, keys);
    for signature in [
        other.systemSignature.clone(),
        Bytes::new(),
        sign(
            &key("system-of-operator-4"),
            staking::system_possession_digest(CHAIN_ID, who("operator-4"), 2),
        )
        .to_vec()
        .into(),
    ] {
        let mut keys = good.clone();
        keys.systemSignature = signature;
        assert_reverts::<KeyProofs::NotSystemKey, _>(net.staking("operator-4", call(&keys)));
    }
    for epoch in [0, 1, 4] {
        let keys = registration("operator-4", "operator-4", epoch);
        assert_reverts::<Staking::ProofEpoch, _>(net.staking("operator-4", call(&keys)));
    }
    // A system account with code, and one that is the operator itself.
    let mut coded = good.clone();
    let wallet = &common::TestWallet::BYTECODE;
    coded.system = net.deploy("system-of-operator-4", wallet, who("alice"));
    assert_reverts::<Staking::SystemAccountUsed, _>(net.staking("operator-4", call(&coded)));
    net.evm.set_code(coded.system, Bytes::new());
    let mut own = good.clone();
    own.system = who("operator-4");
    let digest = staking::system_possession_digest(CHAIN_ID, who("operator-4"), 3);
    own.systemSignature = sign(&key("operator-4"), digest).to_vec().into();
    assert_reverts::<Staking::SystemAccountUsed, _>(net.staking("operator-4", call(&own)));
    // A network identity that is no key would stop whoever has to make a set of it.
    for identity in [B256::repeat_byte(0xff), little(U256::from(2)), little(U256::ONE)] {
        let mut keys = good.clone();
        keys.consensusKey = identity;
        assert_reverts::<KeyProofs::NotConsensusKey, _>(net.staking("operator-4", call(&keys)));
    }
    // Bond and commission.
    let mut small = call(&good);
    small.bond -= U256::ONE;
    assert_reverts::<Staking::SelfBondTooSmall, _>(net.staking("operator-4", small));
    let mut greedy = call(&good);
    greedy.commissionBps = 10_001;
    assert_reverts::<Staking::InvalidCommission, _>(net.staking("operator-4", greedy));

    net.staking("operator-4", call(&good)).unwrap();
    assert_eq!(net.stake_of("operator-4"), BOND);
    assert_reverts::<Staking::AlreadyRegistered, _>(net.staking("operator-4", call(&good)));
    // Nobody else takes any of these keys, also not with good proofs of its own.
    net.approve("operator-5");
    let theirs = registration("operator-5", "operator-5", 3);
    let stolen = registration("operator-5", "operator-4", 3);
    for keys in [
        ValidatorKeys::KeyRegistration {
            consensusKey: good.consensusKey,
            ..theirs.clone()
        },
        ValidatorKeys::KeyRegistration {
            blsKey: stolen.blsKey,
            possession: stolen.possession,
            ..theirs.clone()
        },
    ] {
        assert_reverts::<Staking::KeyTaken, _>(net.staking("operator-5", call(&keys)));
    }
    let same_system = ValidatorKeys::KeyRegistration {
        system: stolen.system,
        systemSignature: stolen.systemSignature,
        ..theirs.clone()
    };
    assert_reverts::<Staking::SystemAccountUsed, _>(net.staking("operator-5", call(&same_system)));
    net.staking("operator-5", call(&theirs)).unwrap();

    // Seats begin with the next epoch, with the keys as they were registered.
    let system = who("system-of-operator-4");
    assert!(!state::is_system(&net.evm, system).unwrap());
    assert!(staking::key_of_system(&net.evm, system).unwrap().is_some());
    net.next_epoch();
    assert!(state::is_system(&net.evm, system).unwrap());
    let seats = net.seats(4);
    assert_eq!(seats.len(), 6);
    assert_eq!(seats[4], seat("operator-4", "operator-4"));
    assert_eq!(seats::read_set_hash(&net.evm, 4).unwrap(), keccak256(preimage(&seats)));
}

#[test]
fn keys_are_rotated_with_the_next_seat() {
    let mut net = staking_net();
    let call = |keys| Staking::rotateKeysCall { keys };
    assert_reverts::<Staking::NotRegistered, _>(
        net.staking("operator-4", call(registration("operator-4", "operator-4", 0))),
    );
    net.staking("operator-1", call(registration("operator-1", "new", 0)))
        .unwrap();
    assert!(state::is_system(&net.evm, who("system-1")).unwrap());
    assert!(!state::is_system(&net.evm, who("system-of-new")).unwrap());
    net.next_epoch();
    assert!(!state::is_system(&net.evm, who("system-1")).unwrap());
    assert!(state::is_system(&net.evm, who("system-of-new")).unwrap());
    assert!(net.seats(1).contains(&seat("operator-1", "new")));
    // The old keys are taken for ever.
    assert!(staking::key_of_system(&net.evm, who("system-1")).unwrap().is_some());
    assert_eq!(net.seats(0)[1].system, who("system-1"));
}

#[test]
fn only_the_block_s_own_system_account_ends_the_current_epoch() {
    let mut net = staking_net();
    let call = |epoch_| Staking::endEpochCall {
        epoch_,
        report: Vec::new(),
    };
    net.evm.set_coinbase(who("system-1"));
    for account in ["system-0", "operator-1", "anyone"] {
        assert_reverts::<Staking::NotSystemTransaction, _>(net.staking(account, call(0)));
    }
    // Not through a contract either.
    let forwarder = net.deploy("forwarder", &common::TestForwarder::BYTECODE, ());
    let forward = common::TestForwarder::forwardCall {
        target: STAKING,
        data: alloy_sol_types::SolCall::abi_encode(&call(0)).into(),
    };
    assert!(net.evm.call(who("system-1"), forwarder, forward).is_err());
    for epoch in [1, u64::MAX] {
        assert_reverts::<Staking::WrongEpoch, _>(net.staking("system-1", call(epoch)));
    }
    net.staking("system-1", call(0)).unwrap();
    assert_reverts::<Staking::WrongEpoch, _>(net.staking("system-1", call(0)));
    // Reports about strangers are skipped, whatever they say.
    let report = vec![Staking::SeatReport {
        operator: who("anyone"),
        led: u32::MAX,
        missed: u32::MAX,
    }];
    net.staking("system-1", Staking::endEpochCall { epoch_: 1, report })
        .unwrap();
}

#[test]
fn seats_go_to_the_highest_stakes_and_ties_to_the_older_keys() {
    let mut net = staking_net();
    for i in 4..9 {
        net.register(i, 0, BOND).unwrap();
    }
    net.stake("alice", "operator-8", 1).unwrap();
    net.next_epoch();
    let first = [
        "operator-8",
        "operator-0",
        "operator-1",
        "operator-2",
        "operator-3",
        "operator-4",
    ]
    .map(who);
    assert_eq!(net.seated(), first);
    // Who falls below the self-bond has no seat, with however much delegated stake.
    net.stake("alice", "operator-0", 50_000 * OPG_UNIT).unwrap();
    net.unstake("operator-0", "operator-0", 1).unwrap();
    net.next_epoch();
    assert!(!net.seated().contains(&who("operator-0")));
    net.stake("operator-0", "operator-0", 1).unwrap();
    net.next_epoch();
    assert_eq!(net.seated()[0], who("operator-0"));
    // Fewer than four eligible: the set stays as it is.
    let before = net.seated();
    for i in [1, 2, 3, 4, 5, 6, 7] {
        net.staking(&format!("operator-{i}"), Staking::exitCall {}).unwrap();
    }
    let done = net.next_epoch();
    assert!(!done.logs.is_empty());
    assert_eq!(net.seated(), before);
    net.register(9, 0, BOND).unwrap();
    net.register(10, 0, BOND).unwrap();
    net.next_epoch();
    assert_eq!(
        net.seated(),
        ["operator-0", "operator-8", "operator-9", "operator-10"].map(who)
    );
}

#[test]
fn seats_share_what_the_bucket_releases_and_nothing_else() {
    let mut net = staking_net();
    net.stake("alice", "operator-0", 3 * BOND).unwrap();
    for operator in ["operator-0", "operator-1"] {
        let call = Staking::setCommissionCall { commissionBps: 100 };
        net.staking(operator, call).unwrap();
    }
    let supply = net.evm.view(addresses::OPG, OPG::totalSupplyCall {}).unwrap();
    net.next_epoch();
    let part = seat_part(0, FIRST, 4);
    assert!(part > 0);
    let commission = part / 100;
    let pool = part - commission;
    // Alice has three quarters of the pool, rounded down; a wei may be lost to it.
    let (hers, his) = (accrued(pool, 3 * BOND, 4 * BOND), accrued(pool, BOND, 4 * BOND));
    assert!(hers + his <= pool && pool - hers - his <= 2);
    assert_eq!(net.pending("operator-0", "alice"), hers);
    assert_eq!(net.pending("operator-0", "operator-0"), commission + his);
    assert_near(net.pending("operator-1", "operator-1"), part);
    // D16: a seat with four times the stake is paid the same, and no commission leaves nothing to round.
    assert_near(net.pending("operator-2", "operator-2"), part);
    assert_eq!(net.claim_rewards("alice", "operator-0").unwrap(), hers);
    assert_eq!(
        net.claim_rewards("alice", "operator-0").unwrap(),
        0,
        "a second claim pays nothing"
    );
    assert_eq!(net.opg(who("alice")), 100_000 * OPG_UNIT - 3 * BOND + hers);
    assert_eq!(net.evm.view(addresses::OPG, OPG::totalSupplyCall {}).unwrap(), supply);
    net.assert_stake_backed(4);

    // A seat that was down gets nothing, and nobody else gets its part.
    net.tick(EPOCH);
    net.end_epoch_with(&[("operator-1", 0, 10)]);
    assert_near(net.pending("operator-1", "operator-1"), part);
    let second = seat_part(FIRST, FIRST + EPOCH, 4);
    assert_near(net.pending("operator-2", "operator-2"), part + second);
    let left = net.evm.view(addresses::EMISSION, Emission::currentCall {}).unwrap();
    assert!(left >= U256::from(second) && left < U256::from(second + 4));

    // Fees come on top, and what nobody gets of them waits.
    net.approve("alice");
    let fees = 1_000_003u128;
    let call = Staking::fundCall {
        amount: U256::from(fees),
    };
    net.staking("alice", call).unwrap();
    net.end_epoch();
    // Three seats only, so the set stays; the fourth part of the fees stays too.
    assert_near(net.pending("operator-2", "operator-2"), part + second + fees / 4);
    let waiting: u128 = net.evm.view(STAKING, Staking::feesCall {}).unwrap().to();
    assert_eq!(waiting, fees - fees / 4 * 3);
    net.assert_stake_backed(8);
}

#[test]
fn auditors_and_nodes_parts_wait_for_whom_governance_names() {
    let mut net = staking_net();
    net.next_epoch();
    let fresh = released(0, FIRST);
    let emission = addresses::EMISSION;
    let release = |pool: u64| Emission::releaseCall { pool: U256::from(pool) };
    for pool in [0, 1, 2] {
        assert_reverts::<Emission::NoRecipient, _>(net.evm.call(who("anyone"), emission, release(pool)));
    }
    let name = |pool: u64, to| Emission::setRecipientCall {
        pool: U256::from(pool),
        to,
    };
    assert_reverts::<Emission::NotGovernance, _>(net.evm.call(who("alice"), emission, name(0, who("alice"))));
    net.evm.call(timelock(), emission, name(0, who("auditors"))).unwrap();
    net.evm.call(who("anyone"), emission, release(0)).unwrap();
    assert_eq!(net.opg(who("auditors")), fresh / 5);
    net.evm.call(who("anyone"), emission, release(0)).unwrap();
    assert_eq!(net.opg(who("auditors")), fresh / 5, "once");
    assert_reverts::<Emission::NoRecipient, _>(net.evm.call(who("anyone"), emission, release(1)));
    for call in [
        alloy_sol_types::SolCall::abi_encode(&Emission::divideCall {}),
        alloy_sol_types::SolCall::abi_encode(&Emission::drawCall { amount: U256::ONE }),
    ] {
        let refused = net.evm.send(who("alice"), emission, U256::ZERO, call.into());
        assert_reverts::<Emission::NotStaking, _>(refused);
    }
    let parts = |a, n| Emission::setPartsCall {
        auditorsPpm: a,
        nodesPpm: n,
    };
    assert_reverts::<Emission::NotGovernance, _>(net.evm.call(who("alice"), emission, parts(0, 0)));
    assert_reverts::<Emission::OutOfRange, _>(net.evm.call(timelock(), emission, parts(900_000, 100_001)));
    net.evm.call(timelock(), emission, parts(0, 0)).unwrap();
    let before = net.pending("operator-0", "operator-0");
    net.next_epoch();
    let paid = net.pending("operator-0", "operator-0") - before;
    assert!(paid.abs_diff(released(FIRST, FIRST + EPOCH) / 4) <= 1);
    // After the schedule there is nothing more, for ever.
    net.tick(STAKING_REWARDS.duration_months * opg_contracts::supply::MONTH);
    net.end_epoch();
    net.tick(EPOCH);
    let last = net.pending("operator-0", "operator-0");
    net.end_epoch();
    assert_eq!(net.pending("operator-0", "operator-0"), last);
    let claimed: u128 = net
        .evm
        .view(STAKING_REWARDS.address, Vesting::claimedCall {})
        .unwrap()
        .to();
    assert!(claimed <= STAKING_REWARDS.total.0);
    net.assert_stake_backed(20);
}

#[test]
fn commissions_change_by_a_step_once_an_epoch() {
    let mut net = staking_net();
    let set = |bps| Staking::setCommissionCall { commissionBps: bps };
    assert_reverts::<Staking::NotRegistered, _>(net.staking("alice", set(1)));
    assert_reverts::<Staking::InvalidCommission, _>(net.staking("operator-0", set(101)));
    net.staking("operator-0", set(100)).unwrap();
    assert_reverts::<Staking::InvalidCommission, _>(net.staking("operator-0", set(150)));
    net.next_epoch();
    assert_reverts::<Staking::InvalidCommission, _>(net.staking("operator-0", set(201)));
    net.staking("operator-0", set(200)).unwrap();
    net.next_epoch();
    net.staking("operator-0", set(100)).unwrap();
    assert_eq!(net.validator("operator-0").commissionBps, 100);
}

#[test]
fn stake_unbonds_after_its_time_and_is_paid_once() {
    let mut net = staking_net();
    net.approve("alice");
    assert_reverts::<Staking::NoStakeTaken, _>(net.stake("alice", "anyone", 1));
    assert_reverts::<Staking::AmountTooSmall, _>(net.stake("alice", "operator-0", 0));
    net.stake("alice", "operator-0", 1_000).unwrap();
    assert_reverts::<Staking::InsufficientStake, _>(net.unstake("alice", "operator-0", 1_001));
    assert_reverts::<Staking::AmountTooSmall, _>(net.unstake("alice", "operator-0", 0));
    assert_reverts::<Staking::AmountTooSmall, _>(net.unstake("alice", "operator-1", 1));
    let before = net.opg(who("alice"));
    let first = net.unstake("alice", "operator-0", 400).unwrap();
    let second = net.unstake("alice", "operator-0", u128::MAX).unwrap();
    assert_eq!((first, second), (0, 1));
    assert_eq!(net.own_stake("operator-0", "alice"), 0);
    net.tick(UNBONDING - 1);
    assert_reverts::<Staking::NotReady, _>(net.withdraw_stake("alice", 0));
    net.tick(1);
    assert_eq!(net.withdraw_stake("alice", 0).unwrap(), 400);
    assert_reverts::<Staking::NotReady, _>(net.withdraw_stake("alice", 0));
    assert_eq!(net.withdraw_stake("alice", 1).unwrap(), 600);
    assert_eq!(net.opg(who("alice")), before + 1_000);
    net.assert_stake_backed(0);
    // Governance makes it longer for what leaves from then on.
    let mut p = governed(&mut net);
    p.unbonding = alloy_primitives::Uint::<40, 1>::from(2 * UNBONDING);
    net.evm
        .call(timelock(), STAKING, Staking::setParametersCall { parameters_: p })
        .unwrap();
    net.stake("alice", "operator-0", 1_000).unwrap();
    net.unstake("alice", "operator-0", 1_000).unwrap();
    net.tick(UNBONDING);
    assert_reverts::<Staking::NotReady, _>(net.withdraw_stake("alice", 2));
    net.tick(UNBONDING);
    net.withdraw_stake("alice", 2).unwrap();
}

#[test]
fn who_is_down_goes_to_jail_and_comes_back() {
    let mut net = staking_net();
    net.register(4, 0, BOND).unwrap();
    net.next_epoch();
    net.tick(EPOCH);
    // Under four views nobody is judged; at one of twenty nobody is down; below that, one is.
    net.end_epoch_with(&[("operator-0", 0, 3), ("operator-1", 1, 19), ("operator-2", 1, 20)]);
    assert!(net.validator("operator-0").jailedUntil.is_zero());
    assert!(net.validator("operator-1").jailedUntil.is_zero());
    let until = net.validator("operator-2").jailedUntil.to::<u64>();
    assert_eq!(until, net.evm.timestamp() + JAIL);
    assert!(!net.seated().contains(&who("operator-2")));
    assert_eq!(net.seated().len(), 4);
    assert!(!state::is_system(&net.evm, who("system-2")).unwrap());
    let unjail = Staking::unjailCall {};
    assert_reverts::<Staking::CannotUnjail, _>(net.staking("operator-2", unjail.clone()));
    assert_reverts::<Staking::CannotUnjail, _>(net.staking("operator-0", unjail.clone()));
    net.tick(JAIL);
    net.unstake("operator-2", "operator-2", 1).unwrap();
    assert_reverts::<Staking::SelfBondTooSmall, _>(net.staking("operator-2", unjail.clone()));
    net.stake("operator-2", "operator-2", 1).unwrap();
    net.staking("operator-2", unjail).unwrap();
    net.end_epoch();
    assert!(net.seated().contains(&who("operator-2")));
    assert_eq!(net.seated().len(), 5);
}

#[test]
fn votes_are_stake_and_follow_the_delegatee() {
    let mut net = staking_net();
    net.approve("bob");
    let name = |to| Staking::delegateVotesCall { to: who(to) };
    net.stake("alice", "operator-0", 700).unwrap();
    net.stake("alice", "operator-1", 300).unwrap();
    net.stake("bob", "operator-1", 50).unwrap();
    assert_eq!((net.votes("alice"), net.votes("bob")), (1_000, 50));
    assert_reverts::<Staking::VotesNotAccepted, _>(net.staking("alice", name("bob")));
    net.staking("bob", Staking::setAcceptsVotesCall { accepts: true })
        .unwrap();
    let before = net.evm.timestamp();
    net.tick(10);
    net.staking("alice", name("bob")).unwrap();
    assert_eq!((net.votes("alice"), net.votes("bob")), (0, 1_050));
    // Changes of stake go to the delegatee; a change back takes all.
    net.unstake("alice", "operator-0", 200).unwrap();
    net.stake("alice", "operator-2", 5).unwrap();
    assert_eq!((net.votes("alice"), net.votes("bob")), (0, 855));
    net.tick(10);
    net.staking("alice", name("alice")).unwrap();
    assert_eq!((net.votes("alice"), net.votes("bob")), (805, 50));
    let past = |net: &mut Net, account: &str, time: u64| -> u128 {
        let call = Staking::getPastVotesCall {
            account: who(account),
            timepoint: U256::from(time),
        };
        net.evm.view(STAKING, call).unwrap().to()
    };
    assert_eq!(
        (past(&mut net, "alice", before), past(&mut net, "bob", before)),
        (1_000, 50)
    );
    assert_eq!(
        (past(&mut net, "alice", before + 10), past(&mut net, "bob", before + 10)),
        (0, 855)
    );
    let total = Staking::getPastTotalSupplyCall {
        timepoint: U256::from(before),
    };
    assert_eq!(net.evm.view(STAKING, total).unwrap(), U256::from(4 * BOND + 1_050));
    let future = Staking::getPastVotesCall {
        account: who("alice"),
        timepoint: U256::from(net.evm.timestamp()),
    };
    assert_reverts::<Staking::FutureLookup, _>(net.evm.view(STAKING, future));
    assert_eq!(
        net.evm.view(STAKING, Staking::CLOCK_MODECall {}).unwrap(),
        "mode=timestamp"
    );
}

/// Twenty epochs of joins, leaves, delegations, faults and slashes; after each one the books are right.
#[test]
fn twenty_epochs() {
    let mut net = staking_net();
    for account in ["alice", "bob", "carol"] {
        net.approve(account);
    }
    let mut ids = Vec::new();
    let mut cases = Vec::new();
    for epoch in 0..20u64 {
        assert_eq!(net.epoch(), epoch);
        let i = epoch as usize;
        if epoch < 10 {
            net.register(4 + i, 100 * epoch as u16, BOND + u128::from(epoch))
                .unwrap();
        }
        let to = format!("operator-{}", (i * 7) % 10);
        let amount = 1_000 * OPG_UNIT + u128::from(epoch * 977);
        if net.stake("alice", &to, amount).is_ok() {
            ids.push(("alice", to.clone(), net.unstake("alice", &to, amount / 3).unwrap()));
        }
        if epoch == 6 {
            cases.push(net.convict(1, "operator-4", 5, true));
        }
        if epoch == 11 {
            net.staking("operator-5", Staking::exitCall {}).unwrap();
            let id = net.unstake("operator-5", "operator-5", u128::MAX).unwrap();
            ids.push(("operator-5", "operator-5".into(), id));
        }
        net.tick(EPOCH);
        let down: &[(&str, u32, u32)] = if epoch == 13 { &[("operator-0", 0, 9)] } else { &[] };
        net.end_epoch_with(down);
        if epoch == 7 {
            for id in cases.drain(..) {
                net.execute(id).unwrap();
            }
        }
        let seats = net.seats(epoch + 1);
        assert!((4..=6).contains(&seats.len()));
        assert_eq!(
            seats::read_set_hash(&net.evm, epoch + 1).unwrap(),
            keccak256(preimage(&seats))
        );
        for seat in &seats {
            assert!(state::is_system(&net.evm, seat.system).unwrap());
        }
        net.assert_stake_backed(500);
    }
    assert!(net.validator("operator-4").tombstoned);
    assert!(!net.seated().contains(&who("operator-4")) && !net.seated().contains(&who("operator-5")));
    assert!(net.validator("operator-0").jailedUntil.to::<u64>() > START);
    assert_eq!(net.stake_of("operator-5"), net.own_stake("operator-5", "alice"));
    net.tick(UNBONDING);
    for (account, _, id) in ids {
        net.withdraw_stake(account, id).unwrap();
    }
    let unbonding = net.evm.view(STAKING, Staking::totalUnbondingCall {}).unwrap();
    assert!(unbonding < U256::from(20), "all of it is paid");
    // Everybody leaves, and nothing but roundings stays.
    for i in 0..14 {
        let operator = format!("operator-{i}");
        for account in [operator.as_str(), "alice"] {
            net.claim_rewards(account, &operator).unwrap();
            if let Ok(id) = net.unstake(account, &operator, u128::MAX) {
                net.tick(UNBONDING);
                net.withdraw_stake(account, id).unwrap();
            }
        }
    }
    assert_eq!(net.total_stake(), 0);
    assert!(net.opg(STAKING) < 1_000, "{}", net.opg(STAKING));
    net.assert_stake_backed(1_000);
    let total = net.evm.view(addresses::OPG, OPG::totalSupplyCall {}).unwrap();
    let native = 7_000 + 20;
    assert_eq!(
        total.to::<u128>() + net.burned(),
        SUPPLY - native * OPG_UNIT,
        "supply and burned coin are what they were"
    );
}

fn governed(net: &mut Net) -> Staking::Parameters {
    let p = net.evm.view(STAKING, Staking::parametersCall {}).unwrap();
    Staking::Parameters {
        minSelfBond: p.minSelfBond,
        unbonding: p.unbonding,
        jailTime: p.jailTime,
        maxSeats: p.maxSeats,
        commissionStep: p.commissionStep,
        minViews: p.minViews,
        minLedPpm: p.minLedPpm,
    }
}

#[test]
fn parameters_are_governed_and_bounded() {
    let mut net = staking_net();
    let good = governed(&mut net);
    let call = |p: &Staking::Parameters| Staking::setParametersCall { parameters_: p.clone() };
    for account in ["alice", "operator-0", "system-0"] {
        assert_reverts::<Staking::NotGovernance, _>(net.staking(account, call(&good)));
    }
    type Change = fn(&mut Staking::Parameters);
    let changes: [Change; 12] = [
        |p| p.minSelfBond = 0,
        |p| p.minSelfBond = OPG_UNIT - 1,
        |p| p.minSelfBond = 10_000_000 * OPG_UNIT + 1,
        |p| p.unbonding = alloy_primitives::Uint::ZERO,
        |p| p.unbonding = alloy_primitives::Uint::MAX,
        |p| p.jailTime = alloy_primitives::Uint::ZERO,
        |p| p.maxSeats = 3,
        |p| p.maxSeats = 101,
        |p| p.commissionStep = 0,
        |p| p.commissionStep = 10_001,
        |p| p.minViews = 0,
        |p| p.minLedPpm = 900_001,
    ];
    for change in changes {
        let mut bad = good.clone();
        change(&mut bad);
        assert_reverts::<Staking::OutOfRange, _>(net.evm.call(timelock(), STAKING, call(&bad)));
    }
    let mut fewer = good;
    fewer.maxSeats = 4;
    net.register(4, 0, 2 * BOND).unwrap();
    net.evm.call(timelock(), STAKING, call(&fewer)).unwrap();
    net.next_epoch();
    assert_eq!(net.seated().len(), 4);
    assert_eq!(net.seated()[0], who("operator-4"));
}

/// More validators than candidates: the end of an epoch costs the same, and whoever is worth it gets in.
#[test]
fn any_number_of_validators_and_a_bounded_end_of_the_epoch() {
    let mut file = staking_file_with(132);
    file.parameters.staking.as_mut().unwrap().max_seats = 100;
    let mut net = Net::of(&file);
    net.approve_all();
    for i in 4..128 {
        net.register(i, 0, BOND + i as u128).unwrap();
    }
    let count = |net: &mut Net| {
        net.evm
            .view(STAKING, Staking::candidateCountCall {})
            .unwrap()
            .to::<u64>()
    };
    assert_eq!(count(&mut net), 128);
    net.register(128, 0, BOND).unwrap();
    net.register(129, 0, BOND + 1).unwrap();
    assert_eq!(count(&mut net), 128);
    let enter = |operator: &str| Staking::enterCall {
        operator: who(operator),
    };
    // The weakest are the four genesis validators: an equal stake gets nowhere, a larger one does, and nobody gets in twice.
    assert_reverts::<Staking::CannotEnter, _>(net.staking("anyone", enter("operator-128")));
    assert_reverts::<Staking::CannotEnter, _>(net.staking("anyone", enter("operator-127")));
    assert_reverts::<Staking::CannotEnter, _>(net.staking("anyone", enter("alice")));
    net.staking("anyone", enter("operator-129")).unwrap();
    assert_eq!(net.validator("operator-3").candidate, 0, "the youngest of the weakest");
    assert_ne!(net.validator("operator-2").candidate, 0);
    // What it displaced comes back by more stake; griefing costs the griefer what it bonds.
    net.stake("operator-3", "operator-3", 1).unwrap();
    net.staking("anyone", enter("operator-3")).unwrap();
    assert_eq!(net.validator("operator-2").candidate, 0);
    // Who is not eligible is displaced first, however much stake it has.
    net.unstake("operator-127", "operator-127", 1_000).unwrap();
    net.staking("anyone", enter("operator-2")).unwrap();
    assert_eq!(net.validator("operator-127").candidate, 0);
    assert_eq!(count(&mut net), 128);

    net.tick(EPOCH);
    net.end_epoch();
    assert_eq!(net.seats(1).len(), 100);
    // The worst case: a full new set next to the old one, rewards for all, some down.
    for i in 4..60 {
        net.stake(&format!("operator-{i}"), &format!("operator-{i}"), 500 + i as u128)
            .unwrap();
    }
    net.tick(EPOCH);
    let seats = net.seats(1);
    let report: Vec<_> = seats
        .iter()
        .enumerate()
        .map(|(i, seat)| SeatReport {
            operator: seat.operator,
            led: if i % 10 == 0 { 0 } else { 10 },
            missed: 10,
        })
        .collect();
    let data = seats::end_epoch_calldata(1, &report);
    let done = net.system(STAKING, data, staking::END_EPOCH_GAS).unwrap();
    println!(
        "end of an epoch with 100 seats of 128 candidates: {} gas",
        done.gas_used
    );
    common::figure(
        "end of an epoch: 100 seats of 128 candidates, ten down",
        done.gas_used,
        Some(staking::END_EPOCH_GAS),
    );
    assert!(done.gas_used < staking::END_EPOCH_GAS * 3 / 4, "{}", done.gas_used);
    let rewarded = done.logs.iter().filter(|log| log.address == STAKING).count();
    assert!(rewarded >= 90);
}

// ------------------------------------------------------------------------------------------------------------- attacks

/// A token that calls back in the middle of a transfer gains its caller nothing: the books are right before money moves.
#[test]
fn reentrancy_finds_books_that_are_right() {
    use common::x402::TestToken;
    let mut evm = Evm::new(CHAIN_ID, START);
    let token = who("token");
    evm.construct(token, TestToken::BYTECODE.clone()).unwrap();
    let staking = who("staking");
    let emission = who("emission");
    let arguments = Emission::constructorCall {
        bucket_: Address::ZERO,
        staking_: staking,
        governance_: timelock(),
        auditorsPpm: 0,
        nodesPpm: 0,
    };
    let code = [
        Emission::BYTECODE.as_ref(),
        &alloy_sol_types::SolConstructor::abi_encode(&arguments),
    ];
    evm.construct(emission, code.concat().into()).unwrap();
    let attacker = who("attacker");
    evm.construct(attacker, common::TestForwarder::BYTECODE.clone())
        .unwrap();
    let mint = |to, amount: u128| TestToken::mintCall {
        to,
        amount: U256::from(amount),
    };
    let genesis: Vec<_> = (0..4)
        .map(|i| Staking::GenesisSeat {
            seat: seat(&format!("operator-{i}"), &format!("operator-{i}")),
            bond: BOND,
        })
        .collect();
    for validator in &genesis {
        let operator = validator.seat.operator;
        evm.call(who("x"), token, mint(operator, BOND)).unwrap();
        let approve = TestToken::approveCall {
            spender: staking,
            amount: U256::MAX,
        };
        evm.call(operator, token, approve).unwrap();
    }
    let mut net = staking_net();
    let arguments = Staking::constructorCall {
        opg_: token,
        keyProofs_: addresses::KEY_PROOFS,
        governance_: timelock(),
        slashing_: who("slashing"),
        emission_: emission,
        parameters_: governed(&mut net),
        genesis,
    };
    let code = [
        Staking::BYTECODE.as_ref(),
        &alloy_sol_types::SolConstructor::abi_encode(&arguments),
    ];
    evm.construct(staking, code.concat().into()).unwrap();

    // The token itself is the account that calls back, so it is a staker too.
    let forward = |target: Address, data: Vec<u8>| TestToken::forwardCall {
        target,
        data: data.into(),
    };
    fn data<C: alloy_sol_types::SolCall>(call: C) -> Vec<u8> {
        call.abi_encode()
    }
    let operator = who("operator-0");
    evm.call(who("x"), token, mint(token, 1_000)).unwrap();
    let approve = TestToken::approveCall {
        spender: staking,
        amount: U256::MAX,
    };
    evm.call(who("x"), token, forward(token, data(approve))).unwrap();
    let stake = Staking::stakeCall {
        operator,
        amount: U256::from(1_000),
    };
    evm.call(who("x"), token, forward(staking, data(stake))).unwrap();
    let unstake = Staking::unstakeCall {
        operator,
        amount: U256::from(600),
    };
    evm.call(who("x"), token, forward(staking, data(unstake))).unwrap();
    evm.set_timestamp(START + UNBONDING);
    // Withdraws, and again from inside the transfer.
    let withdraw = Staking::withdrawCall {
        account: token,
        id: U256::ZERO,
    };
    let set = TestToken::setCall {
        fee_: U256::ZERO,
        lies_: false,
        target_: staking,
        data_: data(withdraw.clone()).into(),
    };
    evm.call(who("x"), token, set).unwrap();
    evm.call(who("x"), token, forward(staking, data(withdraw))).unwrap();
    assert!(
        !evm.view(token, TestToken::enteredCall {}).unwrap(),
        "the second one reverted"
    );
    let balance = |evm: &mut Evm, account| -> u128 {
        let call = TestToken::balanceOfCall(account);
        evm.view(token, call).unwrap().to()
    };
    assert_eq!(balance(&mut evm, token), 600);
    assert_eq!(balance(&mut evm, staking), 4 * BOND + 400);
    // Unstakes everything from inside a stake: the stake counts already, and is all that unbonds.
    let set = TestToken::setCall {
        fee_: U256::ZERO,
        lies_: false,
        target_: staking,
        data_: data(Staking::unstakeCall {
            operator,
            amount: U256::MAX,
        })
        .into(),
    };
    evm.call(who("x"), token, set).unwrap();
    let stake = Staking::stakeCall {
        operator,
        amount: U256::from(500),
    };
    evm.call(who("x"), token, forward(staking, data(stake))).unwrap();
    assert!(evm.view(token, TestToken::enteredCall {}).unwrap());
    let unbonding: u128 = evm.view(staking, Staking::totalUnbondingCall {}).unwrap().to();
    let total: u128 = evm.view(staking, Staking::totalStakeCall {}).unwrap().to();
    assert_eq!((unbonding, total), (900, 4 * BOND));
    assert_eq!(balance(&mut evm, staking), 4 * BOND + 900);
    // A token that says no stops everything.
    let set = TestToken::setCall {
        fee_: U256::ZERO,
        lies_: true,
        target_: Address::ZERO,
        data_: Bytes::new(),
    };
    evm.call(who("x"), token, set).unwrap();
    let stake = Staking::stakeCall {
        operator,
        amount: U256::ONE,
    };
    let refused = evm.call(who("x"), token, forward(staking, data(stake)));
    assert_reverts::<Staking::TransferFailed, _>(refused);
}

/// Stakes and unstakes of awkward amounts in a pool whose shares are worth less than a wei each.
#[test]
fn roundings_never_pay_more_than_was_put_in() {
    let mut net = staking_net();
    net.approve("alice");
    let id = net.convict(1, "operator-0", 0, true);
    net.tick(APPEAL_OVER);
    net.execute(id).unwrap();
    // Tombstoned pools take nothing more.
    assert_reverts::<Staking::NoStakeTaken, _>(net.stake("alice", "operator-0", 1));
    // A pool that was slashed for being down still does.
    for _ in 0..5 {
        net.tick(EPOCH);
        net.end_epoch_with(&[("operator-1", 0, 10)]);
        let report = opg_contracts::Slashing::reportDowntimeCall {
            operator: who("operator-1"),
        };
        let id = net.slashing("anyone", report).unwrap();
        net.tick(JAIL);
        net.execute(id.to()).unwrap();
    }
    let before = net.opg(who("alice"));
    let staking_before = net.opg(STAKING);
    let mut put = 0;
    for amount in [1u128, 2, 3, 7, 10, 99, 1_000_003] {
        net.stake("alice", "operator-1", amount).unwrap();
        put += amount;
        assert!(net.own_stake("operator-1", "alice") <= put);
    }
    let own = net.own_stake("operator-1", "alice");
    for part in [1u128, 1, 5, 13, own / 2] {
        net.unstake("alice", "operator-1", part).unwrap();
    }
    net.unstake("alice", "operator-1", u128::MAX).unwrap();
    net.tick(UNBONDING);
    for id in 0..6 {
        net.withdraw_stake("alice", id).unwrap();
    }
    let after = net.opg(who("alice"));
    assert!(after <= before && before - after <= 20, "{before} {after}");
    assert!(net.opg(STAKING) >= staking_before);
    net.assert_stake_backed(60);
}
const APPEAL_OVER: u64 = common::staking::APPEAL;

/// Votes of one block, and stake that is gone before its time: neither counts for anything.
#[test]
fn borrowed_stake_has_no_votes_and_cannot_leave() {
    let mut net = staking_net();
    net.approve("alice");
    net.tick(100);
    let now = net.evm.timestamp();
    net.stake("alice", "operator-0", 90_000 * OPG_UNIT).unwrap();
    assert_eq!(net.votes("alice"), 90_000 * OPG_UNIT);
    let id = net.unstake("alice", "operator-0", u128::MAX).unwrap();
    assert_reverts::<Staking::NotReady, _>(net.withdraw_stake("alice", id));
    net.tick(1);
    let call = Staking::getPastVotesCall {
        account: who("alice"),
        timepoint: U256::from(now),
    };
    assert_eq!(net.evm.view(STAKING, call).unwrap(), U256::ZERO);
    let total = Staking::getPastTotalSupplyCall {
        timepoint: U256::from(now),
    };
    assert_eq!(net.evm.view(STAKING, total).unwrap(), U256::from(4 * BOND));
}

/// Dust behind many validators does not lock anybody out of its own votes or stake.
#[test]
fn dust_of_strangers_fills_nobody_s_lists() {
    let mut net = staking_net();
    for i in 4..OPERATORS {
        net.register(i, 0, BOND).unwrap();
    }
    net.approve("bob");
    for i in 0..OPERATORS {
        net.stake("bob", &format!("operator-{i}"), 1).unwrap();
    }
    // Alice takes no votes of others, so Bob's dust cannot become hers.
    let name = Staking::delegateVotesCall { to: who("alice") };
    assert_reverts::<Staking::VotesNotAccepted, _>(net.staking("bob", name));
    assert_eq!(net.votes("bob"), OPERATORS as u128);
    assert_eq!(net.votes("alice"), 0);
}

/// The limit on positions of one account.
#[test]
fn an_account_stakes_behind_a_bounded_number_of_validators() {
    let file = staking_file_with(36);
    let mut net = Net::of(&file);
    net.approve_all();
    for i in 4..34 {
        net.register(i, 0, BOND).unwrap();
    }
    net.approve("bob");
    for i in 0..32 {
        net.stake("bob", &format!("operator-{i}"), 1).unwrap();
    }
    assert_reverts::<Staking::TooManyValidators, _>(net.stake("bob", "operator-32", 1));
    net.unstake("bob", "operator-7", u128::MAX).unwrap();
    net.stake("bob", "operator-32", 1).unwrap();
    let list = Staking::positionsOfCall { account: who("bob") };
    let list = net.evm.view(STAKING, list).unwrap();
    assert_eq!(list.len(), 32);
    assert!(!list.contains(&who("operator-7")) && list.contains(&who("operator-32")));
    assert_eq!(net.votes("bob"), 32);
}

#[test]
fn hashes_of_sets_are_of_the_abi() {
    let seats = staking::genesis_seats(&staking_file());
    let word = |n: u64| B256::from(U256::from(n).to_be_bytes::<32>());
    let bytes = preimage(&seats);
    assert_eq!(bytes[..32], word(32)[..]);
    assert_eq!(bytes[32..64], word(4)[..]);
    let slot = keccak256([word(0), word(0)].concat());
    assert_eq!(seats::set_hash_slot(0), (STAKING, U256::from_be_bytes(slot.0)));
}

/// What the contract takes for an Ed25519 key, the library of consensus decodes; and the other way round, but for the points with x = 0
/// and numbers that are not reduced.
#[test]
fn consensus_keys_are_those_that_consensus_decodes() {
    use commonware_codec::DecodeExt as _;
    let mut net = staking_net();
    let mut is_key = |key: B256| {
        let call = KeyProofs::isConsensusKeyCall { key };
        net.evm.view(addresses::KEY_PROOFS, call).unwrap()
    };
    let decodes = |key: B256| {
        commonware_cryptography::ed25519::PublicKey::decode(commonware_codec::Copying(key.as_slice())).is_ok()
    };
    let (mut good, mut bad) = (0, 0);
    for i in 0u64..400 {
        let key = keccak256(i.to_be_bytes());
        assert_eq!(is_key(key), decodes(key), "{key}");
        if decodes(key) {
            good += 1;
        } else {
            bad += 1;
        }
        assert!(is_key(common::staking::identity(&i.to_string())));
    }
    assert!(good > 150 && bad > 150, "{good} {bad}");
    // y = 1 and y = -1 (x = 0), and y + p
    let p = U256::MAX / U256::from(2) - U256::from(18);
    for y in [U256::ONE, p - U256::ONE, p, p + U256::ONE, p + U256::from(3)] {
        assert!(!is_key(little(y)), "{y}");
    }
}

/// Those who may follow before they have a seat.
#[test]
fn identities_of_candidates_are_read_from_state() {
    let mut net = staking_net();
    let known = staking::candidate_identities(&net.evm).unwrap();
    let genesis: Vec<_> = staking_file().validators.iter().map(|v| v.identity).collect();
    assert_eq!(known, genesis);
    net.register(4, 0, BOND).unwrap();
    let five = staking::candidate_identities(&net.evm).unwrap();
    assert_eq!(
        five,
        [&genesis[..], &[common::staking::identity("operator-4")]].concat()
    );
    // other keys from the next seat on, and nobody who has left
    let keys = registration("operator-4", "other", 0);
    net.staking("operator-4", Staking::rotateKeysCall { keys }).unwrap();
    net.staking("operator-1", Staking::exitCall {}).unwrap();
    let mut after = staking::candidate_identities(&net.evm).unwrap();
    after.sort_unstable();
    let mut expected = vec![genesis[0], genesis[2], genesis[3], common::staking::identity("other")];
    expected.sort_unstable();
    assert_eq!(after, expected);
}
