//! Decides which integer operations make which value: fusion, and which values need integers at all.

use super::{
    CompileError,
    flat::{Flat, refuse},
};
use crate::{
    float::{self, Args},
    onnx::{OnnxNode, ValueId},
    tensor::{Data, Tensor},
};
use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
};

/// Most nodes that one lookup table may replace.
const MAX_CHAIN: usize = 48;

/// How one value is made from values that are made before it.
#[derive(Debug, Clone)]
pub(super) enum Plan {
    /// Product with a constant matrix (or one per batch entry), with bias and clamp.
    Linear {
        x: ValueId,
        w: Tensor,
        bias: Option<Vec<f32>>,
        clamp: Option<(f64, f64)>,
    },
    /// Convolution with a constant kernel; `node` has the attributes.
    Conv {
        x: ValueId,
        node: usize,
        w: Tensor,
        bias: Option<Vec<f32>>,
        clamp: Option<(f64, f64)>,
    },
    /// Product of two computed tensors.
    MatMul { a: ValueId, b: ValueId },
    /// Signed sum of tensors and a constant.
    Sum {
        terms: Vec<(ValueId, f64)>,
        constant: Option<Tensor>,
        clamp: Option<(f64, f64)>,
    },
    /// Product with a constant tensor, plus a constant tensor.
    Affine {
        x: ValueId,
        factor: Tensor,
        offset: Option<Tensor>,
        clamp: Option<(f64, f64)>,
    },
    /// Product with a number.
    Scale { x: ValueId, factor: f64 },
    /// Product of two computed tensors, element by element.
    Mul { a: ValueId, b: ValueId },
    /// `c / sqrt(mean(c^2) + epsilon)`, `c` the tensor itself or its distance from the mean.
    Norm {
        x: ValueId,
        centred: bool,
        axes: Vec<usize>,
        epsilon: f64,
        variance: ValueId,
    },
    /// Softmax over the last axis of `x`, times `v`: divided after the product.
    Attend { x: ValueId, v: ValueId, output: ValueId },
    /// Softmax over axes.
    Softmax { x: ValueId, axes: Vec<usize> },
    /// A function of single elements, computed by `nodes` from `root`.
    Unary { root: ValueId, nodes: Vec<usize> },
    /// A clamp of single elements.
    Clamp { x: ValueId, lo: f64, hi: f64 },
    /// Maximum over windows; `node` has the attributes.
    MaxPool { x: ValueId, node: usize },
    /// Mean over windows; `node` has the attributes.
    AveragePool { x: ValueId, node: usize },
    /// Maximum, sum or mean over axes.
    Reduce {
        x: ValueId,
        axes: Vec<usize>,
        kind: Reduction,
    },
    /// Another shape, same order.
    Reshape { x: ValueId },
    /// Another order; `node` has the attributes. `part` is the output's number.
    Move { x: ValueId, node: usize, part: usize },
    /// Several tensors one after the other along an axis.
    Concat { node: usize, axis: usize },
    /// Rows of a constant table.
    Embedding { table: ValueId, indices: ValueId },
}

/// What a reduction computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reduction {
    Max,
    Sum,
    Mean,
}

/// How finely a value must be represented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fineness {
    /// As the profile says.
    Normal,
    /// Argument of a softmax.
    Logits,
    /// Result of the model.
    Output,
}

/// Plans in the order in which their values are made.
pub(super) struct Schedule {
    pub(super) plans: Vec<(ValueId, Plan)>,
    pub(super) fineness: BTreeMap<ValueId, Fineness>,
}

