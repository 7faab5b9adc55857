//! JSON-RPC 2.0 messages: bounded parsing of requests, errors with named fields.

use serde_json::{Value, json};

/// The request is not valid JSON.
pub const PARSE_ERROR: i64 = -32700;
/// The JSON is not a JSON-RPC request.
pub const INVALID_REQUEST: i64 = -32600;
/// No such method.
pub const METHOD_NOT_FOUND: i64 = -32601;
/// A parameter is missing or wrong.
pub const INVALID_PARAMS: i64 = -32602;
/// A fault of this node.
pub const INTERNAL: i64 = -32603;
/// The request is refused (nonce, funds, policy).
pub const SERVER_ERROR: i64 = -32000;
/// What was asked for does not exist (EIP-1474).
pub const NOT_FOUND: i64 = -32001;
/// The method exists elsewhere but not on this node (EIP-1474).
pub const UNSUPPORTED: i64 = -32004;
/// Too many calls or too much work (EIP-1474).
pub const LIMIT: i64 = -32005;
/// A receipt does not check; `data.rule` says which rule (receipt.md §6).
pub const RECEIPT_REJECTED: i64 = -32010;

/// Longest `id` or method name that is echoed, in bytes.
const MAX_NAME: usize = 256;

/// A JSON-RPC error object.
#[derive(Debug, Clone, PartialEq)]
pub struct RpcError {
    /// One of the codes of this module, or ethrex's.
    pub code: i64,
    /// One sentence: what was wrong and what to do.
    pub message: String,
    /// `{field, expected, got, …}` or, for a revert, its data.
    pub data: Option<Value>,
}

impl RpcError {
    /// An error without data.
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            data: None,
        }
    }

    /// A wrong parameter; `got` is cut to a printable length.
    pub fn field(field: &str, expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self::with_field(
            INVALID_PARAMS,
            format!("invalid parameter `{field}`"),
            field,
            expected,
            got,
        )
    }

    /// Any error about one field.
    pub fn with_field(
        code: i64,
        message: impl Into<String>,
        field: &str,
        expected: impl Into<String>,
        got: impl Into<String>,
    ) -> Self {
        let (expected, got) = (expected.into(), clip(got.into()));
        let message = format!("{}: expected {expected}, got {got}", message.into());
        Self {
            code,
            message,
            data: Some(json!({ "field": field, "expected": expected, "got": got })),
        }
    }

    /// A fault of this node. The cause is logged, not sent.
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "rpc: internal error");
        Self::new(INTERNAL, "internal error of this node; its log has the cause")
    }

    /// The `error` member.
    pub fn to_json(&self) -> Value {
        match &self.data {
            Some(data) => json!({ "code": self.code, "message": self.message, "data": data }),
            None => json!({ "code": self.code, "message": self.message }),
        }
    }
}

