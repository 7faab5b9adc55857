//! Receipts that the ledger holds as pending, and what makes it credit them once their payment has settled (ledger.md §7).

use crate::{
    chain::Chain,
    metrics::Metrics,
    payment::payment_id,
    rpc::RpcError,
    store::{Pending, Stage, Store, StoreError},
};
use alloy_primitives::{Address, keccak256};
use alloy_sol_types::{SolEvent as _, SolValue as _};
use opg_contracts::{PaymentMethod, addresses, bindings::ReceiptLedger, state::Spent, system_tx::pending_word};
use opg_payments::reserve::{Money, Reservations, ReserveError};
use opg_receipt::{Core, SignedReceipt};

/// Why a receipt cannot be credited yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreditError {
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Reserve(#[from] ReserveError),
    #[error("the ledger has no pending entry of it")]
    NotRecorded,
}

/// The ledger's pending entry of a final receipt, if there is one and its payment has settled. A receipt with which nothing
/// more can happen leaves the outbox here.
pub(crate) async fn entry(
    chain: &Chain,
    reservations: &Reservations,
    store: &Store,
    metrics: &Metrics,
    pending: &Pending,
) -> Result<Option<ReceiptLedger::PendingEntry>, CreditError> {
    let Stage::Final { height } = pending.stage else {
        return Ok(None);
    };
    // Channels are credited by their own task.
    let Some(payment) = pending.payment.single() else {
        return Ok(None);
    };
    let record = match reservations.get(payment)? {
        Some(record) if matches!(record.money, Money::Open | Money::Sent { .. }) => return Ok(None),
        Some(record) if matches!(record.money, Money::Settled { .. }) => record,
        // Nothing was owed, or it is lost: there is nothing to credit.
        _ => {
            store.advance(pending.seq, pending.stage.clone(), true);
            return Ok(None);
        }
    };
    let word = match chain.spent(payment_id(&record).0).await? {
        Spent::Credited => {
            store.advance(pending.seq, Stage::Credited { height }, true);
            metrics.receipt("settled");
            return Ok(None);
        }
        Spent::Unspent => return Err(CreditError::NotRecorded),
        Spent::Pending(word) => word,
    };
    let stored = store.get(pending.id)?.ok_or(CreditError::NotRecorded)?;
    let receipt = SignedReceipt::decode(&stored.cose).map_err(|_| CreditError::NotRecorded)?;
    let core = receipt.core();
    let topics = [
        ReceiptLedger::PaymentsPending::SIGNATURE_HASH,
        core.node_id.0,
        core.model.served_root.0,
    ];
    // A block can have several groups of this node and model; the ledger's own hash says which terms are those of this entry.
    for data in chain.logs_at(addresses::RECEIPT_LEDGER, &topics, height).await? {
        let Ok((creator, _, release_at, _)) = ReceiptLedger::PaymentsPending::abi_decode_data_validate(&data) else {
            continue;
        };
        let entry = pending_entry(core, creator, release_at);
        if pending_word(keccak256(entry.abi_encode())) == word {
            return Ok(Some(entry));
        }
    }
    Err(CreditError::NotRecorded)
}

fn pending_entry(core: &Core, creator: Address, release_at: u64) -> ReceiptLedger::PendingEntry {
    ReceiptLedger::PendingEntry {
        nodeId: core.node_id.0,
        modelRoot: core.model.served_root.0,
        creator,
        royaltyBps: core.price.royalty_bps,
        mode: core.mode.served.code(),
        router: core.router.unwrap_or_default(),
        payer: core.payment.payer,
        nonce: core.payment.nonce,
        amount: core.payment.due(core.price.charge).wei(),
        charge: core.price.charge.wei(),
        releaseAt: release_at,
        method: PaymentMethod::of(&core.payment).map_or(0, PaymentMethod::code),
    }
}
