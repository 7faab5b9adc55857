//! EIP-712: domains reduced to their separators, and the fixed-size encoding that every struct hash here is made of.
//!
//! Hashes are written out by hand because they stand in the hot path and in the light client; tests compare each with
//! alloy's general implementation, and with what the public clients sign.

use crate::{canonical, eip3009};
use alloy_primitives::{Address, B256, FixedBytesSliceExt as _, U256, b256, keccak256};

/// `keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")`.
const DOMAIN_TYPEHASH: B256 = b256!("8b73c3c69bb8fe3d512ecc4cf759cc79239f7b179b0ffacaa9a75d522b39400f");
/// `keccak256("EIP712Domain(string name,uint256 chainId,address verifyingContract)")`: Permit2 has no version.
const UNVERSIONED_TYPEHASH: B256 = b256!("8cad95687ba82c2ce50e74f7b754645e5117c3a5bec8151c0726d5857980a866");

/// EIP-712 domain of a contract, reduced to its separator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Domain {
    separator: B256,
}

impl Domain {
    /// Domain of the contract at `contract` on chain `chain_id`.
    #[must_use]
    pub fn new(name: &str, version: &str, chain_id: u64, contract: Address) -> Self {
        let words = [
            DOMAIN_TYPEHASH,
            keccak256(name),
            keccak256(version),
            uint(U256::from(chain_id)),
            contract.into_word(),
        ];
        Self {
            separator: hash_words(&words),
        }
    }

    /// Domain of OPG at `contract` on chain `chain_id`.
    #[must_use]
    pub fn opg(chain_id: u64, contract: Address) -> Self {
        Self::new(eip3009::OPG_NAME, eip3009::OPG_VERSION, chain_id, contract)
    }

    /// Domain of Permit2 at its canonical address on chain `chain_id`.
    #[must_use]
    pub fn permit2(chain_id: u64) -> Self {
        let words = [
            UNVERSIONED_TYPEHASH,
            keccak256("Permit2"),
            uint(U256::from(chain_id)),
            canonical::PERMIT2.into_word(),
        ];
        Self {
            separator: hash_words(&words),
        }
    }

    /// Domain of the channel contract at its canonical address on chain `chain_id`.
    #[must_use]
    pub fn batch_settlement(chain_id: u64) -> Self {
        Self::new("x402 Batch Settlement", "1", chain_id, canonical::BATCH_SETTLEMENT)
    }

    /// The 32-byte domain separator, as the contract's `DOMAIN_SEPARATOR()` returns it.
    #[must_use]
    pub const fn separator(&self) -> B256 {
        self.separator
    }

    /// The digest that is signed: `keccak256(0x19 0x01 || separator || struct_hash)`.
    #[must_use]
    pub fn digest(&self, struct_hash: B256) -> B256 {
        let mut data = [0; 66];
        data[..2].copy_from_slice(&[0x19, 0x01]);
        data[2..34].copy_from_slice(&self.separator.0);
        data[34..66].copy_from_slice(&struct_hash.0);
        keccak256(data)
    }
}

/// An integer as an ABI word.
pub(crate) const fn uint(value: U256) -> B256 {
    B256::new(value.to_be_bytes::<32>())
}

/// `keccak256` over ABI words: `hashStruct` of a struct without dynamic members.
pub(crate) fn hash_words(words: &[B256]) -> B256 {
    keccak256(words.as_flattened())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_sol_types::{Eip712Domain, eip712_domain};

    #[test]
    fn separators_equal_the_general_implementation() {
        let token = Address::repeat_byte(7);
        let general: [Eip712Domain; 3] = [
            eip712_domain! { name: "OpenGradient", version: "1", chain_id: 10_740, verifying_contract: token, },
            eip712_domain! { name: "Permit2", chain_id: 10_740, verifying_contract: canonical::PERMIT2, },
            eip712_domain! {
                name: "x402 Batch Settlement", version: "1", chain_id: 10_740, verifying_contract: canonical::BATCH_SETTLEMENT,
            },
        ];
        let ours = [
            Domain::opg(10_740, token),
            Domain::permit2(10_740),
            Domain::batch_settlement(10_740),
        ];
        for (general, ours) in general.iter().zip(ours) {
            assert_eq!(general.separator(), ours.separator());
        }
    }
}
