//! Proofs that an integer program gave these outputs for these inputs (`docs/specs/zk-proof.md`).
//!
//! Layered sumchecks reduce public outputs to claims on committed activations and registered weights; one lookup
//! argument proves all ranges and tables; WHIR opens the two commitments. There is no trusted set-up: a model is 32
//! bytes, [`ModelRoot`], which anybody who holds the program can compute.
//!
//! # Invariants
//! - A statement (model root, inputs, outputs, receipt, nonce, prover) is absorbed before the first commitment; a proof
//!   is for that statement only.
//! - What holds modulo the field's order holds for integers: [`Plan::new`] refuses a graph whose relations could wrap.
//!   This rests on the declared ranges, which `Program::validate` derives from the weights: register validated programs.
//! - Verifiers take any bytes: no panic, every length known or bounded before allocation, every byte consumed.
//! - The protocol is written once for prover, verifier and the security calculator ([`security`]).
//! - Pure: no clock, no I/O; randomness of hiding proofs is an argument.
//!
//! # Example
//! ```
//! use opg_integer_program::{
//!     constant::Weights,
//!     program::{Graph, Input, InputEncoding, Metadata, Node, Op, Operand, Output, Program, Shift, Sort, TensorType},
//!     range::Range,
//! };
//! use opg_zkml::{Context, ParameterSet, Profile, RegisteredModel, prove, verify};
//!
//! // y = relu(x / 2) on three integers.
//! let encoding = InputEncoding::Quantised { scale: 0.5, zero_point: 0, range: Range::new(-127, 127) };
//! let op = Op::Requant { x: Operand::Input(0), shift: Shift::Tensor(1), lo: 0, hi: 255 };
//! let ty = TensorType { shape: vec![3], sort: Sort::Act, range: Range::new(0, 64) };
//! let program = Program {
//!     graph: Graph {
//!         metadata: Metadata::default(),
//!         inputs: vec![Input { name: "x".into(), shape: vec![3], encoding }],
//!         constants: vec![],
//!         tables: vec![],
//!         nodes: vec![Node { name: "relu".into(), op, ty }],
//!         outputs: vec![Output { name: "y".into(), source: Operand::Node(0), scale: 0.5 }],
//!         posts: vec![],
//!     },
//!     weights: Weights::default(),
//! };
//! program.validate()?;
//!
//! let model = RegisteredModel::new(program, ParameterSet::Bits100)?;
//! let inputs = vec![vec![vec![6, -6, 3]]];
//! let (statement, proof) = prove(&model, &inputs, Context::default(), Profile::Committed, &mut |_| {})?;
//! assert_eq!(statement.requests[0].outputs, [[3, 0, 2]]);
//!
//! // The verifier has the graph and the root, no weights.
//! verify(model.verifying_key(), &model.root(), &statement, &proof)?;
//! let mut wrong = statement.clone();
//! wrong.requests[0].outputs[0][0] = 4;
//! assert!(verify(model.verifying_key(), &model.root(), &wrong, &proof).is_err());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Status
//! Profiles committed and open, hiding proofs ([`hiding`]), batches, the command line `opg zk` and proofs of receipts (crate
//! `artefact`) of profile committed. Not there: hiding proofs of receipts.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod channel;
pub mod checks;
pub mod commit;
#[cfg(test)]
#[path = "../tests/common/mod.rs"]
mod common;
pub mod error;
mod expression;
pub mod field;
pub mod functional;
pub mod hiding;
pub mod layout;
pub mod model;
#[cfg(test)]
mod mutation;
mod operation;
pub mod plan;
mod plan_node;
mod proof;
mod protocol;
pub mod prover;
pub mod security;
pub mod statement;
pub mod sumcheck;
pub mod verifier;
mod witness;

pub use checks::Checks;
pub use commit::ParameterSet;
pub use error::{Check, PlanError, ProveError, VerifyError};
pub use model::{ModelRoot, Profile, RegisteredModel, VerifyingKey};
pub use plan::{MAX_BATCH, Plan};
pub use proof::MAX_PROOF_BYTES;
pub use protocol::Stage;
pub use prover::{prove, prove_trace, prove_unless};
pub use statement::{Context, Request, Statement};
pub use verifier::{verify, verify_measured, verify_open, verify_with};
