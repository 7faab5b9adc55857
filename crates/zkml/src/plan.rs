//! What a graph costs to prove: columns, lookups, constraints. Prover and verifier derive the same plan from the graph.

use std::collections::BTreeMap;

use opg_integer_program::{
    program::{Graph, Op, Operand, Sort},
    range::Range,
};

use crate::{
    error::PlanError,
    expression::{Expression, Source, Term},
    field::P,
    layout::Layout,
};

/// Most requests of one proof.
pub const MAX_BATCH: usize = 1 << 16;
/// Most variables of a commitment or of the lookup argument.
pub const MAX_VARIABLES: usize = 30;

/// Widths of limbs to choose from. Wider limbs mean fewer lookups and larger tables.
const LIMBS: std::ops::RangeInclusive<u32> = 8..=16;

/// An integer that a column is filled with.
#[derive(Debug, Clone)]
pub(crate) enum Quantity {
    /// The result of a node.
    Node(usize),
    /// `(x + half) mod 2^shift` of a requantisation.
    Remainder(usize),
    /// By how much the quotient lies above the result.
    Above(usize),
    /// By how much the quotient lies below the result.
    Below(usize),
    /// 1 at the first position that attains the maximum; the number of the window position.
    Selector(usize, usize),
    /// `floor(den / 2)` of a division.
    HalfDivisor(usize),
    /// Remainder of a division.
    DivisionRemainder(usize),
    /// Values of an expression.
    Expression(Expression),
    /// How often each row of a table is looked up.
    Multiplicity(usize),
}

/// `(quantity >> shift) mod 2^bits`.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    pub(crate) quantity: Quantity,
    pub(crate) shift: u32,
    pub(crate) bits: u32,
}

/// One column before it has its place.
#[derive(Debug, Clone)]
pub(crate) struct ColumnPlan {
    pub(crate) shape: Vec<usize>,
    pub(crate) recipe: Recipe,
    pub(crate) node: usize,
}

/// What a lookup table holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TableKind {
    /// `0..width`.
    Width(usize),
    /// Pairs of a table of the graph.
    Function(usize),
}

/// A lookup table with its multiplicities.
#[derive(Debug, Clone)]
pub(crate) struct TablePlan {
    pub(crate) kind: TableKind,
    pub(crate) rows: usize,
    pub(crate) multiplicity: usize,
}

/// All values of `key` (and `second`) are rows of a table.
#[derive(Debug, Clone)]
pub(crate) struct Lookup {
    pub(crate) key: Expression,
    pub(crate) second: Option<Term>,
    pub(crate) table: usize,
    pub(crate) node: usize,
}

/// `e * d = 0` at every position.
#[derive(Debug, Clone)]
pub(crate) struct Pair {
    pub(crate) e: Expression,
    pub(crate) d: Expression,
}

/// `quotient * divisor = rest` at every position.
#[derive(Debug, Clone)]
pub(crate) struct ProductPlan {
    pub(crate) node: usize,
    pub(crate) quotient: usize,
    pub(crate) divisor: Term,
    pub(crate) rest: Expression,
}

/// An expression that is zero at every position.
#[derive(Debug, Clone)]
pub(crate) struct Relation {
    pub(crate) node: usize,
    pub(crate) zero: Expression,
}

/// What one node adds to a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NodeCost {
    /// Columns of the witness.
    pub columns: usize,
    /// Elements of these columns.
    pub committed: usize,
    /// Values that are looked up.
    pub lookups: usize,
    /// Linear relations, counted by position.
    pub relations: usize,
}

/// Everything that prover and verifier derive from a graph and a number of requests.
#[derive(Debug, Clone)]
pub struct Plan {
    pub(crate) batch: usize,
    pub(crate) columns: Vec<ColumnPlan>,
    pub(crate) layout: Layout,
    pub(crate) weights: Layout,
    /// The column of a node's result, if it is committed.
    pub(crate) committed: Vec<Option<usize>>,
    pub(crate) tables: Vec<TablePlan>,
    pub(crate) lookups: Vec<Lookup>,
    pub(crate) leaves: Layout,
    pub(crate) pairs: Vec<Pair>,
    pub(crate) pair_layout: Layout,
    pub(crate) products: Vec<ProductPlan>,
    pub(crate) relations: Vec<Relation>,
    /// Inputs that the verifier does not see: committed, and proven to lie in their ranges.
    pub(crate) secret_inputs: bool,
    /// Where secret inputs lie in their commitment.
    pub(crate) inputs: Layout,
}

