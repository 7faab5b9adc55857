//! The verifier.

use std::cell::Cell;

use opg_integer_program::program::Program;
use p3_field::PrimeCharacteristicRing;

use crate::{
    channel::{Channel, VerifierChannel},
    checks::Checks,
    commit::{Challenger, Digest, Scheme},
    error::{Check, VerifyError},
    field::EF,
    layout::{Claim, Layout},
    model::{ModelRoot, Profile, VerifyingKey},
    plan::Plan,
    proof::{MAGIC, MAX_PROOF_BYTES, Reader},
    protocol::{NEVER, Protocol, Stage},
    statement::Statement,
};

/// Verifies a proof with the graph and the root of the weights.
///
/// # Errors
/// [`VerifyError`]: the first check that fails. No input makes it panic.
pub fn verify(key: &VerifyingKey, root: &ModelRoot, statement: &Statement, proof: &[u8]) -> Result<(), VerifyError> {
    verify_with(key, root, None, statement, proof, Checks::default(), &mut |_| {})
}

/// Verifies an open-model proof with the weights themselves.
///
/// # Errors
/// [`VerifyError`]: the first check that fails.
pub fn verify_open(
    key: &VerifyingKey,
    root: &ModelRoot,
    program: &Program,
    statement: &Statement,
    proof: &[u8],
) -> Result<(), VerifyError> {
    verify_with(
        key,
        root,
        Some(program),
        statement,
        proof,
        Checks::default(),
        &mut |_| {},
    )
}

/// Verifies with a choice of checks and a callback before each step. With a program, an open-model proof is expected;
/// whether the program's weights are the registered ones is for the caller to have checked once, by computing the root.
///
/// # Errors
/// [`VerifyError`]: the first check that fails.
pub fn verify_with(
    key: &VerifyingKey,
    root: &ModelRoot,
    program: Option<&Program>,
    statement: &Statement,
    proof: &[u8],
    checks: Checks,
    progress: &mut dyn FnMut(Stage<'_>),
) -> Result<(), VerifyError> {
    verify_reading(key, root, program, statement, Reader::new(proof), checks, progress)
}

/// Verifies, and tells before each step how many bytes of the proof were read: the size of every part of a proof.
///
/// # Errors
/// [`VerifyError`]: the first check that fails.
pub fn verify_measured(
    key: &VerifyingKey,
    root: &ModelRoot,
    program: Option<&Program>,
    statement: &Statement,
    proof: &[u8],
    progress: &mut dyn FnMut(Stage<'_>, usize),
) -> Result<(), VerifyError> {
    let left = Cell::new(proof.len());
    let reader = Reader::counted(proof, &left);
    let mut told = |stage: Stage<'_>| progress(stage, proof.len() - left.get());
    verify_reading(key, root, program, statement, reader, Checks::default(), &mut told)
}

fn verify_reading(
    key: &VerifyingKey,
    root: &ModelRoot,
    program: Option<&Program>,
    statement: &Statement,
    mut reader: Reader<'_>,
    checks: Checks,
    progress: &mut dyn FnMut(Stage<'_>),
) -> Result<(), VerifyError> {
    let graph = &key.graph;
    if reader.left() > MAX_PROOF_BYTES {
        return Err(VerifyError::Size {
            got: reader.left(),
            limit: MAX_PROOF_BYTES,
        });
    }
    checks.require(Check::ModelRoot, key.root() == *root, "model root")?;
    match statement.check(graph) {
        Err(VerifyError::Value { .. }) if !checks.is_made(Check::PublicRange) => {}
        other => other?,
    }
    if reader.take(MAGIC.len(), "the header")? != MAGIC {
        return Err(VerifyError::Header("protocol"));
    }
    let profile = if program.is_some() {
        Profile::Open
    } else {
        Profile::Committed
    };
    match reader.take(2, "the header")? {
        [set, _] if *set != key.parameters.id() => return Err(VerifyError::Header("parameter set")),
        [_, own] if *own == profile.id() => {}
        [_, own] if *own == Profile::Open.id() => return Err(VerifyError::WeightsMissing),
        _ => return Err(VerifyError::Header("profile")),
    }
    let plan = Plan::new(graph, statement.requests.len())?;
    let inputs = statement.gather(graph.inputs.len(), |request| &request.inputs);
    let outputs = statement.gather(graph.outputs.len(), |request| &request.outputs);
    let commitment = reader.digest("the witness commitment")?;
    let mut challenger = statement.transcript(
        graph,
        &key.parameters.describe(),
        profile.id(),
        root,
        key.graph_digest(),
        checks,
    );
    let scheme = Scheme::new(key.parameters, plan.layout.variables)?;
    scheme.observe(&commitment, &mut challenger);
    let mut protocol = Protocol {
        graph,
        plan: &plan,
        inputs: &inputs,
        channel: VerifierChannel {
            challenger: &mut challenger,
            reader: &mut reader,
            checks,
        },
        open: vec![Vec::new(); graph.nodes.len()],
        witness: Vec::new(),
        weights: Vec::new(),
        secrets: Vec::new(),
        progress,
        cancel: &NEVER,
    };
    protocol.run(&outputs)?;
    let (claims, weights) = (protocol.witness, protocol.weights);
    progress(Stage::WitnessOpening);
    let own = [Check::WitnessBatch, Check::WitnessOpening];
    open(
        &scheme,
        &plan.layout,
        &claims,
        &commitment,
        &mut challenger,
        &mut reader,
        checks,
        own,
    )?;
    if let Some(program) = program {
        for claim in &weights {
            let holds = claim.terms.iter().all(|(index, functional)| {
                let values = program.weights.constants.get(*index).map(|constant| constant.to_i64());
                values.is_some_and(|values| functional.apply(&values) == claim.value)
            });
            checks.require(Check::OpenWeights, holds, "weights")?;
        }
    } else if !weights.is_empty() {
        progress(Stage::WeightOpening);
        let scheme = Scheme::new(key.parameters, plan.weights.variables)?;
        let own = [Check::WeightBatch, Check::WeightOpening];
        open(
            &scheme,
            &plan.weights,
            &weights,
            &key.weights,
            &mut challenger,
            &mut reader,
            checks,
            own,
        )?;
    }
    checks.require(Check::Trailing, reader.left() == 0, "bytes after the proof")?;
    progress(Stage::Done);
    Ok(())
}

/// Checks the reduction of claims to one point and its opening.
#[allow(clippy::too_many_arguments)]
fn open(
    scheme: &Scheme,
    layout: &Layout,
    claims: &[Claim],
    digest: &Digest,
    challenger: &mut Challenger,
    reader: &mut Reader<'_>,
    checks: Checks,
    [batch, opening]: [Check; 2],
) -> Result<(), VerifyError> {
    let what = if opening == Check::WeightOpening {
        "weight"
    } else {
        "witness"
    };
    let mut channel = VerifierChannel {
        challenger,
        reader,
        checks,
    };
    let gamma = channel.challenge();
    let claim = claims
        .iter()
        .rev()
        .fold(EF::ZERO, |sum, claim| sum * gamma + claim.value);
    let reduced = channel.sumcheck(claim, layout.variables, 2, |_| Vec::new())?;
    let value = channel.values(1, |_| Vec::new())?.first().copied().unwrap_or(EF::ZERO);
    let weight = layout.evaluate(claims, gamma, &reduced.point);
    checks.require(batch, weight * value == reduced.expected, what)?;
    let proof = reader.opening(scheme, value)?;
    match scheme.verify(what, digest, &reduced.point, &proof, challenger) {
        Err(error) if checks.is_made(opening) => Err(error),
        _ => Ok(()),
    }
}
