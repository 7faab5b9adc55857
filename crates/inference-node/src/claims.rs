//! Payment channels beside the requests: what is owed is claimed, withdrawals are answered by a claim within two blocks, and the
//! ledger is told to credit what was claimed (x402-contracts.md §6). Restart-safe: claims are totals, so one that lands twice takes
//! nothing twice, and the journal knows which transaction may have carried one.

use crate::{
    channels::{Desk, contract_config},
    metrics::Metrics,
    payment::PaidBy,
    rpc::RpcError,
    settle::{Fate, RecordSent, Relayed},
    store::{Pending, Stage, Store},
    time::unix_seconds,
};
use alloy_primitives::B256;
use alloy_sol_types::{SolCall as _, SolEvent as _};
use opg_contracts::{
    BatchSettlement, ReceiptLedger, addresses,
    x402::{ChannelStanding, terms_hash},
};
use opg_payments::{
    channel::plan::{self, ChannelView, ClaimPolicy, Watchtower},
    channels::{ClaimRow, DepositState},
};
use opg_receipt::SignedReceipt;
use serde_json::json;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Gas of a claim transaction: fixed part and each row, twice what they use.
const CLAIM_GAS: (u64, u64) = (150_000, 60_000);
/// Gas of crediting: fixed part and each set of terms, above what they use with new slots in the queue.
const CREDIT_GAS: (u64, u64) = (300_000, 450_000);
/// Sets of terms of one transaction.
const CREDIT_TERMS: usize = 24;
/// Time between two looks at the chain.
const POLL: Duration = Duration::from_millis(400);
/// Time between two looks for credits.
const CREDIT_INTERVAL: Duration = Duration::from_secs(2);
/// Receipts looked at for credits in one round.
const CREDIT_ROUND: usize = 512;
/// Blocks of withdrawals that are asked for at once.
const LOG_SPAN: u64 = 1_000;

/// The calldata of a claim.
pub(crate) fn claim_data(rows: &[ClaimRow]) -> Vec<u8> {
    let row = |row: &ClaimRow| BatchSettlement::VoucherClaim {
        voucher: BatchSettlement::Voucher {
            channel: contract_config(&row.config),
            maxClaimableAmount: row.entry.max_claimable.wei(),
        },
        signature: row.signature.clone(),
        totalClaimed: row.entry.total_claimed.wei(),
    };
    BatchSettlement::claimCall {
        voucherClaims: rows.iter().map(row).collect(),
    }
    .abi_encode()
}

/// The task.
pub(crate) struct Claimer {
    pub(crate) desk: Arc<Desk>,
    pub(crate) store: Arc<Store>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) policy: ClaimPolicy,
}

struct State {
    tower: Watchtower,
    /// Newest block seen.
    height: u64,
    next_credit: Instant,
    /// Terms of receipts, by sequence number: they never change.
    terms: HashMap<u64, ReceiptLedger::ChannelTerms>,
}

