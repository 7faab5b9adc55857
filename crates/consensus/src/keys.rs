//! Keys of a validator: an ed25519 identity for the network and a BLS12-381 key for votes.
//!
//! BLS signatures are in G1 (48 bytes compressed), public keys in G2 (96 bytes compressed), with the
//! proof-of-possession suite. **A BLS key must not enter a validator set without a checked proof of
//! possession**: multisignatures of keys chosen in answer to others' could otherwise be forged.

use alloy_primitives::B256;
use commonware_codec::{Copying, DecodeExt as _, Encode as _};
use commonware_cryptography::{
    Signer as _,
    bls12381::primitives::{
        group::Private,
        ops::{compute_public, keypair, sign_proof_of_possession, verify_proof_of_possession},
        variant::{MinSig, Variant},
    },
    ed25519::{PrivateKey, PublicKey},
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

type BlsPublic = <MinSig as Variant>::Public;
type BlsSignature = <MinSig as Variant>::Signature;

/// Why text or bytes are not a key. The key itself is never part of the message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Wrong length, or characters that are not hexadecimal.
    #[error("{kind} must be {bytes} bytes in hexadecimal")]
    Hex {
        /// What was parsed.
        kind: &'static str,
        /// Its size.
        bytes: usize,
    },
    /// Bytes of the right length that encode no valid key.
    #[error("not a valid {0}")]
    Invalid(&'static str),
}

fn parse_hex<const N: usize>(kind: &'static str, text: &str) -> Result<[u8; N], KeyError> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let mut bytes = [0; N];
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| KeyError::Hex { kind, bytes: N })?;
    Ok(bytes)
}

macro_rules! public_bytes {
    ($name:ident, $size:literal, $kind:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = KeyError;

            /// Hexadecimal with or without `0x`.
            fn from_str(text: &str) -> Result<Self, KeyError> {
                parse_hex::<$size>($kind, text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?
                    .parse()
                    .map_err(de::Error::custom)
            }
        }
    };
}

/// Name of a validator on the network: its ed25519 public key.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(pub [u8; 32]);

public_bytes!(Identity, 32, "ed25519 public key");

/// A validator's voting key: a compressed point of G2.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlsPublicKey(pub [u8; 96]);

public_bytes!(BlsPublicKey, 96, "BLS public key");

impl Identity {
    pub(crate) fn key(&self) -> Result<PublicKey, KeyError> {
        PublicKey::decode(Copying(&self.0)).map_err(|_| KeyError::Invalid("ed25519 public key"))
    }

    pub(crate) fn of(key: &PublicKey) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(key.as_ref());
        Self(bytes)
    }
}

impl BlsPublicKey {
    /// Decompresses the point and checks that it is in the right subgroup.
    pub(crate) fn point(&self) -> Result<BlsPublic, KeyError> {
        BlsPublic::decode(Copying(&self.0)).map_err(|_| KeyError::Invalid("BLS public key"))
    }
}

/// Secret half of an [`Identity`].
#[derive(Clone)]
pub struct IdentityKey(pub(crate) PrivateKey);

/// Secret half of a [`BlsPublicKey`].
#[derive(Clone)]
pub struct BlsKey(pub(crate) Private);

impl fmt::Debug for IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IdentityKey(public {})", self.public())
    }
}

impl fmt::Debug for BlsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BlsKey(public {})", self.public())
    }
}

impl IdentityKey {
    /// A new key from the system's randomness.
    pub fn generate() -> Self {
        // every 32-byte seed is a key
        Self(PrivateKey::decode(Copying(B256::random().as_slice())).expect("an ed25519 seed is any 32 bytes"))
    }

