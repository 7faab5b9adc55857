//! The nodes a router knows, and what it has measured of each.

use crate::{
    breaker::Breaker,
    metrics::Metrics,
    pick::{self, Candidate},
    score::{self, Measured, Terms, Window},
};
use alloy_primitives::Address;
use opg_contracts::addresses;
use opg_primitives::ids::{NodeId, deposit_address};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Most models of one node that are kept.
pub(crate) const MAX_MODELS: usize = 512;

/// Seconds since the process began, for measurements.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}

/// What the registry says about a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registered {
    pub(crate) id: NodeId,
    pub(crate) url: String,
    pub(crate) bond: u128,
}

/// A model as a node lists it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) root: Option<String>,
    /// Price of a typical request, for comparison.
    pub(crate) price: Option<f64>,
    /// The whole entry.
    pub(crate) entry: Value,
}

/// One node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) registered: Registered,
    /// Where payments for it go (D1).
    pub(crate) deposit: Address,
    load: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Default)]
struct State {
    /// Whether the last look at it succeeded; `None` before the first one.
    up: Option<bool>,
    models: Vec<Listed>,
    breaker: Breaker,
    measured: HashMap<String, Measured>,
    /// Seconds to 402 answers, for hedging.
    quotes: Window,
}

impl Node {
    /// A node of this entry. Measurements of an earlier entry stay: a new URL or bond does not buy a new record.
    fn new(registered: Registered, before: Option<&Self>) -> Self {
        let state = before.map(|node| node.state().clone()).unwrap_or_default();
        let state = State { up: None, ..state };
        let deposit = deposit_address(addresses::FEE_VAULT, addresses::DEPOSIT_IMPLEMENTATION, registered.id);
        Self {
            registered,
            deposit,
            load: AtomicUsize::new(0),
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn id(&self) -> NodeId {
        self.registered.id
    }

    /// URL of a path of this node.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.registered.url)
    }

    /// What a look at the node found: its models, or that it is down.
    pub(crate) fn looked(&self, models: Option<Vec<Listed>>) {
        let mut state = self.state();
        state.up = Some(models.is_some());
        if let Some(models) = models {
            state.models = models;
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.state().up == Some(true)
    }

    pub(crate) fn is_parked(&self) -> bool {
        self.state().breaker.is_parked()
    }

    pub(crate) fn models(&self) -> Vec<Listed> {
        self.state().models.clone()
    }

    /// Whether it lists a model, and at what price.
    fn serves(&self, model: &str) -> Option<Option<f64>> {
        let state = self.state();
        let name = listed_name(&state, model)?;
        state.models.iter().find(|m| m.name == name).map(|m| m.price)
    }

    /// How long quotes of this node take: all but one in twenty come faster.
    pub(crate) fn quote_time(&self) -> Option<Duration> {
        let seconds = self.state().quotes.quantile(0.95)?;
        Duration::try_from_secs_f64(seconds).ok()
    }
}

/// Roots are written with and without `0x`.
fn same_root(a: &str, b: &str) -> bool {
    let plain = |text: &str| text.strip_prefix("0x").unwrap_or(text).to_ascii_lowercase();
    b.len() >= 64 && plain(a) == plain(b)
}

/// A request to a node, from its start to its end. Dropped without a verdict, it says nothing about the node.
#[derive(Debug)]
pub(crate) struct Attempt {
    node: Arc<Node>,
    metrics: Arc<Metrics>,
    clock: Clock,
    started: Instant,
    decided: bool,
}

impl Attempt {
    pub(crate) fn begin(node: &Arc<Node>, metrics: &Arc<Metrics>, clock: Clock) -> Self {
        node.load.fetch_add(1, Ordering::Relaxed);
        node.state().breaker.sent(clock.now());
        Self {
            node: Arc::clone(node),
            metrics: Arc::clone(metrics),
            clock,
            started: Instant::now(),
            decided: false,
        }
    }

    pub(crate) fn node(&self) -> &Arc<Node> {
        &self.node
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// The node failed.
    pub(crate) fn failed(&mut self, model: Option<&str>) {
        if std::mem::replace(&mut self.decided, true) {
            return;
        }
        let now = self.clock.now();
        let mut state = self.node.state();
        let before = state.breaker.is_parked();
        state.breaker.failed(now);
        if !before && state.breaker.is_parked() {
            self.metrics.parked.inc();
        }
        if let Some(measured) = measured(&mut state, model) {
            measured.outcome(false, now);
        }
        drop(state);
        self.metrics.outcome(&self.node.id().to_string(), "failed");
    }

    /// The node did its part, also if the caller was at fault.
    pub(crate) fn succeeded(&mut self) {
        if std::mem::replace(&mut self.decided, true) {
            return;
        }
        self.node.state().breaker.succeeded();
        self.metrics.outcome(&self.node.id().to_string(), "answered");
    }

    /// A quote came.
    pub(crate) fn quoted(&mut self) {
        let seconds = self.started.elapsed().as_secs_f64();
        self.node.state().quotes.add(seconds);
        self.succeeded();
    }

    /// A whole answer was delivered: its first byte after `first`, `bytes` of it over `rest`.
    pub(crate) fn delivered(&mut self, model: Option<&str>, first: Duration, bytes: u64, rest: Duration) {
        if self.decided {
            return;
        }
        let now = self.clock.now();
        let mut state = self.node.state();
        if let Some(measured) = measured(&mut state, model) {
            measured.outcome(true, now);
            // What comes at once says nothing about speed.
            let speed = (rest > Duration::from_millis(20)).then(|| bytes as f64 / rest.as_secs_f64());
            measured.answer(first.as_secs_f64(), speed);
        }
        drop(state);
        self.succeeded();
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        self.node.load.fetch_sub(1, Ordering::Relaxed);
        if !self.decided {
            self.node.state().breaker.undecided();
        }
    }
}

/// The name under which a node lists a model that is asked for by name or root.
fn listed_name<'a>(state: &'a State, model: &str) -> Option<&'a str> {
    let is = |m: &&Listed| m.name == model || m.root.as_deref().is_some_and(|root| same_root(root, model));
    state.models.iter().find(is).map(|m| m.name.as_str())
}

/// Measurements of a model that the node lists; of no other name, so that callers cannot fill the memory, and of so many
/// only, so that the node cannot either.
fn measured<'a>(state: &'a mut State, model: Option<&str>) -> Option<&'a mut Measured> {
    let name = listed_name(state, model?)?.to_owned();
    if state.measured.len() >= 2 * MAX_MODELS && !state.measured.contains_key(&name) {
        return None;
    }
    Some(state.measured.entry(name).or_default())
}

