//! Certificate revocation lists (RFC 5280 section 5), as AMD's roots sign them for the authorities below.

use crate::{
    claims::UnixSeconds,
    der::{Der, tag},
    reject::Reject,
    x509::{Certificate, SignatureAlgorithm, Window, usage},
};

const WHAT: &str = "the revocation list";
/// Longest list read; AMD's have under 1,000 bytes.
const MAX_BYTES: usize = 64 * 1024;
/// RSASSA-PSS with hash SHA-384, MGF1 with SHA-384 and salt 48: the two encodings met, the second with the trailer
/// field's default written out.
const PSS_SHA384: [&str; 2] = [
    "06092a864886f70d01010a3034a00f300d06096086480165030402020500a11c301a06092a864886f70d010108300d0609608648016503040202\
     0500a203020130",
    "06092a864886f70d01010a3039a00f300d06096086480165030402020500a11c301a06092a864886f70d010108300d0609608648016503040202\
     0500a203020130a303020101",
];

/// A parsed list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RevocationList<'a> {
    tbs: &'a [u8],
    signature: &'a [u8],
    /// Issuer name (DER).
    pub(super) issuer: &'a [u8],
    this_update: UnixSeconds,
    next_update: UnixSeconds,
    /// Serial numbers, contents octets.
    revoked: Vec<&'a [u8]>,
}

impl<'a> RevocationList<'a> {
    /// Reads a list of version 2 that must fill `raw`.
    pub(super) fn parse(raw: &'a [u8]) -> Result<Self, Reject> {
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
        if body.expect(tag::SEQUENCE)?.raw != algorithm.raw
            || !PSS_SHA384.contains(&hex::encode(algorithm.value).as_str())
        {
            return Err(Reject::Algorithm {
                what: WHAT,
                expected: "RSASSA-PSS with SHA-384",
            });
        }
        let issuer = body.expect(tag::SEQUENCE)?.raw;
        let (this_update, next_update) = (body.time()?, body.time()?);
        let revoked = match body.optional(tag::SEQUENCE)? {
            Some(list) => serials(list.value)?,
            None => Vec::new(),
        };
        if let Some(wrapper) = body.optional(tag::context(0))? {
            refuse_critical(&mut Der::only(WHAT, wrapper.value, tag::SEQUENCE)?)?;
        }
        body.end()?;
        Ok(Self {
            tbs: tbs.raw,
            signature,
            issuer,
            this_update,
            next_update,
            revoked,
        })
    }

    /// Checks signature and dates of the list under its issuer, and that it does not name `certificate`.
    pub(super) fn check(
        &self,
        certificate: &Certificate<'_>,
        issuer: &Certificate<'_>,
        at: UnixSeconds,
    ) -> Result<Window, Reject> {
        if issuer.key_usage.is_some_and(|bits| bits & usage::CRL_SIGN == 0) {
            return Err(Reject::KeyUsage {
                what: "the root",
                needed: "cRLSign",
            });
        }
        if !issuer
            .key
            .verifies(SignatureAlgorithm::RsaPssSha384, self.tbs, self.signature)
        {
            return Err(Reject::Signature { what: WHAT });
        }
        if at < self.this_update {
            return Err(Reject::CollateralNotYetValid { what: WHAT });
        }
        if at > self.next_update {
            return Err(Reject::CollateralExpired { what: WHAT });
        }
        if self.revoked.contains(&certificate.serial) {
            return Err(Reject::CertRevoked {
                what: "the first authority above the signing certificate",
            });
        }
        Ok(Window {
            not_before: self.this_update,
            not_after: self.next_update,
        })
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
    while !list.is_empty() {
        let mut item = list.enter(tag::SEQUENCE)?;
        item.oid()?;
        if item.peek() == Some(tag::BOOLEAN) && item.boolean()? {
            return Err(Reject::CriticalExtension { what: WHAT });
        }
        item.expect(tag::OCTET_STRING)?;
        item.end()?;
    }
    Ok(())
}
