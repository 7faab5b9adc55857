//! Registry reads of one state, each done once.

use super::CheckError;
use alloy_primitives::B256;
use opg_contracts::{
    evidence::{self, EvidenceRecord},
    state::{self, KeysetRecord, ModelTerms, NodeRecord, StateReader},
};
use opg_primitives::money::Price;
use std::{collections::HashMap, hash::Hash, sync::RwLock};

type Cache<K, V> = RwLock<HashMap<K, V>>;

/// One state with a cache for what the receipts of a block share: keysets, nodes, models and asks. Threads may share it.
#[derive(Debug)]
pub struct View<'a, R> {
    state: &'a R,
    keysets: Cache<B256, Option<KeysetRecord>>,
    nodes: Cache<B256, Option<NodeRecord>>,
    models: Cache<B256, Option<ModelTerms>>,
    asks: Cache<(B256, B256), Price>,
    fees: Cache<B256, u128>,
    programs: Cache<(B256, B256), Option<B256>>,
    evidence: Cache<B256, Option<(EvidenceRecord, Option<u64>)>>,
}

impl<'a, R: StateReader> View<'a, R> {
    /// An empty cache over `state`.
    pub fn new(state: &'a R) -> Self {
        Self {
            state,
            keysets: Cache::default(),
            nodes: Cache::default(),
            models: Cache::default(),
            asks: Cache::default(),
            fees: Cache::default(),
            programs: Cache::default(),
            evidence: Cache::default(),
        }
    }

    /// The state itself.
    pub fn state(&self) -> &'a R {
        self.state
    }

    pub(super) fn keyset(&self, digest: B256) -> Result<Option<KeysetRecord>, CheckError<R::Error>> {
        cached(&self.keysets, digest, || state::read_keyset(self.state, digest))
    }

    pub(super) fn node(&self, id: B256) -> Result<Option<NodeRecord>, CheckError<R::Error>> {
        cached(&self.nodes, id, || state::read_node(self.state, id))
    }

    /// Fees that the node's bond has to cover, wei.
    pub(super) fn recent_fees(&self, node: B256, timestamp: u64) -> Result<u128, CheckError<R::Error>> {
        cached(&self.fees, node, || {
            state::vault_recent_fees(self.state, node, timestamp)
        })
    }

    pub(super) fn model(&self, root: B256) -> Result<Option<ModelTerms>, CheckError<R::Error>> {
        cached(&self.models, root, || state::read_model_terms(self.state, root))
    }

    pub(super) fn ask(&self, node: B256, root: B256) -> Result<Price, CheckError<R::Error>> {
        cached(&self.asks, (node, root), || state::read_ask(self.state, node, root))
    }

    /// Registered evidence, and until when it counts; `None` instead if it is revoked.
    pub(super) fn evidence(
        &self,
        id: B256,
        grace: u64,
    ) -> Result<Option<(EvidenceRecord, Option<u64>)>, CheckError<R::Error>> {
        cached(&self.evidence, id, || {
            let Some(record) = evidence::read(self.state, id)? else {
                return Ok(None);
            };
            let until = evidence::valid_until(self.state, &record, grace)?;
            Ok(Some((record, until)))
        })
    }

    pub(super) fn program(&self, model: B256, program: B256) -> Result<Option<B256>, CheckError<R::Error>> {
        cached(&self.programs, (model, program), || {
            state::read_program(self.state, model, program)
        })
    }
}

fn cached<K: Eq + Hash, V: Clone, E>(
    cache: &Cache<K, V>,
    key: K,
    read: impl FnOnce() -> Result<V, E>,
) -> Result<V, CheckError<E>> {
    // a panic while the lock is held leaves a valid map behind
    if let Some(known) = cache
        .read()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .get(&key)
    {
        return Ok(known.clone());
    }
    let value = read().map_err(CheckError::State)?;
    cache
        .write()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .insert(key, value.clone());
    Ok(value)
}
