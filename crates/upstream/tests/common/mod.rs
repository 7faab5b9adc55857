//! Answers in the providers' own forms, and servers that give them.
#![allow(unreachable_pub, reason = "shared by several test programs")]
#![allow(dead_code, reason = "every test file uses a part of this")]

use axum::{
    Router,
    body::{Body, Bytes},
    http::{HeaderMap, StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use hyper_util::rt::TokioIo;
use opg_upstream::{ApiKey, ChatRequest, Delta, Provider, Roots, StreamReader, Target, Upstream, UpstreamConfig};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub const PROVIDERS: [Provider; 4] = [Provider::OpenAi, Provider::Anthropic, Provider::Google, Provider::Xai];

/// A streamed answer: text, calls, usage, and the provider's end.
pub fn stream(provider: Provider) -> &'static [u8] {
    match provider {
        Provider::OpenAi | Provider::Compatible => include_bytes!("../recorded/openai.sse"),
        Provider::Anthropic => include_bytes!("../recorded/anthropic.sse"),
        Provider::Google => include_bytes!("../recorded/google.sse"),
        Provider::Xai => include_bytes!("../recorded/xai.sse"),
    }
}

/// The same, whole.
pub fn whole(provider: Provider) -> &'static [u8] {
    match provider {
        Provider::OpenAi | Provider::Compatible => include_bytes!("../recorded/openai.json"),
        Provider::Anthropic => include_bytes!("../recorded/anthropic.json"),
        Provider::Google => include_bytes!("../recorded/google.json"),
        Provider::Xai => include_bytes!("../recorded/xai.json"),
    }
}

/// A conversation with everything in it that every provider can do.
pub fn conversation() -> Value {
    let call = json!({"id": "call_old1", "type": "function", "function": {"name": "get_time", "arguments": "{\"zone\": \"CET\"}"}});
    let parameters = json!({"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]});
    json!({
        "model": "any/model",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Use tools."}]},
            {"role": "user", "content": "What time is it?"},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_old1", "content": "12:00"},
            {"role": "user", "content": [{"type": "text", "text": "And the weather"}, {"type": "text", "text": " in Zürich?"}]},
        ],
        "tools": [
            {"type": "function", "function": {"name": "get_weather", "description": "Weather of a city", "parameters": parameters}},
            {"type": "function", "function": {"name": "get_time"}},
        ],
        "tool_choice": "required",
        "stop": ["END"],
        "temperature": 0.5,
        "max_tokens": 256,
        "user": "0x1234567890",
        "metadata": {"wallet": "0x1234567890"},
    })
}

pub fn request(value: &Value) -> ChatRequest {
    ChatRequest::parse(value.as_object().unwrap()).unwrap()
}

/// Every piece of a stream that is given in pieces of `size`.
pub fn read_in(provider: Provider, bytes: &[u8], size: usize) -> Result<Vec<Delta>, opg_upstream::AnswerError> {
    let mut reader = StreamReader::new(provider);
    let mut deltas = Vec::new();
    for piece in bytes.chunks(size) {
        deltas.extend(reader.push(piece)?);
    }
    deltas.extend(reader.finish()?);
    Ok(deltas)
}

/// What a client has put together at the end.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
pub struct Assembled {
    pub text: String,
    pub calls: Vec<(String, String, String)>,
    pub finish: Option<opg_upstream::Finish>,
    pub usage: Option<opg_upstream::Usage>,
}

pub fn assemble(deltas: &[Delta]) -> Assembled {
    let mut all = Assembled::default();
    for delta in deltas {
        match delta {
            Delta::Start | Delta::Refusal(_) => {}
            Delta::Text(text) => all.text.push_str(text),
            Delta::Call {
                index,
                start,
                arguments,
            } => {
                if let Some(start) = start {
                    assert_eq!(*index as usize, all.calls.len());
                    all.calls.push((start.id.clone(), start.name.clone(), String::new()));
                }
                all.calls[*index as usize].2.push_str(arguments);
            }
            Delta::Finish(finish) => all.finish = Some(*finish),
            Delta::Usage(usage) => all.usage = Some(*usage),
        }
    }
    all
}

/// A request as the server saw it.
#[derive(Debug, Clone)]
pub struct Seen {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Value,
}

pub type Log = Arc<Mutex<Vec<Seen>>>;

/// An authority, and a chain for a host.
pub struct Pki {
    pub roots: Roots,
    pub chain: Vec<Vec<u8>>,
    pub acceptor: TlsAcceptor,
}

pub fn pki(host: &str) -> Pki {
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![host.to_owned()])
        .unwrap()
        .signed_by(&key, &ca)
        .unwrap();
    let chain = vec![leaf.der().clone(), ca.der().clone()];
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            chain.clone(),
            rustls::pki_types::PrivateKeyDer::Pkcs8(key.serialize_der().into()),
        )
        .unwrap();
    Pki {
        roots: Roots::from_pem(&ca.pem()).unwrap(),
        chain: chain.iter().map(|c| c.to_vec()).collect(),
        acceptor: TlsAcceptor::from(Arc::new(config)),
    }
}

