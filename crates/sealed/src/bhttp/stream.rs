//! Responses that are written and read while they are made: the indeterminate-length form.

use super::{
    Field, Informational, KNOWN_RESPONSE, MAX_BODY, MAX_FIELDS, MAX_INFORMATIONAL, OPEN_RESPONSE,
    message::{framing, status},
    read::Reader,
    section, sized, too_long,
};
use crate::{error::SealedError, varint};

/// Most bytes of everything before the content.
const MAX_HEAD: usize = (MAX_INFORMATIONAL + 1) * (MAX_FIELDS + 8);
const WHAT: &str = "the Binary HTTP response";

/// Control data and headers.
///
/// # Errors
/// [`SealedError::TooLong`], [`SealedError::Malformed`] for a status that is not from 200 to 599.
pub fn head(code: u16, headers: &[Field]) -> Result<Vec<u8>, SealedError> {
    let mut out = Vec::new();
    varint::put(&mut out, OPEN_RESPONSE);
    status(&mut out, code, 200..=599)?;
    out.extend(section(headers)?);
    out.push(0);
    Ok(out)
}

/// A part of the content; none for no bytes, which would end it.
#[must_use]
pub fn content(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len().saturating_add(8));
    if !bytes.is_empty() {
        sized(&mut out, bytes);
    }
    out
}

/// The end of the content, and trailers.
///
/// # Errors
/// [`SealedError::TooLong`].
pub fn end(trailers: &[Field]) -> Result<Vec<u8>, SealedError> {
    let mut out = vec![0];
    out.extend(section(trailers)?);
    out.push(0);
    Ok(out)
}

/// What a decoder has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseEvent {
    /// Everything before the content; comes first and once.
    Head {
        /// Responses before the final one.
        informational: Vec<Informational>,
        /// Final status.
        status: u16,
        /// Header fields.
        headers: Vec<Field>,
    },
    /// Content, in parts of any size.
    Content(Vec<u8>),
}

/// Reads a response of either form that arrives in pieces of any size.
#[derive(Debug, Default)]
pub struct ResponseDecoder {
    held: Vec<u8>,
    state: State,
    /// Bytes of content so far.
    content: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Head,
    /// A length of content comes next; `open`: of a part, and more parts may follow.
    Length {
        open: bool,
        first: bool,
    },
    /// So many bytes of content come next.
    Content {
        open: bool,
        left: usize,
    },
    /// Trailers and padding, held until the end.
    Trailers {
        open: bool,
    },
    Failed,
}

impl ResponseDecoder {
    /// A decoder at the start of a response.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes and returns what they complete.
    ///
    /// # Errors
    /// [`SealedError::TooLong`], [`SealedError::Malformed`], and [`SealedError::Ended`] after any of them.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<ResponseEvent>, SealedError> {
        if self.state == State::Failed {
            return Err(SealedError::Ended { what: WHAT });
        }
        self.held.extend(bytes);
        let mut events = Vec::new();
        loop {
            match self.step() {
                Ok(Some(event)) => events.push(event),
                Ok(None) => return Ok(events),
                Err(error) => {
                    self.state = State::Failed;
                    self.held = Vec::new();
                    return Err(error);
                }
            }
        }
    }

    /// One event of what is held; `None` when more bytes are needed.
    fn step(&mut self) -> Result<Option<ResponseEvent>, SealedError> {
        loop {
            let held = std::mem::take(&mut self.held);
            let mut reader = Reader::new(WHAT, &held);
            let outcome = self.advance(&mut reader);
            self.held = match &outcome {
                // Nothing was whole: keep all of it.
                Err(SealedError::Truncated { .. }) => held,
                _ => reader.rest().to_vec(),
            };
            return match outcome {
                Err(SealedError::Truncated { .. }) => {
                    let limit = if self.state == State::Head {
                        MAX_HEAD
                    } else {
                        MAX_FIELDS + 16
                    };
                    if self.held.len() > limit {
                        return Err(too_long(WHAT, limit, self.held.len()));
                    }
                    Ok(None)
                }
                Err(error) => Err(error),
                Ok(Step::Event(event)) => Ok(Some(event)),
                Ok(Step::Again) => continue,
                Ok(Step::Wait) => Ok(None),
            };
        }
    }

    fn advance(&mut self, reader: &mut Reader<'_>) -> Result<Step, SealedError> {
        match self.state {
            State::Head => {
                let open = framing(reader, KNOWN_RESPONSE, OPEN_RESPONSE)?;
                let (informational, status) = reader.status(open)?;
                let headers = reader.fields(open)?;
                self.state = State::Length { open, first: true };
                Ok(Step::Event(ResponseEvent::Head {
                    informational,
                    status,
                    headers,
                }))
            }
            State::Length { open, .. } => {
                let left = reader.number()?;
                self.content = self.content.saturating_add(left);
                if self.content > MAX_BODY {
                    return Err(too_long("the body", MAX_BODY, self.content));
                }
                self.state = match left {
                    0 => State::Trailers { open },
                    left => State::Content { open, left },
                };
                Ok(Step::Again)
            }
            State::Content { open, left } => {
                let part = reader.some(left);
                if part.is_empty() {
                    return Ok(Step::Wait);
                }
                self.state = match left.saturating_sub(part.len()) {
                    0 if open => State::Length { open, first: false },
                    0 => State::Trailers { open },
                    left => State::Content { open, left },
                };
                Ok(Step::Event(ResponseEvent::Content(part.to_vec())))
            }
            State::Trailers { .. } => {
                let got = reader.rest().len();
                // Padding counts too: nobody pads a stream by more than a section of fields.
                if got > MAX_FIELDS + 16 {
                    return Err(too_long("what follows the content", MAX_FIELDS + 16, got));
                }
                Ok(Step::Wait)
            }
            State::Failed => Err(SealedError::Ended { what: WHAT }),
        }
    }

    /// To be called when the stream has ended: returns the trailers.
    ///
    /// # Errors
    /// [`SealedError::Truncated`] inside a section, [`SealedError::Malformed`], [`SealedError::TooLong`],
    /// [`SealedError::Ended`].
    pub fn finish(self) -> Result<Vec<Field>, SealedError> {
        let mut reader = Reader::new(WHAT, &self.held);
        match self.state {
            // Sections that are left out at the end are empty.
            State::Length { first: true, .. } if self.held.is_empty() => Ok(Vec::new()),
            State::Trailers { .. } if self.held.is_empty() => Ok(Vec::new()),
            State::Trailers { open } => {
                let trailers = reader.fields(open)?;
                reader.padding()?;
                Ok(trailers)
            }
            State::Failed => Err(SealedError::Ended { what: WHAT }),
            // A stream without its header section would have been given out as nothing at all.
            State::Head | State::Length { .. } | State::Content { .. } => Err(SealedError::Truncated { what: WHAT }),
        }
    }
}

enum Step {
    Event(ResponseEvent),
    Again,
    Wait,
}
