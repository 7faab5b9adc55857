//! A second chain for development: the id of Base, one validator, no inference. What is deployed there is deployed by transactions, as on Base.
//!
//! ```text
//! genesis.json  deployer.key  lock  validator-0/{config.toml, keys.json, operator.key, data/}
//! ```
//! The predeploys of our own network are there too, since one kind of genesis serves both; deployments do not use them, except the
//! contracts that other chains have at the same addresses (CREATE2 deployer, Permit2, x402).

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use alloy_primitives::{FixedBytes, U64};
use opg_client::{EvmChain, KeyRef, Wallet, load_genesis, write_atomically};
use opg_consensus::keys::{BlsKey, IdentityKey, ValidatorKeys, proof_of_possession};
use opg_contracts::{
    AccountAllocation, GenesisFile, Parameters, ValidatorEntry,
    genesis_file::{SUPPLY, VERSION},
    possession_namespace,
};
use opg_full_node::{
    FullNode, FullNodeHandle,
    config::{FullNodeConfig, Keys, KeysFile},
};
use opg_primitives::money::{Amount, WEI_PER_OPG};
use serde_json::json;

use crate::{DevnetError, lock::DirLock, ports::Ports};

/// Chain id of Base.
pub const HOME_CHAIN_ID: u64 = 8_453;
/// First port of a local home chain: above those of a local network.
pub const DEFAULT_HOME_PORT_BASE: u16 = 9_545;

const READY_TIMEOUT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// A running chain with Base's id.
#[derive(Debug)]
pub struct RunningHome {
    dir: PathBuf,
    rpc: String,
    deployer: KeyRef,
    node: FullNodeHandle,
    _lock: DirLock,
}

impl RunningHome {
    /// Starts the chain in `dir`, or continues it, and waits for a block.
    ///
    /// # Errors
    /// If the folder or a port is in use, a file is malformed, or no block is made.
    pub async fn up(dir: &Path, port_base: Option<u16>) -> Result<Self, DevnetError> {
        let dir = std::path::absolute(dir).map_err(|source| DevnetError::io(dir, source))?;
        std::fs::create_dir_all(&dir).map_err(|source| DevnetError::io(&dir, source))?;
        let lock = DirLock::acquire(&dir)?;
        let ports = Ports(port_base.unwrap_or(DEFAULT_HOME_PORT_BASE));
        if !dir.join("genesis.json").exists() {
            create(&dir)?;
        }
        let genesis = load_genesis(&dir.join("genesis.json"))?;
        if genesis.chain_id != HOME_CHAIN_ID {
            return Err(DevnetError::Malformed {
                path: dir.join("genesis.json"),
                reason: format!("chain id {}, expected {HOME_CHAIN_ID}", genesis.chain_id),
            });
        }
        let role = dir.join("validator-0");
        let config = FullNodeConfig {
            genesis: dir.join("genesis.json"),
            keys: role.join("keys.json"),
            data_dir: role.join("data"),
            rpc: ports.rpc(0),
            p2p: ports.p2p(0),
            metrics: None,
            peers: Vec::new(),
            limits: Default::default(),
            oracle: None,
        };
        for address in [config.rpc, config.p2p] {
            std::net::TcpListener::bind(address).map_err(|source| DevnetError::Port { address, source })?;
        }
        let rpc = format!("http://{}", config.rpc);
        let node = FullNode::start(config)
            .await
            .map_err(|error| DevnetError::role("home chain", error))?;
        let key_file = dir.join("deployer.key");
        let deployer = KeyRef {
            address: Wallet::load(&key_file)?.address(),
            key_file,
        };
        wait_ready(&rpc).await?;
        Ok(Self {
            dir,
            rpc,
            deployer,
            node,
            _lock: lock,
        })
    }

    /// Its folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its JSON-RPC endpoint.
    #[must_use]
    pub fn rpc(&self) -> &str {
        &self.rpc
    }

    /// The account that holds its native coin.
    #[must_use]
    pub const fn deployer(&self) -> &KeyRef {
        &self.deployer
    }

    /// Resolves when the chain stops by itself, with the reason.
    pub async fn failed(&mut self) -> DevnetError {
        DevnetError::stopped("home chain", self.node.stopped().await)
    }