/// Plans everything that the given values need.
pub(super) fn schedule(flat: &Flat, results: &[ValueId]) -> Result<Schedule, CompileError> {
    let planner = Planner {
        flat,
        depth: Cell::new(0),
    };
    let mut fineness: BTreeMap<ValueId, Fineness> = results.iter().map(|id| (*id, Fineness::Output)).collect();
    let mut plans = Vec::new();
    for number in (0..flat.model.nodes.len()).rev() {
        if flat.clear.get(number).copied().unwrap_or(false) {
            continue;
        }
        let Some(node) = flat.model.nodes.get(number) else {
            continue;
        };
        for (part, output) in node.outputs.iter().enumerate() {
            let Some(output) = output.filter(|output| fineness.contains_key(output)) else {
                continue;
            };
            let plan = planner.plan(number, node, part, output)?;
            let own = fineness.get(&output).copied().unwrap_or(Fineness::Normal);
            let passes = matches!(
                plan,
                Plan::Scale { .. }
                    | Plan::Reshape { .. }
                    | Plan::Move { .. }
                    | Plan::Concat { .. }
                    | Plan::Clamp { .. }
            );
            let wanted = match plan {
                Plan::Softmax { .. } => Fineness::Logits,
                _ if passes => own,
                _ => Fineness::Normal,
            };
            for source in planner.sources(&plan) {
                let logits = matches!(plan, Plan::Attend { x, .. } if x == source);
                let wanted = if logits { Fineness::Logits } else { wanted };
                let slot = fineness.entry(source).or_insert(wanted);
                *slot = (*slot).max(wanted);
            }
            plans.push((output, plan));
        }
    }
    plans.reverse();
    Ok(Schedule { plans, fineness })
}

/// Most nodes that are fused into one, so that fusion never nests deeply.
const MAX_FUSED: usize = 16;

struct Planner<'a> {
    flat: &'a Flat,
    depth: Cell<usize>,
}

