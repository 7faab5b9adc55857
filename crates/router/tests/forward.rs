//! Forwarding: who gets a request, what passes, what happens to failures. Nodes are servers in this process.

mod common;

use axum::body::Bytes;
use common::{Chunk, FakeNode, MODEL, ask, config, entry, router};
use opg_router::RouterHandle;
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

fn chat(router: &RouterHandle) -> String {
    format!("{}/v1/chat/completions", router.url())
}

async fn metric(router: &RouterHandle, name: &str) -> u64 {
    let text = reqwest::get(format!("{}/metrics", router.url()))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn a_quote_and_its_payment_go_to_the_same_node() {
    let nodes = [
        FakeNode::start(1).await,
        FakeNode::start(2).await,
        FakeNode::start(3).await,
    ];
    let router = router(config(&nodes.iter().collect::<Vec<_>>())).await;
    let http = reqwest::Client::new();
    let mut quoted: HashMap<String, usize> = HashMap::new();
    for _ in 0..60 {
        let quote = http.post(chat(&router)).json(&ask(MODEL)).send().await.unwrap();
        assert_eq!(quote.status(), 402);
        assert!(quote.headers().contains_key("payment-required"));
        *quoted
            .entry(quote.headers()["x-opg-node"].to_str().unwrap().to_owned())
            .or_default() += 1;
    }
    assert_eq!(quoted.len(), 3, "quotes are spread: {quoted:?}");
    let before: Vec<usize> = nodes.iter().map(|n| n.seen().len()).collect();
    for node in &nodes {
        for _ in 0..5 {
            let body = ask(MODEL).to_string();
            let paid = http
                .post(chat(&router))
                .header("payment-signature", node.payment())
                .header("x-forwarded-for", "203.0.113.5")
                .header("cookie", "a=b")
                .header("x-opg-extra", "kept")
                .body(body.clone())
                .send()
                .await
                .unwrap();
            assert_eq!(paid.status(), 200);
            let headers = paid.headers().clone();
            assert_eq!(headers["x-opg-node"].to_str().unwrap(), node.it.id.to_string());
            for kept in [
                "x-opg-receipt-id",
                "x-opg-receipt-secret",
                "payment-response",
                "x-opg-something-new",
            ] {
                assert!(headers.contains_key(kept), "{kept}");
            }
            assert!(!headers.contains_key("set-cookie"));
            assert_eq!(headers["access-control-allow-origin"], "*");
            assert_eq!(paid.text().await.unwrap(), "data: {\"n\":1}\n\ndata: [DONE]\n\n");
            let seen = node.seen().pop().unwrap();
            assert_eq!(
                (seen.path.as_str(), &seen.body[..]),
                ("/v1/chat/completions", body.as_bytes())
            );
            assert_eq!(seen.headers["x-opg-extra"], "kept");
            assert_eq!(seen.headers["payment-signature"], node.payment().as_str());
            assert!(!seen.headers.contains_key("x-forwarded-for") && !seen.headers.contains_key("cookie"));
        }
    }
    for (node, before) in nodes.iter().zip(before) {
        assert_eq!(node.seen().len(), before + 5, "each node got its own payments only");
    }
    router.shutdown().await.unwrap();
}

#[tokio::test]
async fn payments_for_nobody_are_refused() {
    let (node, stranger) = (FakeNode::start(1).await, FakeNode::start(9).await);
    let router = router(config(&[&node])).await;
    let http = reqwest::Client::new();
    let refused = http
        .post(chat(&router))
        .header("payment-signature", stranger.payment())
        .json(&ask(MODEL))
        .send()
        .await
        .unwrap();
    assert_eq!(refused.status(), 400);
    assert_eq!(
        refused.json::<Value>().await.unwrap()["error"]["code"],
        "payment_node_unknown"
    );
    let garbage = http
        .post(chat(&router))
        .header("payment-signature", "%%")
        .json(&ask(MODEL))
        .send()
        .await
        .unwrap();
    assert_eq!(garbage.status(), 400);
    assert!(node.seen().is_empty());
}

#[tokio::test]
async fn bad_requests_are_the_callers_affair() {
    let node = FakeNode::start(1).await;
    let mut config = config(&[&node]);
    config.limits.body_bytes = 10_000;
    let router = router(config).await;
    let http = reqwest::Client::new();
    let post = |body: String| http.post(chat(&router)).body(body).send();
    let code =
        |response: reqwest::Response| async move { response.json::<Value>().await.unwrap()["error"]["code"].clone() };
    let unknown = post(ask("nobody/serves-this").to_string()).await.unwrap();
    assert_eq!(unknown.status(), 404);
    assert_eq!(code(unknown).await, "model_not_found");
    for bad in ["", "[]", "{}", "not json", "{\"model\": 5}"] {
        let refused = post(bad.into()).await.unwrap();
        assert_eq!(refused.status(), 400, "{bad}");
        assert_eq!(code(refused).await, "missing_parameter");
    }
    assert_eq!(post("x".repeat(10_001)).await.unwrap().status(), 413);
    // Without a length, found out on the way; unpaid and paid.
    let stream = || {
        let parts = futures::stream::iter((0..20).map(|_| Ok::<_, std::io::Error>(Bytes::from(vec![b' '; 1000]))));
        reqwest::Body::wrap_stream(parts)
    };
    assert_eq!(
        http.post(chat(&router)).body(stream()).send().await.unwrap().status(),
        413
    );
    let paid = http
        .post(chat(&router))
        .header("payment-signature", node.payment())
        .body(stream())
        .send()
        .await
        .unwrap();
    assert_eq!(paid.status(), 413);
    for (method, path, status) in [
        ("GET", "/v1/chat/completions", 405),
        ("GET", "/nowhere", 404),
        ("POST", "/v1/models", 405),
    ] {
        let url = format!("{}{path}", router.url());
        let answer = http.request(method.parse().unwrap(), url).send().await.unwrap();
        assert_eq!(answer.status(), status);
        assert!(answer.json::<Value>().await.unwrap()["error"]["message"].is_string());
    }
    // None of this was the node's fault.
    assert_eq!(
        http.post(chat(&router))
            .json(&ask(MODEL))
            .send()
            .await
            .unwrap()
            .status(),
        402
    );
}

#[tokio::test]
async fn models_are_merged_and_looked_up() {
    let (a, b) = (FakeNode::start(1).await, FakeNode::start(2).await);
    b.it.models.lock().unwrap().push(entry("demo/other", "5"));
    let router = router(config(&[&a, &b])).await;
    let get = |path: &str| reqwest::get(format!("{}{path}", router.url()));
    let list: Value = get("/v1/models").await.unwrap().json().await.unwrap();
    let ids: Vec<&str> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].as_str().unwrap())
        .collect();
    assert_eq!(
        (list["object"].as_str().unwrap(), ids),
        ("list", vec!["demo/other", MODEL])
    );
    assert_eq!(list["data"][1]["nodes"].as_array().unwrap().len(), 2);
    let one: Value = get("/v1/models/demo/tiny").await.unwrap().json().await.unwrap();
    assert_eq!(one["nodes"][0]["price"]["per_call"], "1000");
    assert_eq!(get("/v1/models/demo/none").await.unwrap().status(), 404);
    // A model of one node only goes there, by name and by root.
    for _ in 0..5 {
        let http = reqwest::Client::new();
        let quote = http.post(chat(&router)).json(&ask("demo/other")).send().await.unwrap();
        assert_eq!(quote.headers()["x-opg-node"].to_str().unwrap(), b.it.id.to_string());
        let by_root = http
            .post(chat(&router))
            .json(&ask(&"5a".repeat(32)))
            .send()
            .await
            .unwrap();
        assert_eq!(by_root.status(), 402);
    }
}

