//! One reservation: what was promised, what was done for it, what became of the money.

use crate::{
    eip712::{hash_words, uint},
    eip3009::Authorization,
    permit2::{Permit, Witness},
};
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use opg_primitives::{domain::Tag, money::Amount};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What makes a payment unique: the token accepts each pair once, and so does Permit2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Who pays.
    pub payer: Address,
    /// The authorization's nonce; for Permit2 a hash of its nonce, so that the two methods never meet.
    pub nonce: B256,
}

impl Key {
    /// Key of a Permit2 permit.
    #[must_use]
    pub fn permit2(owner: Address, nonce: U256) -> Self {
        Self {
            payer: owner,
            nonce: hash_words(&[keccak256(Tag::Permit2Payment.as_str()), uint(nonce)]),
        }
    }

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

impl From<&Permit> for Key {
    fn from(permit: &Permit) -> Self {
        Self::permit2(permit.from, permit.nonce)
    }
}

/// A permit in the terms of an authorization: the same payer, payee, amount and window, and the key's nonce. `None` for a deposit,
/// which pays nobody.
pub(super) fn as_authorization(permit: &Permit) -> Option<Authorization> {
    let (to, valid_after) = match permit.witness {
        Witness::Exact { to, valid_after } | Witness::Upto { to, valid_after, .. } => (to, valid_after),
        Witness::Deposit { .. } => return None,
    };
    Some(Authorization {
        from: permit.from,
        to,
        value: permit.amount,
        // ERC-3009 excludes both ends of the window, Permit2 and its proxies include them.
        valid_after: valid_after.saturating_sub(1),
        valid_before: permit.deadline.saturating_add(1),
        nonce: Key::from(permit).nonce,
    })
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
    /// What the payer signed; for a permit, its terms in this form.
    pub authorization: Authorization,
    /// The permit, if this is a payment by Permit2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub permit: Option<Permit>,
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

    /// What a settlement takes: the charge of an answered call under `upto`, else the signed amount.
    #[must_use]
    pub fn due(&self) -> Amount {
        let upto = matches!(self.permit, Some(permit) if matches!(permit.witness, Witness::Upto { .. }));
        match self.work {
            Work::Served { charge } if upto => charge,
            _ => self.amount,
        }
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
