//! Matrix products and convolutions.

use super::{Lower, MAX_FINE_OUTPUT};
use crate::{
    compile::{
        CompileError, Profile,
        emit::{Fit, Product, Scaled, Target, narrow, quantise_product},
        plan::Fineness,
    },
    float,
    onnx::ValueId,
    program::{ACC_LIMIT, Op, Operand, Shift, Window},
    shape::broadcast,
    tensor::Tensor,
    view::ViewMap,
};

/// Widest activation that is multiplied in one piece; wider ones are split into two limbs of 8 bits.
const MAX_WHOLE: i64 = 2_048;

/// A product with constants, up to the choice of operation.
struct Kernel<'k> {
    shape: Vec<usize>,
    weights: &'k [f32],
    bias: Option<&'k [f32]>,
    channels: usize,
    /// Dimension of the result that counts the channels.
    axis: usize,
}

impl Lower<'_> {
    pub(super) fn linear(
        &mut self,
        id: ValueId,
        x: ValueId,
        w: &Tensor,
        bias: Option<&[f32]>,
        clamp: Option<(f64, f64)>,
    ) -> Result<Scaled, CompileError> {
        let x = self.act(x)?;
        let weights = w
            .as_floats()
            .ok_or_else(|| self.out.refuse("MatMul", "the weights are not float32"))?;
        let channels = w.shape.last().copied().unwrap_or(1).max(1);
        let rank = self.out.shape(x.operand)?.len();
        let kernel = Kernel {
            shape: w.shape.clone(),
            weights,
            bias,
            channels,
            axis: rank.saturating_sub(1),
        };
        self.product(
            id,
            x,
            &kernel,
            |at| at % channels,
            clamp,
            |x, w, bias| Op::MatMul { x, w, bias },
        )
    }

    pub(super) fn conv(
        &mut self,
        id: ValueId,
        x: ValueId,
        number: usize,
        w: &Tensor,
        bias: Option<&[f32]>,
        clamp: Option<(f64, f64)>,
    ) -> Result<Scaled, CompileError> {
        let node = self.node(number)?;
        let refuse = |reason| crate::compile::flat::refuse(node, reason);
        let x = self.act(x)?;
        let (image, flat) = float::image(&self.out.shape(x.operand)?).map_err(refuse)?;
        let (kernel, _) = float::image(&w.shape).map_err(refuse)?;
        let [_, _, height, width] = image;
        let [channels, _, rows, columns] = kernel;
        let window = float::window(node, [height, width], [rows, columns], flat).map_err(refuse)?;
        let groups = u32::try_from(node.int("group").unwrap_or(1)).unwrap_or(0);
        let operand = self.out.view(x.operand, ViewMap::Reshape, &image)?;
        let x = Scaled {
            operand,
            scale: x.scale,
        };
        let weights = w
            .as_floats()
            .ok_or_else(|| self.out.refuse("Conv", "the kernel is not float32"))?;
        let area = (weights.len() / channels.max(1)).max(1);
        let kernel = Kernel {
            shape: kernel.to_vec(),
            weights,
            bias,
            channels,
            axis: 1,
        };
        let make = |x, w, bias| Op::Conv {
            x,
            w,
            bias,
            window,
            groups,
        };
        let y = self.product(id, x, &kernel, |at| at / area, clamp, make)?;
        let shape = self.shape(id)?;
        let operand = self.out.view(y.operand, ViewMap::Reshape, &shape)?;
        Ok(Scaled {
            operand,
            scale: y.scale,
        })
    }

    fn product(
        &mut self,
        id: ValueId,
        x: Scaled,
        kernel: &Kernel<'_>,
        channel: impl Fn(usize) -> usize,
        clamp: Option<(f64, f64)>,
        make: impl Fn(Operand, Operand, Option<Operand>) -> Op,
    ) -> Result<Scaled, CompileError> {
        let target = self.target(id, clamp);
        let magnitude = self.out.range(x.operand)?.magnitude();
        let limbs = magnitude > MAX_WHOLE;
        let elements: usize = self.shape(id)?.iter().product();
        // Large results stay accumulators: one scale, nothing committed.
        let uniform = clamp.is_none() && self.fine(id) == Fineness::Output && elements > MAX_FINE_OUTPUT;
        let fit = Fit {
            x_scale: x.scale,
            x_max: if limbs { 256.0 } else { magnitude.max(1) as f64 },
            x_shift: if limbs { 8 } else { 0 },
            scale: target.scale,
            w_max: if self.profile == Profile::Int16 || limbs {
                32_767.0
            } else {
                127.0
            },
            room: ACC_LIMIT as f64 * 0.98,
            uniform,
        };
        let fitted = quantise_product(kernel.weights, kernel.bias, kernel.channels, channel, &fit);
        let Some(Product {
            weights,
            bias,
            shifts,
            scale,
        }) = fitted
        else {
            return Err(self.out.refuse(
                "MatMul",
                "the weights are too large for a 30-bit accumulator: normalise the weights or the input",
            ));
        };
        let name = self.out.name.clone();
        let w = self.out.constant(&format!("{name}.weight"), &kernel.shape, &weights)?;
        let bias = if bias.iter().all(|value| *value == 0) {
            None
        } else {
            Some(self.out.constant(&format!("{name}.bias"), &[kernel.channels], &bias)?)
        };
        let sum = if limbs {
            let (high, low) = self.split(x.operand)?;
            let high = self.out.push(make(high, w, bias))?;
            let low = self.out.push(make(low, w, None))?;
            // The low product counts in 256ths of the high one; what is below 2^extra is rounded off so that it fits
            // an activation.
            let reach = self.out.range(low)?.magnitude();
            let extra = (0..=12u8).find(|extra| (reach >> (8 + extra)) < 32_767).unwrap_or(12);
            let op = Op::Requant {
                x: low,
                shift: Shift::Tensor(8 + extra),
                lo: -32_768,
                hi: 32_767,
            };
            let low = self.out.push(op)?;
            self.out.push(Op::Sum {
                terms: vec![(high, 1), (low, 1 << extra)],
            })?
        } else {
            self.out.push(make(x.operand, w, bias))?
        };
        if uniform {
            let shift = shifts.first().copied().unwrap_or(0);
            return Ok(Scaled {
                operand: sum,
                scale: scale / f64::from(1u32 << shift.min(31)),
            });
        }
        let same = shifts.windows(2).all(|pair| matches!(pair, [a, b] if a == b));
        let shift = match (same, shifts.first()) {
            (true, Some(shift)) => Shift::Tensor(*shift),
            _ => Shift::Axis {
                axis: u8::try_from(kernel.axis).unwrap_or(u8::MAX),
                shifts,
            },
        };
        let target = Target {
            scale,
            ..self.rebound(target, scale, clamp)
        };
        let op = Op::Requant {
            x: sum,
            shift,
            lo: narrow(target.lo),
            hi: narrow(target.hi),
        };
        Ok(Scaled {
            operand: self.out.push(op)?,
            scale,
        })
    }

    /// The bounds of a clamp for a scale that came out larger than asked for.
    fn rebound(&self, target: Target, scale: f64, clamp: Option<(f64, f64)>) -> Target {
        let Some((lo, hi)) = clamp else { return target };
        let bound = |value: f64| crate::compile::emit::round((value / scale).clamp(target.lo as f64, target.hi as f64));
        Target {
            scale,
            lo: bound(lo),
            hi: bound(hi),
        }
    }

    /// `x = 256 * high + low` with both limbs in -128..=127.
    fn split(&mut self, x: Operand) -> Result<(Operand, Operand), CompileError> {
        if let Some(limbs) = self.limbs.get(&x) {
            return Ok(*limbs);
        }
        let high = self.out.push(Op::Requant {
            x,
            shift: Shift::Tensor(8),
            lo: -128,
            hi: 255,
        })?;
        let rest = self.out.push(Op::Sum {
            terms: vec![(x, 1), (high, -256)],
        })?;
        let low = self.out.push(Op::Requant {
            x: rest,
            shift: Shift::Tensor(0),
            lo: -128,
            hi: 127,
        })?;
        self.limbs.insert(x, (high, low));
        Ok((high, low))
    }

    /// Product of two computed tensors: an accumulator.
    pub(super) fn matmul(&mut self, a: ValueId, b: ValueId) -> Result<Scaled, CompileError> {
        let (a, b) = (self.act(a)?, self.act(b)?);
        let k = self.out.shape(a.operand)?.last().copied().unwrap_or(1);
        // K products of two equally wide factors.
        let most = ((ACC_LIMIT as f64 / k as f64).sqrt()) as i64;
        let a = self.at_most(a, most.max(127))?;
        let b = self.at_most(b, most.max(127))?;
        let operand = self.batched(a.operand, b.operand)?;
        Ok(Scaled {
            operand,
            scale: a.scale * b.scale,
        })
    }

    /// Product with broadcasting of the leading dimensions.
    pub(super) fn batched(&mut self, a: Operand, b: Operand) -> Result<Operand, CompileError> {
        let (left, right) = (self.out.shape(a)?, self.out.shape(b)?);
        let ([first @ .., m, k], [second @ .., rows, n]) = (left.as_slice(), right.as_slice()) else {
            return Err(self.out.refuse("MatMul", "both factors need two dimensions"));
        };
        let batch =
            broadcast(first, second).ok_or_else(|| self.out.refuse("MatMul", "the batches do not broadcast"))?;
        let full = |tail: [usize; 2]| batch.iter().copied().chain(tail).collect::<Vec<_>>();
        let (wide_a, wide_b) = (full([*m, *k]), full([*rows, *n]));
        let x = self.out.view(a, ViewMap::Broadcast, &wide_a)?;
        let w = self.out.view(b, ViewMap::Broadcast, &wide_b)?;
        self.out.push(Op::MatMul { x, w, bias: None })
    }

    pub(super) fn max_pool(&mut self, id: ValueId, x: ValueId, number: usize) -> Result<Scaled, CompileError> {
        let node = self.node(number)?;
        let refuse = |reason| crate::compile::flat::refuse(node, reason);
        let x = self.act(x)?;
        let shape = self.out.shape(x.operand)?;
        let (image, _) = float::image(&shape).map_err(refuse)?;
        let (window, kernel, _) = float::pool_window(&self.args(node), &shape).map_err(refuse)?;
        let operand = self.out.view(x.operand, ViewMap::Reshape, &image)?;
        let kernel = kernel.map(|size| u32::try_from(size).unwrap_or(u32::MAX));
        let operand = self.out.push(Op::MaxPool {
            x: operand,
            window,
            kernel,
        })?;
        let shape = self.shape(id)?;
        Ok(Scaled {
            operand: self.out.view(operand, ViewMap::Reshape, &shape)?,
            scale: x.scale,
        })
    }

    pub(super) fn average_pool(&mut self, id: ValueId, x: ValueId, number: usize) -> Result<Scaled, CompileError> {
        let node = self.node(number)?;
        let refuse = |reason| crate::compile::flat::refuse(node, reason);
        let x = self.act(x)?;
        let shape = self.out.shape(x.operand)?;
        let (image, _) = float::image(&shape).map_err(refuse)?;
        let args = self.args(node);
        let (window, [rows, columns], _): (Window, _, _) = float::pool_window(&args, &shape).map_err(refuse)?;
        let (counts, [height, width]) = float::pool_counts(&args, &shape).map_err(refuse)?;
        let [_, channels, _, _] = image;
        let operand = self.out.view(x.operand, ViewMap::Reshape, &image)?;
        let ones = vec![1; channels * rows * columns];
        let w = self.out.constant("ones", &[channels, 1, rows, columns], &ones)?;
        let groups = u32::try_from(channels).unwrap_or(u32::MAX);
        let sum = self.out.push(Op::Conv {
            x: operand,
            w,
            bias: None,
            window,
            groups,
        })?;
        let first = counts.first().copied().unwrap_or(1).max(1);
        let result = self.shape(id)?;
        if counts.iter().all(|count| *count == first) {
            let operand = self.out.view(sum, ViewMap::Reshape, &result)?;
            return Ok(Scaled {
                operand,
                scale: x.scale / first as f64,
            });
        }
        // Windows at the border divide by fewer elements.
        let sum = Scaled {
            operand: sum,
            scale: x.scale,
        };
        let magnitude = self.out.range(sum.operand)?.magnitude().max(1);
        let most = magnitude.min(32_767);
        let scale = sum.scale * magnitude as f64 / most as f64;
        let sum = self.out.rescale(
            sum,
            Target {
                scale,
                lo: -most,
                hi: most,
            },
        )?;
        let inverse = counts.iter().map(|count| 1.0 / (*count).max(1) as f32).collect();
        let inverse = Tensor::floats(vec![1, 1, height, width], inverse);
        let y = self.multiply(sum, &inverse)?;
        Ok(Scaled {
            operand: self.out.view(y.operand, ViewMap::Reshape, &result)?,
            scale: y.scale,
        })
    }
}
