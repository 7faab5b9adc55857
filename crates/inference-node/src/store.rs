//! The node's receipts on disk: the chain of sequence numbers, the outbox of what is not final yet, the openings for their holders.
//!
//! A receipt is signed under one lock that also assigns its sequence number, and is queued in the same journal write that ends its
//! payment's reservation. It leaves the node only when that write is on disk: a number taken back by a crash was never seen.

use crate::{
    job::{Job, JobError, Outcome, secret_hash},
    payment::{BookError, Books, Funding, PaidBy},
};
use alloy_primitives::{B256, Bytes};
use opg_payments::{
    journal::{Commit, Journal, JournalError},
    reserve::{Key, ReserveError},
    x402::ChargeExtra,
};
use opg_primitives::{
    ids::{KeysetDigest, ReceiptId},
    mode::Mode,
};
use opg_receipt::{FinishReason, SignedQuote, SignedReceipt};
use redb::{ReadableTable, TableDefinition, TableError, WriteTransaction};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, MutexGuard},
};

/// Receipts that may wait to become final; more, and the node takes no new work.
pub(crate) const MAX_OUTBOX: usize = 100_000;

const RECEIPTS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("receipts");
const OPENINGS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("openings");
const OPENINGS_BY_TIME: TableDefinition<'_, (u64, [u8; 32]), ()> = TableDefinition::new("openings_by_time");
/// Sequence number → receipt id of what is not at its end yet.
const OUTBOX: TableDefinition<'_, u64, [u8; 32]> = TableDefinition::new("outbox");
/// Receipt id → what its proof is made from, until it is made.
const PROOF_JOBS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("proof_jobs");
/// Receipt id → its artefact.
const ARTEFACTS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("artefacts");
/// Keyset → next sequence number and hash of the newest core.
const CHAIN: TableDefinition<'_, [u8; 32], (u64, [u8; 32])> = TableDefinition::new("chain");

/// How far a receipt has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// Signed.
    Executed,
    /// A full node checked and took it.
    Checked,
    /// In a finalised block.
    Final { height: u64 },
    /// Final, settled and credited.
    Credited { height: u64 },
    /// No full node will ever take it.
    Expired { reason: String },
}

impl Stage {
    /// The word of the lifecycle (D8).
    pub(crate) const fn word(&self, mode: Mode) -> &'static str {
        match self {
            Self::Executed => "executed",
            Self::Checked if !matches!(mode, Mode::None) => "verified",
            Self::Checked => "checked",
            Self::Final { .. } => "final",
            Self::Credited { .. } => "settled",
            Self::Expired { .. } => "expired",
        }
    }
}

/// A receipt as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Stored {
    pub(crate) cose: Bytes,
    pub(crate) stage: Stage,
    pub(crate) secret_hash: B256,
}

/// One entry of the outbox.
#[derive(Debug, Clone)]
pub(crate) struct Pending {
    pub(crate) seq: u64,
    pub(crate) id: ReceiptId,
    pub(crate) payment: PaidBy,
    pub(crate) stage: Stage,
    /// Mode served.
    pub(crate) mode: Mode,
    /// A proof must be made before a full node takes it.
    pub(crate) unproven: bool,
}

/// What a proof after the answer is made from.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ProofJob {
    pub(crate) seq: u64,
    /// Root of the program.
    pub(crate) program: B256,
    pub(crate) salt: B256,
    /// Body of the request.
    pub(crate) body: Bytes,
    /// The answer's one part.
    pub(crate) answer: Bytes,
    /// Unix seconds.
    pub(crate) deadline: u64,
}

/// Why a receipt cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StoreError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Job(#[from] JobError),
    #[error(transparent)]
    Payment(#[from] BookError),
    #[error(transparent)]
    Reserve(#[from] ReserveError),
    #[error("receipt {id} in the journal is damaged: {problem}")]
    Damaged { id: ReceiptId, problem: String },
}

/// A finished receipt on its way to the disk.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) receipt: SignedReceipt,
    pub(crate) commit: Commit,
    /// What a channel's client counts.
    pub(crate) counted: Option<ChargeExtra>,
}

struct Inner {
    next: (u64, B256),
    outbox: BTreeMap<u64, Pending>,
}

