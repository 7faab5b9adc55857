//! Turns plans into nodes of the program, one value after the other.

mod moves;
mod normalise;
mod products;
mod sums;

use super::{
    CompileError, Profile,
    calibrate::Seen,
    emit::{Emitter, Scaled, Target, narrow, round},
    flat::Flat,
    plan::{Fineness, Plan, Reduction, Schedule},
};
use crate::{
    float::{self, Args},
    onnx::{OnnxNode, ValueId},
    program::{Op, Operand, Shift, Sort},
    tensor::Tensor,
    view::ViewMap,
};
use std::collections::BTreeMap;

/// Most elements of an output that is requantised finely; larger ones stay accumulators with one scale.
const MAX_FINE_OUTPUT: usize = 4_096;

/// State of the lowering.
pub(super) struct Lower<'a> {
    pub(super) flat: &'a Flat,
    pub(super) seen: &'a BTreeMap<ValueId, Seen>,
    pub(super) profile: Profile,
    pub(super) out: Emitter,
    pub(super) values: BTreeMap<ValueId, Scaled>,
    pub(super) fineness: BTreeMap<ValueId, Fineness>,
    /// Limbs of wide activations that were split before.
    limbs: BTreeMap<Operand, (Operand, Operand)>,
}

impl<'a> Lower<'a> {
    pub(super) fn new(
        flat: &'a Flat,
        seen: &'a BTreeMap<ValueId, Seen>,
        profile: Profile,
        out: Emitter,
        values: BTreeMap<ValueId, Scaled>,
    ) -> Self {
        Self {
            flat,
            seen,
            profile,
            out,
            values,
            fineness: BTreeMap::new(),
            limbs: BTreeMap::new(),
        }
    }

    /// Lowers everything that is scheduled.
    pub(super) fn run(&mut self, schedule: Schedule) -> Result<(), CompileError> {
        self.fineness = schedule.fineness;
        for (id, plan) in &schedule.plans {
            if let Some(node) = self
                .flat
                .producers
                .get(id)
                .and_then(|number| self.flat.model.nodes.get(*number))
            {
                self.out.name.clone_from(&node.name);
            }
            let value = self.plan(*id, plan)?;
            self.values.insert(*id, value);
        }
        Ok(())
    }

    fn plan(&mut self, id: ValueId, plan: &Plan) -> Result<Scaled, CompileError> {
        match plan {
            Plan::Linear { x, w, bias, clamp } => self.linear(id, *x, w, bias.as_deref(), *clamp),
            Plan::Conv {
                x,
                node,
                w,
                bias,
                clamp,
            } => self.conv(id, *x, *node, w, bias.as_deref(), *clamp),
            Plan::MatMul { a, b } => self.matmul(*a, *b),
            Plan::Sum { terms, constant, clamp } => self.sum(id, terms, constant.as_ref(), *clamp),
            Plan::Affine {
                x,
                factor,
                offset,
                clamp,
            } => self.affine(id, *x, factor, offset.as_ref(), *clamp),
            Plan::Scale { x, factor } => self.scale(*x, *factor),
            Plan::Mul { a, b } => self.mul(*a, *b),
            Plan::Norm {
                x,
                centred,
                axes,
                epsilon,
                variance,
            } => self.norm(*x, *centred, axes, *epsilon, *variance),
            Plan::Attend { x, v, output } => self.attend(*x, *v, *output),
            Plan::Softmax { x, axes } => self.softmax(id, *x, axes),
            Plan::Unary { root, nodes } => self.unary(id, *root, nodes),
            Plan::Clamp { x, lo, hi } => self.clamp(id, *x, *lo, *hi),
            Plan::MaxPool { x, node } => self.max_pool(id, *x, *node),
            Plan::AveragePool { x, node } => self.average_pool(id, *x, *node),
            Plan::Reduce { x, axes, kind } => self.reduce(id, *x, axes, *kind),
            Plan::Reshape { x } => {
                let x = self.value(*x)?;
                let shape = self.shape(id)?;
                let operand = self.out.view(x.operand, ViewMap::Reshape, &shape)?;
                Ok(Scaled {
                    operand,
                    scale: x.scale,
                })
            }
            Plan::Move { x, node, part } => self.rearrange(id, *x, *node, *part),
            Plan::Concat { node, axis } => self.concat(id, *node, *axis),
            Plan::Embedding { table, indices } => self.embedding(id, *table, *indices),
        }
    }

