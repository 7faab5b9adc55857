//! Claims of a quote's body, read straight from its bytes.

use super::quote::Quote;
use crate::{
    bytes::Reader,
    claims::{Claims, HexBytes, Kind, Measurement, Signer, TcbStatus, TcbVerdict},
    identity::{EcdsaSignature, evidence_id},
    reject::Reject,
    x509::Window,
};
use std::collections::BTreeMap;

/// Registers of a TD report in the order of its layout, after `tee_tcb_svn`.
const TD_REGISTERS: [(&str, usize); 13] = [
    ("mrseam", 48),
    ("mrsignerseam", 48),
    ("seam_attributes", 8),
    ("td_attributes", 8),
    ("xfam", 8),
    ("mrtd", 48),
    ("mrconfigid", 48),
    ("mrowner", 48),
    ("mrownerconfig", 48),
    ("rtmr0", 48),
    ("rtmr1", 48),
    ("rtmr2", 48),
    ("rtmr3", 48),
];

/// Claims of a quote whose signatures are good, with the platform not judged.
pub(super) fn claims(quote: &Quote<'_>, ppid: &[u8], window: Window) -> Result<Claims, Reject> {
    let mut parts = Parts::default();
    match quote.kind {
        Kind::Sgx => parts.enclave(quote.body)?,
        _ => parts.trust_domain(quote.body)?,
    }
    Ok(Claims {
        kind: quote.kind,
        format: quote.format.to_owned(),
        measurement: parts.measurement,
        bound: HexBytes(parts.bound),
        nonce: None,
        public_key: None,
        tcb: TcbVerdict {
            status: TcbStatus::NoCollateral,
            advisories: Vec::new(),
            eval_number: None,
            components: parts.components,
            dynamic_platform: None,
        },
        debug: parts.debug,
        smt: None,
        vmpl: None,
        migratable: None,
        provisional_firmware: None,
        signer: Signer::Ppid(HexBytes::from(ppid)),
        issued_at: None,
        not_before: window.not_before,
        not_after: window.not_after,
        evidence_id: evidence_id(quote.kind, quote.signed, EcdsaSignature::P256(quote.signature)),
    })
}

#[derive(Default)]
struct Parts {
    measurement: Measurement,
    components: BTreeMap<String, u64>,
    bound: Vec<u8>,
    debug: bool,
}

impl Parts {
    fn enclave(&mut self, body: &[u8]) -> Result<(), Reject> {
        let mut reader = Reader::new("the enclave report", body);
        reader.take(16 + 4 + 28)?;
        let attributes = reader.array::<16>()?;
        self.debug = attributes.first().is_some_and(|flags| flags & 0x02 != 0);
        self.measurement.set("attributes", attributes);
        self.measurement.set("mrenclave", reader.take(32)?);
        reader.take(32)?;
        self.measurement.set("mrsigner", reader.take(32)?);
        reader.take(96)?;
        self.measurement.set("isvprodid", reader.take(2)?);
        let svn = reader.u16_le()?;
        self.components.insert("isvsvn".to_owned(), u64::from(svn));
        reader.take(60)?;
        self.bound = reader.take(64)?.to_vec();
        Ok(())
    }

    fn trust_domain(&mut self, body: &[u8]) -> Result<(), Reject> {
        let mut reader = Reader::new("the TD report", body);
        for (index, svn) in reader.array::<16>()?.iter().enumerate() {
            self.components.insert(format!("tee{index}"), u64::from(*svn));
        }
        for (name, width) in TD_REGISTERS {
            let value = reader.take(width)?;
            // TUD bits: any of them (debug among them) makes the domain's memory readable.
            self.debug |= name == "td_attributes" && value.first().is_some_and(|byte| *byte != 0);
            self.measurement.set(name, value);
        }
        self.bound = reader.take(64)?.to_vec();
        if !reader.rest().is_empty() {
            reader.take(16)?;
            self.measurement.set("mrservicetd", reader.take(48)?);
        }
        Ok(())
    }
}
