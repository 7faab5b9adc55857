//! The pool's table: bounded, each (keyset, seq) and payment once, quota per node.

use crate::verify::{Admitted, Reject, Rule};
use alloy_primitives::{B256, Bytes};
use opg_receipt::SignedReceipt;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Instant,
};

/// A bond of this many times the minimum, or more, has the largest quota.
const MAX_QUOTA_FACTOR: u128 = 16;

/// Bounds of the pool.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Receipts.
    pub receipts: usize,
    /// Bytes.
    pub bytes: usize,
    /// Receipts in flight for a node with the minimum bond.
    pub node_receipts: usize,
    /// Least bond, wei.
    pub min_bond: u128,
    /// Seconds of block time that a receipt may wait.
    pub expiry: u64,
}

/// A verified receipt that waits for a block.
#[derive(Debug, Clone)]
pub struct Waiting {
    /// The receipt.
    pub receipt: Arc<SignedReceipt>,
    /// The proof of its answer, for a mode that has one.
    pub artefact: Option<Bytes>,
    /// SHA-256 of that: the name that a block gives it.
    pub artefact_hash: Option<B256>,
    /// Its verdict when it came in.
    pub admitted: Admitted,
    /// When it came in.
    pub since: Instant,
    /// Timestamp of the head then, Unix seconds.
    pub block_time: u64,
}

