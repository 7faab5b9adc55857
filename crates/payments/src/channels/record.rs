//! What the journal keeps of a channel: one JSON object that changes with the chain, and one short record that every call rewrites.

use crate::{
    channel::{ChannelConfig, Deposit},
    x402::Identifier,
};
use alloy_primitives::{B256, Bytes, U256};
use opg_primitives::money::Amount;
use serde::{Deserialize, Serialize};

/// A channel as last seen on chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChainState {
    /// Deposited, less withdrawals and refunds; claims do not lower it.
    pub balance: Amount,
    /// Claimed by the receiver, in all.
    pub total_claimed: Amount,
    /// A requested withdrawal that is not finalised.
    pub withdrawal: Option<Withdrawal>,
    /// Refund counter.
    pub refund_nonce: U256,
}

/// A withdrawal that the payer requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Withdrawal {
    /// At most this much leaves the channel.
    pub amount: Amount,
    /// When it was requested, Unix seconds of the block.
    pub requested_at: u64,
}

impl ChainState {
    /// What vouchers may reach: the balance that stays even if the pending withdrawal is finalised now.
    #[must_use]
    pub fn safe_balance(&self) -> Amount {
        self.balance
            .saturating_sub(self.withdrawal.map_or(Amount::ZERO, |withdrawal| withdrawal.amount))
    }
}

/// Where a deposit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DepositState {
    /// Signed, in our hands.
    Pending,
    /// In a transaction whose outcome is not known yet.
    Sent {
        /// Transaction.
        tx: B256,
    },
    /// In the channel.
    Confirmed {
        /// Transaction.
        tx: Option<B256>,
    },
    /// The chain will never accept it.
    Failed,
}

/// A deposit and its state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DepositRecord {
    /// What the payer signed.
    pub deposit: Deposit,
    /// The signature.
    pub signature: Bytes,
    /// Where it stands.
    pub state: DepositState,
}

impl DepositRecord {
    /// The nonce that the chain spends for it.
    #[must_use]
    pub fn key(&self) -> B256 {
        self.deposit.nonce()
    }
}

/// A claim in a transaction whose outcome is not known yet: the third state beside claimed and not claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SentClaim {
    /// Transaction.
    pub tx: B256,
    /// Total that it claims.
    pub total: Amount,
}

/// A refund that is agreed and not seen on chain yet; the channel serves nothing meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingRefund {
    /// What goes back.
    pub amount: Amount,
    /// Refund counter that it uses up.
    pub nonce: U256,
    /// Its transaction, once signed.
    pub tx: Option<B256>,
}

/// The part that changes with the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Slow {
    pub(super) config: ChannelConfig,
    pub(super) chain: ChainState,
    pub(super) deposits: Vec<DepositRecord>,
    pub(super) claim: Option<SentClaim>,
    pub(super) refund: Option<PendingRefund>,
}

/// The part that changes with every call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Hot {
    /// Owed by the payer since the channel was opened: what is claimed.
    pub(super) charged: Amount,
    /// What the client was told that it was charged; never less than `charged`.
    pub(super) reported: Amount,
    /// Ceiling of the highest voucher.
    pub(super) ceiling: Amount,
    /// Signature of that voucher; empty if there is none.
    pub(super) signature: Bytes,
    /// Highest ceiling that a headroom call used: none at or below it is taken again after a restart.
    pub(super) headroom_floor: Amount,
    /// Since when something charged is not claimed, Unix seconds; 0: nothing is.
    pub(super) unclaimed_since: u64,
}

const HOT_VERSION: u8 = 1;
const HOT_FIXED: usize = 1 + 4 * 16 + 8;

impl Hot {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HOT_FIXED + self.signature.len());
        bytes.push(HOT_VERSION);
        for amount in [self.charged, self.reported, self.ceiling, self.headroom_floor] {
            bytes.extend_from_slice(&amount.to_be_bytes());
        }
        bytes.extend_from_slice(&self.unclaimed_since.to_be_bytes());
        bytes.extend_from_slice(&self.signature);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (version, rest) = bytes.split_first()?;
        let mut rest = rest;
        let mut amount = || {
            let (head, tail) = rest.split_first_chunk::<16>()?;
            rest = tail;
            Some(Amount::from_be_bytes(*head))
        };
        let amounts = [amount()?, amount()?, amount()?, amount()?];
        let (since, signature) = rest.split_first_chunk::<8>()?;
        (*version == HOT_VERSION).then(|| Self {
            charged: amounts[0],
            reported: amounts[1],
            ceiling: amounts[2],
            headroom_floor: amounts[3],
            unclaimed_since: u64::from_be_bytes(*since),
            signature: Bytes::copy_from_slice(signature),
        })
    }
}

/// A finished call with a payment identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finished {
    /// Identifier and payment.
    pub identifier: Identifier,
    /// Charged, as the client counts it.
    pub charged: Amount,
    /// The client's total after it.
    pub cumulative: Amount,
    /// What the caller knows the result by: the receipt's id.
    pub result: B256,
}

/// Bytes of a [`Finished`] in the journal.
const FINISHED_BYTES: usize = 32 + 32 + 16 + 16 + 32;

impl Finished {
    pub(super) fn encode(&self) -> [u8; FINISHED_BYTES] {
        let mut bytes = [0; FINISHED_BYTES];
        bytes[..32].copy_from_slice(&self.identifier.id.0);
        bytes[32..64].copy_from_slice(&self.identifier.payment.0);
        bytes[64..80].copy_from_slice(&self.charged.to_be_bytes());
        bytes[80..96].copy_from_slice(&self.cumulative.to_be_bytes());
        bytes[96..].copy_from_slice(&self.result.0);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; FINISHED_BYTES] = bytes.try_into().ok()?;
        let amount = |at: usize| bytes[at..at + 16].try_into().map(Amount::from_be_bytes).ok();
        Some(Self {
            identifier: Identifier {
                id: B256::from_slice(&bytes[..32]),
                payment: B256::from_slice(&bytes[32..64]),
            },
            charged: amount(64)?,
            cumulative: amount(80)?,
            result: B256::from_slice(&bytes[96..]),
        })
    }
}
