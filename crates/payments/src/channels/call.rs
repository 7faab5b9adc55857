//! One paid call: reserve, then commit or fail.

use super::{CALLS, Channel, ChannelError, Channels, Finished, HOT, MAX_IN_FLIGHT, REMEMBERED_CALLS};
use crate::{
    journal::Commit,
    signature::{SignatureError, SignerKey, address_of},
    x402::{BatchPayload, ChargeExtra, Identifier},
};
use alloy_primitives::B256;
use opg_primitives::money::Amount;
use redb::WriteTransaction;
use std::sync::atomic::Ordering;

/// Rule under which a call is admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One call in flight, `maxClaimableAmount == reported + amount`.
    Stock,
    /// As `Stock`, for a stream: the bound (less credit) is reported at once, because the header leaves before the cost is known.
    StockStream,
    /// Several calls in flight under one ceiling; every call with a ceiling of its own.
    Headroom,
}

/// A call that asks to be served.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Parsed payment.
    pub payload: &'a BatchPayload,
    /// The most that the call can cost: `amount` of the offer.
    pub bound: Amount,
    /// Rule.
    pub mode: Mode,
    /// For safe retries.
    pub identifier: Option<Identifier>,
}

/// Names a reserved call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Ticket {
    /// The channel.
    pub channel: B256,
    number: u64,
}

/// A call that may run. It must end with [`Channels::commit`] or [`Channels::fail`].
#[derive(Debug, Clone)]
#[must_use]
pub struct Reserved {
    /// The call.
    pub ticket: Ticket,
    /// For a stream: the `extra` of its header, to be sent once the commit is durable.
    pub streaming: Option<(ChargeExtra, Commit)>,
}

/// A call that was charged.
#[derive(Debug, Clone)]
pub struct Charged {
    /// Owed for this call.
    pub charge: Amount,
    /// `extra` of the settle response. For a stream it stands in the final event only: its header left before.
    pub extra: ChargeExtra,
    /// Resolves when voucher, charge and what the caller added survive a crash.
    pub commit: Commit,
}

#[derive(Debug, Clone)]
pub(super) struct Running {
    number: u64,
    pub(super) bound: Amount,
    mode: Mode,
    ceiling: Amount,
    identifier: Option<Identifier>,
    /// For a stream: what its header said.
    reported: Option<Amount>,
}

impl Channels {
    /// Verifies the voucher of a call and reserves its bound.
    ///
    /// # Errors
    /// See [`ChannelError`]. Nothing was charged.
    pub fn reserve(&self, call: &Call<'_>) -> Result<Reserved, ChannelError> {
        self.journal.health()?;
        let voucher = &call.payload.voucher;
        let id = voucher.voucher.channel_id;
        let key = {
            let shard = self.shard(id);
            let channel = shard.get(&id).ok_or(ChannelError::Unknown(id))?;
            if channel.slow.config != call.payload.config {
                return Err(ChannelError::Config(id));
            }
            // Cheap refusals come before the signature, outside the lock.
            channel.admit(id, call)?;
            channel.key
        };
        let key = self.check_signature(call, key)?;
        let mut shard = self.shard(id);
        let channel = shard.get_mut(&id).ok_or(ChannelError::Unknown(id))?;
        channel.admit(id, call)?;
        channel.key = Some(key);
        Ok(self.take(id, channel, call))
    }

    fn check_signature(&self, call: &Call<'_>, key: Option<SignerKey>) -> Result<SignerKey, ChannelError> {
        let voucher = &call.payload.voucher;
        let authorizer = call.payload.config.payer_authorizer;
        let checked = match key {
            Some(key) => voucher
                .voucher
                .verify(&self.domain, &voucher.signature, &key)
                .map(|()| key),
            None => voucher
                .voucher
                .recover(&self.domain, &voucher.signature, authorizer)
                .and_then(|key| match address_of(&key) {
                    got if got == authorizer => Ok(key),
                    got => Err(SignatureError::Signer {
                        expected: authorizer,
                        got,
                    }),
                }),
        };
        checked.map_err(|problem| ChannelError::Signature {
            channel: voucher.voucher.channel_id,
            problem,
        })
    }

