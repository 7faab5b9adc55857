//! The model in few operators: constants folded, composed operators expanded, shapes known.
//!
//! One request is evaluated on the way, so every shape is known when a node is looked at.

use super::CompileError;
use crate::{
    float::{self, Args, axis},
    onnx::{Attribute, Model, OnnxNode, ValueId},
    tensor::{Data, Tensor},
};
use std::collections::{BTreeMap, BTreeSet};

/// Most constant elements that folding may create.
const MAX_FOLDED: usize = 1 << 28;

/// The model after expansion.
pub(super) struct Flat {
    /// Nodes, none of which has constant inputs only.
    pub(super) model: Model,
    /// Shape of every value that was evaluated.
    pub(super) shapes: BTreeMap<ValueId, Vec<usize>>,
    /// Node that makes a value.
    pub(super) producers: BTreeMap<ValueId, usize>,
    /// How many nodes and outputs use a value.
    pub(super) uses: BTreeMap<ValueId, usize>,
    /// Nodes computed in the clear from outputs: `ArgMax` and what follows it.
    pub(super) clear: Vec<bool>,
}

/// An error of a node.
pub(super) fn refuse(node: &OnnxNode, reason: impl Into<String>) -> CompileError {
    CompileError::Node {
        node: node.name.clone(),
        op: node.op.clone(),
        reason: reason.into(),
    }
}

struct Expander {
    model: Model,
    values: BTreeMap<ValueId, Tensor>,
    nodes: Vec<OnnxNode>,
    clear: Vec<bool>,
    clear_values: BTreeSet<ValueId>,
    folded: usize,
}

/// Expands a model along one request.
pub(super) fn flatten(mut model: Model, sample: &[Tensor]) -> Result<Flat, CompileError> {
    let source = std::mem::take(&mut model.nodes);
    let values = model
        .inputs
        .iter()
        .zip(sample)
        .map(|(input, tensor)| (input.value, tensor.clone()))
        .collect();
    let mut expander = Expander {
        model,
        values,
        nodes: Vec::new(),
        clear: Vec::new(),
        clear_values: BTreeSet::new(),
        folded: 0,
    };
    for node in &source {
        for part in expander.expand(node)? {
            expander.step(part)?;
        }
    }
    let Expander {
        mut model,
        values,
        nodes,
        clear,
        ..
    } = expander;
    let mut shapes: BTreeMap<ValueId, Vec<usize>> = values.into_iter().map(|(id, tensor)| (id, tensor.shape)).collect();
    shapes.extend(model.constants.iter().map(|(id, tensor)| (*id, tensor.shape.clone())));
    let mut producers = BTreeMap::new();
    let mut uses: BTreeMap<ValueId, usize> = BTreeMap::new();
    for (number, node) in nodes.iter().enumerate() {
        for output in node.outputs.iter().flatten() {
            producers.insert(*output, number);
        }
        for input in node.inputs.iter().flatten() {
            *uses.entry(*input).or_default() += 1;
        }
    }
    for output in &model.outputs {
        *uses.entry(*output).or_default() += 1;
    }
    model.nodes = nodes;
    Ok(Flat {
        model,
        shapes,
        producers,
        uses,
        clear,
    })
}

/// A node of the expansion.
fn make(from: &OnnxNode, op: &str, inputs: &[ValueId], output: ValueId) -> OnnxNode {
    OnnxNode {
        name: from.name.clone(),
        op: op.to_owned(),
        inputs: inputs.iter().map(|id| Some(*id)).collect(),
        outputs: vec![Some(output)],
        attributes: BTreeMap::new(),
    }
}

fn with(mut node: OnnxNode, name: &str, value: Attribute) -> OnnxNode {
    node.attributes.insert(name.to_owned(), value);
    node
}

impl Expander {
    fn constant(&mut self, name: &str, tensor: Tensor) -> ValueId {
        let id = self.model.fresh(name);
        self.model.constants.insert(id, tensor);
        id
    }

    fn fresh(&mut self, node: &OnnxNode, part: &str) -> ValueId {
        self.model.fresh(&format!("{}/{part}", node.name))
    }

    fn find(&self, id: Option<ValueId>) -> Option<&Tensor> {
        let id = id?;
        self.model.constants.get(&id).or_else(|| self.values.get(&id))
    }

    fn is_constant(&self, id: Option<ValueId>) -> bool {
        id.is_some_and(|id| self.model.constants.contains_key(&id))
    }