impl<'a> Planner<'a> {
    fn constant(&self, id: ValueId) -> Option<&'a Tensor> {
        self.flat.model.constants.get(&id)
    }

    fn producer(&self, id: ValueId) -> Option<(usize, &'a OnnxNode)> {
        let number = *self.flat.producers.get(&id)?;
        Some((number, self.flat.model.nodes.get(number)?))
    }

    fn once(&self, id: ValueId) -> bool {
        self.flat.uses.get(&id).copied().unwrap_or(0) <= 1
    }

    fn shape(&self, id: ValueId) -> &'a [usize] {
        self.flat.shapes.get(&id).map_or(&[], Vec::as_slice)
    }

    /// Values that a plan reads.
    fn sources(&self, plan: &Plan) -> Vec<ValueId> {
        match plan {
            Plan::Linear { x, .. }
            | Plan::Conv { x, .. }
            | Plan::Affine { x, .. }
            | Plan::Scale { x, .. }
            | Plan::Norm { x, .. }
            | Plan::Softmax { x, .. }
            | Plan::Clamp { x, .. }
            | Plan::MaxPool { x, .. }
            | Plan::AveragePool { x, .. }
            | Plan::Reduce { x, .. }
            | Plan::Reshape { x }
            | Plan::Move { x, .. } => vec![*x],
            Plan::Unary { root, .. } => vec![*root],
            Plan::MatMul { a, b } | Plan::Mul { a, b } => vec![*a, *b],
            Plan::Attend { x, v, .. } => vec![*x, *v],
            Plan::Sum { terms, .. } => terms.iter().map(|(id, _)| *id).collect(),
            Plan::Concat { node, .. } => {
                let node = self.flat.model.nodes.get(*node);
                let inputs = node.map(|node| node.inputs.iter().flatten().copied().collect::<Vec<_>>());
                inputs
                    .unwrap_or_default()
                    .into_iter()
                    .filter(|id| self.constant(*id).is_none())
                    .collect()
            }
            Plan::Embedding { .. } => Vec::new(),
        }
    }

    /// The two inputs of an operator as computed tensor and constant.
    fn with_constant(&self, node: &OnnxNode) -> Option<(ValueId, &'a Tensor)> {
        let (a, b) = (node.input(0)?, node.input(1)?);
        match (self.constant(a), self.constant(b)) {
            (None, Some(tensor)) => Some((a, tensor)),
            (Some(tensor), None) => Some((b, tensor)),
            _ => None,
        }
    }

    fn args(&self, node: &'a OnnxNode) -> Args<'a> {
        let tensors = node
            .inputs
            .iter()
            .map(|id| id.and_then(|id| self.constant(id)))
            .collect();
        Args {
            node,
            opset: self.flat.model.opset,
            tensors,
        }
    }

    fn plan(&self, number: usize, node: &'a OnnxNode, part: usize, output: ValueId) -> Result<Plan, CompileError> {
        let x = node.input(0).ok_or_else(|| refuse(node, "input 0 is missing"))?;
        let said = |reason: String| refuse(node, reason);
        let rank = self.shape(x).len();
        // A clamp, alone or on top of something that can clamp.
        if let Some((lo, hi)) = self.clamp(node) {
            if self.once(x)
                && let Some((below, inner)) = self.producer(x)
                && self.clamp(inner).is_none()
            {
                match self.below(below, inner, x)? {
                    Plan::Linear { x, w, bias, .. } => {
                        return Ok(Plan::Linear {
                            x,
                            w,
                            bias,
                            clamp: Some((lo, hi)),
                        });
                    }
                    Plan::Conv { x, node, w, bias, .. } => {
                        return Ok(Plan::Conv {
                            x,
                            node,
                            w,
                            bias,
                            clamp: Some((lo, hi)),
                        });
                    }
                    Plan::Sum { terms, constant, .. } => {
                        return Ok(Plan::Sum {
                            terms,
                            constant,
                            clamp: Some((lo, hi)),
                        });
                    }
                    Plan::Affine { x, factor, offset, .. } => {
                        return Ok(Plan::Affine {
                            x,
                            factor,
                            offset,
                            clamp: Some((lo, hi)),
                        });
                    }
                    _ => {}
                }
            }
            return Ok(Plan::Clamp { x, lo, hi });
        }
        match node.op.as_str() {
            "Identity" | "Dropout" | "Cast" | "Reshape" | "Flatten" | "Squeeze" | "Unsqueeze" => {
                return Ok(Plan::Reshape { x });
            }
            "Transpose" | "Slice" | "Split" | "Pad" | "Expand" => return Ok(Plan::Move { x, node: number, part }),
            "Gather" => {
                let index = node.input(1).ok_or_else(|| refuse(node, "input 1 is missing"))?;
                if self.constant(x).is_some() {
                    let public = self.flat.model.inputs.iter().any(|input| input.value == index);
                    if !public || node.int("axis").unwrap_or(0) != 0 {
                        return Err(refuse(
                            node,
                            "an embedding reads rows (axis 0) by an int64 input of the model",
                        ));
                    }
                    return Ok(Plan::Embedding {
                        table: x,
                        indices: index,
                    });
                }
                return Ok(Plan::Move { x, node: number, part });
            }
            "Concat" => {
                let rank = self.shape(output).len();
                let axis = float::axis(node.int("axis").unwrap_or(0), rank).map_err(said)?;
                return Ok(Plan::Concat { node: number, axis });
            }
            "MaxPool" => return Ok(Plan::MaxPool { x, node: number }),
            "AveragePool" => return Ok(Plan::AveragePool { x, node: number }),
            "ReduceMax" | "ReduceSum" | "ReduceMean" => {
                let axes = float::reduced_axes(&self.args(node), rank).map_err(said)?;
                let kind = match node.op.as_str() {
                    "ReduceMax" => Reduction::Max,
                    "ReduceSum" => Reduction::Sum,
                    _ => Reduction::Mean,
                };
                return Ok(if axes.is_empty() {
                    Plan::Reshape { x }
                } else {
                    Plan::Reduce { x, axes, kind }
                });
            }
            "Softmax" => {
                let axes = float::softmax_axes(&self.args(node), rank).map_err(said)?;
                return Ok(Plan::Softmax { x, axes });
            }
            "Conv" => return self.conv(number, node),
            "MatMul" => return self.matmul(node, output),
            _ => {}
        }
        if let Some(plan) = self.norm(node) {
            return Ok(plan);
        }
        if let Some(plan) = self.scaled(node, output) {
            return Ok(plan);
        }
        if let Some((root, nodes)) = self.chain(output) {
            return Ok(Plan::Unary { root, nodes });
        }
        match node.op.as_str() {
            "Add" | "Sub" | "Mul" => self.arithmetic(node),
            op => Err(refuse(node, float::unsupported(op))),
        }
    }

    /// The plan of a value that may be fused into the one after it.
    fn below(&self, number: usize, node: &'a OnnxNode, output: ValueId) -> Result<Plan, CompileError> {
        if self.depth.get() >= MAX_FUSED {
            return Ok(Plan::Reshape { x: output });
        }
        self.depth.set(self.depth.get() + 1);
        let plan = self.plan(number, node, 0, output);
        self.depth.set(self.depth.get().saturating_sub(1));
        plan
    }

    /// Bounds of `Relu` or of `Clip` with constant bounds.
    fn clamp(&self, node: &OnnxNode) -> Option<(f64, f64)> {
        match node.op.as_str() {
            "Relu" => Some((0.0, f64::INFINITY)),
            "Clip" => {
                let bound = |name: &str, at: usize, default: f64| match (node.float(name), node.input(at)) {
                    (Some(value), _) => Some(f64::from(value)),
                    (None, Some(id)) => self.constant(id)?.single().map(f64::from),
                    (None, None) => Some(default),
                };
                Some((bound("min", 1, f64::NEG_INFINITY)?, bound("max", 2, f64::INFINITY)?))
            }
            _ => None,
        }
    }

    fn matmul(&self, node: &'a OnnxNode, output: ValueId) -> Result<Plan, CompileError> {
        let [Some(a), Some(b)] = [node.input(0), node.input(1)] else {
            return Err(refuse(node, "an input is missing"));
        };
        if self.constant(a).is_some() {
            return Err(refuse(
                node,
                "a constant on the left is not compiled: multiply the transposed tensors",
            ));
        }
        match self.constant(b) {
            Some(w) if self.shape(a).len() >= 2 && w.shape.len() == 2 => Ok(Plan::Linear {
                x: a,
                w: w.clone(),
                bias: None,
                clamp: None,
            }),
            Some(_) => Err(refuse(
                node,
                "a constant factor must be a matrix and the other at least one too: use Reshape",
            )),
            None if self.shape(a).len() >= 2 && self.shape(b).len() >= 2 => Ok(match self.attention(a) {
                Some(x) if self.shape(a).len() == self.shape(b).len() => Plan::Attend { x, v: b, output },
                _ => Plan::MatMul { a, b },
            }),
            None => Err(refuse(node, "vectors must be reshaped to matrices")),
        }
    }

    /// The argument of a softmax over the last axis that only this product uses.
    fn attention(&self, a: ValueId) -> Option<ValueId> {
        let (_, softmax) = self
            .producer(a)
            .filter(|(_, node)| node.op == "Softmax" && self.once(a))?;
        let rank = self.shape(a).len();
        let axes = float::softmax_axes(&self.args(softmax), rank).ok()?;
        if axes == [rank.checked_sub(1)?] {
            softmax.input(0)
        } else {
            None
        }
    }

    fn conv(&self, number: usize, node: &OnnxNode) -> Result<Plan, CompileError> {
        let [Some(x), Some(w)] = [node.input(0), node.input(1)] else {
            return Err(refuse(node, "an input is missing"));
        };
        let w = self
            .constant(w)
            .ok_or_else(|| refuse(node, "the kernel must be constant"))?
            .clone();
        let bias = match node.input(2) {
            None => None,
            Some(id) => {
                let bias = self.constant(id).and_then(Tensor::as_floats);
                Some(bias.ok_or_else(|| refuse(node, "the bias must be constant"))?.to_vec())
            }
        };
        Ok(Plan::Conv {
            x,
            node: number,
            w,
            bias,
            clamp: None,
        })
    }

    /// Products and sums with constants: folded into a product below where they can be.
    fn scaled(&self, node: &OnnxNode, output: ValueId) -> Option<Plan> {
        if !matches!(node.op.as_str(), "Add" | "Mul") {
            return None;
        }
        let (x, constant) = self.with_constant(node)?;
        if self.shape(output) != self.shape(x) {
            return None;
        }
        let values = constant.as_floats()?;
        let is_sum = node.op == "Add";
        if self.once(x)
            && let Some((below, inner)) = self.producer(x)
            && matches!(inner.op.as_str(), "MatMul" | "Conv" | "Add" | "Mul")
            && let Ok(plan) = self.below(below, inner, x)
        {
            match plan {
                Plan::Linear {
                    x,
                    w,
                    bias,
                    clamp: None,
                } => {
                    let columns = *w.shape.last()?;
                    if let Some(row) = per_channel(&constant.shape, values, self.shape(output), 0, columns) {
                        let (w, bias) = fold(w, bias, &row, is_sum, |at| at % columns);
                        return Some(Plan::Linear {
                            x,
                            w,
                            bias,
                            clamp: None,
                        });
                    }
                }
                Plan::Conv {
                    x,
                    node,
                    w,
                    bias,
                    clamp: None,
                } => {
                    let channels = *w.shape.first()?;
                    let after = self.shape(output).len().saturating_sub(2);
                    if let Some(row) = per_channel(&constant.shape, values, self.shape(output), after, channels) {
                        let area: usize = w.shape.iter().skip(1).product();
                        let (w, bias) = fold(w, bias, &row, is_sum, |at| at / area.max(1));
                        return Some(Plan::Conv {
                            x,
                            node,
                            w,
                            bias,
                            clamp: None,
                        });
                    }
                }
                Plan::Affine {
                    x,
                    factor,
                    offset: None,
                    clamp: None,
                } if is_sum && values.len() > 1 => {
                    return Some(Plan::Affine {
                        x,
                        factor,
                        offset: Some(constant.clone()),
                        clamp: None,
                    });
                }
                Plan::Sum {
                    terms,
                    constant: None,
                    clamp: None,
                } if is_sum => {
                    return Some(Plan::Sum {
                        terms,
                        constant: Some(constant.clone()),
                        clamp: None,
                    });
                }
                _ => {}
            }
        }
        match values {
            // A number times a tensor changes the tensor's scale; a chain of functions may hold it, too.
            [value] if !is_sum && *value != 0.0 && value.is_finite() && !self.in_chain(output) => Some(Plan::Scale {
                x,
                factor: f64::from(*value),
            }),
            [_] => None,
            _ if is_sum => Some(Plan::Sum {
                terms: vec![(x, 1.0)],
                constant: Some(constant.clone()),
                clamp: None,
            }),
            _ => Some(Plan::Affine {
                x,
                factor: constant.clone(),
                offset: None,
                clamp: None,
            }),
        }
    }

    /// Whether the chain of functions that ends in a value has more in it than one product with a number.
    fn in_chain(&self, output: ValueId) -> bool {
        self.chain(output).is_some_and(|(_, nodes)| nodes.len() > 1)
    }

    fn arithmetic(&self, node: &OnnxNode) -> Result<Plan, CompileError> {
        let [Some(a), Some(b)] = [node.input(0), node.input(1)] else {
            return Err(refuse(node, "an input is missing"));
        };
        if let Some((x, constant)) = self.with_constant(node) {
            let constant = constant.clone();
            return Ok(match node.op.as_str() {
                "Mul" => Plan::Affine {
                    x,
                    factor: constant,
                    offset: None,
                    clamp: None,
                },
                _ => Plan::Sum {
                    terms: vec![(x, 1.0)],
                    constant: Some(constant),
                    clamp: None,
                },
            });
        }
        Ok(match node.op.as_str() {
            "Add" => Plan::Sum {
                terms: vec![(a, 1.0), (b, 1.0)],
                constant: None,
                clamp: None,
            },
            "Sub" => Plan::Sum {
                terms: vec![(a, 1.0), (b, -1.0)],
                constant: None,
                clamp: None,
            },
            _ => Plan::Mul { a, b },
        })
    }

    /// `c * 1 / sqrt(mean(c * c) + epsilon)` with `c = x - mean(x)` or `c = x`.
    fn norm(&self, node: &OnnxNode) -> Option<Plan> {
        if node.op != "Mul" {
            return None;
        }
        let (a, b) = (node.input(0)?, node.input(1)?);
        [(a, b), (b, a)].into_iter().find_map(|(c, inverse)| {
            let (_, reciprocal) = self.producer(inverse).filter(|(_, node)| node.op == "Reciprocal")?;
            let (_, root) = self
                .producer(reciprocal.input(0)?)
                .filter(|(_, node)| node.op == "Sqrt")?;
            let (_, shifted) = self.producer(root.input(0)?).filter(|(_, node)| node.op == "Add")?;
            let (variance, epsilon) = self.with_constant(shifted)?;
            let epsilon = f64::from(epsilon.single()?);
            let (_, mean) = self.producer(variance).filter(|(_, node)| node.op == "ReduceMean")?;
            let square = mean.input(0)?;
            let (_, product) = self.producer(square).filter(|(_, node)| node.op == "Mul")?;
            if product.input(0) != Some(c) || product.input(1) != Some(c) || !float::keeps(&self.args(mean)) {
                return None;
            }
            let rank = self.shape(c).len();
            let axes = float::reduced_axes(&self.args(mean), rank).ok()?;
            let centred = self.producer(c).and_then(|(_, sub)| {
                let x = sub.input(0)?;
                let (_, average) = self
                    .producer(sub.input(1)?)
                    .filter(|(_, node)| node.op == "ReduceMean")?;
                let same = sub.op == "Sub" && average.input(0) == Some(x);
                (same && float::reduced_axes(&self.args(average), rank).ok()? == axes).then_some(x)
            });
            Some(match centred {
                Some(x) => Plan::Norm {
                    x,
                    centred: true,
                    axes,
                    epsilon,
                    variance,
                },
                None => Plan::Norm {
                    x: c,
                    centred: false,
                    axes,
                    epsilon,
                    variance,
                },
            })
        })
    }

    /// The nodes that compute a value from a single other value, element by element with constant numbers, and that
    /// value: the farthest one.
    fn chain(&self, output: ValueId) -> Option<(ValueId, Vec<usize>)> {
        let shape = self.shape(output);
        let mut frontier: BTreeSet<ValueId> = BTreeSet::from([output]);
        let mut nodes: Vec<usize> = Vec::new();
        let mut best: Option<(ValueId, usize)> = None;
        while nodes.len() < MAX_CHAIN {
            // The value that is made last can only be replaced by what it is made from.
            let latest = frontier
                .iter()
                .filter_map(|id| Some((self.flat.producers.get(id)?, id)))
                .max()?;
            let (at, id) = (*latest.0, *latest.1);
            let Some(sources) = self
                .flat
                .model
                .nodes
                .get(at)
                .and_then(|node| self.pointwise(node, shape))
            else {
                break;
            };
            frontier.remove(&id);
            nodes.push(at);
            frontier.extend(sources);
            if frontier.len() == 1 {
                best = frontier.first().map(|root| (*root, nodes.len()));
            }
            if frontier.iter().all(|id| !self.flat.producers.contains_key(id)) {
                break;
            }
        }
        let (root, length) = best?;
        nodes.truncate(length);
        nodes.sort_unstable();
        Some((root, nodes))
    }

    /// The computed inputs of a node that works element by element with constant numbers beside.
    fn pointwise(&self, node: &OnnxNode, shape: &[usize]) -> Option<Vec<ValueId>> {
        let known = float::is_unary(&node.op)
            || matches!(
                node.op.as_str(),
                "Add" | "Sub" | "Mul" | "Pow" | "Clip" | "Min" | "Max" | "PRelu"
            );
        if !known || self.norm(node).is_some() {
            return None;
        }
        let mut sources = Vec::new();
        for id in node.inputs.iter().flatten() {
            match self.constant(*id) {
                Some(tensor) => {
                    tensor.single()?;
                }
                None if self.shape(*id) == shape => sources.push(*id),
                None => return None,
            }
        }
        (!sources.is_empty()).then_some(sources)
    }
}

