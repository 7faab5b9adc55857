//! What every part of a router shares.

use crate::{
    config::RouterConfig,
    discovery::Discovery,
    metrics::Metrics,
    nodes::{Clock, Nodes},
    outbound::Outbound,
    rate::Rates,
    receipts::Places,
};
use opg_client::Rpc;
use std::sync::Arc;
use tokio::sync::{Mutex, Notify, Semaphore};
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) config: RouterConfig,
    pub(crate) nodes: Nodes,
    pub(crate) discovery: Mutex<Discovery>,
    /// For receipts; apart from the one of `discovery`, which waits for a whole look.
    pub(crate) rpc: Rpc,
    pub(crate) outbound: Outbound,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
    pub(crate) slots: Arc<Semaphore>,
    /// Kibibytes of unpaid requests that may be held.
    pub(crate) memory: Arc<Semaphore>,
    pub(crate) rates: Rates,
    pub(crate) relay_rates: Rates,
    pub(crate) places: Places,
    /// The set of nodes may have changed.
    pub(crate) look_again: Notify,
    pub(crate) stopping: CancellationToken,
}