impl Plan {
    /// Plans the proof of `batch` requests.
    ///
    /// # Errors
    /// [`PlanError`]: the graph breaks its rules, a relation could wrap modulo `p`, or something is too large.
    pub fn new(graph: &Graph, batch: usize) -> Result<Self, PlanError> {
        Self::with(graph, batch, false)
    }

    /// The same for inputs that the verifier does not see: their ranges are proven instead of read.
    ///
    /// # Errors
    /// [`PlanError`]: as [`Self::new`]; an input that selects rows of a table cannot be secret.
    pub fn with_secret_inputs(graph: &Graph, batch: usize) -> Result<Self, PlanError> {
        Self::with(graph, batch, true)
    }

    fn with(graph: &Graph, batch: usize, secret_inputs: bool) -> Result<Self, PlanError> {
        if batch == 0 || batch > MAX_BATCH {
            return Err(PlanError::Batch {
                got: batch,
                limit: MAX_BATCH,
            });
        }
        // The width of limbs that makes the padded sizes least; among equals, the fewest elements.
        let mut best: Option<((usize, usize), Builder<'_>)> = None;
        for limb in LIMBS {
            let mut builder = Builder::new(graph, batch, limb)?;
            for number in 0..graph.nodes.len() {
                builder.node(number)?;
            }
            if secret_inputs {
                builder.secret_inputs()?;
            }
            let room = builder.room();
            if best.as_ref().is_none_or(|(least, _)| room < *least) {
                best = Some((room, builder));
            }
        }
        best.ok_or(PlanError::Batch {
            got: batch,
            limit: MAX_BATCH,
        })?
        .1
        .finish(secret_inputs)
    }

    /// What every node adds to a proof, and after the nodes, under no number, the tables of the lookups.
    #[must_use]
    pub fn costs(&self) -> Vec<NodeCost> {
        let mut costs = vec![NodeCost::default(); self.committed.len() + 1];
        let tables = self.committed.len();
        let size = |shape: &[usize]| shape.iter().product::<usize>();
        for column in &self.columns {
            if let Some(cost) = costs.get_mut(column.node.min(tables)) {
                cost.columns += 1;
                cost.committed += size(&column.shape);
            }
        }
        for lookup in &self.lookups {
            if let Some(cost) = costs.get_mut(lookup.node.min(tables)) {
                cost.lookups += size(&lookup.key.shape);
            }
        }
        for relation in &self.relations {
            if let Some(cost) = costs.get_mut(relation.node.min(tables)) {
                cost.relations += size(&relation.zero.shape);
            }
        }
        costs
    }

    /// Committed elements of the witness, of the weights, and fractions of the lookup argument, with padding.
    #[must_use]
    pub const fn sizes(&self) -> [usize; 3] {
        [
            1 << self.layout.variables,
            1 << self.weights.variables,
            1 << self.leaves.variables,
        ]
    }

    /// Number of requests.
    #[must_use]
    pub const fn batch(&self) -> usize {
        self.batch
    }
}

pub(crate) struct Builder<'a> {
    pub(crate) graph: &'a Graph,
    pub(crate) batch: usize,
    limb: u32,
    pub(crate) columns: Vec<ColumnPlan>,
    pub(crate) committed: Vec<Option<usize>>,
    tables: BTreeMap<TableKind, usize>,
    table_plans: Vec<TablePlan>,
    pub(crate) lookups: Vec<Lookup>,
    pub(crate) pairs: Vec<Pair>,
    pub(crate) products: Vec<ProductPlan>,
    pub(crate) relations: Vec<Relation>,
}

