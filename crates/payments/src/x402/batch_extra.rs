//! `extra` of scheme `batch-settlement`: in offers, in answers, and in the corrective 402 that brings a client back in step.

use super::{
    PaymentRequirements, X402Error,
    field::{Reader, bad},
    permit::text,
};
use alloy_primitives::{Address, B256, Bytes, U256};
use opg_primitives::money::Amount;
use serde_json::{Map, Value, json};

/// Error of a voucher that is not `charged + amount`: the client resynchronises from `accepts[].extra`.
pub const CUMULATIVE_MISMATCH: &str = "invalid_batch_settlement_evm_cumulative_amount_mismatch";
/// Error while another request runs on the same channel: try again when it ended.
pub const CHANNEL_BUSY: &str = "invalid_batch_settlement_evm_channel_busy";
/// Error of a voucher above the channel's money: deposit more.
pub const EXCEEDS_BALANCE: &str = "invalid_batch_settlement_evm_cumulative_exceeds_balance";
/// Error of a voucher below what is claimed on chain already.
pub const BELOW_CLAIMED: &str = "invalid_batch_settlement_evm_cumulative_below_claimed";
/// Error of a voucher that the payer's authorizer did not sign.
pub const BAD_VOUCHER_SIGNATURE: &str = "invalid_batch_settlement_evm_voucher_signature";
/// Error of a channel whose id is not that of its configuration.
pub const CHANNEL_ID_MISMATCH: &str = "invalid_batch_settlement_evm_channel_id_mismatch";
/// Error of a channel that does not exist.
pub const CHANNEL_NOT_FOUND: &str = "invalid_batch_settlement_evm_channel_not_found";
/// Error of a refund where nothing is left.
pub const REFUND_NO_BALANCE: &str = "invalid_batch_settlement_evm_refund_no_balance";
/// Error of a refund of nothing, or of more than is left.
pub const REFUND_AMOUNT_INVALID: &str = "invalid_batch_settlement_evm_refund_amount_invalid";

/// `extra` of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchExtra {
    /// Account that will sign claims.
    pub receiver_authorizer: Address,
    /// Delay of new channels, seconds.
    pub withdraw_delay: u64,
    /// EIP-712 name of the token.
    pub name: String,
    /// EIP-712 version of the token.
    pub version: String,
    /// Deposits by Permit2 instead of ERC-3009.
    pub by_permit2: bool,
    /// What a stock client deposits (five times the amount without it).
    pub min_deposit: Option<Amount>,
    /// The channel as the server knows it, in a corrective 402.
    pub channel_state: Option<ChannelState>,
    /// The newest voucher that the server holds, in a corrective 402.
    pub voucher_state: Option<VoucherState>,
}

/// A channel as the server knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelState {
    /// The channel.
    pub channel_id: B256,
    /// Deposited in all, less withdrawals and refunds.
    pub balance: Amount,
    /// Claimed on chain.
    pub total_claimed: Amount,
    /// When a withdrawal was requested, Unix seconds; 0: none pending.
    pub withdraw_requested_at: u64,
    /// Refund counter on chain.
    pub refund_nonce: U256,
    /// Charged since the channel was opened, as the client counts; absent in what only the chain says.
    pub charged_cumulative: Option<Amount>,
}

/// A voucher that the client signed, given back to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoucherState {
    /// Its ceiling.
    pub signed_max_claimable: Amount,
    /// Its signature.
    pub signature: Bytes,
}

impl BatchExtra {
    /// The JSON object.
    #[must_use]
    pub fn to_map(&self) -> Map<String, Value> {
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| drop(map.insert(key.to_owned(), value));
        put("receiverAuthorizer", json!(text(self.receiver_authorizer)));
        put("withdrawDelay", json!(self.withdraw_delay));
        put("name", json!(self.name));
        put("version", json!(self.version));
        if self.by_permit2 {
            put("assetTransferMethod", json!(super::PERMIT2_METHOD));
        }
        if let Some(amount) = self.min_deposit {
            put("minDeposit", json!(amount));
        }
        if let Some(state) = &self.channel_state {
            put("channelState", state.to_value());
        }
        if let Some(state) = &self.voucher_state {
            put("voucherState", state.to_value());
        }
        map
    }

