//! The written semantics on numbers worked out by hand, the bounds that keep values from wrapping, and golden digests.

use opg_integer_program::{
    constant::{ConstantData, Weights, Width},
    derive::derive,
    error::{ProgramError, RunError},
    interpret,
    program::{
        ConstantType, Graph, Input, InputEncoding, Metadata, Node, Op, Operand, Output, Program, Shift, Sort, Table,
        Window,
    },
    quantise::{dequantise, quantise_input},
    range::Range,
    view::ViewMap,
};

const X: Operand = Operand::Input(0);

/// A program with one input `[.., ..]` of 8 bits, under construction.
fn start(shape: &[usize]) -> Program {
    let encoding = InputEncoding::Quantised {
        scale: 0.5,
        zero_point: 0,
        range: Range::new(-127, 127),
    };
    let graph = Graph {
        metadata: Metadata {
            quantiser: "by hand".to_owned(),
            profile: "int8".to_owned(),
            source: [7; 32],
        },
        inputs: vec![Input {
            name: "x".to_owned(),
            shape: shape.to_vec(),
            encoding,
        }],
        constants: Vec::new(),
        tables: Vec::new(),
        nodes: Vec::new(),
        outputs: Vec::new(),
        posts: Vec::new(),
    };
    Program {
        graph,
        weights: Weights::default(),
    }
}

fn constant(program: &mut Program, shape: &[usize], values: &[i64]) -> Operand {
    let data = ConstantData::pack(values).unwrap();
    let ty = ConstantType {
        name: "c".to_owned(),
        shape: shape.to_vec(),
        width: data.width(),
        range: data.range().unwrap(),
    };
    program.graph.constants.push(ty);
    program.weights.constants.push(data);
    Operand::Constant(program.graph.constants.len() as u32 - 1)
}

fn try_push(program: &mut Program, op: Op, shape: &[usize]) -> Result<Operand, ProgramError> {
    let before = program.graph.nodes.len();
    let derived = derive(&program.graph, Some(&program.weights), before, "node", &op, shape)?;
    program.graph.nodes.push(Node {
        name: "node".to_owned(),
        op,
        ty: derived.ty,
    });
    Ok(Operand::Node(before as u32))
}

fn push(program: &mut Program, op: Op) -> Operand {
    try_push(program, op, &[]).unwrap()
}

/// Declares the last node as output, validates, and runs.
fn finish(program: &mut Program, input: &[i64]) -> Vec<i64> {
    let last = Operand::Node(program.graph.nodes.len() as u32 - 1);
    program.graph.outputs = vec![Output {
        name: "y".to_owned(),
        source: last,
        scale: 0.25,
    }];
    program.validate().unwrap();
    interpret::run(program, &[input.to_vec()])
        .unwrap()
        .outputs(program)
        .unwrap()
        .remove(0)
}

#[test]
fn requantisation_rounds_halves_up_and_clamps() {
    let mut program = start(&[8]);
    push(
        &mut program,
        Op::Requant {
            x: X,
            shift: Shift::Tensor(2),
            lo: -3,
            hi: 5,
        },
    );
    // x / 4 rounded to nearest, halves towards plus infinity.
    assert_eq!(
        finish(&mut program, &[-127, -7, -6, -5, -2, 2, 18, 127]),
        [-3, -2, -1, -1, 0, 1, 5, 5]
    );
    assert_eq!(program.graph.nodes[0].ty.range, Range::new(-3, 5));

    let mut program = start(&[2, 3]);
    push(
        &mut program,
        Op::Requant {
            x: X,
            shift: Shift::Axis {
                axis: 1,
                shifts: vec![0, 1, 6],
            },
            lo: 0,
            hi: 200,
        },
    );
    assert_eq!(finish(&mut program, &[-5, 5, 32, 5, -5, 31]), [0, 3, 1, 5, 0, 0]);
    assert_eq!(program.graph.nodes[0].ty.range, Range::new(0, 127));
}

