//! From a checked request to a reserved, and where needed settled, payment; and from the result to the receipt.

use crate::{
    attest::Attested,
    catalogue::Served,
    channels::Entry,
    error::ApiError,
    job::{Job, Outcome, secret_hash},
    node::Node,
    offer::{ChannelCall, Signed, Single, Verified},
    payment::{Books, Funding},
    permit::settlement_call,
    settle::{SettleNow, SettleOutcome},
    store::{Finished, MAX_OUTBOX, Opening, StoreError},
    time::{unix_millis, unix_seconds},
};
use alloy_primitives::{Address, B256, Bytes, U256, hex};
use alloy_sol_types::SolCall as _;
use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use opg_contracts::addresses;
use opg_payments::{
    permit2::Witness,
    reserve::{Decision, Key, Money, PermitRequest, Record, Request, ReserveError, Reserved, Work},
    x402::{self, BatchAction, BatchPayload, ChannelState, ChargeExtra, PaymentPayload, SettleResponse},
};
use opg_primitives::{
    ids::ReceiptId,
    mode::{Grade, Mode},
    money::Usage,
};
use opg_receipt::{LeafKind, SignedQuote, SignedReceipt, StreamRecord, UsageUnit, commit, quote::request_digest};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::sync::oneshot;

alloy_sol_types::sol! {
    /// The overload that takes contract wallets' signatures as well.
    function transferWithAuthorization(address from, address to, uint256 value, uint256 validAfter, uint256 validBefore, bytes32 nonce, bytes signature);
}

/// A request that can be served, whatever it costs.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) served: Arc<Served>,
    /// Model as the client named it.
    pub(crate) asked: String,
    pub(crate) path: &'static str,
    pub(crate) body: axum::body::Bytes,
    /// Effective parameters.
    pub(crate) params: Value,
    pub(crate) unit: UsageUnit,
    /// Mode asked for.
    pub(crate) mode: Mode,
    /// Evidence of the keyset, for mode tee.
    pub(crate) attested: Option<Attested>,
    /// The most it can use.
    pub(crate) most: Usage,
    /// Answered as a stream.
    pub(crate) streamed: bool,
    /// Unix milliseconds.
    pub(crate) received: u64,
}

impl Call {
    /// Grade that the quote promises: a proof needs no hardware to be of the highest one, a keyset has that of its evidence.
    fn grade(&self) -> Grade {
        match (self.mode, self.attested) {
            (Mode::Tee, Some(attested)) => attested.grade,
            (Mode::None, _) => Grade::None,
            _ => Grade::Hardware,
        }
    }
}

/// A call whose payment is reserved. It must end with [`Node::finish`].
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) job: Job,
    pub(crate) funding: Funding,
    pub(crate) receipt_id: ReceiptId,
    /// Bearer secret of the receipt (D11).
    pub(crate) secret: String,
}

/// What became of a call's payment.
#[derive(Debug)]
pub(crate) enum Admission {
    /// The call runs.
    Run(Box<Admitted>),
    /// The same payment, with the same identifier, was served before: the client gets the same answer again.
    Again(Box<Again>),
}

/// An answer that was given before.
#[derive(Debug)]
pub(crate) struct Again {
    pub(crate) receipt: SignedReceipt,
    pub(crate) opening: Opening,
    headers: HeaderMap,
}

impl Again {
    /// The answer's headers and its `opg` object; the bearer secret was told once.
    pub(crate) fn answer(&self) -> (HeaderMap, Value) {
        (self.headers.clone(), self.opening.envelope(&self.receipt, None))
    }

    /// The bytes of the only part of this kind.
    pub(crate) fn leaf(&self, kind: LeafKind) -> Option<&[u8]> {
        let mut leaves = self.opening.leaves.iter().filter(|(found, _)| *found == kind);
        leaves.next().map(|(_, bytes)| bytes.as_ref())
    }
}

