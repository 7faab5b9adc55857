//! What governance decides about, read from state: rules of blocks, escrow windows, weights of the split. And what they are in
//! block 0 where the genesis file does not say.

use crate::{
    addresses,
    bindings::FeatureTiers,
    slots,
    state::{StateReader, field},
};
use opg_primitives::money::WEI_PER_OPG;

/// Verification budget of a block in block 0, cost units of 100 µs of one core: four seconds, of which proofs that came before their block
/// cost none.
pub const VERIFICATION_BUDGET: u64 = 40_000;
/// Least number of price feeds of a round in block 0.
pub const MIN_FEEDS: u8 = 3;
/// Seconds for which a price is usable in block 0.
pub const MAX_PRICE_AGE: u32 = 900;

/// Rules of blocks (`ChainParameters.Values`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRules {
    /// Gas limit.
    pub gas_limit: u64,
    /// Cost units of receipts and proofs that a block may hold.
    pub verification_budget: u64,
}

/// What the ledger shares by (`ReceiptLedger.rules`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerRules {
    /// Escrow windows in seconds by mode: none, tee, zk, replay.
    pub windows: [u64; 4],
    /// Weights of node, auditors, treasury and router.
    pub weights: [u16; 4],
    /// The same for closed models.
    pub closed_weights: [u8; 4],
}

/// The rules that count at a height. Nodes ask the state of its parent.
///
/// # Errors
/// Those of the reader.
pub fn block_rules<R: StateReader>(state: &R, height: u64) -> Result<BlockRules, R::Error> {
    let next = state.storage(addresses::CHAIN_PARAMETERS, slots::chain_parameters_next())?;
    let activation = field(next, 128, 64);
    let word = if activation != 0 && height >= activation {
        next
    } else {
        state.storage(addresses::CHAIN_PARAMETERS, slots::chain_parameters_current())?
    };
    Ok(BlockRules {
        gas_limit: field(word, 0, 64),
        verification_budget: field(word, 64, 64),
    })
}

/// Escrow windows for receipts recorded, and weights for charges credited, on this state.
///
/// # Errors
/// Those of the reader.
pub fn ledger_rules<R: StateReader>(state: &R) -> Result<LedgerRules, R::Error> {
    let word = state.storage(addresses::RECEIPT_LEDGER, slots::ledger_rules())?;
    Ok(LedgerRules {
        windows: [0, 40, 80, 120].map(|shift| field(word, shift, 40)),
        // Sixteen bits each, by the mask in `field`.
        weights: [160, 176, 192, 208].map(|shift| field(word, shift, 16) as u16),
        // Eight bits each.
        closed_weights: [224, 232, 240, 248].map(|shift| field(word, shift, 8) as u8),
    })
}

/// Tiers of block 0: everyone, and from 1,000 and 25,000 OPG on.
#[must_use]
pub fn default_tiers() -> Vec<FeatureTiers::Tier> {
    let tier = |opg: u128, discount_bps, per_minute, bytes| FeatureTiers::Tier {
        threshold: opg * WEI_PER_OPG,
        discountBps: discount_bps,
        requestsPerMinute: per_minute,
        maxRequestBytes: bytes,
    };
    vec![
        tier(0, 0, 20, 1 << 20),
        tier(1_000, 500, 100, 4 << 20),
        tier(25_000, 1_500, 600, 16 << 20),
    ]
}
