//! Writes canonical bytes.

use super::{GRAPH_MAGIC, PROGRAM_MAGIC};
use crate::{
    constant::Width,
    program::{
        ConstantType, Graph, Input, InputEncoding, Labels, Node, Op, Operand, Post, Program, SEMANTICS_VERSION, Shift,
        Sort, Table, Window,
    },
    range::Range,
    view::ViewMap,
};
use opg_primitives::cbor::Encoder;

pub(super) fn program(program: &Program) -> Vec<u8> {
    let graph = graph(&program.graph);
    let weights: usize = program
        .weights
        .constants
        .iter()
        .map(|data| data.len() * data.width().bytes() + 9)
        .sum();
    let mut out = Encoder::with_capacity(graph.len() + weights + 64);
    out.array(3)
        .text(PROGRAM_MAGIC)
        .bytes(&graph)
        .array(program.weights.constants.len());
    for data in &program.weights.constants {
        out.bytes(&data.to_le_bytes());
    }
    out.finish()
}

pub(super) fn graph(graph: &Graph) -> Vec<u8> {
    let mut writer = Writer(Encoder::new());
    let out = &mut writer.0;
    out.array(9).text(GRAPH_MAGIC).uint(u64::from(SEMANTICS_VERSION));
    out.array(3)
        .text(&graph.metadata.quantiser)
        .text(&graph.metadata.profile)
        .bytes(&graph.metadata.source);
    writer.list(&graph.inputs, Writer::input);
    writer.list(&graph.constants, Writer::constant);
    writer.list(&graph.tables, Writer::table);
    writer.list(&graph.nodes, Writer::node);
    writer.list(&graph.outputs, |writer, output| {
        writer.0.array(3).text(&output.name);
        writer.operand(output.source);
        writer.float(output.scale);
    });
    writer.list(&graph.posts, Writer::post);
    writer.0.finish()
}

struct Writer(Encoder);

impl Writer {
    fn list<T>(&mut self, items: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.0.array(items.len());
        for item in items {
            write(self, item);
        }
    }

    fn signed(&mut self, value: i64) {
        match u64::try_from(value) {
            Ok(value) => self.0.uint(value),
            // -1 - n for n >= 0.
            Err(_) => self.0.nint(value.unsigned_abs() - 1),
        };
    }

    fn float(&mut self, value: f64) {
        self.0.bytes(&value.to_bits().to_le_bytes());
    }

    fn range(&mut self, range: Range) {
        self.signed(range.lo);
        self.signed(range.hi);
    }

    fn shape(&mut self, shape: &[usize]) {
        self.0.array(shape.len());
        for dim in shape {
            self.0.uint(*dim as u64);
        }
    }

    fn words(&mut self, words: &[u32]) {
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        self.0.bytes(&bytes);
    }

    fn operand(&mut self, operand: Operand) {
        let (tag, index) = match operand {
            Operand::Input(i) => (0, i),
            Operand::Constant(i) => (1, i),
            Operand::Node(i) => (2, i),
        };
        self.0.array(2).uint(tag).uint(u64::from(index));
    }

    fn optional(&mut self, operand: Option<Operand>) {
        match operand {
            Some(operand) => self.operand(operand),
            None => {
                self.0.null();
            }
        }
    }

    fn input(&mut self, input: &Input) {
        self.0.array(3).text(&input.name);
        self.shape(&input.shape);
        match input.encoding {
            InputEncoding::Quantised {
                scale,
                zero_point,
                range,
            } => {
                self.0.array(5).uint(0);
                self.float(scale);
                self.signed(i64::from(zero_point));
                self.range(range);
            }
            InputEncoding::Index { count } => {
                self.0.array(2).uint(1).uint(u64::from(count));
            }
        }
    }

    fn constant(&mut self, constant: &ConstantType) {
        self.0.array(5).text(&constant.name);
        self.shape(&constant.shape);
        self.0.uint(match constant.width {
            Width::I8 => 1,
            Width::I16 => 2,
            Width::I32 => 4,
        });
        self.range(constant.range);
    }

    fn table(&mut self, table: &Table) {
        let bytes: Vec<u8> = table.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.0.array(3).text(&table.name);
        self.signed(i64::from(table.first));
        self.0.bytes(&bytes);
    }

    fn node(&mut self, node: &Node) {
        self.0.array(6).text(&node.name);
        self.op(&node.op);
        self.shape(&node.ty.shape);
        self.0.uint(match node.ty.sort {
            Sort::Act => 0,
            Sort::Acc => 1,
            Sort::Index => 2,
        });
        self.range(node.ty.range);
    }

