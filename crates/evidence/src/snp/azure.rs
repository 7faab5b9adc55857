//! Azure's wrapper: the paravisor ("host compatibility layer") keeps the hardware report in a TPM non-volatile index,
//! with runtime data whose SHA-256 stands in the first half of the report data.
//!
//! Layout: 32 bytes of header (`HCLA`, version, length, request type, status, reserved), 1,184 bytes of hardware
//! report, 20 bytes of runtime header (length, version, report type, hash type, length of the claims), the claims
//! (JSON), zeros. Numbers are little-endian.

use super::{report::REPORT_BYTES, tpm::AttestationKey};
use crate::{bytes::Reader, reject::Reject};
use aws_lc_rs::digest;
use serde::Deserialize;

const WHAT: &str = "the Azure HCL report";
/// Longest blob read; real ones have 2,600 bytes, the size of the TPM index.
pub const MAX_HCL_BYTES: usize = 16 * 1024;
/// Offset at which the claims begin.
const CLAIMS_AT: usize = 0x20 + REPORT_BYTES + 20;
/// The runtime header's only hash type met: SHA-256.
const HASH_SHA256: u32 = 1;

/// Splits a wrapper of an SNP guest into the hardware report and the runtime claims.
///
/// # Errors
/// As [`HclReport::parse`]; [`Reject::WrongKind`] when the hardware is not SNP.
pub fn split(blob: &[u8]) -> Result<(&[u8], &[u8]), Reject> {
    let wrapper = HclReport::parse(blob)?;
    match wrapper.hardware {
        HclHardware::Snp => Ok((wrapper.report, wrapper.claims)),
        HclHardware::Tdx => Err(Reject::WrongKind { expected: "SNP" }),
    }
}

/// Checks that the SNP `report` binds `claims`; verify the report as well.
///
/// # Errors
/// [`Reject::InnerHash`], [`Reject::Truncated`] for a report without report data.
pub fn check_runtime(report: &[u8], claims: &[u8]) -> Result<(), Reject> {
    let report_data = report.get(0x50..0x90).ok_or(Reject::Truncated {
        what: "the SNP report",
        at: report.len(),
    })?;
    check_binding(report_data, claims)
}

/// What the hardware report inside is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HclHardware {
    /// An SEV-SNP attestation report.
    Snp,
    /// A TDX TD report (1,024 bytes, then zeros); its quote travels beside it.
    Tdx,
}

/// A taken-apart wrapper. Nothing is verified yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HclReport<'a> {
    /// Which hardware.
    pub hardware: HclHardware,
    /// The hardware report, 1,184 bytes.
    pub report: &'a [u8],
    /// Runtime claims, JSON as it was hashed.
    pub claims: &'a [u8],
}

impl<'a> HclReport<'a> {
    /// Takes the wrapper apart. After the claims only zeros may follow.
    ///
    /// # Errors
    /// Form rejects.
    pub fn parse(blob: &'a [u8]) -> Result<Self, Reject> {
        if blob.len() > MAX_HCL_BYTES {
            return Err(Reject::TooLong {
                what: WHAT,
                limit: MAX_HCL_BYTES,
                got: blob.len(),
            });
        }
        let mut at = Reader::new(WHAT, blob);
        if at.array()? != b"HCLA" {
            return Err(Reject::WrongKind { expected: "Azure HCL" });
        }
        let version = at.u32_le()?;
        if !(1..=2).contains(&version) {
            return Err(Reject::Version {
                what: WHAT,
                expected: "1 or 2",
                got: version.into(),
            });
        }
        let (total, request) = (at.u32_le()?, at.u32_le()?);
        expect("the HCL status", "0", at.u32_le()?, 0)?;
        zeros(at.take(12)?, 0x14)?;
        let report = at.take(REPORT_BYTES)?;
        let runtime = at.u32_le()?;
        expect("the version of the HCL runtime data", "1", at.u32_le()?, 1)?;
        let kind = at.u32_le()?;
        let hardware = match kind {
            2 => HclHardware::Snp,
            4 => HclHardware::Tdx,
            got => {
                return Err(Reject::FieldValue {
                    what: "the HCL report type",
                    expected: "2 (SNP) or 4 (TDX)",
                    got: got.into(),
                });
            }
        };
        expect("the HCL request type", "2", request, 2)?;
        expect("the HCL hash type", "1 (SHA-256)", at.u32_le()?, HASH_SHA256)?;
        let length = at.u32_le()?;
        expect(
            "the length of the HCL runtime data",
            "claims and 20 bytes",
            runtime,
            length.saturating_add(20),
        )?;
        let claims = at.take(usize::try_from(length).unwrap_or(usize::MAX))?;
        let end = u32::try_from(at.at()).unwrap_or(u32::MAX);
        expect("the length of the HCL report", "the end of the claims", total, end)?;
        zeros(at.rest(), at.at())?;
        Ok(Self {
            hardware,
            report,
            claims,
        })
    }

