//! The settling task: authorizations to the token, settled receipts to the ledger. Restart-safe: what is owed stands in the journal,
//! and the token's settlement slot, not a transaction's receipt, says what is paid (D2).

use crate::{
    chain::Chain,
    credit,
    funds::Funds,
    metrics::Metrics,
    payment::payment_id,
    permit::settlement_call,
    relay::{Landed, Relay, Signed},
    rpc::RpcError,
    store::{Pending, Stage, Store},
    time::unix_seconds,
};
use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolCall as _;
use opg_contracts::{
    Multicall3, addresses,
    bindings::{FeeVault, ReceiptLedger},
    state::{Settlement, Spent},
};
use opg_payments::{
    journal::Commit,
    permit2::{Permit, Witness},
    reserve::{Key, Money, Record, Reservations},
};
use opg_primitives::ids::NodeId;
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Authorizations of one transaction: each may use 400,000 gas inside the vault, and 16M is the limit of a transaction (EIP-7825).
const BATCH: usize = 32;
const GAS_BASE: u64 = 300_000;
const GAS_PER_AUTHORIZATION: u64 = 470_000;
/// One payment by Permit2, with a new nonce word, new slots and a margin for a contract wallet's check.
const GAS_PER_PERMIT: u64 = 600_000;
/// Permits of one transaction, and what each may use; 16M is the limit of a transaction (EIP-7825). `Multicall3` hands all gas that is left to a call, so
/// one that burns it takes those after it along: what failed once is sent alone.
const PERMIT_BATCH: usize = 24;
const GAS_PER_BATCHED_PERMIT: u64 = 600_000;
/// Receipts credited by one transaction.
const CREDIT_BATCH: usize = 24;
const GAS_PER_CREDIT: u64 = 600_000;
/// Time between two looks at transactions in flight.
const POLL: Duration = Duration::from_millis(150);
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// The chain's clock may be this much behind ours before an authorization counts as expired.
const CLOCK_MARGIN: u64 = 10;

/// Outcome of a settlement before work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SettleOutcome {
    /// The money is in the deposit address or the vault.
    Settled { tx: B256 },
    /// It is not, and this authorization was not used.
    Failed,
    /// The ledger has a receipt for this payment already, so nothing was sent.
    Spent,
}

/// Asks for a settlement before work.
#[derive(Debug)]
pub(crate) struct SettleNow {
    pub(crate) key: Key,
    pub(crate) reply: oneshot::Sender<SettleOutcome>,
}

/// Another transaction of the settlement account, for whoever has no account of its own.
pub(crate) struct Relayed {
    pub(crate) to: Address,
    pub(crate) data: Vec<u8>,
    pub(crate) gas: u64,
    /// Books the hash before the transaction is sent; the writes are waited for. If it refuses, nothing is sent.
    pub(crate) record: Option<RecordSent>,
    /// Told what became of it.
    pub(crate) reply: oneshot::Sender<Fate>,
}

/// Books the hash of a transaction that is about to be sent.
pub(crate) type RecordSent = Box<dyn FnOnce(B256) -> Result<Vec<Commit>, String> + Send>;

/// What became of a transaction for somebody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// In a block.
    Included {
        /// Its hash.
        tx: B256,
        /// Whether it succeeded.
        success: bool,
    },
    /// It is in no block and never will be.
    Never,
}

impl Fate {
    /// Whether it was included and succeeded.
    pub(crate) const fn succeeded(self) -> bool {
        matches!(self, Self::Included { success: true, .. })
    }
}

enum Task {
    Settle(Vec<Key>),
    Credit(Vec<Pending>),
    Relay(oneshot::Sender<Fate>),
}

struct Retry {
    at: Instant,
    wait: Duration,
}

pub(crate) struct Settler {
    pub(crate) chain: Chain,
    pub(crate) relay_key: opg_payments::signature::SecretKey,
    pub(crate) chain_id: u64,
    pub(crate) node_id: NodeId,
    pub(crate) payee: Address,
    pub(crate) reservations: Arc<Reservations>,
    pub(crate) store: Arc<Store>,
    pub(crate) funds: Arc<Funds>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) interval: Duration,
    /// Transactions of others.
    pub(crate) relayed: mpsc::Receiver<Relayed>,
}

struct State {
    relay: Relay<Task>,
    urgent: Vec<Key>,
    waiting: HashMap<Key, oneshot::Sender<SettleOutcome>>,
    retries: HashMap<Key, Retry>,
    /// Landed, slot not read yet.
    unresolved: Vec<(B256, Key)>,
    credit_retry: HashMap<u64, Retry>,
    /// Transactions of others that wait for room.
    relayed: VecDeque<Relayed>,
}

