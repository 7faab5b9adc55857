//! What happens between a channel and the chain: observations, deposits, claims, refunds. The caller talks to the chain.

use super::{
    Channel, ChannelError, Channels,
    record::{ChainState, DepositRecord, DepositState, PendingRefund, SentClaim},
};
use crate::{
    channel::{ChannelConfig, ClaimEntry, Voucher},
    journal::Commit,
    x402::{BatchAction, BatchPayload, SignedDeposit},
};
use alloy_primitives::{B256, Bytes, U256};
use opg_primitives::money::Amount;

/// Deposits kept per channel, finished ones included: what is kept is not taken a second time.
const MAX_DEPOSITS: usize = 8;

/// One row of the contract's `claim`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRow {
    /// The channel.
    pub config: ChannelConfig,
    /// Identity, ceiling and total, as the receiver's authorizer signs them.
    pub entry: ClaimEntry,
    /// Signature of the voucher, with the `v` that the contract needs.
    pub signature: Bytes,
}

/// A refund to be sent: first the claim of what is owed, then the rest to the payer, in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefundPlan {
    /// Goes back to the payer.
    pub amount: Amount,
    /// The channel's refund counter.
    pub nonce: U256,
    /// Claimed before, if anything is owed.
    pub claim: Option<ClaimRow>,
}

impl Channels {
    /// The channel was read from the chain. Balances count from here on, so the caller reads at the depth that it trusts; a smaller
    /// balance than before (a reorganised deposit) counts as well. `None` if nothing changed, so that nothing is written.
    ///
    /// # Errors
    /// The channel is not known.
    pub fn observe(&self, id: B256, chain: ChainState, now: u64) -> Result<Option<Commit>, ChannelError> {
        self.journal.health()?;
        let mut shard = self.shard(id);
        let channel = shard.get_mut(&id).ok_or(ChannelError::Unknown(id))?;
        let before = (
            channel.slow.chain,
            channel.slow.claim,
            channel.slow.refund,
            channel.hot.unclaimed_since,
        );
        let charged = channel.hot.charged;
        apply(channel, chain, now);
        let after = (
            channel.slow.chain,
            channel.slow.claim,
            channel.slow.refund,
            channel.hot.unclaimed_since,
        );
        let changed = before != after || charged != channel.hot.charged;
        Ok(changed.then(|| self.write_slow(id, channel, true)))
    }

    /// Takes a deposit into the books before it is sent: `check` says whether the payer signed it (see
    /// [`Deposit::verify`](crate::channel::Deposit::verify); for a contract wallet, the chain said so). A copy gives the state of the first; see [`DepositState`] for what to do.
    ///
    /// # Errors
    /// Unknown channel, wrong signature, or too many deposits on their way.
    pub fn begin_deposit(
        &self,
        deposit: &SignedDeposit,
        check: impl FnOnce(&SignedDeposit) -> bool,
    ) -> Result<(DepositState, Commit), ChannelError> {
        let id = deposit.deposit.channel_id;
        let key = deposit.deposit.nonce();
        if !check(deposit) {
            return Err(ChannelError::Deposit(key));
        }
        self.change(id, |channel| {
            let config = &channel.slow.config;
            if config.payer != deposit.deposit.payer || config.token != deposit.deposit.token {
                return Err(ChannelError::Config(id));
            }
            let deposits = &mut channel.slow.deposits;
            if let Some(known) = deposits.iter().find(|known| known.key() == key) {
                // The chain spends a nonce once; another amount under it is not this deposit.
                return if known.deposit == deposit.deposit {
                    Ok(known.state)
                } else {
                    Err(ChannelError::Deposit(key))
                };
            }
            if deposits.len() >= MAX_DEPOSITS {
                let over = |d: &DepositRecord| matches!(d.state, DepositState::Confirmed { .. } | DepositState::Failed);
                let oldest = deposits.iter().position(over).ok_or(ChannelError::Deposit(key))?;
                deposits.remove(oldest);
            }
            deposits.push(DepositRecord {
                deposit: deposit.deposit,
                signature: deposit.signature.clone(),
                state: DepositState::Pending,
            });
            Ok(DepositState::Pending)
        })
        .map(|(commit, state)| (state, commit))
    }

