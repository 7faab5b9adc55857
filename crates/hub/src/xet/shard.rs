//! Shards: which terms (ranges of chunks in xorbs) make up which file. Only the file section is read; what a shard says
//! about xorbs is known from the xorbs themselves.

use super::{CHUNKS_LIMIT, XetError};
use crate::tree::Hash;

const TAG: [u8; 32] = [
    72, 70, 82, 101, 112, 111, 77, 101, 116, 97, 68, 97, 116, 97, 0, 85, 105, 103, 69, 106, 123, 129, 87, 131, 165,
    189, 217, 92, 205, 209, 74, 169,
];
const VERSION: u64 = 2;
const WITH_VERIFICATION: u32 = 1 << 31;
const WITH_METADATA: u32 = 1 << 30;
/// Every record has this size.
const RECORD: usize = 48;
/// Most files and terms of a shard.
const FILES_LIMIT: usize = 100_000;

/// A range of chunks of a xorb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Term {
    /// The xorb.
    pub xorb: Hash,
    /// First chunk.
    pub first: u32,
    /// The chunk after the last.
    pub end: u32,
    /// Bytes of content.
    pub size: u32,
}

/// A file: its terms in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileInfo {
    /// SHA-256 of the content.
    pub sha256: Hash,
    /// Size of the content.
    pub size: u64,
    /// What it is made of.
    pub terms: Vec<Term>,
}

struct Records<'a>(std::slice::Iter<'a, [u8; RECORD]>);

impl Records<'_> {
    /// Hash and four numbers of the next record.
    fn next(&mut self) -> Result<(Hash, [u32; 4]), XetError> {
        let record = self.0.next().ok_or(XetError::Truncated { what: "shard" })?;
        let (hash, rest) = record
            .split_first_chunk::<32>()
            .ok_or(XetError::Truncated { what: "shard" })?;
        let (words, _) = rest.as_chunks::<4>();
        let mut numbers = [0; 4];
        for (number, word) in numbers.iter_mut().zip(words) {
            *number = u32::from_le_bytes(*word);
        }
        Ok((*hash, numbers))
    }
}

/// Reads the files of a shard.
///
/// # Errors
/// [`XetError`]; every file must have its SHA-256.
pub fn read_shard(bytes: &[u8]) -> Result<Vec<FileInfo>, XetError> {
    let invalid = |reason| XetError::Invalid { what: "shard", reason };
    let (records, _) = bytes.as_chunks::<RECORD>();
    let mut records = Records(records.iter());
    let (tag, [version, high, ..]) = records.next()?;
    if tag != TAG || u64::from(version) | u64::from(high) << 32 != VERSION {
        return Err(invalid("is not of version 2"));
    }
    let mut files = Vec::new();
    loop {
        let (hash, [flags, count, ..]) = records.next()?;
        if hash == [0xFF; 32] {
            return Ok(files);
        }
        if files.len() == FILES_LIMIT {
            return Err(XetError::TooMany {
                what: "files in a shard",
                limit: FILES_LIMIT,
            });
        }
        let mut terms = Vec::new();
        let mut size = 0u64;
        for _ in 0..count {
            let (xorb, [_, bytes, first, end]) = records.next()?;
            if first >= end || end as usize > CHUNKS_LIMIT {
                return Err(invalid("has a term without chunks, or with more than a xorb has"));
            }
            size = size.saturating_add(u64::from(bytes));
            terms.push(Term {
                xorb,
                first,
                end,
                size: bytes,
            });
        }
        if flags & WITH_VERIFICATION != 0 {
            for _ in 0..count {
                records.next()?;
            }
        }
        if flags & WITH_METADATA == 0 {
            return Err(invalid("has a file without its SHA-256"));
        }
        // Kept as the protocol's own hashes are: four numbers, so each word's bytes are reversed.
        let (mut sha256, _) = records.next()?;
        for word in sha256.as_chunks_mut::<8>().0 {
            word.reverse();
        }
        files.push(FileInfo { sha256, size, terms });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record(hash: [u8; 32], numbers: [u32; 4]) -> Vec<u8> {
        let words = numbers.iter().flat_map(|n| n.to_le_bytes());
        hash.into_iter().chain(words).collect()
    }

    fn shard() -> Vec<u8> {
        [
            record(TAG, [2, 0, 0, 0]),
            record([1; 32], [WITH_VERIFICATION | WITH_METADATA, 2, 0, 0]),
            record([2; 32], [0, 100, 0, 3]),
            record([3; 32], [0, 50, 7, 8]),
            record([4; 32], [0; 4]),
            record([5; 32], [0; 4]),
            record(std::array::from_fn(|n| n as u8), [0; 4]),
            record([0xFF; 32], [0; 4]),
        ]
        .concat()
    }

    #[test]
    fn files_are_read() {
        let files = read_shard(&shard()).unwrap();
        assert_eq!(files.len(), 1);
        assert_eq!((files[0].size, files[0].terms.len()), (150, 2));
        assert!(files[0].sha256.starts_with(&[7, 6, 5, 4, 3, 2, 1, 0, 15]));
        assert_eq!((files[0].terms[1].first, files[0].terms[1].end), (7, 8));
        for cut in [0, 47, 96, 7 * 48, 8 * 48 - 1] {
            assert!(read_shard(&shard()[..cut]).is_err(), "{cut}");
        }
    }

    proptest! {
        #[test]
        fn mutations_do_not_panic(at in 0usize..8 * 48, value in any::<u8>()) {
            let mut bytes = shard();
            bytes[at] = value;
            let _ = read_shard(&bytes);
        }
    }
}
