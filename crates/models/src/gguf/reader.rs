//! Bounded little-endian reads.

use super::{GgufError, Limits};

pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    pub(super) limits: &'a Limits,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8], limits: &'a Limits) -> Self {
        Self { bytes, at: 0, limits }
    }

    /// Offset of the next byte.
    pub(super) const fn at(&self) -> usize {
        self.at
    }

    /// Bytes that are left.
    pub(super) const fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    pub(super) fn take(&mut self, count: u64) -> Result<&'a [u8], GgufError> {
        let truncated = || GgufError::Truncated {
            at: self.at,
            missing: count.saturating_sub(self.left() as u64),
        };
        let end = usize::try_from(count)
            .ok()
            .and_then(|count| self.at.checked_add(count))
            .ok_or_else(truncated)?;
        if end > self.limits.header {
            return Err(GgufError::Limit {
                what: "bytes of the header",
                got: end as u64,
                limit: self.limits.header as u64,
            });
        }
        let slice = self.bytes.get(self.at..end).ok_or_else(truncated)?;
        self.at = end;
        Ok(slice)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], GgufError> {
        let at = self.at;
        self.take(N as u64)?
            .try_into()
            .map_err(|_| GgufError::Truncated { at, missing: N as u64 })
    }

    pub(super) fn u32(&mut self) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Reads a count of things that take at least `least` bytes each, and compares it with a limit and with the bytes
    /// that are left, so that reserving memory for them is safe.
    pub(super) fn count(&mut self, what: &'static str, limit: usize, least: u64) -> Result<usize, GgufError> {
        let got = self.u64()?;
        if got > limit as u64 {
            return Err(GgufError::Limit {
                what,
                got,
                limit: limit as u64,
            });
        }
        // `got` is at most a usize here, and `least` is small.
        let needed = got.saturating_mul(least);
        let left = self.left() as u64;
        if needed > left {
            return Err(GgufError::Truncated {
                at: self.at,
                missing: needed - left,
            });
        }
        usize::try_from(got).map_err(|_| GgufError::Limit {
            what,
            got,
            limit: limit as u64,
        })
    }

    /// A length-prefixed UTF-8 text.
    pub(super) fn text(&mut self, what: &'static str, limit: usize) -> Result<&'a str, GgufError> {
        let at = self.at;
        let length = self.u64()?;
        if length > limit as u64 {
            return Err(GgufError::Limit {
                what,
                got: length,
                limit: limit as u64,
            });
        }
        std::str::from_utf8(self.take(length)?).map_err(|_| GgufError::Text { at, what })
    }

    /// A text that names something: not empty, no control characters.
    pub(super) fn name(&mut self, what: &'static str, limit: usize) -> Result<String, GgufError> {
        let at = self.at;
        let text = self.text(what, limit)?;
        if text.is_empty() || text.chars().any(char::is_control) {
            return Err(GgufError::Text { at, what });
        }
        Ok(text.to_owned())
    }
}
