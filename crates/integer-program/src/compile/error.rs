//! Why a model was not compiled.

use crate::error::{ProgramError, RunError};
use opg_models::{onnx::OnnxError, protobuf::WireError};

/// Why a model was not compiled. Every message names the place and the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The file is not an ONNX model that the project accepts.
    #[error("ONNX: {0}")]
    Onnx(#[from] OnnxError),
    /// The file is not protobuf where it must be.
    #[error("ONNX: {message}: {source}")]
    Wire {
        /// The message type that was being read.
        message: &'static str,
        /// What is wrong with it.
        source: WireError,
    },
    /// A tensor of the file is not usable.
    #[error("tensor {tensor:?} {reason}")]
    Tensor {
        /// Name of the tensor.
        tensor: String,
        /// What is wrong, and the way out.
        reason: String,
    },
    /// An input of a type that is not compiled.
    #[error(
        "input {input:?} has type {got}: expected a float32 tensor, or int64 for embedding indices; export the model in float32"
    )]
    InputType {
        /// Name of the input.
        input: String,
        /// Its type.
        got: String,
    },
    /// An input whose shape is not fixed.
    #[error(
        "input {input:?}: dimension {dimension} is dynamic; only a leading batch dimension may be: export with fixed shapes"
    )]
    DynamicShape {
        /// Name of the input.
        input: String,
        /// Which dimension.
        dimension: String,
    },
    /// An operation that cannot be compiled.
    #[error("node {node:?} ({op}): {reason}")]
    Node {
        /// Name of the node.
        node: String,
        /// Its operator.
        op: String,
        /// What is wrong, and the way out.
        reason: String,
    },
    /// An output that is not a result of compiled nodes.
    #[error("output {output:?}: {reason}")]
    Output {
        /// Name of the output.
        output: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Calibration data that do not fit the model.
    #[error("calibration sample {sample}: input {input:?}: {reason}")]
    Calibration {
        /// Number of the sample, from 0.
        sample: usize,
        /// Name of the input.
        input: String,
        /// What was expected and what was found.
        reason: String,
    },
    /// Calibration data that are not JSON of the right form.
    #[error("calibration data: {0}; expected a list of objects {{\"INPUT\": nested numbers}}")]
    CalibrationJson(String),
    /// The program that came out is not valid: weights or shapes beyond what can be proven.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The program has no result for a calibration sample.
    #[error("held-out sample {sample}: {source}")]
    Run {
        /// Number of the sample.
        sample: usize,
        /// What is wrong.
        source: RunError,
    },
}
