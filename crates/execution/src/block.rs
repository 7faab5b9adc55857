//! EVM blocks and receipts as the rest of the node sees them.

use crate::{
    convert::{address, b256, u256},
    error::ExecutionError,
};
use alloy_primitives::{Address, B256, Bytes, U256};
use ethrex_common::types::{Block, Receipt};
use ethrex_crypto::NativeCrypto;
use ethrex_rlp::{decode::RLPDecode, encode::RLPEncode};
use std::sync::Arc;

/// The newest finalized block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Height; 0 is the genesis block.
    pub number: u64,
    /// Block hash.
    pub hash: B256,
    /// Seconds since 1970.
    pub timestamp: u64,
}

/// Names a block: by hash any stored block, by number one of the finalized chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockId {
    /// Height on the finalized chain.
    Number(u64),
    /// Hash of any imported block.
    Hash(B256),
}

impl From<u64> for BlockId {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<B256> for BlockId {
    fn from(hash: B256) -> Self {
        Self::Hash(hash)
    }
}

/// A decoded EVM block. Cheap to clone. Decoding proves nothing beyond the format: validity is
/// established by [`crate::Execution::import`].
#[derive(Debug, Clone)]
pub struct EvmBlock {
    pub(crate) inner: Arc<Block>,
}

impl EvmBlock {
    /// Strict decoding: the bytes must be exactly the encoding this crate would produce, so that one
    /// block has one byte string.
    ///
    /// # Errors
    /// [`ExecutionError::Decode`].
    pub fn decode(rlp: &[u8]) -> Result<Self, ExecutionError> {
        let block = Block::decode(rlp).map_err(|e| ExecutionError::Decode(e.to_string()))?;
        if block.encode_to_vec() != rlp {
            return Err(ExecutionError::Decode("encoding is not canonical".into()));
        }
        Ok(Self::from(block))
    }

    /// Keccak-256 of the header.
    pub fn hash(&self) -> B256 {
        b256(self.inner.hash())
    }

    /// Hash of the block below.
    pub fn parent_hash(&self) -> B256 {
        b256(self.inner.header.parent_hash)
    }

    /// Height.
    pub fn number(&self) -> u64 {
        self.inner.header.number
    }

    /// Seconds since 1970.
    pub fn timestamp(&self) -> u64 {
        self.inner.header.timestamp
    }

    /// Fee recipient: the system address of the leader.
    pub fn coinbase(&self) -> Address {
        address(self.inner.header.coinbase)
    }

    /// State root after the block.
    pub fn state_root(&self) -> B256 {
        b256(self.inner.header.state_root)
    }

    /// `parent_beacon_block_root`: the batch root.
    pub fn beacon_root(&self) -> Option<B256> {
        self.inner.header.parent_beacon_block_root.map(b256)
    }

    /// `prev_randao` (mix hash); [`crate::Execution::build`] sets it to the parent hash.
    pub fn prev_randao(&self) -> B256 {
        b256(self.inner.header.prev_randao)
    }

    /// Extra data; [`crate::Execution::build`] leaves it empty.
    pub fn extra_data(&self) -> &[u8] {
        &self.inner.header.extra_data
    }

    /// Base fee in wei per gas.
    pub fn base_fee(&self) -> u64 {
        self.inner.header.base_fee_per_gas.unwrap_or_default()
    }

    /// Gas limit of the block.
    pub fn gas_limit(&self) -> u64 {
        self.inner.header.gas_limit
    }

    /// Gas used by all transactions.
    pub fn gas_used(&self) -> u64 {
        self.inner.header.gas_used
    }

    /// Number of transactions, system transactions included.
    pub fn transaction_count(&self) -> usize {
        self.inner.body.transactions.len()
    }

    /// EIP-2718 bytes of transaction `index`.
    pub fn raw_transaction(&self, index: usize) -> Option<Bytes> {
        let transaction = self.inner.body.transactions.get(index)?;
        Some(transaction.encode_canonical_to_vec().into())
    }

