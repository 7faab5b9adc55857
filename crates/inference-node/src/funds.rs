//! What payers own, remembered: a balance is fetched when a payer is first seen and refreshed beside the requests, so that a paid
//! request waits for no RPC.

use crate::{chain::Chain, rpc::RpcError};
use alloy_primitives::Address;
use opg_primitives::money::Amount;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};

/// Older entries are refreshed in the background when used.
const FRESH: Duration = Duration::from_secs(3);
/// Older entries are not used.
const USABLE: Duration = Duration::from_secs(60);
/// Payers remembered.
const MAX_PAYERS: usize = 50_000;

/// One payer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Payer {
    pub(crate) balance: Amount,
    /// Has code: its signatures are for the chain to check.
    pub(crate) is_contract: bool,
    at: Instant,
    refreshing: bool,
}

/// The payers seen lately.
#[derive(Debug)]
pub(crate) struct Funds {
    chain: Chain,
    payers: Mutex<HashMap<Address, Payer>>,
}

impl Funds {
    pub(crate) fn new(chain: Chain) -> Self {
        Self {
            chain,
            payers: Mutex::default(),
        }
    }

    /// What `payer` owns; asks the chain only if it was not seen within the last minute.
    pub(crate) async fn of(self: &Arc<Self>, payer: Address) -> Result<Payer, RpcError> {
        let known = {
            let mut payers = self.lock();
            match payers.get_mut(&payer) {
                Some(entry) if entry.at.elapsed() < USABLE => {
                    let stale = entry.at.elapsed() > FRESH && !entry.refreshing;
                    entry.refreshing |= stale;
                    Some((*entry, stale))
                }
                _ => None,
            }
        };
        match known {
            Some((entry, false)) => Ok(entry),
            Some((entry, true)) => {
                let funds = Arc::clone(self);
                tokio::spawn(async move {
                    if funds.fetch(payer).await.is_err()
                        && let Some(entry) = funds.lock().get_mut(&payer)
                    {
                        entry.refreshing = false;
                    }
                });
                Ok(entry)
            }
            None => self.fetch(payer).await,
        }
    }

    /// Asks the chain now.
    pub(crate) async fn fetch(&self, payer: Address) -> Result<Payer, RpcError> {
        let (balance, is_contract) = futures::try_join!(self.chain.balance(payer), self.chain.is_contract(payer))?;
        let entry = Payer {
            balance,
            is_contract,
            at: Instant::now(),
            refreshing: false,
        };
        let mut payers = self.lock();
        if payers.len() >= MAX_PAYERS {
            payers.retain(|_, p| p.at.elapsed() < FRESH);
        }
        if payers.len() < MAX_PAYERS {
            payers.insert(payer, entry);
        }
        Ok(entry)
    }

    /// A payment of `payer` was settled: it is no longer exposure, so it must leave the remembered balance.
    pub(crate) fn spent(&self, payer: Address, amount: Amount) {
        if let Some(entry) = self.lock().get_mut(&payer) {
            entry.balance = entry.balance.saturating_sub(amount);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Address, Payer>> {
        self.payers.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
