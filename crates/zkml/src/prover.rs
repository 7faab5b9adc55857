//! The prover.

use std::sync::atomic::{AtomicBool, Ordering};

use opg_integer_program::{interpret, program::Program};
use p3_field::PrimeCharacteristicRing;

use crate::{
    channel::{Channel, ProverChannel},
    checks::Checks,
    commit::{Committed, Scheme},
    error::{ProveError, VerifyError},
    field::{EF, F},
    layout::{Claim, Layout},
    model::{ModelRoot, Profile, RegisteredModel, VerifyingKey},
    plan::Plan,
    proof::{MAGIC, Writer},
    protocol::{NEVER, Protocol, Stage},
    statement::{Context, Request, Statement},
    sumcheck::Table,
    witness::Witness,
};

/// Runs the program on the inputs of each request and proves the results.
///
/// `progress` is called before each step; a caller that wants times reads its clock there. Nothing here depends on time
/// or randomness. With several threads the bytes of a proof can differ from run to run: the first good nonce of a proof of
/// work that any thread finds is taken.
///
/// # Errors
/// [`ProveError`]: the program has no result for an input, or cannot be proven.
pub fn prove(
    model: &RegisteredModel,
    inputs: &[Vec<Vec<i64>>],
    context: Context,
    profile: Profile,
    progress: &mut dyn FnMut(Stage<'_>),
) -> Result<(Statement, Vec<u8>), ProveError> {
    prove_unless(&NEVER, model, inputs, context, profile, progress)
}

/// As [`prove`], until `cancel` is set: it is looked at before each step.
///
/// # Errors
/// [`ProveError::Cancelled`], and those of [`prove`].
pub fn prove_unless(
    cancel: &AtomicBool,
    model: &RegisteredModel,
    inputs: &[Vec<Vec<i64>>],
    context: Context,
    profile: Profile,
    progress: &mut dyn FnMut(Stage<'_>),
) -> Result<(Statement, Vec<u8>), ProveError> {
    let (requests, nodes) = run(model.program(), inputs)?;
    let statement = Statement { requests, context };
    let proof = trace(cancel, model, &statement, nodes, profile, progress)?;
    Ok((statement, proof))
}

/// Requests with their outputs, and the values of all nodes, requests one after the other.
pub(crate) fn run(program: &Program, inputs: &[Vec<Vec<i64>>]) -> Result<(Vec<Request>, Vec<Vec<i64>>), ProveError> {
    let mut nodes: Vec<Vec<i64>> = vec![Vec::new(); program.graph.nodes.len()];
    let mut requests = Vec::with_capacity(inputs.len());
    for (request, inputs) in inputs.iter().enumerate() {
        let trace = interpret::run(program, inputs).map_err(|error| ProveError::Run {
            request,
            reason: error.to_string(),
        })?;
        let outputs = program
            .graph
            .outputs
            .iter()
            .map(|output| match output.source {
                opg_integer_program::program::Operand::Node(index) => {
                    trace.nodes.get(index as usize).cloned().unwrap_or_default()
                }
                _ => Vec::new(),
            })
            .collect();
        requests.push(Request {
            inputs: inputs.clone(),
            outputs,
        });
        for (all, own) in nodes.iter_mut().zip(trace.nodes) {
            all.extend(own);
        }
    }
    Ok((requests, nodes))
}

/// Proves a statement from given values of all nodes, requests one after the other. For values that are not the
/// program's the result is bytes that no verifier accepts.
///
/// # Errors
/// [`ProveError`].
pub fn prove_trace(
    model: &RegisteredModel,
    statement: &Statement,
    nodes: Vec<Vec<i64>>,
    profile: Profile,
    progress: &mut dyn FnMut(Stage<'_>),
) -> Result<Vec<u8>, ProveError> {
    trace(&NEVER, model, statement, nodes, profile, progress)
}

fn trace(
    cancel: &AtomicBool,
    model: &RegisteredModel,
    statement: &Statement,
    nodes: Vec<Vec<i64>>,
    profile: Profile,
    progress: &mut dyn FnMut(Stage<'_>),
) -> Result<Vec<u8>, ProveError> {
    let key = model.verifying_key();
    let graph = &key.graph;
    statement.check(graph)?;
    let plan = Plan::new(graph, statement.requests.len())?;
    let inputs = statement.gather(graph.inputs.len(), |request| &request.inputs);
    let outputs = statement.gather(graph.outputs.len(), |request| &request.outputs);
    progress(Stage::Commit);
    let witness = Witness::new(graph, &plan, inputs.clone(), nodes, &model.constants);
    let proving = Proving {
        key,
        root: key.root(),
        statement,
        witness: &witness,
        inputs: &inputs,
        outputs: &outputs,
        committed: None,
        weights: (&model.committed, &model.constants),
        profile,
        checks: Checks::default(),
        cancel,
    };
    prove_witness(&proving, progress)
}

/// Everything that a proof is made from. In an honest proof all parts belong together; tests of the verifier's checks
/// put parts together that do not.
pub(crate) struct Proving<'a> {
    pub(crate) key: &'a VerifyingKey,
    pub(crate) root: ModelRoot,
    pub(crate) statement: &'a Statement,
    pub(crate) witness: &'a Witness<'a>,
    /// Public inputs and outputs, requests one after the other.
    pub(crate) inputs: &'a [Vec<i64>],
    pub(crate) outputs: &'a [Vec<i64>],
    /// What is committed; the witness's columns if `None`.
    pub(crate) committed: Option<&'a [Vec<i64>]>,
    /// The registered weights, and those that the proof is made with.
    pub(crate) weights: (&'a Committed, &'a [Vec<i64>]),
    pub(crate) profile: Profile,
    /// The arguments that the protocol has.
    pub(crate) checks: Checks,
    /// Set when nobody wants the proof any more.
    pub(crate) cancel: &'a AtomicBool,
}

/// Proves from a filled witness.
pub(crate) fn prove_witness(proving: &Proving<'_>, progress: &mut dyn FnMut(Stage<'_>)) -> Result<Vec<u8>, ProveError> {
    let Proving {
        key,
        witness,
        statement,
        profile,
        checks,
        cancel,
        ..
    } = *proving;
    let begin = |stage, progress: &mut dyn FnMut(Stage<'_>)| {
        if cancel.load(Ordering::Relaxed) {
            return Err(ProveError::Cancelled);
        }
        progress(stage);
        Ok(())
    };
    let plan = witness.plan;
    let scheme = Scheme::new(key.parameters, plan.layout.variables)?;
    let columns = plan.layout.stack(&witness.columns);
    let committed = match proving.committed {
        None => scheme.commit(columns.clone())?,
        Some(other) => scheme.commit(plan.layout.stack(other))?,
    };
    let mut writer = Writer::default();
    writer.bytes.extend(MAGIC);
    writer.bytes.extend([key.parameters.id(), profile.id()]);
    writer.digest(&committed.root);
    let mut challenger = statement.transcript(
        &key.graph,
        &key.parameters.describe(),
        profile.id(),
        &proving.root,
        key.graph_digest(),
        checks,
    );
    scheme.observe(&committed.root, &mut challenger);
    let mut protocol = Protocol {
        graph: &key.graph,
        plan,
        inputs: proving.inputs,
        channel: ProverChannel {
            challenger: &mut challenger,
            writer: &mut writer,
            witness,
            checks,
        },
        open: vec![Vec::new(); key.graph.nodes.len()],
        witness: Vec::new(),
        weights: Vec::new(),
        secrets: Vec::new(),
        progress,
        cancel,
    };
    protocol.run(proving.outputs).map_err(|error| match error {
        VerifyError::Cancelled => ProveError::Cancelled,
        error => error.into(),
    })?;
    let (claims, weights) = (protocol.witness, protocol.weights);
    let mut channel = ProverChannel {
        challenger: &mut challenger,
        writer: &mut writer,
        witness,
        checks,
    };
    begin(Stage::WitnessOpening, progress)?;
    open(&scheme, &plan.layout, &claims, columns, &committed, &mut channel)?;
    if profile == Profile::Committed && !weights.is_empty() {
        begin(Stage::WeightOpening, progress)?;
        let scheme = Scheme::new(key.parameters, plan.weights.variables)?;
        let (committed, constants) = proving.weights;
        open(
            &scheme,
            &plan.weights,
            &weights,
            plan.weights.stack(constants),
            committed,
            &mut channel,
        )?;
    }
    progress(Stage::Done);
    Ok(writer.bytes)
}

/// Reduces claims to one point and opens it.
fn open(
    scheme: &Scheme,
    layout: &Layout,
    claims: &[Claim],
    columns: Vec<F>,
    committed: &Committed,
    channel: &mut ProverChannel<'_, '_>,
) -> Result<(), ProveError> {
    let gamma = channel.challenge();
    let reduced = channel.sumcheck(EF::ZERO, layout.variables, 2, |_| {
        vec![Table::Extension(layout.weights(claims, gamma)), Table::Base(columns)]
    })?;
    let value = reduced.finals.get(1).copied().unwrap_or(EF::ZERO);
    channel.values(1, |_| vec![value])?;
    let opening = scheme.open(committed, &reduced.point, channel.challenger)?;
    channel.writer.opening(&opening);
    Ok(())
}
