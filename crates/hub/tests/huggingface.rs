//! Clients of other people against a hub, unmodified: `huggingface_hub` through every call of `python/suite.py`, with
//! bytes compared, and `transformers` with the small Llama of the fixtures (in the heavy run the whole model, with torch).
//!
//! Skipped, loudly, where there is no Python or no package registry.

mod common;

use common::{Hub, Place, python};
use opg_hub::siwe::Scope;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Runs a program against a hub of its own, as the account of ALICE.
async fn program(dir: &Place, python: &Path, name: &str, environment: &[(&str, &str)]) {
    let hub = Hub::start(dir.path(), "part_bytes = 5242880\nfile_bytes = 1073741824");
    let (alice, bob, reader) = (
        hub.token(1, Scope::Write).await,
        hub.token(2, Scope::Write).await,
        hub.token(1, Scope::Read).await,
    );
    let mut run = Command::new(python);
    run.arg(here("tests/python").join(name))
        .env("HF_ENDPOINT", &hub.url)
        .env("HF_HOME", dir.path().join("hf"))
        .env("HF_HUB_DISABLE_TELEMETRY", "1")
        .env("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        .env("HF_TOKEN", &alice.token)
        .env("ALICE", &alice.address)
        .env("BOB", &bob.address)
        .env("BOB_TOKEN", &bob.token)
        .env("READ_TOKEN", &reader.token)
        .env("FIXTURES", here("../../testing/fixtures"))
        .envs(environment.iter().copied());
    let status = tokio::task::spawn_blocking(move || run.status())
        .await
        .unwrap()
        .unwrap();
    let log = std::fs::read_to_string(dir.path().join("hub.log")).unwrap_or_default();
    assert!(status.success(), "{log}");
    let (status, _) = hub.get(None, "/health").await;
    assert_eq!(status, 200);
}

/// Uploads by the large file protocol, and by `hf_xet`, which a default installation takes.
async fn suite(place: fn() -> Option<Place>) {
    let Some(python) = python(&here("tests/python/requirements.txt")) else {
        return;
    };
    for xet in ["1", "0"] {
        if let Some(place) = place() {
            program(&place, &python, "suite.py", &[("HF_HUB_DISABLE_XET", xet)]).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn huggingface_hub_works_unmodified() {
    suite(Place::sqlite).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn huggingface_hub_works_with_postgres() {
    suite(Place::postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn huggingface_hub_works_with_a_bucket() {
    suite(Place::bucket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn transformers_loads_the_small_llama() {
    // Torch has gigabytes, so the model itself is loaded in the heavy run only.
    let heavy = std::env::var_os("OPG_HEAVY").is_some_and(|value| value == "1");
    let (pins, heavy) = if heavy {
        ("tests/python/heavy-requirements.txt", "1")
    } else {
        ("tests/python/requirements.txt", "0")
    };
    let Some(python) = python(&here(pins)) else { return };
    let place = Place::sqlite().unwrap();
    program(&place, &python, "transformers_check.py", &[("HEAVY", heavy)]).await;
}
