//! x402 version 2 over HTTP: wire types and headers of the schemes `exact`, `upto` and `batch-settlement` on EVM chains
//! (payments.md §1), and version 1 where its clients can pay ([`v1`]).
//!
//! - this module: envelope and `exact` by ERC-3009; [`ExactPayment`] and [`parse_upto`] by Permit2; [`BatchPayload`] for channels.
//! - [`BatchExtra`], [`ChannelState`], [`ChargeExtra`]: what a server tells a client about its channel.
//! - [`Identifier`]: safe retries. [`facilitator`]: the API between servers.
//!
//! Field names and order are those of the stock SDKs; unknown keys of `extra` and `extensions` are kept, because clients
//! must echo them. A header is bounded before it is decoded.

mod batch;
mod batch_extra;
pub mod facilitator;
mod field;
mod identifier;
mod name_field;
mod permit;
pub mod v1;

pub use batch::{BATCH_SETTLEMENT, BatchAction, BatchPayload, SignedDeposit, SignedVoucher};
pub use batch_extra::{
    BAD_VOUCHER_SIGNATURE, BELOW_CLAIMED, BatchExtra, CHANNEL_BUSY, CHANNEL_ID_MISMATCH, CHANNEL_NOT_FOUND,
    CUMULATIVE_MISMATCH, ChannelState, ChargeExtra, EXCEEDS_BALANCE, REFUND_AMOUNT_INVALID, REFUND_NO_BALANCE,
    VoucherState,
};
pub use identifier::{
    HEADROOM, Identifier, MAX_IDENTIFIER, MIN_IDENTIFIER, PAYMENT_IDENTIFIER, headroom_offer, identifier_offer,
    is_identifier, set_identifier, wants_headroom,
};
pub use permit::{ExactPayment, PERMIT2_METHOD, UPTO, parse_upto, permit_payload};

use crate::eip3009::Authorization;
use alloy_primitives::{Address, B256, Bytes, U256};
use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

/// Protocol version of these types.
pub const VERSION: u8 = 2;
/// Largest base64 text of a payment header, in bytes.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;
/// Largest signature of a payment, in bytes: room for a contract wallet's (receipt.md §3).
pub const MAX_SIGNATURE_BYTES: usize = 1024;
/// Header of a 402 answer: [`PaymentRequired`].
pub const PAYMENT_REQUIRED: &str = "payment-required";
/// Header of a paid request: [`PaymentPayload`].
pub const PAYMENT_SIGNATURE: &str = "payment-signature";
/// Header of the answer to a paid request: [`SettleResponse`].
pub const PAYMENT_RESPONSE: &str = "payment-response";
/// The scheme that takes the signed amount in full.
pub const EXACT: &str = "exact";

/// Clients differ in whether they pad.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Why a payment header is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum X402Error {
    /// Longer than [`MAX_HEADER_BYTES`].
    #[error("payment header has {got} bytes, at most {MAX_HEADER_BYTES} are accepted")]
    TooLong {
        /// Bytes received.
        got: usize,
    },
    /// Not standard base64.
    #[error("payment header is not base64: {0}")]
    Base64(#[from] base64::DecodeError),
    /// Not the JSON of the expected object.
    #[error("payment header is not valid JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A version this module does not speak.
    #[error("x402Version is {got}, expected {VERSION}")]
    Version {
        /// Version received.
        got: u64,
    },
    /// The payload is well-formed JSON but not a payment of its scheme.
    #[error("payload.{field} {problem}")]
    Payload {
        /// Field inside `payload`.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// One way to pay.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequirements {
    /// [`EXACT`], [`UPTO`] or [`BATCH_SETTLEMENT`].
    pub scheme: String,
    /// `eip155:<chain id in decimal>`.
    pub network: String,
    /// Amount in the asset's smallest unit.
    #[serde(with = "decimal")]
    pub amount: U256,
    /// Token contract.
    pub asset: Address,
    /// Payee.
    pub pay_to: Address,
    /// Longest time between signing and settlement; the client sets `validBefore = now + maxTimeoutSeconds`.
    pub max_timeout_seconds: u64,
    /// `name` and `version` of the token's EIP-712 domain, and what else the server needs back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Map<String, Value>>,
}

/// The field in which an accepted requirement differs from the offered one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("accepted.{field} is {got}, expected {expected}")]
pub struct Mismatch {
    /// Field of [`PaymentRequirements`], as on the wire.
    pub field: &'static str,
    /// Value offered.
    pub expected: String,
    /// Value accepted by the client.
    pub got: String,
}

impl PaymentRequirements {
    /// Whether `accepted` is this offer: same scheme, network, asset and payee, and at least this amount.
    ///
    /// Not full equality: a client may enrich `extra`, and a quote may be older than the present offer (payments.md §1.1).
    ///
    /// # Errors
    /// The first field that differs.
    pub fn matches(&self, accepted: &Self) -> Result<(), Mismatch> {
        let differ = |field, expected: &dyn ToString, got: &dyn ToString| {
            Err(Mismatch {
                field,
                expected: expected.to_string(),
                got: got.to_string(),
            })
        };
        if accepted.scheme != self.scheme {
            return differ("scheme", &self.scheme, &accepted.scheme);
        }
        if accepted.network != self.network {
            return differ("network", &self.network, &accepted.network);
        }
        if accepted.asset != self.asset {
            return differ("asset", &self.asset, &accepted.asset);
        }
        if accepted.pay_to != self.pay_to {
            return differ("payTo", &self.pay_to, &accepted.pay_to);
        }
        if accepted.amount < self.amount {
            return differ("amount", &self.amount, &accepted.amount);
        }
        Ok(())
    }

    /// A text of `extra`.
    #[must_use]
    pub fn extra_str(&self, key: &str) -> Option<&str> {
        self.extra.as_ref()?.get(key)?.as_str()
    }
}

/// What is paid for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// URL of the request.
    pub url: String,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Media type of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
}

