//! Routes.

use crate::{error::ApiError, forward, headers, models, rate::Rates, receipts, relay, state::State};
use axum::{
    Json, Router,
    body::Body,
    extract::{ConnectInfo, Path, Request, State as Shared},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use http::{HeaderMap, HeaderName, StatusCode, header};
use serde_json::{Value, json};
use std::{net::SocketAddr, sync::Arc, time::Instant};
use tower_http::cors::{Any, CorsLayer};

const CHAT: &str = "/v1/chat/completions";
const INFER: &str = "/v1/infer";
/// Headers that a browser may read.
const EXPOSED: [HeaderName; 6] = [
    HeaderName::from_static("payment-required"),
    HeaderName::from_static("payment-response"),
    headers::RECEIPT_ID,
    HeaderName::from_static("x-opg-receipt-secret"),
    headers::NODE,
    header::RETRY_AFTER,
];

type Address = ConnectInfo<SocketAddr>;
type Router_ = Shared<Arc<State>>;

pub(crate) fn router(state: Arc<State>) -> Router {
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods(Any)
        .allow_headers(Any)
        .expose_headers(EXPOSED);
    let mut router = Router::new()
        .route(
            CHAT,
            post(|s: Router_, a: Address, r: Request| infer(s, a, r, CHAT, "chat")),
        )
        .route(
            INFER,
            post(|s: Router_, a: Address, r: Request| infer(s, a, r, INFER, "infer")),
        )
        .route("/v1/models", get(list))
        .route("/v1/models/{*name}", get(model))
        .route(
            "/v1/receipts/{id}",
            get(|s: Router_, a: Address, p: Path<String>, h: HeaderMap| receipt(s, a, p, h, "")),
        )
        .route(
            "/v1/receipts/{id}/proof",
            get(|s: Router_, a: Address, p: Path<String>, h: HeaderMap| receipt(s, a, p, h, "/proof")),
        )
        .route("/health", get(health))
        .route("/metrics", get(metrics));
    if state.config.relay.enabled {
        router = router
            .route("/ohttp/{node}", post(relayed))
            .route("/ohttp/{node}/keys", get(relayed_keys));
    }
    router
        .fallback(|| async {
            ApiError::not_found(
                "not_found",
                "no such path; see /v1/models, /v1/chat/completions, /v1/infer, /v1/receipts/{id}",
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
        .with_state(state)
}

/// What every request goes through: is there still time, has the address asked too often; and what is counted.
async fn guarded(
    state: &Arc<State>,
    rates: &Rates,
    address: SocketAddr,
    route: &'static str,
    work: impl Future<Output = Result<Response, ApiError>>,
) -> Response {
    let started = Instant::now();
    state.metrics.in_flight.inc();
    let admitted = if state.stopping.is_cancelled() {
        Err(ApiError::unavailable(
            "shutting_down",
            "the router is shutting down; try another one",
        ))
    } else {
        rates.take(address.ip(), started).map_err(|wait| {
            state.metrics.limited.inc();
            ApiError::too_many(wait)
        })
    };
    let result = match admitted {
        Ok(()) => work.await,
        Err(error) => Err(error),
    };
    state.metrics.in_flight.dec();
    let response = result.unwrap_or_else(|error| {
        tracing::debug!(route, status = error.status.as_u16(), code = error.code, "refused");
        error.into_response()
    });
    state
        .metrics
        .request(route, response.status().as_u16(), started.elapsed());
    response
}

async fn infer(
    Shared(state): Router_,
    ConnectInfo(address): Address,
    request: Request,
    path: &'static str,
    route: &'static str,
) -> Response {
    guarded(
        &state,
        &state.rates,
        address,
        route,
        forward::infer(&state, request, path),
    )
    .await
}

async fn receipt(
    Shared(state): Router_,
    ConnectInfo(address): Address,
    Path(id): Path<String>,
    headers: HeaderMap,
    tail: &'static str,
) -> Response {
    guarded(
        &state,
        &state.rates,
        address,
        "receipt",
        receipts::get(&state, &id, tail, &headers),
    )
    .await
}

async fn relayed(
    Shared(state): Router_,
    ConnectInfo(address): Address,
    Path(node): Path<String>,
    request: Request,
) -> Response {
    guarded(
        &state,
        &state.relay_rates,
        address,
        "relay",
        relay::relay(&state, &node, request),
    )
    .await
}

async fn relayed_keys(Shared(state): Router_, ConnectInfo(address): Address, Path(node): Path<String>) -> Response {
    guarded(
        &state,
        &state.relay_rates,
        address,
        "relay_keys",
        relay::keys(&state, &node),
    )
    .await
}

async fn list(Shared(state): Router_, ConnectInfo(address): Address) -> Response {
    let work = async { Ok(Json(json!({"object": "list", "data": models::list(&state)})).into_response()) };
    guarded(&state, &state.rates, address, "models", work).await
}

async fn model(Shared(state): Router_, ConnectInfo(address): Address, Path(name): Path<String>) -> Response {
    let work = async { models::one(&state, &name).map(|entry| Json(entry).into_response()) };
    guarded(&state, &state.rates, address, "models", work).await
}

async fn health(Shared(state): Router_) -> Response {
    let nodes = state.nodes.all();
    let up = nodes.iter().filter(|node| node.is_up()).count();
    let parked = nodes.iter().filter(|node| node.is_parked()).count();
    let stopping = state.stopping.is_cancelled();
    let word = match (stopping, up) {
        (true, _) => "stopping",
        (false, 0) => "no node is up",
        (false, _) => "ok",
    };
    let quality = &state.config.quality;
    let body = json!({
        "status": word,
        "nodes": {"known": nodes.len(), "up": up, "parked": parked},
        "relay": state.config.relay.enabled,
        // Public, so that anybody can see by what nodes are chosen.
        "weights": {"success": quality.success, "first_byte": quality.first_byte, "speed": quality.speed,
            "price": quality.price, "audit": quality.audit, "stake": quality.stake},
    });
    let status = if word == "ok" {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(body) as Json<Value>).into_response()
}

async fn metrics(Shared(state): Router_) -> Response {
    let content = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content)], Body::from(state.metrics.text())).into_response()
}
