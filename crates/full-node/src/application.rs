//! The chain's application: builds, judges and executes blocks for consensus.
//!
//! A proposal holds only receipts that this node has verified. A vote is given only after every rule of ledger.md §10 holds
//! and the block was executed. A finalized block is acknowledged after execution and index have it.

use crate::{
    epochs::{self, Seats},
    evidence::Judged,
    gossip,
    index::{Row, RowMethod},
    invalid_votes::{self, InvalidBlock},
    pool::{Known, Room},
    shared::{Shared, unix_time},
    system::{self, Duties, SystemTxError},
    verify::{self, CheckError, Reject, Rule},
};
use alloy_primitives::{Address, B256, Bytes};
use opg_consensus::{
    BoxError, BoxFuture, ChainApplication, ChainBlock, EpochSet, Fault, Identity, ProofName, ProposeContext,
    ProposedBody, Verdict, VerifyContext, Vote,
};
use opg_contracts::{
    channel_tx::{self, BatchItem},
    governance::{self, BlockRules},
    seats::end_epoch_calldata,
    staking::{self, END_EPOCH_GAS, VERDICTS_GAS},
    system_tx, x402,
};
use opg_execution::{BuildRequest, EvmBlock, Execution, ExecutionError};
use opg_primitives::merkle;
use opg_receipt::SignedReceipt;
use rayon::prelude::*;
use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

/// Clocks of validators may differ by this much, in seconds.
const CLOCK_SKEW: u64 = 1;
/// How long a validator waits for the proofs of a proposal that it had to ask for, and how often it looks.
const PROOF_PATIENCE: Duration = Duration::from_millis(800);
const PROOF_POLL: Duration = Duration::from_millis(25);
/// Largest EVM block that is proposed, in bytes of RLP; the consensus codec takes a little more.
const MAX_EVM_BYTES: usize = opg_consensus::MAX_EVM_BYTES - 4_096;

/// Why a proposed block gets no vote.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlockError {
    /// A header field has another value than the rules give it.
    #[error("{field}: expected {expected}, got {got}")]
    Field {
        /// The field.
        field: &'static str,
        /// By the rules.
        expected: String,
        /// In the block.
        got: String,
    },
    /// The leader has no seat in the block's epoch.
    #[error("leader {0} is not a validator")]
    Leader(Identity),
    /// This node does not know the seats of the block's epoch.
    #[error("the seats of epoch {0} are not known here")]
    Seats(u64),
    /// A receipt does not check.
    #[error("receipt {index}: {reject}")]
    Receipt {
        /// Its position.
        index: usize,
        /// The rule.
        reject: Reject,
    },
    /// The batch needs more than half of the block's gas.
    #[error("{got} receipts, expected at most {expected}: system transactions may use half of the block's gas")]
    SystemGas {
        /// Receipts that fit.
        expected: usize,
        /// Receipts in the block.
        got: usize,
    },
    /// A system transaction is not the recomputed one.
    #[error(transparent)]
    SystemTransaction(#[from] SystemTxError),
    /// A system account signed something else.
    #[error("transaction {index} is sent by the system account {sender}")]
    SystemSender {
        /// Its position.
        index: usize,
        /// The account.
        sender: Address,
    },
    /// A system transaction reverted.
    #[error("system transaction {index} failed")]
    SystemReverted {
        /// Its position.
        index: usize,
    },
    /// Its timestamp is later than this machine's clock: it may become valid.
    #[error("timestamp {got} is in the future of this clock ({now})")]
    Future {
        /// This clock, Unix seconds.
        now: u64,
        /// The block's.
        got: u64,
    },
    /// Execution refuses the block, or has no verdict.
    #[error(transparent)]
    Execution(#[from] ExecutionError),
}

impl BlockError {
    /// Whether only the proof of an answer is missing.
    fn lacks_proof(&self) -> bool {
        matches!(self, Self::Receipt { reject, .. } if reject.rule == Rule::EvidenceMissing)
    }

    /// Whether every honest validator comes to the same verdict, at any time.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Future { .. } | Self::Seats(_) => false,
            Self::Execution(error) => error.is_invalid_block(),
            // The proof may still come.
            _ if self.lacks_proof() => false,
            _ => true,
        }
    }
}

