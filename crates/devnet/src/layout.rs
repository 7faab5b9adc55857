//! The folder of a network: what is where, made once and opened again.
//!
//! ```text
//! genesis.json  network.json  demo.key  faucet.key  creator.key  treasury.key  lock
//! models/OWNER/NAME/model.{onnx,gguf}
//! validator-N/{config.toml, keys.json, operator.key, data/}
//! inference/{config.toml, keys.json, operator.key, data/}
//! router/config.toml
//! hub/{config.toml, data/}
//! ```
//! `genesis.json` is written last: a folder without it is one whose making was interrupted, and is completed with
//! the keys that are there already.

use std::{
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use alloy_primitives::{B256, FixedBytes};
use opg_attester::{Attester as _, Choice, SoftwareAttester, SoftwareFormat};
use opg_client::{Contracts, KeyRef, NETWORK_FILE, Network, NetworkFile, NodeEntry, Wallet, write_atomically};
use opg_consensus::keys::{BlsKey, IdentityKey, ValidatorKeys, proof_of_possession};
use opg_contracts::{DevelopmentRoot, EvidenceSetup, GenesisFile, ValidatorEntry, possession_namespace};
use opg_full_node::config::{FullNodeConfig, Keys, KeysFile, PeerConfig};
use opg_hub::config::{ChainConfig, HubConfig};
use opg_inference_node::config::{
    AttestationConfig, AttesterName, ChannelSettings, HubModel, InferenceNodeConfig, Limits, MIN_WITHDRAW_DELAY,
    ModelConfig, ModelKind, ModelStoreConfig, NodeKeys, SoftwareConfig, SoftwareFormatName,
};
use opg_models::Format;
use opg_router::config::RouterConfig;

use crate::{
    DevnetError,
    assets::DEMO_MODELS,
    genesis::{self, Accounts},
    ports::{DEFAULT_PORT_BASE, Ports},
};

/// A network's folder with everything that its roles need to start.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) dir: PathBuf,
    pub(crate) genesis: GenesisFile,
    pub(crate) network: NetworkFile,
    pub(crate) validators: Vec<PathBuf>,
    pub(crate) inference: PathBuf,
    pub(crate) router: PathBuf,
    pub(crate) hub: PathBuf,
}

impl Layout {
    /// Opens the network in `dir`, or makes one.
    pub(crate) fn open_or_create(
        dir: &Path,
        validators: Option<u16>,
        port_base: Option<u16>,
        parameters: Option<&Path>,
    ) -> Result<Self, DevnetError> {
        let dir = std::path::absolute(dir).map_err(|source| DevnetError::io(dir, source))?;
        if !dir.join("genesis.json").exists() {
            create(
                &dir,
                validators.unwrap_or(4),
                Ports(port_base.unwrap_or(DEFAULT_PORT_BASE)),
                parameters,
            )?;
        } else if parameters.is_some() {
            return Err(DevnetError::ParametersOfExisting { dir });
        }
        let layout = Self::open(&dir)?;
        if let Some(expected) = validators.filter(|n| usize::from(*n) != layout.validators.len()) {
            let got = layout.validators.len();
            return Err(DevnetError::Validators { dir, expected, got });
        }
        match port_base.map(Ports) {
            Some(ports) if ports != layout.ports()? => {
                layout.write_configs(ports)?;
                Self::open(&dir)
            }
            _ => Ok(layout),
        }
    }

    fn open(dir: &Path) -> Result<Self, DevnetError> {
        let genesis = opg_client::load_genesis(&dir.join("genesis.json"))?;
        let validators: Vec<_> = (0..genesis.validators.len())
            .map(|i| role_dir(dir, i).join("config.toml"))
            .collect();
        let mut layout = Self {
            dir: dir.into(),
            network: NetworkFile {
                chain_id: genesis.chain_id,
                genesis: dir.join("genesis.json"),
                rpc: Vec::new(),
                router: None,
                hub: None,
                metrics: Vec::new(),
                contracts: Contracts::of(&genesis),
                wallet: None,
                faucet: None,
                nodes: Vec::new(),
                // What was deployed elsewhere is not in the configurations.
                home: Network::load(dir).ok().and_then(|network| network.file.home),
            },
            genesis,
            validators,
            inference: dir.join("inference").join("config.toml"),
            router: dir.join("router").join("config.toml"),
            hub: dir.join("hub").join("config.toml"),
        };
        if !layout.hub.exists() {
            // A folder from before networks had a hub.
            let ports = layout.ports()?;
            let count = u16::try_from(layout.validators.len()).unwrap_or(u16::MAX);
            write_new_hub(&layout.hub, ports, count)?;
        }
        if !layout.router.exists() {
            // A folder from before networks had a router.
            layout.write_router(layout.ports()?)?;
        }
        layout.describe()?;
        Ok(layout)
    }

