//! Receipt pool: verifies submitted receipts off the consensus threads, keeps the good ones until a block takes them.
//!
//! Admission follows D14: size, decoding and duplicates first, then signatures and registry reads on the pool's own threads.
//! The queue in front of those threads is bounded, so a flood is refused instead of delaying what came before. A verdict
//! is valid for the head at that moment; proposing checks against the parent's state again, without the signatures.

mod keys;
mod proofs;
mod table;

pub use proofs::{Known, examine};
pub use table::{Bounds, Inserted, Waiting};

use crate::{
    metrics::{Metrics, RuleLabel},
    verify::{self, Admitted, CheckError, Proven, Reject, Rule, Rules, View},
};
use alloy_primitives::{B256, Bytes};
use keys::Keys;
use opg_consensus::{MAX_PROOFS, ProofName};
use opg_contracts::{
    StateReader,
    channel_tx::{self, BatchItem},
    system_tx,
};
use opg_primitives::{hash::sha256, mode::Mode};
use opg_receipt::SignedReceipt;
use proofs::Proofs;
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
    proofs: Mutex<Proofs>,
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
            proofs: Mutex::default(),
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
        let artefact_hash = artefact.as_ref().map(|artefact| sha256(artefact));
        let wanted = match (&artefact, artefact_hash) {
            (Some(bytes), Some(artefact)) => {
                let core_hash = receipt.core_hash();
                self.take_wanted(&receipt, ProofName { core_hash, artefact }, bytes)?
            }
            _ => None,
        };
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
                program: wanted,
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
            artefact_hash,
            admitted,
            since: Instant::now(),
            block_time: timestamp,
        };
        let inserted = lock(&self.table).insert(waiting)?;
        self.update_gauges();
        Ok(Submitted { receipt, inserted })
    }

    /// Verifies a proof that a proposal names, whatever becomes of the receipt that it came with. The root of its program, if it was
    /// wanted and is good.
    fn take_wanted(
        &self,
        receipt: &SignedReceipt,
        name: ProofName,
        artefact: &Bytes,
    ) -> Result<Option<B256>, SubmitError> {
        if lock(&self.proofs).get(&name) != Some(&Known::Wanted) {
            return Ok(None);
        }
        let artefact = artefact.clone();
        match examine(receipt.core(), &artefact) {
            Ok(program) => {
                lock(&self.proofs).settle(name, Known::Good { program, artefact });
                Ok(Some(program))
            }
            Err(error) => {
                let reject = Reject::new(Rule::EvidenceInvalid, "a proof of the statement", &error);
                let reason = error.to_string();
                lock(&self.proofs).settle(name, Known::Bad { artefact, reason });
                Err(reject.into())
            }
        }
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
        let (mut chosen, mut bytes, mut cost, mut proofs) = (Selection::new(), 0, 0, 0);
        let (mut gone, mut deferred) = (Vec::new(), Vec::new());
        for ((at, waiting), verdict) in candidates.into_iter().zip(checked) {
            match verdict {
                Ok(admitted) => {
                    let size = waiting.receipt.cose().len();
                    let more = verify::cost(waiting.receipt.core().mode.served);
                    let proof = usize::from(waiting.artefact.is_some());
                    if chosen.len() < room.receipts
                        && bytes + size <= room.bytes
                        && cost + more <= room.cost
                        && proofs + proof <= MAX_PROOFS
                    {
                        (bytes, cost, proofs) = (bytes + size, cost + more, proofs + proof);
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
    /// verified before are not verified again. A block names its proofs and does not hold them: one that has not come here yet is
    /// [`Rule::EvidenceMissing`], which is no verdict about the block.
    ///
    /// # Errors
    /// Position of the first bad receipt and its rule, or why the state could not be read.
    #[allow(clippy::type_complexity)]
    pub fn check_batch<R>(
        &self,
        receipts: &[Bytes],
        proofs: &[ProofName],
        state: &R,
        timestamp: u64,
    ) -> Result<Selection, (usize, CheckError<R::Error>)>
    where
        R: StateReader + Sync,
        R::Error: Send,
    {
        let view = View::new(state);
        let named: HashMap<B256, ProofName> = proofs.iter().map(|name| (name.core_hash, *name)).collect();
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
                                program: self.named_program(&receipt, named.get(&receipt.core_hash()))?,
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
        // Each proof is of a receipt by now, and each receipt has its proof: only their order and number are left.
        let mut names = proofs.iter().map(|name| name.core_hash);
        let misplaced = batch
            .iter()
            .position(|(receipt, _)| is_proven(receipt) && names.next() != Some(receipt.core_hash()));
        if let Some(at) = misplaced.or_else(|| names.next().map(|_| batch.len())) {
            let reject = Reject::new(Rule::Evidence, "the names of the proofs in batch order", "others");
            return Err((at, CheckError::Rejected(reject)));
        }
        verify::check_unique(batch.iter().map(|(_, entry)| entry))
            .map_err(|(at, reject)| (at, CheckError::Rejected(reject)))?;
        Ok(batch)
    }

    /// The program of the proof that a block names for a receipt; `None` if the proof has not come yet.
    fn named_program(&self, receipt: &SignedReceipt, name: Option<&ProofName>) -> Result<Option<B256>, Reject> {
        let name = match (is_proven(receipt), name) {
            (true, Some(name)) => name,
            (true, None) => return Err(Reject::new(Rule::Evidence, "a proof that the block names", "none")),
            (false, Some(name)) => return Err(Reject::new(Rule::Evidence, "no proof", name.artefact)),
            (false, None) => return Ok(None),
        };
        match self.known(name) {
            Some(Known::Good { program, .. }) => Ok(Some(program)),
            Some(Known::Bad { reason, .. }) => {
                Err(Reject::new(Rule::EvidenceInvalid, "a proof of the statement", reason))
            }
            Some(Known::Wanted) | None => Ok(None),
        }
    }

    /// What is known of a proof.
    pub fn known(&self, name: &ProofName) -> Option<Known> {
        if let Some(waiting) = lock(&self.table).by_core(name.core_hash)
            && waiting.artefact_hash == Some(name.artefact)
            && let (Some(artefact), Some(program)) = (&waiting.artefact, waiting.admitted.proven.program)
        {
            let artefact = artefact.clone();
            return Some(Known::Good { program, artefact });
        }
        lock(&self.proofs).get(name).cloned()
    }

    /// The names of the proofs of these waiting receipts, in the same order; `None` if one is no longer here.
    pub fn names<'a>(&self, receipts: impl Iterator<Item = &'a SignedReceipt>) -> Option<Vec<ProofName>> {
        let table = lock(&self.table);
        let name = |receipt: &SignedReceipt| {
            let core_hash = receipt.core_hash();
            let artefact = table.by_core(core_hash)?.artefact_hash?;
            Some(ProofName { core_hash, artefact })
        };
        receipts.filter(|receipt| is_proven(receipt)).map(name).collect()
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
        let mut proofs = lock(&self.proofs);
        let proven = receipts.iter().filter(|receipt| is_proven(receipt));
        proven.for_each(|receipt| proofs.remove(receipt.core_hash()));
        drop(proofs);
        self.update_gauges();
    }

    /// The proofs that a block names and that were verified here, by the id of their receipt.
    pub fn artefacts(&self, receipts: &[Arc<SignedReceipt>], proofs: &[ProofName]) -> Vec<(B256, Bytes)> {
        let proven = receipts.iter().filter(|receipt| is_proven(receipt));
        proven
            .zip(proofs)
            .filter_map(|(receipt, name)| match self.known(name)? {
                Known::Good { artefact, .. } => Some((receipt.core().receipt_id.0, artefact)),
                _ => None,
            })
            .collect()
    }

    /// Those proofs of a proposal that have not been verified here. From now on they are wanted.
    pub fn missing_proofs(&self, proofs: &[ProofName]) -> Vec<ProofName> {
        let missing: Vec<_> = proofs.iter().copied().filter(|name| !self.is_known(name)).collect();
        let mut wanted = lock(&self.proofs);
        missing.iter().for_each(|name| wanted.want(*name));
        missing
    }

    /// Whether each of these proofs was verified here, well or not.
    pub fn has_proofs(&self, proofs: &[ProofName]) -> bool {
        proofs.iter().all(|name| self.is_known(name))
    }

    fn is_known(&self, name: &ProofName) -> bool {
        self.known(name).is_some_and(|known| known != Known::Wanted)
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

/// Whether a receipt's answer has a proof.
fn is_proven(receipt: &SignedReceipt) -> bool {
    receipt.core().mode.served == Mode::Zk
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
