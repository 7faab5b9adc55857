//! Typed access to the members of a provider's answer. Nothing here panics or recurses: `serde_json` bounds the depth.

use crate::{
    answer::{MAX_TOKENS, Reported},
    error::AnswerError,
    text::{one_line, word},
};
use serde_json::Value;

/// Parses an event or body.
pub(crate) fn parse(what: &'static str, bytes: &[u8]) -> Result<Value, AnswerError> {
    let value: Value = serde_json::from_slice(bytes).map_err(|error| AnswerError::malformed(what, error))?;
    if value.is_object() {
        Ok(value)
    } else {
        Err(AnswerError::malformed(what, "expected a JSON object"))
    }
}

/// A member that is there and is not null.
pub(crate) fn get<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    value.get(name).filter(|v| !v.is_null())
}

/// A text, or nothing.
pub(crate) fn text<'a>(value: &'a Value, name: &str) -> Result<Option<&'a str>, AnswerError> {
    match get(value, name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(AnswerError::malformed(name, "expected a string")),
    }
}

/// A text that must be there.
pub(crate) fn required<'a>(value: &'a Value, name: &str) -> Result<&'a str, AnswerError> {
    text(value, name)?.ok_or_else(|| AnswerError::malformed(name, "is missing"))
}

/// An array; empty if it is not there.
pub(crate) fn array<'a>(value: &'a Value, name: &str) -> Result<&'a [Value], AnswerError> {
    match get(value, name) {
        None => Ok(&[]),
        Some(Value::Array(items)) => Ok(items),
        Some(_) => Err(AnswerError::malformed(name, "expected an array")),
    }
}

/// A number of tokens; 0 if it is not there.
pub(crate) fn tokens(value: &Value, name: &str) -> Result<u64, AnswerError> {
    match get(value, name) {
        None => Ok(0),
        Some(found) => found
            .as_u64()
            .filter(|n| *n <= MAX_TOKENS)
            .ok_or_else(|| AnswerError::malformed(name, "expected a number of tokens")),
    }
}

/// A small index.
pub(crate) fn index(value: &Value, name: &str, bound: u32) -> Result<u32, AnswerError> {
    get(value, name)
        .and_then(Value::as_u64)
        .and_then(|n| u32::try_from(n).ok())
        .filter(|n| *n < bound)
        .ok_or_else(|| AnswerError::malformed(name, format!("expected an index below {bound}")))
}

/// An identifier or other short word; one that is too long or not ASCII is not recorded.
pub(crate) fn noted(value: &Value, name: &str) -> Option<String> {
    get(value, name)?.as_str().and_then(word)
}

/// Records a word unless an earlier event had it.
pub(crate) fn note(slot: &mut Option<String>, value: &Value, name: &str) {
    if slot.is_none() {
        *slot = noted(value, name);
    }
}

/// Puts a member into an object; anything else stays as it is.
pub(crate) fn set(object: &mut Value, name: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(name.to_owned(), value);
    }
}

/// An `error` member: every provider has `message` in it, and a word under one of several names.
pub(crate) fn error(value: &Value) -> Option<AnswerError> {
    let error = get(value, "error")?;
    let (code, message) = error_words(error);
    Some(AnswerError::Provider { code, message })
}

/// Word and message of an error object, or of an error that is a plain text.
pub(crate) fn error_words(error: &Value) -> (String, String) {
    let first = |names: &[&str]| names.iter().find_map(|name| noted(error, name));
    let code = first(&["code", "status", "type"]).unwrap_or_else(|| "error".into());
    let message = error
        .as_str()
        .or_else(|| error.get("message").and_then(Value::as_str))
        .unwrap_or("no message");
    (code, one_line(message, 300))
}

/// The provider's id and model of an answer in OpenAI's form.
pub(crate) fn openai_reported(reported: &mut Reported, value: &Value) {
    note(&mut reported.response_id, value, "id");
    note(&mut reported.model, value, "model");
    note(&mut reported.fingerprint, value, "system_fingerprint");
}
