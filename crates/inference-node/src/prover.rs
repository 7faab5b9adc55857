//! The proving task: proofs of answers of mode zk, one after the other, in the background.
//!
//! The journal holds what each proof needs, so a restart goes on where it was: a proof that was under way starts again. A
//! proof that is not there by its deadline is given up, and its receipt with it: the payer gets the money back (D10).

use crate::{
    catalogue::Catalogue,
    metrics::Metrics,
    payment::PaidBy,
    store::{ProofJob, Stage, Store, StoreError},
    time::unix_seconds,
};
use opg_artefact::{ArtefactError, ZkArtefact};
use opg_payments::reserve::Reservations;
use opg_primitives::ids::ReceiptId;
use opg_receipt::SignedReceipt;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Time between looks at the queue while nothing new is signed.
const IDLE: Duration = Duration::from_secs(1);
/// Time before a proof that failed for a reason that may pass is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What the prover is doing, for whoever asks.
#[derive(Debug, Default)]
pub(crate) struct Progress(Mutex<Option<Current>>);

#[derive(Debug, Clone)]
struct Current {
    id: ReceiptId,
    step: String,
    since: Instant,
}

impl Progress {
    fn set(&self, current: Option<Current>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = current;
    }

    fn step(&self, step: String) {
        if let Some(current) = self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            current.step = step;
        }
    }

    /// Where the proof of a receipt stands, given its place in the queue.
    pub(crate) fn of(&self, id: ReceiptId, queue: &[ReceiptId]) -> Value {
        let current = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match (
            current.filter(|c| c.id == id),
            queue.iter().position(|queued| *queued == id),
        ) {
            (Some(current), _) => json!({
                "state": "proving",
                "step": current.step,
                "seconds": current.since.elapsed().as_secs_f64(),
            }),
            (None, Some(ahead)) => json!({"state": "queued", "ahead": ahead}),
            (None, None) => Value::Null,
        }
    }
}

pub(crate) struct Prover {
    pub(crate) store: Arc<Store>,
    pub(crate) reservations: Arc<Reservations>,
    pub(crate) catalogue: Arc<Catalogue>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) progress: Arc<Progress>,
    /// A receipt was signed.
    pub(crate) signed: Arc<Notify>,
    /// A receipt can be submitted.
    pub(crate) proven: Arc<Notify>,
}

enum Failure {
    /// No proof of this answer can be made.
    Never(String),
    /// It may work later.
    Later(String),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Later(error.to_string())
    }
}

