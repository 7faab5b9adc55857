//! Why a program was refused.

use crate::range::Range;
use opg_primitives::cbor::CborError;

/// Why a program, its bytes, or its inputs were refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProgramError {
    /// Too many of something.
    #[error("{what}: {got}, at most {limit} are accepted")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// Accepted number.
        limit: usize,
        /// Number found.
        got: usize,
    },
    /// Something the program needs is not there.
    #[error("the program has no {what}")]
    Missing {
        /// What it is.
        what: &'static str,
    },
    /// A name is too long.
    #[error("the name of {what} {index} has {got} bytes, at most {limit} are accepted")]
    Name {
        /// What is named.
        what: &'static str,
        /// Its position.
        index: usize,
        /// Accepted length.
        limit: usize,
        /// Length found.
        got: usize,
    },
    /// A node's operands, parameters and result do not fit together.
    #[error("node {node:?} ({op}): {reason}")]
    Node {
        /// Name of the node.
        node: String,
        /// Its operation.
        op: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A value of an operation could leave what the proof field represents exactly.
    #[error(
        "node {node:?} ({op}): {what} can reach {lo}..={hi}, beyond +-{limit}: use smaller weights, fewer terms or a \
         smaller range of the operands"
    )]
    Wraps {
        /// Name of the node.
        node: String,
        /// Its operation.
        op: &'static str,
        /// Which value of the operation.
        what: &'static str,
        /// Least value.
        lo: i64,
        /// Greatest value.
        hi: i64,
        /// Accepted absolute value.
        limit: i64,
    },
    /// A range is not one of an activation.
    #[error("{what} {index}: range {lo}..={hi} is not inside -32768..=65535 with at most 65536 values")]
    ActRange {
        /// What has the range.
        what: &'static str,
        /// Its position.
        index: usize,
        /// Least value.
        lo: i64,
        /// Greatest value.
        hi: i64,
    },
    /// A node declares another shape, sort or range than follows from its operands.
    #[error("node {node:?} ({op}) declares {declared}, but {derived} follows from its operands")]
    Declared {
        /// Name of the node.
        node: String,
        /// Its operation.
        op: &'static str,
        /// What the program says.
        declared: String,
        /// What is true.
        derived: String,
    },
    /// A constant's values do not belong to its declared type.
    #[error("constant {index}: {reason}")]
    Constant {
        /// Position.
        index: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// A table is not acceptable.
    #[error("table {index}: {reason}")]
    Table {
        /// Position.
        index: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// An input, output or computation on outputs is not acceptable.
    #[error("{what} {index}: {reason}")]
    Port {
        /// Which list.
        what: &'static str,
        /// Position in it.
        index: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// The bytes are not strict CBOR.
    #[error("program bytes: {0}")]
    Cbor(#[from] CborError),
    /// The bytes are CBOR, but not of a program.
    #[error("program bytes: {field}: {reason}")]
    Encoding {
        /// Which field.
        field: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// The semantics version is not the one of this build.
    #[error("program has semantics version {got}, this build runs version {expected}: compile the model again")]
    Version {
        /// Version of this build.
        expected: u32,
        /// Version found.
        got: u64,
    },
}

/// Why there is no result for an input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// Another number of input tensors than the program has.
    #[error("expected {expected} input tensors, got {got}")]
    InputCount {
        /// Inputs of the program.
        expected: usize,
        /// Inputs given.
        got: usize,
    },
    /// An input with another number of elements than its shape has.
    #[error("input {input:?}: expected {expected} elements, shape {shape:?}, got {got}")]
    InputSize {
        /// Name of the input.
        input: String,
        /// Elements of the shape.
        expected: usize,
        /// Shape.
        shape: Vec<usize>,
        /// Elements given.
        got: usize,
    },
    /// An input value outside its range.
    #[error("input {input:?}: element {index} is {value}, expected {}..={}", .range.lo, .range.hi)]
    InputValue {
        /// Name of the input.
        input: String,
        /// Flat index.
        index: usize,
        /// The value.
        value: i64,
        /// Accepted range.
        range: Range,
    },
    /// A request that is not a JSON object.
    #[error("request: {0}; expected an object {{\"INPUT\": nested numbers}}")]
    Json(String),
    /// An entry of a request that does not belong to an input.
    #[error("input {input:?}: {reason}")]
    InputForm {
        /// Name of the input.
        input: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// A float that has no integer: not finite.
    #[error("input {input:?}: element {index} is not a finite number")]
    NotFinite {
        /// Name of the input.
        input: String,
        /// Flat index.
        index: usize,
    },
    /// A quotient outside the bounds that make the division provable.
    #[error("node {node:?} (Divide): element {index} has quotient {value}, outside {lo}..={hi}")]
    Quotient {
        /// Name of the node.
        node: String,
        /// Flat index.
        index: usize,
        /// The quotient.
        value: i64,
        /// Least provable quotient.
        lo: i64,
        /// Greatest provable quotient.
        hi: i64,
    },
    /// A value left its proven range, or an operand is not there: the program was not validated.
    #[error("node {node:?} ({op}): {reason}; validate the program first")]
    Invalid {
        /// Name of the node.
        node: String,
        /// Its operation.
        op: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
}
