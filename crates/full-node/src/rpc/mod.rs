//! JSON-RPC front: HTTP POST, GET and WebSocket on one port.
//!
//! ethrex answers what it has (in process, no port of its own); this front bounds every request, fills the gaps listed in
//! chain.md §10.4, and serves `og_*`. A bad request is always a JSON-RPC error with a code, a sentence and, where one field is
//! to blame, `data {field, expected, got}`; never a 500.

mod dispatch;
mod eth;
mod faults;
mod filters;
mod limit;
mod logs;
pub mod message;
mod og;
mod proofs;
mod socket;

use crate::shared::Shared;
use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, FromRequestParts as _, Request, State, WebSocketUpgrade},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use filters::Filters;
use futures::StreamExt as _;
use limit::RateLimit;
use message::{Batch, Call, LIMIT, RpcError, SERVER_ERROR, answer};
use serde_json::{Value, json};
use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, sync::Semaphore};
use tokio_util::sync::CancellationToken;
use tower_http::cors::CorsLayer;

/// A body of up to this many times the limit is read (and thrown away) before it is refused.
const DRAINED: usize = 4;

/// The front of one node.
#[derive(Debug)]
pub(crate) struct Front {
    pub(crate) node: Arc<Shared>,
    limit: RateLimit,
    filters: Mutex<Filters>,
    sockets: Arc<Semaphore>,
    /// Calls that execute contracts, at once: the rest of the node needs the cores too.
    executing: Semaphore,
    stop: CancellationToken,
}

impl Front {
    pub(crate) fn new(node: Arc<Shared>, stop: CancellationToken) -> Arc<Self> {
        let l = &node.limits;
        Arc::new(Self {
            limit: RateLimit::new(l.rpc_per_second, l.rpc_burst, l.rpc_loopback_factor),
            filters: Mutex::new(Filters::new(l.filters, Duration::from_secs(l.filter_expiry_secs))),
            sockets: Arc::new(Semaphore::new(l.ws_connections)),
            executing: Semaphore::new(2 * std::thread::available_parallelism().map_or(1, |n| n.get())),
            stop,
            node,
        })
    }

    fn filters(&self) -> MutexGuard<'_, Filters> {
        self.filters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Serves until the token is cancelled.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) -> std::io::Result<()> {
        let stop = self.stop.clone();
        let mut pending = self.node.pending.subscribe();
        let watched = self.clone();
        let watcher = tokio::spawn(async move {
            loop {
                match pending.recv().await {
                    Ok(hash) => watched.filters().pending(hash),
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => break,
                }
            }
        });
        let app = Router::new()
            .route("/", get(info).post(post))
            .layer(CorsLayer::permissive())
            .with_state(self)
            .into_make_service_with_connect_info::<SocketAddr>();
        let served = axum::serve(listener, app)
            .with_graceful_shutdown(async move { stop.cancelled().await })
            .await;
        watcher.abort();
        served
    }

    /// Takes tokens of the client's bucket.
    fn admit(&self, address: IpAddr, calls: usize) -> Result<(), (Duration, RpcError)> {
        let taken = self.limit.take(address, calls, Instant::now());
        taken.map_err(|wait| {
            self.node.metrics.rpc_limited.inc();
            (
                wait,
                RpcError::new(
                    LIMIT,
                    format!(
                        "too many requests from {address}: retry in {} ms",
                        wait.as_millis().max(1)
                    ),
                ),
            )
        })
    }

    /// Tokens that a body costs: about one for each call. Every call has a brace, so braces bound the calls of a batch.
    fn cost(&self, body: &[u8]) -> usize {
        match body.trim_ascii_start().first() {
            Some(b'[') => body
                .iter()
                .filter(|b| **b == b'{')
                .count()
                .clamp(1, self.node.limits.rpc_batch),
            _ => 1,
        }
    }

    /// Answers one body. `None`: only notifications, nothing to answer.
    async fn handle(self: &Arc<Self>, body: &[u8]) -> Option<Value> {
        let limits = &self.node.limits;
        match message::parse(body, limits.rpc_batch) {
            Err(answer) => Some(answer),
            Ok(batch) => {
                let calls: &[Result<Call, Value>] = match &batch {
                    Batch::Single(call) => std::slice::from_ref(call),
                    Batch::Many(calls) => calls,
                };
                // the larger bound is for receipts only
                let og = calls.iter().flatten().any(|c| c.method.starts_with("og_"));
                if body.len() > limits.rpc_body && !og {
                    return Some(too_large(limits.rpc_body, body.len()));
                }
                match batch {
                    Batch::Single(Ok(call)) => self.one(call).await,
                    Batch::Single(Err(answer)) => Some(answer),
                    Batch::Many(calls) => {
                        // in order: a client may rely on a transaction before a query of the same batch
                        let mut answers = Vec::with_capacity(calls.len());
                        for call in calls {
                            match call {
                                Ok(call) => answers.extend(self.one(call).await),
                                Err(answer) => answers.push(answer),
                            }
                        }
                        (!answers.is_empty()).then_some(Value::Array(answers))
                    }
                }
            }
        }
    }

    async fn one(self: &Arc<Self>, call: Call) -> Option<Value> {
        let id = call.id.clone();
        let result = self.call(&call.method, call.params).await;
        id.map(|id| answer(id, result))
    }

    /// Runs one call with the time limit and counts it.
    async fn call(self: &Arc<Self>, method: &str, params: Vec<Value>) -> Result<Value, RpcError> {
        let (began, seconds) = (Instant::now(), self.node.limits.rpc_timeout_secs);
        let result = tokio::time::timeout(Duration::from_secs(seconds), self.dispatch(method, params))
            .await
            .unwrap_or_else(|_| {
                Err(RpcError::new(
                    SERVER_ERROR,
                    format!("no answer within {seconds} s: ask for less"),
                ))
            });
        let metrics = &self.node.metrics;
        metrics.rpc_seconds.observe(began.elapsed().as_secs_f64());
        // callers must not be able to make up labels
        let unknown = method.starts_with("trace_") || matches!(&result, Err(e) if e.code == message::METHOD_NOT_FOUND);
        let label = crate::metrics::MethodLabel {
            method: if unknown { "unknown".into() } else { method.into() },
        };
        if result.is_err() {
            metrics.rpc_errors.get_or_create(&label).inc();
        }
        metrics.rpc_calls.get_or_create(&label).inc();
        result
    }
}

