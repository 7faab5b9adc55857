//! Appends checked nodes, constants and tables to a program, and the arithmetic of scales.

use super::CompileError;
use crate::{
    constant::{ConstantData, Weights},
    derive::derive,
    program::{ACC_LIMIT, ConstantType, Graph, MAX_SHIFT, Node, Op, Operand, OperandType, Shift, Table},
    range::Range,
    view::ViewMap,
};

/// A program under construction.
pub(super) struct Emitter {
    pub(super) graph: Graph,
    pub(super) weights: Weights,
    /// Name of the ONNX node that is being lowered.
    pub(super) name: String,
}

/// A tensor of the program with the real value of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scaled {
    pub(super) operand: Operand,
    pub(super) scale: f64,
}

/// Integers that a real range becomes: scale, least and greatest integer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Target {
    pub(super) scale: f64,
    pub(super) lo: i64,
    pub(super) hi: i64,
}

/// `i64` of a real number that is known to be small.
pub(super) fn round(value: f64) -> i64 {
    value.round_ties_even().clamp(-1e15, 1e15) as i64
}

pub(super) fn narrow(value: i64) -> i32 {
    i32::try_from(value).unwrap_or(if value < 0 { i32::MIN } else { i32::MAX })
}

impl Emitter {
    pub(super) fn refuse(&self, op: &str, reason: impl Into<String>) -> CompileError {
        CompileError::Node {
            node: self.name.clone(),
            op: op.to_owned(),
            reason: reason.into(),
        }
    }

    pub(super) fn ty(&self, operand: Operand) -> Result<OperandType<'_>, CompileError> {
        self.graph
            .operand(operand)
            .ok_or_else(|| self.refuse("operand", "an operand is missing"))
    }

    pub(super) fn shape(&self, operand: Operand) -> Result<Vec<usize>, CompileError> {
        Ok(self.ty(operand)?.shape.to_vec())
    }

    pub(super) fn range(&self, operand: Operand) -> Result<Range, CompileError> {
        Ok(self.ty(operand)?.range)
    }

    /// Appends a node whose shape follows from its operands.
    pub(super) fn push(&mut self, op: Op) -> Result<Operand, CompileError> {
        self.push_shaped(op, &[])
    }

    /// Appends a node; `shape` matters for views only.
    pub(super) fn push_shaped(&mut self, op: Op, shape: &[usize]) -> Result<Operand, CompileError> {
        let before = self.graph.nodes.len();
        let derived = derive(&self.graph, Some(&self.weights), before, &self.name, &op, shape)?;
        self.graph.nodes.push(Node {
            name: self.name.clone(),
            op,
            ty: derived.ty,
        });
        Ok(Operand::Node(u32::try_from(before).unwrap_or(u32::MAX)))
    }

    pub(super) fn view(&mut self, x: Operand, map: ViewMap, shape: &[usize]) -> Result<Operand, CompileError> {
        let same = self.shape(x)? == shape;
        if same && matches!(map, ViewMap::Reshape | ViewMap::Broadcast) {
            return Ok(x);
        }
        self.push_shaped(Op::View { sources: vec![x], map }, shape)
    }

    pub(super) fn constant(&mut self, name: &str, shape: &[usize], values: &[i64]) -> Result<Operand, CompileError> {
        let data = ConstantData::pack(values)
            .ok_or_else(|| self.refuse("constant", "a constant is empty or has more than 32 bits"))?;
        let range = data.range().unwrap_or(Range::point(0));
        let ty = ConstantType {
            name: name.chars().take(60).collect(),
            shape: shape.to_vec(),
            width: data.width(),
            range,
        };
        self.graph.constants.push(ty);
        self.weights.constants.push(data);
        Ok(Operand::Constant(
            u32::try_from(self.graph.constants.len() - 1).unwrap_or(u32::MAX),
        ))
    }

    /// Looks `x` up in a table of `function` over its range.
    pub(super) fn table(
        &mut self,
        name: &str,
        x: Operand,
        function: impl Fn(i64) -> i64,
    ) -> Result<Operand, CompileError> {
        let range = self.range(x)?;
        let values: Vec<i32> = (range.lo..=range.hi).map(|value| narrow(function(value))).collect();
        let table = Table {
            name: name.to_owned(),
            first: narrow(range.lo),
            values,
        };
        let at = self
            .graph
            .tables
            .iter()
            .position(|other| other.first == table.first && other.values == table.values);
        let at = at.unwrap_or_else(|| {
            self.graph.tables.push(table);
            self.graph.tables.len() - 1
        });
        self.push(Op::Table {
            x,
            table: u32::try_from(at).unwrap_or(u32::MAX),
        })
    }

    /// `x` with the scale of `target` or a slightly different one that is reached without rounding a factor: the
    /// factor between the scales becomes `multiplier / 2^shift` exactly.
    pub(super) fn rescale(&mut self, x: Scaled, target: Target) -> Result<Scaled, CompileError> {
        let range = self.range(x.operand)?;
        let ratio = x.scale / target.scale;
        let magnitude = range.magnitude().max(1) as f64;
        let (mut multiplier, mut shift) = (1i64, 0u8);
        if ratio < 1.0 {
            for k in 0..=MAX_SHIFT {
                let power = f64::from(1u32 << k);
                let m = round(ratio * power);
                let fits = magnitude * m as f64 + power <= ACC_LIMIT as f64;
                if (1..=4_096).contains(&m) && fits {
                    (multiplier, shift) = (m, k);
                }
            }
            if shift == 0 {
                // The accumulator is too wide for a factor: a power of two that does not clip.
                while shift < MAX_SHIFT && ratio * f64::from(1u32 << shift) < 1.0 {
                    shift += 1;
                }
            }
        }
        let scale = x.scale * f64::from(1u32 << shift) / multiplier as f64;
        let operand = if multiplier == 1 {
            x.operand
        } else {
            self.push(Op::Sum {
                terms: vec![(x.operand, narrow(multiplier))],
            })?
        };
        let operand = self.push(Op::Requant {
            x: operand,
            shift: Shift::Tensor(shift),
            lo: narrow(target.lo),
            hi: narrow(target.hi),
        })?;
        Ok(Scaled { operand, scale })
    }
}

