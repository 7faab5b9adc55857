//! Arithmetic modulo `2^255 - 19`, by the formally verified code of fiat-crypto.

use fiat_crypto::curve25519_64::{
    fiat_25519_add, fiat_25519_carry, fiat_25519_carry_mul, fiat_25519_carry_square, fiat_25519_from_bytes,
    fiat_25519_loose_field_element, fiat_25519_opp, fiat_25519_relax, fiat_25519_sub, fiat_25519_tight_field_element,
    fiat_25519_to_bytes,
};

/// An element whose limbs are in the bounds of results.
#[derive(Clone, Copy)]
pub(super) struct Field(fiat_25519_tight_field_element);

/// An element whose limbs are in the wider bounds of operands: a sum or difference.
#[derive(Clone, Copy)]
pub(super) struct Loose(fiat_25519_loose_field_element);

/// Where results are written.
const EMPTY: [u64; 5] = [0; 5];

impl Field {
    pub(super) const ZERO: Self = Self(fiat_25519_tight_field_element(EMPTY));
    pub(super) const ONE: Self = Self(fiat_25519_tight_field_element([1, 0, 0, 0, 0]));

    /// Reads 32 bytes, little-endian; the highest bit must be 0.
    pub(super) fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut out = Self::ZERO;
        fiat_25519_from_bytes(&mut out.0, bytes);
        out
    }

    /// The one encoding below the modulus.
    pub(super) fn to_bytes(self) -> [u8; 32] {
        let mut out = [0; 32];
        fiat_25519_to_bytes(&mut out, &self.0);
        out
    }

    #[inline(always)]
    pub(super) fn loose(self) -> Loose {
        let mut out = fiat_25519_loose_field_element(EMPTY);
        fiat_25519_relax(&mut out, &self.0);
        Loose(out)
    }

    #[inline(always)]
    pub(super) fn plus(self, other: Self) -> Loose {
        let mut out = fiat_25519_loose_field_element(EMPTY);
        fiat_25519_add(&mut out, &self.0, &other.0);
        Loose(out)
    }

    #[inline(always)]
    pub(super) fn minus(self, other: Self) -> Loose {
        let mut out = fiat_25519_loose_field_element(EMPTY);
        fiat_25519_sub(&mut out, &self.0, &other.0);
        Loose(out)
    }

    pub(super) fn negate(self) -> Self {
        let mut out = fiat_25519_loose_field_element(EMPTY);
        fiat_25519_opp(&mut out, &self.0);
        Loose(out).carry()
    }

    #[inline(always)]
    pub(super) fn times(self, other: Self) -> Self {
        self.loose().times(other.loose())
    }

    #[inline(always)]
    pub(super) fn square(self) -> Self {
        let mut out = Self::ZERO;
        fiat_25519_carry_square(&mut out.0, &self.loose().0);
        out
    }

    fn squares(mut self, times: u32) -> Self {
        for _ in 0..times {
            self = self.square();
        }
        self
    }

    /// `(self^(2^250 - 1), self^11)`.
    fn chain(self) -> (Self, Self) {
        let two = self.square();
        let nine = self.times(two.squares(2));
        let eleven = two.times(nine);
        let b5 = nine.times(eleven.square());
        let b10 = b5.squares(5).times(b5);
        let b20 = b10.squares(10).times(b10);
        let b40 = b20.squares(20).times(b20);
        let b50 = b40.squares(10).times(b10);
        let b100 = b50.squares(50).times(b50);
        let b200 = b100.squares(100).times(b100);
        (b200.squares(50).times(b50), eleven)
    }

    /// The inverse; 0 for 0.
    pub(super) fn invert(self) -> Self {
        let (chain, eleven) = self.chain();
        chain.squares(5).times(eleven)
    }

    /// `self^((p - 5) / 8)`.
    pub(super) fn power_58(self) -> Self {
        let (chain, _) = self.chain();
        chain.squares(2).times(self)
    }

    /// The lowest bit of the encoding.
    pub(super) fn is_odd(self) -> bool {
        let [first, ..] = self.to_bytes();
        first & 1 == 1
    }
}

impl Loose {
    #[inline(always)]
    pub(super) fn times(self, other: Self) -> Field {
        let mut out = Field::ZERO;
        fiat_25519_carry_mul(&mut out.0, &self.0, &other.0);
        out
    }

    #[inline(always)]
    pub(super) fn carry(self) -> Field {
        let mut out = Field::ZERO;
        fiat_25519_carry(&mut out.0, &self.0);
        out
    }
}

impl PartialEq for Field {
    fn eq(&self, other: &Self) -> bool {
        self.to_bytes() == other.to_bytes()
    }
}

impl std::fmt::Debug for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Field({:02x?})", self.to_bytes())
    }
}

/// Inverts every element, with one inversion for all (Montgomery's trick). None may be 0.
pub(super) fn invert_all(elements: &mut [Field]) {
    let mut product = Field::ONE;
    let mut before = Vec::with_capacity(elements.len());
    for element in elements.iter() {
        before.push(product);
        product = product.times(*element);
    }
    let mut inverse = product.invert();
    for (element, before) in elements.iter_mut().zip(before).rev() {
        let own = inverse.times(before);
        inverse = inverse.times(*element);
        *element = own;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(value: u64) -> Field {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&value.to_le_bytes());
        Field::from_bytes(&bytes)
    }

    #[test]
    fn inverses_and_powers() {
        let mut all: Vec<Field> = (1u64..40)
            .map(|i| number(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
            .collect();
        let originals = all.clone();
        invert_all(&mut all);
        for (inverse, original) in all.iter().zip(&originals) {
            assert_eq!(inverse.times(*original), Field::ONE);
            assert_eq!(*inverse, original.invert());
            // x^((p-5)/8) to the eighth, times x^4, is x^(p-1)
            let power = original.power_58();
            assert_eq!(power.squares(3).times(original.squares(2)), Field::ONE);
            assert_eq!(original.negate().plus(*original).carry(), Field::ZERO);
        }
        assert_eq!(Field::ZERO.invert(), Field::ZERO);
        // the modulus is 0
        let mut modulus = [0xff; 32];
        (modulus[0], modulus[31]) = (0xed, 0x7f);
        assert_eq!(Field::from_bytes(&modulus), Field::ZERO);
    }
}