/// A constant as one number per channel, `after` dimensions following the channels in the result.
fn per_channel(shape: &[usize], values: &[f32], result: &[usize], after: usize, channels: usize) -> Option<Vec<f32>> {
    if values.iter().any(|value| !value.is_finite()) {
        return None;
    }
    if let [value] = values {
        return Some(vec![*value; channels]);
    }
    let at = result.len().checked_sub(after + 1)?;
    let missing = result.len().checked_sub(shape.len())?;
    let fits = shape
        .iter()
        .enumerate()
        .all(|(i, dim)| if i + missing == at { *dim == channels } else { *dim == 1 });
    (fits && values.len() == channels).then(|| values.to_vec())
}

/// Weights and bias of a product that a sum or product per channel follows.
fn fold(
    mut w: Tensor,
    bias: Option<Vec<f32>>,
    row: &[f32],
    is_sum: bool,
    channel: impl Fn(usize) -> usize,
) -> (Tensor, Option<Vec<f32>>) {
    if is_sum {
        let bias = match bias {
            None => row.to_vec(),
            Some(bias) => bias.iter().zip(row).map(|(bias, value)| bias + value).collect(),
        };
        return (w, Some(bias));
    }
    if let Data::Float(values) = &mut w.data {
        for (at, value) in values.iter_mut().enumerate() {
            *value *= row.get(channel(at)).copied().unwrap_or(1.0);
        }
    }
    let bias = bias.map(|bias| bias.iter().zip(row).map(|(bias, value)| bias * value).collect());
    (w, bias)
}
