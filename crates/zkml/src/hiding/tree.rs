//! Merkle trees over the symbols of several codewords, with a secret salt in every leaf.
//!
//! A leaf that is not opened says nothing about its symbols: it is the hash of 32 random bytes and them. An opening of
//! several positions holds each inner digest at most once; how many there are follows from the positions.

use std::sync::LazyLock;

use opg_primitives::domain::Tag;
use std::collections::BTreeMap;

use p3_field::PrimeField32;
use p3_maybe_rayon::prelude::*;

use crate::{
    commit::Digest,
    error::VerifyError,
    field::F,
    hiding::random::{Key, Use},
    proof::{Reader, Writer},
};

static LEAF: LazyLock<[u8; 32]> = LazyLock::new(|| key(Tag::HidingLeaf));
static ENTRY: LazyLock<[u8; 32]> = LazyLock::new(|| key(Tag::HidingSlot));

/// Key of BLAKE3 for one purpose, made once: its own derivation from a text would cost a compression each time.
fn key(tag: Tag) -> [u8; 32] {
    *blake3::hash(tag.as_str().as_bytes()).as_bytes()
}
static NODE: LazyLock<[u8; 32]> = LazyLock::new(|| key(Tag::HidingNode));
const SALT: usize = 32;

/// What the prover keeps of a commitment.
pub(crate) struct Tree {
    symbols: Vec<F>,
    width: usize,
    salts: Vec<u8>,
    /// Digests from the leaves to the root.
    layers: Vec<Vec<Digest>>,
}

impl std::fmt::Debug for Tree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tree")
            .field("root", &self.root())
            .finish_non_exhaustive()
    }
}

fn leaf(salt: &[u8], symbols: &[F]) -> Digest {
    let mut hasher = blake3::Hasher::new_keyed(&LEAF);
    hasher.update(salt);
    let bytes: Vec<u8> = symbols
        .iter()
        .flat_map(|symbol| symbol.as_canonical_u32().to_le_bytes())
        .collect();
    hasher.update(&bytes);
    *hasher.finalize().as_bytes()
}

fn node(left: &Digest, right: &Digest) -> Digest {
    let mut bytes = [0; 64];
    let (head, tail) = bytes.split_at_mut(32);
    head.copy_from_slice(left);
    tail.copy_from_slice(right);
    *blake3::keyed_hash(&NODE, &bytes).as_bytes()
}

/// The inner layers over some digests, whose number is a power of two.
fn layers(leaves: Vec<Digest>) -> Vec<Vec<Digest>> {
    let mut layers = vec![leaves];
    while let Some(last) = layers.last().filter(|last| last.len() > 1) {
        let next = last
            .par_chunks(2)
            .map(|pair| match pair {
                [left, right] => node(left, right),
                _ => [0; 32],
            })
            .collect();
        layers.push(next);
    }
    layers
}

impl Tree {
    /// Symbols position by position, `width` at each of a power of two positions.
    pub(crate) fn new(symbols: Vec<F>, width: usize, key: &Key) -> Self {
        let salts = key.stream(Use::Salts).bytes(symbols.len() / width.max(1) * SALT);
        let leaves = symbols
            .par_chunks(width.max(1))
            .zip(salts.par_chunks(SALT))
            .map(|(symbols, salt)| leaf(salt, symbols))
            .collect();
        Self {
            symbols,
            width,
            layers: layers(leaves),
            salts,
        }
    }

    pub(crate) fn root(&self) -> Digest {
        root(&self.layers)
    }

    /// Writes symbols and salts of sorted distinct positions, and the digests that lead to the root.
    pub(crate) fn open(&self, positions: &[usize], writer: &mut Writer) {
        for position in positions {
            let row = self.symbols.get(position * self.width..(position + 1) * self.width);
            row.unwrap_or_default().iter().for_each(|symbol| writer.base(*symbol));
            let salt = self.salts.get(position * SALT..(position + 1) * SALT);
            writer.bytes.extend(salt.unwrap_or_default());
        }
        let mut known: Vec<usize> = positions.to_vec();
        for layer in self.layers.iter().take(self.layers.len().saturating_sub(1)) {
            let mut above: Vec<usize> = Vec::with_capacity(known.len());
            for index in &known {
                if known.binary_search(&(index ^ 1)).is_err()
                    && let Some(digest) = layer.get(index ^ 1)
                {
                    writer.digest(digest);
                }
                if above.last() != Some(&(index / 2)) {
                    above.push(index / 2);
                }
            }
            known = above;
        }
    }
}

fn root(layers: &[Vec<Digest>]) -> Digest {
    layers.last().and_then(|last| last.first()).copied().unwrap_or([0; 32])
}

