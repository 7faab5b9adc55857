//! The signed core of a receipt (receipt.md §3): request, model, answer, price and payment as one canonical document.

mod check;
mod codec;
pub mod upstream;

use crate::stream;
use alloy_primitives::{Address, B256, Bytes};
use opg_primitives::{
    hash,
    ids::{KeysetDigest, ModelRoot, NodeId, PaymentId, ReceiptId, payment_id, permit2_payment_id},
    mode::{Grade, Mode},
    money::{Amount, Price, Usage},
};
use serde::{Deserialize, Serialize};

/// Version of the core that this crate writes and reads.
pub const VERSION: u64 = 1;
/// Most bytes of a model name.
pub const MAX_MODEL_NAME: usize = 200;
/// Most bytes of a payment signature; contract payers (ERC-1271) need more than 65.
pub const MAX_PAYMENT_SIGNATURE: usize = 1_024;
/// Longest time between an answer and the deadline of its proof, seconds.
pub const MAX_PROOF_SECONDS: u64 = 3_600;
/// Most parts that an answer can be split into.
pub const MAX_LEAVES: u32 = 4_096;

/// Everything that a node signs about one answered request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Core {
    /// EVM chain id of the network.
    pub chain_id: u64,
    /// Address of the node registry.
    pub registry: Address,
    /// The node.
    pub node_id: NodeId,
    /// Digest of the keyset whose receipt key signed.
    pub keyset: KeysetDigest,
    /// Position in this keyset's chain of receipts, from 0.
    pub seq: u64,
    /// Core hash of the receipt before, zero for the first.
    pub prev: B256,
    /// Identifier, fixed by the quote.
    pub receipt_id: ReceiptId,
    /// The quote that was accepted.
    pub quote: QuoteRef,
    /// Salted commitments to the request.
    pub request: RequestCommitments,
    /// The model asked for and the one that answered.
    pub model: ModelRef,
    /// The answer.
    pub response: Response,
    /// What was used.
    pub usage: UsageRecord,
    /// What it costs.
    pub price: PriceRecord,
    /// What pays for it.
    pub payment: PaymentRecord,
    /// When, by the node's clock.
    pub times: Times,
    /// How it is verified.
    pub mode: ModeRecord,
    /// How the answer was delivered.
    pub stream: StreamRecord,
    /// Links to evidence; absent for mode none.
    pub evidence: Option<Evidence>,
    /// Router that passed the request on.
    pub router: Option<Address>,
    /// Where the answer came from, for a closed model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<upstream::UpstreamRecord>,
}

/// The accepted quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuoteRef {
    /// SHA-256 of the quote's COSE bytes.
    pub digest: B256,
    /// Random nonce of the quote.
    pub nonce: B256,
}

/// Commitments to the request, salted (D11).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestCommitments {
    /// To the raw body, see [`crate::commit::request`].
    pub body: B256,
    /// To the effective parameters, see [`crate::commit::params`].
    pub params: B256,
}

/// Which model was asked for, and which answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelRef {
    /// Name in the request, at most [`MAX_MODEL_NAME`] bytes, no control characters.
    pub asked: String,
    /// Content root that the name stood for.
    pub asked_root: ModelRoot,
    /// Content root that answered.
    pub served_root: ModelRoot,
    /// Digest of the runtime that ran it.
    pub runtime: B256,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinishReason {
    /// The model was done.
    Stop,
    /// The agreed length was reached.
    Length,
    /// The client hung up or cancelled.
    Cancelled,
    /// The runtime failed.
    Error,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// Commitment to all leaves, see [`crate::commit::response`].
    pub commitment: B256,
    /// Number of leaves, at most [`MAX_LEAVES`].
    pub leaves: u32,
    /// Why it ended.
    pub finish: FinishReason,
    /// HTTP status of the answer, 100 to 599.
    pub status: u16,
}

/// In what a model's usage is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UsageUnit {
    /// Tokens of the model's tokenizer.
    Tokens,
    /// Whole calls.
    Calls,
}

/// What was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsageRecord {
    /// The unit.
    pub unit: UsageUnit,
    /// Units of input.
    pub input: u64,
    /// Units of output.
    pub output: u64,
}

/// What it costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceRecord {
    /// The node's ask.
    pub ask: Price,
    /// Royalty of the model's creator, basis points.
    pub royalty_bps: u16,
    /// The charge.
    pub charge: Amount,
    /// The token: OPG.
    pub asset: Address,
}

/// Payment scheme (x402).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PaymentScheme {
    /// The signed amount, in full.
    Exact,
    /// The charge, at most the signed amount.
    Upto,
    /// The charge, out of a payment channel.
    #[serde(rename = "batch-settlement")]
    BatchSettlement,
}

/// How the payment is authorised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PaymentMethod {
    /// ERC-3009 `transferWithAuthorization`.
    Eip3009,
    /// Permit2 `PermitWitnessTransferFrom`, through the proxy of the scheme.
    Permit2,
    /// Voucher of a payment channel.
    Voucher,
}

