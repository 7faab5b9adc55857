//! All contracts together on one network: staking, slashing and epochs, payments, receipts and refunds, channels, and the supply's buckets, in
//! random order by the same accounts. Each part has its model in plain integers (`models/`), and every call must do what its model says; every
//! so often everything is compared and the invariants are checked:
//!
//! - supply: what all accounts hold is what exists, it is backed by native coin, and only burning lowers it;
//! - buckets: none pays more than its schedule has released;
//! - staking: stake, unbonding, rewards and fees are what the contract holds; a slash takes no more than is liable; votes are stake;
//! - vault: for each node, what is credited is at most what was paid to it, and everybody gets exactly what the model owes them;
//! - channels: the contract holds what it owes; nobody gets more than claimed, no claim exceeds a voucher or a balance.
//!
//! `OPG_SYSTEM_CALLS` is the number of calls (default 4,000), `OPG_SYSTEM_SEED` the first seed, `OPG_SYSTEM_COMPARE` the calls between two
//! comparisons (default 100). Every 2,000 calls begin with a new network and the next seed. `OPG_SYSTEM_REPORT` names a file for what was done (JSON).
#![allow(missing_docs)]

#[path = "models/channels.rs"]
mod channels;
mod common;
#[path = "models/payments.rs"]
mod payments;
#[path = "models/staking.rs"]
mod stakes;

use alloy_primitives::{Address, U256};
use common::{Net, START, price, staking::staking_file, who};
use opg_contracts::{
    AccountAllocation, Airdrop, AirdropAllocation, AirdropList, AskRegistration, GenesisFile, NodeRegistration, OPG,
    StateReader as _, Vesting, VestingSchedule, addresses, slots,
    supply::{AIRDROP, STAKING_REWARDS},
};
use opg_primitives::money::{Amount, WEI_PER_OPG};
use proptest::{
    strategy::{Strategy, ValueTree as _},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use stakes::{ACCOUNTS, CAROL, Counts, Dice, EPISODE, OPERATORS};
use std::{collections::BTreeSet, time::Instant};

/// Nodes of payments are the first two, those of channels the next two.
const NODES: usize = 4;
const PAYERS: [&str; 3] = ["alice", "bob", "carol"];
const FOUNDATION: &str = "foundation";
const VESTED: u128 = 1_000_000 * WEI_PER_OPG;

fn buckets() -> [VestingSchedule; 2] {
    let schedule = |name: &str, at_start, cliff, duration| VestingSchedule {
        address: who(name),
        beneficiary: who(FOUNDATION),
        at_start: Amount(at_start),
        start: START,
        cliff,
        duration,
    };
    [
        schedule("bucket-0", VESTED / 10, 0, 200_000),
        schedule("bucket-1", 0, 50_000, 400_000),
    ]
}

fn airdrop() -> AirdropList {
    AirdropList::new((0..8u128).map(|i| (who(&format!("friend-{i}")), Amount((i + 1) * WEI_PER_OPG)))).unwrap()
}

/// The network of the staking tests with two nodes more, two buckets and an airdrop.
fn system_file() -> GenesisFile {
    let mut file = staking_file();
    let at = file.allocations.iter().position(|a| a.label == "ecosystem").unwrap();
    let mut rest = file.allocations.remove(at);
    let mut give = |label: &str, address: Address, wrapped: u128| {
        rest.wrapped.0 -= wrapped;
        file.allocations.push(AccountAllocation {
            label: label.into(),
            address,
            native: Amount::ZERO,
            wrapped: Amount(wrapped),
        });
    };
    for bucket in buckets() {
        give(&format!("bucket {}", bucket.address), bucket.address, VESTED);
    }
    give("airdrop", AIRDROP.address, airdrop().total().0);
    for i in 2..NODES {
        give(&format!("node-{i}"), who(&format!("node-{i}")), 2_000 * WEI_PER_OPG);
    }
    file.allocations.push(rest);
    file.vesting.extend(buckets());
    file.airdrop = Some(AirdropAllocation {
        address: AIRDROP.address,
        root: airdrop().root(),
    });
    for i in 2..NODES {
        let mut node: NodeRegistration = file.nodes[0].clone();
        node.operator = who(&format!("node-{i}"));
        node.salt.0[31] = 0x90 + i as u8;
        node.endpoint = format!("http://127.0.0.1:{}", 8_610 + i);
        node.receipt_key.0[31] = 0x90 + i as u8;
        node.settlement_key = who(&format!("settlement-{i}"));
        for model in &file.models {
            file.asks.push(AskRegistration {
                node_id: node.node_id(),
                root: model.root,
                price: price(),
            });
        }
        file.nodes.push(node);
    }
    file.validate().unwrap();
    file
}

fn genesis() -> &'static (GenesisFile, alloy_genesis::Genesis) {
    static GENESIS: std::sync::OnceLock<(GenesisFile, alloy_genesis::Genesis)> = std::sync::OnceLock::new();
    GENESIS.get_or_init(|| {
        let file = system_file();
        let genesis = opg_genesis::build(&file).unwrap();
        (file, genesis)
    })
}