    fn take(&self, id: B256, channel: &mut Channel, call: &Call<'_>) -> Reserved {
        let number = self.tickets.fetch_add(1, Ordering::Relaxed);
        let voucher = &call.payload.voucher;
        let ceiling = voucher.voucher.max_claimable;
        // A valid voucher is worth keeping whatever becomes of the call: only what is charged is ever claimed.
        if ceiling > channel.hot.ceiling || channel.hot.signature.is_empty() {
            channel.hot.ceiling = ceiling;
            channel.hot.signature = voucher.signature.clone();
        }
        let mut running = Running {
            number,
            bound: call.bound,
            mode: call.mode,
            ceiling,
            identifier: call.identifier,
            reported: None,
        };
        let mut streaming = None;
        match call.mode {
            Mode::Stock => {}
            Mode::StockStream => {
                let reported = reported(call.bound, channel.credit());
                channel.hot.reported = channel.hot.reported.saturating_add(reported);
                running.reported = Some(reported);
                let extra = ChargeExtra {
                    charged: reported,
                    channel_state: channel.state(id),
                };
                let hot = channel.hot.encode();
                let commit = self.journal.write(move |transaction| {
                    transaction.open_table(HOT)?.insert(id.0, hot.as_slice())?;
                    Ok(())
                });
                streaming = Some((extra, commit));
            }
            Mode::Headroom => {
                channel.used.insert(ceiling);
                if channel.used.len() > 2 * MAX_IN_FLIGHT
                    && let Some(lowest) = channel.used.pop_first()
                {
                    channel.floor = channel.floor.max(lowest);
                }
            }
        }
        channel.running.push(running);
        Reserved {
            ticket: Ticket { channel: id, number },
            streaming,
        }
    }

    /// Ends a call that was answered, whole or up to the client's hang-up, and costs `charge`; more than the bound counts as the
    /// bound. `result` names the answer for retries with a payment identifier; `extra` (the receipt) is written in the same
    /// transaction.
    ///
    /// # Errors
    /// The ticket is not one of a running call.
    pub fn commit(
        &self,
        ticket: Ticket,
        charge: Amount,
        result: B256,
        now: u64,
        extra: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error> + Send + 'static,
    ) -> Result<Charged, ChannelError> {
        let id = ticket.channel;
        let mut shard = self.shard(id);
        let unknown = || ChannelError::State {
            channel: id,
            to: "charged",
        };
        let channel = shard.get_mut(&id).ok_or_else(unknown)?;
        let at = channel
            .running
            .iter()
            .position(|running| running.number == ticket.number)
            .ok_or_else(unknown)?;
        let running = channel.running.swap_remove(at);
        let charge = charge.min(running.bound);
        let credit = channel.credit();
        let hot = &mut channel.hot;
        hot.charged = hot.charged.saturating_add(charge);
        let charged = running.reported.unwrap_or_else(|| {
            let reported = reported(charge, credit);
            hot.reported = hot.reported.saturating_add(reported);
            reported
        });
        if running.mode == Mode::Headroom {
            hot.headroom_floor = hot.headroom_floor.max(running.ceiling);
        }
        if hot.unclaimed_since == 0 && !charge.is_zero() {
            hot.unclaimed_since = now.max(1);
        }
        let bytes = hot.encode();
        let finished = running.identifier.map(|identifier| Finished {
            identifier,
            charged,
            cumulative: channel.hot.reported,
            result,
        });
        let slot = finished.map(|finished| (channel.remember(finished), finished.encode()));
        let commit = self.journal.write(move |transaction| {
            transaction.open_table(HOT)?.insert(id.0, bytes.as_slice())?;
            if let Some((slot, finished)) = slot {
                let mut key = [slot; 33];
                key[..32].copy_from_slice(&id.0);
                transaction.open_table(CALLS)?.insert(key, finished.as_slice())?;
            }
            extra(transaction)
        });
        Ok(Charged {
            charge,
            extra: ChargeExtra {
                charged,
                channel_state: channel.state(id),
            },
            commit,
        })
    }

