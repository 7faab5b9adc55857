//! Signatures of contract wallets: ERC-1271 for deployed ones, the ERC-6492 wrapper for those not deployed yet.
//!
//! Only a chain can check them. This module tells the kinds apart and writes the call; who can call a chain implements
//! [`ChainCall`].

use crate::{canonical, x402::MAX_SIGNATURE_BYTES};
use alloy_primitives::{Address, B256, Bytes, b256};
use alloy_sol_types::{SolCall, SolValue, sol};

/// Last 32 bytes of a wrapped signature (ERC-6492).
const MAGIC: B256 = b256!("6492649264926492649264926492649264926492649264926492649264926492");

sol! {
    /// The universal validator: true if `signer` signed `hash`, deploying it in the simulation if the signature says how.
    function isValidSigWithSideEffects(address signer, bytes32 hash, bytes signature) external returns (bool);
    /// ERC-1271.
    function isValidSignature(bytes32 hash, bytes signature) external view returns (bytes4);
}

/// Why a wallet's signature is refused before any call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WalletSignatureError {
    /// More than [`MAX_SIGNATURE_BYTES`].
    #[error("signature has {got} bytes, at most {MAX_SIGNATURE_BYTES} are accepted")]
    TooLong {
        /// Bytes received.
        got: usize,
    },
    /// The ERC-6492 suffix stands behind something that is not its wrapper.
    #[error("signature ends like ERC-6492 but is not abi.encode(factory, calldata, signature)")]
    Wrapper,
    /// The factory is not one that the operator allows: a call to an arbitrary contract would be made in its name.
    #[error("ERC-6492 factory {factory} is not allowed")]
    Factory {
        /// The factory.
        factory: Address,
    },
}

/// A signature by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WalletSignature {
    /// For an account with a key, or a deployed wallet (ERC-1271): the account's code decides.
    Plain(Bytes),
    /// For a wallet that is deployed by `factory` when its signature is first checked.
    Undeployed {
        /// Contract that deploys it.
        factory: Address,
        /// Call that deploys it.
        factory_calldata: Bytes,
        /// The wallet's own signature.
        signature: Bytes,
    },
}

impl WalletSignature {
    /// Tells the kind of a signature.
    ///
    /// # Errors
    /// Too long, or a broken ERC-6492 wrapper.
    pub fn parse(signature: &[u8]) -> Result<Self, WalletSignatureError> {
        if signature.len() > MAX_SIGNATURE_BYTES {
            return Err(WalletSignatureError::TooLong { got: signature.len() });
        }
        let Some(wrapped) = signature.strip_suffix(MAGIC.as_slice()) else {
            return Ok(Self::Plain(Bytes::copy_from_slice(signature)));
        };
        let (factory, factory_calldata, signature) =
            <(Address, Bytes, Bytes)>::abi_decode_params(wrapped).map_err(|_| WalletSignatureError::Wrapper)?;
        Ok(Self::Undeployed {
            factory,
            factory_calldata,
            signature,
        })
    }

    /// The wrapped form.
    #[must_use]
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::Plain(signature) => signature.clone(),
            Self::Undeployed {
                factory,
                factory_calldata,
                signature,
            } => {
                let mut bytes = (*factory, factory_calldata.clone(), signature.clone()).abi_encode_params();
                bytes.extend_from_slice(MAGIC.as_slice());
                bytes.into()
            }
        }
    }

    /// Whether its factory, if it has one, is in `allowed`.
    ///
    /// # Errors
    /// [`WalletSignatureError::Factory`].
    pub fn check_factory(&self, allowed: &[Address]) -> Result<(), WalletSignatureError> {
        match self {
            Self::Undeployed { factory, .. } if !allowed.contains(factory) => {
                Err(WalletSignatureError::Factory { factory: *factory })
            }
            _ => Ok(()),
        }
    }
}

/// A read-only call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Contract.
    pub to: Address,
    /// ABI-encoded call.
    pub data: Bytes,
}

