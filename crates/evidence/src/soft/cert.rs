//! Keys and certificates of the software attester, deterministic from a seed.

use super::encode::{basic_constraints, bits, extension, integer, key_usage, name, sequence, time, tlv};
use crate::{claims::UnixSeconds, der::tag};
use opg_primitives::domain::Tag;
use p384::ecdsa::{Signature, SigningKey, signature::Signer as _};
use sha2::{Digest, Sha384};

const ECDSA_SHA384: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
const EC_P384: &[u8] = &[
    0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22,
];

/// A P-384 key made from a seed; it protects nothing.
#[derive(Clone)]
pub struct SoftKey(SigningKey);

impl std::fmt::Debug for SoftKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SoftKey")
    }
}

impl SoftKey {
    /// The key of a seed and a label.
    #[must_use]
    pub fn derive(seed: &[u8; 32], label: &str) -> Self {
        let mut digest = Sha384::new()
            .chain_update(Tag::SoftwareAttester.as_str())
            .chain_update("/p384/")
            .chain_update(seed)
            .chain_update(label)
            .finalize();
        // A digest is no key with probability 2^-190; the next one is taken then.
        loop {
            if let Ok(key) = SigningKey::from_bytes(&digest) {
                return Self(key);
            }
            digest = Sha384::digest(digest);
        }
    }

    /// `r || s`, deterministic (RFC 6979).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> [u8; 96] {
        let signature: Signature = self.0.sign(message);
        let mut out = [0; 96];
        for (to, from) in out.iter_mut().zip(signature.to_bytes()) {
            *to = from;
        }
        out
    }

    fn sign_der(&self, message: &[u8]) -> Vec<u8> {
        let signature: Signature = self.0.sign(message);
        signature.to_der().as_bytes().to_vec()
    }

    fn spki(&self) -> Vec<u8> {
        sequence(&[
            EC_P384,
            &bits(self.0.verifying_key().to_encoded_point(false).as_bytes()),
        ])
    }
}

/// What a certificate says. Public so that tests can make every wrong one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertSpec {
    /// Common name.
    pub name: String,
    /// First valid second.
    pub not_before: UnixSeconds,
    /// Last valid second.
    pub not_after: UnixSeconds,
    /// Authority flag; `None` leaves basicConstraints out.
    pub authority: Option<bool>,
    /// Path length, for an authority.
    pub path_length: Option<u8>,
    /// Key usage (bits of [`crate::x509::usage`]); `None` leaves it out.
    pub key_usage: Option<u16>,
    /// Further extensions: object identifier (contents octets), critical, value.
    pub extensions: Vec<(Vec<u8>, bool, Vec<u8>)>,
}

impl CertSpec {
    /// The certificate (DER) of `subject` signed by `issuer`.
    #[must_use]
    pub fn issue(&self, subject: &SoftKey, issuer_name: &str, issuer: &SoftKey) -> Vec<u8> {
        let dates = sequence(&[&time(self.not_before), &time(self.not_after)]);
        let serial = Sha384::digest(subject.spki());
        let tbs = sequence(&[
            &tlv(tag::context(0), &integer(&[2])),
            &integer(serial.get(..8).unwrap_or_default()),
            ECDSA_SHA384,
            &labelled(issuer_name),
            &dates,
            &labelled(&self.name),
            &subject.spki(),
            &tlv(tag::context(3), &sequence(&[&self.encoded_extensions()])),
        ]);
        sequence(&[&tbs, ECDSA_SHA384, &bits(&issuer.sign_der(&tbs))])
    }

    fn encoded_extensions(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Some(authority) = self.authority {
            out.extend(basic_constraints(authority, self.path_length));
        }
        if let Some(usage) = self.key_usage {
            out.extend(key_usage(usage));
        }
        for (oid, critical, value) in &self.extensions {
            out.extend(extension(oid, *critical, value));
        }
        out
    }
}

/// A name whose organisation says what it is.
fn labelled(common: &str) -> Vec<u8> {
    name(&[(10, super::ORGANISATION), (3, common)])
}
