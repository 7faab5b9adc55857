//! Linear functionals on tensors: what a claim of the protocol is about.
//!
//! A claim is `sum_i w(i) T(i) = v` over the elements of a tensor `T`. The weights `w` are a Kronecker product: each
//! [`Part`] covers some adjacent dimensions with a dense vector. An evaluation of the multilinear extension is the
//! case `w = eq(point, .)`. Sums over real elements only: padding of a commitment is never read, so it needs no check.
//!
//! Views, sums, reductions, gathers and the images of a convolution map such functionals to such functionals, without
//! any message of the prover. What remains of a program for sumchecks are its products.

use std::{collections::BTreeMap, sync::Arc};

use p3_field::PrimeCharacteristicRing;

use crate::{
    field::{EF, F, dot, eq_table, field, log2_ceil},
    layout::Block,
};

/// Weights of positions: shared, because many columns see the same ones.
pub type Vector = Arc<Vec<EF>>;

/// Weights over some adjacent dimensions.
#[derive(Debug, Clone)]
pub struct Part {
    /// Number of dimensions. A part of none is a factor; it comes first.
    pub dims: usize,
    /// One weight per position, row-major.
    pub weights: Vector,
}

/// A Kronecker product of [`Part`]s that cover all dimensions of a tensor.
#[derive(Debug, Clone)]
pub struct Functional {
    /// In the order of the dimensions.
    pub parts: Vec<Part>,
}

impl Functional {
    /// One vector per dimension.
    #[must_use]
    pub fn per_dim<V: Into<Vector>>(vectors: Vec<V>) -> Self {
        Self {
            parts: vectors.into_iter().map(|weights| Part::new(1, weights)).collect(),
        }
    }

    /// Evaluation of the zero-padded multilinear extension; coordinates are taken dimension after dimension.
    #[must_use]
    pub fn point(point: &[EF], shape: &[usize]) -> Self {
        let mut rest = point;
        let mut vectors = Vec::with_capacity(shape.len());
        for size in shape {
            let (own, tail) = rest.split_at(log2_ceil(*size).min(rest.len()));
            vectors.push(eq_table(own, *size));
            rest = tail;
        }
        Self::per_dim(vectors)
    }

    /// Multiplies all weights.
    #[must_use]
    pub fn scaled(mut self, factor: EF) -> Self {
        match self.parts.first_mut() {
            Some(part) if part.dims == 0 => {
                Arc::make_mut(&mut part.weights)
                    .iter_mut()
                    .for_each(|weight| *weight *= factor);
            }
            _ => self.parts.insert(0, Part::new(0, vec![factor])),
        }
        self
    }

    /// Sum of all weights.
    pub fn mass(&self) -> EF {
        self.parts
            .iter()
            .map(|part| part.weights.iter().copied().sum::<EF>())
            .product()
    }

    /// One vector per dimension of `shape`, or `None` if a part joins several dimensions larger than 1.
    #[must_use]
    pub fn separated(&self, shape: &[usize]) -> Option<Vec<Vector>> {
        let mut out: Vec<Vector> = Vec::with_capacity(shape.len());
        let mut factor = EF::ONE;
        let mut at = 0usize;
        for part in &self.parts {
            let dims = shape.get(at..at.checked_add(part.dims)?)?;
            at += part.dims;
            if dims.iter().filter(|size| **size > 1).count() > 1 {
                return None;
            }
            let mut used = false;
            for size in dims {
                if *size > 1 {
                    out.push(Arc::clone(&part.weights));
                    used = true;
                } else {
                    out.push(Arc::new(vec![EF::ONE]));
                }
            }
            if !used {
                factor *= part.weights.first().copied()?;
            }
        }
        if at != shape.len() {
            return None;
        }
        if factor != EF::ONE {
            match out.first_mut() {
                Some(first) => Arc::make_mut(first).iter_mut().for_each(|weight| *weight *= factor),
                None => return None,
            }
        }
        Some(out)
    }

