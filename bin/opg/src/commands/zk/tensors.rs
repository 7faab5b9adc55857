//! Inputs and outputs as JSON: `{"NAME": nested numbers}`, or a list of such objects for several requests.
//!
//! An output file holds the exact real value `integer * scale` of every element in binary64, and the labels that are
//! computed from them. Reading takes each number back to its integer and refuses one that is no value of the output,
//! so that what is verified is what the file says.

use std::path::Path;

use opg_integer_program::{
    program::{Graph, Output, Post},
    quantise::{PostValue, dequantise},
    request,
};
use opg_zkml::Request;
use serde_json::{Map, Value, value::RawValue};

use super::{
    files::{MAX_JSON, read},
    requests::{Entries, Requests},
};
use crate::failure::Failure;

/// How far a number may be from the value it stands for, as a part of it: JSON readers may differ in the last bits,
/// neighbouring integers of an output differ by more than `2^-30`.
const TOLERANCE: f64 = 1.0 / (1u64 << 50) as f64;

/// Integers of all inputs of all requests.
pub(super) type Inputs = Vec<Vec<Vec<i64>>>;

/// Names the file, and the request where there are several.
fn place(path: &Path, list: bool, number: usize) -> String {
    if list {
        format!("{}, request {number}", path.display())
    } else {
        path.display().to_string()
    }
}

/// Reads an input file and takes its numbers to integers. Says whether the file is a list.
pub(super) fn inputs(graph: &Graph, path: &Path) -> Result<(Inputs, bool), Failure> {
    let bytes = read(path, "input", MAX_JSON)?;
    let requests = Requests::parse(&bytes)
        .map_err(|error| Failure::usage(format!("{} is not a request: {error}", path.display())))?;
    let one = |(number, object): (usize, &&RawValue)| {
        let place = place(path, requests.list, number);
        let text = object.get();
        serde_json::from_str::<Entries<'_>>(text).map_err(|error| Failure::usage(format!("{place}: {error}")))?;
        request::read(graph, text.as_bytes())
            .map_err(|error| Failure::usage(format!("{place}: {error}; the model takes {}", signature(graph))))
    };
    let integers = requests.objects.iter().enumerate().map(one).collect::<Result<_, _>>()?;
    Ok((integers, requests.list))
}

/// Inputs of a model in words.
fn signature(graph: &Graph) -> String {
    let inputs = graph
        .inputs
        .iter()
        .map(|input| format!("{:?} of shape {:?}", input.name, input.shape));
    inputs.collect::<Vec<_>>().join(", ")
}

fn shape_of<'g>(graph: &'g Graph, output: &Output) -> &'g [usize] {
    graph.operand(output.source).map_or(&[], |operand| operand.shape)
}

/// The output file of proven requests.
pub(super) fn document(graph: &Graph, requests: &[Request], list: bool) -> Value {
    let mut objects = requests.iter().map(|request| {
        let mut object = Map::new();
        for (output, integers) in graph.outputs.iter().zip(&request.outputs) {
            let reals = dequantise(output, integers).into_iter().map(Value::from).collect();
            object.insert(output.name.clone(), nest(shape_of(graph, output), reals));
        }
        for post in &graph.posts {
            object.insert(
                post.name().to_owned(),
                label(graph, post, &request.outputs).unwrap_or_default(),
            );
        }
        Value::Object(object)
    });
    if list {
        objects.collect()
    } else {
        objects.next().unwrap_or_default()
    }
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

/// Integers of the outputs that a file states. Labels, where the file has them, must be the ones of these integers.
///
/// What is not of the right form is a wrong file; what the program could never give is a failed check.
pub(super) fn outputs(graph: &Graph, path: &Path) -> Result<Vec<Vec<Vec<i64>>>, Failure> {
    let bytes = read(path, "output", MAX_JSON)?;
    let requests = Requests::parse(&bytes)
        .map_err(|error| Failure::usage(format!("{} holds no outputs: {error}", path.display())))?;
    let one = |(number, object): (usize, &&RawValue)| stated(graph, object, &place(path, requests.list, number));
    requests.objects.iter().enumerate().map(one).collect()
}

fn stated(graph: &Graph, object: &RawValue, place: &str) -> Result<Vec<Vec<i64>>, Failure> {
    let form = |reason: String| Failure::usage(format!("{place}: {reason}"));
    let wrong = |reason: String| Failure::failed(eyre::eyre!("{place}: {reason}"));
    let Entries(entries) = serde_json::from_str(object.get()).map_err(|error| form(error.to_string()))?;
    let known = |name: &str| {
        graph.outputs.iter().any(|output| output.name == name) || graph.posts.iter().any(|post| post.name() == name)
    };
    if let Some((name, _)) = entries.iter().find(|(name, _)| !known(name)) {
        return Err(form(format!("output {name:?}: the model has no such output")));
    }
    let find = |name: &str| -> Result<Option<Value>, Failure> {
        let Some((_, raw)) = entries.iter().find(|(other, _)| other == name) else {
            return Ok(None);
        };
        serde_json::from_str(raw.get())
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
                wrong(refuse(format!(
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
            return Err(wrong(format!(
                "{:?} is not what follows from the other outputs",
                post.name()
            )));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

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
