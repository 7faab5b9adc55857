//! A measurement: a cold start is bounded by the link, not by hashing. It means something for optimised code on an idle machine:
//! `cargo nextest run --workspace --release --test speed --run-ignored all --no-capture`.

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    response::Response,
    routing::get,
};
use opg_model_store::{Cache, Fetcher, Report, Source, SourceKind, Wanted};
use opg_models::{FileHasher, Format, Manifest, ManifestVersion};
use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

const PIECE: usize = 1 << 20;
const PIECES: usize = 1_000;
/// A gigabit a second, in pieces.
const PER_SECOND: f64 = 125e6 / PIECE as f64;

/// Every piece is the same: making bytes must not take the time that is measured.
static BYTES: LazyLock<Bytes> =
    LazyLock::new(|| (0..PIECE).map(|i| (i * 7 + i / 251) as u8).collect::<Vec<_>>().into());

#[derive(Clone)]
struct Link {
    manifest: Arc<Vec<u8>>,
    limited: bool,
}

async fn manifest(State(link): State<Link>) -> Vec<u8> {
    link.manifest.to_vec()
}

async fn file(State(link): State<Link>) -> Response {
    let began = tokio::time::Instant::now();
    let pieces = futures::stream::unfold(0, move |i| async move {
        if i == PIECES {
            return None;
        }
        if link.limited {
            tokio::time::sleep_until(began + Duration::from_secs_f64(i as f64 / PER_SECOND)).await;
        }
        Some((Ok::<_, std::io::Error>(BYTES.clone()), i + 1))
    });
    Response::new(Body::from_stream(pieces))
}

async fn fetch(link: Link, wanted: &Wanted) -> Duration {
    let app = Router::new()
        .route("/v1/model-files/{root}", get(manifest))
        .route("/v1/model-files/{root}/{sha256}", get(file))
        .with_state(link);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let source = Source::new(SourceKind::Peer, &format!("http://{}", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    let dir = tempfile::tempdir().unwrap();
    let cache = Arc::new(Cache::open(dir.path(), 2 << 30).unwrap());
    let fetcher = Fetcher::new(reqwest::Client::new(), cache, vec![source]);
    let start = Instant::now();
    fetcher.get(wanted, &|_: &Report| ()).await.unwrap();
    start.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement over 1 GB of an optimised build on an idle machine"]
async fn a_cold_start_takes_as_long_as_the_link() {
    let mut hasher = FileHasher::new(ManifestVersion::V1, (PIECE * PIECES) as u64);
    let _ = BYTES.len();
    let start = Instant::now();
    for _ in 0..PIECES {
        hasher.update(&BYTES);
    }
    let hashing = start.elapsed();
    let manifest = Manifest::single_hashed(ManifestVersion::V1, Format::Gguf, hasher);
    let wanted = Wanted {
        root: manifest.root().unwrap(),
        repository: "a/b".into(),
        revision: None,
        file: None,
    };
    let link = |limited| Link {
        manifest: Arc::new(manifest.encode().unwrap()),
        limited,
    };
    let free = fetch(link(false), &wanted).await;
    let limited = fetch(link(true), &wanted).await;
    let ideal = Duration::from_secs_f64(PIECES as f64 / PER_SECOND);
    let bytes = PIECE * PIECES;
    println!(
        "{bytes} bytes: hashed in {hashing:?}; fetched over loopback in {free:?}, over 1 Gbit/s in {limited:?} (the link takes {ideal:?})"
    );
    assert!(limited < ideal.mul_f64(1.1), "{limited:?} for a link of {ideal:?}");
}
