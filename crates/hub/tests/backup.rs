//! A backup of a hub that is being written to, put back elsewhere: every commit acknowledged before is there, byte by byte.

mod common;

use common::{Hub, answer, file, header, large};
use opg_hub::{
    ModelHub,
    backup::{BackupError, backup, restore, verify},
    config::HubConfig,
    siwe::Scope,
};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let mut reader = blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof();
    reader.fill(&mut bytes);
    bytes
}

/// Commits a large and a small file; gives the commit.
async fn write(hub: &Hub, token: &str, id: &str, n: u64) -> String {
    let content = noise(n, 100_000 + (n as usize % 5) * 90_000);
    let oid = hub.upload(token, id, &content).await;
    let lines = [
        header(&n.to_string()),
        large(&format!("f{n}.bin"), &oid, content.len()),
        file(&format!("f{n}.txt"), &n.to_be_bytes()),
    ];
    let (status, answer) = hub.commit(token, id, &lines).await;
    assert_eq!(status, 200, "{answer}");
    answer["commitOid"].as_str().unwrap().to_owned()
}

fn config(dir: &Path) -> HubConfig {
    HubConfig::load(&dir.join("hub.toml")).unwrap()
}

/// A configuration over another data directory.
fn elsewhere(data: PathBuf) -> HubConfig {
    HubConfig::new(([127, 0, 0, 1], 0).into(), data)
}

