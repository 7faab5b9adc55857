//! Answers of nodes on their way to a client: passed on piece by piece, and measured.

use crate::{
    headers::{self, NODE, RECEIPT_ID},
    nodes::Attempt,
    state::State,
    upload::Passing,
};
use axum::{
    body::{Body, Bytes},
    response::Response,
};
use futures::stream;
use http::{HeaderValue, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::{
    io,
    time::{Duration, Instant},
};
use tokio::sync::OwnedSemaphorePermit;

/// The answer of a node to a client.
pub(crate) fn deliver(
    state: &State,
    answer: http::Response<Incoming>,
    mut attempt: Attempt,
    passing: Passing,
    slot: Option<OwnedSemaphorePermit>,
) -> Response {
    let (parts, body) = answer.into_parts();
    let node = attempt.node().id();
    match parts.status {
        StatusCode::PAYMENT_REQUIRED => attempt.quoted(),
        status if status.is_server_error() => attempt.failed(passing.model().as_deref()),
        // The caller's fault, or somebody else's.
        status if !status.is_success() => attempt.succeeded(),
        _ => {}
    }
    let mut headers = headers::response(&parts.headers);
    if let Some(id) = headers
        .get(RECEIPT_ID)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse().ok())
    {
        state.places.claim(id, node);
    }
    if let Ok(value) = HeaderValue::from_str(&node.to_string()) {
        headers.insert(NODE, value);
    }
    let delivery = Delivery {
        body,
        attempt,
        passing,
        idle: Duration::from_secs(state.config.limits.idle_seconds),
        first: None,
        bytes: 0,
        _slot: slot,
    };
    let mut response = Response::new(Body::from_stream(stream::unfold(Some(delivery), Delivery::step)));
    *response.status_mut() = parts.status;
    *response.headers_mut() = headers;
    response
}

struct Delivery {
    body: Incoming,
    attempt: Attempt,
    passing: Passing,
    idle: Duration,
    /// When the first byte came, after how long.
    first: Option<(Instant, Duration)>,
    bytes: u64,
    /// The request counts as worked on until its answer has left.
    _slot: Option<OwnedSemaphorePermit>,
}

impl Delivery {
    async fn step(delivery: Option<Self>) -> Option<(io::Result<Bytes>, Option<Self>)> {
        let mut it = delivery?;
        loop {
            let frame = match tokio::time::timeout(it.idle, it.body.frame()).await {
                Err(_) => return Some((it.broken("the node stopped sending"), None)),
                Ok(None) => {
                    it.ended();
                    return None;
                }
                // The client's connection is cut as well: it must not take this for the end.
                Ok(Some(Err(_))) => return Some((it.broken("the node broke off"), None)),
                Ok(Some(Ok(frame))) => frame,
            };
            let Ok(bytes) = frame.into_data() else { continue };
            if bytes.is_empty() {
                continue;
            }
            it.first.get_or_insert_with(|| (Instant::now(), it.attempt.elapsed()));
            it.bytes = it.bytes.saturating_add(bytes.len() as u64);
            return Some((Ok(bytes), Some(it)));
        }
    }

    fn broken(&mut self, why: &'static str) -> io::Result<Bytes> {
        self.attempt.failed(self.passing.model().as_deref());
        Err(io::Error::other(why))
    }

    fn ended(&mut self) {
        let (since, first) = self.first.unwrap_or_else(|| (Instant::now(), self.attempt.elapsed()));
        let model = self.passing.model();
        self.attempt
            .delivered(model.as_deref(), first, self.bytes, since.elapsed());
    }
}
