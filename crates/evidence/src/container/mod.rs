//! Takes documents out of what they travel in: text encodings, JSON of attestation services, cloud wrappers, padding.
//!
//! The verifiers take one exact document and refuse anything else. Real files hold more: a document in base64, a quote
//! in a fixed buffer, an Azure report with its chip certificate in JSON. [`unwrap`] finds the one document in such a
//! file and whatever else it carries ([`Companions`]), and says each layer that it took off ([`Step`]). Files that lie
//! beside a document are recognised by their contents ([`Companions::add`]).
//!
//! # Invariants
//! - Layers are taken off in one fixed order, each at most once; what is no known layer passes on unchanged, so that a
//!   verifier refuses it under its own name.
//! - Nothing here is a judgement. A layer that is recognised and broken is refused; a document that comes out is as
//!   untrusted as the file was.
//! - What a companion claims counts only after [`Companions::check`] has tied it to verified claims.
//!
//! ```
//! use opg_evidence::{Kind, container::{Step, unwrap}};
//!
//! let unwrapped = unwrap(Kind::Nitro, b"0x84 44\n")?;
//! assert_eq!(unwrapped.document, [0x84, 0x44]);
//! assert_eq!(unwrapped.steps, [Step::Hexadecimal]);
//! # Ok::<(), opg_evidence::Reject>(())
//! ```

mod beside;
mod certificate_table;
mod dstack;
mod json;
mod text;
mod wire;

pub use self::{
    beside::{Checked, Companion, Companions, MAX_COMPANIONS, TpmEvidence},
    certificate_table::{MAX_TABLE, certificate_table},
    json::JsonForm,
};
use crate::{claims::Kind, dcap::Quote, nvidia, reject::Reject, snp::azure::HclReport};

/// Most bytes of a file, whatever it holds.
pub const MAX_FILE: usize = 2 << 20;

/// A layer that was taken off, in the order in which they lay around the document.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Step {
    /// JSON of an attestation service.
    Json(JsonForm),
    /// Hexadecimal text.
    Hexadecimal,
    /// Base64 text (RFC 4648, section 4 or 5).
    Base64,
    /// The one `REPORT` block of a PEM-like text (RFC 7468's form).
    ReportBlock,
    /// dstack's versioned attestation (SCALE).
    Dstack {
        /// Bytes after the document: dstack's own data, not verified.
        left: usize,
    },
    /// Azure's wrapper; its runtime data goes into the companions.
    AzureHcl,
    /// Zero bytes after the end of the document.
    ZeroPadding {
        /// How many.
        bytes: usize,
    },
}

impl Step {
    /// A short stable word for JSON.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Json(form) => form.name(),
            Self::Hexadecimal => "hexadecimal",
            Self::Base64 => "base64",
            Self::ReportBlock => "report-block",
            Self::Dstack { .. } => "dstack",
            Self::AzureHcl => "azure-hcl",
            Self::ZeroPadding { .. } => "zero-padding",
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Json(form) => write!(f, "{form}"),
            Self::Hexadecimal => f.write_str("hexadecimal text"),
            Self::Base64 => f.write_str("base64 text"),
            Self::ReportBlock => f.write_str("the REPORT block of a text; the text around it is not verified"),
            Self::Dstack { left } => write!(f, "dstack's wrapper; {left} bytes of its data are not verified"),
            Self::AzureHcl => f.write_str("Azure's HCL wrapper"),
            Self::ZeroPadding { bytes } => write!(f, "{bytes} zero bytes after the end of the document"),
        }
    }
}

/// A document without its wrappers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Unwrapped {
    /// What a verifier takes.
    pub document: Vec<u8>,
    /// Layers taken off, the outermost first.
    pub steps: Vec<Step>,
    /// What else the file held.
    pub companions: Companions,
}

/// Takes the document of a kind out of a file.
///
/// # Errors
/// [`Reject::TooLong`] beyond [`MAX_FILE`]; [`Reject::WrongKind`] for a wrapper that says it holds another kind; form
/// rejects for a recognised layer that is broken.
pub fn unwrap(kind: Kind, file: &[u8]) -> Result<Unwrapped, Reject> {
    if file.len() > MAX_FILE {
        return Err(Reject::TooLong {
            what: "the file",
            limit: MAX_FILE,
            got: file.len(),
        });
    }
    let mut found = match json::unwrap(kind, file)? {
        Some(found) => found,
        None => {
            let (document, step) = text::decode(file)?;
            Unwrapped {
                document,
                steps: step.into_iter().collect(),
                companions: Companions::default(),
            }
        }
    };
    if let Some(inner) = dstack::split(kind, &found.document)? {
        found.steps.push(Step::Dstack { left: inner.left });
        found.document = inner.document;
    }
    if kind == Kind::Snp && found.document.starts_with(b"HCLA") {
        let report = HclReport::parse(&found.document)?.report.to_vec();
        found
            .companions
            .set_wrapper(std::mem::replace(&mut found.document, report))?;
        found.steps.push(Step::AzureHcl);
    }
    take_off_padding(kind, &mut found);
    Ok(found)
}

/// Cuts zeros after the structural end. A document that does not parse is left as it is for the verifier to refuse.
fn take_off_padding(kind: Kind, found: &mut Unwrapped) {
    let end = match kind {
        Kind::Tdx | Kind::Sgx => Quote::parse(&found.document).ok().map(|quote| quote.raw.len()),
        Kind::NvidiaGpu => nvidia::Report::parse(&found.document)
            .ok()
            .map(|report| report.signed.len().saturating_add(report.signature.len())),
        _ => None,
    };
    let Some(end) = end else { return };
    let bytes = found.document.len().saturating_sub(end);
    if bytes > 0 {
        found.document.truncate(end);
        found.steps.push(Step::ZeroPadding { bytes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_layer_passes_unchanged() {
        for bytes in [
            &b""[..],
            b"\x04\x00\x02",
            b"{\"unknown\": 1}",
            b"plain text, of no encoding",
            b"{",
        ] {
            for kind in Kind::ALL {
                let unwrapped = unwrap(kind, bytes).unwrap();
                assert_eq!(unwrapped.document, bytes);
                assert!(unwrapped.steps.is_empty() && unwrapped.companions == Companions::default());
            }
        }
    }

    #[test]
    fn files_are_bounded() {
        let refused = unwrap(Kind::Tdx, &vec![0; MAX_FILE + 1]);
        assert!(matches!(refused, Err(Reject::TooLong { .. })));
    }

    #[test]
    fn a_broken_azure_wrapper_is_named() {
        assert!(matches!(
            unwrap(Kind::Snp, b"HCLA\x02\0\0\0"),
            Err(Reject::Truncated { .. })
        ));
        assert_eq!(unwrap(Kind::Tdx, b"HCLA\x02\0\0\0").unwrap().steps, []);
    }
}
