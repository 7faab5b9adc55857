//! Reads an ONNX file into a list of nodes with attributes and constants.
//!
//! [`opg_models::onnx::OnnxHeader`] has walked the file before: domains, versions, topological order, self-contained
//! tensors. What is added here is the content: attribute values and tensor data.

mod attribute;
mod tensor;

use crate::{compile::CompileError, tensor::Tensor};
pub(crate) use attribute::Attribute;
use opg_models::{
    onnx::{DType, Dim, OnnxHeader, ValueInfo, ValueType},
    protobuf::{Message, WireError},
};
use std::collections::BTreeMap;

/// Number of a value of the graph.
pub(crate) type ValueId = usize;

/// One operation of the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct OnnxNode {
    /// Name, or `operator of output` where the file gives none.
    pub(crate) name: String,
    /// Operator.
    pub(crate) op: String,
    /// Inputs; `None` where an optional one is left out.
    pub(crate) inputs: Vec<Option<ValueId>>,
    /// Outputs; `None` where one is not wanted.
    pub(crate) outputs: Vec<Option<ValueId>>,
    /// Attributes by name.
    pub(crate) attributes: BTreeMap<String, Attribute>,
}

/// A graph input with its static shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ModelInput {
    pub(crate) value: ValueId,
    pub(crate) shape: Vec<usize>,
    pub(crate) dtype: DType,
}

/// A whole file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Model {
    /// Names of the values.
    pub(crate) names: Vec<String>,
    /// Nodes in topological order.
    pub(crate) nodes: Vec<OnnxNode>,
    /// Initializers.
    pub(crate) constants: BTreeMap<ValueId, Tensor>,
    /// Inputs without initializer.
    pub(crate) inputs: Vec<ModelInput>,
    /// Outputs.
    pub(crate) outputs: Vec<ValueId>,
    /// Version of the default operator set.
    pub(crate) opset: i64,
}

impl Model {
    /// A value that the file does not name.
    pub(crate) fn fresh(&mut self, name: &str) -> ValueId {
        self.names.push(name.to_owned());
        self.names.len() - 1
    }

    /// Name of a value.
    pub(crate) fn name(&self, value: ValueId) -> &str {
        self.names.get(value).map_or("", String::as_str)
    }

    /// Reads a file. `batch` is the size of a leading dimension that the file leaves open.
    pub(crate) fn read(bytes: &[u8], batch: usize) -> Result<Self, CompileError> {
        let header = OnnxHeader::parse(bytes)?;
        let mut reader = Reader {
            names: Vec::new(),
            ids: BTreeMap::new(),
        };
        let wire = |source| CompileError::Wire {
            message: "ModelProto",
            source,
        };
        let mut nodes = Vec::new();
        let mut constants = BTreeMap::new();
        for field in Message::new(bytes) {
            let field = field.map_err(wire)?;
            if field.number == 7 {
                for part in Message::new(field.bytes().map_err(wire)?) {
                    let part = part.map_err(wire)?;
                    match part.number {
                        1 => nodes.push(reader.node(part.bytes().map_err(wire)?)?),
                        5 => {
                            let (name, tensor) = tensor::read(part.bytes().map_err(wire)?)?;
                            constants.insert(reader.id(name), tensor);
                        }
                        _ => {}
                    }
                }
            }
        }
        let inputs = header
            .inputs
            .iter()
            .map(|info| input(info, batch, &mut reader))
            .collect::<Result<Vec<_>, _>>()?;
        let outputs = header.outputs.iter().map(|info| reader.id(&info.name)).collect();
        let opset = header.opsets.get("ai.onnx").copied().unwrap_or(13);
        Ok(Self {
            names: reader.names,
            nodes,
            constants,
            inputs,
            outputs,
            opset,
        })
    }
}

