//! Deposits into a channel, authorised by the payer's signature and carried by anybody: no gas coin on the payer's side.

use super::ChannelConfig;
use crate::{
    canonical,
    eip712::{Domain, hash_words, uint},
    permit2::{Permit, Witness},
    signature::{self, SIGNATURE_BYTES, SecretKey, SignatureError},
};
use alloy_primitives::{Address, B256, Bytes, U256, b256};
use alloy_sol_types::SolValue;
use opg_primitives::money::Amount;
use serde::{Deserialize, Serialize};

/// `keccak256("ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)")`.
const RECEIVE_TYPEHASH: B256 = b256!("d099cc98ef71107a616c4f0f941f04c322d8e254fe26b3c6668db87aae413de8");

/// Which of the two collector contracts takes the deposit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Collector {
    /// [`canonical::ERC3009_DEPOSIT_COLLECTOR`].
    Erc3009,
    /// [`canonical::PERMIT2_DEPOSIT_COLLECTOR`].
    Permit2,
}

impl Collector {
    /// The contract.
    #[must_use]
    pub const fn address(self) -> Address {
        match self {
            Self::Erc3009 => canonical::ERC3009_DEPOSIT_COLLECTOR,
            Self::Permit2 => canonical::PERMIT2_DEPOSIT_COLLECTOR,
        }
    }
}

/// What the payer signed so that the money can be fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DepositAuthorization {
    /// ERC-3009 `receiveWithAuthorization` to the collector.
    Erc3009 {
        /// Unix seconds; the token wants `block.timestamp > valid_after`.
        valid_after: u64,
        /// Unix seconds; the token wants `block.timestamp < valid_before`.
        valid_before: u64,
        /// Random; with the channel's id it makes the token's nonce.
        salt: U256,
    },
    /// Permit2 to the collector.
    Permit2 {
        /// Permit2's nonce.
        nonce: U256,
        /// Unix seconds; last second of validity.
        deadline: u64,
    },
}

/// A deposit of `amount` into the channel `channel_id` of `payer`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Deposit {
    /// Whose money.
    pub payer: Address,
    /// Token.
    pub token: Address,
    /// The channel.
    pub channel_id: B256,
    /// Amount.
    pub amount: Amount,
    /// How it is authorised.
    pub authorization: DepositAuthorization,
}

impl Deposit {
    /// A deposit into the channel of `config`; `domain` is [`Domain::batch_settlement`].
    #[must_use]
    pub fn new(config: &ChannelConfig, domain: &Domain, amount: Amount, authorization: DepositAuthorization) -> Self {
        Self {
            payer: config.payer,
            token: config.token,
            channel_id: config.id(domain),
            amount,
            authorization,
        }
    }

    /// The contract that fetches the money.
    #[must_use]
    pub const fn collector(&self) -> Collector {
        match self.authorization {
            DepositAuthorization::Erc3009 { .. } => Collector::Erc3009,
            DepositAuthorization::Permit2 { .. } => Collector::Permit2,
        }
    }

    /// What makes the authorization unique at the token or at Permit2: `keccak256(abi.encode(channelId, salt))` or the nonce.
    #[must_use]
    pub fn nonce(&self) -> B256 {
        match self.authorization {
            DepositAuthorization::Erc3009 { salt, .. } => hash_words(&[self.channel_id, uint(salt)]),
            DepositAuthorization::Permit2 { nonce, .. } => uint(nonce),
        }
    }

    /// The digest that the payer signs. `token` is the token's domain (its name and version), `permit2` is [`Domain::permit2`].
    #[must_use]
    pub fn digest(&self, token: &Domain, permit2: &Domain) -> B256 {
        match self.authorization {
            DepositAuthorization::Erc3009 {
                valid_after,
                valid_before,
                ..
            } => token.digest(hash_words(&[
                RECEIVE_TYPEHASH,
                self.payer.into_word(),
                canonical::ERC3009_DEPOSIT_COLLECTOR.into_word(),
                uint(self.amount.to_u256()),
                uint(U256::from(valid_after)),
                uint(U256::from(valid_before)),
                self.nonce(),
            ])),
            DepositAuthorization::Permit2 { nonce, deadline } => Permit {
                from: self.payer,
                token: self.token,
                amount: self.amount.to_u256(),
                nonce,
                deadline,
                witness: Witness::Deposit {
                    channel_id: self.channel_id,
                },
            }
            .digest(permit2),
        }
    }

    /// Signs as the payer.
    #[must_use]
    pub fn sign(&self, token: &Domain, permit2: &Domain, key: &SecretKey) -> [u8; SIGNATURE_BYTES] {
        signature::sign_digest(self.digest(token, permit2), key)
    }

    /// Checks that the payer itself signed (an account with a key; contracts are checked on chain).
    ///
    /// # Errors
    /// [`SignatureError::Signer`] if another account signed.
    pub fn verify(&self, token: &Domain, permit2: &Domain, signature: &[u8]) -> Result<(), SignatureError> {
        match signature::recover(self.digest(token, permit2), signature)? {
            got if got == self.payer => Ok(()),
            got => Err(SignatureError::Signer {
                expected: self.payer,
                got,
            }),
        }
    }

    /// Whether the contracts would accept the times at a block of timestamp `at`.
    #[must_use]
    pub const fn valid_at(&self, at: u64) -> bool {
        match self.authorization {
            DepositAuthorization::Erc3009 {
                valid_after,
                valid_before,
                ..
            } => valid_after < at && at < valid_before,
            DepositAuthorization::Permit2 { deadline, .. } => at <= deadline,
        }
    }

    /// `collectorData` of the contract's `deposit(config, amount, collector, collectorData)`.
    #[must_use]
    pub fn collector_data(&self, signature: &[u8]) -> Bytes {
        let signature = Bytes::copy_from_slice(signature);
        match self.authorization {
            DepositAuthorization::Erc3009 {
                valid_after,
                valid_before,
                salt,
            } => (U256::from(valid_after), U256::from(valid_before), salt, signature)
                .abi_encode_params()
                .into(),
            DepositAuthorization::Permit2 { nonce, deadline } => (nonce, U256::from(deadline), signature, Bytes::new())
                .abi_encode_params()
                .into(),
        }
    }
}
