//! Prometheus metrics. None of them tells clients apart.

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use std::time::Duration;

/// Group of routes and status of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NodeLabels {
    node: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

#[derive(Clone)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        // 0.25 ms … 131 s.
        Histogram::new(exponential_buckets(0.000_25, 2.0, 20))
    }
}

/// All metrics of a router.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    latency: Family<RouteLabel, Histogram, Seconds>,
    outcomes: Family<NodeLabels, Counter>,
    nodes: Family<StateLabel, Gauge>,
    pub(crate) hedges: Counter,
    pub(crate) failovers: Counter,
    pub(crate) parked: Counter,
    pub(crate) limited: Counter,
    pub(crate) relayed_in: Counter,
    pub(crate) relayed_out: Counter,
    pub(crate) discovery_failures: Counter,
    pub(crate) in_flight: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut all = Self {
            registry: Registry::with_prefix("opg_router"),
            requests: Family::default(),
            latency: Family::new_with_constructor(Seconds),
            outcomes: Family::default(),
            nodes: Family::default(),
            hedges: Counter::default(),
            failovers: Counter::default(),
            parked: Counter::default(),
            limited: Counter::default(),
            relayed_in: Counter::default(),
            relayed_out: Counter::default(),
            discovery_failures: Counter::default(),
            in_flight: Gauge::default(),
        };
        let registry = &mut all.registry;
        registry.register("requests", "Answered requests", all.requests.clone());
        registry.register("request_seconds", "Time to the head of an answer", all.latency.clone());
        registry.register("node_outcomes", "How requests to a node ended", all.outcomes.clone());
        registry.register("nodes", "Registered nodes by state", all.nodes.clone());
        registry.register("hedges", "Quotes for which a second node was asked", all.hedges.clone());
        registry.register(
            "failovers",
            "Quotes asked elsewhere after a failure",
            all.failovers.clone(),
        );
        registry.register(
            "parked",
            "Times that a node was parked after failures",
            all.parked.clone(),
        );
        registry.register("rate_limited", "Requests refused for their rate", all.limited.clone());
        registry.register("relayed_request_bytes", "Sealed bytes to nodes", all.relayed_in.clone());
        registry.register(
            "relayed_answer_bytes",
            "Sealed bytes from nodes",
            all.relayed_out.clone(),
        );
        registry.register(
            "discovery_failures",
            "Looks at the registry that failed",
            all.discovery_failures.clone(),
        );
        registry.register("in_flight", "Requests being worked on", all.in_flight.clone());
        all
    }

    pub(crate) fn request(&self, route: &'static str, status: u16, took: Duration) {
        self.requests.get_or_create(&RequestLabels { route, status }).inc();
        self.latency
            .get_or_create(&RouteLabel { route })
            .observe(took.as_secs_f64());
    }

    pub(crate) fn outcome(&self, node: &str, outcome: &'static str) {
        let node = node.to_owned();
        self.outcomes.get_or_create(&NodeLabels { node, outcome }).inc();
    }

    pub(crate) fn nodes(&self, up: usize, down: usize, parked: usize) {
        for (state, count) in [("up", up), ("down", down), ("parked", parked)] {
            let gauge = self.nodes.get_or_create(&StateLabel { state });
            gauge.set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string fails only if a metric does, and none of these can.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_exposed_under_their_names() {
        let metrics = Metrics::new();
        metrics.request("chat", 402, Duration::from_millis(3));
        metrics.outcome("0x01", "failed");
        metrics.nodes(2, 1, 0);
        let text = metrics.text();
        for line in [
            "opg_router_requests_total{route=\"chat\",status=\"402\"} 1",
            "opg_router_node_outcomes_total{node=\"0x01\",outcome=\"failed\"} 1",
            "opg_router_nodes{state=\"up\"} 2",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
