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
    container::{ProofFile, profile_name, security_bits},
    files, hex, millis, register, tensors,
};
use crate::{
    args::ZkVerifyArgs,
    failure::Failure,
    output::{Output, facts},
};

/// Checks a proof. A proof that does not hold is told on stderr, and with `--json` in a document too.
pub(super) fn run(args: &ZkVerifyArgs, output: Output) -> Result<ExitCode, Failure> {
    let judged = judge(args, output);
    if let (Err(Failure::Failed(_)), true) = (&judged, output.json) {
        let reason = judged.as_ref().err().map(ToString::to_string);
        output.say_json(&json!({ "verified": false, "reason": reason }))?;
    }
    let Judged { file, took } = judged?;
    let receipt = args.receipt;
    let document = json!({
        "verified": true, "root": hex(&file.key.root().0), "profile": profile_name(file.profile),
        "security_bits": security_bits(file.key.parameters), "requests": file.requests, "receipt": receipt,
        "verify_ms": millis(took), "proof_bytes": file.proof.len(),
    });
    output.result(&document, || {
        let mut text = "VERIFIED  the model with this root gives these outputs for these inputs\n".to_owned();
        text.push_str(&facts([
            ("root", hex(&file.key.root().0)),
            (
                "profile",
                format!(
                    "{}, {} bits",
                    profile_name(file.profile),
                    security_bits(file.key.parameters)
                ),
            ),
            ("requests", file.requests.to_string()),
            (
                "receipt",
                receipt.map_or("none".to_owned(), |receipt| receipt.to_string()),
            ),
            ("checked in", format!("{:.1} ms", millis(took))),
        ]));
        text
    })?;
    Ok(ExitCode::SUCCESS)
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
    let statement = statement(&file, &args.input, &args.output, stated.0)?;
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
