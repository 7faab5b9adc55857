//! The code of hiding commitments: Reed-Solomon with a random tail.
//!
//! A row of `message` elements becomes a polynomial whose first coefficients are the message and whose last `tail` ones
//! are random; a codeword is its values on the subgroup of order `2^log_length`. Any `tail` symbols are independent and
//! uniform: over distinct non-zero points the tail alone, `x^message * (random polynomial of degree < tail)`, takes all
//! values equally often.

use p3_dft::{Radix2DFTSmallBatch, TwoAdicSubgroupDft};
use p3_field::PrimeCharacteristicRing;
use p3_matrix::{Matrix, dense::RowMajorMatrix};

use crate::{commit::ParameterSet, error::PlanError, field::F};

/// Binary logarithm of the codeword's length by the message's.
const LOG_EXPANSION: usize = 3;
/// Fewest and most elements of a message, binary logarithms.
const LOG_MESSAGE: std::ops::RangeInclusive<usize> = 8..=20;

/// Parameters of a hiding commitment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Code {
    /// Binary logarithm of the elements of a message.
    pub log_message: usize,
    /// Random coefficients of a row; a proof reads at most as many symbols of it.
    pub tail: usize,
    /// Binary logarithm of the symbols of a codeword.
    pub log_length: usize,
}

impl Code {
    /// The code that makes proofs about `elements` committed integers with `wires` hidden messages shortest.
    ///
    /// # Errors
    /// [`PlanError::Commitment`]: no code reaches the security of the parameter set.
    pub fn choose(set: ParameterSet, elements: usize, wires: usize) -> Result<Self, PlanError> {
        LOG_MESSAGE
            .filter_map(|log_message| Self::with_message(set, log_message))
            .min_by_key(|code| code.bytes(elements, wires))
            .ok_or(PlanError::Commitment {
                variables: crate::field::log2_ceil(elements),
                reason: "no code for the parameter set".to_owned(),
            })
    }

    /// The fewest queries that reach the target: as many as the tail has elements.
    fn with_message(set: ParameterSet, log_message: usize) -> Option<Self> {
        // One bit more than the target of a term: two rows are checked with the same queries.
        let target = (set.term_bits() - set.grinding_bits() + 1) as f64;
        (64..=1usize << log_message)
            .map(|tail| Self {
                log_message,
                tail,
                log_length: log_message + LOG_EXPANSION,
            })
            .find(|code| code.query_bits() * code.tail as f64 >= target)
    }

    /// Estimated bytes of a proof.
    fn bytes(&self, elements: usize, wires: usize) -> usize {
        let (rows, wires) = (elements.div_ceil(self.message()), wires.div_ceil(self.message()));
        20 * self.dimension() * (1 + wires) + self.tail * (4 * (rows + 10 * wires + 5) + 32 * 8)
    }

    /// Elements of a message.
    #[must_use]
    pub const fn message(&self) -> usize {
        1 << self.log_message
    }

    /// Coefficients of a row.
    #[must_use]
    pub const fn dimension(&self) -> usize {
        self.message() + self.tail
    }

    /// Symbols of a codeword.
    #[must_use]
    pub const fn length(&self) -> usize {
        1 << self.log_length
    }

    /// Most wrong symbols that decode uniquely: less than half the distance `length - dimension + 1`.
    #[must_use]
    pub const fn radius(&self) -> usize {
        (self.length() - self.dimension()) / 2
    }

    /// Bits of soundness of one query: a word further away than [`Self::radius`] is met with this probability.
    pub fn query_bits(&self) -> f64 {
        -(1.0 - (self.radius() + 1) as f64 / self.length() as f64).log2()
    }

    /// Symbols of all rows, position by position. Rows are coefficients, shorter ones end with zeros.
    pub(crate) fn encode(&self, rows: &[Vec<F>]) -> Vec<F> {
        let width = rows.len();
        let mut coefficients = vec![F::ZERO; width << self.log_length];
        for (index, row) in rows.iter().enumerate() {
            for (slot, value) in coefficients.iter_mut().skip(index).step_by(width).zip(row) {
                *slot = *value;
            }
        }
        let matrix = RowMajorMatrix::new(coefficients, width);
        let dft = Radix2DFTSmallBatch::default();
        dft.dft_batch(matrix).to_row_major_matrix().values
    }
}

#[cfg(test)]
mod tests {
    use p3_field::{PrimeField32, TwoAdicField};

    use super::*;

    #[test]
    fn symbols_are_values_of_the_polynomial() {
        let code = Code {
            log_message: 3,
            tail: 4,
            log_length: 6,
        };
        let rows: Vec<Vec<F>> = (1..4u32)
            .map(|row| (0..12).map(|i| F::from_u32(row * 1000 + i * i * i)).collect())
            .collect();
        let symbols = code.encode(&rows);
        let generator = F::two_adic_generator(6);
        for position in 0..64 {
            let x = generator.exp_u64(position as u64);
            for (index, row) in rows.iter().enumerate() {
                let value = row.iter().rev().fold(F::ZERO, |sum, c| sum * x + *c);
                assert_eq!(symbols[position * 3 + index], value);
            }
        }
    }

    /// Over all random tails, every tuple of as many symbols as the tail is long appears equally often. Shown by the
    /// rank of the map from tails to symbols.
    #[test]
    fn as_many_symbols_as_the_tail_are_uniform() {
        let code = Code {
            log_message: 2,
            tail: 5,
            log_length: 5,
        };
        let columns: Vec<Vec<F>> = (0..code.tail)
            .map(|unit| {
                let mut row = vec![F::ZERO; code.dimension()];
                row[code.message() + unit] = F::ONE;
                code.encode(&[row])
            })
            .collect();
        for positions in [[0usize, 1, 2, 3, 4], [0, 8, 16, 24, 31], [3, 9, 10, 22, 30]] {
            let mut matrix: Vec<Vec<F>> = positions
                .iter()
                .map(|at| columns.iter().map(|column| column[*at]).collect())
                .collect();
            assert_eq!(rank(&mut matrix), code.tail);
        }
    }

    fn rank(matrix: &mut [Vec<F>]) -> usize {
        use p3_field::Field;
        let mut rank = 0;
        for column in 0..matrix[0].len() {
            let Some(pivot) = (rank..matrix.len()).find(|row| matrix[*row][column].as_canonical_u32() != 0) else {
                continue;
            };
            matrix.swap(rank, pivot);
            let inverse = matrix[rank][column].inverse();
            for row in rank + 1..matrix.len() {
                let factor = matrix[row][column] * inverse;
                for at in column..matrix[row].len() {
                    let value = matrix[rank][at];
                    matrix[row][at] -= factor * value;
                }
            }
            rank += 1;
        }
        rank
    }

    #[test]
    fn queries_reach_the_target() {
        for set in [ParameterSet::Bits100, ParameterSet::Bits128] {
            for (elements, wires) in [(1 << 12, 500), (1 << 18, 2000), (1 << 27, 20_000)] {
                let code = Code::choose(set, elements, wires).unwrap();
                let target = (set.term_bits() - set.grinding_bits()) as f64;
                assert!(code.query_bits() * code.tail as f64 > target);
                assert!(2 * code.radius() <= code.length() - code.dimension());
            }
        }
    }
}
