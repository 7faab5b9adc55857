//! Strict, bounded reading of DER (X.690), no more of it than certificates and revocation lists need.
//!
//! Definite lengths in their shortest form, tag numbers below 31, every read checked against what is left. Nothing is
//! allocated and nothing recurses on its own: depth is that of the caller's code.

use crate::reject::Reject;

/// Universal and context tags met in certificates.
pub mod tag {
    /// BOOLEAN.
    pub const BOOLEAN: u8 = 0x01;
    /// INTEGER.
    pub const INTEGER: u8 = 0x02;
    /// BIT STRING.
    pub const BIT_STRING: u8 = 0x03;
    /// OCTET STRING.
    pub const OCTET_STRING: u8 = 0x04;
    /// NULL.
    pub const NULL: u8 = 0x05;
    /// OBJECT IDENTIFIER.
    pub const OID: u8 = 0x06;
    /// ENUMERATED.
    pub const ENUMERATED: u8 = 0x0a;
    /// UTF8String.
    pub const UTF8_STRING: u8 = 0x0c;
    /// IA5String.
    pub const IA5_STRING: u8 = 0x16;
    /// UTCTime.
    pub const UTC_TIME: u8 = 0x17;
    /// GeneralizedTime.
    pub const GENERALIZED_TIME: u8 = 0x18;
    /// SEQUENCE.
    pub const SEQUENCE: u8 = 0x30;
    /// SET.
    pub const SET: u8 = 0x31;

    /// `[n]` constructed.
    #[must_use]
    pub const fn context(n: u8) -> u8 {
        0xa0 | n
    }
}

/// One element: its tag, its contents and its whole encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Element<'a> {
    /// Identifier octet.
    pub tag: u8,
    /// Contents octets.
    pub value: &'a [u8],
    /// Identifier, length and contents.
    pub raw: &'a [u8],
}

