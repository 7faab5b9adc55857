//! `opg zk inspect`: what a program or a proof file holds and what proving costs, layer by layer.

use std::process::ExitCode;

use opg_integer_program::program::{Graph, InputEncoding, Op, Operand};
use opg_zkml::{Context, Plan, Profile, RegisteredModel, VerifyingKey, security::security, verify_measured};
use serde_json::{Map, Value, json};

use super::{
    clock::{Clock, Measured, Step},
    container::{ProofFile, is_hiding_proof, is_proof, profile_name, security_bits},
    files, hex, millis, register, stage_name, tensors,
    verify::{open_model, statement},
};
use crate::{
    args::ZkInspectArgs,
    failure::Failure,
    output::{Output, facts, table},
};

/// Shows a file; with inputs it also proves (a program) or verifies (a proof) and shows where time and bytes go.
pub(super) fn run(args: &ZkInspectArgs, output: Output) -> Result<ExitCode, Failure> {
    if is_hiding_proof(&args.file)? {
        return Err(Failure::usage(
            "a hiding proof shows no layers; `opg zk verify` says what it proves",
        ));
    }
    if is_proof(&args.file)? {
        proof(args, output)
    } else {
        program(args, output)
    }
}

fn program(args: &ZkInspectArgs, output: Output) -> Result<ExitCode, Failure> {
    if args.output.is_some() {
        return Err(Failure::usage(
            "--output goes with a proof file; a program computes its own outputs",
        ));
    }
    let program = files::program(&args.file)?;
    let Some(input) = &args.input else {
        let plan = plan(&program.graph, 1)?;
        let mut head = Map::new();
        head.insert("kind".into(), "program".into());
        return show(head, &program.graph, &plan, &Measured::default(), output);
    };
    let (inputs, _) = tensors::inputs(&program.graph, input)?;
    let (model, commit) = register(program, &args.file, args.security.into(), output)?;
    let (key, profile) = (model.verifying_key(), Profile::from(args.profile));
    let plan = plan(&key.graph, inputs.len())?;
    let mut proving = Clock::start("run");
    let spinner = output.spinner("proving");
    let proven = opg_zkml::prove(&model, &inputs, Context::default(), profile, &mut |stage| {
        spinner.set_message(stage_name(stage));
        proving.mark(stage, 0);
    });
    spinner.finish_and_clear();
    let (statement, proof) = proven.map_err(|error| Failure::usage(format!("{}: {error}", input.display())))?;
    let weights = (profile == Profile::Open).then(|| model.program());
    let mut verifying = Clock::start("header");
    verify_measured(key, &key.root(), weights, &statement, &proof, &mut |stage, read| {
        verifying.mark(stage, read)
    })
    .map_err(Failure::failed)?;
    let head = json!({
        "kind": "program", "root": hex(&key.root().0), "profile": profile_name(profile),
        "security_bits": security_bits(key.parameters), "proven_bits": proven_bits(key, inputs.len(), profile)?,
        "commit_ms": millis(commit), "proof_bytes": proof.len(),
    });
    let measured = Measured {
        proving: proving.spans(),
        verifying: verifying.spans(),
    };
    show(object(head), &key.graph, &plan, &measured, output)
}

fn proof(args: &ZkInspectArgs, output: Output) -> Result<ExitCode, Failure> {
    let file = ProofFile::open(&args.file)?;
    let graph = &file.key.graph;
    let plan = plan(graph, file.requests)?;
    let graph_bytes = graph.encode().len();
    let mut head = object(json!({
        "kind": "proof", "root": hex(&file.key.root().0), "profile": profile_name(file.profile),
        "security_bits": security_bits(file.key.parameters),
        "receipt": (file.receipt != [0; 32]).then(|| hex(&file.receipt)),
        "proof_bytes": file.proof.len(), "graph_bytes": graph_bytes,
        "other_bytes": file.encode().len() - graph_bytes - file.proof.len(), "judged": false,
    }));
    let mut measured = Measured::default();
    match (&args.input, &args.output) {
        (None, None) => {}
        (Some(input), Some(stated)) => {
            let statement = statement(&file, input, stated, file.receipt)?;
            let model = open_model(&file, args.program.as_deref(), output)?;
            let weights = model.as_ref().map(RegisteredModel::program);
            let mut clock = Clock::start("header");
            verify_measured(
                &file.key,
                &file.key.root(),
                weights,
                &statement,
                &file.proof,
                &mut |stage, read| {
                    clock.mark(stage, read);
                },
            )
            .map_err(|error| Failure::failed(eyre::eyre!("{}: {error}", args.file.display())))?;
            measured.verifying = clock.spans();
            // Only now: walking the protocol of a graph that nobody vouches for could take long.
            head.insert(
                "proven_bits".into(),
                proven_bits(&file.key, file.requests, file.profile)?.into(),
            );
        }
        _ => {
            return Err(Failure::usage(
                "the parts of a proof are told apart by verifying it: give --input and --output",
            ));
        }
    }
    show(head, graph, &plan, &measured, output)
}

fn plan(graph: &Graph, requests: usize) -> Result<Plan, Failure> {
    Plan::new(graph, requests).map_err(Failure::input)
}

/// Soundness of such a proof, all error terms together.
fn proven_bits(key: &VerifyingKey, requests: usize, profile: Profile) -> Result<f64, Failure> {
    let security = security(key, requests, profile).map_err(Failure::input)?;
    Ok((security.bits() * 10.0).floor() / 10.0)
}

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

/// Weights that an operation reads.
fn weights(graph: &Graph, op: &Op) -> usize {
    let constants = op
        .operands()
        .into_iter()
        .filter(|operand| matches!(operand, Operand::Constant(_)));
    constants
        .filter_map(|operand| graph.operand(operand))
        .map(|ty| ty.shape.iter().product::<usize>())
        .sum()
}

