//! Faults and what they cost: evidence that full nodes hold, reports, appeals and cases (docs/specs/staking.md §7).

use std::collections::BTreeMap;

use alloy_primitives::{Address, B256, Bytes, U64, U256};
use alloy_sol_types::{SolCall as _, SolEvent as _};
use opg_contracts::{NodeRegistry, Slashing, addresses, slashing};
use opg_primitives::{hash::sha256, money::Amount};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    Client, ClientError,
    chain::{Sent, amount},
    wallet::Wallet,
};

/// Blocks of one search for a case's evidence.
const LOG_RANGE: u64 = 1_000;
/// Most cases that are read at once, newest first.
pub const MAX_CASES: usize = 64;

/// A validator's fault that a full node has seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Epoch of the votes.
    pub epoch: u64,
    /// View of the votes.
    pub view: u64,
    /// 1: two notarize votes, 2: two finalize votes, 3: nullify and finalize, 4: a notarize vote for an invalid proof.
    pub kind: u8,
    /// Operator of the validator that signed.
    pub operator: Option<Address>,
    /// The votes, and what they were for.
    pub evidence: Bytes,
    /// SHA-256 of the invalid proof, of a vote for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artefact: Option<B256>,
}

/// What is reported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FaultReport {
    /// Class of the fault ([`opg_contracts::slashing`]).
    pub class: u8,
    /// Operator of a validator, left-padded, or id of a node.
    pub subject: B256,
    /// Epoch of a validator's fault; of no meaning for a node's.
    pub epoch: u64,
    /// What proves it.
    pub evidence: Bytes,
    /// The proof that the evidence is about, as long as that does not say where it is published.
    #[serde(skip)]
    pub artefact: Option<Bytes>,
}

impl FaultReport {
    /// A validator's equivocation.
    #[must_use]
    pub fn equivocation(operator: Address, epoch: u64, evidence: Bytes) -> Self {
        Self {
            class: slashing::EQUIVOCATION,
            subject: operator.into_word(),
            epoch,
            evidence,
            artefact: None,
        }
    }

    /// A node's answer that is not that of the program which its receipt names: the receipt's core, and a proof of the right answer
    /// (`ZkArtefact::refute`). `None` if the core is too long for evidence.
    #[must_use]
    pub fn wrong_answer(node: B256, core: &[u8], artefact: Bytes) -> Option<Self> {
        Some(Self {
            class: slashing::WRONG_INFERENCE,
            subject: node,
            epoch: 0,
            evidence: slashing::encode_proof_evidence(0, core)?.into(),
            artefact: Some(artefact),
        })
    }

    /// A validator's vote for a block with an invalid proof: `evidence` as full nodes hold it, and that proof.
    #[must_use]
    pub fn invalid_vote(operator: Address, epoch: u64, evidence: Bytes, artefact: Bytes) -> Self {
        Self {
            class: slashing::INVALID_VOTE,
            artefact: Some(artefact),
            ..Self::equivocation(operator, epoch, evidence)
        }
    }
}

/// What a full node finds about a report, before it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judgement {
    /// Whether the evidence proves the fault by the newest final state.
    pub proven: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Where a case stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CaseStatus {
    /// Awaits its verdict, which the next block has.
    Reported,
    /// Proven: frozen until the time for an appeal is over.
    Frozen,
    /// Awaits a second verdict.
    Appealed,
    /// Slashed and distributed.
    Executed,
    /// Ended without a slash.
    Dismissed,
}

impl CaseStatus {
    fn of(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Reported,
            2 => Self::Frozen,
            3 => Self::Appealed,
            4 => Self::Executed,
            5 => Self::Dismissed,
            _ => return None,
        })
    }
}

/// A slashing case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SlashingCase {
    /// Its number.
    pub id: u64,
    /// Class of the fault.
    pub class: u8,
    /// Where it stands.
    pub status: CaseStatus,
    /// Operator of a validator, left-padded, or id of a node.
    pub subject: B256,
    /// Epoch of the fault.
    pub epoch: u64,
    /// Unix seconds: end of the time for an appeal, or of the wait for a verdict.
    pub until: u64,
    /// Who reported it.
    pub challenger: Address,
    /// What the challenger put up; zero once it is given back or lost.
    pub bond: Amount,
    /// What the accused put up with its appeal.
    pub appeal_bond: Amount,
    /// Fee of the work that was wrong.
    pub fee: Amount,
    /// Who paid that; absent if nobody.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<Address>,
    /// Part of a validator's stake that it costs by what is known now, millionths; absent for a node's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_ppm: Option<u32>,
}

