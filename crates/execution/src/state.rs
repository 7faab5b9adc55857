//! Reading state at any executed block.

use crate::{
    Execution,
    convert::{b256, eth_address, u256},
    error::ExecutionError,
};
use alloy_primitives::{Address, B256, Bytes, U256};
use ethrex_common::{H256, types::AccountState};
use ethrex_storage::Store;
use std::fmt;

/// State after one block, final or not. Cheap to clone.
///
/// The client keeps state for about 128 blocks below the head: use a view soon, not later.
#[derive(Clone)]
pub struct StateView {
    store: Store,
    block: B256,
    root: H256,
}

impl fmt::Debug for StateView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StateView")
            .field("block", &self.block)
            .finish_non_exhaustive()
    }
}

impl StateView {
    /// The block after which this is the state.
    pub fn block_hash(&self) -> B256 {
        self.block
    }

    /// One storage word; zero if it was never written.
    ///
    /// # Errors
    /// Database errors.
    pub fn storage(&self, address: Address, slot: U256) -> Result<U256, ExecutionError> {
        let key = H256(slot.to_be_bytes());
        let word = self.store.get_storage_at_root(self.root, eth_address(address), key)?;
        Ok(word.map_or(U256::ZERO, u256))
    }

    /// Transactions sent by the account.
    ///
    /// # Errors
    /// Database errors.
    pub fn nonce(&self, address: Address) -> Result<u64, ExecutionError> {
        Ok(self.account(address)?.map_or(0, |account| account.nonce))
    }

    /// Native balance, in wei.
    ///
    /// # Errors
    /// Database errors.
    pub fn balance(&self, address: Address) -> Result<U256, ExecutionError> {
        Ok(self
            .account(address)?
            .map_or(U256::ZERO, |account| u256(account.balance)))
    }

    /// Keccak-256 of the account's code; `None` if the account does not exist.
    ///
    /// # Errors
    /// Database errors.
    pub fn code_hash(&self, address: Address) -> Result<Option<B256>, ExecutionError> {
        Ok(self.account(address)?.map(|account| b256(account.code_hash)))
    }

    /// Code of the account; empty if it has none.
    ///
    /// # Errors
    /// Database errors.
    pub fn code(&self, address: Address) -> Result<Bytes, ExecutionError> {
        let Some(account) = self.account(address)? else {
            return Ok(Bytes::new());
        };
        let code = self.store.get_account_code(account.code_hash)?;
        Ok(code.map(|code| Bytes::copy_from_slice(code.code())).unwrap_or_default())
    }

    fn account(&self, address: Address) -> Result<Option<AccountState>, ExecutionError> {
        Ok(self.store.get_account_state_by_root(self.root, eth_address(address))?)
    }
}

impl opg_contracts::state::StateReader for StateView {
    type Error = ExecutionError;

    fn storage(&self, address: Address, slot: U256) -> Result<U256, Self::Error> {
        StateView::storage(self, address, slot)
    }
}

impl opg_contracts::state::CodeReader for StateView {
    fn code(&self, address: Address) -> Result<Bytes, Self::Error> {
        StateView::code(self, address)
    }
}

impl Execution {
    /// State after block `hash`.
    ///
    /// # Errors
    /// [`ExecutionError::UnknownBlock`], [`ExecutionError::MissingState`].
    pub fn state_at(&self, hash: B256) -> Result<StateView, ExecutionError> {
        let store = &self.inner.store;
        let root = self.header(hash)?.state_root;
        // The client's trie is keyed by path and holds one old version: reading at a root it no
        // longer has would return other values instead of an error.
        if !store.has_state_root(root)? {
            return Err(ExecutionError::MissingState(hash));
        }
        Ok(StateView {
            store: store.clone(),
            block: hash,
            root,
        })
    }

    /// Nonce of an account after block `hash`.
    ///
    /// # Errors
    /// As [`Execution::state_at`].
    pub fn nonce_at(&self, hash: B256, address: Address) -> Result<u64, ExecutionError> {
        self.state_at(hash)?.nonce(address)
    }

    /// Native balance of an account after block `hash`, in wei.
    ///
    /// # Errors
    /// As [`Execution::state_at`].
    pub fn balance_at(&self, hash: B256, address: Address) -> Result<U256, ExecutionError> {
        self.state_at(hash)?.balance(address)
    }
}
