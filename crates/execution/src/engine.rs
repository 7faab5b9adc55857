//! Opening, importing, finalizing: the life of a block in the execution client.

use crate::{
    block::{BlockId, EvmBlock, FinalizedBlock, Head, TxReceipt, receipts_of},
    convert::{b256, h256},
    error::ExecutionError,
    rpc::RpcBackend,
};
use alloy_primitives::{B256, Bytes};
use ethrex_blockchain::{Blockchain, BlockchainOptions, fork_choice::apply_fork_choice, payload::calc_gas_limit};
use ethrex_common::types::{BlockHeader, ELASTICITY_MULTIPLIER, Genesis, calculate_base_fee_per_gas};
use ethrex_rlp::encode::RLPEncode;
use ethrex_storage::{EngineType, Store, StoreConfig};
use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};
use tokio::sync::{Mutex, broadcast};

/// Ceiling of RocksDB's block cache. ethrex's own default is 12 GiB, meant for a whole machine.
const BLOCK_CACHE_BYTES: usize = 64 << 20;

/// Transactions kept in the mempool; the oldest are dropped above.
const MEMPOOL_SIZE: usize = 10_000;

/// Finalized blocks a slow subscriber may fall behind before it misses some.
const FINALIZED_BACKLOG: usize = 256;

/// One embedded EVM node: state, mempool, block building and import, JSON-RPC in process.
///
/// Clones share one node. Methods may be called from any tokio runtime; work that takes long runs on
/// its blocking threads.
#[derive(Clone)]
pub struct Execution {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) chain: Arc<Blockchain>,
    pub(crate) rpc: RpcBackend,
    chain_id: u64,
    genesis_hash: B256,
    pub(crate) gas_limit: u64,
    /// One block is executed at a time; held inside the blocking task, so that a caller who gives up
    /// does not let a second one in early.
    pub(crate) executing: Arc<Mutex<()>>,
    finalizing: Mutex<()>,
    head: RwLock<Head>,
    finalized: broadcast::Sender<Arc<FinalizedBlock>>,
}

impl fmt::Debug for Execution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Execution")
            .field("chain_id", &self.inner.chain_id)
            .field("head", &self.head())
            .finish_non_exhaustive()
    }
}

impl Execution {
    /// Opens the node in `dir`, creating it from `genesis` if it is new, and executes again what its
    /// database holds as blocks but not as state. The gas ceiling is the genesis gas limit.
    ///
    /// # Errors
    /// [`ExecutionError::Genesis`] if ethrex cannot read the genesis, [`ExecutionError::WrongGenesis`]
    /// if `dir` belongs to another chain, otherwise database errors.
    pub async fn open(genesis: alloy_genesis::Genesis, dir: PathBuf) -> Result<Self, ExecutionError> {
        let genesis = translate(&genesis)?;
        let (chain_id, gas_limit) = (genesis.config.chain_id, genesis.gas_limit);
        let genesis_hash = b256(genesis.get_block().hash());
        std::fs::create_dir_all(&dir).map_err(|e| ExecutionError::Client(format!("create {}: {e}", dir.display())))?;
        let mut store = open_store(&dir).await?;
        let added = store.add_initial_state(genesis).await;
        added.map_err(|error| match error {
            ethrex_storage::error::StoreError::IncompatibleChainConfig => ExecutionError::WrongGenesis {
                dir,
                expected: genesis_hash,
            },
            other => other.into(),
        })?;
        let options = BlockchainOptions {
            max_mempool_size: MEMPOOL_SIZE,
            ..BlockchainOptions::default()
        };
        let chain = Arc::new(Blockchain::new(store.clone(), options));
        // There is no devp2p sync here: consensus delivers the blocks. Without this the mempool
        // refuses every transaction as "still syncing".
        chain.set_synced();
        let rpc = RpcBackend::new(store.clone(), chain.clone(), gas_limit)?;
        let head = head_of(&store).await?;
        let node = Self {
            inner: Arc::new(Inner {
                store,
                chain,
                rpc,
                chain_id,
                genesis_hash,
                gas_limit,
                executing: Arc::default(),
                finalizing: Mutex::default(),
                head: RwLock::new(head),
                finalized: broadcast::channel(FINALIZED_BACKLOG).0,
            }),
        };
        node.replay().await?;
        Ok(node)
    }

