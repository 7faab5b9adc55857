//! `POST /v1/infer`: tensors in, tensors out.

use crate::{
    attest::Attested,
    body::kind,
    catalogue::Served,
    error::ApiError,
    job::{Outcome, ProofToCome},
    node::Node,
    time::{unix_millis, unix_seconds},
    work::{Admission, Admitted, Again, Call, internal},
};
use axum::{
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use opg_integer_program::{interpret, response};
use opg_primitives::{mode::Mode, money::Usage};
use opg_receipt::{FinishReason, LeafKind, StreamRecord, UsageUnit};
use opg_runtime::{ModelRuntime, RuntimeError, onnx::Prepared};
use serde_json::{Map, Value, json};
use std::{sync::Arc, time::Instant};

pub(crate) const PATH: &str = "/v1/infer";
/// Longest body in mode zk: it travels in the artefact, with graph, answer and proof.
const MAX_BODY: usize = opg_artefact::MAX_ARTEFACT_BYTES / 4;

/// A checked request.
struct Parsed {
    served: Arc<Served>,
    asked: String,
    mode: Mode,
    work: Work,
}

/// What answers it.
enum Work {
    /// The model itself.
    Model(Prepared),
    /// Its exact integer program, on these integers; the answer will be proven.
    Program(Vec<Vec<i64>>),
}

impl Work {
    /// Computes the outputs. Blocks.
    fn run(self, served: &Served) -> Result<Value, RuntimeError> {
        let model = |reason: String| RuntimeError::Model { reason };
        match (self, served.model.runtime(), served.provable()) {
            (Self::Model(prepared), Some(ModelRuntime::Onnx(onnx)), _) => onnx.run(prepared),
            (Self::Program(inputs), _, Some(program)) => {
                let program = program.model.program();
                let trace = interpret::run(program, &inputs).map_err(|error| model(error.to_string()))?;
                let outputs = trace.outputs(program).ok_or_else(|| model("no outputs".to_owned()))?;
                Ok(response::document(&program.graph, &outputs))
            }
            _ => Err(model("not an ONNX model".to_owned())),
        }
    }
}

/// Answers a request whose body was read.
pub(crate) async fn handle(
    node: Arc<Node>,
    headers: HeaderMap,
    body: axum::body::Bytes,
    started: Instant,
) -> Result<Response, ApiError> {
    let received = unix_millis();
    if let Some(refunded) = node.refund(&headers).await? {
        return Ok(refunded);
    }
    let object = crate::body::object(&body)?;
    let Parsed {
        served,
        asked,
        mode,
        work,
    } = parse(&node, object, &body)?;
    let attested = attested(&node, mode)?;
    if mode == Mode::Zk && node.store.unproven().len() >= node.limits.proof_queue {
        let message = "too many answers wait for their proof; nothing was charged. Ask again later, or in mode none.";
        return Err(ApiError::unavailable("proof_backlog", message));
    }
    let params = json!({"mode": mode.as_str()});
    // One call in, one answer out; `price.per_call` is what it costs.
    let most = Usage { input: 1, output: 1 };
    let call = Call {
        served: Arc::clone(&served),
        asked,
        path: PATH,
        body,
        params,
        unit: UsageUnit::Calls,
        mode,
        attested,
        most,
        streamed: false,
        received,
    };
    let admitted = match node.admit(&call, &headers).await? {
        Admission::Run(admitted) => *admitted,
        Admission::Again(again) => return answer_again(&call, &again),
    };

    let (result, model_time) = tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        let result = work.run(&served);
        (result, began.elapsed())
    })
    .await
    .unwrap_or_else(|panic| {
        (
            Err(RuntimeError::Engine {
                reason: panic.to_string(),
            }),
            std::time::Duration::ZERO,
        )
    });

    let response = respond(&node, &call, &admitted, result, most).await;
    node.metrics.added(PATH, started.elapsed().saturating_sub(model_time));
    response
}

async fn respond(
    node: &Node,
    call: &Call,
    admitted: &Admitted,
    result: Result<Value, RuntimeError>,
    usage: Usage,
) -> Result<Response, ApiError> {
    let now = unix_millis();
    match result {
        Ok(outputs) => {
            let leaves = vec![(LeafKind::Tensors, serde_json::to_vec(&outputs).map_err(internal)?)];
            let outcome = Outcome {
                finish: FinishReason::Stop,
                status: 200,
                usage,
                leaves,
                first_output: now,
                done: now,
                stream: StreamRecord::NOT_STREAMED,
                proof: match (call.mode, call.served.provable()) {
                    (Mode::Zk, Some(program)) => Some(ProofToCome {
                        program: program.root(),
                        body: call.body.clone(),
                        seconds: node.limits.proof_seconds,
                    }),
                    _ => None,
                },
                upstream: None,
            };
            let finished = node.finish(admitted, &outcome).await?;
            let opg = admitted.envelope(&finished, &outcome.leaves);
            let headers = node.paid_headers(admitted, Some(&finished));
            Ok((headers, axum::Json(answer(call, outputs, opg))).into_response())
        }
        Err(error) => {
            tracing::error!(%error, model = call.asked, "inference failed");
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            let outcome = Outcome::failed(status.as_u16(), now, StreamRecord::NOT_STREAMED);
            let finished = node.finish(admitted, &outcome).await?;
            let failure = ApiError::new(
                status,
                "inference_failed",
                "the model failed on this input; nothing was charged",
            )
            .detail("opg", admitted.envelope(&finished, &[]));
            Ok((node.paid_headers(admitted, Some(&finished)), failure).into_response())
        }
    }
}

