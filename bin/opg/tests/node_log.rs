//! What a role writes to stderr where that is collected: JSON lines, with the id that clients are given, and no secrets.

mod common;

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use common::expect;
use serde_json::{Value, json};

fn opg(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_opg"));
    command
        .args(args)
        .env("HOME", home)
        .env("XDG_DATA_HOME", home.join("data"))
        .env_remove("OPG_NETWORK")
        .env_remove("OPG_WALLET")
        .env_remove("HF_TOKEN")
        .env_remove("HF_ENDPOINT")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    command
}

fn lines(text: &str) -> Vec<Value> {
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

#[tokio::test]
async fn a_hub_logs_json_lines_with_the_ids_of_requests() {
    let home = tempfile::tempdir().unwrap();
    let path = |name: &str| home.path().join(name).to_str().unwrap().to_owned();
    let (config, key, log) = (path("hub.toml"), path("w.key"), path("hub.log"));
    let text = "listen = \"127.0.0.1:0\"\ndata_dir = \"hub\"\n[limits]\nowner_repos = 1\n";
    std::fs::write(&config, text).unwrap();
    let mut hub = opg(home.path(), &["--json", "node", "hub", "--config", &config])
        .stdout(Stdio::piped())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut ready = String::new();
    BufReader::new(hub.stdout.take().unwrap())
        .read_line(&mut ready)
        .unwrap();
    let ready: Value = serde_json::from_str(&ready).unwrap_or_else(|_| panic!("{:?}", std::fs::read_to_string(&log)));
    let url = ready["url"].as_str().unwrap().to_owned();

    expect(
        &opg(home.path(), &["wallet", "new", "--out", &key]).output().unwrap(),
        0,
    );
    let signed_in = opg(home.path(), &["hub", "token", "--hub", &url, "--key", &key]).output();
    let token = expect(&signed_in.unwrap(), 0).0.trim().to_owned();
    let http = reqwest::Client::new();
    let create = |name: &str| {
        let request = http.post(format!("{url}/api/repos/create?sig=of-a-link"));
        request.bearer_auth(&token).json(&json!({"name": name})).send()
    };
    let id = |response: &reqwest::Response| response.headers()["x-request-id"].to_str().unwrap().to_owned();
    let made = create("first").await.unwrap();
    assert_eq!(made.status(), 200);
    let refused = create("second").await.unwrap();
    assert_eq!(refused.status(), 507);
    assert_ne!(id(&made), id(&refused));
    let missing = http.get(format!("{url}/api/models/a/b")).send().await.unwrap();
    assert_eq!(missing.status(), 404);

    let stop = Command::new("kill").args(["-TERM", &hub.id().to_string()]).status();
    assert!(stop.unwrap().success() && hub.wait().unwrap().success());
    let text = std::fs::read_to_string(&log).unwrap();
    let logged = lines(&text);
    assert!(
        logged
            .iter()
            .any(|line| line["fields"]["message"] == "hub serving" && line["level"] == "INFO"),
        "{text}"
    );
    // Of the three requests only the one that the hub could not serve is worth a line.
    let failed: Vec<_> = logged.iter().filter(|line| !line["fields"]["path"].is_null()).collect();
    let [only] = failed.as_slice() else { panic!("{text}") };
    let fields = &only["fields"];
    assert!(fields["ms"].is_u64(), "{only}");
    assert_eq!(
        (
            &fields["method"],
            &fields["path"],
            &fields["status"],
            &fields["code"],
            &fields["id"]
        ),
        (
            &json!("POST"),
            &json!("/api/repos/create"),
            &json!(507),
            &json!("QuotaReached"),
            &json!(id(&refused))
        )
    );
    assert!(!text.contains(&token) && !text.contains("of-a-link"), "{text}");

    // What ends a role is a line, too.
    std::fs::write(&config, "listen = \"127.0.0.1:0\"\ndata_dir = \"hub\"\nnonsense = 1\n").unwrap();
    let failed = opg(home.path(), &["node", "hub", "--config", &config])
        .output()
        .unwrap();
    let (stdout, stderr) = expect(&failed, 2);
    let [line] = &lines(&stderr)[..] else {
        panic!("{stderr}")
    };
    assert_eq!((stdout.as_str(), &line["level"]), ("", &json!("ERROR")));
    assert!(
        line["fields"]["message"].as_str().unwrap().contains("nonsense"),
        "{line}"
    );
    // Other commands speak to people.
    let (_, stderr) = expect(&opg(home.path(), &["node", "exit"]).output().unwrap(), 2);
    assert!(stderr.starts_with("error: "), "{stderr}");
}
