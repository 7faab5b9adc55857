//! Sumcheck for products of two or three multilinear polynomials.
//!
//! A round polynomial of degree `d` travels as its values at `0, 2, .., d`; the value at 1 follows from the claim. The
//! highest variable is bound first, so that long tables are worked on eight (or sixteen) elements at a time.

use p3_field::{Algebra, ExtensionField, Field, PackedFieldExtension, PackedValue, PrimeCharacteristicRing};
use p3_maybe_rayon::prelude::*;

use crate::field::{EF, F};

/// Base field elements that one instruction works on.
type BaseLanes = <F as Field>::Packing;
/// As many extension elements.
pub(crate) type Lanes = <EF as ExtensionField<F>>::ExtensionPacking;

/// Below this many operations a second thread is not worth it.
const PARALLEL: usize = 1 << 10;
/// Below this many elements lanes are not worth it.
const PACKED: usize = 64;

/// Values of a multilinear polynomial on the cube.
#[derive(Debug, Clone)]
pub enum Table {
    /// In the base field: integers of the witness or of the weights.
    Base(Vec<F>),
    /// In the extension.
    Extension(Vec<EF>),
}

impl Table {
    fn len(&self) -> usize {
        match self {
            Self::Base(values) => values.len(),
            Self::Extension(values) => values.len(),
        }
    }

    fn extension(self) -> Vec<EF> {
        match self {
            Self::Base(values) => values.into_iter().map(EF::from).collect(),
            Self::Extension(values) => values,
        }
    }
}

/// A product of two or three polynomials whose variables are bound one after the other.
#[derive(Debug)]
pub struct Product {
    tables: Tables,
}

#[derive(Debug)]
enum Tables {
    /// Before the first variable is bound: one polynomial of the extension, the others of the base field.
    Mixed(Vec<Lanes>, Vec<Vec<F>>),
    Packed(Vec<Vec<Lanes>>),
    Scalar(Vec<Vec<EF>>),
}

impl Product {
    /// Tables of one length, a power of two.
    #[must_use]
    pub fn new(tables: Vec<Table>) -> Self {
        if tables.first().map_or(0, Table::len) < PACKED {
            return Self {
                tables: Tables::Scalar(tables.into_iter().map(Table::extension).collect()),
            };
        }
        let mixed = matches!(tables.as_slice(), [Table::Extension(_), Table::Base(_)])
            || matches!(tables.as_slice(), [Table::Extension(_), Table::Base(_), Table::Base(_)]);
        let mut lead = None;
        let mut rest = Vec::new();
        let mut packed = Vec::new();
        for table in tables {
            match table {
                Table::Extension(values) if mixed => lead = Some(pack(&values)),
                Table::Base(values) if mixed => rest.push(values),
                other => packed.push(pack(&other.extension())),
            }
        }
        Self {
            tables: lead.map_or(Tables::Packed(packed), |lead| Tables::Mixed(lead, rest)),
        }
    }

    /// Values at `0, 2, .., d` of the next round polynomial.
    #[must_use]
    pub fn round(&self) -> Vec<EF> {
        match &self.tables {
            Tables::Mixed(lead, rest) => {
                let rest: Vec<&[BaseLanes]> = rest.iter().map(|values| BaseLanes::pack_slice(values)).collect();
                match rest.as_slice() {
                    [b] => two(lead, b).into_iter().map(|lanes| total(&lanes)).collect(),
                    [b, c] => three(lead, b, c).into_iter().map(|lanes| total(&lanes)).collect(),
                    _ => Vec::new(),
                }
            }
            Tables::Packed(tables) => match tables.as_slice() {
                [a, b] => two(a, b).into_iter().map(|lanes| total(&lanes)).collect(),
                [a, b, c] => three(a, b, c).into_iter().map(|lanes| total(&lanes)).collect(),
                _ => Vec::new(),
            },
            Tables::Scalar(tables) => match tables.as_slice() {
                [a, b] => two(a, b).to_vec(),
                [a, b, c] => three(a, b, c).to_vec(),
                _ => Vec::new(),
            },
        }
    }

