//! Nodes are found in the registry: a JSON-RPC server in this process that answers with the contract's own encoding.

mod common;

use alloy_primitives::{Address, B256, U256, hex};
use alloy_sol_types::{SolCall as _, SolEvent as _};
use axum::{Json, Router, extract::State, routing::post};
use common::{FakeNode, MODEL, ask, config, id, up};
use opg_contracts::{NodeRegistry, addresses};
use opg_router::{
    config::{ConfigError, RouterConfig},
    start,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::net::TcpListener;

#[derive(Debug, Clone)]
struct Entry {
    block: u64,
    url: String,
    bond: u128,
    inactive: bool,
}

#[derive(Debug)]
struct Chain {
    id: u64,
    head: u64,
    nodes: BTreeMap<B256, Entry>,
    ranges: Vec<(u64, u64)>,
    down: bool,
    receipts: BTreeMap<String, Value>,
}

type Shared = Arc<Mutex<Chain>>;

fn quantity(value: &Value) -> u64 {
    u64::from_str_radix(value.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

async fn rpc(State(chain): State<Shared>, Json(request): Json<Value>) -> Json<Value> {
    let mut chain = chain.lock().unwrap();
    let params = &request["params"];
    let result = match request["method"].as_str().unwrap() {
        _ if chain.down => {
            return Json(json!({"not": "json-rpc", "error": {"code": -32000, "message": "told to fail"}}));
        }
        "eth_chainId" => json!(format!("{:#x}", chain.id)),
        "eth_blockNumber" => json!(format!("{:#x}", chain.head)),
        "eth_getBlockByNumber" => json!({"hash": B256::repeat_byte(chain.id as u8)}),
        "eth_getLogs" => {
            let filter = &params[0];
            assert_eq!(filter["address"], json!(addresses::NODE_REGISTRY));
            assert_eq!(filter["topics"], json!([NodeRegistry::NodeRegistered::SIGNATURE_HASH]));
            let (from, to) = (quantity(&filter["fromBlock"]), quantity(&filter["toBlock"]));
            chain.ranges.push((from, to));
            let logs: Vec<Value> = chain
                .nodes
                .iter()
                .filter(|(_, entry)| (from..=to).contains(&entry.block))
                .map(|(id, _)| json!({"topics": [NodeRegistry::NodeRegistered::SIGNATURE_HASH, id, B256::ZERO], "data": "0x"}))
                .collect();
            json!(logs)
        }
        "eth_call" => {
            assert_eq!(params[0]["to"], json!(addresses::NODE_REGISTRY));
            let input = hex::decode(params[0]["input"].as_str().unwrap()).unwrap();
            let output = if let Ok(call) = NodeRegistry::nodesCall::abi_decode(&input) {
                let entry = chain.nodes.get(&call.nodeId).cloned();
                let known = entry.is_some();
                let entry = entry.unwrap_or(Entry {
                    block: 0,
                    url: String::new(),
                    bond: 0,
                    inactive: false,
                });
                NodeRegistry::nodesCall::abi_encode_returns(&NodeRegistry::nodesReturn {
                    operator: if known { Address::repeat_byte(1) } else { Address::ZERO },
                    registeredAt: U256::from(1).to(),
                    inactiveAt: U256::from(u8::from(entry.inactive)).to(),
                    bond: entry.bond,
                    endpoint: entry.url,
                })
            } else {
                NodeRegistry::minBondCall::abi_decode(&input).unwrap();
                NodeRegistry::minBondCall::abi_encode_returns(&1_000)
            };
            json!(hex::encode_prefixed(output))
        }
        "og_getReceipt" => chain
            .receipts
            .get(params[0].as_str().unwrap())
            .cloned()
            .unwrap_or(Value::Null),
        "og_getInclusionProof" => json!({"leaf": 3}),
        other => panic!("{other}"),
    };
    Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result}))
}

async fn chain() -> (String, Shared) {
    let chain = Arc::new(Mutex::new(Chain {
        id: 10_740,
        head: 12_345,
        nodes: BTreeMap::new(),
        ranges: Vec::new(),
        down: false,
        receipts: BTreeMap::new(),
    }));
    let app = Router::new().route("/", post(rpc)).with_state(Arc::clone(&chain));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (url, chain)
}

fn register(chain: &Shared, node: &FakeNode, block: u64) {
    let entry = Entry {
        block,
        url: node.url.clone(),
        bond: 1_000,
        inactive: false,
    };
    chain.lock().unwrap().nodes.insert(node.it.id.0, entry);
}

fn fast(rpc: String) -> RouterConfig {
    let mut config = RouterConfig::new(([127, 0, 0, 1], 0).into(), 10_740, vec![rpc]);
    config.private_endpoints = true;
    config.limits.discovery_seconds = 1;
    config.limits.probe_seconds = 1;
    config
}

