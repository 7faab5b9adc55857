//! Attributes of nodes.

use super::tensor;
use crate::{compile::CompileError, tensor::Tensor};
use opg_models::protobuf::{Field, Message, Wire, WireError, packed_varints};

/// Value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Attribute {
    Float(f32),
    Int(i64),
    Text(String),
    Tensor(Tensor),
    Floats(Vec<f32>),
    Ints(Vec<i64>),
    Texts(Vec<String>),
    /// A subgraph or type: no operator that is compiled has one.
    Other,
}

/// Real numbers of a repeated field, packed or not.
pub(super) fn push_floats(field: &Field<'_>, out: &mut Vec<f32>) -> Result<(), WireError> {
    match field.wire {
        Wire::Fixed32(bits) => out.push(f32::from_bits(bits)),
        Wire::Bytes(bytes) => out.extend(bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes))),
        _ => return Err(WireError::Type { field: field.number }),
    }
    Ok(())
}

/// Integers of a repeated field, packed or not.
pub(super) fn push_ints(field: &Field<'_>, out: &mut Vec<i64>) -> Result<(), WireError> {
    match field.wire {
        Wire::Varint(value) => out.push(value.cast_signed()),
        Wire::Bytes(bytes) => {
            for value in packed_varints(bytes) {
                out.push(value?.cast_signed());
            }
        }
        _ => return Err(WireError::Type { field: field.number }),
    }
    Ok(())
}

/// Text that need not be UTF-8 in the file; what is not is replaced.
pub(super) fn lossy(field: &Field<'_>) -> Result<String, WireError> {
    Ok(String::from_utf8_lossy(field.bytes()?).into_owned())
}

/// `AttributeProto {1: name, 2: f, 3: i, 4: s, 5: t, 7: floats, 8: ints, 9: strings, 20: type}`.
pub(super) fn read(bytes: &[u8]) -> Result<(String, Attribute), CompileError> {
    let wire = |source: WireError| CompileError::Wire {
        message: "AttributeProto",
        source,
    };
    let mut name = String::new();
    let mut kind = 0;
    let mut single = None;
    let (mut floats, mut ints, mut texts) = (Vec::new(), Vec::new(), Vec::new());
    for field in Message::new(bytes) {
        let field = field.map_err(wire)?;
        match field.number {
            1 => name = field.text().map_err(wire)?.to_owned(),
            2 => {
                let Wire::Fixed32(bits) = field.wire else {
                    return Err(wire(WireError::Type { field: 2 }));
                };
                single = Some(Attribute::Float(f32::from_bits(bits)));
            }
            3 => single = Some(Attribute::Int(field.int64().map_err(wire)?)),
            4 => single = Some(Attribute::Text(lossy(&field).map_err(wire)?)),
            5 => single = Some(Attribute::Tensor(tensor::read(field.bytes().map_err(wire)?)?.1)),
            7 => push_floats(&field, &mut floats).map_err(wire)?,
            8 => push_ints(&field, &mut ints).map_err(wire)?,
            9 => texts.push(lossy(&field).map_err(wire)?),
            20 => kind = field.varint().map_err(wire)?,
            _ => {}
        }
    }
    // proto3 leaves a field of value 0 out, so the declared type decides: FLOAT 1, INT 2, STRING 3, TENSOR 4,
    // FLOATS 6, INTS 7, STRINGS 8.
    let value = match (kind, single) {
        (6, _) => Attribute::Floats(floats),
        (7, _) => Attribute::Ints(ints),
        (8, _) => Attribute::Texts(texts),
        (1, None) => Attribute::Float(0.0),
        (2, None) => Attribute::Int(0),
        (3, None) => Attribute::Text(String::new()),
        (_, Some(value)) => value,
        (_, None) if !floats.is_empty() => Attribute::Floats(floats),
        (_, None) if !ints.is_empty() => Attribute::Ints(ints),
        (_, None) if !texts.is_empty() => Attribute::Texts(texts),
        _ => Attribute::Other,
    };
    Ok((name, value))
}