#[tokio::test]
async fn a_stream_passes_piece_by_piece_and_uploads_do_too() {
    let node = FakeNode::start(1).await;
    *node.it.chunks.lock().unwrap() = vec![Chunk::Bytes("one"), Chunk::Wait(2_000), Chunk::Bytes("two")];
    let router = router(config(&[&node])).await;
    let http = reqwest::Client::new();
    let mut answer = http
        .post(chat(&router))
        .header("payment-signature", node.payment())
        .json(&ask(MODEL))
        .send()
        .await
        .unwrap();
    let started = Instant::now();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "one");
    assert!(
        started.elapsed() < Duration::from_millis(1_500),
        "the first piece does not wait for the second"
    );
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "two");
    assert!(answer.chunk().await.unwrap().is_none());

    // The node gets the first part of a paid upload before the rest is sent.
    let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
    let body = futures::stream::unfold(receiver, |mut r| async { r.recv().await.map(|x| (x, r)) });
    let request = http
        .post(chat(&router))
        .header("payment-signature", node.payment())
        .body(reqwest::Body::wrap_stream(body));
    let sending = tokio::spawn(request.send());
    sender
        .send(Ok(Bytes::from("{\"model\": \"demo/tiny\", ")))
        .await
        .unwrap();
    for _ in 0..100 {
        if node.it.running.load(Ordering::SeqCst) == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(
        node.it.running.load(Ordering::SeqCst),
        1,
        "the node is at work on a request that is not whole yet"
    );
    sender.send(Ok(Bytes::from("\"messages\": []}"))).await.unwrap();
    drop(sender);
    assert_eq!(sending.await.unwrap().unwrap().status(), 200);
    assert_eq!(
        &node.seen().pop().unwrap().body[..],
        b"{\"model\": \"demo/tiny\", \"messages\": []}"
    );
}

