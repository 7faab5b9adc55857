//! `og_*` methods about faults: what this node has seen, and what evidence is worth (staking.md §7).

use super::{
    Front,
    message::{LIMIT, Params, RpcError, number},
};
use alloy_primitives::{Address, B256, Bytes, U256};
use opg_artefact::MAX_ARTEFACT_BYTES;
use opg_consensus::FaultKind;
use opg_contracts::{seats, slashing::MAX_EVIDENCE};
use serde_json::{Value, json};

use crate::{
    index::KeptFault,
    slashing::{self, Report},
};

/// Faults of one `og_getFaults`.
const MAX_FAULTS: usize = 64;

impl Front {
    /// `og_getFaults()`: evidence of validators' faults that this node has seen, one of each seat and epoch, newest first, at most 64.
    pub(super) async fn get_faults(&self, p: &Params<'_>) -> Result<Value, RpcError> {
        p.at_most(0)?;
        let node = self.node.clone();
        let found = super::og::blocking(move || {
            let faults = node.index.faults(MAX_FAULTS).map_err(|e| e.to_string())?;
            let state = node.execution.state_at(node.execution.head().hash);
            let state = state.map_err(|e| e.to_string())?;
            let mut known: Option<(u64, Vec<seats::Seat>)> = None;
            let mut list = Vec::with_capacity(faults.len());
            for fault in faults {
                let set = match known.take() {
                    Some((epoch, set)) if epoch == fault.epoch => set,
                    _ => {
                        let mut set = seats::read_seats(&state, fault.epoch).map_err(|e| e.to_string())?;
                        set.sort_unstable_by_key(|seat| seat.identity);
                        set
                    }
                };
                let seat = set.get(fault.seat as usize);
                list.push(shown(&fault, seat.map(|seat| seat.operator)));
                known = Some((fault.epoch, set));
            }
            Ok::<_, String>(list)
        });
        Ok(Value::Array(found.await?))
    }

    /// `og_judgeFault(class, subject, epoch, evidence, artefact?)`: what this node would find about a report of it, by the newest final
    /// state. A proof that is given need not be published.
    pub(super) async fn judge_fault(&self, p: &Params<'_>) -> Result<Value, RpcError> {
        p.at_most(5)?;
        let class = p.get(0).and_then(number).and_then(|class| u8::try_from(class).ok());
        let class = class.ok_or_else(|| RpcError::field("class", "the number of a class", "something else"))?;
        let epoch = p.get(2).and_then(number);
        let report = Report {
            id: U256::ZERO,
            class,
            subject: B256::from(p.fixed::<32>(1, "subject")?),
            epoch: epoch.ok_or_else(|| RpcError::field("epoch", "the number of an epoch", "something else"))?,
            evidence: p.bytes(3, "evidence", MAX_EVIDENCE)?.into(),
        };
        let artefact = match p.get(4).is_some_and(|value| !value.is_null()) {
            true => Some(p.bytes(4, "artefact", MAX_ARTEFACT_BYTES)?),
            false => None,
        };
        // Verifying a proof takes tens of milliseconds: few at a time, whoever asks.
        let Ok(_turn) = self.node.judging.try_acquire() else {
            return Err(RpcError::new(
                LIMIT,
                "the node is busy judging other reports; try again",
            ));
        };
        let node = self.node.clone();
        let found = super::og::blocking(move || {
            let state = node.execution.state_at(node.execution.head().hash)?;
            slashing::judge_with(&state, node.evidence.network(), &report, artefact.as_deref())
        });
        Ok(match found.await? {
            Ok(proven) => json!({
                "proven": true, "fault": proven.fault, "fee": proven.fee.to_string(), "user": proven.user,
            }),
            Err(reason) => json!({ "proven": false, "reason": reason.to_string() }),
        })
    }

    /// `og_getFaultArtefact(hash)`: an invalid proof that a validator voted for, by its SHA-256; null if this node does not hold it.
    pub(super) async fn get_fault_artefact(&self, p: &Params<'_>) -> Result<Value, RpcError> {
        p.at_most(1)?;
        let hash = B256::from(p.fixed::<32>(0, "hash")?);
        let node = self.node.clone();
        let found = super::og::blocking(move || node.index.fault_artefact(hash));
        Ok(json!(found.await?))
    }
}

fn shown(fault: &KeptFault, operator: Option<Address>) -> Value {
    let evidence: &Bytes = &fault.evidence;
    let artefact = (fault.kind == FaultKind::InvalidProof.code()).then(|| slashing::artefact_of(evidence));
    json!({
        "epoch": fault.epoch, "view": fault.view, "kind": fault.kind, "operator": operator, "evidence": evidence,
        "artefact": artefact.flatten(),
    })
}
