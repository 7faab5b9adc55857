//! Uploads by `hf_xet`: a token for a repository, xorbs, and shards that make them files.
//!
//! A xorb is checked against its name and kept until a shard uses it; a file is put together, checked against its
//! SHA-256 and stored as any other. After that the hub remembers where each chunk lies in which blob, so that a client
//! may refer to what it uploaded before: only new chunks travel.

use super::{Ctx, RevisionPath};
use crate::{
    blobs::{CHUNK, Hasher, Incoming, describe, expect_hash},
    db::{
        DbError, accounts,
        blobs::{self, INLINE_LIMIT},
        xorbs,
    },
    error::{Answer, ApiError},
    ingest,
    state::{Hub, Want},
    time::now,
    tree::{Blob, Hash},
    xet::{self, ChunkHeader, FileInfo, Term, XetError},
};
use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use serde_json::{Value, json};
use std::{collections::BTreeMap, fs, io::Read as _, path::PathBuf, sync::Arc};
use subtle::ConstantTimeEq as _;

/// Life of a token, seconds; clients ask for a new one.
const TOKEN_SECONDS: i64 = 3_600;
/// Largest shard, bytes.
const SHARD_LIMIT: usize = 64 << 20;
/// Most bytes of small blobs that one file takes chunks from.
const SMALL_LIMIT: usize = 64 << 20;

/// What an upload token allows.
struct Rights {
    repo: i64,
    address: String,
}

fn signature(hub: &Hub, repo: i64, address: &str, expires: i64) -> String {
    let mut hasher = blake3::Hasher::new_keyed(&hub.link_key);
    hasher.update(format!("opg/hub/xet-token/v1|{repo}|{address}|{expires}").as_bytes());
    hasher.finalize().to_hex().to_string()
}

/// A token to upload to a repository.
pub(super) async fn write_token(
    (State(hub), kind, caller): Ctx,
    Path((owner, name, _)): RevisionPath,
) -> Answer<Response> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::Write).await?;
    super::lfs::check_quota(&hub, &repo, 0).await?;
    let (address, expires) = (&caller.account()?.address, now() + TOKEN_SECONDS);
    let token = format!(
        "{}.{address}.{expires}.{}",
        repo.id,
        signature(&hub, repo.id, address, expires)
    );
    let url = format!("{}/xet", hub.public_url);
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("x-xet-cas-url", &url),
        ("x-xet-access-token", &token),
        ("x-xet-token-expiration", &expires.to_string()),
    ] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    Ok((
        headers,
        Json(json!({"casUrl": url, "accessToken": token, "exp": expires})),
    )
        .into_response())
}

impl Rights {
    fn of(hub: &Hub, headers: &HeaderMap) -> Answer<Self> {
        let no = || ApiError::unauthorized("this is no upload token of this hub, or it has expired");
        let token = headers
            .get(header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok())
            .and_then(|v| v.split_once(' '))
            .map(|(_, token)| token)
            .ok_or_else(no)?;
        let mut parts = token.split('.');
        let (Some(repo), Some(address), Some(expires), Some(given), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(no());
        };
        let (repo, expires): (i64, i64) = (repo.parse().map_err(|_| no())?, expires.parse().map_err(|_| no())?);
        let good = bool::from(
            given
                .as_bytes()
                .ct_eq(signature(hub, repo, address, expires).as_bytes()),
        );
        if !good || expires < now() {
            return Err(no());
        }
        Ok(Self {
            repo,
            address: address.to_owned(),
        })
    }

    /// Where a xorb waits for its shard: apart for each account, so that nobody uses what another has not committed.
    fn waiting(&self, hub: &Hub, xorb: &Hash) -> PathBuf {
        hub.blobs
            .waiting()
            .join(format!("{}-{}", self.address, xet::show_hash(xorb)))
    }
}

fn refused(error: XetError) -> ApiError {
    ApiError::bad_request("InvalidXet", error.to_string())
}

