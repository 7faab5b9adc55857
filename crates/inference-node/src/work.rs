//! From a checked request to a reserved, and where needed settled, payment; and from the result to the receipt.

use crate::{
    attest::Attested,
    catalogue::Served,
    error::ApiError,
    job::{Job, Outcome, secret_hash},
    node::Node,
    offer::Verified,
    settle::{SettleNow, SettleOutcome},
    store::{Finished, MAX_OUTBOX, StoreError},
    time::{unix_millis, unix_seconds},
};
use alloy_primitives::{Address, B256, Bytes, hex};
use alloy_sol_types::SolCall as _;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use opg_contracts::addresses;
use opg_payments::{
    journal::Commit,
    reserve::{Decision, Key, Money, Record, Request, ReserveError, Reserved},
    x402,
};
use opg_primitives::{
    ids::ReceiptId,
    mode::{Grade, Mode},
    money::Usage,
};
use opg_receipt::{StreamRecord, UsageUnit, commit, quote::request_digest};
use serde_json::Value;
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
    pub(crate) record: Record,
    pub(crate) receipt_id: ReceiptId,
    /// Bearer secret of the receipt (D11).
    pub(crate) secret: String,
    /// The reservation on its way to the disk.
    pub(crate) commit: Commit,
    /// Settlement before work.
    pub(crate) tx: Option<B256>,
}

impl Node {
    /// Checks and reserves the payment of a call; answers 402 with an offer if there is none.
    pub(crate) async fn admit(&self, call: &Call, headers: &HeaderMap) -> Result<Admitted, ApiError> {
        let terms = call.served.terms(call.most, call.mode, call.grade()).map_err(|e| {
            tracing::error!(error = %e, model = call.asked, "price does not fit");
            ApiError::unavailable("price_unavailable", "the price of this request cannot be expressed")
        })?;
        let digest = request_digest("POST", call.path, &call.body);
        let offer = |mut error: ApiError, payer: Option<Address>| {
            if error.status == StatusCode::PAYMENT_REQUIRED {
                let url = format!("{}{}", self.url, call.path);
                match self.cashier.offer(
                    &terms,
                    digest,
                    rand::random::<[u8; 32]>().into(),
                    url,
                    unix_seconds(),
                    &error.message,
                ) {
                    Ok(offer) => error.offer = Some(Box::new(offer)),
                    Err(e) => tracing::error!(error = %e, "quote cannot be signed"),
                }
            }
            if error.code != "payment_required" {
                let settlement = self.cashier.settlement(payer, None, Some((error.code, &error.message)));
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
            .verify(payment.as_bytes(), &terms, digest, unix_seconds())
            .map_err(|e| offer(e, None))?;
        let payer = verified.authorization.from;
        self.reserve(call, verified).await.map_err(|e| offer(e, Some(payer)))
    }

    async fn reserve(&self, call: &Call, verified: Verified) -> Result<Admitted, ApiError> {
        let key = Key::from(&verified.authorization);
        if let Some(record) = self.reservations.get(key).map_err(internal)? {
            return Err(self.replayed(&record));
        }
        if self.store.outbox_len() >= MAX_OUTBOX {
            return Err(ApiError::unavailable(
                "receipts_backlog",
                "too many receipts wait to become final; nothing was charged",
            ));
        }
        let contract = self.check_payer(&verified).await?;
        let secret = hex::encode(rand::random::<[u8; 32]>());
        let receipt_id = verified.quote.quote().receipt_id;
        let salt = B256::from(rand::random::<[u8; 32]>());
        let job = Job {
            quote: verified.quote.cose().clone(),
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
        let context: Bytes = serde_json::to_vec(&job).map_err(internal)?.into();
        let request = Request {
            authorization: verified.authorization,
            signature: verified.signature,
            receipt_id: receipt_id.0,
            context,
            force_settle_first: contract,
        };
        let Reserved { key, decision, commit } = match self.reservations.reserve(request, unix_seconds()) {
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
            record,
            receipt_id,
            secret,
            commit,
            tx: None,
        };
        if decision == Decision::SettleFirst {
            admitted.tx = Some(self.settle_first(&admitted).await?);
        }
        Ok(admitted)
    }

    /// Whether the payer is a contract; refuses a payer that did not sign or cannot pay.
    async fn check_payer(&self, verified: &Verified) -> Result<bool, ApiError> {
        let payer = verified.authorization.from;
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
                format!("the authorization is not signed by {payer} for this chain and token"),
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
        if funds.is_contract {
            let a = &verified.authorization;
            let call = transferWithAuthorizationCall {
                from: a.from,
                to: a.to,
                value: a.value,
                validAfter: alloy_primitives::U256::from(a.valid_after),
                validBefore: alloy_primitives::U256::from(a.valid_before),
                nonce: a.nonce,
                signature: verified.signature.clone(),
            };
            match self
                .chain
                .simulate(addresses::FEE_VAULT, addresses::OPG, &call.abi_encode())
                .await
            {
                Ok(_) => {}
                Err(error) if error.is_transient() => return Err(chain(error)),
                Err(error) => {
                    let message = format!("the token refuses the contract wallet's authorization: {error}");
                    return Err(ApiError::payment("payment_bad_signature", message).param("payload.signature"));
                }
            }
        }
        Ok(funds.is_contract)
    }

    /// Has the payment settled before any work (D3). A settlement whose outcome is not known keeps its transaction hash, is never
    /// sent a second time, and comes back to the payer through a receipt over nothing if it turns out to have been taken.
    async fn settle_first(&self, admitted: &Admitted) -> Result<B256, ApiError> {
        let key = admitted.record.key();
        let failed = || {
            ApiError::payment(
                "payment_settlement_failed",
                "the payment could not be settled on chain; nothing was charged",
            )
            .detail("receipt_id", admitted.receipt_id.to_string())
        };
        let give_up = || self.reservations.fail(key, |_| Ok(()));
        if let Err(error) = admitted.commit.clone().durable().await {
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
                    error = error.detail("opg", admitted.job.envelope(&finished, &[], Some(&admitted.secret)));
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
    pub(crate) async fn finish(
        &self,
        admitted: &Admitted,
        outcome: &Outcome,
    ) -> Result<opg_receipt::SignedReceipt, ApiError> {
        let keep = unix_seconds() + self.limits.opening_seconds;
        let Finished { receipt, commit } = self
            .store
            .finish(&self.reservations, &admitted.job, &admitted.record, outcome, keep)
            .map_err(store_error)?;
        commit.durable().await?;
        self.metrics.receipt("executed");
        match outcome.proof {
            Some(_) => self.to_prove.notify_one(),
            None => self.signed.notify_one(),
        }
        Ok(receipt)
    }

    /// Headers of a paid answer.
    pub(crate) fn paid_headers(&self, admitted: &Admitted) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let settlement = self
            .cashier
            .settlement(Some(admitted.record.authorization.from), admitted.tx, None);
        for (name, value) in [
            ("x-opg-receipt-id", admitted.receipt_id.to_string()),
            ("x-opg-receipt-secret", admitted.secret.clone()),
            (x402::PAYMENT_RESPONSE, x402::encode_header(&settlement)),
        ] {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private"));
        headers
    }
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