#[test]
fn products_have_the_range_of_their_weights() {
    let mut program = start(&[2, 2]);
    let w = constant(&mut program, &[2, 3], &[1, -2, 3, 4, 5, -6]);
    let bias = constant(&mut program, &[3], &[10, 0, -100]);
    push(
        &mut program,
        Op::MatMul {
            x: X,
            w,
            bias: Some(bias),
        },
    );
    assert_eq!(
        finish(&mut program, &[1, 2, -3, 100]),
        [
            1 + 8 + 10,
            -2 + 10,
            3 - 12 - 100,
            -3 + 400 + 10,
            6 + 500,
            -9 - 600 - 100
        ]
    );
    // Columns reach 127 * (1 + 4) + 10, 127 * 7, and -(127 * 9) - 100.
    assert_eq!(
        program.graph.nodes[0].ty.range,
        Range::new(-127 * 9 - 100, 127 * 9 - 100)
    );
    assert_eq!(program.graph.nodes[0].ty.sort, Sort::Acc);

    let mut program = start(&[1, 1, 3, 3]);
    let w = constant(&mut program, &[1, 1, 2, 2], &[1, 2, 3, 4]);
    let window = Window {
        strides: [2, 1],
        pads: [1, 0, 0, 1],
        dilations: [1, 1],
    };
    push(
        &mut program,
        Op::Conv {
            x: X,
            w,
            bias: None,
            window,
            groups: 1,
        },
    );
    // Rows -1..0 and 1..2, columns 0..1, 1..2, 2..3 with zeros outside.
    assert_eq!(
        finish(&mut program, &[1, 2, 3, 4, 5, 6, 7, 8, 9]),
        [11, 18, 9, 4 + 10 + 21 + 32, 5 + 12 + 24 + 36, 6 + 27]
    );
}

#[test]
fn sums_and_products_broadcast() {
    let mut program = start(&[2, 2]);
    let row = constant(&mut program, &[2], &[1000, -1000]);
    let sum = push(
        &mut program,
        Op::Sum {
            terms: vec![(X, 3), (row, -2)],
        },
    );
    assert_eq!(finish(&mut program, &[1, 2, 3, 4]), [-1997, 2006, -1991, 2012]);
    push(&mut program, Op::ReduceSum { x: sum, axes: vec![0] });
    assert_eq!(finish(&mut program, &[1, 2, 3, 4]), [-3988, 4018]);

    let mut program = start(&[2, 2]);
    push(&mut program, Op::Mul { a: X, b: X });
    assert_eq!(finish(&mut program, &[-5, 2, 0, 4]), [25, 4, 0, 16]);
    assert_eq!(program.graph.nodes[0].ty.range, Range::new(0, 127 * 127));
}

#[test]
fn tables_maxima_views_and_divisions() {
    let mut program = start(&[1, 4]);
    let values = (-127..=127).map(|q: i32| q * q - 100).collect();
    program.graph.tables.push(Table {
        name: "square".to_owned(),
        first: -127,
        values,
    });
    let square = push(&mut program, Op::Table { x: X, table: 0 });
    assert_eq!(finish(&mut program, &[-127, 0, 1, 127]), [16_029, -100, -99, 16_029]);
    push(
        &mut program,
        Op::ReduceMax {
            x: square,
            axes: vec![1],
        },
    );
    assert_eq!(finish(&mut program, &[-3, 0, 1, 2]), [-91]);
    try_push(
        &mut program,
        Op::View {
            sources: vec![X, square],
            map: ViewMap::Concat { axis: 0 },
        },
        &[2, 4],
    )
    .unwrap();
    assert_eq!(finish(&mut program, &[1, 2, 3, 4]), [1, 2, 3, 4, -99, -96, -91, -84]);

    let mut program = start(&[4]);
    let den = push(
        &mut program,
        Op::Requant {
            x: X,
            shift: Shift::Tensor(0),
            lo: 3,
            hi: 10,
        },
    );
    push(
        &mut program,
        Op::Divide {
            num: X,
            den,
            shift: 1,
            lo: -40,
            hi: 20,
        },
    );
    // floor((2 x + floor(d / 2)) / d), d = clamp(x, 3, 10): -14/3 rounds to -5, 2/3 to 1, 2 * 7 / 7 = 2.
    assert_eq!(finish(&mut program, &[-7, 1, 7, 40]), [-5, 1, 2, 8]);
    let refused = interpret::run(&program, &[vec![-100, 0, 0, 0]]);
    assert!(
        matches!(
            refused,
            Err(RunError::Quotient {
                index: 0,
                value: -67,
                lo: -40,
                hi: 20,
                ..
            })
        ),
        "{refused:?}"
    );
}

