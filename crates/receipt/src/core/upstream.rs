//! Where the answer of a closed model came from (receipt.md §3, key 21).
//!
//! The record says which bytes a TLS peer sent that was authenticated as which host. It does not say what the provider ran.

use super::{Core, FinishReason};
use crate::{
    error::ReceiptError,
    fields::{Fields, as_array},
};
use alloy_primitives::B256;
use opg_primitives::{
    cbor::{Encoder, Value},
    domain::Tag,
    hash::tagged,
    ids::ModelRoot,
    mode::Mode,
};
use serde::{Deserialize, Serialize};

/// Version of the record that this crate writes and reads.
pub const UPSTREAM_VERSION: u64 = 1;
/// Most bytes of any text in the record but the host.
pub const MAX_UPSTREAM_TEXT: usize = 128;
/// Most bytes of a host.
pub const MAX_UPSTREAM_HOST: usize = 200;

/// What the node recorded about the exchange with a provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamRecord {
    /// Wire format: `openai`, `anthropic`, `google`, `xai`, `compatible`.
    pub provider: String,
    /// Host that the peer was authenticated as, in lower case, without port.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The model that was asked of the provider, in its words.
    pub model: String,
    /// Version of the translation between its format and the answer's.
    pub transform: String,
    /// The TLS peer; absent for a server on the node's own machine without TLS.
    pub peer: Option<UpstreamPeer>,
    /// [`request_commitment`] to the body that was sent.
    pub request: B256,
    /// [`answer_commitment`] to the bytes that came, before translation.
    pub answer: B256,
    /// How many they were.
    pub answer_bytes: u64,
    /// Whether the provider's answer came to its end.
    pub complete: bool,
    /// The provider's identifier of its answer.
    pub response_id: Option<String>,
    /// The provider's name of the model that answered, often dated.
    pub reported_model: Option<String>,
}

/// The certificates of a TLS peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamPeer {
    /// SHA-256 over the chain that the peer sent, each certificate (DER, its own first) behind its length in four bytes, big-endian.
    pub chain: B256,
    /// SHA-256 of the public key (SubjectPublicKeyInfo, DER) of its own certificate.
    pub spki: B256,
}

/// Root under which a closed model is registered on chain: `tagged("opg/closed-model/v1", provider, host, model)`, all as in the
/// record. It names a place and a name there, not weights.
///
/// ```
/// use opg_receipt::closed_model_root;
///
/// let root = closed_model_root("openai", "api.openai.com", "gpt-5.2");
/// assert_ne!(root, closed_model_root("openai", "api.openai.com.example", "gpt-5.2"));
/// ```
#[must_use]
pub fn closed_model_root(provider: &str, host: &str, model: &str) -> ModelRoot {
    ModelRoot(tagged(
        Tag::ClosedModel,
        &[provider.as_bytes(), host.as_bytes(), model.as_bytes()],
    ))
}

/// `tagged("opg/upstream-request/v1", salt, SHA-256 of the body that was sent to the provider)`, salted as all commitments (D11).
#[must_use]
pub fn request_commitment(salt: &B256, sha256: &B256) -> B256 {
    tagged(Tag::UpstreamRequest, &[salt.as_slice(), sha256.as_slice()])
}

/// `tagged("opg/upstream-answer/v1", salt, SHA-256 of the provider's bytes before translation)`.
#[must_use]
pub fn answer_commitment(salt: &B256, sha256: &B256) -> B256 {
    tagged(Tag::UpstreamAnswer, &[salt.as_slice(), sha256.as_slice()])
}

impl UpstreamRecord {
    /// Root of the closed model that the record says was asked.
    #[must_use]
    pub fn model_root(&self) -> ModelRoot {
        closed_model_root(&self.provider, &self.host, &self.model)
    }

