//! Errors of this crate, with the field that a client has to correct.

use crate::worker::WorkerFault;
use opg_models::{ManifestError, gguf::GgufError, onnx::OnnxError};
use std::path::PathBuf;

/// Why a model could not be loaded, an input not accepted, or a run not finished.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The caller's input is wrong.
    #[error(transparent)]
    Input(#[from] InputError),
    /// No ONNX Runtime library was found.
    #[error(
        "ONNX Runtime library not found; set ORT_DYLIB_PATH to libonnxruntime of version 1.20 or later (`cargo xtask setup` installs one); looked at: {}",
        .searched.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    LibraryNotFound {
        /// Where it was looked for, in order.
        searched: Vec<PathBuf>,
    },
    /// The ONNX Runtime library could not be used.
    #[error("ONNX Runtime library {}: {reason}", .path.display())]
    Library {
        /// The library.
        path: PathBuf,
        /// What the loader said.
        reason: String,
    },
    /// A file could not be read.
    #[error("{}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An ONNX file that is not accepted.
    #[error("ONNX model: {0}")]
    Onnx(#[from] OnnxError),
    /// A GGUF file that is not accepted.
    #[error("GGUF model: {0}")]
    Gguf(#[from] GgufError),
    /// A manifest that is not accepted.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A model that is well formed and still cannot be served.
    #[error("model cannot be served: {reason}")]
    Model {
        /// Why.
        reason: String,
    },
    /// Two models of one configuration with the same name, or a name that is not `owner/name`.
    #[error("model name {name:?}: {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The engine failed during a run.
    #[error("the engine failed: {reason}")]
    Engine {
        /// What it said.
        reason: String,
    },
    /// The process that runs the engine failed; a call may be repeated.
    #[error("the engine's process {0}")]
    Worker(#[from] WorkerFault),
    /// The answer is larger than this node returns.
    #[error("the answer has {got} elements, at most {limit} are returned")]
    OutputTooLarge {
        /// Accepted number.
        limit: usize,
        /// Elements of the answer.
        got: usize,
    },
}

impl RuntimeError {
    /// Whether the caller can correct it (HTTP 400), as opposed to a fault of the node (500).
    #[must_use]
    pub const fn is_client(&self) -> bool {
        matches!(self, Self::Input(_))
    }

    /// The field of the request that is wrong, for example `X[0][3]` or `temperature`; empty for faults of the node.
    #[must_use]
    pub fn field(&self) -> &str {
        match self {
            Self::Input(error) => error.field(),
            _ => "",
        }
    }

    /// A stable word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Input(error) => error.code(),
            Self::LibraryNotFound { .. }
            | Self::Library { .. }
            | Self::Worker(WorkerFault::Start(_) | WorkerFault::NotLocked { .. } | WorkerFault::Resting { .. }) => {
                "runtime_unavailable"
            }
            Self::Worker(WorkerFault::Late { .. }) => "engine_timeout",
            Self::Worker(WorkerFault::Died { .. } | WorkerFault::Nonsense { .. }) => "engine_failed",
            Self::Read { .. }
            | Self::Onnx(_)
            | Self::Gguf(_)
            | Self::Manifest(_)
            | Self::Model { .. }
            | Self::Name { .. } => "model_not_servable",
            Self::Engine { .. } => "engine_failed",
            Self::OutputTooLarge { .. } => "output_too_large",
        }
    }

    pub(crate) fn engine(error: impl std::fmt::Display) -> Self {
        Self::Engine {
            reason: error.to_string(),
        }
    }
}

/// What is wrong with an input. Every variant names the field, what was expected and what was there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// The input is not an object of named tensors.
    #[error("input: expected an object {{name: nested lists}}, got {got}")]
    NotAnObject {
        /// JSON type found.
        got: &'static str,
    },
    /// An input is not given.
    #[error("{name}: missing, expected {expected}")]
    Missing {
        /// Name of the input.
        name: String,
        /// Its declared type.
        expected: String,
    },
    /// A name that the model does not have.
    #[error("input: unknown name {name:?}, expected {expected}")]
    Unknown {
        /// The name, cut to a bounded length.
        name: String,
        /// Names that the model has.
        expected: String,
    },
    /// An element of another type.
    #[error("{field}: expected {expected}, got {got}")]
    Dtype {
        /// Input and index.
        field: String,
        /// Element type.
        expected: &'static str,
        /// What was there.
        got: String,
    },
    /// A number that the element type cannot hold.
    #[error("{field}: {got} is out of range for {expected}")]
    Range {
        /// Input and index.
        field: String,
        /// Element type.
        expected: &'static str,
        /// The number.
        got: String,
    },
    /// Not a number, or infinite.
    #[error("{field}: expected a finite number, got {got}")]
    NotFinite {
        /// Input and index.
        field: String,
        /// What was there.
        got: String,
    },
    /// A list whose rows have different lengths.
    #[error("{field}: expected a list of length {expected} as in the rows before, got {got}")]
    Ragged {
        /// Input and index.
        field: String,
        /// Length of the rows before.
        expected: usize,
        /// Length of this row.
        got: usize,
    },
    /// Another shape than the declared one.
    #[error("{field}: expected shape {expected}, got {got}")]
    Shape {
        /// Name of the input.
        field: String,
        /// Declared shape, `null` for a dynamic dimension.
        expected: String,
        /// Shape found.
        got: String,
    },
    /// Two inputs disagree about a named dimension.
    #[error("{field}: dimension {dimension:?} is {got} here and {expected} in another input")]
    Dimension {
        /// Name of the input.
        field: String,
        /// Name of the dimension.
        dimension: String,
        /// Size in the other input.
        expected: usize,
        /// Size here.
        got: usize,
    },
    /// A tensor without elements.
    #[error("{field}: expected at least one element, got an empty list")]
    Empty {
        /// Input and index.
        field: String,
    },
    /// More elements than a node accepts.
    #[error("{field}: {got} elements, at most {limit} are accepted")]
    TooMany {
        /// Name of the input.
        field: String,
        /// Accepted number.
        limit: usize,
        /// Elements found (at least).
        got: usize,
    },
    /// A parameter outside its range.
    #[error("{field}: expected {expected}, got {got}")]
    Parameter {
        /// Name of the parameter.
        field: &'static str,
        /// Accepted values.
        expected: String,
        /// What was there.
        got: String,
    },
    /// The model has no chat format.
    #[error("messages: this model has no ChatML markers; use a prompt instead")]
    NoChat,
    /// Prompt and answer do not fit the model's context.
    #[error("{field}: the model's context is {limit} tokens, the prompt has {prompt} and {requested} were asked for")]
    Context {
        /// Field that is too long.
        field: &'static str,
        /// Tokens of the context.
        limit: usize,
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens asked for.
        requested: usize,
    },
    /// An input that was validated for another model.
    #[error("input: it was validated for another model")]
    WrongModel,
}

