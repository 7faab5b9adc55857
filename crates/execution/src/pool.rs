//! The mempool: admission with typed rejections, listing, clean-up.

use crate::{
    Execution,
    convert::{address, b256, h256},
    error::ExecutionError,
};
use alloy_primitives::{Address, B256, Bytes, U256};
use ethrex_blockchain::error::MempoolError;
use ethrex_common::types::Transaction;
use ethrex_crypto::NativeCrypto;

/// Largest transaction accepted, EIP-2718 bytes; what Ethereum's mempools use.
pub const MAX_TRANSACTION_BYTES: usize = 128 * 1024;

/// Why a transaction does not enter the mempool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PoolRejection {
    /// Not the canonical EIP-2718 encoding of a transaction.
    #[error("transaction does not decode: {0}")]
    Decode(String),
    /// Longer than [`MAX_TRANSACTION_BYTES`].
    #[error("transaction of {got} bytes is larger than {limit}")]
    TooLarge {
        /// Bytes allowed.
        limit: usize,
        /// Bytes given.
        got: usize,
    },
    /// A kind this chain does not take: blob transactions and those of rollups.
    #[error("transaction type {0:#04x} is not supported")]
    UnsupportedType(u8),
    /// The signature does not recover to a sender.
    #[error("invalid signature: {0}")]
    Signature(String),
    /// In the pool already.
    #[error("already known")]
    AlreadyKnown(B256),
    /// A transaction with this nonce is in a block.
    #[error("nonce too low")]
    NonceTooLow,
    /// Too many transactions of this sender wait for a lower nonce.
    #[error("too many queued transactions of this sender: {0}")]
    TooManyQueued(String),
    /// Same sender and nonce as a pooled transaction, without a sufficiently higher fee.
    #[error("replacement transaction underpriced")]
    Underpriced,
    /// The sender cannot pay this transaction, alone or with its other pooled ones.
    #[error("insufficient funds for gas * price + value: {0}")]
    InsufficientFunds(String),
    /// Signed for another chain.
    #[error("invalid chain id: expected {expected}")]
    WrongChain {
        /// Id of this chain.
        expected: u64,
    },
    /// Gas limit or fees make no valid transaction.
    #[error("invalid gas: {0}")]
    Gas(String),
    /// Any other rule.
    #[error("{0}")]
    Invalid(String),
    /// The node failed; nothing is said about the transaction.
    #[error("internal error: {0}")]
    Internal(String),
}

impl PoolRejection {
    /// JSON-RPC error code, as geth answers.
    pub fn code(&self) -> i32 {
        match self {
            Self::Decode(_) | Self::TooLarge { .. } | Self::UnsupportedType(_) => -32602,
            Self::Internal(_) => -32603,
            _ => -32000,
        }
    }

    fn from_client(error: MempoolError, chain_id: u64) -> Self {
        use MempoolError as E;
        match error {
            E::TxSizeExceeded { actual, limit } => Self::TooLarge { limit, got: actual },
            E::NonceTooLow | E::InvalidNonce => Self::NonceTooLow,
            E::UnderpricedReplacement => Self::Underpriced,
            E::InvalidChainId(_) => Self::WrongChain { expected: chain_id },
            E::InvalidTxSender(e) => Self::Signature(e.to_string()),
            e @ (E::NotEnoughBalance | E::InsufficientCumulativeBalance { .. }) => {
                Self::InsufficientFunds(e.to_string())
            }
            e @ (E::MaxQueuedTxsPerAccountExceeded { .. } | E::GapAdmissionDeniedUnderPressure { .. }) => {
                Self::TooManyQueued(e.to_string())
            }
            e @ (E::TxGasLimitExceededError
            | E::TxMaxGasLimitExceededError(..)
            | E::TxGasOverflowError
            | E::IntrinsicGasError(_)
            | E::TxTipAboveFeeCapError
            | E::TxIntrinsicGasCostAboveLimitError
            | E::InvalidTxGasvalues) => Self::Gas(e.to_string()),
            e @ (E::StoreError(_) | E::NoBlockHeaderError) => Self::Internal(e.to_string()),
            other => Self::Invalid(other.to_string()),
        }
    }
}

