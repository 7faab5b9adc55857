//! Splits a JSON file into requests, each as its own text, with a bound on their number.

use std::fmt;

use opg_zkml::MAX_BATCH;
use serde::de::{Deserialize, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Requests of a file: one object or a list of them, each as its own text.
pub(super) struct Requests<'a> {
    /// Text of each request.
    pub(super) objects: Vec<&'a RawValue>,
    /// Whether the file is a list.
    pub(super) list: bool,
}

impl<'a> Requests<'a> {
    /// Splits a file without looking into its requests.
    pub(super) fn parse(bytes: &'a [u8]) -> serde_json::Result<Self> {
        if bytes.trim_ascii_start().first() == Some(&b'[') {
            let Batch(objects) = serde_json::from_slice(bytes)?;
            return Ok(Self { objects, list: true });
        }
        Ok(Self {
            objects: vec![serde_json::from_slice(bytes)?],
            list: false,
        })
    }
}

/// A list of bounded length.
struct Batch<'a>(Vec<&'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for Batch<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct List;
        impl<'de> Visitor<'de> for List {
            type Value = Vec<&'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object {\"NAME\": nested numbers}, or a list of them")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
                let mut out = Vec::new();
                while let Some(item) = items.next_element()? {
                    if out.len() == MAX_BATCH {
                        return Err(A::Error::custom(format_args!("more than {MAX_BATCH} requests")));
                    }
                    out.push(item);
                }
                if out.is_empty() {
                    Err(A::Error::custom("a list without requests"))
                } else {
                    Ok(out)
                }
            }
        }
        deserializer.deserialize_seq(List).map(Batch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let parse =
            |text: &'static str| Requests::parse(text.as_bytes()).map(|found| (found.objects.len(), found.list));
        assert_eq!(parse(" {\"x\": 1}").unwrap(), (1, false));
        assert_eq!(parse("[{}, {}]").unwrap(), (2, true));
        for wrong in ["", "[]", "{", "[1", "{} {}"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
