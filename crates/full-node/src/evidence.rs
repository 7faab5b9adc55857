//! What a block asks the next one to judge: attestation evidence that was submitted (ledger.md §12), and evidence of faults that was
//! reported (staking.md §7). The verdicts are system transactions of the next block.
//!
//! They are a pure function of the block with the submissions and reports and of the state after it (D13). They are made once,
//! as soon as somebody needs them, and kept for the branches that build on the block.

use crate::{
    shared::Shared,
    slashing::{self, Report},
};
use alloy_primitives::B256;
use alloy_sol_types::SolEvent as _;
use opg_contracts::{
    EvidenceRegistry::{self, CollateralSubmitted, EvidenceSubmitted},
    GenesisFile, Slashing, addresses,
    evidence::{self, Findings, Verdict, Version},
    staking::MAX_VERDICTS,
};
use opg_evidence::{
    Policy, Reject,
    binding::{Binding, attestation_nonce},
    registration::{self, Memory, Registered, Submission},
    versions::{CollateralVersion, Newest},
};
use opg_execution::{ExecutionError, Log, StateView};
use opg_primitives::ids::{NodeId, deposit_address};
use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
};

/// Blocks whose verdicts are kept: more than can be undecided at once.
const KEPT: usize = 64;

/// The verdicts that the block above has to record.
#[derive(Debug, Default)]
pub(crate) struct Judged {
    /// On submissions, in order, and what they brought that is newer.
    pub(crate) evidence: Findings,
    /// On reports and appeals, in order.
    pub(crate) faults: Vec<Slashing::Verdict>,
}

/// What a network's evidence is judged by, and the verdicts of the last blocks.
#[derive(Debug)]
pub(crate) struct Judge {
    network: slashing::Network,
    rules: registration::Rules,
    /// Signatures of vendors that were verified before. Says nothing that a judgement without it would not.
    memory: Mutex<Memory>,
    kept: Mutex<VecDeque<(B256, Arc<Judged>)>>,
}

/// Something that a block hands in.
enum Event {
    Evidence(Box<EvidenceSubmitted>),
    Collateral(CollateralSubmitted),
}

impl Event {
    fn of(log: &Log) -> Option<Self> {
        let topics = || log.topics.iter().copied();
        if log.address != addresses::EVIDENCE_REGISTRY {
            return None;
        }
        if let Ok(event) = EvidenceSubmitted::decode_raw_log(topics(), &log.data) {
            return Some(Self::Evidence(Box::new(event)));
        }
        CollateralSubmitted::decode_raw_log(topics(), &log.data)
            .map(Self::Collateral)
            .ok()
    }
}

impl Judge {
    pub(crate) fn new(genesis: &GenesisFile) -> Self {
        Self {
            network: slashing::Network {
                genesis_digest: genesis.digest(),
                chain_id: genesis.chain_id,
            },
            rules: registration::Rules::new(genesis.development, genesis.development_roots()),
            memory: Mutex::default(),
            kept: Mutex::default(),
        }
    }

    /// The network whose faults are judged.
    pub(crate) const fn network(&self) -> &slashing::Network {
        &self.network
    }

    /// The verdicts on what an executed block asks.
    ///
    /// # Errors
    /// The block or its state is not there.
    pub(crate) async fn judged(&self, node: &Arc<Shared>, block: B256) -> Result<Arc<Judged>, ExecutionError> {
        let known = |kept: &VecDeque<(B256, Arc<Judged>)>| {
            let found = kept.iter().find(|(hash, _)| *hash == block);
            found.map(|(_, judged)| judged.clone())
        };
        if let Some(judged) = known(&self.kept.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(judged);
        }
        let mut submissions = Vec::new();
        let mut reports = Vec::new();
        for receipt in node.execution.receipts(block).await? {
            for log in receipt.logs.iter().filter(|_| receipt.success) {
                submissions.extend(Event::of(log));
                reports.extend(Report::of(log));
            }
        }
        // The contract takes no more; what it let through beyond that would not fit the gas of the system transaction.
        reports.truncate(MAX_VERDICTS);
        let judged = if submissions.is_empty() && reports.is_empty() {
            Judged::default()
        } else {
            let at = node.execution.timestamp(block).await?;
            let shared = node.clone();
            tokio::task::spawn_blocking(move || shared.evidence.judge(&shared, block, at, &submissions, &reports))
                .await
                .map_err(|panic| ExecutionError::Client(panic.to_string()))??
        };
        let judged = Arc::new(judged);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if known(&kept).is_none() {
            kept.push_back((block, judged.clone()));
            if kept.len() > KEPT {
                kept.pop_front();
            }
        }
        Ok(judged)
    }

    /// By the state after `block`, whose timestamp is `at`.
    fn judge(
        &self,
        node: &Shared,
        block: B256,
        at: u64,
        submissions: &[Event],
        reports: &[Report],
    ) -> Result<Judged, ExecutionError> {
        let state = node.execution.state_at(block)?;
        let mut judged = Judged::default();
        if !submissions.is_empty() {
            judged.evidence = self.attested(&state, submissions, at)?;
        }
        for report in reports {
            let found = slashing::judge(&state, &self.network, report)?;
            match &found {
                Ok(proven) => {
                    tracing::warn!(case = %report.id, class = report.class, subject = %report.subject, fault = %proven.fault, "fault proven")
                }
                Err(reason) => {
                    tracing::info!(case = %report.id, class = report.class, subject = %report.subject, %reason, "fault not proven")
                }
            }
            judged.faults.push(slashing::verdict(report, &found));
        }
        Ok(judged)
    }

    /// What submitted evidence and collateral are worth.
    fn attested(&self, state: &StateView, submissions: &[Event], at: u64) -> Result<Findings, ExecutionError> {
        let epoch = evidence::policy_epoch(state)?.number;
        let policy: Option<Policy> = serde_json::from_slice(&evidence::policy(state)?).ok();
        let rules = registration::Rules {
            policy,
            ..self.rules.clone()
        };
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let known = |version: &CollateralVersion| -> Result<Newest, ExecutionError> {
            let (number, issued_at) = evidence::newest(state, version.subject.into())?;
            Ok(Newest { number, issued_at })
        };
        let mut findings = Findings::default();
        // What the chain has after the events so far. All of them are judged by what it had before the block's findings.
        let mut raised: HashMap<[u8; 32], Newest> = HashMap::new();
        for event in submissions {
            let versions = match event {
                Event::Evidence(submission) => {
                    let mut found = self.examine(submission, &rules, &mut memory, at);
                    if let Ok(registered) = &found {
                        // What is revoked once stays so, whatever the policy says.
                        if evidence::revoked_at(state, registered.measurement.into())?.is_some() {
                            found = Err(Reject::Measurement);
                        } else if evidence::revoked_at(state, registered.signer.into())?.is_some() {
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
                    Entry::Occupied(entry) => entry.into_mut(),
                    Entry::Vacant(entry) => entry.insert(known(&version)?),
                };
                if newest.raise(&version) {
                    let raised = Version {
                        subject: version.subject.into(),
                        number: version.number,
                        issuedAt: alloy_primitives::Uint::saturating_from(version.issued_at),
                    };
                    // One entry a part, however often a block raises it: the transaction's gas is bounded by the parts (`MAX_VERSIONS`).
                    match findings
                        .versions
                        .iter_mut()
                        .find(|known| known.subject == raised.subject)
                    {
                        Some(known) => *known = raised,
                        None => findings.versions.push(raised),
                    }
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
            chain_id: self.network.chain_id,
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
