//! A validator that is down loses its seat and goes to jail; its downtime is reported and slashed; it comes back, leaves jail, leads blocks again,
//! and then gives its seat other keys and leads with those. All by the command line, each validator a process of its own.

use alloy_primitives::Address;
use opg_contracts::GenesisFile;
use opg_e2e::{OPG_START_TIMEOUT, Opg, PortLock, opg, port_base};
use opg_primitives::money::WEI_PER_OPG;
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const STAKE: u128 = 25_000 * WEI_PER_OPG;
const DOWN: usize = 4;

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8 path")
}

struct Validators {
    home: tempfile::TempDir,
    genesis: GenesisFile,
    up: Vec<Opg>,
    _ports: PortLock,
}

impl Validators {
    /// Five of them, of which the last one is not started.
    fn start() -> Self {
        let home = tempfile::tempdir().expect("temporary folder");
        let (base, ports) = port_base();
        let dir = home.path().join("net");
        let parameters = home.path().join("parameters.json");
        let staking = json!({ "min_views": 2, "min_led_ppm": 500_000, "jail_time": 5, "appeal_window": 5 });
        let changed = json!({ "epoch_blocks": 16, "staking": staking });
        std::fs::write(&parameters, changed.to_string()).expect("parameters");
        let (port, count) = (base.to_string(), (DOWN + 1).to_string());
        let arguments = [
            "up",
            "--split",
            text(&dir),
            "--validators",
            &count,
            "--port-base",
            &port,
        ];
        opg(
            home.path(),
            &[&arguments[..], &["--parameters", text(&parameters)]].concat(),
        )
        .expect_code(0);
        let genesis = std::fs::read(dir.join("genesis.json")).expect("genesis.json");
        let genesis = GenesisFile::parse(&genesis).expect("a genesis");
        let mut network = Self {
            home,
            genesis,
            up: Vec::new(),
            _ports: ports,
        };
        for i in 0..DOWN {
            let process = network.process(&network.dir().join(format!("validator-{i}")), &format!("validator-{i}"));
            network.up.push(process);
        }
        for node in &mut network.up {
            node.wait_for("full node ready", 1, OPG_START_TIMEOUT);
        }
        network
    }

    fn process(&self, folder: &Path, name: &str) -> Opg {
        let config = folder.join("config.toml");
        let logs = self.home.path().join("logs");
        Opg::start(
            &logs,
            name,
            self.home.path(),
            &["node", "full", "--config", text(&config)],
        )
    }

    fn dir(&self) -> PathBuf {
        self.home.path().join("net")
    }

    fn operator(&self) -> Address {
        self.genesis.validators[DOWN].operator
    }

    fn run(&self, arguments: &[&str]) -> opg_e2e::CommandOutput {
        opg(
            self.home.path(),
            &[arguments, &["--dir", text(&self.dir()), "--json"]].concat(),
        )
    }

    /// As the operator of the validator that is down.
    fn own(&self, arguments: &[&str]) -> opg_e2e::CommandOutput {
        let key = self.dir().join(format!("validator-{DOWN}/operator.key"));
        self.run(&[arguments, &["--key", text(&key)]].concat())
    }

    fn validator(&self) -> Value {
        let all = self.run(&["validators"]).expect_code(0).json();
        let list = all["validators"].as_array().expect("validators");
        let found = list.iter().find(|v| v["operator"] == json!(self.operator()));
        found.expect("the validator").clone()
    }

    fn eventually<T>(&self, what: &str, seconds: u64, mut ask: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            assert!(
                began.elapsed() < Duration::from_secs(seconds),
                "no {what} within {seconds} s; it is {}; the first validator says:\n{}",
                self.validator(),
                self.up[0].output()
            );
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// Waits for a block that the system account has made.
    async fn leads(&self, system: &str) {
        let urls: Value =
            serde_json::from_slice(&std::fs::read(self.dir().join("network.json")).expect("network.json"))
                .expect("network.json");
        let rpc = opg_e2e::Rpc::new(urls["rpc"][0].as_str().expect("a URL"));
        opg_e2e::wait_until("a block of its own", Duration::from_secs(240), async || {
            let block = rpc.call("eth_getBlockByNumber", json!(["latest", false])).await;
            block["miner"]
                .as_str()
                .is_some_and(|miner| miner.eq_ignore_ascii_case(system))
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_that_was_down_comes_back_from_jail_with_other_keys() {
    let network = Validators::start();
    let operator = network.operator().to_string();
    assert_eq!(network.validator()["seated"], true);
    let healthy = network.own(&["node", "unjail"]);
    assert!(healthy.stderr.contains("not in jail"), "{}", healthy.stderr);

    // Its views pass without it: no seat from the next epoch on.
    network.eventually("jail", 180, || network.validator()["jailed_until"].as_u64());
    network.eventually("an epoch without it", 120, || {
        (network.validator()["seated"] == false).then_some(())
    });
    assert_eq!(network.validator()["eligible"], false);

    // The chain has it on record, so no bond is needed; while the case is open there is no way out of jail.
    let case = network
        .run(&["node", "slash-evidence", "downtime", &operator])
        .expect_code(0);
    let case = case.json()["case"].to_string();
    let locked = network.own(&["node", "unjail"]);
    assert_ne!(locked.code(), 0);
    assert!(locked.stderr.contains("case"), "{}", locked.stderr);
    network.eventually("the slash", 60, || {
        let done = network.run(&["node", "slash-evidence", "execute", &case]);
        (done.code() == 0).then_some(())
    });
    let stake: u128 = network.validator()["stake"]
        .as_str()
        .expect("wei")
        .parse()
        .expect("wei");
    assert_eq!(stake, STAKE - STAKE / 10_000, "a ten-thousandth");

    // Its own stake is below the least now: no seat before it is whole again.
    let refused = network.own(&["node", "unjail"]);
    assert_ne!(refused.code(), 0, "{}", refused.stdout);
    network.run(&["wallet", "send", &operator, "10"]).expect_code(0);
    // A pool that was slashed rounds what comes in down to a share, so exactly the missing 2.5 would leave it a wei short.
    network.own(&["stake", "3"]).expect_code(0);

    // Back, and in its place.
    let folder = network.dir().join(format!("validator-{DOWN}"));
    let mut process = network.process(&folder, "back");
    process.wait_for("full node ready", 1, OPG_START_TIMEOUT);
    network.own(&["node", "unjail"]).expect_code(0);
    assert_eq!(network.validator()["jailed_until"], Value::Null);
    network.eventually("its seat", 120, || {
        (network.validator()["seated"] == true).then_some(())
    });
    network
        .leads(&network.genesis.validators[DOWN].system.to_string())
        .await;

    // Other keys: the seat has them from an epoch on, and whoever has the old ones leads no more.
    let other = network.home.path().join("other");
    let made = network
        .run(&["node", "init", "--out", text(&other)])
        .expect_code(0)
        .json();
    let config = made["config"].as_str().expect("a file").to_owned();
    let rotated = network.own(&["node", "rotate-keys", "--config", &config, "--gas", "1"]);
    let system = rotated.expect_code(0).json()["keys"]["system"]
        .as_str()
        .expect("an address")
        .to_owned();
    let second = network.process(&other, "other");
    network.leads(&system).await;
    assert!(process.terminate().success(), "orderly end");
    network.leads(&system).await;
    assert_eq!(network.validator()["jailed_until"], Value::Null);
    assert!(second.terminate().success(), "orderly end");
}
