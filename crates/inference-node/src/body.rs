//! Request bodies: bounded reading, JSON with positions, numbers that are not JSON.

use crate::error::ApiError;
use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, StatusCode, header},
};
use futures::StreamExt as _;
use serde_json::{Map, Value};
use std::time::Duration;

/// Bytes of an oversized upload that are read and dropped so that the client sees the answer instead of a reset.
const DRAIN_BYTES: u64 = 256 * 1024 * 1024;
/// Time an oversized upload gets to finish.
const DRAIN_TIME: Duration = Duration::from_secs(10);
/// Time a client gets to send its body.
const READ_TIME: Duration = Duration::from_secs(60);

/// Reads a body of at most `limit` bytes; never buffers more.
///
/// # Errors
/// 413 for a longer body, 408 for a slow one, 400 for a broken transfer.
pub(crate) async fn read(headers: &HeaderMap, body: Body, limit: usize) -> Result<Bytes, ApiError> {
    let declared = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<u64>().ok());
    let too_large = |got: String| {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("the body has {got} bytes, at most {limit} are accepted"),
        )
        .param("body")
    };
    let mut stream = body.into_data_stream();
    if let Some(declared) = declared.filter(|declared| *declared > limit as u64) {
        drain(stream, declared).await;
        return Err(too_large(declared.to_string()));
    }
    let mut buffer = Vec::with_capacity(declared.unwrap_or(0) as usize);
    let complete = async {
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.map_err(|e| {
                ApiError::bad_request("body_incomplete", format!("the body ended early: {e}")).param("body")
            })?;
            if buffer.len() + chunk.len() > limit {
                return Ok(false);
            }
            buffer.extend_from_slice(&chunk);
        }
        Ok::<_, ApiError>(true)
    };
    let complete = tokio::time::timeout(READ_TIME, complete).await.map_err(|_| {
        ApiError::new(
            StatusCode::REQUEST_TIMEOUT,
            "body_timeout",
            "the body did not arrive in time",
        )
        .param("body")
    })??;
    if complete {
        return Ok(buffer.into());
    }
    drop(buffer);
    drain(stream, DRAIN_BYTES).await;
    Err(too_large(format!("more than {limit}")))
}

async fn drain(mut stream: axum::body::BodyDataStream, declared: u64) {
    let mut left = declared.min(DRAIN_BYTES);
    let rest = async {
        while let Some(Ok(chunk)) = stream.next().await {
            left = left.saturating_sub(chunk.len() as u64);
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DRAIN_TIME, rest).await;
}

/// Parses a JSON object.
///
/// # Errors
/// 400 with line and column; 422 naming the field if the only fault is a number that JSON does not have (`NaN`, `Infinity`).
pub(crate) fn object(bytes: &[u8]) -> Result<Map<String, Value>, ApiError> {
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Err(ApiError::bad_request("empty_body", "the body is empty, expected a JSON object").param("body"));
    }
    match serde_json::from_slice::<Value>(bytes) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(other) => Err(ApiError::bad_request(
            "invalid_json",
            format!("expected a JSON object, got {}", kind(&other)),
        )
        .param("body")),
        Err(error) => {
            if let Some((path, word)) = not_finite(bytes) {
                return Err(ApiError::unprocessable(
                    "not_finite",
                    path.clone(),
                    format!("{path} is {word}, expected a finite number"),
                ));
            }
            Err(
                ApiError::bad_request("invalid_json", format!("the body is not valid JSON: {error}"))
                    .param("body")
                    .detail("line", error.line())
                    .detail("column", error.column()),
            )
        }
    }
}

/// What a JSON value is, in words.
#[must_use]
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// A text that stands in for the words below while the rest is parsed; no request can contain it.
const MARK: &str = "\u{1}not-finite\u{1}";

/// The first `NaN`, `Infinity` or `-Infinity` outside a string, with its path, if the body is otherwise valid.
fn not_finite(bytes: &[u8]) -> Option<(String, &'static str)> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut out = String::with_capacity(text.len() + 64);
    let (mut word, mut in_string, mut escaped, mut skip) = (None, false, false, 0);
    for (at, c) in text.char_indices() {
        if skip > 0 {
            skip -= 1;
            continue;
        }
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else {
            in_string = c == '"';
            if let Some(found) = ["NaN", "-Infinity", "Infinity"]
                .into_iter()
                .find(|w| text[at..].starts_with(w))
            {
                out.push_str(if word.is_none() {
                    "\"\\u0001not-finite\\u0001\""
                } else {
                    "0"
                });
                word.get_or_insert(found);
                skip = found.len() - 1;
                continue;
            }
        }
        out.push(c);
    }
    let word = word?;
    let value = serde_json::from_str::<Value>(&out).ok()?;
    let mut path = String::new();
    find(&value, &mut path).then_some((path, word))
}

fn find(value: &Value, path: &mut String) -> bool {
    let length = path.len();
    match value {
        Value::String(text) => text == MARK,
        Value::Array(items) => items.iter().enumerate().any(|(i, item)| {
            path.truncate(length);
            path.push_str(&format!("[{i}]"));
            find(item, path)
        }),
        Value::Object(members) => members.iter().any(|(key, item)| {
            path.truncate(length);
            if length > 0 {
                path.push('.');
            }
            path.push_str(key);
            find(item, path)
        }),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> ApiError {
        object(text.as_bytes()).unwrap_err()
    }

    #[test]
    fn bad_json_has_a_position() {
        let bad = error("{\"model\": \"x\",\n  \"inputs\": }");
        assert_eq!((bad.status.as_u16(), bad.code), (400, "invalid_json"));
        assert_eq!(
            (bad.details["line"].as_u64(), bad.details["column"].as_u64()),
            (Some(2), Some(13))
        );
        assert_eq!(error("").code, "empty_body");
        assert_eq!(error(" \n").code, "empty_body");
        assert_eq!(error("[1]").code, "invalid_json");
        assert_eq!(error("{} {}").code, "invalid_json");
        assert_eq!(error("{\"a\": 1e999}").code, "invalid_json");
        assert_eq!(object(b"\xff\xfe{}").unwrap_err().code, "invalid_json");
        let deep = "[".repeat(100_000);
        assert_eq!(error(&format!("{{\"a\":{deep}")).code, "invalid_json");
    }

    #[test]
    fn numbers_that_json_lacks_name_their_field() {
        let bad = error(r#"{"model":"NaN \" NaN","inputs":{"other":[1],"x":[[0.5,NaN],[Infinity,1]]}}"#);
        assert_eq!(
            (bad.status.as_u16(), bad.code, bad.param.as_deref()),
            (422, "not_finite", Some("inputs.x[0][1]"))
        );
        assert!(bad.message.contains("NaN"));
        assert_eq!(
            error(r#"{"temperature":-Infinity}"#).param.as_deref(),
            Some("temperature")
        );
        assert_eq!(error(r#"{"temperature":-Infinity,}"#).code, "invalid_json");
    }

    #[tokio::test]
    async fn a_long_body_is_refused_without_buffering() {
        let chunks = futures::stream::iter((0..1000).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(&[0; 1024]))));
        let refused = read(&HeaderMap::new(), Body::from_stream(chunks), 10_000)
            .await
            .unwrap_err();
        assert_eq!((refused.status.as_u16(), refused.code), (413, "body_too_large"));
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, "100000000".parse().unwrap());
        let refused = read(&headers, Body::from("x"), 10_000).await.unwrap_err();
        assert!(refused.message.contains("100000000"));
        assert_eq!(read(&HeaderMap::new(), Body::from("abc"), 3).await.unwrap(), "abc");
    }
}
