//! `og_*` methods about receipts and about this node.

use super::{
    Front,
    message::{LIMIT, Params, RECEIPT_REJECTED, RpcError},
};
use crate::{
    gossip,
    index::{Row, RowMethod},
    pool::{Inserted, SubmitError},
    verify::{Reject, Rule},
};
use alloy_primitives::{Address, B256, Bytes};
use opg_contracts::{
    StateReader, addresses, payment_settlement,
    state::{self, Settlement, Spent},
    x402,
};
use opg_primitives::{
    ids::{NodeId, deposit_address},
    mode::{Grade, Mode},
};
use opg_receipt::{SignedReceipt, State};
use serde_json::{Value, json};

/// End of verification: a receipt of mode none is checked, never verified.
const fn verified_word(mode: Mode) -> &'static str {
    match mode {
        Mode::None => State::Checked.as_str(),
        _ => State::Verified.as_str(),
    }
}

impl Front {
    /// `og_submitReceipt(receipt, artefact?)`, both hex: verifies and keeps a receipt, with the proof of its answer if its mode has
    /// one, and passes both on. Submitting it again is harmless.
    pub(super) async fn submit_receipt(&self, p: &Params<'_>) -> Result<Value, RpcError> {
        p.at_most(2)?;
        let node = &self.node;
        // one byte more than allowed is read, so that the rule (and its code) answers for a receipt that is too large
        let bytes: Bytes = p.bytes(0, "receipt", 2 * opg_receipt::MAX_BYTES)?.into();
        let artefact = match p.get(1).is_some_and(|value| !value.is_null()) {
            true => Some(Bytes::from(p.bytes(1, "artefact", opg_artefact::MAX_ARTEFACT_BYTES)?)),
            false => None,
        };
        let head = node.execution.head();
        let state = node.execution.state_at(head.hash).map_err(RpcError::internal)?;
        // the earliest timestamp that the next block can have
        let timestamp = crate::shared::unix_time()
            .as_secs()
            .max(head.timestamp.saturating_add(1));
        match node
            .pool
            .submit(bytes.clone(), artefact.clone(), state, timestamp)
            .await
        {
            Ok(submitted) => {
                if submitted.inserted == Inserted::New {
                    let (topic, payload) = gossip::message(&bytes, artefact.as_ref());
                    node.gossip(topic, payload);
                }
                let core = submitted.receipt.core();
                Ok(json!({
                    "receiptId": core.receipt_id,
                    "coreHash": submitted.receipt.core_hash(),
                    "state": verified_word(core.mode.served),
                    "known": submitted.inserted == Inserted::Known,
                }))
            }
            Err(SubmitError::Rejected(reject)) => match self.already_final(&bytes, &reject)? {
                Some(answer) => Ok(answer),
                None => Err(rejected(&reject)),
            },
            Err(error @ SubmitError::Busy) => Err(RpcError::new(LIMIT, error.to_string())),
            Err(error) => Err(RpcError::internal(error)),
        }
    }

    /// A node that restarts submits what it is not sure of: a receipt that is final already is no error.
    fn already_final(&self, bytes: &Bytes, reject: &Reject) -> Result<Option<Value>, RpcError> {
        if !matches!(reject.rule, Rule::SeqUsed | Rule::PaymentSpent) {
            return Ok(None);
        }
        let Ok(receipt) = SignedReceipt::decode(bytes) else {
            return Ok(None);
        };
        let id = receipt.core().receipt_id;
        let row = self.node.index.receipt(id.0).map_err(RpcError::internal)?;
        Ok(row.filter(|row| row.core_hash == receipt.core_hash()).map(|row| {
            json!({ "receiptId": id, "coreHash": row.core_hash, "state": State::Final.as_str(), "known": true, "height": row.height })
        }))
    }

    /// `og_getReceipt(id)`: where a receipt stands, null if it is not known here. Never the core (D11).
    pub(super) async fn get_receipt(&self, p: &Params<'_>) -> Result<Value, RpcError> {
        p.at_most(1)?;
        let id = B256::from(p.fixed::<32>(0, "receiptId")?);
        match self.row(id).await? {
            Some(row) => self.final_receipt(id, row),
            None => match self.node.pool.by_id(id) {
                Some(waiting) => {
                    let core = waiting.receipt.core();
                    let mode = core.mode.served;
                    Ok(json!({
                        "receiptId": id,
                        "state": verified_word(mode),
                        "mode": mode.as_str(),
                        "grade": core.mode.grade.as_str(),
                        "coreHash": waiting.receipt.core_hash(),
                        "nodeId": core.node_id,
                    }))
                }
                // as for transactions and blocks: what is not there is null
                None => Ok(Value::Null),
            },
        }
    }

