//! The reference interpreter: runs a program on integers, one plain loop per operation.
//!
//! It favours being read over being fast. A prover's output must equal its output bit for bit.

use crate::{
    error::RunError,
    program::{Node, Op, Operand, Program, Shift, Window, round_shift},
    shape::{Walk, broadcast_strides, elements, signed, strides},
    view::{Element, View, ViewMap},
};
use std::borrow::Cow;

/// Every intermediate value of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// One row-major tensor per node, in the order of the nodes.
    pub nodes: Vec<Vec<i64>>,
}

impl Trace {
    /// The public outputs, in the order of the graph's outputs; `None` if the trace is of another program.
    #[must_use]
    pub fn outputs(&self, program: &Program) -> Option<Vec<Vec<i64>>> {
        let node = |operand| match operand {
            Operand::Node(i) => self.nodes.get(i as usize).cloned(),
            _ => None,
        };
        program.graph.outputs.iter().map(|output| node(output.source)).collect()
    }
}

/// Runs a validated program. `inputs` are row-major integer tensors in the order of the graph's inputs.
///
/// # Errors
/// [`RunError`] if an input does not have its shape and range, if a quotient is not provable, or if the program turns
/// out not to have been validated.
pub fn run(program: &Program, inputs: &[Vec<i64>]) -> Result<Trace, RunError> {
    check_inputs(program, inputs)?;
    let mut machine = Machine {
        program,
        inputs,
        done: Vec::with_capacity(program.graph.nodes.len()),
    };
    for node in &program.graph.nodes {
        let values = machine.node(node)?;
        let inside = values.iter().all(|value| node.ty.range.contains(*value));
        if !inside || Some(values.len()) != elements(&node.ty.shape) {
            return Err(invalid(node, "a result left its proven range or shape"));
        }
        machine.done.push(values);
    }
    Ok(Trace { nodes: machine.done })
}

fn check_inputs(program: &Program, inputs: &[Vec<i64>]) -> Result<(), RunError> {
    let expected = program.graph.inputs.len();
    if inputs.len() != expected {
        return Err(RunError::InputCount {
            expected,
            got: inputs.len(),
        });
    }
    for (input, values) in program.graph.inputs.iter().zip(inputs) {
        let expected = elements(&input.shape).unwrap_or(0);
        if values.len() != expected {
            return Err(RunError::InputSize {
                input: input.name.clone(),
                expected,
                shape: input.shape.clone(),
                got: values.len(),
            });
        }
        let (_, range) = input.integer_type();
        if let Some((index, value)) = values.iter().enumerate().find(|(_, value)| !range.contains(**value)) {
            return Err(RunError::InputValue {
                input: input.name.clone(),
                index,
                value: *value,
                range,
            });
        }
    }
    Ok(())
}

fn invalid(node: &Node, reason: &'static str) -> RunError {
    RunError::Invalid {
        node: node.name.clone(),
        op: node.op.name(),
        reason,
    }
}

/// A tensor as an operation reads it.
struct Tensor<'a> {
    shape: &'a [usize],
    values: Cow<'a, [i64]>,
}

impl Tensor<'_> {
    fn at(&self, index: usize) -> i64 {
        self.values.get(index).copied().unwrap_or(0)
    }

    fn get(&self, index: i64) -> i64 {
        usize::try_from(index).map_or(0, |index| self.at(index))
    }
}

struct Machine<'a> {
    program: &'a Program,
    inputs: &'a [Vec<i64>],
    done: Vec<Vec<i64>>,
}