    /// Splits after the first `lead` dimensions: dense weights of both sides, or `None` if a part crosses.
    #[must_use]
    pub fn split(&self, lead: usize) -> Option<(Vec<EF>, Vec<EF>)> {
        let mut at = 0;
        let mut index = 0;
        while at < lead {
            at += self.parts.get(index)?.dims;
            index += 1;
        }
        if at != lead {
            return None;
        }
        let (head, tail) = self.parts.split_at_checked(index)?;
        Some((dense(head), dense(tail)))
    }

    /// The weights inside a rectangle.
    #[must_use]
    pub fn within(&self, shape: &[usize], block: &Block) -> Self {
        if block.is_whole(shape) {
            return self.clone();
        }
        let parts = self.parts_within(shape, block);
        Self {
            parts: parts
                .map(|(part, shape, starts, sizes)| Part::new(part.dims, part.within(shape, starts, sizes)))
                .collect(),
        }
    }

    /// Each part with its dimensions of the tensor and of a rectangle.
    fn parts_within<'a>(
        &'a self,
        shape: &'a [usize],
        block: &'a Block,
    ) -> impl Iterator<Item = (&'a Part, &'a [usize], &'a [usize], &'a [usize])> {
        let mut at = 0;
        self.parts.iter().filter_map(move |part| {
            let own = at..(at + part.dims).min(shape.len());
            at = own.end;
            let (starts, sizes) = (block.starts.get(own.clone())?, block.sizes.get(own.clone())?);
            Some((part, shape.get(own)?, starts, sizes))
        })
    }

    /// All weights, row-major.
    #[must_use]
    pub fn dense(&self) -> Vec<EF> {
        dense(&self.parts)
    }

    /// The same functional for another shape of the same elements in the same order; `None` if the sizes differ.
    #[must_use]
    pub fn reshaped(&self, shape: &[usize]) -> Option<Self> {
        // Positions with one element carry no index: their weights are factors.
        let mut factor = EF::ONE;
        let mut own = Vec::new();
        for part in &self.parts {
            match part.weights.as_slice() {
                [weight] => factor *= *weight,
                _ => own.push(&part.weights),
            }
        }
        let mut own = own.into_iter();
        let mut dims = shape.iter().copied().filter(|size| *size > 1);
        // Groups of dimensions whose sizes multiply to the sizes of whole parts.
        let mut groups: Vec<(usize, Vector)> = Vec::new();
        while let Some(weights) = own.next() {
            let mut weights = Arc::clone(weights);
            let (mut size, mut count) = (dims.next()?, 1usize);
            while size != weights.len() {
                if size < weights.len() {
                    size = size.checked_mul(dims.next()?)?;
                    count += 1;
                } else {
                    weights = Arc::new(kronecker(&weights, own.next()?));
                }
            }
            groups.push((count, weights));
        }
        if dims.next().is_some() {
            return None;
        }
        let mut groups = groups.into_iter();
        let mut parts: Vec<Part> = Vec::with_capacity(shape.len());
        let mut left = 0usize;
        for size in shape {
            if left > 0 {
                if let Some(part) = parts.last_mut() {
                    part.dims += 1;
                }
                left -= usize::from(*size > 1);
            } else if *size > 1 {
                let (count, weights) = groups.next()?;
                parts.push(Part::new(1, weights));
                left = count - 1;
            } else {
                parts.push(Part::new(1, vec![EF::ONE]));
            }
        }
        Some(if factor == EF::ONE && !parts.is_empty() {
            Self { parts }
        } else {
            Self { parts }.scaled(factor)
        })
    }

    /// `sum_i w(i) T(i)` for integers.
    pub fn apply(&self, values: &[i64]) -> EF {
        let mut parts = self.parts.iter().rev();
        let Some(last) = parts.next() else { return EF::ZERO };
        let mut current: Vec<EF> = values
            .chunks(last.weights.len().max(1))
            .map(|row| dot_integers(&last.weights, row))
            .collect();
        for part in parts {
            current = current
                .chunks(part.weights.len().max(1))
                .map(|row| dot(&part.weights, row))
                .collect();
        }
        current.first().copied().unwrap_or(EF::ZERO)
    }

    /// [`Self::evaluate`] of the weights inside a rectangle that lies on a padded cube of its own.
    pub fn evaluate_within(&self, tables: &mut EqTables<'_>, start: usize, shape: &[usize], block: &Block) -> EF {
        let mut at = start;
        let mut product = EF::ONE;
        for (part, shape, starts, sizes) in self.parts_within(shape, block) {
            product *= match (starts, sizes) {
                ([first], [size]) => tables.dot(&part.weights, *first, at, *size),
                _ => {
                    let weights = part.within(shape, starts, sizes);
                    dot(&weights, &tables.table_of(at, sizes))
                }
            };
            at += variables(sizes);
        }
        product
    }

    /// `sum_i w(i) eq(point, padded position of i)`: the multilinear extension of the zero-padded weights, at the coordinates
    /// from `start` on.
    pub fn evaluate(&self, tables: &mut EqTables<'_>, start: usize, shape: &[usize]) -> EF {
        let mut at = start;
        let mut dims = shape;
        let mut product = EF::ONE;
        for part in &self.parts {
            let (own, tail) = dims.split_at(part.dims.min(dims.len()));
            dims = tail;
            product *= match own {
                [size] => tables.dot(&part.weights, 0, at, *size),
                sizes => dot(&part.weights, &tables.table_of(at, sizes)),
            };
            at += variables(own);
        }
        product
    }

    /// Adds `factor * w` to a table over the padded cube of `shape`.
    pub fn add_to(&self, out: &mut [EF], shape: &[usize], factor: EF) {
        let mut dims = shape.iter().copied();
        let groups: Vec<(Vec<usize>, &[EF])> = self
            .parts
            .iter()
            .map(|part| {
                (
                    padded_positions(&dims.by_ref().take(part.dims).collect::<Vec<_>>()),
                    part.weights.as_slice(),
                )
            })
            .collect();
        // Strides of the groups: the padded size of everything after them.
        let mut shape_left = shape;
        let mut strides = Vec::with_capacity(groups.len());
        for part in &self.parts {
            let (_, tail) = shape_left.split_at(part.dims.min(shape_left.len()));
            strides.push(1usize << tail.iter().map(|size| log2_ceil(*size)).sum::<usize>());
            shape_left = tail;
        }
        add_groups(out, &groups, &strides, 0, factor);
    }
}

