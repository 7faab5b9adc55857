//! Full node (validator): consensus, execution, receipt pool, JSON-RPC.
//!
//! One process part per module: [`node`] wires them, [`verify`] holds the rules for receipts as pure functions, [`pool`] runs
//! them off the consensus threads, the application builds and judges blocks, [`index`] remembers where each receipt
//! stands, [`rpc`] is the only door.
//!
//! # Invariants
//! - A verdict on a receipt is a pure function of the receipt, the parent block's state and the block's timestamp (D13).
//! - This node proposes only receipts that it verified, and votes only after it recomputed batch root and system transactions
//!   and executed the block (ledger.md §10).
//! - A finalized block is acknowledged to consensus only after execution and index have it; both can be rebuilt from the
//!   consensus archive.
//! - Receipt cores are never served (D11): state and proofs are.
//! - Whatever a client or peer sends is bounded before it costs anything, and answered with an error that names the field.
//!
//! # Example
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use opg_full_node::{FullNode, FullNodeConfig};
//!
//! let config = FullNodeConfig::load("validator-0/node.toml".as_ref())?;
//! let node = FullNode::start(config).await?;
//! println!("JSON-RPC on {}", node.rpc_url());
//! tokio::select! {
//!     ended = node.stopped() => ended?,
//!     _ = tokio::signal::ctrl_c() => node.shutdown().await?,
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Status: modes `none`, `tee` and `zk`, epochs, verdicts on faults; mode `replay` is refused until its verifier exists (receipt.md §6).

#![forbid(unsafe_code)]

// the integration tests' network, for tests that look inside
#[cfg(test)]
extern crate self as opg_full_node;
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;

mod application;
pub mod config;
mod epochs;
mod evidence;
mod gossip;
pub mod index;
mod invalid_votes;
pub mod metrics;
pub mod node;
mod oracle;
pub mod pool;
pub mod registration;
pub mod rpc;
mod shared;
mod slashing;
mod system;
pub mod verify;

pub use application::BlockError;
pub use config::{ConfigError, FullNodeConfig, Keys, Limits, PeerConfig};
pub use node::{FullNode, FullNodeHandle, NodeError};
pub use shared::Status;
