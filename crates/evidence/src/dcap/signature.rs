//! Signature layer of a quote without collateral: quote signature, quoting enclave's report, binding of the attestation
//! key, platform chain up to a pinned Intel root.
//!
//! It is also the second implementation with which `dcap-qvl` is compared. It cannot say whether the platform is
//! patched, revoked, or its quoting enclave Intel's newest, so what it returns is never a verdict.

use super::{body, quote::Quote};
use crate::{
    claims::{Claims, UnixSeconds},
    der::{Der, tag},
    pem,
    reject::Reject,
    roots::{Anchor, RootGrade, TrustRoots},
    x509::{Certificate, ChainRules, PublicKey, SignatureAlgorithm, VerifiedLinks, verify_chain},
};
use sha2::{Digest, Sha256};

const RULES: ChainRules<'static> = ChainRules {
    min: 3,
    max: 3,
    algorithms: &[SignatureAlgorithm::EcdsaSha256],
    expected: "ECDSA P-256 with SHA-256",
    critical: &[],
    key_usage: true,
    leaf_usage: true,
};
/// Intel's SGX extension of a platform certificate, 1.2.840.113741.1.13.1.
const SGX_EXTENSION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01];
/// PPID inside it, 1.2.840.113741.1.13.1.1.
const PPID: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01, 0x01];

/// Certificates of the platform's chain, leaf first.
fn certificates(quote: &Quote<'_>) -> Result<Vec<Vec<u8>>, Reject> {
    // Intel's libraries end the text with a zero byte.
    pem::certificates(quote.chain.strip_suffix(&[0]).unwrap_or(quote.chain), RULES.max)
}

fn root<'r, G: RootGrade>(quote: &Quote<'_>, ders: &[Vec<u8>], roots: &'r TrustRoots<G>) -> Result<&'r Anchor, Reject> {
    ders.last()
        .and_then(|der| roots.find(quote.kind, der))
        .ok_or(Reject::RootNotPinned {
            kind: quote.kind.as_str(),
        })
}

/// The anchor that the quote's own chain ends in.
///
/// # Errors
/// [`Reject`] for a chain that is no PEM text or ends in another root.
pub(super) fn anchor<'r, G: RootGrade>(quote: &Quote<'_>, roots: &'r TrustRoots<G>) -> Result<&'r Anchor, Reject> {
    root(quote, &certificates(quote)?, roots)
}

/// Checks every signature of a quote up to a pinned root.
///
/// # Errors
/// The first failure.
pub(super) fn check<G: RootGrade>(quote: &Quote<'_>, roots: &TrustRoots<G>, at: UnixSeconds) -> Result<Claims, Reject> {
    let ders = certificates(quote)?;
    root(quote, &ders, roots)?;
    let chain: Vec<Certificate<'_>> = ders
        .iter()
        .map(|der| Certificate::parse(der))
        .collect::<Result<_, _>>()?;
    let window = verify_chain(&chain, &RULES, at, &VerifiedLinks::default())?;
    let leaf = chain.first().ok_or(Reject::ChainIncomplete {
        expected: RULES.min,
        got: 0,
    })?;
    if !leaf.key.verifies_p256_fixed(quote.qe_report, quote.qe_signature) {
        return Err(Reject::QeReportSignature);
    }
    let digest = Sha256::new()
        .chain_update(quote.attestation_key)
        .chain_update(quote.qe_auth)
        .finalize();
    let bound = quote.qe_report.get(320..).unwrap_or_default();
    if bound
        .strip_prefix(digest.as_slice())
        .is_none_or(|rest| rest.iter().any(|byte| *byte != 0))
    {
        return Err(Reject::QeKeyBinding);
    }
    let mut point = [4u8; 65];
    if let Some((_, rest)) = point.split_first_mut() {
        rest.copy_from_slice(quote.attestation_key);
    }
    if !PublicKey::P256(&point).verifies_p256_fixed(quote.signed, quote.signature) {
        return Err(Reject::Signature { what: "the quote" });
    }
    body::claims(quote, ppid(leaf)?, window)
}

/// Platform provisioning identifier of a PCK certificate.
fn ppid<'a>(leaf: &Certificate<'a>) -> Result<&'a [u8], Reject> {
    const WHAT: &str = "Intel's SGX extension";
    let missing = Reject::CertExtension {
        what: "PPID of Intel's SGX extension",
    };
    let extension = leaf.extension(SGX_EXTENSION).ok_or(missing.clone())?;
    let mut list = Der::only(WHAT, extension.value, tag::SEQUENCE)?;
    while !list.is_empty() {
        let mut item = list.enter(tag::SEQUENCE)?;
        if item.oid()? == PPID {
            return item.expect(tag::OCTET_STRING).map(|element| element.value);
        }
    }
    Err(missing)
}
