//! What each committed operation adds to the plan: the relations of C.3 of the protocol description.

use opg_integer_program::program::{Op, Operand, Shift, Window, round_shift};

use crate::{
    error::PlanError,
    expression::{Expression, Map, Source, Term},
    plan::{Builder, Pair, ProductPlan, Quantity, Relation, aligned, range},
};

impl Builder<'_> {
    pub(crate) fn node(&mut self, number: usize) -> Result<(), PlanError> {
        let Some(node) = self.graph.nodes.get(number) else {
            return Ok(());
        };
        match &node.op {
            Op::Requant { x, shift, lo, hi } => self.requant(number, *x, shift, i64::from(*lo), i64::from(*hi)),
            Op::Table { x, table } => self.table_node(number, *x, *table as usize),
            Op::MaxPool { x, window, kernel } => self.max_pool(number, *x, window, *kernel),
            Op::ReduceMax { x, .. } => self.reduce_max(number, *x),
            Op::Divide { num, den, shift, .. } => self.divide(number, *num, *den, *shift),
            // Never committed: claims on their results become claims on their operands.
            Op::MatMul { .. }
            | Op::Conv { .. }
            | Op::Sum { .. }
            | Op::Mul { .. }
            | Op::ReduceSum { .. }
            | Op::View { .. }
            | Op::Gather { .. } => Ok(()),
        }
    }

    fn node_shape(&self, number: usize) -> Result<Vec<usize>, PlanError> {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        self.shape(Operand::Node(number))
            .ok_or_else(|| self.graph_error(number as usize, "the node has no shape"))
    }

    /// `x + half = (y + above - below) 2^shift + r`, `above (hi - y) = 0`, `below (y - lo) = 0`.
    fn requant(&mut self, number: usize, x: Operand, shift: &Shift, lo: i64, hi: i64) -> Result<(), PlanError> {
        let shape = self.node_shape(number)?;
        let wide = range(self.graph, x);
        let (least, greatest) = shift.bounds();
        // With several shifts everything is multiplied up to the greatest one.
        let factor = 1i64 << greatest.saturating_sub(least);
        let quotients = [least, greatest].map(|shift| (round_shift(wide.lo, shift), round_shift(wide.hi, shift)));
        let lowest = quotients.iter().map(|(low, _)| *low).min().unwrap_or(0);
        let highest = quotients.iter().map(|(_, high)| *high).max().unwrap_or(0);
        let ty = self.graph.nodes.get(number).map(|node| node.ty.range);
        let ty = ty.ok_or_else(|| self.graph_error(number, "the node has no type"))?;

        let result = self.result(number, &shape);
        let one = Term::new(1, Source::Column(result));
        let offset = Term::new(-ty.lo, Source::One);
        self.ranged(
            number,
            Expression::new(shape.clone(), vec![one.clone(), offset]),
            ty.width(),
        );

        let mut quotient = vec![one.clone()];
        let (mut above_most, mut below_most) = (0, 0);
        if highest > hi {
            let width = u64::try_from(highest - hi + 1).unwrap_or(u64::MAX);
            let (terms, most) = self.fresh(number, &shape, Quantity::Above(number), width);
            above_most = most;
            let d = vec![Term::new(hi, Source::One), Term::new(-1, Source::Column(result))];
            self.pair(&shape, terms.clone(), d);
            quotient.extend(terms);
        }
        if lowest < lo {
            let width = u64::try_from(lo - lowest + 1).unwrap_or(u64::MAX);
            let (terms, most) = self.fresh(number, &shape, Quantity::Below(number), width);
            below_most = most;
            let d = vec![one, Term::new(-lo, Source::One)];
            self.pair(&shape, terms.clone(), d);
            quotient.extend(terms.into_iter().map(|mut term| {
                term.coefficient = -term.coefficient;
                term
            }));
        }
        let (remainder, remainder_most) = self.fresh(number, &shape, Quantity::Remainder(number), 1u64 << greatest);

        let axis = match shift {
            Shift::Tensor(_) => None,
            Shift::Axis { axis, shifts } => {
                let factors: Vec<i64> = shifts
                    .iter()
                    .map(|shift| 1i64 << greatest.saturating_sub(*shift))
                    .collect();
                Some((usize::from(*axis) + 1, factors))
            }
        };
        let half = if greatest == 0 { 0 } else { 1i64 << (greatest - 1) };
        let mut input = Term::new(1, Source::Operand(x));
        input.scale = axis.clone();
        let mut rounding = Term::new(half, Source::One);
        if let Some((axis, factors)) = axis {
            // A channel with shift 0 rounds nothing: its half is 0, not 2^greatest / 2.
            let shifts: Vec<i64> = factors
                .iter()
                .map(|factor| i64::from(*factor != 1i64 << greatest))
                .collect();
            rounding.scale = Some((axis, shifts));
        }
        let mut terms = vec![input, rounding];
        terms.extend(quotient.into_iter().map(|mut term| {
            term.coefficient = -(term.coefficient << greatest);
            term
        }));
        terms.extend(remainder.into_iter().map(|mut term| {
            term.coefficient = -term.coefficient;
            term
        }));
        let quotient_most = i128::from(ty.magnitude()) + i128::from(above_most.max(below_most));
        let magnitude = i128::from(wide.magnitude()) * i128::from(factor)
            + i128::from(half)
            + (quotient_most << greatest)
            + i128::from(remainder_most);
        self.bounded(number, magnitude)?;
        self.relations.push(Relation {
            node: number,
            zero: Expression::new(shape, terms),
        });
        Ok(())
    }

    fn pair(&mut self, shape: &[usize], e: Vec<Term>, d: Vec<Term>) {
        self.pairs.push(Pair {
            e: Expression::new(shape.to_vec(), e),
            d: Expression::new(shape.to_vec(), d),
        });
    }

    fn table_node(&mut self, number: usize, x: Operand, table: usize) -> Result<(), PlanError> {
        let shape = self.node_shape(number)?;
        let rows = self.graph.tables.get(table).map(|table| table.values.len());
        let rows = rows.ok_or_else(|| self.graph_error(number, "the table is missing"))?;
        let result = self.result(number, &shape);
        let key = Expression::new(shape, vec![Term::new(1, Source::Operand(x))]);
        self.lookup_function(number, key, Term::new(1, Source::Column(result)), table, rows);
        Ok(())
    }

    /// `y - x_k >= 0` for every position `k` of the window, `h_k (1 - h_k) = 0`, `sum_k h_k = 1`, `h_k (y - x_k) = 0`.
    fn max_pool(&mut self, number: usize, x: Operand, window: &Window, kernel: [u32; 2]) -> Result<(), PlanError> {
        let shape = self.node_shape(number)?;
        let source = self
            .shape(x)
            .ok_or_else(|| self.graph_error(number, "the operand is missing"))?;
        let ([_, _, _, rows, columns], [_, _, _, height, width]) = (shape.as_slice(), source.as_slice()) else {
            return Err(self.graph_error(number, "a pooled tensor has four dimensions"));
        };
        let (rows, columns, height, width) = (*rows, *columns, *height, *width);
        let span = range(self.graph, x).width();
        let result = self.result(number, &shape);
        let [top, left, _, _] = window.pads.map(i64::from);
        let [down, across] = window.strides.map(i64::from);
        let [dilate_down, dilate_across] = window.dilations.map(i64::from);
        let mut selected: Vec<Term> = vec![Term::new(-1, Source::One)];
        let mut selectors = Vec::new();
        for u in 0..kernel[0] {
            for v in 0..kernel[1] {
                let start = (i64::from(u) * dilate_down - top, i64::from(v) * dilate_across - left);
                let vertical = inside(start.0, down, rows, height);
                let horizontal = inside(start.1, across, columns, width);
                if vertical.0 >= vertical.1 || horizontal.0 >= horizontal.1 {
                    continue;
                }
                let map = Map {
                    dims: vec![(0, 1), (0, 1), (0, 1), (start.0, down), (start.1, across)],
                    shape: source.clone(),
                };
                let full = [
                    (0, shape.first().copied().unwrap_or(0)),
                    (0, usize::MAX),
                    (0, usize::MAX),
                ];
                let valid: Vec<(usize, usize)> = full.into_iter().chain([vertical, horizontal]).collect();
                let difference = vec![
                    Term::new(1, Source::Column(result)),
                    Term::new(-1, Source::Operand(x)).mapped(map),
                ];
                let difference = Expression {
                    shape: shape.clone(),
                    valid: Some(valid.clone()),
                    terms: difference,
                };
                let k = usize::try_from(u * kernel[1] + v).unwrap_or(0);
                let selector = self.column(number, &shape, Quantity::Selector(number, k), 0, 63);
                selectors.push((selector, valid, difference));
            }
        }
        for (selector, valid, difference) in selectors {
            self.ranged(number, difference.clone(), span);
            let term = Term::new(1, Source::Column(selector));
            self.boolean(&shape, &term);
            let e = Expression {
                shape: shape.clone(),
                valid: Some(valid.clone()),
                terms: vec![term.clone()],
            };
            self.pairs.push(Pair { e, d: difference });
            // Only positions inside the image can be selected.
            let whole = valid.get(3) == Some(&(0, rows)) && valid.get(4) == Some(&(0, columns));
            let mut counted = term;
            if !whole {
                let flags = |range: Option<&(usize, usize)>, size: usize| -> Vec<i64> {
                    let (first, end) = range.copied().unwrap_or((0, 0));
                    (0..size).map(|at| i64::from(at >= first && at < end)).collect()
                };
                // A mask along two dimensions: rows here, columns through a second relation below.
                counted.scale = Some((3, flags(valid.get(3), rows)));
                if valid.get(4) != Some(&(0, columns)) {
                    let outside: Vec<i64> = flags(valid.get(4), columns).into_iter().map(|flag| 1 - flag).collect();
                    let mut zero = Term::new(1, Source::Column(selector));
                    zero.scale = Some((4, outside));
                    self.relations.push(Relation {
                        node: number,
                        zero: Expression::new(shape.clone(), vec![zero]),
                    });
                }
            }
            selected.push(counted);
        }
        self.relations.push(Relation {
            node: number,
            zero: Expression::new(shape, selected),
        });
        Ok(())
    }

    fn boolean(&mut self, shape: &[usize], term: &Term) {
        let mut negative = term.clone();
        negative.coefficient = -negative.coefficient;
        self.pair(shape, vec![term.clone()], vec![Term::new(1, Source::One), negative]);
    }

    fn reduce_max(&mut self, number: usize, x: Operand) -> Result<(), PlanError> {
        let shape = self.node_shape(number)?;
        let source = self
            .shape(x)
            .ok_or_else(|| self.graph_error(number, "the operand is missing"))?;
        let span = range(self.graph, x).width();
        let result = self.result(number, &shape);
        let map = Map::broadcast(shape.clone(), &source)
            .ok_or_else(|| self.graph_error(number, "the result's shape is not the reduced one"))?;
        let maximum = Term::new(1, Source::Column(result)).mapped(map);
        let difference = Expression::new(source.clone(), vec![maximum, Term::new(-1, Source::Operand(x))]);
        self.ranged(number, difference.clone(), span);
        let selector = self.column(number, &source, Quantity::Selector(number, 0), 0, 63);
        let term = Term::new(1, Source::Column(selector));
        self.boolean(&source, &term);
        self.pairs.push(Pair {
            e: Expression::new(source.clone(), vec![term.clone()]),
            d: difference,
        });
        // The sum over the reduced dimensions: every position of the result reads all of them.
        let sum = term.mapped(Map {
            dims: Vec::new(),
            shape: source,
        });
        self.relations.push(Relation {
            node: number,
            zero: Expression::new(shape, vec![Term::new(-1, Source::One), sum]),
        });
        Ok(())
    }

    /// `num 2^shift + h = q den + r`, `0 <= r < den`, `h = floor(den / 2)`.
    fn divide(&mut self, number: usize, num: Operand, den: Operand, shift: u8) -> Result<(), PlanError> {
        let shape = self.node_shape(number)?;
        let wide = aligned(self.graph, self.batch, den, shape.len())
            .ok_or_else(|| self.graph_error(number, "the divisor has too many dimensions"))?;
        let divisors = range(self.graph, den);
        let ty = self.graph.nodes.get(number).map(|node| node.ty.range);
        let ty = ty.ok_or_else(|| self.graph_error(number, "the node has no type"))?;
        if divisors.lo < 1 {
            return Err(self.graph_error(number, "the divisor can be zero or negative"));
        }
        let most = u64::try_from(divisors.hi).unwrap_or(u64::MAX);
        let broadcast = |shape_of: Vec<usize>| Map::broadcast(shape_of, &shape);
        let map = broadcast(wide.clone()).ok_or_else(|| self.graph_error(number, "the divisor does not broadcast"))?;

        let result = self.result(number, &shape);
        let offset = Term::new(-ty.lo, Source::One);
        let terms = vec![Term::new(1, Source::Column(result)), offset];
        self.ranged(number, Expression::new(shape.clone(), terms), ty.width());

        let (half, half_most) = self.fresh(number, &wide, Quantity::HalfDivisor(number), most / 2 + 1);
        // den - 2 h is 0 or 1. The divisor is read in its own shape, with ones in front.
        let identity = Map {
            dims: wide.iter().map(|_| (0, 1)).collect(),
            shape: wide.clone(),
        };
        let mut parity = vec![Term::new(1, Source::Operand(den)).mapped(identity)];
        parity.extend(half.iter().cloned().map(|mut term| {
            term.coefficient *= -2;
            term
        }));
        let mut other = vec![Term::new(1, Source::One)];
        other.extend(parity.iter().cloned().map(|mut term| {
            term.coefficient = -term.coefficient;
            term
        }));
        self.pair(&wide, parity, other);

        let (remainder, remainder_most) = self.fresh(number, &shape, Quantity::DivisionRemainder(number), most);
        let divisor = Term::new(1, Source::Operand(den)).mapped(map.clone());
        let mut slack = vec![Term::new(-1, Source::One), divisor.clone()];
        slack.extend(remainder.iter().cloned().map(|mut term| {
            term.coefficient = -term.coefficient;
            term
        }));
        self.ranged(number, Expression::new(shape.clone(), slack), most);

        let mut rest = vec![Term::new(1i64 << shift, Source::Operand(num))];
        rest.extend(half.into_iter().map(|term| term.mapped(map.clone())));
        rest.extend(remainder.into_iter().map(|mut term| {
            term.coefficient = -term.coefficient;
            term
        }));
        let numerators = i128::from(range(self.graph, num).magnitude()) << shift;
        let product = i128::from(ty.magnitude()) * i128::from(most);
        self.bounded(
            number,
            numerators + i128::from(half_most) + i128::from(remainder_most) + product,
        )?;
        // The relation of parity: |den - 2 h| must stay below p as well.
        self.bounded(number, i128::from(most) + 2 * i128::from(half_most))?;
        self.products.push(ProductPlan {
            node: number,
            quotient: result,
            divisor,
            rest: Expression::new(shape, rest),
        });
        Ok(())
    }
}

/// Output positions whose source `start + step * position` lies in `0..size`: first, and one after the last.
fn inside(start: i64, step: i64, positions: usize, size: usize) -> (usize, usize) {
    let ok = |at: &usize| {
        let source = i64::try_from(*at)
            .ok()
            .and_then(|at| at.checked_mul(step))
            .and_then(|at| at.checked_add(start));
        source.is_some_and(|source| source >= 0 && usize::try_from(source).is_ok_and(|source| source < size))
    };
    let first = (0..positions).find(ok).unwrap_or(positions);
    let end = (0..positions).rev().find(ok).map_or(0, |last| last + 1);
    (first, end)
}
