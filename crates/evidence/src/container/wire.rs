//! The fields of the known JSON forms, read strictly.

use super::TpmEvidence;
use crate::reject::Reject;
use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde::{Deserialize, Deserializer, de};
use std::{collections::BTreeSet, fmt};

/// Name of the structure in messages.
pub(super) const WHAT: &str = "the evidence JSON";

/// Reads a form; the error says where it differs.
pub(super) fn read<'a, T: Deserialize<'a>>(file: &'a [u8]) -> Result<T, Reject> {
    serde_json::from_slice(file).map_err(|error| {
        let lines = file.split_inclusive(|byte| *byte == b'\n');
        let before: usize = lines.take(error.line().saturating_sub(1)).map(<[u8]>::len).sum();
        Reject::Malformed {
            what: WHAT,
            at: before.saturating_add(error.column()),
            why: "a field is missing, unknown, there twice or in another encoding",
        }
    })
}

/// The names of an object's fields.
#[derive(Debug)]
pub(super) struct Fields(BTreeSet<String>);

impl Fields {
    /// `None` if the file is no JSON object.
    pub(super) fn of(file: &[u8]) -> Option<Self> {
        match file.trim_ascii_start().first() {
            Some(b'{') => serde_json::from_slice(file).ok(),
            _ => None,
        }
    }

    pub(super) fn have(&self, names: &[&str]) -> bool {
        names.iter().all(|name| self.0.contains(*name))
    }
}

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> de::Visitor<'de> for Names {
            type Value = BTreeSet<String>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut names = BTreeSet::new();
                while let Some((name, de::IgnoredAny)) = map.next_entry::<String, _>()? {
                    // The form's own reader names a repeated field.
                    names.insert(name);
                }
                Ok(names)
            }
        }
        deserializer.deserialize_map(Names).map(Self)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AzureSnpV0 {
    pub(super) quote: ByteQuote,
    pub(super) report: Vec<u8>,
    pub(super) vcek: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AzureSnp {
    pub(super) version: u64,
    pub(super) hcl_report: Base64Url,
    pub(super) tpm_quote: HexQuote,
    pub(super) vcek: Base64Url,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AzureTdxV0 {
    pub(super) tpm_quote: ByteQuote,
    pub(super) hcl_report: Vec<u8>,
    pub(super) td_quote: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AzureTdxV1 {
    pub(super) version: u64,
    pub(super) tpm_quote: HexQuote,
    pub(super) hcl_report: Base64Url,
    pub(super) td_quote: Base64Url,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CocoTdx {
    pub(super) quote: Base64,
    #[serde(rename = "cc_eventlog")]
    pub(super) _cc_eventlog: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ByteQuote {
    pub(super) message: Vec<u8>,
    pub(super) pcrs: Vec<[u8; 32]>,
    pub(super) signature: Vec<u8>,
}

impl From<ByteQuote> for TpmEvidence {
    fn from(quote: ByteQuote) -> Self {
        Self {
            message: quote.message,
            signature: quote.signature,
            registers: quote.pcrs,
        }
    }
}

/// A TPM quote in hexadecimal, as a part of evidence or as a file of its own.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HexQuote {
    #[serde(with = "hex::serde")]
    pub(super) message: Vec<u8>,
    pub(super) pcrs: Vec<Register>,
    #[serde(with = "hex::serde")]
    pub(super) signature: Vec<u8>,
}

#[derive(Deserialize)]
pub(super) struct Register(#[serde(with = "hex::serde")] [u8; 32]);

impl From<HexQuote> for TpmEvidence {
    fn from(quote: HexQuote) -> Self {
        Self {
            message: quote.message,
            signature: quote.signature,
            registers: quote.pcrs.into_iter().map(|register| register.0).collect(),
        }
    }
}

pub(super) struct Base64(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(de::Error::custom)
    }
}

pub(super) struct Base64Url(pub(super) Vec<u8>);

impl<'de> Deserialize<'de> for Base64Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map(Self)
            .map_err(de::Error::custom)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DstackAttestation {
    #[serde(with = "hex::serde")]
    pub(super) attestation: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DstackQuote {
    #[serde(with = "hex::serde")]
    pub(super) quote: Vec<u8>,
    pub(super) event_log: String,
    #[serde(rename = "report_data", default)]
    pub(super) _report_data: de::IgnoredAny,
    #[serde(rename = "vm_config", default)]
    pub(super) _vm_config: de::IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LoggedEvent {
    pub(super) imr: u8,
    pub(super) event_type: u32,
    #[serde(with = "hex::serde")]
    pub(super) digest: [u8; 48],
    pub(super) event: String,
    #[serde(with = "hex::serde")]
    pub(super) event_payload: Vec<u8>,
}
