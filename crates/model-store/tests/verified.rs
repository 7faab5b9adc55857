//! Fetching in verified ranges from sources that lie, break off, come and go. Real sockets; the sources are written here.

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use opg_model_store::{
    Cache, FetchError, Fetcher, Outcome, Report, Source, SourceKind, Wanted, fetch_file,
    ranges::{self, Encoder, GROUP, Span},
};
use opg_models::{FileEntry, Format, Manifest, ManifestVersion, ModelRoot};
use std::{
    path::Path,
    sync::{Arc, Mutex},
};

/// Enough to be split over sources.
const SIZE: usize = (10 << 20) + 12_345;

fn model() -> Vec<u8> {
    (0..SIZE).map(|i| (i * 7 + i / 251 + i / 65_537) as u8).collect()
}

fn manifest_of(bytes: &[u8]) -> Manifest {
    Manifest::single(ManifestVersion::V2, Format::Gguf, bytes)
}

fn root() -> ModelRoot {
    manifest_of(&model()).root().unwrap()
}

fn entry() -> FileEntry {
    manifest_of(&model()).files.remove(0)
}

/// What becomes of an answer's bytes.
#[derive(Clone, Copy)]
enum Way {
    Honest,
    /// The byte at this place of the file is sent wrong.
    Flips(u64),
    /// This many bytes of each answer, then the connection ends.
    Cuts(usize),
    /// So many answers, then none.
    Leaves(usize),
    /// Says that the answer is longer than it can be, and sends more.
    Swells,
    /// Sends hashes of another file.
    Invents,
    /// Sends the file as it is, although it offers ranges.
    Forgets,
    /// Answers with another range than asked for.
    Shifts,
}

struct Node {
    bytes: Vec<u8>,
    manifest: Manifest,
    way: Way,
    offers: bool,
    asked: Mutex<Vec<Span>>,
}

async fn describe(State(node): State<Arc<Node>>) -> Response {
    let mut answer = node.manifest.encode().unwrap().into_response();
    if node.offers {
        answer
            .headers_mut()
            .insert(ranges::OFFER_HEADER, ranges::UNIT.parse().unwrap());
    }
    answer
}

/// What an honest source sends of a file.
fn encoded(bytes: &[u8], span: Span) -> Vec<u8> {
    let (size, mut outboard) = (bytes.len() as u64, Vec::new());
    let blake3 = ranges::make_outboard(bytes, size, &mut outboard).unwrap();
    let from = &bytes[usize::try_from(span.start()).unwrap()..];
    let mut encoder = Encoder::new(blake3, size, span, from, outboard.as_slice());
    let length = usize::try_from(span.encoded_length(size)).unwrap();
    let mut out = vec![0; length + GROUP as usize];
    assert_eq!(encoder.fill(&mut out).unwrap(), length);
    out.truncate(length);
    out
}

async fn file(State(node): State<Arc<Node>>, headers: HeaderMap) -> Response {
    let size = node.bytes.len() as u64;
    let asked = headers
        .get(header::RANGE)
        .map(|value| value.to_str().unwrap().to_owned());
    let span = asked.as_deref().and_then(|range| Span::of_header(range, size));
    let Some(span) = span.filter(|_| node.offers && !matches!(node.way, Way::Forgets)) else {
        return node.bytes.clone().into_response();
    };
    let span = span.unwrap();
    let before = {
        let mut asked = node.asked.lock().unwrap();
        asked.push(span);
        asked.len() - 1
    };
    if matches!(node.way, Way::Leaves(answers) if before >= answers) {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let mut out = encoded(&node.bytes, span);
    if let Way::Flips(at) = node.way
        && (span.start()..span.end()).contains(&at)
    {
        // The answers for two files that differ in this byte differ in the hashes on the way to it, which come first, and in it.
        let mut other = node.bytes.clone();
        other[usize::try_from(at).unwrap()] ^= 0x10;
        let other = encoded(&other, span);
        let place = out.iter().zip(&other).rposition(|(a, b)| a != b).unwrap();
        out[place] = other[place];
    }
    let mut length = out.len();
    let mut content_range = span.content_range(size);
    match node.way {
        Way::Invents => out[10] ^= 1,
        Way::Swells => {
            out.extend([0; 100_000]);
            length = out.len();
        }
        Way::Shifts => content_range = span.content_range(size + 1),
        _ => {}
    }
    let end = match node.way {
        Way::Cuts(most) => most.min(out.len()),
        _ => out.len(),
    };
    let cut = end < out.len();
    out.truncate(end);
    let pieces: Vec<Result<axum::body::Bytes, std::io::Error>> = out
        .chunks(60_000)
        .map(|piece| Ok(piece.to_vec().into()))
        .chain(cut.then(|| Err(std::io::Error::other("cut"))))
        .collect();
    let mut response = Response::new(Body::from_stream(futures::stream::iter(pieces)));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, ranges::MEDIA_TYPE.parse().unwrap());
    out.insert(header::CONTENT_RANGE, content_range.parse().unwrap());
    out.insert(header::CONTENT_LENGTH, length.into());
    response
}

