//! Secret randomness: from 32 bytes of the caller's generator to as many field elements as are needed.

use opg_primitives::domain::Tag;
use p3_field::{BasedVectorSpace, PrimeCharacteristicRing};
use rand::CryptoRng;

use crate::{
    field::{EF, F},
    proof::canonical,
};

/// 32 secret bytes that all randomness of a commitment is derived from.
///
/// Whoever knows the seed and the values can compute the commitment again; whoever knows the seed of a commitment can
/// read what its proofs hide.
#[derive(Clone)]
pub struct Seed([u8; 32]);

impl Seed {
    /// Draws a seed.
    pub fn random(rng: &mut impl CryptoRng) -> Self {
        let mut bytes = [0; 32];
        rng.fill_bytes(&mut bytes);
        Self(bytes)
    }

    /// A seed that was stored.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, to store them as a secret.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A key for one use, bound to what it is used for: a seed that is given twice by mistake, for other values, gives
    /// other randomness.
    pub(crate) fn key<'a>(&self, purpose: Tag, parts: impl IntoIterator<Item = &'a [u8]>) -> Key {
        let mut hasher = blake3::Hasher::new_derive_key(purpose.as_str());
        hasher.update(&self.0);
        for part in parts {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Key(*hasher.finalize().as_bytes())
    }
}

impl std::fmt::Debug for Seed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Seed(..)")
    }
}

/// What streams are derived from.
#[derive(Clone)]
pub(crate) struct Key([u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// Which stream.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Use {
    /// The tail of one row of a matrix.
    Row(usize),
    /// Salts of a tree's leaves.
    Salts,
    /// Wires and masks of a proof.
    Wires,
    /// One slot of a model.
    Slot(u32),
}

impl Key {
    fn hasher(&self, of: Use) -> blake3::Hasher {
        let (kind, index) = match of {
            Use::Row(row) => (0u8, row as u64),
            Use::Salts => (1, 0),
            Use::Wires => (2, 0),
            Use::Slot(slot) => (3, u64::from(slot)),
        };
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(&[kind]);
        hasher.update(&index.to_le_bytes());
        hasher
    }

    pub(crate) fn stream(&self, of: Use) -> Stream {
        Stream {
            reader: self.hasher(of).finalize_xof(),
            buffer: [0; 1024],
            at: 1024,
        }
    }

    pub(crate) fn derive(&self, of: Use) -> Self {
        Self(*self.hasher(of).finalize().as_bytes())
    }
}

/// BLAKE3's output stream under a secret key.
pub(crate) struct Stream {
    reader: blake3::OutputReader,
    buffer: [u8; 1024],
    at: usize,
}

impl Stream {
    fn word(&mut self) -> u32 {
        if self.at >= self.buffer.len() {
            self.reader.fill(&mut self.buffer);
            self.at = 0;
        }
        let bytes = self.buffer.get(self.at..).and_then(|rest| rest.first_chunk::<4>());
        self.at += 4;
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    }

    /// Uniform: 31 bits, again if they are not below `p`.
    pub(crate) fn base(&mut self) -> F {
        loop {
            if let Some(value) = canonical(self.word() >> 1) {
                return value;
            }
        }
    }

    pub(crate) fn bases(&mut self, count: usize) -> Vec<F> {
        (0..count).map(|_| self.base()).collect()
    }

    pub(crate) fn ext(&mut self) -> EF {
        let values: [F; 5] = std::array::from_fn(|_| self.base());
        EF::from_basis_coefficients_slice(&values).unwrap_or(EF::ZERO)
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.reader.fill(&mut bytes);
        bytes
    }
}