/// Reads elements one after the other.
#[derive(Debug, Clone)]
pub struct Der<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Der<'a> {
    /// Reads `bytes`; `what` names them in errors.
    #[must_use]
    pub const fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes, at: 0 }
    }

    /// An element of `tag` that must fill `bytes`; a reader over its contents.
    ///
    /// # Errors
    /// [`Reject`] if it is another element, or does not fill the input.
    pub fn only(what: &'static str, bytes: &'a [u8], tag: u8) -> Result<Self, Reject> {
        let mut der = Self::new(what, bytes);
        let inner = der.enter(tag)?;
        der.end()?;
        Ok(inner)
    }

    /// Whether nothing is left.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.at >= self.bytes.len()
    }

    /// Tag of the next element.
    #[must_use]
    pub fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// Offset of the next element within this reader's bytes.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.at
    }

    fn fail(&self, why: &'static str) -> Reject {
        Reject::Malformed {
            what: self.what,
            at: self.at,
            why,
        }
    }

    fn byte(&self, at: usize) -> Result<u8, Reject> {
        self.bytes
            .get(at)
            .copied()
            .ok_or(Reject::Truncated { what: self.what, at })
    }

    /// The next element, whatever it is.
    ///
    /// # Errors
    /// [`Reject`] for a multi-byte tag, an indefinite, long-form-where-short or overlong length, or an early end.
    pub fn any(&mut self) -> Result<Element<'a>, Reject> {
        let start = self.at;
        let tag = self.byte(start)?;
        if tag & 0x1f == 0x1f {
            return Err(self.fail("a tag number of 31 or more"));
        }
        let first = self.byte(start.saturating_add(1))?;
        let mut body = start.saturating_add(2);
        let length = if first < 0x80 {
            usize::from(first)
        } else {
            // Four length bytes reach 4 GiB, far past every bound on an input here.
            let count = usize::from(first & 0x7f);
            if count == 0 || count > 4 {
                return Err(self.fail("an indefinite or huge length"));
            }
            let mut length = 0usize;
            for _ in 0..count {
                length = (length << 8) | usize::from(self.byte(body)?);
                body = body.saturating_add(1);
            }
            if length < 0x80 || length >> (8 * (count - 1)) == 0 {
                return Err(Reject::NotCanonical {
                    what: self.what,
                    at: start,
                });
            }
            length
        };
        let end = body.saturating_add(length);
        let (Some(value), Some(raw)) = (self.bytes.get(body..end), self.bytes.get(start..end)) else {
            return Err(Reject::Truncated {
                what: self.what,
                at: self.bytes.len(),
            });
        };
        self.at = end;
        Ok(Element { tag, value, raw })
    }

    /// The next element, which must have `tag`.
    ///
    /// # Errors
    /// [`Reject`] for another tag or a broken element.
    pub fn expect(&mut self, tag: u8) -> Result<Element<'a>, Reject> {
        if self.peek() != Some(tag) {
            return Err(if self.is_empty() {
                Reject::Truncated {
                    what: self.what,
                    at: self.bytes.len(),
                }
            } else {
                self.fail("another element than expected")
            });
        }
        self.any()
    }

    /// A reader over the contents of the next element, which must have `tag`.
    ///
    /// # Errors
    /// As [`Der::expect`].
    pub fn enter(&mut self, tag: u8) -> Result<Self, Reject> {
        let element = self.expect(tag)?;
        Ok(Self {
            what: self.what,
            bytes: element.value,
            at: 0,
        })
    }

    /// The next element if it has `tag`.
    ///
    /// # Errors
    /// [`Reject`] for a broken element of that tag.
    pub fn optional(&mut self, tag: u8) -> Result<Option<Element<'a>>, Reject> {
        if self.peek() == Some(tag) {
            self.any().map(Some)
        } else {
            Ok(None)
        }
    }

    /// An object identifier's contents octets.
    ///
    /// # Errors
    /// As [`Der::expect`].
    pub fn oid(&mut self) -> Result<&'a [u8], Reject> {
        self.expect(tag::OID).map(|element| element.value)
    }

    /// A boolean; DER allows 0x00 and 0xff only.
    ///
    /// # Errors
    /// [`Reject`] for anything else.
    pub fn boolean(&mut self) -> Result<bool, Reject> {
        match self.expect(tag::BOOLEAN)?.value {
            [0] => Ok(false),
            [0xff] => Ok(true),
            _ => Err(self.fail("a boolean that is neither 0x00 nor 0xff")),
        }
    }

    /// Contents of a non-negative integer, sign octet stripped, shortest form demanded.
    ///
    /// # Errors
    /// [`Reject`] for an empty, negative or overlong integer.
    pub fn unsigned(&mut self) -> Result<&'a [u8], Reject> {
        let value = self.expect(tag::INTEGER)?.value;
        match value {
            [] => Err(self.fail("an empty integer")),
            [0, next, ..] if *next < 0x80 => Err(Reject::NotCanonical {
                what: self.what,
                at: self.at,
            }),
            [0, rest @ ..] if !rest.is_empty() => Ok(rest),
            [first, ..] if *first >= 0x80 => Err(self.fail("a negative integer")),
            _ => Ok(value),
        }
    }

    /// A non-negative integer of at most eight bytes.
    ///
    /// # Errors
    /// As [`Der::unsigned`], and for more bytes.
    pub fn u64(&mut self) -> Result<u64, Reject> {
        let value = self.unsigned()?;
        if value.len() > 8 {
            return Err(self.fail("an integer of more than eight bytes"));
        }
        Ok(value.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
    }

    /// Contents of a bit string of whole bytes.
    ///
    /// # Errors
    /// [`Reject`] for unused bits.
    pub fn whole_bits(&mut self) -> Result<&'a [u8], Reject> {
        match self.expect(tag::BIT_STRING)?.value {
            [0, rest @ ..] => Ok(rest),
            _ => Err(self.fail("a bit string that does not end on a byte")),
        }
    }

    /// UTCTime or GeneralizedTime in seconds since 1970, in the forms of RFC 5280 §4.1.2.5 (`Z`, seconds, no fraction).
    ///
    /// # Errors
    /// [`Reject`] for another form, or a date that does not exist.
    pub fn time(&mut self) -> Result<u64, Reject> {
        let element = self.any()?;
        let digits = match (element.tag, element.value) {
            (tag::UTC_TIME, [digits @ .., b'Z']) if digits.len() == 12 => digits,
            (tag::GENERALIZED_TIME, [digits @ .., b'Z']) if digits.len() == 14 => digits,
            _ => return Err(self.fail("a time in another form than YYMMDDHHMMSSZ or YYYYMMDDHHMMSSZ")),
        };
        if !digits.iter().all(u8::is_ascii_digit) {
            return Err(self.fail("a time with other characters than digits"));
        }
        let mut pairs = digits
            .chunks(2)
            .map(|pair| pair.iter().fold(0u64, |sum, d| sum * 10 + u64::from(*d - b'0')));
        let mut next = || pairs.next().unwrap_or_default();
        let year = if digits.len() == 12 {
            let short = next();
            if short < 50 { 2000 + short } else { 1900 + short }
        } else {
            next() * 100 + next()
        };
        let (month, day, hour, minute, second) = (next(), next(), next(), next(), next());
        unix_seconds(year, month, day, hour, minute, second).ok_or_else(|| self.fail("a date that does not exist"))
    }

    /// That nothing is left.
    ///
    /// # Errors
    /// [`Reject::TrailingBytes`].
    pub fn end(&self) -> Result<(), Reject> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(Reject::TrailingBytes {
                what: self.what,
                at: self.at,
            })
        }
    }
}

