//! Attestation evidence: what the submissions of a block are worth, as a system transaction of the next (ledger.md §12).
//!
//! The verdicts are a pure function of the block with the submissions and of the state after it (D13). They are made once,
//! as soon as somebody needs them, and kept for the branches that build on the block.

use crate::shared::Shared;
use alloy_primitives::B256;
use alloy_sol_types::SolEvent as _;
use opg_contracts::{
    EvidenceRegistry::{self, EvidenceSubmitted},
    GenesisFile, addresses,
    evidence::{self, Verdict},
};
use opg_evidence::{
    Policy, Reject,
    binding::{Binding, attestation_nonce},
    registration::{self, Registered, Submission},
};
use opg_execution::ExecutionError;
use opg_primitives::ids::{NodeId, deposit_address};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// Blocks whose verdicts are kept: more than can be undecided at once.
const KEPT: usize = 64;

/// What a network's evidence is judged by, and the verdicts of the last blocks.
#[derive(Debug)]
pub(crate) struct Judge {
    chain_id: u64,
    rules: registration::Rules,
    kept: Mutex<VecDeque<(B256, Arc<Vec<Verdict>>)>>,
}

impl Judge {
    pub(crate) fn new(genesis: &GenesisFile) -> Self {
        Self {
            chain_id: genesis.chain_id,
            rules: registration::Rules::new(genesis.development, genesis.development_roots()),
            kept: Mutex::default(),
        }
    }

    /// The verdicts on the submissions of an executed block.
    ///
    /// # Errors
    /// The block or its state is not there.
    pub(crate) async fn verdicts(&self, node: &Arc<Shared>, block: B256) -> Result<Arc<Vec<Verdict>>, ExecutionError> {
        let known = |kept: &VecDeque<(B256, Arc<Vec<Verdict>>)>| {
            let found = kept.iter().find(|(hash, _)| *hash == block);
            found.map(|(_, verdicts)| verdicts.clone())
        };
        if let Some(verdicts) = known(&self.kept.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(verdicts);
        }
        let mut submissions = Vec::new();
        for receipt in node.execution.receipts(block).await? {
            let own = receipt
                .logs
                .iter()
                .filter(|log| receipt.success && log.address == addresses::EVIDENCE_REGISTRY);
            submissions.extend(own.filter_map(|log| {
                let topics = log.topics.iter().copied();
                EvidenceSubmitted::decode_raw_log(topics, &log.data).ok()
            }));
        }
        let verdicts = if submissions.is_empty() {
            Vec::new()
        } else {
            let at = node.execution.timestamp(block).await?;
            let shared = node.clone();
            let judged = move || -> Result<Vec<Verdict>, ExecutionError> {
                let state = shared.execution.state_at(block)?;
                let epoch = evidence::policy_epoch(&state)?.number;
                let policy: Option<Policy> = serde_json::from_slice(&evidence::policy(&state)?).ok();
                let judge = &shared.evidence;
                let rules = registration::Rules {
                    policy,
                    ..judge.rules.clone()
                };
                let mut verdicts = Vec::with_capacity(submissions.len());
                for submission in &submissions {
                    let mut found = judge.examine(submission, &rules, at);
                    // What is revoked once stays so, whatever the policy says.
                    if let Ok(registered) = &found {
                        if evidence::revoked_at(&state, registered.measurement.into())?.is_some() {
                            found = Err(Reject::Measurement);
                        } else if evidence::revoked_at(&state, registered.signer.into())?.is_some() {
                            found = Err(Reject::SignerRevoked);
                        }
                    }
                    verdicts.push(verdict(submission, found, epoch, at));
                }
                Ok(verdicts)
            };
            tokio::task::spawn_blocking(judged)
                .await
                .map_err(|panic| ExecutionError::Client(panic.to_string()))??
        };
        let verdicts = Arc::new(verdicts);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if known(&kept).is_none() {
            kept.push_back((block, verdicts.clone()));
            if kept.len() > KEPT {
                kept.pop_front();
            }
        }
        Ok(verdicts)
    }

    fn examine(
        &self,
        submitted: &EvidenceSubmitted,
        rules: &registration::Rules,
        at: u64,
    ) -> Result<Registered, Reject> {
        let node_id = submitted.nodeId;
        let payment = deposit_address(addresses::FEE_VAULT, addresses::DEPOSIT_IMPLEMENTATION, NodeId(node_id));
        let binding = Binding {
            keyset: submitted.keyset.0,
            nonce: attestation_nonce(&submitted.nonceHash.0, &node_id.0, submitted.epoch.to::<u64>()),
            chain_id: self.chain_id,
            registry: addresses::NODE_REGISTRY.into_array(),
            operator: submitted.operator.into_array(),
            payment: payment.into_array(),
            endpoint: submitted.endpoint.clone(),
            role: submitted.role.clone(),
            config: submitted.config.0,
        };
        let submission = Submission {
            kind: submitted.kind,
            binding: &binding,
            document: &submitted.document,
            collateral: &submitted.collateral,
        };
        registration::judge(&submission, rules, at)
    }
}

/// What `record` takes.
fn verdict(submitted: &EvidenceSubmitted, found: Result<Registered, Reject>, epoch: u64, at: u64) -> Verdict {
    let seconds = |value: u64| alloy_primitives::Uint::<40, 1>::saturating_from(value);
    let record = |registered: Option<&Registered>| EvidenceRegistry::Evidence {
        nodeId: submitted.nodeId,
        keyset: submitted.keyset,
        measurement: registered.map_or(B256::ZERO, |found| found.measurement.into()),
        signer: registered.map_or(B256::ZERO, |found| found.signer.into()),
        registeredAt: seconds(at),
        expiresAt: seconds(registered.map_or(0, |found| found.expires_at)),
        epoch: seconds(epoch),
        kind: submitted.kind,
        grade: registered.map_or(0, |found| found.grade.code()),
    };
    match found {
        Ok(registered) => Verdict {
            evidenceId: registered.claims.evidence_id.0.into(),
            code: 0,
            evidence: record(Some(&registered)),
        },
        Err(reject) => {
            tracing::info!(keyset = %submitted.keyset, code = reject.code(), %reject, "evidence refused");
            Verdict {
                evidenceId: B256::ZERO,
                code: reject.code(),
                evidence: record(None),
            }
        }
    }
}