impl InputError {
    /// The field that is wrong.
    #[must_use]
    pub fn field(&self) -> &str {
        match self {
            Self::NotAnObject { .. } | Self::Unknown { .. } | Self::WrongModel => "input",
            Self::Missing { name, .. } => name,
            Self::Dtype { field, .. }
            | Self::Range { field, .. }
            | Self::NotFinite { field, .. }
            | Self::Ragged { field, .. }
            | Self::Shape { field, .. }
            | Self::Dimension { field, .. }
            | Self::Empty { field }
            | Self::TooMany { field, .. } => field,
            Self::Parameter { field, .. } | Self::Context { field, .. } => field,
            Self::NoChat => "messages",
        }
    }

    /// A stable word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotAnObject { .. } | Self::WrongModel => "invalid_input",
            Self::Missing { .. } => "missing_input",
            Self::Unknown { .. } => "unknown_input",
            Self::Dtype { .. } | Self::Range { .. } => "wrong_dtype",
            Self::NotFinite { .. } => "not_finite",
            Self::Ragged { .. } | Self::Shape { .. } | Self::Dimension { .. } | Self::Empty { .. } => "wrong_shape",
            Self::TooMany { .. } => "input_too_large",
            Self::Parameter { .. } => "invalid_parameter",
            Self::NoChat => "chat_not_supported",
            Self::Context { .. } => "context_length_exceeded",
        }
    }
}
