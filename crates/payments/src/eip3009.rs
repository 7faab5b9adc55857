//! ERC-3009 `TransferWithAuthorization`: typed data, digest, signing and recovery.
//!
//! The two hashes are written out by hand because they stand in the hot path and in the light client; tests compare them
//! with alloy's general EIP-712 implementation.

use crate::signature::{self, SIGNATURE_BYTES, SecretKey, SignatureError};
use alloy_primitives::{Address, B256, U256, b256, keccak256};
use opg_receipt::PaymentRecord;
use serde::{Deserialize, Serialize};

pub use crate::eip712::Domain;

/// EIP-712 name of the OPG token (ledger.md §2).
pub const OPG_NAME: &str = "OpenGradient";
/// EIP-712 version of the OPG token.
pub const OPG_VERSION: &str = "1";

/// `keccak256("TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)")`.
const TRANSFER_TYPEHASH: B256 = b256!("7c7c6cdb67a18743f49ec6fa9b35f50d52ed05cbed4cc592e13b44501c1a2267");

/// One signed promise to move `value` from `from` to `to`, usable once between two times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Authorization {
    /// Payer, the signer.
    pub from: Address,
    /// Payee: a node's deposit address (D1).
    pub to: Address,
    /// Amount in the token's smallest unit.
    #[serde(with = "crate::x402::decimal")]
    pub value: U256,
    /// Unix seconds; the token wants `block.timestamp > valid_after`.
    pub valid_after: u64,
    /// Unix seconds; the token wants `block.timestamp < valid_before`.
    pub valid_before: u64,
    /// Random 32 bytes, unique per payer.
    pub nonce: B256,
}

impl Authorization {
    /// EIP-712 `hashStruct`.
    #[must_use]
    pub fn struct_hash(&self) -> B256 {
        let mut data = [0; 224];
        data[..32].copy_from_slice(&TRANSFER_TYPEHASH.0);
        data[44..64].copy_from_slice(self.from.as_slice());
        data[76..96].copy_from_slice(self.to.as_slice());
        data[96..128].copy_from_slice(&self.value.to_be_bytes::<32>());
        data[152..160].copy_from_slice(&self.valid_after.to_be_bytes());
        data[184..192].copy_from_slice(&self.valid_before.to_be_bytes());
        data[192..224].copy_from_slice(&self.nonce.0);
        keccak256(data)
    }

    /// The digest that the payer signs: `keccak256(0x19 0x01 || separator || hashStruct)`.
    #[must_use]
    pub fn digest(&self, domain: &Domain) -> B256 {
        domain.digest(self.struct_hash())
    }

    /// Signs as the payer. The caller sets `from` to the key's address.
    #[must_use]
    pub fn sign(&self, domain: &Domain, key: &SecretKey) -> [u8; SIGNATURE_BYTES] {
        signature::sign_digest(self.digest(domain), key)
    }

    /// The address that signed this authorization for this domain.
    ///
    /// # Errors
    /// The signature's encoding is not one that the token accepts.
    pub fn recover(&self, domain: &Domain, signature: &[u8]) -> Result<Address, SignatureError> {
        signature::recover(self.digest(domain), signature)
    }

    /// Checks that `from` itself signed (an account with a key; contract payers are checked on chain by ERC-1271).
    ///
    /// # Errors
    /// [`SignatureError::Signer`] if another key signed, or this authorization was signed for another chain or token.
    pub fn verify(&self, domain: &Domain, signature: &[u8]) -> Result<(), SignatureError> {
        let got = self.recover(domain, signature)?;
        if got == self.from {
            Ok(())
        } else {
            Err(SignatureError::Signer {
                expected: self.from,
                got,
            })
        }
    }

    /// Whether the token would accept the times at a block of timestamp `at`.
    #[must_use]
    pub const fn valid_at(&self, at: u64) -> bool {
        self.valid_after < at && at < self.valid_before
    }
}

