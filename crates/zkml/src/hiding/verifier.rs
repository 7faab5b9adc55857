//! The verifier of hiding proofs.

use crate::{
    checks::Checks,
    error::{Check, VerifyError},
    hiding::{
        argument::{close, fresh_rows, query},
        channel::{HidingChannel, VerifierEnd, observe_bytes},
        model::HidingKey,
        stack::Stack,
        statement::{HidingStatement, InputRoot},
        tree::{depth, listed},
    },
    model::ModelRoot,
    proof::{MAGIC, MAX_PROOF_BYTES, Reader},
    protocol::{NEVER, Protocol, Stage},
    security::walk,
};

/// Verifies a hiding proof with the graph, the root of the model and the statement.
///
/// # Errors
/// [`VerifyError`]: the first check that fails. No input makes it panic.
pub fn verify_hiding(
    key: &HidingKey,
    root: &ModelRoot,
    statement: &HidingStatement,
    proof: &[u8],
) -> Result<(), VerifyError> {
    verify_hiding_with(key, root, statement, proof, Checks::default(), &mut |_| {})
}

/// Verifies with a choice of checks and a callback before each step.
///
/// # Errors
/// [`VerifyError`]: the first check that fails.
pub fn verify_hiding_with(
    key: &HidingKey,
    root: &ModelRoot,
    statement: &HidingStatement,
    proof: &[u8],
    checks: Checks,
    progress: &mut dyn FnMut(Stage<'_>),
) -> Result<(), VerifyError> {
    let graph = &key.graph;
    let mut reader = Reader::new(proof);
    if proof.len() > MAX_PROOF_BYTES {
        return Err(VerifyError::Size {
            got: proof.len(),
            limit: MAX_PROOF_BYTES,
        });
    }
    checks.require(Check::ModelRoot, key.root() == *root, "model root")?;
    match statement.check(key) {
        Err(VerifyError::Value { .. }) if !checks.is_made(Check::PublicRange) => {}
        other => other?,
    }
    if reader.take(MAGIC.len(), "the header")? != MAGIC {
        return Err(VerifyError::Header("protocol"));
    }
    match reader.take(2, "the header")? {
        [set, _] if *set != key.parameters.id() => return Err(VerifyError::Header("parameter set")),
        [_, own] if *own == statement.profile() => {}
        _ => return Err(VerifyError::Header("profile")),
    }
    let slot = reader.word("the slot")?;
    if slot >= key.slots {
        return Err(VerifyError::Length {
            what: "the slot's number",
            got: slot as usize,
            limit: key.slots as usize,
        });
    }
    let slot_root = reader.digest("the slot")?;
    let path = (0..depth(key.slots))
        .map(|_| reader.digest("the slot"))
        .collect::<Result<Vec<_>, _>>()?;
    let holds = listed(slot, &slot_root, &path) == key.weights;
    checks.require(Check::Slot, holds, "the weight commitment")?;
    let commitment = reader.digest("the witness commitment")?;

    let plan = statement.plan(key)?;
    let code = &key.code;
    let stack = Stack::new(code, &plan)?;
    let wires = walk(graph, &plan, checks)?.wires(stack.layout.variables);
    let mut challenger = statement.transcript(key, root, checks);
    observe_bytes(&mut challenger, &slot.to_le_bytes());
    observe_bytes(&mut challenger, &slot_root);
    observe_bytes(&mut challenger, &commitment);

    let inputs = statement
        .statement
        .gather(graph.inputs.len(), |request| &request.inputs);
    let outputs = statement
        .statement
        .gather(graph.outputs.len(), |request| &request.outputs);
    let end = VerifierEnd {
        challenger: &mut challenger,
        reader: &mut reader,
    };
    let mut protocol = Protocol {
        graph,
        plan: &plan,
        inputs: &inputs,
        channel: HidingChannel::new(end, checks, wires),
        open: vec![Vec::new(); graph.nodes.len()],
        witness: Vec::new(),
        weights: Vec::new(),
        secrets: Vec::new(),
        progress,
        cancel: &NEVER,
    };
    protocol.run(&outputs)?;
    let claims = stack.claims([protocol.witness, protocol.weights, protocol.secrets]);
    let mut channel = protocol.channel;
    progress(Stage::WitnessOpening);
    let closed = close(&mut channel, code, &stack, &claims, None)?;
    let rows = stack.rows();
    let own = |part: usize| rows.get(part).copied().unwrap_or(0);
    let mut trees = vec![
        (Check::WitnessOpening, commitment, fresh_rows(code, wires, own(0))),
        (Check::WeightOpening, slot_root, own(1)),
    ];
    if let Some(InputRoot(inputs)) = statement.inputs {
        trees.push((Check::InputOpening, inputs, own(2)));
    }
    let grinding = key.parameters.grinding_bits();
    query(&mut challenger, &mut reader, code, grinding, &closed, &trees, checks)?;
    checks.require(Check::Trailing, reader.left() == 0, "bytes after the proof")?;
    progress(Stage::Done);
    Ok(())
}
