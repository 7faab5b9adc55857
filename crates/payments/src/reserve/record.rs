//! One reservation: what was promised, what was done for it, what became of the money.

use crate::eip3009::Authorization;
use alloy_primitives::{Address, B256, Bytes};
use opg_primitives::money::Amount;
use serde::{Deserialize, Serialize};
use std::fmt;

/// What makes a payment unique: the token accepts each pair once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Who pays.
    pub payer: Address,
    /// The authorization's nonce.
    pub nonce: B256,
}

impl Key {
    /// `payer || nonce`, the key in the journal.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 52] {
        let mut bytes = [0; 52];
        bytes[..20].copy_from_slice(self.payer.as_slice());
        bytes[20..].copy_from_slice(self.nonce.as_slice());
        bytes
    }

    /// The inverse of [`to_bytes`](Self::to_bytes).
    #[must_use]
    pub fn from_bytes(bytes: [u8; 52]) -> Self {
        Self {
            payer: Address::from_slice(&bytes[..20]),
            nonce: B256::from_slice(&bytes[20..]),
        }
    }
}

impl From<&Authorization> for Key {
    fn from(authorization: &Authorization) -> Self {
        Self {
            payer: authorization.from,
            nonce: authorization.nonce,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.payer, self.nonce)
    }
}

/// The work that a payment was reserved for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Not finished. After a restart: interrupted.
    Running,
    /// Answered, whole or up to the client's hang-up.
    Served {
        /// What it costs, at most the signed amount.
        charge: Amount,
    },
    /// Not answered; nothing is owed.
    Failed,
}

/// The payment itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Money {
    /// A signature in the node's hands.
    Open,
    /// In a transaction whose outcome is not known yet. The hash is kept until it is: an authorization that may have
    /// been used is reconciled, not charged again.
    Sent {
        /// Transaction that carries the authorization.
        tx: B256,
    },
    /// In the payee's deposit address or in the vault, as the token's settlement slot proves (D2).
    Settled {
        /// Transaction that carried it, if it was one of this node's.
        tx: Option<B256>,
    },
    /// Nothing was owed; the signature is never used.
    Released,
    /// Owed, but the token will never accept the authorization any more.
    Defaulted {
        /// When that was seen, Unix seconds.
        at: u64,
    },
}

/// A state in one word, for people and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// Work is going on.
    Reserved,
    /// Answered, to be settled.
    Served,
    /// Money is in the vault.
    Settled,
    /// Nothing was owed.
    Released,
    /// A settlement was sent and its outcome is not known yet.
    Unknown,
    /// Owed and lost.
    Defaulted,
}

impl State {
    /// All states.
    pub const ALL: [Self; 6] = [
        Self::Reserved,
        Self::Served,
        Self::Settled,
        Self::Released,
        Self::Unknown,
        Self::Defaulted,
    ];

    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Served => "served",
            Self::Settled => "settled",
            Self::Released => "released",
            Self::Unknown => "unknown",
            Self::Defaulted => "defaulted",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A reservation as the journal keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What the payer signed.
    pub authorization: Authorization,
    /// The payer's signature.
    pub signature: Bytes,
    /// Signed amount; equals `authorization.value`.
    pub amount: Amount,
    /// The receipt that this payment is for.
    pub receipt_id: B256,
    /// When it was reserved, Unix seconds.
    pub reserved_at: u64,
    /// Must be settled before work: outside the exposure cap, or a payer whose signature only the chain can check.
    pub settle_first: bool,
    /// What the caller needs to write the receipt after a crash; opaque here.
    pub context: Bytes,
    /// State of the work.
    pub work: Work,
    /// State of the money.
    pub money: Money,
}

impl Record {
    /// The payment's key.
    #[must_use]
    pub fn key(&self) -> Key {
        Key::from(&self.authorization)
    }

    /// The state in one word.
    #[must_use]
    pub const fn state(&self) -> State {
        match (&self.money, self.work) {
            (Money::Settled { .. }, _) => State::Settled,
            (Money::Released, _) => State::Released,
            (Money::Sent { .. }, _) => State::Unknown,
            (Money::Defaulted { .. }, _) => State::Defaulted,
            (Money::Open, Work::Running) => State::Reserved,
            (Money::Open, Work::Served { .. }) => State::Served,
            (Money::Open, Work::Failed) => State::Released,
        }
    }

    /// Whether nothing can happen to it any more.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        match (&self.money, self.work) {
            (_, Work::Running) => false,
            (Money::Settled { .. } | Money::Released, _) => true,
            // A default is kept at hand: it counts against the payer.
            (Money::Open | Money::Sent { .. } | Money::Defaulted { .. }, _) => false,
        }
    }

    /// What the node stands to lose on it at time `now` as far as its payer is concerned.
    #[must_use]
    pub(super) fn payer_exposure(&self) -> Amount {
        match (&self.money, self.work) {
            (Money::Defaulted { .. }, _) => self.amount,
            (Money::Open | Money::Sent { .. }, Work::Running | Work::Served { .. }) if !self.settle_first => {
                self.amount
            }
            _ => Amount::ZERO,
        }
    }

    /// The same towards the node's cap: a loss is forgotten after [`super::DEFAULT_MEMORY`].
    #[must_use]
    pub(super) fn node_exposure(&self, now: u64) -> Amount {
        match self.money {
            Money::Defaulted { at } if now >= at.saturating_add(super::DEFAULT_MEMORY) => Amount::ZERO,
            _ => self.payer_exposure(),
        }
    }
}
