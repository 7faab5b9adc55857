//! The client against local servers: TLS, facts, keys, statuses, deadlines, cuts.

mod common;

use axum::{
    Router,
    body::{Body, Bytes},
    http::StatusCode,
    response::{IntoResponse as _, Response},
    routing::any,
};
use common::{
    PROVIDERS, assemble, config, conversation, key, pieces, pki, plain, provider, request, serve, serve_tls, stream,
    upstream, whole,
};
use opg_upstream::{AnswerError, ChatStream, Delta, Provider, Roots, UpstreamError, chain_hash};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

async fn all(stream: &mut ChatStream) -> Result<Vec<Delta>, UpstreamError> {
    let mut deltas = Vec::new();
    while let Some(delta) = stream.next().await? {
        deltas.push(delta);
    }
    Ok(deltas)
}

fn host(provider: Provider) -> &'static str {
    provider.base_url().unwrap().split('/').nth(2).unwrap()
}

#[tokio::test]
async fn every_provider_over_tls_with_facts() {
    for kind in PROVIDERS {
        let pki = pki(host(kind));
        let (app, log) = provider(kind, 7);
        let address = serve_tls(pki.acceptor, app).await;
        let upstream = upstream(config(kind, address, pki.roots));
        let asked = request(&conversation());

        let (answer, facts) = upstream.chat(Some(&key()), &asked).await.unwrap();
        assert_eq!(answer.text.as_deref(), Some("Grüße 🌍, \"world\""));
        assert_eq!(facts.host, host(kind));
        assert_eq!(facts.raw_sha256, <[u8; 32]>::from(Sha256::digest(whole(kind))));
        assert_eq!(
            (facts.raw_bytes, facts.complete, facts.status),
            (whole(kind).len() as u64, true, 200)
        );
        assert_eq!(
            (facts.request_id.as_deref(), facts.date.as_deref()),
            (Some("req_42"), Some("Sat, 21 Nov 2026 12:00:00 GMT"))
        );
        assert!(facts.reported.response_id.is_some() && facts.reported.model.is_some());
        let peer = facts.peer.clone().unwrap();
        assert_eq!(peer.version, "TLSv1_3");
        assert_eq!(peer.chain, pki.chain);
        assert_eq!(peer.chain_sha256, chain_hash(pki.chain.iter().map(Vec::as_slice)));

        let mut answering = upstream.chat_stream(Some(&key()), &asked).await.unwrap();
        let deltas = all(&mut answering).await.unwrap();
        assert_eq!(assemble(&deltas).text, "Grüße 🌍, \"world\"");
        let streamed = answering.facts();
        assert_eq!(streamed.raw_sha256, <[u8; 32]>::from(Sha256::digest(stream(kind))));
        assert_eq!(streamed.request_id.as_deref(), Some("req_43"));
        // The second request went over the first one's connection.
        assert!(Arc::ptr_eq(&peer, streamed.peer.as_ref().unwrap()));
        assert!(answering.next().await.unwrap().is_none());

        let seen = log.lock().unwrap().clone();
        assert_eq!(seen.len(), 2);
        let body = serde_json::to_vec(&seen[0].body).unwrap();
        assert_eq!(facts.request_sha256, <[u8; 32]>::from(Sha256::digest(&body)));
        for one in &seen {
            assert_eq!(one.headers["host"], host(kind));
            assert_eq!(one.headers["accept-encoding"], "identity");
            let secret = one
                .headers
                .values()
                .filter(|v| v.to_str().unwrap().contains("sk-test"))
                .count();
            assert_eq!(secret, 1);
            assert!(one.headers.len() <= 9, "{:?}", one.headers);
        }
        let path = match kind {
            Provider::Google => "/v1beta/models/gemini-3-pro:streamGenerateContent?alt=sse",
            Provider::Anthropic => "/v1/messages",
            _ => "/v1/chat/completions",
        };
        assert_eq!((seen[1].path.as_str(), streamed.path.as_str()), (path, path));
        if kind == Provider::Anthropic {
            assert_eq!(seen[0].headers["anthropic-version"], "2023-06-01");
        }
    }
}

