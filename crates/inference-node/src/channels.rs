//! Payment channels at the counter: calls, deposits and refunds as they come with requests. What happens beside the requests is in
//! [`crate::claims`].

use crate::{
    chain::Chain,
    error::ApiError,
    offer::{ChannelCall, Counted},
    payment::{Funding, channel_record},
    rpc::RpcError,
    settle::{Fate, RecordSent, Relayed},
    time::unix_seconds,
    work::internal,
};
use alloy_primitives::{Address, B256, aliases::U40};
use alloy_sol_types::SolCall as _;
use opg_contracts::{BatchSettlement, addresses};
use opg_payments::{
    channel::ChannelConfig,
    channels::{Call, ChannelError, Channels, DepositState, Finished, Mode, Reserved},
    receipt_payment::Domains,
    x402::{BatchAction, BatchPayload, SignedDeposit},
};
use opg_primitives::money::Amount;
use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

/// Gas of a deposit: the larger of the two collectors, a token with votes, and a margin.
const DEPOSIT_GAS: u64 = 400_000;
/// Gas of a refund with the claim before it.
const REFUND_GAS: u64 = 400_000;

/// The node's channels and the way to the chain for what they need there.
pub(crate) struct Desk {
    pub(crate) channels: Arc<Channels>,
    pub(crate) chain: Chain,
    pub(crate) relay: mpsc::Sender<Relayed>,
    pub(crate) domains: Domains,
    /// Account that sends, and that signs for this node's channels.
    pub(crate) settlement: Address,
    /// Smallest deposit that is carried to the chain.
    pub(crate) min_deposit: Amount,
    /// How long a request waits for its deposit.
    pub(crate) patience: Duration,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk")
            .field("channels", &self.channels)
            .finish_non_exhaustive()
    }
}

/// What a call on a channel came to.
#[derive(Debug)]
pub(crate) enum Entry {
    /// It may run.
    Run(Box<Funding>),
    /// It has run before: here is its result.
    Served(Finished),
}

/// A configuration as the contract has it.
pub(crate) fn contract_config(config: &ChannelConfig) -> BatchSettlement::ChannelConfig {
    BatchSettlement::ChannelConfig {
        payer: config.payer,
        payerAuthorizer: config.payer_authorizer,
        receiver: config.receiver,
        receiverAuthorizer: config.receiver_authorizer,
        token: config.token,
        withdrawDelay: U40::saturating_from(config.withdraw_delay),
        salt: config.salt,
    }
}

/// The chain does not answer.
fn chain(error: RpcError) -> ApiError {
    tracing::warn!(%error, "a channel cannot be looked up");
    ApiError::unavailable(
        "chain_unavailable",
        "no full node answers, so the channel is not known; nothing was charged",
    )
}

impl Desk {
    /// Reserves a call: takes its deposit to the chain first, and reads a channel that is not known yet.
    pub(crate) async fn enter(&self, call: &ChannelCall, streamed: bool) -> Result<Entry, ApiError> {
        let payload = &call.payload;
        let id = payload.voucher.voucher.channel_id;
        let mut deposit = None;
        match &payload.action {
            BatchAction::Deposit(signed) => {
                // A retry of a call that was served must not wait for its deposit again.
                if let Some(entry) = self.served_before(call, streamed) {
                    return Ok(entry);
                }
                let tx = self.deposit(payload, signed).await?;
                deposit = Some((tx, signed.deposit.amount));
            }
            BatchAction::Voucher if !self.channels.contains(id) => self.meet(payload).await?,
            _ => {}
        }
        let mode = match (call.headroom, streamed) {
            (true, _) => Mode::Headroom,
            (false, true) => Mode::StockStream,
            (false, false) => Mode::Stock,
        };
        let asked = Call {
            payload,
            bound: call.bound,
            mode,
            identifier: call.identifier,
        };
        let reserved = match self.channels.reserve(&asked) {
            // The payer may have deposited by itself since the channel was last read.
            Err(ChannelError::Balance { .. }) => {
                self.observe(id).await.map_err(chain)?;
                self.channels.reserve(&asked)
            }
            other => other,
        };
        match reserved {
            Ok(Reserved { ticket, streaming }) => {
                let streaming = match streaming {
                    None => None,
                    Some((extra, commit)) => {
                        // What the header reports must survive a crash, or it would fit a second time.
                        if let Err(error) = commit.durable().await {
                            let _ = self.channels.fail(ticket);
                            return Err(error.into());
                        }
                        Some(extra)
                    }
                };
                Ok(Entry::Run(Box::new(Funding::Channel {
                    ticket,
                    payment: channel_record(payload, call.bound),
                    streaming,
                    deposit,
                })))
            }
            Err(ChannelError::Duplicate(finished)) => Ok(Entry::Served(*finished)),
            Err(error) => Err(refused(error, id)),
        }
    }

