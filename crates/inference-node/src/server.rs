//! Routes.

use crate::{
    body, chat, closed, error::ApiError, facilitator, gateway, infer, node::Node, payment::PaidBy, rpc::RpcError,
    share, time::unix_seconds, work::internal,
};
use axum::{
    Json, Router,
    body::Body,
    extract::{Path, Request, State},
    http::{HeaderMap, HeaderName, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use opg_payments::reserve::State as PaymentState;
use opg_primitives::{ids::ReceiptId, mode::Mode};
use opg_receipt::SignedReceipt;
use opg_sealed::PrivateKey;
use serde_json::{Value, json};
use std::{sync::Arc, time::Instant};
use tokio_util::sync::CancellationToken;
use tower_http::cors::{Any, CorsLayer};

/// Headers that a browser may read.
const EXPOSED: [HeaderName; 5] = [
    HeaderName::from_static("payment-required"),
    HeaderName::from_static("payment-response"),
    HeaderName::from_static("x-opg-receipt-id"),
    HeaderName::from_static("x-opg-receipt-secret"),
    header::RETRY_AFTER,
];

/// The node's API, and the same behind its gateway for sealed requests.
pub(crate) fn router(node: Arc<Node>, key: Option<PrivateKey>) -> Router {
    gateway::routes(Arc::clone(&node), key, plain(node))
}

fn plain(node: Arc<Node>) -> Router {
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods(Any)
        .allow_headers(Any)
        .expose_headers(EXPOSED);
    Router::new()
        .route(
            infer::PATH,
            post(|State(node), request| paid(node, request, infer::PATH)),
        )
        .route(chat::PATH, post(|State(node), request| paid(node, request, chat::PATH)))
        .route("/v1/models", get(models))
        .route("/v1/keyset", get(keyset))
        .route(closed::keys::PATH, post(closed::keys::inject))
        .route("/v1/models/{*name}", get(model))
        .route("/v1/model-files/{root}", get(share::manifest))
        .route("/v1/model-files/{root}/{sha256}", get(share::file))
        .route("/v1/receipts/{id}", get(receipt))
        .route("/v1/receipts/{id}/proof", get(proof))
        .route("/facilitator/supported", get(facilitator::supported))
        .route("/facilitator/verify", post(facilitator::verify))
        .route("/facilitator/settle", post(facilitator::settle))
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .fallback(|| async {
            ApiError::new(
                StatusCode::NOT_FOUND,
                "not_found",
                "no such path; see /v1/models, /v1/infer, /v1/chat/completions",
            )
        })
        .method_not_allowed_fallback(|| async {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this path does not take this method",
            )
        })
        .layer(cors)
        .with_state(node)
}

/// A paid route. The work runs in a task of its own, so that a client that leaves cannot take a reservation, a settlement or a
/// receipt down with it.
async fn paid(node: Arc<Node>, request: Request, path: &'static str) -> Response {
    let started = Instant::now();
    let response = match start(&node, request, path, started).await {
        Ok(response) => response,
        Err(error) => error.into_response(),
    };
    node.metrics
        .request(path, response.status().as_u16(), started.elapsed());
    response
}

async fn start(node: &Arc<Node>, request: Request, path: &'static str, started: Instant) -> Result<Response, ApiError> {
    if node.stopping.is_cancelled() {
        return Err(ApiError::unavailable(
            "shutting_down",
            "the node is shutting down; nothing was charged",
        ));
    }
    node.journal.health()?;
    let busy = || {
        ApiError::unavailable(
            "overloaded",
            "the node has as many requests as it takes; nothing was charged",
        )
    };
    let slot = Arc::clone(&node.slots).try_acquire_owned().map_err(|_| busy())?;
    let (parts, body) = request.into_parts();
    let bytes = body::read(&parts.headers, body, node.limits.body_bytes).await?;
    let hung_up = CancellationToken::new();
    let work = tokio::spawn(node.tracker.track_future({
        let (node, hung_up) = (Arc::clone(node), hung_up.clone());
        async move {
            let _slot = slot;
            node.metrics.in_flight.inc();
            let result = if path == infer::PATH {
                infer::handle(Arc::clone(&node), parts.headers, bytes, started).await
            } else {
                chat::handle(Arc::clone(&node), parts.headers, bytes, started, hung_up).await
            };
            node.metrics.in_flight.dec();
            result
        }
    }));
    // Cancelled when this handler is dropped: the client has left.
    let _guard = hung_up.drop_guard();
    work.await.unwrap_or_else(|panic| Err(internal(panic)))
}

async fn models(State(node): State<Arc<Node>>) -> Json<Value> {
    let attested = node.attestation.current(unix_seconds());
    let data: Vec<Value> = node.catalogue.iter().map(|served| served.describe(attested)).collect();
    Json(json!({"object": "list", "data": data}))
}

async fn model(State(node): State<Arc<Node>>, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    let object = json!({ "model": name });
    let (_, served) = node.model(object.as_object().unwrap_or(&serde_json::Map::new()))?;
    Ok(Json(served.describe(node.attestation.current(unix_seconds()))))
}

/// The node's keys, of which the chain keeps only the digest, and their evidence.
async fn keyset(State(node): State<Arc<Node>>) -> Json<Value> {
    let attested = node.attestation.current(unix_seconds());
    Json(json!({"keyset": node.keyset, "digest": node.keyset.digest(), "attestation": attested}))
}

/// State and inclusion proof to anyone; the core and what opens it to the holder of the receipt's secret (D11).
async fn receipt(
    State(node): State<Arc<Node>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    let id = receipt_id(&id)?;
    let stored = node.store.get(id).map_err(internal)?;
    let secret = bearer(&headers)?;
    if let (Some(secret), Some(stored)) = (secret, &stored)
        && !stored.opens(id, secret)
    {
        return Err(wrong_secret());
    }
    let rpc = node.chain.rpc();
    let (public, inclusion) = futures::join!(
        rpc.call("og_getReceipt", json!([id])),
        rpc.call("og_getInclusionProof", json!([id]))
    );
    let (public, inclusion) = (known(public), known(inclusion));
    let Some(stored) = stored else {
        let Some(mut public) = public.ok().filter(|p| !p.is_null()) else {
            return Err(unknown_receipt(id));
        };
        public["receipt_id"] = json!(id);
        public["inclusion"] = inclusion.unwrap_or(Value::Null);
        return Ok(Json(public));
    };
    let receipt = SignedReceipt::decode(&stored.cose).map_err(internal)?;
    let core = receipt.core();
    let payment = payment_state(&node, &receipt)?;
    // The chain knows better than this node's last look at it.
    let state = public
        .as_ref()
        .ok()
        .and_then(|p| p["state"].as_str())
        .unwrap_or(stored.stage.word(core.mode.served))
        .to_owned();
    let mut answer = json!({
        "receipt_id": id,
        "state": state,
        "mode": core.mode.served.as_str(),
        "grade": core.mode.grade.as_str(),
        "finish": core.response.finish.as_str(),
        "core_hash": receipt.core_hash(),
        "payment_state": payment,
        "chain": public.unwrap_or(Value::Null),
        "inclusion": inclusion.unwrap_or(Value::Null),
    });
    if core.mode.served == Mode::Zk {
        answer["proof"] = proof_state(&node, id)?;
    }
    if let Some(secret) = secret {
        answer["opg"] = match node.store.opening(id).map_err(internal)? {
            Some(opening) => opening.envelope(&receipt, Some(secret)),
            // The openings are kept for a while only; the signed core stays.
            None => json!({"receipt_id": id, "receipt": receipt.cose()}),
        };
        answer["opg"]["state"] = json!(state);
    }
    Ok(Json(answer))
}

/// Where the payment of a receipt stands, in a word.
fn payment_state(node: &Node, receipt: &SignedReceipt) -> Result<&'static str, ApiError> {
    Ok(match PaidBy::of(receipt) {
        PaidBy::Single(key) => {
            let record = node.reservations.get(key).map_err(internal)?;
            record.map_or(PaymentState::Released, |record| record.state()).as_str()
        }
        PaidBy::Channel(id) => match node.desk.channels.is_claimed(id) {
            Some(true) => PaymentState::Settled.as_str(),
            Some(false) => "charged",
            None => PaymentState::Released.as_str(),
        },
    })
}

