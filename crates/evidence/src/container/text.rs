//! Text encodings around a document.

use super::Step;
use crate::reject::Reject;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};

const BEGIN: &str = "-----BEGIN REPORT-----";
const END: &str = "-----END REPORT-----";
const WHAT: &str = "the text around the document";

/// The bytes behind a text encoding, or the bytes themselves. At most one encoding is taken off.
pub(super) fn decode(file: &[u8]) -> Result<(Vec<u8>, Option<Step>), Reject> {
    let Ok(text) = std::str::from_utf8(file) else {
        return Ok((file.to_vec(), None));
    };
    if text.contains(BEGIN) {
        return Ok((block(text)?, Some(Step::ReportBlock)));
    }
    let packed: String = text.split_ascii_whitespace().collect();
    let digits = packed.strip_prefix("0x").unwrap_or(&packed);
    if packed.is_empty() {
        return Ok((file.to_vec(), None));
    }
    if let Ok(bytes) = hex::decode(digits) {
        return Ok((bytes, Some(Step::Hexadecimal)));
    }
    if let Some(bytes) = base64(&packed) {
        return Ok((bytes, Some(Step::Base64)));
    }
    Ok((file.to_vec(), None))
}

/// Base64 with padding, or base64url with or without.
pub(super) fn base64(packed: &str) -> Option<Vec<u8>> {
    STANDARD
        .decode(packed)
        .or_else(|_| URL_SAFE_NO_PAD.decode(packed.trim_end_matches('=')))
        .ok()
}

/// The contents of the only block.
fn block(text: &str) -> Result<Vec<u8>, Reject> {
    let malformed = |why| Reject::Malformed { what: WHAT, at: 0, why };
    let (_, rest) = text.split_once(BEGIN).unwrap_or_default();
    let (body, after) = rest
        .split_once(END)
        .ok_or_else(|| malformed("a REPORT block without its end line"))?;
    if after.contains(BEGIN) {
        return Err(Reject::Duplicate {
            what: "the REPORT block",
        });
    }
    let packed: String = body.split_ascii_whitespace().collect();
    STANDARD
        .decode(packed)
        .map_err(|_| malformed("a REPORT block that is not base64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn encodings() {
        let bytes = |text: &[u8]| decode(text).unwrap();
        assert_eq!(bytes(b" 0x04 00\n02 "), (vec![4, 0, 2], Some(Step::Hexadecimal)));
        assert_eq!(bytes(b"hEShATgi\n").1, Some(Step::Base64));
        assert_eq!(bytes(b"_-7_"), (vec![0xff, 0xee, 0xff], Some(Step::Base64)));
        assert_eq!(bytes(&[0x84, 0xff]), (vec![0x84, 0xff], None));
        let one = format!("title\n{BEGIN}\nAQ\nID\n{END}\n");
        assert_eq!(bytes(one.as_bytes()), (vec![1, 2, 3], Some(Step::ReportBlock)));
    }

    #[test]
    fn broken_blocks_are_refused() {
        for text in [
            format!("{BEGIN}\nAQID"),
            format!("{BEGIN}\n!!\n{END}"),
            format!("{BEGIN}\nAQID\n{END}\n{BEGIN}\nAQID\n{END}"),
        ] {
            assert!(decode(text.as_bytes()).is_err(), "{text}");
        }
    }
}
