//! Every operator against onnxruntime: `fixtures/ops.json`, written by `fixtures/make_ops.py`.

use opg_integer_program::{
    compile::{Compiled, Options, Profile, compile},
    interpret,
    program::{Graph, Program},
    quantise::{dequantise, quantise_input},
};
use serde_json::Value;

fn fixture(name: &str) -> Value {
    let path = format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn bytes(hex: &Value) -> Vec<u8> {
    let text = hex.as_str().unwrap();
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|number| number.as_f64().unwrap())
        .collect()
}

fn compiled(case: &Value, profile: Profile) -> Compiled {
    let samples: Vec<Value> = case["inputs"].as_array().unwrap()[..32]
        .iter()
        .map(|x| serde_json::json!({ "x": x }))
        .collect();
    let data = serde_json::to_vec(&samples).unwrap();
    let options = Options {
        profile,
        ..Options::default()
    };
    compile(&bytes(&case["onnx"]), Some(&data), &options).unwrap_or_else(|error| panic!("{}: {error}", case["name"]))
}

/// Greatest difference from onnxruntime on the samples that the compiler never saw, as a share of the greatest value.
fn error(case: &Value, program: &Program) -> f64 {
    let (mut worst, mut greatest) = (0f64, 0f64);
    for (x, y) in case["inputs"].as_array().unwrap()[32..]
        .iter()
        .zip(case["outputs"].as_array().unwrap())
    {
        let x: Vec<f32> = numbers(x).iter().map(|x| *x as f32).collect();
        let integers = quantise_input(&program.graph.inputs[0], &x).unwrap();
        let trace = interpret::run(program, &[integers]).unwrap();
        let got = dequantise(&program.graph.outputs[0], &trace.outputs(program).unwrap()[0]);
        let expected = numbers(y);
        assert_eq!(got.len(), expected.len(), "{}", case["name"]);
        for (a, b) in got.iter().zip(&expected) {
            worst = worst.max((a - b).abs());
            greatest = greatest.max(b.abs());
        }
    }
    worst / greatest
}

#[test]
fn agrees_with_onnxruntime_in_both_profiles() {
    let mut failures = Vec::new();
    for case in fixture("ops.json").as_array().unwrap() {
        let tolerance = case["tolerance"].as_f64().unwrap();
        // What the samples did not reach is clipped in the 8-bit profile, so its tolerance is wide; 16 bits leave
        // room and are at least 8 times closer.
        for (profile, tolerance) in [(Profile::Int8, tolerance * 2.0), (Profile::Int16, tolerance / 8.0)] {
            let program = compiled(case, profile).program;
            let shape: Vec<usize> = numbers(&case["shape"]).iter().map(|dim| *dim as usize).collect();
            let output = program.graph.operand(program.graph.outputs[0].source).unwrap();
            assert_eq!(output.shape, shape, "{}", case["name"]);
            let error = error(case, &program);
            println!("{:28} {profile:?} {error:.5}", case["name"].as_str().unwrap());
            if error > tolerance {
                failures.push(format!("{} {profile:?}: {error:.5} > {tolerance:.5}", case["name"]));
            }
        }
    }
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
fn bytes_and_digests_survive_encoding() {
    for case in fixture("ops.json").as_array().unwrap() {
        let program = compiled(case, Profile::Int8).program;
        let bytes = program.encode();
        let again = Program::decode(&bytes).unwrap_or_else(|error| panic!("{}: {error}", case["name"]));
        assert_eq!(again, program);
        assert_eq!(again.encode(), bytes);
        let graph = program.graph.encode();
        let verifier = Graph::decode(&graph).unwrap();
        assert_eq!(verifier, program.graph);
        assert_eq!(verifier.digest(), program.graph.digest());
    }
}

#[test]
fn compiling_twice_gives_the_same_program() {
    for case in fixture("ops.json").as_array().unwrap().iter().step_by(6) {
        assert_eq!(
            compiled(case, Profile::Int16).program.digest(),
            compiled(case, Profile::Int16).program.digest()
        );
    }
}

#[test]
fn bad_models_are_refused_by_name() {
    for case in fixture("bad.json").as_array().unwrap() {
        let error = compile(&bytes(&case["onnx"]), None, &Options::default()).expect_err("must be refused");
        let text = error.to_string();
        for word in case["says"].as_array().unwrap() {
            assert!(
                text.contains(word.as_str().unwrap()),
                "{}: {text:?} does not say {word}",
                case["name"]
            );
        }
    }
}

#[test]
fn calibration_of_the_wrong_form_is_refused() {
    let cases = fixture("ops.json");
    let case = cases
        .as_array()
        .unwrap()
        .iter()
        .find(|case| case["name"] == "gemm")
        .unwrap();
    let onnx = bytes(&case["onnx"]);
    for (data, says) in [
        (
            r#"[{"x": [1, 2, 3]}]"#,
            "sample 0: input \"x\": expected shape [1, 12], got [3]",
        ),
        (r#"[{"y": [1]}]"#, "input \"x\": it is missing"),
        (r#"[{"x": [[1, 2], [3]]}]"#, "different lengths"),
        (r#"[{"x": [[1e60,1,1,1,1,1,1,1,1,1,1,1]]}]"#, "does not fit float32"),
        (r#"[]"#, "0 samples"),
        ("{", "calibration data"),
        ("3", "calibration data"),
    ] {
        let error = compile(&onnx, Some(data.as_bytes()), &Options::default())
            .expect_err(data)
            .to_string();
        assert!(error.contains(says), "{error:?} does not say {says:?}");
    }
}
