//! Certificates and validator sets in the form that a contract of another chain takes (`Checkpoint.sol`): points uncompressed, as EIP-2537
//! wants them. Nothing is verified here but the form; [`Epochs::verify`](crate::handover::Epochs::verify) verifies, and the contract does again.

use crate::error::ProofError;
use alloy_primitives::U256;
use blst::min_sig::{PublicKey, Signature};
use opg_contracts::seats::Seat;
use opg_receipt::file::Finality;

/// Bytes of a coordinate of the curve.
const COORDINATE: usize = 48;
/// Most seats: a bitmap is one word, and the contract keeps at most 127 keys.
pub const MAX_SEATS: usize = 127;

/// Who signed, and the sum of the signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signatures {
    /// Bit `i` is validator `i` in the order of the consensus keys.
    pub signers: U256,
    /// x of the sum, big-endian.
    pub x: [u8; COORDINATE],
    /// y of the sum, big-endian.
    pub y: [u8; COORDINATE],
}

/// What a contract needs beside a set of seats to store its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// Place in the set of each seat in ascending order of consensus keys.
    pub order: Vec<u8>,
    /// y of each key in that order: the real part, then the imaginary one, 48 bytes each.
    pub ys: Vec<u8>,
}

/// Takes a certificate of `seats` validators apart.
///
/// # Errors
/// [`ProofError::Malformed`] if it is not the encoding of a certificate of so many.
pub fn signatures(finality: &Finality, seats: usize) -> Result<Signatures, ProofError> {
    const WHAT: &str = "certificate";
    let bytes = &finality.certificate;
    let bitmap_len = seats.div_ceil(8);
    let expected = 8 + bitmap_len + COORDINATE;
    if seats == 0 || seats > MAX_SEATS || bytes.len() != expected {
        let reason = format!("expected {expected} bytes for {seats} seats, got {}", bytes.len());
        return Err(ProofError::malformed(WHAT, reason));
    }
    let (_, rest) = bytes.split_at(8);
    let (bitmap, signature) = rest.split_at(bitmap_len);
    // The lowest bit of the first byte is the first validator.
    let mut word = [0; 32];
    for (to, from) in word.iter_mut().zip(bitmap) {
        *to = *from;
    }
    let point = Signature::sig_validate(signature, true)
        .map_err(|_| ProofError::malformed(WHAT, "the signature is no point of the group"))?
        .serialize();
    let (x, y) = point.split_at(COORDINATE);
    let part = |bytes: &[u8]| {
        bytes
            .try_into()
            .map_err(|_| ProofError::malformed(WHAT, "length of a point"))
    };
    Ok(Signatures {
        signers: U256::from_le_bytes(word),
        x: part(x)?,
        y: part(y)?,
    })
}

/// Order and coordinates of a set's keys.
///
/// # Errors
/// [`ProofError::Seat`] naming a seat whose key is none, [`ProofError::ValidatorSet`] for no seats or too many.
pub fn keys(seats: &[Seat]) -> Result<Keys, ProofError> {
    if seats.is_empty() || seats.len() > MAX_SEATS {
        return Err(ProofError::ValidatorSet("1 to 127 seats fit the contract"));
    }
    let mut sorted: Vec<(usize, &Seat)> = seats.iter().enumerate().collect();
    sorted.sort_by_key(|(_, seat)| seat.identity);
    let mut keys = Keys {
        order: Vec::with_capacity(seats.len()),
        ys: Vec::with_capacity(seats.len() * 2 * COORDINATE),
    };
    for (seat, entry) in sorted {
        let point = PublicKey::key_validate(entry.bls.as_slice())
            .map_err(|_| ProofError::Seat { seat })?
            .serialize();
        let (_, y) = point.split_at(2 * COORDINATE);
        // The serialization has the imaginary part first.
        let (imaginary, real) = y.split_at(COORDINATE);
        keys.order
            .push(u8::try_from(seat).map_err(|_| ProofError::ValidatorSet("1 to 127 seats fit the contract"))?);
        keys.ys.extend_from_slice(real);
        keys.ys.extend_from_slice(imaginary);
    }
    Ok(keys)
}
