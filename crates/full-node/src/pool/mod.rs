//! Receipt pool: verifies submitted receipts off the consensus threads, keeps the good ones until a block takes them.
//!
//! Admission follows D14: size, decoding and duplicates first, then signatures and registry reads on the pool's own threads.
//! The queue in front of those threads is bounded, so a flood is refused instead of delaying what came before. A verdict
//! is valid for the head at that moment; proposing checks against the parent's state again, without the signatures.

mod keys;
mod table;

pub use table::{Bounds, Inserted, Waiting};

use crate::{
    metrics::{Metrics, RuleLabel},
    verify::{self, Admitted, CheckError, Proven, Reject, Rule, Rules, View},
};
use alloy_primitives::{B256, Bytes};
use keys::Keys;
use opg_contracts::{
    StateReader,
    channel_tx::{self, BatchItem},
    system_tx,
};
use opg_primitives::mode::Mode;
use opg_receipt::SignedReceipt;
use rayon::prelude::*;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use table::Table;
use tokio::sync::{Semaphore, oneshot};

/// Receipts that may wait for a verification thread.
const MAX_QUEUED: usize = 16_384;
/// Seconds after which a block that holds a receipt is final or will never be.
const SETTLE_SECS: u64 = 30;
/// A proof reaches the other validators and is verified there within this time, or with a later block.
const PROOF_SPREAD: Duration = Duration::from_millis(750);
/// Receipts of a proposal that one thread takes at once: their signatures share an inversion.
const CHUNK: usize = 64;
/// Verdicts remembered for receipts of proposals that are not in the pool.
const MAX_REMEMBERED: usize = 65_536;

/// No receipt was admitted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SubmitError {
    /// It breaks a rule.
    #[error("{0}")]
    Rejected(Reject),
    /// Too many receipts are being verified.
    #[error("the node is busy verifying {MAX_QUEUED} receipts")]
    Busy,
    /// No verdict: the state could not be read.
    #[error("state: {0}")]
    State(String),
}

impl From<Reject> for SubmitError {
    fn from(reject: Reject) -> Self {
        Self::Rejected(reject)
    }
}

/// An admitted receipt.
#[derive(Debug, Clone)]
pub struct Submitted {
    /// The receipt.
    pub receipt: Arc<SignedReceipt>,
    /// Whether it is new here.
    pub inserted: Inserted,
}

/// What a proposal may hold of receipts.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// How many.
    pub receipts: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Cost units of verifying them ([`verify::cost`]).
    pub cost: u64,
}

/// Receipts of a proposal with their ledger entries, in batch order.
pub type Selection = Vec<(Arc<SignedReceipt>, BatchItem)>;

