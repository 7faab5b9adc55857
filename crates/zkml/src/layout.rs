//! Where the columns of one commitment lie in its stacked polynomial.
//!
//! A column is a tensor. Every dimension of a multilinear polynomial is a power of two, so a tensor of 1400 x 1400 would
//! take the room of 2048 x 2048: it is cut into blocks (1024 + 256 + 120 along a dimension) wherever that makes the whole
//! commitment smaller. A block lies on its own padded cube; blocks are placed by decreasing size, so that each starts at
//! a multiple of its size: a claim about a block is then a claim about the stacked polynomial with the high coordinates
//! fixed, and a claim about a column is a sum of claims about its blocks.

use std::collections::BTreeMap;

use p3_field::PrimeCharacteristicRing;

use crate::{
    field::{EF, F, eq_index, field, log2_ceil},
    functional::{EqTables, Functional, padded_positions, variables},
};

/// A rectangle of a tensor on its padded cube.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// First position in every dimension.
    pub starts: Vec<usize>,
    /// Number of positions in every dimension.
    pub sizes: Vec<usize>,
    /// First position in the stacked polynomial.
    pub offset: usize,
    /// Variables of the padded cube.
    pub variables: usize,
}

/// One column.
#[derive(Debug, Clone)]
pub struct Column {
    /// Dimensions of the tensor.
    pub shape: Vec<usize>,
    /// Its rectangles: every element lies in exactly one.
    pub blocks: Vec<Block>,
}

/// All columns of one commitment.
#[derive(Debug, Clone, Default)]
pub struct Layout {
    /// In the order of declaration.
    pub columns: Vec<Column>,
    /// Variables of the stacked polynomial.
    pub variables: usize,
}

/// A linear combination of functionals on columns and the value it is claimed to have.
#[derive(Debug, Clone)]
pub struct Claim<V = EF> {
    /// Columns with functionals.
    pub terms: Vec<(usize, Functional)>,
    /// The sum.
    pub value: V,
}

/// Fewest variables of a commitment.
pub const MIN_VARIABLES: usize = 10;
/// Most blocks of a column: each costs the verifier an evaluation.
const MAX_BLOCKS: usize = 16;

impl Layout {
    /// Places columns of the given shapes, each in as few blocks as the smallest commitment allows.
    #[must_use]
    pub fn new(shapes: Vec<Vec<usize>>) -> Self {
        // Most columns share their shape with others.
        let mut counts: BTreeMap<&[usize], usize> = BTreeMap::new();
        for shape in &shapes {
            *counts.entry(shape).or_default() += 1;
        }
        let mut best = (usize::MAX, 1);
        let mut blocks = 1;
        while blocks <= MAX_BLOCKS && best.0 > MIN_VARIABLES {
            let room = counts.iter().fold(0usize, |sum, (shape, count)| {
                let own: usize = cut(shape, blocks).iter().map(Block::room).sum();
                sum.saturating_add(own.saturating_mul(*count))
            });
            best = best.min((log2_ceil(room).max(MIN_VARIABLES), blocks));
            blocks *= 2;
        }
        Self::with_blocks(&shapes, best.1)
    }

    fn with_blocks(shapes: &[Vec<usize>], most: usize) -> Self {
        let mut cuts: BTreeMap<&[usize], Vec<Block>> = BTreeMap::new();
        let mut columns: Vec<Column> = shapes
            .iter()
            .map(|shape| Column {
                shape: shape.clone(),
                blocks: cuts.entry(shape).or_insert_with(|| cut(shape, most)).clone(),
            })
            .collect();
        let mut order: Vec<&mut Block> = columns.iter_mut().flat_map(|column| column.blocks.iter_mut()).collect();
        order.sort_by_key(|block| std::cmp::Reverse(block.variables));
        let mut next = 0usize;
        for block in order {
            block.offset = next;
            next = next.saturating_add(block.room());
        }
        Self {
            columns,
            variables: log2_ceil(next).max(MIN_VARIABLES),
        }
    }

    /// The stacked polynomial of integers.
    #[must_use]
    pub fn stack(&self, columns: &[Vec<i64>]) -> Vec<F> {
        let mut out = vec![F::ZERO; 1 << self.variables];
        for (column, values) in self.columns.iter().zip(columns) {
            for block in &column.blocks {
                let slots = out.get_mut(block.offset..).unwrap_or_default();
                block.visit(&column.shape, |from, to, count| {
                    if let (Some(slots), Some(values)) = (slots.get_mut(to..to + count), values.get(from..from + count))
                    {
                        slots
                            .iter_mut()
                            .zip(values)
                            .for_each(|(slot, value)| *slot = field(*value));
                    }
                });
            }
        }
        out
    }