    /// Fills the description from the configurations, which the user may have edited.
    fn describe(&mut self) -> Result<(), DevnetError> {
        for config in self.full_nodes()? {
            self.network.rpc.push(format!("http://{}", config.rpc));
            self.network
                .metrics
                .extend(config.metrics.map(|address| format!("http://{address}/metrics")));
        }
        let inference = self.inference_node()?;
        let url = inference.url();
        self.network.metrics.push(format!("{url}/metrics"));
        self.network.nodes.push(NodeEntry {
            role: "inference".into(),
            id: inference.node_id().0,
            url,
            models: inference.models.iter().map(|model| model.name.clone()).collect(),
        });
        let router = self.router()?.listen;
        self.network.router = Some(format!("http://{router}"));
        self.network.metrics.push(format!("http://{router}/metrics"));
        let hub = self.hub()?;
        let url = hub.public_url.unwrap_or_else(|| format!("http://{}", hub.listen));
        self.network.metrics.push(format!("{url}/metrics"));
        self.network.hub = Some(url);
        let key = |name: &str| -> Result<KeyRef, DevnetError> {
            let key_file = self.dir.join(name);
            Ok(KeyRef {
                address: Wallet::load(&key_file)?.address(),
                key_file,
            })
        };
        (self.network.wallet, self.network.faucet) = (Some(key("demo.key")?), Some(key("faucet.key")?));
        Ok(())
    }

    /// Configurations of the full nodes.
    pub(crate) fn full_nodes(&self) -> Result<Vec<FullNodeConfig>, DevnetError> {
        self.validators
            .iter()
            .map(|path| FullNodeConfig::load(path).map_err(|error| malformed(path, error)))
            .collect()
    }

    /// Configuration of the inference node.
    pub(crate) fn inference_node(&self) -> Result<InferenceNodeConfig, DevnetError> {
        InferenceNodeConfig::load(&self.inference).map_err(|error| malformed(&self.inference, error))
    }

    /// Configuration of the router.
    pub(crate) fn router(&self) -> Result<RouterConfig, DevnetError> {
        RouterConfig::load(&self.router).map_err(|error| malformed(&self.router, error))
    }

    /// Configuration of the hub.
    pub(crate) fn hub(&self) -> Result<HubConfig, DevnetError> {
        HubConfig::load(&self.hub).map_err(|error| malformed(&self.hub, error))
    }

    /// Writes the router's configuration: all full nodes of this network, and nodes on this machine.
    fn write_router(&self, ports: Ports) -> Result<(), DevnetError> {
        let count = u16::try_from(self.validators.len()).unwrap_or(u16::MAX);
        write_router(&self.router, ports, count)
    }

    fn ports(&self) -> Result<Ports, DevnetError> {
        Ok(Ports(
            self.full_nodes()?
                .first()
                .map_or(DEFAULT_PORT_BASE, |config| config.rpc.port()),
        ))
    }

    /// Writes the configurations for other ports. Everything else that a user may have changed stays.
    fn write_configs(&self, ports: Ports) -> Result<(), DevnetError> {
        let mut rpc = Vec::new();
        for ((i, path), mut config) in (0u16..).zip(&self.validators).zip(self.full_nodes()?) {
            (config.rpc, config.p2p) = (ports.rpc(i), ports.p2p(i));
            config.metrics = config.metrics.map(|_| ports.metrics(i));
            for peer in &mut config.peers {
                let index = self
                    .genesis
                    .validators
                    .iter()
                    .position(|v| hex::encode(v.identity) == peer.identity);
                if let Some(index) = index.and_then(|index| u16::try_from(index).ok()) {
                    peer.address = ports.p2p(index);
                }
            }
            rpc.push(format!("http://{}", config.rpc));
            write_full_node(path, config)?;
        }
        let mut hub = self.hub()?;
        let before = format!("http://{}", hub.listen);
        hub.listen = ports.hub();
        if let Some(chain) = &mut hub.chain {
            chain.rpc.clone_from(&rpc);
        }
        write_hub(&self.hub, hub)?;
        let mut config = self.inference_node()?;
        config.listen = ports.inference();
        config.rpc.clone_from(&rpc);
        for url in config.model_store.iter_mut().flat_map(|store| &mut store.hubs) {
            if *url == before {
                *url = format!("http://{}", ports.hub());
            }
        }
        write_inference_node(&self.inference, &config)?;
        let mut config = self.router()?;
        config.listen = ports.router();
        config.rpc = rpc;
        config.genesis = config.genesis.map(|genesis| relative(&self.router, genesis));
        let text = config.to_toml().map_err(|error| malformed(&self.router, error))?;
        Ok(write_atomically(&self.router, text.as_bytes())?)
    }

