//! The x402 payment contracts as seen in raw state: slots, readers and channel ids (`docs/specs/x402-contracts.md`).
//!
//! What a payment amounts to is provable by one storage slot (D2): that of a proxy for Permit2 payments, that of a channel for
//! what its payee has claimed, that of a receiver for what it has been sent.

use crate::{
    BatchSettlement::ChannelConfig, ReceiptLedger::ChannelTerms, addresses, slots::mapping, state::StateReader,
};
use alloy_primitives::{Address, B256, U256, keccak256};
use alloy_sol_types::{Eip712Domain, SolStruct, SolValue, eip712_domain};

/// `Permit2Proxy.settlementOf`.
const PROXY_SETTLEMENTS: u64 = 0;
/// `Permit2.nonceBitmap`.
const PERMIT2_NONCES: u64 = 0;
/// `BatchSettlement.channels`.
const CHANNELS: u64 = 2;
/// `BatchSettlement._exits`.
const EXITS: u64 = 3;
/// `BatchSettlement.receivers`.
const RECEIVERS: u64 = 4;
/// `ReceiptLedger.channelSums`.
const CHANNEL_SUMS: u64 = 4;
/// `ReceiptLedger.pendingCharges`.
const PENDING_CHARGES: u64 = 5;
/// `ReceiptLedger.channelRefunds`.
const CHANNEL_REFUNDS: u64 = 6;

/// Either proxy: what a payer's Permit2 nonce has paid in `token`; [`crate::state::settlement_hash`] of recipient and value, zero
/// if nothing.
#[must_use]
pub fn settlement_slot(token: Address, payer: Address, nonce: U256) -> U256 {
    let of_token = mapping(token.into_word(), U256::from(PROXY_SETTLEMENTS));
    mapping(nonce.into(), mapping(payer.into_word(), of_token))
}

/// `Permit2`: bitmap of an owner's used nonces `256 * word … 256 * word + 255`.
#[must_use]
pub fn permit2_nonces_slot(owner: Address, word: U256) -> U256 {
    mapping(word.into(), mapping(owner.into_word(), U256::from(PERMIT2_NONCES)))
}

/// `BatchSettlement`: `balance (128) | totalClaimed (128)` of a channel, from the low bits up.
#[must_use]
pub fn channel_slot(id: B256) -> U256 {
    mapping(id, U256::from(CHANNELS))
}

/// `BatchSettlement`: `amount (128) | initiatedAt (40) | refundNonce (88)` of a channel, from the low bits up.
#[must_use]
pub fn exit_slot(id: B256) -> U256 {
    mapping(id, U256::from(EXITS))
}

/// `BatchSettlement`: `totalClaimed (128) | totalSettled (128)` of a receiver in one token, from the low bits up.
#[must_use]
pub fn receiver_slot(receiver: Address, token: Address) -> U256 {
    mapping(token.into_word(), mapping(receiver.into_word(), U256::from(RECEIVERS)))
}

/// `ReceiptLedger`: `recorded (128) | credited (128)` of a channel, from the low bits up.
#[must_use]
pub fn channel_sums_slot(id: B256) -> U256 {
    mapping(id, U256::from(CHANNEL_SUMS))
}

/// `ReceiptLedger`: `amount (128) | releaseAt (64)` that waits on one set of terms, from the low bits up.
#[must_use]
pub fn pending_charge_slot(terms: &ChannelTerms) -> U256 {
    mapping(terms_hash(terms), U256::from(PENDING_CHARGES))
}

/// `ReceiptLedger`: `claimed (128) | due (40)` of a refund that was asked for, from the low bits up.
#[must_use]
pub fn channel_refund_slot(id: B256) -> U256 {
    mapping(id, U256::from(CHANNEL_REFUNDS))
}

/// Key of pending charges: `keccak256(abi.encode(terms))`.
#[must_use]
pub fn terms_hash(terms: &ChannelTerms) -> B256 {
    keccak256(terms.abi_encode())
}

/// What a channel holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Channel {
    /// Deposited less taken back, token units.
    pub balance: u128,
    /// Claimed by the receiver, ever.
    pub total_claimed: u128,
}

