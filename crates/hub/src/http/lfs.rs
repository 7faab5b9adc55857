//! Large files: the batch request, and uploads through signed links.
//!
//! Clients send no token with an upload, so a link carries its rights: repository, hash, size and time, signed with a key
//! of this hub.

use super::{Ctx, JsonBody, Params, RepoPath, commits::sha256};
use crate::{
    db::{blobs, repos::Repo},
    error::{Answer, ApiError},
    ingest, quota,
    state::{Hub, Want},
    time::now,
    tree::Hash,
};
use axum::{
    Json,
    body::Body,
    extract::{OriginalUri, Path, State},
    http::{HeaderMap, StatusCode, header},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

/// Life of a link, seconds.
const LINK_SECONDS: i64 = 24 * 3600;
/// Most objects of one batch; clients send 256.
const OBJECTS: usize = 1_000;

/// What an upload link allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) repo: i64,
    pub(crate) sha256: Hash,
    pub(crate) size: u64,
    pub(crate) expires: i64,
}

impl Link {
    fn signature(&self, key: &[u8; 32]) -> String {
        let mut hasher = blake3::Hasher::new_keyed(key);
        hasher.update(b"opg/hub/upload-link/v1");
        hasher.update(&self.repo.to_be_bytes());
        hasher.update(&self.sha256);
        hasher.update(&self.size.to_be_bytes());
        hasher.update(&self.expires.to_be_bytes());
        hasher.finalize().to_hex().to_string()
    }

    /// The link to a place below the object, e.g. `/parts/3`.
    fn url(&self, hub: &Hub, place: &str) -> String {
        format!(
            "{}/lfs/{}/{}{place}?size={}&expires={}&signature={}",
            hub.public_url,
            self.repo,
            hex::encode(self.sha256),
            self.size,
            self.expires,
            self.signature(&hub.link_key)
        )
    }

    /// Reads and checks a link.
    pub(super) fn check(hub: &Hub, repo: i64, oid: &str, params: &Params) -> Answer<Self> {
        let no = || ApiError::forbidden("this upload link is not one of this hub, or has expired; ask for a new one");
        let number = |key| params.get(key).and_then(|v| v.parse::<u64>().ok()).ok_or_else(no);
        let link = Self {
            repo,
            sha256: sha256(oid)?,
            size: number("size")?,
            expires: i64::try_from(number("expires")?).map_err(|_| no())?,
        };
        let given = params.get("signature").unwrap_or_default();
        let good = bool::from(given.as_bytes().ct_eq(link.signature(&hub.link_key).as_bytes()));
        if !good || link.expires < now() {
            return Err(no());
        }
        Ok(link)
    }
}

/// Refuses if the account of a repository would store more than it may.
pub(super) async fn check_quota(hub: &Arc<Hub>, repo: &Repo, more: u64) -> Answer<()> {
    let (shared, owner) = (Arc::clone(hub), repo.name.owner.clone());
    hub.db
        .read(move |db| Ok(quota::check_bytes(db, &shared.config, &owner, more)))
        .await?
}

