//! Repositories: create, find, list, change, delete.

use super::{Connection, Found, Row, Transaction, Value};
use crate::names::{RepoKind, RepoName};
use crate::time::now_ms;
use serde::Deserialize;

/// A repository's row.
#[derive(Debug, Clone)]
pub(crate) struct Repo {
    pub(crate) id: i64,
    pub(crate) kind: RepoKind,
    pub(crate) name: RepoName,
    pub(crate) created: i64,
    pub(crate) updated: i64,
    pub(crate) private: bool,
    /// `false`, `auto` or `manual`.
    pub(crate) gated: String,
    /// Commit of `main`.
    pub(crate) head: String,
    pub(crate) likes: i64,
    pub(crate) pipeline: Option<String>,
    pub(crate) library: Option<String>,
    pub(crate) license: Option<String>,
    /// The card's metadata, JSON.
    pub(crate) card: String,
    /// Formats of servable files in `main`, separated by spaces.
    pub(crate) formats: String,
}

impl Repo {
    /// Why its card says that it should not be used any more, in at most 300 characters.
    pub(crate) fn deprecated(&self) -> Option<String> {
        #[derive(Deserialize)]
        struct Card {
            deprecated: Option<String>,
        }

        let card: Card = serde_json::from_str(&self.card).ok()?;
        card.deprecated.map(|reason| reason.chars().take(300).collect())
    }
}

/// A tag that at most so many repositories have is rare.
const RARE: i64 = 2_000;

const COLUMNS: &str = "repos.id, repos.kind, repos.owner, repos.name, repos.created, repos.updated, repos.private, repos.gated, \
     repos.head, repos.likes, repos.pipeline, repos.library, repos.license, repos.card, repos.formats";

fn repo(row: &Row<'_>) -> Found<Repo> {
    Ok(Repo {
        id: row.get(0)?,
        kind: if row.get::<String>(1)? == "dataset" {
            RepoKind::Dataset
        } else {
            RepoKind::Model
        },
        name: RepoName {
            owner: row.get(2)?,
            name: row.get(3)?,
        },
        created: row.get(4)?,
        updated: row.get(5)?,
        private: row.get(6)?,
        gated: row.get(7)?,
        head: row.get(8)?,
        likes: row.get(9)?,
        pipeline: row.get(10)?,
        library: row.get(11)?,
        license: row.get(12)?,
        card: row.get(13)?,
        formats: row.get(14)?,
    })
}

fn folded(name: &RepoName) -> String {
    name.to_string().to_ascii_lowercase()
}

/// A repository by name, or by a former name.
pub(crate) fn find(db: &Connection<'_>, kind: RepoKind, name: &RepoName) -> Found<Option<Repo>> {
    let folded = folded(name);
    let key = [kind.as_str().into(), (&folded).into()];
    let sql = format!("SELECT {COLUMNS} FROM repos WHERE kind = ?1 AND folded = ?2");
    if let Some(found) = db.optional(&sql, &key, repo)? {
        return Ok(Some(found));
    }
    let sql = format!(
        "SELECT {COLUMNS} FROM repos JOIN moved ON moved.repo = repos.id WHERE moved.kind = ?1 AND moved.folded = ?2"
    );
    db.optional(&sql, &key, repo)
}

/// Adds a repository without a commit; `head` is set by the first one. `None` if the name is taken.
pub(crate) fn create(tx: &Transaction<'_>, kind: RepoKind, name: &RepoName, private: bool) -> Found<Option<i64>> {
    let folded = folded(name);
    let key = [kind.as_str().into(), (&folded).into()];
    let sql = "SELECT 1 FROM repos WHERE kind = ?1 AND folded = ?2";
    if tx.optional(sql, &key, |_| Ok(()))?.is_some() {
        return Ok(None);
    }
    // A new repository takes the name over from one that moved away.
    tx.execute("DELETE FROM moved WHERE kind = ?1 AND folded = ?2", &key)?;
    let id = tx.value(
        "INSERT INTO repos (kind, owner, name, folded, created, updated, private, gated, head)
         VALUES (?1, ?2, ?3, ?4, ?5, ?5, ?6, 'false', '') RETURNING id",
        &[
            kind.as_str().into(),
            (&name.owner).into(),
            (&name.name).into(),
            (&folded).into(),
            now_ms().into(),
            private.into(),
        ],
    )?;
    Ok(Some(id))
}

