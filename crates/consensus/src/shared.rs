//! What the engine's thread and the handle both see: figures, failure, end.

use crate::{error::ConsensusError, keys::Identity};
use alloy_primitives::B256;
use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// A peer not heard of for this time counts as gone. Peers greet each other every second.
const PEER_LIFETIME: Duration = Duration::from_secs(4);

/// Latencies kept.
const LATENCIES: usize = 512;

/// Own proposals remembered until they become final.
const OPEN_PROPOSALS: usize = 64;

/// Figures since the start of this process.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// Newest height that the application acknowledged.
    pub finalized_height: u64,
    /// The epoch whose engine runs.
    pub epoch: u64,
    /// Whether this node votes in it.
    pub seated: bool,
    /// Milliseconds from the delivery of an epoch's last block to a running engine of the next, of the newest hand-over.
    pub hand_over_ms: f64,
    /// View of the newest certificate seen.
    pub view: u64,
    /// Conflicting votes of validators seen, see [`ChainApplication::fault`](crate::ChainApplication::fault).
    pub faults: u64,
    /// Finalization certificates seen.
    pub finalizations: u64,
    /// Views given up.
    pub nullifications: u64,
    /// Blocks proposed by this validator.
    pub proposals: u64,
    /// Views this validator led without proposing.
    pub skipped_proposals: u64,
    /// Proposals of others judged valid.
    pub accepted: u64,
    /// Proposals of others judged invalid.
    pub rejections: u64,
    /// Proposals of others that could not be judged.
    pub abstentions: u64,
    /// Peers heard of in the last seconds.
    pub peers: usize,
    /// Gossip messages handed to the network.
    pub gossip_sent: u64,
    /// Gossip messages received.
    pub gossip_received: u64,
    /// Gossip messages dropped because a queue was full, in either direction.
    pub gossip_dropped: u64,
    /// Gossip frames that did not decode.
    pub gossip_malformed: u64,
    /// Own blocks: time from built to final, in milliseconds, oldest first, the newest 512.
    pub build_to_finalized_ms: Vec<f64>,
}

#[derive(Default)]
struct Inner {
    stats: Stats,
    latencies: VecDeque<f64>,
    open: VecDeque<(B256, Instant)>,
    heard: HashMap<Identity, Instant>,
}

pub(crate) struct Shared {
    inner: Mutex<Inner>,
    finalized_height: AtomicU64,
    failure: OnceLock<Arc<ConsensusError>>,
    failed: watch::Sender<bool>,
    ended: watch::Sender<bool>,
}

impl Shared {
    pub(crate) fn new() -> Self {
        Self {
            inner: Mutex::default(),
            finalized_height: AtomicU64::new(0),
            failure: OnceLock::new(),
            failed: watch::channel(false).0,
            ended: watch::channel(false).0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes figures.
    pub(crate) fn count(&self, change: impl FnOnce(&mut Stats)) {
        change(&mut self.lock().stats);
    }

    pub(crate) fn stats(&self) -> Stats {
        let inner = self.lock();
        Stats {
            finalized_height: self.finalized_height(),
            peers: inner.peers(),
            build_to_finalized_ms: inner.latencies.iter().copied().collect(),
            ..inner.stats.clone()
        }
    }

    pub(crate) fn proposed(&self, digest: B256) {
        let mut inner = self.lock();
        inner.stats.proposals += 1;
        if inner.open.len() == OPEN_PROPOSALS {
            inner.open.pop_front();
        }
        inner.open.push_back((digest, Instant::now()));
    }

    pub(crate) fn certified_final(&self, digest: B256, view: u64) {
        let mut inner = self.lock();
        inner.stats.finalizations += 1;
        inner.stats.view = inner.stats.view.max(view);
        if let Some(at) = inner.open.iter().position(|(open, _)| *open == digest)
            && let Some((_, built)) = inner.open.remove(at)
        {
            if inner.latencies.len() == LATENCIES {
                inner.latencies.pop_front();
            }
            inner.latencies.push_back(built.elapsed().as_secs_f64() * 1e3);
        }
    }

    pub(crate) fn heard(&self, peer: Identity) {
        self.lock().heard.insert(peer, Instant::now());
    }

    pub(crate) fn peers(&self) -> usize {
        self.lock().peers()
    }

    pub(crate) fn finalized_height(&self) -> u64 {
        self.finalized_height.load(Ordering::Acquire)
    }

    pub(crate) fn set_finalized_height(&self, height: u64) {
        self.finalized_height.fetch_max(height, Ordering::AcqRel);
    }

    /// Records why the engine stops. The first reason stays: what follows is its consequence.
    pub(crate) fn fail(&self, error: ConsensusError) {
        tracing::error!(%error, "consensus stops");
        let _ = self.failure.set(Arc::new(error));
        self.failed.send_replace(true);
    }

    pub(crate) fn failure(&self) -> Option<Arc<ConsensusError>> {
        self.failure.get().cloned()
    }

    pub(crate) fn end(&self) {
        self.ended.send_replace(true);
    }

    pub(crate) fn has_ended(&self) -> bool {
        *self.ended.borrow()
    }

    pub(crate) async fn until_failed(&self) {
        until(&self.failed).await;
    }

    pub(crate) async fn until_ended(&self) {
        until(&self.ended).await;
    }
}

async fn until(flag: &watch::Sender<bool>) {
    // fails only without a sender, which the caller borrows
    let _ = flag.subscribe().wait_for(|set| *set).await;
}

impl Inner {
    fn peers(&self) -> usize {
        self.heard.values().filter(|at| at.elapsed() < PEER_LIFETIME).count()
    }
}
