//! What a client checks before it believes an answer. Pure.
//!
//! The node was paid for this answer, so its receipt must say exactly what was asked, paid and delivered, under the key that
//! the registry has for it. A receipt that fails here is kept by the caller as evidence, but the answer is not returned as good.

use alloy_primitives::B256;
use opg_contracts::addresses;
use opg_primitives::{
    ids::{Keyset, ReceiptId},
    money::Amount,
};
use opg_receipt::{
    PaymentRecord, ReceiptError, SignedQuote, SignedReceipt,
    commit::{self, LeafKind},
    file::Leaf,
};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};

/// Most leaves that are looked at; the receipt's own bound.
const MAX_LEAVES: usize = 4_096;

/// Why an answer is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// The `opg` object is missing or not understood.
    #[error("opg: {0}")]
    Envelope(String),
    /// The receipt does not decode, is not signed by the node, or contradicts itself or the quote.
    #[error("opg.receipt: {0}")]
    Receipt(#[from] ReceiptError),
    /// A field of the receipt is not what was asked, paid or delivered.
    #[error("opg.receipt: {field}: expected {expected}, got {got}")]
    Field {
        /// Name as in the receipt specification.
        field: &'static str,
        /// What the client knows.
        expected: String,
        /// What the receipt says.
        got: String,
    },
}

/// The `opg` object of an answer.
#[derive(Debug, Clone, Deserialize)]
pub struct Envelope {
    /// Receipt id.
    pub receipt_id: ReceiptId,
    /// COSE bytes of the receipt.
    #[serde(deserialize_with = "hex_bytes")]
    pub receipt: Vec<u8>,
    /// Salt of the commitments.
    pub salt: B256,
    /// Bearer secret for `/v1/receipts/{id}`.
    #[serde(default)]
    pub secret: Option<String>,
    /// Canonical JSON of the effective parameters.
    pub params: String,
    /// Parts of the answer.
    pub leaves: Vec<Leaf>,
    /// The quote, which a call that was paid without asking sees here first.
    #[serde(default, deserialize_with = "optional_hex_bytes")]
    pub quote: Option<Vec<u8>>,
    /// What the client of a channel counts.
    #[serde(default)]
    pub payment: Option<serde_json::Map<String, serde_json::Value>>,
}

/// What the client asked and paid.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    /// Name of the model in the request.
    pub model: &'a str,
    /// The request's body, as sent.
    pub body: &'a [u8],
    /// The quote that was accepted.
    pub quote: &'a SignedQuote,
    /// The payment that was signed.
    pub payment: &'a PaymentRecord,
    /// The node's registered keys.
    pub keyset: &'a Keyset,
}

impl Envelope {
    /// Checks the receipt against what was asked and paid, and that it commits to exactly these leaves.
    ///
    /// # Errors
    /// The first thing that does not hold.
    pub fn check(&self, asked: &Asked<'_>) -> Result<SignedReceipt, AnswerError> {
        let receipt = SignedReceipt::decode(&self.receipt)?;
        receipt.verify_signature(&asked.keyset.receipt_key.0)?;
        let core = receipt.core();
        core.check_quote(asked.quote)?;
        core.check_consistency()?;
        same("receipt_id", &self.receipt_id, &core.receipt_id)?;
        same("registry", &addresses::NODE_REGISTRY, &core.registry)?;
        same("model.asked", &asked.model.to_owned(), &core.model.asked)?;
        // Substitution is what a receipt must show, whatever the mode.
        same("model.served_root", &core.model.asked_root, &core.model.served_root)?;
        same("mode.served", &core.mode.asked, &core.mode.served)?;
        let payment = &core.payment;
        let paid = asked.payment;
        same("payment.payer", &paid.payer, &payment.payer)?;
        same("payment.nonce", &paid.nonce, &payment.nonce)?;
        same("payment.valid_after", &paid.valid_after, &payment.valid_after)?;
        same("payment.valid_before", &paid.valid_before, &payment.valid_before)?;
        if payment.signature != paid.signature {
            return Err(differs("payment.signature", "the one sent", "another"));
        }
        if payment != paid {
            return Err(differs("payment", "the one sent", "another"));
        }
        same(
            "request.body",
            &commit::request(&self.salt, asked.body),
            &core.request.body,
        )?;
        same(
            "request.params",
            &commit::params(&self.salt, &self.params),
            &core.request.params,
        )?;
        same(
            "response.leaves",
            &self.leaves.len().to_string(),
            &core.response.leaves.to_string(),
        )?;
        same("response.commitment", &self.commitment()?, &core.response.commitment)?;
        Ok(receipt)
    }

