//! Extensions of a certificate, and the two that path validation reads (RFC 5280 §4.2.1.3 and §4.2.1.9).

use super::{Extension, WHAT};
use crate::{
    der::{Der, tag},
    reject::Reject,
};

const MAX_EXTENSIONS: usize = 32;

/// The list of extensions, each object identifier at most once.
pub(super) fn extensions(wrapper: &[u8]) -> Result<Vec<Extension<'_>>, Reject> {
    let mut list = Der::only(WHAT, wrapper, tag::SEQUENCE)?;
    let mut found: Vec<Extension<'_>> = Vec::new();
    while !list.is_empty() {
        let mut item = list.enter(tag::SEQUENCE)?;
        let oid = item.oid()?;
        let critical = if item.peek() == Some(tag::BOOLEAN) {
            item.boolean()?
        } else {
            false
        };
        let value = item.expect(tag::OCTET_STRING)?.value;
        item.end()?;
        if found.iter().any(|other| other.oid == oid) {
            return Err(Reject::Duplicate {
                what: "a certificate extension",
            });
        }
        if found.len() == MAX_EXTENSIONS {
            return Err(Reject::TooLong {
                what: "a certificate's list of extensions",
                limit: MAX_EXTENSIONS,
                got: found.len() + 1,
            });
        }
        found.push(Extension { oid, critical, value });
    }
    Ok(found)
}

/// Authority flag and path length.
pub(super) fn basic_constraints(value: &[u8]) -> Result<(bool, Option<u64>), Reject> {
    let mut der = Der::only("basicConstraints", value, tag::SEQUENCE)?;
    let authority = if der.peek() == Some(tag::BOOLEAN) {
        der.boolean()?
    } else {
        false
    };
    let path = if der.is_empty() { None } else { Some(der.u64()?) };
    der.end()?;
    Ok((authority, path))
}

/// Bits of [`super::usage`].
pub(super) fn key_usage(value: &[u8]) -> Result<u16, Reject> {
    let mut der = Der::new("keyUsage", value);
    let bits = der.expect(tag::BIT_STRING)?.value;
    der.end()?;
    let malformed = Reject::Malformed {
        what: "keyUsage",
        at: 0,
        why: "a bit string of one or two bytes is expected",
    };
    match bits {
        [unused, high] if *unused < 8 => Ok(u16::from_be_bytes([*high, 0])),
        [unused, high, low] if *unused < 8 => Ok(u16::from_be_bytes([*high, *low])),
        _ => Err(malformed),
    }
}