impl Client {
    /// Faults that the network's full nodes hold evidence of, oldest first, one of each validator and epoch. Nodes that do not answer are
    /// left out, as long as one does.
    ///
    /// # Errors
    /// If no full node answers.
    pub async fn faults(&self) -> Result<Vec<Fault>, ClientError> {
        let mut found = BTreeMap::new();
        let mut last = None;
        let mut answered = false;
        for index in 0..self.rpc().urls().len() {
            match self
                .rpc()
                .call_at::<_, Vec<Fault>>(index, "og_getFaults", &json!([]))
                .await
            {
                Ok(faults) => {
                    answered = true;
                    for fault in faults {
                        found.entry((fault.epoch, fault.operator)).or_insert(fault);
                    }
                }
                Err(error) => last = Some(error),
            }
        }
        match last {
            Some(error) if !answered => Err(error.into()),
            _ => Ok(found.into_values().collect()),
        }
    }

    /// What a full node would find about a report: a lost bond is cheaper not to put up.
    ///
    /// # Errors
    /// If no full node answers.
    pub async fn judge_fault(&self, report: &FaultReport) -> Result<Judgement, ClientError> {
        let asked = json!([
            report.class,
            report.subject,
            report.epoch,
            report.evidence,
            report.artefact
        ]);
        Ok(self.rpc().call("og_judgeFault", asked).await?)
    }

    /// What a report of a fault that full nodes hold says; asks them for the invalid proof of a vote for one.
    ///
    /// # Errors
    /// If no full node answers, or none holds the proof.
    pub async fn report_of(&self, operator: Address, fault: Fault) -> Result<FaultReport, ClientError> {
        let Some(hash) = fault.artefact else {
            return Ok(FaultReport::equivocation(operator, fault.epoch, fault.evidence));
        };
        for index in 0..self.rpc().urls().len() {
            let asked = json!([hash]);
            let held = self
                .rpc()
                .call_at::<_, Option<Bytes>>(index, "og_getFaultArtefact", &asked);
            if let Ok(Some(artefact)) = held.await
                && sha256(&artefact) == hash
            {
                let (epoch, evidence) = (fault.epoch, fault.evidence);
                return Ok(FaultReport::invalid_vote(operator, epoch, evidence, artefact));
            }
        }
        Err(ClientError::Proof {
            what: format!("no full node holds the proof {hash} that the validator voted for"),
        })
    }

    /// Publishes data in contracts that do nothing, one transaction for each 24,575 bytes that are not there yet. Their addresses, in order.
    ///
    /// # Errors
    /// If the wallet cannot pay the gas, or a minute passes.
    pub async fn publish(&self, wallet: &Wallet, data: &[u8]) -> Result<Vec<Address>, ClientError> {
        let mut parts = Vec::new();
        for part in data.chunks(slashing::MAX_PART) {
            // A chunk is never longer.
            let init_code = slashing::data_contract(part).unwrap_or_default();
            let address = slashing::data_address(&init_code);
            let code: Bytes = self.rpc().call("eth_getCode", (address, "latest")).await?;
            if code.is_empty() {
                let input = [B256::ZERO.as_slice(), &init_code].concat();
                self.call(wallet, addresses::CREATE2_DEPLOYER, input.into()).await?;
            }
            parts.push(address);
        }
        Ok(parts)
    }

    /// What whoever reports this has to put up.
    ///
    /// # Errors
    /// If no full node answers.
    pub async fn fault_bond(&self, report: &FaultReport) -> Result<Amount, ClientError> {
        let call = Slashing::bondForCall {
            class: report.class,
            subject: report.subject,
            epoch: report.epoch,
        };
        self.require_staking().await?;
        Ok(Amount(self.view(addresses::SLASHING, call).await?))
    }

