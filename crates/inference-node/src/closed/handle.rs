//! `POST /v1/chat/completions` for a closed model.

use super::{
    Closed,
    answer::{Collected, content, record},
};
use crate::{
    catalogue::Served,
    chat::{BUFFER, PATH, SETTLE_MARGIN, STALL, answer_again, event},
    error::ApiError,
    infer::{asked_mode, attested, not_served},
    job::Outcome,
    node::Node,
    time::{unix_millis, unix_seconds},
    work::{Admission, Admitted, Call},
};
use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use opg_primitives::{mode::Mode, money::Usage};
use opg_receipt::{FinishReason, StreamRecord, UpstreamRecord, UsageUnit, rolling_hash, stream};
use opg_upstream::{
    ApiKey, ChatRequest, ChatStream, Delta, Facts, Finish, Head, Provider, RequestError, UpstreamError,
};
use serde_json::{Map, Value, json};
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// A checked request.
struct Parsed {
    asked: String,
    mode: Mode,
    request: ChatRequest,
    params: Value,
    most: Usage,
}

/// What is needed to answer after the payment is reserved.
struct Work {
    node: Arc<Node>,
    served: Arc<Served>,
    call: Call,
    admitted: Admitted,
    key: Option<ApiKey>,
    request: ChatRequest,
    head: Head,
    _slot: OwnedSemaphorePermit,
}

/// Answers a request whose body was read.
pub(crate) async fn handle(
    node: Arc<Node>,
    served: Arc<Served>,
    headers: HeaderMap,
    (object, body): (Map<String, Value>, Bytes),
) -> Result<Response, ApiError> {
    let received = unix_millis();
    let closed = closed(&served)?;
    let parsed = parse(&node, closed, object)?;
    let key = node.closed_keys.get(closed.provider(), closed.host());
    // Servers beside the node may want no key.
    if key.is_none() && closed.provider() != Provider::Compatible {
        let message = format!(
            "this node has no API key for {} yet; nothing was charged. Its operator injects one with `opg node inject-key`.",
            closed.host()
        );
        return Err(ApiError::unavailable("upstream_key_missing", message));
    }
    let slot = Arc::clone(&closed.slots).try_acquire_owned().map_err(|_| {
        let message = "as many requests to this model run as the node takes; nothing was charged";
        ApiError::unavailable("overloaded", message)
    })?;
    let call = Call {
        served: Arc::clone(&served),
        asked: parsed.asked,
        path: PATH,
        body,
        params: parsed.params,
        unit: UsageUnit::Tokens,
        mode: parsed.mode,
        attested: attested(&node, parsed.mode)?,
        most: parsed.most,
        streamed: parsed.request.stream,
        received,
    };
    let admitted = match node.admit(&call, &headers).await? {
        Admission::Run(admitted) => *admitted,
        Admission::Again(again) => return Ok(answer_again(&call, &again)),
    };
    // The reservation is on disk before the provider is asked: a crash cannot give it away twice.
    if let Err(error) = admitted.funding.reserved().await {
        return Err(error.into());
    }
    let head = Head {
        id: format!("chatcmpl-{}", admitted.receipt_id.to_string().trim_start_matches("0x")),
        created: received / 1000,
        model: call.asked.clone(),
    };
    let work = Work {
        node: Arc::clone(&node),
        served,
        call,
        admitted,
        key,
        request: parsed.request,
        head,
        _slot: slot,
    };
    if work.request.stream {
        work.stream().await
    } else {
        work.whole().await
    }
}

fn closed(served: &Served) -> Result<&Closed, ApiError> {
    let internal = || crate::work::internal("not a closed model");
    served.model.closed().ok_or_else(internal)
}

fn parse(node: &Node, closed: &Closed, mut object: Map<String, Value>) -> Result<Parsed, ApiError> {
    let (asked, _) = node.model(&object)?;
    let mode = asked_mode(&object)?;
    if mode == Mode::Zk {
        return Err(not_served(&asked, mode));
    }
    object.remove("mode");
    let mut request = ChatRequest::parse(&object).map_err(refused)?;
    let target = &closed.upstream.config().target;
    let limit = node.limits.max_tokens;
    let max_tokens = match request.max_tokens {
        Some(n) if n > limit => {
            let message = format!("max_tokens: expected 1 to {limit}, got {n}");
            return Err(ApiError::bad_request("invalid_parameter", message).param("max_tokens"));
        }
        Some(n) => n,
        None => target.max_tokens.min(limit),
    };
    request.max_tokens = Some(max_tokens);
    // Refused before it is priced; and a token has at least one byte of what is sent.
    let sent = target.request(&request).map_err(refused)?.body.len();
    let params = json!({
        "max_tokens": max_tokens,
        "mode": mode.as_str(),
        "provider": target.provider.as_str(),
        "provider_model": target.model,
        "seed": request.seed,
        "stop": request.stop,
        "stream": request.stream,
        "temperature": request.temperature,
        "tools": request.tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(),
        "top_p": request.top_p,
    });
    Ok(Parsed {
        asked,
        mode,
        params,
        most: Usage {
            input: sent as u64,
            output: max_tokens.into(),
        },
        request,
    })
}

