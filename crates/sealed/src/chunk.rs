//! A message in chunks, each authenticated at its place, the last one marked (draft-ietf-ohai-chunked-ohttp-08,
//! sections 3.1 and 3.2).
//!
//! A chunk that is not the last is its length (QUIC integer, not zero) and the sealed bytes; the last one is a zero and
//! the sealed bytes, up to the end of the stream, with `final` as associated data. The place is in the nonce.

use crate::{
    error::SealedError,
    hpke::{Receiver, Sender},
    response::Keyed,
    suite::TAG,
    varint,
};
use std::fmt;

/// Most bytes of one chunk before it is sealed.
pub const MAX_CHUNK: usize = 1 << 14;

const WHAT: &str = "a chunk";
const STREAM: &str = "the sealed stream";
const FINAL: &[u8] = b"final";

/// What seals chunks: the HPKE context of a request, or the keys of a response.
pub(crate) enum Seal {
    Request(Sender),
    Response(Keyed),
}

/// What opens chunks.
pub(crate) enum Open {
    Request(Receiver),
    Response(Keyed),
}

/// Seals a stream chunk by chunk.
pub struct ChunkSealer {
    pub(crate) seal: Seal,
    ended: bool,
}

impl ChunkSealer {
    pub(crate) const fn new(seal: Seal) -> Self {
        Self { seal, ended: false }
    }

    /// Seals bytes that are not the end of the stream; more than [`MAX_CHUNK`] become several chunks, none become none.
    ///
    /// # Errors
    /// [`SealedError::Ended`] after [`ChunkSealer::finish`], [`SealedError::Exhausted`].
    pub fn chunk(&mut self, bytes: &[u8]) -> Result<Vec<u8>, SealedError> {
        let mut out = Vec::with_capacity(bytes.len().saturating_add(24));
        for part in bytes.chunks(MAX_CHUNK) {
            let sealed = self.one(b"", part)?;
            varint::put(&mut out, sealed.len());
            out.extend(sealed);
        }
        Ok(out)
    }

    /// Seals the last bytes, which may be none, and ends the stream. Without it the other side refuses the stream.
    ///
    /// # Errors
    /// As [`ChunkSealer::chunk`].
    pub fn finish(&mut self, bytes: &[u8]) -> Result<Vec<u8>, SealedError> {
        let (whole, last) = bytes.split_at(bytes.len().saturating_sub(1) / MAX_CHUNK * MAX_CHUNK);
        let mut out = self.chunk(whole)?;
        out.push(0);
        out.extend(self.one(FINAL, last)?);
        self.ended = true;
        Ok(out)
    }

    fn one(&mut self, aad: &[u8], bytes: &[u8]) -> Result<Vec<u8>, SealedError> {
        if self.ended {
            return Err(SealedError::Ended { what: STREAM });
        }
        match &mut self.seal {
            Seal::Request(sender) => sender.seal(aad, bytes),
            Seal::Response(keyed) => keyed.seal(aad, bytes),
        }
    }
}

impl fmt::Debug for ChunkSealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkSealer")
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}

/// Opens a stream that arrives in pieces of any size. At most one chunk is held.
pub struct ChunkOpener {
    pub(crate) open: Open,
    held: Vec<u8>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// A length comes next.
    Length,
    /// So many bytes of a chunk come next.
    Chunk(usize),
    /// The rest is the last chunk.
    Last,
    /// Finished, or failed: nothing more is given out.
    Ended,
}

impl ChunkOpener {
    pub(crate) const fn new(open: Open) -> Self {
        Self {
            open,
            held: Vec::new(),
            state: State::Length,
        }
    }

    /// Takes bytes of the stream and returns the chunks that they complete, opened, without the last one.
    ///
    /// # Errors
    /// [`SealedError::Forged`], [`SealedError::TooLong`], [`SealedError::Malformed`]; after an error the stream is
    /// over ([`SealedError::Ended`]).
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, SealedError> {
        let outcome = self.take(bytes);
        if outcome.is_err() {
            self.state = State::Ended;
            self.held = Vec::new();
        }
        outcome
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<Vec<Vec<u8>>, SealedError> {
        let mut opened = Vec::new();
        loop {
            match self.state {
                State::Ended => return Err(SealedError::Ended { what: STREAM }),
                State::Length => {
                    // At most eight bytes, one at a time: what follows belongs to the chunk.
                    let Some((value, _)) = varint::get(&self.held) else {
                        let Some((first, rest)) = bytes.split_first() else {
                            return Ok(opened);
                        };
                        self.held.push(*first);
                        bytes = rest;
                        continue;
                    };
                    self.held.clear();
                    self.state = match value {
                        0 => State::Last,
                        _ if value > MAX_CHUNK + TAG => {
                            return Err(SealedError::TooLong {
                                what: WHAT,
                                limit: MAX_CHUNK + TAG,
                                got: value,
                            });
                        }
                        _ if value < TAG => {
                            return Err(SealedError::Malformed {
                                what: WHAT,
                                why: "shorter than its authentication tag",
                            });
                        }
                        length => State::Chunk(length),
                    };
                }
                State::Chunk(length) => {
                    let missing = length.saturating_sub(self.held.len());
                    let (part, rest) = bytes.split_at(missing.min(bytes.len()));
                    self.held.extend(part);
                    bytes = rest;
                    if self.held.len() < length {
                        return Ok(opened);
                    }
                    let sealed = std::mem::take(&mut self.held);
                    opened.push(self.one(b"", &sealed)?);
                    self.state = State::Length;
                }
                State::Last => {
                    let got = self.held.len().saturating_add(bytes.len());
                    if got > MAX_CHUNK + TAG {
                        return Err(SealedError::TooLong {
                            what: "the last chunk",
                            limit: MAX_CHUNK + TAG,
                            got,
                        });
                    }
                    self.held.extend(bytes);
                    return Ok(opened);
                }
            }
        }
    }

    /// To be called when the stream has ended: opens the last chunk. Only now is the stream known to be whole.
    ///
    /// # Errors
    /// [`SealedError::Truncated`] if the last chunk has not come, [`SealedError::Forged`] if it is not the one that was
    /// sealed, [`SealedError::Ended`].
    pub fn finish(&mut self) -> Result<Vec<u8>, SealedError> {
        let state = std::mem::replace(&mut self.state, State::Ended);
        let sealed = std::mem::take(&mut self.held);
        match state {
            State::Ended => Err(SealedError::Ended { what: STREAM }),
            State::Last if sealed.len() >= TAG => self.one(FINAL, &sealed),
            State::Length | State::Chunk(_) | State::Last => Err(SealedError::Truncated { what: STREAM }),
        }
    }

    fn one(&mut self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealedError> {
        match &mut self.open {
            Open::Request(receiver) => receiver.open(aad, sealed),
            Open::Response(keyed) => keyed.open(aad, sealed),
        }
    }
}

impl fmt::Debug for ChunkOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChunkOpener")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
