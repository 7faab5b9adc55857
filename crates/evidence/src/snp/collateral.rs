//! What lies beside a report: certificates and revocation lists.

use crate::reject::Reject;

/// Most certificates read; a bundle of all products has seven.
pub const MAX_CERTIFICATES: usize = 16;
/// Most revocation lists read.
pub const MAX_LISTS: usize = 8;

/// Certificates and revocation lists for one report, none of them trusted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SnpCollateral {
    /// DER: the VCEK or VLEK first, then its authority (ASK or ASVK) and whatever else came with it. Roots (ARK) in
    /// here are not used: the trust set has them.
    pub certificates: Vec<Vec<u8>>,
    /// DER: revocation lists. Those of the chain's root are checked, others ignored.
    pub crls: Vec<Vec<u8>>,
}

impl SnpCollateral {
    /// Collateral of an endorsement certificate and its authority.
    #[must_use]
    pub fn new(endorsement: Vec<u8>, authority: Vec<u8>) -> Self {
        Self {
            certificates: vec![endorsement, authority],
            crls: Vec::new(),
        }
    }

    /// Bounds of the lists; the elements have their own.
    pub(super) fn check_bounds(&self) -> Result<(), Reject> {
        if self.certificates.len() > MAX_CERTIFICATES {
            return Err(Reject::ChainTooLong {
                limit: MAX_CERTIFICATES,
                got: self.certificates.len(),
            });
        }
        if self.crls.len() > MAX_LISTS {
            return Err(Reject::TooLong {
                what: "the set of revocation lists",
                limit: MAX_LISTS,
                got: self.crls.len(),
            });
        }
        Ok(())
    }
}
