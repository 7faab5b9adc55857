//! A running node: what its parts share, start and shutdown.

use crate::{
    attest::{self, Attestation, Keeper},
    bond::Bond,
    catalogue::{Catalogue, CatalogueError, Served},
    chain::Chain,
    channels::Desk,
    claims::Claimer,
    closed::keys::ClosedKeys,
    config::{ConfigError, EngineSettings, InferenceNodeConfig, KeyLock, Limits, NodeKeys},
    error::ApiError,
    facilitator::Sent,
    funds::Funds,
    job::{Job, Outcome},
    metrics::Metrics,
    offer::Cashier,
    payment::Funding,
    prover::{Progress, Prover},
    rpc::{Rpc, RpcError},
    server,
    settle::{Relayed, SettleNow, Settler},
    share::Share,
    store::{Store, StoreError},
    submit::Submitter,
    supply::{self, SupplyError},
    tiers::Tiers,
    time::{unix_millis, unix_seconds},
    usd,
};
use axum::http::StatusCode;
use opg_payments::{
    channel::plan::{ClaimPolicy, MAX_ROWS},
    channels::Channels,
    journal::{Journal, JournalError},
    reserve::{Caps, Reservations, ReserveError},
    signature::address_of_secret,
};
use opg_primitives::{
    hash,
    ids::{Keyset, NodeId},
    money::Amount,
};
use opg_receipt::StreamRecord;
use serde_json::{Map, Value};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    sync::{Notify, Semaphore, mpsc, watch},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a node waits for the chain when it starts.
const CHAIN_PATIENCE: Duration = Duration::from_secs(60);
/// Terms on chain are read this often.
const REFRESH: Duration = Duration::from_secs(30);
/// Settlements before work that may wait.
const MAX_SETTLE_NOW: usize = 1024;

