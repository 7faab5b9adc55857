//! Public x402 clients, unmodified, pay a local network: npm `@x402/fetch`, PyPI `x402` (httpx and requests), OpenGradient's fork
//! `og-x402` and crates.io's `x402-reqwest`, by every scheme that they have. Each call is answered, charged to the token, recorded by the chain and credited.
//!
//! Skipped, loudly, where the packages cannot be installed.

use alloy::{
    network::EthereumWallet,
    primitives::{Address, U256},
    providers::ProviderBuilder,
    signers::local::PrivateKeySigner,
};
use opg_contracts::addresses;
use opg_e2e::{Network, Rpc, abi::OPG, opg, wait_until};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(60);
/// What the node asks stock clients to deposit into a channel, wei.
const DEPOSIT: u128 = 10_000_000_000_000_000;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// A virtual environment with the packages of a requirements file, made once per target directory.
fn python(requirements: &str) -> Option<PathBuf> {
    let pins = folder().join(requirements);
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join(requirements.replace(".txt", "-venv"));
    let done = venv.join("installed.txt");
    let wanted = std::fs::read_to_string(&pins).expect("requirements");
    let python = venv.join("bin/python");
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return Some(python);
    }
    let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).status();
    if !made.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: python3 -m venv does not work here");
        return None;
    }
    let installed = Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(&pins)
        .status();
    if !installed.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: {requirements} cannot be installed; is a registry reachable?");
        return None;
    }
    std::fs::write(done, wanted).expect("written");
    Some(python)
}

fn node() -> Option<()> {
    let there = folder().join("node_modules/@x402/fetch").is_dir();
    let runs = Command::new("node")
        .arg("--version")
        .output()
        .is_ok_and(|out| out.status.success());
    if !(there && runs) {
        eprintln!("SKIPPED: the npm clients are not installed (npm ci --ignore-scripts in testing/e2e/clients)");
        return None;
    }
    Some(())
}

/// The program around `x402-reqwest` (testing/x402-reqwest), which `cargo xtask test` builds: a workspace of its own, beside this one's build.
fn rust() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("target directory");
    let program = target.join("x402-reqwest/debug/x402-reqwest-client");
    if !program.is_file() {
        eprintln!(
            "SKIPPED: x402-reqwest is not built; is a registry reachable? (cargo build --locked --manifest-path testing/x402-reqwest/Cargo.toml --target-dir {})",
            target.join("x402-reqwest").display()
        );
        return None;
    }
    Some(program)
}

/// A network and what a new payer on it needs.
struct World {
    network: Network,
    rpc: Rpc,
    node: String,
    /// What a call costs, wei, as our own client pays it.
    charge: u128,
}

struct Payer {
    key: String,
    address: Address,
}

impl World {
    fn start() -> Self {
        let network = Network::start();
        let rpc = Rpc::new(network.rpc_urls()[0]);
        let node = network.node_url().to_owned();
        let (home, dir) = (network.home(), network.dir());
        let input = json!({"X": [vec![0.0; 64]]}).to_string();
        let dir = dir.to_str().expect("utf-8");
        let paid = opg(
            home,
            &["infer", "demo/digits-mlp", "--input", &input, "--dir", dir, "--json"],
        );
        let charge = paid.expect_code(0).json()["opg"]["charge"]
            .as_str()
            .expect("charge")
            .parse();
        Self {
            charge: charge.expect("wei"),
            network,
            rpc,
            node,
        }
    }

    /// A wallet with OPG; with `permit2`, one that lets Permit2 move it, for which it needs a little gas.
    async fn payer(&self, permit2: bool) -> Payer {
        let signer = PrivateKeySigner::random();
        let (address, dir) = (signer.address(), self.network.dir());
        let (home, dir) = (self.network.home(), dir.to_str().expect("utf-8"));
        let to = address.to_string();
        opg(home, &["wallet", "send", &to, "2", "--dir", dir]).expect_code(0);
        if permit2 {
            opg(home, &["wallet", "send", &to, "0.1", "--native", "--dir", dir]).expect_code(0);
            let provider = ProviderBuilder::new()
                .wallet(EthereumWallet::from(signer.clone()))
                .connect_http(self.network.rpc_urls()[0].parse().expect("url"));
            let sent = OPG::new(addresses::OPG, &provider)
                .approve(addresses::PERMIT2, U256::MAX)
                .send()
                .await;
            assert!(sent.expect("sent").get_receipt().await.expect("mined").status());
        }
        let key = format!("0x{}", hex::encode(signer.to_bytes()));
        Payer { key, address }
    }

    fn balance(&self, payer: &Payer) -> impl Future<Output = u128> + use<> {
        let (rpc, account) = (self.rpc.clone(), payer.address);
        async move {
            let data = format!("0x70a08231000000000000000000000000{}", hex::encode(account));
            let found = rpc
                .call("eth_call", json!([{"to": addresses::OPG, "data": data}, "latest"]))
                .await;
            let text = found
                .as_str()
                .expect("hex")
                .trim_start_matches("0x")
                .trim_start_matches('0')
                .to_owned();
            u128::from_str_radix(if text.is_empty() { "0" } else { &text }, 16).expect("a balance")
        }
    }

