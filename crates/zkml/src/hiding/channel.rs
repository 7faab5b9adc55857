//! Both ends of the hiding protocol.
//!
//! A message of the protocol travels as `message + wire`, where the wires are random and were committed before the first
//! challenge: every message has a wire of its own, so what travels is uniform and independent of everything else. Both
//! ends go on with the form `travelled - wire`, and collect what must be zero. The closing argument
//! ([`super::argument`]) proves it.
//!
//! Products use six more wires each: a random `x`, `y` and `z = xy`, so that from the public, uniform `a - x` and `b - y`
//! the product `ab` is again a form; and a second such triple that is sacrificed to prove the first one.

use p3_challenger::{CanObserve, FieldChallenger};
use p3_field::{Field, PrimeCharacteristicRing};

use crate::{
    channel::{Channel, Fractions, Reduced},
    checks::Checks,
    commit::Challenger,
    error::{Check, VerifyError},
    field::{EF, F},
    hiding::{
        forge::{Forge, Trick},
        form::Form,
        fractions::fractions,
    },
    proof::{Reader, Writer},
    sumcheck::{Product, Table, lagrange},
    witness::Witness,
};

/// Wires of a product.
pub(crate) const TRIPLE: usize = 6;

/// What differs between prover and verifier.
pub(crate) trait End {
    /// A challenge.
    fn sample(&mut self) -> EF;

    /// A public element: the prover sends the given one, the verifier gets what was sent.
    fn exchange(&mut self, value: EF) -> Result<EF, VerifyError>;

    /// The prover's data.
    fn witness(&self) -> Option<&Witness<'_>>;

    /// A wire's value; the verifier has zeros.
    fn wire(&self, index: usize) -> EF;

    /// What a test lets the prover do wrong.
    fn forge(&self) -> Forge {
        Forge::default()
    }
}

/// The prover.
pub(crate) struct ProverEnd<'a, 'w> {
    pub(crate) challenger: &'a mut Challenger,
    pub(crate) writer: &'a mut Writer,
    pub(crate) witness: &'a Witness<'w>,
    pub(crate) wires: &'a [EF],
    pub(crate) forge: Forge,
}

impl End for ProverEnd<'_, '_> {
    fn sample(&mut self) -> EF {
        self.challenger.sample_algebra_element()
    }

    fn exchange(&mut self, value: EF) -> Result<EF, VerifyError> {
        self.challenger.observe_algebra_element(value);
        self.writer.ext(value);
        Ok(value)
    }

    fn witness(&self) -> Option<&Witness<'_>> {
        Some(self.witness)
    }

    fn wire(&self, index: usize) -> EF {
        self.wires.get(index).copied().unwrap_or(EF::ZERO)
    }

    fn forge(&self) -> Forge {
        self.forge
    }
}

/// The verifier.
pub(crate) struct VerifierEnd<'a, 'b> {
    pub(crate) challenger: &'a mut Challenger,
    pub(crate) reader: &'a mut Reader<'b>,
}

impl End for VerifierEnd<'_, '_> {
    fn sample(&mut self) -> EF {
        self.challenger.sample_algebra_element()
    }

    fn exchange(&mut self, _: EF) -> Result<EF, VerifyError> {
        let value = self.reader.ext("a message")?;
        self.challenger.observe_algebra_element(value);
        Ok(value)
    }

    fn witness(&self) -> Option<&Witness<'_>> {
        None
    }

    fn wire(&self, _: usize) -> EF {
        EF::ZERO
    }
}

/// Where the wires of a run lie: all messages, then all products.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wires {
    pub(crate) messages: usize,
    pub(crate) products: usize,
}

impl Wires {
    pub(crate) const fn total(self) -> usize {
        self.messages + TRIPLE * self.products
    }
}

/// One end, with what it has collected.
pub(crate) struct HidingChannel<E> {
    pub(crate) end: E,
    pub(crate) checks: Checks,
    pub(crate) wires: Wires,
    pub(crate) used: Wires,
    /// Forms that must be zero.
    pub(crate) zeros: Vec<Form>,
}

impl<E: End> HidingChannel<E> {
    pub(crate) const fn new(end: E, checks: Checks, wires: Wires) -> Self {
        Self {
            end,
            checks,
            wires,
            used: Wires {
                messages: 0,
                products: 0,
            },
            zeros: Vec::new(),
        }
    }

    /// The value of a form: the prover's.
    pub(crate) fn evaluate(&self, form: &Form) -> EF {
        let terms = form.terms.iter();
        form.constant + terms.map(|(index, factor)| *factor * self.end.wire(*index)).sum::<EF>()
    }

    /// Sends an element under a wire of its own.
    pub(crate) fn send(&mut self, value: EF) -> Result<Form, VerifyError> {
        let wire = self.used.messages;
        if wire >= self.wires.messages {
            return Err(VerifyError::Truncated("the wires"));
        }
        self.used.messages += 1;
        let travelled = self.end.exchange(value + self.end.wire(wire))?;
        Ok(Form::from(travelled) - Form::wire(wire))
    }

    pub(crate) fn send_all(&mut self, values: &[EF], count: usize) -> Result<Vec<Form>, VerifyError> {
        (0..count)
            .map(|index| self.send(values.get(index).copied().unwrap_or(EF::ZERO)))
            .collect()
    }

