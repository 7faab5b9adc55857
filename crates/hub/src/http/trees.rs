//! Listings of a revision's files.

use super::{Ctx, FilePath, Params, RepoPath, RevisionPath, next_link, page};
use crate::{
    db::{
        DbError,
        history::{self, Commit},
    },
    error::{Answer, ApiError},
    ingest,
    state::{Hub, Want},
    time::iso,
    tree::{Entry, File},
    validate::{SafetensorsError, SafetensorsHeader},
};
use axum::{
    Json,
    extract::{OriginalUri, Path, State},
    http::{HeaderMap, header},
    response::Response,
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

const PAGE: usize = 1_000;
/// Most paths of one `paths-info`.
const PATHS: usize = 5_000;
/// Most shards whose headers are answered at once, and bytes of one of them.
const SHARDS: usize = 500;
const SHARD_HEADER: u64 = 25_000_008;

/// A file or directory as listings have it.
fn entry(path: &str, entry: &Entry, commit: Option<&Commit>) -> Value {
    let mut object = match entry {
        Entry::Directory(directory) => {
            json!({"type": "directory", "oid": hex::encode(directory.git), "size": 0, "path": path})
        }
        Entry::File(file) => {
            let mut object =
                json!({"type": "file", "oid": hex::encode(file.oid()), "size": file.blob.size, "path": path});
            if file.lfs {
                object["lfs"] = large(file);
            }
            object
        }
    };
    if let Some(commit) = commit {
        object["lastCommit"] = json!({"id": commit.oid, "title": commit.title, "date": iso(commit.time)});
    }
    object
}

fn large(file: &File) -> Value {
    json!({"oid": hex::encode(file.blob.sha256), "size": file.blob.size, "pointerSize": file.pointer().len()})
}

pub(super) async fn tree(
    (state, kind, caller): Ctx,
    Path((owner, name, revision)): RevisionPath,
    uri: OriginalUri,
) -> Answer<Response> {
    tree_below((state, kind, caller), Path((owner, name, revision, String::new())), uri).await
}

pub(super) async fn tree_below(
    (State(hub), kind, caller): Ctx,
    Path((owner, name, revision, path)): FilePath,
    OriginalUri(uri): OriginalUri,
) -> Answer<Response> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::See).await?;
    let commit = hub.revision(&repo, &revision).await?;
    let params = Params::of(&uri);
    let (recursive, offset) = (params.flag("recursive"), params.cursor());
    let limit = params.limit(PAGE, PAGE);
    let path = path.trim_end_matches('/').to_owned();
    let (root, below) = (commit.tree, path.clone());
    let found = hub
        .db
        .read(move |db| {
            let start = if below.is_empty() {
                root
            } else {
                match history::entry(db, &root, &below)? {
                    Some(Entry::Directory(directory)) => directory.id,
                    Some(Entry::File(_)) | None => return Ok(None),
                }
            };
            let mut list: Vec<(String, Entry)> = Vec::new();
            let mut pending = vec![(if below.is_empty() { below } else { below + "/" }, start)];
            while let Some((prefix, id)) = pending.pop() {
                for (name, entry) in history::directory(db, &id)? {
                    let path = format!("{prefix}{name}");
                    if let (Entry::Directory(directory), true) = (&entry, recursive) {
                        pending.push((format!("{path}/"), directory.id));
                    }
                    list.push((path, entry));
                }
            }
            list.sort_by(|a, b| a.0.cmp(&b.0));
            Ok(Some(list))
        })
        .await?;
    let list = found.ok_or_else(|| ApiError::entry_not_found(&path, &commit.oid))?;
    let last = params.flag("expand").then_some(&commit);
    let out: Vec<Value> = list
        .iter()
        .skip(offset)
        .take(limit)
        .map(|(path, e)| entry(path, e, last))
        .collect();
    let link = if list.len() > offset + limit {
        next_link(&hub, &uri, offset + limit)
    } else {
        None
    };
    let mut response = page(out.into(), link);
    if let Ok(value) = commit.oid.parse() {
        response.headers_mut().insert(super::REPO_COMMIT, value);
    }
    Ok(response)
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Deserialize)]
struct Paths {
    paths: OneOrMany,
    #[serde(default)]
    expand: bool,
}

/// Paths of a request: JSON, or the form that `huggingface_hub` sends.
fn read_paths(headers: &HeaderMap, body: &[u8]) -> Answer<(Vec<String>, bool)> {
    let form = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
    let (paths, expand) = if form {
        let params = Params::of_query(&String::from_utf8_lossy(body), PATHS + 16);
        (params.all("paths"), params.flag("expand"))
    } else {
        let body: Paths =
            serde_json::from_slice(body).map_err(|e| ApiError::bad_request("InvalidBody", e.to_string()))?;
        let paths = match body.paths {
            OneOrMany::One(path) => vec![path],
            OneOrMany::Many(paths) => paths,
        };
        (paths, body.expand)
    };
    if paths.len() > PATHS {
        return Err(
            ApiError::bad_request("TooManyPaths", format!("at most {PATHS} paths are accepted")).param("paths"),
        );
    }
    Ok((paths, expand))
}

