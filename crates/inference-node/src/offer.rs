//! Quotes and the checks of a payment, before anything is reserved. No I/O.

use crate::{
    config::{ChannelSettings, to_amount},
    error::ApiError,
};
use alloy_primitives::{Address, B256, Bytes, U256};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::SigningKey;
use opg_contracts::addresses;
use opg_payments::{
    channel::ReceiverTerms,
    eip712::Domain,
    eip3009::{self, Authorization},
    permit2::{Permit, Witness},
    receipt_payment::Domains,
    x402::{
        self, BatchExtra, BatchPayload, ChannelState, ExactPayment, Identifier, PaymentPayload, PaymentRequired,
        PaymentRequirements, Resource, SettleResponse, VoucherState,
    },
};
use opg_primitives::{
    ids::{KeysetDigest, ModelRoot, NodeId, deposit_address},
    mode::{Grade, Mode},
    money::{Amount, Price},
};
use opg_receipt::{Quote, SignedQuote, receipt_id};
use serde_json::{Map, Value};

/// Largest quote in a payment, base64 characters: a quote is a few hundred bytes.
const MAX_QUOTE_TEXT: usize = 4 * 1024;

/// What a node signs quotes and checks payments with.
#[derive(Debug)]
pub(crate) struct Cashier {
    pub(crate) chain_id: u64,
    pub(crate) node_id: NodeId,
    pub(crate) keyset: KeysetDigest,
    pub(crate) key: SigningKey,
    pub(crate) domains: Domains,
    pub(crate) payee: Address,
    /// Account of the settlement key: it signs claims and sends settlements.
    pub(crate) settlement: Address,
    pub(crate) channels: ChannelSettings,
    pub(crate) quote_seconds: u64,
    pub(crate) payment_seconds: u64,
    pub(crate) min_validity_seconds: u64,
}

/// What a request would cost at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) model_root: ModelRoot,
    pub(crate) ask: Price,
    /// The ask follows a price in USD: a quote holds for its time although the ask has moved on.
    pub(crate) floating: bool,
    pub(crate) royalty_bps: u16,
    pub(crate) max_amount: Amount,
    /// Mode asked for.
    pub(crate) mode: Mode,
    /// Grade of the evidence that is promised.
    pub(crate) min_grade: Grade,
}

/// A payment that passed every check that needs no chain and no memory.
#[derive(Debug, Clone)]
pub(crate) enum Verified {
    /// By an authorization or permit of its own.
    Single(Box<Single>),
    /// Out of a channel.
    Channel(Box<ChannelCall>),
}

/// A payment by authorization or permit.
#[derive(Debug, Clone)]
pub(crate) struct Single {
    pub(crate) quote: SignedQuote,
    pub(crate) signed: Signed,
    pub(crate) signature: Bytes,
    pub(crate) amount: Amount,
    /// The payer's key signed it. If not, the payer may be a contract, whose signature only the chain can check.
    pub(crate) signed_by_payer: bool,
    /// The client wants the same answer again if this payment was served.
    pub(crate) identified: bool,
}

/// What a payer signed for one payment.
#[derive(Debug, Clone)]
pub(crate) enum Signed {
    /// ERC-3009.
    Authorization(Authorization),
    /// Permit2.
    Permit(Permit),
}

impl Signed {
    /// Who pays.
    pub(crate) const fn payer(&self) -> Address {
        match self {
            Self::Authorization(authorization) => authorization.from,
            Self::Permit(permit) => permit.from,
        }
    }
}

/// A call that a channel pays for.
#[derive(Debug, Clone)]
pub(crate) struct ChannelCall {
    pub(crate) quote: SignedQuote,
    pub(crate) payload: BatchPayload,
    /// The most that the call can cost.
    pub(crate) bound: Amount,
    pub(crate) identifier: Option<Identifier>,
    pub(crate) headroom: bool,
}

/// What brings the client of a channel back in step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) state: ChannelState,
    pub(crate) voucher: Option<VoucherState>,
}

impl Cashier {
    pub(crate) fn new(
        chain_id: u64,
        node_id: NodeId,
        keyset: KeysetDigest,
        key: SigningKey,
        settlement: Address,
        (limits, channels): (&crate::config::Limits, ChannelSettings),
    ) -> Self {
        Self {
            chain_id,
            node_id,
            keyset,
            key,
            domains: Domains::new(chain_id, addresses::OPG),
            payee: deposit_address(addresses::FEE_VAULT, addresses::DEPOSIT_IMPLEMENTATION, node_id),
            settlement,
            channels,
            quote_seconds: limits.quote_seconds,
            payment_seconds: limits.payment_seconds,
            min_validity_seconds: limits.min_validity_seconds,
        }
    }

