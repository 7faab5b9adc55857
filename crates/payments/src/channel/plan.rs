//! When to claim, and what together: pure decisions over what the books and the chain say (payments.md §8).

use alloy_primitives::{Address, B256};
use opg_primitives::money::Amount;
use std::collections::BTreeMap;

/// Rows of one claim transaction.
pub const MAX_ROWS: usize = 100;
/// A withdrawal is answered by a claim within this many blocks.
pub const WATCH_BLOCKS: u64 = 2;

/// A channel as the planner sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelView {
    /// The channel.
    pub channel_id: B256,
    /// Owed in all, as far as the channel can pay it.
    pub claimable: Amount,
    /// Claimed on chain.
    pub total_claimed: Amount,
    /// Since when something is owed and not claimed, Unix seconds; 0: nothing is.
    pub unclaimed_since: u64,
    /// The channel's delay, seconds.
    pub withdraw_delay: u64,
    /// When a pending withdrawal was requested, Unix seconds.
    pub withdrawal_requested_at: Option<u64>,
    /// A claim of it is in a transaction whose outcome is not known.
    pub in_flight: bool,
}

impl ChannelView {
    /// What a claim would move.
    #[must_use]
    pub const fn unclaimed(&self) -> Amount {
        self.claimable.saturating_sub(self.total_claimed)
    }
}

/// When a claim is worth its gas.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimPolicy {
    /// Claim a channel that owes at least this: the larger of 50 times the gas cost of its row and the exposure cap.
    pub min_value: Amount,
    /// Most rows of one transaction, at most [`MAX_ROWS`].
    pub max_rows: usize,
}

/// Why a channel is claimed now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// The payer is withdrawing.
    Withdrawal,
    /// A third of the withdraw delay has passed since the first charge.
    Age,
    /// It owes enough.
    Value,
}

/// Channels of one claim transaction, to be followed by `settle(receiver, token)` in order under the same nonce sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimBatch {
    /// The most urgent of its channels.
    pub urgency: Urgency,
    /// Channels.
    pub channels: Vec<B256>,
}

/// Contract call that ends a round of claims.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settle {
    /// Receiver.
    pub receiver: Address,
    /// Token.
    pub token: Address,
}

/// Why this channel should be claimed at `now`, if it should.
#[must_use]
pub fn urgency(view: &ChannelView, policy: &ClaimPolicy, now: u64) -> Option<Urgency> {
    let unclaimed = view.unclaimed();
    if view.in_flight || unclaimed.is_zero() {
        return None;
    }
    if view.withdrawal_requested_at.is_some() {
        return Some(Urgency::Withdrawal);
    }
    let age = match view.unclaimed_since {
        0 => 0,
        since => now.saturating_sub(since),
    };
    if age > view.withdraw_delay / 3 {
        return Some(Urgency::Age);
    }
    (unclaimed >= policy.min_value).then_some(Urgency::Value)
}

/// The claims to send now, most urgent first, in batches of at most [`ClaimPolicy::max_rows`].
#[must_use]
pub fn plan(views: &[ChannelView], policy: &ClaimPolicy, now: u64) -> Vec<ClaimBatch> {
    let rows = policy.max_rows.clamp(1, MAX_ROWS);
    let mut due: Vec<(Urgency, B256)> = views
        .iter()
        .filter_map(|view| Some((urgency(view, policy, now)?, view.channel_id)))
        .collect();
    due.sort_unstable();
    due.chunks(rows)
        .filter_map(|chunk| {
            Some(ClaimBatch {
                urgency: chunk.first()?.0,
                channels: chunk.iter().map(|(_, id)| *id).collect(),
            })
        })
        .collect()
}

/// Sees withdrawals and says, block by block, which channels must be claimed now. It keeps asking until the claim is on chain, so
/// that a dropped transaction is replaced.
#[derive(Debug, Clone, Default)]
pub struct Watchtower {
    /// Channel and block of its first unanswered withdrawal.
    seen: BTreeMap<B256, u64>,
}

/// A claim that the watchtower wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alarm {
    /// The channel.
    pub channel_id: B256,
    /// Block of the withdrawal request.
    pub requested_in: u64,
    /// The claim should be in this block or an earlier one.
    pub due: u64,
    /// `due` has passed: raise the fee.
    pub late: bool,
}

