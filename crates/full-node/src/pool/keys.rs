//! Receipt keys that sign often, prepared so that their signatures cost a third ([`PreparedKey`]). Verdicts are the same with and without.

use opg_receipt::{PreparedKey, SignedReceipt, verify_batch};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Signatures of a key before it is prepared: from about fifty on it pays.
const WORTH: u64 = 64;
/// Most prepared keys: half a megabyte each.
const MAX_PREPARED: usize = 64;
/// Most keys that are counted; then counting starts anew.
const MAX_COUNTED: usize = 4_096;

#[derive(Debug, Default)]
struct Known {
    counted: HashMap<[u8; 32], u64>,
    /// With the number of the last use.
    prepared: HashMap<[u8; 32], (Arc<PreparedKey>, u64)>,
    uses: u64,
}

/// The keys that this node sees.
#[derive(Debug, Default)]
pub(super) struct Keys(Mutex<Known>);

impl Keys {
    /// Which of these receipts are known to be signed by the keys beside them. `false` says nothing: the key may not be prepared.
    pub(super) fn prove(&self, receipts: &[(&SignedReceipt, [u8; 32])]) -> Vec<bool> {
        let mut counts: HashMap<[u8; 32], u64> = HashMap::new();
        for (_, key) in receipts {
            *counts.entry(*key).or_default() += 1;
        }
        let prepared: HashMap<[u8; 32], Arc<PreparedKey>> = counts
            .into_iter()
            .filter_map(|(key, count)| Some((key, self.prepared(&key, count)?)))
            .collect();
        let mut places = Vec::new();
        let mut items = Vec::new();
        for (place, (receipt, key)) in receipts.iter().enumerate() {
            if let Some(prepared) = prepared.get(key) {
                places.push(place);
                items.push((*receipt, &**prepared));
            }
        }
        let mut proven = vec![false; receipts.len()];
        for (place, verdict) in places.into_iter().zip(verify_batch(&items)) {
            proven[place] = verdict.is_ok();
        }
        proven
    }

    /// A key that is prepared, or worth it now.
    fn prepared(&self, key: &[u8; 32], count: u64) -> Option<Arc<PreparedKey>> {
        {
            let mut known = self.lock();
            known.uses += 1;
            let now = known.uses;
            if let Some((prepared, used)) = known.prepared.get_mut(key) {
                *used = now;
                return Some(prepared.clone());
            }
            if known.counted.len() >= MAX_COUNTED {
                known.counted.clear();
            }
            let counted = known.counted.entry(*key).or_default();
            *counted += count;
            if *counted < WORTH {
                return None;
            }
        }
        // Outside of the lock: two threads may prepare the same key, which costs time once.
        let prepared = Arc::new(PreparedKey::new(key).ok()?);
        let mut known = self.lock();
        let now = known.uses;
        known.counted.remove(key);
        if known.prepared.len() >= MAX_PREPARED
            && let Some(oldest) = known
                .prepared
                .iter()
                .min_by_key(|(_, (_, used))| *used)
                .map(|(key, _)| *key)
        {
            known.prepared.remove(&oldest);
        }
        known.prepared.insert(*key, (prepared.clone(), now));
        Some(prepared)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::fixture::World;

    #[test]
    fn keys_are_prepared_when_it_pays_and_forgotten_when_there_are_more() {
        let keys = Keys::default();
        let world = World::new();
        let receipt = world.receipt(1);
        let own = world.keyset.receipt_key.0;
        // too few signatures: nothing is known
        assert_eq!(keys.prove(&[(&receipt, own)]), [false]);
        let many: Vec<_> = (0..WORTH).map(|_| (&receipt, own)).collect();
        assert!(keys.prove(&many).into_iter().all(|proven| proven));
        assert_eq!(keys.prove(&[(&receipt, own)]), [true]);
        // another key's signature, and bytes that are no key
        let others: Vec<_> = (0..WORTH).map(|_| (&receipt, [0xff; 32])).collect();
        assert!(keys.prove(&others).into_iter().all(|proven| !proven));
        let mixed = [(&receipt, [0xff; 32]), (&receipt, own), (&receipt, [0; 32])];
        assert_eq!(keys.prove(&mixed), [false, true, false]);
        assert_eq!(keys.lock().prepared.len(), 1);
    }
}
