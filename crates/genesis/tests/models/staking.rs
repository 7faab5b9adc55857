//! Staking and slashing as plain integers: what every call must do, and what must hold.
#![allow(dead_code, unreachable_pub, missing_docs)] // each test binary uses a part of it

use crate::common::{
    Net, START,
    staking::{APPEAL, BOND, EPOCH, JAIL, OPG_UNIT, SLASHING, STAKING, UNBONDING, staking_net},
    who,
};
use alloy_primitives::{Address, B256, U256};
use opg_contracts::{OPG, Slashing, Staking, addresses, supply::STAKING_REWARDS};
use opg_primitives::money::Amount;
use std::collections::{BTreeMap, BTreeSet};

const ONE: u128 = 1_000_000_000_000_000_000_000_000_000;
const MIN_INDEX: u128 = ONE / 1_000_000;
const MAX_BUCKETS: usize = 64;
pub const OPERATORS: usize = 8;
const MAX_SEATS: usize = 6;
/// Calls of one network.
pub const EPISODE: u64 = 2_000;

pub fn name(i: usize) -> String {
    match i {
        8 => "alice".into(),
        9 => "bob".into(),
        10 => "carol".into(),
        _ => format!("operator-{i}"),
    }
}
/// Operators, then Alice and Bob, who stake; Carol only challenges.
pub const ACCOUNTS: usize = 11;
pub const CAROL: usize = 10;

fn wide(x: u128) -> U256 {
    U256::from(x)
}

fn value(shares: u128, index: u128) -> u128 {
    (wide(shares) * wide(index) / wide(ONE)).to()
}

fn scale() -> U256 {
    U256::ONE << 96_usize
}

#[derive(Clone, Default)]
struct Pool {
    shares: u128,
    index: u128,
    per_share: U256,
    commission: u128,
    commission_epoch: u64,
    jailed_until: u64,
    exited: bool,
    tombstoned: bool,
    open: u32,
    frozen_from: u64,
    down_in: u64,
    buckets: Vec<Bucket>,
}

#[derive(Clone)]
struct Bucket {
    epoch: u64,
    newest: u64,
    index: u128,
    shares: u128,
}

#[derive(Clone, Default)]
struct Position {
    shares: u128,
    owed: u128,
    per_share: U256,
}

#[derive(Clone)]
struct Unbonding {
    operator: usize,
    bucket: usize,
    ready: u64,
    shares: u128,
}

#[derive(Clone)]
struct Case {
    class: u8,
    operator: usize,
    epoch: u64,
    until: u64,
    bond: u128,
    frozen: bool,
}

/// What the contracts should do.
#[derive(Clone)]
pub struct Model {
    pub now: u64,
    pub epoch: u64,
    pools: Vec<Pool>,
    positions: BTreeMap<(usize, usize), Position>,
    unbondings: BTreeMap<usize, Vec<Unbonding>>,
    delegatee: Vec<usize>,
    accepts: Vec<bool>,
    seats: BTreeMap<u64, Vec<usize>>,
    started: BTreeMap<u64, u64>,
    fees: u128,
    rewards_held: u128,
    divided: u128,
    held: u128,
    pub balances: Vec<u128>,
    credits: Vec<u128>,
    cases: Vec<Case>,
    judged: BTreeSet<(u8, usize, u64)>,
    faults: BTreeMap<(u8, u64), u128>,
    slashing_held: u128,
    pub insurance: u128,
    pub burned: u128,
}

impl Model {
    pub fn new(net: &mut Net) -> Self {
        let pool = Pool {
            index: ONE,
            shares: BOND,
            ..Pool::default()
        };
        Self {
            now: net.evm.timestamp(),
            epoch: 0,
            pools: vec![pool; OPERATORS],
            positions: (0..OPERATORS)
                .map(|i| {
                    let position = Position {
                        shares: BOND,
                        ..Position::default()
                    };
                    ((i, i), position)
                })
                .collect(),
            unbondings: BTreeMap::new(),
            delegatee: (0..ACCOUNTS).collect(),
            accepts: vec![false; ACCOUNTS],
            seats: BTreeMap::from([(0, vec![0, 1, 2, 3])]),
            started: BTreeMap::from([(0, START)]),
            fees: 0,
            rewards_held: 0,
            divided: 0,
            held: OPERATORS as u128 * BOND,
            balances: (0..ACCOUNTS).map(|i| net.opg(who(&name(i)))).collect(),
            credits: vec![0; ACCOUNTS],
            cases: Vec::new(),
            judged: BTreeSet::new(),
            faults: BTreeMap::new(),
            slashing_held: 0,
            insurance: net.opg(addresses::INSURANCE),
            burned: 0,
        }
    }

