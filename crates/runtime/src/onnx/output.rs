//! From tensors, sequences and maps to JSON.
//!
//! Numbers are exact: an `f32` is written as the `f64` of the same value, so parsing it back gives the same bits.
//! JSON has no number for NaN and the infinities: a model that makes them gets the texts `"NaN"`, `"Infinity"` and
//! `"-Infinity"`. Map keys are texts.

use crate::RuntimeError;
use ort::value::{DynValue, DynValueTypeMarker, PrimitiveTensorElementType, TensorElementType, ValueType};
use serde_json::{Map, Number, Value};

/// Converts one output; `left` is the number of elements that may still be returned.
pub(super) fn write(value: &DynValue, limit: usize, left: &mut usize) -> Result<Value, RuntimeError> {
    match value.dtype() {
        ValueType::Tensor { ty, .. } => tensor(value, *ty, limit, left),
        ValueType::Sequence(_) => {
            let items = value
                .try_extract_sequence::<DynValueTypeMarker>()
                .map_err(RuntimeError::engine)?;
            Ok(Value::Array(
                items
                    .iter()
                    .map(|item| write(item, limit, left))
                    .collect::<Result<_, _>>()?,
            ))
        }
        ValueType::Map { key, value: element } => map(value, *key, *element, limit, left),
        ValueType::Optional(_) => Err(RuntimeError::engine("an optional output")),
    }
}

fn take(count: usize, limit: usize, left: &mut usize) -> Result<(), RuntimeError> {
    *left = left.checked_sub(count).ok_or_else(|| RuntimeError::OutputTooLarge {
        limit,
        got: limit.saturating_sub(*left).saturating_add(count),
    })?;
    Ok(())
}

fn tensor(value: &DynValue, ty: TensorElementType, limit: usize, left: &mut usize) -> Result<Value, RuntimeError> {
    macro_rules! elements {
        ($($variant:ident => $ty:ty;)*) => {
            match ty {
                $(TensorElementType::$variant => {
                    let (shape, data) = value.try_extract_tensor::<$ty>().map_err(RuntimeError::engine)?;
                    take(data.len(), limit, left)?;
                    nest(shape, &mut data.iter().map(|element| element.json()))
                })*
                TensorElementType::String => {
                    let (shape, data) = value.try_extract_strings().map_err(RuntimeError::engine)?;
                    take(data.len(), limit, left)?;
                    nest(shape, &mut data.into_iter().map(Value::String))
                }
                other => return Err(RuntimeError::engine(format_args!("an output of type {other}"))),
            }
        };
    }
    Ok(elements! {
        Float32 => f32; Float64 => f64; Int8 => i8; Int16 => i16; Int32 => i32; Int64 => i64;
        Uint8 => u8; Uint16 => u16; Uint32 => u32; Uint64 => u64; Bool => bool;
    })
}

/// Nested lists of a shape, row-major; a scalar is no list.
fn nest(shape: &[i64], elements: &mut impl Iterator<Item = Value>) -> Value {
    match shape.split_first() {
        None => elements.next().unwrap_or_default(),
        Some((&size, rest)) => Value::Array((0..size).map(|_| nest(rest, elements)).collect()),
    }
}

fn map(
    value: &DynValue,
    key: TensorElementType,
    element: TensorElementType,
    limit: usize,
    left: &mut usize,
) -> Result<Value, RuntimeError> {
    fn entries<K, V>(value: &DynValue) -> Result<Vec<(String, Value)>, RuntimeError>
    where
        K: ort::value::IntoTensorElementType + Clone + std::hash::Hash + Eq + ToString,
        V: PrimitiveTensorElementType + Clone + Json,
    {
        let pairs = value.try_extract_key_values::<K, V>().map_err(RuntimeError::engine)?;
        Ok(pairs
            .into_iter()
            .map(|(key, value)| (key.to_string(), value.json()))
            .collect())
    }
    use TensorElementType as T;
    let entries = match (key, element) {
        (T::Int64, T::Float32) => entries::<i64, f32>(value)?,
        (T::Int64, T::Float64) => entries::<i64, f64>(value)?,
        (T::Int64, T::Int64) => entries::<i64, i64>(value)?,
        (T::String, T::Float32) => entries::<String, f32>(value)?,
        (T::String, T::Float64) => entries::<String, f64>(value)?,
        (T::String, T::Int64) => entries::<String, i64>(value)?,
        (key, element) => {
            return Err(RuntimeError::engine(format_args!(
                "an output of type map<{key},{element}>"
            )));
        }
    };
    take(entries.len(), limit, left)?;
    Ok(Value::Object(Map::from_iter(entries)))
}

/// Exact JSON form of one element.
trait Json {
    fn json(&self) -> Value;
}

impl Json for f64 {
    fn json(&self) -> Value {
        match Number::from_f64(*self) {
            Some(number) => Value::Number(number),
            None if self.is_nan() => "NaN".into(),
            None if *self > 0.0 => "Infinity".into(),
            None => "-Infinity".into(),
        }
    }
}

impl Json for f32 {
    fn json(&self) -> Value {
        f64::from(*self).json()
    }
}

macro_rules! plain {
    ($($ty:ty),*) => {$(impl Json for $ty {
        fn json(&self) -> Value {
            Value::from(*self)
        }
    })*};
}

plain!(i8, i16, i32, i64, u8, u16, u32, u64, bool);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn numbers_are_exact_and_the_rest_is_text() {
        for bits in [0x3dcc_cccd_u32, 0x0000_0001, 0x7f7f_ffff, 0x8000_0000, 0x3f80_0001] {
            let text = f32::from_bits(bits).json().to_string();
            let parsed: f64 = serde_json::from_str::<Value>(&text).unwrap().as_f64().unwrap();
            assert_eq!((parsed as f32).to_bits(), bits, "{text}");
        }
        assert_eq!(
            [f32::NAN.json(), f32::INFINITY.json(), f64::NEG_INFINITY.json()],
            ["NaN", "Infinity", "-Infinity"]
        );
        assert_eq!(u64::MAX.json().to_string(), "18446744073709551615");
    }

    #[test]
    fn nesting_follows_the_shape() {
        let mut numbers = (0..6).map(Value::from);
        assert_eq!(nest(&[2, 3], &mut numbers), json!([[0, 1, 2], [3, 4, 5]]));
        assert_eq!(nest(&[], &mut std::iter::once(json!(7))), json!(7));
        assert_eq!(nest(&[2, 0], &mut std::iter::empty()), json!([[], []]));
    }

    #[test]
    fn the_limit_counts_all_outputs() {
        let mut left = 10;
        assert!(take(6, 10, &mut left).is_ok());
        let error = take(6, 10, &mut left).unwrap_err();
        assert_eq!(error.to_string(), "the answer has 12 elements, at most 10 are returned");
    }
}
