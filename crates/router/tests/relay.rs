//! The relay in a process of its own, between a client and a gateway that is built from `opg_sealed::ohttp`.
//!
//! Everything that goes over the wire on both sides is recorded by taps in the path, and what the router writes to its log
//! as well: the gateway's side never shows the client's address, the client's side never shows a plaintext.

mod common;

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, Request, State},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use common::id;
use futures::StreamExt as _;
use http::{HeaderMap, StatusCode};
use opg_sealed::{
    PrivateKey, SealedError, Suite,
    ohttp::{
        CHUNKED_REQUEST_TYPE, CHUNKED_RESPONSE_TYPE, Client, Gateway, KEYS_TYPE, KeyConfig, REQUEST_TYPE,
        RESPONSE_TYPE, START,
    },
};
use serde_json::{Value, json};
use std::{
    io::{BufRead as _, BufReader},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const QUESTION: &[u8] = b"the-secret-question-0123456789";
const ANSWER: &[u8] = b"the-secret-answer-0123456789";
/// All of 127.0.0.0/8 is this machine: the client has an address that nothing else here has.
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 9, 8, 7));

/// What the gateway saw of one request.
#[derive(Debug, Clone)]
struct Seen {
    peer: SocketAddr,
    headers: HeaderMap,
    plain: Vec<u8>,
}

#[derive(Debug)]
struct Shared {
    gateway: Gateway,
    seen: Mutex<Vec<Seen>>,
    /// Milliseconds between two pieces of a chunked answer, and whether its end is left out.
    pause: u64,
    cut: bool,
}

async fn gateway(pause: u64, cut: bool) -> (SocketAddr, Arc<Shared>) {
    let shared = Arc::new(Shared {
        gateway: Gateway::new(vec![(4, PrivateKey::derive(&[7; 32]))]),
        seen: Mutex::default(),
        pause,
        cut,
    });
    let app = Router::new()
        .route(
            "/health",
            get(|| async { Json(json!({"status": "ok", "node_id": id(1)})) }),
        )
        .route("/v1/models", get(|| async { Json(json!({"data": []})) }))
        .route("/ohttp", post(open))
        .route(
            "/ohttp/keys",
            get(|State(s): State<Arc<Shared>>| async move { ([("content-type", KEYS_TYPE)], s.gateway.keys()) }),
        )
        .with_state(Arc::clone(&shared));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>())
            .await
            .unwrap();
    });
    (address, shared)
}

async fn open(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let note = |plain: Vec<u8>| {
        shared.seen.lock().unwrap().push(Seen {
            peer,
            headers: parts.headers.clone(),
            plain,
        })
    };
    let tracking = [
        ("set-cookie", "who=you"),
        ("x-forwarded-for", "1.2.3.4"),
        ("etag", "\"id-of-you\""),
    ];
    if parts.headers["content-type"] == REQUEST_TYPE {
        let sealed = axum::body::to_bytes(body, 64 << 20).await.unwrap();
        return match shared.gateway.decapsulate(&sealed) {
            Ok((plain, waiting)) => {
                note(plain);
                let sealed = waiting.encapsulate(ANSWER, &[9; 32]).unwrap();
                (tracking, [("content-type", RESPONSE_TYPE)], sealed).into_response()
            }
            Err(_) => {
                note(Vec::new());
                let problem = "{\"title\": \"key identifier unknown\"}";
                (
                    StatusCode::BAD_REQUEST,
                    [("content-type", "application/problem+json")],
                    problem,
                )
                    .into_response()
            }
        };
    }
    // Chunked: the answer starts when the first chunk of the request is open, before its end.
    let mut stream = body.into_data_stream();
    let mut bytes = Vec::new();
    while bytes.len() < START {
        bytes.extend(stream.next().await.unwrap().unwrap());
    }
    let start: &[u8; START] = bytes.first_chunk().unwrap();
    let (mut opener, secret) = shared.gateway.start(start).unwrap();
    let mut plain = opener.push(&bytes[START..]).unwrap().concat();
    while let Some(piece) = stream.next().await {
        plain.extend(opener.push(&piece.unwrap()).unwrap().concat());
    }
    plain.extend(opener.finish().unwrap());
    note(plain);
    let (nonce, mut sealer) = secret.sealer(&[8; 32]).unwrap();
    let mut pieces = vec![nonce];
    for part in ANSWER.chunks(7) {
        pieces.push(sealer.chunk(part).unwrap());
    }
    if !shared.cut {
        pieces.push(sealer.finish(b"").unwrap());
    }
    let pause = Duration::from_millis(shared.pause);
    let body = futures::stream::iter(pieces).then(move |piece| async move {
        tokio::time::sleep(pause).await;
        Ok::<_, std::io::Error>(Bytes::from(piece))
    });
    (
        tracking,
        [("content-type", CHUNKED_RESPONSE_TYPE)],
        Body::from_stream(body),
    )
        .into_response()
}

