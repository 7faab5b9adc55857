//! What the parts of a full node share: chain, pool, index, keys, metrics.

use crate::{
    config::{Keys, Limits},
    epochs::Epochs,
    evidence::Judge,
    index::Index,
    invalid_votes::InvalidVotes,
    metrics::{Health, Metrics},
    pool::{Bounds, Pool},
    verify::Rules,
};
use alloy_primitives::{Address, B256, Bytes};
use opg_consensus::{Handle, Identity, ProofName, Topic};
use opg_contracts::{GenesisFile, staking};
use opg_execution::{Execution, PoolRejection};
use opg_payments::signature::address_of_secret;
use secp256k1::SecretKey;
use serde::Serialize;
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::{Semaphore, broadcast};

/// Reports that are judged at once for those who ask; what blocks ask is judged apart.
const MAX_JUDGING: usize = 2;
/// Hashes of new pool transactions that a slow subscriber may lag behind.
const PENDING_BUFFER: usize = 4_096;

/// One node's state; everything in it may be used from any thread.
pub(crate) struct Shared {
    pub(crate) genesis: GenesisFile,
    pub(crate) genesis_digest: B256,
    pub(crate) rules: Rules,
    /// Judges attestation evidence.
    pub(crate) evidence: Judge,
    pub(crate) limits: Limits,
    pub(crate) execution: Execution,
    /// Set once consensus runs.
    pub(crate) consensus: OnceLock<Handle>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) index: Arc<Index>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) identity: Identity,
    pub(crate) system_key: SecretKey,
    pub(crate) system_address: Address,
    /// Who has seats.
    pub(crate) epochs: Epochs,
    /// Hashes of transactions that entered the pool.
    pub(crate) pending: broadcast::Sender<B256>,
    /// When a proof was last sent because somebody asked for it.
    pub(crate) proofs_sent: Mutex<HashMap<ProofName, Instant>>,
    /// Taken while a report is judged for somebody who asks.
    pub(crate) judging: Semaphore,
    /// Votes, and blocks with invalid proofs.
    pub(crate) invalid_votes: InvalidVotes,
    pub(crate) started: Instant,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

/// A transaction was not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransactionError {
    /// Its sender is a validator's system account.
    #[error("system account {0} signs system transactions only: send from another account")]
    SystemSender(Address),
    /// The pool refuses it.
    #[error(transparent)]
    Refused(#[from] PoolRejection),
}

impl Shared {
    /// Puts a node together, without consensus. The keys are those of the validator `identity` of the genesis file.
    ///
    /// # Errors
    /// The verification threads could not be started.
    pub(crate) fn new(
        genesis: GenesisFile,
        keys: &Keys,
        identity: Identity,
        limits: Limits,
        execution: Execution,
        index: Arc<Index>,
    ) -> Result<Self, rayon::ThreadPoolBuildError> {
        let metrics = Arc::new(Metrics::default());
        let rules = Rules::of(&genesis);
        let bounds = Bounds {
            receipts: limits.pool_receipts,
            bytes: limits.pool_bytes,
            node_receipts: limits.node_receipts,
            min_bond: rules.min_bond,
            expiry: limits.pool_expiry_secs,
        };
        let threads = match limits.verify_threads {
            0 => std::thread::available_parallelism().map_or(1, |n| n.get().div_ceil(2)),
            n => n,
        };
        let pool = Pool::new(rules, bounds, threads, metrics.clone())?;
        Ok(Self {
            genesis_digest: genesis.digest(),
            evidence: Judge::new(&genesis),
            rules,
            limits,
            execution,
            consensus: OnceLock::new(),
            pool: Arc::new(pool),
            index,
            metrics,
            identity,
            system_address: address_of_secret(&keys.system),
            system_key: keys.system,
            epochs: Epochs::new(&genesis),
            pending: broadcast::channel(PENDING_BUFFER).0,
            proofs_sent: Mutex::default(),
            judging: Semaphore::new(MAX_JUDGING),
            invalid_votes: InvalidVotes::default(),
            started: Instant::now(),
            genesis,
        })
    }

    /// Takes a transaction into the pool, and passes it to the other validators if it came from a client.
    pub(crate) async fn add_transaction(&self, raw: Bytes, from_client: bool) -> Result<B256, TransactionError> {
        // recovered before the pool does it again: the pool would keep such a transaction, and no block may take it
        let known = crate::system::sender(&raw);
        if let Some((sender, _)) = known
            && self.is_system(sender)
        {
            return Err(TransactionError::SystemSender(sender));
        }
        let hash = self.execution.add_transaction(raw.clone()).await?;
        let _ = self.pending.send(hash); // nobody may be listening
        if from_client {
            self.gossip(Topic::Transaction, raw);
        }
        Ok(hash)
    }

