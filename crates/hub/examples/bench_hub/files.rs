//! One large file up and down, against the disk and the loopback device in the same run.

use crate::{
    process::Hub,
    report::{Bar, Report},
    setting, socket,
};
use bytes::Bytes;
use futures::StreamExt as _;
use opg_hub::blobs::Hasher;
use opg_models::ShaHasher;
use serde_json::{Value, json};
use std::{
    ffi::OsString,
    fs::File,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

const PIECE: usize = 1 << 20;
const ROUNDS: u64 = 5;
/// Runs in a round of what touches no disk: its first run finds buffers and sockets cold.
const TIMES: usize = 5;

/// Makes noise the piece of a number, so that no two are alike. It is made once and then only stamped, so that it costs nothing.
fn stamp(noise: &mut [u8], n: u64) {
    noise[..8].copy_from_slice(&n.to_le_bytes());
}

fn noise() -> Vec<u8> {
    let mut noise = vec![0; PIECE];
    blake3::Hasher::new()
        .update(b"bench/hub")
        .finalize_xof()
        .fill(&mut noise);
    noise
}

fn rate(bytes: u64, start: Instant) -> f64 {
    bytes as f64 / 1e6 / start.elapsed().as_secs_f64()
}

fn write_disk(path: &Path, pieces: u64) -> f64 {
    let start = Instant::now();
    let mut file = File::create(path).expect("a file");
    stamped(0, 0, pieces, |piece| file.write_all(piece).expect("space on the disk"));
    file.sync_all().expect("a flush");
    rate(pieces * PIECE as u64, start)
}

/// The same past the page cache, and, if asked, with the three hashes of what is written, as few as possible in a thread; `None` if that
/// does not work here.
fn write_direct(path: &Path, pieces: u64, hashed: bool) -> Option<f64> {
    let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).ok()?;
    let open = File::options().write(true).create(true).custom_flags(flags).open(path);
    let mut file = open.ok()?;
    // Memory from which a disk takes it begins at a block of the disk.
    let mut memory = vec![0; PIECE + 4096];
    let start = memory.as_ptr().align_offset(4096);
    let aligned = &mut memory[start..start + PIECE];
    aligned.copy_from_slice(&noise());
    let start = Instant::now();
    let shas = hashed.then(|| {
        std::thread::spawn(move || {
            let mut shas = ShaHasher::new(pieces * PIECE as u64);
            stamped(0, 0, pieces, |piece| {
                shas.update(piece);
            });
            shas.finish()
        })
    });
    let mut blake3 = blake3::Hasher::new();
    for n in 0..pieces {
        stamp(aligned, n);
        if hashed {
            blake3.update(aligned);
        }
        file.write_all(aligned).ok()?;
    }
    file.sync_all().ok()?;
    if let Some(shas) = shas {
        let hashes = (shas.join().ok()?, blake3.finalize());
        std::hint::black_box(hashes);
    }
    Some(rate(pieces * PIECE as u64, start))
}

fn read_disk(path: &Path, pieces: u64) -> f64 {
    let mut buffer = vec![0; PIECE];
    let start = Instant::now();
    let mut file = File::open(path).expect("a file");
    for _ in 0..pieces {
        file.read_exact(&mut buffer).expect("its bytes");
    }
    rate(pieces * PIECE as u64, start)
}

fn loopback(pieces: u64) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its number");
    let reader = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut buffer = vec![0; PIECE];
        let mut total = 0;
        loop {
            match stream.read(&mut buffer).expect("bytes") {
                0 => return total,
                n => total += n as u64,
            }
        }
    });
    let noise = noise();
    let start = Instant::now();
    let mut stream = TcpStream::connect(address).expect("a connection");
    for _ in 0..pieces {
        stream.write_all(&noise).expect("a reader");
    }
    drop(stream);
    let total = reader.join().expect("the reader");
    rate(total, start)
}

/// Takes a file out of the page cache. Answers whether that works here.
fn forget(path: &Path) -> bool {
    let mut input = OsString::from("if=");
    input.push(path);
    let dd = Command::new("dd")
        .arg(input)
        .args(["iflag=nocache", "count=0", "status=none"])
        .status();
    dd.is_ok_and(|status| status.success())
}

/// The one file below a directory.
fn only(directory: &Path) -> Option<PathBuf> {
    let mut path = directory.to_owned();
    while path.is_dir() {
        path = std::fs::read_dir(&path).ok()?.next()?.ok()?.path();
    }
    Some(path)
}