impl<'a> Builder<'a> {
    fn new(graph: &'a Graph, batch: usize, limb: u32) -> Result<Self, PlanError> {
        let elements: usize = graph
            .nodes
            .iter()
            .filter(|node| node.ty.sort == Sort::Act)
            .map(|node| node.ty.shape.iter().product::<usize>())
            .sum::<usize>()
            .saturating_mul(batch);
        let total = 1usize << MAX_VARIABLES;
        if elements > total {
            return Err(PlanError::Size {
                what: "elements of activations",
                got: elements,
                limit: total,
            });
        }
        Ok(Self {
            graph,
            batch,
            limb,
            columns: Vec::new(),
            committed: vec![None; graph.nodes.len()],
            tables: BTreeMap::new(),
            table_plans: Vec::new(),
            lookups: Vec::new(),
            pairs: Vec::new(),
            products: Vec::new(),
            relations: Vec::new(),
        })
    }

    /// A tensor's shape with the requests in front; a constant's own shape.
    pub(crate) fn shape(&self, operand: Operand) -> Option<Vec<usize>> {
        batched(self.graph, self.batch, operand)
    }

    pub(crate) fn graph_error(&self, number: usize, reason: &'static str) -> PlanError {
        let (node, op) = self
            .graph
            .nodes
            .get(number)
            .map_or((String::new(), ""), |node| (node.name.clone(), node.op.name()));
        PlanError::Graph { node, op, reason }
    }

    /// Refuses a relation whose two sides could differ by a multiple of `p`.
    pub(crate) fn bounded(&self, number: usize, magnitude: i128) -> Result<(), PlanError> {
        if magnitude < i128::from(P) {
            return Ok(());
        }
        let (node, op) = self
            .graph
            .nodes
            .get(number)
            .map_or((String::new(), ""), |node| (node.name.clone(), node.op.name()));
        Err(PlanError::Wrap { node, op, magnitude })
    }

    pub(crate) fn column(&mut self, node: usize, shape: &[usize], quantity: Quantity, shift: u32, bits: u32) -> usize {
        self.columns.push(ColumnPlan {
            shape: shape.to_vec(),
            recipe: Recipe { quantity, shift, bits },
            node,
        });
        self.columns.len() - 1
    }

    /// The committed result of a node.
    pub(crate) fn result(&mut self, node: usize, shape: &[usize]) -> usize {
        let column = self.column(node, shape, Quantity::Node(node), 0, 63);
        if let Some(slot) = self.committed.get_mut(node) {
            *slot = Some(column);
        }
        column
    }

    fn table(&mut self, kind: TableKind, rows: usize) -> usize {
        if let Some(index) = self.tables.get(&kind) {
            return *index;
        }
        let index = self.table_plans.len();
        let multiplicity = self.column(usize::MAX, &[rows], Quantity::Multiplicity(index), 0, 63);
        self.table_plans.push(TablePlan {
            kind,
            rows,
            multiplicity,
        });
        self.tables.insert(kind, index);
        index
    }

    /// Looks up pairs of a graph's table.
    pub(crate) fn lookup_function(&mut self, node: usize, key: Expression, second: Term, table: usize, rows: usize) {
        let table = self.table(TableKind::Function(table), rows);
        self.lookups.push(Lookup {
            key,
            second: Some(second),
            table,
            node,
        });
    }

    fn lookup_width(&mut self, node: usize, key: Expression, width: usize) {
        let table = self.table(TableKind::Width(width), width);
        self.lookups.push(Lookup {
            key,
            second: None,
            table,
            node,
        });
    }

    /// Width up to which a table of its own is cheaper than limbs.
    fn direct(&self, shape: &[usize]) -> u64 {
        let elements: usize = shape.iter().product();
        (1u64 << self.limb).max((elements as u64).min(1 << 16))
    }