    /// Reads `extra` of an offer.
    ///
    /// # Errors
    /// [`X402Error::Payload`] names the field.
    pub fn parse(requirements: &PaymentRequirements) -> Result<Self, X402Error> {
        let value = Value::Object(requirements.extra.clone().unwrap_or_default());
        let reader = Reader(&value);
        let optional = |key: &'static str, path: &'static str| {
            let present = reader.has(key);
            present.then(|| reader.object(key, path)).transpose()
        };
        let by_permit2 = match reader.0.get("assetTransferMethod").and_then(Value::as_str) {
            None | Some("eip3009") => false,
            Some("permit2") => true,
            Some(_) => return Err(bad("extra.assetTransferMethod", "is not eip3009 or permit2")),
        };
        Ok(Self {
            receiver_authorizer: reader.address("receiverAuthorizer", "extra.receiverAuthorizer")?,
            withdraw_delay: reader.number("withdrawDelay", "extra.withdrawDelay")?,
            name: reader.text("name", "extra.name")?.to_owned(),
            version: reader.text("version", "extra.version")?.to_owned(),
            by_permit2,
            min_deposit: match reader.has("minDeposit") {
                true => Some(reader.amount("minDeposit", "extra.minDeposit")?),
                false => None,
            },
            channel_state: optional("channelState", "extra.channelState")?
                .map(|inner| ChannelState::read(inner))
                .transpose()?,
            voucher_state: match optional("voucherState", "extra.voucherState")? {
                Some(inner) if inner.has("signature") => Some(VoucherState {
                    signed_max_claimable: inner
                        .amount("signedMaxClaimable", "extra.voucherState.signedMaxClaimable")?,
                    signature: inner.signature("signature", "extra.voucherState.signature")?,
                }),
                _ => None,
            },
        })
    }
}

impl ChannelState {
    /// The JSON object.
    #[must_use]
    pub fn to_value(&self) -> Value {
        let mut value = json!({
            "channelId": self.channel_id,
            "balance": self.balance,
            "totalClaimed": self.total_claimed,
            "withdrawRequestedAt": self.withdraw_requested_at,
            "refundNonce": self.refund_nonce.to_string(),
        });
        if let Some(charged) = self.charged_cumulative {
            value["chargedCumulativeAmount"] = json!(charged);
        }
        value
    }

    /// Reads a `channelState` object.
    ///
    /// # Errors
    /// [`X402Error::Payload`] names the field.
    pub fn parse(value: &Value) -> Result<Self, X402Error> {
        Self::read(Reader(value))
    }

    fn read(reader: Reader<'_>) -> Result<Self, X402Error> {
        let optional = |key: &'static str| reader.has(key);
        Ok(Self {
            channel_id: reader.word("channelId", "channelState.channelId")?,
            balance: reader.amount("balance", "channelState.balance")?,
            total_claimed: reader.amount("totalClaimed", "channelState.totalClaimed")?,
            withdraw_requested_at: match optional("withdrawRequestedAt") {
                true => reader.number("withdrawRequestedAt", "channelState.withdrawRequestedAt")?,
                false => 0,
            },
            refund_nonce: match optional("refundNonce") {
                true => reader.uint("refundNonce", "channelState.refundNonce")?,
                false => U256::ZERO,
            },
            charged_cumulative: match optional("chargedCumulativeAmount") {
                true => Some(reader.amount("chargedCumulativeAmount", "channelState.chargedCumulativeAmount")?),
                false => None,
            },
        })
    }
}

impl VoucherState {
    /// The JSON object.
    #[must_use]
    pub fn to_value(&self) -> Value {
        json!({"signedMaxClaimable": self.signed_max_claimable, "signature": self.signature})
    }
}

/// `extra` of a settle response: what this call was charged, and the channel after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChargeExtra {
    /// Charged for this call, as the client shall count it.
    pub charged: Amount,
    /// The channel, with `charged_cumulative` after this call.
    pub channel_state: ChannelState,
}

impl ChargeExtra {
    /// The JSON object.
    #[must_use]
    pub fn to_map(&self) -> Map<String, Value> {
        let mut map = Map::new();
        map.insert("channelState".to_owned(), self.channel_state.to_value());
        map.insert("chargedAmount".to_owned(), json!(self.charged));
        map
    }

    /// Reads `extra` of a settle response.
    ///
    /// # Errors
    /// [`X402Error::Payload`] names the field.
    pub fn parse(extra: &Map<String, Value>) -> Result<Self, X402Error> {
        let value = Value::Object(extra.clone());
        let reader = Reader(&value);
        Ok(Self {
            charged: reader.amount("chargedAmount", "extra.chargedAmount")?,
            channel_state: ChannelState::read(reader.object("channelState", "extra.channelState")?)?,
        })
    }
}