    /// Path of the description.
    pub(crate) fn network_file(&self) -> PathBuf {
        self.dir.join(NETWORK_FILE)
    }
}

/// Makes keys, models, configurations and, last, the genesis file.
fn create(dir: &Path, validators: u16, ports: Ports, parameters: Option<&Path>) -> Result<(), DevnetError> {
    // Read first: nothing is made for a file that is not good.
    let chosen = match parameters {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|source| DevnetError::io(path, source))?;
            genesis::parameters_with(&text).map_err(|error| malformed(path, error))?
        }
        None => genesis::parameters(),
    };
    make_dir(dir)?;
    let wallet = |path: PathBuf| -> Result<Wallet, DevnetError> {
        if path.exists() {
            return Ok(Wallet::load(&path)?);
        }
        let wallet = Wallet::random()?;
        wallet.save(&path)?;
        Ok(wallet)
    };
    let models = dir.join("models");
    for model in DEMO_MODELS {
        model
            .write(&models)
            .map_err(|source| DevnetError::io(&model.path(&models), source))?;
    }

    let mut entries = Vec::new();
    for i in 0..usize::from(validators) {
        let role = role_dir(dir, i);
        make_dir(&role)?;
        let operator = wallet(role.join("operator.key"))?;
        entries.push(validator_entry(&role.join("keys.json"), i, operator.address())?);
    }
    for i in 0..validators {
        let peers = (0..validators).filter(|peer| *peer != i).map(|peer| PeerConfig {
            identity: hex::encode(entries[usize::from(peer)].identity),
            address: ports.p2p(peer),
        });
        let config = FullNodeConfig {
            genesis: "../genesis.json".into(),
            keys: "keys.json".into(),
            data_dir: "data".into(),
            rpc: ports.rpc(i),
            p2p: ports.p2p(i),
            metrics: Some(ports.metrics(i)),
            peers: peers.collect(),
            limits: Default::default(),
            oracle: None,
        };
        write_full_node(&role_dir(dir, i.into()).join("config.toml"), config)?;
    }

    let inference = dir.join("inference");
    make_dir(&inference)?;
    let operator = wallet(inference.join("operator.key"))?.address();
    let keys = inference_keys(&inference.join("keys.json"))?;
    // Nothing secret hangs on this seed: whoever knows it can only make evidence that says `simulated`.
    let software = SoftwareConfig {
        format: SoftwareFormatName::Tdx,
        seed: Wallet::random()?.secret_key().secret_bytes().into(),
    };
    let evidence = evidence_setup(&software, wallet(dir.join("treasury.key"))?.address())?;
    let models = DEMO_MODELS
        .iter()
        .map(|model| {
            let root = model.root().map_err(|error| DevnetError::Genesis(error.to_string()))?;
            Ok(ModelConfig {
                name: model.name.into(),
                path: PathBuf::new(),
                kind: match model.format {
                    Format::Gguf => ModelKind::Gguf,
                    _ => ModelKind::Onnx,
                },
                program: model.program_path(Path::new("../models")),
                upstream: None,
                usd: None,
                hub: Some(HubModel {
                    root,
                    repository: None,
                    revision: None,
                    file: None,
                }),
            })
        })
        .collect::<Result<Vec<_>, DevnetError>>()?;
    let config = InferenceNodeConfig {
        chain_id: genesis::CHAIN_ID,
        operator,
        salt: genesis::node_salt(),
        keys: "keys.json".into(),
        data_dir: "data".into(),
        listen: ports.inference(),
        public_url: None,
        rpc: (0..validators).map(|i| format!("http://{}", ports.rpc(i))).collect(),
        // Settlement at every block: on one machine nobody pays for the gas of small batches.
        limits: Limits {
            settle_interval_ms: 500,
            ..Limits::default()
        },
        exposure: Default::default(),
        // The least that the contract takes: on a local network nobody waits a day for a withdrawal.
        channels: ChannelSettings {
            withdraw_delay: MIN_WITHDRAW_DELAY,
            claim_value: opg_primitives::money::Amount(opg_primitives::money::WEI_PER_OPG / 1_000),
            ..ChannelSettings::default()
        },
        facilitator_for_others: true,
        attestation: Some(AttestationConfig {
            attester: AttesterName(Choice::Software),
            software: Some(software),
        }),
        model_store: Some(ModelStoreConfig::new(
            "model-cache".into(),
            vec![format!("http://{}", ports.hub())],
        )),
        engine: Default::default(),
        models,
    };
    write_inference_node(&inference.join("config.toml"), &config)?;
    write_router(&dir.join("router").join("config.toml"), ports, validators)?;
    write_new_hub(&dir.join("hub").join("config.toml"), ports, validators)?;

    let accounts = Accounts {
        demo: wallet(dir.join("demo.key"))?.address(),
        faucet: wallet(dir.join("faucet.key"))?.address(),
        creator: wallet(dir.join("creator.key"))?.address(),
        treasury: wallet(dir.join("treasury.key"))?.address(),
        node_operator: operator,
        settlement_key: keys.settlement_address(),
        receipt_key: B256::from(keys.receipt_key().verifying_key().to_bytes()),
        hpke_key: keys.hpke_key().map(|key| key.public().0.into()).unwrap_or_default(),
        evidence,
        endpoint: format!("http://{}", ports.inference()),
        validators: entries,
    };
    // A block is later than its parent by at least a second: with block 0 in the past, block 1 can be made at once.
    let timestamp = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |now| now.as_secs())
        - 1;
    let file = genesis::build(&accounts, timestamp, chosen).map_err(|error| match parameters {
        // Everything else in the file is ours.
        Some(path) => malformed(path, error),
        None => DevnetError::Genesis(error.to_string()),
    })?;
    write_atomically(&dir.join("genesis.json"), file.to_json().as_bytes())?;
    Ok(())
}

