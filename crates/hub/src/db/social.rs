//! Likes and access to gated repositories.

use super::{Connection, Found, Transaction};
use crate::time::now_ms;

/// Adds or removes a like, and counts again.
pub(crate) fn set_like(tx: &Transaction<'_>, repo: i64, address: &str, like: bool) -> Found<()> {
    if like {
        let sql =
            "INSERT INTO likes (repo, address, created) VALUES (?1, ?2, ?3) ON CONFLICT (repo, address) DO NOTHING";
        tx.execute(sql, &[repo.into(), address.into(), now_ms().into()])?;
    } else {
        let sql = "DELETE FROM likes WHERE repo = ?1 AND address = ?2";
        tx.execute(sql, &[repo.into(), address.into()])?;
    }
    let sql = "UPDATE repos SET likes = (SELECT COUNT(*) FROM likes WHERE repo = ?1) WHERE id = ?1";
    tx.execute(sql, &[repo.into()])?;
    Ok(())
}

/// Addresses that like a repository.
pub(crate) fn likers(db: &Connection<'_>, repo: i64) -> Found<Vec<String>> {
    let sql = "SELECT address FROM likes WHERE repo = ?1 ORDER BY created, address LIMIT 1000";
    db.all(sql, &[repo.into()], |row| row.get(0))
}

/// Public repositories that an address likes: kind, `owner/name`, when.
pub(crate) fn liked(db: &Connection<'_>, address: &str) -> Found<Vec<(String, String, i64)>> {
    let sql = "SELECT repos.kind, repos.owner || '/' || repos.name, likes.created FROM likes
               JOIN repos ON repos.id = likes.repo WHERE likes.address = ?1 AND repos.private = 0
               ORDER BY likes.created DESC, repos.id LIMIT 1000";
    db.all(sql, &[address.into()], |row| {
        Ok((row.get(0)?, row.get(1)?, row.get(2)?))
    })
}

/// State of an account's request for access.
pub(crate) fn access(db: &Connection<'_>, repo: i64, address: &str) -> Found<Option<String>> {
    let sql = "SELECT status FROM access WHERE repo = ?1 AND address = ?2";
    db.optional(sql, &[repo.into(), address.into()], |row| row.get(0))
}

/// Sets the state (`pending`, `accepted`, `rejected`).
pub(crate) fn set_access(tx: &Transaction<'_>, repo: i64, address: &str, status: &str) -> Found<()> {
    let sql = "INSERT INTO access (repo, address, status, created) VALUES (?1, ?2, ?3, ?4)
               ON CONFLICT (repo, address) DO UPDATE SET status = excluded.status";
    tx.execute(sql, &[repo.into(), address.into(), status.into(), now_ms().into()])?;
    Ok(())
}

/// Requests in a state: address and when.
pub(crate) fn requests(db: &Connection<'_>, repo: i64, status: &str) -> Found<Vec<(String, i64)>> {
    let sql =
        "SELECT address, created FROM access WHERE repo = ?1 AND status = ?2 ORDER BY created, address LIMIT 1000";
    db.all(sql, &[repo.into(), status.into()], |row| Ok((row.get(0)?, row.get(1)?)))
}
