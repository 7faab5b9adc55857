//! The protocol, written once for both ends: from the public outputs and the committed columns to linear claims on the
//! two commitments.

use std::sync::atomic::{AtomicBool, Ordering};

use p3_field::PrimeCharacteristicRing;

use opg_integer_program::program::{Graph, Op, Operand};

use crate::{
    channel::{Channel, Value, pair, single},
    error::{Check, PlanError, VerifyError},
    expression::{Expression, Source, Term},
    field::{EF, F, eq_points, eq_table, ext, field},
    functional::{EqTables, Functional, Vector, padded, variables},
    layout::Claim,
    plan::{Plan, TableKind, batched},
    sumcheck::Table,
};

/// A claim on a tensor.
#[derive(Debug, Clone)]
pub(crate) struct TensorClaim<V> {
    pub(crate) functional: Functional,
    pub(crate) value: V,
}

/// State of a run.
pub(crate) struct Protocol<'a, C: Channel> {
    pub(crate) graph: &'a Graph,
    pub(crate) plan: &'a Plan,
    /// Public inputs, requests one after the other; not read if the plan's inputs are secret.
    pub(crate) inputs: &'a [Vec<i64>],
    pub(crate) channel: C,
    /// Open claims on nodes that are not committed.
    pub(crate) open: Vec<Vec<TensorClaim<C::Value>>>,
    /// Claims on the witness commitment.
    pub(crate) witness: Vec<Claim<C::Value>>,
    /// Claims on the constants.
    pub(crate) weights: Vec<Claim<C::Value>>,
    /// Claims on secret inputs.
    pub(crate) secrets: Vec<Claim<C::Value>>,
    /// Called with the name of the node or argument that comes next.
    pub(crate) progress: &'a mut dyn FnMut(Stage<'_>),
    /// Set when the caller wants no result any more.
    pub(crate) cancel: &'a AtomicBool,
}

/// For runs that nobody cancels.
pub(crate) static NEVER: AtomicBool = AtomicBool::new(false);

/// A step of proving or verifying, for callers that measure time or show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage<'a> {
    /// Commitment of the witness.
    Commit,
    /// Relations of committed operations.
    Relations,
    /// The lookup argument.
    Lookups,
    /// The constraints `e * d = 0`.
    Constraints,
    /// One node: its position and name.
    Node(usize, &'a str),
    /// Reduction of all claims on the witness to one point, and its opening.
    WitnessOpening,
    /// Reduction of all claims on the weights to one point, and its opening.
    WeightOpening,
    /// Nothing is left.
    Done,
}