#[tokio::test]
async fn a_peer_that_is_not_the_provider_gets_nothing() {
    let kind = Provider::Anthropic;
    let asked = request(&conversation());
    let (app, log) = provider(kind, 7);
    // Another name, under an authority that is believed.
    let wrong = pki("api.anthropic.com.evil.example");
    let address = serve_tls(wrong.acceptor, app.clone()).await;
    let refused = upstream(config(kind, address, wrong.roots))
        .chat(Some(&key()), &asked)
        .await
        .unwrap_err();
    assert!(matches!(refused, UpstreamError::Tls { .. }), "{refused}");
    // The right name, under an authority that is not in the Web PKI.
    let private = pki(host(kind));
    let address = serve_tls(private.acceptor, app.clone()).await;
    let refused = upstream(config(kind, address, Roots::WebPki))
        .chat(Some(&key()), &asked)
        .await
        .unwrap_err();
    assert!(matches!(refused, UpstreamError::Tls { .. }), "{refused}");
    // No TLS at all.
    let address = serve(app).await;
    let refused = upstream(config(kind, address, Roots::WebPki))
        .chat(Some(&key()), &asked)
        .await
        .unwrap_err();
    assert!(matches!(refused, UpstreamError::Tls { .. }), "{refused}");
    assert!(log.lock().unwrap().is_empty(), "no request, and so no key, has left");
    // Plain HTTP to somewhere else.
    let mut far = plain(kind, "192.0.2.1:80".parse().unwrap());
    far.deadlines.connect = Duration::from_millis(300);
    assert!(matches!(
        upstream(far).chat(Some(&key()), &asked).await.unwrap_err(),
        UpstreamError::Connect { .. } | UpstreamError::Timeout { .. }
    ));
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_is_replaced() {
    let kind = Provider::OpenAi;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&accepted);
    tokio::spawn(async move {
        // One answer per connection, closed without saying so before.
        while let Ok((mut tcp, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            read_request(&mut tcp).await;
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
                whole(kind).len()
            );
            tcp.write_all(&[head.as_bytes(), whole(kind)].concat()).await.unwrap();
        }
    });
    let upstream = upstream(plain(kind, address));
    for _ in 0..5 {
        upstream.chat(Some(&key()), &request(&conversation())).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(accepted.load(Ordering::SeqCst), 5);
}

async fn read_request(tcp: &mut tokio::net::TcpStream) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let n = tcp.read(&mut buffer).await.unwrap();
        bytes.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&bytes);
        if let Some(end) = text.find("\r\n\r\n") {
            let length: usize = text
                .lines()
                .find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok())
                .unwrap_or(0);
            if bytes.len() >= end + 4 + length || n == 0 {
                return;
            }
        }
    }
}

/// A server that writes these bytes and closes.
async fn raw(bytes: Vec<u8>) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            read_request(&mut tcp).await;
            let _ = tcp.write_all(&bytes).await;
            let _ = tcp.shutdown().await;
        }
    });
    address
}

