//! The process is killed (SIGKILL) while it works: after a restart everything that was acknowledged is there, byte by
//! byte, nothing half-written is, and garbage is collected.

mod common;

use common::{Hub, Place, answer, file, header, large, on_all};
use opg_hub::{ModelHub, blobs::describe, config::HubConfig, siwe::Scope};
use serde_json::json;
use std::{sync::Arc, time::Duration};

fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let mut reader = blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof();
    reader.fill(&mut bytes);
    bytes
}

async fn upload(hub: &Hub, token: &str, id: &str, content: Vec<u8>) -> Result<String, reqwest::Error> {
    let oid = hex::encode(describe(&content).sha256);
    let body = json!({"operation": "upload", "transfers": ["basic"], "objects": [{"oid": oid, "size": content.len()}]});
    let url = hub.at(&format!("/{id}.git/info/lfs/objects/batch"));
    let batch: serde_json::Value = hub
        .http
        .post(url)
        .bearer_auth(token)
        .json(&body)
        .send()
        .await?
        .json()
        .await?;
    let link = batch["objects"][0]["actions"]["upload"]["href"]
        .as_str()
        .map(str::to_owned);
    if let Some(link) = link {
        hub.http.put(link).body(content).send().await?.error_for_status()?;
    }
    Ok(oid)
}

async fn what_was_acknowledged_survives_sigkill(dir: Place) {
    let mut acknowledged: Vec<(String, String, Vec<u8>)> = Vec::new();
    let first = Hub::start(dir.path(), "");
    let token = first.token(1, Scope::Write).await.token;
    let id = first.create(&token, "crash").await;
    let mut hub = Some(Arc::new(first));
    for round in 0..6u64 {
        let running = hub.take().unwrap_or_else(|| Arc::new(Hub::start(dir.path(), "")));
        let work = tokio::spawn({
            let (hub, token, id) = (Arc::clone(&running), token.clone(), id.clone());
            async move {
                let mut done = Vec::new();
                for n in 0..1000u64 {
                    let content = noise(round * 1000 + n, 100_000 + (n as usize % 7) * 150_000);
                    let path = format!("r{round}/f{n}.bin");
                    let Ok(oid) = upload(&hub, &token, &id, content.clone()).await else {
                        break;
                    };
                    let small = file(&format!("r{round}/f{n}.txt"), path.as_bytes());
                    let lines = [header(&path), large(&path, &oid, content.len()), small];
                    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
                    let url = hub.at(&format!("/api/models/{id}/commit/main"));
                    let Ok(response) = hub.http.post(url).bearer_auth(&token).body(body).send().await else {
                        break;
                    };
                    let Ok(answer) = response.error_for_status() else { break };
                    let Ok(answer) = answer.json::<serde_json::Value>().await else {
                        break;
                    };
                    done.push((answer["commitOid"].as_str().unwrap().to_owned(), path, content));
                }
                done
            }
        });
        // Another moment each time.
        tokio::time::sleep(Duration::from_millis(300 + round * 137)).await;
        let pid = running.pid();
        assert!(
            std::process::Command::new("kill")
                .args(["-KILL", &pid])
                .status()
                .unwrap()
                .success()
        );
        acknowledged.extend(work.await.unwrap());
        Arc::try_unwrap(running).ok().unwrap().kill();
    }
    assert!(acknowledged.len() > 6, "{}", acknowledged.len());

    let hub = Hub::start(dir.path(), "");
    for (commit, path, content) in &acknowledged {
        assert_eq!(
            hub.bytes(&id, commit, path).await,
            (200, content.clone()),
            "{commit} {path}"
        );
        assert_eq!(hub.bytes(&id, "main", path).await.1, *content, "{path}");
        let text = path.replace(".bin", ".txt");
        assert_eq!(hub.bytes(&id, "main", &text).await.1, path.as_bytes());
    }
    // The history is one chain from the head to the first commit.
    let (_, refs) = hub.get(None, &format!("/api/models/{id}/refs")).await;
    let (_, commits) = hub
        .get(None, &format!("/api/models/{id}/commits/main?limit=1000"))
        .await;
    let commits = commits.as_array().unwrap();
    assert_eq!(commits[0]["id"], refs["branches"][0]["targetCommit"]);
    assert_eq!(commits.last().unwrap()["title"], "initial commit");
    for (commit, _, _) in &acknowledged {
        assert!(commits.iter().any(|c| c["id"] == commit.as_str()));
    }
    assert_eq!(std::fs::read_dir(dir.path().join("data/incoming")).unwrap().count(), 0);
    assert!(hub.terminate().success());
}

