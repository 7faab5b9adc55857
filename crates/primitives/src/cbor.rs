//! Deterministic CBOR (RFC 8949 §4.2.1), strict both ways.
//!
//! The decoder accepts exactly the encodings that the encoder writes: shortest integers and lengths, definite lengths,
//! map keys unique and sorted by their encoded bytes, valid UTF-8, no floats, no simple values but `false`, `true` and
//! `null`, tags only where the caller asks for them, nothing after the value. So `decode` then `encode` is the
//! identity on every accepted input, and equal values have equal hashes.
//!
//! Sizes are checked before anything is allocated: a length is compared with the bytes that are left, and a count with
//! both the bytes left (every item takes one) and [`Limits::items`].

use std::cmp::Ordering;

/// Bounds on one document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of the whole encoding.
    pub bytes: usize,
    /// Deepest nesting of arrays, maps and tags; the outermost value has depth 1.
    pub depth: usize,
    /// Most values in total, containers and keys included.
    pub items: usize,
    /// Whether tags are accepted.
    pub tags: bool,
}

impl Limits {
    /// For documents of at most `bytes` bytes: 8 levels, 1 024 values, no tags.
    #[must_use]
    pub const fn for_bytes(bytes: usize) -> Self {
        Self {
            bytes,
            depth: 8,
            items: 1_024,
            tags: false,
        }
    }

    /// The same limits with tags accepted.
    #[must_use]
    pub const fn with_tags(mut self) -> Self {
        self.tags = true;
        self
    }
}

/// One CBOR value of the deterministic subset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Unsigned integer.
    Uint(u64),
    /// Negative integer `-1 - n`, holding `n`.
    Nint(u64),
    /// Byte string.
    Bytes(Vec<u8>),
    /// UTF-8 text.
    Text(String),
    /// List.
    Array(Vec<Value>),
    /// Map. Decoded maps are sorted with unique keys; [`Value::to_vec`] sorts what is built by hand.
    Map(Vec<(Value, Value)>),
    /// Tagged value.
    Tag(u64, Box<Value>),
    /// Boolean.
    Bool(bool),
    /// Null.
    Null,
}

/// Why an encoding was refused. Offsets are in bytes from the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CborError {
    /// Too large a document.
    #[error("CBOR of {got} bytes, at most {limit} are accepted")]
    TooLong {
        /// Accepted size.
        limit: usize,
        /// Size found.
        got: usize,
    },
    /// The input ends inside a value, or a length points past its end.
    #[error("CBOR ends at byte {at} where {expected} more bytes were expected")]
    Truncated {
        /// Offset.
        at: usize,
        /// Bytes (at least) missing.
        expected: u64,
    },
    /// An integer or length is not in its shortest form.
    #[error("CBOR integer at byte {at} is not in its shortest form")]
    NotShortest {
        /// Offset.
        at: usize,
    },
    /// An indefinite length, a float, an undefined or reserved initial byte.
    #[error("CBOR initial byte 0x{byte:02x} at byte {at} is not allowed")]
    Forbidden {
        /// Offset.
        at: usize,
        /// The byte.
        byte: u8,
    },
    /// A tag where none is accepted.
    #[error("CBOR tag at byte {at} where none is allowed")]
    UnexpectedTag {
        /// Offset.
        at: usize,
    },
    /// Nested too deeply.
    #[error("CBOR nested deeper than {limit} levels at byte {at}")]
    TooDeep {
        /// Accepted depth.
        limit: usize,
        /// Offset.
        at: usize,
    },
    /// Too many values.
    #[error("CBOR with more than {limit} values at byte {at}")]
    TooManyItems {
        /// Accepted number.
        limit: usize,
        /// Offset.
        at: usize,
    },
    /// A map key equals the one before it.
    #[error("CBOR map key at byte {at} appears twice")]
    DuplicateKey {
        /// Offset.
        at: usize,
    },
    /// A map key sorts before its predecessor.
    #[error("CBOR map key at byte {at} is out of order")]
    UnsortedKey {
        /// Offset.
        at: usize,
    },
    /// Text is not UTF-8.
    #[error("CBOR text at byte {at} is not UTF-8")]
    NotUtf8 {
        /// Offset.
        at: usize,
    },
    /// Bytes follow the value.
    #[error("{count} bytes follow the CBOR value that ends at byte {at}")]
    Trailing {
        /// Where the value ended.
        at: usize,
        /// Bytes left over.
        count: usize,
    },
}

