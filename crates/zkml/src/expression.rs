//! Linear expressions of tensors, position by position.

use p3_field::PrimeCharacteristicRing;

use opg_integer_program::program::Operand;

use std::sync::Arc;

use crate::{
    field::{EF, field},
    functional::{EqTables, Vector},
};

/// What a term reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The number 1.
    One,
    /// A column of the witness commitment.
    Column(usize),
    /// A tensor of the program.
    Operand(Operand),
}

/// `coefficient * scale[position along axis] * source[map(position)]`.
#[derive(Debug, Clone)]
pub(crate) struct Term {
    /// Factor.
    pub(crate) coefficient: i64,
    /// Factors along one dimension.
    pub(crate) scale: Option<(usize, Vec<i64>)>,
    /// What is read.
    pub(crate) source: Source,
    /// Start and step in every dimension of the source, which has as many as the expression; identity if `None`.
    pub(crate) map: Option<Map>,
}

/// `source position = start + step * position` in every dimension; without dimensions, the sum over all positions of the
/// source that broadcasting joins to one.
#[derive(Debug, Clone)]
pub(crate) struct Map {
    /// Start and step.
    pub(crate) dims: Vec<(i64, i64)>,
    /// The source's shape with as many dimensions.
    pub(crate) shape: Vec<usize>,
}

/// A sum of terms over the positions of a tensor, requests first; zero outside `valid`.
#[derive(Debug, Clone)]
pub(crate) struct Expression {
    /// Dimensions.
    pub(crate) shape: Vec<usize>,
    /// Positions that count, first and one after the last in every dimension; all if `None`.
    pub(crate) valid: Option<Vec<(usize, usize)>>,
    /// The sum.
    pub(crate) terms: Vec<Term>,
}

impl Term {
    /// A multiple of a column or tensor of the same shape.
    pub(crate) const fn new(coefficient: i64, source: Source) -> Self {
        Self {
            coefficient,
            scale: None,
            source,
            map: None,
        }
    }

    /// With a map.
    pub(crate) fn mapped(mut self, map: Map) -> Self {
        self.map = Some(map);
        self
    }
}

impl Map {
    /// NumPy broadcasting of `shape`, aligned to as many dimensions as the target.
    pub(crate) fn broadcast(shape: Vec<usize>, target: &[usize]) -> Option<Self> {
        let dims = shape
            .iter()
            .zip(target)
            .map(|(own, out)| (0, i64::from(own == out)))
            .collect();
        (shape.len() == target.len()).then_some(Self { dims, shape })
    }

    /// Weights of the source from weights of the expression.
    pub(crate) fn pull(&self, vectors: Vec<Vector>) -> Vec<Vector> {
        if self.dims.is_empty() {
            let widen = |(weights, size): (Vector, &usize)| match weights.as_slice() {
                [weight] if *size != 1 => Arc::new(vec![*weight; *size]),
                _ => weights,
            };
            return vectors.into_iter().zip(&self.shape).map(widen).collect();
        }
        vectors
            .into_iter()
            .zip(self.dims.iter().zip(&self.shape))
            .map(|(weights, ((start, step), size))| {
                if (*start, *step) == (0, 1) && weights.len() == *size {
                    return weights;
                }
                let mut out = vec![EF::ZERO; *size];
                let mut at = *start;
                for weight in weights.iter() {
                    if let Some(slot) = usize::try_from(at).ok().and_then(|at| out.get_mut(at)) {
                        *slot += *weight;
                    }
                    at = at.saturating_add(*step);
                }
                Arc::new(out)
            })
            .collect()
    }
}

impl Expression {
    /// Sum of terms over all positions.
    pub(crate) const fn new(shape: Vec<usize>, terms: Vec<Term>) -> Self {
        Self {
            shape,
            valid: None,
            terms,
        }
    }

    /// Evaluation weights of the positions that count.
    pub(crate) fn weights(&self, tables: &mut EqTables<'_>) -> Vec<Vector> {
        self.weights_within(tables, 0, &vec![0; self.shape.len()], &self.shape)
    }

