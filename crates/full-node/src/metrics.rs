//! Prometheus metrics and health of a full node.

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Json, Response},
    routing::get,
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use serde_json::Value;
use std::{fmt, sync::Arc};

/// Label of a JSON-RPC method. Only methods that exist get a label of their own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct MethodLabel {
    /// The method.
    pub method: String,
}

/// Label of a rule (receipt.md §6).
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RuleLabel {
    /// Its stable code.
    pub rule: &'static str,
}

/// All metrics of one node.
pub struct Metrics {
    registry: Registry,
    /// Height of the newest finalized block.
    pub height: Gauge,
    /// Receipts in finalized blocks since the start.
    pub receipts_final: Counter,
    /// Receipts that passed verification on submission.
    pub receipts_accepted: Counter,
    /// Receipts refused, by rule.
    pub receipts_rejected: Family<RuleLabel, Counter>,
    /// Receipts in the pool.
    pub pool_receipts: Gauge,
    /// Bytes in the pool.
    pub pool_bytes: Gauge,
    /// Seconds from acceptance into the pool to finality.
    pub receipt_to_final: Histogram,
    /// Seconds to verify one receipt on submission.
    pub verify_receipt: Histogram,
    /// Seconds to verify a proposed block.
    pub verify_block: Histogram,
    /// Seconds to build a block, without the wait for its second.
    pub build_block: Histogram,
    /// Blocks of other leaders that this node refused.
    pub blocks_rejected: Counter,
    /// Transactions in finalized blocks since the start.
    pub transactions_final: Counter,
    /// JSON-RPC calls by method.
    pub rpc_calls: Family<MethodLabel, Counter>,
    /// JSON-RPC errors by method.
    pub rpc_errors: Family<MethodLabel, Counter>,
    /// Seconds to answer a call.
    pub rpc_seconds: Histogram,
    /// Requests refused by the rate limit.
    pub rpc_limited: Counter,
    /// Open WebSocket connections.
    pub ws_connections: Gauge,
    /// Peers connected.
    pub peers: Gauge,
    /// Gossip messages from peers that were dropped because this node was busy.
    pub gossip_dropped: Counter,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics")
            .field("height", &self.height.get())
            .finish_non_exhaustive()
    }
}

fn seconds() -> Histogram {
    Histogram::new([
        0.0001, 0.0005, 0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 1.5, 2.5, 5.0, 10.0,
    ])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("opg_full_node");
        macro_rules! register {
            ($($name:ident: $make:expr, $help:literal;)*) => {
                $(let $name = $make; registry.register(stringify!($name), $help, $name.clone());)*
            };
        }
        register! {
            height: Gauge::default(), "Height of the newest finalized block";
            receipts_final: Counter::default(), "Receipts in finalized blocks since the start";
            receipts_accepted: Counter::default(), "Receipts that passed verification on submission";
            receipts_rejected: Family::<RuleLabel, Counter>::default(), "Receipts refused, by rule";
            pool_receipts: Gauge::default(), "Receipts in the pool";
            pool_bytes: Gauge::default(), "Bytes in the pool";
            receipt_to_final: seconds(), "Seconds from acceptance of a receipt to finality";
            verify_receipt: seconds(), "Seconds to verify a submitted receipt";
            verify_block: seconds(), "Seconds to verify a proposed block";
            build_block: seconds(), "Seconds to build a block";
            blocks_rejected: Counter::default(), "Proposed blocks that this node refused";
            transactions_final: Counter::default(), "Transactions in finalized blocks since the start";
            rpc_calls: Family::<MethodLabel, Counter>::default(), "JSON-RPC calls";
            rpc_errors: Family::<MethodLabel, Counter>::default(), "JSON-RPC calls answered with an error";
            rpc_seconds: seconds(), "Seconds to answer a JSON-RPC call";
            rpc_limited: Counter::default(), "Requests refused by the rate limit";
            ws_connections: Gauge::default(), "Open WebSocket connections";
            peers: Gauge::default(), "Connected validators";
            gossip_dropped: Counter::default(), "Gossip messages dropped because this node was busy";
        }
        Self {
            registry,
            height,
            receipts_final,
            receipts_accepted,
            receipts_rejected,
            pool_receipts,
            pool_bytes,
            receipt_to_final,
            verify_receipt,
            verify_block,
            build_block,
            blocks_rejected,
            transactions_final,
            rpc_calls,
            rpc_errors,
            rpc_seconds,
            rpc_limited,
            ws_connections,
            peers,
            gossip_dropped,
        }
    }
}

impl Metrics {
    /// OpenMetrics text of everything.
    ///
    /// # Errors
    /// Formatting; does not happen with the metrics above.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        encode(&mut out, &self.registry)?;
        Ok(out)
    }
}

/// What the metrics server asks the node for.
pub trait Health: Send + Sync + 'static {
    /// `(healthy, status object)`.
    fn health(&self) -> (bool, Value);
    /// Updates gauges that are read on demand, and returns the metrics.
    fn metrics(&self) -> &Metrics;
}

/// Routes `/metrics` and `/health`.
pub fn router(health: Arc<dyn Health>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(answer_health))
        .with_state(health)
}

async fn metrics(State(health): State<Arc<dyn Health>>) -> Response {
    match health.metrics().text() {
        Ok(text) => (
            [(
                header::CONTENT_TYPE,
                "application/openmetrics-text; version=1.0.0; charset=utf-8",
            )],
            text,
        )
            .into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

async fn answer_health(State(health): State<Arc<dyn Health>>) -> Response {
    let (healthy, status) = health.health();
    let code = if healthy {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (code, Json(status)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_names_every_metric() {
        let metrics = Metrics::default();
        metrics.height.set(7);
        metrics
            .receipts_rejected
            .get_or_create(&RuleLabel { rule: "seq_used" })
            .inc();
        let text = metrics.text().unwrap();
        assert!(text.contains("opg_full_node_height 7"), "{text}");
        assert!(
            text.contains(r#"opg_full_node_receipts_rejected_total{rule="seq_used"} 1"#),
            "{text}"
        );
    }
}
