//! Why a channel does not serve a call, in this crate's words and in the protocol's.

use crate::{
    channel::ConfigError,
    journal::JournalError,
    signature::SignatureError,
    x402::{self, ChannelState, VoucherState},
};
use alloy_primitives::B256;

/// Why a call, deposit or refund is refused. Nothing was charged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// This process has not met the channel: read it from the chain, then [`open`](super::Channels::open_channel) it.
    #[error("channel {0} is not known here")]
    Unknown(B256),
    /// The configuration is not the one behind the id.
    #[error("channelConfig is not that of channel {0}")]
    Config(B256),
    /// The channel is not one that this receiver takes.
    #[error(transparent)]
    Terms(#[from] ConfigError),
    /// The authorizer did not sign the voucher.
    #[error("voucher of channel {channel}: {problem}")]
    Signature {
        /// The channel.
        channel: B256,
        /// What is wrong.
        problem: SignatureError,
    },
    /// The client counts differently: it adopts this state and signs again.
    #[error(
        "voucher.maxClaimableAmount is {got} wei, expected {expected} wei (charged so far plus the amount of this request)"
    )]
    Mismatch {
        /// What the next voucher should say.
        expected: u128,
        /// What this one says.
        got: u128,
        /// The channel as it is counted here.
        state: Box<ChannelState>,
        /// The newest voucher held here.
        voucher: Option<Box<VoucherState>>,
    },
    /// A headroom voucher whose ceiling was used by another call.
    #[error("voucher.maxClaimableAmount {got} wei was used by another call: sign a higher ceiling")]
    CeilingUsed {
        /// The ceiling.
        got: u128,
    },
    /// The ceiling does not cover the calls in flight and this one.
    #[error(
        "the voucher covers {ceiling} wei; charges, calls in flight and this call need {needed} wei: sign a higher ceiling"
    )]
    Headroom {
        /// Highest ceiling signed.
        ceiling: u128,
        /// What it should be at least.
        needed: u128,
    },
    /// Another call, or a refund, is running on this channel.
    #[error("channel {0} is serving another request: wait for it, or use a second channel")]
    Busy(B256),
    /// More than the channel holds.
    #[error("voucher.maxClaimableAmount is {got} wei, the channel can pay {available} wei: deposit more")]
    Balance {
        /// The ceiling.
        got: u128,
        /// What it may be at most.
        available: u128,
    },
    /// The payer is taking the money out.
    #[error(
        "a withdrawal is pending, {available} wei of the channel are safe from it, voucher.maxClaimableAmount is {got} wei"
    )]
    Withdrawing {
        /// The ceiling.
        got: u128,
        /// What it may be at most.
        available: u128,
    },
    /// The same payment identifier and payment: here is the result of the first time.
    #[error("this payment was served before")]
    Duplicate(Box<super::Finished>),
    /// The same payment identifier for another payment.
    #[error("the payment identifier was used for another payment")]
    Conflict,
    /// The same ERC-3009 or Permit2 nonce, or more deposits than are kept.
    #[error("deposit {0} cannot be taken in its state")]
    Deposit(B256),
    /// Nothing is left to refund, or the amount is zero or more than is left.
    #[error("refund of {got} wei: {left} wei are not charged")]
    Refund {
        /// Asked for.
        got: u128,
        /// What could be given back.
        left: u128,
    },
    /// The ticket or state does not allow the step.
    #[error("channel {channel} cannot become {to}")]
    State {
        /// The channel.
        channel: B256,
        /// The step.
        to: &'static str,
    },
    /// A claim could not be signed by the stored voucher.
    #[error("stored voucher of channel {channel}: {problem}")]
    Stored {
        /// The channel.
        channel: B256,
        /// What is wrong.
        problem: SignatureError,
    },
    /// The journal does not answer.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// The journal holds something that is not a channel.
    #[error("journal record of channel {channel} is damaged: {problem}")]
    Damaged {
        /// The channel.
        channel: B256,
        /// What is wrong.
        problem: String,
    },
}

impl ChannelError {
    /// `error` of the 402 and `errorReason` of the settle response; clients act on these words.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Unknown(_) => x402::CHANNEL_NOT_FOUND,
            Self::Config(_) => x402::CHANNEL_ID_MISMATCH,
            Self::Signature { .. } => x402::BAD_VOUCHER_SIGNATURE,
            Self::Mismatch { .. } | Self::CeilingUsed { .. } | Self::Headroom { .. } => x402::CUMULATIVE_MISMATCH,
            Self::Busy(_) => x402::CHANNEL_BUSY,
            Self::Balance { .. } | Self::Withdrawing { .. } => x402::EXCEEDS_BALANCE,
            Self::Refund { left: 0, .. } => x402::REFUND_NO_BALANCE,
            Self::Refund { .. } => x402::REFUND_AMOUNT_INVALID,
            Self::Terms(error) => match error {
                ConfigError::WithdrawDelay { .. } => "invalid_batch_settlement_evm_withdraw_delay_out_of_range",
                ConfigError::DelayTooShort { .. } => "invalid_batch_settlement_evm_withdraw_delay_mismatch",
                ConfigError::Field { .. } => "invalid_batch_settlement_evm_receiver_mismatch",
                ConfigError::NoAuthorizer => "invalid_batch_settlement_evm_voucher_payload",
            },
            Self::Deposit(_) => "invalid_batch_settlement_evm_deposit_payload",
            Self::Duplicate(_) | Self::Conflict => "payment_identifier_used",
            Self::State { .. } | Self::Stored { .. } | Self::Journal(_) | Self::Damaged { .. } => {
                "invalid_batch_settlement_evm_verification_state_unavailable"
            }
        }
    }

    /// HTTP status of the answer.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Duplicate(_) => 200,
            Self::Conflict => 409,
            Self::State { .. } | Self::Stored { .. } | Self::Journal(_) | Self::Damaged { .. } => 500,
            _ => 402,
        }
    }
}
