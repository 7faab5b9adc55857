//! OpenZeppelin's StandardMerkleTree: leaves hashed twice and sorted, a complete binary tree in an array with the leaves from its end on, two
//! nodes hashed in ascending order. `MerkleProof.verify` takes its proofs.

use alloy_primitives::{B256, keccak256};

/// A tree over leaves in ascending order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StandardTree {
    /// Root first.
    nodes: Vec<B256>,
}

impl StandardTree {
    /// The tree of these leaves, which must be sorted; `None` if there are none.
    pub(crate) fn new(leaves: &[B256]) -> Option<Self> {
        let inner = leaves.len().checked_sub(1)?;
        let mut nodes = vec![B256::ZERO; inner];
        // The first leaf stands at the end.
        nodes.extend(leaves.iter().rev());
        for node in (0..inner).rev() {
            let pair = (nodes.get(2 * node + 1), nodes.get(2 * node + 2));
            if let (Some(left), Some(right)) = pair {
                let parent = parent(*left, *right);
                if let Some(slot) = nodes.get_mut(node) {
                    *slot = parent;
                }
            }
        }
        Some(Self { nodes })
    }

    /// The root.
    pub(crate) fn root(&self) -> B256 {
        self.nodes.first().copied().unwrap_or_default()
    }

    /// The proof of the leaf at this place in ascending order.
    pub(crate) fn proof(&self, index: usize) -> Option<Vec<B256>> {
        let mut node = self.nodes.len().checked_sub(index.checked_add(1)?)?;
        let mut proof = Vec::new();
        while node > 0 {
            let sibling = if node % 2 == 1 { node + 1 } else { node - 1 };
            proof.push(self.nodes.get(sibling).copied()?);
            node = (node - 1) / 2;
        }
        Some(proof)
    }
}

/// A leaf of ABI-encoded values.
pub(crate) fn leaf(encoded: &[u8]) -> B256 {
    keccak256(keccak256(encoded))
}

/// An inner node.
pub(crate) fn parent(a: B256, b: B256) -> B256 {
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    keccak256([low.0, high.0].concat())
}