    /// Deposits that are not finished, oldest first in each channel: what a restart has to send or look up.
    #[must_use]
    pub fn open_deposits(&self) -> Vec<DepositRecord> {
        let open = |d: &&DepositRecord| matches!(d.state, DepositState::Pending | DepositState::Sent { .. });
        let mut all = Vec::new();
        for shard in &self.shards {
            for channel in super::lock(shard).values() {
                all.extend(channel.slow.deposits.iter().filter(open).cloned());
            }
        }
        all
    }

    /// The deposit is about to be broadcast in `tx`. Wait for the commit before broadcasting.
    ///
    /// # Errors
    /// It is not pending.
    pub fn deposit_sent(&self, id: B256, key: B256, tx: B256) -> Result<Commit, ChannelError> {
        self.deposit_state(id, key, |state| {
            (state == DepositState::Pending).then_some(DepositState::Sent { tx })
        })
    }

    /// Transaction `tx` is known not to have carried it: it may be sent again.
    ///
    /// # Errors
    /// It was not sent, or in another transaction, or is confirmed.
    pub fn deposit_returned(&self, id: B256, key: B256, tx: B256) -> Result<Commit, ChannelError> {
        self.deposit_state(id, key, |state| {
            (state == DepositState::Sent { tx }).then_some(DepositState::Pending)
        })
    }

    /// The chain will never accept it (expired, nonce used for something else).
    ///
    /// # Errors
    /// It is confirmed.
    pub fn deposit_failed(&self, id: B256, key: B256) -> Result<Commit, ChannelError> {
        self.deposit_state(id, key, |state| {
            (!matches!(state, DepositState::Confirmed { .. })).then_some(DepositState::Failed)
        })
    }

    /// The deposit is in the channel, which was read afterwards as `chain`.
    ///
    /// # Errors
    /// The deposit is not known.
    pub fn deposit_confirmed(&self, id: B256, key: B256, chain: ChainState, now: u64) -> Result<Commit, ChannelError> {
        self.change(id, |channel| {
            let state = find_deposit(channel, key)?;
            let tx = match *state {
                DepositState::Sent { tx } => Some(tx),
                DepositState::Confirmed { tx } => tx,
                _ => None,
            };
            *state = DepositState::Confirmed { tx };
            apply(channel, chain, now);
            Ok(())
        })
        .map(|(commit, ())| commit)
    }

    fn deposit_state(
        &self,
        id: B256,
        key: B256,
        change: impl FnOnce(DepositState) -> Option<DepositState>,
    ) -> Result<Commit, ChannelError> {
        self.change(id, |channel| {
            let state = find_deposit(channel, key)?;
            *state = change(*state).ok_or(ChannelError::Deposit(key))?;
            Ok(())
        })
        .map(|(commit, ())| commit)
    }

    /// Rows for a claim of everything that is owed on these channels; channels that owe nothing or have a claim in flight give none.
    ///
    /// # Errors
    /// A stored voucher does not belong to its channel: the file was tampered with.
    pub fn claim_rows(&self, ids: &[B256]) -> Result<Vec<ClaimRow>, ChannelError> {
        let mut rows = Vec::with_capacity(ids.len());
        for id in ids {
            let shard = self.shard(*id);
            let Some(channel) = shard.get(id).filter(|channel| channel.slow.claim.is_none()) else {
                continue;
            };
            // The signature is checked outside the lock: this is not the hot path, but it shares its locks.
            let (slow, hot) = (channel.slow.clone(), channel.hot.clone());
            drop(shard);
            rows.extend(self.claim_row(*id, &slow, &hot)?);
        }
        Ok(rows)
    }