async fn start(way: Way) -> (Arc<Node>, Source) {
    start_with(way, true, model(), manifest_of(&model())).await
}

async fn start_with(way: Way, offers: bool, bytes: Vec<u8>, manifest: Manifest) -> (Arc<Node>, Source) {
    let node = Arc::new(Node {
        bytes,
        manifest,
        way,
        offers,
        asked: Mutex::default(),
    });
    let app = Router::new()
        .route("/v1/model-files/{root}", get(describe))
        .route("/v1/model-files/{root}/{sha256}", get(file))
        .with_state(Arc::clone(&node));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (node, Source::new(SourceKind::Peer, &url).unwrap())
}

fn wanted() -> Wanted {
    Wanted {
        root: root(),
        repository: "a/b".into(),
        revision: None,
        file: None,
    }
}

fn fetcher(dir: &Path, sources: &[Source]) -> Fetcher {
    let cache = Cache::open(dir, 32 << 20).unwrap();
    Fetcher::new(reqwest::Client::new(), Arc::new(cache), sources.to_vec())
}

/// What came, and what each source did.
async fn fetch(dir: &Path, sources: &[Source]) -> (Result<Vec<u8>, FetchError>, Vec<Report>) {
    let reports = Mutex::new(Vec::new());
    let got = fetcher(dir, sources)
        .get(&wanted(), &|r: &Report| reports.lock().unwrap().push(r.clone()))
        .await;
    let reports = reports.into_inner().unwrap();
    (got.map(|cached| std::fs::read(cached.path).unwrap()), reports)
}

fn outcome(reports: &[Report], source: &Source) -> Option<(Outcome, u64)> {
    let mut of = reports.iter().filter(|report| report.source == *source);
    let found = of.next().map(|report| (report.outcome, report.bytes));
    assert!(of.next().is_none(), "two reports of {source}");
    found
}