impl Part {
    /// Weights of `dims` dimensions.
    #[must_use]
    pub fn new(dims: usize, weights: impl Into<Vector>) -> Self {
        Self {
            dims,
            weights: weights.into(),
        }
    }

    /// The weights inside a rectangle of the part's dimensions.
    fn within(&self, shape: &[usize], starts: &[usize], sizes: &[usize]) -> Vec<EF> {
        let mut positions = vec![0usize];
        for ((size, start), count) in shape.iter().zip(starts).zip(sizes) {
            positions = positions
                .iter()
                .flat_map(|high| (*start..start + count).map(move |low| high * size + low))
                .collect();
        }
        positions
            .into_iter()
            .map(|at| self.weights.get(at).copied().unwrap_or(EF::ZERO))
            .collect()
    }
}

/// Tables of `eq` for parts of one point, each made once, and what weights give with them: most claims that meet at a
/// point are about tensors of few shapes, and many of them share their weights.
#[derive(Debug)]
pub struct EqTables<'a> {
    point: &'a [EF],
    tables: BTreeMap<(usize, usize), Vector>,
    /// By address of the weights, which are kept so that no others get it, first weight, place and size.
    dots: BTreeMap<[usize; 4], (Vector, EF)>,
}

impl<'a> EqTables<'a> {
    /// No tables yet.
    #[must_use]
    pub const fn new(point: &'a [EF]) -> Self {
        Self {
            point,
            tables: BTreeMap::new(),
            dots: BTreeMap::new(),
        }
    }

    /// Number of coordinates.
    #[must_use]
    pub const fn variables(&self) -> usize {
        self.point.len()
    }

