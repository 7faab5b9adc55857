//! The list of the airdrop as a Merkle tree (OpenZeppelin's StandardMerkleTree, `["address", "uint256"]`): root and proofs.
//!
//! Leaves are `keccak256(keccak256(abi.encode(account, amount)))`.

use crate::standard_tree::{self, StandardTree};
use alloy_primitives::{Address, B256, U256};
use opg_primitives::money::Amount;
use std::collections::BTreeSet;

/// A published list with its tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AirdropList {
    /// Entries in the order of the leaves.
    entries: Vec<(Address, Amount)>,
    tree: StandardTree,
}

/// Why a list has no tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AirdropError {
    /// It has no entries.
    #[error("the list is empty")]
    Empty,
    /// The contract pays an account once.
    #[error("{0} is in the list twice")]
    Repeated(Address),
    /// An entry of nothing.
    #[error("{0} gets nothing")]
    Nothing(Address),
    /// The sum is beyond an amount.
    #[error("the amounts of the list sum up to more than the supply")]
    Sum,
}

impl AirdropList {
    /// Makes the tree of a list.
    ///
    /// # Errors
    /// [`AirdropError`].
    pub fn new(entries: impl IntoIterator<Item = (Address, Amount)>) -> Result<Self, AirdropError> {
        let mut seen = BTreeSet::new();
        let mut total = 0u128;
        let mut leaves = Vec::new();
        for (account, amount) in entries {
            if !seen.insert(account) {
                return Err(AirdropError::Repeated(account));
            }
            if amount.is_zero() {
                return Err(AirdropError::Nothing(account));
            }
            total = total
                .checked_add(amount.wei())
                .filter(|sum| *sum <= crate::genesis_file::SUPPLY)
                .ok_or(AirdropError::Sum)?;
            leaves.push((leaf(account, amount), (account, amount)));
        }
        leaves.sort_unstable();
        let hashes: Vec<B256> = leaves.iter().map(|(leaf, _)| *leaf).collect();
        let tree = StandardTree::new(&hashes).ok_or(AirdropError::Empty)?;
        let entries = leaves.into_iter().map(|(_, entry)| entry).collect();
        Ok(Self { entries, tree })
    }

    /// Root of the tree.
    #[must_use]
    pub fn root(&self) -> B256 {
        self.tree.root()
    }

    /// Sum of all amounts.
    #[must_use]
    pub fn total(&self) -> Amount {
        Amount(self.entries.iter().map(|(_, amount)| amount.wei()).sum())
    }

    /// What an account gets, with the proof that the contract takes; `None` if it is not in the list.
    #[must_use]
    pub fn claim(&self, account: Address) -> Option<(Amount, Vec<B256>)> {
        let at = self.entries.iter().position(|(other, _)| *other == account)?;
        let (_, amount) = self.entries.get(at)?;
        Some((*amount, self.tree.proof(at)?))
    }
}

fn leaf(account: Address, amount: Amount) -> B256 {
    let mut encoded = [0u8; 64];
    encoded[12..32].copy_from_slice(account.as_slice());
    encoded[32..].copy_from_slice(&U256::from(amount.wei()).to_be_bytes::<32>());
    standard_tree::leaf(&encoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::standard_tree::parent;
    use alloy_primitives::b256;

    fn list(n: u8) -> AirdropList {
        AirdropList::new((1..=n).map(|i| (Address::repeat_byte(i), Amount(u128::from(i) * 1_000)))).unwrap()
    }

    /// Roots of `@openzeppelin/merkle-tree` 1.0.8 for the same lists.
    #[test]
    fn roots_are_those_of_the_standard_tree() {
        for (n, root) in [
            (
                1,
                b256!("0ff38cfcf0e0fdfbf286bacef7b8000ac4d742b2b7317b02d65b3beee8f11ff0"),
            ),
            (
                2,
                b256!("3867477070302c4a9047e6cf6c38e2762819017a164fbd147813a7229b6d1e51"),
            ),
            (
                3,
                b256!("d843509a5e34e69ac9fc93cadfcc61dc503dceed7b7afb61e0d16499ce971e7c"),
            ),
            (
                7,
                b256!("aa5cc123c900426dc7cf63a9262fa4f83456f1bd10f7d13aa538a323fd99538b"),
            ),
            (
                8,
                b256!("5800e558b1e7b7d094044e7059a10af0ef776551fc6c993f8870748e4a311be0"),
            ),
            (
                9,
                b256!("eb62409b6a4792afcf756fe651c045216d07e46a46de0d4432bd92081a75c139"),
            ),
        ] {
            assert_eq!(list(n).root(), root, "{n}");
        }
    }

    #[test]
    fn every_proof_leads_to_the_root() {
        for n in [1, 2, 3, 7, 8, 9] {
            let list = list(n);
            for i in 1..=n {
                let account = Address::repeat_byte(i);
                let (amount, proof) = list.claim(account).unwrap();
                let root = proof
                    .iter()
                    .fold(leaf(account, amount), |node, other| parent(node, *other));
                assert_eq!(root, list.root(), "{i} of {n}");
            }
            assert_eq!(list.claim(Address::ZERO), None);
            assert_eq!(list.total().wei(), u128::from(n) * (u128::from(n) + 1) / 2 * 1_000);
        }
        let a = (Address::repeat_byte(1), Amount(1));
        assert_eq!(AirdropList::new([]).unwrap_err(), AirdropError::Empty);
        assert_eq!(AirdropList::new([a, a]).unwrap_err(), AirdropError::Repeated(a.0));
        assert_eq!(
            AirdropList::new([(a.0, Amount(0))]).unwrap_err(),
            AirdropError::Nothing(a.0)
        );
        let much = [a, (Address::ZERO, Amount(u128::MAX))];
        assert_eq!(AirdropList::new(much).unwrap_err(), AirdropError::Sum);
    }
}