    /// Chain id of the genesis.
    pub fn chain_id(&self) -> u64 {
        self.inner.chain_id
    }

    /// Hash of block 0.
    pub fn genesis_hash(&self) -> B256 {
        self.inner.genesis_hash
    }

    /// Gas limit of block 0.
    pub fn gas_limit(&self) -> u64 {
        self.inner.gas_limit
    }

    /// The newest finalized block.
    pub fn head(&self) -> Head {
        *self.inner.head.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`EvmBlock::decode`].
    ///
    /// # Errors
    /// [`ExecutionError::Decode`].
    pub fn decode(rlp: &[u8]) -> Result<EvmBlock, ExecutionError> {
        EvmBlock::decode(rlp)
    }

    /// Executes and stores `block` on its parent's state, which need not be final. Does nothing if
    /// the block's state is there already.
    ///
    /// # Errors
    /// [`ExecutionError::UnknownBlock`] or [`ExecutionError::MissingState`] for the parent,
    /// [`ExecutionError::InvalidBlock`] if the block breaks a rule.
    pub async fn import(&self, block: EvmBlock) -> Result<(), ExecutionError> {
        let guard = self.inner.executing.clone().lock_owned().await;
        let node = self.clone();
        tokio::task::spawn_blocking(move || {
            let _one_at_a_time = guard;
            node.import_blocking(&block)
        })
        .await?
    }

    fn import_blocking(&self, block: &EvmBlock) -> Result<(), ExecutionError> {
        if self.has_state(block.hash())? {
            return Ok(());
        }
        let parent = block.parent_hash();
        let header = self.header(parent)?;
        if !self.inner.store.has_state_root(header.state_root)? {
            return Err(ExecutionError::MissingState(parent));
        }
        Ok(self.inner.chain.add_block((*block.inner).clone())?)
    }

    /// Is the block stored and executed?
    ///
    /// # Errors
    /// Database errors.
    pub fn has_state(&self, hash: B256) -> Result<bool, ExecutionError> {
        match self.inner.store.get_block_header_by_hash(h256(hash))? {
            Some(header) => Ok(self.inner.store.has_state_root(header.state_root)?),
            None => Ok(false),
        }
    }

    /// Consensus finalized `hash`, which must be imported: head, safe and finalized block move to it,
    /// its transactions leave the mempool, subscribers are told. A block that is final already is
    /// accepted silently, so that redelivery after a crash does no harm.
    ///
    /// # Errors
    /// [`ExecutionError::UnknownBlock`], [`ExecutionError::Conflict`] with a final block, or a refusal
    /// of the fork choice.
    pub async fn finalize(&self, hash: B256) -> Result<(), ExecutionError> {
        let _one_at_a_time = self.inner.finalizing.lock().await;
        let store = &self.inner.store;
        let header = self.header(hash)?;
        let latest = store.get_latest_block_number().await?;
        if header.number <= latest {
            // never hand an older block to the fork choice: it would truncate the chain
            let finalized = store.get_canonical_block_hash(header.number).await?.map(b256);
            return match finalized {
                Some(finalized) if finalized == hash => Ok(()),
                other => Err(ExecutionError::Conflict {
                    height: header.number,
                    finalized: other.unwrap_or_default(),
                    got: hash,
                }),
            };
        }
        let eth_hash = h256(hash);
        apply_fork_choice(store, eth_hash, eth_hash, eth_hash, None).await?;
        let head = Head {
            number: header.number,
            hash,
            timestamp: header.timestamp,
        };
        *self.inner.head.write().unwrap_or_else(PoisonError::into_inner) = head;

        let block = store
            .get_block_by_hash(eth_hash)
            .await?
            .ok_or(ExecutionError::UnknownBlock(hash))?;
        let receipts = receipts_of(&block, store.get_receipts_for_block(&eth_hash).await?)?;
        let node = self.clone();
        let finalized = tokio::task::spawn_blocking(move || {
            node.inner.chain.remove_block_transactions_from_pool(&block)?;
            node.drop_stale(hash)?;
            Ok::<_, ExecutionError>(FinalizedBlock {
                header: header_json(&block.header)?,
                block: block.into(),
                receipts,
            })
        })
        .await??;
        // an error only says that nobody listens
        let _ = self.inner.finalized.send(Arc::new(finalized));
        Ok(())
    }

