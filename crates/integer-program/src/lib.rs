//! Exact integer programs: what a zkML proof is about (`docs/specs/integer-program.md`).
//!
//! [`compile::compile`] turns an ONNX model into a [`program::Program`]: a graph of twelve integer operations with
//! static shapes, quantised weights, and a proven range for every tensor, so that no value of any run wraps in a
//! 31-bit prime field. [`interpret::run`] is the reference meaning of a program; a proof says that an output is what
//! it computes. Nothing is proven about the float model: [`compile::Report`] measures how close the two are.
//!
//! # Invariants
//! - Pure: bytes in, values out; no I/O, no clock, no randomness but a seed that the caller gives.
//! - No panic on any input; counts, sizes and nesting are bounded before anything is allocated.
//! - A validated program computes the same integers on every machine. Floats appear only at the ends: one division and
//!   rounding per input element, one product per output element, both in IEEE 754 binary64.
//! - One program has one encoding; decoding refuses everything else and validates ranges against the actual weights.
//!
//! # Example
//! ```
//! use opg_integer_program::{
//!     interpret,
//!     program::{Graph, Input, InputEncoding, Metadata, Node, Op, Operand, Output, Program, Shift, Sort, TensorType},
//!     constant::Weights,
//!     range::Range,
//!     request,
//! };
//!
//! // y = relu(x / 2), x in steps of 0.5.
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
//! assert_eq!(Program::decode(&program.encode())?, program);
//!
//! let inputs = request::read(&program.graph, br#"{"x": [3.0, -3.0, 1.5]}"#)?;
//! assert_eq!(inputs, [[6, -6, 3]]);
//! let trace = interpret::run(&program, &inputs)?;
//! assert_eq!(trace.outputs(&program), Some(vec![vec![3, 0, 2]]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Status
//! Complete for the operators listed in the specification. Not compiled: recurrence, decision trees, data-dependent
//! shapes, quantised ONNX operators, models with several subgraphs.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod codec;
pub mod compile;
pub mod constant;
pub mod derive;
pub mod error;
mod float;
pub mod interpret;
pub mod json;
mod onnx;
pub mod program;
pub mod quantise;
pub mod range;
pub mod request;
pub mod response;
pub mod shape;
mod tensor;
pub mod validate;
pub mod view;

pub use codec::{MAX_GRAPH_BYTES, MAX_PROGRAM_BYTES};