    /// Reports a fault with a bond: first an approval for exactly that, if the one there is smaller, and the transactions that publish an
    /// invalid proof. Waits until it is final; returns the number of the case.
    ///
    /// # Errors
    /// If the wallet has too little OPG or gas, the contract takes no such report, or a minute passes.
    pub async fn report_fault(&self, wallet: &Wallet, report: &FaultReport) -> Result<(Sent, u64), ClientError> {
        let bond = self.fault_bond(report).await?;
        self.allow(wallet, addresses::SLASHING, bond).await?;
        let mut evidence = report.evidence.to_vec();
        if let Some(artefact) = &report.artefact {
            let parts = self.publish(wallet, artefact).await?;
            parts
                .iter()
                .for_each(|part| evidence.extend_from_slice(part.as_slice()));
        }
        let call = Slashing::reportCall {
            class: report.class,
            subject: report.subject,
            epoch: report.epoch,
            evidence: evidence.into(),
        };
        let sent = self.call(wallet, addresses::SLASHING, call.abi_encode().into()).await?;
        let id = self.opened(&sent, Slashing::Reported::SIGNATURE_HASH).await?;
        Ok((sent, id))
    }

    /// Brings a validator's downtime, which the chain has on record, before the contract. It takes no bond.
    ///
    /// # Errors
    /// If there is none on record, the wallet cannot pay the gas, or a minute passes.
    pub async fn report_downtime(&self, wallet: &Wallet, operator: Address) -> Result<(Sent, u64), ClientError> {
        let call = Slashing::reportDowntimeCall { operator };
        let sent = self.call(wallet, addresses::SLASHING, call.abi_encode().into()).await?;
        let id = self.opened(&sent, Slashing::Frozen::SIGNATURE_HASH).await?;
        Ok((sent, id))
    }

    /// One case; `None` if there is none with this number.
    ///
    /// # Errors
    /// If no full node answers.
    pub async fn slashing_case(&self, id: u64) -> Result<Option<SlashingCase>, ClientError> {
        self.require_staking().await?;
        let at = addresses::SLASHING;
        let count = self.view(at, Slashing::caseCountCall {}).await?;
        if U256::from(id) >= count {
            return Ok(None);
        }
        let number = U256::from(id);
        let found = self.view(at, Slashing::casesCall(number)).await?;
        let status = CaseStatus::of(found.status).ok_or_else(|| ClientError::Proof {
            what: format!("case {id} has the unknown status {}", found.status),
        })?;
        let rate_ppm = if found.class <= slashing::DOWNTIME {
            Some(self.view(at, Slashing::ratePpmCall { id: number }).await?)
        } else {
            None
        };
        Ok(Some(SlashingCase {
            id,
            class: found.class,
            status,
            subject: found.subject,
            epoch: found.epoch,
            until: found.until.to(),
            challenger: found.challenger,
            bond: Amount(found.bond),
            appeal_bond: Amount(found.appealBond),
            fee: Amount(found.fee),
            user: (found.user != Address::ZERO).then_some(found.user),
            rate_ppm,
        }))
    }

    /// The newest cases, oldest first, at most [`MAX_CASES`].
    ///
    /// # Errors
    /// If no full node answers.
    pub async fn slashing_cases(&self) -> Result<Vec<SlashingCase>, ClientError> {
        self.require_staking().await?;
        let count = self.view(addresses::SLASHING, Slashing::caseCountCall {}).await?;
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        let mut cases = Vec::new();
        for id in count.saturating_sub(MAX_CASES as u64)..count {
            cases.extend(self.slashing_case(id).await?);
        }
        Ok(cases)
    }

    /// Who may appeal against a case: the validator's operator, or that of the node.
    ///
    /// # Errors
    /// If no full node answers.
    pub async fn accused(&self, case: &SlashingCase) -> Result<Address, ClientError> {
        if case.class <= slashing::DOWNTIME {
            return Ok(Address::from_word(case.subject));
        }
        let call = NodeRegistry::operatorOfCall { nodeId: case.subject };
        self.view(addresses::NODE_REGISTRY, call).await
    }

