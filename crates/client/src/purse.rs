//! What a payer keeps on disk beside its key: payment channels, spend limits and what was spent.
//!
//! One JSON file for each account, changed under a lock, so that several commands can pay at once. A voucher is written before its
//! header leaves: what was signed is never forgotten.

use crate::{
    ClientError,
    network::{Network, write_secret_atomically},
};
use alloy_primitives::{Address, B256};
use opg_payments::{
    wallet::{ChannelWallet, SpendLimits, SpendLog},
    x402::{ChargeExtra, PaymentRequirements},
};
use opg_primitives::{ids::KeysetDigest, money::Amount};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

/// Largest purse file, bytes: a thousand channels.
const MAX_BYTES: u64 = 4 << 20;
const FILE: &str = "purse.json";
const LOCK: &str = "purse.lock";

/// Why a purse cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PurseError {
    /// The folder or file cannot be read or written.
    #[error("purse {path}: {problem}")]
    File {
        /// Where.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A limit of the payer's own.
    #[error("{0}")]
    Limit(#[from] opg_payments::wallet::LimitError),
    /// A channel does not sign, or its server is not believed.
    #[error("channel: {0}")]
    Channel(#[from] opg_payments::wallet::WalletError),
    /// No such channel.
    #[error("no channel {0}; see `opg channel ls`")]
    Unknown(B256),
}

/// A channel of the payer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Channel {
    /// What was deposited, charged and signed.
    pub wallet: ChannelWallet,
    /// The node that is paid.
    pub node: B256,
    /// Keyset under whose terms the channel was opened.
    pub keyset: KeysetDigest,
    /// The node's terms, without amount.
    pub offer: PaymentRequirements,
    /// Unix seconds.
    pub opened_at: u64,
}

impl Channel {
    /// The channel's id.
    #[must_use]
    pub fn id(&self) -> B256 {
        self.wallet.id()
    }
}

/// Everything in the file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Contents {
    pub(crate) limits: SpendLimits,
    pub(crate) spent: SpendLog,
    pub(crate) channels: Vec<Channel>,
}

impl Contents {
    pub(crate) fn channel(&mut self, id: B256) -> Result<&mut Channel, PurseError> {
        let found = self.channels.iter_mut().find(|channel| channel.id() == id);
        found.ok_or(PurseError::Unknown(id))
    }
}

/// The purse of one account on one network.
#[derive(Debug, Clone)]
pub struct Purse {
    dir: PathBuf,
}

impl Purse {
    /// The purse of `account`, in the network's folder. Nothing is written yet.
    #[must_use]
    pub fn of(network: &Network, account: Address) -> Self {
        Self {
            dir: network.dir.join("purses").join(account.to_string().to_lowercase()),
        }
    }

