//! From tensors, sequences and maps to JSON.
//!
//! Numbers are exact: an `f32` is written as the `f64` of the same value, so parsing it back gives the same bits.
//! JSON has no number for NaN and the infinities: a model that makes them gets the texts `"NaN"`, `"Infinity"` and
//! `"-Infinity"`. Map keys are texts.

use super::value::{Data, Output, Tensor};
use serde_json::{Map, Number, Value};

/// Converts one output. What it may hold has been checked where it was made.
pub(super) fn write(output: Output) -> Value {
    match output {
        Output::Tensor(Tensor { shape, data }) => nest(&shape, &mut elements(data)),
        Output::Sequence(items) => Value::Array(items.into_iter().map(write).collect()),
        Output::Map { keys, values } => Value::Object(Map::from_iter(keys.into_iter().zip(elements(values)))),
    }
}

fn elements(data: Data) -> Box<dyn Iterator<Item = Value>> {
    fn all<T: Json + 'static>(data: Vec<T>) -> Box<dyn Iterator<Item = Value>> {
        Box::new(data.into_iter().map(Json::json))
    }
    match data {
        Data::F32(data) => all(data),
        Data::F64(data) => all(data),
        Data::I8(data) => all(data),
        Data::I16(data) => all(data),
        Data::I32(data) => all(data),
        Data::I64(data) => all(data),
        Data::U8(data) => all(data),
        Data::U16(data) => all(data),
        Data::U32(data) => all(data),
        Data::U64(data) => all(data),
        Data::Bool(data) => all(data),
        Data::Text(data) => all(data),
    }
}

/// Nested lists of a shape, row-major; a scalar is no list.
fn nest(shape: &[usize], elements: &mut dyn Iterator<Item = Value>) -> Value {
    match shape.split_first() {
        None => elements.next().unwrap_or_default(),
        Some((&size, [])) => Value::Array(elements.take(size).collect()),
        Some((&size, rest)) => Value::Array((0..size).map(|_| nest(rest, elements)).collect()),
    }
}

/// Exact JSON form of one element.
trait Json {
    fn json(self) -> Value;
}

impl Json for f64 {
    fn json(self) -> Value {
        match Number::from_f64(self) {
            Some(number) => Value::Number(number),
            None if self.is_nan() => "NaN".into(),
            None if self > 0.0 => "Infinity".into(),
            None => "-Infinity".into(),
        }
    }
}

impl Json for f32 {
    fn json(self) -> Value {
        f64::from(self).json()
    }
}

macro_rules! plain {
    ($($ty:ty),*) => {$(impl Json for $ty {
        fn json(self) -> Value {
            Value::from(self)
        }
    })*};
}

plain!(i8, i16, i32, i64, u8, u16, u32, u64, bool, String);

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
}
