//! A closed model in a role: the node passes chats to a provider behind TLS, its API key comes sealed from the operator, and the
//! receipt says what came from whom. The provider is a real llama.cpp server from PyPI; skipped, loudly, where it cannot be installed.

use opg_e2e::{Network, opg, tls, wait_until};
use serde_json::{Value, json};
use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(60);
const API_KEY: &str = "sk-local-9f8e7d6c5b4a";
const HOST: &str = "llama.internal";
const MODEL: &str = "closed/tiny-llama";

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8 path")
}

/// A virtual environment with the pinned llama.cpp, made once per target directory.
fn python() -> Option<PathBuf> {
    let upstream = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/upstream/tests/python/requirements.txt");
    let pins = std::fs::read_to_string(upstream).expect("requirements");
    let pin = pins
        .lines()
        .find(|line| line.starts_with("xllamacpp=="))
        .expect("a pin");
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("llama-venv");
    let (done, python) = (venv.join("installed.txt"), venv.join("bin/python"));
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == pin) {
        return Some(python);
    }
    let run = |command: &mut Command| command.status().is_ok_and(|status| status.success());
    if !run(Command::new("python3").args(["-m", "venv"]).arg(&venv)) {
        println!("SKIPPED: python3 -m venv does not work here");
        return None;
    }
    let install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", pin];
    if !run(Command::new(&python).args(install)) {
        println!("SKIPPED: {pin} cannot be installed; is a registry reachable?");
        return None;
    }
    std::fs::write(done, pin).expect("note");
    Some(python)
}

/// The server; ended by its own id.
struct Llama {
    child: Child,
    address: SocketAddr,
}

impl Llama {
    fn start(python: &Path) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut child = Command::new(python)
            .arg(root.join("crates/upstream/tests/python/llama.py"))
            .arg(root.join("testing/fixtures/tiny-llama/trained-Q8_0.gguf"))
            .arg(API_KEY)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout");
        BufReader::new(stdout).read_line(&mut line).expect("its address");
        let address = line
            .trim()
            .strip_prefix("http://")
            .expect("a URL")
            .parse()
            .expect("an address");
        Self { child, address }
    }
}

