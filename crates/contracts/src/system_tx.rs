//! System transactions: how a block's batch of receipts becomes calldata of the ledger (ledger.md §7).
//!
//! Proposer and validators derive the same transactions from the same batch, so everything here is a pure function.
//! A transaction must never run out of gas: that would make every block with this batch invalid. Chunks are
//! therefore cut by [`gas_bound`], an upper bound of the gas that the ledger can use for them, as well as by number of entries.

use crate::{bindings::ReceiptLedger, payment::PaymentMethod};
use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::SolCall;
use std::collections::BTreeSet;

/// Entries of one node, keyset, model, terms and payment method, as the ledger's `record` takes them.
pub use ReceiptLedger::Group;

/// Gas limit of every system transaction, below EIP-7825's cap of 2^24.
pub const GAS_LIMIT: u64 = 16_000_000;
/// What a chunk may need by its bound. A 64th is left, because that much stays behind when the ledger calls the vault (EIP-150).
const GAS_BUDGET: u64 = GAS_LIMIT - GAS_LIMIT / 64;
/// Most entries of one system transaction.
pub const ENTRIES_PER_SYSTEM_TX: usize = 500;
/// Most gas that the system transactions of one block may need by [`gas_bound`]: half of the block gas limit (D15).
pub const MAX_BLOCK_GAS: u64 = 60_000_000;

// Upper bounds of what `record` uses, measured and held by tests in `opg-genesis`.
/// Intrinsic gas, dispatch, batch root and event.
const GAS_BASE: u64 = 60_000;
/// A group: its calldata, the creator's look-up, the deposit address, the call of the vault, and the operator's, the
/// creator's, the treasury's, the insurance's and the router's credit.
const GAS_GROUP: u64 = 191_000;
/// An entry: its calldata, the spent slot, the settlement look-up and, left pending, the event. By Permit2 it is some
/// 100 more than by ERC-3009; one bound holds for all, and lets 2,000 receipts into a block.
const GAS_ENTRY: u64 = 29_370;
/// A bitmap word that is touched for the first time.
const GAS_WORD: u64 = 23_000;
/// A payer's first refund of a chunk, in a new queue slot.
const GAS_REFUND: u64 = 33_000;
/// A further refund of the same payer, which joins the first.
const GAS_REFUND_AGAIN: u64 = 1_000;

/// One receipt of a batch, in batch order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BatchEntry {
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
    /// Sequence number in the keyset's receipt chain.
    pub seq: u64,
    /// How the payment settles.
    pub method: PaymentMethod,
    /// Who signed the payment.
    pub payer: Address,
    /// Nonce of the payment's authorization; of Permit2 the number, big-endian.
    pub nonce: B256,
    /// Amount that settles, wei: the signed one, for [`PaymentMethod::UptoPermit2`] the charge.
    pub amount: u128,
    /// Charge, at most `amount`, wei.
    pub charge: u128,
}

/// What entries of one group have in common.
type Key = (B256, B256, B256, u16, u8, Address, PaymentMethod);

