//! Signatures that were found good before need not be computed again.
//!
//! A judgement of a quote checks ten or so ECDSA signatures, and all but three of them belong to the collateral and to the platform's
//! chain: the same for every quote of a platform until the collateral is renewed. Whether a signature is valid depends on the key, the
//! message and the signature alone, on no time and no other input. So a set of such triples that were found valid can answer for them;
//! **every other check is made each time**: dates, names, chains, revocation, identity, TCB level, and which key has to have signed
//! what. A set can only ever skip a computation whose result is known.

use dcap_qvl::{
    config::{Config, CryptoProvider},
    crypto::RingCrypto,
    signature::DerSigEncoder,
    x509::X509CertBackend,
};
use rustls_pki_types::{AlgorithmIdentifier, FipsStatus, InvalidSignature, SignatureVerificationAlgorithm};
use sha2::{Digest as _, Sha256};
use std::{cell::RefCell, collections::BTreeSet, sync::Arc};

/// Most signatures that one set remembers: a judgement makes a dozen.
pub(super) const MAX_REMEMBERED: usize = 256;

/// Valid signatures by the SHA-256 of key, message and signature. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownSignatures(Arc<BTreeSet<[u8; 32]>>);

impl KnownSignatures {
    /// How many are known.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets everything once there is hardly room for another judgement's: collateral is renewed every few weeks, so what was learned
    /// long ago is of no use.
    #[must_use]
    pub fn with_room(self) -> Self {
        if self.len() + 16 > MAX_REMEMBERED {
            Self::default()
        } else {
            self
        }
    }

    /// Takes signatures that were found valid; beyond [`MAX_REMEMBERED`] nothing is added, which costs time only.
    fn add(&mut self, valid: Vec<[u8; 32]>) {
        if valid.is_empty() {
            return;
        }
        let set = Arc::make_mut(&mut self.0);
        for digest in valid {
            if set.len() >= MAX_REMEMBERED {
                return;
            }
            set.insert(digest);
        }
    }
}

/// The library's audited configuration, but for the memory in front of its signature check.
pub(super) struct Remembering;

impl Config for Remembering {
    type X509 = X509CertBackend;
    type SigEncoder = DerSigEncoder;
    type Crypto = Self;
}

impl CryptoProvider for Remembering {
    fn sig_algo() -> &'static dyn SignatureVerificationAlgorithm {
        &EcdsaP256
    }

    fn sha256(data: &[u8]) -> [u8; 32] {
        RingCrypto::sha256(data)
    }

    fn sha384(data: &[u8]) -> [u8; 48] {
        RingCrypto::sha384(data)
    }
}

/// ECDSA P-256 with SHA-256 of *ring*, asked only for what is not known.
#[derive(Debug)]
struct EcdsaP256;

impl SignatureVerificationAlgorithm for EcdsaP256 {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let digest = digest(public_key, message, signature);
        if CURRENT.with_borrow(|current| current.known.0.contains(&digest)) {
            return Ok(());
        }
        RingCrypto::sig_algo().verify_signature(public_key, message, signature)?;
        CURRENT.with_borrow_mut(|current| {
            if current.valid.len() < MAX_REMEMBERED {
                current.valid.push(digest);
            }
        });
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        RingCrypto::sig_algo().public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        RingCrypto::sig_algo().signature_alg_id()
    }

    fn fips_status(&self) -> FipsStatus {
        RingCrypto::sig_algo().fips_status()
    }
}

/// Every part behind its length, so that no two triples are the same bytes.
fn digest(public_key: &[u8], message: &[u8], signature: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [public_key, message, signature] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// The library takes its algorithm as a type, so what belongs to one judgement waits here while it runs.
#[derive(Debug, Default)]
struct Current {
    known: KnownSignatures,
    valid: Vec<[u8; 32]>,
}

thread_local! {
    static CURRENT: RefCell<Current> = RefCell::default();
}

/// Takes what belongs to one judgement off the thread again, however it ends.
struct Scope;

impl Drop for Scope {
    fn drop(&mut self) {
        CURRENT.set(Current::default());
    }
}

/// Runs a judgement with what is known.
pub(super) fn with<T>(known: &KnownSignatures, judge: impl FnOnce() -> T) -> T {
    let _scope = Scope;
    CURRENT.set(Current {
        known: known.clone(),
        valid: Vec::new(),
    });
    judge()
}

/// Runs a judgement, and remembers the signatures that it found valid if it comes to a good end: what a stranger's bad
/// quote brings along must not fill the set.
pub(super) fn learning<T, E>(known: &mut KnownSignatures, judge: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let _scope = Scope;
    CURRENT.set(Current {
        known: known.clone(),
        valid: Vec::new(),
    });
    let found = judge()?;
    known.add(CURRENT.with_borrow_mut(|current| std::mem::take(&mut current.valid)));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_triple_is_known_and_nothing_stays_on_the_thread() {
        let parts = [(&b"key"[..], &b"message"[..], &b"signature"[..])];
        let known = {
            let mut known = KnownSignatures::default();
            known.add(
                parts
                    .iter()
                    .map(|(key, message, signature)| digest(key, message, signature))
                    .collect(),
            );
            known
        };
        let ask = |key: &[u8], message: &[u8], signature: &[u8]| {
            with(&known, || {
                Remembering::sig_algo()
                    .verify_signature(key, message, signature)
                    .is_ok()
            })
        };
        // No valid signature at all: only the memory can say yes to it.
        assert!(ask(b"key", b"message", b"signature"));
        for (key, message, signature) in [
            (&b"kez"[..], &b"message"[..], &b"signature"[..]),
            (b"key", b"messagf", b"signature"),
            (b"key", b"message", b"signaturf"),
            (b"keym", b"essage", b"signature"),
            (b"key", b"messages", b"ignature"),
            (b"", b"keymessage", b"signature"),
        ] {
            assert!(!ask(key, message, signature));
        }
        assert!(
            Remembering::sig_algo()
                .verify_signature(b"key", b"message", b"signature")
                .is_err()
        );
    }

    #[test]
    fn a_judgement_that_fails_teaches_nothing_and_the_set_is_bounded() {
        let mut known = KnownSignatures::default();
        let failed: Result<(), ()> = learning(&mut known, || {
            CURRENT.with_borrow_mut(|current| current.valid.push([1; 32]));
            Err(())
        });
        assert!(failed.is_err() && known.is_empty());
        known.add(
            (0..2 * MAX_REMEMBERED as u64)
                .map(|i| {
                    let mut digest = [0; 32];
                    digest[..8].copy_from_slice(&i.to_be_bytes());
                    digest
                })
                .collect(),
        );
        assert_eq!(known.len(), MAX_REMEMBERED);
    }
}
