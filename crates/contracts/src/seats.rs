//! Validator sets as the staking contract commits to them: `setHash[epoch] = keccak256(abi.encode(Seat[]))`.
//!
//! A light client gets the seats from a stranger and the hash from a state proof, so [`decode`] takes exactly the bytes that
//! [`encode`] writes: one set has one encoding.

use crate::{StateReader, addresses, slots, state::field};
use alloy_primitives::{Address, B256, Bytes, FixedBytes, U256, keccak256};
use alloy_sol_types::{SolCall as _, SolValue, sol};

/// Most seats that are decoded.
pub const MAX_SEATS: usize = 256;
/// Bytes of the encoding of one seat, its offset included.
const SEAT_BYTES: usize = 9 * 32;
/// Most bytes of an encoded set.
pub const MAX_SEATS_BYTES: usize = 2 * 32 + MAX_SEATS * SEAT_BYTES;

sol! {
    struct AbiSeat {
        address operator;
        bytes32 consensusKey;
        bytes blsKey;
        address system;
    }
    struct AbiReport {
        address operator;
        uint32 led;
        uint32 missed;
    }
    function seats(uint64 epoch) external view returns (AbiSeat[] memory);
    function endEpoch(uint64 epoch, AbiReport[] calldata report) external;
}

/// What one seat did in an epoch (D16): leader views that became blocks, and those that were given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SeatReport {
    /// Owner of the seat.
    pub operator: Address,
    /// Views that became blocks.
    pub led: u32,
    /// Views that were given up.
    pub missed: u32,
}

/// Calldata of `Staking.seats(epoch)`; what it returns is for [`decode`].
#[must_use]
pub fn seats_calldata(epoch: u64) -> Bytes {
    seatsCall { epoch }.abi_encode().into()
}

/// Calldata of the system transaction that ends an epoch.
#[must_use]
pub fn end_epoch_calldata(epoch: u64, report: &[SeatReport]) -> Bytes {
    let abi = |seat: &SeatReport| AbiReport {
        operator: seat.operator,
        led: seat.led,
        missed: seat.missed,
    };
    let report = report.iter().map(abi).collect();
    endEpochCall { epoch, report }.abi_encode().into()
}

/// One validator's place in an epoch's set (D16).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Seat {
    /// Account that owns it.
    pub operator: Address,
    /// Ed25519 network identity.
    pub identity: B256,
    /// BLS12-381 public key, compressed in G2.
    pub bls: FixedBytes<96>,
    /// Account that signs system transactions and is coinbase of its blocks.
    pub system: Address,
}

/// Why bytes are not a set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SeatsError {
    /// More bytes than the largest set has.
    #[error("seats of {got} bytes, at most {limit}")]
    TooLong {
        /// Most bytes.
        limit: usize,
        /// Bytes given.
        got: usize,
    },
    /// Not the one encoding of a list of seats.
    #[error("seats: not the canonical ABI encoding")]
    Encoding,
    /// A BLS key of another length.
    #[error("seat {seat}: BLS key of {got} bytes, expected 96")]
    BlsKey {
        /// Which seat.
        seat: usize,
        /// Its key's length.
        got: usize,
    },
    /// No seats.
    #[error("no seats")]
    Empty,
}

/// `abi.encode(Seat[])`.
#[must_use]
pub fn encode(seats: &[Seat]) -> Vec<u8> {
    let abi = |seat: &Seat| AbiSeat {
        operator: seat.operator,
        consensusKey: seat.identity,
        blsKey: seat.bls.to_vec().into(),
        system: seat.system,
    };
    seats.iter().map(abi).collect::<Vec<_>>().abi_encode()
}

/// What the staking contract stores.
#[must_use]
pub fn hash(seats: &[Seat]) -> B256 {
    keccak256(encode(seats))
}

/// Reads [`encode`]'s bytes.
///
/// # Errors
/// [`SeatsError`].
pub fn decode(bytes: &[u8]) -> Result<Vec<Seat>, SeatsError> {
    if bytes.len() > MAX_SEATS_BYTES {
        let (limit, got) = (MAX_SEATS_BYTES, bytes.len());
        return Err(SeatsError::TooLong { limit, got });
    }
    let decoded = Vec::<AbiSeat>::abi_decode(bytes).map_err(|_| SeatsError::Encoding)?;
    let mut seats = Vec::with_capacity(decoded.len());
    for (seat, abi) in decoded.into_iter().enumerate() {
        let got = abi.blsKey.len();
        let bls = FixedBytes::try_from(abi.blsKey.as_ref()).map_err(|_| SeatsError::BlsKey { seat, got })?;
        seats.push(Seat {
            operator: abi.operator,
            identity: abi.consensusKey,
            bls,
            system: abi.system,
        });
    }
    if seats.is_empty() {
        return Err(SeatsError::Empty);
    }
    // offsets may overlap or point anywhere: only one of all layouts is ours
    if encode(&seats) != bytes {
        return Err(SeatsError::Encoding);
    }
    Ok(seats)
}

/// Address and slot of the hash of an epoch's set.
#[must_use]
pub fn set_hash_slot(epoch: u64) -> (Address, U256) {
    let key = B256::from(U256::from(epoch));
    (
        addresses::STAKING,
        slots::mapping(key, U256::from(slots::STAKING_SET_HASH)),
    )
}

/// The hash of an epoch's set; zero if it is not decided.
///
/// # Errors
/// The reader's.
pub fn read_set_hash<R: StateReader>(state: &R, epoch: u64) -> Result<B256, R::Error> {
    let (address, slot) = set_hash_slot(epoch);
    Ok(state.storage(address, slot)?.into())
}

