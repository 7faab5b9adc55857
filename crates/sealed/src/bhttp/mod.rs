//! Binary HTTP messages (RFC 9292): what an oblivious request holds.
//!
//! Written: known length, and for streamed responses the indeterminate form ([`stream`]). Read: both, padding and
//! truncated empty sections included. Strict where the RFC leaves room: names are lower-case tokens, values hold no
//! line ends and no NUL, sizes are bounded before anything is allocated.
//!
//! ```
//! use opg_sealed::bhttp::{Field, Request};
//!
//! let request = Request {
//!     method: "POST".into(),
//!     scheme: "https".into(),
//!     authority: "node.example".into(),
//!     path: "/v1/chat/completions".into(),
//!     headers: vec![Field::new("content-type", "application/json")?],
//!     body: b"{}".to_vec(),
//!     trailers: Vec::new(),
//! };
//! assert_eq!(Request::parse(&request.to_bytes(64)?)?, request);
//! # Ok::<(), opg_sealed::SealedError>(())
//! ```

mod message;
mod read;
pub mod stream;

pub use message::{Informational, Request, Response};
pub use stream::{ResponseDecoder, ResponseEvent};

use crate::{error::SealedError, varint};

/// Most bytes of one section of fields.
pub const MAX_FIELDS: usize = 65_536;
/// Most fields of one section.
pub const MAX_FIELD_COUNT: usize = 256;
/// Most bytes of a body.
pub const MAX_BODY: usize = 16 << 20;
/// Most informational responses.
pub const MAX_INFORMATIONAL: usize = 8;

/// Framing indicators (section 3.1 of the RFC).
pub(crate) const KNOWN_REQUEST: usize = 0;
pub(crate) const KNOWN_RESPONSE: usize = 1;
pub(crate) const OPEN_REQUEST: usize = 2;
pub(crate) const OPEN_RESPONSE: usize = 3;

/// One header or trailer field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    name: String,
    value: Vec<u8>,
}

impl Field {
    /// A field.
    ///
    /// # Errors
    /// [`SealedError::Malformed`] for a name that is no lower-case token, or a value with a line end or NUL.
    pub fn new(name: impl Into<String>, value: impl Into<Vec<u8>>) -> Result<Self, SealedError> {
        let (name, value) = (name.into(), value.into());
        let token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(token) {
            return Err(SealedError::Malformed {
                what: "a field's name",
                why: "not a lower-case token",
            });
        }
        if value.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) {
            return Err(SealedError::Malformed {
                what: "a field's value",
                why: "a line end or NUL in it",
            });
        }
        Ok(Self { name, value })
    }

    /// Its name, lower-case.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its value.
    #[must_use]
    pub fn value(&self) -> &[u8] {
        &self.value
    }

    fn put(&self, out: &mut Vec<u8>) {
        sized(out, self.name.as_bytes());
        sized(out, &self.value);
    }
}

/// Appends bytes behind their length.
fn sized(out: &mut Vec<u8>, bytes: &[u8]) {
    varint::put(out, bytes.len());
    out.extend(bytes);
}

/// Writes the fields of a section, without its frame.
fn section(fields: &[Field]) -> Result<Vec<u8>, SealedError> {
    if fields.len() > MAX_FIELD_COUNT {
        return Err(too_long("the list of fields", MAX_FIELD_COUNT, fields.len()));
    }
    let mut out = Vec::new();
    for field in fields {
        field.put(&mut out);
    }
    if out.len() > MAX_FIELDS {
        return Err(too_long("a section of fields", MAX_FIELDS, out.len()));
    }
    Ok(out)
}

const fn too_long(what: &'static str, limit: usize, got: usize) -> SealedError {
    SealedError::TooLong { what, limit, got }
}
