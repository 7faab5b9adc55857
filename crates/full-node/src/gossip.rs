//! Receipts and transactions between validators.
//!
//! Every validator is connected to every other, so a message travels one hop and is never passed on. What still waits after
//! a while is sent again: a peer may have been down or busy.

use crate::{
    pool::SubmitError,
    shared::{Shared, TransactionError, unix_time},
};
use alloy_primitives::Bytes;
use opg_consensus::{GossipMessage, GossipReceiver, Topic};
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Messages that are looked at at once; more are dropped and sent again later.
const MAX_RUNNING: usize = 4_096;
/// How often waiting messages are sent again, and how many of each kind.
const REPEAT: Duration = Duration::from_secs(10);
const REPEATED: usize = 512;

/// Handles inbound gossip until the node stops.
pub(crate) async fn receive(node: Arc<Shared>, mut inbound: GossipReceiver, stop: CancellationToken) {
    let running = Arc::new(Semaphore::new(MAX_RUNNING));
    loop {
        let message = tokio::select! {
            () = stop.cancelled() => return,
            message = inbound.recv() => message,
        };
        let Some(message) = message else { return };
        let Ok(permit) = running.clone().try_acquire_owned() else {
            node.metrics.gossip_dropped.inc();
            continue;
        };
        let node = node.clone();
        tokio::spawn(async move {
            take(&node, message).await;
            drop(permit);
        });
    }
}

async fn take(node: &Shared, message: GossipMessage) {
    let GossipMessage { from, topic, payload } = message;
    match topic {
        Topic::Receipt => {
            if let Err(error) = take_receipt(node, payload).await {
                tracing::debug!(%from, %error, "receipt from a peer refused");
            }
        }
        Topic::Transaction => match node.add_transaction(payload, false).await {
            Ok(_) => {}
            Err(TransactionError::Refused(error)) => tracing::trace!(%from, %error, "transaction from a peer refused"),
            Err(error) => tracing::debug!(%from, %error, "transaction from a peer refused"),
        },
    }
}

async fn take_receipt(node: &Shared, payload: Bytes) -> Result<(), SubmitError> {
    let head = node.execution.head();
    let state = node
        .execution
        .state_at(head.hash)
        .map_err(|e| SubmitError::State(e.to_string()))?;
    let timestamp = unix_time().as_secs().max(head.timestamp.saturating_add(1));
    node.pool.submit(payload, state, timestamp).await.map(drop)
}

/// Sends again what waits, until the node stops.
pub(crate) async fn repeat(node: Arc<Shared>, stop: CancellationToken) {
    let mut interval = tokio::time::interval(REPEAT);
    interval.tick().await;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = interval.tick() => {}
        }
        for receipt in node.pool.waiting_longer_than(REPEAT / 2, REPEATED) {
            node.gossip(Topic::Receipt, receipt);
        }
        match node.execution.pooled() {
            Ok(transactions) => transactions
                .into_iter()
                .take(REPEATED)
                .for_each(|t| node.gossip(Topic::Transaction, t.raw)),
            Err(error) => tracing::warn!(%error, "transaction pool not readable"),
        }
    }
}