    /// What this node demands of channels.
    pub(crate) const fn receiver_terms(&self) -> ReceiverTerms {
        ReceiverTerms {
            receiver: self.payee,
            receiver_authorizer: self.settlement,
            token: addresses::OPG,
            min_withdraw_delay: self.channels.withdraw_delay,
        }
    }

    fn quote_of(
        &self,
        terms: &Terms,
        max_amount: Amount,
        request_digest: B256,
        nonce: B256,
        now: u64,
    ) -> Result<SignedQuote, opg_receipt::ReceiptError> {
        let quote = Quote {
            chain_id: self.chain_id,
            node_id: self.node_id,
            keyset: self.keyset,
            nonce,
            receipt_id: receipt_id(self.chain_id, &self.node_id, &nonce),
            request_digest,
            model_root: terms.model_root,
            ask: terms.ask,
            royalty_bps: terms.royalty_bps,
            max_amount,
            payee: self.payee,
            asset: addresses::OPG,
            expires: now + self.quote_seconds,
            mode_asked: terms.mode,
            min_grade: terms.min_grade,
        };
        SignedQuote::sign(quote, &self.key)
    }

    /// The account whose key signed a payment: what a request merely names gives no tier and uses up nobody's rate. Contract wallets have none,
    /// as the chain alone can check their signatures.
    pub(crate) fn authenticated(&self, verified: &Verified) -> Result<Address, ApiError> {
        let account = match verified {
            Verified::Single(single) => single.signed_by_payer.then(|| single.signed.payer()),
            Verified::Channel(call) => {
                let (voucher, config) = (&call.payload.voucher, &call.payload.config);
                // A payer may let another key of its own sign; only itself has its tier.
                let signer = voucher.voucher.recover(
                    &Domain::batch_settlement(self.chain_id),
                    &voucher.signature,
                    config.payer,
                );
                signer.is_ok().then_some(config.payer)
            }
        };
        account.ok_or_else(|| {
            let message =
                "this node holds callers to the tier of the account that signs: pay with the key of the payer itself";
            ApiError::payment("tier_unauthenticated", message).param("payload.signature")
        })
    }

    /// Signs a quote for a request and wraps it into x402's offers: batch-settlement, upto, exact.
    ///
    /// `error` is a sentence, or the word that a client of a channel acts on; then `counted` is what it adopts.
    pub(crate) fn offer(
        &self,
        terms: &Terms,
        (request_digest, nonce): (B256, B256),
        url: String,
        now: u64,
        error: &str,
        counted: Option<&Counted>,
    ) -> Result<PaymentRequired, opg_receipt::ReceiptError> {
        let quote = self.quote_of(terms, terms.max_amount, request_digest, nonce, now)?;
        let ways = self.ways(terms, counted);
        let accepts = ways
            .into_iter()
            .map(|mut way| {
                let extra = way.extra.get_or_insert_default();
                extra.insert("receiptId".into(), quote.quote().receipt_id.to_string().into());
                extra.insert("quote".into(), URL_SAFE_NO_PAD.encode(quote.cose()).into());
                way
            })
            .collect();
        let mut extensions = Map::new();
        extensions.insert(x402::PAYMENT_IDENTIFIER.into(), x402::identifier_offer(false));
        extensions.insert(x402::HEADROOM.into(), x402::headroom_offer());
        Ok(PaymentRequired {
            x402_version: u64::from(x402::VERSION),
            error: Some(error.to_owned()),
            resource: Resource {
                url,
                description: None,
                mime_type: Some("application/json".to_owned()),
            },
            accepts,
            extensions: Some(extensions),
        })
    }

    /// Every way to pay for a request, in the order of preference.
    fn ways(&self, terms: &Terms, counted: Option<&Counted>) -> Vec<PaymentRequirements> {
        let token = [("name", eip3009::OPG_NAME), ("version", eip3009::OPG_VERSION)];
        let way = |scheme: &str, more: &[(&str, &str)]| {
            let extra: Map<String, Value> = token
                .iter()
                .chain(more)
                .map(|(key, value)| ((*key).to_owned(), (*value).into()))
                .collect();
            PaymentRequirements {
                extra: Some(extra),
                ..self.requirements(scheme, terms.max_amount)
            }
        };
        let mut ways = Vec::with_capacity(4);
        // An answer that is proven later may never earn its payment, and a claim cannot be taken back.
        if terms.mode != Mode::Zk {
            let extra = BatchExtra {
                receiver_authorizer: self.settlement,
                withdraw_delay: self.channels.withdraw_delay,
                name: eip3009::OPG_NAME.into(),
                version: eip3009::OPG_VERSION.into(),
                by_permit2: false,
                min_deposit: Some(self.channels.min_deposit.max(terms.max_amount)),
                channel_state: counted.map(|counted| counted.state),
                voucher_state: counted.and_then(|counted| counted.voucher.clone()),
            };
            ways.push(PaymentRequirements {
                extra: Some(extra.to_map()),
                ..self.requirements(x402::BATCH_SETTLEMENT, terms.max_amount)
            });
        }
        let facilitator = self.settlement.to_checksum(None);
        let permit2 = ("assetTransferMethod", x402::PERMIT2_METHOD);
        ways.push(way(x402::UPTO, &[permit2, ("facilitatorAddress", &facilitator)]));
        ways.push(way(x402::EXACT, &[]));
        ways.push(way(x402::EXACT, &[permit2]));
        ways
    }

