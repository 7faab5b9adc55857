//! NVIDIA GPU attestation: SPDM measurement report and device certificate chain.
//!
//! What is checked: the SPDM signature over request and response, the chain to NVIDIA's device identity root, the
//! firmware identity (FWID) of report and certificate. What is not: comparison of the measurements with NVIDIA's
//! reference manifests (RIM) and revocation (OCSP); the claims say [`TcbStatus::RimNotChecked`], which the default policy
//! refuses. A report binds no CPU: the CPU's evidence must bind the GPU report's identity and nonce.

pub mod composite;
mod report;

pub use report::{MAX_REPORT, Report};

use crate::{
    claims::{Claims, HexBytes, Kind, Measurement, Signer, TcbStatus, TcbVerdict, UnixSeconds},
    der::{Der, tag},
    identity::{EcdsaSignature, evidence_id},
    pem,
    reject::Reject,
    roots::{RootGrade, TrustRoots, Verdict},
    verifier::EvidenceVerifier,
    x509::{Certificate, ChainRules, SignatureAlgorithm, VerifiedLinks, Window, verify_chain},
};
use sha2::{Digest, Sha256};

/// Most certificates of a chain; an H100 has five.
pub const MAX_CHAIN: usize = 8;
const RULES: ChainRules<'static> = ChainRules {
    min: 3,
    max: MAX_CHAIN,
    algorithms: &[SignatureAlgorithm::EcdsaSha384],
    expected: "ECDSA P-384 with SHA-384",
    critical: &[],
    key_usage: true,
    leaf_usage: true,
};
/// TCG DICE composite device identifier, 2.23.133.5.4.1.
const DICE_FWID: &[u8] = &[0x67, 0x81, 0x05, 0x05, 0x04, 0x01];
/// Vendor field with the firmware identity.
const OPAQUE_FWID: u16 = 20;

/// Device certificate chain, leaf first, root last.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GpuCertificates(pub Vec<Vec<u8>>);

impl GpuCertificates {
    /// Reads PEM text.
    ///
    /// # Errors
    /// [`Reject`] for broken PEM or too many certificates.
    pub fn from_pem(text: &[u8]) -> Result<Self, Reject> {
        pem::certificates(text, MAX_CHAIN).map(Self)
    }

    fn parse(&self) -> Result<Vec<Certificate<'_>>, Reject> {
        self.0.iter().map(|der| Certificate::parse(der)).collect()
    }
}

/// Verifies GPU measurement reports.
#[derive(Debug, Clone, Copy, Default)]
pub struct NvidiaVerifier;

impl NvidiaVerifier {
    /// Checks a device chain alone, up to a pinned root.
    ///
    /// # Errors
    /// The first failure.
    pub fn check_chain<G: RootGrade>(
        certificates: &GpuCertificates,
        roots: &TrustRoots<G>,
        at: UnixSeconds,
    ) -> Result<Window, Reject> {
        check_chain(&certificates.parse()?, roots, at)
    }
}

