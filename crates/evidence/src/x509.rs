//! Certificates and chains of attestation vendors: a strict reader of RFC 5280 certificates and a path check.
//!
//! Vendor chains name no hosts and no purposes, so this is the small part of path validation that they need: names,
//! validity, authority flag, path length, key usage, unknown critical extensions, signatures.

use crate::{
    claims::UnixSeconds,
    der::{Der, tag},
    reject::Reject,
};
use aws_lc_rs::signature::{self, UnparsedPublicKey, VerificationAlgorithm};

mod extensions;
mod path;
mod revocation;

use extensions::{basic_constraints, extensions, key_usage};

pub(crate) use revocation::RevocationList;

pub use path::{ChainRules, VerifiedLinks, Window, verify_chain};

/// Most bytes of one certificate; AMD's RSA-4096 authorities have about 1 700.
pub const MAX_CERTIFICATE: usize = 8_192;

/// Object identifiers (contents octets).
pub mod oid {
    /// id-ce-basicConstraints, 2.5.29.19.
    pub const BASIC_CONSTRAINTS: &[u8] = &[0x55, 0x1d, 0x13];
    /// id-ce-keyUsage, 2.5.29.15.
    pub const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];
    pub(super) const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
    pub(super) const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
    pub(super) const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
    pub(super) const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
    pub(super) const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
    pub(super) const MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08];
    pub(super) const SHA384: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02];
    pub(super) const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
    pub(super) const ECDSA_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
}

/// Algorithm of a certificate's signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SignatureAlgorithm {
    /// ECDSA with SHA-256.
    EcdsaSha256,
    /// ECDSA with SHA-384.
    EcdsaSha384,
    /// RSASSA-PSS, SHA-384, MGF1 with SHA-384, salt of 48 bytes.
    RsaPssSha384,
}

/// A certificate's public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublicKey<'a> {
    /// Uncompressed point on P-256.
    P256(&'a [u8]),
    /// Uncompressed point on P-384.
    P384(&'a [u8]),
    /// `RSAPublicKey` (PKCS #1, DER).
    Rsa(&'a [u8]),
}

impl PublicKey<'_> {
    /// Whether `signature` (DER for ECDSA) of `message` verifies. A key of another family never does.
    #[must_use]
    pub fn verifies(&self, algorithm: SignatureAlgorithm, message: &[u8], signature: &[u8]) -> bool {
        let (rule, key): (&'static dyn VerificationAlgorithm, &[u8]) = match (algorithm, self) {
            (SignatureAlgorithm::EcdsaSha256, PublicKey::P256(key)) => (&signature::ECDSA_P256_SHA256_ASN1, key),
            (SignatureAlgorithm::EcdsaSha384, PublicKey::P384(key)) => (&signature::ECDSA_P384_SHA384_ASN1, key),
            (SignatureAlgorithm::RsaPssSha384, PublicKey::Rsa(key)) => (&signature::RSA_PSS_2048_8192_SHA384, key),
            _ => return false,
        };
        UnparsedPublicKey::new(rule, key).verify(message, signature).is_ok()
    }

    /// Whether `signature` (`r || s`, big-endian, 96 bytes) of `message` verifies under a P-384 key with SHA-384.
    #[must_use]
    pub fn verifies_p384_fixed(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::P384(key) => UnparsedPublicKey::new(&signature::ECDSA_P384_SHA384_FIXED, key)
                .verify(message, signature)
                .is_ok(),
            _ => false,
        }
    }

    /// Whether `signature` (`r || s`, big-endian, 64 bytes) of `message` verifies under a P-256 key with SHA-256.
    #[must_use]
    pub fn verifies_p256_fixed(&self, message: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::P256(key) => UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, key)
                .verify(message, signature)
                .is_ok(),
            _ => false,
        }
    }
}

/// One extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension<'a> {
    /// Object identifier (contents octets).
    pub oid: &'a [u8],
    /// Whether whoever does not understand it must refuse.
    pub critical: bool,
    /// Contents of the octet string.
    pub value: &'a [u8],
}

/// Key usage bits (RFC 5280 §4.2.1.3), the first in the highest bit.
pub mod usage {
    /// digitalSignature.
    pub const DIGITAL_SIGNATURE: u16 = 0x8000;
    /// keyCertSign.
    pub const CERT_SIGN: u16 = 0x0400;
    /// cRLSign.
    pub const CRL_SIGN: u16 = 0x0200;
}

