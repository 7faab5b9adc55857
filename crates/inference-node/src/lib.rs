//! The inference node: answers paid requests, signs receipts, sends them to full nodes, settles.
//!
//! A request is checked whole before it is priced ([`config::Limits`]), priced before it is paid, and its payment is reserved before work
//! starts. No RPC and no transaction stands in that path, except for a payer seen for the first time and for payments outside the
//! exposure caps, which settle first (D3).
//!
//! ```text
//! body → check (400/404/413/422) → quote (402) → payment: verify, reserve → run → receipt → answer
//!                                                     journal ─────────────────┘
//! background:  outbox → og_submitReceipt → final          served → FeeVault.settle → creditSettled
//!                                                         channels → claim → creditChannels
//! ```
//!
//! Invariants:
//! - One payment is worked on once, over threads and restarts; a payment that was refused, or whose work failed, costs nothing.
//! - A receipt leaves the node only when it is on disk together with the end of its reservation; a sequence number is never used
//!   for two receipts that anybody has seen.
//! - Every reservation ends: with an answer, with a failure, or after a crash with a receipt over nothing. An unsettled payment of
//!   failed work is never settled; a settled one is credited back to its payer by that receipt.
//! - A channel serves what its safe balance covers; a voucher and its charge are on disk before the answer leaves; a withdrawal is
//!   answered by a claim within two blocks.
//! - A settlement whose outcome is unknown keeps its transaction hash and is reconciled with the token's settlement slot.
//!
//! ```no_run
//! use opg_inference_node::{InferenceNode, config::InferenceNodeConfig};
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let config = InferenceNodeConfig::load("inference/config.toml".as_ref())?;
//! let node = InferenceNode::start(config).await?;
//! println!("serving at {}", node.url());
//! tokio::signal::ctrl_c().await?;
//! node.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Prices in USD become OPG when a quote is made, by the chain's oracle; while it has no usable price such models are not sold.
//!
//! Models of kind `upstream` are a provider's: the module `closed` asks it, and the receipt says what came from where.
//!
//! ONNX models run in processes of their own that the kernel locks in ([`config::EngineSettings`]); a model that ends, hangs or fills
//! its process costs the call that did it, which is not charged, and no other.
//!
//! Models are files of this machine, or named by their root and fetched from hubs and other nodes (`model_store`); every byte is
//! hashed before it is loaded, and what was fetched is given to other nodes at `/v1/model-files`.
//!
//! Status: mode `none` over ONNX and Llama-architecture GGUF models, mode `zk` for ONNX models with a registered integer program, mode
//! `tee` with an attester; paid by x402 `batch-settlement`, `upto` and `exact`; a facilitator for others (`/facilitator`); sealed requests through the node's Oblivious HTTP gateway. Mode `replay` is refused by name.
#![forbid(unsafe_code)]

mod attest;
mod body;
mod bond;
mod catalogue;
mod chain;
mod channels;
mod chat;
mod claims;
mod closed;
pub mod config;
mod credit;
mod engine;
mod error;
mod facilitator;
mod funds;
mod gateway;
mod infer;
mod job;
mod metrics;
mod node;
mod offer;
mod payment;
mod permit;
mod prover;
mod relay;
mod rpc;
mod server;
mod settle;
mod share;
mod store;
mod submit;
mod supply;
mod tiers;
mod time;
mod usd;
mod work;

pub use catalogue::CatalogueError;
pub use node::{InferenceNode, NodeError};
pub use rpc::RpcError;
pub use supply::SupplyError;
