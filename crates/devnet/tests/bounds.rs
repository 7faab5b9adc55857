//! The ranges that drafts of proposals are checked by are those of the contracts: both sides of every bound, against the bytecode of a local
//! network's own genesis. Without the governor's own settings, which it takes from itself alone.

use alloy_primitives::{Address, Bytes, U256};
use opg_client::{Call, Network};
use opg_contracts::addresses::{
    CHAIN_PARAMETERS, EMISSION, EVIDENCE_REGISTRY, FEATURE_TIERS, PRICE_ORACLE, RECEIPT_LEDGER, SLASHING, STAKING,
    TIMELOCK, TREASURY,
};
use opg_devnet::Devnet;
use opg_primitives::money::Amount;

const HEIGHT: u64 = 1_000;
const WINDOWS: &str = "setWindows(uint40[4])";
const WEIGHTS: &str = "setWeights(uint16[4])";
const CLOSED_WEIGHTS: &str = "setClosedWeights(uint8[4])";
const SCHEDULE: &str = "schedule(uint64,uint64,uint64)";
const STAKE: &str = "setParameters((uint128,uint40,uint40,uint16,uint16,uint32,uint32))";
const SLASH: &str = "setParameters((uint128,uint40,uint32,uint32,uint8))";
const TIERS: &str = "setTiers((uint128,uint16,uint32,uint32)[])";
const OPG: u128 = 1_000_000_000_000_000_000;

/// Target, function, arguments.
fn cases() -> Vec<(Address, &'static str, Vec<String>)> {
    let mut cases = Vec::new();
    let mut add = |target, signature, arguments: &[&str]| {
        cases.push((
            target,
            signature,
            arguments.iter().map(|text| (*text).to_owned()).collect(),
        ));
    };
    for windows in [
        "[0,0,0,1209599]",
        "[0,1209600,0,0]",
        "[0,0,0,0]",
        "[7776000,7776000,7776000,7776000]",
        "[7776001,0,0,0]",
        "[0,0,0,7776001]",
    ] {
        add(RECEIPT_LEDGER, WINDOWS, &[windows]);
    }
    for weights in [
        "[0,0,0,0]",
        "[1,0,0,0]",
        "[0,1,0,0]",
        "[60,20,20,0]",
        "[59,20,20,1]",
        "[60,20,10,10]",
        "[60,21,19,0]",
        "[60,0,21,19]",
        "[60,0,19,21]",
        "[10000,0,0,0]",
        "[10001,0,0,0]",
        "[6000,2000,2000,0]",
        "[80,5,3,2]",
    ] {
        add(RECEIPT_LEDGER, WEIGHTS, &[weights]);
    }
    for weights in [
        "[204,1,1,2]",
        "[90,5,5,0]",
        "[255,0,0,0]",
        "[0,0,0,0]",
        "[89,4,4,3]",
        "[90,6,2,2]",
        "[90,2,6,2]",
        "[90,2,2,6]",
    ] {
        add(RECEIPT_LEDGER, CLOSED_WEIGHTS, &[weights]);
    }
    let (soon, late) = ((HEIGHT + 10).to_string(), (HEIGHT + 10_000_000).to_string());
    let (early, never) = ((HEIGHT + 9).to_string(), (HEIGHT + 10_000_001).to_string());
    for [gas, budget, at] in [
        ["120000000", "1000", &soon],
        ["1000000000", "1000000000", &late],
        ["119999999", "1000", &soon],
        ["1000000001", "1000", &soon],
        ["120000000", "999", &soon],
        ["120000000", "1000000001", &soon],
        ["120000000", "1000", &early],
        ["120000000", "1000", &never],
    ] {
        add(CHAIN_PARAMETERS, SCHEDULE, &[gas, budget, at]);
    }
    for [feeds, age] in [
        ["3", "60"],
        ["100", "14400"],
        ["2", "60"],
        ["101", "60"],
        ["3", "59"],
        ["3", "14401"],
    ] {
        add(PRICE_ORACLE, "setLimits(uint8,uint32)", &[feeds, age]);
    }
    for [auditors, nodes] in [["0", "0"], ["400000", "600000"], ["400001", "600000"], ["0", "1000001"]] {
        add(EMISSION, "setParts(uint32,uint32)", &[auditors, nodes]);
    }
    let year = 365 * 86_400;
    let stake = |i: usize, value: u128| {
        let mut values = [OPG, 60, 60, 10, 100, 10, 50_000];
        values[i] = value;
        format!("({})", values.map(|value| value.to_string()).join(","))
    };
    for (i, least, most) in [
        (0, OPG, 10_000_000 * OPG),
        (1, 1, year),
        (2, 1, year),
        (3, 4, 100),
        (4, 1, 10_000),
        (5, 1, u128::from(u32::MAX)),
        (6, 0, 900_000),
    ] {
        for value in [least.checked_sub(1), Some(least), Some(most), Some(most + 1)] {
            if let Some(value) = value.filter(|value| i != 5 || *value <= u128::from(u32::MAX)) {
                add(STAKING, STAKE, &[&stake(i, value)]);
            }
        }
    }
    let slash = |i: usize, value: u128| {
        let mut values = [OPG, 60, 50_000, 100, 3];
        values[i] = value;
        format!("({})", values.map(|value| value.to_string()).join(","))
    };
    for (i, least, most) in [
        (0, 1, 1_000_000 * OPG),
        (1, 1, 30 * 86_400),
        (2, 1, 1_000_000),
        (3, 1, 100_000),
        (4, 1, 100),
    ] {
        for value in [least - 1, least, most, most + 1] {
            add(SLASHING, SLASH, &[&slash(i, value)]);
        }
    }
    let nine = format!(
        "[{}]",
        (0..9).map(|i| format!("({i},0,1,1)")).collect::<Vec<_>>().join(",")
    );
    for tiers in [
        "[]",
        "[(0,0,1,1)]",
        "[(1,0,1,1)]",
        "[(0,5000,1,1)]",
        "[(0,5001,1,1)]",
        "[(0,0,0,1)]",
        "[(0,0,1,0)]",
        "[(0,1,2,2),(5,1,2,2)]",
        "[(0,1,2,2),(0,1,2,2)]",
        "[(0,1,2,2),(5,0,2,2)]",
        "[(0,1,2,2),(5,1,1,2)]",
        "[(0,1,2,2),(5,1,2,1)]",
        &nine,
    ] {
        add(FEATURE_TIERS, TIERS, &[tiers]);
    }
    let (zero, some) = (
        "0x0000000000000000000000000000000000000000",
        "0x0707070707070707070707070707070707070707",
    );
    for to in [zero, some] {
        add(TREASURY, "spendNative(address,uint256)", &[to, "0"]);
        let token = opg_contracts::addresses::OPG.to_string();
        add(TREASURY, "spend(address,address,uint256)", &[&token, to, "0"]);
    }
    let long = |bytes: usize| format!("0x{}", "20".repeat(bytes));
    for policy in ["0x".to_owned(), long(1), long(16_384), long(16_385)] {
        add(EVIDENCE_REGISTRY, "setPolicy(bytes)", &[&policy]);
    }
    for subject in ["00", "07"] {
        add(
            EVIDENCE_REGISTRY,
            "revoke(bytes32)",
            &[&format!("0x{}", subject.repeat(32))],
        );
    }
    cases
}

