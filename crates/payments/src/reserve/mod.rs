//! Exactly-once reservation of payments, exposure caps and their journal (D3, payments.md §8).
//!
//! A payment is reserved in memory under one lock before work starts, so of any number of copies exactly one runs; the
//! reservation is on disk before the first byte of an answer leaves, so the same holds over restarts. A reservation that a
//! crash takes back never gave an answer.
//!
//! ```text
//! reserved ─ serve ─> served ─ sent ─> unknown ─ settled ─> settled
//!     │                  └──────────────── settled ───────────^
//!     └─ fail ─> released          unknown ─ returned ─> served        served ─ defaulted ─> defaulted
//! ```
//! With settlement before work the money moves first: `reserved → unknown → settled`, then the work is served or fails.

mod book;
mod record;
#[cfg(test)]
mod tests;

pub use record::{Key, Money, Record, State, Work};

use book::Book;

use crate::{
    eip3009::Authorization,
    journal::{Commit, Journal, JournalError},
    permit2::Permit,
};
use alloy_primitives::{Address, B256, Bytes};
use opg_primitives::money::Amount;
use redb::{ReadableTable, TableDefinition, TableError, WriteTransaction};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
};

/// Seconds for which a lost payment counts against the node's cap; against its payer it counts for ever.
pub const DEFAULT_MEMORY: u64 = 24 * 3600;

const RECORDS: TableDefinition<'_, [u8; 52], &[u8]> = TableDefinition::new("payments");
/// Keys of records that are not final: what a restart has to load.
const OPEN: TableDefinition<'_, [u8; 52], ()> = TableDefinition::new("payments_open");

/// Largest unsettled amounts that are served on a signature (D3); zero means: always settle first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// For one payer.
    pub per_payer: Amount,
    /// For all payers together.
    pub per_node: Amount,
}

impl Default for Caps {
    /// 0.1 OPG a payer, 10 OPG a node.
    fn default() -> Self {
        let opg = opg_primitives::money::WEI_PER_OPG;
        Self {
            per_payer: Amount(opg / 10),
            per_node: Amount(opg * 10),
        }
    }
}

/// Whether work may start at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Inside the caps: run, settle later.
    Serve,
    /// Settle on chain, then run.
    SettleFirst,
}

/// A verified payment that asks to be reserved.
#[derive(Debug, Clone)]
pub struct Request {
    /// What the payer signed; `value` is at most `u128::MAX`.
    pub authorization: Authorization,
    /// The signature, already checked.
    pub signature: Bytes,
    /// Receipt that it will pay for.
    pub receipt_id: B256,
    /// Kept for the caller; see [`Record::context`].
    pub context: Bytes,
    /// The signature can only be checked by the chain.
    pub force_settle_first: bool,
}

/// A verified payment by Permit2 (`exact` or `upto`) that asks to be reserved.
#[derive(Debug, Clone)]
pub struct PermitRequest {
    /// What the payer signed; `amount` is at most `u128::MAX`.
    pub permit: Permit,
    /// The signature, already checked.
    pub signature: Bytes,
    /// Receipt that it will pay for.
    pub receipt_id: B256,
    /// Kept for the caller; see [`Record::context`].
    pub context: Bytes,
    /// The signature can only be checked by the chain.
    pub force_settle_first: bool,
}

/// A reservation was made: the caller must end it with [`Reservations::serve`] or [`Reservations::fail`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Reserved {
    /// The payment.
    pub key: Key,
    /// Serve or settle first.
    pub decision: Decision,
    /// The reservation on its way to the disk.
    pub commit: Commit,
}

/// Why a payment is not reserved.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReserveError {
    /// The same (payer, nonce) was used before.
    #[error("payment was already used for receipt {receipt_id} (state {state})")]
    Replayed {
        /// Receipt of the first use.
        receipt_id: B256,
        /// State of the first use.
        state: State,
        /// Settlement transaction of the first use, if any.
        tx: Option<B256>,
    },
    /// A permit that funds a channel pays for no call.
    #[error("a deposit into a channel is not a payment: reserve it with the channel")]
    NotAPayment,
    /// More than any OPG amount.
    #[error("payment amount {got} does not fit 128 bits")]
    Amount {
        /// Amount signed.
        got: alloy_primitives::U256,
    },
    /// The journal does not answer.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal holds something that is not a record.
    #[error("journal record of {key} is damaged: {problem}")]
    Damaged {
        /// Key of the record.
        key: Key,
        /// What the decoder said.
        problem: String,
    },
}