#[test]
fn max_pool_ignores_padding_and_gather_reads_rows() {
    let mut program = start(&[1, 1, 2, 2]);
    let window = Window {
        strides: [1, 1],
        pads: [1, 1, 1, 1],
        dilations: [1, 1],
    };
    push(
        &mut program,
        Op::MaxPool {
            x: X,
            window,
            kernel: [2, 2],
        },
    );
    assert_eq!(
        finish(&mut program, &[-1, -2, -3, -4]),
        [-1, -1, -2, -1, -1, -2, -3, -3, -4]
    );

    let mut program = start(&[2]);
    program.graph.inputs[0].encoding = InputEncoding::Index { count: 3 };
    let table = constant(&mut program, &[3, 2], &[1, 2, 3, 4, 5, 6]);
    push(&mut program, Op::Gather { table, indices: X });
    assert_eq!(finish(&mut program, &[2, 0]), [5, 6, 1, 2]);
    assert!(matches!(
        interpret::run(&program, &[vec![3, 0]]),
        Err(RunError::InputValue { index: 0, value: 3, .. })
    ));
    assert!(quantise_input(&program.graph.inputs[0], &[0.5, 1.0]).is_err());
}

#[test]
fn floats_become_integers_by_rounding_halves_to_even() {
    let program = start(&[7]);
    let input = &program.graph.inputs[0];
    let got = quantise_input(input, &[0.25, 0.75, -0.25, 1.3, 1e30, -1e30, 63.5]).unwrap();
    assert_eq!(got, [0, 2, 0, 3, 127, -127, 127]);
    for bad in [f32::NAN, f32::INFINITY] {
        assert!(matches!(
            quantise_input(input, &[0., 0., bad, 0., 0., 0., 0.]),
            Err(RunError::NotFinite { index: 2, .. })
        ));
    }
    assert!(matches!(
        quantise_input(input, &[0.0]),
        Err(RunError::InputSize {
            expected: 7,
            got: 1,
            ..
        })
    ));
    let output = Output {
        name: "y".to_owned(),
        source: X,
        scale: 0.25,
    };
    assert_eq!(dequantise(&output, &[-3, 8]), [-0.75, 2.0]);
}

