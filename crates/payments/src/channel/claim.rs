//! What the receiver's authorizer signs: batches of claims, and refunds.

use crate::eip712::{Domain, hash_words, uint};
use alloy_primitives::{B256, FixedBytesSliceExt as _, U256, b256, keccak256};
use opg_primitives::money::Amount;
use serde::{Deserialize, Serialize};

/// `keccak256("ClaimEntry(bytes32 channelId,uint128 maxClaimableAmount,uint128 totalClaimed)")`.
const ENTRY_TYPEHASH: B256 = b256!("30b9a0367528fca13c3e8ec6134c3113f1887ebe7a1ad61de0955aac288b0cf5");
/// `keccak256("ClaimBatch(ClaimEntry[] claims)ClaimEntry(…)")`.
const BATCH_TYPEHASH: B256 = b256!("42bd57c010b870c2e96203c66341f28a6a19b4d56a74533a8eb5f706b9fd6d57");
/// `keccak256("Refund(bytes32 channelId,uint256 nonce,uint128 amount)")`.
const REFUND_TYPEHASH: B256 = b256!("be23ad087435072cd69b49cc5b92de10ee610fce7ae0ab428307972d764bb216");

/// One channel of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ClaimEntry {
    /// The channel.
    pub channel_id: B256,
    /// Ceiling of the voucher that is shown.
    pub max_claimable: Amount,
    /// What the receiver has charged since the channel was opened; at most the ceiling.
    pub total_claimed: Amount,
}

/// The digest of a batch of claims, which the receiver's authorizer signs for `claimWithSignature`.
#[must_use]
pub fn claim_batch_digest(domain: &Domain, entries: &[ClaimEntry]) -> B256 {
    let hashes: Vec<B256> = entries
        .iter()
        .map(|entry| {
            hash_words(&[
                ENTRY_TYPEHASH,
                entry.channel_id,
                uint(entry.max_claimable.to_u256()),
                uint(entry.total_claimed.to_u256()),
            ])
        })
        .collect();
    domain.digest(hash_words(&[BATCH_TYPEHASH, keccak256(hashes.as_flattened())]))
}

/// Money that goes back to the payer at once, by agreement of the receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Refund {
    /// The channel.
    pub channel_id: B256,
    /// The channel's refund counter on chain.
    pub nonce: U256,
    /// Amount.
    pub amount: Amount,
}

impl Refund {
    /// The digest that the receiver's authorizer signs for `refundWithSignature`.
    #[must_use]
    pub fn digest(&self, domain: &Domain) -> B256 {
        domain.digest(hash_words(&[
            REFUND_TYPEHASH,
            self.channel_id,
            uint(self.nonce),
            uint(self.amount.to_u256()),
        ]))
    }
}