    /// The weights of a combination of claims, over the whole stacked polynomial.
    #[must_use]
    pub fn weights<V>(&self, claims: &[Claim<V>], gamma: EF) -> Vec<EF> {
        let mut out = vec![EF::ZERO; 1 << self.variables];
        let mut power = EF::ONE;
        for claim in claims {
            for (index, functional) in &claim.terms {
                let Some(column) = self.columns.get(*index) else {
                    continue;
                };
                for block in &column.blocks {
                    if let Some(slots) = out.get_mut(block.offset..) {
                        functional
                            .within(&column.shape, block)
                            .add_to(slots, &block.sizes, power);
                    }
                }
            }
            power *= gamma;
        }
        out
    }

    /// The multilinear extension of [`Self::weights`] at a point.
    pub fn evaluate<V>(&self, claims: &[Claim<V>], gamma: EF, point: &[EF]) -> EF {
        let mut tables = EqTables::new(point);
        let mut sum = EF::ZERO;
        let mut power = EF::ONE;
        for claim in claims {
            let mut own = EF::ZERO;
            for (index, functional) in &claim.terms {
                let Some(column) = self.columns.get(*index) else {
                    continue;
                };
                for block in &column.blocks {
                    let (here, low) = block.place(point);
                    let value = if block.is_whole(&column.shape) {
                        functional.evaluate(&mut tables, low, &block.sizes)
                    } else {
                        functional.evaluate_within(&mut tables, low, &column.shape, block)
                    };
                    own += here * value;
                }
            }
            sum += power * own;
            power *= gamma;
        }
        sum
    }
}

impl Block {
    /// Elements of the padded cube.
    fn room(&self) -> usize {
        1 << self.variables.min(62)
    }

    /// Whether the block is the whole tensor.
    #[must_use]
    pub fn is_whole(&self, shape: &[usize]) -> bool {
        self.sizes == shape
    }

    /// The weight of the block at a point of the stacked polynomial, and the first coordinate inside the block.
    pub fn place(&self, point: &[EF]) -> (EF, usize) {
        let low = point.len().saturating_sub(self.variables);
        let high = point.get(..low).unwrap_or_default();
        (eq_index(high, self.offset >> self.variables), low)
    }

    /// The block's padded cube in a table over the stacked polynomial.
    pub(crate) fn slots<'a, T>(&self, table: &'a mut [T]) -> &'a mut [T] {
        table
            .get_mut(self.offset..self.offset + (1 << self.variables))
            .unwrap_or_default()
    }

    /// Calls with each run of elements: position in the tensor, position in the padded cube, length.
    pub(crate) fn visit(&self, shape: &[usize], mut run: impl FnMut(usize, usize, usize)) {
        let strides = opg_integer_program::shape::strides(shape);
        let Some((last, lead)) = self.sizes.split_last() else {
            return run(0, 0, 1);
        };
        let first = self.starts.last().copied().unwrap_or(0);
        let bits = log2_ceil(*last);
        // Rows of the block, in row-major order, as positions of the leading dimensions.
        let mut at = vec![0usize; lead.len()];
        for row in padded_positions(lead) {
            let from = at
                .iter()
                .zip(&self.starts)
                .zip(&strides)
                .map(|((at, start), stride)| (at + start) * stride);
            run(from.sum::<usize>() + first, row << bits, *last);
            for (at, size) in at.iter_mut().zip(lead).rev() {
                *at += 1;
                if *at < *size {
                    break;
                }
                *at = 0;
            }
        }
    }
}