impl<C: Channel> Protocol<'_, C> {
    /// Runs everything up to the two openings.
    pub(crate) fn run(&mut self, outputs: &[Vec<i64>]) -> Result<(), VerifyError> {
        self.begin(Stage::Relations)?;
        self.outputs(outputs)?;
        self.relations()?;
        self.begin(Stage::Lookups)?;
        self.lookups()?;
        self.begin(Stage::Constraints)?;
        self.pairs()?;
        self.products()?;
        for number in (0..self.graph.nodes.len()).rev() {
            let claims = self.open.get_mut(number).map(std::mem::take).unwrap_or_default();
            if claims.is_empty() {
                continue;
            }
            if let Some(node) = self.graph.nodes.get(number) {
                self.begin(Stage::Node(number, &node.name))?;
            }
            self.node(number, claims)?;
        }
        Ok(())
    }

    /// Tells the caller what comes next, unless it has lost interest.
    fn begin(&mut self, stage: Stage<'_>) -> Result<(), VerifyError> {
        if self.cancel.load(Ordering::Relaxed) {
            return Err(VerifyError::Cancelled);
        }
        (self.progress)(stage);
        Ok(())
    }

    pub(crate) fn shape(&self, operand: Operand) -> Result<Vec<usize>, VerifyError> {
        batched(self.graph, self.plan.batch, operand).ok_or_else(|| {
            VerifyError::Plan(PlanError::Graph {
                node: String::new(),
                op: "operand",
                reason: "an operand is missing",
            })
        })
    }

    pub(crate) fn invalid(&self, number: usize, reason: &'static str) -> VerifyError {
        let (node, op) = self
            .graph
            .nodes
            .get(number)
            .map_or((String::new(), ""), |node| (node.name.clone(), node.op.name()));
        VerifyError::Plan(PlanError::Graph { node, op, reason })
    }

    /// Takes a claim on a tensor to where it is settled.
    pub(crate) fn claim(
        &mut self,
        operand: Operand,
        functional: Functional,
        value: C::Value,
    ) -> Result<(), VerifyError> {
        match operand {
            Operand::Input(index) if self.plan.secret_inputs => {
                self.secrets.push(Claim {
                    terms: vec![(index as usize, functional)],
                    value,
                });
                Ok(())
            }
            Operand::Input(index) => {
                let values = self.inputs.get(index as usize).map_or(&[][..], Vec::as_slice);
                let own = C::Value::from(functional.apply(values));
                self.channel.zero(Check::Input, value - own, "input")
            }
            Operand::Constant(index) => {
                self.weights.push(Claim {
                    terms: vec![(index as usize, functional)],
                    value,
                });
                Ok(())
            }
            Operand::Node(index) => {
                match self.plan.committed.get(index as usize).copied().flatten() {
                    Some(column) => self.witness.push(Claim {
                        terms: vec![(column, functional)],
                        value,
                    }),
                    None => {
                        if let Some(open) = self.open.get_mut(index as usize) {
                            open.push(TensorClaim { functional, value });
                        }
                    }
                }
                Ok(())
            }
        }
    }

    fn outputs(&mut self, outputs: &[Vec<i64>]) -> Result<(), VerifyError> {
        let graph = self.graph;
        for (output, values) in graph.outputs.iter().zip(outputs) {
            let shape = self.shape(output.source)?;
            let point = self.channel.challenges(variables(&shape));
            let functional = Functional::point(&point, &shape);
            let value = functional.apply(values);
            self.claim(output.source, functional, value.into())?;
        }
        Ok(())
    }

    /// Splits an expression under weights into columns and a number; the prover states values of other tensors.
    fn linearise(
        &mut self,
        expression_terms: &[Term],
        vectors: &[Vector],
        factor: EF,
        columns: &mut Vec<(usize, Functional)>,
    ) -> Result<C::Value, VerifyError> {
        let mut rest = C::Value::from(EF::ZERO);
        for term in expression_terms {
            let coefficient = factor * ext(term.coefficient);
            let weights = Functional::per_dim(Expression::term_weights(term, vectors));
            match term.source {
                Source::One => rest += (coefficient * weights.mass()).into(),
                Source::Column(index) => columns.push((index, weights.scaled(coefficient))),
                Source::Operand(operand) => {
                    let shape = self.shape(operand)?;
                    let weights = weights.reshaped(&shape).ok_or_else(|| {
                        VerifyError::Plan(PlanError::Graph {
                            node: String::new(),
                            op: "operand",
                            reason: "an operand has another number of elements than its use",
                        })
                    })?;
                    match operand {
                        Operand::Input(index) if !self.plan.secret_inputs => {
                            let values = self.inputs.get(index as usize).map_or(&[][..], Vec::as_slice);
                            rest += (coefficient * weights.apply(values)).into();
                        }
                        Operand::Node(index)
                            if self.plan.committed.get(index as usize).is_some_and(Option::is_some) =>
                        {
                            let column = self.plan.committed.get(index as usize).copied().flatten().unwrap_or(0);
                            columns.push((column, weights.scaled(coefficient)));
                        }
                        Operand::Node(_) | Operand::Constant(_) | Operand::Input(_) => {
                            let value = self.state(operand, &weights)?;
                            rest += value.clone() * coefficient;
                            self.claim(operand, weights, value)?;
                        }
                    }
                }
            }
        }
        Ok(rest)
    }

    /// The prover states the value of a functional.
    pub(crate) fn state(&mut self, operand: Operand, weights: &Functional) -> Result<C::Value, VerifyError> {
        let values = self
            .channel
            .values(1, |witness| vec![weights.apply(witness.operand(operand))])?;
        Ok(single(values))
    }

    /// A sum of columns and numbers that must be zero.
    fn settle(&mut self, terms: Vec<(usize, Functional)>, rest: C::Value) {
        // Also where no column is left: a claim without terms and of another value than 0 fails with the others.
        self.witness.push(Claim { terms, value: -rest });
    }

    /// Every linear relation at one random point.
    fn relations(&mut self) -> Result<(), VerifyError> {
        let plan = self.plan;
        let most = plan
            .relations
            .iter()
            .map(|relation| variables(&relation.zero.shape))
            .max()
            .unwrap_or(0);
        let point = self.channel.challenges(most);
        let mut tables = EqTables::new(&point);
        for relation in &plan.relations {
            let vectors = relation.zero.weights(&mut tables);
            let mut terms = Vec::new();
            let rest = self.linearise(&relation.zero.terms, &vectors, EF::ONE, &mut terms)?;
            self.settle(terms, rest);
        }
        Ok(())
    }

    /// One lookup argument: every looked-up value adds `1 / (alpha - key)`, every row of a table takes its
    /// multiplicity off.
    fn lookups(&mut self) -> Result<(), VerifyError> {
        let (plan, graph) = (self.plan, self.graph);
        if plan.lookups.is_empty() || !self.channel.makes(Check::Lookup) {
            return Ok(());
        }
        let alpha = self.channel.challenge();
        let beta = self.channel.challenge();
        let identity = |table: usize| beta.square() * ext(i64::try_from(table).unwrap_or(0) + 1);
        let total = plan.leaves.variables;
        let output = self.channel.fractions(total, |witness| {
            let mut numerators = vec![F::ZERO; 1 << total];
            let mut denominators = vec![alpha; 1 << total];
            for (lookup, leaf) in plan.lookups.iter().zip(&plan.leaves.columns) {
                let base = alpha - identity(lookup.table);
                let keys = witness.expression(&lookup.key);
                let mut ones = Expression::new(lookup.key.shape.clone(), vec![Term::new(1, Source::One)]);
                ones.valid.clone_from(&lookup.key.valid);
                let ones = witness.expression(&ones);
                let second = lookup.second.as_ref().map(|term| {
                    witness.expression(&Expression {
                        shape: lookup.key.shape.clone(),
                        valid: lookup.key.valid.clone(),
                        terms: vec![term.clone()],
                    })
                });
                for block in &leaf.blocks {
                    block.slots(&mut denominators).fill(base);
                    block.visit(&lookup.key.shape, |from, to, count| {
                        let own = block.offset + to;
                        let runs = (
                            numerators.get_mut(own..own + count),
                            denominators.get_mut(own..own + count),
                            ones.get(from..from + count),
                            keys.get(from..from + count),
                        );
                        let (Some(numerators), Some(denominators), Some(ones), Some(keys)) = runs else {
                            return;
                        };
                        numerators
                            .iter_mut()
                            .zip(ones)
                            .for_each(|(slot, one)| *slot = field(*one));
                        denominators
                            .iter_mut()
                            .zip(keys)
                            .for_each(|(slot, key)| *slot -= field(*key));
                        if let Some(values) = second.as_ref().and_then(|second| second.get(from..from + count)) {
                            denominators
                                .iter_mut()
                                .zip(values)
                                .for_each(|(slot, value)| *slot -= beta * field(*value));
                        }
                    });
                }
            }
            let tables = plan.leaves.columns.iter().skip(plan.lookups.len());
            for ((number, table), leaf) in plan.tables.iter().enumerate().zip(tables) {
                let base = alpha - identity(number);
                let counts = witness.column(table.multiplicity);
                for block in &leaf.blocks {
                    let start = block.starts.first().copied().unwrap_or(0);
                    let rows = block.sizes.first().copied().unwrap_or(0);
                    let denominators = block.slots(&mut denominators);
                    denominators.fill(base);
                    for (row, slot) in denominators.iter_mut().enumerate().take(rows) {
                        *slot -= graph_row(graph, table.kind, start + row, beta);
                    }
                    let counts = counts.get(start..start + rows).unwrap_or_default();
                    let numerators = block.slots(&mut numerators);
                    numerators
                        .iter_mut()
                        .zip(counts)
                        .for_each(|(slot, count)| *slot = -field(*count));
                }
            }
            (numerators, denominators)
        })?;
        let point = output.point;
        // What the numerators and denominators are, apart from the committed columns.
        let mut numerator = -output.numerator;
        let mut denominator = C::Value::from(alpha) - output.denominator;
        let mut numerator_terms = Vec::new();
        let mut denominator_terms = Vec::new();
        let mut tables = EqTables::new(&point);
        for (lookup, leaf) in plan.lookups.iter().zip(&plan.leaves.columns) {
            for block in &leaf.blocks {
                let (here, low) = block.place(&point);
                let vectors = lookup.key.weights_within(&mut tables, low, &block.starts, &block.sizes);
                numerator += (here * Functional::per_dim(vectors.clone()).mass()).into();
                denominator -= (here * identity(lookup.table)).into();
                denominator -= self.linearise(&lookup.key.terms, &vectors, here, &mut denominator_terms)?;
                if let Some(second) = &lookup.second {
                    let second = std::slice::from_ref(second);
                    denominator -= self.linearise(second, &vectors, here * beta, &mut denominator_terms)?;
                }
            }
        }
        let leaves = plan.leaves.columns.iter().skip(plan.lookups.len());
        for ((number, table), leaf) in plan.tables.iter().enumerate().zip(leaves) {
            let whole = Expression::new(vec![table.rows], Vec::new());
            for block in &leaf.blocks {
                let (here, low) = block.place(&point);
                let weights = whole
                    .weights_within(&mut tables, low, &block.starts, &block.sizes)
                    .pop()
                    .unwrap_or_default();
                let rows: EF = weights
                    .iter()
                    .enumerate()
                    .filter(|(_, weight)| **weight != EF::ZERO)
                    .map(|(row, weight)| *weight * graph_row(graph, table.kind, row, beta))
                    .sum();
                denominator -= (here * (identity(number) + rows)).into();
                numerator_terms.push((table.multiplicity, Functional::per_dim(vec![weights]).scaled(here)));
            }
        }
        // sum of multiplicities = masses - numerator; sum of keys = alpha - denominator - public parts.
        self.settle(numerator_terms, -numerator);
        self.settle(denominator_terms, -denominator);
        Ok(())
    }

    /// All constraints `e * d = 0` in one zerocheck.
    fn pairs(&mut self) -> Result<(), VerifyError> {
        let plan = self.plan;
        if plan.pairs.is_empty() {
            return Ok(());
        }
        let total = plan.pair_layout.variables;
        let tau = self.channel.challenges(total);
        let reduced = self.channel.sumcheck(EF::ZERO.into(), total, 3, |witness| {
            let mut tables = [vec![F::ZERO; 1 << total], vec![F::ZERO; 1 << total]];
            for (pair, column) in plan.pairs.iter().zip(&plan.pair_layout.columns) {
                for (table, expression) in tables.iter_mut().zip([&pair.e, &pair.d]) {
                    let values = witness.expression(expression);
                    for block in &column.blocks {
                        let slots = block.slots(table);
                        block.visit(&expression.shape, |from, to, count| {
                            if let (Some(slots), Some(values)) =
                                (slots.get_mut(to..to + count), values.get(from..from + count))
                            {
                                slots
                                    .iter_mut()
                                    .zip(values)
                                    .for_each(|(slot, value)| *slot = field(*value));
                            }
                        });
                    }
                }
            }
            let [e, d] = tables;
            vec![
                Table::Extension(eq_table(&tau, 1 << total)),
                Table::Base(e),
                Table::Base(d),
            ]
        })?;
        let finals = self
            .channel
            .values(2, |_| reduced.finals.get(1..).map(<[EF]>::to_vec).unwrap_or_default())?;
        let [e, d] = pair(finals);
        let weight = eq_points(&tau, &reduced.point);
        self.channel
            .product(Check::Pair, weight, &e, &d, &reduced.expected, "constraints")?;
        let mut tables = EqTables::new(&reduced.point);
        for (value, side) in [(e, 0), (d, 1)] {
            let mut terms = Vec::new();
            let mut rest = -value;
            for (pair, column) in plan.pairs.iter().zip(&plan.pair_layout.columns) {
                let expression = if side == 0 { &pair.e } else { &pair.d };
                for block in &column.blocks {
                    let (here, low) = block.place(&reduced.point);
                    let vectors = expression.weights_within(&mut tables, low, &block.starts, &block.sizes);
                    rest += self.linearise(&expression.terms, &vectors, here, &mut terms)?;
                }
            }
            self.settle(terms, rest);
        }
        Ok(())
    }

    /// `quotient * divisor = rest` of divisions.
    fn products(&mut self) -> Result<(), VerifyError> {
        let plan = self.plan;
        for product in &plan.products {
            let shape = &product.rest.shape;
            let count = variables(shape);
            let tau = self.channel.challenges(count);
            let vectors = product.rest.weights(&mut EqTables::new(&tau));
            let weights = Functional::per_dim(vectors.clone());
            let stated = self
                .channel
                .values(1, |witness| vec![weights.apply(&witness.expression(&product.rest))])?;
            let value = single(stated);
            let mut terms = Vec::new();
            let rest = self.linearise(&product.rest.terms, &vectors, EF::ONE, &mut terms)?;
            self.settle(terms, rest - value.clone());
            let divisor = Expression::new(shape.clone(), vec![product.divisor.clone()]);
            let reduced = self.channel.sumcheck(value, count, 3, |witness| {
                let lift = |values: &[i64]| Table::Base(padded(values, shape));
                let quotients = lift(witness.column(product.quotient));
                vec![
                    Table::Extension(eq_table(&tau, 1 << count)),
                    quotients,
                    lift(&witness.expression(&divisor)),
                ]
            })?;
            let finals = self
                .channel
                .values(2, |_| reduced.finals.get(1..).map(<[EF]>::to_vec).unwrap_or_default())?;
            let [q, d] = pair(finals);
            let weight = eq_points(&tau, &reduced.point);
            let name = self.graph.nodes.get(product.node).map_or("", |node| node.name.as_str());
            self.channel
                .product(Check::Product, weight, &q, &d, &reduced.expected, name)?;
            let vectors = divisor.weights(&mut EqTables::new(&reduced.point));
            let terms = vec![(product.quotient, Functional::per_dim(vectors.clone()))];
            self.witness.push(Claim { terms, value: q });
            let mut terms = Vec::new();
            let rest = self.linearise(&divisor.terms, &vectors, EF::ONE, &mut terms)?;
            self.settle(terms, rest - d);
        }
        Ok(())
    }

    /// Several claims on one tensor become one at a random point.
    pub(crate) fn merge(
        &mut self,
        number: usize,
        claims: &[TensorClaim<C::Value>],
    ) -> Result<TensorClaim<C::Value>, VerifyError> {
        let operand = Operand::Node(u32::try_from(number).unwrap_or(u32::MAX));
        let shape = self.shape(operand)?;
        let count = variables(&shape);
        let gamma = self.channel.challenge();
        let claim = combination(claims, gamma);
        let reduced = self.channel.sumcheck(claim, count, 2, |witness| {
            vec![
                Table::Extension(combined(claims, &shape, gamma)),
                Table::Base(padded(witness.operand(operand), &shape)),
            ]
        })?;
        let stated = self
            .channel
            .values(1, |_| reduced.finals.get(1..).map(<[EF]>::to_vec).unwrap_or_default())?;
        let value = single(stated);
        let weight = evaluate(claims, &shape, gamma, &reduced.point);
        let name = self.graph.nodes.get(number).map_or("", |node| node.name.as_str());
        self.channel
            .zero(Check::Merge, value.clone() * weight - reduced.expected, name)?;
        Ok(TensorClaim {
            functional: Functional::point(&reduced.point, &shape),
            value,
        })
    }

    /// Claims on a node that is not committed become claims on its operands.
    fn node(&mut self, number: usize, claims: Vec<TensorClaim<C::Value>>) -> Result<(), VerifyError> {
        let graph = self.graph;
        let Some(node) = graph.nodes.get(number) else {
            return Ok(());
        };
        if let Op::Mul { a, b } = &node.op {
            return self.mul(number, *a, *b, &claims);
        }
        let mut claim = match claims.as_slice() {
            [one] => one.clone(),
            several => self.merge(number, several)?,
        };
        if !self.settled(number, &claim)? {
            claim = self.merge(number, std::slice::from_ref(&claim))?;
            if !self.settled(number, &claim)? {
                return Err(self.invalid(number, "the operands' shapes do not fit"));
            }
        }
        Ok(())
    }
}

