//! A chain with the channel contract's rules, blocks that can be undone, and a disk that loses what was not synced.

use alloy_primitives::{Address, B256, U256};
use opg_payments::{
    channel::{ChannelConfig, Voucher},
    channels::{ChainState, ClaimRow, RefundPlan, Withdrawal},
    eip712::Domain,
    signature,
};
use opg_primitives::money::Amount;
use redb::StorageBackend;
use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{Arc, Mutex},
};

/// A withdrawal takes thirty blocks: time enough for the schedules' outages, late transactions and reorganisations.
const BLOCK_SECONDS: u64 = 120;

/// SplitMix64.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Tx {
    Deposit {
        config: ChannelConfig,
        amount: u128,
        nonce: B256,
    },
    Claim {
        rows: Vec<ClaimRow>,
    },
    Settle,
    Initiate {
        id: B256,
        amount: u128,
    },
    Finalize {
        id: B256,
    },
    Refund {
        id: B256,
        plan: RefundPlan,
    },
}

#[derive(Debug, Clone, Default)]
struct State {
    channels: HashMap<B256, (ChannelConfig, ChainState)>,
    money: HashMap<Address, u128>,
    nonces: HashSet<B256>,
    claimed: u128,
    settled: u128,
}

#[derive(Debug, Clone)]
struct Block {
    after: State,
    txs: Vec<(B256, Tx)>,
    withdrawals: Vec<B256>,
}

pub(crate) struct Chain {
    domain: Domain,
    blocks: Vec<Block>,
    pool: Vec<(B256, Tx, u64)>,
    pub(crate) time: u64,
}

impl Chain {
    pub(crate) fn new(domain: Domain) -> Self {
        let genesis = Block {
            after: State::default(),
            txs: Vec::new(),
            withdrawals: Vec::new(),
        };
        Self {
            domain,
            blocks: vec![genesis],
            pool: Vec::new(),
            time: 1_000_000,
        }
    }

    pub(crate) fn fund(&mut self, who: Address, amount: u128) {
        self.blocks.last_mut().unwrap().after.money.insert(who, amount);
    }

    pub(crate) fn height(&self) -> u64 {
        self.blocks.len() as u64
    }

    pub(crate) fn send(&mut self, hash: B256, tx: Tx, delay: u64) {
        self.pool.push((hash, tx, delay));
    }

    pub(crate) fn pending(&self, hash: B256) -> bool {
        self.pool.iter().any(|(h, ..)| *h == hash)
    }

    pub(crate) fn included(&self, hash: B256) -> bool {
        self.blocks.iter().any(|b| b.txs.iter().any(|(h, _)| *h == hash))
    }

    /// In one of the newest blocks, which may still go away.
    pub(crate) fn included_within(&self, hash: B256, depth: usize) -> bool {
        self.blocks
            .iter()
            .rev()
            .take(depth)
            .any(|b| b.txs.iter().any(|(h, _)| *h == hash))
    }

    fn state(&self, depth: usize) -> &State {
        &self.blocks[self.blocks.len().saturating_sub(1 + depth)].after
    }

    pub(crate) fn channel_at(&self, depth: usize, id: B256) -> ChainState {
        self.state(depth).channels.get(&id).map(|c| c.1).unwrap_or_default()
    }

    pub(crate) fn nonce_used(&self, depth: usize, nonce: B256) -> bool {
        self.state(depth).nonces.contains(&nonce)
    }

    pub(crate) fn payer(&self, who: Address) -> u128 {
        self.state(0).money.get(&who).copied().unwrap_or(0)
    }

    pub(crate) fn receiver(&self) -> u128 {
        self.state(0).settled
    }

    pub(crate) fn withdrawals_in_last_block(&self) -> Vec<B256> {
        self.blocks.last().unwrap().withdrawals.clone()
    }