fn input(info: &ValueInfo, batch: usize, reader: &mut Reader) -> Result<ModelInput, CompileError> {
    let ValueType::Tensor { dtype, shape } = &info.ty else {
        return Err(CompileError::InputType {
            input: info.name.clone(),
            got: info.ty.to_string(),
        });
    };
    if !matches!(dtype, DType::F32 | DType::I64 | DType::I32) {
        return Err(CompileError::InputType {
            input: info.name.clone(),
            got: dtype.to_string(),
        });
    }
    let shape = shape.as_ref().ok_or_else(|| CompileError::DynamicShape {
        input: info.name.clone(),
        dimension: "all".to_owned(),
    })?;
    let mut dims = Vec::with_capacity(shape.len());
    for (at, dim) in shape.iter().enumerate() {
        dims.push(match dim {
            Dim::Fixed(size) => usize::try_from(*size).unwrap_or(usize::MAX),
            _ if at == 0 => batch,
            dim => {
                return Err(CompileError::DynamicShape {
                    input: info.name.clone(),
                    dimension: format!("{at} ({dim})"),
                });
            }
        });
    }
    if crate::shape::elements(&dims).is_none() {
        return Err(CompileError::DynamicShape {
            input: info.name.clone(),
            dimension: "all: too many elements".to_owned(),
        });
    }
    Ok(ModelInput {
        value: reader.id(&info.name),
        shape: dims,
        dtype: *dtype,
    })
}

struct Reader {
    names: Vec<String>,
    ids: BTreeMap<String, ValueId>,
}

impl Reader {
    fn id(&mut self, name: &str) -> ValueId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = self.names.len();
        self.names.push(name.to_owned());
        self.ids.insert(name.to_owned(), id);
        id
    }

    fn port(&mut self, name: &str) -> Option<ValueId> {
        // An omitted optional input or output has an empty name.
        (!name.is_empty()).then(|| self.id(name))
    }

    /// `NodeProto {1: input, 2: output, 3: name, 4: op_type, 5: attribute}`.
    fn node(&mut self, bytes: &[u8]) -> Result<OnnxNode, CompileError> {
        let wire = |source: WireError| CompileError::Wire {
            message: "NodeProto",
            source,
        };
        let (mut name, mut op, mut first) = ("", "", "");
        let (mut inputs, mut outputs, mut attributes) = (Vec::new(), Vec::new(), BTreeMap::new());
        for field in Message::new(bytes) {
            let field = field.map_err(wire)?;
            match field.number {
                1 => inputs.push(self.port(field.text().map_err(wire)?)),
                2 => {
                    let text = field.text().map_err(wire)?;
                    if first.is_empty() {
                        first = text;
                    }
                    outputs.push(self.port(text));
                }
                3 => name = field.text().map_err(wire)?,
                4 => op = field.text().map_err(wire)?,
                5 => {
                    let (key, value) = attribute::read(field.bytes().map_err(wire)?)?;
                    attributes.insert(key, value);
                }
                _ => {}
            }
        }
        let name: String = if name.is_empty() {
            format!("{op} of {first}")
        } else {
            name.to_owned()
        };
        let name = name.chars().take(80).collect();
        Ok(OnnxNode {
            name,
            op: op.to_owned(),
            inputs,
            outputs,
            attributes,
        })
    }
}

impl OnnxNode {
    /// Input number `at`, if given.
    pub(crate) fn input(&self, at: usize) -> Option<ValueId> {
        self.inputs.get(at).copied().flatten()
    }

    /// The first output.
    pub(crate) fn output(&self) -> Option<ValueId> {
        self.outputs.first().copied().flatten()
    }

    /// An integer attribute.
    pub(crate) fn int(&self, name: &str) -> Option<i64> {
        match self.attributes.get(name)? {
            Attribute::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// A list attribute of integers.
    pub(crate) fn ints(&self, name: &str) -> Option<&[i64]> {
        match self.attributes.get(name)? {
            Attribute::Ints(values) => Some(values),
            _ => None,
        }
    }

    /// A real attribute.
    pub(crate) fn float(&self, name: &str) -> Option<f32> {
        match self.attributes.get(name)? {
            Attribute::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// A list attribute of reals.
    pub(crate) fn floats(&self, name: &str) -> Option<&[f32]> {
        match self.attributes.get(name)? {
            Attribute::Floats(values) => Some(values),
            _ => None,
        }
    }

    /// A text attribute.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.attributes.get(name)? {
            Attribute::Text(value) => Some(value),
            _ => None,
        }
    }
}
