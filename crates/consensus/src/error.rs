//! Errors of consensus.

use crate::keys::KeyError;
use std::path::PathBuf;

/// Why consensus does not start, or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsensusError {
    /// The configuration cannot work.
    #[error("configuration: {0}")]
    Config(String),
    /// A key of the configuration is malformed.
    #[error("key of {of}: {source}")]
    Key {
        /// Whose key.
        of: String,
        /// What is wrong with it.
        #[source]
        source: KeyError,
    },
    /// The data folder cannot be used.
    #[error("data folder {dir}: {source}")]
    Storage {
        /// The folder.
        dir: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The engine's thread cannot be started.
    #[error("start thread: {0}")]
    Thread(#[source] std::io::Error),
    /// The application refused a final block. It was not acknowledged and comes again at the next
    /// start.
    #[error("final block {height} was not applied: {reason}")]
    NotApplied {
        /// Height of the block.
        height: u64,
        /// The application's error.
        reason: String,
    },
    /// An acknowledged block is neither in the application nor in the archive.
    #[error("block {height} is missing from the archive: delete the data folder to sync again")]
    ArchiveGap {
        /// Height of the block.
        height: u64,
    },
    /// The validator set of an epoch cannot be used.
    #[error("validator set of epoch {epoch}: {reason}")]
    EpochSet {
        /// The epoch.
        epoch: u64,
        /// What is wrong.
        reason: String,
    },
    /// The application failed while consensus asked where it stands.
    #[error("application: {0}")]
    Application(String),
    /// A part of the engine ended although nobody asked it to.
    #[error("consensus engine ended: {0}")]
    Engine(String),
    /// The engine has been shut down.
    #[error("consensus has stopped")]
    Stopped,
}

/// Why a certificate proves nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertificateError {
    /// A participant's key is malformed, or two participants share one.
    #[error("participants: {0}")]
    Participants(String),
    /// Bytes are not a proposal.
    #[error("proposal does not decode: {0}")]
    Proposal(String),
    /// Bytes are not a certificate for a set of this size.
    #[error("certificate does not decode: {0}")]
    Certificate(String),
    /// Too few signers, or a wrong signature.
    #[error("certificate is not valid for this proposal and set")]
    Invalid,
}

/// Why evidence of a fault proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FaultError {
    /// More bytes than any evidence has.
    #[error("evidence of {got} bytes, at most {limit}")]
    TooLarge {
        /// Most bytes.
        limit: usize,
        /// Bytes given.
        got: usize,
    },
    /// The set is unusable.
    #[error("participants: {0}")]
    Participants(String),
    /// The first byte names no kind of fault.
    #[error("{0} is no kind of fault: expected 1 to 3")]
    Kind(u8),
    /// Not the encoding of two votes of one validator in one view that exclude each other.
    #[error("evidence does not decode: {0}")]
    Malformed(String),
    /// The votes are of another epoch than the set.
    #[error("votes of epoch {got}, expected epoch {expected}")]
    Epoch {
        /// Epoch of the set.
        expected: u64,
        /// Epoch in the votes.
        got: u64,
    },
    /// The signer is no seat of the set.
    #[error("seat {got} of {seats}")]
    Seat {
        /// Seats of the set.
        seats: usize,
        /// Seat claimed.
        got: u32,
    },
    /// A signature is not that of the seat's key.
    #[error("the votes are not signed by the validator they name")]
    Signature,
}
