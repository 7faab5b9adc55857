//! ONNX headers: real files, files that no exporter would write, and mutations.

mod common;

use common::{Proto, fixture, identity_graph, model, node, tensor_port};
use opg_models::onnx::{DType, Dim, Limits, OnnxError, OnnxHeader, ValueType};
use proptest::prelude::*;

fn parse(model: &Proto) -> Result<OnnxHeader, OnnxError> {
    OnnxHeader::parse(&model.0)
}

/// What the README of the fixtures says about each file.
#[test]
fn reads_the_digits_models() {
    for (file, operators) in [
        ("digits_mlp.onnx", &["ArgMax", "MatMul", "Relu", "Softmax"][..]),
        ("logreg.onnx", &["LinearClassifier", "Normalizer"]),
        ("gbc.onnx", &["TreeEnsembleClassifier"]),
    ] {
        let header = OnnxHeader::parse(&fixture(&format!("digits/{file}"))).unwrap();
        assert_eq!(header.inputs.len(), 1, "{file}");
        assert_eq!(header.inputs[0].name, "X");
        let ValueType::Tensor {
            dtype: DType::F32,
            shape: Some(shape),
        } = &header.inputs[0].ty
        else {
            panic!("{file}")
        };
        assert_eq!(
            (shape.len(), shape[0].fixed(), &shape[1]),
            (2, None, &Dim::Fixed(64)),
            "{file}"
        );
        let outputs: Vec<_> = header.outputs.iter().map(|output| output.name.as_str()).collect();
        assert_eq!(outputs, ["label", "probabilities"], "{file}");
        assert!(
            matches!(header.outputs[0].ty, ValueType::Tensor { dtype: DType::I64, .. }),
            "{file}"
        );
        assert_eq!(header.opsets["ai.onnx"], 17, "{file}");
        for operator in operators {
            assert!(
                header.operators.iter().any(|name| name.ends_with(operator)),
                "{file} {operator}: {:?}",
                header.operators
            );
        }
        assert!(header.nodes > 0);
    }
    let mlp = OnnxHeader::parse(&fixture("digits/digits_mlp.onnx")).unwrap();
    // 64·64 + 64 + 64·10 + 10 weights of 4 bytes, and little else.
    assert!(
        (19_240..19_400).contains(&mlp.initializer_bytes),
        "{}",
        mlp.initializer_bytes
    );
    assert_eq!(mlp.initializer_elements[&DType::F32], 4_810);
}

#[test]
fn reads_every_kind_of_type() {
    let base = parse(&model(identity_graph())).unwrap();
    assert_eq!(base.inputs[0].ty.to_string(), "f32[N,2]");
    assert_eq!(base.opsets["ai.onnx"], 17);

    let map = Proto::new()
        .int(1, 7)
        .message(2, Proto::new().message(1, Proto::new().int(1, 1)));
    let sequence = Proto::new().message(4, Proto::new().message(1, Proto::new().message(5, map)));
    let graph = identity_graph()
        .message(1, node("ZipMap", "", &["X"], &["Z"]))
        .message(12, Proto::new().bytes(1, "Z").message(2, sequence));
    assert_eq!(
        parse(&model(graph)).unwrap().outputs[1].ty.to_string(),
        "sequence<map<i64,f32[..]>>"
    );
}

#[test]
fn refuses_files_elsewhere() {
    let entry = Proto::new().bytes(1, "location").bytes(2, "../../etc/passwd");
    let tensor = |extra: fn(Proto, Proto) -> Proto, entry: &Proto| {
        extra(Proto::new().int(1, 1).int(2, 1).bytes(8, "w"), entry.clone())
    };
    for extra in [
        (|tensor, entry| tensor.message(13, entry)) as fn(Proto, Proto) -> Proto,
        |tensor, _| tensor.int(14, 1),
    ] {
        let external = tensor(extra, &entry);
        let expected = OnnxError::ExternalData { tensor: "w".into() };
        // As initializer, as attribute, and inside a subgraph.
        assert_eq!(
            parse(&model(identity_graph().message(5, external.clone()))),
            Err(expected.clone())
        );
        let attribute = |field, message| Proto::new().bytes(1, "value").message(field, message);
        let constant = node("Constant", "", &[], &["c"]).message(5, attribute(5, external.clone()));
        assert_eq!(
            parse(&model(identity_graph().message(1, constant))),
            Err(expected.clone())
        );
        let branch = node("If", "", &["X"], &["i"]).message(5, attribute(6, Proto::new().message(5, external)));
        assert_eq!(parse(&model(identity_graph().message(1, branch))), Err(expected));
    }
}

