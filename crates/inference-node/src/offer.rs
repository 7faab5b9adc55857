//! Quotes and the checks of a payment, before anything is reserved. No I/O.

use crate::{config::to_amount, error::ApiError};
use alloy_primitives::{Address, B256, Bytes, U256};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::SigningKey;
use opg_contracts::addresses;
use opg_payments::{
    eip3009::{self, Authorization, Domain},
    x402::{self, PaymentPayload, PaymentRequired, PaymentRequirements, Resource, SettleResponse},
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
    pub(crate) domain: Domain,
    pub(crate) payee: Address,
    pub(crate) quote_seconds: u64,
    pub(crate) payment_seconds: u64,
    pub(crate) min_validity_seconds: u64,
}

/// What a request would cost at most.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    pub(crate) model_root: ModelRoot,
    pub(crate) ask: Price,
    pub(crate) royalty_bps: u16,
    pub(crate) max_amount: Amount,
    /// Mode asked for.
    pub(crate) mode: Mode,
    /// Grade of the evidence that is promised.
    pub(crate) min_grade: Grade,
}

/// A payment that passed every check that needs no chain and no memory.
#[derive(Debug, Clone)]
pub(crate) struct Verified {
    pub(crate) quote: SignedQuote,
    pub(crate) authorization: Authorization,
    pub(crate) signature: Bytes,
    pub(crate) amount: Amount,
    /// The payer's key signed it. If not, the payer may be a contract, whose signature only the chain can check.
    pub(crate) signed_by_payer: bool,
}

impl Cashier {
    pub(crate) fn new(
        chain_id: u64,
        node_id: NodeId,
        keyset: KeysetDigest,
        key: SigningKey,
        limits: &crate::config::Limits,
    ) -> Self {
        Self {
            chain_id,
            node_id,
            keyset,
            key,
            domain: Domain::opg(chain_id, addresses::OPG),
            payee: deposit_address(addresses::FEE_VAULT, addresses::DEPOSIT_IMPLEMENTATION, node_id),
            quote_seconds: limits.quote_seconds,
            payment_seconds: limits.payment_seconds,
            min_validity_seconds: limits.min_validity_seconds,
        }
    }

