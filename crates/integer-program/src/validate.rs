//! Checks a whole graph or program: counts, names, types, depth, and that nothing can wrap.

use crate::{
    derive::{derive, is_act},
    error::ProgramError,
    program::{ACC_LIMIT, Graph, InputEncoding, Labels, Op, Operand, Post, Program, Sort, TensorType},
    range::Range,
    shape::elements,
};
use std::collections::BTreeSet;

/// Most nodes.
pub const MAX_NODES: usize = 16_384;
/// Most constants.
pub const MAX_CONSTANTS: usize = 16_384;
/// Most tables.
pub const MAX_TABLES: usize = 256;
/// Most inputs, outputs, and computations on outputs, each.
pub const MAX_PORTS: usize = 64;
/// Most nodes on a path from an input to an output.
pub const MAX_DEPTH: usize = 4_096;
/// Most activations, one computed from the other, on a path from an input to an output. It is what keeps a program from hashing
/// what it commits to (docs/specs/zk-proof.md, section 4); a transformer needs about 26 for a layer.
pub const MAX_COMMITTED_DEPTH: usize = 640;
/// Most elements of all constants.
pub const MAX_CONSTANT_ELEMENTS: usize = 1 << 28;
/// Most elements of all results of nodes.
pub const MAX_NODE_ELEMENTS: usize = 1 << 30;
/// Longest name in bytes.
pub const MAX_NAME: usize = 128;
/// Most classes of an [`Post::ArgMax`].
pub const MAX_LABELS: usize = 1 << 16;

fn at_most(what: &'static str, got: usize, limit: usize) -> Result<(), ProgramError> {
    if got <= limit {
        Ok(())
    } else {
        Err(ProgramError::TooMany { what, limit, got })
    }
}

fn name(what: &'static str, index: usize, name: &str) -> Result<(), ProgramError> {
    if name.len() <= MAX_NAME {
        return Ok(());
    }
    Err(ProgramError::Name {
        what,
        index,
        limit: MAX_NAME,
        got: name.len(),
    })
}

const fn positive(scale: f64) -> bool {
    scale.is_finite() && scale > 0.0
}

impl Graph {
    /// Checks everything that can be checked without the weights. Ranges of products with constants are bounded by
    /// what the graph declares; [`Program::validate`] compares them with the weights.
    ///
    /// # Errors
    /// [`ProgramError`] for the first thing that is wrong.
    pub fn validate(&self) -> Result<(), ProgramError> {
        self.check(None)
    }

    fn check(&self, weights: Option<&crate::constant::Weights>) -> Result<(), ProgramError> {
        at_most("nodes", self.nodes.len(), MAX_NODES)?;
        at_most("constants", self.constants.len(), MAX_CONSTANTS)?;
        at_most("tables", self.tables.len(), MAX_TABLES)?;
        at_most("inputs", self.inputs.len(), MAX_PORTS)?;
        at_most("outputs", self.outputs.len(), MAX_PORTS)?;
        at_most("computations on outputs", self.posts.len(), MAX_PORTS)?;
        if self.inputs.is_empty() {
            return Err(ProgramError::Missing { what: "input" });
        }
        if self.outputs.is_empty() {
            return Err(ProgramError::Missing { what: "output" });
        }
        at_most("bytes of the quantiser's name", self.metadata.quantiser.len(), MAX_NAME)?;
        at_most("bytes of the profile's name", self.metadata.profile.len(), MAX_NAME)?;
        self.check_inputs()?;
        self.check_constants()?;
        self.check_tables()?;
        self.check_nodes(weights)?;
        self.check_outputs()
    }

