//! Walks a `GraphProto` and its subgraphs.

use super::{DOMAIN, DType, Limits, ML_DOMAIN, OnnxError, ValueInfo, ValueType, short, tensor, types};
use crate::protobuf::{Message, WireError};
use std::collections::{BTreeMap, BTreeSet, HashSet};

/// What the walk found.
pub(super) struct Walked {
    pub(super) name: String,
    pub(super) inputs: Vec<ValueInfo>,
    pub(super) outputs: Vec<ValueInfo>,
    pub(super) operators: BTreeSet<String>,
    pub(super) nodes: usize,
    pub(super) initializer_bytes: u64,
    pub(super) initializer_elements: BTreeMap<DType, u64>,
}

/// Names that are defined, innermost graph last.
type Scopes<'a> = Vec<HashSet<&'a str>>;

struct Walker<'a, 'l> {
    opsets: &'l BTreeMap<String, i64>,
    limits: &'l Limits,
    scopes: Scopes<'a>,
    operators: BTreeSet<String>,
    nodes: usize,
    values: usize,
    initializer_bytes: u64,
    initializer_elements: BTreeMap<DType, u64>,
}

/// The parts of a graph, in file order.
#[derive(Default)]
struct Parts<'a> {
    name: &'a str,
    nodes: Vec<&'a [u8]>,
    initializers: Vec<&'a [u8]>,
    inputs: Vec<&'a [u8]>,
    outputs: Vec<&'a [u8]>,
}

/// Walks the main graph.
pub(super) fn walk(bytes: &[u8], opsets: &BTreeMap<String, i64>, limits: &Limits) -> Result<Walked, OnnxError> {
    let mut walker = Walker {
        opsets,
        limits,
        scopes: Vec::new(),
        operators: BTreeSet::new(),
        nodes: 0,
        values: 0,
        initializer_bytes: 0,
        initializer_elements: BTreeMap::new(),
    };
    let (name, inputs, outputs) = walker.graph(bytes)?;
    Ok(Walked {
        name,
        inputs,
        outputs,
        operators: walker.operators,
        nodes: walker.nodes,
        initializer_bytes: walker.initializer_bytes,
        initializer_elements: walker.initializer_elements,
    })
}

