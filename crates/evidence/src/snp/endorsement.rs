//! The certificate of the key that signs reports: VCEK or VLEK, with AMD's extensions (AMD document 57230, "VCEK
//! Certificate and KDS Interface Specification", sections 3.1 and 3.2).

use super::{product::Product, report::SigningKey, tcb::Tcb};
use crate::{
    der::{Der, tag},
    reject::Reject,
    x509::{Certificate, PublicKey},
};

/// 1.3.6.1.4.1.3704.1, AMD's arc, contents octets; every extension is one or two numbers below it.
const ARC: [u8; 8] = [0x2b, 0x06, 0x01, 0x04, 0x01, 0x9c, 0x78, 0x01];
const PRODUCT_NAME: &[u8] = &[2];
const BOOTLOADER: &[u8] = &[3, 1];
const TEE: &[u8] = &[3, 2];
const SNP: &[u8] = &[3, 3];
const RESERVED: [&[u8]; 4] = [&[3, 4], &[3, 5], &[3, 6], &[3, 7]];
const MICROCODE: &[u8] = &[3, 8];
const FMC: &[u8] = &[3, 9];
const HARDWARE_ID: &[u8] = &[4];
const CSP_ID: &[u8] = &[5];
/// 2.5.4.3, common name.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// What an endorsement certificate says, its own signature aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endorsement<'a> {
    /// Which kind of key.
    pub key: SigningKey,
    /// Which processor.
    pub product: Product,
    /// The TCB that the key is derived from.
    pub tcb: Tcb,
    /// The chip: 64 bytes, 8 for Turin; empty for a VLEK.
    pub hardware_id: &'a [u8],
    /// The cloud provider; empty for a VCEK.
    pub provider: &'a str,
}

impl<'a> Endorsement<'a> {
    /// Reads the extensions. A VCEK names a chip and no provider, a VLEK a provider and no chip; the subject's common
    /// name must agree, so that neither passes for the other.
    ///
    /// # Errors
    /// [`Reject::CertExtension`], [`Reject::CertAlgorithm`] when the key is not P-384.
    pub fn read(certificate: &Certificate<'a>) -> Result<Self, Reject> {
        if !matches!(certificate.key, PublicKey::P384(_)) {
            return Err(Reject::CertAlgorithm {
                what: "the VCEK or VLEK",
                expected: "a P-384 key",
            });
        }
        let key = match common_name(certificate.subject)? {
            "SEV-VCEK" => SigningKey::Vcek,
            "SEV-VLEK" => SigningKey::Vlek,
            _ => {
                return Err(Reject::CertExtension {
                    what: "common name SEV-VCEK or SEV-VLEK",
                });
            }
        };
        let product = text(certificate, PRODUCT_NAME, "productName")?
            .and_then(Product::of_name)
            .ok_or(Reject::CertExtension {
                what: "productName (Milan, Genoa or Turin)",
            })?;
        let hardware_id = hardware_id(certificate, product)?;
        let provider = text(certificate, CSP_ID, "cspID")?;
        let (hardware_id, provider) = match (key, hardware_id, provider) {
            (SigningKey::Vcek, Some(chip), None) => (chip, ""),
            (SigningKey::Vlek, None, Some(provider)) => (&[][..], provider),
            _ => {
                return Err(Reject::CertExtension {
                    what: "hwID of a VCEK, cspID of a VLEK",
                });
            }
        };
        Ok(Self {
            key,
            product,
            tcb: tcb(certificate, product)?,
            hardware_id,
            provider,
        })
    }

    /// Common name of the authority that issues such certificates: `SEV-Milan`, `SEV-VLEK-Milan`...
    #[must_use]
    pub fn issuer_name(&self) -> String {
        match self.key {
            SigningKey::Vcek => format!("SEV-{}", self.product),
            SigningKey::Vlek => format!("SEV-VLEK-{}", self.product),
        }
    }
}

