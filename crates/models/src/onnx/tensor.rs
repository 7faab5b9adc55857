//! Checks a `TensorProto` without copying its data.

use super::{DType, Limits, OnnxError, short};
use crate::protobuf::{Field, Message, Wire, WireError, packed_varints};

/// Name, type and size of a tensor that was checked.
pub(super) struct Checked<'a> {
    pub(super) name: &'a str,
    pub(super) dtype: DType,
    pub(super) elements: u64,
    pub(super) bytes: u64,
}

/// `TensorProto {1: dims, 2: data_type, 3: segment, 4: float_data, 5: int32_data, 6: string_data, 7: int64_data,
/// 8: name, 9: raw_data, 10: double_data, 11: uint64_data, 13: external_data, 14: data_location}`.
pub(super) fn check<'a>(bytes: &'a [u8], limits: &Limits) -> Result<Checked<'a>, OnnxError> {
    let wire = |source| OnnxError::Wire {
        message: "TensorProto",
        source,
    };
    let mut name = "";
    let mut code = 0;
    let mut dims: Vec<i64> = Vec::new();
    let mut raw = None;
    let mut external = false;
    let mut segment = false;
    // Elements found in each of the typed lists: float, int32, string, int64, double, uint64.
    let mut counts = [0u64; 6];
    for field in Message::new(bytes) {
        let field = field.map_err(wire)?;
        let list = match field.number {
            1 => {
                dimensions(&field, &mut dims, limits.rank).map_err(wire)?;
                continue;
            }
            2 => {
                code = field.int64().map_err(wire)?;
                continue;
            }
            3 => {
                segment = true;
                continue;
            }
            8 => {
                name = field.text().map_err(wire)?;
                continue;
            }
            9 => {
                raw = Some(field.bytes().map_err(wire)?.len() as u64);
                continue;
            }
            13 => {
                external = true;
                continue;
            }
            14 => {
                external |= field.varint().map_err(wire)? != 0;
                continue;
            }
            4 => (0, Some(4)),
            5 => (1, None),
            6 => (2, Some(0)),
            7 => (3, None),
            10 => (4, Some(8)),
            11 => (5, None),
            _ => continue,
        };
        if let Some(count) = counts.get_mut(list.0) {
            *count = count.saturating_add(elements(&field, list.1).map_err(wire)?);
        }
    }
    let refuse = |reason| OnnxError::Tensor {
        tensor: short(name),
        reason,
    };
    if external {
        return Err(OnnxError::ExternalData { tensor: short(name) });
    }
    if segment {
        return Err(refuse("segmented tensors are not accepted"));
    }
    if dims.len() > limits.rank {
        return Err(refuse("has too many dimensions"));
    }
    let dtype = DType::from_code(code).ok_or_else(|| refuse("has no known element type"))?;
    let mut count = 1u64;
    for dim in dims {
        let dim = u64::try_from(dim).map_err(|_| refuse("has a negative dimension"))?;
        count = count
            .checked_mul(dim)
            .ok_or_else(|| refuse("has more elements than 64 bits can count"))?;
    }
    let size = count
        .checked_mul(dtype.bits())
        .ok_or_else(|| refuse("is larger than 64 bits can count"))?
        .div_ceil(8);
    let checked = Checked {
        name,
        dtype,
        elements: count,
        bytes: size,
    };
    let listed = counts.iter().any(|&count| count > 0);
    match raw {
        Some(_) if listed => Err(refuse("has raw data and listed data")),
        Some(_) if dtype == DType::String => Err(refuse("strings cannot be raw data")),
        Some(length) if length != size => Err(refuse("raw data does not have the size of the shape")),
        Some(_) => Ok(checked),
        None => {
            // Which list holds a type, and how many entries an element takes in it: half for the 4-bit types, two for
            // complex numbers.
            let (list, expected) = match dtype {
                DType::F32 => (0, count),
                DType::C64 => (0, count.saturating_mul(2)),
                DType::String => (2, count),
                DType::I64 => (3, count),
                DType::F64 => (4, count),
                DType::C128 => (4, count.saturating_mul(2)),
                DType::U32 | DType::U64 => (5, count),
                _ if dtype.bits() == 4 => (1, count.div_ceil(2)),
                _ => (1, count),
            };
            let total: u64 = counts.iter().fold(0, |sum, &count| sum.saturating_add(count));
            if counts.get(list) != Some(&expected) || total != expected {
                return Err(refuse("listed data does not have the length of the shape"));
            }
            Ok(checked)
        }
    }
}

/// Entries of one field: `width` is the size of a packed entry, 0 for a text, `None` for integers.
fn elements(field: &Field<'_>, width: Option<u64>) -> Result<u64, WireError> {
    let wrong = WireError::Type { field: field.number };
    match (field.wire, width) {
        (Wire::Fixed32(_), Some(4))
        | (Wire::Fixed64(_), Some(8))
        | (Wire::Varint(_), None)
        | (Wire::Bytes(_), Some(0)) => Ok(1),
        (Wire::Bytes(bytes), Some(width)) => {
            let length = bytes.len() as u64;
            if length.checked_rem(width) == Some(0) {
                Ok(length / width)
            } else {
                Err(wrong)
            }
        }
        (Wire::Bytes(bytes), None) => {
            packed_varints(bytes).try_fold(0u64, |count, value| value.map(|_| count.saturating_add(1)))
        }
        _ => Err(wrong),
    }
}

/// Reads dimensions, packed or not; keeps one more than the accepted rank so that the caller sees the excess.
fn dimensions(field: &Field<'_>, dims: &mut Vec<i64>, rank: usize) -> Result<(), WireError> {
    match field.wire {
        Wire::Bytes(bytes) => {
            for value in packed_varints(bytes) {
                let value = value?;
                if dims.len() <= rank {
                    dims.push(value.cast_signed());
                }
            }
            Ok(())
        }
        _ => {
            let value = field.int64()?;
            if dims.len() <= rank {
                dims.push(value);
            }
            Ok(())
        }
    }
}
