//! A node over a fake chain, and a client that pays.

use crate::chain::{CHAIN_ID, FakeChain};
use alloy_primitives::{Address, B256, U256};
use opg_contracts::{addresses, slots};
use opg_inference_node::{
    InferenceNode,
    config::{Exposure, InferenceNodeConfig, Limits, ModelConfig, ModelKind, NodeKeys},
};
use opg_models::{Format, Manifest, ManifestVersion};
use opg_payments::{
    eip3009::{Authorization, Domain},
    signature::{SecretKey, address_of_secret},
    x402::{self, PaymentPayload, PaymentRequired, PaymentRequirements},
};
use opg_primitives::money::{Amount, Price};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use std::{path::PathBuf, time::Duration};
use tempfile::TempDir;

pub(crate) const OPG: u128 = opg_primitives::money::WEI_PER_OPG;
pub(crate) const ONNX: &str = "demo/digits-mlp";
pub(crate) const CHAT: &str = "demo/tiny-llama";

pub(crate) struct Harness {
    pub(crate) chain: FakeChain,
    pub(crate) node: Option<InferenceNode>,
    pub(crate) config: InferenceNodeConfig,
    pub(crate) http: Client,
    pub(crate) wallet: SecretKey,
    /// Holds the node's files until the end of the test.
    pub(crate) _dir: TempDir,
}

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../testing/fixtures")).join(path)
}

pub(crate) fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