fn extension<'a>(certificate: &Certificate<'a>, below: &[u8]) -> Option<&'a [u8]> {
    certificate
        .extensions
        .iter()
        .find(|extension| extension.oid.strip_prefix(&ARC) == Some(below))
        .map(|extension| extension.value)
}

fn tcb(certificate: &Certificate<'_>, product: Product) -> Result<Tcb, Reject> {
    for below in RESERVED {
        if version(certificate, below, "a reserved TCB component")?.is_some_and(|value| value != 0) {
            return Err(Reject::CertExtension {
                what: "a reserved TCB component, zero",
            });
        }
    }
    let needed = |below, what| version(certificate, below, what)?.ok_or(Reject::CertExtension { what });
    let fmc = version(certificate, FMC, "fmcSPL")?;
    let fmc = match product {
        Product::Turin => fmc.ok_or(Reject::CertExtension { what: "fmcSPL" })?,
        // The component does not exist there, so no report can match another value.
        Product::Milan | Product::Genoa if fmc.unwrap_or(0) == 0 => 0,
        Product::Milan | Product::Genoa => {
            return Err(Reject::CertExtension {
                what: "fmcSPL, absent or zero",
            });
        }
    };
    Ok(Tcb {
        fmc,
        bootloader: needed(BOOTLOADER, "blSPL")?,
        tee: needed(TEE, "teeSPL")?,
        snp: needed(SNP, "snpSPL")?,
        microcode: needed(MICROCODE, "ucodeSPL")?,
    })
}

/// A component's version: an INTEGER of one byte.
fn version(certificate: &Certificate<'_>, below: &[u8], what: &'static str) -> Result<Option<u8>, Reject> {
    let Some(value) = extension(certificate, below) else {
        return Ok(None);
    };
    let mut der = Der::new(what, value);
    let number = der.u64()?;
    der.end()?;
    u8::try_from(number)
        .map(Some)
        .map_err(|_| Reject::CertExtension { what })
}

/// An IA5String of printable characters.
fn text<'a>(certificate: &Certificate<'a>, below: &[u8], what: &'static str) -> Result<Option<&'a str>, Reject> {
    let Some(value) = extension(certificate, below) else {
        return Ok(None);
    };
    let mut der = Der::new(what, value);
    let text = der.expect(tag::IA5_STRING)?.value;
    der.end()?;
    let printable = text.iter().all(|byte| (0x20..0x7f).contains(byte)) && !text.is_empty();
    match std::str::from_utf8(text) {
        Ok(text) if printable => Ok(Some(text)),
        _ => Err(Reject::CertExtension { what }),
    }
}

/// The chip's id: the bare bytes, in some certificates inside an OCTET STRING of their own.
fn hardware_id<'a>(certificate: &Certificate<'a>, product: Product) -> Result<Option<&'a [u8]>, Reject> {
    let Some(value) = extension(certificate, HARDWARE_ID) else {
        return Ok(None);
    };
    let wanted = product.chip_id_bytes();
    let bytes = match value {
        [tag::OCTET_STRING, length, inner @ ..] if usize::from(*length) == wanted && inner.len() == wanted => inner,
        bare => bare,
    };
    if bytes.len() == wanted {
        Ok(Some(bytes))
    } else {
        Err(Reject::CertExtension { what: "hwID" })
    }
}

/// The one common name of a distinguished name.
pub(super) fn common_name(name: &[u8]) -> Result<&str, Reject> {
    const WHAT: &str = "a certificate's name";
    let mut sets = Der::only(WHAT, name, tag::SEQUENCE)?;
    let mut found = None;
    while !sets.is_empty() {
        let mut set = sets.enter(tag::SET)?;
        while !set.is_empty() {
            let mut attribute = set.enter(tag::SEQUENCE)?;
            let oid = attribute.oid()?;
            let value = attribute.any()?;
            attribute.end()?;
            if oid == COMMON_NAME && found.replace(value.value).is_some() {
                return Err(Reject::Duplicate {
                    what: "the common name of a certificate",
                });
            }
        }
    }
    found
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .ok_or(Reject::MissingField {
            what: "the common name of a certificate",
        })
}