    fn stake_of(&self, operator: usize) -> u128 {
        value(self.pools[operator].shares, self.pools[operator].index)
    }

    fn total_stake(&self) -> u128 {
        (0..OPERATORS).map(|i| self.stake_of(i)).sum()
    }

    fn total_unbonding(&self) -> u128 {
        let buckets = self.pools.iter().flat_map(|pool| &pool.buckets);
        buckets.map(|b| value(b.shares, b.index)).sum()
    }

    fn accrued(&self, operator: usize, position: &Position) -> u128 {
        let per_share = self.pools[operator].per_share - position.per_share;
        (wide(position.shares) * per_share / scale()).to()
    }

    fn settle(&mut self, operator: usize, account: usize) -> &mut Position {
        let mut position = self.positions.get(&(operator, account)).cloned().unwrap_or_default();
        position.owed += self.accrued(operator, &position);
        position.per_share = self.pools[operator].per_share;
        self.positions.insert((operator, account), position);
        self.positions.get_mut(&(operator, account)).unwrap()
    }

    fn stake(&mut self, account: usize, operator: usize, amount: u128) -> bool {
        let pool = &self.pools[operator];
        if pool.exited || pool.tombstoned || pool.open != 0 || pool.index < MIN_INDEX {
            return false;
        }
        let shares: u128 = (wide(amount) * wide(ONE) / wide(pool.index)).to();
        if shares == 0 || self.balances[account] < amount {
            return false;
        }
        self.settle(operator, account).shares += shares;
        self.pools[operator].shares += shares;
        self.balances[account] -= amount;
        self.held += amount;
        true
    }

    fn unstake(&mut self, account: usize, operator: usize, amount: Option<u128>) -> bool {
        let index = self.pools[operator].index;
        let held = self.positions.get(&(operator, account)).map_or(0, |p| p.shares);
        if held == 0 || amount == Some(0) {
            return false;
        }
        let mut shares = held;
        if let Some(amount) = amount {
            if amount > value(held, index) {
                return false;
            }
            shares = (wide(amount) * wide(ONE)).div_ceil(wide(index)).to();
        }
        let amount = value(shares, index);
        self.settle(operator, account).shares -= shares;
        let (epoch, now) = (self.epoch, self.now);
        let pool = &mut self.pools[operator];
        pool.shares -= shares;
        let count = pool.buckets.len();
        let mut fresh = pool.buckets.last().is_none_or(|b| b.epoch != epoch);
        if fresh && count >= MAX_BUCKETS && pool.buckets[count - MAX_BUCKETS].newest + UNBONDING > now {
            pool.buckets[count - 1].epoch = epoch;
            fresh = false;
        }
        if !fresh && pool.buckets[count - 1].index < MIN_INDEX {
            fresh = true;
        }
        if fresh {
            pool.buckets.push(Bucket {
                epoch,
                newest: 0,
                index: ONE,
                shares: 0,
            });
        }
        let at = pool.buckets.len() - 1;
        let bucket = &mut pool.buckets[at];
        let shares: u128 = (wide(amount) * wide(ONE) / wide(bucket.index)).to();
        bucket.newest = now;
        bucket.shares += shares;
        self.unbondings.entry(account).or_default().push(Unbonding {
            operator,
            bucket: at,
            ready: now + UNBONDING,
            shares,
        });
        true
    }

    fn withdraw(&mut self, account: usize, id: usize) -> Option<u128> {
        let unbonding = self.unbondings.get_mut(&account)?.get_mut(id)?;
        let pool = &mut self.pools[unbonding.operator];
        let bucket = &mut pool.buckets[unbonding.bucket];
        let frozen = pool.open != 0 && bucket.epoch >= pool.frozen_from;
        if unbonding.shares == 0 || self.now < unbonding.ready || frozen {
            return None;
        }
        let amount = value(unbonding.shares, bucket.index);
        bucket.shares -= unbonding.shares;
        unbonding.shares = 0;
        self.held -= amount;
        self.balances[account] += amount;
        Some(amount)
    }

