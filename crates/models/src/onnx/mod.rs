//! Reads what a node must know about an ONNX file before native code opens it.
//!
//! [`OnnxHeader::parse`] walks the whole `ModelProto`: it refuses external data (a path on the node's disk), custom
//! operator domains (native libraries), model-local functions, training graphs and sparse initializers, graphs nested
//! too deeply, nodes that are not in topological order (the graph could be cyclic), and initializers whose data does
//! not have the size of their shape. What remains is the signature: inputs and outputs with name, element type and
//! shape.
//!
//! Source: `onnx.proto` of ONNX 1.20 (field numbers in the code), IR versions 3 to 13.

mod dtype;
mod graph;
mod tensor;
mod types;

pub use dtype::DType;
pub use types::{Dim, ValueInfo, ValueType};

use crate::protobuf::{Message, WireError};
use std::collections::{BTreeMap, BTreeSet};

/// Bounds on one ONNX file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of the file. Protobuf itself ends at 2 GiB.
    pub bytes: usize,
    /// Most nodes, subgraphs included.
    pub nodes: usize,
    /// Most values (inputs, initializers, node outputs), subgraphs included.
    pub values: usize,
    /// Most graph inputs and most graph outputs.
    pub ports: usize,
    /// Deepest nesting of subgraphs (`If`, `Loop`, `Scan`); the main graph has depth 1.
    pub depth: usize,
    /// Longest name in bytes.
    pub name: usize,
    /// Most dimensions of a tensor.
    pub rank: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes: (1 << 31) - 1,
            nodes: 200_000,
            values: 1 << 20,
            ports: 1_024,
            depth: 8,
            name: 1_024,
            rank: 16,
        }
    }
}

/// Why an ONNX file was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OnnxError {
    /// Too large a file.
    #[error("ONNX file of {got} bytes, at most {limit} are accepted")]
    TooLarge {
        /// Accepted size.
        limit: usize,
        /// Size found.
        got: usize,
    },
    /// Not protobuf, or not of the right type.
    #[error("{message}: {source}")]
    Wire {
        /// The message type that was being read.
        message: &'static str,
        /// What is wrong with it.
        source: WireError,
    },
    /// A required field is not there.
    #[error("{field} is missing")]
    Missing {
        /// Name of the field.
        field: &'static str,
    },
    /// An IR version that is not known.
    #[error("ir_version: expected {first} to {last}, got {got}")]
    IrVersion {
        /// First version known.
        first: i64,
        /// Last version known.
        last: i64,
        /// Version found.
        got: i64,
    },
    /// An operator set version that is not known.
    #[error("opset_import {domain:?}: expected version {first} to {last}, got {got}")]
    Opset {
        /// Operator domain.
        domain: String,
        /// First version known.
        first: i64,
        /// Last version known.
        last: i64,
        /// Version found.
        got: i64,
    },
    /// An operator domain that is not part of ONNX: it would need a native library, or is not imported.
    #[error("operator {operator:?} of domain {domain:?} is not accepted: only imported ai.onnx and ai.onnx.ml are")]
    Domain {
        /// Operator domain.
        domain: String,
        /// Operator, or empty for an import.
        operator: String,
    },
    /// A feature that is not accepted.
    #[error("{feature} is not supported")]
    Unsupported {
        /// What it is.
        feature: &'static str,
    },
    /// A tensor whose data lies in another file.
    #[error("tensor {tensor:?} has external data; models are self-contained")]
    ExternalData {
        /// Name of the tensor.
        tensor: String,
    },
    /// A tensor whose type, shape and data do not agree.
    #[error("tensor {tensor:?}: {reason}")]
    Tensor {
        /// Name of the tensor.
        tensor: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// Too many of something.
    #[error("more than {limit} {what}")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// Accepted number.
        limit: usize,
    },
    /// A value is used before it is made: the nodes are not in topological order, or there is a cycle.
    #[error("{by:?} uses {value:?}, which nothing before it defines")]
    Undefined {
        /// The value.
        value: String,
        /// The node (or graph output) that uses it.
        by: String,
    },
    /// Two values of one graph have the same name.
    #[error("value {value:?} is defined twice")]
    Duplicate {
        /// The value.
        value: String,
    },
    /// An input or output without a usable type.
    #[error("{port:?}: {reason}")]
    Port {
        /// Name of the input or output.
        port: String,
        /// What is wrong.
        reason: &'static str,
    },
}

/// What the file declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxHeader {
    /// Version of the file format.
    pub ir_version: i64,
    /// Tool that wrote the file, as it names itself.
    pub producer: String,
    /// Operator set versions by domain; the default domain is `ai.onnx`.
    pub opsets: BTreeMap<String, i64>,
    /// Name of the graph.
    pub graph: String,
    /// Inputs that a caller must give (graph inputs without an initializer).
    pub inputs: Vec<ValueInfo>,
    /// Outputs.
    pub outputs: Vec<ValueInfo>,
    /// Operators used, as `domain.operator`, subgraphs included.
    pub operators: BTreeSet<String>,
    /// Number of nodes, subgraphs included.
    pub nodes: usize,
    /// Bytes of all initializers.
    pub initializer_bytes: u64,
    /// Elements of all initializers by type.
    pub initializer_elements: BTreeMap<DType, u64>,
}