impl Node {
    /// Checks and reserves the payment of a call; answers 402 with an offer if there is none.
    pub(crate) async fn admit(&self, call: &Call, headers: &HeaderMap) -> Result<Admission, ApiError> {
        let terms = call.served.terms(call.most, call.mode, call.grade()).map_err(|e| {
            tracing::warn!(error = %e, model = call.asked, "no price");
            ApiError::unavailable("price_unavailable", format!("{e}; nothing was charged"))
        })?;
        let mut covered = self.bond.covers(terms.max_amount, unix_seconds());
        if covered.is_err() && self.bond.is_stale(unix_seconds()) {
            self.read_bond().await;
            covered = self.bond.covers(terms.max_amount, unix_seconds());
        }
        if let Err((bond, needed)) = covered {
            return Err(ApiError::unavailable(
                "bond_too_small",
                format!(
                    "the node's bond of {bond} OPG has to be {needed} OPG to cover its fees of two days and this call, so the call could not be paid; its operator adds to it with `opg node bond`. Nothing was charged."
                ),
            ));
        }
        let digest = request_digest("POST", call.path, &call.body);
        let nonce = || B256::from(rand::random::<[u8; 32]>());
        let offer = |mut error: ApiError, payer: Option<Address>| {
            let reason = error.x402.unwrap_or(error.code);
            if error.status == StatusCode::PAYMENT_REQUIRED {
                let url = format!("{}{}", self.url, call.path);
                let said = error.x402.unwrap_or(&error.message);
                let counted = error
                    .channel
                    .filter(|_| reason == x402::CUMULATIVE_MISMATCH)
                    .and_then(|id| self.desk.counted(id));
                let offer = self
                    .cashier
                    .offer(&terms, (digest, nonce()), url, unix_seconds(), said, counted.as_ref());
                match offer {
                    Ok(offer) => error.offer = Some(Box::new(offer)),
                    Err(e) => tracing::error!(error = %e, "quote cannot be signed"),
                }
            }
            if error.code != "payment_required" {
                let settlement = self.cashier.settlement(payer, None, Some((reason, &error.message)));
                error.settlement = Some(Box::new(settlement));
            }
            error
        };
        let Some(payment) = headers.get(x402::PAYMENT_SIGNATURE) else {
            let message = format!(
                "payment required: at most {} OPG; see the PAYMENT-REQUIRED header (x402)",
                terms.max_amount
            );
            return Err(offer(ApiError::payment("payment_required", message), None));
        };
        let verified = self
            .cashier
            .verify(payment.as_bytes(), &terms, (digest, nonce()), unix_seconds())
            .map_err(|e| offer(e, None))?;
        if self.store.outbox_len() >= MAX_OUTBOX {
            return Err(ApiError::unavailable(
                "receipts_backlog",
                "too many receipts wait to become final; nothing was charged",
            ));
        }
        if let Some(tiers) = &self.tiers {
            let account = self.cashier.authenticated(&verified)?;
            tiers.admit(account, call.body.len()).await?;
        }
        match verified {
            Verified::Single(single) => {
                let payer = single.signed.payer();
                self.reserve(call, *single).await.map_err(|e| offer(e, Some(payer)))
            }
            Verified::Channel(channel) => {
                let payer = channel.payload.config.payer;
                self.enter(call, &channel).await.map_err(|e| offer(e, Some(payer)))
            }
        }
    }

    /// The job of a call, with a new secret.
    fn job(&self, call: &Call, quote: &SignedQuote) -> (Job, ReceiptId, String) {
        let secret = hex::encode(rand::random::<[u8; 32]>());
        let receipt_id = quote.quote().receipt_id;
        let salt = B256::from(rand::random::<[u8; 32]>());
        let job = Job {
            quote: quote.cose().clone(),
            asked: call.asked.clone(),
            runtime: self.catalogue.runtime,
            unit: call.unit,
            salt,
            body: commit::request(&salt, &call.body),
            params: commit::canonical_json(&call.params),
            method: "POST".into(),
            path: call.path.into(),
            secret_hash: secret_hash(receipt_id, &secret),
            received: call.received,
            mode: call.mode,
            attested: call.attested,
        };
        (job, receipt_id, secret)
    }

