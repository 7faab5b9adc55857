//! Metadata: one SQLite database (write-ahead log, full synchronisation), one writer, several readers.
//!
//! Everything that changes together is one transaction, so a crash leaves the state before or after it. SQL keeps to
//! what SQLite and PostgreSQL share.

pub(crate) mod accounts;
pub(crate) mod blobs;
pub(crate) mod history;
pub(crate) mod repos;
pub(crate) mod social;
pub(crate) mod xorbs;

use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::Semaphore;

/// Version of the schema, kept in `user_version`.
pub(crate) const VERSION: i32 = 1;
/// Readers that work at the same time.
const READERS: usize = 8;

/// Why the database could not answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DbError {
    /// SQLite's reason.
    #[error("database: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The database was written by another version.
    #[error("database {} has schema version {got}, this program reads {VERSION}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Version found.
        got: i32,
    },
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

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

/// Handle to the database; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Db(Arc<Inner>);

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A transaction that a panic cut short has rolled back; the connection is sound.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn connect(path: &Path) -> Found<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;
         PRAGMA cache_size = -20480; PRAGMA temp_store = MEMORY;",
    )?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

impl Db {
    /// Opens or makes the database.
    pub(crate) fn open(path: &Path) -> Found<Self> {
        let mut writer = connect(path)?;
        let version: i32 = writer.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        match version {
            0 => {
                let tx = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
                tx.execute_batch(include_str!("schema.sql"))?;
                tx.execute_batch(&format!("PRAGMA user_version = {VERSION}"))?;
                tx.commit()?;
            }
            VERSION => {}
            got => {
                return Err(DbError::Version {
                    path: path.to_owned(),
                    got,
                });
            }
        }
        Ok(Self(Arc::new(Inner {
            path: path.to_owned(),
            writer: Mutex::new(writer),
            readers: Mutex::new(Vec::new()),
            permits: Semaphore::new(READERS),
        })))
    }

    /// Runs queries on a reader, off the async threads. They see one state.
    pub(crate) async fn read<T, F>(&self, queries: F) -> Found<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Found<T> + Send + 'static,
    {
        let inner = Arc::clone(&self.0);
        // The semaphore is never closed.
        let _permit = self.0.permits.acquire().await.ok();
        tokio::task::spawn_blocking(move || {
            let pooled = lock(&inner.readers).pop();
            let mut connection = match pooled {
                Some(connection) => connection,
                None => connect(&inner.path)?,
            };
            let tx = connection.transaction()?;
            let result = queries(&tx);
            drop(tx);
            lock(&inner.readers).push(connection);
            result
        })
        .await?
    }

    /// Runs one transaction on the writer. It commits if `changes` returns `Ok`, and is on disk when this returns.
    pub(crate) async fn write<T, E, F>(&self, changes: F) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<DbError> + Send + 'static,
        F: FnOnce(&Transaction<'_>) -> Result<T, E> + Send + 'static,
    {
        let inner = Arc::clone(&self.0);
        let joined = tokio::task::spawn_blocking(move || {
            let mut connection = lock(&inner.writer);
            let tx = connection
                .transaction_with_behavior(TransactionBehavior::Immediate)
                .map_err(DbError::from)?;
            let value = changes(&tx)?;
            tx.commit().map_err(DbError::from)?;
            Ok(value)
        });
        joined.await.map_err(DbError::from)?
    }
}

/// Writes a copy of one state of a database, which another process may be using, to a new file.
pub(crate) fn snapshot(path: &Path, target: &Path) -> Found<()> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(60))?;
    let got: i32 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if got != VERSION {
        return Err(DbError::Version {
            path: path.to_owned(),
            got,
        });
    }
    connection.execute("VACUUM INTO ?1", [target.to_string_lossy()])?;
    Ok(())
}

/// A 32-byte hash column.
pub(crate) fn hash_column(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<[u8; 32]> {
    row.get(column)
}

/// An unsigned size column.
pub(crate) fn size_column(row: &rusqlite::Row<'_>, column: &str) -> rusqlite::Result<u64> {
    Ok(u64::try_from(row.get::<_, i64>(column)?).unwrap_or(0))
}

/// A size as SQLite holds it. Sizes above 2^63 are refused long before.
pub(crate) fn sql_size(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

/// Escapes a text for `LIKE … ESCAPE '\'`.
pub(crate) fn like(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('%');
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('%');
    out
}

/// A 32-byte secret of this hub, made at first use.
pub(crate) fn secret(tx: &Transaction<'_>, key: &str) -> Found<[u8; 32]> {
    use rusqlite::OptionalExtension as _;
    let known = tx
        .query_row("SELECT value FROM settings WHERE key = ?1", [key], |row| {
            row.get::<_, [u8; 32]>(0)
        })
        .optional()?;
    if let Some(secret) = known {
        return Ok(secret);
    }
    let fresh: [u8; 32] = rand::random();
    tx.execute("INSERT INTO settings (key, value) VALUES (?1, ?2)", (key, fresh))?;
    Ok(fresh)
}