/// A parsed certificate. Slices point into the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate<'a> {
    /// Whole certificate.
    pub raw: &'a [u8],
    /// What is signed.
    pub tbs: &'a [u8],
    /// Serial number, contents octets of the integer.
    pub serial: &'a [u8],
    /// Issuer name (DER).
    pub issuer: &'a [u8],
    /// Subject name (DER).
    pub subject: &'a [u8],
    /// First valid second.
    pub not_before: UnixSeconds,
    /// Last valid second.
    pub not_after: UnixSeconds,
    /// SubjectPublicKeyInfo (DER).
    pub spki: &'a [u8],
    /// The key in it.
    pub key: PublicKey<'a>,
    /// basicConstraints: whether it is an authority, and its path length. `None` where the extension is absent.
    pub basic_constraints: Option<(bool, Option<u64>)>,
    /// keyUsage, see [`usage`]. `None` where the extension is absent.
    pub key_usage: Option<u16>,
    /// Every extension.
    pub extensions: Vec<Extension<'a>>,
    /// Algorithm of the signature.
    pub algorithm: SignatureAlgorithm,
    /// Signature.
    pub signature: &'a [u8],
}

const WHAT: &str = "a certificate";

impl<'a> Certificate<'a> {
    /// Parses one certificate that must fill `raw`.
    ///
    /// # Errors
    /// [`Reject`] for anything but a version 3 certificate in DER with a known key and signature algorithm, unique
    /// extensions and equal inner and outer algorithms.
    pub fn parse(raw: &'a [u8]) -> Result<Self, Reject> {
        if raw.len() > MAX_CERTIFICATE {
            return Err(Reject::TooLong {
                what: WHAT,
                limit: MAX_CERTIFICATE,
                got: raw.len(),
            });
        }
        let mut outer = Der::only(WHAT, raw, tag::SEQUENCE)?;
        let tbs = outer.expect(tag::SEQUENCE)?;
        let outer_algorithm = outer.expect(tag::SEQUENCE)?;
        let signature = outer.whole_bits()?;
        outer.end()?;

        let mut body = Der::new(WHAT, tbs.value);
        let mut version = body.enter(tag::context(0))?;
        let number = version.u64()?;
        version.end()?;
        if number != 2 {
            return Err(Reject::Version {
                what: WHAT,
                expected: "2 (X.509 v3)",
                got: number,
            });
        }
        // Read as an integer of any sign: AMD's and others' serials are not always positive.
        let serial = body.expect(tag::INTEGER)?.value;
        let inner_algorithm = body.expect(tag::SEQUENCE)?;
        if inner_algorithm.raw != outer_algorithm.raw {
            return Err(Reject::Algorithm {
                what: "the outside of a certificate",
                expected: "the one inside",
            });
        }
        let algorithm = signature_algorithm(outer_algorithm.value)?;
        let issuer = body.expect(tag::SEQUENCE)?.raw;
        let mut validity = body.enter(tag::SEQUENCE)?;
        let (not_before, not_after) = (validity.time()?, validity.time()?);
        validity.end()?;
        let subject = body.expect(tag::SEQUENCE)?.raw;
        let spki = body.expect(tag::SEQUENCE)?;
        let key = public_key(spki.value)?;
        let extensions = match body.optional(tag::context(3))? {
            Some(wrapper) => extensions(wrapper.value)?,
            None => Vec::new(),
        };
        body.end()?;

        let find = |wanted: &[u8]| extensions.iter().find(|extension| extension.oid == wanted);
        let basic_constraints = find(oid::BASIC_CONSTRAINTS)
            .map(|e| basic_constraints(e.value))
            .transpose()?;
        let key_usage = find(oid::KEY_USAGE).map(|e| key_usage(e.value)).transpose()?;
        Ok(Self {
            raw,
            tbs: tbs.raw,
            serial,
            issuer,
            subject,
            not_before,
            not_after,
            spki: spki.raw,
            key,
            basic_constraints,
            key_usage,
            extensions,
            algorithm,
            signature,
        })
    }

