//! Softmax and layer normalisation: divisions whose quotients are bounded for every input.

use super::Lower;
use crate::{
    compile::{
        CompileError, Profile,
        emit::{Scaled, narrow, round},
        plan::Fineness,
    },
    onnx::ValueId,
    program::{ACC_LIMIT, Op, Operand, Shift, round_shift},
};

/// Arguments this far below the maximum count as exp(-16), about 1e-7.
const CUTOFF: f64 = 16.0;

/// Most entries of the table of the exponential in the 8-bit profile: steps of 1/256 down to the cutoff.
const MAX_EXP_ENTRIES: i64 = 4_096;

fn bytes(axes: &[usize]) -> Vec<u8> {
    axes.iter().map(|axis| u8::try_from(*axis).unwrap_or(u8::MAX)).collect()
}

impl Lower<'_> {
    /// `p_i = e_i / (1 + sum e)` with `e = exp(x - max)` from a table, up to 2^15. The 1 makes the divisor positive by
    /// its range; the divisor exceeds every numerator, so no quotient exceeds the numerator's factor.
    pub(super) fn softmax(&mut self, id: ValueId, x: ValueId, axes: &[usize]) -> Result<Scaled, CompileError> {
        let x = self.act(x)?;
        let shape = self.out.shape(x.operand)?;
        let count: usize = axes.iter().map(|axis| shape.get(*axis).copied().unwrap_or(1)).product();
        let fine = self.fine(id) == Fineness::Output || self.profile == Profile::Int16;
        // (factor + 1) * count * exp_max <= 2^29, where the factor is the greatest quotient.
        let room = (ACC_LIMIT as f64 * 0.98 / count as f64).log2();
        let (exp_bits, factor) = if fine {
            let bits = (room / 2.0).floor().clamp(1.0, 15.0);
            (bits, (2f64.powf((room - bits).floor().clamp(1.0, 15.0)) as i64) - 1)
        } else {
            let bits = (room - 8.0).floor().clamp(1.0, 15.0);
            (bits, if room - bits >= 8.0 { 255 } else { 15 })
        };
        let (exp, den) = self.exponentials(x, axes, exp_bits)?;
        let num = self.out.push(Op::Sum {
            terms: vec![(exp, narrow(factor))],
        })?;
        let operand = self.out.push(Op::Divide {
            num,
            den,
            shift: 0,
            lo: 0,
            hi: narrow(factor),
        })?;
        Ok(Scaled {
            operand,
            scale: 1.0 / factor as f64,
        })
    }

    /// `exp(x - max)` with its greatest value at `2^exp_bits - 1`, and its sum plus 1.
    fn exponentials(&mut self, x: Scaled, axes: &[usize], exp_bits: f64) -> Result<(Operand, Operand), CompileError> {
        let most = self.out.push(Op::ReduceMax {
            x: x.operand,
            axes: bytes(axes),
        })?;
        let distance = self.out.push(Op::Sum {
            terms: vec![(x.operand, 1), (most, -1)],
        })?;
        // Arguments below the cutoff count as the cutoff; finer steps than the table has entries for are rounded.
        let entries = if self.profile == Profile::Int16 {
            32_768
        } else {
            MAX_EXP_ENTRIES
        };
        let reach = i64::try_from(self.out.range(x.operand)?.width()).unwrap_or(i64::MAX);
        let mut shift = 0u8;
        let mut scale = x.scale;
        while shift < 16 && round((CUTOFF / scale).ceil()).min(reach >> shift) > entries {
            shift += 1;
            scale *= 2.0;
        }
        let cut = round((CUTOFF / scale).ceil()).clamp(1, entries);
        let op = Op::Requant {
            x: distance,
            shift: Shift::Tensor(shift),
            lo: narrow(-cut),
            hi: 0,
        };
        let distance = self.out.push(op)?;
        let top = 2f64.powf(exp_bits) - 1.0;
        let exp = self
            .out
            .table("exp", distance, |q| round(top * (q as f64 * scale).exp()))?;
        let sum = self.out.push(Op::ReduceSum {
            x: exp,
            axes: bytes(axes),
        })?;
        let one = self.out.constant("one", &[], &[1])?;
        let den = self.out.push(Op::Sum {
            terms: vec![(sum, 1), (one, 1)],
        })?;
        Ok((exp, den))
    }

    /// `softmax(x) v = (e v) / (1 + sum e)`: the product first, so that nothing is rounded before the one division. The
    /// quotient is a mean of elements of `v`, so it exceeds none of them.
    pub(super) fn attend(&mut self, x: ValueId, v: ValueId, output: ValueId) -> Result<Scaled, CompileError> {
        let (x, v) = (self.act(x)?, self.act(v)?);
        let shape = self.out.shape(x.operand)?;
        let last = shape.len().saturating_sub(1);
        let count = shape.last().copied().unwrap_or(1);
        // Elements of v and exponentials share what count * e * v <= 2^29 leaves.
        let room = (ACC_LIMIT as f64 * 0.49 / count as f64).log2();
        let v = self.at_most(v, (2f64.powf((room / 2.0).floor().max(7.0)) as i64) - 1)?;
        let v_most = self.out.range(v.operand)?.magnitude().max(1);
        let exp_bits = (room - ((v_most + 1) as f64).log2()).floor().clamp(1.0, 15.0);
        // The mean of many elements is smaller than the greatest of them: finer steps, as far as there is room.
        let seen = self
            .seen
            .get(&output)
            .map_or(0.0, |seen| seen.lo.abs().max(seen.hi.abs()))
            .max(1e-6);
        let steps = if self.profile == Profile::Int16 {
            32_767.0
        } else {
            255.0
        };
        let top = 2f64.powf(exp_bits);
        let fits = |shift: u8| {
            let reach = v_most as f64 * f64::from(1u32 << shift) + 2.0;
            reach <= 32_767.0 && reach * (count as f64 * top + 1.0) <= ACC_LIMIT as f64 * 0.98
        };
        let fine = |shift: u8| seen / v.scale * f64::from(1u32 << shift) <= steps;
        let shift = (0..=8u8).rev().find(|shift| fits(*shift) && fine(*shift)).unwrap_or(0);
        let (exp, den) = self.exponentials(x, &[last], exp_bits)?;
        let num = self.batched(exp, v.operand)?;
        let bound = narrow(v_most << shift);
        let operand = self.out.push(Op::Divide {
            num,
            den,
            shift,
            lo: -bound,
            hi: bound,
        })?;
        Ok(Scaled {
            operand,
            scale: v.scale / f64::from(1u32 << shift),
        })
    }

    /// `c / sqrt(mean(c^2) + epsilon)`.
    pub(super) fn norm(
        &mut self,
        x: ValueId,
        centred: bool,
        axes: &[usize],
        epsilon: f64,
        variance: ValueId,
    ) -> Result<Scaled, CompileError> {
        let x = self.act(x)?;
        let shape = self.out.shape(x.operand)?;
        let count: usize = axes.iter().map(|axis| shape.get(*axis).copied().unwrap_or(1)).product();
        let size = i64::try_from(count).unwrap_or(i64::MAX);
        // c exactly: count * x - sum(x), in steps of scale / count.
        let c = if centred {
            let x_most = self.out.range(x.operand)?.magnitude().max(1);
            // Room for the factor of the quotient.
            let x = self.at_most(x, (ACC_LIMIT / 1_024 / size).clamp(1, x_most))?;
            let sum = self.out.push(Op::ReduceSum {
                x: x.operand,
                axes: bytes(axes),
            })?;
            let operand = self.out.push(Op::Sum {
                terms: vec![(x.operand, narrow(size)), (sum, -1)],
            })?;
            Scaled {
                operand,
                scale: x.scale / count as f64,
            }
        } else {
            x
        };
        let reach = self.out.range(c.operand)?.magnitude().max(1);
        // A copy of c that can be squared and summed: no clipping, so that the bound below holds.
        let most = ((ACC_LIMIT as f64 * 0.9 / count as f64).sqrt() as i64)
            .clamp(1, 32_767)
            .min(reach);
        let mut small_shift = 0;
        while round_shift(reach, small_shift) > most {
            small_shift += 1;
        }
        let limit = round_shift(reach, small_shift);
        let op = Op::Requant {
            x: c.operand,
            shift: Shift::Tensor(small_shift),
            lo: narrow(-limit),
            hi: narrow(limit),
        };
        let small = self.out.push(op)?;
        let small_scale = c.scale * 2f64.powi(i32::from(small_shift));
        let square = self.out.push(Op::Mul { a: small, b: small })?;
        let total = self.out.push(Op::ReduceSum {
            x: square,
            axes: bytes(axes),
        })?;
        // Mean square in table steps: twice the greatest that calibration saw still fits.
        let entries: i64 = if self.profile == Profile::Int16 { 65_535 } else { 4_095 };
        let seen = self.seen.get(&variance).map_or(1.0, |seen| seen.hi).max(1e-12);
        let total_scale = small_scale * small_scale / count as f64;
        let wanted = seen * 2.0 / entries as f64;
        let mut shift = 0u8;
        while shift < 28 && total_scale * 2f64.powi(i32::from(shift)) < wanted {
            shift += 1;
        }
        let v = self.out.push(Op::Requant {
            x: total,
            shift: Shift::Tensor(shift),
            lo: 0,
            hi: narrow(entries),
        })?;
        let v_scale = total_scale * 2f64.powi(i32::from(shift));
        let v_range = self.out.range(v)?;
        let root = |v: i64| (v as f64 * v_scale + epsilon).sqrt();
        // The greatest |c| that belongs to an entry: from sum(small^2) < (v + 1/2) 2^shift, or the proven range.
        let saturated = v_range.hi == entries;
        let c_most = |v: i64| -> f64 {
            if saturated && v == entries {
                return reach as f64;
            }
            let small = ((v as f64 + 0.5) * 2f64.powi(i32::from(shift))).sqrt();
            ((small + 0.5) * 2f64.powi(i32::from(small_shift)) + 1.0).min(reach as f64)
        };
        // Finest steps of quotient and root for which numerator, quotient and product stay in bounds.
        let fit = |factor_bits: u8, root_top: i64| -> Option<(f64, i64)> {
            let root_scale = root(v_range.hi) / root_top as f64;
            let entry = |v: i64| round(root(v) / root_scale).max(1);
            let factor = 2f64.powi(i32::from(factor_bits));
            let quotient =
                (v_range.lo..=v_range.hi).fold(0f64, |most, v| most.max(c_most(v) * factor / entry(v) as f64));
            let quotient = quotient as i64 + 2;
            let bounded = quotient <= 32_767
                && (quotient + 1).checked_mul(root_top + 1)? <= ACC_LIMIT
                && reach as f64 * factor + root_top as f64 <= ACC_LIMIT as f64;
            bounded.then_some((root_scale, quotient))
        };
        // The quotient's step should be a small part of the result's: 1/128 of one standard deviation, or finer.
        let steps = if self.profile == Profile::Int16 { 2_048.0 } else { 64.0 };
        let mut choice: Option<(f64, f64, u8, i64)> = None;
        for root_bits in (6..=15).rev() {
            for factor_bits in 0..=20u8 {
                if let Some((root_scale, quotient)) = fit(factor_bits, 1 << root_bits) {
                    // real = q * c.scale / root_scale / 2^factor_bits
                    let step = c.scale / root_scale / 2f64.powi(i32::from(factor_bits));
                    let better = match &choice {
                        None => true,
                        Some((old, ..)) => *old > 1.0 / steps && step < *old,
                    };
                    if better {
                        choice = Some((step, root_scale, factor_bits, quotient));
                    }
                }
            }
        }
        let Some((step, root_scale, factor_bits, quotient)) = choice else {
            return Err(self.out.refuse(
                "LayerNormalization",
                "the normalised dimension is too large for 30 bits",
            ));
        };
        let den = self.out.table("sqrt", v, |v| round(root(v) / root_scale).max(1))?;
        let q = self.out.push(Op::Divide {
            num: c.operand,
            den,
            shift: factor_bits,
            lo: narrow(-quotient),
            hi: narrow(quotient),
        })?;
        Ok(Scaled {
            operand: q,
            scale: step,
        })
    }
}
