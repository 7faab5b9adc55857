//! The economy of a local network by the command line: twenty epochs with a validator that joins, stake that gives it a seat, one that leaves,
//! a proposal from draft to effect, and one that signs twice and is slashed, while inference goes on; then a receipt of the last epoch is
//! verified from the genesis alone, through every hand-over.

use opg_contracts::GenesisFile;
use opg_e2e::{Equivocator, Network, Opg, Rpc, Traitor, fixtures, opg, wait_until};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

const OPG: u128 = 1_000_000_000_000_000_000;
/// Blocks of an epoch; a block takes a second.
const EPOCH_BLOCKS: u64 = 5;
const EPOCHS: u64 = 20;
/// Seats, and validators of the genesis.
const SEATS: u16 = 5;
const YOUNGEST: usize = 4;
const BOND: u128 = 25_000;
/// A change of the set takes effect two hand-overs later at most.
const HAND_OVER: Duration = Duration::from_secs(60);

fn parameters() -> Value {
    json!({
        "epoch_blocks": EPOCH_BLOCKS,
        "staking": { "max_seats": SEATS, "unbonding": 3_600, "appeal_window": 10 },
        "governance": { "voting_delay": 2, "voting_period": 8, "timelock_delay": 2 },
    })
}

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8 path")
}

fn wei(value: &Value) -> u128 {
    value
        .as_str()
        .and_then(|text| text.parse().ok())
        .unwrap_or_else(|| panic!("not an amount: {value}"))
}

struct Economy {
    network: Network,
    home: PathBuf,
    dir: PathBuf,
}

impl Economy {
    fn start() -> Self {
        let network = Network::start_of(SEATS, Some(&parameters()));
        Self {
            home: network.home().to_owned(),
            dir: network.dir(),
            network,
        }
    }

    /// A command as the demo wallet.
    fn run(&self, arguments: &[&str]) -> opg_e2e::CommandOutput {
        opg(&self.home, &[arguments, &["--dir", text(&self.dir), "--json"]].concat())
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> Value {
        self.run(arguments).expect_code(0).json()
    }

    /// Bad input: said, and nothing is sent.
    #[track_caller]
    fn refused(&self, arguments: &[&str], named: &str) {
        let out = self.run(arguments);
        assert_eq!(out.code(), 2, "{arguments:?}: {} {}", out.stdout, out.stderr);
        assert!(out.stderr.contains(named), "{arguments:?}: {}", out.stderr);
    }

    fn validators(&self) -> Value {
        self.ok(&["validators", "--all"])
    }

    fn validator(&self, operator: &str) -> Value {
        let all = self.validators();
        let list = all["validators"].as_array().expect("validators");
        let found = list.iter().find(|validator| validator["operator"] == operator);
        found.unwrap_or_else(|| panic!("no {operator} in {all}")).clone()
    }

    fn seated(&self, operator: &str) -> bool {
        self.validator(operator)["seated"] == true
    }

    fn epoch(&self) -> u64 {
        self.ok(&["validators"])["epoch"].as_u64().expect("epoch")
    }

    async fn until(&self, what: &str, check: impl Fn(&Self) -> bool) {
        wait_until(what, HAND_OVER, async || check(self)).await;
    }

    fn balance(&self, account: &str) -> u128 {
        wei(&self.ok(&["wallet", "balance", account])["opg"])
    }

    fn operator_key(&self, validator: usize) -> PathBuf {
        self.dir.join(format!("validator-{validator}/operator.key"))
    }

    fn address(&self, key: &Path) -> String {
        let shown = self.ok(&["wallet", "show", "--key", text(key)]);
        shown["address"].as_str().expect("address").to_owned()
    }
}

/// Paid calls, one after the other, until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Instant>>,
}

fn inference(input: &str) -> [&str; 4] {
    ["infer", "demo/digits-mlp", "--input", input]
}

/// By a payment of its own, so that calls at the same time share nothing.
const EXACT: [&str; 2] = ["--pay", "exact"];

