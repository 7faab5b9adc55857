//! Where a network is: `network.json`, the genesis file, and how a command finds them.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use alloy_primitives::{Address, B256};
use opg_contracts::{GenesisFile, addresses};
use serde::{Deserialize, Serialize};

use crate::wallet::{Wallet, WalletError};

/// Name of the description inside a network's folder.
pub const NETWORK_FILE: &str = "network.json";
/// Environment variable that names a network's folder or its `network.json`.
pub const NETWORK_ENV: &str = "OPG_NETWORK";

const MAX_NETWORK_FILE: u64 = 1 << 20;
const MAX_GENESIS_FILE: u64 = 16 << 20;

/// Why no network could be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// Nothing says which network is meant.
    #[error("no network found; start one with `opg up`, or name one with --dir DIR or {NETWORK_ENV}=DIR")]
    NotFound,
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is larger than any honest one.
    #[error("{path}: larger than {max} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The bound in bytes.
        max: u64,
    },
    /// A file does not parse.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Field and place.
        reason: String,
    },
    /// `network.json` and the genesis file describe different chains.
    #[error("{path}: chain id {got}, but its genesis file says {expected}")]
    ChainId {
        /// The `network.json`.
        path: PathBuf,
        /// Chain id of the genesis file.
        expected: u64,
        /// Chain id of `network.json`.
        got: u64,
    },
    /// The network names no RPC endpoint.
    #[error("{path}: field `rpc` is empty")]
    NoRpc {
        /// The `network.json`.
        path: PathBuf,
    },
}

/// The contracts that a client talks to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Contracts {
    /// The OPG token.
    pub opg: Address,
    /// Roots of verified receipts and spent payments.
    pub receipt_ledger: Address,
    /// Nodes and their keysets.
    pub node_registry: Address,
    /// Models, creators and prices.
    pub model_registry: Address,
    /// Deposits and credits.
    pub fee_vault: Address,
    /// Validators and stake; absent if validators have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staking: Option<Address>,
    /// Where proposals are made and voted on; absent without governance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub governor: Option<Address>,
    /// Through which proposals are executed; absent without governance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timelock: Option<Address>,
    /// What governance spends; absent without governance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub treasury: Option<Address>,
}

impl Contracts {
    /// Where a genesis file puts them.
    #[must_use]
    pub fn of(genesis: &GenesisFile) -> Self {
        let parameters = &genesis.parameters;
        let governed = |address| parameters.governance.as_ref().map(|_| address);
        Self {
            staking: parameters.staking.as_ref().map(|_| addresses::STAKING),
            governor: governed(addresses::GOVERNOR),
            timelock: governed(addresses::TIMELOCK),
            treasury: governed(addresses::TREASURY),
            ..Self::PREDEPLOYED
        }
    }

    /// Those that every genesis has.
    pub const PREDEPLOYED: Self = Self {
        opg: addresses::OPG,
        receipt_ledger: addresses::RECEIPT_LEDGER,
        node_registry: addresses::NODE_REGISTRY,
        model_registry: addresses::MODEL_REGISTRY,
        fee_vault: addresses::FEE_VAULT,
        staking: None,
        governor: None,
        timelock: None,
        treasury: None,
    };
}

/// A key file and the account that it controls.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRef {
    /// The account.
    pub address: Address,
    /// Where the key is; relative paths count from the folder of `network.json`.
    pub key_file: PathBuf,
}

/// One service of the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// What it does: `inference`.
    pub role: String,
    /// Its node id in the registry.
    pub id: B256,
    /// Base URL of its HTTP API.
    pub url: String,
    /// Names of the models that it serves.
    pub models: Vec<String>,
}

/// Contracts of a deployment on another chain where OPG lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HomeContracts {
    /// OPG there.
    pub opg: Address,
    /// Whether that is one of no value, deployed because the canonical one is not on this chain.
    pub opg_development: bool,
    /// Light client of the network.
    pub checkpoint: Address,
    /// Deposits and payouts.
    pub fee_vault: Address,
    /// Implementation behind the deposit addresses there.
    pub deposit_implementation: Address,
    /// Payout roots; this one is on the network.
    pub payouts: Address,
    /// x402 contracts by name, if the plan asked for them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub x402: BTreeMap<String, Address>,
}

