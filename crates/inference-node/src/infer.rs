//! `POST /v1/infer`: tensors in, tensors out.

use crate::{
    body::kind,
    catalogue::Served,
    error::ApiError,
    job::Outcome,
    node::Node,
    time::unix_millis,
    work::{Admitted, Call, internal},
};
use axum::{
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
};
use opg_primitives::money::Usage;
use opg_receipt::{FinishReason, LeafKind, StreamRecord, UsageUnit};
use opg_runtime::{ModelRuntime, RuntimeError, onnx::Prepared};
use serde_json::{Map, Value, json};
use std::{sync::Arc, time::Instant};

pub(crate) const PATH: &str = "/v1/infer";

/// A checked request.
struct Parsed {
    served: Arc<Served>,
    asked: String,
    prepared: Prepared,
}

/// Answers a request whose body was read.
pub(crate) async fn handle(
    node: Arc<Node>,
    headers: HeaderMap,
    body: axum::body::Bytes,
    started: Instant,
) -> Result<Response, ApiError> {
    let received = unix_millis();
    let object = crate::body::object(&body)?;
    let Parsed {
        served,
        asked,
        prepared,
    } = parse(&node, object)?;
    let params = json!({"mode": "none"});
    // One call in, one answer out; `price.per_call` is what it costs.
    let most = Usage { input: 1, output: 1 };
    let call = Call {
        served: Arc::clone(&served),
        asked,
        path: PATH,
        body,
        params,
        unit: UsageUnit::Calls,
        most,
        received,
    };
    let admitted = node.admit(&call, &headers).await?;

    let (result, model_time) = tokio::task::spawn_blocking(move || {
        let began = Instant::now();
        let result = match &served.model.runtime {
            ModelRuntime::Onnx(model) => model.run(prepared),
            _ => Err(RuntimeError::Model {
                reason: "not an ONNX model".into(),
            }),
        };
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
            };
            let receipt = node.finish(admitted, &outcome).await?;
            let opg = admitted.job.envelope(&receipt, &outcome.leaves, Some(&admitted.secret));
            let body = json!({"object": "inference", "model": call.served.model.name, "outputs": outputs, "opg": opg});
            Ok((node.paid_headers(admitted), axum::Json(body)).into_response())
        }
        Err(error) => {
            tracing::error!(%error, model = call.asked, "inference failed");
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            let outcome = Outcome::failed(status.as_u16(), now, StreamRecord::NOT_STREAMED);
            let receipt = node.finish(admitted, &outcome).await?;
            let failure = ApiError::new(
                status,
                "inference_failed",
                "the model failed on this input; nothing was charged",
            )
            .detail("opg", admitted.job.envelope(&receipt, &[], Some(&admitted.secret)));
            Ok((node.paid_headers(admitted), failure).into_response())
        }
    }
}

fn parse(node: &Node, mut object: Map<String, Value>) -> Result<Parsed, ApiError> {
    let (asked, served) = node.model(&object)?;
    let ModelRuntime::Onnx(model) = &served.model.runtime else {
        let message = format!("{asked} is a language model: use /v1/chat/completions");
        return Err(ApiError::bad_request("model_not_supported", message).param("model"));
    };
    check_mode(&object)?;
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
    let prepared = model.validate(&inputs).map_err(|error| match error.field() {
        "input" | "" => ApiError::unprocessable(error.code(), "inputs", error.to_string()),
        field => ApiError::unprocessable(error.code(), format!("inputs.{field}"), format!("inputs.{error}")),
    })?;
    Ok(Parsed {
        served: Arc::clone(served),
        asked,
        prepared,
    })
}

/// Refuses modes that this node cannot serve (D17): never less than asked for.
pub(crate) fn check_mode(object: &Map<String, Value>) -> Result<(), ApiError> {
    let refuse = |message: String| Err(ApiError::bad_request("mode_not_supported", message).param("mode"));
    match object.get("mode") {
        None | Some(Value::Null) => Ok(()),
        Some(Value::String(mode)) => match mode.as_str() {
            "none" => Ok(()),
            "replay" => {
                refuse("mode replay is refused: float replay and statistical audits come later; use mode none".into())
            }
            "tee" | "zk" => refuse(format!("mode {mode} is not served by this node yet; use mode none")),
            _ => refuse(format!("unknown mode {mode:?}, expected none")),
        },
        Some(other) => refuse(format!("mode: expected a string, got {}", kind(other))),
    }
}
