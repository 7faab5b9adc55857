//! Prices in US dollars: what they are in OPG now, by the chain's oracle, and when they cannot be said (ADR 18).

use crate::{chain::Chain, rpc::RpcError};
use opg_primitives::money::{MoneyError, Price, UsdPrice};
use std::{
    sync::{PoisonError, RwLock},
    time::{Duration, Instant},
};

/// How often the oracle is asked.
pub(crate) const INTERVAL: Duration = Duration::from_secs(5);
/// What was seen longer ago says nothing: the chain did not answer since.
const PATIENCE: Duration = Duration::from_secs(60);

/// What `PriceOracle` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reading {
    /// Micro-USD of one OPG; 0 if there never was a price.
    pub(crate) price: u128,
    /// End of its newest round, Unix seconds.
    pub(crate) updated_at: u64,
    /// Whether it may be used.
    pub(crate) usable: bool,
    /// Whether it jumped.
    pub(crate) tripped: bool,
}

/// Why a price in USD is no price in OPG now. Nothing is quoted then: a guess would be somebody's loss.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unpriced {
    #[error("this model's price is in USD, and the chain's price oracle cannot be read")]
    Unread,
    #[error("this model's price is in USD, and the chain's price oracle has no price yet")]
    Never,
    #[error("this model's price is in USD, and the chain's price oracle waits after a jump of the price")]
    Tripped,
    #[error("this model's price is in USD, and the chain's price oracle was last fed for the time until {0}")]
    Old(u64),
    #[error(
        "this model's price is in USD, which is above the ask that is registered for it: the operator has to register a higher one (NodeRegistry.setAsk)"
    )]
    Ceiling,
    #[error("this model's price is in USD, which is below a quarter of its creator's reference price")]
    Floor,
    #[error(transparent)]
    Money(#[from] MoneyError),
}

/// The newest reading of the oracle.
#[derive(Debug, Default)]
pub(crate) struct Oracle(RwLock<Option<(Reading, Instant)>>);

impl Oracle {
    /// Asks the chain. What cannot be read leaves the last reading, which ages.
    pub(crate) async fn refresh(&self, chain: &Chain) -> Result<(), RpcError> {
        let reading = chain.oracle().await?;
        self.set(reading, Instant::now());
        Ok(())
    }

    fn set(&self, reading: Reading, at: Instant) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some((reading, at));
    }

    /// Micro-USD of one OPG.
    fn price(&self, now: Instant) -> Result<u128, Unpriced> {
        let seen = *self.0.read().unwrap_or_else(PoisonError::into_inner);
        match seen {
            Some((_, at)) if now.saturating_duration_since(at) > PATIENCE => Err(Unpriced::Unread),
            None => Err(Unpriced::Unread),
            Some((Reading { price: 0, .. }, _)) => Err(Unpriced::Never),
            Some((Reading { tripped: true, .. }, _)) => Err(Unpriced::Tripped),
            Some((reading, _)) if !reading.usable => Err(Unpriced::Old(reading.updated_at)),
            Some((reading, _)) => Ok(reading.price),
        }
    }

    /// What a price in USD is in OPG now, if validators will accept it: at most the node's registered ask, at least a quarter of
    /// the creator's reference price.
    pub(crate) fn quote(&self, usd: &UsdPrice, registered: &Price, reference: &Price) -> Result<Price, Unpriced> {
        self.quote_at(usd, registered, reference, Instant::now())
    }

    fn quote_at(&self, usd: &UsdPrice, registered: &Price, reference: &Price, now: Instant) -> Result<Price, Unpriced> {
        let price = usd.to_opg(self.price(now)?)?;
        if !price.is_at_most(registered) {
            return Err(Unpriced::Ceiling);
        }
        if !price.is_admissible_ask(reference) {
            return Err(Unpriced::Floor);
        }
        Ok(price)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opg_primitives::money::{Amount, WEI_PER_OPG};

    fn per_call(wei: u128) -> Price {
        Price {
            per_call: Amount(wei),
            ..Price::default()
        }
    }

    #[test]
    fn a_price_in_usd_needs_a_usable_oracle_and_stays_within_the_bounds() {
        // 500 micro-USD a call; at 0.25 USD that is 0.002 OPG
        let usd = UsdPrice {
            per_call: 500,
            ..UsdPrice::default()
        };
        let milli = WEI_PER_OPG / 1000;
        let (registered, reference) = (per_call(8 * milli), per_call(2 * milli));
        let oracle = Oracle::default();
        let now = Instant::now();
        let quote = |at| oracle.quote_at(&usd, &registered, &reference, at);
        assert_eq!(quote(now), Err(Unpriced::Unread));
        let good = Reading {
            price: 250_000,
            updated_at: 1_000,
            usable: true,
            tripped: false,
        };
        oracle.set(good, now);
        assert_eq!(quote(now), Ok(per_call(2 * milli)));
        // a third of a wei more is a wei more
        oracle.set(Reading { price: 300_000, ..good }, now);
        assert_eq!(quote(now), Ok(per_call(1_666_666_666_666_667)));
        for (reading, error) in [
            (
                Reading {
                    price: 0,
                    usable: false,
                    ..good
                },
                Unpriced::Never,
            ),
            (
                Reading {
                    usable: false,
                    tripped: true,
                    ..good
                },
                Unpriced::Tripped,
            ),
            (Reading { usable: false, ..good }, Unpriced::Old(1_000)),
            // OPG at a quarter of the price: four times as many, which is the registered ask, and one step further
            (Reading { price: 62_499, ..good }, Unpriced::Ceiling),
            (
                Reading {
                    price: 1_000_001,
                    ..good
                },
                Unpriced::Floor,
            ),
        ] {
            oracle.set(reading, now);
            assert_eq!(quote(now), Err(error), "{reading:?}");
        }
        for (price, wei) in [(62_500, 8 * milli), (1_000_000, milli / 2)] {
            oracle.set(Reading { price, ..good }, now);
            assert_eq!(quote(now), Ok(per_call(wei)));
        }
        oracle.set(good, now);
        assert_eq!(quote(now + PATIENCE), Ok(per_call(2 * milli)));
        assert_eq!(quote(now + PATIENCE + Duration::from_secs(1)), Err(Unpriced::Unread));
    }
}
