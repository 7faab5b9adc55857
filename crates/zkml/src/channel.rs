//! Both ends of the protocol: the prover's end makes messages, the verifier's end reads and checks them.
//!
//! The protocol itself ([`crate::protocol`]) is written once, over [`Channel`]. Every message is absorbed before the
//! next challenge is drawn.

use std::ops::{Add, AddAssign, Mul, Neg, Sub, SubAssign};

use p3_challenger::{CanObserve, FieldChallenger};
use p3_field::{BasedVectorSpace, PrimeCharacteristicRing};
use p3_multi_stark::fractional_gkr::{
    Fraction, FractionGkrOutput, FractionGkrProof, LeafNumerator, prove_fractional_gkr, verify_fractional_gkr,
};
use p3_multilinear_util::poly::{Poly, PolyMaybePacked};

use crate::{
    checks::Checks,
    commit::Challenger,
    error::{Check, VerifyError},
    field::{EF, F},
    proof::{Reader, Writer},
    sumcheck::{Product, Table, interpolate},
    witness::Witness,
};

/// Where a sumcheck ended.
#[derive(Debug)]
pub(crate) struct Reduced<V> {
    /// The point.
    pub(crate) point: Vec<EF>,
    /// What the product of the polynomials must be there.
    pub(crate) expected: V,
    /// The polynomials' values: the prover knows them, the verifier has none.
    pub(crate) finals: Vec<EF>,
}

/// Where the lookup argument ended.
#[derive(Debug)]
pub(crate) struct Fractions<V> {
    /// The point.
    pub(crate) point: Vec<EF>,
    /// The numerators' extension there.
    pub(crate) numerator: V,
    /// The denominators' extension there.
    pub(crate) denominator: V,
}

/// What the protocol computes with: numbers, or numbers that the verifier does not see and combines all the same.
pub(crate) trait Value:
    Clone
    + std::fmt::Debug
    + From<EF>
    + Add<Output = Self>
    + Sub<Output = Self>
    + Neg<Output = Self>
    + Mul<EF, Output = Self>
    + AddAssign
    + SubAssign
{
}

impl<T> Value for T where
    T: Clone
        + std::fmt::Debug
        + From<EF>
        + Add<Output = T>
        + Sub<Output = T>
        + Neg<Output = T>
        + Mul<EF, Output = T>
        + AddAssign
        + SubAssign
{
}

/// One end of the protocol.
pub(crate) trait Channel {
    /// What messages are to this end.
    type Value: Value;

