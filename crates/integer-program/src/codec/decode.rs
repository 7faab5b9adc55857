//! Reads canonical bytes. Every list is bounded by the CBOR reader, every number by its type; what the numbers mean is
//! checked by validation afterwards.

use super::{GRAPH_LIMITS, GRAPH_MAGIC, PROGRAM_LIMITS, PROGRAM_MAGIC};
use crate::{
    constant::{ConstantData, Weights, Width},
    error::ProgramError,
    program::{
        ConstantType, Graph, Input, InputEncoding, Labels, Metadata, Node, Op, Operand, Output, Post, Program,
        SEMANTICS_VERSION, Shift, Sort, Table, TensorType, Window,
    },
    range::Range,
    view::ViewMap,
};
use opg_primitives::cbor::{Value, decode_strict};

type Read<T> = Result<T, ProgramError>;

const fn bad(field: &'static str, reason: &'static str) -> ProgramError {
    ProgramError::Encoding { field, reason }
}

pub(super) fn program(bytes: &[u8]) -> Read<Program> {
    let value = decode_strict(bytes, PROGRAM_LIMITS)?;
    let [magic, graph_bytes, weights] = fields(&value, "program")?;
    if text(magic, "program.magic")? != PROGRAM_MAGIC {
        return Err(bad("program.magic", "this is not an integer program"));
    }
    let graph = graph(blob(graph_bytes, "program.graph")?)?;
    let weights = list(weights, "program.weights")?;
    if weights.len() != graph.constants.len() {
        return Err(bad("program.weights", "not one entry per constant of the graph"));
    }
    let mut constants = Vec::with_capacity(weights.len());
    for (value, ty) in weights.iter().zip(&graph.constants) {
        let bytes = blob(value, "program.weights")?;
        let data = ConstantData::from_le_bytes(bytes, ty.width);
        constants.push(data.ok_or(bad("program.weights", "not a whole number of elements"))?);
    }
    Ok(Program {
        graph,
        weights: Weights { constants },
    })
}

pub(super) fn graph(bytes: &[u8]) -> Read<Graph> {
    let value = decode_strict(bytes, GRAPH_LIMITS)?;
    // The version is read first, so that a newer layout is refused by name.
    let [magic, version, rest @ ..] = list(&value, "graph")? else {
        return Err(bad("graph", "expected a list"));
    };
    if text(magic, "graph.magic")? != GRAPH_MAGIC {
        return Err(bad("graph.magic", "this is not an integer graph"));
    }
    let version = uint(version, "graph.version")?;
    if version != u64::from(SEMANTICS_VERSION) {
        return Err(ProgramError::Version {
            expected: SEMANTICS_VERSION,
            got: version,
        });
    }
    let [metadata, inputs, constants, tables, nodes, outputs, posts] = rest else {
        return Err(bad("graph", "another number of fields than 9"));
    };
    let [quantiser, profile, source] = fields(metadata, "metadata")?;
    let source = blob(source, "metadata.source")?;
    Ok(Graph {
        metadata: Metadata {
            quantiser: text(quantiser, "metadata.quantiser")?.to_owned(),
            profile: text(profile, "metadata.profile")?.to_owned(),
            source: source
                .try_into()
                .map_err(|_| bad("metadata.source", "expected 32 bytes"))?,
        },
        inputs: all(inputs, "inputs", input)?,
        constants: all(constants, "constants", constant)?,
        tables: all(tables, "tables", table)?,
        nodes: all(nodes, "nodes", node)?,
        outputs: all(outputs, "outputs", |value| {
            let [name, source, scale] = fields(value, "output")?;
            Ok(Output {
                name: text(name, "output.name")?.to_owned(),
                source: operand(source)?,
                scale: float(scale, "output.scale")?,
            })
        })?,
        posts: all(posts, "posts", post)?,
    })
}

fn list<'a>(value: &'a Value, field: &'static str) -> Read<&'a [Value]> {
    match value {
        Value::Array(items) => Ok(items),
        _ => Err(bad(field, "expected a list")),
    }
}

fn fields<'a, const N: usize>(value: &'a Value, field: &'static str) -> Read<&'a [Value; N]> {
    list(value, field)?
        .try_into()
        .map_err(|_| bad(field, "another number of fields"))
}

fn all<T>(value: &Value, field: &'static str, read: impl Fn(&Value) -> Read<T>) -> Read<Vec<T>> {
    list(value, field)?.iter().map(read).collect()
}

fn text<'a>(value: &'a Value, field: &'static str) -> Read<&'a str> {
    match value {
        Value::Text(text) => Ok(text),
        _ => Err(bad(field, "expected text")),
    }
}

fn blob<'a>(value: &'a Value, field: &'static str) -> Read<&'a [u8]> {
    match value {
        Value::Bytes(bytes) => Ok(bytes),
        _ => Err(bad(field, "expected bytes")),
    }
}

fn uint(value: &Value, field: &'static str) -> Read<u64> {
    match value {
        Value::Uint(value) => Ok(*value),
        _ => Err(bad(field, "expected an unsigned integer")),
    }
}