/// Files below a directory.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap().flatten() {
        if entry.path().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_of_a_running_hub_has_all_that_was_acknowledged() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let hub = Arc::new(Hub::start(dir.path(), ""));
    let token = hub.token(1, Scope::Write).await.token;
    let id = hub.create(&token, "kept").await;
    let mut before = Vec::new();
    for n in 0..8 {
        before.push((n, write(&hub, &token, &id, n).await));
    }
    let target = out.path().join("backup");
    // Somebody writes all the time, before, while and after the backup is made.
    let writer = tokio::spawn({
        let (hub, token, id) = (Arc::clone(&hub), token.clone(), id.clone());
        async move {
            let mut done = Vec::new();
            for n in 8..40 {
                done.push((n, write(&hub, &token, &id, n).await));
            }
            done
        }
    });
    let run = |config: HubConfig, target: PathBuf| async move {
        tokio::task::spawn_blocking(move || backup(&config, &target))
            .await
            .unwrap()
    };
    let first = run(config(dir.path()), target.clone()).await.unwrap();
    assert!(first.copied >= 8 && first.summary.repositories == 1, "{first:?}");
    let during = writer.await.unwrap();
    verify(&target).unwrap();

    // What was there before the backup is in it, and the branch is one that existed.
    let data = out.path().join("restored");
    let restored = restore(&elsewhere(data.clone()), &target).unwrap();
    assert_eq!(restored.summary, first.summary);
    let second = ModelHub::start(elsewhere(data)).await.unwrap();
    let get = async |revision: &str, path: &str| {
        let url = format!("{}/{id}/resolve/{revision}/{path}", second.url());
        let response = reqwest::get(url).await.unwrap();
        (response.status().as_u16(), response.bytes().await.unwrap().to_vec())
    };
    for (n, commit) in &before {
        let content = noise(*n, 100_000 + (*n as usize % 5) * 90_000);
        assert_eq!(get(commit, &format!("f{n}.bin")).await, (200, content.clone()), "{n}");
        assert_eq!(get("main", &format!("f{n}.bin")).await, (200, content), "{n}");
        assert_eq!(get("main", &format!("f{n}.txt")).await.1, n.to_be_bytes());
    }
    let url = format!("{}/api/models/{id}/commits/main?limit=1000", second.url());
    let commits: serde_json::Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    let there: Vec<&str> = commits
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["id"].as_str().unwrap())
        .collect();
    let mut seen_all = true;
    for (n, commit) in &during {
        // Commits made meanwhile: an unbroken first part of them, with their bytes.
        let seen = there.contains(&commit.as_str());
        assert!(!seen || seen_all, "commit {n} is there, one before it is not");
        seen_all = seen;
        if seen {
            let content = noise(*n, 100_000 + (*n as usize % 5) * 90_000);
            assert_eq!(get(commit, &format!("f{n}.bin")).await, (200, content));
        }
    }
    // The tokens are those of the hub that was backed up.
    let who = reqwest::Client::new()
        .get(format!("{}/api/whoami-v2", second.url()))
        .bearer_auth(&token);
    assert_eq!(answer(who).await.0, 200);
    second.shutdown().await.unwrap();

    // The next backup into the same directory copies what is new.
    let again = run(config(dir.path()), target.clone()).await.unwrap();
    assert!(again.copied < again.summary.blobs - 8, "{again:?}");
    assert!(again.summary.blobs > first.summary.blobs || seen_all);
    let third = run(config(dir.path()), target.clone()).await.unwrap();
    assert_eq!(third.copied, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_waits_for_a_backup() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path(), "");
    let token = hub.token(1, Scope::Write).await.token;
    let id = hub.create(&token, "doomed").await;
    write(&hub, &token, &id, 1).await;
    let delete = hub
        .http
        .delete(hub.at("/api/repos/delete"))
        .bearer_auth(&token)
        .json(&json!({"name": "doomed"}));
    assert_eq!(answer(delete).await.0, 200);
    assert!(hub.terminate().success());
    let blobs = || files(&dir.path().join("data/blobs")).len();
    assert_eq!(blobs(), 1);
    let running = ModelHub::start(config(dir.path())).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    let store = opg_hub::blobs::BlobStore::attach(&dir.path().join("data")).unwrap();
    let kept = store.keep().unwrap();
    running.collect_garbage(0).await.unwrap();
    assert_eq!(blobs(), 1, "removed while a backup was being made");
    drop(kept);
    running.collect_garbage(0).await.unwrap();
    assert_eq!(blobs(), 0);
    running.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_a_whole_backup_is_refused() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let hub = Hub::start(dir.path(), "");
    let token = hub.token(1, Scope::Write).await.token;
    let id = hub.create(&token, "kept").await;
    write(&hub, &token, &id, 1).await;
    write(&hub, &token, &id, 2).await;
    let target = out.path().join("backup");
    let config = config(dir.path());
    backup(&config, &target).unwrap();
    let fresh = |name: &str| elsewhere(out.path().join(name));
    let blob = files(&target.join("blobs")).remove(0);

    // A changed byte in a blob, a missing blob.
    let content = fs::read(&blob).unwrap();
    let mut wrong = content.clone();
    wrong[77_777] ^= 1;
    fs::remove_file(&blob).unwrap();
    fs::write(&blob, &wrong).unwrap();
    let name = blob.file_name().unwrap().to_str().unwrap().to_owned();
    for error in [verify(&target).unwrap_err(), restore(&fresh("a"), &target).unwrap_err()] {
        assert!(
            matches!(&error, BackupError::Damaged { count: 1, first, .. } if *first == name),
            "{error}"
        );
    }
    fs::remove_file(&blob).unwrap();
    assert!(matches!(
        verify(&target).unwrap_err(),
        BackupError::Damaged { count: 1, .. }
    ));
    // A hub does not start on half a restoration, and restoring again finishes it.
    let start = ModelHub::start(fresh("a")).await.unwrap_err().to_string();
    assert!(start.contains("did not finish"), "{start}");
    fs::write(&blob, &content).unwrap();
    assert_eq!(restore(&fresh("a"), &target).unwrap().copied, 1);
    ModelHub::start(fresh("a")).await.unwrap().shutdown().await.unwrap();

    // A changed byte in the database; a backup that was not finished.
    let database = target.join("hub.sqlite");
    let content = fs::read(&database).unwrap();
    let mut wrong = content.clone();
    *wrong.last_mut().unwrap() ^= 1;
    fs::write(&database, &wrong).unwrap();
    for error in [verify(&target).unwrap_err(), restore(&fresh("b"), &target).unwrap_err()] {
        assert!(matches!(&error, BackupError::NoBackup { .. }), "{error}");
    }
    fs::write(&database, &content).unwrap();
    let manifest = target.join("backup.json");
    let text = fs::read(&manifest).unwrap();
    fs::remove_file(&manifest).unwrap();
    assert!(matches!(
        restore(&fresh("b"), &target).unwrap_err(),
        BackupError::NoBackup { .. }
    ));
    assert!(!out.path().join("b").exists(), "nothing is made for what is refused");
    fs::write(&manifest, text).unwrap();

    // Nothing is overwritten: not another hub's data, not somebody's folder, and a hub that runs least of all.
    assert!(matches!(
        restore(&fresh("a"), &target).unwrap_err(),
        BackupError::NotEmpty { .. }
    ));
    assert!(matches!(
        backup(&config, &out.path().join("a")).unwrap_err(),
        BackupError::NotEmpty { .. }
    ));
    assert!(matches!(
        backup(&config, &dir.path().join("data")).unwrap_err(),
        BackupError::NotEmpty { .. }
    ));
    assert!(matches!(
        backup(&fresh("none"), &target).unwrap_err(),
        BackupError::NoHub { .. }
    ));

    // A damaged blob of the hub itself is found, and the earlier backup stays what it was.
    let stored = files(&dir.path().join("data/blobs")).remove(0);
    let content = fs::read(&stored).unwrap();
    fs::remove_file(&stored).unwrap();
    fs::write(&stored, &content[..content.len() - 1]).unwrap();
    assert!(matches!(
        backup(&config, &out.path().join("second")).unwrap_err(),
        BackupError::Damaged { count: 1, .. }
    ));
    assert!(matches!(
        verify(&out.path().join("second")).unwrap_err(),
        BackupError::NoBackup { .. }
    ));
    verify(&target).unwrap();
}