    /// Takes a call on a channel.
    async fn enter(&self, call: &Call, channel: &ChannelCall) -> Result<Admission, ApiError> {
        match self.desk.enter(channel, call.streamed).await? {
            Entry::Run(funding) => {
                let (job, receipt_id, secret) = self.job(call, &channel.quote);
                Ok(Admission::Run(Box::new(Admitted {
                    job,
                    funding: *funding,
                    receipt_id,
                    secret,
                })))
            }
            Entry::Served(finished) => {
                let extra = self
                    .desk
                    .counted(channel.payload.voucher.voucher.channel_id)
                    .map(|counted| ChargeExtra {
                        charged: finished.charged,
                        channel_state: ChannelState {
                            charged_cumulative: Some(finished.cumulative),
                            ..counted.state
                        },
                    });
                let payer = channel.payload.config.payer;
                self.again(call, ReceiptId(finished.result), payer, extra.as_ref())
            }
        }
    }

    /// The answer of an earlier call, for the same request.
    fn again(
        &self,
        call: &Call,
        id: ReceiptId,
        payer: Address,
        extra: Option<&ChargeExtra>,
    ) -> Result<Admission, ApiError> {
        let gone = || {
            let message = format!("this payment was served before, as receipt {id}; its answer is no longer kept");
            ApiError::new(StatusCode::GONE, "answer_gone", message).detail("receipt_id", id.to_string())
        };
        let stored = self.store.get(id).map_err(internal)?.ok_or_else(gone)?;
        let opening = self.store.opening(id).map_err(internal)?.ok_or_else(gone)?;
        let receipt = SignedReceipt::decode(&stored.cose).map_err(internal)?;
        if commit::request(&opening.job.salt, &call.body) != opening.job.body || opening.job.path != call.path {
            let message = "the payment identifier was used for another request";
            let conflict = ApiError::new(StatusCode::CONFLICT, "payment_identifier_used", message);
            return Err(conflict.param("extensions.payment-identifier.info.id"));
        }
        let settlement = SettleResponse {
            extra: extra.map(ChargeExtra::to_map),
            ..self.cashier.settlement(Some(payer), None, None)
        };
        Ok(Admission::Again(Box::new(Again {
            receipt,
            opening,
            headers: headers(id, None, &settlement),
        })))
    }

    async fn reserve(&self, call: &Call, verified: Single) -> Result<Admission, ApiError> {
        let payer = verified.signed.payer();
        let key = match &verified.signed {
            Signed::Authorization(authorization) => Key::from(authorization),
            Signed::Permit(permit) => Key::from(permit),
        };
        if let Some(record) = self.reservations.get(key).map_err(internal)? {
            if verified.identified
                && matches!(record.work, Work::Served { .. })
                && record.signature == verified.signature
            {
                return self.again(call, ReceiptId(record.receipt_id), payer, None);
            }
            return Err(self.replayed(&record));
        }
        let contract = self.check_payer(&verified).await?;
        let verified_upto =
            matches!(&verified.signed, Signed::Permit(permit) if matches!(permit.witness, Witness::Upto { .. }));
        let (job, receipt_id, secret) = self.job(call, &verified.quote);
        let context: Bytes = serde_json::to_vec(&job).map_err(internal)?.into();
        let (signature, receipt) = (verified.signature, receipt_id.0);
        let reserved = match verified.signed {
            Signed::Authorization(authorization) => {
                let request = Request {
                    authorization,
                    signature,
                    receipt_id: receipt,
                    context,
                    force_settle_first: contract,
                };
                self.reservations.reserve(request, unix_seconds())
            }
            Signed::Permit(permit) => {
                let request = PermitRequest {
                    permit,
                    signature,
                    receipt_id: receipt,
                    context,
                    force_settle_first: contract,
                };
                self.reservations.reserve_permit(request, unix_seconds())
            }
        };
        let Reserved { key, decision, commit } = match reserved {
            Ok(reserved) => reserved,
            Err(error @ ReserveError::Replayed { .. }) => {
                let record = self.reservations.get(key).map_err(internal)?;
                return Err(record.map_or_else(|| internal(error), |record| self.replayed(&record)));
            }
            Err(ReserveError::Journal(error)) => return Err(error.into()),
            Err(error) => return Err(internal(error)),
        };
        let record = self
            .reservations
            .get(key)
            .map_err(internal)?
            .ok_or_else(|| internal("reservation vanished"))?;
        let mut admitted = Admitted {
            job,
            funding: Funding::Single {
                record,
                commit,
                tx: None,
            },
            receipt_id,
            secret,
        };
        if decision == Decision::SettleFirst && verified_upto {
            let _ = self.reservations.fail(key, |_| Ok(()));
            let message = format!(
                "scheme upto is taken while a payer owes less than {} OPG, because it is settled after the work; nothing was charged. Use scheme exact or batch-settlement, or wait for the settlement.",
                self.exposure_cap
            );
            return Err(ApiError::payment("payment_exposure", message).param("accepted.scheme"));
        }
        if decision == Decision::SettleFirst {
            let settled = self.settle_first(&admitted, key).await?;
            if let Funding::Single { tx, .. } = &mut admitted.funding {
                *tx = Some(settled);
            }
        }
        Ok(Admission::Run(Box::new(admitted)))
    }