#[test]
fn refuses_foreign_operators_functions_and_training() {
    let foreign = identity_graph().message(1, node("Evil", "com.example", &["X"], &["e"]));
    assert_eq!(
        parse(&model(foreign)).unwrap_err().to_string(),
        "operator \"Evil\" of domain \"com.example\" is not accepted: only imported ai.onnx and ai.onnx.ml are",
    );
    // ai.onnx.ml is known but this file does not import it.
    let ml = identity_graph().message(1, node("Normalizer", "ai.onnx.ml", &["X"], &["n"]));
    assert!(matches!(parse(&model(ml)), Err(OnnxError::Domain { .. })));
    let import = Proto::new().bytes(1, "com.example").int(2, 1);
    assert!(matches!(
        parse(&model(identity_graph()).message(8, import)),
        Err(OnnxError::Domain { .. })
    ));
    for (field, feature) in [(20, "training_info"), (25, "a model-local function")] {
        let model = model(identity_graph()).message(field, Proto::new());
        assert_eq!(parse(&model), Err(OnnxError::Unsupported { feature }));
    }
    assert!(matches!(
        parse(&model(identity_graph().message(15, Proto::new()))),
        Err(OnnxError::Unsupported { .. })
    ));
}

#[test]
fn refuses_unknown_versions_and_missing_parts() {
    for version in [-1, 0, 2, 14, i64::MAX] {
        let model = Proto::new()
            .int(1, version)
            .message(8, Proto::new().int(2, 17))
            .message(7, identity_graph());
        assert_eq!(
            parse(&model),
            Err(OnnxError::IrVersion {
                first: 3,
                last: 13,
                got: version
            })
        );
    }
    for version in [-1, 0, 6, 27] {
        let model = Proto::new()
            .int(1, 8)
            .message(8, Proto::new().int(2, version))
            .message(7, identity_graph());
        assert!(matches!(parse(&model), Err(OnnxError::Opset { got, .. }) if got == version));
    }
    assert_eq!(OnnxHeader::parse(b""), Err(OnnxError::Missing { field: "ir_version" }));
    assert_eq!(
        parse(&Proto::new().int(1, 8)),
        Err(OnnxError::Missing { field: "opset_import" })
    );
    let no_graph = Proto::new().int(1, 8).message(8, Proto::new().int(2, 17));
    assert_eq!(parse(&no_graph), Err(OnnxError::Missing { field: "graph" }));
    assert_eq!(
        parse(&model(Proto::new())),
        Err(OnnxError::Missing { field: "graph.output" })
    );
    assert!(parse(&model(identity_graph()).message(7, identity_graph())).is_err());
    let import = |version| Proto::new().bytes(1, "ai.onnx").int(2, version);
    assert!(parse(&model(identity_graph()).message(8, import(17))).is_ok());
    assert_eq!(
        parse(&model(identity_graph()).message(8, import(18))),
        Err(OnnxError::Duplicate {
            value: "ai.onnx".into()
        })
    );
}

