//! Path check of vendor chains, and memory of links checked before.

use super::{Certificate, SignatureAlgorithm, oid, usage};
use crate::{claims::UnixSeconds, reject::Reject};
use std::collections::BTreeSet;

/// Links `certificate signed by issuer` whose signatures were verified before, so that they need not be again.
///
/// A link is named by both certificates' bytes, so a remembered one is exactly as good as the check itself. Dates,
/// names and constraints are always checked anew.
#[derive(Debug, Clone, Default)]
pub struct VerifiedLinks(BTreeSet<[u8; 32]>);

impl VerifiedLinks {
    /// Most links kept; more are not remembered.
    pub const CAPACITY: usize = 4_096;

    fn name(certificate: &Certificate<'_>, issuer: &Certificate<'_>) -> [u8; 32] {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        hash.update(Sha256::digest(certificate.raw));
        hash.update(Sha256::digest(issuer.raw));
        hash.finalize().into()
    }

    /// Number of links remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn contains(&self, certificate: &Certificate<'_>, issuer: &Certificate<'_>) -> bool {
        !self.0.is_empty() && self.0.contains(&Self::name(certificate, issuer))
    }

    /// Remembers the links between authorities of a chain (leaf first) that [`verify_chain`] accepted. The leaf's own
    /// link is left out: leaves live for hours and are many.
    pub(crate) fn remember(&mut self, chain: &[Certificate<'_>]) {
        for pair in chain.get(1..).unwrap_or_default().windows(2) {
            if let [certificate, issuer] = pair
                && self.0.len() < Self::CAPACITY
            {
                self.0.insert(Self::name(certificate, issuer));
            }
        }
    }
}

/// What a vendor's chains look like.
#[derive(Debug, Clone, Copy)]
pub struct ChainRules<'a> {
    /// Fewest certificates, leaf and root included.
    pub min: usize,
    /// Most certificates, leaf and root included.
    pub max: usize,
    /// Allowed signature algorithms.
    pub algorithms: &'a [SignatureAlgorithm],
    /// The same for people.
    pub expected: &'static str,
    /// Critical extensions understood besides basicConstraints and keyUsage (contents octets).
    pub critical: &'a [&'a [u8]],
    /// Whether every certificate must carry key usage. Where it is given, it always counts.
    pub key_usage: bool,
    /// Whether a leaf with key usage must have digitalSignature.
    pub leaf_usage: bool,
}

/// Names of certificates by their place above the leaf.
const PLACES: [&str; 6] = [
    "the signing certificate",
    "the first authority above it",
    "the second authority above it",
    "the third authority above it",
    "the fourth authority above it",
    "an authority further up",
];

fn place(index: usize) -> &'static str {
    PLACES.get(index).copied().unwrap_or("an authority further up")
}

/// Window in which a whole chain is valid: latest start, earliest end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First valid second.
    pub not_before: UnixSeconds,
    /// Last valid second.
    pub not_after: UnixSeconds,
}

/// Checks a chain, leaf first, whose last certificate the caller has compared with a pinned anchor byte by byte.
///
/// Order of checks: number, duplicates, names, algorithms, critical extensions, authority flags, path lengths, key
/// usage, dates, and last (they cost most) the signatures. The anchor's own signature is not checked: it is trusted by
/// its bytes.
///
/// # Errors
/// The first failure.
pub fn verify_chain(
    chain: &[Certificate<'_>],
    rules: &ChainRules<'_>,
    at: UnixSeconds,
    known: &VerifiedLinks,
) -> Result<Window, Reject> {
    if chain.len() < rules.min {
        return Err(Reject::ChainIncomplete {
            expected: rules.min,
            got: chain.len(),
        });
    }
    if chain.len() > rules.max {
        return Err(Reject::ChainTooLong {
            limit: rules.max,
            got: chain.len(),
        });
    }
    let raws: BTreeSet<&[u8]> = chain.iter().map(|certificate| certificate.raw).collect();
    if raws.len() != chain.len() {
        return Err(Reject::Duplicate {
            what: "a certificate of the chain",
        });
    }
    let mut window = Window {
        not_before: 0,
        not_after: UnixSeconds::MAX,
    };
    for (index, certificate) in chain.iter().enumerate() {
        check_one(certificate, index, rules)?;
        if let Some(issuer) = chain.get(index.saturating_add(1))
            && issuer.subject != certificate.issuer
        {
            return Err(Reject::ChainNames { what: place(index) });
        }
        window.not_before = window.not_before.max(certificate.not_before);
        window.not_after = window.not_after.min(certificate.not_after);
    }
    for (index, certificate) in chain.iter().enumerate() {
        certificate.check_validity(place(index), at)?;
    }
    // From the root down, so that the highest broken link is named.
    for (index, pair) in chain.windows(2).enumerate().rev() {
        if let [certificate, issuer] = pair
            && !known.contains(certificate, issuer)
            && !certificate.is_signed_by(&issuer.key)
        {
            return Err(Reject::CertSignature { what: place(index) });
        }
    }
    Ok(window)
}

fn check_one(certificate: &Certificate<'_>, index: usize, rules: &ChainRules<'_>) -> Result<(), Reject> {
    let what = place(index);
    if !rules.algorithms.contains(&certificate.algorithm) {
        return Err(Reject::CertAlgorithm {
            what,
            expected: rules.expected,
        });
    }
    let known = |oid: &[u8]| oid == oid::BASIC_CONSTRAINTS || oid == oid::KEY_USAGE || rules.critical.contains(&oid);
    if certificate
        .extensions
        .iter()
        .any(|extension| extension.critical && !known(extension.oid))
    {
        return Err(Reject::CriticalExtension { what });
    }
    if rules.key_usage && certificate.key_usage.is_none() {
        return Err(Reject::KeyUsage {
            what,
            needed: "its extension",
        });
    }
    let lacks = |bit| certificate.key_usage.is_some_and(|bits| bits & bit == 0);
    if index == 0 {
        if certificate.is_authority() {
            return Err(Reject::LeafIsCa);
        }
        if rules.leaf_usage && lacks(usage::DIGITAL_SIGNATURE) {
            return Err(Reject::KeyUsage {
                what,
                needed: "digitalSignature",
            });
        }
        return Ok(());
    }
    let Some((true, path)) = certificate.basic_constraints else {
        return Err(Reject::NotACa { what });
    };
    // Authorities between this one and the leaf.
    let below = (index as u64).saturating_sub(1);
    if let Some(limit) = path.filter(|limit| below > *limit) {
        return Err(Reject::PathLength { what, limit });
    }
    if lacks(usage::CERT_SIGN) {
        return Err(Reject::KeyUsage {
            what,
            needed: "keyCertSign",
        });
    }
    Ok(())
}
