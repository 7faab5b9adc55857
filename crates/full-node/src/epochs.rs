//! Epochs of the chain (ledger.md §13): who has seats, what the views inside the blocks say about them (D16), and what a light client
//! needs to follow.
//!
//! With `epoch_blocks` in the genesis file, the `extra_data` of every header is the view in which the block was proposed, 8 bytes
//! big-endian. Views that no block has were given up, and each belongs to the seat whose turn it was. The last block of an epoch
//! ends with a system transaction that reports the counts; validators recompute them from the headers.

use crate::shared::Shared;
use alloy_primitives::{Address, B256, Bytes, U256};
use opg_consensus::{BlsPublicKey, BoxError, EpochSet, Identity, Participant};
use opg_contracts::{
    GenesisFile, addresses,
    seats::{self, Seat, SeatReport},
};
use opg_execution::Execution;
use opg_primitives::hash::keccak;
use opg_receipt::file::{AccountProof, SlotProof};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

/// Epochs whose seats are kept.
const KEPT: usize = 8;
/// Bytes of a view in `extra_data`.
const VIEW_BYTES: usize = 8;

/// The seats of one epoch.
#[derive(Debug)]
pub(crate) struct Seats {
    /// In the order of the contract, which its hash commits to.
    list: Vec<Seat>,
    leaders: HashMap<Identity, Address>,
    systems: Arc<HashSet<Address>>,
}

impl Seats {
    fn new(list: Vec<Seat>) -> Self {
        Self {
            leaders: list
                .iter()
                .map(|seat| (Identity(seat.identity.0), seat.system))
                .collect(),
            systems: Arc::new(list.iter().map(|seat| seat.system).collect()),
            list,
        }
    }

    /// System account of a seat.
    pub(crate) fn leader(&self, identity: Identity) -> Option<Address> {
        self.leaders.get(&identity).copied()
    }

    /// System accounts of all seats.
    pub(crate) fn systems(&self) -> &Arc<HashSet<Address>> {
        &self.systems
    }

    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// What consensus needs to know. Proofs of possession were checked when the seat's keys were registered.
    pub(crate) fn set(&self) -> EpochSet {
        let participant = |seat: &Seat| Participant {
            identity: Identity(seat.identity.0),
            bls: BlsPublicKey(seat.bls.0),
        };
        EpochSet {
            participants: self.list.iter().map(participant).collect(),
            observers: Vec::new(),
        }
    }

    /// Counts leader views: `views` are those of the epoch's blocks, ascending. A view between two of them, or before the first, was
    /// given up. The turns are those of [`opg_consensus::leader`].
    pub(crate) fn report(&self, epoch: u64, views: &[u64]) -> Vec<SeatReport> {
        let report = |seat: &Seat| SeatReport {
            operator: seat.operator,
            led: 0,
            missed: 0,
        };
        let mut reports: Vec<_> = self.list.iter().map(report).collect();
        let mut turns: Vec<usize> = (0..self.list.len()).collect();
        turns.sort_unstable_by_key(|i| self.list[*i].identity);
        let count = turns.len() as u128;
        let mut next = 1;
        for view in views {
            for passed in next..=*view {
                let Some(turn) = (u128::from(epoch) + u128::from(passed)).checked_rem(count) else {
                    return reports;
                };
                // a remainder below a length
                let report = &mut reports[turns[turn as usize]];
                let counter = if passed == *view {
                    &mut report.led
                } else {
                    &mut report.missed
                };
                *counter = counter.saturating_add(1);
            }
            next = view.saturating_add(1).max(next);
        }
        reports
    }
}

/// What a light client needs of a hand-over beside the block's certificate; kept because the state of old blocks is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) accounts: Vec<AccountProof>,
    pub(crate) seats: Bytes,
}

/// Seats by epoch.
#[derive(Debug)]
pub(crate) struct Epochs {
    /// Blocks of an epoch; 0: one endless epoch.
    blocks: u64,
    genesis: Arc<Seats>,
    later: Mutex<BTreeMap<u64, Arc<Seats>>>,
}

impl Epochs {
    pub(crate) fn new(genesis: &GenesisFile) -> Self {
        let seat = |v: &opg_contracts::ValidatorEntry| Seat {
            operator: v.operator,
            identity: v.identity,
            bls: v.bls,
            system: v.system,
        };
        Self {
            blocks: genesis.parameters.epoch_blocks,
            genesis: Arc::new(Seats::new(genesis.validators.iter().map(seat).collect())),
            later: Mutex::default(),
        }
    }

