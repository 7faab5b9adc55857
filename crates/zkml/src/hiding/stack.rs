//! Everything that a hiding proof opens, as one polynomial: witness, weights and secret inputs, each a matrix of rows
//! under a commitment of its own, next to each other on one cube.

use p3_field::PrimeCharacteristicRing;

use crate::{
    error::PlanError,
    field::{EF, F, eq_table, log2_ceil},
    hiding::{
        code::Code,
        form::Form,
        random::{Key, Use},
    },
    layout::{Claim, Layout},
    plan::{MAX_VARIABLES, Plan},
};

/// One commitment's place.
#[derive(Debug, Clone, Copy)]
struct Part {
    /// First element on the cube.
    offset: usize,
    /// Number of rows.
    rows: usize,
    /// Number of its first column among all columns.
    column: usize,
}

/// The parts: witness, weights and, if they are secret, inputs.
#[derive(Debug)]
pub(crate) struct Stack {
    pub(crate) layout: Layout,
    parts: Vec<Part>,
    log_message: usize,
}

/// Rows of a polynomial with as many variables.
pub(crate) const fn rows(code: &Code, variables: usize) -> usize {
    1 << variables.saturating_sub(code.log_message)
}

impl Stack {
    pub(crate) fn new(code: &Code, plan: &Plan) -> Result<Self, PlanError> {
        let mut layouts = vec![&plan.layout, &plan.weights];
        if plan.secret_inputs {
            layouts.push(&plan.inputs);
        }
        let mut parts = Vec::with_capacity(layouts.len());
        let mut column = 0;
        for layout in &layouts {
            let rows = rows(code, layout.variables);
            parts.push(Part {
                offset: 0,
                rows,
                column,
            });
            column += layout.columns.len();
        }
        let mut order: Vec<&mut Part> = parts.iter_mut().collect();
        order.sort_by_key(|part| std::cmp::Reverse(part.rows));
        let mut next = 0usize;
        for part in order {
            part.offset = next;
            next += part.rows << code.log_message;
        }
        let variables = log2_ceil(next);
        if variables > MAX_VARIABLES {
            return Err(PlanError::Size {
                what: "committed elements",
                got: next,
                limit: 1 << MAX_VARIABLES,
            });
        }
        let columns = layouts.iter().zip(&parts).flat_map(|(layout, part)| {
            layout.columns.iter().cloned().map(|mut column| {
                column.blocks.iter_mut().for_each(|block| block.offset += part.offset);
                column
            })
        });
        Ok(Self {
            layout: Layout {
                columns: columns.collect(),
                variables,
            },
            parts,
            log_message: code.log_message,
        })
    }

    /// Rows of each part.
    pub(crate) fn rows(&self) -> Vec<usize> {
        self.parts.iter().map(|part| part.rows).collect()
    }

    /// Variables of the row's number.
    pub(crate) const fn row_variables(&self) -> usize {
        self.layout.variables - self.log_message
    }

    /// Claims on the parts as claims on the whole.
    pub(crate) fn claims(&self, parts: [Vec<Claim<Form>>; 3]) -> Vec<Claim<Form>> {
        let mut out = Vec::new();
        for (index, claims) in parts.into_iter().enumerate() {
            let first = self.parts.get(index).map_or(usize::MAX, |part| part.column);
            out.extend(claims.into_iter().map(|mut claim| {
                claim
                    .terms
                    .iter_mut()
                    .for_each(|(column, _)| *column = column.saturating_add(first));
                claim
            }));
        }
        out
    }

    /// The stacked polynomial.
    pub(crate) fn values(&self, parts: &[&[F]]) -> Vec<F> {
        let mut out = vec![F::ZERO; 1 << self.layout.variables];
        for (part, values) in self.parts.iter().zip(parts) {
            for (slot, value) in out.iter_mut().skip(part.offset).zip(*values) {
                *slot = *value;
            }
        }
        out
    }

    /// The weight of every row of every part at the row coordinates of a point.
    pub(crate) fn row_weights(&self, high: &[EF]) -> Vec<Vec<EF>> {
        let all = eq_table(high, 1 << self.row_variables());
        let own = |part: &Part| {
            let first = part.offset >> self.log_message;
            all.get(first..first + part.rows).unwrap_or_default().to_vec()
        };
        self.parts.iter().map(own).collect()
    }
}

/// Rows of a polynomial with their random tails.
pub(crate) fn with_tails(code: &Code, values: &[F], key: &Key) -> Vec<Vec<F>> {
    let tail = |(index, row): (usize, &[F])| {
        let mut row = row.to_vec();
        row.resize(code.message(), F::ZERO);
        row.extend(key.stream(Use::Row(index)).bases(code.tail));
        row
    };
    values.chunks(code.message()).enumerate().map(tail).collect()
}
