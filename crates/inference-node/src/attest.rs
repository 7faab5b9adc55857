//! Attestation: fresh evidence of the keyset on chain before the old counts no more.
//!
//! The document is made here; what it is worth is the validators' verdict, read back from the chain. Answers of mode tee
//! are given only while the chain has accepted evidence of this keyset.

use crate::{
    chain::Chain,
    config::{AttestationConfig, SoftwareFormatName},
    metrics::Metrics,
    rpc::{RpcError, quantity},
    settle::{Fate, Relayed},
};
use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolCall as _;
use opg_attester::{AttestError, Attester, Paths, SoftwareAttester, SoftwareFormat};
use opg_contracts::{EvidenceRegistry, addresses};
use opg_evidence::{
    Reject,
    binding::{Binding, attestation_nonce},
    registration::encode_collateral,
};
use opg_primitives::{
    ids::{KeysetDigest, NodeId, deposit_address},
    mode::Grade,
};
use serde_json::json;
use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// What the node is, in its binding statement.
const ROLE: &str = "inference";
/// Gas of a submission: calldata and event of the largest one.
const GAS: u64 = 4_000_000;
/// How often the chain is asked for a verdict, and for how long.
const POLL: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(30);
/// Pauses after submissions that led to nothing, from the first to the longest.
const RETRY: Duration = Duration::from_secs(30);
const MAX_RETRY: Duration = Duration::from_secs(600);
/// How often the chain is asked whether the evidence still counts.
const LOOK: Duration = Duration::from_secs(5);
/// Receipts reach a block some seconds after they are signed: evidence is not used for new work in its last seconds.
const MARGIN: u64 = 60;

/// Evidence that the chain has accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Attested {
    pub(crate) evidence_id: B256,
    pub(crate) policy_epoch: u64,
    pub(crate) grade: Grade,
    /// Last second at which a receipt may refer to it.
    pub(crate) until: u64,
}

/// The newest accepted evidence; empty without an attester.
#[derive(Debug, Default)]
pub(crate) struct Attestation(RwLock<Option<Attested>>);

impl Attestation {
    /// What answers of mode tee refer to at `now` (Unix seconds); `None` if there is nothing that lasts long enough.
    pub(crate) fn current(&self, now: u64) -> Option<Attested> {
        let current = *self.0.read().unwrap_or_else(PoisonError::into_inner);
        current.filter(|attested| now.saturating_add(MARGIN) <= attested.until)
    }

    fn set(&self, attested: Option<Attested>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = attested;
    }
}

/// Why there is no fresh evidence.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttestationError {
    #[error(transparent)]
    Attester(#[from] AttestError),
    #[error("evidence: {0}")]
    Evidence(#[from] Reject),
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error("the chain has no evidence policy: its genesis file or the policy's owner has to set one")]
    NoPolicy,
    #[error("the submission was not included or reverted")]
    NotIncluded,
    #[error("validators did not accept the evidence; the reason stands in the event EvidenceRefused of {registry}")]
    Refused { registry: Address },
    #[error("the attester ended: {0}")]
    Ended(String),
}

/// Opens the attester that a configuration names. Never another one.
///
/// # Errors
/// [`AttestError`].
pub(crate) fn open(config: &AttestationConfig) -> Result<Box<dyn Attester>, AttestError> {
    let software = config
        .software
        .as_ref()
        .map(|software| {
            let format = match software.format {
                SoftwareFormatName::Nitro => SoftwareFormat::Nitro,
                SoftwareFormatName::Tdx => SoftwareFormat::Tdx,
                SoftwareFormatName::Snp => SoftwareFormat::Snp,
            };
            SoftwareAttester::new(format, software.seed.0)
        })
        .transpose()?;
    opg_attester::open(config.attester.0, &Paths::default(), software)
}

