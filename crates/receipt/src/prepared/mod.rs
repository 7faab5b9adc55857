//! Receipt keys prepared for many verifications, with the verdicts of strict single verification.
//!
//! A node signs thousands of receipts with one key, so the key's multiples can be computed once. A verification is then 64 additions on the curve
//! and no doubling, and the one inversion that it needs is shared by all of a batch. Each signature is still judged by its own equation:
//! unlike a batch equation, which sums them with random factors, this accepts and refuses exactly what
//! [`ed25519_dalek::VerifyingKey::verify_strict`] does, on every machine, whatever else is in the batch (ADR 4).
//!
//! # Invariants
//! - The same verdict as strict verification for every key, message and signature; compared by tests on good, changed, non-canonical and
//!   small-order inputs.
//! - Nothing is secret here: keys, messages and signatures are public, and times vary with them.
//! - Field arithmetic is fiat-crypto's, generated from a proof; curve formulas are complete.

mod curve;
mod field;

use crate::{cose, error::ReceiptError};
use curve::{Multiples, Point, encode};
use curve25519_dalek::{constants, scalar::Scalar};
use sha2::{Digest as _, Sha512};
use std::sync::LazyLock;

/// Signatures that share an inversion.
const CHUNK: usize = 256;

/// The base point's multiples.
static BASE: LazyLock<Option<Multiples>> =
    LazyLock::new(|| Multiples::of(constants::ED25519_BASEPOINT_COMPRESSED.as_bytes()));
/// Canonical encodings of the eight points of small order: no signature has one of them as its nonce point.
static SMALL_ORDER: LazyLock<[[u8; 32]; 8]> =
    LazyLock::new(|| constants::EIGHT_TORSION.map(|point| point.compress().to_bytes()));

/// A receipt key with what makes its verifications cheap: half a megabyte, about two milliseconds to make, which fifty
/// verifications bring in again.
#[derive(Debug)]
pub struct PreparedKey {
    bytes: [u8; 32],
    multiples: Multiples,
}

impl PreparedKey {
    /// Prepares a key.
    ///
    /// # Errors
    /// [`ReceiptError::Signature`] for bytes that are not the canonical encoding of a point, or of one of small order.
    pub fn new(receipt_key: &[u8; 32]) -> Result<Self, ReceiptError> {
        cose::key(cose::Kind::Receipt, receipt_key)?;
        Ok(Self {
            bytes: *receipt_key,
            multiples: Multiples::of(receipt_key).ok_or_else(|| cose::bad_key(cose::Kind::Receipt))?,
        })
    }

    /// The key.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.bytes
    }
}

/// One signature of a batch.
#[derive(Debug)]
pub(crate) struct Item<'a> {
    pub(crate) key: &'a PreparedKey,
    pub(crate) message: Vec<u8>,
    pub(crate) signature: &'a [u8; 64],
}