    /// The extension of an object identifier (contents octets).
    #[must_use]
    pub fn extension(&self, wanted: &[u8]) -> Option<&Extension<'a>> {
        self.extensions.iter().find(|extension| extension.oid == wanted)
    }

    /// Whether it may issue certificates: authority flag set, and keyCertSign where key usage is given.
    #[must_use]
    pub fn is_authority(&self) -> bool {
        matches!(self.basic_constraints, Some((true, _)))
    }

    /// Whether its signature verifies under `issuer`'s key.
    #[must_use]
    pub fn is_signed_by(&self, issuer: &PublicKey<'_>) -> bool {
        issuer.verifies(self.algorithm, self.tbs, self.signature)
    }

    /// That `at` lies within the validity, both ends included.
    ///
    /// # Errors
    /// [`Reject::CertNotYetValid`], [`Reject::CertExpired`]; `what` names the certificate in them.
    pub fn check_validity(&self, what: &'static str, at: UnixSeconds) -> Result<(), Reject> {
        if at < self.not_before {
            return Err(Reject::CertNotYetValid {
                what,
                not_before: self.not_before,
                at,
            });
        }
        if at > self.not_after {
            return Err(Reject::CertExpired {
                what,
                not_after: self.not_after,
                at,
            });
        }
        Ok(())
    }
}

pub(crate) fn signature_algorithm(value: &[u8]) -> Result<SignatureAlgorithm, Reject> {
    const EXPECTED: &str = "ECDSA with SHA-256 or SHA-384, or RSASSA-PSS with SHA-384";
    let refuse = Reject::CertAlgorithm {
        what: WHAT,
        expected: EXPECTED,
    };
    let mut der = Der::new(WHAT, value);
    match der.oid()? {
        oid::ECDSA_SHA256 => der.end().map(|()| SignatureAlgorithm::EcdsaSha256),
        oid::ECDSA_SHA384 => der.end().map(|()| SignatureAlgorithm::EcdsaSha384),
        oid::RSA_PSS => {
            let parameters = der.expect(tag::SEQUENCE)?;
            der.end()?;
            if pss_sha384(parameters.value)? {
                Ok(SignatureAlgorithm::RsaPssSha384)
            } else {
                Err(refuse)
            }
        }
        _ => Err(refuse),
    }
}

/// Whether the parameters of RFC 4055 §3.1 say SHA-384, MGF1 with SHA-384, salt of 48 bytes.
fn pss_sha384(parameters: &[u8]) -> Result<bool, Reject> {
    let mut der = Der::new(WHAT, parameters);
    let mut hash = der.enter(tag::context(0))?.enter(tag::SEQUENCE)?;
    let sha384 = hash.oid()? == oid::SHA384 && hash_parameters(&hash);
    let mut mask = der.enter(tag::context(1))?.enter(tag::SEQUENCE)?;
    let mgf1 = mask.oid()? == oid::MGF1;
    let mut inner = mask.enter(tag::SEQUENCE)?;
    let inner384 = inner.oid()? == oid::SHA384 && hash_parameters(&inner);
    let salt = der.enter(tag::context(2))?.u64()?;
    // The trailer field's only value is its default, some encoders write it.
    let trailer = match der.optional(tag::context(3))? {
        Some(element) => Der::new(WHAT, element.value).u64()?,
        None => 1,
    };
    der.end()?;
    Ok(sha384 && mgf1 && inner384 && salt == 48 && trailer == 1)
}

/// A hash algorithm's parameters: absent or NULL.
fn hash_parameters(after_oid: &Der<'_>) -> bool {
    let mut der = after_oid.clone();
    der.is_empty() || (der.expect(tag::NULL).is_ok_and(|null| null.value.is_empty()) && der.is_empty())
}

fn public_key(value: &[u8]) -> Result<PublicKey<'_>, Reject> {
    let refuse = Reject::CertAlgorithm {
        what: "a certificate's key",
        expected: "P-256, P-384 or RSA",
    };
    let mut der = Der::new(WHAT, value);
    let mut algorithm = der.enter(tag::SEQUENCE)?;
    let bits = der.whole_bits()?;
    der.end()?;
    match algorithm.oid()? {
        oid::EC_PUBLIC_KEY => {
            let curve = algorithm.oid()?;
            algorithm.end()?;
            match (curve, bits.len(), bits.first()) {
                (oid::P256, 65, Some(4)) => Ok(PublicKey::P256(bits)),
                (oid::P384, 97, Some(4)) => Ok(PublicKey::P384(bits)),
                _ => Err(refuse),
            }
        }
        oid::RSA => {
            algorithm.expect(tag::NULL)?;
            algorithm.end()?;
            Ok(PublicKey::Rsa(bits))
        }
        // AMD's older roots name RSASSA-PSS as the key's algorithm as well.
        oid::RSA_PSS => Ok(PublicKey::Rsa(bits)),
        _ => Err(refuse),
    }
}