/// All nodes.
#[derive(Debug, Default)]
pub(crate) struct Nodes(RwLock<BTreeMap<NodeId, Arc<Node>>>);

/// Why no node can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoNode {
    /// No node that is up lists the model.
    UnknownModel,
    /// Those that list it are parked.
    Parked,
    /// No node is up at all.
    NoneUp,
}

impl Nodes {
    /// Replaces the set; what was measured of nodes that stay is kept.
    pub(crate) fn set(&self, registered: Vec<Registered>) {
        let mut nodes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = BTreeMap::new();
        for one in registered {
            let node = match nodes.remove(&one.id) {
                Some(node) if node.registered == one => node,
                before => Arc::new(Node::new(one, before.as_deref())),
            };
            next.insert(node.id(), node);
        }
        *nodes = next;
    }

    pub(crate) fn all(&self) -> Vec<Arc<Node>> {
        self.0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    pub(crate) fn get(&self, id: NodeId) -> Option<Arc<Node>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&id).cloned()
    }

    /// The node whose deposit address this is.
    pub(crate) fn payee(&self, deposit: Address) -> Option<Arc<Node>> {
        self.all().into_iter().find(|node| node.deposit == deposit)
    }

    /// Nodes for a model, in the order to ask them.
    pub(crate) fn order(
        &self,
        model: &str,
        weights: &[f64; 6],
        explore: f64,
        now: f64,
        random: &mut impl FnMut() -> f64,
    ) -> Result<Vec<Arc<Node>>, NoNode> {
        let up: Vec<Arc<Node>> = self.all().into_iter().filter(|node| node.is_up()).collect();
        if up.is_empty() {
            return Err(NoNode::NoneUp);
        }
        let serving: Vec<(Arc<Node>, Option<f64>)> = up
            .into_iter()
            .filter_map(|node| node.serves(model).map(|price| (node, price)))
            .collect();
        if serving.is_empty() {
            return Err(NoNode::UnknownModel);
        }
        let mut known = Vec::with_capacity(serving.len());
        for (node, price) in serving {
            let state = node.state();
            if !state.breaker.allows(now) {
                continue;
            }
            let seen = listed_name(&state, model).and_then(|name| state.measured.get(name));
            let seen = seen.cloned().unwrap_or_default();
            drop(state);
            let bond = node.registered.bond as f64;
            known.push((node, seen, Terms { price, bond }));
        }
        if known.is_empty() {
            return Err(NoNode::Parked);
        }
        let inputs: Vec<(&Measured, Terms)> = known.iter().map(|(_, seen, terms)| (seen, *terms)).collect();
        let scores = score::scores(&inputs, weights, now);
        let candidates: Vec<Candidate> = known
            .iter()
            .zip(scores)
            .map(|((node, seen, _), score)| Candidate {
                score,
                load: node.load.load(Ordering::Relaxed),
                new: seen.is_new(),
            })
            .collect();
        let order = pick::order(&candidates, explore, random);
        Ok(order
            .into_iter()
            .filter_map(|i| known.get(i).map(|(node, ..)| Arc::clone(node)))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn registered(n: u8, url: &str, bond: u128) -> Registered {
        Registered {
            id: NodeId([n; 32].into()),
            url: url.into(),
            bond,
        }
    }

    fn listed() -> Vec<Listed> {
        let root = Some(format!("0x{}", "5a".repeat(32)));
        vec![Listed {
            name: "a/b".into(),
            root,
            price: Some(1.0),
            entry: json!({}),
        }]
    }

    #[test]
    fn a_new_url_or_bond_does_not_buy_a_new_record() {
        let (nodes, metrics, clock) = (Nodes::default(), Arc::new(Metrics::new()), Clock::start());
        nodes.set(vec![registered(1, "http://a", 1)]);
        let node = nodes.all().remove(0);
        node.looked(Some(listed()));
        for _ in 0..3 {
            Attempt::begin(&node, &metrics, clock).failed(Some("a/b"));
        }
        assert!(node.is_parked() && node.is_up());
        nodes.set(vec![registered(1, "http://b", 2), registered(2, "http://c", 1)]);
        let again = nodes.get(node.id()).unwrap();
        assert!(again.is_parked() && !again.is_up(), "looked at anew, parked as before");
        assert_eq!(again.state().measured.len(), 1);
        assert_eq!(nodes.payee(again.deposit).unwrap().id(), again.id());
        nodes.set(vec![]);
        assert!(nodes.get(node.id()).is_none());
    }

    #[test]
    fn who_can_be_asked() {
        let (nodes, metrics, clock) = (Nodes::default(), Arc::new(Metrics::new()), Clock::start());
        let order = |model: &str| nodes.order(model, &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0], 0.0, clock.now(), &mut || 0.5);
        nodes.set(vec![registered(1, "http://a", 1)]);
        assert_eq!(order("a/b").unwrap_err(), NoNode::NoneUp);
        let node = nodes.all().remove(0);
        node.looked(Some(listed()));
        assert_eq!(order("a/c").unwrap_err(), NoNode::UnknownModel);
        for model in ["a/b", &"5a".repeat(32), &format!("0x{}", "5A".repeat(32))] {
            assert_eq!(order(model).unwrap().len(), 1, "{model}");
        }
        for _ in 0..3 {
            let mut attempt = Attempt::begin(&node, &metrics, clock);
            // Names that the node does not list take no memory.
            attempt.failed(Some("made/up"));
        }
        assert!(node.state().measured.is_empty());
        assert_eq!(order("a/b").unwrap_err(), NoNode::Parked);
        assert_eq!(node.load.load(Ordering::Relaxed), 0);
    }
}
