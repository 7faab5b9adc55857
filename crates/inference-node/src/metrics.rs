//! Prometheus metrics.

use opg_model_store::{Outcome, Source};
use opg_payments::reserve::State;
use opg_primitives::money::{Amount, WEI_PER_OPG};
use opg_runtime::worker::EngineStatus;
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
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Route and status of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RequestLabels {
    route: &'static str,
    status: u16,
}

/// Route of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct RouteLabel {
    route: &'static str,
}

/// One word.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct WordLabel {
    state: &'static str,
}

/// What became of asking a source of models.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct SourceLabels {
    kind: &'static str,
    source: String,
    outcome: &'static str,
}

#[derive(Clone)]
struct Seconds {
    first: f64,
}

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(self.first, 2.0, 18))
    }
}

/// All metrics of a node.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    latency: Family<RouteLabel, Histogram, Seconds>,
    added: Family<RouteLabel, Histogram, Seconds>,
    receipts: Family<WordLabel, Counter>,
    settlements: Family<WordLabel, Counter>,
    channel_steps: Family<WordLabel, Counter>,
    channels: Gauge,
    unclaimed: Gauge<f64, std::sync::atomic::AtomicU64>,
    attestations: Family<WordLabel, Counter>,
    proofs: Family<WordLabel, Counter>,
    proof_seconds: Histogram,
    unproven: Gauge,
    payments: Family<WordLabel, Gauge>,
    exposure: Gauge<f64, std::sync::atomic::AtomicU64>,
    bond: Gauge<f64, std::sync::atomic::AtomicU64>,
    fees: Gauge<f64, std::sync::atomic::AtomicU64>,
    outbox: Gauge,
    pub(crate) in_flight: Gauge,
    pub(crate) tokens: Counter,
    model_sources: Family<SourceLabels, Counter>,
    model_bytes: Family<SourceLabels, Counter>,
    pub(crate) model_bytes_shared: Counter,
    engine_workers: Gauge,
    engine_locked: Gauge,
    engine_starts: Counter,
    engine_faults: Family<WordLabel, Counter>,
    catching_up: Mutex<()>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("opg_inference");
        // 50 µs … 6.5 s for what the node adds, 1 ms … 131 s for whole requests.
        let latency = Family::new_with_constructor(Seconds { first: 0.001 });
        let added = Family::new_with_constructor(Seconds { first: 0.000_05 });
        let metrics = Self {
            requests: Family::default(),
            latency,
            added,
            receipts: Family::default(),
            settlements: Family::default(),
            channel_steps: Family::default(),
            channels: Gauge::default(),
            unclaimed: Gauge::default(),
            attestations: Family::default(),
            proofs: Family::default(),
            proof_seconds: Histogram::new(exponential_buckets(0.01, 2.0, 18)),
            unproven: Gauge::default(),
            payments: Family::default(),
            exposure: Gauge::default(),
            bond: Gauge::default(),
            fees: Gauge::default(),
            outbox: Gauge::default(),
            in_flight: Gauge::default(),
            tokens: Counter::default(),
            model_sources: Family::default(),
            model_bytes: Family::default(),
            model_bytes_shared: Counter::default(),
            engine_workers: Gauge::default(),
            engine_locked: Gauge::default(),
            engine_starts: Counter::default(),
            engine_faults: Family::default(),
            catching_up: Mutex::default(),
            registry: Registry::default(),
        };
        registry.register("requests", "Answered requests", metrics.requests.clone());
        registry.register("request_seconds", "Time of a request", metrics.latency.clone());
        registry.register(
            "added_seconds",
            "Time of a paid request without the model's own",
            metrics.added.clone(),
        );
        registry.register("receipts", "Receipts that reached a state", metrics.receipts.clone());
        registry.register("settlements", "Outcomes of settlements", metrics.settlements.clone());
        let attestations = metrics.attestations.clone();
        registry.register("attestations", "Outcomes of attesting the keyset", attestations);
        let steps = metrics.channel_steps.clone();
        registry.register("channel_steps", "Steps of payment channels on chain", steps);
        registry.register("channels", "Payment channels in the books", metrics.channels.clone());
        let unclaimed = metrics.unclaimed.clone();
        registry.register(
            "channels_unclaimed_opg",
            "OPG owed by channels and not claimed",
            unclaimed,
        );
        registry.register("proofs", "Outcomes of proofs after the answer", metrics.proofs.clone());
        registry.register("proof_seconds", "Time of a proof", metrics.proof_seconds.clone());
        registry.register(
            "unproven",
            "Answers that wait for their proof",
            metrics.unproven.clone(),
        );
        registry.register("payments", "Live payments by state", metrics.payments.clone());
        registry.register("exposure_opg", "Unsettled OPG of all payers", metrics.exposure.clone());
        registry.register("bond_opg", "Bond of the node", metrics.bond.clone());
        let fees = metrics.fees.clone();
        registry.register("recent_fees_opg", "Fees of two days, which the bond has to cover", fees);
        registry.register("outbox", "Receipts that are not final yet", metrics.outbox.clone());
        registry.register("in_flight", "Requests being worked on", metrics.in_flight.clone());
        registry.register("tokens", "Tokens generated", metrics.tokens.clone());
        let sources = metrics.model_sources.clone();
        registry.register("model_sources", "Outcomes of asking sources of models", sources);
        let fetched = metrics.model_bytes.clone();
        registry.register("model_bytes_fetched", "Bytes of models that sources sent", fetched);
        let shared = metrics.model_bytes_shared.clone();
        registry.register("model_bytes_shared", "Bytes of models given to other nodes", shared);
        let workers = metrics.engine_workers.clone();
        registry.register("engine_workers", "Processes that run ONNX models", workers);
        let locked = metrics.engine_locked.clone();
        registry.register("engine_locked", "1 if the kernel locks all of them in wholly", locked);
        let starts = metrics.engine_starts.clone();
        registry.register("engine_starts", "Processes started to run ONNX models", starts);
        let faults = metrics.engine_faults.clone();
        registry.register("engine_faults", "Processes that ended or had to be ended", faults);
        Self { registry, ..metrics }
    }

    /// What became of asking a source, which the configuration names, for a model.
    pub(crate) fn model_source(&self, source: &Source, outcome: Outcome, bytes: u64) {
        let labels = SourceLabels {
            kind: source.kind().as_str(),
            source: source.url().to_owned(),
            outcome: outcome.as_str(),
        };
        self.model_bytes.get_or_create(&labels).inc_by(bytes);
        self.model_sources.get_or_create(&labels).inc();
    }

    pub(crate) fn request(&self, route: &'static str, status: u16, took: Duration) {
        self.requests.get_or_create(&RequestLabels { route, status }).inc();
        self.latency
            .get_or_create(&RouteLabel { route })
            .observe(took.as_secs_f64());
    }

    /// Time of a paid request outside the model.
    pub(crate) fn added(&self, route: &'static str, took: Duration) {
        self.added
            .get_or_create(&RouteLabel { route })
            .observe(took.as_secs_f64());
    }

    /// What became of a proof, and how long a good one took.
    pub(crate) fn proof(&self, state: &'static str, took: Option<Duration>) {
        self.proofs.get_or_create(&WordLabel { state }).inc();
        if let Some(took) = took {
            self.proof_seconds.observe(took.as_secs_f64());
        }
    }

    pub(crate) fn receipt(&self, state: &'static str) {
        self.receipts.get_or_create(&WordLabel { state }).inc();
    }

    pub(crate) fn attestation(&self, state: &'static str) {
        self.attestations.get_or_create(&WordLabel { state }).inc();
    }

    pub(crate) fn channel(&self, state: &'static str) {
        self.channel_steps.get_or_create(&WordLabel { state }).inc();
    }

    pub(crate) fn channels(&self, count: usize, unclaimed: Amount) {
        self.channels.set(i64::try_from(count).unwrap_or(i64::MAX));
        self.unclaimed.set(unclaimed.wei() as f64 / WEI_PER_OPG as f64);
    }

    /// The node's bond, and its fees of today and yesterday.
    pub(crate) fn bond(&self, bond: Amount, fees: Amount) {
        self.bond.set(bond.wei() as f64 / WEI_PER_OPG as f64);
        self.fees.set(fees.wei() as f64 / WEI_PER_OPG as f64);
    }

    pub(crate) fn settlement(&self, state: &'static str) {
        self.settlements.get_or_create(&WordLabel { state }).inc();
    }

    pub(crate) fn gauges(&self, payments: &HashMap<State, usize>, exposure_opg: f64, outbox: usize, unproven: usize) {
        for state in State::ALL {
            let count = payments.get(&state).copied().unwrap_or(0);
            self.payments
                .get_or_create(&WordLabel { state: state.as_str() })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
        self.exposure.set(exposure_opg);
        self.outbox.set(i64::try_from(outbox).unwrap_or(i64::MAX));
        self.unproven.set(i64::try_from(unproven).unwrap_or(i64::MAX));
    }

    /// The processes that run ONNX models. They count by themselves; here the counters catch up.
    pub(crate) fn engine(&self, status: &EngineStatus) {
        let locked = status
            .protection
            .is_some_and(|protection| protection.missing().is_none());
        self.engine_workers
            .set(i64::try_from(status.workers).unwrap_or(i64::MAX));
        self.engine_locked.set(locked.into());
        // Between reading and adding nobody else may add.
        let _alone = self.catching_up.lock().unwrap_or_else(PoisonError::into_inner);
        let catch_up = |counter: &Counter, count: u64| counter.inc_by(count.saturating_sub(counter.get()));
        catch_up(&self.engine_starts, status.starts);
        for (state, count) in [
            ("died", status.died),
            ("late", status.late),
            ("nonsense", status.nonsense),
        ] {
            catch_up(&self.engine_faults.get_or_create(&WordLabel { state }), count);
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
        metrics.request("/v1/infer", 200, Duration::from_millis(3));
        metrics.added("/v1/infer", Duration::from_micros(300));
        metrics.receipt("final");
        metrics.settlement("settled");
        metrics.proof("proven", Some(Duration::from_millis(40)));
        metrics.gauges(&HashMap::from([(State::Served, 2)]), 0.5, 7, 1);
        let engine = EngineStatus {
            workers: 2,
            starts: 3,
            died: 1,
            ..EngineStatus::default()
        };
        // Counters follow; they do not add up what they were told before.
        metrics.engine(&engine);
        metrics.engine(&engine);
        let text = metrics.text();
        for line in [
            "opg_inference_requests_total{route=\"/v1/infer\",status=\"200\"} 1",
            "opg_inference_receipts_total{state=\"final\"} 1",
            "opg_inference_payments{state=\"served\"} 2",
            "opg_inference_proofs_total{state=\"proven\"} 1",
            "opg_inference_unproven 1",
            "opg_inference_exposure_opg 0.5",
            "opg_inference_outbox 7",
            "opg_inference_engine_workers 2",
            "opg_inference_engine_locked 0",
            "opg_inference_engine_starts_total 3",
            "opg_inference_engine_faults_total{state=\"died\"} 1",
        ] {
            assert!(text.contains(line), "{line} in\n{text}");
        }
    }
}
