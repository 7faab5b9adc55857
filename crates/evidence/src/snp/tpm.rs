//! TPM 2.0 quotes, as far as confidential virtual machines need them: on Azure the guest cannot put its own bytes into
//! the report, it quotes through a virtual TPM whose key the report binds.
//!
//! Layout: `TPMS_ATTEST` of Trusted Computing Group, "TPM 2.0 Library, Part 2: Structures", section 10.12.8.

use crate::{bytes::Reader, reject::Reject};
use aws_lc_rs::{
    digest,
    signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey},
};

const WHAT: &str = "the TPM quote";
/// `TPM_GENERATED_VALUE`: no other structure that the TPM signs begins so.
const MAGIC: [u8; 4] = [0xff, b'T', b'C', b'G'];
/// `TPM_ST_ATTEST_QUOTE`.
const QUOTE: [u8; 2] = [0x80, 0x18];
/// `TPM_ALG_SHA256`.
const SHA256: u16 = 0x000b;
/// `TPM_ALG_RSASSA`.
const RSASSA: u16 = 0x0014;
/// Longest name, nonce or digest that is read; TPM2B of these are at most 66 bytes (algorithm and SHA-512).
const MAX_FIELD: usize = 66;
/// Banks of registers that one quote may select.
const MAX_BANKS: u32 = 16;

/// One selection of registers: a hash algorithm and the indices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PcrSelection {
    /// `TPM_ALG_ID` of the bank (0x000b: SHA-256).
    pub algorithm: u16,
    /// Registers, ascending.
    pub registers: Vec<u8>,
}

/// A quote: what a TPM signed about its registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmQuote {
    /// Qualified name of the signing key.
    pub signer: Vec<u8>,
    /// What the caller put in: the nonce.
    pub extra_data: Vec<u8>,
    /// Milliseconds since the TPM was cleared.
    pub clock: u64,
    /// Resets since the TPM was cleared.
    pub reset_count: u32,
    /// Restarts since the last reset.
    pub restart_count: u32,
    /// The clock cannot have gone back.
    pub safe: bool,
    /// Vendor's firmware version.
    pub firmware: u64,
    /// Registers under the digest.
    pub selections: Vec<PcrSelection>,
    /// Digest over the selected registers.
    pub pcr_digest: Vec<u8>,
}

impl TpmQuote {
    /// Reads a `TPMS_ATTEST` that is a quote; nothing may follow it.
    ///
    /// # Errors
    /// Form rejects; [`Reject::WrongKind`] for another attestation structure.
    pub fn parse(message: &[u8]) -> Result<Self, Reject> {
        let mut at = Reader::new(WHAT, message);
        if *at.array()? != MAGIC || *at.array()? != QUOTE {
            return Err(Reject::WrongKind {
                expected: "a TPM quote",
            });
        }
        let signer = sized(&mut at)?;
        let extra_data = sized(&mut at)?;
        let clock = u64::from_be_bytes(*at.array()?);
        let reset_count = u32::from_be_bytes(*at.array()?);
        let restart_count = u32::from_be_bytes(*at.array()?);
        let safe = match at.u8()? {
            0 => false,
            1 => true,
            got => {
                return Err(Reject::FieldValue {
                    what: "safe of the TPM clock",
                    expected: "0 or 1",
                    got: got.into(),
                });
            }
        };
        let firmware = u64::from_be_bytes(*at.array()?);
        let banks = u32::from_be_bytes(*at.array()?);
        if banks > MAX_BANKS {
            return Err(Reject::FieldValue {
                what: "register banks",
                expected: "at most 16",
                got: banks.into(),
            });
        }
        let selections = (0..banks).map(|_| selection(&mut at)).collect::<Result<_, _>>()?;
        let pcr_digest = sized(&mut at)?;
        if !at.rest().is_empty() {
            return Err(Reject::TrailingBytes {
                what: WHAT,
                at: at.at(),
            });
        }
        Ok(Self {
            signer,
            extra_data,
            clock,
            reset_count,
            restart_count,
            safe,
            firmware,
            selections,
            pcr_digest,
        })
    }