    /// Evaluates a node; keeps it unless everything it reads is constant.
    fn step(&mut self, node: OnnxNode) -> Result<(), CompileError> {
        let public = node.op == "ArgMax" || node.inputs.iter().flatten().any(|id| self.clear_values.contains(id));
        if public {
            self.clear_values.extend(node.outputs.iter().flatten());
            self.nodes.push(node);
            self.clear.push(true);
            return Ok(());
        }
        let constant = node.op == "Shape"
            || node
                .inputs
                .iter()
                .flatten()
                .all(|id| self.model.constants.contains_key(id));
        let mut tensors = Vec::with_capacity(node.inputs.len());
        for input in &node.inputs {
            if input.is_some() && self.find(*input).is_none() {
                return Err(refuse(
                    &node,
                    "an input has no value: it comes from an operator that is not supported",
                ));
            }
            tensors.push(self.find(*input));
        }
        let args = Args {
            node: &node,
            opset: self.model.opset,
            tensors,
        };
        let results = float::evaluate(&args).map_err(|reason| refuse(&node, reason))?;
        if results.iter().any(Tensor::is_empty) && !constant {
            return Err(refuse(&node, "its result has no elements"));
        }
        for (output, tensor) in node.outputs.iter().zip(results) {
            let Some(output) = output else { continue };
            if constant {
                self.folded = self.folded.saturating_add(tensor.len());
                if self.folded > MAX_FOLDED {
                    return Err(refuse(&node, "the constants of the model are too large"));
                }
                self.model.constants.insert(*output, tensor);
            } else {
                self.values.insert(*output, tensor);
            }
        }
        if !constant {
            self.nodes.push(node);
            self.clear.push(false);
        }
        Ok(())
    }

    /// Replaces an operator by simpler ones.
    fn expand(&mut self, node: &OnnxNode) -> Result<Vec<OnnxNode>, CompileError> {
        let plain = |op: &str| {
            let mut node = node.clone();
            node.op = op.to_owned();
            Ok(vec![node])
        };
        match node.op.as_str() {
            "BatchNormalization" => self.batch_norm(node),
            "LayerNormalization" => self.norm(node, true),
            "RMSNormalization" | "SimplifiedLayerNormalization" => self.norm(node, false),
            "Gemm" => self.gemm(node),
            "LinearClassifier" => self.linear_classifier(node),
            "Normalizer" => self.normalizer(node),
            "ZipMap" => plain("Identity"),
            "GlobalAveragePool" => plain("ReduceMean").map(|nodes| self.global(nodes)),
            "GlobalMaxPool" => plain("ReduceMax").map(|nodes| self.global(nodes)),
            "Div" => self.div(node),
            "Sub" => self.sub(node),
            "Pow" => self.pow(node),
            "Where" => self.choose(node),
            _ => Ok(vec![node.clone()]),
        }
    }

    fn ports<const N: usize>(&self, node: &OnnxNode) -> Result<([ValueId; N], ValueId), CompileError> {
        let mut inputs = [0; N];
        for (at, slot) in inputs.iter_mut().enumerate() {
            *slot = node
                .input(at)
                .ok_or_else(|| refuse(node, format!("input {at} is missing")))?;
        }
        Ok((inputs, node.output().ok_or_else(|| refuse(node, "it has no output"))?))
    }

    fn floats(&self, node: &OnnxNode, id: ValueId) -> Result<(Vec<usize>, Vec<f32>), CompileError> {
        let tensor = self
            .model
            .constants
            .get(&id)
            .ok_or_else(|| refuse(node, "a parameter is not constant"))?;
        let values = tensor
            .as_floats()
            .ok_or_else(|| refuse(node, "a parameter is not float32"))?;
        Ok((tensor.shape.clone(), values.to_vec()))
    }

    fn global(&self, mut nodes: Vec<OnnxNode>) -> Vec<OnnxNode> {
        for node in &mut nodes {
            let rank = self.find(node.input(0)).map_or(4, |tensor| tensor.shape.len());
            let axes = (2..rank).map(|at| i64::try_from(at).unwrap_or(0)).collect();
            node.attributes.insert("axes".to_owned(), Attribute::Ints(axes));
        }
        nodes
    }

