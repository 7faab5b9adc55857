//! Asking a provider.

use crate::{
    answer::{Answer, Delta},
    config::{ConfigError, UpstreamConfig, bad},
    connect::{Connection, Connector},
    error::{AnswerError, UpstreamError},
    facts::Facts,
    key::ApiKey,
    provider::{MAX_ANSWER, ProviderRequest, StreamReader, read_answer},
    request::ChatRequest,
    status,
    text::word,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use sha2::{Digest as _, Sha256};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout};
use zeroize::Zeroizing;

/// Largest explanation of a refusal that is read.
const MAX_REFUSAL: usize = 64 << 10;

/// One model of a provider.
#[derive(Debug, Clone)]
pub struct Upstream(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: UpstreamConfig,
    connector: Connector,
}

/// The time that one exchange may take.
#[derive(Debug, Clone, Copy)]
struct Clock {
    end: Instant,
}

impl Upstream {
    /// Sets a provider up. Nothing is sent yet.
    ///
    /// # Errors
    /// [`ConfigError`] names the field.
    pub fn new(config: UpstreamConfig) -> Result<Self, ConfigError> {
        if config.max_answer == 0 || config.max_answer > MAX_ANSWER {
            return Err(bad("max_answer", format!("must be 1 to {MAX_ANSWER}")));
        }
        let model = &config.target.model;
        if word(model).is_none() {
            return Err(bad("model", "must have 1 to 256 bytes of visible ASCII"));
        }
        if config.target.provider == crate::Provider::Google {
            crate::wire::google::path(model, false).map_err(|error| bad("model", error.message))?;
        }
        if config.target.max_tokens == 0 {
            return Err(bad("max_tokens", "must not be zero"));
        }
        let connector = Connector::new(&config)?;
        Ok(Self(Arc::new(Inner { config, connector })))
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &UpstreamConfig {
        &self.0.config
    }

    /// Asks for a whole answer, also if the request says `stream`.
    ///
    /// `key` is `None` for servers beside the node that want none.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn chat(&self, key: Option<&ApiKey>, request: &ChatRequest) -> Result<(Answer, Facts), UpstreamError> {
        let whole = ChatRequest {
            stream: false,
            include_usage: false,
            ..request.clone()
        };
        let request = self.0.config.target.request(&whole)?;
        let mut exchange = self.send(key, request).await?;
        let mut body = Vec::new();
        while let Some(bytes) = exchange.bytes().await? {
            body.extend_from_slice(&bytes);
        }
        let answer = read_answer(self.0.config.target.provider, &body)?;
        exchange.reported(&answer.reported);
        Ok((answer, exchange.facts()))
    }

    /// Asks for a streamed answer, whatever the request says.
    ///
    /// # Errors
    /// [`UpstreamError`].
    pub async fn chat_stream(&self, key: Option<&ApiKey>, request: &ChatRequest) -> Result<ChatStream, UpstreamError> {
        let streamed = ChatRequest {
            stream: true,
            ..request.clone()
        };
        let request = self.0.config.target.request(&streamed)?;
        let exchange = self.send(key, request).await?;
        if !exchange.is_event_stream {
            return Err(AnswerError::malformed("content-type", "expected text/event-stream").into());
        }
        Ok(ChatStream {
            reader: StreamReader::new(self.0.config.target.provider),
            exchange,
            pending: VecDeque::new(),
            state: StreamState::Running,
        })
    }

    fn timeout(&self, phase: &'static str, limit: Duration) -> UpstreamError {
        UpstreamError::Timeout {
            host: self.0.config.endpoint.host.clone(),
            phase,
            limit,
        }
    }

    fn broken(&self, when: &'static str, error: &hyper::Error) -> UpstreamError {
        let mut cause: &dyn std::error::Error = error;
        while let Some(next) = cause.source() {
            cause = next;
        }
        UpstreamError::Broken {
            host: self.0.config.endpoint.host.clone(),
            when,
            reason: cause.to_string(),
        }
    }

