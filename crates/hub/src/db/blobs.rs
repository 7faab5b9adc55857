//! Blobs: which exist, who may use them, what validators found, and which are garbage.

use super::{Connection, Found, Row, Transaction, Value, sql_size};
use crate::{
    time::now_ms,
    tree::{Blob, Entry, Hash},
};
use std::collections::{BTreeMap, HashSet};

/// Largest blob that is kept in the database: for small files a row is cheaper than a file, and 10,000 of them are one
/// transaction.
pub(crate) const INLINE_LIMIT: usize = 64 << 10;

/// From the columns sha256, blake3, git, size.
fn blob(row: &Row<'_>) -> Found<Blob> {
    Ok(Blob {
        sha256: row.get(0)?,
        blake3: row.get(1)?,
        git: row.get(2)?,
        size: row.get(3)?,
    })
}

/// Records stored blobs, with the content of those that are kept here, and that a repository may use them.
pub(crate) fn add(tx: &Transaction<'_>, repo: i64, stored: &[(Blob, Option<&[u8]>)]) -> Found<()> {
    let now = now_ms();
    // Several files of a commit may have the same content.
    let stored: BTreeMap<&Hash, &(Blob, Option<&[u8]>)> = stored.iter().map(|one| (&one.0.sha256, one)).collect();
    let rows: Vec<[Value<'_>; 5]> = stored
        .values()
        .map(|(blob, _)| {
            [
                (&blob.sha256).into(),
                (&blob.blake3).into(),
                (&blob.git).into(),
                sql_size(blob.size).into(),
                now.into(),
            ]
        })
        .collect();
    let into = "blobs (sha256, blake3, git, size, created)";
    tx.insert(into, &rows, "(sha256) DO UPDATE SET created = excluded.created")?;
    let bodies: Vec<[Value<'_>; 2]> = stored
        .values()
        .filter_map(|(blob, body)| Some([(&blob.sha256).into(), (*body)?.into()]))
        .collect();
    tx.insert("inline_blobs (sha256, body)", &bodies, "(sha256) DO NOTHING")?;
    let refs: Vec<[Value<'_>; 4]> = stored
        .keys()
        .map(|sha256| [repo.into(), (*sha256).into(), false.into(), now.into()])
        .collect();
    let into = "blob_refs (repo, sha256, committed, created)";
    tx.insert(into, &refs, "(repo, sha256) DO UPDATE SET created = excluded.created")
}

/// Lets a repository use a blob that is there, not yet committed.
pub(crate) fn allow(tx: &Transaction<'_>, repo: i64, sha256: &Hash) -> Found<()> {
    tx.execute(
        "INSERT INTO blob_refs (repo, sha256, committed, created) VALUES (?1, ?2, 0, ?3)
         ON CONFLICT (repo, sha256) DO UPDATE SET created = excluded.created",
        &[repo.into(), sha256.into(), now_ms().into()],
    )?;
    Ok(())
}

/// Marks blobs as part of a commit of a repository, and gives one that is not there, if there is one.
pub(crate) fn commit(tx: &Transaction<'_>, repo: i64, blobs: &[Hash]) -> Found<Option<Hash>> {
    let known = known(tx, blobs)?;
    if let Some(missing) = blobs.iter().find(|sha256| !known.contains(*sha256)) {
        return Ok(Some(*missing));
    }
    let now = now_ms();
    let rows: Vec<[Value<'_>; 4]> = blobs
        .iter()
        .map(|sha256| [repo.into(), sha256.into(), true.into(), now.into()])
        .collect();
    let into = "blob_refs (repo, sha256, committed, created)";
    tx.insert(into, &rows, "(repo, sha256) DO UPDATE SET committed = 1")?;
    Ok(None)
}

/// Those of a list that are there.
pub(crate) fn known(db: &Connection<'_>, blobs: &[Hash]) -> Found<HashSet<Hash>> {
    let sql = "SELECT sha256 FROM blobs WHERE sha256 IN";
    Ok(db.all_of(sql, blobs, |row| row.get(0))?.into_iter().collect())
}

/// A blob by hash.
pub(crate) fn get(db: &Connection<'_>, sha256: &Hash) -> Found<Option<Blob>> {
    let sql = "SELECT sha256, blake3, git, size FROM blobs WHERE sha256 = ?1";
    db.optional(sql, &[sha256.into()], blob)
}

/// A blob that a repository may use: uploaded through it, or committed to a repository that the caller may read. Knowing
/// a hash alone gives nothing.
pub(crate) fn usable(db: &Connection<'_>, repo: i64, sha256: &Hash, spaces: &[String]) -> Found<Option<Blob>> {
    let Some(blob) = get(db, sha256)? else { return Ok(None) };
    let sql = "SELECT repos.id, repos.private, repos.gated, repos.owner, blob_refs.committed FROM blob_refs
               JOIN repos ON repos.id = blob_refs.repo WHERE blob_refs.sha256 = ?1";
    let mut usable = false;
    db.each(sql, &[sha256.into()], |row| {
        let (id, private, gated): (i64, bool, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let (owner, committed): (String, bool) = (row.get(3)?, row.get(4)?);
        let public = !private && gated == "false" && committed;
        usable = id == repo || public || spaces.contains(&owner);
        Ok(!usable)
    })?;
    Ok(usable.then_some(blob))
}

/// Content of a blob that is kept in the database.
pub(crate) fn inline(db: &Connection<'_>, sha256: &Hash) -> Found<Option<Vec<u8>>> {
    let sql = "SELECT body FROM inline_blobs WHERE sha256 = ?1";
    db.optional(sql, &[sha256.into()], |row| row.get(0))
}

/// What a validator found in a blob.
pub(crate) fn check(db: &Connection<'_>, sha256: &Hash, format: &str) -> Found<Option<String>> {
    let sql = "SELECT result FROM checks WHERE sha256 = ?1 AND format = ?2";
    db.optional(sql, &[sha256.into(), format.into()], |row| row.get(0))
}

/// Records what a validator found.
pub(crate) fn set_check(tx: &Transaction<'_>, sha256: &Hash, format: &str, result: &str) -> Found<()> {
    let sql = "INSERT INTO checks (sha256, format, result) VALUES (?1, ?2, ?3)
               ON CONFLICT (sha256, format) DO UPDATE SET result = excluded.result";
    tx.execute(sql, &[sha256.into(), format.into(), result.into()])?;
    Ok(())
}

/// Bytes of all blobs that the repositories of an account use, in all its name spaces.
pub(crate) fn used_by(db: &Connection<'_>, account: &str) -> Found<u64> {
    let sql = "SELECT CAST(COALESCE(SUM(blobs.size), 0) AS BIGINT) FROM blobs WHERE sha256 IN
               (SELECT blob_refs.sha256 FROM blob_refs JOIN repos ON repos.id = blob_refs.repo
                WHERE repos.owner = ?1 OR repos.owner IN (SELECT name FROM names WHERE names.owner = ?1))";
    db.value(sql, &[account.into()])
}

/// Number and bytes of all blobs.
pub(crate) fn totals(db: &Connection<'_>) -> Found<(i64, u64)> {
    let sql = "SELECT COUNT(*), CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM blobs";
    let found = db.optional(sql, &[], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(found.unwrap_or_default())
}

/// Calls with every blob, and its content if that is in the database, until it answers false.
pub(crate) fn each(db: &Connection<'_>, mut call: impl FnMut(Blob, Option<Vec<u8>>) -> bool) -> Found<()> {
    let sql = "SELECT blobs.sha256, blobs.blake3, blobs.git, blobs.size, inline_blobs.body FROM blobs
               LEFT JOIN inline_blobs ON inline_blobs.sha256 = blobs.sha256 ORDER BY blobs.sha256";
    db.each(sql, &[], |row| Ok(call(blob(row)?, row.get(4)?)))
}

/// Drops the rows of blobs that nothing refers to and that are older than `before`, and returns the hashes of those whose
/// bytes are in files. The rows go first: a file without a row is garbage, a row without a file would be a loss.
pub(crate) fn sweep(tx: &Transaction<'_>, before: i64, most: usize) -> Found<Vec<Hash>> {
    let sql = "DELETE FROM blob_refs WHERE committed = 0 AND created < ?1";
    tx.execute(sql, &[before.into()])?;
    let sql = "SELECT sha256 FROM blobs WHERE created < ?1
               AND NOT EXISTS (SELECT 1 FROM blob_refs WHERE blob_refs.sha256 = blobs.sha256) LIMIT ?2";
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let dead: Vec<Hash> = tx.all(sql, &[before.into(), most.into()], |row| row.get(0))?;
    let mut files = Vec::new();
    for sha256 in dead {
        let hash = [(&sha256).into()];
        if tx.execute("DELETE FROM inline_blobs WHERE sha256 = ?1", &hash)? == 0 {
            files.push(sha256);
        }
        tx.execute("DELETE FROM blobs WHERE sha256 = ?1", &hash)?;
        tx.execute("DELETE FROM checks WHERE sha256 = ?1", &hash)?;
        tx.execute("DELETE FROM xorb_chunks WHERE blob = ?1", &hash)?;
    }
    Ok(files)
}

/// Drops directory objects that no commit reaches, and returns how many.
pub(crate) fn sweep_trees(tx: &Transaction<'_>) -> Found<usize> {
    let mut live: HashSet<Hash> = HashSet::new();
    let mut pending: Vec<Hash> = tx.all("SELECT DISTINCT tree FROM commits", &[], |row| row.get(0))?;
    while let Some(id) = pending.pop() {
        if live.insert(id) {
            let below = super::history::directory(tx, &id)?;
            pending.extend(below.into_values().filter_map(|entry| match entry {
                Entry::Directory(directory) => Some(directory.id),
                Entry::File(_) => None,
            }));
        }
    }
    let all: Vec<Hash> = tx.all("SELECT id FROM trees", &[], |row| row.get(0))?;
    let dead: Vec<Hash> = all.into_iter().filter(|id| !live.contains(id)).collect();
    for id in &dead {
        tx.execute("DELETE FROM trees WHERE id = ?1", &[id.into()])?;
    }
    Ok(dead.len())
}
