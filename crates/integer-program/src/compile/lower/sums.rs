//! Sums and element-wise products.

use super::Lower;
use crate::{
    compile::{
        CompileError,
        emit::{Scaled, narrow, round},
    },
    onnx::ValueId,
    program::{ACC_LIMIT, Op, Operand, Shift},
    tensor::Tensor,
    view::ViewMap,
};

/// Greatest factor of a term: enough that its rounding does not show beside 8 or 16 bits.
const MAX_FACTOR: f64 = 16_384.0;

impl Lower<'_> {
    pub(super) fn sum(
        &mut self,
        id: ValueId,
        terms: &[(ValueId, f64)],
        constant: Option<&Tensor>,
        clamp: Option<(f64, f64)>,
    ) -> Result<Scaled, CompileError> {
        let target = self.target(id, clamp);
        let mut parts = Vec::with_capacity(terms.len());
        for (id, sign) in terms {
            let value = self.act(*id)?;
            let magnitude = self.out.range(value.operand)?.magnitude().max(1) as f64;
            parts.push((value.operand, value.scale / target.scale * sign, magnitude));
        }
        // Values of the constant beyond the result's range only need to saturate it.
        let reach = (target.hi - target.lo) as f64 * 4.0 + 1.0;
        let widest = constant.and_then(Tensor::as_floats).map_or(0.0, |values| {
            values
                .iter()
                .fold(0f64, |most, value| most.max(f64::from(*value).abs()))
                / target.scale
        });
        let widest = widest.min(reach);
        let shift = (0..=20u8).rev().find(|shift| {
            let power = f64::from(1u32 << shift);
            let total: f64 = parts
                .iter()
                .map(|(_, ratio, magnitude)| (ratio.abs() * power + 1.0) * magnitude)
                .sum();
            let most = parts.iter().fold(0f64, |most, (_, ratio, _)| most.max(ratio.abs()));
            total + (widest + 1.0) * power <= ACC_LIMIT as f64 && (*shift == 0 || most * power <= MAX_FACTOR)
        });
        let Some(shift) = shift else {
            return Err(self
                .out
                .refuse("Add", "the terms have too different scales to be added in 30 bits"));
        };
        let power = f64::from(1u32 << shift);
        let mut sum: Vec<(Operand, i32)> = parts
            .iter()
            .map(|(operand, ratio, _)| (*operand, narrow(round(ratio * power))))
            .filter(|(_, m)| *m != 0)
            .collect();
        if sum.is_empty() {
            return Err(self
                .out
                .refuse("Add", "all terms vanish beside the range of the result"));
        }
        if let Some(constant) = constant {
            let name = format!("{}.constant", self.out.name);
            sum.push((self.quantised(&name, constant, target.scale / power, reach * power)?, 1));
        }
        let operand = self.out.push(Op::Sum { terms: sum })?;
        let shape = self.shape(id)?;
        let operand = self.out.view(operand, ViewMap::Broadcast, &shape)?;
        let op = Op::Requant {
            x: operand,
            shift: Shift::Tensor(shift),
            lo: narrow(target.lo),
            hi: narrow(target.hi),
        };
        Ok(Scaled {
            operand: self.out.push(op)?,
            scale: target.scale,
        })
    }

    /// Product with a constant: an accumulator.
    pub(super) fn multiply(&mut self, x: Scaled, factor: &Tensor) -> Result<Scaled, CompileError> {
        let values = factor.as_floats().unwrap_or_default();
        let most = values
            .iter()
            .fold(0f64, |most, value| most.max(f64::from(*value).abs()))
            .max(1e-30);
        let magnitude = self.out.range(x.operand)?.magnitude().max(1);
        let limit = (ACC_LIMIT / 4 / magnitude).clamp(1, 32_767) as f64;
        let scale = most / limit;
        let name = format!("{}.factor", self.out.name);
        let b = self.quantised(&name, factor, scale, limit)?;
        let operand = self.out.push(Op::Mul { a: x.operand, b })?;
        Ok(Scaled {
            operand,
            scale: x.scale * scale,
        })
    }

    pub(super) fn affine(
        &mut self,
        id: ValueId,
        x: ValueId,
        factor: &Tensor,
        offset: Option<&Tensor>,
        clamp: Option<(f64, f64)>,
    ) -> Result<Scaled, CompileError> {
        let x = self.act(x)?;
        let mut y = self.multiply(x, factor)?;
        if let Some(offset) = offset {
            let name = format!("{}.offset", self.out.name);
            let constant = self.quantised(&name, offset, y.scale, (ACC_LIMIT / 2) as f64)?;
            y.operand = self.out.push(Op::Sum {
                terms: vec![(y.operand, 1), (constant, 1)],
            })?;
        }
        let target = self.target(id, clamp);
        self.out.rescale(y, target)
    }

    /// Product of two computed tensors: an accumulator.
    pub(super) fn mul(&mut self, a: ValueId, b: ValueId) -> Result<Scaled, CompileError> {
        let (a, b) = (self.act(a)?, self.act(b)?);
        let a = self.at_most(a, 16_384)?;
        let b = self.at_most(b, 16_384)?;
        let operand = self.out.push(Op::Mul {
            a: a.operand,
            b: b.operand,
        })?;
        Ok(Scaled {
            operand,
            scale: a.scale * b.scale,
        })
    }
}
