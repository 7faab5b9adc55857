//! Data of constant tensors.

use super::attribute::{lossy, push_floats, push_ints};
use crate::{
    compile::CompileError,
    tensor::{Data, Tensor, count},
};
use opg_models::{
    onnx::DType,
    protobuf::{Message, Wire, WireError, packed_varints},
};

/// `TensorProto {1: dims, 2: data_type, 4: float_data, 5: int32_data, 6: string_data, 7: int64_data, 8: name,
/// 9: raw_data}`: name and content of a tensor of a type that is compiled.
pub(super) fn read(bytes: &[u8]) -> Result<(&str, Tensor), CompileError> {
    let wire = |source: WireError| CompileError::Wire {
        message: "TensorProto",
        source,
    };
    let mut name = "";
    let mut code = 0;
    let mut raw: Option<&[u8]> = None;
    let (mut dims, mut floats, mut ints, mut texts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for field in Message::new(bytes) {
        let field = field.map_err(wire)?;
        match field.number {
            1 => push_ints(&field, &mut dims).map_err(wire)?,
            2 => code = field.int64().map_err(wire)?,
            4 => push_floats(&field, &mut floats).map_err(wire)?,
            5 => match field.wire {
                Wire::Bytes(bytes) => {
                    for value in packed_varints(bytes) {
                        ints.push(value.map_err(wire)?.cast_signed());
                    }
                }
                _ => ints.push(field.int64().map_err(wire)?),
            },
            6 => texts.push(lossy(&field).map_err(wire)?),
            7 => push_ints(&field, &mut ints).map_err(wire)?,
            8 => name = field.text().map_err(wire)?,
            9 => raw = Some(field.bytes().map_err(wire)?),
            _ => {}
        }
    }
    let refuse = |reason: &str| CompileError::Tensor {
        tensor: name.chars().take(80).collect(),
        reason: reason.to_owned(),
    };
    let shape: Vec<usize> = dims
        .iter()
        .map(|dim| usize::try_from(*dim))
        .collect::<Result<_, _>>()
        .map_err(|_| refuse("has a negative dimension"))?;
    let expected = count(&shape).ok_or_else(|| refuse("has too many dimensions or elements"))?;
    let dtype = DType::from_code(code).ok_or_else(|| refuse("has no known element type"))?;
    let data = match dtype {
        DType::F32 => Data::Float(match raw {
            Some(raw) => raw
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes))
                .collect(),
            None => floats,
        }),
        DType::String => Data::Text(texts),
        DType::I64 => Data::Int(match raw {
            Some(raw) => raw
                .as_chunks::<8>()
                .0
                .iter()
                .map(|bytes| i64::from_le_bytes(*bytes))
                .collect(),
            None => ints,
        }),
        DType::I32 => Data::Int(match raw {
            Some(raw) => raw
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| i64::from(i32::from_le_bytes(*bytes)))
                .collect(),
            None => ints,
        }),
        DType::I8 => Data::Int(match raw {
            Some(raw) => raw.iter().map(|byte| i64::from(byte.cast_signed())).collect(),
            None => ints,
        }),
        DType::U8 | DType::Bool => Data::Int(match raw {
            Some(raw) => raw.iter().map(|byte| i64::from(*byte)).collect(),
            None => ints,
        }),
        DType::F64 => {
            return Err(refuse(
                "is float64: export the model in float32 (for PyTorch: model.float() before the export)",
            ));
        }
        other => {
            return Err(refuse(&format!(
                "has element type {other}, which is not compiled: use float32 or int64"
            )));
        }
    };
    let tensor = Tensor { shape, data };
    if tensor.len() != expected {
        return Err(refuse("has another number of elements than its shape"));
    }
    if tensor
        .as_floats()
        .is_some_and(|values| values.iter().any(|value| value.is_nan()))
    {
        return Err(refuse("holds a value that is not a number (NaN)"));
    }
    Ok((name, tensor))
}