    /// The payer's limits.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn limits(&self) -> Result<SpendLimits, ClientError> {
        Ok(self.read()?.limits)
    }

    /// Sets the payer's limits.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set_limits(&self, limits: SpendLimits) -> Result<(), ClientError> {
        self.change(|contents| {
            contents.limits = limits;
            Ok(())
        })
    }

    /// All channels.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn channels(&self) -> Result<Vec<Channel>, ClientError> {
        Ok(self.read()?.channels)
    }

    /// Books a payment to `payee` of at most `bound` against the limits; the number is for [`spent`](Self::spent).
    ///
    /// # Errors
    /// The first limit that it would break.
    pub fn book(&self, payee: Address, bound: Amount, now: u64) -> Result<u64, ClientError> {
        self.change(|contents| {
            let booked = contents.spent.book(&contents.limits, payee, bound, now);
            Ok(booked.map_err(PurseError::from)?)
        })
    }

    /// What a booked payment came to; zero if it was refused.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn spent(&self, booked: u64, charge: Amount) -> Result<(), ClientError> {
        self.change(|contents| {
            contents.spent.settle(booked, charge);
            Ok(())
        })
    }

    /// Takes the answer to the call whose voucher had this ceiling.
    pub(crate) fn answered(&self, id: B256, ceiling: Amount, extra: &ChargeExtra) -> Result<(), ClientError> {
        self.change(|contents| {
            let wallet = &mut contents.channel(id)?.wallet;
            wallet.answered(ceiling, extra).map_err(PurseError::from)?;
            // What the node says it holds, so that a top-up by somebody else is seen.
            wallet.balance = wallet.balance.max(extra.channel_state.balance);
            Ok(())
        })
    }

    /// The call with this ceiling was refused and cost nothing.
    pub(crate) fn refused(&self, id: B256, ceiling: Amount) -> Result<(), ClientError> {
        self.change(|contents| {
            contents.channel(id)?.wallet.refused(ceiling);
            Ok(())
        })
    }

    fn read(&self) -> Result<Contents, ClientError> {
        let path = self.dir.join(FILE);
        let problem = |problem: String| PurseError::File {
            path: path.clone(),
            problem,
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Contents::default()),
            Err(error) => return Err(problem(error.to_string()).into()),
        };
        let mut bytes = Vec::new();
        file.take(MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| problem(error.to_string()))?;
        if bytes.len() as u64 > MAX_BYTES {
            return Err(problem(format!("is larger than {MAX_BYTES} bytes")).into());
        }
        Ok(serde_json::from_slice(&bytes).map_err(|error| problem(error.to_string()))?)
    }

    /// Changes the file under its lock. A change that fails leaves it as it was.
    pub(crate) fn change<T>(
        &self,
        change: impl FnOnce(&mut Contents) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let io = |path: &Path, error: std::io::Error| PurseError::File {
            path: path.into(),
            problem: error.to_string(),
        };
        std::fs::create_dir_all(&self.dir).map_err(|error| io(&self.dir, error))?;
        let path = self.dir.join(LOCK);
        let lock = File::create(&path).map_err(|error| io(&path, error))?;
        lock.lock().map_err(|error| io(&path, error))?;
        let mut contents = self.read()?;
        let value = change(&mut contents)?;
        let path = self.dir.join(FILE);
        let bytes = serde_json::to_vec_pretty(&contents).map_err(|error| PurseError::File {
            path: path.clone(),
            problem: error.to_string(),
        })?;
        write_secret_atomically(&path, &bytes)?;
        drop(lock);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_over_restarts_and_a_refused_change_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let purse = Purse {
            dir: dir.path().join("purse"),
        };
        let payee = Address::repeat_byte(1);
        assert_eq!(purse.limits().unwrap(), SpendLimits::default());
        let limits = SpendLimits {
            per_day: Some(Amount(100)),
            ..SpendLimits::default()
        };
        purse.set_limits(limits.clone()).unwrap();
        let first = purse.book(payee, Amount(60), 1_000).unwrap();
        assert!(purse.book(payee, Amount(60), 1_001).is_err(), "beyond the day's limit");
        purse.spent(first, Amount(10)).unwrap();
        let again = Purse { dir: purse.dir.clone() };
        assert_eq!(again.limits().unwrap(), limits);
        again.book(payee, Amount(90), 1_002).unwrap();
        assert!(again.book(payee, Amount(1), 1_003).is_err());
    }

    #[test]
    fn a_damaged_file_is_named_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let purse = Purse { dir: dir.path().into() };
        std::fs::write(dir.path().join(FILE), b"{").unwrap();
        assert!(purse.limits().unwrap_err().to_string().contains(FILE));
        assert!(purse.book(Address::ZERO, Amount(1), 1).is_err());
        assert_eq!(std::fs::read(dir.path().join(FILE)).unwrap(), b"{");
    }

    #[test]
    fn several_payers_at_once_lose_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let purse = Purse { dir: dir.path().into() };
        purse
            .set_limits(SpendLimits {
                per_day: Some(Amount(40)),
                ..SpendLimits::default()
            })
            .unwrap();
        let threads: Vec<_> = (0..8)
            .map(|_| {
                let purse = purse.clone();
                std::thread::spawn(move || {
                    (0..8)
                        .filter(|_| purse.book(Address::ZERO, Amount(1), 1).is_ok())
                        .count()
                })
            })
            .collect();
        let booked: usize = threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        assert_eq!(booked, 40);
    }
}
