//! `opg zk`: exact integer programs and proofs that they gave these outputs for these inputs. Nothing here needs a
//! network; `opg models register-program` tells one about a program.

mod clock;
mod container;
pub(super) mod files;
mod hiding;
mod inspect;
mod prove;
mod requests;
mod tensors;
mod verify;

use std::{
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use opg_integer_program::{
    compile::{Options, Profile as Precision, Report, compile as compile_onnx},
    program::Program,
};
use opg_zkml::{ParameterSet, Plan, Profile, RegisteredModel, Stage};
use serde_json::json;

use crate::{
    args::{PrecisionArg, ProofProfileArg, SecurityArg, ZkCommand, ZkCompileArgs},
    failure::Failure,
    output::{Output, facts, table},
};

/// Runs a zk command.
pub(crate) fn run(command: ZkCommand, output: Output) -> Result<ExitCode, Failure> {
    match command {
        ZkCommand::Compile(args) => compile(&args, output),
        ZkCommand::Commit(args) => match &args.hide {
            Some(secret) => hiding::commit(&args, secret, output),
            None => commit(&args.program, args.security.into(), output),
        },
        ZkCommand::Prove(args) => match &args.hide {
            Some(secret) => hiding::prove(&args, secret, output),
            None => prove::run(&args, output),
        },
        ZkCommand::Verify(args) => verify::run(&args, output),
        ZkCommand::Inspect(args) => inspect::run(&args, output),
    }
}

impl From<SecurityArg> for ParameterSet {
    fn from(arg: SecurityArg) -> Self {
        match arg {
            SecurityArg::Bits100 => Self::Bits100,
            SecurityArg::Bits128 => Self::Bits128,
        }
    }
}

impl From<ProofProfileArg> for Profile {
    fn from(arg: ProofProfileArg) -> Self {
        match arg {
            ProofProfileArg::Committed => Self::Committed,
            ProofProfileArg::Open => Self::Open,
        }
    }
}

fn compile(args: &ZkCompileArgs, output: Output) -> Result<ExitCode, Failure> {
    let mut sources = vec![args.model.as_path()];
    sources.extend(args.calibrate.as_deref());
    files::check_place(&args.out, "-o", &sources)?;
    if let Some(path) = &args.report {
        sources.push(&args.out);
        files::check_place(path, "--report", &sources)?;
    }
    let onnx = files::read(&args.model, "model", files::MAX_MODEL)?;
    let calibration = args.calibrate.as_deref();
    let calibration = calibration
        .map(|path| files::read(path, "calibration data", files::MAX_JSON))
        .transpose()?;
    let profile = match args.profile {
        PrecisionArg::Int8 => Precision::Int8,
        PrecisionArg::Int16 => Precision::Int16,
    };
    let refuse = |error: &dyn std::fmt::Display| Failure::usage(format!("{}: {error}", args.model.display()));

    let spinner = output.spinner("compiling and measuring");
    let started = Instant::now();
    let compiled = compile_onnx(
        &onnx,
        calibration.as_deref(),
        &Options {
            profile,
            ..Options::default()
        },
    );
    let took = started.elapsed();
    spinner.finish_and_clear();
    let compiled = compiled.map_err(|error| refuse(&error))?;
    let graph = &compiled.program.graph;
    // A program that no proof can be about is of no use to the commands that follow.
    Plan::new(graph, 1).map_err(|error| refuse(&error))?;
    let bytes = compiled.program.encode();
    files::write(&args.out, &bytes)?;
    if let Some(path) = &args.report {
        files::write(path, json!(compiled.report).to_string().as_bytes())?;
    }

    let (digest, graph_digest) = (compiled.program.digest(), graph.digest());
    let weights = compiled.program.weights.elements();
    let document = json!({
        "program": args.out, "bytes": bytes.len(), "digest": digest, "graph_digest": graph_digest,
        "profile": graph.metadata.profile, "nodes": graph.nodes.len(), "weights": weights,
        "compile_ms": millis(took), "report": compiled.report,
    });
    output.result(&document, || {
        let mut text = facts([
            ("program", format!("{} ({} bytes)", args.out.display(), bytes.len())),
            ("digest", digest.to_string()),
            ("profile", graph.metadata.profile.clone()),
            ("nodes, weights", format!("{}, {weights}", graph.nodes.len())),
            ("compiled in", format!("{:.0} ms", millis(took))),
        ]);
        text.push_str(&describe(&compiled.report));
        text
    })?;
    if compiled.report.random_samples {
        eprintln!(
            "warning: scales were chosen from random numbers; give requests as they will come with --calibrate DATA.json"
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The comparison with the float model in words.
fn describe(report: &Report) -> String {
    let kind = if report.random_samples { "random" } else { "given" };
    let mut text = match report.held_out_samples {
        0 => format!(
            "compared with the float model on the {} {kind} samples that scales come from\n",
            report.fitted_samples
        ),
        held_out => format!("compared with the float model on {held_out} {kind} samples that were held out\n"),
    };
    let mut rows = table([
        "OUTPUT",
        "SAME MAXIMUM",
        "MAX ERROR",
        "MEAN ERROR",
        "RELATIVE TO GREATEST",
    ]);
    for output in &report.outputs {
        rows.add_row([
            // The name comes from the model file.
            opg_client::text::one_line(&output.name, 60),
            output
                .top1
                .map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0)),
            format!("{:.3e}", output.max_abs_error),
            format!("{:.3e}", output.mean_abs_error),
            format!("{:.4}", output.relative_error),
        ]);
    }
    text.push_str(&rows.to_string());
    text
}

fn commit(path: &Path, set: ParameterSet, output: Output) -> Result<ExitCode, Failure> {
    let program = files::program(path)?;
    let weights = program.weights.elements();
    let (model, took) = register(program, path, set, output)?;
    let root = hex(&model.root().0);
    let digest = hex(&model.verifying_key().weights);
    let document = json!({
        "root": root, "weights": weights, "commit_ms": millis(took),
        "weights_digest": digest, "graph_digest": hex(model.verifying_key().graph_digest()),
        "security_bits": container::security_bits(set),
    });
    output.result(&document, || {
        facts([
            ("root", root.clone()),
            ("weights", weights.to_string()),
            ("security", format!("{} bits", container::security_bits(set))),
            ("committed in", format!("{:.0} ms", millis(took))),
        ])
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Commits to the weights of a program.
fn register(
    program: Program,
    path: &Path,
    set: ParameterSet,
    output: Output,
) -> Result<(RegisteredModel, Duration), Failure> {
    let spinner = output.spinner("committing to the weights");
    let started = Instant::now();
    let model = RegisteredModel::new(program, set);
    let took = started.elapsed();
    spinner.finish_and_clear();
    Ok((
        model.map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?,
        took,
    ))
}

/// A step for people.
fn stage_name(stage: Stage<'_>) -> String {
    match stage {
        Stage::Commit => "witness commitment".to_owned(),
        Stage::Relations => "relations".to_owned(),
        Stage::Lookups => "lookups".to_owned(),
        Stage::Constraints => "constraints".to_owned(),
        // The name comes from a file.
        Stage::Node(number, name) => format!("layer {number} {}", opg_client::text::one_line(name, 60)),
        Stage::WitnessOpening => "witness opening".to_owned(),
        Stage::WeightOpening => "weight opening".to_owned(),
        Stage::Done => "done".to_owned(),
    }
}

/// Milliseconds with microseconds behind the point.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// `0x` and hexadecimal digits.
fn hex(bytes: &[u8; 32]) -> String {
    alloy_primitives::B256::from(*bytes).to_string()
}