fn field(field: &'static str, expected: impl ToString, got: impl ToString) -> BlockError {
    BlockError::Field {
        field,
        expected: expected.to_string(),
        got: got.to_string(),
    }
}

/// The application of one validator.
#[derive(Debug, Clone)]
pub(crate) struct Chain(pub(crate) Arc<Shared>);

impl Chain {
    /// Executes ancestors that this node lacks, oldest first. A quorum judged them; their execution is checked here.
    async fn catch_up(&self, missing: &[Arc<ChainBlock>]) -> Result<(), ExecutionError> {
        for block in missing {
            let evm = Execution::decode(&block.evm)?;
            self.0.execution.import(evm).await?;
        }
        Ok(())
    }

    async fn build(&self, context: ProposeContext) -> Result<ProposedBody, BoxError> {
        let node = &self.0;
        self.catch_up(&context.missing).await?;
        let parent = context.parent.evm_hash;
        // the EVM wants a strictly larger whole second than the parent's
        let earliest = node.execution.timestamp(parent).await?.saturating_add(1);
        tokio::time::sleep(std::time::Duration::from_secs(earliest).saturating_sub(unix_time())).await;
        let began = Instant::now();
        let timestamp = unix_time().as_secs().max(earliest);

        let rules = block_rules(node, parent, context.height)?;
        let shared = node.clone();
        let selected = tokio::task::spawn_blocking(move || {
            let state = shared.execution.state_at(parent)?;
            let room = Room {
                receipts: shared.limits.receipts_per_block,
                bytes: shared.limits.receipt_bytes_per_block,
                cost: rules.verification_budget,
            };
            shared.pool.select(&state, timestamp, room)
        })
        .await??;
        let judged = node.evidence.judged(node, parent).await?;
        let place = Place::of(
            node,
            context.leader,
            context.epoch,
            context.height,
            context.view,
            parent,
        )?;
        if place.leader != node.system_address {
            let (seat, key) = (place.leader, node.system_address);
            return Err(format!("the system account of this validator's seat is {seat}, its key is of {key}").into());
        }
        let mut selected = selected;
        let mut entries: Vec<_> = selected.iter().map(|(_, entry)| entry.clone()).collect();
        entries.truncate(channel_tx::fitting_prefix(&entries, place.batch_gas(&judged)));
        selected.truncate(entries.len());
        let proofs = node.pool.names(selected.iter().map(|(r, _)| r.as_ref()));
        let proofs = proofs.ok_or("a receipt has left the pool with its proof")?;
        let root = batch_root(context.height, selected.iter().map(|(r, _)| r.as_ref()));
        let nonce = node.execution.nonce_at(parent, node.system_address)?;
        let base_fee = node.execution.base_fee_next(parent)?;
        let (chain_id, height) = (node.rules.chain_id, context.height);
        let duties = place.duties(&judged);
        let system_txs = system::transactions(chain_id, height, nonce, base_fee, root, &entries, &duties)
            .into_iter()
            .map(|transaction| system::sign(transaction, &node.system_key))
            .collect();
        let request = BuildRequest {
            gas_target: Some(rules.gas_limit),
            system_txs,
            excluded_senders: system_senders(node, parent, &place.seats)?,
            extra_data: place.extra_data,
            max_block_bytes: MAX_EVM_BYTES,
            ..BuildRequest::new(parent, timestamp, node.system_address, root)
        };
        let built = node.execution.build(request).await?;
        node.metrics.build_block.observe(began.elapsed().as_secs_f64());
        let receipts = selected.iter().map(|(receipt, _)| receipt.cose().clone()).collect();
        Ok(ProposedBody {
            evm_hash: built.hash,
            evm: built.rlp,
            receipts,
            proofs,
        })
    }