    /// Checks that `report_data`, from the verified hardware report, binds the claims: SHA-256 in the first half, zeros
    /// in the second.
    ///
    /// # Errors
    /// [`Reject::InnerHash`].
    pub fn check_binding(&self, report_data: &[u8]) -> Result<(), Reject> {
        check_binding(report_data, self.claims)
    }

    /// Reads the claims. Trust them only after [`HclReport::check_binding`].
    ///
    /// # Errors
    /// [`Reject::Malformed`], [`Reject::MissingField`] or [`Reject::Duplicate`].
    pub fn runtime(&self) -> Result<RuntimeClaims, Reject> {
        let at = CLAIMS_AT;
        let wire: Wire = serde_json::from_slice(self.claims).map_err(|_| Reject::Malformed {
            what: "the HCL runtime data",
            at,
            why: "not the expected JSON",
        })?;
        let mut keys = wire.keys.iter().filter(|key| key.kid == "HCLAkPub");
        let key = keys.next().ok_or(Reject::MissingField {
            what: "HCLAkPub of the HCL runtime data",
        })?;
        if keys.next().is_some() {
            return Err(Reject::Duplicate {
                what: "HCLAkPub of the HCL runtime data",
            });
        }
        if key.kty != "RSA" {
            return Err(Reject::Algorithm {
                what: "HCLAkPub of the HCL runtime data",
                expected: "RSA",
            });
        }
        let (n, e) = (base64url(&key.n)?, base64url(&key.e)?);
        let user_data = match &wire.user_data {
            Some(text) => hex::decode(text).map_err(|_| Reject::Malformed {
                what: "user-data of the HCL runtime data",
                at,
                why: "not hexadecimal",
            })?,
            None => Vec::new(),
        };
        Ok(RuntimeClaims {
            attestation_key: AttestationKey::Components { n, e },
            user_data,
        })
    }
}

/// Runtime claims of a verified wrapper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuntimeClaims {
    /// Key of the virtual TPM.
    pub attestation_key: AttestationKey,
    /// What the guest wrote into the TPM index before it asked for the report, usually 64 bytes.
    pub user_data: Vec<u8>,
}

#[derive(Deserialize)]
struct Wire {
    keys: Vec<WireKey>,
    #[serde(rename = "user-data")]
    user_data: Option<String>,
}

#[derive(Deserialize)]
struct WireKey {
    kid: String,
    kty: String,
    n: String,
    e: String,
}

fn check_binding(report_data: &[u8], claims: &[u8]) -> Result<(), Reject> {
    let mut expected = [0; 64];
    for (to, from) in expected
        .iter_mut()
        .zip(digest::digest(&digest::SHA256, claims).as_ref())
    {
        *to = *from;
    }
    if report_data == expected {
        Ok(())
    } else {
        Err(Reject::InnerHash {
            what: "the HCL runtime data",
        })
    }
}

fn expect(what: &'static str, expected: &'static str, got: u32, wanted: u32) -> Result<(), Reject> {
    if got == wanted {
        Ok(())
    } else {
        Err(Reject::FieldValue {
            what,
            expected,
            got: got.into(),
        })
    }
}

fn zeros(bytes: &[u8], start: usize) -> Result<(), Reject> {
    match bytes.iter().position(|byte| *byte != 0) {
        Some(at) => Err(Reject::ReservedNotZero {
            what: WHAT,
            at: start.saturating_add(at),
        }),
        None => Ok(()),
    }
}

/// Base64url without padding (RFC 7515 section 2).
fn base64url(text: &str) -> Result<Vec<u8>, Reject> {
    let bad = Reject::Malformed {
        what: "a key of the HCL runtime data",
        at: CLAIMS_AT,
        why: "not base64url",
    };
    let mut out = Vec::with_capacity(text.len().saturating_mul(3) / 4);
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in text.bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return Err(bad),
        };
        held = held << 6 | u32::from(digit);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((held >> bits & 0xff) as u8);
            held &= (1 << bits) - 1;
        }
    }
    // A lone digit or set bits past the last byte are another spelling of the same value, or none.
    if bits >= 6 || held != 0 { Err(bad) } else { Ok(out) }
}
