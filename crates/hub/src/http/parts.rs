//! Uploads in parts: each part is written at its place in one file ([`PartUpload`]).
//!
//! A part may be sent again, and parts may come in any order. Completion waits for nobody: while a part is being
//! written it is refused, so no byte changes between the check and the publication.

use super::{
    JsonBody, Params,
    lfs::{Link, check_length, slot},
};
use crate::{
    blobs::{BlobError, expect_hash},
    error::{Answer, ApiError},
    ingest,
    part_upload::PartUpload,
    state::Hub,
};
use axum::{
    Json,
    body::Body,
    extract::{OriginalUri, Path, State},
    http::{HeaderMap, StatusCode, header},
};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::mpsc;

/// Most uploads in parts at a time; the oldest idle ones make room.
const UPLOADS: usize = 256;

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The upload of a link, begun if it is new.
async fn upload(hub: &Arc<Hub>, link: &Link) -> Answer<Arc<PartUpload>> {
    let key = (link.repo, link.sha256, link.size);
    if let Some(known) = lock(&hub.parts).get(&key) {
        known.touch();
        return Ok(Arc::clone(known));
    }
    let (store, pool) = (Arc::clone(&hub.blobs), Arc::clone(&hub.pieces));
    let (size, each) = (link.size, hub.config.limits.part_of(link.size));
    let fresh = hub
        .blocking(move || Ok(Arc::new(PartUpload::new(store.incoming()?, size, each, &pool)?)))
        .await?;
    let mut uploads = lock(&hub.parts);
    if uploads.len() >= UPLOADS {
        let idle = uploads.iter().filter(|(_, upload)| Arc::strong_count(upload) == 1);
        let oldest = idle.max_by_key(|(_, upload)| upload.idle()).map(|(key, _)| *key);
        match oldest {
            Some(key) => uploads.remove(&key),
            None => {
                return Err(ApiError::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "Overloaded",
                    "too many uploads in parts are under way; try again",
                ));
            }
        };
    }
    // Another request may have begun the same upload meanwhile.
    Ok(Arc::clone(uploads.entry(key).or_insert(fresh)))
}

/// Drops uploads that were idle for longer than `seconds`.
pub(crate) fn forget_idle(hub: &Hub, seconds: u64) {
    lock(&hub.parts).retain(|_, upload| Arc::strong_count(upload) > 1 || upload.idle().as_secs() < seconds);
}

/// Frees the memory of uploads that were idle for longer than `time`, and what no upload uses.
pub(crate) fn free_idle(hub: &Hub, time: Duration) {
    let idle = |upload: &&Arc<PartUpload>| upload.idle() >= time;
    lock(&hub.parts).values().filter(idle).for_each(|upload| upload.free());
    if hub.pieces.taken() == 0 {
        hub.pieces.shrink();
    }
}

pub(super) async fn put(
    State(hub): State<Arc<Hub>>,
    Path((repo, oid, part)): Path<(i64, String, u64)>,
    OriginalUri(uri): OriginalUri,
    headers: HeaderMap,
    body: Body,
) -> Answer<([(header::HeaderName, String); 1], Json<Value>)> {
    let link = Link::check(&hub, repo, &oid, &Params::of(&uri))?;
    let place = PartUpload::place(link.size, hub.config.limits.part_of(link.size), part);
    let (_, size) =
        place.ok_or_else(|| ApiError::bad_request("InvalidPart", "the upload has no part of this number"))?;
    check_length(&headers, size)?;
    let _slot = slot(&hub)?;
    let upload = upload(&hub, &link).await?;
    let mut writing = upload.write(part).await?.ok_or_else(|| {
        ApiError::new(
            StatusCode::CONFLICT,
            "UploadComplete",
            "this upload is complete already",
        )
    })?;
    let (sender, mut pieces) = mpsc::channel::<Bytes>(ingest::QUEUE);
    // The thread has the right to write and not this request, which ends when the client leaves.
    let writer = tokio::task::spawn_blocking(move || -> Result<String, BlobError> {
        while let Some(piece) = pieces.blocking_recv() {
            writing.write(piece)?;
        }
        writing.finish()
    });
    let sent = ingest::gather(&hub, &mut body.into_data_stream(), size, sender).await;
    let written = writer.await.map_err(ApiError::internal)?;
    sent?;
    let tag = written?;
    Ok(([(header::ETAG, format!("\"{tag}\""))], Json(json!({"part": part}))))
}

