//! Versions of vendor collateral: what a chain has seen may not be rolled back (D13).
//!
//! Collateral is valid for weeks after a newer one is out, and whoever chooses which to hand in would choose the one in which the own
//! platform's weakness is not yet named. So a chain remembers the newest version of each part that validators have verified, whoever
//! brought it, and refuses older ones: [`CollateralVersion::is_older_than`].

use crate::claims::UnixSeconds;
use opg_primitives::{domain::Tag, hash::keccak};

/// One signed part of vendor collateral and its version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CollateralVersion {
    /// What it is, for people.
    pub part: &'static str,
    /// Which part of which root (docs/specs/ledger.md §12).
    pub subject: [u8; 32],
    /// The vendor's number: `tcbEvaluationDataNumber`, or the number of a revocation list; 0 without one.
    pub number: u64,
    /// When the vendor issued it. 0 with number 0: the part was not handed in.
    pub issued_at: UnixSeconds,
}

impl CollateralVersion {
    /// Whether number or date is below the newest that is known: neither may be lowered.
    #[must_use]
    pub const fn is_older_than(&self, newest: &Newest) -> bool {
        self.number < newest.number || self.issued_at < newest.issued_at
    }
}

/// The newest version of a part that a chain has seen; zeros for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Newest {
    /// Its number.
    pub number: u64,
    /// When it was issued.
    pub issued_at: UnixSeconds,
}

impl Newest {
    /// Takes a verified version; says whether it is newer in number or date and older in neither.
    pub const fn raise(&mut self, version: &CollateralVersion) -> bool {
        let same = version.number == self.number && version.issued_at == self.issued_at;
        if same || version.is_older_than(self) {
            return false;
        }
        self.number = version.number;
        self.issued_at = version.issued_at;
        true
    }
}

/// Names a part: `keccak256("opg/collateral/v1" || root || what)` with the SHA-256 of the root certificate that it is signed under,
/// so that a development root's collateral never meets a vendor's.
#[must_use]
pub(crate) fn subject(root: &[u8; 32], what: &[&[u8]]) -> [u8; 32] {
    let mut bytes = [Tag::Collateral.as_str().as_bytes(), root].concat();
    for part in what {
        // Lengths keep names apart; parts are names and numbers of a few bytes, a distinguished name at most some hundred.
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part);
    }
    keccak(&bytes).0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(number: u64, issued_at: u64) -> CollateralVersion {
        CollateralVersion {
            part: "test",
            subject: [0; 32],
            number,
            issued_at,
        }
    }

    #[test]
    fn neither_number_nor_date_is_lowered() {
        let mut newest = Newest::default();
        assert!(!version(0, 0).is_older_than(&newest));
        assert!(newest.raise(&version(17, 100)));
        for (number, issued_at, older) in [
            (17, 100, false),
            (17, 99, true),
            (16, 100, true),
            (16, 500, true),
            (18, 99, true),
            (17, 101, false),
            (18, 100, false),
            (0, 0, true),
        ] {
            let version = version(number, issued_at);
            assert_eq!(version.is_older_than(&newest), older, "{version:?}");
            let mut raised = newest;
            assert_eq!(raised.raise(&version), !older && (number, issued_at) != (17, 100));
            assert!(raised.number >= newest.number && raised.issued_at >= newest.issued_at);
        }
    }

    #[test]
    fn subjects_are_apart() {
        let all = [
            subject(&[1; 32], &[b"a", b"b"]),
            subject(&[2; 32], &[b"a", b"b"]),
            subject(&[1; 32], &[b"ab"]),
            subject(&[1; 32], &[b"ab", b""]),
            subject(&[1; 32], &[b"", b"ab"]),
        ];
        for (index, one) in all.iter().enumerate() {
            assert!(all[..index].iter().all(|other| other != one));
        }
    }
}