/// Removes a repository and everything that belongs to it. Its blobs become garbage unless others use them.
pub(crate) fn delete(tx: &Transaction<'_>, id: i64) -> Found<()> {
    for table in ["refs", "commits", "tags", "blob_refs", "likes", "access", "moved"] {
        tx.execute(&format!("DELETE FROM {table} WHERE repo = ?1"), &[id.into()])?;
    }
    tx.execute("DELETE FROM repos WHERE id = ?1", &[id.into()])?;
    Ok(())
}

/// Renames a repository and leaves its former name pointing to it. False if the new name is taken.
pub(crate) fn rename(tx: &Transaction<'_>, from: &Repo, to: &RepoName) -> Found<bool> {
    let (before, after) = (folded(&from.name), folded(to));
    let kind = from.kind.as_str();
    let key = [kind.into(), (&after).into()];
    let sql = "SELECT id FROM repos WHERE kind = ?1 AND folded = ?2";
    let there: Option<i64> = tx.optional(sql, &key, |row| row.get(0))?;
    if there.is_some_and(|id| id != from.id) {
        return Ok(false);
    }
    tx.execute("DELETE FROM moved WHERE kind = ?1 AND folded = ?2", &key)?;
    if before != after {
        tx.execute(
            "INSERT INTO moved (kind, folded, repo) VALUES (?1, ?2, ?3)
             ON CONFLICT (kind, folded) DO UPDATE SET repo = excluded.repo",
            &[kind.into(), (&before).into(), from.id.into()],
        )?;
    }
    tx.execute(
        "UPDATE repos SET owner = ?2, name = ?3, folded = ?4, updated = ?5 WHERE id = ?1",
        &[
            from.id.into(),
            (&to.owner).into(),
            (&to.name).into(),
            (&after).into(),
            now_ms().into(),
        ],
    )?;
    Ok(true)
}

/// Changes visibility and gating.
pub(crate) fn set_settings(tx: &Transaction<'_>, id: i64, private: Option<bool>, gated: Option<&str>) -> Found<()> {
    let sql = "UPDATE repos SET private = COALESCE(?2, private), gated = COALESCE(?3, gated) WHERE id = ?1";
    tx.execute(sql, &[id.into(), private.into(), gated.into()])?;
    Ok(())
}

/// What the card and the files of `main` say about a repository.
#[derive(Debug, Clone, Default)]
pub(crate) struct Summary {
    pub(crate) pipeline: Option<String>,
    pub(crate) library: Option<String>,
    pub(crate) license: Option<String>,
    pub(crate) card: String,
    pub(crate) formats: String,
    pub(crate) tags: Vec<String>,
}

/// Records the summary of a new head.
pub(crate) fn set_summary(tx: &Transaction<'_>, id: i64, summary: &Summary) -> Found<()> {
    tx.execute(
        "UPDATE repos SET pipeline = ?2, library = ?3, license = ?4, card = ?5, formats = ?6 WHERE id = ?1",
        &[
            id.into(),
            summary.pipeline.as_deref().into(),
            summary.library.as_deref().into(),
            summary.license.as_deref().into(),
            (&summary.card).into(),
            (&summary.formats).into(),
        ],
    )?;
    tx.execute("DELETE FROM tags WHERE repo = ?1", &[id.into()])?;
    for tag in &summary.tags {
        tx.execute(
            "INSERT INTO tags (repo, tag) VALUES (?1, ?2) ON CONFLICT (repo, tag) DO NOTHING",
            &[id.into(), tag.into()],
        )?;
    }
    Ok(())
}

