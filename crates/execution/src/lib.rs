//! # opg-execution
//!
//! The EVM side of a full node: [ethrex](https://github.com/lambdaclass/ethrex) 24 embedded as a
//! library on RocksDB. It builds and imports blocks at any executed parent, keeps state, receipts and
//! the mempool, and answers JSON-RPC in process. ethrex's types do not appear in this crate's API.
//!
//! ## Invariants
//! - **The head is final.** Only [`Execution::finalize`] moves it, and never back or sideways.
//! - **Import is idempotent** and serial; a failed import says whether the block or the node is at
//!   fault ([`ExecutionError::is_invalid_block`]).
//! - **System transactions come first** in a built block and all succeed, or the build fails naming
//!   the one that did not.
//! - **The database is a cache.** What a crash loses, consensus delivers again: [`Execution::open`]
//!   executes what is stored without state, and a missing tail is imported anew.
//! - **No sockets.** Neither JSON-RPC listeners nor devp2p are started.
//!
//! ## Example
//! ```no_run
//! # async fn example(genesis: alloy_genesis::Genesis) -> Result<(), Box<dyn std::error::Error>> {
//! use alloy_primitives::{Address, B256};
//! use opg_execution::{BuildRequest, Execution};
//!
//! let node = Execution::open(genesis, "data/evm".into()).await?;
//! let head = node.head();
//! let block = node
//!     .build(BuildRequest::new(head.hash, head.timestamp + 1, Address::ZERO, B256::ZERO))
//!     .await?;
//! node.finalize(block.hash).await?;
//! let number = node.call("eth_blockNumber", serde_json::json!([])).await?;
//! assert_eq!(number, serde_json::json!("0x1"));
//! # Ok(())
//! # }
//! ```
//!
//! ## Status
//! Used by the full node. Known limits: a proposal that never becomes final stays in the database
//! (nothing prunes it yet); state is readable for about 128 blocks below the head.

#![forbid(unsafe_code)]

mod block;
mod building;
mod convert;
mod engine;
mod error;
mod pool;
mod rpc;
mod state;

pub use block::{BlockId, EvmBlock, FinalizedBlock, Head, Log, TxReceipt};
pub use building::{BuildRequest, BuiltBlock};
pub use engine::Execution;
pub use error::{ExecutionError, RpcFailure};
pub use pool::{MAX_TRANSACTION_BYTES, PoolRejection, PooledTransaction, TransactionInfo, TransactionLocation};
pub use state::StateView;
