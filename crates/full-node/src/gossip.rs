//! Receipts and transactions between validators.
//!
//! Every validator is connected to every other, so a message travels one hop and is never passed on. What still waits after
//! a while is sent again: a peer may have been down or busy.

use crate::{
    pool::{Known, SubmitError},
    shared::{Shared, TransactionError, unix_time},
};
use alloy_primitives::{B256, Bytes};
use opg_consensus::{GossipMessage, GossipReceiver, ProofName, Topic};
use std::{
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Messages that are looked at at once; more are dropped and sent again later.
const MAX_RUNNING: usize = 4_096;
/// How often waiting messages are sent again, and how many of each kind.
const REPEAT: Duration = Duration::from_secs(10);
const REPEATED: usize = 512;
/// Names in one request for proofs: core hash and artefact hash each.
const MAX_REQUESTED: usize = 64;
const NAME_BYTES: usize = 64;
/// A proof is sent on request at most this often, whoever asks.
const REQUEST_PAUSE: Duration = Duration::from_millis(500);
/// Proofs whose last sending is remembered.
const MAX_REMEMBERED: usize = 4_096;

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
        Topic::Receipt | Topic::ProvenReceipt => {
            let Some((receipt, artefact)) = parts(topic, payload) else {
                tracing::debug!(%from, "receipt with proof from a peer is malformed");
                return;
            };
            if let Err(error) = take_receipt(node, receipt, artefact).await {
                tracing::debug!(%from, %error, "receipt from a peer refused");
            }
        }
        Topic::ProofRequest => {
            for name in payload.chunks_exact(NAME_BYTES) {
                let (core_hash, artefact) = name.split_at(32);
                let (core_hash, artefact) = (B256::from_slice(core_hash), B256::from_slice(artefact));
                answer_request(node, ProofName { core_hash, artefact });
            }
        }
        Topic::Transaction => match node.add_transaction(payload, false).await {
            Ok(_) => {}
            Err(TransactionError::Refused(error)) => tracing::trace!(%from, %error, "transaction from a peer refused"),
            Err(error) => tracing::debug!(%from, %error, "transaction from a peer refused"),
        },
    }
}

/// The message that carries a receipt: by itself, or as `u32 length || receipt || artefact`.
pub(crate) fn message(receipt: &Bytes, artefact: Option<&Bytes>) -> (Topic, Bytes) {
    let Some(artefact) = artefact else {
        return (Topic::Receipt, receipt.clone());
    };
    let mut payload = Vec::with_capacity(4 + receipt.len() + artefact.len());
    // a receipt has at most 4,096 bytes
    payload.extend((receipt.len() as u32).to_be_bytes());
    payload.extend_from_slice(receipt);
    payload.extend_from_slice(artefact);
    (Topic::ProvenReceipt, payload.into())
}

/// Asks the other validators for proofs.
pub(crate) fn request_proofs(node: &Shared, names: &[ProofName]) {
    for some in names.chunks(MAX_REQUESTED) {
        let bytes = some.iter().flat_map(|name| [name.core_hash.0, name.artefact.0]);
        node.gossip(Topic::ProofRequest, bytes.collect::<Vec<_>>().concat().into());
    }
}

/// Sends a receipt with its proof to everybody who may lack it, unless that was done a moment ago.
fn answer_request(node: &Shared, name: ProofName) {
    let Some(waiting) = node.pool.by_core(name.core_hash) else {
        return;
    };
    let Some(Known::Good { artefact, .. }) = node.pool.known(&name) else {
        return;
    };
    {
        let mut sent = node.proofs_sent.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.get(&name).is_some_and(|at| at.elapsed() < REQUEST_PAUSE) {
            return;
        }
        if sent.len() >= MAX_REMEMBERED {
            sent.clear();
        }
        sent.insert(name, Instant::now());
    }
    let (topic, payload) = message(waiting.receipt.cose(), Some(&artefact));
    node.gossip(topic, payload);
}

/// Takes a message of [`message`] apart.
fn parts(topic: Topic, payload: Bytes) -> Option<(Bytes, Option<Bytes>)> {
    if topic != Topic::ProvenReceipt {
        return Some((payload, None));
    }
    let (length, rest) = payload.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    if length >= rest.len() {
        return None;
    }
    Some((payload.slice(4..4 + length), Some(payload.slice(4 + length..))))
}

async fn take_receipt(node: &Shared, receipt: Bytes, artefact: Option<Bytes>) -> Result<(), SubmitError> {
    let head = node.execution.head();
    let state = node
        .execution
        .state_at(head.hash)
        .map_err(|e| SubmitError::State(e.to_string()))?;
    let timestamp = unix_time().as_secs().max(head.timestamp.saturating_add(1));
    node.pool.submit(receipt, artefact, state, timestamp).await.map(drop)
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
        for waiting in node.pool.waiting_longer_than(REPEAT / 2, REPEATED) {
            let (topic, payload) = message(waiting.receipt.cose(), waiting.artefact.as_ref());
            node.gossip(topic, payload);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_apart_again() {
        let (receipt, artefact) = (Bytes::from_static(b"receipt"), Bytes::from_static(b"proof"));
        for artefact in [None, Some(artefact)] {
            let (topic, payload) = message(&receipt, artefact.as_ref());
            assert_eq!(parts(topic, payload), Some((receipt.clone(), artefact)));
        }
        for bad in [&b""[..], b"\0\0\0", b"\0\0\0\x02ab", b"\xff\xff\xff\xffab"] {
            assert_eq!(parts(Topic::ProvenReceipt, Bytes::from_static(bad)), None);
        }
    }
}
