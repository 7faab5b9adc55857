//! Verified ranges of a hub's files, as inference nodes and `opg models pull` take them.

mod common;

use common::{Hub, file, header, large, model};
use opg_hub::{blobs::describe, siwe::Scope};
use opg_model_store::{
    Cache, Fetcher, Outcome, Report, Source, SourceKind, Wanted, fetch_file,
    ranges::{MEDIA_TYPE, Span, decode},
};
use opg_models::{Format, Manifest, ManifestVersion, ModelRoot};
use std::{
    path::Path,
    sync::{Arc, Mutex},
};

/// A hub with a model, and its repository.
async fn hub(dir: &Path) -> (Hub, String) {
    let hub = Hub::start(dir, "");
    let token = hub.token(1, Scope::Write).await.token;
    let id = hub.create(&token, "repo").await;
    let content = model();
    let oid = hub.upload(&token, &id, &content).await;
    let lines = [
        header("x"),
        large("tiny.gguf", &oid, content.len()),
        file("small.txt", b"small"),
    ];
    assert_eq!(hub.commit(&token, &id, &lines).await.0, 200);
    (hub, id)
}

async fn fetch(hub: &Hub, id: &str, root: ModelRoot, dir: &Path) -> (Option<Vec<u8>>, Vec<Report>) {
    let source = Source::new(SourceKind::Hub, &hub.at("")).unwrap();
    let cache = Arc::new(Cache::open(dir, 64 << 20).unwrap());
    let wanted = Wanted {
        root,
        repository: id.to_owned(),
        revision: None,
        file: None,
    };
    let reports = Mutex::new(Vec::new());
    let got = Fetcher::new(reqwest::Client::new(), cache, vec![source])
        .get(&wanted, &|report: &Report| reports.lock().unwrap().push(report.clone()))
        .await;
    let got = got.ok().map(|cached| {
        assert_eq!(cached.manifest.root().unwrap(), root);
        std::fs::read(cached.path).unwrap()
    });
    (got, reports.into_inner().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_comes_in_ranges_or_whole_as_its_root_commits() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, id) = hub(dir.path()).await;
    let content = model();
    for (version, ranges) in [(ManifestVersion::V2, true), (ManifestVersion::V1, false)] {
        let root = Manifest::single(version, Format::Gguf, &content).root().unwrap();
        let cache = tempfile::tempdir().unwrap();
        let (got, reports) = fetch(&hub, &id, root, cache.path()).await;
        assert!(got.unwrap() == content);
        assert_eq!(reports[0].outcome, Outcome::Whole);
        // The hashes are 0.4 % on top.
        assert_eq!(reports[0].bytes > content.len() as u64, ranges, "{reports:?}");
        let (_, said) = hub.get(None, &format!("/api/opg/models/{id}/root?root={root}")).await;
        assert_eq!(said["root"], root.to_string());
        assert_eq!(said["manifest"]["version"], version.code());
        assert_eq!(said["roots"][version.code().to_string()], root.to_string());
    }
    // Without being asked for one, the newest.
    let (_, said) = hub.get(None, &format!("/api/opg/models/{id}/root")).await;
    assert_eq!(said["manifest"]["version"], ManifestVersion::NEWEST.code());
    // One file by its URL, as `opg models pull` has it; also one that the hub keeps in its database.
    for (name, content) in [("tiny.gguf", content), ("small.txt", b"small".to_vec())] {
        let entry = Manifest::single(ManifestVersion::V2, Format::Gguf, &content)
            .files
            .remove(0);
        let url = hub.at(&format!("/{id}/resolve/main/{name}"));
        let to = dir.path().join("got");
        let bytes = fetch_file(&hub.http, &url, &entry, &to).await.unwrap();
        assert!(std::fs::read(&to).unwrap() == content);
        let whole = Span::covering(0, entry.size, entry.size).unwrap();
        assert_eq!(bytes, whole.encoded_length(entry.size));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_for_ranges_are_bounded_and_answered_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, id) = hub(dir.path()).await;
    let (content, url) = (model(), hub.at(&format!("/{id}/resolve/main/tiny.gguf")));
    let (size, blob) = (content.len() as u64, describe(&content));
    let asked = hub.http.get(&url).header("range", "bao-blake3=100000-200000");
    let response = asked.send().await.unwrap();
    assert_eq!(response.status(), 206);
    let span = Span::covering(100_000, 200_001, size).unwrap();
    let said = |name: &str| response.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(said("content-type"), MEDIA_TYPE);
    assert_eq!(said("content-range"), span.content_range(size));
    assert_eq!(said("content-length"), span.encoded_length(size).to_string());
    let body = response.bytes().await.unwrap();
    let (mut data, mut hashes) = (vec![0; content.len()], Vec::new());
    decode(blob.blake3, size, span, body.as_ref(), &mut data, &mut hashes, |_| ()).unwrap();
    let (start, end) = (span.start() as usize, span.end() as usize);
    assert!(data[start..end] == content[start..end]);
    // Nothing but the head, and what cannot be had.
    let head = hub
        .http
        .head(&url)
        .header("range", "bao-blake3=0-0")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (head.status().as_u16(), &head.headers()["content-length"]),
        // One group and the hashes above it.
        (206, &Span::covering(0, 1, size).unwrap().encoded_length(size).into())
    );
    for range in [
        format!("bao-blake3={size}-{size}"),
        "bao-blake3=1-0".into(),
        "bao-blake3=x".into(),
    ] {
        let refused = hub.http.get(&url).header("range", &range).send().await.unwrap();
        assert_eq!(refused.status(), 416, "{range}");
    }
    // Units that nobody knows are ignored.
    let other = hub.http.get(&url).header("range", "bao-sha9=0-1").send().await.unwrap();
    assert_eq!((other.status().as_u16(), other.content_length()), (200, Some(size)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_byte_on_disk_is_not_sent_and_blames_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let (hub, id) = hub(dir.path()).await;
    let content = model();
    let oid = hex::encode(describe(&content).sha256);
    let root = Manifest::single(ManifestVersion::V2, Format::Gguf, &content)
        .root()
        .unwrap();
    let data = dir.path().join("data");
    let blob = data.join("blobs").join(&oid[..2]).join(&oid[2..4]).join(&oid);
    let outboard = data.join("outboards").join(&oid[..2]).join(&oid);
    // Made when the file was committed, or now.
    let cache = tempfile::tempdir().unwrap();
    assert!(fetch(&hub, &id, root, cache.path()).await.0.is_some());
    let good = std::fs::read(&outboard).unwrap();
    let damage = |at: usize| {
        let mut bytes = content.clone();
        bytes[at] ^= 1;
        std::fs::remove_file(&blob).unwrap();
        std::fs::write(&blob, bytes).unwrap();
    };
    damage(content.len() - 1);
    let cache = tempfile::tempdir().unwrap();
    let (got, reports) = fetch(&hub, &id, root, cache.path()).await;
    assert!(got.is_none());
    assert_eq!(reports[0].outcome, Outcome::Failed, "{reports:?}");
    let come = reports[0].bytes;
    // All but the damaged group was sent; what had not been read when the connection broke is lost with it.
    assert!(come * 2 > content.len() as u64, "{come} bytes have come");
    // Repaired, the hub sends the rest.
    std::fs::write(&blob, &content).unwrap();
    let (got, reports) = fetch(&hub, &id, root, cache.path()).await;
    let missing = content.len() as u64 - come.min(content.len() as u64);
    assert!(
        got.unwrap() == content && reports[0].bytes < missing + 40_000,
        "{reports:?}"
    );
    // A damaged hash tree is made again.
    let mut bad = good.clone();
    bad[0] ^= 1;
    std::fs::write(&outboard, &bad).unwrap();
    let cache = tempfile::tempdir().unwrap();
    assert!(fetch(&hub, &id, root, cache.path()).await.0.unwrap() == content);
    assert!(std::fs::read(&outboard).unwrap() == good);
}
