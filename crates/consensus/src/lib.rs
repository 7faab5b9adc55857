//! # opg-consensus
//!
//! Consensus of the full nodes: [commonware](https://commonware.xyz) simplex with marshal, wired to
//! whatever implements [`ChainApplication`]. Validators vote with BLS12-381 multisignatures over
//! 104-byte [envelopes](ChainBlock::envelope), so that one 57-byte certificate (of four validators)
//! proves an EVM block hash. No type of commonware appears in this crate's API: its generics are
//! instantiated here once, and replacing the engine would change this crate only.
//!
//! ## Invariants
//! - **One encoding, one digest per block**: the codec is canonical, and the digest commits to every
//!   byte.
//! - **Final blocks come in order, at least once**, and are acknowledged only after the application
//!   has taken them. Its database can therefore always be rebuilt from the archive kept here.
//! - **No double vote**: votes are on disk before they are sent. The data folder must outlive the keys.
//! - **A library does not exit the process**: a failed application or engine ends the engine's thread,
//!   and [`Handle::failure`] tells why.
//! - **Bounded memory**: message quotas, block and gossip sizes, and queues all have limits.
//!
//! ## Example
//! ```no_run
//! # fn example(
//! #     application: std::sync::Arc<dyn opg_consensus::ChainApplication>,
//! #     genesis_digest: alloy_primitives::B256,
//! #     evm_genesis: alloy_primitives::B256,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! use opg_consensus::{Config, keys::ValidatorKeys, start};
//!
//! let keys = ValidatorKeys::generate();
//! let participants = vec![keys.participant()];
//! let config = Config::new(
//!     "data/consensus".into(),
//!     keys,
//!     participants,
//!     genesis_digest,
//!     evm_genesis,
//!     "127.0.0.1:8565".parse()?,
//!     Vec::new(),
//! );
//! let engine = start(config, application)?;
//! println!("final up to {}", engine.finalized_height());
//! # Ok(())
//! # }
//! ```
//!
//! ## Epochs
//! With [`Config::epoch_blocks`], the set changes every so many blocks. Each epoch has an engine, a journal and message
//! channels of its own; archive and backfill go through all of them. Once the application has taken the last block of an
//! epoch it names the next set, the next engine starts on that block, and only then is the block acknowledged: a crash at any
//! point repeats the hand-over. A node that has no seat runs the same engine without a key. Which sets may
//! connect follows the epochs; a node that hears votes of a later epoch fetches the last block of its own.
//!
//! Votes of an epoch are signed only while it runs: at the hand-over the key's copy in the old engine is dropped. The key
//! itself is the operator's, registered in state, and signs again in the next epoch. So a stolen key can sign for
//! any epoch in which it had a seat, and light clients must not trust a set that is older than the unbonding period; keys that
//! are replaced in state every epoch, and erased, would remove that.
//!
//! ## Faults
//! A validator that signs two votes that exclude each other is reported to the application with evidence that
//! [`verify_fault`] checks from bytes and set alone. It is found as long as both votes reach one honest node while it
//! remembers the view (the newest 64).
//!
//! A block names the proofs of its receipts, and a vote for it is a vote for them: [`ChainApplication::voted`] hands every notarize vote to
//! the application, which knows whether a proof holds, and [`verify_vote`] checks vote and names from bytes and set alone.

#![forbid(unsafe_code)]

mod adapter;
mod application;
mod block;
mod config;
mod engine;
mod epochs;
mod error;
mod fault;
mod gossip;
mod handle;
pub mod keys;
mod orchestrator;
mod scheme;
mod shared;

pub use application::{
    BoxError, BoxFuture, ChainApplication, EpochSet, ProposeContext, ProposedBody, Verdict, VerifyContext,
};
pub use block::{
    ChainBlock, CodecError, ENVELOPE_BYTES, MAX_EVM_BYTES, MAX_PROOFS, MAX_RECEIPT_BYTES, MAX_RECEIPTS,
    MAX_RECEIPTS_BYTES, Opening, ProofName, envelope_digest,
};
pub use config::{Config, MAX_EPOCH_BLOCKS, MIN_EPOCH_BLOCKS, Peer, Timing, quorum};
pub use engine::start;
pub use error::{CertificateError, ConsensusError, FaultError};
pub use fault::{Fault, FaultKind, MAX_FAULT_BYTES, Vote, encode_vote, opened, verify_fault, verify_vote};
pub use gossip::{GossipError, GossipMessage, GossipReceiver, Topic};
pub use handle::{FinalityProof, Handle};
pub use keys::{BlsPublicKey, Identity, Participant};
pub use scheme::{leader, verify_certificate, vote_namespace};
pub use shared::Stats;
