//! Mode tee on a local network: a software attester's evidence is verified by every validator, registered, named in receipts,
//! shown as simulated everywhere, and worth nothing after it is revoked.

use alloy::{
    network::EthereumWallet,
    providers::{Provider as _, ProviderBuilder},
    signers::local::PrivateKeySigner,
};
use alloy_primitives::{B256, U256};
use opg_contracts::addresses;
use opg_e2e::{Network, Opg, abi::EvidenceRegistry, opg, wait_until};
use opg_evidence::{
    binding::{Binding, attestation_nonce},
    container::Companions,
    dcap::IntelCollateral,
    registration::encode_collateral,
    soft::{SoftTdx, TdxCollateralSpec, TdxRequest},
};
use opg_primitives::ids::{NodeId, deposit_address};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

const PATIENCE: Duration = Duration::from_secs(40);

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8 path")
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("file")).expect("json")
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attested_keyset_answers_in_mode_tee_until_it_is_revoked() {
    let quick = json!({ "governance": { "voting_delay": 2, "voting_period": 8, "timelock_delay": 1 } });
    let network = Network::start_with(Some(&quick));
    let (dir, home) = (network.dir(), network.home().to_owned());
    let home = home.as_path();
    let url = network.file()["nodes"][0]["url"].as_str().expect("url").to_owned();

    // the node attests by itself; what it offers says so
    let attestation = async || {
        let models: Value = reqwest::get(format!("{url}/v1/models")).await.ok()?.json().await.ok()?;
        let offered = models["data"][0]["attestation"].clone();
        (!offered.is_null()).then_some(offered)
    };
    wait_until("the node is attested", PATIENCE, async || attestation().await.is_some()).await;
    let offered = attestation().await.expect("attestation");
    assert_eq!(offered["grade"], "simulated", "{offered}");

    // a streamed chat and an inference, each with a receipt file
    let chat_file = home.join("chat.receipt.json");
    let chat = opg(
        home,
        &[
            "chat",
            "demo/tiny-llama",
            "Hello",
            "--max-tokens",
            "8",
            "--stream",
            "--mode",
            "tee",
            "--receipt",
            text(&chat_file),
            "--dir",
            text(&dir),
        ],
    )
    .expect_code(0);
    assert!(chat.stderr.contains("tee, simulated"), "{}", chat.stderr);
    let file = home.join("tee.receipt.json");
    let input = json!({"X": [vec![0.0; 64]]}).to_string();
    let infer = |file: &Path| {
        let arguments = [
            "infer",
            "demo/digits-mlp",
            "--input",
            &input,
            "--mode",
            "tee",
            "--receipt",
            text(file),
        ];
        opg(home, &[&arguments[..], &["--dir", text(&dir), "--json"]].concat())
    };
    let answer = infer(&file).expect_code(0).json();
    assert_eq!(
        (&answer["opg"]["mode"], &answer["opg"]["grade"]),
        (&json!("tee"), &json!("simulated")),
        "{answer}"
    );

    // offline: verified, as simulated, and never as hardware
    let genesis = dir.join("genesis.json");
    let verify = |file: &Path, more: &[&str]| {
        let arguments = [
            "receipt",
            "verify",
            text(file),
            "--genesis",
            text(&genesis),
            "--offline",
        ];
        opg(home, &[&arguments[..], more].concat())
    };
    for file in [&file, &chat_file] {
        let verified = verify(file, &[]).expect_code(0);
        assert!(
            verified.stdout.contains("VERIFIED (tee, simulated)"),
            "{}",
            verified.stdout
        );
    }
    verify(&file, &["--require", "tee,simulated"]).expect_code(0);
    let refused = verify(&file, &["--require", "tee,hardware"]).expect_code(1);
    assert!(refused.stderr.contains("hardware"), "{}", refused.stderr);

    // the file without its evidence, with the evidence of a changed document, and under a genesis that is no development one
    let whole = std::fs::read_to_string(&file).expect("file");
    let document = read_json(&file)["attestation"]["document"]
        .as_str()
        .expect("document")
        .to_owned();
    let mut changed = document.clone();
    let at = changed.len() / 2;
    let other = if changed.as_bytes()[at] == b'A' { "B" } else { "A" };
    changed.replace_range(at..=at, other);
    let bad = home.join("bad.receipt.json");
    std::fs::write(&bad, whole.replace(&document, &changed)).expect("file");
    let refused = verify(&bad, &[]).expect_code(1);
    assert!(refused.stderr.contains("evidence"), "{}", refused.stderr);
    let mut production = read_json(&genesis);
    production["development"] = json!(false);
    let production_file = home.join("production.json");
    std::fs::write(&production_file, production.to_string()).expect("file");
    let refused = opg(
        home,
        &[
            "receipt",
            "verify",
            text(&file),
            "--genesis",
            text(&production_file),
            "--offline",
        ],
    );
    assert_ne!(
        refused.code(),
        0,
        "a production genesis names no development roots: {}",
        refused.stderr
    );

    // sealed to the attested key: straight to the node, and through the relay of a router in a process of its own
    let sealed = |name: &str, more: &[&str]| {
        let file = home.join(name);
        let arguments = [
            "chat",
            "demo/tiny-llama",
            "Hello",
            "--max-tokens",
            "8",
            "--stream",
            "--encrypted",
            "--mode",
            "tee",
            "--receipt",
            text(&file),
            "--dir",
            text(&dir),
        ];
        let chat = opg(home, &[&arguments[..], more].concat()).expect_code(0);
        assert!(!chat.stdout.trim().is_empty());
        let verified = verify(&file, &[]).expect_code(0);
        assert!(
            verified.stdout.contains("VERIFIED (tee, simulated)"),
            "{}",
            verified.stdout
        );
    };
    sealed("sealed.receipt.json", &[]);
    let (port, _lock) = opg_e2e::port_base();
    let config = home.join("router.toml");
    let urls: Vec<String> = network.rpc_urls().into_iter().map(|url| format!("\"{url}\"")).collect();
    let config_text = format!(
        "listen = \"127.0.0.1:{port}\"\nchain_id = 10740\nrpc = [{}]\ngenesis = \"{}\"\nprivate_endpoints = true\n",
        urls.join(", "),
        text(&genesis)
    );
    std::fs::write(&config, config_text).expect("config");
    let mut router = Opg::start(
        &home.join("logs"),
        "router",
        home,
        &["node", "router", "--config", text(&config)],
    );
    router.wait_for("router ready", 1, PATIENCE);
    let router_url = format!("http://127.0.0.1:{port}");
    wait_until("the router knows the node", PATIENCE, async || {
        let health = reqwest::get(format!("{router_url}/health")).await;
        health.is_ok_and(|health| health.status().is_success())
    })
    .await;
    sealed("relayed.receipt.json", &["--relay", &router_url]);
    assert!(router.terminate().success(), "orderly end");
    // the network has a router of its own, which one operator runs with the node: it serves, and hides nothing from him
    let own = network.file()["router"].as_str().expect("router");
    let models: Value = reqwest::get(format!("{own}/v1/models"))
        .await
        .expect("answer")
        .json()
        .await
        .expect("json");
    assert!(
        models["data"].as_array().is_some_and(|list| list.len() >= 2),
        "{models}"
    );
    sealed("own.receipt.json", &["--relay", own]);
    // what validators have to see cannot be sealed
    let refused = opg(
        home,
        &[
            "infer",
            "demo/digits-mlp",
            "--input",
            &input,
            "--mode",
            "zk",
            "--encrypted",
            "--dir",
            text(&dir),
        ],
    );
    assert_eq!(refused.code(), 2, "{}", refused.stderr);

    collateral_is_not_rolled_back(&network, home, offered["evidence_id"].as_str().expect("id")).await;

    // governance revokes what runs there: from then on nothing counts, and nothing is charged
    let provider = ProviderBuilder::new().connect_http(network.rpc_urls()[1].parse().expect("url"));
    let registry = EvidenceRegistry::new(addresses::EVIDENCE_REGISTRY, &provider);
    let id: B256 = offered["evidence_id"].as_str().expect("id").parse().expect("id");
    let record = registry.evidence(id).call().await.expect("record");
    assert_eq!((record.kind, record.grade), (2, 1), "TDX, simulated");
    assert!(registry.validUntil(id).call().await.expect("time") > record.registeredAt);
    revoke(home, &dir, record.measurement);
    assert_eq!(
        U256::from(registry.validUntil(id).call().await.expect("time")),
        U256::ZERO
    );
    wait_until("the node notices", Duration::from_secs(30), async || {
        attestation().await.is_none()
    })
    .await;
    let refused = opg(
        home,
        &["chat", "demo/tiny-llama", "Hello", "--encrypted", "--dir", text(&dir)],
    );
    assert_ne!(refused.code(), 0, "nothing is sealed to a key without evidence");
    assert!(refused.stderr.contains("evidence"), "{}", refused.stderr);
    let refused = infer(&home.join("never.json"));
    assert_ne!(refused.code(), 0);
    assert!(refused.stderr.contains("not_attested"), "{}", refused.stderr);
}