    /// Hash of transaction `index`.
    pub fn transaction_hash(&self, index: usize) -> Option<B256> {
        let transaction = self.inner.body.transactions.get(index)?;
        Some(b256(transaction.hash(&NativeCrypto)))
    }

    /// Signer of transaction `index`. The first call recovers the key (~0.1 ms), later ones are
    /// answered from a cache, also after [`crate::Execution::import`].
    ///
    /// # Errors
    /// [`ExecutionError::InvalidBlock`] if there is no such transaction or its signature is bad.
    pub fn sender(&self, index: usize) -> Result<Address, ExecutionError> {
        let transaction = self.inner.body.transactions.get(index).ok_or_else(|| {
            ExecutionError::InvalidBlock(format!(
                "no transaction {index}: the block has {}",
                self.transaction_count()
            ))
        })?;
        transaction
            .sender(&NativeCrypto)
            .map(address)
            .map_err(|e| ExecutionError::InvalidBlock(format!("transaction {index}: {e}")))
    }

    /// Value sent by transaction `index`, in wei.
    pub fn value(&self, index: usize) -> Option<U256> {
        Some(u256(self.inner.body.transactions.get(index)?.value()))
    }

    /// Encoding of the whole block.
    pub fn rlp(&self) -> Bytes {
        self.inner.encode_to_vec().into()
    }

    /// Encoding of the header; its Keccak-256 is the block hash.
    pub fn header_rlp(&self) -> Bytes {
        self.inner.header.encode_to_vec().into()
    }
}

impl From<Block> for EvmBlock {
    fn from(block: Block) -> Self {
        Self { inner: Arc::new(block) }
    }
}

/// An event written by a contract.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// The contract.
    pub address: Address,
    /// Up to four indexed words.
    pub topics: Vec<B256>,
    /// The other data.
    pub data: Bytes,
}

/// Result of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxReceipt {
    /// Hash of the transaction.
    pub transaction_hash: B256,
    /// Position in the block.
    pub index: u64,
    /// Status 1.
    pub success: bool,
    /// Gas used by this transaction and those before it.
    pub cumulative_gas_used: u64,
    /// Gas used by this transaction.
    pub gas_used: u64,
    /// Events in order.
    pub logs: Vec<Log>,
}

/// Joins the receipts of a block with its transactions.
pub(crate) fn receipts_of(block: &Block, receipts: Vec<Receipt>) -> Result<Vec<TxReceipt>, ExecutionError> {
    let expected = block.body.transactions.len();
    if receipts.len() != expected {
        return Err(ExecutionError::Client(format!(
            "block {:#x} has {expected} transactions, the database {} receipts",
            block.hash(),
            receipts.len()
        )));
    }
    let mut before = 0;
    let joined = receipts.into_iter().zip(&block.body.transactions).enumerate();
    Ok(joined
        .map(|(index, (receipt, transaction))| {
            let gas_used = receipt.cumulative_gas_used.saturating_sub(before);
            before = receipt.cumulative_gas_used;
            TxReceipt {
                transaction_hash: b256(transaction.hash(&NativeCrypto)),
                index: index as u64,
                success: receipt.succeeded,
                cumulative_gas_used: receipt.cumulative_gas_used,
                gas_used,
                logs: receipt.logs.into_iter().map(log_of).collect(),
            }
        })
        .collect())
}

fn log_of(log: ethrex_common::types::Log) -> Log {
    Log {
        address: address(log.address),
        topics: log.topics.into_iter().map(b256).collect(),
        data: log.data.into(),
    }
}

/// What subscribers get for each block that became final, in height order.
#[derive(Debug, Clone)]
pub struct FinalizedBlock {
    /// The block.
    pub block: EvmBlock,
    /// The header as `eth_subscribe("newHeads")` shows it, hash included.
    pub header: serde_json::Value,
    /// One receipt per transaction.
    pub receipts: Vec<TxReceipt>,
}
