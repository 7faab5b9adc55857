//! From the validators of the genesis to those of any later epoch (D12).
//!
//! The last block of epoch `e` is certified by the set of `e`; its state holds `setHash[e + 1]`, the hash of the set that follows. So
//! a list of hand-overs leads from the genesis, or from a block that the caller trusts by its hash, to every later set.

use crate::{
    certificate::ValidatorSet,
    checkpoint::Checkpoint,
    error::{ProofError, same},
    finality::{self, CertifiedBlock},
    state::ProvedState,
};
use alloy_primitives::B256;
use opg_contracts::{GenesisFile, seats};
use opg_primitives::hash::keccak;
use opg_receipt::file::{Finality, HandOver};

/// The sets of consecutive epochs.
#[derive(Debug, Clone)]
pub struct Epochs {
    /// Blocks of an epoch; 0 without epochs.
    blocks: u64,
    genesis_digest: B256,
    first: u64,
    /// One for each epoch from `first`, never empty.
    sets: Vec<ValidatorSet>,
    checkpoints: Vec<Checkpoint>,
}

impl Epochs {
    /// The set of epoch 0.
    ///
    /// # Errors
    /// As [`ValidatorSet::from_genesis`].
    pub fn from_genesis(genesis: &GenesisFile) -> Result<Self, ProofError> {
        let set = ValidatorSet::from_genesis(genesis)?;
        Ok(Self {
            blocks: genesis.parameters.epoch_blocks,
            genesis_digest: set.genesis_digest(),
            first: 0,
            sets: vec![set],
            checkpoints: Vec::new(),
        })
    }

    /// The set that follows a block which the caller trusts by its hash (EVM hash or digest of the consensus block): the last
    /// block of an epoch. The block's certificate is not looked at, as nobody can say whose it should be.
    ///
    /// # Errors
    /// [`ProofError`] if the block is another, or its state does not name these seats.
    pub fn from_checkpoint(genesis: &GenesisFile, trusted: B256, handover: &HandOver) -> Result<Self, ProofError> {
        let (blocks, genesis_digest) = (genesis.parameters.epoch_blocks, genesis.digest());
        let block = finality::open(&handover.state.finality)?;
        if block.hash != trusted && block.digests.first() != Some(&trusted) {
            return Err(ProofError::mismatch("hash of the checkpoint", trusted, block.hash));
        }
        let (set, checkpoint) = next_set(genesis_digest, blocks, handover, &block)?;
        Ok(Self {
            blocks,
            genesis_digest,
            first: handover.epoch,
            sets: vec![set],
            checkpoints: vec![checkpoint],
        })
    }

    /// Adds the next epoch.
    ///
    /// # Errors
    /// [`ProofError`] naming the first check that does not hold; nothing is added then.
    pub fn advance(&mut self, handover: &HandOver) -> Result<&Checkpoint, ProofError> {
        let over = self.last();
        if over.checked_add(1) != Some(handover.epoch) {
            let expected = format!("{over} + 1");
            return Err(ProofError::mismatch("epoch of a hand-over", expected, handover.epoch));
        }
        let finality = &handover.state.finality;
        // The set below is that of `over`, and the block is of `over` by its number.
        let block = self.verify(finality)?;
        let (set, checkpoint) = next_set(self.genesis_digest, self.blocks, handover, &block)?;
        self.sets.push(set);
        self.checkpoints.push(checkpoint);
        self.checkpoints.last().ok_or(ProofError::ValidatorSet("no checkpoint"))
    }

    /// First epoch whose set is known.
    #[must_use]
    pub const fn first(&self) -> u64 {
        self.first
    }

    /// Last epoch whose set is known.
    #[must_use]
    pub fn last(&self) -> u64 {
        self.first.saturating_add(self.sets.len().saturating_sub(1) as u64)
    }

    /// The set of an epoch.
    #[must_use]
    pub fn set(&self, epoch: u64) -> Option<&ValidatorSet> {
        self.sets.get(usize::try_from(epoch.checked_sub(self.first)?).ok()?)
    }

    /// Where each known epoch from 1 began, oldest first.
    #[must_use]
    pub fn checkpoints(&self) -> &[Checkpoint] {
        &self.checkpoints
    }

    /// Epoch of a height.
    #[must_use]
    pub fn epoch_of(&self, height: u64) -> u64 {
        height.checked_div(self.blocks).unwrap_or(0)
    }

    /// Checks a block against the set of its epoch.
    ///
    /// # Errors
    /// [`ProofError`]: the set is unknown, the certificate is of another epoch than the block, or anything that
    /// [`finality::verify`] finds.
    pub fn verify(&self, finality: &Finality) -> Result<CertifiedBlock, ProofError> {
        let opened = finality::open(finality)?;
        let above = opened.digests.len().saturating_sub(1) as u64;
        let expected = self.epoch_of(opened.header.number.saturating_add(above));
        let got = opened.proposal.epoch;
        // A set may sign for its own epoch only: keys of an old set must not certify later blocks.
        if got != expected {
            return Err(ProofError::mismatch("epoch of the certificate", expected, got));
        }
        let (first, last) = (self.first, self.last());
        let set = self.set(got).ok_or(ProofError::UnknownEpoch { first, last, got })?;
        finality::verify(finality, set)
    }
}

/// The set that the last block of an epoch names, and the point where its epoch begins.
fn next_set(
    genesis_digest: B256,
    blocks: u64,
    handover: &HandOver,
    block: &CertifiedBlock,
) -> Result<(ValidatorSet, Checkpoint), ProofError> {
    if blocks == 0 {
        return Err(ProofError::mismatch(
            "hand-overs",
            "none: this genesis has no epochs",
            handover.epoch,
        ));
    }
    let expected = handover
        .epoch
        .checked_mul(blocks)
        .and_then(|first| first.checked_sub(1));
    if expected.is_none() || Some(block.header.number) != expected {
        let expected = expected.map_or_else(|| "a later one".to_owned(), |height| height.to_string());
        return Err(ProofError::mismatch(
            "last height of the epoch",
            expected,
            block.header.number,
        ));
    }
    let state = ProvedState::verify(&handover.state, block.header.state_root)?;
    let set_hash = seats::read_set_hash(&state, handover.epoch)?;
    state.all_read()?;
    let decoded = seats::decode(&handover.seats)?;
    same("hash of the seats", set_hash, keccak(&handover.seats))?;
    let set = ValidatorSet::from_seats(genesis_digest, &decoded)?;
    let checkpoint = Checkpoint {
        epoch: handover.epoch,
        height: block.header.number,
        hash: block.hash,
        timestamp: block.header.timestamp,
        set_hash,
    };
    Ok((set, checkpoint))
}
