//! The main job end to end, as a user meets it: one network, the `opg` command, offline verification, money where it belongs.

use alloy::providers::ProviderBuilder;
use alloy_primitives::{Address, B256, U256};
use opg_contracts::addresses;
use opg_e2e::{
    Network, Rpc,
    abi::{FeeVault, ModelRegistry, NodeRegistry},
    fixtures, opg, wait_until,
};
use opg_primitives::money::{Amount, split};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8 path")
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("file")).expect("json")
}

#[tokio::test(flavor = "multi_thread")]
async fn pay_run_receipt_verify_finalise_check() {
    let mut running = Network::start();
    let (dir, network, rpcs) = (running.dir(), running.file().clone(), running.rpcs());
    let home = running.home().to_owned();
    let home = home.as_path();
    assert_eq!(rpcs.len(), 4);
    assert!(
        network["router"]
            .as_str()
            .is_some_and(|url| url.starts_with("http://127.0.0.1:"))
    );
    assert!(
        network.get("web").is_none(),
        "web is not built and must not be announced (D20)"
    );
    models_come_from_the_hub(&dir, &network).await;
    let node = &network["nodes"][0];
    let node_id: B256 = node["id"].as_str().expect("id").parse().expect("id");
    let node_url = node["url"].as_str().expect("url");

    // what the network offers
    let models = opg(home, &["models", "ls", "--dir", text(&dir), "--json"])
        .expect_code(0)
        .json();
    assert!(
        models.to_string().contains("demo/digits-mlp") && models.to_string().contains("demo/tiny-llama"),
        "{models}"
    );
    opg(home, &["models", "show", "demo/digits-mlp", "--dir", text(&dir)]).expect_code(0);
    opg(home, &["status", "--dir", text(&dir), "--json"])
        .expect_code(0)
        .json();

    // the true answer comes from onnxruntime (fixture), not from our own code
    let samples = read_json(&fixtures().join("digits/samples.json"));
    let input = home.join("digit.json");
    std::fs::write(&input, json!({"X": [samples["inputs"][5]]}).to_string()).expect("input");
    let file = home.join("digit.receipt.json");
    let at_input = format!("@{}", text(&input));
    let answer = opg(
        home,
        &[
            "infer",
            "demo/digits-mlp",
            "--input",
            &at_input,
            "--receipt",
            text(&file),
            "--dir",
            text(&dir),
            "--json",
        ],
    )
    .expect_code(0)
    .json();
    assert_eq!(answer["outputs"]["label"][0], samples["labels"][5], "{answer}");
    let id = answer["receipt_id"].as_str().expect("receipt id").to_owned();

    // final on all four
    for rpc in &rpcs {
        wait_until(
            "receipt final at every validator",
            Duration::from_secs(20),
            async || {
                rpc.try_call("og_getReceipt", json!([id]))
                    .await
                    .is_ok_and(|r| matches!(r["state"].as_str(), Some("final" | "settled" | "released")))
            },
        )
        .await;
    }

    // money: node and creator are credited by the published split, to the wei
    let provider = ProviderBuilder::new().connect_http(network["rpc"][0].as_str().expect("url").parse().expect("url"));
    let vault = FeeVault::new(addresses::FEE_VAULT, &provider);
    let registry = NodeRegistry::new(addresses::NODE_REGISTRY, &provider);
    let receipt = opg(home, &["receipt", "show", text(&file), "--json"])
        .expect_code(0)
        .json();
    let root: B256 = find(&receipt, "served_root")
        .as_str()
        .expect("root")
        .parse()
        .expect("root");
    let charge: u128 = find(&receipt, "charge").as_str().expect("charge").parse().expect("wei");
    let creator: Address = ModelRegistry::new(addresses::MODEL_REGISTRY, &provider)
        .creatorOf(root)
        .call()
        .await
        .expect("creator");
    let operator: Address = registry.operatorOf(node_id).call().await.expect("operator");
    let royalty = u16::try_from(find(&receipt, "royalty_bps").as_u64().expect("royalty")).expect("bps");
    let parts = split(Amount(charge), royalty, false, false, true).expect("split");
    assert!(charge > 0 && parts.creator.wei() > 0 && parts.node > parts.creator);
    wait_until("node and creator credited", Duration::from_secs(30), async || {
        let of_node = vault.credited(operator, node_id).call().await.expect("credit");
        let of_creator = vault.credited(creator, node_id).call().await.expect("credit");
        (of_node, of_creator) == (U256::from(parts.node.wei()), U256::from(parts.creator.wei()))
    })
    .await;

    // streaming chat on the language model, with a receipt of its own
    let chat_file = home.join("chat.receipt.json");
    let chat = opg(
        home,
        &[
            "chat",
            "demo/tiny-llama",
            "This program is free software",
            "--stream",
            "--max-tokens",
            "24",
            "--receipt",
            text(&chat_file),
            "--dir",
            text(&dir),
        ],
    )
    .expect_code(0);
    assert!(
        !chat.stdout.trim().is_empty(),
        "words on stdout; stderr: {}",
        chat.stderr
    );

    // offline: the file and the genesis are enough
    let genesis = dir.join("genesis.json");
    for receipt in [&file, &chat_file] {
        let verified = opg(
            home,
            &[
                "receipt",
                "verify",
                text(receipt),
                "--genesis",
                text(&genesis),
                "--offline",
            ],
        )
        .expect_code(0);
        assert!(
            verified.stdout.contains("UNPROVEN (signature only)"),
            "{}",
            verified.stdout
        );
    }
    let demanding = [
        "receipt",
        "verify",
        text(&file),
        "--genesis",
        text(&genesis),
        "--offline",
        "--require",
        "tee,hardware",
    ];
    opg(home, &demanding).expect_code(1);

    // a changed file, a foreign genesis, nothing at all
    let good = std::fs::read(&file).expect("file");
    let tampered = home.join("tampered.receipt.json");
    for position in (0..good.len()).step_by(good.len() / 24) {
        let mut bad = good.clone();
        bad[position] ^= 1;
        std::fs::write(&tampered, bad).expect("file");
        let out = opg(
            home,
            &[
                "receipt",
                "verify",
                text(&tampered),
                "--genesis",
                text(&genesis),
                "--offline",
            ],
        );
        assert!(
            matches!(out.code(), 1 | 2),
            "byte {position}: {}\n{}",
            out.stdout,
            out.stderr
        );
    }
    let other = home.join("other");
    opg(home, &["up", "--split", text(&other)]).expect_code(0);
    let foreign = other.join("genesis.json");
    opg(
        home,
        &[
            "receipt",
            "verify",
            text(&file),
            "--genesis",
            text(&foreign),
            "--offline",
        ],
    )
    .expect_code(1);
    opg(
        home,
        &[
            "receipt",
            "verify",
            text(&home.join("nothing.json")),
            "--genesis",
            text(&genesis),
        ],
    )
    .expect_code(2);

    proven_answer(home, &dir, &samples, &rpcs).await;
    programs(home, &dir);
    bad_input(home, &dir, node_url, &rpcs[0]).await;

    // stop and start again: everything is still there
    let height = rpcs[0].height().await;
    assert!(running.stop().success(), "orderly end");
    running.run();
    wait_until("the chain goes on", Duration::from_secs(30), async || {
        rpcs[3].try_height().await.is_some_and(|h| h > height)
    })
    .await;
    let again = rpcs[3].call("og_getReceipt", json!([id])).await;
    assert!(
        matches!(again["state"].as_str(), Some("final" | "settled" | "released")),
        "{again}"
    );
    let of_node = vault.credited(operator, node_id).call().await.expect("credit");
    assert!(of_node >= U256::from(parts.node.wei()));
}

