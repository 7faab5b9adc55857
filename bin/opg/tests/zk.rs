//! `opg zk` from an ONNX file to a checked proof, and everything that must be refused on the way.

mod common;

use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use common::{expect, expect_error};
use serde_json::{Value, json};
use tempfile::TempDir;

struct Cli {
    folder: TempDir,
}

impl Cli {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Runs `opg zk` in a folder of its own.
    fn zk(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_opg"))
            .arg("zk")
            .args(args)
            .current_dir(self.folder.path())
            .env("HOME", self.folder.path())
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.zk(&[args, &["--json"]].concat());
        let (stdout, _) = expect(&output, 0);
        assert_eq!(stdout.lines().count(), 1, "{stdout}");
        serde_json::from_str(&stdout).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, document: &Value) {
        std::fs::write(self.path(name), document.to_string()).unwrap();
    }

    fn read(&self, name: &str) -> Value {
        serde_json::from_slice(&std::fs::read(self.path(name)).unwrap()).unwrap()
    }
}

fn digits(name: &str) -> String {
    format!("{}/../../testing/fixtures/digits/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Twenty images of digits, and the labels that onnxruntime gives them with a model.
fn samples(model: &str) -> (Vec<Value>, Vec<Value>) {
    let samples: Value = serde_json::from_slice(&std::fs::read(digits("samples.json")).unwrap()).unwrap();
    let inputs = samples["inputs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|x| json!({ "X": [x] }))
        .collect();
    let labels = samples["models"][model]["label"].as_array().unwrap().clone();
    (inputs, labels)
}

/// A folder with `program`, compiled and calibrated, and its root.
fn compiled(model: &str) -> (Cli, String, Vec<Value>, Vec<Value>) {
    let cli = Cli::new();
    let (inputs, labels) = samples(model);
    cli.write("data.json", &inputs.clone().into());
    let onnx = digits(&format!("{model}.onnx"));
    let report = cli.json(&["compile", &onnx, "-o", "program", "--calibrate", "data.json"]);
    assert_eq!(report["report"]["random_samples"], false);
    assert_eq!(report["report"]["held_out_samples"], 4);
    let root = cli.json(&["commit", "program"])["root"].as_str().unwrap().to_owned();
    (cli, root, inputs, labels)
}

const OUT: &str = "out.json";
const NO_ROOT: &str = "0x0000000000000000000000000000000000000000000000000000000000000001";

#[test]
fn a_proof_holds_for_its_model_inputs_and_outputs_only() {
    let (cli, root, inputs, labels) = compiled("digits_mlp");
    cli.write("in.json", &inputs[3]);
    let proven = cli.json(&["prove", "program", "--input", "in.json", "-o", "proof", "--output", OUT]);
    for field in ["prove_ms", "proof_bytes", "verify_ms", "commit_ms"] {
        assert!(proven[field].as_f64().unwrap() > 0.0, "{field}: {proven}");
    }
    if cfg!(target_os = "linux") {
        assert!(
            proven["cpu_ms"].is_number() && proven["peak_rss"].as_u64().unwrap() > 1 << 20,
            "{proven}"
        );
    }
    assert_eq!(proven["root"], root.as_str());
    let out = cli.read(OUT);
    assert_eq!(proven["output"].to_string(), out.to_string());
    assert_eq!(out["label"], json!([labels[3]]));
    assert_eq!(out["probabilities"][0].as_array().unwrap().len(), 10);

    let verify = |root: &str, input: &str, output: &str, proof: &str| {
        cli.zk(&["verify", "--root", root, "--input", input, "--output", output, proof])
    };
    // The verifier has neither program nor weights.
    std::fs::rename(cli.path("program"), cli.path("hidden")).unwrap();
    let (text, _) = expect(&verify(&root, "in.json", OUT, "proof"), 0);
    assert!(text.contains("VERIFIED") && text.contains(&root), "{text}");
    let judged = cli.json(&[
        "verify", "--root", &root, "--input", "in.json", "--output", OUT, "proof",
    ]);
    assert_eq!((&judged["verified"], &judged["requests"]), (&json!(true), &json!(1)));

    expect_error(&verify(NO_ROOT, "in.json", OUT, "proof"), 1, &[&root, NO_ROOT, "root"]);
    cli.write("other.json", &inputs[4]);
    expect_error(&verify(&root, "other.json", OUT, "proof"), 1, &["does not prove"]);

    // One output by one step, and what follows for the label left as it was.
    let step = cli.json(&["inspect", "proof"])["outputs"][0]["scale"].as_f64().unwrap();
    let change = |by: f64| {
        let mut other = out.clone();
        let value = other["probabilities"][0][0].as_f64().unwrap() / step;
        other["probabilities"][0][0] = ((value.round() + by) * step).into();
        other
    };
    cli.write("wrong.json", &change(1.0));
    expect_error(&verify(&root, "in.json", "wrong.json", "proof"), 1, &["does not prove"]);
    cli.write("wrong.json", &change(0.25));
    expect_error(
        &verify(&root, "in.json", "wrong.json", "proof"),
        1,
        &["probabilities", "element 0", "step"],
    );
    let mut other = out.clone();
    other["label"][0] = json!((labels[3].as_i64().unwrap() + 1) % 10);
    cli.write("wrong.json", &other);
    expect_error(&verify(&root, "in.json", "wrong.json", "proof"), 1, &["label"]);
    let failed = cli.zk(&[
        "verify",
        "--root",
        &root,
        "--input",
        "in.json",
        "--output",
        "wrong.json",
        "proof",
        "--json",
    ]);
    let (document, _) = expect(&failed, 1);
    assert_eq!(serde_json::from_str::<Value>(&document).unwrap()["verified"], false);

    // Labels follow from the outputs: a file without them says the same.
    other.as_object_mut().unwrap().remove("label");
    cli.write("short.json", &other);
    expect(&verify(&root, "in.json", "short.json", "proof"), 0);
    other.as_object_mut().unwrap().remove("probabilities");
    cli.write("short.json", &other);
    expect_error(
        &verify(&root, "in.json", "short.json", "proof"),
        2,
        &["short.json", "probabilities", "missing"],
    );
    cli.write("short.json", &json!({ "probabilities": [[0.5]] }));
    expect_error(
        &verify(&root, "in.json", "short.json", "proof"),
        2,
        &["probabilities", "[1, 10]"],
    );
}

#[test]
fn a_changed_proof_file_does_not_verify() {
    let (cli, root, inputs, _) = compiled("logreg");
    cli.write("in.json", &inputs[0]);
    cli.json(&["prove", "program", "--input", "in.json", "-o", "proof", "--output", OUT]);
    let proof = std::fs::read(cli.path("proof")).unwrap();
    let refused = |bytes: &[u8]| {
        std::fs::write(cli.path("bad"), bytes).unwrap();
        expect_error(
            &cli.zk(&["verify", "--root", &root, "--input", "in.json", "--output", OUT, "bad"]),
            1,
            &["bad"],
        );
    };
    for at in (0..proof.len())
        .step_by(proof.len() / 23)
        .chain([0, 20, 24, proof.len() - 1])
    {
        let mut other = proof.clone();
        other[at] ^= 1;
        refused(&other);
    }
    refused(&[proof.as_slice(), &[0]].concat());
    refused(&proof[..proof.len() - 1]);
    refused(&[]);
    refused(&std::fs::read(cli.path("program")).unwrap());
    let missing = cli.zk(&[
        "verify", "--root", &root, "--input", "in.json", "--output", OUT, "nowhere",
    ]);
    expect_error(&missing, 2, &["nowhere"]);
}

#[test]
fn proofs_of_several_requests_and_for_a_receipt() {
    let (cli, root, inputs, labels) = compiled("logreg");
    cli.write("in.json", &inputs[..3].to_vec().into());
    let receipt = "0x00000000000000000000000000000000000000000000000000000000000000aa";
    let prove = [
        "prove",
        "program",
        "--input",
        "in.json",
        "-o",
        "proof",
        "--output",
        OUT,
        "--receipt",
        receipt,
    ];
    let proven = cli.json(&prove);
    assert_eq!(proven["requests"], 3);
    for (output, label) in cli.read(OUT).as_array().unwrap().iter().zip(&labels) {
        assert_eq!(output["label"], json!([label]));
    }

    let verify = |input: &str, more: &[&str]| {
        let args = ["verify", "--root", &root, "--input", input, "--output", OUT, "proof"];
        cli.zk(&[&args, more].concat())
    };
    expect(&verify("in.json", &["--receipt", receipt]), 0);
    expect_error(&verify("in.json", &[]), 1, &["--receipt", receipt]);
    expect_error(&verify("in.json", &["--receipt", NO_ROOT]), 1, &["receipt", receipt]);
    cli.write("two.json", &inputs[..2].to_vec().into());
    expect_error(&verify("two.json", &["--receipt", receipt]), 2, &["two.json", "2", "3"]);
    cli.write(
        "swapped.json",
        &vec![inputs[1].clone(), inputs[0].clone(), inputs[2].clone()].into(),
    );
    expect_error(&verify("swapped.json", &["--receipt", receipt]), 1, &["does not prove"]);
}

#[test]
fn open_proofs_are_checked_with_the_program() {
    let (cli, root, inputs, _) = compiled("logreg");
    cli.write("in.json", &inputs[5]);
    let prove = ["prove", "program", "--input", "in.json", "-o", "proof", "--output", OUT];
    let committed = cli.json(&prove);
    let open = cli.json(&[&prove[..], &["--profile", "open"]].concat());
    assert!(open["proof_bytes"].as_u64() < committed["proof_bytes"].as_u64());
    let verify = |more: &[&str]| {
        let args = [
            "verify", "--root", &root, "--input", "in.json", "--output", OUT, "proof",
        ];
        cli.zk(&[&args, more].concat())
    };
    expect(&verify(&["--program", "program"]), 0);
    expect_error(&verify(&[]), 2, &["--program"]);
    // Another model, or the same one with one weight changed, has another root.
    cli.json(&["compile", &digits("digits_mlp.onnx"), "-o", "other"]);
    expect_error(&verify(&["--program", "other"]), 1, &["other", &root]);
    let strong = cli.json(&["commit", "program", "--security", "128"]);
    assert_ne!(strong["root"], root.as_str());
}

#[test]
fn inspect_shows_where_rows_time_and_bytes_go() {
    let (cli, root, inputs, _) = compiled("digits_mlp");
    cli.write("in.json", &inputs[0]);
    let plain = cli.json(&["inspect", "program"]);
    assert_eq!(
        (&plain["kind"], &plain["precision"]),
        (&json!("program"), &json!("int8"))
    );
    assert_eq!(plain["inputs"][0]["shape"], json!([1, 64]));
    let layers = plain["layers"].as_array().unwrap();
    let sum = |field: &str| layers.iter().map(|layer| layer[field].as_u64().unwrap()).sum::<u64>();
    assert!(
        sum("rows") > 0 && sum("lookups") > 0 && sum("weights") > 64 * 10,
        "{plain}"
    );

    let measured = cli.json(&["inspect", "program", "--input", "in.json"]);
    assert_eq!(measured["root"], root.as_str());
    let parts = |document: &Value| -> u64 {
        let all = ["layers", "stages"]
            .map(|list| document[list].as_array().unwrap().clone())
            .concat();
        all.iter().filter_map(|part| part["proof_bytes"].as_u64()).sum()
    };
    assert_eq!(
        parts(&measured),
        measured["proof_bytes"].as_u64().unwrap(),
        "{measured}"
    );
    assert!(
        measured["layers"]
            .as_array()
            .unwrap()
            .iter()
            .any(|layer| layer["prove_ms"].is_number())
    );

    cli.json(&["prove", "program", "--input", "in.json", "-o", "proof", "--output", OUT]);
    let bare = cli.json(&["inspect", "proof"]);
    assert_eq!((&bare["kind"], &bare["root"]), (&json!("proof"), &json!(root)));
    let checked = cli.json(&["inspect", "proof", "--input", "in.json", "--output", OUT]);
    assert_eq!(parts(&checked), checked["proof_bytes"].as_u64().unwrap());
    for args in [
        &["inspect", "program"][..],
        &["inspect", "proof"],
        &["inspect", "program", "--input", "in.json"],
    ] {
        let (text, _) = expect(&cli.zk(args), 0);
        assert!(text.contains("MatMul") && text.contains("LOOKUPS"), "{text}");
    }
    expect_error(&cli.zk(&["inspect", "proof", "--input", "in.json"]), 2, &["--output"]);
    expect_error(&cli.zk(&["inspect", "in.json"]), 2, &["in.json", "opg zk compile"]);
}

#[test]
fn models_and_inputs_that_cannot_be_proven_are_refused_by_name() {
    let (cli, _, inputs, _) = compiled("logreg");
    let trees = cli.zk(&["compile", &digits("gbc.onnx"), "-o", "trees"]);
    expect_error(
        &trees,
        2,
        &["gbc.onnx", "TreeEnsembleClassifier", "another verification mode"],
    );
    assert!(!cli.path("trees").exists());
    expect_error(&cli.zk(&["compile", "nothing.onnx", "-o", "x"]), 2, &["nothing.onnx"]);
    let same = digits("logreg.onnx");
    expect_error(
        &cli.zk(&["compile", &same, "-o", "nowhere/x"]),
        2,
        &["nowhere/x", "folder"],
    );
    expect_error(
        &cli.zk(&["prove", "program", "--input", "data.json", "-o", "program"]),
        2,
        &["-o program"],
    );

    let short: Vec<Value> = inputs[0]["X"][0].as_array().unwrap()[1..].to_vec();
    for (document, words) in [
        (json!({ "X": [short] }), &["in.json", "\"X\"", "[1, 64]", "[1, 63]"][..]),
        (json!({ "Y": inputs[0]["X"] }), &["\"Y\"", "no such input"]),
        (json!({}), &["\"X\"", "missing"]),
        (json!([inputs[0], {}]), &["request 1", "\"X\""]),
        (json!([]), &["without requests"]),
        (json!("X"), &["in.json"]),
        (json!({ "X": [[1e300]] }), &["\"X\""]),
    ] {
        cli.write("in.json", &document);
        expect_error(
            &cli.zk(&["prove", "program", "--input", "in.json", "-o", "proof"]),
            2,
            words,
        );
    }
    std::fs::write(cli.path("in.json"), "{\"X\": [1], \"X\": [2]}").unwrap();
    expect_error(
        &cli.zk(&["prove", "program", "--input", "in.json", "-o", "proof"]),
        2,
        &["twice"],
    );
    assert!(!cli.path("proof").exists());

    for args in [
        &["verify", "--root", "0x12", "--input", "a", "--output", "b", "c"][..],
        &["compile", "a.onnx"],
        &["prove", "program", "-o", "proof"],
        &["compile", "a.onnx", "-o", "b", "--profile", "int4"],
    ] {
        expect(&cli.zk(args), 2);
    }
}

/// A convolutional network, uncalibrated, in 16 bits.
#[test]
fn a_convolutional_network_in_16_bits() {
    let cli = Cli::new();
    let folder = format!(
        "{}/../../crates/integer-program/tests/fixtures",
        env!("CARGO_MANIFEST_DIR")
    );
    let onnx = format!("{folder}/lenet.onnx");
    let report = cli.json(&["compile", &onnx, "-o", "program", "--profile", "int16"]);
    assert_eq!(
        (&report["profile"], &report["report"]["random_samples"]),
        (&json!("int16"), &json!(true))
    );
    let sample: Value = serde_json::from_slice(&std::fs::read(format!("{folder}/lenet.input.json")).unwrap()).unwrap();
    let name = cli.json(&["inspect", "program"])["inputs"][0]["name"]
        .as_str()
        .unwrap()
        .to_owned();
    cli.write("in.json", &json!({ name: sample["input_data"][0] }));
    let root = cli.json(&["commit", "program"])["root"].as_str().unwrap().to_owned();
    cli.json(&["prove", "program", "--input", "in.json", "-o", "proof", "--output", OUT]);
    cli.json(&[
        "verify", "--root", &root, "--input", "in.json", "--output", OUT, "proof",
    ]);
    let expected = sample["output_data"][0].as_array().unwrap();
    let out = cli.read(OUT);
    let got = out.as_object().unwrap().values().next().unwrap()[0].as_array().unwrap();
    for (got, expected) in got.iter().zip(expected) {
        assert!(
            (got.as_f64().unwrap() - expected.as_f64().unwrap()).abs() < 0.01,
            "{got} for {expected}"
        );
    }
}

/// Weights, or weights and inputs, stay with their owner; a slot is used once.
#[test]
fn hiding_proofs_show_neither_weights_nor_inputs() {
    let cli = Cli::new();
    expect(&cli.zk(&["compile", &digits("digits_mlp.onnx"), "-o", "p"]), 0);
    let committed = cli.json(&["commit", "p", "--hide", "secret", "--slots", "2"]);
    let root = committed["root"].as_str().unwrap().to_owned();
    assert_ne!(
        cli.json(&["commit", "p"])["root"],
        json!(root),
        "another commitment, another root"
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(cli.path("secret")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    expect_error(&cli.zk(&["commit", "p", "--hide", "secret"]), 2, &["exists"]);

    cli.write("in.json", &json!({"X": [vec![3; 64]]}));
    cli.write("other.json", &json!({"X": [vec![4; 64]]}));
    // First slot: the weights are hidden.
    let proven = cli.json(&[
        "prove", "p", "--hide", "secret", "--input", "in.json", "-o", "proof", "--output", "out.json",
    ]);
    assert_eq!(
        (&proven["hidden"], &proven["slots_left"]),
        (&json!("weights"), &json!(1))
    );
    let verify = ["verify", "--root", &root, "--output", "out.json"];
    let verified = cli.json(&[&verify[..], &["--input", "in.json", "proof"]].concat());
    assert_eq!(
        (&verified["verified"], &verified["profile"]),
        (&json!(true), &json!("hiding"))
    );
    expect_error(
        &cli.zk(&[&verify[..], &["--input", "other.json", "proof"]].concat()),
        1,
        &["does not prove"],
    );
    expect_error(&cli.zk(&[&verify[..], &["proof"]].concat()), 2, &["--input"]);

    // Second slot: the inputs too. Their owner can open them, to the verifier of his choice.
    let hide = [
        "prove",
        "p",
        "--hide",
        "secret",
        "--hide-inputs",
        "opening",
        "--output",
        "out2.json",
    ];
    let proven = cli.json(&[&hide[..], &["--input", "in.json", "-o", "proof2"]].concat());
    assert_eq!(proven["slots_left"], 0);
    assert_eq!(cli.read("out.json"), cli.read("out2.json"));
    let verify = ["verify", "--root", &root, "--output", "out2.json", "proof2"];
    let verified = cli.json(&verify);
    assert_eq!(
        (&verified["hidden"], &verified["verified"]),
        (&json!("weights and inputs"), &json!(true))
    );
    assert_eq!(verified["input_commitment"], proven["input_commitment"]);
    let open = |input| [&verify[..], &["--opening", "opening", "--input", input]].concat();
    expect(&cli.zk(&open("in.json")), 0);
    expect_error(&cli.zk(&open("other.json")), 1, &["other inputs"]);
    expect_error(
        &cli.zk(&[&verify[..], &["--input", "in.json"]].concat()),
        2,
        &["hidden"],
    );

    // No slot is used twice, a changed proof is refused, and another program has no secret here.
    expect_error(
        &cli.zk(&[&hide[..], &["--input", "in.json", "-o", "third"]].concat()),
        2,
        &["used up"],
    );
    assert!(!cli.path("third").exists());
    let mut bytes = std::fs::read(cli.path("proof")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(cli.path("changed"), bytes).unwrap();
    let verify = ["verify", "--root", &root, "--output", "out.json", "--input", "in.json"];
    expect_error(&cli.zk(&[&verify[..], &["changed"]].concat()), 1, &["changed"]);
    expect(&cli.zk(&["compile", &digits("logreg.onnx"), "-o", "q"]), 0);
    let foreign = ["prove", "q", "--hide", "secret", "--input", "in.json", "-o", "fourth"];
    expect_error(&cli.zk(&foreign), 2, &["belongs to the model"]);
    expect_error(&cli.zk(&["inspect", "proof"]), 2, &["hiding"]);
}
