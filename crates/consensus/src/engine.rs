//! Wiring and life of the engine: simplex, marshal, block broadcast, backfill, network and gossip, on
//! a runtime and a thread of their own.

use crate::{
    adapter::{Adapter, Delivery, Marshal},
    application::ChainApplication,
    block::{ChainBlock, Wire, to_digest},
    config::Config,
    epochs::Epochs,
    error::ConsensusError,
    gossip::{FRAMES_PER_SECOND, Gossip, MAX_FRAME_BYTES, gossip},
    handle::Handle,
    keys::Identity,
    orchestrator::{Lanes, Orchestrator},
    scheme::Scheme,
    shared::Shared,
};
use alloy_primitives::hex;
use commonware_broadcast::buffered;
use commonware_consensus::{
    marshal::{
        self,
        core::Actor,
        resolver::p2p as backfill,
        standard::{Inline, Standard},
    },
    simplex,
    types::{FixedEpocher, ViewDelta},
};
use commonware_cryptography::{
    ChaCha20Poly1305, Digested, Signer as _,
    certificate::Verifier as _,
    ed25519::{PrivateKey, PublicKey},
    sha256::Digest,
};
use commonware_p2p::{
    authenticated::{discovery, peer_set_limit},
    max_message_size,
    utils::mux,
};
use commonware_parallel::Sequential;
use commonware_runtime::{
    Quota, Runner as _, Spawner as _, Supervisor as _, buffer::paged::CacheRef, tokio as runtime,
};
use commonware_storage::archive::immutable;
use commonware_stream::{
    cups::{self, Cups},
    sake::{self, Sake},
};
use commonware_utils::{NZDuration, NZU16, NZU32, NZU64, NZUsize, NonZeroDuration, TryCollect as _, ordered::Set};
use opg_primitives::domain::Tag;
use std::{
    fs,
    net::TcpListener,
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};
use tokio::sync::{mpsc::unbounded_channel, watch};

/// Messages per second that a peer may send on each channel of consensus. The network reserves memory
/// for one second of them per channel and peer at start, so a generous quota costs gigabytes.
const MESSAGES_PER_SECOND: u32 = 500;

/// The same with epochs, where room is made for as many peers as a set may ever have: votes, certificates, requests for
/// certificates, requests for blocks, blocks.
const EPOCH_MESSAGES_PER_SECOND: [u32; 5] = [100, 100, 100, 200, 50];

/// Ready messages in the engine's own mailboxes; above, each mailbox's policy decides.
pub(crate) const MAILBOX: usize = 512;

/// Orderly stops take at most this long.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// Votes are signed for this chain's genesis; a folder of another chain must not be mixed in.
const GENESIS_FILE: &str = "genesis-digest";