impl Prover {
    pub(crate) async fn run(self, stop: CancellationToken) {
        loop {
            let wait = match self.next(&stop).await {
                Ok(true) => Duration::ZERO,
                Ok(false) => IDLE,
                Err(error) => {
                    tracing::warn!(%error, "proof queue not readable");
                    RETRY
                }
            };
            if stop.is_cancelled() {
                return;
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.signed.notified(), if !wait.is_zero() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Makes the oldest proof that is due. Says whether there was one.
    async fn next(&self, stop: &CancellationToken) -> Result<bool, StoreError> {
        let Some((id, job)) = self.store.next_proof()? else {
            return Ok(false);
        };
        let began = Instant::now();
        let result = if job.deadline <= unix_seconds() {
            Err(Failure::Never(format!("its deadline was {}", job.deadline)))
        } else {
            let (step, since) = ("starting".to_owned(), began);
            self.progress.set(Some(Current { id, step, since }));
            let cancel = Arc::new(AtomicBool::new(false));
            let left = Duration::from_secs(job.deadline.saturating_sub(unix_seconds()));
            let proving = self.prove(id, job.clone(), Arc::clone(&cancel));
            tokio::pin!(proving);
            tokio::select! {
                result = &mut proving => result,
                // Ends at its next step. The journal still has the job, and the next start goes on with it.
                () = stop.cancelled() => {
                    cancel.store(true, Ordering::Relaxed);
                    let _ = proving.await;
                    self.progress.set(None);
                    return Ok(true);
                }
                () = tokio::time::sleep(left) => {
                    cancel.store(true, Ordering::Relaxed);
                    let _ = proving.await;
                    Err(Failure::Never(format!("it took longer than its deadline, {}", job.deadline)))
                }
            }
        };
        let result = match result {
            Ok(artefact) => {
                let (took, bytes) = (began.elapsed(), artefact.len());
                match self.store.proven(job.seq, id, artefact).await {
                    Ok(()) => {
                        tracing::info!(receipt = %id, bytes, ms = took.as_millis() as u64, "answer proven");
                        Ok(took)
                    }
                    Err(error) => Err(Failure::Later(format!("not written: {error}"))),
                }
            }
            Err(failure) => Err(failure),
        };
        self.progress.set(None);
        match result {
            Ok(took) => {
                self.metrics.proof("proven", Some(took));
                self.proven.notify_one();
            }
            Err(Failure::Never(reason)) => {
                tracing::error!(receipt = %id, reason, "no proof; the receipt and its payment are given up");
                // First the payment: from then on nothing keeps it from being settled but this.
                self.forgive(id).await;
                self.store.advance(
                    job.seq,
                    Stage::Expired {
                        reason: format!("no proof: {reason}"),
                    },
                    true,
                );
                self.metrics.proof("failed", None);
                self.metrics.receipt("expired");
            }
            Err(Failure::Later(reason)) => {
                tracing::warn!(receipt = %id, reason, "proof is tried again");
                self.metrics.proof("retried", None);
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
        }
        Ok(true)
    }

    /// Gives up the payment of a receipt that will never be submitted.
    async fn forgive(&self, id: ReceiptId) {
        let key = match self.store.get(id) {
            Ok(Some(stored)) => SignedReceipt::decode(&stored.cose)
                .ok()
                .and_then(|receipt| PaidBy::of(&receipt).single()),
            _ => None,
        };
        let Some(key) = key else { return };
        match self.reservations.forgive(key) {
            Ok(commit) => {
                if let Err(error) = commit.durable().await {
                    tracing::error!(%error, receipt = %id, "the end of a payment was not written");
                }
            }
            // Settled before the work: the payer asks the vault for it.
            Err(error) => tracing::warn!(%error, receipt = %id, "the payment is settled already"),
        }
    }

    async fn prove(&self, id: ReceiptId, job: ProofJob, cancel: Arc<AtomicBool>) -> Result<Vec<u8>, Failure> {
        let stored = self
            .store
            .get(id)?
            .ok_or_else(|| Failure::Never("the receipt is missing".to_owned()))?;
        let receipt = SignedReceipt::decode(&stored.cose).map_err(|error| Failure::Never(error.to_string()))?;
        let served = self
            .catalogue
            .iter()
            .find(|served| served.model.root == receipt.core().model.served_root)
            .cloned();
        let Some(served) = served else {
            return Err(Failure::Later("the model is not served any more".to_owned()));
        };
        let progress = Arc::clone(&self.progress);
        let proving = tokio::task::spawn_blocking(move || {
            let Some(program) = served.program.as_ref().filter(|program| program.root() == job.program) else {
                return Err(Failure::Later("the model has another program now".to_owned()));
            };
            let layers = program.model.program().graph.nodes.len();
            let artefact = ZkArtefact::prove(
                &cancel,
                &program.model,
                receipt.core(),
                job.salt,
                &job.body,
                &job.answer,
                &mut |stage| {
                    use opg_zkml::Stage as Step;
                    progress.step(match stage {
                        Step::Commit => "witness commitment".to_owned(),
                        Step::Relations => "relations".to_owned(),
                        Step::Lookups => "lookups".to_owned(),
                        Step::Constraints => "constraints".to_owned(),
                        Step::Node(number, _) => format!("layer {} of {layers}", number + 1),
                        Step::WitnessOpening => "witness opening".to_owned(),
                        Step::WeightOpening => "weight opening".to_owned(),
                        _ => "checking".to_owned(),
                    });
                },
            );
            artefact
                .map(|artefact| artefact.encode())
                .map_err(|error: ArtefactError| Failure::Never(error.to_string()))
        });
        proving
            .await
            .unwrap_or_else(|panic| Err(Failure::Never(panic.to_string())))
    }
}
