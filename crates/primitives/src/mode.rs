//! Verification modes and evidence grades (receipt.md §4, D9).

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// How the work behind a receipt is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Node signature only: never called verified.
    None,
    /// Keyset attested by hardware.
    Tee,
    /// Zero-knowledge proof of the exact integer program.
    Zk,
    /// Fingerprint trace, audited by sampled re-execution.
    Replay,
}

impl Mode {
    /// All modes, by code.
    pub const ALL: [Self; 4] = [Self::None, Self::Tee, Self::Zk, Self::Replay];

    /// The number that stands in receipts and in the ledger.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Tee => 1,
            Self::Zk => 2,
            Self::Replay => 3,
        }
    }

    /// The mode of a number.
    ///
    /// # Errors
    /// [`UnknownWord`] for a number that is no mode.
    pub fn from_code(code: u64) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|mode| u64::from(mode.code()) == code)
            .ok_or(UnknownWord {
                what: "mode",
                expected: "0, 1, 2 or 3",
                got: code.to_string(),
            })
    }

    /// The word that people and programs read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Tee => "tee",
            Self::Zk => "zk",
            Self::Replay => "replay",
        }
    }
}

/// What stands behind the evidence of a receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// No evidence.
    None,
    /// Evidence of a software attester: never counts as hardware.
    Simulated,
    /// Evidence rooted in a hardware vendor's key, or a proof that needs no hardware.
    Hardware,
}

impl Grade {
    /// All grades, by code.
    pub const ALL: [Self; 3] = [Self::None, Self::Simulated, Self::Hardware];

    /// The number that stands in receipts.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Simulated => 1,
            Self::Hardware => 2,
        }
    }

    /// The grade of a number.
    ///
    /// # Errors
    /// [`UnknownWord`] for a number that is no grade.
    pub fn from_code(code: u64) -> Result<Self, UnknownWord> {
        Self::ALL
            .into_iter()
            .find(|grade| u64::from(grade.code()) == code)
            .ok_or(UnknownWord {
                what: "grade",
                expected: "0, 1 or 2",
                got: code.to_string(),
            })
    }

    /// The word that people and programs read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Simulated => "simulated",
            Self::Hardware => "hardware",
        }
    }
}

/// A word or number outside a fixed list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: expected {expected}, got {got:?}")]
pub struct UnknownWord {
    /// What was being read.
    pub what: &'static str,
    /// What would have been accepted.
    pub expected: &'static str,
    /// What was found, cut to a bounded length.
    pub got: String,
}

impl UnknownWord {
    fn text(what: &'static str, expected: &'static str, got: &str) -> Self {
        Self {
            what,
            expected,
            got: got.chars().take(40).collect(),
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Display for Grade {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Mode {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| UnknownWord::text("mode", "none, tee, zk or replay", text))
    }
}

impl FromStr for Grade {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|grade| grade.as_str() == text)
            .ok_or_else(|| UnknownWord::text("grade", "none, simulated or hardware", text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_words_round_trip() {
        for mode in Mode::ALL {
            assert_eq!(Mode::from_code(mode.code().into()), Ok(mode));
            assert_eq!(mode.as_str().parse(), Ok(mode));
        }
        for grade in Grade::ALL {
            assert_eq!(Grade::from_code(grade.code().into()), Ok(grade));
            assert_eq!(grade.as_str().parse(), Ok(grade));
        }
        assert!(Mode::from_code(4).is_err() && Mode::from_code(256).is_err());
        assert!(Grade::from_code(3).is_err());
        assert!("TEE".parse::<Mode>().is_err() && "".parse::<Grade>().is_err());
    }
}