fn net() -> Net {
    let (file, genesis) = genesis();
    let mut net = Net::with(file, genesis);
    net.approve_all();
    net
}

/// What is where now.
#[derive(PartialEq, Eq, Clone, Copy)]
struct Money {
    payers: [u128; 3],
    supply: u128,
}

struct System {
    /// The one network; the models of payments and channels have it only during their steps.
    net: Net,
    staking: stakes::Model,
    payments: payments::World,
    channels: channels::World,
    claimed: [u128; 2],
    friends: BTreeSet<usize>,
    /// Wrapped OPG without what staking burned.
    supply: u128,
    epoch: u64,
    counts: Counts,
    runner: TestRunner,
}

impl System {
    fn new(seed: u64) -> Self {
        let mut net = net();
        for i in 4..OPERATORS {
            net.register(i, 0, common::staking::BOND).unwrap();
        }
        for i in 0..ACCOUNTS {
            net.approve(&stakes::name(i));
        }
        // Networks of no importance, until theirs is put in.
        let mut payments = payments::World::on(self::net());
        let mut channels = channels::World::on(self::net(), 2);
        for payer in PAYERS {
            net.approve_permit2(payer);
        }
        let staking = stakes::Model::new(&mut net);
        let money = money(&mut net);
        channels.payers = money.payers;
        payments.jobs.clear();
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self {
            net,
            staking,
            payments,
            channels,
            claimed: [0; 2],
            friends: BTreeSet::new(),
            supply: money.supply,
            epoch: u64::MAX,
            counts: Counts::new(),
            runner: TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)),
        }
    }

    fn draw<S: Strategy>(&mut self, strategy: &S) -> S::Value {
        strategy.new_tree(&mut self.runner).unwrap().current()
    }

    fn step(&mut self, dice: &mut Dice) {
        // System transactions come from a seat of the current epoch.
        let epoch = self.net.epoch();
        if epoch != self.epoch {
            self.epoch = epoch;
            self.net.proposer = self.net.seats(epoch)[0].system;
        }
        let proposer = self.net.proposer;
        self.net.evm.set_coinbase(proposer);
        let before = money(&mut self.net);
        match dice.below(100) {
            0..=44 => {
                stakes::step(&mut self.net, &mut self.staking, dice, &mut self.counts);
                let after = money(&mut self.net);
                for (i, payer) in self.channels.payers.iter_mut().enumerate() {
                    *payer = *payer + after.payers[i] - before.payers[i];
                }
                return;
            }
            45..=69 => {
                let step = self.draw(&payments::step());
                let step = step.among_the_last(self.payments.jobs.len());
                std::mem::swap(&mut self.net, &mut self.payments.net);
                self.payments.apply(&step);
                std::mem::swap(&mut self.net, &mut self.payments.net);
                *self.counts.entry("payments").or_default() += 1;
                let after = money(&mut self.net);
                for (i, payer) in self.channels.payers.iter_mut().enumerate() {
                    *payer = *payer + after.payers[i] - before.payers[i];
                }
            }
            70..=94 => {
                let step = self.draw(&channels::step());
                std::mem::swap(&mut self.net, &mut self.channels.net);
                self.channels.apply(&step);
                std::mem::swap(&mut self.net, &mut self.channels.net);
                *self.counts.entry("channels").or_default() += 1;
            }
            95..=97 => self.claim_bucket(dice),
            _ => self.claim_airdrop(dice),
        }
        // What the others did to accounts that stake.
        let after = money(&mut self.net);
        for i in 0..3 {
            let balance = &mut self.staking.balances[CAROL - 2 + i];
            *balance = *balance + after.payers[i] - before.payers[i];
        }
        self.supply = self.supply + after.supply - before.supply;
        self.staking.now = self.net.evm.timestamp();
    }

    /// A beneficiary, or a thief, asks for any amount: no more than is released ever leaves.
    fn claim_bucket(&mut self, dice: &mut Dice) {
        let (i, thief) = (dice.below(2), dice.below(8) == 0);
        let bucket = &buckets()[i];
        let due = bucket
            .released(Amount(VESTED), self.net.evm.timestamp())
            .0
            .checked_sub(self.claimed[i])
            .expect("a bucket paid more than it had released");
        let amount = match dice.below(4) {
            0 => due,
            1 => due + 1,
            _ => dice.amount(),
        };
        let from = if thief { who("thief") } else { who(FOUNDATION) };
        let call = Vesting::claimCall {
            to: who(FOUNDATION),
            amount: U256::from(amount),
        };
        let paid = self.net.evm.call(from, bucket.address, call).is_ok();
        assert_eq!(paid, !thief && amount <= due, "{amount} of {due} from bucket {i}");
        if paid {
            self.claimed[i] += amount;
        }
        *self.counts.entry("bucket").or_default() += u64::from(paid && amount > 0);
    }

    /// Anybody sends claims of the airdrop, also such as were paid, or with another amount.
    fn claim_airdrop(&mut self, dice: &mut Dice) {
        let (i, list) = (dice.below(9), airdrop());
        let friend = who(&format!("friend-{i}"));
        let (amount, proof) = list.claim(friend).unwrap_or((Amount(1), Vec::new()));
        let more = u128::from(dice.below(4) == 0);
        let call = Airdrop::claimCall {
            account: friend,
            amount: U256::from(amount.0 + more),
            proof,
        };
        let paid = self.net.evm.call(who("anyone"), AIRDROP.address, call).is_ok();
        assert_eq!(paid, more == 0 && i < 8 && !self.friends.contains(&i), "friend {i}");
        if paid {
            self.friends.insert(i);
        }
        *self.counts.entry("airdrop").or_default() += u64::from(paid);
    }

    fn check(&mut self, calls: u64) {
        let money = money(&mut self.net);
        let supply = self.net.evm.view(addresses::OPG, OPG::totalSupplyCall {}).unwrap();
        assert_eq!(supply, U256::from(money.supply));
        assert_eq!(PAYERS.map(|payer| self.net.opg(who(payer))), money.payers);
        stakes::compare(&mut self.net, &self.staking, self.supply, calls);
        std::mem::swap(&mut self.net, &mut self.payments.net);
        self.payments.check_owed();
        std::mem::swap(&mut self.net, &mut self.payments.net);
        std::mem::swap(&mut self.net, &mut self.channels.net);
        self.channels.check_model();
        std::mem::swap(&mut self.net, &mut self.channels.net);
        for (i, bucket) in buckets().iter().enumerate() {
            assert_eq!(self.net.opg(bucket.address), VESTED - self.claimed[i], "bucket {i}");
        }
        let dropped: u128 = self.friends.iter().map(|i| (*i as u128 + 1) * WEI_PER_OPG).sum();
        assert_eq!(self.net.opg(AIRDROP.address), airdrop().total().0 - dropped);
        self.net.assert_conserved(&holders());
    }

    /// Everybody takes what is theirs, and nothing is missing or left.
    fn finish(&mut self) {
        let before = money(&mut self.net);
        std::mem::swap(&mut self.net, &mut self.payments.net);
        self.payments.pay_out();
        self.payments.check_owed();
        self.payments.check_rest();
        std::mem::swap(&mut self.net, &mut self.payments.net);
        let after = money(&mut self.net);
        for (i, payer) in self.channels.payers.iter_mut().enumerate() {
            *payer = *payer + after.payers[i] - before.payers[i];
        }
        std::mem::swap(&mut self.net, &mut self.channels.net);
        self.channels.go_home();
        std::mem::swap(&mut self.net, &mut self.channels.net);
        self.net.assert_conserved(&holders());
    }
}

