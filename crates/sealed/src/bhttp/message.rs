//! Whole messages.

use super::{
    Field, KNOWN_REQUEST, KNOWN_RESPONSE, MAX_BODY, OPEN_REQUEST, OPEN_RESPONSE, read::Reader, section, sized, too_long,
};
use crate::{error::SealedError, varint};

/// Longest method or scheme.
const MAX_WORD: usize = 32;
/// Longest authority.
const MAX_AUTHORITY: usize = 1_024;
/// Longest path with its query.
const MAX_PATH: usize = 8_192;
const REQUEST: &str = "the Binary HTTP request";
const RESPONSE: &str = "the Binary HTTP response";

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Scheme: `https`.
    pub scheme: String,
    /// Host and port; may be empty where a `host` field says it.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// Header fields.
    pub headers: Vec<Field>,
    /// Content.
    pub body: Vec<u8>,
    /// Trailer fields.
    pub trailers: Vec<Field>,
}

impl Request {
    /// Writes the request with known length, and zeros up to the next multiple of `padding` bytes (0: none), so that
    /// its length tells less.
    ///
    /// # Errors
    /// [`SealedError::TooLong`], [`SealedError::Malformed`] for control data that is not visible ASCII.
    pub fn to_bytes(&self, padding: usize) -> Result<Vec<u8>, SealedError> {
        let mut out = Vec::with_capacity(self.body.len().saturating_add(1_024));
        varint::put(&mut out, KNOWN_REQUEST);
        for (what, text, limit) in [
            ("the method", &self.method, MAX_WORD),
            ("the scheme", &self.scheme, MAX_WORD),
            ("the authority", &self.authority, MAX_AUTHORITY),
            ("the path", &self.path, MAX_PATH),
        ] {
            if text.len() > limit {
                return Err(too_long(what, limit, text.len()));
            }
            if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(SealedError::Malformed {
                    what,
                    why: "not visible ASCII",
                });
            }
            sized(&mut out, text.as_bytes());
        }
        sections(&mut out, &self.headers, &self.body, &self.trailers)?;
        pad(&mut out, padding);
        Ok(out)
    }

    /// Reads a request of either form.
    ///
    /// # Errors
    /// [`SealedError::Truncated`], [`SealedError::TooLong`], [`SealedError::Malformed`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SealedError> {
        let mut reader = Reader::new(REQUEST, bytes);
        let open = framing(&mut reader, KNOWN_REQUEST, OPEN_REQUEST)?;
        let method = reader.text("the method", MAX_WORD)?;
        let scheme = reader.text("the scheme", MAX_WORD)?;
        let authority = reader.text("the authority", MAX_AUTHORITY)?;
        let path = reader.text("the path", MAX_PATH)?;
        let (headers, body, trailers) = reader.sections(open, MAX_BODY)?;
        Ok(Self {
            method,
            scheme,
            authority,
            path,
            headers,
            body,
            trailers,
        })
    }
}

/// A response before the final one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Informational {
    /// 100 to 199.
    pub status: u16,
    /// Header fields.
    pub headers: Vec<Field>,
}

/// A response.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Response {
    /// Responses before the final one.
    pub informational: Vec<Informational>,
    /// 200 to 599.
    pub status: u16,
    /// Header fields.
    pub headers: Vec<Field>,
    /// Content.
    pub body: Vec<u8>,
    /// Trailer fields.
    pub trailers: Vec<Field>,
}

impl Response {
    /// Writes the response with known length, padded as [`Request::to_bytes`].
    ///
    /// # Errors
    /// [`SealedError::TooLong`], [`SealedError::Malformed`] for a status outside its range.
    pub fn to_bytes(&self, padding: usize) -> Result<Vec<u8>, SealedError> {
        let mut out = Vec::with_capacity(self.body.len().saturating_add(1_024));
        varint::put(&mut out, KNOWN_RESPONSE);
        for informational in &self.informational {
            status(&mut out, informational.status, 100..=199)?;
            sized(&mut out, &section(&informational.headers)?);
        }
        status(&mut out, self.status, 200..=599)?;
        sections(&mut out, &self.headers, &self.body, &self.trailers)?;
        pad(&mut out, padding);
        Ok(out)
    }

    /// Reads a response of either form.
    ///
    /// # Errors
    /// As [`Request::parse`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SealedError> {
        let mut reader = Reader::new(RESPONSE, bytes);
        let open = framing(&mut reader, KNOWN_RESPONSE, OPEN_RESPONSE)?;
        let (informational, status) = reader.status(open)?;
        let (headers, body, trailers) = reader.sections(open, MAX_BODY)?;
        Ok(Self {
            informational,
            status,
            headers,
            body,
            trailers,
        })
    }
}

/// Whether the message is of indeterminate length.
pub(super) fn framing(reader: &mut Reader<'_>, known: usize, open: usize) -> Result<bool, SealedError> {
    match reader.number()? {
        got if got == known => Ok(false),
        got if got == open => Ok(true),
        _ => Err(SealedError::Malformed {
            what: "the framing indicator",
            why: "another message than expected here",
        }),
    }
}

pub(super) fn status(out: &mut Vec<u8>, status: u16, range: std::ops::RangeInclusive<u16>) -> Result<(), SealedError> {
    if !range.contains(&status) {
        return Err(SealedError::Malformed {
            what: "the status",
            why: "outside its range",
        });
    }
    varint::put(out, status.into());
    Ok(())
}

fn sections(out: &mut Vec<u8>, headers: &[Field], body: &[u8], trailers: &[Field]) -> Result<(), SealedError> {
    if body.len() > MAX_BODY {
        return Err(too_long("the body", MAX_BODY, body.len()));
    }
    sized(out, &section(headers)?);
    sized(out, body);
    sized(out, &section(trailers)?);
    Ok(())
}

fn pad(out: &mut Vec<u8>, padding: usize) {
    if let Some(over) = out.len().checked_rem(padding)
        && over > 0
    {
        out.resize(out.len().saturating_add(padding - over), 0);
    }
}