    /// `(x - mean) * scale / sqrt(var + epsilon) + bias` with constants: one product and one sum.
    fn batch_norm(&mut self, node: &OnnxNode) -> Result<Vec<OnnxNode>, CompileError> {
        let ([x, scale, bias, mean, var], y) = self.ports::<5>(node)?;
        if node.int("training_mode").unwrap_or(0) != 0 {
            return Err(refuse(
                node,
                "training mode: export the model in evaluation mode (model.eval())",
            ));
        }
        let epsilon = f64::from(node.float("epsilon").unwrap_or(1e-5));
        let parts = [scale, bias, mean, var].map(|id| self.floats(node, id).map(|(_, values)| values));
        let [scale, bias, mean, var] = parts;
        let (scale, bias, mean, var) = (scale?, bias?, mean?, var?);
        let rank = self.find(Some(x)).map_or(4, |tensor| tensor.shape.len());
        let mut shape = vec![1; rank.saturating_sub(1).max(1)];
        if let Some(first) = shape.first_mut() {
            *first = scale.len();
        }
        let factor: Vec<f64> = scale
            .iter()
            .zip(&var)
            .map(|(scale, var)| f64::from(*scale) / (f64::from(*var) + epsilon).sqrt())
            .collect();
        let offset: Vec<f32> = bias
            .iter()
            .zip(&mean)
            .zip(&factor)
            .map(|((bias, mean), factor)| (f64::from(*bias) - f64::from(*mean) * factor) as f32)
            .collect();
        let factor = factor.into_iter().map(|factor| factor as f32).collect();
        let factor = self.constant("scale", Tensor::floats(shape.clone(), factor));
        let offset = self.constant("bias", Tensor::floats(shape, offset));
        let product = self.fresh(node, "product");
        Ok(vec![
            make(node, "Mul", &[x, factor], product),
            make(node, "Add", &[product, offset], y),
        ])
    }

    /// Layer or root-mean-square normalisation over the last dimensions.
    fn norm(&mut self, node: &OnnxNode, centred: bool) -> Result<Vec<OnnxNode>, CompileError> {
        let ([x, scale], y) = self.ports::<2>(node)?;
        let rank = self.find(Some(x)).map_or(1, |tensor| tensor.shape.len());
        let first = axis(node.int("axis").unwrap_or(-1), rank).map_err(|reason| refuse(node, reason))?;
        let axes = Attribute::Ints((first..rank).map(|at| i64::try_from(at).unwrap_or(0)).collect());
        let epsilon = self.constant("epsilon", Tensor::scalar(node.float("epsilon").unwrap_or(1e-5)));
        let mut out = Vec::new();
        let mut c = x;
        if centred {
            let mean = self.fresh(node, "mean");
            out.push(with(make(node, "ReduceMean", &[x], mean), "axes", axes.clone()));
            c = self.fresh(node, "centred");
            out.push(make(node, "Sub", &[x, mean], c));
        }
        let [square, var, shifted, root, inverse, normal] =
            ["square", "variance", "shifted", "root", "inverse", "normal"].map(|part| self.fresh(node, part));
        out.push(make(node, "Mul", &[c, c], square));
        out.push(with(make(node, "ReduceMean", &[square], var), "axes", axes));
        out.push(make(node, "Add", &[var, epsilon], shifted));
        out.push(make(node, "Sqrt", &[shifted], root));
        out.push(make(node, "Reciprocal", &[root], inverse));
        out.push(make(node, "Mul", &[c, inverse], normal));
        match node.input(2) {
            Some(bias) => {
                let scaled = self.fresh(node, "scaled");
                out.push(make(node, "Mul", &[normal, scale], scaled));
                out.push(make(node, "Add", &[scaled, bias], y));
            }
            None => out.push(make(node, "Mul", &[normal, scale], y)),
        }
        Ok(out)
    }