    /// Whether the payer is a contract; refuses a payer that did not sign or cannot pay.
    async fn check_payer(&self, verified: &Single) -> Result<bool, ApiError> {
        let payer = verified.signed.payer();
        let chain = |error: crate::rpc::RpcError| {
            tracing::warn!(%error, "payer cannot be looked up");
            ApiError::unavailable(
                "chain_unavailable",
                "no full node answers, so the payer's balance is not known; nothing was charged",
            )
        };
        let mut funds = self.funds.of(payer).await.map_err(chain)?;
        if !funds.is_contract && !verified.signed_by_payer {
            return Err(ApiError::payment(
                "payment_bad_signature",
                format!("the payment is not signed by {payer} for this chain and token"),
            )
            .param("payload.signature"));
        }
        let (open, _) = self.reservations.exposure(payer, unix_seconds());
        let needed = verified.amount.saturating_add(open);
        if funds.balance < needed {
            // The remembered balance may be older than a top-up.
            funds = self.funds.fetch(payer).await.map_err(chain)?;
        }
        if funds.balance < needed {
            let message = format!(
                "{payer} has {} OPG, needs {} OPG ({open} OPG of it for calls not settled yet)",
                funds.balance, needed
            );
            return Err(ApiError::payment("payment_insufficient_funds", message).param("payload.authorization.from"));
        }
        match &verified.signed {
            // The chain alone knows whether a permit can be used: allowance, nonce, and a contract wallet's signature.
            Signed::Permit(permit) => {
                let call = settlement_call(permit, verified.amount, &verified.signature);
                let (to, data) = call.ok_or_else(|| internal("a deposit came as a payment"))?;
                self.try_settlement(self.cashier.settlement, to, &data, chain).await?;
            }
            Signed::Authorization(a) if funds.is_contract => {
                let data = transferWithAuthorizationCall {
                    from: a.from,
                    to: a.to,
                    value: a.value,
                    validAfter: U256::from(a.valid_after),
                    validBefore: U256::from(a.valid_before),
                    nonce: a.nonce,
                    signature: verified.signature.clone(),
                }
                .abi_encode();
                self.try_settlement(addresses::FEE_VAULT, addresses::OPG, &data, chain)
                    .await?;
            }
            Signed::Authorization(_) => {}
        }
        Ok(funds.is_contract)
    }