#[tokio::test(flavor = "multi_thread")]
async fn registrations_appear_move_and_leave() {
    let nodes = [
        FakeNode::start(1).await,
        FakeNode::start(2).await,
        FakeNode::start(3).await,
    ];
    let (rpc, chain) = chain().await;
    register(&chain, &nodes[0], 10);
    register(&chain, &nodes[1], 12_000);
    // Too small a bond; an endpoint that is none; somebody who registered another node's URL.
    register(&chain, &nodes[2], 20);
    chain.lock().unwrap().nodes.get_mut(&nodes[2].it.id.0).unwrap().bond = 999;
    for (n, url) in [(7, "ftp://nowhere".to_owned()), (8, nodes[0].url.clone())] {
        let entry = Entry {
            block: 30,
            url,
            bond: 5_000,
            inactive: false,
        };
        chain.lock().unwrap().nodes.insert(id(n).0, entry);
    }
    let router = start(fast(rpc)).await.unwrap();
    up(&router, 2).await;
    assert_eq!(
        chain.lock().unwrap().ranges[..3],
        [(0, 4_999), (5_000, 9_999), (10_000, 12_345)],
        "in bounded ranges"
    );
    let health: Value = reqwest::get(format!("{}/health", router.url()))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(health["nodes"], json!({"known": 3, "up": 2, "parked": 0}));

    // New ones are found in new blocks only.
    {
        let mut chain = chain.lock().unwrap();
        chain.ranges.clear();
        chain.head = 12_400;
        chain.nodes.get_mut(&nodes[2].it.id.0).unwrap().bond = 1_000;
    }
    up(&router, 3).await;
    assert_eq!(chain.lock().unwrap().ranges[0].0, 12_346);
    // Leaves for ever, and no request goes there any more.
    chain.lock().unwrap().nodes.get_mut(&nodes[0].it.id.0).unwrap().inactive = true;
    up(&router, 2).await;
    let http = reqwest::Client::new();
    for _ in 0..20 {
        let quote = http
            .post(format!("{}/v1/infer", router.url()))
            .json(&ask(MODEL))
            .send()
            .await
            .unwrap();
        assert_ne!(
            quote.headers()["x-opg-node"].to_str().unwrap(),
            nodes[0].it.id.to_string()
        );
    }
    // Full nodes that fail change nothing.
    chain.lock().unwrap().down = true;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(router.nodes_up(), 2);
    let text = reqwest::get(format!("{}/metrics", router.url()))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(!text.contains("opg_router_discovery_failures_total 0\n"));
    router.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_dies_is_noticed_and_one_that_starts_again_as_well() {
    let node = FakeNode::start(1).await;
    let (rpc, chain) = chain().await;
    register(&chain, &node, 1);
    let router = start(fast(rpc)).await.unwrap();
    up(&router, 1).await;
    let it = Arc::clone(&node.it);
    drop(node);
    up(&router, 0).await;
    let quote = reqwest::Client::new()
        .post(format!("{}/v1/infer", router.url()))
        .json(&ask(MODEL))
        .send()
        .await
        .unwrap();
    assert_eq!(quote.status(), 503);
    assert_eq!(quote.json::<Value>().await.unwrap()["error"]["code"], "no_node");
    let health = reqwest::get(format!("{}/health", router.url())).await.unwrap();
    assert_eq!(health.status(), 503);
    // At another address, registered anew.
    let again = FakeNode::start(1).await;
    assert_eq!(again.it.id, it.id);
    register(&chain, &again, 1);
    up(&router, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn private_endpoints_are_not_connected_to() {
    let node = FakeNode::start(1).await;
    let (rpc, chain) = chain().await;
    register(&chain, &node, 1);
    let mut named = node.url.replace("127.0.0.1", "localhost");
    named.push('/');
    chain.lock().unwrap().nodes.insert(
        id(2).0,
        Entry {
            block: 1,
            url: named,
            bond: 1_000,
            inactive: false,
        },
    );
    let mut config = fast(rpc);
    config.private_endpoints = false;
    let router = start(config).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(router.nodes_up(), 0, "neither by address nor by name");
    let health: Value = reqwest::get(format!("{}/health", router.url()))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(health["nodes"]["known"], 1, "the name is tried, its address is refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_chain_and_genesis_files() {
    let node = FakeNode::start(1).await;
    let (rpc, chain) = chain().await;
    register(&chain, &node, 1);
    chain.lock().unwrap().id = 1;
    let router = start(fast(rpc.clone())).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(router.nodes_up(), 0, "a full node of another chain is not believed");
    let mut broken = fast(rpc);
    broken.genesis = Some("/nonexistent/genesis.json".into());
    let refused = start(broken).await.unwrap_err();
    assert!(
        matches!(
            refused,
            opg_router::RouterError::Config(ConfigError::Value { field: "genesis", .. })
        ),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn receipts_of_lost_nodes_keep_their_public_state() {
    let node = FakeNode::start(1).await;
    let (rpc, chain) = chain().await;
    let mut config = config(&[&node]);
    config.rpc = vec![rpc];
    let router = start(config).await.unwrap();
    up(&router, 1).await;
    let (theirs, lost) = (format!("0x{}", "aa".repeat(32)), format!("0x{}", "bb".repeat(32)));
    {
        let mut chain = chain.lock().unwrap();
        chain.receipts.insert(
            theirs.clone(),
            json!({"receiptId": theirs, "state": "final", "nodeId": node.it.id}),
        );
        chain.receipts.insert(
            lost.clone(),
            json!({"receiptId": lost, "state": "final", "nodeId": id(77)}),
        );
    }
    let get = |id: &str| reqwest::Client::new().get(format!("{}/v1/receipts/{id}", router.url()));
    let from_node: Value = get(&theirs).send().await.unwrap().json().await.unwrap();
    assert_eq!(
        (&from_node["node"], &from_node["state"]),
        (&json!(node.it.id), &json!("executed")),
        "its node answers"
    );
    let public: Value = get(&lost).send().await.unwrap().json().await.unwrap();
    assert_eq!(
        (&public["state"], &public["inclusion"]["leaf"], &public["receipt_id"]),
        (&json!("final"), &json!(3), &json!(lost))
    );
    let secret = get(&lost).bearer_auth("s").send().await.unwrap();
    assert_eq!(secret.status(), 503);
}