/// Body and [`PAYMENT_REQUIRED`] header of a 402 answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequired {
    /// [`VERSION`].
    pub x402_version: u64,
    /// Why the request was not served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is paid for.
    pub resource: Resource,
    /// Ways to pay; stock clients take the first that they can.
    pub accepts: Vec<PaymentRequirements>,
    /// Protocol extensions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Map<String, Value>>,
}

/// A payment: the [`PAYMENT_SIGNATURE`] header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentPayload {
    /// [`VERSION`].
    pub x402_version: u64,
    /// What is paid for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resource: Option<Resource>,
    /// The requirement that the client took.
    pub accepted: PaymentRequirements,
    /// By scheme; see [`ExactPayment`], [`parse_upto`], [`BatchPayload`].
    pub payload: Value,
    /// Extensions of the offer, echoed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Map<String, Value>>,
}

impl PaymentPayload {
    /// A payment of scheme `exact` for the requirement `accepted`, naming no resource and echoing no extensions.
    ///
    /// # Errors
    /// If the authorization cannot be expressed in JSON.
    pub fn of_exact(
        accepted: PaymentRequirements,
        authorization: &Authorization,
        signature: &[u8],
    ) -> Result<Self, serde_json::Error> {
        Ok(Self {
            x402_version: u64::from(VERSION),
            resource: None,
            accepted,
            payload: serde_json::to_value(ExactPayload::new(authorization, signature))?,
            extensions: None,
        })
    }

    /// Decodes a [`PAYMENT_SIGNATURE`] header.
    ///
    /// # Errors
    /// Too long, not base64, not this JSON, or another protocol version.
    pub fn from_header(header: &[u8]) -> Result<Self, X402Error> {
        let json = decode_text(header)?;
        let payload: Self = serde_json::from_slice(&json).map_err(|error| name_field::name(&json, error))?;
        if payload.x402_version == u64::from(VERSION) {
            Ok(payload)
        } else {
            Err(X402Error::Version {
                got: payload.x402_version,
            })
        }
    }

    /// The ERC-3009 authorization inside, with its signature.
    ///
    /// # Errors
    /// [`X402Error::Payload`] names the field.
    pub fn exact(&self) -> Result<(Authorization, Bytes), X402Error> {
        ExactPayload::parse(&self.payload)
    }
}

/// `payload` of scheme `exact` by ERC-3009.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExactPayload {
    /// `r || s || v`, or a contract wallet's signature.
    pub signature: Bytes,
    /// What was signed.
    pub authorization: WireAuthorization,
}

/// [`Authorization`] with x402's names, integers as decimal text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WireAuthorization {
    /// Payer.
    pub from: Address,
    /// Payee.
    pub to: Address,
    /// Amount.
    #[serde(with = "decimal")]
    pub value: U256,
    /// Unix seconds, decimal.
    pub valid_after: String,
    /// Unix seconds, decimal.
    pub valid_before: String,
    /// 32 random bytes.
    pub nonce: B256,
}

impl ExactPayload {
    /// The wire form of a signed authorization.
    #[must_use]
    pub fn new(authorization: &Authorization, signature: &[u8]) -> Self {
        Self {
            signature: Bytes::copy_from_slice(signature),
            authorization: WireAuthorization {
                from: authorization.from,
                to: authorization.to,
                value: authorization.value,
                valid_after: authorization.valid_after.to_string(),
                valid_before: authorization.valid_before.to_string(),
                nonce: authorization.nonce,
            },
        }
    }