impl<'a> Walker<'a, '_> {
    /// `GraphProto {1: node, 2: name, 5: initializer, 11: input, 12: output, 13: value_info, 15: sparse_initializer}`.
    fn graph(&mut self, bytes: &'a [u8]) -> Result<(String, Vec<ValueInfo>, Vec<ValueInfo>), OnnxError> {
        if self.scopes.len() >= self.limits.depth {
            return Err(OnnxError::TooMany {
                what: "levels of subgraphs",
                limit: self.limits.depth,
            });
        }
        let main = self.scopes.is_empty();
        let parts = self.parts(bytes)?;
        self.scopes.push(HashSet::new());

        let mut initialised = HashSet::new();
        for bytes in &parts.initializers {
            let checked = tensor::check(bytes, self.limits)?;
            self.initializer_bytes = self.initializer_bytes.saturating_add(checked.bytes);
            let elements = self.initializer_elements.entry(checked.dtype).or_default();
            *elements = elements.saturating_add(checked.elements);
            self.define(checked.name)?;
            initialised.insert(checked.name);
        }
        let mut inputs = Vec::new();
        for bytes in &parts.inputs {
            let (name, ty) = types::value_info(bytes)?;
            // Before IR version 4 every initializer is an input too, with that value as its default.
            if initialised.contains(name) {
                continue;
            }
            self.define(name)?;
            if main {
                inputs.push(self.port(name, ty)?);
            }
        }
        for bytes in &parts.nodes {
            self.node(bytes)?;
        }
        let mut outputs = Vec::new();
        let mut seen = HashSet::new();
        for bytes in &parts.outputs {
            let (name, ty) = types::value_info(bytes)?;
            self.require(name, "graph output")?;
            if main {
                if !seen.insert(name) {
                    return Err(OnnxError::Duplicate { value: short(name) });
                }
                outputs.push(self.port(name, ty)?);
            }
        }
        if main && outputs.is_empty() {
            return Err(OnnxError::Missing { field: "graph.output" });
        }
        self.scopes.pop();
        Ok((short(parts.name), inputs, outputs))
    }

    fn parts(&mut self, bytes: &'a [u8]) -> Result<Parts<'a>, OnnxError> {
        let wire = |source: WireError| OnnxError::Wire {
            message: "GraphProto",
            source,
        };
        let mut parts = Parts::default();
        for field in Message::new(bytes) {
            let field = field.map_err(wire)?;
            let list = match field.number {
                1 => {
                    self.nodes += 1;
                    if self.nodes > self.limits.nodes {
                        return Err(OnnxError::TooMany {
                            what: "nodes",
                            limit: self.limits.nodes,
                        });
                    }
                    &mut parts.nodes
                }
                2 => {
                    parts.name = field.text().map_err(wire)?;
                    continue;
                }
                5 => &mut parts.initializers,
                11 => &mut parts.inputs,
                12 => &mut parts.outputs,
                15 => {
                    return Err(OnnxError::Unsupported {
                        feature: "a sparse initializer",
                    });
                }
                _ => continue,
            };
            if list.len() >= self.limits.values {
                return Err(OnnxError::TooMany {
                    what: "values",
                    limit: self.limits.values,
                });
            }
            list.push(field.bytes().map_err(wire)?);
        }
        // Before IR version 4, initializers are inputs too and do not count as ports.
        let ports = parts
            .inputs
            .len()
            .saturating_sub(parts.initializers.len())
            .max(parts.outputs.len());
        if ports > self.limits.ports {
            return Err(OnnxError::TooMany {
                what: "inputs or outputs",
                limit: self.limits.ports,
            });
        }
        Ok(parts)
    }

    /// An input or output of the main graph: named, typed, and of a type that a call can carry.
    fn port(&self, name: &str, ty: Option<&[u8]>) -> Result<ValueInfo, OnnxError> {
        let ty = ty.ok_or_else(|| OnnxError::Port {
            port: short(name),
            reason: "has no type",
        })?;
        let ty: ValueType = types::value_type(name, ty, self.limits)?;
        Ok(ValueInfo {
            name: name.to_owned(),
            ty,
        })
    }

    /// `NodeProto {1: input, 2: output, 3: name, 4: op_type, 5: attribute, 7: domain}`.
    fn node(&mut self, bytes: &'a [u8]) -> Result<(), OnnxError> {
        let wire = |source: WireError| OnnxError::Wire {
            message: "NodeProto",
            source,
        };
        let mut name = "";
        let mut operator = "";
        let mut domain = "";
        let mut inputs = Vec::new();
        let mut outputs = Vec::new();
        let mut attributes = Vec::new();
        for field in Message::new(bytes) {
            let field = field.map_err(wire)?;
            match field.number {
                1 => inputs.push(field.text().map_err(wire)?),
                2 => outputs.push(field.text().map_err(wire)?),
                3 => name = field.text().map_err(wire)?,
                4 => operator = field.text().map_err(wire)?,
                5 => attributes.push(field.bytes().map_err(wire)?),
                7 => domain = field.text().map_err(wire)?,
                _ => {}
            }
        }
        let domain = match domain {
            "" | DOMAIN => DOMAIN,
            ML_DOMAIN => ML_DOMAIN,
            other => {
                return Err(OnnxError::Domain {
                    domain: short(other),
                    operator: short(operator),
                });
            }
        };
        if !self.opsets.contains_key(domain) {
            return Err(OnnxError::Domain {
                domain: domain.to_owned(),
                operator: short(operator),
            });
        }
        // Operators have names of letters, digits and underscores; anything else is not one.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if operator.is_empty() || operator.len() > 64 || !operator.bytes().all(plain) {
            return Err(OnnxError::Port {
                port: short(name),
                reason: "the node has no operator",
            });
        }
        let by = if name.is_empty() { operator } else { name };
        for input in inputs {
            // An omitted optional input has an empty name.
            if !input.is_empty() {
                self.require(input, by)?;
            }
        }
        for attribute in attributes {
            self.attribute(attribute)?;
        }
        for output in outputs {
            if !output.is_empty() {
                self.define(output)?;
            }
        }
        self.operators.insert(format!("{domain}.{operator}"));
        Ok(())
    }

    /// `AttributeProto {5: t, 6: g, 10: tensors, 11: graphs, 22: sparse_tensor, 23: sparse_tensors}`.
    fn attribute(&mut self, bytes: &'a [u8]) -> Result<(), OnnxError> {
        let wire = |source: WireError| OnnxError::Wire {
            message: "AttributeProto",
            source,
        };
        for field in Message::new(bytes) {
            let field = field.map_err(wire)?;
            match field.number {
                5 | 10 => {
                    tensor::check(field.bytes().map_err(wire)?, self.limits)?;
                }
                6 | 11 => {
                    self.graph(field.bytes().map_err(wire)?)?;
                }
                22 | 23 => {
                    return Err(OnnxError::Unsupported {
                        feature: "a sparse tensor",
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn define(&mut self, name: &'a str) -> Result<(), OnnxError> {
        self.values += 1;
        if self.values > self.limits.values {
            return Err(OnnxError::TooMany {
                what: "values",
                limit: self.limits.values,
            });
        }
        if name.is_empty() || name.len() > self.limits.name {
            return Err(OnnxError::Port {
                port: short(name),
                reason: "the name is empty or too long",
            });
        }
        let fresh = self.scopes.last_mut().is_none_or(|scope| scope.insert(name));
        if fresh {
            Ok(())
        } else {
            Err(OnnxError::Duplicate { value: short(name) })
        }
    }

    fn require(&self, name: &str, by: &str) -> Result<(), OnnxError> {
        if self.scopes.iter().any(|scope| scope.contains(name)) {
            return Ok(());
        }
        Err(OnnxError::Undefined {
            value: short(name),
            by: short(by),
        })
    }
}