    /// Whether an account signs system transactions, or did, or has been registered to.
    fn is_system(&self, account: Address) -> bool {
        let registered = || {
            let state = self.execution.state_at(self.execution.head().hash).ok()?;
            staking::key_of_system(&state, account).ok()?
        };
        self.epochs.newest().systems().contains(&account) || registered().is_some()
    }

    /// Sends to all peers; a full queue drops it, which only costs time.
    pub(crate) fn gossip(&self, topic: Topic, payload: Bytes) {
        if let Some(consensus) = self.consensus.get()
            && let Err(error) = consensus.broadcast(topic, payload)
        {
            tracing::debug!(%error, "gossip dropped");
        }
    }

    /// What the node is doing, see [`Status`].
    pub(crate) fn current(&self) -> Status {
        let head = self.execution.head();
        let (pool_receipts, pool_bytes) = self.pool.size();
        let consensus = self.consensus.get();
        let stats = consensus.map(Handle::stats).unwrap_or_default();
        let failure = consensus.and_then(Handle::failure).map(|e| e.to_string());
        let mut build_to_final: Vec<f64> = stats.build_to_finalized_ms.clone();
        build_to_final.sort_by(f64::total_cmp);
        Status {
            chain_id: self.rules.chain_id,
            genesis: self.genesis_digest,
            identity: self.identity.to_string(),
            system_address: self.system_address,
            height: head.number,
            block_hash: head.hash,
            timestamp: head.timestamp,
            validators: self.epochs.newest().len(),
            epoch: stats.epoch,
            seated: stats.seated,
            faults: stats.faults,
            peers: stats.peers as u64,
            finalizations: stats.finalizations,
            nullifications: stats.nullifications,
            proposals: stats.proposals,
            rejections: stats.rejections,
            build_to_final_ms_p50: build_to_final.get(build_to_final.len() / 2).copied(),
            pool_receipts,
            pool_bytes,
            pool_transactions: self.execution.pool_size(),
            uptime_secs: self.started.elapsed().as_secs(),
            healthy: consensus.is_some() && failure.is_none(),
            failure,
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    /// [`Self::current`] as JSON.
    pub(crate) fn status(&self) -> serde_json::Value {
        serde_json::to_value(self.current()).unwrap_or_default()
    }
}

impl Health for Shared {
    fn health(&self) -> (bool, serde_json::Value) {
        let status = self.current();
        (status.healthy, serde_json::to_value(status).unwrap_or_default())
    }

    fn metrics(&self) -> &Metrics {
        let status = self.current();
        self.metrics.peers.set(i64::try_from(status.peers).unwrap_or(i64::MAX));
        self.metrics
            .height
            .set(i64::try_from(status.height).unwrap_or(i64::MAX));
        &self.metrics
    }
}

/// What a full node is doing.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Status {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// Digest of the genesis file.
    pub genesis: B256,
    /// Ed25519 identity, hex.
    pub identity: String,
    /// Coinbase of its blocks.
    pub system_address: Address,
    /// Newest finalized block.
    pub height: u64,
    /// Its EVM hash.
    pub block_hash: B256,
    /// Its timestamp, Unix seconds.
    pub timestamp: u64,
    /// Validators of the newest epoch known.
    pub validators: usize,
    /// The epoch.
    pub epoch: u64,
    /// Whether this node is a validator of it.
    pub seated: bool,
    /// Conflicting votes of validators seen since the start.
    pub faults: u64,
    /// Validators connected.
    pub peers: u64,
    /// Certificates seen since the start.
    pub finalizations: u64,
    /// Views without a block since the start.
    pub nullifications: u64,
    /// Blocks proposed since the start.
    pub proposals: u64,
    /// Proposals of others refused since the start.
    pub rejections: u64,
    /// Median milliseconds from building a block to its finality, over this node's newest blocks.
    pub build_to_final_ms_p50: Option<f64>,
    /// Receipts that wait for a block.
    pub pool_receipts: usize,
    /// Their bytes.
    pub pool_bytes: usize,
    /// Transactions that wait for a block.
    pub pool_transactions: usize,
    /// Seconds since the start.
    pub uptime_secs: u64,
    /// Whether consensus runs.
    pub healthy: bool,
    /// Why it does not.
    pub failure: Option<String>,
    /// Version of this software.
    pub version: &'static str,
}

/// Time since 1970 by this machine's clock.
pub(crate) fn unix_time() -> Duration {
    // a clock before 1970 can not take part anyway: its blocks are refused
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
