//! Bounded reading.

use super::{Field, Informational, MAX_FIELD_COUNT, MAX_FIELDS, MAX_INFORMATIONAL, too_long};
use crate::{error::SealedError, varint};

/// Reads off a message. [`SealedError::Truncated`] means that more bytes may help, every other error is final.
pub(super) struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, rest: bytes }
    }

    pub(super) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    const fn short(&self) -> SealedError {
        SealedError::Truncated { what: self.what }
    }

    pub(super) fn number(&mut self) -> Result<usize, SealedError> {
        let (value, length) = varint::get(self.rest).ok_or(self.short())?;
        self.rest = self.rest.get(length..).unwrap_or_default();
        Ok(value)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], SealedError> {
        let (part, rest) = self.rest.split_at_checked(count).ok_or(self.short())?;
        self.rest = rest;
        Ok(part)
    }

    /// At most `count` bytes, as many as there are.
    pub(super) fn some(&mut self, count: usize) -> &'a [u8] {
        let (part, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        part
    }

    pub(super) fn sized(&mut self, what: &'static str, limit: usize) -> Result<&'a [u8], SealedError> {
        let length = self.number()?;
        if length > limit {
            return Err(too_long(what, limit, length));
        }
        self.take(length)
    }

    /// A part of the control data: visible ASCII.
    pub(super) fn text(&mut self, what: &'static str, limit: usize) -> Result<String, SealedError> {
        let bytes = self.sized(what, limit)?;
        if !bytes.iter().all(u8::is_ascii_graphic) {
            return Err(SealedError::Malformed {
                what,
                why: "not visible ASCII",
            });
        }
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    fn field(&mut self, name: &[u8]) -> Result<Field, SealedError> {
        let value = self.sized("a field's value", MAX_FIELDS)?.to_vec();
        let name = std::str::from_utf8(name).map_err(|_| SealedError::Malformed {
            what: "a field's name",
            why: "not a lower-case token",
        })?;
        Field::new(name, value)
    }

    /// A section behind its length.
    pub(super) fn known_fields(&mut self) -> Result<Vec<Field>, SealedError> {
        let bytes = self.sized("a section of fields", MAX_FIELDS)?;
        let mut inner = Reader::new(self.what, bytes);
        let mut fields = Vec::new();
        while !inner.rest.is_empty() {
            let cut = |error| match error {
                // The section is whole: more bytes of the message would not help.
                SealedError::Truncated { .. } => SealedError::Malformed {
                    what: "a section of fields",
                    why: "a field runs over its end",
                },
                error => error,
            };
            let name = inner.sized("a field's name", MAX_FIELDS).map_err(cut)?;
            fields.push(inner.field(name).map_err(cut)?);
            check_count(&fields)?;
        }
        Ok(fields)
    }

    /// A section up to its end mark, a field name of no bytes.
    pub(super) fn open_fields(&mut self) -> Result<Vec<Field>, SealedError> {
        let (mut fields, before) = (Vec::new(), self.rest.len());
        loop {
            let name = self.sized("a field's name", MAX_FIELDS)?;
            if name.is_empty() {
                return Ok(fields);
            }
            fields.push(self.field(name)?);
            check_count(&fields)?;
            let got = before.saturating_sub(self.rest.len());
            if got > MAX_FIELDS {
                return Err(too_long("a section of fields", MAX_FIELDS, got));
            }
        }
    }

    pub(super) fn fields(&mut self, open: bool) -> Result<Vec<Field>, SealedError> {
        if open { self.open_fields() } else { self.known_fields() }
    }

    /// Informational responses, then the final status.
    pub(super) fn status(&mut self, open: bool) -> Result<(Vec<Informational>, u16), SealedError> {
        let mut informational = Vec::new();
        loop {
            let status = self.number()?;
            match u16::try_from(status).unwrap_or_default() {
                status @ 200..=599 => return Ok((informational, status)),
                status @ 100..=199 => {
                    if informational.len() == MAX_INFORMATIONAL {
                        return Err(too_long(
                            "the list of informational responses",
                            MAX_INFORMATIONAL,
                            MAX_INFORMATIONAL + 1,
                        ));
                    }
                    let headers = self.fields(open)?;
                    informational.push(Informational { status, headers });
                }
                _ => {
                    return Err(SealedError::Malformed {
                        what: "the status",
                        why: "not from 100 to 599",
                    });
                }
            }
        }
    }

    /// Nothing but zeros may be left.
    pub(super) fn padding(&self) -> Result<(), SealedError> {
        if self.rest.iter().all(|byte| *byte == 0) {
            Ok(())
        } else {
            Err(SealedError::Malformed {
                what: self.what,
                why: "something else than zeros after its end",
            })
        }
    }

    /// Headers, body and trailers. Sections that are left out at the end are empty (section 3.8 of the RFC).
    pub(super) fn sections(&mut self, open: bool, limit: usize) -> Result<Sections, SealedError> {
        let mut found = (Vec::new(), Vec::new(), Vec::new());
        if self.rest.is_empty() {
            return Ok(found);
        }
        found.0 = self.fields(open)?;
        if self.rest.is_empty() {
            return Ok(found);
        }
        loop {
            let part = self.sized("the body", limit)?;
            let got = found.1.len().saturating_add(part.len());
            if got > limit {
                return Err(too_long("the body", limit, got));
            }
            found.1.extend(part);
            if !open || part.is_empty() {
                break;
            }
        }
        if !self.rest.is_empty() {
            found.2 = self.fields(open)?;
        }
        self.padding()?;
        Ok(found)
    }
}

type Sections = (Vec<Field>, Vec<u8>, Vec<Field>);

fn check_count(fields: &[Field]) -> Result<(), SealedError> {
    if fields.len() > MAX_FIELD_COUNT {
        return Err(too_long("the list of fields", MAX_FIELD_COUNT, fields.len()));
    }
    Ok(())
}
