//! Permit2 `PermitWitnessTransferFrom` with the three witnesses of x402: `exact`, `upto` and channel deposits (payments.md §1.4–1.6).
//!
//! Permit2 spends each (owner, nonce) once, in any order. The witness binds the transfer to its purpose: who gets the money,
//! who may settle, or which channel it funds.

use crate::{
    canonical,
    eip712::{Domain, hash_words, uint},
    signature::{self, SIGNATURE_BYTES, SecretKey, SignatureError},
};
use alloy_primitives::{Address, B256, U256, b256};
use serde::{Deserialize, Serialize};

/// `keccak256("TokenPermissions(address token,uint256 amount)")`.
const PERMISSIONS_TYPEHASH: B256 = b256!("618358ac3db8dc274f0cd8829da7e234bd48cd73c4a740aede1adec9846d06a1");
/// `keccak256("Witness(address to,uint256 validAfter)")`.
const EXACT_WITNESS_TYPEHASH: B256 = b256!("d97b3239a7f32295517bd14cb074edfdd188dfe5eb42f802bb26d4fd1eb12c37");
/// `keccak256("Witness(address to,address facilitator,uint256 validAfter)")`.
const UPTO_WITNESS_TYPEHASH: B256 = b256!("d4171c445a74218b01d4fd8af34ff1106580ea1e36ff837e64484bfaa2253b75");
/// `keccak256("DepositWitness(bytes32 channelId)")`.
const DEPOSIT_WITNESS_TYPEHASH: B256 = b256!("ba0000097e86dabe64178afe31109221193339a6861598f2133fcbdc92c84479");
/// Type hash of the permit with the witness of `exact`.
const EXACT_TYPEHASH: B256 = b256!("ebc156cd23678a74c94df13d772ef5478420637f0c94bd10d509e1dc98f521c7");
/// Type hash of the permit with the witness of `upto`.
const UPTO_TYPEHASH: B256 = b256!("51dff6974ad4388c499e7fcfe838d2bd767162553a144098ce20ea661d70c2ee");
/// Type hash of the permit with the witness of a channel deposit.
const DEPOSIT_TYPEHASH: B256 = b256!("436a25c01a21a6ed025816c4c9ea3d6132aa879dd7ef16f6188dd3b0aebccc52");

/// What a permit is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Witness {
    /// Scheme `exact`: the whole amount to `to`.
    Exact {
        /// Payee.
        to: Address,
        /// Unix seconds; not before.
        valid_after: u64,
    },
    /// Scheme `upto`: at most the amount to `to`, if `facilitator` sends the transaction.
    Upto {
        /// Payee.
        to: Address,
        /// The only account, possibly a contract, that may settle.
        facilitator: Address,
        /// Unix seconds; not before.
        valid_after: u64,
    },
    /// Into a channel.
    Deposit {
        /// The channel.
        channel_id: B256,
    },
}

impl Witness {
    fn struct_hash(&self) -> B256 {
        match *self {
            Self::Exact { to, valid_after } => {
                hash_words(&[EXACT_WITNESS_TYPEHASH, to.into_word(), uint(U256::from(valid_after))])
            }
            Self::Upto {
                to,
                facilitator,
                valid_after,
            } => hash_words(&[
                UPTO_WITNESS_TYPEHASH,
                to.into_word(),
                facilitator.into_word(),
                uint(U256::from(valid_after)),
            ]),
            Self::Deposit { channel_id } => hash_words(&[DEPOSIT_WITNESS_TYPEHASH, channel_id]),
        }
    }

    const fn permit_typehash(&self) -> B256 {
        match self {
            Self::Exact { .. } => EXACT_TYPEHASH,
            Self::Upto { .. } => UPTO_TYPEHASH,
            Self::Deposit { .. } => DEPOSIT_TYPEHASH,
        }
    }

    /// The contract that must be the spender of a permit with this witness.
    #[must_use]
    pub const fn spender(&self) -> Address {
        match self {
            Self::Exact { .. } => canonical::EXACT_PERMIT2_PROXY,
            Self::Upto { .. } => canonical::UPTO_PERMIT2_PROXY,
            Self::Deposit { .. } => canonical::PERMIT2_DEPOSIT_COLLECTOR,
        }
    }
}

