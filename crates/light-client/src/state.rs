//! Storage slots under a certified state root.

use crate::error::ProofError;
use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_rlp::Decodable as _;
use alloy_trie::{
    Nibbles, TrieAccount,
    nodes::TrieNode,
    proof::{ProofVerificationError, verify_proof},
};
use opg_contracts::StateReader;
use opg_primitives::hash::keccak;
use opg_receipt::file::{AccountProof, StateProof};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

/// The slots of a state proof, each proved; reads them for the contracts' typed readers.
#[derive(Debug, Clone)]
pub struct ProvedState {
    slots: BTreeMap<(Address, U256), U256>,
    read: RefCell<BTreeSet<(Address, U256)>>,
}

impl ProvedState {
    /// Checks every account and slot of a proof against a state root.
    ///
    /// # Errors
    /// [`ProofError::Trie`] naming the account, or [`ProofError::Malformed`] for an account or slot that is there twice.
    pub fn verify(proof: &StateProof, state_root: B256) -> Result<Self, ProofError> {
        let mut slots = BTreeMap::new();
        let mut addresses = BTreeSet::new();
        for account in &proof.accounts {
            let address = account.address;
            if !addresses.insert(address) {
                return Err(ProofError::malformed("state proof", format!("{address} twice")));
            }
            if account.slots.is_empty() {
                return Err(ProofError::malformed("state proof", format!("no slots of {address}")));
            }
            let storage_root = storage_root(account, state_root)?;
            for slot in &account.slots {
                let (key, value) = (U256::from_be_bytes(slot.key.0), U256::from_be_bytes(slot.value.0));
                // Unused slots are not in the trie: they are proved absent.
                let expected = (!value.is_zero()).then(|| alloy_rlp::encode(value));
                let path = Nibbles::unpack(keccak(slot.key.as_slice()));
                verify_proof(storage_root, path, expected, &slot.proof)
                    .map_err(|error| trie("slot proof", address, error))?;
                if slots.insert((address, key), value).is_some() {
                    let reason = format!("slot {key:#x} of {address} twice");
                    return Err(ProofError::malformed("state proof", reason));
                }
            }
        }
        Ok(Self {
            slots,
            read: RefCell::default(),
        })
    }

    /// Checks that every proved slot was read.
    ///
    /// # Errors
    /// [`ProofError::Unused`] naming the first that was not.
    pub fn all_read(&self) -> Result<(), ProofError> {
        let read = self.read.borrow();
        match self.slots.keys().find(|slot| !read.contains(slot)) {
            None => Ok(()),
            Some(&(address, slot)) => Err(ProofError::Unused { address, slot }),
        }
    }
}

impl StateReader for ProvedState {
    type Error = ProofError;

    fn storage(&self, address: Address, slot: U256) -> Result<U256, ProofError> {
        let value = self.slots.get(&(address, slot)).copied();
        self.read.borrow_mut().insert((address, slot));
        value.ok_or(ProofError::Unproved { address, slot })
    }
}

/// Storage root of an account, taken from the leaf that its proof ends in.
fn storage_root(account: &AccountProof, state_root: B256) -> Result<B256, ProofError> {
    const WHAT: &str = "account proof";
    let address = account.address;
    let malformed = || ProofError::Trie {
        what: WHAT,
        address,
        reason: "no account leaf".into(),
    };
    // An account's RLP has more than 32 bytes, so its leaf is never embedded in the node above.
    let last: &Bytes = account.proof.last().ok_or_else(malformed)?;
    let leaf = match TrieNode::decode(&mut last.as_ref()) {
        Ok(TrieNode::Leaf(leaf)) => leaf.value,
        _ => return Err(malformed()),
    };
    let path = Nibbles::unpack(keccak(address.as_slice()));
    verify_proof(state_root, path, Some(leaf.clone()), &account.proof).map_err(|error| trie(WHAT, address, error))?;
    let decoded = TrieAccount::decode(&mut leaf.as_slice()).map_err(|_| malformed())?;
    Ok(decoded.storage_root)
}

fn trie(what: &'static str, address: Address, error: ProofVerificationError) -> ProofError {
    ProofError::Trie {
        what,
        address,
        reason: error.to_string(),
    }
}
