//! Real clients and a real server from PyPI.
//!
//! - The recorded answers are understood by the providers' own clients, and they read the same out of them as this crate.
//! - Our form of them is understood by OpenAI's client.
//! - Our requests fit the types of the providers' clients.
//! - A llama.cpp server answers, over TLS, whole and streamed.
//!
//! Skipped, loudly, where there is no Python or no package registry.

mod common;

use axum::{
    Json, Router,
    body::{Body, Bytes},
    response::{IntoResponse as _, Response},
    routing::post,
};
use common::{
    PROVIDERS, assemble, conversation, key, model, pki, plain, provider, request, serve, stream, upstream, whole,
};
use opg_upstream::{
    ApiKey, ChatRequest, Delta, Finish, Head, Provider, Target, Upstream, UpstreamConfig, UpstreamError, read_answer,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Mutex, PoisonError},
};
use tokio::net::{TcpListener, TcpStream};

static INSTALLING: Mutex<()> = Mutex::new(());

/// A virtual environment with the pinned packages, made once per target directory.
fn environment() -> Option<PathBuf> {
    let _alone = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/requirements.txt");
    let venv = Path::new(env!("CARGO_TARGET_TMPDIR")).join("upstream-venv");
    let done = venv.join("installed.txt");
    let pins = std::fs::read_to_string(&here).unwrap();
    if std::fs::read_to_string(&done).is_ok_and(|installed| installed == pins) {
        return Some(venv.join("bin/python"));
    }
    let made = Command::new("python3").args(["-m", "venv"]).arg(&venv).status();
    if !made.is_ok_and(|status| status.success()) {
        println!("SKIPPED: python3 -m venv does not work here");
        return None;
    }
    let python = venv.join("bin/python");
    let installed = Command::new(&python)
        .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"])
        .arg(&here)
        .status();
    if !installed.is_ok_and(|status| status.success()) {
        println!(
            "SKIPPED: the packages of {} cannot be installed; is a registry reachable?",
            here.display()
        );
        return None;
    }
    std::fs::write(done, pins).unwrap();
    Some(python)
}

async fn run(python: &Path, arguments: &[&str]) -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/clients.py");
    let mut command = Command::new(python);
    command.arg(script).args(arguments);
    for proxy in [
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ] {
        command.env_remove(proxy);
    }
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Text, calls with parsed arguments, and counts.
fn facts_of(value: &Value) -> Value {
    let calls: Vec<Value> = value["calls"]
        .as_array()
        .unwrap()
        .iter()
        .map(|call| {
            let arguments = match &call[2] {
                Value::String(text) => serde_json::from_str(text).unwrap(),
                other => other.clone(),
            };
            json!([call[1], arguments])
        })
        .collect();
    json!({"text": value["text"], "calls": calls, "prompt": value["prompt"], "completion": value["completion"]})
}

