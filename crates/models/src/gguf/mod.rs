//! Reads the header of a GGUF file: metadata and tensor table.
//!
//! [`GgufHeader::parse`] needs only the front of the file and its total size, so that a large model is not read to be
//! refused. It accepts little-endian versions 2 and 3 and checks what llama.cpp checks and more: counts and lengths
//! against the bytes that are left, unique keys and names, dimensions whose product does not overflow, block sizes,
//! and tensor data that fills the rest of the file in order, without overlap, without holes and without a tail.
//!
//! Source: `docs/gguf.md` and `gguf.cpp` of ggml.

mod reader;
mod value;

pub use value::{Array, Value, ValueKind};

use reader::Reader;
use std::collections::{BTreeMap, BTreeSet};

/// Bounds on one GGUF header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of the header (everything before the tensor data).
    pub header: usize,
    /// Most metadata entries.
    pub entries: usize,
    /// Longest key, in bytes.
    pub key: usize,
    /// Longest text, in bytes.
    pub text: usize,
    /// Most elements of an array.
    pub array: usize,
    /// Most tensors.
    pub tensors: usize,
    /// Longest tensor name, in bytes.
    pub name: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header: 256 << 20,
            entries: 4_096,
            key: 256,
            text: 1 << 20,
            array: 1 << 22,
            tensors: 1 << 16,
            name: 63,
        }
    }
}

/// Why a GGUF file was refused. Offsets are in bytes from its start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GgufError {
    /// Not a GGUF file.
    #[error("magic: expected GGUF, got {got:02x?}")]
    Magic {
        /// The first four bytes.
        got: [u8; 4],
    },
    /// A version (or byte order) that is not known.
    #[error("version: expected 2 or 3, little-endian, got {got}")]
    Version {
        /// Version found.
        got: u32,
    },
    /// The bytes given end before the header does.
    #[error("the header ends at byte {at}, where at least {missing} more bytes were expected")]
    Truncated {
        /// Where the read began.
        at: usize,
        /// Bytes (at least) missing.
        missing: u64,
    },
    /// Too many of something, or too long.
    #[error("{what}: {got}, at most {limit} are accepted")]
    Limit {
        /// What is counted.
        what: &'static str,
        /// Number found.
        got: u64,
        /// Accepted number.
        limit: u64,
    },
    /// A text that is not UTF-8, or a key or name that is empty or has control characters.
    #[error("text at byte {at} is not accepted as {what}")]
    Text {
        /// Offset.
        at: usize,
        /// What it should be.
        what: &'static str,
    },
    /// A value type that is not known, or an array of arrays.
    #[error("value type {got} at byte {at} is not accepted")]
    ValueType {
        /// Offset.
        at: usize,
        /// Type code.
        got: u32,
    },
    /// A boolean other than 0 and 1.
    #[error("boolean at byte {at}: expected 0 or 1, got {got}")]
    Bool {
        /// Offset.
        at: usize,
        /// Byte found.
        got: u8,
    },
    /// A key or tensor name that appears twice.
    #[error("{name:?} appears twice")]
    Duplicate {
        /// The key or name.
        name: String,
    },
    /// A metadata entry that is missing or has another type or an impossible value.
    #[error("{key}: expected {expected}, got {got}")]
    Metadata {
        /// Key.
        key: String,
        /// What belongs there.
        expected: String,
        /// What is there.
        got: String,
    },
    /// A tensor whose type, shape or place is impossible.
    #[error("tensor {name:?}: {reason}")]
    Tensor {
        /// Tensor name.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Bytes that belong to no tensor follow the last one.
    #[error("the file has {got} bytes, its tensors end at byte {end}")]
    Tail {
        /// Size of the file.
        got: u64,
        /// Where it should end.
        end: u64,
    },
}

/// Storage type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the names are those of ggml.h")]
pub enum GgmlType {
    F32,
    F16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2K,
    Q3K,
    Q4K,
    Q5K,
    Q6K,
    Q8K,
    Bf16,
}

impl GgmlType {
    /// The type of a code of `enum ggml_type`. Types that no engine here computes with are unknown.
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        Some(match code {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            9 => Self::Q8_1,
            10 => Self::Q2K,
            11 => Self::Q3K,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            15 => Self::Q8K,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// Elements and bytes of one block.
    #[must_use]
    pub const fn block(self) -> (u64, u64) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q8_1 => (32, 36),
            Self::Q2K => (256, 84),
            Self::Q3K => (256, 110),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
            Self::Q8K => (256, 292),
        }
    }
}