/// A change that the record's state does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("payment {key} is {}, cannot become {to}", state.map_or("not known", State::as_str))]
pub struct TransitionError {
    /// The payment.
    pub key: Key,
    /// Its state, if it is known.
    pub state: Option<State>,
    /// The change asked for.
    pub to: &'static str,
}

/// The reservations of one node. All methods may be called from any thread.
pub struct Reservations {
    journal: Arc<Journal>,
    caps: Caps,
    inner: Mutex<Book>,
    interrupted: Vec<Record>,
}

impl std::fmt::Debug for Reservations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reservations")
            .field("caps", &self.caps)
            .field("live", &self.lock().live.len())
            .finish_non_exhaustive()
    }
}

impl Reservations {
    /// Loads what the journal holds.
    ///
    /// # Errors
    /// The journal cannot be read, or a record in it cannot be decoded.
    pub fn open(journal: Arc<Journal>, caps: Caps) -> Result<Self, ReserveError> {
        let mut inner = Book::default();
        let mut interrupted = Vec::new();
        let read = journal.read()?;
        match read.open_table(OPEN) {
            Ok(open) => {
                let records = read.open_table(RECORDS).map_err(JournalError::from)?;
                for entry in open.iter().map_err(JournalError::from)? {
                    let key = Key::from_bytes(entry.map_err(JournalError::from)?.0.value());
                    let Some(bytes) = records.get(key.to_bytes()).map_err(JournalError::from)? else {
                        return Err(ReserveError::Damaged {
                            key,
                            problem: "missing".into(),
                        });
                    };
                    let record = decode(key, bytes.value())?;
                    if record.work == Work::Running {
                        interrupted.push(record.clone());
                    }
                    inner.put(record, 0);
                }
            }
            Err(TableError::TableDoesNotExist(_)) => {}
            Err(error) => return Err(JournalError::from(error).into()),
        }
        Ok(Self {
            journal,
            caps,
            inner: Mutex::new(inner),
            interrupted,
        })
    }

    /// Payments whose work a crash interrupted. The caller ends each with [`fail`](Self::fail) and a receipt over nothing.
    #[must_use]
    pub fn interrupted(&self) -> &[Record] {
        &self.interrupted
    }

    /// Reserves a payment, exactly once per (payer, nonce) for ever.
    ///
    /// # Errors
    /// [`ReserveError::Replayed`] for every copy but the first.
    pub fn reserve(&self, request: Request, now: u64) -> Result<Reserved, ReserveError> {
        self.reserve_as(request, None, now)
    }

    /// Reserves a payment by Permit2, exactly once per (owner, nonce) for ever, under the same caps. The rest of its life is that of
    /// any other payment; its settlement takes [`Record::due`].
    ///
    /// # Errors
    /// [`ReserveError::Replayed`] for every copy but the first; [`ReserveError::NotAPayment`] for a channel deposit.
    pub fn reserve_permit(&self, request: PermitRequest, now: u64) -> Result<Reserved, ReserveError> {
        let authorization = record::as_authorization(&request.permit).ok_or(ReserveError::NotAPayment)?;
        let permit = Some(request.permit);
        let request = Request {
            authorization,
            signature: request.signature,
            receipt_id: request.receipt_id,
            context: request.context,
            force_settle_first: request.force_settle_first,
        };
        self.reserve_as(request, permit, now)
    }

    fn reserve_as(&self, request: Request, permit: Option<Permit>, now: u64) -> Result<Reserved, ReserveError> {
        self.journal.health()?;
        let key = Key::from(&request.authorization);
        let amount = u128::try_from(request.authorization.value).map_err(|_| ReserveError::Amount {
            got: request.authorization.value,
        })?;
        let amount = Amount(amount);
        let mut inner = self.lock();
        if let Some(live) = inner.live.get(&key) {
            return Err(replayed(&live.record));
        }
        // Final records leave memory only once they are on disk, so memory and disk together know every key.
        if let Some(record) = self.stored(key)? {
            return Err(replayed(&record));
        }
        let payer = inner.payer(key.payer).saturating_add(amount);
        let node = inner.node(now).saturating_add(amount);
        let inside = payer <= self.caps.per_payer && node <= self.caps.per_node;
        let settle_first = request.force_settle_first || !inside;
        let record = Record {
            authorization: request.authorization,
            permit,
            signature: request.signature,
            amount,
            receipt_id: request.receipt_id,
            reserved_at: now,
            settle_first,
            context: request.context,
            work: Work::Running,
            money: Money::Open,
        };
        // Queued under the lock: the journal's order is the order of changes.
        let commit = self.write(&record, |_| Ok(()));
        inner.put(record, commit.number());
        let decision = if settle_first {
            Decision::SettleFirst
        } else {
            Decision::Serve
        };
        Ok(Reserved { key, decision, commit })
    }

