//! The lookup argument with hidden messages: fractions are added up in a tree, and each layer's claim becomes one on the
//! layer below (the argument that `p3-multi-stark` has for the other profiles, here over forms).

use p3_field::{Field, PrimeCharacteristicRing};
use p3_maybe_rayon::prelude::*;

use crate::{
    channel::{Channel as _, Fractions},
    error::{Check, VerifyError},
    field::{EF, F, eq_points, eq_table},
    hiding::{
        channel::{End, HidingChannel, next_claim},
        form::Form,
    },
    sumcheck::{Lanes, fold, pack, sum_chunks, total, unpack},
    witness::Witness,
};

/// Below this many elements lanes are not worth it.
const PACKED: usize = 64;

/// Numerators and denominators of every layer, the root first. A fraction is the sum of those at `i` and `i + half`.
struct Tree {
    layers: Vec<(Vec<EF>, Vec<EF>)>,
}

impl Tree {
    fn new(numerators: &[F], denominators: Vec<EF>) -> Self {
        let numerators: Vec<EF> = numerators.iter().map(|value| EF::from(*value)).collect();
        let mut layers = vec![(numerators, denominators)];
        while let Some((n, d)) = layers.last().filter(|(n, _)| n.len() > 1) {
            let half = n.len() / 2;
            let ((n0, n1), (d0, d1)) = (n.split_at(half), d.split_at(half));
            let next = n0
                .par_iter()
                .zip(n1)
                .zip(d0.par_iter().zip(d1))
                .map(|((n0, n1), (d0, d1))| (*n0 * *d1 + *n1 * *d0, *d0 * *d1))
                .unzip();
            layers.push(next);
        }
        layers.reverse();
        Self { layers }
    }

    fn root(&self) -> (EF, EF) {
        let root = self.layers.first();
        root.and_then(|(n, d)| Some((*n.first()?, *d.first()?)))
            .unwrap_or((EF::ZERO, EF::ZERO))
    }

    /// The sumcheck of a layer with `2^layer` fractions.
    fn sumcheck(&mut self, layer: usize, point: &[EF], lambda: EF) -> Layer {
        let (n, d) = self.layers.get_mut(layer + 1).map(std::mem::take).unwrap_or_default();
        let half = n.len() / 2;
        let ((n0, n1), (d0, d1)) = (n.split_at(half), d.split_at(half));
        // n0 d1 + n1 d0 + lambda d0 d1 = (n0 + lambda d0) d1 + n1 d0.
        let sums: Vec<EF> = n0.iter().zip(d0).map(|(n, d)| *n + lambda * *d).collect();
        let eq = eq_table(point, half);
        if half < PACKED {
            return Layer::Scalar([eq, sums, d1.to_vec(), n1.to_vec(), d0.to_vec()]);
        }
        Layer::Packed([pack(&eq), pack(&sums), pack(d1), pack(n1), pack(d0)])
    }
}

/// `sum eq (a b + c d)` over five tables.
enum Layer {
    Packed([Vec<Lanes>; 5]),
    Scalar([Vec<EF>; 5]),
}

impl Layer {
    fn round(&self) -> Vec<EF> {
        match self {
            Self::Packed(tables) => round(tables).iter().map(total).collect(),
            Self::Scalar(tables) => round(tables).to_vec(),
        }
    }

    fn bind(&mut self, r: EF) {
        match self {
            Self::Packed(tables) => tables.iter_mut().for_each(|table| fold(table, r)),
            Self::Scalar(tables) => tables.iter_mut().for_each(|table| fold(table, r)),
        }
        // Halves shorter than a lane group can no longer be added to each other lane by lane.
        if let Self::Packed(tables) = self
            && tables.first().is_some_and(|table| table.len() < 2)
        {
            *self = Self::Scalar(std::array::from_fn(|index| {
                tables.get(index).map(|table| unpack(table)).unwrap_or_default()
            }));
        }
    }

    /// Numerators and denominators of both children.
    fn children(&self, lambda: EF) -> [EF; 4] {
        let Self::Scalar(tables) = self else {
            return [EF::ZERO; 4];
        };
        let [_, sum, d1, n1, d0] = tables
            .each_ref()
            .map(|table| table.first().copied().unwrap_or(EF::ZERO));
        [sum - lambda * d0, d0, n1, d1]
    }
}