    fn claim(&mut self, account: usize, operator: usize) -> u128 {
        let position = self.settle(operator, account);
        let amount = std::mem::take(&mut position.owed);
        self.rewards_held -= amount;
        self.held -= amount;
        self.balances[account] += amount;
        amount
    }

    fn eligible(&self, i: usize) -> bool {
        let pool = &self.pools[i];
        let own = self.positions.get(&(i, i)).map_or(0, |p| value(p.shares, pool.index));
        !pool.exited && !pool.tombstoned && pool.jailed_until == 0 && own >= BOND
    }

    fn end_epoch(&mut self, down: &[usize]) {
        for i in down {
            let until = self.now + JAIL;
            let pool = &mut self.pools[*i];
            pool.down_in = self.epoch + 1;
            pool.jailed_until = pool.jailed_until.max(until);
        }
        let schedule = STAKING_REWARDS.schedule(addresses::EMISSION, START, Amount::ZERO);
        let released = schedule.released(STAKING_REWARDS.total, self.now).0;
        let fresh = released - self.divided;
        self.divided = released;
        let emitted = fresh - fresh * 200_000 / 1_000_000 - fresh * 100_000 / 1_000_000;
        let seats = self.seats[&self.epoch].clone();
        let part = (emitted + self.fees) / seats.len() as u128;
        let mut paid = 0;
        for i in &seats {
            let pool = &mut self.pools[*i];
            if pool.jailed_until != 0 || pool.tombstoned || pool.shares == 0 || part == 0 {
                continue;
            }
            let commission = part * pool.commission / 10_000;
            pool.per_share += wide(part - commission) * scale() / wide(pool.shares);
            self.positions.entry((*i, *i)).or_default().owed += commission;
            paid += part;
        }
        self.rewards_held += paid;
        let from_bucket = paid.min(emitted);
        self.fees -= paid - from_bucket;
        self.held += from_bucket;
        let mut next: Vec<usize> = (0..OPERATORS).filter(|i| self.eligible(*i)).collect();
        next.sort_by_key(|i| (std::cmp::Reverse(self.stake_of(*i)), *i));
        next.truncate(MAX_SEATS);
        if next.len() < 4 {
            next = seats;
        }
        self.epoch += 1;
        self.seats.insert(self.epoch, next);
        self.started.insert(self.epoch, self.now);
    }

    fn liable(&self, operator: usize, epoch: u64) -> u128 {
        let buckets = self.pools[operator].buckets.iter().rev().take(MAX_BUCKETS);
        let unbonding: u128 = buckets
            .take_while(|b| b.epoch >= epoch)
            .map(|b| value(b.shares, b.index))
            .sum();
        self.stake_of(operator) + unbonding
    }

    /// A report of Carol's with the verdict that it is true.
    fn convict(&mut self, class: u8, operator: usize, epoch: u64) -> bool {
        let seated = self.seats.get(&epoch).is_some_and(|seats| seats.contains(&operator));
        let fresh = epoch == self.epoch
            || self
                .started
                .get(&(epoch + 1))
                .is_some_and(|started| self.now < started + UNBONDING);
        if !seated || !fresh {
            return false;
        }
        let bond = (self.liable(operator, epoch) * 50_000 / 1_000_000 / 10).max(OPG_UNIT);
        if self.balances[CAROL] < bond {
            return false;
        }
        self.balances[CAROL] -= bond;
        self.slashing_held += bond;
        let mut case = Case {
            class,
            operator,
            epoch,
            until: 0,
            bond,
            frozen: false,
        };
        if self.judged.insert((class, operator, epoch)) {
            case.frozen = true;
            case.until = self.now + APPEAL;
            *self.faults.entry((class, epoch)).or_default() += 1;
            self.freeze(operator, epoch, case.until);
        } else {
            self.credits[CAROL] += bond;
        }
        self.cases.push(case);
        true
    }

    fn freeze(&mut self, operator: usize, epoch: u64, jail: u64) {
        let pool = &mut self.pools[operator];
        if pool.open == 0 || epoch < pool.frozen_from {
            pool.frozen_from = epoch;
        }
        pool.open += 1;
        pool.jailed_until = pool.jailed_until.max(jail);
    }

