//! From an ONNX file to an integer program: scales from calibration data, then exact integer nodes.

mod calibrate;
mod clear;
mod emit;
mod error;
mod flat;
mod lower;
mod plan;
mod report;

pub use calibrate::MAX_SAMPLES;
pub use error::CompileError;
pub use report::{OutputReport, Report};

use crate::{
    constant::Weights,
    onnx::{Model, ValueId},
    program::{Graph, Input, InputEncoding, Metadata, Op, Operand, Output, Program},
    range::Range,
    tensor::Tensor,
    view::ViewMap,
};
use calibrate::Sample;
use emit::{Emitter, Scaled};
use lower::Lower;
use opg_models::onnx::DType;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// Name and version of this compiler, recorded in every program.
pub const QUANTISER: &str = "opg-integer-program 1";

/// Precision of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// 8-bit weights and activations; 12 bits before a softmax, 16 bits at the outputs.
    Int8,
    /// 16-bit activations, multiplied as two limbs of 8 bits, with weights as wide as accumulators allow (16 at most).
    Int16,
}

/// How to compile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Precision.
    pub profile: Profile,
    /// Size of a leading dimension that the file leaves open.
    pub batch: usize,
    /// Seed of the random samples that stand in for calibration data.
    pub seed: u64,
    /// Number of random samples; a fifth of them is held out.
    pub random_samples: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            profile: Profile::Int8,
            batch: 1,
            seed: 1,
            random_samples: 40,
        }
    }
}

/// A program and how it compares with its model.
#[derive(Debug, Clone, PartialEq)]
pub struct Compiled {
    /// The program, validated.
    pub program: Program,
    /// Agreement with the float model on samples that scales were not chosen from.
    pub report: Report,
}

/// Compiles an ONNX file. `calibration` is JSON: a list of objects `{"INPUT": nested numbers}` with the shapes that the
/// file declares; without it, seeded standard normal numbers are used and the report says so. Of five samples or more
/// the last fifth is held out for the report.
///
/// # Errors
/// [`CompileError`] naming the node, its operator and the way out.
pub fn compile(onnx: &[u8], calibration: Option<&[u8]>, options: &Options) -> Result<Compiled, CompileError> {
    let model = Model::read(onnx, options.batch.max(1))?;
    let random = calibration.is_none();
    let samples = match calibration {
        Some(json) => calibrate::read(json, &model)?,
        None => {
            let rows = table_rows(&model);
            calibrate::random(
                &model,
                &rows,
                options.seed,
                options.random_samples.clamp(2, calibrate::MAX_SAMPLES),
            )
        }
    };
    let held_out = samples.len() / 5;
    let (fit, test) = samples.split_at(samples.len() - held_out);
    let first = fit
        .first()
        .ok_or_else(|| CompileError::CalibrationJson("no samples".to_owned()))?;
    let flat = flat::flatten(model, first)?;
    let seen = calibrate::observe(&flat.model, &flat.clear, fit)?;

    let public = clear::results(&flat)?;
    let schedule = plan::schedule(&flat, &public.values)?;
    let metadata = Metadata {
        quantiser: QUANTISER.to_owned(),
        profile: match options.profile {
            Profile::Int8 => "int8".to_owned(),
            Profile::Int16 => "int16".to_owned(),
        },
        source: Sha256::digest(onnx).into(),
    };
    let (inputs, values) = inputs(&flat.model, fit, options.profile, random);
    let graph = Graph {
        metadata,
        inputs,
        constants: Vec::new(),
        tables: Vec::new(),
        nodes: Vec::new(),
        outputs: Vec::new(),
        posts: Vec::new(),
    };
    let emitter = Emitter {
        graph,
        weights: Weights::default(),
        name: String::new(),
    };
    let mut lower = Lower::new(&flat, &seen, options.profile, emitter, values);
    lower.run(schedule)?;
    for id in &public.values {
        let Scaled { operand, scale } = lower.value(*id)?;
        let name: String = flat
            .model
            .name(*id)
            .chars()
            .take(crate::validate::MAX_NAME / 4)
            .collect();
        lower.out.name.clone_from(&name);
        let taken = lower.out.graph.outputs.iter().any(|output| output.source == operand);
        let source = match operand {
            Operand::Node(_) if !taken => operand,
            // An output is the result of a node of its own.
            _ => {
                let shape = lower.out.shape(operand)?;
                lower.out.push_shaped(
                    Op::View {
                        sources: vec![operand],
                        map: ViewMap::Reshape,
                    },
                    &shape,
                )?
            }
        };
        lower.out.graph.outputs.push(Output { name, source, scale });
    }
    let mut program = Program {
        graph: lower.out.graph,
        weights: lower.out.weights,
    };
    program.graph.posts = public.posts;
    program.validate()?;
    let measured: &[Sample] = if test.is_empty() { fit } else { test };
    let report = report::measure(&program, &flat, &public.values, measured, fit.len(), test.len(), random)?;
    Ok(Compiled { program, report })
}

/// Rows of the tables that index inputs read.
fn table_rows(model: &Model) -> BTreeMap<ValueId, usize> {
    let mut rows: BTreeMap<ValueId, usize> = BTreeMap::new();
    for node in model.nodes.iter().filter(|node| node.op == "Gather") {
        let (Some(table), Some(indices)) = (node.input(0), node.input(1)) else {
            continue;
        };
        if let Some(count) = model.constants.get(&table).and_then(|table| table.shape.first()) {
            let slot = rows.entry(indices).or_insert(*count);
            *slot = (*slot).min(*count);
        }
    }
    rows
}

/// Declarations of the inputs, with scales from what the samples hold.
fn inputs(
    model: &Model,
    samples: &[Sample],
    profile: Profile,
    random: bool,
) -> (Vec<Input>, BTreeMap<ValueId, Scaled>) {
    let rows = table_rows(model);
    let mut out = Vec::new();
    let mut values = BTreeMap::new();
    for (number, input) in model.inputs.iter().enumerate() {
        let encoding = if input.dtype == DType::F32 {
            let numbers = samples
                .iter()
                .filter_map(|sample| sample.get(number))
                .filter_map(Tensor::as_floats)
                .flatten();
            let (lo, hi) = numbers.fold((0f64, 0f64), |(lo, hi), x| {
                (lo.min(f64::from(*x)), hi.max(f64::from(*x)))
            });
            // Data without negative numbers keep their sign only if the data are real ones.
            let positive = lo >= 0.0 && !random;
            let most = match profile {
                Profile::Int8 => 127,
                Profile::Int16 => 32_767,
            };
            let range = if positive {
                Range::new(0, most * 2 + 1)
            } else {
                Range::new(-most, most)
            };
            // 16 bits have room for requests somewhat larger than the samples.
            let room = if profile == Profile::Int16 { 1.25 } else { 1.0 };
            let scale = lo.abs().max(hi).max(1e-6) * room / range.hi as f64;
            let operand = Operand::Input(u32::try_from(number).unwrap_or(u32::MAX));
            values.insert(input.value, Scaled { operand, scale });
            InputEncoding::Quantised {
                scale,
                zero_point: 0,
                range,
            }
        } else {
            let count = rows.get(&input.value).copied().unwrap_or(1);
            InputEncoding::Index {
                count: u32::try_from(count).unwrap_or(u32::MAX),
            }
        };
        let name = model.name(input.value).to_owned();
        out.push(Input {
            name,
            shape: input.shape.clone(),
            encoding,
        });
    }
    (out, values)
}