    /// Reads `payload` field by field, so that the error can name the one that is wrong.
    ///
    /// # Errors
    /// [`X402Error::Payload`].
    pub fn parse(payload: &Value) -> Result<(Authorization, Bytes), X402Error> {
        let signature = text(payload, "signature")?;
        // Two digits a byte and "0x": refuse before decoding.
        if signature.len() > 2 + 2 * MAX_SIGNATURE_BYTES {
            return Err(bad("signature", format!("is longer than {MAX_SIGNATURE_BYTES} bytes")));
        }
        let signature = signature
            .parse::<Bytes>()
            .map_err(|e| bad("signature", format!("is not hex: {e}")))?;
        let inner = payload
            .get("authorization")
            .filter(|v| v.is_object())
            .ok_or_else(|| bad("authorization", "is missing".into()))?;
        let address = |name: &'static str, path| {
            text(inner, name)?
                .parse::<Address>()
                .map_err(|e| bad(path, format!("is not an address: {e}")))
        };
        let seconds = |name: &'static str, path| {
            decimal::parse(text(inner, name)?)
                .and_then(|v| u64::try_from(v).ok())
                .ok_or_else(|| bad(path, "is not a decimal number of seconds".into()))
        };
        let nonce = text(inner, "nonce")?;
        let nonce = Some(nonce)
            .filter(|n| n.len() == 66)
            .and_then(|n| n.parse::<B256>().ok());
        let authorization = Authorization {
            from: address("from", "authorization.from")?,
            to: address("to", "authorization.to")?,
            value: decimal::parse(text(inner, "value")?)
                .ok_or_else(|| bad("authorization.value", "is not a decimal integer".into()))?,
            valid_after: seconds("validAfter", "authorization.validAfter")?,
            valid_before: seconds("validBefore", "authorization.validBefore")?,
            nonce: nonce.ok_or_else(|| bad("authorization.nonce", "is not 0x and 64 hex digits".into()))?,
        };
        Ok((authorization, signature))
    }
}

fn bad(field: &'static str, problem: String) -> X402Error {
    X402Error::Payload { field, problem }
}

fn text<'a>(object: &'a Value, field: &'static str) -> Result<&'a str, X402Error> {
    object
        .get(field)
        .and_then(Value::as_str)
        .ok_or_else(|| bad(field, "is missing or not a string".into()))
}

/// What became of a payment: the [`PAYMENT_RESPONSE`] header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SettleResponse {
    /// Whether the payment was taken.
    pub success: bool,
    /// Machine-readable reason of a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_reason: Option<String>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_message: Option<String>,
    /// Who paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payer: Option<Address>,
    /// Transaction hash, or empty while the payment is reserved and settles later.
    pub transaction: String,
    /// `eip155:<chain id>`.
    pub network: String,
    /// Amount taken, in the asset's smallest unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<String>,
    /// Protocol extensions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Map<String, Value>>,
    /// Scheme-specific additions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Map<String, Value>>,
}

/// x402's name of an EVM chain.
#[must_use]
pub fn network(chain_id: u64) -> String {
    format!("eip155:{chain_id}")
}

/// Header text of an object: base64 of its JSON.
///
/// # Panics
/// Never: these types have no map with non-text keys.
#[must_use]
pub fn encode_header<T: Serialize>(object: &T) -> String {
    BASE64.encode(serde_json::to_vec(object).expect("x402 types serialise"))
}

/// Decodes header text, bounded by [`MAX_HEADER_BYTES`].
///
/// # Errors
/// Too long, not base64, or not this JSON.
pub fn decode_header<T: DeserializeOwned>(header: &[u8]) -> Result<T, X402Error> {
    Ok(serde_json::from_slice(&decode_text(header)?)?)
}

fn decode_text(header: &[u8]) -> Result<Vec<u8>, X402Error> {
    if header.len() > MAX_HEADER_BYTES {
        return Err(X402Error::TooLong { got: header.len() });
    }
    Ok(BASE64.decode(header.trim_ascii())?)
}

/// 256-bit integers as decimal text, as x402 writes amounts.
pub mod decimal {
    use alloy_primitives::U256;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Plain decimal digits without sign, space, separator or needless leading zero.
    #[must_use]
    pub fn parse(text: &str) -> Option<U256> {
        let plain = !text.is_empty()
            && text.len() <= 78
            && text.bytes().all(|b| b.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'));
        if plain {
            U256::from_str_radix(text, 10).ok()
        } else {
            None
        }
    }

    /// Serialises as decimal text.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(value: &U256, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    /// Deserialises decimal text.
    ///
    /// # Errors
    /// Not text, or not a plain decimal integer below 2^256.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<U256, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        parse(&text).ok_or_else(|| D::Error::custom("amount is not a decimal integer"))
    }
}

#[cfg(test)]
mod scheme_tests;
#[cfg(test)]
mod tests;