// Products and sums wrap instead of panicking: in a validated program they cannot overflow, and of one that was not
// validated only the absence of panics is promised.
impl Machine<'_> {
    fn operand(&self, node: &Node, operand: Operand) -> Result<Tensor<'_>, RunError> {
        let missing = || invalid(node, "an operand is missing");
        let graph = &self.program.graph;
        let shape = graph.operand(operand).ok_or_else(missing)?.shape;
        let values = match operand {
            Operand::Input(i) => Cow::Borrowed(self.inputs.get(i as usize).ok_or_else(missing)?.as_slice()),
            Operand::Node(i) => Cow::Borrowed(self.done.get(i as usize).ok_or_else(missing)?.as_slice()),
            Operand::Constant(i) => Cow::Owned(
                self.program
                    .weights
                    .constants
                    .get(i as usize)
                    .ok_or_else(missing)?
                    .to_i64(),
            ),
        };
        if Some(values.len()) != elements(shape) {
            return Err(invalid(
                node,
                "an operand has another number of elements than its shape",
            ));
        }
        Ok(Tensor { shape, values })
    }

    fn bias(&self, node: &Node, bias: Option<Operand>) -> Result<Vec<i64>, RunError> {
        bias.map_or(Ok(Vec::new()), |bias| Ok(self.operand(node, bias)?.values.into_owned()))
    }

    fn node(&self, node: &Node) -> Result<Vec<i64>, RunError> {
        match &node.op {
            Op::MatMul { x, w, bias } => {
                let bias = self.bias(node, *bias)?;
                matmul(&self.operand(node, *x)?, &self.operand(node, *w)?, &bias)
                    .ok_or_else(|| invalid(node, "the shapes do not multiply"))
            }
            Op::Conv {
                x,
                w,
                bias,
                window,
                groups,
            } => {
                let bias = self.bias(node, *bias)?;
                let (x, w) = (self.operand(node, *x)?, self.operand(node, *w)?);
                conv(&x, &w, &bias, window, *groups as usize, &node.ty.shape)
                    .ok_or_else(|| invalid(node, "the shapes do not fit"))
            }
            Op::Sum { terms } => {
                let mut out = vec![0i64; elements(&node.ty.shape).unwrap_or(0)];
                for (operand, multiplier) in terms {
                    let term = self.broadcast(node, *operand)?;
                    for (sum, value) in out.iter_mut().zip(term) {
                        *sum = sum.wrapping_add(value.wrapping_mul(i64::from(*multiplier)));
                    }
                }
                Ok(out)
            }
            Op::Mul { a, b } => {
                let (a, b) = (self.broadcast(node, *a)?, self.broadcast(node, *b)?);
                Ok(a.into_iter().zip(b).map(|(a, b)| a.wrapping_mul(b)).collect())
            }
            Op::ReduceSum { x, .. } => self.reduce(node, *x, |sum, value| Some(sum.unwrap_or(0).wrapping_add(value))),
            Op::ReduceMax { x, .. } => self.reduce(node, *x, |max, value| {
                Some(max.map_or(value, |max: i64| max.max(value)))
            }),
            Op::Requant { x, shift, lo, hi } => self.requant(node, *x, shift, i64::from(*lo), i64::from(*hi)),
            Op::Table { x, table } => {
                let x = self.operand(node, *x)?;
                let table = self.program.graph.tables.get(*table as usize);
                let table = table.ok_or_else(|| invalid(node, "the table is missing"))?;
                let entry = |value: &i64| {
                    let index = usize::try_from(value.wrapping_sub(i64::from(table.first))).ok()?;
                    table.values.get(index).copied().map(i64::from)
                };
                let out: Option<Vec<i64>> = x.values.iter().map(entry).collect();
                out.ok_or_else(|| invalid(node, "an argument lies outside the table"))
            }
            Op::MaxPool { x, window, kernel } => max_pool(
                &self.operand(node, *x)?,
                window,
                kernel.map(|size| size as usize),
                &node.ty.shape,
            )
            .ok_or_else(|| invalid(node, "a window covers padding only")),
            Op::Divide {
                num,
                den,
                shift,
                lo,
                hi,
            } => {
                let num = self.operand(node, *num)?;
                let den = self.broadcast(node, *den)?;
                let mut out = Vec::with_capacity(den.len());
                for (index, (num, den)) in num.values.iter().zip(den).enumerate() {
                    if den < 1 {
                        return Err(invalid(node, "a divisor is not positive"));
                    }
                    let scaled = num.wrapping_mul(1i64.wrapping_shl(u32::from(*shift)));
                    let value = scaled.wrapping_add(den / 2).div_euclid(den);
                    if value < i64::from(*lo) || value > i64::from(*hi) {
                        return Err(RunError::Quotient {
                            node: node.name.clone(),
                            index,
                            value,
                            lo: i64::from(*lo),
                            hi: i64::from(*hi),
                        });
                    }
                    out.push(value);
                }
                Ok(out)
            }
            Op::View { sources, map } => self.view(node, sources, map),
            Op::Gather { table, indices } => {
                let (table, indices) = (self.operand(node, *table)?, self.operand(node, *indices)?);
                let row = table.shape.iter().skip(1).product::<usize>();
                let mut out = Vec::with_capacity(elements(&node.ty.shape).unwrap_or(0));
                for index in indices.values.iter() {
                    let start = usize::try_from(*index).ok().and_then(|index| index.checked_mul(row));
                    let start = start.ok_or_else(|| invalid(node, "an index is negative or too large"))?;
                    let row = start.checked_add(row).and_then(|end| table.values.get(start..end));
                    out.extend(row.ok_or_else(|| invalid(node, "an index lies outside the table"))?);
                }
                Ok(out)
            }
        }
    }

    /// The elements of an operand broadcast to the node's shape.
    fn broadcast(&self, node: &Node, operand: Operand) -> Result<Vec<i64>, RunError> {
        let tensor = self.operand(node, operand)?;
        if tensor.shape == node.ty.shape {
            return Ok(tensor.values.into_owned());
        }
        let steps = broadcast_strides(tensor.shape, &node.ty.shape);
        let steps = signed(&steps.ok_or_else(|| invalid(node, "an operand does not broadcast"))?);
        Ok(Walk::new(&node.ty.shape, &steps, 0)
            .map(|index| tensor.get(index))
            .collect())
    }

    fn reduce(
        &self,
        node: &Node,
        x: Operand,
        step: impl Fn(Option<i64>, i64) -> Option<i64>,
    ) -> Result<Vec<i64>, RunError> {
        let x = self.operand(node, x)?;
        // Where an element goes: the result's position with the reduced dimensions, of size 1, at stride 0.
        let target = broadcast_strides(&node.ty.shape, x.shape);
        let target = signed(&target.ok_or_else(|| invalid(node, "the result's shape is not the reduced one"))?);
        let mut out: Vec<Option<i64>> = vec![None; elements(&node.ty.shape).unwrap_or(0)];
        for (value, to) in x.values.iter().zip(Walk::new(x.shape, &target, 0)) {
            if let Some(slot) = usize::try_from(to).ok().and_then(|to| out.get_mut(to)) {
                *slot = step(*slot, *value);
            }
        }
        Ok(out.into_iter().map(|value| value.unwrap_or(0)).collect())
    }

    fn requant(&self, node: &Node, x: Operand, shift: &Shift, lo: i64, hi: i64) -> Result<Vec<i64>, RunError> {
        let x = self.operand(node, x)?;
        let (step, size) = match shift {
            Shift::Tensor(_) => (1, 1),
            Shift::Axis { axis, shifts } => {
                let step = strides(x.shape).get(usize::from(*axis)).copied();
                (
                    step.ok_or_else(|| invalid(node, "the axis is missing"))?,
                    shifts.len().max(1),
                )
            }
        };
        let mut out = Vec::with_capacity(x.values.len());
        for (index, value) in x.values.iter().enumerate() {
            let shift = shift
                .at((index / step) % size)
                .ok_or_else(|| invalid(node, "a shift is missing"))?;
            out.push(round_shift(*value, shift).clamp(lo, hi.max(lo)));
        }
        Ok(out)
    }

    fn view(&self, node: &Node, sources: &[Operand], map: &ViewMap) -> Result<Vec<i64>, RunError> {
        let tensors = sources
            .iter()
            .map(|source| self.operand(node, *source))
            .collect::<Result<Vec<_>, _>>()?;
        let shapes: Vec<&[usize]> = tensors.iter().map(|tensor| tensor.shape).collect();
        let view = View::new(map, &node.ty.shape, &shapes).map_err(|reason| invalid(node, reason))?;
        if let (Some((offset, steps)), [source]) = (view.affine(), tensors.as_slice()) {
            return Ok(Walk::new(&node.ty.shape, &steps, offset)
                .map(|index| source.get(index))
                .collect());
        }
        let element = |index| match view.element(index)? {
            Element::Source { source, index } => Some(tensors.get(source)?.at(index)),
            Element::Value(value) => Some(value),
        };
        let out: Option<Vec<i64>> = (0..elements(&node.ty.shape).unwrap_or(0)).map(element).collect();
        out.ok_or_else(|| invalid(node, "an element of the view has no source"))
    }
}