/// Tags of a repository, sorted.
pub(crate) fn tags(db: &Connection<'_>, id: i64) -> Found<Vec<String>> {
    db.all(
        "SELECT tag FROM tags WHERE repo = ?1 ORDER BY tag",
        &[id.into()],
        |row| row.get(0),
    )
}

/// How a list is sorted, always descending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Sort {
    /// By last change.
    #[default]
    Updated,
    /// By creation.
    Created,
    /// By likes, then last change.
    Likes,
}

/// What to list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query {
    pub(crate) search: Option<String>,
    pub(crate) author: Option<String>,
    pub(crate) tags: Vec<String>,
    pub(crate) pipeline: Option<String>,
    pub(crate) library: Option<String>,
    pub(crate) license: Option<String>,
    pub(crate) gated: Option<bool>,
    /// Only repositories with a servable file of this format.
    pub(crate) format: Option<String>,
    pub(crate) sort: Sort,
    pub(crate) limit: usize,
    pub(crate) offset: usize,
    /// Name spaces whose private repositories are shown.
    pub(crate) spaces: Vec<String>,
}

/// Whether few repositories have a tag.
fn is_rare(db: &Connection<'_>, tag: &str) -> Found<bool> {
    let sql = "SELECT COUNT(*) FROM (SELECT 1 FROM tags WHERE tag = ?1 LIMIT ?2) AS few";
    let count: i64 = db.value(sql, &[tag.into(), (RARE + 1).into()])?;
    Ok(count <= RARE)
}

/// Repositories of a kind, newest first or by likes.
pub(crate) fn list(db: &Connection<'_>, kind: RepoKind, query: &Query) -> Found<Vec<Repo>> {
    let lower = |text: &String| text.to_lowercase();
    let words: Vec<String> = query
        .search
        .iter()
        .flat_map(|s| s.split_whitespace())
        .take(8)
        .map(str::to_lowercase)
        .collect();
    let (author, format) = (query.author.as_ref().map(lower), query.format.as_ref().map(lower));
    let mut values: Vec<Value<'_>> = vec![kind.as_str().into()];
    let mut conditions = vec!["repos.kind = ?1".to_owned()];
    let mut add = |sql: &dyn Fn(usize) -> String, value| {
        values.push(value);
        conditions.push(sql(values.len()));
    };
    for word in &words {
        add(&|n| format!("instr(repos.folded, ?{n}) > 0"), word.into());
    }
    if let Some(author) = &author {
        add(&|n| format!("repos.owner = ?{n}"), author.into());
    }
    for (column, wanted) in [
        ("pipeline", &query.pipeline),
        ("library", &query.library),
        ("license", &query.license),
    ] {
        if let Some(wanted) = wanted {
            add(&|n| format!("repos.{column} = ?{n}"), wanted.into());
        }
    }
    if let Some(format) = &format {
        add(&|n| format!("instr(repos.formats, ?{n}) > 0"), format.into());
    }
    // These are tags too, and tags have an index.
    let license = query.license.as_ref().map(|license| format!("license:{license}"));
    let facets = query.pipeline.iter().chain(&query.library).chain(&license);
    for tag in query.tags.iter().take(16).chain(facets) {
        // The repositories of a rare tag are looked up and sorted; for a common one the list is walked in its order until
        // the page is full.
        let rare = is_rare(db, tag)?;
        let sql = |n: usize| {
            if rare {
                format!("repos.id IN (SELECT tags.repo FROM tags WHERE tags.tag = ?{n})")
            } else {
                format!("EXISTS (SELECT 1 FROM tags WHERE tags.repo = repos.id AND tags.tag = ?{n})")
            }
        };
        add(&sql, tag.into());
    }
    match query.gated {
        Some(true) => conditions.push("repos.gated <> 'false'".into()),
        Some(false) => conditions.push("repos.gated = 'false'".into()),
        None => {}
    }
    let mut visible = "repos.private = 0".to_owned();
    for space in query.spaces.iter().take(256) {
        values.push(space.into());
        visible.push_str(&format!(" OR repos.owner = ?{}", values.len()));
    }
    conditions.push(format!("({visible})"));
    let order = match query.sort {
        Sort::Updated => "repos.updated DESC, repos.id DESC",
        Sort::Created => "repos.created DESC, repos.id DESC",
        Sort::Likes => "repos.likes DESC, repos.updated DESC, repos.id DESC",
    };
    values.push(i64::try_from(query.limit).unwrap_or(i64::MAX).into());
    values.push(i64::try_from(query.offset).unwrap_or(i64::MAX).into());
    let sql = format!(
        "SELECT {COLUMNS} FROM (SELECT repos.id AS hit FROM repos WHERE {} ORDER BY {order} LIMIT ?{} OFFSET ?{}) AS hits
         JOIN repos ON repos.id = hits.hit ORDER BY {order}",
        conditions.join(" AND "),
        values.len() - 1,
        values.len()
    );
    db.all(&sql, &values, repo)
}