/// The set of any epoch so far, in the contract's order, read slot by slot; empty if it is not decided. The contract never changes a
/// set or the keys in it, so every later state gives the same answer.
///
/// # Errors
/// The reader's.
pub fn read_seats<R: StateReader>(state: &R, epoch: u64) -> Result<Vec<Seat>, R::Error> {
    let read = |slot: U256| state.storage(addresses::STAKING, slot);
    let array = |slot: U256| U256::from_be_bytes(keccak256(slot.to_be_bytes::<32>()).0);
    let set = slots::mapping(B256::from(U256::from(epoch)), U256::from(slots::STAKING_SETS));
    let count = usize::try_from(field(read(set)?, 0, 64))
        .unwrap_or(MAX_SEATS)
        .min(MAX_SEATS);
    // Eight numbers of keys a slot; six slots for each of the keys: operator, system, identity, three of the BLS key.
    let (numbers, keys) = (array(set), array(U256::from(slots::STAKING_KEYS)));
    let mut seats = Vec::with_capacity(count);
    let mut word = U256::ZERO;
    for i in 0..count {
        if i % 8 == 0 {
            word = read(numbers.wrapping_add(U256::from(i / 8)))?;
        }
        let id = field(word, i % 8 * 32, 32);
        let base = keys.wrapping_add(U256::from(id).wrapping_mul(U256::from(6)));
        let part = |offset: u64| read(base.wrapping_add(U256::from(offset)));
        let mut bls = FixedBytes::<96>::ZERO;
        for (offset, bytes) in (3..).zip(bls.chunks_exact_mut(32)) {
            bytes.copy_from_slice(&part(offset)?.to_be_bytes::<32>());
        }
        seats.push(Seat {
            operator: Address::from_word(part(0)?.into()),
            identity: part(2)?.into(),
            bls,
            system: Address::from_word(part(1)?.into()),
        });
    }
    Ok(seats)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seat(i: u8) -> Seat {
        Seat {
            operator: Address::repeat_byte(i),
            identity: B256::repeat_byte(i + 1),
            bls: FixedBytes::repeat_byte(i + 2),
            system: Address::repeat_byte(i + 3),
        }
    }

    #[test]
    fn one_set_has_one_encoding() {
        let seats: Vec<_> = (0..5).map(|i| seat(i * 10)).collect();
        let bytes = encode(&seats);
        assert_eq!(bytes.len(), 64 + 5 * SEAT_BYTES);
        assert_eq!(decode(&bytes), Ok(seats.clone()));
        assert_eq!(hash(&seats), keccak256(&bytes));
        assert_ne!(hash(&seats[..4]), hash(&seats));
        let mut other = seats.clone();
        other.swap(0, 1);
        assert_ne!(hash(&other), hash(&seats), "order counts");
        // bytes that decode to a set but are not its encoding
        let mut longer = bytes.clone();
        longer.extend([0; 32]);
        assert_eq!(decode(&longer), Err(SeatsError::Encoding));
        for cut in 0..bytes.len() {
            assert!(decode(&bytes[..cut]).is_err());
        }
        // the first byte of a word that holds an address is padding
        let mut dirty = bytes.clone();
        let operator = 64 + 5 * 32;
        assert_eq!(dirty[operator..operator + 12], [0; 12]);
        dirty[operator] = 1;
        assert_eq!(decode(&dirty), Err(SeatsError::Encoding));
        // two seats that share their bytes
        let mut shared = bytes;
        let first: [u8; 32] = shared[64..96].try_into().unwrap();
        shared[96..128].copy_from_slice(&first);
        assert_eq!(decode(&shared), Err(SeatsError::Encoding));
    }

    /// The generated bindings come to the same bytes.
    #[test]
    fn the_contracts_own_types_agree() {
        let seats: Vec<_> = (0..5).map(|i| seat(i * 10)).collect();
        let theirs = seats.iter().map(|seat| crate::staking::Seat {
            operator: seat.operator,
            consensusKey: seat.identity,
            blsKey: seat.bls.to_vec().into(),
            system: seat.system,
        });
        let theirs: Vec<_> = theirs.collect();
        assert_eq!(theirs.abi_encode(), encode(&seats));
        let report = SeatReport {
            operator: Address::repeat_byte(1),
            led: 2,
            missed: 3,
        };
        let theirs = crate::Staking::SeatReport {
            operator: report.operator,
            led: 2,
            missed: 3,
        };
        let call = crate::Staking::endEpochCall {
            epoch_: 7,
            report: vec![theirs],
        };
        assert_eq!(Bytes::from(call.abi_encode()), end_epoch_calldata(7, &[report]));
        let call = crate::Staking::seatsCall { epoch_: 7 };
        assert_eq!(Bytes::from(call.abi_encode()), seats_calldata(7));
    }

    #[test]
    fn hostile_lengths_are_refused() {
        assert_eq!(decode(&encode(&[])), Err(SeatsError::Empty));
        assert_eq!(decode(&[]), Err(SeatsError::Encoding));
        let got = MAX_SEATS_BYTES + 1;
        let limit = MAX_SEATS_BYTES;
        assert_eq!(decode(&vec![0; got]), Err(SeatsError::TooLong { limit, got }));
        let mut huge = encode(&[seat(1)]);
        huge[32..64].fill(0xff);
        assert_eq!(decode(&huge), Err(SeatsError::Encoding));
        let short = vec![AbiSeat {
            operator: Address::ZERO,
            consensusKey: B256::ZERO,
            blsKey: vec![1; 95].into(),
            system: Address::ZERO,
        }];
        let (seat, got) = (0, 95);
        assert_eq!(decode(&short.abi_encode()), Err(SeatsError::BlsKey { seat, got }));
    }
}
