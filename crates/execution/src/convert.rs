//! Conversions between alloy's and ethrex's primitive types. All are fixed-size copies.

use alloy_primitives::{Address, B256, U256};
use ethrex_common::{Address as EthAddress, H256, U256 as EthU256};

pub(crate) fn h256(value: B256) -> H256 {
    H256(value.0)
}

pub(crate) fn b256(value: H256) -> B256 {
    B256::new(value.0)
}

pub(crate) fn eth_address(value: Address) -> EthAddress {
    ethrex_common::H160(value.into_array())
}

pub(crate) fn address(value: EthAddress) -> Address {
    Address::new(value.0)
}

/// Both types hold four 64-bit limbs, least significant first.
pub(crate) fn u256(value: EthU256) -> U256 {
    U256::from_limbs(value.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_byte_order() {
        let bytes: [u8; 32] = core::array::from_fn(|i| i as u8);
        let number = EthU256::from_big_endian(&bytes);
        assert_eq!(u256(number), U256::from_be_bytes(bytes));
        assert_eq!(b256(h256(B256::new(bytes))), B256::new(bytes));
        let account = Address::from_slice(&bytes[12..]);
        assert_eq!(address(eth_address(account)), account);
    }
}