    fn final_receipt(&self, id: B256, row: Row) -> Result<Value, RpcError> {
        let node = &self.node;
        let head = node.execution.head();
        let view = node.execution.state_at(head.hash).map_err(RpcError::internal)?;
        let payee = deposit_address(
            addresses::FEE_VAULT,
            addresses::DEPOSIT_IMPLEMENTATION,
            NodeId(row.node_id),
        );
        let window = node
            .genesis
            .parameters
            .windows
            .by_code()
            .get(usize::from(row.mode))
            .copied()
            .unwrap_or_default();
        let release_at = row.timestamp.saturating_add(window);
        let (settlement, credited) = money(&view, &row, payee).map_err(RpcError::internal)?;
        let state = match credited {
            true if head.timestamp >= release_at => State::Released,
            true => State::Settled,
            false => State::Final,
        };
        // Only `exact` takes more than the charge, and gives the rest back.
        let taken = match row.method {
            RowMethod::Eip3009 | RowMethod::ExactPermit2 => row.amount,
            RowMethod::UptoPermit2 | RowMethod::Voucher => row.charge,
        };
        Ok(json!({
            "receiptId": id,
            "state": state.as_str(),
            "mode": Mode::from_code(row.mode.into()).map_or("unknown", Mode::as_str),
            "grade": Grade::from_code(row.grade.into()).map_or("unknown", Grade::as_str),
            "coreHash": row.core_hash,
            "nodeId": row.node_id,
            "keyset": row.keyset,
            "seq": row.seq,
            "modelRoot": row.model_root,
            "height": row.height,
            "index": row.index,
            "count": row.count,
            "timestamp": row.timestamp,
            "payment": {
                "paymentId": row.payment_id,
                "amount": row.amount.to_string(),
                "charge": row.charge.to_string(),
                "refund": taken.saturating_sub(row.charge).to_string(),
                "settlement": settlement,
                "credited": credited,
                "releaseAt": release_at,
            },
        }))
    }

    /// `og_getNodeStats(nodeId)`: totals of a node's finalized receipts.
    pub(super) async fn get_node_stats(&self, p: &Params<'_>) -> Result<Value, RpcError> {
        p.at_most(1)?;
        let id = B256::from(p.fixed::<32>(0, "nodeId")?);
        let index = self.node.index.clone();
        let stats = blocking(move || index.node(id)).await?;
        Ok(json!({
            "nodeId": id,
            "receipts": stats.receipts,
            "amount": stats.amount.to_string(),
            "charge": stats.charge.to_string(),
            "lastHeight": stats.last_height,
        }))
    }

    /// `og_status()`.
    pub(super) async fn status(&self, p: &Params<'_>) -> Result<Value, RpcError> {
        p.at_most(0)?;
        let index = self.node.index.clone();
        let receipts = blocking(move || index.receipts()).await?;
        let mut status = self.node.status();
        if let Some(object) = status.as_object_mut() {
            object.insert("receipts".into(), receipts.into());
            object.insert("filters".into(), self.filters().len().into());
        }
        Ok(status)
    }

    pub(super) async fn row(&self, id: B256) -> Result<Option<Row>, RpcError> {
        let index = self.node.index.clone();
        blocking(move || index.receipt(id)).await
    }
}

pub(super) async fn blocking<T: Send + 'static, E: std::fmt::Display + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, RpcError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(RpcError::internal)?
        .map_err(RpcError::internal)
}

fn rejected(reject: &Reject) -> RpcError {
    RpcError {
        code: RECEIPT_REJECTED,
        message: reject.to_string(),
        data: Some(json!({
            "rule": reject.rule.code(),
            "field": reject.rule.field(),
            "expected": reject.expected,
            "got": reject.got,
            "mayPassLater": reject.rule.may_pass_later(),
        })),
    }
}

/// Whether a receipt's money has arrived, in a word, and whether it is credited.
fn money<R: StateReader>(state: &R, row: &Row, payee: Address) -> Result<(&'static str, bool), R::Error> {
    let Some(method) = row.method.single() else {
        let standing = x402::read_channel_standing(state, row.nonce)?;
        let claimed = standing.channel.total_claimed >= row.recorded;
        let word = if claimed { "settled" } else { "unclaimed" };
        return Ok((word, standing.covers(row.recorded)));
    };
    let due = match row.method {
        RowMethod::UptoPermit2 => row.charge,
        _ => row.amount,
    };
    let credited = state::read_spent(state, row.payment_id)? == Spent::Credited;
    let word = match payment_settlement(state, method, row.payer, row.nonce)? {
        settled if settled.paid(payee, due) => "settled",
        Settlement::Unused => "unused",
        Settlement::Cancelled => "cancelled",
        Settlement::Used(_) => "other",
    };
    Ok((word, credited))
}
