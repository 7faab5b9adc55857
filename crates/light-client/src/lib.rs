//! Verifies a receipt offline: the file, the genesis file, nothing else.
//!
//! [`verify_bytes`] takes a receipt file through named steps, from the node's signature over the Merkle path and the
//! validators' BLS certificate to the proof that the payment settled, and ends in a [`Verdict`]. A receipt of mode none
//! that passes everything is [`Verdict::Unproven`]: its words never call it verified.
//!
//! # Invariants
//! - Pure: no I/O, no clock, no randomness, no panic on any input; time is an argument.
//! - Trust is in the genesis file alone, or in a checkpoint that the caller names: the first validator keys come from it, with
//!   proofs of possession checked, later ones from the state that the set before certified, and every hash in the receipt
//!   file is reached from their certificates.
//! - A state proof is looked at only under a certified state root, and every slot in it is needed by a check: nothing in
//!   a file is decoration, so no byte of it can be changed unnoticed.
//!
//! # Example
//! ```
//! use opg_light_client::{Options, Verdict, Verifier};
//! # use opg_contracts::GenesisFile;
//! fn check(file: &[u8], genesis: &GenesisFile, now: u64) -> Result<Verdict, opg_light_client::ProofError> {
//!     let verifier = Verifier::new(genesis)?;
//!     let report = verifier.verify_bytes(file, &Options { now: Some(now), ..Options::default() });
//!     for step in &report.steps {
//!         println!("{:?} {}: {}", step.status, step.name.as_str(), step.detail);
//!     }
//!     Ok(report.verdict)
//! }
//! ```
//!
//! # Status
//! Complete for modes none, tee and zk, with validator sets that change by epochs ([`handover`], [`checkpoint`]; D12). Mode replay
//! has no verifier here yet.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod certificate;
pub mod checkpoint;
mod checks;
pub mod error;
pub mod finality;
pub mod handover;
pub mod onchain;
pub mod report;
pub mod state;
pub mod verify;

pub use crate::{
    certificate::{Proposal, ValidatorSet},
    checkpoint::{Checkpoint, CheckpointBook, CheckpointError},
    error::ProofError,
    finality::CertifiedBlock,
    handover::Epochs,
    report::{Report, Requirement, Status, Step, StepName, Verdict},
    verify::{Options, Verifier, verify, verify_bytes},
};
