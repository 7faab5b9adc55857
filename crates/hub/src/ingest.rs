//! From a stream of bytes to a stored blob.

use crate::{
    blobs::{BlobError, Incoming, describe, expect_hash},
    db::{
        Transaction,
        blobs::{self, INLINE_LIMIT},
        repos,
    },
    error::{Answer, ApiError},
    hasher, quota,
    state::Hub,
    tree::{Blob, Hash},
};
use axum::body::Body;
use bytes::Bytes;
use futures::StreamExt as _;
use opg_model_store::Gather;
use opg_models::ShaHasher;
use std::{
    collections::hash_map::Entry,
    io,
    sync::{Arc, PoisonError, mpsc::sync_channel},
    thread,
    time::Duration,
};
use tokio::sync::mpsc;

/// Longest pause between two pieces of an upload.
const PAUSE: Duration = Duration::from_secs(60);
/// Pieces ([`Gather::PIECE`]) that wait for a thread.
pub(crate) const QUEUE: usize = 2;

/// The next piece of a body; `None` at its end.
pub(crate) async fn next_piece(body: &mut axum::body::BodyDataStream) -> Answer<Option<Bytes>> {
    let piece = tokio::time::timeout(PAUSE, body.next()).await.map_err(|_| {
        ApiError::new(
            axum::http::StatusCode::REQUEST_TIMEOUT,
            "Timeout",
            "no data came for 60 s; nothing was stored",
        )
    })?;
    piece
        .transpose()
        .map_err(|e| ApiError::bad_request("Truncated", format!("the upload broke off: {e}; nothing was stored")))
}