fn too_large(expected: usize, got: usize) -> Value {
    let error = RpcError::with_field(
        LIMIT,
        "request too large",
        "body",
        format!("at most {expected} bytes"),
        format!("{got} bytes"),
    );
    answer(Value::Null, Err(error))
}

fn json_response(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// GET: a WebSocket upgrade, or a few words about the node.
async fn info(
    State(front): State<Arc<Front>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let upgrade = request
        .headers()
        .get(header::UPGRADE)
        .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if upgrade {
        let (mut parts, _) = request.into_parts();
        return match WebSocketUpgrade::from_request_parts(&mut parts, &front).await {
            Ok(socket) => front.upgrade(socket, peer.ip()),
            Err(refused) => refused.into_response(),
        };
    }
    let node = &front.node;
    let head = node.execution.head();
    json_response(
        StatusCode::OK,
        &json!({
            "service": "opg full node",
            "version": env!("CARGO_PKG_VERSION"),
            "chainId": node.rules.chain_id,
            "genesis": format!("{:#x}", node.genesis_digest),
            "height": head.number,
            "rpc": "POST JSON-RPC 2.0 here, or connect by WebSocket",
        }),
    )
}

async fn post(
    State(front): State<Arc<Front>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let max = front.node.limits.rpc_og_body;
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<usize>().ok());
    if let Some(got) = declared.filter(|got| *got > max.saturating_mul(DRAINED)) {
        return json_response(StatusCode::PAYLOAD_TOO_LARGE, &too_large(max, got));
    }
    if let Err((wait, error)) = front.admit(peer.ip(), 1) {
        return limited(wait, error);
    }
    let reading = tokio::time::timeout(Duration::from_secs(front.node.limits.rpc_timeout_secs), read(body, max));
    let body = match reading.await {
        Ok(Ok(body)) => body,
        Ok(Err(got)) => return json_response(StatusCode::PAYLOAD_TOO_LARGE, &too_large(max, got)),
        Err(_) => {
            let error = RpcError::new(SERVER_ERROR, "the body did not arrive in time");
            return json_response(StatusCode::REQUEST_TIMEOUT, &answer(Value::Null, Err(error)));
        }
    };
    // the first call is paid
    if let Err((wait, error)) = front.admit(peer.ip(), front.cost(&body) - 1) {
        return limited(wait, error);
    }
    match front.handle(&body).await {
        Some(answer) => json_response(StatusCode::OK, &answer),
        None => StatusCode::NO_CONTENT.into_response(),
    }
}

/// Reads a body of at most `max` bytes. A longer one is read on for a while and thrown away, because most clients look at an
/// answer only after they have sent everything.
async fn read(body: Body, max: usize) -> Result<Vec<u8>, usize> {
    let (mut stream, mut kept, mut got) = (body.into_data_stream(), Vec::new(), 0usize);
    while let Some(Ok(chunk)) = stream.next().await {
        got = got.saturating_add(chunk.len());
        if got <= max {
            kept.extend_from_slice(&chunk);
        } else if got > max.saturating_mul(DRAINED) {
            break;
        }
    }
    if got > max { Err(got) } else { Ok(kept) }
}

fn limited(wait: Duration, error: RpcError) -> Response {
    let mut response = json_response(StatusCode::TOO_MANY_REQUESTS, &answer(Value::Null, Err(error)));
    response
        .headers_mut()
        .insert(header::RETRY_AFTER, (wait.as_secs() + 1).into());
    response
}
