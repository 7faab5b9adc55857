//! The float evaluator: what the ONNX model computes, for calibration and for measuring the integer program.
//!
//! Values are binary32; sums are accumulated in binary64, so results agree with other runtimes up to their rounding.

mod elementwise;
mod linear;
mod rearrange;
mod reduce;

pub(crate) use elementwise::{is_unary, unary};
pub(crate) use linear::{image, transposed, window};
pub(crate) use rearrange::{cuts, filler, margins, parts};
pub(crate) use reduce::{axes as reduced_axes, keeps, pool_counts, pool_window, softmax_axes};

use crate::{
    onnx::{Attribute, Model, OnnxNode, ValueId},
    tensor::{Data, Tensor},
};
use std::collections::BTreeMap;

/// Why a node was not evaluated: a sentence for people.
pub(crate) type Reason = String;

/// Inputs of a node.
pub(crate) struct Args<'a> {
    pub(crate) node: &'a OnnxNode,
    pub(crate) opset: i64,
    pub(crate) tensors: Vec<Option<&'a Tensor>>,
}

impl<'a> Args<'a> {
    pub(crate) fn get(&self, at: usize) -> Option<&'a Tensor> {
        self.tensors.get(at).copied().flatten()
    }

    pub(crate) fn need(&self, at: usize) -> Result<&'a Tensor, Reason> {
        self.get(at).ok_or_else(|| format!("input {at} is missing"))
    }

    /// Real numbers of an input.
    pub(crate) fn floats(&self, at: usize) -> Result<(&'a [usize], &'a [f32]), Reason> {
        let tensor = self.need(at)?;
        let values = tensor.as_floats().ok_or_else(|| format!("input {at} is not float32"))?;
        Ok((&tensor.shape, values))
    }

    /// A list of integers, from an attribute before the operator set moved it into an input.
    pub(crate) fn list(&self, attribute: &str, at: usize) -> Result<Option<Vec<i64>>, Reason> {
        if let Some(values) = self.node.ints(attribute) {
            return Ok(Some(values.to_vec()));
        }
        match self.get(at) {
            None => Ok(None),
            Some(tensor) => Ok(Some(
                tensor
                    .as_ints()
                    .ok_or_else(|| format!("{attribute} are not int64"))?
                    .to_vec(),
            )),
        }
    }
}

/// The non-negative form of an axis.
pub(crate) fn axis(axis: i64, rank: usize) -> Result<usize, Reason> {
    let signed = i64::try_from(rank).unwrap_or(i64::MAX);
    let at = if axis < 0 { axis.saturating_add(signed) } else { axis };
    usize::try_from(at)
        .ok()
        .filter(|at| *at < rank)
        .ok_or_else(|| format!("axis {axis} is none of {rank} dimensions"))
}

/// Most products of one node: far beyond any model that is proven, and seconds of work.
const MAX_PRODUCTS: f64 = 68_719_476_736.0;

/// Elements that a node's result is made of, for operators that read inputs many times over.
fn products(args: &Args<'_>) -> f64 {
    let size = |at: usize| args.get(at).map_or(1.0, |tensor| tensor.len() as f64);
    let last = |at: usize| {
        args.get(at)
            .and_then(|tensor| tensor.shape.last())
            .map_or(1.0, |dim| *dim as f64)
    };
    let kernel = || {
        args.node
            .ints("kernel_shape")
            .unwrap_or_default()
            .iter()
            .fold(1.0, |area, size| area * (*size as f64).abs())
    };
    match args.node.op.as_str() {
        "MatMul" | "Gemm" => size(0) * size(1) / last(0).max(1.0),
        // Padding can make the result larger than the image, at most by the bound on results.
        "Conv" => size(0).max(1.0) * size(1),
        "MaxPool" | "AveragePool" => size(0) * kernel(),
        _ => 0.0,
    }
}

