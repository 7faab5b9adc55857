//! Small programs made by hand.
#![allow(dead_code, unreachable_pub)]

use opg_integer_program::{
    constant::{ConstantData, Weights},
    derive::derive,
    program::{
        ConstantType, Graph, Input, InputEncoding, Metadata, Node, Op, Operand, Output, Program, Shift, Table,
        TensorType, Window,
    },
    range::Range,
    view::ViewMap,
};

/// Numbers that look random and never change.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    pub fn between(&mut self, lo: i64, hi: i64) -> i64 {
        lo + i64::try_from(self.next() % u64::try_from(hi - lo + 1).unwrap()).unwrap()
    }

    pub fn vector(&mut self, count: usize, lo: i64, hi: i64) -> Vec<i64> {
        (0..count).map(|_| self.between(lo, hi)).collect()
    }
}

/// Grows a program.
pub struct Builder {
    pub program: Program,
    pub numbers: Numbers,
}

impl Builder {
    pub fn new() -> Self {
        let graph = Graph {
            metadata: Metadata {
                quantiser: "test".to_owned(),
                profile: "int8".to_owned(),
                source: [0; 32],
            },
            inputs: Vec::new(),
            constants: Vec::new(),
            tables: Vec::new(),
            nodes: Vec::new(),
            outputs: Vec::new(),
            posts: Vec::new(),
        };
        Self {
            program: Program {
                graph,
                weights: Weights::default(),
            },
            numbers: Numbers(7),
        }
    }

    pub fn input(&mut self, shape: &[usize], lo: i64, hi: i64) -> Operand {
        let graph = &mut self.program.graph;
        graph.inputs.push(Input {
            name: format!("x{}", graph.inputs.len()),
            shape: shape.to_vec(),
            encoding: InputEncoding::Quantised {
                scale: 1.0,
                zero_point: 0,
                range: Range::new(lo, hi),
            },
        });
        Operand::Input(u32::try_from(graph.inputs.len() - 1).unwrap())
    }

    pub fn indices(&mut self, shape: &[usize], count: u32) -> Operand {
        let graph = &mut self.program.graph;
        let encoding = InputEncoding::Index { count };
        graph.inputs.push(Input {
            name: format!("i{}", graph.inputs.len()),
            shape: shape.to_vec(),
            encoding,
        });
        Operand::Input(u32::try_from(graph.inputs.len() - 1).unwrap())
    }

    pub fn constant(&mut self, shape: &[usize], lo: i64, hi: i64) -> Operand {
        let values = self.numbers.vector(shape.iter().product(), lo, hi);
        let data = ConstantData::pack(&values).unwrap();
        let graph = &mut self.program.graph;
        graph.constants.push(ConstantType {
            name: format!("w{}", graph.constants.len()),
            shape: shape.to_vec(),
            width: data.width(),
            range: data.range().unwrap(),
        });
        self.program.weights.constants.push(data);
        Operand::Constant(u32::try_from(graph.constants.len() - 1).unwrap())
    }

    pub fn node(&mut self, op: Op, shape: &[usize]) -> Operand {
        let graph = &self.program.graph;
        let name = format!("n{}", graph.nodes.len());
        let ty = derive(graph, Some(&self.program.weights), graph.nodes.len(), &name, &op, shape)
            .unwrap()
            .ty;
        let graph = &mut self.program.graph;
        graph.nodes.push(Node { name, op, ty });
        Operand::Node(u32::try_from(graph.nodes.len() - 1).unwrap())
    }

    pub fn ty(&self, operand: Operand) -> TensorType {
        match operand {
            Operand::Node(index) => self.program.graph.nodes[index as usize].ty.clone(),
            _ => panic!("not a node"),
        }
    }

    pub fn matmul(&mut self, x: Operand, w: Operand, bias: Option<Operand>) -> Operand {
        self.node(Op::MatMul { x, w, bias }, &[])
    }

    pub fn requant(&mut self, x: Operand, shift: u8, lo: i32, hi: i32) -> Operand {
        self.node(
            Op::Requant {
                x,
                shift: Shift::Tensor(shift),
                lo,
                hi,
            },
            &[],
        )
    }

    pub fn view(&mut self, x: Operand, map: ViewMap, shape: &[usize]) -> Operand {
        self.node(Op::View { sources: vec![x], map }, shape)
    }

    pub fn table(&mut self, x: Operand, first: i64, values: Vec<i32>) -> Operand {
        self.program.graph.tables.push(Table {
            name: "f".to_owned(),
            first: i32::try_from(first).unwrap(),
            values,
        });
        let table = u32::try_from(self.program.graph.tables.len() - 1).unwrap();
        self.node(Op::Table { x, table }, &[])
    }

    pub fn output(&mut self, source: Operand) {
        let graph = &mut self.program.graph;
        graph.outputs.push(Output {
            name: format!("y{}", graph.outputs.len()),
            source,
            scale: 1.0,
        });
    }

    pub fn inputs(&mut self) -> Vec<Vec<i64>> {
        let inputs = self.program.graph.inputs.clone();
        inputs
            .iter()
            .map(|input| {
                let range = input.integer_type().1;
                self.numbers.vector(input.shape.iter().product(), range.lo, range.hi)
            })
            .collect()
    }
}

/// 5 - 7 - 3 with ReLU.
pub fn mlp() -> Builder {
    let mut b = Builder::new();
    let x = b.input(&[1, 5], -127, 127);
    let (w, bias) = (b.constant(&[5, 7], -127, 127), b.constant(&[7], -500, 500));
    let h = b.matmul(x, w, Some(bias));
    let h = b.requant(h, 7, 0, 127);
    let (w, bias) = (b.constant(&[7, 3], -127, 127), b.constant(&[3], -500, 500));
    let y = b.matmul(h, w, Some(bias));
    let y = b.requant(y, 6, -127, 127);
    b.output(y);
    b
}

