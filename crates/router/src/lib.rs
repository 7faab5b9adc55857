//! Router: one public URL in front of all nodes of a network.
//!
//! It finds nodes in the chain's registry, looks at their health, sends each request to a node that serves its model, and
//! passes the answer on as it comes. It holds no keys, takes no payments and signs nothing: prices, payments and receipts
//! pass through untouched, and a client checks them as if it had asked the node itself.
//!
//! ```text
//! no payment   held (bounded) → model's name → nodes by measured quality → 402 with a price, or the next node
//! payment      the node that the payment names (D1) → streamed both ways, sent once
//! /ohttp/{id}  sealed bytes → that node's gateway, without anything that says who asks
//! ```
//!
//! | path | what |
//! |---|---|
//! | `POST /v1/chat/completions`, `POST /v1/infer` | forwarded |
//! | `GET /v1/models`, `/v1/models/{name}` | of all nodes together |
//! | `GET /v1/receipts/{id}`, `…/proof` | from the node that signed it, or its public state from the chain |
//! | `POST /ohttp/{node}`, `GET /ohttp/{node}/keys` | relay of Oblivious HTTP (RFC 9458) |
//! | `GET /health`, `/metrics` | state; Prometheus |
//!
//! # Invariants
//! - A paid request is sent to one node, once. Only requests without a payment are repeated or sent to a second node.
//! - An answer that breaks off at the node breaks off at the client: never a shortened answer that looks whole.
//! - Nodes do not learn who asks: no address, no cookie, no forwarding header. The relay passes sealed bytes and their
//!   type, nothing else. Addresses are hashed for rate limits, kept in memory only and never logged.
//! - Endpoints come from strangers: only public addresses are connected to, names are checked after they are resolved,
//!   redirects are not followed, a node must say the id that it is registered under.
//! - Everything is bounded: bodies, held bytes, heads, lists, requests, rates, memory of measurements.
//!
//! # What the relay hides
//! The node sees requests and the relay's address; the relay sees clients' addresses and sealed bytes. Who asks what stays
//! hidden **only while relay and node do not pool what they see**. See `docs/router.md`.
//!
//! # Example
//! ```
//! use opg_router::{config::{RouterConfig, StaticNode}, start};
//! use std::time::Duration;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // A node that asks for payment.
//! let id = format!("0x{}", "11".repeat(32));
//! let health = serde_json::json!({"status": "ok", "node_id": id});
//! let models = serde_json::json!({"object": "list", "data": [{"id": "demo/echo", "object": "model"}]});
//! let node = axum::Router::new()
//!     .route("/health", axum::routing::get(move || async move { axum::Json(health) }))
//!     .route("/v1/models", axum::routing::get(move || async move { axum::Json(models) }))
//!     .route("/v1/infer", axum::routing::post(|| async { (axum::http::StatusCode::PAYMENT_REQUIRED, "pay first") }));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let url = format!("http://{}", listener.local_addr()?);
//! tokio::spawn(async move { axum::serve(listener, node).await });
//!
//! let mut config = RouterConfig::new(([127, 0, 0, 1], 0).into(), 10_740, vec![]);
//! config.nodes = vec![StaticNode { id: id.parse()?, url: Some(url) }];
//! config.private_endpoints = true;
//! let router = start(config).await?;
//! while router.nodes_up() == 0 {
//!     tokio::time::sleep(Duration::from_millis(10)).await;
//! }
//! let body = serde_json::json!({"model": "demo/echo", "inputs": {}});
//! let answer = reqwest::Client::new().post(format!("{}/v1/infer", router.url())).json(&body).send().await?;
//! assert_eq!(answer.status(), 402);
//! assert_eq!(answer.headers()["x-opg-node"], id.as_str());
//! assert_eq!(answer.text().await?, "pay first");
//! router.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Status
//! Complete for one process. Not here yet: measurements signed by clients (it uses its own), prefix-cache affinity, audit
//! records in the score, a router's share of fees, HTTP/2 to nodes.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod address;
mod answer;
mod breaker;
pub mod config;
mod discovery;
mod error;
mod forward;
mod headers;
mod metrics;
mod model_name;
mod models;
mod nodes;
mod outbound;
pub mod parsers;
mod payment;
mod pick;
mod probe;
mod rate;
mod receipts;
mod relay;
mod routes;
mod score;
mod serve;
mod server;
mod state;
mod upload;

pub use server::{RouterError, RouterHandle, start};
