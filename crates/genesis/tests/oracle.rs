//! `PriceOracle.sol`: who may feed it, what it makes of the feeds, and what it refuses to believe.
#![allow(missing_docs)]

mod common;

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::{SolCall, SolStruct, eip712_domain, sol};
use common::{CHAIN_ID, Net, START, assert_reverts, key, sign, who};
use opg_contracts::{PriceOracle, addresses};
use opg_genesis::evm::CallError;

sol! {
    struct PriceFeed { uint64 round; uint128 price; }
}

const PRICE: u128 = 250_000;

fn feed(signer: &str, account: Address, round: u64, price: u128) -> PriceOracle::Feed {
    let domain = eip712_domain! {
        name: "OpenGradient PriceOracle",
        version: "1",
        chain_id: CHAIN_ID,
        verifying_contract: addresses::PRICE_ORACLE,
    };
    let digest: B256 = PriceFeed { round, price }.eip712_signing_hash(&domain);
    PriceOracle::Feed {
        account,
        round,
        price,
        signature: sign(&key(signer), digest).to_vec().into(),
    }
}

struct Oracle {
    net: Net,
}

impl Oracle {
    /// At the beginning of a round.
    fn new() -> Self {
        let mut net = Net::new();
        net.evm.set_timestamp((START / 60 + 1) * 60);
        Self { net }
    }

    fn round(&self) -> u64 {
        self.net.evm.timestamp() / 60
    }

    fn submit(&mut self, feeds: Vec<PriceOracle::Feed>) -> Result<(), CallError> {
        let call = PriceOracle::submitCall { feeds };
        self.net
            .evm
            .call(who("relayer"), addresses::PRICE_ORACLE, call)
            .map(|_| ())
    }

    /// Feeds of the first validators in this round.
    fn feed(&mut self, prices: &[u128]) {
        let round = self.round();
        let feeds = prices.iter().enumerate().map(|(i, price)| {
            let name = format!("system-{i}");
            feed(&name, who(&name), round, *price)
        });
        self.submit(feeds.collect()).unwrap();
    }

    /// A whole round with these feeds, closed at its end.
    fn pass(&mut self, prices: &[u128]) {
        self.feed(prices);
        self.net.tick(60);
        self.poke();
    }

    fn poke(&mut self) {
        self.net
            .evm
            .call(who("anyone"), addresses::PRICE_ORACLE, PriceOracle::pokeCall {})
            .unwrap();
    }

    fn latest(&mut self) -> (u128, u64, bool) {
        let got = self
            .net
            .evm
            .view(addresses::PRICE_ORACLE, PriceOracle::latestCall {})
            .unwrap();
        (got._0, got._1.to(), got._2)
    }

    fn usable(&mut self) -> Result<u128, CallError> {
        self.net
            .evm
            .view(addresses::PRICE_ORACLE, PriceOracle::usablePriceCall {})
    }
}

#[test]
fn the_median_of_three_or_more() {
    let mut oracle = Oracle::new();
    assert_eq!(oracle.latest(), (0, 0, false));
    assert_reverts::<PriceOracle::NoPrice, _>(oracle.usable());
    // Two are not enough.
    oracle.pass(&[PRICE, PRICE]);
    assert_eq!(oracle.latest().0, 0);
    // One of three lies as much as it can.
    oracle.pass(&[PRICE + 2, 1_000_000_000_000, PRICE]);
    let end = oracle.net.evm.timestamp();
    assert_eq!(oracle.latest(), (PRICE + 2, end, true));
    assert_eq!(oracle.usable().unwrap(), PRICE + 2);
    // Of four, the two in the middle.
    let mut oracle = Oracle::new();
    oracle.pass(&[1, PRICE + 11, PRICE, 1_000_000_000_000]);
    assert_eq!(oracle.latest().0, PRICE + 5);
}

