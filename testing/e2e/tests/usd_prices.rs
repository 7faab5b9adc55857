//! A model whose price is in USD: not sold while the chain's oracle has no price; sold at what validators say, the median of their own
//! sources, once it has; never for more than the ask that is registered on chain. The validators accept, settle and credit its receipts.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use opg_contracts::addresses;
use opg_e2e::{CommandOutput, Network, Rpc, opg, wait_until};
use reqwest::{Client, Response};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

const MODEL: &str = "demo/digits-mlp";
/// First four bytes of `keccak256("latest()")`.
const LATEST: &str = "0x52bfe789";
/// USD of one OPG, and micro-USD.
const PRICE: (&str, u128) = ("0.30", 300_000);
/// A call, micro-USD.
const PER_CALL: u128 = 200;
/// Two whole rounds of a minute, and a margin.
const PATIENCE: Duration = Duration::from_secs(240);

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8 path")
}

/// Each validator has a source of its own: two files, a command, and one that is wrong by far.
fn with_oracle(dir: &Path) -> Vec<String> {
    let mut relayers = Vec::new();
    for i in 0..4 {
        let folder = dir.join(format!("validator-{i}"));
        let price = if i == 3 { "900000" } else { PRICE.0 };
        std::fs::write(folder.join("price.txt"), price).expect("price");
        let made = opg(
            &folder,
            &["wallet", "new", "--out", text(&folder.join("relayer.key")), "--json"],
        );
        let made = made.expect_code(0).json();
        relayers.push(made["address"].as_str().expect("address").to_owned());
        let source = match i {
            2 => format!("{{ command = [\"cat\", {:?}] }}", text(&folder.join("price.txt"))),
            _ => "{ file = \"price.txt\" }".to_owned(),
        };
        let config = folder.join("config.toml");
        let before = std::fs::read_to_string(&config).expect("config");
        let oracle = format!("{before}\n[oracle]\nsource = {source}\nrelayer = \"relayer.key\"\n");
        std::fs::write(&config, oracle).expect("config");
    }
    let config = dir.join("inference/config.toml");
    let before = std::fs::read_to_string(&config).expect("config");
    let name = format!("name = \"{MODEL}\"\n");
    let after = before.replace(&name, &format!("{name}usd = {{ per_call = {PER_CALL} }}\n"));
    assert_ne!(before, after);
    std::fs::write(&config, after).expect("config");
    relayers
}

struct World {
    network: Network,
    http: Client,
    rpc: Rpc,
}

impl World {
    async fn ask(&self, path: &str, body: &Value) -> Response {
        let request = self.http.post(format!("{}{path}", self.network.node_url()));
        request.json(body).send().await.expect("an answer")
    }

    async fn digits(&self) -> Response {
        self.ask("/v1/infer", &json!({"model": MODEL, "inputs": {"X": [vec![0; 64]]}}))
            .await
    }

    async fn entry(&self) -> Value {
        let url = format!("{}/v1/models/{MODEL}", self.network.node_url());
        self.http
            .get(url)
            .send()
            .await
            .expect("answer")
            .json()
            .await
            .expect("json")
    }

    fn run(&self, arguments: &[&str]) -> CommandOutput {
        let dir = self.network.dir();
        opg(
            self.network.home(),
            &[arguments, &["--dir", text(&dir), "--json"]].concat(),
        )
    }

    /// Price, and whether it may be used.
    async fn price(&self) -> (u128, bool) {
        let call = json!([{"to": addresses::PRICE_ORACLE, "data": LATEST}, "latest"]);
        let found = self.rpc.call("eth_call", call).await;
        let words = found.as_str().expect("hex").trim_start_matches("0x").to_owned();
        let word = |n: usize| u128::from_str_radix(&words[n * 64 + 32..(n + 1) * 64], 16).expect("a number");
        (word(0), word(2) == 1)
    }
}

fn wei(value: &Value) -> u128 {
    value.as_str().expect("amount").parse().expect("amount")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_in_usd_follows_the_validators_median() {
    let mut relayers = Vec::new();
    let network = Network::start_prepared(|dir| relayers = with_oracle(dir));
    let world = World {
        rpc: Rpc::new(network.rpc_urls()[0]),
        http: Client::builder().no_proxy().build().expect("client"),
        network,
    };
    // no price yet: this model is not sold, the others are
    let refused = world.digits().await;
    assert_eq!(refused.status(), 503);
    let error: Value = refused.json().await.expect("json");
    assert_eq!(error["error"]["code"], "price_unavailable", "{error}");
    let message = error["error"]["message"].as_str().expect("message");
    assert!(message.contains("oracle has no price yet"), "{message}");
    let entry = world.entry().await;
    assert!(entry["price"].is_null() && entry["unpriced"].is_string(), "{entry}");
    assert_eq!(entry["price_micro_usd"]["per_call"], PER_CALL as u64);
    let chat = json!({"model": "demo/tiny-llama", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2});
    assert_eq!(world.ask("/v1/chat/completions", &chat).await.status(), 402);

    // feeds cost gas; who sends them has none until now
    for address in &relayers {
        world
            .run(&["wallet", "send", address, "0.5", "--native"])
            .expect_code(0);
    }
    wait_until("the oracle has a price", PATIENCE, async || world.price().await.1).await;
    // the median: one source that is wrong by far moves nothing
    assert_eq!(world.price().await, (PRICE.1, true));
    wait_until("the node sells again", Duration::from_secs(20), async || {
        world.digits().await.status() == 402
    })
    .await;

    // a call costs its price in USD, rounded up to a wei, and the royalty
    let ask = (PER_CALL * 10u128.pow(18)).div_ceil(PRICE.1);
    let entry = world.entry().await;
    assert_eq!(wei(&entry["price"]["per_call"]), ask);
    let kept = 10_000 - u128::from(entry["royalty_bps"].as_u64().expect("royalty"));
    let charge = (ask * 10_000).div_ceil(kept);
    let answer = world.digits().await;
    let header = answer.headers()["payment-required"].as_bytes();
    let offer: Value = serde_json::from_slice(&STANDARD.decode(header).expect("base64")).expect("json");
    for way in offer["accepts"].as_array().expect("accepts") {
        assert_eq!(wei(&way["amount"]), charge, "{way}");
    }

    // paid and credited, by authorization and out of a channel (whose bound is the registered ask)
    let input = json!({"X": [vec![0.0; 64]]}).to_string();
    let open = ["channel", "open", MODEL, "--deposit", "1"];
    world.run(&open).expect_code(0);
    for pay in ["exact", "channel"] {
        let paid = world.run(&["infer", MODEL, "--input", &input, "--pay", pay]);
        let paid = paid.expect_code(0).json();
        assert_eq!(wei(&paid["opg"]["charge"]), charge, "{pay}: {paid}");
        let id = paid["receipt_id"].as_str().expect("id").to_owned();
        wait_until("the validators have recorded it", Duration::from_secs(60), async || {
            let found = world.rpc.try_call("og_getReceipt", json!([id])).await;
            found.is_ok_and(|found| found["payment"]["charge"] == charge.to_string())
        })
        .await;
    }
}