    fn requirements(&self, scheme: &str, amount: Amount) -> PaymentRequirements {
        PaymentRequirements {
            scheme: scheme.to_owned(),
            network: x402::network(self.chain_id),
            amount: U256::from(amount.wei()),
            asset: addresses::OPG,
            pay_to: self.payee,
            max_timeout_seconds: self.payment_seconds,
            extra: None,
        }
    }

    /// Checks a payment header against the request that it came with. `nonce` is that of a quote that the node makes itself, for a call on
    /// a channel that came without one.
    ///
    /// # Errors
    /// 400 for what cannot be decoded, 402 naming the field for what is not this payment.
    pub(crate) fn verify(
        &self,
        header: &[u8],
        terms: &Terms,
        (request_digest, nonce): (B256, B256),
        now: u64,
    ) -> Result<Verified, ApiError> {
        let payment = PaymentPayload::from_header(header).map_err(malformed)?;
        match payment.accepted.scheme.as_str() {
            x402::BATCH_SETTLEMENT => self
                .verify_channel(&payment, terms, (request_digest, nonce), now)
                .map(|call| Verified::Channel(Box::new(call))),
            _ => self
                .verify_single(&payment, terms, request_digest, now)
                .map(|single| Verified::Single(Box::new(single))),
        }
    }

    fn verify_single(
        &self,
        payment: &PaymentPayload,
        terms: &Terms,
        request_digest: B256,
        now: u64,
    ) -> Result<Single, ApiError> {
        let upto = payment.accepted.scheme == x402::UPTO;
        let (signed, signature) = if upto {
            let (permit, signature) = x402::parse_upto(&payment.payload).map_err(malformed)?;
            (Signed::Permit(permit), signature)
        } else {
            match ExactPayment::parse(&payment.payload).map_err(malformed)? {
                ExactPayment::Eip3009(authorization, signature) => (Signed::Authorization(authorization), signature),
                ExactPayment::Permit2(permit, signature) => (Signed::Permit(permit), signature),
            }
        };
        let quote = self.quote(&payment.accepted)?;
        let q = quote.quote();
        match &signed {
            Signed::Authorization(authorization) => self.check_authorization(authorization, q.max_amount, now)?,
            Signed::Permit(permit) => self.check_permit(permit, q.max_amount, now)?,
        }
        self.check_accepted(payment, if upto { x402::UPTO } else { x402::EXACT }, q.max_amount)?;
        self.check_quoted(&quote, terms, request_digest, now)?;
        let payer = signed.payer();
        let signed_by_payer = match &signed {
            Signed::Authorization(authorization) => authorization.recover(&self.domains.token, &signature),
            Signed::Permit(permit) => permit.recover(&self.domains.permit2, &signature),
        }
        .is_ok_and(|signer| signer == payer);
        let identified = Identifier::of(payment, false).map_err(malformed)?.is_some();
        let amount = q.max_amount;
        Ok(Single {
            quote,
            signed,
            signature,
            amount,
            signed_by_payer,
            identified,
        })
    }