/// A chain where OPG lives, with what `opg deploy` put there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeEntry {
    /// Its name: `base`.
    pub name: String,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// JSON-RPC endpoints.
    pub rpc: Vec<String>,
    /// Contract addresses.
    pub contracts: HomeContracts,
}

/// The content of `network.json`. Fields of roles that do not exist are absent, and unknown ones are ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkFile {
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// The genesis file; relative paths count from the folder of `network.json`.
    pub genesis: PathBuf,
    /// JSON-RPC endpoints, any of which will do.
    pub rpc: Vec<String>,
    /// Base URL of the router, with its Oblivious HTTP relay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub router: Option<String>,
    /// Base URL of the model hub: the value of `HF_ENDPOINT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<String>,
    /// Prometheus endpoints.
    #[serde(default)]
    pub metrics: Vec<String>,
    /// Contract addresses.
    pub contracts: Contracts,
    /// The demo wallet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wallet: Option<KeyRef>,
    /// The account that `opg faucet` gives from; on development networks only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub faucet: Option<KeyRef>,
    /// The services.
    #[serde(default)]
    pub nodes: Vec<NodeEntry>,
    /// The chain where OPG lives, if it is another one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home: Option<HomeEntry>,
}

impl NetworkFile {
    /// Writes `DIR/network.json` so that a reader sees the old file or the new one, never a part: written beside it,
    /// synced, renamed, and the folder synced.
    ///
    /// # Errors
    /// If a step fails; the old file is then still there.
    pub fn write(&self, dir: &Path) -> Result<PathBuf, NetworkError> {
        let path = dir.join(NETWORK_FILE);
        let mut text = serde_json::to_string_pretty(self).map_err(|e| NetworkError::Malformed {
            path: path.clone(),
            reason: e.to_string(),
        })?;
        text.push('\n');
        write_atomically(&path, text.as_bytes())?;
        Ok(path)
    }
}

/// A network that a client can use: its description and its trust anchor.
#[derive(Debug, Clone)]
pub struct Network {
    /// Folder of `network.json`.
    pub dir: PathBuf,
    /// The description.
    pub file: NetworkFile,
    /// The genesis file, against which every proof is checked.
    pub genesis: GenesisFile,
}

impl Network {
    /// Reads a network from its folder, or from the path of its `network.json`.
    ///
    /// # Errors
    /// If a file is missing or malformed, or the two disagree about the chain.
    pub fn load(path: &Path) -> Result<Self, NetworkError> {
        let path = if path.is_dir() {
            path.join(NETWORK_FILE)
        } else {
            path.to_path_buf()
        };
        let path = std::path::absolute(&path).map_err(|source| NetworkError::Io {
            path: path.clone(),
            source,
        })?;
        let dir = path.parent().unwrap_or(Path::new(".")).to_path_buf();
        let mut file: NetworkFile = read_json(&path, MAX_NETWORK_FILE)?;
        file.genesis = dir.join(&file.genesis);
        for key in [&mut file.wallet, &mut file.faucet].into_iter().flatten() {
            key.key_file = dir.join(&key.key_file);
        }
        let genesis = load_genesis(&file.genesis)?;
        if genesis.chain_id != file.chain_id {
            return Err(NetworkError::ChainId {
                path,
                expected: genesis.chain_id,
                got: file.chain_id,
            });
        }
        if file.rpc.is_empty() {
            return Err(NetworkError::NoRpc { path });
        }
        Ok(Self { dir, file, genesis })
    }

    /// Finds the network that a command means: `--dir`, else `OPG_NETWORK`, else the last `opg up` of this user.
    ///
    /// # Errors
    /// If none is named, or the named one cannot be loaded.
    pub fn discover(dir: Option<&Path>) -> Result<Self, NetworkError> {
        Self::load(&locate(dir)?)
    }

    /// The demo wallet of a local network.
    ///
    /// # Errors
    /// If its key file cannot be used; `None` if the network names none.
    pub fn wallet(&self) -> Option<Result<Wallet, WalletError>> {
        self.file.wallet.as_ref().map(|key| Wallet::load(&key.key_file))
    }

    /// The inference node with this id.
    pub fn node(&self, id: alloy_primitives::B256) -> Option<&NodeEntry> {
        let mut nodes = self.file.nodes.iter();
        nodes.find(|node| node.role == "inference" && node.id == id)
    }

