//! Why a proof was refused.

use alloy_primitives::{Address, B256, U256};
use opg_contracts::seats::SeatsError;

/// Why a certificate, block or state proof was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// Two values that must be equal differ.
    #[error("{what}: expected {expected}, got {got}")]
    Mismatch {
        /// What was compared.
        what: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        got: String,
    },
    /// Bytes that are not the one encoding of what they should be.
    #[error("{what} is malformed: {reason}")]
    Malformed {
        /// What was read.
        what: &'static str,
        /// Why it was refused.
        reason: String,
    },
    /// Fewer signers than a quorum.
    #[error("certificate has {got} signers, a quorum of {validators} validators needs {expected}")]
    Quorum {
        /// Signers needed.
        expected: usize,
        /// Signers found.
        got: usize,
        /// Size of the set.
        validators: usize,
    },
    /// The aggregate signature does not verify.
    #[error("the certificate is not signed by the validators of its epoch under this genesis file")]
    Signature,
    /// A validator of the genesis file has an invalid key or no valid proof that it owns it.
    #[error("genesis file: {what} of validator {name} is not valid")]
    Validator {
        /// Name of the validator.
        name: String,
        /// Which key or proof.
        what: &'static str,
    },
    /// A set has no or doubled validators.
    #[error("validator set: {0}")]
    ValidatorSet(&'static str),
    /// A seat of a later epoch has a BLS key that is none.
    #[error("seat {seat}: not a BLS key")]
    Seat {
        /// Which seat.
        seat: usize,
    },
    /// A hand-over's seats do not decode.
    #[error(transparent)]
    Seats(#[from] SeatsError),
    /// The set of an epoch is not known.
    #[error(
        "the certificate is of epoch {got}, but the sets of epochs {first} to {last} are known: the file lacks hand-overs"
    )]
    UnknownEpoch {
        /// First epoch whose set is known.
        first: u64,
        /// Last one.
        last: u64,
        /// The certificate's.
        got: u64,
    },
    /// A trie proof does not lead to its value.
    #[error("{what} of {address}: {reason}")]
    Trie {
        /// Account or slot proof.
        what: &'static str,
        /// The account.
        address: Address,
        /// What the trie library says.
        reason: String,
    },
    /// A slot that the check reads is not in the file.
    #[error("slot {slot:#x} of {address} is not proved by the file")]
    Unproved {
        /// The account.
        address: Address,
        /// The slot.
        slot: U256,
    },
    /// A slot that no check reads: nothing in a file is decoration.
    #[error("slot {slot:#x} of {address} is proved but belongs to no check")]
    Unused {
        /// The account.
        address: Address,
        /// The slot.
        slot: U256,
    },
}

impl ProofError {
    pub(crate) fn mismatch(what: &'static str, expected: impl ToString, got: impl ToString) -> Self {
        Self::Mismatch {
            what,
            expected: expected.to_string(),
            got: got.to_string(),
        }
    }

    pub(crate) fn malformed(what: &'static str, reason: impl ToString) -> Self {
        Self::Malformed {
            what,
            reason: reason.to_string(),
        }
    }
}

/// Fails unless two hashes are equal.
pub(crate) fn same(what: &'static str, expected: B256, got: B256) -> Result<(), ProofError> {
    if expected == got {
        Ok(())
    } else {
        Err(ProofError::mismatch(what, expected, got))
    }
}