    /// The work was answered and costs `charge`; more than the signed amount counts as the signed amount. `extra` (the
    /// receipt) is written in the same transaction.
    ///
    /// # Errors
    /// The work is not running, or had to be settled first and is not.
    pub fn serve(
        &self,
        key: Key,
        charge: Amount,
        extra: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error> + Send + 'static,
    ) -> Result<Commit, TransitionError> {
        self.change(key, "served", extra, |record| {
            let allowed = record.work == Work::Running
                && match record.money {
                    Money::Settled { .. } => true,
                    Money::Open => !record.settle_first,
                    _ => false,
                };
            let charge = charge.min(record.amount);
            record.work = Work::Served { charge };
            if charge.is_zero() && record.money == Money::Open {
                record.money = Money::Released;
            }
            allowed
        })
    }

    /// The work was not answered: nothing is owed. An open signature is never used; money that is settled, or may be, comes
    /// back to the payer as a credit through a receipt that charges nothing (`extra`, written in the same transaction).
    ///
    /// # Errors
    /// The work is not running.
    pub fn fail(
        &self,
        key: Key,
        extra: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error> + Send + 'static,
    ) -> Result<Commit, TransitionError> {
        self.change(key, "failed", extra, |record| {
            let allowed = record.work == Work::Running;
            record.work = Work::Failed;
            if record.money == Money::Open {
                record.money = Money::Released;
            }
            allowed
        })
    }

    /// The authorization is about to be broadcast in transaction `tx`. Wait for the commit before broadcasting.
    ///
    /// # Errors
    /// The money is not open, or not owed yet (running work that need not be settled first).
    pub fn sent(&self, key: Key, tx: B256) -> Result<Commit, TransitionError> {
        self.change(
            key,
            "unknown",
            |_| Ok(()),
            |record| {
                let owed = record.settle_first || matches!(record.work, Work::Served { .. });
                let allowed = record.money == Money::Open && owed;
                record.money = Money::Sent { tx };
                allowed
            },
        )
    }

    /// The token's settlement slot holds this payment.
    ///
    /// # Errors
    /// The money was released or is settled already.
    pub fn settled(&self, key: Key, tx: Option<B256>) -> Result<Commit, TransitionError> {
        self.change(
            key,
            "settled",
            |_| Ok(()),
            |record| {
                // A default that turns out to be paid after all is good news, not an error.
                let allowed = matches!(record.money, Money::Open | Money::Sent { .. } | Money::Defaulted { .. });
                record.money = Money::Settled { tx };
                allowed
            },
        )
    }

    /// The transaction is known not to have used the authorization: it may be sent again.
    ///
    /// # Errors
    /// Nothing was sent.
    pub fn returned(&self, key: Key) -> Result<Commit, TransitionError> {
        self.change(
            key,
            "open",
            |_| Ok(()),
            |record| {
                let allowed = matches!(record.money, Money::Sent { .. });
                record.money = if record.work == Work::Failed {
                    Money::Released
                } else {
                    Money::Open
                };
                allowed
            },
        )
    }

    /// The token will never accept the authorization (expired, cancelled, used for something else).
    ///
    /// # Errors
    /// The money is settled or released.
    pub fn defaulted(&self, key: Key, now: u64) -> Result<Commit, TransitionError> {
        self.change(
            key,
            "defaulted",
            |_| Ok(()),
            |record| {
                let allowed = matches!(record.money, Money::Open | Money::Sent { .. });
                let owed = matches!(record.work, Work::Served { .. });
                record.money = if owed {
                    Money::Defaulted { at: now }
                } else {
                    Money::Released
                };
                allowed
            },
        )
    }

    /// The node gives up what it is owed for an answer, because the proof of it was not made in time (D10): the authorization is
    /// never settled. A payment that is settled already stays so, and comes back to its payer through the vault.
    ///
    /// # Errors
    /// The work was not served, or its payment is not open any more.
    pub fn forgive(&self, key: Key) -> Result<Commit, TransitionError> {
        self.change(
            key,
            "forgiven",
            |_| Ok(()),
            |record| {
                let allowed = record.money == Money::Open && matches!(record.work, Work::Served { .. });
                record.money = Money::Released;
                allowed
            },
        )
    }