    /// A new quantity of at least 0 and less than (at least) `width`: its terms, and its greatest possible value.
    pub(crate) fn fresh(&mut self, node: usize, shape: &[usize], quantity: Quantity, width: u64) -> (Vec<Term>, i64) {
        if width <= 1 {
            return (Vec::new(), 0);
        }
        if width <= self.direct(shape) {
            let column = self.column(node, shape, quantity, 0, 63);
            let term = Term::new(1, Source::Column(column));
            let width = usize::try_from(width).unwrap_or(usize::MAX);
            self.lookup_width(node, Expression::new(shape.to_vec(), vec![term.clone()]), width);
            return (vec![term], i64::try_from(width).unwrap_or(i64::MAX) - 1);
        }
        let mut terms = Vec::new();
        let mut left = width;
        let mut shift = 0u32;
        let mut greatest = 0i64;
        while left > 1 {
            let own = left.min(1 << self.limb);
            let column = self.column(node, shape, quantity.clone(), shift, self.limb);
            let term = Term::new(1i64 << shift, Source::Column(column));
            let own_size = usize::try_from(own).unwrap_or(usize::MAX);
            let unit = Term::new(1, Source::Column(column));
            self.lookup_width(node, Expression::new(shape.to_vec(), vec![unit]), own_size);
            greatest += (i64::try_from(own).unwrap_or(i64::MAX) - 1) << shift;
            terms.push(term);
            left = left.div_ceil(1 << self.limb);
            shift += self.limb;
        }
        (terms, greatest)
    }

    /// Proves that an expression lies in `0..width` exactly.
    pub(crate) fn ranged(&mut self, node: usize, expression: Expression, width: u64) {
        if width <= self.direct(&expression.shape) {
            self.lookup_width(node, expression, usize::try_from(width).unwrap_or(usize::MAX));
            return;
        }
        let shape = expression.shape.clone();
        let exact = self.limbs(node, &expression, width);
        if !exact {
            // width - 1 - expression must not be negative either.
            let mut other = Expression {
                terms: vec![Term::new(1, Source::One)],
                ..expression.clone()
            };
            if let Some(term) = other.terms.first_mut() {
                term.coefficient = i64::try_from(width).unwrap_or(i64::MAX) - 1;
            }
            other.terms.extend(expression.terms.into_iter().map(|mut term| {
                term.coefficient = -term.coefficient;
                term
            }));
            other.shape = shape;
            let _ = self.limbs(node, &other, width);
        }
    }

    /// Writes an expression as limbs; whether they hold nothing beyond `width`.
    fn limbs(&mut self, node: usize, expression: &Expression, width: u64) -> bool {
        let quantity = Quantity::Expression(expression.clone());
        let (terms, greatest) = self.fresh(node, &expression.shape, quantity, width);
        let mut zero = expression.clone();
        zero.terms.extend(terms.into_iter().map(|mut term| {
            term.coefficient = -term.coefficient;
            term
        }));
        self.relations.push(Relation { node, zero });
        u64::try_from(greatest).is_ok_and(|greatest| greatest < width)
    }

    /// Elements of witness and lookup argument: padded to powers of two as if no tensor had to be, and as they are.
    fn room(&self) -> (usize, usize) {
        let size = |shape: &[usize]| shape.iter().product::<usize>();
        let columns: usize = self.columns.iter().map(|column| size(&column.shape)).sum();
        let looked_up: usize = self.lookups.iter().map(|lookup| size(&lookup.key.shape)).sum();
        let rows: usize = self.table_plans.iter().map(|table| table.rows).sum();
        let fractions = looked_up + rows;
        (
            columns
                .next_power_of_two()
                .saturating_add(fractions.next_power_of_two()),
            columns + fractions,
        )
    }