    /// `eq(coordinates from start on, i)` for all `i < size`.
    pub fn table(&mut self, start: usize, size: usize) -> Vector {
        let point = self.point;
        let table = self.tables.entry((start, size)).or_insert_with(|| {
            let tail = point.get(start..).unwrap_or_default();
            let own = tail.get(..log2_ceil(size)).unwrap_or(tail);
            Arc::new(eq_table(own, size))
        });
        Arc::clone(table)
    }

    /// `eq` for all positions of several dimensions, each padded.
    fn table_of(&mut self, start: usize, sizes: &[usize]) -> Vec<EF> {
        let mut at = start;
        sizes.iter().fold(vec![EF::ONE], |all, size| {
            let table = self.table(at, *size);
            at += log2_ceil(*size);
            kronecker(&all, &table)
        })
    }

    /// Of `size` weights from `first` on with a table.
    fn dot(&mut self, weights: &Vector, first: usize, start: usize, size: usize) -> EF {
        let shared = Arc::strong_count(weights) > 1;
        let key = [Arc::as_ptr(weights).addr(), first, start, size];
        if shared && let Some((_, product)) = self.dots.get(&key) {
            return *product;
        }
        let own = weights.get(first..).unwrap_or_default();
        let product = dot(own, &self.table(start, size));
        if shared {
            self.dots.insert(key, (Arc::clone(weights), product));
        }
        product
    }
}

fn add_groups(out: &mut [EF], groups: &[(Vec<usize>, &[EF])], strides: &[usize], base: usize, factor: EF) {
    match (groups, strides) {
        ([(positions, weights), rest @ ..], [stride, strides @ ..]) => {
            // Weights that a rectangle leaves out are zero.
            for (position, weight) in positions
                .iter()
                .zip(*weights)
                .filter(|(_, weight)| **weight != EF::ZERO)
            {
                let factor = factor * *weight;
                let base = base + position * stride;
                if rest.is_empty() {
                    if let Some(slot) = out.get_mut(base) {
                        *slot += factor;
                    }
                } else {
                    add_groups(out, rest, strides, base, factor);
                }
            }
        }
        _ => {
            if let Some(slot) = out.get_mut(base) {
                *slot += factor;
            }
        }
    }
}

/// Positions of a tensor's elements in its padded cube, row-major.
#[must_use]
pub fn padded_positions(shape: &[usize]) -> Vec<usize> {
    let mut positions = vec![0usize];
    for size in shape {
        let bits = log2_ceil(*size);
        positions = positions
            .iter()
            .flat_map(|high| (0..*size).map(move |low| (high << bits) | low))
            .collect();
    }
    positions
}

/// Number of variables of a tensor's padded cube.
#[must_use]
pub fn variables(shape: &[usize]) -> usize {
    shape.iter().map(|size| log2_ceil(*size)).sum()
}

/// Integers on their padded cube.
#[must_use]
pub fn padded(values: &[i64], shape: &[usize]) -> Vec<F> {
    let mut out = vec![F::ZERO; 1 << variables(shape)];
    for (position, value) in padded_positions(shape).into_iter().zip(values) {
        if let Some(slot) = out.get_mut(position) {
            *slot = field(*value);
        }
    }
    out
}

/// All products `a_i b_j`, `j` fastest.
#[must_use]
pub fn kronecker(a: &[EF], b: &[EF]) -> Vec<EF> {
    if let [one] = a
        && *one == EF::ONE
    {
        return b.to_vec();
    }
    a.iter().flat_map(|a| b.iter().map(move |b| *a * *b)).collect()
}

fn dense(parts: &[Part]) -> Vec<EF> {
    parts
        .iter()
        .fold(vec![EF::ONE], |all, part| kronecker(&all, &part.weights))
}

/// `sum_i w_i v_i` with integers.
pub fn dot_integers(weights: &[EF], values: &[i64]) -> EF {
    weights
        .iter()
        .zip(values)
        .filter(|(_, value)| **value != 0)
        .map(|(weight, value)| *weight * field(*value))
        .sum()
}