/// Parts that are here, with their tags: what an upload that broke off need not send again.
pub(super) async fn listed(
    State(hub): State<Arc<Hub>>,
    Path((repo, oid)): Path<(i64, String)>,
    OriginalUri(uri): OriginalUri,
) -> Answer<Json<Value>> {
    let link = Link::check(&hub, repo, &oid, &Params::of(&uri))?;
    let known = lock(&hub.parts)
        .get(&(link.repo, link.sha256, link.size))
        .map(Arc::clone);
    let done = known.map(|upload| upload.done()).unwrap_or_default();
    let parts: Vec<Value> = done
        .iter()
        .map(|(part, etag)| json!({"partNumber": part, "etag": etag}))
        .collect();
    Ok(Json(json!({"oid": oid, "parts": parts})))
}

#[derive(Debug, Deserialize)]
pub(super) struct Completion {
    oid: String,
    parts: Vec<Part>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Part {
    part_number: u64,
    etag: String,
}

pub(super) async fn complete(
    State(hub): State<Arc<Hub>>,
    Path((repo, oid)): Path<(i64, String)>,
    OriginalUri(uri): OriginalUri,
    JsonBody(body): JsonBody<Completion>,
) -> Answer<Json<Value>> {
    let link = Link::check(&hub, repo, &oid, &Params::of(&uri))?;
    if !body.oid.eq_ignore_ascii_case(&oid) {
        return Err(ApiError::bad_request("InvalidOid", "the body names another object than the link").param("oid"));
    }
    let key = (link.repo, link.sha256, link.size);
    let known = lock(&hub.parts).get(&key).map(Arc::clone);
    let Some(upload) = known else {
        // A completion that is sent again after it succeeded succeeds.
        let sha256 = link.sha256;
        let (id, none) = (link.repo, Vec::new());
        let there = hub
            .db
            .read(move |db| crate::db::blobs::usable(db, id, &sha256, &none))
            .await?;
        return match there {
            Some(_) => Ok(Json(json!({"oid": oid, "size": link.size}))),
            None => Err(ApiError::new(
                StatusCode::NOT_FOUND,
                "UploadNotFound",
                "no part of this upload is here; send them again",
            )),
        };
    };
    let busy = || ApiError::new(StatusCode::CONFLICT, "UploadBusy", "a part is still being sent");
    let mut completion = upload.completion().ok_or_else(busy)?;
    let (done, expected) = (upload.done(), upload.parts());
    let listed: BTreeMap<u64, &str> = body
        .parts
        .iter()
        .map(|p| (p.part_number, p.etag.trim_matches('"')))
        .collect();
    let whole = (1..=expected).all(|part| {
        done.get(&part)
            .is_some_and(|tag| listed.get(&part) == Some(&tag.as_str()))
    });
    if !whole {
        return Err(ApiError::bad_request(
            "MissingPart",
            format!("the upload has {expected} parts; each must be sent, and listed with the tag of its answer"),
        ));
    }
    let mut incoming = completion.take().ok_or_else(busy)?;
    drop(completion);
    lock(&hub.parts).remove(&key);
    let hashed = hub.blocking(move || {
        let blob = upload.hash(&mut incoming)?;
        Ok((incoming, blob))
    });
    let (incoming, blob) = hashed.await?;
    if let Err(error) = expect_hash(&blob, &link.sha256) {
        hub.metrics.refused_blobs.inc();
        return Err(error.into());
    }
    ingest::publish(&hub, link.repo, incoming, blob).await?;
    Ok(Json(json!({"oid": oid, "size": link.size})))
}
