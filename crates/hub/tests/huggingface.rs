//! The real `huggingface_hub` of PyPI against a hub: every call of `python/suite.py`, with bytes compared.
//!
//! Skipped, loudly, where there is no Python or no package registry.

mod common;

use common::Hub;
use opg_hub::siwe::Scope;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A virtual environment with the pinned packages, made once per target directory.
fn environment() -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/requirements.txt");
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("huggingface-venv");
    let done = venv.join("installed.txt");
    let pins = std::fs::read_to_string(&here).unwrap();
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == pins) {
        return Some(venv.join("bin/python"));
    }
    let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).status();
    if !made.is_ok_and(|status| status.success()) {
        println!("SKIPPED: python3 -m venv does not work here");
        return None;
    }
    let python = venv.join("bin/python");
    let installed = Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(&here)
        .status();
    if !installed.is_ok_and(|status| status.success()) {
        println!(
            "SKIPPED: the packages of {} cannot be installed; is a registry reachable?",
            here.display()
        );
        return None;
    }
    std::fs::write(done, pins).unwrap();
    Some(python)
}

#[tokio::test(flavor = "multi_thread")]
async fn huggingface_hub_works_unmodified() {
    let Some(python) = environment() else { return };
    // Uploads by the large file protocol, and by `hf_xet`, which a default installation takes.
    suite(&python, false).await;
    suite(&python, true).await;
}

async fn suite(python: &Path, xet: bool) {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path(), "part_bytes = 5242880\nfile_bytes = 1073741824");
    let (alice, bob, reader) = (
        hub.token(1, Scope::Write).await,
        hub.token(2, Scope::Write).await,
        hub.token(1, Scope::Read).await,
    );
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/suite.py");
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testing/fixtures");
    let mut run = Command::new(python);
    run.arg(suite)
        .env("HF_ENDPOINT", &hub.url)
        .env("HF_HOME", dir.path().join("hf"))
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .env("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        .env("HF_TOKEN", &alice.token)
        .env("ALICE", &alice.address)
        .env("BOB", &bob.address)
        .env("BOB_TOKEN", &bob.token)
        .env("READ_TOKEN", &reader.token)
        .env("FIXTURES", fixtures)
        .env("HF_HUB_DISABLE_XET", if xet { "0" } else { "1" });
    let status = tokio::task::spawn_blocking(move || run.status())
        .await
        .unwrap()
        .unwrap();
    let log = std::fs::read_to_string(dir.path().join("hub.log")).unwrap_or_default();
    assert!(status.success(), "{log}");
    let (status, _) = hub.get(None, "/health").await;
    assert_eq!(status, 200);
}