    async fn judge(&self, context: &VerifyContext) -> Result<(), BoxError> {
        let node = &self.0;
        self.catch_up(&context.missing).await?;
        let (block, parent) = (&context.block, context.parent.evm_hash);
        let evm = Execution::decode(&block.evm).map_err(BlockError::Execution)?;
        check_header(&evm, block, parent, unix_time().as_secs())?;
        let place = Place::of(node, context.leader, context.epoch, block.height, context.view, parent)?;
        if evm.extra_data() != place.extra_data.as_ref() {
            let got = Bytes::copy_from_slice(evm.extra_data());
            return Err(field("extra_data (the view)", &place.extra_data, got).into());
        }
        let leader = place.leader;
        let place = Arc::new(place);
        if evm.coinbase() != leader {
            return Err(field("coinbase", leader, evm.coinbase()).into());
        }
        let rules = block_rules(node, parent, block.height)?;
        let gas_limit = node.execution.gas_limit_next(parent, rules.gas_limit)?;
        if evm.gas_limit() != gas_limit {
            return Err(field("gas_limit", gas_limit, evm.gas_limit()).into());
        }

        let judged = node.evidence.judged(node, parent).await?;
        let content = || {
            let (shared, block, evm) = (node.clone(), block.clone(), evm.clone());
            let (judged, place) = (judged.clone(), place.clone());
            tokio::task::spawn_blocking(move || {
                judge_content(
                    &shared,
                    &evm,
                    &block,
                    parent,
                    &judged,
                    &place,
                    rules.verification_budget,
                )
            })
        };
        let system_count = match content().await? {
            // Proofs travel beside blocks, and this one may have been faster.
            Err(error) if error.lacks_proof() && self.fetch_proofs(&block.proofs).await => content().await?,
            other => other,
        };
        let system_count = match system_count {
            Err(BlockError::Receipt { index, reject }) if reject.rule == Rule::EvidenceInvalid => {
                self.accuse(block, index);
                return Err(BlockError::Receipt { index, reject }.into());
            }
            other => other?,
        };

        node.execution
            .import(evm.clone())
            .await
            .map_err(BlockError::Execution)?;
        let statuses = node.execution.receipts(evm.hash()).await?;
        if let Some(index) = (0..system_count).find(|i| !statuses.get(*i).is_some_and(|r| r.success)) {
            return Err(BlockError::SystemReverted { index }.into());
        }
        let system_gas: u64 = statuses.iter().take(system_count).map(|r| r.gas_used).sum();
        if system_gas > evm.gas_limit() / 2 {
            return Err(field("system gas", format!("at most {}", evm.gas_limit() / 2), system_gas).into());
        }
        Ok(())
    }

    /// Keeps a block whose receipt `index` comes with an invalid proof, for the votes that it gets.
    fn accuse(&self, block: &ChainBlock, index: usize) {
        let Some(receipt) = block.receipts.get(index) else {
            return;
        };
        let core_hash = SignedReceipt::decode(receipt).map(|receipt| receipt.core_hash());
        let name = block.proofs.iter().find(|name| core_hash == Ok(name.core_hash));
        if let Some(name) = name
            && let Some(Known::Bad { artefact, .. }) = self.0.pool.known(name)
            && let Some(invalid) = InvalidBlock::new(block, *name, receipt.clone(), artefact)
        {
            invalid_votes::judged(&self.0, invalid);
        }
    }

    /// Asks for the proofs that a proposal names and that are not here, and waits a moment for them. Says whether all came.
    async fn fetch_proofs(&self, proofs: &[ProofName]) -> bool {
        let node = &self.0;
        let missing = node.pool.missing_proofs(proofs);
        gossip::request_proofs(node, &missing);
        let began = Instant::now();
        while began.elapsed() < PROOF_PATIENCE {
            tokio::time::sleep(PROOF_POLL).await;
            if node.pool.has_proofs(&missing) {
                return true;
            }
        }
        false
    }

    /// Keeps what a light client needs of the hand-over to `epoch`, as long as the state of its block is the newest: that of old
    /// blocks is not kept.
    async fn keep_handover(&self, epoch: u64) -> Result<(), BoxError> {
        let node = &self.0;
        if Some(node.execution.head().number) != epoch.checked_sub(1).and_then(|before| node.epochs.last(before)) {
            return Ok(());
        }
        let kept = epochs::handover(node, epoch).await?;
        let index = node.index.clone();
        tokio::task::spawn_blocking(move || index.keep_handover(epoch, &kept)).await??;
        Ok(())
    }