/// Serves with TLS, HTTP/1.1.
pub async fn serve_tls(acceptor: TlsAcceptor, app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (acceptor, app) = (acceptor.clone(), app.clone());
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(tcp).await else { return };
                let service = hyper_util::service::TowerToHyperService::new(app);
                let _ = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    address
}

pub async fn serve(app: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

/// A provider that gives its recorded answers, streams in pieces of `piece` bytes, and notes what it was asked.
pub fn provider(provider: Provider, piece: usize) -> (Router, Log) {
    let log = Log::default();
    let seen = Arc::clone(&log);
    let app = Router::new().fallback(move |uri: Uri, headers: HeaderMap, body: Bytes| {
        let seen = Arc::clone(&seen);
        async move {
            let path = uri.path_and_query().unwrap().to_string();
            let body: Value = serde_json::from_slice(&body).unwrap_or_default();
            let streamed = body["stream"] == true || path.contains("streamGenerateContent");
            seen.lock().unwrap().push(Seen { path, headers, body });
            if streamed {
                pieces(stream(provider), piece)
            } else {
                json_answer(whole(provider))
            }
        }
    });
    (app, log)
}

pub fn json_answer(body: &'static [u8]) -> Response {
    let head = [
        ("content-type", "application/json"),
        ("x-request-id", "req_42"),
        ("date", "Sat, 21 Nov 2026 12:00:00 GMT"),
    ];
    (StatusCode::OK, head, body).into_response()
}

/// An event stream in pieces.
pub fn pieces(bytes: &'static [u8], piece: usize) -> Response {
    let parts = futures::stream::iter(
        bytes
            .chunks(piece)
            .map(|c| Ok::<_, std::io::Error>(Bytes::from_static(c))),
    );
    let head = [
        ("content-type", "text/event-stream; charset=utf-8"),
        ("request-id", "req_43"),
    ];
    (StatusCode::OK, head, Body::from_stream(parts)).into_response()
}

/// The provider's own URL, but connected to `address` and with the test's roots.
pub fn config(provider: Provider, address: SocketAddr, roots: Roots) -> UpstreamConfig {
    let mut config = UpstreamConfig::new(Target::new(provider, model(provider))).unwrap();
    config.address = Some(address);
    config.roots = roots;
    config
}

/// A server on this machine without TLS.
pub fn plain(provider: Provider, address: SocketAddr) -> UpstreamConfig {
    UpstreamConfig::at(Target::new(provider, model(provider)), &format!("http://{address}/v1")).unwrap()
}

pub fn upstream(config: UpstreamConfig) -> Upstream {
    Upstream::new(config).unwrap()
}

pub fn key() -> ApiKey {
    ApiKey::new("sk-test-0123456789abcdef").unwrap()
}

pub const fn model(provider: Provider) -> &'static str {
    match provider {
        Provider::OpenAi => "gpt-5.2",
        Provider::Anthropic => "claude-sonnet-4-5",
        Provider::Google => "gemini-3-pro",
        Provider::Xai => "grok-4",
        Provider::Compatible => "tiny",
    }
}