#[tokio::test]
async fn cut_streams_are_errors_after_the_pieces_that_came() {
    for kind in PROVIDERS {
        let bytes = stream(kind);
        let asked = request(&conversation());
        // HTTP's framing is whole, the provider's last event is missing.
        let cut = bytes.len() - 60;
        let app = Router::new().fallback(any(move || async move { pieces(&stream(kind)[..cut], 50) }));
        let mut answering = upstream(plain(kind, serve(app).await))
            .chat_stream(None, &asked)
            .await
            .unwrap();
        let error = all(&mut answering).await.unwrap_err();
        assert!(
            matches!(error, UpstreamError::Answer(AnswerError::Truncated { .. })),
            "{kind}: {error}"
        );
        assert_eq!(error.code(), "upstream_truncated");
        assert!(answering.next().await.unwrap().is_none());

        // The connection breaks inside a chunk.
        let half = &bytes[..bytes.len() / 2];
        let head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunk = format!("{:x}\r\n", bytes.len());
        let address = raw([&head[..], chunk.as_bytes(), half].concat()).await;
        let mut answering = upstream(plain(kind, address)).chat_stream(None, &asked).await.unwrap();
        let (mut got, mut error) = (0, None);
        loop {
            match answering.next().await {
                Ok(Some(_)) => got += 1,
                Ok(None) => break,
                Err(e) => error = Some(e),
            }
        }
        assert!(matches!(error, Some(UpstreamError::Broken { .. })), "{kind}: {error:?}");
        assert!(got > 0 && !answering.facts().complete);
    }
}

#[tokio::test]
async fn statuses_come_as_typed_errors_without_the_key() {
    let limited = json!({"error": {"message": "Rate limit reached for sk-test-0123456789abcdef", "type": "requests", "code": "rate_limit_exceeded"}});
    let app = Router::new().fallback(any(move || {
        let limited = limited.clone();
        async move {
            (
                StatusCode::TOO_MANY_REQUESTS,
                [("retry-after", "7")],
                axum::Json(limited),
            )
        }
    }));
    let upstream = upstream(plain(Provider::OpenAi, serve(app).await));
    let asked = request(&conversation());
    let error = upstream.chat(Some(&key()), &asked).await.unwrap_err();
    assert_eq!(
        (error.client_status(), error.retry_after()),
        (429, Some(Duration::from_secs(7)))
    );
    let error = upstream.chat_stream(Some(&key()), &asked).await.unwrap_err();
    assert!(
        !format!("{error} {error:?} {upstream:?}").contains("sk-test"),
        "{error:?}"
    );
}

