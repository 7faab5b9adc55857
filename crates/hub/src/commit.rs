//! Commits: from operations on paths to a new revision of a branch.
//!
//! Content is stored first, then directory objects, commit, references to blobs and the branch change in one
//! transaction. A crash or a lost race leaves content that nothing refers to, which is collected later, and no half of a
//! revision.

use crate::{
    db::{
        DbError,
        blobs::{self, INLINE_LIMIT},
        history::{self, Commit},
        repos::{self, Repo},
    },
    error::{Answer, ApiError},
    git, inspect,
    outboards::Outboards,
    state::{Caller, Hub},
    time::now,
    tree::{self, File, Files, Hash, TreeError},
};
use axum::http::StatusCode;
use std::{collections::BTreeSet, sync::Arc};

/// How often a commit that names no parent is built again on a branch that moved.
const ATTEMPTS: usize = 16;
/// Longest title, in characters; and longest description.
const TITLE_LIMIT: usize = 500;
const BODY_LIMIT: usize = 20_000;

/// One operation of a commit.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    /// Add or replace a file with content that is stored.
    Put {
        path: String,
        file: File,
    },
    /// Add or replace a file with a blob that was uploaded before.
    PutLarge {
        path: String,
        sha256: Hash,
        size: Option<u64>,
    },
    DeleteFile {
        path: String,
    },
    DeleteFolder {
        path: String,
    },
}

/// A commit to make.
#[derive(Debug, Clone, Default)]
pub(crate) struct Request {
    pub(crate) title: String,
    pub(crate) body: String,
    /// Where the branch must be.
    pub(crate) parent: Option<String>,
    pub(crate) operations: Vec<Operation>,
}

impl From<TreeError> for ApiError {
    fn from(error: TreeError) -> Self {
        match error {
            TreeError::Damaged { .. } => Self::internal(error),
            _ => Self::bad_request("InvalidPath", error.to_string()),
        }
    }
}

fn missing_blob(path: &str, sha256: &Hash) -> ApiError {
    ApiError::bad_request(
        "BlobMissing",
        format!(
            "file {:?}: no content {} was uploaded to this repository; upload it first",
            crate::error::cut(path),
            hex::encode(sha256)
        ),
    )
}

/// Replaces uploads by files, checking that the repository may use them.
async fn resolve_large(hub: &Hub, repo: &Repo, caller: &Caller, operations: &mut [Operation]) -> Answer<()> {
    let wanted: Vec<(usize, Hash)> = operations
        .iter()
        .enumerate()
        .filter_map(|(at, operation)| match operation {
            Operation::PutLarge { sha256, .. } => Some((at, *sha256)),
            _ => None,
        })
        .collect();
    if wanted.is_empty() {
        return Ok(());
    }
    let (id, spaces) = (repo.id, caller.spaces());
    let found = hub
        .db
        .read(move |db| {
            let look = |(at, sha256)| Ok((at, blobs::usable(db, id, &sha256, &spaces)?));
            wanted.into_iter().map(look).collect::<Result<Vec<_>, DbError>>()
        })
        .await?;
    for (at, blob) in found {
        let Some(operation) = operations.get_mut(at) else {
            continue;
        };
        let Operation::PutLarge { path, sha256, size } = operation else {
            continue;
        };
        let blob = blob.ok_or_else(|| missing_blob(path, sha256))?;
        if size.is_some_and(|size| size != blob.size) {
            return Err(ApiError::bad_request(
                "SizeMismatch",
                format!(
                    "file {:?}: the uploaded content has {} bytes",
                    crate::error::cut(path),
                    blob.size
                ),
            ));
        }
        *operation = Operation::Put {
            path: std::mem::take(path),
            file: File { blob, lfs: true },
        };
    }
    Ok(())
}