/// The demo models are at the hub, under the roots of the registry, and the inference node has fetched them from there.
async fn models_come_from_the_hub(dir: &Path, network: &Value) {
    let hub = network["hub"].as_str().expect("hub");
    let genesis = read_json(&dir.join("genesis.json"));
    let models = genesis["models"].as_array().expect("models");
    assert_eq!(models.len(), 4);
    for model in models {
        let name = model["name"].as_str().expect("name");
        let url = format!("{hub}/api/opg/models/{name}/root");
        let at_hub: Value = reqwest::get(&url).await.expect("hub").json().await.expect("json");
        assert_eq!(at_hub["root"], model["root"], "{name}");
        let sha256 = at_hub["manifest"]["files"][0]["sha256"].as_str().expect("sha256");
        let cached = dir
            .join("inference/model-cache/files")
            .join(sha256.trim_start_matches("0x"));
        assert!(cached.exists(), "{name} is not in the node's cache");
    }
    let node = network["nodes"][0]["url"].as_str().expect("url");
    let metrics = reqwest::get(format!("{node}/metrics")).await.expect("node");
    let metrics = metrics.text().await.expect("text");
    let fetched = format!("opg_inference_model_sources_total{{kind=\"hub\",source=\"{hub}\",outcome=\"whole\"}} 4");
    assert!(metrics.contains(&fetched), "{fetched} in\n{metrics}");
    // And gives them to others, by root.
    let root = models[0]["root"].as_str().expect("root");
    let shared = reqwest::get(format!("{node}/v1/model-files/{root}"))
        .await
        .expect("node");
    assert_eq!(shared.status(), 200);
}

