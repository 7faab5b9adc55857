//! What lies beside a document: certificates, revocation lists, collateral, wrappers, quotes of virtual TPMs, event logs.

use super::wire::{self, Fields, HexQuote};
use crate::{
    bytes::Reader,
    claims::{Claims, HexBytes, Kind},
    dcap::{
        IntelCollateral,
        eventlog::{self, Event},
    },
    der::{Der, tag},
    nvidia::GpuCertificates,
    pem,
    reject::Reject,
    snp::{
        SnpCollateral,
        azure::{HclHardware, HclReport},
        tpm::TpmQuote,
    },
    x509::Certificate,
};
use serde::Serialize;

/// Most certificates, and most lists, that are kept.
pub const MAX_COMPANIONS: usize = 64;
/// Registers of a TPM bank.
const MAX_REGISTERS: usize = 24;

/// What a file beside a document was recognised as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Companion {
    /// Certificates or revocation lists, in PEM or DER.
    Certificates,
    /// Intel's collateral (JSON).
    IntelCollateral,
    /// Azure's wrapper with the runtime data that a report binds.
    AzureHcl,
    /// A quote of a virtual TPM.
    TpmQuote,
    /// The firmware's event log.
    EventLog,
}

/// A quote of a virtual TPM, not verified: [`Companions::check`] does that under the key that a report binds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TpmEvidence {
    /// `TPMS_ATTEST`.
    pub message: Vec<u8>,
    /// RSASSA signature of it.
    pub signature: Vec<u8>,
    /// Values of the registers, by index.
    pub registers: Vec<[u8; 32]>,
}

impl TpmEvidence {
    /// Reads the two forms in which such quotes are stored: JSON in hexadecimal (`message`, `signature`, `pcrs`), and
    /// binary: signature, message and registers, each behind a little-endian 64-bit length or count.
    ///
    /// # Errors
    /// Form rejects.
    pub fn parse(bytes: &[u8]) -> Result<Self, Reject> {
        if bytes.trim_ascii_start().first() == Some(&b'{') {
            return wire::read::<HexQuote>(bytes).map(Self::from);
        }
        const WHAT: &str = "the stored TPM quote";
        let mut at = Reader::new(WHAT, bytes);
        let signature = sized(&mut at)?.to_vec();
        let message = sized(&mut at)?.to_vec();
        let count = length(&mut at)?;
        if count > MAX_REGISTERS {
            return Err(Reject::FieldLength {
                what: "the list of TPM registers",
                min: 0,
                max: MAX_REGISTERS,
                got: count,
            });
        }
        let registers = (0..count).map(|_| at.array().copied()).collect::<Result<_, _>>()?;
        if !at.rest().is_empty() {
            return Err(Reject::TrailingBytes {
                what: WHAT,
                at: at.at(),
            });
        }
        Ok(Self {
            message,
            signature,
            registers,
        })
    }
}

fn length(at: &mut Reader<'_>) -> Result<usize, Reject> {
    Ok(usize::try_from(u64::from_le_bytes(*at.array()?)).unwrap_or(usize::MAX))
}

fn sized<'a>(at: &mut Reader<'a>) -> Result<&'a [u8], Reject> {
    let count = length(at)?;
    at.take(count)
}

/// What a companion proves once it is tied to verified claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Checked {
    /// Azure: the report binds the runtime data, which holds these bytes of the guest.
    RuntimeData {
        /// `user-data` of the runtime claims.
        user_data: HexBytes,
    },
    /// The virtual TPM, whose key the runtime data holds, signed these registers and bytes of the guest.
    TpmQuote {
        /// Registers under the signature.
        registers: Vec<u8>,
        /// Nonce.
        extra_data: HexBytes,
    },
    /// The log replays to the registers of the quote.
    EventLog {
        /// Number of events.
        events: usize,
    },
}

/// Everything beside a document, by its form. Nothing in here is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Companions {
    /// Certificates (DER), in the order found.
    pub certificates: Vec<Vec<u8>>,
    /// Revocation lists (DER).
    pub lists: Vec<Vec<u8>>,
    /// Intel's collateral.
    pub intel: Option<IntelCollateral>,
    /// A quote of a virtual TPM.
    pub tpm: Option<TpmEvidence>,
    /// Event log of a trust domain.
    pub events: Option<Vec<Event>>,
    wrapper: Option<Vec<u8>>,
}