    /// Evaluation weights of the positions that count inside a rectangle that lies on a padded cube of its own, at the
    /// coordinates from `from` on.
    pub(crate) fn weights_within(
        &self,
        tables: &mut EqTables<'_>,
        from: usize,
        starts: &[usize],
        sizes: &[usize],
    ) -> Vec<Vector> {
        let mut at = from;
        let mut vectors = Vec::with_capacity(self.shape.len());
        for (axis, ((whole, start), size)) in self.shape.iter().zip(starts).zip(sizes).enumerate() {
            let mut vector = tables.table(at, *size);
            at += crate::field::log2_ceil(*size);
            if size < whole {
                let weights = Arc::make_mut(&mut vector);
                weights.splice(0..0, std::iter::repeat_n(EF::ZERO, *start));
                weights.resize(*whole, EF::ZERO);
            }
            if let Some((first, end)) = self.valid.as_ref().and_then(|valid| valid.get(axis))
                && (*first > 0 || *end < vector.len())
            {
                let weights = Arc::make_mut(&mut vector);
                for (position, weight) in weights.iter_mut().enumerate() {
                    if position < *first || position >= *end {
                        *weight = EF::ZERO;
                    }
                }
            }
            vectors.push(vector);
        }
        vectors
    }

    /// The weights that a term sees: scaled along its axis and mapped to its source.
    pub(crate) fn term_weights(term: &Term, vectors: &[Vector]) -> Vec<Vector> {
        let mut vectors = vectors.to_vec();
        if let Some((axis, scale)) = &term.scale
            && let Some(weights) = vectors.get_mut(*axis)
        {
            Arc::make_mut(weights)
                .iter_mut()
                .zip(scale)
                .for_each(|(weight, factor)| *weight *= field(*factor));
        }
        match &term.map {
            Some(map) => map.pull(vectors),
            None => vectors,
        }
    }

    /// All values, row-major, 0 where a position does not count.
    pub(crate) fn materialise<'a>(&self, read: impl Fn(Source) -> Option<&'a [i64]>) -> Vec<i64> {
        let size: usize = self.shape.iter().product();
        let mut out = vec![0i64; size];
        let strides = opg_integer_program::shape::strides(&self.shape);
        for term in &self.terms {
            let values = read(term.source);
            let source_strides = term
                .map
                .as_ref()
                .map(|map| opg_integer_program::shape::strides(&map.shape));
            for (flat, slot) in out.iter_mut().enumerate() {
                let mut position = strides
                    .iter()
                    .zip(&self.shape)
                    .map(|(stride, size)| (flat / stride) % size);
                let mut factor = term.coefficient;
                if let Some((axis, scale)) = &term.scale {
                    let at = position.clone().nth(*axis).unwrap_or(0);
                    factor = factor.wrapping_mul(scale.get(at).copied().unwrap_or(0));
                }
                let index = match (&term.map, &source_strides) {
                    (Some(map), Some(strides)) => map.dims.iter().zip(&map.shape).zip(strides).try_fold(
                        0usize,
                        |sum, (((start, step), size), stride)| {
                            let at = start + step * i64::try_from(position.next()?).ok()?;
                            let at = usize::try_from(at).ok().filter(|at| at < size)?;
                            Some(sum + at * stride)
                        },
                    ),
                    _ => Some(flat),
                };
                let value = match (values, index) {
                    (_, None) => 0,
                    (None, Some(_)) => 1,
                    (Some(values), Some(index)) => values.get(index).copied().unwrap_or(0),
                };
                *slot = slot.wrapping_add(factor.wrapping_mul(value));
            }
        }
        if let Some(valid) = &self.valid {
            for (flat, slot) in out.iter_mut().enumerate() {
                let mut position = strides
                    .iter()
                    .zip(&self.shape)
                    .map(|(stride, size)| (flat / stride) % size);
                if !valid
                    .iter()
                    .all(|(first, end)| position.next().is_some_and(|at| at >= *first && at < *end))
                {
                    *slot = 0;
                }
            }
        }
        out
    }
}
