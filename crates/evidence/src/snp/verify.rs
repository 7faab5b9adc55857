//! The verifier.

use super::{
    chain::Chain,
    collateral::SnpCollateral,
    endorsement::Endorsement,
    product::Product,
    report::{Report, SigningKey, Tcbs, WHAT},
    tcb::Tcb,
};
use crate::{
    claims::{Claims, HexBytes, Kind, Measurement, Signer, TcbVerdict, UnixSeconds},
    identity::{EcdsaSignature, evidence_id},
    reject::Reject,
    roots::{RootGrade, TrustRoots, Verdict},
    verifier::EvidenceVerifier,
    versions::{CollateralVersion, subject},
    x509::{Certificate, RevocationList, VerifiedLinks, Window},
};
use sha2::{Digest, Sha256};

/// Verifies SEV-SNP reports.
///
/// Order of checks: form of the report, kind of key and product on both sides, chain with dates and revocation, TCB and
/// chip of the certificate against the report's, the report's signature over its raw bytes, TCB values that contradict
/// each other. Debug, VMPL, VLEK, threads and migration are claims for the policy.
#[derive(Debug, Clone, Default)]
pub struct SnpVerifier {
    known: VerifiedLinks,
}

impl SnpVerifier {
    /// A verifier that remembers nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Verifies the chain of `collateral` and remembers that the root signed its authority, which saves one RSA
    /// verification for every later report under the same authority. Verdicts are the same with and without.
    ///
    /// # Errors
    /// As [`EvidenceVerifier::verify`] for everything above the report.
    pub fn remember<G: RootGrade>(
        &mut self,
        collateral: &SnpCollateral,
        roots: &TrustRoots<G>,
        at: UnixSeconds,
    ) -> Result<(), Reject> {
        let chain = Chain::find(collateral, roots)?;
        chain.verify(collateral, at, &self.known)?;
        self.known.remember(&chain.certificates);
        Ok(())
    }

    /// Versions of the revocation lists with which `collateral` was found good; without a list of the chain's root, version 0 of it.
    pub(crate) fn versions<G: RootGrade>(
        collateral: &SnpCollateral,
        roots: &TrustRoots<G>,
    ) -> Result<Vec<CollateralVersion>, Reject> {
        let chain = Chain::find(collateral, roots)?;
        let [_, _, root] = &chain.certificates;
        let mut versions = Vec::new();
        for raw in &collateral.crls {
            let list = RevocationList::parse(raw)?;
            if list.issuer == root.subject {
                versions.push(version(root, Some(&list)));
            }
        }
        if versions.is_empty() {
            versions.push(version(root, None));
        }
        Ok(versions)
    }
}

/// Verifies a revocation list of one of AMD's roots; its version.
///
/// # Errors
/// [`Reject::RootNotPinned`] for a list of anybody else, and what is wrong with it.
pub(crate) fn verify_list<G: RootGrade>(
    raw: &[u8],
    roots: &TrustRoots<G>,
    at: UnixSeconds,
) -> Result<CollateralVersion, Reject> {
    let list = RevocationList::parse(raw)?;
    for anchor in roots.of(Kind::Snp) {
        let root = Certificate::parse(anchor.der())?;
        if root.subject == list.issuer {
            list.verify(&root, at)?;
            return Ok(version(&root, Some(&list)));
        }
    }
    Err(Reject::RootNotPinned {
        kind: Kind::Snp.as_str(),
    })
}

fn version(root: &Certificate<'_>, list: Option<&RevocationList<'_>>) -> CollateralVersion {
    CollateralVersion {
        part: "revocation list of the root",
        subject: subject(&Sha256::digest(root.raw).into(), &[b"crl", root.subject]),
        number: list.map_or(0, |list| list.number),
        issued_at: list.map_or(0, |list| list.this_update),
    }
}

impl EvidenceVerifier for SnpVerifier {
    const KIND: Kind = Kind::Snp;

    type Collateral = SnpCollateral;

    fn verify<G: RootGrade>(
        &self,
        raw: &[u8],
        collateral: &SnpCollateral,
        roots: &TrustRoots<G>,
        at: UnixSeconds,
    ) -> Result<Verdict<G>, Reject> {
        let report = Report::parse(raw)?;
        let chain = Chain::find(collateral, roots)?;
        let endorsement = &chain.endorsement;
        check_family(&report, endorsement)?;
        let window = chain.verify(collateral, at, &self.known)?;
        check_tcb(&report, endorsement)?;
        check_chip(&report, endorsement)?;
        let [leaf, ..] = &chain.certificates;
        if !leaf.key.verifies_p384_fixed(&report.signed, &report.signature) {
            return Err(Reject::Signature { what: WHAT });
        }
        let tcbs = report.tcbs(endorsement.product)?;
        check_order(&tcbs)?;
        let signer = match endorsement.key {
            SigningKey::Vcek => Signer::ChipId(HexBytes::from(endorsement.hardware_id)),
            SigningKey::Vlek => Signer::Vlek(HexBytes::from(Sha256::digest(leaf.spki).as_slice())),
        };
        Ok(Verdict::new(
            claims(&report, endorsement.product, &tcbs, signer, window),
            roots,
        ))
    }
}