    /// Blocks that become final from now on. A receiver that falls more than 256 blocks behind gets
    /// `Lagged` and should read the gap by number.
    pub fn subscribe_finalized(&self) -> broadcast::Receiver<Arc<FinalizedBlock>> {
        self.inner.finalized.subscribe()
    }

    /// A stored block, or `None`.
    ///
    /// # Errors
    /// Database errors.
    pub async fn block(&self, id: impl Into<BlockId> + Send) -> Result<Option<EvmBlock>, ExecutionError> {
        let store = &self.inner.store;
        let block = match id.into() {
            BlockId::Hash(hash) => store.get_block_by_hash(h256(hash)).await?,
            BlockId::Number(number) if number > self.head().number => None,
            BlockId::Number(number) => store.get_block_by_number(number).await?,
        };
        Ok(block.map(EvmBlock::from))
    }

    /// RLP of a stored block's header, or `None`.
    ///
    /// # Errors
    /// Database errors.
    pub async fn header_rlp(&self, id: impl Into<BlockId> + Send) -> Result<Option<Bytes>, ExecutionError> {
        let store = &self.inner.store;
        let header = match id.into() {
            BlockId::Hash(hash) => store.get_block_header_by_hash(h256(hash))?,
            BlockId::Number(number) if number > self.head().number => None,
            BlockId::Number(number) => store.get_block_header(number)?,
        };
        Ok(header.map(|header| header.encode_to_vec().into()))
    }

    /// Number, parent hash and `extra_data` of a stored block.
    ///
    /// # Errors
    /// [`ExecutionError::UnknownBlock`], or database errors.
    pub fn ancestry(&self, hash: B256) -> Result<(u64, B256, Bytes), ExecutionError> {
        let header = self.header(hash)?;
        Ok((
            header.number,
            b256(header.parent_hash),
            header.extra_data.to_vec().into(),
        ))
    }

    /// RLP of a stored block, or `None`.
    ///
    /// # Errors
    /// Database errors.
    pub async fn block_rlp(&self, id: impl Into<BlockId> + Send) -> Result<Option<Bytes>, ExecutionError> {
        Ok(self.block(id).await?.map(|block| block.rlp()))
    }

    /// Timestamp of a stored block, seconds.
    ///
    /// # Errors
    /// [`ExecutionError::UnknownBlock`].
    pub async fn timestamp(&self, hash: B256) -> Result<u64, ExecutionError> {
        Ok(self.header(hash)?.timestamp)
    }

    /// Receipts of an imported block, which need not be final.
    ///
    /// # Errors
    /// [`ExecutionError::UnknownBlock`], or [`ExecutionError::Client`] if some are missing.
    pub async fn receipts(&self, hash: B256) -> Result<Vec<TxReceipt>, ExecutionError> {
        let store = &self.inner.store;
        let block = store
            .get_block_by_hash(h256(hash))
            .await?
            .ok_or(ExecutionError::UnknownBlock(hash))?;
        receipts_of(&block, store.get_receipts_for_block(&h256(hash)).await?)
    }

    /// Success of each transaction of an imported block, in order.
    ///
    /// # Errors
    /// As [`Execution::receipts`].
    pub async fn receipts_status(&self, hash: B256) -> Result<Vec<bool>, ExecutionError> {
        let receipts = self.receipts(hash).await?;
        Ok(receipts.into_iter().map(|receipt| receipt.success).collect())
    }

    /// Base fee, wei per gas, of a block built on `parent`.
    ///
    /// # Errors
    /// [`ExecutionError::UnknownBlock`].
    pub fn base_fee_next(&self, parent: B256) -> Result<u64, ExecutionError> {
        let header = self.header(parent)?;
        calculate_base_fee_per_gas(
            header.gas_limit,
            header.gas_limit,
            header.gas_used,
            header.base_fee_per_gas.unwrap_or_default(),
            ELASTICITY_MULTIPLIER,
        )
        .ok_or_else(|| ExecutionError::Client("base fee does not fit 64 bits".into()))
    }

