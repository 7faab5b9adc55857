//! Inputs and outputs as JSON: `{"NAME": nested numbers}`, or a list of such objects for several requests.

use std::path::Path;

use opg_integer_program::{
    program::Graph,
    request,
    response::{self, ResponseError},
};
use opg_zkml::Request;
use serde_json::{Value, value::RawValue};

use super::{
    files::{MAX_JSON, read},
    requests::Requests,
};
use crate::failure::Failure;

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

/// The output file of proven requests.
pub(super) fn document(graph: &Graph, requests: &[Request], list: bool) -> Value {
    let mut objects = requests
        .iter()
        .map(|request| response::document(graph, &request.outputs));
    if list {
        objects.collect()
    } else {
        objects.next().unwrap_or_default()
    }
}

/// Integers of the outputs that a file states. Labels, where the file has them, must be the ones of these integers.
///
/// What is not of the right form is a wrong file; what the program could never give is a failed check.
pub(super) fn outputs(graph: &Graph, path: &Path) -> Result<Vec<Vec<Vec<i64>>>, Failure> {
    let bytes = read(path, "output", MAX_JSON)?;
    let requests = Requests::parse(&bytes)
        .map_err(|error| Failure::usage(format!("{} holds no outputs: {error}", path.display())))?;
    let one = |(number, object): (usize, &&RawValue)| {
        let place = place(path, requests.list, number);
        response::read(graph, object.get().as_bytes()).map_err(|error| match error {
            ResponseError::Impossible(reason) => Failure::failed(eyre::eyre!("{place}: {reason}")),
            error => Failure::usage(format!("{place}: {error}")),
        })
    };
    requests.objects.iter().enumerate().map(one).collect()
}
