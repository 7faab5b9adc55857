//! Spend limits of a payer: per call, per day, and per day and payee. Time is an argument; the log is JSON for the caller to keep.

use alloy_primitives::Address;
use opg_primitives::money::Amount;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Seconds of the window that counts as a day.
const DAY: u64 = 24 * 3600;

/// The most that may be spent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SpendLimits {
    /// By one call.
    pub per_call: Option<Amount>,
    /// By all calls within 24 hours.
    pub per_day: Option<Amount>,
    /// To one payee within 24 hours, unless `payees` says otherwise.
    pub per_payee_day: Option<Amount>,
    /// To this payee within 24 hours.
    pub payees: BTreeMap<Address, Amount>,
}

/// A call that would go beyond a limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{limit} limit: {spent} wei spent, this call may cost {asked} wei, {allowed} wei are allowed; raise the limit or wait"
)]
pub struct LimitError {
    /// Which limit.
    pub limit: &'static str,
    /// Spent inside its window.
    pub spent: u128,
    /// Bound of the call.
    pub asked: u128,
    /// The limit.
    pub allowed: u128,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    id: u64,
    at: u64,
    payee: Address,
    amount: Amount,
}

/// What was spent lately.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SpendLog {
    entries: Vec<Entry>,
    next: u64,
}

impl SpendLog {
    /// Books the bound of a call if every limit allows it, and returns what [`settle`](Self::settle) wants to hear.
    ///
    /// # Errors
    /// The first limit that the call would break. Nothing is booked.
    pub fn book(&mut self, limits: &SpendLimits, payee: Address, bound: Amount, now: u64) -> Result<u64, LimitError> {
        // A clock that went back must not free what was spent.
        self.entries.retain(|entry| now < entry.at.saturating_add(DAY));
        let spent = |keep: &dyn Fn(&Entry) -> bool| {
            let amounts = self
                .entries
                .iter()
                .filter(|entry| keep(entry))
                .map(|entry| entry.amount);
            amounts.fold(Amount::ZERO, Amount::saturating_add)
        };
        let payee_limit = limits.payees.get(&payee).copied().or(limits.per_payee_day);
        for (limit, allowed, spent) in [
            ("per-call", limits.per_call, Amount::ZERO),
            ("daily", limits.per_day, spent(&|_| true)),
            ("daily payee", payee_limit, spent(&|entry| entry.payee == payee)),
        ] {
            let Some(allowed) = allowed else { continue };
            if spent.checked_add(bound).is_none_or(|sum| sum > allowed) {
                return Err(LimitError {
                    limit,
                    spent: spent.wei(),
                    asked: bound.wei(),
                    allowed: allowed.wei(),
                });
            }
        }
        let id = self.next;
        self.next += 1;
        self.entries.push(Entry {
            id,
            at: now,
            payee,
            amount: bound,
        });
        Ok(id)
    }

    /// The booked call cost this much; zero if it was refused. More than was booked counts as what was booked.
    pub fn settle(&mut self, id: u64, charge: Amount) {
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) {
            entry.amount = entry.amount.min(charge);
        }
        self.entries.retain(|entry| !entry.amount.is_zero());
    }
}
