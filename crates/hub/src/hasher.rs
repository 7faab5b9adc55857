//! The three hashes of a blob.

use crate::{
    blobs::{BlobError, CHUNK},
    tree::Blob,
};
use blake3::hazmat::{
    ChainingValue, HasherExt as _, Mode, left_subtree_len, max_subtree_len, merge_subtrees_non_root,
    merge_subtrees_root,
};
use opg_models::ShaHasher;
use std::io::{self, Read};

/// The three hashes of content of an announced size that comes in pieces.
#[derive(Debug, Clone)]
pub struct Hasher {
    shas: ShaHasher,
    blake3: blake3::Hasher,
    announced: u64,
    size: u64,
}

impl Hasher {
    /// A hasher for content of an announced size (git's id needs it first).
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self {
            shas: ShaHasher::new(size),
            blake3: blake3::Hasher::new(),
            announced: size,
            size: 0,
        }
    }

    /// Adds the next bytes.
    ///
    /// # Errors
    /// [`BlobError::Size`] as soon as there are more than announced.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.size = self.size.saturating_add(bytes.len() as u64);
        if self.size > self.announced {
            return Err(wrong_size(self.announced, self.size));
        }
        self.shas.update(bytes);
        self.blake3.update(bytes);
        Ok(())
    }

    /// The hashes.
    ///
    /// # Errors
    /// [`BlobError::Size`] if bytes are missing.
    pub fn finish(self) -> Result<Blob, BlobError> {
        if self.size != self.announced {
            return Err(wrong_size(self.announced, self.size));
        }
        Ok(blob(self.shas, self.blake3.finalize().into(), self.size))
    }

    /// The hashes of all that is read.
    ///
    /// # Errors
    /// [`BlobError::Size`]; those of reading as `failed` makes them.
    pub(crate) fn read(
        mut self,
        mut content: impl Read,
        failed: impl Fn(io::Error) -> BlobError,
    ) -> Result<Blob, BlobError> {
        let mut buffer = vec![0; CHUNK];
        loop {
            let n = content.read(&mut buffer).map_err(&failed)?;
            match buffer.get(..n) {
                Some(bytes) if !bytes.is_empty() => self.update(bytes)?,
                _ => return self.finish(),
            }
        }
    }
}

pub(crate) fn wrong_size(expected: u64, got: u64) -> BlobError {
    BlobError::Size { expected, got }
}

/// The blob of content of `size` bytes that was hashed.
pub(crate) fn blob(shas: ShaHasher, blake3: [u8; 32], size: u64) -> Blob {
    let (sha256, git) = shas.finish();
    Blob {
        sha256: sha256.0,
        blake3,
        git: git.0,
        size,
    }
}

/// The hashes of bytes at hand.
#[must_use]
pub fn describe(bytes: &[u8]) -> Blob {
    let size = bytes.len() as u64;
    let mut shas = ShaHasher::new(size);
    shas.update(bytes);
    blob(shas, blake3::hash(bytes).into(), size)
}

/// Hashes one part of content: a subtree of the content's BLAKE3. `None` if there is none of `size` bytes from `start` on: parts are of
/// a power of two, at least 1,024 bytes, and begin at a multiple of that; only the last one may be shorter.
///
/// Source: the BLAKE3 paper, section 2.1 (the tree); documentation of `blake3::hazmat` (subtrees).
pub(crate) fn part_hasher(start: u64, size: u64) -> Option<blake3::Hasher> {
    let chunk = blake3::CHUNK_LEN as u64;
    // The first part is as long as it likes.
    let fits = || max_subtree_len(start).is_none_or(|most| size <= most);
    (size > 0 && start.is_multiple_of(chunk) && fits()).then(|| {
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(start);
        hasher
    })
}

/// The chaining value of a part. Something must have been hashed.
pub(crate) fn finish_part(hasher: &blake3::Hasher) -> ChainingValue {
    hasher.finalize_non_root()
}

/// BLAKE3 of content of `size` bytes by the chaining values of all its parts of `each` bytes, of which the last may have fewer;
/// `None` if there are not as many, or only one, whose value does not say it.
pub(crate) fn merge_parts(size: u64, each: u64, parts: &[ChainingValue]) -> Option<[u8; 32]> {
    if parts.len() < 2 || size.div_ceil(each) != parts.len() as u64 {
        return None;
    }
    let (left, right) = children(size, each, parts)?;
    Some(merge_subtrees_root(&left, &right, Mode::Hash).into())
}

/// The chaining values of the two children of a tree.
fn children(size: u64, each: u64, parts: &[ChainingValue]) -> Option<(ChainingValue, ChainingValue)> {
    let left = left_subtree_len(size);
    let (before, after) = parts.split_at_checked(usize::try_from(left / each).ok()?)?;
    Some((subtree(left, each, before)?, subtree(size - left, each, after)?))
}

fn subtree(size: u64, each: u64, parts: &[ChainingValue]) -> Option<ChainingValue> {
    if let [part] = parts {
        return Some(*part);
    }
    let (left, right) = children(size, each, parts)?;
    Some(merge_subtrees_non_root(&left, &right, Mode::Hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_content_make_its_hash() {
        let content: Vec<u8> = (0..40 * 1024 + 5).map(|n| (n * 7 / 5) as u8).collect();
        for each in [1024, 4096, 16384] {
            for size in (each + 1..content.len())
                .step_by(911)
                .chain([2 * each, 2 * each + 1, content.len()])
            {
                let content = &content[..size];
                let parts = (0..).step_by(each).zip(content.chunks(each));
                let parts: Vec<_> = parts
                    .map(|(start, part)| finish_part(part_hasher(start, part.len() as u64).unwrap().update(part)))
                    .collect();
                let merged = merge_parts(size as u64, each as u64, &parts);
                assert_eq!(
                    merged,
                    Some(blake3::hash(content).into()),
                    "{size} bytes in parts of {each}"
                );
                assert_eq!(merge_parts(size as u64, each as u64, &parts[1..]), None);
            }
        }
        for (start, size) in [
            (0, 0),
            (1000, 24),
            (1024, 1025),
            (5 * 1024, 2048),
            (6 * 1024, 2049),
            (u64::MAX, 1),
        ] {
            assert!(part_hasher(start, size).is_none(), "{size} bytes from {start} on");
        }
        assert_eq!(merge_parts(1024, 1024, &[[0; 32]]), None);
        assert_eq!(merge_parts(0, 1024, &[]), None);
    }
}
