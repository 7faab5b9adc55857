//! The registry of a node's models.

#[path = "../../models/tests/common/mod.rs"]
mod common;

use common::fixture;
use opg_models::{Manifest, ManifestVersion};
use opg_runtime::{Format, LoadOptions, ModelRuntime, ModelSpec, Models, RuntimeError, bench, llm::GenerateRequest};
use serde_json::json;
use std::path::PathBuf;

fn spec(name: &str, file: &str, kind: Format) -> ModelSpec {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../testing/fixtures")
        .join(file);
    ModelSpec {
        name: name.into(),
        path,
        kind,
    }
}

fn load(specs: &[ModelSpec]) -> Result<Models, RuntimeError> {
    // SAFETY: nothing in this program reads the environment but through std, which locks it.
    unsafe { opg_runtime::pin_engine_threads(1) };
    Models::load(specs, &LoadOptions::default())
}

#[test]
fn models_are_found_by_name_and_by_root() {
    let models = load(&[
        spec("demo/digits-mlp", "digits/digits_mlp.onnx", Format::Onnx),
        spec("demo/tiny-llama", "tiny-llama/trained-Q8_0.gguf", Format::Gguf),
    ])
    .unwrap();
    assert_eq!(models.len(), 2);
    assert_eq!(
        models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>(),
        ["demo/digits-mlp", "demo/tiny-llama"]
    );
    let digits = models.get("demo/digits-mlp").unwrap();
    assert_eq!(
        digits.root,
        Manifest::single(
            ManifestVersion::NEWEST,
            Format::Onnx,
            &fixture("digits/digits_mlp.onnx")
        )
        .root()
        .unwrap()
    );
    for manifest in digits.manifest.versions() {
        let root = manifest.root().unwrap();
        assert_eq!(models.by_root(root).unwrap().name, digits.name);
    }
    assert!(models.get("demo/none").is_none() && models.by_root([7; 32].into()).is_none());

    // What the benchmarks measure, in small.
    let ModelRuntime::Onnx(onnx) = &digits.runtime else {
        panic!()
    };
    let latency = bench::onnx_latency(onnx, &json!({ "X": [vec![1; 64]] }), 200).unwrap();
    println!("digits_mlp, one row: p50 {:?}, p99 {:?}", latency.p50(), latency.p99());
    assert_eq!(latency.len(), 200);
    let ModelRuntime::Llama(llama) = &models.get("demo/tiny-llama").unwrap().runtime else {
        panic!()
    };
    let speed = bench::token_speed(llama, &GenerateRequest::prompt("the ".repeat(200)).max_tokens(64)).unwrap();
    println!(
        "tiny-llama: prompt {:.0} tok/s, decode {:.0} tok/s, first token {:?}",
        speed.prompt, speed.decode, speed.first
    );
    assert!(speed.tokens <= 64 && speed.prompt > 0.0);
}

#[test]
fn configurations_that_cannot_be_served_are_refused() {
    let onnx = |name: &str| spec(name, "digits/logreg.onnx", Format::Onnx);
    let error = |specs: &[ModelSpec]| load(specs).unwrap_err().to_string();
    assert_eq!(error(&[onnx("a/b"), onnx("a/b")]), "model name \"a/b\": is used twice");
    for name in [
        "",
        "a",
        "a/",
        "/b",
        "a/b/c",
        "a/..",
        "a/b c",
        "é/b",
        &format!("a/{}", "b".repeat(95)),
    ] {
        assert!(error(&[onnx(name)]).contains("expected owner/name"), "{name}");
    }
    assert!(error(&[spec("a/b", "digits/none.onnx", Format::Onnx)]).contains("none.onnx"));
    // A file of another format than configured.
    assert!(error(&[spec("a/b", "digits/logreg.onnx", Format::Gguf)]).starts_with("GGUF model: magic"));
    assert!(error(&[spec("a/b", "tiny-llama/trained-Q8_0.gguf", Format::Onnx)]).starts_with("ONNX model: "));
    assert!(load(&[]).unwrap().is_empty());
    // Two names for one file share the root.
    let models = load(&[onnx("a/b"), onnx("a/c")]).unwrap();
    assert_eq!(models.get("a/b").unwrap().root, models.get("a/c").unwrap().root);
}
