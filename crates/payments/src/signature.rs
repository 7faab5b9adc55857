//! Ethereum signatures with C `secp256k1` (five times faster than the pure-Rust curve, payments.md §6).

use alloy_primitives::{Address, B256, keccak256};
use secp256k1::{
    Message, PublicKey, SECP256K1,
    ecdsa::{RecoverableSignature, RecoveryId, Signature},
};

pub use secp256k1::{PublicKey as SignerKey, SecretKey};

/// Bytes of a signature: `r (32) || s (32) || v (1)`.
pub const SIGNATURE_BYTES: usize = 65;

/// Half of the curve's order: the largest `s` that OpenZeppelin's `ECDSA` (and EIP-2) accepts.
const HALF_ORDER: [u8; 32] = [
    0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x5d, 0x57, 0x6e,
    0x73, 0x57, 0xa4, 0x50, 0x1d, 0xdf, 0xe9, 0x2f, 0x46, 0x68, 0x1b, 0x20, 0xa0,
];

/// Why a signature is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// Not `r || s || v`.
    #[error("signature has {got} bytes, expected {SIGNATURE_BYTES}")]
    Length {
        /// Bytes received.
        got: usize,
    },
    /// The recovery byte is not one that `ecrecover` accepts.
    #[error("signature v is {got}, expected 27 or 28")]
    RecoveryByte {
        /// Byte received.
        got: u8,
    },
    /// `s` is in the upper half of the order: the malleable twin of a valid signature.
    #[error("signature s is in the upper half of the curve order")]
    HighS,
    /// No public key belongs to these values.
    #[error("signature recovers to no public key")]
    Unrecoverable,
    /// The signature is not one of the expected key.
    #[error("signature is not by the expected key")]
    Key,
    /// Somebody else signed.
    #[error("signed by {got}, expected {expected}")]
    Signer {
        /// Address that the message names.
        expected: Address,
        /// Address that signed.
        got: Address,
    },
}

/// Ethereum address of a public key: the last 20 bytes of the hash of its uncompressed form.
#[must_use]
pub fn address_of(key: &PublicKey) -> Address {
    Address::from_slice(&keccak256(&key.serialize_uncompressed()[1..])[12..])
}

/// Ethereum address of a secret key.
#[must_use]
pub fn address_of_secret(key: &SecretKey) -> Address {
    address_of(&key.public_key(SECP256K1))
}

/// Signs a 32-byte digest: deterministic nonce (RFC 6979), low `s`, `v` 27 or 28.
#[must_use]
pub fn sign_digest(digest: B256, key: &SecretKey) -> [u8; SIGNATURE_BYTES] {
    let (id, compact) = SECP256K1
        .sign_ecdsa_recoverable(&Message::from_digest(digest.0), key)
        .serialize_compact();
    let mut signature = [0; SIGNATURE_BYTES];
    signature[..64].copy_from_slice(&compact);
    // The recovery id is 0 or 1 for every signature whose r did not wrap, 2 or 3 with probability 2^-127.
    signature[64] = 27 + (i32::from(id) as u8 & 1);
    signature
}

/// The address that signed `digest`.
///
/// # Errors
/// Any encoding that the token contract would refuse: wrong length, `v` other than 27 or 28, high `s`, no key.
pub fn recover(digest: B256, signature: &[u8]) -> Result<Address, SignatureError> {
    recover_key(digest, signature).map(|key| address_of(&key))
}

/// The public key that signed `digest`: remembered, it makes the next check a [`verify`].
///
/// # Errors
/// As [`recover`].
pub fn recover_key(digest: B256, signature: &[u8]) -> Result<PublicKey, SignatureError> {
    check_encoding(signature)?;
    let v = signature[64];
    let id = RecoveryId::try_from(i32::from(v - 27)).map_err(|_| SignatureError::RecoveryByte { got: v })?;
    RecoverableSignature::from_compact(&signature[..64], id)
        .and_then(|parsed| SECP256K1.recover_ecdsa(&Message::from_digest(digest.0), &parsed))
        .map_err(|_| SignatureError::Unrecoverable)
}

/// Whether `key` signed `digest`, a little faster than recovering the signer.
///
/// `v` is only checked to be 27 or 28: a verification does not say which of them a contract's `ecrecover` needs. Before such
/// a signature goes on chain, [`with_parity`] sets it.
///
/// # Errors
/// As [`recover`]; [`SignatureError::Key`] if another key signed.
pub fn verify(digest: B256, signature: &[u8], key: &PublicKey) -> Result<(), SignatureError> {
    check_encoding(signature)?;
    let parsed = Signature::from_compact(&signature[..64]).map_err(|_| SignatureError::Unrecoverable)?;
    SECP256K1
        .verify_ecdsa(&Message::from_digest(digest.0), &parsed, key)
        .map_err(|_| SignatureError::Key)
}