    /// Every element of every input lies in the input's range.
    fn secret_inputs(&mut self) -> Result<(), PlanError> {
        let graph = self.graph;
        let refuse = |name: &str, op, reason| PlanError::Graph {
            node: name.to_owned(),
            op,
            reason,
        };
        for node in &graph.nodes {
            if matches!(
                node.op,
                Op::Gather {
                    indices: Operand::Input(_),
                    ..
                }
            ) {
                let reason = "rows of a table that a secret input selects cannot be proven; keep the inputs public";
                return Err(refuse(&node.name, node.op.name(), reason));
            }
        }
        for (number, input) in graph.inputs.iter().enumerate() {
            let operand = Operand::Input(u32::try_from(number).unwrap_or(u32::MAX));
            let range = input.integer_type().1;
            let width = u64::try_from(i128::from(range.hi) - i128::from(range.lo) + 1).unwrap_or(0);
            // Limbs of a value and of its distance to the bound: neither sum may reach p.
            if width == 0 || width > u64::from(P) / 8 {
                return Err(refuse(&input.name, "input", "its range is too wide for a secret input"));
            }
            let shape = self.shape(operand).unwrap_or_default();
            let terms = vec![
                Term::new(1, Source::Operand(operand)),
                Term::new(range.lo.saturating_neg(), Source::One),
            ];
            self.ranged(graph.nodes.len(), Expression::new(shape, terms), width);
        }
        Ok(())
    }

    fn finish(self, secret_inputs: bool) -> Result<Plan, PlanError> {
        let shapes = (0..self.graph.inputs.len()).filter(|_| secret_inputs).map(|number| {
            let operand = Operand::Input(u32::try_from(number).unwrap_or(u32::MAX));
            self.shape(operand).unwrap_or_default()
        });
        let inputs = Layout::new(shapes.collect());
        let layout = Layout::new(self.columns.iter().map(|column| column.shape.clone()).collect());
        let weights = Layout::new(
            self.graph
                .constants
                .iter()
                .map(|constant| constant.shape.clone())
                .collect(),
        );
        let mut leaf_shapes: Vec<Vec<usize>> = self.lookups.iter().map(|lookup| lookup.key.shape.clone()).collect();
        leaf_shapes.extend(self.table_plans.iter().map(|table| vec![table.rows]));
        let leaves = Layout::new(leaf_shapes);
        let pair_shapes: Vec<Vec<usize>> = self.pairs.iter().map(|pair| pair.e.shape.clone()).collect();
        let pair_layout = Layout::new(pair_shapes);
        for (what, layout) in [
            ("elements of the witness", &layout),
            ("elements of the weights", &weights),
            ("elements of the inputs", &inputs),
            ("lookups", &leaves),
            ("constraints", &pair_layout),
        ] {
            if layout.variables > MAX_VARIABLES {
                let got = 1usize
                    .checked_shl(u32::try_from(layout.variables).unwrap_or(63))
                    .unwrap_or(usize::MAX);
                return Err(PlanError::Size {
                    what,
                    got,
                    limit: 1 << MAX_VARIABLES,
                });
            }
        }
        Ok(Plan {
            batch: self.batch,
            columns: self.columns,
            layout,
            weights,
            committed: self.committed,
            tables: self.table_plans,
            lookups: self.lookups,
            leaves,
            pairs: self.pairs,
            pair_layout,
            products: self.products,
            relations: self.relations,
            secret_inputs,
            inputs,
        })
    }
}

/// A tensor's shape with the requests in front; a constant's own shape.
pub(crate) fn batched(graph: &Graph, batch: usize, operand: Operand) -> Option<Vec<usize>> {
    let shape = graph.operand(operand)?.shape;
    Some(match operand {
        Operand::Constant(_) => shape.to_vec(),
        Operand::Input(_) | Operand::Node(_) => std::iter::once(batch).chain(shape.iter().copied()).collect(),
    })
}

/// A tensor's shape with as many dimensions as `rank` (requests included): ones are put in after the requests.
pub(crate) fn aligned(graph: &Graph, batch: usize, operand: Operand, rank: usize) -> Option<Vec<usize>> {
    let shape = graph.operand(operand)?.shape;
    let ones = rank.checked_sub(1)?.checked_sub(shape.len())?;
    let first = if matches!(operand, Operand::Constant(_)) {
        1
    } else {
        batch
    };
    Some(
        std::iter::once(first)
            .chain(std::iter::repeat_n(1, ones))
            .chain(shape.iter().copied())
            .collect(),
    )
}

/// Range of an operand.
pub(crate) fn range(graph: &Graph, operand: Operand) -> Range {
    graph.operand(operand).map_or(Range::point(0), |ty| ty.range)
}
