//! The running engine as the rest of the node sees it.

use crate::{
    adapter::Marshal,
    block::{ChainBlock, ENVELOPE_BYTES},
    error::ConsensusError,
    gossip::{GossipError, GossipReceiver, Outbox, Topic},
    keys::Identity,
    shared::{Shared, Stats},
};
use alloy_primitives::Bytes;
use commonware_codec::Encode as _;
use commonware_consensus::types::Height;
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::watch;

/// Heights above a block in which its finality proof is looked for. Certificates exist for nearly
/// every block; only one whose own certificate was never seen is final through a descendant.
const PROOF_SEARCH: u64 = 1_024;

/// Proof that a block is final: a certificate over a block at or above it, and the envelopes that
/// link the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinalityProof {
    /// Height of the certified block; at least the height asked for.
    pub height: u64,
    /// The signed proposal: varint epoch, varint view, varint parent view, 32-byte digest.
    pub proposal: Bytes,
    /// The certificate: 8-byte signer count of the set, signer bitmap, 48-byte signature.
    pub certificate: Bytes,
    /// Envelopes from the height asked for to the certified one, ascending. Each names the digest of
    /// the one before as its parent; the last hashes to the digest in the proposal.
    pub envelopes: Vec<[u8; ENVELOPE_BYTES]>,
}

/// Controls and queries a running engine. Clones share it. Methods may be called from any runtime.
///
/// The engine keeps running when handles are dropped; stop it with [`Handle::shutdown`].
#[derive(Clone)]
pub struct Handle {
    pub(crate) identity: Identity,
    pub(crate) marshal: Marshal,
    pub(crate) shared: Arc<Shared>,
    pub(crate) outbox: Outbox,
    pub(crate) inbox: Arc<Mutex<Option<GossipReceiver>>>,
    pub(crate) stop: watch::Sender<bool>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("identity", &self.identity)
            .field("finalized_height", &self.finalized_height())
            .finish_non_exhaustive()
    }
}

impl Handle {
    /// This validator.
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// The final block at `height`; `None` if there is none yet.
    ///
    /// # Errors
    /// [`ConsensusError::Stopped`].
    pub async fn block(&self, height: u64) -> Result<Option<Arc<ChainBlock>>, ConsensusError> {
        let block = self.marshal.get_block(Height::new(height)).await;
        self.running(block.map(|block| block.inner().0.clone()))
    }

    /// Proof that the block at `height` is final; `None` while there is none. Which of several valid
    /// certificates is returned may differ between validators.
    ///
    /// # Errors
    /// [`ConsensusError::Stopped`].
    pub async fn finalization(&self, height: u64) -> Result<Option<FinalityProof>, ConsensusError> {
        let mut envelopes = Vec::new();
        for certified in height..=height.saturating_add(PROOF_SEARCH) {
            let Some(block) = self.block(certified).await? else {
                return Ok(None);
            };
            envelopes.push(block.envelope());
            let found = self.marshal.get_finalization(Height::new(certified)).await;
            if let Some(finalization) = self.running(found)? {
                return Ok(Some(FinalityProof {
                    height: certified,
                    proposal: finalization.proposal.encode().into(),
                    certificate: finalization.certificate.encode().into(),
                    envelopes,
                }));
            }
        }
        Ok(None)
    }

    /// Newest height that the application acknowledged.
    pub fn finalized_height(&self) -> u64 {
        self.shared.finalized_height()
    }

    /// Figures since the start of this process.
    pub fn stats(&self) -> Stats {
        self.shared.stats()
    }

    /// Sends a message to all connected peers. Never blocks, and gives no guarantee of arrival.
    ///
    /// # Errors
    /// [`GossipError`]; with [`GossipError::Full`] the message was dropped.
    pub fn broadcast(&self, topic: Topic, payload: impl Into<Bytes>) -> Result<(), GossipError> {
        if self.shared.has_ended() {
            return Err(GossipError::Stopped);
        }
        let sent = self.outbox.send(topic, payload.into());
        if sent == Err(GossipError::Full) {
            self.shared.count(|stats| stats.gossip_dropped += 1);
        }
        sent
    }

    /// Messages from peers. There is one receiver; the first caller gets it.
    pub fn gossip(&self) -> Option<GossipReceiver> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Why the engine stopped by itself, if it did.
    pub fn failure(&self) -> Option<Arc<ConsensusError>> {
        self.shared.failure()
    }

    /// Waits until the engine has ended; `None` if it was shut down in order.
    pub async fn stopped(&self) -> Option<Arc<ConsensusError>> {
        self.shared.until_ended().await;
        self.failure()
    }

    /// Stops the engine and waits for its end. What was acknowledged or voted is on disk already, so
    /// a process killed without this call loses nothing.
    ///
    /// # Errors
    /// [`ConsensusError::Engine`] if the engine had failed before.
    pub async fn shutdown(&self) -> Result<(), ConsensusError> {
        self.stop.send_replace(true);
        match self.stopped().await {
            None => Ok(()),
            Some(failure) => Err(ConsensusError::Engine(failure.to_string())),
        }
    }

    /// An engine that has ended answers every query with nothing: tell that from "not there".
    fn running<T>(&self, answer: Option<T>) -> Result<Option<T>, ConsensusError> {
        if answer.is_none() && self.shared.has_ended() {
            return Err(ConsensusError::Stopped);
        }
        Ok(answer)
    }
}