#[test]
fn only_current_validators_feed_once_a_round() {
    let mut oracle = Oracle::new();
    let round = oracle.round();
    let good = |i: usize, round, price| {
        let name = format!("system-{i}");
        feed(&name, who(&name), round, price)
    };
    for stranger in ["alice", "operator-0", "settlement-0"] {
        let result = oracle.submit(vec![feed(stranger, who(stranger), round, PRICE)]);
        assert_reverts::<PriceOracle::NotValidator, _>(result);
    }
    // In a validator's name.
    let result = oracle.submit(vec![feed("alice", who("system-0"), round, PRICE)]);
    assert_reverts::<PriceOracle::InvalidSignature, _>(result);
    let mut altered = good(0, round, PRICE);
    altered.price += 1;
    assert_reverts::<PriceOracle::InvalidSignature, _>(oracle.submit(vec![altered]));
    for other in [round - 1, round + 1, 0] {
        let result = oracle.submit(vec![good(0, other, PRICE)]);
        assert_reverts::<PriceOracle::WrongRound, _>(result);
    }
    for price in [0, 1_000_000_000_001, u128::MAX] {
        let result = oracle.submit(vec![good(0, round, price)]);
        assert_reverts::<PriceOracle::InvalidPrice, _>(result);
    }
    // Three feeds of one validator are one, and do not stop the others'.
    let first = good(0, round, PRICE);
    oracle
        .submit(vec![
            first.clone(),
            good(0, round, 9 * PRICE),
            good(0, round, 8 * PRICE),
        ])
        .unwrap();
    oracle.submit(vec![first.clone(), good(1, round, PRICE)]).unwrap();
    oracle.net.tick(60);
    oracle.poke();
    assert_eq!(oracle.latest().0, 0, "two validators are not three");
    // A feed of a round that is over is worth nothing.
    assert_reverts::<PriceOracle::WrongRound, _>(oracle.submit(vec![first]));
}

/// A signature for another chain or contract is another message.
#[test]
fn feeds_are_bound_to_chain_and_contract() {
    let mut oracle = Oracle::new();
    let round = oracle.round();
    for (chain, contract) in [(1, addresses::PRICE_ORACLE), (CHAIN_ID, addresses::OPG)] {
        let domain = eip712_domain! {
            name: "OpenGradient PriceOracle",
            version: "1",
            chain_id: chain,
            verifying_contract: contract,
        };
        let digest = PriceFeed { round, price: PRICE }.eip712_signing_hash(&domain);
        let foreign = PriceOracle::Feed {
            account: who("system-0"),
            round,
            price: PRICE,
            signature: sign(&key("system-0"), digest).to_vec().into(),
        };
        assert_reverts::<PriceOracle::InvalidSignature, _>(oracle.submit(vec![foreign]));
    }
}

#[test]
fn prices_are_averaged_over_five_minutes() {
    let mut oracle = Oracle::new();
    let steps = [100_000u128, 102_000, 104_000, 106_000, 108_000, 110_000, 112_000];
    for (i, step) in steps.into_iter().enumerate() {
        oracle.pass(&[step; 3]);
        let from = i.saturating_sub(4);
        let window = &steps[from..=i];
        assert_eq!(
            oracle.latest().0,
            window.iter().sum::<u128>() / window.len() as u128,
            "{i}"
        );
    }
    // Two rounds without enough feeds: the last median counts for them.
    let before = oracle.round();
    oracle.net.tick(120);
    oracle.pass(&[118_000; 3]);
    assert_eq!(oracle.round(), before + 3);
    assert_eq!(oracle.latest().0, (110_000 + 3 * 112_000 + 118_000) / 5);
    // After a long gap old medians do not count at all.
    oracle.net.tick(3_600);
    oracle.pass(&[115_000; 3]);
    assert_eq!(oracle.latest().0, 115_000);
}

