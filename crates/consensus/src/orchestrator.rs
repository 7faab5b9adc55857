//! One simplex engine per epoch, and the hand-over between them.
//!
//! The order of a hand-over, each step safe to repeat after a crash: the application takes the last block of epoch `e`; its state
//! names the set of `e + 1`; the engine of `e + 1` starts on that block with a journal of its own; the engine of `e` and its
//! copy of the key go; the set goes to disk; the block is acknowledged.

use crate::{
    adapter::{Adapter, Marshal, Meter, apply, refill},
    application::ChainApplication,
    block::Wire,
    config::{Config, quorum},
    engine::{MAILBOX, non_zero},
    epochs::Epochs,
    error::ConsensusError,
    fault::Witness,
    keys::Identity,
    scheme::Scheme,
    shared::Shared,
};
use commonware_consensus::{
    Reporters,
    marshal::{Update, standard::Inline},
    simplex::{self, Floor, ForwardPolicy, SkipBudget, SkipPolicy, elector::RoundRobin},
    types::{Epoch, Epocher as _, FixedEpocher, Height, ViewDelta},
};
use commonware_cryptography::{
    Digestible as _, Sha256, Signer as _, certificate::Scheme as _, ed25519::PublicKey, sha256::Digest,
};
use commonware_p2p::{
    Channel, Manager as _, Message, Receiver, Sender, TrackedPeers,
    authenticated::discovery::Oracle,
    utils::mux::{self, Builder as _, MuxHandle, Muxer, SubReceiver, SubSender},
};
use commonware_parallel::Sequential;
use commonware_runtime::{Handle, Storage as _, Supervisor, buffer::paged::CacheRef, tokio as runtime};
use commonware_utils::{Acknowledgement as _, NZUsize, channel::mpsc, ordered::Set, vec::NonEmptyVec};
use std::{
    collections::VecDeque,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::mpsc::UnboundedReceiver;

/// Messages for the next epoch that are kept of one peer until its engine starts.
const EARLY_MESSAGES: usize = 32;

/// Pause between questions for the last block of an epoch that others have left.
const HINT_PAUSE: Duration = Duration::from_millis(250);

/// Views whose votes are remembered.
const KEPT_VIEWS: ViewDelta = ViewDelta::new(64);

/// A sub-channel whose first messages were taken before the engine that reads it started.
#[derive(Debug)]
pub(crate) struct Early {
    kept: VecDeque<Message<PublicKey>>,
    inner: SubReceiver<PublicKey>,
}

impl Early {
    /// Takes a message ahead of time; the oldest of the same peer goes if it has too many, so that one peer cannot crowd out
    /// another.
    async fn keep(&mut self) -> Result<PublicKey, mux::Error> {
        let (from, message) = self.inner.recv().await?;
        if self.kept.iter().filter(|(peer, _)| *peer == from).count() >= EARLY_MESSAGES
            && let Some(oldest) = self.kept.iter().position(|(peer, _)| *peer == from)
        {
            self.kept.remove(oldest);
        }
        self.kept.push_back((from.clone(), message));
        Ok(from)
    }
}

impl Receiver for Early {
    type Error = mux::Error;
    type PublicKey = PublicKey;

    async fn recv(&mut self) -> Result<Message<PublicKey>, mux::Error> {
        match self.kept.pop_front() {
            Some(message) => Ok(message),
            None => self.inner.recv().await,
        }
    }

    fn capacity(&self) -> NonZeroUsize {
        self.inner.capacity()
    }
}

type Strays = mpsc::Receiver<(Channel, Message<PublicKey>)>;
type Lane<S> = (SubSender<S>, Early);

/// The channels of consensus, divided by epoch.
pub(crate) struct Lanes<S: Sender<PublicKey = PublicKey>> {
    votes: MuxHandle<S>,
    certificates: MuxHandle<S>,
    resolver: MuxHandle<S>,
    stray_votes: Strays,
    stray_certificates: Strays,
}

/// Sub-channels of one epoch.
struct EpochLanes<S: Sender<PublicKey = PublicKey>> {
    votes: Lane<S>,
    certificates: Lane<S>,
    resolver: Lane<S>,
}

impl<S: Sender<PublicKey = PublicKey>> Lanes<S> {
    pub(crate) fn start<R: Receiver<PublicKey = PublicKey>>(
        context: &runtime::Context,
        votes: (S, R),
        certificates: (S, R),
        resolver: (S, R),
    ) -> Self {
        let (mux, votes, stray_votes) = Muxer::builder(context.child("votes"), votes.0, votes.1)
            .with_backup()
            .build();
        mux.start();
        let (mux, certificates, stray_certificates) =
            Muxer::builder(context.child("certificates"), certificates.0, certificates.1)
                .with_backup()
                .build();
        mux.start();
        let (mux, resolver) = Muxer::new(context.child("resolver"), resolver.0, resolver.1);
        mux.start();
        Self {
            votes,
            certificates,
            resolver,
            stray_votes,
            stray_certificates,
        }
    }

    async fn open(&mut self, epoch: u64) -> Result<EpochLanes<S>, ConsensusError> {
        async fn lane<S: Sender<PublicKey = PublicKey>>(
            handle: &mut MuxHandle<S>,
            epoch: u64,
        ) -> Result<Lane<S>, ConsensusError> {
            let opened = handle.register(epoch).await;
            let (sender, inner) =
                opened.map_err(|e| ConsensusError::Engine(format!("channel of epoch {epoch}: {e}")))?;
            let kept = VecDeque::new();
            Ok((sender, Early { kept, inner }))
        }
        Ok(EpochLanes {
            votes: lane(&mut self.votes, epoch).await?,
            certificates: lane(&mut self.certificates, epoch).await?,
            resolver: lane(&mut self.resolver, epoch).await?,
        })
    }
}

type Application = Inline<runtime::Context, Scheme, Adapter, Wire, FixedEpocher>;

/// An engine that ends with its owner.
struct Running(Handle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The engine that runs, and the channels of the one after it.
struct Active<S: Sender<PublicKey = PublicKey>> {
    epoch: u64,
    engine: Running,
    next: EpochLanes<S>,
}

/// Follows the chain through its epochs.
pub(crate) struct Orchestrator<S: Sender<PublicKey = PublicKey>> {
    pub(crate) context: runtime::Context,
    pub(crate) config: Arc<Config>,
    pub(crate) application: Arc<dyn ChainApplication>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) epochs: Epochs,
    pub(crate) epocher: FixedEpocher,
    pub(crate) genesis: Digest,
    pub(crate) marshal: Marshal,
    pub(crate) oracle: Oracle<PublicKey>,
    /// Peers of the configuration.
    pub(crate) bootstrap: Vec<PublicKey>,
    pub(crate) inline: Application,
    pub(crate) cache: CacheRef,
    pub(crate) lanes: Lanes<S>,
    /// The latest epoch that a peer spoke of, and the peer.
    pub(crate) ahead: Option<(u64, PublicKey)>,
    pub(crate) hinted: Option<Instant>,
}

impl<S: Sender<PublicKey = PublicKey>> Orchestrator<S> {
    /// Runs until the channels close or something fails.
    pub(crate) async fn run(mut self, mut updates: UnboundedReceiver<Update<Wire>>) -> Result<(), ConsensusError> {
        // before the first vote, so that proposals find the state they build on
        refill(&*self.application, &self.marshal, &self.shared).await?;
        let executed = self.application.executed_height().await;
        let executed = executed.map_err(|e| ConsensusError::Application(e.to_string()))?;
        let epoch = self.epoch_of(executed.saturating_add(1));
        self.epochs
            .ensure(epoch, self.last(epoch.wrapping_sub(1)) == Some(executed))
            .await?;
        self.epochs.keep(epoch)?;
        self.track(epoch)?;
        let peers = quorum(self.epochs.set(epoch).map_or(0, |set| set.participants.len())).saturating_sub(1);
        let waited = Instant::now();
        while self.shared.peers() < peers && waited.elapsed() < self.config.timing.peer_wait {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let lanes = self.lanes.open(epoch).await?;
        let mut active = self.enter(epoch, lanes).await?;
        loop {
            let spoken_of = tokio::select! {
                update = updates.recv() => {
                    match update {
                        None => return Ok(()),
                        Some(Update::Tip(..)) => {}
                        Some(Update::Block(block, acknowledgement)) => {
                            let block = block.inner().0.clone();
                            let height = block.height;
                            if height > 0 {
                                // An error leaves without acknowledging: the caller stops the engine, and the block
                                // comes again at the next start.
                                apply(&*self.application, &self.shared, block).await?;
                            }
                            if self.last(active.epoch) == Some(height) {
                                active = self.hand_over(active).await?;
                            }
                            acknowledgement.acknowledge();
                        }
                    }
                    continue;
                }
                ended = &mut active.engine.0 => {
                    return Err(ConsensusError::Engine(format!("simplex of epoch {}: {ended:?}", active.epoch)));
                }
                Some((epoch, (from, _))) = self.lanes.stray_votes.recv() => (epoch, from),
                Some((epoch, (from, _))) = self.lanes.stray_certificates.recv() => (epoch, from),
                Ok(from) = active.next.votes.1.keep() => (active.epoch + 1, from),
                Ok(from) = active.next.certificates.1.keep() => (active.epoch + 1, from),
            };
            self.heard(active.epoch, spoken_of);
        }
    }

    fn epoch_of(&self, height: u64) -> u64 {
        self.epocher
            .containing(Height::new(height))
            .map_or(0, |found| found.epoch().get())
    }

    fn last(&self, epoch: u64) -> Option<u64> {
        self.epocher.last(Epoch::new(epoch)).map(|height| height.get())
    }

    /// A peer spoke of a later epoch: this node lacks the last block of its own.
    fn heard(&mut self, current: u64, (epoch, from): (u64, PublicKey)) {
        if epoch <= current {
            return;
        }
        if self.ahead.as_ref().is_none_or(|(known, _)| *known <= epoch) {
            self.ahead = Some((epoch, from.clone()));
        }
        if self.hinted.is_none_or(|at| at.elapsed() >= HINT_PAUSE) {
            self.hint(current, from);
        }
    }

    fn hint(&mut self, current: u64, from: PublicKey) {
        if let Some(height) = self.last(current) {
            self.hinted = Some(Instant::now());
            self.marshal.hint_finalized(Height::new(height), NonEmptyVec::new(from));
        }
    }

    async fn hand_over(&mut self, over: Active<S>) -> Result<Active<S>, ConsensusError> {
        let began = Instant::now();
        let Active { epoch, engine, next } = over;
        let epoch = epoch + 1;
        self.epochs.ensure(epoch, true).await?;
        self.track(epoch)?;
        let active = self.enter(epoch, next).await?;
        let elapsed = began.elapsed();
        drop(engine);
        // not before: it costs three syncs, and others wait for this node's votes
        self.epochs.keep(epoch)?;
        self.epochs.retire_before(epoch);
        self.shared
            .count(|stats| stats.hand_over_ms = elapsed.as_secs_f64() * 1e3);
        tracing::info!(epoch, ?elapsed, "epoch handed over");
        if let Some((later, peer)) = self.ahead.clone()
            && later > epoch
        {
            self.hint(epoch, peer);
        }
        Ok(active)
    }

    /// Lets the validators of an epoch connect, and those who follow.
    fn track(&mut self, epoch: u64) -> Result<(), ConsensusError> {
        let unknown = || ConsensusError::EpochSet {
            epoch,
            reason: "not known".into(),
        };
        let key = |identity: &Identity| {
            identity.key().map_err(|source| ConsensusError::Key {
                of: identity.to_string(),
                source,
            })
        };
        let set = self.epochs.set(epoch).ok_or_else(unknown)?;
        let primary = set.participants.iter().map(|member| key(&member.identity));
        let primary = primary.collect::<Result<Vec<_>, _>>()?;
        let mut secondary = Vec::new();
        if self.config.epoch_blocks > 0 {
            // Validators must agree on the first list, not on this one. What counts most comes first.
            let before = self.epochs.others(epoch).flat_map(|set| &set.participants);
            let named = before.map(|member| &member.identity).chain(&set.observers);
            // An observer that is no key can follow nothing, and must not stop anybody.
            let named = named.filter_map(|identity| identity.key().ok());
            let me = self.config.keys.identity.0.public_key();
            let room = self.config.max_peers.saturating_sub(primary.len());
            for peer in self.bootstrap.iter().cloned().chain(named) {
                if secondary.len() < room && peer != me && !primary.contains(&peer) && !secondary.contains(&peer) {
                    secondary.push(peer);
                }
            }
        }
        let peers = TrackedPeers::new(Set::from_iter_dedup(primary), Set::from_iter_dedup(secondary));
        self.oracle.track(epoch, peers);
        Ok(())
    }

    async fn enter(&mut self, epoch: u64, lanes: EpochLanes<S>) -> Result<Active<S>, ConsensusError> {
        let failed = |reason: &str| ConsensusError::EpochSet {
            epoch,
            reason: reason.into(),
        };
        let scheme = self.epochs.scheme(epoch).ok_or_else(|| failed("not known"))?;
        let scheme = scheme.as_ref().clone();
        let seated = scheme.me().is_some_and(|me| me.signer().is_some());
        let genesis = match epoch.checked_sub(1).and_then(|before| self.last(before)) {
            None => self.genesis,
            Some(height) => {
                let block = self.marshal.get_block(Height::new(height)).await;
                block.ok_or(ConsensusError::ArchiveGap { height })?.digest()
            }
        };
        let witness = Witness {
            scheme: scheme.clone(),
            application: self.application.clone(),
            shared: self.shared.clone(),
        };
        let timing = self.config.timing;
        let buffer = NZUsize!(256 << 10);
        let engine = simplex::Engine::new(
            self.context.child("simplex").with_attribute("epoch", epoch),
            simplex::Config {
                scheme,
                elector: RoundRobin::<Sha256>::default(),
                blocker: self.oracle.clone(),
                automaton: self.inline.clone(),
                relay: self.inline.clone(),
                reporter: Reporters::from((
                    self.inline.clone(),
                    Reporters::from((Meter(self.shared.clone()), witness)),
                )),
                strategy: Sequential,
                partition: partition(epoch),
                epoch: Epoch::new(epoch),
                // the journal's own floor wins after a restart
                floor: Floor::Genesis(genesis),
                mailbox_size: NZUsize!(MAILBOX),
                replay_buffer: buffer,
                write_buffer: buffer,
                page_cache: self.cache.clone(),
                leader_timeout: timing.leader,
                certification_timeout: timing.certification,
                timeout_retry: timing.retry,
                fetch_timeout: non_zero(timing.fetch),
                fetch_retry_delay: Duration::from_millis(100),
                view_retention: KEPT_VIEWS,
                skip: SkipPolicy::Enabled {
                    timeout: timing.skip_inactive,
                    budget: SkipBudget::Participants,
                },
                forward: ForwardPolicy::Disabled,
                // otherwise the second of two conflicting votes would often find the first forgotten
                track_historical_votes: true,
            },
        );
        let engine = Running(engine.start(lanes.votes, lanes.certificates, lanes.resolver));
        self.shared.count(|stats| {
            stats.epoch = epoch;
            stats.seated = seated;
            stats.view = 0;
        });
        // The journal of the epoch before stays: after a crash that epoch may have to be handed over again.
        if let Some(old) = epoch.checked_sub(2) {
            let _ = self.context.remove(&partition(old), None).await;
        }
        let next = self.lanes.open(epoch + 1).await?;
        Ok(Active { epoch, engine, next })
    }
}

fn partition(epoch: u64) -> String {
    format!("simplex-{epoch}")
}
