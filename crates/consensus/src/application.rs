//! What a chain implements to be driven by consensus.

use crate::{
    block::{ChainBlock, ProofName},
    fault::{Fault, Vote},
    keys::{Identity, Participant},
};
use alloy_primitives::{B256, Bytes};
use std::{future::Future, pin::Pin, sync::Arc};

/// A boxed future, so that [`ChainApplication`] can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Any error of an application. Consensus only reports it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where a block is to be built.
#[derive(Debug, Clone)]
pub struct ProposeContext {
    /// Epoch of the new block.
    pub epoch: u64,
    /// Whether the new block is the last of its epoch.
    pub closes_epoch: bool,
    /// View of consensus; grows by one per attempt, whether or not it yields a block, and starts at 1 in each epoch.
    pub view: u64,
    /// This validator.
    pub leader: Identity,
    /// Height of the new block.
    pub height: u64,
    /// Block below. Notarized, not necessarily final, and never to be taken for final.
    pub parent: Arc<ChainBlock>,
    /// Blocks up to and including the parent whose state the application lacks, oldest first. They
    /// must be imported before anything else.
    pub missing: Vec<Arc<ChainBlock>>,
}

/// A block to judge.
#[derive(Debug, Clone)]
pub struct VerifyContext {
    /// As [`ProposeContext::epoch`].
    pub epoch: u64,
    /// As [`ProposeContext::closes_epoch`].
    pub closes_epoch: bool,
    /// View of consensus in which the block was proposed.
    pub view: u64,
    /// Who proposed the block.
    pub leader: Identity,
    /// Block below; see [`ProposeContext::parent`].
    pub parent: Arc<ChainBlock>,
    /// As [`ProposeContext::missing`].
    pub missing: Vec<Arc<ChainBlock>>,
    /// The proposal. Its parent digest and height are checked already.
    pub block: Arc<ChainBlock>,
}

/// Who votes in an epoch, and who else may connect.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EpochSet {
    /// The validators, in any order. Their proofs of possession are checked by whoever admitted them to the state.
    pub participants: Vec<Participant>,
    /// Others that may connect and follow: candidates for later epochs, so that they are in step when they are seated.
    /// [`Config::max_peers`](crate::Config::max_peers) bounds them.
    pub observers: Vec<Identity>,
}

/// What the leader adds to parent and height.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposedBody {
    /// Hash of the EVM block.
    pub evm_hash: B256,
    /// RLP of the EVM block.
    pub evm: Bytes,
    /// Receipts in batch order.
    pub receipts: Vec<Bytes>,
    /// The proofs of those that have one, in the same order.
    pub proofs: Vec<ProofName>,
}

/// A judgement that every honest validator shares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Vote for the block.
    Valid,
    /// The block can never become valid; vote to skip the view. The text is logged.
    Invalid(String),
}

/// The chain behind consensus. Methods may be called concurrently and their futures may be dropped at
/// any point.
pub trait ChainApplication: Send + Sync + 'static {
    /// Is the state after the EVM block with this hash at hand? Decides which ancestors are handed to
    /// [`propose`](Self::propose) and [`verify`](Self::verify).
    fn has_state(&self, evm_hash: B256) -> BoxFuture<'_, Result<bool, BoxError>>;

    /// This validator leads: build a block, waiting for its timestamp if need be. `None` or an error
    /// skips the view.
    fn propose(&self, context: ProposeContext) -> BoxFuture<'_, Result<Option<ProposedBody>, BoxError>>;

    /// Judge another validator's block. An error means that no judgement is possible, such as when
    /// the database fails: this validator then does not vote.
    fn verify(&self, context: VerifyContext) -> BoxFuture<'_, Result<Verdict, BoxError>>;

    /// A block is final. Called in height order, at least once per block: after a crash again for
    /// blocks done already. `Ok` acknowledges the block; an error stops consensus, and the block is
    /// delivered again at the next start.
    fn finalized(&self, block: Arc<ChainBlock>) -> BoxFuture<'_, Result<(), BoxError>>;

    /// Height up to which the effects of [`finalized`](Self::finalized) are in place, asked once at
    /// start. Acknowledged blocks above it (lost in a crash) are delivered again from the archive.
    fn executed_height(&self) -> BoxFuture<'_, Result<u64, BoxError>>;

    /// The set of `epoch` (1 or later), asked for once [`finalized`](Self::finalized) has taken the last block of the
    /// epoch before. It must be a pure function of the state after that block, and stay answerable for an epoch that
    /// is current or the next. An error stops consensus; the block is delivered again at the next start.
    ///
    /// The default suits a chain without epochs.
    fn epoch_set(&self, epoch: u64) -> BoxFuture<'_, Result<EpochSet, BoxError>> {
        Box::pin(async move { Err(format!("this application has no validator set for epoch {epoch}").into()) })
    }

    /// A validator has signed two votes that exclude each other. `evidence` convinces whoever knows the set of that epoch:
    /// see [`verify_fault`](crate::verify_fault). Called from the engine: must return at once, and may be called again
    /// for the same fault.
    fn fault(&self, fault: Fault, evidence: Bytes) {
        let _ = (fault, evidence);
    }

    /// A vote to notarize has come in, from whoever says to be a validator: its signature is **not** checked. Whether it is a vote for
    /// an invalid proof only the application can tell: see [`verify_vote`](crate::verify_vote). Called from the engine, as often as
    /// there are votes: must return at once.
    fn voted(&self, vote: Vote) {
        let _ = vote;
    }
}
