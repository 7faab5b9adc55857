//! Statuses other than success, in plain words.

use crate::{error::UpstreamError, json, key::ApiKey, text::one_line};
use http::{HeaderMap, StatusCode, header};
use serde_json::Value;
use std::time::Duration;

/// Longest wait that is passed on.
const MAX_WAIT: Duration = Duration::from_secs(86_400);

/// The error of an answer that is no success. `body` may be cut.
pub(crate) fn error(
    host: &str,
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    key: Option<&ApiKey>,
) -> UpstreamError {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    // Google's streaming endpoint wraps the error of a refused request in an array.
    let value = value.get(0).unwrap_or(&value);
    let (code, message) = value
        .get("error")
        .map_or_else(|| (String::new(), "no message".to_owned()), json::error_words);
    let message = one_line(&key.map_or(message.clone(), |key| key.scrub(&message)), 300);
    let retry_after = retry_after(headers, value);
    let status = status.as_u16();
    match status {
        401 | 403 => UpstreamError::Key { status },
        // Google answers 400 to a wrong key.
        400 if names_the_key(value) => UpstreamError::Key { status },
        402 | 429 => UpstreamError::RateLimited {
            status,
            message,
            retry_after,
        },
        404 => UpstreamError::UnknownModel { message },
        400 | 405..=428 | 430..=499 => UpstreamError::Refused {
            status,
            message: if code.is_empty() {
                message
            } else {
                format!("{code}: {message}")
            },
        },
        500..=599 => UpstreamError::Failing {
            status,
            message,
            retry_after,
        },
        _ => UpstreamError::Status {
            host: host.to_owned(),
            status,
        },
    }
}

fn names_the_key(value: &Value) -> bool {
    let details = value.pointer("/error/details").and_then(Value::as_array);
    details.is_some_and(|details| {
        details
            .iter()
            .any(|detail| detail.get("reason").is_some_and(|r| r == "API_KEY_INVALID"))
    })
}

/// Seconds of `Retry-After`, milliseconds of `retry-after-ms`, or Google's `RetryInfo`. Dates are not read.
fn retry_after(headers: &HeaderMap, value: &Value) -> Option<Duration> {
    let number = |name: &str| headers.get(name)?.to_str().ok()?.trim().parse::<f64>().ok();
    let seconds = number("retry-after-ms")
        .map(|ms| ms / 1000.0)
        .or_else(|| number(header::RETRY_AFTER.as_str()))
        .or_else(|| {
            let details = value.pointer("/error/details")?.as_array()?;
            let delay = details.iter().find_map(|detail| detail.get("retryDelay")?.as_str())?;
            delay.strip_suffix('s')?.parse().ok()
        })?;
    let wait = Duration::try_from_secs_f64(seconds).ok()?;
    Some(wait.min(MAX_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(status: u16, headers: &[(&'static str, &str)], body: Value) -> UpstreamError {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        let key = ApiKey::new("sk-secret").unwrap();
        let status = StatusCode::from_u16(status).unwrap();
        error("host", status, &headers, body.to_string().as_bytes(), Some(&key))
    }

    #[test]
    fn statuses_of_every_provider() {
        let openai = json!({"error": {"message": "Rate limit reached for sk-secret", "type": "requests", "param": null, "code": "rate_limit_exceeded"}});
        let limited = of(429, &[("retry-after", "20")], openai.clone());
        assert_eq!(limited.retry_after(), Some(Duration::from_secs(20)));
        assert_eq!(limited.client_status(), 429);
        assert!(!limited.to_string().contains("sk-secret"), "{limited}");
        let precise = of(429, &[("retry-after-ms", "1500"), ("retry-after", "2")], openai);
        assert_eq!(precise.retry_after(), Some(Duration::from_millis(1500)));

        let anthropic = json!({"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}, "request_id": "req_1"});
        assert!(matches!(
            of(529, &[], anthropic),
            UpstreamError::Failing { status: 529, .. }
        ));

        let google = json!({"error": {"code": 429, "message": "Quota", "status": "RESOURCE_EXHAUSTED", "details": [
            {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "36.5s"}]}});
        assert_eq!(
            of(429, &[], google.clone()).retry_after(),
            Some(Duration::from_millis(36_500))
        );
        assert_eq!(
            of(429, &[], json!([google])).retry_after(),
            Some(Duration::from_millis(36_500))
        );
        let key = json!({"error": {"code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT", "details": [
            {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]}});
        assert_eq!(of(400, &[], key), UpstreamError::Key { status: 400 });
        assert_eq!(
            of(401, &[], json!({"error": {"message": "sk-sec***"}})),
            UpstreamError::Key { status: 401 }
        );
        // xAI's errors are plain texts.
        let xai = of(400, &[], json!({"code": "invalid", "error": "bad\r\nrequest"}));
        assert_eq!(
            xai.to_string(),
            "the provider refuses the request (HTTP 400): error: bad  request"
        );
    }

    #[test]
    fn hostile_refusals() {
        for wait in ["-1", "NaN", "inf", "1e300", "soon", ""] {
            assert!(
                of(503, &[("retry-after", wait)], json!({})).retry_after().is_none(),
                "{wait}"
            );
        }
        assert_eq!(
            of(503, &[("retry-after", "999999999")], json!({})).retry_after(),
            Some(MAX_WAIT)
        );
        assert!(matches!(
            of(302, &[("location", "https://evil.example")], json!({})),
            UpstreamError::Status { .. }
        ));
        let long = of(400, &[], json!({"error": {"message": "x".repeat(10_000)}}));
        assert!(long.to_string().len() < 500);
        let none = error("host", StatusCode::BAD_GATEWAY, &HeaderMap::new(), b"\xff<html>", None);
        assert!(matches!(none, UpstreamError::Failing { .. }));
    }
}
