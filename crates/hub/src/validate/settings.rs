//! What the files beside a model say about it: `config.json` and `tokenizer_config.json` of `transformers`.
//!
//! Only the members that are shown are kept while a file is read, so a small file cannot take much memory, and a file that
//! is not as expected says nothing.

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};
use std::fmt;

/// Largest file that is read, in bytes.
pub const SETTINGS_LIMIT: u64 = 4 << 20;
/// Characters of a chat template that are kept.
pub(super) const TEMPLATE_LIMIT: usize = 65_536;
const NAME_LIMIT: usize = 64;

/// A text or number, of a list the first one, and of an object its `template`: chat templates are written in all these ways.
#[derive(Debug, Default, PartialEq, Eq)]
enum Leaf {
    Number(u64),
    Text(String),
    #[default]
    Other,
}

impl<'de> Deserialize<'de> for Leaf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Leaf;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_bool<E>(self, _: bool) -> Result<Leaf, E> {
                Ok(Leaf::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Leaf, E> {
                Ok(Leaf::Other)
            }

            fn visit_u64<E>(self, number: u64) -> Result<Leaf, E> {
                Ok(Leaf::Number(number))
            }

            fn visit_f64<E>(self, _: f64) -> Result<Leaf, E> {
                Ok(Leaf::Other)
            }

            fn visit_unit<E>(self) -> Result<Leaf, E> {
                Ok(Leaf::Other)
            }

            fn visit_str<E>(self, text: &str) -> Result<Leaf, E> {
                Ok(Leaf::Text(text.chars().take(TEMPLATE_LIMIT).collect()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Leaf, A::Error> {
                let first = list.next_element()?.unwrap_or_default();
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(first)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Leaf, A::Error> {
                let mut template = Leaf::Other;
                while let Some(key) = map.next_key::<String>()? {
                    if key == "template" {
                        template = map.next_value()?;
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(template)
            }
        }

        deserializer.deserialize_any(Reader)
    }
}

impl Leaf {
    const fn number(&self) -> Option<u64> {
        match self {
            // What does not fit is written for "no bound".
            Self::Number(number) if *number > 0 && *number < 1 << 40 => Some(*number),
            _ => None,
        }
    }

    fn text(&self, most: usize) -> Option<String> {
        match self {
            Self::Text(text) if !text.is_empty() => Some(text.chars().take(most).collect()),
            _ => None,
        }
    }
}

/// `config.json`. Families of models have their own words for the context length.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Config {
    architectures: Leaf,
    model_type: Leaf,
    max_position_embeddings: Leaf,
    n_positions: Leaf,
    n_ctx: Leaf,
    max_seq_len: Leaf,
    max_sequence_length: Leaf,
    seq_length: Leaf,
    /// Of models that also see or hear.
    text_config: Option<Box<Config>>,
}

impl Config {
    fn context_length(&self) -> Option<u64> {
        [
            &self.max_position_embeddings,
            &self.n_positions,
            &self.n_ctx,
            &self.max_seq_len,
            &self.max_sequence_length,
            &self.seq_length,
        ]
        .into_iter()
        .find_map(Leaf::number)
        .or_else(|| self.text_config.as_ref()?.context_length())
    }
}

/// `tokenizer_config.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Tokenizer {
    chat_template: Leaf,
    model_max_length: Leaf,
}

/// What is shown of these files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Class or family of the model.
    pub architecture: Option<String>,
    /// Tokens of the longest context.
    pub context_length: Option<u64>,
    /// How a conversation becomes one text.
    pub chat_template: Option<String>,
}

impl Settings {
    /// Reads the files; an empty one stands for one that is not there. `template` is a chat template in a file of its own,
    /// which comes before that in the tokenizer's. Pure, and never fails.
    #[must_use]
    pub fn read(config: &[u8], tokenizer: &[u8], template: &[u8]) -> Self {
        let config: Config = serde_json::from_slice(config).unwrap_or_default();
        let tokenizer: Tokenizer = serde_json::from_slice(tokenizer).unwrap_or_default();
        let template = std::str::from_utf8(template).ok().filter(|text| !text.is_empty());
        let template = template.map(|text| text.chars().take(TEMPLATE_LIMIT).collect());
        let architecture = config.architectures.text(NAME_LIMIT);
        Self {
            architecture: architecture.or_else(|| config.model_type.text(NAME_LIMIT)),
            context_length: config.context_length().or_else(|| tokenizer.model_max_length.number()),
            chat_template: template.or_else(|| tokenizer.chat_template.text(TEMPLATE_LIMIT)),
        }
    }

    /// Adds what the model file itself does not say to its panel.
    pub(crate) fn add_to(&self, panel: &mut Map<String, Value>) {
        let text = |text: &Option<String>| text.clone().map(Value::from);
        for (key, value) in [
            ("architecture", text(&self.architecture)),
            ("context_length", self.context_length.map(Value::from)),
            ("chat_template", text(&self.chat_template)),
        ] {
            if let Some(value) = value {
                panel.entry(key).or_insert(value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(config: &str, tokenizer: &str) -> (Option<String>, Option<u64>, Option<String>) {
        let settings = Settings::read(config.as_bytes(), tokenizer.as_bytes(), b"");
        (settings.architecture, settings.context_length, settings.chat_template)
    }

    #[test]
    fn the_usual_files_are_read() {
        let config = r#"{"architectures": ["LlamaForCausalLM", "Other"], "model_type": "llama", "max_position_embeddings": 2048,
            "rope_scaling": {"factor": [1, {"x": null}]}, "torch_dtype": "bfloat16", "tie": true}"#;
        let tokenizer = r#"{"chat_template": "{{ messages }}", "model_max_length": 1000000000000000019884624838656}"#;
        let llama = |context| {
            (
                Some("LlamaForCausalLM".to_owned()),
                context,
                Some("{{ messages }}".to_owned()),
            )
        };
        assert_eq!(read(config, tokenizer), llama(Some(2_048)));
        let own = Settings::read(config.as_bytes(), tokenizer.as_bytes(), b"own");
        assert_eq!(own.chat_template.as_deref(), Some("own"));
        // Another word for it, further in, or with the tokenizer.
        assert_eq!(read(r#"{"n_positions": 1024}"#, "").1, Some(1_024));
        let nested = r#"{"model_type": "gemma3", "text_config": {"max_position_embeddings": 131072}}"#;
        assert_eq!(read(nested, "").1, Some(131_072));
        assert_eq!(read("{}", r#"{"model_max_length": 512}"#).1, Some(512));
        // Several templates: the first is the usual one.
        let several =
            r#"{"chat_template": [{"name": "default", "template": "a"}, {"name": "tools", "template": "b"}]}"#;
        assert_eq!(read("", several).2.as_deref(), Some("a"));
    }

    #[test]
    fn other_files_say_nothing() {
        let deep = format!("{{\"architectures\": {}", "[".repeat(100_000));
        for text in [
            "",
            "null",
            "[]",
            "{",
            r#"{"max_position_embeddings": -1, "n_ctx": 0.5, "architectures": [], "chat_template": {"name": "x"}}"#,
            r#"{"max_position_embeddings": {"a": 1}, "architectures": null, "chat_template": ""}"#,
            r#"{"model_max_length": 1000000000000000019884624838656, "n_ctx": 18446744073709551615}"#,
            r#"{"text_config": 5}"#,
            &deep,
        ] {
            assert_eq!(
                Settings::read(text.as_bytes(), text.as_bytes(), b"\xff"),
                Settings::default(),
                "{text}"
            );
        }
        let long = format!("{{\"chat_template\": \"{}\"}}", "ü".repeat(TEMPLATE_LIMIT + 9));
        assert_eq!(read("", &long).2.unwrap().chars().count(), TEMPLATE_LIMIT);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Settings::read(&bytes, &bytes, &bytes);
        }
    }
}