/// `[B.., M, K] x [B.., K, N]` or `[B.., M, K] x [K, N]`.
fn matmul(x: &Tensor<'_>, w: &Tensor<'_>, bias: &[i64]) -> Option<Vec<i64>> {
    let [batch @ .., m, k] = x.shape else { return None };
    let [own @ .., rows, n] = w.shape else { return None };
    if rows != k || *k == 0 || *n == 0 || *m == 0 {
        return None;
    }
    let shared = own.is_empty();
    let mut out = Vec::with_capacity(batch.iter().product::<usize>() * m * n);
    for (number, matrix) in x.values.chunks(m * k).enumerate() {
        let start = if shared { 0 } else { number * k * n };
        let weights = w.values.get(start..start + k * n)?;
        for row in matrix.chunks(*k) {
            let mut sums = if bias.is_empty() { vec![0; *n] } else { bias.to_vec() };
            for (value, weights) in row.iter().zip(weights.chunks(*n)).filter(|(value, _)| **value != 0) {
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum = sum.wrapping_add(value.wrapping_mul(*weight));
                }
            }
            out.extend(sums);
        }
    }
    Some(out)
}

/// The source row or column that kernel position `k` of output position `o` reads, if it is not padding.
fn source(o: usize, k: usize, stride: u32, dilation: u32, pad: u32, size: usize) -> Option<usize> {
    let at = o
        .checked_mul(stride as usize)?
        .checked_add(k.checked_mul(dilation as usize)?)?;
    at.checked_sub(pad as usize).filter(|at| *at < size)
}

