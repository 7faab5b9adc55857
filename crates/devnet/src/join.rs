//! One more full node for a network that is there: keys, configuration, a copy of the genesis file.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use alloy_primitives::Address;
use opg_client::{Network, Wallet, write_atomically};
use opg_full_node::config::{FullNodeConfig, PeerConfig};
use serde::Serialize;

use crate::{
    DevnetError,
    layout::{make_dir, make_keys, malformed, role_dir, write_full_node},
    ports::Ports,
};

/// Most nodes of one machine that get ports of their own.
const MAX_NODES: u16 = 20;

/// Where the new node listens, and whom it knows.
#[derive(Debug, Clone, Default)]
pub struct JoinOptions {
    /// Validators to connect to; those of the network's folder if there are none.
    pub peers: Vec<PeerConfig>,
    /// JSON-RPC.
    pub rpc: Option<SocketAddr>,
    /// Consensus p2p.
    pub p2p: Option<SocketAddr>,
    /// Metrics.
    pub metrics: Option<SocketAddr>,
}

/// What [`crate::Devnet::join`] wrote.
#[derive(Debug, Clone, Serialize)]
pub struct Joined {
    /// The folder.
    pub dir: PathBuf,
    /// Its configuration, for `opg node full`.
    pub config: PathBuf,
    /// Key of the account that will own the seat.
    pub operator_key: PathBuf,
    /// That account.
    pub operator: Address,
    /// JSON-RPC.
    pub rpc: String,
    /// Consensus p2p.
    pub p2p: SocketAddr,
}

pub(crate) fn join(network: &Network, out: &Path, options: JoinOptions) -> Result<Joined, DevnetError> {
    let dir = std::path::absolute(out).map_err(|source| DevnetError::io(out, source))?;
    let config = dir.join("config.toml");
    if config.exists() {
        return Err(DevnetError::NodeExists { dir });
    }
    let known = neighbours(network)?;
    let peers = match options.peers.as_slice() {
        [] if known.is_empty() => return Err(DevnetError::NoPeers),
        [] => {
            let peer = |(identity, config): &(String, FullNodeConfig)| PeerConfig {
                identity: identity.clone(),
                address: config.p2p,
            };
            known.iter().map(peer).collect()
        }
        _ => options.peers,
    };
    // Beside the others, where nobody listens.
    let base = known.first().map(|(_, first)| Ports(first.rpc.port()));
    let first = u16::try_from(known.len()).unwrap_or(MAX_NODES);
    let free = base.and_then(|base| {
        let slots = (first..MAX_NODES).map(|i| (base.rpc(i), base.p2p(i), base.metrics(i)));
        slots.into_iter().find(|(rpc, p2p, metrics)| {
            [rpc, p2p, metrics]
                .iter()
                .all(|address| TcpListener::bind(**address).is_ok())
        })
    });
    let listen = |given: Option<SocketAddr>, free: Option<SocketAddr>, option: &'static str| {
        given.or(free).ok_or(DevnetError::NoAddress { option })
    };
    let rpc = listen(options.rpc, free.map(|(rpc, ..)| rpc), "--rpc")?;
    let p2p = listen(options.p2p, free.map(|(_, p2p, _)| p2p), "--p2p")?;
    let metrics = options.metrics.or(free.map(|(.., metrics)| metrics));

    make_dir(&dir)?;
    let operator_key = dir.join("operator.key");
    let operator = if operator_key.exists() {
        Wallet::load(&operator_key)?
    } else {
        let wallet = Wallet::random()?;
        wallet.save(&operator_key)?;
        wallet
    };
    let keys = dir.join("keys.json");
    if !keys.exists() {
        make_keys(&keys)?;
    }
    // A copy: the node may move to another machine.
    write_atomically(&dir.join("genesis.json"), network.genesis.to_json().as_bytes())?;
    // Last: a folder without it is one whose making was interrupted.
    write_full_node(
        &config,
        FullNodeConfig {
            genesis: "genesis.json".into(),
            keys: "keys.json".into(),
            data_dir: "data".into(),
            rpc,
            p2p,
            metrics,
            peers,
            limits: Default::default(),
            oracle: None,
        },
    )?;
    Ok(Joined {
        config,
        operator_key,
        operator: operator.address(),
        rpc: format!("http://{rpc}"),
        p2p,
        dir,
    })
}

/// The validators whose configurations lie in the network's folder, by identity.
fn neighbours(network: &Network) -> Result<Vec<(String, FullNodeConfig)>, DevnetError> {
    let mut found = Vec::new();
    for (i, validator) in network.genesis.validators.iter().enumerate() {
        let path = role_dir(&network.dir, i).join("config.toml");
        if path.exists() {
            let config = FullNodeConfig::load(&path).map_err(|error| malformed(&path, error))?;
            found.push((hex::encode(validator.identity), config));
        }
    }
    Ok(found)
}
