//! The facilitator's API: `/verify`, `/settle`, `/supported`, so that other servers can have payments checked and settled here
//! (payments.md §1.3, §1.6).

use super::{
    PaymentPayload, PaymentRequirements, VERSION, X402Error,
    batch::config,
    field::{Reader, bad},
};
use crate::{
    channel::{ChannelConfig, Voucher},
    eip712::Domain,
};
use alloy_primitives::{Address, Bytes, U256};
use opg_primitives::money::Amount;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Largest body of `/verify` and `/settle`, bytes: a hundred claims are 80 kB.
pub const MAX_BODY_BYTES: usize = 192 * 1024;
/// Most rows of one claim (the public servers' default).
pub const MAX_CLAIMS: usize = 100;
/// `errorReason` while the outcome of a transaction is unknown; the answer carries its hash and is to be asked again, once.
pub const SETTLEMENT_PENDING: &str = "settlement_pending";

/// Body of `/verify` and `/settle`. For `upto`, the requirement's amount at `/settle` is the actual charge.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FacilitatorRequest {
    /// [`VERSION`].
    pub x402_version: u64,
    /// The client's payment, or the server's action on channels.
    pub payment_payload: PaymentPayload,
    /// The server's offer.
    pub payment_requirements: PaymentRequirements,
}

impl FacilitatorRequest {
    /// Reads a body, bounded by [`MAX_BODY_BYTES`].
    ///
    /// # Errors
    /// Too long, not this JSON, or another version.
    pub fn parse(body: &[u8]) -> Result<Self, X402Error> {
        if body.len() > MAX_BODY_BYTES {
            return Err(X402Error::TooLong { got: body.len() });
        }
        let request: Self = serde_json::from_slice(body)?;
        match request.x402_version {
            version if version == u64::from(VERSION) => Ok(request),
            got => Err(X402Error::Version { got }),
        }
    }
}

/// Answer of `/verify`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyResponse {
    /// Whether the payment can be settled.
    pub is_valid: bool,
    /// Machine-readable reason why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid_reason: Option<String>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invalid_message: Option<String>,
    /// Who pays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payer: Option<Address>,
    /// Protocol extensions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extensions: Option<Map<String, Value>>,
    /// Scheme-specific additions; for channels their state on chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Map<String, Value>>,
}

/// One kind of payment that is taken.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SupportedKind {
    /// Protocol version.
    pub x402_version: u64,
    /// Scheme.
    pub scheme: String,
    /// `eip155:<chain id>`.
    pub network: String,
    /// What a server must put into its offers: for `upto` the facilitator's address, for channels the authorizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Map<String, Value>>,
}

/// Answer of `/supported`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct SupportedResponse {
    /// Kinds of payment.
    pub kinds: Vec<SupportedKind>,
    /// Names of extensions.
    #[serde(default)]
    pub extensions: Vec<String>,
    /// Accounts that send transactions, by family of networks (`eip155:*`).
    #[serde(default)]
    pub signers: Map<String, Value>,
}

/// One row of a claim as a server sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoucherClaim {
    /// The channel.
    pub config: ChannelConfig,
    /// Ceiling of the voucher.
    pub max_claimable: Amount,
    /// Signature of the voucher.
    pub signature: Bytes,
    /// What was charged; at most the ceiling.
    pub total_claimed: Amount,
}

impl VoucherClaim {
    /// The voucher of this row; `domain` is [`Domain::batch_settlement`].
    #[must_use]
    pub fn voucher(&self, domain: &Domain) -> Voucher {
        Voucher {
            channel_id: self.config.id(domain),
            max_claimable: self.max_claimable,
        }
    }
}

/// What a server asks `/settle` to do with channels, besides settling a client's deposit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelAction {
    /// Book charges on chain.
    Claim {
        /// Rows, at most [`MAX_CLAIMS`].
        claims: Vec<VoucherClaim>,
        /// The receiver authorizer's, if the server signs itself.
        authorizer_signature: Option<Bytes>,
    },
    /// Pay out what is booked.
    Settle {
        /// Receiver.
        receiver: Address,
        /// Token.
        token: Address,
    },
    /// Give the rest back to the payer, after booking the charges.
    Refund {
        /// The channel.
        config: Box<ChannelConfig>,
        /// Amount.
        amount: Amount,
        /// The channel's refund counter.
        nonce: U256,
        /// Rows to claim before.
        claims: Vec<VoucherClaim>,
        /// The receiver authorizer's on the refund.
        refund_signature: Option<Bytes>,
        /// The receiver authorizer's on the claims.
        claim_signature: Option<Bytes>,
    },
}

impl ChannelAction {
    /// Reads the payload of a settle request with `type` claim, settle, or refund with a `refundNonce`.
    ///
    /// # Errors
    /// [`X402Error::Payload`] names the field.
    pub fn parse(payload: &Value) -> Result<Self, X402Error> {
        let reader = Reader(payload);
        match reader.text("type", "type")? {
            "claim" => Ok(Self::Claim {
                claims: claims(reader)?,
                authorizer_signature: optional(reader, "claimAuthorizerSignature")?,
            }),
            "settle" => Ok(Self::Settle {
                receiver: reader.address("receiver", "receiver")?,
                token: reader.address("token", "token")?,
            }),
            "refund" => Ok(Self::Refund {
                config: Box::new(config(reader.object("channelConfig", "channelConfig")?)?),
                amount: reader.amount("amount", "amount")?,
                nonce: reader.uint("refundNonce", "refundNonce")?,
                claims: claims(reader)?,
                refund_signature: optional(reader, "refundAuthorizerSignature")?,
                claim_signature: optional(reader, "claimAuthorizerSignature")?,
            }),
            _ => Err(bad("type", "is not claim, settle or refund")),
        }
    }
}

fn optional(reader: Reader<'_>, name: &'static str) -> Result<Option<Bytes>, X402Error> {
    match reader.has(name) {
        true => reader.signature(name, name).map(Some),
        false => Ok(None),
    }
}

fn claims(reader: Reader<'_>) -> Result<Vec<VoucherClaim>, X402Error> {
    let rows = reader
        .0
        .get("claims")
        .and_then(Value::as_array)
        .ok_or_else(|| bad("claims", "is missing or not a list"))?;
    if rows.len() > MAX_CLAIMS {
        return Err(bad(
            "claims",
            format!("has {} rows, at most {MAX_CLAIMS} are accepted", rows.len()),
        ));
    }
    let claim = |row: &Value| {
        let row = Reader(row);
        let voucher = row.object("voucher", "claims.voucher")?;
        let claim = VoucherClaim {
            config: config(voucher.object("channel", "claims.voucher.channel")?)?,
            max_claimable: voucher.amount("maxClaimableAmount", "claims.voucher.maxClaimableAmount")?,
            signature: row.signature("signature", "claims.signature")?,
            total_claimed: row.amount("totalClaimed", "claims.totalClaimed")?,
        };
        if claim.total_claimed > claim.max_claimable {
            return Err(bad("claims.totalClaimed", "is more than voucher.maxClaimableAmount"));
        }
        Ok(claim)
    };
    rows.iter().map(claim).collect()
}
