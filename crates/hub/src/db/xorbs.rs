//! Where the chunks of xorbs are.

use super::{Found, hash_column, size_column, sql_size};
use crate::tree::Hash;
use rusqlite::{Connection, Transaction};

/// One chunk: part of a stored blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) blob: Hash,
    pub(crate) start: u64,
    pub(crate) size: u64,
}

/// Chunks `first..end` of a xorb; fewer if not all are known.
pub(crate) fn chunks(db: &Connection, xorb: &Hash, first: u32, end: u32) -> Found<Vec<Chunk>> {
    let sql = "SELECT blob, start, size FROM xorb_chunks WHERE xorb = ?1 AND position >= ?2 AND position < ?3 ORDER BY position";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map((xorb, first, end), |row| {
        Ok(Chunk {
            blob: hash_column(row, "blob")?,
            start: size_column(row, "start")?,
            size: size_column(row, "size")?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Records where a chunk is.
pub(crate) fn add(tx: &Transaction<'_>, xorb: &Hash, position: u32, chunk: &Chunk) -> Found<()> {
    tx.prepare_cached(
        "INSERT INTO xorb_chunks (xorb, position, size, blob, start) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (xorb, position) DO NOTHING",
    )?
    .execute((xorb, position, sql_size(chunk.size), chunk.blob, sql_size(chunk.start)))?;
    Ok(())
}