/// A payer's announced withdrawal and the refund counter of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exit {
    /// Announced amount, token units.
    pub amount: u128,
    /// Block timestamp of the announcement, seconds; `None` if there is none.
    pub initiated_at: Option<u64>,
    /// Nonce that the next signed refund must carry.
    pub refund_nonce: u128,
}

/// What a receiver has claimed from all its channels and been sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Receiver {
    /// Claimed, ever.
    pub total_claimed: u128,
    /// Sent, ever.
    pub total_settled: u128,
}

/// What the ledger knows of a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChannelSums {
    /// Charges recorded, ever, wei.
    pub recorded: u128,
    /// Charges credited and overclaims refunded, ever, wei; at most what is claimed.
    pub credited: u128,
}

/// Reads the ledger's sums of a channel.
///
/// # Errors
/// Those of the reader.
pub fn read_channel_sums<R: StateReader>(state: &R, id: B256) -> Result<ChannelSums, R::Error> {
    let (recorded, credited) = halves(state.storage(addresses::RECEIPT_LEDGER, channel_sums_slot(id))?);
    Ok(ChannelSums { recorded, credited })
}

/// Where the money for a channel's receipts stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChannelStanding {
    /// The channel.
    pub channel: Channel,
    /// What the ledger knows of it.
    pub sums: ChannelSums,
}

impl ChannelStanding {
    /// Whether as much is claimed and credited as was recorded for the channel when a receipt was: then its charge, and all that
    /// stood before it, is paid.
    #[must_use]
    pub const fn covers(&self, recorded: u128) -> bool {
        self.channel.total_claimed >= recorded && self.sums.credited >= recorded
    }
}

/// Reads a channel and the ledger's sums of it.
///
/// # Errors
/// Those of the reader.
pub fn read_channel_standing<R: StateReader>(state: &R, id: B256) -> Result<ChannelStanding, R::Error> {
    Ok(ChannelStanding {
        channel: read_channel(state, id)?,
        sums: read_channel_sums(state, id)?,
    })
}

/// Reads what waits for a claim on one set of terms: the amount and the block timestamp of its release, seconds.
///
/// # Errors
/// Those of the reader.
pub fn read_pending_charge<R: StateReader>(state: &R, terms: &ChannelTerms) -> Result<(u128, u64), R::Error> {
    let (amount, rest) = halves(state.storage(addresses::RECEIPT_LEDGER, pending_charge_slot(terms))?);
    // Sixty-four bits, by the mask.
    Ok((amount, (rest & u128::from(u64::MAX)) as u64))
}

/// Reads a channel; zeros if nothing was ever deposited.
///
/// # Errors
/// Those of the reader.
pub fn read_channel<R: StateReader>(state: &R, id: B256) -> Result<Channel, R::Error> {
    let (balance, total_claimed) = halves(state.storage(addresses::BATCH_SETTLEMENT, channel_slot(id))?);
    Ok(Channel { balance, total_claimed })
}

/// Reads a channel's way out.
///
/// # Errors
/// Those of the reader.
pub fn read_exit<R: StateReader>(state: &R, id: B256) -> Result<Exit, R::Error> {
    let (amount, rest) = halves(state.storage(addresses::BATCH_SETTLEMENT, exit_slot(id))?);
    // Forty bits, by the mask.
    let initiated_at = (rest & ((1 << 40) - 1)) as u64;
    Ok(Exit {
        amount,
        initiated_at: (initiated_at != 0).then_some(initiated_at),
        refund_nonce: rest >> 40,
    })
}

/// Reads a receiver's totals in one token.
///
/// # Errors
/// Those of the reader.
pub fn read_receiver<R: StateReader>(state: &R, receiver: Address, token: Address) -> Result<Receiver, R::Error> {
    let slot = receiver_slot(receiver, token);
    let (total_claimed, total_settled) = halves(state.storage(addresses::BATCH_SETTLEMENT, slot)?);
    Ok(Receiver {
        total_claimed,
        total_settled,
    })
}

