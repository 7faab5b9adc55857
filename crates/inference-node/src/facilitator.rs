//! x402's facilitator: `/facilitator/supported`, `/verify` and `/settle`, for servers that have no full node of their own, and for clients
//! of this node's channels that deposit or take back without a call.
//!
//! A payment is what the chain says it is: its transaction is tried out against the newest state, with the checks of amount, payee and time
//! that the chain cannot make because it does not know the offer. Nothing is kept but the hashes of transactions that were sent.

use crate::{
    channels::contract_config,
    error::ApiError,
    node::Node,
    permit::settlement_call,
    settle::{Fate, Relayed},
    time::unix_seconds,
    work::transferWithAuthorizationCall,
};
use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_sol_types::SolCall as _;
use axum::{Json, body::Bytes, extract::State};
use opg_contracts::{BatchSettlement, addresses};
use opg_payments::{
    permit2::Witness,
    x402::{
        self, BatchAction, BatchPayload, ExactPayment, SettleResponse,
        facilitator::{
            ChannelAction, FacilitatorRequest, SETTLEMENT_PENDING, SupportedKind, SupportedResponse, VerifyResponse,
            VoucherClaim,
        },
    },
};
use opg_primitives::money::Amount;
use serde_json::{Map, Value, json};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::oneshot;

/// Transactions whose hashes are remembered, so that a repeated request hears of the first one.
const MAX_SENT: usize = 4_096;
/// Gas of a payment.
const PAYMENT_GAS: u64 = 600_000;
/// Gas of channel actions: fixed part and each row of claims.
const CHANNEL_GAS: (u64, u64) = (500_000, 60_000);

/// Transactions sent for others, by the hash of their call.
#[derive(Debug, Default)]
pub(crate) struct Sent(Mutex<HashMap<B256, B256>>);

impl Sent {
    fn get(&self, call: B256) -> Option<B256> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&call)
            .copied()
    }

    fn insert(&self, call: B256, tx: B256) {
        let mut sent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if sent.len() >= MAX_SENT {
            sent.clear();
        }
        sent.insert(call, tx);
    }
}

/// Why a payment cannot be settled.
struct Invalid {
    reason: String,
    message: String,
}

fn invalid<T>(reason: &str, message: impl ToString) -> Result<T, Invalid> {
    Err(Invalid {
        reason: reason.to_owned(),
        message: message.to_string(),
    })
}

impl From<x402::X402Error> for Invalid {
    fn from(error: x402::X402Error) -> Self {
        Self {
            reason: "invalid_payload".to_owned(),
            message: error.to_string(),
        }
    }
}

impl From<ApiError> for Invalid {
    fn from(error: ApiError) -> Self {
        Self {
            reason: error.x402.unwrap_or(error.code).to_owned(),
            message: error.message,
        }
    }
}

/// What settles a payment.
struct Plan {
    payer: Option<Address>,
    amount: Amount,
    step: Step,
}

enum Step {
    /// A transaction.
    Send { to: Address, data: Vec<u8>, gas: u64 },
    /// A deposit into a channel of this node.
    Deposit(Box<BatchPayload>),
    /// A refund out of a channel of this node.
    Refund(Box<BatchPayload>),
    /// Nothing is owed.
    Nothing,
}

/// `GET /facilitator/supported`.
pub(crate) async fn supported(State(node): State<Arc<Node>>) -> Json<SupportedResponse> {
    let network = x402::network(node.cashier.chain_id);
    let account = node.cashier.settlement.to_checksum(None);
    let kind = |scheme: &str, extra: Option<Value>| SupportedKind {
        x402_version: u64::from(x402::VERSION),
        scheme: scheme.to_owned(),
        network: network.clone(),
        extra: extra.and_then(|extra| extra.as_object().cloned()),
    };
    let channels = &node.cashier.channels;
    let kinds = vec![
        kind(
            x402::BATCH_SETTLEMENT,
            Some(json!({
                "receiverAuthorizer": account,
                "withdrawDelay": channels.withdraw_delay,
                "minDeposit": channels.min_deposit,
                "payTo": node.cashier.payee.to_checksum(None),
            })),
        ),
        kind(x402::UPTO, Some(json!({"facilitatorAddress": account}))),
        kind(x402::EXACT, None),
    ];
    let mut signers = Map::new();
    signers.insert("eip155:*".to_owned(), json!([account]));
    Json(SupportedResponse {
        kinds,
        extensions: vec![x402::PAYMENT_IDENTIFIER.to_owned()],
        signers,
    })
}

