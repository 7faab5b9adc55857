//! An inference node that joins a running network by the command line: written, registered and bonded by its operator, called and paid, held to a
//! bond that covers its fees, paid out, and out of the network again with its bond. Money is counted to the wei.

use opg_e2e::{Network, Opg, fixtures, opg, wait_until};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

const MODEL: &str = "demo/digits-mlp";
/// The network's least bond, wei: it covers one call and not two.
const LEAST: u128 = 1_500_000_000_000_000;
const WINDOW: u64 = 3;
const UNBONDING: u64 = 10;

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8 path")
}

fn wei(value: &Value) -> u128 {
    value
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("not an amount: {value}"))
}

struct Operator {
    home: PathBuf,
    dir: PathBuf,
    key: PathBuf,
    id: String,
}

impl Operator {
    fn run(&self, arguments: &[&str]) -> opg_e2e::CommandOutput {
        let more = ["--key", text(&self.key), "--dir", text(&self.dir), "--json"];
        opg(&self.home, &[arguments, &more].concat())
    }

    fn ok(&self, arguments: &[&str]) -> Value {
        self.run(arguments).expect_code(0).json()
    }

    fn balance(&self) -> u128 {
        wei(&self.ok(&["wallet", "balance"])["opg"])
    }

    fn heartbeat(&self) -> opg_e2e::CommandOutput {
        let arguments = [
            "node",
            "heartbeat",
            "--node",
            &self.id,
            "--dir",
            text(&self.dir),
            "--json",
        ];
        opg(&self.home, &arguments)
    }
}

/// A copy of the network's folder whose only node is the one that joined, as a caller who wants that one writes it.
fn network_with(operator: &Operator, url: &str) -> PathBuf {
    let copy = operator.home.join("network-of-one");
    std::fs::create_dir_all(&copy).expect("folder");
    let mut file: Value =
        serde_json::from_slice(&std::fs::read(operator.dir.join("network.json")).expect("network.json")).expect("json");
    file["nodes"] = json!([{ "role": "inference", "id": operator.id, "url": url, "models": [MODEL] }]);
    file["genesis"] = json!(operator.dir.join("genesis.json"));
    file.as_object_mut().expect("object").remove("router");
    std::fs::write(copy.join("network.json"), file.to_string()).expect("network.json");
    copy
}

