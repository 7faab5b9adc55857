//! What is particular to a hub with its blobs in a bucket: whose bucket it is, a server that goes away, objects that are
//! damaged, and large files in bounded memory. What any hub does is tested with a bucket elsewhere (`mod bucket`).

mod common;

use common::{Hub, Place, answer, file, header, large};
use opg_hub::{
    HubError, ModelHub,
    backup::{BackupError, backup},
    blobs::{BlobError, describe},
    config::HubConfig,
    siwe::Scope,
};
use serde_json::{Value, json};
use std::{fs, sync::Arc, time::Duration};

fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let mut reader = blake3::Hasher::new().update(&seed.to_be_bytes()).finalize_xof();
    reader.fill(&mut bytes);
    bytes
}

async fn link(hub: &Hub, token: &str, id: &str, content: &[u8]) -> (String, String) {
    let oid = hex::encode(describe(content).sha256);
    let (status, object) = hub.batch(token, id, (&oid, content.len() as u64), &["basic"]).await;
    assert_eq!(status, 200, "{object}");
    let link = object["actions"]["upload"]["href"].as_str();
    (oid, link.unwrap().to_owned())
}

/// Uploads and commits a file.
async fn add(hub: &Hub, token: &str, id: &str, path: &str, content: &[u8]) -> (u16, Value) {
    let (oid, link) = link(hub, token, id, content).await;
    let (status, sent) = answer(hub.http.put(link).body(content.to_vec())).await;
    if status != 200 {
        return (status, sent);
    }
    hub.commit(token, id, &[header("x"), large(path, &oid, content.len())])
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_has_one_hub() {
    let Some(place) = Place::bucket() else { return };
    let hub = Hub::start(place.path(), "");
    let token = hub.token(1, Scope::Write).await.token;
    let id = hub.create(&token, "repo").await;
    let content = noise(1, 300_000);
    assert_eq!(add(&hub, &token, &id, "a.bin", &content).await.0, 200);
    // A hub with another database: it would take all of this for garbage.
    let other = place.config(place.path().join("other"));
    let refused = ModelHub::start(other.clone()).await.unwrap_err();
    assert!(
        matches!(refused, HubError::Blobs(BlobError::Foreign { .. })),
        "{refused}"
    );
    assert!(refused.to_string().contains("belongs to another hub"), "{refused}");
    assert!(hub.terminate().success());

    // A copy of the database begins to use the bucket, and the hub it was copied from does not start beside it.
    let copy = place.path().join("copy");
    fs::create_dir(&copy).unwrap();
    fs::copy(place.path().join("data/hub.sqlite"), copy.join("hub.sqlite")).unwrap();
    let copied = ModelHub::start(place.config(copy.clone())).await.unwrap();
    let config = HubConfig::load(&place.path().join("hub.toml")).unwrap();
    let refused = ModelHub::start(config.clone()).await.unwrap_err();
    assert!(refused.to_string().contains("blobs.adopt"), "{refused}");
    // It may take the bucket over, and then the copy, which still runs, removes nothing any more.
    let mut adopting = config.clone();
    adopting.blobs.as_mut().unwrap().adopt = true;
    let adopted = ModelHub::start(adopting).await.unwrap();
    let orphan = place.blobs().join("ab/cd");
    fs::create_dir_all(&orphan).unwrap();
    let orphan = orphan.join(format!("abcd{}", "0".repeat(60)));
    fs::write(&orphan, b"orphan").unwrap();
    // (The other one collects when it starts, too, so the file may be gone at any time.)
    assert!(copied.collect_garbage(0).await.is_err());
    adopted.collect_garbage(0).await.unwrap();
    assert!(!orphan.exists());
    adopted.shutdown().await.unwrap();
    copied.shutdown().await.unwrap();
    // The one that used it last starts again as ever.
    ModelHub::start(config.clone()).await.unwrap().shutdown().await.unwrap();

    // Blobs without a marker are somebody's, and this database's bucket is not an empty one.
    let marker = place.bucket.as_ref().unwrap().folder().join("hub.json");
    let text = fs::read(&marker).unwrap();
    fs::remove_file(&marker).unwrap();
    for config in [config.clone(), other.clone()] {
        let refused = ModelHub::start(config).await.unwrap_err().to_string();
        assert!(refused.contains("no hub.json"), "{refused}");
    }
    fs::write(&marker, text).unwrap();
    let mut elsewhere = config.clone();
    let blobs = elsewhere.blobs.as_mut().unwrap();
    blobs.url = blobs.url.replace("a/hub", "b/hub");
    let refused = ModelHub::start(elsewhere).await.unwrap_err().to_string();
    assert!(refused.contains("another bucket"), "{refused}");
    // Wrong keys, no bucket: said at the start.
    let mut wrong = config.clone();
    wrong.blobs.as_mut().unwrap().secret_access_key = Some(opg_hub::config::Secret("wrong-secret".into()));
    let refused = ModelHub::start(wrong).await.unwrap_err();
    assert!(
        !format!("{refused} {refused:?}").contains("wrong-secret"),
        "{refused:?}"
    );
    let mut none = config.clone();
    let blobs = none.blobs.as_mut().unwrap();
    blobs.url = blobs.url.replace("s3://models", "s3://nowhere");
    assert!(ModelHub::start(none).await.is_err());
    // A backup of half the data is none.
    let refused = backup(&config, &place.path().join("backup")).unwrap_err();
    assert!(matches!(refused, BackupError::Elsewhere { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_objects_are_noticed_on_their_way() {
    let Some(place) = Place::bucket() else { return };
    let hub = Hub::start(place.path(), "");
    let token = hub.token(1, Scope::Write).await.token;
    let id = hub.create(&token, "repo").await;
    // One that is uploaded in one request, one in parts.
    for (n, size) in [(1, 700_000), (2, 20_000_000)] {
        let content = noise(n, size);
        assert_eq!(add(&hub, &token, &id, "a.bin", &content).await.0, 200);
        assert_eq!(hub.bytes(&id, "main", "a.bin").await, (200, content.clone()));
        let range = hub.http.get(hub.at(&format!("/{id}/resolve/main/a.bin")));
        let part = range.header("range", "bytes=600000-650000").send().await.unwrap();
        assert_eq!(part.status(), 206);
        assert!(part.bytes().await.unwrap() == content[600_000..=650_000]);
        let oid = hex::encode(describe(&content).sha256);
        let stored = place.blobs().join(&oid[..2]).join(&oid[2..4]).join(&oid);
        assert!(fs::read(&stored).unwrap() == content);
        // A changed byte, a missing end, nothing at all.
        let mut wrong = content.clone();
        wrong[size / 2] ^= 1;
        for damaged in [wrong, content[..size - 1].to_vec()] {
            fs::write(&stored, damaged).unwrap();
            let response = hub
                .http
                .get(hub.at(&format!("/{id}/resolve/main/a.bin")))
                .send()
                .await
                .unwrap();
            assert!(response.bytes().await.is_err());
        }
        fs::remove_file(&stored).unwrap();
        assert_eq!(hub.bytes(&id, "main", "a.bin").await.0, 503);
        fs::write(&stored, &content).unwrap();
    }
    let metrics = hub.metrics().await;
    assert!(metrics.contains("opg_hub_damaged_reads_total 4"), "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_goes_away_loses_nothing_and_is_found_again() {
    let Some(mut place) = Place::bucket() else { return };
    let hub = Arc::new(Hub::start(place.path(), ""));
    let token = hub.token(1, Scope::Write).await.token;
    let id = hub.create(&token, "repo").await;
    let kept = noise(1, 30_000_000);
    assert_eq!(add(&hub, &token, &id, "kept.bin", &kept).await.0, 200);

    // In the middle of a download: it breaks off, and is never a short file that looks whole.
    let url = hub.at(&format!("/{id}/resolve/main/kept.bin"));
    let mut response = hub.http.get(&url).send().await.unwrap();
    let first = response.chunk().await.unwrap().unwrap();
    assert!(kept.starts_with(&first));
    place.bucket.as_mut().unwrap().end();
    let rest = async {
        while response.chunk().await?.is_some() {}
        Ok::<_, reqwest::Error>(())
    };
    let cut = tokio::time::timeout(Duration::from_secs(100), rest).await.unwrap();
    assert!(cut.is_err());

    // While it is away: small files are in the database, others are refused with a clear answer, nothing is committed.
    assert_eq!(
        hub.commit(&token, &id, &[header("x"), file("small.txt", b"small")])
            .await
            .0,
        200
    );
    assert_eq!(hub.bytes(&id, "main", "small.txt").await, (200, b"small".to_vec()));
    let lost = noise(2, 20_000_000);
    let (status, refusal) = add(&hub, &token, &id, "lost.bin", &lost).await;
    assert_eq!(
        (status, &refusal["error"]["code"]),
        (503, &json!("StoreUnavailable")),
        "{refusal}"
    );

    // In the middle of an upload: it stops for a moment, dies, and comes back.
    place.bucket.as_mut().unwrap().run();
    let pid = place.bucket.as_ref().unwrap().pid().to_string();
    let upload = tokio::spawn({
        let (hub, token, id, content) = (Arc::clone(&hub), token.clone(), id.clone(), noise(3, 60_000_000));
        async move { add(&hub, &token, &id, "during.bin", &content).await }
    });
    tokio::time::sleep(Duration::from_millis(400)).await;
    let stop = std::process::Command::new("kill")
        .args(["-STOP", &pid])
        .status()
        .unwrap();
    assert!(stop.success());
    tokio::time::sleep(Duration::from_millis(300)).await;
    place.bucket.as_mut().unwrap().end();
    place.bucket.as_mut().unwrap().run();
    let (status, done) = upload.await.unwrap();
    // Whichever part was on its way: the whole file is there and was acknowledged, or it was refused and is not.
    let expected = if status == 200 {
        (200, noise(3, 60_000_000))
    } else {
        assert_eq!(
            (status, &done["error"]["code"]),
            (503, &json!("StoreUnavailable")),
            "{done}"
        );
        assert_eq!(hub.bytes(&id, "main", "during.bin").await.0, 404);
        assert_eq!(add(&hub, &token, &id, "during.bin", &noise(3, 60_000_000)).await.0, 200);
        (200, noise(3, 60_000_000))
    };
    assert!(hub.bytes(&id, "main", "during.bin").await == expected);
    assert!(hub.bytes(&id, "main", "kept.bin").await == (200, kept));
    assert_eq!(add(&hub, &token, &id, "lost.bin", &lost).await.0, 200);
    assert!(hub.bytes(&id, "main", "lost.bin").await == (200, lost));
    let staged = fs::read_dir(place.path().join("data/incoming")).unwrap().count();
    assert_eq!(staged, 0);
}

/// Largest resident memory that a process has had, MiB.
#[cfg(target_os = "linux")]
fn peak(pid: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

/// A file much larger than what the hub may hold in memory; in the heavy run 2 GB.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn memory_does_not_grow_with_files() {
    use futures::StreamExt as _;
    use sha2::{Digest as _, Sha256};
    let Some(place) = Place::bucket() else { return };
    let hub = Hub::start(place.path(), "");
    let token = hub.token(1, Scope::Write).await.token;
    let id = hub.create(&token, "repo").await;
    let heavy = std::env::var_os("OPG_HEAVY").is_some_and(|value| value == "1");
    let (block, count) = (noise(9, 1 << 20), if heavy { 2_000u64 } else { 300 });
    let mut hasher = Sha256::new();
    for _ in 0..count {
        hasher.update(&block);
    }
    let (oid, size) = (hex::encode(hasher.finalize()), block.len() as u64 * count);
    let (_, object) = hub.batch(&token, &id, (&oid, size), &["basic"]).await;
    let link = object["actions"]["upload"]["href"].as_str().unwrap();
    let block = bytes::Bytes::from(block);
    let pieces = futures::stream::iter((0..count).map(move |_| Ok::<_, std::io::Error>(block.clone())));
    let upload = hub.http.put(link).header("content-length", size);
    let (status, sent) = answer(upload.body(reqwest::Body::wrap_stream(pieces))).await;
    assert_eq!(status, 200, "{sent}");
    let line = json!({"key": "lfsFile", "value": {"path": "big.bin", "algo": "sha256", "oid": oid, "size": size}});
    assert_eq!(hub.commit(&token, &id, &[header("x"), line]).await.0, 200);
    let mut got = Sha256::new();
    let response = hub
        .http
        .get(hub.at(&format!("/{id}/resolve/main/big.bin")))
        .send()
        .await
        .unwrap();
    let mut stream = response.bytes_stream();
    while let Some(piece) = stream.next().await {
        got.update(piece.unwrap());
    }
    assert_eq!(hex::encode(got.finalize()), oid);
    let peak = peak(&hub.pid());
    println!("{size} bytes up and down: at most {peak} MiB resident");
    assert!(peak < 200, "{peak} MiB");
}