fn ours(provider: Provider, streamed: bool) -> Value {
    let (text, calls, usage): (_, Vec<_>, _) = if streamed {
        let bytes = stream(provider);
        let all = assemble(&common::read_in(provider, bytes, bytes.len()).unwrap());
        (all.text, all.calls, all.usage.unwrap())
    } else {
        let answer = read_answer(provider, whole(provider)).unwrap();
        let calls = answer.calls.into_iter().map(|c| (c.id, c.name, c.arguments)).collect();
        (answer.text.unwrap(), calls, answer.usage.unwrap())
    };
    let calls: Vec<Value> = calls.into_iter().map(|c| json!([c.0, c.1, c.2])).collect();
    facts_of(&json!({"text": text, "calls": calls, "prompt": usage.prompt, "completion": usage.completion}))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_providers_own_clients_read_the_same() {
    let Some(python) = environment() else { return };
    let mut urls = serde_json::Map::new();
    for kind in PROVIDERS {
        let address = serve(provider(kind, 11).0).await;
        urls.insert(kind.to_string(), json!(format!("http://{address}")));
    }
    let found = run(&python, &["providers", &Value::Object(urls).to_string()]).await;
    for kind in PROVIDERS {
        for (way, streamed) in [("stream", true), ("whole", false)] {
            let mut theirs = facts_of(&found[kind.as_str()][way]);
            let ours = ours(kind, streamed);
            if kind == Provider::Xai {
                // OpenAI's client shows xAI's own count, without hidden reasoning; the total has it.
                assert_eq!(
                    (&theirs["completion"], &found["xai"][way]["total"]),
                    (&json!(17), &json!(78))
                );
                theirs["completion"] = json!(21);
            }
            assert_eq!(theirs, ours, "{kind} {way}");
        }
    }
}

/// The node's face: our form of a provider's answer.
async fn face(Json(body): Json<Value>, upstreams: Vec<(Provider, Upstream)>) -> Response {
    let asked = ChatRequest::parse(body.as_object().unwrap()).unwrap();
    let name = body["model"].as_str().unwrap().to_owned();
    let upstream = &upstreams.iter().find(|(kind, _)| kind.as_str() == name).unwrap().1;
    let head = Head {
        id: "chatcmpl-face".into(),
        created: 1_790_000_000,
        model: name,
    };
    if !asked.stream {
        let (answer, _) = upstream.chat(Some(&key()), &asked).await.unwrap();
        return Json(head.whole(&answer)).into_response();
    }
    let mut answering = upstream.chat_stream(Some(&key()), &asked).await.unwrap();
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    tokio::spawn(async move {
        while let Some(delta) = answering.next().await.unwrap() {
            let event = format!("data: {}\n\n", head.chunk(&delta));
            let _ = sender.send(Ok::<_, std::io::Error>(Bytes::from(event))).await;
        }
        let _ = sender.send(Ok(Bytes::from_static(b"data: [DONE]\n\n"))).await;
    });
    let body = futures::stream::unfold(receiver, |mut r| async { r.recv().await.map(|x| (x, r)) });
    ([("content-type", "text/event-stream")], Body::from_stream(body)).into_response()
}

#[tokio::test(flavor = "multi_thread")]
async fn openais_client_reads_our_form_of_every_provider() {
    let Some(python) = environment() else { return };
    let mut upstreams = Vec::new();
    for kind in PROVIDERS {
        let address = serve(provider(kind, 5).0).await;
        upstreams.push((kind, upstream(plain(kind, address))));
    }
    let app = Router::new().route("/v1/chat/completions", post(move |body| face(body, upstreams.clone())));
    let url = format!("http://{}", serve(app).await);
    let mut arguments = vec!["face", &url];
    arguments.extend(PROVIDERS.iter().map(|p| p.as_str()));
    let found = run(&python, &arguments).await;
    for kind in PROVIDERS {
        for (way, streamed) in [("stream", true), ("whole", false)] {
            let theirs = &found[kind.as_str()][way];
            assert_eq!(facts_of(theirs), ours(kind, streamed), "{kind} {way}");
            assert_eq!(theirs["finish"], "tool_calls");
            let sum = theirs["prompt"].as_u64().unwrap() + theirs["completion"].as_u64().unwrap();
            assert_eq!(theirs["total"], sum);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn our_requests_fit_the_clients_types() {
    let Some(python) = environment() else { return };
    let mut plain = json!({"messages": [{"role": "user", "content": "Hi"}]});
    let mut streamed = conversation();
    streamed["stream"] = json!(true);
    streamed["tool_choice"] = json!({"type": "function", "function": {"name": "get_time"}});
    let image = json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}});
    plain["messages"][0]["content"] = json!([{"type": "text", "text": "What is this?"}, image]);
    let mut formatted = json!({"messages": [{"role": "user", "content": "Hi"}]});
    formatted["response_format"] = json!({"type": "json_schema", "json_schema": {"name": "n", "strict": true,
        "schema": {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": false}}});
    let mut strict = conversation();
    strict["tools"][0]["function"]["strict"] = json!(true);
    strict["tool_choice"] = json!("auto");
    let mut bodies = serde_json::Map::new();
    for kind in Provider::ALL {
        let mut target = Target::new(kind, model(kind));
        target.images = true;
        let all: Vec<Value> = [&conversation(), &plain, &streamed, &formatted, &strict]
            .into_iter()
            .map(|body| serde_json::from_slice(&target.request(&request(body)).unwrap().body).unwrap())
            .collect();
        bodies.insert(kind.to_string(), json!(all));
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("bodies.json");
    std::fs::write(&file, Value::Object(bodies).to_string()).unwrap();
    let found = run(&python, &["types", file.to_str().unwrap()]).await;
    assert_eq!(found["checked"], 25);
}

/// TLS in front of a server that has none.
async fn tls_proxy(acceptor: tokio_rustls::TlsAcceptor, behind: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut outside) = acceptor.accept(tcp).await else {
                    return;
                };
                let mut inside = TcpStream::connect(behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut outside, &mut inside).await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_llama_cpp_server_answers() {
    let Some(python) = environment() else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let weights = root.join("testing/fixtures/tiny-llama/trained-Q8_0.gguf");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python/llama.py");
    let mut server = Command::new(python)
        .arg(script)
        .args([weights.as_os_str(), "sk-local-0123456789".as_ref()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(server.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let behind: SocketAddr = line.trim().strip_prefix("http://").unwrap().parse().unwrap();

    let pki = pki("llama.internal");
    let mut config =
        UpstreamConfig::at(Target::new(Provider::Compatible, "tiny"), "https://llama.internal/v1").unwrap();
    config.address = Some(tls_proxy(pki.acceptor, behind).await);
    config.roots = pki.roots;
    let upstream = upstream(config);
    let key = ApiKey::new("sk-local-0123456789").unwrap();
    let asked = request(&json!({"messages": [
        {"role": "system", "content": "You are a licence."},
        {"role": "user", "content": "Permission is hereby granted, free of charge, to any person obtaining a copy"}],
        "max_tokens": 24, "temperature": 0, "seed": 7}));

    let (answer, facts) = upstream.chat(Some(&key), &asked).await.unwrap();
    let usage = answer.usage.unwrap();
    assert_eq!((answer.finish, usage.completion), (Finish::Length, 24));
    assert!(usage.prompt > 20);
    let text = answer.text.unwrap();
    assert!(!text.is_empty());
    assert!(facts.reported.response_id.unwrap().starts_with("chatcmpl-"));
    assert!(facts.complete && facts.peer.unwrap().chain == pki.chain);

    let mut answering = upstream.chat_stream(Some(&key), &asked).await.unwrap();
    let mut deltas = Vec::new();
    while let Some(delta) = answering.next().await.unwrap() {
        deltas.push(delta);
    }
    let all = assemble(&deltas);
    // The same weights, temperature 0: streamed and whole are the same text.
    assert_eq!(
        (all.text, all.finish, all.usage.unwrap().completion),
        (text, Some(Finish::Length), 24)
    );
    assert!(deltas.iter().filter(|d| matches!(d, Delta::Text(_))).count() >= 4);
    assert_ne!(answering.facts().raw_sha256, <[u8; 32]>::from(Sha256::digest(b"")));

    let wrong = ApiKey::new("sk-somebody-else").unwrap();
    assert_eq!(
        upstream.chat(Some(&wrong), &asked).await.unwrap_err(),
        UpstreamError::Key { status: 401 }
    );
    let long = "word ".repeat(2000);
    let too_long = request(&json!({"messages": [{"role": "user", "content": long}]}));
    let refused = upstream.chat(Some(&key), &too_long).await.unwrap_err();
    assert!(
        matches!(refused, UpstreamError::Refused { status: 400, .. }),
        "{refused}"
    );

    drop(server.stdin.take());
    let _ = server.kill();
    server.wait().unwrap();
}