/// `POST /facilitator/verify`.
pub(crate) async fn verify(State(node): State<Arc<Node>>, body: Bytes) -> Result<Json<VerifyResponse>, ApiError> {
    let request = parse(&body)?;
    let checked = async {
        let plan = node.plan(&request)?;
        node.try_out(&plan).await?;
        Ok::<_, Invalid>(plan.payer)
    };
    let (payer, refused) = match checked.await {
        Ok(payer) => (payer, None),
        Err(refused) => (None, Some(refused)),
    };
    let (invalid_reason, invalid_message) = refused.map(|r| (r.reason, r.message)).unzip();
    Ok(Json(VerifyResponse {
        is_valid: invalid_reason.is_none(),
        invalid_reason,
        invalid_message,
        payer,
        extensions: None,
        extra: None,
    }))
}

/// `POST /facilitator/settle`.
pub(crate) async fn settle(State(node): State<Arc<Node>>, body: Bytes) -> Result<Json<SettleResponse>, ApiError> {
    let request = parse(&body)?;
    if node.stopping.is_cancelled() {
        return Err(ApiError::unavailable(
            "shutting_down",
            "the node is shutting down; nothing was sent",
        ));
    }
    let plan = match node.plan(&request) {
        Ok(plan) => plan,
        Err(refused) => {
            return Ok(Json(node.cashier.settlement(
                None,
                None,
                Some((&refused.reason, &refused.message)),
            )));
        }
    };
    let (payer, amount) = (plan.payer, plan.amount);
    // The work goes on when the client leaves: what is sent is followed to its end.
    let work = Arc::clone(&node);
    let done = node.tracker.spawn(async move { work.carry_out(plan).await }).await;
    let done = done.unwrap_or_else(|panic| {
        Err((
            Invalid {
                reason: "unexpected_settle_error".to_owned(),
                message: panic.to_string(),
            },
            None,
        ))
    });
    let response = match done {
        Ok((tx, taken)) => SettleResponse {
            amount: Some(taken.unwrap_or(amount).wei().to_string()),
            ..node.cashier.settlement(payer, tx, None)
        },
        Err((refused, tx)) => node
            .cashier
            .settlement(payer, tx, Some((&refused.reason, &refused.message))),
    };
    Ok(Json(response))
}

fn parse(body: &[u8]) -> Result<FacilitatorRequest, ApiError> {
    FacilitatorRequest::parse(body).map_err(|error| ApiError::bad_request("invalid_request", error.to_string()))
}

type Carried = Result<(Option<B256>, Option<Amount>), (Invalid, Option<B256>)>;