/// Values at 0, 2 and 3.
fn round<A: PrimeCharacteristicRing + Copy + Send + Sync>(tables: &[Vec<A>; 5]) -> [A; 3] {
    let half = tables.first().map_or(0, Vec::len) / 2;
    sum_chunks(half, |range| {
        let mut out = [A::ZERO; 3];
        let halves = tables.each_ref().map(|table| {
            (
                table.get(range.clone()),
                table.get(range.start + half..range.end + half),
            )
        });
        let [
            (Some(e0), Some(e1)),
            (Some(a0), Some(a1)),
            (Some(b0), Some(b1)),
            (Some(c0), Some(c1)),
            (Some(d0), Some(d1)),
        ] = halves
        else {
            return out;
        };
        let low = e0.iter().zip(a0).zip(b0).zip(c0).zip(d0);
        let high = e1.iter().zip(a1).zip(b1).zip(c1).zip(d1);
        for (low, high) in low.zip(high) {
            let ((((e, a), b), c), d) = low;
            let mut at = [*e, *a, *b, *c, *d];
            let ((((e, a), b), c), d) = high;
            let mut step = [*e, *a, *b, *c, *d];
            for (step, low) in step.iter_mut().zip(at) {
                *step -= low;
            }
            for (index, out) in out.iter_mut().enumerate() {
                let times = if index == 1 { 2 } else { usize::from(index == 2) };
                for _ in 0..times {
                    for (at, step) in at.iter_mut().zip(step) {
                        *at += step;
                    }
                }
                let [e, a, b, c, d] = at;
                *out += e * (a * b + c * d);
            }
        }
        out
    })
}

/// Proves that fractions add up to zero and reduces them to a claim on their numerators and denominators.
pub(crate) fn fractions<E: End>(
    channel: &mut HidingChannel<E>,
    variables: usize,
    make: impl FnOnce(&Witness<'_>) -> (Vec<F>, Vec<EF>),
) -> Result<Fractions<Form>, VerifyError> {
    let mut tree = channel.end.witness().map(|witness| {
        let (numerators, denominators) = make(witness);
        Tree::new(&numerators, denominators)
    });
    let (_, root) = tree.as_ref().map_or((EF::ZERO, EF::ZERO), Tree::root);
    // The sum is 0 / denominator, and the denominator has an inverse: it is not zero.
    let mut denominator = channel.send(root)?;
    let inverse = channel.send(root.try_inverse().unwrap_or(EF::ZERO))?;
    let one = channel.multiply(&denominator, &inverse)?;
    channel.require(Check::Lookup, one - Form::from(EF::ONE));
    let mut numerator = Form::from(EF::ZERO);
    let mut point = Vec::new();
    for layer in 0..variables {
        let lambda = channel.challenge();
        let mut claim = numerator + denominator * lambda;
        let mut sumcheck = tree.as_mut().map(|tree| tree.sumcheck(layer, &point, lambda));
        let mut own = Vec::with_capacity(layer + 1);
        for _ in 0..layer {
            let values = sumcheck.as_ref().map(Layer::round).unwrap_or_default();
            let values = channel.send_all(&values, 3)?;
            let r = channel.challenge();
            claim = next_claim(values, claim, r);
            if let Some(sumcheck) = &mut sumcheck {
                sumcheck.bind(r);
            }
            own.push(r);
        }
        let children = sumcheck.map_or([EF::ZERO; 4], |sumcheck| sumcheck.children(lambda));
        let [n0, d0, n1, d1] = children;
        let (n0, d0) = (channel.send(n0)?, channel.send(d0)?);
        let (n1, d1) = (channel.send(n1)?, channel.send(d1)?);
        let left = channel.multiply(&(n0.clone() + d0.clone() * lambda), &d1)?;
        let right = channel.multiply(&n1, &d0)?;
        channel.require(Check::Lookup, (left + right) * eq_points(&point, &own) - claim);
        let branch = channel.challenge();
        numerator = n0.clone() + (n1 - n0) * branch;
        denominator = d0.clone() + (d1 - d0) * branch;
        own.insert(0, branch);
        point = own;
    }
    Ok(Fractions {
        point,
        numerator,
        denominator,
    })
}
