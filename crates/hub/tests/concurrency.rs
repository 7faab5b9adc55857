//! Many at once: commits on one parent, commits without a parent, large commits, and two processes on one directory.

mod common;

use common::{Hub, Place, file, header, on_all};
use opg_hub::{HubError, ModelHub, config::HubConfig, siwe::Scope};
use serde_json::{Value, json};
use std::sync::Arc;

async fn of_commits_on_one_parent_one_wins(dir: Place) {
    let hub = Arc::new(Hub::start(dir.path(), ""));
    let token = hub.token(1, Scope::Write).await.token;
    let id = hub.create(&token, "race").await;
    for round in 0..5 {
        let (_, info) = hub.get(None, &format!("/api/models/{id}")).await;
        let parent = info["sha"].as_str().unwrap().to_owned();
        let tasks: Vec<_> = (0..8)
            .map(|n| {
                let (hub, token, id, parent) = (Arc::clone(&hub), token.clone(), id.clone(), parent.clone());
                tokio::spawn(async move {
                    let head = json!({"key": "header", "value": {"summary": "race", "parentCommit": parent}});
                    let lines = [head, file(&format!("{round}-{n}.txt"), b"x")];
                    (n, hub.commit(&token, &id, &lines).await)
                })
            })
            .collect();
        let mut winners = Vec::new();
        for task in tasks {
            match task.await.unwrap() {
                (n, (200, answer)) => winners.push((n, answer["commitOid"].clone())),
                (_, (status, answer)) => assert_eq!((status, &answer["error"]["code"]), (412, &json!("StaleParent"))),
            }
        }
        assert_eq!(winners.len(), 1);
        let (_, after) = hub.get(None, &format!("/api/models/{id}")).await;
        assert_eq!(after["sha"], winners[0].1);
        let names: Vec<&str> = after["siblings"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|s| s["rfilename"].as_str())
            .collect();
        assert!(names.contains(&format!("{round}-{}.txt", winners[0].0).as_str()));
        assert_eq!(names.len(), round + 1);
    }
}

async fn commits_without_a_parent_all_count(dir: Place) {
    let hub = Arc::new(Hub::start(dir.path(), ""));
    let token = hub.token(1, Scope::Write).await.token;
    let id = hub.create(&token, "together").await;
    let tasks: Vec<_> = (0..12)
        .map(|n| {
            let (hub, token, id) = (Arc::clone(&hub), token.clone(), id.clone());
            tokio::spawn(async move {
                hub.commit(&token, &id, &[header("add"), file(&format!("{n}.txt"), b"x")])
                    .await
            })
        })
        .collect();
    for task in tasks {
        let (status, answer) = task.await.unwrap();
        assert_eq!(status, 200, "{answer}");
    }
    let (_, info) = hub.get(None, &format!("/api/models/{id}")).await;
    assert_eq!(info["siblings"].as_array().unwrap().len(), 12);
    let (_, commits) = hub.get(None, &format!("/api/models/{id}/commits/main")).await;
    assert_eq!(commits.as_array().unwrap().len(), 13);
}

async fn ten_thousand_files_are_one_commit(dir: Place) {
    let hub = Hub::start(dir.path(), "");
    let token = hub.token(1, Scope::Write).await.token;
    let id = hub.create(&token, "many").await;
    let files = (0..10_000).map(|n| file(&format!("d{}/{n:05}.txt", n % 17), format!("content of {n}").as_bytes()));
    let lines: Vec<Value> = std::iter::once(header("all")).chain(files).collect();
    let started = std::time::Instant::now();
    let (status, answer) = hub.commit(&token, &id, &lines).await;
    println!("10,000 files in one commit: {:?}", started.elapsed());
    assert_eq!(status, 200, "{answer}");
    assert_eq!(hub.bytes(&id, "main", "d4/09999.txt").await.0, 404);
    assert_eq!(
        hub.bytes(&id, "main", &format!("d{}/09999.txt", 9999 % 17)).await.1,
        b"content of 9999"
    );
    let (_, info) = hub.get(None, &format!("/api/models/{id}")).await;
    assert_eq!(info["siblings"].as_array().unwrap().len(), 10_000);
}

#[tokio::test]
async fn one_process_has_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    let hub = Hub::start(dir.path(), "");
    let config = HubConfig::load(&dir.path().join("hub.toml")).unwrap();
    assert!(matches!(
        ModelHub::start(config.clone()).await,
        Err(HubError::Locked { .. })
    ));
    assert!(hub.terminate().success());
    ModelHub::start(config).await.unwrap().shutdown().await.unwrap();
}

on_all!(
    of_commits_on_one_parent_one_wins,
    commits_without_a_parent_all_count,
    ten_thousand_files_are_one_commit
);