    fn node(&self, number: usize) -> Result<&'a OnnxNode, CompileError> {
        let node = self.flat.model.nodes.get(number);
        node.ok_or_else(|| self.out.refuse("node", "a node is missing"))
    }

    fn args(&self, node: &'a OnnxNode) -> Args<'a> {
        let constants = &self.flat.model.constants;
        let tensors = node
            .inputs
            .iter()
            .map(|id| id.and_then(|id| constants.get(&id)))
            .collect();
        Args {
            node,
            opset: self.flat.model.opset,
            tensors,
        }
    }

    fn shape(&self, id: ValueId) -> Result<Vec<usize>, CompileError> {
        let shape = self.flat.shapes.get(&id).cloned();
        shape.ok_or_else(|| self.out.refuse("shape", "the shape of a value is not known"))
    }

    pub(super) fn value(&self, id: ValueId) -> Result<Scaled, CompileError> {
        let name = self.flat.model.name(id);
        let value = self.values.get(&id).copied();
        value.ok_or_else(|| {
            self.out
                .refuse("value", format!("{name:?} is not a real-valued tensor of the model"))
        })
    }

    fn fine(&self, id: ValueId) -> Fineness {
        self.fineness.get(&id).copied().unwrap_or(Fineness::Normal)
    }

    /// Greatest absolute integer of a signed activation.
    fn greatest(&self, id: ValueId) -> i64 {
        match (self.profile, self.fine(id)) {
            (Profile::Int8, Fineness::Normal) => 127,
            (Profile::Int8, Fineness::Logits) => 2_047,
            (Profile::Int16, _) | (_, Fineness::Output) => 32_767,
        }
    }

    /// Integers for the values that calibration saw.
    fn target(&self, id: ValueId, clamp: Option<(f64, f64)>) -> Target {
        let seen = self.seen.get(&id).copied().unwrap_or(Seen {
            lo: -1.0,
            hi: 1.0,
            masked: false,
        });
        let (lo, hi) = if seen.lo <= seen.hi {
            (seen.lo, seen.hi)
        } else {
            (-1.0, 1.0)
        };
        let greatest = self.greatest(id);
        // A result is never clipped for a request somewhat larger than the samples.
        let room = match (self.fine(id), self.profile) {
            (Fineness::Output, _) => 2.0,
            (_, Profile::Int16) => 1.25,
            _ => 1.0,
        };
        let positive = clamp.is_some_and(|(lo, _)| lo >= 0.0);
        let mut size = (if positive { hi } else { lo.abs().max(hi.abs()) }) * room;
        if seen.masked {
            // Masked arguments of a softmax become the least integer: 16 below the least that counts.
            size = lo.abs().max(hi.abs()) + 16.0;
        }
        let size = size.max(1e-6);
        let (least, most) = if positive {
            (0, greatest * 2 + 1)
        } else {
            (-greatest, greatest)
        };
        let scale = size / most as f64;
        let bound = |value: f64| round((value / scale).clamp(least as f64, most as f64));
        match clamp {
            Some((lo, hi)) => Target {
                scale,
                lo: bound(lo),
                hi: bound(hi),
            },
            None => Target {
                scale,
                lo: least,
                hi: most,
            },
        }
    }

    /// A value as an activation; an accumulator is requantised to what calibration saw, once.
    fn act(&mut self, id: ValueId) -> Result<Scaled, CompileError> {
        let value = self.value(id)?;
        if self.out.ty(value.operand)?.sort == Some(Sort::Act) {
            return Ok(value);
        }
        let target = self.target(id, None);
        let value = self.out.rescale(value, target)?;
        self.values.insert(id, value);
        Ok(value)
    }

    /// An activation no wider than `most` in absolute value.
    fn at_most(&mut self, x: Scaled, most: i64) -> Result<Scaled, CompileError> {
        let magnitude = self.out.range(x.operand)?.magnitude();
        if magnitude <= most {
            return Ok(x);
        }
        let scale = x.scale * magnitude as f64 / most as f64;
        self.out.rescale(
            x,
            Target {
                scale,
                lo: -most,
                hi: most,
            },
        )
    }

    fn scale(&mut self, x: ValueId, factor: f64) -> Result<Scaled, CompileError> {
        let x = self.value(x)?;
        if factor > 0.0 {
            return Ok(Scaled {
                operand: x.operand,
                scale: x.scale * factor,
            });
        }
        let operand = self.out.push(Op::Sum {
            terms: vec![(x.operand, -1)],
        })?;
        Ok(Scaled {
            operand,
            scale: x.scale * -factor,
        })
    }

    /// A table of the nodes' function over all integers of the root.
    fn unary(&mut self, id: ValueId, root: ValueId, nodes: &[usize]) -> Result<Scaled, CompileError> {
        let x = self.act(root)?;
        let range = self.out.range(x.operand)?;
        let grid: Vec<f32> = (range.lo..=range.hi).map(|q| (q as f64 * x.scale) as f32).collect();
        let size = grid.len();
        let mut known = BTreeMap::from([(root, Tensor::floats(vec![size], grid))]);
        let mut last: Option<Vec<f32>> = None;
        for number in nodes {
            let node = self.node(*number)?;
            let scalar = |id: &ValueId| {
                self.flat
                    .model
                    .constants
                    .get(id)
                    .and_then(Tensor::single)
                    .map(Tensor::scalar)
            };
            let constants: Vec<Option<Tensor>> = node
                .inputs
                .iter()
                .map(|id| id.as_ref().filter(|id| !known.contains_key(id)).and_then(scalar))
                .collect();
            let tensors = node
                .inputs
                .iter()
                .zip(&constants)
                .map(|(id, constant)| constant.as_ref().or_else(|| id.and_then(|id| known.get(&id))))
                .collect();
            let results = float::evaluate(&Args {
                node,
                opset: self.flat.model.opset,
                tensors,
            })
            .map_err(|reason| super::flat::refuse(node, reason))?;
            let tensor = results
                .into_iter()
                .next()
                .ok_or_else(|| super::flat::refuse(node, "it has no result"))?;
            last = tensor.as_floats().map(<[f32]>::to_vec);
            if let Some(output) = node.output() {
                known.insert(output, tensor);
            }
        }
        let values = last.filter(|values| values.len() == size);
        let values = values.ok_or_else(|| self.out.refuse("table", "the function is not one of single elements"))?;
        let positive = values.iter().all(|value| *value >= 0.0 || value.is_nan());
        let target = self.target(id, positive.then_some((0.0, f64::INFINITY)));
        let name: Vec<&str> = nodes
            .iter()
            .filter_map(|at| self.flat.model.nodes.get(*at))
            .map(|n| n.op.as_str())
            .collect();
        let name: String = name.join(" ").chars().take(60).collect();
        let operand = self.out.table(&name, x.operand, |q| {
            let value = usize::try_from(q - range.lo)
                .ok()
                .and_then(|at| values.get(at))
                .copied()
                .unwrap_or(0.0);
            let value = if value.is_nan() { 0.0 } else { f64::from(value) };
            round((value / target.scale).clamp(target.lo as f64, target.hi as f64))
        })?;
        Ok(Scaled {
            operand,
            scale: target.scale,
        })
    }

    fn clamp(&mut self, id: ValueId, x: ValueId, lo: f64, hi: f64) -> Result<Scaled, CompileError> {
        let value = self.value(x)?;
        if self.out.ty(value.operand)?.sort != Some(Sort::Act) {
            let target = self.target(id, Some((lo, hi)));
            return self.out.rescale(value, target);
        }
        let range = self.out.range(value.operand)?;
        let bound = |real: f64| round((real / value.scale).clamp(range.lo as f64, range.hi as f64));
        let (lo, hi) = (bound(lo), bound(hi));
        let op = Op::Requant {
            x: value.operand,
            shift: Shift::Tensor(0),
            lo: narrow(lo),
            hi: narrow(hi.max(lo)),
        };
        Ok(Scaled {
            operand: self.out.push(op)?,
            scale: value.scale,
        })
    }

    fn reduce(&mut self, id: ValueId, x: ValueId, axes: &[usize], kind: Reduction) -> Result<Scaled, CompileError> {
        let x = self.act(x)?;
        let shape = self.out.shape(x.operand)?;
        let bytes: Vec<u8> = axes.iter().map(|axis| u8::try_from(*axis).unwrap_or(u8::MAX)).collect();
        let count: usize = axes.iter().map(|axis| shape.get(*axis).copied().unwrap_or(1)).product();
        let op = match kind {
            Reduction::Max => Op::ReduceMax {
                x: x.operand,
                axes: bytes,
            },
            Reduction::Sum | Reduction::Mean => Op::ReduceSum {
                x: x.operand,
                axes: bytes,
            },
        };
        let reduced = self.out.push(op)?;
        let target = self.shape(id)?;
        let operand = self.out.view(reduced, ViewMap::Reshape, &target)?;
        let scale = if kind == Reduction::Mean {
            x.scale / count as f64
        } else {
            x.scale
        };
        Ok(Scaled { operand, scale })
    }

    /// A real constant as integers for a scale, within `limit`.
    fn quantised(&mut self, name: &str, tensor: &Tensor, scale: f64, limit: f64) -> Result<Operand, CompileError> {
        let values = tensor
            .as_floats()
            .ok_or_else(|| self.out.refuse("constant", "a constant is not float32"))?;
        let values: Vec<i64> = values
            .iter()
            .map(|value| round((f64::from(*value) / scale).clamp(-limit, limit)))
            .collect();
        self.out.constant(name, &tensor.shape, &values)
    }
}