/// Mode zk: the model's exact integer program answers, every full node verifies the proof before it votes, and the file proves the
/// answer to whoever has the genesis.
async fn proven_answer(home: &Path, dir: &Path, samples: &Value, rpcs: &[Rpc]) {
    let file = home.join("zk.receipt.json");
    let input = json!({"X": [samples["inputs"][6]]}).to_string();
    let arguments = [
        "infer",
        "demo/digits-mlp",
        "--mode",
        "zk",
        "--input",
        &input,
        "--receipt",
        text(&file),
    ];
    let asked = opg(home, &[&arguments[..], &["--dir", text(dir), "--json"]].concat()).expect_code(0);
    assert!(asked.stderr.contains("in the clear"), "D11 is said: {}", asked.stderr);
    let answer = asked.json();
    assert_eq!(answer["outputs"]["label"][0], samples["labels"][6], "{answer}");
    assert_eq!(
        (&answer["opg"]["mode"], &answer["opg"]["grade"]),
        (&json!("zk"), &json!("hardware"))
    );
    let id = &answer["receipt_id"];
    for rpc in rpcs {
        wait_until(
            "proven receipt final at every validator",
            Duration::from_secs(20),
            async || {
                rpc.try_call("og_getReceipt", json!([id])).await.is_ok_and(|r| {
                    r["mode"] == "zk" && matches!(r["state"].as_str(), Some("final" | "settled" | "released"))
                })
            },
        )
        .await;
    }

    let genesis = dir.join("genesis.json");
    let verify = |file: &Path| {
        let arguments = [
            "receipt",
            "verify",
            text(file),
            "--genesis",
            text(&genesis),
            "--offline",
        ];
        opg(home, &arguments)
    };
    let verified = verify(&file).expect_code(0);
    assert!(verified.stdout.contains("VERIFIED (zk)"), "{}", verified.stdout);
    // without the proof, and with a proof of which one digit is changed, nothing is verified
    let whole = read_json(&file);
    let artefact = whole["proof"]["artefact"].as_str().expect("artefact");
    let mut changed = artefact.to_owned();
    let at = changed.len() / 2;
    let other = if changed.as_bytes()[at] == b'A' { "B" } else { "A" };
    changed.replace_range(at..=at, other);
    let text_of_file = std::fs::read_to_string(&file).expect("file");
    let bad = home.join("bad.receipt.json");
    std::fs::write(&bad, text_of_file.replace(artefact, &changed)).expect("file");
    let refused = verify(&bad).expect_code(1);
    assert!(refused.stdout.contains("evidence"), "{}", refused.stdout);

    // the payer has the program compute the answer again, and finds nothing to report
    let program = concat!(env!("CARGO_MANIFEST_DIR"), "/../fixtures/digits/digits_mlp.program");
    let node = format!("0x{}", "01".repeat(32));
    let accuse = [
        "node",
        "slash-evidence",
        "report",
        "--node",
        &node,
        "--receipt",
        text(&file),
    ];
    let accuse = [&accuse[..], &["--program", program, "--dry-run", "--dir", text(dir)]].concat();
    let honest = opg(home, &accuse).expect_code(1);
    assert!(
        honest.stderr.contains("there is nothing wrong with it"),
        "{}",
        honest.stderr
    );
}

/// The creator of a model registers a program for it; nobody else can.
fn programs(home: &Path, dir: &Path) {
    let (program, report) = (home.join("logreg.program"), home.join("logreg.report.json"));
    let onnx = fixtures().join("digits/logreg.onnx");
    opg(
        home,
        &[
            "zk",
            "compile",
            text(&onnx),
            "-o",
            text(&program),
            "--report",
            text(&report),
        ],
    )
    .expect_code(0);
    let register = |key: &str, report: &Path| {
        let key = dir.join(key);
        let what = [
            "models",
            "register-program",
            "demo/digits-logreg",
            "--program",
            text(&program),
        ];
        let how = [
            "--report",
            text(report),
            "--key",
            text(&key),
            "--dir",
            text(dir),
            "--json",
        ];
        opg(home, &[&what[..], &how[..]].concat())
    };
    let refused = register("demo.key", &report).expect_code(1);
    assert!(refused.stderr.contains("revert"), "{}", refused.stderr);
    register("creator.key", &onnx).expect_code(2);
    let registered = register("creator.key", &report).expect_code(0).json();
    let shown = opg(
        home,
        &["models", "show", "demo/digits-logreg", "--dir", text(dir), "--json"],
    )
    .expect_code(0)
    .json();
    assert_eq!(shown["programs"], json!([registered["program"]]));
}

