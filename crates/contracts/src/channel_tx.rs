//! System transactions for receipts that channels pay for, and for batches of both kinds (ledger.md §7, x402-contracts.md §6).
//!
//! A channel needs one slot for what it was charged and one for each set of terms, however many receipts it pays for. So entries
//! become groups, one for each channel and terms, with a bitmap of sequence numbers and the sum of the charges. As in
//! [`crate::system_tx`], everything is a pure function, and chunks are cut by an upper bound of their gas.

use crate::{
    BatchSettlement::ChannelConfig,
    bindings::{ReceiptLedger, receipt_ledger},
    system_tx::{self, BatchEntry, GAS_LIMIT},
};
use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::SolCall;
use std::collections::{BTreeMap, BTreeSet};

/// Receipts of one channel on the same terms, as the ledger's `recordChannels` takes them.
pub use ReceiptLedger::ChannelGroup;

/// What a chunk may need by its bound.
const GAS_BUDGET: u64 = GAS_LIMIT - GAS_LIMIT / 64;

// Upper bounds of what `recordChannels` uses, measured and held by tests in `opg-genesis`.
/// Intrinsic gas, dispatch, batch root and event.
const GAS_BASE: u64 = 60_000;
/// A group: its calldata, the look-ups of creator and operator, the channel's id, two new slots and the event.
const GAS_GROUP: u64 = 68_000;
/// A bitmap word that is touched for the first time, with its calldata.
const GAS_WORD: u64 = 25_500;
/// The same word again, in another group.
const GAS_WORD_AGAIN: u64 = 2_500;

/// One receipt that a channel pays for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelEntry {
    /// Node that signed the receipt.
    pub node_id: B256,
    /// Digest of the keyset that signed it.
    pub keyset: B256,
    /// Root of the served model.
    pub model_root: B256,
    /// Royalty of the receipt, basis points.
    pub royalty_bps: u16,
    /// Code of the served mode (receipt.md §4).
    pub mode: u8,
    /// Router named by the receipt.
    pub router: Option<Address>,
    /// The channel that pays.
    pub channel: ChannelConfig,
    /// Sequence number in the keyset's receipt chain.
    pub seq: u64,
    /// Charge, wei.
    pub charge: u128,
}

/// What the entries of one group have in common. All fields of the channel are in it, so equal keys are equal channels.
type Key = (B256, B256, B256, u16, u8, Address, [Address; 5], u64, B256);

impl ChannelEntry {
    fn key(&self) -> Key {
        let c = &self.channel;
        (
            self.node_id,
            self.keyset,
            self.model_root,
            self.royalty_bps,
            self.mode,
            self.router.unwrap_or_default(),
            [c.payer, c.payerAuthorizer, c.receiver, c.receiverAuthorizer, c.token],
            c.withdrawDelay.saturating_to(),
            c.salt,
        )
    }
}

/// Counts what a chunk costs at most.
#[derive(Debug, Default)]
struct Meter {
    entries: usize,
    gas: u64,
    groups: BTreeSet<Key>,
    words: BTreeSet<(B256, u64)>,
    pairs: BTreeSet<(Key, u64)>,
}

impl Meter {
    fn with(&self, entry: &ChannelEntry) -> u64 {
        let (key, word) = (entry.key(), entry.seq / 256);
        let mut gas = self.gas.max(GAS_BASE);
        if !self.groups.contains(&key) {
            gas += GAS_GROUP;
        }
        if !self.pairs.contains(&(key, word)) {
            let known = self.words.contains(&(entry.keyset, word));
            gas += if known { GAS_WORD_AGAIN } else { GAS_WORD };
        }
        gas
    }

    fn add(&mut self, entry: &ChannelEntry) {
        self.gas = self.with(entry);
        self.entries += 1;
        self.groups.insert(entry.key());
        self.words.insert((entry.keyset, entry.seq / 256));
        self.pairs.insert((entry.key(), entry.seq / 256));
    }
}

/// Cuts entries into chunks of consecutive ones, each bounded in gas.
fn cut(entries: &[ChannelEntry]) -> Vec<(&[ChannelEntry], u64)> {
    let mut chunks = Vec::new();
    let mut meter = Meter::default();
    let mut start = 0;
    for (end, entry) in entries.iter().enumerate() {
        if meter.entries > 0 && meter.with(entry) > GAS_BUDGET {
            chunks.push((&entries[start..end], meter.gas));
            meter = Meter::default();
            start = end;
        }
        meter.add(entry);
    }
    if start < entries.len() {
        chunks.push((&entries[start..], meter.gas));
    }
    chunks
}

/// The groups of every system transaction of these entries; none for none.
///
/// Chunks are consecutive in batch order, groups stand in order of their first entry, words in rising order.
#[must_use]
pub fn chunks(entries: &[ChannelEntry]) -> Vec<Vec<ChannelGroup>> {
    cut(entries).into_iter().map(|(chunk, _)| group(chunk)).collect()
}

/// Upper bound of the gas that all these system transactions use together.
#[must_use]
pub fn gas_bound(entries: &[ChannelEntry]) -> u64 {
    cut(entries).iter().map(|(_, gas)| gas).sum()
}

