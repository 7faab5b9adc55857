//! The prover's data: all values of the program and the columns that are committed.

use opg_integer_program::program::{Graph, Op, Operand, Shift, round_shift};

use p3_maybe_rayon::prelude::*;

use crate::{
    expression::{Expression, Source},
    field::field,
    plan::{Plan, Quantity, TableKind},
};
use p3_field::PrimeField32;

/// Values of everything, requests one after the other.
#[derive(Debug)]
pub(crate) struct Witness<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) plan: &'a Plan,
    pub(crate) inputs: Vec<Vec<i64>>,
    pub(crate) nodes: Vec<Vec<i64>>,
    pub(crate) constants: &'a [Vec<i64>],
    pub(crate) columns: Vec<Vec<i64>>,
}

impl<'a> Witness<'a> {
    /// Fills the columns.
    pub(crate) fn new(
        graph: &'a Graph,
        plan: &'a Plan,
        inputs: Vec<Vec<i64>>,
        nodes: Vec<Vec<i64>>,
        constants: &'a [Vec<i64>],
    ) -> Self {
        let mut witness = Self {
            graph,
            plan,
            inputs,
            nodes,
            constants,
            columns: vec![Vec::new(); plan.columns.len()],
        };
        // Results first: the other quantities read them through the columns.
        for pass in 0..4 {
            let columns: Vec<(usize, Vec<i64>)> = plan
                .columns
                .par_iter()
                .enumerate()
                .filter(|(_, column)| order(&column.recipe.quantity) == pass)
                .map(|(index, column)| {
                    let mut values = witness.quantity(&column.recipe.quantity, &column.shape);
                    let recipe = &column.recipe;
                    if recipe.shift > 0 || recipe.bits < 63 {
                        let mask = (1i64 << recipe.bits.min(62)) - 1;
                        values
                            .iter_mut()
                            .for_each(|value| *value = (*value >> recipe.shift.min(62)) & mask);
                    }
                    (index, values)
                })
                .collect();
            for (index, values) in columns {
                if let Some(slot) = witness.columns.get_mut(index) {
                    *slot = values;
                }
            }
        }
        witness
    }

    /// Counts lookups again, after a test has changed columns.
    #[cfg(test)]
    pub(crate) fn recount(&mut self) {
        for (index, column) in self.plan.columns.iter().enumerate() {
            if let Quantity::Multiplicity(table) = column.recipe.quantity {
                self.columns[index] = self.multiplicity(table);
            }
        }
    }

