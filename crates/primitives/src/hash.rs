//! SHA-256, Keccak-256 and the tagged hash (receipt.md §2).

use crate::domain::Tag;
use alloy_primitives::{B256, keccak256};
use sha2::{Digest, Sha256};

/// `SHA-256(len(tag) as u8 || tag || for each part: len as u64 big-endian || part)`.
///
/// The lengths make the hash injective over lists of parts: no two different lists hash the same bytes.
#[must_use]
pub fn tagged(tag: Tag, parts: &[&[u8]]) -> B256 {
    let mut hasher = Tagged::new(tag);
    for part in parts {
        hasher.part(part);
    }
    hasher.finish()
}

/// The same hash, fed part by part, for a list that is not at hand as a slice.
#[derive(Debug, Clone)]
pub struct Tagged(Sha256);

impl Tagged {
    /// Starts a hash for one purpose.
    #[must_use]
    pub fn new(tag: Tag) -> Self {
        let text = tag.as_str().as_bytes();
        let mut hasher = Sha256::new();
        // Tags have at most 255 bytes (tested in `domain`), so the cast never truncates.
        hasher.update([text.len() as u8]);
        hasher.update(text);
        Self(hasher)
    }

    /// Adds one part.
    pub fn part(&mut self, part: &[u8]) -> &mut Self {
        self.0.update((part.len() as u64).to_be_bytes());
        self.0.update(part);
        self
    }

    /// The digest.
    #[must_use]
    pub fn finish(self) -> B256 {
        B256::new(self.0.finalize().into())
    }
}

/// SHA-256.
#[must_use]
pub fn sha256(bytes: &[u8]) -> B256 {
    B256::new(Sha256::digest(bytes).into())
}

/// Keccak-256, the EVM's hash.
#[must_use]
pub fn keccak(bytes: &[u8]) -> B256 {
    keccak256(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tagged_is_sha256_of_the_written_layout() {
        let mut bytes = vec![14u8];
        bytes.extend(b"opg/request/v1");
        for part in [&b"salt"[..], b"", b"body"] {
            bytes.extend((part.len() as u64).to_be_bytes());
            bytes.extend(part);
        }
        assert_eq!(tagged(Tag::Request, &[b"salt", b"", b"body"]), sha256(&bytes));
    }

    #[test]
    fn moving_a_byte_between_parts_changes_the_hash() {
        assert_ne!(
            tagged(Tag::Request, &[b"ab", b"c"]),
            tagged(Tag::Request, &[b"a", b"bc"])
        );
        assert_ne!(tagged(Tag::Request, &[b"ab"]), tagged(Tag::Params, &[b"ab"]));
        assert_ne!(tagged(Tag::Request, &[b"ab"]), tagged(Tag::Request, &[b"ab", b""]));
    }
}
