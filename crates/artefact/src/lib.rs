//! What proves a receipt after the answer (D10).
//!
//! A receipt of mode zk commits to request, answer and a statement; the proof comes later and travels beside the
//! receipt, outside the node's signature. [`ZkArtefact`] is that proof together with what opens the commitments. Nodes
//! make it, full nodes verify it before a receipt enters a block, and `opg receipt verify` verifies it again, all
//! through this crate.
//!
//! # Invariants
//! - An artefact is believed for nothing: what it says is compared with the core of the receipt, and its program with
//!   the model registry by the caller ([`ZkArtefact::program`]).
//! - A verdict depends on core and artefact alone, so all validators reach the same one.
//! - Any bytes are safe to decode: bounded, one encoding, no panic.
//! - Whoever verifies sees request and answer in the clear (D11): validators do.
//!
//! # Example
//! ```
//! use opg_artefact::{ArtefactError, ZkArtefact};
//!
//! assert!(matches!(ZkArtefact::decode(b"no artefact"), Err(ArtefactError::Cbor(_))));
//! ```
//!
//! # Status
//! Proofs of profile committed, one request per proof. Replay traces and hiding proofs are not there.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod error;
mod zk;

pub use error::ArtefactError;
pub use zk::{MAX_ARTEFACT_BYTES, ZkArtefact, answer, inputs, statement};
