//! A hub in a process of its own, as it runs in the product.
#![allow(unreachable_pub, reason = "shared by several test programs")]
#![allow(dead_code, reason = "every test file uses a part of this")]

pub mod bucket;
pub mod chain;
mod place;
pub mod postgres;

#[allow(unused_imports, reason = "every test file uses a part of this")]
pub(crate) use place::on_all;
#[allow(unused_imports, reason = "every test file uses a part of this")]
pub use place::{Place, STORES};

use opg_hub::{client, siwe::Scope};
use secp256k1::SecretKey;
use serde_json::Value;
use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

/// A running hub. Killed when dropped.
pub struct Hub {
    child: Child,
    pub url: String,
    pub dir: PathBuf,
    pub http: reqwest::Client,
}

impl Hub {
    /// Starts a hub over a directory, with lines for `[limits]`.
    pub fn start(dir: &Path, limits: &str) -> Self {
        let config = dir.join("hub.toml");
        let data = dir.join("data");
        let stores = std::fs::read_to_string(dir.join(STORES)).unwrap_or_default();
        let text = format!("listen = \"127.0.0.1:0\"\ndata_dir = {data:?}\n{stores}[limits]\n{limits}\n");
        std::fs::write(&config, text).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_opg-model-hub"))
            .arg("--config")
            .arg(&config)
            .env("RUST_LOG", "opg_hub=debug")
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(dir.join("hub.log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let log = || std::fs::read_to_string(dir.join("hub.log")).unwrap_or_default();
        let url = line
            .trim()
            .strip_prefix("hub ready at ")
            .unwrap_or_else(|| panic!("{line:?} {}", log()));
        Self {
            child,
            url: url.to_owned(),
            dir: dir.to_owned(),
            http: reqwest::Client::new(),
        }
    }

    pub fn pid(&self) -> String {
        self.child.id().to_string()
    }

    /// SIGKILL: nothing is flushed, nothing is said.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the exit status.
    pub fn terminate(mut self) -> std::process::ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        self.child.wait().unwrap()
    }

    /// A token of the wallet whose key is 32 times `seed`.
    pub async fn token(&self, seed: u8, scope: Scope) -> client::Token {
        let key = SecretKey::from_byte_array(&[seed; 32]).unwrap();
        client::sign_in(&self.http, &self.url, &key, scope, 30, "test", 1)
            .await
            .unwrap()
    }

    pub fn at(&self, path: &str) -> String {
        format!("{}{path}", self.url)
    }

    /// Sends JSON; returns status and answer.
    pub async fn post(&self, token: &str, path: &str, body: Value) -> (u16, Value) {
        let request = self.http.post(self.at(path)).bearer_auth(token).json(&body);
        answer(request).await
    }

    pub async fn get(&self, token: Option<&str>, path: &str) -> (u16, Value) {
        let mut request = self.http.get(self.at(path));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        answer(request).await
    }

    pub async fn create(&self, token: &str, name: &str) -> String {
        let (status, answer) = self
            .post(token, "/api/repos/create", serde_json::json!({"name": name}))
            .await;
        assert_eq!(status, 200, "{answer}");
        answer["name"].as_str().unwrap().to_owned()
    }

    /// Sends lines of a commit.
    pub async fn commit(&self, token: &str, id: &str, lines: &[Value]) -> (u16, Value) {
        let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let request = self.http.post(self.at(&format!("/api/models/{id}/commit/main")));
        answer(request.bearer_auth(token).body(body)).await
    }

    /// Asks to upload a large file: status and what is said of it, or the error.
    pub async fn batch(&self, token: &str, id: &str, (oid, size): (&str, u64), transfers: &[&str]) -> (u16, Value) {
        let objects = serde_json::json!([{"oid": oid, "size": size}]);
        let body = serde_json::json!({"operation": "upload", "transfers": transfers, "objects": objects});
        let path = format!("/{id}.git/info/lfs/objects/batch");
        let (status, mut batch) = self.post(token, &path, body).await;
        let object = batch.pointer_mut("/objects/0").map(Value::take);
        (status, object.unwrap_or(batch))
    }

    /// Uploads a large file, for a commit: its SHA-256.
    pub async fn upload(&self, token: &str, id: &str, content: &[u8]) -> String {
        let oid = hex::encode(opg_hub::blobs::describe(content).sha256);
        let (status, object) = self.batch(token, id, (&oid, content.len() as u64), &["basic"]).await;
        assert_eq!(status, 200, "{object}");
        // What is there already is not sent again.
        if let Some(link) = object["actions"]["upload"]["href"].as_str() {
            let (status, sent) = answer(self.http.put(link).body(content.to_vec())).await;
            assert_eq!(status, 200, "{sent}");
        }
        oid
    }

    pub async fn metrics(&self) -> String {
        let response = self.http.get(self.at("/metrics")).send().await.unwrap();
        assert_eq!(response.status(), 200);
        response.text().await.unwrap()
    }

    pub async fn bytes(&self, id: &str, revision: &str, path: &str) -> (u16, Vec<u8>) {
        let url = self.at(&format!("/{id}/resolve/{revision}/{path}"));
        let response = self.http.get(url).send().await.unwrap();
        (
            response.status().as_u16(),
            response.bytes().await.unwrap_or_default().to_vec(),
        )
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or(Value::Null))
}

/// Header line of a commit.
pub fn header(summary: &str) -> Value {
    serde_json::json!({"key": "header", "value": {"summary": summary}})
}

/// Line that adds a small file.
pub fn file(path: &str, content: &[u8]) -> Value {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let content = STANDARD.encode(content);
    serde_json::json!({"key": "file", "value": {"path": path, "content": content, "encoding": "base64"}})
}

/// Line that adds an uploaded file.
pub fn large(path: &str, oid: &str, size: usize) -> Value {
    serde_json::json!({"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": oid, "size": size}})
}

/// A file of the repository's fixtures.
pub fn fixture(path: &str) -> Vec<u8> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testing/fixtures");
    std::fs::read(fixtures.join(path)).unwrap()
}

/// The Python of a virtual environment with the packages of a file, made once per target directory. `None`, and a line
/// that says why, where it cannot be made.
pub fn python(requirements: &Path) -> Option<PathBuf> {
    let name = requirements.file_stem().unwrap().to_str().unwrap();
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("hub-{name}"));
    let pins = std::fs::read_to_string(requirements).unwrap();
    // Tests are processes of their own: one installs, the others wait for it.
    let lock = std::fs::File::create(venv.with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let done = venv.join("installed.txt");
    let python = venv.join("bin/python");
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == pins) {
        return Some(python);
    }
    let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).status();
    if !made.is_ok_and(|status| status.success()) {
        println!("SKIPPED: python3 -m venv does not work here");
        return None;
    }
    let installed = Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(requirements)
        .status();
    if !installed.is_ok_and(|status| status.success()) {
        println!(
            "SKIPPED: the packages of {} cannot be installed; is a registry reachable?",
            requirements.display()
        );
        return None;
    }
    std::fs::write(done, pins).unwrap();
    Some(python)
}

/// A model that the network runs, of 1.6 MB.
pub fn model() -> Vec<u8> {
    let path = "../../testing/fixtures/tiny-llama/trained-Q8_0.gguf";
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}