impl Load {
    fn start(economy: &Economy, input: String) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, home, dir) = (stop.clone(), economy.home.clone(), economy.dir.clone());
        let thread = std::thread::spawn(move || {
            let mut answered = Vec::new();
            while !told.load(Ordering::Relaxed) {
                let arguments = [&inference(&input)[..], &EXACT, &["--dir", text(&dir), "--json"]].concat();
                let answer = opg(&home, &arguments).expect_code(0).json();
                assert!(answer["receipt_id"].is_string(), "{answer}");
                answered.push(Instant::now());
                std::thread::sleep(Duration::from_millis(700));
            }
            answered
        });
        Self { stop, thread }
    }

    /// When each call was answered. None may have failed.
    fn end(self) -> Vec<Instant> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("every call is answered")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_epochs_with_joins_leaves_delegations_and_a_proposal() {
    let economy = Economy::start();
    let contracts = &economy.network.file()["contracts"];
    for name in ["staking", "governor", "timelock", "treasury"] {
        assert!(contracts[name].as_str().is_some_and(|a| a.starts_with("0x")), "{name}");
    }
    let samples = std::fs::read(fixtures().join("digits/samples.json")).expect("samples");
    let samples: Value = serde_json::from_slice(&samples).expect("json");
    let input = json!({"X": [samples["inputs"][5]]}).to_string();
    let began = Instant::now();
    let load = Load::start(&economy, input.clone());

    let fifth = join(&economy).await;
    delegate(&economy, &fifth).await;
    govern(&economy, &fifth).await;
    leave(&economy).await;

    wait_until("twenty epochs", Duration::from_secs(180), async || {
        economy.epoch() >= EPOCHS
    })
    .await;
    last_receipt(&economy, &fifth, &input).await;
    betray(&economy, fifth).await;
    let file = economy.home.join("after.receipt.json");
    let last = verified_receipt(&economy, &file, &input)["handovers"]
        .as_array()
        .map_or(0, Vec::len);
    let answered = load.end();
    // It never stood still: a hand-over costs no block.
    assert!(answered.len() > 30, "{} calls", answered.len());
    let pause = answered.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(pause < Some(Duration::from_secs(30)), "{pause:?} without an answer");
    eprintln!(
        "{last} epochs in {:?}, {} calls answered, the longest pause {pause:?}",
        began.elapsed(),
        answered.len()
    );
}

/// The fifth validator: a node of its own.
struct Fifth {
    operator: String,
    key: PathBuf,
    rpc: String,
    process: Opg,
}