/// The pool.
#[derive(Debug)]
pub struct Pool {
    rules: Rules,
    threads: rayon::ThreadPool,
    keys: Keys,
    table: Mutex<Table>,
    remembered: Mutex<HashMap<B256, (Arc<SignedReceipt>, Proven)>>,
    queue: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// An empty pool with `threads` verification threads.
    ///
    /// # Errors
    /// The threads could not be started.
    pub fn new(
        rules: Rules,
        bounds: Bounds,
        threads: usize,
        metrics: Arc<Metrics>,
    ) -> Result<Self, rayon::ThreadPoolBuildError> {
        let threads = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|i| format!("opg-verify-{i}"))
            .build()?;
        let queue = Arc::new(Semaphore::new(MAX_QUEUED));
        Ok(Self {
            rules,
            threads,
            keys: Keys::default(),
            table: Mutex::new(Table::new(bounds)),
            remembered: Mutex::default(),
            queue,
            metrics,
        })
    }

    /// Checks a receipt, with the proof of its answer if its mode has one, against `state` (the head's) for a block at
    /// `timestamp`, and keeps both.
    ///
    /// # Errors
    /// The rule that it breaks, or that the node is busy.
    pub async fn submit<R>(
        self: &Arc<Self>,
        bytes: Bytes,
        artefact: Option<Bytes>,
        state: R,
        timestamp: u64,
    ) -> Result<Submitted, SubmitError>
    where
        R: StateReader + Send + Sync + 'static,
        R::Error: std::fmt::Display + Send,
    {
        let permit = self.queue.clone().try_acquire_owned().map_err(|_| SubmitError::Busy)?;
        let (send, receive) = oneshot::channel();
        let pool = self.clone();
        self.threads.spawn(move || {
            let began = Instant::now();
            let result = pool.submit_now(&bytes, artefact, &state, timestamp);
            pool.metrics.verify_receipt.observe(began.elapsed().as_secs_f64());
            match &result {
                Ok(Submitted {
                    inserted: Inserted::New,
                    ..
                }) => {
                    pool.metrics.receipts_accepted.inc();
                }
                Err(SubmitError::Rejected(reject)) => {
                    pool.metrics
                        .receipts_rejected
                        .get_or_create(&RuleLabel {
                            rule: reject.rule.code(),
                        })
                        .inc();
                }
                _ => {}
            }
            drop(permit);
            let _ = send.send(result); // the caller may have gone away
        });
        receive
            .await
            .unwrap_or_else(|_| Err(SubmitError::State("the verification thread ended".into())))
    }

    /// [`Self::submit`] on the calling thread.
    ///
    /// # Errors
    /// As [`Self::submit`].
    pub fn submit_now<R>(
        &self,
        bytes: &Bytes,
        artefact: Option<Bytes>,
        state: &R,
        timestamp: u64,
    ) -> Result<Submitted, SubmitError>
    where
        R: StateReader,
        R::Error: std::fmt::Display,
    {
        let receipt = Arc::new(decode(bytes)?);
        if lock(&self.table).precheck(&receipt)? == Inserted::Known {
            return Ok(Submitted {
                receipt,
                inserted: Inserted::Known,
            });
        }
        let view = View::new(state);
        let admitted = verify::check(
            &receipt,
            &view,
            &self.rules,
            timestamp,
            artefact.as_ref().map(|a| &a[..]),
            Proven {
                receipt: self.signed(&[&receipt], &view) == [true],
                ..Proven::default()
            },
        )
        .map_err(|error| match error {
            CheckError::Rejected(reject) => SubmitError::Rejected(reject),
            CheckError::State(error) => SubmitError::State(error.to_string()),
        })?;
        let waiting = Waiting {
            receipt: receipt.clone(),
            artefact,
            admitted,
            since: Instant::now(),
            block_time: timestamp,
        };
        let inserted = lock(&self.table).insert(waiting)?;
        self.update_gauges();
        Ok(Submitted { receipt, inserted })
    }

    /// The receipts for a block on `state` at `timestamp`: oldest first up to the limits, then grouped by node, keyset and
    /// model (which makes the system transactions small), cut to what half of the block's gas can record. What can never
    /// enter a block any more leaves the pool.
    ///
    /// # Errors
    /// The state could not be read.
    pub fn select<R>(&self, state: &R, timestamp: u64, room: Room) -> Result<Selection, R::Error>
    where
        R: StateReader + Sync,
        R::Error: Send,
    {
        // some of the oldest may not pass now: look at twice as many
        let mut candidates = lock(&self.table).oldest(room.receipts.saturating_mul(2));
        // Nobody votes for a proof that they have not verified yet.
        candidates.retain(|(_, w)| w.artefact.is_none() || w.since.elapsed() >= PROOF_SPREAD);
        let view = View::new(state);
        let checked: Vec<_> = self.threads.install(|| {
            candidates
                .par_iter()
                .with_min_len(16)
                .map(|(_, w)| verify::check(&w.receipt, &view, &self.rules, timestamp, None, w.admitted.proven))
                .collect()
        });
        let (mut chosen, mut bytes, mut cost) = (Selection::new(), 0, 0);
        let (mut gone, mut deferred) = (Vec::new(), Vec::new());
        for ((at, waiting), verdict) in candidates.into_iter().zip(checked) {
            match verdict {
                Ok(admitted) => {
                    let size = waiting.receipt.cose().len();
                    let more = verify::cost(waiting.receipt.core().mode.served);
                    if chosen.len() < room.receipts && bytes + size <= room.bytes && cost + more <= room.cost {
                        (bytes, cost) = (bytes + size, cost + more);
                        chosen.push((waiting.receipt, admitted.entry));
                    }
                }
                Err(CheckError::Rejected(reject)) => {
                    // the parent may not become final, and then what it records is not recorded
                    let recorded = matches!(reject.rule, Rule::SeqUsed | Rule::PaymentSpent);
                    let fresh = timestamp < waiting.block_time.saturating_add(SETTLE_SECS);
                    if reject.rule.may_pass_later() || (recorded && fresh) {
                        deferred.push(at);
                    } else {
                        tracing::debug!(id = %waiting.receipt.core().receipt_id, %reject, "receipt leaves the pool");
                        gone.push(at);
                    }
                }
                Err(CheckError::State(error)) => return Err(error),
            }
        }
        let mut table = lock(&self.table);
        gone.into_iter().for_each(|at| table.remove(at));
        // behind the others, or receipts that can not pass now would keep those that can from being looked at
        deferred.into_iter().for_each(|at| table.defer(at));
        drop(table);
        chosen.sort_by_key(|(_, entry)| entry.order());
        let entries: Vec<_> = chosen.iter().map(|(_, entry)| entry.clone()).collect();
        chosen.truncate(channel_tx::fitting_prefix(&entries, system_tx::batch_gas(false)));
        Ok(chosen)
    }

    /// Checks the receipts of a proposal against `state` at `timestamp`, in parallel. Signatures and proofs that this node has
    /// verified before are not verified again. Proofs are no part of a block: one that has not come here yet is
    /// [`Rule::EvidenceMissing`], which is no verdict about the block.
    ///
    /// # Errors
    /// Position of the first bad receipt and its rule, or why the state could not be read.
    #[allow(clippy::type_complexity)]
    pub fn check_batch<R>(
        &self,
        receipts: &[Bytes],
        state: &R,
        timestamp: u64,
    ) -> Result<Selection, (usize, CheckError<R::Error>)>
    where
        R: StateReader + Sync,
        R::Error: Send,
    {
        let view = View::new(state);
        let checked: Vec<Result<(Arc<SignedReceipt>, Admitted), CheckError<R::Error>>> = self.threads.install(|| {
            receipts
                .par_chunks(CHUNK)
                .flat_map_iter(|chunk| {
                    let recalled: Vec<_> = chunk.iter().map(|bytes| self.recall(bytes)).collect();
                    let new: Vec<&SignedReceipt> = recalled
                        .iter()
                        .flatten()
                        .filter(|(_, proven)| !proven.receipt)
                        .map(|(receipt, _)| &**receipt)
                        .collect();
                    let mut signed = self.signed(&new, &view).into_iter();
                    let checked: Vec<_> = recalled
                        .into_iter()
                        .map(|recalled| {
                            let (receipt, known) = recalled?;
                            let proven = Proven {
                                receipt: known.receipt || signed.next().unwrap_or(false),
                                ..known
                            };
                            let admitted = verify::check(&receipt, &view, &self.rules, timestamp, None, proven)?;
                            if admitted.proven != known {
                                self.remember(&receipt, admitted.proven);
                            }
                            Ok((receipt, admitted))
                        })
                        .collect();
                    checked
                })
                .collect()
        });
        let mut batch = Selection::with_capacity(checked.len());
        for (at, verdict) in checked.into_iter().enumerate() {
            let (receipt, admitted) = verdict.map_err(|error| (at, error))?;
            batch.push((receipt, admitted.entry));
        }
        verify::check_unique(batch.iter().map(|(_, entry)| entry))
            .map_err(|(at, reject)| (at, CheckError::Rejected(reject)))?;
        Ok(batch)
    }

    /// Which receipts have a good signature by a prepared key. `false` is no verdict: the check itself gives it.
    fn signed<R: StateReader>(&self, receipts: &[&SignedReceipt], view: &View<'_, R>) -> Vec<bool> {
        let mut proven = vec![false; receipts.len()];
        let (places, items): (Vec<_>, Vec<_>) = receipts
            .iter()
            .enumerate()
            .filter_map(|(place, receipt)| Some((place, (*receipt, verify::receipt_key(view, receipt)?))))
            .unzip();
        for (place, good) in places.into_iter().zip(self.keys.prove(&items)) {
            proven[place] = good;
        }
        proven
    }

    /// The decoded receipt and what is known about its signatures.
    fn recall(&self, bytes: &Bytes) -> Result<(Arc<SignedReceipt>, Proven), Reject> {
        let receipt = decode(bytes)?;
        // same core, same signature bytes: only then is the verdict the same
        if let Some(known) = lock(&self.table).by_core(receipt.core_hash())
            && known.receipt.cose() == receipt.cose()
        {
            return Ok((known.receipt.clone(), known.admitted.proven));
        }
        if let Some((known, proven)) = lock(&self.remembered).get(&receipt.core_hash())
            && known.cose() == receipt.cose()
        {
            return Ok((known.clone(), *proven));
        }
        Ok((Arc::new(receipt), Proven::default()))
    }

    /// Remembers good signatures of a receipt that is not in the pool: a proposal is checked again when its view times out
    /// and another leader takes the same receipts.
    fn remember(&self, receipt: &Arc<SignedReceipt>, proven: Proven) {
        let mut remembered = lock(&self.remembered);
        if remembered.len() >= MAX_REMEMBERED {
            remembered.clear();
        }
        remembered.insert(receipt.core_hash(), (receipt.clone(), proven));
    }

    /// Removes the receipts of a finalized block and what waited too long.
    pub fn finalized(&self, receipts: &[Arc<SignedReceipt>], block_time: u64) {
        let mut table = lock(&self.table);
        for receipt in receipts {
            if let Some(since) = table.finalized(receipt) {
                self.metrics.receipt_to_final.observe(since.elapsed().as_secs_f64());
            }
        }
        table.expire(block_time);
        drop(table);
        let mut remembered = lock(&self.remembered);
        receipts.iter().for_each(|r| drop(remembered.remove(&r.core_hash())));
        drop(remembered);
        self.update_gauges();
    }

    /// The proofs that wait with these receipts, by receipt id.
    pub fn artefacts(&self, receipts: &[Arc<SignedReceipt>]) -> Vec<(B256, Bytes)> {
        let table = lock(&self.table);
        receipts
            .iter()
            .filter_map(|receipt| {
                let waiting = table.by_core(receipt.core_hash())?;
                Some((receipt.core().receipt_id.0, waiting.artefact.clone()?))
            })
            .collect()
    }

    /// Core hashes of the receipts of a proposal whose proofs have not been verified here.
    pub fn missing_proofs(&self, receipts: &[Bytes]) -> Vec<B256> {
        receipts
            .iter()
            .filter_map(|bytes| self.recall(bytes).ok())
            .filter(|(receipt, proven)| receipt.core().mode.served == Mode::Zk && proven.program.is_none())
            .map(|(receipt, _)| receipt.core_hash())
            .collect()
    }

    /// Whether all receipts with these core hashes wait here with verified proofs.
    pub fn has_proofs(&self, core_hashes: &[B256]) -> bool {
        let table = lock(&self.table);
        let proven = |hash| table.by_core(hash).is_some_and(|w| w.admitted.proven.program.is_some());
        core_hashes.iter().all(|hash| proven(*hash))
    }

    /// The waiting receipt with this core hash.
    pub fn by_core(&self, core_hash: B256) -> Option<Waiting> {
        lock(&self.table).by_core(core_hash).cloned()
    }

    /// The waiting receipt with this id.
    pub fn by_id(&self, id: B256) -> Option<Waiting> {
        lock(&self.table).by_id(id).cloned()
    }

    /// The oldest receipts that have waited at least `time`, at most `max`.
    pub fn waiting_longer_than(&self, time: Duration, max: usize) -> Vec<Waiting> {
        let oldest = lock(&self.table).oldest(max);
        let waiting = oldest.into_iter().map(|(_, waiting)| waiting);
        waiting.filter(|waiting| waiting.since.elapsed() >= time).collect()
    }

    /// Receipts and bytes waiting.
    pub fn size(&self) -> (usize, usize) {
        let table = lock(&self.table);
        (table.len(), table.bytes())
    }

    /// Runs `work` on the verification threads and waits for it.
    pub fn install<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.threads.install(work)
    }

    fn update_gauges(&self) {
        let (receipts, bytes) = self.size();
        self.metrics.pool_receipts.set(receipts as i64);
        self.metrics.pool_bytes.set(bytes as i64);
    }
}

fn decode(bytes: &Bytes) -> Result<SignedReceipt, Reject> {
    if bytes.len() > opg_receipt::MAX_BYTES {
        return Err(Reject::new(
            Rule::Size,
            format!("at most {} bytes", opg_receipt::MAX_BYTES),
            bytes.len(),
        ));
    }
    SignedReceipt::decode(bytes).map_err(|error| Reject::new(Rule::Encoding, "a canonical receipt", error))
}

#[cfg(test)]
mod tests;
