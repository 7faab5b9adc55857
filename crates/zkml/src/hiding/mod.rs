//! Proofs that keep the weights, or weights and inputs, to themselves (`docs/specs/zk-proof.md`, section 5).
//!
//! The protocol is the one of the other profiles, over a channel whose messages travel under one-time pads
//! (module `channel`). The pads, here called wires, are committed before the first challenge together with the witness. What
//! the verifier would check are affine conditions on the wires; a closing argument proves them all at once
//! (module `argument`). Commitments are Reed-Solomon codewords with random tails under salted Merkle trees (modules `code`,
//! `tree`): what is read of them is uniform.
//!
//! # Example
//! ```
//! # use opg_integer_program::{
//! #     constant::{ConstantData, Weights},
//! #     program::{
//! #         ConstantType, Graph, Input, InputEncoding, Metadata, Node, Op, Operand, Output, Program, Sort, TensorType,
//! #     },
//! #     range::Range,
//! # };
//! use opg_zkml::{
//!     Context, ParameterSet,
//!     hiding::{HidingModel, Secret, Seed, prove_hiding, verify_hiding},
//! };
//!
//! # let encoding = InputEncoding::Quantised { scale: 1.0, zero_point: 0, range: Range::new(-127, 127) };
//! # let weights = ConstantData::pack(&[3, -2]).ok_or("two weights")?;
//! # let op = Op::MatMul { x: Operand::Input(0), w: Operand::Constant(0), bias: None };
//! # let constant = ConstantType {
//! #     name: "w".into(), shape: vec![2, 1], width: weights.width(), range: Range::new(-2, 3),
//! # };
//! # let graph = Graph {
//! #     metadata: Metadata::default(),
//! #     inputs: vec![Input { name: "x".into(), shape: vec![1, 2], encoding }],
//! #     constants: vec![constant],
//! #     tables: vec![],
//! #     nodes: vec![Node {
//! #         name: "y".into(), op, ty: TensorType { shape: vec![1, 1], sort: Sort::Acc, range: Range::new(-635, 635) },
//! #     }],
//! #     outputs: vec![Output { name: "y".into(), source: Operand::Node(0), scale: 1.0 }],
//! #     posts: vec![],
//! # };
//! // y = 3 a - 2 b; the weights 3 and -2 are secret.
//! let program = Program { graph, weights: Weights { constants: vec![weights] } };
//! program.validate()?;
//!
//! let mut rng = rand::rng();
//! let mut model = HidingModel::new(program, ParameterSet::Bits100, 4, &Seed::random(&mut rng))?;
//! let inputs = vec![vec![vec![10, 4]]];
//! let (statement, proof) =
//!     prove_hiding(&mut model, &inputs, Secret::Weights, Context::default(), &mut rng, &mut |_| {})?;
//! assert_eq!(statement.statement.requests[0].outputs, [[22]]);
//! verify_hiding(model.verifying_key(), &model.root(), &statement, &proof)?;
//!
//! // With secret inputs the statement holds a commitment to them instead.
//! let own = Seed::random(&mut rng);
//! let secret = Secret::WeightsAndInputs(&own);
//! let (statement, proof) = prove_hiding(&mut model, &inputs, secret, Context::default(), &mut rng, &mut |_| {})?;
//! assert!(statement.statement.requests[0].inputs.is_empty() && statement.inputs.is_some());
//! verify_hiding(model.verifying_key(), &model.root(), &statement, &proof)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod argument;
mod channel;
mod code;
mod forge;
mod form;
mod fractions;
mod model;
#[cfg(test)]
mod mutation;
mod prover;
mod random;
mod security;
mod stack;
mod statement;
mod tree;
mod verifier;
#[cfg(test)]
mod zero_knowledge;

pub(crate) use channel::Wires;
pub use code::Code;
pub use model::{HidingKey, HidingModel, MAX_SLOTS};
pub use prover::prove_hiding;
pub use random::Seed;
pub use security::hiding_security;
pub use statement::{HidingStatement, InputRoot, Secret, commit_inputs};
pub use verifier::{verify_hiding, verify_hiding_with};
