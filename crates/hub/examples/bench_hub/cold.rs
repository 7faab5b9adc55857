//! Cold start of an inference node: a model of 1 GB in verified ranges from a hub, over a link of 1 Gbit/s and over loopback.

use crate::{
    process::Hub,
    report::{Bar, Report},
    setting,
};
use opg_model_store::{Cache, Fetcher, Source, SourceKind, Wanted};
use serde_json::{Value, json};
use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::sleep_until,
};

/// A gigabit a second.
const LINK: f64 = 125e6;

/// A GGUF file of one tensor of noise.
fn model(bytes: u64) -> Vec<u8> {
    fn text(out: &mut Vec<u8>, text: &str) {
        out.extend((text.len() as u64).to_le_bytes());
        out.extend(text.as_bytes());
    }
    let values = bytes / 4;
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    // One tensor, one key.
    out.extend(1u64.to_le_bytes());
    out.extend(1u64.to_le_bytes());
    text(&mut out, "general.architecture");
    out.extend(8u32.to_le_bytes());
    text(&mut out, "llama");
    text(&mut out, "token_embd.weight");
    // One dimension, of type F32, at the front.
    out.extend(1u32.to_le_bytes());
    out.extend(values.to_le_bytes());
    out.extend(0u32.to_le_bytes());
    out.extend(0u64.to_le_bytes());
    out.resize(out.len().next_multiple_of(32), 0);
    let start = out.len();
    out.resize(start + usize::try_from(values * 4).expect("it fits into memory"), 0);
    blake3::Hasher::new()
        .update(b"bench/hub/cold")
        .finalize_xof()
        .fill(&mut out[start..]);
    out
}

/// A link between a node and a hub: all connections together get so many bytes a second.
async fn link(to: String, rate: f64) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("its number"));
    // When the link is free again.
    let free = Arc::new(Mutex::new(tokio::time::Instant::now()));
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.expect("a connection");
            let (to, free) = (to.clone(), Arc::clone(&free));
            tokio::spawn(async move {
                let hub = TcpStream::connect(to).await.expect("the hub");
                let (mut from_client, mut to_client) = client.split();
                let (mut from_hub, mut to_hub) = hub.into_split();
                let down = async {
                    let mut buffer = vec![0; 64 << 10];
                    loop {
                        let n = from_hub.read(&mut buffer).await?;
                        if n == 0 {
                            return to_client.shutdown().await;
                        }
                        let until = {
                            let mut free = free.lock().expect("a lock");
                            // What it lost because this task came late, it may send at once.
                            let earliest = tokio::time::Instant::now() - Duration::from_millis(20);
                            *free = (*free).max(earliest) + Duration::from_secs_f64(n as f64 / rate);
                            *free
                        };
                        // Timers count milliseconds.
                        if until.elapsed().is_zero() {
                            sleep_until(until).await;
                        }
                        to_client.write_all(&buffer[..n]).await?;
                    }
                };
                let up = tokio::io::copy(&mut from_client, &mut to_hub);
                // A connection that ends is no news.
                tokio::select! { _ = down => (), _ = up => () }
            });
        }
    });
    url
}

/// Seconds until a model is there, whole, checked and flushed, and how many bytes came.
async fn fetch(dir: &Path, hub: &str, wanted: &Wanted) -> (f64, u64) {
    let dir = tempfile::tempdir_in(dir).expect("a directory");
    let cache = Arc::new(Cache::open(dir.path(), 4 << 30).expect("a cache"));
    let source = Source::new(SourceKind::Hub, hub).expect("a source");
    let fetcher = Fetcher::new(reqwest::Client::new(), cache, vec![source]);
    let start = Instant::now();
    let bytes = Mutex::new(0);
    fetcher
        .get(wanted, &|report| *bytes.lock().expect("a lock") += report.bytes)
        .await
        .expect("the model");
    (start.elapsed().as_secs_f64(), bytes.into_inner().expect("a lock"))
}

pub(crate) async fn run(report: &mut Report) {
    let dir =
        tempfile::tempdir_in(std::env::var_os("OPG_BENCH_DIR").unwrap_or_else(|| ".".into())).expect("a directory");
    let hub = Hub::start(dir.path()).await;
    let id = hub.create("cold").await;
    let content = model(setting("OPG_BENCH_MODEL_BYTES", 1_000_000_000));
    let size = content.len() as u64;
    let start = Instant::now();
    let mut hasher = opg_hub::blobs::Hasher::new(size);
    hasher.update(&content).expect("its size");
    let hashing = start.elapsed().as_secs_f64();
    let oid = hex::encode(hasher.finish().expect("its size").sha256);
    let upload = hub.batch(&id, (&oid, size), &["basic"]).await;
    let href = upload["href"].as_str().expect("a link");
    let sent = hub.http.put(href).body(content).send().await.expect("an answer");
    assert!(sent.status().is_success());
    let lines = [
        json!({"key": "header", "value": {"summary": "cold"}}),
        json!({"key": "lfsFile", "value": {"path": "model.gguf", "algo": "sha256", "oid": oid, "size": size}}),
    ];
    hub.commit(&id, &lines).await;
    let root: Value = hub
        .http
        .get(format!("{}/api/opg/models/{id}/root", hub.url))
        .send()
        .await
        .expect("an answer")
        .json()
        .await
        .expect("JSON");
    let wanted = Wanted {
        root: root["root"].as_str().expect("a root").parse().expect("a root"),
        repository: id,
        revision: None,
        file: None,
    };
    // The hub hashes the tree of a new file by itself; it is there when a part of it can be had.
    let part = hub
        .http
        .get(format!("{}/{}/resolve/main/model.gguf", hub.url, wanted.repository))
        .header("range", "bytes=0-0");
    assert_eq!(part.send().await.expect("an answer").status(), 206);

    let mut free = f64::MAX;
    for _ in 0..3 {
        free = free.min(fetch(dir.path(), &hub.url, &wanted).await.0);
    }
    let through = link(hub.url.trim_start_matches("http://").to_owned(), LINK).await;
    let (limited, came) = fetch(dir.path(), &through, &wanted).await;
    let ideal = came as f64 / LINK;
    let gigabytes = size as f64 / 1e9;
    report.value("cold start: hashing 1 GB, one thread", "s", hashing / gigabytes, None);
    report.value(
        "cold start: 1 GB over loopback, checked and flushed",
        "s",
        free / gigabytes,
        None,
    );
    report.value(
        "cold start: 1 GB over 1 Gbit/s, checked and flushed",
        "s",
        limited / gigabytes,
        None,
    );
    report.value(
        "cold start: of the time that the link of 1 Gbit/s takes",
        "%",
        limited / ideal * 100.0,
        Some(Bar::AtMost(105.0)),
    );
    report.note(format!(
        "cold: {size} bytes as a GGUF model from a hub into an empty cache, in verified ranges; {came} bytes came, all that count for the \
         link; every byte is verified by BLAKE3 as it comes and read back for SHA-256, BLAKE3 and git; the link is a proxy in this process; \
         best of three over loopback"
    ));
    hub.stop();
}