fn small<T: TryFrom<u64>>(value: &Value, field: &'static str) -> Read<T> {
    T::try_from(uint(value, field)?).map_err(|_| bad(field, "the integer is too large"))
}

fn signed(value: &Value, field: &'static str) -> Read<i64> {
    let out = match value {
        Value::Uint(value) => i64::try_from(*value).ok(),
        Value::Nint(value) => i64::try_from(*value).ok().map(|value| -1 - value),
        _ => return Err(bad(field, "expected an integer")),
    };
    out.ok_or(bad(field, "the integer is too large"))
}

fn signed32(value: &Value, field: &'static str) -> Read<i32> {
    i32::try_from(signed(value, field)?).map_err(|_| bad(field, "the integer has more than 32 bits"))
}

fn boolean(value: &Value, field: &'static str) -> Read<bool> {
    match value {
        Value::Bool(value) => Ok(*value),
        _ => Err(bad(field, "expected true or false")),
    }
}

fn float(value: &Value, field: &'static str) -> Read<f64> {
    let bytes = blob(value, field)?
        .try_into()
        .map_err(|_| bad(field, "expected 8 bytes"))?;
    Ok(f64::from_bits(u64::from_le_bytes(bytes)))
}

fn range(lo: &Value, hi: &Value) -> Read<Range> {
    Ok(Range::new(signed(lo, "range.lo")?, signed(hi, "range.hi")?))
}

fn shape(value: &Value) -> Read<Vec<usize>> {
    all(value, "shape", |dim| small(dim, "shape"))
}

fn words(value: &Value, field: &'static str) -> Read<Vec<u32>> {
    let bytes = blob(value, field)?;
    let (words, rest) = bytes.as_chunks::<4>();
    if rest.is_empty() {
        return Ok(words.iter().map(|word| u32::from_le_bytes(*word)).collect());
    }
    Err(bad(field, "expected words of 4 bytes"))
}

fn operand(value: &Value) -> Read<Operand> {
    let [tag, index] = fields(value, "operand")?;
    let index = small(index, "operand.index")?;
    match uint(tag, "operand.kind")? {
        0 => Ok(Operand::Input(index)),
        1 => Ok(Operand::Constant(index)),
        2 => Ok(Operand::Node(index)),
        _ => Err(bad("operand.kind", "expected 0 to 2")),
    }
}

fn optional(value: &Value) -> Read<Option<Operand>> {
    match value {
        Value::Null => Ok(None),
        value => operand(value).map(Some),
    }
}

fn input(value: &Value) -> Read<Input> {
    let [name, dims, encoding] = fields(value, "input")?;
    let encoding = match list(encoding, "input.encoding")? {
        [Value::Uint(0), scale, zero_point, lo, hi] => InputEncoding::Quantised {
            scale: float(scale, "input.scale")?,
            zero_point: signed32(zero_point, "input.zero_point")?,
            range: range(lo, hi)?,
        },
        [Value::Uint(1), count] => InputEncoding::Index {
            count: small(count, "input.count")?,
        },
        _ => return Err(bad("input.encoding", "no known encoding")),
    };
    Ok(Input {
        name: text(name, "input.name")?.to_owned(),
        shape: shape(dims)?,
        encoding,
    })
}

fn constant(value: &Value) -> Read<ConstantType> {
    let [name, dims, width, lo, hi] = fields(value, "constant")?;
    Ok(ConstantType {
        name: text(name, "constant.name")?.to_owned(),
        shape: shape(dims)?,
        width: match uint(width, "constant.width")? {
            1 => Width::I8,
            2 => Width::I16,
            4 => Width::I32,
            _ => return Err(bad("constant.width", "expected 1, 2 or 4")),
        },
        range: range(lo, hi)?,
    })
}

fn table(value: &Value) -> Read<Table> {
    let [name, first, values] = fields(value, "table")?;
    let values = words(values, "table.values")?;
    Ok(Table {
        name: text(name, "table.name")?.to_owned(),
        first: signed32(first, "table.first")?,
        values: values.into_iter().map(u32::cast_signed).collect(),
    })
}

fn node(value: &Value) -> Read<Node> {
    let [name, operation, dims, sort, lo, hi] = fields(value, "node")?;
    Ok(Node {
        name: text(name, "node.name")?.to_owned(),
        op: op(operation)?,
        ty: TensorType {
            shape: shape(dims)?,
            sort: match uint(sort, "node.sort")? {
                0 => Sort::Act,
                1 => Sort::Acc,
                2 => Sort::Index,
                _ => return Err(bad("node.sort", "expected 0 to 2")),
            },
            range: range(lo, hi)?,
        },
    })
}

