//! The supply's buckets as contracts: what their schedules release, who can claim it, and the airdrop.
#![allow(missing_docs)]

mod common;

use alloy_primitives::{Address, B256, U256};
use common::{START, assert_reverts, file, who};
use opg_contracts::{
    AccountAllocation, Airdrop, AirdropAllocation, AirdropList, GenesisFile, OPG, Vesting, addresses,
    genesis_file::SUPPLY,
    supply::{AIRDROP, BUCKETS, ECOSYSTEM, MONTH, STAKING_REWARDS},
};
use opg_genesis::evm::Evm;
use opg_primitives::money::{Amount, WEI_PER_OPG};

const MILLION: u128 = 1_000_000 * WEI_PER_OPG;

fn list() -> AirdropList {
    let rest = AIRDROP.total.saturating_sub(Amount(3 * WEI_PER_OPG));
    AirdropList::new([
        (who("alice"), Amount(WEI_PER_OPG)),
        (who("bob"), Amount(2 * WEI_PER_OPG)),
        (who("carol"), rest),
    ])
    .unwrap()
}

/// The buckets of the reference; what the other accounts of the file have comes out of the Ecosystem's.
fn buckets() -> GenesisFile {
    let mut file = file();
    let label = |a: &AccountAllocation| BUCKETS.iter().any(|b| b.label == a.label);
    file.allocations
        .retain(|a| !label(a) && a.native.0 + a.wrapped.0 < 10 * MILLION);
    let spent: u128 = file.allocations.iter().map(|a| a.native.0 + a.wrapped.0).sum();
    for bucket in &BUCKETS {
        let spent = Amount(if *bucket == ECOSYSTEM { spent } else { 0 });
        file.allocations.push(AccountAllocation {
            label: bucket.label.into(),
            address: bucket.address,
            native: Amount::ZERO,
            wrapped: bucket.total.saturating_sub(spent),
        });
        if *bucket != AIRDROP {
            let beneficiary = if *bucket == STAKING_REWARDS {
                addresses::EMISSION
            } else {
                who("foundation")
            };
            file.vesting.push(bucket.schedule(beneficiary, START, spent));
        }
    }
    file.airdrop = Some(AirdropAllocation {
        address: AIRDROP.address,
        root: list().root(),
    });
    file
}

fn evm() -> Evm {
    Evm::with_genesis(&opg_genesis::build(&buckets()).unwrap())
}

fn opg(evm: &mut Evm, account: Address) -> U256 {
    evm.view(addresses::OPG, OPG::balanceOfCall { account }).unwrap()
}

/// The contracts release what the table of the reference says, to the wei, and hold all of it from block 0.
#[test]
fn contracts_follow_the_reference_table() {
    let (file, mut evm) = (buckets(), evm());
    let spent: u128 = SUPPLY
        - BUCKETS
            .iter()
            .map(|b| u128::try_from(opg(&mut evm, b.address)).unwrap())
            .sum::<u128>();
    for (month, thousands) in [
        (0, 190_000),
        (1, 199_125),
        (6, 244_750),
        (12, 299_500),
        (13, 315_569),
        (24, 492_333),
        (48, 878_000),
        (60, 962_500),
        (96, 1_000_000),
    ] {
        let time = START + month * MONTH;
        let mut circulating = spent + AIRDROP.total.0;
        for schedule in &file.vesting {
            let total = Amount(u128::try_from(opg(&mut evm, schedule.address)).unwrap());
            let call = Vesting::releasedCall { time: U256::from(time) };
            let released = evm.view(schedule.address, call).unwrap();
            assert_eq!(released, schedule.released(total, time).to_u256(), "month {month}");
            circulating += u128::try_from(released).unwrap();
        }
        assert_eq!(
            (circulating + MILLION / 2_000) / (MILLION / 1_000),
            thousands,
            "month {month}"
        );
    }
    for schedule in &file.vesting {
        let at = schedule.address;
        let read = (
            evm.view(at, Vesting::beneficiaryCall {}).unwrap(),
            evm.view(at, Vesting::atStartCall {}).unwrap(),
            evm.view(at, Vesting::startCall {}).unwrap().to::<u64>(),
            evm.view(at, Vesting::cliffCall {}).unwrap().to::<u64>(),
            evm.view(at, Vesting::durationCall {}).unwrap().to::<u64>(),
        );
        let written = (
            schedule.beneficiary,
            schedule.at_start.to_u256(),
            schedule.start,
            schedule.cliff,
            schedule.duration,
        );
        assert_eq!(read, written);
        // What is locked has no votes, and nobody to delegate them.
        let votes = evm.view(addresses::OPG, OPG::getVotesCall { account: at }).unwrap();
        assert_eq!(votes, U256::ZERO);
    }
}

