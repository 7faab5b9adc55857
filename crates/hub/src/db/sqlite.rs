//! SQLite: one file, one connection that writes, several that read.

use super::{DbError, Found, Schema, VERSION, lock};
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::{
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

/// The connections to one file. All calls block.
#[derive(Debug)]
pub(super) struct Files {
    path: PathBuf,
    durable: bool,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

fn connect(path: &Path, durable: bool) -> Found<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(Duration::from_secs(10))?;
    let synchronous = if durable { "FULL" } else { "NORMAL" };
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous}; PRAGMA foreign_keys = ON;
         PRAGMA cache_size = -20480; PRAGMA temp_store = MEMORY;"
    ))?;
    connection.set_prepared_statement_cache_capacity(128);
    Ok(connection)
}

impl Files {
    /// Opens or makes the database.
    pub(super) fn open(path: &Path, schema: Schema) -> Found<Self> {
        let mut writer = connect(path, schema.durable)?;
        let version: i32 = writer.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if version == 0 {
            let tx = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
            tx.execute_batch(schema.sql)?;
            tx.execute_batch(&format!("PRAGMA user_version = {}", schema.version))?;
            tx.commit()?;
        } else if version != schema.version {
            return Err(DbError::Version {
                place: path.display().to_string(),
                got: version.into(),
                expected: schema.version,
            });
        }
        Ok(Self {
            path: path.to_owned(),
            durable: schema.durable,
            writer: Mutex::new(writer),
            readers: Mutex::default(),
        })
    }

    pub(super) fn read<T>(&self, queries: impl FnOnce(&Connection) -> Found<T>) -> Found<T> {
        let pooled = lock(&self.readers).pop();
        let mut connection = match pooled {
            Some(connection) => connection,
            None => connect(&self.path, self.durable)?,
        };
        let tx = connection.transaction()?;
        let result = queries(&tx);
        drop(tx);
        lock(&self.readers).push(connection);
        result
    }

    pub(super) fn write<T, E: From<DbError>>(&self, changes: impl FnOnce(&Connection) -> Result<T, E>) -> Result<T, E> {
        let mut connection = lock(&self.writer);
        let tx = connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(DbError::from)?;
        let value = changes(&tx)?;
        tx.commit().map_err(DbError::from)?;
        Ok(value)
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
            place: path.display().to_string(),
            got: got.into(),
            expected: VERSION,
        });
    }
    connection.execute("VACUUM INTO ?1", [target.to_string_lossy()])?;
    Ok(())
}