#[tokio::test]
async fn hostile_servers() {
    let asked = request(&conversation());
    let status = |app: Router| async move {
        let mut config = plain(Provider::OpenAi, serve(app).await);
        config.max_answer = 100_000;
        config.deadlines.first_byte = Duration::from_millis(400);
        config.deadlines.idle = Duration::from_millis(400);
        config.deadlines.total = Duration::from_secs(3);
        upstream(config)
    };
    let body = |response: fn() -> Response| Router::new().fallback(any(move || async move { response() }));

    // Longer than allowed, whole and streamed.
    let long = status(body(|| vec![b' '; 200_000].into_response())).await;
    assert!(matches!(
        long.chat(None, &asked).await,
        Err(UpstreamError::Answer(AnswerError::TooLong { .. }))
    ));
    let endless = status(body(|| {
        let forever = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(b"data: {}\n\n")));
        ([("content-type", "text/event-stream")], Body::from_stream(forever)).into_response()
    }))
    .await;
    let error = all(&mut endless.chat_stream(None, &asked).await.unwrap())
        .await
        .unwrap_err();
    assert!(
        matches!(error, UpstreamError::Answer(AnswerError::TooLong { .. })),
        "{error}"
    );

    // Silent: before the head, and inside the body.
    let silent = status(Router::new().fallback(any(|| async {
        tokio::time::sleep(Duration::from_secs(30)).await;
    })))
    .await;
    assert!(matches!(
        silent.chat(None, &asked).await,
        Err(UpstreamError::Timeout { .. })
    ));
    let stalled = status(body(|| {
        let first = futures::stream::once(async { Ok::<_, std::io::Error>(Bytes::from_static(b"data: {}\n\n")) });
        let never = futures::stream::pending();
        let both = futures::StreamExt::chain(first, never);
        ([("content-type", "text/event-stream")], Body::from_stream(both)).into_response()
    }))
    .await;
    let error = all(&mut stalled.chat_stream(None, &asked).await.unwrap())
        .await
        .unwrap_err();
    assert!(matches!(error, UpstreamError::Timeout { .. }), "{error}");

    // A drop of an answer every now and then does not outlast the total deadline.
    let slow = status(body(|| {
        let drops = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b": x\n\n")), ()))
        });
        ([("content-type", "text/event-stream")], Body::from_stream(drops)).into_response()
    }))
    .await;
    let error = all(&mut slow.chat_stream(None, &asked).await.unwrap())
        .await
        .unwrap_err();
    assert!(matches!(error, UpstreamError::Timeout { .. }), "{error}");

    // Not what was asked for.
    let packed = status(body(|| ([("content-encoding", "gzip")], "\x1f\x7f").into_response())).await;
    assert!(matches!(
        packed.chat(None, &asked).await,
        Err(UpstreamError::Answer(AnswerError::Malformed { .. }))
    ));
    let page = status(body(|| ([("content-type", "text/html")], "<html>").into_response())).await;
    assert!(page.chat_stream(None, &asked).await.is_err());
    let moved = status(body(|| {
        (StatusCode::TEMPORARY_REDIRECT, [("location", "https://evil.example/")]).into_response()
    }))
    .await;
    assert!(matches!(
        moved.chat(None, &asked).await,
        Err(UpstreamError::Status { status: 307, .. })
    ));

    // A head without end.
    let head = [&b"HTTP/1.1 200 OK\r\nx: "[..], &vec![b'a'; 300_000]].concat();
    let huge = upstream(plain(Provider::OpenAi, raw(head).await));
    assert!(matches!(
        huge.chat(None, &asked).await,
        Err(UpstreamError::Broken { .. })
    ));
    let garbage = upstream(plain(Provider::OpenAi, raw(b"SSH-2.0-OpenSSH\r\n".to_vec()).await));
    assert!(matches!(
        garbage.chat(None, &asked).await,
        Err(UpstreamError::Broken { .. })
    ));
}

#[tokio::test]
async fn a_stream_arrives_piece_by_piece() {
    let (sender, receiver) = tokio::sync::mpsc::channel::<Bytes>(1);
    let receiver = Arc::new(std::sync::Mutex::new(Some(receiver)));
    let app = Router::new().fallback(any(move || {
        let mut receiver = receiver.lock().unwrap().take().unwrap();
        async move {
            let body =
                futures::stream::poll_fn(move |cx| receiver.poll_recv(cx).map(|b| b.map(Ok::<_, std::io::Error>)));
            ([("content-type", "text/event-stream")], Body::from_stream(body)).into_response()
        }
    }));
    let upstream = upstream(plain(Provider::OpenAi, serve(app).await));
    let asked = request(&conversation());
    let (mut answering, ()) = tokio::join!(async { upstream.chat_stream(None, &asked).await.unwrap() }, async {
        let chunk: Value = json!({"choices": [{"index": 0, "delta": {"content": "one"}}]});
        sender.send(format!("data: {chunk}\n\n").into()).await.unwrap();
    });
    assert_eq!(answering.next().await.unwrap(), Some(Delta::Start));
    assert_eq!(answering.next().await.unwrap(), Some(Delta::Text("one".into())));
    // Nothing more has been sent yet: the piece above did not wait for it.
    let waiting = tokio::time::timeout(Duration::from_millis(100), answering.next()).await;
    assert!(waiting.is_err());
    let last: Value = json!({"choices": [{"index": 0, "delta": {"content": "two"}, "finish_reason": "stop"}]});
    sender
        .send(format!("data: {last}\n\ndata: [DONE]\n\n").into())
        .await
        .unwrap();
    drop(sender);
    let rest = all(&mut answering).await.unwrap();
    assert_eq!(
        rest,
        [Delta::Text("two".into()), Delta::Finish(opg_upstream::Finish::Stop)]
    );
}
