//! Nodes that behave as told, a chain that lists them, and routers in front.
#![allow(unreachable_pub, reason = "shared by several test programs")]
#![allow(dead_code, reason = "every test file uses a part of this")]

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, Request, State},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use http::{HeaderMap, StatusCode};
use opg_contracts::addresses;
use opg_payments::x402::{PAYMENT_REQUIRED, PAYMENT_RESPONSE, PAYMENT_SIGNATURE, encode_header};
use opg_primitives::ids::{NodeId, deposit_address};
use opg_router::{
    RouterHandle,
    config::{RouterConfig, StaticNode},
    start,
};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU16, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{net::TcpListener, task::JoinHandle};

pub const MODEL: &str = "demo/tiny";

/// A request as a node saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
    pub peer: SocketAddr,
}

/// What a node does.
#[derive(Debug)]
pub struct Behaviour {
    pub id: NodeId,
    pub seen: Mutex<Vec<Seen>>,
    /// Milliseconds before an answer to an unpaid request.
    pub delay: AtomicU64,
    /// Status instead of an answer; 0 for none.
    pub fail: AtomicU16,
    /// Requests under way.
    pub running: AtomicUsize,
    pub receipt: Mutex<String>,
    pub chunks: Mutex<Vec<Chunk>>,
    pub models: Mutex<Vec<Value>>,
}

/// A piece of a streamed answer.
#[derive(Debug, Clone)]
pub enum Chunk {
    Bytes(&'static str),
    Wait(u64),
    Break,
}

/// A node in this process.
pub struct FakeNode {
    pub it: Arc<Behaviour>,
    pub url: String,
    task: JoinHandle<()>,
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub fn id(n: u8) -> NodeId {
    NodeId([n; 32].into())
}

impl FakeNode {
    pub async fn start(n: u8) -> Self {
        let it = Arc::new(Behaviour {
            id: id(n),
            seen: Mutex::default(),
            delay: AtomicU64::new(0),
            fail: AtomicU16::new(0),
            running: AtomicUsize::new(0),
            receipt: Mutex::new(format!("0x{:02x}{}", n, "ab".repeat(31))),
            chunks: Mutex::new(vec![
                Chunk::Bytes("data: {\"n\":1}\n\n"),
                Chunk::Bytes("data: [DONE]\n\n"),
            ]),
            models: Mutex::new(vec![entry(MODEL, "1000")]),
        });
        let app = Router::new()
            .route(
                "/health",
                get(|State(it): State<Arc<Behaviour>>| async move { Json(json!({"status": "ok", "node_id": it.id})) }),
            )
            .route(
                "/v1/models",
                get(|State(it): State<Arc<Behaviour>>| async move {
                    Json(json!({"object": "list", "data": it.models.lock().unwrap().clone()}))
                }),
            )
            .route("/v1/infer", post(infer))
            .route("/v1/chat/completions", post(infer))
            .route("/v1/receipts/{id}", get(receipt))
            .with_state(Arc::clone(&it));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let service = app.into_make_service_with_connect_info::<SocketAddr>();
        let task = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { it, url, task }
    }

    pub fn seen(&self) -> Vec<Seen> {
        self.it.seen.lock().unwrap().clone()
    }

    pub fn deposit(&self) -> String {
        deposit_address(addresses::FEE_VAULT, addresses::DEPOSIT_IMPLEMENTATION, self.it.id).to_string()
    }

    /// A payment header that names this node.
    pub fn payment(&self) -> String {
        encode_header(
            &json!({"x402Version": 2, "accepted": {"scheme": "exact", "network": "eip155:10740", "payTo": self.deposit()},
            "payload": {"signature": "0x00"}}),
        )
    }
}

pub fn entry(name: &str, per_call: &str) -> Value {
    json!({"id": name, "object": "model", "root": format!("0x{}", "5a".repeat(32)),
        "price": {"per_call": per_call, "per_mtok_in": "0", "per_mtok_out": "0"}})
}

struct Running(Arc<Behaviour>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn infer(
    State(it): State<Arc<Behaviour>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    it.running.fetch_add(1, Ordering::SeqCst);
    let _running = Running(Arc::clone(&it));
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, 64 << 20).await else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    let paid = parts.headers.contains_key(PAYMENT_SIGNATURE);
    it.seen.lock().unwrap().push(Seen {
        path: parts.uri.path().to_owned(),
        headers: parts.headers,
        body,
        peer,
    });
    let fail = it.fail.load(Ordering::SeqCst);
    if fail != 0 {
        let error = json!({"error": {"message": "told to fail", "code": "told"}});
        return (StatusCode::from_u16(fail).unwrap(), Json(error)).into_response();
    }
    if !paid {
        tokio::time::sleep(Duration::from_millis(it.delay.load(Ordering::SeqCst))).await;
        let offer = encode_header(&json!({"x402Version": 2, "accepts": [{"payTo": it.id}]}));
        let error = json!({"error": {"message": "pay", "code": "payment_required"}});
        return (StatusCode::PAYMENT_REQUIRED, [(PAYMENT_REQUIRED, offer)], Json(error)).into_response();
    }
    let chunks = it.chunks.lock().unwrap().clone();
    let receipt = it.receipt.lock().unwrap().clone();
    let stream = futures::stream::unfold(chunks.into_iter(), |mut left| async {
        loop {
            match left.next()? {
                Chunk::Wait(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                Chunk::Bytes(text) => return Some((Ok(Bytes::from_static(text.as_bytes())), left)),
                Chunk::Break => return Some((Err(std::io::Error::other("told to break")), left)),
            }
        }
    });
    let head = [
        ("content-type", "text/event-stream"),
        ("x-opg-receipt-id", &receipt),
        ("x-opg-receipt-secret", "s3cret"),
        (PAYMENT_RESPONSE, "e30="),
        ("x-opg-something-new", "kept"),
        ("set-cookie", "track=1"),
        ("access-control-allow-origin", "https://evil.example"),
    ];
    (head, Body::from_stream(stream)).into_response()
}

async fn receipt(
    State(it): State<Arc<Behaviour>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (parts, _) = request.into_parts();
    let path = parts.uri.path().to_owned();
    it.seen.lock().unwrap().push(Seen {
        path,
        headers: parts.headers,
        body: Bytes::new(),
        peer,
    });
    Json(json!({"node": it.id, "state": "executed"})).into_response()
}

/// A configuration over nodes in this process.
pub fn config(nodes: &[&FakeNode]) -> RouterConfig {
    let mut config = RouterConfig::new(([127, 0, 0, 1], 0).into(), 10_740, vec![]);
    config.private_endpoints = true;
    config.limits.shutdown_seconds = 3;
    config.nodes = nodes
        .iter()
        .map(|node| StaticNode {
            id: node.it.id,
            url: Some(node.url.clone()),
        })
        .collect();
    config
}

pub async fn router(config: RouterConfig) -> RouterHandle {
    let expected = config.nodes.len();
    let router = start(config).await.unwrap();
    up(&router, expected).await;
    router
}

pub async fn up(router: &RouterHandle, expected: usize) {
    for _ in 0..500 {
        if router.nodes_up() == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{} nodes are up, expected {expected}", router.nodes_up());
}

pub fn ask(model: &str) -> Value {
    json!({"messages": [{"role": "user", "content": "\"model\": \"trap\""}], "model": model})
}