/// Evaluates one node.
pub(crate) fn evaluate(args: &Args<'_>) -> Result<Vec<Tensor>, Reason> {
    let node = args.node;
    if products(args) > MAX_PRODUCTS {
        return Err("it needs more than 2^36 products: the model is too large".to_owned());
    }
    let one = |tensor: Tensor| vec![tensor];
    if is_unary(&node.op) {
        let (shape, values) = args.floats(0)?;
        let function = unary(node).ok_or("an attribute is not understood")?;
        return Ok(one(Tensor::floats(
            shape.to_vec(),
            values.iter().map(|x| function(f64::from(*x)) as f32).collect(),
        )));
    }
    match node.op.as_str() {
        "Constant" => constant(node).map(one),
        "Identity" | "Dropout" => args.need(0).cloned().map(one),
        "Cast" => rearrange::cast(args).map(one),
        "Clip" | "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Min" | "Max" | "PRelu" | "Where" | "Equal" => {
            elementwise::binary(args).map(one)
        }
        "MatMul" => linear::matmul(args).map(one),
        "Gemm" => linear::gemm(args).map(one),
        "Conv" => linear::conv(args).map(one),
        "MaxPool" | "AveragePool" => reduce::pool(args).map(one),
        "GlobalAveragePool" | "GlobalMaxPool" | "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceSumSquare" => {
            reduce::reduce(args).map(one)
        }
        "Softmax" => reduce::softmax(args).map(one),
        "Concat" | "Slice" | "Reshape" | "Flatten" | "Transpose" | "Squeeze" | "Unsqueeze" | "Expand" | "Pad"
        | "Gather" | "Shape" | "ConstantOfShape" | "Range" => rearrange::rearrange(args).map(one),
        "Split" => rearrange::split(args),
        "ArgMax" => reduce::argmax(args).map(one),
        _ => Err(unsupported(&node.op)),
    }
}

/// What to say about an operator that is not compiled.
pub(crate) fn unsupported(op: &str) -> Reason {
    let way_out = match op {
        "TreeEnsembleClassifier" | "TreeEnsembleRegressor" | "TreeEnsemble" => {
            "decision trees branch on data; train a neural or linear model, or use another verification mode"
        }
        "LSTM" | "GRU" | "RNN" | "Loop" | "Scan" | "If" => {
            "recurrence and control flow are not compiled; export a fixed number of unrolled steps"
        }
        _ => "replace it by supported operators before the export, or use another verification mode",
    };
    format!("this operator is not supported: {way_out}")
}

fn constant(node: &OnnxNode) -> Result<Tensor, Reason> {
    let mut attributes = node.attributes.iter().filter(|(name, _)| name.starts_with("value"));
    match attributes.next().map(|(_, value)| value) {
        Some(Attribute::Tensor(tensor)) => Ok(tensor.clone()),
        Some(Attribute::Float(value)) => Ok(Tensor::scalar(*value)),
        Some(Attribute::Int(value)) => Ok(Tensor::ints(Vec::new(), vec![*value])),
        Some(Attribute::Floats(values)) => Ok(Tensor::floats(vec![values.len()], values.clone())),
        Some(Attribute::Ints(values)) => Ok(Tensor::ints(vec![values.len()], values.clone())),
        Some(Attribute::Texts(values)) => Ok(Tensor {
            shape: vec![values.len()],
            data: Data::Text(values.clone()),
        }),
        _ => Err("it has no value that is understood".to_owned()),
    }
}

/// Evaluates all nodes but those in `skip`, for one request.
///
/// # Errors
/// The number of the node and what is wrong with it.
pub(crate) fn run(
    model: &Model,
    skip: &[bool],
    inputs: &[Tensor],
) -> Result<BTreeMap<ValueId, Tensor>, (usize, Reason)> {
    let mut values: BTreeMap<ValueId, Tensor> = BTreeMap::new();
    for (input, tensor) in model.inputs.iter().zip(inputs) {
        values.insert(input.value, tensor.clone());
    }
    for (number, node) in model.nodes.iter().enumerate() {
        if skip.get(number).copied().unwrap_or(false) {
            continue;
        }
        let find = |value: &ValueId| model.constants.get(value).or_else(|| values.get(value));
        let mut tensors = Vec::with_capacity(node.inputs.len());
        for input in &node.inputs {
            tensors.push(match input {
                None => None,
                Some(value) => Some(find(value).ok_or_else(|| (number, "an input has no value".to_owned()))?),
            });
        }
        let results = evaluate(&Args {
            node,
            opset: model.opset,
            tensors,
        })
        .map_err(|reason| (number, reason))?;
        for (output, tensor) in node.outputs.iter().zip(results) {
            if let Some(output) = output {
                values.insert(*output, tensor);
            }
        }
    }
    Ok(values)
}