/// What public repositories have, the most used first, with how many have it.
#[derive(Debug, Default)]
pub(crate) struct Facets {
    pub(crate) tags: Vec<(String, i64)>,
    pub(crate) pipelines: Vec<(String, i64)>,
    pub(crate) libraries: Vec<(String, i64)>,
    pub(crate) licenses: Vec<(String, i64)>,
}

/// The `limit` most used of each kind of facet.
pub(crate) fn facets(db: &Connection<'_>, kind: RepoKind, limit: usize) -> Found<Facets> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let counted = |sql: &str| {
        db.all(sql, &[kind.as_str().into(), limit.into()], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
    };
    let column = |name: &str| {
        counted(&format!(
            "SELECT {name}, COUNT(*) AS n FROM repos WHERE kind = ?1 AND private = 0 AND {name} IS NOT NULL
             GROUP BY {name} ORDER BY n DESC, {name} LIMIT ?2"
        ))
    };
    Ok(Facets {
        tags: counted(
            "SELECT tag, COUNT(*) AS n FROM tags JOIN repos ON repos.id = tags.repo
             WHERE repos.kind = ?1 AND repos.private = 0 GROUP BY tag ORDER BY n DESC, tag LIMIT ?2",
        )?,
        pipelines: column("pipeline")?,
        libraries: column("library")?,
        licenses: column("license")?,
    })
}

/// Number of repositories of a kind.
pub(crate) fn count(db: &Connection<'_>, kind: RepoKind) -> Found<i64> {
    db.value("SELECT COUNT(*) FROM repos WHERE kind = ?1", &[kind.as_str().into()])
}

/// Number of repositories of a name space; the private ones count only for those who see them.
pub(crate) fn count_in(db: &Connection<'_>, kind: RepoKind, owner: &str, sees_private: bool) -> Found<i64> {
    let sql = if sees_private {
        "SELECT COUNT(*) FROM repos WHERE kind = ?1 AND owner = ?2"
    } else {
        "SELECT COUNT(*) FROM repos WHERE kind = ?1 AND owner = ?2 AND private = 0"
    };
    db.value(sql, &[kind.as_str().into(), owner.into()])
}

/// Number of repositories of an account, of every kind and in all its name spaces.
pub(crate) fn count_of(db: &Connection<'_>, account: &str) -> Found<u64> {
    let sql = "SELECT COUNT(*) FROM repos
               WHERE repos.owner = ?1 OR repos.owner IN (SELECT name FROM names WHERE names.owner = ?1)";
    db.value(sql, &[account.into()])
}

/// The name space of a repository.
pub(crate) fn owner(db: &Connection<'_>, id: i64) -> Found<Option<String>> {
    db.optional("SELECT owner FROM repos WHERE id = ?1", &[id.into()], |row| row.get(0))
}
