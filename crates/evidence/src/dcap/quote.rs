//! Layout of DCAP quotes: SGX version 3, TDX versions 4 and 5 (TD 1.0, 1.5 and 1.5 extended).
//!
//! Intel, "DCAP quote library API", appendix A, and `sgx_quote_5.h`. Every inner length must be used up exactly, so
//! that no byte inside the quote is without meaning; after its end only zero bytes may follow (quoting services hand
//! out fixed buffers).

use crate::{bytes::Reader, claims::Kind, reject::Reject};

/// Most bytes of a quote with its padding; Google's buffer has 8 000.
pub const MAX_QUOTE: usize = 16_384;
const WHAT: &str = "the quote";
/// SGX enclave report.
pub(super) const ENCLAVE_REPORT: usize = 384;
const TD10: usize = 584;
const TD15: usize = 648;
const TD15_EX: usize = 885;
/// Intel's quoting enclave vendor identifier.
pub(crate) const INTEL_VENDOR: [u8; 16] = [
    0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07,
];
const TEE_SGX: u32 = 0;
const TEE_TDX: u32 = 0x81;

/// A quote taken apart, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote<'a> {
    /// SGX or TDX.
    pub kind: Kind,
    /// Format for people.
    pub format: &'static str,
    /// Without the padding.
    pub raw: &'a [u8],
    /// Header and body: what the attestation key signs.
    pub signed: &'a [u8],
    /// Enclave report or TD report.
    pub body: &'a [u8],
    /// Signature of [`Quote::signed`].
    pub signature: &'a [u8; 64],
    /// Attestation key: `x || y` on P-256.
    pub attestation_key: &'a [u8; 64],
    /// Report of the quoting enclave.
    pub qe_report: &'a [u8; ENCLAVE_REPORT],
    /// Signature of the quoting enclave's report by the platform's key.
    pub qe_signature: &'a [u8; 64],
    /// Authentication data of the quoting enclave.
    pub qe_auth: &'a [u8],
    /// Platform certificate chain (PEM).
    pub chain: &'a [u8],
}

impl<'a> Quote<'a> {
    /// Takes a quote apart.
    ///
    /// # Errors
    /// [`Reject`] for another version, key type, vendor or certification type, a length that does not fit, or a byte
    /// other than zero after the end.
    pub fn parse(raw: &'a [u8]) -> Result<Self, Reject> {
        if raw.len() > MAX_QUOTE {
            return Err(Reject::TooLong {
                what: WHAT,
                limit: MAX_QUOTE,
                got: raw.len(),
            });
        }
        let mut reader = Reader::new(WHAT, raw);
        let version = reader.u16_le()?;
        let key_type = reader.u16_le()?;
        let tee = reader.u32_le()?;
        reader.take(4)?;
        let vendor = reader.array::<16>()?;
        reader.take(20)?;
        if !(3..=5).contains(&version) {
            return Err(Reject::Version {
                what: WHAT,
                expected: "3, 4 or 5",
                got: u64::from(version),
            });
        }
        if key_type != 2 {
            return Err(Reject::Algorithm {
                what: "the attestation key",
                expected: "ECDSA P-256",
            });
        }
        if *vendor != INTEL_VENDOR {
            return Err(Reject::QeIdentity);
        }
        let (kind, format, length) = match (version, tee) {
            (3, TEE_SGX) => (Kind::Sgx, "sgx-v3", ENCLAVE_REPORT),
            (4, TEE_TDX) => (Kind::Tdx, "tdx-v4-td10", TD10),
            (5, TEE_TDX) => versioned_body(&mut reader)?,
            _ => {
                let expected = "SGX in version 3, TDX in versions 4 and 5";
                return Err(Reject::FieldValue {
                    what: "the TEE type",
                    expected,
                    got: u64::from(tee),
                });
            }
        };
        let body = reader.take(length)?;
        let signed = raw.get(..reader.at()).unwrap_or_default();
        let size = reader.u32_le()? as usize;
        let section = reader.take(size)?;
        let end = reader.at();
        if let Some(at) = reader.rest().iter().position(|byte| *byte != 0) {
            return Err(Reject::TrailingBytes {
                what: WHAT,
                at: end.saturating_add(at),
            });
        }
        let mut section = Reader::new("the quote's signature section", section);
        let signature = section.array()?;
        let attestation_key = section.array()?;
        let mut certification = if version == 3 {
            section
        } else {
            let inner = certified(&mut section, 6)?;
            finished(&section)?;
            Reader::new("the quote's certification data", inner)
        };
        let qe_report = certification.array()?;
        let qe_signature = certification.array()?;
        let auth_size = usize::from(certification.u16_le()?);
        let qe_auth = certification.take(auth_size)?;
        let chain = certified(&mut certification, 5)?;
        finished(&certification)?;
        Ok(Self {
            kind,
            format,
            raw: raw.get(..end).unwrap_or_default(),
            signed,
            body,
            signature,
            attestation_key,
            qe_report,
            qe_signature,
            qe_auth,
            chain,
        })
    }
}

fn versioned_body(reader: &mut Reader<'_>) -> Result<(Kind, &'static str, usize), Reject> {
    let (body_type, size) = (reader.u16_le()?, reader.u32_le()?);
    let found = match body_type {
        2 => (Kind::Tdx, "tdx-v5-td10", TD10),
        3 => (Kind::Tdx, "tdx-v5-td15", TD15),
        4 => (Kind::Tdx, "tdx-v5-td15ex", TD15_EX),
        _ => {
            let expected = "2 (TD 1.0), 3 (TD 1.5) or 4 (TD 1.5 extended)";
            return Err(Reject::FieldValue {
                what: "the body type",
                expected,
                got: u64::from(body_type),
            });
        }
    };
    if size as usize == found.2 {
        Ok(found)
    } else {
        Err(Reject::FieldLength {
            what: "the quote's body",
            min: found.2,
            max: found.2,
            got: size as usize,
        })
    }
}

/// Certification data of one type: `type u16, size u32, data`.
fn certified<'a>(reader: &mut Reader<'a>, wanted: u16) -> Result<&'a [u8], Reject> {
    let found = reader.u16_le()?;
    if found != wanted {
        let expected = "6 around the quoting enclave's report, 5 (PCK chain) inside";
        return Err(Reject::FieldValue {
            what: "the certification data type",
            expected,
            got: u64::from(found),
        });
    }
    let size = reader.u32_le()? as usize;
    reader.take(size)
}

fn finished(reader: &Reader<'_>) -> Result<(), Reject> {
    if reader.rest().is_empty() {
        Ok(())
    } else {
        Err(Reject::TrailingBytes {
            what: "the quote's signature section",
            at: reader.at(),
        })
    }
}
