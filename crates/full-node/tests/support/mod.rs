//! A network of full nodes in this process: keys, genesis, configuration, clients.
#![allow(dead_code, unreachable_pub, missing_docs, missing_debug_implementations)] // shared by test crates that use parts of it

use alloy_consensus::{SignableTransaction as _, TxEip1559, TxEnvelope};
use alloy_eips::eip2718::Encodable2718 as _;
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256};
use opg_consensus::keys::{BlsKey, IdentityKey, proof_of_possession};
use opg_contracts::{
    AccountAllocation, AskRegistration, GenesisFile, ModelRegistration, NodeRegistration, Parameters,
    ProgramRegistration, StakingParameters, ValidatorEntry, addresses,
    genesis_file::{SUPPLY, VERSION, possession_namespace},
    supply::STAKING_REWARDS,
};
use opg_full_node::{FullNode, FullNodeConfig, FullNodeHandle, Keys, Limits, PeerConfig};
use opg_payments::signature::{address_of_secret, sign_digest};
use opg_primitives::money::{Amount, Price, WEI_PER_OPG};
use secp256k1::SecretKey;
use serde_json::{Value, json};
use std::{
    net::{SocketAddr, TcpListener},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;

pub mod receipts;
pub mod socket;
pub mod votes;

pub const CHAIN: u64 = 10740;
pub const ROYALTY: u16 = 500;

pub fn secret(seed: u8) -> SecretKey {
    SecretKey::from_byte_array(&[seed; 32]).unwrap()
}

/// Account that holds native and wrapped OPG.
pub fn demo() -> SecretKey {
    secret(0xd1)
}

pub fn receipt_key() -> ed25519_dalek::SigningKey {
    ed25519_dalek::SigningKey::from_bytes(&[0x5e; 32])
}

pub fn price() -> Price {
    Price {
        per_call: Amount(1_000_000),
        per_mtok_in: Amount(2_000_000_000),
        per_mtok_out: Amount(8_000_000_000),
    }
}

pub fn model_root() -> B256 {
    B256::repeat_byte(0x77)
}

pub fn keys(i: u8) -> Keys {
    Keys {
        identity: [0x10 + i; 32],
        bls: [0x20 + i; 32],
        system: secret(0x30 + i),
    }
}

pub fn system_address(i: u8) -> Address {
    address_of_secret(&keys(i).system)
}

pub fn genesis() -> GenesisFile {
    let account = |seed| address_of_secret(&secret(seed));
    let parameters = Parameters::development(account(0x44));
    let node = NodeRegistration {
        operator: account(0x41),
        salt: B256::ZERO,
        endpoint: "http://127.0.0.1:1".into(),
        receipt_key: receipt_key().verifying_key().to_bytes().into(),
        settlement_key: account(0x42),
        hpke_key: B256::ZERO,
        bond: parameters.min_bond,
    };
    let validators: Vec<ValidatorEntry> = (0..4)
        .map(|i| {
            let keys = keys(i);
            let bls = BlsKey::from_hex(&hex::encode(keys.bls)).unwrap();
            let operator = account(0x50 + i);
            ValidatorEntry {
                name: format!("validator-{i}"),
                identity: IdentityKey::from_hex(&hex::encode(keys.identity))
                    .unwrap()
                    .public()
                    .0
                    .into(),
                bls: bls.public().0.into(),
                bls_possession: proof_of_possession(&bls, &possession_namespace(CHAIN, operator, 0)).into(),
                system: address_of_secret(&keys.system),
                operator,
            }
        })
        .collect();
    let mut allocations: Vec<AccountAllocation> = validators
        .iter()
        .map(|v| AccountAllocation {
            label: v.name.clone(),
            address: v.system,
            native: Amount(WEI_PER_OPG),
            wrapped: Amount::ZERO,
        })
        .collect();
    let mut hold = |label: &str, address, native: u128, wrapped: u128| {
        allocations.push(AccountAllocation {
            label: label.into(),
            address,
            native: Amount(native),
            wrapped: Amount(wrapped),
        });
    };
    hold("demo", account(0xd1), 1_000 * WEI_PER_OPG, 1_000 * WEI_PER_OPG);
    hold("node operator", node.operator, 0, node.bond.0);
    let used: u128 = allocations.iter().map(|a| a.native.0 + a.wrapped.0).sum();
    allocations.push(AccountAllocation {
        label: "rest".into(),
        address: account(0x45),
        native: Amount::ZERO,
        wrapped: Amount(SUPPLY - used),
    });
    let file = GenesisFile {
        version: VERSION,
        vesting: vec![],
        airdrop: None,
        evidence: None,
        chain_id: CHAIN,
        development: true,
        timestamp: SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - 1,
        validators,
        asks: vec![AskRegistration {
            node_id: node.node_id(),
            root: model_root(),
            price: price(),
        }],
        nodes: vec![node],
        models: vec![ModelRegistration {
            name: "test/model".into(),
            root: model_root(),
            creator: account(0x43),
            uri: String::new(),
            royalty_bps: ROYALTY,
            price: price(),
            programs: vec![ProgramRegistration {
                root: opg_samples::proof::program_root(),
                report: "{}".into(),
            }],
        }],
        allocations,
        parameters,
    };
    file.validate().unwrap();
    file
}

/// Stake that each validator of [`staked`] has behind itself.
pub const STAKE: u128 = 1_000 * WEI_PER_OPG;

/// [`genesis`] whose validators have [`STAKE`] each; a verdict is executed after `appeal_window` seconds.
pub fn staked(appeal_window: u64) -> GenesisFile {
    let mut file = genesis();
    file.parameters.staking = Some(StakingParameters {
        min_self_bond: Amount(STAKE),
        appeal_window,
        ..StakingParameters::default()
    });
    let mut rest = file.allocations.pop().unwrap();
    for validator in &file.validators {
        rest.wrapped.0 -= STAKE;
        file.allocations.push(AccountAllocation {
            label: format!("{} operator", validator.name),
            address: validator.operator,
            native: Amount::ZERO,
            wrapped: Amount(STAKE),
        });
    }
    rest.wrapped.0 -= STAKING_REWARDS.total.0;
    file.allocations.push(AccountAllocation {
        label: STAKING_REWARDS.label.into(),
        address: STAKING_REWARDS.address,
        native: Amount::ZERO,
        wrapped: STAKING_REWARDS.total,
    });
    file.allocations.push(rest);
    let schedule = STAKING_REWARDS.schedule(addresses::EMISSION, file.timestamp, Amount::ZERO);
    file.vesting.push(schedule);
    file.validate().unwrap();
    file
}

/// A call by an account with this nonce.
pub fn signed_call(key: &SecretKey, nonce: u64, to: Address, input: Bytes) -> Bytes {
    let tx = TxEip1559 {
        chain_id: CHAIN,
        nonce,
        gas_limit: 8_000_000,
        max_fee_per_gas: 10_000_000_000,
        max_priority_fee_per_gas: 1_000_000,
        to: TxKind::Call(to),
        value: U256::ZERO,
        access_list: Default::default(),
        input,
    };
    let signature = sign_digest(tx.signature_hash(), key);
    let (r, s) = (
        U256::from_be_slice(&signature[..32]),
        U256::from_be_slice(&signature[32..64]),
    );
    TxEnvelope::from(tx.into_signed(Signature::new(r, s, signature[64] == 28)))
        .encoded_2718()
        .into()
}

/// Ports that were free a moment ago.
fn free_ports(n: usize) -> Vec<SocketAddr> {
    let listeners: Vec<_> = (0..n).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    listeners.iter().map(|l| l.local_addr().unwrap()).collect()
}

/// Four validators.
pub struct Network {
    pub genesis: GenesisFile,
    pub configs: Vec<FullNodeConfig>,
    pub nodes: Vec<Option<FullNodeHandle>>,
    _dir: TempDir,
}

impl Network {
    /// Writes the files of four validators and starts them from there.
    pub async fn start() -> Self {
        Self::start_with(genesis()).await
    }

    /// The same with another genesis of the same validators.
    pub async fn start_with(genesis: GenesisFile) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("genesis.json"), genesis.to_json()).unwrap();
        let p2p = free_ports(4);
        let mut configs = Vec::new();
        for i in 0..4 {
            let folder = dir.path().join(format!("validator-{i}"));
            std::fs::create_dir(&folder).unwrap();
            keys(i as u8).save(&folder.join("keys.json")).unwrap();
            let peers = (0..4)
                .filter(|j| *j != i)
                .map(|j| PeerConfig {
                    identity: hex::encode(genesis.validators[j].identity),
                    address: p2p[j],
                })
                .collect();
            let config = FullNodeConfig {
                genesis: "../genesis.json".into(),
                keys: "keys.json".into(),
                data_dir: "data".into(),
                rpc: "127.0.0.1:0".parse().unwrap(),
                p2p: p2p[i],
                metrics: Some("127.0.0.1:0".parse().unwrap()),
                peers,
                limits: Limits::default(),
                oracle: None,
            };
            let path = folder.join("config.toml");
            std::fs::write(&path, config.to_toml().unwrap()).unwrap();
            configs.push(FullNodeConfig::load(&path).unwrap());
        }
        let mut network = Self {
            genesis,
            configs,
            nodes: (0..4).map(|_| None).collect(),
            _dir: dir,
        };
        network.start_all().await;
        network
    }

    pub async fn start_all(&mut self) {
        let starting = self.configs.iter().map(|config| FullNode::start(config.clone()));
        for (i, node) in futures::future::join_all(starting).await.into_iter().enumerate() {
            self.nodes[i] = Some(node.unwrap());
        }
    }

    pub async fn start_one(&mut self, i: usize) {
        self.nodes[i] = Some(FullNode::start(self.configs[i].clone()).await.unwrap());
    }

    pub async fn stop(&mut self, i: usize) {
        self.nodes[i].take().unwrap().shutdown().await.unwrap();
    }

    pub async fn stop_all(&mut self) {
        let nodes: Vec<_> = self.nodes.iter_mut().filter_map(Option::take).collect();
        for stopped in futures::future::join_all(nodes.into_iter().map(FullNodeHandle::shutdown)).await {
            stopped.unwrap();
        }
    }

    pub fn node(&self, i: usize) -> &FullNodeHandle {
        self.nodes[i].as_ref().unwrap()
    }

    pub fn height(&self, i: usize) -> u64 {
        self.node(i).status().height
    }

    /// One JSON-RPC answer.
    pub async fn answer(&self, i: usize, method: &str, params: Value) -> Value {
        post(
            &self.node(i).rpc_url(),
            &json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }),
        )
        .await
    }

    /// The result of a call that must succeed.
    pub async fn call(&self, i: usize, method: &str, params: Value) -> Value {
        let answer = self.answer(i, method, params).await;
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// The error of a call that must fail.
    pub async fn error(&self, i: usize, method: &str, params: Value) -> Value {
        let answer = self.answer(i, method, params).await;
        assert!(answer.get("error").is_some(), "{method}: {answer}");
        answer["error"].clone()
    }

    /// Waits until every running node has `height`.
    pub async fn reach(&self, height: u64) {
        eventually(&format!("height {height}"), 20, async || {
            self.nodes
                .iter()
                .flatten()
                .all(|n| n.status().height >= height)
                .then_some(())
        })
        .await;
    }

    /// A signed transfer or call by the demo account.
    pub async fn transaction(&self, to: Address, value: U256, input: Bytes) -> Bytes {
        self.transaction_by(&demo(), to, value, input).await
    }

    pub async fn transaction_by(&self, key: &SecretKey, to: Address, value: U256, input: Bytes) -> Bytes {
        let from = format!("{:#x}", address_of_secret(key));
        let nonce = self.call(0, "eth_getTransactionCount", json!([from, "pending"])).await;
        let tx = TxEip1559 {
            chain_id: CHAIN,
            nonce: u64::from_str_radix(nonce.as_str().unwrap().trim_start_matches("0x"), 16).unwrap(),
            gas_limit: 500_000,
            max_fee_per_gas: 10_000_000_000,
            max_priority_fee_per_gas: 1_000_000,
            to: TxKind::Call(to),
            value,
            access_list: Default::default(),
            input,
        };
        let signature = sign_digest(tx.signature_hash(), key);
        let (r, s) = (
            U256::from_be_slice(&signature[..32]),
            U256::from_be_slice(&signature[32..64]),
        );
        TxEnvelope::from(tx.into_signed(Signature::new(r, s, signature[64] == 28)))
            .encoded_2718()
            .into()
    }

    /// Waits for a transaction's receipt on node `i`, and for its block to be the newest there or below.
    pub async fn confirmed(&self, i: usize, hash: &Value) -> Value {
        eventually("a transaction receipt", 10, async || {
            let receipt = self.call(i, "eth_getTransactionReceipt", json!([hash])).await;
            let block = u64::from_str_radix(receipt["blockNumber"].as_str()?.trim_start_matches("0x"), 16).unwrap();
            (block <= self.height(i)).then_some(receipt)
        })
        .await
    }
}

pub async fn post(url: &str, body: &Value) -> Value {
    let response = reqwest::Client::new()
        .post(url)
        .body(body.to_string())
        .send()
        .await
        .unwrap();
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

/// Polls until there is an answer.
pub async fn eventually<T>(what: &str, seconds: u64, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(
            began.elapsed() < Duration::from_secs(seconds),
            "no {what} within {seconds} s"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
