//! Preupload and commit.

use super::{Ctx, JsonBody, Params, RevisionPath};
use crate::{
    blobs::describe,
    commit::{self, Operation, Request},
    db::{blobs::INLINE_LIMIT, history},
    error::{Answer, ApiError},
    ingest,
    names::check_path,
    state::{Hub, Want},
    tree::{Blob, Entry, File, Hash},
    validate::{FileKind, kind_of},
};
use axum::{
    Json,
    body::Body,
    extract::{OriginalUri, Path, State},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Most files of one preupload; clients send 256.
const PREUPLOAD: usize = 10_000;
/// Small files are stored in transactions of this many, or this many bytes.
const BATCH: usize = 512;
const BATCH_BYTES: usize = 8 << 20;

#[derive(Debug, Deserialize)]
pub(super) struct Preupload {
    files: Vec<PreuploadFile>,
}

#[derive(Debug, Deserialize)]
struct PreuploadFile {
    path: String,
    #[serde(default)]
    sample: String,
    size: u64,
}

/// The branch of a revision in a path that changes it.
fn branch(revision: &str) -> Answer<&str> {
    let name = revision.strip_prefix("refs/heads/").unwrap_or(revision);
    if crate::names::is_oid(name) {
        return Err(ApiError::bad_request(
            "NotABranch",
            "commits are made on branches; this is a commit",
        ));
    }
    Ok(name)
}

/// Refuses `create_pr`: the hub has no pull requests.
fn no_pull_requests(params: &Params) -> Answer<()> {
    if params.flag("create_pr") {
        return Err(
            ApiError::bad_request("Unsupported", "this hub has no pull requests; commit to a branch")
                .param("create_pr"),
        );
    }
    Ok(())
}

/// Whether a file goes apart (large file storage) instead of into the commit request: model and data formats, anything
/// binary, anything large.
fn goes_apart(path: &str, sample: &[u8], size: u64, large: u64) -> bool {
    let binary = matches!(kind_of(path), FileKind::Model(_) | FileKind::Archive)
        || matches!(kind_of(path), FileKind::Executable(kind) if kind != "script")
        || sample.contains(&0);
    size > large || binary
}

pub(super) async fn preupload(
    (State(hub), kind, caller): Ctx,
    Path((owner, name, revision)): RevisionPath,
    OriginalUri(uri): OriginalUri,
    JsonBody(body): JsonBody<Preupload>,
) -> Answer<Json<Value>> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::Write).await?;
    no_pull_requests(&Params::of(&uri))?;
    if body.files.len() > PREUPLOAD {
        return Err(
            ApiError::bad_request("TooManyFiles", format!("at most {PREUPLOAD} files are accepted")).param("files"),
        );
    }
    let head = hub.revision(&repo, branch(&revision)?).await?;
    for file in &body.files {
        check_path(&file.path)?;
        if file.size > hub.config.limits.file_bytes {
            return Err(ApiError::too_large(format!(
                "file {:?} has {} bytes, at most {} are accepted",
                crate::error::cut(&file.path),
                file.size,
                hub.config.limits.file_bytes
            )));
        }
    }
    let root = head.tree;
    let known = hub.db.read(move |db| history::files(db, &root)).await?;
    let large = hub.config.limits.large_bytes;
    let files: Vec<Value> = body
        .files
        .iter()
        .map(|file| {
            // Only to tell text from binary: a sample that cannot be read counts as binary.
            let sample = STANDARD.decode(&file.sample).unwrap_or_else(|_| vec![0]);
            let before = known.get(&file.path);
            // A file stays what it is, so that its id can be compared: the client skips what did not change.
            let apart =
                file.size > 0 && (goes_apart(&file.path, &sample, file.size, large) || before.is_some_and(|f| f.lfs));
            json!({
                "path": file.path,
                "uploadMode": if apart { "lfs" } else { "regular" },
                "shouldIgnore": false,
                "oid": before.map(|f| hex::encode(if f.lfs { f.blob.sha256.to_vec() } else { f.blob.git.to_vec() })),
            })
        })
        .collect();
    Ok(Json(json!({"files": files, "commitOid": head.oid})))
}