    /// What brings a client back in step after [`ChannelError::Mismatch`].
    pub(crate) fn counted(&self, id: B256) -> Option<Counted> {
        let (state, voucher) = self.channels.state(id)?;
        Some(Counted { state, voucher })
    }

    fn served_before(&self, call: &ChannelCall, streamed: bool) -> Option<Entry> {
        call.identifier?;
        let asked = Call {
            payload: &call.payload,
            bound: call.bound,
            mode: if streamed { Mode::StockStream } else { Mode::Stock },
            identifier: call.identifier,
        };
        self.channels.finished(&asked).map(Entry::Served)
    }

    /// A channel that somebody else opened, or that this node has forgotten: the chain knows it.
    async fn meet(&self, payload: &BatchPayload) -> Result<(), ApiError> {
        let id = self.check(payload)?;
        let state = self.chain.channel(id).await.map_err(chain)?;
        if state.balance.is_zero() {
            let reason = ChannelError::Unknown(id).reason();
            let message = "this channel holds nothing: deposit first";
            let mut error = ApiError::payment("channel_unknown", message).param("payload.voucher.channelId");
            error.x402 = Some(reason);
            return Err(error);
        }
        self.channels
            .open_channel(payload.config, state, unix_seconds())
            .map_err(|error| refused(error, id))?;
        Ok(())
    }

    /// Whether the channel is one that this node takes; its id.
    fn check(&self, payload: &BatchPayload) -> Result<B256, ApiError> {
        let id = payload.voucher.voucher.channel_id;
        payload.bind(&self.domains.channels).map_err(|error| {
            let mut refused =
                ApiError::payment("channel_id_mismatch", error.to_string()).param("payload.voucher.channelId");
            refused.x402 = Some(opg_payments::x402::CHANNEL_ID_MISMATCH);
            refused
        })?;
        payload
            .config
            .check(self.channels.terms())
            .map_err(|error| refused(error.into(), id))?;
        Ok(id)
    }

    /// Carries a deposit to the chain and waits until it is there.
    pub(crate) async fn deposit(&self, payload: &BatchPayload, signed: &SignedDeposit) -> Result<B256, ApiError> {
        const AUTHORIZATION: &str = "payload.deposit.authorization";
        let id = self.check(payload)?;
        let deposit = &signed.deposit;
        let bad = |code, param: &str, message: String| ApiError::payment(code, message).param(param);
        if deposit.amount < self.min_deposit {
            let message = format!(
                "a deposit of {} OPG, this node carries {} OPG or more",
                deposit.amount, self.min_deposit
            );
            return Err(bad("deposit_too_small", "payload.deposit.amount", message));
        }
        if !deposit.valid_at(unix_seconds()) {
            let message = "the deposit's authorization is not valid now: sign it again".to_owned();
            return Err(bad("payment_expired", AUTHORIZATION, message));
        }
        let data = BatchSettlement::depositCall {
            config: contract_config(&payload.config),
            amount: deposit.amount.wei(),
            collector: deposit.collector().address(),
            collectorData: deposit.collector_data(&signed.signature),
        }
        .abi_encode();
        let key = deposit.nonce();
        let known = self.channels.deposit(id, key);
        if !matches!(known, Some(DepositState::Sent { .. } | DepositState::Confirmed { .. })) {
            // The chain checks signature, funds and whether it was used, also for contract wallets; nobody pays gas for what fails.
            let to = addresses::BATCH_SETTLEMENT;
            match self.chain.simulate(self.settlement, to, &data).await {
                Ok(_) => {}
                Err(error) if error.is_transient() => return Err(chain(error)),
                Err(error) => {
                    let message = format!("the chain refuses the deposit: {error}");
                    return Err(bad("deposit_refused", AUTHORIZATION, message));
                }
            }
        }
        let before = self.chain.channel(id).await.map_err(chain)?;
        self.channels
            .open_channel(payload.config, before, unix_seconds())
            .map_err(|error| refused(error, id))?;
        let (state, commit) = self
            .channels
            .begin_deposit(signed, |_| true)
            .map_err(|error| refused(error, id))?;
        commit.durable().await?;
        let tx = match state {
            DepositState::Confirmed { tx } => return Ok(tx.unwrap_or_default()),
            DepositState::Failed => {
                let message = "the chain has refused this deposit: sign a new one".to_owned();
                return Err(bad("deposit_refused", AUTHORIZATION, message));
            }
            DepositState::Sent { tx } => self.wait_deposit(tx).await?,
            DepositState::Pending => self.send_deposit(id, key, data).await?,
        };
        let after = self.chain.channel(id).await.map_err(chain)?;
        self.channels
            .deposit_confirmed(id, key, after, unix_seconds())
            .map_err(|error| refused(error, id))?
            .durable()
            .await?;
        tracing::info!(channel = %id, amount = %deposit.amount, %tx, "deposit confirmed");
        Ok(tx)
    }

