//! The digits models against the answers of another program: onnxruntime 1.31.1 for Python (`samples.json`).

use opg_primitives::hash;
use opg_runtime::{
    onnx::{OnnxModel, OnnxOptions, library},
    worker::{Program, Sandbox, WorkerOptions},
};
use serde_json::{Value, json};
use std::{path::PathBuf, sync::Arc};

/// SHA-256 of libonnxruntime.so.1.31.1 of the PyPI wheel for x86-64, which made the reference bits.
const REFERENCE_LIBRARY: &str = "0xfc44112fbe06d7d689c57e11d3862031f64711007e4ee020f8eed5185fd2c1d3";
const MODELS: [&str; 3] = ["digits_mlp", "logreg", "gbc"];

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("../../testing/fixtures/digits")
            .join(name),
    )
    .unwrap()
}

fn samples() -> Value {
    serde_json::from_slice(&fixture("samples.json")).unwrap()
}

/// In this process, and in locked-in workers: the bits must be the same.
fn both() -> [OnnxOptions; 2] {
    let program = Program::new(env!("CARGO_BIN_EXE_opg-engine-worker"), &[]);
    let sandbox = if cfg!(target_os = "linux") {
        Sandbox::Required
    } else {
        Sandbox::BestEffort
    };
    let workers = OnnxOptions {
        worker: WorkerOptions {
            sandbox,
            program: Some(Arc::new(program)),
            ..WorkerOptions::default()
        },
        ..OnnxOptions::default()
    };
    [OnnxOptions::default(), workers]
}

fn load(name: &str, options: &OnnxOptions) -> OnnxModel {
    OnnxModel::load(&fixture(&format!("{name}.onnx")), options).unwrap()
}

fn run(model: &OnnxModel, rows: &Value) -> Value {
    model.run(model.validate(&json!({ "X": rows })).unwrap()).unwrap()
}

/// Bits of a list of lists of numbers, as written in the samples.
fn bits(rows: &Value) -> Vec<Vec<String>> {
    let row = |row: &Value| {
        row.as_array()
            .unwrap()
            .iter()
            .map(|x| format!("{:08x}", (x.as_f64().unwrap() as f32).to_bits()))
            .collect()
    };
    rows.as_array().unwrap().iter().map(row).collect()
}

/// Bits are comparable inside one build of the runtime and one class of processor (README of the fixture). The
/// reference was made with AVX-512; AVX2 gives the same bits for these models and batch sizes.
fn same_machine_class() -> bool {
    #[cfg(target_arch = "x86_64")]
    let class = std::arch::is_x86_feature_detected!("avx2");
    #[cfg(not(target_arch = "x86_64"))]
    let class = false;
    class && library::get().unwrap().sha256.to_string() == REFERENCE_LIBRARY
}

#[test]
fn outputs_are_those_of_the_reference() {
    let samples = samples();
    for (options, name) in both().iter().flat_map(|options| MODELS.map(|name| (options, name))) {
        let expected = &samples["models"][name];
        assert_eq!(
            hash::sha256(&fixture(&format!("{name}.onnx"))).to_string(),
            format!("0x{}", expected["sha256"].as_str().unwrap())
        );
        let model = load(name, options);
        assert_eq!(model.engine().processes, options.worker.program.is_some());
        let all = run(&model, &samples["inputs"]);
        assert_eq!(all["label"], expected["label"], "{name}");
        let ones: Vec<Value> = samples["inputs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| run(&model, &json!([row]))["probabilities"][0].clone())
            .collect();
        let ones = Value::Array(ones);
        for got in [&all["probabilities"], &ones] {
            for (got, expected) in got
                .as_array()
                .unwrap()
                .iter()
                .zip(expected["probabilities"].as_array().unwrap())
            {
                for (got, expected) in got.as_array().unwrap().iter().zip(expected.as_array().unwrap()) {
                    let difference = (got.as_f64().unwrap() - expected.as_f64().unwrap()).abs();
                    assert!(difference <= 1e-5, "{name}: {got} {expected}");
                }
            }
        }
        if same_machine_class() {
            assert_eq!(
                json!(bits(&all["probabilities"])),
                expected["batch20_f32_bits"],
                "{name}"
            );
            assert_eq!(json!(bits(&ones)), expected["batch1_f32_bits"], "{name}");
        }
    }
}

#[test]
fn one_and_two_threads_give_the_same_bits() {
    let samples = samples();
    for name in MODELS {
        let one = run(&load(name, &OnnxOptions::default()), &samples["inputs"]);
        for options in both() {
            let options = OnnxOptions { threads: 2, ..options };
            assert_eq!(one, run(&load(name, &options), &samples["inputs"]), "{name}");
        }
    }
}

#[test]
fn callers_share_sessions_and_get_their_own_answers() {
    let samples = samples();
    let rows = samples["inputs"].as_array().unwrap();
    for (options, sessions) in both()
        .into_iter()
        .flat_map(|options| [1, 3].map(|n| (options.clone(), n)))
    {
        let model = load("gbc", &OnnxOptions { sessions, ..options });
        std::thread::scope(|scope| {
            for start in 0..4 {
                let (model, samples) = (&model, &samples);
                scope.spawn(move || {
                    for at in (start..rows.len()).step_by(4).cycle().take(40) {
                        let answer = run(model, &json!([rows[at]]));
                        assert_eq!(answer["label"][0], samples["models"]["gbc"]["label"][at]);
                    }
                });
            }
        });
    }
}

#[test]
fn the_signature_is_public_json() {
    let model = load("digits_mlp", &OnnxOptions::default());
    assert_eq!(
        serde_json::to_value(model.signature()).unwrap(),
        json!({
            "inputs": [{ "name": "X", "dtype": "f32", "shape": [null, 64] }],
            "outputs": [
                { "name": "label", "dtype": "i64", "shape": [null] },
                { "name": "probabilities", "dtype": "f32", "shape": [null, 10] },
            ],
        })
    );
}
