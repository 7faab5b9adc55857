//! Votes for blocks with an invalid proof, as this node sees them: votes come in before or after the block was judged, so both are kept
//! for a while and matched (staking.md §7).

use crate::shared::Shared;
use alloy_primitives::{B256, Bytes};
use opg_consensus::{ChainBlock, Opening, ProofName, Vote, encode_vote, verify_vote};
use opg_contracts::slashing::encode_proof_evidence;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

/// Votes that are kept: those of the newest views. A set has at most 100 seats.
const MAX_VOTES: usize = 1_024;
/// Blocks that are kept, each with one proof of at most 1 MiB.
const MAX_BLOCKS: usize = 8;

/// A block that names a proof which this node has found invalid.
#[derive(Debug)]
pub(crate) struct InvalidBlock {
    digest: B256,
    opening: Opening,
    /// Position of the proof among those that the block names.
    index: u32,
    /// The receipt whose answer it does not prove.
    receipt: Bytes,
    artefact: Bytes,
}

impl InvalidBlock {
    /// `name` is one of the block's, and `artefact` what it names. `None` if the block has no such receipt.
    pub(crate) fn new(block: &ChainBlock, name: ProofName, receipt: Bytes, artefact: Bytes) -> Option<Self> {
        let index = block.proofs.iter().position(|proof| *proof == name)?;
        let opening = block.opening();
        Some(Self {
            digest: opening.digest()?,
            opening,
            index: u32::try_from(index).ok()?,
            receipt,
            artefact,
        })
    }

    /// What a vote for it proves, up to where the proof is published.
    fn evidence(&self, vote: &Vote) -> Option<Found> {
        let mut evidence = encode_vote(&vote.bytes, &self.opening)?;
        evidence.extend(encode_proof_evidence(self.index, &self.receipt)?);
        Some(Found {
            epoch: vote.epoch,
            evidence: evidence.into(),
            artefact: self.artefact.clone(),
        })
    }
}

/// A vote for an invalid proof; its signature is not checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    epoch: u64,
    evidence: Bytes,
    artefact: Bytes,
}

#[derive(Debug, Default)]
struct Inner {
    votes: VecDeque<Vote>,
    blocks: VecDeque<Arc<InvalidBlock>>,
}

/// The newest votes and invalid blocks.
#[derive(Debug, Default)]
pub(crate) struct InvalidVotes(Mutex<Inner>);

impl InvalidVotes {
    /// A vote has come in.
    fn vote(&self, vote: Vote) -> Option<Found> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let block = inner.blocks.iter().find(|block| block.digest == vote.digest).cloned();
        let found = block.and_then(|block| block.evidence(&vote));
        inner.votes.push_back(vote);
        if inner.votes.len() > MAX_VOTES {
            inner.votes.pop_front();
        }
        found
    }

    /// A block was judged.
    fn block(&self, block: InvalidBlock) -> Vec<Found> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.blocks.iter().any(|known| known.digest == block.digest) {
            return Vec::new();
        }
        let votes = inner.votes.iter().filter(|vote| vote.digest == block.digest);
        let found = votes.filter_map(|vote| block.evidence(vote)).collect();
        inner.blocks.push_back(Arc::new(block));
        if inner.blocks.len() > MAX_BLOCKS {
            inner.blocks.pop_front();
        }
        found
    }
}

/// A vote has come in. Returns at once.
pub(crate) fn voted(node: &Arc<Shared>, vote: Vote) {
    if let Some(found) = node.invalid_votes.vote(vote) {
        keep(node, vec![found]);
    }
}

/// A block names an invalid proof. Returns at once.
pub(crate) fn judged(node: &Arc<Shared>, block: InvalidBlock) {
    let found = node.invalid_votes.block(block);
    if !found.is_empty() {
        keep(node, found);
    }
}

/// Keeps those whose signatures are good.
fn keep(node: &Arc<Shared>, found: Vec<Found>) {
    let node = node.clone();
    // called from threads of the engine's runtime, which must not wait for signatures and the disk
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return;
    };
    runtime.spawn_blocking(move || {
        for Found { epoch, evidence, artefact } in found {
            let Some(seats) = node.epochs.seats(epoch) else { continue };
            let set = seats.set().participants;
            let fault = match verify_vote(node.genesis_digest, epoch, &set, &evidence) {
                Ok((fault, ..)) => fault,
                Err(error) => {
                    tracing::debug!(%error, "a vote for an invalid proof is not proven");
                    continue;
                }
            };
            tracing::error!(kind = %fault.kind, epoch, view = fault.view, offender = %fault.offender, "a validator broke the rules");
            if let Err(error) = node.index.keep_fault(&fault, &evidence, Some(&artefact)) {
                tracing::error!(%error, "evidence was not kept");
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vote(digest: B256, view: u64) -> Vote {
        Vote {
            epoch: 1,
            view,
            digest,
            bytes: Bytes::from(view.to_be_bytes()),
        }
    }

    fn invalid(height: u64) -> InvalidBlock {
        let name = ProofName {
            core_hash: B256::repeat_byte(1),
            artefact: B256::repeat_byte(2),
        };
        let mut block = ChainBlock::genesis(B256::ZERO, B256::ZERO);
        block.height = height;
        block.proofs = vec![name];
        let artefact = Bytes::from_static(b"artefact");
        InvalidBlock::new(&block, name, Bytes::from_static(b"receipt"), artefact).unwrap()
    }

    #[test]
    fn votes_are_found_before_and_after_the_block_was_judged() {
        let votes = InvalidVotes::default();
        let digest = invalid(7).digest;
        assert_eq!(votes.vote(vote(digest, 3)), None);
        assert_eq!(votes.vote(vote(B256::ZERO, 3)), None);
        let found = votes.block(invalid(7));
        assert_eq!((found.len(), &found[0].artefact[..]), (1, &b"artefact"[..]));
        assert!(found[0].evidence.ends_with(b"receipt"));
        assert!(votes.block(invalid(7)).is_empty(), "it is known");
        let late = votes.vote(vote(digest, 4)).unwrap();
        assert_ne!(late.evidence, found[0].evidence);
        assert_eq!(votes.vote(vote(invalid(8).digest, 4)), None);
    }

    #[test]
    fn both_tables_are_bounded() {
        let votes = InvalidVotes::default();
        for view in 0..MAX_VOTES as u64 + 9 {
            votes.vote(vote(B256::ZERO, view));
        }
        for height in 0..MAX_BLOCKS as u64 + 9 {
            votes.block(invalid(height));
        }
        let inner = votes.0.lock().unwrap();
        assert_eq!((inner.votes.len(), inner.blocks.len()), (MAX_VOTES, MAX_BLOCKS));
    }
}