/// Decodes one value that must fill the input.
///
/// # Errors
/// [`CborError`] for anything but the deterministic encoding of a value within `limits`.
pub fn decode_strict(bytes: &[u8], limits: Limits) -> Result<Value, CborError> {
    if bytes.len() > limits.bytes {
        return Err(CborError::TooLong {
            limit: limits.bytes,
            got: bytes.len(),
        });
    }
    let mut decoder = Decoder {
        bytes,
        at: 0,
        items: 0,
        limits,
    };
    let value = decoder.value(1)?;
    match bytes.len().saturating_sub(decoder.at) {
        0 => Ok(value),
        count => Err(CborError::Trailing { at: decoder.at, count }),
    }
}

impl Value {
    /// Deterministic encoding. Maps are sorted; a map built by hand with a key twice encodes to bytes that
    /// [`decode_strict`] refuses.
    #[must_use]
    pub fn to_vec(&self) -> Vec<u8> {
        let mut encoder = Encoder::new();
        encoder.value(self);
        encoder.finish()
    }

    /// Map from small integer keys, the shape of every map in this project.
    #[must_use]
    pub fn int_map(pairs: Vec<(u64, Value)>) -> Self {
        Self::Map(pairs.into_iter().map(|(key, value)| (Self::Uint(key), value)).collect())
    }
}

/// Writes deterministic CBOR. Container headers take the number of items that the caller then writes; map keys must be
/// written in ascending order of their encoding (for integer keys: ascending).
#[derive(Debug, Clone, Default)]
pub struct Encoder(Vec<u8>);

impl Encoder {
    /// An empty buffer.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// An empty buffer with room for `bytes`.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    /// The bytes written.
    #[must_use]
    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    /// Unsigned integer.
    pub fn uint(&mut self, value: u64) -> &mut Self {
        self.head(0, value)
    }

    /// Negative integer `-1 - n`.
    pub fn nint(&mut self, n: u64) -> &mut Self {
        self.head(1, n)
    }

    /// Byte string.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.head(2, value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// Text.
    pub fn text(&mut self, value: &str) -> &mut Self {
        self.head(3, value.len() as u64);
        self.0.extend_from_slice(value.as_bytes());
        self
    }

    /// Header of an array of `count` items.
    pub fn array(&mut self, count: usize) -> &mut Self {
        self.head(4, count as u64)
    }

    /// Header of a map of `count` pairs.
    pub fn map(&mut self, count: usize) -> &mut Self {
        self.head(5, count as u64)
    }

    /// Tag of the value that follows.
    pub fn tag(&mut self, tag: u64) -> &mut Self {
        self.head(6, tag)
    }

    /// Boolean.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.0.push(if value { 0xf5 } else { 0xf4 });
        self
    }

    /// Null.
    pub fn null(&mut self) -> &mut Self {
        self.0.push(0xf6);
        self
    }

    /// Any value.
    pub fn value(&mut self, value: &Value) -> &mut Self {
        match value {
            Value::Uint(n) => self.uint(*n),
            Value::Nint(n) => self.nint(*n),
            Value::Bytes(bytes) => self.bytes(bytes),
            Value::Text(text) => self.text(text),
            Value::Bool(value) => self.bool(*value),
            Value::Null => self.null(),
            Value::Tag(tag, inner) => self.tag(*tag).value(inner),
            Value::Array(items) => {
                self.array(items.len());
                for item in items {
                    self.value(item);
                }
                self
            }
            Value::Map(pairs) => {
                self.map(pairs.len());
                let mut encoded: Vec<(Vec<u8>, &Value)> =
                    pairs.iter().map(|(key, value)| (key.to_vec(), value)).collect();
                encoded.sort_by(|a, b| a.0.cmp(&b.0));
                for (key, value) in encoded {
                    self.0.extend_from_slice(&key);
                    self.value(value);
                }
                self
            }
        }
    }

    fn head(&mut self, major: u8, value: u64) -> &mut Self {
        let major = major << 5;
        let bytes = value.to_be_bytes();
        // Each arm keeps the low bytes that the range says are enough.
        match value {
            0..=23 => self.0.push(major | (value as u8)),
            24..=0xff => self.tail(major | 24, &bytes, 1),
            0x100..=0xffff => self.tail(major | 25, &bytes, 2),
            0x1_0000..=0xffff_ffff => self.tail(major | 26, &bytes, 4),
            _ => self.tail(major | 27, &bytes, 8),
        }
        self
    }

    fn tail(&mut self, first: u8, bytes: &[u8; 8], keep: usize) {
        self.0.push(first);
        self.0.extend(bytes.iter().skip(8 - keep));
    }
}

struct Decoder<'a> {
    bytes: &'a [u8],
    at: usize,
    items: usize,
    limits: Limits,
}