/// The receipts of one keyset.
pub(crate) struct Store {
    journal: Arc<Journal>,
    key: ed25519_dalek::SigningKey,
    keyset: KeysetDigest,
    inner: Mutex<Inner>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("keyset", &self.keyset)
            .field("next", &self.lock().next)
            .finish_non_exhaustive()
    }
}

impl Store {
    pub(crate) fn open(
        journal: Arc<Journal>,
        key: ed25519_dalek::SigningKey,
        keyset: KeysetDigest,
    ) -> Result<Self, StoreError> {
        let mut inner = Inner {
            next: (0, B256::ZERO),
            outbox: BTreeMap::new(),
        };
        let read = journal.read()?;
        if let Some(chain) = existing(read.open_table(CHAIN))?
            && let Some(next) = chain.get(keyset.0.0).map_err(JournalError::from)?
        {
            let (seq, prev) = next.value();
            inner.next = (seq, prev.into());
        }
        let proofs = existing(read.open_table(PROOF_JOBS))?;
        if let Some(outbox) = existing(read.open_table(OUTBOX))? {
            for entry in outbox.iter().map_err(JournalError::from)? {
                let (seq, id) = entry.map_err(JournalError::from)?;
                let (seq, id) = (seq.value(), ReceiptId(id.value().into()));
                let stored = load::<Stored>(&journal, id)?.ok_or_else(|| damaged(id, "missing"))?;
                let receipt = SignedReceipt::decode(&stored.cose).map_err(|e| damaged(id, e))?;
                let mut entry = pending(&receipt, stored.stage);
                entry.unproven = proofs
                    .as_ref()
                    .is_some_and(|jobs| matches!(jobs.get(id.0.0), Ok(Some(_))));
                inner.outbox.insert(seq, entry);
            }
        }
        drop((proofs, read));
        Ok(Self {
            journal,
            key,
            keyset,
            inner: Mutex::new(inner),
        })
    }

    /// Signs the receipt of a job and ends its payment's reservation, in one journal write.
    ///
    /// `now` in Unix seconds; the parts of the answer are kept for the receipt's holder for `keep` seconds.
    pub(crate) fn finish(
        &self,
        books: &Books<'_>,
        job: &Job,
        funding: &Funding,
        outcome: &Outcome,
        (now, keep): (u64, u64),
    ) -> Result<Finished, StoreError> {
        let quote = SignedQuote::decode(&job.quote).map_err(JobError::from)?;
        let opening = job_opening(job, outcome);
        let mut inner = self.lock();
        let (seq, _) = inner.next;
        let payment = funding.payment().ok_or(JobError::Range("amount"))?;
        let core = job.core(&quote, payment, outcome, inner.next)?;
        let keep_until = now + keep;
        let charge = core.price.charge;
        let receipt = SignedReceipt::sign(core, &self.key).map_err(JobError::from)?;
        let next = (seq + 1, receipt.core_hash());
        let id = receipt.core().receipt_id;
        let stored = Stored {
            cose: receipt.cose().clone(),
            stage: Stage::Executed,
            secret_hash: job.secret_hash,
        };
        let proof = match (&outcome.proof, outcome.leaves.first()) {
            (Some(proof), Some((_, answer))) => Some(ProofJob {
                seq,
                program: proof.program,
                salt: job.salt,
                body: Bytes::copy_from_slice(&proof.body),
                answer: Bytes::copy_from_slice(answer),
                deadline: receipt
                    .core()
                    .evidence
                    .and_then(|evidence| evidence.proof_deadline)
                    .unwrap_or_default(),
            }),
            _ => None,
        };
        let mut entry = pending(&receipt, Stage::Executed);
        entry.unproven = proof.is_some();
        let keyset = self.keyset;
        let write = move |transaction: &WriteTransaction| {
            let key = id.0.0;
            transaction
                .open_table(RECEIPTS)?
                .insert(key, encode(&stored)?.as_slice())?;
            transaction
                .open_table(OPENINGS)?
                .insert(key, encode(&opening)?.as_slice())?;
            transaction
                .open_table(OPENINGS_BY_TIME)?
                .insert((keep_until, key), ())?;
            if let Some(proof) = &proof {
                transaction
                    .open_table(PROOF_JOBS)?
                    .insert(key, encode(proof)?.as_slice())?;
            }
            transaction.open_table(OUTBOX)?.insert(seq, key)?;
            transaction.open_table(CHAIN)?.insert(keyset.0.0, (next.0, next.1.0))?;
            Ok(())
        };
        // The write is queued under this lock, so numbers reach the disk in order.
        let charge = (outcome.finish != FinishReason::Error).then_some(charge);
        let (commit, counted) = books.end(funding, charge, id, now, write)?;
        inner.next = next;
        inner.outbox.insert(seq, entry);
        Ok(Finished {
            receipt,
            commit,
            counted,
        })
    }