impl Settler {
    /// Runs until `stop`, then finishes what is in flight for at most a few seconds.
    pub(crate) async fn run(mut self, mut commands: mpsc::Receiver<SettleNow>, stop: CancellationToken) {
        let mut state = State {
            relay: Relay::new(self.chain.clone(), self.relay_key, self.chain_id),
            urgent: Vec::new(),
            waiting: HashMap::new(),
            retries: HashMap::new(),
            unresolved: Vec::new(),
            credit_retry: HashMap::new(),
            relayed: VecDeque::new(),
        };
        // What was in flight when the process ended: the slot tells.
        state.unresolved = self
            .reservations
            .uncertain()
            .into_iter()
            .filter_map(|r| Some((sent_in(&r)?, r.key())))
            .collect();
        let mut next_batch = Instant::now() + self.interval;
        loop {
            let pause = if state.relay.is_empty() && state.unresolved.is_empty() {
                next_batch.saturating_duration_since(Instant::now())
            } else {
                POLL
            };
            tokio::select! {
                () = stop.cancelled() => break,
                command = commands.recv() => match command {
                    Some(command) => accept(&mut state, command),
                    None => break,
                },
                Some(relayed) = self.relayed.recv() => state.relayed.push_back(relayed),
                () = tokio::time::sleep(pause) => {}
            }
            while let Ok(command) = commands.try_recv() {
                accept(&mut state, command);
            }
            self.follow(&mut state).await;
            let due = Instant::now() >= next_batch;
            if due {
                next_batch = Instant::now() + self.interval;
            }
            if due || !state.urgent.is_empty() {
                self.launch_settlements(&mut state, due).await;
            }
            self.launch_relayed(&mut state).await;
            if due {
                self.launch_credits(&mut state).await;
                self.reservations.prune();
                state.retries.retain(|_, retry| retry.at + MAX_BACKOFF > Instant::now());
                state
                    .credit_retry
                    .retain(|_, retry| retry.at + MAX_BACKOFF > Instant::now());
            }
        }
        let patience = Instant::now() + Duration::from_secs(4);
        while !(state.relay.is_empty() && state.unresolved.is_empty()) && Instant::now() < patience {
            self.follow(&mut state).await;
            tokio::time::sleep(POLL).await;
        }
    }

    /// Looks at what is in flight and records what is known about it.
    async fn follow(&self, state: &mut State) {
        for (signed, task, landed) in state.relay.poll().await {
            let failed = landed != Landed::Included { success: true };
            if failed {
                tracing::warn!(tx = %signed.hash, ?landed, "a settlement transaction did not succeed");
            }
            match task {
                Task::Settle(keys) => state.unresolved.extend(keys.into_iter().map(|key| (signed.hash, key))),
                // The ledger is asked again at the next batch; whoever is credited by then leaves the outbox.
                Task::Credit(entries) if failed => {
                    for entry in entries {
                        back_off(&mut state.credit_retry, entry.seq);
                    }
                }
                Task::Credit(_) => {}
                Task::Relay(reply) => {
                    // Nobody may be waiting any more.
                    let _ = reply.send(match landed {
                        Landed::Included { success } => Fate::Included {
                            tx: signed.hash,
                            success,
                        },
                        Landed::Never => Fate::Never,
                    });
                }
            }
        }
        for (tx, key) in std::mem::take(&mut state.unresolved) {
            if let Err(error) = self.resolve(state, tx, key).await {
                tracing::debug!(%error, %key, "cannot read a settlement slot");
                state.unresolved.push((tx, key));
            }
        }
    }

    /// Reads the token's slot: the only thing that says whether a payment was taken.
    async fn resolve(&self, state: &mut State, tx: B256, key: Key) -> Result<(), RpcError> {
        let record = match self.reservations.get(key) {
            Ok(Some(record)) => record,
            _ => return Ok(()),
        };
        let amount = record.due();
        let slot = match &record.permit {
            Some(permit) => self.chain.permit_settlement(permit).await?,
            None => self.chain.settlement(key.payer, key.nonce).await?,
        };
        let now = unix_seconds();
        let (word, outcome) = match slot {
            slot if slot.paid(self.payee, amount.wei()) => {
                self.funds.spent(key.payer, amount);
                (
                    self.reservations.settled(key, Some(tx)).map(|_| "settled"),
                    SettleOutcome::Settled { tx },
                )
            }
            Settlement::Unused if now < record.authorization.valid_before.saturating_add(CLOCK_MARGIN) => {
                if self.still_pending(tx).await? {
                    // Only after a restart: a full node still holds the old transaction.
                    state.unresolved.push((tx, key));
                    return Ok(());
                }
                back_off(&mut state.retries, key);
                (self.reservations.returned(key).map(|_| "failed"), SettleOutcome::Failed)
            }
            _ => (
                self.reservations.defaulted(key, now).map(|_| "defaulted"),
                SettleOutcome::Failed,
            ),
        };
        match word {
            Ok(word) => {
                self.metrics.settlement(word);
                if word != "settled" {
                    tracing::warn!(%key, outcome = word, "a payment was not settled");
                }
            }
            Err(error) => tracing::debug!(%error, "settlement already recorded"),
        }
        if let Some(reply) = state.waiting.remove(&key) {
            let _ = reply.send(outcome);
        }
        Ok(())
    }