/// One signed promise to let the witness's contract take `amount` of `token` from `from`, once, until `deadline`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Permit {
    /// Owner of the money, the signer.
    pub from: Address,
    /// Token.
    pub token: Address,
    /// Amount in the token's smallest unit; for `upto` the most that can be taken.
    #[serde(with = "crate::x402::decimal")]
    pub amount: U256,
    /// Random, unique per owner.
    #[serde(with = "crate::x402::decimal")]
    pub nonce: U256,
    /// Unix seconds; Permit2 wants `block.timestamp <= deadline`.
    pub deadline: u64,
    /// Purpose; it determines the spender.
    pub witness: Witness,
}

impl Permit {
    /// EIP-712 `hashStruct`.
    #[must_use]
    pub fn struct_hash(&self) -> B256 {
        let permitted = hash_words(&[PERMISSIONS_TYPEHASH, self.token.into_word(), uint(self.amount)]);
        hash_words(&[
            self.witness.permit_typehash(),
            permitted,
            self.witness.spender().into_word(),
            uint(self.nonce),
            uint(U256::from(self.deadline)),
            self.witness.struct_hash(),
        ])
    }

    /// The digest that the owner signs; `domain` is [`Domain::permit2`].
    #[must_use]
    pub fn digest(&self, domain: &Domain) -> B256 {
        domain.digest(self.struct_hash())
    }

    /// Signs as the owner. The caller sets `from` to the key's address.
    #[must_use]
    pub fn sign(&self, domain: &Domain, key: &SecretKey) -> [u8; SIGNATURE_BYTES] {
        signature::sign_digest(self.digest(domain), key)
    }

    /// The address that signed.
    ///
    /// # Errors
    /// The signature's encoding is not one that the contract accepts.
    pub fn recover(&self, domain: &Domain, signature: &[u8]) -> Result<Address, SignatureError> {
        signature::recover(self.digest(domain), signature)
    }

    /// Checks that `from` itself signed (an account with a key; contracts are checked on chain).
    ///
    /// # Errors
    /// [`SignatureError::Signer`] if another key signed.
    pub fn verify(&self, domain: &Domain, signature: &[u8]) -> Result<(), SignatureError> {
        match self.recover(domain, signature)? {
            got if got == self.from => Ok(()),
            got => Err(SignatureError::Signer {
                expected: self.from,
                got,
            }),
        }
    }

    /// Whether the contracts would accept the times at a block of timestamp `at`.
    #[must_use]
    pub const fn valid_at(&self, at: u64) -> bool {
        let started = match self.witness {
            Witness::Exact { valid_after, .. } | Witness::Upto { valid_after, .. } => valid_after <= at,
            Witness::Deposit { .. } => true,
        };
        started && at <= self.deadline
    }

