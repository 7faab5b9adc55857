//! Certificates and revocation lists out of PEM text (RFC 7468), bounded.

use crate::reject::Reject;
use base64::{Engine as _, engine::general_purpose::STANDARD};

/// Most bytes of a PEM text.
pub const MAX_TEXT: usize = 262_144;
const WHAT: &str = "a PEM text";

/// Every `CERTIFICATE` block of a text, in order, as DER. Text between the blocks is ignored, as RFC 7468 allows.
///
/// # Errors
/// [`Reject`] for more than [`MAX_TEXT`] bytes, more than `limit` blocks, an open block, or contents that are not
/// base64.
pub fn certificates(text: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, Reject> {
    blocks(text, "CERTIFICATE", limit)
}

/// Every `X509 CRL` block of a text, as [`certificates`].
///
/// # Errors
/// As [`certificates`].
pub fn lists(text: &[u8], limit: usize) -> Result<Vec<Vec<u8>>, Reject> {
    blocks(text, "X509 CRL", limit)
}

fn blocks(text: &[u8], label: &str, limit: usize) -> Result<Vec<Vec<u8>>, Reject> {
    if text.len() > MAX_TEXT {
        return Err(Reject::TooLong {
            what: WHAT,
            limit: MAX_TEXT,
            got: text.len(),
        });
    }
    let malformed = |why| Reject::Malformed { what: WHAT, at: 0, why };
    let text = std::str::from_utf8(text).map_err(|_| malformed("not UTF-8"))?;
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let mut found = Vec::new();
    for block in text.split(&begin).skip(1) {
        if found.len() == limit {
            return Err(Reject::ChainTooLong {
                limit,
                got: limit.saturating_add(1),
            });
        }
        let (body, _) = block
            .split_once(&end)
            .ok_or_else(|| malformed("a block without its end line"))?;
        let packed: String = body.split_ascii_whitespace().collect();
        found.push(
            STANDARD
                .decode(packed)
                .map_err(|_| malformed("a block that is not base64"))?,
        );
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";

    #[test]
    fn lists_are_not_certificates() {
        let text = format!("{BEGIN}\nAQID\n{END}\n-----BEGIN X509 CRL-----\nBAUG\n-----END X509 CRL-----\n");
        assert_eq!(certificates(text.as_bytes(), 1).unwrap(), [vec![1, 2, 3]]);
        assert_eq!(lists(text.as_bytes(), 1).unwrap(), [vec![4, 5, 6]]);
    }

    #[test]
    fn texts() {
        let one = format!("x\n{BEGIN}\nAQID\n{END}\n");
        assert_eq!(certificates(one.as_bytes(), 2).unwrap(), [vec![1, 2, 3]]);
        assert_eq!(certificates(format!("{one}{one}").as_bytes(), 2).unwrap().len(), 2);
        assert!(matches!(
            certificates(format!("{one}{one}").as_bytes(), 1),
            Err(Reject::ChainTooLong { .. })
        ));
        assert!(certificates(format!("{BEGIN}\nAQID").as_bytes(), 1).is_err());
        assert!(certificates(format!("{BEGIN}\n!!\n{END}").as_bytes(), 1).is_err());
        assert!(certificates(&[0xff], 1).is_err());
        assert_eq!(certificates(b"", 1).unwrap().len(), 0);
    }
}
