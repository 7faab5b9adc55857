//! What the network's chain says about models: who registered them, on what terms, and what they have earned.
//!
//! Registrations are read when they are asked for. Earnings are summed from the ledger by a task that follows final blocks
//! ([`follow`]) into a database of its own ([`books`]): it may be deleted, and is then made again from the chain.

mod books;
mod follow;

pub use books::BooksError;
pub(crate) use books::Earnings;

use crate::{
    config::ChainConfig,
    db::Place,
    error::{Answer, ApiError},
    inspect::Model,
};
use alloy_primitives::{Address, B256};
use axum::http::StatusCode;
use books::Books;
use opg_client::{ClientError, EvmChain};
use opg_contracts::{ModelRegistry, addresses};
use opg_models::ModelRoot;
use opg_primitives::{
    mode::Mode,
    money::{Amount, Price},
};
use serde::Serialize;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

/// How old a registration may be when it is shown.
const FRESH: Duration = Duration::from_secs(10);
/// Registrations remembered.
const REMEMBERED: usize = 10_000;
/// Between two looks for new blocks.
const POLL: Duration = Duration::from_millis(500);
/// After a failure.
const PAUSE: Duration = Duration::from_secs(1);
/// Failures are told after this time: a hub may well start before the full nodes.
const QUIET: Duration = Duration::from_secs(30);
/// Longest wait for a full node when somebody waits for the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// A model in the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Registration {
    /// Who gets the royalty.
    pub(crate) creator: Address,
    /// Royalty of each charge, basis points.
    pub(crate) royalty_bps: u16,
    /// The creator's reference price, wei.
    pub(crate) price: Price,
    /// Name in the registry.
    pub(crate) name: String,
    /// Seconds since 1970.
    pub(crate) registered_at: u64,
    /// Block of the commitment that came first; 0 for models of the genesis.
    pub(crate) committed_at: u64,
    /// Exact integer programs that proofs about the model may be about, in the order of their registration.
    pub(crate) programs: Vec<B256>,
}

impl Registration {
    /// Modes that the network takes receipts of this model in. Which of them a node offers is the node's to say: mode tee
    /// takes hardware evidence of its own. Mode replay has no verifier yet (receipt.md §6).
    pub(crate) fn modes(&self) -> Vec<Mode> {
        let zk = (!self.programs.is_empty()).then_some(Mode::Zk);
        [Mode::None, Mode::Tee].into_iter().chain(zk).collect()
    }
}

/// Registrations with when they were read.
type Remembered = HashMap<ModelRoot, (Instant, Option<Registration>)>;

/// The chain as this hub sees it.
#[derive(Debug)]
pub(crate) struct Chain {
    config: ChainConfig,
    /// Connected when a full node has answered with the right chain id.
    evm: OnceCell<EvmChain>,
    books: Arc<Books>,
    known: Mutex<Remembered>,
}

impl Chain {
    /// Opens the books. No full node is asked yet. Blocks.
    pub(crate) fn open(place: Place, config: ChainConfig) -> Result<Self, BooksError> {
        Ok(Self {
            config,
            evm: OnceCell::new(),
            books: Arc::new(Books::open(place)?),
            known: Mutex::default(),
        })
    }

    /// Ends what is held at a database server.
    pub(crate) async fn close(&self) {
        self.books.close().await;
    }

    async fn evm(&self) -> Result<&EvmChain, ClientError> {
        let connect = || EvmChain::connect(self.config.rpc.clone(), self.config.chain_id);
        self.evm.get_or_try_init(connect).await
    }