    fn check_inputs(&self) -> Result<(), ProgramError> {
        let mut names = BTreeSet::new();
        for (index, input) in self.inputs.iter().enumerate() {
            name("input", index, &input.name)?;
            let refuse = |reason| ProgramError::Port {
                what: "input",
                index,
                reason,
            };
            if !names.insert(&input.name) {
                return Err(refuse("another input has the same name"));
            }
            elements(&input.shape).ok_or_else(|| refuse("the shape has no elements or too many"))?;
            match input.encoding {
                InputEncoding::Quantised {
                    scale,
                    zero_point,
                    range,
                } => {
                    if !positive(scale) {
                        return Err(refuse("the scale is not a positive finite number"));
                    }
                    if !is_act(range) {
                        return Err(ProgramError::ActRange {
                            what: "input",
                            index,
                            lo: range.lo,
                            hi: range.hi,
                        });
                    }
                    if !range.contains(i64::from(zero_point)) {
                        return Err(refuse("the zero point lies outside the range"));
                    }
                }
                InputEncoding::Index { count } => {
                    if count == 0 || count > 1 << 24 {
                        return Err(refuse("an index input has 1 to 2^24 values"));
                    }
                }
            }
        }
        Ok(())
    }

    fn check_constants(&self) -> Result<(), ProgramError> {
        let mut total = 0usize;
        for (index, constant) in self.constants.iter().enumerate() {
            name("constant", index, &constant.name)?;
            let refuse = |reason| ProgramError::Constant { index, reason };
            let count = elements(&constant.shape).ok_or_else(|| refuse("the shape has no elements or too many"))?;
            total = total.saturating_add(count);
            if !constant.range.is_ordered() {
                return Err(refuse("the range is empty"));
            }
            if crate::constant::Width::for_range(constant.range) != Some(constant.width) {
                return Err(refuse("the width is not the narrowest one of the range"));
            }
        }
        at_most("elements of constants", total, MAX_CONSTANT_ELEMENTS)
    }

    fn check_tables(&self) -> Result<(), ProgramError> {
        for (index, table) in self.tables.iter().enumerate() {
            name("table", index, &table.name)?;
            let refuse = |reason| ProgramError::Table { index, reason };
            let lo = table
                .values
                .iter()
                .copied()
                .min()
                .ok_or_else(|| refuse("it has no entries"))?;
            let hi = table
                .values
                .iter()
                .copied()
                .max()
                .ok_or_else(|| refuse("it has no entries"))?;
            let count = i64::try_from(table.values.len()).unwrap_or(i64::MAX);
            let first = i64::from(table.first);
            if !is_act(Range::new(first, first.saturating_add(count - 1))) {
                return Err(refuse("its arguments are not a range of an activation"));
            }
            if !is_act(Range::new(i64::from(lo), i64::from(hi))) {
                return Err(refuse("its values are not in a range of an activation"));
            }
        }
        Ok(())
    }

    fn check_nodes(&self, weights: Option<&crate::constant::Weights>) -> Result<(), ProgramError> {
        let mut depths: Vec<[usize; 2]> = Vec::with_capacity(self.nodes.len());
        let mut total = 0usize;
        for (index, node) in self.nodes.iter().enumerate() {
            name("node", index, &node.name)?;
            let derived = derive(self, weights, index, &node.name, &node.op, &node.ty.shape)?;
            let mut expected = derived.ty;
            if !derived.exact {
                // Without weights the declared range is taken, if no value of it can wrap.
                if !(node.ty.range.is_ordered() && expected.range.covers(node.ty.range)) {
                    return Err(ProgramError::Wraps {
                        node: node.name.clone(),
                        op: node.op.name(),
                        what: "the declared result",
                        lo: node.ty.range.lo,
                        hi: node.ty.range.hi,
                        limit: ACC_LIMIT,
                    });
                }
                expected.range = node.ty.range;
            }
            if expected != node.ty {
                return Err(ProgramError::Declared {
                    node: node.name.clone(),
                    op: node.op.name(),
                    declared: describe(&node.ty),
                    derived: describe(&expected),
                });
            }
            total = total.saturating_add(elements(&node.ty.shape).unwrap_or(usize::MAX));
            at_most("elements of all nodes' results", total, MAX_NODE_ELEMENTS)?;
            let [mut depth, mut activations] = [0usize; 2];
            for operand in node.op.operands() {
                if let Operand::Node(i) = operand
                    && let Some([before, committed]) = depths.get(i as usize)
                {
                    depth = depth.max(*before);
                    activations = activations.max(*committed);
                }
            }
            depth += 1;
            // Other views and the like pass an activation on without computing one.
            let computes = node.ty.sort == Sort::Act && !matches!(node.op, Op::View { .. });
            activations += usize::from(computes);
            at_most("nodes on one path", depth, MAX_DEPTH)?;
            at_most("activations on one path", activations, MAX_COMMITTED_DEPTH)?;
            depths.push([depth, activations]);
        }
        Ok(())
    }

