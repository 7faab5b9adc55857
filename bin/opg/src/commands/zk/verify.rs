//! `opg zk verify`.

use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use opg_integer_program::program::Program;
use opg_zkml::{
    Context, Profile, RegisteredModel, Request, Statement, VerifyError, verify as verify_committed, verify_open,
};
use serde_json::json;

use super::{
    container::{ProofFile, is_hiding_proof, profile_name, security_bits},
    files, hex, hiding, millis, register, tensors,
};
use crate::{
    args::ZkVerifyArgs,
    failure::Failure,
    output::{Output, facts},
};

/// Checks a proof. A proof that does not hold is told on stderr, and with `--json` in a document too.
pub(super) fn run(args: &ZkVerifyArgs, output: Output) -> Result<ExitCode, Failure> {
    let judged = if is_hiding_proof(&args.proof)? {
        hiding::judge(args, output).map(Verdict::from)
    } else {
        judge(args, output).map(Verdict::from)
    };
    if let (Err(Failure::Failed(_)), true) = (&judged, output.json) {
        let reason = judged.as_ref().err().map(ToString::to_string);
        output.say_json(&json!({ "verified": false, "reason": reason }))?;
    }
    let Verdict {
        root,
        profile,
        hidden,
        input_root,
        security_bits,
        requests,
        proof_bytes,
        took,
    } = judged?;
    let receipt = args.receipt;
    let mut document = json!({
        "verified": true, "root": root, "profile": profile, "security_bits": security_bits, "requests": requests,
        "receipt": receipt, "verify_ms": millis(took), "proof_bytes": proof_bytes,
    });
    if let Some(hidden) = hidden {
        document["hidden"] = json!(hidden);
        document["input_commitment"] = json!(input_root);
    }
    output.result(&document, || {
        let about = match (&input_root, &args.opening) {
            (Some(_), None) => "some inputs that are hidden",
            _ => "these inputs",
        };
        let mut text = format!("VERIFIED  the model with this root gives these outputs for {about}\n");
        let mut rows = vec![
            ("root", root.clone()),
            ("profile", format!("{profile}, {security_bits} bits")),
        ];
        rows.extend(hidden.map(|hidden| ("hidden", hidden.to_owned())));
        rows.extend(input_root.clone().map(|root| ("inputs", format!("commitment {root}"))));
        rows.push(("requests", requests.to_string()));
        rows.push((
            "receipt",
            receipt.map_or("none".to_owned(), |receipt| receipt.to_string()),
        ));
        rows.push(("checked in", format!("{:.1} ms", millis(took))));
        text.push_str(&facts(rows));
        text
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What is told about a proof that holds.
struct Verdict {
    root: String,
    profile: &'static str,
    hidden: Option<&'static str>,
    input_root: Option<String>,
    security_bits: u16,
    requests: usize,
    proof_bytes: usize,
    took: Duration,
}

impl From<Judged> for Verdict {
    fn from(Judged { file, took }: Judged) -> Self {
        Self {
            root: hex(&file.key.root().0),
            profile: profile_name(file.profile),
            hidden: None,
            input_root: None,
            security_bits: security_bits(file.key.parameters),
            requests: file.requests,
            proof_bytes: file.proof.len(),
            took,
        }
    }
}

impl From<hiding::Judged> for Verdict {
    fn from(judged: hiding::Judged) -> Self {
        Self {
            root: hex(&judged.root),
            profile: "hiding",
            hidden: Some(judged.hidden),
            input_root: judged.input_root.as_ref().map(hex),
            security_bits: judged.security_bits,
            requests: judged.requests,
            proof_bytes: judged.proof_bytes,
            took: judged.took,
        }
    }
}

/// A proof that holds.
struct Judged {
    file: ProofFile,
    took: Duration,
}

fn judge(args: &ZkVerifyArgs, output: Output) -> Result<Judged, Failure> {
    let place = args.proof.display();
    let wrong = |reason: String| Failure::failed(eyre::eyre!("{place}: {reason}"));
    let file = ProofFile::open(&args.proof)?;
    // Before anything else is believed: only the root says what graph and weights the caller means.
    let root = hex(&file.key.root().0);
    if file.key.root().0 != args.root.0 {
        return Err(wrong(format!(
            "the proof is about the model with root {root}, not {}",
            args.root
        )));
    }
    let stated = args.receipt.unwrap_or_default();
    if file.receipt != stated.0 {
        let own = hex(&file.receipt);
        return Err(wrong(match args.receipt {
            Some(stated) => format!("the proof is tied to receipt {own}, not {stated}"),
            None => format!("the proof is tied to a receipt; name it with --receipt {own} if that is the one you mean"),
        }));
    }
    let (Some(input), None) = (&args.input, &args.opening) else {
        return Err(Failure::usage(
            "the inputs of this proof are public: add --input IN.json, without --opening",
        ));
    };
    let statement = statement(&file, input, &args.output, stated.0)?;
    let model = open_model(&file, args.program.as_deref(), output)?;
    let spinner = output.spinner("verifying");
    let started = Instant::now();
    let checked = check(&file, model.as_ref().map(RegisteredModel::program), &statement);
    let took = started.elapsed();
    spinner.finish_and_clear();
    checked.map_err(|error| wrong(format!("does not prove these outputs for these inputs: {error}")))?;
    Ok(Judged { file, took })
}

/// What a proof file has to prove: inputs and outputs of two files.
pub(super) fn statement(
    file: &ProofFile,
    input: &Path,
    output: &Path,
    receipt: [u8; 32],
) -> Result<Statement, Failure> {
    let (inputs, _) = tensors::inputs(&file.key.graph, input)?;
    let outputs = tensors::outputs(&file.key.graph, output)?;
    for (count, path) in [(inputs.len(), input), (outputs.len(), output)] {
        if count != file.requests {
            let path = path.display();
            return Err(Failure::usage(format!(
                "{path} holds {count} requests, the proof covers {}",
                file.requests
            )));
        }
    }
    let requests = inputs
        .into_iter()
        .zip(outputs)
        .map(|(inputs, outputs)| Request { inputs, outputs })
        .collect();
    Ok(Statement {
        requests,
        context: Context {
            receipt,
            ..Context::default()
        },
    })
}

/// The weights that a proof of the open profile is checked with, once their root is the proof's.
pub(super) fn open_model(
    file: &ProofFile,
    program: Option<&Path>,
    output: Output,
) -> Result<Option<RegisteredModel>, Failure> {
    let path = match (file.profile, program) {
        (Profile::Committed, _) => return Ok(None),
        (Profile::Open, Some(path)) => path,
        (Profile::Open, None) => {
            return Err(Failure::usage(
                "a proof of profile open is checked with the weights: add --program PROGRAM",
            ));
        }
    };
    let (model, _) = register(files::program(path)?, path, file.key.parameters, output)?;
    if model.root() == file.key.root() {
        return Ok(Some(model));
    }
    let (path, own, expected) = (path.display(), hex(&model.root().0), hex(&file.key.root().0));
    Err(Failure::failed(eyre::eyre!(
        "{path} has root {own}, but the proof is about {expected}: give that program"
    )))
}

/// Checks the proof of a file; with the weights for one of profile open.
pub(super) fn check(file: &ProofFile, program: Option<&Program>, statement: &Statement) -> Result<(), VerifyError> {
    let root = file.key.root();
    match program {
        Some(program) => verify_open(&file.key, &root, program, statement, &file.proof),
        None => verify_committed(&file.key, &root, statement, &file.proof),
    }
}