/// Why a node does not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// Configuration or key file.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A model cannot be served.
    #[error(transparent)]
    Model(#[from] CatalogueError),
    /// A model is not here and cannot be fetched.
    #[error(transparent)]
    Supply(#[from] SupplyError),
    /// The attester of the configuration cannot be used.
    #[error("attestation: {0}")]
    Attester(#[from] opg_attester::AttestError),
    /// No full node answers.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The HTTP client cannot be set up.
    #[error("HTTP client: {0}")]
    Http(#[from] reqwest::Error),
    /// The chain is not the one of the configuration.
    #[error("chain id is {got}, the configuration says {expected}")]
    Chain {
        /// Of the configuration.
        expected: u64,
        /// Of the full node.
        got: u64,
    },
    /// The node or its keys are not registered as they are here.
    #[error("node {node}: {problem}")]
    Registration {
        /// The node.
        node: NodeId,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// The journal cannot be opened, or failed.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// A reservation in the journal is damaged.
    #[error(transparent)]
    Reservations(#[from] ReserveError),
    /// A receipt in the journal is damaged.
    #[error("journal: {0}")]
    Store(String),
    /// The data folder or the listening address cannot be used.
    #[error("{what}: {source}")]
    Io {
        /// What was to be used.
        what: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A task of the node ended by itself.
    #[error("{0} ended unexpectedly")]
    Task(&'static str),
    /// Work did not end within the time for it.
    #[error("{0} requests were still running after the shutdown time")]
    Shutdown(usize),
}

impl From<StoreError> for NodeError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

/// What requests and tasks share.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) node_id: NodeId,
    /// The registered keys.
    pub(crate) keyset: Keyset,
    pub(crate) url: String,
    pub(crate) limits: Limits,
    pub(crate) cashier: Cashier,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) chain: Chain,
    pub(crate) funds: Arc<Funds>,
    /// Whether the node's bond covers its fees.
    pub(crate) bond: Bond,
    /// Tiers of payers, if they count here.
    pub(crate) tiers: Option<Tiers>,
    pub(crate) journal: Arc<Journal>,
    /// No other process serves with these keys.
    pub(crate) _keys: KeyLock,
    pub(crate) reservations: Arc<Reservations>,
    pub(crate) store: Arc<Store>,
    pub(crate) metrics: Arc<Metrics>,
    /// Models for other nodes.
    pub(crate) share: Option<Share>,
    /// How ONNX models run.
    pub(crate) engine: EngineSettings,
    /// Held for its lock.
    pub(crate) _cache: Option<Arc<opg_model_store::Cache>>,
    /// Evidence of the keyset.
    pub(crate) attestation: Arc<Attestation>,
    /// API keys of closed models.
    pub(crate) closed_keys: ClosedKeys,
    /// What the prover is doing.
    pub(crate) progress: Arc<Progress>,
    /// Payment channels.
    pub(crate) desk: Arc<Desk>,
    /// Whether payments to others are settled here too.
    pub(crate) for_others: bool,
    /// What was settled for others.
    pub(crate) sent: Arc<Sent>,
    /// Largest unsettled amount of one payer.
    pub(crate) exposure_cap: Amount,
    pub(crate) settler: mpsc::Sender<SettleNow>,
    /// A receipt was signed.
    pub(crate) signed: Arc<Notify>,
    /// A receipt that needs a proof was signed.
    pub(crate) to_prove: Arc<Notify>,
    /// Slots for requests.
    pub(crate) slots: Arc<Semaphore>,
    /// Slots for generations.
    pub(crate) generations: Arc<Semaphore>,
    /// Work that goes on when its client has left.
    pub(crate) tracker: TaskTracker,
    pub(crate) stopping: CancellationToken,
}

impl Node {
    /// Reads the bond and the fees that it has to cover; what was read before stays if no full node answers.
    pub(crate) async fn read_bond(&self) {
        let now = unix_seconds();
        if let Err(error) = self.bond.refresh(&self.chain, self.node_id, now, &self.metrics).await {
            tracing::warn!(%error, "the node's bond cannot be read");
        }
    }

    /// The model that a request names.
    pub(crate) fn model(&self, object: &Map<String, Value>) -> Result<(String, &Arc<Served>), ApiError> {
        let asked = match object.get("model") {
            Some(Value::String(name)) => name,
            Some(other) => {
                let message = format!("model: expected a string, got {}", crate::body::kind(other));
                return Err(ApiError::bad_request("invalid_parameter", message).param("model"));
            }
            None => return Err(ApiError::bad_request("missing_parameter", "model is missing").param("model")),
        };
        let served = self.catalogue.find(asked).ok_or_else(|| {
            let short: String = asked.chars().take(100).collect();
            let names: Vec<_> = self.catalogue.iter().map(|s| s.model.name.as_str()).collect();
            let message = format!(
                "model {short:?} is not served by this node; it serves {}",
                names.join(", ")
            );
            ApiError::new(StatusCode::NOT_FOUND, "model_not_found", message).param("model")
        })?;
        Ok((asked.clone(), served))
    }
}

/// A running inference node. Dropping it stops the node without waiting; [`shutdown`](Self::shutdown) finishes its work.
#[derive(Debug)]
pub struct InferenceNode {
    node: Arc<Node>,
    address: SocketAddr,
    stop_server: CancellationToken,
    stop_tasks: CancellationToken,
    server: JoinHandle<()>,
    tasks: Vec<JoinHandle<()>>,
    failed: watch::Receiver<Option<Arc<JournalError>>>,
}

impl InferenceNode {
    /// Loads the models, checks the node's registration on chain, and serves.
    ///
    /// # Errors
    /// Anything that would make an answer unpayable or a receipt invalid is found here, not by a client.
    pub async fn start(config: InferenceNodeConfig) -> Result<Self, NodeError> {
        config.check()?;
        let keys = NodeKeys::load(&config.keys)?;
        let lock = NodeKeys::lock(&config.keys)?;
        let node_id = config.node_id();
        let keyset = keys.keyset(node_id);
        let io = |what: String| move |source| NodeError::Io { what, source };
        std::fs::create_dir_all(&config.data_dir).map_err(io(config.data_dir.display().to_string()))?;
        let journal = Arc::new(Journal::open(config.data_dir.join("journal.redb"))?);
        let caps = Caps {
            per_payer: config.exposure.per_payer,
            per_node: config.exposure.per_node,
        };
        let reservations = Arc::new(Reservations::open(Arc::clone(&journal), caps)?);
        let store = Arc::new(Store::open(Arc::clone(&journal), keys.receipt_key(), keyset.digest())?);

        // Before anything else waits: a machine without the hardware that is configured must not serve.
        let attester = config.attestation.as_ref().map(attest::open).transpose()?;
        let config_digest = hash::sha256(config.to_toml().as_bytes());
        let metrics = Arc::new(Metrics::new());
        let loading = {
            let (config, metrics) = (config.clone(), Arc::clone(&metrics));
            async move {
                let (models, cache) = supply::fetch(&config, &metrics).await?;
                let (paths, engine) = (models.clone(), config.engine);
                let loaded = tokio::task::spawn_blocking(move || Catalogue::load(&paths, &engine)).await;
                let loaded = loaded.map_err(|_| NodeError::Task("loading of the models"))??;
                Ok::<_, NodeError>((loaded, models, cache))
            }
        };
        // Ends with the start: who stops waiting for a hub that is away must not keep the cache locked.
        let loading = tokio_util::task::AbortOnDropHandle::new(tokio::spawn(loading));
        let chain = Chain::new(Arc::new(Rpc::new(config.rpc.clone())?));
        wait_for_chain(&chain, &config, keyset.digest().0, node_id).await?;
        let (loaded, models, cache) = loading.await.map_err(|_| NodeError::Task("loading of the models"))??;
        let catalogue = Arc::new(Catalogue::open(loaded, &chain, node_id).await?);
        let shares = config.model_store.as_ref().is_some_and(|store| store.share);
        let share = shares.then(|| Share::of(&models, &catalogue, cache.as_deref()));

        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(io(format!("listen on {}", config.listen)))?;
        let address = listener.local_addr().map_err(io("listening address".into()))?;
        let (settler, settle_now) = mpsc::channel(MAX_SETTLE_NOW);
        let (relay, relayed) = mpsc::channel(64);
        let settlement = address_of_secret(&keys.settlement);
        let cashier = Cashier::new(
            config.chain_id,
            node_id,
            keyset.digest(),
            keys.receipt_key(),
            settlement,
            (&config.limits, config.channels),
        );
        let channels = Channels::open(Arc::clone(&journal), config.chain_id, cashier.receiver_terms())
            .map_err(|error| NodeError::Store(error.to_string()))?;
        let desk = Arc::new(Desk {
            channels: Arc::new(channels),
            chain: chain.clone(),
            relay: relay.clone(),
            domains: cashier.domains,
            settlement,
            min_deposit: config.channels.min_deposit,
            patience: Duration::from_secs(config.limits.settle_seconds),
        });
        let policy = ClaimPolicy {
            min_value: config.channels.claim_value,
            max_rows: MAX_ROWS,
        };
        let node = Arc::new(Node {
            node_id,
            keyset,
            url: config.public_url.clone().unwrap_or_else(|| format!("http://{address}")),
            cashier,
            desk,
            for_others: config.facilitator_for_others,
            sent: Arc::default(),
            exposure_cap: config.exposure.per_payer,
            catalogue,
            funds: Arc::new(Funds::new(chain.clone())),
            bond: Bond::default(),
            tiers: config.limits.feature_tiers.then(|| Tiers::new(chain.clone())),
            chain,
            journal,
            _keys: lock,
            reservations,
            store,
            metrics,
            share,
            _cache: cache,
            engine: config.engine,
            attestation: Arc::default(),
            closed_keys: ClosedKeys::open(
                config.chain_id,
                node_id.0,
                keyset.digest(),
                config.operator,
                keys.hpke_key(),
                config.data_dir.join("upstream-keys.json"),
            ),
            progress: Arc::default(),
            settler,
            signed: Arc::new(Notify::new()),
            to_prove: Arc::new(Notify::new()),
            slots: Arc::new(Semaphore::new(config.limits.concurrent)),
            generations: Arc::new(Semaphore::new(config.limits.generations)),
            tracker: TaskTracker::new(),
            stopping: CancellationToken::new(),
            limits: config.limits,
        });
        node.end_interrupted().await?;
        let keeper = attester.map(|attester| Keeper {
            attester: attester.into(),
            chain: node.chain.clone(),
            chain_id: config.chain_id,
            node_id,
            keyset: keyset.digest(),
            operator: config.operator,
            config: config_digest,
            state: Arc::clone(&node.attestation),
            relay,
            metrics: Arc::clone(&node.metrics),
        });
        node.read_bond().await;
        Ok(Self::spawn(
            node,
            &keys,
            config.chain_id,
            (listener, address),
            (settle_now, relayed),
            keeper,
            policy,
        ))
    }

    fn spawn(
        node: Arc<Node>,
        keys: &NodeKeys,
        chain_id: u64,
        (listener, address): (TcpListener, SocketAddr),
        (settle_now, relayed): (mpsc::Receiver<SettleNow>, mpsc::Receiver<Relayed>),
        keeper: Option<Keeper>,
        policy: ClaimPolicy,
    ) -> Self {
        let (stop_server, stop_tasks) = (node.stopping.clone(), CancellationToken::new());
        let settler = Settler {
            chain: node.chain.clone(),
            relay_key: keys.settlement,
            chain_id,
            node_id: node.node_id,
            payee: node.cashier.payee,
            reservations: Arc::clone(&node.reservations),
            store: Arc::clone(&node.store),
            funds: Arc::clone(&node.funds),
            metrics: Arc::clone(&node.metrics),
            interval: Duration::from_millis(node.limits.settle_interval_ms),
            relayed,
        };
        let submitter = Submitter {
            chain: node.chain.clone(),
            store: Arc::clone(&node.store),
            metrics: Arc::clone(&node.metrics),
            signed: Arc::clone(&node.signed),
        };
        let prover = Prover {
            store: Arc::clone(&node.store),
            reservations: Arc::clone(&node.reservations),
            catalogue: Arc::clone(&node.catalogue),
            metrics: Arc::clone(&node.metrics),
            progress: Arc::clone(&node.progress),
            signed: Arc::clone(&node.to_prove),
            proven: Arc::clone(&node.signed),
        };
        let claimer = Claimer {
            desk: Arc::clone(&node.desk),
            store: Arc::clone(&node.store),
            metrics: Arc::clone(&node.metrics),
            policy,
        };
        let (report, failed) = watch::channel(None);
        let mut tasks = vec![
            tokio::spawn(settler.run(settle_now, stop_tasks.clone())),
            tokio::spawn(submitter.run(stop_tasks.clone())),
            tokio::spawn(prover.run(stop_tasks.clone())),
            tokio::spawn(claimer.run(stop_tasks.clone())),
            tokio::spawn(watch_over(Arc::clone(&node), report, stop_tasks.clone())),
        ];
        tasks.extend(keeper.map(|keeper| tokio::spawn(keeper.run(stop_tasks.clone()))));
        let server = tokio::spawn({
            let (router, stop) = (server::router(Arc::clone(&node), keys.hpke_key()), stop_server.clone());
            async move {
                if let Err(error) = axum::serve(listener, router)
                    .with_graceful_shutdown(stop.cancelled_owned())
                    .await
                {
                    tracing::error!(%error, "HTTP server stopped");
                }
            }
        });
        tracing::info!(node = %node.node_id, %address, "inference node serves");
        Self {
            node,
            address,
            stop_server,
            stop_tasks,
            server,
            tasks,
            failed,
        }
    }

    /// Address that the node listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// URL that clients use.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.node.url
    }

    /// The node's identifier.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.node.node_id
    }

    /// Resolves when the node cannot go on, with the reason.
    pub async fn stopped(&mut self) -> NodeError {
        let failed = self.failed.wait_for(Option::is_some);
        tokio::select! {
            failed = failed => match failed.ok().and_then(|f| (*f).clone()) {
                Some(error) => NodeError::Journal((*error).clone()),
                None => NodeError::Task("supervision"),
            },
            _ = &mut self.server => NodeError::Task("HTTP server"),
        }
    }

    /// Stops taking requests, finishes those that run, sends out their receipts and settlements as far as the chain
    /// answers, and writes the journal. What is not sent goes out after the next start.
    ///
    /// # Errors
    /// Work was still running at the end of `limits.shutdown_seconds`.
    pub async fn shutdown(mut self) -> Result<(), NodeError> {
        self.stop_server.cancel();
        self.node.tracker.close();
        let patience = Duration::from_secs(self.node.limits.shutdown_seconds);
        let finished = tokio::time::timeout(patience, async {
            self.node.tracker.wait().await;
            let _ = (&mut self.server).await;
        })
        .await;
        let left = self.node.tracker.len();
        self.server.abort();
        self.stop_tasks.cancel();
        for task in std::mem::take(&mut self.tasks) {
            let _ = tokio::time::timeout(Duration::from_secs(10), task).await;
        }
        match finished {
            Ok(()) => Ok(()),
            // Idle keep-alive connections are no work.
            Err(_) if left == 0 => Ok(()),
            Err(_) => Err(NodeError::Shutdown(left)),
        }
    }
}

impl Drop for InferenceNode {
    fn drop(&mut self) {
        self.stop_server.cancel();
        self.stop_tasks.cancel();
        self.server.abort();
    }
}

impl Node {
    /// Work that a crash interrupted: its payments get a receipt over nothing, so that whatever was or will be settled is
    /// credited back.
    async fn end_interrupted(&self) -> Result<(), NodeError> {
        let mut last = None;
        for record in self.reservations.interrupted() {
            let key = record.key();
            let commit = match serde_json::from_slice::<Job>(&record.context) {
                Ok(job) => {
                    let outcome = Outcome::failed(
                        StatusCode::INTERNAL_SERVER_ERROR.as_u16(),
                        unix_millis(),
                        StreamRecord::NOT_STREAMED,
                    );
                    let funding = Funding::Single {
                        record: record.clone(),
                        commit: self.journal.write(|_| Ok(())),
                        tx: None,
                    };
                    let times = (unix_seconds(), self.limits.opening_seconds);
                    self.store
                        .finish(&self.books(), &job, &funding, &outcome, times)?
                        .commit
                }
                Err(error) => {
                    tracing::error!(%error, %key, "a reservation has no readable context; it is released without a receipt");
                    self.reservations
                        .fail(key, |_| Ok(()))
                        .map_err(|e| NodeError::Store(e.to_string()))?
                }
            };
            tracing::warn!(%key, "work was interrupted by a crash; nothing is charged for it");
            last = Some(commit);
        }
        if let Some(commit) = last {
            commit.durable().await?;
        }
        Ok(())
    }
}

/// Reads terms from time to time and reports a journal that failed.
async fn watch_over(node: Arc<Node>, report: watch::Sender<Option<Arc<JournalError>>>, stop: CancellationToken) {
    let mut refreshed = std::time::Instant::now();
    let mut priced = refreshed;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_millis(500)) => {}
        }
        if let Err(error) = node.journal.health() {
            report.send_replace(Some(Arc::new(error)));
        }
        if node.catalogue.needs_oracle() && priced.elapsed() > usd::INTERVAL {
            priced = std::time::Instant::now();
            node.catalogue.refresh_oracle(&node.chain).await;
        }
        if refreshed.elapsed() > REFRESH {
            refreshed = std::time::Instant::now();
            node.catalogue.refresh(&node.chain, node.node_id).await;
            node.read_bond().await;
        }
    }
}

