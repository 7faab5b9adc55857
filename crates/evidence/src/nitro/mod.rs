//! AWS Nitro Enclaves attestation documents.
//!
//! Stricter than AWS asks: exactly one CBOR item (tag 18 optional) and nothing after it, header ES384 alone, no unknown
//! or repeated field, registers of 48 bytes with PCR0 to PCR2 present, chain of P-384 keys and SHA-384 signatures from
//! the pinned root with authority flags, path lengths and key usage. Every real document known to us passes.

mod cbor;
mod document;
mod nitriding;

pub use document::{Document, MAX_BUNDLE, MAX_CERTIFICATE, MAX_DOCUMENT, PCR_BYTES};
pub use nitriding::{NITRIDING_BYTES, NitridingUserData};

use crate::{
    claims::{Claims, HexBytes, Kind, Measurement, Signer, TcbVerdict, UnixSeconds},
    identity::{EcdsaSignature, evidence_id},
    reject::Reject,
    roots::{RootGrade, TrustRoots, Verdict},
    verifier::EvidenceVerifier,
    x509::{Certificate, ChainRules, PublicKey, SignatureAlgorithm, VerifiedLinks, Window, verify_chain},
};
use document::Sign1;

const RULES: ChainRules<'static> = ChainRules {
    min: 2,
    max: MAX_BUNDLE + 1,
    algorithms: &[SignatureAlgorithm::EcdsaSha384],
    expected: "ECDSA P-384 with SHA-384",
    critical: &[],
    key_usage: true,
    leaf_usage: true,
};

/// Verifies attestation documents. Holds links between AWS's authorities verified before, which saves three of five
/// signature checks; without them it gives the same answers.
#[derive(Debug, Clone, Default)]
pub struct NitroVerifier {
    links: VerifiedLinks,
}

/// Length of the CBOR item at the start of `bytes`: to cut a document out of a wrapper before it is verified.
///
/// # Errors
/// [`Reject`] if no well-formed item starts there.
pub fn item_length(bytes: &[u8]) -> Result<usize, Reject> {
    let mut cbor = cbor::Cbor::new("the wrapped document", bytes);
    cbor.skip(1)?;
    Ok(cbor.at())
}

impl NitroVerifier {
    /// A verifier that remembers nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Verifies a document and remembers the links between the authorities of its chain.
    ///
    /// # Errors
    /// As [`EvidenceVerifier::verify`]; nothing is remembered then.
    pub fn remember<G: RootGrade>(
        &mut self,
        raw: &[u8],
        roots: &TrustRoots<G>,
        at: UnixSeconds,
    ) -> Result<Verdict<G>, Reject> {
        let verdict = self.verify(raw, &(), roots, at)?;
        let sign1 = Sign1::parse(raw)?;
        let document = Document::parse(sign1.payload)?;
        let chain = chain(&document)?;
        self.links.remember(&chain);
        Ok(verdict)
    }

    /// Number of remembered links.
    #[must_use]
    pub fn remembered(&self) -> usize {
        self.links.len()
    }
}

impl EvidenceVerifier for NitroVerifier {
    const KIND: Kind = Kind::Nitro;
    /// A document carries its whole chain.
    type Collateral = ();

    fn verify<G: RootGrade>(
        &self,
        raw: &[u8],
        _collateral: &(),
        roots: &TrustRoots<G>,
        at: UnixSeconds,
    ) -> Result<Verdict<G>, Reject> {
        let sign1 = Sign1::parse(raw)?;
        let document = Document::parse(sign1.payload)?;
        let chain = chain(&document)?;
        let root = document.cabundle.first().copied().unwrap_or_default();
        if roots.find(Kind::Nitro, root).is_none() {
            return Err(Reject::RootNotPinned {
                kind: Kind::Nitro.as_str(),
            });
        }
        let window = verify_chain(&chain, &RULES, at, &self.links)?;
        let signer = chain.first().map(|leaf| leaf.key);
        if !signer.is_some_and(|key| key.verifies_p384_fixed(&sign1.to_be_signed(), sign1.signature)) {
            return Err(Reject::Signature {
                what: "the attestation document",
            });
        }
        Ok(Verdict::new(claims(&document, sign1, window), roots))
    }
}

/// Certificates of a document, leaf first, all of them P-384.
fn chain<'a>(document: &Document<'a>) -> Result<Vec<Certificate<'a>>, Reject> {
    let ders = std::iter::once(document.certificate).chain(document.cabundle.iter().rev().copied());
    let chain: Vec<Certificate<'a>> = ders.map(Certificate::parse).collect::<Result<_, _>>()?;
    match chain
        .iter()
        .all(|certificate| matches!(certificate.key, PublicKey::P384(_)))
    {
        true => Ok(chain),
        false => Err(Reject::CertAlgorithm {
            what: "a certificate's key",
            expected: "P-384",
        }),
    }
}

fn claims(document: &Document<'_>, sign1: Sign1<'_>, window: Window) -> Claims {
    let mut measurement = Measurement::default();
    for (index, value) in document.pcrs.iter().enumerate() {
        if let Some(value) = value {
            measurement.set(format!("pcr{index}"), value.as_slice());
        }
    }
    Claims {
        kind: Kind::Nitro,
        format: "nitro".to_owned(),
        measurement,
        bound: HexBytes::from(document.user_data.unwrap_or_default()),
        nonce: document.nonce.map(HexBytes::from),
        public_key: document.public_key.map(HexBytes::from),
        tcb: TcbVerdict::not_applicable(),
        debug: document.is_debug(),
        smt: None,
        vmpl: None,
        migratable: None,
        provisional_firmware: None,
        signer: Signer::ModuleId(document.module_id.to_owned()),
        issued_at: Some(document.timestamp_ms / 1_000),
        not_before: window.not_before,
        not_after: window.not_after,
        evidence_id: evidence_id(Kind::Nitro, sign1.payload, EcdsaSignature::P384(sign1.signature)),
    }
}