impl<'a> Decoder<'a> {
    fn value(&mut self, depth: usize) -> Result<Value, CborError> {
        let at = self.at;
        self.items += 1;
        if self.items > self.limits.items {
            return Err(CborError::TooManyItems {
                limit: self.limits.items,
                at,
            });
        }
        // Depth is checked here, so recursion ends at `limits.depth` whatever the input says.
        if depth > self.limits.depth {
            return Err(CborError::TooDeep {
                limit: self.limits.depth,
                at,
            });
        }
        let byte = self.take(1)?.first().copied().unwrap_or_default();
        let (major, info) = (byte >> 5, byte & 0x1f);
        if major == 7 {
            return match byte {
                0xf4 => Ok(Value::Bool(false)),
                0xf5 => Ok(Value::Bool(true)),
                0xf6 => Ok(Value::Null),
                _ => Err(CborError::Forbidden { at, byte }),
            };
        }
        let argument = self.argument(at, byte, info)?;
        match major {
            0 => Ok(Value::Uint(argument)),
            1 => Ok(Value::Nint(argument)),
            2 => Ok(Value::Bytes(self.string(argument)?.to_vec())),
            3 => {
                let bytes = self.string(argument)?;
                let text = std::str::from_utf8(bytes).map_err(|_| CborError::NotUtf8 { at })?;
                Ok(Value::Text(text.to_owned()))
            }
            4 => {
                let count = self.count(at, argument, 1)?;
                let mut items = Vec::with_capacity(count);
                for _ in 0..count {
                    items.push(self.value(depth + 1)?);
                }
                Ok(Value::Array(items))
            }
            5 => self.map(at, argument, depth),
            _ if !self.limits.tags => Err(CborError::UnexpectedTag { at }),
            _ => Ok(Value::Tag(argument, Box::new(self.value(depth + 1)?))),
        }
    }

    fn map(&mut self, at: usize, argument: u64, depth: usize) -> Result<Value, CborError> {
        let count = self.count(at, argument, 2)?;
        let mut pairs = Vec::with_capacity(count);
        let mut before: &'a [u8] = &[];
        for index in 0..count {
            let start = self.at;
            let key = self.value(depth + 1)?;
            let encoded = self.bytes.get(start..self.at).unwrap_or_default();
            if index > 0 {
                match before.cmp(encoded) {
                    Ordering::Less => {}
                    Ordering::Equal => return Err(CborError::DuplicateKey { at: start }),
                    Ordering::Greater => return Err(CborError::UnsortedKey { at: start }),
                }
            }
            before = encoded;
            pairs.push((key, self.value(depth + 1)?));
        }
        Ok(Value::Map(pairs))
    }

    /// The argument of an initial byte, refused unless in its shortest form.
    fn argument(&mut self, at: usize, byte: u8, info: u8) -> Result<u64, CborError> {
        let (width, least) = match info {
            0..=23 => return Ok(u64::from(info)),
            24 => (1, 24),
            25 => (2, 0x100),
            26 => (4, 0x1_0000),
            27 => (8, 0x1_0000_0000),
            _ => return Err(CborError::Forbidden { at, byte }),
        };
        let value = self
            .take(width)?
            .iter()
            .fold(0u64, |sum, byte| (sum << 8) | u64::from(*byte));
        if value < least {
            Err(CborError::NotShortest { at })
        } else {
            Ok(value)
        }
    }

    fn string(&mut self, length: u64) -> Result<&'a [u8], CborError> {
        let left = self.bytes.len().saturating_sub(self.at) as u64;
        match usize::try_from(length) {
            Ok(length) if length as u64 <= left => self.take(length),
            _ => Err(CborError::Truncated {
                at: self.bytes.len(),
                expected: length.saturating_sub(left),
            }),
        }
    }

    /// Number of items, once it is known that the input and the limits have room for them.
    fn count(&self, at: usize, items: u64, values_each: u64) -> Result<usize, CborError> {
        let values = items.saturating_mul(values_each);
        let left = self.bytes.len().saturating_sub(self.at) as u64;
        if values > left {
            return Err(CborError::Truncated {
                at: self.bytes.len(),
                expected: values - left,
            });
        }
        let room = self.limits.items.saturating_sub(self.items) as u64;
        match usize::try_from(items) {
            Ok(count) if values <= room => Ok(count),
            _ => Err(CborError::TooManyItems {
                limit: self.limits.items,
                at,
            }),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], CborError> {
        let end = self.at.saturating_add(count);
        match self.bytes.get(self.at..end) {
            Some(part) => {
                self.at = end;
                Ok(part)
            }
            None => Err(CborError::Truncated {
                at: self.bytes.len(),
                expected: end.saturating_sub(self.bytes.len()) as u64,
            }),
        }
    }
}