fn op(value: &Value) -> Read<Op> {
    Ok(match list(value, "op")? {
        [Value::Uint(0), x, w, bias] => Op::MatMul {
            x: operand(x)?,
            w: operand(w)?,
            bias: optional(bias)?,
        },
        [Value::Uint(1), x, w, bias, steps, groups] => Op::Conv {
            x: operand(x)?,
            w: operand(w)?,
            bias: optional(bias)?,
            window: window(steps)?,
            groups: small(groups, "conv.groups")?,
        },
        [Value::Uint(2), terms] => Op::Sum {
            terms: all(terms, "sum.terms", |term| {
                let [x, multiplier] = fields(term, "sum.term")?;
                Ok((operand(x)?, signed32(multiplier, "sum.multiplier")?))
            })?,
        },
        [Value::Uint(3), a, b] => Op::Mul {
            a: operand(a)?,
            b: operand(b)?,
        },
        [Value::Uint(4), x, axes] => Op::ReduceSum {
            x: operand(x)?,
            axes: blob(axes, "axes")?.to_vec(),
        },
        [Value::Uint(5), x, shift, lo, hi] => Op::Requant {
            x: operand(x)?,
            shift: match shift {
                Value::Uint(_) => Shift::Tensor(small(shift, "requant.shift")?),
                shift => {
                    let [axis, shifts] = fields(shift, "requant.shift")?;
                    Shift::Axis {
                        axis: small(axis, "requant.axis")?,
                        shifts: blob(shifts, "requant.shifts")?.to_vec(),
                    }
                }
            },
            lo: signed32(lo, "requant.lo")?,
            hi: signed32(hi, "requant.hi")?,
        },
        [Value::Uint(6), x, table] => Op::Table {
            x: operand(x)?,
            table: small(table, "table")?,
        },
        [Value::Uint(7), x, steps, kernel] => Op::MaxPool {
            x: operand(x)?,
            window: window(steps)?,
            kernel: words(kernel, "kernel")?
                .try_into()
                .map_err(|_| bad("kernel", "expected two words"))?,
        },
        [Value::Uint(8), x, axes] => Op::ReduceMax {
            x: operand(x)?,
            axes: blob(axes, "axes")?.to_vec(),
        },
        [Value::Uint(9), num, den, shift, lo, hi] => Op::Divide {
            num: operand(num)?,
            den: operand(den)?,
            shift: small(shift, "divide.shift")?,
            lo: signed32(lo, "divide.lo")?,
            hi: signed32(hi, "divide.hi")?,
        },
        [Value::Uint(10), sources, view] => Op::View {
            sources: all(sources, "view.sources", operand)?,
            map: map(view)?,
        },
        [Value::Uint(11), table, indices] => Op::Gather {
            table: operand(table)?,
            indices: operand(indices)?,
        },
        _ => return Err(bad("op", "no known operation with that number of fields")),
    })
}

fn window(value: &Value) -> Read<Window> {
    match *words(value, "window")?.as_slice() {
        [down, across, top, left, bottom, right, dilate_down, dilate_across] => Ok(Window {
            strides: [down, across],
            pads: [top, left, bottom, right],
            dilations: [dilate_down, dilate_across],
        }),
        _ => Err(bad("window", "expected eight words")),
    }
}

fn map(value: &Value) -> Read<ViewMap> {
    Ok(match list(value, "view.map")? {
        [Value::Uint(0)] => ViewMap::Reshape,
        [Value::Uint(1), perm] => ViewMap::Transpose {
            perm: blob(perm, "transpose.perm")?.to_vec(),
        },
        [Value::Uint(2), starts, steps] => ViewMap::Slice {
            starts: words(starts, "slice.starts")?,
            steps: words(steps, "slice.steps")?.into_iter().map(u32::cast_signed).collect(),
        },
        [Value::Uint(3)] => ViewMap::Broadcast,
        [Value::Uint(4), axis] => ViewMap::Concat {
            axis: small(axis, "concat.axis")?,
        },
        [Value::Uint(5), before, value] => ViewMap::Pad {
            before: words(before, "pad.before")?,
            value: signed32(value, "pad.value")?,
        },
        [Value::Uint(6), axis, indices] => ViewMap::Select {
            axis: small(axis, "select.axis")?,
            indices: words(indices, "select.indices")?,
        },
        _ => return Err(bad("view.map", "no known map with that number of fields")),
    })
}

fn post(value: &Value) -> Read<Post> {
    let [kind, name, output, axis, keep, last, labels] = fields(value, "post")?;
    if uint(kind, "post.kind")? != 0 {
        return Err(bad("post.kind", "expected 0"));
    }
    Ok(Post::ArgMax {
        name: text(name, "post.name")?.to_owned(),
        output: small(output, "post.output")?,
        axis: small(axis, "post.axis")?,
        keep: boolean(keep, "post.keep")?,
        last: boolean(last, "post.last")?,
        labels: match labels {
            Value::Null => Labels::Position,
            Value::Bytes(bytes) => {
                let (words, rest) = bytes.as_chunks::<8>();
                if !rest.is_empty() {
                    return Err(bad("post.labels", "expected words of 8 bytes"));
                }
                Labels::Integers(words.iter().map(|word| i64::from_le_bytes(*word)).collect())
            }
            texts => Labels::Texts(all(texts, "post.labels", |value| {
                Ok(text(value, "post.labels")?.to_owned())
            })?),
        },
    })
}