#[test]
fn only_what_is_released_can_be_claimed_and_only_by_the_beneficiary() {
    let mut evm = evm();
    let team = BUCKETS[2].address;
    let claim = |amount: u128| Vesting::claimCall {
        to: who("team"),
        amount: U256::from(amount),
    };
    assert_reverts::<Vesting::NotBeneficiary, _>(evm.call(who("alice"), team, claim(0)));
    // Nothing before the cliff; a month after it the first thirty-sixth.
    evm.set_timestamp(START + 12 * MONTH);
    assert_reverts::<Vesting::NotReleased, _>(evm.call(who("foundation"), team, claim(1)));
    evm.set_timestamp(START + 13 * MONTH);
    let month = 150 * MILLION / 36;
    assert_reverts::<Vesting::NotReleased, _>(evm.call(who("foundation"), team, claim(month + 1)));
    evm.call(who("foundation"), team, claim(month)).unwrap();
    assert_eq!(opg(&mut evm, who("team")), U256::from(month));
    assert_reverts::<Vesting::NotReleased, _>(evm.call(who("foundation"), team, claim(1)));
    for nowhere in [Address::ZERO, team] {
        let call = Vesting::claimCall {
            to: nowhere,
            amount: U256::ZERO,
        };
        assert_reverts::<Vesting::InvalidReceiver, _>(evm.call(who("foundation"), team, call));
    }

    // A successor must accept; until then nothing changes, and an offer can be withdrawn.
    let propose = |successor| Vesting::proposeBeneficiaryCall { successor };
    let accept = Vesting::acceptBeneficiaryCall {};
    assert_reverts::<Vesting::NotBeneficiary, _>(evm.call(who("alice"), team, propose(who("alice"))));
    evm.call(who("foundation"), team, propose(who("alice"))).unwrap();
    evm.call(who("foundation"), team, propose(who("bob"))).unwrap();
    assert_reverts::<Vesting::NotSuccessor, _>(evm.call(who("alice"), team, accept.clone()));
    evm.set_timestamp(START + 48 * MONTH);
    evm.call(who("foundation"), team, claim(1)).unwrap();
    evm.call(who("bob"), team, accept.clone()).unwrap();
    assert_reverts::<Vesting::NotSuccessor, _>(evm.call(who("bob"), team, accept));
    assert_reverts::<Vesting::NotBeneficiary, _>(evm.call(who("foundation"), team, claim(1)));
    evm.call(who("bob"), team, claim(150 * MILLION - month - 1)).unwrap();
    assert_eq!(opg(&mut evm, team), U256::ZERO);
    evm.set_timestamp(START + 500 * MONTH);
    assert_reverts::<Vesting::NotReleased, _>(evm.call(who("bob"), team, claim(1)));
    let wrapped = evm.view(addresses::OPG, OPG::totalSupplyCall {}).unwrap();
    assert!(wrapped <= U256::from(SUPPLY));
}

#[test]
fn the_airdrop_pays_each_account_of_the_list_once() {
    let mut evm = evm();
    let at = AIRDROP.address;
    let claim = |account: Address, amount: Amount, proof: Vec<B256>| Airdrop::claimCall {
        account,
        amount: amount.to_u256(),
        proof,
    };
    let (amount, proof) = list().claim(who("alice")).unwrap();
    let more = amount.saturating_add(Amount(1));
    assert_reverts::<Airdrop::NotInList, _>(evm.call(who("alice"), at, claim(who("alice"), more, proof.clone())));
    assert_reverts::<Airdrop::NotInList, _>(evm.call(who("alice"), at, claim(who("mallory"), amount, proof.clone())));
    assert_reverts::<Airdrop::NotInList, _>(evm.call(who("alice"), at, claim(who("alice"), amount, vec![])));
    // Anyone may send it, and the account of the list gets it.
    let before = opg(&mut evm, who("alice"));
    evm.call(who("bob"), at, claim(who("alice"), amount, proof.clone()))
        .unwrap();
    assert_eq!(opg(&mut evm, who("alice")), before + amount.to_u256());
    assert_reverts::<Airdrop::AlreadyClaimed, _>(evm.call(who("alice"), at, claim(who("alice"), amount, proof)));
    for account in ["bob", "carol"] {
        let (amount, proof) = list().claim(who(account)).unwrap();
        evm.call(who(account), at, claim(who(account), amount, proof)).unwrap();
    }
    assert_eq!(opg(&mut evm, at), U256::ZERO);
    assert_eq!(evm.view(at, Airdrop::claimedCall {}).unwrap(), AIRDROP.total.to_u256());
}

/// What the contracts could not honour is refused in the file.
#[test]
fn bad_schedules_are_refused() {
    type Change = fn(&mut GenesisFile);
    let changes: [(&str, Change); 10] = [
        // a bucket's address without its contract would lock what is allocated to it
        ("allocations", |f| {
            f.vesting.remove(0);
        }),
        ("vesting[6].address", |f| f.vesting.push(f.vesting[0].clone())),
        ("vesting[6].address", |f| {
            let mut other = f.vesting[0].clone();
            other.address = Address::repeat_byte(0x99);
            f.vesting.push(other);
        }),
        ("vesting[0].at_start", |f| f.vesting[0].at_start = Amount(400 * MILLION)),
        ("vesting[0].duration", |f| f.vesting[0].duration = 0),
        ("vesting[0].beneficiary", |f| f.vesting[0].beneficiary = addresses::OPG),
        ("vesting", |f| f.vesting[0].beneficiary = f.vesting[1].address),
        ("vesting[3].beneficiary", |f| {
            f.vesting[3].beneficiary = addresses::EMISSION
        }),
        ("vesting[0].start", |f| f.vesting[0].start = 1 << 40),
        ("airdrop.root", |f| f.airdrop.as_mut().unwrap().root = B256::ZERO),
    ];
    buckets().validate().unwrap();
    for (field, change) in changes {
        let mut file = buckets();
        change(&mut file);
        let error = file.validate().unwrap_err().to_string();
        assert!(error.contains(field), "{field}: {error}");
    }
}
