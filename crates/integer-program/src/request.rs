//! Requests as JSON: `{"INPUT": nested numbers}` in the shapes that the ONNX file declares.

use crate::{error::RunError, json::Entries, program::Graph, quantise::quantise_input};
use serde_json::Value;

/// Integers of every input of a program, in the order of its inputs, from one JSON object.
///
/// A leading dimension of 1 may be left out, and a flat list in row-major order is accepted. A name that appears twice
/// is refused.
///
/// # Errors
/// [`RunError`] if the bytes are not such an object, or a number has no integer.
pub fn read(graph: &Graph, json: &[u8]) -> Result<Vec<Vec<i64>>, RunError> {
    let form = |error: String| RunError::Json(error);
    let object = Entries::parse(json).map_err(|error| form(error.to_string()))?;
    let known = |name: &str| graph.inputs.iter().any(|input| input.name == name);
    if let Some((name, _)) = object.0.iter().find(|(name, _)| !known(name)) {
        let input = name.chars().take(80).collect();
        return Err(RunError::InputForm {
            input,
            reason: "the model has no such input".to_owned(),
        });
    }
    graph
        .inputs
        .iter()
        .map(|input| {
            let refuse = |reason: String| RunError::InputForm {
                input: input.name.clone(),
                reason,
            };
            let text = object
                .get(&input.name)
                .ok_or_else(|| refuse("it is missing".to_owned()))?;
            let value: Value = serde_json::from_str(text).map_err(|error| refuse(error.to_string()))?;
            let numbers = numbers(&value, &input.shape).map_err(refuse)?;
            let floats: Vec<f32> = numbers.into_iter().map(|number| number as f32).collect();
            quantise_input(input, &floats)
        })
        .collect()
}

/// Nested lists as the numbers of a tensor of a shape, all finite in binary32.
pub(crate) fn numbers(value: &Value, expected: &[usize]) -> Result<Vec<f64>, String> {
    let mut numbers = Vec::new();
    let mut shape = Vec::new();
    collect(value, 0, &mut shape, &mut numbers).map_err(str::to_owned)?;
    let tail = expected.get(1..).unwrap_or_default();
    let fits = shape == expected || (expected.first() == Some(&1) && shape == tail) || shape.len() == 1;
    if numbers.len() != expected.iter().product::<usize>() || !fits {
        return Err(format!("expected shape {expected:?}, got {shape:?}"));
    }
    Ok(numbers)
}

/// Nested lists as a shape and its numbers.
fn collect(value: &Value, depth: usize, shape: &mut Vec<usize>, out: &mut Vec<f64>) -> Result<(), &'static str> {
    match value {
        Value::Array(items) => {
            if depth >= crate::shape::MAX_RANK {
                return Err("it is nested too deeply");
            }
            match shape.get(depth) {
                None if shape.len() == depth => shape.push(items.len()),
                Some(size) if *size == items.len() => {}
                _ => return Err("its lists have different lengths"),
            }
            items.iter().try_for_each(|item| collect(item, depth + 1, shape, out))
        }
        Value::Number(number) if depth == shape.len() => {
            let number = number.as_f64().filter(|number| (*number as f32).is_finite());
            out.push(number.ok_or("a number does not fit float32")?);
            Ok(())
        }
        _ => Err("it is not a regular list of numbers"),
    }
}