    fn report_downtime(&mut self, operator: usize) -> bool {
        let Some(epoch) = self.pools[operator].down_in.checked_sub(1) else {
            return false;
        };
        let fresh = self.now < self.started[&(epoch + 1)] + UNBONDING;
        if self.judged.contains(&(3, operator, epoch)) || !fresh {
            return false;
        }
        self.judged.insert((3, operator, epoch));
        *self.faults.entry((3, epoch)).or_default() += 1;
        self.freeze(operator, epoch, 0);
        self.cases.push(Case {
            class: 3,
            operator,
            epoch,
            until: self.now + APPEAL,
            bond: 0,
            frozen: true,
        });
        true
    }

    fn execute(&mut self, id: usize) -> bool {
        let case = self.cases[id].clone();
        if !case.frozen || self.now < case.until {
            return false;
        }
        self.cases[id].frozen = false;
        let ppm = if case.class == 3 {
            100
        } else {
            let near = case.epoch.saturating_sub(1)..=case.epoch + 1;
            let same: u128 = near
                .map(|epoch| self.faults.get(&(case.class, epoch)).copied().unwrap_or(0))
                .sum();
            let seats = self.seats[&case.epoch].len() as u128;
            (same * 3_000_000).div_ceil(seats).clamp(50_000, 1_000_000)
        };
        let keep = 1_000_000 - ppm;
        let before = self.liable(case.operator, case.epoch);
        let pool = &mut self.pools[case.operator];
        pool.open -= 1;
        pool.tombstoned |= case.class == 1;
        pool.index = (wide(pool.index) * wide(keep) / wide(1_000_000)).to();
        for bucket in pool
            .buckets
            .iter_mut()
            .rev()
            .take(MAX_BUCKETS)
            .take_while(|b| b.epoch >= case.epoch)
        {
            bucket.index = (wide(bucket.index) * wide(keep) / wide(1_000_000)).to();
        }
        let taken = before - self.liable(case.operator, case.epoch);
        assert!(taken <= before);
        self.held -= taken;
        // Burn 5, challenger 3, user 2 of 10 by largest remainder; nobody used anything, so the insurance has the last.
        let mut parts = [5, 3, 2].map(|w| taken / 10 * w + taken % 10 * w / 10);
        let mut order = [0, 1, 2];
        order.sort_by_key(|i| (std::cmp::Reverse(taken % 10 * [5, 3, 2][*i] % 10), *i));
        let left = taken - parts.iter().sum::<u128>();
        for i in order.into_iter().take(left as usize) {
            parts[i] += 1;
        }
        self.burned += parts[0];
        self.insurance += parts[2];
        self.credits[CAROL] += parts[1] + case.bond;
        self.slashing_held += parts[1];
        true
    }

    fn votes(&self, account: usize) -> u128 {
        (0..OPERATORS)
            .map(|operator| {
                let shares: u128 = (0..ACCOUNTS)
                    .filter(|owner| self.delegatee[*owner] == account)
                    .filter_map(|owner| self.positions.get(&(operator, owner)))
                    .map(|p| p.shares)
                    .sum();
                value(shares, self.pools[operator].index)
            })
            .sum()
    }
}

/// Numbers of a seed (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Amounts of every size, with odd ends.
    pub fn amount(&mut self) -> u128 {
        let digits = self.below(24) as u32;
        u128::from(self.next()) % 10u128.pow(digits.min(19)) * 10u128.pow(digits.saturating_sub(19))
            + u128::from(self.next() % 7)
    }
}

/// Calls that succeeded, by kind: a kind that never does tests nothing.
pub type Counts = BTreeMap<&'static str, u64>;