    /// Who is paid: the payee, or nobody for a deposit.
    #[must_use]
    pub const fn payee(&self) -> Option<Address> {
        match self.witness {
            Witness::Exact { to, .. } | Witness::Upto { to, .. } => Some(to),
            Witness::Deposit { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::address_of_secret;
    use alloy_primitives::keccak256;
    use alloy_sol_types::{SolStruct, eip712_domain, sol};
    use proptest::prelude::*;

    sol! {
        struct TokenPermissions { address token; uint256 amount; }
        struct DepositWitness { bytes32 channelId; }
    }
    mod exact {
        alloy_sol_types::sol! {
            struct TokenPermissions { address token; uint256 amount; }
            struct Witness { address to; uint256 validAfter; }
            struct PermitWitnessTransferFrom { TokenPermissions permitted; address spender; uint256 nonce; uint256 deadline; Witness witness; }
        }
    }
    mod upto {
        alloy_sol_types::sol! {
            struct TokenPermissions { address token; uint256 amount; }
            struct Witness { address to; address facilitator; uint256 validAfter; }
            struct PermitWitnessTransferFrom { TokenPermissions permitted; address spender; uint256 nonce; uint256 deadline; Witness witness; }
        }
    }
    mod deposit {
        alloy_sol_types::sol! {
            struct TokenPermissions { address token; uint256 amount; }
            struct DepositWitness { bytes32 channelId; }
            struct PermitWitnessTransferFrom { TokenPermissions permitted; address spender; uint256 nonce; uint256 deadline; DepositWitness witness; }
        }
    }

    #[test]
    fn type_hashes_are_those_of_the_type_strings() {
        let of = |text: std::borrow::Cow<'static, str>| keccak256(text.as_bytes());
        assert_eq!(
            PERMISSIONS_TYPEHASH,
            of(TokenPermissions::eip712_encode_type()),
            "permissions"
        );
        assert_eq!(
            EXACT_WITNESS_TYPEHASH,
            of(exact::Witness::eip712_encode_type()),
            "exact witness"
        );
        assert_eq!(
            UPTO_WITNESS_TYPEHASH,
            of(upto::Witness::eip712_encode_type()),
            "upto witness"
        );
        assert_eq!(
            DEPOSIT_WITNESS_TYPEHASH,
            of(DepositWitness::eip712_encode_type()),
            "deposit witness"
        );
        assert_eq!(
            EXACT_TYPEHASH,
            of(exact::PermitWitnessTransferFrom::eip712_encode_type()),
            "exact"
        );
        assert_eq!(
            UPTO_TYPEHASH,
            of(upto::PermitWitnessTransferFrom::eip712_encode_type()),
            "upto"
        );
        assert_eq!(
            DEPOSIT_TYPEHASH,
            of(deposit::PermitWitnessTransferFrom::eip712_encode_type()),
            "deposit"
        );
    }

    fn permit(witness: Witness) -> Permit {
        let key = SecretKey::from_byte_array(&[7; 32]).unwrap();
        Permit {
            from: address_of_secret(&key),
            token: Address::repeat_byte(1),
            amount: U256::from(10),
            nonce: U256::from(3),
            deadline: 100,
            witness,
        }
    }

    #[test]
    fn purposes_do_not_replace_each_other() {
        let key = SecretKey::from_byte_array(&[7; 32]).unwrap();
        let domain = Domain::permit2(10_740);
        let to = Address::repeat_byte(2);
        let all = [
            Witness::Exact { to, valid_after: 0 },
            Witness::Upto {
                to,
                facilitator: to,
                valid_after: 0,
            },
            Witness::Deposit {
                channel_id: to.into_word(),
            },
        ];
        for signed in all {
            let signature = permit(signed).sign(&domain, &key);
            for shown in all {
                assert_eq!(permit(shown).verify(&domain, &signature).is_ok(), signed == shown);
            }
            assert!(permit(signed).verify(&Domain::permit2(1), &signature).is_err());
        }
    }

    #[test]
    fn window_includes_the_deadline() {
        let permit = permit(Witness::Exact {
            to: Address::ZERO,
            valid_after: 10,
        });
        assert!(!permit.valid_at(9));
        assert!(permit.valid_at(10));
        assert!(permit.valid_at(100));
        assert!(!permit.valid_at(101));
    }

    proptest! {
        #[test]
        fn digests_equal_the_general_implementation(
            from: [u8; 20], token: [u8; 20], to: [u8; 20], facilitator: [u8; 20], amount: [u8; 32], nonce: [u8; 32], channel: [u8; 32],
            deadline: u64, valid_after: u64, chain_id: u64,
        ) {
            let (to, facilitator, token) = (Address::from(to), Address::from(facilitator), Address::from(token));
            let (amount, nonce) = (U256::from_be_bytes(amount), U256::from_be_bytes(nonce));
            let ours = |witness| Permit { from: from.into(), token, amount, nonce, deadline, witness }.digest(&Domain::permit2(chain_id));
            let domain = eip712_domain! { name: "Permit2", chain_id: chain_id, verifying_contract: canonical::PERMIT2, };
            let deadline = U256::from(deadline);
            let general = exact::PermitWitnessTransferFrom {
                permitted: exact::TokenPermissions { token, amount }, spender: canonical::EXACT_PERMIT2_PROXY, nonce, deadline,
                witness: exact::Witness { to, validAfter: U256::from(valid_after) },
            };
            prop_assert_eq!(ours(Witness::Exact { to, valid_after }), general.eip712_signing_hash(&domain));
            let general = upto::PermitWitnessTransferFrom {
                permitted: upto::TokenPermissions { token, amount }, spender: canonical::UPTO_PERMIT2_PROXY, nonce, deadline,
                witness: upto::Witness { to, facilitator, validAfter: U256::from(valid_after) },
            };
            prop_assert_eq!(ours(Witness::Upto { to, facilitator, valid_after }), general.eip712_signing_hash(&domain));
            let general = deposit::PermitWitnessTransferFrom {
                permitted: deposit::TokenPermissions { token, amount }, spender: canonical::PERMIT2_DEPOSIT_COLLECTOR, nonce, deadline,
                witness: deposit::DepositWitness { channelId: channel.into() },
            };
            prop_assert_eq!(ours(Witness::Deposit { channel_id: channel.into() }), general.eip712_signing_hash(&domain));
        }
    }
}
