//! From JSON to tensors. Everything that can be wrong with an input is found here, before anybody pays.

use super::{
    signature::shape_text,
    value::{Data, Tensor},
};
use crate::InputError;
use opg_models::onnx::{DType, Dim, ValueInfo, ValueType};
use serde_json::{Map, Value};
use std::{collections::HashMap, fmt};

/// Most dimensions of an input whose rank the model does not declare.
const RANK_LIMIT: usize = 8;

/// Reads all inputs of a model, in its order, from `{name: nested lists}`.
pub(super) fn read(value: &Value, declared: &[ValueInfo], limit: usize) -> Result<Vec<Tensor>, InputError> {
    let Value::Object(object) = value else {
        return Err(InputError::NotAnObject { got: kind(value) });
    };
    if let Some(name) = object
        .keys()
        .find(|name| !declared.iter().any(|info| info.name == **name))
    {
        return Err(InputError::Unknown {
            name: name.chars().take(80).collect(),
            expected: names(declared),
        });
    }
    let mut symbols: HashMap<&str, usize> = HashMap::new();
    let mut total = 0usize;
    let mut inputs = Vec::with_capacity(declared.len());
    for info in declared {
        let input = one(object, info, limit)?;
        total = total.saturating_add(input.shape.iter().product());
        if total > limit {
            return Err(InputError::TooMany {
                field: info.name.clone(),
                limit,
                got: total,
            });
        }
        if let ValueType::Tensor { shape: Some(shape), .. } = &info.ty {
            for (dim, &got) in shape.iter().zip(&input.shape) {
                let Dim::Symbolic(dimension) = dim else { continue };
                let expected = *symbols.entry(dimension).or_insert(got);
                if expected != got {
                    return Err(InputError::Dimension {
                        field: info.name.clone(),
                        dimension: dimension.clone(),
                        expected,
                        got,
                    });
                }
            }
        }
        inputs.push(input);
    }
    Ok(inputs)
}

fn names(declared: &[ValueInfo]) -> String {
    declared
        .iter()
        .map(|info| info.name.as_str())
        .collect::<Vec<_>>()
        .join(", ")
}

fn one(object: &Map<String, Value>, info: &ValueInfo, limit: usize) -> Result<Tensor, InputError> {
    let name = info.name.clone();
    let Some(value) = object.get(&name) else {
        return Err(InputError::Missing {
            name,
            expected: info.ty.to_string(),
        });
    };
    // Loading refused models with other inputs.
    let ValueType::Tensor { dtype, shape: declared } = &info.ty else {
        return Err(InputError::Missing {
            name,
            expected: info.ty.to_string(),
        });
    };
    let shape = discover(&name, value)?;
    if let Some(declared) = declared {
        let fits = declared.len() == shape.len()
            && declared
                .iter()
                .zip(&shape)
                .all(|(dim, &got)| dim.fixed().is_none_or(|size| size == got as u64));
        if !fits {
            return Err(InputError::Shape {
                field: name,
                expected: shape_text(declared.iter().map(Dim::fixed)),
                got: shape_text(shape.iter().map(|&size| Some(size as u64))),
            });
        }
    }
    let count = shape
        .iter()
        .try_fold(1usize, |count, &size| count.checked_mul(size))
        .unwrap_or(usize::MAX);
    if count > limit {
        return Err(InputError::TooMany {
            field: name,
            limit,
            got: count,
        });
    }
    macro_rules! elements {
        ($($dtype:ident => $data:ident;)*) => {
            match dtype {
                $(DType::$dtype => {
                    let mut out = Vec::with_capacity(count);
                    Walk { name: &name, shape: &shape, index: Vec::with_capacity(shape.len()) }.fill(value, &mut out)?;
                    Data::$data(out)
                })*
                // Loading refused models with other element types.
                other => return Err(InputError::Missing { name, expected: other.to_string() }),
            }
        };
    }
    let data = elements! {
        F32 => F32; F64 => F64; I8 => I8; I16 => I16; I32 => I32; I64 => I64;
        U8 => U8; U16 => U16; U32 => U32; U64 => U64; Bool => Bool; String => Text;
    };
    Ok(Tensor { shape, data })
}

/// The shape that the first elements have.
fn discover(name: &str, value: &Value) -> Result<Vec<usize>, InputError> {
    let mut shape = Vec::new();
    let mut value = value;
    while let Value::Array(items) = value {
        let Some(first) = items.first() else {
            return Err(InputError::Empty {
                field: path(name, &vec![0; shape.len()]),
            });
        };
        if shape.len() == RANK_LIMIT {
            return Err(InputError::Shape {
                field: name.to_owned(),
                expected: format!("at most {RANK_LIMIT} dimensions"),
                got: "more".into(),
            });
        }
        shape.push(items.len());
        value = first;
    }
    Ok(shape)
}

