//! Derives shape, sort and range of an operation's result from its operands, or refuses it.

use crate::{
    constant::{ConstantData, Weights, Width},
    error::ProgramError,
    program::{
        ACC_LIMIT, ACT_WIDTH, Graph, MAX_SHIFT, Op, Operand, OperandType, Shift, Sort, TensorType, Window, round_shift,
    },
    range::Range,
    shape::{broadcast, broadcast_strides, elements},
    view::{View, ViewMap},
};

/// Most terms of a sum.
pub const MAX_TERMS: usize = 64;
/// Most sources of a concatenation.
pub const MAX_SOURCES: usize = 1_024;

/// Whether a range is one of an activation.
#[must_use]
pub const fn is_act(range: Range) -> bool {
    range.is_ordered() && Range::new(-32_768, 65_535).covers(range) && range.width() <= ACT_WIDTH
}

/// What follows from the operands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derived {
    /// Shape, sort and range of the result.
    pub ty: TensorType,
    /// Whether the range is exact; false for a product with constants whose values were not given. Its range is then
    /// the whole accumulator range.
    pub exact: bool,
}

struct Context<'a> {
    graph: &'a Graph,
    weights: Option<&'a Weights>,
    node: &'a str,
    op: &'a Op,
    before: usize,
}

/// Derives the result of `op` as node number `before` of a graph. `shape` is the declared shape, used by views only.
///
/// # Errors
/// [`ProgramError`] if an operand is missing or of the wrong sort or shape, a parameter is out of bounds, or a value
/// could wrap.
pub fn derive(
    graph: &Graph,
    weights: Option<&Weights>,
    before: usize,
    node: &str,
    op: &Op,
    shape: &[usize],
) -> Result<Derived, ProgramError> {
    let context = Context {
        graph,
        weights,
        node,
        op,
        before,
    };
    let mut exact = true;
    let ty = match op {
        Op::MatMul { x, w, bias } => {
            let (ty, known) = context.matmul(*x, *w, *bias)?;
            exact = known;
            ty
        }
        Op::Conv {
            x,
            w,
            bias,
            window,
            groups,
        } => {
            let (ty, known) = context.conv(*x, *w, *bias, window, *groups)?;
            exact = known;
            ty
        }
        Op::Sum { terms } => context.sum(terms)?,
        Op::Mul { a, b } => context.mul(*a, *b)?,
        Op::ReduceSum { x, axes } => {
            let x = context.tensor(*x)?;
            let (shape, count) = context.reduced(x.shape, axes)?;
            context.acc(shape, x.range.repeated(count))?
        }
        Op::Requant { x, shift, lo, hi } => context.requant(*x, shift, *lo, *hi)?,
        Op::Table { x, table } => context.table(*x, *table)?,
        Op::MaxPool { x, window, kernel } => context.max_pool(*x, window, *kernel)?,
        Op::ReduceMax { x, axes } => {
            let x = context.act(*x)?;
            let (shape, _) = context.reduced(x.shape, axes)?;
            TensorType {
                shape,
                sort: Sort::Act,
                range: x.range,
            }
        }
        Op::Divide {
            num,
            den,
            shift,
            lo,
            hi,
        } => context.divide(*num, *den, *shift, *lo, *hi)?,
        Op::View { sources, map } => context.view(sources, map, shape)?,
        Op::Gather { table, indices } => context.gather(*table, *indices)?,
    };
    if elements(&ty.shape).is_none() {
        return Err(context.refuse(format!(
            "the result has shape {:?}: too many elements or dimensions",
            ty.shape
        )));
    }
    Ok(Derived { ty, exact })
}

impl<'a> Context<'a> {
    fn refuse(&self, reason: impl Into<String>) -> ProgramError {
        ProgramError::Node {
            node: self.node.to_owned(),
            op: self.op.name(),
            reason: reason.into(),
        }
    }

    fn bounded(&self, what: &'static str, range: Range) -> Result<Range, ProgramError> {
        if range.is_ordered() && range.magnitude() <= ACC_LIMIT {
            return Ok(range);
        }
        Err(ProgramError::Wraps {
            node: self.node.to_owned(),
            op: self.op.name(),
            what,
            lo: range.lo,
            hi: range.hi,
            limit: ACC_LIMIT,
        })
    }

    fn acc(&self, shape: Vec<usize>, range: Range) -> Result<TensorType, ProgramError> {
        let range = self.bounded("the result", range)?;
        Ok(TensorType {
            shape,
            sort: Sort::Acc,
            range,
        })
    }

