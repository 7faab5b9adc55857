//! Errors of the execution layer.

use alloy_primitives::B256;
use ethrex_blockchain::error::{ChainError, InvalidForkChoice};
use ethrex_storage::error::StoreError;
use std::path::PathBuf;

/// Anything that can go wrong in [`crate::Execution`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecutionError {
    /// The genesis cannot be translated for the execution client.
    #[error("genesis is not usable: {0}")]
    Genesis(String),
    /// The folder holds the database of another chain.
    #[error("the database in {dir} belongs to another genesis than {expected}")]
    WrongGenesis {
        /// Database folder.
        dir: PathBuf,
        /// Hash of block 0 of the genesis given.
        expected: B256,
    },
    /// No block with this hash is stored.
    #[error("unknown block {0}")]
    UnknownBlock(B256),
    /// The block is stored, its state is not (too old, or not replayed).
    #[error("no state for block {0}")]
    MissingState(B256),
    /// Bytes are not the canonical RLP of a block.
    #[error("block does not decode: {0}")]
    Decode(String),
    /// A block that must not be built: the timestamp has to grow by whole seconds.
    #[error("timestamp {got} is not after the parent's {parent}")]
    Timestamp {
        /// Timestamp of the parent, seconds.
        parent: u64,
        /// Timestamp asked for, seconds.
        got: u64,
    },
    /// A system transaction cannot be part of a valid block.
    #[error("system transaction {index}: {reason}")]
    SystemTransaction {
        /// Position in the block.
        index: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The block breaks a rule of the EVM chain.
    #[error("invalid block: {0}")]
    InvalidBlock(String),
    /// A block was to be finalized beside one that is final already.
    #[error("block {got} at height {height} conflicts with finalized {finalized}")]
    Conflict {
        /// Height of both blocks.
        height: u64,
        /// The block that is final.
        finalized: B256,
        /// The block given.
        got: B256,
    },
    /// The fork choice was refused by the execution client.
    #[error("fork choice refused: {0}")]
    ForkChoice(String),
    /// The execution client failed for a reason that says nothing about the block.
    #[error("execution client: {0}")]
    Client(String),
    /// The database failed.
    #[error("database: {0}")]
    Store(#[source] StoreError),
    /// A blocking task panicked or was cancelled by the end of its runtime.
    #[error("task did not finish: {0}")]
    Task(String),
}

impl ExecutionError {
    /// True if the block itself is at fault; false if the node could not judge it.
    pub fn is_invalid_block(&self) -> bool {
        matches!(self, Self::InvalidBlock(_) | Self::Decode(_))
    }
}

impl From<StoreError> for ExecutionError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<ChainError> for ExecutionError {
    fn from(error: ChainError) -> Self {
        match error {
            ChainError::InvalidBlock(e) => Self::InvalidBlock(e.to_string()),
            ChainError::InvalidTransaction(e) => Self::InvalidBlock(e),
            ChainError::StoreError(e) => Self::Store(e),
            other => Self::Client(other.to_string()),
        }
    }
}

impl From<ethrex_vm::EvmError> for ExecutionError {
    fn from(error: ethrex_vm::EvmError) -> Self {
        ChainError::from(error).into()
    }
}

impl From<InvalidForkChoice> for ExecutionError {
    fn from(error: InvalidForkChoice) -> Self {
        match error {
            InvalidForkChoice::StoreError(e) => Self::Store(e),
            other => Self::ForkChoice(other.to_string()),
        }
    }
}

impl From<tokio::task::JoinError> for ExecutionError {
    fn from(error: tokio::task::JoinError) -> Self {
        Self::Task(error.to_string())
    }
}

/// A JSON-RPC error object.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct RpcFailure {
    /// JSON-RPC error code.
    pub code: i32,
    /// Text for people.
    pub message: String,
    /// Extra data, such as revert bytes in hex.
    pub data: Option<serde_json::Value>,
}

impl RpcFailure {
    /// Error without data.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }

    /// The error object of a JSON-RPC response.
    pub fn to_json(&self) -> serde_json::Value {
        let mut object = serde_json::json!({ "code": self.code, "message": self.message });
        if let (Some(data), Some(fields)) = (&self.data, object.as_object_mut()) {
            fields.insert("data".into(), data.clone());
        }
        object
    }
}