impl From<&PaymentRecord> for Authorization {
    /// What the payer of a receipt signed.
    fn from(payment: &PaymentRecord) -> Self {
        Self {
            from: payment.payer,
            to: payment.payee,
            value: payment.amount.to_u256(),
            valid_after: payment.valid_after,
            valid_before: payment.valid_before,
            nonce: payment.nonce,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::signature::address_of_secret;
    use alloy_primitives::address;
    use alloy_sol_types::{SolStruct, eip712_domain, sol};
    use proptest::prelude::*;

    sol! {
        struct TransferWithAuthorization {
            address from;
            address to;
            uint256 value;
            uint256 validAfter;
            uint256 validBefore;
            bytes32 nonce;
        }
    }

    const TOKEN: Address = address!("0000000000000000000000000000000000001001");

    fn reference_digest(
        authorization: &Authorization,
        name: &'static str,
        version: &'static str,
        chain_id: u64,
        token: Address,
    ) -> B256 {
        let domain = eip712_domain! { name: name, version: version, chain_id: chain_id, verifying_contract: token, };
        assert_eq!(
            domain.separator(),
            Domain::new(name, version, chain_id, token).separator()
        );
        let message = TransferWithAuthorization {
            from: authorization.from,
            to: authorization.to,
            value: authorization.value,
            validAfter: U256::from(authorization.valid_after),
            validBefore: U256::from(authorization.valid_before),
            nonce: authorization.nonce,
        };
        assert_eq!(message.eip712_hash_struct(), authorization.struct_hash());
        message.eip712_signing_hash(&domain)
    }

    #[test]
    fn type_hash_is_that_of_the_type_string() {
        assert_eq!(
            TRANSFER_TYPEHASH,
            keccak256(TransferWithAuthorization::eip712_encode_type().as_bytes())
        );
    }

    #[test]
    fn another_chain_token_or_field_is_another_signer() {
        let key = SecretKey::from_byte_array(&[7; 32]).unwrap();
        let domain = Domain::opg(10740, TOKEN);
        let authorization = Authorization {
            from: address_of_secret(&key),
            to: Address::repeat_byte(2),
            value: U256::from(5),
            valid_after: 0,
            valid_before: 100,
            nonce: B256::repeat_byte(4),
        };
        let signature = authorization.sign(&domain, &key);
        assert_eq!(authorization.verify(&domain, &signature), Ok(()));
        for other in [
            Domain::opg(8453, TOKEN),
            Domain::opg(10740, Address::repeat_byte(1)),
            Domain::new("OpenGradient", "2", 10740, TOKEN),
            Domain::new("Other", "1", 10740, TOKEN),
        ] {
            assert!(matches!(
                authorization.verify(&other, &signature),
                Err(SignatureError::Signer { .. })
            ));
        }
        let changed = [
            Authorization {
                to: Address::repeat_byte(3),
                ..authorization
            },
            Authorization {
                value: U256::from(6),
                ..authorization
            },
            Authorization {
                valid_after: 1,
                ..authorization
            },
            Authorization {
                valid_before: 101,
                ..authorization
            },
            Authorization {
                nonce: B256::repeat_byte(5),
                ..authorization
            },
        ];
        for other in changed {
            assert!(matches!(
                other.verify(&domain, &signature),
                Err(SignatureError::Signer { .. })
            ));
        }
    }

    #[test]
    fn window_is_open_at_both_ends() {
        let authorization = Authorization {
            from: Address::ZERO,
            to: Address::ZERO,
            value: U256::ZERO,
            valid_after: 10,
            valid_before: 20,
            nonce: B256::ZERO,
        };
        assert!(!authorization.valid_at(10));
        assert!(authorization.valid_at(11));
        assert!(authorization.valid_at(19));
        assert!(!authorization.valid_at(20));
    }

    proptest! {
        #[test]
        fn digest_equals_the_general_implementation(
            from: [u8; 20], to: [u8; 20], value: [u8; 32], valid_after: u64, valid_before: u64, nonce: [u8; 32], chain_id: u64, token: [u8; 20],
        ) {
            let authorization = Authorization {
                from: from.into(), to: to.into(), value: U256::from_be_bytes(value), valid_after, valid_before, nonce: nonce.into(),
            };
            let token = Address::from(token);
            prop_assert_eq!(
                authorization.digest(&Domain::opg(chain_id, token)),
                reference_digest(&authorization, OPG_NAME, OPG_VERSION, chain_id, token)
            );
            prop_assert_eq!(
                authorization.digest(&Domain::new("USD Coin", "2", chain_id, token)),
                reference_digest(&authorization, "USD Coin", "2", chain_id, token)
            );
        }
    }
}