fn group(entries: &[ChannelEntry]) -> Vec<ChannelGroup> {
    let mut order: Vec<(&ChannelEntry, u128, BTreeMap<u64, U256>)> = Vec::new();
    let mut known: BTreeMap<Key, usize> = BTreeMap::new();
    for entry in entries {
        let index = *known.entry(entry.key()).or_insert_with(|| {
            order.push((entry, 0, BTreeMap::new()));
            order.len() - 1
        });
        let Some((_, charge, words)) = order.get_mut(index) else {
            continue;
        };
        // Validators admit no charge above the supply; a sum that stops at the top is what the ledger makes of it too.
        *charge = charge.saturating_add(entry.charge);
        let word = words.entry(entry.seq / 256).or_default();
        word.set_bit((entry.seq % 256) as usize, true);
    }
    order
        .into_iter()
        .map(|(first, charge, words)| ChannelGroup {
            nodeId: first.node_id,
            keyset: first.keyset,
            modelRoot: first.model_root,
            royaltyBps: first.royalty_bps,
            mode: first.mode,
            router: first.router.unwrap_or_default(),
            channel: ledger_config(&first.channel),
            words: words
                .into_iter()
                .map(|(word, bits)| ReceiptLedger::SeqWord { word, bits })
                .collect(),
            charge,
        })
        .collect()
}

/// The same configuration as the type that the ledger's binding has for it.
fn ledger_config(config: &ChannelConfig) -> receipt_ledger::BatchSettlement::ChannelConfig {
    receipt_ledger::BatchSettlement::ChannelConfig {
        payer: config.payer,
        payerAuthorizer: config.payerAuthorizer,
        receiver: config.receiver,
        receiverAuthorizer: config.receiverAuthorizer,
        token: config.token,
        withdrawDelay: config.withdrawDelay,
        salt: config.salt,
    }
}

/// Calldata of one system transaction: `ReceiptLedger.recordChannels`.
///
/// `height` and `count` are the block's height and number of receipts, `root` its batch root, `chunk` the transaction's index
/// among all system transactions of the batch.
#[must_use]
pub fn calldata(height: u64, root: B256, count: u32, chunk: u32, groups: Vec<ChannelGroup>) -> Bytes {
    ReceiptLedger::recordChannelsCall {
        height,
        batchRoot: root,
        count,
        chunk,
        groups,
    }
    .abi_encode()
    .into()
}

/// One receipt of a batch of both kinds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchItem {
    /// Paid by an authorization of its own.
    Payment(BatchEntry),
    /// Paid by a channel.
    Channel(ChannelEntry),
}

impl BatchItem {
    /// Node that signed the receipt.
    #[must_use]
    pub const fn node_id(&self) -> B256 {
        match self {
            Self::Payment(entry) => entry.node_id,
            Self::Channel(entry) => entry.node_id,
        }
    }

    /// Digest of the keyset that signed it.
    #[must_use]
    pub const fn keyset(&self) -> B256 {
        match self {
            Self::Payment(entry) => entry.keyset,
            Self::Channel(entry) => entry.keyset,
        }
    }

    /// Sequence number in the keyset's receipt chain.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        match self {
            Self::Payment(entry) => entry.seq,
            Self::Channel(entry) => entry.seq,
        }
    }

    /// What sorts receipts so that few and large groups come out: the common terms, then the sequence number.
    #[must_use]
    pub const fn order(&self) -> (B256, B256, B256, u16, u64) {
        match self {
            Self::Payment(e) => (e.node_id, e.keyset, e.model_root, e.royalty_bps, e.seq),
            Self::Channel(e) => (e.node_id, e.keyset, e.model_root, e.royalty_bps, e.seq),
        }
    }

    /// The receipt as paid by an authorization of its own.
    #[must_use]
    pub const fn payment(&self) -> Option<&BatchEntry> {
        match self {
            Self::Payment(entry) => Some(entry),
            Self::Channel(_) => None,
        }
    }
}

/// Both kinds apart, each in batch order.
fn apart(items: &[BatchItem]) -> (Vec<BatchEntry>, Vec<ChannelEntry>) {
    let mut payments = Vec::new();
    let mut channels = Vec::new();
    for item in items {
        match item {
            BatchItem::Payment(entry) => payments.push(*entry),
            BatchItem::Channel(entry) => channels.push(entry.clone()),
        }
    }
    (payments, channels)
}

/// Calldata of all system transactions of a batch, in order: first those of payments, then those of channels.
#[must_use]
pub fn transactions(height: u64, root: B256, items: &[BatchItem]) -> Vec<Bytes> {
    let count = u32::try_from(items.len()).unwrap_or(u32::MAX);
    let (payments, channels) = apart(items);
    let mut index = 0u32..;
    let mut next = || index.next().unwrap_or(u32::MAX);
    let mut transactions: Vec<Bytes> = system_tx::chunks(&payments)
        .into_iter()
        .map(|groups| system_tx::calldata(height, root, count, next(), groups))
        .collect();
    transactions.extend(
        chunks(&channels)
            .into_iter()
            .map(|groups| calldata(height, root, count, next(), groups)),
    );
    transactions
}

/// Upper bound of the gas that all system transactions of a batch use together.
#[must_use]
pub fn batch_gas_bound(items: &[BatchItem]) -> u64 {
    let (payments, channels) = apart(items);
    system_tx::gas_bound(&payments) + gas_bound(&channels)
}

/// How many items, from the first, fit a block whose batch may need `budget` gas by its bound (at most
/// [`system_tx::MAX_BLOCK_GAS`]); for payments alone it is [`system_tx::fitting_prefix`]. A proposer cuts its batch here, a
/// validator refuses a longer one.
#[must_use]
pub fn fitting_prefix(items: &[BatchItem], budget: u64) -> usize {
    // The bound never falls when an item is added, so bisection finds the last prefix that fits.
    let (mut fits, mut too_long) = (0, items.len() + 1);
    while too_long - fits > 1 {
        let middle = fits + (too_long - fits) / 2;
        if items
            .get(..middle)
            .is_some_and(|prefix| batch_gas_bound(prefix) <= budget)
        {
            fits = middle;
        } else {
            too_long = middle;
        }
    }
    fits
}
