//! Branches, tags, commits and directory objects.

use super::{Connection, DbError, Found, Row, Transaction, Value};
use crate::{
    names::is_oid,
    tree::{self, Entry, Files, Hash, Objects},
};
use std::collections::BTreeMap;

/// A commit's row.
#[derive(Debug, Clone)]
pub(crate) struct Commit {
    pub(crate) oid: String,
    pub(crate) parent: Option<String>,
    /// The root directory.
    pub(crate) tree: Hash,
    pub(crate) author: String,
    pub(crate) title: String,
    pub(crate) body: String,
    /// Unix milliseconds.
    pub(crate) time: i64,
}

fn commit(row: &Row<'_>) -> Found<Commit> {
    Ok(Commit {
        oid: row.get(0)?,
        parent: row.get(1)?,
        tree: row.get(2)?,
        author: row.get(3)?,
        title: row.get(4)?,
        body: row.get(5)?,
        time: row.get(6)?,
    })
}

const COLUMNS: &str = "oid, parent, tree, author, title, body, time";

/// A commit by id.
pub(crate) fn by_oid(db: &Connection<'_>, repo: i64, oid: &str) -> Found<Option<Commit>> {
    let sql = format!("SELECT {COLUMNS} FROM commits WHERE repo = ?1 AND oid = ?2");
    db.optional(&sql, &[repo.into(), oid.into()], commit)
}

/// Where a branch or tag (`kind`) points.
pub(crate) fn target(db: &Connection<'_>, repo: i64, kind: &str, name: &str) -> Found<Option<String>> {
    let sql = "SELECT oid FROM refs WHERE repo = ?1 AND kind = ?2 AND name = ?3";
    db.optional(sql, &[repo.into(), kind.into(), name.into()], |row| row.get(0))
}

/// The commit of a revision: a branch, a tag, a commit id, or a full ref name.
pub(crate) fn resolve(db: &Connection<'_>, repo: i64, revision: &str) -> Found<Option<Commit>> {
    let oid = if is_oid(revision) {
        Some(revision.to_owned())
    } else if let Some(branch) = revision.strip_prefix("refs/heads/") {
        target(db, repo, "branch", branch)?
    } else if let Some(tag) = revision.strip_prefix("refs/tags/") {
        target(db, repo, "tag", tag)?
    } else {
        match target(db, repo, "branch", revision)? {
            Some(oid) => Some(oid),
            None => target(db, repo, "tag", revision)?,
        }
    };
    match oid {
        Some(oid) => by_oid(db, repo, &oid),
        None => Ok(None),
    }
}

/// A branch or tag.
#[derive(Debug, Clone)]
pub(crate) struct Ref {
    pub(crate) name: String,
    pub(crate) oid: String,
}

/// Branches or tags of a repository, sorted.
pub(crate) fn refs(db: &Connection<'_>, repo: i64, kind: &str) -> Found<Vec<Ref>> {
    let sql = "SELECT name, oid FROM refs WHERE repo = ?1 AND kind = ?2 ORDER BY name";
    db.all(sql, &[repo.into(), kind.into()], |row| {
        Ok(Ref {
            name: row.get(0)?,
            oid: row.get(1)?,
        })
    })
}

/// Adds a branch or tag; false if it is there.
pub(crate) fn add_ref(
    tx: &Transaction<'_>,
    repo: i64,
    kind: &str,
    name: &str,
    oid: &str,
    message: Option<&str>,
) -> Found<bool> {
    let sql = "INSERT INTO refs (repo, kind, name, oid, message) VALUES (?1, ?2, ?3, ?4, ?5)
               ON CONFLICT (repo, kind, name) DO NOTHING";
    let values = [repo.into(), kind.into(), name.into(), oid.into(), message.into()];
    Ok(tx.execute(sql, &values)? == 1)
}

/// Removes a branch or tag; false if it was not there. Its commits stay.
pub(crate) fn remove_ref(tx: &Transaction<'_>, repo: i64, kind: &str, name: &str) -> Found<bool> {
    let sql = "DELETE FROM refs WHERE repo = ?1 AND kind = ?2 AND name = ?3";
    Ok(tx.execute(sql, &[repo.into(), kind.into(), name.into()])? == 1)
}

