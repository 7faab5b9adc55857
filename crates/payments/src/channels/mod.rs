//! The books of all channels to one receiver: exactly-once reservation, charges, deposits, claims, refunds (payments.md §8).
//!
//! One process is the single writer of a channel; the journal's file lock keeps a second one out. A call is parsed, its channel is
//! found, its voucher verified, its bound reserved in a sharded map; after the work the charge and the voucher go to the journal in
//! one write, and are durable when the returned [`Commit`] resolves. No chain is asked in between.
//!
//! Two rules of admission:
//! - stock clients: `voucher.maxClaimableAmount == reported + amount`, one call in flight. Copies of a header are refused: the first
//!   one makes the channel busy, and its charge moves the expected ceiling on. A call that was charged nothing may be repeated.
//! - headroom (own extension): several calls at once, while charges and the bounds in flight fit under the highest ceiling. Each call
//!   has a ceiling of its own, used once, so that a copied header is refused whatever its call cost.
//!
//! Owed and reported: a stream's header leaves before its cost is known, so it reports the bound less what was over-reported before
//! (`credit`), and at least one wei, so that no header fits a second time. `charged <= reported <= ceiling` always holds; only `charged` is claimed on chain, and refunds are exact.
//!
//! Safety: a voucher is taken only up to the balance that stays even if a requested withdrawal is finalised; balances count once the
//! caller has seen them on chain at the depth that it trusts.

mod call;
mod error;
mod money;
mod record;
#[cfg(test)]
mod tests;

pub use call::{Call, Charged, Mode, Reserved, Ticket};
pub use error::ChannelError;
pub use money::{ClaimRow, RefundPlan};
pub use record::{ChainState, DepositRecord, DepositState, Finished, PendingRefund, SentClaim, Withdrawal};

use crate::{
    channel::{ChannelConfig, ReceiverTerms, plan::ChannelView},
    eip712::Domain,
    journal::{Commit, Journal, JournalError},
    signature::SignerKey,
    x402::{ChannelState, VoucherState},
};
use alloy_primitives::B256;
use call::Running;
use opg_primitives::money::Amount;
use record::{Hot, Slow};
use redb::{ReadableTable, TableDefinition, TableError};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, atomic::AtomicU64},
};

const SHARDS: usize = 64;
/// Finished calls with a payment identifier that are remembered, per channel.
pub const REMEMBERED_CALLS: usize = 16;
/// Calls in flight on one channel under the headroom rule.
pub const MAX_IN_FLIGHT: usize = 32;

const SLOW: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("channels");
const HOT: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("channel_charges");
/// Key: channel id and slot.
const CALLS: TableDefinition<'_, [u8; 33], &[u8]> = TableDefinition::new("channel_calls");

struct Channel {
    slow: Slow,
    hot: Hot,
    /// The authorizer's public key, once it signed something.
    key: Option<SignerKey>,
    running: Vec<Running>,
    /// Ceilings that headroom calls used, above `floor`.
    used: BTreeSet<Amount>,
    /// Ceilings up to here are used.
    floor: Amount,
    finished: VecDeque<Finished>,
    next_slot: u8,
}

impl Channel {
    fn new(slow: Slow, hot: Hot) -> Self {
        Self {
            slow,
            key: None,
            running: Vec::new(),
            used: BTreeSet::new(),
            floor: hot.headroom_floor,
            hot,
            finished: VecDeque::new(),
            next_slot: 0,
        }
    }

    /// What was over-reported to the client so far.
    fn credit(&self) -> Amount {
        self.hot.reported.saturating_sub(self.hot.charged)
    }

    fn bounds_in_flight(&self) -> Amount {
        self.running
            .iter()
            .fold(Amount::ZERO, |sum, running| sum.saturating_add(running.bound))
    }

    fn state(&self, id: B256) -> ChannelState {
        let chain = &self.slow.chain;
        ChannelState {
            channel_id: id,
            balance: chain.balance,
            total_claimed: chain.total_claimed,
            withdraw_requested_at: chain.withdrawal.map_or(0, |w| w.requested_at),
            refund_nonce: chain.refund_nonce,
            charged_cumulative: Some(self.hot.reported),
        }
    }