/// Reads symbols at sorted distinct positions of a tree with `2^depth` leaves: the symbols, and the root they lead to.
pub(crate) fn read(
    reader: &mut Reader<'_>,
    width: usize,
    depth: usize,
    positions: &[usize],
) -> Result<(Vec<Vec<F>>, Digest), VerifyError> {
    const WHAT: &str = "the columns of an opening";
    // Bounded by what is there before anything is allocated.
    let need = width
        .checked_mul(4)
        .and_then(|row| row.checked_add(SALT)?.checked_mul(positions.len()));
    if need.is_none_or(|need| need > reader.left()) {
        return Err(VerifyError::Truncated(WHAT));
    }
    let mut rows = Vec::with_capacity(positions.len());
    let mut known: BTreeMap<usize, Digest> = BTreeMap::new();
    for position in positions {
        let symbols = (0..width).map(|_| reader.base(WHAT)).collect::<Result<Vec<F>, _>>()?;
        known.insert(*position, leaf(reader.take(SALT, WHAT)?, &symbols));
        rows.push(symbols);
    }
    for _ in 0..depth {
        let mut above = BTreeMap::new();
        for (index, digest) in &known {
            if above.contains_key(&(index / 2)) {
                continue;
            }
            let sibling = match known.get(&(index ^ 1)) {
                Some(sibling) => *sibling,
                None => reader.digest(WHAT)?,
            };
            let parent = if index.is_multiple_of(2) {
                node(digest, &sibling)
            } else {
                node(&sibling, digest)
            };
            above.insert(index / 2, parent);
        }
        known = above;
    }
    let root = known.first_key_value().map_or([0; 32], |(_, root)| *root);
    Ok((rows, root))
}

/// A list of roots under one digest.
#[derive(Debug)]
pub(crate) struct Roots {
    layers: Vec<Vec<Digest>>,
}

/// A list's depth.
pub(crate) fn depth(count: u32) -> usize {
    crate::field::log2_ceil(count as usize)
}

fn entry(index: u32, root: &Digest) -> Digest {
    let mut hasher = blake3::Hasher::new_keyed(&ENTRY);
    hasher.update(&index.to_le_bytes());
    hasher.update(root);
    *hasher.finalize().as_bytes()
}

impl Roots {
    pub(crate) fn new(roots: &[Digest]) -> Self {
        let mut leaves: Vec<Digest> = (0u32..).zip(roots).map(|(index, root)| entry(index, root)).collect();
        leaves.resize(leaves.len().next_power_of_two(), [0; 32]);
        Self { layers: layers(leaves) }
    }

    pub(crate) fn root(&self) -> Digest {
        root(&self.layers)
    }

    pub(crate) fn path(&self, index: u32) -> Vec<Digest> {
        let mut at = index as usize;
        let mut path = Vec::new();
        for layer in self.layers.iter().take(self.layers.len().saturating_sub(1)) {
            path.push(layer.get(at ^ 1).copied().unwrap_or([0; 32]));
            at /= 2;
        }
        path
    }
}

/// The list's digest that a root at a place and a path lead to.
pub(crate) fn listed(index: u32, root: &Digest, path: &[Digest]) -> Digest {
    let mut at = index;
    let mut digest = entry(index, root);
    for sibling in path {
        digest = if at.is_multiple_of(2) {
            node(&digest, sibling)
        } else {
            node(sibling, &digest)
        };
        at /= 2;
    }
    digest
}

#[cfg(test)]
mod tests {
    use p3_field::PrimeCharacteristicRing;

    use super::*;
    use crate::hiding::random::Seed;

    #[test]
    fn openings_lead_to_the_root() {
        let key = Seed::from_bytes([3; 32]).key(Tag::HidingProof, []);
        let symbols: Vec<F> = (0..3 * 64).map(F::from_u32).collect();
        let tree = Tree::new(symbols.clone(), 3, &key);
        for positions in [
            vec![0],
            vec![63],
            vec![0, 1, 2, 3],
            vec![5, 9, 10, 40, 41, 62],
            (0..64).collect(),
        ] {
            let mut writer = Writer::default();
            tree.open(&positions, &mut writer);
            let mut reader = Reader::new(&writer.bytes);
            let (rows, root) = read(&mut reader, 3, 6, &positions).unwrap();
            assert_eq!(reader.left(), 0);
            assert_eq!(root, tree.root());
            for (row, position) in rows.iter().zip(&positions) {
                assert_eq!(row[..], symbols[position * 3..position * 3 + 3]);
            }
            for at in (0..writer.bytes.len()).step_by(4) {
                let mut bytes = writer.bytes.clone();
                bytes[at] ^= 1;
                let other = read(&mut Reader::new(&bytes), 3, 6, &positions);
                assert!(other.is_err() || other.unwrap().1 != tree.root());
            }
        }
    }

    #[test]
    fn lists_bind_place_and_root() {
        for count in [1u32, 2, 5, 8] {
            let roots: Vec<Digest> = (0..count).map(|i| [u8::try_from(i).unwrap(); 32]).collect();
            let list = Roots::new(&roots);
            for (index, root) in (0u32..).zip(&roots) {
                let path = list.path(index);
                assert_eq!(path.len(), depth(count));
                assert_eq!(listed(index, root, &path), list.root());
                assert_ne!(listed(index ^ 1, root, &path), list.root());
                assert_ne!(listed(index, &[9; 32], &path), list.root());
            }
        }
    }
}
