//! The submitting task: receipts to full nodes until they are final. The outbox in the journal is the queue, so a restart goes on where
//! it was; submitting twice is harmless.

use crate::{
    chain::Chain,
    metrics::Metrics,
    rpc::RpcError,
    store::{Pending, Stage, Store, StoreError},
    time::unix_seconds,
};
use futures::StreamExt as _;
use opg_primitives::mode::Mode;
use opg_receipt::{Core, SignedReceipt};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Receipts submitted or asked for at once.
const PARALLEL: usize = 32;
/// Receipts looked at in one round.
const ROUND: usize = 4_096;
/// Time between rounds while nothing new is signed.
const IDLE: Duration = Duration::from_millis(500);
/// A receipt that was taken but is not final after this long is submitted again: the full node may have lost its pool.
const RESUBMIT: Duration = Duration::from_secs(20);
const MAX_BACKOFF: Duration = Duration::from_secs(30);
/// A receipt whose payment expired this long ago is given up.
const EXPIRY_GRACE: u64 = 120;
/// Openings are cleaned up this often.
const CLEAN: Duration = Duration::from_secs(60);

pub(crate) struct Submitter {
    pub(crate) chain: Chain,
    pub(crate) store: Arc<Store>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) signed: Arc<Notify>,
}

/// When to look at a receipt again.
struct Next {
    at: Instant,
    wait: Duration,
    submitted: Instant,
}

enum Step {
    /// Wait and look again.
    Again,
    /// A full node has it.
    Checked,
    /// It is in a finalised block.
    Final(u64),
    /// It can never be.
    Expired(String),
}

impl Submitter {
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut next: HashMap<u64, Next> = HashMap::new();
        let mut cleaned = Instant::now();
        loop {
            self.round(&mut next).await;
            if cleaned.elapsed() > CLEAN {
                cleaned = Instant::now();
                self.store.forget_openings(unix_seconds());
            }
            tokio::select! {
                () = stop.cancelled() => break,
                () = self.signed.notified() => {}
                () = tokio::time::sleep(IDLE) => {}
            }
        }
        // Receipts of the last requests get one chance to leave before the process ends; the rest goes out after the restart.
        self.round(&mut next).await;
    }

    async fn round(&self, next: &mut HashMap<u64, Next>) {
        let now = Instant::now();
        let due = self.store.outbox(ROUND, |p| {
            !p.unproven
                && matches!(p.stage, Stage::Executed | Stage::Checked)
                && next.get(&p.seq).is_none_or(|n| n.at <= now)
        });
        let resubmit = |p: &Pending| next.get(&p.seq).is_none_or(|n| n.submitted.elapsed() > RESUBMIT);
        let work: Vec<_> = due
            .into_iter()
            .map(|p| (p.stage == Stage::Executed || resubmit(&p), p))
            .collect();
        let results: Vec<_> = futures::stream::iter(work)
            .map(|(submit, pending)| async move {
                let step = if submit {
                    self.submit(&pending).await
                } else {
                    self.ask(&pending).await
                };
                (submit, pending, step)
            })
            .buffer_unordered(PARALLEL)
            .collect()
            .await;
        for (submitted, pending, step) in results {
            let entry = next.entry(pending.seq).or_insert(Next {
                at: now,
                wait: Duration::from_millis(250),
                submitted: Instant::now(),
            });
            if submitted {
                entry.submitted = Instant::now();
            }
            match step {
                Ok(Step::Checked) => {
                    if pending.stage == Stage::Executed {
                        self.store.advance(pending.seq, Stage::Checked, false);
                        self.metrics.receipt(Stage::Checked.word(pending.mode));
                    }
                    entry.wait = Duration::from_millis(250);
                    entry.at = Instant::now() + entry.wait;
                }
                Ok(Step::Final(height)) => {
                    self.store.advance(pending.seq, Stage::Final { height }, false);
                    self.metrics.receipt("final");
                    next.remove(&pending.seq);
                }
                Ok(Step::Expired(reason)) => {
                    tracing::warn!(receipt = %pending.id, reason, "receipt is given up");
                    self.store.advance(pending.seq, Stage::Expired { reason }, true);
                    self.metrics.receipt("expired");
                    next.remove(&pending.seq);
                }
                Ok(Step::Again) => back_off(entry),
                Err(error) => {
                    tracing::debug!(%error, receipt = %pending.id, "receipt waits");
                    back_off(entry);
                }
            }
        }
    }

    /// Hands a receipt to a full node.
    async fn submit(&self, pending: &Pending) -> Result<Step, StepError> {
        // A receipt that is not on disk yet comes with a later round.
        let Some(stored) = self.store.get(pending.id)? else {
            return Ok(Step::Again);
        };
        let mut params = vec![json!(stored.cose)];
        if pending.mode == Mode::Zk {
            match self.store.artefact(pending.id)? {
                Some(artefact) => params.push(json!(artefact)),
                // A proof is kept beyond its deadline; without it no full node can ever take the receipt.
                None => return Ok(Step::Expired("its proof is no longer kept".to_owned())),
            }
        }
        match self.chain.rpc().call("og_submitReceipt", params.into()).await {
            Ok(answer) => Ok(step(&answer)),
            Err(RpcError::Remote { message, data, .. }) => {
                let may_pass = data["mayPassLater"].as_bool().unwrap_or(true);
                let rule = data["rule"].as_str().unwrap_or_default();
                let expired = SignedReceipt::decode(&stored.cose)
                    .is_ok_and(|r| payable_until(r.core()).saturating_add(EXPIRY_GRACE) < unix_seconds());
                // A settled payment needs no valid authorization, so an expired one only ends a receipt that the rules still refuse.
                if rule == "evidence_late" {
                    return Ok(Step::Expired(message));
                }
                let never = [
                    "payment_expired",
                    "payment_funds",
                    "payment_signature",
                    "channel_funds",
                    "channel_spent",
                ]
                .contains(&rule);
                if !may_pass || (expired && never) {
                    return Ok(Step::Expired(message));
                }
                tracing::debug!(receipt = %pending.id, rule, message, "full node does not take a receipt yet");
                Ok(Step::Again)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Asks where a receipt stands.
    async fn ask(&self, pending: &Pending) -> Result<Step, StepError> {
        match self.chain.rpc().call("og_getReceipt", json!([pending.id])).await {
            Ok(answer) => Ok(step(&answer)),
            Err(RpcError::Remote { .. }) => Ok(Step::Again),
            Err(error) => Err(error.into()),
        }
    }
}

/// Unix seconds until which the payment of a receipt can be taken; for a channel, which has no such bound, until the work was done.
fn payable_until(core: &Core) -> u64 {
    match core.payment.channel {
        Some(_) => core.times.done / 1_000,
        None => core.payment.valid_before,
    }
}

fn step(answer: &Value) -> Step {
    match answer["height"].as_u64() {
        Some(height) => Step::Final(height),
        // Unknown there: the pool was lost or another full node answers. It is submitted again when its time comes.
        None if answer.is_null() => Step::Again,
        None => Step::Checked,
    }
}

fn back_off(entry: &mut Next) {
    entry.at = Instant::now() + entry.wait;
    entry.wait = (entry.wait * 2).min(MAX_BACKOFF);
}

#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error(transparent)]
    Store(#[from] StoreError),
}