/// A flash of one round moves the average by a fifth of its size; a jump by more than a tenth stops the price.
#[test]
fn jumps_break_the_circuit() {
    let mut oracle = Oracle::new();
    for _ in 0..6 {
        oracle.pass(&[PRICE; 3]);
    }
    oracle.pass(&[PRICE * 14 / 10; 3]);
    assert_eq!(oracle.latest().0, PRICE * 108 / 100, "8 % are taken");
    let mut oracle = Oracle::new();
    for _ in 0..6 {
        oracle.pass(&[PRICE; 3]);
    }
    let since = oracle.latest().1;
    oracle.pass(&[PRICE * 2; 3]);
    assert_eq!(oracle.latest(), (PRICE, since, false), "20 % are not");
    assert_reverts::<PriceOracle::NoPrice, _>(oracle.usable());
    // Back again: usable at once.
    for _ in 0..6 {
        oracle.pass(&[PRICE; 3]);
    }
    assert_eq!(oracle.usable().unwrap(), PRICE);
    // Exactly a tenth is within the limit, downwards as well.
    let mut oracle = Oracle::new();
    oracle.pass(&[100_000; 3]);
    oracle.net.tick(600);
    oracle.pass(&[110_000; 3]);
    assert_eq!(oracle.usable().unwrap(), 110_000);
    oracle.net.tick(600);
    oracle.pass(&[99_000; 3]);
    assert_eq!(oracle.usable().unwrap(), 99_000);
    oracle.net.tick(600);
    oracle.pass(&[89_099; 3]);
    assert!(oracle.usable().is_err());
}

#[test]
fn a_price_that_stays_is_believed_after_half_an_hour() {
    let mut oracle = Oracle::new();
    for _ in 0..6 {
        oracle.pass(&[PRICE; 3]);
    }
    oracle.net.tick(600);
    for i in 0..29 {
        oracle.pass(&[2 * PRICE; 3]);
        assert!(oracle.usable().is_err(), "{i}");
    }
    // One that jumps on in between begins anew.
    oracle.net.tick(600);
    oracle.pass(&[3 * PRICE; 3]);
    for i in 0..28 {
        oracle.pass(&[3 * PRICE; 3]);
        assert!(oracle.usable().is_err(), "{i}");
    }
    oracle.pass(&[3 * PRICE; 3]);
    assert_eq!(oracle.usable().unwrap(), 3 * PRICE);
}

#[test]
fn old_prices_are_not_usable() {
    let mut oracle = Oracle::new();
    oracle.pass(&[PRICE; 3]);
    oracle.net.tick(900);
    assert_eq!(oracle.usable().unwrap(), PRICE);
    oracle.net.tick(1);
    assert_reverts::<PriceOracle::NoPrice, _>(oracle.usable());
    assert_eq!(oracle.latest().0, PRICE, "the last one is still told");
    oracle.pass(&[PRICE + 1; 3]);
    assert_eq!(oracle.usable().unwrap(), PRICE + 1);
}

#[test]
fn limits_are_bounded() {
    let mut oracle = Oracle::new();
    let mut set = |feeds, age| {
        let call = PriceOracle::setLimitsCall {
            minFeeds_: feeds,
            maxAge_: age,
        };
        oracle.net.evm.call(addresses::TIMELOCK, addresses::PRICE_ORACLE, call)
    };
    for (feeds, age) in [(2, 900), (101, 900), (3, 59), (3, 4 * 3_600 + 1)] {
        assert_reverts::<PriceOracle::OutOfRange, _>(set(feeds, age));
    }
    set(4, 60).unwrap();
    oracle.pass(&[PRICE; 3]);
    assert_eq!(oracle.latest().0, 0, "four are needed now");
    oracle.pass(&[PRICE; 4]);
    assert_eq!(oracle.usable().unwrap(), PRICE);
    oracle.net.tick(61);
    assert!(oracle.usable().is_err());
}

/// A round of a hundred feeds costs what a block can hold.
#[test]
fn feeds_cost_what_they_may() {
    let mut oracle = Oracle::new();
    for _ in 0..3 {
        let round = oracle.round();
        let feeds: Vec<_> = (0..4)
            .map(|i| {
                let name = format!("system-{i}");
                feed(&name, who(&name), round, PRICE + i)
            })
            .collect();
        let data = PriceOracle::submitCall { feeds }.abi_encode();
        let done = oracle
            .net
            .evm
            .send(who("relayer"), addresses::PRICE_ORACLE, U256::ZERO, data.into())
            .unwrap();
        println!("four feeds: {}", done.gas_used);
        assert!(done.gas_used < 350_000);
        oracle.net.tick(60);
    }
}
