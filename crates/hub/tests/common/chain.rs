//! A full node that knows registrations and nothing else: an empty chain of a test's own, on a free port of loopback.

use alloy_primitives::{Address, B256, Bytes, aliases::U40};
use alloy_sol_types::SolCall;
use axum::{Json, Router, extract::State, routing::post};
use opg_contracts::ModelRegistry;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

const CHAIN: u64 = 10_740;

/// What the registry says about a root.
#[derive(Debug, Clone, Default)]
pub struct Registered {
    /// Seconds since 1970.
    pub registered_at: u64,
    /// Block of the commitment.
    pub committed_at: u64,
    pub name: String,
    pub programs: Vec<B256>,
}

/// A running full node.
#[derive(Debug, Clone)]
pub struct Chain {
    pub url: String,
    models: Arc<Mutex<HashMap<B256, Registered>>>,
}

impl Chain {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let chain = Self {
            url: format!("http://{}", listener.local_addr().unwrap()),
            models: Arc::default(),
        };
        let router = Router::new().route("/", post(answer)).with_state(chain.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        chain
    }

    pub fn register(&self, root: &str, registered: Registered) {
        self.models.lock().unwrap().insert(root.parse().unwrap(), registered);
    }

    /// Lines for a hub's configuration.
    pub fn text(&self) -> String {
        format!("[chain]\nchain_id = {CHAIN}\nrpc = [{:?}]\n", self.url)
    }

    fn view(&self, input: &[u8]) -> Vec<u8> {
        let models = self.models.lock().unwrap();
        if let Ok(call) = ModelRegistry::programsOfCall::abi_decode(input) {
            let programs = models.get(&call.modelRoot).map(|model| model.programs.clone());
            return ModelRegistry::programsOfCall::abi_encode_returns(&programs.unwrap_or_default());
        }
        let call = ModelRegistry::modelsCall::abi_decode(input).unwrap();
        let found = models.get(&call.modelRoot);
        let model = found.cloned().unwrap_or_default();
        ModelRegistry::modelsCall::abi_encode_returns(&ModelRegistry::modelsReturn {
            creator: found.map_or(Address::ZERO, |_| Address::repeat_byte(0x66)),
            royaltyBps: 500,
            previousRoyaltyBps: 500,
            changedAt: U40::from(model.registered_at),
            closed: false,
            price: ModelRegistry::Price {
                perCall: 1_000_000_000_000_000,
                perMtokIn: 0,
                perMtokOut: 0,
            },
            registeredAt: U40::from(model.registered_at),
            committedAt: model.committed_at,
            name: model.name,
            uri: String::new(),
        })
    }
}

async fn answer(State(chain): State<Chain>, Json(request): Json<Value>) -> Json<Value> {
    let result = match request["method"].as_str().unwrap() {
        "eth_chainId" => json!(format!("0x{CHAIN:x}")),
        "eth_blockNumber" => json!("0x0"),
        "eth_getBlockByNumber" => json!({"hash": B256::repeat_byte(1)}),
        "eth_call" => {
            let input: Bytes = serde_json::from_value(request["params"][0]["input"].clone()).unwrap();
            json!(Bytes::from(chain.view(&input)))
        }
        other => panic!("unexpected call {other}"),
    };
    Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result}))
}
