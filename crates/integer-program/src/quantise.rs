//! From a request's floats to integers, from integers to floats, and what is computed in the clear from outputs.

use crate::{
    error::RunError,
    program::{Input, InputEncoding, Labels, Output, Post},
    shape::elements,
};

/// Integers of an input: for a quantised input `clamp(round_half_even(x / scale) + zero_point, lo, hi)` in binary64,
/// for an index input the number itself.
///
/// # Errors
/// [`RunError::InputSize`] for another number of elements than the shape has, [`RunError::NotFinite`] for a NaN or
/// infinity, [`RunError::InputValue`] for an index that is none.
pub fn quantise_input(input: &Input, values: &[f32]) -> Result<Vec<i64>, RunError> {
    let expected = elements(&input.shape).unwrap_or(0);
    if values.len() != expected {
        return Err(RunError::InputSize {
            input: input.name.clone(),
            expected,
            shape: input.shape.clone(),
            got: values.len(),
        });
    }
    let mut out = Vec::with_capacity(values.len());
    for (index, value) in values.iter().enumerate() {
        if !value.is_finite() {
            return Err(RunError::NotFinite {
                input: input.name.clone(),
                index,
            });
        }
        let value = f64::from(*value);
        out.push(match input.encoding {
            InputEncoding::Quantised {
                scale,
                zero_point,
                range,
            } => {
                // `as` saturates; adding the zero point then cannot overflow.
                let rounded = (value / scale).round_ties_even().clamp(-1e9, 1e9) as i64;
                (rounded + i64::from(zero_point)).clamp(range.lo, range.hi.max(range.lo))
            }
            InputEncoding::Index { .. } => {
                let (_, range) = input.integer_type();
                let whole = value.clamp(-1e9, 1e9) as i64;
                if !range.contains(whole) || whole as f64 != value {
                    return Err(RunError::InputValue {
                        input: input.name.clone(),
                        index,
                        value: whole,
                        range,
                    });
                }
                whole
            }
        });
    }
    Ok(out)
}

/// Real values of an output's integers: `q * scale` in binary64.
#[must_use]
pub fn dequantise(output: &Output, values: &[i64]) -> Vec<f64> {
    values.iter().map(|value| *value as f64 * output.scale).collect()
}

/// What [`Post::apply`] computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostValue {
    /// Positions or integer labels.
    Integers(Vec<i64>),
    /// Text labels.
    Texts(Vec<String>),
}

impl Post {
    /// Name that the ONNX file gives the result.
    #[must_use]
    pub fn name(&self) -> &str {
        let Self::ArgMax { name, .. } = self;
        name
    }

    /// Computes the result from the integers of the output it reads, whose shape is `shape`. `None` if the two do not
    /// fit together.
    #[must_use]
    pub fn apply(&self, shape: &[usize], values: &[i64]) -> Option<PostValue> {
        let Self::ArgMax { axis, last, labels, .. } = self;
        let positions = argmax(shape, values, usize::from(*axis), *last)?;
        Some(match labels {
            Labels::Position => {
                PostValue::Integers(positions.into_iter().map(|at| i64::try_from(at).unwrap_or(0)).collect())
            }
            Labels::Integers(labels) => PostValue::Integers(
                positions
                    .into_iter()
                    .map(|at| labels.get(at).copied())
                    .collect::<Option<_>>()?,
            ),
            Labels::Texts(labels) => PostValue::Texts(
                positions
                    .into_iter()
                    .map(|at| labels.get(at).cloned())
                    .collect::<Option<_>>()?,
            ),
        })
    }

    /// Shape of the result.
    #[must_use]
    pub fn shape(&self, shape: &[usize]) -> Vec<usize> {
        let Self::ArgMax { axis, keep, .. } = self;
        let mut out = shape.to_vec();
        if usize::from(*axis) < out.len() {
            out.splice(usize::from(*axis)..=usize::from(*axis), keep.then_some(1));
        }
        out
    }
}

/// Positions of the maxima along a dimension, for every position of the other dimensions in row-major order.
pub(crate) fn argmax<T: PartialOrd + Copy>(
    shape: &[usize],
    values: &[T],
    axis: usize,
    last: bool,
) -> Option<Vec<usize>> {
    if Some(values.len()) != elements(shape) {
        return None;
    }
    let size = *shape.get(axis)?;
    let inner: usize = shape.iter().skip(axis + 1).product();
    let mut out = Vec::with_capacity(values.len() / size);
    for block in values.chunks(size * inner) {
        for offset in 0..inner {
            let mut best: Option<(usize, T)> = None;
            for (at, value) in block.iter().skip(offset).step_by(inner).enumerate() {
                if best.is_none_or(|(_, best)| *value > best || (last && *value >= best)) {
                    best = Some((at, *value));
                }
            }
            out.push(best?.0);
        }
    }
    Some(out)
}
