//! Proofs by the names that blocks give them, as far as they are not those of waiting receipts: asked for, good or bad.
//!
//! A receipt may have several valid proofs, and the leader's need not be the one that came here with the receipt. What is not named by a
//! proposal is never looked at, so nobody but a leader can make a validator verify a second proof.

use alloy_primitives::{B256, Bytes};
use opg_artefact::{ArtefactError, ZkArtefact};
use opg_consensus::ProofName;
use opg_receipt::Core;
use std::collections::HashMap;

/// Names that are remembered, and bytes of their proofs; beyond that everything is forgotten and asked for again.
const MAX_NAMES: usize = 4_096;
const MAX_BYTES: usize = 64 << 20;

/// What is known of a named proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Known {
    /// A proposal names it, and it has not come yet.
    Wanted,
    /// It proves the statement by the program with this root.
    Good {
        /// Root of the program.
        program: B256,
        /// The artefact.
        artefact: Bytes,
    },
    /// It does not.
    Bad {
        /// The artefact.
        artefact: Bytes,
        /// Why not.
        reason: String,
    },
}

/// The table.
#[derive(Debug, Default)]
pub(super) struct Proofs {
    known: HashMap<ProofName, Known>,
    bytes: usize,
}

impl Proofs {
    pub(super) fn get(&self, name: &ProofName) -> Option<&Known> {
        self.known.get(name)
    }

    /// A proposal names it.
    pub(super) fn want(&mut self, name: ProofName) {
        if self.known.len() >= MAX_NAMES || self.bytes > MAX_BYTES {
            *self = Self::default();
        }
        self.known.entry(name).or_insert(Known::Wanted);
    }

    /// What came of a wanted one; anything else is left alone.
    pub(super) fn settle(&mut self, name: ProofName, found: Known) {
        let size = match &found {
            Known::Wanted => 0,
            Known::Good { artefact, .. } | Known::Bad { artefact, .. } => artefact.len(),
        };
        if let Some(known) = self.known.get_mut(&name)
            && *known == Known::Wanted
        {
            self.bytes += size;
            *known = found;
        }
    }

    /// Forgets the proofs of a receipt.
    pub(super) fn remove(&mut self, core_hash: B256) {
        let bytes = &mut self.bytes;
        self.known.retain(|name, known| {
            let keep = name.core_hash != core_hash;
            if let (false, Known::Good { artefact, .. } | Known::Bad { artefact, .. }) = (keep, known) {
                *bytes = bytes.saturating_sub(artefact.len());
            }
            keep
        });
    }
}

/// Whether an artefact proves the statement of a core; the root of its program. Says nothing about whether that is registered.
///
/// # Errors
/// The first thing that does not hold: the same for every validator, at any time.
pub fn examine(core: &Core, artefact: &[u8]) -> Result<B256, ArtefactError> {
    let artefact = ZkArtefact::decode(artefact)?;
    artefact.verify(core)?;
    Ok(artefact.program())
}