    fn op(&mut self, op: &Op) {
        match op {
            Op::MatMul { x, w, bias } => {
                self.0.array(4).uint(0);
                self.operand(*x);
                self.operand(*w);
                self.optional(*bias);
            }
            Op::Conv {
                x,
                w,
                bias,
                window,
                groups,
            } => {
                self.0.array(6).uint(1);
                self.operand(*x);
                self.operand(*w);
                self.optional(*bias);
                self.window(window);
                self.0.uint(u64::from(*groups));
            }
            Op::Sum { terms } => {
                self.0.array(2).uint(2);
                self.list(terms, |writer, (operand, multiplier)| {
                    writer.0.array(2);
                    writer.operand(*operand);
                    writer.signed(i64::from(*multiplier));
                });
            }
            Op::Mul { a, b } => {
                self.0.array(3).uint(3);
                self.operand(*a);
                self.operand(*b);
            }
            Op::ReduceSum { x, axes } => {
                self.0.array(3).uint(4);
                self.operand(*x);
                self.0.bytes(axes);
            }
            Op::Requant { x, shift, lo, hi } => {
                self.0.array(5).uint(5);
                self.operand(*x);
                match shift {
                    Shift::Tensor(shift) => self.0.uint(u64::from(*shift)),
                    Shift::Axis { axis, shifts } => self.0.array(2).uint(u64::from(*axis)).bytes(shifts),
                };
                self.signed(i64::from(*lo));
                self.signed(i64::from(*hi));
            }
            Op::Table { x, table } => {
                self.0.array(3).uint(6);
                self.operand(*x);
                self.0.uint(u64::from(*table));
            }
            Op::MaxPool { x, window, kernel } => {
                self.0.array(4).uint(7);
                self.operand(*x);
                self.window(window);
                self.words(kernel);
            }
            Op::ReduceMax { x, axes } => {
                self.0.array(3).uint(8);
                self.operand(*x);
                self.0.bytes(axes);
            }
            Op::Divide {
                num,
                den,
                shift,
                lo,
                hi,
            } => {
                self.0.array(6).uint(9);
                self.operand(*num);
                self.operand(*den);
                self.0.uint(u64::from(*shift));
                self.signed(i64::from(*lo));
                self.signed(i64::from(*hi));
            }
            Op::View { sources, map } => {
                self.0.array(3).uint(10);
                self.list(sources, |writer, source| writer.operand(*source));
                self.map(map);
            }
            Op::Gather { table, indices } => {
                self.0.array(3).uint(11);
                self.operand(*table);
                self.operand(*indices);
            }
        }
    }

    fn window(&mut self, window: &Window) {
        let words: Vec<u32> = window
            .strides
            .iter()
            .chain(&window.pads)
            .chain(&window.dilations)
            .copied()
            .collect();
        self.words(&words);
    }

    fn map(&mut self, map: &ViewMap) {
        match map {
            ViewMap::Reshape => {
                self.0.array(1).uint(0);
            }
            ViewMap::Transpose { perm } => {
                self.0.array(2).uint(1).bytes(perm);
            }
            ViewMap::Slice { starts, steps } => {
                self.0.array(3).uint(2);
                self.words(starts);
                let steps: Vec<u32> = steps.iter().map(|step| step.cast_unsigned()).collect();
                self.words(&steps);
            }
            ViewMap::Broadcast => {
                self.0.array(1).uint(3);
            }
            ViewMap::Concat { axis } => {
                self.0.array(2).uint(4).uint(u64::from(*axis));
            }
            ViewMap::Pad { before, value } => {
                self.0.array(3).uint(5);
                self.words(before);
                self.signed(i64::from(*value));
            }
            ViewMap::Select { axis, indices } => {
                self.0.array(3).uint(6).uint(u64::from(*axis));
                self.words(indices);
            }
        }
    }

    fn post(&mut self, post: &Post) {
        let Post::ArgMax {
            name,
            output,
            axis,
            keep,
            last,
            labels,
        } = post;
        self.0
            .array(7)
            .uint(0)
            .text(name)
            .uint(u64::from(*output))
            .uint(u64::from(*axis))
            .bool(*keep)
            .bool(*last);
        match labels {
            Labels::Position => {
                self.0.null();
            }
            Labels::Integers(values) => {
                let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                self.0.bytes(&bytes);
            }
            Labels::Texts(texts) => self.list(texts, |writer, text| {
                writer.0.text(text);
            }),
        }
    }
}