impl Node {
    /// What would settle a payment, after the checks that need no chain.
    fn plan(&self, request: &FacilitatorRequest) -> Result<Plan, Invalid> {
        let (payment, asked) = (&request.payment_payload, &request.payment_requirements);
        let network = x402::network(self.cashier.chain_id);
        if asked.network != network {
            return invalid("invalid_network", format!("expected {network}, got {}", asked.network));
        }
        if asked.asset != addresses::OPG {
            return invalid(
                "invalid_asset",
                format!("expected {}, got {}", addresses::OPG, asked.asset),
            );
        }
        if asked.pay_to != self.cashier.payee && !self.for_others {
            let message = format!(
                "this node settles payments to its own deposit address {}",
                self.cashier.payee
            );
            return invalid("unsupported_payee", message);
        }
        let Ok(amount) = Amount::try_from(asked.amount) else {
            return invalid("invalid_amount", "the amount does not fit 128 bits");
        };
        if asked.scheme == x402::BATCH_SETTLEMENT {
            return self.plan_channel(&payment.payload, asked.pay_to);
        }
        // Under upto, the requirement's amount at settlement is the charge, below what the client accepted.
        if let Err(mismatch) = asked.matches(&payment.accepted)
            && !(asked.scheme == x402::UPTO && mismatch.field == "amount")
        {
            return invalid("invalid_payment_requirements", mismatch);
        }
        let now = unix_seconds();
        let (payer, to, data) = match asked.scheme.as_str() {
            x402::EXACT => match ExactPayment::parse(&payment.payload)? {
                ExactPayment::Eip3009(a, signature) => {
                    if a.to != asked.pay_to {
                        return invalid("invalid_exact_evm_payload_recipient_mismatch", format!("pays {}", a.to));
                    }
                    if a.value != asked.amount {
                        return invalid(
                            "invalid_exact_evm_payload_authorization_value",
                            format!("pays {} wei", a.value),
                        );
                    }
                    if !a.valid_at(now) {
                        return invalid("invalid_exact_evm_payload_authorization_valid_before", "not valid now");
                    }
                    let data = transferWithAuthorizationCall {
                        from: a.from,
                        to: a.to,
                        value: a.value,
                        validAfter: U256::from(a.valid_after),
                        validBefore: U256::from(a.valid_before),
                        nonce: a.nonce,
                        signature,
                    }
                    .abi_encode();
                    (a.from, addresses::OPG, data)
                }
                ExactPayment::Permit2(permit, signature) => {
                    if permit.amount != asked.amount {
                        return invalid("permit2_amount_mismatch", format!("pays {} wei", permit.amount));
                    }
                    self.plan_permit(&permit, asked.pay_to, amount, &signature)?
                }
            },
            x402::UPTO => {
                let (permit, signature) = x402::parse_upto(&payment.payload)?;
                if let Witness::Upto { facilitator, .. } = permit.witness
                    && facilitator != self.cashier.settlement
                {
                    return invalid("upto_facilitator_mismatch", format!("{facilitator} shall settle"));
                }
                if U256::from(amount.wei()) > permit.amount {
                    return invalid(
                        "invalid_upto_evm_payload_settlement_exceeds_amount",
                        format!("at most {} wei", permit.amount),
                    );
                }
                if amount.is_zero() {
                    return Ok(Plan {
                        payer: Some(permit.from),
                        amount,
                        step: Step::Nothing,
                    });
                }
                self.plan_permit(&permit, asked.pay_to, amount, &signature)?
            }
            other => {
                return invalid(
                    "unsupported_scheme",
                    format!("scheme {other:?} is not one of /facilitator/supported"),
                );
            }
        };
        Ok(Plan {
            payer: Some(payer),
            amount,
            step: Step::Send {
                to,
                data,
                gas: PAYMENT_GAS,
            },
        })
    }

    fn plan_permit(
        &self,
        permit: &opg_payments::permit2::Permit,
        pay_to: Address,
        amount: Amount,
        signature: &alloy_primitives::Bytes,
    ) -> Result<(Address, Address, Vec<u8>), Invalid> {
        if permit.token != addresses::OPG {
            return invalid("permit2_token_mismatch", format!("for token {}", permit.token));
        }
        if permit.payee() != Some(pay_to) {
            return invalid(
                "invalid_permit2_recipient_mismatch",
                format!("pays {:?}", permit.payee()),
            );
        }
        if !permit.valid_at(unix_seconds()) {
            return invalid("permit2_deadline_expired", "not valid now");
        }
        match settlement_call(permit, amount, signature) {
            Some((to, data)) => Ok((permit.from, to, data)),
            None => invalid("invalid_payload", "a deposit pays nobody"),
        }
    }