#[derive(Debug, Deserialize)]
pub(super) struct Batch {
    operation: String,
    #[serde(default)]
    transfers: Vec<String>,
    objects: Vec<Object>,
    hash_algo: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Object {
    oid: String,
    size: u64,
}

pub(super) async fn batch(
    (State(hub), kind, caller): Ctx,
    Path((owner, name)): RepoPath,
    JsonBody(body): JsonBody<Batch>,
) -> Answer<([(header::HeaderName, &'static str); 1], Json<Value>)> {
    let name = name.strip_suffix(".git").unwrap_or(&name);
    let upload = match body.operation.as_str() {
        "upload" => true,
        "download" => false,
        _ => {
            return Err(
                ApiError::bad_request("InvalidBatch", "operation: expected upload or download").param("operation"),
            );
        }
    };
    let want = if upload { Want::Write } else { Want::Content };
    let repo = hub.repo(kind.0, &owner, name, &caller, want).await?;
    if body.hash_algo.is_some_and(|algo| algo != "sha256") {
        return Err(ApiError::bad_request("InvalidBatch", "hash_algo: expected sha256").param("hash_algo"));
    }
    if body.objects.len() > OBJECTS {
        return Err(
            ApiError::bad_request("InvalidBatch", format!("at most {OBJECTS} objects are accepted")).param("objects"),
        );
    }
    if !upload {
        return Err(ApiError::new(
            StatusCode::NOT_IMPLEMENTED,
            "Unsupported",
            "downloads go through /resolve; this hub is not a git remote",
        ));
    }
    let more = body
        .objects
        .iter()
        .fold(0u64, |sum, object| sum.saturating_add(object.size));
    check_quota(&hub, &repo, more).await?;
    let parts_wanted = body.transfers.iter().any(|t| t == "multipart");
    let mut objects = Vec::with_capacity(body.objects.len());
    for object in body.objects {
        objects.push(one(&hub, &repo, &caller.spaces(), object, parts_wanted).await?);
    }
    let multipart = objects
        .iter()
        .any(|o| o["actions"]["upload"]["header"]["chunk_size"].is_string());
    let transfer = if multipart { "multipart" } else { "basic" };
    Ok((
        [(header::CONTENT_TYPE, "application/vnd.git-lfs+json")],
        Json(json!({"transfer": transfer, "objects": objects, "hash_algo": "sha256"})),
    ))
}

async fn one(hub: &Arc<Hub>, repo: &Repo, spaces: &[String], object: Object, parts_wanted: bool) -> Answer<Value> {
    let refused = |code: u16, message: String| {
        Ok(json!({"oid": object.oid, "size": object.size, "error": {"code": code, "message": message}}))
    };
    let Ok(sha256) = sha256(&object.oid) else {
        return refused(422, "oid is not a SHA-256 in hexadecimal".into());
    };
    let limits = &hub.config.limits;
    if object.size > limits.file_bytes {
        return refused(413, format!("at most {} bytes are accepted", limits.file_bytes));
    }
    let (id, spaces) = (repo.id, spaces.to_vec());
    let known = hub.db.read(move |db| blobs::usable(db, id, &sha256, &spaces)).await?;
    if let Some(blob) = known {
        if blob.size != object.size {
            return refused(422, format!("the content of this hash has {} bytes", blob.size));
        }
        // There already: remembered for this repository, so that it is kept until the commit.
        hub.db
            .write(move |tx| Ok::<_, ApiError>(blobs::allow(tx, id, &sha256)?))
            .await?;
        return Ok(json!({"oid": object.oid, "size": object.size, "authenticated": true}));
    }
    let link = Link {
        repo: id,
        sha256,
        size: object.size,
        expires: now() + LINK_SECONDS,
    };
    let each = limits.part_of(object.size);
    let upload = if parts_wanted && object.size > each {
        let mut header: Map<String, Value> = Map::new();
        // Texts, as Hugging Face has them.
        header.insert("chunk_size".into(), each.to_string().into());
        for part in 1..=object.size.div_ceil(each) {
            header.insert(part.to_string(), link.url(hub, &format!("/parts/{part}")).into());
        }
        json!({"href": link.url(hub, "/parts"), "header": header})
    } else {
        json!({"href": link.url(hub, ""), "header": {}})
    };
    Ok(json!({
        "oid": object.oid, "size": object.size, "authenticated": true, "actions": {"upload": upload},
        "expires_in": LINK_SECONDS,
    }))
}

/// 503 when too many uploads run.
pub(super) fn slot(hub: &Hub) -> Answer<tokio::sync::SemaphorePermit<'_>> {
    hub.uploads.try_acquire().map_err(|_| {
        let mut error = ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "Overloaded",
            "the hub takes as many uploads as it can; try again",
        );
        error.headers.insert(header::RETRY_AFTER, 2.into());
        error
    })
}

/// Refuses a body whose announced length is not the expected one, before reading it.
pub(super) fn check_length(headers: &HeaderMap, expected: u64) -> Answer<()> {
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<u64>().ok());
    if announced.is_some_and(|got| got != expected) {
        return Err(ApiError::bad_request(
            "SizeMismatch",
            format!(
                "the body has {} bytes, {expected} belong here",
                announced.unwrap_or_default()
            ),
        ));
    }
    Ok(())
}

/// One whole object.
pub(super) async fn put(
    State(hub): State<Arc<Hub>>,
    Path((repo, oid)): Path<(i64, String)>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Body,
) -> Answer<Json<Value>> {
    let link = Link::check(&hub, repo, &oid, &Params::of(&uri))?;
    check_length(&headers, link.size)?;
    let _slot = slot(&hub)?;
    ingest::receive(&hub, link.repo, body, link.size, link.sha256).await?;
    Ok(Json(json!({"oid": oid, "size": link.size})))
}
