//! Whole models against onnxruntime: the benchmark's networks, scikit-learn's classifiers, and a digits network whose
//! held-out images decide.

use opg_integer_program::{
    compile::{Options, Profile, compile},
    error::RunError,
    interpret,
    program::Program,
    quantise::{PostValue, dequantise, quantise_input},
};
use serde_json::Value;

fn read(path: &str) -> Vec<u8> {
    std::fs::read(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn json(path: &str) -> Value {
    serde_json::from_slice(&read(path)).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|number| number.as_f64().unwrap())
        .collect()
}

/// Dequantised first output and the result of the first computation on outputs.
fn infer(program: &Program, x: &[f64]) -> Result<(Vec<f64>, Option<PostValue>), RunError> {
    let x: Vec<f32> = x.iter().map(|x| *x as f32).collect();
    let integers = quantise_input(&program.graph.inputs[0], &x)?;
    let trace = interpret::run(program, &[integers])?;
    let outputs = trace.outputs(program).unwrap();
    let post = program.graph.posts.first().map(|post| {
        let opg_integer_program::program::Post::ArgMax { output, .. } = post;
        let source = program.graph.outputs[*output as usize].source;
        post.apply(program.graph.operand(source).unwrap().shape, &outputs[*output as usize])
            .unwrap()
    });
    Ok((dequantise(&program.graph.outputs[0], &outputs[0]), post))
}

#[test]
fn benchmark_networks_stay_close_to_onnxruntime() {
    // (model, bound of int8, bound of int16): share of the greatest absolute output.
    for (model, coarse, fine) in [("mlp17k", 0.03, 3e-4), ("lenet", 0.04, 4e-4), ("tblock", 0.04, 2e-3)] {
        let onnx = read(&format!("tests/fixtures/{model}.onnx"));
        let sample = json(&format!("tests/fixtures/{model}.input.json"));
        let expected = numbers(&sample["output_data"][0]);
        let greatest = expected.iter().fold(0f64, |most, value| most.max(value.abs()));
        for (profile, bound) in [(Profile::Int8, coarse), (Profile::Int16, fine)] {
            // Random calibration: the sample itself is new to the program.
            let compiled = compile(
                &onnx,
                None,
                &Options {
                    profile,
                    ..Options::default()
                },
            )
            .unwrap();
            let (got, _) = infer(&compiled.program, &numbers(&sample["input_data"][0])).unwrap();
            let worst = got
                .iter()
                .zip(&expected)
                .fold(0f64, |most, (a, b)| most.max((a - b).abs()));
            println!(
                "{model} {profile:?}: max abs error {worst:.6}, {:.6} of the greatest output",
                worst / greatest
            );
            assert!(worst / greatest <= bound, "{model} {profile:?}: {}", worst / greatest);
        }
    }
}

#[test]
fn a_digits_network_keeps_its_labels_on_held_out_images() {
    let data = json("tests/fixtures/digits80.json");
    let images = |name: &str| -> Vec<Vec<f64>> { data[name].as_array().unwrap().iter().map(numbers).collect() };
    let calibration: Vec<Value> = images("calibration")
        .iter()
        .map(|x| serde_json::json!({ "X": [x] }))
        .collect();
    let calibration = serde_json::to_vec(&calibration).unwrap();
    let (labels, predicted) = (numbers(&data["labels"]), numbers(&data["predicted"]));
    for profile in [Profile::Int8, Profile::Int16] {
        let options = Options {
            profile,
            ..Options::default()
        };
        let compiled = compile(&read("tests/fixtures/digits80.onnx"), Some(&calibration), &options).unwrap();
        let (mut same, mut right, mut float_right) = (0, 0, 0);
        for ((image, label), predicted) in images("images").iter().zip(&labels).zip(&predicted) {
            let (_, post) = infer(&compiled.program, image).unwrap();
            let PostValue::Integers(got) = post.unwrap() else {
                panic!("labels are integers")
            };
            same += usize::from(got[0] as f64 == *predicted);
            right += usize::from(got[0] as f64 == *label);
            float_right += usize::from(predicted == label);
        }
        println!("{profile:?}: agreement {same}/360, accuracy {right}/360, float {float_right}/360");
        assert_eq!(labels.len(), 360);
        assert!(
            same * 100 >= 360 * 99,
            "{profile:?}: only {same} of 360 labels are the float model's"
        );
        assert!(
            right * 100 >= float_right * 99,
            "{profile:?}: accuracy fell from {float_right} to {right}"
        );
        for (image, expected) in images("images").iter().zip(data["probabilities"].as_array().unwrap()) {
            let (got, _) = infer(&compiled.program, image).unwrap();
            for (a, b) in got.iter().zip(numbers(expected)) {
                assert!((a - b).abs() < 0.2, "{profile:?}: probability {a} for {b}");
            }
        }
    }
}

#[test]
fn scikit_learn_classifiers_give_onnxruntime_s_labels() {
    let samples = json("../../testing/fixtures/digits/samples.json");
    let inputs: Vec<Vec<f64>> = samples["inputs"].as_array().unwrap().iter().map(numbers).collect();
    let calibration: Vec<Value> = inputs.iter().map(|x| serde_json::json!({ "X": [x] })).collect();
    let calibration = serde_json::to_vec(&calibration).unwrap();
    for model in ["digits_mlp", "logreg"] {
        let onnx = read(&format!("../../testing/fixtures/digits/{model}.onnx"));
        let program = compile(&onnx, Some(&calibration), &Options::default()).unwrap().program;
        assert_eq!(program.graph.outputs[0].name, "probabilities");
        assert_eq!(program.graph.posts[0].name(), "label");
        let expected = &samples["models"][model];
        for (row, x) in inputs.iter().enumerate() {
            let (probabilities, label) = infer(&program, x).unwrap();
            assert_eq!(
                label,
                Some(PostValue::Integers(vec![expected["label"][row].as_i64().unwrap()])),
                "{model} {row}"
            );
            for (a, b) in probabilities.iter().zip(numbers(&expected["probabilities"][row])) {
                assert!((a - b).abs() < 0.15, "{model} row {row}: {a} for {b}");
            }
        }
    }
}

#[test]
fn trees_are_refused_by_name() {
    let onnx = read("../../testing/fixtures/digits/gbc.onnx");
    let text = compile(&onnx, None, &Options::default())
        .expect_err("trees are not compiled")
        .to_string();
    assert!(
        text.contains("TreeEnsembleClassifier") && text.contains("another verification mode"),
        "{text}"
    );
}