    /// A tensor's values.
    pub(crate) fn operand(&self, operand: Operand) -> &[i64] {
        let list = match operand {
            Operand::Input(_) => self.inputs.as_slice(),
            Operand::Node(_) => self.nodes.as_slice(),
            Operand::Constant(_) => self.constants,
        };
        let (Operand::Input(index) | Operand::Node(index) | Operand::Constant(index)) = operand;
        list.get(index as usize).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn column(&self, index: usize) -> &[i64] {
        self.columns.get(index).map_or(&[], Vec::as_slice)
    }

    /// Values of an expression.
    pub(crate) fn expression(&self, expression: &Expression) -> Vec<i64> {
        expression.materialise(|source| match source {
            Source::One => None,
            Source::Column(index) => Some(self.column(index)),
            Source::Operand(operand) => Some(self.operand(operand)),
        })
    }

    fn quantity(&self, quantity: &Quantity, shape: &[usize]) -> Vec<i64> {
        match quantity {
            Quantity::Node(number) => self.nodes.get(*number).cloned().unwrap_or_default(),
            Quantity::Remainder(number) => self.requant(*number, |x, shift, greatest, _, _| {
                let half = if shift == 0 { 0 } else { 1i64 << (shift - 1) };
                ((x + half) - (round_shift(x, shift) << shift)) << (greatest - shift)
            }),
            Quantity::Above(number) => self.requant(*number, |x, shift, _, _, hi| (round_shift(x, shift) - hi).max(0)),
            Quantity::Below(number) => self.requant(*number, |x, shift, _, lo, _| (lo - round_shift(x, shift)).max(0)),
            Quantity::Selector(number, k) => self.selector(*number, *k, shape),
            Quantity::HalfDivisor(number) => {
                let Some(Op::Divide { den, .. }) = self.graph.nodes.get(*number).map(|node| &node.op) else {
                    return Vec::new();
                };
                self.operand(*den).iter().map(|den| den / 2).collect()
            }
            Quantity::DivisionRemainder(number) => {
                let Some(product) = self.plan.products.iter().find(|product| product.node == *number) else {
                    return Vec::new();
                };
                let Some(Op::Divide { num, shift, .. }) = self.graph.nodes.get(*number).map(|node| &node.op) else {
                    return Vec::new();
                };
                let divisors = self.expression(&Expression::new(shape.to_vec(), vec![product.divisor.clone()]));
                let quotients = self.nodes.get(*number).map_or(&[][..], Vec::as_slice);
                self.operand(*num)
                    .iter()
                    .zip(divisors)
                    .zip(quotients)
                    .map(|((num, den), q)| (num << shift) + den / 2 - q * den)
                    .collect()
            }
            Quantity::Expression(expression) => self.expression(expression),
            Quantity::Multiplicity(table) => self.multiplicity(*table),
        }
    }

    fn requant(&self, number: usize, body: impl Fn(i64, u8, u8, i64, i64) -> i64) -> Vec<i64> {
        let Some(node) = self.graph.nodes.get(number) else {
            return Vec::new();
        };
        let Op::Requant { x, shift, lo, hi } = &node.op else {
            return Vec::new();
        };
        let (lo, hi) = (i64::from(*lo), i64::from(*hi));
        let greatest = shift.bounds().1;
        let (step, size) = match shift {
            Shift::Tensor(_) => (1, 1),
            Shift::Axis { axis, shifts } => {
                let strides = opg_integer_program::shape::strides(&node.ty.shape);
                (
                    strides.get(usize::from(*axis)).copied().unwrap_or(1),
                    shifts.len().max(1),
                )
            }
        };
        self.operand(*x)
            .iter()
            .enumerate()
            .map(|(index, x)| body(*x, shift.at((index / step) % size).unwrap_or(0), greatest, lo, hi))
            .collect()
    }

    /// 1 where the maximum is attained for the first time.
    fn selector(&self, number: usize, k: usize, shape: &[usize]) -> Vec<i64> {
        let Some(node) = self.graph.nodes.get(number) else {
            return Vec::new();
        };
        match &node.op {
            Op::MaxPool { .. } => {
                // The constraints `h_j (y - x_j) = 0` of this node, in the order of the window's positions.
                let mut taken = vec![false; shape.iter().product()];
                let mut out = vec![0i64; taken.len()];
                for (column, plan) in self.plan.columns.iter().enumerate() {
                    let Quantity::Selector(owner, j) = plan.recipe.quantity else {
                        continue;
                    };
                    if owner != number || j > k {
                        continue;
                    }
                    let reads = |pair: &&crate::plan::Pair| {
                        pair.d.valid.is_some()
                            && matches!(pair.e.terms.as_slice(), [term] if term.source == Source::Column(column))
                    };
                    let Some(pair) = self.plan.pairs.iter().find(reads) else {
                        continue;
                    };
                    let Some(valid) = &pair.d.valid else { continue };
                    let difference = self.expression(&pair.d);
                    let strides = opg_integer_program::shape::strides(shape);
                    for (flat, (taken, difference)) in taken.iter_mut().zip(&difference).enumerate() {
                        let mut position = strides.iter().zip(shape).map(|(stride, size)| (flat / stride) % size);
                        let inside = valid
                            .iter()
                            .all(|(first, end)| position.next().is_some_and(|at| at >= *first && at < *end));
                        let first = inside && *difference == 0 && !*taken;
                        *taken |= first;
                        if j == k
                            && first
                            && let Some(slot) = out.get_mut(flat)
                        {
                            *slot = 1;
                        }
                    }
                }
                out
            }
            Op::ReduceMax { x, .. } => {
                let result = self.nodes.get(number).map_or(&[][..], Vec::as_slice);
                let own = std::iter::once(self.plan.batch)
                    .chain(node.ty.shape.iter().copied())
                    .collect::<Vec<_>>();
                let steps = opg_integer_program::shape::broadcast_strides(&own, shape).unwrap_or_default();
                let steps = opg_integer_program::shape::signed(&steps);
                let mut taken = vec![false; result.len()];
                self.operand(*x)
                    .iter()
                    .zip(opg_integer_program::shape::Walk::new(shape, &steps, 0))
                    .map(|(value, target)| {
                        let target = usize::try_from(target).unwrap_or(usize::MAX);
                        match (result.get(target), taken.get_mut(target)) {
                            (Some(max), Some(taken)) if max == value && !*taken => {
                                *taken = true;
                                1
                            }
                            _ => 0,
                        }
                    })
                    .collect()
            }
            _ => Vec::new(),
        }
    }

    fn multiplicity(&self, table: usize) -> Vec<i64> {
        let Some(plan) = self.plan.tables.get(table) else {
            return Vec::new();
        };
        let first = match plan.kind {
            TableKind::Width(_) => 0,
            TableKind::Function(index) => self.graph.tables.get(index).map_or(0, |table| i64::from(table.first)),
        };
        let mut counts = vec![0i64; plan.rows];
        for lookup in self.plan.lookups.iter().filter(|lookup| lookup.table == table) {
            let values = self.expression(&lookup.key);
            let count = |counts: &mut Vec<i64>, value: i64| {
                let row = usize::try_from(value - first).ok();
                if let Some(slot) = row.and_then(|row| counts.get_mut(row)) {
                    *slot += 1;
                }
            };
            match &lookup.key.valid {
                None => values.into_iter().for_each(|value| count(&mut counts, value)),
                Some(valid) => {
                    let shape = &lookup.key.shape;
                    let strides = opg_integer_program::shape::strides(shape);
                    for (flat, value) in values.into_iter().enumerate() {
                        let mut position = strides.iter().zip(shape).map(|(stride, size)| (flat / stride) % size);
                        if valid
                            .iter()
                            .all(|(first, end)| position.next().is_some_and(|at| at >= *first && at < *end))
                        {
                            count(&mut counts, value);
                        }
                    }
                }
            }
        }
        // Canonical, for a program whose tables are looked up more often than 2^31 times there is no plan.
        counts
            .into_iter()
            .map(|count| i64::from(field(count).as_canonical_u32()))
            .collect()
    }
}

/// Which quantities are needed before which.
const fn order(quantity: &Quantity) -> usize {
    match quantity {
        Quantity::Node(_) => 0,
        Quantity::Remainder(_)
        | Quantity::Above(_)
        | Quantity::Below(_)
        | Quantity::Selector(..)
        | Quantity::HalfDivisor(_)
        | Quantity::DivisionRemainder(_) => 1,
        Quantity::Expression(_) => 2,
        Quantity::Multiplicity(_) => 3,
    }
}