    /// A product and a sum, with all factors in the constants.
    fn gemm(&mut self, node: &OnnxNode) -> Result<Vec<OnnxNode>, CompileError> {
        let ([x, w], y) = self.ports::<2>(node)?;
        if node.int("transA").unwrap_or(0) != 0 || !self.is_constant(Some(w)) {
            return Err(refuse(
                node,
                "only Gemm with constant B and transA = 0 is compiled: use MatMul and Transpose",
            ));
        }
        let (shape, values) = self.floats(node, w)?;
        let (shape, mut values) = float::transposed(&shape, &values, node.int("transB").unwrap_or(0) != 0)
            .map_err(|reason| refuse(node, reason))?;
        let alpha = node.float("alpha").unwrap_or(1.0);
        for value in &mut values {
            *value *= alpha;
        }
        let name = self.model.name(w).to_owned();
        let weights = self.constant(&name, Tensor::floats(shape.to_vec(), values));
        let Some(bias) = node.input(2) else {
            return Ok(vec![make(node, "MatMul", &[x, weights], y)]);
        };
        let product = self.fresh(node, "product");
        let mut scaled = bias;
        let beta = node.float("beta").unwrap_or(1.0);
        let mut out = vec![make(node, "MatMul", &[x, weights], product)];
        if beta != 1.0 {
            let factor = self.constant("beta", Tensor::scalar(beta));
            scaled = self.fresh(node, "bias");
            out.push(make(node, "Mul", &[bias, factor], scaled));
        }
        out.push(make(node, "Add", &[product, scaled], y));
        Ok(out)
    }

    /// scikit-learn's linear models: scores, their softmax, and the label of the greatest.
    fn linear_classifier(&mut self, node: &OnnxNode) -> Result<Vec<OnnxNode>, CompileError> {
        let x = node.input(0).ok_or_else(|| refuse(node, "input 0 is missing"))?;
        let intercepts = node.floats("intercepts").unwrap_or_default().to_vec();
        let coefficients = node.floats("coefficients").unwrap_or_default().to_vec();
        let labels = match (
            node.attributes.get("classlabels_ints"),
            node.attributes.get("classlabels_strings"),
        ) {
            (Some(Attribute::Ints(values)), _) if !values.is_empty() => Data::Int(values.clone()),
            (_, Some(Attribute::Texts(values))) if !values.is_empty() => Data::Text(values.clone()),
            _ => return Err(refuse(node, "it has no class labels")),
        };
        let classes = match &labels {
            Data::Int(values) => values.len(),
            Data::Text(values) => values.len(),
            Data::Float(_) => 0,
        };
        if classes == 0 || !coefficients.len().is_multiple_of(classes) || intercepts.len() != classes {
            return Err(refuse(
                node,
                "one row of coefficients and one intercept per class are needed (binary models with a single row are not compiled)",
            ));
        }
        let features = coefficients.len() / classes;
        let (shape, columns) =
            float::transposed(&[classes, features], &coefficients, true).map_err(|reason| refuse(node, reason))?;
        let weights = self.constant("coefficients", Tensor::floats(shape.to_vec(), columns));
        let bias = self.constant("intercepts", Tensor::floats(vec![classes], intercepts));
        let table = self.constant(
            "classes",
            Tensor {
                shape: vec![classes],
                data: labels,
            },
        );
        let scores_out = node.outputs.get(1).copied().flatten();
        let [product, position] = ["product", "position"].map(|part| self.fresh(node, part));
        let mut out = vec![make(node, "MatMul", &[x, weights], product)];
        let raw = match node.text("post_transform").unwrap_or("NONE") {
            "NONE" => scores_out.unwrap_or_else(|| self.fresh(node, "scores")),
            _ => self.fresh(node, "scores"),
        };
        out.push(make(node, "Add", &[product, bias], raw));
        match (node.text("post_transform").unwrap_or("NONE"), scores_out) {
            ("NONE", _) | (_, None) => {}
            ("SOFTMAX", Some(y)) => out.push(with(make(node, "Softmax", &[raw], y), "axis", Attribute::Int(1))),
            ("LOGISTIC", Some(y)) => out.push(make(node, "Sigmoid", &[raw], y)),
            (other, _) => {
                return Err(refuse(
                    node,
                    format!("post_transform {other} is not supported: use SOFTMAX, LOGISTIC or NONE"),
                ));
            }
        }
        if let Some(label) = node.output() {
            let search = with(make(node, "ArgMax", &[raw], position), "axis", Attribute::Int(1));
            out.push(with(search, "keepdims", Attribute::Int(0)));
            out.push(make(node, "ArrayFeatureExtractor", &[table, position], label));
        }
        Ok(out)
    }