fn apply(files: &mut Files, operations: &[Operation]) -> Answer<()> {
    let absent = |what: &str, path: &str| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "EntryNotFound",
            format!(
                "cannot delete {what} {:?}: it is not in the branch",
                crate::error::cut(path)
            ),
        )
    };
    for operation in operations {
        match operation {
            Operation::Put { path, file } => {
                files.insert(path.clone(), *file);
            }
            Operation::PutLarge { path, sha256, .. } => return Err(missing_blob(path, sha256)),
            Operation::DeleteFile { path } => {
                files.remove(path).ok_or_else(|| absent("file", path))?;
            }
            Operation::DeleteFolder { path } => {
                let prefix = format!("{}/", path.trim_end_matches('/'));
                let inside: Vec<String> = files
                    .range(prefix.clone()..)
                    .map(|(path, _)| path)
                    .take_while(|path| path.starts_with(&prefix))
                    .cloned()
                    .collect();
                if inside.is_empty() {
                    return Err(absent("folder", path));
                }
                for path in inside {
                    files.remove(&path);
                }
            }
        }
    }
    Ok(())
}

fn message(title: &str, body: &str) -> String {
    if body.is_empty() {
        format!("{title}\n")
    } else {
        format!("{title}\n\n{body}\n")
    }
}

/// Makes a commit on a branch.
///
/// With a parent, exactly one of several concurrent commits on it succeeds and the others get 412. Without one, the
/// operations are applied to wherever the branch is.
pub(crate) async fn make(
    hub: &Arc<Hub>,
    repo: &Repo,
    caller: &Caller,
    branch: &str,
    mut request: Request,
) -> Answer<Commit> {
    let author = caller.writer()?.name.clone();
    let clean = |text: &str, most: usize| -> String {
        let text = text.replace("\r\n", "\n");
        text.chars()
            .filter(|c| *c == '\n' || !c.is_control())
            .take(most)
            .collect()
    };
    request.title = clean(request.title.trim(), TITLE_LIMIT).replace('\n', " ");
    if request.title.is_empty() {
        return Err(ApiError::bad_request("InvalidCommit", "header.summary must not be empty").param("summary"));
    }
    request.body = clean(request.body.trim(), BODY_LIMIT);
    resolve_large(hub, repo, caller, &mut request.operations).await?;
    for _ in 0..ATTEMPTS {
        if let Some(commit) = attempt(hub, repo, &author, branch, &request).await? {
            hub.metrics.commits.inc();
            return Ok(commit);
        }
    }
    hub.metrics.conflicts.inc();
    Err(ApiError::stale_parent("an older commit", "another commit"))
}