/// What there is at some paths; those where there is nothing are left out.
pub(super) async fn paths_info(
    (State(hub), kind, caller): Ctx,
    Path((owner, name, revision)): RevisionPath,
    headers: HeaderMap,
    body: Bytes,
) -> Answer<Json<Value>> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::See).await?;
    let commit = hub.revision(&repo, &revision).await?;
    let (paths, expand) = read_paths(&headers, &body)?;
    let root = commit.tree;
    let found = hub
        .db
        .read(move |db| {
            let look = |path: String| {
                let path = path.trim_end_matches('/').to_owned();
                Ok(history::entry(db, &root, &path)?.map(|entry| (path, entry)))
            };
            paths
                .into_iter()
                .filter_map(|path| look(path).transpose())
                .collect::<Result<Vec<_>, DbError>>()
        })
        .await?;
    let last = expand.then_some(&commit);
    Ok(Json(found.iter().map(|(path, e)| entry(path, e, last)).collect()))
}

/// Large files of `main`.
pub(super) async fn large_files(
    (State(hub), kind, caller): Ctx,
    Path((owner, name)): RepoPath,
    uri: OriginalUri,
) -> Answer<Response> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::Write).await?;
    let commit = hub.revision(&repo, "main").await?;
    let root = commit.tree;
    let files = hub.db.read(move |db| history::files(db, &root)).await?;
    let offset = Params::of(&uri.0).cursor();
    let all: Vec<_> = files.iter().filter(|(_, file)| file.lfs).collect();
    let out: Vec<Value> = all
        .iter()
        .skip(offset)
        .take(PAGE)
        .map(|(path, file)| {
            let oid = hex::encode(file.blob.sha256);
            json!({
                "fileOid": oid, "oid": oid, "filename": path, "size": file.blob.size, "ref": "refs/heads/main",
                "pushedAt": iso(commit.time),
            })
        })
        .collect();
    let link = if all.len() > offset + PAGE {
        next_link(&hub, &uri.0, offset + PAGE)
    } else {
        None
    };
    Ok(page(out.into(), link))
}

/// The checked header of one safetensors file, as JSON.
async fn shard_header(hub: &Hub, file: &File) -> Answer<Value> {
    let (sha256, size) = (file.blob.sha256, file.blob.size);
    let mut need = 64 << 10;
    loop {
        let front = ingest::load(hub, sha256, need).await?;
        let wrong = |e: SafetensorsError| ApiError::bad_request("InvalidSafetensors", e.to_string());
        match SafetensorsHeader::parse(&front, size) {
            Err(SafetensorsError::Truncated { needed }) if needed > need && needed <= size.min(SHARD_HEADER) => {
                need = needed
            }
            Err(error) => return Err(wrong(error)),
            Ok(header) => {
                let mut object: Map<String, Value> = Map::new();
                if !header.metadata.is_empty() {
                    object.insert("__metadata__".into(), json!(header.metadata));
                }
                for (name, tensor) in header.tensors {
                    let offsets = [tensor.data_offsets.0, tensor.data_offsets.1];
                    object.insert(
                        name,
                        json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": offsets}),
                    );
                }
                return Ok(Value::Object(object));
            }
        }
    }
}

/// Headers of all shards that an index file names.
pub(super) async fn safetensors_metadata(
    (State(hub), kind, caller): Ctx,
    Path((owner, name, path)): RevisionPath,
) -> Answer<Json<Value>> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::Content).await?;
    let commit = hub.revision(&repo, "main").await?;
    let root = commit.tree;
    let files = Arc::new(hub.db.read(move |db| history::files(db, &root)).await?);
    let missing = |path: &str| ApiError::entry_not_found(path, &commit.oid);
    let index = files.get(&path).ok_or_else(|| missing(&path))?;
    let content = ingest::load(&hub, index.blob.sha256, 64 << 20).await?;
    let no = |what: &str| ApiError::bad_request("InvalidIndex", format!("{path}: {what}"));
    let index: Value = serde_json::from_slice(&content).map_err(|e| no(&e.to_string()))?;
    let map = index["weight_map"]
        .as_object()
        .ok_or_else(|| no("weight_map is missing"))?;
    let shards: std::collections::BTreeSet<&str> = map.values().filter_map(Value::as_str).collect();
    if shards.len() > SHARDS {
        return Err(no("too many shards"));
    }
    let folder = path
        .rsplit_once('/')
        .map_or(String::new(), |(folder, _)| format!("{folder}/"));
    let mut headers = Map::new();
    for shard in shards {
        let at = format!("{folder}{shard}");
        let file = files.get(&at).ok_or_else(|| missing(&at))?;
        headers.insert(shard.to_owned(), shard_header(&hub, file).await?);
    }
    Ok(Json(
        json!({"index": {"metadata": index["metadata"]}, "headers": headers}),
    ))
}
