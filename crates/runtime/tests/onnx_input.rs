//! Every way to call an ONNX model wrongly, every element type, and outputs that are not tensors.

#[path = "../../models/tests/common/mod.rs"]
mod common;

use common::{Proto, fixture, node, tensor_port};
use opg_runtime::{
    InputError, RuntimeError,
    onnx::{OnnxModel, OnnxOptions},
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn digits() -> OnnxModel {
    OnnxModel::load(&fixture("digits/digits_mlp.onnx"), &OnnxOptions::default()).unwrap()
}

/// IR version 8, `ai.onnx` 17 and `ai.onnx.ml` 3, written with the test writer.
fn model(graph: Proto) -> OnnxModel {
    try_model(graph, &OnnxOptions::default()).unwrap()
}

fn try_model(graph: Proto, options: &OnnxOptions) -> Result<OnnxModel, RuntimeError> {
    let import = |domain: &str, version| Proto::new().bytes(1, domain).int(2, version);
    let model = Proto::new()
        .int(1, 8)
        .message(8, import("", 17))
        .message(8, import("ai.onnx.ml", 3));
    OnnxModel::load(&model.message(7, graph.bytes(2, "g")).0, options)
}

fn identity(dtype: i64, shape: &[i64]) -> Proto {
    Proto::new()
        .message(1, node("Identity", "", &["X"], &["Y"]))
        .message(11, tensor_port("X", dtype, shape))
        .message(12, tensor_port("Y", dtype, shape))
}

/// Message of a refusal, which must be the client's fault and found before the engine runs.
fn refusal(model: &OnnxModel, input: &Value) -> String {
    let error = model.validate(input).expect_err(&input.to_string());
    assert!(error.is_client());
    assert!(!error.field().is_empty());
    error.to_string()
}

#[test]
fn bad_inputs_are_named() {
    let model = digits();
    let row = vec![0.5; 64];
    let with = |at: usize, value: Value| {
        let mut row: Vec<Value> = vec![json!(0); 64];
        row[at] = value;
        json!({ "X": [vec![0; 64], row] })
    };
    for (input, expected) in [
        (json!(null), "input: expected an object {name: nested lists}, got null"),
        (
            json!([[1, 2]]),
            "input: expected an object {name: nested lists}, got a list",
        ),
        (json!("X"), "input: expected an object {name: nested lists}, got a text"),
        (json!({}), "X: missing, expected f32[?,64]"),
        (json!({ "x": [row] }), r#"input: unknown name "x", expected X"#),
        (json!({ "X": [row], "Z": 1 }), r#"input: unknown name "Z", expected X"#),
        (json!({ "X": row }), "X: expected shape [null,64], got [64]"),
        (json!({ "X": [[row]] }), "X: expected shape [null,64], got [1,1,64]"),
        (json!({ "X": [vec![0; 63]] }), "X: expected shape [null,64], got [1,63]"),
        (json!({ "X": 7 }), "X: expected shape [null,64], got []"),
        (json!({ "X": null }), "X: expected shape [null,64], got []"),
        (json!({ "X": {} }), "X: expected shape [null,64], got []"),
        (json!({ "X": "1,2" }), "X: expected shape [null,64], got []"),
        (
            json!({ "X": [] }),
            "X: expected at least one element, got an empty list",
        ),
        (
            json!({ "X": [[]] }),
            "X[0]: expected at least one element, got an empty list",
        ),
        (
            json!({ "X": [row, vec![0; 63]] }),
            "X[1]: expected a list of length 64 as in the rows before, got 63",
        ),
        (json!({ "X": [row, 5] }), "X[1]: expected a list, got a number"),
        (json!({ "X": [row, null] }), "X[1]: expected a list, got null"),
        (with(3, json!("4")), "X[1][3]: expected f32, got the text \"4\""),
        (with(3, json!(null)), "X[1][3]: expected f32, got null"),
        (with(3, json!(true)), "X[1][3]: expected f32, got a boolean"),
        (with(3, json!([1])), "X[1][3]: expected f32, got a list"),
        (with(3, json!({ "a": 1 })), "X[1][3]: expected f32, got an object"),
        (
            with(63, json!("NaN")),
            "X[1][63]: expected a finite number, got \"NaN\"",
        ),
        (
            with(63, json!("-Infinity")),
            "X[1][63]: expected a finite number, got \"-Infinity\"",
        ),
        (
            with(63, json!("inf")),
            "X[1][63]: expected a finite number, got \"inf\"",
        ),
        (
            with(0, json!(1e39)),
            "X[1][0]: 1000000000000000000000000000000000000000 is out of range for f32",
        ),
    ] {
        assert_eq!(refusal(&model, &input), expected);
    }
    let field = model.validate(&with(3, json!("4"))).unwrap_err();
    assert_eq!((field.field(), field.code()), ("X[1][3]", "wrong_dtype"));
    // NaN and infinity are not JSON at all.
    assert!(serde_json::from_str::<Value>("{\"X\": [NaN]}").is_err());
    assert!(serde_json::from_str::<Value>("{\"X\": [1e999]}").is_err());
}

#[test]
fn deep_and_large_inputs_are_refused_before_they_cost() {
    let options = OnnxOptions {
        input_elements: 128,
        ..OnnxOptions::default()
    };
    let small = OnnxModel::load(&fixture("digits/digits_mlp.onnx"), &options).unwrap();
    assert!(small.validate(&json!({ "X": vec![vec![0; 64]; 2] })).is_ok());
    assert_eq!(
        refusal(&small, &json!({ "X": vec![vec![0; 64]; 3] })),
        "X: 192 elements, at most 128 are accepted"
    );
    let mut deep = json!(1);
    for _ in 0..100 {
        deep = json!([deep]);
    }
    assert!(refusal(&digits(), &json!({ "X": deep })).starts_with("X: expected shape at most 8 dimensions"));
    // Long names do not come back whole.
    assert!(refusal(&digits(), &json!({ "n".repeat(10_000): 1 })).len() < 200);
}

#[test]
fn every_element_type_round_trips() {
    for (dtype, name, values) in [
        (1, "f32", json!([[0.1f32, -3.5e38f64 / 1.1], [1e-45f64, 7]])),
        (11, "f64", json!([[0.1, 1.797e308], [5e-324, -2]])),
        (2, "u8", json!([[0, 255], [1, 2]])),
        (3, "i8", json!([[-128, 127], [0, 1]])),
        (4, "u16", json!([[0, 65535], [1, 2]])),
        (5, "i16", json!([[-32768, 32767], [1, 2]])),
        (6, "i32", json!([[i32::MIN, i32::MAX], [1, 2]])),
        (7, "i64", json!([[i64::MIN, i64::MAX], [1, 2]])),
        (12, "u32", json!([[0, u32::MAX], [1, 2]])),
        (13, "u64", json!([[0, u64::MAX], [1, 2]])),
        (9, "bool", json!([[true, false], [false, true]])),
        (8, "string", json!([["", "snow ☃"], ["a", "b"]])),
    ] {
        let model = model(identity(dtype, &[-1, 2]));
        assert_eq!(model.signature().inputs[0].dtype, name);
        let answer = model.run(model.validate(&json!({ "X": values })).unwrap()).unwrap();
        if dtype == 1 {
            for (got, given) in answer["Y"].as_array().unwrap().iter().zip(values.as_array().unwrap()) {
                for (got, given) in got.as_array().unwrap().iter().zip(given.as_array().unwrap()) {
                    assert_eq!(got.as_f64().unwrap(), f64::from(given.as_f64().unwrap() as f32));
                }
            }
        } else {
            let numbers = |value: &Value| value.to_string().replace(".0", "");
            assert_eq!(numbers(&answer["Y"]), numbers(&values), "{name}");
        }
    }
}

#[test]
fn types_are_not_mixed() {
    for (dtype, value, expected) in [
        (7, json!([1.5]), "X[0]: expected i64, got the number 1.5"),
        (7, json!([1.0]), "X[0]: expected i64, got the number 1.0"),
        (
            7,
            json!([9_223_372_036_854_775_808u64]),
            "X[0]: 9223372036854775808 is out of range for i64",
        ),
        (6, json!([2_147_483_648u64]), "X[0]: 2147483648 is out of range for i32"),
        (2, json!([-1]), "X[0]: -1 is out of range for u8"),
        (2, json!([256]), "X[0]: 256 is out of range for u8"),
        (13, json!([-1]), "X[0]: -1 is out of range for u64"),
        (9, json!([1]), "X[0]: expected bool, got the number 1"),
        (9, json!(["true"]), "X[0]: expected bool, got the text \"true\""),
        (8, json!([1]), "X[0]: expected string, got the number 1"),
        (
            8,
            json!(["a\0b"]),
            "X[0]: expected string, got a text with a NUL character",
        ),
        (7, json!(["NaN"]), "X[0]: expected a finite number, got \"NaN\""),
    ] {
        assert_eq!(
            refusal(&model(identity(dtype, &[-1])), &json!({ "X": value })),
            expected
        );
    }
}

#[test]
fn scalars_and_free_shapes() {
    let scalar = model(identity(7, &[]));
    assert_eq!(scalar.signature().inputs[0].shape, Some(vec![]));
    assert_eq!(
        scalar.run(scalar.validate(&json!({ "X": -4 })).unwrap()).unwrap(),
        json!({ "Y": -4 })
    );
    assert_eq!(refusal(&scalar, &json!({ "X": [1] })), "X: expected shape [], got [1]");

    let free = |name: &str| {
        Proto::new()
            .bytes(1, name)
            .message(2, Proto::new().message(1, Proto::new().int(1, 7)))
    };
    let graph = Proto::new()
        .message(1, node("Identity", "", &["X"], &["Y"]))
        .message(11, free("X"))
        .message(12, free("Y"));
    let model = model(graph);
    assert_eq!(model.signature().inputs[0].shape, None);
    for value in [json!(1), json!([1, 2]), json!([[[1]], [[2]]])] {
        assert_eq!(
            model.run(model.validate(&json!({ "X": value })).unwrap()).unwrap(),
            json!({ "Y": value })
        );
    }
    assert!(refusal(&model, &json!({ "X": [[1, 2], [3]] })).starts_with("X[1]: expected a list of length 2"));
}

#[test]
fn named_dimensions_must_agree() {
    let graph = Proto::new()
        .message(1, node("Add", "", &["A", "B"], &["Y"]))
        .message(11, tensor_port("A", 1, &[-1, 2]))
        .message(11, tensor_port("B", 1, &[-1, 2]))
        .message(12, tensor_port("Y", 1, &[-1, 2]));
    let model = model(graph);
    let answer = model
        .run(model.validate(&json!({ "B": [[1, 2]], "A": [[10, 20]] })).unwrap())
        .unwrap();
    assert_eq!(answer, json!({ "Y": [[11.0, 22.0]] }));
    assert_eq!(
        refusal(&model, &json!({ "A": [[1, 2]], "B": [[1, 2], [3, 4]] })),
        "B: dimension \"N\" is 2 here and 1 in another input",
    );
    assert_eq!(
        refusal(&model, &json!({ "A": [[1, 2]] })),
        "B: missing, expected f32[N,2]"
    );
}

/// What scikit-learn's exporters write by default: a list with one dictionary of probabilities for each row.
#[test]
fn sequences_of_maps_become_lists_of_objects() {
    let map = |key: i64| {
        let map = Proto::new()
            .int(1, key)
            .message(2, Proto::new().message(1, Proto::new().int(1, 1)));
        Proto::new().message(4, Proto::new().message(1, Proto::new().message(5, map)))
    };
    let zip = |key: i64, labels: Proto| {
        let node = node("ZipMap", "ai.onnx.ml", &["X"], &["Y"]).message(5, labels);
        let graph = Proto::new()
            .message(1, node)
            .message(11, tensor_port("X", 1, &[-1, 2]))
            .message(12, Proto::new().bytes(1, "Y").message(2, map(key)));
        model(graph)
    };
    let ints = zip(
        7,
        Proto::new()
            .bytes(1, "classlabels_int64s")
            .int(20, 7)
            .int(8, 3)
            .int(8, -4),
    );
    assert_eq!(ints.signature().outputs[0].to_string(), "Y: sequence<map<i64,f32[..]>>");
    let run = |model: &OnnxModel| {
        model
            .run(model.validate(&json!({ "X": [[0.5, 2], [1, 0]] })).unwrap())
            .unwrap()
    };
    assert_eq!(
        run(&ints),
        json!({ "Y": [{ "3": 0.5, "-4": 2.0 }, { "3": 1.0, "-4": 0.0 }] })
    );
    let texts = zip(
        8,
        Proto::new()
            .bytes(1, "classlabels_strings")
            .int(20, 8)
            .bytes(9, "no")
            .bytes(9, "yes"),
    );
    assert_eq!(
        run(&texts),
        json!({ "Y": [{ "no": 0.5, "yes": 2.0 }, { "no": 1.0, "yes": 0.0 }] })
    );
}

#[test]
fn outputs_that_are_not_numbers_are_texts_and_large_ones_are_refused() {
    let log = Proto::new()
        .message(1, node("Log", "", &["X"], &["Y"]))
        .message(11, tensor_port("X", 1, &[-1]))
        .message(12, tensor_port("Y", 1, &[-1]));
    let nan = model(log);
    let answer = nan.run(nan.validate(&json!({ "X": [-1, 0, 1] })).unwrap()).unwrap();
    assert_eq!(answer, json!({ "Y": ["NaN", "-Infinity", 0.0] }));

    let options = OnnxOptions {
        output_elements: 3,
        ..OnnxOptions::default()
    };
    let small = try_model(identity(1, &[-1]), &options).unwrap();
    assert!(small.run(small.validate(&json!({ "X": [1, 2, 3] })).unwrap()).is_ok());
    let error = small
        .run(small.validate(&json!({ "X": [1, 2, 3, 4] })).unwrap())
        .unwrap_err();
    assert!(matches!(error, RuntimeError::OutputTooLarge { limit: 3, got: 4 }) && !error.is_client());
}

#[test]
fn models_that_cannot_be_called_are_not_loaded() {
    // f16 has no JSON form here; a sparse or missing file is refused by the reader.
    let error = try_model(identity(10, &[-1]), &OnnxOptions::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "model cannot be served: input \"X\" has type f16[N], which a JSON call cannot carry"
    );
    assert_eq!(error.code(), "model_not_servable");
    assert!(matches!(
        OnnxModel::load(b"not a model", &OnnxOptions::default()),
        Err(RuntimeError::Onnx(_))
    ));
    assert!(matches!(
        OnnxModel::load(b"", &OnnxOptions::default()),
        Err(RuntimeError::Onnx(_))
    ));
    let missing = OnnxModel::load_file("/nonexistent/model.onnx".as_ref(), &OnnxOptions::default()).unwrap_err();
    assert!(
        missing.to_string().starts_with("/nonexistent/model.onnx: "),
        "{missing}"
    );
    // Well formed, but the engine does not know the operator.
    let unknown = Proto::new()
        .message(1, node("NoSuchOperator", "", &["X"], &["Y"]))
        .message(11, tensor_port("X", 1, &[-1]))
        .message(12, tensor_port("Y", 1, &[-1]));
    assert!(matches!(
        try_model(unknown, &OnnxOptions::default()),
        Err(RuntimeError::Model { .. })
    ));
}

#[test]
fn inputs_belong_to_the_model_that_checked_them() {
    let (a, b) = (digits(), digits());
    let prepared = a.validate(&json!({ "X": [vec![0; 64]] })).unwrap();
    assert_eq!(prepared.elements(), 64);
    assert!(matches!(
        b.run(prepared.clone()),
        Err(RuntimeError::Input(InputError::WrongModel))
    ));
    assert!(a.run(prepared).is_ok());
}

/// A run that fails inside the engine is an error, and the session works on.
#[test]
fn a_failed_run_leaves_the_model_usable() {
    // Reshape to [3] fails for other numbers of elements.
    let shape = Proto::new()
        .int(1, 1)
        .int(2, 7)
        .bytes(8, "shape")
        .bytes(9, 3i64.to_le_bytes());
    let graph = Proto::new()
        .message(1, node("Reshape", "", &["X", "shape"], &["Y"]))
        .message(5, shape)
        .message(11, tensor_port("X", 1, &[-1]))
        .message(12, tensor_port("Y", 1, &[3]));
    let model = model(graph);
    let run = |values: Value| model.run(model.validate(&json!({ "X": values })).unwrap());
    let error = run(json!([1, 2])).unwrap_err();
    assert!(matches!(error, RuntimeError::Engine { .. }), "{error}");
    assert_eq!(run(json!([1, 2, 3])).unwrap(), json!({ "Y": [1.0, 2.0, 3.0] }));
}

/// Any JSON, biased to what a tensor of two columns could be.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(inner.clone(), 2..3).prop_map(Value::from),
            prop::collection::hash_map("X|.{0,3}", inner, 0..2)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    /// Whatever is accepted runs and comes back in the same shape; whatever is not has a named field and no panic.
    #[test]
    fn accepted_inputs_run(value in any_json()) {
        static MODEL: std::sync::LazyLock<OnnxModel> = std::sync::LazyLock::new(|| model(identity(1, &[-1, 2])));
        for input in [value.clone(), json!({ "X": value })] {
            match MODEL.validate(&input) {
                Ok(prepared) => {
                    let answer = MODEL.run(prepared).unwrap();
                    prop_assert_eq!(answer["Y"].as_array().map(Vec::len), input["X"].as_array().map(Vec::len));
                }
                Err(error) => prop_assert!(error.is_client() && !error.field().is_empty()),
            }
        }
    }
}