/// One row of the tensor table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Name.
    pub name: String,
    /// Sizes, innermost dimension first: a matrix of `out` rows of `in` columns is `[in, out]`.
    pub dims: Vec<u64>,
    /// Storage type.
    pub ty: GgmlType,
    /// Offset from the start of the tensor data.
    pub offset: u64,
    /// Size in bytes.
    pub size: u64,
}

/// Metadata and tensor table of one file.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufHeader {
    /// File format version, 2 or 3.
    pub version: u32,
    /// Metadata by key.
    pub metadata: BTreeMap<String, Value>,
    /// Tensors in file order.
    pub tensors: Vec<TensorInfo>,
    /// Alignment of the tensor data.
    pub alignment: u64,
    /// Offset of the tensor data from the start of the file.
    pub data_offset: u64,
}

impl GgufHeader {
    /// Reads a header. `front` is the beginning of the file, at least to the tensor data; `file_size` is the size of
    /// the whole file.
    ///
    /// # Errors
    /// [`GgufError`] naming the first thing that is not accepted; [`GgufError::Truncated`] if `front` is too short.
    pub fn parse(front: &[u8], file_size: u64) -> Result<Self, GgufError> {
        Self::parse_with(front, file_size, &Limits::default())
    }

    /// Reads a header under given bounds.
    ///
    /// # Errors
    /// As [`GgufHeader::parse`].
    pub fn parse_with(front: &[u8], file_size: u64, limits: &Limits) -> Result<Self, GgufError> {
        let mut reader = Reader::new(front, limits);
        let magic: [u8; 4] = reader.array()?;
        if &magic != b"GGUF" {
            return Err(GgufError::Magic { got: magic });
        }
        let version = reader.u32()?;
        if !matches!(version, 2 | 3) {
            return Err(GgufError::Version { got: version });
        }
        // A tensor takes at least 32 bytes of the table, an entry at least 13.
        let tensor_count = reader.count("tensors", limits.tensors, 32)?;
        let entry_count = reader.count("metadata entries", limits.entries, 13)?;

        let mut metadata = BTreeMap::new();
        for _ in 0..entry_count {
            let key = reader.name("a key", limits.key)?;
            let value = value::read(&mut reader)?;
            if metadata.contains_key(&key) {
                return Err(GgufError::Duplicate { name: key });
            }
            metadata.insert(key, value);
        }
        let alignment = match metadata.get("general.alignment") {
            None => 32,
            Some(Value::U32(value)) if value.is_power_of_two() && (8..=65_536).contains(value) => u64::from(*value),
            Some(other) => {
                return Err(GgufError::Metadata {
                    key: "general.alignment".into(),
                    expected: "a power of two from 8 to 65536 (u32)".into(),
                    got: other.describe(),
                });
            }
        };
        let mut tensors = Vec::with_capacity(tensor_count);
        let mut names = BTreeSet::new();
        let mut end = 0u64;
        for _ in 0..tensor_count {
            let tensor = tensor(&mut reader, limits)?;
            if !names.insert(tensor.name.clone()) {
                return Err(GgufError::Duplicate { name: tensor.name });
            }
            let refuse = |reason: String| GgufError::Tensor {
                name: tensor.name.clone(),
                reason,
            };
            let start = align(end, alignment).ok_or_else(|| refuse("ends after 2^64 bytes".into()))?;
            if tensor.offset != start {
                return Err(refuse(format!("expected offset {start}, got {}", tensor.offset)));
            }
            end = start
                .checked_add(tensor.size)
                .ok_or_else(|| refuse("ends after 2^64 bytes".into()))?;
            tensors.push(tensor);
        }
        let overflow = || GgufError::Tail {
            got: file_size,
            end: u64::MAX,
        };
        let data_offset = align(reader.at() as u64, alignment).ok_or_else(overflow)?;
        let data_end = data_offset.checked_add(end).ok_or_else(overflow)?;
        let padded_end = data_offset
            .checked_add(align(end, alignment).ok_or_else(overflow)?)
            .ok_or_else(overflow)?;
        if let Some(last) = tensors.last()
            && data_end > file_size
        {
            let reason = format!("ends at byte {data_end} of a file of {file_size} bytes");
            return Err(GgufError::Tensor {
                name: last.name.clone(),
                reason,
            });
        }
        if file_size > padded_end || file_size < reader.at() as u64 {
            return Err(GgufError::Tail {
                got: file_size,
                end: padded_end,
            });
        }
        Ok(Self {
            version,
            metadata,
            tensors,
            alignment,
            data_offset,
        })
    }