/// What evidence is judged by on a new local network: any measurement, under the root of its node's software attester.
fn evidence_setup(software: &SoftwareConfig, owner: alloy_primitives::Address) -> Result<EvidenceSetup, DevnetError> {
    let attester = SoftwareAttester::new(SoftwareFormat::Tdx, software.seed.0)
        .map_err(|error| DevnetError::Genesis(error.to_string()))?;
    let development_roots = attester
        .development_roots()
        .iter()
        .map(|root| DevelopmentRoot {
            kind: root.kind().as_str().into(),
            label: root.label().into(),
            der: root.der().to_vec().into(),
        })
        .collect();
    Ok(EvidenceSetup {
        owner,
        policy: "{}".into(),
        grace: 3_600,
        development_roots,
    })
}

/// Makes the three keys of a full node.
pub(crate) fn make_keys(path: &Path) -> Result<(), DevnetError> {
    let keys = ValidatorKeys::generate();
    let file = KeysFile {
        identity: keys.identity.to_hex(),
        bls: keys.bls.to_hex(),
        system: hex::encode(Wallet::random()?.secret_key().secret_bytes()),
    };
    let keys = Keys::decode(&file, path).map_err(|error| malformed(path, error))?;
    keys.save(path).map_err(|error| malformed(path, error))
}

/// Makes or loads the three keys of validator `i` and gives their public halves.
fn validator_entry(path: &Path, i: usize, operator: alloy_primitives::Address) -> Result<ValidatorEntry, DevnetError> {
    if !path.exists() {
        make_keys(path)?;
    }
    let keys = Keys::load(path).map_err(|error| malformed(path, error))?;
    let identity = IdentityKey::from_hex(&hex::encode(keys.identity)).map_err(|error| malformed(path, error))?;
    let bls = BlsKey::from_hex(&hex::encode(keys.bls)).map_err(|error| malformed(path, error))?;
    let context = possession_namespace(genesis::CHAIN_ID, operator, 0);
    Ok(ValidatorEntry {
        name: format!("validator-{i}"),
        identity: identity.public().0.into(),
        bls: FixedBytes::from(bls.public().0),
        bls_possession: FixedBytes::from(proof_of_possession(&bls, &context)),
        system: Wallet::from_key(keys.system).address(),
        operator,
    })
}

