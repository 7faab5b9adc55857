//! Blobs: which exist, who may use them, what validators found, and which are garbage.

use super::{Found, hash_column, size_column, sql_size};
use crate::{
    time::now_ms,
    tree::{Blob, Entry, Hash},
};
use rusqlite::{Connection, OptionalExtension as _, Row, Transaction};
use std::collections::HashSet;

/// Largest blob that is kept in the database: for small files a row is cheaper than a file, and 10,000 of them are one
/// transaction.
pub(crate) const INLINE_LIMIT: usize = 64 << 10;

fn blob(row: &Row<'_>) -> rusqlite::Result<Blob> {
    Ok(Blob {
        sha256: hash_column(row, "sha256")?,
        blake3: hash_column(row, "blake3")?,
        git: row.get("git")?,
        size: size_column(row, "size")?,
    })
}

/// Records a stored blob and that a repository may use it.
pub(crate) fn add(tx: &Transaction<'_>, repo: i64, blob: &Blob, inline: Option<&[u8]>) -> Found<()> {
    let now = now_ms();
    tx.prepare_cached(
        "INSERT INTO blobs (sha256, blake3, git, size, created) VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT (sha256) DO UPDATE SET created = excluded.created",
    )?
    .execute((blob.sha256, blob.blake3, blob.git, sql_size(blob.size), now))?;
    if let Some(body) = inline {
        tx.prepare_cached("INSERT INTO inline_blobs (sha256, body) VALUES (?1, ?2) ON CONFLICT (sha256) DO NOTHING")?
            .execute((blob.sha256, body))?;
    }
    allow(tx, repo, &blob.sha256)
}

/// Lets a repository use a blob that is there, not yet committed.
pub(crate) fn allow(tx: &Transaction<'_>, repo: i64, sha256: &Hash) -> Found<()> {
    tx.prepare_cached(
        "INSERT INTO blob_refs (repo, sha256, committed, created) VALUES (?1, ?2, 0, ?3)
         ON CONFLICT (repo, sha256) DO UPDATE SET created = excluded.created",
    )?
    .execute((repo, sha256, now_ms()))?;
    Ok(())
}

/// Marks a blob as part of a commit of a repository.
pub(crate) fn commit(tx: &Transaction<'_>, repo: i64, sha256: &Hash) -> Found<()> {
    tx.prepare_cached(
        "INSERT INTO blob_refs (repo, sha256, committed, created) VALUES (?1, ?2, 1, ?3)
         ON CONFLICT (repo, sha256) DO UPDATE SET committed = 1",
    )?
    .execute((repo, sha256, now_ms()))?;
    Ok(())
}

/// A blob by hash.
pub(crate) fn get(db: &Connection, sha256: &Hash) -> Found<Option<Blob>> {
    let sql = "SELECT sha256, blake3, git, size FROM blobs WHERE sha256 = ?1";
    Ok(db.prepare_cached(sql)?.query_row([sha256], blob).optional()?)
}