    fn plan_channel(&self, payload: &Value, pay_to: Address) -> Result<Plan, Invalid> {
        let kind = payload.get("type").and_then(Value::as_str).unwrap_or_default();
        let from_server = kind == "claim" || kind == "settle" || payload.get("refundNonce").is_some();
        if from_server {
            return self.plan_action(ChannelAction::parse(payload)?);
        }
        let payload = BatchPayload::parse(payload)?;
        if payload.config.receiver != pay_to {
            return invalid(
                "invalid_batch_settlement_evm_receiver_mismatch",
                format!("pays {}", payload.config.receiver),
            );
        }
        payload.bind(&self.cashier.domains.channels)?;
        let payer = Some(payload.config.payer);
        let own = payload.config.receiver == self.cashier.payee;
        match &payload.action {
            BatchAction::Deposit(signed) if !own => Ok(Plan {
                payer,
                amount: signed.deposit.amount,
                step: Step::Send {
                    to: addresses::BATCH_SETTLEMENT,
                    data: BatchSettlement::depositCall {
                        config: contract_config(&payload.config),
                        amount: signed.deposit.amount.wei(),
                        collector: signed.deposit.collector().address(),
                        collectorData: signed.deposit.collector_data(&signed.signature),
                    }
                    .abi_encode(),
                    gas: CHANNEL_GAS.0,
                },
            }),
            BatchAction::Deposit(signed) => Ok(Plan {
                payer,
                amount: signed.deposit.amount,
                step: Step::Deposit(Box::new(payload)),
            }),
            BatchAction::Refund(amount) if own => Ok(Plan {
                payer,
                amount: amount.unwrap_or_default(),
                step: Step::Refund(Box::new(payload)),
            }),
            BatchAction::Refund(_) => invalid(
                "invalid_batch_settlement_evm_receiver_mismatch",
                "ask the receiver of the channel for a refund",
            ),
            // A voucher is checked by whoever keeps the books of the channel; nothing is settled for it.
            BatchAction::Voucher => invalid("unsupported_payload_type", "a voucher is settled by a claim"),
        }
    }

    fn plan_action(&self, action: ChannelAction) -> Result<Plan, Invalid> {
        let row = |claim: &VoucherClaim| BatchSettlement::VoucherClaim {
            voucher: BatchSettlement::Voucher {
                channel: contract_config(&claim.config),
                maxClaimableAmount: claim.max_claimable.wei(),
            },
            signature: claim.signature.clone(),
            totalClaimed: claim.total_claimed.wei(),
        };
        let gas = |rows: usize| CHANNEL_GAS.0 + CHANNEL_GAS.1 * rows as u64;
        let unsigned = || Invalid {
            reason: "invalid_batch_settlement_evm_authorizer_signature".to_owned(),
            message: "the receiver's authorizer has to sign".to_owned(),
        };
        let (data, gas) = match action {
            ChannelAction::Claim {
                claims,
                authorizer_signature,
            } => {
                let call = BatchSettlement::claimWithSignatureCall {
                    voucherClaims: claims.iter().map(row).collect(),
                    authorizerSignature: authorizer_signature.ok_or_else(unsigned)?,
                };
                (call.abi_encode(), gas(claims.len()))
            }
            ChannelAction::Settle { receiver, token } => {
                (BatchSettlement::settleCall { receiver, token }.abi_encode(), gas(0))
            }
            ChannelAction::Refund {
                config,
                amount,
                nonce,
                claims,
                refund_signature,
                claim_signature,
            } => {
                let mut calls = Vec::with_capacity(2);
                if !claims.is_empty() {
                    let claim = BatchSettlement::claimWithSignatureCall {
                        voucherClaims: claims.iter().map(row).collect(),
                        authorizerSignature: claim_signature.ok_or_else(unsigned)?,
                    };
                    calls.push(claim.abi_encode().into());
                }
                let refund = BatchSettlement::refundWithSignatureCall {
                    config: contract_config(&config),
                    amount: amount.wei(),
                    nonce,
                    receiverAuthorizerSignature: refund_signature.ok_or_else(unsigned)?,
                };
                calls.push(refund.abi_encode().into());
                (
                    BatchSettlement::multicallCall { data: calls }.abi_encode(),
                    gas(claims.len()),
                )
            }
        };
        Ok(Plan {
            payer: None,
            amount: Amount::ZERO,
            step: Step::Send {
                to: addresses::BATCH_SETTLEMENT,
                data,
                gas,
            },
        })
    }