    fn verify_channel(
        &self,
        payment: &PaymentPayload,
        terms: &Terms,
        (request_digest, nonce): (B256, B256),
        now: u64,
    ) -> Result<ChannelCall, ApiError> {
        if terms.mode == Mode::Zk {
            let message =
                "mode zk is not paid out of channels, because its answer is proven later: pay by scheme exact";
            return Err(ApiError::payment("payment_wrong_scheme", message).param("accepted.scheme"));
        }
        let payload = BatchPayload::parse(&payment.payload).map_err(malformed)?;
        let quoted = self.quote(&payment.accepted).ok();
        let quoted = quoted.filter(|quote| self.check_quoted(quote, terms, request_digest, now).is_ok());
        // A quote in time is kept, whatever became of the price meanwhile.
        let least = match &quoted {
            Some(quote) if terms.floating => quote.quote().max_amount.min(terms.max_amount),
            _ => terms.max_amount,
        };
        self.check_accepted(payment, x402::BATCH_SETTLEMENT, least)?;
        let Some(bound) = to_amount(payment.accepted.amount) else {
            let message = "accepted.amount does not fit 128 bits";
            return Err(ApiError::bad_request("payment_malformed", message).param("accepted.amount"));
        };
        let ceiling = payload.voucher.voucher.max_claimable;
        if ceiling < bound {
            let message = format!("the voucher covers {ceiling} OPG, the call can cost {bound} OPG");
            return Err(ApiError::payment("payment_underpaid", message).param("payload.voucher.maxClaimableAmount"));
        }
        let identifier = Identifier::of(payment, false).map_err(malformed)?;
        // A client that signs before it is asked has no quote of this request; the bound that it signed is its protection.
        let quote = match quoted {
            Some(quote) if quote.quote().max_amount == bound => quote,
            _ if bound < terms.max_amount => {
                return Err(quote_error(
                    "payment_quote_stale",
                    "the amount is not that of the quote, and less than the price now",
                ));
            }
            _ => self
                .quote_of(terms, bound, request_digest, nonce, now)
                .map_err(crate::work::internal)?,
        };
        Ok(ChannelCall {
            quote,
            payload,
            bound,
            identifier,
            headroom: x402::wants_headroom(payment),
        })
    }

    fn check_accepted(&self, payment: &PaymentPayload, scheme: &str, amount: Amount) -> Result<(), ApiError> {
        self.requirements(scheme, amount)
            .matches(&payment.accepted)
            .map_err(|m| {
                let code = match m.field {
                    "scheme" => "payment_wrong_scheme",
                    "network" => "payment_wrong_network",
                    "asset" => "payment_wrong_asset",
                    "payTo" => "payment_wrong_payee",
                    _ => "payment_underpaid",
                };
                ApiError::payment(code, m.to_string()).param(format!("accepted.{}", m.field))
            })
    }

    fn check_quoted(&self, quote: &SignedQuote, terms: &Terms, request_digest: B256, now: u64) -> Result<(), ApiError> {
        let q = quote.quote();
        if q.request_digest != request_digest {
            return Err(quote_error(
                "payment_wrong_request",
                "the quote was made for another request: method, path and body must be those of the quote",
            ));
        }
        if now >= q.expires {
            return Err(quote_error(
                "payment_expired",
                &format!("the quote expired at {}", q.expires),
            ));
        }
        let mode = (q.mode_asked, q.min_grade) == (terms.mode, terms.min_grade);
        let ask = terms.floating || q.ask == terms.ask;
        if q.model_root != terms.model_root || !ask || q.royalty_bps != terms.royalty_bps || !mode {
            return Err(quote_error(
                "payment_quote_stale",
                "the price has changed since the quote",
            ));
        }
        Ok(())
    }

    /// The node's own quote out of an accepted requirement.
    fn quote(&self, accepted: &PaymentRequirements) -> Result<SignedQuote, ApiError> {
        let bad = |problem: &str| quote_error("payment_quote_invalid", problem);
        let text = accepted
            .extra_str("quote")
            .ok_or_else(|| bad("accepted.extra.quote is missing: take the requirement from this node's 402 answer"))?;
        if text.len() > MAX_QUOTE_TEXT {
            return Err(bad("accepted.extra.quote is too long"));
        }
        let bytes = URL_SAFE_NO_PAD
            .decode(text)
            .map_err(|_| bad("accepted.extra.quote is not base64url"))?;
        let quote = SignedQuote::decode(&bytes).map_err(|e| bad(&format!("accepted.extra.quote: {e}")))?;
        if quote.quote().node_id != self.node_id {
            // Another node's offer: the most useful thing to say is whom it pays.
            return Err(ApiError::payment(
                "payment_wrong_payee",
                format!(
                    "the payment is made out to node {}, this is node {}",
                    quote.quote().node_id,
                    self.node_id
                ),
            )
            .param("accepted.payTo"));
        }
        if quote.quote().chain_id != self.chain_id || quote.quote().keyset != self.keyset {
            return Err(bad("accepted.extra.quote was not made by this node's present keys"));
        }
        quote
            .verify_signature(&self.key.verifying_key().to_bytes())
            .map_err(|_| bad("accepted.extra.quote has a wrong signature"))?;
        Ok(quote)
    }