    /// From the 32-byte seed.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_bytes(seed: &[u8; 32]) -> Result<Self, KeyError> {
        let key = PrivateKey::decode(Copying(seed)).map_err(|_| KeyError::Invalid("ed25519 key"))?;
        Ok(Self(key))
    }

    /// From hexadecimal, with or without `0x`.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(&parse_hex("ed25519 key", text)?)
    }

    /// The 32-byte seed.
    pub fn to_bytes(&self) -> [u8; 32] {
        let mut seed = [0; 32];
        seed.copy_from_slice(&self.0.encode());
        seed
    }

    /// The seed in hexadecimal. Keep it out of logs.
    pub fn to_hex(&self) -> String {
        hex::encode(self.to_bytes())
    }

    /// The public half.
    pub fn public(&self) -> Identity {
        Identity::of(&self.0.public_key())
    }
}

impl BlsKey {
    /// A new key from the system's randomness.
    pub fn generate() -> Self {
        let (private, _) = keypair::<_, MinSig>(&mut commonware_utils::sys_rng());
        Self(private)
    }

    /// From a 32-byte big-endian scalar below the group order and not zero.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_bytes(scalar: &[u8; 32]) -> Result<Self, KeyError> {
        let key = Private::decode(Copying(scalar)).map_err(|_| KeyError::Invalid("BLS key"))?;
        Ok(Self(key))
    }

    /// From hexadecimal, with or without `0x`.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn from_hex(text: &str) -> Result<Self, KeyError> {
        Self::from_bytes(&parse_hex("BLS key", text)?)
    }

    /// The scalar, big-endian.
    pub fn to_bytes(&self) -> [u8; 32] {
        let mut scalar = [0; 32];
        scalar.copy_from_slice(&self.0.encode());
        scalar
    }

    /// The scalar in hexadecimal. Keep it out of logs.
    pub fn to_hex(&self) -> String {
        hex::encode(self.to_bytes())
    }

    /// The public half.
    pub fn public(&self) -> BlsPublicKey {
        let mut bytes = [0; 96];
        bytes.copy_from_slice(&compute_public::<MinSig>(&self.0).encode());
        BlsPublicKey(bytes)
    }
}

/// A BLS key's point as EIP-2537 has it (256 bytes), which the staking contract takes.
///
/// # Errors
/// [`KeyError::Invalid`] if the bytes are no key.
pub fn eip2537_key(key: &BlsPublicKey) -> Result<[u8; 256], KeyError> {
    let point = blst::min_sig::PublicKey::key_validate(&key.0).map_err(|_| KeyError::Invalid("BLS public key"))?;
    let raw = point.serialize();
    let mut words = [0; 256];
    // Zcash's format has the imaginary parts first.
    for (word, from) in words.chunks_exact_mut(64).zip([48, 0, 144, 96]) {
        pad(word, raw.get(from..from + 48));
    }
    Ok(words)
}

/// A [`proof_of_possession`] as EIP-2537 has points of G1 (128 bytes).
///
/// # Errors
/// [`KeyError::Invalid`] if the bytes are no signature.
pub fn eip2537_signature(signature: &[u8; 48]) -> Result<[u8; 128], KeyError> {
    let point = blst::min_sig::Signature::sig_validate(signature, true)
        .map_err(|_| KeyError::Invalid("proof of possession"))?;
    let raw = point.serialize();
    let mut words = [0; 128];
    for (word, from) in words.chunks_exact_mut(64).zip([0, 48]) {
        pad(word, raw.get(from..from + 48));
    }
    Ok(words)
}

/// A coordinate of 48 bytes at the end of a word of 64.
fn pad(word: &mut [u8], coordinate: Option<&[u8]>) {
    if let (Some(place), Some(coordinate)) = (word.get_mut(16..), coordinate) {
        place.copy_from_slice(coordinate);
    }
}

/// Both keys of a validator.
#[derive(Debug, Clone)]
pub struct ValidatorKeys {
    /// Network identity.
    pub identity: IdentityKey,
    /// Voting key.
    pub bls: BlsKey,
}

impl ValidatorKeys {
    /// New keys from the system's randomness.
    pub fn generate() -> Self {
        Self {
            identity: IdentityKey::generate(),
            bls: BlsKey::generate(),
        }
    }

    /// The public halves.
    pub fn participant(&self) -> Participant {
        Participant {
            identity: self.identity.public(),
            bls: self.bls.public(),
        }
    }
}

