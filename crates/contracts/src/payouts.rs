//! All that payees were ever credited, as the tree whose root `Payouts` holds on the network and from which `HomeFeeVault` pays where OPG lives
//! (decisions D5). Leaf: `keccak256(keccak256(abi.encode(payee, nodeId, cumulative)))`.

use crate::{
    HomeFeeVault,
    standard_tree::{StandardTree, leaf},
};
use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolValue as _;
use opg_primitives::money::Amount;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Most entries of a list.
pub const MAX_PAYOUTS: usize = 1 << 20;
/// Slot of `Payouts.root`.
pub const ROOT_SLOT: U256 = U256::ZERO;

/// What one payee was ever credited from one node's receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payout {
    /// Who is paid.
    pub payee: Address,
    /// The node whose deposits pay.
    pub node_id: B256,
    /// The sum since the beginning, wei.
    pub cumulative: Amount,
}

/// Why a list has no tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PayoutsError {
    /// It has no entries.
    #[error("the list of payouts is empty")]
    Empty,
    /// More entries than are read.
    #[error("a list of {got} payouts, at most {limit}")]
    TooMany {
        /// Most entries.
        limit: usize,
        /// Entries given.
        got: usize,
    },
    /// The vault pays one leaf for each payee and node.
    #[error("payee {payee} stands twice in the list for node {node_id}")]
    Repeated {
        /// The payee.
        payee: Address,
        /// The node.
        node_id: B256,
    },
}

/// A list with its tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayoutList {
    /// In the order of the leaves.
    entries: Vec<Payout>,
    tree: StandardTree,
}

impl PayoutList {
    /// Makes the tree of a list, in any order.
    ///
    /// # Errors
    /// [`PayoutsError`].
    pub fn new(entries: impl IntoIterator<Item = Payout>) -> Result<Self, PayoutsError> {
        let mut seen = BTreeSet::new();
        let mut leaves = Vec::new();
        for entry in entries {
            let Payout { payee, node_id, .. } = entry;
            if !seen.insert((payee, node_id)) {
                return Err(PayoutsError::Repeated { payee, node_id });
            }
            if seen.len() > MAX_PAYOUTS {
                let (limit, got) = (MAX_PAYOUTS, seen.len());
                return Err(PayoutsError::TooMany { limit, got });
            }
            let cumulative = U256::from(entry.cumulative.wei());
            leaves.push((leaf(&(payee, node_id, cumulative).abi_encode()), entry));
        }
        leaves.sort_unstable_by_key(|(leaf, _)| *leaf);
        let hashes: Vec<B256> = leaves.iter().map(|(leaf, _)| *leaf).collect();
        let tree = StandardTree::new(&hashes).ok_or(PayoutsError::Empty)?;
        let entries = leaves.into_iter().map(|(_, entry)| entry).collect();
        Ok(Self { entries, tree })
    }

    /// The root.
    #[must_use]
    pub fn root(&self) -> B256 {
        self.tree.root()
    }

    /// The entries, in the order of their leaves.
    #[must_use]
    pub fn entries(&self) -> &[Payout] {
        &self.entries
    }

    /// What a payee was credited from a node, with the proof that the vault takes; `None` if it is not in the list.
    #[must_use]
    pub fn claim(&self, payee: Address, node_id: B256) -> Option<HomeFeeVault::claimCall> {
        let wanted = |entry: &Payout| entry.payee == payee && entry.node_id == node_id;
        let at = self.entries.iter().position(wanted)?;
        let entry = self.entries.get(at)?;
        Some(HomeFeeVault::claimCall {
            leaf: HomeFeeVault::Leaf {
                payee,
                nodeId: node_id,
                cumulative: U256::from(entry.cumulative.wei()),
            },
            proof: self.tree.proof(at)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(payee: u8, node: u8, wei: u128) -> Payout {
        Payout {
            payee: Address::repeat_byte(payee),
            node_id: B256::repeat_byte(node),
            cumulative: Amount(wei),
        }
    }

    #[test]
    fn lists_that_pay_twice_or_nobody_are_refused() {
        assert_eq!(PayoutList::new([]), Err(PayoutsError::Empty));
        let twice = PayoutList::new([entry(1, 1, 5), entry(1, 1, 6)]);
        assert!(matches!(twice, Err(PayoutsError::Repeated { .. })));
        // One payee of two nodes, two payees of one node.
        let list = PayoutList::new([entry(1, 1, 5), entry(1, 2, 5), entry(2, 1, 5)]).unwrap();
        assert!(list.claim(Address::repeat_byte(2), B256::repeat_byte(2)).is_none());
        assert!(list.claim(Address::repeat_byte(2), B256::repeat_byte(1)).is_some());
    }

    #[test]
    fn the_order_given_does_not_matter() {
        let entries: Vec<_> = (0..9).map(|i| entry(i, i / 2, u128::from(i))).collect();
        let root = PayoutList::new(entries.clone()).unwrap().root();
        assert_eq!(PayoutList::new(entries.into_iter().rev()).unwrap().root(), root);
    }
}
