//! Whether the node's bond covers what it earns: validators count no receipt of a node whose bond is below its fees of today and yesterday
//! (docs/specs/ledger.md §4), so no call is sold that could not be paid.

use crate::{chain::Chain, metrics::Metrics, rpc::RpcError};
use opg_primitives::{ids::NodeId, money::Amount};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Seconds for which a charge is counted here before the ledger's own count has it: recorded and settled takes seconds, or as long as a channel
/// waits for a claim. What is later still is counted by the ledger alone.
const OWN_SECONDS: u64 = 600;

/// Nobody is refused by what is older than this, seconds.
const FRESH_SECONDS: u64 = 2;

/// What the chain says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) bond: Amount,
    /// The network's least.
    pub(crate) least: Amount,
    /// Fees of today and yesterday.
    pub(crate) fees: Amount,
}

/// The bond as last read, and what was charged lately.
#[derive(Debug, Default)]
pub(crate) struct Bond(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    standing: Option<Standing>,
    /// Unix seconds of the last attempt to read it.
    read_at: u64,
    /// Which stretch of [`OWN_SECONDS`] it is, what was charged in it, and in the one before.
    stretch: u64,
    current: Amount,
    before: Amount,
}

impl State {
    /// What the ledger has counted since the last reading was charged here before, and is counted once.
    fn learn(&mut self, standing: Standing) {
        let known = self.standing.map_or(standing.fees, |before| before.fees);
        let counted = standing.fees.saturating_sub(known);
        let rest = counted.saturating_sub(self.before);
        self.before = self.before.saturating_sub(counted);
        self.current = self.current.saturating_sub(rest);
        self.standing = Some(standing);
    }

    fn turn(&mut self, now: u64) {
        let stretch = now / OWN_SECONDS;
        if stretch > self.stretch {
            self.before = if stretch == self.stretch + 1 {
                self.current
            } else {
                Amount::ZERO
            };
            self.current = Amount::ZERO;
            self.stretch = stretch;
        }
    }
}

impl Bond {
    /// Reads the chain.
    ///
    /// # Errors
    /// If no full node answers; then what was read before stays.
    pub(crate) async fn refresh(
        &self,
        chain: &Chain,
        node: NodeId,
        now: u64,
        metrics: &Metrics,
    ) -> Result<(), RpcError> {
        self.lock().read_at = now;
        let standing = chain.standing(node.0, now).await?;
        if let Some(standing) = standing {
            metrics.bond(standing.bond, standing.fees);
            self.lock().learn(standing);
        }
        Ok(())
    }

    /// Whether it may be read again before a caller is refused for what was read.
    pub(crate) fn is_stale(&self, now: u64) -> bool {
        now >= self.lock().read_at.saturating_add(FRESH_SECONDS)
    }

    /// A receipt was signed.
    pub(crate) fn charged(&self, charge: Amount, now: u64) {
        let mut state = self.lock();
        state.turn(now);
        state.current = state.current.saturating_add(charge);
    }

    /// Whether a call that costs up to `most` would still be covered.
    ///
    /// # Errors
    /// The bond, and what it would have to be.
    pub(crate) fn covers(&self, most: Amount, now: u64) -> Result<(), (Amount, Amount)> {
        let mut state = self.lock();
        state.turn(now);
        let Some(Standing { bond, least, fees }) = state.standing else {
            return Ok(());
        };
        let own = state.current.saturating_add(state.before);
        let needed = fees.saturating_add(own).saturating_add(most).max(least);
        if bond < needed { Err((bond, needed)) } else { Ok(()) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Numbers only: a panic elsewhere left them as they were.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bond(bond: u128, fees: u128) -> Bond {
        let watch = Bond::default();
        watch.lock().standing = Some(Standing {
            bond: Amount(bond),
            least: Amount(1_000),
            fees: Amount(fees),
        });
        watch
    }

    #[test]
    fn nothing_is_sold_beyond_the_bond() {
        let watch = bond(1_000, 900);
        assert_eq!(watch.covers(Amount(100), 0), Ok(()));
        assert_eq!(watch.covers(Amount(101), 0), Err((Amount(1_000), Amount(1_001))));
        watch.charged(Amount(60), 0);
        assert_eq!(watch.covers(Amount(40), 0), Ok(()));
        assert_eq!(watch.covers(Amount(41), 0), Err((Amount(1_000), Amount(1_001))));
        // Below the least nothing counts at all.
        assert_eq!(bond(999, 0).covers(Amount::ZERO, 0), Err((Amount(999), Amount(1_000))));
        // Not read yet: the receipts may be refused, but nobody is refused for what is not known.
        assert_eq!(Bond::default().covers(Amount(1), 0), Ok(()));
    }

    #[test]
    fn what_the_ledger_counts_is_counted_once() {
        let watch = bond(1_000, 100);
        watch.charged(Amount(50), OWN_SECONDS - 1);
        watch.charged(Amount(200), OWN_SECONDS);
        let fees = |fees| {
            let mut state = watch.lock();
            let standing = state.standing.unwrap();
            state.learn(Standing {
                fees: Amount(fees),
                ..standing
            });
        };
        let room = || {
            (0..=1_000)
                .rev()
                .find(|most| watch.covers(Amount(*most), OWN_SECONDS).is_ok())
        };
        assert_eq!(room(), Some(650));
        fees(170);
        assert_eq!(room(), Some(650), "70 of the 250 are counted by the ledger now");
        fees(350);
        assert_eq!(room(), Some(650), "and now all of them");
        // Yesterday's are gone: what was charged here is not.
        fees(0);
        assert_eq!(room(), Some(1_000));
        watch.charged(Amount(10), OWN_SECONDS);
        assert_eq!(room(), Some(990));
        // Fees that this process did not charge.
        fees(500);
        assert_eq!(room(), Some(500));
    }

    #[test]
    fn own_charges_count_until_the_ledger_has_them() {
        let watch = bond(1_000, 0);
        watch.charged(Amount(700), OWN_SECONDS - 1);
        let most = Amount(301);
        for now in [OWN_SECONDS - 1, OWN_SECONDS, 2 * OWN_SECONDS - 1] {
            assert!(watch.covers(most, now).is_err(), "{now}");
        }
        assert_eq!(watch.covers(most, 2 * OWN_SECONDS), Ok(()));
        // A clock that goes back forgets nothing.
        watch.charged(Amount(700), 2 * OWN_SECONDS);
        assert!(watch.covers(most, 0).is_err());
        // And a long silence everything.
        assert_eq!(watch.covers(most, 90 * OWN_SECONDS), Ok(()));
    }
}