/// Walks nested lists of one shape and keeps the index for error messages.
struct Walk<'a> {
    name: &'a str,
    shape: &'a [usize],
    index: Vec<usize>,
}

impl Walk<'_> {
    fn fill<T: Element>(&mut self, value: &Value, out: &mut Vec<T>) -> Result<(), InputError> {
        let field = |walk: &Self| path(walk.name, &walk.index);
        let Some(&expected) = self.shape.get(self.index.len()) else {
            out.push(T::read(value).map_err(|refusal| refusal.at(field(self), T::NAME))?);
            return Ok(());
        };
        let Value::Array(items) = value else {
            return Err(InputError::Dtype {
                field: field(self),
                expected: "a list",
                got: kind(value).into(),
            });
        };
        if items.len() != expected {
            return Err(InputError::Ragged {
                field: field(self),
                expected,
                got: items.len(),
            });
        }
        for (at, item) in items.iter().enumerate() {
            self.index.push(at);
            self.fill(item, out)?;
            self.index.pop();
        }
        Ok(())
    }
}

fn path(name: &str, index: &[usize]) -> String {
    use fmt::Write;
    index.iter().fold(name.to_owned(), |mut path, at| {
        // Writing to a text does not fail.
        let _ = write!(path, "[{at}]");
        path
    })
}

/// JSON type of a value, for error messages.
const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Why one element was refused.
enum Refusal {
    Type(String),
    Range(String),
    NotFinite(String),
}

impl Refusal {
    fn at(self, field: String, expected: &'static str) -> InputError {
        match self {
            Self::Type(got) => InputError::Dtype { field, expected, got },
            Self::Range(got) => InputError::Range { field, expected, got },
            Self::NotFinite(got) => InputError::NotFinite { field, got },
        }
    }

    fn wrong(value: &Value) -> Self {
        match value {
            // The ways in which JSON writers spell what JSON has no number for.
            Value::String(text) if is_not_finite(text) => Self::NotFinite(format!("{text:?}")),
            Value::String(text) => Self::Type(format!("the text {:?}", text.chars().take(40).collect::<String>())),
            Value::Number(number) => Self::Type(format!("the number {number}")),
            other => Self::Type(kind(other).into()),
        }
    }
}

fn is_not_finite(text: &str) -> bool {
    let text = text.trim().trim_start_matches(['+', '-']).to_ascii_lowercase();
    matches!(text.as_str(), "nan" | "inf" | "infinity")
}

trait Element: Sized {
    const NAME: &'static str;
    fn read(value: &Value) -> Result<Self, Refusal>;
}

impl Element for f64 {
    const NAME: &'static str = "f64";

    fn read(value: &Value) -> Result<Self, Refusal> {
        match value.as_f64() {
            Some(number) if number.is_finite() => Ok(number),
            Some(number) => Err(Refusal::NotFinite(number.to_string())),
            None => Err(Refusal::wrong(value)),
        }
    }
}

impl Element for f32 {
    const NAME: &'static str = "f32";

    #[allow(
        clippy::cast_possible_truncation,
        reason = "rounding to f32 is what the model's type asks for; overflow is checked"
    )]
    fn read(value: &Value) -> Result<Self, Refusal> {
        let number = f64::read(value)?;
        let rounded = number as f32;
        if rounded.is_finite() {
            Ok(rounded)
        } else {
            Err(Refusal::Range(number.to_string()))
        }
    }
}

impl Element for bool {
    const NAME: &'static str = "bool";

    fn read(value: &Value) -> Result<Self, Refusal> {
        value.as_bool().ok_or_else(|| Refusal::wrong(value))
    }
}

impl Element for String {
    const NAME: &'static str = "string";

    fn read(value: &Value) -> Result<Self, Refusal> {
        match value {
            // The engine takes texts as C strings.
            Value::String(text) if text.contains('\0') => Err(Refusal::Type("a text with a NUL character".into())),
            Value::String(text) => Ok(text.clone()),
            other => Err(Refusal::wrong(other)),
        }
    }
}

macro_rules! integers {
    ($($ty:ident),*) => {$(
        impl Element for $ty {
            const NAME: &'static str = stringify!($ty);

            fn read(value: &Value) -> Result<Self, Refusal> {
                let number = match value.as_i64() {
                    Some(number) => i128::from(number),
                    // 1.0 and 1e3 are not integers in JSON's sense here: what is meant is not certain.
                    None => i128::from(value.as_u64().ok_or_else(|| Refusal::wrong(value))?),
                };
                $ty::try_from(number).map_err(|_| Refusal::Range(number.to_string()))
            }
        }
    )*};
}

integers!(i8, i16, i32, i64, u8, u16, u32, u64);