    fn commitment(&self) -> Result<B256, AnswerError> {
        if self.leaves.len() > MAX_LEAVES {
            return Err(differs(
                "response.leaves",
                format!("at most {MAX_LEAVES}"),
                self.leaves.len(),
            ));
        }
        let hashes: Vec<B256> = (0u32..)
            .zip(&self.leaves)
            .map(|(i, leaf)| commit::response_leaf(&self.salt, leaf.kind, i, &leaf.bytes.0))
            .collect();
        commit::response(&hashes).ok_or_else(|| AnswerError::Envelope("too many leaves".into()))
    }

    /// The leaves of a kind, each of them JSON.
    pub(crate) fn each<T: DeserializeOwned>(&self, kind: LeafKind) -> Result<Vec<T>, AnswerError> {
        let leaves = self.leaves.iter().filter(|leaf| leaf.kind == kind);
        leaves
            .map(|leaf| {
                serde_json::from_slice(&leaf.bytes.0).map_err(|error| AnswerError::Envelope(format!("leaf: {error}")))
            })
            .collect()
    }

    /// The leaves of a kind that are text, joined.
    pub(crate) fn text(&self, kind: LeafKind) -> Result<String, AnswerError> {
        let bytes: Vec<u8> = self
            .leaves
            .iter()
            .filter(|leaf| leaf.kind == kind)
            .flat_map(|leaf| leaf.bytes.0.iter().copied())
            .collect();
        String::from_utf8(bytes).map_err(|_| AnswerError::Envelope("a text leaf is not UTF-8".into()))
    }

    /// The tensors, from the one leaf that holds them.
    pub(crate) fn tensors(&self) -> Result<serde_json::Value, AnswerError> {
        let mut leaves = self.leaves.iter().filter(|leaf| leaf.kind == LeafKind::Tensors);
        match (leaves.next(), leaves.next()) {
            (Some(leaf), None) => serde_json::from_slice(&leaf.bytes.0)
                .map_err(|error| AnswerError::Envelope(format!("tensor leaf: {error}"))),
            _ => Err(AnswerError::Envelope("expected one tensor leaf".into())),
        }
    }
}

/// What was delivered must be what the receipt commits to; else the receipt proves another answer.
pub(crate) fn same_delivery<T: PartialEq>(what: &'static str, committed: &T, delivered: &T) -> Result<(), AnswerError> {
    if committed == delivered {
        return Ok(());
    }
    Err(differs(what, "what was delivered", "another answer"))
}

/// What the caller gets back of what was taken (D3): under `exact`, the signed amount less the charge.
pub fn refund(receipt: &SignedReceipt) -> Amount {
    let core = receipt.core();
    core.payment.due(core.price.charge).saturating_sub(core.price.charge)
}

fn differs(field: &'static str, expected: impl ToString, got: impl ToString) -> AnswerError {
    let got = crate::text::one_line(&got.to_string(), 200);
    AnswerError::Field {
        field,
        expected: expected.to_string(),
        got,
    }
}

fn same<T: PartialEq + ToString>(field: &'static str, expected: &T, got: &T) -> Result<(), AnswerError> {
    if expected == got {
        Ok(())
    } else {
        Err(differs(field, expected.to_string(), got.to_string()))
    }
}

fn hex_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    hex::decode(text.strip_prefix("0x").unwrap_or(&text)).map_err(serde::de::Error::custom)
}

fn optional_hex_bytes<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<u8>>, D::Error> {
    hex_bytes(deserializer).map(Some)
}
