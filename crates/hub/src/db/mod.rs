//! Metadata, in one of two databases: SQLite beside the blobs (write-ahead log, full synchronisation), or PostgreSQL by
//! URL. One writer at a time, several readers.
//!
//! Everything that changes together is one transaction, so a crash leaves the state before or after it. All statements
//! are written once, for both ([`sql`]).

pub(crate) mod accounts;
pub(crate) mod blobs;
pub(crate) mod history;
mod postgres;
pub(crate) mod repos;
pub(crate) mod social;
pub(crate) mod sql;
mod sqlite;
pub(crate) mod xorbs;

pub(crate) use postgres::{Target, is_private};
pub(crate) use sql::{Connection, Row, Transaction, Value};
pub(crate) use sqlite::snapshot;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::Semaphore;

/// Version of the schema.
pub(crate) const VERSION: i32 = 1;
/// Readers that work at the same time.
const READERS: usize = 8;

/// The hub's tables.
pub(crate) const HUB: Schema = Schema {
    name: "hub",
    version: VERSION,
    sql: include_str!("schema.sql"),
    durable: true,
};

/// Tables that belong together, and their version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Schema {
    /// Distinguishes what lies in one database.
    pub(crate) name: &'static str,
    pub(crate) version: i32,
    pub(crate) sql: &'static str,
    /// Whether a transaction is on disk when it has succeeded; else the last ones can be lost, but none by half.
    pub(crate) durable: bool,
}

/// Why the database could not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DbError {
    /// SQLite's reason.
    #[error("database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// PostgreSQL's reason for refusing a statement.
    #[error("database: {reason}")]
    Postgres {
        /// What it says.
        reason: String,
    },
    /// PostgreSQL cannot be reached, or the connection was lost before the transaction was committed: nothing of it
    /// happened.
    #[error("the database cannot be reached: {reason}")]
    Unavailable {
        /// What the network or the server says.
        reason: String,
    },
    /// The connection was lost while a transaction was being committed.
    #[error("the database was lost during a commit, which happened whole or not at all: {reason}")]
    Uncertain {
        /// What the network or the server says.
        reason: String,
    },
    /// Another hub holds the database.
    #[error("{place} is in use by another hub; each needs a database of its own")]
    Taken {
        /// The database.
        place: String,
    },
    /// The database was written by another version.
    #[error("database {place} has schema version {got}, this program reads {expected}")]
    Version {
        /// The file or the server.
        place: String,
        /// Version found.
        got: i64,
        /// Version that this program reads.
        expected: i32,
    },
    /// A text with a NUL character, which PostgreSQL cannot hold.
    #[error("texts may not contain NUL characters")]
    Nul,
    /// A stored directory object is damaged.
    #[error(transparent)]
    Tree(#[from] crate::tree::TreeError),
    /// A stored value has another shape than written.
    #[error("database: {0}")]
    Damaged(String),
    /// A worker thread ended early.
    #[error("database worker: {0}")]
    Worker(#[from] tokio::task::JoinError),
}

/// Result of a query.
pub(crate) type Found<T> = Result<T, DbError>;

/// Where a database is.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// A file of SQLite.
    File(PathBuf),
    /// A server.
    Server(Box<Target>),
}

impl From<&Path> for Place {
    fn from(path: &Path) -> Self {
        Self::File(path.to_owned())
    }
}

#[derive(Debug)]
enum Store {
    Sqlite(sqlite::Files),
    Postgres(Box<postgres::Pool>),
}

#[derive(Debug)]
struct Inner {
    store: Store,
    permits: Semaphore,
}

/// Handle to the database; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Db(Arc<Inner>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A transaction that a panic cut short has rolled back; the connection is sound.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Db {
    /// Opens or makes the database. Blocks.
    pub(crate) fn open(place: Place, schema: Schema) -> Found<Self> {
        let store = match place {
            Place::File(path) => Store::Sqlite(sqlite::Files::open(&path, schema)?),
            Place::Server(target) => Store::Postgres(Box::new(postgres::Pool::open(*target, schema)?)),
        };
        Ok(Self(Arc::new(Inner {
            store,
            permits: Semaphore::new(READERS),
        })))
    }

    /// Runs queries on a reader; they see one state. Blocks.
    pub(crate) fn read_now<T>(&self, queries: impl FnOnce(&Connection<'_>) -> Found<T>) -> Found<T> {
        match &self.0.store {
            Store::Sqlite(files) => files.read(|connection| queries(&Connection::sqlite(connection))),
            Store::Postgres(pool) => pool.read(|session| queries(&Connection::postgres(session))),
        }
    }

    /// Runs one transaction on the writer. It commits if `changes` returns `Ok`, and is on disk when this returns, if the
    /// schema is durable. Blocks.
    pub(crate) fn write_now<T, E: From<DbError>>(
        &self,
        changes: impl FnOnce(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        match &self.0.store {
            Store::Sqlite(files) => {
                files.write(|connection| changes(&Transaction::new(Connection::sqlite(connection))))
            }
            Store::Postgres(pool) => pool.write(|session| changes(&Transaction::new(Connection::postgres(session)))),
        }
    }

    /// [`Self::read_now`] off the async threads.
    pub(crate) async fn read<T, F>(&self, queries: F) -> Found<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection<'_>) -> Found<T> + Send + 'static,
    {
        // The semaphore is never closed.
        let _permit = self.0.permits.acquire().await.ok();
        let shared = self.clone();
        tokio::task::spawn_blocking(move || shared.read_now(queries)).await?
    }

    /// [`Self::write_now`] off the async threads.
    pub(crate) async fn write<T, E, F>(&self, changes: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        let shared = self.clone();
        let joined = tokio::task::spawn_blocking(move || shared.write_now(changes));
        joined.await.map_err(DbError::from)?
    }

    /// Ends what is held at a server, so that another process can begin at once.
    pub(crate) async fn close(&self) {
        let shared = self.clone();
        let closed = tokio::task::spawn_blocking(move || {
            if let Store::Postgres(pool) = &shared.0.store {
                pool.close();
            }
        });
        let _ = closed.await;
    }
}

/// A size as the databases hold it. Sizes above 2^63 are refused long before.
pub(crate) fn sql_size(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// A 32-byte secret of this hub, made at first use.
pub(crate) fn secret(tx: &Transaction<'_>, key: &str) -> Found<[u8; 32]> {
    let known = tx.optional("SELECT value FROM settings WHERE key = ?1", &[key.into()], |row| {
        row.get(0)
    })?;
    if let Some(secret) = known {
        return Ok(secret);
    }
    let fresh: [u8; 32] = rand::random();
    let sql = "INSERT INTO settings (key, value) VALUES (?1, ?2)";
    tx.execute(sql, &[key.into(), (&fresh).into()])?;
    Ok(fresh)
}