    /// The entry of a key, or an error that says what was expected there.
    ///
    /// # Errors
    /// [`GgufError::Metadata`] if there is none.
    pub fn require(&self, key: &str, expected: &str) -> Result<&Value, GgufError> {
        self.metadata.get(key).ok_or_else(|| GgufError::Metadata {
            key: key.to_owned(),
            expected: expected.to_owned(),
            got: "nothing".into(),
        })
    }

    /// The entry of a key as `u32`.
    ///
    /// # Errors
    /// [`GgufError::Metadata`] if there is none or it has another type.
    pub fn u32(&self, key: &str) -> Result<u32, GgufError> {
        match self.require(key, "an integer (u32)")? {
            Value::U32(value) => Ok(*value),
            other => Err(self.mismatch(key, "an integer (u32)", other)),
        }
    }

    /// The entry of a key as finite `f32`.
    ///
    /// # Errors
    /// [`GgufError::Metadata`] if there is none or it has another type or value.
    pub fn f32(&self, key: &str) -> Result<f32, GgufError> {
        match self.require(key, "a finite number (f32)")? {
            Value::F32(value) if value.is_finite() => Ok(*value),
            other => Err(self.mismatch(key, "a finite number (f32)", other)),
        }
    }

    /// The entry of a key as text.
    ///
    /// # Errors
    /// [`GgufError::Metadata`] if there is none or it has another type.
    pub fn text(&self, key: &str) -> Result<&str, GgufError> {
        match self.require(key, "a text")? {
            Value::Text(value) => Ok(value),
            other => Err(self.mismatch(key, "a text", other)),
        }
    }

    /// The entry of a key as array of texts.
    ///
    /// # Errors
    /// [`GgufError::Metadata`] if there is none or it has another type.
    pub fn texts(&self, key: &str) -> Result<&[String], GgufError> {
        match self.require(key, "an array of texts")? {
            Value::Array(Array::Texts(values)) => Ok(values),
            other => Err(self.mismatch(key, "an array of texts", other)),
        }
    }

    /// A boolean entry that may be absent.
    ///
    /// # Errors
    /// [`GgufError::Metadata`] if it has another type.
    pub fn optional_bool(&self, key: &str) -> Result<Option<bool>, GgufError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self.mismatch(key, "a boolean", other)),
        }
    }

    /// A `u32` entry that may be absent.
    ///
    /// # Errors
    /// [`GgufError::Metadata`] if it has another type.
    pub fn optional_u32(&self, key: &str) -> Result<Option<u32>, GgufError> {
        match self.metadata.get(key) {
            None => Ok(None),
            Some(_) => self.u32(key).map(Some),
        }
    }

    /// A tensor by name.
    #[must_use]
    pub fn tensor(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.iter().find(|tensor| tensor.name == name)
    }

    pub(crate) fn mismatch(&self, key: &str, expected: &str, got: &Value) -> GgufError {
        GgufError::Metadata {
            key: key.to_owned(),
            expected: expected.to_owned(),
            got: got.describe(),
        }
    }
}

fn tensor(reader: &mut Reader<'_>, limits: &Limits) -> Result<TensorInfo, GgufError> {
    let name = reader.name("a tensor name", limits.name)?;
    let refuse = |reason: &str| GgufError::Tensor {
        name: name.clone(),
        reason: reason.to_owned(),
    };
    let rank = reader.u32()?;
    if !(1..=4).contains(&rank) {
        return Err(refuse("expected 1 to 4 dimensions"));
    }
    let mut dims = Vec::with_capacity(4);
    let mut elements = 1u64;
    for _ in 0..rank {
        let dim = reader.u64()?;
        if dim == 0 {
            return Err(refuse("has a dimension of size 0"));
        }
        // Engines count elements in i64.
        elements = elements
            .checked_mul(dim)
            .filter(|&elements| elements <= i64::MAX.cast_unsigned())
            .ok_or_else(|| refuse("has more elements than 63 bits can count"))?;
        dims.push(dim);
    }
    let code = reader.u32()?;
    let ty =
        GgmlType::from_code(code).ok_or_else(|| refuse(&format!("has storage type {code}, which is not supported")))?;
    let (block_elements, block_bytes) = ty.block();
    if dims
        .first()
        .is_some_and(|&row| row.checked_rem(block_elements) != Some(0))
    {
        return Err(refuse("has rows that are not whole blocks"));
    }
    let size = (elements / block_elements)
        .checked_mul(block_bytes)
        .ok_or_else(|| refuse("is larger than 64 bits can count"))?;
    let offset = reader.u64()?;
    Ok(TensorInfo {
        name,
        dims,
        ty,
        offset,
        size,
    })
}

fn align(offset: u64, alignment: u64) -> Option<u64> {
    offset.checked_next_multiple_of(alignment)
}
