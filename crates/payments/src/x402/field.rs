//! Reading JSON of strangers field by field, so that an error can say which field is wrong.

use super::{MAX_SIGNATURE_BYTES, X402Error, decimal};
use alloy_primitives::{Address, B256, Bytes, U256};
use opg_primitives::money::Amount;
use serde_json::Value;

pub(super) fn bad(field: &'static str, problem: impl Into<String>) -> X402Error {
    X402Error::Payload {
        field,
        problem: problem.into(),
    }
}

/// A reader of one object. `name` is the key inside it, `path` what errors call it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(pub(super) &'a Value);

impl<'a> Reader<'a> {
    pub(super) fn object(self, name: &str, path: &'static str) -> Result<Self, X402Error> {
        self.0
            .get(name)
            .filter(|v| v.is_object())
            .map(Reader)
            .ok_or_else(|| bad(path, "is missing or not an object"))
    }

    pub(super) fn has(self, name: &str) -> bool {
        self.0.get(name).is_some_and(|v| !v.is_null())
    }

    pub(super) fn text(self, name: &str, path: &'static str) -> Result<&'a str, X402Error> {
        self.0
            .get(name)
            .and_then(Value::as_str)
            .ok_or_else(|| bad(path, "is missing or not a string"))
    }

    pub(super) fn address(self, name: &str, path: &'static str) -> Result<Address, X402Error> {
        let text = self.text(name, path)?;
        text.parse::<Address>()
            .ok()
            .filter(|_| text.len() == 42)
            .ok_or_else(|| bad(path, "is not 0x and 40 hex digits"))
    }

    pub(super) fn word(self, name: &str, path: &'static str) -> Result<B256, X402Error> {
        let text = self.text(name, path)?;
        text.parse::<B256>()
            .ok()
            .filter(|_| text.len() == 66)
            .ok_or_else(|| bad(path, "is not 0x and 64 hex digits"))
    }

    pub(super) fn uint(self, name: &str, path: &'static str) -> Result<U256, X402Error> {
        decimal::parse(self.text(name, path)?).ok_or_else(|| bad(path, "is not a decimal integer below 2^256"))
    }

    pub(super) fn amount(self, name: &str, path: &'static str) -> Result<Amount, X402Error> {
        Amount::parse_wei(self.text(name, path)?).map_err(|_| bad(path, "is not a decimal integer below 2^128"))
    }

    pub(super) fn seconds(self, name: &str, path: &'static str) -> Result<u64, X402Error> {
        u64::try_from(self.uint(name, path)?).map_err(|_| bad(path, "is not a decimal number of seconds"))
    }

    /// A JSON number, or decimal text: clients differ.
    pub(super) fn number(self, name: &str, path: &'static str) -> Result<u64, X402Error> {
        match self.0.get(name) {
            Some(Value::Number(number)) => number.as_u64(),
            Some(Value::String(text)) => decimal::parse(text).and_then(|v| u64::try_from(v).ok()),
            _ => None,
        }
        .ok_or_else(|| bad(path, "is missing or not a whole number"))
    }

    /// Bounded before it is decoded.
    pub(super) fn signature(self, name: &str, path: &'static str) -> Result<Bytes, X402Error> {
        let text = self.text(name, path)?;
        // Two digits a byte and "0x".
        if text.len() > 2 + 2 * MAX_SIGNATURE_BYTES {
            return Err(bad(path, format!("is longer than {MAX_SIGNATURE_BYTES} bytes")));
        }
        text.parse::<Bytes>().map_err(|e| bad(path, format!("is not hex: {e}")))
    }
}