/// The value of a combination of claims.
pub(crate) fn combination<V: Value>(claims: &[TensorClaim<V>], gamma: EF) -> V {
    claims
        .iter()
        .rev()
        .fold(V::from(EF::ZERO), |sum, claim| sum * gamma + claim.value.clone())
}

/// Weights of a combination of claims on the padded cube.
pub(crate) fn combined<V>(claims: &[TensorClaim<V>], shape: &[usize], gamma: EF) -> Vec<EF> {
    let mut out = vec![EF::ZERO; 1 << variables(shape)];
    let mut power = EF::ONE;
    for claim in claims {
        claim.functional.add_to(&mut out, shape, power);
        power *= gamma;
    }
    out
}

/// The multilinear extension of [`combined`] at a point.
pub(crate) fn evaluate<V>(claims: &[TensorClaim<V>], shape: &[usize], gamma: EF, point: &[EF]) -> EF {
    let mut tables = EqTables::new(point);
    claims.iter().rev().fold(EF::ZERO, |sum, claim| {
        sum * gamma + claim.functional.evaluate(&mut tables, 0, shape)
    })
}

/// Key of a table's row, without the table's number.
fn graph_row(graph: &Graph, kind: TableKind, row: usize, beta: EF) -> EF {
    let row_value = i64::try_from(row).unwrap_or(0);
    match kind {
        TableKind::Width(_) => ext(row_value),
        TableKind::Function(index) => graph.tables.get(index).map_or(EF::ZERO, |table| {
            let value = table.values.get(row).copied().unwrap_or(0);
            ext(i64::from(table.first) + row_value) + beta * field(i64::from(value))
        }),
    }
}