    /// Whether there are epochs.
    pub(crate) const fn enabled(&self) -> bool {
        self.blocks > 0
    }

    /// Epoch of a height.
    pub(crate) fn of(&self, height: u64) -> u64 {
        height.checked_div(self.blocks).unwrap_or(0)
    }

    /// Last height of an epoch.
    pub(crate) fn last(&self, epoch: u64) -> Option<u64> {
        self.enabled()
            .then(|| epoch.checked_add(1)?.checked_mul(self.blocks)?.checked_sub(1))
            .flatten()
    }

    /// The epoch that begins after a height, if the height is the last of its epoch.
    pub(crate) fn begins_after(&self, height: u64) -> Option<u64> {
        let epoch = self.of(height);
        (self.last(epoch) == Some(height)).then(|| epoch.saturating_add(1))
    }

    /// The seats of an epoch that is current or was recently.
    pub(crate) fn seats(&self, epoch: u64) -> Option<Arc<Seats>> {
        match epoch {
            0 => Some(self.genesis.clone()),
            _ => self
                .later
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(&epoch)
                .cloned(),
        }
    }

    /// The newest seats known.
    pub(crate) fn newest(&self) -> Arc<Seats> {
        let later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
        later.last_key_value().map_or(&self.genesis, |(_, seats)| seats).clone()
    }

    fn keep(&self, epoch: u64, seats: Arc<Seats>) {
        let mut later = self.later.lock().unwrap_or_else(PoisonError::into_inner);
        later.insert(epoch, seats);
        while later.len() > KEPT {
            later.pop_first();
        }
    }

    /// Reads the seats of the epoch that the next block is of.
    ///
    /// # Errors
    /// The contract does not answer, or not with what it has committed to.
    pub(crate) async fn load(&self, execution: &Execution) -> Result<(), BoxError> {
        let epoch = self.of(execution.head().number.saturating_add(1));
        if epoch > 0 {
            self.read(execution, epoch).await?;
        }
        Ok(())
    }

    /// Reads the seats of an epoch from the state of the newest final block.
    pub(crate) async fn read(&self, execution: &Execution, epoch: u64) -> Result<Arc<Seats>, BoxError> {
        if let Some(known) = self.seats(epoch) {
            return Ok(known);
        }
        let bytes = encoded(execution, epoch).await?;
        let read = Arc::new(Seats::new(seats::decode(&bytes)?));
        self.keep(epoch, read.clone());
        Ok(read)
    }

    /// Candidates without a seat in `seats`, as of the newest final block: they may connect and follow. Nothing depends on validators having
    /// the same list, so a state that is not there gives none.
    pub(crate) fn observers(&self, execution: &Execution, seats: &Seats) -> Vec<Identity> {
        let known = execution
            .state_at(execution.head().hash)
            .and_then(|state| opg_contracts::staking::candidate_identities(&state));
        let known = known.unwrap_or_else(|error| {
            tracing::warn!(%error, "candidates are not known, so they cannot follow");
            Vec::new()
        });
        let identities = known.into_iter().map(|identity| Identity(identity.0));
        identities
            .filter(|identity| seats.leader(*identity).is_none())
            .collect()
    }

    /// Views of the blocks of an epoch, ascending, from its first block to `parent`, the block below `height`.
    pub(crate) fn views(&self, execution: &Execution, height: u64, parent: B256) -> Result<Vec<u64>, BoxError> {
        let first = (self.of(height).saturating_mul(self.blocks)).max(1);
        let mut views = Vec::new();
        let mut at = parent;
        for below in (first..height).rev() {
            let (number, parent, extra_data) = execution.ancestry(at)?;
            if number != below {
                return Err(format!("block {at} has number {number}, expected {below}").into());
            }
            views.push(view_of(&extra_data).ok_or_else(|| format!("block {below} carries no view"))?);
            at = parent;
        }
        views.reverse();
        Ok(views)
    }
}

/// `abi.encode(Seat[])` of an epoch at the newest final block, which the contract's hash commits to.
async fn encoded(execution: &Execution, epoch: u64) -> Result<Bytes, BoxError> {
    let head = execution.head();
    let call = json!({
        "to": addresses::STAKING,
        "data": seats::seats_calldata(epoch),
    });
    let answer = execution
        .call("eth_call", json!([call, format!("{:#x}", head.number)]))
        .await
        .map_err(|failure| format!("Staking.seats({epoch}): {failure:?}"))?;
    let bytes: Bytes = serde_json::from_value(answer)?;
    let state = execution.state_at(head.hash)?;
    let expected = seats::read_set_hash(&state, epoch)?;
    if keccak(&bytes) != expected {
        return Err(format!("Staking.seats({epoch}) does not hash to setHash[{epoch}] = {expected}").into());
    }
    Ok(bytes)
}

