//! Requests for inference: which node gets one, and what happens when it does not answer.
//!
//! A request with a payment goes to the node that the payment names, once, as it streams in. One without gets a price
//! (402) from a node that serves the model; it costs nothing, so it may be asked for twice, and elsewhere after a failure.

use crate::{
    answer::deliver,
    error::ApiError,
    headers::{self, NODE},
    nodes::{Attempt, NoNode, Node},
    outbound::cause,
    payment,
    state::State,
    upload::{Outgoing, Passing, Upload},
};
use axum::{body::Body, extract::Request, response::Response};
use futures::{StreamExt as _, stream::FuturesUnordered};
use http::{HeaderMap, Method, StatusCode, header};
use hyper::body::Incoming;
use opg_primitives::ids::NodeId;
use rand::Rng as _;
use std::{sync::Arc, time::Duration};
use tokio::sync::OwnedSemaphorePermit;

/// Most nodes that are asked for one quote.
const TRIES: usize = 3;

/// Why a node gave no answer.
pub(crate) struct NoAnswer {
    /// Whether nothing of the request can have reached it.
    unsent: bool,
    reason: String,
}

/// The node that a client asks for by name.
pub(crate) fn pinned(headers: &HeaderMap) -> Result<Option<NodeId>, ApiError> {
    let Some(value) = headers.get(NODE) else {
        return Ok(None);
    };
    let id = value.to_str().ok().and_then(|text| text.parse().ok());
    let bad = || ApiError::bad_request("invalid_node", "X-OPG-Node", "expected 0x and 64 hexadecimal digits");
    id.map(Some).ok_or_else(bad)
}

pub(crate) fn unknown_node() -> ApiError {
    ApiError::not_found("node_not_found", "no active node of the registry has this id")
}

/// Forwards a request for inference.
pub(crate) async fn infer(state: &Arc<State>, request: Request, path: &'static str) -> Result<Response, ApiError> {
    let busy = || ApiError::unavailable("overloaded", "the router has as many requests as it takes; try again");
    let slot = Arc::clone(&state.slots).try_acquire_owned().map_err(|_| busy())?;
    let (parts, body) = request.into_parts();
    let limits = &state.config.limits;
    let payee = payment::payee(&parts.headers)?;
    let pinned = pinned(&parts.headers)?;
    let idle = Duration::from_secs(limits.idle_seconds);
    let upload = Upload::new(&parts.headers, body, limits.body_bytes, idle)?;
    let headers = headers::request(&parts.headers);

    if let Some(payee) = payee {
        let node = state.nodes.payee(payee).ok_or_else(|| {
            let message = format!(
                "the payment goes to {payee}, which is the deposit address of no active node: ask for a new quote"
            );
            ApiError::bad_request("payment_node_unknown", "PAYMENT-SIGNATURE", message)
        })?;
        if pinned.is_some_and(|id| id != node.id()) {
            let message = "the payment names another node than this header";
            return Err(ApiError::bad_request("invalid_node", "X-OPG-Node", message));
        }
        let (body, passing) = upload.streaming();
        return once(state, &node, path, headers, body, passing, slot).await;
    }

    // As a whole, not only piece by piece: a body that trickles in holds a slot and memory.
    let held = tokio::time::timeout(idle, upload.hold(limits.hold_bytes, &state.memory)).await;
    let (outgoing, passing) = held.map_err(|_| {
        let message = "the body did not arrive in time";
        ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message).param("body")
    })??;
    let order = match pinned {
        Some(id) => vec![state.nodes.get(id).ok_or_else(unknown_node)?],
        None => choose(state, &passing)?,
    };
    match outgoing {
        Outgoing::Whole(bytes, _held) => race(state, &order, path, &headers, &bytes, passing, slot).await,
        Outgoing::Once(body) => {
            let node = order.first().ok_or_else(none_up)?;
            once(state, node, path, headers, body, passing, slot).await
        }
    }
}

fn none_up() -> ApiError {
    ApiError::unavailable("no_node", "no node can be reached now; try again")
}

fn choose(state: &State, passing: &Passing) -> Result<Vec<Arc<Node>>, ApiError> {
    let model = passing.model().ok_or_else(|| {
        ApiError::bad_request(
            "missing_parameter",
            "model",
            "the body must be a JSON object with a text \"model\"",
        )
    })?;
    let quality = &state.config.quality;
    let mut rng = rand::rng();
    let order = state.nodes.order(
        &model,
        &quality.weights(),
        quality.explore,
        state.clock.now(),
        &mut || rng.random(),
    );
    order.map_err(|why| match why {
        NoNode::NoneUp => none_up(),
        NoNode::Parked => {
            let shown: String = model.chars().take(120).collect();
            ApiError::unavailable(
                "no_node",
                format!("the nodes that serve {shown:?} have failed; try again in a few seconds"),
            )
        }
        NoNode::UnknownModel => {
            let shown: String = model.chars().take(120).collect();
            let message = format!("no node serves {shown:?}; see /v1/models");
            ApiError::not_found("model_not_found", message).param("model")
        }
    })
}

