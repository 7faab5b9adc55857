//! The hub as a process of its own.

use opg_hub::{client, siwe::Scope};
use secp256k1::SecretKey;
use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

pub(crate) struct Hub {
    child: Child,
    pub(crate) url: String,
    pub(crate) http: reqwest::Client,
    pub(crate) token: client::Token,
}

/// Seconds of processor time that a process (`self` for this one) used until now.
pub(crate) fn cpu(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("/proc");
    // After the name in parentheses: state is the first, user and system time are the 12th and 13th.
    let rest = stat.rsplit_once(") ").expect("a name").1;
    let ticks: f64 = rest
        .split(' ')
        .skip(11)
        .take(2)
        .map(|n| n.parse::<f64>().expect("ticks"))
        .sum();
    ticks / 100.0
}

impl Hub {
    /// Starts the hub that was built beside this program.
    pub(crate) async fn start(dir: &Path) -> Self {
        let program: PathBuf = std::env::current_exe()
            .expect("own path")
            .ancestors()
            .nth(2)
            .expect("target directory")
            .join("opg-model-hub");
        let config = dir.join("hub.toml");
        let data = dir.join("data");
        let limits = "account_requests = 1000000000\nanonymous_requests = 1000000000";
        std::fs::write(
            &config,
            format!("listen = \"127.0.0.1:0\"\ndata_dir = {data:?}\n[limits]\n{limits}\n"),
        )
        .expect("configuration");
        let mut child = Command::new(program)
            .arg("--config")
            .arg(&config)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::piped())
            .spawn()
            .expect("opg-model-hub, built in the same profile");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("its output"))
            .read_line(&mut line)
            .expect("its address");
        let url = line
            .trim()
            .strip_prefix("hub ready at ")
            .expect("its address")
            .to_owned();
        let http = reqwest::Client::new();
        let key = SecretKey::from_byte_array(&[7; 32]).expect("a key");
        let token = client::sign_in(&http, &url, &key, Scope::Write, 30, "bench", 1)
            .await
            .expect("a token");
        Self {
            child,
            url,
            http,
            token,
        }
    }

    /// Peak of resident memory, MiB.
    pub(crate) fn peak(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("/proc");
        let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("VmHWM");
        let kib: f64 = line
            .split_whitespace()
            .nth(1)
            .expect("a number")
            .parse()
            .expect("a number");
        kib / 1024.0
    }

    /// Seconds of processor time that it used until now.
    pub(crate) fn cpu(&self) -> f64 {
        cpu(&self.child.id().to_string())
    }

    /// Sends JSON as the account, and returns the answer.
    pub(crate) async fn post(&self, path: &str, body: &serde_json::Value) -> serde_json::Value {
        let request = self.http.post(format!("{}{path}", self.url)).json(body);
        let sent = request.bearer_auth(&self.token.token).send().await;
        sent.expect("an answer").json().await.expect("JSON")
    }

    /// Asks for the upload of a large file, and returns what to do.
    pub(crate) async fn batch(&self, id: &str, (oid, size): (&str, u64), transfers: &[&str]) -> serde_json::Value {
        let objects = serde_json::json!([{"oid": oid, "size": size}]);
        let body = serde_json::json!({"operation": "upload", "transfers": transfers, "objects": objects});
        let mut answer = self.post(&format!("/{id}.git/info/lfs/objects/batch"), &body).await;
        answer["objects"][0]["actions"]["upload"].take()
    }

    /// Creates a repository of the account and returns its name.
    pub(crate) async fn create(&self, name: &str) -> String {
        let answer = self.post("/api/repos/create", &serde_json::json!({"name": name})).await;
        answer["name"].as_str().expect("a repository").to_owned()
    }

    /// Commits lines to `main`.
    pub(crate) async fn commit(&self, id: &str, lines: &[serde_json::Value]) {
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let url = format!("{}/api/models/{id}/commit/main", self.url);
        let answer = self
            .http
            .post(url)
            .bearer_auth(&self.token.token)
            .body(body)
            .send()
            .await;
        let answer = answer.expect("an answer");
        assert!(
            answer.status().is_success(),
            "{}",
            answer.text().await.unwrap_or_default()
        );
    }

    /// Ends it in order, so that another may use its directory.
    pub(crate) fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .expect("kill")
                .success()
        );
        self.child.wait().expect("its end");
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