/// The signature with the `v` for which `ecrecover` gives `signer`.
///
/// # Errors
/// As [`recover`]; [`SignatureError::Signer`] if neither `v` gives that signer.
pub fn with_parity(digest: B256, signature: &[u8], signer: Address) -> Result<[u8; SIGNATURE_BYTES], SignatureError> {
    check_encoding(signature)?;
    let mut candidate = [0; SIGNATURE_BYTES];
    candidate.copy_from_slice(signature);
    let got = recover(digest, &candidate)?;
    if got == signer {
        return Ok(candidate);
    }
    candidate[64] = 27 + 28 - candidate[64];
    match recover(digest, &candidate) {
        Ok(other) if other == signer => Ok(candidate),
        _ => Err(SignatureError::Signer { expected: signer, got }),
    }
}

/// Length, `v` and `s` as the contracts want them; the caller may index all 65 bytes afterwards.
fn check_encoding(signature: &[u8]) -> Result<(), SignatureError> {
    if signature.len() != SIGNATURE_BYTES {
        return Err(SignatureError::Length { got: signature.len() });
    }
    let v = signature[64];
    if v != 27 && v != 28 {
        return Err(SignatureError::RecoveryByte { got: v });
    }
    if signature[32..64] > HALF_ORDER[..] {
        return Err(SignatureError::HighS);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::{address, b256, hex};
    use proptest::prelude::*;

    fn key(seed: u8) -> SecretKey {
        SecretKey::from_byte_array(&[seed; 32]).unwrap()
    }

    #[test]
    fn well_known_key_has_its_address() {
        // Account 0 of the mnemonic "test test … junk" that every Ethereum tool ships.
        let bytes = b256!("ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80");
        let key = SecretKey::from_byte_array(&bytes.0).unwrap();
        assert_eq!(
            address_of_secret(&key),
            address!("f39Fd6e51aad88F6F4ce6aB8827279cffFb92266")
        );
    }

    #[test]
    fn malformed_signatures_are_named() {
        let digest = B256::repeat_byte(9);
        let good = sign_digest(digest, &key(1));
        assert_eq!(recover(digest, &good), Ok(address_of_secret(&key(1))));
        assert_eq!(recover(digest, &good[..64]), Err(SignatureError::Length { got: 64 }));
        for v in [0, 1, 26, 29, 255] {
            let mut bad = good;
            bad[64] = v;
            assert_eq!(recover(digest, &bad), Err(SignatureError::RecoveryByte { got: v }));
        }
        let mut zero_r = good;
        zero_r[..32].fill(0);
        assert_eq!(recover(digest, &zero_r), Err(SignatureError::Unrecoverable));
        let mut zero_s = good;
        zero_s[32..64].fill(0);
        assert_eq!(recover(digest, &zero_s), Err(SignatureError::Unrecoverable));
        let mut large_r = good;
        large_r[..32].fill(0xff);
        assert_eq!(recover(digest, &large_r), Err(SignatureError::Unrecoverable));
    }

    #[test]
    fn malleable_twin_is_refused() {
        let digest = B256::repeat_byte(9);
        let mut twin = sign_digest(digest, &key(1));
        let order = hex!("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141");
        let (mut s, mut borrow) = ([0_u8; 32], 0_i16);
        for i in (0..32).rev() {
            let mut d = i16::from(order[i]) - i16::from(twin[32 + i]) - borrow;
            borrow = i16::from(d < 0);
            d += 256 * borrow;
            s[i] = d as u8;
        }
        twin[32..64].copy_from_slice(&s);
        twin[64] = 27 + 28 - twin[64];
        assert_eq!(recover(digest, &twin), Err(SignatureError::HighS));
    }

    #[test]
    fn a_flipped_v_verifies_and_is_repaired_for_the_chain() {
        let (digest, signer) = (B256::repeat_byte(9), address_of_secret(&key(1)));
        let good = sign_digest(digest, &key(1));
        let public = recover_key(digest, &good).unwrap();
        assert_eq!(address_of(&public), signer);
        let mut flipped = good;
        flipped[64] = 27 + 28 - flipped[64];
        assert_ne!(recover(digest, &flipped), Ok(signer));
        for signature in [good, flipped] {
            assert_eq!(verify(digest, &signature, &public), Ok(()));
            assert_eq!(with_parity(digest, &signature, signer), Ok(good));
        }
        assert_eq!(verify(B256::ZERO, &good, &public), Err(SignatureError::Key));
        assert_eq!(
            verify(digest, &good, &key(2).public_key(SECP256K1)),
            Err(SignatureError::Key)
        );
        assert!(matches!(
            with_parity(digest, &good, Address::ZERO),
            Err(SignatureError::Signer { .. })
        ));
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(digest: [u8; 32], bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let digest = B256::from(digest);
            let _ = recover(digest, &bytes);
            let _ = verify(digest, &bytes, &key(1).public_key(SECP256K1));
            let _ = with_parity(digest, &bytes, Address::ZERO);
        }

        #[test]
        fn any_changed_byte_changes_the_signer(at in 0_usize..65, change in 1_u8..=255) {
            let digest = B256::repeat_byte(3);
            let mut signature = sign_digest(digest, &key(2));
            signature[at] ^= change;
            prop_assert_ne!(recover(digest, &signature), Ok(address_of_secret(&key(2))));
        }
    }
}
