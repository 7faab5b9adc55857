//! Sums of what models have earned, with the block up to which they are complete. One transaction moves both, so a crash
//! counts nothing twice and forgets nothing.

use crate::db::{Db, DbError, Found, Place, Row, Schema, Transaction};
use alloy_primitives::B256;
use opg_primitives::money::Amount;
use serde::Serialize;

/// Losing the last transactions loses nothing: their blocks are read again.
const SCHEMA: Schema = Schema {
    name: "books",
    version: 1,
    sql: TABLES,
    durable: false,
};

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS followed (one INTEGER PRIMARY KEY CHECK (one = 1), genesis BLOB NOT NULL, block INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS models (root BLOB PRIMARY KEY, calls INTEGER NOT NULL, charged TEXT NOT NULL, earned TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS payments (id BLOB PRIMARY KEY, root BLOB NOT NULL, charge TEXT NOT NULL, share TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS payments_of ON payments (root);
CREATE TABLE IF NOT EXISTS terms (hash BLOB PRIMARY KEY, channel BLOB NOT NULL, root BLOB NOT NULL, royalty INTEGER NOT NULL,
    waiting TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS terms_of ON terms (root);
CREATE INDEX IF NOT EXISTS terms_in ON terms (channel);
";

/// Why the books cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BooksError {
    /// The database's reason.
    #[error(
        "the sums of earnings: {0}; they can be deleted (chain.sqlite, or the tables followed, models, payments, terms \
             and books_schema), and are made again from the chain"
    )]
    Database(#[from] DbError),
}

/// What the ledger records, as far as creators are concerned. Amounts in wei.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// A receipt whose payment had settled: its creator is credited at once.
    Receipt { root: B256, charge: u128, share: u128 },
    /// A receipt that waits for its payment.
    Waiting {
        payment: B256,
        root: B256,
        charge: u128,
        share: u128,
    },
    /// The payment has settled.
    Credited { payment: B256 },
    /// The payment can never settle.
    Dropped { payment: B256 },
    /// Receipts that a channel pays for.
    ChannelCharge {
        terms: B256,
        channel: B256,
        root: B256,
        royalty_bps: u16,
        charge: u128,
        receipts: u64,
    },
    /// One call of `creditChannels`: its credits in order, and the terms that it named in order.
    ChannelCredits {
        credits: Vec<(B256, u128)>,
        terms: Vec<(B256, B256)>,
    },
    /// What still waits for a claim: everything else of these terms is credited.
    TermsLeft { terms: B256, left: u128 },
}

/// What a model has brought. Amounts in wei.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Earnings {
    /// Receipts recorded.
    pub(crate) calls: u64,
    /// Charges of all of them.
    pub(crate) charged: Amount,
    /// Credited to the creator: in escrow or released.
    pub(crate) earned: Amount,
    /// The creator's part of charges whose payment has not arrived yet.
    pub(crate) waiting: Amount,
}

/// The creator's part of a charge, as the ledger computes it.
pub(super) fn share(charge: u128, royalty_bps: u16) -> u128 {
    let (whole, rest, bps) = (charge / 10_000, charge % 10_000, u128::from(royalty_bps));
    whole.saturating_mul(bps).saturating_add(rest * bps / 10_000)
}

/// The database.
#[derive(Debug)]
pub(crate) struct Books(Db);

/// An amount in a column: the databases have no integers of 128 bits.
fn amount(row: &Row<'_>, column: usize) -> Found<u128> {
    Ok(row.get::<String>(column)?.parse().unwrap_or(0))
}

fn hash(row: &Row<'_>, column: usize) -> Found<B256> {
    Ok(row.get::<[u8; 32]>(column)?.into())
}

impl Books {
    /// Opens or makes the books. Blocks, as all calls do.
    pub(crate) fn open(place: Place) -> Result<Self, BooksError> {
        Ok(Self(Db::open(place, SCHEMA)?))
    }

    /// Ends what is held at a server.
    pub(crate) async fn close(&self) {
        self.0.close().await;
    }