#[test]
fn refuses_cycles_and_unordered_nodes() {
    let cycle = identity_graph()
        .message(1, node("Identity", "", &["b"], &["a"]))
        .message(1, node("Identity", "", &["a"], &["b"]));
    assert_eq!(
        parse(&model(cycle)),
        Err(OnnxError::Undefined {
            value: "b".into(),
            by: "Identity".into()
        })
    );
    let itself = identity_graph().message(1, node("Identity", "", &["a"], &["a"]));
    assert!(matches!(parse(&model(itself)), Err(OnnxError::Undefined { .. })));
    let twice = identity_graph().message(1, node("Identity", "", &["X"], &["Y"]));
    assert_eq!(parse(&model(twice)), Err(OnnxError::Duplicate { value: "Y".into() }));
    let nothing = identity_graph().message(12, tensor_port("Q", 1, &[1]));
    assert!(matches!(parse(&model(nothing)), Err(OnnxError::Undefined { .. })));
}

#[test]
fn refuses_deep_nesting() {
    let nest = |depth: usize| {
        let mut graph = Proto::new();
        for _ in 0..depth {
            let attribute = Proto::new().bytes(1, "then_branch").message(6, graph);
            graph = Proto::new().message(1, node("If", "", &[], &[]).message(5, attribute));
        }
        let attribute = Proto::new().bytes(1, "then_branch").message(6, graph);
        model(identity_graph().message(1, node("If", "", &["X"], &["i"]).message(5, attribute)))
    };
    assert!(parse(&nest(5)).is_ok());
    assert_eq!(
        parse(&nest(8)),
        Err(OnnxError::TooMany {
            what: "levels of subgraphs",
            limit: 8
        })
    );
    // Deeper than any stack: the limit must end the walk before the recursion does.
    assert!(parse(&nest(2_000)).is_err());

    let mut ty = Proto::new().message(1, Proto::new().int(1, 1));
    for _ in 0..2_000 {
        ty = Proto::new().message(4, Proto::new().message(1, ty));
    }
    let graph = identity_graph().message(11, Proto::new().bytes(1, "S").message(2, ty));
    assert!(matches!(parse(&model(graph)), Err(OnnxError::Port { .. })));
}

#[test]
fn subgraphs_see_what_is_defined_before_them() {
    let inside = |input: &str| {
        Proto::new()
            .message(1, node("Identity", "", &[input], &["inner"]))
            .message(12, tensor_port("inner", 1, &[]))
    };
    let branch = |input: &str| {
        let attribute = Proto::new().bytes(1, "then_branch").message(6, inside(input));
        model(identity_graph().message(1, node("If", "", &["X"], &["i"]).message(5, attribute)))
    };
    assert!(parse(&branch("X")).is_ok());
    assert!(parse(&branch("Y")).is_ok());
    assert!(matches!(parse(&branch("i")), Err(OnnxError::Undefined { .. })));
    // Names of the subgraph are gone after it.
    let attribute = Proto::new().bytes(1, "then_branch").message(6, inside("X"));
    let leak = identity_graph()
        .message(1, node("If", "", &["X"], &["i"]).message(5, attribute))
        .message(1, node("Identity", "", &["inner"], &["o"]));
    assert!(matches!(parse(&model(leak)), Err(OnnxError::Undefined { .. })));
}

