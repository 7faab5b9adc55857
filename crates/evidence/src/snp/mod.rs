//! AMD SEV-SNP attestation reports.
//!
//! [`SnpVerifier`] checks a report against its endorsement certificate and AMD's root; [`azure`] takes Azure's wrapper
//! apart and [`tpm`] reads the virtual TPM quotes that come with it.
//!
//! # Invariants
//! - The signature is checked over the raw bytes; every reserved byte and the signature's padding is zero, so no byte of
//!   an accepted report can change without a refusal.
//! - A VCEK is bound to chip and TCB of the report, a VLEK to its TCB; neither passes for the other.
//! - Debug mode, privilege level, VLEK, threads, migration and firmware that is not committed are claims: the policy
//!   refuses them ([`crate::policy::Policy`]).

pub mod azure;
mod chain;
mod collateral;
mod endorsement;
mod policy_bits;
mod product;
mod report;
#[cfg(feature = "soft")]
pub mod soft;
mod tcb;
pub mod tpm;
mod verify;

pub(crate) use self::verify::verify_list;
pub use self::{
    collateral::{MAX_CERTIFICATES, MAX_LISTS, SnpCollateral},
    endorsement::Endorsement,
    policy_bits::{GuestPolicy, PlatformInfo},
    product::Product,
    report::{CpuId, FirmwareVersion, MitigationVectors, REPORT_BYTES, Report, SIGNED_BYTES, SigningKey, Tcbs},
    tcb::Tcb,
    verify::SnpVerifier,
};
use crate::{claims::Kind, roots::Anchor};

/// AMD's roots, one for each product: the ARK certificates that AMD's key distribution service publishes.
pub(crate) fn pinned_anchors() -> Vec<Anchor> {
    let milan: &'static [u8] = include_bytes!("../../roots/amd-ark-milan.der");
    let genoa: &'static [u8] = include_bytes!("../../roots/amd-ark-genoa.der");
    let turin: &'static [u8] = include_bytes!("../../roots/amd-ark-turin.der");
    [
        (Product::Milan, milan),
        (Product::Genoa, genoa),
        (Product::Turin, turin),
    ]
    .into_iter()
    .map(|(product, der)| Anchor::new(Kind::Snp, product.name(), der))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fingerprints of the certificates that AMD's key distribution service serves as `cert_chain`; virtee/sev and
    /// go-sev-guest pin the same Milan and Genoa roots.
    #[test]
    fn pinned_roots_are_amds() {
        let found: Vec<_> = pinned_anchors()
            .iter()
            .map(|anchor| hex::encode(anchor.sha256()))
            .collect();
        assert_eq!(
            found,
            [
                "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
                "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
                "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
            ]
        );
    }
}