fn refused(error: RequestError) -> ApiError {
    ApiError::bad_request(error.code, error.message).param(error.param)
}

/// A provider's failure as the client sees it.
fn failure(error: &UpstreamError) -> ApiError {
    let status = StatusCode::from_u16(error.client_status()).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut failure = ApiError::new(status, error.code(), format!("{error}; nothing was charged"));
    if let Some(wait) = error.retry_after() {
        failure = failure.detail("retry_after", wait.as_secs());
    }
    failure
}

/// How a provider's reason to end reads in a receipt.
const fn finish_reason(finish: Finish) -> FinishReason {
    match finish {
        Finish::Length => FinishReason::Length,
        Finish::Stop | Finish::ToolCalls | Finish::ContentFilter => FinishReason::Stop,
    }
}

impl Work {
    /// Time that is left before the payment could not be settled any more.
    fn left(&self) -> Duration {
        // Money that is settled or in escrow has no deadline; providers' own deadlines end every exchange.
        let deadline = self.admitted.funding.deadline().saturating_sub(SETTLE_MARGIN);
        Duration::from_secs(deadline.saturating_sub(unix_seconds()).min(86_400))
    }

    fn upstream(&self) -> Result<&Closed, ApiError> {
        closed(&self.served)
    }

    fn too_late(&self) -> UpstreamError {
        UpstreamError::Timeout {
            host: self
                .served
                .model
                .closed()
                .map_or_else(String::new, |closed| closed.host().to_owned()),
            phase: "the answer",
            limit: self.left(),
        }
    }

    fn record(&self, facts: &Facts) -> Option<UpstreamRecord> {
        let target = &self.served.model.closed()?.upstream.config().target;
        Some(record(facts, target, &self.admitted.job.salt))
    }

    /// Ends the reservation with a receipt over nothing, and gives the failure for the client.
    async fn failed(&self, error: &UpstreamError, stream: StreamRecord) -> ApiError {
        tracing::warn!(%error, model = self.call.asked, "the provider gave no answer");
        let failure = failure(error);
        let status = if stream.streamed { 200 } else { failure.status.as_u16() };
        let outcome = Outcome::failed(status, unix_millis(), stream);
        match self.node.finish(&self.admitted, &outcome).await {
            Ok(finished) => failure.detail("opg", self.admitted.envelope(&finished, &[])),
            Err(error) => error,
        }
    }

