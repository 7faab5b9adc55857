//! JSON in which attestation services hand out documents.
//!
//! Forms are told apart by the names of their fields and read strictly: no unknown field, none twice, each value in the
//! one encoding that the form uses.

use super::{
    Companions, Step, Unwrapped,
    wire::{
        AzureSnp, AzureSnpV0, AzureTdxV0, AzureTdxV1, CocoTdx, DstackAttestation, DstackQuote, Fields, LoggedEvent,
        WHAT, read,
    },
};
use crate::{
    claims::Kind,
    dcap::eventlog::{Event, MAX_EVENTS, RUNTIME_EVENT},
    pem,
    reject::Reject,
    snp::azure::HclReport,
};
use std::fmt;

/// A form that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum JsonForm {
    /// Confidential Containers' evidence of an Azure SNP guest, version 0: byte arrays, certificate in PEM.
    AzureSnpV0,
    /// The same, version 1: base64url and hexadecimal, certificate in DER.
    AzureSnpV1,
    /// The same, version 2: as version 1, with the guest's data in the runtime data.
    AzureSnpV2,
    /// Confidential Containers' evidence of an Azure TDX guest, version 0: byte arrays.
    AzureTdxV0,
    /// The same, version 1: base64url and hexadecimal.
    AzureTdxV1,
    /// Confidential Containers' evidence of a TDX guest: a quote in base64, and an event log that is not used.
    CocoTdx,
    /// dstack's TDX quote with its event log.
    DstackQuote,
    /// dstack's attestation: its SCALE form in hexadecimal.
    DstackAttestation,
}

impl JsonForm {
    /// A short stable word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AzureSnpV0 => "json-azure-snp-v0",
            Self::AzureSnpV1 => "json-azure-snp-v1",
            Self::AzureSnpV2 => "json-azure-snp-v2",
            Self::AzureTdxV0 => "json-azure-tdx-v0",
            Self::AzureTdxV1 => "json-azure-tdx-v1",
            Self::CocoTdx => "json-coco-tdx",
            Self::DstackQuote => "json-dstack-quote",
            Self::DstackAttestation => "json-dstack-attestation",
        }
    }

    const fn kind(self) -> Option<Kind> {
        match self {
            Self::AzureSnpV0 | Self::AzureSnpV1 | Self::AzureSnpV2 => Some(Kind::Snp),
            Self::AzureTdxV0 | Self::AzureTdxV1 | Self::CocoTdx | Self::DstackQuote => Some(Kind::Tdx),
            // Says inside what it holds.
            Self::DstackAttestation => None,
        }
    }

    fn of(file: &[u8]) -> Option<Self> {
        let fields = Fields::of(file)?;
        [
            (Self::AzureSnpV0, &["report", "quote", "vcek"][..]),
            (Self::AzureSnpV1, &["hcl_report", "tpm_quote", "vcek"]),
            (Self::AzureTdxV1, &["hcl_report", "tpm_quote", "td_quote", "version"]),
            (Self::AzureTdxV0, &["hcl_report", "tpm_quote", "td_quote"]),
            (Self::CocoTdx, &["quote", "cc_eventlog"]),
            (Self::DstackQuote, &["quote", "event_log"]),
            (Self::DstackAttestation, &["attestation"]),
        ]
        .into_iter()
        .find_map(|(form, names)| fields.have(names).then_some(form))
    }
}

impl fmt::Display for JsonForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AzureSnpV0 => "JSON evidence of an Azure SNP guest, version 0",
            Self::AzureSnpV1 => "JSON evidence of an Azure SNP guest, version 1",
            Self::AzureSnpV2 => "JSON evidence of an Azure SNP guest, version 2",
            Self::AzureTdxV0 => "JSON evidence of an Azure TDX guest, version 0",
            Self::AzureTdxV1 => "JSON evidence of an Azure TDX guest, version 1",
            Self::CocoTdx => "JSON evidence of a TDX guest; its event log is not used",
            Self::DstackQuote => "dstack's JSON quote; its report_data and vm_config fields are not used",
            Self::DstackAttestation => "dstack's JSON attestation",
        })
    }
}

