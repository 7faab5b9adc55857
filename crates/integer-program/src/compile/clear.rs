//! What is computed in the clear: `ArgMax` at the end of a classifier and the label that follows from it.

use super::{
    CompileError,
    flat::{Flat, refuse},
};
use crate::{
    float,
    onnx::{OnnxNode, ValueId},
    program::{Labels, Post},
    tensor::{Data, Tensor},
};
use std::collections::BTreeMap;

/// Public tensors and what is computed from them.
pub(super) struct Public {
    /// Values of the model that become outputs of the program.
    pub(super) values: Vec<ValueId>,
    /// Computations on them, in the order of the ONNX outputs.
    pub(super) posts: Vec<Post>,
}

/// A position that was searched for, on the way to its label.
#[derive(Clone)]
struct Search {
    source: ValueId,
    axis: u8,
    keep: bool,
    last: bool,
    labels: Labels,
}

/// Sorts the model's outputs into tensors to prove and labels to compute.
pub(super) fn results(flat: &Flat) -> Result<Public, CompileError> {
    let mut searches: BTreeMap<ValueId, Search> = BTreeMap::new();
    for (number, node) in flat.model.nodes.iter().enumerate() {
        if flat.clear.get(number).copied().unwrap_or(false)
            && let Some(output) = node.output()
        {
            searches.insert(output, step(flat, node, &searches)?);
        }
    }
    let outputs = &flat.model.outputs;
    let mut values: Vec<ValueId> = Vec::new();
    for id in outputs.iter().filter(|id| !searches.contains_key(id)) {
        if !flat.producers.contains_key(id) {
            let output = flat.model.name(*id).to_owned();
            return Err(CompileError::Output {
                output,
                reason: "it is an input or a constant, there is nothing to prove",
            });
        }
        values.push(*id);
    }
    let mut posts = Vec::new();
    for (id, search) in outputs.iter().filter_map(|id| Some((id, searches.get(id)?))) {
        let at = values
            .iter()
            .position(|value| *value == search.source)
            .unwrap_or_else(|| {
                values.push(search.source);
                values.len() - 1
            });
        posts.push(Post::ArgMax {
            name: flat.model.name(*id).to_owned(),
            output: u32::try_from(at).unwrap_or(u32::MAX),
            axis: search.axis,
            keep: search.keep,
            last: search.last,
            labels: search.labels.clone(),
        });
    }
    Ok(Public { values, posts })
}

fn step(flat: &Flat, node: &OnnxNode, searches: &BTreeMap<ValueId, Search>) -> Result<Search, CompileError> {
    let input = |at: usize| {
        node.input(at)
            .ok_or_else(|| refuse(node, format!("input {at} is missing")))
    };
    match node.op.as_str() {
        "ArgMax" => {
            let x = input(0)?;
            let shape = flat
                .shapes
                .get(&x)
                .ok_or_else(|| refuse(node, "it does not follow a computed tensor"))?;
            let axis =
                float::axis(node.int("axis").unwrap_or(0), shape.len()).map_err(|reason| refuse(node, reason))?;
            Ok(Search {
                source: before_softmax(flat, x, axis),
                axis: u8::try_from(axis).unwrap_or(u8::MAX),
                keep: node.int("keepdims").unwrap_or(1) != 0,
                last: node.int("select_last_index").unwrap_or(0) != 0,
                labels: Labels::Position,
            })
        }
        "ArrayFeatureExtractor" | "Gather" => {
            let table = flat.model.constants.get(&input(0)?);
            let table = table.ok_or_else(|| refuse(node, "labels must be constant"))?;
            let search = searches
                .get(&input(1)?)
                .filter(|search| search.labels == Labels::Position);
            let mut search = search.ok_or_else(|| refuse(node, "it does not follow ArgMax"))?.clone();
            search.labels = labels(table).ok_or_else(|| refuse(node, "labels must be integers or texts"))?;
            Ok(search)
        }
        "Cast" | "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" => {
            let search = searches.get(&input(0)?);
            let mut search = search.ok_or_else(|| refuse(node, "it does not follow ArgMax"))?.clone();
            if matches!(node.op.as_str(), "Reshape" | "Squeeze" | "Flatten") {
                search.keep = false;
            }
            Ok(search)
        }
        op => Err(refuse(
            node,
            format!("{op} of a position of a maximum is not supported: ArgMax must end the model"),
        )),
    }
}

fn labels(table: &Tensor) -> Option<Labels> {
    match &table.data {
        Data::Int(values) => Some(Labels::Integers(values.clone())),
        Data::Text(values) => Some(Labels::Texts(values.clone())),
        Data::Float(_) => None,
    }
}

/// The logits of a softmax along the same axis: their maximum is at the same place, and they have no ties by rounding.
fn before_softmax(flat: &Flat, mut x: ValueId, axis: usize) -> ValueId {
    for _ in 0..8 {
        let node = flat.producers.get(&x).and_then(|number| flat.model.nodes.get(*number));
        let Some((node, source)) = node.and_then(|node| Some((node, node.input(0)?))) else {
            break;
        };
        let same = flat.shapes.get(&source) == flat.shapes.get(&x);
        let rank = flat.shapes.get(&x).map_or(0, Vec::len);
        let along = node.int("axis").unwrap_or(if flat.model.opset >= 13 { -1 } else { 1 });
        let exact = float::axis(along, rank) == Ok(axis) && (flat.model.opset >= 13 || axis + 1 == rank);
        match node.op.as_str() {
            "Identity" | "Cast" if same => x = source,
            "Softmax" if exact => return source,
            _ => break,
        }
    }
    x
}