    /// A block every two minutes with everything whose delay has passed, in the order of sending.
    pub(crate) fn mine(&mut self) {
        self.time += BLOCK_SECONDS;
        let mut state = self.state(0).clone();
        let (mut txs, mut withdrawals, mut later) = (Vec::new(), Vec::new(), Vec::new());
        for (hash, tx, delay) in std::mem::take(&mut self.pool) {
            if delay > 0 {
                later.push((hash, tx, delay - 1));
                continue;
            }
            let mut tried = state.clone();
            if apply(&self.domain, &mut tried, &tx, self.time) {
                state = tried;
                if let Tx::Initiate { id, .. } = tx {
                    withdrawals.push(id);
                }
            }
            txs.push((hash, tx));
        }
        self.pool = later;
        // Conservation: nothing is made or lost by any transaction.
        let before = total(self.state(0));
        assert_eq!(total(&state), before);
        self.blocks.push(Block {
            after: state,
            txs,
            withdrawals,
        });
    }

    /// The newest blocks go away; some of their transactions come back, some never.
    pub(crate) fn reorganise(&mut self, depth: usize, keep: u64) {
        if self.blocks.len() <= depth + 1 {
            return;
        }
        let undone: Vec<_> = self
            .blocks
            .split_off(self.blocks.len() - depth)
            .into_iter()
            .flat_map(|b| b.txs)
            .collect();
        for (n, (hash, tx)) in undone.into_iter().enumerate() {
            // What users sent themselves is sent again; the seller's may be lost.
            let kept = matches!(tx, Tx::Initiate { .. } | Tx::Finalize { .. } | Tx::Refund { .. });
            if kept || (keep >> (n % 64)) & 1 == 1 {
                self.pool.push((hash, tx, (keep >> 32) % 3));
            }
        }
        for _ in 0..depth {
            self.mine();
            self.time -= BLOCK_SECONDS;
        }
    }

    /// The payer withdraws all that is not claimed, after its delay.
    pub(crate) fn close(&mut self, id: B256) -> u128 {
        self.pool.clear();
        let balance = self.channel_at(0, id).balance.wei();
        let before = self
            .state(0)
            .channels
            .get(&id)
            .map(|(c, _)| self.payer(c.payer))
            .unwrap_or(0);
        self.send(B256::ZERO, Tx::Settle, 0);
        self.send(
            B256::ZERO,
            Tx::Initiate {
                id,
                amount: balance.max(1),
            },
            0,
        );
        self.mine();
        self.time += 3600;
        self.send(B256::ZERO, Tx::Finalize { id }, 0);
        self.mine();
        let after = self
            .state(0)
            .channels
            .get(&id)
            .map(|(c, _)| self.payer(c.payer))
            .unwrap_or(0);
        after - before
    }
}

/// All money: with payers, in channels and not claimed, claimed or settled.
fn total(state: &State) -> u128 {
    let channels: u128 = state
        .channels
        .values()
        .map(|(_, c)| c.balance.wei() - c.total_claimed.wei())
        .sum();
    state.money.values().sum::<u128>() + channels + state.claimed
}

