//! Staking and slashing against a model in plain integers, under random sequences of everything that anybody can do.
//!
//! Every call must succeed or fail as the model says; every so often all balances, pools, positions, votes and seats are compared, and the
//! invariants of docs/specs/staking.md §9 are checked. `OPG_STAKING_CALLS` is the number of calls (default 3,000),
//! `OPG_STAKING_SEED` the first seed, `OPG_STAKING_COMPARE` the calls between two comparisons of everything (default 50); each episode of
//! 2,000 calls begins with a new network.
#![allow(missing_docs)]

mod common;
#[path = "models/staking.rs"]
mod model;

use model::{Counts, Dice, EPISODE, Model, compare, setup, step};
use opg_contracts::{OPG, addresses};

#[test]
fn contracts_do_what_the_model_does() {
    let number = |name: &str, default| {
        let text = std::env::var(name).ok();
        text.map_or(default, |text| text.parse().expect("a number"))
    };
    let calls: u64 = number("OPG_STAKING_CALLS", 3_000);
    let seed: u64 = number("OPG_STAKING_SEED", 1);
    let between: u64 = number("OPG_STAKING_COMPARE", 50).max(1);
    let mut counts = Counts::new();
    let mut done = 0;
    for episode in 0.. {
        if done >= calls {
            break;
        }
        let mut net = setup();
        let mut model = Model::new(&mut net);
        let supply: u128 = net.evm.view(addresses::OPG, OPG::totalSupplyCall {}).unwrap().to();
        let mut dice = Dice(seed.wrapping_add(episode));
        compare(&mut net, &model, supply, 1);
        for i in 0..EPISODE.min(calls - done) {
            step(&mut net, &mut model, &mut dice, &mut counts);
            if i % between == between - 1 {
                compare(&mut net, &model, supply, i + 1);
            }
            done += 1;
        }
        compare(&mut net, &model, supply, EPISODE);
    }
    println!("{done} calls; succeeded: {counts:?}");
    for kind in [
        "stake",
        "unstake",
        "withdraw",
        "claim",
        "delegate votes",
        "fund",
        "commission",
        "unjail",
        "convict",
        "report downtime",
        "execute",
        "epoch",
    ] {
        assert!(counts.get(kind).is_some_and(|n| *n > 0), "{kind} never succeeded");
    }
}
