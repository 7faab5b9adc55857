//! Reads of `Staking`: epochs and system accounts; what validators sign to register; limits of its system transactions (staking.md). Sets
//! of validators are in [`crate::seats`].

use crate::{
    addresses,
    bindings::Slashing,
    genesis_file::GenesisFile,
    slots,
    state::{StateReader, field},
};
use alloy_primitives::{Address, B256, Bytes, U256, keccak256};
use alloy_sol_types::SolCall as _;
use opg_primitives::domain::Tag;

/// One seat of a set, as `setHash` commits to it.
pub use crate::bindings::ValidatorKeys::Seat;

/// Fewest seats of a set: `Staking.MIN_SEATS`.
pub const MIN_SEATS: usize = 4;
/// Most seats of a set: `Staking.MAX_SEATS`.
pub const MAX_SEATS: usize = 100;
/// Most validators that the end of an epoch looks at: `Staking.MAX_CANDIDATES`.
pub const MAX_CANDIDATES: usize = 128;
/// Gas limit of the system transaction that ends an epoch; held by a test with 100 seats out of 128 candidates.
pub const END_EPOCH_GAS: u64 = 16_000_000;
/// Gas limit of the system transaction with verdicts on reported faults.
pub const VERDICTS_GAS: u64 = 2_500_000;
/// Most verdicts of one block: `Slashing.MAX_PER_BLOCK`.
pub const MAX_VERDICTS: usize = 4;

/// The current epoch.
///
/// # Errors
/// Those of the reader.
pub fn epoch<R: StateReader>(state: &R) -> Result<u64, R::Error> {
    let word = state.storage(addresses::STAKING, U256::from(slots::STAKING_EPOCH))?;
    Ok(field(word, 0, 64))
}

/// The seats of epoch 0: the validators of the genesis file, in its order.
#[must_use]
pub fn genesis_seats(file: &GenesisFile) -> Vec<Seat> {
    let seat = |v: &crate::ValidatorEntry| Seat {
        operator: v.operator,
        consensusKey: v.identity,
        blsKey: v.bls.to_vec().into(),
        system: v.system,
    };
    file.validators.iter().map(seat).collect()
}

/// Number of the keys that a system account belongs to, in any epoch; `None` if it is no system account. Transactions of such accounts
/// that are not system transactions are refused (D16).
///
/// # Errors
/// Those of the reader.
pub fn key_of_system<R: StateReader>(state: &R, account: Address) -> Result<Option<u64>, R::Error> {
    let slot = slots::mapping(account.into_word(), U256::from(slots::STAKING_KEY_OF_SYSTEM));
    let id = field(state.storage(addresses::STAKING, slot)?, 0, 64);
    Ok((id != 0).then_some(id))
}

/// Whether an account signs system transactions in the current epoch (`Staking.isSystem`).
///
/// # Errors
/// Those of the reader.
pub fn is_system<R: StateReader>(state: &R, account: Address) -> Result<bool, R::Error> {
    let Some(id) = key_of_system(state, account)? else {
        return Ok(false);
    };
    // `operator (160) | seatedIn (64)` is the first of the six slots of each item.
    let slot = item(slots::STAKING_KEYS, id, 6);
    let seated_in = field(state.storage(addresses::STAKING, slot)?, 160, 64);
    Ok(seated_in == epoch(state)?.saturating_add(1))
}

/// Network identities of the candidates for seats, in the contract's order: with their newest keys. Those without a seat may follow, so
/// that they are in step when they get one.
///
/// # Errors
/// Those of the reader.
pub fn candidate_identities<R: StateReader>(state: &R) -> Result<Vec<B256>, R::Error> {
    let count = state.storage(addresses::STAKING, U256::from(slots::STAKING_CANDIDATES))?;
    let mut identities = Vec::new();
    for i in 0..field(count, 0, 64).min(MAX_CANDIDATES as u64) {
        let operator = state.storage(addresses::STAKING, item(slots::STAKING_CANDIDATES, i, 1))?;
        let validator = slots::mapping(operator.into(), U256::from(slots::STAKING_VALIDATORS));
        // `keyId (32)` is the first member.
        let id = field(state.storage(addresses::STAKING, validator)?, 0, 32);
        let consensus_key = item(slots::STAKING_KEYS, id, 6).wrapping_add(U256::from(2));
        identities.push(state.storage(addresses::STAKING, consensus_key)?.into());
    }
    Ok(identities)
}

/// First slot of an item of a dynamic array.
fn item(array: u64, index: u64, size: u64) -> U256 {
    let first = U256::from_be_bytes(keccak256(U256::from(array).to_be_bytes::<32>()).0);
    first.wrapping_add(U256::from(index).wrapping_mul(U256::from(size)))
}

/// What a system account signs to show that a validator has its key: chain id, operator and epoch (D16). Not prefixed: no
/// transaction begins with these bytes.
#[must_use]
pub fn system_possession_digest(chain_id: u64, operator: Address, epoch: u64) -> B256 {
    let tag = Tag::SystemPossession.as_str().as_bytes();
    keccak256([tag, &chain_id.to_be_bytes(), operator.as_slice(), &epoch.to_be_bytes()].concat())
}

/// Calldata of the system transaction with verdicts on reported faults.
#[must_use]
pub fn verdicts_calldata(verdicts: Vec<Slashing::Verdict>) -> Bytes {
    Slashing::recordVerdictsCall { verdicts }.abi_encode().into()
}
