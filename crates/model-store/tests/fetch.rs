//! Fetching from sources that lie, break off, come and go. Real sockets; the sources are written here.

use axum::{
    Router,
    body::Body,
    extract::{Path as UrlPath, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use opg_model_store::{Cache, FetchError, Fetcher, Outcome, Report, Source, SourceKind, Wanted};
use opg_models::{Format, Manifest, ManifestVersion, ModelRoot};
use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

const SIZE: usize = 3 << 20;

fn model() -> Vec<u8> {
    (0..SIZE).map(|i| (i * 7 + i / 251) as u8).collect()
}

/// How a node on loopback behaves.
#[derive(Default)]
struct Node {
    bytes: Vec<u8>,
    /// Sends this much of an answer and breaks off.
    cut: Option<usize>,
    /// What the ranges of requests were.
    ranges: Mutex<Vec<Option<String>>>,
    requests: AtomicUsize,
    /// Describes another model.
    other: bool,
}

async fn manifest(State(node): State<Arc<Node>>, UrlPath(root): UrlPath<String>) -> Response {
    let bytes = if node.other { b"another".to_vec() } else { model() };
    let manifest = Manifest::single(ManifestVersion::V1, Format::Gguf, &bytes);
    if !node.other && hex::encode(manifest.root().unwrap().0) != root {
        return StatusCode::NOT_FOUND.into_response();
    }
    manifest.encode().unwrap().into_response()
}

async fn file(State(node): State<Arc<Node>>, headers: HeaderMap) -> Response {
    node.requests.fetch_add(1, Ordering::SeqCst);
    let range = headers
        .get(header::RANGE)
        .map(|value| value.to_str().unwrap().to_owned());
    node.ranges.lock().unwrap().push(range.clone());
    let start = range.map_or(0, |range| {
        range["bytes=".len()..].trim_end_matches('-').parse::<usize>().unwrap()
    });
    let end = node
        .cut
        .map_or(node.bytes.len(), |cut| (start + cut).min(node.bytes.len()));
    let pieces: Vec<Result<axum::body::Bytes, std::io::Error>> = node.bytes[start..end]
        .chunks(64 << 10)
        .map(|piece| Ok(piece.to_vec().into()))
        .chain((end < node.bytes.len()).then(|| Err(std::io::Error::other("cut"))))
        .collect();
    let body = Body::from_stream(futures::stream::iter(pieces));
    let mut response = Response::new(body);
    if start > 0 {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        let value = format!("bytes {start}-{}/{}", node.bytes.len() - 1, node.bytes.len());
        response
            .headers_mut()
            .insert(header::CONTENT_RANGE, value.parse().unwrap());
    }
    response
}

async fn start(node: Node) -> (Arc<Node>, Source) {
    let node = Arc::new(node);
    let app = Router::new()
        .route("/v1/model-files/{root}", get(manifest))
        .route("/v1/model-files/{root}/{sha256}", get(file))
        .with_state(Arc::clone(&node));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (node, Source::new(SourceKind::Peer, &url).unwrap())
}

fn honest() -> Node {
    Node {
        bytes: model(),
        ..Node::default()
    }
}

fn wanted() -> Wanted {
    Wanted {
        root: root(),
        repository: "a/b".into(),
        revision: None,
        file: None,
    }
}

fn root() -> ModelRoot {
    Manifest::single(ManifestVersion::V1, Format::Gguf, &model())
        .root()
        .unwrap()
}

fn fetcher(dir: &Path, sources: &[Source]) -> Fetcher {
    let cache = Cache::open(dir, 16 << 20).unwrap();
    Fetcher::new(reqwest::Client::new(), Arc::new(cache), sources.to_vec())
}

fn said(reports: &Mutex<Vec<Report>>) -> Vec<Outcome> {
    reports.lock().unwrap().iter().map(|report| report.outcome).collect()
}

#[tokio::test]
async fn one_wrong_byte_is_refused_and_the_next_source_is_asked() {
    let mut bytes = model();
    bytes[SIZE - 100] ^= 1;
    let (liar, bad) = start(Node {
        bytes,
        ..Node::default()
    })
    .await;
    let (_, good) = start(honest()).await;
    let dir = tempfile::tempdir().unwrap();
    let fetcher = fetcher(dir.path(), &[bad.clone(), good]);
    let reports = Mutex::new(Vec::new());
    let got = fetcher
        .get(&wanted(), &|r: &Report| reports.lock().unwrap().push(r.clone()))
        .await
        .unwrap();
    assert_eq!(std::fs::read(&got.path).unwrap(), model());
    assert_eq!(said(&reports), [Outcome::Lied, Outcome::Whole]);
    assert_eq!(reports.lock().unwrap()[0].source, bad);
    // The liar is not asked for this model again, also when nobody else is left.
    std::fs::remove_file(&got.path).unwrap();
    fetcher.get(&wanted(), &|_: &Report| ()).await.unwrap();
    assert_eq!(liar.requests.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn nobody_has_it_and_nothing_is_kept() {
    let mut bytes = model();
    bytes[0] ^= 1;
    let (_, bad) = start(Node {
        bytes,
        ..Node::default()
    })
    .await;
    let mut long = model();
    long.push(0);
    let (_, longer) = start(Node {
        bytes: long,
        ..Node::default()
    })
    .await;
    let (_, other) = start(Node {
        other: true,
        ..honest()
    })
    .await;
    let away = Source::new(SourceKind::Hub, "http://127.0.0.1:9").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let fetcher = fetcher(dir.path(), &[bad, longer, other, away]);
    let error = fetcher.get(&wanted(), &|_: &Report| ()).await.unwrap_err();
    let FetchError::Nowhere { reports, .. } = &error else {
        panic!("{error}")
    };
    let outcomes: Vec<_> = reports.iter().map(|r| r.outcome).collect();
    assert_eq!(
        outcomes,
        [Outcome::Lied, Outcome::Lied, Outcome::Absent, Outcome::Failed],
        "{error}"
    );
    for folder in ["files", "parts"] {
        assert_eq!(
            std::fs::read_dir(dir.path().join(folder)).unwrap().count(),
            0,
            "{folder}"
        );
    }
}

#[tokio::test]
async fn a_broken_transfer_goes_on_where_it_ended() {
    let (node, source) = start(Node {
        cut: Some(1 << 20),
        ..honest()
    })
    .await;
    let dir = tempfile::tempdir().unwrap();
    let got = fetcher(dir.path(), &[source])
        .get(&wanted(), &|_: &Report| ())
        .await
        .unwrap();
    assert_eq!(std::fs::read(got.path).unwrap(), model());
    // Each request begins where the last one ended (what was under way when it broke may be lost), and none at the start.
    let ranges = node.ranges.lock().unwrap().clone();
    let starts: Vec<u64> = ranges[1..]
        .iter()
        .map(|range| {
            range.as_deref().unwrap()["bytes=".len()..]
                .trim_end_matches('-')
                .parse()
                .unwrap()
        })
        .collect();
    assert_eq!(ranges[0], None);
    assert!(starts.len() >= 2 && starts[0] > 0 && starts.is_sorted(), "{ranges:?}");
}

#[tokio::test]
async fn an_earlier_run_is_continued_and_its_wrong_bytes_blame_nobody() {
    let (node, source) = start(honest()).await;
    let sha256 = Manifest::single(ManifestVersion::V1, Format::Gguf, &model()).files[0].sha256;
    let part = |dir: &Path| dir.join("parts").join(hex::encode(sha256));
    // Good bytes from before: only the rest is asked for.
    let dir = tempfile::tempdir().unwrap();
    let fetch = fetcher(dir.path(), std::slice::from_ref(&source));
    std::fs::write(part(dir.path()), &model()[..SIZE / 2]).unwrap();
    fetch.get(&wanted(), &|_: &Report| ()).await.unwrap();
    assert_eq!(
        node.ranges.lock().unwrap().as_slice(),
        [Some(format!("bytes={}-", SIZE / 2))]
    );
    // Wrong ones: the source is asked for everything, and is no liar.
    let dir = tempfile::tempdir().unwrap();
    let fetch = fetcher(dir.path(), &[source]);
    std::fs::write(part(dir.path()), vec![0; SIZE / 2]).unwrap();
    let reports = Mutex::new(Vec::new());
    let got = fetch
        .get(&wanted(), &|r: &Report| reports.lock().unwrap().push(r.clone()))
        .await
        .unwrap();
    assert_eq!(said(&reports), [Outcome::Whole]);
    assert_eq!(std::fs::read(got.path).unwrap(), model());
    assert_eq!(node.ranges.lock().unwrap().last().unwrap(), &None);
}

#[tokio::test]
async fn a_liar_that_breaks_off_does_not_make_the_next_source_look_like_one() {
    let mut bytes = model();
    bytes[5] ^= 1;
    // It never comes to the end: three attempts without progress are its last.
    let half: Vec<u8> = bytes[..SIZE / 2].to_vec();
    let (_, bad) = start(Node {
        bytes: half,
        ..Node::default()
    })
    .await;
    let (node, good) = start(honest()).await;
    let dir = tempfile::tempdir().unwrap();
    let reports = Mutex::new(Vec::new());
    let fetch = fetcher(dir.path(), &[bad, good]);
    let got = fetch
        .get(&wanted(), &|r: &Report| reports.lock().unwrap().push(r.clone()))
        .await
        .unwrap();
    assert_eq!(std::fs::read(got.path).unwrap(), model());
    assert_eq!(said(&reports), [Outcome::Failed, Outcome::Whole]);
    // First the rest, then, as the whole was wrong, all of it.
    let ranges = node.ranges.lock().unwrap().clone();
    assert_eq!(ranges, [Some(format!("bytes={}-", SIZE / 2)), None]);
}
