//! `POST /v1/chat/completions`, whole or as server-sent events.

mod parse;

use crate::{
    error::ApiError,
    infer::attested,
    job::Outcome,
    node::Node,
    time::{unix_millis, unix_seconds},
    work::{Admission, Admitted, Again, Call},
};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use opg_primitives::{ids::ReceiptId, money::Usage};
use opg_receipt::{FinishReason, LeafKind, StreamRecord, UsageUnit, rolling_hash, stream};
use opg_runtime::{
    ModelRuntime, RuntimeError,
    llm::{Finish, Generation, PreparedGeneration, TokenEvent},
};
use parse::Parsed;
use serde_json::{Value, json};
use std::{
    ops::ControlFlow,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) const PATH: &str = "/v1/chat/completions";
/// Chunks that may wait for a slow reader.
pub(crate) const BUFFER: usize = 64;
/// A reader that takes nothing for this long has hung up.
pub(crate) const STALL: Duration = Duration::from_secs(30);
/// Generation ends this many seconds before the payment could not be settled any more.
pub(crate) const SETTLE_MARGIN: u64 = 10;

/// What is left of a generation for the receipt.
struct Generated {
    result: Result<Generation, RuntimeError>,
    stream: StreamRecord,
    first_output: Option<u64>,
    /// The node ended it because the payment's time was over.
    out_of_time: bool,
    took: Duration,
}

/// Where the text goes.
struct Sink {
    chunks: Option<mpsc::Sender<String>>,
    hung_up: CancellationToken,
    head: Value,
    runtime: tokio::runtime::Handle,
}

/// Answers a request whose body was read. `hung_up` is cancelled when the client leaves before a whole answer is sent.
pub(crate) async fn handle(
    node: Arc<Node>,
    headers: HeaderMap,
    body: axum::body::Bytes,
    started: Instant,
    hung_up: CancellationToken,
) -> Result<Response, ApiError> {
    let received = unix_millis();
    if let Some(refunded) = node.refund(&headers).await? {
        return Ok(refunded);
    }
    let object = crate::body::object(&body)?;
    if let Ok((_, served)) = node.model(&object)
        && served.model.closed().is_some()
    {
        let served = Arc::clone(served);
        return crate::closed::handle(node, served, headers, (object, body)).await;
    }
    let parsed = parse::parse(&node, &object)?;
    let most = Usage {
        input: parsed.prepared.prompt_tokens() as u64,
        output: parsed.prepared.max_tokens() as u64,
    };
    let Parsed {
        served,
        asked,
        mode,
        prepared,
        params,
        stream,
        include_usage,
    } = parsed;
    let attested = attested(&node, mode)?;
    let call = Call {
        served,
        asked,
        path: PATH,
        body,
        params,
        unit: UsageUnit::Tokens,
        mode,
        attested,
        most,
        streamed: stream,
        received,
    };
    let admitted = match node.admit(&call, &headers).await? {
        Admission::Run(admitted) => *admitted,
        Admission::Again(again) => return Ok(answer_again(&call, &again)),
    };
    let id = completion_id(admitted.receipt_id);
    let head = |object: &str| json!({"id": id, "object": object, "created": received / 1000, "model": call.asked});
    let runtime = tokio::runtime::Handle::current();

    if !stream {
        let sink = Sink {
            chunks: None,
            hung_up,
            head: Value::Null,
            runtime,
        };
        let generated = generate(&node, &call, &admitted, prepared, sink).await;
        let took = generated.took;
        let response = whole(&node, &admitted, generated, head("chat.completion")).await;
        node.metrics.added(PATH, started.elapsed().saturating_sub(took));
        return response;
    }

    let (chunks, receiver) = mpsc::channel(BUFFER);
    let mut response = Response::new(Body::from_stream(futures::stream::unfold(
        receiver,
        |mut receiver: mpsc::Receiver<String>| async {
            receiver
                .recv()
                .await
                .map(|chunk| (Ok::<_, std::convert::Infallible>(chunk), receiver))
        },
    )));
    response.headers_mut().extend(node.paid_headers(&admitted, None));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/event-stream; charset=utf-8"),
    );
    let head = head("chat.completion.chunk");
    let work = Arc::clone(&node);
    // The answer goes on in the background: headers leave now, and a client that leaves still gets its receipt written.
    node.tracker.spawn(async move {
        let sink = Sink {
            chunks: Some(chunks.clone()),
            // The handler has returned with the headers; here the closed channel says that the client has left.
            hung_up: CancellationToken::new(),
            head: head.clone(),
            runtime,
        };
        let generated = generate(&work, &call, &admitted, prepared, sink).await;
        let took = generated.took;
        finish_stream(&work, &admitted, generated, head, include_usage, &chunks).await;
        work.metrics.added(PATH, started.elapsed().saturating_sub(took));
    });
    Ok(response)
}

