//! The switchboard of the verifier's checks.

use crate::error::{Check, VerifyError};

/// Which checks are made: all of them, except in tests of the tests.
#[derive(Debug, Clone, Copy, Default)]
pub struct Checks {
    #[cfg(test)]
    removed: Option<Check>,
}

impl Checks {
    /// All checks but one.
    #[cfg(test)]
    #[must_use]
    pub const fn without(check: Check) -> Self {
        Self { removed: Some(check) }
    }

    #[cfg(test)]
    pub(crate) fn is_made(self, check: Check) -> bool {
        self.removed != Some(check)
    }

    #[cfg(not(test))]
    #[allow(clippy::unused_self)]
    pub(crate) const fn is_made(self, _: Check) -> bool {
        true
    }

    pub(crate) fn require(self, check: Check, holds: bool, place: &str) -> Result<(), VerifyError> {
        if holds || !self.is_made(check) {
            return Ok(());
        }
        Err(VerifyError::Check {
            check,
            place: place.to_owned(),
        })
    }
}
