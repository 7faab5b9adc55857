//! Configuration of a validator's consensus.

use crate::{
    error::ConsensusError,
    keys::{Identity, Participant, ValidatorKeys},
};
use alloy_primitives::B256;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Bounds of [`Config::epoch_blocks`]: an epoch shorter than its hand-over is of no use, and heights must not overflow.
pub const MIN_EPOCH_BLOCKS: u64 = 4;
/// See [`MIN_EPOCH_BLOCKS`].
pub const MAX_EPOCH_BLOCKS: u64 = 1 << 40;

/// A validator to connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Who answers there.
    pub identity: Identity,
    /// Where.
    pub address: SocketAddr,
}

/// Time limits. The defaults suit one block per second.
///
/// A new block needs a timestamp of a later second than its parent's, so a leader may rightly take a
/// second before it proposes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// A view whose leader has not proposed after this time is given up. Default 2 s: the second
    /// above, and another one to build and send a full block.
    pub leader: Duration,
    /// A view without a notarized and certified block after this time is given up. Default 4 s.
    pub certification: Duration,
    /// How often the wish to give up a view is repeated. Default 0.5 s: at a start of the whole
    /// network the first such message often finds no connected peer.
    pub retry: Duration,
    /// The views of a validator not heard of for this time are given up at once. Default 6 s.
    pub skip_inactive: Duration,
    /// At a start, how long to wait for a quorum of peers to be connected before voting begins.
    /// Default 3 s. Without the wait, the first leaders' proposals reach nobody.
    pub peer_wait: Duration,
    /// Pause between attempts to connect. Default 100 ms.
    pub dial: Duration,
    /// Answer time of a peer asked for a missing block. Default 1 s.
    pub fetch: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            leader: Duration::from_secs(2),
            certification: Duration::from_secs(4),
            retry: Duration::from_millis(500),
            skip_inactive: Duration::from_secs(6),
            peer_wait: Duration::from_secs(3),
            dial: Duration::from_millis(100),
            fetch: Duration::from_secs(1),
        }
    }
}

/// What one validator needs to take part.
#[derive(Debug, Clone)]
pub struct Config {
    /// Folder for votes, blocks and certificates; created if missing and locked while running. **Never
    /// delete it while the keys are in use**: it holds what this validator has voted for.
    pub dir: PathBuf,
    /// This node's keys. Without epochs they must be those of a participant; with epochs a node whose keys are in no set
    /// follows without a vote until they are.
    pub keys: ValidatorKeys,
    /// The validator set of epoch 0. Possession proofs are checked by the caller.
    pub participants: Vec<Participant>,
    /// Blocks of an epoch: epoch `e` holds the heights from `e · n` to `(e + 1) · n − 1`. 0, the default: one endless
    /// epoch. The same on all nodes, from the genesis file.
    pub epoch_blocks: u64,
    /// With epochs: most nodes that one epoch's peer set may hold, validators and observers. Memory for their messages is
    /// reserved at start. Default 32.
    pub max_peers: usize,
    /// Digest of the genesis file: parent of height 0 and part of every signature.
    pub genesis_digest: B256,
    /// Hash of EVM block 0.
    pub evm_genesis: B256,
    /// Where to listen for peers.
    pub listen: SocketAddr,
    /// Where peers reach this validator. Default: `listen`.
    pub dialable: SocketAddr,
    /// Validators to connect to at start; an entry for this validator is ignored.
    pub peers: Vec<Peer>,
    /// Accept peers at private and loopback addresses. Default true.
    pub allow_private_ips: bool,
    /// Time limits.
    pub timing: Timing,
    /// Threads of the runtime. Default 2.
    pub worker_threads: usize,
}

impl Config {
    /// A configuration with defaults for what is not named here.
    pub fn new(
        dir: PathBuf,
        keys: ValidatorKeys,
        participants: Vec<Participant>,
        genesis_digest: B256,
        evm_genesis: B256,
        listen: SocketAddr,
        peers: Vec<Peer>,
    ) -> Self {
        Self {
            dir,
            keys,
            participants,
            epoch_blocks: 0,
            max_peers: 32,
            genesis_digest,
            evm_genesis,
            listen,
            dialable: listen,
            peers,
            allow_private_ips: true,
            timing: Timing::default(),
            worker_threads: 2,
        }
    }

    /// Blocks of an epoch as the engine counts them.
    pub(crate) fn epoch_length(&self) -> u64 {
        match self.epoch_blocks {
            0 => MAX_EPOCH_BLOCKS,
            blocks => blocks,
        }
    }

    /// Checks what the engine would otherwise answer with a panic.
    pub(crate) fn check(&self) -> Result<(), ConsensusError> {
        let me = self.keys.participant();
        let timing = &self.timing;
        let rules = [
            (
                self.epoch_blocks > 0 || self.participants.contains(&me),
                "these keys are not in the validator set",
            ),
            (
                self.epoch_blocks == 0 || (MIN_EPOCH_BLOCKS..=MAX_EPOCH_BLOCKS).contains(&self.epoch_blocks),
                "epoch_blocks must be 0 (no epochs) or from 4 to 2^40",
            ),
            (
                self.epoch_blocks == 0 || self.participants.len() <= self.max_peers,
                "max_peers must not be below the number of validators",
            ),
            (self.worker_threads > 0, "worker_threads must not be 0"),
            (!timing.leader.is_zero(), "timing.leader must not be 0"),
            (
                timing.certification > timing.leader,
                "timing.certification must exceed timing.leader",
            ),
            (!timing.retry.is_zero(), "timing.retry must not be 0"),
            (
                timing.skip_inactive > timing.certification && timing.skip_inactive > timing.retry,
                "timing.skip_inactive must exceed timing.certification and timing.retry",
            ),
            (!timing.dial.is_zero(), "timing.dial must not be 0"),
            (!timing.fetch.is_zero(), "timing.fetch must not be 0"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(ConsensusError::Config((*rule).into())),
            None => Ok(()),
        }
    }
}

/// Validators whose votes make a certificate: more than two thirds.
pub fn quorum(validators: usize) -> usize {
    validators - validators.saturating_sub(1) / 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quorums() {
        let expected = [(1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (7, 5), (10, 7)];
        for (validators, votes) in expected {
            assert_eq!(quorum(validators), votes);
        }
    }

    #[test]
    fn impossible_configurations_are_named() {
        let keys = ValidatorKeys::generate();
        let any = SocketAddr::from(([127, 0, 0, 1], 1));
        let set = vec![keys.participant()];
        let good = Config::new("x".into(), keys, set, B256::ZERO, B256::ZERO, any, Vec::new());
        assert!(good.check().is_ok());
        let mut stranger = good.clone();
        stranger.keys = ValidatorKeys::generate();
        assert!(stranger.check().is_err());
        let mut hasty = good.clone();
        hasty.timing.certification = hasty.timing.leader;
        assert!(hasty.check().is_err());
        for (blocks, valid) in [(1, false), (3, false), (4, true), (MAX_EPOCH_BLOCKS + 1, false)] {
            let mut epochs = good.clone();
            epochs.epoch_blocks = blocks;
            assert_eq!(epochs.check().is_ok(), valid, "{blocks}");
        }
        let mut follower = good.clone();
        (follower.keys, follower.epoch_blocks) = (ValidatorKeys::generate(), 10);
        assert!(follower.check().is_ok());
        follower.max_peers = 0;
        assert!(follower.check().is_err());
        let mut skipping = good;
        skipping.timing.skip_inactive = Duration::from_secs(1);
        assert!(skipping.check().is_err());
    }
}
