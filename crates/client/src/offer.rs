//! What a client checks before it signs a payment. Pure: the same offer gives the same verdict.
//!
//! A 402 answer comes from a stranger. Every field that decides where money goes is compared with what the client knows from the genesis file
//! and the registry, and the node's signature over the quote binds it to this request: with the quote, the client can later show
//! what was promised.

use alloy_primitives::{Address, B256, U256};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use opg_payments::{
    eip3009::{OPG_NAME, OPG_VERSION},
    permit2::Witness,
    x402::{self, PaymentRequired, PaymentRequirements},
};
use opg_primitives::{
    ids::{KeysetDigest, ModelRoot, NodeId, ReceiptId},
    mode::{Grade, Mode},
    money::{Amount, Price},
};
use opg_receipt::{ReceiptError, SignedQuote};

use crate::pay::Way;

/// Longest time for which a payment may be left unsettled, in seconds.
pub const MAX_AUTHORIZATION_SECONDS: u64 = 3_600;

/// Why an offer is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OfferError {
    /// The 402 answer carries no offer that can be read.
    #[error("402 answer: {0}")]
    Unreadable(String),
    /// No way to pay that this client has.
    #[error("accepts: expected scheme {expected}, got {got}")]
    Scheme {
        /// `exact`, with the chain.
        expected: String,
        /// What is offered.
        got: String,
    },
    /// A field is not what it must be.
    #[error("{field}: expected {expected}, got {got}")]
    Field {
        /// Name of the field on the wire.
        field: &'static str,
        /// What the client knows.
        expected: String,
        /// What the node says.
        got: String,
    },
    /// The price is above what the caller allows.
    #[error("amount: {amount} OPG is more than the {limit} OPG that this call may spend; raise it with --max-spend")]
    TooExpensive {
        /// The price asked.
        amount: Amount,
        /// The caller's limit.
        limit: Amount,
    },
    /// There is no quote, or it does not decode.
    #[error("extra.quote: {0}")]
    Quote(String),
    /// The quote is not signed by the registered key of the node.
    #[error("extra.quote: {0}")]
    Signature(ReceiptError),
    /// The quote's keyset is not registered, or revoked.
    #[error("extra.quote: keyset {keyset} {problem}")]
    Keyset {
        /// The keyset.
        keyset: KeysetDigest,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The quote is too old.
    #[error("extra.quote: expired at {expires}, it is {now} now (Unix seconds)")]
    Expired {
        /// When it expired.
        expires: u64,
        /// The client's clock.
        now: u64,
    },
}

/// What the client knows before it asks.
#[derive(Debug, Clone)]
pub struct Expected {
    /// The chain.
    pub chain_id: u64,
    /// The OPG token.
    pub asset: Address,
    /// The node that the client means to pay.
    pub node_id: NodeId,
    /// Its deposit address.
    pub payee: Address,
    /// Digest of method, path and body.
    pub request: B256,
    /// The model's root in the registry.
    pub model: ModelRoot,
    /// The node's ask for the model, in the registry: the most that it may quote.
    pub ask: Price,
    /// The creator's royalty in the registry, basis points.
    pub royalty_bps: u16,
    /// The mode that the caller wants.
    pub mode: Mode,
    /// The least grade that the caller wants.
    pub min_grade: Grade,
    /// The most that the caller pays for this call.
    pub max_spend: Amount,
    /// The client's clock, Unix seconds.
    pub now: u64,
}

/// A registered keyset, as the chain knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RegisteredKeyset {
    /// The node.
    pub node_id: NodeId,
    /// Its receipt key.
    pub receipt_key: B256,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// An offer whose payment terms are acceptable; the quote's signature is still to be checked.
#[derive(Debug, Clone)]
pub struct Selected {
    /// What to pay.
    pub requirements: PaymentRequirements,
    /// The quote in it.
    pub quote: SignedQuote,
    /// What to pay, as an amount.
    pub amount: Amount,
    /// What a permit is for, if the payment is one.
    pub witness: Option<Witness>,
}

fn differs(field: &'static str, expected: impl ToString, got: impl ToString) -> OfferError {
    let got = crate::text::one_line(&got.to_string(), 200);
    OfferError::Field {
        field,
        expected: expected.to_string(),
        got,
    }
}

fn same<T: PartialEq + ToString>(field: &'static str, expected: &T, got: &T) -> Result<(), OfferError> {
    if expected == got {
        Ok(())
    } else {
        Err(differs(field, expected.to_string(), got.to_string()))
    }
}