#[tokio::test]
async fn an_answer_that_breaks_at_the_node_breaks_at_the_client() {
    let node = FakeNode::start(1).await;
    *node.it.chunks.lock().unwrap() = vec![Chunk::Bytes("data: 1\n\n"), Chunk::Wait(50), Chunk::Break];
    let router = router(config(&[&node])).await;
    let http = reqwest::Client::new();
    let mut answer = http
        .post(chat(&router))
        .header("payment-signature", node.payment())
        .json(&ask(MODEL))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.chunk().await.unwrap().unwrap(), "data: 1\n\n");
    assert!(answer.chunk().await.is_err(), "a cut answer must not look whole");
    assert_eq!(node.seen().len(), 1, "a paid request is never sent again");
}

#[tokio::test]
async fn a_client_that_leaves_takes_its_request_along() {
    let node = FakeNode::start(1).await;
    *node.it.chunks.lock().unwrap() = vec![Chunk::Bytes("x"), Chunk::Wait(60_000), Chunk::Bytes("y")];
    let router = router(config(&[&node])).await;
    let mut answer = reqwest::Client::new()
        .post(chat(&router))
        .header("payment-signature", node.payment())
        .json(&ask(MODEL))
        .send()
        .await
        .unwrap();
    answer.chunk().await.unwrap();
    drop(answer);
    // Nothing is left running that would hold up a shutdown.
    router.shutdown().await.unwrap();
}

#[tokio::test]
async fn unpaid_requests_go_elsewhere_after_a_failure_and_paid_ones_do_not() {
    let (bad, good) = (FakeNode::start(1).await, FakeNode::start(2).await);
    bad.it.fail.store(500, Ordering::SeqCst);
    let router = router(config(&[&bad, &good])).await;
    let http = reqwest::Client::new();
    for _ in 0..30 {
        let quote = http.post(chat(&router)).json(&ask(MODEL)).send().await.unwrap();
        assert_eq!(quote.status(), 402);
        assert_eq!(quote.headers()["x-opg-node"].to_str().unwrap(), good.it.id.to_string());
    }
    assert_eq!(bad.seen().len(), 3, "after three failures the node is parked");
    assert_eq!(metric(&router, "opg_router_failovers_total").await, 3);
    assert_eq!(metric(&router, "opg_router_parked_total").await, 1);
    let paid = http
        .post(chat(&router))
        .header("payment-signature", bad.payment())
        .json(&ask(MODEL))
        .send()
        .await
        .unwrap();
    assert_eq!(paid.status(), 500, "the node's own answer");
    assert_eq!(paid.json::<Value>().await.unwrap()["error"]["code"], "told");
    assert_eq!(bad.seen().len(), 4);
    let health: Value = reqwest::get(format!("{}/health", router.url()))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(health["nodes"], json!({"known": 2, "up": 2, "parked": 1}));
    assert_eq!(health["weights"]["success"], 0.35);
}

