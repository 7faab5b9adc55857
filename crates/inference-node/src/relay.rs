//! Transactions of the settlement account: one writer, consecutive nonces, each followed until it is in a block or can never be.

use crate::{chain::Chain, rpc::RpcError};
use alloy::{
    consensus::{SignableTransaction, TxEip1559},
    eips::eip2718::Encodable2718,
};
use alloy_primitives::{Address, B256, Bytes, Signature, TxKind, U256};
use opg_payments::signature::{SecretKey, address_of_secret, sign_digest};
use std::time::{Duration, Instant};

/// Transactions in flight at once.
pub(crate) const MAX_IN_FLIGHT: usize = 4;
/// A transaction that is not in a block after this long is handed to the full nodes again.
const REBROADCAST: Duration = Duration::from_secs(5);
/// Priority fee, wei: the network's blocks are not full, so a token amount.
const TIP: u128 = 1_000_000;

/// A signed transaction.
#[derive(Debug, Clone)]
pub(crate) struct Signed {
    pub(crate) hash: B256,
    pub(crate) nonce: u64,
    pub(crate) raw: Bytes,
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Landed {
    /// In a block.
    Included {
        /// Whether it succeeded.
        success: bool,
    },
    /// Another transaction took its nonce: it can never be in a block.
    Never,
}

struct InFlight<T> {
    signed: Signed,
    task: T,
    broadcast: Instant,
}

/// The account that relays. `T` is what each transaction is for.
pub(crate) struct Relay<T> {
    chain: Chain,
    key: SecretKey,
    chain_id: u64,
    in_flight: Vec<InFlight<T>>,
}

impl<T> std::fmt::Debug for Relay<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relay")
            .field("account", &self.account())
            .field("in_flight", &self.in_flight.len())
            .finish_non_exhaustive()
    }
}

impl<T> Relay<T> {
    pub(crate) fn new(chain: Chain, key: SecretKey, chain_id: u64) -> Self {
        Self {
            chain,
            key,
            chain_id,
            in_flight: Vec::new(),
        }
    }

    pub(crate) fn account(&self) -> Address {
        address_of_secret(&self.key)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.in_flight.len() >= MAX_IN_FLIGHT
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.in_flight.is_empty()
    }

    pub(crate) fn tasks(&self) -> impl Iterator<Item = &T> {
        self.in_flight.iter().map(|t| &t.task)
    }

    /// Signs a call. Nothing is sent: the caller records the hash first.
    pub(crate) async fn sign(&self, to: Address, data: Vec<u8>, gas: u64) -> Result<Signed, RpcError> {
        let (mined, base_fee) = futures::try_join!(self.chain.nonce(self.account()), self.chain.base_fee())?;
        let nonce = self
            .in_flight
            .iter()
            .map(|t| t.signed.nonce + 1)
            .max()
            .unwrap_or(0)
            .max(mined);
        let transaction = TxEip1559 {
            chain_id: self.chain_id,
            nonce,
            gas_limit: gas,
            max_fee_per_gas: u128::from(base_fee).saturating_mul(4) + TIP,
            max_priority_fee_per_gas: TIP,
            to: TxKind::Call(to),
            value: U256::ZERO,
            access_list: Default::default(),
            input: data.into(),
        };
        let signature = sign_digest(transaction.signature_hash(), &self.key);
        let signature = Signature::from_bytes_and_parity(&signature[..64], signature[64] == 28);
        let signed = transaction.into_signed(signature);
        Ok(Signed {
            hash: *signed.hash(),
            nonce,
            raw: signed.encoded_2718().into(),
        })
    }

    /// Sends a signed transaction and follows it. A failure to send is not the end: it is sent again until its fate is known.
    pub(crate) async fn send(&mut self, signed: Signed, task: T) {
        if let Err(error) = self.chain.send_raw(&signed.raw).await {
            tracing::warn!(%error, tx = %signed.hash, "transaction was not taken; it will be sent again");
        }
        self.in_flight.push(InFlight {
            signed,
            task,
            broadcast: Instant::now(),
        });
    }

    /// Asks for every transaction in flight and returns those whose fate is known.
    pub(crate) async fn poll(&mut self) -> Vec<(Signed, T, Landed)> {
        let mut landed = Vec::new();
        let mut at = 0;
        while at < self.in_flight.len() {
            match self.fate(at).await {
                Ok(Some(fate)) => {
                    let done = self.in_flight.swap_remove(at);
                    landed.push((done.signed, done.task, fate));
                }
                Ok(None) => at += 1,
                Err(error) => {
                    tracing::debug!(%error, "cannot follow a transaction");
                    at += 1;
                }
            }
        }
        landed
    }

    async fn fate(&mut self, at: usize) -> Result<Option<Landed>, RpcError> {
        let Some(entry) = self.in_flight.get(at) else {
            return Ok(None);
        };
        let (hash, nonce, raw) = (entry.signed.hash, entry.signed.nonce, entry.signed.raw.clone());
        if let Some(success) = self.chain.transaction_status(hash).await? {
            return Ok(Some(Landed::Included { success }));
        }
        if entry.broadcast.elapsed() < REBROADCAST {
            return Ok(None);
        }
        if self.chain.nonce(self.account()).await? > nonce {
            // Included between the two questions, or replaced.
            return Ok(Some(match self.chain.transaction_status(hash).await? {
                Some(success) => Landed::Included { success },
                None => Landed::Never,
            }));
        }
        if let Err(error) = self.chain.send_raw(&raw).await {
            tracing::debug!(%error, tx = %hash, "transaction was not taken again");
        }
        if let Some(entry) = self.in_flight.get_mut(at) {
            entry.broadcast = Instant::now();
        }
        Ok(None)
    }
}
