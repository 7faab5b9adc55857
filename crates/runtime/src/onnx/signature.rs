//! The public form of a model's inputs and outputs.

use opg_models::onnx::{DType, ValueInfo, ValueType};
use serde::Serialize;
use std::fmt;

/// One input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Element type (`f32`, `i64`, `string`, …), or for outputs `sequence<…>` and `map<…>`.
    pub dtype: String,
    /// Shape; `null` for a dynamic dimension, and for a shape that is not declared at all.
    pub shape: Option<Vec<Option<u64>>>,
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.dtype)?;
        match &self.shape {
            Some(shape) => f.write_str(&shape_text(shape.iter().copied())),
            None => Ok(()),
        }
    }
}

/// Inputs and outputs of a model, in its order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Signature {
    /// Inputs that a call must give.
    pub inputs: Vec<Port>,
    /// Outputs that it returns.
    pub outputs: Vec<Port>,
}

impl Signature {
    pub(super) fn new(inputs: &[ValueInfo], outputs: &[ValueInfo]) -> Self {
        Self {
            inputs: inputs.iter().map(port).collect(),
            outputs: outputs.iter().map(port).collect(),
        }
    }
}

fn port(info: &ValueInfo) -> Port {
    let (dtype, shape) = match &info.ty {
        ValueType::Tensor { dtype, shape } => (dtype.to_string(), shape.as_ref()),
        other => (other.to_string(), None),
    };
    let shape = shape.map(|shape| shape.iter().map(opg_models::onnx::Dim::fixed).collect());
    Port {
        name: info.name.clone(),
        dtype,
        shape,
    }
}

/// `[null,64]`.
pub(super) fn shape_text(shape: impl Iterator<Item = Option<u64>>) -> String {
    let dims: Vec<String> = shape
        .map(|dim| dim.map_or_else(|| "null".to_owned(), |dim| dim.to_string()))
        .collect();
    format!("[{}]", dims.join(","))
}

/// Element types that cross the JSON border.
pub(super) const fn is_json(dtype: DType) -> bool {
    matches!(
        dtype,
        DType::F32
            | DType::F64
            | DType::I8
            | DType::I16
            | DType::I32
            | DType::I64
            | DType::U8
            | DType::U16
            | DType::U32
            | DType::U64
            | DType::Bool
            | DType::String
    )
}