    async fn execute(&self, block: Arc<ChainBlock>) -> Result<(), BoxError> {
        let node = self.0.clone();
        let indexed = {
            let index = node.index.clone();
            tokio::task::spawn_blocking(move || index.height()).await??
        };
        let head = node.execution.head();
        if block.height <= indexed && block.height <= head.number {
            return Ok(());
        }
        let evm = Execution::decode(&block.evm)?;
        let timestamp = evm.timestamp();
        if block.height > head.number {
            node.execution.import(evm.clone()).await?;
        }
        // the index first: who hears of the block finds its receipts
        let shared = node.clone();
        let (height, hash, finalized) = (block.height, evm.hash(), block.clone());
        let decoded = tokio::task::spawn_blocking(move || -> Result<Vec<Arc<SignedReceipt>>, BoxError> {
            let decoded: Vec<_> = finalized
                .receipts
                .iter()
                .map(|bytes| SignedReceipt::decode(bytes).map(Arc::new))
                .collect::<Result<_, _>>()?;
            let artefacts = shared.pool.artefacts(&decoded, &finalized.proofs);
            if !artefacts.is_empty() {
                let oldest = timestamp.saturating_sub(shared.genesis.parameters.unbonding);
                shared.index.keep_artefacts(timestamp, &artefacts, oldest)?;
            }
            let state = shared.execution.state_at(hash)?;
            let recorded = |channel| x402::read_channel_sums(&state, channel).map(|sums| sums.recorded);
            shared
                .index
                .append(height, &rows(height, timestamp, &decoded, recorded)?)?;
            Ok(decoded)
        })
        .await??;
        if block.height > head.number {
            node.execution.finalize(evm.hash()).await?;
        }
        if let Some(epoch) = node.epochs.begins_after(block.height) {
            self.keep_handover(epoch).await?;
        }
        node.pool.finalized(&decoded, timestamp);
        node.metrics.receipts_final.inc_by(decoded.len() as u64);
        node.metrics.transactions_final.inc_by(evm.transaction_count() as u64);
        node.metrics.height.set(i64::try_from(block.height).unwrap_or(i64::MAX));
        Ok(())
    }
}

/// What a block's place in its epoch demands of it.
#[derive(Debug)]
struct Place {
    /// System account of the leader.
    leader: Address,
    seats: Arc<Seats>,
    extra_data: Bytes,
    /// Calldata of the last system transaction of the epoch's last block.
    end_epoch: Option<Bytes>,
}

impl Place {
    fn of(node: &Shared, leader: Identity, epoch: u64, height: u64, view: u64, parent: B256) -> Result<Self, BoxError> {
        let epochs = &node.epochs;
        let seats = epochs.seats(epoch).ok_or(BlockError::Seats(epoch))?;
        let leader = seats.leader(leader).ok_or(BlockError::Leader(leader))?;
        if !epochs.enabled() {
            return Ok(Self {
                leader,
                seats,
                extra_data: Bytes::new(),
                end_epoch: None,
            });
        }
        let end_epoch = match epochs.begins_after(height) {
            None => None,
            Some(_) => {
                let mut views = epochs.views(&node.execution, height, parent)?;
                views.push(view);
                Some(end_epoch_calldata(epoch, &seats.report(epoch, &views)))
            }
        };
        Ok(Self {
            leader,
            seats,
            extra_data: epochs::extra_data(view),
            end_epoch,
        })
    }

    fn duties<'a>(&'a self, judged: &'a Judged) -> Duties<'a> {
        Duties {
            judged,
            end_epoch: self.end_epoch.as_ref(),
        }
    }

    /// Gas that the batch may use: verdicts and the end of an epoch take their parts of the system's half.
    fn batch_gas(&self, judged: &Judged) -> u64 {
        let ending = if self.end_epoch.is_some() { END_EPOCH_GAS } else { 0 };
        let faults = if judged.faults.is_empty() { 0 } else { VERDICTS_GAS };
        system_tx::batch_gas(!judged.evidence.is_empty()).saturating_sub(ending + faults)
    }
}

/// The rules of a block: what governance has decided by the state of the parent. The contract takes no change for any of the next ten
/// heights, so what it says of this one stood before the parent.
fn block_rules(node: &Shared, parent: B256, height: u64) -> Result<BlockRules, ExecutionError> {
    let rules = governance::block_rules(&node.execution.state_at(parent)?, height)?;
    Ok(match rules.gas_limit {
        // a chain of before the contract
        0 => BlockRules {
            gas_limit: node.execution.gas_limit(),
            verification_budget: governance::VERIFICATION_BUDGET,
        },
        _ => rules,
    })
}

