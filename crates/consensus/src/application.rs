//! What a chain implements to be driven by consensus.

use crate::{block::ChainBlock, keys::Identity};
use alloy_primitives::{B256, Bytes};
use std::{future::Future, pin::Pin, sync::Arc};

/// A boxed future, so that [`ChainApplication`] can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Any error of an application. Consensus only reports it.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where a block is to be built.
#[derive(Debug, Clone)]
pub struct ProposeContext {
    /// View of consensus; grows by one per attempt, whether or not it yields a block.
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
    /// View of consensus.
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

/// What the leader adds to parent and height.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposedBody {
    /// Hash of the EVM block.
    pub evm_hash: B256,
    /// RLP of the EVM block.
    pub evm: Bytes,
    /// Receipts in batch order.
    pub receipts: Vec<Bytes>,
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
}