    fn voucher(&self) -> Option<VoucherState> {
        (!self.hot.signature.is_empty()).then(|| VoucherState {
            signed_max_claimable: self.hot.ceiling,
            signature: self.hot.signature.clone(),
        })
    }
}

/// The channels of one receiver. All methods may be called from any thread.
pub struct Channels {
    journal: Arc<Journal>,
    domain: Domain,
    terms: ReceiverTerms,
    shards: Box<[Mutex<HashMap<B256, Channel>>]>,
    tickets: AtomicU64,
}

impl std::fmt::Debug for Channels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channels")
            .field("terms", &self.terms)
            .field("channels", &self.len())
            .finish_non_exhaustive()
    }
}

impl Channels {
    /// Loads what the journal holds.
    ///
    /// # Errors
    /// The journal cannot be read, or a record in it cannot be decoded.
    pub fn open(journal: Arc<Journal>, chain_id: u64, terms: ReceiverTerms) -> Result<Self, ChannelError> {
        let this = Self {
            journal,
            domain: Domain::batch_settlement(chain_id),
            terms,
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            tickets: AtomicU64::new(1),
        };
        this.load()?;
        Ok(this)
    }

    fn load(&self) -> Result<(), ChannelError> {
        let read = self.journal.read()?;
        let damaged = |channel: B256, problem: &str| ChannelError::Damaged {
            channel,
            problem: problem.to_owned(),
        };
        let slow = match read.open_table(SLOW) {
            Ok(table) => table,
            Err(TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(error) => return Err(JournalError::from(error).into()),
        };
        // One write creates all three tables, so the others exist where the first does.
        let hot = read.open_table(HOT).map_err(JournalError::from)?;
        for entry in slow.iter().map_err(JournalError::from)? {
            let (key, bytes) = entry.map_err(JournalError::from)?;
            let id = B256::new(key.value());
            let slow: Slow = serde_json::from_slice(bytes.value()).map_err(|error| damaged(id, &error.to_string()))?;
            let bytes = hot
                .get(id.0)
                .map_err(JournalError::from)?
                .ok_or_else(|| damaged(id, "no charges"))?;
            let hot = Hot::decode(bytes.value()).ok_or_else(|| damaged(id, "charges"))?;
            self.shard(id).insert(id, Channel::new(slow, hot));
        }
        let calls = read.open_table(CALLS).map_err(JournalError::from)?;
        for entry in calls.iter().map_err(JournalError::from)? {
            let (key, bytes) = entry.map_err(JournalError::from)?;
            let key = key.value();
            let id = B256::from_slice(&key[..32]);
            let finished = Finished::decode(bytes.value()).ok_or_else(|| damaged(id, "finished call"))?;
            if let Some(channel) = self.shard(id).get_mut(&id) {
                // Which slot is the oldest is forgotten; any may be overwritten next.
                channel.finished.push_back(finished);
                channel.next_slot = (key[32] + 1) % REMEMBERED_CALLS as u8;
            }
        }
        Ok(())
    }

    /// The receiver's demands on channels.
    #[must_use]
    pub const fn terms(&self) -> &ReceiverTerms {
        &self.terms
    }

    /// Number of channels.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a channel is known.
    #[must_use]
    pub fn contains(&self, id: B256) -> bool {
        self.shard(id).contains_key(&id)
    }

    /// Starts the books of a channel as the chain knows it; zeros for one that the first deposit will open. What was claimed counts
    /// as charged. Known channels are [observed](Self::observe) instead.
    ///
    /// # Errors
    /// The channel is not one that this receiver takes.
    pub fn open_channel(
        &self,
        config: ChannelConfig,
        chain: ChainState,
        now: u64,
    ) -> Result<Option<Commit>, ChannelError> {
        config.check(&self.terms)?;
        self.journal.health()?;
        let id = config.id(&self.domain);
        let mut shard = self.shard(id);
        if shard.contains_key(&id) {
            drop(shard);
            return self.observe(id, chain, now);
        }
        let slow = Slow {
            config,
            chain,
            deposits: Vec::new(),
            claim: None,
            refund: None,
        };
        let hot = Hot {
            charged: chain.total_claimed,
            reported: chain.total_claimed,
            ..Hot::default()
        };
        let channel = Channel::new(slow, hot);
        let commit = self.write_slow(id, &channel, true);
        shard.insert(id, channel);
        Ok(Some(commit))
    }

    /// The channel as the client should know it, and the newest voucher held.
    #[must_use]
    pub fn state(&self, id: B256) -> Option<(ChannelState, Option<VoucherState>)> {
        let shard = self.shard(id);
        let channel = shard.get(&id)?;
        Some((channel.state(id), channel.voucher()))
    }

    /// What is owed on a channel since it was opened.
    #[must_use]
    pub fn charged(&self, id: B256) -> Option<Amount> {
        self.shard(id).get(&id).map(|channel| channel.hot.charged)
    }

    /// Where a deposit stands; `None` if it is not in the books.
    #[must_use]
    pub fn deposit(&self, id: B256, key: B256) -> Option<DepositState> {
        let shard = self.shard(id);
        let deposits = &shard.get(&id)?.slow.deposits;
        deposits.iter().find(|deposit| deposit.key() == key).map(|d| d.state)
    }

    /// The result of a call that was served under the same payment identifier, for the same payment.
    #[must_use]
    pub fn finished(&self, call: &Call<'_>) -> Option<Finished> {
        let identifier = call.identifier?;
        let id = call.payload.voucher.voucher.channel_id;
        let shard = self.shard(id);
        let finished = &shard.get(&id)?.finished;
        finished
            .iter()
            .find(|finished| finished.identifier == identifier)
            .copied()
    }

    /// Whether everything that is owed on a channel is claimed.
    #[must_use]
    pub fn is_claimed(&self, id: B256) -> Option<bool> {
        let shard = self.shard(id);
        let channel = shard.get(&id)?;
        Some(channel.slow.chain.total_claimed >= channel.hot.charged)
    }

    /// Every channel with something to do on chain, for the planner.
    #[must_use]
    pub fn views(&self) -> Vec<ChannelView> {
        let mut views = Vec::new();
        for shard in &self.shards {
            for (id, channel) in lock(shard).iter() {
                let chain = &channel.slow.chain;
                let claimable = channel.hot.charged.min(chain.balance);
                views.push(ChannelView {
                    channel_id: *id,
                    claimable,
                    total_claimed: chain.total_claimed,
                    unclaimed_since: channel.hot.unclaimed_since,
                    withdraw_delay: channel.slow.config.withdraw_delay,
                    withdrawal_requested_at: chain.withdrawal.map(|w| w.requested_at),
                    in_flight: channel.slow.claim.is_some(),
                });
            }
        }
        views.sort_unstable_by_key(|view| view.channel_id);
        views
    }

    fn shard(&self, id: B256) -> MutexGuard<'_, HashMap<B256, Channel>> {
        // Ids are hashes: any byte spreads them.
        lock(&self.shards[usize::from(id.0[31]) % SHARDS])
    }

    /// Queues the slow part, under the shard's lock: the journal's order is the order of changes.
    fn write_slow(&self, id: B256, channel: &Channel, with_hot: bool) -> Commit {
        let slow = serde_json::to_vec(&channel.slow);
        let hot = with_hot.then(|| channel.hot.encode());
        self.journal.write(move |transaction| {
            let slow = slow.map_err(|e| redb::Error::Corrupted(e.to_string()))?;
            transaction.open_table(SLOW)?.insert(id.0, slow.as_slice())?;
            if let Some(hot) = hot {
                transaction.open_table(HOT)?.insert(id.0, hot.as_slice())?;
                transaction.open_table(CALLS)?;
            }
            Ok(())
        })
    }
}

/// Every critical section computes first and assigns last, so a panic inside leaves the maps whole.
fn lock(shard: &Mutex<HashMap<B256, Channel>>) -> MutexGuard<'_, HashMap<B256, Channel>> {
    shard.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