/// From the slots, since this is asked around every call; that they are what the functions say is compared with everything else.
fn money(net: &mut Net) -> Money {
    let read = |slot| net.evm.storage(addresses::OPG, slot).unwrap().to();
    Money {
        payers: PAYERS.map(|payer| read(slots::opg_balance(who(payer)))),
        supply: read(U256::from(2)),
    }
}

/// Everybody who can have OPG, except the vault, the bonds and the deposit addresses.
fn holders() -> Vec<Address> {
    let labels = [
        "creator",
        "treasury",
        "ecosystem",
        "router",
        "payee",
        FOUNDATION,
        "thief",
    ];
    let numbered = |name: &str, n: usize| (0..n).map(|i| who(&format!("{name}-{i}"))).collect::<Vec<_>>();
    let mut all: Vec<Address> = labels.iter().chain(&PAYERS).map(|label| who(label)).collect();
    all.extend(numbered("operator", common::staking::OPERATORS));
    all.extend(numbered("node", NODES));
    all.extend(numbered("friend", 8));
    all.extend(buckets().map(|bucket| bucket.address));
    all.extend([
        AIRDROP.address,
        STAKING_REWARDS.address,
        addresses::STAKING,
        addresses::SLASHING,
        addresses::EMISSION,
        addresses::BATCH_SETTLEMENT,
    ]);
    all
}

