//! Validators as separate processes, killed with `kill -9` while a paid workload runs: nothing final may be lost.

use opg_e2e::{OPG_START_TIMEOUT, Opg, Rpc, fixtures, opg, port_base, wait_until};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::Duration,
};

struct Split {
    home: tempfile::TempDir,
    dir: PathBuf,
    rpc: Vec<Rpc>,
    validators: Vec<Option<Opg>>,
    node: Option<Opg>,
    hub: Option<Opg>,
}

impl Split {
    fn write(base: u16) -> Self {
        let home = tempfile::tempdir().expect("folder");
        let dir = home.path().join("net");
        opg(
            home.path(),
            &["up", "--split", text(&dir), "--port-base", &base.to_string()],
        )
        .expect_code(0);
        let rpc = (0..4)
            .map(|i| Rpc::new(&format!("http://127.0.0.1:{}", base + i)))
            .collect();
        Self {
            home,
            dir,
            rpc,
            validators: vec![None, None, None, None],
            node: None,
            hub: None,
        }
    }

    fn start_validator(&mut self, i: usize) {
        let config = self.dir.join(format!("validator-{i}/config.toml"));
        let logs = self.home.path().join("logs");
        let args = ["node", "full", "--config", text(&config)];
        self.validators[i] = Some(Opg::start(&logs, &format!("validator-{i}"), self.home.path(), &args));
    }

    /// The node fetches its models from the hub, which may come up after it.
    fn start_node(&mut self) {
        let (hub, logs) = (self.dir.join("hub/config.toml"), self.home.path().join("logs"));
        let args = ["node", "hub", "--config", text(&hub)];
        self.hub = Some(Opg::start(&logs, "hub", self.home.path(), &args));
        let config = self.dir.join("inference/config.toml");
        let logs = self.home.path().join("logs");
        let args = ["node", "inference", "--config", text(&config)];
        self.node = Some(Opg::start(&logs, "inference-0", self.home.path(), &args));
    }

    fn kill_validator(&mut self, i: usize) {
        self.validators[i].take().expect("running").kill();
    }

    /// One paid call with its complete receipt file; returns the receipt id.
    fn infer(&self, name: &str) -> String {
        let file = self.home.path().join(name);
        let input = self.home.path().join("digit.json");
        std::fs::write(&input, digit(3).to_string()).expect("input");
        let out = opg(
            self.home.path(),
            &[
                "infer",
                "demo/digits-mlp",
                "--input",
                &format!("@{}", text(&input)),
                "--receipt",
                text(&file),
                "--dir",
                text(&self.dir),
                "--json",
            ],
        )
        .expect_code(0)
        .json();
        out["receipt_id"].as_str().expect("receipt id").to_owned()
    }

    async fn wait_height(&self, i: usize, height: u64, timeout: Duration) {
        let rpc = &self.rpc[i];
        wait_until(&format!("validator {i} at height {height}"), timeout, async || {
            rpc.try_height().await.is_some_and(|h| h >= height)
        })
        .await;
    }

    /// All nodes tell the same about every block up to the lowest head, and about every receipt.
    async fn assert_agreement(&self, receipts: &[String]) {
        let mut lowest = u64::MAX;
        for rpc in &self.rpc {
            lowest = lowest.min(rpc.height().await);
        }
        for height in 1..=lowest {
            let expected = self.rpc[0].fingerprint(height).await;
            for (i, rpc) in self.rpc.iter().enumerate().skip(1) {
                assert_eq!(
                    rpc.fingerprint(height).await,
                    expected,
                    "block {height} of validator {i}"
                );
            }
        }
        for id in receipts {
            let expected = self.rpc[0].call("og_getReceipt", json!([id])).await;
            assert!(
                expected["height"].is_u64() || expected["height"].is_string(),
                "{expected}"
            );
            for (i, rpc) in self.rpc.iter().enumerate().skip(1) {
                let got = rpc.call("og_getReceipt", json!([id])).await;
                assert_eq!(got["height"], expected["height"], "receipt {id} of validator {i}");
            }
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8 path")
}

/// Input of sample `i` of the digits fixture, in the shape `opg infer` takes.
fn digit(i: usize) -> Value {
    let samples: Value =
        serde_json::from_slice(&std::fs::read(fixtures().join("digits/samples.json")).expect("fixture")).expect("json");
    json!({ "X": [samples["inputs"][i]] })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_validator_catches_up_and_a_killed_network_continues() {
    let (base, _lock) = port_base();
    let mut net = Split::write(base);
    for i in 0..4 {
        net.start_validator(i);
    }
    for i in 0..4 {
        net.wait_height(i, 2, OPG_START_TIMEOUT).await;
    }
    net.start_node();
    net.node
        .as_mut()
        .expect("started")
        .wait_for("inference node ready", 1, OPG_START_TIMEOUT);
    let mut receipts = vec![net.infer("one.receipt.json")];

    // one of four is killed in mid-run; the others go on and serve paid work
    net.kill_validator(1);
    receipts.push(net.infer("two.receipt.json"));
    let ahead = net.rpc[0].height().await + 3;
    net.wait_height(0, ahead, Duration::from_secs(60)).await;
    net.start_validator(1);
    net.wait_height(1, ahead, Duration::from_secs(60)).await;
    receipts.push(net.infer("three.receipt.json"));

    // all four are killed within milliseconds and come back where they were
    let before = net.rpc[2].height().await;
    for i in 0..4 {
        net.kill_validator(i);
    }
    for i in 0..4 {
        net.start_validator(i);
    }
    for i in 0..4 {
        net.wait_height(i, before + 2, OPG_START_TIMEOUT).await;
    }
    receipts.push(net.infer("four.receipt.json"));
    net.assert_agreement(&receipts).await;

    // a validator that lost its whole data folder fills it again from the others
    net.kill_validator(3);
    std::fs::remove_dir_all(net.dir.join("validator-3/data/evm")).expect("its execution database");
    net.start_validator(3);
    let target = net.rpc[0].height().await + 1;
    net.wait_height(3, target, Duration::from_secs(60)).await;
    net.assert_agreement(&receipts).await;

    for i in 0..4 {
        let status = net.validators[i].take().expect("running").terminate();
        assert!(status.success(), "validator {i} ends orderly: {status}");
    }
}