    /// Follows the chain until it is told to stop.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut failing: Option<Instant> = None;
        let mut told = false;
        loop {
            let step = async {
                let evm = self.evm().await?;
                follow::step(evm, &self.books).await
            };
            let step = tokio::select! {
                () = stop.cancelled() => return,
                step = step => step,
            };
            let pause = match step {
                Ok(more) => {
                    failing = None;
                    if std::mem::take(&mut told) {
                        tracing::info!("following the chain again");
                    }
                    if more { Duration::ZERO } else { POLL }
                }
                Err(error) => {
                    tracing::debug!(%error, "the chain cannot be followed");
                    let since = *failing.get_or_insert_with(Instant::now);
                    if since.elapsed() > QUIET && !std::mem::replace(&mut told, true) {
                        tracing::warn!(%error, "earnings are not up to date: the chain cannot be followed; trying again");
                    }
                    PAUSE
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// The registration of a model; `None` if there is none. At most ten seconds old.
    pub(crate) async fn registration(&self, root: ModelRoot) -> Answer<Option<Registration>> {
        let known = {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known
                .get(&root)
                .filter(|(at, _)| at.elapsed() < FRESH)
                .map(|(_, found)| found.clone())
        };
        if let Some(found) = known {
            return Ok(found);
        }
        let read = async {
            let evm = self.evm().await?;
            let call = ModelRegistry::modelsCall { modelRoot: root.0 };
            let model = evm.view(addresses::MODEL_REGISTRY, call).await?;
            if model.creator.is_zero() {
                return Ok(None);
            }
            let call = ModelRegistry::programsOfCall { modelRoot: root.0 };
            let programs = evm.view(addresses::MODEL_REGISTRY, call).await?;
            Ok::<_, ClientError>(Some((model, programs)))
        };
        let away = |reason: String| {
            tracing::warn!(reason, "the registry cannot be read");
            ApiError::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "ChainUnavailable",
                "no full node of the network answers this hub; try again later",
            )
        };
        let read = match tokio::time::timeout(PATIENCE, read).await {
            Ok(Ok(read)) => read,
            Ok(Err(error)) => return Err(away(error.to_string())),
            Err(_) => return Err(away("no answer".into())),
        };
        let found = read.map(|(model, programs)| Registration {
            creator: model.creator,
            royalty_bps: model.royaltyBps,
            price: Price {
                per_call: Amount(model.price.perCall),
                per_mtok_in: Amount(model.price.perMtokIn),
                per_mtok_out: Amount(model.price.perMtokOut),
            },
            name: model.name.chars().filter(|c| !c.is_control()).take(200).collect(),
            registered_at: model.registeredAt.to(),
            committed_at: model.committedAt,
            programs,
        });
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(root, (Instant::now(), found.clone()));
        Ok(found)
    }

    /// The root that a model is registered under with its registration; of several the one that was committed to first (D6).
    /// The newest root, and no registration, if it is under none; nothing if it has no root.
    pub(crate) async fn registration_of(&self, model: &Model) -> Answer<Option<(ModelRoot, Option<Registration>)>> {
        let names = model.names();
        let mut first: Option<(ModelRoot, Registration)> = None;
        for (root, _) in &names {
            if let Some(found) = self.registration(*root).await?
                && first
                    .as_ref()
                    .is_none_or(|(_, first)| found.committed_at < first.committed_at)
            {
                first = Some((*root, found));
            }
        }
        Ok(match first {
            Some((root, found)) => Some((root, Some(found))),
            None => names.first().map(|(root, _)| (*root, None)),
        })
    }

    /// The block up to which earnings are summed; `None` before the first one.
    pub(crate) async fn block(&self) -> Answer<Option<u64>> {
        Ok(self.earnings(ModelRoot(B256::ZERO)).await?.1)
    }

    /// What a model has earned up to a block; `None` for the block if none was read yet.
    pub(crate) async fn earnings(&self, root: ModelRoot) -> Answer<(Earnings, Option<u64>)> {
        let books = Arc::clone(&self.books);
        let read = tokio::task::spawn_blocking(move || books.earnings(B256::from(root.0.0)));
        read.await.map_err(ApiError::internal)?.map_err(ApiError::internal)
    }
}