#[test]
fn the_system_keeps_its_promises() {
    let number = |name: &str, default| {
        let text = std::env::var(name).ok();
        text.map_or(default, |text| text.parse().expect("a number"))
    };
    let calls: u64 = number("OPG_SYSTEM_CALLS", 4_000);
    let seed: u64 = number("OPG_SYSTEM_SEED", 1);
    let between: u64 = number("OPG_SYSTEM_COMPARE", 100).max(1);
    let (start, mut done, mut episodes) = (Instant::now(), 0, 0);
    let mut counts = Counts::new();
    while done < calls {
        let mut dice = Dice(seed.wrapping_add(episodes));
        let mut system = System::new(seed.wrapping_add(episodes));
        let length = EPISODE.min(calls - done);
        let mut place = Place(seed.wrapping_add(episodes), 0);
        for i in 0..length {
            place.1 = i;
            system.step(&mut dice);
            if i % between == between - 1 {
                system.check(i + 1);
            }
        }
        system.check(length);
        system.finish();
        for (kind, count) in system.counts {
            *counts.entry(kind).or_default() += count;
        }
        done += length;
        episodes += 1;
    }
    println!("{done} calls in {:?}; succeeded: {counts:?}", start.elapsed());
    for kind in [
        "stake", "unstake", "withdraw", "claim", "fund", "convict", "execute", "epoch", "payments", "channels",
        "bucket", "airdrop",
    ] {
        assert!(counts.get(kind).is_some_and(|n| *n > 0), "{kind} never succeeded");
    }
    if let Ok(path) = std::env::var("OPG_SYSTEM_REPORT") {
        let report = serde_json::json!({
            "calls": done, "networks": episodes, "seed": seed, "calls_between_comparisons": between,
            "seconds": start.elapsed().as_secs(), "violations": 0, "succeeded": counts,
        });
        std::fs::write(path, report.to_string()).expect("report");
    }
}

/// Says where a failing run was, so that it can be repeated.
struct Place(u64, u64);

impl Drop for Place {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (seed, call) = (self.0, self.1);
            eprintln!("failed at call {call} of the network with OPG_SYSTEM_SEED={seed}");
        }
    }
}

/// The accounts of the file are the ones that the invariant counts: one that is left out would hide what it holds.
#[test]
fn all_money_is_counted() {
    let mut net = net();
    net.assert_conserved(&holders());
    let missing: Vec<_> = holders()
        .into_iter()
        .filter(|holder| *holder != who("ecosystem"))
        .collect();
    let hidden = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| net.assert_conserved(&missing)));
    assert!(hidden.is_err(), "a forgotten account is noticed");
}
