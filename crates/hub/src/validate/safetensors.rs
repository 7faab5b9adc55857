//! Reads and checks the header of a safetensors file.
//!
//! Layout: `u64` little-endian length, a JSON object of that length, tensor data. Accepted is only a file in which every
//! byte of the data belongs to exactly one tensor and every tensor has the bytes that its type and shape need.
//!
//! Source: the format's description in huggingface/safetensors `README.md`.

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};
use std::{collections::BTreeMap, fmt};

/// Longest header, in bytes: Hugging Face's own bound.
pub(super) const HEADER_LIMIT: u64 = 25_000_000;
const RANK_LIMIT: usize = 16;

/// Why a safetensors file was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SafetensorsError {
    /// The front ends before the header does.
    #[error("the header ends at byte {needed}, after the end of the file")]
    Truncated {
        /// Bytes of the front that are needed.
        needed: u64,
    },
    /// An absurd header length.
    #[error("header length {got}, expected 2 to {HEADER_LIMIT}")]
    HeaderLength {
        /// Length found.
        got: u64,
    },
    /// Not the expected JSON.
    #[error("header: {0}")]
    Json(String),
    /// A tensor that contradicts itself.
    #[error("tensor {tensor:?}: {reason}")]
    Tensor {
        /// Its name, cut to a bounded length.
        tensor: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The tensors do not cover the data exactly.
    #[error("data: byte {at} of {end} belongs to no tensor or to two")]
    Coverage {
        /// Where it goes wrong, from the start of the data.
        at: u64,
        /// Size of the data.
        end: u64,
    },
}

/// One tensor.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorInfo {
    /// Element type as written, e.g. `BF16`.
    pub dtype: String,
    /// Dimensions.
    pub shape: Vec<u64>,
    /// First byte and the byte after the last, from the start of the data.
    pub data_offsets: (u64, u64),
}

/// A checked header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SafetensorsHeader {
    /// Tensors by name.
    pub tensors: BTreeMap<String, TensorInfo>,
    /// `__metadata__`.
    pub metadata: BTreeMap<String, String>,
    /// Bytes before the data.
    pub data_offset: u64,
}

/// Bits of one element.
fn bits(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "F4" => 4,
        "F6_E2M3" | "F6_E3M2" => 6,
        "BOOL" | "U8" | "I8" | "F8_E4M3" | "F8_E5M2" | "F8_E8M0" | "F8_E4M3FNUZ" | "F8_E5M2FNUZ" => 8,
        "I16" | "U16" | "F16" | "BF16" => 16,
        "I32" | "U32" | "F32" => 32,
        "I64" | "U64" | "F64" | "C64" => 64,
        _ => return None,
    })
}

impl SafetensorsHeader {
    /// Reads a header. `front` is the beginning of the file; `file_size` the size of the whole file.
    ///
    /// # Errors
    /// [`SafetensorsError`]; [`SafetensorsError::Truncated`] if `front` is too short.
    pub fn parse(front: &[u8], file_size: u64) -> Result<Self, SafetensorsError> {
        let Some((length, rest)) = front.split_first_chunk::<8>() else {
            return Err(SafetensorsError::Truncated { needed: 8 });
        };
        let length = u64::from_le_bytes(*length);
        if !(2..=HEADER_LIMIT).contains(&length) {
            return Err(SafetensorsError::HeaderLength { got: length });
        }
        let data_offset = length + 8;
        let header = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        let Some(header) = header.filter(|_| data_offset <= file_size) else {
            return Err(SafetensorsError::Truncated { needed: data_offset });
        };
        if header.first() != Some(&b'{') {
            return Err(SafetensorsError::Json("must begin with '{'".into()));
        }
        let Raw { tensors, metadata } = serde_json::from_slice(header)
            .map_err(|e| SafetensorsError::Json(e.to_string().chars().take(200).collect()))?;
        let header = Self {
            tensors,
            metadata,
            data_offset,
        };
        header.check(file_size - data_offset)?;
        Ok(header)
    }

    fn check(&self, data: u64) -> Result<(), SafetensorsError> {
        let mut spans = Vec::with_capacity(self.tensors.len());
        for (name, tensor) in &self.tensors {
            let no = |reason| SafetensorsError::Tensor {
                tensor: name.chars().take(80).collect(),
                reason,
            };
            if name.is_empty() || name.len() > 1_024 {
                return Err(no("the name must have 1 to 1024 bytes"));
            }
            if tensor.shape.len() > RANK_LIMIT {
                return Err(no("more than 16 dimensions"));
            }
            let width = bits(&tensor.dtype).ok_or_else(|| no("unknown element type"))?;
            let total = tensor
                .shape
                .iter()
                .try_fold(width, |product, dim| product.checked_mul(*dim))
                .ok_or_else(|| no("the shape overflows 64 bits"))?;
            let (start, end) = tensor.data_offsets;
            let size = end.checked_sub(start).ok_or_else(|| no("ends before it starts"))?;
            if !total.is_multiple_of(8) || total / 8 != size {
                return Err(no("its bytes are not what type and shape need"));
            }
            spans.push((start, end));
        }
        spans.sort_unstable();
        let mut at = 0;
        for (start, end) in spans {
            if start != at || end > data {
                return Err(SafetensorsError::Coverage { at, end: data });
            }
            at = end;
        }
        if at != data {
            return Err(SafetensorsError::Coverage { at, end: data });
        }
        Ok(())
    }

