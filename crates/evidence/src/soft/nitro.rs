//! Nitro documents of the software attester: AWS's exact format under a development root.

use super::cert::{CertSpec, SoftKey};
use crate::{
    claims::{Kind, UnixSeconds},
    nitro::PCR_BYTES,
    roots::Anchor,
    x509::usage,
};
use opg_primitives::cbor::Encoder;
use std::collections::BTreeMap;

/// Module identifier of every document of the software attester.
pub const MODULE_ID: &str = "SOFTWARE-ATTESTER-NOT-HARDWARE";
/// `{1: -35}`: ES384.
pub const PROTECTED_ES384: &[u8] = &[0xa1, 0x01, 0x38, 0x22];

/// Makes documents that verify under its own development root and under no other.
#[derive(Debug, Clone)]
pub struct SoftNitro {
    /// Certificates, root first, the signing one last, with their keys. Change a specification and documents change.
    pub chain: Vec<(CertSpec, SoftKey)>,
    /// Registers.
    pub pcrs: BTreeMap<u64, Vec<u8>>,
}

/// What goes into a document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NitroRequest {
    /// When it is made, milliseconds since 1970.
    pub timestamp_ms: u64,
    /// User data, at most 512 bytes.
    pub user_data: Option<Vec<u8>>,
    /// Nonce, at most 512 bytes.
    pub nonce: Option<Vec<u8>>,
    /// Public key, 1 to 1 024 bytes.
    pub public_key: Option<Vec<u8>>,
}

impl SoftNitro {
    /// An attester of a seed: a root, two authorities and a signing certificate, all valid from `not_before` to
    /// `not_after`, registers 0 to 2 set to values of the seed (no debug enclave), the rest zero.
    #[must_use]
    pub fn new(seed: &[u8; 32], not_before: UnixSeconds, not_after: UnixSeconds) -> Self {
        let spec = |name: &str, authority: bool, path_length| CertSpec {
            name: format!("{MODULE_ID} {name}"),
            not_before,
            not_after,
            authority: Some(authority),
            path_length,
            key_usage: Some(if authority {
                usage::CERT_SIGN | usage::CRL_SIGN
            } else {
                usage::DIGITAL_SIGNATURE
            }),
            extensions: Vec::new(),
        };
        let certificates = [
            spec("root", true, None),
            spec("region", true, Some(1)),
            spec("zone", true, Some(0)),
            spec("enclave", false, None),
        ];
        let chain = certificates.map(|spec| {
            let key = SoftKey::derive(seed, &spec.name);
            (spec, key)
        });
        let register = |index: u64| match index {
            0..=2 => SoftKey::derive(seed, &format!("pcr{index}"))
                .sign(b"register")
                .into_iter()
                .take(PCR_BYTES)
                .collect(),
            _ => vec![0; PCR_BYTES],
        };
        Self {
            chain: chain.into(),
            pcrs: (0..16).map(|index| (index, register(index))).collect(),
        }
    }

    /// Certificates (DER), root first.
    #[must_use]
    pub fn certificates(&self) -> Vec<Vec<u8>> {
        let issuers = self.chain.iter().take(1).chain(&self.chain);
        let issue = |((spec, key), (above, signer)): (&(CertSpec, SoftKey), &(CertSpec, SoftKey))| {
            spec.issue(key, &above.name, signer)
        };
        self.chain.iter().zip(issuers).map(issue).collect()
    }

    /// The development root.
    #[must_use]
    pub fn anchor(&self) -> Anchor {
        let root = self.chain.first().map(|(spec, key)| spec.issue(key, &spec.name, key));
        Anchor::new(Kind::Nitro, MODULE_ID, root.unwrap_or_default())
    }

    /// A document.
    #[must_use]
    pub fn document(&self, request: &NitroRequest) -> Vec<u8> {
        self.seal(PROTECTED_ES384, &[0xa0], &self.payload(request))
    }

    /// The payload alone, in the field order of the Nitro security module.
    #[must_use]
    pub fn payload(&self, request: &NitroRequest) -> Vec<u8> {
        let certificates = self.certificates();
        let (leaf, bundle) = certificates
            .split_last()
            .map_or((&[][..], &[][..]), |(leaf, rest)| (leaf.as_slice(), rest));
        let mut cbor = Encoder::with_capacity(4_096);
        cbor.map(9);
        cbor.text("module_id").text(MODULE_ID);
        cbor.text("digest").text("SHA384");
        cbor.text("timestamp").uint(request.timestamp_ms);
        cbor.text("pcrs").map(self.pcrs.len());
        for (index, value) in &self.pcrs {
            cbor.uint(*index).bytes(value);
        }
        cbor.text("certificate").bytes(leaf);
        cbor.text("cabundle").array(bundle.len());
        for der in bundle {
            cbor.bytes(der);
        }
        for (key, value) in [
            ("public_key", &request.public_key),
            ("user_data", &request.user_data),
            ("nonce", &request.nonce),
        ] {
            cbor.text(key);
            match value {
                Some(bytes) => cbor.bytes(bytes),
                None => cbor.null(),
            };
        }
        cbor.finish()
    }

    /// A COSE_Sign1 of any headers (`unprotected` is encoded CBOR) and payload, signed by the last key of the chain.
    #[must_use]
    pub fn seal(&self, protected: &[u8], unprotected: &[u8], payload: &[u8]) -> Vec<u8> {
        let mut signed = Encoder::with_capacity(payload.len() + 64);
        signed
            .array(4)
            .text("Signature1")
            .bytes(protected)
            .bytes(&[])
            .bytes(payload);
        let signature = self.chain.last().map_or([0; 96], |(_, key)| key.sign(&signed.finish()));
        let mut head = Encoder::new();
        head.array(4).bytes(protected);
        let mut rest = Encoder::with_capacity(payload.len() + 128);
        rest.bytes(payload).bytes(&signature);
        [head.finish().as_slice(), unprotected, &rest.finish()].concat()
    }
}