    async fn still_pending(&self, tx: B256) -> Result<bool, RpcError> {
        let found = self
            .chain
            .rpc()
            .call("eth_getTransactionByHash", serde_json::json!([tx]))
            .await?;
        Ok(!found.is_null() && found["blockNumber"].is_null())
    }

    async fn launch_settlements(&self, state: &mut State, with_served: bool) {
        if state.relay.is_full() {
            return;
        }
        let now = Instant::now();
        let mut records: Vec<Record> = Vec::new();
        for key in std::mem::take(&mut state.urgent) {
            match self.reservations.get(key) {
                Ok(Some(record)) if record.money == Money::Open => records.push(record),
                // Settled by somebody else, or given up by its request.
                _ => drop(state.waiting.remove(&key)),
            }
        }
        if with_served {
            // What is not proven yet may never earn its payment.
            let unproven = self.store.unproven_payments();
            let due = |r: &Record| {
                let key = r.key();
                !unproven.contains(&key) && state.retries.get(&key).is_none_or(|retry| retry.at <= now)
            };
            let some = self.reservations.unsettled(4 * BATCH + unproven.len());
            records.extend(some.into_iter().filter(due));
        }
        self.give_up_expired(&mut records);
        state.urgent = records
            .split_off(records.len().min(BATCH))
            .iter()
            .filter(|r| r.settle_first)
            .map(Record::key)
            .collect();
        let sent = match self.refuse_spent(state, &mut records).await {
            Ok(()) => self.send_settlements(state, &records).await,
            Err(error) => Err(error),
        };
        if let Err(error) = sent {
            tracing::warn!(%error, "settlements wait");
            // Those who wait for a settlement give up by themselves; the others come again with the next batch.
            state
                .urgent
                .extend(records.iter().filter(|r| r.settle_first).map(Record::key));
        }
    }

    /// What can never be settled any more is lost; the token would refuse it, so no gas is spent on it.
    fn give_up_expired(&self, records: &mut Vec<Record>) {
        let now = unix_seconds();
        records.retain(|record| {
            let expired = record.authorization.valid_before.saturating_add(CLOCK_MARGIN) <= now;
            if expired && self.reservations.defaulted(record.key(), now).is_ok() {
                self.metrics.settlement("defaulted");
                tracing::warn!(key = %record.key(), amount = %record.amount, "a payment expired before it could be settled");
            }
            !expired
        });
    }

    /// Takes out what was to be settled before its work and has a receipt in the ledger already: one payment is spent by one
    /// receipt, so this money could never be credited for new work. The journal does not know of that receipt if it was lost, or
    /// if the payer signed the same nonce for another node.
    async fn refuse_spent(&self, state: &mut State, records: &mut Vec<Record>) -> Result<(), RpcError> {
        let first = records.iter().filter(|r| r.settle_first);
        let (keys, ids): (Vec<Key>, Vec<B256>) = first.map(|r| (r.key(), payment_id(r).0)).unzip();
        let looks = ids.into_iter().map(|id| self.chain.spent(id));
        let found = futures::future::try_join_all(looks).await?;
        for (key, spent) in keys.into_iter().zip(found) {
            if spent == Spent::Unspent {
                continue;
            }
            records.retain(|record| record.key() != key);
            self.metrics.settlement("spent");
            tracing::warn!(%key, ?spent, "a payment has a receipt in the ledger already and is not settled");
            if let Some(reply) = state.waiting.remove(&key) {
                let _ = reply.send(SettleOutcome::Spent);
            }
        }
        Ok(())
    }

