//! Hiding proofs on the command line: the secret file of a model, proofs that use up its slots, and their files.

use std::{
    io::IsTerminal as _,
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use opg_integer_program::program::{Graph, Program};
use opg_primitives::cbor::{Encoder, Limits, Value as Cbor, decode_strict};
use opg_zkml::{
    Context, MAX_BATCH, ParameterSet, ProveError, Request, Statement,
    hiding::{
        HidingKey, HidingModel, HidingStatement, InputRoot, Secret, Seed, commit_inputs, prove_hiding, verify_hiding,
    },
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    container::{MAX_PROOF_FILE, ProofFileError, check_graph, security_bits},
    files, hex, millis, stage_name, tensors,
};
use crate::{
    args::{ZkCommitArgs, ZkProveArgs, ZkVerifyArgs},
    failure::Failure,
    output::{Output, facts},
};

/// First element of a hiding proof file.
pub(super) const MAGIC: &str = "opg/zk-hiding-proof-file";
const VERSION: u64 = 1;
const FIELDS: usize = 10;
/// Longest secret file.
const MAX_SECRET: usize = 4_096;

/// What only the owner of the weights has: the seed of all commitments to them, and how many slots proofs have used up.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SecretFile {
    /// Root that these slots have.
    root: alloy_primitives::B256,
    seed: alloy_primitives::B256,
    security_bits: u16,
    slots: u32,
    used: u32,
}

impl SecretFile {
    fn open(path: &Path) -> Result<Self, Failure> {
        let bytes = files::read(path, "secret file", MAX_SECRET)?;
        serde_json::from_slice(&bytes).map_err(|error| {
            Failure::usage(format!(
                "{} is no secret file of a model: {error}; make one with `opg zk commit PROGRAM --hide FILE`",
                path.display()
            ))
        })
    }

    /// Replaces the file in one step; it is on disk when this returns.
    fn write(&self, path: &Path) -> Result<(), Failure> {
        let bytes = json!(self).to_string();
        opg_client::write_secret_atomically(path, bytes.as_bytes())
            .map_err(|error| Failure::usage(format!("cannot write {error}")))
    }

    /// The model, with the slots that were used marked so.
    fn model(&self, program: Program, path: &Path, output: Output) -> Result<(HidingModel, Duration), Failure> {
        let set = match self.security_bits {
            128 => ParameterSet::Bits128,
            _ => ParameterSet::Bits100,
        };
        let (mut model, took) = register(program, set, self.slots, &Seed::from_bytes(self.seed.0), output)?;
        if model.root().0 != self.root.0 {
            return Err(Failure::usage(format!(
                "{} belongs to the model with root {}, this program has {}: give the program that it was made for",
                path.display(),
                self.root,
                hex(&model.root().0)
            )));
        }
        model.skip(self.used);
        Ok((model, took))
    }
}

fn register(
    program: Program,
    set: ParameterSet,
    slots: u32,
    seed: &Seed,
    output: Output,
) -> Result<(HidingModel, Duration), Failure> {
    let spinner = output.spinner("committing to the weights");
    let started = Instant::now();
    let model = HidingModel::new(program, set, slots, seed);
    let took = started.elapsed();
    spinner.finish_and_clear();
    Ok((model.map_err(|error| Failure::usage(error.to_string()))?, took))
}

/// `opg zk commit --hide`: draws a seed, commits to the weights once for every proof to come, and keeps the secret.
pub(super) fn commit(args: &ZkCommitArgs, secret: &Path, output: Output) -> Result<ExitCode, Failure> {
    files::check_place(secret, "--hide", &[&args.program])?;
    if secret.exists() {
        return Err(Failure::usage(format!(
            "--hide {}: this file exists; a secret that is lost cannot be replaced, so it is not overwritten",
            secret.display()
        )));
    }
    let program = files::program(&args.program)?;
    let set = ParameterSet::from(args.security);
    let seed = Seed::random(&mut rand::rng());
    let (model, took) = register(program, set, args.slots, &seed, output)?;
    let root = model.root().0;
    SecretFile {
        root: root.into(),
        seed: (*seed.as_bytes()).into(),
        security_bits: security_bits(set),
        slots: args.slots,
        used: 0,
    }
    .write(secret)?;
    let document = json!({
        "root": hex(&root), "slots": args.slots, "secret": secret, "commit_ms": millis(took),
        "security_bits": security_bits(set),
    });
    output.result(&document, || {
        facts([
            ("root", hex(&root)),
            ("proofs", format!("{}, one for each slot", args.slots)),
            (
                "secret",
                format!("{}; whoever has it sees the weights in the proofs", secret.display()),
            ),
            ("security", format!("{} bits", security_bits(set))),
            ("committed in", format!("{:.0} ms", millis(took))),
        ])
    })?;
    Ok(ExitCode::SUCCESS)
}

