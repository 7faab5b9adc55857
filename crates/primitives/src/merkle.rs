//! The batch tree (ledger.md §9): RFC 6962 shape over Keccak-256.
//!
//! ```text
//! leaf_i    = keccak256(0x00 || coreHash_i)
//! node      = keccak256(0x01 || left || right)          split at the largest power of two below n
//! batchRoot = keccak256(0x02 || u64 height || u32 count || treeRoot)       treeRoot of 0 leaves = 0
//! ```
//! Leaves, nodes and roots start with different bytes, so none can be passed off as another; the count is hashed into
//! the batch root, so a proof's shape is fixed by its index.

use crate::hash::keccak;
use alloy_primitives::B256;

/// Most siblings that a proof can have: counts are `u32`.
pub const MAX_SIBLINGS: usize = 32;

/// Why a proof was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MerkleError {
    /// The index is not below the number of leaves.
    #[error("leaf index {index} is outside a tree of {count} leaves")]
    Index {
        /// Claimed index.
        index: u32,
        /// Number of leaves.
        count: u32,
    },
    /// The path is shorter or longer than this index needs.
    #[error("inclusion path: expected {expected} siblings, got {got}")]
    Length {
        /// Siblings that the index needs.
        expected: usize,
        /// Siblings given.
        got: usize,
    },
}

/// Hash of one leaf; `core_hash` is the keccak of a receipt's payload.
#[must_use]
pub fn leaf(core_hash: B256) -> B256 {
    let mut bytes = [0u8; 33];
    if let Some(tail) = bytes.get_mut(1..) {
        tail.copy_from_slice(core_hash.as_slice());
    }
    keccak(&bytes)
}

/// Tree root over *leaf hashes* (see [`leaf`]); zero for no leaves.
#[must_use]
pub fn root(leaves: &[B256]) -> B256 {
    match leaves {
        [] => B256::ZERO,
        [one] => *one,
        many => {
            let (left, right) = many.split_at(split(many.len()));
            node(root(left), root(right))
        }
    }
}

/// Siblings of leaf `index`, from the bottom up; `None` if there is no such leaf.
#[must_use]
pub fn prove(leaves: &[B256], index: usize) -> Option<Vec<B256>> {
    if index >= leaves.len() {
        return None;
    }
    let mut path = Vec::new();
    let (mut part, mut index) = (leaves, index);
    while part.len() > 1 {
        let at = split(part.len());
        let (left, right) = part.split_at(at);
        if index < at {
            path.push(root(right));
            part = left;
        } else {
            path.push(root(left));
            part = right;
            index -= at;
        }
    }
    path.reverse();
    Some(path)
}

/// Tree root that a leaf hash and its path lead to.
///
/// # Errors
/// [`MerkleError`] if the index is out of range or the path has not exactly the length this index needs.
pub fn verify_tree(leaf: B256, index: u32, count: u32, siblings: &[B256]) -> Result<B256, MerkleError> {
    if index >= count {
        return Err(MerkleError::Index { index, count });
    }
    // Which side each sibling stands on, from the top down: at most 32 steps as the size halves at least every step
    // on the left and shrinks to the rest on the right.
    let mut sides = Vec::with_capacity(MAX_SIBLINGS);
    let (mut size, mut index) = (u64::from(count), u64::from(index));
    while size > 1 {
        let at = largest_power_of_two_below(size);
        if index < at {
            sides.push(Side::Right);
            size = at;
        } else {
            sides.push(Side::Left);
            size -= at;
            index -= at;
        }
    }
    if sides.len() != siblings.len() {
        return Err(MerkleError::Length {
            expected: sides.len(),
            got: siblings.len(),
        });
    }
    let mut hash = leaf;
    for (side, sibling) in sides.iter().rev().zip(siblings) {
        hash = match side {
            Side::Left => node(*sibling, hash),
            Side::Right => node(hash, *sibling),
        };
    }
    Ok(hash)
}

/// The root that stands in the block header.
#[must_use]
pub fn batch_root(height: u64, count: u32, tree_root: B256) -> B256 {
    let mut bytes = Vec::with_capacity(45);
    bytes.push(2);
    bytes.extend_from_slice(&height.to_be_bytes());
    bytes.extend_from_slice(&count.to_be_bytes());
    bytes.extend_from_slice(tree_root.as_slice());
    keccak(&bytes)
}