    /// The block up to which the chain with this genesis is read. The books of another chain are emptied.
    pub(super) fn begin(&self, genesis: B256) -> Result<u64, BooksError> {
        let block = self.0.write_now(|tx| {
            let sql = "SELECT genesis, block FROM followed";
            let known = tx.optional(sql, &[], |row| Ok((hash(row, 0)?, row.get::<u64>(1)?)))?;
            match known {
                Some((known, block)) if known == genesis => return Ok(block),
                Some(_) => tracing::warn!("the chain is another one than before: earnings are summed anew"),
                None => {}
            }
            for table in ["followed", "models", "payments", "terms"] {
                tx.execute(&format!("DELETE FROM {table}"), &[])?;
            }
            let sql = "INSERT INTO followed (one, genesis, block) VALUES (1, ?1, 0)";
            tx.execute(sql, &[(&genesis.0).into()])?;
            Ok::<_, DbError>(0)
        })?;
        Ok(block)
    }

    /// Enters everything up to `block`, in the order of the chain.
    pub(super) fn apply(&self, entries: &[Entry], block: u64) -> Result<(), BooksError> {
        self.0.write_now(|tx| {
            for entry in entries {
                enter(tx, entry)?;
            }
            let block = i64::try_from(block).unwrap_or(i64::MAX);
            tx.execute("UPDATE followed SET block = ?1", &[block.into()])?;
            Ok(())
        })
    }

    /// What waits in a channel, by terms.
    pub(super) fn waiting_in(&self, channel: B256) -> Result<Vec<(B256, u128)>, BooksError> {
        let sql = "SELECT hash, waiting FROM terms WHERE channel = ?1 AND waiting <> '0' ORDER BY hash";
        let found = self
            .0
            .read_now(|db| db.all(sql, &[(&channel.0).into()], |row| Ok((hash(row, 0)?, amount(row, 1)?))))?;
        Ok(found)
    }

    /// What a model has brought up to the block.
    pub(crate) fn earnings(&self, root: B256) -> Result<(Earnings, Option<u64>), BooksError> {
        let found = self.0.read_now(|db| {
            let root = [(&root.0).into()];
            let block: Option<u64> = db.optional("SELECT block FROM followed", &[], |row| row.get(0))?;
            let sql = "SELECT calls, charged, earned FROM models WHERE root = ?1";
            let found = db.optional(sql, &root, |row| {
                Ok(Earnings {
                    calls: u64::try_from(row.get::<i64>(0)?).unwrap_or(0),
                    charged: Amount(amount(row, 1)?),
                    earned: Amount(amount(row, 2)?),
                    waiting: Amount::ZERO,
                })
            })?;
            let mut waiting = 0u128;
            let shares = db.all("SELECT share FROM payments WHERE root = ?1", &root, |row| {
                amount(row, 0)
            })?;
            for share in shares {
                waiting = waiting.saturating_add(share);
            }
            let sql = "SELECT waiting, royalty FROM terms WHERE root = ?1 AND waiting <> '0'";
            for (charge, royalty) in db.all(sql, &root, |row| Ok((amount(row, 0)?, row.get::<u16>(1)?)))? {
                waiting = waiting.saturating_add(share(charge, royalty));
            }
            let mut found = found.unwrap_or_default();
            found.waiting = Amount(waiting);
            Ok((found, block))
        })?;
        Ok(found)
    }
}

/// Adds to a model's sums; amounts may be taken back.
fn add(tx: &Transaction<'_>, root: B256, calls: i64, charged: (u128, u128), earned: u128) -> Found<()> {
    let sql = "SELECT calls, charged, earned FROM models WHERE root = ?1";
    let before = tx.optional(sql, &[(&root.0).into()], |row| {
        Ok((row.get::<i64>(0)?, amount(row, 1)?, amount(row, 2)?))
    })?;
    let before = before.unwrap_or_default();
    let charge = before.1.saturating_add(charged.0).saturating_sub(charged.1);
    tx.execute(
        "INSERT INTO models (root, calls, charged, earned) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (root) DO UPDATE SET calls = excluded.calls, charged = excluded.charged, earned = excluded.earned",
        &[
            (&root.0).into(),
            before.0.saturating_add(calls).into(),
            (&charge.to_string()).into(),
            (&before.2.saturating_add(earned).to_string()).into(),
        ],
    )?;
    Ok(())
}

