//! Block building: system transactions first, then the mempool by tip.

use crate::{
    Execution,
    block::EvmBlock,
    convert::{address, b256, eth_address, h256},
    error::ExecutionError,
};
use alloy_primitives::{Address, B256, Bytes};
use ethrex_blockchain::{
    BlockchainType,
    payload::{BuildPayloadArgs, HeadTransaction, PayloadBuildContext, create_payload, is_deterministic_invalid},
};
use ethrex_common::{
    U256 as EthU256,
    types::{ELASTICITY_MULTIPLIER, MempoolTransaction, Transaction},
};
use ethrex_crypto::NativeCrypto;
use ethrex_vm::BlockExecutionResult;
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

/// Gas of the cheapest possible transaction: with less left, filling a block can stop.
const CHEAPEST_TRANSACTION: u64 = 21_000;

/// What to build.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// Block to build on; imported, not necessarily final.
    pub parent: B256,
    /// Seconds since 1970, above the parent's.
    pub timestamp: u64,
    /// Fee recipient: the leader's system address.
    pub coinbase: Address,
    /// `parent_beacon_block_root`: the batch root.
    pub beacon_root: B256,
    /// `extra_data` of the header, at most 32 bytes.
    pub extra_data: Bytes,
    /// Signed EIP-2718 transactions that come first, in this order. Each must succeed.
    pub system_txs: Vec<Bytes>,
    /// Mempool transactions of these senders are left out (system addresses).
    pub excluded_senders: Arc<HashSet<Address>>,
    /// Gas limit to move to, see [`Execution::gas_limit_next`]; `None`: that of block 0.
    pub gas_target: Option<u64>,
    /// Mempool transactions that tip less, in wei per gas, are left out.
    pub minimum_tip: u64,
    /// Upper bound of the block's RLP. System transactions count, and are never left out.
    pub max_block_bytes: usize,
    /// No further mempool transaction is started after this time.
    pub time_limit: Duration,
}

impl BuildRequest {
    /// A block without system transactions, exclusions or minimum tip, of at most 4 MB, whose filling
    /// may take 300 ms.
    pub fn new(parent: B256, timestamp: u64, coinbase: Address, beacon_root: B256) -> Self {
        Self {
            parent,
            timestamp,
            coinbase,
            beacon_root,
            extra_data: Bytes::new(),
            system_txs: Vec::new(),
            excluded_senders: Arc::default(),
            gas_target: None,
            minimum_tip: 0,
            max_block_bytes: 4_000_000,
            time_limit: Duration::from_millis(300),
        }
    }
}

/// A block that was built and imported.
#[derive(Debug, Clone)]
pub struct BuiltBlock {
    /// Height.
    pub number: u64,
    /// Block hash.
    pub hash: B256,
    /// Hash of the block below.
    pub parent_hash: B256,
    /// State root after the block.
    pub state_root: B256,
    /// Seconds since 1970.
    pub timestamp: u64,
    /// Gas used by all transactions.
    pub gas_used: u64,
    /// Gas used by the system transactions.
    pub system_gas: u64,
    /// Number of transactions, system transactions included.
    pub transactions: usize,
    /// Encoding of the block.
    pub rlp: Bytes,
    /// Encoding of the header.
    pub header_rlp: Bytes,
}

impl Execution {
    /// Builds a block and imports it.
    ///
    /// The state is what building computed; the block is not executed a second time here. Every other
    /// node executes it in [`Execution::import`].
    ///
    /// # Errors
    /// [`ExecutionError::SystemTransaction`] if one of them does not decode, does not fit or does not
    /// succeed; [`ExecutionError::Timestamp`]; [`ExecutionError::UnknownBlock`] and
    /// [`ExecutionError::MissingState`] for the parent.
    pub async fn build(&self, request: BuildRequest) -> Result<BuiltBlock, ExecutionError> {
        let guard = self.inner.executing.clone().lock_owned().await;
        let node = self.clone();
        tokio::task::spawn_blocking(move || {
            let _one_at_a_time = guard;
            node.build_blocking(&request)
        })
        .await?
    }

    fn build_blocking(&self, request: &BuildRequest) -> Result<BuiltBlock, ExecutionError> {
        let (store, chain) = (&self.inner.store, &self.inner.chain);
        let parent = self.header(request.parent)?;
        if request.timestamp <= parent.timestamp {
            return Err(ExecutionError::Timestamp {
                parent: parent.timestamp,
                got: request.timestamp,
            });
        }
        if !store.has_state_root(parent.state_root)? {
            return Err(ExecutionError::MissingState(request.parent));
        }
        let shell = create_payload(
            &BuildPayloadArgs {
                parent: h256(request.parent),
                timestamp: request.timestamp,
                fee_recipient: eth_address(request.coinbase),
                // Nothing random is agreed on here. A fixed rule leaves the leader no choice.
                random: h256(request.parent),
                withdrawals: Some(Vec::new()),
                beacon_root: Some(h256(request.beacon_root)),
                slot_number: None,
                version: 3,
                elasticity_multiplier: ELASTICITY_MULTIPLIER,
                gas_ceil: request.gas_target.unwrap_or(self.inner.gas_limit),
            },
            store,
            request.extra_data.0.clone(),
        )?;
        let mut work = PayloadBuildContext::new(shell, store, &BlockchainType::L1)?;
        chain.apply_system_operations(&mut work)?;
        for (index, raw) in request.system_txs.iter().enumerate() {
            self.apply_system_transaction(raw, &mut work)
                .map_err(|reason| ExecutionError::SystemTransaction { index, reason })?;
        }
        let system_gas = work.gas_used();
        self.fill(request, &mut work)?;
        chain.extract_requests(&mut work)?;
        chain.apply_withdrawals(&mut work)?;
        chain.finalize_payload(&mut work)?;

        let updates = store
            .apply_account_updates_batch(h256(request.parent), &work.account_updates)?
            .ok_or(ExecutionError::MissingState(request.parent))?;
        let executed = BlockExecutionResult {
            receipts: std::mem::take(&mut work.receipts),
            requests: Vec::new(),
            block_gas_used: work.payload.header.gas_used,
            tx_gas_breakdowns: Vec::new(),
        };
        let block = EvmBlock::from(std::mem::take(&mut work.payload));
        chain.store_block((*block.inner).clone(), updates, executed)?;
        Ok(BuiltBlock {
            number: block.number(),
            hash: block.hash(),
            parent_hash: block.parent_hash(),
            state_root: block.state_root(),
            timestamp: block.timestamp(),
            gas_used: block.gas_used(),
            system_gas,
            transactions: block.transaction_count(),
            rlp: block.rlp(),
            header_rlp: block.header_rlp(),
        })
    }