    fn claim_row(&self, id: B256, slow: &super::Slow, hot: &super::Hot) -> Result<Option<ClaimRow>, ChannelError> {
        // After a reorganisation the channel may hold less than is owed.
        let total = hot.charged.min(slow.chain.balance);
        if total <= slow.chain.total_claimed || hot.signature.is_empty() {
            return Ok(None);
        }
        let voucher = Voucher {
            channel_id: id,
            max_claimable: hot.ceiling,
        };
        let signature = voucher
            .for_chain(&self.domain, &hot.signature, slow.config.payer_authorizer)
            .map_err(|problem| ChannelError::Stored { channel: id, problem })?;
        Ok(Some(ClaimRow {
            config: slow.config,
            entry: ClaimEntry {
                channel_id: id,
                max_claimable: hot.ceiling,
                total_claimed: total,
            },
            signature: signature.to_vec().into(),
        }))
    }

    /// A claim is about to be broadcast in `tx`. Wait for the last commit before broadcasting.
    ///
    /// # Errors
    /// A channel is not known or has a claim in flight; the rows before it are marked.
    pub fn claims_sent(&self, rows: &[ClaimRow], tx: B256) -> Result<Vec<Commit>, ChannelError> {
        let mark = |row: &ClaimRow| {
            let id = row.entry.channel_id;
            self.change(id, |channel| {
                if channel.slow.claim.is_some() {
                    return Err(ChannelError::State {
                        channel: id,
                        to: "claimed",
                    });
                }
                channel.slow.claim = Some(SentClaim {
                    tx,
                    total: row.entry.total_claimed,
                });
                Ok(())
            })
            .map(|(commit, ())| commit)
        };
        rows.iter().map(mark).collect()
    }

    /// Claims whose transaction has no known outcome: read the channel; [`observe`](Self::observe) ends those that landed.
    #[must_use]
    pub fn uncertain_claims(&self) -> Vec<(B256, SentClaim)> {
        let mut all = Vec::new();
        for shard in &self.shards {
            for (id, channel) in super::lock(shard).iter() {
                all.extend(channel.slow.claim.map(|claim| (*id, claim)));
            }
        }
        all
    }

    /// Transaction `tx` is known not to have claimed: the channel may be claimed again. Claims are totals, so one that lands twice
    /// takes nothing twice.
    ///
    /// # Errors
    /// The channel has no claim in that transaction.
    pub fn claim_returned(&self, id: B256, tx: B256) -> Result<Commit, ChannelError> {
        self.change(id, |channel| match channel.slow.claim {
            Some(claim) if claim.tx == tx => {
                channel.slow.claim = None;
                Ok(())
            }
            _ => Err(ChannelError::State {
                channel: id,
                to: "unclaimed",
            }),
        })
        .map(|(commit, ())| commit)
    }

