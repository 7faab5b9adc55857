//! JSON objects as lists of entries, each value as its own text.

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;

/// Most entries of one object: inputs, or outputs and labels.
pub const MAX_ENTRIES: usize = 256;

/// The entries of one object. A name that appears twice is refused, since readers disagree which one counts.
#[derive(Debug, Clone)]
pub struct Entries<'a>(pub Vec<(String, &'a RawValue)>);

impl<'a> Entries<'a> {
    /// Splits the text of an object without looking into its values.
    ///
    /// # Errors
    /// If it is not one JSON object, has more than [`MAX_ENTRIES`] entries, or one name twice.
    pub fn parse(json: &'a [u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(json)
    }

    /// The text of an entry.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.get())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object {\"NAME\": nested numbers}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut out: Vec<(String, &'de RawValue)> = Vec::new();
                while let Some((name, value)) = entries.next_entry::<String, _>()? {
                    if out.iter().any(|(other, _)| *other == name) {
                        return Err(A::Error::custom(format_args!("{name:?} appears twice")));
                    }
                    if out.len() == MAX_ENTRIES {
                        return Err(A::Error::custom(format_args!("more than {MAX_ENTRIES} entries")));
                    }
                    out.push((name, value));
                }
                Ok(out)
            }
        }
        deserializer.deserialize_map(Object).map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_appear_once() {
        let entries = Entries::parse(b"{\"x\": 1, \"y\": [2 ]}").unwrap();
        assert_eq!(
            (entries.get("x"), entries.get("y"), entries.get("z")),
            (Some("1"), Some("[2 ]"), None)
        );
        for wrong in ["{\"x\": 1, \"x\": 2}", "[]", "3", "{} {}", ""] {
            assert!(Entries::parse(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}