fn conv(
    x: &Tensor<'_>,
    w: &Tensor<'_>,
    bias: &[i64],
    window: &Window,
    groups: usize,
    shape: &[usize],
) -> Option<Vec<i64>> {
    let ([_, channels, height, width], [out_channels, per_group, rows, columns]) = (x.shape, w.shape) else {
        return None;
    };
    let [batch, _, out_height, out_width] = shape else {
        return None;
    };
    let [down, across] = window.strides;
    let [dilate_down, dilate_across] = window.dilations;
    let [top, left, _, _] = window.pads;
    let outs_per_group = out_channels.checked_div(groups)?.max(1);
    let mut out = Vec::with_capacity(elements(shape)?);
    for n in 0..*batch {
        for o in 0..*out_channels {
            let first = (o / outs_per_group) * per_group;
            let bias = bias.get(o).copied().unwrap_or(0);
            for i in 0..*out_height {
                for j in 0..*out_width {
                    let mut sum = bias;
                    for c in 0..*per_group {
                        for u in 0..*rows {
                            let Some(y) = source(i, u, down, dilate_down, top, *height) else {
                                continue;
                            };
                            for v in 0..*columns {
                                let Some(z) = source(j, v, across, dilate_across, left, *width) else {
                                    continue;
                                };
                                let value = x.at(((n * channels + first + c) * height + y) * width + z);
                                let weight = w.at(((o * per_group + c) * rows + u) * columns + v);
                                sum = sum.wrapping_add(value.wrapping_mul(weight));
                            }
                        }
                    }
                    out.push(sum);
                }
            }
        }
    }
    Some(out)
}

fn max_pool(x: &Tensor<'_>, window: &Window, kernel: [usize; 2], shape: &[usize]) -> Option<Vec<i64>> {
    let ([_, _, height, width], [batch, channels, out_height, out_width]) = (x.shape, shape) else {
        return None;
    };
    let [rows, columns] = kernel;
    let [down, across] = window.strides;
    let [dilate_down, dilate_across] = window.dilations;
    let [top, left, _, _] = window.pads;
    let mut out = Vec::with_capacity(elements(shape)?);
    for image in 0..batch * channels {
        for i in 0..*out_height {
            for j in 0..*out_width {
                let mut best: Option<i64> = None;
                for u in 0..rows {
                    let Some(y) = source(i, u, down, dilate_down, top, *height) else {
                        continue;
                    };
                    for v in 0..columns {
                        let Some(z) = source(j, v, across, dilate_across, left, *width) else {
                            continue;
                        };
                        let value = x.at((image * height + y) * width + z);
                        best = Some(best.map_or(value, |best| best.max(value)));
                    }
                }
                out.push(best?);
            }
        }
    }
    Some(out)
}