    /// Verifies the signature (RSASSA PKCS#1 v1.5, SHA-256) over `message` and reads it.
    ///
    /// # Errors
    /// [`Reject::Signature`], then those of [`TpmQuote::parse`].
    pub fn verify(message: &[u8], signature: &[u8], key: &AttestationKey) -> Result<Self, Reject> {
        key.verify(message, signature)?;
        Self::parse(message)
    }

    /// Checks that `registers`, SHA-256 values by index, are those under the quote's digest. Returns the selected
    /// indices; the other values prove nothing.
    ///
    /// # Errors
    /// [`Reject::RegisterAbsent`] for a selected register without a value, [`Reject::InnerHash`] for a wrong value,
    /// [`Reject::Algorithm`] for another bank than SHA-256.
    pub fn check_registers(&self, registers: &[[u8; 32]]) -> Result<Vec<u8>, Reject> {
        let [bank] = self.selections.as_slice() else {
            return Err(Reject::Algorithm {
                what: "the register selection",
                expected: "one SHA-256 bank",
            });
        };
        if bank.algorithm != SHA256 {
            return Err(Reject::Algorithm {
                what: "the register selection",
                expected: "one SHA-256 bank",
            });
        }
        let mut hash = digest::Context::new(&digest::SHA256);
        for index in &bank.registers {
            let value = registers
                .get(usize::from(*index))
                .ok_or_else(|| Reject::RegisterAbsent {
                    register: format!("pcr{index}"),
                })?;
            hash.update(value);
        }
        if hash.finish().as_ref() != self.pcr_digest.as_slice() {
            return Err(Reject::InnerHash {
                what: "the TPM registers",
            });
        }
        Ok(bank.registers.clone())
    }
}

fn sized(at: &mut Reader<'_>) -> Result<Vec<u8>, Reject> {
    let count = usize::from(u16::from_be_bytes(*at.array()?));
    if count > MAX_FIELD {
        return Err(Reject::FieldLength {
            what: "a field of the TPM quote",
            min: 0,
            max: MAX_FIELD,
            got: count,
        });
    }
    Ok(at.take(count)?.to_vec())
}

fn selection(at: &mut Reader<'_>) -> Result<PcrSelection, Reject> {
    let algorithm = u16::from_be_bytes(*at.array()?);
    let size = at.u8()?;
    if size > 4 {
        return Err(Reject::FieldValue {
            what: "size of a register selection",
            expected: "0 to 4",
            got: size.into(),
        });
    }
    let bits = at.take(usize::from(size))?;
    let registers = (0u8..)
        .zip(bits.iter().flat_map(|byte| (0..8).map(move |bit| byte >> bit & 1 == 1)))
        .filter_map(|(index, set)| set.then_some(index))
        .collect();
    Ok(PcrSelection { algorithm, registers })
}

/// Public part of a TPM's attestation key: RSA of 2,048 to 8,192 bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttestationKey {
    /// Modulus and exponent, big-endian.
    Components {
        /// Modulus.
        n: Vec<u8>,
        /// Public exponent.
        e: Vec<u8>,
    },
    /// `SubjectPublicKeyInfo` (DER).
    Spki(Vec<u8>),
}

impl AttestationKey {
    /// Verifies RSASSA PKCS#1 v1.5 with SHA-256.
    ///
    /// # Errors
    /// [`Reject::Signature`].
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), Reject> {
        let checked = match self {
            Self::Components { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            Self::Spki(der) => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der).verify(message, signature),
        };
        checked.map_err(|_| Reject::Signature { what: WHAT })
    }
}

/// The RSA signature inside a `TPMT_SIGNATURE` (RSASSA with SHA-256).
///
/// # Errors
/// [`Reject::Algorithm`] for another scheme, form rejects.
pub fn rsassa_signature(structure: &[u8]) -> Result<&[u8], Reject> {
    let mut at = Reader::new("the TPM signature", structure);
    if u16::from_be_bytes(*at.array()?) != RSASSA || u16::from_be_bytes(*at.array()?) != SHA256 {
        return Err(Reject::Algorithm {
            what: "the TPM signature",
            expected: "RSASSA with SHA-256",
        });
    }
    let count = usize::from(u16::from_be_bytes(*at.array()?));
    let signature = at.take(count)?;
    if !at.rest().is_empty() {
        return Err(Reject::TrailingBytes {
            what: "the TPM signature",
            at: at.at(),
        });
    }
    Ok(signature)
}
