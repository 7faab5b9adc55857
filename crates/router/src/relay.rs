//! The Oblivious HTTP relay (RFC 9458, section 6.1): sealed bytes to a node's gateway and back.
//!
//! The relay sees who asks, which node is asked, when, and how long request and answer are. It does not see what is asked
//! and answered. The node sees what, and only the relay's address. **This holds only while relay and node do not pool what
//! they see.** A node run by the operator of the relay hides nothing from that operator.
//!
//! A request to the gateway is built anew from the sealed bytes and their type: no header of the client goes along. Nothing
//! about one request is logged.

use crate::{error::ApiError, forward::unknown_node, nodes::Node, outbound::cause, state::State};
use axum::{
    body::{Body, Bytes},
    extract::Request,
    response::Response,
};
use futures::{Stream, StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use opg_primitives::ids::NodeId;
use opg_sealed::ohttp::{
    CHUNKED_REQUEST_TYPE, CHUNKED_RESPONSE_TYPE, KEYS_TYPE, MAX_KEYS, REQUEST_TYPE, RESPONSE_TYPE,
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::OwnedSemaphorePermit;

/// Path of a node's gateway.
const GATEWAY: &str = "/ohttp";
/// Path of its keys.
const KEYS: &str = "/ohttp/keys";
/// Asks those on the path to pass pieces on as they come (draft-ietf-httpbis-incremental, which
/// chunked Oblivious HTTP asks for).
const INCREMENTAL: HeaderName = HeaderName::from_static("incremental");
/// Errors that a gateway reports to the relay in the clear (RFC 9458, section 5.2).
const PROBLEM: &str = "application/problem+json";
/// Largest error of a gateway.
const MAX_PROBLEM: u64 = 64 << 10;

/// The two forms of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Whole,
    Chunked,
}

impl Form {
    fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        match media_type(headers) {
            Some(REQUEST_TYPE) => Ok(Self::Whole),
            Some(CHUNKED_REQUEST_TYPE) => Ok(Self::Chunked),
            _ => {
                let message = format!("expected {REQUEST_TYPE} or {CHUNKED_REQUEST_TYPE}");
                Err(
                    ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
                        .param("Content-Type"),
                )
            }
        }
    }

    const fn request(self) -> &'static str {
        match self {
            Self::Whole => REQUEST_TYPE,
            Self::Chunked => CHUNKED_REQUEST_TYPE,
        }
    }

    const fn response(self) -> &'static str {
        match self {
            Self::Whole => RESPONSE_TYPE,
            Self::Chunked => CHUNKED_RESPONSE_TYPE,
        }
    }
}

fn media_type(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or(value).trim())
}

fn node(state: &State, id: &str) -> Result<Arc<Node>, ApiError> {
    let id: NodeId = id.parse().map_err(|error: opg_primitives::ids::IdError| {
        ApiError::bad_request("invalid_node", "node", error.to_string())
    })?;
    state.nodes.get(id).ok_or_else(unknown_node)
}

fn unreachable() -> ApiError {
    ApiError::new(
        StatusCode::BAD_GATEWAY,
        "node_unreachable",
        "the node's gateway gave no answer",
    )
}

fn not_a_gateway() -> ApiError {
    ApiError::new(
        StatusCode::BAD_GATEWAY,
        "not_a_gateway",
        "the node did not answer as an Oblivious HTTP gateway",
    )
}

/// Relays one sealed request.
pub(crate) async fn relay(state: &Arc<State>, id: &str, request: Request) -> Result<Response, ApiError> {
    let node = node(state, id)?;
    let (parts, body) = request.into_parts();
    let form = Form::of(&parts.headers)?;
    let busy = || ApiError::unavailable("overloaded", "the relay has as many requests as it takes; try again");
    let slot = Arc::clone(&state.slots).try_acquire_owned().map_err(|_| busy())?;
    let limit = state.config.relay.body_bytes;
    let declared = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|declared| declared > limit) {
        return Err(ApiError::too_large(limit));
    }
    let idle = Duration::from_secs(state.config.limits.idle_seconds);
    let too_large = Arc::new(AtomicBool::new(false));
    let sealed = sealed_in(Arc::clone(state), body, limit, idle, Arc::clone(&too_large));

    let mut outgoing = http::Request::new(Body::from_stream(sealed));
    *outgoing.method_mut() = Method::POST;
    *outgoing.uri_mut() = node.url(GATEWAY).parse().map_err(|_| unreachable())?;
    let headers = outgoing.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(form.request()));
    if let Some(declared) = declared {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(declared));
    }
    if form == Form::Chunked {
        headers.insert(INCREMENTAL, HeaderValue::from_static("?1"));
    }
    let within = Duration::from_secs(state.config.limits.head_seconds);
    let answer = match tokio::time::timeout(within, state.outbound.send(outgoing)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) if too_large.load(Ordering::Relaxed) => return Err(ApiError::too_large(limit)),
        Ok(Err(error)) => {
            tracing::debug!(node = %node.id(), reason = cause(&error), "a gateway gave no answer");
            return Err(unreachable());
        }
        Err(_) => return Err(unreachable()),
    };
    answered(state, answer, form, idle, slot)
}

