//! The chain above a report: VCEK under ASK under ARK, or VLEK under ASVK under ARK.
//!
//! The two families never mix: both authorities are signed by the same root, so a VLEK offered where a VCEK belongs has
//! a perfect chain. Names of the leaf, of its authority and the report's own flag must agree.

use super::{
    collateral::SnpCollateral,
    endorsement::{Endorsement, common_name},
};
use crate::{
    claims::{Kind, UnixSeconds},
    reject::Reject,
    roots::{Anchor, RootGrade, TrustRoots},
    x509::{Certificate, ChainRules, RevocationList, SignatureAlgorithm, VerifiedLinks, Window, verify_chain},
};

const RULES: ChainRules<'_> = ChainRules {
    min: 3,
    max: 3,
    algorithms: &[SignatureAlgorithm::RsaPssSha384],
    expected: "RSASSA-PSS with SHA-384",
    critical: &[],
    // The leaf has neither key usage nor basic constraints.
    key_usage: false,
    leaf_usage: false,
};

/// Leaf, authority and root, parsed and not yet verified.
#[derive(Debug)]
pub(super) struct Chain<'a> {
    pub(super) certificates: [Certificate<'a>; 3],
    pub(super) endorsement: Endorsement<'a>,
}

impl<'a> Chain<'a> {
    /// Finds the authority among the collateral and the root among the anchors.
    pub(super) fn find<G: RootGrade>(collateral: &'a SnpCollateral, roots: &'a TrustRoots<G>) -> Result<Self, Reject> {
        collateral.check_bounds()?;
        let (leaf, others) = collateral.certificates.split_first().ok_or(Reject::NoVcek)?;
        let leaf = Certificate::parse(leaf)?;
        let endorsement = Endorsement::read(&leaf)?;
        let authority = authority(&leaf, others, roots)?;
        let root = root(&authority, &endorsement, roots)?;
        Ok(Self {
            certificates: [leaf, authority, root],
            endorsement,
        })
    }

    /// Signatures, dates, constraints, names and revocation. Returns the window in which all of it is valid.
    pub(super) fn verify(
        &self,
        collateral: &SnpCollateral,
        at: UnixSeconds,
        known: &VerifiedLinks,
    ) -> Result<Window, Reject> {
        let mut window = verify_chain(&self.certificates, &RULES, at, known)?;
        let [_, authority, root] = &self.certificates;
        let issuer = common_name(authority.subject)?;
        if issuer != self.endorsement.issuer_name() {
            return Err(Reject::SigningKey {
                report: self.endorsement.key.name(),
                certificate: "certificate of another product's or key kind's authority",
            });
        }
        for raw in &collateral.crls {
            let list = RevocationList::parse(raw)?;
            if list.issuer == root.subject {
                let dates = list.verify(root, at)?;
                list.spares(authority, "the first authority above the signing certificate")?;
                window.not_before = window.not_before.max(dates.not_before);
                window.not_after = window.not_after.min(dates.not_after);
            }
        }
        Ok(window)
    }
}

/// The certificate that the leaf names as its issuer; if none has that name, what is offered in its place must at
/// least be refused for the right reason.
fn authority<'a, G: RootGrade>(
    leaf: &Certificate<'_>,
    others: &'a [Vec<u8>],
    roots: &TrustRoots<G>,
) -> Result<Certificate<'a>, Reject> {
    let mut offered = None;
    for raw in others {
        let certificate = Certificate::parse(raw)?;
        if certificate.subject == leaf.issuer {
            return Ok(certificate);
        }
        if offered.is_none() && certificate.subject != certificate.issuer && roots.find(Kind::Snp, raw).is_none() {
            offered = Some(certificate);
        }
    }
    match offered {
        None => Err(Reject::ChainIncomplete { expected: 3, got: 1 }),
        Some(other) if leaf.is_signed_by(&other.key) => Err(Reject::ChainNames {
            what: "the VCEK or VLEK",
        }),
        Some(_) => Err(Reject::CertSignature {
            what: "the VCEK or VLEK",
        }),
    }
}

/// The anchor of the endorsement's product whose subject the authority names as its issuer.
fn root<'a, G: RootGrade>(
    authority: &Certificate<'_>,
    endorsement: &Endorsement<'_>,
    roots: &'a TrustRoots<G>,
) -> Result<Certificate<'a>, Reject> {
    let fits = |anchor: &&Anchor| anchor.label() == endorsement.product.name();
    for anchor in roots.of(Kind::Snp).filter(fits) {
        let certificate = Certificate::parse(anchor.der())?;
        if certificate.subject == authority.issuer {
            return Ok(certificate);
        }
    }
    Err(Reject::RootNotPinned {
        kind: Kind::Snp.as_str(),
    })
}
