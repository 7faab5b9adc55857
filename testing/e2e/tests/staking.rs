//! Stake on a local network, by the command line: validators listed, OPG locked behind one of them and on its way back. The account's money
//! is counted to the wei.

use opg_e2e::{Network, opg};
use serde_json::Value;
use std::{
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

const OPG: u128 = 1_000_000_000_000_000_000;

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8 path")
}

fn wei(value: &Value) -> u128 {
    value
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("not an amount: {value}"))
}

#[test]
fn stake_goes_behind_a_validator_and_unbonds() {
    let network = Network::start();
    let (home, dir) = (network.home(), network.dir());
    // The demo wallet of the network.
    let run = |arguments: &[&str]| opg(home, &[arguments, &["--dir", text(&dir), "--json"]].concat());
    let ok = |arguments: &[&str]| run(arguments).expect_code(0).json();
    let opg_balance = || wei(&ok(&["wallet", "balance"])["opg"]);
    let account = ok(&["wallet", "show"])["address"].as_str().expect("address").to_owned();

    // four validators with seats, each with its own bond
    let before = ok(&["validators"]);
    let validators = before["validators"].as_array().expect("validators");
    assert_eq!(validators.len(), 4, "{before}");
    let bond = wei(&before["min_self_bond"]);
    assert!(bond > 0);
    for validator in validators {
        assert_eq!(validator["seated"], true, "{validator}");
        assert_eq!(validator["eligible"], true, "{validator}");
        assert_eq!(wei(&validator["stake"]), wei(&validator["self_stake"]));
        assert!(wei(&validator["stake"]) >= bond, "{validator}");
    }
    let total = wei(&before["total_stake"]);
    assert_eq!(total, validators.iter().map(|v| wei(&v["stake"])).sum::<u128>());
    let unbonding = before["unbonding_seconds"].as_u64().expect("seconds");
    let chosen = validators[1]["operator"].as_str().expect("operator").to_owned();
    let start = opg_balance();

    // nothing is locked by a dry run, behind nobody, by somebody who is no validator, or with too little money
    let dry = run(&["delegate", &chosen, "100", "--dry-run"]).expect_code(0);
    assert_eq!(dry.json()["dry_run"], true);
    for refused in [
        &["delegate", "0x000000000000000000000000000000000000dEaD", "1"][..],
        &["delegate", &chosen, "0"],
        &["stake", "1"],
        &["unstake", &chosen, "1"],
        &["unstake", &chosen],
        &["unstake", &chosen, "1", "--all"],
    ] {
        let refused = run(refused);
        assert_eq!(refused.code(), 2, "{}", refused.stderr);
    }
    assert_ne!(run(&["delegate", &chosen, "100000000"]).code(), 0);
    assert_eq!(opg_balance(), start);

    // locked, and said before
    let staked = run(&["delegate", &chosen, "100"]).expect_code(0);
    assert!(staked.stderr.contains("locks 100 OPG"), "{}", staked.stderr);
    assert_eq!(opg_balance(), start - 100 * OPG);
    let after = ok(&["validators", "--account", &account]);
    assert_eq!(wei(&after["total_stake"]), total + 100 * OPG);
    let first = &after["validators"][0];
    assert_eq!(first["operator"], chosen.as_str(), "most stake first");
    assert_eq!(wei(&first["stake"]), wei(&validators[1]["stake"]) + 100 * OPG);
    assert_eq!(wei(&first["self_stake"]), wei(&validators[1]["self_stake"]));
    let positions = after["positions"].as_array().expect("positions");
    assert_eq!(positions.len(), 1);
    assert_eq!(wei(&positions[0]["stake"]), 100 * OPG);

    // more than there is cannot be taken back; a part and then the rest can, and waits
    assert_eq!(run(&["unstake", &chosen, "100.5"]).code(), 2);
    let asked = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs() - 5;
    ok(&["unstake", &chosen, "40"]);
    ok(&["unstake", &chosen, "--all"]);
    let claimed = ok(&["claim"]);
    assert_eq!(claimed["transactions"].as_array().map(Vec::len), Some(0), "{claimed}");
    assert_eq!(claimed["positions"].as_array().map(Vec::len), Some(0), "{claimed}");
    let waiting: Vec<u128> = claimed["unbonding"]
        .as_array()
        .expect("unbonding")
        .iter()
        .map(|entry| {
            let ready_at = entry["ready_at"].as_u64().expect("seconds");
            // Blocks carry the time; a slow machine may be minutes behind the transaction.
            assert!(
                (asked + unbonding..asked + unbonding + 300).contains(&ready_at),
                "{entry}"
            );
            wei(&entry["amount"])
        })
        .collect();
    assert_eq!(waiting, [40 * OPG, 60 * OPG]);
    let end = ok(&["validators"]);
    assert_eq!(wei(&end["total_stake"]), total);
    assert_eq!(opg_balance(), start - 100 * OPG, "still on its way");
}
