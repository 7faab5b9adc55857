//! Calibration data: requests as JSON, or seeded random ones, and what is learnt from them.

use super::CompileError;
use crate::{
    float,
    onnx::{Model, ModelInput, ValueId},
    request,
    tensor::Tensor,
};
use opg_models::onnx::DType;
use serde_json::Value;
use std::collections::BTreeMap;

/// Most samples that are read.
pub const MAX_SAMPLES: usize = 65_536;

/// One request: a tensor per input.
pub(super) type Sample = Vec<Tensor>;

/// Least and greatest value seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Seen {
    pub(super) lo: f64,
    pub(super) hi: f64,
    /// Whether values below -10 000 were seen beside others: a mask in front of a softmax. They do not count.
    pub(super) masked: bool,
}

/// Reads samples: a list of objects `{"INPUT": nested numbers}`, one object, or `{"input_data": [[numbers], ..]}` for a
/// model with one input.
pub(super) fn read(bytes: &[u8], model: &Model) -> Result<Vec<Sample>, CompileError> {
    let json: Value =
        serde_json::from_slice(bytes).map_err(|error| CompileError::CalibrationJson(error.to_string()))?;
    let samples = match json {
        Value::Array(items) => items,
        Value::Object(mut object) if object.contains_key("input_data") => {
            let Some(Value::Array(rows)) = object.remove("input_data") else {
                return Err(CompileError::CalibrationJson("input_data is not a list".to_owned()));
            };
            let name = model
                .inputs
                .first()
                .map_or("", |input| model.name(input.value))
                .to_owned();
            rows.into_iter()
                .map(|row| Value::Object(std::iter::once((name.clone(), row)).collect()))
                .collect()
        }
        object @ Value::Object(_) => vec![object],
        _ => {
            return Err(CompileError::CalibrationJson(
                "it is neither a list nor an object".to_owned(),
            ));
        }
    };
    if samples.is_empty() || samples.len() > MAX_SAMPLES {
        return Err(CompileError::CalibrationJson(format!(
            "{} samples, expected 1 to {MAX_SAMPLES}",
            samples.len()
        )));
    }
    samples
        .iter()
        .enumerate()
        .map(|(number, sample)| {
            model
                .inputs
                .iter()
                .map(|input| one(number, sample, input, model))
                .collect()
        })
        .collect()
}

fn one(sample: usize, json: &Value, input: &ModelInput, model: &Model) -> Result<Tensor, CompileError> {
    let name = model.name(input.value);
    let refuse = |reason: String| CompileError::Calibration {
        sample,
        input: name.to_owned(),
        reason,
    };
    let value = json.get(name).ok_or_else(|| refuse("it is missing".to_owned()))?;
    let numbers = request::numbers(value, &input.shape).map_err(refuse)?;
    Ok(if input.dtype == DType::F32 {
        Tensor::floats(
            input.shape.clone(),
            numbers.iter().map(|number| *number as f32).collect(),
        )
    } else {
        if numbers.iter().any(|number| number.fract() != 0.0) {
            return Err(refuse("an index is not an integer".to_owned()));
        }
        Tensor::ints(
            input.shape.clone(),
            numbers.iter().map(|number| *number as i64).collect(),
        )
    })
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `(0, 1]`.
    fn unit(&mut self) -> f64 {
        ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64
    }

    /// Standard normal (Box and Muller).
    fn normal(&mut self) -> f64 {
        (-2.0 * self.unit().ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }
}

/// Standard normal requests; indices are uniform below the size of the table they read.
pub(super) fn random(model: &Model, rows: &BTreeMap<ValueId, usize>, seed: u64, count: usize) -> Vec<Sample> {
    let mut random = Random(seed);
    let mut tensor = |input: &ModelInput| {
        let size = input.shape.iter().product();
        if input.dtype == DType::F32 {
            Tensor::floats(input.shape.clone(), (0..size).map(|_| random.normal() as f32).collect())
        } else {
            let rows = rows.get(&input.value).copied().unwrap_or(1).max(1) as u64;
            let values = (0..size)
                .map(|_| i64::try_from(random.next() % rows).unwrap_or(0))
                .collect();
            Tensor::ints(input.shape.clone(), values)
        }
    };
    (0..count)
        .map(|_| model.inputs.iter().map(&mut tensor).collect())
        .collect()
}

/// Evaluates the model on samples and notes the values of every computed tensor.
pub(super) fn observe(
    model: &Model,
    clear: &[bool],
    samples: &[Sample],
) -> Result<BTreeMap<ValueId, Seen>, CompileError> {
    let mut seen: BTreeMap<ValueId, Seen> = BTreeMap::new();
    for sample in samples {
        let values = run(model, clear, sample)?;
        for (id, tensor) in &values {
            let Some(values) = tensor.as_floats() else { continue };
            let slot = seen.entry(*id).or_insert(Seen {
                lo: f64::INFINITY,
                hi: f64::NEG_INFINITY,
                masked: false,
            });
            for value in values {
                let value = f64::from(*value);
                if value < -1e4 {
                    slot.masked = true;
                } else if value.is_finite() {
                    slot.lo = slot.lo.min(value);
                    slot.hi = slot.hi.max(value);
                }
            }
        }
    }
    Ok(seen)
}

/// Evaluates the model on one sample.
pub(super) fn run(model: &Model, clear: &[bool], sample: &Sample) -> Result<BTreeMap<ValueId, Tensor>, CompileError> {
    float::run(model, clear, sample).map_err(|(number, reason)| {
        let node = model.nodes.get(number);
        CompileError::Node {
            node: node.map(|node| node.name.clone()).unwrap_or_default(),
            op: node.map(|node| node.op.clone()).unwrap_or_default(),
            reason,
        }
    })
}