    fn apply_system_transaction(&self, raw: &[u8], work: &mut PayloadBuildContext) -> Result<(), String> {
        let transaction = Transaction::decode_canonical(raw).map_err(|e| e.to_string())?;
        if matches!(transaction, Transaction::EIP4844Transaction(_)) {
            return Err("a blob transaction cannot be a system transaction".into());
        }
        if transaction.gas_limit() > work.remaining_gas {
            return Err(format!(
                "gas limit {} exceeds the {} left in the block",
                transaction.gas_limit(),
                work.remaining_gas
            ));
        }
        let sender = transaction.sender(&NativeCrypto).map_err(|e| e.to_string())?;
        work.payload_size += transaction.encode_canonical_len() as u64;
        let head = HeadTransaction {
            tx: MempoolTransaction::new(transaction, sender),
            tip: EthU256::zero(),
        };
        let applied = self.inner.chain.apply_tx_to_payload(head, work);
        applied.map_err(|e| e.to_string())?;
        match work.receipts.last() {
            Some(receipt) if receipt.succeeded => Ok(()),
            _ => Err("reverted".into()),
        }
    }

    /// Adds mempool transactions, best tip first and each sender's in nonce order. A transaction that
    /// cannot be applied now ends its sender's turn; one that never can leaves the pool.
    fn fill(&self, request: &BuildRequest, work: &mut PayloadBuildContext) -> Result<(), ExecutionError> {
        let chain = &self.inner.chain;
        let began = Instant::now();
        let base_fee = work.payload.header.base_fee_per_gas;
        let minimum_tip = EthU256::from(request.minimum_tip);
        let fits = |transaction: &Transaction| {
            !matches!(transaction, Transaction::EIP4844Transaction(_))
                && transaction
                    .effective_gas_tip(base_fee)
                    .is_some_and(|tip| tip >= minimum_tip)
        };
        let mut senders: Vec<VecDeque<MempoolTransaction>> = Vec::new();
        let mut heads = BinaryHeap::new();
        let candidates = chain.mempool.filter_transactions_with_filter_fn(&fits)?;
        for (sender, transactions) in candidates {
            if request.excluded_senders.contains(&address(sender)) {
                continue;
            }
            // The pool may hold transactions that a block since `parent`'s predecessor has included.
            let account = self
                .inner
                .store
                .get_account_info_by_hash(h256(request.parent), sender)?;
            let nonce = account.map_or(0, |account| account.nonce);
            let queue: VecDeque<_> = transactions.into_iter().filter(|t| t.nonce() >= nonce).collect();
            if let Some(first) = queue.front() {
                heads.push(rank(first, base_fee, senders.len()));
                senders.push(queue);
            }
        }
        while let Some((_, _, Reverse(sender))) = heads.pop() {
            if work.remaining_gas < CHEAPEST_TRANSACTION || began.elapsed() >= request.time_limit {
                break;
            }
            let Some(next) = senders.get_mut(sender).and_then(VecDeque::pop_front) else {
                continue;
            };
            let size = work.payload_size + next.encode_canonical_len() as u64;
            if next.gas_limit() > work.remaining_gas || size > request.max_block_bytes as u64 {
                continue;
            }
            let hash = next.hash(&NativeCrypto);
            let tip = next.effective_gas_tip(base_fee).unwrap_or_default();
            match chain.apply_tx_to_payload(HeadTransaction { tx: next, tip }, work) {
                Ok(()) => {
                    work.payload_size = size;
                    if let Some(following) = senders.get(sender).and_then(VecDeque::front) {
                        heads.push(rank(following, base_fee, sender));
                    }
                }
                Err(error) if is_deterministic_invalid(&error) => chain.remove_transaction_from_pool(&hash)?,
                Err(error) => tracing::debug!(hash = %b256(hash), %error, "transaction does not apply now"),
            }
        }
        Ok(())
    }
}

/// Heap order: higher tip, then earlier arrival, then the sender found first.
fn rank(
    transaction: &MempoolTransaction,
    base_fee: Option<u64>,
    sender: usize,
) -> (EthU256, Reverse<u128>, Reverse<usize>) {
    let tip = transaction.effective_gas_tip(base_fee).unwrap_or_default();
    (tip, Reverse(transaction.time()), Reverse(sender))
}