/// Batch root over *core hashes*; `None` if there are more than `u32` can count.
#[must_use]
pub fn batch_root_of(height: u64, core_hashes: &[B256]) -> Option<B256> {
    let count = u32::try_from(core_hashes.len()).ok()?;
    let leaves: Vec<B256> = core_hashes.iter().copied().map(leaf).collect();
    Some(batch_root(height, count, root(&leaves)))
}

/// Where a sibling stands.
#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
}

fn node(left: B256, right: B256) -> B256 {
    let mut bytes = Vec::with_capacity(65);
    bytes.push(1);
    bytes.extend_from_slice(left.as_slice());
    bytes.extend_from_slice(right.as_slice());
    keccak(&bytes)
}

/// Largest power of two below `n`, for `n >= 2`.
fn largest_power_of_two_below(n: u64) -> u64 {
    1 << (u64::BITS - 1 - n.saturating_sub(1).max(1).leading_zeros())
}

fn split(n: usize) -> usize {
    // Lossless both ways: the result is below `n`.
    largest_power_of_two_below(n as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn leaves(n: usize) -> Vec<B256> {
        (0..n).map(|i| leaf(keccak(&(i as u64).to_be_bytes()))).collect()
    }

    #[test]
    fn splits_as_rfc_6962() {
        for (n, at) in [(2, 1), (3, 2), (4, 2), (5, 4), (7, 4), (8, 4), (9, 8)] {
            assert_eq!(split(n), at, "{n}");
        }
        let l = leaves(3);
        assert_eq!(root(&l), node(node(l[0], l[1]), l[2]));
        assert_eq!(root(&[]), B256::ZERO);
        assert_eq!(root(&l[..1]), l[0]);
    }

    #[test]
    fn every_leaf_of_every_small_tree_proves_itself_only() {
        for n in 1..40usize {
            let l = leaves(n);
            let r = root(&l);
            for i in 0..n {
                let path = prove(&l, i).unwrap();
                for j in 0..n {
                    let got = verify_tree(l[i], j as u32, n as u32, &path);
                    assert_eq!(got == Ok(r), i == j, "n {n} i {i} j {j}");
                }
            }
            assert_eq!(prove(&l, n), None);
        }
    }

    #[test]
    fn path_length_is_exact() {
        let l = leaves(5);
        let mut path = prove(&l, 4).unwrap();
        assert_eq!(path.len(), 1);
        path.push(B256::ZERO);
        assert_eq!(
            verify_tree(l[4], 4, 5, &path),
            Err(MerkleError::Length { expected: 1, got: 2 })
        );
        assert_eq!(
            verify_tree(l[4], 5, 5, &path),
            Err(MerkleError::Index { index: 5, count: 5 })
        );
        assert!(verify_tree(l[4], u32::MAX - 1, u32::MAX, &path).is_err());
    }

    #[test]
    fn height_and_count_are_bound() {
        let h = [keccak(b"x")];
        let a = batch_root_of(1, &h);
        assert_ne!(a, batch_root_of(2, &h));
        assert_eq!(a, Some(batch_root(1, 1, leaf(h[0]))));
        assert_ne!(batch_root(1, 1, B256::ZERO), batch_root(1, 0, B256::ZERO));
    }

    proptest! {
        #![proptest_config(opg_samples::cases(64))]
        #[test]
        fn a_changed_sibling_or_leaf_changes_the_root(n in 1usize..300, i in any::<prop::sample::Index>(), bit in 0usize..256) {
            let l = leaves(n);
            let i = i.index(n);
            let mut path = prove(&l, i).unwrap();
            let r = root(&l);
            prop_assert_eq!(verify_tree(l[i], i as u32, n as u32, &path), Ok(r));
            let mut other = l[i];
            other.0[bit / 8] ^= 1 << (bit % 8);
            prop_assert_ne!(verify_tree(other, i as u32, n as u32, &path), Ok(r));
            if let Some(first) = path.first_mut() {
                first.0[bit / 8] ^= 1 << (bit % 8);
                prop_assert_ne!(verify_tree(l[i], i as u32, n as u32, &path), Ok(r));
            }
        }
    }
}