impl Waiting {
    /// Bytes that it takes.
    fn size(&self) -> usize {
        self.receipt.cose().len() + self.artefact.as_ref().map_or(0, |artefact| artefact.len())
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct InFlight {
    receipts: usize,
    bytes: usize,
}

/// The table.
#[derive(Debug)]
pub(crate) struct Table {
    bounds: Bounds,
    arrivals: BTreeMap<u64, Waiting>,
    next: u64,
    by_core: HashMap<B256, u64>,
    by_id: HashMap<B256, u64>,
    by_seq: HashMap<(B256, u64), u64>,
    /// By payment id; channels pay for many receipts and are not in it.
    by_payment: HashMap<B256, u64>,
    nodes: HashMap<B256, InFlight>,
    bytes: usize,
}

/// What became of an insertion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inserted {
    /// It is new.
    New,
    /// The same receipt was there already.
    Known,
}

impl Table {
    /// An empty table.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            arrivals: BTreeMap::new(),
            next: 0,
            by_core: HashMap::new(),
            by_id: HashMap::new(),
            by_seq: HashMap::new(),
            by_payment: HashMap::new(),
            nodes: HashMap::new(),
            bytes: 0,
        }
    }

    /// Receipts waiting.
    pub(crate) fn len(&self) -> usize {
        self.arrivals.len()
    }

    /// Their bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The receipt with this core hash.
    pub(crate) fn by_core(&self, core_hash: B256) -> Option<&Waiting> {
        self.by_core.get(&core_hash).and_then(|at| self.arrivals.get(at))
    }

    /// The receipt with this id.
    pub(crate) fn by_id(&self, id: B256) -> Option<&Waiting> {
        self.by_id.get(&id).and_then(|at| self.arrivals.get(at))
    }

    /// Cheap checks before any signature is verified: a conflicting receipt is in the pool, or the pool is full.
    ///
    /// # Errors
    /// The rule.
    pub(crate) fn precheck(&self, receipt: &SignedReceipt) -> Result<Inserted, Reject> {
        let core = receipt.core();
        if let Some(known) = self.by_core(receipt.core_hash()) {
            // the signature is not part of the core hash, so another signature on the same core must be looked at
            if known.receipt.cose() == receipt.cose() {
                return Ok(Inserted::Known);
            }
        }
        if self.by_seq.contains_key(&(core.keyset.0, core.seq)) {
            return Err(Reject::new(Rule::SeqDuplicate, "each sequence number once", core.seq));
        }
        if spends(receipt).is_some_and(|payment| self.by_payment.contains_key(&payment)) {
            return Err(Reject::new(
                Rule::PaymentDuplicate,
                "each payment once",
                core.payment.nonce,
            ));
        }
        if self.arrivals.len() >= self.bounds.receipts || self.bytes + receipt.cose().len() > self.bounds.bytes {
            return Err(Reject::new(
                Rule::PoolFull,
                format!("at most {} receipts", self.bounds.receipts),
                self.arrivals.len(),
            ));
        }
        Ok(Inserted::New)
    }

    /// Adds a verified receipt.
    ///
    /// # Errors
    /// As [`Self::precheck`], or the node's quota is used up.
    pub(crate) fn insert(&mut self, waiting: Waiting) -> Result<Inserted, Reject> {
        if self.precheck(&waiting.receipt)? == Inserted::Known {
            return Ok(Inserted::Known);
        }
        let entry = &waiting.admitted.entry;
        let (node_id, sequence) = (entry.node_id(), (entry.keyset(), entry.seq()));
        let allowed = self.quota(waiting.admitted.bond);
        let used = self.nodes.entry(node_id).or_default();
        let size = waiting.size();
        let allowed_bytes = allowed.saturating_mul(opg_receipt::MAX_BYTES / 2);
        if used.receipts >= allowed || used.bytes + size > allowed_bytes {
            return Err(Reject::new(
                Rule::Quota,
                format!("at most {allowed} receipts in flight"),
                used.receipts,
            ));
        }
        used.receipts += 1;
        used.bytes += size;
        self.bytes += size;
        let at = self.next;
        self.next += 1;
        self.by_core.insert(waiting.receipt.core_hash(), at);
        self.by_id.insert(waiting.receipt.core().receipt_id.0, at);
        self.by_seq.insert(sequence, at);
        if let Some(payment) = spends(&waiting.receipt) {
            self.by_payment.insert(payment, at);
        }
        self.arrivals.insert(at, waiting);
        Ok(Inserted::New)
    }

    /// Receipts in flight that a bond allows.
    fn quota(&self, bond: u128) -> usize {
        let factor = (bond / self.bounds.min_bond.max(1)).clamp(1, MAX_QUOTA_FACTOR);
        self.bounds.node_receipts.saturating_mul(factor as usize)
    }

    /// Removes what the finalized receipt makes impossible: itself, and others with its sequence number or payment. Returns
    /// when it had come in, if it was here.
    pub(crate) fn finalized(&mut self, receipt: &SignedReceipt) -> Option<Instant> {
        let core = receipt.core();
        let payment = spends(receipt);
        let by_seq = self.by_seq.get(&(core.keyset.0, core.seq)).copied();
        let by_payment = payment.and_then(|id| self.by_payment.get(&id).copied());
        let since = by_seq
            .filter(|at| payment.is_none() || by_payment == Some(*at))
            .and_then(|at| self.arrivals.get(&at))
            .map(|w| w.since);
        for at in [by_seq, by_payment].into_iter().flatten() {
            self.remove(at);
        }
        since
    }

    /// Removes receipts that waited longer than the bound, by block time.
    pub(crate) fn expire(&mut self, block_time: u64) -> usize {
        let expiry = self.bounds.expiry;
        let old: Vec<u64> = self
            .arrivals
            .iter()
            .filter(|(_, w)| w.block_time.saturating_add(expiry) < block_time)
            .map(|(at, _)| *at)
            .collect();
        for at in &old {
            self.remove(*at);
        }
        old.len()
    }

    /// The oldest receipts, with their keys for [`Self::remove`].
    pub(crate) fn oldest(&self, max: usize) -> Vec<(u64, Waiting)> {
        self.arrivals.iter().take(max).map(|(at, w)| (*at, w.clone())).collect()
    }

    /// Puts one receipt behind all others.
    pub(crate) fn defer(&mut self, at: u64) {
        let Some(waiting) = self.arrivals.remove(&at) else {
            return;
        };
        let last = self.next;
        self.next += 1;
        let (entry, core) = (&waiting.admitted.entry, waiting.receipt.core());
        self.by_core.insert(waiting.receipt.core_hash(), last);
        self.by_id.insert(core.receipt_id.0, last);
        self.by_seq.insert((entry.keyset(), entry.seq()), last);
        if let Some(payment) = spends(&waiting.receipt) {
            self.by_payment.insert(payment, last);
        }
        self.arrivals.insert(last, waiting);
    }

    /// Removes one receipt.
    pub(crate) fn remove(&mut self, at: u64) {
        let Some(waiting) = self.arrivals.remove(&at) else {
            return;
        };
        let (entry, size) = (&waiting.admitted.entry, waiting.size());
        self.by_core.remove(&waiting.receipt.core_hash());
        self.by_id.remove(&waiting.receipt.core().receipt_id.0);
        self.by_seq.remove(&(entry.keyset(), entry.seq()));
        if let Some(payment) = spends(&waiting.receipt) {
            self.by_payment.remove(&payment);
        }
        self.bytes = self.bytes.saturating_sub(size);
        if let Some(used) = self.nodes.get_mut(&entry.node_id()) {
            used.receipts = used.receipts.saturating_sub(1);
            used.bytes = used.bytes.saturating_sub(size);
            if used.receipts == 0 {
                self.nodes.remove(&entry.node_id());
            }
        }
    }
}

/// The payment that a receipt uses up; `None` if a channel pays for it.
fn spends(receipt: &SignedReceipt) -> Option<B256> {
    let payment = &receipt.core().payment;
    payment.channel.is_none().then(|| payment.id().0)
}