/// The call of the universal validator at [`canonical::SIGNATURE_VALIDATOR`]: right for keys, deployed and undeployed wallets.
#[must_use]
pub fn validator_call(signer: Address, digest: B256, signature: &[u8]) -> Call {
    let call = isValidSigWithSideEffectsCall {
        signer,
        hash: digest,
        signature: Bytes::copy_from_slice(signature),
    };
    Call {
        to: canonical::SIGNATURE_VALIDATOR,
        data: call.abi_encode().into(),
    }
}

/// The ERC-1271 call to a deployed wallet.
#[must_use]
pub fn erc1271_call(wallet: Address, digest: B256, signature: &[u8]) -> Call {
    let call = isValidSignatureCall {
        hash: digest,
        signature: Bytes::copy_from_slice(signature),
    };
    Call {
        to: wallet,
        data: call.abi_encode().into(),
    }
}

/// Whether the validator answered yes: one word, the number one.
#[must_use]
pub fn validator_accepts(answer: &[u8]) -> bool {
    answer.len() == 32 && answer[..31].iter().all(|byte| *byte == 0) && answer[31] == 1
}

/// Whether an ERC-1271 wallet answered yes: its selector, padded.
#[must_use]
pub fn erc1271_accepts(answer: &[u8]) -> bool {
    answer.len() == 32 && answer[..4] == isValidSignatureCall::SELECTOR && answer[4..].iter().all(|byte| *byte == 0)
}

/// Something that can simulate calls on a chain.
pub trait ChainCall {
    /// Why a call gave no answer.
    type Error;

    /// Simulates `call` on the newest state, with bounded gas, and returns what it returned.
    ///
    /// # Errors
    /// The chain does not answer, or the call reverts.
    fn call(&self, call: &Call) -> impl Future<Output = Result<Bytes, Self::Error>> + Send;
}

/// Asks the chain whether `signer` signed `digest`.
///
/// # Errors
/// The chain's.
pub async fn check<C: ChainCall + Sync>(
    chain: &C,
    signer: Address,
    digest: B256,
    signature: &[u8],
) -> Result<bool, C::Error> {
    let answer = chain.call(&validator_call(signer, digest, signature)).await?;
    Ok(validator_accepts(&answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wrapper_round_trips_and_factories_are_a_closed_list() {
        let factory = Address::repeat_byte(9);
        let wrapped = WalletSignature::Undeployed {
            factory,
            factory_calldata: Bytes::from_static(b"deploy"),
            signature: Bytes::from_static(&[7; 65]),
        };
        assert_eq!(WalletSignature::parse(&wrapped.to_bytes()), Ok(wrapped.clone()));
        assert_eq!(wrapped.check_factory(&[factory]), Ok(()));
        assert_eq!(
            wrapped.check_factory(&[]),
            Err(WalletSignatureError::Factory { factory })
        );
        let plain = WalletSignature::parse(&[1; 65]).unwrap();
        assert_eq!(plain.check_factory(&[]), Ok(()));
        assert_eq!(
            WalletSignature::parse(&[1; MAX_SIGNATURE_BYTES + 1]),
            Err(WalletSignatureError::TooLong {
                got: MAX_SIGNATURE_BYTES + 1
            })
        );
        assert_eq!(
            WalletSignature::parse(MAGIC.as_slice()),
            Err(WalletSignatureError::Wrapper)
        );
    }

    #[test]
    fn only_a_clear_yes_is_yes() {
        let mut yes = [0; 32];
        yes[31] = 1;
        assert!(validator_accepts(&yes));
        for bad in [&yes[..31], &[0; 32], &[1; 32], &[], &[1]] {
            assert!(!validator_accepts(bad));
        }
        let mut magic = [0; 32];
        magic[..4].copy_from_slice(&[0x16, 0x26, 0xba, 0x7e]);
        assert!(erc1271_accepts(&magic));
        magic[31] = 1;
        assert!(!erc1271_accepts(&magic));
        assert!(!erc1271_accepts(&magic[..4]));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), magic: bool) {
            if magic {
                bytes.extend_from_slice(MAGIC.as_slice());
            }
            if let Ok(parsed) = WalletSignature::parse(&bytes) {
                // Other encodings of the same wrapper are accepted; ours parses back to the same parts.
                prop_assert_eq!(WalletSignature::parse(&parsed.to_bytes()), Ok(parsed));
            }
        }
    }
}