/// IR versions that are read: 3 is the first with operator sets, 13 the last that is known.
const IR_VERSIONS: (i64, i64) = (3, 13);
/// Operator set versions of `ai.onnx` and `ai.onnx.ml`.
const OPSETS: (i64, i64) = (7, 26);
const ML_OPSETS: (i64, i64) = (1, 5);
/// Default domain by its full name.
pub(crate) const DOMAIN: &str = "ai.onnx";
pub(crate) const ML_DOMAIN: &str = "ai.onnx.ml";

impl OnnxHeader {
    /// Reads and checks a whole file.
    ///
    /// # Errors
    /// [`OnnxError`] naming the first thing that is not accepted.
    pub fn parse(bytes: &[u8]) -> Result<Self, OnnxError> {
        Self::parse_with(bytes, &Limits::default())
    }

    /// Reads and checks a whole file under given bounds.
    ///
    /// # Errors
    /// [`OnnxError`] naming the first thing that is not accepted.
    pub fn parse_with(bytes: &[u8], limits: &Limits) -> Result<Self, OnnxError> {
        if bytes.len() > limits.bytes {
            return Err(OnnxError::TooLarge {
                limit: limits.bytes,
                got: bytes.len(),
            });
        }
        let wire = |source| OnnxError::Wire {
            message: "ModelProto",
            source,
        };
        let mut ir_version = None;
        let mut producer = String::new();
        let mut opsets = BTreeMap::new();
        let mut graph = None;
        for field in Message::new(bytes) {
            let field = field.map_err(wire)?;
            match field.number {
                1 => ir_version = Some(field.int64().map_err(wire)?),
                2 => producer = short(field.text().map_err(wire)?),
                7 if graph.is_some() => {
                    return Err(OnnxError::Unsupported {
                        feature: "more than one graph",
                    });
                }
                7 => graph = Some(field.bytes().map_err(wire)?),
                8 => {
                    let (domain, version) = opset(field.bytes().map_err(wire)?)?;
                    // skl2onnx imports a domain twice; that is harmless as long as both name one version.
                    if opsets
                        .insert(domain.clone(), version)
                        .is_some_and(|other| other != version)
                    {
                        return Err(OnnxError::Duplicate { value: domain });
                    }
                }
                20 => {
                    return Err(OnnxError::Unsupported {
                        feature: "training_info",
                    });
                }
                25 => {
                    return Err(OnnxError::Unsupported {
                        feature: "a model-local function",
                    });
                }
                _ => {}
            }
        }
        let ir_version = ir_version.ok_or(OnnxError::Missing { field: "ir_version" })?;
        if !(IR_VERSIONS.0..=IR_VERSIONS.1).contains(&ir_version) {
            return Err(OnnxError::IrVersion {
                first: IR_VERSIONS.0,
                last: IR_VERSIONS.1,
                got: ir_version,
            });
        }
        if opsets.is_empty() {
            return Err(OnnxError::Missing { field: "opset_import" });
        }
        let graph = graph.ok_or(OnnxError::Missing { field: "graph" })?;
        let walked = graph::walk(graph, &opsets, limits)?;
        Ok(Self {
            ir_version,
            producer,
            opsets,
            graph: walked.name,
            inputs: walked.inputs,
            outputs: walked.outputs,
            operators: walked.operators,
            nodes: walked.nodes,
            initializer_bytes: walked.initializer_bytes,
            initializer_elements: walked.initializer_elements,
        })
    }
}

/// `OperatorSetIdProto {1: domain, 2: version}`.
fn opset(bytes: &[u8]) -> Result<(String, i64), OnnxError> {
    let wire = |source| OnnxError::Wire {
        message: "OperatorSetIdProto",
        source,
    };
    let mut domain = "";
    let mut version = 0;
    for field in Message::new(bytes) {
        let field = field.map_err(wire)?;
        match field.number {
            1 => domain = field.text().map_err(wire)?,
            2 => version = field.int64().map_err(wire)?,
            _ => {}
        }
    }
    let (domain, (first, last)) = match domain {
        "" | DOMAIN => (DOMAIN, OPSETS),
        ML_DOMAIN => (ML_DOMAIN, ML_OPSETS),
        other => {
            return Err(OnnxError::Domain {
                domain: short(other),
                operator: String::new(),
            });
        }
    };
    if !(first..=last).contains(&version) {
        return Err(OnnxError::Opset {
            domain: domain.to_owned(),
            first,
            last,
            got: version,
        });
    }
    Ok((domain.to_owned(), version))
}

/// A text from the file, cut so that an error message stays short.
pub(crate) fn short(text: &str) -> String {
    text.chars().take(80).collect()
}
