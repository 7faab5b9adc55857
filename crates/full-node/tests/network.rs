//! Four full nodes in one process, over real sockets: blocks, gossip, receipts, JSON-RPC, restarts.

mod support;

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::{SolCall as _, sol};
use opg_contracts::{addresses, slots};
use opg_light_client::{Options, StepName, Verdict, verify};
use opg_primitives::money::Amount;
use opg_receipt::file::{Inclusion, StateProof};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use support::{Network, eventually, post, receipts, socket::Socket};

sol! {
    function transferWithAuthorization(address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, bytes signature);
}

fn hex(bytes: impl AsRef<[u8]>) -> Value {
    json!(format!("0x{}", hex::encode(bytes)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_lives() {
    let began = Instant::now();
    let mut network = Network::start().await;
    network.reach(2).await;
    println!("two blocks after {:?}", began.elapsed());

    transactions(&network).await;
    sockets(&network).await;
    let (id, height) = receipt_life(&network).await;
    bad_input(&network).await;
    rpc_surface(&network).await;

    // one validator leaves and comes back
    network.stop(3).await;
    let before = network.height(0);
    network.reach(before + 2).await;
    network.start_one(3).await;
    network.reach(network.height(0)).await;
    assert_eq!(network.call(3, "og_getReceipt", json!([id])).await["height"], height);

    // all of them
    let (head, balance) = (
        network.height(0),
        network
            .call(0, "eth_getBalance", json!([Address::repeat_byte(0x99), "latest"]))
            .await,
    );
    network.stop_all().await;
    let restarted = Instant::now();
    network.start_all().await;
    println!("restart to RPC: {:?}", restarted.elapsed());
    let heights: Vec<u64> = (0..4).map(|i| network.height(i)).collect();
    println!("heights after the restart: {heights:?}, before: {head}");
    network.reach(head + 2).await;
    println!("restart to two new blocks: {:?}", restarted.elapsed());
    for i in 0..4 {
        assert_eq!(
            network
                .call(i, "eth_getBalance", json!([Address::repeat_byte(0x99), "latest"]))
                .await,
            balance
        );
        assert_eq!(network.call(i, "og_getReceipt", json!([id])).await["height"], height);
        assert_eq!(
            network.call(i, "og_getInclusionProof", json!([id])).await["height"],
            height
        );
    }
    network.stop_all().await;
    println!("all in {:?}", began.elapsed());
}

async fn transactions(network: &Network) {
    let to = Address::repeat_byte(0x99);
    let raw = network.transaction(to, U256::from(5), Default::default()).await;
    let began = Instant::now();
    let hash = network.call(2, "eth_sendRawTransaction", json!([hex(&raw)])).await;
    let pending = network.call(2, "eth_getTransactionByHash", json!([hash])).await;
    assert_eq!(pending["hash"], hash, "a pooled transaction is found: {pending}");
    let receipt = network.confirmed(1, &hash).await;
    println!("transaction confirmed after {:?}", began.elapsed());
    assert_eq!(receipt["status"], "0x1");
    assert!(
        began.elapsed() < Duration::from_secs(8),
        "gossip brings it to the next leader"
    );
    network.reach(network.height(1)).await;
    assert_eq!(network.call(0, "eth_getBalance", json!([to, "latest"])).await, "0x5");
    assert_eq!(
        network.call(0, "eth_getRawTransactionByHash", json!([hash])).await,
        hex(&raw)
    );

    let again = network.error(2, "eth_sendRawTransaction", json!([hex(&raw)])).await;
    assert!(again["code"].as_i64().unwrap() <= -32000, "{again}");
    let raw = network.transaction(to, U256::from(1), Default::default()).await;
    let receipt = network
        .call(3, "eth_sendRawTransactionSync", json!([hex(&raw), 10_000]))
        .await;
    assert_eq!(receipt["status"], "0x1", "{receipt}");
    network.reach(network.height(3)).await;

    // a validator's system key signs nothing else
    let system = support::secret(0x31);
    let raw = network
        .transaction_by(&system, to, U256::from(1), Default::default())
        .await;
    let error = network.error(0, "eth_sendRawTransaction", json!([hex(raw)])).await;
    assert!(error["message"].as_str().unwrap().contains("system account"), "{error}");
    assert_eq!(error["data"]["field"], "from");
}

async fn sockets(network: &Network) {
    let mut socket = Socket::connect(network.node(1).rpc_address()).await;
    let chain = socket
        .call(&json!({ "jsonrpc": "2.0", "id": 1, "method": "eth_chainId" }))
        .await;
    assert_eq!(chain["result"], "0x29f4");
    let heads = socket
        .call(&json!({ "jsonrpc": "2.0", "id": 2, "method": "eth_subscribe", "params": ["newHeads"] }))
        .await["result"]
        .clone();
    let event = socket.next().await;
    assert_eq!(event["params"]["subscription"], heads);
    let first = event["params"]["result"]["number"].clone();
    assert!(first.as_str().unwrap().starts_with("0x"), "{event}");
    assert_eq!(
        socket
            .call(&json!({ "jsonrpc": "2.0", "id": 3, "method": "eth_unsubscribe", "params": [heads] }))
            .await["result"],
        true
    );

    let pending = socket
        .call(&json!({ "jsonrpc": "2.0", "id": 4, "method": "eth_subscribe", "params": ["newPendingTransactions"] }))
        .await;
    // wrapping native coin emits a log of the OPG contract
    let logs = socket.call(&json!({ "jsonrpc": "2.0", "id": 5, "method": "eth_subscribe", "params": ["logs", { "address": addresses::OPG }] })).await;
    let filter = network
        .call(1, "eth_newFilter", json!([{ "address": addresses::OPG }]))
        .await;
    let raw = network
        .transaction(addresses::OPG, U256::from(7), Default::default())
        .await;
    let hash = network.call(0, "eth_sendRawTransaction", json!([hex(raw)])).await;
    let (mut seen_hash, mut seen_log) = (false, false);
    while !(seen_hash && seen_log) {
        let event = tokio::time::timeout(Duration::from_secs(10), socket.next())
            .await
            .unwrap();
        if event["params"]["subscription"] == pending["result"] {
            seen_hash |= event["params"]["result"] == hash;
        } else if event["params"]["subscription"] == logs["result"] {
            assert_eq!(event["params"]["result"]["transactionHash"], hash);
            seen_log = true;
        }
    }
    let polled = network.call(1, "eth_getFilterChanges", json!([filter])).await;
    assert_eq!(polled.as_array().unwrap().len(), 2, "Transfer and Deposit: {polled}");
    assert_eq!(polled[0]["transactionHash"], hash);
    assert_eq!(
        network.call(1, "eth_getFilterChanges", json!([filter])).await,
        json!([])
    );
    assert_eq!(network.call(1, "eth_uninstallFilter", json!([filter])).await, true);
    let error = socket
        .call(&json!({ "jsonrpc": "2.0", "id": 6, "method": "eth_subscribe", "params": ["nothing"] }))
        .await;
    assert_eq!(error["error"]["data"]["field"], "subscription");
}

/// Two receipts, one paid before. Returns id and height of the first.
async fn receipt_life(network: &Network) -> (Value, Value) {
    let genesis = &network.genesis;
    let amount = Amount(1_000_000_000);
    let first = receipts::make(genesis, 0, B256::ZERO, amount);
    let second = receipts::make(genesis, 1, first.receipt.core_hash(), amount);
    let (id, second_id) = (
        json!(first.receipt.core().receipt_id),
        json!(second.receipt.core().receipt_id),
    );

    // pay the second in advance
    let a = &second.authorization;
    let call = transferWithAuthorizationCall {
        from: a.from,
        to: a.to,
        value: a.value,
        validAfter: U256::from(a.valid_after),
        validBefore: U256::from(a.valid_before),
        nonce: a.nonce,
        signature: second.payment_signature.clone().into(),
    };
    let raw = network
        .transaction(addresses::OPG, U256::ZERO, call.abi_encode().into())
        .await;
    let paid = network.call(0, "eth_sendRawTransaction", json!([hex(raw)])).await;
    assert_eq!(network.confirmed(0, &paid).await["status"], "0x1");

    // a receipt with one byte changed is refused, the field named
    let mut tampered = first.receipt.cose().to_vec();
    *tampered.last_mut().unwrap() ^= 1;
    let error = network.error(0, "og_submitReceipt", json!([hex(&tampered)])).await;
    assert_eq!(
        (error["code"].clone(), error["data"]["rule"].clone()),
        (json!(-32010), json!("signature")),
        "{error}"
    );
    assert_eq!(network.call(0, "og_getReceipt", json!([id])).await, Value::Null);
    assert_eq!(network.call(0, "og_getInclusionProof", json!([id])).await, Value::Null);

    let began = Instant::now();
    for made in [&first, &second] {
        let accepted = network
            .call(0, "og_submitReceipt", json!([hex(made.receipt.cose())]))
            .await;
        assert_eq!(
            (accepted["state"].clone(), accepted["known"].clone()),
            (json!("checked"), json!(false))
        );
    }
    let status = eventually("final receipt on every node", 10, async || {
        for i in 0..4 {
            for id in [&id, &second_id] {
                let status = network.call(i, "og_getReceipt", json!([id])).await;
                if !status["height"].is_u64() {
                    return None;
                }
            }
        }
        Some(network.call(3, "og_getReceipt", json!([id])).await)
    })
    .await;
    println!("receipts final on every node after {:?}: {status}", began.elapsed());
    assert_eq!(
        (
            status["state"].clone(),
            status["mode"].clone(),
            status["payment"]["settlement"].clone()
        ),
        (json!("final"), json!("none"), json!("unused"))
    );
    let settled = network.call(2, "og_getReceipt", json!([second_id])).await;
    assert_eq!(
        (settled["state"].clone(), settled["payment"]["credited"].clone()),
        (json!("settled"), json!(true)),
        "{settled}"
    );

    // submitting again is harmless, also when final
    let again = network
        .call(1, "og_submitReceipt", json!([hex(first.receipt.cose())]))
        .await;
    assert_eq!(
        (again["state"].clone(), again["known"].clone()),
        (json!("final"), json!(true))
    );
    // but its payment and its sequence number are used up
    let reused = receipts::make(genesis, 0, B256::ZERO, Amount(5_000_000));
    let error = network
        .error(1, "og_submitReceipt", json!([hex(reused.receipt.cose())]))
        .await;
    assert_eq!(error["data"]["rule"], "seq_used", "{error}");

    prove(network, &second, &second_id).await;
    (id, status["height"].clone())
}

/// A complete receipt file, checked offline by the light client.
async fn prove(network: &Network, made: &receipts::Made, id: &Value) {
    let mut file = made.file.clone();
    let inclusion: Inclusion =
        serde_json::from_value(network.call(1, "og_getInclusionProof", json!([id])).await).unwrap();
    assert_eq!(inclusion.finality.envelopes[0].len(), 104);
    file.inclusion = Some(inclusion);
    let keyset = slots::keyset_base(receipts::keyset(&network.genesis).digest().0);
    let words: Vec<B256> = (0..3u64).map(|i| (keyset + U256::from(i)).into()).collect();
    let registration = network
        .call(2, "og_getStateProof", json!([addresses::NODE_REGISTRY, words]))
        .await;
    file.registration = Some(serde_json::from_value::<StateProof>(registration).unwrap());
    let payment = &made.receipt.core().payment;
    let accounts = json!([
        { "address": addresses::OPG, "slots": [B256::from(slots::opg_settlement(payment.payer, payment.nonce))] },
        { "address": addresses::RECEIPT_LEDGER, "slots": [B256::from(slots::spent(payment.id().0))] },
    ]);
    let proof = network.call(3, "og_getStateProof", json!([accounts])).await;
    file.payment = Some(serde_json::from_value::<StateProof>(proof).unwrap());

    let options = Options {
        require: Some((opg_primitives::mode::Mode::None, None)),
        ..Options::default()
    };
    let report = verify(&file, &network.genesis, &options).unwrap();
    for step in &report.steps {
        println!("{:?} {}: {}", step.status, step.name.as_str(), step.detail);
    }
    assert_eq!(report.verdict, Verdict::Unproven, "{:?}", report.failure());
    for name in [
        StepName::Signature,
        StepName::Inclusion,
        StepName::Finality,
        StepName::Registration,
        StepName::Settlement,
    ] {
        assert_eq!(
            report.step(name).unwrap().status,
            opg_light_client::Status::Ok,
            "{name:?}"
        );
    }

    // one byte of the path changed
    let mut bad = file.clone();
    bad.inclusion.as_mut().unwrap().siblings[0].0[0] ^= 1;
    assert!(!verify(&bad, &network.genesis, &options).unwrap().verdict.is_success());

    let certificate = network.call(0, "og_getCertificate", json!([1])).await;
    assert!(certificate["certifiedHeight"].as_u64().unwrap() >= 1, "{certificate}");
    let checkpoint = network.call(0, "og_getCheckpoint", json!([])).await;
    assert_eq!(checkpoint["genesis"], json!(network.genesis.digest()));
}

async fn bad_input(network: &Network) {
    for (method, params, field) in [
        ("og_submitReceipt", json!([]), "receipt"),
        ("og_submitReceipt", json!(["zz"]), "receipt"),
        (
            "og_submitReceipt",
            json!([format!("0x{}", "00".repeat(9_000))]),
            "receipt",
        ),
        (
            "og_submitReceipt",
            json!([format!("0x{}", "00".repeat(5_000))]),
            "receipt",
        ),
        ("og_submitReceipt", json!(["0x00"]), "receipt"),
        ("og_getReceipt", json!(["0x12"]), "receiptId"),
        ("og_getCertificate", json!([99_999_999]), "height"),
        ("og_getStateProof", json!(["0x12", []]), "address"),
        ("og_getStateProof", json!([addresses::OPG, "x"]), "slots"),
        ("eth_sendRawTransaction", json!(["0xzz"]), "transaction"),
        (
            "eth_call",
            json!([{ "to": addresses::OPG }, "latest", { "0x0": {} }]),
            "params[2]",
        ),
        ("eth_getLogs", json!([{ "address": "x" }]), "address"),
        ("eth_getFilterChanges", json!(["x"]), "filter"),
    ] {
        let error = network.error(0, method, params.clone()).await;
        assert_eq!(error["data"]["field"], field, "{method}{params}: {error}");
        assert!(
            error["data"]["expected"].is_string() && error["data"]["got"].is_string(),
            "{error}"
        );
    }
    for method in [
        "eth_sendTransaction",
        "eth_sign",
        "trace_block",
        "eth_subscribe",
        "engine_newPayloadV4",
        "debug_setHead",
        "nope",
    ] {
        let error = network.error(0, method, json!([])).await;
        assert!(error["code"].as_i64().unwrap() < -32000, "{error}");
    }
    assert_eq!(
        network.error(0, "eth_sendRawTransaction", json!(["0x02c0"])).await["code"],
        -32602
    );

    let url = network.node(0).rpc_url();
    let client = reqwest::Client::new();
    let send = async |body: Vec<u8>| {
        let response = client.post(&url).body(body).send().await.unwrap();
        (
            response.status().as_u16(),
            serde_json::from_slice::<Value>(&response.bytes().await.unwrap()).unwrap(),
        )
    };
    for (body, status, code) in [
        (b"".to_vec(), 200, -32600),
        (b"{".to_vec(), 200, -32700),
        (vec![0xff; 100], 200, -32700),
        (b"[]".to_vec(), 200, -32600),
        (serde_json::to_vec(&vec![json!({}); 101]).unwrap(), 200, -32005),
        (vec![b' '; 3 << 20], 413, -32005),
    ] {
        let (got, answer) = send(body).await;
        assert_eq!(
            (got, answer["error"]["code"].as_i64().unwrap()),
            (status, code),
            "{answer}"
        );
    }
    // larger than the bound for eth_*
    let large =
        json!({ "jsonrpc": "2.0", "id": 1, "method": "web3_sha3", "params": [format!("0x{}", "00".repeat(600_000))] });
    assert_eq!(post(&url, &large).await["error"]["code"], -32005);
    assert_eq!(client.delete(&url).send().await.unwrap().status(), 405);
}

async fn rpc_surface(network: &Network) {
    let url = network.node(0).rpc_url();
    let batch = json!([
        { "jsonrpc": "2.0", "id": "a", "method": "eth_accounts" },
        { "jsonrpc": "2.0", "method": "eth_chainId" },
        { "jsonrpc": "2.0", "id": 2, "method": "net_version", "params": [] },
        { "jsonrpc": "2.0", "id": 3, "method": "web3_sha3", "params": ["0x"] },
    ]);
    let answers = post(&url, &batch).await;
    assert_eq!(answers.as_array().unwrap().len(), 3, "a notification has no answer");
    assert_eq!(answers[0], json!({ "jsonrpc": "2.0", "id": "a", "result": [] }));
    assert_eq!(
        answers[2]["result"],
        "0xc5d2460186f7233c927e7db2dcc703c0e500b653ca82273b7bfad8045d85a470"
    );

    let header = network.call(0, "eth_getHeaderByNumber", json!(["latest"])).await;
    assert!(
        header["stateRoot"].is_string() && header.get("transactions").is_none(),
        "{header}"
    );
    let hash = header["hash"].clone();
    assert_eq!(
        network.call(0, "eth_getHeaderByHash", json!([hash])).await["hash"],
        hash
    );
    assert_eq!(
        network
            .call(0, "eth_getUncleCountByBlockNumber", json!(["latest"]))
            .await,
        "0x0"
    );
    assert_eq!(
        network
            .call(0, "eth_getUncleCountByBlockHash", json!([B256::repeat_byte(1)]))
            .await,
        Value::Null
    );
    assert_eq!(network.call(0, "net_peerCount", json!([])).await, "0x3");
    for method in [
        "eth_protocolVersion",
        "eth_coinbase",
        "eth_hashrate",
        "web3_clientVersion",
        "eth_gasPrice",
        "eth_maxPriorityFeePerGas",
    ] {
        assert!(network.call(0, method, json!([])).await.is_string(), "{method}");
    }
    assert_eq!(
        network
            .call(
                0,
                "eth_call",
                json!([{ "to": addresses::OPG, "data": "0x18160ddd" }, "latest", null])
            )
            .await
            .as_str()
            .unwrap()
            .len(),
        66
    );
    let coinbase = network.call(0, "eth_coinbase", json!([])).await;
    assert_eq!(coinbase, json!(format!("{:#x}", support::system_address(0))));

    let blocks = network.call(0, "eth_newBlockFilter", json!([])).await;
    network.reach(network.height(0) + 1).await;
    assert!(
        !network
            .call(0, "eth_getFilterChanges", json!([blocks]))
            .await
            .as_array()
            .unwrap()
            .is_empty()
    );
    let logs = network
        .call(
            0,
            "eth_newFilter",
            json!([{ "fromBlock": "0x0", "address": addresses::RECEIPT_LEDGER }]),
        )
        .await;
    assert!(
        !network
            .call(0, "eth_getFilterLogs", json!([logs]))
            .await
            .as_array()
            .unwrap()
            .is_empty(),
        "BatchRecorded events"
    );

    let status = network.call(0, "og_status", json!([])).await;
    assert_eq!(
        (
            status["healthy"].clone(),
            status["receipts"].clone(),
            status["validators"].clone()
        ),
        (json!(true), json!(2), json!(4)),
        "{status}"
    );
    let stats = network
        .call(0, "og_getNodeStats", json!([network.genesis.nodes[0].node_id()]))
        .await;
    assert_eq!(stats["receipts"], 2);

    let info = reqwest::get(&url).await.unwrap();
    assert_eq!(info.headers()["content-type"], "application/json");
    let metrics_url = network.node(0).metrics_url().unwrap();
    let metrics = reqwest::get(&metrics_url).await.unwrap().text().await.unwrap();
    assert!(metrics.contains("opg_full_node_receipts_final_total 2"), "{metrics}");
    let health = reqwest::get(metrics_url.replace("/metrics", "/health")).await.unwrap();
    assert_eq!(health.status(), 200);
}
