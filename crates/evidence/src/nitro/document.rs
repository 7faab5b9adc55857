//! The attestation document inside its COSE_Sign1: fields and limits of the AWS Nitro Enclaves documentation
//! ("Attestation document specification", syntactical validation).

use super::cbor::Cbor;
use crate::reject::Reject;

/// Most bytes of a whole document; real ones have about 4 600.
pub const MAX_DOCUMENT: usize = 16_384;
/// Most bytes of one certificate (AWS limit).
pub const MAX_CERTIFICATE: usize = 1_024;
/// Most certificates in the bundle; AWS sends four.
pub const MAX_BUNDLE: usize = 7;
/// Bytes of a register: the digest is always SHA-384.
pub const PCR_BYTES: usize = 48;

const COSE: &str = "the COSE_Sign1";
const PAYLOAD: &str = "the attestation document";
/// `{1: -35}`: algorithm ES384 and nothing else.
const PROTECTED_ES384: &[u8] = &[0xa1, 0x01, 0x38, 0x22];

/// Parts of a COSE_Sign1, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sign1<'a> {
    pub(super) payload: &'a [u8],
    pub(super) signature: &'a [u8; 96],
}

impl<'a> Sign1<'a> {
    pub(super) fn parse(raw: &'a [u8]) -> Result<Self, Reject> {
        if raw.len() > MAX_DOCUMENT {
            return Err(Reject::TooLong {
                what: PAYLOAD,
                limit: MAX_DOCUMENT,
                got: raw.len(),
            });
        }
        let mut cbor = Cbor::new(COSE, raw);
        cbor.skip_byte(0xd2);
        let at = cbor.at();
        if cbor.array()? != 4 {
            return Err(Reject::Malformed {
                what: COSE,
                at,
                why: "an array of four is expected",
            });
        }
        let protected = cbor.bytes()?;
        if protected != PROTECTED_ES384 {
            return Err(Reject::Algorithm {
                what: "the protected COSE header",
                expected: "ES384 alone",
            });
        }
        if cbor.map()? != 0 {
            return Err(Reject::UnprotectedHeader);
        }
        let payload = cbor.bytes()?;
        let signature = cbor.bytes()?;
        let got = signature.len();
        let signature = signature.try_into().map_err(|_| Reject::FieldLength {
            what: "the COSE signature",
            min: 96,
            max: 96,
            got,
        })?;
        cbor.end()?;
        Ok(Self { payload, signature })
    }

    /// The `Sig_structure` of RFC 9052 §4.4: `["Signature1", protected, h'', payload]`.
    pub(super) fn to_be_signed(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.payload.len() + 24);
        out.extend_from_slice(&[0x84, 0x6a]);
        out.extend_from_slice(b"Signature1");
        out.push(0x44);
        out.extend_from_slice(PROTECTED_ES384);
        out.push(0x40);
        let mut head = opg_primitives::cbor::Encoder::new();
        head.bytes(self.payload);
        out.extend_from_slice(&head.finish());
        out
    }
}

/// Fields of an attestation document, borrowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document<'a> {
    /// Module that runs the enclave: instance and enclave identifiers.
    pub module_id: &'a str,
    /// When it was made, milliseconds since 1970.
    pub timestamp_ms: u64,
    /// Registers by index, zero ones included.
    pub pcrs: [Option<&'a [u8; PCR_BYTES]>; 32],
    /// Signing certificate (DER).
    pub certificate: &'a [u8],
    /// Authorities, the root first.
    pub cabundle: Vec<&'a [u8]>,
    /// Public key that the enclave put in.
    pub public_key: Option<&'a [u8]>,
    /// Data that the enclave put in.
    pub user_data: Option<&'a [u8]>,
    /// Nonce that the enclave put in.
    pub nonce: Option<&'a [u8]>,
}

impl<'a> Document<'a> {
    pub(super) fn parse(payload: &'a [u8]) -> Result<Self, Reject> {
        let mut cbor = Cbor::new(PAYLOAD, payload);
        let mut fields = Fields::default();
        match cbor.open_map()? {
            Some(count) => {
                for _ in 0..count {
                    let key = cbor.text()?;
                    fields.read(key, &mut cbor)?;
                }
            }
            // Every round reads a key, so the input's end ends the loop.
            None => {
                while !cbor.skip_byte(0xff) {
                    let key = cbor.text()?;
                    fields.read(key, &mut cbor)?;
                }
            }
        }
        cbor.end()?;
        fields.finish()
    }

    /// Whether it comes from a debug enclave: AWS zeroes PCR0, PCR1 and PCR2 there. One zero register is enough: no
    /// production enclave has one.
    #[must_use]
    pub fn is_debug(&self) -> bool {
        self.pcrs
            .iter()
            .take(3)
            .any(|pcr| pcr.is_none_or(|value| value.iter().all(|byte| *byte == 0)))
    }
}

#[derive(Default)]
struct Fields<'a> {
    module_id: Option<&'a str>,
    digest: Option<()>,
    timestamp: Option<u64>,
    pcrs: Option<[Option<&'a [u8; PCR_BYTES]>; 32]>,
    certificate: Option<&'a [u8]>,
    cabundle: Option<Vec<&'a [u8]>>,
    // The outer option says whether the key was met, the inner whether its value is null.
    public_key: Option<Option<&'a [u8]>>,
    user_data: Option<Option<&'a [u8]>>,
    nonce: Option<Option<&'a [u8]>>,
}