async fn garbage_is_collected_and_nothing_else(dir: Place) {
    let hub = Hub::start(dir.path(), "");
    let token = hub.token(1, Scope::Write).await.token;
    let (kept, doomed) = (hub.create(&token, "kept").await, hub.create(&token, "doomed").await);
    let (shared, lost, loose) = (noise(1, 200_000), noise(2, 200_000), noise(3, 200_000));
    for (id, content) in [(&kept, &shared), (&doomed, &shared), (&doomed, &lost)] {
        let oid = upload(&hub, &token, id, content.clone()).await.unwrap();
        let lines = [
            header("x"),
            large(&format!("{}.bin", &oid[..8]), &oid, content.len()),
            file("d/s.txt", &content[..50]),
        ];
        assert_eq!(hub.commit(&token, id, &lines).await.0, 200);
    }
    let old = hub
        .commit(&token, &kept, &[header("gone"), file("old.txt", b"old")])
        .await
        .1["commitOid"]
        .as_str()
        .unwrap()
        .to_owned();
    let gone = json!({"key": "deletedFile", "value": {"path": "old.txt"}});
    assert_eq!(hub.commit(&token, &kept, &[header("delete"), gone]).await.0, 200);
    upload(&hub, &token, &kept, loose.clone()).await.unwrap();
    let delete = hub
        .http
        .delete(hub.at("/api/repos/delete"))
        .bearer_auth(&token)
        .json(&json!({"name": "doomed"}));
    assert_eq!(answer(delete).await.0, 200);
    assert!(hub.terminate().success());
    let blobs = || {
        let mut names = Vec::new();
        for a in std::fs::read_dir(dir.blobs()).unwrap().flatten() {
            for b in std::fs::read_dir(a.path()).unwrap().flatten() {
                names.extend(
                    std::fs::read_dir(b.path())
                        .unwrap()
                        .flatten()
                        .map(|e| e.file_name().into_string().unwrap()),
                );
            }
        }
        names.sort();
        names
    };
    // A file that a crash left without a row.
    let orphan = dir.blobs().join("ab/cd");
    std::fs::create_dir_all(&orphan).unwrap();
    std::fs::write(orphan.join(format!("abcd{}", "0".repeat(60))), b"orphan").unwrap();

    let config = HubConfig::load(&dir.path().join("hub.toml")).unwrap();
    let running = ModelHub::start(config).await.unwrap();
    // The fresh upload without a commit is not garbage yet; what only the deleted repository had may not be either.
    running.collect_garbage(1).await.unwrap();
    assert_eq!(blobs().len(), 3);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let done = running.collect_garbage(0).await.unwrap();
    assert!(done.blobs >= 3, "{done:?}");
    assert_eq!(blobs(), [hex::encode(describe(&shared).sha256)]);
    let get = async |revision: &str, path: &str| {
        let url = format!("{}/{kept}/resolve/{revision}/{path}", running.url());
        reqwest::get(url).await.unwrap().bytes().await.unwrap().to_vec()
    };
    let name = format!("{}.bin", &hex::encode(describe(&shared).sha256)[..8]);
    assert_eq!(get("main", &name).await, shared);
    // A deleted file of an old revision is still there: revisions are immutable.
    assert_eq!(get(&old, "old.txt").await, b"old");
    running.shutdown().await.unwrap();
}

on_all!(
    what_was_acknowledged_survives_sigkill,
    garbage_is_collected_and_nothing_else
);
