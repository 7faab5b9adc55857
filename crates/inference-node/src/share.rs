//! Fetched models for other inference nodes: read-only, by content root, a few at a time.
//!
//! Whoever asks checks every byte, so this promises nothing; and it gives nothing that was not public where it came from:
//! models that are configured by path are not here.

use crate::{catalogue::Catalogue, config::ModelConfig, error::ApiError, node::Node, work::internal};
use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures::StreamExt as _;
use opg_model_store::{
    Cache, pieces,
    ranges::{Encoder, MEDIA_TYPE, OFFER_HEADER, Span, SpanError, UNIT},
};
use opg_primitives::ids::ModelRoot;
use std::{
    collections::HashMap,
    io::{Seek as _, SeekFrom},
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncSeekExt as _},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::io::ReaderStream;

/// Answers at a time; more get 503. Who fetches a file asks for two ranges at once, and does with one.
const DOWNLOADS: usize = 8;
/// Longest download: a reader that drips must not hold its place for ever.
const LONGEST: Duration = Duration::from_secs(3600);
const PIECE: usize = 256 << 10;

/// One model that others may have.
#[derive(Debug)]
struct Shared {
    manifest: Vec<u8>,
    sha256: String,
    size: u64,
    path: PathBuf,
    /// BLAKE3 and where its hash tree is, if the manifest has it: then ranges can be verified.
    ranges: Option<([u8; 32], PathBuf)>,
}

/// What this node gives to others.
#[derive(Debug)]
pub(crate) struct Share {
    models: HashMap<ModelRoot, Shared>,
    downloads: Arc<Semaphore>,
}

impl Share {
    /// The fetched ones among the loaded models.
    pub(crate) fn of(models: &[ModelConfig], catalogue: &Catalogue, cache: Option<&Cache>) -> Self {
        let fetched = models.iter().filter(|model| model.hub.is_some());
        let models = fetched
            .filter_map(|model| {
                let manifest = catalogue.find(&model.name)?.model.manifest.as_ref()?;
                let [file] = manifest.files.as_slice() else { return None };
                let shared = Shared {
                    manifest: manifest.encode().ok()?,
                    sha256: alloy_primitives::hex::encode(file.sha256),
                    size: file.size,
                    path: model.path.clone(),
                    ranges: file
                        .blake3
                        .zip(cache)
                        .map(|(blake3, cache)| (blake3.0, cache.outboard(&file.sha256.0))),
                };
                Some((manifest.root().ok()?, shared))
            })
            .collect();
        Self {
            models,
            downloads: Arc::new(Semaphore::new(DOWNLOADS)),
        }
    }

    /// The right to send something.
    fn slot(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        Arc::clone(&self.downloads).try_acquire_owned().map_err(|_| {
            ApiError::unavailable(
                "overloaded",
                format!("the node gives {DOWNLOADS} parts of model files at a time; try again"),
            )
        })
    }

    fn find(&self, root: &str) -> Result<&Shared, ApiError> {
        let found = root.parse().ok().and_then(|root: ModelRoot| self.models.get(&root));
        found.ok_or_else(|| {
            let message = "this node gives no model of this root to others";
            ApiError::new(StatusCode::NOT_FOUND, "model_not_shared", message).param("root")
        })
    }
}

fn share(node: &Node) -> Result<&Share, ApiError> {
    node.share.as_ref().ok_or_else(|| {
        let message = "this node does not share model files";
        ApiError::new(StatusCode::NOT_FOUND, "model_not_shared", message)
    })
}

/// The manifest of a model, of which its root is the hash.
pub(crate) async fn manifest(State(node): State<Arc<Node>>, Path(root): Path<String>) -> Result<Response, ApiError> {
    let shared = share(&node)?.find(&root)?;
    let manifest = shared.manifest.clone();
    let mut response = ([(header::CONTENT_TYPE, "application/cbor")], manifest).into_response();
    if shared.ranges.is_some() {
        response
            .headers_mut()
            .insert(OFFER_HEADER, HeaderValue::from_static(UNIT));
    }
    Ok(response)
}