    /// Gas limit of a block built on `parent` on the way to `target`: the EVM lets it change by less than 1/1024 of the parent's in
    /// each block.
    ///
    /// # Errors
    /// [`ExecutionError::UnknownBlock`].
    pub fn gas_limit_next(&self, parent: B256, target: u64) -> Result<u64, ExecutionError> {
        Ok(calc_gas_limit(self.header(parent)?.gas_limit, target))
    }

    /// Orderly stop: writes buffered blocks to disk. The node must not be used afterwards. Without
    /// it nothing is lost either: what the database misses is delivered again by consensus.
    ///
    /// # Errors
    /// Database errors, also if called twice.
    pub async fn shutdown(&self) -> Result<(), ExecutionError> {
        let _nothing_executes = self.inner.executing.lock().await;
        Ok(self.inner.store.shutdown().await?)
    }

    pub(crate) fn header(&self, hash: B256) -> Result<BlockHeader, ExecutionError> {
        let header = self.inner.store.get_block_header_by_hash(h256(hash))?;
        header.ok_or(ExecutionError::UnknownBlock(hash))
    }

    /// ethrex keeps the state of the newest 128 blocks in memory only. After a start, executes the
    /// stored blocks above the newest state on disk again.
    async fn replay(&self) -> Result<(), ExecutionError> {
        let began = std::time::Instant::now();
        let store = &self.inner.store;
        let head = self.head().number;
        let mut base = head;
        while base > 0 {
            let missing = || ExecutionError::Client(format!("header {base} of the canonical chain is missing"));
            let header = store.get_block_header(base)?.ok_or_else(missing)?;
            if store.has_state_root(header.state_root)? {
                break;
            }
            base -= 1;
        }
        for number in base + 1..=head {
            let missing = || ExecutionError::Client(format!("block {number} of the canonical chain is missing"));
            let block = store.get_block_by_number(number).await?.ok_or_else(missing)?;
            self.import(block.into()).await?;
        }
        tracing::info!(
            state_on_disk = base,
            head,
            took_ms = began.elapsed().as_millis() as u64,
            "execution layer is open"
        );
        Ok(())
    }
}

async fn head_of(store: &Store) -> Result<Head, ExecutionError> {
    let number = store.get_latest_block_number().await?;
    let header = store
        .get_block_header(number)?
        .ok_or_else(|| ExecutionError::Client(format!("header {number} of the head is missing")))?;
    Ok(Head {
        number,
        hash: b256(header.hash()),
        timestamp: header.timestamp,
    })
}

/// RocksDB opens synchronously and reads its log: off the async threads.
async fn open_store(dir: &Path) -> Result<Store, ExecutionError> {
    let dir = dir.to_owned();
    let config = StoreConfig {
        rocksdb_block_cache_size: BLOCK_CACHE_BYTES,
        ..StoreConfig::default()
    };
    // The in-memory engine of 24.0.0 loses every receipt but the first of a block, hence RocksDB
    // also for throw-away networks.
    let opened = tokio::task::spawn_blocking(move || Store::new_with_config(dir, EngineType::RocksDB, config));
    Ok(opened.await??)
}

/// Both types are the JSON of a geth genesis file; ethrex does not accept `null` for a missing field.
fn translate(genesis: &alloy_genesis::Genesis) -> Result<Genesis, ExecutionError> {
    fn without_nulls(value: &mut serde_json::Value) {
        match value {
            serde_json::Value::Object(fields) => {
                fields.retain(|_, field| !field.is_null());
                fields.values_mut().for_each(without_nulls);
            }
            serde_json::Value::Array(items) => items.iter_mut().for_each(without_nulls),
            _ => {}
        }
    }
    let unusable = |e: serde_json::Error| ExecutionError::Genesis(e.to_string());
    let mut json = serde_json::to_value(genesis).map_err(unusable)?;
    without_nulls(&mut json);
    serde_json::from_value(json).map_err(unusable)
}

fn header_json(header: &BlockHeader) -> Result<serde_json::Value, ExecutionError> {
    let failed = |e: serde_json::Error| ExecutionError::Client(e.to_string());
    let mut json = serde_json::to_value(header).map_err(failed)?;
    let fields = json
        .as_object_mut()
        .ok_or_else(|| ExecutionError::Client("header is not a JSON object".into()))?;
    fields.insert("hash".into(), serde_json::to_value(header.hash()).map_err(failed)?);
    Ok(json)
}