    async fn send_deposit(&self, id: B256, key: B256, data: Vec<u8>) -> Result<B256, ApiError> {
        let (reply, fate) = oneshot::channel();
        let books = Arc::clone(&self.channels);
        let booked = Arc::new(OnceLock::new());
        let ours = Arc::clone(&booked);
        let record: RecordSent = Box::new(move |tx| {
            let commit = books.deposit_sent(id, key, tx).map_err(|error| error.to_string())?;
            // Each record runs once.
            let _ = ours.set(tx);
            Ok(vec![commit])
        });
        let relayed = Relayed {
            to: addresses::BATCH_SETTLEMENT,
            data,
            gas: DEPOSIT_GAS,
            record: Some(record),
            reply,
        };
        let stopping = || ApiError::unavailable("shutting_down", "the node is shutting down; nothing was charged");
        self.relay.send(relayed).await.map_err(|_| stopping())?;
        let fate = match tokio::time::timeout(self.patience, fate).await {
            Ok(Ok(fate)) => fate,
            Ok(Err(_)) => return Err(stopping()),
            Err(_) => return Err(deposit_unknown(id)),
        };
        if let Fate::Included { tx, success: true } = fate {
            return Ok(tx);
        }
        let Some(tx) = booked.get().copied() else {
            // Nothing of ours was sent: a copy of this deposit was faster, and only that one may say that it came back.
            return match self.channels.deposit(id, key) {
                Some(DepositState::Sent { tx }) => self.wait_deposit(tx).await,
                Some(DepositState::Confirmed { tx }) => Ok(tx.unwrap_or_default()),
                _ => Err(deposit_unknown(id)),
            };
        };
        // A nonce that the token has seen is the token's to judge; here it only did not work this time.
        if let Ok(commit) = self.channels.deposit_returned(id, key, tx) {
            commit.durable().await?;
        }
        let message = "the deposit did not succeed on chain; nothing was charged. Send it again, or sign a new one.";
        Err(ApiError::payment("deposit_failed", message).param("payload.deposit"))
    }

    /// A copy of a deposit that is on its way: waits for the first.
    async fn wait_deposit(&self, tx: B256) -> Result<B256, ApiError> {
        let began = std::time::Instant::now();
        loop {
            match self.chain.transaction_status(tx).await.map_err(chain)? {
                Some(true) => return Ok(tx),
                Some(false) => {
                    let message = "the deposit did not succeed on chain; nothing was charged: sign a new one";
                    return Err(ApiError::payment("deposit_failed", message).param("payload.deposit"));
                }
                None if began.elapsed() > self.patience => return Err(deposit_unknown(tx)),
                None => tokio::time::sleep(Duration::from_millis(150)).await,
            }
        }
    }

