//! Finds the name of the model in a JSON body while it streams past, so that a request need not be held to be routed.
//!
//! Only the member `model` of the outermost object counts, the first one. This is a hint for routing: the node that gets
//! the request parses and checks it.

/// Longest name that is looked for, as JSON text.
const MAX_NAME: usize = 512;

/// Where the scan stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Before a key, a value or the end.
    Between,
    /// Inside a text; `true` after a backslash.
    Text(bool),
    /// The name was found, or never will be.
    Done,
}

/// A scan over one body.
#[derive(Debug)]
pub(crate) struct ModelScan {
    place: Place,
    depth: u32,
    /// Whether the next text at depth 1 is a key.
    key_next: bool,
    /// Whether the last key was `model`.
    is_model: bool,
    /// The text that is being read, with its quotes, if it matters.
    text: Vec<u8>,
    keep: bool,
    found: Option<String>,
}

impl Default for ModelScan {
    fn default() -> Self {
        Self {
            place: Place::Between,
            depth: 0,
            key_next: false,
            is_model: false,
            text: Vec::new(),
            keep: false,
            found: None,
        }
    }
}

impl ModelScan {
    /// Takes the next bytes.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match self.place {
                Place::Done => return,
                Place::Text(escaped) => self.in_text(*byte, escaped),
                Place::Between => self.between(*byte),
            }
        }
    }

    /// The name, once it has passed.
    #[must_use]
    pub(crate) fn found(&self) -> Option<&str> {
        self.found.as_deref()
    }

    /// Whether more bytes can change anything.
    #[must_use]
    pub(crate) fn is_done(&self) -> bool {
        self.place == Place::Done
    }

    fn between(&mut self, byte: u8) {
        match byte {
            b'{' | b'[' => {
                // What is no object has no members.
                if self.depth == 0 && byte == b'[' {
                    self.place = Place::Done;
                }
                self.depth += 1;
                self.key_next = self.depth == 1;
            }
            b'}' | b']' => {
                self.depth = self.depth.saturating_sub(1);
                if self.depth == 0 {
                    self.place = Place::Done;
                }
            }
            b',' if self.depth == 1 => self.key_next = true,
            b'"' => {
                self.place = Place::Text(false);
                self.keep = self.depth == 1 && (self.key_next || self.is_model);
                self.text.clear();
                if self.keep {
                    self.text.push(byte);
                }
            }
            _ => {}
        }
    }

    fn in_text(&mut self, byte: u8, escaped: bool) {
        if self.keep {
            self.text.push(byte);
            if self.text.len() > MAX_NAME {
                self.keep = false;
                self.text.clear();
            }
        }
        match byte {
            b'"' if !escaped => self.end_text(),
            _ => self.place = Place::Text(byte == b'\\' && !escaped),
        }
    }

    fn end_text(&mut self) {
        self.place = Place::Between;
        if self.depth != 1 {
            return;
        }
        let text = serde_json::from_slice::<String>(&self.text).ok().filter(|_| self.keep);
        if std::mem::replace(&mut self.key_next, false) {
            self.is_model = text.as_deref() == Some("model");
        } else if std::mem::replace(&mut self.is_model, false) {
            self.found = text;
            self.place = Place::Done;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn scan(bytes: &[u8], size: usize) -> Option<String> {
        let mut scan = ModelScan::default();
        for piece in bytes.chunks(size.max(1)) {
            scan.push(piece);
        }
        scan.found().map(str::to_owned)
    }

    #[test]
    fn the_outermost_model_in_any_position() {
        let tricky = json!({"messages": [{"model": "inner", "content": "\"model\": \"quoted\" \\"}], "a\"": {"model": "x"}, "model": "demo/ü \"q\"", "z": 1});
        let text = tricky.to_string();
        for size in 1..40 {
            assert_eq!(
                scan(text.as_bytes(), size).as_deref(),
                Some("demo/ü \"q\""),
                "pieces of {size}"
            );
        }
        assert_eq!(scan(br#"{"mod\u0065l" : "a"}"#, 3).as_deref(), Some("a"));
        assert_eq!(scan(br#" { "model":null , "model":"b" }"#, 3).as_deref(), Some("b"));
        for none in [
            &b""[..],
            b"[{\"model\":\"x\"}]",
            b"{\"model\":{\"model\":\"x\"}}",
            b"\"model\"",
            b"{\"x\":\"model\",\"y\":\"z\"}",
            b"}}{",
        ] {
            assert_eq!(scan(none, 2), None, "{}", String::from_utf8_lossy(none));
        }
        let long = format!("{{\"model\":\"{}\"}}", "x".repeat(1000));
        assert_eq!(scan(long.as_bytes(), 100), None);
    }

    proptest! {
        #[test]
        fn it_never_panics(bytes in prop::collection::vec(prop::sample::select(b"{}[]\",:\\model \xff1u".to_vec()), 0..200), size in 1..9usize) {
            scan(&bytes, size);
        }

        #[test]
        fn it_agrees_with_a_parser(keys in prop::collection::vec(("[a-c\"\\\\]{0,3}", "[a-z\"{},\\\\]{0,6}"), 0..5), name in "[a-z/\"\\\\é]{0,12}", at in 0..5usize, size in 1..20usize) {
            let mut object = serde_json::Map::new();
            for (i, (key, value)) in keys.iter().enumerate() {
                if i == at {
                    object.insert("model".into(), json!(name));
                }
                object.insert(key.clone(), json!([value, {"model": value}]));
            }
            let value = Value::Object(object);
            let expected = value["model"].as_str().map(str::to_owned);
            prop_assert_eq!(scan(value.to_string().as_bytes(), size), expected);
        }
    }
}