/// Waits for a slot and generates.
async fn generate(
    node: &Arc<Node>,
    call: &Call,
    admitted: &Admitted,
    prepared: PreparedGeneration,
    sink: Sink,
) -> Generated {
    let nothing = |result| Generated {
        result,
        stream: no_stream(sink.chunks.is_some(), false),
        first_output: None,
        out_of_time: false,
        took: Duration::ZERO,
    };
    let gone = async {
        match &sink.chunks {
            Some(chunks) => chunks.closed().await,
            None => sink.hung_up.cancelled().await,
        }
    };
    let permit = tokio::select! {
        permit = Arc::clone(&node.generations).acquire_owned() => permit,
        () = gone => {
            let mut left = nothing(Ok(Generation { text: String::new(), ids: Vec::new(), finish: Finish::Cancelled, usage: Usage { input: 0, output: 0 } }));
            left.stream.aborted = left.stream.streamed;
            return left;
        }
    };
    // The reservation is on disk before the first byte of an answer leaves: a crash cannot give it away twice.
    if let Err(error) = admitted.funding.reserved().await {
        return nothing(Err(RuntimeError::Engine {
            reason: error.to_string(),
        }));
    }
    let served = Arc::clone(&call.served);
    let deadline = admitted.funding.deadline().saturating_sub(SETTLE_MARGIN);
    let streamed = sink.chunks.is_some();
    let worker = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        run(served.model.runtime(), prepared, &sink, deadline)
    });
    let generated = worker.await.unwrap_or_else(|panic| Generated {
        result: Err(RuntimeError::Engine {
            reason: panic.to_string(),
        }),
        stream: no_stream(streamed, false),
        first_output: None,
        out_of_time: false,
        took: Duration::ZERO,
    });
    if let Ok(generation) = &generated.result {
        node.metrics.tokens.inc_by(generation.usage.output);
    }
    generated
}

fn no_stream(streamed: bool, aborted: bool) -> StreamRecord {
    StreamRecord {
        streamed,
        chunks: 0,
        rolling_hash: stream::EMPTY,
        aborted,
    }
}

/// The generation, on a thread that may block.
fn run(runtime: Option<&ModelRuntime>, prepared: PreparedGeneration, sink: &Sink, deadline: u64) -> Generated {
    let began = Instant::now();
    let mut record = no_stream(sink.chunks.is_some(), false);
    let (mut first_output, mut out_of_time, mut left) = (None, false, false);
    if sink.chunks.is_some() {
        left = !sink.send(&sink.chunk(json!({"role": "assistant", "content": ""}), None));
    }
    let result = match runtime {
        Some(ModelRuntime::Llama(model)) => model.run(prepared, &mut |event| {
            let text = match event {
                TokenEvent::Prompt { .. } => "",
                TokenEvent::Token { text, .. } | TokenEvent::Rest { text } => text,
            };
            if !text.is_empty() {
                first_output.get_or_insert_with(unix_millis);
                if sink.chunks.is_some() && !left {
                    left = !sink.send(&sink.chunk(json!({"content": text}), None));
                    if !left {
                        record.chunks += 1;
                        record.rolling_hash = rolling_hash(record.rolling_hash, text.as_bytes());
                    }
                }
            }
            left = left || sink.is_gone();
            out_of_time = out_of_time || unix_seconds() >= deadline;
            if left || out_of_time {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        }),
        _ => Err(RuntimeError::Model {
            reason: "not a language model".into(),
        }),
    };
    record.aborted = record.streamed && left;
    Generated {
        result,
        stream: record,
        first_output,
        out_of_time: out_of_time && !left,
        took: began.elapsed(),
    }
}

impl Sink {
    fn chunk(&self, delta: Value, finish: Option<&str>) -> String {
        let mut chunk = self.head.clone();
        chunk["choices"] = json!([{"index": 0, "delta": delta, "finish_reason": finish}]);
        event(&chunk)
    }

    /// Whether the reader took the chunk.
    fn send(&self, chunk: &str) -> bool {
        let Some(chunks) = &self.chunks else { return true };
        match chunks.try_send(chunk.to_owned()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(chunk)) => {
                let sent = self
                    .runtime
                    .block_on(async { tokio::time::timeout(STALL, chunks.send(chunk)).await });
                matches!(sent, Ok(Ok(())))
            }
        }
    }

    fn is_gone(&self) -> bool {
        self.hung_up.is_cancelled() || self.chunks.as_ref().is_some_and(mpsc::Sender::is_closed)
    }
}

pub(crate) fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

