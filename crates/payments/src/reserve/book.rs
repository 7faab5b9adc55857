//! Live reservations in memory, and the sums that the caps are compared with.

use super::record::{Key, Money, Record};
use alloy_primitives::Address;
use opg_primitives::money::Amount;
use std::collections::HashMap;

#[derive(Default)]
pub(super) struct Book {
    /// Everything not final, and final records until they are on disk.
    pub(super) live: HashMap<Key, Live>,
    by_payer: HashMap<Address, Amount>,
    defaults: Vec<Key>,
    /// Unsettled service, without defaults.
    node: Amount,
}

pub(super) struct Live {
    pub(super) record: Record,
    /// Journal number of the newest write of this record.
    pub(super) write: u64,
}

impl Book {
    /// Inserts or replaces a record and keeps the sums.
    pub(super) fn put(&mut self, record: Record, write: u64) {
        let key = record.key();
        if let Some(old) = self.live.remove(&key) {
            self.count(&old.record, Amount::saturating_sub);
        }
        self.count(&record, Amount::saturating_add);
        self.live.insert(key, Live { record, write });
    }

    fn count(&mut self, record: &Record, by: fn(Amount, Amount) -> Amount) {
        let exposure = record.payer_exposure();
        if exposure.is_zero() {
            return;
        }
        let key = record.key();
        let sum = self.by_payer.entry(key.payer).or_insert(Amount::ZERO);
        *sum = by(*sum, exposure);
        if sum.is_zero() {
            self.by_payer.remove(&key.payer);
        }
        if matches!(record.money, Money::Defaulted { .. }) {
            match self.defaults.iter().position(|k| *k == key) {
                Some(at) => drop(self.defaults.swap_remove(at)),
                None => self.defaults.push(key),
            }
        } else {
            self.node = by(self.node, exposure);
        }
    }

    /// What `payer` owes and owed.
    pub(super) fn payer(&self, payer: Address) -> Amount {
        self.by_payer.get(&payer).copied().unwrap_or(Amount::ZERO)
    }

    /// What all payers owe, and lost payments of the last day.
    pub(super) fn node(&self, now: u64) -> Amount {
        let lost = self
            .defaults
            .iter()
            .filter_map(|key| self.live.get(key))
            .map(|live| live.record.node_exposure(now));
        lost.fold(self.node, Amount::saturating_add)
    }
}
