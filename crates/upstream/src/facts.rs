//! What is recorded about an answer, so that a receipt can say what this program received from whom.
//!
//! The words for people: "this program received these bytes from a TLS peer that was authenticated as HOST". Nothing here
//! says that the provider ran a certain model.

use crate::answer::Reported;
use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use std::sync::Arc;

/// The TLS peer of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// `TLSv1_3` or `TLSv1_2`.
    pub version: String,
    /// Name of the cipher suite.
    pub cipher_suite: String,
    /// The certificates that the peer sent, DER, its own first. Verified when the connection was made.
    pub chain: Vec<Vec<u8>>,
    /// SHA-256 over the chain, each certificate behind its length in four bytes, big-endian.
    pub chain_sha256: [u8; 32],
    /// SHA-256 of the public key (SubjectPublicKeyInfo, DER) of the peer's own certificate.
    pub spki_sha256: [u8; 32],
}

impl Peer {
    pub(crate) fn new(version: String, cipher_suite: String, chain: &[CertificateDer<'_>]) -> Result<Self, String> {
        let leaf = chain.first().ok_or("the peer sent no certificate")?;
        let parsed = webpki::EndEntityCert::try_from(leaf).map_err(|error| error.to_string())?;
        let spki_sha256 = Sha256::digest(parsed.subject_public_key_info().as_ref()).into();
        Ok(Self {
            version,
            cipher_suite,
            chain_sha256: chain_hash(chain.iter().map(AsRef::as_ref)),
            spki_sha256,
            chain: chain.iter().map(|certificate| certificate.to_vec()).collect(),
        })
    }
}

/// The hash of [`Peer::chain_sha256`].
pub fn chain_hash<'a>(chain: impl Iterator<Item = &'a [u8]>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for certificate in chain {
        hash.update(u32::try_from(certificate.len()).unwrap_or(u32::MAX).to_be_bytes());
        hash.update(certificate);
    }
    hash.finalize().into()
}

/// What is recorded about one exchange with a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Translation that made the request and read the answer.
    pub transform: &'static str,
    /// Host that the peer was authenticated as.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The TLS peer; `None` for a server on this machine without TLS.
    pub peer: Option<Arc<Peer>>,
    /// Path of the request.
    pub path: String,
    /// SHA-256 of the request body that was sent.
    pub request_sha256: [u8; 32],
    /// HTTP status.
    pub status: u16,
    /// The provider's own identifier of the request (`x-request-id`, `request-id`).
    pub request_id: Option<String>,
    /// The provider's date.
    pub date: Option<String>,
    /// SHA-256 of the bytes of the answer's body as they came, before translation.
    pub raw_sha256: [u8; 32],
    /// How many they were.
    pub raw_bytes: u64,
    /// Whether the answer came to its end.
    pub complete: bool,
    /// Response id, model and reason to end, in the provider's words.
    pub reported: Reported,
}