/// `text` cut to 128 bytes at a character boundary.
pub(crate) fn clip(mut text: String) -> String {
    if text.len() > 128 {
        let end = (0..=125).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

/// One call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Echoed in the answer: a string, a number or null. Absent: a notification, which gets no answer.
    pub id: Option<Value>,
    /// Method name.
    pub method: String,
    /// Positional parameters; empty if the member is absent.
    pub params: Vec<Value>,
}

/// The body of a request: what to do and how to shape the answer.
#[derive(Debug, PartialEq)]
pub enum Batch {
    /// One call, answered by one object.
    Single(Result<Call, Value>),
    /// An array, answered by an array. Entries that are not calls hold their error answer.
    Many(Vec<Result<Call, Value>>),
}

/// Parses a body of a length that the server has already bounded. The error is the whole answer.
///
/// # Errors
/// The JSON-RPC answer for a body that is not JSON, empty, or holds too many calls.
pub fn parse(body: &[u8], max_batch: usize) -> Result<Batch, Value> {
    if body.iter().all(u8::is_ascii_whitespace) {
        return Err(answer(
            Value::Null,
            Err(RpcError::new(
                INVALID_REQUEST,
                "empty body: expected a JSON-RPC 2.0 request",
            )),
        ));
    }
    // serde_json bounds the nesting depth itself (128)
    let value: Value = serde_json::from_slice(body).map_err(|e| {
        answer(
            Value::Null,
            Err(RpcError::new(PARSE_ERROR, format!("the body is not valid JSON: {e}"))),
        )
    })?;
    match value {
        Value::Array(calls) if calls.is_empty() => Err(answer(
            Value::Null,
            Err(RpcError::new(
                INVALID_REQUEST,
                "empty batch: expected at least one call",
            )),
        )),
        Value::Array(calls) if calls.len() > max_batch => {
            let error = RpcError::with_field(
                LIMIT,
                "batch too large",
                "batch",
                format!("at most {max_batch} calls"),
                calls.len().to_string(),
            );
            Err(answer(Value::Null, Err(error)))
        }
        Value::Array(calls) => Ok(Batch::Many(calls.into_iter().map(call).collect())),
        single => Ok(Batch::Single(call(single))),
    }
}

fn call(value: Value) -> Result<Call, Value> {
    let Value::Object(mut object) = value else {
        return Err(answer(
            Value::Null,
            Err(RpcError::new(INVALID_REQUEST, "expected a JSON-RPC 2.0 request object")),
        ));
    };
    let id = match object.remove("id") {
        Some(Value::String(s)) if s.len() > MAX_NAME => {
            return Err(answer(
                Value::Null,
                Err(RpcError::with_field(
                    INVALID_REQUEST,
                    "id too long",
                    "id",
                    "at most 256 bytes",
                    s.len().to_string(),
                )),
            ));
        }
        id @ (None | Some(Value::Null | Value::String(_) | Value::Number(_))) => id,
        Some(_) => {
            let error = RpcError::with_field(
                INVALID_REQUEST,
                "bad id",
                "id",
                "a string, a number or null",
                "another JSON type",
            );
            return Err(answer(Value::Null, Err(error)));
        }
    };
    let refuse = |error: RpcError| Err(answer(id.clone().unwrap_or(Value::Null), Err(error)));
    match object.get("jsonrpc") {
        Some(Value::String(v)) if v == "2.0" => {}
        other => {
            let got = other.map_or("nothing".into(), Value::to_string);
            return refuse(RpcError::with_field(
                INVALID_REQUEST,
                "bad version",
                "jsonrpc",
                "\"2.0\"",
                got,
            ));
        }
    }
    let method = match object.remove("method") {
        Some(Value::String(m)) if !m.is_empty() && m.len() <= MAX_NAME => m,
        other => {
            let got = other.map_or("nothing".into(), |v| v.to_string());
            return refuse(RpcError::with_field(
                INVALID_REQUEST,
                "bad method",
                "method",
                "a method name",
                got,
            ));
        }
    };
    let params = match object.remove("params") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(params)) => params,
        Some(_) => {
            return refuse(RpcError::field(
                "params",
                "an array of positional parameters",
                "another JSON type",
            ));
        }
    };
    Ok(Call { id, method, params })
}

/// A JSON-RPC answer.
pub fn answer(id: Value, result: Result<Value, RpcError>) -> Value {
    match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(error) => json!({ "jsonrpc": "2.0", "id": id, "error": error.to_json() }),
    }
}

/// Reads positional parameters with errors that name them.
#[derive(Debug)]
pub struct Params<'a>(pub &'a [Value]);

impl<'a> Params<'a> {
    /// At most `max` parameters may be present.
    ///
    /// # Errors
    /// Too many.
    pub fn at_most(&self, max: usize) -> Result<(), RpcError> {
        if self.0.len() > max {
            return Err(RpcError::field(
                "params",
                format!("at most {max} parameters"),
                self.0.len().to_string(),
            ));
        }
        Ok(())
    }

    /// The parameter at `index`, unless absent or null.
    pub fn get(&self, index: usize) -> Option<&'a Value> {
        self.0.get(index).filter(|v| !v.is_null())
    }

    /// A text parameter.
    ///
    /// # Errors
    /// Missing, or not a string.
    pub fn text(&self, index: usize, name: &str) -> Result<&'a str, RpcError> {
        match self.get(index) {
            Some(Value::String(s)) => Ok(s),
            Some(other) => Err(RpcError::field(name, "a string", other.to_string())),
            None => Err(RpcError::field(name, "a string", "nothing")),
        }
    }

    /// Hex with `0x` of at most `max` bytes.
    ///
    /// # Errors
    /// Missing, not a string, not hex, or longer.
    pub fn bytes(&self, index: usize, name: &str, max: usize) -> Result<Vec<u8>, RpcError> {
        let text = self.text(index, name)?;
        let digits = text
            .strip_prefix("0x")
            .ok_or_else(|| RpcError::field(name, "hex with the prefix 0x", text))?;
        if digits.len() > 2 * max {
            return Err(RpcError::field(
                name,
                format!("at most {max} bytes"),
                format!("{} bytes", digits.len() / 2),
            ));
        }
        hex::decode(digits).map_err(|e| RpcError::field(name, "hex with the prefix 0x", format!("{text} ({e})")))
    }

    /// Exactly `N` bytes of hex.
    ///
    /// # Errors
    /// As [`Self::bytes`], or another length.
    pub fn fixed<const N: usize>(&self, index: usize, name: &str) -> Result<[u8; N], RpcError> {
        let bytes = self.bytes(index, name, N)?;
        <[u8; N]>::try_from(bytes)
            .map_err(|b| RpcError::field(name, format!("{N} bytes"), format!("{} bytes", b.len())))
    }
}