/// A transaction that waits for a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PooledTransaction {
    /// Transaction hash.
    pub hash: B256,
    /// Signer.
    pub sender: Address,
    /// Nonce.
    pub nonce: u64,
    /// EIP-2718 bytes.
    pub raw: Bytes,
}

/// Where a transaction is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionLocation {
    /// Height of its block.
    pub block_number: u64,
    /// Hash of its block.
    pub block_hash: B256,
    /// Position in the block.
    pub index: u64,
}

/// A known transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransactionInfo {
    /// EIP-2718 bytes.
    pub raw: Bytes,
    /// Its place on the finalized chain; `None` while it is in the mempool.
    pub location: Option<TransactionLocation>,
}

impl Execution {
    /// Admits a signed EIP-2718 transaction to the mempool. Checks are made against the newest
    /// finalized state. Mempools live in memory: after a restart clients send again.
    ///
    /// # Errors
    /// [`PoolRejection`]; [`PoolRejection::AlreadyKnown`] is harmless.
    pub async fn add_transaction(&self, raw: Bytes) -> Result<B256, PoolRejection> {
        if raw.len() > MAX_TRANSACTION_BYTES {
            return Err(PoolRejection::TooLarge {
                limit: MAX_TRANSACTION_BYTES,
                got: raw.len(),
            });
        }
        // decoding and key recovery work on foreign bytes: a panic there stays in that task
        let decoded = tokio::task::spawn_blocking(move || decode(&raw)).await;
        let transaction = decoded.map_err(|e| PoolRejection::Internal(e.to_string()))??;
        if let Some(chain_id) = transaction.chain_id()
            && chain_id != self.chain_id()
        {
            return Err(PoolRejection::WrongChain {
                expected: self.chain_id(),
            });
        }
        let chain = &self.inner.chain;
        let hash = transaction.hash(&NativeCrypto);
        let known = chain.mempool.contains_tx(hash);
        if known.map_err(|e| PoolRejection::from_client(e, self.chain_id()))? {
            return Err(PoolRejection::AlreadyKnown(b256(hash)));
        }
        let added = chain.add_transaction_to_pool(transaction).await;
        added
            .map(b256)
            .map_err(|e| PoolRejection::from_client(e, self.chain_id()))
    }

    /// Every pooled transaction, by sender and nonce.
    ///
    /// # Errors
    /// A poisoned lock inside the client.
    pub fn pooled(&self) -> Result<Vec<PooledTransaction>, ExecutionError> {
        let by_sender = self.inner.chain.mempool.get_all_txs_by_sender()?;
        let mut all: Vec<_> = by_sender
            .into_values()
            .flatten()
            .map(|transaction| PooledTransaction {
                hash: b256(transaction.hash(&NativeCrypto)),
                sender: address(transaction.sender()),
                nonce: transaction.nonce(),
                raw: transaction.transaction().encode_canonical_to_vec().into(),
            })
            .collect();
        all.sort_by_key(|transaction| (transaction.sender, transaction.nonce));
        Ok(all)
    }

    /// Number of pooled transactions.
    pub fn pool_size(&self) -> usize {
        self.inner.chain.mempool.status().map_or(0, |size| size as usize)
    }

    /// A transaction of the finalized chain or the mempool.
    ///
    /// # Errors
    /// Database errors.
    pub async fn transaction(&self, hash: B256) -> Result<Option<TransactionInfo>, ExecutionError> {
        let store = &self.inner.store;
        if let Some((number, block_hash, index)) = store.get_transaction_location(h256(hash)).await?
            && let Some(transaction) = store.get_transaction_by_location(block_hash, index).await?
        {
            return Ok(Some(TransactionInfo {
                raw: transaction.encode_canonical_to_vec().into(),
                location: Some(TransactionLocation {
                    block_number: number,
                    block_hash: b256(block_hash),
                    index,
                }),
            }));
        }
        let pooled = self.inner.chain.mempool.get_transaction_by_hash(h256(hash))?;
        Ok(pooled.map(|transaction| TransactionInfo {
            raw: transaction.encode_canonical_to_vec().into(),
            location: None,
        }))
    }