/// The task that keeps evidence fresh.
pub(crate) struct Keeper {
    pub(crate) attester: Arc<dyn Attester>,
    pub(crate) chain: Chain,
    pub(crate) chain_id: u64,
    pub(crate) node_id: NodeId,
    pub(crate) keyset: KeysetDigest,
    pub(crate) operator: Address,
    /// Digest of the configuration.
    pub(crate) config: B256,
    pub(crate) state: Arc<Attestation>,
    pub(crate) relay: mpsc::Sender<Relayed>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Keeper {
    /// Runs until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut retry = RETRY;
        loop {
            let pause = match self.round().await {
                Ok(pause) => {
                    retry = RETRY;
                    pause
                }
                Err(error) => {
                    self.metrics.attestation("failed");
                    tracing::warn!(%error, "no fresh evidence; mode tee is served while the old one lasts");
                    let pause = retry;
                    retry = (retry * 2).min(MAX_RETRY);
                    pause
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Reads what the chain has, and attests if half of its time is over. Returns when to look again.
    async fn round(&self) -> Result<Duration, AttestationError> {
        let now = self.head().await?.2;
        if let Some(pause) = self.read(now).await? {
            return Ok(pause);
        }
        self.submit().await?;
        let began = tokio::time::Instant::now();
        while began.elapsed() < PATIENCE {
            tokio::time::sleep(POLL).await;
            if let Some(pause) = self.read(self.head().await?.2).await? {
                self.metrics.attestation("accepted");
                if let Some(attested) = self.state.current(0) {
                    tracing::info!(evidence = %attested.evidence_id, grade = %attested.grade, until = attested.until, "keyset attested");
                }
                return Ok(pause);
            }
        }
        Err(AttestationError::Refused {
            registry: addresses::EVIDENCE_REGISTRY,
        })
    }

    /// Takes over what the chain has accepted. `None` if new evidence is due.
    async fn read(&self, now: u64) -> Result<Option<Duration>, RpcError> {
        let Some((evidence_id, record, until)) = self.chain.evidence(self.keyset.0).await? else {
            self.state.set(None);
            return Ok(None);
        };
        let grade = Grade::from_code(u64::from(record.grade)).unwrap_or(Grade::None);
        self.state.set(until.map(|until| Attested {
            evidence_id,
            policy_epoch: record.epoch,
            grade,
            until,
        }));
        let half = record.registered_at.saturating_add(record.expires_at) / 2;
        let due = until.map_or(0, |until| half.min(until.saturating_sub(2 * MARGIN)));
        Ok((due > now).then(|| Duration::from_secs(due - now).min(LOOK)))
    }

    /// Makes a document over the newest block and submits it.
    async fn submit(&self) -> Result<(), AttestationError> {
        let epoch = self.chain.policy_epoch().await?.number;
        if epoch == 0 {
            return Err(AttestationError::NoPolicy);
        }
        let (number, hash, now) = self.head().await?;
        let endpoint = self.chain.endpoint(self.node_id.0).await?;
        let payment = deposit_address(addresses::FEE_VAULT, addresses::DEPOSIT_IMPLEMENTATION, self.node_id);
        let binding = Binding {
            keyset: self.keyset.0.0,
            nonce: attestation_nonce(&hash.0, &self.node_id.0.0, epoch),
            chain_id: self.chain_id,
            registry: addresses::NODE_REGISTRY.into_array(),
            operator: self.operator.into_array(),
            payment: payment.into_array(),
            endpoint,
            role: ROLE.to_owned(),
            config: self.config.0,
        };
        let bound = binding.digest()?;
        let attester = Arc::clone(&self.attester);
        let made = tokio::task::spawn_blocking(move || attester.attest(&bound, now))
            .await
            .map_err(|panic| AttestationError::Ended(panic.to_string()))??;
        let data = EvidenceRegistry::submitCall {
            keyset: self.keyset.0,
            kind: made.kind.code(),
            nonceBlock: U256::from(number),
            role: ROLE.to_owned(),
            config: self.config,
            document: made.document.into(),
            collateral: encode_collateral(&made.beside)?.into(),
        }
        .abi_encode();
        let (reply, included) = oneshot::channel();
        let relayed = Relayed {
            to: addresses::EVIDENCE_REGISTRY,
            data,
            gas: GAS,
            record: None,
            reply,
        };
        if self.relay.send(relayed).await.is_err() {
            return Err(AttestationError::NotIncluded);
        }
        match included.await.map(Fate::succeeded) {
            Ok(true) => Ok(()),
            _ => Err(AttestationError::NotIncluded),
        }
    }

    /// Number, hash and timestamp of the newest block: the chain's clock dates documents, not this machine's.
    async fn head(&self) -> Result<(u64, B256, u64), RpcError> {
        const METHOD: &str = "eth_getBlockByNumber";
        let block = self.chain.rpc().call(METHOD, json!(["latest", false])).await?;
        let hash = block["hash"].as_str().and_then(|hash| hash.parse().ok());
        let hash = hash.ok_or_else(|| RpcError::unexpected(METHOD, &block["hash"]))?;
        Ok((
            quantity(METHOD, &block["number"])?,
            hash,
            quantity(METHOD, &block["timestamp"])?,
        ))
    }
}