impl Harness {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut InferenceNodeConfig)) -> Self {
        let chain = FakeChain::start().await;
        let dir = tempfile::tempdir().unwrap();
        let keys = NodeKeys {
            receipt: [11; 32],
            settlement: SecretKey::from_byte_array(&[12; 32]).unwrap(),
            hpke: Some([13; 32]),
        };
        keys.save(&dir.path().join("keys.json")).unwrap();
        let mut config = InferenceNodeConfig {
            chain_id: CHAIN_ID,
            operator: Address::repeat_byte(0x0e),
            salt: B256::ZERO,
            keys: dir.path().join("keys.json"),
            data_dir: dir.path().join("data"),
            listen: "127.0.0.1:0".parse().unwrap(),
            public_url: None,
            rpc: vec!["http://127.0.0.1:1".into(), chain.url.clone()],
            limits: Limits {
                settle_interval_ms: 200,
                settle_seconds: 2,
                ..Limits::default()
            },
            exposure: Exposure::default(),
            channels: Default::default(),
            facilitator_for_others: false,
            attestation: None,
            model_store: None,
            engine: Default::default(),
            models: vec![
                ModelConfig {
                    upstream: None,
                    hub: None,
                    usd: None,
                    name: ONNX.into(),
                    path: fixture("digits/digits_mlp.onnx"),
                    kind: ModelKind::Onnx,
                    program: Some(fixture("digits/digits_mlp.program")),
                },
                ModelConfig {
                    upstream: None,
                    hub: None,
                    usd: None,
                    name: CHAT.into(),
                    path: fixture("tiny-llama/trained-Q8_0.gguf"),
                    kind: ModelKind::Gguf,
                    program: None,
                },
            ],
        };
        change(&mut config);
        let wallet = SecretKey::from_byte_array(&[13; 32]).unwrap();
        {
            let mut chain = chain.lock();
            chain.register_node(config.node_id(), config.operator, &keys.keyset(config.node_id()));
            let onnx = Price {
                per_call: Amount(OPG / 1000),
                per_mtok_in: Amount(0),
                per_mtok_out: Amount(0),
            };
            let chat = Price {
                per_call: Amount(0),
                per_mtok_in: Amount(OPG),
                per_mtok_out: Amount(2 * OPG),
            };
            for (model, price) in config.models.iter().zip([onnx, chat]) {
                let format = if model.kind == ModelKind::Onnx {
                    Format::Onnx
                } else {
                    Format::Gguf
                };
                let root = Manifest::single(ManifestVersion::NEWEST, format, &std::fs::read(&model.path).unwrap())
                    .root()
                    .unwrap();
                chain.register_model(config.node_id(), root.0, price, 1000);
                if model.program.is_some() {
                    let slot = slots::model_program(root.0, opg_samples::proof::program_root());
                    chain.set(addresses::MODEL_REGISTRY, slot, U256::from(1));
                }
            }
            chain.set_balance(address_of_secret(&wallet), Amount(OPG));
        }
        let mut harness = Self {
            chain,
            node: None,
            config,
            http: Client::builder().no_proxy().build().unwrap(),
            wallet,
            _dir: dir,
        };
        harness.restart().await;
        harness
    }

    pub(crate) async fn restart(&mut self) {
        if let Some(node) = self.node.take() {
            node.shutdown().await.unwrap();
        }
        self.node = Some(InferenceNode::start(self.config.clone()).await.unwrap());
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.node.as_ref().unwrap().url())
    }

    pub(crate) fn payer(&self) -> Address {
        address_of_secret(&self.wallet)
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<reqwest::Body>, payment: Option<&str>) -> Response {
        let mut request = self.http.post(self.url(path)).body(body);
        if let Some(payment) = payment {
            request = request.header(x402::PAYMENT_SIGNATURE, payment);
        }
        request.send().await.unwrap()
    }

    pub(crate) async fn offer(&self, path: &str, body: &Value) -> PaymentRequirements {
        let response = self.post(path, body.to_string(), None).await;
        let status = response.status().as_u16();
        let header = response.headers().get(x402::PAYMENT_REQUIRED).cloned();
        assert_eq!(status, 402, "{}", response.text().await.unwrap());
        x402::decode_header::<PaymentRequired>(header.unwrap().as_bytes())
            .unwrap()
            .accepts
            .into_iter()
            .find(|way| way.scheme == x402::EXACT)
            .unwrap()
    }

    /// A payment header for an offer, changed before it is signed.
    pub(crate) fn pay(&self, accepted: PaymentRequirements, change: impl FnOnce(&mut Authorization)) -> String {
        let mut authorization = Authorization {
            from: self.payer(),
            to: accepted.pay_to,
            value: accepted.amount,
            valid_after: 0,
            valid_before: now() + accepted.max_timeout_seconds,
            nonce: rand::random::<[u8; 32]>().into(),
        };
        change(&mut authorization);
        let signature = authorization.sign(&Domain::opg(CHAIN_ID, addresses::OPG), &self.wallet);
        Self::header(accepted, &authorization, &signature)
    }

    pub(crate) fn header(accepted: PaymentRequirements, authorization: &Authorization, signature: &[u8]) -> String {
        x402::encode_header(&PaymentPayload::of_exact(accepted, authorization, signature).unwrap())
    }

    pub(crate) async fn paid(&self, path: &str, body: &Value) -> Response {
        let offer = self.offer(path, body).await;
        self.post(path, body.to_string(), Some(&self.pay(offer, |_| {}))).await
    }

    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        let response = self.http.get(self.url(path)).send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    }

    /// What the node exposes to Prometheus.
    pub(crate) async fn metrics(&self) -> String {
        let response = self.http.get(self.url("/metrics")).send().await.unwrap();
        response.text().await.unwrap()
    }

    /// State of a receipt once it is `wanted`, or the last one seen.
    pub(crate) async fn receipt_until(&self, id: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..150 {
            let (_, receipt) = self.get(&format!("/v1/receipts/{id}")).await;
            if wanted(&receipt) {
                return receipt;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("receipt {id}: {}", self.get(&format!("/v1/receipts/{id}")).await.1);
    }

    pub(crate) async fn until(&self, what: &str, done: impl Fn(&crate::chain::Chain) -> bool) {
        for _ in 0..150 {
            if done(&self.chain.lock()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{what} did not happen");
    }
}

pub(crate) fn digits() -> Value {
    let samples: Value = serde_json::from_slice(&std::fs::read(fixture("digits/samples.json")).unwrap()).unwrap();
    json!({"model": ONNX, "inputs": {"X": [samples["inputs"][0]]}})
}

pub(crate) fn chat(stream: bool, max_tokens: u32) -> Value {
    json!({"model": CHAT, "messages": [{"role": "user", "content": "hello"}], "max_tokens": max_tokens, "temperature": 0, "seed": 1, "stream": stream})
}

/// Status, code and field of an error answer.
pub(crate) async fn error(response: Response) -> (u16, String, String) {
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    assert!(
        body["error"]["message"].is_string() && body["error"]["type"].is_string(),
        "{body}"
    );
    (status, text(&body["error"]["code"]), text(&body["error"]["param"]))
}

pub(crate) fn wei(value: U256) -> u128 {
    u128::try_from(value).unwrap()
}