/// Quantised weights of a product.
pub(super) struct Product {
    pub(super) weights: Vec<i64>,
    pub(super) bias: Vec<i64>,
    pub(super) shifts: Vec<u8>,
    /// Scale of the result after the shifts.
    pub(super) scale: f64,
}

/// What a product is quantised for.
pub(super) struct Fit {
    /// Real value of one step of the operand.
    pub(super) x_scale: f64,
    /// Greatest absolute value that the weights meet.
    pub(super) x_max: f64,
    /// Power of two that the operand was divided by.
    pub(super) x_shift: u8,
    /// Real value of one step of the result, at least.
    pub(super) scale: f64,
    /// Greatest absolute weight.
    pub(super) w_max: f64,
    /// Part of the accumulator's range that may be used.
    pub(super) room: f64,
    /// One shift for all channels.
    pub(super) uniform: bool,
}

/// Chooses a power of two for every output channel and rounds the weights: `w_q = round(w * x_scale / scale * 2^s)`
/// with the greatest `s` for which weights and accumulator fit. `channel` gives the channel of a weight.
pub(super) fn quantise_product(
    weights: &[f32],
    bias: Option<&[f32]>,
    channels: usize,
    channel: impl Fn(usize) -> usize,
    fit: &Fit,
) -> Option<Product> {
    let mut most = vec![0f64; channels];
    let mut sums = vec![0f64; channels];
    let mut counts = vec![0f64; channels];
    for (at, weight) in weights.iter().enumerate() {
        let o = channel(at);
        let size = f64::from(*weight).abs();
        *most.get_mut(o)? = most.get(o)?.max(size);
        *sums.get_mut(o)? += size;
        *counts.get_mut(o)? += 1.0;
    }
    let mut scale = fit.scale;
    for _ in 0..80 {
        let factor = fit.x_scale / scale;
        let greatest = |o: usize| -> Option<u8> {
            let (most, sum, count) = (most.get(o)? * factor, sums.get(o)? * factor, *counts.get(o)?);
            let bias = bias
                .and_then(|bias| bias.get(o))
                .map_or(0.0, |bias| f64::from(*bias).abs() / scale);
            (fit.x_shift..=24 + fit.x_shift).rev().find(|s| {
                let power = 2f64.powi(i32::from(*s));
                let after = 2f64.powi(i32::from(*s - fit.x_shift));
                most * power <= fit.w_max + 0.499
                    && (sum * power + 0.5 * count) * fit.x_max + (bias + 1.0) * after <= fit.room
            })
        };
        let shifts: Option<Vec<u8>> = (0..channels).map(greatest).collect();
        let Some(mut shifts) = shifts else {
            scale *= 2.0;
            continue;
        };
        if fit.uniform {
            let least = shifts.iter().copied().min()?;
            shifts.fill(least);
        }
        let power = |o: usize| shifts.get(o).map_or(1.0, |s| 2f64.powi(i32::from(*s)));
        let values = weights
            .iter()
            .enumerate()
            .map(|(at, w)| round(f64::from(*w) * factor * power(channel(at))))
            .collect();
        let after = |o: usize| power(o) / 2f64.powi(i32::from(fit.x_shift));
        let bias = bias
            .unwrap_or_default()
            .iter()
            .enumerate()
            .map(|(o, b)| round(f64::from(*b) / scale * after(o)))
            .collect();
        let shifts = shifts.iter().map(|s| s - fit.x_shift).collect();
        return Some(Product {
            weights: values,
            bias,
            shifts,
            scale,
        });
    }
    None
}
