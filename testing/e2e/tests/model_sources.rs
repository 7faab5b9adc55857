//! An inference node gets its models from sources that nobody trusts: a peer that lies, a hub whose disk has changed a byte, and
//! one that is good. It refuses the first, names it, gets nothing wrong from the second, which notices its own damage, takes the
//! third, and serves a paid job.

use opg_e2e::{Network, OPG_START_TIMEOUT, Opg, fixtures, opg};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

const MODEL: &str = "demo/tiny-llama";

fn text(path: &Path) -> &str {
    path.to_str().expect("utf-8 path")
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("folder");
    for entry in std::fs::read_dir(from).expect("folder") {
        let entry = entry.expect("entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("type").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("copy");
        }
    }
}

/// Every file below a folder.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("folder") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

/// A node that says it has the model, describes it truly, and sends one byte of it wrong. Counts what it sent.
async fn liar(root: &str, manifest: Vec<u8>) -> (String, Arc<AtomicUsize>) {
    let mut bytes = std::fs::read(fixtures().join("tiny-llama/trained-Q8_0.gguf")).expect("model");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    let root = root.trim_start_matches("0x").to_owned();
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                return;
            };
            let mut request = Vec::new();
            let mut piece = [0; 4096];
            while !request.ends_with(b"\r\n\r\n") {
                match stream.read(&mut piece).await {
                    Ok(n) if n > 0 => request.extend_from_slice(&piece[..n]),
                    _ => break,
                }
            }
            let request = String::from_utf8_lossy(&request).into_owned();
            let path = request.split(' ').nth(1).unwrap_or_default();
            let (status, body) = if path == format!("/v1/model-files/{root}") {
                ("200 OK", &manifest)
            } else if path.starts_with(&format!("/v1/model-files/{root}/")) {
                count.fetch_add(1, Ordering::SeqCst);
                ("200 OK", &bytes)
            } else {
                ("404 Not Found", &Vec::new())
            };
            let head = format!(
                "HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(body).await;
        }
    });
    (url, sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_corrupted_model_is_refused_and_fetched_elsewhere() {
    let mut network = Network::start();
    let (dir, home) = (network.dir(), network.home().to_owned());
    let bad_hub = network.file()["hub"].as_str().expect("hub").to_owned();
    let at_hub: Value = reqwest::get(format!("{bad_hub}/api/opg/models/{MODEL}/root"))
        .await
        .expect("hub")
        .json()
        .await
        .expect("json");
    let root = at_hub["root"].as_str().expect("root").to_owned();
    let manifest = hex::decode(at_hub["manifest_cbor"].as_str().expect("manifest")).expect("hex");
    let sha256 = at_hub["manifest"]["files"][0]["sha256"].as_str().expect("sha256");
    let sha256 = sha256.trim_start_matches("0x").to_owned();
    assert!(network.stop().success(), "orderly end");

    // A second hub with what the first one had while it was good.
    let good = home.join("good-hub");
    copy(&dir.join("hub/data"), &good.join("data"));
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("port");
        free.local_addr().expect("address").port()
    };
    let good_hub = format!("http://127.0.0.1:{port}");
    let config = good.join("config.toml");
    std::fs::write(&config, format!("listen = \"127.0.0.1:{port}\"\ndata_dir = \"data\"\n")).expect("config");
    let mut second = Opg::start(
        &home.join("logs"),
        "good-hub",
        &home,
        &["node", "hub", "--config", text(&config)],
    );
    second.wait_for("model hub ready", 1, OPG_START_TIMEOUT);

    // The first one's disk changes the last byte of every file; the node has lost its cache, and asks a liar first.
    let mut changed = 0;
    for path in files(&dir.join("hub/data/blobs")) {
        let mut bytes = std::fs::read(&path).expect("blob");
        *bytes.last_mut().expect("bytes") ^= 1;
        std::fs::write(&path, bytes).expect("blob");
        changed += 1;
    }
    assert!(changed > 0);
    std::fs::remove_dir_all(dir.join("inference/model-cache")).expect("cache");
    let (peer, lies) = liar(&root, manifest).await;
    let config = dir.join("inference/config.toml");
    let before = std::fs::read_to_string(&config).expect("config");
    let hubs = format!("hubs = [\"{bad_hub}\"]");
    assert!(before.contains(&hubs) && before.contains("peers = []"), "{before}");
    let after = before
        .replace(&hubs, &format!("hubs = [\"{bad_hub}\", \"{good_hub}\"]"))
        .replace("peers = []", &format!("peers = [\"{peer}\"]"));
    std::fs::write(&config, after).expect("config");
    network.run();

    // Both are named, in the metrics and in the log; the good one's bytes are what the node has.
    assert_eq!(lies.load(Ordering::SeqCst), 1, "asked once for bytes, and never again");
    let node = network.node_url().to_owned();
    let metrics = reqwest::get(format!("{node}/metrics")).await.expect("node");
    let metrics = metrics.text().await.expect("text");
    let line = |kind: &str, source: &str, outcome: &str| {
        format!("opg_inference_model_sources_total{{kind=\"{kind}\",source=\"{source}\",outcome=\"{outcome}\"}}")
    };
    for expected in [
        format!("{} 1", line("peer", &peer, "lied")),
        line("hub", &bad_hub, "failed"),
        line("hub", &good_hub, "whole"),
    ] {
        assert!(metrics.contains(&expected), "{expected} in\n{metrics}");
    }
    let log = std::fs::read_to_string(home.join("logs/up.log")).expect("log");
    for (source, words) in [
        (format!("peer {peer}"), "has sent wrong bytes"),
        (format!("hub {bad_hub}"), "did not send the model"),
    ] {
        let named = log.lines().any(|line| line.contains(words) && line.contains(&source));
        assert!(named, "{source} in\n{log}");
    }
    let fixture = std::fs::read(fixtures().join("tiny-llama/trained-Q8_0.gguf")).expect("model");
    let cached = dir.join("inference/model-cache/files").join(&sha256);
    assert!(std::fs::read(cached).expect("cached") == fixture);
    let parts = files(&dir.join("inference/model-cache/parts"));
    assert!(parts.is_empty(), "nothing of the wrong bytes is kept: {parts:?}");

    // The next node may have them from here: the same bytes, from any byte on, and nothing but models that were fetched.
    let path = format!("{node}/v1/model-files/{}/{sha256}", root.trim_start_matches("0x"));
    let shared = reqwest::get(&path).await.expect("node").bytes().await.expect("bytes");
    assert!(shared == fixture);
    let http = reqwest::Client::new();
    let rest = http
        .get(&path)
        .header("range", "bytes=1000000-")
        .send()
        .await
        .expect("node");
    assert_eq!(rest.status(), 206);
    assert!(rest.bytes().await.expect("bytes") == fixture[1_000_000..]);
    let beyond = http
        .get(&path)
        .header("range", "bytes=9999999999-")
        .send()
        .await
        .expect("node");
    assert_eq!(beyond.status(), 416);
    let unknown = format!("{node}/v1/model-files/{}", "11".repeat(32));
    assert_eq!(reqwest::get(unknown).await.expect("node").status(), 404);

    // What it fetched works: a paid answer with a receipt that verifies.
    let file = home.join("chat.receipt.json");
    let asked = ["chat", MODEL, "This program is free software", "--max-tokens", "8"];
    let more = ["--receipt", text(&file), "--dir", text(&dir), "--json"];
    let answer = opg(&home, &[&asked[..], &more[..]].concat()).expect_code(0).json();
    assert!(answer["receipt_id"].is_string(), "{answer}");
    let genesis = dir.join("genesis.json");
    let verify = [
        "receipt",
        "verify",
        text(&file),
        "--genesis",
        text(&genesis),
        "--offline",
    ];
    opg(&home, &verify).expect_code(0);

    // With nobody left but liars the node does not start, and says who sent what.
    assert!(network.stop().success(), "orderly end");
    drop(second);
    std::fs::remove_dir_all(dir.join("inference/model-cache")).expect("cache");
    let config_text = std::fs::read_to_string(&config).expect("config");
    let only_liars = config_text.replace(&format!(", \"{good_hub}\""), "");
    std::fs::write(
        &config,
        only_liars.replace("patience_seconds = 60", "patience_seconds = 2"),
    )
    .expect("config");
    let refused = opg(&home, &["up", "--dir", text(&dir)]);
    assert_ne!(refused.code(), 0);
    assert!(
        refused.stderr.contains("cannot be had") && refused.stderr.contains(&peer) && refused.stderr.contains(&bad_hub),
        "{}",
        refused.stderr
    );
}