pub fn step(net: &mut Net, model: &mut Model, dice: &mut Dice, counts: &mut Counts) {
    let account = dice.below(CAROL);
    let operator = dice.below(OPERATORS);
    let (from, to) = (name(account), name(operator));
    let mut check = |kind: &'static str, expected: bool, got: bool| {
        assert_eq!(got, expected, "{kind} by {from} about {to}");
        *counts.entry(kind).or_default() += u64::from(got);
    };
    match dice.below(1_000) {
        0..=219 => {
            let amount = dice.amount();
            let expected = model.stake(account, operator, amount);
            check("stake", expected, net.stake(&from, &to, amount).is_ok());
        }
        220..=399 => {
            let staked = model
                .positions
                .get(&(operator, account))
                .map_or(0, |p| value(p.shares, model.pools[operator].index));
            let amount = match dice.below(8) {
                0 if account != operator => None,
                1 => Some(staked),
                2 => Some(staked + 1),
                _ if account == operator => Some(dice.amount().min(staked / 1_000)),
                _ => Some(dice.amount()),
            };
            let expected = model.unstake(account, operator, amount);
            let got = net.unstake(&from, &to, amount.unwrap_or(u128::MAX));
            check("unstake", expected, got.is_ok());
        }
        400..=519 => {
            let count = model.unbondings.get(&account).map_or(0, Vec::len);
            let id = dice.below(count + 1);
            let expected = model.withdraw(account, id);
            let got = net.withdraw_stake(&from, id as u64).ok();
            assert_eq!(got, expected, "withdrawal {id} of {from}");
            check("withdraw", expected.is_some(), got.is_some());
        }
        520..=619 => {
            let expected = model.claim(account, operator);
            assert_eq!(net.claim_rewards(&from, &to).unwrap(), expected);
            check("claim", true, true);
        }
        620..=679 => {
            let to = dice.below(CAROL);
            let expected = to == account || model.accepts[to];
            if expected {
                model.delegatee[account] = to;
            }
            let call = Staking::delegateVotesCall { to: who(&name(to)) };
            check("delegate votes", expected, net.staking(&from, call).is_ok());
        }
        680..=699 => {
            let accepts = dice.below(2) == 0;
            model.accepts[account] = accepts;
            net.staking(&from, Staking::setAcceptsVotesCall { accepts }).unwrap();
            check("accept votes", true, true);
        }
        700..=739 => {
            let amount = dice.amount();
            let expected = model.balances[account] >= amount;
            if expected {
                model.balances[account] -= amount;
                model.held += amount;
                model.fees += amount;
            }
            let call = Staking::fundCall {
                amount: U256::from(amount),
            };
            check("fund", expected, net.staking(&from, call).is_ok());
        }
        740..=779 => {
            let bps = dice.below(400) as u16;
            let pool = &mut model.pools[operator];
            let expected = !pool.exited
                && pool.commission.abs_diff(u128::from(bps)) <= 100
                && pool.commission_epoch != model.epoch + 1;
            if expected {
                pool.commission = u128::from(bps);
                pool.commission_epoch = model.epoch + 1;
            }
            let call = Staking::setCommissionCall { commissionBps: bps };
            check("commission", expected, net.staking(&to, call).is_ok());
        }
        780..=819 => {
            let own = model.positions[&(operator, operator)].shares;
            let pool = &mut model.pools[operator];
            let expected = pool.jailed_until != 0
                && model.now >= pool.jailed_until
                && !pool.tombstoned
                && !pool.exited
                && pool.open == 0
                && value(own, pool.index) >= BOND;
            if expected {
                pool.jailed_until = 0;
            }
            check("unjail", expected, net.staking(&to, Staking::unjailCall {}).is_ok());
        }
        820..=829 => {
            let class = if dice.below(6) == 0 { 1 } else { 2 };
            let epoch = model.epoch.saturating_sub(dice.below(8) as u64);
            let expected = model.convict(class, operator, epoch);
            let report = net.report(class, who(&to).into_word(), epoch, b"evidence");
            check("convict", expected, report.is_ok());
            if let Ok(id) = report {
                net.verdict(id, true, B256::ZERO, 0);
            }
        }
        830..=849 => {
            let expected = model.report_downtime(operator);
            let call = Slashing::reportDowntimeCall { operator: who(&to) };
            check("report downtime", expected, net.slashing("carol", call).is_ok());
        }
        850..=889 => {
            if model.cases.is_empty() {
                return;
            }
            let id = dice.below(model.cases.len());
            let expected = model.execute(id);
            check("execute", expected, net.execute(id as u64).is_ok());
        }
        890..=899 => {
            let credit = std::mem::take(&mut model.credits[CAROL]);
            model.balances[CAROL] += credit;
            model.slashing_held -= credit;
            net.slashing("carol", Slashing::withdrawCall {}).unwrap();
            check("credits", true, true);
        }
        900 if dice.below(4) == 0 => {
            let expected = !model.pools[operator].exited;
            model.pools[operator].exited = true;
            check("exit", expected, net.staking(&to, Staking::exitCall {}).is_ok());
        }
        900..=969 => {
            let seconds = dice.next() % 400;
            model.now += seconds;
            net.tick(seconds);
        }
        _ => {
            let seconds = EPOCH / 2 + dice.next() % EPOCH;
            model.now += seconds;
            net.tick(seconds);
            let seats = model.seats[&model.epoch].clone();
            let down: Vec<usize> = seats.into_iter().filter(|_| dice.below(12) == 0).collect();
            model.end_epoch(&down);
            let names: Vec<String> = down.iter().map(|i| name(*i)).collect();
            let report: Vec<_> = names.iter().map(|name| (name.as_str(), 0, 10)).collect();
            net.end_epoch_with(&report);
            check("epoch", true, true);
        }
    }
}

