//! COSE_Sign1 (RFC 9052) with Ed25519, in the one shape that receipts and quotes use.
//!
//! ```text
//! 18([ << {1: -8, 3: content type, 4: keyset digest} >>, {}, << payload >>, signature ])
//! Sig_structure = ["Signature1", protected, external_aad, payload]
//! ```
//! Everything but the keyset digest and the payload is fixed, so one message has one encoding.

use crate::{
    error::{ReceiptError, SignatureError},
    fields::{Fields, as_array},
};
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use opg_primitives::{
    cbor::{Encoder, Limits, Value, decode_strict},
    domain::Tag,
    ids::KeysetDigest,
};

/// Most bytes of a receipt or quote (D14).
pub const MAX_BYTES: usize = 4_096;

/// COSE tag of COSE_Sign1.
const SIGN1: u64 = 18;
/// COSE algorithm -8 (EdDSA), as `-1 - n`.
const EDDSA: u64 = 7;

/// What a COSE message is: its signature and content type say so, and neither passes for the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Receipt,
    Quote,
}

impl Kind {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Receipt => "receipt",
            Self::Quote => "quote",
        }
    }

    const fn content_type(self) -> &'static str {
        match self {
            Self::Receipt => "application/opg-receipt+cbor",
            Self::Quote => "application/opg-quote+cbor",
        }
    }

    const fn aad(self) -> Tag {
        match self {
            Self::Receipt => Tag::Receipt,
            Self::Quote => Tag::Quote,
        }
    }
}

/// The parts of a decoded message.
pub(crate) struct Sign1 {
    pub(crate) keyset: KeysetDigest,
    pub(crate) payload: Vec<u8>,
    pub(crate) signature: [u8; 64],
}

/// Signs a payload; `None` if the result is larger than [`MAX_BYTES`].
pub(crate) fn sign(
    kind: Kind,
    keyset: &KeysetDigest,
    payload: &[u8],
    key: &SigningKey,
) -> Result<Vec<u8>, ReceiptError> {
    let protected = protected(kind, keyset);
    let signature = key.sign(&sig_structure(kind, &protected, payload));
    let mut encoder = Encoder::with_capacity(payload.len() + 192);
    encoder
        .tag(SIGN1)
        .array(4)
        .bytes(&protected)
        .map(0)
        .bytes(payload)
        .bytes(&signature.to_bytes());
    let bytes = encoder.finish();
    check_length(kind, &bytes)?;
    Ok(bytes)
}

/// Decodes a message, refusing all but the one encoding of its parts.
pub(crate) fn decode(kind: Kind, bytes: &[u8]) -> Result<Sign1, ReceiptError> {
    let what = kind.name();
    check_length(kind, bytes)?;
    let cbor = |source| ReceiptError::Cbor { what, source };
    let bad = |part| ReceiptError::Cose { what, part };
    let limits = Limits {
        bytes: MAX_BYTES,
        depth: 3,
        items: 8,
        tags: true,
    };
    let Value::Tag(SIGN1, inner) = decode_strict(bytes, limits).map_err(cbor)? else {
        return Err(bad("tag 18"));
    };
    let Value::Array(parts) = *inner else {
        return Err(bad("array"));
    };
    let [protected, unprotected, payload, signature]: [Value; 4] =
        parts.try_into().map_err(|_| bad("array of four"))?;
    if unprotected != Value::Map(Vec::new()) {
        return Err(bad("unprotected header"));
    }
    let (Value::Bytes(protected), Value::Bytes(payload)) = (protected, payload) else {
        return Err(bad("protected header or payload"));
    };
    let signature = as_array(signature, "signature")?;
    let header = decode_strict(
        &protected,
        Limits {
            bytes: 128,
            depth: 2,
            items: 8,
            tags: false,
        },
    )
    .map_err(|source| ReceiptError::Cbor {
        what: "protected header",
        source,
    })?;
    let mut fields = Fields::of(header, "protected header")?;
    if fields.take(1, "protected header.alg")? != Value::Nint(EDDSA) {
        return Err(bad("algorithm"));
    }
    if fields.text(3, "protected header.content type")? != kind.content_type() {
        return Err(bad("content type"));
    }
    let keyset = KeysetDigest(fields.b256(4, "protected header.kid")?);
    fields.end()?;
    Ok(Sign1 {
        keyset,
        payload,
        signature,
    })
}

/// Strict Ed25519 verification (RFC 8032 with canonical `s`, canonical and not small-order points, no cofactor).
///
/// The verdict must be the same on every validator, so this is the only rule in use. A batch equation would not give
/// it: with a key or nonce point of mixed order, which anyone can make for a key of his own, the cofactorless batch sum
/// vanishes for some of its random coefficients and not for others, and the cofactored one accepts what strict
/// verification refuses. Proving each point torsion-free costs as much as the verification it would save.
pub(crate) fn verify(kind: Kind, message: &Sign1, key: &VerifyingKey) -> Result<(), ReceiptError> {
    let signed = signed_bytes(kind, &message.keyset, &message.payload);
    key.verify_strict(&signed, &Signature::from_bytes(&message.signature))
        .map_err(|_| mismatch(kind))
}

/// The bytes that a signature is over.
pub(crate) fn signed_bytes(kind: Kind, keyset: &KeysetDigest, payload: &[u8]) -> Vec<u8> {
    sig_structure(kind, &protected(kind, keyset), payload)
}

/// A signature that does not verify.
pub(crate) const fn mismatch(kind: Kind) -> ReceiptError {
    ReceiptError::Signature {
        what: kind.name(),
        source: SignatureError::Mismatch,
    }
}

/// Bytes that are no key.
pub(crate) const fn bad_key(kind: Kind) -> ReceiptError {
    ReceiptError::Signature {
        what: kind.name(),
        source: SignatureError::Key,
    }
}

/// Reads a key: a canonical encoding of a point that has not small order.
pub(crate) fn key(kind: Kind, bytes: &[u8; 32]) -> Result<VerifyingKey, ReceiptError> {
    match VerifyingKey::from_bytes(bytes) {
        // `from_bytes` reduces the y coordinate: a non-canonical encoding would be a second name of the same key.
        Ok(key) if !key.is_weak() && key.to_edwards().compress().as_bytes() == bytes => Ok(key),
        _ => Err(bad_key(kind)),
    }
}

fn check_length(kind: Kind, bytes: &[u8]) -> Result<(), ReceiptError> {
    if bytes.len() > MAX_BYTES {
        return Err(ReceiptError::TooLong {
            what: kind.name(),
            limit: MAX_BYTES,
            got: bytes.len(),
        });
    }
    Ok(())
}

fn protected(kind: Kind, keyset: &KeysetDigest) -> Vec<u8> {
    let mut encoder = Encoder::with_capacity(72);
    encoder.map(3).uint(1).nint(EDDSA).uint(3).text(kind.content_type());
    encoder.uint(4).bytes(keyset.as_ref());
    encoder.finish()
}

fn sig_structure(kind: Kind, protected: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::with_capacity(payload.len() + 112);
    encoder.array(4).text("Signature1").bytes(protected);
    encoder.bytes(kind.aad().as_str().as_bytes()).bytes(payload);
    encoder.finish()
}