    /// Records that a receipt has come further; with `end`, that nothing more will happen to it.
    pub(crate) fn advance(&self, seq: u64, stage: Stage, end: bool) -> Option<Commit> {
        let mut inner = self.lock();
        let entry = inner.outbox.get_mut(&seq)?;
        entry.stage = stage.clone();
        let id = entry.id;
        if end {
            inner.outbox.remove(&seq);
        }
        Some(self.journal.write(move |transaction| {
            let mut receipts = transaction.open_table(RECEIPTS)?;
            let found = receipts
                .get(id.0.0)?
                .map(|bytes| serde_json::from_slice::<Stored>(bytes.value()));
            if let Some(stored) = found {
                let mut stored = stored.map_err(|e| redb::Error::Corrupted(e.to_string()))?;
                stored.stage = stage;
                receipts.insert(id.0.0, encode(&stored)?.as_slice())?;
            }
            if end {
                transaction.open_table(OUTBOX)?.remove(seq)?;
                transaction.open_table(PROOF_JOBS)?.remove(id.0.0)?;
            }
            Ok(())
        }))
    }

    /// The proof that is to be made next: that of the oldest receipt without one.
    pub(crate) fn next_proof(&self) -> Result<Option<(ReceiptId, ProofJob)>, StoreError> {
        let Some(id) = self.unproven().first().copied() else {
            return Ok(None);
        };
        let read = self.journal.read()?;
        let Some(table) = existing(read.open_table(PROOF_JOBS))? else {
            return Ok(None);
        };
        // A job that is not on disk yet comes with a later look.
        let Some(bytes) = table.get(id.0.0).map_err(JournalError::from)? else {
            return Ok(None);
        };
        let job = serde_json::from_slice(bytes.value()).map_err(|e| damaged(id, e))?;
        Ok(Some((id, job)))
    }

    /// Receipts that wait for their proof, in the order in which they get it.
    pub(crate) fn unproven(&self) -> Vec<ReceiptId> {
        let inner = self.lock();
        inner.outbox.values().filter(|p| p.unproven).map(|p| p.id).collect()
    }

    /// Payments of answers that wait for their proof.
    pub(crate) fn unproven_payments(&self) -> HashSet<Key> {
        let inner = self.lock();
        inner
            .outbox
            .values()
            .filter(|p| p.unproven)
            .filter_map(|p| p.payment.single())
            .collect()
    }

    /// Keeps the proof of a receipt, which can be submitted once this returns.
    ///
    /// The receipt waits for its proof until the proof is on disk: whoever asks meanwhile hears that it is on its way.
    ///
    /// # Errors
    ///
    /// The journal does not write; the proof is still due.
    pub(crate) async fn proven(&self, seq: u64, id: ReceiptId, artefact: Vec<u8>) -> Result<(), JournalError> {
        let commit = self.journal.write(move |transaction| {
            transaction.open_table(ARTEFACTS)?.insert(id.0.0, artefact.as_slice())?;
            transaction.open_table(PROOF_JOBS)?.remove(id.0.0)?;
            Ok(())
        });
        commit.durable().await?;
        if let Some(pending) = self.lock().outbox.get_mut(&seq) {
            pending.unproven = false;
        }
        Ok(())
    }

    /// The proof of a receipt, while it is kept.
    pub(crate) fn artefact(&self, id: ReceiptId) -> Result<Option<Bytes>, StoreError> {
        let read = self.journal.read()?;
        let Some(table) = existing(read.open_table(ARTEFACTS))? else {
            return Ok(None);
        };
        let found = table.get(id.0.0).map_err(JournalError::from)?;
        Ok(found.map(|bytes| Bytes::copy_from_slice(bytes.value())))
    }