#[tokio::test(flavor = "multi_thread")]
async fn an_inference_node_joins_earns_within_its_bond_and_leaves() {
    let windows = json!({ "none": WINDOW, "tee": WINDOW, "zk": 0, "replay": WINDOW });
    let parameters = json!({
        "min_bond": LEAST.to_string(), "unbonding": UNBONDING, "windows": windows,
        "staking": { "appeal_window": 5 },
    });
    let network = Network::start_with(Some(&parameters));
    let (home, dir) = (network.home().to_owned(), network.dir());
    let demo = |arguments: &[&str]| opg(&home, &[arguments, &["--dir", text(&dir), "--json"]].concat());

    // Written: a folder with keys of its own.
    let out = home.join("second");
    let model = format!("{MODEL}={}", fixtures().join("digits/digits_mlp.onnx").display());
    let init = ["node", "init-inference", "--out", text(&out), "--model", &model];
    let made = demo(&init).expect_code(0).json();
    assert_eq!(demo(&init).code(), 2, "a folder that holds a node is left alone");
    let word = |name: &str| made[name].as_str().expect("text").to_owned();
    let operator = Operator {
        home: home.clone(),
        dir: dir.clone(),
        key: word("operator_key").into(),
        id: word("id"),
    };
    let config = word("config");
    let unknown = operator.heartbeat();
    assert_eq!(unknown.code(), 2, "{}", unknown.stderr);
    assert!(unknown.stderr.contains("not registered"), "{}", unknown.stderr);

    // Registered: not without the money, not by another wallet, not with too little.
    let register = ["node", "register", "inference", "--config", &config];
    let poor = operator.run(&register);
    assert_ne!(poor.code(), 0);
    assert!(poor.stderr.contains("OPG"), "{}", poor.stderr);
    demo(&["wallet", "send", &word("operator"), "5"]).expect_code(0);
    demo(&["wallet", "send", &word("operator"), "10", "--native"]).expect_code(0);
    let other = demo(&register);
    assert_eq!(other.code(), 2);
    assert!(other.stderr.contains("field `operator`"), "{}", other.stderr);
    let small = operator.run(&[&register[..], &["--bond", "0.001"]].concat());
    assert!(small.stderr.contains("field `bond`"), "{}", small.stderr);
    let start = operator.balance();
    let dry = operator.ok(&[&register[..], &["--dry-run"]].concat());
    assert_eq!((&dry["dry_run"], &dry["steps"]), (&json!(true), &json!(["register"])));
    assert_eq!(operator.balance(), start);
    operator.ok(&register);
    assert_eq!(operator.balance(), start - LEAST, "the bond is the network's least");
    let again = operator.ok(&register);
    assert_eq!((&again["steps"], &again["transactions"]), (&json!([]), &json!([])));

    // Registered and silent: the heartbeat says so.
    let silent = operator.heartbeat();
    assert_eq!(silent.code(), 1, "{}", silent.stdout);
    assert_eq!(silent.json()["problems"].as_array().map(Vec::len), Some(1));
    let node = Opg::start(&home, "second", &home, &["node", "inference", "--config", &config]);
    wait_until("the heartbeat", Duration::from_secs(60), async || {
        operator.heartbeat().code() == 0
    })
    .await;
    assert_eq!(operator.heartbeat().json()["models"], json!([MODEL]));

    // Called and paid by somebody who has nothing to do with its operator.
    let callers = network_with(&operator, &word("url"));
    let input = format!("@{}", home.join("input.json").display());
    std::fs::write(home.join("input.json"), json!({ "X": [vec![3; 64]] }).to_string()).expect("input");
    let call = || {
        let arguments = ["infer", MODEL, "--input", &input, "--pay", "exact", "--key"];
        let key = dir.join("demo.key");
        opg(
            &home,
            &[&arguments[..], &[text(&key), "--dir", text(&callers), "--json"]].concat(),
        )
    };
    call().expect_code(0);
    // The bond does not cover another call, before the ledger has the first one and after.
    let refused = call();
    assert_eq!(refused.code(), 1, "{}", refused.stdout);
    assert!(refused.stderr.contains("bond_too_small"), "{}", refused.stderr);
    let fees = || wei(&operator.heartbeat().json()["standing"]["recent_fees"]);
    wait_until("the ledger to count the fee", Duration::from_secs(60), async || {
        fees() > 0
    })
    .await;
    let fee = fees();
    assert!(fee < LEAST && 2 * fee > LEAST, "{fee}");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(call().stderr.contains("bond_too_small"));

    // With more bond it does; nobody else adds to it or takes it.
    let stranger = demo(&["node", "bond", "1", "--node", &operator.id]);
    assert!(stranger.stderr.contains("belongs to"), "{}", stranger.stderr);
    operator.ok(&["node", "bond", "0.01", "--node", &operator.id]);
    let before = operator.balance();
    wait_until("a call that the bond covers", Duration::from_secs(30), async || {
        call().code() == 0
    })
    .await;
    wait_until("the second fee", Duration::from_secs(60), async || fees() == 2 * fee).await;

    // Paid out, once, when the window is over.
    let withdraw = ["node", "withdraw", "--node", &operator.id];
    let credits = || wei(&operator.ok(&[&withdraw[..], &["--dry-run"]].concat())["amount"]);
    // The node's part is 80 % and more of what the royalty leaves, so both credits together are more than one fee.
    wait_until("both credits", Duration::from_secs(60), async || credits() > fee).await;
    let paid = wei(&operator.ok(&withdraw)["amount"]);
    assert!(paid > fee, "{paid} of two fees of {fee}");
    assert_eq!(operator.balance(), before + paid);
    assert_eq!(wei(&operator.ok(&withdraw)["amount"]), 0);

    // Out of the network: the bond comes back when its time is over, to the wei.
    let bonded = [&withdraw[..], &["--bond"]].concat();
    let early = operator.run(&bonded);
    assert!(early.stderr.contains("has not left"), "{}", early.stderr);
    let leave = ["node", "leave", "--node", &operator.id];
    operator.ok(&[&leave[..], &["--dry-run"]].concat());
    operator.ok(&leave);
    assert!(operator.run(&leave).stderr.contains("has left for ever"));
    let beat = operator.heartbeat();
    assert_eq!(beat.code(), 1);
    let early = operator.run(&bonded);
    assert!(early.stderr.contains("unbonds for"), "{}", early.stderr);
    let before = operator.balance();
    wait_until("the bond", Duration::from_secs(60), async || {
        operator.run(&bonded).code() == 0
    })
    .await;
    assert_eq!(operator.balance(), before + LEAST + 10_000_000_000_000_000);
    assert!(operator.run(&bonded).stderr.contains("none left"));
    assert!(node.terminate().success(), "orderly end");
}
