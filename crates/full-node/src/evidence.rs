//! Attestation evidence: what the submissions of a block are worth, as a system transaction of the next (ledger.md §12).
//!
//! The findings are a pure function of the block with the submissions and of the state after it (D13). They are made once,
//! as soon as somebody needs them, and kept for the branches that build on the block.

use crate::shared::Shared;
use alloy_primitives::B256;
use alloy_sol_types::SolEvent as _;
use opg_contracts::{
    EvidenceRegistry::{self, CollateralSubmitted, EvidenceSubmitted},
    GenesisFile, addresses,
    evidence::{self, Findings, Verdict, Version},
};
use opg_evidence::{
    Policy, Reject,
    binding::{Binding, attestation_nonce},
    registration::{self, Memory, Registered, Submission},
    versions::{CollateralVersion, Newest},
};
use opg_execution::ExecutionError;
use opg_primitives::ids::{NodeId, deposit_address};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

/// Blocks whose verdicts are kept: more than can be undecided at once.
const KEPT: usize = 64;

/// What a network's evidence is judged by, and the findings of the last blocks.
#[derive(Debug)]
pub(crate) struct Judge {
    chain_id: u64,
    rules: registration::Rules,
    /// Signatures of vendors that were verified before. Says nothing that a judgement without it would not.
    memory: Mutex<Memory>,
    kept: Mutex<VecDeque<(B256, Arc<Findings>)>>,
}

/// Something that a block hands in.
enum Event {
    Evidence(Box<EvidenceSubmitted>),
    Collateral(CollateralSubmitted),
}

impl Judge {
    pub(crate) fn new(genesis: &GenesisFile) -> Self {
        Self {
            chain_id: genesis.chain_id,
            rules: registration::Rules::new(genesis.development, genesis.development_roots()),
            memory: Mutex::default(),
            kept: Mutex::default(),
        }
    }

    /// The findings about the submissions of an executed block.
    ///
    /// # Errors
    /// The block or its state is not there.
    pub(crate) async fn findings(&self, node: &Arc<Shared>, block: B256) -> Result<Arc<Findings>, ExecutionError> {
        let known = |kept: &VecDeque<(B256, Arc<Findings>)>| {
            let found = kept.iter().find(|(hash, _)| *hash == block);
            found.map(|(_, findings)| findings.clone())
        };
        if let Some(findings) = known(&self.kept.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(findings);
        }
        let mut events = Vec::new();
        for receipt in node.execution.receipts(block).await? {
            let own = receipt
                .logs
                .iter()
                .filter(|log| receipt.success && log.address == addresses::EVIDENCE_REGISTRY);
            events.extend(own.filter_map(|log| {
                let topics = || log.topics.iter().copied();
                let evidence = EvidenceSubmitted::decode_raw_log(topics(), &log.data);
                evidence.map(|event| Event::Evidence(Box::new(event))).ok().or_else(|| {
                    let collateral = CollateralSubmitted::decode_raw_log(topics(), &log.data);
                    collateral.map(Event::Collateral).ok()
                })
            }));
        }
        let findings = if events.is_empty() {
            Findings::default()
        } else {
            let at = node.execution.timestamp(block).await?;
            let shared = node.clone();
            let judged = move || shared.evidence.judge(&shared, block, &events, at);
            tokio::task::spawn_blocking(judged)
                .await
                .map_err(|panic| ExecutionError::Client(panic.to_string()))??
        };
        let findings = Arc::new(findings);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if known(&kept).is_none() {
            kept.push_back((block, findings.clone()));
            if kept.len() > KEPT {
                kept.pop_front();
            }
        }
        Ok(findings)
    }

    fn judge(&self, node: &Shared, block: B256, events: &[Event], at: u64) -> Result<Findings, ExecutionError> {
        let state = node.execution.state_at(block)?;
        let epoch = evidence::policy_epoch(&state)?.number;
        let policy: Option<Policy> = serde_json::from_slice(&evidence::policy(&state)?).ok();
        let rules = registration::Rules {
            policy,
            ..self.rules.clone()
        };
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let known = |version: &CollateralVersion| -> Result<Newest, ExecutionError> {
            let (number, issued_at) = evidence::newest(&state, version.subject.into())?;
            Ok(Newest { number, issued_at })
        };
        let mut findings = Findings::default();
        // What the chain has after the events so far. All of them are judged by what it had before the block's findings.
        let mut raised: HashMap<[u8; 32], Newest> = HashMap::new();
        for event in events {
            let versions = match event {
                Event::Evidence(submission) => {
                    let mut found = self.examine(submission, &rules, &mut memory, at);
                    if let Ok(registered) = &found {
                        // What is revoked once stays so, whatever the policy says.
                        if evidence::revoked_at(&state, registered.measurement.into())?.is_some() {
                            found = Err(Reject::Measurement);
                        } else if evidence::revoked_at(&state, registered.signer.into())?.is_some() {
                            found = Err(Reject::SignerRevoked);
                        } else {
                            for version in &registered.versions {
                                if version.is_older_than(&known(version)?) {
                                    found = Err(Reject::CollateralRolledBack);
                                    break;
                                }
                            }
                        }
                    }
                    let versions = found.as_ref().map_or_else(|_| Vec::new(), |good| good.versions.clone());
                    findings.verdicts.push(verdict(submission, found, epoch, at));
                    versions
                }
                Event::Collateral(CollateralSubmitted { kind, collateral }) => {
                    let found = registration::judge_collateral(*kind, collateral, &rules, at);
                    found.unwrap_or_else(|reject| {
                        tracing::info!(kind, code = reject.code(), %reject, "collateral refused");
                        Vec::new()
                    })
                }
            };
            for version in versions {
                let newest = match raised.entry(version.subject) {
                    std::collections::hash_map::Entry::Occupied(entry) => entry.into_mut(),
                    std::collections::hash_map::Entry::Vacant(entry) => entry.insert(known(&version)?),
                };
                if newest.raise(&version) {
                    findings.versions.push(Version {
                        subject: version.subject.into(),
                        number: version.number,
                        issuedAt: alloy_primitives::Uint::saturating_from(version.issued_at),
                    });
                }
            }
        }
        *self.memory.lock().unwrap_or_else(PoisonError::into_inner) = memory;
        Ok(findings)
    }

    fn examine(
        &self,
        submitted: &EvidenceSubmitted,
        rules: &registration::Rules,
        memory: &mut Memory,
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
        registration::judge(&submission, rules, memory, at)
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
