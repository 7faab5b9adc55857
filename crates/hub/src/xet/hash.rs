//! Hashes of the Xet protocol: BLAKE3 with a key for each purpose, and a Merkle tree with about four children a node.

use crate::tree::Hash;

/// Key of chunk hashes.
const DATA_KEY: Hash = [
    102, 151, 245, 119, 91, 149, 80, 222, 49, 53, 203, 172, 165, 151, 24, 28, 157, 228, 33, 16, 155, 235, 43, 88, 180,
    208, 176, 75, 147, 173, 242, 41,
];
/// Key of inner nodes.
const NODE_KEY: Hash = [
    1, 126, 197, 199, 165, 71, 41, 150, 253, 148, 102, 102, 180, 138, 2, 230, 93, 221, 83, 111, 55, 199, 109, 210, 248,
    99, 82, 230, 74, 83, 113, 63,
];
/// A node ends at a child whose hash is a multiple of this.
const MEAN_CHILDREN: u64 = 4;
const MOST_CHILDREN: usize = 9;

/// Hash of a chunk's content.
#[must_use]
pub fn chunk_hash(content: &[u8]) -> Hash {
    *blake3::keyed_hash(&DATA_KEY, content).as_bytes()
}

/// A hash as the protocol writes it: four little-endian 64-bit numbers in hexadecimal.
#[must_use]
pub fn show_hash(hash: &Hash) -> String {
    let (words, _) = hash.as_chunks::<8>();
    words
        .iter()
        .map(|word| format!("{:016x}", u64::from_le_bytes(*word)))
        .collect()
}

/// Reads what [`show_hash`] writes.
#[must_use]
pub fn parse_hash(text: &str) -> Option<Hash> {
    let lower = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.len() != 64 || !text.bytes().all(lower) {
        return None;
    }
    let mut hash = Hash::default();
    let (words, _) = hash.as_chunks_mut::<8>();
    for (n, word) in words.iter_mut().enumerate() {
        let digits = text.get(16 * n..16 * (n + 1))?;
        *word = u64::from_str_radix(digits, 16).ok()?.to_le_bytes();
    }
    Some(hash)
}

/// Root of a list of (hash, size): the name of a xorb from its chunks. Zeros for an empty list.
#[must_use]
pub fn root(leaves: &[(Hash, u64)]) -> Hash {
    let mut level = leaves.to_vec();
    while level.len() > 1 {
        let mut above = Vec::with_capacity(level.len() / 2 + 1);
        let mut rest = level.as_slice();
        while !rest.is_empty() {
            let (group, tail) = rest.split_at_checked(cut(rest)).unwrap_or((rest, &[]));
            above.push(node(group));
            rest = tail;
        }
        level = above;
    }
    level.first().map_or(Hash::default(), |(hash, _)| *hash)
}

/// Number of children that the next node takes.
fn cut(entries: &[(Hash, u64)]) -> usize {
    if entries.len() <= 2 {
        return entries.len();
    }
    let ends = |(hash, _): &(Hash, u64)| {
        let last = hash.last_chunk::<8>().copied().unwrap_or_default();
        u64::from_le_bytes(last).is_multiple_of(MEAN_CHILDREN)
    };
    let most = entries.len().min(MOST_CHILDREN);
    // Only the third child and later ones end a node.
    let found = entries.iter().take(most).skip(2).position(ends);
    found.map_or(most, |at| at + 3)
}

fn node(children: &[(Hash, u64)]) -> (Hash, u64) {
    let mut text = String::with_capacity(children.len() * 80);
    let mut total = 0u64;
    for (hash, size) in children {
        text.push_str(&format!("{} : {size}\n", show_hash(hash)));
        total = total.saturating_add(*size);
    }
    (*blake3::keyed_hash(&NODE_KEY, text.as_bytes()).as_bytes(), total)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the protocol's documentation.
    #[test]
    fn hashes_are_written_by_words() {
        let hash: Hash = std::array::from_fn(|n| n as u8);
        let text = "07060504030201000f0e0d0c0b0a090817161514131211101f1e1d1c1b1a1918";
        assert_eq!(show_hash(&hash), text);
        assert_eq!(parse_hash(text), Some(hash));
        assert_eq!(parse_hash(&text[1..]), None);
        assert_eq!(parse_hash(&text.replace('f', "F")), None);
        assert_eq!(parse_hash(&"é".repeat(32)), None);
    }

    /// Test vectors of the protocol's specification.
    #[test]
    fn hashes_are_those_of_the_specification() {
        let hello = "d8d408e608fb9ca213b9909a65d86d725f2de4d8d540324be8a363e7a6e228cb";
        assert_eq!(show_hash(&chunk_hash(b"Hello World!")), hello);
        let leaf = |text, size| (parse_hash(text).unwrap(), size);
        let leaves = [
            leaf("c28f58387a60d4aa200c311cda7c7f77f686614864f5869eadebf765d0a14a69", 100),
            leaf("6e4e3263e073ce2c0e78cc770c361e2778db3b054b98ab65e277fc084fa70f22", 200),
        ];
        let node = "be64c7003ccd3cf4357364750e04c9592b3c36705dee76a71590c011766b6c14";
        assert_eq!(show_hash(&root(&leaves)), node);
        assert_eq!(root(&leaves[..1]), leaves[0].0);
    }
}