fn inputs(graph: &Graph) -> Vec<Value> {
    let one = |input: &opg_integer_program::program::Input| match input.encoding {
        InputEncoding::Quantised { scale, range, .. } => {
            json!({ "name": input.name, "shape": input.shape, "scale": scale, "lo": range.lo, "hi": range.hi })
        }
        InputEncoding::Index { count } => json!({ "name": input.name, "shape": input.shape, "count": count }),
    };
    graph.inputs.iter().map(one).collect()
}

fn outputs(graph: &Graph) -> Vec<Value> {
    let shape = |source| graph.operand(source).map(|ty| ty.shape);
    let one = |output: &opg_integer_program::program::Output| json!({ "name": output.name, "shape": shape(output.source), "scale": output.scale });
    graph.outputs.iter().map(one).collect()
}

fn show(
    mut document: Map<String, Value>,
    graph: &Graph,
    plan: &Plan,
    measured: &Measured,
    output: Output,
) -> Result<ExitCode, Failure> {
    let (costs, [witness, committed_weights, lookups]) = (plan.costs(), plan.sizes());
    let layers = graph
        .nodes
        .iter()
        .zip(&costs)
        .enumerate()
        .map(|(number, (node, cost))| {
            let (prove_ms, verify_ms, proof_bytes) = measured.of(&Step::Layer(number));
            json!({
                "node": number, "name": node.name, "op": node.op.name(), "shape": node.ty.shape, "rows": cost.committed,
                "lookups": cost.lookups, "weights": weights(graph, &node.op),
                "prove_ms": prove_ms, "verify_ms": verify_ms, "proof_bytes": proof_bytes,
            })
        });
    let layers: Vec<Value> = layers.collect();
    let stages = measured.stages().into_iter().map(|step| {
        let (prove_ms, verify_ms, proof_bytes) = measured.of(step);
        let Step::Stage(name) = step else { return Value::Null };
        json!({ "stage": name, "prove_ms": prove_ms, "verify_ms": verify_ms, "proof_bytes": proof_bytes })
    });
    let stages: Vec<Value> = stages.collect();
    let total: usize = graph
        .constants
        .iter()
        .map(|constant| constant.shape.iter().product::<usize>())
        .sum();
    document.extend(object(json!({
        "graph_digest": graph.digest(), "quantiser": graph.metadata.quantiser, "precision": graph.metadata.profile,
        "source_sha256": hex(&graph.metadata.source), "requests": plan.batch(), "weights": total,
        "inputs": inputs(graph), "outputs": outputs(graph),
        "labels": graph.posts.iter().map(|post| post.name()).collect::<Vec<_>>(),
        // The tables of the lookups come after the nodes.
        "table_rows": costs.get(graph.nodes.len()).map(|cost| cost.committed),
        "padded": { "witness": witness, "weights": committed_weights, "lookups": lookups },
        "layers": layers, "stages": stages,
    })));
    output.result(&document, || describe(&document))?;
    Ok(ExitCode::SUCCESS)
}

/// The document for people.
fn describe(document: &Map<String, Value>) -> String {
    // Names come from a file that anybody may have made.
    let plain = |value: &Value| match value {
        Value::String(text) => opg_client::text::one_line(text, 60),
        Value::Null => "-".to_owned(),
        other => opg_client::text::one_line(&other.to_string(), 400),
    };
    let cells = |row: &Value, names: &[&str]| names.iter().map(|name| plain(&row[*name])).collect::<Vec<_>>();
    let lists = ["layers", "stages", "inputs", "outputs"];
    let scalars = document.iter().filter(|(name, _)| !lists.contains(&name.as_str()));
    let mut text = facts(scalars.map(|(name, value)| {
        // Digests are longer than names may be.
        (
            name.as_str(),
            value
                .as_str()
                .map_or_else(|| plain(value), |text| opg_client::text::one_line(text, 200)),
        )
    }));
    let mut section = |name: &str, header: &[&str], fields: &[&str]| {
        let rows = document
            .get(name)
            .and_then(Value::as_array)
            .map_or(&[][..], Vec::as_slice);
        if rows.is_empty() {
            return;
        }
        let mut lines = table([""; 0]);
        lines.set_header(header);
        for row in rows {
            lines.add_row(cells(row, fields));
        }
        text.push_str(&format!("\n{lines}\n"));
    };
    section("inputs", &["INPUT", "SHAPE", "SCALE"], &["name", "shape", "scale"]);
    section("outputs", &["OUTPUT", "SHAPE", "SCALE"], &["name", "shape", "scale"]);
    let common = ["node", "name", "op", "shape", "rows", "lookups", "weights"];
    let measured = document
        .get("stages")
        .and_then(Value::as_array)
        .is_some_and(|stages| !stages.is_empty());
    if measured {
        let header = [
            "NODE",
            "NAME",
            "OP",
            "SHAPE",
            "ROWS",
            "LOOKUPS",
            "WEIGHTS",
            "PROVE MS",
            "VERIFY MS",
            "BYTES",
        ];
        section(
            "layers",
            &header,
            &[&common[..], &["prove_ms", "verify_ms", "proof_bytes"]].concat(),
        );
    } else {
        section(
            "layers",
            &["NODE", "NAME", "OP", "SHAPE", "ROWS", "LOOKUPS", "WEIGHTS"],
            &common,
        );
    }
    let parts = ["stage", "prove_ms", "verify_ms", "proof_bytes"];
    section("stages", &["PART", "PROVE MS", "VERIFY MS", "BYTES"], &parts);
    if document.contains_key("judged") {
        text.push_str("This is what the file says; `opg zk verify --root ROOT` judges it.\n");
    }
    text
}
