//! Strict reading of the CBOR (RFC 8949) of attestation documents.
//!
//! Definite lengths (but for the one map that the issuer leaves open), shortest integers and lengths, no floats. Unlike the receipts' deterministic codec it accepts map
//! keys in any order: the Nitro security module writes them in the order of its own structure.

use crate::reject::Reject;

/// Deepest nesting of a document: tag, array, payload map, PCR map, values.
const MAX_DEPTH: usize = 8;

pub(super) struct Cbor<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cbor<'a> {
    pub(super) const fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes, at: 0 }
    }

    pub(super) const fn at(&self) -> usize {
        self.at
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn fail(&self, why: &'static str) -> Reject {
        Reject::Malformed {
            what: self.what,
            at: self.at,
            why,
        }
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], Reject> {
        let short = Reject::Truncated {
            what: self.what,
            at: self.bytes.len(),
        };
        let Some(end) = usize::try_from(count).ok().and_then(|count| self.at.checked_add(count)) else {
            return Err(short);
        };
        let part = self.bytes.get(self.at..end).ok_or(short)?;
        self.at = end;
        Ok(part)
    }

    /// Major type and argument of the next head.
    fn head(&mut self) -> Result<(u8, u64), Reject> {
        let start = self.at;
        let first = self.take(1)?.first().copied().unwrap_or_default();
        let (major, info) = (first >> 5, first & 0x1f);
        let (width, least) = match info {
            0..=23 => return Ok((major, u64::from(info))),
            24 => (1, 24),
            25 => (2, 0x100),
            26 => (4, 0x1_0000),
            27 => (8, 0x1_0000_0000),
            _ => {
                self.at = start;
                return Err(self.fail("an indefinite length or a reserved head"));
            }
        };
        let value = self
            .take(width)?
            .iter()
            .fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
        // Major type 7 with these widths is a simple value or a float; the callers refuse both.
        if value < least && major != 7 {
            return Err(Reject::NotCanonical {
                what: self.what,
                at: start,
            });
        }
        Ok((major, value))
    }

    fn of(&mut self, wanted: u8, why: &'static str) -> Result<u64, Reject> {
        let start = self.at;
        match self.head()? {
            (major, argument) if major == wanted => Ok(argument),
            _ => {
                self.at = start;
                Err(self.fail(why))
            }
        }
    }

    pub(super) fn uint(&mut self) -> Result<u64, Reject> {
        self.of(0, "an unsigned integer is expected")
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Reject> {
        let count = self.of(2, "a byte string is expected")?;
        self.take(count)
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Reject> {
        let count = self.of(3, "a text is expected")?;
        let start = self.at;
        let bytes = self.take(count)?;
        std::str::from_utf8(bytes).map_err(|_| Reject::Malformed {
            what: self.what,
            at: start,
            why: "text is not UTF-8",
        })
    }

    pub(super) fn array(&mut self) -> Result<u64, Reject> {
        self.of(4, "an array is expected")
    }

    pub(super) fn map(&mut self) -> Result<u64, Reject> {
        self.of(5, "a map is expected")
    }

    /// Opens the outermost map, whose length the Nitro security module leaves open: `None`, closed by a break.
    pub(super) fn open_map(&mut self) -> Result<Option<u64>, Reject> {
        if self.skip_byte(0xbf) {
            Ok(None)
        } else {
            self.map().map(Some)
        }
    }

    /// Null or a byte string.
    pub(super) fn optional_bytes(&mut self) -> Result<Option<&'a [u8]>, Reject> {
        if self.peek() == Some(0xf6) {
            self.at += 1;
            return Ok(None);
        }
        self.bytes().map(Some)
    }

    /// Skips `byte` if it is next.
    pub(super) fn skip_byte(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    /// Skips one item of any form.
    pub(super) fn skip(&mut self, depth: usize) -> Result<(), Reject> {
        if depth > MAX_DEPTH {
            return Err(Reject::TooDeep {
                what: self.what,
                limit: MAX_DEPTH,
            });
        }
        let (major, argument) = self.head()?;
        let items = match major {
            0 | 1 | 7 => 0,
            2 | 3 => {
                self.take(argument)?;
                0
            }
            4 => argument,
            5 => argument.saturating_mul(2),
            _ => 1,
        };
        // Each item takes a byte at least, so a count past the input ends the loop by itself.
        for _ in 0..items {
            self.skip(depth + 1)?;
        }
        Ok(())
    }

    pub(super) fn end(&self) -> Result<(), Reject> {
        if self.at == self.bytes.len() {
            Ok(())
        } else {
            Err(Reject::TrailingBytes {
                what: self.what,
                at: self.at,
            })
        }
    }
}