/// Where the proof of a receipt stands.
fn proof_state(node: &Node, id: ReceiptId) -> Result<Value, ApiError> {
    // In this order, as in `proof`: a proof that is done between the two looks is not missed.
    let waiting = node.progress.of(id, &node.store.unproven());
    Ok(match node.store.artefact(id).map_err(internal)? {
        Some(artefact) => json!({"state": "proven", "bytes": artefact.len()}),
        None => waiting,
    })
}

/// The proof of an answer, for the holder of the receipt's secret: it contains request and answer. 202 while it is made.
async fn proof(
    State(node): State<Arc<Node>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let id = receipt_id(&id)?;
    let stored = node
        .store
        .get(id)
        .map_err(internal)?
        .ok_or_else(|| unknown_receipt(id))?;
    if !bearer(&headers)?.is_some_and(|secret| stored.opens(id, secret)) {
        return Err(wrong_secret());
    }
    // The state first: a proof that is done between the two looks is found by the second.
    let waiting = node.progress.of(id, &node.store.unproven());
    if let Some(artefact) = node.store.artefact(id).map_err(internal)? {
        let content = [(header::CONTENT_TYPE, "application/opg-zk-artefact+cbor")];
        return Ok((content, Body::from(axum::body::Bytes::from(artefact))).into_response());
    }
    if waiting.is_null() {
        return Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "proof_not_found",
            "this receipt has no proof: its mode has none, or its time is over",
        )
        .param("id"));
    }
    Ok((StatusCode::ACCEPTED, Json(json!({"receipt_id": id, "proof": waiting}))).into_response())
}

