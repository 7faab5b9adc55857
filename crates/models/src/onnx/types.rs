//! Types of inputs and outputs.

use super::{DType, Limits, OnnxError, short};
use crate::protobuf::Message;
use std::fmt;

/// Deepest nesting of sequence, map and optional types.
const TYPE_DEPTH: usize = 4;

/// One dimension of a declared shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// A size, at least 1.
    Fixed(u64),
    /// A named size: the same name means the same size in all inputs of one call.
    Symbolic(String),
    /// Any size.
    Unknown,
}

impl Dim {
    /// The size if it is fixed; `None` for a dynamic dimension.
    #[must_use]
    pub const fn fixed(&self) -> Option<u64> {
        match self {
            Self::Fixed(size) => Some(*size),
            _ => None,
        }
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Symbolic(name) => f.write_str(name),
            Self::Unknown => f.write_str("?"),
        }
    }
}

/// Type of an input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueType {
    /// A dense tensor; the shape is `None` when not even its rank is declared.
    Tensor {
        /// Element type.
        dtype: DType,
        /// Declared shape.
        shape: Option<Vec<Dim>>,
    },
    /// A list of values of one type.
    Sequence(Box<ValueType>),
    /// A dictionary.
    Map {
        /// Key type: an integer or `string`.
        key: DType,
        /// Type of the values.
        value: Box<ValueType>,
    },
    /// A value that may be absent.
    Optional(Box<ValueType>),
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tensor { dtype, shape: None } => write!(f, "{dtype}[..]"),
            Self::Tensor {
                dtype,
                shape: Some(shape),
            } => {
                write!(f, "{dtype}[")?;
                for (at, dim) in shape.iter().enumerate() {
                    write!(f, "{}{dim}", if at == 0 { "" } else { "," })?;
                }
                f.write_str("]")
            }
            Self::Sequence(item) => write!(f, "sequence<{item}>"),
            Self::Map { key, value } => write!(f, "map<{key},{value}>"),
            Self::Optional(item) => write!(f, "optional<{item}>"),
        }
    }
}

/// Name and type of an input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueInfo {
    /// Name, not empty.
    pub name: String,
    /// Type.
    pub ty: ValueType,
}

/// `ValueInfoProto {1: name, 2: TypeProto}`; the type may be absent for values inside a graph.
pub(super) fn value_info(bytes: &[u8]) -> Result<(&str, Option<&[u8]>), OnnxError> {
    let wire = |source| OnnxError::Wire {
        message: "ValueInfoProto",
        source,
    };
    let mut name = "";
    let mut ty = None;
    for field in Message::new(bytes) {
        let field = field.map_err(wire)?;
        match field.number {
            1 => name = field.text().map_err(wire)?,
            2 => ty = Some(field.bytes().map_err(wire)?),
            _ => {}
        }
    }
    Ok((name, ty))
}

/// `TypeProto {1: tensor_type, 4: sequence_type, 5: map_type, 8: sparse_tensor_type, 9: optional_type}`.
pub(super) fn value_type(port: &str, bytes: &[u8], limits: &Limits) -> Result<ValueType, OnnxError> {
    parse(port, bytes, limits, TYPE_DEPTH)
}

fn parse(port: &str, bytes: &[u8], limits: &Limits, depth: usize) -> Result<ValueType, OnnxError> {
    let wire = |source| OnnxError::Wire {
        message: "TypeProto",
        source,
    };
    let refuse = |reason| OnnxError::Port {
        port: short(port),
        reason,
    };
    let Some(depth) = depth.checked_sub(1) else {
        return Err(refuse("the type is nested too deeply"));
    };
    let mut found = None;
    for field in Message::new(bytes) {
        let field = field.map_err(wire)?;
        let ty = match field.number {
            1 => tensor(port, field.bytes().map_err(wire)?, limits)?,
            4 => ValueType::Sequence(Box::new(inner(port, field.bytes().map_err(wire)?, limits, depth)?)),
            5 => {
                let (key, value) = map(port, field.bytes().map_err(wire)?, limits, depth)?;
                ValueType::Map {
                    key,
                    value: Box::new(value),
                }
            }
            9 => ValueType::Optional(Box::new(inner(port, field.bytes().map_err(wire)?, limits, depth)?)),
            // 6 is the denotation, a comment.
            6 => continue,
            _ => return Err(refuse("the type is not a tensor, sequence, map or optional")),
        };
        if found.replace(ty).is_some() {
            return Err(refuse("has two types"));
        }
    }
    found.ok_or_else(|| refuse("has no type"))
}