    /// Authorizations go together through the vault, exact permits together through `Multicall3`. Permits of scheme upto go one by one
    /// through their proxy, which takes them from their facilitator only: a contract in between would have to be the facilitator, and one
    /// that anybody can call would let anybody charge the whole amount.
    async fn send_settlements(&self, state: &mut State, records: &[Record]) -> Result<(), RpcError> {
        let (permits, authorizations): (Vec<Record>, Vec<Record>) =
            records.iter().cloned().partition(|record| record.permit.is_some());
        if !authorizations.is_empty() {
            self.send_settlement(state, &authorizations).await?;
        }
        let (exact, alone): (Vec<Record>, Vec<Record>) = permits
            .into_iter()
            .partition(|record| may_be_batched(record) && !state.retries.contains_key(&record.key()));
        for batch in exact.chunks(PERMIT_BATCH) {
            // What there is no room for comes with the next batch: its work is done, nobody waits for it.
            if state.relay.is_full() {
                break;
            }
            match batch {
                [record] => self.send_permit(state, record).await?,
                _ => self.send_permits(state, batch).await?,
            }
        }
        for record in &alone {
            if state.relay.is_full() {
                // The rest comes with the next batch; who waits for it stays in the queue.
                state.urgent.extend(record.settle_first.then(|| record.key()));
                continue;
            }
            self.send_permit(state, record).await?;
        }
        Ok(())
    }

    async fn send_permit(&self, state: &mut State, record: &Record) -> Result<(), RpcError> {
        let (key, due) = (record.key(), record.due());
        if due.is_zero() {
            // Nothing is owed: the permit is never used.
            if let Err(error) = self.reservations.forgive(key) {
                tracing::debug!(%error, %key, "a permit over nothing stays as it is");
            }
            return Ok(());
        }
        let call = record
            .permit
            .as_ref()
            .and_then(|permit| settlement_call(permit, due, &record.signature));
        let Some((to, data)) = call else { return Ok(()) };
        let signed = state.relay.sign(to, data, GAS_PER_PERMIT).await?;
        let Ok(commit) = self.reservations.sent(key, signed.hash) else {
            tracing::debug!(%key, "a payment was given up before it was sent");
            return Ok(());
        };
        commit.durable().await.map_err(|error| RpcError::Unreachable {
            problem: error.to_string(),
        })?;
        self.send(state, signed, Task::Settle(vec![key])).await;
        Ok(())
    }

    /// Several permits in one transaction. One that fails takes none of the others down: the slots say which were settled.
    async fn send_permits(&self, state: &mut State, records: &[Record]) -> Result<(), RpcError> {
        let calls = records.iter().filter_map(|record| {
            let permit = record.permit.as_ref()?;
            let (target, call_data) = settlement_call(permit, record.due(), &record.signature)?;
            Some(Multicall3::Call3 {
                target,
                allowFailure: true,
                callData: call_data.into(),
            })
        });
        let data = Multicall3::aggregate3Call { calls: calls.collect() }.abi_encode();
        let gas = GAS_BASE + GAS_PER_BATCHED_PERMIT * records.len() as u64;
        let signed = state.relay.sign(addresses::MULTICALL3, data, gas).await?;
        self.book_and_send(state, records, signed).await
    }

    async fn send_settlement(&self, state: &mut State, records: &[Record]) -> Result<(), RpcError> {
        let authorizations = records
            .iter()
            .map(|record| FeeVault::Authorization {
                from: record.authorization.from,
                nodeId: self.node_id.0,
                value: record.authorization.value,
                validAfter: U256::from(record.authorization.valid_after),
                validBefore: U256::from(record.authorization.valid_before),
                nonce: record.authorization.nonce,
                signature: record.signature.clone(),
            })
            .collect();
        let data = FeeVault::settleCall { authorizations }.abi_encode();
        let gas = GAS_BASE + GAS_PER_AUTHORIZATION * records.len() as u64;
        let signed = state.relay.sign(addresses::FEE_VAULT, data, gas).await?;
        self.book_and_send(state, records, signed).await
    }

    /// Sends a transaction that carries all of these, once each of them knows its hash.
    async fn book_and_send(&self, state: &mut State, records: &[Record], signed: Signed) -> Result<(), RpcError> {
        // The hash is on disk before the transaction is on the wire: whatever happens next, it can be reconciled.
        let mut last = None;
        let mut keys = Vec::new();
        for record in records {
            match self.reservations.sent(record.key(), signed.hash) {
                Ok(commit) => {
                    last = Some(commit);
                    keys.push(record.key());
                }
                Err(error) => tracing::debug!(%error, "a payment was given up before it was sent"),
            }
        }
        let Some(commit) = last else { return Ok(()) };
        if keys.len() < records.len() {
            // The transaction holds an authorization whose request gave up: it must not be used. Take the rest back.
            for key in keys {
                let _ = self.reservations.returned(key);
            }
            return Err(RpcError::Unreachable {
                problem: "a request gave up while its settlement was signed".into(),
            });
        }
        if let Err(error) = commit.durable().await {
            return Err(RpcError::Unreachable {
                problem: error.to_string(),
            });
        }
        self.send(state, signed, Task::Settle(keys)).await;
        Ok(())
    }