/// One try; `None` if the branch moved meanwhile.
async fn attempt(hub: &Arc<Hub>, repo: &Repo, author: &str, branch: &str, request: &Request) -> Answer<Option<Commit>> {
    let (id, name) = (repo.id, branch.to_owned());
    let head = hub
        .db
        .read(move |db| match history::target(db, id, "branch", &name)? {
            Some(oid) => history::by_oid(db, id, &oid),
            None => Ok(None),
        })
        .await?
        .ok_or_else(|| ApiError::revision_not_found(branch))?;
    if let Some(parent) = request.parent.as_ref().filter(|parent| **parent != head.oid) {
        hub.metrics.conflicts.inc();
        return Err(ApiError::stale_parent(parent, &head.oid));
    }
    let root = head.tree;
    let before = hub.db.read(move |db| history::files(db, &root)).await?;
    let (operations, most) = (request.operations.clone(), hub.config.limits.files);
    let (before, after, objects) = hub
        .blocking(move || {
            let mut after = before.clone();
            apply(&mut after, &operations)?;
            if after.len() > most {
                return Err(ApiError::bad_request(
                    "TooManyFiles",
                    format!(
                        "the revision would have {} files, at most {most} are accepted",
                        after.len()
                    ),
                ));
            }
            let objects = tree::build(&after)?;
            Ok((before, after, objects))
        })
        .await?;
    if objects.root.id == head.tree {
        return Ok(Some(head));
    }
    // The chain of commits grows in time even if the clock steps back.
    let time = now().max(head.time / 1000);
    let commit = Commit {
        oid: git::commit(
            &objects.root.git,
            Some(&head.oid),
            author,
            time,
            &message(&request.title, &request.body),
        ),
        parent: Some(head.oid.clone()),
        tree: objects.root.id,
        author: author.to_owned(),
        title: request.title.clone(),
        body: request.body.clone(),
        time: time * 1000,
    };
    let summary = if branch == "main" {
        Some(inspect::summarise(hub, &after).await?)
    } else {
        None
    };
    let fresh: BTreeSet<Hash> = after
        .iter()
        .filter(|(path, file)| before.get(*path).is_none_or(|old| old.blob.sha256 != file.blob.sha256))
        .map(|(_, file)| file.blob.sha256)
        .collect();
    let fresh: Vec<Hash> = fresh.into_iter().collect();
    let branch = branch.to_owned();
    let new = fresh.clone();
    let commit = hub
        .db
        .write(move |tx| {
            // First, so that of two racing commits the second writes nothing at all.
            if !history::advance(tx, id, &branch, &head.oid, &commit.oid)? {
                return Ok(None);
            }
            if let Some(missing) = blobs::commit(tx, id, &fresh)? {
                // Collected between the look and now: cannot happen within the hours that uploads are kept.
                return Err(ApiError::new(
                    StatusCode::CONFLICT,
                    "BlobMissing",
                    format!("content {} is gone; upload it again", hex::encode(missing)),
                ));
            }
            history::add_commit(tx, id, &commit, &objects)?;
            if let Some(summary) = &summary {
                repos::set_summary(tx, id, summary)?;
            }
            Ok(Some(commit))
        })
        .await?;
    if commit.is_some() {
        prepare(hub, after.values().filter(|file| new.contains(&file.blob.sha256)));
    }
    Ok(commit)
}

/// Makes the hash trees of new files, so that the first who asks for a part does not wait.
fn prepare<'a>(hub: &Arc<Hub>, fresh: impl Iterator<Item = &'a File>) {
    let large: Vec<_> = fresh
        .map(|file| file.blob)
        .filter(|blob| blob.size > INLINE_LIMIT as u64)
        .collect();
    if large.is_empty() {
        return;
    }
    let hub = Arc::clone(hub);
    tokio::spawn(async move {
        for blob in large {
            if let Err(error) = Outboards::get(&hub, blob).await {
                tracing::warn!(
                    ?error,
                    blob = hex::encode(blob.sha256),
                    "hash tree not made; it is when a range is asked for"
                );
            }
        }
    });
}

/// The first commit of a repository: an empty tree.
pub(crate) fn first(author: &str) -> Result<(Commit, tree::Objects), TreeError> {
    let objects = tree::build(&Files::new())?;
    let title = "initial commit".to_owned();
    let time = now();
    let commit = Commit {
        oid: git::commit(&objects.root.git, None, author, time, &message(&title, "")),
        parent: None,
        tree: objects.root.id,
        author: author.to_owned(),
        title,
        body: String::new(),
        time: time * 1000,
    };
    Ok((commit, objects))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::describe;

    #[test]
    fn operations_apply_in_order() {
        let file = |text: &str| File {
            blob: describe(text.as_bytes()),
            lfs: false,
        };
        let put = |path: &str| Operation::Put {
            path: path.into(),
            file: file(path),
        };
        let mut files = Files::new();
        apply(&mut files, &[put("a/1"), put("a/2"), put("ab"), put("b")]).unwrap();
        let folder = Operation::DeleteFolder { path: "a/".into() };
        apply(&mut files, &[folder.clone(), put("a/3")]).unwrap();
        assert_eq!(files.keys().collect::<Vec<_>>(), ["a/3", "ab", "b"]);
        let gone = Operation::DeleteFile { path: "a/1".into() };
        assert_eq!(apply(&mut files, &[gone]).unwrap_err().status, 404);
        apply(&mut files, std::slice::from_ref(&folder)).unwrap();
        assert_eq!(apply(&mut files, &[folder]).unwrap_err().status, 404);
    }
}