/// `Sequence {1: elem_type}` and `Optional {1: elem_type}`.
fn inner(port: &str, bytes: &[u8], limits: &Limits, depth: usize) -> Result<ValueType, OnnxError> {
    let wire = |source| OnnxError::Wire {
        message: "TypeProto.Sequence",
        source,
    };
    for field in Message::new(bytes) {
        let field = field.map_err(wire)?;
        if field.number == 1 {
            return parse(port, field.bytes().map_err(wire)?, limits, depth);
        }
    }
    Err(OnnxError::Port {
        port: short(port),
        reason: "has no element type",
    })
}

/// `Map {1: key_type, 2: value_type}`.
fn map(port: &str, bytes: &[u8], limits: &Limits, depth: usize) -> Result<(DType, ValueType), OnnxError> {
    let wire = |source| OnnxError::Wire {
        message: "TypeProto.Map",
        source,
    };
    let refuse = |reason| OnnxError::Port {
        port: short(port),
        reason,
    };
    let mut key = None;
    let mut value = None;
    for field in Message::new(bytes) {
        let field = field.map_err(wire)?;
        match field.number {
            1 => key = DType::from_code(field.int64().map_err(wire)?),
            2 => value = Some(parse(port, field.bytes().map_err(wire)?, limits, depth)?),
            _ => {}
        }
    }
    let key = key.ok_or_else(|| refuse("the map has no known key type"))?;
    Ok((key, value.ok_or_else(|| refuse("the map has no value type"))?))
}

/// `Tensor {1: elem_type, 2: TensorShapeProto {1: Dimension {1: dim_value, 2: dim_param}}}`.
fn tensor(port: &str, bytes: &[u8], limits: &Limits) -> Result<ValueType, OnnxError> {
    let wire = |source| OnnxError::Wire {
        message: "TypeProto.Tensor",
        source,
    };
    let refuse = |reason| OnnxError::Port {
        port: short(port),
        reason,
    };
    let mut dtype = None;
    let mut shape = None;
    for field in Message::new(bytes) {
        let field = field.map_err(wire)?;
        match field.number {
            1 => dtype = DType::from_code(field.int64().map_err(wire)?),
            2 => {
                let mut dims = Vec::new();
                for dim in Message::new(field.bytes().map_err(wire)?) {
                    let dim = dim.map_err(wire)?;
                    if dim.number != 1 {
                        continue;
                    }
                    if dims.len() == limits.rank {
                        return Err(refuse("has too many dimensions"));
                    }
                    dims.push(dimension(port, dim.bytes().map_err(wire)?, limits)?);
                }
                shape = Some(dims);
            }
            _ => {}
        }
    }
    let dtype = dtype.ok_or_else(|| refuse("has no known element type"))?;
    Ok(ValueType::Tensor { dtype, shape })
}

fn dimension(port: &str, bytes: &[u8], limits: &Limits) -> Result<Dim, OnnxError> {
    let wire = |source| OnnxError::Wire {
        message: "TensorShapeProto.Dimension",
        source,
    };
    let refuse = |reason| OnnxError::Port {
        port: short(port),
        reason,
    };
    let mut dim = Dim::Unknown;
    for field in Message::new(bytes) {
        let field = field.map_err(wire)?;
        dim = match field.number {
            1 => match field.int64().map_err(wire)? {
                // Exporters write 0 and -1 for "any size" too.
                -1 | 0 => Dim::Unknown,
                size => Dim::Fixed(u64::try_from(size).map_err(|_| refuse("has a negative dimension"))?),
            },
            2 => match field.text().map_err(wire)? {
                "" => Dim::Unknown,
                name if name.len() <= limits.name => Dim::Symbolic(name.to_owned()),
                _ => return Err(refuse("has a dimension with too long a name")),
            },
            _ => dim,
        };
    }
    Ok(dim)
}