#[tokio::test]
async fn faults_of_callers_park_nobody() {
    let node = FakeNode::start(1).await;
    node.it.fail.store(422, Ordering::SeqCst);
    let router = router(config(&[&node])).await;
    let http = reqwest::Client::new();
    for _ in 0..10 {
        assert_eq!(
            http.post(chat(&router))
                .json(&ask(MODEL))
                .send()
                .await
                .unwrap()
                .status(),
            422
        );
    }
    node.it.fail.store(0, Ordering::SeqCst);
    assert_eq!(
        http.post(chat(&router))
            .json(&ask(MODEL))
            .send()
            .await
            .unwrap()
            .status(),
        402
    );
}

#[tokio::test]
async fn a_slow_quote_is_hedged_and_a_paid_request_never() {
    let (slow, fast) = (FakeNode::start(1).await, FakeNode::start(2).await);
    slow.it.delay.store(5_000, Ordering::SeqCst);
    let mut config = config(&[&slow, &fast]);
    config.quality.hedge_ms = [50, 100];
    let router = router(config).await;
    let http = reqwest::Client::new();
    for _ in 0..20 {
        let started = Instant::now();
        let quote = http.post(chat(&router)).json(&ask(MODEL)).send().await.unwrap();
        assert_eq!(quote.status(), 402);
        assert!(started.elapsed() < Duration::from_secs(4));
    }
    assert!(!slow.seen().is_empty());
    assert!(metric(&router, "opg_router_hedges_total").await >= 1);
    // What lost a race may still be on its way.
    tokio::time::sleep(Duration::from_millis(200)).await;
    let (before_slow, before_fast) = (slow.seen().len(), fast.seen().len());
    *slow.it.chunks.lock().unwrap() = vec![Chunk::Wait(600), Chunk::Bytes("late")];
    let paid = http
        .post(chat(&router))
        .header("payment-signature", slow.payment())
        .json(&ask(MODEL))
        .send()
        .await
        .unwrap();
    assert_eq!(paid.text().await.unwrap(), "late");
    assert_eq!((slow.seen().len(), fast.seen().len()), (before_slow + 1, before_fast));
}

#[tokio::test]
async fn better_nodes_get_more() {
    let (cheap, dear) = (FakeNode::start(1).await, FakeNode::start(2).await);
    *dear.it.models.lock().unwrap() = vec![entry(MODEL, "4000")];
    let router = router(config(&[&cheap, &dear])).await;
    let http = reqwest::Client::new();
    // One of the two fails half of its paid requests by breaking off.
    for round in 0..12 {
        for node in [&cheap, &dear] {
            let breaks = std::ptr::eq(node, &dear) && round % 4 == 0;
            *node.it.chunks.lock().unwrap() = if breaks {
                vec![Chunk::Break]
            } else {
                vec![Chunk::Bytes("ok")]
            };
            let request = http
                .post(chat(&router))
                .header("payment-signature", node.payment())
                .json(&ask(MODEL));
            if let Ok(answer) = request.send().await {
                let _ = answer.bytes().await;
            }
        }
    }
    let mut cheap_quotes = 0;
    for _ in 0..300 {
        let quote = http.post(chat(&router)).json(&ask(MODEL)).send().await.unwrap();
        cheap_quotes += usize::from(quote.headers()["x-opg-node"].to_str().unwrap() == cheap.it.id.to_string());
    }
    // Scores differ by price (16 to 1, weight 0.15) and success (about 0.75 to 1, weight 0.35).
    assert!((160..250).contains(&cheap_quotes), "{cheap_quotes} of 300");
}

