//! Extensions that a payment carries: `payment-identifier` for safe retries, and our own `opg-headroom` (payments.md §1.7, §8).

use super::{
    PaymentPayload, X402Error,
    field::{Reader, bad},
};
use alloy_primitives::{B256, keccak256};
use serde_json::{Map, Value, json};

/// Name of the extension that makes retries safe.
pub const PAYMENT_IDENTIFIER: &str = "payment-identifier";
/// Name of our extension for several calls at once on one channel: the voucher is a ceiling for the sum of their bounds.
pub const HEADROOM: &str = "opg-headroom";
/// Shortest identifier, bytes.
pub const MIN_IDENTIFIER: usize = 16;
/// Longest identifier, bytes.
pub const MAX_IDENTIFIER: usize = 128;

/// A payment's identifier with the digest of what it identifies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Identifier {
    /// Hash of the identifier's text.
    pub id: B256,
    /// Digest of the payment: another digest under the same id is another payment, answered with 409.
    pub payment: B256,
}

impl Identifier {
    /// The identifier of a payment, if its client gave one.
    ///
    /// # Errors
    /// [`X402Error::Payload`] if it is malformed, or missing although `required`.
    pub fn of(payload: &PaymentPayload, required: bool) -> Result<Option<Self>, X402Error> {
        const PATH: &str = "extensions.payment-identifier.info.id";
        let info = payload
            .extensions
            .as_ref()
            .and_then(|all| all.get(PAYMENT_IDENTIFIER))
            .and_then(|extension| extension.get("info"));
        let Some(info) = info.map(Reader).filter(|info| info.has("id")) else {
            return if required {
                Err(bad(PATH, "is required"))
            } else {
                Ok(None)
            };
        };
        let id = info.text("id", PATH)?;
        if !is_identifier(id) {
            return Err(bad(
                PATH,
                format!("is not {MIN_IDENTIFIER} to {MAX_IDENTIFIER} letters, digits, - or _"),
            ));
        }
        // Values keep the order of their text, so equal text gives equal bytes.
        let payment = serde_json::to_vec(&(&payload.accepted, &payload.payload))?;
        Ok(Some(Self {
            id: keccak256(id),
            payment: keccak256(payment),
        }))
    }
}

/// Whether a text may be an identifier.
#[must_use]
pub fn is_identifier(text: &str) -> bool {
    (MIN_IDENTIFIER..=MAX_IDENTIFIER).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// What a 402 answer declares, to be inserted under [`PAYMENT_IDENTIFIER`].
#[must_use]
pub fn identifier_offer(required: bool) -> Value {
    json!({
        "info": {"required": required},
        "schema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "required": {"type": "boolean"},
                "id": {"type": "string", "minLength": MIN_IDENTIFIER, "maxLength": MAX_IDENTIFIER, "pattern": "^[a-zA-Z0-9_-]+$"},
            },
            "required": ["required"],
        },
    })
}

/// Puts an identifier into the extensions that a client sends.
pub fn set_identifier(extensions: &mut Map<String, Value>, id: &str) {
    let offer = extensions
        .entry(PAYMENT_IDENTIFIER)
        .or_insert_with(|| json!({"info": {"required": false}}));
    if let Some(info) = offer.get_mut("info").and_then(Value::as_object_mut) {
        info.insert("id".to_owned(), json!(id));
    }
}

/// What a 402 answer declares under [`HEADROOM`], and what a client that uses it sends back.
#[must_use]
pub fn headroom_offer() -> Value {
    json!({"info": {"version": 1}, "schema": {"type": "object"}})
}

/// Whether a payment asks for the headroom rule.
#[must_use]
pub fn wants_headroom(payload: &PaymentPayload) -> bool {
    payload
        .extensions
        .as_ref()
        .and_then(|all| all.get(HEADROOM))
        .and_then(|extension| extension.get("info"))
        .and_then(|info| info.get("version"))
        .and_then(Value::as_u64)
        == Some(1)
}