    /// Binds the highest variable of all polynomials.
    pub fn bind(&mut self, r: EF) {
        let tables = std::mem::replace(&mut self.tables, Tables::Scalar(Vec::new()));
        self.tables = match tables {
            Tables::Mixed(mut lead, rest) => {
                fold(&mut lead, r);
                let lanes = Lanes::from(r);
                let rest = rest.iter().map(|values| {
                    let values = BaseLanes::pack_slice(values);
                    let (low, high) = values.split_at(values.len() / 2);
                    let step = |(low, high): (&BaseLanes, &BaseLanes)| Lanes::from(*low) + lanes * (*high - *low);
                    if low.len() < PARALLEL {
                        low.iter().zip(high).map(step).collect()
                    } else {
                        low.par_iter().with_min_len(PARALLEL).zip(high).map(step).collect()
                    }
                });
                Tables::Packed(std::iter::once(lead).chain(rest.collect::<Vec<_>>()).collect())
            }
            Tables::Packed(mut tables) => {
                tables.iter_mut().for_each(|table| fold(table, r));
                Tables::Packed(tables)
            }
            Tables::Scalar(mut tables) => {
                tables.iter_mut().for_each(|table| fold(table, r));
                Tables::Scalar(tables)
            }
        };
        // Halves shorter than a lane group can no longer be added to each other lane by lane.
        if let Tables::Packed(tables) = &self.tables
            && tables.first().is_some_and(|table| table.len() < 2)
        {
            self.tables = Tables::Scalar(tables.iter().map(|table| unpack(table)).collect());
        }
    }

    /// The polynomials' values, when all variables are bound.
    #[must_use]
    pub fn finals(&self) -> Vec<EF> {
        match &self.tables {
            Tables::Scalar(tables) => tables.iter().filter_map(|table| table.first().copied()).collect(),
            _ => Vec::new(),
        }
    }
}

pub(crate) fn pack(values: &[EF]) -> Vec<Lanes> {
    values
        .chunks_exact(BaseLanes::WIDTH)
        .map(Lanes::from_ext_slice)
        .collect()
}

pub(crate) fn unpack(lanes: &[Lanes]) -> Vec<EF> {
    lanes
        .iter()
        .flat_map(|lanes| (0..BaseLanes::WIDTH).map(|lane| lanes.extract(lane)))
        .collect()
}

pub(crate) fn total(lanes: &Lanes) -> EF {
    (0..BaseLanes::WIDTH).map(|lane| lanes.extract(lane)).sum()
}

pub(crate) fn fold<A: Algebra<EF> + Copy + Send + Sync>(table: &mut Vec<A>, r: EF) {
    let half = table.len() / 2;
    let r = A::from(r);
    let (low, high) = table.split_at_mut(half);
    let step = |(low, high): (&mut A, &A)| *low += r * (*high - *low);
    if half < PARALLEL {
        low.iter_mut().zip(high.iter()).for_each(step);
    } else {
        low.par_iter_mut()
            .with_min_len(PARALLEL)
            .zip(high.par_iter())
            .for_each(step);
    }
    table.truncate(half);
}

fn two<A, B>(a: &[A], b: &[B]) -> [A; 2]
where
    A: Algebra<B> + Copy + Send + Sync,
    B: PrimeCharacteristicRing + Copy + Send + Sync,
{
    let ((a0, a1), (b0, b1)) = (a.split_at(a.len() / 2), b.split_at(b.len() / 2));
    sum_chunks(a0.len(), |range| {
        let mut out = [A::ZERO; 2];
        let slices = (
            a0.get(range.clone()),
            a1.get(range.clone()),
            b0.get(range.clone()),
            b1.get(range),
        );
        if let (Some(a0), Some(a1), Some(b0), Some(b1)) = slices {
            for (((a0, a1), b0), b1) in a0.iter().zip(a1).zip(b0).zip(b1) {
                out[0] += *a0 * *b0;
                out[1] += (a1.double() - *a0) * (b1.double() - *b0);
            }
        }
        out
    })
}