/// A hiding proof with everything that a verifier needs beside root and outputs. As with other proof files nothing in it
/// has to be believed.
#[derive(Debug, Clone, PartialEq)]
struct HidingProofFile {
    key: HidingKey,
    requests: usize,
    receipt: [u8; 32],
    /// Commitment to the inputs, if they are hidden.
    inputs: Option<InputRoot>,
    proof: Vec<u8>,
}

impl HidingProofFile {
    fn encode(&self) -> Vec<u8> {
        let graph = self.key.graph.encode();
        let mut out = Encoder::with_capacity(graph.len() + self.proof.len() + 256);
        out.array(FIELDS).text(MAGIC).uint(VERSION);
        out.uint(self.key.parameters.id().into()).uint(self.requests as u64);
        out.bytes(&self.receipt)
            .bytes(self.inputs.as_ref().map_or(&[][..], |root| &root.0))
            .bytes(&graph)
            .bytes(&self.key.weights)
            .uint(self.key.slots.into())
            .bytes(&self.proof);
        out.finish()
    }

    fn decode(bytes: &[u8]) -> Result<Self, ProofFileError> {
        let limits = Limits {
            bytes: MAX_PROOF_FILE,
            depth: 2,
            items: FIELDS + 1,
            tags: false,
        };
        let field = |field, reason| ProofFileError::Field { field, reason };
        let Cbor::Array(items) = decode_strict(bytes, limits)? else {
            return Err(field("file", "it is not a list"));
        };
        match items.as_slice() {
            [Cbor::Text(magic), Cbor::Uint(VERSION), ..] if magic == MAGIC => {}
            [Cbor::Text(magic), Cbor::Uint(got), ..] if magic == MAGIC => {
                return Err(ProofFileError::Version { got: *got });
            }
            _ => return Err(field("magic", "another kind of file")),
        }
        let Ok([_, _, set, requests, receipt, inputs, graph, weights, slots, proof]) =
            <[Cbor; FIELDS]>::try_from(items)
        else {
            return Err(field("file", "another number of fields than 10"));
        };
        let number = |value: &Cbor| match value {
            Cbor::Uint(number) => Some(*number),
            _ => None,
        };
        let parameters = number(&set)
            .and_then(ParameterSet::from_id)
            .ok_or(field("parameter set", "this release knows sets 1 and 2"))?;
        let requests = number(&requests)
            .and_then(|count| usize::try_from(count).ok())
            .filter(|count| (1..=MAX_BATCH).contains(count))
            .ok_or(field("requests", "expected 1 to 65536"))?;
        let slots = number(&slots)
            .and_then(|slots| u32::try_from(slots).ok())
            .ok_or(field("slots", "expected a number of 32 bits"))?;
        let bytes = |value, name| match value {
            Cbor::Bytes(bytes) => Ok(bytes),
            _ => Err(field(name, "expected a byte string")),
        };
        let digest = |bytes: Vec<u8>, name| <[u8; 32]>::try_from(bytes).map_err(|_| field(name, "expected 32 bytes"));
        let inputs = bytes(inputs, "inputs")?;
        let inputs = match inputs.is_empty() {
            true => None,
            false => Some(InputRoot(digest(inputs, "inputs")?)),
        };
        let graph = Graph::decode(&bytes(graph, "graph")?)?;
        let key = HidingKey::new(graph, digest(bytes(weights, "weights")?, "weights")?, slots, parameters)
            .map_err(|error| ProofFileError::Plan(error.to_string()))?;
        Ok(Self {
            key,
            requests,
            receipt: digest(bytes(receipt, "receipt")?, "receipt")?,
            inputs,
            proof: bytes(proof, "proof")?,
        })
    }
}

/// What opens the commitment to hidden inputs, for their owner.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct InputOpening {
    seed: alloy_primitives::B256,
}

