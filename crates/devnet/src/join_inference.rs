//! One more inference node for a network that is there: keys and configuration.

use std::{
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use alloy_primitives::{Address, B256};
use opg_client::{Network, Wallet};
use opg_inference_node::config::{InferenceNodeConfig, Limits, ModelConfig, ModelKind};
use serde::Serialize;

use crate::{
    DevnetError,
    layout::{inference_keys, make_dir, write_inference_node},
};

/// What the new node serves, and where.
#[derive(Debug, Clone)]
pub struct InferenceOptions {
    /// Models by the names that they are registered under, each with its file.
    pub models: Vec<(String, PathBuf)>,
    /// Where it listens; a free port of this machine if it is not said.
    pub listen: Option<SocketAddr>,
    /// Its base URL for others, where that differs.
    pub public_url: Option<String>,
}

/// What [`crate::Devnet::join_inference`] wrote.
#[derive(Debug, Clone, Serialize)]
pub struct JoinedInference {
    /// The folder.
    pub dir: PathBuf,
    /// Its configuration, for `opg node inference`.
    pub config: PathBuf,
    /// Key of the account that will own the node.
    pub operator_key: PathBuf,
    /// That account.
    pub operator: Address,
    /// Account that pays the gas of settlements.
    pub settlement: Address,
    /// The node's id, once the operator has registered it.
    pub id: B256,
    /// Its base URL.
    pub url: String,
}

pub(crate) fn join(network: &Network, out: &Path, options: InferenceOptions) -> Result<JoinedInference, DevnetError> {
    let dir = std::path::absolute(out).map_err(|source| DevnetError::io(out, source))?;
    let path = dir.join("config.toml");
    if path.exists() {
        return Err(DevnetError::NodeExists { dir });
    }
    let mut models = Vec::new();
    for (name, file) in options.models {
        let file = std::path::absolute(&file).map_err(|source| DevnetError::io(&file, source))?;
        let kind = match file.extension().and_then(|end| end.to_str()) {
            Some("onnx") => ModelKind::Onnx,
            Some("gguf") => ModelKind::Gguf,
            _ => return Err(DevnetError::ModelKind { path: file }),
        };
        if !file.is_file() {
            let source = std::io::Error::from(std::io::ErrorKind::NotFound);
            return Err(DevnetError::io(&file, source));
        }
        models.push(ModelConfig {
            name,
            path: file,
            kind,
            program: None,
            upstream: None,
            usd: None,
            hub: None,
        });
    }
    let free = || {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).ok()?;
        listener.local_addr().ok()
    };
    let listen = options
        .listen
        .or_else(free)
        .ok_or(DevnetError::NoAddress { option: "--listen" })?;

    make_dir(&dir)?;
    let operator_key = dir.join("operator.key");
    let operator = if operator_key.exists() {
        Wallet::load(&operator_key)?
    } else {
        let wallet = Wallet::random()?;
        wallet.save(&operator_key)?;
        wallet
    };
    let keys = inference_keys(&dir.join("keys.json"))?;
    let config = InferenceNodeConfig {
        chain_id: network.file.chain_id,
        operator: operator.address(),
        salt: B256::ZERO,
        keys: dir.join("keys.json"),
        data_dir: dir.join("data"),
        listen,
        public_url: options.public_url,
        rpc: network.file.rpc.clone(),
        limits: Limits::default(),
        exposure: Default::default(),
        channels: Default::default(),
        facilitator_for_others: false,
        attestation: None,
        model_store: None,
        engine: Default::default(),
        models,
    };
    config.check().map_err(|error| crate::layout::malformed(&path, error))?;
    // Last: a folder without it is one whose making was interrupted.
    write_inference_node(&path, &config)?;
    Ok(JoinedInference {
        config: path,
        operator: operator.address(),
        settlement: keys.settlement_address(),
        id: config.node_id().0,
        url: config.url(),
        operator_key,
        dir,
    })
}