/// Picks the requirement that this client can pay and checks its terms: chain, asset, payee, amount, time, and that the
/// quote inside says the same.
///
/// # Errors
/// The first field that is not acceptable.
pub fn select(offer: &PaymentRequired, expected: &Expected, by: Way) -> Result<Selected, OfferError> {
    same("x402Version", &u64::from(x402::VERSION), &offer.x402_version)?;
    let network = x402::network(expected.chain_id);
    let fits = |way: &&PaymentRequirements| {
        let permit2 = way.extra_str("assetTransferMethod") == Some(x402::PERMIT2_METHOD);
        way.scheme == by.scheme() && permit2 == by.needs_permit2()
    };
    let fitting = || offer.accepts.iter().filter(fits);
    // One that does not fit is named below with the field that differs.
    let any = || offer.accepts.iter().find(|way| way.scheme == by.scheme());
    let here = fitting().find(|way| way.network == network);
    let Some(way) = here.or_else(|| fitting().next()).or_else(any) else {
        let offered: Vec<_> = offer.accepts.iter().take(8).map(|way| way.scheme.as_str()).collect();
        return Err(OfferError::Scheme {
            expected: format!("{} on {network}", by.scheme()),
            got: crate::text::one_line(&offered.join(", "), 200),
        });
    };
    same("network", &network, &way.network)?;
    same("asset", &expected.asset, &way.asset)?;
    same("payTo", &expected.payee, &way.pay_to)?;
    let amount = Amount::try_from(way.amount).map_err(|_| differs("amount", "less than 2^128", way.amount))?;
    if amount > expected.max_spend {
        return Err(OfferError::TooExpensive {
            amount,
            limit: expected.max_spend,
        });
    }
    if way.max_timeout_seconds == 0 || way.max_timeout_seconds > MAX_AUTHORIZATION_SECONDS {
        let range = format!("1 to {MAX_AUTHORIZATION_SECONDS}");
        return Err(differs("maxTimeoutSeconds", range, way.max_timeout_seconds));
    }
    // The domain that the payment is signed under; any other would sign something this client does not understand.
    same("extra.name", &OPG_NAME, &way.extra_str("name").unwrap_or_default())?;
    same(
        "extra.version",
        &OPG_VERSION,
        &way.extra_str("version").unwrap_or_default(),
    )?;
    let method = way.extra_str("assetTransferMethod").unwrap_or("eip3009");
    let wanted = if by.needs_permit2() {
        x402::PERMIT2_METHOD
    } else {
        "eip3009"
    };
    same("extra.assetTransferMethod", &wanted, &method)?;
    let witness = match by {
        Way::Exact => None,
        Way::Permit => Some(Witness::Exact {
            to: way.pay_to,
            valid_after: 0,
        }),
        Way::Upto => {
            let named = way.extra_str("facilitatorAddress").unwrap_or_default();
            let facilitator = named
                .parse()
                .map_err(|_| differs("extra.facilitatorAddress", "an address", named))?;
            Some(Witness::Upto {
                to: way.pay_to,
                facilitator,
                valid_after: 0,
            })
        }
    };
    let text = way
        .extra_str("quote")
        .ok_or_else(|| OfferError::Quote("is missing".into()))?;
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|error| OfferError::Quote(format!("is not base64url: {error}")))?;
    let quote = SignedQuote::decode(&bytes).map_err(|error| OfferError::Quote(error.to_string()))?;
    check_quote(&quote, way, amount, expected)?;
    Ok(Selected {
        requirements: way.clone(),
        quote,
        amount,
        witness,
    })
}

/// Compares the quote's fields with the offer around it and with what was asked for.
fn check_quote(
    signed: &SignedQuote,
    way: &PaymentRequirements,
    amount: Amount,
    expected: &Expected,
) -> Result<(), OfferError> {
    check_terms(signed, amount, expected)?;
    // Decoding has checked that the quote's own id follows from chain, node and nonce.
    let id = signed.quote().receipt_id;
    let named = way.extra_str("receiptId").unwrap_or_default();
    if named.parse::<ReceiptId>().ok() != Some(id) {
        return Err(differs("extra.receiptId", id, named));
    }
    Ok(())
}

/// Compares a quote with what was asked for.
pub(crate) fn check_terms(signed: &SignedQuote, amount: Amount, expected: &Expected) -> Result<(), OfferError> {
    let quote = signed.quote();
    same("extra.quote.chain_id", &expected.chain_id, &quote.chain_id)?;
    same("extra.quote.node_id", &expected.node_id, &quote.node_id)?;
    same("extra.quote.request", &expected.request, &quote.request_digest)?;
    same("extra.quote.model", &expected.model, &quote.model_root)?;
    same("extra.quote.payee", &expected.payee, &quote.payee)?;
    same("extra.quote.asset", &expected.asset, &quote.asset)?;
    same("extra.quote.max_amount", &amount, &quote.max_amount)?;
    for (field, known, quoted) in [
        ("extra.quote.ask.per_call", expected.ask.per_call, quote.ask.per_call),
        (
            "extra.quote.ask.per_mtok_in",
            expected.ask.per_mtok_in,
            quote.ask.per_mtok_in,
        ),
        (
            "extra.quote.ask.per_mtok_out",
            expected.ask.per_mtok_out,
            quote.ask.per_mtok_out,
        ),
    ] {
        // A node whose prices are in USD asks for less than what it registered, never for more.
        if quoted > known {
            return Err(differs(field, format!("at most {known}"), quoted));
        }
    }
    same("extra.quote.royalty_bps", &expected.royalty_bps, &quote.royalty_bps)?;
    same("extra.quote.mode", &expected.mode, &quote.mode_asked)?;
    // More than asked for is fine, except that mode none has no grade.
    if quote.min_grade < expected.min_grade || expected.mode == Mode::None {
        same("extra.quote.min_grade", &expected.min_grade, &quote.min_grade)?;
    }
    if quote.expires <= expected.now {
        return Err(OfferError::Expired {
            expires: quote.expires,
            now: expected.now,
        });
    }
    Ok(())
}

impl Selected {
    /// Checks that the quote is signed by the key that the registry has for its keyset, and that the keyset is the node's.
    ///
    /// # Errors
    /// If the keyset is unknown, revoked or another node's, or the signature is not its key's.
    pub fn check_signature(&self, keyset: Option<&RegisteredKeyset>, node_id: NodeId) -> Result<(), OfferError> {
        let digest = self.quote.quote().keyset;
        let problem = |problem| OfferError::Keyset {
            keyset: digest,
            problem,
        };
        let keyset = keyset.ok_or_else(|| problem("is not registered"))?;
        if keyset.revoked {
            return Err(problem("is revoked"));
        }
        if keyset.node_id != node_id {
            return Err(problem("belongs to another node"));
        }
        self.quote
            .verify_signature(&keyset.receipt_key.0)
            .map_err(OfferError::Signature)
    }

    /// What to pay in the token's own type.
    pub fn value(&self) -> U256 {
        self.requirements.amount
    }
}