async fn body(body: Body, limit: usize) -> Answer<Vec<u8>> {
    let mut body = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(piece) = ingest::next_piece(&mut body).await? {
        if bytes.len() + piece.len() > limit {
            return Err(ApiError::too_large(format!("at most {limit} bytes are accepted")));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// One xorb: kept if its chunks have the hash that is its name.
pub(super) async fn xorb(
    State(hub): State<Arc<Hub>>,
    Path((_, name)): Path<(String, String)>,
    headers: HeaderMap,
    content: Body,
) -> Answer<Json<Value>> {
    let rights = Rights::of(&hub, &headers)?;
    let _slot = super::lfs::slot(&hub)?;
    let hash = xet::parse_hash(&name).ok_or_else(|| ApiError::bad_request("InvalidXet", "not a xorb's hash"))?;
    let content = body(content, xet::XORB_LIMIT + xet::CHUNKS_LIMIT * 64).await?;
    hub.metrics.received.inc_by(content.len() as u64);
    let (path, store) = (rights.waiting(&hub, &hash), Arc::clone(&hub.blobs));
    let inserted = hub
        .blocking(move || {
            let chunks = xet::read_xorb(&content).map_err(refused)?;
            let mut leaves = Vec::with_capacity(chunks.len());
            for chunk in &chunks {
                let content = xet::decode_chunk(&content, chunk).map_err(refused)?;
                leaves.push((xet::chunk_hash(&content), chunk.size as u64));
            }
            if xet::root(&leaves) != hash {
                return Err(ApiError::bad_request(
                    "HashMismatch",
                    "the chunks do not have the hash that names the xorb",
                ));
            }
            if path.exists() {
                return Ok(false);
            }
            let mut incoming = store.incoming()?;
            incoming.write(&Bytes::from(content))?;
            incoming.keep_as(&path)?;
            Ok(true)
        })
        .await?;
    Ok(Json(json!({"was_inserted": inserted})))
}

/// Where a term's bytes are.
enum Source {
    /// In a waiting xorb.
    Xorb { path: PathBuf, term: Term },
    /// In a stored file.
    Stored { blob: Hash, start: u64, size: u64 },
    /// In a small blob.
    Small {
        content: Arc<Vec<u8>>,
        start: usize,
        size: usize,
    },
}

/// Looks up what a file is made of, and that its uploader may use it.
async fn sources(hub: &Arc<Hub>, rights: &Rights, spaces: &[String], file: &FileInfo) -> Answer<Vec<Source>> {
    let mut sources = Vec::new();
    let mut small: BTreeMap<Hash, Arc<Vec<u8>>> = BTreeMap::new();
    for term in &file.terms {
        let path = rights.waiting(hub, &term.xorb);
        if tokio::fs::try_exists(&path).await.unwrap_or(false) {
            sources.push(Source::Xorb { path, term: *term });
            continue;
        }
        let (t, repo, spaces) = (*term, rights.repo, spaces.to_vec());
        let found = hub
            .db
            .read(move |db| {
                let mut out = Vec::new();
                let mut allowed: BTreeMap<Hash, bool> = BTreeMap::new();
                for chunk in xorbs::chunks(db, &t.xorb, t.first, t.end)? {
                    let usable = match allowed.get(&chunk.blob) {
                        Some(usable) => *usable,
                        None => blobs::usable(db, repo, &chunk.blob, &spaces)?.is_some(),
                    };
                    allowed.insert(chunk.blob, usable);
                    if usable {
                        out.push(chunk);
                    }
                }
                Ok(out)
            })
            .await?;
        if found.len() != (term.end - term.first) as usize {
            return Err(ApiError::bad_request(
                "XorbMissing",
                format!("xorb {} is not here; upload it first", xet::show_hash(&term.xorb)),
            ));
        }
        for chunk in found {
            let sha256 = chunk.blob;
            if let Some(Source::Stored { blob, start, size }) = sources.last_mut()
                && *blob == sha256
                && *start + *size == chunk.start
            {
                *size += chunk.size;
                continue;
            }
            let content = match small.get(&sha256) {
                Some(content) => Some(Arc::clone(content)),
                None => hub.db.read(move |db| blobs::inline(db, &sha256)).await?.map(Arc::new),
            };
            let Some(content) = content else {
                sources.push(Source::Stored {
                    blob: sha256,
                    start: chunk.start,
                    size: chunk.size,
                });
                continue;
            };
            small.insert(sha256, Arc::clone(&content));
            if small.len() * INLINE_LIMIT > SMALL_LIMIT {
                return Err(ApiError::bad_request(
                    "InvalidXet",
                    "a file takes chunks from too many small files",
                ));
            }
            sources.push(Source::Small {
                content,
                start: usize::try_from(chunk.start).unwrap_or(usize::MAX),
                size: usize::try_from(chunk.size).unwrap_or(usize::MAX),
            });
        }
    }
    Ok(sources)
}

/// A file put together: small ones in memory.
enum Built {
    Small(Vec<u8>),
    Large(Incoming),
}

/// Writes a file from its sources. Also tells where the chunks of waiting xorbs ended up.
fn build(hub: &Hub, file: &FileInfo, sources: Vec<Source>) -> Answer<(Built, Blob, Vec<(Hash, u32, xorbs::Chunk)>)> {
    let mut hasher = Hasher::new(file.size);
    let mut out = if file.size <= INLINE_LIMIT as u64 {
        Built::Small(Vec::new())
    } else {
        Built::Large(hub.blobs.incoming()?)
    };
    let mut placed = Vec::new();
    let mut at = 0u64;
    let mut put = |bytes: &[u8]| -> Answer<()> {
        hasher.update(bytes)?;
        match &mut out {
            Built::Small(content) => content.extend_from_slice(bytes),
            Built::Large(incoming) => incoming.write(bytes)?,
        }
        Ok(())
    };
    // Terms of one xorb follow each other; one is kept in memory.
    let mut open: Option<(PathBuf, Vec<u8>, Vec<ChunkHeader>)> = None;
    let short = || ApiError::bad_request("InvalidXet", "a term names chunks that its xorb does not have");
    for source in sources {
        match source {
            Source::Small { content, start, size } => {
                put(content.get(start..start.saturating_add(size)).ok_or_else(short)?)?;
                at += size as u64;
            }
            Source::Stored { blob, start, size } => {
                let mut stored = hub.blobs.open_at(&blob, start, size)?;
                let mut buffer = vec![0; CHUNK];
                loop {
                    let n = stored.read(&mut buffer).map_err(ApiError::internal)?;
                    let Some(bytes) = buffer.get(..n).filter(|bytes| !bytes.is_empty()) else {
                        break;
                    };
                    put(bytes)?;
                }
                at += size;
            }
            Source::Xorb { path, term } => {
                let (bytes, chunks) = match open.take_if(|(known, ..)| *known == path) {
                    Some((_, bytes, chunks)) => (bytes, chunks),
                    None => {
                        let bytes = fs::read(&path).map_err(ApiError::internal)?;
                        let chunks = xet::read_xorb(&bytes).map_err(refused)?;
                        (bytes, chunks)
                    }
                };
                for position in term.first..term.end {
                    let chunk = chunks.get(position as usize).ok_or_else(short)?;
                    put(&xet::decode_chunk(&bytes, chunk).map_err(refused)?)?;
                    let place = xorbs::Chunk {
                        blob: file.sha256,
                        start: at,
                        size: chunk.size as u64,
                    };
                    placed.push((term.xorb, position, place));
                    at += chunk.size as u64;
                }
                open = Some((path, bytes, chunks));
            }
        }
    }
    let blob = hasher.finish()?;
    expect_hash(&blob, &file.sha256)?;
    Ok((out, blob, placed))
}

/// A shard: its files become blobs that the repository may use.
pub(super) async fn shard(State(hub): State<Arc<Hub>>, headers: HeaderMap, content: Body) -> Answer<Json<Value>> {
    let rights = Rights::of(&hub, &headers)?;
    let _slot = super::lfs::slot(&hub)?;
    let content = body(content, SHARD_LIMIT).await?;
    let files = xet::read_shard(&content).map_err(refused)?;
    let address = rights.address.clone();
    let spaces = hub.db.read(move |db| accounts::spaces(db, &address)).await?;
    let mut done = std::collections::BTreeSet::new();
    for file in files {
        if file.size > hub.config.limits.file_bytes {
            return Err(ApiError::too_large(format!(
                "files may have {} bytes",
                hub.config.limits.file_bytes
            )));
        }
        let sources = sources(&hub, &rights, &spaces, &file).await?;
        for source in &sources {
            if let Source::Xorb { path, .. } = source {
                done.insert(path.clone());
            }
        }
        let shared = Arc::clone(&hub);
        let (built, blob, placed) = hub
            .blocking(move || build(&shared, &file, sources))
            .await
            .inspect_err(|_| {
                hub.metrics.refused_blobs.inc();
            })?;
        match built {
            Built::Small(content) => {
                debug_assert_eq!(describe(&content), blob);
                ingest::store_small(&hub, rights.repo, vec![(blob, content)]).await?;
            }
            Built::Large(incoming) => ingest::publish(&hub, rights.repo, incoming, blob).await?,
        }
        hub.db
            .write(move |tx| {
                xorbs::add(tx, &placed)?;
                Ok::<_, DbError>(())
            })
            .await?;
    }
    finish(&hub, &rights, done).await?;
    Ok(Json(json!({"result": 1})))
}

/// Removes waiting xorbs of which every chunk now lies in a blob.
async fn finish(hub: &Arc<Hub>, rights: &Rights, used: std::collections::BTreeSet<PathBuf>) -> Answer<()> {
    for path in used {
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default()
            .to_owned();
        let Some(hash) = name
            .strip_prefix(&format!("{}-", rights.address))
            .and_then(xet::parse_hash)
        else {
            continue;
        };
        let known = hub
            .db
            .read(move |db| xorbs::chunks(db, &hash, 0, u32::MAX))
            .await?
            .len();
        hub.blocking(move || {
            let bytes = fs::read(&path).map_err(ApiError::internal)?;
            if xet::read_xorb(&bytes).map_err(refused)?.len() == known {
                fs::remove_file(&path).map_err(ApiError::internal)?;
            }
            Ok(())
        })
        .await?;
    }
    Ok(())
}
