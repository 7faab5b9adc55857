//! The vocabulary of a byte-level BPE tokenizer (GPT-2 style), as GGUF carries it.

use crate::gguf::{GgufError, GgufHeader, Value};
use std::collections::{BTreeSet, HashMap};

/// What a token stands for (`tokenizer.ggml.token_type`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// Text in the byte-level alphabet.
    Normal,
    /// A marker: no text of its own, never made from a user's text.
    Control,
    /// Literal text, not in the byte-level alphabet.
    UserDefined,
    /// Never produced by the tokenizer.
    Unused,
}

/// Tokens, merges and markers, checked for use: every byte has a token, every merge joins tokens into a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BpeVocabulary {
    /// Tokens by id, in the byte-level alphabet unless control or user-defined.
    pub tokens: Vec<String>,
    /// Kind of each token.
    pub kinds: Vec<TokenKind>,
    /// Merges in order of rank.
    pub merges: Vec<(String, String)>,
    /// Token that begins every prompt, if the model wants one.
    pub begin: Option<u32>,
    /// Tokens that end an answer.
    pub ends: BTreeSet<u32>,
    /// The model's chat template, a Jinja text that is not interpreted here.
    pub chat_template: Option<String>,
}

impl BpeVocabulary {
    /// Reads and checks the tokenizer of a file.
    ///
    /// # Errors
    /// [`GgufError::Metadata`] for another kind of tokenizer or one that is not consistent.
    pub fn read(header: &GgufHeader) -> Result<Self, GgufError> {
        const TOKENS: &str = "tokenizer.ggml.tokens";
        const MERGES: &str = "tokenizer.ggml.merges";
        let refuse = |key: &str, expected: &str, got: String| GgufError::Metadata {
            key: key.to_owned(),
            expected: expected.to_owned(),
            got,
        };
        let cut = |text: &str| format!("{:?}", text.chars().take(40).collect::<String>());
        for (key, expected) in [("tokenizer.ggml.model", "gpt2"), ("tokenizer.ggml.pre", "gpt-2")] {
            let got = header.text(key)?;
            if got != expected {
                return Err(refuse(key, &format!("{expected} (byte-level BPE)"), cut(got)));
            }
        }
        let tokens = header.texts(TOKENS)?.to_vec();
        let kinds = kinds(header, tokens.len())?;

        // Only text tokens take part in encoding, so only they must be unique.
        let mut ids: HashMap<&str, usize> = HashMap::with_capacity(tokens.len());
        for (id, (token, kind)) in tokens.iter().zip(&kinds).enumerate() {
            if token.is_empty() || token.len() > 1_024 {
                return Err(refuse(
                    TOKENS,
                    "tokens of 1 to 1024 bytes",
                    format!("token {id} of {} bytes", token.len()),
                ));
            }
            if *kind == TokenKind::Normal && !token.chars().all(|c| byte_of(c).is_some()) {
                return Err(refuse(
                    TOKENS,
                    "the byte-level alphabet",
                    format!("token {id} {}", cut(token)),
                ));
            }
            if ids.insert(token, id).is_some() {
                return Err(refuse(TOKENS, "tokens that differ", format!("{} twice", cut(token))));
            }
        }
        let text_token = |text: &str| {
            ids.get(text)
                .is_some_and(|&id| kinds.get(id) == Some(&TokenKind::Normal))
        };
        for byte in 0..=255u8 {
            if !text_token(char_of(byte).encode_utf8(&mut [0; 4])) {
                return Err(refuse(
                    TOKENS,
                    "a token for every byte",
                    format!("none for byte {byte}"),
                ));
            }
        }
        let mut merges = Vec::new();
        let mut seen = BTreeSet::new();
        for merge in header.texts(MERGES)? {
            let pair = merge
                .split_once(' ')
                .filter(|(left, right)| text_token(left) && text_token(right) && text_token(&format!("{left}{right}")));
            let Some((left, right)) = pair else {
                return Err(refuse(MERGES, "two tokens that join into a token", cut(merge)));
            };
            if !seen.insert(merge.as_str()) {
                return Err(refuse(MERGES, "merges that differ", format!("{} twice", cut(merge))));
            }
            merges.push((left.to_owned(), right.to_owned()));
        }
        let marker = |key: &str| match header.optional_u32(key)? {
            Some(id) if id as usize >= tokens.len() => {
                Err(refuse(key, &format!("a token below {}", tokens.len()), id.to_string()))
            }
            id => Ok(id),
        };
        let mut ends = BTreeSet::new();
        for key in [
            "tokenizer.ggml.eos_token_id",
            "tokenizer.ggml.eot_token_id",
            "tokenizer.ggml.eom_token_id",
        ] {
            ends.extend(marker(key)?);
        }
        let bos = marker("tokenizer.ggml.bos_token_id")?;
        let begin = match header.optional_bool("tokenizer.ggml.add_bos_token")? {
            Some(true) => Some(bos.ok_or_else(|| {
                refuse(
                    "tokenizer.ggml.bos_token_id",
                    "a token, as add_bos_token asks",
                    "nothing".into(),
                )
            })?),
            _ => None,
        };
        let chat_template = match header.metadata.get("tokenizer.chat_template") {
            None => None,
            Some(Value::Text(text)) => Some(text.clone()),
            Some(other) => return Err(header.mismatch("tokenizer.chat_template", "a text", other)),
        };
        Ok(Self {
            tokens,
            kinds,
            merges,
            begin,
            ends,
            chat_template,
        })
    }

