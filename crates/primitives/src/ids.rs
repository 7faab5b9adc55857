//! Identifiers (ledger.md §3): typed 32-byte hashes and the formulas behind them.

use crate::{domain::Tag, hash::keccak};
use alloy_primitives::{Address, B256, FixedBytes};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::{fmt, str::FromStr};

/// A text that is not the hexadecimal form of an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: expected 64 hexadecimal digits, with or without 0x, got {got:?}")]
pub struct IdError {
    /// Which identifier was being read.
    pub what: &'static str,
    /// The text, cut to a bounded length.
    pub got: String,
}

macro_rules! id {
    ($($(#[$doc:meta])* $name:ident ($what:literal);)*) => {$(
        $(#[$doc])*
        ///
        /// Text and JSON form: `0x` and 64 lower-case hexadecimal digits.
        #[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub B256);

        impl $name {
            /// The 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                // `{:x}` of B256 always writes all 64 digits, after 0x with `#`.
                f.pad(&format!("{:#x}", self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({:#x})", stringify!($name), self.0)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_b256(text).map(Self).ok_or_else(|| IdError { what: $what, got: text.chars().take(80).collect() })
            }
        }

        impl From<B256> for $name {
            fn from(bytes: B256) -> Self {
                Self(bytes)
            }
        }

        impl From<$name> for B256 {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl From<[u8; 32]> for $name {
            fn from(bytes: [u8; 32]) -> Self {
                Self(B256::new(bytes))
            }
        }

        impl AsRef<[u8]> for $name {
            fn as_ref(&self) -> &[u8] {
                self.0.as_slice()
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
            }
        }
    )*};
}

id! {
    /// A registered inference node.
    NodeId("node id");
    /// One set of keys of a node.
    KeysetDigest("keyset digest");
    /// One request, from quote to settlement.
    ReceiptId("receipt id");
    /// Content root of a model.
    ModelRoot("model root");
    /// One ERC-3009 authorization: payer and nonce.
    PaymentId("payment id");
}

/// Reads 64 hexadecimal digits of either case, with or without `0x`.
#[must_use]
pub fn parse_b256(text: &str) -> Option<B256> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let mut bytes = [0u8; 32];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(B256::new(bytes))
}

/// The keys of a node that stand in the registry together. Unused keys are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keyset {
    /// The node.
    pub node_id: NodeId,
    /// Ed25519 key that signs receipts and quotes.
    pub receipt_key: B256,
    /// EVM address that acts for the node in payments.
    pub settlement_key: Address,
    /// HPKE key of encrypted requests, or zero.
    pub hpke_key: B256,
    /// SHA-256 of the TLS public key, or zero.
    pub tls_spki: B256,
}

impl Keyset {
    /// `keccak256(abi.encode(nodeId, receiptKey, settlementKey, hpkeKey, tlsSpki))`.
    #[must_use]
    pub fn digest(&self) -> KeysetDigest {
        keyset_digest(self)
    }
}

/// `keccak256(abi.encode(operator, salt))`.
#[must_use]
pub fn node_id(operator: Address, salt: B256) -> NodeId {
    NodeId(hash_words(&[operator.into_word(), salt]))
}

/// `keccak256(abi.encode(nodeId, receiptKey, settlementKey, hpkeKey, tlsSpki))`.
#[must_use]
pub fn keyset_digest(keyset: &Keyset) -> KeysetDigest {
    KeysetDigest(hash_words(&[
        keyset.node_id.0,
        keyset.receipt_key,
        keyset.settlement_key.into_word(),
        keyset.hpke_key,
        keyset.tls_spki,
    ]))
}

/// `keccak256(abi.encode(payer, nonce))`.
#[must_use]
pub fn payment_id(payer: Address, nonce: B256) -> PaymentId {
    PaymentId(hash_words(&[payer.into_word(), nonce]))
}

/// Id of a payment by Permit2: `keccak256(abi.encode(keccak256("opg/payments/permit2"), payer, nonce))`. Three words, so that no nonce
/// of an authorization, which its payer may choose, makes the two meet.
#[must_use]
pub fn permit2_payment_id(payer: Address, nonce: B256) -> PaymentId {
    let tag = keccak(Tag::Permit2Payment.as_str().as_bytes());
    PaymentId(hash_words(&[tag, payer.into_word(), nonce]))
}

/// Address of a node's deposit clone: CREATE2 by the vault, salt the node id, an EIP-1167 clone of `implementation`.
#[must_use]
pub fn deposit_address(vault: Address, implementation: Address, node_id: NodeId) -> Address {
    // The init code of OpenZeppelin's `Clones`.
    const BEFORE: FixedBytes<20> = FixedBytes(alloy_primitives::hex!("3d602d80600a3d3981f3363d3d373d3d3d363d73"));
    const AFTER: FixedBytes<15> = FixedBytes(alloy_primitives::hex!("5af43d82803e903d91602b57fd5bf3"));
    let mut init = Vec::with_capacity(55);
    init.extend_from_slice(BEFORE.as_slice());
    init.extend_from_slice(implementation.as_slice());
    init.extend_from_slice(AFTER.as_slice());
    vault.create2(node_id.0, keccak(&init))
}

/// Keccak of ABI-encoded 32-byte words.
fn hash_words(words: &[B256]) -> B256 {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.0).collect();
    keccak(&bytes)
}