    /// Refuses a payment that the chain would refuse now.
    async fn try_settlement(
        &self,
        from: Address,
        to: Address,
        data: &[u8],
        transient: impl Fn(crate::rpc::RpcError) -> ApiError,
    ) -> Result<(), ApiError> {
        match self.chain.simulate(from, to, data).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_transient() => Err(transient(error)),
            Err(error) => {
                let message = format!("the chain refuses the payment: {error}");
                Err(ApiError::payment("payment_bad_signature", message).param("payload.signature"))
            }
        }
    }

    /// Has the payment settled before any work (D3). A settlement whose outcome is not known keeps its transaction hash, is never
    /// sent a second time, and comes back to the payer through a receipt over nothing if it turns out to have been taken.
    async fn settle_first(&self, admitted: &Admitted, key: Key) -> Result<B256, ApiError> {
        let failed = || {
            ApiError::payment(
                "payment_settlement_failed",
                "the payment could not be settled on chain; nothing was charged",
            )
            .detail("receipt_id", admitted.receipt_id.to_string())
        };
        let give_up = || self.reservations.fail(key, |_| Ok(()));
        if let Err(error) = admitted.funding.reserved().await {
            let _ = give_up();
            return Err(error.into());
        }
        let (reply, outcome) = oneshot::channel();
        if self.settler.send(SettleNow { key, reply }).await.is_err() {
            let _ = give_up();
            return Err(ApiError::unavailable(
                "shutting_down",
                "the node is shutting down; nothing was charged",
            ));
        }
        match tokio::time::timeout(Duration::from_secs(self.limits.settle_seconds), outcome).await {
            Ok(Ok(SettleOutcome::Settled { tx })) => return Ok(tx),
            Ok(Ok(SettleOutcome::Failed)) => {
                let _ = give_up();
                return Err(failed());
            }
            Ok(Ok(SettleOutcome::Spent)) => {
                let _ = give_up();
                return Err(ApiError::payment(
                    "payment_spent",
                    "the ledger has a receipt for this payment already; nothing was charged. Sign a new payment.",
                )
                .param("payload.authorization.nonce"));
            }
            Ok(Err(_)) | Err(_) => {}
        }
        if let Ok(Some(Record {
            money: Money::Settled { tx: Some(tx) },
            ..
        })) = self.reservations.get(key)
        {
            return Ok(tx);
        }
        // From here on the work will not be done: if the money arrives after all, this receipt is what refunds it.
        let outcome = Outcome::failed(StatusCode::CONFLICT.as_u16(), unix_millis(), StreamRecord::NOT_STREAMED);
        let finished = self.finish(admitted, &outcome).await;
        match self.reservations.get(key).map_err(internal)?.map(|record| record.money) {
            Some(Money::Sent { tx }) => {
                let mut error = ApiError::new(
                    StatusCode::CONFLICT,
                    "settlement_unknown",
                    format!("the settlement of this payment is not known yet (transaction {tx}); the work was not done and a settled amount is credited back to you. Do not repeat this payment."),
                )
                .detail("transaction", tx.to_string())
                .detail("receipt_id", admitted.receipt_id.to_string());
                if let Ok(finished) = finished {
                    error = error.detail("opg", admitted.envelope(&finished, &[]));
                }
                Err(error)
            }
            _ => Err(failed()),
        }
    }

    fn replayed(&self, record: &Record) -> ApiError {
        let id = ReceiptId(record.receipt_id);
        let tx = match record.money {
            Money::Sent { tx } => Some(tx),
            Money::Settled { tx } => tx,
            _ => None,
        };
        let message = format!(
            "this payment was already used (state {}); its receipt is {id}. Sign a new payment.",
            record.state()
        );
        let mut error = ApiError::payment("payment_replayed", message)
            .param("payload.authorization.nonce")
            .detail("receipt_id", id.to_string())
            .detail("payment_state", record.state().as_str());
        if let Some(tx) = tx {
            error = error.detail("transaction", tx.to_string());
        }
        error
    }

    /// Signs the receipt, ends the reservation, and returns when both are on disk.
    pub(crate) async fn finish(&self, admitted: &Admitted, outcome: &Outcome) -> Result<Finished, ApiError> {
        let finished = self
            .store
            .finish(
                &self.books(),
                &admitted.job,
                &admitted.funding,
                outcome,
                (unix_seconds(), self.limits.opening_seconds),
            )
            .map_err(store_error)?;
        finished.commit.clone().durable().await?;
        self.metrics.receipt("executed");
        self.bond.charged(finished.receipt.core().price.charge, unix_seconds());
        match outcome.proof {
            Some(_) => self.to_prove.notify_one(),
            None => self.signed.notify_one(),
        }
        Ok(finished)
    }

    pub(crate) fn books(&self) -> Books<'_> {
        Books {
            journal: &self.journal,
            reservations: &self.reservations,
            channels: &self.desk.channels,
        }
    }

    /// Headers of a paid answer. `finished` is absent for a stream, whose headers leave before its end.
    pub(crate) fn paid_headers(&self, admitted: &Admitted, finished: Option<&Finished>) -> HeaderMap {
        let payer = Some(admitted.funding.payer());
        let settlement = match &admitted.funding {
            Funding::Single { tx, .. } => self.cashier.settlement(payer, *tx, None),
            Funding::Channel { streaming, deposit, .. } => {
                let counted = finished.and_then(|finished| finished.counted.as_ref());
                SettleResponse {
                    amount: deposit.map(|(_, amount)| amount.wei().to_string()),
                    extra: counted.or(streaming.as_ref()).map(ChargeExtra::to_map),
                    ..self.cashier.settlement(payer, deposit.map(|(tx, _)| tx), None)
                }
            }
        };
        headers(admitted.receipt_id, Some(&admitted.secret), &settlement)
    }

    /// A channel's client asks for its money back instead of an answer; `None` if this request does not.
    pub(crate) async fn refund(&self, headers_in: &HeaderMap) -> Result<Option<Response>, ApiError> {
        let Some(header) = headers_in.get(x402::PAYMENT_SIGNATURE) else {
            return Ok(None);
        };
        let payload = match PaymentPayload::from_header(header.as_bytes()) {
            Ok(payment) if payment.accepted.scheme == x402::BATCH_SETTLEMENT => BatchPayload::parse(&payment.payload),
            _ => return Ok(None),
        };
        let Ok(payload) = payload else { return Ok(None) };
        if !matches!(payload.action, BatchAction::Refund(_)) {
            return Ok(None);
        }
        let payer = payload.config.payer;
        let (tx, amount) = self.desk.refund(&payload).await.map_err(|mut error| {
            let reason = error.x402.unwrap_or(error.code);
            let settlement = self
                .cashier
                .settlement(Some(payer), None, Some((reason, &error.message)));
            error.settlement = Some(Box::new(settlement));
            error
        })?;
        let id = payload.voucher.voucher.channel_id;
        let mut extra = serde_json::Map::new();
        if let Some(counted) = self.desk.counted(id) {
            extra.insert("channelState".into(), counted.state.to_value());
        }
        let settlement = SettleResponse {
            amount: Some(amount.wei().to_string()),
            extra: Some(extra),
            ..self.cashier.settlement(Some(payer), Some(tx), None)
        };
        let body = json!({"object": "channel.refund", "channel_id": id, "amount": amount, "transaction": tx});
        let mut response = axum::Json(body).into_response();
        if let Ok(value) = HeaderValue::try_from(x402::encode_header(&settlement)) {
            response.headers_mut().insert(x402::PAYMENT_RESPONSE, value);
        }
        Ok(Some(response))
    }
}

