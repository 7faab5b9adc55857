//! Starting and stopping a full node.

use crate::{
    application::Chain,
    config::{ConfigError, FullNodeConfig, Keys},
    gossip,
    index::{Index, IndexError},
    metrics, oracle,
    rpc::Front,
    shared::{Shared, Status},
};
use alloy_primitives::B256;
use opg_consensus::{
    BlsPublicKey, ConsensusError, Identity, Participant, Peer,
    keys::{BlsKey, IdentityKey, ValidatorKeys, verify_possession},
};
use opg_contracts::{GenesisFile, GenesisFileError, genesis_file::possession_namespace};
use opg_execution::{Execution, ExecutionError};
use opg_payments::signature::address_of_secret;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// File in the data folder that names the genesis it belongs to.
const MARKER: &str = "genesis.digest";
/// How long open connections may take to finish at shutdown.
const DRAIN: Duration = Duration::from_secs(2);

/// The node could not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Configuration or keys.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The genesis file is not valid.
    #[error("{path}: {source}")]
    GenesisFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: GenesisFileError,
    },
    /// Block 0 could not be built from the genesis file.
    #[error("genesis: {0}")]
    Genesis(String),
    /// A validator's proof of possession is not valid.
    #[error("genesis: validators[{index}].bls_possession does not prove possession of its BLS key")]
    Possession {
        /// Position of the validator.
        index: usize,
    },
    /// The keys are not those of a validator of the genesis file.
    #[error("keys: field `{field}`: expected {expected}, got {got}")]
    NotValidator {
        /// Field of the keys file.
        field: &'static str,
        /// By the genesis file.
        expected: String,
        /// Public part of the key.
        got: String,
    },
    /// The data folder belongs to another network.
    #[error(
        "{path} belongs to the network with genesis {got}, expected {expected}: use another data_dir, or the right genesis file"
    )]
    DataDir {
        /// The folder.
        path: PathBuf,
        /// Digest of this genesis.
        expected: B256,
        /// What the folder says.
        got: String,
    },
    /// The account that sends price feeds could not be used.
    #[error("field `oracle.relayer`: {0}")]
    Oracle(String),
    /// A file or folder could not be used.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An address could not be bound.
    #[error("field `{field}`: cannot listen on {address}: {source}")]
    Listen {
        /// Field of the configuration.
        field: &'static str,
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The seats of the current epoch could not be read from the state.
    #[error("seats: {0}")]
    Seats(String),
    /// Execution.
    #[error(transparent)]
    Execution(#[from] ExecutionError),
    /// Receipt index.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Consensus.
    #[error("consensus: {0}")]
    Consensus(#[from] Arc<ConsensusError>),
    /// Threads could not be started, or ended early.
    #[error("threads: {0}")]
    Threads(String),
}

/// Most nodes that one epoch's peers may be, where there are epochs: a hundred seats, and some that follow. A set that is larger
/// would stop the node, so it must not be below what the staking contract allows.
const MAX_PEERS: usize = 128;

/// A full node; see [`FullNode::start`].
#[derive(Debug)]
pub struct FullNode;

impl FullNode {
    /// Reads genesis and keys, opens the data folder and starts everything. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// [`NodeError`] saying what is wrong and where.
    pub async fn start(config: FullNodeConfig) -> Result<FullNodeHandle, NodeError> {
        let keys = Keys::load(&config.keys)?;
        let bytes = std::fs::read(&config.genesis).map_err(|source| NodeError::Io {
            path: config.genesis.clone(),
            source,
        })?;
        let genesis = GenesisFile::parse(&bytes).map_err(|source| NodeError::GenesisFile {
            path: config.genesis.clone(),
            source,
        })?;
        Self::start_with(config, genesis, keys).await
    }

    /// As [`Self::start`], with genesis and keys at hand; the configuration's paths to them are not read.
    ///
    /// # Errors
    /// [`NodeError`] saying what is wrong and where.
    pub async fn start_with(
        config: FullNodeConfig,
        genesis: GenesisFile,
        keys: Keys,
    ) -> Result<FullNodeHandle, NodeError> {
        let began = Instant::now();
        config.check(Path::new("configuration"))?;
        let digest = genesis.digest();
        let (validator_keys, members) = check_membership(&genesis, &keys)?;
        let identity = validator_keys.identity.public();
        let relayer = config
            .oracle
            .as_ref()
            .map(|oracle| oracle::load_relayer(&oracle.relayer));
        let relayer = relayer
            .transpose()
            .map_err(|error| NodeError::Oracle(error.to_string()))?;
        claim(&config.data_dir, digest)?;

        // bound first: a port in use is the commonest mistake, and found before anything else is touched
        let rpc = bind("rpc", config.rpc).await?;
        let metrics_listener = match config.metrics {
            Some(address) => Some(bind("metrics", address).await?),
            None => None,
        };
        let rpc_address = local(&rpc, "rpc", config.rpc)?;
        let metrics_address = metrics_listener
            .as_ref()
            .map(|l| local(l, "metrics", config.rpc))
            .transpose()?;

        let for_build = genesis.clone();
        let built = tokio::task::spawn_blocking(move || opg_genesis::build(&for_build))
            .await
            .map_err(|e| NodeError::Threads(e.to_string()))?;
        let built = built.map_err(|e| NodeError::Genesis(e.to_string()))?;
        let execution = Execution::open(built, config.data_dir.join("evm")).await?;
        let index = Arc::new(Index::open(&config.data_dir.join("receipts.redb"), digest)?);

        let evm_genesis = execution.genesis_hash();
        let shared = Shared::new(genesis, &keys, identity, config.limits.clone(), execution, index);
        let shared = Arc::new(shared.map_err(|e| NodeError::Threads(e.to_string()))?);
        let seats = shared.epochs.load(&shared.execution).await;
        seats.map_err(|error| NodeError::Seats(error.to_string()))?;

        let peers = peers(&config)?;
        let stop = CancellationToken::new();
        // An error below must not leave servers running.
        let unless_started = stop.clone().drop_guard();
        let front = Front::new(shared.clone(), stop.clone());
        // JSON-RPC answers from what is stored while consensus reads its journals.
        let mut tasks: Vec<JoinHandle<()>> = Vec::new();
        tasks.push(tokio::spawn(async move {
            if let Err(error) = front.serve(rpc).await {
                tracing::error!(%error, "JSON-RPC server ended");
            }
        }));
        if let Some(listener) = metrics_listener {
            let (health, stop) = (shared.clone(), stop.clone());
            tasks.push(tokio::spawn(async move {
                let served = axum::serve(listener, metrics::router(health))
                    .with_graceful_shutdown(async move { stop.cancelled().await });
                if let Err(error) = served.await {
                    tracing::error!(%error, "metrics server ended");
                }
            }));
        }
        let mut consensus_config = opg_consensus::Config::new(
            config.data_dir.join("consensus"),
            validator_keys,
            members,
            digest,
            evm_genesis,
            config.p2p,
            peers,
        );
        consensus_config.epoch_blocks = shared.genesis.parameters.epoch_blocks;
        consensus_config.max_peers = MAX_PEERS;
        let application = Arc::new(Chain(shared.clone()));
        let started = tokio::task::spawn_blocking(move || opg_consensus::start(consensus_config, application)).await;
        let consensus = started
            .map_err(|e| NodeError::Threads(e.to_string()))?
            .map_err(|e| NodeError::Consensus(Arc::new(e)))?;
        let inbound = consensus.gossip();
        let _ = shared.consensus.set(consensus.clone());

        if let Some(inbound) = inbound {
            tasks.push(tokio::spawn(gossip::receive(shared.clone(), inbound, stop.clone())));
        }
        tasks.push(tokio::spawn(gossip::repeat(shared.clone(), stop.clone())));
        if let (Some(oracle), Some(relayer)) = (config.oracle, relayer) {
            tasks.push(tokio::spawn(oracle::run(shared.clone(), oracle, relayer, stop.clone())));
        }
        unless_started.disarm();
        let head = shared.execution.head();
        tracing::info!(%identity, height = head.number, rpc = %rpc_address, p2p = %config.p2p, elapsed = ?began.elapsed(), "full node started");
        Ok(FullNodeHandle {
            shared,
            consensus,
            stop,
            tasks,
            rpc_address,
            metrics_address,
        })
    }
}

/// A running full node.
#[derive(Debug)]
pub struct FullNodeHandle {
    shared: Arc<Shared>,
    consensus: opg_consensus::Handle,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
    rpc_address: SocketAddr,
    metrics_address: Option<SocketAddr>,
}

impl FullNodeHandle {
    /// URL of JSON-RPC over HTTP; the same address takes WebSocket connections.
    pub fn rpc_url(&self) -> String {
        format!("http://{}", self.rpc_address)
    }

    /// Address of JSON-RPC.
    pub fn rpc_address(&self) -> SocketAddr {
        self.rpc_address
    }

    /// URL of the metrics, if they are served.
    pub fn metrics_url(&self) -> Option<String> {
        self.metrics_address.map(|address| format!("http://{address}/metrics"))
    }

    /// What the node is doing.
    pub fn status(&self) -> Status {
        self.shared.current()
    }

    /// Digest of the network's genesis file.
    pub fn genesis_digest(&self) -> B256 {
        self.shared.genesis_digest
    }

    /// Resolves when consensus has ended; an error is fatal: the process must not go on.
    ///
    /// # Errors
    /// Why it ended, unless it was stopped in order.
    pub async fn stopped(&self) -> Result<(), NodeError> {
        match self.consensus.stopped().await {
            Some(error) => Err(NodeError::Consensus(error)),
            None => Ok(()),
        }
    }

    /// Stops accepting requests, then consensus, then flushes execution. The node continues from here when it starts again; after a
    /// kill it does too.
    ///
    /// # Errors
    /// The first thing that did not stop in order.
    pub async fn shutdown(self) -> Result<(), NodeError> {
        self.stop.cancel();
        let stopped = self
            .consensus
            .shutdown()
            .await
            .map_err(|e| NodeError::Consensus(Arc::new(e)));
        for task in self.tasks {
            let abort = task.abort_handle();
            if tokio::time::timeout(DRAIN, task).await.is_err() {
                abort.abort();
            }
        }
        let flushed = self.shared.execution.shutdown().await;
        stopped?;
        Ok(flushed?)
    }
}

/// Checks the validators' proofs of possession, and that the keys are those of one of them.
fn check_membership(genesis: &GenesisFile, keys: &Keys) -> Result<(ValidatorKeys, Vec<Participant>), NodeError> {
    let not = |field, expected: &dyn std::fmt::Display, got: &dyn std::fmt::Display| NodeError::NotValidator {
        field,
        expected: expected.to_string(),
        got: got.to_string(),
    };
    let bad_key = |field: &'static str| {
        move |_| NodeError::NotValidator {
            field,
            expected: "a usable key".into(),
            got: "an invalid one".into(),
        }
    };
    let identity = IdentityKey::from_hex(&hex::encode(keys.identity)).map_err(bad_key("identity"))?;
    let bls = BlsKey::from_hex(&hex::encode(keys.bls)).map_err(bad_key("bls"))?;
    let mut members = Vec::with_capacity(genesis.validators.len());
    for (index, validator) in genesis.validators.iter().enumerate() {
        let key = BlsPublicKey(validator.bls.0);
        let context = possession_namespace(genesis.chain_id, validator.operator, 0);
        if !verify_possession(&key, &context, &validator.bls_possession.0) {
            return Err(NodeError::Possession { index });
        }
        members.push(Participant {
            identity: Identity(validator.identity.0),
            bls: key,
        });
    }
    let me = identity.public();
    let entry = genesis.validators.iter().find(|v| v.identity.0 == me.0);
    if genesis.parameters.epoch_blocks > 0 {
        // Seats change hands, and keys with them: whoever has none follows until it has.
        return Ok((ValidatorKeys { identity, bls }, members));
    }
    let Some(entry) = entry else {
        return Err(not("identity", &"the identity of a validator of the genesis file", &me));
    };
    if bls.public().0 != entry.bls.0 {
        return Err(not("bls", &BlsPublicKey(entry.bls.0), &bls.public()));
    }
    let system = address_of_secret(&keys.system);
    if system != entry.system {
        return Err(not("system", &entry.system, &system));
    }
    Ok((ValidatorKeys { identity, bls }, members))
}

fn peers(config: &FullNodeConfig) -> Result<Vec<Peer>, NodeError> {
    let wrong = |i: usize, got: &str| ConfigError::Field {
        path: "configuration".into(),
        field: format!("peers[{i}].identity"),
        expected: "64 hex digits".into(),
        got: got.into(),
    };
    let parse = |(i, peer): (usize, &crate::config::PeerConfig)| {
        let identity = crate::config::bytes_of::<32>(&peer.identity).ok_or_else(|| wrong(i, &peer.identity))?;
        Ok(Peer {
            identity: Identity(identity),
            address: peer.address,
        })
    };
    config.peers.iter().enumerate().map(parse).collect()
}

/// Creates the data folder, or checks that it is this network's.
fn claim(dir: &Path, digest: B256) -> Result<(), NodeError> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| NodeError::Io { path, source }
    };
    std::fs::create_dir_all(dir).map_err(io(dir))?;
    let marker = dir.join(MARKER);
    match std::fs::read_to_string(&marker) {
        Ok(text) if text.trim() == format!("{digest:#x}") => Ok(()),
        Ok(text) => Err(NodeError::DataDir {
            path: dir.into(),
            expected: digest,
            got: text.trim().chars().take(80).collect(),
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::write(&marker, format!("{digest:#x}\n")).map_err(io(&marker))
        }
        Err(source) => Err(NodeError::Io { path: marker, source }),
    }
}

async fn bind(field: &'static str, address: SocketAddr) -> Result<TcpListener, NodeError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| NodeError::Listen { field, address, source })
}

fn local(listener: &TcpListener, field: &'static str, address: SocketAddr) -> Result<SocketAddr, NodeError> {
    listener
        .local_addr()
        .map_err(|source| NodeError::Listen { field, address, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_folder_belongs_to_one_network() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("a/b");
        claim(&data, B256::repeat_byte(1)).unwrap();
        claim(&data, B256::repeat_byte(1)).unwrap();
        let error = claim(&data, B256::repeat_byte(2)).unwrap_err().to_string();
        assert!(
            error.contains("0x0101") && error.contains("0x0202") && error.contains("data_dir"),
            "{error}"
        );
    }
}