/// `opg zk prove --hide`.
pub(super) fn prove(args: &ZkProveArgs, secret: &Path, output: Output) -> Result<ExitCode, Failure> {
    let sources = [args.program.as_path(), args.input.as_path(), secret];
    files::check_place(&args.proof, "-o", &sources)?;
    let others = [&sources[..], &[&args.proof]].concat();
    for (path, option) in [(&args.output, "--output"), (&args.hide_inputs, "--hide-inputs")] {
        if let Some(path) = path {
            files::check_place(path, option, &others)?;
        }
    }
    let program = files::program(&args.program)?;
    check_graph(&program.graph)?;
    let (inputs, list) = tensors::inputs(&program.graph, &args.input)?;
    let mut state = SecretFile::open(secret)?;
    let (mut model, commit) = state.model(program, secret, output)?;
    let lock = lock(secret)?;
    // Another process may have proven meanwhile.
    state.used = SecretFile::open(secret)?.used;
    model.skip(state.used);
    if state.used >= state.slots {
        return Err(Failure::usage(format!(
            "{}: all {} slots are used up, and a second proof from one would show the weights; commit again with --hide NEWFILE",
            secret.display(),
            state.slots
        )));
    }
    // On disk before anything of this slot exists: a crash loses the slot, never the secret.
    state.used += 1;
    state.write(secret)?;
    drop(lock);

    let receipt = args.receipt.unwrap_or_default().0;
    let context = Context {
        receipt,
        ..Context::default()
    };
    let mut rng = rand::rng();
    let own = args.hide_inputs.as_ref().map(|path| (path, Seed::random(&mut rng)));
    if let Some((path, seed)) = &own {
        let opening = InputOpening {
            seed: (*seed.as_bytes()).into(),
        };
        opg_client::write_secret_atomically(path, json!(opening).to_string().as_bytes())
            .map_err(|error| Failure::usage(format!("cannot write {error}")))?;
    }
    let hidden = own
        .as_ref()
        .map_or(Secret::Weights, |(_, seed)| Secret::WeightsAndInputs(seed));
    if std::io::stderr().is_terminal() {
        eprintln!("note: outputs, shapes and ranges of the model are public; see docs/specs/zk-proof.md, section 5");
    }
    let spinner = output.spinner("proving");
    let started = Instant::now();
    let proven = prove_hiding(&mut model, &inputs, hidden, context, &mut rng, &mut |stage| {
        spinner.set_message(stage_name(stage))
    });
    let took = started.elapsed();
    spinner.finish_and_clear();
    let (statement, proof) = proven.map_err(|error| match &error {
        ProveError::Plan(_) => Failure::usage(format!("{}: {error}", args.program.display())),
        ProveError::Run { .. } => Failure::usage(format!("{}: {error}", args.input.display())),
        _ => Failure::failed(error),
    })?;
    let key = model.verifying_key();
    // A proof that its own verifier refuses must not leave this machine.
    verify_hiding(key, &key.root(), &statement, &proof).map_err(|error| {
        Failure::failed(eyre::eyre!(
            "the proof was made but does not verify: {error}; please report the model"
        ))
    })?;
    let file = HidingProofFile {
        key: key.clone(),
        requests: inputs.len(),
        receipt,
        inputs: statement.inputs,
        proof,
    };
    let bytes = file.encode();
    let result = tensors::document(&key.graph, &statement.statement.requests, list);
    if let Some(path) = &args.output {
        files::write(path, result.to_string().as_bytes())?;
    }
    files::write(&args.proof, &bytes)?;
    let input_root = file.inputs.as_ref().map(|root| hex(&root.0));
    let left = state.slots - state.used;
    let document = json!({
        "prove_ms": millis(took), "proof_bytes": file.proof.len(), "output": result, "root": hex(&key.root().0),
        "profile": "hiding", "hidden": hidden_words(file.inputs.is_some()), "input_commitment": input_root,
        "slots_left": left, "security_bits": security_bits(key.parameters), "requests": file.requests,
        "receipt": args.receipt, "commit_ms": millis(commit), "file_bytes": bytes.len(),
    });
    output.result(&document, || {
        let mut text = facts([
            ("root", hex(&key.root().0)),
            ("hidden", hidden_words(file.inputs.is_some()).to_owned()),
            ("slots left", left.to_string()),
            ("requests", file.requests.to_string()),
            (
                "proven in",
                format!("{:.0} ms, after {:.0} ms for the weights", millis(took), millis(commit)),
            ),
            (
                "proof",
                format!(
                    "{} bytes; {} with {} bytes",
                    file.proof.len(),
                    args.proof.display(),
                    bytes.len()
                ),
            ),
        ]);
        if let Some(root) = &input_root {
            text.push_str(&facts([("inputs", root.clone())]));
        }
        match &args.output {
            Some(path) => text.push_str(&format!("outputs are in {}\n", path.display())),
            None => text.push_str(&result.to_string()),
        }
        text
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Keeps other processes from taking a slot at the same time. The lock is a file beside the secret, which is itself replaced.
fn lock(secret: &Path) -> Result<std::fs::File, Failure> {
    let mut path = secret.as_os_str().to_owned();
    path.push(".lock");
    let locked = std::fs::File::create(&path).and_then(|file| file.lock().map(|()| file));
    locked.map_err(|error| Failure::usage(format!("cannot lock {}: {error}", Path::new(&path).display())))
}

const fn hidden_words(inputs: bool) -> &'static str {
    if inputs { "weights and inputs" } else { "weights" }
}

/// A hiding proof that holds.
pub(super) struct Judged {
    pub(super) root: [u8; 32],
    pub(super) hidden: &'static str,
    pub(super) security_bits: u16,
    pub(super) requests: usize,
    pub(super) proof_bytes: usize,
    pub(super) input_root: Option<[u8; 32]>,
    pub(super) took: Duration,
}

/// `opg zk verify` of a hiding proof.
pub(super) fn judge(args: &ZkVerifyArgs, output: Output) -> Result<Judged, Failure> {
    let place = args.proof.display();
    let wrong = |reason: String| Failure::failed(eyre::eyre!("{place}: {reason}"));
    let bytes = files::read(&args.proof, "proof file", MAX_PROOF_FILE)?;
    let file = HidingProofFile::decode(&bytes).map_err(|error| wrong(error.to_string()))?;
    let root = file.key.root().0;
    if root != args.root.0 {
        return Err(wrong(format!(
            "the proof is about the model with root {}, not {}",
            hex(&root),
            args.root
        )));
    }
    let stated = args.receipt.unwrap_or_default();
    if file.receipt != stated.0 {
        return Err(wrong(format!(
            "the proof is tied to receipt {}, not {stated}: name it with --receipt",
            hex(&file.receipt)
        )));
    }
    let outputs = tensors::outputs(&file.key.graph, &args.output)?;
    if outputs.len() != file.requests {
        let (path, count, covered) = (args.output.display(), outputs.len(), file.requests);
        return Err(Failure::usage(format!(
            "{path} holds {count} requests, the proof covers {covered}"
        )));
    }
    let inputs = inputs(args, &file, &wrong)?;
    let requests = inputs
        .into_iter()
        .chain(std::iter::repeat(Vec::new()))
        .zip(outputs)
        .map(|(inputs, outputs)| Request { inputs, outputs })
        .collect();
    let statement = HidingStatement {
        statement: Statement {
            requests,
            context: Context {
                receipt: stated.0,
                ..Context::default()
            },
        },
        inputs: file.inputs,
    };
    let spinner = output.spinner("verifying");
    let started = Instant::now();
    let checked = verify_hiding(&file.key, &file.key.root(), &statement, &file.proof);
    let took = started.elapsed();
    spinner.finish_and_clear();
    checked.map_err(|error| wrong(format!("does not prove these outputs: {error}")))?;
    Ok(Judged {
        root,
        hidden: hidden_words(file.inputs.is_some()),
        security_bits: security_bits(file.key.parameters),
        requests: file.requests,
        proof_bytes: file.proof.len(),
        input_root: file.inputs.map(|root| root.0),
        took,
    })
}

/// Public inputs of a statement. Hidden ones are compared with the commitment if their owner shows them.
fn inputs(
    args: &ZkVerifyArgs,
    file: &HidingProofFile,
    wrong: &impl Fn(String) -> Failure,
) -> Result<tensors::Inputs, Failure> {
    let graph = &file.key.graph;
    let read = |path: &Path| -> Result<tensors::Inputs, Failure> {
        let (inputs, _) = tensors::inputs(graph, path)?;
        if inputs.len() == file.requests {
            return Ok(inputs);
        }
        let (path, count, covered) = (path.display(), inputs.len(), file.requests);
        Err(Failure::usage(format!(
            "{path} holds {count} requests, the proof covers {covered}"
        )))
    };
    match (&file.inputs, &args.input, &args.opening) {
        (None, Some(path), None) => read(path),
        (None, None, _) => Err(Failure::usage(
            "the inputs of this proof are public: add --input IN.json",
        )),
        (None, Some(_), Some(_)) => Err(Failure::usage(
            "the inputs of this proof are public: leave --opening out",
        )),
        (Some(_), None, None) => Ok(Vec::new()),
        (Some(root), Some(path), Some(opening)) => {
            let bytes = files::read(opening, "opening", MAX_SECRET)?;
            let InputOpening { seed } = serde_json::from_slice(&bytes)
                .map_err(|error| Failure::usage(format!("{} is no opening: {error}", opening.display())))?;
            let shown = commit_inputs(&file.key, &read(path)?, &Seed::from_bytes(seed.0))
                .map_err(|error| wrong(error.to_string()))?;
            if shown != *root {
                return Err(wrong(format!(
                    "the proof is about other inputs: {} and the opening give the commitment {}, not {}",
                    path.display(),
                    hex(&shown.0),
                    hex(&root.0)
                )));
            }
            Ok(Vec::new())
        }
        (Some(_), _, _) => Err(Failure::usage(
            "the inputs of this proof are hidden: leave --input out, or give it with the owner's --opening FILE",
        )),
    }
}