impl Admitted {
    /// The `opg` object of the answer; for a channel with what its client counts, because the headers of a stream left before.
    pub(crate) fn envelope(&self, finished: &Finished, leaves: &[(LeafKind, Vec<u8>)]) -> Value {
        let mut envelope = self.job.envelope(&finished.receipt, leaves, Some(&self.secret));
        if let Some(counted) = &finished.counted {
            envelope["payment"] = counted.to_map().into();
        }
        envelope
    }
}

fn headers(id: ReceiptId, secret: Option<&str>, settlement: &SettleResponse) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let values = [
        ("x-opg-receipt-id", Some(id.to_string())),
        ("x-opg-receipt-secret", secret.map(ToOwned::to_owned)),
        (x402::PAYMENT_RESPONSE, Some(x402::encode_header(settlement))),
    ];
    for (name, value) in values {
        if let Some(Ok(value)) = value.map(HeaderValue::try_from) {
            headers.insert(name, value);
        }
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
    headers
}

/// A fault of this program: logged in full, told in general.
pub(crate) fn internal(error: impl std::fmt::Display) -> ApiError {
    tracing::error!(%error, "internal error");
    ApiError::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "internal_error",
        "the node failed; nothing was charged for this request",
    )
}

fn store_error(error: StoreError) -> ApiError {
    match error {
        StoreError::Journal(error) => error.into(),
        other => internal(other),
    }
}