fn names(dir: &Path, folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(dir.join(folder)).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_wrong_byte_is_caught_within_its_group_and_the_rest_comes_from_elsewhere() {
    // Any byte: the first, the last, and some between.
    for at in [0, 1_234_567, (5 << 20) - 1, SIZE as u64 - 1] {
        let (liar, bad) = start(Way::Flips(at)).await;
        let (good_node, good) = start(Way::Honest).await;
        let dir = tempfile::tempdir().unwrap();
        let (got, reports) = fetch(dir.path(), &[bad.clone(), good.clone()]).await;
        assert!(got.unwrap() == model());
        let lied = outcome(&reports, &bad);
        let asked = liar.asked.lock().unwrap().clone();
        // Who was faster with that range is the one that is checked on it.
        let was_asked = asked.iter().any(|span| (span.start()..span.end()).contains(&at));
        match lied {
            Some((Outcome::Lied, bytes)) => {
                assert!(was_asked);
                let answers: u64 = asked.iter().map(|span| span.encoded_length(SIZE as u64)).sum();
                assert!(bytes <= answers, "{bytes} of {answers}");
            }
            other => assert!(!was_asked, "{other:?}"),
        }
        assert!(matches!(outcome(&reports, &good), Some((Outcome::Whole, _))));
        assert!(!good_node.asked.lock().unwrap().is_empty());
        // Alone it is asked for everything, and found out.
        let dir = tempfile::tempdir().unwrap();
        let (got, reports) = fetch(dir.path(), std::slice::from_ref(&bad)).await;
        assert!(matches!(got, Err(FetchError::Nowhere { .. })));
        assert!(matches!(outcome(&reports, &bad), Some((Outcome::Lied, _))));
        assert!(names(dir.path(), "files").is_empty());
        // What came before the wrong byte is here, was good, and is not asked for again.
        let (second, other) = start(Way::Honest).await;
        let (got, _) = fetch(dir.path(), &[other]).await;
        assert!(got.unwrap() == model());
        assert_eq!(second.asked.lock().unwrap()[0].start(), at - at % GROUP);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_is_not_asked_again_and_the_honest_are_not_blamed() {
    let (liar, bad) = start(Way::Invents).await;
    let (_, good) = start(Way::Honest).await;
    let dir = tempfile::tempdir().unwrap();
    let fetcher = fetcher(dir.path(), &[bad, good.clone()]);
    let got = fetcher.get(&wanted(), &|_: &Report| ()).await.unwrap();
    std::fs::remove_file(&got.path).unwrap();
    let asked = liar.asked.lock().unwrap().len();
    assert!((1..=2).contains(&asked), "{asked}");
    let reports = Mutex::new(Vec::new());
    fetcher
        .get(&wanted(), &|r: &Report| reports.lock().unwrap().push(r.clone()))
        .await
        .unwrap();
    assert_eq!(liar.asked.lock().unwrap().len(), asked);
    let reports = reports.into_inner().unwrap();
    assert_eq!(reports.len(), 1);
    assert!(matches!(outcome(&reports, &good), Some((Outcome::Whole, bytes)) if bytes > SIZE as u64));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_is_split_over_sources_that_come_and_go() {
    let (a_node, a) = start(Way::Honest).await;
    let (b_node, b) = start(Way::Honest).await;
    let (_, leaver) = start(Way::Leaves(1)).await;
    let (_, cutter) = start(Way::Cuts(100_000)).await;
    let away = Source::new(SourceKind::Peer, "http://127.0.0.1:9").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let sources = [away.clone(), leaver.clone(), a.clone(), cutter.clone(), b.clone()];
    let (got, reports) = fetch(dir.path(), &sources).await;
    assert!(got.unwrap() == model());
    assert!(matches!(outcome(&reports, &away), Some((Outcome::Failed, 0))));
    assert!(matches!(outcome(&reports, &leaver), Some((Outcome::Failed, bytes)) if bytes > 0));
    // Nobody was asked for what another one sent, but for what a broken answer took with it.
    let asked: u64 = [a_node, b_node]
        .iter()
        .flat_map(|node| node.asked.lock().unwrap().clone())
        .map(Span::length)
        .sum();
    assert!(asked < SIZE as u64, "{asked}");
    let total: u64 = reports.iter().map(|report| report.bytes).sum();
    assert!(total < SIZE as u64 + SIZE as u64 / 10, "{total} bytes for {SIZE}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_transfer_goes_on_at_the_next_group_after_a_crash() {
    let (_, cutter) = start(Way::Leaves(0)).await;
    let dir = tempfile::tempdir().unwrap();
    assert!(fetch(dir.path(), &[cutter]).await.0.is_err());
    // As a process leaves it that ended while several ranges came: holes, and a group of which some bytes are there.
    let hex = hex::encode(entry().sha256);
    let part = dir.path().join("parts").join(format!("{hex}.ranges"));
    let hashes = dir.path().join("parts").join(format!("{hex}.outboard"));
    let (mut data, mut outboard) = (model(), Vec::new());
    ranges::make_outboard(data.as_slice(), SIZE as u64, &mut outboard).unwrap();
    let group = usize::try_from(GROUP).unwrap();
    data[3 * group..5 * group].fill(0);
    data[100 * group + 9..].fill(0);
    data.truncate(200 * group);
    std::fs::write(&part, &data).unwrap();
    std::fs::write(&hashes, &outboard).unwrap();
    let (node, source) = start(Way::Honest).await;
    let (got, reports) = fetch(dir.path(), std::slice::from_ref(&source)).await;
    assert!(got.unwrap() == model());
    let asked = node.asked.lock().unwrap().clone();
    let mut starts: Vec<(u64, u64)> = asked.iter().map(|span| (span.start(), span.end())).collect();
    // Two are asked for at a time.
    starts.sort_unstable();
    assert_eq!(starts, [(3 * GROUP, 5 * GROUP), (100 * GROUP, SIZE as u64)]);
    assert!(matches!(outcome(&reports, &source), Some((Outcome::Whole, bytes)) if bytes < SIZE as u64));
    // Here with its outboard, by which it is given to others; nothing unfinished is left.
    assert_eq!(names(dir.path(), "parts"), Vec::<String>::new());
    let kept = dir.path().join("outboards").join(&hex);
    assert!(std::fs::read(&kept).unwrap() == outboard);
    // A lost one is made again when the file is looked at.
    std::fs::remove_file(&kept).unwrap();
    let cache = Cache::open(dir.path(), 32 << 20).unwrap();
    cache.get(root()).unwrap().unwrap();
    assert!(std::fs::read(&kept).unwrap() == outboard);
    // What the disk has changed is not given out.
    let path = dir.path().join("files").join(&hex);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[SIZE / 2] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(cache.get(root()).unwrap(), None);
    assert!(names(dir.path(), "files").is_empty() && names(dir.path(), "outboards").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_none_are_refused_before_they_are_read() {
    for way in [Way::Swells, Way::Forgets, Way::Shifts] {
        let (_, bad) = start(way).await;
        let (_, good) = start(Way::Honest).await;
        let dir = tempfile::tempdir().unwrap();
        let (got, reports) = fetch(dir.path(), &[bad.clone(), good.clone()]).await;
        assert!(got.unwrap() == model());
        assert!(
            matches!(outcome(&reports, &bad), Some((Outcome::Failed, 0))),
            "{reports:?}"
        );
        assert!(matches!(outcome(&reports, &good), Some((Outcome::Whole, _))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sources_without_ranges_are_checked_at_the_end() {
    let mut wrong = model();
    wrong[77] ^= 1;
    let (_, bad) = start_with(Way::Honest, false, wrong, manifest_of(&model())).await;
    let (_, good) = start_with(Way::Honest, false, model(), manifest_of(&model())).await;
    let dir = tempfile::tempdir().unwrap();
    let (got, reports) = fetch(dir.path(), &[bad.clone(), good.clone()]).await;
    assert!(got.unwrap() == model());
    assert!(matches!(outcome(&reports, &bad), Some((Outcome::Lied, _))));
    assert!(matches!(outcome(&reports, &good), Some((Outcome::Whole, _))));
    // It can be given to others in ranges all the same.
    assert_eq!(names(dir.path(), "outboards").len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_whose_hashes_are_of_two_files_names_nothing() {
    let mut manifest = manifest_of(&model());
    manifest.files[0].sha256 = manifest_of(b"another").files[0].sha256;
    let root = manifest.root().unwrap();
    let (_, source) = start_with(Way::Honest, true, model(), manifest).await;
    let dir = tempfile::tempdir().unwrap();
    let wanted = Wanted { root, ..wanted() };
    let fetcher = fetcher(dir.path(), &[source]);
    let error = fetcher.get(&wanted, &|_: &Report| ()).await.unwrap_err();
    assert!(matches!(error, FetchError::Contradiction { .. }), "{error}");
    assert!(names(dir.path(), "files").is_empty() && names(dir.path(), "parts").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn one_file_by_url_in_ranges_or_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("model.gguf");
    let http = reqwest::Client::new();
    let url = |source: &Source| format!("{}/v1/model-files/x/y", source.url());
    let (liar, bad) = start(Way::Flips(8 << 20)).await;
    let error = fetch_file(&http, &url(&bad), &entry(), &to).await.unwrap_err();
    assert!(matches!(error, FetchError::Lied { .. }) && !to.exists(), "{error}");
    assert_eq!(liar.asked.lock().unwrap().len(), 1);
    let (node, good) = start(Way::Honest).await;
    let bytes = fetch_file(&http, &url(&good), &entry(), &to).await.unwrap();
    assert!(std::fs::read(&to).unwrap() == model());
    assert_eq!(node.asked.lock().unwrap()[0].start(), 8 << 20);
    assert!(bytes < 3 << 20, "only the rest: {bytes}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    // A server that knows nothing of ranges.
    let (_, old) = start_with(Way::Honest, false, model(), manifest_of(&model())).await;
    std::fs::remove_file(&to).unwrap();
    fetch_file(&http, &url(&old), &entry(), &to).await.unwrap();
    assert!(std::fs::read(&to).unwrap() == model());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
}
