//! The `hf-hub` crate against a hub: by branch, tag and commit, from a private repository, and what it must not get.
//!
//! The client is built in a workspace of its own (`testing/hf-hub-interop`). Skipped, loudly, where no registry is reachable.

mod common;

use common::{Hub, answer, file, header, large};
use opg_hub::siwe::Scope;
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Builds the client.
fn client() -> Option<PathBuf> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testing/hf-hub-interop/Cargo.toml");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hf-hub-interop");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(&target)
        .status();
    if built.is_ok_and(|status| status.success()) {
        return Some(target.join("debug/hf-hub-interop"));
    }
    println!("SKIPPED: the client cannot be built; is a registry reachable?");
    None
}

fn run(client: &Path, hub: &Hub, home: &str, token: Option<&str>, arguments: &[&str]) -> Output {
    let mut command = Command::new(client);
    command
        .args(arguments)
        .env("HF_ENDPOINT", &hub.url)
        .env("HF_HOME", hub.dir.join(home))
        .env_remove("HF_TOKEN");
    if let Some(token) = token {
        command.env("HF_TOKEN", token);
    }
    command.output().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hf_hub_crate_downloads_every_byte() {
    let Some(client) = client() else { return };
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path(), "");
    let token = hub.token(1, Scope::Write).await.token;
    let id = hub.create(&token, "model").await;
    // Larger than the pieces that it asks for, by ranges.
    let mut content = vec![0; 12_000_000];
    blake3::Hasher::new()
        .update(b"hf-hub")
        .finalize_xof()
        .fill(&mut content);
    let oid = hub.upload(&token, &id, &content).await;
    let lines = [
        header("one"),
        large("weights/model.bin", &oid, content.len()),
        file("config.json", b"{\"a\": 1}"),
    ];
    let (status, first) = hub.commit(&token, &id, &lines).await;
    assert_eq!(status, 200, "{first}");
    let commit = first["commitOid"].as_str().unwrap();
    let tag = hub
        .post(
            &token,
            &format!("/api/models/{id}/tag/{commit}"),
            json!({"tag": "v1.0"}),
        )
        .await;
    assert_eq!(tag.0, 200, "{tag:?}");
    let second = [header("two"), file("config.json", b"{\"a\": 2}")];
    let head = hub.commit(&token, &id, &second).await.1["commitOid"]
        .as_str()
        .unwrap()
        .to_owned();

    for (revision, sha, config) in [
        ("main", head.as_str(), "{\"a\": 2}"),
        ("v1.0", commit, "{\"a\": 1}"),
        (commit, commit, "{\"a\": 1}"),
    ] {
        let done = run(
            &client,
            &hub,
            "hf",
            None,
            &[&id, revision, "config.json", "weights/model.bin"],
        );
        let text = String::from_utf8(done.stdout).unwrap();
        assert!(
            done.status.success(),
            "{revision}: {text}{}",
            String::from_utf8_lossy(&done.stderr)
        );
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
        assert_eq!(rows[0], ["commit", sha]);
        for name in ["config.json", "weights/model.bin"] {
            assert!(rows.contains(&vec!["sibling", name]), "{text}");
        }
        for row in rows.iter().filter(|row| row[0] == "file") {
            let got = std::fs::read(row[2]).unwrap();
            let expected = if row[1] == "config.json" {
                config.as_bytes()
            } else {
                &content
            };
            assert!(got == expected, "{revision} {}", row[1]);
            assert!(row[2].contains(&format!("snapshots/{sha}/")), "{text}");
        }
    }
    let missing = run(&client, &hub, "hf", None, &[&id, "main", "nothing.txt"]);
    assert!(!missing.status.success() && String::from_utf8_lossy(&missing.stderr).contains("404"));

    let settings = hub
        .http
        .put(hub.at(&format!("/api/models/{id}/settings")))
        .bearer_auth(&token);
    assert_eq!(answer(settings.json(&json!({"private": true}))).await.0, 200);
    assert!(
        !run(&client, &hub, "nobody", None, &[&id, "main", "config.json"])
            .status
            .success()
    );
    assert!(
        run(&client, &hub, "owner", Some(&token), &[&id, "main", "config.json"])
            .status
            .success()
    );
}