    /// Up to `limit` answered payments that wait for settlement, the one that expires first in front.
    #[must_use]
    pub fn unsettled(&self, limit: usize) -> Vec<Record> {
        let owed = |record: &Record| record.money == Money::Open && matches!(record.work, Work::Served { .. });
        let mut records = self.select(owed);
        records.sort_unstable_by_key(|record| (record.authorization.valid_before, record.key()));
        records.truncate(limit);
        records
    }

    /// Payments whose settlement transaction has no known outcome.
    #[must_use]
    pub fn uncertain(&self) -> Vec<Record> {
        self.select(|record| matches!(record.money, Money::Sent { .. }))
    }

    /// The record of a payment, in memory or on disk.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn get(&self, key: Key) -> Result<Option<Record>, ReserveError> {
        if let Some(live) = self.lock().live.get(&key) {
            return Ok(Some(live.record.clone()));
        }
        self.stored(key)
    }

    /// What the node stands to lose now: on `payer` (lost payments included), and in all.
    #[must_use]
    pub fn exposure(&self, payer: Address, now: u64) -> (Amount, Amount) {
        let inner = self.lock();
        (inner.payer(payer), inner.node(now))
    }

    /// Number of live records by state, for metrics.
    #[must_use]
    pub fn counts(&self) -> HashMap<State, usize> {
        let mut counts = HashMap::new();
        for live in self.lock().live.values() {
            *counts.entry(live.record.state()).or_insert(0) += 1;
        }
        counts
    }

    /// Forgets final records that are on disk. Call it every few seconds.
    pub fn prune(&self) {
        let durable = self.journal.durable();
        self.lock()
            .live
            .retain(|_, live| !live.record.is_final() || live.write > durable);
    }

    fn select(&self, keep: impl Fn(&Record) -> bool) -> Vec<Record> {
        self.lock()
            .live
            .values()
            .map(|live| &live.record)
            .filter(|record| keep(record))
            .cloned()
            .collect()
    }

    fn change(
        &self,
        key: Key,
        to: &'static str,
        extra: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error> + Send + 'static,
        change: impl FnOnce(&mut Record) -> bool,
    ) -> Result<Commit, TransitionError> {
        let mut inner = self.lock();
        let Some(live) = inner.live.get(&key) else {
            return Err(TransitionError { key, state: None, to });
        };
        let mut record = live.record.clone();
        if !change(&mut record) {
            return Err(TransitionError {
                key,
                state: Some(live.record.state()),
                to,
            });
        }
        let commit = self.write(&record, extra);
        inner.put(record, commit.number());
        Ok(commit)
    }

    fn write(
        &self,
        record: &Record,
        extra: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error> + Send + 'static,
    ) -> Commit {
        let key = record.key().to_bytes();
        let is_final = record.is_final();
        let bytes = serde_json::to_vec(record);
        self.journal.write(move |transaction| {
            let bytes = bytes.map_err(|e| redb::Error::Corrupted(e.to_string()))?;
            transaction.open_table(RECORDS)?.insert(key, bytes.as_slice())?;
            let mut open = transaction.open_table(OPEN)?;
            if is_final {
                open.remove(key)?;
            } else {
                open.insert(key, ())?;
            }
            drop(open);
            extra(transaction)
        })
    }

    fn stored(&self, key: Key) -> Result<Option<Record>, ReserveError> {
        let read = self.journal.read()?;
        let records = match read.open_table(RECORDS) {
            Ok(records) => records,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(error) => return Err(JournalError::from(error).into()),
        };
        let found = records.get(key.to_bytes()).map_err(JournalError::from)?;
        found.map(|bytes| decode(key, bytes.value())).transpose()
    }

    /// Every critical section computes first and assigns last, so a panic inside leaves the maps whole.
    fn lock(&self) -> MutexGuard<'_, Book> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn decode(key: Key, bytes: &[u8]) -> Result<Record, ReserveError> {
    serde_json::from_slice(bytes).map_err(|e| ReserveError::Damaged {
        key,
        problem: e.to_string(),
    })
}

fn replayed(record: &Record) -> ReserveError {
    let tx = match record.money {
        Money::Sent { tx } => Some(tx),
        Money::Settled { tx } => tx,
        _ => None,
    };
    ReserveError::Replayed {
        receipt_id: record.receipt_id,
        state: record.state(),
        tx,
    }
}