    /// Number of elements by type.
    #[must_use]
    pub fn parameters(&self) -> BTreeMap<String, u64> {
        let mut sums: BTreeMap<String, u64> = BTreeMap::new();
        for tensor in self.tensors.values() {
            // Checked: the product times the width fits.
            let elements = tensor
                .shape
                .iter()
                .fold(1u64, |product, dim| product.saturating_mul(*dim));
            let sum = sums.entry(tensor.dtype.clone()).or_default();
            *sum = sum.saturating_add(elements);
        }
        sums
    }
}

/// The JSON object, with duplicate names refused: two readers could take different ones.
struct Raw {
    tensors: BTreeMap<String, TensorInfo>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
                let mut tensors = BTreeMap::new();
                let mut metadata = None;
                while let Some(name) = map.next_key::<String>()? {
                    let twice = if name == "__metadata__" {
                        metadata.replace(map.next_value()?).is_some()
                    } else {
                        let tensor = map.next_value()?;
                        tensors.insert(name, tensor).is_some()
                    };
                    if twice {
                        return Err(A::Error::custom("a name occurs twice"));
                    }
                }
                Ok(Raw {
                    tensors,
                    metadata: metadata.unwrap_or_default(),
                })
            }
        }
        deserializer.deserialize_map(Object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(json: &str, data: usize) -> Vec<u8> {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend(json.as_bytes());
        bytes.extend(vec![0; data]);
        bytes
    }

    const GOOD: &str = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[],"data_offsets":[24,26]}}   "#;

    #[test]
    fn a_good_header_is_read() {
        let bytes = file(GOOD, 26);
        let header = SafetensorsHeader::parse(&bytes, bytes.len() as u64).unwrap();
        assert_eq!(
            header.parameters(),
            BTreeMap::from([("F32".into(), 6), ("BF16".into(), 1)])
        );
        assert_eq!(header.metadata["format"], "pt");
        let needed = 8 + GOOD.len() as u64;
        assert_eq!(
            SafetensorsHeader::parse(&bytes[..20], bytes.len() as u64),
            Err(SafetensorsError::Truncated { needed })
        );
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let edits = [
            ("[0,24]", "[0,20]"),
            ("[0,24]", "[24,0]"),
            ("[0,24]", "[1,25]"),
            ("[24,26]", "[22,24]"),
            ("[24,26]", "[26,28]"),
            ("[2,3]", "[18446744073709551615,2]"),
            ("[2,3]", "[-2,3]"),
            ("BF16", "PICKLE"),
            ("\"b\"", "\"a\""),
            ("\"b\"", "\"\""),
            ("\"shape\":[]", "\"shape\":[],\"x\":1"),
            ("{\"format\":\"pt\"}", "{\"format\":1}"),
        ];
        for (from, to) in edits {
            let bytes = file(&GOOD.replacen(from, to, 1), 26);
            assert!(
                SafetensorsHeader::parse(&bytes, bytes.len() as u64).is_err(),
                "{from} -> {to}"
            );
        }
        for data in [0, 25, 27] {
            let bytes = file(GOOD, data);
            assert!(SafetensorsHeader::parse(&bytes, bytes.len() as u64).is_err(), "{data}");
        }
        for length in [0u64, 1, HEADER_LIMIT + 1, u64::MAX] {
            let mut bytes = file(GOOD, 26);
            bytes[..8].copy_from_slice(&length.to_le_bytes());
            assert!(
                SafetensorsHeader::parse(&bytes, bytes.len() as u64).is_err(),
                "{length}"
            );
        }
        assert!(SafetensorsHeader::parse(&file(&"[".repeat(100_000), 0), 100_008).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), size in any::<u64>()) {
            let _ = SafetensorsHeader::parse(&bytes, size);
            if let Some(first) = bytes.first_chunk_mut::<8>() {
                *first = 50u64.to_le_bytes();
            }
            let _ = SafetensorsHeader::parse(&bytes, size);
        }

        #[test]
        fn mutations_do_not_panic(at in 0usize..GOOD.len() + 34, value in any::<u8>()) {
            let mut bytes = file(GOOD, 26);
            bytes[at] = value;
            let _ = SafetensorsHeader::parse(&bytes, bytes.len() as u64);
        }
    }
}