impl BatchEntry {
    fn group_key(&self) -> Key {
        (
            self.node_id,
            self.keyset,
            self.model_root,
            self.royalty_bps,
            self.mode,
            self.router.unwrap_or_default(),
            self.method,
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
    refunds: BTreeSet<(B256, u8, Address)>,
}

impl Meter {
    /// Gas bound after adding `entry`, without adding it.
    fn with(&self, entry: &BatchEntry) -> u64 {
        let mut gas = self.gas.max(GAS_BASE) + GAS_ENTRY;
        if entry.amount != entry.charge {
            let known = self.refunds.contains(&(entry.node_id, entry.mode, entry.payer));
            gas += if known { GAS_REFUND_AGAIN } else { GAS_REFUND };
        }
        if !self.groups.contains(&entry.group_key()) {
            gas += GAS_GROUP;
        }
        if !self.words.contains(&(entry.keyset, entry.seq / 256)) {
            gas += GAS_WORD;
        }
        gas
    }

    fn add(&mut self, entry: &BatchEntry) {
        self.gas = self.with(entry);
        self.entries += 1;
        self.groups.insert(entry.group_key());
        self.words.insert((entry.keyset, entry.seq / 256));
        if entry.amount != entry.charge {
            self.refunds.insert((entry.node_id, entry.mode, entry.payer));
        }
    }
}

/// Cuts a batch into chunks of consecutive entries, each bounded in number and gas.
fn cut(entries: &[BatchEntry]) -> Vec<(&[BatchEntry], u64)> {
    let mut chunks = Vec::new();
    let mut meter = Meter::default();
    let mut start = 0;
    for (end, entry) in entries.iter().enumerate() {
        if meter.entries == ENTRIES_PER_SYSTEM_TX || (meter.entries > 0 && meter.with(entry) > GAS_BUDGET) {
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

/// The groups of every system transaction of a batch; empty for an empty batch.
///
/// Chunks are consecutive in batch order. Inside a chunk, groups stand in order of their first entry. The entries of a group stand
/// in order of refunded payer (none first) and sequence number: the ledger merges refunds of neighbours with the same payer.
#[must_use]
pub fn chunks(entries: &[BatchEntry]) -> Vec<Vec<Group>> {
    cut(entries).into_iter().map(|(chunk, _)| group(chunk)).collect()
}

/// Upper bound of the gas that all system transactions of a batch use together.
#[must_use]
pub fn gas_bound(entries: &[BatchEntry]) -> u64 {
    cut(entries).iter().map(|(_, gas)| gas).sum()
}

/// What a batch may need by [`gas_bound`] in a block that also records findings on evidence, or does not.
#[must_use]
pub const fn batch_gas(findings: bool) -> u64 {
    if findings {
        MAX_BLOCK_GAS - crate::evidence::GAS_LIMIT
    } else {
        MAX_BLOCK_GAS
    }
}

/// How many entries, from the first, fit a block whose batch may need `budget` ([`batch_gas`]). A proposer cuts its batch
/// here, a validator refuses a longer one.
#[must_use]
pub fn fitting_prefix(entries: &[BatchEntry], budget: u64) -> usize {
    let mut used = 0;
    let mut count = 0;
    for (chunk, gas) in cut(entries) {
        if used + gas > budget {
            // The bound grows with every entry, so the last that fits is found by adding them one by one.
            let mut meter = Meter::default();
            for entry in chunk {
                if used + meter.with(entry) > budget {
                    return count;
                }
                meter.add(entry);
                count += 1;
            }
            return count;
        }
        used += gas;
        count += chunk.len();
    }
    count
}

fn group(entries: &[BatchEntry]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut keys = Vec::new();
    for entry in entries {
        let key = entry.group_key();
        // Runs of one group are the common case, so the search starts at the newest.
        let index = keys.iter().rposition(|known| *known == key).unwrap_or_else(|| {
            keys.push(key);
            groups.push(Group {
                nodeId: entry.node_id,
                keyset: entry.keyset,
                modelRoot: entry.model_root,
                royaltyBps: entry.royalty_bps,
                mode: entry.mode,
                router: entry.router.unwrap_or_default(),
                method: entry.method.code(),
                entries: Vec::new(),
            });
            groups.len() - 1
        });
        groups[index].entries.push(ReceiptLedger::Entry {
            seq: entry.seq,
            payer: entry.payer,
            nonce: entry.nonce,
            amount: entry.amount,
            charge: entry.charge,
        });
    }
    for group in &mut groups {
        // Entries without a refund stay in order of sequence numbers, which changes the bitmap word least often.
        group.entries.sort_by_key(|entry| {
            let refunded = if entry.amount == entry.charge {
                Address::ZERO
            } else {
                entry.payer
            };
            (refunded, entry.seq)
        });
    }
    groups
}

/// Calldata of one system transaction: `ReceiptLedger.record`.
///
/// `height` and `count` are the block's height and number of receipts, `root` its batch root, `chunk` the transaction's index.
#[must_use]
pub fn calldata(height: u64, root: B256, count: u32, chunk: u32, groups: Vec<Group>) -> Bytes {
    ReceiptLedger::recordCall {
        height,
        batchRoot: root,
        count,
        chunk,
        groups,
    }
    .abi_encode()
    .into()
}

/// The word that [`crate::state::read_spent`] finds for a pending entry: its hash, marked by the highest bit set and the
/// lowest clear, so that it is neither zero nor the mark of a credited payment.
#[must_use]
pub fn pending_word(hash: B256) -> B256 {
    let word = U256::from_be_bytes(hash.0);
    B256::from((word | (U256::ONE << 255_usize)) & !U256::ONE)
}