/// Seconds since 1970 of a date of the Gregorian calendar, from 1970 to 9999.
#[must_use]
pub fn unix_seconds(year: u64, month: u64, day: u64, hour: u64, minute: u64, second: u64) -> Option<u64> {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let days = match month {
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        4 | 6 | 9 | 11 => 30,
        2 => 28 + u64::from(leap),
        _ => return None,
    };
    if !(1970..=9999).contains(&year) || day == 0 || day > days || hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    // Days from civil, year counted from March so that the leap day comes last.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let day_of_year = (153 * m + 2) / 5 + day - 1;
    let days = y * 365 + y / 4 - y / 100 + y / 400 + day_of_year - 719_468;
    Some(((days * 24 + hour) * 60 + minute) * 60 + second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(unix_seconds(1970, 1, 1, 0, 0, 0), Some(0));
        assert_eq!(unix_seconds(2000, 2, 29, 12, 0, 0), Some(951_825_600));
        assert_eq!(unix_seconds(2026, 11, 21, 4, 0, 0), Some(1_795_233_600));
        assert_eq!(unix_seconds(9999, 12, 31, 23, 59, 59), Some(253_402_300_799));
        assert_eq!(unix_seconds(2023, 2, 29, 0, 0, 0), None);
        assert_eq!(unix_seconds(2023, 13, 1, 0, 0, 0), None);
    }

    #[test]
    fn lengths_are_shortest_and_definite() {
        let any = |bytes: &[u8]| Der::new("test", bytes).any().map(|e| e.value.len());
        assert_eq!(any(&[4, 1, 9]), Ok(1));
        assert!(matches!(any(&[4, 0x81, 1, 9]), Err(Reject::NotCanonical { .. })));
        assert!(matches!(any(&[4, 0x80, 0, 0]), Err(Reject::Malformed { .. })));
        assert!(matches!(
            any(&[4, 0x84, 0xff, 0xff, 0xff, 0xff]),
            Err(Reject::Truncated { .. })
        ));
        assert!(matches!(any(&[0x1f, 0x81, 1]), Err(Reject::Malformed { .. })));
        assert!(matches!(any(&[4]), Err(Reject::Truncated { .. })));
    }

    #[test]
    fn integers() {
        let unsigned = |bytes: &[u8]| Der::new("test", bytes).u64();
        assert_eq!(unsigned(&[2, 1, 0]), Ok(0));
        assert_eq!(unsigned(&[2, 2, 0, 0x80]), Ok(0x80));
        assert!(unsigned(&[2, 2, 0, 0x7f]).is_err());
        assert!(unsigned(&[2, 1, 0x80]).is_err());
        assert!(unsigned(&[2, 0]).is_err());
    }
}