    /// Waits at most `limit`, and not beyond the end of the whole exchange.
    async fn within<T>(
        &self,
        clock: Clock,
        phase: &'static str,
        limit: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, UpstreamError> {
        let limit = limit.min(clock.end.saturating_duration_since(Instant::now()));
        timeout(limit, work).await.map_err(|_| self.timeout(phase, limit))
    }

    fn head(&self, key: Option<&ApiKey>, request: &ProviderRequest) -> Result<Request<Full<Bytes>>, UpstreamError> {
        let config = &self.0.config;
        let provider = config.target.provider;
        let path = format!("{}{}", config.endpoint.path, request.path);
        let mut head = Request::new(Full::new(Bytes::from(request.body.clone())));
        *head.method_mut() = Method::POST;
        let unusable = |reason: &str| UpstreamError::Connect {
            host: config.endpoint.host.clone(),
            reason: reason.to_owned(),
        };
        *head.uri_mut() = path.parse().map_err(|_| unusable("the path is not a URL's"))?;
        let headers = head.headers_mut();
        let host =
            HeaderValue::from_str(&config.endpoint.authority()).map_err(|_| unusable("the host is no header"))?;
        headers.insert(header::HOST, host);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(
            header::ACCEPT,
            HeaderValue::from_static("application/json, text/event-stream"),
        );
        // What is hashed and translated are the bytes on the wire.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static("opg-upstream/1"));
        for (name, value) in provider.headers() {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        if let Some(key) = key {
            let (name, before) = provider.key_header();
            let text = Zeroizing::new(format!("{before}{}", key.expose()));
            let mut value = HeaderValue::from_str(&text).map_err(|_| unusable("the API key is no header"))?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(head)
    }

    async fn send(&self, key: Option<&ApiKey>, request: ProviderRequest) -> Result<Exchange, UpstreamError> {
        let config = &self.0.config;
        let deadlines = &config.deadlines;
        let clock = Clock {
            end: Instant::now() + deadlines.total,
        };
        let mut kept = self.0.connector.kept();
        let (connection, response) = loop {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => {
                    let open = self.0.connector.open(config);
                    self.within(clock, "connecting", deadlines.connect, open).await??
                }
            };
            if let Err(error) = self
                .within(clock, "connecting", deadlines.connect, connection.sender.ready())
                .await?
            {
                if connection.used {
                    continue;
                }
                return Err(self.broken("before the answer", &error));
            }
            let sent = connection.sender.try_send_request(self.head(key, &request)?);
            match self
                .within(clock, "the answer's first byte", deadlines.first_byte, sent)
                .await?
            {
                Ok(response) => break (connection, response),
                // A kept connection that was closed meanwhile, and nothing of the request was sent: on another one, then.
                Err(mut error) => {
                    let unsent = error.take_message().is_some();
                    if !(connection.used && unsent) {
                        return Err(self.broken("before the answer", error.error()));
                    }
                }
            }
        };
        let (parts, body) = response.into_parts();
        let noted = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok()).and_then(word);
        let facts = Facts {
            transform: config.target.provider.transform(),
            host: config.endpoint.host.clone(),
            port: config.endpoint.port,
            peer: connection.peer.clone(),
            path: format!("{}{}", config.endpoint.path, request.path),
            request_sha256: Sha256::digest(&request.body).into(),
            status: parts.status.as_u16(),
            request_id: noted("x-request-id").or_else(|| noted("request-id")),
            date: noted("date"),
            raw_sha256: [0; 32],
            raw_bytes: 0,
            complete: false,
            reported: crate::Reported::default(),
        };
        let mut exchange = Exchange {
            upstream: self.clone(),
            clock,
            connection: Some(connection),
            body,
            hash: Sha256::new(),
            facts,
            is_event_stream: is_event_stream(&parts.headers),
        };
        if parts.status != http::StatusCode::OK {
            let explanation = exchange.explanation().await;
            return Err(status::error(
                &config.endpoint.host,
                parts.status,
                &parts.headers,
                &explanation,
                key,
            ));
        }
        if parts
            .headers
            .get(header::CONTENT_ENCODING)
            .is_some_and(|v| v != "identity")
        {
            return Err(AnswerError::malformed("content-encoding", "expected none").into());
        }
        Ok(exchange)
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let media = value.split(';').next().unwrap_or_default().trim();
    media.eq_ignore_ascii_case("text/event-stream")
}

/// A request that was sent, and the body of its answer.
#[derive(Debug)]
struct Exchange {
    upstream: Upstream,
    clock: Clock,
    /// Until the body has come to its end.
    connection: Option<Connection>,
    body: Incoming,
    hash: Sha256,
    facts: Facts,
    is_event_stream: bool,
}

impl Exchange {
    /// The next bytes of the body; `None` at its end.
    async fn bytes(&mut self) -> Result<Option<Bytes>, UpstreamError> {
        let config = &self.upstream.0.config;
        loop {
            let frame = self.body.frame();
            let idle = config.deadlines.idle;
            match self
                .upstream
                .within(self.clock, "the next piece of the answer", idle, frame)
                .await?
            {
                None => {
                    self.facts.complete = true;
                    if let Some(connection) = self.connection.take() {
                        self.upstream.0.connector.keep(connection);
                    }
                    return Ok(None);
                }
                Some(Err(error)) => return Err(self.upstream.broken("inside the answer", &error)),
                Some(Ok(frame)) => {
                    // Trailers say nothing that is used.
                    let Ok(bytes) = frame.into_data() else { continue };
                    self.facts.raw_bytes = self.facts.raw_bytes.saturating_add(bytes.len() as u64);
                    if self.facts.raw_bytes > config.max_answer as u64 {
                        return Err(AnswerError::TooLong {
                            what: "the answer",
                            limit: config.max_answer,
                        }
                        .into());
                    }
                    self.hash.update(&bytes);
                    return Ok(Some(bytes));
                }
            }
        }
    }

    /// As much of a refusal's body as is read.
    async fn explanation(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        while let Ok(Some(bytes)) = self.bytes().await {
            let room = MAX_REFUSAL.saturating_sub(body.len());
            body.extend(bytes.iter().take(room));
            if body.len() >= MAX_REFUSAL {
                break;
            }
        }
        body
    }

    fn reported(&mut self, reported: &crate::Reported) {
        self.facts.reported = reported.clone();
    }

    fn facts(&self) -> Facts {
        Facts {
            raw_sha256: self.hash.clone().finalize().into(),
            ..self.facts.clone()
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StreamState {
    Running,
    Ended,
}

/// A streamed answer.
#[derive(Debug)]
pub struct ChatStream {
    exchange: Exchange,
    reader: StreamReader,
    pending: VecDeque<Delta>,
    state: StreamState,
}

impl ChatStream {
    /// The next piece, or `None` after the last one. [`Delta::Finish`] comes only if the provider's stream was whole.
    /// May be dropped while it waits and called again.
    ///
    /// # Errors
    /// [`UpstreamError`]; nothing comes after one.
    pub async fn next(&mut self) -> Result<Option<Delta>, UpstreamError> {
        loop {
            if let Some(delta) = self.pending.pop_front() {
                return Ok(Some(delta));
            }
            if self.state == StreamState::Ended {
                return Ok(None);
            }
            let step = match self.exchange.bytes().await {
                Ok(Some(bytes)) => self.reader.push(&bytes).map_err(UpstreamError::from),
                Ok(None) => {
                    self.state = StreamState::Ended;
                    self.reader.finish().map_err(UpstreamError::from)
                }
                Err(error) => Err(error),
            };
            self.exchange.reported(self.reader.reported());
            match step {
                Ok(deltas) => self.pending.extend(deltas),
                Err(error) => {
                    self.state = StreamState::Ended;
                    self.exchange.connection = None;
                    return Err(error);
                }
            }
        }
    }

    /// What is recorded so far; complete when [`ChatStream::next`] has returned `None`.
    #[must_use]
    pub fn facts(&self) -> Facts {
        self.exchange.facts()
    }
}