/// Header rules that need nothing but the block and its parent's hash.
fn check_header(evm: &EvmBlock, block: &ChainBlock, parent: B256, now: u64) -> Result<(), BlockError> {
    if evm.hash() != block.evm_hash {
        return Err(field("EVM hash", evm.hash(), block.evm_hash));
    }
    if evm.parent_hash() != parent {
        return Err(field("parent", parent, evm.parent_hash()));
    }
    if evm.number() != block.height {
        return Err(field("number", block.height, evm.number()));
    }
    if evm.timestamp() > now.saturating_add(CLOCK_SKEW) {
        return Err(BlockError::Future {
            now,
            got: evm.timestamp(),
        });
    }
    Ok(())
}

/// Senders in the pool whose transactions no block may hold: accounts that sign, signed or may come to sign system transactions
/// (D16).
fn system_senders(node: &Shared, parent: B256, seats: &Seats) -> Result<Arc<HashSet<Address>>, ExecutionError> {
    let state = node.execution.state_at(parent)?;
    let senders: HashSet<Address> = node.execution.pooled()?.into_iter().map(|tx| tx.sender).collect();
    let mut systems = HashSet::clone(seats.systems());
    for sender in senders {
        if staking::key_of_system(&state, sender)?.is_some() {
            systems.insert(sender);
        }
    }
    Ok(Arc::new(systems))
}

/// Receipts, batch root and system transactions. Returns the number of system transactions.
fn judge_content(
    node: &Shared,
    evm: &EvmBlock,
    block: &ChainBlock,
    parent: B256,
    judged: &Judged,
    place: &Place,
    budget: u64,
) -> Result<usize, BlockError> {
    let (leader, height) = (place.leader, block.height);
    let began = Instant::now();
    let state = node.execution.state_at(parent)?;
    let batch = node
        .pool
        .check_batch(&block.receipts, &block.proofs, &state, evm.timestamp())
        .map_err(|(index, error)| match error {
            CheckError::Rejected(reject) => BlockError::Receipt { index, reject },
            CheckError::State(error) => BlockError::Execution(error),
        })?;
    let cost: u64 = batch
        .iter()
        .map(|(receipt, _)| verify::cost(receipt.core().mode.served))
        .sum();
    if cost > budget {
        return Err(field(
            "cost of verifying the receipts",
            format!("at most {budget}"),
            cost,
        ));
    }
    let entries: Vec<BatchItem> = batch.iter().map(|(_, entry)| entry.clone()).collect();
    let fitting = channel_tx::fitting_prefix(&entries, place.batch_gas(judged));
    if fitting != entries.len() {
        return Err(BlockError::SystemGas {
            expected: fitting,
            got: entries.len(),
        });
    }
    let root = batch_root(height, batch.iter().map(|(r, _)| r.as_ref()));
    if evm.beacon_root() != Some(root) {
        return Err(field(
            "parent_beacon_block_root",
            root,
            evm.beacon_root().unwrap_or_default(),
        ));
    }
    let nonce = node.execution.nonce_at(parent, leader)?;
    let chain_id = node.rules.chain_id;
    let duties = place.duties(judged);
    let expected = system::transactions(chain_id, height, nonce, evm.base_fee(), root, &entries, &duties);
    for (index, transaction) in expected.iter().enumerate() {
        system::compare(index, evm.raw_transaction(index), transaction)?;
    }
    // recovering a sender costs 0.1 ms: spread over the verification threads
    let count = evm.transaction_count();
    let senders: Vec<Address> = node
        .pool
        .install(|| {
            (0..count)
                .into_par_iter()
                .with_min_len(16)
                .map(|i| evm.sender(i))
                .collect::<Result<_, _>>()
        })
        .map_err(BlockError::Execution)?;
    for (index, sender) in senders.into_iter().enumerate() {
        if index < expected.len() {
            if sender != leader {
                return Err(field("signer of a system transaction", leader, sender));
            }
        } else if place.seats.systems().contains(&sender) || staking::key_of_system(&state, sender)?.is_some() {
            return Err(BlockError::SystemSender { index, sender });
        }
    }
    node.metrics.verify_block.observe(began.elapsed().as_secs_f64());
    Ok(expected.len())
}