/// What one round measures: MB/s but where said.
#[derive(Default)]
struct Round {
    disk: f64,
    direct: Option<f64>,
    hashed: Option<f64>,
    cold: f64,
    read: f64,
    wire: f64,
    up: f64,
    up_reqwest: f64,
    parts: f64,
    down: f64,
    down_cold: f64,
    down_reqwest: f64,
    /// Seconds.
    cpu_up: f64,
    cpu_parts: f64,
    cpu_down: f64,
    /// MiB.
    peak: f64,
}

fn middle_of(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The middle of all rounds.
fn median(rounds: &[Round], value: impl Fn(&Round) -> f64) -> f64 {
    middle_of(rounds.iter().map(value).collect())
}

/// One file, up and down. Also answers whether it could be taken out of the page cache for the reads from the disk.
async fn round(dir: &Path, run: u64, pieces: u64) -> (Round, bool) {
    let size = pieces * PIECE as u64;
    let raw = dir.join("raw");
    let disk = write_disk(&raw, pieces);
    let read = read_disk(&raw, pieces);
    std::fs::remove_file(&raw).expect("its removal");
    let direct = |hashed| {
        let speed = write_direct(&raw, pieces, hashed);
        std::fs::remove_file(&raw).ok();
        speed
    };
    let (direct, hashed) = (direct(false), direct(true));
    let mut forgotten = false;
    let wire = middle_of((0..TIMES).map(|_| loopback(pieces)).collect());
    let mut round = Round {
        disk,
        direct,
        hashed,
        read,
        wire,
        ..Round::default()
    };
    // Each file is new: a known one is not sent at all.
    for (n, sent) in (0..).zip([Sent::Whole, Sent::Parts, Sent::Reqwest]) {
        let data = tempfile::tempdir_in(dir).expect("a directory");
        let hub = Hub::start(data.path()).await;
        let id = hub.create("large").await;
        let shift = run * 3 + n;
        let oid = oid(shift, pieces);
        let before = hub.cpu();
        let speed = upload(&hub, &id, &oid, shift, pieces, sent).await;
        match sent {
            Sent::Whole => {
                round.up = speed;
                round.cpu_up = hub.cpu() - before;
                let lines = [
                    json!({"key": "header", "value": {"summary": "large"}}),
                    json!({"key": "lfsFile", "value": {"path": "large.bin", "algo": "sha256", "oid": oid, "size": size}}),
                ];
                hub.commit(&id, &lines).await;
                forgotten = downloads(&hub, &id, data.path(), pieces, &mut round).await;
            }
            Sent::Parts => {
                round.parts = speed;
                round.cpu_parts = hub.cpu() - before;
            }
            Sent::Reqwest => round.up_reqwest = speed,
        }
        round.peak = round.peak.max(hub.peak());
        hub.stop();
    }
    (round, forgotten)
}

/// The hub's one file, down. Answers whether it could be taken out of the page cache.
async fn downloads(hub: &Hub, id: &str, data: &Path, pieces: u64, round: &mut Round) -> bool {
    let size = pieces * PIECE as u64;
    // The hub makes the file's hash tree after the commit, once in its life.
    let tree = Instant::now();
    while only(&data.join("data/outboards")).is_none_or(|path| path.extension().is_some()) {
        assert!(tree.elapsed().as_secs() < 60, "a hash tree");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let before = hub.cpu();
    let mut downloads = Vec::new();
    for _ in 0..TIMES {
        downloads.push(download(hub, id, size).await);
    }
    round.cpu_down = (hub.cpu() - before) / TIMES as f64;
    round.down = middle_of(downloads);
    round.down_reqwest = download_by_reqwest(hub, id, size).await;
    // What lies below a virtual disk may remember what it was read once: the first time is not counted.
    let blob = only(&data.join("data/blobs")).expect("a blob");
    let forgotten = forget(&blob);
    read_disk(&blob, pieces);
    forget(&blob);
    round.down_cold = download(hub, id, size).await;
    forget(&blob);
    round.cold = read_disk(&blob, pieces);
    forgotten
}

pub(crate) async fn run(report: &mut Report) {
    let pieces = setting("OPG_BENCH_BYTES", 2 << 30) / PIECE as u64;
    let size = pieces * PIECE as u64;
    let dir =
        tempfile::tempdir_in(std::env::var_os("OPG_BENCH_DIR").unwrap_or_else(|| ".".into())).expect("a directory");
    let (mut rounds, mut cold) = (Vec::new(), true);
    // Raw figures and those of the hub take turns, so that what else runs on the machine, or below it, meets both.
    for run in 0..ROUNDS {
        let (round, forgotten) = round(dir.path(), run, pieces).await;
        println!(
            "round {run}: disk {:.0} write {:.0} direct {:.0} hashed {:.0} read, loopback {:.0}; up {:.0} parts {:.0}, down {:.0} disk {:.0}",
            round.disk,
            round.direct.unwrap_or_default(),
            round.hashed.unwrap_or_default(),
            round.cold,
            round.wire,
            round.up,
            round.parts,
            round.down,
            round.down_cold
        );
        cold &= forgotten;
        rounds.push(round);
    }
    let gigabytes = size as f64 / 1e9;
    let bar = Some(Bar::AtLeast(80.0));
    let middle = |value: fn(&Round) -> f64| median(&rounds, value);
    let mut speed = |name: &str, value: fn(&Round) -> f64| report.value(name, "MB/s", middle(value), None);
    speed("raw disk, write and flush", |r| r.disk);
    let direct = rounds.iter().all(|r| r.direct.is_some() && r.hashed.is_some());
    if direct {
        speed("raw disk, write past the page cache and flush", |r| {
            r.direct.unwrap_or_default()
        });
        speed("the same while hashing it three times, without a network", |r| {
            r.hashed.unwrap_or_default()
        });
    }
    if cold {
        speed("raw disk, read", |r| r.cold);
    }
    speed("raw read of what is in memory", |r| r.read);
    speed("raw loopback", |r| r.wire);
    speed("upload, whole", |r| r.up);
    speed("upload, whole, by reqwest", |r| r.up_reqwest);
    speed("upload, parts of 16 MiB, two at a time", |r| r.parts);
    if cold {
        speed("download from the disk", |r| r.down_cold);
    }
    speed("download of what is in memory", |r| r.down);
    speed("download of what is in memory, by reqwest", |r| r.down_reqwest);
    let mut share = |name: &str, value: fn(&Round) -> f64| report.value(name, "%", 100.0 * median(&rounds, value), bar);
    share("upload, whole, of the slower of disk and loopback", |r| {
        r.up / r.disk.min(r.wire)
    });
    share("upload, parts, of the slower of disk and loopback", |r| {
        r.parts / r.disk.min(r.wire)
    });
    if cold {
        share("download from the disk, of the slower of disk and loopback", |r| {
            r.down_cold / r.cold.min(r.wire)
        });
    }
    share("download of what is in memory, of loopback", |r| r.down / r.wire);
    if direct {
        let of_direct = |value: fn(&Round) -> f64| {
            median(&rounds, |r| {
                value(r) / r.direct.map_or(r.disk, |direct| direct.max(r.disk)).min(r.wire)
            })
        };
        let of_hashed =
            |value: fn(&Round) -> f64| median(&rounds, |r| value(r) / r.hashed.unwrap_or(r.disk).min(r.wire));
        for (how, value) in [("whole", (|r| r.up) as fn(&Round) -> f64), ("parts", |r| r.parts)] {
            let name = format!("upload, {how}, of the faster way to write and loopback");
            report.value(&name, "%", 100.0 * of_direct(value), None);
            let name = format!("upload, {how}, of writing and hashing without a network");
            report.value(&name, "%", 100.0 * of_hashed(value), None);
        }
    }
    let mut time = |name: &str, value: fn(&Round) -> f64| report.value(name, "s/GB", middle(value) / gigabytes, None);
    time("processor time of the hub for an upload", |r| r.cpu_up);
    time("processor time of the hub for an upload in parts", |r| r.cpu_parts);
    time("processor time of the hub for a download", |r| r.cpu_down);
    report.value(
        "peak memory of the hub over both",
        "MiB",
        rounds.iter().map(|round| round.peak).fold(0.0, f64::max),
        Some(Bar::AtMost(200.0)),
    );
    report.note(format!(
        "files: {size} bytes, middle of {ROUNDS} rounds in which raw figures and the hub's take turns, shares within a round, in each round the middle of {TIMES} runs over loopback and of downloads from memory; client and hub on \
         the same {} cores; raw loopback is one sender and one receiver that do nothing else; every upload is hashed three times (SHA-256, \
         BLAKE3, git) and flushed before it is acknowledged, every download is hashed while it is sent; files are sent and read through plain sockets but \
         where reqwest is named; downloads begin when the hub has made the file's hash tree; for reads from the disk the hub's own file is taken out of the page cache first (dd, nocache), once for the hub \
         and once for the raw read, after a first one that is not counted; the raw write is that of a program \
         that writes and then flushes; past the page cache (O_DIRECT) is how the hub writes uploads, and the third raw figure is a program that does that and \
         hashes the same bytes in a second thread (SHA-256 with SHA-1, BLAKE3 beside the writing), without receiving them",
        std::thread::available_parallelism().map_or(1, usize::from)
    ));
}

/// SHA-256 of the file of a shift.
fn oid(shift: u64, pieces: u64) -> String {
    let mut hasher = Hasher::new(pieces * PIECE as u64);
    stamped(shift, 0, pieces, |piece| {
        hasher.update(piece).expect("the announced size")
    });
    hex::encode(hasher.finish().expect("the announced size").sha256)
}

/// How a file is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sent {
    Whole,
    Parts,
    /// Whole, by the client that `opg models push` uses.
    Reqwest,
}

/// The pieces `from..to` of the file of a shift, one after the other.
fn stamped(shift: u64, from: u64, to: u64, mut each: impl FnMut(&[u8])) {
    let mut noise = noise();
    for n in from..to {
        stamp(&mut noise, n + (shift << 32));
        each(&noise);
    }
}

/// Sends pieces over a plain socket and returns the tag of what was stored.
async fn put(url: String, shift: u64, from: u64, to: u64) -> Option<String> {
    let send = tokio::task::spawn_blocking(move || {
        socket::put(&url, (to - from) * PIECE as u64, |stream| {
            stamped(shift, from, to, |piece| stream.write_all(piece).expect("a reader"));
        })
    });
    send.await.expect("an upload")
}

/// Sends a file and returns MB/s until it is acknowledged.
async fn upload(hub: &Hub, id: &str, oid: &str, shift: u64, pieces: u64, sent: Sent) -> f64 {
    let size = pieces * PIECE as u64;
    let start = Instant::now();
    let transfers: &[&str] = if sent == Sent::Parts {
        &["basic", "multipart"]
    } else {
        &["basic"]
    };
    let action = hub.batch(id, (oid, size), transfers).await;
    let href = action["href"].as_str().expect("a link");
    match sent {
        Sent::Whole => {
            put(href.to_owned(), shift, 0, pieces).await;
            return rate(size, start);
        }
        Sent::Reqwest => {
            let mut noise = noise();
            let body = (0..pieces).map(move |n| {
                stamp(&mut noise, n + (shift << 32));
                Ok::<_, std::io::Error>(Bytes::copy_from_slice(&noise))
            });
            let body = reqwest::Body::wrap_stream(futures::stream::iter(body));
            let sent = hub.http.put(href).header("content-length", size).body(body).send();
            sent.await.expect("an answer").error_for_status().expect("an upload");
            return rate(size, start);
        }
        Sent::Parts => {}
    }
    let header = action["header"].as_object().expect("parts");
    let each: u64 = header["chunk_size"]
        .as_str()
        .expect("a size")
        .parse()
        .expect("a number");
    let step = each / PIECE as u64;
    let parts = futures::stream::iter(1..=size.div_ceil(each)).map(|part| {
        let url = header[&part.to_string()].as_str().expect("a link").to_owned();
        let (from, to) = ((part - 1) * step, (part * step).min(pieces));
        async move {
            let tag = put(url, shift, from, to).await.expect("a tag");
            json!({"partNumber": part, "etag": tag})
        }
    });
    let mut done: Vec<Value> = parts.buffer_unordered(2).collect().await;
    done.sort_by_key(|part| part["partNumber"].as_u64());
    let complete = hub.http.post(href).json(&json!({"oid": oid, "parts": done})).send();
    complete
        .await
        .expect("an answer")
        .error_for_status()
        .expect("an upload");
    rate(size, start)
}

/// Reads a file to its end over a plain socket, as the raw loopback is read, comparing nothing, and returns MB/s.
async fn download(hub: &Hub, id: &str, size: u64) -> f64 {
    let (url, token) = (
        format!("{}/{id}/resolve/main/large.bin", hub.url),
        hub.token.token.clone(),
    );
    let start = Instant::now();
    let read = tokio::task::spawn_blocking(move || socket::get(&url, &token));
    assert_eq!(read.await.expect("a download"), size);
    rate(size, start)
}

/// The same by the client that nodes use.
async fn download_by_reqwest(hub: &Hub, id: &str, size: u64) -> f64 {
    let start = Instant::now();
    let response = hub
        .http
        .get(format!("{}/{id}/resolve/main/large.bin", hub.url))
        .bearer_auth(&hub.token.token)
        .send()
        .await
        .expect("an answer");
    let mut pieces = response.error_for_status().expect("the file").bytes_stream();
    let mut total = 0;
    while let Some(piece) = pieces.next().await {
        total += piece.expect("its bytes").len() as u64;
    }
    assert_eq!(total, size);
    rate(size, start)
}
