//! Why an artefact was refused, or could not be made.

use alloy_primitives::B256;
use opg_integer_program::{
    error::{ProgramError, RunError},
    response::ResponseError,
};
use opg_primitives::cbor::CborError;
use opg_zkml::{ProveError, VerifyError};

/// Why an artefact was refused, or could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArtefactError {
    /// Not strict CBOR, too long, or something follows.
    #[error("artefact: {0}")]
    Cbor(#[from] CborError),
    /// CBOR of something else.
    #[error("artefact: {field}: {reason}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// The graph inside is not one.
    #[error("artefact: graph: {0}")]
    Graph(#[from] ProgramError),
    /// The receipt is not one that this artefact can prove.
    #[error("receipt: {field}: expected {expected}, got {got}")]
    Receipt {
        /// Field of the core.
        field: &'static str,
        /// What a receipt with a proof has.
        expected: String,
        /// What it has.
        got: String,
    },
    /// Something in the artefact does not open what the receipt commits to.
    #[error("artefact: {what} is not what the receipt commits to: expected {expected}, got {got}")]
    Commitment {
        /// Which commitment.
        what: &'static str,
        /// In the receipt.
        expected: B256,
        /// Of the artefact.
        got: B256,
    },
    /// The receipt's answer is the program's.
    #[error("the receipt's answer is the program's answer: there is nothing wrong with it")]
    Agrees,
    /// The body of the request is no request of mode zk.
    #[error("request body: {0}")]
    Body(String),
    /// The inputs are not the program's.
    #[error(transparent)]
    Inputs(#[from] RunError),
    /// The answer is none of the program.
    #[error("answer: {0}")]
    Answer(#[from] ResponseError),
    /// The proof does not hold.
    #[error("proof: {0}")]
    Proof(#[from] VerifyError),
    /// The proof cannot be made.
    #[error(transparent)]
    Prove(#[from] ProveError),
    /// The artefact is larger than what validators take.
    #[error("artefact of {got} bytes, expected at most {limit}")]
    TooLarge {
        /// Bytes allowed.
        limit: usize,
        /// Bytes of this one.
        got: usize,
    },
}