    /// Agrees to a refund: the channel serves nothing until it is seen on chain or returned.
    ///
    /// # Errors
    /// Calls in flight, another count than the client's, nothing left, or more asked than is left.
    pub fn begin_refund(&self, payload: &BatchPayload) -> Result<(RefundPlan, Commit), ChannelError> {
        let BatchAction::Refund(asked) = payload.action else {
            return Err(ChannelError::State {
                channel: payload.voucher.voucher.channel_id,
                to: "refunded",
            });
        };
        let voucher = &payload.voucher;
        let id = voucher.voucher.channel_id;
        voucher
            .voucher
            .recover(&self.domain, &voucher.signature, payload.config.payer_authorizer)
            .map_err(|problem| ChannelError::Signature { channel: id, problem })?;
        let mut plan = None;
        let (commit, ()) = self.change(id, |channel| {
            if channel.slow.config != payload.config {
                return Err(ChannelError::Config(id));
            }
            if !channel.running.is_empty() || channel.slow.refund.is_some() {
                return Err(ChannelError::Busy(id));
            }
            let (expected, got) = (channel.hot.reported, voucher.voucher.max_claimable);
            if got != expected {
                return Err(ChannelError::Mismatch {
                    expected: expected.wei(),
                    got: got.wei(),
                    state: Box::new(channel.state(id)),
                    voucher: channel.voucher().map(Box::new),
                });
            }
            let left = channel.slow.chain.balance.saturating_sub(channel.hot.charged);
            let amount = asked.unwrap_or(left);
            if amount.is_zero() || amount > left {
                return Err(ChannelError::Refund {
                    got: amount.wei(),
                    left: left.wei(),
                });
            }
            let nonce = channel.slow.chain.refund_nonce;
            let claim = self.claim_row(id, &channel.slow, &channel.hot)?;
            channel.slow.refund = Some(PendingRefund {
                amount,
                nonce,
                tx: None,
            });
            plan = Some(RefundPlan { amount, nonce, claim });
            Ok(())
        })?;
        let plan = plan.ok_or(ChannelError::State {
            channel: id,
            to: "refunded",
        })?;
        Ok((plan, commit))
    }

    /// The refund is about to be broadcast in `tx`. Wait for the commit before broadcasting.
    ///
    /// # Errors
    /// No refund was agreed.
    pub fn refund_sent(&self, id: B256, tx: B256) -> Result<Commit, ChannelError> {
        self.change(id, |channel| match &mut channel.slow.refund {
            Some(refund) if refund.tx.is_none() => {
                refund.tx = Some(tx);
                Ok(())
            }
            _ => Err(ChannelError::State {
                channel: id,
                to: "refunded",
            }),
        })
        .map(|(commit, ())| commit)
    }

    /// The refund is known not to have happened, nor to happen any more: the channel serves again.
    ///
    /// # Errors
    /// No refund was agreed.
    pub fn refund_returned(&self, id: B256) -> Result<Commit, ChannelError> {
        self.change(id, |channel| {
            channel.slow.refund.take().map(drop).ok_or(ChannelError::State {
                channel: id,
                to: "serving",
            })
        })
        .map(|(commit, ())| commit)
    }

    /// Changes one channel and queues what has changed. A refused change must leave the channel as it was, or better.
    fn change<T>(
        &self,
        id: B256,
        change: impl FnOnce(&mut Channel) -> Result<T, ChannelError>,
    ) -> Result<(Commit, T), ChannelError> {
        self.journal.health()?;
        let mut shard = self.shard(id);
        let channel = shard.get_mut(&id).ok_or(ChannelError::Unknown(id))?;
        let value = change(channel)?;
        Ok((self.write_slow(id, channel, true), value))
    }
}

fn find_deposit(channel: &mut Channel, key: B256) -> Result<&mut DepositState, ChannelError> {
    let deposit = channel.slow.deposits.iter_mut().find(|d| d.key() == key);
    deposit.map(|d| &mut d.state).ok_or(ChannelError::Deposit(key))
}

fn apply(channel: &mut Channel, chain: ChainState, now: u64) {
    channel.slow.chain = chain;
    if channel
        .slow
        .claim
        .is_some_and(|claim| chain.total_claimed >= claim.total)
    {
        channel.slow.claim = None;
    }
    if channel
        .slow
        .refund
        .is_some_and(|refund| chain.refund_nonce > refund.nonce)
    {
        channel.slow.refund = None;
    }
    let hot = &mut channel.hot;
    // Claimed on chain but not in these books: an older file was restored. What is claimed was owed.
    if chain.total_claimed > hot.charged {
        hot.charged = chain.total_claimed;
        hot.reported = hot.reported.max(hot.charged);
    }
    if chain.total_claimed >= hot.charged {
        hot.unclaimed_since = 0;
    } else if hot.unclaimed_since == 0 {
        // A claim that was seen is gone again.
        hot.unclaimed_since = now.max(1);
    }
}
