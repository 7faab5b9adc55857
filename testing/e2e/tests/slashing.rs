//! A validator really signs two votes for one view. Honest processes see it, somebody reports it by the command line, validators find it
//! proven, the stake is slashed after the time for an appeal, and the next epochs go on without it. A false report loses its bond. Every wei
//! is counted. Another one's vote for a proof that does not hold is reported from a file, with the proof, and costs it its seat as well.

use alloy_primitives::{Address, B256};
use opg_consensus::{ChainBlock, ProofName, encode_vote};
use opg_contracts::{GenesisFile, slashing::encode_proof_evidence};
use opg_e2e::{Equivocator, OPG_START_TIMEOUT, Opg, PortLock, Traitor, notarize, opg, port_base};
use opg_primitives::{
    hash::sha256,
    ids::{Keyset, ModelRoot, node_id},
    money::{Amount, Price, Usage, WEI_PER_OPG},
};
use opg_receipt::{SignedReceipt, UsageUnit};
use opg_samples::{Sale, payment};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// Blocks of an epoch.
const EPOCH: u64 = 16;
/// Seconds between verdict and slash: enough for an appeal on a slow machine.
const WINDOW: u64 = 30;
const STAKE: u128 = 25_000 * WEI_PER_OPG;

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8 path")
}

fn wei(value: &Value) -> u128 {
    let number = value.as_str().and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| panic!("not an amount: {value}"))
}

/// Identity and BLS keys of a validator.
fn secrets(dir: &Path, i: usize) -> ([u8; 32], [u8; 32]) {
    let keys = std::fs::read(dir.join(format!("validator-{i}/keys.json"))).expect("keys");
    let keys: Value = serde_json::from_slice(&keys).expect("keys.json");
    let secret = |name: &str| {
        let bytes = hex::decode(keys[name].as_str().expect("hex")).expect("hex");
        bytes.try_into().expect("32 bytes")
    };
    (secret("identity"), secret("bls"))
}

/// Identities and BLS keys of the seats beside one.
fn others(genesis: &GenesisFile, one: usize) -> Vec<([u8; 32], Vec<u8>)> {
    let others = genesis.validators.iter().enumerate().filter(|(i, _)| *i != one);
    others.map(|(_, v)| (v.identity.0, v.bls.to_vec())).collect()
}

/// Five validators, of which the last is a traitor, as processes of their own.
struct Court {
    home: tempfile::TempDir,
    genesis: GenesisFile,
    honest: Vec<Opg>,
    _traitor: Equivocator,
    _ports: PortLock,
}

impl Court {
    fn start() -> Self {
        let home = tempfile::tempdir().expect("temporary folder");
        let (base, ports) = port_base();
        let dir = home.path().join("net");
        let arguments = [
            "up",
            "--split",
            text(&dir),
            "--validators",
            "5",
            "--port-base",
            &base.to_string(),
        ];
        opg(home.path(), &arguments).expect_code(0);
        let path = dir.join("genesis.json");
        let mut genesis = GenesisFile::parse(&std::fs::read(&path).expect("genesis.json")).expect("a genesis");
        genesis.parameters.epoch_blocks = EPOCH;
        let staking = genesis.parameters.staking.as_mut().expect("validators with stake");
        staking.appeal_window = WINDOW;
        // nobody is down, so that the traitor goes to jail for its votes
        staking.min_views = 1_000_000;
        assert_eq!(staking.min_self_bond.0, STAKE);
        std::fs::write(&path, genesis.to_json()).expect("genesis.json");
        let p2p = |i: usize| -> String {
            let config = std::fs::read_to_string(dir.join(format!("validator-{i}/config.toml"))).expect("config");
            let line = config
                .lines()
                .find(|line| line.starts_with("p2p"))
                .expect("field p2p")
                .to_owned();
            line.split('"').nth(1).expect("an address").to_owned()
        };
        let (identity, bls) = secrets(&dir, 4);
        let traitor = Traitor {
            genesis: genesis.clone(),
            identity,
            bls,
            listen: p2p(4).parse().expect("an address"),
            peers: (0..4)
                .map(|i| (genesis.validators[i].identity.0, p2p(i).parse().expect("an address")))
                .collect(),
            others: others(&genesis, 4),
            epochs: 0..1,
        };
        let traitor = Equivocator::start(traitor);
        let logs = home.path().join("logs");
        let honest: Vec<Opg> = (0..4)
            .map(|i| {
                let config = dir.join(format!("validator-{i}/config.toml"));
                let arguments = ["node", "full", "--config", text(&config)];
                Opg::start(&logs, &format!("validator-{i}"), home.path(), &arguments)
            })
            .collect();
        let mut court = Self {
            home,
            genesis,
            honest,
            _traitor: traitor,
            _ports: ports,
        };
        for node in &mut court.honest {
            node.wait_for("full node ready", 1, OPG_START_TIMEOUT);
        }
        court
    }