impl Companions {
    /// Recognises a file by its contents and keeps what it holds; `None` if it is nothing that any verifier uses.
    ///
    /// # Errors
    /// Form rejects for a recognised file that is broken, [`Reject::Duplicate`] where only one can belong to a document,
    /// [`Reject::TooLong`] beyond [`MAX_COMPANIONS`].
    pub fn add(&mut self, file: &[u8]) -> Result<Option<Companion>, Reject> {
        let fields = Fields::of(file);
        let is_json = |names: &[&str]| fields.as_ref().is_some_and(|fields| fields.have(names));
        let is_pem = || contains(file, b"-----BEGIN CERTIFICATE-----") || contains(file, b"-----BEGIN X509 CRL-----");
        // JSON is looked at first: Intel's collateral holds PEM in its strings.
        let found = if fields.is_none() && is_pem() {
            self.certificates.extend(pem::certificates(file, MAX_COMPANIONS)?);
            self.lists.extend(pem::lists(file, MAX_COMPANIONS)?);
            Companion::Certificates
        } else if file.first() == Some(&tag::SEQUENCE) {
            match der_form(file) {
                Some(DerForm::Certificate) => self.certificates.push(file.to_vec()),
                Some(DerForm::List) => self.lists.push(file.to_vec()),
                None => return Ok(None),
            }
            Companion::Certificates
        } else if file.starts_with(b"HCLA") {
            self.set_wrapper(file.to_vec())?;
            Companion::AzureHcl
        } else if is_json(&["tcb_info", "qe_identity"]) {
            if self.intel.replace(IntelCollateral::from_json(file)?).is_some() {
                return Err(Reject::Duplicate {
                    what: "Intel's collateral",
                });
            }
            Companion::IntelCollateral
        } else if is_json(&["message", "signature", "pcrs"]) || is_binary_tpm_quote(file) {
            if self.tpm.replace(TpmEvidence::parse(file)?).is_some() {
                return Err(Reject::Duplicate { what: "the TPM quote" });
            }
            Companion::TpmQuote
        } else if contains(file.get(..64).unwrap_or_default(), b"Spec ID Event03\0") {
            if self.events.replace(eventlog::ccel(file)?).is_some() {
                return Err(Reject::Duplicate { what: "the event log" });
            }
            Companion::EventLog
        } else {
            return Ok(None);
        };
        if self.certificates.len().max(self.lists.len()) > MAX_COMPANIONS {
            return Err(Reject::TooLong {
                what: "the set of certificates and lists beside the document",
                limit: MAX_COMPANIONS,
                got: self.certificates.len().max(self.lists.len()),
            });
        }
        Ok(Some(found))
    }

    /// Keeps Azure's wrapper.
    pub(super) fn set_wrapper(&mut self, blob: Vec<u8>) -> Result<(), Reject> {
        match self.wrapper.replace(blob) {
            Some(before) if self.wrapper.as_ref() != Some(&before) => Err(Reject::Duplicate {
                what: "Azure's HCL wrapper",
            }),
            _ => Ok(()),
        }
    }

    /// Azure's wrapper, whole.
    #[must_use]
    pub fn wrapper(&self) -> Option<&[u8]> {
        self.wrapper.as_deref()
    }

    /// Collateral of an SNP report: the endorsement certificate, told by not being an authority, comes first.
    ///
    /// # Errors
    /// [`Reject::Duplicate`] for two different endorsement certificates: nothing here says which one belongs.
    pub fn snp(&self) -> Result<SnpCollateral, Reject> {
        let is_authority = |der: &[u8]| Certificate::parse(der).is_ok_and(|certificate| certificate.is_authority());
        let mut certificates: Vec<Vec<u8>> = Vec::new();
        for der in &self.certificates {
            if !certificates.contains(der) {
                certificates.push(der.clone());
            }
        }
        certificates.sort_by_key(|der| is_authority(der));
        if certificates.get(1).is_some_and(|der| !is_authority(der)) {
            return Err(Reject::Duplicate {
                what: "the chip's certificate",
            });
        }
        // Authorities alone: the report's certificate is not here.
        if certificates.first().is_some_and(|der| is_authority(der)) {
            return Err(Reject::NoVcek);
        }
        Ok(SnpCollateral {
            certificates,
            crls: self.lists.clone(),
        })
    }

    /// Chain of a GPU, in the order found: leaf first.
    #[must_use]
    pub fn gpu(&self) -> GpuCertificates {
        GpuCertificates(self.certificates.clone())
    }