/// A blob that a repository may use: uploaded through it, or committed to a repository that the caller may read. Knowing
/// a hash alone gives nothing.
pub(crate) fn usable(db: &Connection, repo: i64, sha256: &Hash, spaces: &[String]) -> Found<Option<Blob>> {
    let Some(blob) = get(db, sha256)? else { return Ok(None) };
    let sql = "SELECT repos.id, repos.private, repos.gated, repos.owner, blob_refs.committed FROM blob_refs
               JOIN repos ON repos.id = blob_refs.repo WHERE blob_refs.sha256 = ?1";
    let mut statement = db.prepare_cached(sql)?;
    let mut rows = statement.query([sha256])?;
    while let Some(row) = rows.next()? {
        let (id, private, gated): (i64, bool, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (owner, committed): (String, bool) = (row.get(3)?, row.get(4)?);
        let public = !private && gated == "false" && committed;
        if id == repo || public || spaces.contains(&owner) {
            return Ok(Some(blob));
        }
    }
    Ok(None)
}

/// Content of a blob that is kept in the database.
pub(crate) fn inline(db: &Connection, sha256: &Hash) -> Found<Option<Vec<u8>>> {
    let sql = "SELECT body FROM inline_blobs WHERE sha256 = ?1";
    Ok(db
        .prepare_cached(sql)?
        .query_row([sha256], |row| row.get(0))
        .optional()?)
}

/// What a validator found in a blob.
pub(crate) fn check(db: &Connection, sha256: &Hash, format: &str) -> Found<Option<String>> {
    let sql = "SELECT result FROM checks WHERE sha256 = ?1 AND format = ?2";
    Ok(db
        .prepare_cached(sql)?
        .query_row((sha256, format), |row| row.get(0))
        .optional()?)
}

/// Records what a validator found.
pub(crate) fn set_check(tx: &Transaction<'_>, sha256: &Hash, format: &str, result: &str) -> Found<()> {
    let sql = "INSERT INTO checks (sha256, format, result) VALUES (?1, ?2, ?3)
               ON CONFLICT (sha256, format) DO UPDATE SET result = excluded.result";
    tx.execute(sql, (sha256, format, result))?;
    Ok(())
}

/// Bytes of all blobs that the repositories of an account use, in all its name spaces.
pub(crate) fn used_by(db: &Connection, account: &str) -> Found<u64> {
    let sql = "SELECT COALESCE(SUM(blobs.size), 0) AS total FROM blobs WHERE sha256 IN
               (SELECT blob_refs.sha256 FROM blob_refs JOIN repos ON repos.id = blob_refs.repo
                WHERE repos.owner = ?1 OR repos.owner IN (SELECT name FROM names WHERE names.owner = ?1))";
    Ok(db
        .prepare_cached(sql)?
        .query_row([account], |row| size_column(row, "total"))?)
}

/// Number and bytes of all blobs.
pub(crate) fn totals(db: &Connection) -> Found<(i64, u64)> {
    let sql = "SELECT COUNT(*) AS n, COALESCE(SUM(size), 0) AS total FROM blobs";
    Ok(db.query_row(sql, [], |row| Ok((row.get("n")?, size_column(row, "total")?)))?)
}

/// Calls with every blob, and its content if that is in the database, until it answers false.
pub(crate) fn each(db: &Connection, mut call: impl FnMut(Blob, Option<&[u8]>) -> bool) -> Found<()> {
    let sql = "SELECT blobs.sha256, blobs.blake3, blobs.git, blobs.size, inline_blobs.body FROM blobs
               LEFT JOIN inline_blobs ON inline_blobs.sha256 = blobs.sha256 ORDER BY blobs.sha256";
    let mut statement = db.prepare(sql)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let body = row.get_ref("body")?.as_blob_or_null().map_err(rusqlite::Error::from)?;
        if !call(blob(row)?, body) {
            break;
        }
    }
    Ok(())
}

/// Drops the rows of blobs that nothing refers to and that are older than `before`, and returns the hashes of those whose
/// bytes are in files. The rows go first: a file without a row is garbage, a row without a file would be a loss.
pub(crate) fn sweep(tx: &Transaction<'_>, before: i64, most: usize) -> Found<Vec<Hash>> {
    tx.execute("DELETE FROM blob_refs WHERE committed = 0 AND created < ?1", [before])?;
    let sql = "SELECT sha256 FROM blobs WHERE created < ?1
               AND NOT EXISTS (SELECT 1 FROM blob_refs WHERE blob_refs.sha256 = blobs.sha256) LIMIT ?2";
    let mut statement = tx.prepare(sql)?;
    let rows = statement.query_map((before, i64::try_from(most).unwrap_or(i64::MAX)), |row| row.get(0))?;
    let dead: Vec<Hash> = rows.collect::<Result<_, _>>()?;
    let mut files = Vec::new();
    for sha256 in dead {
        if tx.execute("DELETE FROM inline_blobs WHERE sha256 = ?1", [sha256])? == 0 {
            files.push(sha256);
        }
        tx.execute("DELETE FROM blobs WHERE sha256 = ?1", [sha256])?;
        tx.execute("DELETE FROM checks WHERE sha256 = ?1", [sha256])?;
        tx.execute("DELETE FROM xorb_chunks WHERE blob = ?1", [sha256])?;
    }
    Ok(files)
}

/// Drops directory objects that no commit reaches, and returns how many.
pub(crate) fn sweep_trees(tx: &Transaction<'_>) -> Found<usize> {
    let mut live: HashSet<Hash> = HashSet::new();
    let mut pending: Vec<Hash> = tx
        .prepare("SELECT DISTINCT tree FROM commits")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    while let Some(id) = pending.pop() {
        if live.insert(id) {
            let below = super::history::directory(tx, &id)?;
            pending.extend(below.into_values().filter_map(|entry| match entry {
                Entry::Directory(directory) => Some(directory.id),
                Entry::File(_) => None,
            }));
        }
    }
    let all: Vec<Hash> = tx
        .prepare("SELECT id FROM trees")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let dead: Vec<Hash> = all.into_iter().filter(|id| !live.contains(id)).collect();
    for id in &dead {
        tx.execute("DELETE FROM trees WHERE id = ?1", [id])?;
    }
    Ok(dead.len())
}