    fn dir(&self) -> PathBuf {
        self.home.path().join("net")
    }

    fn run(&self, arguments: &[&str]) -> opg_e2e::CommandOutput {
        opg(
            self.home.path(),
            &[arguments, &["--dir", text(&self.dir()), "--json"]].concat(),
        )
    }

    fn ok(&self, arguments: &[&str]) -> Value {
        self.run(arguments).expect_code(0).json()
    }

    fn slash(&self, arguments: &[&str]) -> opg_e2e::CommandOutput {
        self.run(&[&["node", "slash-evidence"], arguments].concat())
    }

    fn operator(&self, i: usize) -> Address {
        self.genesis.validators[i].operator
    }

    /// Wallet file of an operator.
    fn key(&self, i: usize) -> PathBuf {
        self.dir().join(format!("validator-{i}/operator.key"))
    }

    fn opg_of(&self, arguments: &[&str]) -> u128 {
        wei(&self.ok(&[&["wallet", "balance"], arguments].concat())["opg"])
    }

    fn case(&self, id: &str) -> Value {
        self.slash(&["cases", id]).expect_code(0).json()
    }

    fn validator(&self, operator: Address) -> Value {
        let all = self.ok(&["validators"]);
        let list = all["validators"].as_array().expect("validators");
        let found = list.iter().find(|v| v["operator"] == serde_json::json!(operator));
        found.unwrap_or_else(|| panic!("{operator} is not among {all}")).clone()
    }

    fn eventually<T>(&self, what: &str, seconds: u64, mut ask: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(answer) = ask() {
                return answer;
            }
            assert!(
                began.elapsed() < Duration::from_secs(seconds),
                "no {what} within {seconds} s; the first validator says:\n{}",
                self.honest[0].output()
            );
            std::thread::sleep(Duration::from_millis(300));
        }
    }
}