/// Takes a waiting receipt out.
fn take(tx: &Transaction<'_>, payment: B256) -> Found<Option<(B256, u128, u128)>> {
    let id = [(&payment.0).into()];
    let sql = "SELECT root, charge, share FROM payments WHERE id = ?1";
    let found = tx.optional(sql, &id, |row| Ok((hash(row, 0)?, amount(row, 1)?, amount(row, 2)?)))?;
    tx.execute("DELETE FROM payments WHERE id = ?1", &id)?;
    Ok(found)
}

/// Credits part of what waits under terms.
fn credit(tx: &Transaction<'_>, terms: B256, credited: u128) -> Found<()> {
    let sql = "SELECT root, royalty, waiting FROM terms WHERE hash = ?1";
    let known = tx.optional(sql, &[(&terms.0).into()], |row| {
        Ok((hash(row, 0)?, row.get::<u16>(1)?, amount(row, 2)?))
    })?;
    let Some((root, royalty, waiting)) = known else {
        return Ok(());
    };
    let left = waiting.saturating_sub(credited).to_string();
    let sql = "UPDATE terms SET waiting = ?2 WHERE hash = ?1";
    tx.execute(sql, &[(&terms.0).into(), (&left).into()])?;
    add(tx, root, 0, (0, 0), share(credited, royalty))
}

fn waiting(tx: &Transaction<'_>, terms: B256) -> Found<u128> {
    let sql = "SELECT waiting FROM terms WHERE hash = ?1";
    let found = tx.optional(sql, &[(&terms.0).into()], |row| amount(row, 0))?;
    Ok(found.unwrap_or(0))
}