/// What a light client needs of the hand-over to `epoch`, at the last block of the epoch before, which is the newest final one.
pub(crate) async fn handover(node: &Arc<Shared>, epoch: u64) -> Result<Kept, BoxError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Proof {
        account_proof: Vec<Bytes>,
        storage_proof: Vec<Slot>,
    }
    #[derive(Deserialize)]
    struct Slot {
        value: U256,
        proof: Vec<Bytes>,
    }
    let execution = &node.execution;
    let (address, slot) = seats::set_hash_slot(epoch);
    let key = B256::from(slot);
    let height = format!("{:#x}", execution.head().number);
    let answer = execution.call("eth_getProof", json!([address, [key], height])).await;
    let answer = answer.map_err(|failure| format!("proof of setHash[{epoch}]: {failure:?}"))?;
    let proof: Proof = serde_json::from_value(answer)?;
    let slots = proof.storage_proof.into_iter().map(|slot| SlotProof {
        key,
        value: slot.value.into(),
        proof: slot.proof,
    });
    Ok(Kept {
        accounts: vec![AccountProof {
            address,
            proof: proof.account_proof,
            slots: slots.collect(),
        }],
        seats: encoded(execution, epoch).await?,
    })
}

/// `extra_data` of a block that was proposed in a view.
pub(crate) fn extra_data(view: u64) -> Bytes {
    Bytes::copy_from_slice(&view.to_be_bytes())
}

fn view_of(extra_data: &[u8]) -> Option<u64> {
    <[u8; VIEW_BYTES]>::try_from(extra_data).ok().map(u64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::FixedBytes;

    fn seats(n: u8) -> Seats {
        // operators in another order than identities
        let seat = |i: u8| Seat {
            operator: Address::repeat_byte(i),
            identity: B256::repeat_byte(100 - i),
            bls: FixedBytes::repeat_byte(i),
            system: Address::repeat_byte(50 + i),
        };
        Seats::new((0..n).map(seat).collect())
    }

    #[test]
    fn turns_are_those_of_consensus() {
        for n in [1, 4, 5, 7] {
            let seats = seats(n);
            let participants = seats.set().participants;
            for epoch in [0, 1, 6, u64::MAX] {
                for view in 1..30 {
                    let report = seats.report(epoch, &[view]);
                    let turn = opg_consensus::leader(&participants, epoch, view).unwrap();
                    let leading: Vec<_> = report.iter().filter(|seat| seat.led == 1).collect();
                    let system = seats.leader(turn.identity).unwrap();
                    assert_eq!(leading.len(), 1);
                    let seat = seats.list.iter().find(|seat| seat.system == system).unwrap();
                    assert_eq!(leading[0].operator, seat.operator);
                    let missed: u32 = report.iter().map(|seat| seat.missed).sum();
                    assert_eq!(u64::from(missed), view - 1);
                }
            }
        }
    }

    #[test]
    fn views_without_a_block_count_against_their_leader() {
        let seats = seats(4);
        // views 1, 2, 3, 5, 9 have blocks: 4, 6, 7 and 8 were given up
        let report = seats.report(0, &[1, 2, 3, 5, 9]);
        // identities descend with the operator's number: turn t is operator 3 - t, and view v is turn v mod 4
        let by_turn: Vec<_> = (0..4)
            .map(|turn| (report[3 - turn].led, report[3 - turn].missed))
            .collect();
        assert_eq!(by_turn, [(0, 2), (3, 0), (1, 1), (1, 1)]);
        assert_eq!(
            report.iter().map(|seat| seat.operator).collect::<Vec<_>>(),
            (0..4).map(Address::repeat_byte).collect::<Vec<_>>()
        );
        assert!(
            seats
                .report(0, &[])
                .iter()
                .all(|seat| (seat.led, seat.missed) == (0, 0))
        );
    }

    #[test]
    fn a_view_is_eight_bytes() {
        assert_eq!(view_of(&extra_data(77)), Some(77));
        assert_eq!(view_of(&[]), None);
        assert_eq!(view_of(&[0; 9]), None);
    }
}