/// What goes back to the client: status, type and bytes.
fn answered(
    state: &Arc<State>,
    answer: http::Response<Incoming>,
    form: Form,
    idle: Duration,
    slot: OwnedSemaphorePermit,
) -> Result<Response, ApiError> {
    let (parts, body) = answer.into_parts();
    let kind = media_type(&parts.headers);
    let (content, limit) = match kind {
        Some(kind) if parts.status == StatusCode::OK && kind == form.response() => {
            (form.response(), state.config.relay.answer_bytes)
        }
        // A gateway that cannot open a request says so in the clear.
        Some(PROBLEM) if !parts.status.is_success() && !parts.status.is_informational() => (PROBLEM, MAX_PROBLEM),
        _ if parts.status.is_client_error() || parts.status.is_server_error() => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = parts.status;
            response
                .headers_mut()
                .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            return Ok(response);
        }
        _ => return Err(not_a_gateway()),
    };
    let length = parts
        .headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    let sealed = sealed_out(Arc::clone(state), body, limit, idle, slot);
    let mut response = Response::new(Body::from_stream(sealed));
    *response.status_mut() = parts.status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(length) = length {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
    if form == Form::Chunked {
        headers.insert(INCREMENTAL, HeaderValue::from_static("?1"));
    }
    Ok(response)
}

/// A client's sealed bytes, bounded.
fn sealed_in(
    state: Arc<State>,
    body: Body,
    limit: u64,
    idle: Duration,
    too_large: Arc<AtomicBool>,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    let start = Some((body.into_data_stream(), 0u64));
    stream::unfold(start, move |running| {
        let (state, too_large) = (Arc::clone(&state), Arc::clone(&too_large));
        async move {
            let (mut body, taken) = running?;
            match tokio::time::timeout(idle, body.next()).await {
                Err(_) => Some((Err(io::Error::other("the client stopped sending")), None)),
                Ok(None) => None,
                Ok(Some(Err(_))) => Some((Err(io::Error::other("the client broke off")), None)),
                Ok(Some(Ok(bytes))) => {
                    let taken = taken.saturating_add(bytes.len() as u64);
                    if taken > limit {
                        too_large.store(true, Ordering::Relaxed);
                        return Some((Err(io::Error::other("the request is too large")), None));
                    }
                    state.metrics.relayed_in.inc_by(bytes.len() as u64);
                    Some((Ok(bytes), Some((body, taken))))
                }
            }
        }
    })
}

/// A node's sealed bytes, bounded. If they break off, so does the client's connection.
fn sealed_out(
    state: Arc<State>,
    body: Incoming,
    limit: u64,
    idle: Duration,
    slot: OwnedSemaphorePermit,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::unfold(Some((body, 0u64, slot)), move |running| {
        let state = Arc::clone(&state);
        async move {
            let (mut body, taken, slot) = running?;
            loop {
                match tokio::time::timeout(idle, body.frame()).await {
                    Err(_) => return Some((Err(io::Error::other("the gateway stopped sending")), None)),
                    Ok(None) => return None,
                    Ok(Some(Err(_))) => return Some((Err(io::Error::other("the gateway broke off")), None)),
                    Ok(Some(Ok(frame))) => {
                        let Ok(bytes) = frame.into_data() else { continue };
                        let taken = taken.saturating_add(bytes.len() as u64);
                        if taken > limit {
                            return Some((Err(io::Error::other("the answer is too large")), None));
                        }
                        state.metrics.relayed_out.inc_by(bytes.len() as u64);
                        return Some((Ok(bytes), Some((body, taken, slot))));
                    }
                }
            }
        }
    })
}

/// Passes a gateway's keys on. The client must check them against the node's registered keyset: a relay that hands out keys
/// of its own could read everything.
pub(crate) async fn keys(state: &Arc<State>, id: &str) -> Result<Response, ApiError> {
    let node = node(state, id)?;
    let url = node.url(KEYS).parse().map_err(|_| unreachable())?;
    let mut request = http::Request::new(Body::empty());
    *request.uri_mut() = url;
    request
        .headers_mut()
        .insert(header::ACCEPT, HeaderValue::from_static(KEYS_TYPE));
    let fetch = async {
        let answer = state.outbound.send(request).await.map_err(|_| unreachable())?;
        if answer.status() != StatusCode::OK || media_type(answer.headers()) != Some(KEYS_TYPE) {
            return Err(not_a_gateway());
        }
        let body = http_body_util::Limited::new(answer.into_body(), MAX_KEYS)
            .collect()
            .await;
        body.map(http_body_util::Collected::to_bytes)
            .map_err(|_| not_a_gateway())
    };
    let within = Duration::from_secs(state.config.limits.connect_seconds.saturating_mul(2));
    let keys = tokio::time::timeout(within, fetch).await.map_err(|_| unreachable())??;
    let mut response = Response::new(Body::from(keys));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(KEYS_TYPE));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