    fn check_authorization(&self, authorization: &Authorization, quoted: Amount, now: u64) -> Result<(), ApiError> {
        let a = authorization;
        // The chain's clock may be a little behind ours.
        self.check_signed("payload.authorization", ("to", a.to), ("value", a.value), quoted)?;
        if a.valid_after >= now {
            let message = format!("valid after {}, now is {now}", a.valid_after);
            return Err(early("payload.authorization.validAfter", message));
        }
        self.check_time("payload.authorization.validBefore", a.valid_before, now)
    }

    fn check_permit(&self, permit: &Permit, quoted: Amount, now: u64) -> Result<(), ApiError> {
        const PATH: &str = "payload.permit2Authorization";
        let (to, valid_after) = match permit.witness {
            Witness::Exact { to, valid_after } => (to, valid_after),
            Witness::Upto {
                to,
                facilitator,
                valid_after,
            } => {
                if facilitator != self.settlement {
                    let message = format!("{facilitator} shall settle, this node settles as {}", self.settlement);
                    let error = ApiError::payment("payment_wrong_facilitator", message);
                    return Err(error.param(format!("{PATH}.witness.facilitator")));
                }
                (to, valid_after)
            }
            Witness::Deposit { .. } => return Err(ApiError::bad_request("payment_malformed", "a deposit pays nobody")),
        };
        if permit.token != addresses::OPG {
            let message = format!("the permit is for token {}, expected {}", permit.token, addresses::OPG);
            return Err(ApiError::payment("payment_wrong_asset", message).param(format!("{PATH}.permitted.token")));
        }
        self.check_signed(PATH, ("witness.to", to), ("permitted.amount", permit.amount), quoted)?;
        if valid_after > now {
            let message = format!("valid from {valid_after}, now is {now}");
            return Err(early(&format!("{PATH}.witness.validAfter"), message));
        }
        self.check_time(&format!("{PATH}.deadline"), permit.deadline, now)
    }

    fn check_signed(
        &self,
        path: &str,
        (to_field, to): (&str, Address),
        (value_field, value): (&str, U256),
        quoted: Amount,
    ) -> Result<(), ApiError> {
        let refuse =
            |code, field: &str, message: String| Err(ApiError::payment(code, message).param(format!("{path}.{field}")));
        if to != self.payee {
            let message = format!(
                "the payment is made out to {to}, this node's deposit address is {}",
                self.payee
            );
            return refuse("payment_wrong_payee", to_field, message);
        }
        let message = format!("signed {value} wei, quoted {} wei", quoted.wei());
        match to_amount(value).unwrap_or(Amount::MAX) {
            signed if signed < quoted => refuse("payment_underpaid", value_field, message),
            // The receipt would not agree with the quote, and the payer would pay what nobody asked for.
            signed if signed > quoted => refuse("payment_overpaid", value_field, message),
            _ => Ok(()),
        }
    }

    /// Whether a payment that ends at `until` leaves the time to settle it.
    fn check_time(&self, param: &str, until: u64, now: u64) -> Result<(), ApiError> {
        let message = match until.checked_sub(now).filter(|left| *left > 0) {
            None => format!("expired at {until}, now is {now}"),
            Some(left) if left < self.min_validity_seconds => format!(
                "{left} seconds of validity left, {} are needed to settle",
                self.min_validity_seconds
            ),
            Some(_) => return Ok(()),
        };
        Err(ApiError::payment("payment_expired", message).param(param))
    }

    /// x402's words for a payment that was taken, or refused for `reason`.
    pub(crate) fn settlement(
        &self,
        payer: Option<Address>,
        tx: Option<B256>,
        reason: Option<(&str, &str)>,
    ) -> SettleResponse {
        SettleResponse {
            success: reason.is_none(),
            error_reason: reason.map(|(code, _)| code.to_owned()),
            error_message: reason.map(|(_, message)| message.to_owned()),
            payer,
            transaction: tx.map(|tx| tx.to_string()).unwrap_or_default(),
            network: x402::network(self.chain_id),
            amount: None,
            extensions: None,
            extra: None,
        }
    }
}

fn early(param: &str, message: String) -> ApiError {
    ApiError::payment("payment_not_yet_valid", message).param(param)
}

fn malformed(error: x402::X402Error) -> ApiError {
    let param = match &error {
        x402::X402Error::Payload { field, .. } => format!("payload.{field}"),
        _ => "PAYMENT-SIGNATURE".to_owned(),
    };
    ApiError::bad_request("payment_malformed", error.to_string()).param(param)
}

fn quote_error(code: &'static str, message: &str) -> ApiError {
    ApiError::payment(code, message).param("accepted.extra.quote")
}

#[cfg(test)]
mod tests;
