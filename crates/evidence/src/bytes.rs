//! Bounded reading of fixed layouts.

use crate::reject::Reject;

/// Reads integers and slices off a buffer; every read is checked and names the structure in its error.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes, at: 0 }
    }

    /// Offset of the next byte.
    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Reject> {
        let end = self.at.saturating_add(count);
        let part = self.bytes.get(self.at..end).ok_or(Reject::Truncated {
            what: self.what,
            at: self.bytes.len(),
        })?;
        self.at = end;
        Ok(part)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], Reject> {
        let at = self.bytes.len();
        let what = self.what;
        self.take(N)?.first_chunk::<N>().ok_or(Reject::Truncated { what, at })
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Reject> {
        self.array::<1>().map(|[byte]| *byte)
    }

    pub(crate) fn u16_le(&mut self) -> Result<u16, Reject> {
        self.array().copied().map(u16::from_le_bytes)
    }

    pub(crate) fn u32_le(&mut self) -> Result<u32, Reject> {
        self.array().copied().map(u32::from_le_bytes)
    }
}