/// Turns a generation into what the receipt says about it.
fn outcome(generated: Generated) -> (Outcome, Result<Generation, RuntimeError>) {
    let now = unix_millis();
    match generated.result {
        Ok(generation) => {
            let finish = match generation.finish {
                Finish::Stop => FinishReason::Stop,
                Finish::Length => FinishReason::Length,
                Finish::Cancelled if generated.out_of_time => FinishReason::Length,
                Finish::Cancelled => FinishReason::Cancelled,
            };
            let outcome = Outcome {
                finish,
                status: 200,
                usage: generation.usage,
                leaves: vec![(LeafKind::Text, generation.text.clone().into_bytes())],
                first_output: generated.first_output.unwrap_or(now),
                done: now,
                stream: generated.stream,
                proof: None,
                upstream: None,
            };
            (outcome, Ok(generation))
        }
        Err(error) => {
            tracing::error!(%error, "generation failed");
            let status = if generated.stream.streamed { 200 } else { 500 };
            (Outcome::failed(status, now, generated.stream), Err(error))
        }
    }
}

fn usage(usage: Usage) -> Value {
    json!({"prompt_tokens": usage.input, "completion_tokens": usage.output, "total_tokens": usage.input + usage.output})
}

/// OpenAI knows no `cancelled`.
fn finish_word(finish: FinishReason) -> &'static str {
    if finish == FinishReason::Length {
        "length"
    } else {
        "stop"
    }
}

async fn whole(node: &Node, admitted: &Admitted, generated: Generated, head: Value) -> Result<Response, ApiError> {
    let (outcome, result) = outcome(generated);
    let finished = node.finish(admitted, &outcome).await?;
    let opg = admitted.envelope(&finished, &outcome.leaves);
    let headers = node.paid_headers(admitted, Some(&finished));
    match result {
        Ok(generation) => {
            let body = completion(head, &generation.text, outcome.finish, generation.usage, opg);
            Ok((headers, axum::Json(body)).into_response())
        }
        Err(_) => Ok((headers, failure().detail("opg", opg)).into_response()),
    }
}

fn completion(mut body: Value, text: &str, finish: FinishReason, used: Usage, opg: Value) -> Value {
    let message = json!({"role": "assistant", "content": text});
    body["choices"] = json!([{"index": 0, "message": message, "logprobs": null, "finish_reason": finish_word(finish)}]);
    body["usage"] = usage(used);
    body["opg"] = opg;
    body
}

/// The answer of an earlier call with the same payment, whole even if it was a stream.
pub(crate) fn answer_again(call: &Call, again: &Again) -> Response {
    let text = String::from_utf8_lossy(again.leaf(LeafKind::Text).unwrap_or_default()).into_owned();
    let core = again.receipt.core();
    let head = json!({
        "id": completion_id(core.receipt_id), "object": "chat.completion", "created": core.times.received / 1000, "model": call.asked,
    });
    let (headers, opg) = again.answer();
    let body = completion(head, &text, core.response.finish, core.billed_usage(), opg);
    (headers, axum::Json(body)).into_response()
}

fn completion_id(id: ReceiptId) -> String {
    format!("chatcmpl-{}", id.to_string().trim_start_matches("0x"))
}

fn failure() -> ApiError {
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "inference_failed",
        "the model failed on this input; nothing was charged",
    )
}

async fn finish_stream(
    node: &Node,
    admitted: &Admitted,
    generated: Generated,
    head: Value,
    include_usage: bool,
    chunks: &mpsc::Sender<String>,
) {
    let (outcome, result) = outcome(generated);
    let finished = node.finish(admitted, &outcome).await;
    let mut events = Vec::new();
    match &result {
        Ok(_) => {
            let mut last = head.clone();
            last["choices"] = json!([{"index": 0, "delta": {}, "finish_reason": finish_word(outcome.finish)}]);
            events.push(event(&last));
        }
        Err(_) => events.push(event(&failure().body())),
    }
    if include_usage && let Ok(generation) = &result {
        let mut chunk = head.clone();
        chunk["choices"] = json!([]);
        chunk["usage"] = usage(generation.usage);
        events.push(event(&chunk));
    }
    match finished {
        Ok(finished) => {
            // A whole chunk object, so that stock clients that know nothing of receipts read over it.
            let mut chunk = head;
            chunk["choices"] = json!([]);
            chunk["opg"] = admitted.envelope(&finished, &outcome.leaves);
            events.push(event(&chunk));
        }
        Err(error) => events.push(event(&error.body())),
    }
    events.push("data: [DONE]\n\n".to_owned());
    for event in events {
        // A reader that has left finds its receipt under /v1/receipts.
        if tokio::time::timeout(STALL, chunks.send(event)).await.is_err() {
            return;
        }
    }
}
