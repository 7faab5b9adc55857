//! Prometheus metrics.

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

/// Group of routes and status of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    route: String,
    status: u16,
}

/// What was away.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartLabel {
    part: &'static str,
}

/// Group of routes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabel {
    route: String,
}

#[derive(Clone)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        // 0.25 ms … 131 s.
        Histogram::new(exponential_buckets(0.000_25, 2.0, 20))
    }
}

/// All metrics of a hub.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    latency: Family<RouteLabel, Histogram, Seconds>,
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
    pub(crate) commits: Counter,
    pub(crate) conflicts: Counter,
    pub(crate) refused_blobs: Counter,
    pub(crate) quota_refusals: Counter,
    unavailable: Family<PartLabel, Counter>,
    pub(crate) damaged_reads: Counter,
    pub(crate) collected: Counter,
    pub(crate) in_flight: Gauge,
    blobs: Gauge,
    blob_bytes: Gauge,
    repos: Gauge,
    pub(crate) chain_block: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("opg_hub"),
            requests: Family::default(),
            latency: Family::new_with_constructor(Seconds),
            received: Counter::default(),
            sent: Counter::default(),
            commits: Counter::default(),
            conflicts: Counter::default(),
            refused_blobs: Counter::default(),
            quota_refusals: Counter::default(),
            unavailable: Family::default(),
            damaged_reads: Counter::default(),
            collected: Counter::default(),
            in_flight: Gauge::default(),
            blobs: Gauge::default(),
            blob_bytes: Gauge::default(),
            repos: Gauge::default(),
            chain_block: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("requests", "Answered requests", metrics.requests.clone());
        registry.register(
            "request_seconds",
            "Time to the first byte of an answer",
            metrics.latency.clone(),
        );
        registry.register("received_bytes", "Bytes of uploaded files", metrics.received.clone());
        registry.register("sent_bytes", "Bytes of downloaded files", metrics.sent.clone());
        registry.register("commits", "Commits made", metrics.commits.clone());
        registry.register(
            "conflicts",
            "Commits refused because the branch had moved",
            metrics.conflicts.clone(),
        );
        registry.register(
            "refused_blobs",
            "Uploads with another hash or size than announced",
            metrics.refused_blobs.clone(),
        );
        registry.register(
            "quota_refusals",
            "Requests refused because an account has all that it may have",
            metrics.quota_refusals.clone(),
        );
        registry.register(
            "unavailable",
            "Requests that failed because the database or the bucket was away",
            metrics.unavailable.clone(),
        );
        registry.register(
            "damaged_reads",
            "Downloads cut because stored bytes have another hash",
            metrics.damaged_reads.clone(),
        );
        registry.register("collected_blobs", "Blobs removed as garbage", metrics.collected.clone());
        registry.register("in_flight", "Requests being worked on", metrics.in_flight.clone());
        registry.register("blobs", "Stored blobs", metrics.blobs.clone());
        registry.register("blob_bytes", "Bytes of stored blobs", metrics.blob_bytes.clone());
        registry.register(
            "chain_block",
            "Block up to which earnings are summed",
            metrics.chain_block.clone(),
        );
        registry.register("repositories", "Model repositories", metrics.repos.clone());
        metrics
    }

    pub(crate) fn request(&self, route: &str, status: u16, took: Duration) {
        let labels = RequestLabels {
            route: route.to_owned(),
            status,
        };
        self.requests.get_or_create(&labels).inc();
        self.latency
            .get_or_create(&RouteLabel { route: labels.route })
            .observe(took.as_secs_f64());
    }

    /// Counts an answer that says that a part of the hub is away.
    pub(crate) fn failed(&self, code: &[u8]) {
        let part = match code {
            b"DatabaseUnavailable" => "database",
            b"StoreUnavailable" => "bucket",
            _ => return,
        };
        self.unavailable.get_or_create(&PartLabel { part }).inc();
    }

    pub(crate) fn gauges(&self, blobs: i64, bytes: u64, repos: i64) {
        self.blobs.set(blobs);
        self.blob_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.repos.set(repos);
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
        metrics.request("resolve", 206, Duration::from_millis(3));
        metrics.sent.inc_by(7);
        metrics.gauges(2, 9, 1);
        let text = metrics.text();
        for line in [
            "opg_hub_requests_total{route=\"resolve\",status=\"206\"} 1",
            "opg_hub_sent_bytes_total 7",
            "opg_hub_blob_bytes 9",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