    /// The inference node that serves `model` (a name, or a root of which the name is known), or any if the
    /// description lists none.
    pub fn inference_node(&self, model: &str) -> Option<&NodeEntry> {
        let mut nodes = self.file.nodes.iter().filter(|node| node.role == "inference");
        let first = nodes.clone().next();
        nodes
            .find(|node| node.models.iter().any(|name| name == model))
            .or(first)
    }
}

/// The folder or file that [`Network::discover`] would load.
///
/// # Errors
/// If nothing names a network.
pub fn locate(dir: Option<&Path>) -> Result<PathBuf, NetworkError> {
    if let Some(dir) = dir {
        return Ok(dir.to_path_buf());
    }
    if let Some(path) = std::env::var_os(NETWORK_ENV).filter(|value| !value.is_empty()) {
        return Ok(path.into());
    }
    last_network()
        .filter(|dir| dir.join(NETWORK_FILE).exists())
        .ok_or(NetworkError::NotFound)
}

/// Reads a genesis file.
///
/// # Errors
/// If it is missing, too large, or not a genesis file.
pub fn load_genesis(path: &Path) -> Result<GenesisFile, NetworkError> {
    let bytes = read_bounded(path, MAX_GENESIS_FILE)?;
    GenesisFile::parse(&bytes).map_err(|error| NetworkError::Malformed {
        path: path.into(),
        reason: error.to_string(),
    })
}

/// The folder for this user's own files: state, default wallet, default network.
pub fn user_data_dir() -> Option<PathBuf> {
    directories::ProjectDirs::from("", "", "opg").map(|dirs| dirs.data_dir().to_path_buf())
}

/// Notes `dir` as the network that commands without `--dir` use.
///
/// # Errors
/// If the note cannot be written.
pub fn remember(dir: &Path) -> Result<(), NetworkError> {
    let Some(data) = user_data_dir() else { return Ok(()) };
    let dir = std::path::absolute(dir).map_err(|source| NetworkError::Io {
        path: dir.into(),
        source,
    })?;
    std::fs::create_dir_all(&data).map_err(|source| NetworkError::Io {
        path: data.clone(),
        source,
    })?;
    write_atomically(&data.join("last-network"), dir.as_os_str().as_encoded_bytes())
}

fn last_network() -> Option<PathBuf> {
    let bytes = read_bounded(&user_data_dir()?.join("last-network"), 1 << 16).ok()?;
    String::from_utf8(bytes).ok().map(PathBuf::from)
}

/// Replaces `path` by `bytes` in one step that survives a crash.
///
/// # Errors
/// If writing, syncing or renaming fails.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), NetworkError> {
    replace(path, bytes, false)
}

/// As [`write_atomically`], for a file that nobody but its owner may read.
///
/// # Errors
/// As [`write_atomically`].
pub fn write_secret_atomically(path: &Path, bytes: &[u8]) -> Result<(), NetworkError> {
    replace(path, bytes, true)
}

fn replace(path: &Path, bytes: &[u8], secret: bool) -> Result<(), NetworkError> {
    let io = |source| NetworkError::Io {
        path: path.into(),
        source,
    };
    let dir = path
        .parent()
        .filter(|p| !p.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let written = (|| {
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        #[cfg(unix)]
        if secret {
            use std::os::unix::fs::OpenOptionsExt as _;
            options.mode(0o600);
        }
        #[cfg(not(unix))]
        let _ = secret;
        let mut file = options.open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        std::fs::File::open(dir)?.sync_all()
    })();
    written.map_err(|source| {
        // The rename may have happened; a leftover that cannot be removed harms nobody.
        let _ = std::fs::remove_file(&temporary);
        io(source)
    })
}

pub(crate) fn read_bounded(path: &Path, max: u64) -> Result<Vec<u8>, NetworkError> {
    let io = |source| NetworkError::Io {
        path: path.into(),
        source,
    };
    let file = std::fs::File::open(path).map_err(io)?;
    let mut bytes = Vec::new();
    file.take(max + 1).read_to_end(&mut bytes).map_err(io)?;
    if bytes.len() as u64 > max {
        return Err(NetworkError::TooLarge { path: path.into(), max });
    }
    Ok(bytes)
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path, max: u64) -> Result<T, NetworkError> {
    let bytes = read_bounded(path, max)?;
    serde_json::from_slice(&bytes).map_err(|error| NetworkError::Malformed {
        path: path.into(),
        reason: error.to_string(),
    })
}