type Tape = Arc<Mutex<Vec<u8>>>;

/// Passes bytes on, from `from` if that is set, and keeps a copy of both directions.
async fn tap(to: SocketAddr) -> (SocketAddr, Tape) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, tape) = (listener.local_addr().unwrap(), Tape::default());
    let copy = Arc::clone(&tape);
    tokio::spawn(async move {
        while let Ok((inside, _)) = listener.accept().await {
            let outside = TcpStream::connect(to).await.unwrap();
            let ((from_in, to_in), (from_out, to_out)) = (inside.into_split(), outside.into_split());
            for (mut from, mut into) in [(from_in, to_out), (from_out, to_in)] {
                let copy = Arc::clone(&copy);
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(n @ 1..) = from.read(&mut buffer).await {
                        copy.lock().unwrap().extend_from_slice(&buffer[..n]);
                        if into.write_all(&buffer[..n]).await.is_err() {
                            return;
                        }
                    }
                    let _ = into.shutdown().await;
                });
            }
        }
    });
    (address, tape)
}

/// The router, as it runs in the product: its own process.
struct Relay {
    child: Child,
    url: String,
    log: PathBuf,
    _dir: tempfile::TempDir,
}

impl Relay {
    fn start(node: SocketAddr, more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("router.toml");
        let log = dir.path().join("router.log");
        let text = format!(
            "listen = '127.0.0.1:0'\nchain_id = 10740\nprivate_endpoints = true\n[[nodes]]\nid = '{}'\nurl = 'http://{node}'\n{more}",
            id(1)
        );
        std::fs::write(&file, text).unwrap();
        // The example beside this test's own program.
        let mut program = std::env::current_exe().unwrap();
        program.pop();
        program.pop();
        program.push("examples/router");
        assert!(
            program.exists(),
            "cargo build -p opg-router --example router makes what this test runs"
        );
        let mut child = Command::new(program)
            .arg("--config")
            .arg(&file)
            .env("RUST_LOG", "trace")
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let read = || std::fs::read_to_string(&log).unwrap_or_default();
        let url = line
            .trim()
            .strip_prefix("router ready at ")
            .unwrap_or_else(|| panic!("{line:?} {}", read()));
        Self {
            child,
            url: url.to_owned(),
            log,
            _dir: dir,
        }
    }

    fn address(&self) -> SocketAddr {
        self.url.strip_prefix("http://").unwrap().parse().unwrap()
    }