#[derive(Debug, Deserialize)]
#[serde(tag = "key", content = "value", rename_all = "camelCase")]
enum Line {
    #[serde(rename_all = "camelCase")]
    Header {
        summary: String,
        #[serde(default)]
        description: Option<String>,
        #[serde(default)]
        parent_commit: Option<String>,
    },
    File {
        path: String,
        content: String,
        #[serde(default)]
        encoding: Option<String>,
    },
    #[serde(rename_all = "camelCase")]
    LfsFile {
        path: String,
        #[serde(default)]
        algo: Option<String>,
        oid: String,
        #[serde(default)]
        size: Option<u64>,
    },
    DeletedFile {
        path: String,
    },
    DeletedFolder {
        path: String,
    },
}

/// A SHA-256 in hexadecimal.
pub(super) fn sha256(text: &str) -> Answer<Hash> {
    let bytes = (text.len() == 64).then(|| hex::decode(text).ok()).flatten();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| {
        ApiError::bad_request("InvalidOid", "oid: expected 64 hexadecimal digits (SHA-256)").param("oid")
    })
}

/// Reads a commit request line by line, storing content as it comes.
struct Reader<'a> {
    hub: &'a Arc<Hub>,
    repo: i64,
    request: Request,
    header: bool,
    small: Vec<(Blob, Vec<u8>)>,
    small_bytes: usize,
}

impl Reader<'_> {
    async fn line(&mut self, line: &[u8], number: usize) -> Answer<()> {
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(());
        }
        let parsed: Line = serde_json::from_slice(line).map_err(|e| {
            let reason: String = e.to_string().chars().take(200).collect();
            ApiError::bad_request("InvalidCommit", format!("line {number} of the commit: {reason}"))
        })?;
        if !self.header && !matches!(parsed, Line::Header { .. }) {
            return Err(ApiError::bad_request(
                "InvalidCommit",
                "the first line of a commit must be its header",
            ));
        }
        if self.request.operations.len() >= self.hub.config.limits.commit_operations {
            return Err(ApiError::too_large(format!(
                "a commit may have {} operations; make several commits",
                self.hub.config.limits.commit_operations
            )));
        }
        let operation = match parsed {
            Line::Header {
                summary,
                description,
                parent_commit,
            } => {
                if std::mem::replace(&mut self.header, true) {
                    return Err(ApiError::bad_request(
                        "InvalidCommit",
                        format!("line {number}: a second header"),
                    ));
                }
                self.request.title = summary;
                self.request.body = description.unwrap_or_default();
                self.request.parent = parent_commit;
                return Ok(());
            }
            Line::File {
                path,
                content,
                encoding,
            } => {
                check_path(&path)?;
                let content = match encoding.as_deref() {
                    None | Some("base64") => STANDARD.decode(content).map_err(|_| {
                        ApiError::bad_request("InvalidCommit", format!("line {number}: content is not base64"))
                            .param("content")
                    })?,
                    Some("utf-8") => content.into_bytes(),
                    Some(_) => {
                        return Err(
                            ApiError::bad_request("InvalidCommit", "encoding: expected base64 or utf-8")
                                .param("encoding"),
                        );
                    }
                };
                if content.len() as u64 > self.hub.config.limits.regular_bytes {
                    return Err(ApiError::too_large(format!(
                        "file {:?}: at most {} bytes are accepted inside a commit; upload it as a large file",
                        crate::error::cut(&path),
                        self.hub.config.limits.regular_bytes
                    )));
                }
                let blob = self.keep(content).await?;
                Operation::Put {
                    path,
                    file: File { blob, lfs: false },
                }
            }
            Line::LfsFile { path, algo, oid, size } => {
                check_path(&path)?;
                if algo.is_some_and(|algo| algo != "sha256") {
                    return Err(ApiError::bad_request("InvalidCommit", "algo: expected sha256").param("algo"));
                }
                let sha256 = sha256(&oid)?;
                Operation::PutLarge { path, sha256, size }
            }
            Line::DeletedFile { path } => Operation::DeleteFile { path },
            Line::DeletedFolder { path } => Operation::DeleteFolder { path },
        };
        self.request.operations.push(operation);
        Ok(())
    }

    async fn keep(&mut self, content: Vec<u8>) -> Answer<Blob> {
        if content.len() > INLINE_LIMIT {
            return ingest::store(self.hub, self.repo, content).await;
        }
        let blob = describe(&content);
        self.small_bytes += content.len();
        self.small.push((blob, content));
        if self.small.len() >= BATCH || self.small_bytes >= BATCH_BYTES {
            self.flush().await?;
        }
        Ok(blob)
    }

    async fn flush(&mut self) -> Answer<()> {
        self.small_bytes = 0;
        let small = std::mem::take(&mut self.small);
        if small.is_empty() {
            return Ok(());
        }
        ingest::store_small(self.hub, self.repo, small).await
    }
}