/// Every kind of bad input is refused with the right status, the field's name, and without a charge.
async fn bad_input(home: &Path, dir: &Path, node: &str, rpc: &Rpc) {
    let http = reqwest::Client::new();
    let balance = async || {
        opg(home, &["wallet", "balance", "--dir", text(dir), "--json"])
            .expect_code(0)
            .json()
    };
    let before = balance().await;
    let infer = format!("{node}/v1/infer");
    let chat = format!("{node}/v1/chat/completions");
    let row = vec![0; 64];
    let cases: Vec<(&str, String, String, u16, &str)> = vec![
        (
            "wrong model",
            infer.clone(),
            json!({"model": "demo/none", "inputs": {"X": [row]}}).to_string(),
            404,
            "model",
        ),
        (
            "wrong shape",
            infer.clone(),
            json!({"model": "demo/digits-mlp", "inputs": {"X": [[1, 2]]}}).to_string(),
            422,
            "X",
        ),
        (
            "wrong dtype",
            infer.clone(),
            json!({"model": "demo/digits-mlp", "inputs": {"X": [vec!["a"; 64]]}}).to_string(),
            422,
            "X",
        ),
        (
            "missing input",
            infer.clone(),
            json!({"model": "demo/digits-mlp", "inputs": {}}).to_string(),
            422,
            "X",
        ),
        (
            "NaN",
            infer.clone(),
            format!(
                "{{\"model\":\"demo/digits-mlp\",\"inputs\":{{\"X\":[[{}NaN]]}}}}",
                "0,".repeat(63)
            ),
            422,
            "X",
        ),
        (
            "huge number",
            infer.clone(),
            format!(
                "{{\"model\":\"demo/digits-mlp\",\"inputs\":{{\"X\":[[{}1e39]]}}}}",
                "0,".repeat(63)
            ),
            422,
            "X",
        ),
        ("empty body", infer.clone(), String::new(), 400, ""),
        ("bad JSON", chat.clone(), "{\"model\":".into(), 400, ""),
        (
            "no messages",
            chat.clone(),
            json!({"model": "demo/tiny-llama", "messages": []}).to_string(),
            422,
            "messages",
        ),
        (
            "n = 2",
            chat.clone(),
            json!({"model": "demo/tiny-llama", "n": 2, "messages": [{"role": "user", "content": "x"}]}).to_string(),
            422,
            "n",
        ),
        (
            "temperature 9",
            chat,
            json!({"model": "demo/tiny-llama", "temperature": 9, "messages": [{"role": "user", "content": "x"}]})
                .to_string(),
            422,
            "temperature",
        ),
    ];
    for (name, url, body, status, field) in cases {
        let answer = http
            .post(&url)
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .expect("answer");
        let got = answer.status().as_u16();
        let error: Value = answer.json().await.expect("json error");
        assert!(got == status || (status == 422 && got == 400), "{name}: {got} {error}");
        assert!(
            error["error"]["message"].as_str().is_some_and(|m| !m.is_empty()),
            "{name}: {error}"
        );
        assert!(error.to_string().contains(field), "{name} names {field}: {error}");
    }
    // 100 MB are refused without being read
    let huge = vec![b' '; 100 << 20];
    let answer = http.post(&infer).body(huge).send().await;
    assert!(
        answer.is_err() || answer.is_ok_and(|a| a.status() == 413),
        "100 MB body"
    );
    // unknown receipts, garbage receipts
    let unknown = http
        .get(format!("{node}/v1/receipts/0x{}", "ab".repeat(32)))
        .send()
        .await
        .expect("answer");
    assert_eq!(unknown.status(), 404);
    let garbage = rpc
        .try_call("og_submitReceipt", json!(["0xdeadbeef"]))
        .await
        .expect_err("garbage");
    assert!(garbage["message"].as_str().is_some_and(|m| !m.is_empty()), "{garbage}");
    assert!(rpc.try_call("og_getReceipt", json!(["0x12"])).await.is_err());
    assert_eq!(balance().await, before, "nothing was charged");
}

/// The first value under `key` anywhere in `value`.
#[track_caller]
fn find<'a>(value: &'a Value, key: &str) -> &'a Value {
    fn search<'a>(value: &'a Value, key: &str) -> Option<&'a Value> {
        match value {
            Value::Object(map) => map.get(key).or_else(|| map.values().find_map(|v| search(v, key))),
            Value::Array(list) => list.iter().find_map(|v| search(v, key)),
            _ => None,
        }
    }
    search(value, key).unwrap_or_else(|| panic!("no {key} in {value}"))
}