/// Starts consensus on a thread of its own and returns when it runs. Opening a long chain's archive
/// takes a moment: call it from a blocking context.
///
/// Several validators can run in one process if their folders and addresses differ.
///
/// # Errors
/// [`ConsensusError`] if the configuration, the folder or the listening address cannot be used.
pub fn start(config: Config, application: Arc<dyn ChainApplication>) -> Result<Handle, ConsensusError> {
    config.check()?;
    let network = Network::of(&config)?;
    prepare_folder(&config)?;
    let config = Arc::new(config);
    let epochs = Epochs::open(config.clone(), application.clone())?;
    // the engine would answer a taken address with a panic
    TcpListener::bind(config.listen)
        .map_err(|e| ConsensusError::Config(format!("listen on {}: {e}", config.listen)))?;

    let shared = Arc::new(Shared::new());
    let (engine_gossip, outbox, inbox) = gossip(shared.clone());
    let (stop, stopped) = watch::channel(false);
    let (ready, is_ready) = mpsc::sync_channel(1);
    let identity = config.keys.identity.public();
    let engine = Engine {
        epochs,
        network,
        adapter: Adapter {
            application,
            shared: shared.clone(),
            epocher: FixedEpocher::new(NonZeroU64::new(config.epoch_length()).unwrap_or(NonZeroU64::MAX)),
        },
        gossip: engine_gossip,
        stopped,
        config,
    };
    let thread_shared = shared.clone();
    let name = format!("consensus-{}", &identity.to_string()[..8]);
    let spawned = thread::Builder::new().name(name).spawn(move || {
        // A panic in any part of the engine unwinds to here.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| engine.run(ready))) {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            let text = text.unwrap_or_else(|| "panic".into());
            thread_shared.fail(ConsensusError::Engine(text));
        }
        thread_shared.end();
    });
    spawned.map_err(ConsensusError::Thread)?;
    let Ok(marshal) = is_ready.recv() else {
        // the reason is recorded a moment after the channel closes
        for _ in 0..200 {
            if shared.has_ended() {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let reason = shared
            .failure()
            .map_or_else(|| "ended at start".into(), |e| e.to_string());
        return Err(ConsensusError::Engine(reason));
    };
    Ok(Handle {
        identity,
        marshal,
        shared,
        outbox,
        inbox: Arc::new(Mutex::new(Some(inbox))),
        stop,
    })
}

fn prepare_folder(config: &Config) -> Result<(), ConsensusError> {
    let failed = |source| ConsensusError::Storage {
        dir: config.dir.clone(),
        source,
    };
    fs::create_dir_all(&config.dir).map_err(failed)?;
    let file = config.dir.join(GENESIS_FILE);
    let expected = hex::encode(config.genesis_digest);
    match fs::read_to_string(&file) {
        Ok(found) if found.trim() == expected => Ok(()),
        Ok(found) => Err(ConsensusError::Config(format!(
            "{} belongs to the chain with genesis {}, not {expected}",
            config.dir.display(),
            found.trim()
        ))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => fs::write(&file, expected).map_err(failed),
        Err(e) => Err(failed(e)),
    }
}

type Handshake = Cups<Sake<PrivateKey>, ChaCha20Poly1305>;

/// Keys and addresses of the network, decoded.
struct Network {
    key: PrivateKey,
    /// Without epochs, the validators.
    set: Set<PublicKey>,
    peers: Vec<(PublicKey, commonware_p2p::Ingress)>,
    namespace: Vec<u8>,
}

impl Network {
    fn of(config: &Config) -> Result<Self, ConsensusError> {
        let key_of = |identity: Identity| {
            identity.key().map_err(|source| ConsensusError::Key {
                of: identity.to_string(),
                source,
            })
        };
        let members = config.participants.iter().map(|member| key_of(member.identity));
        let members = members.collect::<Result<Vec<_>, _>>()?;
        let twice = |_| ConsensusError::Config("two validators share an identity".into());
        let mut peers = Vec::new();
        for peer in &config.peers {
            if peer.identity != config.keys.identity.public() {
                peers.push((key_of(peer.identity)?, peer.address.into()));
            }
        }
        let digest = hex::encode(config.genesis_digest);
        Ok(Self {
            key: config.keys.identity.0.clone(),
            set: members.into_iter().try_collect().map_err(twice)?,
            peers,
            namespace: [Tag::Network.as_str(), "/", &digest].concat().into_bytes(),
        })
    }

    fn config(self, config: &Config) -> discovery::Config<Handshake> {
        let handshake = Sake {
            signer: self.key.clone(),
            synchrony_bound: Duration::from_secs(4),
            max_handshake_age: Duration::from_secs(8),
            version: sake::Version::V1,
        };
        let epochs = config.epoch_blocks > 0;
        let validators = match epochs {
            true => config.max_peers,
            false => config.participants.len(),
        };
        let validators = u32::try_from(validators).unwrap_or(u32::MAX);
        let largest = max_message_size(&[
            mux::prefixed(simplex::max_payload_size::<Scheme, Digest>(validators)),
            marshal::max_payload_size::<Standard<Wire>, Scheme>(validators, &()),
            MAX_FRAME_BYTES,
        ]);
        // `local` for what it sets loosely (validators of a devnet share one address); what decides
        // how fast a restarted network finds together is set below.
        let mut network = discovery::Config::local(
            Cups::new(handshake, cups::Version::V1),
            &self.namespace,
            config.listen,
            config.dialable,
            self.peers,
            match epochs {
                // and this node itself
                true => NonZeroUsize::new(config.max_peers.saturating_add(1)).unwrap_or(NonZeroUsize::MIN),
                false => peer_set_limit(&self.set, &self.key.public_key()),
            },
            largest,
            NZUsize!(4_096),
        );
        network.allow_dns = false;
        network.allow_private_ips = config.allow_private_ips;
        network.dial_frequency = config.timing.dial;
        network.dial_timeout = Duration::from_secs(3);
        network.peer_connection_cooldown = Duration::from_millis(250);
        network.allowed_handshake_rate_per_ip = Quota::per_second(NZU32!(128));
        network.allowed_handshake_rate_per_subnet = Quota::per_second(NZU32!(256));
        network.gossip_bit_vec_frequency = Duration::from_secs(2);
        // mailboxes are sized for every set tracked; blocks of the epoch before may still be asked for
        network.tracked_peer_sets = if epochs { NZUsize!(2) } else { NZUsize!(1) };
        network
    }
}

struct Engine {
    config: Arc<Config>,
    epochs: Epochs,
    network: Network,
    adapter: Adapter,
    gossip: Gossip,
    stopped: watch::Receiver<bool>,
}

impl Engine {
    fn run(self, ready: mpsc::SyncSender<Marshal>) {
        let storage = self.config.dir.join("engine");
        let runtime = runtime::Config::new()
            .with_storage_directory(storage)
            .with_worker_threads(self.config.worker_threads)
            .with_connect_timeout(Duration::from_secs(3));
        runtime::Runner::new(runtime).start(async move |context| self.serve(context, ready).await);
    }

    async fn serve(self, context: runtime::Context, ready: mpsc::SyncSender<Marshal>) {
        let Self {
            config,
            epochs,
            network,
            adapter,
            gossip,
            mut stopped,
        } = self;
        let shared = adapter.shared.clone();
        let timing = config.timing;
        let me = network.key.public_key();
        let bootstrap: Vec<_> = network.peers.iter().map(|(peer, _)| peer.clone()).collect();

        // network: authenticated and encrypted; only members of the tracked sets are let in
        let (mut net, oracle) = discovery::Network::new(context.child("network"), network.config(&config));
        let quotas = match config.epoch_blocks {
            0 => [MESSAGES_PER_SECOND; 5],
            _ => EPOCH_MESSAGES_PER_SECOND,
        };
        let [votes, certificates, resolver, fetch, blocks] = [0, 1, 2, 3, 4].map(|channel: usize| {
            let quota = NonZeroU32::new(quotas[channel]).unwrap_or(NonZeroU32::MIN);
            net.register(channel as u64, Quota::per_second(quota))
        });
        let lanes = Lanes::start(&context, votes, certificates, resolver);
        let talk = net.register(5, Quota::per_second(NZU32!(FRAMES_PER_SECOND)));

        // marshal: dissemination of blocks, archive of final blocks and certificates, backfill
        let cache = CacheRef::new(NZU16!(16_384), NZUsize!(512));
        let buffer = NZUsize!(256 << 10);
        let (broadcast, block_buffer) = buffered::Engine::new(
            context.child("broadcast"),
            buffered::Config {
                public_key: me.clone(),
                mailbox_size: NZUsize!(MAILBOX),
                deque_size: 16,
                priority: false,
                codec_config: (),
                peer_provider: oracle.clone(),
                strategy: Sequential,
            },
        );
        let broadcast = broadcast.start(blocks);
        let fetcher = backfill::init(
            context.child("backfill"),
            backfill::Config {
                public_key: me,
                peer_provider: oracle.clone(),
                blocker: oracle.clone(),
                mailbox_size: NZUsize!(MAILBOX),
                fetch_timeout: non_zero(timing.fetch),
                fetch_retry_delay: Duration::from_millis(100),
                priority_requests: false,
                priority_responses: false,
            },
            fetch,
        );
        macro_rules! archive {
            ($name:literal, $codec:expr) => {
                immutable::Archive::init(
                    context.child($name),
                    immutable::Config {
                        metadata_partition: concat!($name, "-metadata").into(),
                        freezer_table_partition: concat!($name, "-table").into(),
                        freezer_table_initial_size: 1_024,
                        freezer_table_resize_frequency: 4,
                        freezer_table_resize_chunk_size: 1_024,
                        freezer_key_partition: concat!($name, "-key").into(),
                        freezer_key_page_cache: cache.clone(),
                        freezer_value_partition: concat!($name, "-value").into(),
                        freezer_value_target_size: 1 << 28,
                        freezer_value_compression: None,
                        ordinal_partition: concat!($name, "-ordinal").into(),
                        items_per_section: NZU64!(1_024),
                        codec_config: $codec,
                        replay_buffer: buffer,
                        freezer_key_write_buffer: buffer,
                        freezer_value_write_buffer: buffer,
                        ordinal_write_buffer: buffer,
                    },
                )
                .await
            };
        }
        let unbounded = Scheme::certificate_codec_config_unbounded();
        let archives = (archive!("finalizations", unbounded), archive!("blocks", ()));
        let (certificate_archive, block_archive) = match archives {
            (Ok(certificates), Ok(blocks)) => (certificates, blocks),
            (Err(e), _) | (_, Err(e)) => {
                return shared.fail(ConsensusError::Engine(format!("open archive: {e}")));
            }
        };
        let genesis = Arc::new(ChainBlock::genesis(config.genesis_digest, config.evm_genesis));
        let genesis_digest = to_digest(genesis.digest());
        let epocher = adapter.epocher.clone();
        let (actor, mailbox, _) = Actor::init(
            context.child("marshal"),
            certificate_archive,
            block_archive,
            marshal::Config {
                provider: epochs.schemes.clone(),
                epocher: epocher.clone(),
                // what is stored from an earlier run is above it and wins
                start: marshal::Start::Genesis(Digested::precomputed(Wire(genesis), genesis_digest)),
                partition_prefix: "marshal".into(),
                mailbox_size: NZUsize!(MAILBOX),
                view_retention: ViewDelta::new(64),
                prunable_items_per_section: NZU64!(64),
                page_cache: cache.clone(),
                replay_buffer: buffer,
                key_write_buffer: buffer,
                value_write_buffer: buffer,
                block_codec_config: (),
                max_repair: NZUsize!(32),
                max_pending_acks: NZUsize!(16),
                strategy: Sequential,
            },
        )
        .await;
        let (deliver, updates) = unbounded_channel();
        let marshal = actor.start(Delivery(deliver), block_buffer, fetcher);
        let network = net.start();
        let talk = tokio::spawn(gossip.run(talk.0, talk.1));
        // nobody waits for the handle any more: nothing to run for
        if ready.send(mailbox.clone()).is_err() {
            return;
        }

        let application = adapter.application.clone();
        let inline = Inline::new(context.child("application"), adapter, mailbox.clone(), epocher.clone());
        let orchestrator = Orchestrator {
            context: context.child("epochs"),
            config: config.clone(),
            application,
            shared: shared.clone(),
            epochs,
            epocher,
            genesis: genesis_digest,
            marshal: mailbox,
            oracle,
            bootstrap,
            inline,
            cache,
            lanes,
            ahead: None,
            hinted: None,
        };
        let orchestrator = orchestrator.run(updates);

        let ended = tokio::select! {
            _ = stopped.wait_for(|stop| *stop) => None,
            _ = shared.until_failed() => None,
            end = orchestrator => match end {
                Ok(()) => Some(("delivery", "ended".into())),
                Err(error) => {
                    shared.fail(error);
                    None
                }
            },
            end = marshal => Some(("marshal", format!("{end:?}"))),
            end = network => Some(("network", format!("{end:?}"))),
            end = broadcast => Some(("broadcast", format!("{end:?}"))),
            end = talk => Some(("gossip", format!("{end:?}"))),
        };
        if let Some((part, end)) = ended {
            shared.fail(ConsensusError::Engine(format!("{part}: {end}")));
        }
        // Journals are synced before each message that depends on them, so an actor that misses the
        // limit loses nothing.
        let _ = context.stop(0, Some(STOP_LIMIT)).await;
    }
}

pub(crate) fn non_zero(duration: Duration) -> NonZeroDuration {
    NonZeroDuration::new(duration).unwrap_or(NZDuration!(Duration::from_secs(1)))
}
