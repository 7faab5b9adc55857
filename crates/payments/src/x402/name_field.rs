//! Says which field of a refused envelope is wrong. Runs only after decoding failed, so the hot path pays nothing for it.

use super::{X402Error, decimal};
use alloy_primitives::Address;
use serde::de::Error as _;
use serde_json::Value;

/// The decoder's error, led by the field where one can be named.
pub(super) fn name(json: &[u8], error: serde_json::Error) -> X402Error {
    let field = serde_json::from_slice::<Value>(json)
        .ok()
        .and_then(|value| wrong_field(&value));
    match field {
        Some(field) => X402Error::Json(serde_json::Error::custom(format!("{field}: {error}"))),
        None => X402Error::Json(error),
    }
}

fn wrong_field(value: &Value) -> Option<&'static str> {
    let text = |v: &Value| v.is_string();
    let number = |v: &Value| v.as_u64().is_some();
    let address = |v: &Value| v.as_str().is_some_and(|s| s.parse::<Address>().is_ok());
    let amount = |v: &Value| v.as_str().and_then(decimal::parse).is_some();
    let map = |v: &Value| v.is_object() || v.is_null();
    let at = |path: &[&str]| path.iter().try_fold(value, |v, key| v.get(key));
    type Check<'a> = &'a dyn Fn(&Value) -> bool;
    let required: [(&'static str, &[&str], Check<'_>); 9] = [
        ("x402Version", &["x402Version"], &number),
        ("accepted", &["accepted"], &Value::is_object),
        ("accepted.scheme", &["accepted", "scheme"], &text),
        ("accepted.network", &["accepted", "network"], &text),
        ("accepted.amount", &["accepted", "amount"], &amount),
        ("accepted.asset", &["accepted", "asset"], &address),
        ("accepted.payTo", &["accepted", "payTo"], &address),
        (
            "accepted.maxTimeoutSeconds",
            &["accepted", "maxTimeoutSeconds"],
            &number,
        ),
        ("payload", &["payload"], &|_| true),
    ];
    let optional: [(&'static str, &[&str], Check<'_>); 4] = [
        ("accepted.extra", &["accepted", "extra"], &map),
        ("extensions", &["extensions"], &map),
        ("resource", &["resource"], &map),
        ("resource.url", &["resource", "url"], &text),
    ];
    let missing = required
        .iter()
        .find(|(_, path, check)| !at(path).is_some_and(check))
        .map(|(name, ..)| *name);
    missing.or_else(|| {
        optional
            .iter()
            .find(|(_, path, check)| at(path).is_some_and(|v| !check(v)))
            .map(|(name, ..)| *name)
    })
}