/// Sends a request to one node, once.
async fn once(
    state: &Arc<State>,
    node: &Arc<Node>,
    path: &str,
    headers: HeaderMap,
    body: Body,
    passing: Passing,
    slot: OwnedSemaphorePermit,
) -> Result<Response, ApiError> {
    let mut attempt = Attempt::begin(node, &state.metrics, state.clock);
    match send(state, node, Method::POST, path, headers, body).await {
        Ok(answer) => Ok(deliver(state, answer, attempt, passing, Some(slot))),
        Err(error) => {
            if let Some(fault) = passing.fault(state.config.limits.body_bytes) {
                return Err(fault);
            }
            attempt.failed(passing.model().as_deref());
            Err(no_answer(node, &error))
        }
    }
}

pub(crate) fn no_answer(node: &Node, error: &NoAnswer) -> ApiError {
    tracing::debug!(node = %node.id(), reason = error.reason, "a node gave no answer");
    let (code, sent) = if error.unsent {
        ("node_unreachable", "it cannot be reached, and nothing was sent")
    } else {
        (
            "node_failed",
            "the connection broke; whether it has worked is at /v1/receipts/{id}, if the quote named one",
        )
    };
    let message = format!("node {} gave no answer: {sent}", node.id());
    ApiError::new(StatusCode::BAD_GATEWAY, code, message)
}

/// Asks nodes for a quote: the next one after a failure, or beside the first when that takes long.
async fn race(
    state: &Arc<State>,
    order: &[Arc<Node>],
    path: &'static str,
    headers: &HeaderMap,
    body: &axum::body::Bytes,
    passing: Passing,
    slot: OwnedSemaphorePermit,
) -> Result<Response, ApiError> {
    let ask = |node: &Arc<Node>| {
        let attempt = Attempt::begin(node, &state.metrics, state.clock);
        let (state, headers, body) = (Arc::clone(state), headers.clone(), Body::from(body.clone()));
        async move {
            let node = Arc::clone(attempt.node());
            let answer = send(&state, &node, Method::POST, path, headers, body).await;
            (attempt, answer)
        }
    };
    let mut left = order.iter().take(TRIES);
    let first = left.next().ok_or_else(none_up)?;
    let mut running = FuturesUnordered::new();
    running.push(ask(first));
    let mut hedge = Box::pin(tokio::time::sleep(hedge_after(state, first)));
    let mut may_hedge = state.config.quality.hedge_ms != [0, 0];
    let mut failure: Option<Failure> = None;
    loop {
        let answered = tokio::select! {
            answered = running.next() => answered,
            () = &mut hedge, if may_hedge => {
                may_hedge = false;
                if let Some(node) = left.next() {
                    state.metrics.hedges.inc();
                    running.push(ask(node));
                }
                continue;
            }
        };
        match answered {
            Some((attempt, Ok(answer))) if !answer.status().is_server_error() => {
                // The others are dropped: a quote that nobody reads costs its node nothing.
                return Ok(deliver(state, answer, attempt, passing, Some(slot)));
            }
            Some((attempt, Ok(answer))) => failure = Some(Failure::Answer(attempt, answer)),
            Some((mut attempt, Err(error))) => {
                attempt.failed(passing.model().as_deref());
                failure = Some(Failure::None(no_answer(attempt.node(), &error)));
            }
            None => {
                return match failure {
                    Some(Failure::Answer(attempt, answer)) => Ok(deliver(state, answer, attempt, passing, Some(slot))),
                    Some(Failure::None(error)) => Err(error),
                    None => Err(none_up()),
                };
            }
        }
        if let Some(node) = left.next() {
            if let Some(Failure::Answer(mut attempt, _)) = failure.take() {
                attempt.failed(passing.model().as_deref());
            }
            state.metrics.failovers.inc();
            running.push(ask(node));
        }
    }
}

enum Failure {
    Answer(Attempt, http::Response<Incoming>),
    None(ApiError),
}

fn hedge_after(state: &State, node: &Node) -> Duration {
    let [least, most] = state.config.quality.hedge_ms.map(Duration::from_millis);
    node.quote_time().unwrap_or(most).clamp(least, most)
}

/// Sends a request and waits for the head of its answer.
pub(crate) async fn send(
    state: &State,
    node: &Node,
    method: Method,
    path: &str,
    headers: HeaderMap,
    body: Body,
) -> Result<http::Response<Incoming>, NoAnswer> {
    let unsent = |reason: String| NoAnswer { unsent: true, reason };
    let mut request = http::Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = node
        .url(path)
        .parse()
        .map_err(|_| unsent("the URL cannot be used".into()))?;
    *request.headers_mut() = headers;
    // Bodies are passed on as they are, also when the node could pack them for this router.
    request.headers_mut().remove(header::ACCEPT_ENCODING);
    let within = Duration::from_secs(state.config.limits.head_seconds);
    match tokio::time::timeout(within, state.outbound.send(request)).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(NoAnswer {
            unsent: error.is_connect(),
            reason: cause(&error),
        }),
        Err(_) => Err(NoAnswer {
            unsent: false,
            reason: format!("no answer within {} s", within.as_secs()),
        }),
    }
}