/// Takes the document out of a known form; `None` for anything else.
pub(super) fn unwrap(kind: Kind, file: &[u8]) -> Result<Option<Unwrapped>, Reject> {
    let Some(mut form) = JsonForm::of(file) else {
        return Ok(None);
    };
    if form.kind().is_some_and(|held| held != kind) {
        return Err(Reject::WrongKind {
            expected: kind.as_str(),
        });
    }
    let mut companions = Companions::default();
    let document = match form {
        JsonForm::AzureSnpV0 => {
            let AzureSnpV0 { quote, report, vcek } = read(file)?;
            companions.certificates = pem::certificates(vcek.as_bytes(), super::MAX_COMPANIONS)?;
            companions.tpm = Some(quote.into());
            azure(report, &mut companions)?
        }
        JsonForm::AzureSnpV1 | JsonForm::AzureSnpV2 => {
            let AzureSnp {
                version,
                hcl_report,
                tpm_quote,
                vcek,
            } = read(file)?;
            form = match version {
                1 => JsonForm::AzureSnpV1,
                2 => JsonForm::AzureSnpV2,
                got => return Err(other_version("1 or 2", got)),
            };
            companions.certificates.push(vcek.0);
            companions.tpm = Some(tpm_quote.into());
            azure(hcl_report.0, &mut companions)?
        }
        JsonForm::AzureTdxV1 => {
            let AzureTdxV1 {
                version,
                tpm_quote,
                hcl_report,
                td_quote,
            } = read(file)?;
            if version != 1 {
                return Err(other_version("1", version));
            }
            companions.tpm = Some(tpm_quote.into());
            companions.set_wrapper(hcl_report.0)?;
            td_quote.0
        }
        JsonForm::CocoTdx => {
            let CocoTdx { quote, .. } = read(file)?;
            quote.0
        }
        JsonForm::AzureTdxV0 => {
            let AzureTdxV0 {
                tpm_quote,
                hcl_report,
                td_quote,
            } = read(file)?;
            companions.tpm = Some(tpm_quote.into());
            companions.set_wrapper(hcl_report)?;
            td_quote
        }
        JsonForm::DstackQuote => {
            let parts: DstackQuote = read(file)?;
            companions.events = Some(events(&parts.event_log)?);
            parts.quote
        }
        JsonForm::DstackAttestation => read::<DstackAttestation>(file)?.attestation,
    };
    let mut steps = vec![Step::Json(form)];
    if form.kind() == Some(Kind::Snp) {
        steps.push(Step::AzureHcl);
    }
    Ok(Some(Unwrapped {
        document,
        steps,
        companions,
    }))
}

fn azure(blob: Vec<u8>, companions: &mut Companions) -> Result<Vec<u8>, Reject> {
    let report = HclReport::parse(&blob)?.report.to_vec();
    companions.set_wrapper(blob)?;
    Ok(report)
}

const fn other_version(expected: &'static str, got: u64) -> Reject {
    Reject::Version {
        what: WHAT,
        expected,
        got,
    }
}

/// Reads dstack's log. The digest of an event of its guest agent must be that of the event's contents.
fn events(log: &str) -> Result<Vec<Event>, Reject> {
    let logged: Vec<LoggedEvent> = read(log.as_bytes())?;
    if logged.len() > MAX_EVENTS {
        return Err(Reject::TooLong {
            what: "the event log",
            limit: MAX_EVENTS,
            got: logged.len(),
        });
    }
    let event = |logged: LoggedEvent| {
        let event = Event {
            register: logged.imr,
            kind: logged.event_type,
            digest: logged.digest,
        };
        if event.kind == RUNTIME_EVENT && event != Event::runtime(&logged.event, &logged.event_payload) {
            return Err(Reject::InnerHash {
                what: "an event of the log",
            });
        }
        Ok(event)
    };
    logged.into_iter().map(event).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read_strictly() {
        let outcome = |kind, text: &str| unwrap(kind, text.as_bytes()).map(|found| found.map(|found| found.document));
        assert_eq!(
            outcome(Kind::Nitro, r#" {"attestation": "0102"}"#),
            Ok(Some(vec![1, 2]))
        );
        assert_eq!(
            outcome(Kind::Tdx, r#"{"quote": "04", "event_log": "[]"}"#),
            Ok(Some(vec![4]))
        );
        for other in [r#"{"claims": []}"#, "[1]", "{", r#"{"attestation": "0102"} x"#] {
            assert_eq!(outcome(Kind::Tdx, other), Ok(None), "{other}");
        }
        for broken in [
            r#"{"attestation": "012"}"#,
            r#"{"attestation": "0102", "more": 1}"#,
            r#"{"attestation": "0102", "attestation": "0102"}"#,
            r#"{"quote": "04", "event_log": "[{}]"}"#,
            r#"{"quote": [4], "event_log": "[]"}"#,
            r#"{"hcl_report": [1], "tpm_quote": {"message": [256], "pcrs": [], "signature": []}, "td_quote": [1]}"#,
        ] {
            assert!(
                matches!(outcome(Kind::Tdx, broken), Err(Reject::Malformed { .. })),
                "{broken}"
            );
        }
        assert!(matches!(
            outcome(Kind::Snp, r#"{"quote": "04", "event_log": "[]"}"#),
            Err(Reject::WrongKind { .. })
        ));
    }

    #[test]
    fn the_place_of_an_error_is_counted_in_bytes() {
        let text = "{\n\"attestation\":\n\"0g\"}";
        let Err(Reject::Malformed { at, .. }) = unwrap(Kind::Tdx, text.as_bytes()) else {
            panic!("a refusal");
        };
        assert!((18..=text.len()).contains(&at), "{at}");
    }

    #[test]
    fn an_event_must_have_the_digest_of_its_contents() {
        let log = |payload: &str| {
            let digest = hex::encode(Event::runtime("name", &[1]).digest);
            format!(
                r#"[{{"imr":3,"event_type":{RUNTIME_EVENT},"digest":"{digest}","event":"name","event_payload":"{payload}"}}]"#
            )
        };
        assert_eq!(events(&log("01")).unwrap(), [Event::runtime("name", &[1])]);
        assert!(matches!(events(&log("02")), Err(Reject::InnerHash { .. })));
    }
}