#[test]
fn tensors_must_agree_with_their_data() {
    let check = |tensor: Proto| {
        parse(&model(identity_graph().message(5, tensor.bytes(8, "w")))).map(|header| header.initializer_bytes)
    };
    let tensor = |dtype: i64, dims: &[i64]| {
        dims.iter()
            .fold(Proto::new().int(2, dtype), |tensor, &dim| tensor.int(1, dim))
    };
    assert_eq!(check(tensor(1, &[2, 3]).bytes(9, [0; 24])), Ok(24));
    assert_eq!(check(tensor(1, &[]).bytes(9, [0; 4])), Ok(4));
    assert_eq!(check(tensor(1, &[0]).bytes(9, [])), Ok(0));
    // Packed floats, packed and single integers, 4-bit values two to an entry.
    assert_eq!(check(tensor(1, &[2]).bytes(4, [0; 8])), Ok(8));
    assert_eq!(check(tensor(7, &[3]).bytes(7, [1, 2]).int(7, 3)), Ok(24));
    assert_eq!(check(tensor(22, &[3]).bytes(5, [1, 2])), Ok(2));
    assert_eq!(check(tensor(8, &[2]).bytes(6, "a").bytes(6, "b")), Ok(0));
    for wrong in [
        tensor(1, &[2, 3]).bytes(9, [0; 23]),
        tensor(1, &[2]).bytes(4, [0; 4]),
        tensor(1, &[2]),
        tensor(1, &[-1]).bytes(9, [0; 4]),
        tensor(1, &[i64::MAX, 4]).bytes(9, []),
        tensor(1, &[1 << 40, 1 << 22]).bytes(9, []),
        tensor(99, &[1]).bytes(9, [0; 4]),
        tensor(8, &[1]).bytes(9, [0; 4]),
        tensor(1, &[1]).bytes(9, [0; 4]).bytes(4, [0; 4]),
        tensor(1, &[1]).bytes(9, [0; 4]).message(3, Proto::new()),
        tensor(1, &[1; 40]).bytes(9, [0; 4]),
    ] {
        assert!(
            matches!(check(wrong.clone()), Err(OnnxError::Tensor { .. })),
            "{wrong:?}"
        );
    }
}

#[test]
fn elements_are_counted_by_type() {
    let tensor = |name: &str, dtype: i64, dim: i64, bytes: usize| {
        let tensor = Proto::new().int(2, dtype).int(1, dim).bytes(9, vec![0; bytes]);
        tensor.bytes(8, name)
    };
    let graph = identity_graph()
        .message(5, tensor("a", 1, 3, 12))
        .message(5, tensor("b", 10, 5, 10))
        .message(5, tensor("c", 22, 7, 4))
        .message(5, tensor("d", 1, 2, 8));
    let header = parse(&model(graph)).unwrap();
    let found: Vec<_> = header.initializer_elements.into_iter().collect();
    assert_eq!(found, [(DType::F32, 5), (DType::F16, 5), (DType::I4, 7)]);
    assert_eq!(header.initializer_bytes, 34);
}

#[test]
fn limits_are_kept() {
    let bytes = fixture("digits/digits_mlp.onnx");
    let limits = |change: fn(&mut Limits)| {
        let mut limits = Limits::default();
        change(&mut limits);
        OnnxHeader::parse_with(&bytes, &limits)
    };
    assert!(matches!(
        limits(|limits| limits.bytes = 100),
        Err(OnnxError::TooLarge {
            limit: 100,
            got: 20_299
        })
    ));
    assert!(matches!(
        limits(|limits| limits.nodes = 3),
        Err(OnnxError::TooMany {
            what: "nodes",
            limit: 3
        })
    ));
    assert!(matches!(
        limits(|limits| limits.values = 3),
        Err(OnnxError::TooMany { what: "values", .. })
    ));
    assert!(limits(|limits| limits.rank = 1).is_err());
    let long = identity_graph().message(1, node("Identity", "", &["X"], &[&"n".repeat(2_000)]));
    assert!(matches!(parse(&model(long)), Err(OnnxError::Port { .. })));
}

#[test]
fn every_cut_of_a_real_file_is_an_error() {
    let bytes = fixture("digits/logreg.onnx");
    for end in 0..bytes.len() {
        // Metadata after the graph may be cut off whole; then the rest is a model still.
        if let Ok(header) = OnnxHeader::parse(&bytes[..end]) {
            assert_eq!(header.outputs.len(), 2);
        }
    }
}

proptest! {
    #[test]
    fn mutations_do_not_panic(edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12), cut in any::<prop::sample::Index>()) {
        for file in ["digits/logreg.onnx", "digits/digits_mlp.onnx"] {
            let mut bytes = fixture(file);
            for (at, byte) in &edits {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            let _ = OnnxHeader::parse(&bytes);
            let _ = OnnxHeader::parse(&bytes[..cut.index(bytes.len())]);
        }
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = OnnxHeader::parse(&bytes);
        let _ = parse(&model(Proto(bytes)));
    }
}
