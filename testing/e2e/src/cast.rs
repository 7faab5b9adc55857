//! Foundry's `cast`, a wallet of other people's making.

use crate::CommandOutput;
use serde_json::Value;
use std::{path::PathBuf, process::Command};

/// The `cast` that `testing/e2e/wallets/package-lock.json` names, talking to one node.
#[derive(Debug)]
pub struct Cast {
    binary: PathBuf,
    rpc: String,
}

impl Cast {
    /// `None`, said loudly, where the npm package is not installed: no build for this platform, no Node.js, or no registry
    /// within reach when `cargo xtask test` tried.
    pub fn find(rpc: &str) -> Option<Self> {
        let packages = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("wallets/node_modules/@foundry-rs");
        let binary = packages.join("cast-linux-amd64/bin/cast");
        if !binary.is_file() {
            eprintln!("SKIPPED: `cast` is not installed (npm ci --ignore-scripts in testing/e2e/wallets)");
            return None;
        }
        Some(Self {
            binary,
            rpc: rpc.into(),
        })
    }

    /// Runs `cast ARGS` to its end.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> CommandOutput {
        let out = Command::new(&self.binary)
            .args(args)
            .env("ETH_RPC_URL", &self.rpc)
            // cast looks for configuration there; a user's must not count
            .env("HOME", std::env::temp_dir())
            .env("FOUNDRY_DISABLE_NIGHTLY_WARNING", "1")
            .output()
            .expect("cast starts");
        CommandOutput {
            status: out.status,
            stdout: String::from_utf8_lossy(&out.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&out.stderr).into_owned(),
        }
    }

    /// Standard output of a command that must succeed.
    #[track_caller]
    pub fn text(&self, args: &[&str]) -> String {
        self.run(args).expect_code(0).stdout.trim().to_owned()
    }

    /// The JSON document that a command with `--json` prints.
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        self.run(args).expect_code(0).json()
    }
}