/// The model's file, from the byte that `Range: bytes=N-` names, or the verified range that `Range: bao-blake3=FIRST-LAST` does.
pub(crate) async fn file(
    State(node): State<Arc<Node>>,
    Path((root, sha256)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let share = share(&node)?;
    let shared = share.find(&root)?;
    if !shared.sha256.eq_ignore_ascii_case(&sha256) {
        let message = "the model has no file of this SHA-256";
        return Err(ApiError::new(StatusCode::NOT_FOUND, "file_not_found", message).param("sha256"));
    }
    let size = shared.size;
    let range = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    if let (Some((blake3, outboard)), Some(span)) =
        (&shared.ranges, range.and_then(|range| Span::of_header(range, size)))
    {
        return verified(&node, share, shared, (*blake3, outboard), span).await;
    }
    let start = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<u64>().ok());
    if start.is_some_and(|start| start >= size) {
        let message = format!("the file has {size} bytes");
        return Err(ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "invalid_range", message).param("Range"));
    }
    let slot = share.slot()?;
    let mut file = tokio::fs::File::open(&shared.path).await.map_err(internal)?;
    file.seek(SeekFrom::Start(start.unwrap_or(0))).await.map_err(internal)?;
    let left = size - start.unwrap_or(0);
    let metrics = Arc::clone(&node.metrics);
    let pieces = ReaderStream::with_capacity(file.take(left), PIECE)
        .take_until(tokio::time::sleep(LONGEST))
        .inspect(move |piece| {
            let _held = &slot;
            if let Ok(piece) = piece {
                metrics.model_bytes_shared.inc_by(piece.len() as u64);
            }
        });
    let mut response = Response::new(Body::from_stream(pieces));
    let out = response.headers_mut();
    out.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    out.insert(header::CONTENT_LENGTH, HeaderValue::from(left));
    out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Some(start) = start {
        let range = format!("bytes {start}-{}/{size}", size.saturating_sub(1));
        out.insert(header::CONTENT_RANGE, HeaderValue::try_from(range).map_err(internal)?);
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    }
    Ok(response)
}

/// A part of the file with the hashes that prove it.
async fn verified(
    node: &Node,
    share: &Share,
    shared: &Shared,
    (blake3, outboard): ([u8; 32], &FilePath),
    span: Result<Span, SpanError>,
) -> Result<Response, ApiError> {
    let span = span.map_err(|error| {
        ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "invalid_range", error.to_string()).param("Range")
    })?;
    let slot = share.slot()?;
    let (path, outboard, size) = (shared.path.clone(), outboard.to_owned(), shared.size);
    let open = tokio::task::spawn_blocking(move || {
        let mut file = std::fs::File::open(path)?;
        file.seek(SeekFrom::Start(span.start()))?;
        Ok::<_, std::io::Error>((file, std::fs::File::open(outboard)?))
    });
    let (file, outboard) = open.await.map_err(internal)?.map_err(internal)?;
    let metrics = Arc::clone(&node.metrics);
    let pieces = pieces(Encoder::new(blake3, size, span, file, outboard))
        .take_until(tokio::time::sleep(LONGEST))
        .inspect(move |piece| {
            let _held = &slot;
            match piece {
                Ok(piece) => {
                    metrics.model_bytes_shared.inc_by(piece.len() as u64);
                }
                Err(error) => tracing::error!(%error, "a model file that others ask for cannot be read"),
            }
        });
    let mut response = Response::new(Body::from_stream(pieces));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    out.insert(header::CONTENT_LENGTH, HeaderValue::from(span.encoded_length(size)));
    let range = HeaderValue::try_from(span.content_range(size)).map_err(internal)?;
    out.insert(header::CONTENT_RANGE, range);
    Ok(response)
}