    /// Checks form and bounds of the texts: they are printed on terminals, and identify a model.
    pub(super) fn check_form(&self) -> Result<(), ReceiptError> {
        let optional = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        for (field, text, limit) in [
            ("upstream.provider", self.provider.clone(), MAX_UPSTREAM_TEXT),
            ("upstream.host", self.host.clone(), MAX_UPSTREAM_HOST),
            ("upstream.model", self.model.clone(), MAX_UPSTREAM_TEXT),
            ("upstream.transform", self.transform.clone(), MAX_UPSTREAM_TEXT),
            ("upstream.response_id", optional(&self.response_id), MAX_UPSTREAM_TEXT),
            (
                "upstream.reported_model",
                optional(&self.reported_model),
                MAX_UPSTREAM_TEXT,
            ),
        ] {
            let visible = text.bytes().all(|b| b.is_ascii_graphic() || b == b' ');
            if text.is_empty() || text.len() > limit || !visible {
                let expected = format!("1 to {limit} bytes of visible ASCII");
                let got: String = text.escape_debug().take(60).collect();
                return Err(ReceiptError::value(field, expected, got));
            }
        }
        if self.host.bytes().any(|b| b.is_ascii_uppercase() || b == b' ') {
            return Err(ReceiptError::value("upstream.host", "lower case", &self.host));
        }
        Ok(())
    }

    /// Checks the record against the rest of its core.
    pub(super) fn check(&self, core: &Core) -> Result<(), ReceiptError> {
        self.check_form()?;
        let root = self.model_root();
        if root != core.model.served_root {
            return Err(ReceiptError::value("upstream.model", core.model.served_root, root));
        }
        if core.mode.served == Mode::Zk || core.mode.served == Mode::Replay {
            let expected = "absent where the answer is computed again or proven";
            return Err(ReceiptError::value("upstream", expected, "present"));
        }
        if !self.complete && core.response.finish == FinishReason::Stop {
            let expected = "true for an answer that ended by itself";
            return Err(ReceiptError::value("upstream.complete", expected, false));
        }
        Ok(())
    }

    pub(super) fn encode(&self, e: &mut Encoder) {
        let optional = 2 * usize::from(self.peer.is_some())
            + usize::from(self.response_id.is_some())
            + usize::from(self.reported_model.is_some());
        e.map(10 + optional);
        e.uint(1).uint(UPSTREAM_VERSION);
        e.uint(2).text(&self.provider).uint(3).text(&self.host);
        e.uint(4).uint(self.port.into()).uint(5).text(&self.model);
        e.uint(6).text(&self.transform);
        e.uint(7).bytes(self.request.as_slice());
        e.uint(8).bytes(self.answer.as_slice());
        e.uint(9).uint(self.answer_bytes).uint(10).bool(self.complete);
        if let Some(peer) = &self.peer {
            e.uint(11).bytes(peer.chain.as_slice());
            e.uint(12).bytes(peer.spki.as_slice());
        }
        if let Some(id) = &self.response_id {
            e.uint(13).text(id);
        }
        if let Some(model) = &self.reported_model {
            e.uint(14).text(model);
        }
    }

    pub(super) fn read(value: Value) -> Result<Self, ReceiptError> {
        let text = |value, field| match value {
            Value::Text(text) => Ok(text),
            _ => Err(ReceiptError::Type {
                field,
                expected: "text",
            }),
        };
        let mut f = Fields::of(value, "upstream")?;
        let version = f.uint(1, "upstream.version")?;
        if version != UPSTREAM_VERSION {
            return Err(ReceiptError::value("upstream.version", UPSTREAM_VERSION, version));
        }
        let record = Self {
            provider: f.text(2, "upstream.provider")?,
            host: f.text(3, "upstream.host")?,
            port: f.small(4, "upstream.port")?,
            model: f.text(5, "upstream.model")?,
            transform: f.text(6, "upstream.transform")?,
            request: f.b256(7, "upstream.request")?,
            answer: f.b256(8, "upstream.answer")?,
            answer_bytes: f.uint(9, "upstream.answer_bytes")?,
            complete: f.bool(10, "upstream.complete")?,
            peer: match f.optional(11) {
                None => None,
                Some(chain) => Some(UpstreamPeer {
                    chain: B256::new(as_array(chain, "upstream.peer.chain")?),
                    spki: f.b256(12, "upstream.peer.spki")?,
                }),
            },
            response_id: f
                .optional(13)
                .map(|value| text(value, "upstream.response_id"))
                .transpose()?,
            reported_model: f
                .optional(14)
                .map(|value| text(value, "upstream.reported_model"))
                .transpose()?,
        };
        record.check_form()?;
        f.end().map(|()| record)
    }
}
