//! An S3-compatible server of a test's own: `s3s-fs` of crates.io over a directory, on a free port of loopback.
//!
//! `cargo xtask test` builds it (`testing/s3-server`), in a workspace of its own.

use opg_hub::config::{BlobsConfig, Secret};
use std::{
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

const ACCESS: &str = "opg-test-key";
const SECRET: &str = "opg-test-secret";
/// The bucket's name, and where in it the hub's objects are.
const BUCKET: &str = "models";
const PREFIX: &str = "a/hub";

/// A running server. Ended when dropped.
pub struct Bucket {
    program: PathBuf,
    dir: tempfile::TempDir,
    address: String,
    server: Option<Child>,
}

/// The server beside this build, or built now where a registry is reachable.
fn program() -> Option<PathBuf> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .unwrap()
        .join("s3-server");
    let program = target.join("debug/s3-server");
    let lock = std::fs::File::create(Path::new(env!("CARGO_TARGET_TMPDIR")).join("s3-server.lock")).unwrap();
    lock.lock().unwrap();
    if !program.exists() {
        let built = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--manifest-path"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testing/s3-server/Cargo.toml"))
            .arg("--target-dir")
            .arg(&target)
            .status();
        if !built.is_ok_and(|status| status.success()) {
            println!("SKIPPED: the S3 server cannot be built; is a registry reachable?");
            return None;
        }
    }
    Some(program)
}

impl Bucket {
    /// Starts a server with an empty bucket; `None`, and a line that says why, where that is not possible.
    pub fn start() -> Option<Self> {
        let mut bucket = Self {
            program: program()?,
            dir: tempfile::tempdir().unwrap(),
            address: "127.0.0.1:0".into(),
            server: None,
        };
        std::fs::create_dir(bucket.dir.path().join(BUCKET)).unwrap();
        bucket.run();
        Some(bucket)
    }

    /// Runs the server, on the port that it had.
    pub fn run(&mut self) {
        let mut child = Command::new(&self.program)
            .args([self.dir.path().to_str().unwrap(), &self.address, ACCESS, SECRET])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        self.address = line
            .trim()
            .strip_prefix("ready ")
            .unwrap_or_else(|| panic!("{line:?}"))
            .to_owned();
        self.server = Some(child);
    }

    /// Kills the server.
    pub fn end(&mut self) {
        if let Some(mut child) = self.server.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn pid(&self) -> u32 {
        self.server.as_ref().unwrap().id()
    }

    pub fn config(&self) -> BlobsConfig {
        BlobsConfig {
            url: format!("s3://{BUCKET}/{PREFIX}?endpoint=http://{}", self.address),
            access_key_id: Some(ACCESS.into()),
            secret_access_key: Some(Secret(SECRET.into())),
            ca: None,
            adopt: false,
        }
    }

    /// Lines for a hub's configuration.
    pub fn text(&self) -> String {
        let config = self.config();
        format!(
            "[blobs]\nurl = {:?}\naccess_key_id = {ACCESS:?}\nsecret_access_key = {SECRET:?}\n",
            config.url
        )
    }

    /// The folder of the hub's objects, as the server keeps them.
    pub fn folder(&self) -> PathBuf {
        self.dir.path().join(BUCKET).join(PREFIX)
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.end();
    }
}
