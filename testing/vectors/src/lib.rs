//! Golden vectors of the wire formats, for tests.
//!
//! The JSON files beside this crate are written by `generate.py`, an implementation of its own on the Python standard
//! library: a Rust crate that agrees with them agrees with a second implementation of the specification. A changed vector
//! is a breaking change of a format.
//!
//! # Example
//! ```
//! let ids = opg_vectors::load("ids");
//! assert_eq!(opg_vectors::bytes(&ids["node_id"]).len(), 32);
//! ```
//!
//! Status: CBOR, hashes, Merkle tree, manifests of models, money, identifiers, receipt, quote, receipt file, lifecycle, validator sets.

use serde_json::Value;

/// The canonical receipt file, byte for byte.
pub const RECEIPT_FILE: &[u8] = include_bytes!("../receipt-file.receipt.json");

/// The same with hand-overs of the validator set.
pub const HANDOVERS_FILE: &[u8] = include_bytes!("../handovers.receipt.json");

/// Reads `NAME.json`.
///
/// # Panics
/// If there is no such file or it is not JSON: a test that asks for it cannot go on.
#[must_use]
pub fn load(name: &str) -> Value {
    let text = match name {
        "cbor" => include_str!("../cbor.json"),
        "hashes" => include_str!("../hashes.json"),
        "ids" => include_str!("../ids.json"),
        "lifecycle" => include_str!("../lifecycle.json"),
        "manifest" => include_str!("../manifest.json"),
        "merkle" => include_str!("../merkle.json"),
        "money" => include_str!("../money.json"),
        "receipt" => include_str!("../receipt.json"),
        "seats" => include_str!("../seats.json"),
        _ => panic!("no vectors named {name}"),
    };
    serde_json::from_str(text).expect("vectors are JSON")
}

/// Bytes of a hexadecimal string, with or without `0x`.
///
/// # Panics
/// If the value is not such a string.
#[must_use]
pub fn bytes(value: &Value) -> Vec<u8> {
    let text = text(value);
    let digits = text.strip_prefix("0x").unwrap_or(text);
    assert_eq!(digits.len() % 2, 0, "odd number of digits");
    (0..digits.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&digits[i..i + 2], 16).expect("hexadecimal digits"))
        .collect()
}

/// Text of a string.
///
/// # Panics
/// If the value is not a string.
#[must_use]
pub fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}

/// Items of a list.
///
/// # Panics
/// If the value is not a list.
#[must_use]
pub fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}