/// Waits until a full node answers and the registration is as it must be.
async fn wait_for_chain(
    chain: &Chain,
    config: &InferenceNodeConfig,
    keyset: alloy_primitives::B256,
    node_id: NodeId,
) -> Result<(), NodeError> {
    let began = std::time::Instant::now();
    loop {
        match check_registration(chain, config, keyset, node_id).await {
            Err(NodeError::Rpc(error)) if began.elapsed() < CHAIN_PATIENCE => {
                tracing::debug!(%error, "waiting for the chain");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            other => return other,
        }
    }
}

async fn check_registration(
    chain: &Chain,
    config: &InferenceNodeConfig,
    keyset: alloy_primitives::B256,
    node: NodeId,
) -> Result<(), NodeError> {
    let got = chain.chain_id().await?;
    if got != config.chain_id {
        return Err(NodeError::Chain {
            expected: config.chain_id,
            got,
        });
    }
    let bad = |problem: &str| {
        Err(NodeError::Registration {
            node,
            problem: problem.to_owned(),
        })
    };
    match chain.node(node.0).await? {
        None => return bad("is not registered in NodeRegistry; check operator and salt"),
        Some(record) if record.inactive_at.is_some() => return bad("is deactivated"),
        Some(_) => {}
    }
    match chain.keyset(keyset).await? {
        None => bad("this key file's keyset is not registered; register it with NodeRegistry.addKeyset"),
        Some(record) if record.node_id != node.0 => bad("the keyset is registered for another node"),
        Some(record) if record.revoked_at.is_some() => bad("the keyset is revoked"),
        Some(_) => Ok(()),
    }
}