    /// Runs a client for `calls` calls and checks every answer; returns the receipt ids.
    fn run(&self, command: &mut Command, what: &str, calls: usize) -> Vec<String> {
        for proxy in [
            "http_proxy",
            "https_proxy",
            "all_proxy",
            "HTTP_PROXY",
            "HTTPS_PROXY",
            "ALL_PROXY",
        ] {
            command.env_remove(proxy);
        }
        let out = command.output().expect("the client starts");
        let (stdout, stderr) = (
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr),
        );
        assert!(out.status.success(), "{what}: {stdout}\n{stderr}");
        let lines: Vec<Value> = stdout
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(lines.len(), calls, "{what}: {stdout}\n{stderr}");
        let receipt = |line: &Value| {
            assert_eq!(
                (line["status"].as_u64(), &line["error"]),
                (Some(200), &Value::Null),
                "{what}: {line}"
            );
            assert_eq!(line["payment"]["success"], true, "{what}: {line}");
            assert_eq!(line["charge"], self.charge.to_string(), "{what}: {line}");
            line["receipt_id"].as_str().expect("receipt id").to_owned()
        };
        lines.iter().map(receipt).collect()
    }

    /// Waits until the chain has credited every receipt, and the payer has paid exactly what they say.
    async fn settled(&self, what: &str, payer: &Payer, before: u128, receipts: &[String], locked: u128) {
        for id in receipts {
            wait_until(&format!("{what}: {id} is credited"), PATIENCE, async || {
                let found = self.rpc.call("og_getReceipt", json!([id])).await;
                found["payment"]["credited"] == true && found["payment"]["charge"] == self.charge.to_string()
            })
            .await;
        }
        let paid = before - self.balance(payer).await;
        let expected = if locked > 0 {
            locked
        } else {
            receipts.len() as u128 * self.charge
        };
        assert_eq!(paid, expected, "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_typescript_client_pays_by_every_scheme() {
    let Some(()) = node() else { return };
    let world = World::start();
    for (scheme, permit2, calls) in [
        ("exact", false, 1),
        ("batch-settlement", false, 4),
        ("exact-permit2", true, 1),
        ("upto", true, 2),
    ] {
        let payer = world.payer(permit2).await;
        let before = world.balance(&payer).await;
        let mut command = Command::new("node");
        command.current_dir(folder()).arg("pay.mjs").args([
            scheme,
            &world.node,
            world.network.rpc_urls()[0],
            &payer.key,
            &calls.to_string(),
        ]);
        let receipts = world.run(&mut command, scheme, calls);
        // Of a channel, the deposit has left the wallet: what the node asks for.
        let locked = if scheme == "batch-settlement" { DEPOSIT } else { 0 };
        world.settled(scheme, &payer, before, &receipts, locked).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_clients_pay_by_every_scheme() {
    let (stock, fork) = (python("requirements-x402.txt"), python("requirements-og.txt"));
    if stock.is_none() && fork.is_none() {
        return;
    }
    let world = World::start();
    for (name, python, http, scheme, calls) in [
        ("x402", &stock, "httpx", "exact", 1),
        ("x402", &stock, "requests", "exact", 1),
        ("x402", &stock, "httpx", "upto", 1),
        ("x402", &stock, "httpx", "batch-settlement", 3),
        ("x402", &stock, "requests", "batch-settlement", 3),
        ("og-x402", &fork, "httpx", "exact", 1),
        ("og-x402", &fork, "requests", "exact", 1),
        ("og-x402", &fork, "httpx", "upto", 1),
    ] {
        let Some(python) = python else { continue };
        let what = format!("{name} {http} {scheme}");
        let payer = world.payer(scheme == "upto").await;
        let before = world.balance(&payer).await;
        let mut command = Command::new(python);
        command.current_dir(folder()).arg("pay.py").args([
            http,
            scheme,
            &world.node,
            world.network.rpc_urls()[0],
            &payer.key,
            &calls.to_string(),
        ]);
        let receipts = world.run(&mut command, &what, calls);
        let locked = if scheme == "batch-settlement" { DEPOSIT } else { 0 };
        world.settled(&what, &payer, before, &receipts, locked).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_client_pays_by_every_scheme() {
    let Some(program) = rust() else { return };
    let world = World::start();
    for (scheme, calls) in [("exact", 2), ("upto", 2)] {
        let payer = world.payer(scheme == "upto").await;
        let before = world.balance(&payer).await;
        let mut command = Command::new(&program);
        command.args([scheme, &world.node, &payer.key, &calls.to_string()]);
        let what = format!("x402-reqwest {scheme}");
        let receipts = world.run(&mut command, &what, calls);
        world.settled(&what, &payer, before, &receipts, 0).await;
    }
}
