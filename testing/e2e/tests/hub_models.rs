//! Models at the network's hub: uploaded and registered by their creator, downloaded by anybody, paid for, and accounted for to the
//! wei against the vault's own books.

use alloy::providers::ProviderBuilder;
use alloy_primitives::{Address, B256, U256};
use opg_contracts::addresses;
use opg_e2e::{
    Network,
    abi::{FeeVault, ModelRegistry},
    fixtures, opg, wait_until,
};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

const PATIENCE: Duration = Duration::from_secs(60);

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8 path")
}

/// A model that nobody has: the fixture with a description (`doc_string`, field 6) of its own.
fn fresh_model() -> Vec<u8> {
    let mut bytes = std::fs::read(fixtures().join("digits/logreg.onnx")).expect("model");
    let words = b"of the test";
    bytes.extend_from_slice(&[0x32, u8::try_from(words.len()).expect("short")]);
    bytes.extend_from_slice(words);
    bytes
}

/// Creates a wallet with coin for gas; returns its key file and address.
fn creator(home: &Path, dir: &Path) -> (std::path::PathBuf, String) {
    let key = home.join("maker.key");
    opg(home, &["wallet", "new", "--out", text(&key)]).expect_code(0);
    let shown = opg(
        home,
        &["wallet", "show", "--key", text(&key), "--dir", text(dir), "--json"],
    )
    .json();
    let address = shown["address"].as_str().expect("address").to_owned();
    opg(home, &["faucet", &address, "--dir", text(dir)]).expect_code(0);
    (key, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_creator_pushes_registers_and_changes_a_model() {
    let network = Network::start();
    let (dir, home) = (network.dir(), network.home().to_owned());
    let hub = network.file()["hub"].as_str().expect("hub").to_owned();
    let (key, address) = creator(&home, &dir);
    let name = format!("{}/logreg", address.to_lowercase());
    let run = |args: &[&str]| opg(&home, &[args, &["--dir", text(&dir)]].concat());

    let folder = home.join("folder");
    std::fs::create_dir_all(folder.join("notes")).expect("folder");
    std::fs::write(folder.join("model.onnx"), fresh_model()).expect("model");
    std::fs::write(folder.join("README.md"), "# Digits\n").expect("card");
    std::fs::write(folder.join("notes/how.txt"), "by hand").expect("notes");
    std::fs::write(folder.join(".secret"), "not for others").expect("hidden");
    let push = ["models", "push", text(&folder), &name, "--key", text(&key), "--json"];
    let terms = ["--price", "0.002", "--royalty", "1500", "--license", "mit"];

    // The root is known before anything is sent.
    let dry = run(&[&push[..], &terms[..], &["--dry-run"]].concat())
        .expect_code(0)
        .json();
    let root: B256 = dry["root"].as_str().expect("root").parse().expect("root");
    assert_eq!(
        reqwest::get(format!("{hub}/api/models/{name}"))
            .await
            .expect("hub")
            .status(),
        404
    );
    // A new model without a price, and a folder without a model, are refused.
    run(&push).expect_code(2);
    let empty = home.join("empty");
    std::fs::create_dir_all(&empty).expect("folder");
    std::fs::write(empty.join("weights.pkl"), "code").expect("file");
    let refused = run(&[
        "models",
        "push",
        text(&empty),
        &name,
        "--price",
        "1",
        "--key",
        text(&key),
    ])
    .expect_code(2);
    assert!(refused.stderr.contains("no ONNX or GGUF file"), "{}", refused.stderr);

    let first = run(&[&push[..], &terms[..]].concat()).expect_code(0).json();
    assert_eq!(
        (&first["registration"], &first["unchanged"]),
        (&json!("new"), &json!(false))
    );
    let provider = ProviderBuilder::new().connect_http(network.rpc_urls()[0].parse().expect("url"));
    let registry = ModelRegistry::new(addresses::MODEL_REGISTRY, &provider);
    let owner: Address = registry.creatorOf(root).call().await.expect("creator");
    assert_eq!(owner, address.parse::<Address>().expect("address"));
    // With the licence it was published under; the same out of the chain, for people and programs.
    let model = registry.models(root).call().await.expect("model");
    assert_eq!(model.uri, format!("{hub}/{name}#license=mit"));
    let shown = run(&["models", "show", &name, "--json"]).expect_code(0).json();
    assert_eq!(
        (&shown["license"], &shown["page"], &shown["deprecated"]),
        (&json!("mit"), &json!(format!("{hub}/{name}")), &Value::Null),
        "{shown}"
    );
    let shown = run(&["models", "show", &name]).expect_code(0);
    assert!(shown.stdout.contains("mit (at its registration)"), "{}", shown.stdout);
    assert!(!shown.stderr.contains("deprecated"), "{}", shown.stderr);

    // Twice is once.
    let again = run(&[&push[..], &terms[..]].concat()).expect_code(0).json();
    assert_eq!(
        (&again["registration"], &again["unchanged"]),
        (&json!("kept"), &json!(true)),
        "{again}"
    );
    assert_eq!(again["revision"], first["revision"]);

    // The page and the API say what the chain says.
    let registration: Value = reqwest::get(format!("{hub}/api/opg/models/{name}/registration"))
        .await
        .expect("hub")
        .json()
        .await
        .expect("json");
    let listed = &registration["models"][0];
    assert_eq!(listed["root"], dry["root"]);
    assert_eq!(
        (
            &listed["registration"]["royalty_bps"],
            &listed["registration"]["price"]["per_call"]
        ),
        (&json!(1500), &json!("2000000000000000"))
    );
    let page = reqwest::get(format!("{hub}/{name}"))
        .await
        .expect("hub")
        .text()
        .await
        .expect("page");
    assert!(page.contains("0.002 OPG a call") && page.contains("15.00 %"), "{page}");
    let shown = run(&["models", "show", &name, "--json"]).expect_code(0).json();
    assert_eq!(
        (&shown["root"], &shown["earnings"]["earned"]),
        (&dry["root"], &json!("0")),
        "{shown}"
    );

    // A new version moves what is new; the old one stays, under its commit.
    std::fs::write(folder.join("notes/more.txt"), "more").expect("notes");
    std::fs::remove_file(folder.join("notes/how.txt")).expect("notes");
    let second = run(&[&push[..], &terms[..]].concat()).expect_code(0).json();
    assert_ne!(second["revision"], first["revision"]);
    assert_eq!(second["root"], first["root"]);
    assert!(second["sent"].as_u64().expect("sent") < 2_000, "{second}");
    let newest = home.join("newest");
    let pulled = run(&["models", "pull", &name, "--out", text(&newest), "--json"])
        .expect_code(0)
        .json();
    assert_eq!(pulled["models"][0]["root"], dry["root"]);
    assert!(std::fs::read(newest.join("model.onnx")).expect("model") == fresh_model());
    let card = std::fs::read_to_string(newest.join("README.md")).expect("card");
    assert!(
        card.contains("license: \"mit\"") && card.ends_with("# Digits\n"),
        "{card}"
    );
    assert!(newest.join("notes/more.txt").exists() && !newest.join("notes/how.txt").exists());
    assert!(!newest.join(".secret").exists());
    let old = home.join("old");
    let revision = format!("{name}@{}", first["revision"].as_str().expect("revision"));
    run(&["models", "pull", &revision, "--out", text(&old)]).expect_code(0);
    assert!(old.join("notes/how.txt").exists());
    // By root, and only what is missing.
    std::fs::remove_file(newest.join("README.md")).expect("card");
    let by_root = [
        "models",
        "pull",
        dry["root"].as_str().expect("root"),
        "--out",
        text(&newest),
        "--json",
    ];
    let received = run(&by_root).expect_code(0).json()["received"].as_u64().expect("bytes");
    assert_eq!(received, card.len() as u64);

    // Nobody else may change it, or take the record: the same bytes under another name share it.
    let stranger = ["models", "push", text(&folder), &name, "--price", "1", "--json"];
    let refused = run(&stranger).expect_code(1);
    assert!(
        refused.stderr.contains("403") || refused.stderr.contains("name"),
        "{}",
        refused.stderr
    );
    let demo = network.file()["wallet"]["address"]
        .as_str()
        .expect("address")
        .to_lowercase();
    let copied = format!("{demo}/copy");
    let shared = run(&["models", "push", text(&folder), &copied, "--price", "1", "--json"])
        .expect_code(0)
        .json();
    assert_eq!(shared["registration"], "shared", "{shared}");
    assert_eq!(registry.creatorOf(root).call().await.expect("creator"), owner);

    // Out of date, then gone; the chain keeps the record.
    let reason = [
        "models",
        "deprecate",
        &name,
        "--reason",
        "use v2: \"better\"",
        "--key",
        text(&key),
    ];
    run(&reason).expect_code(0);
    let page = reqwest::get(format!("{hub}/{name}"))
        .await
        .expect("hub")
        .text()
        .await
        .expect("page");
    assert!(page.contains("Deprecated: use v2: &quot;better&quot;"), "{page}");
    for command in ["show", "pull"] {
        let asked = ["models", command, &name, "--json"];
        let out = ["--out", text(&newest)];
        let out = if command == "pull" { &out[..] } else { &[] };
        let said = run(&[&asked[..], out].concat()).expect_code(0);
        assert!(
            said.stderr.contains("is deprecated: use v2: \"better\""),
            "{}",
            said.stderr
        );
        assert_eq!(said.json()["deprecated"], "use v2: \"better\"");
    }
    run(&["models", "rm", &name, "--key", text(&key)]).expect_code(2);
    run(&["models", "rm", &name, "--yes"]).expect_code(1);
    run(&["models", "rm", &name, "--yes", "--key", text(&key)]).expect_code(0);
    assert_eq!(
        reqwest::get(format!("{hub}/api/models/{name}"))
            .await
            .expect("hub")
            .status(),
        404
    );
    assert_eq!(registry.creatorOf(root).call().await.expect("creator"), owner);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_kept_private_gated_and_given_away() {
    let network = Network::start();
    let (dir, home) = (network.dir(), network.home().to_owned());
    let hub = network.file()["hub"].as_str().expect("hub").to_owned();
    let (key, address) = creator(&home, &dir);
    let demo = network.file()["wallet"]["address"]
        .as_str()
        .expect("address")
        .to_lowercase();
    let name = format!("{}/secret", address.to_lowercase());
    let run = |args: &[&str]| opg(&home, &[args, &["--dir", text(&dir)]].concat());
    let token = |more: &[&str]| {
        let token = [&["hub", "token", "--hub", &hub], more].concat();
        let said = opg(&home, &token).expect_code(0);
        said.stdout.trim().to_owned()
    };
    let own = token(&["--key", text(&key)]);
    let http = reqwest::Client::new();

    let folder = home.join("folder");
    std::fs::create_dir_all(&folder).expect("folder");
    std::fs::write(folder.join("model.onnx"), fresh_model()).expect("model");
    let push = [
        "models",
        "push",
        text(&folder),
        &name,
        "--private",
        "--key",
        text(&key),
        "--json",
    ];
    let pushed = run(&[&push[..], &["--price", "0.002", "--license", "a/b"]].concat()).expect_code(0);
    assert!(pushed.stderr.contains("no SPDX expression"), "{}", pushed.stderr);
    let pushed = pushed.json();
    let root: B256 = pushed["root"].as_str().expect("root").parse().expect("root");
    assert_eq!(
        http.get(format!("{hub}/api/models/{name}"))
            .send()
            .await
            .expect("hub")
            .status(),
        404
    );
    let provider = ProviderBuilder::new().connect_http(network.rpc_urls()[0].parse().expect("url"));
    let registry = ModelRegistry::new(addresses::MODEL_REGISTRY, &provider);
    let model = registry.models(root).call().await.expect("model");
    assert_eq!(model.uri, format!("{hub}/{name}"));

    // Its account has it by wallet and by token; the demo wallet, which signs in where no other is named, does not.
    let out = home.join("out");
    let pull = |more: &[&str]| {
        let _ = std::fs::remove_dir_all(&out);
        run(&[&["models", "pull", &name, "--out", text(&out)], more].concat())
    };
    let pulled = || std::fs::read(out.join("model.onnx")).expect("model") == fresh_model();
    pull(&["--key", text(&key)]).expect_code(0);
    assert!(pulled());
    pull(&["--token", &own]).expect_code(0);
    assert!(pulled());
    let refused = pull(&[]).expect_code(1);
    assert!(
        refused.stderr.to_lowercase().contains(&demo) && refused.stderr.contains("404: repository not found"),
        "{}",
        refused.stderr
    );
    // A token of another service is not sent; the wallet does without it.
    let other = pull(&["--token", "hf_of_another_service", "--key", text(&key)]).expect_code(0);
    assert!(other.stderr.contains("was not sent"), "{}", other.stderr);
    let wrong = pull(&["--token", "hf_opgwrong", "--key", text(&key)]).expect_code(1);
    assert!(
        wrong.stderr.contains("HF_TOKEN") && wrong.stderr.contains("401"),
        "{}",
        wrong.stderr
    );
    // No token of the wallet is left behind but the one that was made above.
    let tokens = http.get(format!("{hub}/api/opg/tokens")).bearer_auth(&own).send().await;
    let tokens: Value = tokens.expect("hub").json().await.expect("json");
    assert_eq!(tokens.as_array().expect("list").len(), 1, "{tokens}");

    // Gated: the refusal says what to do, and doing that helps.
    let settings = http.put(format!("{hub}/api/models/{name}/settings")).bearer_auth(&own);
    let changed = settings.json(&json!({"private": false, "gated": "auto"})).send().await;
    assert_eq!(changed.expect("hub").status(), 200);
    let refused = pull(&[]).expect_code(1);
    let call = format!("/{name}/ask-access");
    assert!(refused.stderr.contains(&format!("POST {call}")), "{}", refused.stderr);
    let demo_key = dir.join("demo.key");
    let demos = token(&["--key", text(&demo_key)]);
    let asked = http.post(format!("{hub}{call}")).bearer_auth(&demos).send().await;
    assert_eq!(asked.expect("hub").status(), 200);
    pull(&[]).expect_code(0);
    assert!(pulled());
    // What is public already does not become private by a push.
    let refused = run(&push).expect_code(1);
    assert!(refused.stderr.contains("public"), "{}", refused.stderr);

    // Given away by its creator, once, and by nobody else.
    let transfer = |model: &str, to: &str, more: &[&str]| run(&[&["models", "transfer", model, to], more].concat());
    let root_text = root.to_string();
    let refused = transfer(&name, &demo, &[]).expect_code(1);
    assert!(
        refused.stderr.to_lowercase().contains(&address.to_lowercase()),
        "{}",
        refused.stderr
    );
    transfer(&name, "0x12", &["--key", text(&key)]).expect_code(2);
    let given = transfer(&name, &demo, &["--key", text(&key), "--json"])
        .expect_code(0)
        .json();
    assert_eq!((&given["root"], &given["to"]), (&json!(root), &json!(demo)), "{given}");
    let owner: Address = registry.creatorOf(root).call().await.expect("creator");
    assert_eq!(owner, demo.parse::<Address>().expect("address"));
    transfer(&root_text, &address, &["--key", text(&key)]).expect_code(1);
}

/// Wei in a field of the hub's answer.
fn wei(value: &Value) -> u128 {
    value.as_str().expect("an amount").parse().expect("wei")
}

#[tokio::test(flavor = "multi_thread")]
async fn earnings_are_those_of_the_vault_to_the_wei() {
    let mut network = Network::start();
    let (dir, home) = (network.dir(), network.home().to_owned());
    let hub = network.file()["hub"].as_str().expect("hub").to_owned();
    let node: B256 = network.file()["nodes"][0]["id"]
        .as_str()
        .expect("id")
        .parse()
        .expect("id");
    let provider = ProviderBuilder::new().connect_http(network.rpc_urls()[0].parse().expect("url"));
    let vault = FeeVault::new(addresses::FEE_VAULT, &provider);
    let genesis: Value =
        serde_json::from_slice(&std::fs::read(dir.join("genesis.json")).expect("genesis")).expect("json");
    let creator: Address = genesis["models"][0]["creator"]
        .as_str()
        .expect("creator")
        .parse()
        .expect("address");
    let run = |args: &[&str]| opg(&home, &[args, &["--dir", text(&dir)]].concat());
    let earnings = async |name: &str| -> Value {
        let url = format!("{hub}/api/opg/models/{name}/earnings");
        let answer: Value = reqwest::get(url).await.expect("hub").json().await.expect("json");
        answer["models"][0].clone()
    };
    let names = [
        "demo/digits-mlp",
        "demo/digits-logreg",
        "demo/digits-gbc",
        "demo/tiny-llama",
    ];
    assert_eq!(wei(&earnings(names[0]).await["earned"]), 0);

    // Payments of their own, of which the chat gives change back; two on one model.
    let input = json!({ "X": [vec![0; 64]] }).to_string();
    let call = |model: &str, more: &[&str]| {
        let file = home.join("receipt.json");
        let asked = ["infer", model, "--input", &input, "--receipt", text(&file)];
        run(&[&asked[..], more].concat()).expect_code(0);
    };
    call(names[0], &["--pay", "exact"]);
    call(names[0], &["--pay", "exact"]);
    let chat = [
        "chat",
        names[3],
        "This program is free software",
        "--max-tokens",
        "8",
        "--pay",
        "exact",
    ];
    let file = home.join("chat.json");
    run(&[&chat[..], &["--receipt", text(&file)]].concat()).expect_code(0);
    // Out of a channel, on two other models; the node claims when it owes 0.001 OPG.
    run(&["channel", "open", names[1], "--deposit", "0.05"]).expect_code(0);
    for _ in 0..2 {
        call(names[1], &["--pay", "channel"]);
        call(names[2], &["--pay", "channel"]);
    }

    // The hub's sums over all models are what the vault owes the creator, and every call is counted.
    let compare = async || {
        let (mut earned, mut waiting, mut calls) = (0, 0, 0);
        for name in names {
            let found = earnings(name).await;
            earned += wei(&found["earned"]);
            waiting += wei(&found["waiting"]);
            calls += found["calls"].as_u64().expect("calls");
        }
        let owed = vault.credited(creator, node).call().await.expect("credit");
        (U256::from(earned) == owed && waiting == 0, calls, earned, owed)
    };
    wait_until("the hub agrees with the vault", PATIENCE, async || {
        let (agrees, calls, earned, _) = compare().await;
        agrees && calls == 7 && earned > 0
    })
    .await;
    // One by one: 0.001 OPG and the royalty of 10 % of what is charged with it.
    for (name, calls) in [(names[0], 2), (names[1], 2), (names[2], 2), (names[3], 1)] {
        let found = earnings(name).await;
        assert_eq!(found["calls"], calls, "{name}: {found}");
        let charged = wei(&found["charged"]);
        if calls == 2 {
            // Two equal charges: the royalty of each is rounded down.
            assert_eq!(wei(&found["earned"]), 2 * (charged / 2 / 10), "{name}: {found}");
        }
        assert_eq!(found["registration"]["royalty_bps"], 1_000);
    }
    let shown = run(&["models", "show", names[0], "--json"]).expect_code(0).json();
    assert_eq!(shown["earnings"]["earned"], earnings(names[0]).await["earned"]);
    let page = reqwest::get(format!("{hub}/{}", names[0]))
        .await
        .expect("hub")
        .text()
        .await
        .expect("page");
    assert!(page.contains("On the network"), "{page}");

    // After a restart nothing is counted twice; without the file it is all found again on the chain.
    let before = compare().await;
    assert!(network.stop().success(), "orderly end");
    network.run();
    call(names[0], &["--pay", "exact"]);
    wait_until("one call more", PATIENCE, async || {
        let (agrees, calls, earned, _) = compare().await;
        agrees && calls == before.1 + 1 && earned > before.2
    })
    .await;
    let sums = compare().await;
    assert!(network.stop().success(), "orderly end");
    for name in ["chain.sqlite", "chain.sqlite-wal", "chain.sqlite-shm"] {
        let _ = std::fs::remove_file(dir.join("hub/data").join(name));
    }
    network.run();
    wait_until("the sums are made again", PATIENCE, async || compare().await == sums).await;
}