fn three<A, B>(a: &[A], b: &[B], c: &[B]) -> [A; 3]
where
    A: Algebra<B> + Copy + Send + Sync,
    B: PrimeCharacteristicRing + Copy + Send + Sync,
{
    let ((a0, a1), (b0, b1), (c0, c1)) = (
        a.split_at(a.len() / 2),
        b.split_at(b.len() / 2),
        c.split_at(c.len() / 2),
    );
    sum_chunks(a0.len(), |range| {
        let mut out = [A::ZERO; 3];
        let slices = (
            (a0.get(range.clone()), a1.get(range.clone())),
            (b0.get(range.clone()), b1.get(range.clone())),
            (c0.get(range.clone()), c1.get(range)),
        );
        if let ((Some(a0), Some(a1)), (Some(b0), Some(b1)), (Some(c0), Some(c1))) = slices {
            for (((((a0, a1), b0), b1), c0), c1) in a0.iter().zip(a1).zip(b0).zip(b1).zip(c0).zip(c1) {
                out[0] += *a0 * (*b0 * *c0);
                let (da, db, dc) = (*a1 - *a0, *b1 - *b0, *c1 - *c0);
                let (a2, b2, c2) = (*a1 + da, *b1 + db, *c1 + dc);
                out[1] += a2 * (b2 * c2);
                out[2] += (a2 + da) * ((b2 + db) * (c2 + dc));
            }
        }
        out
    })
}

pub(crate) fn sum_chunks<A: PrimeCharacteristicRing + Copy + Send, const N: usize>(
    len: usize,
    body: impl Fn(std::ops::Range<usize>) -> [A; N] + Sync + Send,
) -> [A; N] {
    if len < PARALLEL {
        return body(0..len);
    }
    let parts: Vec<[A; N]> = (0..len.div_ceil(PARALLEL))
        .into_par_iter()
        .map(|i| body(i * PARALLEL..((i + 1) * PARALLEL).min(len)))
        .collect();
    parts.into_iter().fold([A::ZERO; N], |mut sums, part| {
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        sums
    })
}

/// The round polynomial at `r`, from its values at `0, 2, .., d` and its sum over `{0, 1}`.
pub fn interpolate(values: &[EF], claim: EF, r: EF) -> EF {
    let at_zero = values.first().copied().unwrap_or(EF::ZERO);
    let mut nodes = vec![at_zero, claim - at_zero];
    nodes.extend(values.iter().skip(1));
    // Lagrange at the nodes 0, 1, .., d; there are at most four.
    let mut sum = EF::ZERO;
    for (i, value) in nodes.iter().enumerate() {
        let mut weight = EF::ONE;
        let mut scale = EF::ONE;
        for j in (0..nodes.len()).filter(|j| *j != i) {
            let (node, own) = (EF::from_usize(j), EF::from_usize(i));
            weight *= r - node;
            scale *= own - node;
        }
        sum += *value * weight * scale.try_inverse().unwrap_or(EF::ZERO);
    }
    sum
}

/// Weights of the values at `0, 1, .., count - 1` in the value at `r` of the polynomial through them.
pub(crate) fn lagrange(count: usize, r: EF) -> Vec<EF> {
    let weight = |i: usize| {
        let mut weight = EF::ONE;
        let mut scale = EF::ONE;
        for j in (0..count).filter(|j| *j != i) {
            weight *= r - EF::from_usize(j);
            scale *= EF::from_usize(i) - EF::from_usize(j);
        }
        weight * scale.try_inverse().unwrap_or(EF::ZERO)
    };
    (0..count).map(weight).collect()
}
