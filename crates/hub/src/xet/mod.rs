//! The formats in which `hf_xet` uploads: xorbs (chunks of content, compressed) and shards (which chunks make up which
//! file). Pure readers: bounded, no panic.
//!
//! Source: the Xet protocol specification 1.1 (huggingface.co/docs/xet) and draft-denis-xet-05.

mod hash;
mod shard;
mod xorb;

pub use hash::{chunk_hash, parse_hash, root, show_hash};
pub use shard::{FileInfo, Term, read_shard};
pub use xorb::{ChunkHeader, decode_chunk, read_xorb};

/// Largest serialized xorb, and most chunks in it.
pub const XORB_LIMIT: usize = 64 << 20;
/// Most chunks of a xorb.
pub const CHUNKS_LIMIT: usize = 8_192;
/// Largest chunk: twice the target of 64 KiB.
pub const CHUNK_LIMIT: usize = 128 << 10;

/// Why an upload is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum XetError {
    /// The bytes end early.
    #[error("{what} ends early")]
    Truncated {
        /// What was being read.
        what: &'static str,
    },
    /// A field has a value that is not accepted.
    #[error("{what}: {reason}")]
    Invalid {
        /// What was being read.
        what: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// More of something than is accepted.
    #[error("more than {limit} {what}")]
    TooMany {
        /// What is counted.
        what: &'static str,
        /// Accepted number.
        limit: usize,
    },
}