#[tokio::test]
async fn receipts_come_from_their_node_with_their_secret() {
    let (a, b) = (FakeNode::start(1).await, FakeNode::start(2).await);
    let router = router(config(&[&a, &b])).await;
    let http = reqwest::Client::new();
    let paid = http
        .post(chat(&router))
        .header("payment-signature", a.payment())
        .json(&ask(MODEL))
        .send()
        .await
        .unwrap();
    let id = paid.headers()["x-opg-receipt-id"].to_str().unwrap().to_owned();
    paid.bytes().await.unwrap();
    // The other node claims the same receipt: too late.
    *b.it.receipt.lock().unwrap() = id.clone();
    let stolen = http
        .post(chat(&router))
        .header("payment-signature", b.payment())
        .json(&ask(MODEL))
        .send()
        .await
        .unwrap();
    stolen.bytes().await.unwrap();
    let (a_before, b_before) = (a.seen().len(), b.seen().len());
    let receipt = http
        .get(format!("{}/v1/receipts/{id}", router.url()))
        .bearer_auth("s3cret")
        .send()
        .await
        .unwrap();
    assert_eq!(receipt.json::<Value>().await.unwrap()["node"], a.it.id.to_string());
    assert_eq!((a.seen().len(), b.seen().len()), (a_before + 1, b_before));
    assert_eq!(a.seen().pop().unwrap().headers["authorization"], "Bearer s3cret");
    // A node that is named gets the question.
    let other = format!("0x{}", "cd".repeat(32));
    let named = http
        .get(format!("{}/v1/receipts/{other}", router.url()))
        .header("x-opg-node", b.it.id.to_string())
        .send()
        .await
        .unwrap();
    assert_eq!(named.json::<Value>().await.unwrap()["node"], b.it.id.to_string());
    let unknown = http
        .get(format!("{}/v1/receipts/{other}", router.url()))
        .bearer_auth("s3cret")
        .send()
        .await
        .unwrap();
    assert_eq!(unknown.status(), 404);
    assert_eq!(
        http.get(format!("{}/v1/receipts/xyz", router.url()))
            .send()
            .await
            .unwrap()
            .status(),
        400
    );
    assert_eq!(
        (a.seen().len(), b.seen().len()),
        (a_before + 1, b_before + 1),
        "secrets are not shown around"
    );
}

#[tokio::test]
async fn rates_and_slots_are_bounded() {
    let node = FakeNode::start(1).await;
    let mut limited = config(&[&node]);
    limited.limits.requests_per_minute = 3;
    let router_a = router(limited).await;
    let http = reqwest::Client::new();
    for _ in 0..3 {
        assert_eq!(
            http.post(chat(&router_a))
                .json(&ask(MODEL))
                .send()
                .await
                .unwrap()
                .status(),
            402
        );
    }
    let refused = http.post(chat(&router_a)).json(&ask(MODEL)).send().await.unwrap();
    assert_eq!(refused.status(), 429);
    assert!(refused.headers().contains_key("retry-after"));

    let mut narrow = config(&[&node]);
    narrow.limits.concurrent = 2;
    narrow.limits.held_bytes = 4096;
    let router_b = router(narrow).await;
    let big = json!({"model": MODEL, "pad": "x".repeat(20_000)});
    assert_eq!(
        http.post(chat(&router_b)).json(&big).send().await.unwrap().status(),
        503,
        "more than may be held"
    );
    *node.it.chunks.lock().unwrap() = vec![Chunk::Bytes("x"), Chunk::Wait(1_000), Chunk::Bytes("y")];
    let pay = || {
        http.post(chat(&router_b))
            .header("payment-signature", node.payment())
            .json(&ask(MODEL))
            .send()
    };
    let (first, second) = (pay().await.unwrap(), pay().await.unwrap());
    assert_eq!(
        pay().await.unwrap().status(),
        503,
        "a request counts until its answer has left"
    );
    first.bytes().await.unwrap();
    second.bytes().await.unwrap();
    *node.it.chunks.lock().unwrap() = vec![];
    assert_eq!(pay().await.unwrap().status(), 200);
}