/// Whether each signature is good, in order.
pub(crate) fn verify(items: &[Item<'_>]) -> Vec<bool> {
    items.chunks(CHUNK).flat_map(verify_chunk).collect()
}

fn verify_chunk(items: &[Item<'_>]) -> Vec<bool> {
    let Some(base) = &*BASE else {
        return vec![false; items.len()];
    };
    let expected: Vec<Option<Point>> = items.iter().map(|item| nonce_point(base, item)).collect();
    let points: Vec<Point> = expected.iter().map(|point| point.unwrap_or(Point::IDENTITY)).collect();
    let verdict = |((item, expected), encoding): ((&Item<'_>, &Option<Point>), [u8; 32])| {
        let nonce = item.signature.first_chunk::<32>();
        expected.is_some() && nonce == Some(&encoding) && !SMALL_ORDER.contains(&encoding)
    };
    items.iter().zip(&expected).zip(encode(&points)).map(verdict).collect()
}

/// The point `s B - k A` that the signature's first half has to encode; `None` if `s` is not below the group's order.
fn nonce_point(base: &Multiples, item: &Item<'_>) -> Option<Point> {
    let (nonce, s) = (item.signature.first_chunk::<32>()?, item.signature.last_chunk::<32>()?);
    let s = Option::<Scalar>::from(Scalar::from_canonical_bytes(*s))?;
    let digest = Sha512::new()
        .chain_update(nonce)
        .chain_update(item.key.bytes)
        .chain_update(&item.message)
        .finalize();
    let k = Scalar::from_bytes_mod_order_wide(&digest.into());
    let point = base.add_product(Point::IDENTITY, s.as_bytes(), false);
    Some(item.key.multiples.add_product(point, k.as_bytes(), true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use curve25519_dalek::edwards::{CompressedEdwardsY, EdwardsPoint};
    use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
    use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

    fn both(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
        let prepared = PreparedKey::new(key).expect("a key");
        let item = Item {
            key: &prepared,
            message: message.to_vec(),
            signature,
        };
        let own = verify(&[item]) == [true];
        let strict = VerifyingKey::from_bytes(key)
            .expect("a key")
            .verify_strict(message, &Signature::from_bytes(signature))
            .is_ok();
        assert_eq!(
            own, strict,
            "key {key:02x?} message {message:02x?} signature {signature:02x?}"
        );
        own
    }

    #[test]
    fn good_and_changed_signatures_get_the_library_s_verdict() {
        let mut rng = StdRng::seed_from_u64(1);
        for round in 0..12 {
            let key = SigningKey::from_bytes(&rng.random());
            let public = key.verifying_key().to_bytes();
            let mut message = vec![0; round * 37];
            rng.fill(&mut message[..]);
            let signature = key.sign(&message).to_bytes();
            assert!(both(&public, &message, &signature));
            message.push(1);
            assert!(!both(&public, &message, &signature));
            message.pop();
            for _ in 0..24 {
                let mut changed = signature;
                changed[rng.random_range(0..64)] ^= 1 << rng.random_range(0..8);
                assert!(!both(&public, &message, &changed));
            }
        }
    }

    /// `s` and `s` plus the order are the same scalar: only the smaller one counts.
    #[test]
    fn scalars_are_canonical() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let mut signature = key.sign(b"message").to_bytes();
        assert!(both(&key.verifying_key().to_bytes(), b"message", &signature));
        // 2^252 + 27742317777372353535851937790883648493
        let order: [u8; 32] = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut carry = 0u16;
        for (byte, add) in signature[32..].iter_mut().zip(order) {
            carry += u16::from(*byte) + u16::from(add);
            *byte = carry.to_le_bytes()[0];
            carry >>= 8;
        }
        assert!(!both(&key.verifying_key().to_bytes(), b"message", &signature));
    }

    /// A key with a part of small order: about one message in eight has a good signature, and batch equations disagree with themselves. Here the
    /// verdicts are those of strict verification.
    #[test]
    fn keys_and_nonces_of_mixed_order() {
        let mut rng = StdRng::seed_from_u64(2);
        let scalar = |rng: &mut StdRng| Scalar::from_bytes_mod_order(rng.random());
        let (mut good, mut bad) = (0, 0);
        for (torsion, round) in constants::EIGHT_TORSION
            .into_iter()
            .flat_map(|point| (0..24).map(move |i| (point, i)))
        {
            let (a, r) = (scalar(&mut rng), scalar(&mut rng));
            let key = (EdwardsPoint::mul_base(&a) + torsion).compress().to_bytes();
            // every third nonce has such a part too
            let part = constants::EIGHT_TORSION[if round % 3 == 0 { round % 8 } else { 0 }];
            let nonce = (EdwardsPoint::mul_base(&r) + part).compress().to_bytes();
            let digest = Sha512::new()
                .chain_update(nonce)
                .chain_update(key)
                .chain_update(b"m")
                .finalize();
            let k = Scalar::from_bytes_mod_order_wide(&digest.into());
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&nonce);
            signature[32..].copy_from_slice((r + k * a).as_bytes());
            *(if both(&key, b"m", &signature) {
                &mut good
            } else {
                &mut bad
            }) += 1;
        }
        assert!(good > 20 && bad > 60, "{good} good, {bad} bad");
    }

    /// Nonces of small order fulfil the equation for whoever has the key; strict verification refuses them, in every encoding.
    #[test]
    fn nonces_of_small_order() {
        let a = Scalar::from_bytes_mod_order([7; 32]);
        let key = EdwardsPoint::mul_base(&a).compress().to_bytes();
        let mut encodings: Vec<[u8; 32]> = constants::EIGHT_TORSION
            .iter()
            .map(|point| point.compress().to_bytes())
            .collect();
        // y = 1 and y = 0 once more, as 2^255 - 18 and 2^255 - 19
        for first in [0xee, 0xed] {
            let mut bytes = [0xff; 32];
            (bytes[0], bytes[31]) = (first, 0x7f);
            encodings.push(bytes);
            bytes[31] = 0xff;
            encodings.push(bytes);
        }
        for nonce in encodings {
            let digest = Sha512::new()
                .chain_update(nonce)
                .chain_update(key)
                .chain_update(b"m")
                .finalize();
            let k = Scalar::from_bytes_mod_order_wide(&digest.into());
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&nonce);
            signature[32..].copy_from_slice((k * a).as_bytes());
            assert!(!both(&key, b"m", &signature), "{nonce:02x?}");
        }
    }

    /// Products of both implementations, also of points that are no keys.
    #[test]
    fn products_are_the_library_s() {
        let mut rng = StdRng::seed_from_u64(3);
        let mut points: Vec<EdwardsPoint> = constants::EIGHT_TORSION.to_vec();
        points.extend((0..6).map(|_| EdwardsPoint::mul_base(&Scalar::from_bytes_mod_order(rng.random()))));
        points.push(points[3] + points[9]);
        for point in points {
            let encoding = point.compress().to_bytes();
            let multiples = Multiples::of(&encoding).expect("a point");
            let mut scalars: Vec<Scalar> = [0u64, 1, 2, 127, 128, 129, 255, 256, 0x8080_8080_8080_8080]
                .map(Scalar::from)
                .to_vec();
            scalars.extend([
                -Scalar::ONE,
                -Scalar::from(128u64),
                Scalar::from_bytes_mod_order(rng.random()),
            ]);
            for scalar in scalars {
                let own = multiples.add_product(Point::IDENTITY, scalar.as_bytes(), false);
                let minus = multiples.add_product(own, scalar.as_bytes(), true);
                let expected = (point * scalar).compress();
                assert_eq!(
                    encode(&[own, minus]),
                    [expected.to_bytes(), EdwardsPoint::default().compress().to_bytes()]
                );
            }
        }
        // bytes that are no point are none here either
        for _ in 0..64 {
            let bytes: [u8; 32] = rng.random();
            let library = CompressedEdwardsY(bytes).decompress().is_some();
            assert_eq!(Multiples::of(&bytes).is_some(), library);
        }
    }
}