fn check_chain<G: RootGrade>(
    chain: &[Certificate<'_>],
    roots: &TrustRoots<G>,
    at: UnixSeconds,
) -> Result<Window, Reject> {
    if chain.len() < RULES.min {
        return Err(Reject::ChainIncomplete {
            expected: RULES.min,
            got: chain.len(),
        });
    }
    if chain
        .last()
        .is_none_or(|root| roots.find(Kind::NvidiaGpu, root.raw).is_none())
    {
        return Err(Reject::RootNotPinned {
            kind: Kind::NvidiaGpu.as_str(),
        });
    }
    verify_chain(chain, &RULES, at, &VerifiedLinks::default())
}

impl EvidenceVerifier for NvidiaVerifier {
    const KIND: Kind = Kind::NvidiaGpu;
    type Collateral = GpuCertificates;

    fn verify<G: RootGrade>(
        &self,
        raw: &[u8],
        certificates: &GpuCertificates,
        roots: &TrustRoots<G>,
        at: UnixSeconds,
    ) -> Result<Verdict<G>, Reject> {
        refuse_tokens(raw)?;
        let report = Report::parse(raw)?;
        let chain = certificates.parse()?;
        let window = check_chain(&chain, roots, at)?;
        let Some(leaf) = chain.first() else {
            return Err(Reject::ChainIncomplete {
                expected: RULES.min,
                got: 0,
            });
        };
        if !leaf.key.verifies_p384_fixed(report.signed, report.signature) {
            return Err(Reject::SpdmSignature);
        }
        if report.field(OPAQUE_FWID) != Some(firmware_identity(leaf)?) {
            return Err(Reject::Fwid);
        }
        Ok(Verdict::new(claims(&report, leaf, window), roots))
    }
}

/// Names what attestation services hand out beside reports: JSON and JWT claims, which prove nothing without a
/// signature and are of another format with one.
fn refuse_tokens(raw: &[u8]) -> Result<(), Reject> {
    let first = raw.iter().find(|byte| !byte.is_ascii_whitespace());
    if !matches!(first, Some(b'{' | b'[' | b'e')) {
        return Ok(());
    }
    // `{"alg":"none"` in base64url at the three offsets is not worth a decoder: the header is the first part of a JWT.
    let unsigned = raw
        .split(|byte| !(byte.is_ascii_alphanumeric() || b"-_.".contains(byte)))
        .any(is_unsigned_jwt);
    Err(if unsigned {
        Reject::UnsignedToken
    } else {
        Reject::WrongKind {
            expected: "GPU measurement",
        }
    })
}

fn is_unsigned_jwt(word: &[u8]) -> bool {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let mut parts = word.split(|byte| *byte == b'.');
    let (Some(header), Some(_), Some(signature), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    let header = URL_SAFE_NO_PAD
        .decode(header)
        .ok()
        .and_then(|json| serde_json::from_slice::<serde_json::Value>(&json).ok());
    let algorithm = header
        .as_ref()
        .and_then(|header| header.get("alg"))
        .and_then(serde_json::Value::as_str);
    algorithm.is_some_and(|name| name.eq_ignore_ascii_case("none")) || (algorithm.is_some() && signature.is_empty())
}

/// FWID of the device certificate: `SEQUENCE { version, deviceID, fwid SEQUENCE { hash, OCTET STRING } }`.
fn firmware_identity<'a>(leaf: &Certificate<'a>) -> Result<&'a [u8], Reject> {
    const WHAT: &str = "the DICE firmware identity";
    let extension = leaf.extension(DICE_FWID).ok_or(Reject::CertExtension { what: WHAT })?;
    let mut list = Der::only(WHAT, extension.value, tag::SEQUENCE)?;
    list.u64()?;
    list.expect(tag::SEQUENCE)?;
    let mut fwid = list.enter(tag::SEQUENCE)?;
    fwid.oid()?;
    let value = fwid.expect(tag::OCTET_STRING)?.value;
    fwid.end()?;
    list.end()?;
    Ok(value)
}

fn claims(report: &Report<'_>, leaf: &Certificate<'_>, window: Window) -> Claims {
    let mut measurement = Measurement::default();
    for (index, _, value) in &report.measurements {
        measurement.set(format!("m{index}"), value);
    }
    let tcb = TcbVerdict {
        status: TcbStatus::RimNotChecked,
        ..TcbVerdict::not_applicable()
    };
    Claims {
        kind: Kind::NvidiaGpu,
        format: "spdm-1.1".to_owned(),
        measurement,
        bound: HexBytes::default(),
        nonce: Some(HexBytes::from(report.nonce.as_slice())),
        public_key: None,
        tcb,
        debug: false,
        smt: None,
        vmpl: None,
        migratable: None,
        provisional_firmware: None,
        signer: Signer::Device(HexBytes::from(Sha256::digest(leaf.spki).as_slice())),
        issued_at: None,
        not_before: window.not_before,
        not_after: window.not_after,
        evidence_id: evidence_id(Kind::NvidiaGpu, report.signed, EcdsaSignature::P384(report.signature)),
    }
}