/// A number: JSON number, decimal text or `0x` quantity.
pub(crate) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Number(n) => n.as_u64(),
        Value::String(s) => match s.strip_prefix("0x") {
            Some(digits) if !digits.is_empty() && digits.len() <= 16 => u64::from_str_radix(digits, 16).ok(),
            Some(_) => None,
            None => s.parse().ok(),
        },
        _ => None,
    }
}

/// `0x` quantity.
pub(crate) fn quantity(n: u64) -> Value {
    Value::String(format!("{n:#x}"))
}

/// `0x` hex.
pub(crate) fn hex_value(bytes: impl AsRef<[u8]>) -> Value {
    Value::String(format!("0x{}", hex::encode(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_batch_and_notification() {
        let one = parse(br#"{"jsonrpc":"2.0","id":7,"method":"eth_chainId"}"#, 3).unwrap();
        assert_eq!(
            one,
            Batch::Single(Ok(Call {
                id: Some(json!(7)),
                method: "eth_chainId".into(),
                params: vec![]
            }))
        );
        let Batch::Many(many) = parse(br#"[{"jsonrpc":"2.0","method":"a","params":[1]},3]"#, 3).unwrap() else {
            panic!("a batch")
        };
        assert_eq!(many[0].as_ref().unwrap().id, None);
        assert_eq!(many[1].as_ref().unwrap_err()["error"]["code"], json!(INVALID_REQUEST));
    }

    #[test]
    fn bad_bodies_are_answered_not_dropped() {
        let code = |body: &[u8]| match parse(body, 2) {
            Err(answer) | Ok(Batch::Single(Err(answer))) => answer["error"]["code"].as_i64().unwrap(),
            other => panic!("{other:?}"),
        };
        assert_eq!(code(b""), INVALID_REQUEST);
        assert_eq!(code(b"{"), PARSE_ERROR);
        assert_eq!(code(&[0xff, 0xfe]), PARSE_ERROR);
        assert_eq!(code(b"[]"), INVALID_REQUEST);
        assert_eq!(code(b"[1,2,3]"), LIMIT);
        assert_eq!(code(b"7"), INVALID_REQUEST);
        assert_eq!(code(br#"{"id":1,"method":"x"}"#), INVALID_REQUEST);
        assert_eq!(code(br#"{"jsonrpc":"2.0","id":{},"method":"x"}"#), INVALID_REQUEST);
        assert_eq!(code(br#"{"jsonrpc":"2.0","id":1,"method":""}"#), INVALID_REQUEST);
        assert_eq!(
            code(br#"{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":1}}"#),
            INVALID_PARAMS
        );
        assert_eq!(
            code(&[b'['; 100_000]),
            PARSE_ERROR,
            "deep nesting does not exhaust the stack"
        );
    }

    #[test]
    fn errors_name_field_expected_and_got() {
        let values = [json!("0x12"), json!(5), json!("zz"), json!("0xzz")];
        let params = Params(&values);
        let error = params.fixed::<32>(0, "id").unwrap_err();
        assert_eq!(
            error.data.unwrap(),
            json!({ "field": "id", "expected": "32 bytes", "got": "1 bytes" })
        );
        for (index, name) in [(1, "a number"), (2, "no prefix"), (3, "no hex"), (9, "absent")] {
            assert_eq!(params.bytes(index, name, 4).unwrap_err().code, INVALID_PARAMS);
        }
        assert!(params.at_most(3).is_err() && params.at_most(4).is_ok());
        let long = RpcError::field("f", "x", "é".repeat(5_000));
        assert!(long.message.len() < 300);
    }

    #[test]
    fn numbers() {
        assert_eq!(number(&json!("0x10")), Some(16));
        assert_eq!(number(&json!("10")), Some(10));
        assert_eq!(number(&json!(10)), Some(10));
        for bad in [
            json!("0x"),
            json!("0x11111111111111111"),
            json!(-1),
            json!("latest"),
            json!(1.5),
            json!("0x-1"),
        ] {
            assert_eq!(number(&bad), None, "{bad}");
        }
    }
}