    async fn ready(&self) {
        for _ in 0..500 {
            if let Ok(answer) = reqwest::get(format!("{}/health", self.url)).await
                && answer.status() == 200
            {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{}", std::fs::read_to_string(&self.log).unwrap());
    }

    /// SIGTERM, exit status and log.
    fn terminate(mut self) -> (std::process::ExitStatus, String) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let status = self.child.wait().unwrap();
        (status, std::fs::read_to_string(&self.log).unwrap())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .local_address(CLIENT)
        .user_agent("client-of-alice/7")
        .build()
        .unwrap()
}

fn contains(tape: &[u8], needle: &[u8]) -> bool {
    tape.windows(needle.len()).any(|w| w == needle)
}

async fn keys(relay: &Relay) -> KeyConfig {
    let answer = client()
        .get(format!("{}/ohttp/{}/keys", relay.url, id(1)))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (
            answer.status().as_u16(),
            answer.headers()["content-type"].to_str().unwrap()
        ),
        (200, KEYS_TYPE)
    );
    KeyConfig::parse_list(&answer.bytes().await.unwrap()).unwrap().remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_sees_the_relay_and_the_relay_sees_sealed_bytes() {
    let (gateway, shared) = gateway(0, false).await;
    let (node_side, node_tape) = tap(gateway).await;
    let relay = Relay::start(node_side, "");
    relay.ready().await;
    let (client_side, client_tape) = tap(relay.address()).await;
    node_tape.lock().unwrap().clear();
    let key = keys(&relay).await;
    assert_eq!(key.key, PrivateKey::derive(&[7; 32]).public());

    let (sealed, waiting) = Client::new(&key, Suite::Aes128Gcm)
        .unwrap()
        .encapsulate(QUESTION, &[3; 32])
        .unwrap();
    // Once through the tap, once directly, so that the relay sees the client's own address.
    let mut answers = Vec::new();
    for base in [format!("http://{client_side}"), relay.url.clone()] {
        let answer = client()
            .post(format!("{base}/ohttp/{}", id(1)))
            .header("content-type", REQUEST_TYPE)
            .header("cookie", "alice=1")
            .header("authorization", "Bearer of-alice")
            .header("accept-language", "gsw")
            .header("x-forwarded-for", CLIENT.to_string())
            .body(sealed.clone())
            .send()
            .await
            .unwrap();
        assert_eq!(
            (
                answer.status().as_u16(),
                answer.headers()["content-type"].to_str().unwrap()
            ),
            (200, RESPONSE_TYPE)
        );
        for gone in ["set-cookie", "etag", "x-forwarded-for", "server"] {
            assert!(!answer.headers().contains_key(gone), "{gone}");
        }
        answers.push(answer.bytes().await.unwrap());
    }
    assert_eq!(waiting.decapsulate(&answers[1]).unwrap(), ANSWER);

    let seen = shared.seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 2);
    for one in &seen {
        assert_eq!(one.plain, QUESTION);
        assert_ne!(one.peer.ip(), CLIENT);
        let mut names: Vec<&str> = one.headers.keys().map(|n| n.as_str()).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["content-length", "content-type", "host"],
            "nothing but what the bytes need"
        );
    }
    // The wire, both sides, and the log.
    let (node_tape, client_tape) = (node_tape.lock().unwrap().clone(), client_tape.lock().unwrap().clone());
    assert!(contains(&node_tape, &sealed) && contains(&client_tape, &sealed));
    let address = CLIENT.to_string();
    for secret in [QUESTION, ANSWER] {
        assert!(!contains(&client_tape, secret) && !contains(&node_tape, secret));
    }
    for traced in [address.as_bytes(), b"alice", b"gsw", b"client-of"] {
        assert!(!contains(&node_tape, traced), "{}", String::from_utf8_lossy(traced));
    }
    let (status, log) = relay.terminate();
    assert!(status.success());
    assert!(log.contains("router serving"), "{log}");
    let traced: Vec<&str> = log
        .lines()
        .filter(|l| l.contains(&address) || l.contains("alice"))
        .take(3)
        .collect();
    assert!(traced.is_empty(), "no address is logged, at any level: {traced:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunked_answer_arrives_chunk_by_chunk() {
    let (gateway, shared) = gateway(150, false).await;
    let relay = Relay::start(gateway, "");
    relay.ready().await;
    let key = keys(&relay).await;
    let (mut message, mut sealer, mut opener) = Client::new(&key, Suite::Aes256Gcm).unwrap().start(&[4; 32]).unwrap();
    message.extend(sealer.chunk(&QUESTION[..10]).unwrap());
    message.extend(sealer.finish(&QUESTION[10..]).unwrap());
    let parts: Vec<Result<Vec<u8>, std::io::Error>> = message.chunks(11).map(|c| Ok(c.to_vec())).collect();
    let mut answer = client()
        .post(format!("{}/ohttp/{}", relay.url, id(1)))
        .header("content-type", CHUNKED_REQUEST_TYPE)
        .body(reqwest::Body::wrap_stream(futures::stream::iter(parts)))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.headers()["content-type"], CHUNKED_RESPONSE_TYPE);
    let (mut text, mut times) = (Vec::new(), Vec::new());
    while let Some(piece) = answer.chunk().await.unwrap() {
        for part in opener.push(&piece).unwrap() {
            times.push(Instant::now());
            text.extend(part);
        }
    }
    text.extend(opener.finish().unwrap());
    assert_eq!(text, ANSWER);
    assert_eq!(times.len(), ANSWER.len().div_ceil(7));
    let spread = times.last().unwrap().duration_since(times[0]);
    assert!(
        spread >= Duration::from_millis(300),
        "pieces came one by one, over {spread:?}"
    );
    let seen = shared.seen.lock().unwrap().pop().unwrap();
    assert_eq!(
        (seen.plain.as_slice(), seen.headers["incremental"].to_str().unwrap()),
        (QUESTION, "?1")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_answer_is_noticed_by_the_client() {
    let (gateway, _) = gateway(0, true).await;
    let relay = Relay::start(gateway, "");
    relay.ready().await;
    let key = keys(&relay).await;
    let (mut message, mut sealer, mut opener) = Client::new(&key, Suite::Aes128Gcm).unwrap().start(&[5; 32]).unwrap();
    message.extend(sealer.finish(QUESTION).unwrap());
    let request = client()
        .post(format!("{}/ohttp/{}", relay.url, id(1)))
        .header("content-type", CHUNKED_REQUEST_TYPE);
    let bytes = request.body(message).send().await.unwrap().bytes().await.unwrap();
    let text = opener.push(&bytes).unwrap().concat();
    assert_eq!(text, ANSWER, "what came before the cut is authentic");
    assert!(matches!(opener.finish(), Err(SealedError::Truncated { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_relay_refuses() {
    let (gateway, shared) = gateway(0, false).await;
    let relay = Relay::start(gateway, "[relay]\nbody_bytes = 1000\nrequests_per_minute = 12\n");
    relay.ready().await;
    let post = |node: String, kind: &'static str, body: Vec<u8>| {
        client()
            .post(format!("{}/ohttp/{node}", relay.url))
            .header("content-type", kind)
            .body(body)
            .send()
    };
    let code = |answer: reqwest::Response| async { answer.json::<Value>().await.unwrap()["error"]["code"].clone() };
    let here = id(1).to_string();
    let wrong_type = post(here.clone(), "application/json", vec![1]).await.unwrap();
    assert_eq!(wrong_type.status(), 415);
    assert_eq!(code(wrong_type).await, "unsupported_media_type");
    assert_eq!(
        post(id(9).to_string(), REQUEST_TYPE, vec![1]).await.unwrap().status(),
        404
    );
    assert_eq!(post("zzz".into(), REQUEST_TYPE, vec![1]).await.unwrap().status(), 400);
    assert_eq!(
        post(here.clone(), REQUEST_TYPE, vec![1; 1001]).await.unwrap().status(),
        413
    );
    let endless = futures::stream::iter((0..200).map(|_| Ok::<_, std::io::Error>(vec![1; 100])));
    let endless = client()
        .post(format!("{}/ohttp/{here}", relay.url))
        .header("content-type", REQUEST_TYPE)
        .body(reqwest::Body::wrap_stream(endless));
    // The refusal may cross with the rest of the upload.
    if let Ok(answer) = endless.send().await {
        assert_eq!(answer.status(), 413);
    }
    assert!(
        shared.seen.lock().unwrap().is_empty(),
        "nothing of this reached the gateway whole"
    );
    // A request that the gateway cannot open: its problem comes back in the clear.
    let problem = post(here.clone(), REQUEST_TYPE, vec![0; 64]).await.unwrap();
    assert_eq!(
        (
            problem.status().as_u16(),
            problem.headers()["content-type"].to_str().unwrap()
        ),
        (400, "application/problem+json")
    );
    let mut statuses = Vec::new();
    for _ in 0..10 {
        statuses.push(
            post(here.clone(), REQUEST_TYPE, vec![0; 64])
                .await
                .unwrap()
                .status()
                .as_u16(),
        );
    }
    assert_eq!((statuses[0], *statuses.last().unwrap()), (400, 429), "{statuses:?}");
    // Another address has its own bucket.
    let other = reqwest::Client::new()
        .get(format!("{}/ohttp/{here}/keys", relay.url))
        .send()
        .await
        .unwrap();
    assert_eq!(other.status(), 200);
    let metrics = reqwest::get(format!("{}/metrics", relay.url))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        !metrics.contains("127.") && metrics.contains("route=\"relay\",status=\"429\""),
        "{metrics}"
    );
}
