//! Claims on results that are not committed: what each operation makes of them.

use std::sync::Arc;

use p3_field::PrimeCharacteristicRing;
use p3_maybe_rayon::prelude::*;

use opg_integer_program::{
    program::{Op, Operand, Window},
    view::ViewMap,
};

use crate::{
    channel::{Channel, pair},
    error::{Check, VerifyError},
    expression::Map,
    field::{EF, eq_table, ext, field, log2_ceil},
    functional::{EqTables, Functional, Part, Vector, dot_integers, padded, variables},
    plan::aligned,
    protocol::{Protocol, TensorClaim, combination, combined, evaluate},
    sumcheck::Table,
};

/// Parts that cover given numbers of dimensions each, or `None` if a part crosses a border.
fn grouped(functional: &Functional, dims: &[usize]) -> Option<Vec<Vec<Part>>> {
    let mut parts = functional.parts.iter();
    let mut out = Vec::with_capacity(dims.len());
    for count in dims {
        let mut own = Vec::new();
        let mut covered = 0;
        while covered < *count {
            let part = parts.next()?;
            covered += part.dims;
            own.push(part.clone());
        }
        if covered != *count {
            return None;
        }
        out.push(own);
    }
    parts.next().is_none().then_some(out)
}

fn dense(parts: &[Part]) -> Vec<EF> {
    Functional { parts: parts.to_vec() }.dense()
}

