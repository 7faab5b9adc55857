//! Payment channels on a local network, by the command line: opened with one signature and no gas coin, calls paid with vouchers signed
//! beforehand, charges recorded, claimed and credited by the chain, the rest given back. The payer's money is counted to the wei.

use opg_e2e::{Network, Rpc, opg, wait_until};
use serde_json::{Value, json};
use std::{path::Path, time::Duration};

const PATIENCE: Duration = Duration::from_secs(40);

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8 path")
}

fn wei(value: &Value) -> u128 {
    value
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("not an amount: {value}"))
}

/// A wallet with OPG, no coin for gas, and a network that it pays on.
struct Payer<'a> {
    network: &'a Network,
    key: std::path::PathBuf,
}

impl<'a> Payer<'a> {
    fn new(network: &'a Network, opg_amount: &str) -> Self {
        let (home, dir) = (network.home(), network.dir());
        let key = home.join("payer.key");
        let made = opg(home, &["wallet", "new", "--out", text(&key), "--json"])
            .expect_code(0)
            .json();
        let address = made["address"].as_str().expect("address").to_owned();
        let arguments = ["wallet", "send", &address, opg_amount, "--dir", text(&dir)];
        opg(home, &arguments).expect_code(0);
        Self { network, key }
    }

    fn run(&self, arguments: &[&str]) -> opg_e2e::CommandOutput {
        let dir = self.network.dir();
        let more = ["--key", text(&self.key), "--dir", text(&dir), "--json"];
        opg(self.network.home(), &[arguments, &more].concat())
    }

    fn ok(&self, arguments: &[&str]) -> Value {
        self.run(arguments).expect_code(0).json()
    }

    /// OPG and native coin, wei.
    fn balances(&self) -> (u128, u128) {
        let found = self.ok(&["wallet", "balance"]);
        (wei(&found["opg"]), wei(&found["native"]))
    }

