//! Hidden values: affine combinations of committed wires.

use std::ops::{Add, AddAssign, Mul, Neg, Sub, SubAssign};

use p3_field::PrimeCharacteristicRing;

use crate::field::EF;

/// `constant + sum coefficient * wire`. The verifier knows the coefficients, the prover the wires too.
#[derive(Debug, Clone, Default)]
pub(crate) struct Form {
    pub(crate) constant: EF,
    pub(crate) terms: Vec<(usize, EF)>,
}

impl Form {
    /// A wire itself.
    pub(crate) fn wire(index: usize) -> Self {
        Self {
            constant: EF::ZERO,
            terms: vec![(index, EF::ONE)],
        }
    }
}

impl From<EF> for Form {
    fn from(constant: EF) -> Self {
        Self {
            constant,
            terms: Vec::new(),
        }
    }
}

impl AddAssign for Form {
    fn add_assign(&mut self, other: Self) {
        self.constant += other.constant;
        self.terms.extend(other.terms);
    }
}

impl SubAssign for Form {
    fn sub_assign(&mut self, other: Self) {
        *self += -other;
    }
}

impl Add for Form {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl Sub for Form {
    type Output = Self;

    fn sub(mut self, other: Self) -> Self {
        self -= other;
        self
    }
}

impl Neg for Form {
    type Output = Self;

    fn neg(self) -> Self {
        self * EF::NEG_ONE
    }
}

impl Mul<EF> for Form {
    type Output = Self;

    fn mul(mut self, factor: EF) -> Self {
        self.constant *= factor;
        self.terms
            .iter_mut()
            .for_each(|(_, coefficient)| *coefficient *= factor);
        self
    }
}
