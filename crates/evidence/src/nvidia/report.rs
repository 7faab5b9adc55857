//! SPDM 1.1 measurement exchange of a GPU: the request and the response that signs both (DMTF DSP0274).

use crate::{bytes::Reader, reject::Reject};

/// Most bytes of a report; an H100's has 4 129.
pub const MAX_REPORT: usize = 16_384;
/// GET_MEASUREMENTS request with a nonce and a slot.
const REQUEST: usize = 37;
/// Zero bytes that may follow.
const MAX_PADDING: usize = 64;
const WHAT: &str = "the SPDM measurement exchange";

/// A measurement exchange taken apart, borrowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report<'a> {
    /// Request and response without the signature: what is signed.
    pub signed: &'a [u8],
    /// `r || s` on P-384.
    pub signature: &'a [u8; 96],
    /// Nonce of the requester.
    pub nonce: &'a [u8; 32],
    /// Measurements by index (from 1): type and value.
    pub measurements: Vec<(u8, u8, &'a [u8])>,
    /// Vendor fields by type.
    pub opaque: Vec<(u16, &'a [u8])>,
}

impl<'a> Report<'a> {
    /// Takes an exchange apart.
    ///
    /// # Errors
    /// [`Reject`] for another message, version or layout, or a byte other than zero after the end.
    pub fn parse(raw: &'a [u8]) -> Result<Self, Reject> {
        if raw.len() > MAX_REPORT {
            return Err(Reject::TooLong {
                what: WHAT,
                limit: MAX_REPORT,
                got: raw.len(),
            });
        }
        let mut reader = Reader::new(WHAT, raw);
        message(&mut reader, 0xe0, "0xe0 (GET_MEASUREMENTS)")?;
        reader.take(2)?;
        let nonce = reader.array()?;
        reader.take(REQUEST.saturating_sub(reader.at()))?;
        message(&mut reader, 0x60, "0x60 (MEASUREMENTS)")?;
        reader.take(2)?;
        let blocks = reader.u8()?;
        let length = u24(&mut reader)?;
        let measurements = measurements(reader.take(length)?, blocks)?;
        reader.take(32)?;
        let length = usize::from(reader.u16_le()?);
        let opaque = opaque(reader.take(length)?)?;
        let signed = raw.get(..reader.at()).unwrap_or_default();
        let signature = reader.array()?;
        let padding = reader.rest();
        if padding.len() > MAX_PADDING || padding.iter().any(|byte| *byte != 0) {
            return Err(Reject::TrailingBytes {
                what: WHAT,
                at: reader.at(),
            });
        }
        Ok(Self {
            signed,
            signature,
            nonce,
            measurements,
            opaque,
        })
    }

    /// Vendor field of a type.
    #[must_use]
    pub fn field(&self, wanted: u16) -> Option<&'a [u8]> {
        self.opaque
            .iter()
            .find(|(kind, _)| *kind == wanted)
            .map(|(_, value)| *value)
    }
}

fn message(reader: &mut Reader<'_>, code: u8, expected: &'static str) -> Result<(), Reject> {
    let version = reader.u8()?;
    if version != 0x11 {
        return Err(Reject::Version {
            what: WHAT,
            expected: "0x11 (SPDM 1.1)",
            got: u64::from(version),
        });
    }
    let got = reader.u8()?;
    if got == code {
        Ok(())
    } else {
        Err(Reject::FieldValue {
            what: "the SPDM message code",
            expected,
            got: u64::from(got),
        })
    }
}

fn u24(reader: &mut Reader<'_>) -> Result<usize, Reject> {
    let [a, b, c] = *reader.array::<3>()?;
    Ok(u32::from_le_bytes([a, b, c, 0]) as usize)
}

fn measurements(bytes: &[u8], count: u8) -> Result<Vec<(u8, u8, &[u8])>, Reject> {
    let mut reader = Reader::new("the SPDM measurement record", bytes);
    let mut found: Vec<(u8, u8, &[u8])> = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let (index, specification) = (reader.u8()?, reader.u8()?);
        if specification != 1 {
            let expected = "1 (DMTF)";
            return Err(Reject::FieldValue {
                what: "a measurement's specification",
                expected,
                got: u64::from(specification),
            });
        }
        let size = usize::from(reader.u16_le()?);
        let mut block = Reader::new("an SPDM measurement", reader.take(size)?);
        let kind = block.u8()?;
        let length = usize::from(block.u16_le()?);
        let value = block.take(length)?;
        if !block.rest().is_empty() {
            return Err(Reject::TrailingBytes {
                what: "an SPDM measurement",
                at: block.at(),
            });
        }
        if found.last().is_some_and(|(before, ..)| *before >= index) {
            return Err(Reject::Duplicate {
                what: "a measurement's index (or it is out of order)",
            });
        }
        found.push((index, kind, value));
    }
    if reader.rest().is_empty() {
        Ok(found)
    } else {
        Err(Reject::TrailingBytes {
            what: "the SPDM measurement record",
            at: reader.at(),
        })
    }
}

fn opaque(bytes: &[u8]) -> Result<Vec<(u16, &[u8])>, Reject> {
    let mut reader = Reader::new("the SPDM vendor data", bytes);
    let mut found: Vec<(u16, &[u8])> = Vec::new();
    while !reader.rest().is_empty() {
        let kind = reader.u16_le()?;
        let length = usize::from(reader.u16_le()?);
        let value = reader.take(length)?;
        if found.iter().any(|(other, _)| *other == kind) {
            return Err(Reject::Duplicate {
                what: "a field of the SPDM vendor data",
            });
        }
        found.push((kind, value));
    }
    Ok(found)
}