/// Key kind and product, as the report says them and as the certificate does.
fn check_family(report: &Report, endorsement: &Endorsement<'_>) -> Result<(), Reject> {
    if let Some(product) = report.product()?.filter(|product| *product != endorsement.product) {
        return Err(Reject::Generation {
            report: product.name(),
            certificate: endorsement.product.name(),
        });
    }
    if report.signing_key != endorsement.key {
        return Err(Reject::SigningKey {
            report: report.signing_key.name(),
            certificate: endorsement.key.name(),
        });
    }
    Ok(())
}

/// The key is derived from the reported TCB, so the certificate must name exactly that one.
fn check_tcb(report: &Report, endorsement: &Endorsement<'_>) -> Result<(), Reject> {
    let reported = Tcb::decode(endorsement.product, report.reported_tcb, 0x180)?;
    for ((component, report), (_, certificate)) in reported.components().into_iter().zip(endorsement.tcb.components()) {
        if report != certificate {
            return Err(Reject::VcekTcb {
                component,
                report,
                certificate,
            });
        }
    }
    Ok(())
}

/// VCEK: the certificate's chip, padded with zeros to the report's 64 bytes. VLEK: no chip at all.
fn check_chip(report: &Report, endorsement: &Endorsement<'_>) -> Result<(), Reject> {
    let masked = report.chip_id == [0; 64];
    match endorsement.key {
        SigningKey::Vlek if masked => Ok(()),
        SigningKey::Vcek if masked => Err(Reject::ChipIdMasked),
        SigningKey::Vlek => Err(Reject::ChipId),
        SigningKey::Vcek => match report.chip_id.strip_prefix(endorsement.hardware_id) {
            Some(rest) if rest.iter().all(|byte| *byte == 0) => Ok(()),
            _ => Err(Reject::ChipId),
        },
    }
}

/// The firmware never reports more than it has committed, and never commits more than it runs.
fn check_order(tcbs: &Tcbs) -> Result<(), Reject> {
    let wrong = |what| {
        Err(Reject::FieldValue {
            what,
            expected: "at most the next higher TCB",
            got: 0,
        })
    };
    if !tcbs.committed.at_least(tcbs.reported) {
        return wrong("the reported TCB against the committed one");
    }
    if !tcbs.current.at_least(tcbs.committed) {
        return wrong("the committed TCB against the current one");
    }
    Ok(())
}

fn claims(report: &Report, product: Product, tcbs: &Tcbs, signer: Signer, window: Window) -> Claims {
    let mut measurement = Measurement::default();
    measurement.set("measurement", &report.measurement);
    measurement.set("host_data", &report.host_data);
    measurement.set("id_key_digest", &report.id_key_digest);
    measurement.set("author_key_digest", &report.author_key_digest);
    measurement.set("family_id", &report.family_id);
    measurement.set("image_id", &report.image_id);

    let mut tcb = TcbVerdict::not_applicable();
    let skip = |name: &str| name == "fmc" && product != Product::Turin;
    for (name, value) in tcbs.reported.components().into_iter().filter(|(name, _)| !skip(name)) {
        tcb.components.insert(name.to_owned(), value.into());
    }
    // The committed version: the one that the platform cannot be rolled back from.
    tcb.components
        .insert("abi_major".to_owned(), report.committed.major.into());
    tcb.components
        .insert("abi_minor".to_owned(), report.committed.minor.into());

    Claims {
        kind: Kind::Snp,
        format: format!("snp-v{}-{}", report.version, product.name().to_ascii_lowercase()),
        measurement,
        bound: HexBytes::from(&report.report_data[..]),
        nonce: None,
        public_key: None,
        tcb,
        debug: report.policy.debug(),
        smt: Some(report.policy.smt() || report.platform.smt()),
        vmpl: Some(report.vmpl),
        migratable: Some(report.policy.migration() || report.has_migration_agent()),
        provisional_firmware: Some(report.provisional()),
        signer,
        issued_at: None,
        not_before: window.not_before,
        not_after: window.not_after,
        evidence_id: evidence_id(Kind::Snp, &report.signed, EcdsaSignature::P384(&report.signature)),
    }
}
