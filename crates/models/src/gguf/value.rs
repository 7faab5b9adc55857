//! Metadata values.

use super::{GgufError, reader::Reader};

/// Type of a scalar, or of the elements of a numeric array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are those of Rust's types")]
pub enum ValueKind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    U64,
    I64,
    F64,
}

impl ValueKind {
    const fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::U8,
            1 => Self::I8,
            2 => Self::U16,
            3 => Self::I16,
            4 => Self::U32,
            5 => Self::I32,
            6 => Self::F32,
            7 => Self::Bool,
            10 => Self::U64,
            11 => Self::I64,
            12 => Self::F64,
            _ => return None,
        })
    }

    const fn size(self) -> u64 {
        match self {
            Self::U8 | Self::I8 | Self::Bool => 1,
            Self::U16 | Self::I16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }
}

/// An array. Numbers stay in their encoding: most arrays of a file are never looked at.
#[derive(Debug, Clone, PartialEq)]
pub enum Array {
    /// Texts.
    Texts(Vec<String>),
    /// Numbers or booleans.
    Numbers {
        /// Type of the elements.
        kind: ValueKind,
        /// Little-endian elements, end to end.
        bytes: Vec<u8>,
    },
}

impl Array {
    /// Number of elements.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::Texts(texts) => texts.len(),
            Self::Numbers { kind, bytes } => bytes.len().checked_div(kind.size() as usize).unwrap_or_default(),
        }
    }

    /// Whether there is no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The elements if they are `i32` or `u32`, as llama.cpp writes token types.
    #[must_use]
    pub fn as_i32s(&self) -> Option<Vec<i32>> {
        match self {
            Self::Numbers {
                kind: ValueKind::I32 | ValueKind::U32,
                bytes,
            } => Some(
                bytes
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|chunk| i32::from_le_bytes(*chunk))
                    .collect(),
            ),
            _ => None,
        }
    }
}

/// A metadata value.
#[derive(Debug, Clone, PartialEq)]
#[allow(missing_docs, reason = "the names are those of Rust's types")]
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Text(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

impl Value {
    /// A short description for error messages.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::Text(text) => format!("the text {:?}", text.chars().take(40).collect::<String>()),
            Self::Array(array) => format!("an array of {} elements", array.len()),
            other => format!("{other:?}"),
        }
    }
}

const TEXT: u32 = 8;
const ARRAY: u32 = 9;

/// Reads a type code and a value of that type.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<Value, GgufError> {
    let at = reader.at();
    let code = reader.u32()?;
    match code {
        TEXT => Ok(Value::Text(reader.text("a text", reader.limits.text)?.to_owned())),
        ARRAY => Ok(Value::Array(array(reader)?)),
        _ => match ValueKind::from_code(code) {
            Some(kind) => scalar(reader, kind),
            None => Err(GgufError::ValueType { at, got: code }),
        },
    }
}

fn scalar(reader: &mut Reader<'_>, kind: ValueKind) -> Result<Value, GgufError> {
    let at = reader.at();
    Ok(match kind {
        ValueKind::U8 => Value::U8(u8::from_le_bytes(reader.array()?)),
        ValueKind::I8 => Value::I8(i8::from_le_bytes(reader.array()?)),
        ValueKind::U16 => Value::U16(u16::from_le_bytes(reader.array()?)),
        ValueKind::I16 => Value::I16(i16::from_le_bytes(reader.array()?)),
        ValueKind::U32 => Value::U32(reader.u32()?),
        ValueKind::I32 => Value::I32(i32::from_le_bytes(reader.array()?)),
        ValueKind::F32 => Value::F32(f32::from_le_bytes(reader.array()?)),
        ValueKind::Bool => match reader.array::<1>()? {
            [0] => Value::Bool(false),
            [1] => Value::Bool(true),
            [got] => return Err(GgufError::Bool { at, got }),
        },
        ValueKind::U64 => Value::U64(reader.u64()?),
        ValueKind::I64 => Value::I64(i64::from_le_bytes(reader.array()?)),
        ValueKind::F64 => Value::F64(f64::from_le_bytes(reader.array()?)),
    })
}

fn array(reader: &mut Reader<'_>) -> Result<Array, GgufError> {
    let at = reader.at();
    let code = reader.u32()?;
    let limit = reader.limits.array;
    if code == TEXT {
        let count = reader.count("elements of an array", limit, 8)?;
        let mut texts = Vec::with_capacity(count);
        for _ in 0..count {
            texts.push(reader.text("a text", reader.limits.text)?.to_owned());
        }
        return Ok(Array::Texts(texts));
    }
    // Arrays of arrays are legal GGUF; no model metadata that is read here has one.
    let kind = ValueKind::from_code(code).ok_or(GgufError::ValueType { at, got: code })?;
    let count = reader.count("elements of an array", limit, kind.size())?;
    let at = reader.at();
    let bytes = reader.take((count as u64).saturating_mul(kind.size()))?.to_vec();
    if kind == ValueKind::Bool
        && let Some(position) = bytes.iter().position(|&byte| byte > 1)
    {
        return Err(GgufError::Bool {
            at: at.saturating_add(position),
            got: bytes.get(position).copied().unwrap_or_default(),
        });
    }
    Ok(Array::Numbers { kind, bytes })
}