fn answer(call: &Call, outputs: Value, opg: Value) -> Value {
    json!({"object": "inference", "model": call.served.model.name, "outputs": outputs, "opg": opg})
}

/// The answer of an earlier call with the same payment.
fn answer_again(call: &Call, again: &Again) -> Result<Response, ApiError> {
    let outputs = again.leaf(LeafKind::Tensors).unwrap_or(b"null");
    let outputs = serde_json::from_slice(outputs).map_err(internal)?;
    let (headers, opg) = again.answer();
    Ok((headers, axum::Json(answer(call, outputs, opg))).into_response())
}

fn parse(node: &Node, mut object: Map<String, Value>, body: &[u8]) -> Result<Parsed, ApiError> {
    let (asked, served) = node.model(&object)?;
    let Some(ModelRuntime::Onnx(model)) = served.model.runtime() else {
        let message = format!("{asked} is a language model: use /v1/chat/completions");
        return Err(ApiError::bad_request("model_not_supported", message).param("model"));
    };
    let mode = asked_mode(&object)?;
    if let Some(unknown) = object
        .keys()
        .find(|key| !["model", "inputs", "mode"].contains(&key.as_str()))
    {
        let message = format!("unknown field {unknown:?}, expected model, inputs and optionally mode");
        return Err(ApiError::bad_request("unknown_parameter", message).param(unknown.clone()));
    }
    let inputs = object
        .remove("inputs")
        .ok_or_else(|| ApiError::bad_request("missing_parameter", "inputs is missing").param("inputs"))?;
    if !inputs.is_object() {
        let message = format!(
            "inputs: expected an object {{name: nested numbers}}, got {}",
            kind(&inputs)
        );
        return Err(ApiError::unprocessable("invalid_input", "inputs", message));
    }
    if mode == Mode::Zk {
        let program = served.provable().ok_or_else(|| not_served(&asked, mode))?;
        if body.len() > MAX_BODY {
            let message = format!(
                "a request of mode zk has at most {MAX_BODY} bytes, this one has {}",
                body.len()
            );
            return Err(ApiError::unprocessable("request_too_large", "inputs", message));
        }
        // From the very bytes that the receipt commits to, as every verifier will read them.
        let inputs = opg_artefact::inputs(&program.model.verifying_key().graph, body)
            .map_err(|error| ApiError::unprocessable("invalid_input", "inputs", error.to_string()))?;
        return Ok(Parsed {
            served: Arc::clone(served),
            asked,
            mode,
            work: Work::Program(inputs),
        });
    }
    let prepared = model.validate(&inputs).map_err(|error| match error.field() {
        "input" | "" => ApiError::unprocessable(error.code(), "inputs", error.to_string()),
        field => ApiError::unprocessable(error.code(), format!("inputs.{field}"), format!("inputs.{error}")),
    })?;
    Ok(Parsed {
        served: Arc::clone(served),
        asked,
        mode,
        work: Work::Model(prepared),
    })
}

/// The mode that a request asks for, none if it names none. Modes that no node can serve yet are refused (D17).
pub(crate) fn asked_mode(object: &Map<String, Value>) -> Result<Mode, ApiError> {
    let refuse = |message: String| Err(ApiError::bad_request("mode_not_supported", message).param("mode"));
    match object.get("mode") {
        None | Some(Value::Null) => Ok(Mode::None),
        Some(Value::String(mode)) => match mode.as_str() {
            "none" => Ok(Mode::None),
            "zk" => Ok(Mode::Zk),
            "replay" => refuse(
                "mode replay is refused: float replay and statistical audits come later; use mode none, tee or zk"
                    .into(),
            ),
            "tee" => Ok(Mode::Tee),
            _ => refuse(format!("unknown mode {mode:?}, expected none, tee or zk")),
        },
        Some(other) => refuse(format!("mode: expected a string, got {}", kind(other))),
    }
}

/// Evidence of this node's keyset for a request of a mode; none for modes without.
///
/// # Errors
/// Mode tee, and the chain has no evidence of this node that counts.
pub(crate) fn attested(node: &Node, mode: Mode) -> Result<Option<Attested>, ApiError> {
    if mode != Mode::Tee {
        return Ok(None);
    }
    let attested = node.attestation.current(unix_seconds());
    attested.map(Some).ok_or_else(|| {
        let message = "this node has no attestation evidence on chain that counts now; nothing was charged. Use another node or mode none.";
        ApiError::unavailable("not_attested", message).param("mode")
    })
}

/// Refusal of a mode that a model is not served in: never less than asked for.
pub(crate) fn not_served(model: &str, mode: Mode) -> ApiError {
    let message = format!("{model} is not served in mode {mode}: see its modes in /v1/models; use mode none");
    ApiError::bad_request("mode_not_supported", message).param("mode")
}
