//! Certificate revocation lists (RFC 5280 section 5), as AMD's roots and Intel's authorities sign them.

use super::{Certificate, SignatureAlgorithm, Window, signature_algorithm, usage};
use crate::{
    claims::UnixSeconds,
    der::{Der, tag},
    reject::Reject,
};

const WHAT: &str = "the revocation list";
/// Longest list read; AMD's and Intel's have under 3,000 bytes.
const MAX_BYTES: usize = 64 * 1024;
/// id-ce-cRLNumber, 2.5.29.20.
const CRL_NUMBER: &[u8] = &[0x55, 0x1d, 0x14];
/// A parsed list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RevocationList<'a> {
    tbs: &'a [u8],
    algorithm: SignatureAlgorithm,
    signature: &'a [u8],
    /// Issuer name (DER).
    pub(crate) issuer: &'a [u8],
    /// When it was made.
    pub(crate) this_update: UnixSeconds,
    next_update: UnixSeconds,
    /// Its number (RFC 5280 §5.2.3); 0 without one, and for one over 64 bits the highest.
    pub(crate) number: u64,
    /// Serial numbers, contents octets.
    revoked: Vec<&'a [u8]>,
}

impl<'a> RevocationList<'a> {
    /// Reads a list of version 2 that must fill `raw`.
    pub(crate) fn parse(raw: &'a [u8]) -> Result<Self, Reject> {
        if raw.len() > MAX_BYTES {
            return Err(Reject::TooLong {
                what: WHAT,
                limit: MAX_BYTES,
                got: raw.len(),
            });
        }
        let mut outer = Der::only(WHAT, raw, tag::SEQUENCE)?;
        let tbs = outer.expect(tag::SEQUENCE)?;
        let algorithm = outer.expect(tag::SEQUENCE)?;
        let signature = outer.whole_bits()?;
        outer.end()?;

        let mut body = Der::new(WHAT, tbs.value);
        let version = body.u64()?;
        if version != 1 {
            return Err(Reject::Version {
                what: WHAT,
                expected: "1 (v2)",
                got: version,
            });
        }
        if body.expect(tag::SEQUENCE)?.raw != algorithm.raw {
            return Err(Reject::Algorithm {
                what: WHAT,
                expected: "the same inside and outside",
            });
        }
        let algorithm = signature_algorithm(algorithm.value)?;
        let issuer = body.expect(tag::SEQUENCE)?.raw;
        let (this_update, next_update) = (body.time()?, body.time()?);
        let revoked = match body.optional(tag::SEQUENCE)? {
            Some(list) => serials(list.value)?,
            None => Vec::new(),
        };
        let number = match body.optional(tag::context(0))? {
            Some(wrapper) => extensions(&mut Der::only(WHAT, wrapper.value, tag::SEQUENCE)?)?,
            None => 0,
        };
        body.end()?;
        Ok(Self {
            tbs: tbs.raw,
            algorithm,
            signature,
            issuer,
            this_update,
            next_update,
            number,
            revoked,
        })
    }

    /// Checks name, signature and dates of the list under its issuer.
    pub(crate) fn verify(&self, issuer: &Certificate<'_>, at: UnixSeconds) -> Result<Window, Reject> {
        if self.issuer != issuer.subject {
            return Err(Reject::ChainNames { what: WHAT });
        }
        if issuer.key_usage.is_some_and(|bits| bits & usage::CRL_SIGN == 0) {
            return Err(Reject::KeyUsage {
                what: "the issuer of a revocation list",
                needed: "cRLSign",
            });
        }
        if !issuer.key.verifies(self.algorithm, self.tbs, self.signature) {
            return Err(Reject::Signature { what: WHAT });
        }
        if at < self.this_update {
            return Err(Reject::CollateralNotYetValid { what: WHAT });
        }
        if at > self.next_update {
            return Err(Reject::CollateralExpired { what: WHAT });
        }
        Ok(Window {
            not_before: self.this_update,
            not_after: self.next_update,
        })
    }

    /// That the list does not name a certificate; `what` names it in the refusal.
    pub(crate) fn spares(&self, certificate: &Certificate<'_>, what: &'static str) -> Result<(), Reject> {
        if self.revoked.contains(&certificate.serial) {
            return Err(Reject::CertRevoked { what });
        }
        Ok(())
    }
}

fn serials(list: &[u8]) -> Result<Vec<&[u8]>, Reject> {
    let mut list = Der::new(WHAT, list);
    let mut found = Vec::new();
    while !list.is_empty() {
        let mut entry = list.enter(tag::SEQUENCE)?;
        found.push(entry.expect(tag::INTEGER)?.value);
        entry.time()?;
        if entry.peek() == Some(tag::SEQUENCE) {
            refuse_critical(&mut entry.enter(tag::SEQUENCE)?)?;
        }
        entry.end()?;
    }
    Ok(found)
}

/// A critical extension changes what the list means (only some certificates, another issuer), so none is allowed.
fn refuse_critical(list: &mut Der<'_>) -> Result<(), Reject> {
    extensions(list).map(drop)
}

/// Reads extensions, none of them critical; the list's number, 0 without one.
fn extensions(list: &mut Der<'_>) -> Result<u64, Reject> {
    let mut number = 0;
    while !list.is_empty() {
        let mut item = list.enter(tag::SEQUENCE)?;
        let oid = item.oid()?;
        if item.peek() == Some(tag::BOOLEAN) && item.boolean()? {
            return Err(Reject::CriticalExtension { what: WHAT });
        }
        let value = item.expect(tag::OCTET_STRING)?.value;
        item.end()?;
        if oid == CRL_NUMBER {
            let mut inner = Der::new(WHAT, value);
            let digits = inner.expect(tag::INTEGER)?.value;
            inner.end()?;
            number = digits
                .iter()
                .try_fold(0u64, |sum, byte| Some(sum.checked_mul(256)? | u64::from(*byte)))
                .unwrap_or(u64::MAX);
        }
    }
    Ok(number)
}
