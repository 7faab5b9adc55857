//! The rolling hash over a streamed answer: a stream that was cut still has a verifiable prefix.

use opg_primitives::{B256, domain::Tag, hash::tagged};

/// The hash before the first chunk.
pub const EMPTY: B256 = B256::ZERO;

/// `h_i = tagged("opg/stream/v1", h_{i-1}, chunk)`; the tagged hash puts each part's length before it.
#[must_use]
pub fn rolling_hash(prev: B256, chunk: &[u8]) -> B256 {
    tagged(Tag::Stream, &[prev.as_slice(), chunk])
}