#[tokio::test]
async fn shutdown_lets_running_answers_end_and_refuses_new_ones() {
    let node = FakeNode::start(1).await;
    *node.it.chunks.lock().unwrap() = vec![Chunk::Bytes("a"), Chunk::Wait(500), Chunk::Bytes("b")];
    let router = router(config(&[&node])).await;
    let url = chat(&router);
    let answer = reqwest::Client::new()
        .post(&url)
        .header("payment-signature", node.payment())
        .json(&ask(MODEL))
        .send()
        .await
        .unwrap();
    let reading = tokio::spawn(answer.text());
    let stopping = tokio::spawn(router.shutdown());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(
        reqwest::Client::new()
            .post(&url)
            .json(&ask(MODEL))
            .send()
            .await
            .is_err()
    );
    assert_eq!(reading.await.unwrap().unwrap(), "ab");
    stopping.await.unwrap().unwrap();
}

#[tokio::test]
async fn clients_that_stop_reading_or_writing_are_cut_off() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let node = FakeNode::start(1).await;
    let piece: &'static str = "x".repeat(1 << 20).leak();
    *node.it.chunks.lock().unwrap() = vec![Chunk::Bytes(piece); 64];
    let mut config = config(&[&node]);
    config.limits.idle_seconds = 1;
    config.limits.concurrent = 1;
    let router = router(config).await;
    // A head that never ends.
    let mut half = tokio::net::TcpStream::connect(router.address()).await.unwrap();
    half.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    // A body that trickles in.
    let mut trickle = tokio::net::TcpStream::connect(router.address()).await.unwrap();
    trickle
        .write_all(b"POST /v1/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n")
        .await
        .unwrap();
    let started = Instant::now();
    let mut answer = [0; 12];
    loop {
        trickle.write_all(b" ").await.unwrap();
        let waited = tokio::time::timeout(Duration::from_millis(300), trickle.read_exact(&mut answer)).await;
        if waited.is_ok() {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(30));
    }
    assert_eq!(&answer, b"HTTP/1.1 408");
    // An answer that nobody reads: it takes the only slot.
    let mut deaf = tokio::net::TcpStream::connect(router.address()).await.unwrap();
    let body = ask(MODEL).to_string();
    let head = format!(
        "POST /v1/infer HTTP/1.1\r\nhost: x\r\npayment-signature: {}\r\ncontent-length: {}\r\n\r\n{body}",
        node.payment(),
        body.len()
    );
    deaf.write_all(head.as_bytes()).await.unwrap();
    let http = reqwest::Client::new();
    // Taken, and free again when the time of the client is over.
    for expected in [503, 402] {
        let status = async {
            while http
                .post(chat(&router))
                .json(&ask(MODEL))
                .send()
                .await
                .unwrap()
                .status()
                != expected
            {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), status).await.unwrap();
    }
    let mut rest = Vec::new();
    half.read_to_end(&mut rest).await.unwrap();
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
}

/// A measurement: `cargo test --release -p opg-router --test forward -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, asserts nothing"]
async fn overhead() {
    let node = FakeNode::start(1).await;
    let mut config = config(&[&node]);
    config.limits.requests_per_minute = u32::MAX;
    let router = router(config).await;
    let http = reqwest::Client::new();
    for (name, base) in [("direct", node.url.clone()), ("router", router.url())] {
        for (what, payment) in [("quote", None), ("paid", Some(node.payment()))] {
            let mut times = Vec::new();
            for _ in 0..2_000 {
                let started = Instant::now();
                let mut request = http.post(format!("{base}/v1/chat/completions")).json(&ask(MODEL));
                if let Some(payment) = &payment {
                    request = request.header("payment-signature", payment);
                }
                request.send().await.unwrap().bytes().await.unwrap();
                times.push(started.elapsed());
            }
            times.sort_unstable();
            println!("{name} {what}: p50 {:?}, p99 {:?}", times[1_000], times[1_980]);
        }
        let started = Instant::now();
        let work = (0..16).map(|_| async {
            for _ in 0..500 {
                let request = http.post(format!("{base}/v1/chat/completions")).json(&ask(MODEL));
                request.send().await.unwrap().bytes().await.unwrap();
            }
        });
        futures::future::join_all(work).await;
        println!(
            "{name}: {:.0} quotes a second, 16 at a time",
            8_000.0 / started.elapsed().as_secs_f64()
        );
    }
}