/// What pays for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PaymentRecord {
    /// Scheme.
    pub scheme: PaymentScheme,
    /// Method.
    pub method: PaymentMethod,
    /// Who pays.
    pub payer: Address,
    /// The node's deposit address.
    pub payee: Address,
    /// Signed amount; of a voucher, the most that this call can cost.
    pub amount: Amount,
    /// Not valid before or at this Unix second (Permit2: not before it); 0 for vouchers.
    pub valid_after: u64,
    /// Not valid from this Unix second on (Permit2: after it); 0 for vouchers, which do not expire.
    pub valid_before: u64,
    /// Random nonce; of a voucher, the channel's id.
    pub nonce: B256,
    /// Signature, at most [`MAX_PAYMENT_SIGNATURE`] bytes.
    pub signature: Bytes,
    /// The channel, exactly for method `voucher`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<ChannelRecord>,
    /// The only account that may settle, exactly for scheme `upto`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facilitator: Option<Address>,
}

/// What identifies a payment channel besides payer, payee and token, and the voucher that covers the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ChannelRecord {
    /// Account that signs vouchers.
    pub payer_authorizer: Address,
    /// Account that signs claims: the node's settlement key.
    pub receiver_authorizer: Address,
    /// Seconds between a withdrawal request and the withdrawal; below 2^40.
    pub withdraw_delay: u64,
    /// Tells apart the channels of one pair.
    pub salt: B256,
    /// Ceiling of the voucher since the channel was opened.
    pub ceiling: Amount,
}

impl PaymentRecord {
    /// Identifier of the payment: of the authorization or permit, which one receipt spends, or of the channel, which many share.
    #[must_use]
    pub fn id(&self) -> PaymentId {
        match self.method {
            PaymentMethod::Permit2 => permit2_payment_id(self.payer, self.nonce),
            PaymentMethod::Eip3009 | PaymentMethod::Voucher => payment_id(self.payer, self.nonce),
        }
    }

    /// What has to be settled for this receipt: the signed amount under `exact`, else the charge.
    #[must_use]
    pub const fn due(&self, charge: Amount) -> Amount {
        match self.scheme {
            PaymentScheme::Exact => self.amount,
            PaymentScheme::Upto | PaymentScheme::BatchSettlement => charge,
        }
    }
}

/// Unix milliseconds by the node's clock, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// Request received.
    pub received: u64,
    /// First output.
    pub first_output: u64,
    /// Done.
    pub done: u64,
}

/// Verification asked for and given (D9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeRecord {
    /// Mode asked for.
    pub asked: Mode,
    /// Lowest grade that satisfies.
    pub min_grade: Grade,
    /// Mode served.
    pub served: Mode,
    /// Grade of the evidence.
    pub grade: Grade,
}

impl ModeRecord {
    /// Mode none, asked and served.
    pub const NONE: Self = Self {
        asked: Mode::None,
        min_grade: Grade::None,
        served: Mode::None,
        grade: Grade::None,
    };

    /// Whether what was served is at least what was asked for; otherwise the receipt earns nothing.
    #[must_use]
    pub fn is_satisfied(&self) -> bool {
        self.asked == Mode::None || (self.asked == self.served && self.grade >= self.min_grade)
    }
}

/// How the answer was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamRecord {
    /// Whether it was streamed.
    pub streamed: bool,
    /// Number of chunks.
    pub chunks: u64,
    /// Rolling hash over them, see [`stream::rolling_hash`].
    pub rolling_hash: B256,
    /// Whether it ended before the answer did.
    pub aborted: bool,
}

impl StreamRecord {
    /// A whole answer in one body.
    pub const NOT_STREAMED: Self = Self {
        streamed: false,
        chunks: 0,
        rolling_hash: stream::EMPTY,
        aborted: false,
    };
}

/// Links to the evidence of modes other than none; at least one is present.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// The statement that a proof after the answer must prove (D10).
    pub statement_hash: Option<B256>,
    /// Registered evidence of the keyset.
    pub evidence_id: Option<B256>,
    /// Policy epoch of its verdict.
    pub policy_epoch: Option<u64>,
    /// Unix second by which the proof must be there.
    pub proof_deadline: Option<u64>,
}

impl Core {
    /// `keccak256(payload)`: the leaf of the batch and the `prev` of the next receipt.
    #[must_use]
    pub fn core_hash(&self) -> B256 {
        hash::keccak(&self.encode())
    }

    /// Usage as the price formula takes it.
    #[must_use]
    pub const fn billed_usage(&self) -> Usage {
        Usage {
            input: self.usage.input,
            output: self.usage.output,
        }
    }
}

impl FinishReason {
    /// The word in the core.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Cancelled => "cancelled",
            Self::Error => "error",
        }
    }
}

impl UsageUnit {
    /// The word in the core.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Calls => "calls",
        }
    }
}

impl PaymentScheme {
    /// The word in the core.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Exact => "exact",
            Self::Upto => "upto",
            Self::BatchSettlement => "batch-settlement",
        }
    }
}

impl PaymentMethod {
    /// The word in the core.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Eip3009 => "eip3009",
            Self::Permit2 => "permit2",
            Self::Voucher => "voucher",
        }
    }
}
