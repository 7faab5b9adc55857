//! Outputs as JSON: `{"NAME": nested numbers}`.
//!
//! A document holds the exact real value `integer * scale` of every element in binary64, and the labels that are
//! computed from them. Reading takes each number back to its integer and refuses one that is no value of the output,
//! so that what is verified is what the document says.

use crate::{
    json::Entries,
    program::{Graph, Output, Post},
    quantise::{PostValue, dequantise},
};
use serde_json::{Map, Value};

/// How far a number may be from the value it stands for, as a part of it: JSON readers may differ in the last bits,
/// neighbouring integers of an output differ by more than `2^-30`.
const TOLERANCE: f64 = 1.0 / (1u64 << 50) as f64;

/// Why a document states no outputs of a graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResponseError {
    /// It is not of the right form.
    #[error("{0}")]
    Form(String),
    /// It has the right form, and values that the program can never give.
    #[error("{0}")]
    Impossible(String),
}

/// The document of one run: integers of every output, in the order of the graph.
#[must_use]
pub fn document(graph: &Graph, outputs: &[Vec<i64>]) -> Value {
    let mut object = Map::new();
    for (output, integers) in graph.outputs.iter().zip(outputs) {
        let reals = dequantise(output, integers).into_iter().map(Value::from).collect();
        object.insert(output.name.clone(), nest(shape_of(graph, output), reals));
    }
    for post in &graph.posts {
        object.insert(post.name().to_owned(), label(graph, post, outputs).unwrap_or_default());
    }
    Value::Object(object)
}

/// Integers of the outputs that a document states. Labels, where it has them, must be the ones of these integers.
///
/// # Errors
/// [`ResponseError`].
pub fn read(graph: &Graph, json: &[u8]) -> Result<Vec<Vec<i64>>, ResponseError> {
    let form = ResponseError::Form;
    let entries = Entries::parse(json).map_err(|error| form(error.to_string()))?;
    let known = |name: &str| {
        graph.outputs.iter().any(|output| output.name == name) || graph.posts.iter().any(|post| post.name() == name)
    };
    if let Some((name, _)) = entries.0.iter().find(|(name, _)| !known(name)) {
        return Err(form(format!("output {name:?}: the model has no such output")));
    }
    let find = |name: &str| -> Result<Option<Value>, ResponseError> {
        let Some(text) = entries.get(name) else {
            return Ok(None);
        };
        serde_json::from_str(text)
            .map(Some)
            .map_err(|error| form(format!("output {name:?}: {error}")))
    };
    let mut all = Vec::with_capacity(graph.outputs.len());
    for output in &graph.outputs {
        let refuse = |reason: String| format!("output {:?}: {reason}", output.name);
        let value = find(&output.name)?.ok_or_else(|| form(refuse("it is missing".to_owned())))?;
        let shape = shape_of(graph, output);
        let mut reals = Vec::new();
        if !flatten(&value, shape, &mut reals) {
            return Err(form(refuse(format!("expected nested numbers of shape {shape:?}"))));
        }
        let mut integers = Vec::with_capacity(reals.len());
        for (index, real) in reals.into_iter().enumerate() {
            integers.push(integer(real, output.scale).ok_or_else(|| {
                ResponseError::Impossible(refuse(format!(
                    "element {index} is {real}, which is no multiple of its step {}",
                    output.scale
                )))
            })?);
        }
        all.push(integers);
    }
    for post in &graph.posts {
        if let Some(value) = find(post.name())?
            && label(graph, post, &all).as_ref() != Some(&value)
        {
            return Err(ResponseError::Impossible(format!(
                "{:?} is not what follows from the other outputs",
                post.name()
            )));
        }
    }
    Ok(all)
}

fn shape_of<'g>(graph: &'g Graph, output: &Output) -> &'g [usize] {
    graph.operand(output.source).map_or(&[], |operand| operand.shape)
}

/// What is computed in the clear from the integers of the outputs.
fn label(graph: &Graph, post: &Post, outputs: &[Vec<i64>]) -> Option<Value> {
    let Post::ArgMax { output, .. } = post;
    let shape = shape_of(graph, graph.outputs.get(*output as usize)?);
    let values = match post.apply(shape, outputs.get(*output as usize)?)? {
        PostValue::Integers(values) => values.into_iter().map(Value::from).collect(),
        PostValue::Texts(values) => values.into_iter().map(Value::from).collect(),
    };
    Some(nest(&post.shape(shape), values))
}

/// Row-major elements as nested lists.
fn nest(shape: &[usize], mut flat: Vec<Value>) -> Value {
    for size in shape.iter().rev() {
        let mut items = flat.into_iter();
        let mut rows = Vec::new();
        while items.len() > 0 {
            rows.push(items.by_ref().take((*size).max(1)).collect());
        }
        flat = rows;
    }
    flat.pop().unwrap_or_default()
}

/// Nested lists of exactly a shape as row-major numbers.
fn flatten(value: &Value, shape: &[usize], out: &mut Vec<f64>) -> bool {
    match (value, shape.split_first()) {
        (Value::Number(number), None) => {
            let real = number.as_f64();
            out.extend(real);
            real.is_some()
        }
        (Value::Array(items), Some((size, rest))) => {
            items.len() == *size && items.iter().all(|item| flatten(item, rest, out))
        }
        _ => false,
    }
}

/// The integer that stands behind a real value of an output.
fn integer(real: f64, scale: f64) -> Option<i64> {
    let nearest = (real / scale).round_ties_even();
    let close = (nearest * scale - real).abs() <= real.abs() * TOLERANCE;
    (close && nearest.abs() <= (1u64 << 53) as f64).then_some(nearest as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shapes() {
        let numbers: Vec<Value> = (0..6).map(Value::from).collect();
        let nested = nest(&[1, 2, 3], numbers.clone());
        assert_eq!(nested, json!([[[0, 1, 2], [3, 4, 5]]]));
        assert_eq!(nest(&[], vec![json!(7)]), json!(7));
        let read = |value: &Value, shape: &[usize]| {
            let mut out = Vec::new();
            flatten(value, shape, &mut out).then_some(out)
        };
        assert_eq!(read(&nested, &[1, 2, 3]), Some(vec![0., 1., 2., 3., 4., 5.]));
        for wrong in [&[2, 3][..], &[1, 3, 2], &[1, 2, 3, 1]] {
            assert_eq!(read(&nested, wrong), None);
        }
    }

    /// Every integer comes back from its text, and nothing between two of them does.
    #[test]
    fn reals_stand_for_one_integer() {
        for scale in [1.0, 0.5, 0.1, 1.0 / 3.0, 2.0 / 255.0, 3.7e-9, 1e12] {
            for q in (-70_000..70_000)
                .step_by(37)
                .chain([-(1 << 29), (1 << 29) - 1, 0, 1, -1])
            {
                let text = serde_json::to_string(&(q as f64 * scale)).unwrap();
                let real: f64 = serde_json::from_str(&text).unwrap();
                assert_eq!(integer(real, scale), Some(q), "{q} * {scale}");
                assert_eq!(integer((q as f64 + 1e-3) * scale, scale), None, "{q} * {scale}");
            }
        }
    }
}