    /// Ends a call that was not answered: nothing is charged. What a stream reported is credited to the next calls.
    ///
    /// # Errors
    /// The ticket is not one of a running call.
    pub fn fail(&self, ticket: Ticket) -> Result<(), ChannelError> {
        let mut shard = self.shard(ticket.channel);
        let running = shard.get_mut(&ticket.channel).and_then(|channel| {
            let at = channel.running.iter().position(|r| r.number == ticket.number)?;
            Some(channel.running.swap_remove(at))
        });
        running.map(drop).ok_or(ChannelError::State {
            channel: ticket.channel,
            to: "failed",
        })
    }
}

/// What the client is told for a cost of `cost` while it has `credit`: the cost less the credit, but at least one wei. So the
/// ceiling that a stock client must sign moves on with every charged call, and no header fits twice; the wei is credit again.
fn reported(cost: Amount, credit: Amount) -> Amount {
    cost.saturating_sub(credit).max(Amount(1)).min(cost)
}

impl Channel {
    /// Everything that can be said about a call without its signature.
    fn admit(&self, id: B256, call: &Call<'_>) -> Result<(), ChannelError> {
        if let Some(identifier) = &call.identifier {
            self.repeated(id, identifier)?;
        }
        if self.slow.refund.is_some() {
            return Err(ChannelError::Busy(id));
        }
        let ceiling = call.payload.voucher.voucher.max_claimable;
        match call.mode {
            Mode::Stock | Mode::StockStream => self.admit_stock(id, ceiling, call.bound)?,
            Mode::Headroom => self.admit_headroom(id, ceiling, call.bound)?,
        }
        let chain = &self.slow.chain;
        let (got, available) = (ceiling.wei(), chain.safe_balance().wei());
        if got <= available {
            Ok(())
        } else if chain.withdrawal.is_some() && ceiling <= chain.balance {
            Err(ChannelError::Withdrawing { got, available })
        } else {
            Err(ChannelError::Balance { got, available })
        }
    }

    fn repeated(&self, id: B256, identifier: &Identifier) -> Result<(), ChannelError> {
        if let Some(finished) = self.finished.iter().find(|f| f.identifier.id == identifier.id) {
            return Err(if finished.identifier.payment == identifier.payment {
                ChannelError::Duplicate(Box::new(*finished))
            } else {
                ChannelError::Conflict
            });
        }
        let running = self.running.iter().filter_map(|running| running.identifier);
        match running.into_iter().find(|other| other.id == identifier.id) {
            Some(other) if other.payment == identifier.payment => Err(ChannelError::Busy(id)),
            Some(_) => Err(ChannelError::Conflict),
            None => Ok(()),
        }
    }

    fn admit_stock(&self, id: B256, ceiling: Amount, bound: Amount) -> Result<(), ChannelError> {
        if !self.running.is_empty() {
            return Err(ChannelError::Busy(id));
        }
        let expected = self.hot.reported.saturating_add(bound);
        if ceiling != expected || (ceiling <= self.hot.headroom_floor && !ceiling.is_zero()) {
            return Err(ChannelError::Mismatch {
                expected: expected.wei(),
                got: ceiling.wei(),
                state: Box::new(self.state(id)),
                voucher: self.voucher().map(Box::new),
            });
        }
        Ok(())
    }

    fn admit_headroom(&self, id: B256, ceiling: Amount, bound: Amount) -> Result<(), ChannelError> {
        if self.running.len() >= MAX_IN_FLIGHT {
            return Err(ChannelError::Busy(id));
        }
        if ceiling <= self.floor || self.used.contains(&ceiling) {
            return Err(ChannelError::CeilingUsed { got: ceiling.wei() });
        }
        let needed = self
            .hot
            .reported
            .saturating_add(self.bounds_in_flight())
            .saturating_add(bound);
        let highest = ceiling.max(self.hot.ceiling);
        if needed > highest {
            return Err(ChannelError::Headroom {
                ceiling: highest.wei(),
                needed: needed.wei(),
            });
        }
        Ok(())
    }

    /// Keeps the newest [`REMEMBERED_CALLS`]; returns the slot.
    fn remember(&mut self, finished: Finished) -> u8 {
        let slot = self.next_slot;
        self.next_slot = (slot + 1) % REMEMBERED_CALLS as u8;
        if self.finished.len() >= REMEMBERED_CALLS {
            self.finished.pop_front();
        }
        self.finished.push_back(finished);
        slot
    }
}