fn receipt_id(text: &str) -> Result<ReceiptId, ApiError> {
    text.parse().map_err(|e: opg_primitives::ids::IdError| {
        ApiError::bad_request("invalid_receipt_id", e.to_string()).param("id")
    })
}

fn wrong_secret() -> ApiError {
    let message = "this is not the secret of this receipt";
    ApiError::new(StatusCode::UNAUTHORIZED, "invalid_secret", message).param("Authorization")
}

fn unknown_receipt(id: ReceiptId) -> ApiError {
    let message = format!("receipt {id} is not known");
    ApiError::new(StatusCode::NOT_FOUND, "receipt_not_found", message).param("id")
}

/// An answer, with every refusal of a full node read as "not known there".
fn known(result: Result<Value, RpcError>) -> Result<Value, RpcError> {
    match result {
        Err(RpcError::Remote { .. }) => Ok(Value::Null),
        other => other,
    }
}

fn bearer(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let text = value
        .to_str()
        .ok()
        .and_then(|v| v.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    text.map(|(_, secret)| Some(secret.trim())).ok_or_else(|| {
        ApiError::new(
            StatusCode::UNAUTHORIZED,
            "invalid_authorization",
            "expected Authorization: Bearer <secret of the receipt>",
        )
        .param("Authorization")
    })
}

async fn health(State(node): State<Arc<Node>>) -> Response {
    let journal = node.journal.health();
    let ok = journal.is_ok() && !node.stopping.is_cancelled();
    let body = json!({
        "status": if ok { "ok" } else { "failing" },
        "node_id": node.node_id,
        "models": node.catalogue.iter().map(|s| s.model.name.clone()).collect::<Vec<_>>(),
        "receipts_waiting": node.store.outbox_len(),
        "proofs_waiting": node.store.unproven().len(),
        "engine": crate::engine::describe(&node.engine, node.catalogue.engine()),
        "error": journal.err().map(|e| e.to_string()),
    });
    let status = if ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(body)).into_response()
}

async fn metrics(State(node): State<Arc<Node>>) -> Response {
    let (_, exposure) = node.reservations.exposure(Default::default(), unix_seconds());
    let opg = exposure.wei() as f64 / opg_primitives::money::WEI_PER_OPG as f64;
    let (outbox, unproven) = (node.store.outbox_len(), node.store.unproven().len());
    node.metrics.gauges(&node.reservations.counts(), opg, outbox, unproven);
    if let Some(engine) = node.catalogue.engine() {
        node.metrics.engine(&engine);
    }
    let content = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content)], Body::from(node.metrics.text())).into_response()
}