    fn infer(&self, pay: &str, more: &[&str]) -> Value {
        let input = json!({"X": [vec![0.0; 64]]}).to_string();
        let arguments = ["infer", "demo/digits-mlp", "--input", &input, "--pay", pay];
        self.ok(&[&arguments[..], more].concat())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_pays_for_calls_and_its_rest_comes_back() {
    let network = Network::start();
    let payer = Payer::new(&network, "5");
    let (dir, home) = (network.dir(), network.home());
    let start = payer.balances();
    assert_eq!(start.1, 0, "no coin for gas");

    // what would be locked, and that nothing was
    let dry = payer.ok(&["channel", "open", "demo/digits-mlp", "--deposit", "1", "--dry-run"]);
    assert_eq!(dry["dry_run"], true);
    let too_small = payer.run(&["channel", "open", "demo/digits-mlp", "--deposit", "0.000001"]);
    assert_eq!(too_small.code(), 2, "{}", too_small.stderr);
    let no_channel = payer.run(&["infer", "demo/digits-mlp", "--input", "{}", "--pay", "channel"]);
    assert_eq!(no_channel.code(), 2, "{}", no_channel.stderr);
    assert_eq!(payer.balances(), start);

    // one signature opens it; the node pays the gas
    let opened = payer.ok(&["channel", "open", "demo/digits-mlp", "--deposit", "1"]);
    let id = opened["channel_id"].as_str().expect("id").to_owned();
    let one = 10u128.pow(18);
    assert_eq!(wei(&opened["deposited"]), one);
    assert_eq!(payer.balances(), (start.0 - one, 0));

    // calls: by default out of the channel, whole, streamed, and with receipt files that verify offline
    let file = home.join("channel.receipt.json");
    let first = payer.infer("auto", &["--receipt", text(&file)]);
    let mut charged = wei(&first["opg"]["charge"]);
    assert!(charged > 0);
    assert_eq!(wei(&first["opg"]["credited_back"]), 0, "only the charge is taken");
    let shown = opg(home, &["receipt", "show", text(&file), "--json"])
        .expect_code(0)
        .json();
    let payment = &shown["core"]["payment"];
    assert_eq!(
        (&payment["scheme"], &payment["nonce"]),
        (&json!("batch-settlement"), &json!(id))
    );
    let genesis = dir.join("genesis.json");
    let verify = |file: &Path| {
        let arguments = [
            "receipt",
            "verify",
            text(file),
            "--genesis",
            text(&genesis),
            "--offline",
            "--require",
            "none",
        ];
        opg(home, &arguments)
    };
    verify(&file).expect_code(0);
    for _ in 0..3 {
        charged += wei(&payer.infer("channel", &[])["opg"]["charge"]);
    }
    let chat = payer.run(&[
        "chat",
        "demo/tiny-llama",
        "Hello",
        "--max-tokens",
        "6",
        "--stream",
        "--pay",
        "channel",
    ]);
    let chat = chat.expect_code(0);
    let last: Value = serde_json::from_str(chat.stdout.trim().lines().last().expect("a line")).expect("json");
    charged += wei(&last["opg"]["charge"]);

    // both sides count the same, and the deposit is all that has left the wallet
    let listed = payer.ok(&["channel", "ls"]);
    let channel = &listed["channels"][0];
    assert_eq!(wei(&channel["charged"]), charged, "{listed}");
    assert_eq!(channel["in_flight"], 0);
    assert_eq!(payer.balances(), (start.0 - one, 0));

    // a tampered voucher is somebody else's signature
    let whole = std::fs::read_to_string(&file).expect("file");
    let bad = home.join("bad.receipt.json");
    let core = serde_json::from_str::<Value>(&whole).expect("json")["core"]
        .as_str()
        .expect("core")
        .to_owned();
    let mut other = core.clone();
    let middle = other.len() / 2;
    let digit = if other.as_bytes()[middle] == b'0' { "1" } else { "0" };
    other.replace_range(middle..=middle, digit);
    std::fs::write(&bad, whole.replace(&core, &other)).expect("file");
    assert_eq!(verify(&bad).code(), 1);

    // the node claims what is worth it, the ledger credits every receipt of the channel
    let rpc = Rpc::new(network.rpc_urls()[0]);
    let receipt = first["receipt_id"].as_str().expect("id").to_owned();
    wait_until("the receipt is settled", PATIENCE, async || {
        let found = rpc.call("og_getReceipt", json!([receipt])).await;
        found["payment"]["credited"] == true && found["payment"]["settlement"] == "settled"
    })
    .await;

    // more money, then everything that is not charged comes back at once
    payer.ok(&["channel", "top-up", &id[..12], "0.5"]);
    assert_eq!(payer.balances().0, start.0 - one - one / 2);
    let closed = payer.ok(&["channel", "close", &id]);
    assert_eq!(wei(&closed["refunded"]), one + one / 2 - charged);
    assert_eq!(
        payer.balances(),
        (start.0 - charged, 0),
        "the payer has paid what its receipts say, to the wei"
    );
    assert_eq!(payer.ok(&["channel", "ls"])["channels"], json!([]));
    let unknown = payer.run(&["channel", "close", &id]);
    assert_eq!(unknown.code(), 2, "{}", unknown.stderr);

    // a limit of the payer's own holds for every way to pay
    payer.ok(&["wallet", "limits", "--per-day", "0.000000000000000001"]);
    let limited = payer.run(&[
        "infer",
        "demo/digits-mlp",
        "--input",
        &json!({"X": [vec![0.0; 64]]}).to_string(),
    ]);
    assert_eq!(limited.code(), 1);
    assert!(limited.stderr.contains("limit"), "{}", limited.stderr);
    assert_eq!(payer.balances(), (start.0 - charged, 0));
}

/// Payments of their own by Permit2: refused until Permit2 may move the money; then `upto` takes the charge and `permit` the bound.
#[tokio::test(flavor = "multi_thread")]
async fn permits_pay_once_permit2_may_move_the_money() {
    let network = Network::start();
    let payer = Payer::new(&network, "2");
    let (dir, home) = (network.dir(), network.home());
    let start = payer.balances().0;
    let input = json!({"X": [vec![0.0; 64]]}).to_string();
    let before = payer.run(&["infer", "demo/digits-mlp", "--input", &input, "--pay", "upto"]);
    assert_eq!(before.code(), 2, "{}", before.stderr);
    assert!(before.stderr.contains("opg wallet permit2"), "{}", before.stderr);

    let address = payer.ok(&["wallet", "show"])["address"]
        .as_str()
        .expect("address")
        .to_owned();
    let gas = ["wallet", "send", &address, "0.1", "--native", "--dir", text(&dir)];
    opg(home, &gas).expect_code(0);
    assert_eq!(payer.ok(&["wallet", "permit2"])["permit2"], true);
    let rpc = Rpc::new(network.rpc_urls()[0]);
    let credited = async |paid: &Value| {
        let id = paid["receipt_id"].as_str().expect("id").to_owned();
        wait_until("the payment is credited", PATIENCE, async || {
            let found = rpc.try_call("og_getReceipt", json!([id])).await;
            found.is_ok_and(|found| found["payment"]["credited"] == true)
        })
        .await;
    };
    let upto = payer.infer("upto", &[]);
    credited(&upto).await;
    let charge = wei(&upto["opg"]["charge"]);
    assert!(charge > 0);
    assert_eq!(payer.balances().0, start - charge, "only the charge is taken");

    // more than is charged is signed, and taken by scheme exact; the rest is a credit
    let file = home.join("permit.receipt.json");
    let permit = payer.infer("permit", &["--receipt", text(&file)]);
    credited(&permit).await;
    let signed = wei(&permit["opg"]["signed"]);
    assert_eq!(payer.balances().0, start - charge - signed);
    let shown = opg(home, &["receipt", "show", text(&file), "--json"])
        .expect_code(0)
        .json();
    let payment = &shown["core"]["payment"];
    assert_eq!(
        (&payment["scheme"], &payment["method"]),
        (&json!("exact"), &json!("permit2")),
        "{payment}"
    );
    let genesis = dir.join("genesis.json");
    let arguments = [
        "receipt",
        "verify",
        text(&file),
        "--genesis",
        text(&genesis),
        "--offline",
        "--require",
        "none",
    ];
    opg(home, &arguments).expect_code(0);

    // and taken back
    assert_eq!(payer.ok(&["wallet", "permit2", "--revoke"])["permit2"], false);
    let after = payer.run(&["infer", "demo/digits-mlp", "--input", &input, "--pay", "permit"]);
    assert_eq!(after.code(), 2, "{}", after.stderr);
}