/// Whether the transaction succeeds; on failure the state is thrown away.
fn apply(domain: &Domain, state: &mut State, tx: &Tx, time: u64) -> bool {
    match tx {
        Tx::Deposit { config, amount, nonce } => {
            let money = state.money.entry(config.payer).or_default();
            if *money < *amount || !state.nonces.insert(*nonce) {
                return false;
            }
            *money -= amount;
            let channel = &mut state
                .channels
                .entry(config.id(domain))
                .or_insert((*config, ChainState::default()))
                .1;
            channel.balance = Amount(channel.balance.wei() + amount);
            true
        }
        Tx::Claim { rows } => rows.iter().all(|row| claim(domain, state, row)),
        Tx::Settle => {
            state.settled = state.claimed;
            true
        }
        Tx::Initiate { id, amount } => {
            let Some((_, channel)) = state.channels.get_mut(id) else {
                return false;
            };
            if channel.balance <= channel.total_claimed {
                return false;
            }
            channel.withdrawal = Some(Withdrawal {
                amount: Amount(*amount),
                requested_at: time,
            });
            true
        }
        Tx::Finalize { id } => {
            let Some((config, channel)) = state.channels.get_mut(id) else {
                return false;
            };
            let Some(withdrawal) = channel.withdrawal else {
                return false;
            };
            if time < withdrawal.requested_at + config.withdraw_delay {
                return false;
            }
            let amount = withdrawal
                .amount
                .min(channel.balance.saturating_sub(channel.total_claimed))
                .wei();
            channel.withdrawal = None;
            channel.balance = Amount(channel.balance.wei() - amount);
            *state.money.entry(config.payer).or_default() += amount;
            true
        }
        Tx::Refund { id, plan } => {
            if plan.claim.as_ref().is_some_and(|row| !claim(domain, state, row)) {
                return false;
            }
            let Some((config, channel)) = state.channels.get_mut(id) else {
                return false;
            };
            let left = channel.balance.saturating_sub(channel.total_claimed);
            if plan.nonce != channel.refund_nonce || plan.amount > left {
                return false;
            }
            channel.refund_nonce += U256::from(1);
            channel.balance = Amount(channel.balance.wei() - plan.amount.wei());
            *state.money.entry(config.payer).or_default() += plan.amount.wei();
            true
        }
    }
}

fn claim(domain: &Domain, state: &mut State, row: &ClaimRow) -> bool {
    let id = row.config.id(domain);
    let Some((_, channel)) = state.channels.get_mut(&id) else {
        return false;
    };
    let voucher = Voucher {
        channel_id: id,
        max_claimable: row.entry.max_claimable,
    };
    // As the contract: the signer is recovered.
    let signer = signature::recover(voucher.digest(domain), &row.signature);
    let total = row.entry.total_claimed;
    if signer != Ok(row.config.payer_authorizer) || total > row.entry.max_claimable || total > channel.balance {
        return false;
    }
    if total > channel.total_claimed {
        state.claimed += total.wei() - channel.total_claimed.wei();
        channel.total_claimed = total;
    }
    true
}

/// A disk that, in a crash, keeps an arbitrary subset of what was not synced.
#[derive(Debug, Default, Clone)]
pub(crate) struct Disk(Arc<Mutex<DiskState>>);

#[derive(Debug, Default)]
struct DiskState {
    synced: Vec<u8>,
    current: Vec<u8>,
    unsynced: Vec<(u64, Vec<u8>)>,
}

impl Disk {
    pub(crate) fn after_crash(&self, keep: u64) -> Self {
        let state = self.0.lock().unwrap();
        let mut image = state.synced.clone();
        image.resize(state.current.len().max(image.len()), 0);
        for (i, (offset, data)) in state.unsynced.iter().enumerate() {
            if keep >> (i % 64) & 1 == 1 {
                image[*offset as usize..][..data.len()].copy_from_slice(data);
            }
        }
        Self(Arc::new(Mutex::new(DiskState {
            synced: image.clone(),
            current: image,
            unsynced: Vec::new(),
        })))
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.lock().unwrap().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.0.lock().unwrap();
        let from = state
            .current
            .get(offset as usize..offset as usize + out.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.current.resize(len as usize, 0);
        state
            .unsynced
            .retain(|(offset, data)| offset + data.len() as u64 <= len);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        // Copying a whole image at each sync would be most of the run: only what was written moves.
        let DiskState {
            synced,
            current,
            unsynced,
        } = &mut *state;
        synced.resize(current.len(), 0);
        for (offset, data) in unsynced.drain(..) {
            synced[offset as usize..][..data.len()].copy_from_slice(&data);
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.0.lock().unwrap();
        state.current[offset as usize..][..data.len()].copy_from_slice(data);
        state.unsynced.push((offset, data.to_vec()));
        Ok(())
    }
}