pub(crate) fn inference_keys(path: &Path) -> Result<NodeKeys, DevnetError> {
    if !path.exists() {
        let [receipt, settlement, hpke] = [Wallet::random()?, Wallet::random()?, Wallet::random()?];
        // Any 32 random bytes are a seed of an Ed25519 or X25519 key.
        let keys = NodeKeys {
            receipt: receipt.secret_key().secret_bytes(),
            settlement: *settlement.secret_key(),
            hpke: Some(hpke.secret_key().secret_bytes()),
        };
        keys.save(path).map_err(|error| malformed(path, error))?;
    }
    NodeKeys::load(path).map_err(|error| malformed(path, error))
}

pub(crate) fn role_dir(dir: &Path, i: usize) -> PathBuf {
    dir.join(format!("validator-{i}"))
}

/// Paths are written relative to the file, so that the folder can be moved.
pub(crate) fn write_full_node(path: &Path, mut config: FullNodeConfig) -> Result<(), DevnetError> {
    config.genesis = relative(path, config.genesis);
    config.keys = relative(path, config.keys);
    config.data_dir = relative(path, config.data_dir);
    let text = config.to_toml().map_err(|error| malformed(path, error))?;
    Ok(write_atomically(path, text.as_bytes())?)
}

fn write_router(path: &Path, ports: Ports, validators: u16) -> Result<(), DevnetError> {
    if let Some(folder) = path.parent() {
        make_dir(folder)?;
    }
    let rpc = (0..validators).map(|i| format!("http://{}", ports.rpc(i))).collect();
    let mut config = RouterConfig::new(ports.router(), genesis::CHAIN_ID, rpc);
    config.genesis = Some("../genesis.json".into());
    config.private_endpoints = true;
    let text = config.to_toml().map_err(|error| malformed(path, error))?;
    Ok(write_atomically(path, text.as_bytes())?)
}

/// Writes the configuration of a hub that reads the chain from all full nodes.
fn write_new_hub(path: &Path, ports: Ports, validators: u16) -> Result<(), DevnetError> {
    if let Some(folder) = path.parent() {
        make_dir(folder)?;
    }
    let mut config = HubConfig::new(ports.hub(), "data".into());
    config.chain = Some(ChainConfig {
        chain_id: genesis::CHAIN_ID,
        rpc: (0..validators).map(|i| format!("http://{}", ports.rpc(i))).collect(),
    });
    write_hub(path, config)
}

fn write_hub(path: &Path, mut config: HubConfig) -> Result<(), DevnetError> {
    config.data_dir = relative(path, config.data_dir);
    let text = config.to_toml().map_err(|error| malformed(path, error))?;
    Ok(write_atomically(path, text.as_bytes())?)
}

pub(crate) fn write_inference_node(path: &Path, config: &InferenceNodeConfig) -> Result<(), DevnetError> {
    let mut config = config.clone();
    config.keys = relative(path, config.keys);
    config.data_dir = relative(path, config.data_dir);
    if let Some(store) = &mut config.model_store {
        store.dir = relative(path, std::mem::take(&mut store.dir));
    }
    for model in &mut config.models {
        // A provider's model has no file, and one that is fetched none of its own.
        if model.upstream.is_none() && model.hub.is_none() {
            model.path = relative(path, std::mem::take(&mut model.path));
        }
        model.program = model.program.take().map(|program| relative(path, program));
    }
    Ok(write_atomically(path, config.to_toml().as_bytes())?)
}

/// `target` as seen from the folder of `file`, if it is there or one folder up.
fn relative(file: &Path, target: PathBuf) -> PathBuf {
    let Some(folder) = file.parent() else { return target };
    if let Ok(inside) = target.strip_prefix(folder) {
        return inside.into();
    }
    match folder.parent().map(|up| target.strip_prefix(up)) {
        Some(Ok(beside)) => Path::new("..").join(beside),
        _ => target,
    }
}

pub(crate) fn make_dir(dir: &Path) -> Result<(), DevnetError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir).map_err(|source| DevnetError::io(dir, source))
}

pub(crate) fn malformed(path: &Path, reason: impl std::fmt::Display) -> DevnetError {
    DevnetError::Malformed {
        path: path.into(),
        reason: reason.to_string(),
    }
}