    /// Asks for a second verdict on the same evidence, with a bond as large as the challenger's. Waits until it is final.
    ///
    /// # Errors
    /// If the wallet is not the accused's, has too little, or a minute passes.
    pub async fn appeal(&self, wallet: &Wallet, case: &SlashingCase) -> Result<Sent, ClientError> {
        let evidence = self.reported_evidence(case.id).await?;
        self.allow(wallet, addresses::SLASHING, case.bond).await?;
        let call = Slashing::appealCall {
            id: U256::from(case.id),
            evidence,
        };
        self.call(wallet, addresses::SLASHING, call.abi_encode().into()).await
    }

    /// Slashes and distributes, once the time for an appeal is over. Anyone may.
    ///
    /// # Errors
    /// If it is not over, the wallet cannot pay the gas, or a minute passes.
    pub async fn execute_case(&self, wallet: &Wallet, id: u64) -> Result<Sent, ClientError> {
        let call = Slashing::executeCall { id: U256::from(id) };
        self.call(wallet, addresses::SLASHING, call.abi_encode().into()).await
    }

    /// Ends a case whose verdict did not come in time; everybody has their bonds back. Anyone may.
    ///
    /// # Errors
    /// If its time is not over, the wallet cannot pay the gas, or a minute passes.
    pub async fn expire_case(&self, wallet: &Wallet, id: u64) -> Result<Sent, ClientError> {
        let call = Slashing::expireCall { id: U256::from(id) };
        self.call(wallet, addresses::SLASHING, call.abi_encode().into()).await
    }

    /// What an account has been credited by cases.
    ///
    /// # Errors
    /// If no full node answers.
    pub async fn slashing_credit(&self, account: Address) -> Result<Amount, ClientError> {
        self.require_staking().await?;
        amount(
            self.view(addresses::SLASHING, Slashing::creditsCall { account })
                .await?,
        )
    }

    /// Pays the wallet what it has been credited by cases.
    ///
    /// # Errors
    /// If the wallet cannot pay the gas, or a minute passes.
    pub async fn withdraw_slashing_credit(&self, wallet: &Wallet) -> Result<Sent, ClientError> {
        let call = Slashing::withdrawCall {};
        self.call(wallet, addresses::SLASHING, call.abi_encode().into()).await
    }

    /// Number of the case that a transaction opened, from its event.
    async fn opened(&self, sent: &Sent, event: B256) -> Result<u64, ClientError> {
        #[derive(Deserialize)]
        struct Logs {
            logs: Vec<Log>,
        }
        let receipt: Logs = self.rpc().call("eth_getTransactionReceipt", (sent.hash,)).await?;
        let mut own = receipt.logs.iter().filter(|log| log.address == addresses::SLASHING);
        let id = own
            .find(|log| log.topics.first() == Some(&event))
            .and_then(|log| log.topics.get(1));
        let id = id.and_then(|id| u64::try_from(U256::from_be_bytes(id.0)).ok());
        id.ok_or_else(|| ClientError::Proof {
            what: format!("transaction {} opened no case", sent.hash),
        })
    }

    /// The evidence that a case was reported with; the state keeps its hash only, the contract checks it.
    async fn reported_evidence(&self, id: u64) -> Result<Bytes, ClientError> {
        let topics = json!([Slashing::Reported::SIGNATURE_HASH, B256::from(U256::from(id))]);
        let mut to = self.height().await?;
        loop {
            let from = to.saturating_sub(LOG_RANGE - 1);
            let filter = json!([{
                "address": addresses::SLASHING, "topics": topics, "fromBlock": U64::from(from), "toBlock": U64::from(to),
            }]);
            let logs: Vec<Log> = self.rpc().call("eth_getLogs", filter).await?;
            if let Some(log) = logs.first() {
                let decoded = Slashing::Reported::decode_raw_log(log.topics.iter().copied(), &log.data);
                let reported = decoded.map_err(|error| ClientError::Proof {
                    what: format!("event of case {id}: {error}"),
                })?;
                return Ok(reported.evidence);
            }
            to = from.checked_sub(1).ok_or_else(|| ClientError::Proof {
                what: format!("the evidence of case {id} is in no block"),
            })?;
        }
    }
}

#[derive(Deserialize)]
struct Log {
    address: Address,
    topics: Vec<B256>,
    data: Bytes,
}