    /// Up to `limit` entries of the outbox, oldest first.
    pub(crate) fn outbox(&self, limit: usize, keep: impl Fn(&Pending) -> bool) -> Vec<Pending> {
        self.lock()
            .outbox
            .values()
            .filter(|p| keep(p))
            .take(limit)
            .cloned()
            .collect()
    }

    pub(crate) fn outbox_len(&self) -> usize {
        self.lock().outbox.len()
    }

    /// A receipt by id.
    pub(crate) fn get(&self, id: ReceiptId) -> Result<Option<Stored>, StoreError> {
        load(&self.journal, id)
    }

    /// The parts of an answer, while they are kept.
    pub(crate) fn opening(&self, id: ReceiptId) -> Result<Option<Opening>, StoreError> {
        let read = self.journal.read()?;
        let Some(table) = existing(read.open_table(OPENINGS))? else {
            return Ok(None);
        };
        let found = table.get(id.0.0).map_err(JournalError::from)?;
        found
            .map(|bytes| serde_json::from_slice(bytes.value()).map_err(|e| damaged(id, e)))
            .transpose()
    }

    /// Forgets openings and proofs whose time is over.
    pub(crate) fn forget_openings(&self, now: u64) {
        self.journal.write(move |transaction| {
            let mut by_time = transaction.open_table(OPENINGS_BY_TIME)?;
            let mut openings = transaction.open_table(OPENINGS)?;
            let mut artefacts = transaction.open_table(ARTEFACTS)?;
            let old = by_time
                .range(..(now, [0; 32]))?
                .take(10_000)
                .map(|entry| Ok(entry?.0.value()))
                .collect::<Result<Vec<_>, redb::Error>>()?;
            for key in old {
                by_time.remove(key)?;
                openings.remove(key.1)?;
                artefacts.remove(key.1)?;
            }
            Ok(())
        });
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// What opens a receipt's commitments, kept for its holder.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Opening {
    pub(crate) job: Job,
    /// Leaf kinds and base64 bytes, as in the `opg` object.
    pub(crate) leaves: Vec<(opg_receipt::LeafKind, Bytes)>,
}

impl Opening {
    /// The `opg` object again.
    pub(crate) fn envelope(&self, receipt: &SignedReceipt, secret: Option<&str>) -> Value {
        let leaves: Vec<_> = self
            .leaves
            .iter()
            .map(|(kind, bytes)| (*kind, bytes.to_vec()))
            .collect();
        self.job.envelope(receipt, &leaves, secret)
    }
}

fn job_opening(job: &Job, outcome: &Outcome) -> Opening {
    let leaves = outcome
        .leaves
        .iter()
        .map(|(kind, bytes)| (*kind, Bytes::copy_from_slice(bytes)))
        .collect();
    Opening {
        job: job.clone(),
        leaves,
    }
}

impl Stored {
    /// Whether `secret` is the bearer secret of this receipt.
    pub(crate) fn opens(&self, id: ReceiptId, secret: &str) -> bool {
        // Both sides are hashes of the secret: the time of the comparison says nothing about it.
        secret_hash(id, secret) == self.secret_hash
    }
}

fn pending(receipt: &SignedReceipt, stage: Stage) -> Pending {
    let core = receipt.core();
    Pending {
        seq: core.seq,
        id: core.receipt_id,
        payment: PaidBy::of(receipt),
        stage,
        mode: core.mode.served,
        unproven: false,
    }
}

fn load<T: DeserializeOwned>(journal: &Journal, id: ReceiptId) -> Result<Option<T>, StoreError> {
    let read = journal.read()?;
    let Some(table) = existing(read.open_table(RECEIPTS))? else {
        return Ok(None);
    };
    let found = table.get(id.0.0).map_err(JournalError::from)?;
    found
        .map(|bytes| serde_json::from_slice(bytes.value()).map_err(|e| damaged(id, e)))
        .transpose()
}

fn existing<T>(table: Result<T, TableError>) -> Result<Option<T>, JournalError> {
    match table {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, redb::Error> {
    serde_json::to_vec(value).map_err(|e| redb::Error::Corrupted(e.to_string()))
}

fn damaged(id: ReceiptId, problem: impl ToString) -> StoreError {
    StoreError::Damaged {
        id,
        problem: problem.to_string(),
    }
}