/// Cuts a tensor into at most `most` rectangles, so that it takes the least room.
///
/// A dimension is cut at the bits of its size: 1400 = 1024 + 376 = 1024 + 256 + 120, the last piece padded. The room of
/// a tensor is the product of the rooms of its dimensions.
fn cut(shape: &[usize], most: usize) -> Vec<Block> {
    let choices: Vec<Vec<Vec<usize>>> = shape
        .iter()
        .map(|size| {
            let mut choices = vec![vec![*size]];
            let (mut left, mut pieces) = (*size, Vec::new());
            while left > 1 && !left.is_power_of_two() {
                let first = 1usize << (usize::BITS - 1 - left.leading_zeros());
                pieces.push(first);
                left -= first;
                choices.push(pieces.iter().copied().chain([left]).collect());
            }
            choices
        })
        .collect();
    // Best product for the dimensions so far, by number of blocks.
    let mut best: Vec<(usize, u128, Vec<&[usize]>)> = vec![(1, 1, Vec::new())];
    for choices in &choices {
        let mut next: Vec<(usize, u128, Vec<&[usize]>)> = Vec::new();
        for (blocks, room, chosen) in &best {
            for pieces in choices {
                let blocks = blocks * pieces.len();
                let own: u128 = pieces.iter().map(|piece| 1u128 << log2_ceil(*piece)).sum();
                let room = room.saturating_mul(own);
                if blocks > most || next.iter().any(|(fewer, less, _)| *fewer <= blocks && *less <= room) {
                    continue;
                }
                next.retain(|(more, larger, _)| *more < blocks || *larger < room);
                next.push((
                    blocks,
                    room,
                    chosen.iter().copied().chain([pieces.as_slice()]).collect(),
                ));
            }
        }
        best = next;
    }
    let pieces = best
        .into_iter()
        .min_by_key(|(blocks, room, _)| (*room, *blocks))
        .map(|(_, _, pieces)| pieces);
    let mut out = vec![(Vec::new(), Vec::new())];
    for pieces in pieces.unwrap_or_default() {
        out = out
            .into_iter()
            .flat_map(|(starts, sizes): (Vec<usize>, Vec<usize>)| {
                let mut start = 0;
                pieces.iter().map(move |piece| {
                    let block = (with(&starts, start), with(&sizes, *piece));
                    start += piece;
                    block
                })
            })
            .collect();
    }
    let block = |(starts, sizes): (Vec<usize>, Vec<usize>)| Block {
        offset: 0,
        variables: variables(&sizes),
        starts,
        sizes,
    };
    out.into_iter().map(block).collect()
}

fn with(list: &[usize], last: usize) -> Vec<usize> {
    list.iter().copied().chain([last]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(count: usize) -> Vec<EF> {
        (0..count).map(|i| EF::from_usize(i * i + 3)).collect()
    }

    #[test]
    fn blocks_cover_every_element_once() {
        for (shape, most) in [
            (vec![1400, 700], 16),
            (vec![6, 24, 24], 8),
            (vec![1, 10], 4),
            (vec![3], 2),
            (vec![], 4),
        ] {
            let mut seen = vec![0; shape.iter().product()];
            let blocks = cut(&shape, most);
            assert!(blocks.len() <= most);
            for block in &blocks {
                block.visit(&shape, |from, _, count| {
                    seen.iter_mut().skip(from).take(count).for_each(|seen| *seen += 1)
                });
            }
            assert!(seen.iter().all(|seen| *seen == 1), "{shape:?}");
        }
    }

    /// Stacked values times stacked weights are the functional's value, and the weights' extension is the verifier's.
    #[test]
    fn claims_on_blocks_add_up() {
        let shapes = vec![vec![12, 5], vec![3, 6, 7], vec![40]];
        for layout in [Layout::with_blocks(&shapes, 1), Layout::with_blocks(&shapes, 8)] {
            let columns: Vec<Vec<i64>> = shapes
                .iter()
                .map(|shape| {
                    (0..shape.iter().product::<usize>() as i64)
                        .map(|i| i * 7 - 50)
                        .collect()
                })
                .collect();
            let functional = |shape: &[usize]| Functional::per_dim(shape.iter().map(|size| numbers(*size)).collect());
            let claims: Vec<Claim> = shapes
                .iter()
                .enumerate()
                .map(|(index, shape)| Claim {
                    terms: vec![(index, functional(shape))],
                    value: EF::ZERO,
                })
                .collect();
            let gamma = EF::from_u32(12345);
            let stacked = layout.stack(&columns);
            let weights = layout.weights(&claims, gamma);
            let sum: EF = weights
                .iter()
                .zip(&stacked)
                .map(|(weight, value)| *weight * *value)
                .sum();
            let mut expected = EF::ZERO;
            for (claim, values) in claims.iter().zip(&columns).rev() {
                expected = expected * gamma + claim.terms[0].1.apply(values);
            }
            assert_eq!(sum, expected);
            let point = numbers(layout.variables);
            let extension: EF = weights
                .iter()
                .zip(crate::field::eq_table(&point, weights.len()))
                .map(|(a, b)| *a * b)
                .sum();
            assert_eq!(extension, layout.evaluate(&claims, gamma, &point));
        }
    }

    #[test]
    fn cutting_makes_commitments_smaller() {
        for (shapes, whole, cut) in [
            (
                vec![vec![784, 1400], vec![1400, 1400], vec![1400, 700], vec![700, 10]],
                24,
                22,
            ),
            (
                vec![vec![784, 800], vec![800, 400], vec![400, 128], vec![128, 10]],
                21,
                20,
            ),
            (vec![vec![784, 224], vec![224, 112], vec![112, 10]], 19, 18),
        ] {
            assert_eq!(Layout::with_blocks(&shapes, 1).variables, whole);
            assert_eq!(Layout::new(shapes).variables, cut);
        }
    }
}
