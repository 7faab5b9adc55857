//! dstack's versioned attestation: SCALE encoding of version, platform and the platform's document, then data of its own.
//!
//! Layout, as the project's test vectors have it: version 0, platform (0 TDX, 2 Nitro, 3 SEV-SNP), compact length of the
//! document, the document. No document of these kinds begins with a zero byte, so the wrapper is never mistaken for one.

use crate::{bytes::Reader, claims::Kind, reject::Reject};

const WHAT: &str = "dstack's wrapper";

/// The document inside and how much followed it.
pub(super) struct Inner {
    pub(super) document: Vec<u8>,
    pub(super) left: usize,
}

/// Takes the document out; `None` if the bytes are no such wrapper.
pub(super) fn split(kind: Kind, bytes: &[u8]) -> Result<Option<Inner>, Reject> {
    let held = match bytes {
        [0, 0, _, _, ..] => Kind::Tdx,
        [0, 2, _, _, ..] => Kind::Nitro,
        [0, 3, _, _, ..] => Kind::Snp,
        _ => return Ok(None),
    };
    if held != kind {
        return Err(Reject::WrongKind {
            expected: kind.as_str(),
        });
    }
    let mut at = Reader::new(WHAT, bytes);
    at.take(2)?;
    let length = compact(&mut at)?;
    let document = at.take(length)?.to_vec();
    Ok(Some(Inner {
        document,
        left: at.rest().len(),
    }))
}

/// A compact length of two or four bytes in its shortest form; a document shorter than 64 bytes does not exist.
fn compact(at: &mut Reader<'_>) -> Result<usize, Reject> {
    let [low, high] = *at.array()?;
    let two = u16::from_le_bytes([low, high]);
    let (value, least) = match low & 3 {
        1 => (u32::from(two >> 2), 64),
        2 => {
            let upper = at.u16_le()?;
            ((u32::from(two) | u32::from(upper) << 16) >> 2, 1 << 14)
        }
        _ => {
            return Err(Reject::Malformed {
                what: WHAT,
                at: 2,
                why: "the length is not one of two or four bytes",
            });
        }
    };
    if value < least {
        return Err(Reject::NotCanonical { what: WHAT, at: 2 });
    }
    Ok(usize::try_from(value).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lengths as SCALE writes them: mode in the two low bits, value above.
    #[test]
    fn lengths() {
        let wrap = |platform, head: &[u8], body: usize| [&[0, platform], head, &vec![7; body]].concat();
        let inner = split(Kind::Snp, &wrap(3, &[0x81, 0x12], 1_184 + 9)).unwrap().unwrap();
        assert_eq!((inner.document.len(), inner.left), (1_184, 9));
        let four = ((20_000u32 << 2) | 2).to_le_bytes();
        assert_eq!(
            split(Kind::Tdx, &wrap(0, &four, 20_000))
                .unwrap()
                .unwrap()
                .document
                .len(),
            20_000
        );
        for (head, body) in [
            (&[0x81, 0x12][..], 1_183),
            (&[0x05, 0x00], 9),
            (&[0x04, 0x00], 9),
            (&[0x02, 0, 1, 0], 64),
        ] {
            assert!(split(Kind::Nitro, &wrap(2, head, body)).is_err(), "{head:?}");
        }
        assert!(matches!(
            split(Kind::Tdx, &wrap(3, &[0x81, 0x12], 1_184)),
            Err(Reject::WrongKind { .. })
        ));
        assert!(split(Kind::Tdx, &wrap(9, &[0x81, 0x12], 1_184)).unwrap().is_none());
        assert!(split(Kind::Tdx, &[0, 0, 1]).unwrap().is_none());
    }
}