impl Watchtower {
    /// Nothing seen yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Block `number` was seen, with these withdrawal requests in it; `views` are the books after it. A request in a block that was
    /// seen before (a reorganisation) counts from now.
    pub fn on_block(&mut self, number: u64, withdrawals: &[B256], views: &[ChannelView]) -> Vec<Alarm> {
        let views: BTreeMap<B256, &ChannelView> = views.iter().map(|view| (view.channel_id, view)).collect();
        for id in withdrawals {
            self.seen.entry(*id).or_insert(number);
        }
        for (id, view) in &views {
            // Also what was requested while this process was down.
            if view.withdrawal_requested_at.is_some() && !view.unclaimed().is_zero() {
                self.seen.entry(*id).or_insert(number);
            }
        }
        // A channel leaves when everything is claimed; it comes back with its next charge, while the withdrawal is pending.
        self.seen
            .retain(|id, _| views.get(id).is_some_and(|view| !view.unclaimed().is_zero()));
        self.seen
            .iter()
            .map(|(id, block)| Alarm {
                channel_id: *id,
                requested_in: *block,
                due: block.saturating_add(WATCH_BLOCKS),
                late: number >= block.saturating_add(WATCH_BLOCKS),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: ClaimPolicy = ClaimPolicy {
        min_value: Amount(1000),
        max_rows: 100,
    };

    fn view(id: u64, owed: u128) -> ChannelView {
        ChannelView {
            channel_id: B256::from(alloy_primitives::U256::from(id)),
            claimable: Amount(owed + 10),
            total_claimed: Amount(10),
            unclaimed_since: 100,
            withdraw_delay: 3600,
            withdrawal_requested_at: None,
            in_flight: false,
        }
    }

    #[test]
    fn each_reason_alone_is_enough_and_none_is_not() {
        let at = |view: ChannelView, now| urgency(&view, &POLICY, now);
        assert_eq!(at(view(1, 999), 100), None);
        assert_eq!(at(view(1, 1000), 100), Some(Urgency::Value));
        assert_eq!(at(view(1, 1), 100 + 1200), None);
        assert_eq!(at(view(1, 1), 100 + 1201), Some(Urgency::Age));
        let leaving = ChannelView {
            withdrawal_requested_at: Some(1),
            ..view(1, 1)
        };
        assert_eq!(at(leaving, 100), Some(Urgency::Withdrawal));
        assert_eq!(
            at(
                ChannelView {
                    in_flight: true,
                    ..leaving
                },
                100
            ),
            None
        );
        assert_eq!(
            at(
                ChannelView {
                    claimable: Amount(10),
                    ..leaving
                },
                100
            ),
            None
        );
    }

    #[test]
    fn batches_are_full_ordered_and_whole() {
        let mut views: Vec<_> = (0..250).map(|id| view(id, 5000)).collect();
        views[249].withdrawal_requested_at = Some(1);
        views.push(view(300, 5));
        let batches = plan(&views, &POLICY, 100);
        assert_eq!(
            batches.iter().map(|b| b.channels.len()).collect::<Vec<_>>(),
            [100, 100, 50]
        );
        assert_eq!(batches[0].urgency, Urgency::Withdrawal);
        assert_eq!(batches[0].channels[0], views[249].channel_id);
        let mut all: Vec<_> = batches.into_iter().flat_map(|b| b.channels).collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 250);
    }

    #[test]
    fn the_watchtower_asks_until_the_claim_is_on_chain() {
        let mut tower = Watchtower::new();
        let mut channel = view(1, 50);
        assert_eq!(tower.on_block(10, &[], &[channel]), []);
        channel.withdrawal_requested_at = Some(1);
        let id = channel.channel_id;
        let alarm = |late| Alarm {
            channel_id: id,
            requested_in: 11,
            due: 13,
            late,
        };
        assert_eq!(tower.on_block(11, &[id], &[channel]), [alarm(false)]);
        channel.in_flight = true;
        assert_eq!(tower.on_block(12, &[], &[channel]), [alarm(false)]);
        assert_eq!(tower.on_block(13, &[], &[channel]), [alarm(true)]);
        channel.total_claimed = channel.claimable;
        assert_eq!(tower.on_block(14, &[], &[channel]), []);
        // One more charge while the withdrawal is pending.
        channel.claimable = Amount(channel.claimable.wei() + 1);
        assert_eq!(tower.on_block(15, &[], &[channel]).len(), 1);
        // A withdrawal that was requested while nobody watched.
        assert_eq!(Watchtower::new().on_block(20, &[], &[channel]).len(), 1);
    }
}