/// Hands a body of at most `size` bytes to a thread in large pieces. Ends early, and well, when the thread has stopped, which says
/// why.
pub(crate) async fn gather(
    hub: &Hub,
    body: &mut axum::body::BodyDataStream,
    size: u64,
    thread: mpsc::Sender<Bytes>,
) -> Answer<()> {
    let mut gather = Gather::new(&hub.pieces);
    let (mut got, mut ended) = (0, false);
    while !ended {
        let piece = next_piece(body).await?;
        ended = piece.is_none();
        let mut left = piece.as_deref().unwrap_or_default();
        hub.metrics.received.inc_by(left.len() as u64);
        got += left.len() as u64;
        if got > size {
            hub.metrics.refused_blobs.inc();
            return Err(BlobError::Size { expected: size, got }.into());
        }
        loop {
            let whole = gather.add(&mut left);
            let Some(whole) = whole.or_else(|| ended.then(|| gather.rest()).flatten()) else {
                break;
            };
            if thread.send(whole).await.is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Receives a blob of an announced size and hash, and lets a repository use it. Bytes that are not what was announced are
/// dropped.
pub(crate) async fn receive(hub: &Arc<Hub>, repo: i64, body: Body, size: u64, expected: Hash) -> Answer<Blob> {
    let mut body = body.into_data_stream();
    if size <= INLINE_LIMIT as u64 {
        let mut content = Vec::new();
        while let Some(piece) = next_piece(&mut body).await? {
            content.extend_from_slice(&piece);
            if content.len() as u64 > size {
                break;
            }
        }
        let blob = describe(&content);
        check(hub, &blob, size, &expected)?;
        hub.metrics.received.inc_by(size);
        store_small(hub, repo, vec![(blob, content)]).await?;
        return Ok(blob);
    }
    let (sender, mut pieces) = mpsc::channel::<Bytes>(QUEUE);
    let store = Arc::clone(&hub.blobs);
    let writer = tokio::task::spawn_blocking(move || {
        let mut incoming = store.incoming()?;
        let (hash, to_hash) = sync_channel::<Bytes>(QUEUE);
        let hashing = move || {
            let mut shas = ShaHasher::new(size);
            for piece in to_hash {
                shas.update(&piece);
            }
            shas
        };
        // Of its own, not one of those that may all be waiting for theirs.
        let hasher = thread::Builder::new().name("upload-hasher".into()).spawn(hashing);
        let hasher = hasher.map_err(BlobError::upload)?;
        let gone = || BlobError::upload(io::Error::other("the thread that hashed is gone"));
        // BLAKE3 takes a sixth of the time of the SHAs, and the disk's time is not the processor's.
        let (mut blake3, mut got) = (blake3::Hasher::new(), 0);
        while let Some(piece) = pieces.blocking_recv() {
            hash.send(piece.clone()).map_err(|_| gone())?;
            blake3.update(&piece);
            incoming.write(&piece)?;
            got += piece.len() as u64;
        }
        drop(hash);
        let shas = hasher.join().map_err(|_| gone())?;
        if got != size {
            return Err(hasher::wrong_size(size, got));
        }
        Ok((incoming, hasher::blob(shas, blake3.finalize().into(), size)))
    });
    let sent = gather(hub, &mut body, size, sender).await;
    let written = writer.await.map_err(ApiError::internal)?;
    sent?;
    let (incoming, blob) = written.inspect_err(|error| {
        if matches!(error, BlobError::Size { .. }) {
            hub.metrics.refused_blobs.inc();
        }
    })?;
    check(hub, &blob, size, &expected)?;
    publish(hub, repo, incoming, blob).await?;
    Ok(blob)
}

fn check(hub: &Hub, blob: &Blob, size: u64, expected: &Hash) -> Answer<()> {
    let size = if blob.size == size {
        Ok(())
    } else {
        Err(BlobError::Size {
            expected: size,
            got: blob.size,
        })
    };
    size.and_then(|()| expect_hash(blob, expected)).map_err(|error| {
        hub.metrics.refused_blobs.inc();
        error.into()
    })
}

/// A blob that is being stored: as long as this lives the collector does not remove it.
struct Fresh {
    hub: Arc<Hub>,
    sha256: Hash,
}

impl Fresh {
    fn new(hub: &Arc<Hub>, sha256: Hash) -> Self {
        let mut fresh = hub.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        *fresh.entry(sha256).or_default() += 1;
        Self {
            hub: Arc::clone(hub),
            sha256,
        }
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let mut fresh = self.hub.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut entry) = fresh.entry(self.sha256) {
            *entry.get_mut() -= 1;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// Publishes a received file and records it.
pub(crate) async fn publish(hub: &Arc<Hub>, repo: i64, incoming: Incoming, blob: Blob) -> Answer<()> {
    // In a task of its own: a client that leaves now does not stop between the two steps.
    let hub = Arc::clone(hub);
    let done: Result<Answer<()>, _> = tokio::spawn(async move {
        // Storing may take long, and the collector need not wait for it: it leaves alone what is fresh.
        let _fresh = {
            let _publishing = hub.publishing.read().await;
            Fresh::new(&hub, blob.sha256)
        };
        let store = Arc::clone(&hub.blobs);
        hub.blocking(move || Ok(store.publish(incoming, &blob)?)).await?;
        let _publishing = hub.publishing.read().await;
        let shared = Arc::clone(&hub);
        hub.db
            .write(move |tx| {
                blobs::add(tx, repo, &[(blob, None)])?;
                allowed(tx, &shared, repo)
            })
            .await
    })
    .await;
    done.map_err(ApiError::internal)?
}

/// Stores small blobs, all in one transaction. Each must be at most [`INLINE_LIMIT`] bytes.
pub(crate) async fn store_small(hub: &Arc<Hub>, repo: i64, small: Vec<(Blob, Vec<u8>)>) -> Answer<()> {
    let shared = Arc::clone(hub);
    hub.db
        .write(move |tx| {
            let stored: Vec<_> = small
                .iter()
                .map(|(blob, content)| (*blob, Some(content.as_slice())))
                .collect();
            blobs::add(tx, repo, &stored)?;
            allowed(tx, &shared, repo)
        })
        .await
}

/// Refuses, and so undoes the transaction, if an account now stores more than it may. Uploads are refused before they
/// begin; this is for several that began together.
fn allowed(tx: &Transaction<'_>, hub: &Hub, repo: i64) -> Answer<()> {
    match repos::owner(tx, repo)? {
        Some(owner) => quota::check_bytes(tx, &hub.config, &owner, 0),
        None => Err(ApiError::repo_not_found()),
    }
}

/// Stores content that is in memory, and lets a repository use it.
pub(crate) async fn store(hub: &Arc<Hub>, repo: i64, content: Vec<u8>) -> Answer<Blob> {
    let blob = describe(&content);
    if content.len() <= INLINE_LIMIT {
        store_small(hub, repo, vec![(blob, content)]).await?;
        return Ok(blob);
    }
    let files = Arc::clone(&hub.blobs);
    let incoming = hub
        .blocking(move || {
            let mut incoming = files.incoming()?;
            incoming.write(&content)?;
            Ok(incoming)
        })
        .await?;
    publish(hub, repo, incoming, blob).await?;
    Ok(blob)
}

/// All bytes of a stored blob, if it has at most `limit`.
pub(crate) async fn load(hub: &Hub, sha256: Hash, limit: u64) -> Answer<Vec<u8>> {
    if let Some(content) = hub.db.read(move |db| blobs::inline(db, &sha256)).await? {
        return Ok(content);
    }
    let store = Arc::clone(&hub.blobs);
    hub.blocking(move || Ok(store.front(&sha256, limit)?)).await
}
