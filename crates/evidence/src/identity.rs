//! Identity of evidence: a hash of the signed statement and its signature in one form, never of the bytes at hand.
//!
//! Documents travel with padding, wrappers and re-encoded parts, and an ECDSA signature `(r, s)` has the twin
//! `(r, n - s)`; a hash of raw bytes would give one statement many names, and a replay guard keyed by it would be
//! none. The identity is
//!
//! `SHA-256("opg/evidence/v1" || kind || u32be(len(signed)) || signed || r || min(s, n - s))`
//!
//! with `signed` the exact bytes that the signature covers and `r`, `s` big-endian at the curve's width.

use crate::claims::{EvidenceId, Kind};
use opg_primitives::domain::Tag;
use sha2::{Digest, Sha256};

const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
    0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];
const P384_ORDER: [u8; 48] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf, 0x58, 0x1a, 0x0d, 0xb2, 0x48, 0xb0,
    0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73,
];

/// An ECDSA signature as two big-endian numbers of the curve's width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EcdsaSignature<'a> {
    /// `r || s` over P-256.
    P256(&'a [u8; 64]),
    /// `r || s` over P-384.
    P384(&'a [u8; 96]),
}

impl EcdsaSignature<'_> {
    /// `r || min(s, n - s)`.
    fn canonical(self) -> Vec<u8> {
        match self {
            Self::P256(bytes) => canonical(bytes, &P256_ORDER),
            Self::P384(bytes) => canonical(bytes, &P384_ORDER),
        }
    }
}

fn canonical(signature: &[u8], order: &[u8]) -> Vec<u8> {
    let (r, s) = signature.split_at(signature.len() / 2);
    let twin = subtract(order, s);
    let low = if twin.as_slice() < s { twin.as_slice() } else { s };
    [r, low].concat()
}

/// `a - b` modulo 2^(8 * width), big-endian, equal widths.
fn subtract(a: &[u8], b: &[u8]) -> Vec<u8> {
    let mut borrow = 0i16;
    let mut out: Vec<u8> = a
        .iter()
        .rev()
        .zip(b.iter().rev())
        .map(|(a, b)| {
            let digit = i16::from(*a) - i16::from(*b) - borrow;
            borrow = i16::from(digit < 0);
            digit.rem_euclid(256) as u8
        })
        .collect();
    out.reverse();
    out
}

/// Identity of the statement `signed` under `signature`.
#[must_use]
pub fn evidence_id(kind: Kind, signed: &[u8], signature: EcdsaSignature<'_>) -> EvidenceId {
    let mut hash = Sha256::new();
    hash.update(Tag::Evidence.as_str());
    hash.update([kind.code()]);
    hash.update((signed.len() as u32).to_be_bytes());
    hash.update(signed);
    hash.update(signature.canonical());
    EvidenceId(hash.finalize().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twin_signatures_have_one_identity() {
        let mut signature = [7u8; 96];
        let mut twin = signature;
        twin[48..].copy_from_slice(&subtract(&P384_ORDER, &signature[48..]));
        assert_ne!(signature, twin);
        let id = |s: &[u8; 96]| evidence_id(Kind::Nitro, b"statement", EcdsaSignature::P384(s));
        assert_eq!(id(&signature), id(&twin));
        signature[0] ^= 1;
        assert_ne!(id(&signature), id(&twin));
    }

    /// Values of a separate calculation in Python (hashlib and integers); the first signature has a high `s`.
    #[test]
    fn golden_vectors() {
        let mut high = [7; 96];
        high[48..].fill(0xf0);
        let mut low = [7; 64];
        low[32..].fill(8);
        let id = |kind, signature| evidence_id(kind, b"statement", signature).to_string();
        assert_eq!(
            id(Kind::Nitro, EcdsaSignature::P384(&high)),
            "604cdfaeeabe90c84048957365f33e80ee1baf17fd42f61337f175ad173689e2"
        );
        assert_eq!(
            id(Kind::Tdx, EcdsaSignature::P256(&low)),
            "29f7c6642c737ac4068faa7f52f480ad9ee0489850cbf5280ba7f38c7b92632e"
        );
    }

    #[test]
    fn kind_and_statement_count() {
        let signature = [1u8; 64];
        let id = |kind, text: &[u8]| evidence_id(kind, text, EcdsaSignature::P256(&signature));
        assert_ne!(id(Kind::Tdx, b"a"), id(Kind::Sgx, b"a"));
        assert_ne!(id(Kind::Tdx, b"a"), id(Kind::Tdx, b"b"));
    }

    #[test]
    fn subtraction_borrows() {
        assert_eq!(subtract(&[1, 0, 0], &[0, 0, 1]), [0, 0xff, 0xff]);
    }
}