    /// Gives the payer back what is not charged: claims what is owed first, in one transaction.
    pub(crate) async fn refund(&self, payload: &BatchPayload) -> Result<(B256, Amount), ApiError> {
        let id = payload.voucher.voucher.channel_id;
        if !self.channels.contains(id) {
            self.meet(payload).await?;
        }
        let (plan, commit) = self
            .channels
            .begin_refund(payload)
            .map_err(|error| refused(error, id))?;
        commit.durable().await?;
        let refund = BatchSettlement::refundCall {
            config: contract_config(&payload.config),
            amount: plan.amount.wei(),
        }
        .abi_encode();
        let mut calls = Vec::with_capacity(2);
        if let Some(row) = &plan.claim {
            calls.push(crate::claims::claim_data(std::slice::from_ref(row)).into());
        }
        calls.push(refund.into());
        let data = BatchSettlement::multicallCall { data: calls }.abi_encode();
        let (reply, fate) = oneshot::channel();
        let books = Arc::clone(&self.channels);
        let record: RecordSent = Box::new(move |tx| {
            let commit = books.refund_sent(id, tx).map_err(|error| error.to_string())?;
            Ok(vec![commit])
        });
        let relayed = Relayed {
            to: addresses::BATCH_SETTLEMENT,
            data,
            gas: REFUND_GAS,
            record: Some(record),
            reply,
        };
        let sent = self.relay.send(relayed).await.is_ok();
        let fate = match (sent, tokio::time::timeout(self.patience, fate).await) {
            (true, Ok(Ok(fate))) => fate,
            (false, _) | (_, Ok(Err(_))) => Fate::Never,
            // It may still happen: the books are put right when the chain says what became of it.
            (true, Err(_)) => return Err(refund_unknown(id)),
        };
        match fate {
            Fate::Included { tx, success: true } => {
                self.observe(id).await.map_err(chain)?;
                Ok((tx, plan.amount))
            }
            Fate::Included { success: false, .. } | Fate::Never => {
                if let Ok(commit) = self.channels.refund_returned(id) {
                    commit.durable().await?;
                }
                let message = "the refund did not succeed on chain: ask again";
                Err(ApiError::unavailable("refund_failed", message))
            }
        }
    }

    /// Reads a channel from the chain into the books.
    pub(crate) async fn observe(&self, id: B256) -> Result<(), RpcError> {
        let state = self.chain.channel(id).await?;
        if let Err(error) = self.channels.observe(id, state, unix_seconds()) {
            tracing::debug!(%error, channel = %id, "a channel was not observed");
        }
        Ok(())
    }
}

fn deposit_unknown(id: B256) -> ApiError {
    let message = format!(
        "the deposit of {id} is not in a block yet; nothing was charged. Repeat the same request: the deposit is carried once."
    );
    ApiError::unavailable("deposit_pending", message)
}

fn refund_unknown(id: B256) -> ApiError {
    let message = format!("the refund of channel {id} is not in a block yet: look at the channel on chain");
    ApiError::unavailable("refund_pending", message)
}

/// A refusal in the words of this interface and of x402.
fn refused(error: ChannelError, id: B256) -> ApiError {
    let (code, param) = match &error {
        ChannelError::Unknown(_) => ("channel_unknown", "payload.voucher.channelId"),
        ChannelError::Config(_) | ChannelError::Terms(_) => ("channel_refused", "payload.channelConfig"),
        ChannelError::Signature { .. } => ("payment_bad_signature", "payload.voucher.signature"),
        ChannelError::Mismatch { .. } | ChannelError::CeilingUsed { .. } | ChannelError::Headroom { .. } => {
            ("channel_out_of_step", "payload.voucher.maxClaimableAmount")
        }
        ChannelError::Busy(_) => ("channel_busy", "payload.voucher.channelId"),
        ChannelError::Balance { .. } => ("payment_insufficient_funds", "payload.voucher.maxClaimableAmount"),
        ChannelError::Withdrawing { .. } => ("channel_withdrawing", "payload.voucher.maxClaimableAmount"),
        ChannelError::Deposit(_) => ("deposit_refused", "payload.deposit"),
        ChannelError::Refund { .. } => ("refund_refused", "payload.amount"),
        ChannelError::Conflict => {
            let message = error.to_string();
            let conflict = ApiError::new(axum::http::StatusCode::CONFLICT, "payment_identifier_used", message);
            return conflict.param("extensions.payment-identifier.info.id");
        }
        _ => return internal(error),
    };
    let mut refused = ApiError::payment(code, format!("{error}; nothing was charged")).param(param);
    refused.x402 = Some(error.reason());
    refused.channel = Some(id);
    refused
}