    /// Stops the chain in order.
    ///
    /// # Errors
    /// If it did not stop in an orderly way.
    pub async fn shutdown(self) -> Result<(), DevnetError> {
        let stopped = self.node.shutdown().await;
        stopped.map_err(|error| DevnetError::role("home chain", error))
    }
}

async fn wait_ready(rpc: &str) -> Result<(), DevnetError> {
    let start = Instant::now();
    let chain = EvmChain::connect(vec![rpc.to_owned()], HOME_CHAIN_ID).await?;
    let mut first = None;
    loop {
        if let Ok(height) = chain.rpc().call::<_, U64>("eth_blockNumber", json!([])).await
            && height > *first.get_or_insert(height)
        {
            return Ok(());
        }
        if start.elapsed() > READY_TIMEOUT {
            return Err(DevnetError::NotReady {
                seconds: READY_TIMEOUT.as_secs(),
                missing: "the home chain made no block".into(),
            });
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Makes keys and, last, the genesis file.
fn create(dir: &Path) -> Result<(), DevnetError> {
    let role = dir.join("validator-0");
    std::fs::create_dir_all(&role).map_err(|source| DevnetError::io(&role, source))?;
    let wallet = |path: PathBuf| -> Result<Wallet, DevnetError> {
        if path.exists() {
            return Ok(Wallet::load(&path)?);
        }
        let wallet = Wallet::random()?;
        wallet.save(&path)?;
        Ok(wallet)
    };
    let deployer = wallet(dir.join("deployer.key"))?.address();
    let operator = wallet(role.join("operator.key"))?.address();
    let validator = validator(&role.join("keys.json"), operator)?;
    let million = 1_000_000 * WEI_PER_OPG;
    let native = |label: &str, address, native| AccountAllocation {
        label: label.into(),
        address,
        native: Amount(native),
        wrapped: Amount::ZERO,
    };
    let timestamp = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |now| now.as_secs())
        - 1;
    let file = GenesisFile {
        version: VERSION,
        chain_id: HOME_CHAIN_ID,
        development: true,
        timestamp,
        allocations: vec![
            native("home chain deployer", deployer, SUPPLY - million),
            native("home chain system", validator.system, million),
        ],
        vesting: Vec::new(),
        airdrop: None,
        validators: vec![validator],
        parameters: Parameters::development(deployer),
        evidence: None,
        nodes: Vec::new(),
        models: Vec::new(),
        asks: Vec::new(),
    };
    file.validate()
        .map_err(|error| DevnetError::Genesis(error.to_string()))?;
    write_atomically(&dir.join("genesis.json"), file.to_json().as_bytes())?;
    Ok(())
}

/// Makes or loads the validator's keys and gives their public halves.
fn validator(path: &Path, operator: alloy_primitives::Address) -> Result<ValidatorEntry, DevnetError> {
    let malformed = |reason: String| DevnetError::Malformed {
        path: path.into(),
        reason,
    };
    if !path.exists() {
        let keys = ValidatorKeys::generate();
        let file = KeysFile {
            identity: keys.identity.to_hex(),
            bls: keys.bls.to_hex(),
            system: hex::encode(Wallet::random()?.secret_key().secret_bytes()),
        };
        let keys = Keys::decode(&file, path).map_err(|error| malformed(error.to_string()))?;
        keys.save(path).map_err(|error| malformed(error.to_string()))?;
    }
    let keys = Keys::load(path).map_err(|error| malformed(error.to_string()))?;
    let identity = IdentityKey::from_hex(&hex::encode(keys.identity)).map_err(|error| malformed(error.to_string()))?;
    let bls = BlsKey::from_hex(&hex::encode(keys.bls)).map_err(|error| malformed(error.to_string()))?;
    let context = possession_namespace(HOME_CHAIN_ID, operator, 0);
    Ok(ValidatorEntry {
        name: "home-0".into(),
        identity: identity.public().0.into(),
        bls: FixedBytes::from(bls.public().0),
        bls_possession: FixedBytes::from(proof_of_possession(&bls, &context)),
        system: Wallet::from_key(keys.system).address(),
        operator,
    })
}
