//! Oblivious HTTP gateway (RFC 9458, chunked form): a whole request sealed to the node's attested key, its answer sealed back.
//!
//! What is inside is an ordinary request to this node, quote and payment included, and is answered by the same routes. A copy of
//! sealed bytes opens again, so whoever replays them gets another answer that only the sender can read: requests that cost
//! something are protected by their payment, which is worked on once.

use crate::{body, error::ApiError, node::Node, work::internal};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use futures::StreamExt as _;
use opg_sealed::{
    ChunkSealer, SealedError,
    bhttp::{self, Field},
    ohttp::{self, Gateway},
};
use std::sync::Arc;
use tokio::sync::{Semaphore, mpsc};
use tower::ServiceExt as _;

/// Identifier of the one key that a node has at a time.
pub(crate) const KEY_ID: u8 = 1;
/// Room for header fields and sealing around a body.
const OVERHEAD: usize = 96 * 1024;
/// Parts of an answer that may wait for a slow reader.
const BUFFER: usize = 16;

#[derive(Debug)]
struct Inside {
    gateway: Gateway,
    routes: Router,
    node: Arc<Node>,
    /// Sealed requests held at once: as many as the node takes in the clear, which have slots of their own.
    slots: Semaphore,
}

/// The gateway's routes in front of a node's own; nothing without a key.
pub(crate) fn routes(node: Arc<Node>, key: Option<opg_sealed::PrivateKey>, routes: Router) -> Router {
    let Some(key) = key else { return routes };
    let inside = Arc::new(Inside {
        gateway: Gateway::new(vec![(KEY_ID, key)]),
        routes: routes.clone(),
        slots: Semaphore::new(node.limits.concurrent),
        node,
    });
    let own = Router::new()
        .route("/ohttp", post(sealed))
        .route("/ohttp/keys", get(keys))
        .with_state(inside);
    own.merge(routes)
}

/// The key, for whoever looks for it here; clients take it from the registered keyset instead.
async fn keys(State(inside): State<Arc<Inside>>) -> Response {
    ([(header::CONTENT_TYPE, ohttp::KEYS_TYPE)], inside.gateway.keys()).into_response()
}

async fn sealed(State(inside): State<Arc<Inside>>, request: Request) -> Response {
    match answer(&inside, request).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

/// The same words for everything that does not open: a stranger learns nothing about the key.
fn unreadable(error: SealedError) -> ApiError {
    tracing::debug!(%error, "a sealed request does not open");
    let message = "the sealed request does not open: take the key from this node's registered keyset";
    ApiError::bad_request("sealed_unreadable", message)
}

async fn answer(inside: &Inside, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    let kind = parts.headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    if kind != Some(ohttp::CHUNKED_REQUEST_TYPE.as_bytes()) {
        let message = format!("content-type must be {}", ohttp::CHUNKED_REQUEST_TYPE);
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(ApiError::new(status, "unsupported_media_type", message).param("content-type"));
    }
    let _slot = inside.slots.try_acquire().map_err(|_| {
        let message = "the node has as many sealed requests as it takes; nothing was charged";
        ApiError::unavailable("overloaded", message)
    })?;
    let bytes = body::read(&parts.headers, body, inside.node.limits.body_bytes + OVERHEAD).await?;
    let (request, secret) = open(&inside.gateway, &bytes).map_err(unreadable)?;
    let request = inner(request)?;
    // Inside a router nothing fails: every error is a response.
    let response = inside
        .routes
        .clone()
        .oneshot(request)
        .await
        .unwrap_or_else(|never| match never {});
    let (start, sealer) = secret.sealer(&rand::random()).map_err(internal)?;
    let (sender, receiver) = mpsc::channel(BUFFER);
    tokio::spawn(seal(response, start, sealer, sender));
    let stream = futures::stream::unfold(receiver, async |mut receiver: mpsc::Receiver<Bytes>| {
        let bytes = receiver.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(bytes), receiver))
    });
    let headers = [
        (header::CONTENT_TYPE, ohttp::CHUNKED_RESPONSE_TYPE),
        (header::CACHE_CONTROL, "no-store"),
    ];
    Ok((headers, Body::from_stream(stream)).into_response())
}

/// Opens a whole chunked request.
fn open(gateway: &Gateway, bytes: &[u8]) -> Result<(bhttp::Request, opg_sealed::ResponseSecret), SealedError> {
    let (start, rest) = bytes
        .split_first_chunk::<{ ohttp::START }>()
        .ok_or(SealedError::Truncated {
            what: "the sealed request",
        })?;
    let (mut opener, secret) = gateway.start(start)?;
    let mut plain = opener.push(rest)?.concat();
    plain.extend(opener.finish()?);
    Ok((bhttp::Request::parse(&plain)?, secret))
}

/// The request inside, for the node's own API only.
fn inner(request: bhttp::Request) -> Result<Request, ApiError> {
    let refuse = |what: &str| ApiError::bad_request("sealed_request", format!("the request inside: {what}"));
    if !request.path.starts_with("/v1/") {
        return Err(refuse("only paths below /v1/ are answered"));
    }
    let mut built = axum::http::Request::builder()
        .method(request.method.as_str())
        .uri(request.path.as_str());
    for field in &request.headers {
        built = built.header(field.name(), field.value());
    }
    built
        .body(Body::from(request.body))
        .map_err(|error| refuse(&error.to_string()))
}

/// Seals an answer part by part. A reader that leaves ends it, and so does an answer that breaks off: without its last chunk the
/// other side refuses it as cut.
async fn seal(response: Response, start: Vec<u8>, mut sealer: ChunkSealer, to: mpsc::Sender<Bytes>) {
    let (parts, body) = response.into_parts();
    // What concerns one connection is not part of the answer.
    let hop = [header::CONNECTION, header::TRANSFER_ENCODING];
    let fields = parts
        .headers
        .iter()
        .filter(|(name, _)| !hop.contains(name))
        .map(|(name, value): (&HeaderName, &HeaderValue)| Field::new(name.as_str(), value.as_bytes()))
        .collect::<Result<Vec<_>, _>>();
    let head = fields.and_then(|fields| bhttp::stream::head(parts.status.as_u16(), &fields));
    let first = head
        .and_then(|head| sealer.chunk(&head))
        .map(|chunk| [start, chunk].concat());
    let send = async |bytes: Result<Vec<u8>, SealedError>| match bytes {
        Ok(bytes) => to.send(bytes.into()).await.is_ok(),
        Err(error) => {
            tracing::error!(%error, "an answer cannot be sealed");
            false
        }
    };
    if !send(first).await {
        return;
    }
    let mut stream = body.into_data_stream();
    while let Some(part) = stream.next().await {
        let Ok(part) = part else { return };
        if !part.is_empty() && !send(sealer.chunk(&bhttp::stream::content(&part))).await {
            return;
        }
    }
    let end = bhttp::stream::end(&[]).and_then(|end| sealer.finish(&end));
    send(end).await;
}