#[test]
fn an_equivocator_loses_its_stake_and_its_seat() {
    let court = Court::start();
    let (traitor, bystander) = (court.operator(4), court.operator(1));
    let (accused, other) = (traitor.to_string(), bystander.to_string());
    let start = court.opg_of(&[]);

    // honest nodes hold the two votes, and know whose they are
    let fault = court.eventually("evidence", 120, || {
        let held = court.slash(&[]);
        let faults = (held.code() == 0).then(|| held.json())?["faults"].as_array()?.clone();
        faults.into_iter().next()
    });
    assert_eq!(fault["operator"], serde_json::json!(traitor), "{fault}");
    let evidence = fault["evidence"].as_str().expect("hex").to_owned();
    let epoch = fault["epoch"].to_string();

    // a tenth of the least slash; a dry run locks nothing, and neither does what a node finds unproven
    let bond = STAKE / 20 / 10;
    let dry = court.slash(&["report", &accused, "--dry-run"]).expect_code(0).json();
    assert_eq!((wei(&dry["bond"]), &dry["proven"]), (bond, &Value::Bool(true)), "{dry}");
    let false_report = ["report", &other, "--epoch", &epoch, "--evidence", &evidence];
    let refused = court.slash(&false_report).expect_code(1);
    assert!(refused.stderr.contains("not proven"), "{}", refused.stderr);
    assert_eq!(
        court.slash(&["report", &other]).code(),
        2,
        "nobody holds anything against it"
    );
    assert_eq!(court.opg_of(&[]), start);

    // made all the same, it costs the bond: half burned, half to the accused
    let made = court.slash(&[&false_report[..], &["--force"]].concat()).expect_code(0);
    assert!(made.stderr.contains("is lost if they do not"), "{}", made.stderr);
    assert_eq!(made.json()["case"], 0);
    court.eventually("verdict on a false report", 60, || {
        (court.case("0")["status"] == "dismissed").then_some(())
    });
    assert_eq!(court.opg_of(&[]), start - bond);
    let key = court.key(1);
    let with_key = ["--key", text(&key)];
    let collected = court
        .slash(&[&["withdraw"], &with_key[..]].concat())
        .expect_code(0)
        .json();
    assert_eq!(wei(&collected["amount"]), bond / 2);
    assert_eq!(court.opg_of(&with_key), bond / 2);
    assert_eq!(court.validator(bystander)["open_cases"], 0);

    // the true one freezes
    let made = court.slash(&["report", &accused]).expect_code(0).json();
    assert_eq!(made["case"], 1, "{made}");
    court.eventually("verdict on a true report", 60, || {
        (court.case("1")["status"] == "frozen").then_some(())
    });
    let frozen = court.validator(traitor);
    assert!(frozen["jailed_until"].is_u64() && frozen["open_cases"] == 1, "{frozen}");
    assert_eq!(
        wei(&frozen["stake"]),
        STAKE,
        "nothing is taken before the time for an appeal is over"
    );
    assert_eq!(court.slash(&["execute", "1"]).code(), 1);

    // the accused, and nobody else, has the votes judged again; they still are what they are
    let bond_text = Amount(bond).to_string();
    court.ok(&["wallet", "send", &accused, &bond_text]);
    assert_eq!(court.slash(&["appeal", "1"]).code(), 2);
    let key = court.key(4);
    let with_key = ["--key", text(&key)];
    court.slash(&[&["appeal", "1"], &with_key[..]].concat()).expect_code(0);
    court.eventually("second verdict", 60, || {
        let case = court.case("1");
        (case["status"] == "frozen" && wei(&case["appeal_bond"]) == bond).then_some(())
    });
    assert_eq!(
        court.slash(&[&["appeal", "1"], &with_key[..]].concat()).code(),
        1,
        "once"
    );

    // the same fault again: known, no second slash, and the bond is back
    let again = court.slash(&["report", &accused]).expect_code(0).json();
    assert_eq!(again["case"], 2, "{again}");
    court.eventually("verdict on a known fault", 60, || {
        (court.case("2")["status"] == "dismissed").then_some(())
    });

    // one seat of five: three fifths, of which half is burned and three tenths are the challenger's
    court.eventually("end of the time for an appeal", 3 * WINDOW, || {
        (court.slash(&["execute", "1"]).code() == 0).then_some(())
    });
    let case = court.case("1");
    assert_eq!(
        (&case["status"], &case["rate_ppm"]),
        (&"executed".into(), &600_000.into()),
        "{case}"
    );
    let slash = STAKE / 5 * 3;
    let after = court.ok(&["validators", "--account", &accused]);
    assert_eq!(wei(&after["positions"][0]["stake"]), STAKE - slash, "{after}");
    assert_eq!(wei(&after["total_stake"]), 5 * STAKE - slash);
    let dead = court.run(&["delegate", &accused, "1"]).expect_code(2);
    assert!(dead.stderr.contains("tombstoned"), "{}", dead.stderr);
    let before = court.opg_of(&[]);
    assert_eq!(
        before,
        start - 4 * bond,
        "three reports, and the bond sent to the accused"
    );
    let credit = slash / 10 * 3 + bond / 2 + 2 * bond;
    let collected = court.slash(&["withdraw"]).expect_code(0).json();
    assert_eq!(wei(&collected["amount"]), credit);
    assert_eq!(court.opg_of(&[]), before + credit);

    // it has no seat any more, and the chain goes on
    let seated = court.eventually("an epoch without it", 240, || {
        let all = court.ok(&["validators"]);
        let seated: Vec<Value> = all["validators"]
            .as_array()?
            .iter()
            .filter(|v| v["seated"] == true)
            .map(|v| v["operator"].clone())
            .collect();
        (!seated.contains(&serde_json::json!(traitor))).then_some((all["epoch"].as_u64()?, seated))
    });
    assert_eq!(seated.1.len(), 4, "{seated:?}");
    court.eventually("the epoch after", 240, || {
        (court.ok(&["validators"])["epoch"].as_u64()? > seated.0).then_some(())
    });
    a_vote_for_an_invalid_proof_costs_stake(&court);
}