    /// Whether the chain would take it now.
    async fn try_out(&self, plan: &Plan) -> Result<(), Invalid> {
        let (to, data) = match &plan.step {
            Step::Send { to, data, .. } => (*to, data.clone()),
            Step::Deposit(payload) => match &payload.action {
                BatchAction::Deposit(signed) => {
                    let call = BatchSettlement::depositCall {
                        config: contract_config(&payload.config),
                        amount: signed.deposit.amount.wei(),
                        collector: signed.deposit.collector().address(),
                        collectorData: signed.deposit.collector_data(&signed.signature),
                    };
                    (addresses::BATCH_SETTLEMENT, call.abi_encode())
                }
                _ => return Ok(()),
            },
            Step::Refund(_) | Step::Nothing => return Ok(()),
        };
        match self.chain.simulate(self.cashier.settlement, to, &data).await {
            Ok(_) => Ok(()),
            Err(error) if error.is_transient() => invalid("chain_unavailable", error),
            Err(error) => invalid("invalid_transaction_state", format!("the chain refuses it: {error}")),
        }
    }

    async fn carry_out(&self, plan: Plan) -> Carried {
        let refused = |refused: Invalid| (refused, None);
        match plan.step {
            Step::Nothing => Ok((None, None)),
            Step::Deposit(payload) => {
                let BatchAction::Deposit(signed) = &payload.action else {
                    return Ok((None, None));
                };
                let tx = self
                    .desk
                    .deposit(&payload, signed)
                    .await
                    .map_err(|error| refused(error.into()))?;
                Ok((Some(tx), None))
            }
            Step::Refund(payload) => {
                let (tx, amount) = self
                    .desk
                    .refund(&payload)
                    .await
                    .map_err(|error| refused(error.into()))?;
                Ok((Some(tx), Some(amount)))
            }
            Step::Send { to, ref data, gas } => {
                let call = keccak256([to.as_slice(), data].concat());
                if let Some(tx) = self.sent.get(call) {
                    return self.known(tx).await;
                }
                self.try_out(&plan).await.map_err(refused)?;
                self.send(to, data.clone(), gas, call).await
            }
        }
    }

    /// A transaction that was sent for an earlier copy of the request.
    async fn known(&self, tx: B256) -> Carried {
        let pending = |message: &str| {
            let refused = Invalid {
                reason: SETTLEMENT_PENDING.to_owned(),
                message: message.to_owned(),
            };
            Err((refused, Some(tx)))
        };
        match self.chain.transaction_status(tx).await {
            Ok(Some(true)) => Ok((Some(tx), None)),
            Ok(Some(false)) => Err((
                Invalid {
                    reason: "transaction_failed".to_owned(),
                    message: "the transaction was included and failed".to_owned(),
                },
                Some(tx),
            )),
            Ok(None) => pending("the transaction is not in a block yet: ask again"),
            Err(_) => pending("no full node answers: ask again"),
        }
    }

    async fn send(&self, to: Address, data: Vec<u8>, gas: u64, call: B256) -> Carried {
        let (reply, fate) = oneshot::channel();
        let sent = Arc::clone(&self.sent);
        let relayed = Relayed {
            to,
            data,
            gas,
            record: Some(Box::new(move |tx| {
                sent.insert(call, tx);
                Ok(Vec::new())
            })),
            reply,
        };
        let failed = |message: &str| Invalid {
            reason: "transaction_failed".to_owned(),
            message: message.to_owned(),
        };
        if self.desk.relay.send(relayed).await.is_err() {
            return Err((failed("the node is shutting down"), None));
        }
        let patience = Duration::from_secs(self.limits.settle_seconds);
        match tokio::time::timeout(patience, fate).await {
            Ok(Ok(Fate::Included { tx, success: true })) => Ok((Some(tx), None)),
            Ok(Ok(Fate::Included { tx, success: false })) => {
                Err((failed("the transaction was included and failed"), Some(tx)))
            }
            Ok(Ok(Fate::Never) | Err(_)) => Err((failed("the transaction was not sent"), None)),
            Err(_) => match self.sent.get(call) {
                Some(tx) => self.known(tx).await,
                None => Err((failed("the transaction is waiting to be sent: ask again"), None)),
            },
        }
    }
}