#[test]
fn requests_are_json_objects_with_one_entry_per_input() {
    let program = start(&[1, 2, 2]);
    let read = |json: &str| opg_integer_program::request::read(&program.graph, json.as_bytes());
    for json in [
        r#"{"x": [[[1, 2], [-0.25, 99]]]}"#,
        r#"{"x": [[1, 2], [-0.25, 99]]}"#,
        r#"{"x": [1, 2, -0.25, 99]}"#,
    ] {
        assert_eq!(read(json).unwrap(), [vec![2, 4, 0, 127]]);
    }
    for (json, says) in [
        (
            r#"{"x": [[1, 2], [3]]}"#,
            "input \"x\": its lists have different lengths",
        ),
        (r#"{"x": [1, 2, 3]}"#, "expected shape [1, 2, 2], got [3]"),
        (r#"{}"#, "input \"x\": it is missing"),
        (
            r#"{"x": [1, 2, 3, 4], "z": 1}"#,
            "input \"z\": the model has no such input",
        ),
        (r#"{"x": [1, 2, 3, "4"]}"#, "it is not a regular list of numbers"),
        ("[1]", "expected an object"),
        ("nonsense", "expected"),
    ] {
        let text = read(json).expect_err(json).to_string();
        assert!(text.contains(says), "{text:?} does not say {says:?}");
    }
}

#[test]
fn weights_that_can_wrap_are_refused() {
    // 1024 weights of 8 bits stay below 2^29; of 16 bits they do not.
    for (weight, wraps) in [(127, false), (32_767, true)] {
        let mut program = start(&[1, 1024]);
        let w = constant(&mut program, &[1024, 1], &[weight; 1024]);
        let got = try_push(&mut program, Op::MatMul { x: X, w, bias: None }, &[]);
        assert_eq!(matches!(got, Err(ProgramError::Wraps { .. })), wraps, "{got:?}");
    }
    let mut program = start(&[4]);
    let refused = try_push(
        &mut program,
        Op::Sum {
            terms: vec![(X, 1 << 24)],
        },
        &[],
    );
    assert!(matches!(refused, Err(ProgramError::Wraps { .. })), "{refused:?}");
    // A divisor that can be 0.
    let refused = try_push(
        &mut program,
        Op::Divide {
            num: X,
            den: X,
            shift: 0,
            lo: 0,
            hi: 1,
        },
        &[],
    );
    assert!(refused.unwrap_err().to_string().contains("proven positive"));
}

#[test]
fn edited_programs_are_refused() {
    let mut program = start(&[2, 2]);
    let w = constant(&mut program, &[2, 2], &[1, -2, 3, 4]);
    let acc = push(&mut program, Op::MatMul { x: X, w, bias: None });
    push(
        &mut program,
        Op::Requant {
            x: acc,
            shift: Shift::Tensor(1),
            lo: 0,
            hi: 255,
        },
    );
    finish(&mut program, &[1, 2, 3, 4]);
    let edits: [fn(&mut Program); 9] = [
        |p| p.graph.nodes[0].ty.range.hi += 1,
        |p| p.graph.nodes[0].ty.range.hi -= 1,
        |p| p.graph.nodes[1].ty.shape = vec![4],
        |p| p.graph.nodes[1].ty.sort = Sort::Acc,
        |p| p.graph.constants[0].range.hi = 5,
        |p| p.graph.constants[0].width = Width::I16,
        |p| p.weights.constants[0] = ConstantData::I8(vec![1, -2, 4, 3]),
        |p| p.weights.constants[0] = ConstantData::I8(vec![1, -2, 3]),
        |p| p.graph.nodes.swap(0, 1),
    ];
    for (number, edit) in edits.iter().enumerate() {
        let mut edited = program.clone();
        edit(&mut edited);
        assert!(edited.validate().is_err(), "edit {number} was accepted");
        assert!(Program::decode(&edited.encode()).is_err(), "edit {number} was decoded");
    }
    // Without weights the declared range of a product is taken as long as it cannot wrap.
    let mut graph = program.graph.clone();
    graph.nodes[0].ty.range.hi = 1 << 30;
    assert!(matches!(graph.validate(), Err(ProgramError::Wraps { .. })));
}

#[test]
fn digests_are_frozen() {
    let mut program = start(&[1, 2]);
    let w = constant(&mut program, &[2, 2], &[1, -2, 3, 400]);
    let bias = constant(&mut program, &[2], &[70_000, -1]);
    let acc = push(
        &mut program,
        Op::MatMul {
            x: X,
            w,
            bias: Some(bias),
        },
    );
    push(
        &mut program,
        Op::Requant {
            x: acc,
            shift: Shift::Axis {
                axis: 1,
                shifts: vec![9, 8],
            },
            lo: -127,
            hi: 127,
        },
    );
    assert_eq!(finish(&mut program, &[1, 2]), [127, 3]);
    assert_eq!(program.graph.digest().to_string(), GRAPH_DIGEST);
    assert_eq!(program.digest().to_string(), PROGRAM_DIGEST);
    // Other weights, same graph: ranges are part of the graph, so only a change that keeps them keeps its digest.
    let mut other = program.clone();
    other.weights.constants[1] = ConstantData::I32(vec![70_000, -1]);
    assert_eq!(other.digest(), program.digest());
    other.graph.nodes[1].name = "other".to_owned();
    assert_ne!(other.graph.digest(), program.graph.digest());
}

const GRAPH_DIGEST: &str = "0xc7fc27ced828d12d9572afb01288666063babb772aee420c2e4c19e44897f9af";
const PROGRAM_DIGEST: &str = "0x85f52ff7b35a6e9a449c61c06684bc6b31fa2bac67199b9f09e8fc326648ad9b";
