//! The field, its extension and the multilinear tools that every module uses.

use p3_field::{PrimeCharacteristicRing, extension::QuinticTrinomialExtensionField, integers::QuotientMap};
use p3_koala_bear::KoalaBear;

/// KoalaBear, `p = 2^31 - 2^24 + 1`: values of tensors.
pub type F = KoalaBear;

/// The degree-5 extension of [`F`], about 155 bits: challenges.
pub type EF = QuinticTrinomialExtensionField<F>;

/// The order of [`F`].
pub const P: u32 = 0x7f00_0001;

/// An integer modulo `p`.
pub fn field(value: i64) -> F {
    <F as QuotientMap<i64>>::from_int(value)
}

/// An integer modulo `p`, as a challenge.
pub fn ext(value: i64) -> EF {
    EF::from(field(value))
}

/// Least `v` with `2^v >= size`.
#[must_use]
pub const fn log2_ceil(size: usize) -> usize {
    if size <= 1 {
        0
    } else {
        (usize::BITS - (size - 1).leading_zeros()) as usize
    }
}

/// `eq(point, i)` for all `i < size`; the first coordinate belongs to the highest bit of `i`.
#[must_use]
pub fn eq_table(point: &[EF], size: usize) -> Vec<EF> {
    let mut table = Vec::with_capacity(size);
    table.push(EF::ONE);
    for r in point.iter().rev() {
        // The upper half belongs to a bit of 1; of the last one only what fits is made.
        let half = table.len();
        let upper = size.saturating_sub(half).min(half);
        table.resize(half + upper, EF::ZERO);
        let (low, high) = table.split_at_mut(half);
        let (paired, alone) = low.split_at_mut(upper);
        for (value, one) in paired.iter_mut().zip(high) {
            *one = *value * *r;
            *value -= *one;
        }
        let zero = EF::ONE - *r;
        alone.iter_mut().for_each(|value| *value *= zero);
    }
    table.truncate(size);
    table
}

/// `eq` of two points of the same length.
pub fn eq_points(a: &[EF], b: &[EF]) -> EF {
    a.iter()
        .zip(b)
        .map(|(a, b)| (*a * *b).double() - *a - *b + EF::ONE)
        .product()
}

/// `eq(point, index)` for one index.
pub fn eq_index(point: &[EF], index: usize) -> EF {
    let bits = point.len();
    point
        .iter()
        .enumerate()
        .map(|(i, r)| {
            if (index >> (bits - 1 - i)) & 1 == 1 {
                *r
            } else {
                EF::ONE - *r
            }
        })
        .product()
}

/// `sum_i a_i b_i`.
pub fn dot(a: &[EF], b: &[EF]) -> EF {
    a.iter().zip(b).map(|(a, b)| *a * *b).sum()
}
