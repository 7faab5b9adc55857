//! Joins a [`ChainApplication`] to the engine's own interfaces.

use crate::{
    application::{BoxError, ChainApplication, ProposeContext, Verdict, VerifyContext},
    block::{ChainBlock, Wire, from_digest, to_digest},
    error::ConsensusError,
    keys::Identity,
    scheme::Scheme,
    shared::Shared,
};
use commonware_actor::Feedback;
use commonware_consensus::{
    Application, Reporter,
    marshal::{Update, ancestry::Ancestry, core::Mailbox, standard::Standard},
    simplex::types::{Activity, Context},
    types::{Epocher as _, FixedEpocher, Height},
};
use commonware_cryptography::{Digested, ed25519::PublicKey, sha256::Digest};
use futures::StreamExt as _;
use std::sync::Arc;
use tokio::sync::mpsc::UnboundedSender;

pub(crate) type Marshal = Mailbox<Scheme, Standard<Wire>>;

/// More ancestors than this without state mean that final blocks are still being caught up with;
/// judging a proposal then has to wait.
const MOST_MISSING: usize = 256;

/// The engine's view of the application.
#[derive(Clone)]
pub(crate) struct Adapter {
    pub(crate) application: Arc<dyn ChainApplication>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) epocher: FixedEpocher,
}

struct Lineage {
    parent: Arc<ChainBlock>,
    missing: Vec<Arc<ChainBlock>>,
}

impl Adapter {
    /// Walks down from the parent to a block whose state the application has.
    async fn lineage(&self, mut ancestry: impl Ancestry<Wire>) -> Result<Lineage, BoxError> {
        let mut parent = None;
        let mut missing = Vec::new();
        while let Some(block) = ancestry.next().await {
            let block = block.inner().0.clone();
            let parent = parent.get_or_insert_with(|| block.clone());
            if block.height == 0 || self.application.has_state(block.evm_hash).await? {
                missing.reverse();
                return Ok(Lineage {
                    parent: parent.clone(),
                    missing,
                });
            }
            if missing.len() == MOST_MISSING {
                return Err(format!("{MOST_MISSING} ancestors lack state: still catching up").into());
            }
            missing.push(block);
        }
        Err("the parent's ancestors are not available".into())
    }

    async fn build(
        &self,
        context: Context<Digest, PublicKey>,
        ancestry: impl Ancestry<Wire>,
    ) -> Result<Option<Digested<Wire>>, BoxError> {
        let Lineage { parent, missing } = self.lineage(ancestry).await?;
        let height = parent.height + 1;
        let epoch = context.round.epoch();
        let request = ProposeContext {
            epoch: epoch.get(),
            closes_epoch: self.epocher.last(epoch) == Some(Height::new(height)),
            view: context.round.view().get(),
            leader: Identity::of(&context.leader),
            height,
            parent,
            missing,
        };
        let Some(body) = self.application.propose(request).await? else {
            return Ok(None);
        };
        let block = ChainBlock {
            parent: from_digest(&context.parent.1),
            height,
            evm_hash: body.evm_hash,
            evm: body.evm,
            receipts: body.receipts,
            proofs: body.proofs,
        };
        // the engine panics on a block above the announced bound
        block.check_bounds()?;
        let digest = block.digest();
        self.shared.proposed(digest);
        Ok(Some(Digested::precomputed(Wire(Arc::new(block)), to_digest(digest))))
    }

    async fn judge(
        &self,
        context: Context<Digest, PublicKey>,
        mut ancestry: impl Ancestry<Wire>,
    ) -> Result<Verdict, BoxError> {
        let block = ancestry.next().await.ok_or("the proposal is not available")?;
        let block = block.inner().0.clone();
        let Lineage { parent, missing } = self.lineage(ancestry).await?;
        let epoch = context.round.epoch();
        let request = VerifyContext {
            epoch: epoch.get(),
            closes_epoch: self.epocher.last(epoch) == Some(Height::new(block.height)),
            view: context.round.view().get(),
            leader: Identity::of(&context.leader),
            parent,
            missing,
            block,
        };
        self.application.verify(request).await
    }
}

