//! Likes and access to gated repositories.

use super::Found;
use crate::time::now_ms;
use rusqlite::{Connection, OptionalExtension as _, Transaction};

/// Adds or removes a like, and counts again.
pub(crate) fn set_like(tx: &Transaction<'_>, repo: i64, address: &str, like: bool) -> Found<()> {
    if like {
        let sql =
            "INSERT INTO likes (repo, address, created) VALUES (?1, ?2, ?3) ON CONFLICT (repo, address) DO NOTHING";
        tx.execute(sql, (repo, address, now_ms()))?;
    } else {
        tx.execute("DELETE FROM likes WHERE repo = ?1 AND address = ?2", (repo, address))?;
    }
    let sql = "UPDATE repos SET likes = (SELECT COUNT(*) FROM likes WHERE repo = ?1) WHERE id = ?1";
    tx.execute(sql, [repo])?;
    Ok(())
}

/// Addresses that like a repository.
pub(crate) fn likers(db: &Connection, repo: i64) -> Found<Vec<String>> {
    let mut statement = db.prepare_cached("SELECT address FROM likes WHERE repo = ?1 ORDER BY created LIMIT 1000")?;
    let rows = statement.query_map([repo], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Public repositories that an address likes: kind, `owner/name`, when.
pub(crate) fn liked(db: &Connection, address: &str) -> Found<Vec<(String, String, i64)>> {
    let sql = "SELECT repos.kind, repos.owner || '/' || repos.name, likes.created FROM likes
               JOIN repos ON repos.id = likes.repo WHERE likes.address = ?1 AND repos.private = 0
               ORDER BY likes.created DESC LIMIT 1000";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map([address], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// State of an account's request for access.
pub(crate) fn access(db: &Connection, repo: i64, address: &str) -> Found<Option<String>> {
    let sql = "SELECT status FROM access WHERE repo = ?1 AND address = ?2";
    Ok(db
        .prepare_cached(sql)?
        .query_row((repo, address), |row| row.get(0))
        .optional()?)
}

/// Sets the state (`pending`, `accepted`, `rejected`).
pub(crate) fn set_access(tx: &Transaction<'_>, repo: i64, address: &str, status: &str) -> Found<()> {
    let sql = "INSERT INTO access (repo, address, status, created) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (repo, address) DO UPDATE SET status = excluded.status";
    tx.execute(sql, (repo, address, status, now_ms()))?;
    Ok(())
}

/// Requests in a state: address and when.
pub(crate) fn requests(db: &Connection, repo: i64, status: &str) -> Found<Vec<(String, i64)>> {
    let sql = "SELECT address, created FROM access WHERE repo = ?1 AND status = ?2 ORDER BY created LIMIT 1000";
    let mut statement = db.prepare_cached(sql)?;
    let rows = statement.query_map((repo, status), |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}
