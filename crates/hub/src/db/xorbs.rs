//! Where the chunks of xorbs are.

use super::{Connection, Found, Transaction, Value, sql_size};
use crate::tree::Hash;

/// One chunk: part of a stored blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) blob: Hash,
    pub(crate) start: u64,
    pub(crate) size: u64,
}

/// Chunks `first..end` of a xorb; fewer if not all are known.
pub(crate) fn chunks(db: &Connection<'_>, xorb: &Hash, first: u32, end: u32) -> Found<Vec<Chunk>> {
    let sql = "SELECT blob, start, size FROM xorb_chunks WHERE xorb = ?1 AND position >= ?2 AND position < ?3 ORDER BY position";
    db.all(sql, &[xorb.into(), first.into(), end.into()], |row| {
        Ok(Chunk {
            blob: row.get(0)?,
            start: row.get(1)?,
            size: row.get(2)?,
        })
    })
}

/// Records where chunks are: xorb, position and place of each.
pub(crate) fn add(tx: &Transaction<'_>, placed: &[(Hash, u32, Chunk)]) -> Found<()> {
    let rows: Vec<[Value<'_>; 5]> = placed
        .iter()
        .map(|(xorb, position, chunk)| {
            [
                xorb.into(),
                (*position).into(),
                sql_size(chunk.size).into(),
                (&chunk.blob).into(),
                sql_size(chunk.start).into(),
            ]
        })
        .collect();
    let into = "xorb_chunks (xorb, position, size, blob, start)";
    tx.insert(into, &rows, "(xorb, position) DO NOTHING")
}