impl<C: Channel> Protocol<'_, C> {
    /// Moves a claim to the operands; `false` if its weights do not have the form that the operation needs.
    pub(crate) fn settled(&mut self, number: usize, claim: &TensorClaim<C::Value>) -> Result<bool, VerifyError> {
        let graph = self.graph;
        let Some(node) = graph.nodes.get(number) else {
            return Ok(false);
        };
        match &node.op {
            Op::MatMul { x, w, bias } => self.matmul(number, *x, *w, *bias, claim),
            Op::Conv {
                x,
                w,
                bias,
                window,
                groups,
            } => self.conv(number, [Some(*x), Some(*w), *bias], window, *groups as usize, claim),
            Op::Sum { terms } => self.sum(number, terms, claim),
            Op::ReduceSum { x, .. } => {
                let shape = self.shape(Operand::Node(u32::try_from(number).unwrap_or(0)))?;
                let source = self.shape(*x)?;
                let Some(vectors) = claim.functional.separated(&shape) else {
                    return Ok(false);
                };
                let pulled = Map {
                    dims: Vec::new(),
                    shape: source,
                }
                .pull(vectors);
                self.claim(*x, Functional::per_dim(pulled), claim.value.clone())?;
                Ok(true)
            }
            Op::View { sources, map } => self.view(number, sources, map, claim),
            Op::Gather { table, indices } => self.gather(*table, *indices, claim),
            // Committed results carry no open claims, and elementwise products are handled by `mul`.
            Op::Mul { .. }
            | Op::Requant { .. }
            | Op::Table { .. }
            | Op::MaxPool { .. }
            | Op::ReduceMax { .. }
            | Op::Divide { .. } => Ok(false),
        }
    }

    /// Weights of an operand that is broadcast to a node's shape.
    fn broadcast_back(
        &self,
        operand: Operand,
        vectors: Vec<Vector>,
        shape: &[usize],
    ) -> Result<Option<Functional>, VerifyError> {
        let Some(wide) = aligned(self.graph, self.plan.batch, operand, shape.len()) else {
            return Ok(None);
        };
        let Some(map) = Map::broadcast(wide, shape) else {
            return Ok(None);
        };
        let own = self.shape(operand)?;
        Ok(Functional::per_dim(map.pull(vectors)).reshaped(&own))
    }

    fn sum(
        &mut self,
        number: usize,
        terms: &[(Operand, i32)],
        claim: &TensorClaim<C::Value>,
    ) -> Result<bool, VerifyError> {
        let shape = self.shape(Operand::Node(u32::try_from(number).unwrap_or(0)))?;
        let mut pulled = Vec::with_capacity(terms.len());
        let mut vectors = None;
        for (operand, multiplier) in terms {
            let functional = if self.shape(*operand)? == shape {
                Some(claim.functional.clone())
            } else {
                if vectors.is_none() {
                    vectors = claim.functional.separated(&shape);
                }
                let Some(vectors) = vectors.clone() else {
                    return Ok(false);
                };
                self.broadcast_back(*operand, vectors, &shape)?
            };
            let Some(functional) = functional else { return Ok(false) };
            pulled.push((*operand, ext(i64::from(*multiplier)), functional));
        }
        let mut left = claim.value.clone();
        for (operand, multiplier, functional) in pulled {
            let value = self.state(operand, &functional)?;
            left -= value.clone() * multiplier;
            self.claim(operand, functional, value)?;
        }
        let name = self.graph.nodes.get(number).map_or("", |node| node.name.as_str());
        self.channel.zero(Check::Sum, left, name)?;
        Ok(true)
    }

    /// `sum_i w(i) a(i) b(i)` for all claims at once.
    pub(crate) fn mul(
        &mut self,
        number: usize,
        a: Operand,
        b: Operand,
        claims: &[TensorClaim<C::Value>],
    ) -> Result<(), VerifyError> {
        let shape = self.shape(Operand::Node(u32::try_from(number).unwrap_or(0)))?;
        let gamma = if claims.len() > 1 {
            self.channel.challenge()
        } else {
            EF::ZERO
        };
        let value = combination(claims, gamma);
        let maps = [a, b].map(|operand| {
            let wide = aligned(self.graph, self.plan.batch, operand, shape.len())?;
            Map::broadcast(wide, &shape)
        });
        let [Some(map_a), Some(map_b)] = maps else {
            return Err(self.invalid(number, "an operand does not broadcast"));
        };
        let count = variables(&shape);
        let reduced = self.channel.sumcheck(value, count, 3, |witness| {
            let lift = |operand: Operand, map: &Map| -> Table {
                let term =
                    crate::expression::Term::new(1, crate::expression::Source::Operand(operand)).mapped(map.clone());
                let values = witness.expression(&crate::expression::Expression::new(shape.clone(), vec![term]));
                Table::Base(padded(&values, &shape))
            };
            vec![
                Table::Extension(combined(claims, &shape, gamma)),
                lift(a, &map_a),
                lift(b, &map_b),
            ]
        })?;
        let finals = self
            .channel
            .values(2, |_| reduced.finals.get(1..).map(<[EF]>::to_vec).unwrap_or_default())?;
        let [left, right] = pair(finals);
        let weight = evaluate(claims, &shape, gamma, &reduced.point);
        let name = self.graph.nodes.get(number).map_or("", |node| node.name.as_str());
        self.channel
            .product(Check::Product, weight, &left, &right, &reduced.expected, name)?;
        for (operand, value) in [(a, left), (b, right)] {
            let point = Functional::point(&reduced.point, &shape);
            let vectors = point.parts.into_iter().map(|part| part.weights).collect();
            let Some(functional) = self.broadcast_back(operand, vectors, &shape)? else {
                return Err(self.invalid(number, "an operand does not broadcast"));
            };
            self.claim(operand, functional, value)?;
        }
        Ok(())
    }

    /// Thaler's matrix product, for weights that are shared by some of the leading dimensions.
    fn matmul(
        &mut self,
        number: usize,
        x: Operand,
        w: Operand,
        bias: Option<Operand>,
        claim: &TensorClaim<C::Value>,
    ) -> Result<bool, VerifyError> {
        let (left, right) = (self.shape(x)?, self.shape(w)?);
        let rank = left.len();
        let (Some(inner), true) = (left.last().copied(), rank >= 2 && right.len() >= 2) else {
            return Ok(false);
        };
        // y = [shared requests | b.. | rows | columns]: w repeats over the first and third group.
        let constant = matches!(w, Operand::Constant(_));
        let pairs = right.len() - 2;
        let requests = usize::from(constant && pairs > 0);
        let Some(rows) = rank.checked_sub(1 + requests + pairs) else {
            return Ok(false);
        };
        let Some(groups) = grouped(&claim.functional, &[requests, pairs, rows, 1]) else {
            return Ok(false);
        };
        let [shared, batch, row, column] = groups.as_slice() else {
            return Ok(false);
        };
        let (shared_weights, row_weights, column_weights) = (dense(shared), dense(row), dense(column));
        let batch_weights = dense(batch);
        let batch_shape = right.get(..pairs).map(<[usize]>::to_vec).unwrap_or_default();
        let mut value = claim.value.clone();
        if let Some(bias) = bias {
            let mass = Functional {
                parts: claim
                    .functional
                    .parts
                    .split_last()
                    .map(|(_, head)| head.to_vec())
                    .unwrap_or_default(),
            };
            let mass = if mass.parts.is_empty() { EF::ONE } else { mass.mass() };
            let functional = Functional::per_dim(vec![column_weights.clone()]);
            let stated = self.state(bias, &functional)?;
            value -= stated.clone() * mass;
            self.claim(bias, functional, stated)?;
        }
        let batch_variables = variables(&batch_shape);
        let inner_variables = log2_ceil(inner);
        let plain = pairs == 0;
        let degree = if plain { 2 } else { 3 };
        let reduced = self
            .channel
            .sumcheck(value, batch_variables + inner_variables, degree, |witness| {
                let count = batch_weights.len();
                let columns = column_weights.len();
                let rows = row_weights.len();
                let x = witness.operand(x);
                let w = witness.operand(w);
                let mut left = Vec::with_capacity(count * inner);
                for b in 0..count {
                    let mut sums = vec![EF::ZERO; inner];
                    for (s, shared) in shared_weights.iter().enumerate() {
                        for (m, weight) in row_weights.iter().enumerate() {
                            let start = ((s * count + b) * rows + m) * inner;
                            let weight = *weight * *shared;
                            for (sum, value) in sums.iter_mut().zip(x.get(start..start + inner).unwrap_or_default()) {
                                if *value != 0 {
                                    *sum += weight * field(*value);
                                }
                            }
                        }
                    }
                    left.extend(sums);
                }
                let right: Vec<EF> = w
                    .par_chunks(columns.max(1))
                    .map(|row| dot_integers(&column_weights, row))
                    .collect();
                let mut shape = batch_shape.clone();
                shape.push(inner);
                let mut tables = vec![
                    Table::Extension(spread(left, &shape)),
                    Table::Extension(spread(right, &shape)),
                ];
                if !plain {
                    tables.push(Table::Extension(widen(&batch_weights, &batch_shape, inner_variables)));
                }
                tables
            })?;
        let finals = self
            .channel
            .values(2, |_| reduced.finals.get(..2).map(<[EF]>::to_vec).unwrap_or_default())?;
        let [a, c] = pair(finals);
        let (high, low) = reduced.point.split_at(batch_variables);
        let weight = if plain {
            EF::ONE
        } else {
            Functional { parts: batch.clone() }.evaluate(&mut EqTables::new(high), 0, &batch_shape)
        };
        let name = self.graph.nodes.get(number).map_or("", |node| node.name.as_str());
        self.channel
            .product(Check::Product, weight, &a, &c, &reduced.expected, name)?;
        let batch_point = Functional::point(high, &batch_shape).parts;
        let inner_point = Part::new(1, eq_table(low, inner));
        let parts = shared
            .iter()
            .chain(&batch_point)
            .chain(row)
            .cloned()
            .chain([inner_point.clone()])
            .collect();
        self.claim(x, Functional { parts }, a)?;
        let parts = batch_point
            .iter()
            .cloned()
            .chain([inner_point])
            .chain(column.iter().cloned())
            .collect();
        self.claim(w, Functional { parts }, c)?;
        Ok(true)
    }

    /// Convolution: a sumcheck over (group, channel, kernel position); the image's weights stay separable.
    fn conv(
        &mut self,
        number: usize,
        [x, w, bias]: [Option<Operand>; 3],
        window: &Window,
        groups: usize,
        claim: &TensorClaim<C::Value>,
    ) -> Result<bool, VerifyError> {
        let (Some(x), Some(w)) = (x, w) else { return Ok(false) };
        let (image, kernel) = (self.shape(x)?, self.shape(w)?);
        let ([requests, own, channels, height, width], [outputs, per_group, rows, columns]) =
            (image.as_slice(), kernel.as_slice())
        else {
            return Ok(false);
        };
        let (batch, channels, height, width) = (requests * own, *channels, *height, *width);
        let (outputs, per_group, rows, columns) = (*outputs, *per_group, *rows, *columns);
        let Some(per_output) = outputs.checked_div(groups) else {
            return Ok(false);
        };
        let Some(parts) = grouped(&claim.functional, &[2, 1, 1, 1]) else {
            return Ok(false);
        };
        let [lead, out, vertical, horizontal] = parts.as_slice() else {
            return Ok(false);
        };
        let (lead_weights, out_weights) = (dense(lead), dense(out));
        let (vertical, horizontal) = (dense(vertical), dense(horizontal));
        let mut value = claim.value.clone();
        if let Some(bias) = bias {
            let mass = |weights: &[EF]| weights.iter().copied().sum::<EF>();
            let functional = Functional::per_dim(vec![out_weights.clone()]);
            let stated = self.state(bias, &functional)?;
            let all = mass(&lead_weights) * mass(&vertical) * mass(&horizontal);
            value -= stated.clone() * all;
            self.claim(bias, functional, stated)?;
        }
        // Weights of image rows (columns) for each kernel row (column).
        let taps = |weights: &[EF], taps: usize, stride: u32, dilation: u32, pad: u32, size: usize| -> Vec<Vec<EF>> {
            (0..taps)
                .map(|tap| {
                    let mut line = vec![EF::ZERO; size];
                    for (position, weight) in weights.iter().enumerate() {
                        let at = position * stride as usize + tap * dilation as usize;
                        if let Some(slot) = at.checked_sub(pad as usize).and_then(|at| line.get_mut(at)) {
                            *slot += *weight;
                        }
                    }
                    line
                })
                .collect()
        };
        let [top, left, _, _] = window.pads;
        let down = taps(&vertical, rows, window.strides[0], window.dilations[0], top, height);
        let across = taps(
            &horizontal,
            columns,
            window.strides[1],
            window.dilations[1],
            left,
            width,
        );
        let shape = [groups, per_group, rows, columns];
        let reduced = self.channel.sumcheck(value, variables(&shape), 2, |witness| {
            let x = witness.operand(x);
            let plane = height * width;
            let images: Vec<EF> = (0..channels)
                .into_par_iter()
                .flat_map_iter(|channel| {
                    let mut sums = vec![EF::ZERO; plane];
                    for (b, weight) in lead_weights.iter().enumerate().take(batch) {
                        let start = (b * channels + channel) * plane;
                        for (sum, value) in sums.iter_mut().zip(x.get(start..start + plane).unwrap_or_default()) {
                            if *value != 0 {
                                *sum += *weight * field(*value);
                            }
                        }
                    }
                    let mut out = Vec::with_capacity(rows * columns);
                    for vertical in &down {
                        let mut line = vec![EF::ZERO; width];
                        for (weight, row) in vertical.iter().zip(sums.chunks(width)) {
                            if *weight != EF::ZERO {
                                line.iter_mut()
                                    .zip(row)
                                    .for_each(|(slot, value)| *slot += *weight * *value);
                            }
                        }
                        out.extend(across.iter().map(|taps| crate::field::dot(taps, &line)));
                    }
                    out
                })
                .collect();
            let block = per_group * rows * columns;
            let mut kernels = vec![EF::ZERO; groups * block];
            for (output, (weights, factor)) in witness.operand(w).chunks(block.max(1)).zip(&out_weights).enumerate() {
                let start = (output / per_output.max(1)) * block;
                for (slot, weight) in kernels.iter_mut().skip(start).zip(weights) {
                    if *weight != 0 {
                        *slot += *factor * field(*weight);
                    }
                }
            }
            vec![
                Table::Extension(spread(images, &shape)),
                Table::Extension(spread(kernels, &shape)),
            ]
        })?;
        let finals = self.channel.values(2, |_| reduced.finals.clone())?;
        let [a, c] = pair(finals);
        let name = self.graph.nodes.get(number).map_or("", |node| node.name.as_str());
        self.channel
            .product(Check::Product, EF::ONE, &a, &c, &reduced.expected, name)?;
        let point = Functional::point(&reduced.point, &shape);
        let vectors: Vec<Vector> = point.parts.into_iter().map(|part| part.weights).collect();
        let [group, channel, row, column] = vectors.as_slice() else {
            return Ok(false);
        };
        let blend = |weights: &[EF], lines: &[Vec<EF>], size: usize| -> Vec<EF> {
            let mut out = vec![EF::ZERO; size];
            for (weight, line) in weights.iter().zip(lines) {
                out.iter_mut()
                    .zip(line)
                    .for_each(|(slot, value)| *slot += *weight * *value);
            }
            out
        };
        let own = |weights: Vec<EF>| Part::new(1, weights);
        let mut parts = lead.clone();
        parts.push(own(crate::functional::kronecker(group, channel)));
        parts.push(own(blend(row, &down, height)));
        parts.push(own(blend(column, &across, width)));
        self.claim(x, Functional { parts }, a)?;
        let weights: Vec<EF> = out_weights
            .iter()
            .enumerate()
            .map(|(output, weight)| *weight * group.get(output / per_output.max(1)).copied().unwrap_or(EF::ZERO))
            .collect();
        self.claim(
            w,
            Functional::per_dim(vec![
                Arc::new(weights),
                Arc::clone(channel),
                Arc::clone(row),
                Arc::clone(column),
            ]),
            c,
        )?;
        Ok(true)
    }

    fn gather(&mut self, table: Operand, indices: Operand, claim: &TensorClaim<C::Value>) -> Result<bool, VerifyError> {
        let rank = self.shape(indices)?.len();
        let rows = self.shape(table)?.first().copied().unwrap_or(0);
        let Operand::Input(number) = indices else {
            return Ok(false);
        };
        let total: usize = claim.functional.parts.iter().map(|part| part.dims).sum();
        let Some(tail) = total.checked_sub(rank) else {
            return Ok(false);
        };
        let Some(groups) = grouped(&claim.functional, &[rank, tail]) else {
            return Ok(false);
        };
        let [lead, rest] = groups.as_slice() else {
            return Ok(false);
        };
        let mut weights = vec![EF::ZERO; rows];
        let values = self.inputs.get(number as usize).map_or(&[][..], Vec::as_slice);
        for (index, weight) in values.iter().zip(dense(lead)) {
            if let Some(slot) = usize::try_from(*index).ok().and_then(|index| weights.get_mut(index)) {
                *slot += weight;
            }
        }
        let parts = std::iter::once(Part::new(1, weights))
            .chain(rest.iter().cloned())
            .collect();
        self.claim(table, Functional { parts }, claim.value.clone())?;
        Ok(true)
    }

    fn view(
        &mut self,
        number: usize,
        sources: &[Operand],
        map: &ViewMap,
        claim: &TensorClaim<C::Value>,
    ) -> Result<bool, VerifyError> {
        let shape = self.shape(Operand::Node(u32::try_from(number).unwrap_or(0)))?;
        let Some(first) = sources.first().copied() else {
            return Ok(false);
        };
        // A constant has no requests in front: it is read as one request's tensor.
        let wide = |operand: Operand, own: Vec<usize>| match operand {
            Operand::Constant(_) => std::iter::once(1).chain(own).collect::<Vec<usize>>(),
            _ => own,
        };
        let source = wide(first, self.shape(first)?);
        if matches!(map, ViewMap::Reshape) {
            let Some(functional) = claim.functional.reshaped(&source) else {
                return Ok(false);
            };
            self.claim(first, functional, claim.value.clone())?;
            return Ok(true);
        }
        let Some(vectors) = claim.functional.separated(&shape) else {
            return Ok(false);
        };
        let mut value = claim.value.clone();
        let pulled = match map {
            ViewMap::Reshape => return Ok(false),
            ViewMap::Transpose { perm } => {
                let mut out = vec![Vector::default(); vectors.len()];
                for (weights, axis) in vectors
                    .into_iter()
                    .zip(std::iter::once(0).chain(perm.iter().map(|axis| usize::from(*axis) + 1)))
                {
                    if let Some(slot) = out.get_mut(axis) {
                        *slot = weights;
                    }
                }
                out
            }
            ViewMap::Slice { starts, steps } => {
                let dims = std::iter::once((0, 1))
                    .chain(
                        starts
                            .iter()
                            .zip(steps)
                            .map(|(start, step)| (i64::from(*start), i64::from(*step))),
                    )
                    .collect();
                Map { dims, shape: source }.pull(vectors)
            }
            ViewMap::Broadcast => {
                let Some(functional) = self.broadcast_back(first, vectors, &shape)? else {
                    return Ok(false);
                };
                self.claim(first, functional, value)?;
                return Ok(true);
            }
            ViewMap::Pad { before, value: fill } => {
                let inner: Vec<Vector> = vectors
                    .iter()
                    .zip(std::iter::once(0).chain(before.iter().map(|before| *before as usize)))
                    .zip(&source)
                    .map(|((weights, before), size)| {
                        Arc::new(weights.iter().skip(before).take(*size).copied().collect())
                    })
                    .collect();
                let masses = [vectors, inner.clone()].map(|vectors| Functional::per_dim(vectors).mass());
                let [all, covered] = masses;
                value -= ((all - covered) * ext(i64::from(*fill))).into();
                inner
            }
            ViewMap::Select { axis, indices } => {
                let axis = usize::from(*axis) + 1;
                let mut vectors = vectors;
                if let (Some(weights), Some(size)) = (vectors.get_mut(axis), source.get(axis)) {
                    let mut out = vec![EF::ZERO; *size];
                    for (index, weight) in indices.iter().zip(weights.iter()) {
                        if let Some(slot) = out.get_mut(*index as usize) {
                            *slot += *weight;
                        }
                    }
                    *weights = Arc::new(out);
                }
                vectors
            }
            ViewMap::Concat { axis } => {
                let axis = usize::from(*axis) + 1;
                let mut start = 0;
                let mut left = value.clone();
                for operand in sources {
                    let own = self.shape(*operand)?;
                    let source = wide(*operand, own.clone());
                    let size = source.get(axis).copied().unwrap_or(0);
                    let mut vectors = vectors.clone();
                    if let Some(weights) = vectors.get_mut(axis) {
                        *weights = Arc::new(weights.iter().skip(start).take(size).copied().collect());
                    }
                    start += size;
                    if matches!(operand, Operand::Constant(_))
                        && let Some(requests) = vectors.first_mut()
                    {
                        *requests = Arc::new(vec![requests.iter().copied().sum()]);
                    }
                    let Some(functional) = Functional::per_dim(vectors).reshaped(&own) else {
                        return Ok(false);
                    };
                    let stated = self.state(*operand, &functional)?;
                    left -= stated.clone();
                    self.claim(*operand, functional, stated)?;
                }
                let name = self.graph.nodes.get(number).map_or("", |node| node.name.as_str());
                self.channel.zero(Check::Sum, left, name)?;
                return Ok(true);
            }
        };
        self.claim(first, Functional::per_dim(pulled), value)?;
        Ok(true)
    }
}

/// Values on the padded cube.
fn spread(values: Vec<EF>, shape: &[usize]) -> Vec<EF> {
    let size = 1usize << variables(shape);
    if values.len() == size {
        return values;
    }
    let mut out = vec![EF::ZERO; size];
    for (position, value) in crate::functional::padded_positions(shape).into_iter().zip(values) {
        if let Some(slot) = out.get_mut(position) {
            *slot = value;
        }
    }
    out
}

/// The weights of the leading dimensions, constant along the inner one: the extension that the verifier evaluates.
fn widen(weights: &[EF], shape: &[usize], inner: usize) -> Vec<EF> {
    spread(weights.to_vec(), shape)
        .into_iter()
        .flat_map(|weight| std::iter::repeat_n(weight, 1 << inner))
        .collect()
}
