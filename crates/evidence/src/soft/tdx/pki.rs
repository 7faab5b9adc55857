//! Keys, certificates and revocation lists in the shape of Intel's SGX infrastructure, on P-256 throughout.

use crate::{
    claims::UnixSeconds,
    der::tag,
    soft::{
        MODULE_ID, ORGANISATION,
        encode::{List, bits, extension, integer, name, octets, oid, sequence, time, tlv},
    },
};
use opg_primitives::domain::Tag;
use p256::ecdsa::{Signature, SigningKey, signature::Signer as _};
use sha2::{Digest, Sha256};

/// `AlgorithmIdentifier` of ECDSA with SHA-256.
const ECDSA_SHA256: &[u8] = &[0x30, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// `AlgorithmIdentifier` of an EC key on P-256.
const EC_P256: &[u8] = &[
    0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07,
];
/// Intel's SGX extension, 1.2.840.113741.1.13.1.
const SGX: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01];
/// id-ce-subjectKeyIdentifier, id-ce-authorityKeyIdentifier.
const SUBJECT_KEY_ID: &[u8] = &[0x55, 0x1d, 0x0e];
const AUTHORITY_KEY_ID: &[u8] = &[0x55, 0x1d, 0x23];
/// `[0] IMPLICIT` keyIdentifier.
const KEY_ID: u8 = 0x80;

/// A holder of a P-256 key made from a seed.
#[derive(Clone)]
pub(super) struct Identity {
    key: SigningKey,
    name: Vec<u8>,
    /// Serial number of its certificate.
    pub(super) serial: u8,
}

impl Identity {
    /// The holder with this label and certificate number.
    pub(super) fn derive(seed: &[u8; 32], label: &str, serial: u8) -> Self {
        let mut digest = hash(seed, &format!("key/{label}"));
        // A digest is no key with probability 2^-32; the next one is taken then.
        let key = loop {
            match SigningKey::from_bytes(&digest.into()) {
                Ok(key) => break key,
                Err(_) => digest = Sha256::digest(digest).into(),
            }
        };
        let name = name(&[(10, ORGANISATION), (3, &format!("{MODULE_ID} {label}"))]);
        Self { key, name, serial }
    }

    /// `r || s`, deterministic (RFC 6979).
    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature: Signature = self.key.sign(message);
        signature.to_bytes().into()
    }

    /// `x || y`.
    pub(super) fn point(&self) -> Vec<u8> {
        self.sec1().into_iter().skip(1).collect()
    }

    fn sec1(&self) -> Vec<u8> {
        self.key.verifying_key().to_encoded_point(false).as_bytes().to_vec()
    }

    fn key_id(&self) -> Vec<u8> {
        Sha256::digest(self.sec1()).into_iter().take(20).collect()
    }

    /// What is to be signed, then the algorithm and the signature.
    fn seal(&self, body: &[u8]) -> Vec<u8> {
        let signature: Signature = self.key.sign(body);
        sequence(&[body, ECDSA_SHA256, &bits(signature.to_der().as_bytes())])
    }

    fn authority_key_id(&self) -> Vec<u8> {
        extension(AUTHORITY_KEY_ID, false, &sequence(&[&tlv(KEY_ID, &self.key_id())]))
    }

    /// The certificate (DER) of `subject` with these extensions, signed by this holder.
    pub(super) fn certify(&self, subject: &Self, validity: (UnixSeconds, UnixSeconds), extensions: &[u8]) -> Vec<u8> {
        let key_id = extension(SUBJECT_KEY_ID, false, &octets(&subject.key_id()));
        let extensions = sequence(&[extensions, &key_id, &self.authority_key_id()]);
        self.seal(&sequence(&[
            &tlv(tag::context(0), &integer(&[2])),
            &integer(&[subject.serial]),
            ECDSA_SHA256,
            &self.name,
            &sequence(&[&time(validity.0), &time(validity.1)]),
            &subject.name,
            &sequence(&[EC_P256, &bits(&subject.sec1())]),
            &tlv(tag::context(3), &extensions),
        ]))
    }

    /// The revocation list (DER) of this holder with these serial numbers.
    pub(super) fn revoke(&self, serials: &[u8], issued: UnixSeconds, next_update: UnixSeconds) -> Vec<u8> {
        let more = self.authority_key_id();
        self.seal(
            &List {
                algorithm: ECDSA_SHA256,
                issuer: &self.name,
                serials,
                number: 1,
                this_update: issued,
                next_update,
                more: &more,
            }
            .tbs(),
        )
    }
}

/// 32 bytes of a seed and a purpose.
pub(super) fn hash(seed: &[u8; 32], purpose: &str) -> [u8; 32] {
    Sha256::new()
        .chain_update(Tag::SoftwareAttester.as_str())
        .chain_update("/tdx/")
        .chain_update(seed)
        .chain_update(purpose)
        .finalize()
        .into()
}

/// Intel's extension of a platform certificate: PPID, TCB (16 components, PCESVN, CPUSVN), PCE id, FMSPC, SGX type,
/// platform instance, configuration (Intel, "SGX PCK certificate and CRL profile specification").
pub(super) fn sgx_extension(ppid: &[u8], fmspc: [u8; 6], svn: u8) -> Vec<u8> {
    let pair = |below: &[u8], value: &[u8]| sequence(&[&oid(&[SGX, below].concat()), value]);
    let mut tcb: Vec<u8> = (1..=17).flat_map(|at| pair(&[2, at], &integer(&[svn]))).collect();
    tcb.extend(pair(&[2, 18], &octets(&[svn; 16])));
    // Neither dynamic, nor cached keys, nor multithreading.
    let flags: Vec<u8> = (1..=3).flat_map(|at| pair(&[7, at], &[tag::BOOLEAN, 1, 0])).collect();
    let contents = sequence(&[
        &pair(&[1], &octets(ppid)),
        &pair(&[2], &sequence(&[&tcb])),
        &pair(&[3], &octets(&[0, 0])),
        &pair(&[4], &octets(&fmspc)),
        &pair(&[5], &tlv(tag::ENUMERATED, &[1])),
        &pair(&[6], &octets(ppid)),
        &pair(&[7], &sequence(&[&flags])),
    ]);
    extension(SGX, false, &contents)
}