    /// Rows divided by their sum of absolute values; nothing to do after a softmax.
    fn normalizer(&mut self, node: &OnnxNode) -> Result<Vec<OnnxNode>, CompileError> {
        let ([x], y) = self.ports::<1>(node)?;
        if node.text("norm").unwrap_or("MAX") != "L1" {
            return Err(refuse(node, "only the L1 norm is supported"));
        }
        let softmax = self
            .nodes
            .iter()
            .any(|other| other.op == "Softmax" && other.output() == Some(x));
        if softmax {
            return Ok(vec![make(node, "Identity", &[x], y)]);
        }
        let [sizes, sum, inverse] = ["absolute", "sum", "inverse"].map(|part| self.fresh(node, part));
        Ok(vec![
            make(node, "Abs", &[x], sizes),
            with(
                make(node, "ReduceSum", &[sizes], sum),
                "axes",
                Attribute::Ints(vec![-1]),
            ),
            make(node, "Reciprocal", &[sum], inverse),
            make(node, "Mul", &[x, inverse], y),
        ])
    }

    fn div(&mut self, node: &OnnxNode) -> Result<Vec<OnnxNode>, CompileError> {
        let ([a, b], y) = self.ports::<2>(node)?;
        let integers = self.find(Some(a)).is_some_and(|tensor| tensor.as_ints().is_some());
        if integers || (self.is_constant(Some(a)) && self.is_constant(Some(b))) {
            return Ok(vec![node.clone()]);
        }
        let inverse = self.fresh(node, "inverse");
        Ok(vec![
            make(node, "Reciprocal", &[b], inverse),
            make(node, "Mul", &[a, inverse], y),
        ])
    }

    /// A constant is subtracted by adding its negative, and a tensor from a constant by negating it first.
    fn sub(&mut self, node: &OnnxNode) -> Result<Vec<OnnxNode>, CompileError> {
        let ([a, b], y) = self.ports::<2>(node)?;
        let integers = self.find(Some(a)).is_some_and(|tensor| tensor.as_ints().is_some());
        if integers || self.is_constant(Some(a)) == self.is_constant(Some(b)) {
            return Ok(vec![node.clone()]);
        }
        let negative = self.fresh(node, "negative");
        Ok(vec![
            make(node, "Neg", &[b], negative),
            make(node, "Add", &[a, negative], y),
        ])
    }

    fn pow(&mut self, node: &OnnxNode) -> Result<Vec<OnnxNode>, CompileError> {
        let ([x, exponent], y) = self.ports::<2>(node)?;
        let exponent = self.model.constants.get(&exponent).and_then(Tensor::single);
        Ok(match exponent {
            Some(2.0) => vec![make(node, "Mul", &[x, x], y)],
            Some(0.5) => vec![make(node, "Sqrt", &[x], y)],
            Some(-1.0) => vec![make(node, "Reciprocal", &[x], y)],
            Some(-0.5) => {
                let root = self.fresh(node, "root");
                vec![make(node, "Sqrt", &[x], root), make(node, "Reciprocal", &[root], y)]
            }
            _ => vec![node.clone()],
        })
    }

    /// A choice by a constant mask: `x * mask + y * (1 - mask)`, one of the two branches constant.
    fn choose(&mut self, node: &OnnxNode) -> Result<Vec<OnnxNode>, CompileError> {
        let ([mask, x, other], y) = self.ports::<3>(node)?;
        if self.is_constant(Some(x)) && self.is_constant(Some(other)) {
            return Ok(vec![node.clone()]);
        }
        let flags = self.model.constants.get(&mask).and_then(Tensor::as_ints);
        let flags = flags
            .ok_or_else(|| refuse(node, "only a constant condition is supported"))?
            .to_vec();
        let shape = self
            .model
            .constants
            .get(&mask)
            .map(|tensor| tensor.shape.clone())
            .unwrap_or_default();
        let (kept, constant, keep_if) = if self.is_constant(Some(other)) {
            (x, other, true)
        } else {
            (other, x, false)
        };
        let value = self.model.constants.get(&constant).and_then(Tensor::single);
        let value = value
            .ok_or_else(|| refuse(node, "one branch must be a constant scalar"))?
            .clamp(-1e9, 1e9);
        let keep: Vec<bool> = flags.iter().map(|flag| (*flag != 0) == keep_if).collect();
        let factor = keep.iter().map(|keep| if *keep { 1.0 } else { 0.0 }).collect();
        let offset = keep.iter().map(|keep| if *keep { 0.0 } else { value }).collect();
        let factor = self.constant("mask", Tensor::floats(shape.clone(), factor));
        let offset = self.constant("masked", Tensor::floats(shape, offset));
        let product = self.fresh(node, "product");
        Ok(vec![
            make(node, "Mul", &[kept, factor], product),
            make(node, "Add", &[product, offset], y),
        ])
    }
}