/// Somebody holds a vote of validator 1 and the proof that it was for, and reports both from files.
fn a_vote_for_an_invalid_proof_costs_stake(court: &Court) {
    const FIRST: usize = 1;
    let receipt = receipt_with_a_proof();
    let artefact = vec![0x5a; 30_000];
    let mut block = ChainBlock::genesis(court.genesis.digest(), B256::ZERO);
    block.height = 5;
    block.proofs = vec![ProofName {
        core_hash: receipt.core_hash(),
        artefact: sha256(&artefact),
    }];
    let (identity, bls) = secrets(&court.dir(), FIRST);
    let seats = others(&court.genesis, FIRST);
    let digest = block.digest().0;
    let vote = notarize(&court.genesis, (&identity, &bls), &seats, (0, 5), digest);
    let mut evidence = encode_vote(&vote, &block.opening()).expect("a vote");
    evidence.extend(encode_proof_evidence(0, receipt.cose()).expect("a receipt"));
    let evidence = format!("0x{}", hex::encode(evidence));
    let file = court.home.path().join("proof.bin");
    std::fs::write(&file, &artefact).expect("a file");

    let accused = court.operator(FIRST).to_string();
    let report = [
        "report",
        &accused,
        "--epoch",
        "0",
        "--evidence",
        &evidence,
        "--artefact",
        text(&file),
    ];
    let before = court.opg_of(&[]);
    let dry = court
        .slash(&[&report[..], &["--dry-run"]].concat())
        .expect_code(0)
        .json();
    assert_eq!(
        (&dry["proven"], &dry["publishes_bytes"]),
        (&true.into(), &artefact.len().into()),
        "{dry}"
    );
    assert_eq!(court.opg_of(&[]), before);
    let made = court.slash(&report).expect_code(0);
    assert!(made.stderr.contains("2 transactions"), "{}", made.stderr);
    let case = made.json()["case"].to_string();
    court.eventually("verdict on a vote for an invalid proof", 60, || {
        (court.case(&case)["status"] == "frozen").then_some(())
    });
    let found = court.validator(court.operator(FIRST));
    assert!(found["jailed_until"].is_u64() && found["open_cases"] == 1, "{found}");
}

/// A receipt of mode zk. No node of this network made it: a vote for its proof is one all the same.
fn receipt_with_a_proof() -> SignedReceipt {
    let key = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    let payer = secp256k1::SecretKey::from_byte_array(&[9; 32]).expect("a key");
    let keyset = Keyset {
        node_id: node_id(Address::repeat_byte(1), B256::ZERO),
        receipt_key: key.verifying_key().to_bytes().into(),
        settlement_key: Address::repeat_byte(2),
        hpke_key: B256::ZERO,
        tls_spki: B256::ZERO,
    };
    let price = Price {
        per_call: Amount(100),
        per_mtok_in: Amount(0),
        per_mtok_out: Amount(0),
    };
    let usage = Usage { input: 1, output: 1 };
    let mut core = Sale {
        chain_id: 10_740,
        keyset: &keyset,
        seq: 0,
        model: ("demo/digits-mlp", ModelRoot(B256::repeat_byte(3))),
        ask: price,
        royalty_bps: 0,
        usage: (UsageUnit::Calls, usage),
        payment: payment(
            10_740,
            &keyset,
            &payer,
            Amount(1_000),
            B256::repeat_byte(4),
            2_000_000_000,
        ),
    }
    .core();
    opg_samples::proof::zk(&mut core, 0, 1_900_000_000);
    SignedReceipt::sign(core, &key).expect("a receipt")
}