/// Moves a branch if it is where it is expected: the one point where concurrent commits are decided.
pub(crate) fn advance(tx: &Transaction<'_>, repo: i64, branch: &str, from: &str, to: &str) -> Found<bool> {
    let sql = "UPDATE refs SET oid = ?4 WHERE repo = ?1 AND kind = 'branch' AND name = ?2 AND oid = ?3";
    if tx.execute(sql, &[repo.into(), branch.into(), from.into(), to.into()])? != 1 {
        return Ok(false);
    }
    touch(tx, repo, branch, to)?;
    Ok(true)
}

/// Records that a branch has a new commit.
pub(crate) fn touch(tx: &Transaction<'_>, repo: i64, branch: &str, to: &str) -> Found<()> {
    tx.execute(
        "UPDATE repos SET updated = ?2 WHERE id = ?1",
        &[repo.into(), crate::time::now_ms().into()],
    )?;
    if branch == "main" {
        tx.execute("UPDATE repos SET head = ?2 WHERE id = ?1", &[repo.into(), to.into()])?;
    }
    Ok(())
}

/// Stores a commit with its directory objects.
pub(crate) fn add_commit(tx: &Transaction<'_>, repo: i64, commit: &Commit, objects: &Objects) -> Found<()> {
    let bodies: Vec<[Value<'_>; 2]> = objects
        .bodies
        .iter()
        .map(|(id, body)| [id.into(), body.into()])
        .collect();
    tx.insert("trees (id, body)", &bodies, "(id) DO NOTHING")?;
    tx.execute(
        "INSERT INTO commits (repo, oid, parent, tree, author, title, body, time)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (repo, oid) DO NOTHING",
        &[
            repo.into(),
            (&commit.oid).into(),
            commit.parent.as_deref().into(),
            (&commit.tree).into(),
            (&commit.author).into(),
            (&commit.title).into(),
            (&commit.body).into(),
            commit.time.into(),
        ],
    )?;
    Ok(())
}

/// A commit and its ancestors, newest first.
pub(crate) fn ancestors(db: &Connection<'_>, repo: i64, from: &str, skip: usize, limit: usize) -> Found<Vec<Commit>> {
    let mut found = Vec::new();
    let mut next = Some(from.to_owned());
    let mut position = 0;
    // A parent is older than its child, so the chain ends.
    while let Some(oid) = next.take()
        && found.len() < limit
    {
        let Some(commit) = by_oid(db, repo, &oid)? else { break };
        next.clone_from(&commit.parent);
        if position >= skip {
            found.push(commit);
        }
        position += 1;
    }
    Ok(found)
}

/// The entries of a stored directory.
pub(crate) fn directory(db: &Connection<'_>, id: &Hash) -> Found<BTreeMap<String, Entry>> {
    let sql = "SELECT body FROM trees WHERE id = ?1";
    let body: Option<Vec<u8>> = db.optional(sql, &[id.into()], |row| row.get(0))?;
    let body = body.ok_or_else(|| DbError::Damaged(format!("directory {} is missing", hex::encode(id))))?;
    Ok(tree::decode(id, &body)?)
}

/// All files below a directory.
pub(crate) fn files(db: &Connection<'_>, root: &Hash) -> Found<Files> {
    let mut found = Files::new();
    let mut pending = vec![(String::new(), *root)];
    while let Some((prefix, id)) = pending.pop() {
        for (name, entry) in directory(db, &id)? {
            match entry {
                Entry::File(file) => {
                    found.insert(format!("{prefix}{name}"), file);
                }
                Entry::Directory(below) => pending.push((format!("{prefix}{name}/"), below.id)),
            }
        }
    }
    Ok(found)
}

/// The entry at a path below a directory.
pub(crate) fn entry(db: &Connection<'_>, root: &Hash, path: &str) -> Found<Option<Entry>> {
    let mut id = *root;
    let mut components = path.split('/').peekable();
    while let Some(component) = components.next() {
        match directory(db, &id)?.remove(component) {
            Some(Entry::Directory(below)) if components.peek().is_some() => id = below.id,
            Some(entry) if components.peek().is_none() => return Ok(Some(entry)),
            _ => break,
        }
    }
    Ok(None)
}
