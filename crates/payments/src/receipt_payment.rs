//! What the payer of a receipt signed, rebuilt from the payment that the receipt's core names (receipt.md §3).

use crate::{
    channel::{ChannelConfig, Voucher},
    eip712::Domain,
    eip3009::Authorization,
    permit2::{Permit, Witness},
    signature::SignatureError,
};
use alloy_primitives::{Address, B256, U256};
use opg_receipt::{ChannelRecord, PaymentMethod, PaymentRecord, PaymentScheme};

/// EIP-712 domains of one network in which payments are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Domains {
    /// The token.
    pub token: Domain,
    /// Permit2.
    pub permit2: Domain,
    /// Payment channels.
    pub channels: Domain,
}

impl Domains {
    /// Those of a network whose OPG is at `token`.
    #[must_use]
    pub fn new(chain_id: u64, token: Address) -> Self {
        Self {
            token: Domain::opg(chain_id, token),
            permit2: Domain::permit2(chain_id),
            channels: Domain::batch_settlement(chain_id),
        }
    }
}

/// Why a receipt's payment is not the payer's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PaymentError {
    /// Another account signed, or nobody.
    #[error("payment.signature: {0}")]
    Signature(#[from] SignatureError),
    /// The channel's id does not follow from its configuration.
    #[error("payment.nonce is {got}, the id of payment.channel is {expected}")]
    ChannelId {
        /// By the configuration.
        expected: B256,
        /// In the receipt.
        got: B256,
    },
    /// Scheme and further fields do not belong together; decoded cores never have this.
    #[error("payment.{0} is missing")]
    Incomplete(&'static str),
}

/// The channel that pays for a receipt in `token`, with the voucher that covers the call. `None` for other payments.
#[must_use]
pub fn channel(payment: &PaymentRecord, token: Address) -> Option<(ChannelConfig, Voucher)> {
    let named: &ChannelRecord = payment.channel.as_ref()?;
    let config = ChannelConfig {
        payer: payment.payer,
        payer_authorizer: named.payer_authorizer,
        receiver: payment.payee,
        receiver_authorizer: named.receiver_authorizer,
        token,
        withdraw_delay: named.withdraw_delay,
        salt: named.salt,
    };
    let voucher = Voucher {
        channel_id: payment.nonce,
        max_claimable: named.ceiling,
    };
    Some((config, voucher))
}

/// The Permit2 permit that pays for a receipt in `token`. `None` for other payments.
#[must_use]
pub fn permit(payment: &PaymentRecord, token: Address) -> Option<Permit> {
    let (to, valid_after) = (payment.payee, payment.valid_after);
    let witness = match (payment.method, payment.scheme) {
        (PaymentMethod::Permit2, PaymentScheme::Exact) => Witness::Exact { to, valid_after },
        (PaymentMethod::Permit2, PaymentScheme::Upto) => Witness::Upto {
            to,
            facilitator: payment.facilitator?,
            valid_after,
        },
        _ => return None,
    };
    Some(Permit {
        from: payment.payer,
        token,
        amount: payment.amount.to_u256(),
        nonce: U256::from_be_bytes(payment.nonce.0),
        deadline: payment.valid_before,
        witness,
    })
}

/// Checks that the payer, or for a channel the account that it named, signed the payment of a receipt in `token`. Says nothing about
/// time, funds or whether it was used.
///
/// # Errors
/// Another signer, or a channel id that is not that of the channel.
pub fn verify(payment: &PaymentRecord, token: Address, domains: &Domains) -> Result<(), PaymentError> {
    let signature = &payment.signature;
    match payment.method {
        PaymentMethod::Eip3009 => Authorization::from(payment).verify(&domains.token, signature)?,
        PaymentMethod::Permit2 => permit(payment, token)
            .ok_or(PaymentError::Incomplete("facilitator"))?
            .verify(&domains.permit2, signature)?,
        PaymentMethod::Voucher => {
            let (config, voucher) = channel(payment, token).ok_or(PaymentError::Incomplete("channel"))?;
            let (expected, got) = (config.id(&domains.channels), voucher.channel_id);
            if expected != got {
                return Err(PaymentError::ChannelId { expected, got });
            }
            voucher.recover(&domains.channels, signature, config.payer_authorizer)?;
        }
    }
    Ok(())
}
