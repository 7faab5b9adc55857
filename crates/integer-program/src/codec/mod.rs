//! Canonical bytes of graphs and programs, and their digests.
//!
//! The bytes are strict CBOR: arrays in the order of the fields, an integer tag in front of every variant, numbers
//! lists that can be long (shifts, indices, table entries, weights) as little-endian byte strings. One graph has one
//! encoding, and decoding refuses everything else, so `decode` then `encode` is the identity.

mod decode;
mod encode;

use crate::{
    error::ProgramError,
    program::{Graph, Program},
};
use opg_primitives::{B256, cbor::Limits, domain::Tag};
use sha2::{Digest as _, Sha256};

/// First element of a graph's encoding.
const GRAPH_MAGIC: &str = Tag::IntegerGraph.as_str();
/// First element of a program's encoding.
const PROGRAM_MAGIC: &str = Tag::IntegerProgram.as_str();

/// Most bytes of a graph without weights.
pub const MAX_GRAPH_BYTES: usize = 1 << 26;
/// Most bytes of a program.
pub const MAX_PROGRAM_BYTES: usize = 1 << 30;

const GRAPH_LIMITS: Limits = Limits {
    bytes: MAX_GRAPH_BYTES,
    depth: 8,
    items: 1 << 20,
    tags: false,
};
const PROGRAM_LIMITS: Limits = Limits {
    bytes: MAX_PROGRAM_BYTES,
    depth: 3,
    items: 1 << 16,
    tags: false,
};

/// The tagged hash of the project with one part: `SHA-256(len(tag) as u8 || tag || len(body) as u64 big-endian || body)`.
fn digest(tag: &str, body: &[u8]) -> B256 {
    let mut hash = Sha256::new();
    hash.update([u8::try_from(tag.len()).unwrap_or(u8::MAX)]);
    hash.update(tag.as_bytes());
    hash.update((body.len() as u64).to_be_bytes());
    hash.update(body);
    B256::from(<[u8; 32]>::from(hash.finalize()))
}

impl Graph {
    /// Canonical bytes, without weights.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode::graph(self)
    }

    /// Reads canonical bytes and validates the graph.
    ///
    /// # Errors
    /// [`ProgramError`] for anything but the canonical bytes of a valid graph.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProgramError> {
        let graph = decode::graph(bytes)?;
        graph.validate()?;
        Ok(graph)
    }

    /// Digest of the canonical bytes: names operations, shapes, shifts, ranges, tables, scales and names, not weights.
    #[must_use]
    pub fn digest(&self) -> B256 {
        digest(GRAPH_MAGIC, &self.encode())
    }
}

impl Program {
    /// Canonical bytes, weights included.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        encode::program(self)
    }

    /// Reads canonical bytes and validates the program against its weights.
    ///
    /// # Errors
    /// [`ProgramError`] for anything but the canonical bytes of a valid program.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProgramError> {
        let program = decode::program(bytes)?;
        program.validate()?;
        Ok(program)
    }

    /// Digest of the canonical bytes, weights included.
    #[must_use]
    pub fn digest(&self) -> B256 {
        digest(PROGRAM_MAGIC, &self.encode())
    }
}
