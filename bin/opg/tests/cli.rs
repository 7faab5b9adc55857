//! The binary itself: usage, exit codes, files, offline commands. Nothing here needs a network.

mod common;

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

use common::{expect, expect_error};
use serde_json::Value;
use tempfile::TempDir;

struct Cli {
    home: TempDir,
}

impl Cli {
    fn new() -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
        }
    }

    /// Runs `opg` with a home of its own, so that nothing of the user is seen or touched.
    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_opg"))
            .args(args)
            .env("HOME", self.home.path())
            .env("XDG_DATA_HOME", self.home.path().join("data"))
            .env_remove("OPG_NETWORK")
            .env_remove("OPG_WALLET")
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn path(&self, name: &str) -> String {
        self.home.path().join(name).to_str().unwrap().to_owned()
    }
}

fn vector() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testing/vectors/receipt-file.receipt.json")
}

#[test]
fn bad_usage_ends_with_2() {
    let cli = Cli::new();
    for args in [
        &[][..],
        &["frobnicate"],
        &["up", "--validators", "3"],
        &["up", "--port-base", "99999"],
        &["up", "--dir", "a", "--ephemeral"],
        &["infer", "demo/digits-mlp"],
        &["infer", "m", "--input", "{}", "--mode", "magic"],
        &["wallet", "send", "0x12", "1"],
        &["wallet", "send", "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "0"],
        &["wallet", "send", "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266", "1e3"],
        &["receipt", "verify"],
        &["chat", "m", "p", "--max-tokens", "0"],
    ] {
        let (stdout, stderr) = expect(&cli.run(args), 2);
        assert!(stdout.is_empty() && !stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn help_and_completions_need_nothing() {
    let cli = Cli::new();
    let (help, _) = expect(&cli.run(&["--help"]), 0);
    for command in [
        "up",
        "status",
        "node",
        "hub",
        "wallet",
        "channel",
        "faucet",
        "validators",
        "stake",
        "delegate",
        "unstake",
        "claim",
        "deploy",
        "checkpoint",
        "payout",
        "gov",
        "models",
        "infer",
        "chat",
        "receipt",
        "evidence",
        "zk",
    ] {
        assert!(help.contains(command), "{help}");
    }
    // D20: what is not built is not announced.
    for absent in ["router", "explorer"] {
        assert!(!help.contains(absent), "{help}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let (script, _) = expect(&cli.run(&["completions", shell]), 0);
        assert!(script.contains("opg") && script.contains("receipt"));
    }
}

#[test]
fn without_a_network_commands_say_how_to_get_one() {
    let cli = Cli::new();
    for args in [
        &["status"][..],
        &["models", "ls"],
        &["wallet", "balance"],
        &["validators"],
        &["claim"],
        &["gov", "ls"],
        &[
            "gov",
            "propose",
            "fee-split",
            "--node",
            "80",
            "--auditors",
            "10",
            "--treasury",
            "5",
            "--router",
            "5",
        ],
        &["node", "exit"],
        &["node", "init", "--out", "nowhere"],
        &["chat", "m", "hello"],
    ] {
        expect_error(&cli.run(args), 2, &["no network found", "opg up", "--dir"]);
    }
    expect_error(&cli.run(&["status", "--dir", &cli.path("nowhere")]), 2, &["nowhere"]);
}

#[test]
fn modes_that_are_not_served_are_refused_before_anything_else() {
    let cli = Cli::new();
    let replay = cli.run(&["infer", "m", "--input", "{}", "--mode", "replay"]);
    expect_error(&replay, 2, &["float replay and statistical audits come later"]);
    let zk = cli.run(&["chat", "m", "hello", "--mode", "zk"]);
    expect_error(&zk, 2, &["available modes: none, tee"]);
}

#[test]
fn wallets_are_made_shown_and_never_overwritten() {
    let cli = Cli::new();
    let key = cli.path("keys/my.key");
    let (made, _) = expect(&cli.run(&["wallet", "new", "--out", &key, "--json"]), 0);
    let made: Value = serde_json::from_str(&made).unwrap();
    let (shown, _) = expect(&cli.run(&["wallet", "show", "--key", &key]), 0);
    assert!(shown.trim().eq_ignore_ascii_case(made["address"].as_str().unwrap()));
    let secret = std::fs::read_to_string(&key).unwrap();
    expect_error(&cli.run(&["wallet", "new", "--out", &key]), 2, &["exists already"]);
    assert_eq!(std::fs::read_to_string(&key).unwrap(), secret);
    assert!(!made.to_string().contains(secret.trim()));

    expect(&cli.run(&["wallet", "new"]), 0);
    assert!(cli.home.path().join("data/opg/wallet.key").exists());
    std::fs::write(&key, "nonsense").unwrap();
    expect_error(
        &cli.run(&["wallet", "show", "--key", &key]),
        2,
        &["does not hold a secp256k1 key"],
    );
}

#[cfg(unix)]
#[test]
fn keys_that_others_can_read_are_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let cli = Cli::new();
    let key = cli.path("my.key");
    expect(&cli.run(&["wallet", "new", "--out", &key]), 0);
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    expect_error(&cli.run(&["wallet", "show", "--key", &key]), 2, &["chmod 600"]);
}

#[test]
fn a_split_network_is_a_folder_per_role() {
    let cli = Cli::new();
    let dir = cli.path("net");
    let (split, _) = expect(&cli.run(&["up", "--split", &dir, "--json", "--port-base", "21000"]), 0);
    let split: Value = serde_json::from_str(&split).unwrap();
    assert_eq!(split["roles"].as_array().unwrap().len(), 7);
    for role in ["validator-0", "validator-3", "inference"] {
        for file in ["config.toml", "keys.json"] {
            assert!(Path::new(&dir).join(role).join(file).exists(), "{role}/{file}");
        }
    }
    let network: Value = serde_json::from_slice(&std::fs::read(Path::new(&dir).join("network.json")).unwrap()).unwrap();
    assert_eq!(network["chain_id"], 10_740);
    assert_eq!(network["rpc"][3], "http://127.0.0.1:21003");
    assert_eq!(network["nodes"][0]["url"], "http://127.0.0.1:21065");
    assert_eq!(network["metrics"][0], "http://127.0.0.1:21555/metrics");
    assert_eq!(network["router"], "http://127.0.0.1:21055");
    assert_eq!(network["hub"], "http://127.0.0.1:21155");
    assert!(network.get("web").is_none());
    // The hub has the demo models before anything runs.
    assert!(Path::new(&dir).join("hub/data/hub.sqlite").exists());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        for key in ["demo.key", "faucet.key", "validator-0/keys.json", "inference/keys.json"] {
            let mode = std::fs::metadata(Path::new(&dir).join(key))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
    }
    let (shown, _) = expect(&cli.run(&["wallet", "show", "--dir", &dir]), 0);
    assert!(
        shown
            .trim()
            .eq_ignore_ascii_case(network["wallet"]["address"].as_str().unwrap())
    );

    expect_error(&cli.run(&["up", "--split", &dir]), 2, &["holds a network already"]);
    expect_error(
        &cli.run(&["up", "--dir", &dir, "--validators", "5"]),
        2,
        &["4 validators"],
    );
    // Nothing answers there: that is a failed check, not bad input.
    let (status, _) = expect(&cli.run(&["status", "--dir", &dir, "--json"]), 1);
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(status["up"], false);
    assert_eq!(status["full_nodes"].as_array().unwrap().len(), 4);
    // A role refuses a configuration with an unknown field, by name.
    let config = Path::new(&dir).join("validator-0/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("portt = 1\n{text}")).unwrap();
    // What it says is a line of its log.
    for (role, config, word) in [
        ("full", config.to_str().unwrap(), "portt"),
        ("inference", &cli.path("no.toml"), "no.toml"),
    ] {
        let (stdout, stderr) = expect(&cli.run(&["node", role, "--config", config]), 2);
        let line: Value = serde_json::from_str(&stderr).unwrap();
        assert!(stdout.is_empty() && line["level"] == "ERROR", "{stderr}");
        assert!(line["fields"]["message"].as_str().unwrap().contains(word), "{stderr}");
    }
}

#[test]
fn receipts_are_shown_and_judged() {
    let cli = Cli::new();
    let vector = vector();
    let file = vector.to_str().unwrap();
    let (shown, _) = expect(&cli.run(&["receipt", "show", file, "--json"]), 0);
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["core"]["chain_id"], 10_740);
    assert_eq!(shown["judged"], false);
    expect(&cli.run(&["receipt", "show", file]), 0);

    // Any network's genesis but the right one.
    let dir = cli.path("net");
    expect(&cli.run(&["up", "--split", &dir]), 0);
    let genesis = cli.path("net/genesis.json");
    let (steps, stderr) = expect(
        &cli.run(&["receipt", "verify", file, "--genesis", &genesis, "--offline"]),
        1,
    );
    assert!(
        steps.contains("FAIL") && steps.trim_end().ends_with("INVALID"),
        "{steps}"
    );
    assert!(stderr.starts_with("error: the receipt does not verify"), "{stderr}");
    let (report, _) = expect(
        &cli.run(&["receipt", "verify", file, "--genesis", &genesis, "--json"]),
        1,
    );
    assert_eq!(serde_json::from_str::<Value>(&report).unwrap()["verdict"], "invalid");

    expect_error(
        &cli.run(&["receipt", "verify", &cli.path("no.json"), "--genesis", &genesis]),
        2,
        &["cannot read"],
    );
    expect_error(&cli.run(&["receipt", "verify", file]), 2, &["--genesis"]);
    expect_error(
        &cli.run(&["receipt", "verify", file, "--genesis", &cli.path("no.json")]),
        2,
        &["no.json"],
    );
    expect_error(
        &cli.run(&["receipt", "verify", file, "--genesis", file]),
        2,
        &["receipt-file.receipt.json"],
    );
    for wrong in ["magic", "tee,gold", "tee,"] {
        let args = ["receipt", "verify", file, "--genesis", &genesis, "--require", wrong];
        expect_error(&cli.run(&args), 2, &["--require"]);
    }
    let other = cli.path("other.json");
    std::fs::write(&other, "{}").unwrap();
    expect(&cli.run(&["receipt", "verify", &other, "--genesis", &genesis]), 1);
    expect_error(&cli.run(&["receipt", "show", &other]), 1, &["other.json"]);
}

/// Files of a network that is gone: nothing but the genesis file is left to trust.
#[test]
fn real_receipts_verify_offline_and_changed_ones_do_not() {
    let cli = Cli::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let genesis = fixtures.join("genesis.json");
    let genesis = genesis.to_str().unwrap();
    let verify = |file: &str, more: &[&str]| {
        // The network has no validator rotation, so its genesis stays the newest trusted point and grows old (D12).
        let base = [
            "receipt",
            "verify",
            file,
            "--genesis",
            genesis,
            "--offline",
            "--accept-old-anchor",
        ];
        cli.run(&[&base, more].concat())
    };
    for name in ["digit.receipt.json", "chat.receipt.json"] {
        let path = fixtures.join(name);
        let file = path.to_str().unwrap();
        let (steps, _) = expect(&verify(file, &[]), 0);
        assert!(steps.trim_end().ends_with("UNPROVEN (signature only)"), "{steps}");
        for step in [
            "signature",
            "price",
            "finality",
            "inclusion",
            "registration",
            "settlement",
        ] {
            assert!(
                steps.lines().any(|line| line.starts_with(&format!("ok    {step} "))),
                "{step}: {steps}"
            );
        }
        expect(&verify(file, &["--require", "none"]), 0);
        for more in ["tee,hardware", "zk", "tee,simulated"] {
            let (steps, stderr) = expect(&verify(file, &["--require", more]), 1);
            assert!(
                steps.contains("REQUIREMENT NOT MET") && stderr.starts_with("error: "),
                "{steps}"
            );
        }
        expect(&verify(file, &["--trust-checkpoint", &"ab".repeat(32)]), 1);

        let good = std::fs::read(&path).unwrap();
        let changed = cli.path(name);
        for position in (0..good.len()).step_by(good.len() / 40) {
            let mut bad = good.clone();
            bad[position] ^= 1;
            std::fs::write(&changed, bad).unwrap();
            let (steps, _) = expect(&verify(&changed, &[]), 1);
            assert!(steps.trim_end().ends_with("INVALID"), "byte {position}: {steps}");
        }
    }
}

#[test]
fn input_that_is_no_tensor_object_is_refused() {
    let cli = Cli::new();
    for input in ["[1]", "{", "nan", "@/does/not/exist"] {
        expect_error(&cli.run(&["infer", "m", "--input", input]), 2, &[]);
    }
}