fn enter(tx: &Transaction<'_>, entry: &Entry) -> Found<()> {
    match entry {
        Entry::Receipt { root, charge, share } => add(tx, *root, 1, (*charge, 0), *share),
        Entry::Waiting {
            payment,
            root,
            charge,
            share,
        } => {
            tx.execute(
                "INSERT INTO payments (id, root, charge, share) VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT (id) DO UPDATE SET root = excluded.root, charge = excluded.charge, share = excluded.share",
                &[
                    (&payment.0).into(),
                    (&root.0).into(),
                    (&charge.to_string()).into(),
                    (&share.to_string()).into(),
                ],
            )?;
            add(tx, *root, 1, (*charge, 0), 0)
        }
        Entry::Credited { payment } => match take(tx, *payment)? {
            Some((root, _, share)) => add(tx, root, 0, (0, 0), share),
            None => Ok(()),
        },
        Entry::Dropped { payment } => match take(tx, *payment)? {
            Some((root, charge, _)) => add(tx, root, -1, (0, charge), 0),
            None => Ok(()),
        },
        Entry::ChannelCharge {
            terms,
            channel,
            root,
            royalty_bps,
            charge,
            receipts,
        } => {
            let total = waiting(tx, *terms)?.saturating_add(*charge).to_string();
            tx.execute(
                "INSERT INTO terms (hash, channel, root, royalty, waiting) VALUES (?1, ?2, ?3, ?4, ?5)
                 ON CONFLICT (hash) DO UPDATE SET waiting = excluded.waiting",
                &[
                    (&terms.0).into(),
                    (&channel.0).into(),
                    (&root.0).into(),
                    u32::from(*royalty_bps).into(),
                    (&total).into(),
                ],
            )?;
            add(tx, *root, i64::try_from(*receipts).unwrap_or(i64::MAX), (*charge, 0), 0)
        }
        Entry::ChannelCredits { credits, terms } => {
            // The ledger goes through the terms in order, and says nothing about those under which nothing waits.
            let mut credits = credits.clone();
            for (channel, hash) in terms {
                if waiting(tx, *hash)? == 0 {
                    continue;
                }
                if let Some(at) = credits.iter().position(|(credited, _)| credited == channel) {
                    let (_, amount) = credits.remove(at);
                    credit(tx, *hash, amount)?;
                }
            }
            Ok(())
        }
        Entry::TermsLeft { terms, left } => {
            let credited = waiting(tx, *terms)?.saturating_sub(*left);
            credit(tx, *terms, credited)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPG: u128 = 1_000_000_000_000_000_000;

    fn id(byte: u8) -> B256 {
        B256::repeat_byte(byte)
    }

    fn books(dir: &tempfile::TempDir) -> Books {
        let books = Books::open(dir.path().join("chain.sqlite").as_path().into()).unwrap();
        books.begin(id(9)).unwrap();
        books
    }

    fn of(books: &Books, root: B256) -> (u64, u128, u128, u128) {
        let found = books.earnings(root).unwrap().0;
        (found.calls, found.charged.0, found.earned.0, found.waiting.0)
    }

    #[test]
    fn shares_are_those_of_the_ledger() {
        for (charge, bps) in [
            (0, 1000),
            (1, 3000),
            (OPG + 7, 1),
            (99_999, 3000),
            (u128::MAX, 10_000),
            (12_345, 0),
        ] {
            let split = opg_primitives::money::split(Amount(charge.min(1 << 90)), bps.min(3000), false, false, true);
            assert_eq!(share(charge.min(1 << 90), bps.min(3000)), split.unwrap().creator.wei());
        }
        assert_eq!(share(u128::MAX, 10_000), u128::MAX);
    }

    #[test]
    fn payments_are_earned_when_they_settle_and_forgotten_when_they_cannot() {
        let dir = tempfile::tempdir().unwrap();
        let books = books(&dir);
        let wait = |payment: u8| Entry::Waiting {
            payment: id(payment),
            root: id(1),
            charge: 100,
            share: 10,
        };
        let entries = [
            Entry::Receipt {
                root: id(1),
                charge: 50,
                share: 5,
            },
            wait(2),
            wait(3),
            wait(4),
        ];
        books.apply(&entries, 5).unwrap();
        assert_eq!(of(&books, id(1)), (4, 350, 5, 30));
        let entries = [
            Entry::Credited { payment: id(2) },
            Entry::Dropped { payment: id(3) },
            // Of receipts that are not waiting: somebody else's, or said twice.
            Entry::Credited { payment: id(2) },
            Entry::Dropped { payment: id(7) },
        ];
        books.apply(&entries, 6).unwrap();
        assert_eq!(of(&books, id(1)), (3, 250, 15, 10));
        assert_eq!(of(&books, id(8)), (0, 0, 0, 0));
        // Another process goes on where this one was; another chain begins anew.
        drop(books);
        let books = Books::open(dir.path().join("chain.sqlite").as_path().into()).unwrap();
        assert_eq!(books.begin(id(9)).unwrap(), 6);
        assert_eq!(of(&books, id(1)), (3, 250, 15, 10));
        assert_eq!(books.begin(id(10)).unwrap(), 0);
        assert_eq!(of(&books, id(1)), (0, 0, 0, 0));
    }

    #[test]
    fn channels_pay_their_terms_in_the_order_of_the_call() {
        let dir = tempfile::tempdir().unwrap();
        let books = books(&dir);
        let charge = |terms: u8, channel: u8, root: u8, charge| Entry::ChannelCharge {
            terms: id(terms),
            channel: id(channel),
            root: id(root),
            royalty_bps: 1_000,
            charge,
            receipts: 2,
        };
        let entries = [
            charge(1, 20, 31, 1_000),
            charge(2, 20, 32, 500),
            charge(3, 21, 31, 70),
            charge(1, 20, 31, 1),
        ];
        books.apply(&entries, 1).unwrap();
        assert_eq!(of(&books, id(31)), (6, 1_071, 0, 107));
        // The channel's claims cover the first terms, and a part of the second; the third belong to another channel.
        let credits = vec![(id(20), 1_001), (id(21), 70), (id(20), 100)];
        let terms = vec![(id(20), id(1)), (id(21), id(3)), (id(20), id(2))];
        books
            .apply(
                &[Entry::ChannelCredits {
                    credits,
                    terms: terms.clone(),
                }],
                2,
            )
            .unwrap();
        assert_eq!(of(&books, id(31)), (6, 1_071, 107, 0));
        assert_eq!(of(&books, id(32)), (2, 500, 10, 40));
        assert_eq!(books.waiting_in(id(20)).unwrap(), [(id(2), 400)]);
        // Terms under which nothing waits get nothing of the next call.
        let credits = vec![(id(20), 150)];
        books.apply(&[Entry::ChannelCredits { credits, terms }], 3).unwrap();
        assert_eq!(of(&books, id(32)), (2, 500, 25, 25));
        // A call that is not seen: the ledger's storage says what is left.
        books.apply(&[Entry::TermsLeft { terms: id(2), left: 0 }], 4).unwrap();
        assert_eq!(of(&books, id(32)), (2, 500, 50, 0));
    }
}