/// Convolutions (padded, strided, grouped), pooling with padding, flattening.
pub fn convolutions() -> Builder {
    let mut b = Builder::new();
    let x = b.input(&[1, 2, 9, 7], -127, 127);
    let (w, bias) = (b.constant(&[6, 2, 3, 3], -60, 60), b.constant(&[6], -500, 500));
    let window = Window {
        strides: [1, 1],
        pads: [1, 1, 1, 1],
        dilations: [1, 1],
    };
    let h = b.node(
        Op::Conv {
            x,
            w,
            bias: Some(bias),
            window,
            groups: 1,
        },
        &[],
    );
    let h = b.requant(h, 8, 0, 127);
    let window = Window {
        strides: [2, 2],
        pads: [1, 0, 0, 1],
        dilations: [1, 1],
    };
    let h = b.node(
        Op::MaxPool {
            x: h,
            window,
            kernel: [2, 2],
        },
        &[],
    );
    let shape = b.ty(h).shape;
    let w = b.constant(&[4, 3, 2, 2], -60, 60);
    let window = Window {
        strides: [1, 2],
        pads: [0, 0, 0, 0],
        dilations: [1, 1],
    };
    assert_eq!(shape[1], 6);
    let h = b.node(
        Op::Conv {
            x: h,
            w,
            bias: None,
            window,
            groups: 2,
        },
        &[],
    );
    let h = b.requant(h, 7, -127, 127);
    let count = b.ty(h).shape.iter().product::<usize>();
    let h = b.view(h, ViewMap::Reshape, &[1, count]);
    let w = b.constant(&[count, 3], -127, 127);
    let y = b.matmul(h, w, None);
    b.output(y);
    b
}

/// Attention-like: products of activations, softmax by table and division, views, sums, gathers.
pub fn attention() -> Builder {
    let mut b = Builder::new();
    let ids = b.indices(&[5], 9);
    let embedding = b.constant(&[9, 6], -127, 127);
    let x = b.node(
        Op::Gather {
            table: embedding,
            indices: ids,
        },
        &[],
    );
    let project = |b: &mut Builder| {
        let w = b.constant(&[6, 6], -127, 127);
        let h = b.matmul(x, w, None);
        let h = b.requant(h, 9, -127, 127);
        let h = b.view(h, ViewMap::Reshape, &[5, 2, 3]);
        b.view(h, ViewMap::Transpose { perm: vec![1, 0, 2] }, &[2, 5, 3])
    };
    let (q, k, v) = (project(&mut b), project(&mut b), project(&mut b));
    let k = b.view(k, ViewMap::Transpose { perm: vec![0, 2, 1] }, &[2, 3, 5]);
    let scores = b.matmul(q, k, None);
    let scores = b.requant(scores, 8, -127, 127);
    let max = b.node(
        Op::ReduceMax {
            x: scores,
            axes: vec![2],
        },
        &[],
    );
    let centred = b.node(
        Op::Sum {
            terms: vec![(scores, 1), (max, -1)],
        },
        &[],
    );
    let centred = b.requant(centred, 0, -254, 0);
    let range = b.ty(centred).range;
    let table = (range.lo..=range.hi)
        .map(|x| (1024.0 * (x as f64 / 40.0).exp()).round() as i32)
        .collect();
    let e = b.table(centred, range.lo, table);
    let total = b.node(Op::ReduceSum { x: e, axes: vec![2] }, &[]);
    let p = b.node(
        Op::Divide {
            num: e,
            den: total,
            shift: 7,
            lo: 0,
            hi: 128,
        },
        &[],
    );
    let o = b.matmul(p, v, None);
    let o = b.view(o, ViewMap::Transpose { perm: vec![1, 0, 2] }, &[5, 2, 3]);
    let o = b.view(o, ViewMap::Reshape, &[5, 6]);
    let o = b.requant(o, 7, -127, 127);
    let sum = b.node(
        Op::Sum {
            terms: vec![(o, 3), (x, -2)],
        },
        &[],
    );
    let h = b.requant(sum, 2, -127, 127);
    let square = b.node(Op::Mul { a: h, b: h }, &[]);
    let scale = b.constant(&[6], -127, 127);
    let scaled = b.node(Op::Mul { a: h, b: scale }, &[]);
    let mean = b.node(
        Op::ReduceSum {
            x: square,
            axes: vec![1],
        },
        &[],
    );
    let left = b.view(
        h,
        ViewMap::Slice {
            starts: vec![4, 1],
            steps: vec![-1, 2],
        },
        &[5, 3],
    );
    let padded = b.view(
        left,
        ViewMap::Pad {
            before: vec![1, 0],
            value: -3,
        },
        &[7, 4],
    );
    let chosen = b.view(
        padded,
        ViewMap::Select {
            axis: 1,
            indices: vec![3, 0, 0],
        },
        &[7, 3],
    );
    let wide = b.view(chosen, ViewMap::Broadcast, &[2, 7, 3]);
    let joined = b.node(
        Op::View {
            sources: vec![wide, wide],
            map: ViewMap::Concat { axis: 2 },
        },
        &[2, 7, 6],
    );
    let shifts = Shift::Axis {
        axis: 1,
        shifts: vec![3, 5, 0, 4, 5, 1],
    };
    let scaled = b.node(
        Op::Requant {
            x: scaled,
            shift: shifts,
            lo: -127,
            hi: 127,
        },
        &[],
    );
    b.output(mean);
    b.output(joined);
    b.output(scaled);
    b
}
