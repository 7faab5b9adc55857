//! The registration report: how the program's results compare with the float model's.

use super::{
    CompileError,
    calibrate::{self, Sample},
    flat::Flat,
};
use crate::{
    interpret,
    onnx::ValueId,
    program::Program,
    quantise::{argmax, dequantise, quantise_input},
    tensor::{Data, Tensor},
};
use serde::Serialize;

/// Agreement of one output with the float model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OutputReport {
    /// Name of the output.
    pub name: String,
    /// Share of rows (along the last dimension) whose greatest element is at the same position, 0 to 1; `None` where
    /// rows have one element.
    pub top1: Option<f64>,
    /// Greatest absolute difference.
    pub max_abs_error: f64,
    /// Mean absolute difference.
    pub mean_abs_error: f64,
    /// Greatest absolute value of the float results.
    pub max_abs_value: f64,
    /// `max_abs_error / max_abs_value`.
    pub relative_error: f64,
}

/// Agreement of a program with its model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Samples that scales were chosen from.
    pub fitted_samples: usize,
    /// Samples that were held out. With none, the numbers are about the fitted samples.
    pub held_out_samples: usize,
    /// Whether the samples were random because no calibration data were given.
    pub random_samples: bool,
    /// One entry per output.
    pub outputs: Vec<OutputReport>,
}

/// Integers of one sample.
fn quantised(program: &Program, sample: &Sample) -> Result<Vec<Vec<i64>>, crate::error::RunError> {
    program
        .graph
        .inputs
        .iter()
        .zip(sample)
        .map(|(input, tensor)| match &tensor.data {
            Data::Float(values) => quantise_input(input, values),
            Data::Int(values) => Ok(values.clone()),
            Data::Text(_) => Ok(Vec::new()),
        })
        .collect()
}

/// Runs program and model on the samples.
pub(super) fn measure(
    program: &Program,
    flat: &Flat,
    outputs: &[ValueId],
    samples: &[Sample],
    fitted: usize,
    held_out: usize,
    random: bool,
) -> Result<Report, CompileError> {
    let mut sums: Vec<Sums> = outputs.iter().map(|_| Sums::default()).collect();
    for (number, sample) in samples.iter().enumerate() {
        let refuse = |source| CompileError::Run { sample: number, source };
        let expected = calibrate::run(&flat.model, &flat.clear, sample)?;
        let integers = quantised(program, sample).map_err(refuse)?;
        let trace = interpret::run(program, &integers).map_err(refuse)?;
        let results = trace.outputs(program).unwrap_or_default();
        for (((id, output), values), sum) in outputs.iter().zip(&program.graph.outputs).zip(results).zip(&mut sums) {
            let Some(tensor) = expected.get(id) else { continue };
            sum.add(tensor, &dequantise(output, &values));
        }
    }
    let outputs = program
        .graph
        .outputs
        .iter()
        .zip(sums)
        .map(|(output, sum)| sum.finish(&output.name))
        .collect();
    Ok(Report {
        fitted_samples: fitted,
        held_out_samples: held_out,
        random_samples: random,
        outputs,
    })
}

#[derive(Default)]
struct Sums {
    rows: u64,
    same: u64,
    elements: u64,
    total: f64,
    worst: f64,
    greatest: f64,
}

impl Sums {
    fn add(&mut self, expected: &Tensor, got: &[f64]) {
        let Some(values) = expected.as_floats() else { return };
        for (a, b) in values.iter().zip(got) {
            let error = (f64::from(*a) - b).abs();
            self.elements += 1;
            self.total += error;
            self.worst = self.worst.max(error);
            self.greatest = self.greatest.max(f64::from(*a).abs());
        }
        let Some(last) = expected.shape.len().checked_sub(1) else {
            return;
        };
        if expected.shape.last().is_some_and(|dim| *dim > 1) {
            let (a, b) = (
                argmax(&expected.shape, values, last, false),
                argmax(&expected.shape, got, last, false),
            );
            let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
            self.rows += a.len() as u64;
            self.same += a.iter().zip(&b).filter(|(a, b)| a == b).count() as u64;
        }
    }

    fn finish(self, name: &str) -> OutputReport {
        OutputReport {
            name: name.to_owned(),
            top1: (self.rows > 0).then(|| self.same as f64 / self.rows as f64),
            max_abs_error: self.worst,
            mean_abs_error: self.total / self.elements.max(1) as f64,
            max_abs_value: self.greatest,
            relative_error: if self.greatest > 0.0 {
                self.worst / self.greatest
            } else {
                0.0
            },
        }
    }
}
