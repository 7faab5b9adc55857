//! A chain whose blocks can be undone, over the channel contract's rules or the contract itself, and a disk that loses what was not synced.

pub(crate) mod contracts;

use alloy_primitives::{Address, B256, U256};
use opg_payments::{
    channel::{ChannelConfig, Voucher},
    channels::{ChainState, ClaimRow, RefundPlan, Withdrawal},
    eip712::Domain,
    signature,
    x402::SignedDeposit,
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
/// When the chain starts.
pub(crate) const START_TIME: u64 = 1_000_000;
/// Of every channel here.
const WITHDRAW_DELAY: u64 = 3600;

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
        signed: Box<SignedDeposit>,
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

/// What transactions do, and what can be read afterwards. A copy is a state that one can go back to.
pub(crate) trait Rules: Clone {
    /// Carries out a transaction at this time. Whether it succeeds; if not, nothing has changed.
    fn apply(&mut self, tx: &Tx, time: u64) -> bool;
    /// A payer starts with this much.
    fn fund(&mut self, who: Address, amount: u128);
    fn channel(&self, id: B256) -> ChainState;
    fn nonce_used(&self, payer: Address, nonce: B256) -> bool;
    /// What an account has outside channels.
    fn money(&self, who: Address) -> u128;
    /// What the receiver was sent.
    fn settled(&self) -> u128;
    /// All money that there is.
    fn total(&self) -> u128;
}

/// The contract's published rules.
#[derive(Debug, Clone)]
pub(crate) struct Model {
    domain: Domain,
    channels: HashMap<B256, (ChannelConfig, ChainState)>,
    money: HashMap<Address, u128>,
    nonces: HashSet<B256>,
    claimed: u128,
    settled: u128,
}

impl Model {
    pub(crate) fn new(domain: Domain) -> Self {
        Self {
            domain,
            channels: HashMap::new(),
            money: HashMap::new(),
            nonces: HashSet::new(),
            claimed: 0,
            settled: 0,
        }
    }
}

#[derive(Debug, Clone)]
struct Block<R> {
    after: R,
    txs: Vec<(B256, Tx)>,
    withdrawals: Vec<B256>,
}

pub(crate) struct Chain<R> {
    blocks: Vec<Block<R>>,
    pool: Vec<(B256, Tx, u64)>,
    configs: HashMap<B256, ChannelConfig>,
    domain: Domain,
    pub(crate) time: u64,
}

impl<R: Rules> Chain<R> {
    pub(crate) fn new(domain: Domain, rules: R) -> Self {
        let genesis = Block {
            after: rules,
            txs: Vec::new(),
            withdrawals: Vec::new(),
        };
        Self {
            blocks: vec![genesis],
            pool: Vec::new(),
            configs: HashMap::new(),
            domain,
            time: START_TIME,
        }
    }

    pub(crate) fn fund(&mut self, who: Address, amount: u128) {
        self.blocks.last_mut().unwrap().after.fund(who, amount);
    }

    pub(crate) fn height(&self) -> u64 {
        self.blocks.len() as u64
    }

    pub(crate) fn send(&mut self, hash: B256, tx: Tx, delay: u64) {
        if let Tx::Deposit { config, .. } = &tx {
            self.configs.insert(config.id(&self.domain), *config);
        }
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

    fn state(&self, depth: usize) -> &R {
        &self.blocks[self.blocks.len().saturating_sub(1 + depth)].after
    }

    pub(crate) fn channel_at(&self, depth: usize, id: B256) -> ChainState {
        self.state(depth).channel(id)
    }

    pub(crate) fn nonce_used(&self, depth: usize, payer: Address, nonce: B256) -> bool {
        self.state(depth).nonce_used(payer, nonce)
    }

    pub(crate) fn payer(&self, who: Address) -> u128 {
        self.state(0).money(who)
    }

    pub(crate) fn receiver(&self) -> u128 {
        self.state(0).settled()
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
            if state.apply(&tx, self.time)
                && let Tx::Initiate { id, .. } = tx
            {
                withdrawals.push(id);
            }
            txs.push((hash, tx));
        }
        self.pool = later;
        // Conservation: nothing is made or lost by any transaction.
        assert_eq!(state.total(), self.state(0).total());
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
        let Some(payer) = self.configs.get(&id).map(|config| config.payer) else {
            return 0;
        };
        let before = self.payer(payer);
        self.send(B256::ZERO, Tx::Settle, 0);
        // One that was announced before comes first.
        if self.channel_at(0, id).withdrawal.is_some() {
            self.time += WITHDRAW_DELAY;
            self.send(B256::ZERO, Tx::Finalize { id }, 0);
        }
        self.mine();
        let left = self.channel_at(0, id);
        let amount = left.balance.saturating_sub(left.total_claimed).wei();
        if amount > 0 {
            self.send(B256::ZERO, Tx::Initiate { id, amount }, 0);
            self.mine();
            self.time += WITHDRAW_DELAY;
            self.send(B256::ZERO, Tx::Finalize { id }, 0);
            self.mine();
        }
        self.payer(payer) - before
    }
}

impl Rules for Model {
    fn apply(&mut self, tx: &Tx, time: u64) -> bool {
        let mut tried = self.clone();
        let done = tried.step(tx, time);
        if done {
            *self = tried;
        }
        done
    }

    fn fund(&mut self, who: Address, amount: u128) {
        self.money.insert(who, amount);
    }

    fn channel(&self, id: B256) -> ChainState {
        self.channels.get(&id).map(|c| c.1).unwrap_or_default()
    }

    fn nonce_used(&self, _: Address, nonce: B256) -> bool {
        self.nonces.contains(&nonce)
    }

    fn money(&self, who: Address) -> u128 {
        self.money.get(&who).copied().unwrap_or(0)
    }

    fn settled(&self) -> u128 {
        self.settled
    }

    /// With payers, in channels and not claimed, claimed or settled.
    fn total(&self) -> u128 {
        let unclaimed = |(_, c): &(ChannelConfig, ChainState)| c.balance.wei() - c.total_claimed.wei();
        self.money.values().sum::<u128>() + self.channels.values().map(unclaimed).sum::<u128>() + self.claimed
    }
}

impl Model {
    /// May leave anything behind if it fails.
    fn step(&mut self, tx: &Tx, time: u64) -> bool {
        match tx {
            Tx::Deposit { config, signed } => {
                let amount = signed.deposit.amount.wei();
                let money = self.money.entry(config.payer).or_default();
                if *money < amount || !self.nonces.insert(signed.deposit.nonce()) {
                    return false;
                }
                *money -= amount;
                let id = config.id(&self.domain);
                let channel = self.channels.entry(id).or_insert((*config, ChainState::default()));
                channel.1.balance = Amount(channel.1.balance.wei() + amount);
                true
            }
            Tx::Claim { rows } => rows.iter().all(|row| self.claim(row)),
            Tx::Settle => {
                self.settled = self.claimed;
                true
            }
            Tx::Initiate { id, amount } => {
                let Some((_, channel)) = self.channels.get_mut(id) else {
                    return false;
                };
                let available = channel.balance.saturating_sub(channel.total_claimed);
                if channel.withdrawal.is_some() || Amount(*amount) > available || *amount == 0 {
                    return false;
                }
                channel.withdrawal = Some(Withdrawal {
                    amount: Amount(*amount),
                    requested_at: time,
                });
                true
            }
            Tx::Finalize { id } => {
                let Some((config, channel)) = self.channels.get_mut(id) else {
                    return false;
                };
                let Some(withdrawal) = channel.withdrawal else {
                    return false;
                };
                if time < withdrawal.requested_at + config.withdraw_delay {
                    return false;
                }
                let available = channel.balance.saturating_sub(channel.total_claimed);
                channel.withdrawal = None;
                self.take_back(id, withdrawal.amount.min(available));
                true
            }
            Tx::Refund { id, plan } => {
                if plan.claim.as_ref().is_some_and(|row| !self.claim(row)) || plan.amount.is_zero() {
                    return false;
                }
                let Some((_, channel)) = self.channels.get_mut(id) else {
                    return false;
                };
                channel.refund_nonce += U256::from(1);
                let amount = plan.amount.min(channel.balance.saturating_sub(channel.total_claimed));
                if let Some(withdrawal) = &mut channel.withdrawal {
                    if amount < withdrawal.amount {
                        withdrawal.amount = withdrawal.amount.saturating_sub(amount);
                    } else if !amount.is_zero() {
                        channel.withdrawal = None;
                    }
                }
                self.take_back(id, amount);
                true
            }
        }
    }

    fn take_back(&mut self, id: &B256, amount: Amount) {
        let (config, channel) = self.channels.get_mut(id).unwrap();
        channel.balance = channel.balance.saturating_sub(amount);
        *self.money.entry(config.payer).or_default() += amount.wei();
    }

    fn claim(&mut self, row: &ClaimRow) -> bool {
        let id = row.config.id(&self.domain);
        let Some((_, channel)) = self.channels.get_mut(&id) else {
            return false;
        };
        let total = row.entry.total_claimed;
        // A row that claims no more than was claimed before is passed over.
        if total <= channel.total_claimed {
            return true;
        }
        let voucher = Voucher {
            channel_id: id,
            max_claimable: row.entry.max_claimable,
        };
        // As the contract: the signer is recovered.
        let signer = signature::recover(voucher.digest(&self.domain), &row.signature);
        if signer != Ok(row.config.payer_authorizer) || total > row.entry.max_claimable || total > channel.balance {
            return false;
        }
        self.claimed += total.wei() - channel.total_claimed.wei();
        channel.total_claimed = total;
        true
    }
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
