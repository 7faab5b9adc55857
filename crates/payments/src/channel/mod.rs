//! Payment channels of scheme `batch-settlement` (payments.md §1.6): identity, vouchers and everything else that is signed.
//!
//! A channel holds a deposit of one payer for one receiver. Each call shows a [`Voucher`] with a growing ceiling; the receiver
//! claims on chain, when it likes, what was really charged. Nothing here does I/O: [`crate::channels`] keeps the books.

mod claim;
mod deposit;
pub mod plan;
#[cfg(test)]
mod tests;

pub use claim::{ClaimEntry, Refund, claim_batch_digest};
pub use deposit::{Collector, Deposit, DepositAuthorization};

use crate::{
    eip712::{Domain, hash_words, uint},
    signature::{self, SIGNATURE_BYTES, SecretKey, SignatureError, SignerKey},
};
use alloy_primitives::{Address, B256, U256, b256};
use opg_primitives::money::Amount;
use serde::{Deserialize, Serialize};

/// Shortest withdraw delay that the contract accepts, seconds.
pub const MIN_WITHDRAW_DELAY: u64 = 900;
/// Longest withdraw delay that the contract accepts, seconds.
pub const MAX_WITHDRAW_DELAY: u64 = 2_592_000;

/// `keccak256("ChannelConfig(address payer,address payerAuthorizer,address receiver,address receiverAuthorizer,address token,uint40 withdrawDelay,bytes32 salt)")`.
const CONFIG_TYPEHASH: B256 = b256!("1c9a06ceab9b0ebbd3301dc56c9111bb6d9af421356dc9ccb3b7084c755db308");
/// `keccak256("Voucher(bytes32 channelId,uint128 maxClaimableAmount)")`.
const VOUCHER_TYPEHASH: B256 = b256!("1e1bd6ff84c3e0d9029a292b212e039c0ca97ec497c55191a4a5874294609a69");

/// Why a channel is refused before anything is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The contract would refuse the delay.
    #[error(
        "channelConfig.withdrawDelay is {got} seconds, the contract accepts {MIN_WITHDRAW_DELAY} to {MAX_WITHDRAW_DELAY}"
    )]
    WithdrawDelay {
        /// Seconds.
        got: u64,
    },
    /// A field differs from what the receiver offers.
    #[error("channelConfig.{field} is {got}, expected {expected}")]
    Field {
        /// Field, as on the wire.
        field: &'static str,
        /// The receiver's value.
        expected: Address,
        /// The channel's value.
        got: Address,
    },
    /// The delay is shorter than the receiver wants.
    #[error(
        "channelConfig.withdrawDelay is {got} seconds, this receiver wants at least {expected}: open a channel with that delay"
    )]
    DelayTooShort {
        /// The receiver's least.
        expected: u64,
        /// The channel's value.
        got: u64,
    },
    /// No key signs for the payer: its vouchers could only be checked by a call to its wallet contract.
    #[error("channelConfig.payerAuthorizer is zero: name the account whose key signs the vouchers")]
    NoAuthorizer,
}

/// What identifies a channel; fixed for its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChannelConfig {
    /// Whose money it is.
    pub payer: Address,
    /// Account that signs vouchers; zero: the payer's contract does (EIP-1271).
    pub payer_authorizer: Address,
    /// Who is paid: the node's deposit address (D1).
    pub receiver: Address,
    /// Account that signs claims and refunds: the node's settlement key.
    pub receiver_authorizer: Address,
    /// Token.
    pub token: Address,
    /// Seconds between a withdrawal request and the withdrawal.
    pub withdraw_delay: u64,
    /// Tells apart the channels of one pair.
    pub salt: B256,
}

impl ChannelConfig {
    /// EIP-712 `hashStruct`.
    #[must_use]
    pub fn struct_hash(&self) -> B256 {
        hash_words(&[
            CONFIG_TYPEHASH,
            self.payer.into_word(),
            self.payer_authorizer.into_word(),
            self.receiver.into_word(),
            self.receiver_authorizer.into_word(),
            self.token.into_word(),
            uint(U256::from(self.withdraw_delay)),
            self.salt,
        ])
    }