/// Everything that the model knows, and the invariants.
#[track_caller]
pub fn compare(net: &mut Net, model: &Model, supply: u128, calls: u64) {
    for i in 0..OPERATORS {
        let (got, pool) = (net.validator(&name(i)), &model.pools[i]);
        assert_eq!((got.shares, got.index), (pool.shares, pool.index), "pool {i}");
        assert_eq!(got.rewardPerShare, pool.per_share, "rewards of pool {i}");
        assert_eq!(got.jailedUntil.to::<u64>(), pool.jailed_until);
        assert_eq!((got.exited, got.tombstoned), (pool.exited, pool.tombstoned));
        assert_eq!(u32::from(got.openCases), pool.open);
        for account in 0..ACCOUNTS {
            let position = model.positions.get(&(i, account)).cloned().unwrap_or_default();
            let staked = value(position.shares, pool.index);
            assert_eq!(net.own_stake(&name(i), &name(account)), staked);
            let pending = position.owed + model.accrued(i, &position);
            assert_eq!(net.pending(&name(i), &name(account)), pending);
        }
    }
    for account in 0..ACCOUNTS {
        assert_eq!(
            net.opg(who(&name(account))),
            model.balances[account],
            "balance of {account}"
        );
        assert_eq!(net.votes(&name(account)), model.votes(account), "votes of {account}");
    }
    let seats: Vec<Address> = model.seats[&model.epoch].iter().map(|i| who(&name(*i))).collect();
    assert_eq!(net.seated(), seats);
    let number = |net: &mut Net, which: u8| -> u128 {
        match which {
            0 => net.evm.view(STAKING, Staking::totalUnbondingCall {}).unwrap().to(),
            1 => net.evm.view(STAKING, Staking::rewardsHeldCall {}).unwrap().to(),
            _ => net.evm.view(STAKING, Staking::feesCall {}).unwrap().to(),
        }
    };
    let (unbonding, rewards, fees) = (number(net, 0), number(net, 1), number(net, 2));
    assert_eq!(net.total_stake(), model.total_stake());
    assert_eq!(unbonding, model.total_unbonding());
    assert_eq!((rewards, fees), (model.rewards_held, model.fees));
    assert_eq!(net.opg(STAKING), model.held);
    assert_eq!(net.opg(SLASHING), model.slashing_held);
    assert_eq!(net.opg(addresses::INSURANCE), model.insurance);
    assert_eq!(net.burned(), model.burned);

    // What is held is what is owed, but for a wei of each rounding, and never less.
    let owed = model.total_stake() + unbonding + rewards + fees;
    assert!(
        owed <= model.held && model.held - owed <= 2 * u128::from(calls),
        "{owed} of {}",
        model.held
    );
    let pending: u128 = model
        .positions
        .iter()
        .map(|((operator, _), p)| p.owed + model.accrued(*operator, p))
        .sum();
    assert!(pending <= rewards, "{pending} of {rewards}");
    // Votes are stake, but for a wei of each pool and delegatee.
    let votes: u128 = (0..ACCOUNTS).map(|account| model.votes(account)).sum();
    let total = model.total_stake();
    assert!(votes <= total && total - votes <= (OPERATORS * ACCOUNTS) as u128);
    // Nothing is made, and what is burned is counted.
    let now: u128 = net.evm.view(addresses::OPG, OPG::totalSupplyCall {}).unwrap().to();
    assert_eq!(now + model.burned, supply);
}

pub fn setup() -> Net {
    let mut net = staking_net();
    for i in 4..OPERATORS {
        net.register(i, 0, BOND).unwrap();
    }
    for i in 0..ACCOUNTS {
        net.approve(&name(i));
    }
    net
}