    async fn send(&self, state: &mut State, signed: Signed, task: Task) {
        let (hash, nonce) = (signed.hash, signed.nonce);
        state.relay.send(signed, task).await;
        tracing::debug!(tx = %hash, nonce, "transaction sent");
    }

    /// Sends what others wait for. Whoever is refused tries again by itself.
    async fn launch_relayed(&self, state: &mut State) {
        while !state.relay.is_full()
            && let Some(relayed) = state.relayed.pop_front()
        {
            let signed = match state.relay.sign(relayed.to, relayed.data, relayed.gas).await {
                Ok(signed) => booked(relayed.record, signed).await,
                Err(error) => Err(error.to_string()),
            };
            match signed {
                Ok(signed) => self.send(state, signed, Task::Relay(relayed.reply)).await,
                Err(error) => {
                    tracing::warn!(error, to = %relayed.to, "a transaction cannot be sent");
                    let _ = relayed.reply.send(Fate::Never);
                }
            }
        }
    }

    /// Tells the ledger about receipts whose payment settled after they were recorded.
    async fn launch_credits(&self, state: &mut State) {
        if state.relay.is_full() {
            return;
        }
        let now = Instant::now();
        let busy: Vec<u64> = state
            .relay
            .tasks()
            .flat_map(|task| match task {
                Task::Credit(entries) => entries.iter().map(|e| e.seq).collect(),
                Task::Settle(_) | Task::Relay(_) => Vec::new(),
            })
            .collect();
        let ready = self.store.outbox(4 * CREDIT_BATCH, |p| {
            matches!(p.stage, Stage::Final { .. })
                && p.payment.single().is_some()
                && !busy.contains(&p.seq)
                && state.credit_retry.get(&p.seq).is_none_or(|retry| retry.at <= now)
        });
        let mut entries = Vec::new();
        let mut calldata = Vec::new();
        for pending in ready {
            if calldata.len() == CREDIT_BATCH {
                break;
            }
            match credit::entry(&self.chain, &self.reservations, &self.store, &self.metrics, &pending).await {
                Ok(Some(entry)) => {
                    calldata.push(entry);
                    entries.push(pending);
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(%error, receipt = %pending.id, "cannot credit a receipt yet");
                    back_off(&mut state.credit_retry, pending.seq);
                }
            }
        }
        if entries.is_empty() {
            return;
        }
        let gas = GAS_BASE + GAS_PER_CREDIT * entries.len() as u64;
        let data = ReceiptLedger::creditSettledCall { entries: calldata }.abi_encode();
        match state.relay.sign(addresses::RECEIPT_LEDGER, data, gas).await {
            Ok(signed) => {
                for entry in &entries {
                    back_off(&mut state.credit_retry, entry.seq);
                }
                self.send(state, signed, Task::Credit(entries)).await;
            }
            Err(error) => tracing::warn!(%error, "credits wait"),
        }
    }
}

/// Whether a permit can be settled by whoever calls its proxy, beside others. Contract wallets, which are settled first, could burn the others' gas.
fn may_be_batched(record: &Record) -> bool {
    let exact = |permit: &Permit| matches!(permit.witness, Witness::Exact { .. });
    record.permit.as_ref().is_some_and(exact) && !record.settle_first && !record.due().is_zero()
}

/// Has the hash of a transaction written before it is on the wire.
async fn booked(record: Option<RecordSent>, signed: Signed) -> Result<Signed, String> {
    if let Some(record) = record {
        for commit in record(signed.hash)? {
            commit.durable().await.map_err(|error| error.to_string())?;
        }
    }
    Ok(signed)
}

fn accept(state: &mut State, command: SettleNow) {
    state.urgent.push(command.key);
    state.waiting.insert(command.key, command.reply);
}

fn sent_in(record: &Record) -> Option<B256> {
    match record.money {
        Money::Sent { tx } => Some(tx),
        _ => None,
    }
}

fn back_off<K: std::hash::Hash + Eq>(retries: &mut HashMap<K, Retry>, key: K) {
    let now = Instant::now();
    let retry = retries.entry(key).or_insert(Retry {
        at: now,
        wait: Duration::from_secs(1),
    });
    retry.at = now + retry.wait;
    retry.wait = (retry.wait * 2).min(MAX_BACKOFF);
}