    fn any(&self, operand: Operand) -> Result<OperandType<'a>, ProgramError> {
        if let Operand::Node(i) = operand
            && i as usize >= self.before
        {
            return Err(self.refuse(format!("operand node {i} does not come before this node")));
        }
        let ty = self
            .graph
            .operand(operand)
            .ok_or_else(|| self.refuse(format!("there is no operand {operand:?}")))?;
        if ty.sort == Some(Sort::Index) {
            return Err(self.refuse("public indices can be used by Gather only"));
        }
        Ok(ty)
    }

    /// An activation or accumulator.
    fn tensor(&self, operand: Operand) -> Result<OperandType<'a>, ProgramError> {
        let ty = self.any(operand)?;
        if ty.sort.is_none() {
            return Err(self.refuse("a constant stands where a tensor is needed"));
        }
        Ok(ty)
    }

    fn act(&self, operand: Operand) -> Result<OperandType<'a>, ProgramError> {
        let ty = self.any(operand)?;
        if ty.sort != Some(Sort::Act) {
            return Err(self.refuse("an operand that must be an activation is not one"));
        }
        Ok(ty)
    }

    /// A constant with its values, if known.
    fn constant(&self, operand: Operand) -> Result<(OperandType<'a>, Option<&'a ConstantData>), ProgramError> {
        let Operand::Constant(i) = operand else {
            return Err(self.refuse("an operand that must be a constant is not one"));
        };
        let ty = self.any(operand)?;
        let data = match self.weights {
            None => None,
            Some(weights) => {
                let data = weights.constants.get(i as usize);
                let data = data.filter(|data| Some(data.len()) == elements(ty.shape));
                Some(data.ok_or_else(|| self.refuse("the values of a constant are missing or of another size"))?)
            }
        };
        Ok((ty, data))
    }

    /// A constant of 8 or 16 bits.
    fn weight(&self, operand: Operand) -> Result<(OperandType<'a>, Option<&'a ConstantData>), ProgramError> {
        let (ty, data) = self.constant(operand)?;
        if Width::for_range(ty.range).is_none_or(|width| width == Width::I32) {
            return Err(self.refuse("the weights have more than 16 bits"));
        }
        Ok((ty, data))
    }

    fn bias(&self, bias: Option<Operand>, size: usize) -> Result<Option<Vec<i64>>, ProgramError> {
        let Some(bias) = bias else {
            return Ok(Some(vec![0; size]));
        };
        let (ty, data) = self.constant(bias)?;
        if ty.shape != [size] {
            return Err(self.refuse(format!("the bias has shape {:?}, expected [{size}]", ty.shape)));
        }
        Ok(data.map(ConstantData::to_i64))
    }

    fn matmul(&self, x: Operand, w: Operand, bias: Option<Operand>) -> Result<(TensorType, bool), ProgramError> {
        let xt = self.act(x)?;
        let is_constant = matches!(w, Operand::Constant(_));
        let (wt, data) = if is_constant {
            self.weight(w)?
        } else {
            (self.act(w)?, None)
        };
        let [xb @ .., m, k] = xt.shape else {
            return Err(self.refuse("the left operand has fewer than two dimensions"));
        };
        let [wb @ .., rows, n] = wt.shape else {
            return Err(self.refuse("the right operand has fewer than two dimensions"));
        };
        if k != rows || (!wb.is_empty() && wb != xb) {
            return Err(self.refuse(format!("shapes {:?} and {:?} do not multiply", xt.shape, wt.shape)));
        }
        let shape: Vec<usize> = xb.iter().chain([m, n]).copied().collect();
        let bias_range = match bias {
            None => Range::point(0),
            Some(bias) => self.any(bias)?.range,
        };
        let bias = self.bias(bias, *n)?;
        if !is_constant {
            let product = xt.range.times(wt.range).repeated(*k);
            self.bounded("a partial sum", product)?;
            let bias = match (&bias, self.weights) {
                (Some(_), _) | (None, None) => bias_range,
                (None, Some(_)) => return Err(self.refuse("the values of the bias are missing")),
            };
            return Ok((self.acc(shape, product.plus(bias))?, true));
        }
        let (Some(data), Some(bias)) = (data, bias) else {
            let whole = Range::new(-ACC_LIMIT, ACC_LIMIT);
            return Ok((
                TensorType {
                    shape,
                    sort: Sort::Acc,
                    range: whole,
                },
                false,
            ));
        };
        let mut sums = vec![Range::point(0); *n];
        let mut hull: Option<Range> = None;
        let area = k.saturating_mul(*n).max(1);
        for index in 0..data.len() {
            let weight = data.get(index).unwrap_or(0);
            if let Some(sum) = sums.get_mut(index % n) {
                *sum = sum.plus(xt.range.times(Range::point(weight)));
            }
            // The last weight of one matrix of the batch.
            if (index + 1) % area == 0 {
                for (sum, bias) in sums.iter_mut().zip(&bias) {
                    self.bounded("a partial sum", *sum)?;
                    let range = self.bounded("the result", sum.plus(Range::point(*bias)))?;
                    hull = Some(hull.map_or(range, |hull| hull.hull(range)));
                    *sum = Range::point(0);
                }
            }
        }
        let range = hull.ok_or_else(|| self.refuse("the weights are empty"))?;
        Ok((self.acc(shape, range)?, true))
    }

    fn window(&self, window: &Window, size: [usize; 2], kernel: [usize; 2]) -> Result<[usize; 2], ProgramError> {
        let small = |values: &[u32], least: u32| values.iter().all(|value| (least..=4_096).contains(value));
        if !small(&window.strides, 1) || !small(&window.dilations, 1) || !small(&window.pads, 0) {
            return Err(self.refuse("strides and dilations are 1 to 4096, pads 0 to 4096"));
        }
        window
            .output(size, kernel)
            .ok_or_else(|| self.refuse(format!("a kernel of {kernel:?} does not fit an image of {size:?}")))
    }

    fn conv(
        &self,
        x: Operand,
        w: Operand,
        bias: Option<Operand>,
        window: &Window,
        groups: u32,
    ) -> Result<(TensorType, bool), ProgramError> {
        let xt = self.act(x)?;
        let (wt, data) = self.weight(w)?;
        let ([batch, channels, height, width], [out, per_group, rows, columns]) = (xt.shape, wt.shape) else {
            return Err(self.refuse("image and kernel need four dimensions"));
        };
        let groups = groups as usize;
        if groups == 0 || channels % groups != 0 || out % groups != 0 || per_group * groups != *channels {
            return Err(self.refuse(format!("{groups} groups do not divide {channels} and {out} channels")));
        }
        let [h, v] = self.window(window, [*height, *width], [*rows, *columns])?;
        let shape = vec![*batch, *out, h, v];
        let bias = self.bias(bias, *out)?;
        let (Some(data), Some(bias)) = (data, bias) else {
            let whole = Range::new(-ACC_LIMIT, ACC_LIMIT);
            return Ok((
                TensorType {
                    shape,
                    sort: Sort::Acc,
                    range: whole,
                },
                false,
            ));
        };
        let padded = window.pads.iter().any(|pad| *pad > 0);
        let values = if padded {
            xt.range.hull(Range::point(0))
        } else {
            xt.range
        };
        let per_channel = per_group * rows * columns;
        let mut hull: Option<Range> = None;
        for (channel, bias) in bias.iter().enumerate() {
            let mut sum = Range::point(0);
            for index in channel * per_channel..(channel + 1) * per_channel {
                sum = sum.plus(values.times(Range::point(data.get(index).unwrap_or(0))));
            }
            self.bounded("a partial sum", sum)?;
            let range = self.bounded("the result", sum.plus(Range::point(*bias)))?;
            hull = Some(hull.map_or(range, |hull| hull.hull(range)));
        }
        let range = hull.ok_or_else(|| self.refuse("the weights are empty"))?;
        Ok((self.acc(shape, range)?, true))
    }

    fn sum(&self, terms: &[(Operand, i32)]) -> Result<TensorType, ProgramError> {
        if terms.is_empty() || terms.len() > MAX_TERMS {
            return Err(self.refuse(format!("{} terms, expected 1 to {MAX_TERMS}", terms.len())));
        }
        let mut shape = Vec::new();
        let mut range = Range::point(0);
        let mut tensors = 0;
        for (operand, multiplier) in terms {
            let ty = self.any(*operand)?;
            tensors += usize::from(ty.sort.is_some());
            shape = broadcast(&shape, ty.shape)
                .ok_or_else(|| self.refuse(format!("shapes {shape:?} and {:?} do not broadcast", ty.shape)))?;
            let term = ty.range.times(Range::point(i64::from(*multiplier)));
            self.bounded("a term", term)?;
            range = self.bounded("a partial sum", range.plus(term))?;
        }
        if tensors == 0 {
            return Err(self.refuse("all terms are constants"));
        }
        self.acc(shape, range)
    }

    fn mul(&self, a: Operand, b: Operand) -> Result<TensorType, ProgramError> {
        let at = self.act(a)?;
        let bt = if matches!(b, Operand::Constant(_)) {
            self.any(b)?
        } else {
            self.act(b)?
        };
        let shape = broadcast(at.shape, bt.shape)
            .ok_or_else(|| self.refuse(format!("shapes {:?} and {:?} do not broadcast", at.shape, bt.shape)))?;
        let range = if a == b {
            at.range.squared()
        } else {
            at.range.times(bt.range)
        };
        self.acc(shape, range)
    }

    /// The shape with `axes` of size 1, and the number of elements that become one.
    fn reduced(&self, shape: &[usize], axes: &[u8]) -> Result<(Vec<usize>, usize), ProgramError> {
        let ascending = axes.windows(2).all(|pair| matches!(pair, [a, b] if a < b));
        if axes.is_empty() || !ascending {
            return Err(self.refuse("the axes are not ascending, or there are none"));
        }
        let mut out = shape.to_vec();
        let mut count = 1usize;
        for axis in axes {
            let dim = out
                .get_mut(usize::from(*axis))
                .ok_or_else(|| self.refuse(format!("axis {axis} is none of shape {shape:?}")))?;
            count = count.saturating_mul(*dim);
            *dim = 1;
        }
        Ok((out, count))
    }

    fn clamp(&self, lo: i32, hi: i32) -> Result<(i64, i64), ProgramError> {
        let range = Range::new(i64::from(lo), i64::from(hi));
        if is_act(range) {
            return Ok((range.lo, range.hi));
        }
        Err(self.refuse(format!(
            "bounds {lo}..={hi} are not inside -32768..=65535 with at most 65536 values"
        )))
    }

    fn requant(&self, x: Operand, shift: &Shift, lo: i32, hi: i32) -> Result<TensorType, ProgramError> {
        let xt = self.tensor(x)?;
        if let Shift::Axis { axis, shifts } = shift
            && xt.shape.get(usize::from(*axis)) != Some(&shifts.len())
        {
            return Err(self.refuse(format!("{} shifts along axis {axis} of {:?}", shifts.len(), xt.shape)));
        }
        let (least, greatest) = shift.bounds();
        if greatest > MAX_SHIFT {
            return Err(self.refuse(format!("shift {greatest}, at most {MAX_SHIFT} is accepted")));
        }
        let (lo, hi) = self.clamp(lo, hi)?;
        let at = |shift| Range::new(round_shift(xt.range.lo, shift), round_shift(xt.range.hi, shift));
        let range = at(least).hull(at(greatest)).clamped(lo, hi);
        Ok(TensorType {
            shape: xt.shape.to_vec(),
            sort: Sort::Act,
            range,
        })
    }

    fn table(&self, x: Operand, table: u32) -> Result<TensorType, ProgramError> {
        let xt = self.act(x)?;
        let table = self
            .graph
            .tables
            .get(table as usize)
            .ok_or_else(|| self.refuse(format!("there is no table {table}")))?;
        if i64::from(table.first) != xt.range.lo || u64::try_from(table.values.len()) != Ok(xt.range.width()) {
            return Err(self.refuse(format!(
                "the table has {} entries from {}, the operand's range is {}..={}",
                table.values.len(),
                table.first,
                xt.range.lo,
                xt.range.hi
            )));
        }
        let lo = table.values.iter().copied().min().unwrap_or(0);
        let hi = table.values.iter().copied().max().unwrap_or(0);
        Ok(TensorType {
            shape: xt.shape.to_vec(),
            sort: Sort::Act,
            range: Range::new(i64::from(lo), i64::from(hi)),
        })
    }

    fn max_pool(&self, x: Operand, window: &Window, kernel: [u32; 2]) -> Result<TensorType, ProgramError> {
        let xt = self.act(x)?;
        let [batch, channels, height, width] = xt.shape else {
            return Err(self.refuse("the image needs four dimensions"));
        };
        let [rows, columns] = kernel.map(|size| size as usize);
        let [h, v] = self.window(window, [*height, *width], [rows, columns])?;
        let [top, left, _, _] = window.pads;
        let covered = |count: usize, kernel: usize, stride: u32, dilation: u32, pad: u32, size: usize| {
            (0..count).all(|o| {
                (0..kernel).any(|k| {
                    (o * stride as usize + k * dilation as usize)
                        .checked_sub(pad as usize)
                        .is_some_and(|at| at < size)
                })
            })
        };
        let [down, across] = window.strides;
        let [dilate_down, dilate_across] = window.dilations;
        if rows > 4_096
            || columns > 4_096
            || !covered(h, rows, down, dilate_down, top, *height)
            || !covered(v, columns, across, dilate_across, left, *width)
        {
            return Err(self.refuse("a position of the window covers padding only, or the window is too large"));
        }
        Ok(TensorType {
            shape: vec![*batch, *channels, h, v],
            sort: Sort::Act,
            range: xt.range,
        })
    }

    fn divide(&self, num: Operand, den: Operand, shift: u8, lo: i32, hi: i32) -> Result<TensorType, ProgramError> {
        let nt = self.tensor(num)?;
        let dt = self.tensor(den)?;
        if broadcast_strides(dt.shape, nt.shape).is_none() {
            return Err(self.refuse(format!("divisor {:?} does not broadcast to {:?}", dt.shape, nt.shape)));
        }
        if dt.range.lo < 1 {
            return Err(self.refuse(format!(
                "the divisor can be {}: it must be proven positive",
                dt.range.lo
            )));
        }
        if shift > MAX_SHIFT {
            return Err(self.refuse(format!("shift {shift}, at most {MAX_SHIFT} is accepted")));
        }
        let (lo, hi) = self.clamp(lo, hi)?;
        let numerator = nt
            .range
            .times(Range::point(1 << shift))
            .plus(Range::new(0, dt.range.hi));
        self.bounded("the scaled numerator", numerator)?;
        let quotient = Range::new(lo, hi).magnitude().saturating_add(1);
        self.bounded(
            "quotient times divisor",
            Range::point(quotient).times(Range::point(dt.range.hi)),
        )?;
        Ok(TensorType {
            shape: nt.shape.to_vec(),
            sort: Sort::Act,
            range: Range::new(lo, hi),
        })
    }

    fn view(&self, sources: &[Operand], map: &ViewMap, shape: &[usize]) -> Result<TensorType, ProgramError> {
        if sources.is_empty() || sources.len() > MAX_SOURCES {
            return Err(self.refuse(format!("{} sources, expected 1 to {MAX_SOURCES}", sources.len())));
        }
        let types = sources
            .iter()
            .map(|source| self.any(*source))
            .collect::<Result<Vec<_>, _>>()?;
        let shapes: Vec<&[usize]> = types.iter().map(|ty| ty.shape).collect();
        View::new(map, shape, &shapes).map_err(|reason| self.refuse(reason))?;
        let sort = types.iter().filter_map(|ty| ty.sort).max();
        let sort = sort.ok_or_else(|| self.refuse("all sources are constants"))?;
        let mut range = types
            .iter()
            .map(|ty| ty.range)
            .reduce(Range::hull)
            .unwrap_or(Range::point(0));
        if let ViewMap::Pad { value, .. } = map {
            range = range.hull(Range::point(i64::from(*value)));
        }
        self.bounded("the result", range)?;
        if sort == Sort::Act && !is_act(range) {
            return Err(self.refuse(format!("range {}..={} is not one of an activation", range.lo, range.hi)));
        }
        Ok(TensorType {
            shape: shape.to_vec(),
            sort,
            range,
        })
    }

    fn gather(&self, table: Operand, indices: Operand) -> Result<TensorType, ProgramError> {
        let (tt, _) = self.weight(table)?;
        let Operand::Input(_) = indices else {
            return Err(self.refuse("the indices are not an input of the program"));
        };
        let it = self.graph.operand(indices).filter(|ty| ty.sort == Some(Sort::Index));
        let it = it.ok_or_else(|| self.refuse("the indices are not a public index input"))?;
        let [rows, rest @ ..] = tt.shape else {
            return Err(self.refuse("the table is a scalar"));
        };
        if i64::try_from(*rows).is_ok_and(|rows| it.range.hi >= rows) {
            return Err(self.refuse(format!("indices up to {} into a table of {rows} rows", it.range.hi)));
        }
        if !is_act(tt.range) {
            return Err(self.refuse("the table's range is not one of an activation"));
        }
        let shape = it.shape.iter().chain(rest).copied().collect();
        Ok(TensorType {
            shape,
            sort: Sort::Act,
            range: tt.range,
        })
    }
}
