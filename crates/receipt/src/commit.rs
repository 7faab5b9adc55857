//! Commitments (receipt.md §2): salted hashes that a client can open and nobody else can guess.

use opg_primitives::{
    B256,
    domain::Tag,
    hash::{Tagged, tagged},
    ids::{ModelRoot, NodeId, ReceiptId},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What one leaf of an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "u8", try_from = "u8")]
pub enum LeafKind {
    /// Text of the answer.
    Text,
    /// A tool call, as JSON.
    ToolCall,
    /// A refusal.
    Refusal,
    /// Reasoning.
    Reasoning,
    /// An image.
    Image,
    /// Tensors, as JSON.
    Tensors,
}

impl LeafKind {
    /// All kinds, by code.
    pub const ALL: [Self; 6] = [
        Self::Text,
        Self::ToolCall,
        Self::Refusal,
        Self::Reasoning,
        Self::Image,
        Self::Tensors,
    ];

    /// The number that is hashed.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Text => 0,
            Self::ToolCall => 1,
            Self::Refusal => 2,
            Self::Reasoning => 3,
            Self::Image => 4,
            Self::Tensors => 5,
        }
    }
}

impl From<LeafKind> for u8 {
    fn from(kind: LeafKind) -> Self {
        kind.code()
    }
}

impl TryFrom<u8> for LeafKind {
    type Error = String;

    fn try_from(code: u8) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|kind| kind.code() == code)
            .ok_or_else(|| format!("leaf kind: expected 0 to 5, got {code}"))
    }
}

/// `tagged("opg/receipt-id/v1", chain_id as u64 be, node_id, quote_nonce)`: known before the work, unique per quote.
#[must_use]
pub fn receipt_id(chain_id: u64, node_id: &NodeId, quote_nonce: &B256) -> ReceiptId {
    let chain = chain_id.to_be_bytes();
    ReceiptId(tagged(
        Tag::ReceiptId,
        &[&chain, node_id.as_ref(), quote_nonce.as_slice()],
    ))
}

/// Commitment to the raw body bytes as the node received them.
#[must_use]
pub fn request(salt: &B256, body: &[u8]) -> B256 {
    tagged(Tag::Request, &[salt.as_slice(), body])
}

/// Commitment to the effective parameters; `canonical` comes from [`canonical_json`].
#[must_use]
pub fn params(salt: &B256, canonical: &str) -> B256 {
    tagged(Tag::Params, &[salt.as_slice(), canonical.as_bytes()])
}

/// Commitment to part `index` of the answer.
#[must_use]
pub fn response_leaf(salt: &B256, kind: LeafKind, index: u32, bytes: &[u8]) -> B256 {
    tagged(
        Tag::ResponseLeaf,
        &[salt.as_slice(), &[kind.code()], &index.to_be_bytes(), bytes],
    )
}

/// Commitment to all leaves, in order; `None` if there are more than `u32` can count.
#[must_use]
pub fn response(leaves: &[B256]) -> Option<B256> {
    let count = u32::try_from(leaves.len()).ok()?;
    let mut hash = Tagged::new(Tag::Response);
    hash.part(&count.to_be_bytes());
    for leaf in leaves {
        hash.part(leaf.as_slice());
    }
    Some(hash.finish())
}

/// What a proof after the answer must prove (D10): this program of this model gave this answer to this request.
///
/// `program` is the root that names the program, its weights and the parameter set of the proof; `input` and `output` are
/// the commitments of the core to body and answer.
#[must_use]
pub fn proof_statement(model: &ModelRoot, program: &B256, input: &B256, output: &B256, id: &ReceiptId) -> B256 {
    let parts = [
        model.as_ref(),
        program.as_slice(),
        input.as_slice(),
        output.as_slice(),
        id.as_ref(),
    ];
    tagged(Tag::ProofStatement, &parts)
}

/// JSON without spaces, object keys sorted by their UTF-8 bytes, numbers as `serde_json` prints them.
#[must_use]
pub fn canonical_json(value: &Value) -> String {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
            Value::Object(map) => {
                let mut pairs: Vec<_> = map.iter().collect();
                pairs.sort_by(|a, b| a.0.as_bytes().cmp(b.0.as_bytes()));
                Value::Object(pairs.into_iter().map(|(k, v)| (k.clone(), sorted(v))).collect())
            }
            other => other.clone(),
        }
    }
    // `Display` of a JSON value is compact and cannot fail.
    sorted(value).to_string()
}
