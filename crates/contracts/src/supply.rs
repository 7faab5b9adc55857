//! The buckets of the supply and their schedules (economics.md §2).

use crate::genesis_file::VestingSchedule;
use alloy_primitives::{Address, address};
use opg_primitives::money::{Amount, WEI_PER_OPG};

/// Seconds of a month in schedules: a twelfth of 365.25 days.
pub const MONTH: u64 = 2_629_800;

const MILLION: u128 = 1_000_000 * WEI_PER_OPG;

/// One bucket of the supply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Name for people.
    pub label: &'static str,
    /// Address of its contract on the network's own chain.
    pub address: Address,
    /// The whole bucket.
    pub total: Amount,
    /// What is free at the start.
    pub at_start: Amount,
    /// Months in which nothing more is released.
    pub cliff_months: u64,
    /// Months after the cliff over which the rest is released.
    pub duration_months: u64,
}

impl Bucket {
    /// The bucket's schedule from `start` (Unix seconds) on. `spent` of what is free at the start was allocated to accounts in
    /// block 0 instead.
    #[must_use]
    pub const fn schedule(&self, beneficiary: Address, start: u64, spent: Amount) -> VestingSchedule {
        VestingSchedule {
            address: self.address,
            beneficiary,
            at_start: Amount(self.at_start.0.saturating_sub(spent.0)),
            start,
            cliff: self.cliff_months * MONTH,
            duration: self.duration_months * MONTH,
        }
    }
}

const fn bucket(
    label: &'static str,
    address: Address,
    millions: u128,
    at_start: u128,
    cliff_months: u64,
    duration_months: u64,
) -> Bucket {
    Bucket {
        label,
        address,
        total: Amount(millions * MILLION),
        at_start: Amount(at_start),
        cliff_months,
        duration_months,
    }
}

/// What the network's own accounts start with comes out of this bucket (D5).
pub const ECOSYSTEM: Bucket = bucket(
    "Ecosystem",
    address!("0x0000000000000000000000000000000000002001"),
    400,
    40 * MILLION,
    0,
    60,
);

/// Rewards of staking; its beneficiary is the contract that divides them.
pub const STAKING_REWARDS: Bucket = bucket(
    "Staking rewards",
    address!("0x0000000000000000000000000000000000002005"),
    100,
    0,
    0,
    96,
);

/// Paid out to a published list instead of a beneficiary.
pub const AIRDROP: Bucket = bucket(
    "Airdrop",
    address!("0x0000000000000000000000000000000000002007"),
    40,
    40 * MILLION,
    0,
    0,
);

/// All buckets; their totals are the supply.
pub const BUCKETS: [Bucket; 7] = [
    ECOSYSTEM,
    bucket(
        "Foundation",
        address!("0x0000000000000000000000000000000000002002"),
        150,
        150 * MILLION / 3,
        0,
        48,
    ),
    bucket(
        "Core contributors",
        address!("0x0000000000000000000000000000000000002003"),
        150,
        0,
        12,
        36,
    ),
    bucket(
        "Investors, advisors",
        address!("0x0000000000000000000000000000000000002004"),
        100,
        0,
        12,
        36,
    ),
    STAKING_REWARDS,
    bucket(
        "Liquidity and launch",
        address!("0x0000000000000000000000000000000000002006"),
        60,
        60 * MILLION,
        0,
        0,
    ),
    AIRDROP,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genesis_file::SUPPLY;

    #[test]
    fn buckets_are_the_supply() {
        assert_eq!(BUCKETS.iter().map(|bucket| bucket.total.0).sum::<u128>(), SUPPLY);
        let free: u128 = BUCKETS.iter().map(|bucket| bucket.at_start.0).sum();
        assert_eq!(free, 190 * MILLION);
    }

    /// Months and millions of the reference's table, all streams running, to the third digit.
    #[test]
    fn circulating_supply_follows_the_table() {
        let start = 1_776_774_600;
        let circulating = |time| -> u128 {
            BUCKETS
                .iter()
                .map(|bucket| {
                    bucket
                        .schedule(Address::ZERO, start, Amount::ZERO)
                        .released(bucket.total, time)
                        .0
                })
                .sum()
        };
        for (month, thousands) in [
            (0, 190_000),
            (1, 199_125),
            (6, 244_750),
            (12, 299_500),
            (13, 315_569),
            (18, 395_917),
            (24, 492_333),
            (36, 685_167),
            (48, 878_000),
            (60, 962_500),
            (96, 1_000_000),
            (200, 1_000_000),
        ] {
            let released = circulating(start + month * MONTH);
            let rounded = (released + MILLION / 2_000) / (MILLION / 1_000);
            assert_eq!(rounded, thousands, "month {month}");
        }
        assert_eq!(circulating(start - 1), 0);
        assert_eq!(circulating(start + 96 * MONTH), SUPPLY);
        // It never falls, also between two months.
        let mut last = 0;
        for step in 0..2_000 {
            let now = circulating(start + step * 127_363);
            assert!(now >= last);
            last = now;
        }
    }
}