impl<'a> Fields<'a> {
    fn read(&mut self, key: &str, cbor: &mut Cbor<'a>) -> Result<(), Reject> {
        match key {
            "module_id" => {
                let id = cbor.text()?;
                length("module_id", id.len(), 1, 256)?;
                once("module_id", &mut self.module_id, id)
            }
            "digest" => {
                let name = cbor.text()?;
                if name != "SHA384" {
                    return Err(Reject::Algorithm {
                        what: "digest",
                        expected: "SHA384",
                    });
                }
                once("digest", &mut self.digest, ())
            }
            "timestamp" => {
                let time = cbor.uint()?;
                if time == 0 {
                    return Err(Reject::FieldValue {
                        what: "timestamp",
                        expected: "a time after 1970",
                        got: 0,
                    });
                }
                once("timestamp", &mut self.timestamp, time)
            }
            "pcrs" => {
                let registers = registers(cbor)?;
                once("pcrs", &mut self.pcrs, registers)
            }
            "certificate" => {
                let der = cbor.bytes()?;
                length("certificate", der.len(), 1, MAX_CERTIFICATE)?;
                once("certificate", &mut self.certificate, der)
            }
            "cabundle" => {
                let bundle = bundle(cbor)?;
                once("cabundle", &mut self.cabundle, bundle)
            }
            "public_key" => user_field("public_key", 1, 1_024, &mut self.public_key, cbor),
            "user_data" => user_field("user_data", 0, 512, &mut self.user_data, cbor),
            "nonce" => user_field("nonce", 0, 512, &mut self.nonce, cbor),
            _ => Err(Reject::UnknownField { what: PAYLOAD }),
        }
    }

    fn finish(self) -> Result<Document<'a>, Reject> {
        let missing = |what| move || Reject::MissingField { what };
        self.digest.ok_or_else(missing("digest"))?;
        let pcrs = self.pcrs.ok_or_else(missing("pcrs"))?;
        if pcrs.iter().take(3).any(Option::is_none) {
            return Err(Reject::MissingField {
                what: "one of PCR0, PCR1 and PCR2",
            });
        }
        Ok(Document {
            module_id: self.module_id.ok_or_else(missing("module_id"))?,
            timestamp_ms: self.timestamp.ok_or_else(missing("timestamp"))?,
            pcrs,
            certificate: self.certificate.ok_or_else(missing("certificate"))?,
            cabundle: self.cabundle.ok_or_else(missing("cabundle"))?,
            public_key: self.public_key.flatten(),
            user_data: self.user_data.flatten(),
            nonce: self.nonce.flatten(),
        })
    }
}

fn once<T>(what: &'static str, slot: &mut Option<T>, value: T) -> Result<(), Reject> {
    if slot.replace(value).is_some() {
        Err(Reject::Duplicate { what })
    } else {
        Ok(())
    }
}

const fn length(what: &'static str, got: usize, min: usize, max: usize) -> Result<(), Reject> {
    if got < min || got > max {
        Err(Reject::FieldLength { what, min, max, got })
    } else {
        Ok(())
    }
}

fn user_field<'a>(
    what: &'static str,
    min: usize,
    max: usize,
    slot: &mut Option<Option<&'a [u8]>>,
    cbor: &mut Cbor<'a>,
) -> Result<(), Reject> {
    let value = cbor.optional_bytes()?;
    if let Some(value) = value {
        length(what, value.len(), min, max)?;
    }
    once(what, slot, value)
}

fn registers<'a>(cbor: &mut Cbor<'a>) -> Result<[Option<&'a [u8; PCR_BYTES]>; 32], Reject> {
    let count = cbor.map()?;
    if !(1..=32).contains(&count) {
        return Err(Reject::FieldValue {
            what: "the number of PCRs",
            expected: "1 to 32",
            got: count,
        });
    }
    let mut found = [None; 32];
    for _ in 0..count {
        let index = cbor.uint()?;
        let value = cbor.bytes()?;
        let slot = usize::try_from(index).ok().and_then(|index| found.get_mut(index));
        let slot = slot.ok_or(Reject::FieldValue {
            what: "a PCR's index",
            expected: "0 to 31",
            got: index,
        })?;
        let got = value.len();
        let value: &[u8; PCR_BYTES] = value.try_into().map_err(|_| Reject::FieldLength {
            what: "a PCR",
            min: PCR_BYTES,
            max: PCR_BYTES,
            got,
        })?;
        once("a PCR", slot, value)?;
    }
    Ok(found)
}

fn bundle<'a>(cbor: &mut Cbor<'a>) -> Result<Vec<&'a [u8]>, Reject> {
    let count = cbor.array()?;
    let limit = MAX_BUNDLE + 1;
    match usize::try_from(count) {
        Ok(0) => return Err(Reject::ChainIncomplete { expected: 2, got: 1 }),
        Ok(count) if count <= MAX_BUNDLE => {}
        _ => {
            return Err(Reject::ChainTooLong {
                limit,
                got: usize::try_from(count).unwrap_or(usize::MAX).saturating_add(1),
            });
        }
    }
    (0..count)
        .map(|_| {
            let der = cbor.bytes()?;
            length("a certificate of cabundle", der.len(), 1, MAX_CERTIFICATE).map(|()| der)
        })
        .collect()
}