    async fn whole(self) -> Result<Response, ApiError> {
        let closed = self.upstream()?;
        let asked = closed.upstream.chat(self.key.as_ref(), &self.request);
        let (answer, facts) = match tokio::time::timeout(self.left(), asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.failed(&error, StreamRecord::NOT_STREAMED).await),
            Err(_) => return Err(self.failed(&self.too_late(), StreamRecord::NOT_STREAMED).await),
        };
        let now = unix_millis();
        let collected = Collected::from(&answer);
        let outcome = Outcome {
            finish: finish_reason(answer.finish),
            status: 200,
            usage: collected.billed(),
            leaves: collected.leaves(),
            first_output: now,
            done: now,
            stream: StreamRecord::NOT_STREAMED,
            proof: None,
            upstream: self.record(&facts),
        };
        self.node.metrics.tokens.inc_by(outcome.usage.output);
        let finished = self.node.finish(&self.admitted, &outcome).await?;
        let mut body = self.head.whole(&answer);
        body["opg"] = self.admitted.envelope(&finished, &outcome.leaves);
        let headers = self.node.paid_headers(&self.admitted, Some(&finished));
        Ok((headers, axum::Json(body)).into_response())
    }

    async fn stream(self) -> Result<Response, ApiError> {
        let streamed = StreamRecord {
            streamed: true,
            chunks: 0,
            rolling_hash: stream::EMPTY,
            aborted: false,
        };
        let closed = self.upstream()?;
        let asked = closed.upstream.chat_stream(self.key.as_ref(), &self.request);
        let answering = match tokio::time::timeout(self.left(), asked).await {
            Ok(Ok(answering)) => answering,
            Ok(Err(error)) => return Err(self.failed(&error, StreamRecord::NOT_STREAMED).await),
            Err(_) => return Err(self.failed(&self.too_late(), StreamRecord::NOT_STREAMED).await),
        };
        let (chunks, receiver) = mpsc::channel::<String>(BUFFER);
        let body = futures::stream::unfold(receiver, async |mut receiver: mpsc::Receiver<String>| {
            let chunk = receiver.recv().await?;
            Some((Ok::<_, std::convert::Infallible>(chunk), receiver))
        });
        let mut response = Response::new(Body::from_stream(body));
        response
            .headers_mut()
            .extend(self.node.paid_headers(&self.admitted, None));
        let content = HeaderValue::from_static("text/event-stream; charset=utf-8");
        response.headers_mut().insert(header::CONTENT_TYPE, content);
        // The answer goes on in the background: headers leave now, and a client that leaves still gets its receipt written.
        let tracker = self.node.tracker.clone();
        tracker.spawn(async move { self.pass_on(answering, streamed, &chunks).await });
        Ok(response)
    }

    /// Passes pieces on as they come. A client that leaves is billed for the whole answer, which only the provider can count: it is
    /// read to its end.
    async fn pass_on(self, mut answering: ChatStream, mut streamed: StreamRecord, chunks: &mpsc::Sender<String>) {
        let mut collected = Collected::default();
        let (mut first_output, mut out_of_time) = (None, false);
        let end = tokio::time::Instant::now() + self.left();
        let failed = loop {
            let delta = match tokio::time::timeout_at(end, answering.next()).await {
                Err(_) => {
                    out_of_time = true;
                    break None;
                }
                Ok(Ok(None)) => break None,
                Ok(Ok(Some(delta))) => delta,
                Ok(Err(error)) => break Some(error),
            };
            collected.take(&delta);
            let wanted = !matches!(delta, Delta::Usage(_)) || self.request.include_usage;
            if let Some(bytes) = content(&delta) {
                first_output.get_or_insert_with(unix_millis);
                if !streamed.aborted {
                    streamed.chunks += 1;
                    streamed.rolling_hash = rolling_hash(streamed.rolling_hash, &bytes);
                }
            }
            if wanted && !streamed.aborted {
                let sent = tokio::time::timeout(STALL, chunks.send(event(&self.head.chunk(&delta)))).await;
                streamed.aborted = !matches!(sent, Ok(Ok(())));
            }
        };
        let events = match failed {
            Some(error) => vec![event(&self.failed(&error, streamed).await.body())],
            None => {
                let facts = answering.facts();
                self.finished(collected, &facts, streamed, first_output, out_of_time)
                    .await
            }
        };
        for event in events.into_iter().chain(["data: [DONE]\n\n".to_owned()]) {
            // A reader that has left finds its receipt under /v1/receipts.
            if streamed.aborted || tokio::time::timeout(STALL, chunks.send(event)).await.is_err() {
                return;
            }
        }
    }

    /// The receipt of a stream that came to its end, or to the end of its time.
    async fn finished(
        &self,
        collected: Collected,
        facts: &Facts,
        streamed: StreamRecord,
        first_output: Option<u64>,
        out_of_time: bool,
    ) -> Vec<String> {
        let now = unix_millis();
        let finish = match collected.finish {
            _ if streamed.aborted => FinishReason::Cancelled,
            Some(finish) if !out_of_time => finish_reason(finish),
            _ => FinishReason::Length,
        };
        let outcome = Outcome {
            finish,
            status: 200,
            usage: collected.billed(),
            leaves: collected.leaves(),
            first_output: first_output.unwrap_or(now),
            done: now,
            stream: streamed,
            proof: None,
            upstream: self.record(facts),
        };
        self.node.metrics.tokens.inc_by(outcome.usage.output);
        match self.node.finish(&self.admitted, &outcome).await {
            Ok(finished) => {
                // A whole chunk object, so that stock clients that know nothing of receipts read over it.
                let mut chunk = json!({"id": self.head.id, "object": "chat.completion.chunk", "created": self.head.created,
                    "model": self.head.model, "choices": []});
                chunk["opg"] = self.admitted.envelope(&finished, &outcome.leaves);
                vec![event(&chunk)]
            }
            Err(error) => vec![event(&error.body())],
        }
    }
}