impl Drop for Llama {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Every file below a folder that contains a text.
fn files_with(dir: &Path, needle: &[u8], found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            files_with(&path, needle, found);
        } else if std::fs::read(&path).is_ok_and(|bytes| bytes.windows(needle.len()).any(|part| part == needle)) {
            found.push(path);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_model_is_served_paid_and_its_receipt_says_what_came_from_whom() {
    let Some(python) = python() else { return };
    let llama = Llama::start(&python);
    let (address, authority) = tls::proxy(HOST, llama.address).await;

    let mut network = Network::start();
    let (dir, home) = (network.dir(), network.home().to_owned());
    let home = home.as_path();
    let url = network.node_url().to_owned();
    let genesis = dir.join("genesis.json");
    let run = |arguments: &[&str]| opg(home, &[arguments, &["--dir", text(&dir)]].concat());
    let attested = async || {
        let models: Option<Value> = match reqwest::get(format!("{url}/v1/models")).await {
            Ok(answer) => answer.json().await.ok(),
            Err(_) => None,
        };
        models.is_some_and(|models| !models["data"][0]["attestation"].is_null())
    };

    // on chain: the model by its descriptor, the node's price for it
    let price = ["--per-mtok-in", "2", "--per-mtok-out", "10"];
    let (creator, operator) = (dir.join("creator.key"), dir.join("inference/operator.key"));
    let register = [
        "models",
        "register-closed",
        MODEL,
        "--provider",
        "compatible",
        "--host",
        HOST,
        "--model",
        "tiny",
    ];
    let creator = ["--key", text(&creator), "--json"];
    let registered = run(&[&register[..], &price[..], &creator[..]].concat())
        .expect_code(0)
        .json();
    let root = registered["root"].as_str().expect("root").to_owned();
    let dry = run(&[&register[..], &["--dry-run", "--json"]].concat())
        .expect_code(0)
        .json();
    assert_eq!(dry["root"], registered["root"]);
    run(&[&["node", "ask", &root][..], &price[..], &["--key", text(&operator)]].concat()).expect_code(0);

    // in the node's configuration: everything but the key
    assert!(network.stop().success(), "orderly end");
    let config = dir.join("inference/config.toml");
    let section = format!(
        "\n[[models]]\nname = \"{MODEL}\"\nkind = \"upstream\"\n[models.upstream]\nprovider = \"compatible\"\nmodel = \"tiny\"\n\
         url = \"https://{HOST}/v1\"\naddress = \"{address}\"\nroots = \"\"\"\n{authority}\"\"\"\n"
    );
    let before = std::fs::read_to_string(&config).expect("config");
    std::fs::write(&config, before + &section).expect("config");
    network.run();
    wait_until("the node is attested", PATIENCE, async || attested().await).await;
    let listed: Value = reqwest::get(format!("{url}/v1/models"))
        .await
        .expect("answer")
        .json()
        .await
        .expect("json");
    let entry = listed["data"]
        .as_array()
        .expect("list")
        .iter()
        .find(|model| model["id"] == MODEL)
        .expect("listed");
    assert_eq!(
        (&entry["kind"], &entry["root"], &entry["upstream"]["host"]),
        (&json!("upstream"), &json!(root), &json!(HOST))
    );

    let ask = |name: &str, more: &[&str]| {
        let file = home.join(name);
        let prompt = "Permission is hereby granted, free of charge, to any person";
        let arguments = [
            "chat",
            MODEL,
            prompt,
            "--max-tokens",
            "12",
            "--temperature",
            "0",
            "--mode",
            "tee",
            "--json",
        ];
        (run(&[&arguments[..], &["--receipt", text(&file)], more].concat()), file)
    };
    // without a key the provider refuses, and nothing is charged
    let (refused, _) = ask("refused.receipt.json", &[]);
    assert_eq!(refused.code(), 1, "{}", refused.stderr);
    assert!(refused.stderr.contains("nothing was charged"), "{}", refused.stderr);

    // the key: nobody but the operator, for no host but one that is served
    let key_file = home.join("api-key");
    std::fs::write(&key_file, format!("{API_KEY}\n")).expect("key");
    let inject = |host: &str, wallet: &Path| {
        let arguments = [
            "node",
            "inject-key",
            "--provider",
            "compatible",
            "--host",
            host,
            "--key",
            text(wallet),
        ];
        run(&[&arguments[..], &["--api-key-file", text(&key_file)]].concat())
    };
    let stranger = inject(HOST, &dir.join("demo.key"));
    assert_eq!(stranger.code(), 1);
    assert!(stranger.stderr.contains("operator"), "{}", stranger.stderr);
    let elsewhere = inject("evil.example", &operator);
    assert_eq!(elsewhere.code(), 1);
    assert!(elsewhere.stderr.contains("evil.example"), "{}", elsewhere.stderr);
    inject(HOST, &operator).expect_code(0);

    // whole, streamed, and sealed: paid, verified offline, with the provider's words in the signed core
    let mut answers = Vec::new();
    for (name, more) in [
        ("whole.receipt.json", &[][..]),
        ("stream.receipt.json", &["--stream"]),
        ("sealed.receipt.json", &["--stream", "--encrypted"]),
    ] {
        let (chat, file) = ask(name, more);
        let chat = chat.expect_code(0);
        let last: Value = serde_json::from_str(chat.stdout.lines().last().expect("a line")).expect("json");
        answers.push(last["text"].as_str().expect("text").to_owned());
        let verify = [
            "receipt",
            "verify",
            text(&file),
            "--genesis",
            text(&genesis),
            "--offline",
        ];
        let verified = opg(home, &verify).expect_code(0);
        for words in [
            "VERIFIED (tee, simulated)",
            "upstream",
            "the attested node received",
            HOST,
            "not proven",
        ] {
            assert!(verified.stdout.contains(words), "{words}: {}", verified.stdout);
        }
        let shown = opg(home, &["receipt", "show", text(&file), "--json"])
            .expect_code(0)
            .json();
        let (core, record) = (&shown["core"], &shown["core"]["upstream"]);
        assert_eq!(
            (&record["provider"], &record["host"]),
            (&json!("compatible"), &json!(HOST))
        );
        assert!(
            record["peer"]["chain"].as_str().is_some_and(|hash| hash.len() == 66),
            "{record}"
        );
        assert!(
            record["response_id"]
                .as_str()
                .is_some_and(|id| id.starts_with("chatcmpl-")),
            "{record}"
        );
        assert_eq!(
            (&record["complete"], &core["model"]["served_root"]),
            (&json!(true), &json!(root))
        );
        assert!(
            core["usage"]["input"].as_u64() > Some(0) && core["usage"]["output"] == 12,
            "{core}"
        );
        let people = opg(home, &["receipt", "show", text(&file)]).expect_code(0);
        assert!(
            people.stdout.contains("response id") && people.stdout.contains("TLS peer"),
            "{}",
            people.stdout
        );
    }
    assert!(
        !answers[0].is_empty() && answers.iter().all(|answer| *answer == answers[0]),
        "{answers:?}"
    );

    // what the provider cannot do is refused by name before anything is paid
    let body = json!({"model": MODEL, "messages": [{"role": "user", "content": "x"}], "logprobs": true});
    let refused = reqwest::Client::new()
        .post(format!("{url}/v1/chat/completions"))
        .json(&body);
    let refused = refused.send().await.expect("answer");
    assert_eq!(refused.status().as_u16(), 400);
    let refused: Value = refused.json().await.expect("json");
    assert_eq!(refused["error"]["param"], "logprobs", "{refused}");

    // after a restart the sealed bytes on disk are enough; the key itself is in no file and no log
    assert!(network.stop().success(), "orderly end");
    std::fs::remove_file(&key_file).expect("the operator's own file");
    let mut found = Vec::new();
    files_with(home, API_KEY.as_bytes(), &mut found);
    assert!(found.is_empty(), "the API key is in {found:?}");
    network.run();
    wait_until("the node is attested", PATIENCE, async || attested().await).await;
    let (chat, _) = ask("again.receipt.json", &[]);
    assert_eq!(chat.expect_code(0).json()["text"], json!(answers[0]));
}