impl Claimer {
    /// Runs until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut state = State {
            tower: Watchtower::new(),
            height: 0,
            next_credit: Instant::now(),
            terms: HashMap::new(),
        };
        let mut started = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(POLL) => {}
            }
            let round = async {
                if !started {
                    self.reconcile().await?;
                    started = true;
                }
                self.round(&mut state).await
            };
            // What is sent is followed by the settling task; here nothing is lost by leaving.
            let result = tokio::select! {
                () = stop.cancelled() => return,
                result = round => result,
            };
            if let Err(error) = result {
                tracing::debug!(%error, "channels wait for a full node");
            }
        }
    }

    /// After a start: what was in flight when the process ended has landed or can be sent again.
    async fn reconcile(&self) -> Result<(), RpcError> {
        let channels = &self.desk.channels;
        for view in channels.views() {
            self.desk.observe(view.channel_id).await?;
        }
        for (id, claim) in channels.uncertain_claims() {
            tracing::info!(channel = %id, tx = %claim.tx, "a claim did not land before the restart; it is made again");
            if let Err(error) = channels.claim_returned(id, claim.tx) {
                tracing::warn!(%error, channel = %id, "a claim is not in the books");
            }
        }
        for deposit in channels.open_deposits() {
            let (id, key) = (deposit.deposit.channel_id, deposit.key());
            let DepositState::Sent { tx } = deposit.state else {
                continue;
            };
            // The channel was observed: a deposit that landed counts already. One that did not is sent again by its client.
            if let Err(error) = channels.deposit_returned(id, key, tx) {
                tracing::debug!(%error, channel = %id, "a deposit stays as it is");
            }
        }
        Ok(())
    }

    async fn round(&self, state: &mut State) -> Result<(), RpcError> {
        let (height, timestamp) = self.desk.chain.head().await?;
        let channels = &self.desk.channels;
        if height > state.height {
            let from = if state.height == 0 { height } else { state.height + 1 };
            let withdrawals = self
                .withdrawals(from.max(height.saturating_sub(LOG_SPAN)), height)
                .await?;
            for id in &withdrawals {
                self.desk.observe(*id).await?;
            }
            state.height = height;
            for alarm in state.tower.on_block(height, &withdrawals, &channels.views()) {
                if alarm.late {
                    self.metrics.channel("claim_late");
                    tracing::warn!(channel = %alarm.channel_id, requested_in = alarm.requested_in, due = alarm.due, height, "a withdrawal is not answered by a claim yet");
                }
            }
        }
        for batch in plan::plan(&channels.views(), &self.policy, timestamp.max(unix_seconds())) {
            self.claim(&batch.channels).await?;
        }
        if Instant::now() >= state.next_credit {
            state.next_credit = Instant::now() + CREDIT_INTERVAL;
            self.credit(state).await?;
        }
        let views = channels.views();
        let unclaimed = views.iter().map(ChannelView::unclaimed);
        let unclaimed = unclaimed.fold(opg_primitives::money::Amount::ZERO, |sum, one| sum.saturating_add(one));
        self.metrics.channels(views.len(), unclaimed);
        Ok(())
    }

    /// Known channels whose payers announced a withdrawal in these blocks.
    async fn withdrawals(&self, from: u64, to: u64) -> Result<Vec<B256>, RpcError> {
        let topic = BatchSettlement::WithdrawInitiated::SIGNATURE_HASH;
        let ids = self
            .desk
            .chain
            .indexed(addresses::BATCH_SETTLEMENT, topic, (from, to))
            .await?;
        Ok(ids.into_iter().filter(|id| self.desk.channels.contains(*id)).collect())
    }

    /// Claims everything that is owed on these channels, in one transaction, and waits for it.
    async fn claim(&self, ids: &[B256]) -> Result<(), RpcError> {
        // One bad row spoils a claim: a payer may have taken its money out since.
        for id in ids {
            self.desk.observe(*id).await?;
        }
        let rows = match self.desk.channels.claim_rows(ids) {
            Ok(rows) if rows.is_empty() => return Ok(()),
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!(%error, "a channel cannot be claimed");
                return Ok(());
            }
        };
        let claimed: Vec<B256> = rows.iter().map(|row| row.entry.channel_id).collect();
        let gas = CLAIM_GAS.0 + CLAIM_GAS.1 * rows.len() as u64;
        let data = claim_data(&rows);
        let channels = Arc::clone(&self.desk.channels);
        let record: RecordSent = Box::new(move |tx| channels.claims_sent(&rows, tx).map_err(|error| error.to_string()));
        let fate = self.send(addresses::BATCH_SETTLEMENT, data, gas, Some(record)).await;
        let tx = match fate {
            Some(Fate::Included { tx, success }) => {
                self.metrics.channel(if success { "claimed" } else { "claim_failed" });
                tracing::info!(channels = claimed.len(), %tx, success, "channels claimed");
                Some(tx)
            }
            Some(Fate::Never) | None => None,
        };
        for id in claimed {
            self.desk.observe(id).await?;
            // What did not land is planned again.
            let open = self.desk.channels.uncertain_claims();
            if let Some((_, claim)) = open
                .iter()
                .find(|(channel, claim)| *channel == id && tx.is_none_or(|tx| tx == claim.tx))
            {
                let _ = self.desk.channels.claim_returned(id, claim.tx);
            }
        }
        Ok(())
    }

    async fn send(
        &self,
        to: alloy_primitives::Address,
        data: Vec<u8>,
        gas: u64,
        record: Option<RecordSent>,
    ) -> Option<Fate> {
        let (reply, fate) = oneshot::channel();
        let relayed = Relayed {
            to,
            data,
            gas,
            record,
            reply,
        };
        self.desk.relay.send(relayed).await.ok()?;
        fate.await.ok()
    }

    /// Has the ledger credit recorded charges whose channel was claimed.
    async fn credit(&self, state: &mut State) -> Result<(), RpcError> {
        let ready = self.store.outbox(CREDIT_ROUND, |p| {
            matches!(p.stage, Stage::Final { .. }) && matches!(p.payment, PaidBy::Channel(_))
        });
        let mut standings: HashMap<B256, ChannelStanding> = HashMap::new();
        let mut due: BTreeMap<B256, ReceiptLedger::ChannelTerms> = BTreeMap::new();
        // Credits cover the oldest receipts of a channel first: the first that is not covered ends the search in it.
        let mut uncovered: HashSet<B256> = HashSet::new();
        for entry in &ready {
            let PaidBy::Channel(channel) = entry.payment else {
                continue;
            };
            if !uncovered.contains(&channel) {
                let found = self.desk.chain.rpc().call("og_getReceipt", json!([entry.id])).await?;
                if found["payment"]["credited"] == true {
                    self.credited(state, entry);
                    continue;
                }
                uncovered.insert(channel);
            }
            let Some(terms) = self.terms(state, entry).await? else {
                continue;
            };
            let key = terms_hash(&terms);
            let standing = match standings.get(&terms.channelId) {
                Some(standing) => *standing,
                None => {
                    let standing = self.desk.chain.channel_standing(terms.channelId).await?;
                    standings.insert(terms.channelId, standing);
                    standing
                }
            };
            if standing.channel.total_claimed > standing.sums.credited && due.len() < CREDIT_TERMS {
                due.insert(key, terms);
            }
        }
        if due.is_empty() {
            return Ok(());
        }
        let gas = CREDIT_GAS.0 + CREDIT_GAS.1 * due.len() as u64;
        let terms: Vec<_> = due.into_values().collect();
        let count = terms.len();
        let data = ReceiptLedger::creditChannelsCall { terms }.abi_encode();
        let fate = self.send(addresses::RECEIPT_LEDGER, data, gas, None).await;
        let done = fate.is_some_and(Fate::succeeded);
        self.metrics.channel(if done { "credited" } else { "credit_failed" });
        tracing::debug!(count, done, "charges of channels credited");
        if !done {
            state.next_credit = Instant::now() + 10 * CREDIT_INTERVAL;
        }
        Ok(())
    }

    fn credited(&self, state: &mut State, entry: &Pending) {
        if let Stage::Final { height } = entry.stage {
            self.store.advance(entry.seq, Stage::Credited { height }, true);
            self.metrics.receipt("settled");
            state.terms.remove(&entry.seq);
        }
    }

    /// On what terms a final receipt was recorded; the creator is the one of that block.
    async fn terms(&self, state: &mut State, entry: &Pending) -> Result<Option<ReceiptLedger::ChannelTerms>, RpcError> {
        if let Some(terms) = state.terms.get(&entry.seq) {
            return Ok(Some(terms.clone()));
        }
        let Stage::Final { height } = entry.stage else {
            return Ok(None);
        };
        let receipt = match self.store.get(entry.id) {
            Ok(Some(stored)) => SignedReceipt::decode(&stored.cose).ok(),
            _ => None,
        };
        let Some(receipt) = receipt else {
            tracing::error!(receipt = %entry.id, "a receipt is damaged and cannot be credited");
            return Ok(None);
        };
        let core = receipt.core();
        let topics = [
            ReceiptLedger::ChannelCharged::SIGNATURE_HASH,
            core.payment.nonce,
            core.node_id.0,
            core.model.served_root.0,
        ];
        let logs = self
            .desk
            .chain
            .logs_at(addresses::RECEIPT_LEDGER, &topics, height)
            .await?;
        for data in logs {
            let Ok((creator, royalty, mode, router, ..)) =
                ReceiptLedger::ChannelCharged::abi_decode_data_validate(&data)
            else {
                continue;
            };
            let same = royalty == core.price.royalty_bps
                && mode == core.mode.served.code()
                && router == core.router.unwrap_or_default();
            if same {
                let terms = ReceiptLedger::ChannelTerms {
                    channelId: core.payment.nonce,
                    nodeId: core.node_id.0,
                    modelRoot: core.model.served_root.0,
                    creator,
                    royaltyBps: royalty,
                    mode,
                    router,
                };
                state.terms.insert(entry.seq, terms.clone());
                return Ok(Some(terms));
            }
        }
        Ok(None)
    }
}