    /// Drops pooled transactions whose nonce the state after `head` has passed: they were replaced by
    /// others that reached a block first.
    pub(crate) fn drop_stale(&self, head: B256) -> Result<(), ExecutionError> {
        let mempool = &self.inner.chain.mempool;
        if mempool.status().is_ok_and(|size| size == 0) {
            return Ok(());
        }
        for (sender, transactions) in mempool.get_all_txs_by_sender()? {
            let account = self.inner.store.get_account_info_by_hash(h256(head), sender)?;
            let nonce = account.map_or(0, |account| account.nonce);
            for transaction in transactions.iter().filter(|t| t.nonce() < nonce) {
                mempool.remove_transaction(&transaction.hash(&NativeCrypto))?;
            }
        }
        Ok(())
    }
}

fn decode(raw: &[u8]) -> Result<Transaction, PoolRejection> {
    let first = *raw.first().ok_or_else(|| PoolRejection::Decode("empty".into()))?;
    // legacy lists start at 0xc0; 0x01 access list, 0x02 dynamic fee, 0x04 set code
    if first < 0x7f && ![0x01, 0x02, 0x04].contains(&first) {
        return Err(PoolRejection::UnsupportedType(first));
    }
    let transaction = Transaction::decode_canonical(raw).map_err(|e| PoolRejection::Decode(e.to_string()))?;
    if transaction.encode_canonical_to_vec() != raw {
        return Err(PoolRejection::Decode("encoding is not canonical".into()));
    }
    let (_, s) = signature(&transaction);
    if s > HALF_ORDER {
        return Err(PoolRejection::Signature("s is in the upper half of the order".into()));
    }
    // recovered here so that the pool finds it in the cache
    let sender = transaction.sender(&NativeCrypto);
    sender.map_err(|e| PoolRejection::Signature(e.to_string()))?;
    Ok(transaction)
}

/// Half of the secp256k1 group order, rounded down (EIP-2).
const HALF_ORDER: U256 = U256::from_limbs([
    0xdfe9_2f46_681b_20a0,
    0x5d57_6e73_57a4_501d,
    0xffff_ffff_ffff_ffff,
    0x7fff_ffff_ffff_ffff,
]);

fn signature(transaction: &Transaction) -> (U256, U256) {
    use crate::convert::u256;
    let (r, s) = match transaction {
        Transaction::LegacyTransaction(t) => (t.r, t.s),
        Transaction::EIP2930Transaction(t) => (t.signature_r, t.signature_s),
        Transaction::EIP1559Transaction(t) => (t.signature_r, t.signature_s),
        Transaction::EIP7702Transaction(t) => (t.signature_r, t.signature_s),
        _ => return (U256::ZERO, U256::ZERO),
    };
    (u256(r), u256(s))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_other_than_0_1_2_4_are_refused_before_decoding() {
        for kind in [0x00, 0x03, 0x06, 0x7d, 0x7e] {
            assert_eq!(decode(&[kind, 0xc0]), Err(PoolRejection::UnsupportedType(kind)));
        }
        assert!(matches!(decode(&[]), Err(PoolRejection::Decode(_))));
        assert!(matches!(decode(&[0x02, 0xc0]), Err(PoolRejection::Decode(_))));
        assert!(matches!(decode(&[0xff; 40]), Err(PoolRejection::Decode(_))));
    }

    #[test]
    fn half_order_is_half_the_order() {
        let order = U256::from_str_radix("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141", 16);
        assert_eq!(order.map(|n| n >> 1), Ok(HALF_ORDER));
    }
}