/// Batch root of receipts in batch order (ledger.md §9).
fn batch_root<'a>(height: u64, receipts: impl Iterator<Item = &'a SignedReceipt>) -> B256 {
    let hashes: Vec<B256> = receipts.map(|r| r.core_hash()).collect();
    // the codec bounds a block far below 2^32 receipts
    merkle::batch_root_of(height, &hashes).unwrap_or_default()
}

/// Index rows of a block's receipts.
///
/// `recorded` says what is recorded for a channel after the block.
fn rows<E>(
    height: u64,
    timestamp: u64,
    receipts: &[Arc<SignedReceipt>],
    recorded: impl Fn(B256) -> Result<u128, E>,
) -> Result<Vec<(B256, Row)>, E> {
    let count = u32::try_from(receipts.len()).unwrap_or(u32::MAX);
    (0u32..)
        .zip(receipts)
        .map(|(index, receipt)| {
            let core = receipt.core();
            let row = Row {
                height,
                index,
                count,
                timestamp,
                core_hash: receipt.core_hash(),
                node_id: core.node_id.0,
                keyset: core.keyset.0,
                seq: core.seq,
                model_root: core.model.served_root.0,
                mode: core.mode.served.code(),
                grade: core.mode.grade.code(),
                payer: core.payment.payer,
                nonce: core.payment.nonce,
                amount: core.payment.amount.0,
                charge: core.price.charge.0,
                payment_id: core.payment.id().0,
                method: RowMethod::of(&core.payment),
                recorded: match core.payment.channel {
                    Some(_) => recorded(core.payment.nonce)?,
                    None => 0,
                },
            };
            Ok((core.receipt_id.0, row))
        })
        .collect()
}

impl ChainApplication for Chain {
    fn has_state(&self, evm_hash: B256) -> BoxFuture<'_, Result<bool, BoxError>> {
        Box::pin(async move { Ok(self.0.execution.has_state(evm_hash)?) })
    }

    fn propose(&self, context: ProposeContext) -> BoxFuture<'_, Result<Option<ProposedBody>, BoxError>> {
        Box::pin(async move { self.build(context).await.map(Some) })
    }

    fn verify(&self, context: VerifyContext) -> BoxFuture<'_, Result<Verdict, BoxError>> {
        Box::pin(async move {
            let Err(error) = self.judge(&context).await else {
                return Ok(Verdict::Valid);
            };
            self.0.metrics.blocks_rejected.inc();
            tracing::warn!(height = context.block.height, leader = %context.leader, %error, "block gets no vote");
            match error.downcast_ref::<BlockError>() {
                Some(broken) if broken.is_final() => Ok(Verdict::Invalid(error.to_string())),
                _ => Err(error),
            }
        })
    }

    fn finalized(&self, block: Arc<ChainBlock>) -> BoxFuture<'_, Result<(), BoxError>> {
        Box::pin(async move { self.execute(block).await })
    }

    fn epoch_set(&self, epoch: u64) -> BoxFuture<'_, Result<EpochSet, BoxError>> {
        Box::pin(async move {
            // again, as a crash may have come between the block and this
            self.keep_handover(epoch).await?;
            let seats = self.0.epochs.read(&self.0.execution, epoch).await?;
            let mut set = seats.set();
            set.observers = self.0.epochs.observers(&self.0.execution, &seats);
            Ok(set)
        })
    }

    fn fault(&self, fault: Fault, evidence: Bytes) {
        tracing::error!(kind = %fault.kind, epoch = fault.epoch, view = fault.view, offender = %fault.offender, %evidence, "a validator broke the rules");
        let index = self.0.index.clone();
        // called from a thread of the engine's runtime, which must not wait for the disk
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || {
                if let Err(error) = index.keep_fault(&fault, &evidence, None) {
                    tracing::error!(%error, "evidence was not kept");
                }
            });
        }
    }

    fn voted(&self, vote: Vote) {
        invalid_votes::voted(&self.0, vote);
    }

    fn executed_height(&self) -> BoxFuture<'_, Result<u64, BoxError>> {
        Box::pin(async move {
            let index = self.0.index.clone();
            let indexed = tokio::task::spawn_blocking(move || index.height()).await??;
            Ok(indexed.min(self.0.execution.head().number))
        })
    }
}

#[cfg(test)]
mod tests;