    /// Requires that a form is zero.
    pub(crate) fn require(&mut self, check: Check, form: Form) {
        if self.checks.is_made(check) {
            self.zeros.push(form);
        }
    }

    /// First wire of a product.
    pub(crate) const fn triple(&self, product: usize) -> usize {
        self.wires.messages + TRIPLE * product
    }

    /// The product of two hidden values.
    pub(crate) fn multiply(&mut self, a: &Form, b: &Form) -> Result<Form, VerifyError> {
        self.multiply_shifted(a, b, EF::ZERO)
    }

    /// With a shift of the first difference, which is zero unless a test forges.
    fn multiply_shifted(&mut self, a: &Form, b: &Form, shift: EF) -> Result<Form, VerifyError> {
        if self.used.products >= self.wires.products {
            return Err(VerifyError::Truncated("the wires"));
        }
        let base = self.triple(self.used.products);
        self.used.products += 1;
        let [x, y, z] = [base, base + 1, base + 2].map(Form::wire);
        let mut differences = [EF::ZERO; 2];
        let sides = [(a, &x, shift), (b, &y, EF::ZERO)];
        for (difference, (value, wire, shift)) in differences.iter_mut().zip(sides) {
            let form = value.clone() - wire.clone();
            *difference = self.end.exchange(self.evaluate(&form) + shift)?;
            self.require(Check::Differences, form - Form::from(*difference));
        }
        let [da, db] = differences;
        Ok(z + y * da + x * db + Form::from(da * db))
    }

    /// A challenge.
    pub(crate) fn sample(&mut self) -> EF {
        self.end.sample()
    }
}

impl<E: End> Channel for HidingChannel<E> {
    type Value = Form;

    fn values(&mut self, count: usize, make: impl FnOnce(&Witness<'_>) -> Vec<EF>) -> Result<Vec<Form>, VerifyError> {
        let values = self.end.witness().map(make).unwrap_or_default();
        self.send_all(&values, count)
    }

    fn challenge(&mut self) -> EF {
        self.sample()
    }

    fn sumcheck(
        &mut self,
        claim: Form,
        variables: usize,
        degree: usize,
        make: impl FnOnce(&Witness<'_>) -> Vec<Table>,
    ) -> Result<Reduced<Form>, VerifyError> {
        let mut product = self.end.witness().map(|witness| Product::new(make(witness)));
        let mut expected = claim;
        let mut point = Vec::with_capacity(variables);
        for _ in 0..variables {
            let mut values = product.as_ref().map(Product::round).unwrap_or_default();
            if self.end.forge().does(Trick::Triple) && self.used.products == 0 {
                let offset = EF::TWO.exp_u64((variables - 1 - point.len()) as u64);
                values.iter_mut().for_each(|value| *value += offset);
            }
            let values = self.send_all(&values, degree)?;
            let r = self.sample();
            expected = next_claim(values, expected, r);
            if let Some(product) = &mut product {
                product.bind(r);
            }
            point.push(r);
        }
        Ok(Reduced {
            point,
            expected,
            finals: product.map(|product| product.finals()).unwrap_or_default(),
        })
    }

    fn fractions(
        &mut self,
        variables: usize,
        make: impl FnOnce(&Witness<'_>) -> (Vec<F>, Vec<EF>),
    ) -> Result<Fractions<Form>, VerifyError> {
        fractions(self, variables, make)
    }

    fn makes(&self, check: Check) -> bool {
        self.checks.is_made(check)
    }

    fn zero(&mut self, check: Check, value: Form, _: &str) -> Result<(), VerifyError> {
        self.require(check, value);
        Ok(())
    }

    fn product(
        &mut self,
        check: Check,
        factor: EF,
        a: &Form,
        b: &Form,
        expected: &Form,
        _: &str,
    ) -> Result<(), VerifyError> {
        let mut shift = EF::ZERO;
        if self.end.forge().does(Trick::Difference) {
            let [left, right, wanted] = [a, b, expected].map(|form| self.evaluate(form));
            shift = wanted * (factor * right).try_inverse().unwrap_or(EF::ZERO) - left;
        }
        let product = self.multiply_shifted(a, b, shift)?;
        self.require(check, product * factor - expected.clone());
        Ok(())
    }
}

/// The round polynomial at `r`, from its values at `0, 2, .., d` and its sum over `{0, 1}`.
pub(crate) fn next_claim(values: Vec<Form>, claim: Form, r: EF) -> Form {
    let weights = lagrange(values.len() + 1, r);
    let mut weights = weights.into_iter();
    let [zero, one] = [weights.next(), weights.next()].map(|weight| weight.unwrap_or(EF::ZERO));
    // The value at 1 is the claim minus the value at 0.
    let mut next = claim * one;
    for (index, value) in values.into_iter().enumerate() {
        let weight = if index == 0 {
            zero - one
        } else {
            weights.next().unwrap_or(EF::ZERO)
        };
        next += value * weight;
    }
    next
}

/// Absorbs bytes that are part of the statement.
pub(crate) fn observe_bytes(challenger: &mut Challenger, bytes: &[u8]) {
    challenger.observe(F::from_usize(bytes.len()));
    crate::channel::absorb(challenger, bytes);
}