    /// Elements of the extension field: `make` is called by the prover only.
    fn values(
        &mut self,
        count: usize,
        make: impl FnOnce(&Witness<'_>) -> Vec<EF>,
    ) -> Result<Vec<Self::Value>, VerifyError>;

    /// A challenge.
    fn challenge(&mut self) -> EF;

    /// Several challenges.
    fn challenges(&mut self, count: usize) -> Vec<EF> {
        (0..count).map(|_| self.challenge()).collect()
    }

    /// Sumcheck of a product of `degree` polynomials over `variables` variables.
    fn sumcheck(
        &mut self,
        claim: Self::Value,
        variables: usize,
        degree: usize,
        make: impl FnOnce(&Witness<'_>) -> Vec<Table>,
    ) -> Result<Reduced<Self::Value>, VerifyError>;

    /// Lookup argument over `2^variables` fractions; `make` gives numerators and denominators.
    fn fractions(
        &mut self,
        variables: usize,
        make: impl FnOnce(&Witness<'_>) -> (Vec<F>, Vec<EF>),
    ) -> Result<Fractions<Self::Value>, VerifyError>;

    /// Whether an argument is part of the protocol at all: `false` in tests of the tests only.
    fn makes(&self, check: Check) -> bool;

    /// Refuses the proof unless a value is zero.
    fn zero(&mut self, check: Check, value: Self::Value, place: &str) -> Result<(), VerifyError>;

    /// Refuses the proof unless `factor * a * b = expected`.
    fn product(
        &mut self,
        check: Check,
        factor: EF,
        a: &Self::Value,
        b: &Self::Value,
        expected: &Self::Value,
        place: &str,
    ) -> Result<(), VerifyError>;
}

/// The prover's end.
pub(crate) struct ProverChannel<'a, 'w> {
    pub(crate) challenger: &'a mut Challenger,
    pub(crate) writer: &'a mut Writer,
    pub(crate) witness: &'a Witness<'w>,
    pub(crate) checks: Checks,
}

impl ProverChannel<'_, '_> {
    fn send(&mut self, values: &[EF]) {
        for value in values {
            self.challenger.observe_algebra_element(*value);
            self.writer.ext(*value);
        }
    }
}

impl Channel for ProverChannel<'_, '_> {
    type Value = EF;

    fn values(&mut self, _: usize, make: impl FnOnce(&Witness<'_>) -> Vec<EF>) -> Result<Vec<EF>, VerifyError> {
        let values = make(self.witness);
        self.send(&values);
        Ok(values)
    }

    fn challenge(&mut self) -> EF {
        self.challenger.sample_algebra_element()
    }

    fn sumcheck(
        &mut self,
        _: EF,
        variables: usize,
        _: usize,
        make: impl FnOnce(&Witness<'_>) -> Vec<Table>,
    ) -> Result<Reduced<EF>, VerifyError> {
        let mut product = Product::new(make(self.witness));
        let mut point = Vec::with_capacity(variables);
        for _ in 0..variables {
            let values = product.round();
            self.send(&values);
            let r = self.challenge();
            product.bind(r);
            point.push(r);
        }
        let finals = product.finals();
        Ok(Reduced {
            point,
            expected: finals.iter().copied().product(),
            finals,
        })
    }

    fn fractions(
        &mut self,
        _: usize,
        make: impl FnOnce(&Witness<'_>) -> (Vec<F>, Vec<EF>),
    ) -> Result<Fractions<EF>, VerifyError> {
        let (numerators, denominators) = make(self.witness);
        let numerators = Poly::new(numerators);
        let denominators = Poly::new(denominators);
        // Lanes pay for themselves on larger tables; the proof is the same either way.
        let denominators = if denominators.num_variables() >= 8 {
            PolyMaybePacked::<F, EF>::Packed(denominators.pack::<F, EF>())
        } else {
            PolyMaybePacked::Scalar(denominators)
        };
        let (proof, output) = prove_fractional_gkr::<F, EF, _>(
            Fraction {
                n: LeafNumerator::Base(&numerators),
                d: &denominators,
            },
            self.challenger,
        );
        self.writer.fractions(&proof);
        Ok(output.into())
    }

    fn makes(&self, check: Check) -> bool {
        self.checks.is_made(check)
    }

    fn zero(&mut self, _: Check, _: EF, _: &str) -> Result<(), VerifyError> {
        Ok(())
    }

    fn product(&mut self, _: Check, _: EF, _: &EF, _: &EF, _: &EF, _: &str) -> Result<(), VerifyError> {
        Ok(())
    }
}

/// The verifier's end.
pub(crate) struct VerifierChannel<'a, 'b> {
    pub(crate) challenger: &'a mut Challenger,
    pub(crate) reader: &'a mut Reader<'b>,
    pub(crate) checks: Checks,
}

impl Channel for VerifierChannel<'_, '_> {
    type Value = EF;

    fn values(&mut self, count: usize, _: impl FnOnce(&Witness<'_>) -> Vec<EF>) -> Result<Vec<EF>, VerifyError> {
        let mut values = Vec::new();
        for _ in 0..count {
            let value = self.reader.ext("a claimed value")?;
            self.challenger.observe_algebra_element(value);
            values.push(value);
        }
        Ok(values)
    }

    fn challenge(&mut self) -> EF {
        self.challenger.sample_algebra_element()
    }

    fn sumcheck(
        &mut self,
        claim: EF,
        variables: usize,
        degree: usize,
        make: impl FnOnce(&Witness<'_>) -> Vec<Table>,
    ) -> Result<Reduced<EF>, VerifyError> {
        drop(make);
        let mut expected = claim;
        let mut point = Vec::with_capacity(variables);
        for _ in 0..variables {
            let values = self.values(degree, |_| Vec::new())?;
            let r = self.challenge();
            expected = interpolate(&values, expected, r);
            point.push(r);
        }
        Ok(Reduced {
            point,
            expected,
            finals: Vec::new(),
        })
    }

    fn fractions(
        &mut self,
        variables: usize,
        _: impl FnOnce(&Witness<'_>) -> (Vec<F>, Vec<EF>),
    ) -> Result<Fractions<EF>, VerifyError> {
        let proof: FractionGkrProof<EF> = self.reader.fractions(variables)?;
        match verify_fractional_gkr::<F, EF, _>(&proof, variables, self.challenger) {
            Ok(output) => Ok(output.into()),
            Err(error) => Err(VerifyError::Check {
                check: Check::Lookup,
                place: error.to_string(),
            }),
        }
    }

    fn makes(&self, check: Check) -> bool {
        self.checks.is_made(check)
    }

    fn zero(&mut self, check: Check, value: EF, place: &str) -> Result<(), VerifyError> {
        self.checks.require(check, value == EF::ZERO, place)
    }

    fn product(
        &mut self,
        check: Check,
        factor: EF,
        a: &EF,
        b: &EF,
        expected: &EF,
        place: &str,
    ) -> Result<(), VerifyError> {
        self.checks.require(check, factor * *a * *b == *expected, place)
    }
}

impl From<FractionGkrOutput<EF>> for Fractions<EF> {
    fn from(output: FractionGkrOutput<EF>) -> Self {
        Self {
            point: output.point.as_slice().to_vec(),
            numerator: output.numerator,
            denominator: output.denominator,
        }
    }
}

/// The value of a message of one.
pub(crate) fn single<V: Value>(values: Vec<V>) -> V {
    values.into_iter().next().unwrap_or_else(|| V::from(EF::ZERO))
}

/// The values of a message of two.
pub(crate) fn pair<V: Value>(values: Vec<V>) -> [V; 2] {
    let mut values = values.into_iter();
    let mut next = || values.next().unwrap_or_else(|| V::from(EF::ZERO));
    [next(), next()]
}

/// Absorbs bytes with their length: three bytes an element.
pub(crate) fn absorb(challenger: &mut Challenger, bytes: &[u8]) {
    let length = bytes.len() as u64;
    for shift in [0, 24, 48] {
        let limb = u32::try_from((length >> shift) & 0xff_ffff).unwrap_or(0);
        challenger.observe(F::from_u32(limb));
    }
    for chunk in bytes.chunks(3) {
        let limb = chunk
            .iter()
            .rev()
            .fold(0u32, |limb, byte| (limb << 8) | u32::from(*byte));
        challenger.observe(F::from_u32(limb));
    }
}

/// Coefficients of an extension element.
pub(crate) fn coefficients(value: &EF) -> &[F] {
    value.as_basis_coefficients_slice()
}