async fn join(economy: &Economy) -> Fifth {
    let out = economy.home.join("fifth");
    let made = economy.ok(&["node", "init", "--out", text(&out)]);
    economy.refused(&["node", "init", "--out", text(&out)], "--out");
    let operator = made["operator"].as_str().expect("operator").to_owned();
    let config = PathBuf::from(made["config"].as_str().expect("config"));
    let key = PathBuf::from(made["operator_key"].as_str().expect("key"));
    let mut process = Opg::start(
        &economy.home.join("logs"),
        "fifth",
        &economy.home,
        &["node", "full", "--config", text(&config)],
    );
    process.wait_for("full node ready", 1, opg_e2e::OPG_START_TIMEOUT);

    let register = [
        "node",
        "register",
        "full",
        "--config",
        text(&config),
        "--key",
        text(&key),
    ];
    let register = |more: &[&'static str]| [&register[..], more].concat();
    let poor = economy.run(&register(&[]));
    assert_eq!(poor.code(), 1, "{}", poor.stderr);
    assert!(poor.stderr.contains("faucet"), "{}", poor.stderr);
    economy.ok(&["faucet", &operator, "--amount", "25050", "--gas", "50"]);
    economy.refused(&register(&["--bond", "24999"]), "bond");
    let other = economy.dir.join("validator-0/config.toml");
    let taken = [
        "node",
        "register",
        "full",
        "--config",
        text(&other),
        "--key",
        text(&key),
    ];
    economy.refused(&taken, "identity");
    let dry = economy.ok(&register(&["--dry-run"]));
    assert_eq!((&dry["dry_run"], wei(&dry["bond"])), (&json!(true), BOND * OPG));
    assert_eq!(economy.balance(&operator), 25_050 * OPG);

    let done = economy.run(&register(&["--commission", "500"])).expect_code(0);
    assert!(done.stderr.contains("locks 25000 OPG"), "{}", done.stderr);
    assert_eq!(economy.balance(&operator), 50 * OPG);
    economy.refused(&register(&[]), "registered a validator before");
    economy.refused(&["node", "exit"], "is no validator");
    let validator = economy.validator(&operator);
    assert_eq!(
        (
            &validator["eligible"],
            &validator["seated"],
            &validator["commission_bps"]
        ),
        (&json!(true), &json!(false), &json!(500))
    );
    Fifth {
        operator,
        key,
        rpc: made["rpc"].as_str().expect("rpc").to_owned(),
        process,
    }
}

/// With the stake of the others and younger keys it gets no seat; with somebody's delegation it takes that of the youngest.
async fn delegate(economy: &Economy, fifth: &Fifth) {
    let youngest = economy.address(&economy.operator_key(YOUNGEST));
    let epoch = economy.epoch();
    economy.until("an epoch later", |e| e.epoch() > epoch).await;
    assert!(!economy.seated(&fifth.operator) && economy.seated(&youngest));
    // A candidate may follow: it has the whole chain before it has a seat.
    let (own, others) = (Rpc::new(&fifth.rpc), economy.network.rpcs());
    wait_until("the fifth has the chain", HAND_OVER, async || {
        let (Some(height), network) = (own.try_height().await, others[0].height().await) else {
            return false;
        };
        height > 0 && height + 2 >= network
    })
    .await;
    assert!(!economy.seated(&fifth.operator), "without a seat");
    economy.ok(&["delegate", &fifth.operator, "100"]);
    economy
        .until("a seat for the fifth", |e| {
            e.seated(&fifth.operator) && !e.seated(&youngest)
        })
        .await;
}

/// From a draft to its effect. One proposal with two calls: the treasury pays somebody, and commissions may change in larger steps.
async fn govern(economy: &Economy, fifth: &Fifth) {
    let me = economy.address(&economy.dir.join("demo.key"));
    let treasury = economy.network.file()["contracts"]["treasury"]
        .as_str()
        .expect("treasury");
    let grantee = "0x00000000000000000000000000000000Beef0001";
    economy.ok(&["wallet", "send", treasury, "50"]);
    economy.ok(&["faucet", &me, "--amount", "200000", "--gas", "0"]);
    let spend = ["gov", "propose", "spend", grantee, "7"];
    let commission = ["gov", "propose", "staking", "--commission-step", "1000"];

    // held OPG has no votes until it is delegated, if only to oneself
    economy.refused(&spend, "opg gov delegate");
    economy.refused(&["gov", "propose", "staking", "--max-seats", "3"], "max seats");
    economy.refused(
        &[
            "gov",
            "propose",
            "fee-split",
            "--node",
            "50",
            "--auditors",
            "50",
            "--treasury",
            "0",
            "--router",
            "0",
        ],
        "60 %",
    );
    economy.refused(&["gov", "propose", "staking"], "nothing to change");
    let delegated = economy.ok(&["gov", "delegate"]);
    assert!(wei(&delegated["votes"]["held"]) > 200_000 * OPG, "{delegated}");
    let bps = |bps| ["node", "commission", bps, "--key", text(&fifth.key)];
    economy.refused(&bps("1400"), "one step");

    // two drafts become one
    let drafts = [&spend[..], &commission[..]].map(|draft| economy.ok(&[draft, &["--dry-run"]].concat()));
    let calls: Vec<&Value> = drafts.iter().map(|draft| &draft["draft"]["calls"][0]).collect();
    let file = economy.home.join("draft.json");
    let draft = json!({ "description": "A grant, and commissions\n\nfor a test", "calls": calls });
    std::fs::write(&file, draft.to_string()).expect("draft");
    let proposed = economy.run(&["gov", "propose", "draft", text(&file)]).expect_code(0);
    assert!(
        proposed.stderr.contains("pays 7 OPG out of the treasury") && proposed.stderr.contains("vote begins 2 s after"),
        "{}",
        proposed.stderr
    );
    let proposed = proposed.json();
    let id = proposed["id"].as_str().expect("id").to_owned();
    economy.refused(&["gov", "propose", "draft", text(&file)], "there already");

    economy.refused(&["gov", "queue", &id], "cannot be queued");
    economy.refused(&["gov", "vote", "0xffff", "for"], "opg gov ls");
    let short = &id[..12];
    let voted = economy.ok(&["gov", "vote", short, "for", "--wait", "60", "--reason", "it is a test"]);
    assert_eq!((&voted["state"], &voted["id"]), (&json!("active"), &json!(id)));
    assert!(wei(&voted["votes"]["for"]) >= wei(&voted["votes"]["quorum"]));
    economy.refused(&["gov", "vote", &id, "against"], "has voted");
    economy.refused(
        &[
            "gov",
            "vote",
            &id,
            "for",
            "--key",
            text(&economy.dir.join("creator.key")),
        ],
        "had no votes",
    );
    let listed = economy.ok(&["gov", "ls"]);
    let [only] = listed["proposals"].as_array().expect("proposals").as_slice() else {
        panic!("{listed}");
    };
    assert_eq!((&only["id"], &only["description"]), (&json!(id), &draft["description"]));
    assert_eq!(only["effects"], proposed["effects"]);

    economy.refused(&["gov", "execute", &id], "cannot be executed");
    let queued = economy.ok(&["gov", "queue", &id, "--wait", "60"]);
    assert!(queued["state"] == "queued" && queued["eta"].is_u64(), "{queued}");
    assert_eq!(economy.balance(grantee), 0);
    let executed = economy.ok(&["gov", "execute", &id, "--wait", "60"]);
    assert_eq!(executed["state"], "executed");
    assert_eq!(economy.balance(grantee), 7 * OPG);
    assert_eq!(economy.balance(treasury) % OPG, 0, "nothing else was paid");
    economy.ok(&bps("1400"));
    assert_eq!(economy.validator(&fifth.operator)["commission_bps"], 1_400);
    economy.refused(&["gov", "execute", &id], "nothing is left to do");
}

async fn leave(economy: &Economy) {
    let key = economy.operator_key(1);
    let (leaver, back) = (economy.address(&key), economy.address(&economy.operator_key(YOUNGEST)));
    assert!(economy.seated(&leaver));
    let dry = economy.ok(&["node", "exit", "--dry-run", "--key", text(&key)]);
    assert_eq!(dry["dry_run"], true);
    assert_eq!(economy.validator(&leaver)["exited"], false);
    economy.ok(&["node", "exit", "--key", text(&key)]);
    assert_eq!(economy.validator(&leaver)["exited"], true);
    // its seat goes to the next in line, and its stake unbonds
    economy
        .until("a seat for who was next", |e| !e.seated(&leaver) && e.seated(&back))
        .await;
    economy.refused(&["node", "exit", "--key", text(&key)], "has left");
    economy.ok(&["unstake", &leaver, "--all", "--key", text(&key)]);
    assert_eq!(wei(&economy.validator(&leaver)["stake"]), 0);
}

/// The validator's keys sign two proposals for one view. It is reported, judged, slashed and loses its seat while the others go on.
async fn betray(economy: &Economy, fifth: Fifth) {
    let Fifth { operator, process, .. } = fifth;
    assert!(process.terminate().success(), "orderly end");
    // its seat has the keys that it was given last
    let folder = economy.home.join("other");
    let epoch = economy.epoch();
    economy
        .until("a set with the new keys", |e| e.epoch() > epoch + 1)
        .await;
    let genesis = std::fs::read(economy.dir.join("genesis.json")).expect("genesis.json");
    let genesis = GenesisFile::parse(&genesis).expect("a genesis");
    let keys = std::fs::read(folder.join("keys.json")).expect("keys");
    let keys: Value = serde_json::from_slice(&keys).expect("keys.json");
    let secret = |name: &str| {
        let bytes = hex::decode(keys[name].as_str().expect("hex")).expect("hex");
        bytes.try_into().expect("32 bytes")
    };
    let p2p = |folder: &Path| {
        let config = std::fs::read_to_string(folder.join("config.toml")).expect("config");
        let line = config.lines().find(|line| line.starts_with("p2p")).expect("field p2p");
        let address = line.split('"').nth(1).expect("an address");
        address.parse().expect("an address")
    };
    // Validator 1 has left, and the traitor has its seat.
    let seated = [0, 2, 3, YOUNGEST];
    let epoch = economy.epoch();
    let traitor = Equivocator::start(Traitor {
        identity: secret("identity"),
        bls: secret("bls"),
        listen: p2p(&folder),
        peers: seated
            .map(|i| {
                let address = p2p(&economy.dir.join(format!("validator-{i}")));
                (genesis.validators[i].identity.0, address)
            })
            .to_vec(),
        others: seated
            .map(|i| (genesis.validators[i].identity.0, genesis.validators[i].bls.to_vec()))
            .to_vec(),
        epochs: epoch..epoch + 12,
        genesis,
    });
    let slash = |arguments: &[&str]| economy.run(&[&["node", "slash-evidence"], arguments].concat());
    economy
        .until("the two votes", |_| {
            let held = slash(&[]);
            held.code() == 0
                && held.json()["faults"]
                    .as_array()
                    .is_some_and(|faults| faults.iter().any(|fault| fault["operator"] == operator.as_str()))
        })
        .await;
    let before = wei(&economy.validator(&operator)["stake"]);
    let case = slash(&["report", &operator]).expect_code(0).json()["case"].to_string();
    let status = |case: &str| slash(&["cases", case]).expect_code(0).json()["status"].clone();
    economy.until("a verdict", |_| status(&case) == "frozen").await;
    drop(traitor);
    economy
        .until("the slash", |_| slash(&["execute", &case]).code() == 0)
        .await;
    assert_eq!(status(&case), "executed");
    // one seat of five, times three
    let after = economy.validator(&operator);
    assert_eq!(after["tombstoned"], true, "{after}");
    assert_eq!(wei(&after["stake"]), before / 5 * 2, "{after}");
    assert!(
        wei(&slash(&["withdraw"]).expect_code(0).json()["amount"]) > before / 10,
        "the challenger's part and bond"
    );
    economy.until("a set without it", |e| !e.seated(&operator)).await;
    let epoch = economy.epoch();
    economy.until("epochs after it", |e| e.epoch() > epoch + 1).await;
}

/// A receipt of a call made now, verified from the genesis file alone.
fn verified_receipt(economy: &Economy, file: &Path, input: &str) -> Value {
    economy.ok(&[&inference(input)[..], &EXACT, &["--receipt", text(file)]].concat());
    let verified = verify(economy, file).expect_code(0);
    assert!(
        verified.stdout.contains("UNPROVEN (signature only)"),
        "{}",
        verified.stdout
    );
    serde_json::from_slice(&std::fs::read(file).expect("file")).expect("json")
}

fn verify(economy: &Economy, file: &Path) -> opg_e2e::CommandOutput {
    let genesis = economy.dir.join("genesis.json");
    let arguments = [
        "receipt",
        "verify",
        text(file),
        "--genesis",
        text(&genesis),
        "--offline",
    ];
    opg(&economy.home, &arguments)
}

/// A receipt of the twentieth epoch, every hand-over on the way, and what the fifth validator has of it.
async fn last_receipt(economy: &Economy, fifth: &Fifth, input: &str) {
    let content = verified_receipt(economy, &economy.home.join("last.receipt.json"), input);
    let handovers = content["handovers"].as_array().expect("hand-overs").len();
    assert!(handovers as u64 >= EPOCHS, "{handovers}");
    // without any one of them there is no way to the last epoch
    let bad = economy.home.join("gap.receipt.json");
    for missing in [0, handovers / 2, handovers - 1] {
        let mut gap = content.clone();
        gap["handovers"].as_array_mut().expect("list").remove(missing);
        std::fs::write(&bad, gap.to_string()).expect("file");
        let out = verify(economy, &bad);
        assert_eq!(out.code(), 1, "hand-over {missing}: {}", out.stdout);
    }

    // the fifth has the same chain, is seated, and has earned
    let (own, other) = (Rpc::new(&fifth.rpc), &economy.network.rpcs()[2]);
    let height = other.height().await - 1;
    wait_until("the fifth is there", Duration::from_secs(20), async || {
        own.try_height().await.is_some_and(|at| at >= height)
    })
    .await;
    assert_eq!(own.fingerprint(height).await, other.fingerprint(height).await);
    // The same for what a channel pays: its payment is proven by later blocks than its inclusion.
    economy.ok(&["channel", "open", "demo/digits-mlp", "--deposit", "1"]);
    let paid = economy.home.join("channel.receipt.json");
    economy.ok(&[&inference(input)[..], &["--pay", "channel", "--receipt", text(&paid)]].concat());
    verify(economy, &paid).expect_code(0);
    assert!(economy.seated(&fifth.operator));
    let account = economy.ok(&["validators", "--account", &fifth.operator]);
    assert!(wei(&account["positions"][0]["rewards"]) > 0, "{account}");
    let claimed = economy.ok(&["claim", "--key", text(&fifth.key)]);
    assert!(wei(&claimed["rewards"]) > 0, "{claimed}");

    // other keys for the next seat, which are then taken for ever
    let made = economy.ok(&["node", "init", "--out", text(&economy.home.join("other"))]);
    let config = made["config"].as_str().expect("config");
    let rotate = ["node", "rotate-keys", "--config", config, "--key", text(&fifth.key)];
    economy.ok(&rotate);
    economy.refused(&rotate, "registered before");
    economy.refused(&["node", "unjail", "--key", text(&fifth.key)], "not in jail");
}