impl<E: Send + 'static> Application<E> for Adapter {
    type SigningScheme = Scheme;
    type Context = Context<Digest, PublicKey>;
    type Block = Wire;
    type Input = ();

    async fn propose(
        &mut self,
        (_, context): (E, Self::Context),
        ancestry: impl Ancestry<Wire>,
        _: (),
    ) -> Option<Digested<Wire>> {
        let view = context.round.view().get();
        let built = self.build(context, ancestry).await;
        let block = match built {
            Ok(block) => block,
            Err(error) => {
                tracing::warn!(view, %error, "no proposal");
                None
            }
        };
        if block.is_none() {
            self.shared.count(|stats| stats.skipped_proposals += 1);
        }
        block
    }

    async fn verify(&mut self, (_, context): (E, Self::Context), ancestry: impl Ancestry<Wire>) -> bool {
        let view = context.round.view().get();
        let leader = Identity::of(&context.leader);
        match self.judge(context, ancestry).await {
            Ok(Verdict::Valid) => {
                self.shared.count(|stats| stats.accepted += 1);
                true
            }
            Ok(Verdict::Invalid(reason)) => {
                tracing::warn!(view, %leader, reason, "proposal rejected");
                self.shared.count(|stats| stats.rejections += 1);
                false
            }
            Err(error) => {
                tracing::warn!(view, %leader, %error, "proposal not judged");
                self.shared.count(|stats| stats.abstentions += 1);
                // The engine takes `false` for "can never become valid". To abstain is to stay
                // silent until it gives the view up and drops this future.
                std::future::pending().await
            }
        }
    }
}

/// Takes final blocks from the engine.
#[derive(Clone)]
pub(crate) struct Delivery(pub(crate) UnboundedSender<Update<Wire>>);

impl Reporter for Delivery {
    type Activity = Update<Wire>;

    fn report(&mut self, update: Self::Activity) -> Feedback {
        // a closed channel means that the engine is being torn down
        let _ = self.0.send(update);
        Feedback::Ok
    }
}

/// Hands the application what it acknowledged once and lost in a crash.
pub(crate) async fn refill(
    application: &dyn ChainApplication,
    marshal: &Marshal,
    shared: &Shared,
) -> Result<(), ConsensusError> {
    let acknowledged = marshal
        .get_processed()
        .await
        .map_or(0, |processed| processed.height().get());
    let executed = application.executed_height().await;
    let executed = executed.map_err(|e| ConsensusError::Application(e.to_string()))?;
    shared.set_finalized_height(acknowledged.min(executed));
    if executed < acknowledged {
        tracing::info!(executed, acknowledged, "refilling from the archive");
    }
    for height in executed + 1..=acknowledged {
        let block = marshal.get_block(Height::new(height)).await;
        let block = block.ok_or(ConsensusError::ArchiveGap { height })?;
        apply(application, shared, block.inner().0.clone()).await?;
    }
    Ok(())
}

pub(crate) async fn apply(
    application: &dyn ChainApplication,
    shared: &Shared,
    block: Arc<ChainBlock>,
) -> Result<(), ConsensusError> {
    let height = block.height;
    let applied = application.finalized(block).await;
    applied.map_err(|error| ConsensusError::NotApplied {
        height,
        reason: error.to_string(),
    })?;
    shared.set_finalized_height(height);
    Ok(())
}

/// Listens to consensus for the figures.
#[derive(Clone)]
pub(crate) struct Meter(pub(crate) Arc<Shared>);

impl Reporter for Meter {
    type Activity = Activity<Scheme, Digest>;

    fn report(&mut self, activity: Self::Activity) -> Feedback {
        match activity {
            Activity::Finalization(finalization) => {
                let view = finalization.proposal.round.view().get();
                self.0
                    .certified_final(from_digest(&finalization.proposal.payload), view);
            }
            Activity::Nullification(_) => self.0.count(|stats| stats.nullifications += 1),
            _ => {}
        }
        Feedback::Ok
    }
}