/// A member of the validator set. Its BLS key's proof of possession has been checked by the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Participant {
    /// Network identity.
    pub identity: Identity,
    /// Voting key.
    pub bls: BlsPublicKey,
}

/// Proves knowledge of a BLS key, for one context (chain, operator, epoch).
///
/// `namespace` must be unambiguous; this project uses `opg_contracts::genesis_file::possession_namespace`.
/// The signature is by commonware's scheme: suite `BLS_POP_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_` over
/// `varint(len namespace) || namespace || public key`.
pub fn proof_of_possession(key: &BlsKey, namespace: &[u8]) -> [u8; 48] {
    let mut bytes = [0; 48];
    bytes.copy_from_slice(&sign_proof_of_possession::<MinSig>(&key.0, namespace).encode());
    bytes
}

/// Checks a [`proof_of_possession`]. Malformed keys and signatures are simply not valid.
pub fn verify_possession(key: &BlsPublicKey, namespace: &[u8], proof: &[u8; 48]) -> bool {
    let (Ok(public), Ok(signature)) = (key.point(), BlsSignature::decode(Copying(proof))) else {
        return false;
    };
    verify_proof_of_possession::<MinSig>(&public, namespace, &signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_hex() {
        let keys = ValidatorKeys::generate();
        let identity = IdentityKey::from_hex(&keys.identity.to_hex()).map(|k| k.public());
        assert_eq!(identity, Ok(keys.identity.public()));
        let bls = BlsKey::from_hex(&format!("0x{}", keys.bls.to_hex())).map(|k| k.public());
        assert_eq!(bls, Ok(keys.bls.public()));
        let participant = keys.participant();
        assert_eq!(participant.identity.to_string().parse(), Ok(participant.identity));
        assert_eq!(participant.bls.to_string().parse(), Ok(participant.bls));
        assert!(!format!("{keys:?}").contains(&keys.bls.to_hex()));
        assert!(!format!("{keys:?}").contains(&keys.identity.to_hex()));
    }

    #[test]
    fn bad_keys_are_refused() {
        assert!(IdentityKey::from_hex("00").is_err());
        assert!(IdentityKey::from_hex(&"zz".repeat(32)).is_err());
        assert_eq!(
            BlsKey::from_bytes(&[0xff; 32]).map(|_| ()),
            Err(KeyError::Invalid("BLS key"))
        );
        assert!(BlsKey::from_bytes(&[0; 32]).is_err());
        assert!(BlsPublicKey([0; 96]).point().is_err());
        // the point at infinity would make every signature of nothing valid
        let mut infinity = [0; 96];
        infinity[0] = 0xc0;
        assert!(BlsPublicKey(infinity).point().is_err());
    }

    #[test]
    fn possession_is_bound_to_key_and_namespace() {
        let (one, two) = (BlsKey::generate(), BlsKey::generate());
        let proof = proof_of_possession(&one, b"chain 1");
        assert!(verify_possession(&one.public(), b"chain 1", &proof));
        assert!(!verify_possession(&one.public(), b"chain 2", &proof));
        assert!(!verify_possession(&two.public(), b"chain 1", &proof));
        assert!(!verify_possession(&one.public(), b"chain 1", &[0; 48]));
    }

    #[test]
    fn possession_verifies_with_another_implementation() {
        let key = BlsKey::generate();
        let namespace = b"opg test namespace";
        let proof = proof_of_possession(&key, namespace);
        let public = key.public();
        let mut message = vec![namespace.len() as u8];
        message.extend(namespace);
        message.extend(public.0);
        let public = blst::min_sig::PublicKey::from_bytes(&public.0).expect("a key");
        let signature = blst::min_sig::Signature::from_bytes(&proof).expect("a signature");
        let suite = b"BLS_POP_BLS12381G1_XMD:SHA-256_SSWU_RO_POP_";
        let verdict = signature.verify(true, &message, suite, &[], &public, true);
        assert_eq!(verdict, blst::BLST_ERROR::BLST_SUCCESS);
    }
}