    /// Signs a quote for a request and wraps it into x402's offer.
    pub(crate) fn offer(
        &self,
        terms: &Terms,
        request_digest: B256,
        nonce: B256,
        url: String,
        now: u64,
        error: &str,
    ) -> Result<PaymentRequired, opg_receipt::ReceiptError> {
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
            max_amount: terms.max_amount,
            payee: self.payee,
            asset: addresses::OPG,
            expires: now + self.quote_seconds,
            mode_asked: terms.mode,
            min_grade: terms.min_grade,
        };
        let quote = SignedQuote::sign(quote, &self.key)?;
        let mut extra = Map::new();
        for (key, value) in [
            ("name", eip3009::OPG_NAME.to_owned()),
            ("version", eip3009::OPG_VERSION.to_owned()),
            ("receiptId", quote.quote().receipt_id.to_string()),
            ("quote", URL_SAFE_NO_PAD.encode(quote.cose())),
        ] {
            extra.insert(key.to_owned(), Value::String(value));
        }
        let requirements = PaymentRequirements {
            extra: Some(extra),
            ..self.requirements(terms.max_amount)
        };
        Ok(PaymentRequired {
            x402_version: u64::from(x402::VERSION),
            error: Some(error.to_owned()),
            resource: Resource {
                url,
                description: None,
                mime_type: Some("application/json".to_owned()),
            },
            accepts: vec![requirements],
            extensions: None,
        })
    }

    fn requirements(&self, amount: Amount) -> PaymentRequirements {
        PaymentRequirements {
            scheme: x402::EXACT.to_owned(),
            network: x402::network(self.chain_id),
            amount: U256::from(amount.wei()),
            asset: addresses::OPG,
            pay_to: self.payee,
            max_timeout_seconds: self.payment_seconds,
            extra: None,
        }
    }

    /// Checks a payment header against the request that it came with.
    ///
    /// # Errors
    /// 400 for what cannot be decoded, 402 naming the field for what is not this payment.
    pub(crate) fn verify(
        &self,
        header: &[u8],
        terms: &Terms,
        request_digest: B256,
        now: u64,
    ) -> Result<Verified, ApiError> {
        let payload = PaymentPayload::from_header(header).map_err(malformed)?;
        let (authorization, signature) = payload.exact().map_err(malformed)?;
        let quote = self.quote(&payload.accepted)?;
        let q = quote.quote();
        self.check_authorization(&authorization, q.max_amount, now)?;
        self.requirements(q.max_amount)
            .matches(&payload.accepted)
            .map_err(|m| {
                let code = match m.field {
                    "scheme" => "payment_wrong_scheme",
                    "network" => "payment_wrong_network",
                    "asset" => "payment_wrong_asset",
                    "payTo" => "payment_wrong_payee",
                    _ => "payment_underpaid",
                };
                ApiError::payment(code, m.to_string()).param(format!("accepted.{}", m.field))
            })?;
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
        if q.model_root != terms.model_root || q.ask != terms.ask || q.royalty_bps != terms.royalty_bps || !mode {
            return Err(quote_error(
                "payment_quote_stale",
                "the price has changed since the quote",
            ));
        }
        let recovered = authorization.recover(&self.domain, &signature);
        let signed_by_payer = recovered.as_ref().is_ok_and(|signer| *signer == authorization.from);
        let amount = q.max_amount;
        Ok(Verified {
            quote,
            authorization,
            signature,
            amount,
            signed_by_payer,
        })
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
        let refuse = |code, field: &str, message: String| {
            Err(ApiError::payment(code, message).param(format!("payload.authorization.{field}")))
        };
        if authorization.to != self.payee {
            let message = format!(
                "the payment is made out to {}, this node's deposit address is {}",
                authorization.to, self.payee
            );
            return refuse("payment_wrong_payee", "to", message);
        }
        let value = to_amount(authorization.value).unwrap_or(Amount::MAX);
        if value < quoted {
            return refuse(
                "payment_underpaid",
                "value",
                format!("signed {} wei, quoted {} wei", authorization.value, quoted.wei()),
            );
        }
        if value > quoted {
            // The receipt would not agree with the quote, and the payer would pay what nobody asked for.
            return refuse(
                "payment_overpaid",
                "value",
                format!("signed {} wei, quoted {} wei", authorization.value, quoted.wei()),
            );
        }
        // The chain's clock may be a little behind ours.
        if authorization.valid_after >= now {
            return refuse(
                "payment_not_yet_valid",
                "validAfter",
                format!("valid after {}, now is {now}", authorization.valid_after),
            );
        }
        if authorization.valid_before <= now {
            return refuse(
                "payment_expired",
                "validBefore",
                format!("expired at {}, now is {now}", authorization.valid_before),
            );
        }
        let left = authorization.valid_before - now;
        if left < self.min_validity_seconds {
            let message = format!(
                "{left} seconds of validity left, {} are needed to settle",
                self.min_validity_seconds
            );
            return refuse("payment_expired", "validBefore", message);
        }
        Ok(())
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
mod tests {
    use super::*;
    use crate::config::Limits;
    use opg_payments::signature::{SecretKey, address_of_secret};

    const NOW: u64 = 1_800_000_000;

    fn cashier(seed: u8) -> Cashier {
        let node = NodeId(B256::repeat_byte(seed));
        Cashier::new(
            10_740,
            node,
            KeysetDigest(B256::repeat_byte(seed + 1)),
            SigningKey::from_bytes(&[seed; 32]),
            &Limits::default(),
        )
    }

    fn terms() -> Terms {
        let ask = Price {
            per_call: Amount(1000),
            per_mtok_in: Amount(0),
            per_mtok_out: Amount(0),
        };
        Terms {
            model_root: ModelRoot(B256::repeat_byte(9)),
            ask,
            royalty_bps: 0,
            max_amount: Amount(1000),
            mode: Mode::None,
            min_grade: Grade::None,
        }
    }

    const DIGEST: B256 = B256::repeat_byte(5);

    fn wallet() -> SecretKey {
        SecretKey::from_byte_array(&[3; 32]).unwrap()
    }

    fn pay(cashier: &Cashier, change: impl FnOnce(&mut PaymentRequirements, &mut Authorization)) -> Vec<u8> {
        let offer = cashier
            .offer(
                &terms(),
                DIGEST,
                B256::repeat_byte(1),
                "http://n".into(),
                NOW,
                "payment required",
            )
            .unwrap();
        let mut accepted = offer.accepts[0].clone();
        let mut authorization = Authorization {
            from: address_of_secret(&wallet()),
            to: accepted.pay_to,
            value: accepted.amount,
            valid_after: 0,
            valid_before: NOW + 600,
            nonce: B256::repeat_byte(8),
        };
        change(&mut accepted, &mut authorization);
        let signature = authorization.sign(&cashier.domain, &wallet());
        let payload = PaymentPayload::of_exact(accepted, &authorization, &signature).unwrap();
        x402::encode_header(&payload).into_bytes()
    }

    #[test]
    fn a_payment_of_the_quote_is_taken() {
        let c = cashier(1);
        let verified = c.verify(&pay(&c, |_, _| {}), &terms(), DIGEST, NOW).unwrap();
        assert!(verified.signed_by_payer);
        assert_eq!(verified.amount, Amount(1000));
        assert_eq!(
            verified.quote.quote().receipt_id,
            receipt_id(10_740, &c.node_id, &B256::repeat_byte(1))
        );
    }

    #[test]
    fn every_wrong_payment_has_its_code_and_field() {
        let c = cashier(1);
        let refused = |header: Vec<u8>, now| {
            let error = c.verify(&header, &terms(), DIGEST, now).unwrap_err();
            (error.status.as_u16(), error.code, error.param.unwrap_or_default())
        };
        let with =
            |change: &dyn Fn(&mut PaymentRequirements, &mut Authorization)| refused(pay(&c, |r, a| change(r, a)), NOW);
        let field = |name: &str| format!("payload.authorization.{name}");
        assert_eq!(
            with(&|_, a| a.to = Address::ZERO),
            (402, "payment_wrong_payee", field("to"))
        );
        assert_eq!(
            with(&|_, a| a.value -= U256::from(1)),
            (402, "payment_underpaid", field("value"))
        );
        assert_eq!(
            with(&|_, a| a.value += U256::from(1)),
            (402, "payment_overpaid", field("value"))
        );
        assert_eq!(
            with(&|_, a| a.valid_before = NOW),
            (402, "payment_expired", field("validBefore"))
        );
        assert_eq!(
            with(&|_, a| a.valid_before = NOW + 19),
            (402, "payment_expired", field("validBefore"))
        );
        assert_eq!(
            with(&|_, a| a.valid_after = NOW),
            (402, "payment_not_yet_valid", field("validAfter"))
        );
        assert_eq!(
            with(&|r, _| r.network = "eip155:1".into()),
            (402, "payment_wrong_network", "accepted.network".into())
        );
        assert_eq!(
            with(&|r, _| r.asset = Address::ZERO),
            (402, "payment_wrong_asset", "accepted.asset".into())
        );
        assert_eq!(
            with(&|r, _| r.pay_to = Address::ZERO),
            (402, "payment_wrong_payee", "accepted.payTo".into())
        );
        assert_eq!(
            with(&|r, _| r.scheme = "upto".into()),
            (402, "payment_wrong_scheme", "accepted.scheme".into())
        );
        assert_eq!(
            with(&|r, _| r.amount = U256::ZERO),
            (402, "payment_underpaid", "accepted.amount".into())
        );
        let quote = "accepted.extra.quote".to_owned();
        assert_eq!(
            with(&|r, _| r.extra = None),
            (402, "payment_quote_invalid", quote.clone())
        );
        let replace = |text: &str| {
            with(&|r, _| {
                drop(
                    r.extra
                        .as_mut()
                        .unwrap()
                        .insert("quote".into(), Value::String(text.into())),
                )
            })
        };
        assert_eq!(replace("!!"), (402, "payment_quote_invalid", quote.clone()));
        assert_eq!(replace("AAAA"), (402, "payment_quote_invalid", quote.clone()));
        assert_eq!(
            replace(&"A".repeat(5000)),
            (402, "payment_quote_invalid", quote.clone())
        );
        assert_eq!(
            refused(pay(&c, |_, a| a.valid_before = NOW + 6000), NOW + 120),
            (402, "payment_expired", quote.clone())
        );
        assert_eq!(
            refused(b"%".to_vec(), NOW),
            (400, "payment_malformed", "PAYMENT-SIGNATURE".into())
        );
        assert_eq!(
            refused(vec![b'A'; 20_000], NOW),
            (400, "payment_malformed", "PAYMENT-SIGNATURE".into())
        );
    }

    #[test]
    fn quotes_of_other_nodes_requests_and_prices_are_refused() {
        let (c, other) = (cashier(1), cashier(7));
        let error = c.verify(&pay(&other, |_, _| {}), &terms(), DIGEST, NOW).unwrap_err();
        assert_eq!(error.code, "payment_wrong_payee");
        let error = c.verify(&pay(&c, |_, _| {}), &terms(), B256::ZERO, NOW).unwrap_err();
        assert_eq!(error.code, "payment_wrong_request");
        let dearer = Terms {
            ask: Price {
                per_call: Amount(2000),
                ..terms().ask
            },
            ..terms()
        };
        assert_eq!(
            c.verify(&pay(&c, |_, _| {}), &dearer, DIGEST, NOW).unwrap_err().code,
            "payment_quote_stale"
        );
        // A quote with this node's id that it did not sign.
        let forger = Cashier {
            key: SigningKey::from_bytes(&[99; 32]),
            ..cashier(1)
        };
        assert_eq!(
            c.verify(&pay(&forger, |_, _| {}), &terms(), DIGEST, NOW)
                .unwrap_err()
                .code,
            "payment_quote_invalid"
        );
    }

    #[test]
    fn a_signature_for_another_chain_is_not_the_payers() {
        let c = cashier(1);
        let elsewhere = Cashier {
            domain: Domain::opg(8453, addresses::OPG),
            ..cashier(1)
        };
        assert!(
            !c.verify(&pay(&elsewhere, |_, _| {}), &terms(), DIGEST, NOW)
                .unwrap()
                .signed_by_payer
        );
    }
}