    fn check_outputs(&self) -> Result<(), ProgramError> {
        let mut seen = BTreeSet::new();
        let mut names = BTreeSet::new();
        for (index, output) in self.outputs.iter().enumerate() {
            name("output", index, &output.name)?;
            let refuse = |reason| ProgramError::Port {
                what: "output",
                index,
                reason,
            };
            let Operand::Node(node) = output.source else {
                return Err(refuse("it is not the result of a node"));
            };
            if node as usize >= self.nodes.len() {
                return Err(refuse("there is no such node"));
            }
            if !seen.insert(node) || !names.insert(&output.name) {
                return Err(refuse("the same node or name is an output twice"));
            }
            if !positive(output.scale) {
                return Err(refuse("the scale is not a positive finite number"));
            }
        }
        for (index, post) in self.posts.iter().enumerate() {
            let Post::ArgMax {
                name: text,
                output,
                axis,
                labels,
                ..
            } = post;
            name("computation on outputs", index, text)?;
            let refuse = |reason| ProgramError::Port {
                what: "computation on outputs",
                index,
                reason,
            };
            if !names.insert(text) {
                return Err(refuse("an output has the same name"));
            }
            let source = self
                .outputs
                .get(*output as usize)
                .ok_or_else(|| refuse("there is no such output"))?;
            let ty = self
                .operand(source.source)
                .ok_or_else(|| refuse("there is no such output"))?;
            let classes = *ty
                .shape
                .get(usize::from(*axis))
                .ok_or_else(|| refuse("there is no such axis"))?;
            let count = match labels {
                Labels::Position => classes,
                Labels::Integers(values) => values.len(),
                Labels::Texts(texts) => {
                    for text in texts {
                        name("label", index, text)?;
                    }
                    texts.len()
                }
            };
            at_most("labels", count, MAX_LABELS.max(classes))?;
            if count != classes {
                return Err(refuse("it has not one label per class"));
            }
        }
        Ok(())
    }
}

impl Program {
    /// Checks the graph, that the weights are the declared ones, and from the actual weights that no accumulator can
    /// wrap and that every declared range is the true one.
    ///
    /// # Errors
    /// [`ProgramError`] for the first thing that is wrong.
    pub fn validate(&self) -> Result<(), ProgramError> {
        at_most("constants", self.weights.constants.len(), self.graph.constants.len())?;
        for (index, ty) in self.graph.constants.iter().enumerate() {
            let refuse = |reason| ProgramError::Constant { index, reason };
            let data = self
                .weights
                .constants
                .get(index)
                .ok_or_else(|| refuse("its values are missing"))?;
            if Some(data.len()) != elements(&ty.shape) {
                return Err(refuse("it has not as many values as its shape"));
            }
            if data.width() != ty.width {
                return Err(refuse("its values have another width than declared"));
            }
            if data.range() != Some(ty.range) {
                return Err(refuse("its least and greatest value are not the declared range"));
            }
        }
        self.graph.check(Some(&self.weights))
    }
}

fn describe(ty: &TensorType) -> String {
    let sort = match ty.sort {
        Sort::Act => "activation",
        Sort::Acc => "accumulator",
        Sort::Index => "index",
    };
    format!("{sort} {:?} in {}..={}", ty.shape, ty.range.lo, ty.range.hi)
}