pub(super) async fn commit(
    (State(hub), kind, caller): Ctx,
    Path((owner, name, revision)): RevisionPath,
    OriginalUri(uri): OriginalUri,
    body: Body,
) -> Answer<Json<Value>> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::Write).await?;
    no_pull_requests(&Params::of(&uri))?;
    let branch = branch(&revision)?;
    hub.revision(&repo, branch).await?;
    super::lfs::check_quota(&hub, &repo, 0).await?;
    let _slot = super::lfs::slot(&hub)?;
    let limits = &hub.config.limits;
    // Base64 takes 4/3 of the bytes; a path and the names of the fields the rest.
    let line_limit = usize::try_from(limits.regular_bytes / 3 * 4).unwrap_or(usize::MAX / 2) + (16 << 10);
    let mut reader = Reader {
        hub: &hub,
        repo: repo.id,
        request: Request::default(),
        header: false,
        small: Vec::new(),
        small_bytes: 0,
    };
    let mut body = body.into_data_stream();
    let (mut buffer, mut total, mut number) = (Vec::new(), 0u64, 0);
    while let Some(piece) = ingest::next_piece(&mut body).await? {
        total += piece.len() as u64;
        if total > limits.commit_bytes {
            return Err(ApiError::too_large(format!(
                "the commit request is larger than {} bytes; upload files apart or make several commits",
                limits.commit_bytes
            )));
        }
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            buffer.extend_from_slice(part);
            if buffer.len() > line_limit {
                return Err(ApiError::too_large(format!(
                    "a line of the commit is larger than {line_limit} bytes; upload the file apart"
                )));
            }
            if part.ends_with(b"\n") {
                number += 1;
                reader.line(&buffer, number).await?;
                buffer.clear();
            }
        }
    }
    reader.line(&buffer, number + 1).await?;
    reader.flush().await?;
    if !reader.header {
        return Err(ApiError::bad_request("InvalidCommit", "the commit has no header"));
    }
    let request = reader.request;
    let made = commit::make(&hub, &repo, &caller, branch, request).await?;
    let url = format!(
        "{}/{}{}/commit/{}",
        hub.public_url,
        repo.kind.url_prefix(),
        repo.name,
        made.oid
    );
    tracing::info!(repo = %repo.name, branch, commit = made.oid, "commit");
    Ok(Json(
        json!({"success": true, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""}),
    ))
}

/// The file at a path of a revision.
pub(super) async fn file_at(hub: &Hub, root: Hash, path: &str) -> Answer<Option<File>> {
    let path = path.to_owned();
    let found = hub.db.read(move |db| history::entry(db, &root, &path)).await?;
    Ok(match found {
        Some(Entry::File(file)) => Some(file),
        _ => None,
    })
}