    /// The channel's id; `domain` is [`Domain::batch_settlement`].
    #[must_use]
    pub fn id(&self, domain: &Domain) -> B256 {
        domain.digest(self.struct_hash())
    }

    /// Whether the contract takes the delay.
    ///
    /// # Errors
    /// [`ConfigError::WithdrawDelay`].
    pub const fn check_delay(&self) -> Result<(), ConfigError> {
        if self.withdraw_delay < MIN_WITHDRAW_DELAY || self.withdraw_delay > MAX_WITHDRAW_DELAY {
            return Err(ConfigError::WithdrawDelay {
                got: self.withdraw_delay,
            });
        }
        Ok(())
    }

    /// Whether this receiver can serve the channel: its own addresses and token, and a delay that leaves time to claim.
    ///
    /// # Errors
    /// The first field that does not fit.
    pub fn check(&self, terms: &ReceiverTerms) -> Result<(), ConfigError> {
        let fields = [
            ("receiver", terms.receiver, self.receiver),
            (
                "receiverAuthorizer",
                terms.receiver_authorizer,
                self.receiver_authorizer,
            ),
            ("token", terms.token, self.token),
        ];
        for (field, expected, got) in fields {
            if expected != got {
                return Err(ConfigError::Field { field, expected, got });
            }
        }
        self.check_delay()?;
        if self.withdraw_delay < terms.min_withdraw_delay {
            return Err(ConfigError::DelayTooShort {
                expected: terms.min_withdraw_delay,
                got: self.withdraw_delay,
            });
        }
        if self.payer_authorizer.is_zero() {
            return Err(ConfigError::NoAuthorizer);
        }
        Ok(())
    }
}

/// What a receiver demands of every channel to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReceiverTerms {
    /// The receiver's address.
    pub receiver: Address,
    /// Account that signs its claims.
    pub receiver_authorizer: Address,
    /// Token that it takes.
    pub token: Address,
    /// Least seconds between a withdrawal request and the withdrawal.
    pub min_withdraw_delay: u64,
}

/// A cumulative ceiling: the receiver may claim up to this much of the channel in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Voucher {
    /// The channel.
    pub channel_id: B256,
    /// Ceiling since the channel was opened, in the token's smallest unit.
    pub max_claimable: Amount,
}

impl Voucher {
    /// EIP-712 `hashStruct`.
    #[must_use]
    pub fn struct_hash(&self) -> B256 {
        hash_words(&[VOUCHER_TYPEHASH, self.channel_id, uint(self.max_claimable.to_u256())])
    }

    /// The digest that the payer's authorizer signs.
    #[must_use]
    pub fn digest(&self, domain: &Domain) -> B256 {
        domain.digest(self.struct_hash())
    }

    /// Signs as the payer's authorizer.
    #[must_use]
    pub fn sign(&self, domain: &Domain, key: &SecretKey) -> [u8; SIGNATURE_BYTES] {
        signature::sign_digest(self.digest(domain), key)
    }

    /// Checks the signature of an authorizer not met before, and returns its public key to be remembered.
    ///
    /// # Errors
    /// [`SignatureError::Signer`] if another account signed.
    pub fn recover(&self, domain: &Domain, signature: &[u8], authorizer: Address) -> Result<SignerKey, SignatureError> {
        let key = signature::recover_key(self.digest(domain), signature)?;
        match signature::address_of(&key) {
            got if got == authorizer => Ok(key),
            got => Err(SignatureError::Signer {
                expected: authorizer,
                got,
            }),
        }
    }

    /// Checks the signature against the remembered key. See [`signature::verify`] about `v`.
    ///
    /// # Errors
    /// [`SignatureError::Key`] if another key signed.
    pub fn verify(&self, domain: &Domain, signature: &[u8], key: &SignerKey) -> Result<(), SignatureError> {
        signature::verify(self.digest(domain), signature, key)
    }

    /// The signature as the contract accepts it.
    ///
    /// # Errors
    /// [`SignatureError::Signer`] if `authorizer` did not sign.
    pub fn for_chain(
        &self,
        domain: &Domain,
        signature: &[u8],
        authorizer: Address,
    ) -> Result<[u8; SIGNATURE_BYTES], SignatureError> {
        signature::with_parity(self.digest(domain), signature, authorizer)
    }
}