    /// Id of a control token by its name, for example `<|im_end|>`.
    #[must_use]
    pub fn control(&self, name: &str) -> Option<u32> {
        let id = self.tokens.iter().position(|token| token == name)?;
        (self.kinds.get(id) == Some(&TokenKind::Control))
            .then(|| u32::try_from(id).ok())
            .flatten()
    }

    /// The bytes that a token adds to the answer: none for markers and unknown ids.
    #[must_use]
    pub fn bytes(&self, id: u32) -> Vec<u8> {
        let index = id as usize;
        match (self.tokens.get(index), self.kinds.get(index)) {
            (Some(token), Some(TokenKind::Normal)) => token.chars().filter_map(byte_of).collect(),
            (Some(token), Some(TokenKind::UserDefined)) => token.as_bytes().to_vec(),
            _ => Vec::new(),
        }
    }
}

fn kinds(header: &GgufHeader, count: usize) -> Result<Vec<TokenKind>, GgufError> {
    const KEY: &str = "tokenizer.ggml.token_type";
    const EXPECTED: &str = "an integer for each token";
    let Some(value) = header.metadata.get(KEY) else {
        return Ok(vec![TokenKind::Normal; count]);
    };
    let codes = match value {
        Value::Array(array) if array.len() == count => array.as_i32s(),
        _ => None,
    }
    .ok_or_else(|| header.mismatch(KEY, EXPECTED, value))?;
    codes
        .into_iter()
        .map(|code| match code {
            1 => Ok(TokenKind::Normal),
            3 => Ok(TokenKind::Control),
            4 => Ok(TokenKind::UserDefined),
            5 => Ok(TokenKind::Unused),
            got => Err(GgufError::Metadata {
                key: KEY.to_owned(),
                expected: "1 (normal), 3 (control), 4 (user-defined) or 5 (unused)".into(),
                got: got.to_string(),
            }),
        })
        .collect()
}

/// The character that stands for a byte in the byte-level alphabet: printable bytes stand for themselves, the others
/// for the characters from U+0100 on, in order (GPT-2, `bytes_to_unicode`).
#[must_use]
pub fn char_of(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    // The unprintable bytes are 0..=32, 127..=160 and 173.
    let index = match byte {
        0..=32 => u32::from(byte),
        127..=160 => u32::from(byte) - 127 + 33,
        _ => 67,
    };
    char::from_u32(256 + index).unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// The byte that a character of the byte-level alphabet stands for.
#[must_use]
pub fn byte_of(c: char) -> Option<u8> {
    let byte = match u32::from(c) {
        code @ 0..=255 => u8::try_from(code).ok()?,
        code @ 256..=288 => u8::try_from(code - 256).ok()?,
        code @ 289..=322 => u8::try_from(code - 289 + 127).ok()?,
        323 => 173,
        _ => return None,
    };
    (char_of(byte) == c).then_some(byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_alphabet_is_a_bijection() {
        let chars: BTreeSet<char> = (0..=255u8).map(char_of).collect();
        assert_eq!(chars.len(), 256);
        for byte in 0..=255u8 {
            assert_eq!(byte_of(char_of(byte)), Some(byte));
        }
        // Known points of GPT-2's table.
        assert_eq!(
            [char_of(b' '), char_of(b'\n'), char_of(b'A'), char_of(173)],
            ['Ġ', 'Ċ', 'A', 'Ń']
        );
        assert_eq!(
            [
                byte_of(' '),
                byte_of('\u{7f}'),
                byte_of('\u{ad}'),
                byte_of('漢'),
                byte_of('\u{144}')
            ],
            [None; 5]
        );
    }
}