/// EIP-712 domain of channels on a chain.
#[must_use]
pub fn channel_domain(chain_id: u64) -> Eip712Domain {
    eip712_domain! {
        name: "x402 Batch Settlement",
        version: "1",
        chain_id: chain_id,
        verifying_contract: addresses::BATCH_SETTLEMENT,
    }
}

/// Id of a channel on a chain: the EIP-712 hash of its configuration.
#[must_use]
pub fn channel_id(config: &ChannelConfig, chain_id: u64) -> B256 {
    config.eip712_signing_hash(&channel_domain(chain_id))
}

/// Low and high half of a word.
fn halves(word: U256) -> (u128, u128) {
    let limbs = word.as_limbs();
    let join = |low: u64, high: u64| u128::from(low) | (u128::from(high) << 64);
    (join(limbs[0], limbs[1]), join(limbs[2], limbs[3]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(artifact: &str, label: &str) -> u64 {
        let artifact: serde_json::Value = serde_json::from_str(artifact).unwrap();
        let variables = artifact["storageLayout"]["storage"].as_array().unwrap();
        let variable = variables.iter().find(|variable| variable["label"] == label).unwrap();
        assert_eq!(variable["offset"], 0, "{label}");
        variable["slot"].as_str().unwrap().parse().unwrap()
    }

    fn members(artifact: &str, name: &str) -> Vec<(String, u64)> {
        let artifact: serde_json::Value = serde_json::from_str(artifact).unwrap();
        let members = artifact["storageLayout"]["types"][format!("t_struct({name})_storage")]["members"].clone();
        members
            .as_array()
            .unwrap()
            .iter()
            .map(|member| {
                assert_eq!(member["slot"], "0", "{name} takes one slot");
                (
                    member["label"].as_str().unwrap().into(),
                    member["offset"].as_u64().unwrap(),
                )
            })
            .collect()
    }

    #[test]
    fn slots_are_those_of_the_compiler() {
        let channels = include_str!("../../../contracts/artifacts/BatchSettlement.json");
        let permit2 = include_str!("../../../contracts/artifacts/Permit2.json");
        let exact = include_str!("../../../contracts/artifacts/ExactPermit2Proxy.json");
        let upto = include_str!("../../../contracts/artifacts/UptoPermit2Proxy.json");
        let ledger = include_str!("../../../contracts/artifacts/ReceiptLedger.json");
        for (artifact, label, slot) in [
            (ledger, "channelSums", CHANNEL_SUMS),
            (ledger, "pendingCharges", PENDING_CHARGES),
            (ledger, "channelRefunds", CHANNEL_REFUNDS),
            (channels, "channels", CHANNELS),
            (channels, "_exits", EXITS),
            (channels, "receivers", RECEIVERS),
            (permit2, "nonceBitmap", PERMIT2_NONCES),
            (exact, "settlementOf", PROXY_SETTLEMENTS),
            (upto, "settlementOf", PROXY_SETTLEMENTS),
        ] {
            assert_eq!(declared(artifact, label), slot, "{label}");
        }
        let owned = |list: &[(&str, u64)]| -> Vec<(String, u64)> {
            list.iter().map(|(label, offset)| ((*label).into(), *offset)).collect()
        };
        assert_eq!(
            members(channels, "ChannelState"),
            owned(&[("balance", 0), ("totalClaimed", 16)])
        );
        assert_eq!(
            members(channels, "ExitState"),
            owned(&[("amount", 0), ("initiatedAt", 16), ("refundNonce", 21)])
        );
        assert_eq!(
            members(channels, "ReceiverState"),
            owned(&[("totalClaimed", 0), ("totalSettled", 16)])
        );
        assert_eq!(
            members(ledger, "ChannelSums"),
            owned(&[("recorded", 0), ("credited", 16)])
        );
        assert_eq!(
            members(ledger, "PendingCharge"),
            owned(&[("amount", 0), ("releaseAt", 16)])
        );
        assert_eq!(members(ledger, "ChannelRefund"), owned(&[("claimed", 0), ("due", 16)]));
    }
}