#[test]
fn a_draft_is_refused_exactly_where_the_contract_refuses() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("net");
    Devnet::split(&dir, None, None, None).unwrap();
    let genesis = Network::load(&dir).unwrap().genesis;
    let mut evm = opg_genesis::genesis_evm(&genesis).unwrap();
    evm.set_number(HEIGHT);
    // Accounts with code send no transactions (EIP-3607).
    evm.set_code(TIMELOCK, Bytes::new());
    let (mut taken, mut refused) = (0, 0);
    for (target, signature, arguments) in cases() {
        let what = format!(
            "{target} {signature} {}",
            arguments.join(" ").get(..100).unwrap_or(&arguments.join(" "))
        );
        let call = match Call::by_signature(target, Amount::ZERO, signature, &arguments) {
            Ok(call) => call,
            Err(error) => panic!("{what}: {error}"),
        };
        let drafted = call.check_bounds(HEIGHT, genesis.parameters.unbonding);
        let executed = evm.send(TIMELOCK, target, U256::ZERO, call.calldata.clone());
        assert_eq!(drafted.is_ok(), executed.is_ok(), "{what}: {drafted:?} {executed:?}");
        if executed.is_ok() {
            taken += 1;
            assert!(
                !call.describe().contains("does not know"),
                "{what}: {}",
                call.describe()
            );
        } else {
            refused += 1;
        }
    }
    assert!(taken > 30 && refused > 40, "{taken} {refused}");
}