    /// Ties the wrapper, the TPM quote and the event log to claims that a verifier has made. Certificates and
    /// collateral are the verifier's own.
    ///
    /// # Errors
    /// [`Reject::WrongKind`] for a wrapper of other hardware, [`Reject::InnerHash`], [`Reject::Signature`],
    /// [`Reject::EventLog`], [`Reject::MissingField`] for a TPM quote without the wrapper that vouches for its key.
    pub fn check(&self, claims: &Claims) -> Result<Vec<Checked>, Reject> {
        let mut checked = Vec::new();
        let mut key = None;
        if let Some(blob) = &self.wrapper {
            let wrapper = HclReport::parse(blob)?;
            let held = match wrapper.hardware {
                HclHardware::Snp => Kind::Snp,
                HclHardware::Tdx => Kind::Tdx,
            };
            if held != claims.kind {
                return Err(Reject::WrongKind {
                    expected: claims.kind.as_str(),
                });
            }
            wrapper.check_binding(claims.bound.as_ref())?;
            let runtime = wrapper.runtime()?;
            checked.push(Checked::RuntimeData {
                user_data: HexBytes(runtime.user_data),
            });
            key = Some(runtime.attestation_key);
        }
        if let Some(evidence) = &self.tpm {
            let key = key.ok_or(Reject::MissingField {
                what: "Azure's wrapper, which vouches for the TPM's key,",
            })?;
            let quote = TpmQuote::verify(&evidence.message, &evidence.signature, &key)?;
            checked.push(Checked::TpmQuote {
                registers: quote.check_registers(&evidence.registers)?,
                extra_data: HexBytes(quote.extra_data),
            });
        }
        if let Some(events) = &self.events {
            eventlog::check(events, claims)?;
            checked.push(Checked::EventLog { events: events.len() });
        }
        Ok(checked)
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// A signature behind its length, then a message that begins as every TPM quote does.
fn is_binary_tpm_quote(file: &[u8]) -> bool {
    let mut at = Reader::new("the stored TPM quote", file);
    sized(&mut at).is_ok() && sized(&mut at).is_ok_and(|message| message.starts_with(b"\xffTCG\x80\x18"))
}

enum DerForm {
    Certificate,
    List,
}

/// A certificate of version 3 begins with its version in `[0]`, a list of version 2 with a bare integer.
fn der_form(file: &[u8]) -> Option<DerForm> {
    let mut outer = Der::only("a DER file", file, tag::SEQUENCE).ok()?;
    let inner = outer.enter(tag::SEQUENCE).ok()?;
    match inner.peek()? {
        tag::INTEGER => Some(DerForm::List),
        version if version == tag::context(0) => Some(DerForm::Certificate),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_files_are_not_kept() {
        let mut beside = Companions::default();
        for file in [
            &b""[..],
            b"notes",
            b"{\"a\": 1}",
            &[0x30, 0x03, 0x02, 0x01, 0x05],
            &[0x30, 0x80],
        ] {
            assert_eq!(beside.add(file).unwrap(), None);
        }
        assert_eq!(beside, Companions::default());
    }

    #[test]
    fn broken_files_are_named() {
        let mut beside = Companions::default();
        for file in [
            &b"-----BEGIN CERTIFICATE-----\nAQID"[..],
            b"HCLA",
            br#"{"tcb_info": 1, "qe_identity": 2}"#,
            br#"{"message": 1, "signature": 2, "pcrs": 3}"#,
            b"\0\0\0\0\0\0\0\0\x06\0\0\0\0\0\0\0\xffTCG\x80\x18",
        ] {
            let outcome = match beside.add(file) {
                // A wrapper is taken apart when claims are there to tie it to.
                Ok(Some(Companion::AzureHcl)) => HclReport::parse(beside.wrapper().unwrap()).map(|_| ()),
                other => other.map(|_| ()),
            };
            assert!(outcome.is_err(), "{file:?}");
        }
    }

    #[test]
    fn two_wrappers_do_not_belong_to_one_document() {
        let mut beside = Companions::default();
        assert_eq!(beside.add(b"HCLA1").unwrap(), Some(Companion::AzureHcl));
        assert_eq!(beside.add(b"HCLA1").unwrap(), Some(Companion::AzureHcl));
        assert!(matches!(beside.add(b"HCLA2"), Err(Reject::Duplicate { .. })));
    }

    #[test]
    fn stored_tpm_quotes_are_bounded() {
        let store = |signature: &[u8], count: u64, registers: usize| {
            let mut out = (signature.len() as u64).to_le_bytes().to_vec();
            out.extend(signature);
            out.extend(2u64.to_le_bytes());
            out.extend([1, 2]);
            out.extend(count.to_le_bytes());
            out.extend(vec![0; registers]);
            out
        };
        let good = store(&[7; 9], 2, 64);
        let quote = TpmEvidence::parse(&good).unwrap();
        assert_eq!(
            (quote.message.len(), quote.signature.len(), quote.registers.len()),
            (2, 9, 2)
        );
        for end in 0..good.len() {
            assert!(TpmEvidence::parse(&good[..end]).is_err());
        }
        assert!(TpmEvidence::parse(&[&good[..], &[0]].concat()).is_err());
        assert!(TpmEvidence::parse(&store(&[], u64::MAX, 64)).is_err());
        assert!(TpmEvidence::parse(&store(&[], 25, 25 * 32)).is_err());
        assert!(TpmEvidence::parse(&u64::MAX.to_le_bytes()).is_err());
    }
}