/// Newer collateral enters by anybody's transaction; evidence with older one is refused from the next block on (D13).
async fn collateral_is_not_rolled_back(network: &Network, home: &Path, evidence_id: &str) {
    let dir = network.dir();
    let config = std::fs::read_to_string(dir.join("inference/config.toml")).expect("config");
    let seed: B256 = config
        .lines()
        .find_map(|line| line.trim().strip_prefix("seed = "))
        .expect("the software attester's seed")
        .trim_matches('"')
        .parse()
        .expect("seed");
    let platform = SoftTdx::new(&seed.0, 1_700_000_000, 2_500_000_000);
    let block = || async {
        network.rpcs()[0]
            .call("eth_getBlockByNumber", json!(["latest", false]))
            .await
    };
    let seconds =
        |block: &Value| u64::from_str_radix(&block["timestamp"].as_str().expect("time")[2..], 16).expect("hex");
    let today = seconds(&block().await) / 86_400 * 86_400;
    let collateral = |eval_number, issued| {
        let mut spec = TdxCollateralSpec::new(issued, today + 30 * 86_400);
        spec.eval_number = eval_number;
        platform.collateral(&spec)
    };
    let file = home.join("collateral.json");
    let renew = |bytes: &[u8], more: &[&str]| {
        std::fs::write(&file, bytes).expect("file");
        let arguments = [
            "evidence",
            "renew",
            text(&file),
            "--kind",
            "tdx",
            "--dir",
            text(&dir),
            "--json",
        ];
        opg(home, &[&arguments[..], more].concat())
    };
    let json_of = |eval_number, issued| collateral(eval_number, issued).to_json().expect("JSON");
    let same = renew(&json_of(1, today), &[]).expect_code(0).json();
    assert_eq!(same["newer"], 0, "the node's own is the newest so far: {same}");
    assert_eq!(
        renew(&json_of(2, today), &["--dry-run"]).expect_code(0).json()["newer"],
        2
    );
    let renewed = renew(&json_of(2, today), &[]).expect_code(0).json();
    assert_eq!(renewed["renewed"], 2, "TCB info and QE identity: {renewed}");
    assert_eq!(renewed["known"][0], json!({ "number": 2, "issued_at": today }));
    assert_eq!(
        renew(&json_of(1, today), &[]).expect_code(0).json()["newer"],
        0,
        "older"
    );
    let forged = String::from_utf8(json_of(1, today)).expect("text");
    let forged = forged.replace("tcbEvaluationDataNumber\\\":1", "tcbEvaluationDataNumber\\\":9");
    let refused = renew(forged.as_bytes(), &[]).expect_code(1);
    assert!(refused.stderr.contains("SIGNATURE (301)"), "{}", refused.stderr);

    // the operator hands in the same platform's evidence with collateral of yesterday's number
    let operator: PrivateKeySigner = std::fs::read_to_string(dir.join("inference/operator.key"))
        .expect("key")
        .trim()
        .parse()
        .expect("key");
    let address = operator.address();
    let provider = ProviderBuilder::new()
        .wallet(EthereumWallet::from(operator))
        .connect_http(network.rpc_urls()[0].parse().expect("url"));
    let registry = EvidenceRegistry::new(addresses::EVIDENCE_REGISTRY, &provider);
    let first = registry
        .evidence(evidence_id.parse().expect("id"))
        .call()
        .await
        .expect("record");
    let submit = async |intel: IntelCollateral| -> Option<u16> {
        let epoch: u64 = registry.epoch().call().await.expect("epoch").to();
        let newest = block().await;
        // The one below the newest: gas is estimated within the newest, whose hash is not known there.
        let hash: B256 = newest["parentHash"].as_str().expect("hash").parse().expect("hash");
        let number =
            U256::from_str_radix(&newest["number"].as_str().expect("number")[2..], 16).expect("hex") - U256::ONE;
        let node = NodeId(first.nodeId);
        let config = B256::repeat_byte(0xc0);
        let binding = Binding {
            keyset: first.keyset.0,
            nonce: attestation_nonce(&hash.0, &first.nodeId.0, epoch),
            chain_id: 10_740,
            registry: addresses::NODE_REGISTRY.into_array(),
            operator: address.into_array(),
            payment: deposit_address(addresses::FEE_VAULT, addresses::DEPOSIT_IMPLEMENTATION, node).into_array(),
            endpoint: network.file()["nodes"][0]["url"].as_str().expect("url").to_owned(),
            role: "inference".to_owned(),
            config: config.0,
        };
        let mut data = [0; 64];
        data[..32].copy_from_slice(&binding.digest().expect("digest"));
        let mut beside = Companions::default();
        beside.intel = Some(intel);
        let sent = registry
            .submit(
                first.keyset,
                2,
                number,
                "inference".to_owned(),
                config,
                platform.quote(&TdxRequest::new(data)).into(),
                encode_collateral(&beside).expect("collateral").into(),
            )
            .send()
            .await
            .expect("sent")
            .get_receipt()
            .await
            .expect("receipt");
        assert!(sent.status());
        let next = sent.block_number.expect("block") + 1;
        wait_until("the verdict's block", PATIENCE, async || {
            provider.get_block_number().await.is_ok_and(|height| height >= next)
        })
        .await;
        let refused = registry
            .EvidenceRefused_filter()
            .from_block(next)
            .to_block(next)
            .query()
            .await;
        refused.expect("logs").first().map(|(event, _)| event.code)
    };
    // the least time between two submissions of a node
    let later = async |than: u64| {
        wait_until("twenty seconds", PATIENCE, async || seconds(&block().await) > than + 20).await;
        seconds(&block().await)
    };
    let began = later(first.registeredAt.to()).await;
    assert_eq!(submit(collateral(1, today)).await, Some(418), "COLLATERAL_ROLLED_BACK");
    later(began + 1).await;
    // the same with the newest one
    assert_eq!(submit(collateral(2, today)).await, None, "accepted");
}

/// By the only owner of the policy: a vote.
fn revoke(home: &Path, dir: &Path, measurement: B256) {
    let run = |arguments: &[&str]| opg(home, &[arguments, &["--dir", text(dir), "--json"]].concat());
    let ok = |arguments: &[&str]| run(arguments).expect_code(0).json();
    let demo = ok(&["wallet", "show"])["address"].as_str().expect("address").to_owned();
    ok(&["faucet", &demo, "--amount", "200000", "--gas", "0"]);
    ok(&["gov", "delegate"]);
    let subject = measurement.to_string();
    let proposed = run(&["gov", "propose", "evidence-revoke", &subject]).expect_code(0);
    assert!(proposed.stderr.contains(&subject), "{}", proposed.stderr);
    let id = proposed.json()["id"].as_str().expect("id").to_owned();
    ok(&["gov", "vote", &id, "for", "--wait"]);
    ok(&["gov", "queue", &id, "--wait"]);
    ok(&["gov", "execute", &id, "--wait"]);
}
