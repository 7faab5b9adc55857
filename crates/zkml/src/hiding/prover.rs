//! The prover of hiding proofs.

use opg_primitives::domain::Tag;
use p3_field::PrimeCharacteristicRing;
use rand::CryptoRng;

use crate::{
    checks::Checks,
    commit::Digest,
    error::ProveError,
    field::F,
    hiding::{
        argument::{Masks, Secrets, answer, close},
        channel::{HidingChannel, ProverEnd, observe_bytes},
        forge::{Forge, Trick},
        model::{HidingKey, HidingModel, commit, weight_layout},
        random::{Key, Seed, Use},
        stack::{Stack, with_tails},
        statement::{HidingStatement, InputRoot, Secret, commit_columns},
        tree::Tree,
    },
    model::ModelRoot,
    plan::Plan,
    proof::{MAGIC, Writer},
    protocol::{NEVER, Protocol, Stage},
    prover::run,
    security::walk,
    statement::{Context, Statement},
    witness::Witness,
};

/// Runs the program on the inputs of each request and proves the results without showing the weights (and the inputs).
///
/// Uses up one slot of the model, also when it fails. `rng` must be good: what it draws hides the activations. Should it
/// repeat itself, the slot and the model's seed still keep the masks of two proofs apart.
///
/// # Errors
/// [`ProveError`]: no slot is left, the program has no result for an input, or it cannot be proven.
pub fn prove_hiding(
    model: &mut HidingModel,
    inputs: &[Vec<Vec<i64>>],
    secret: Secret<'_>,
    context: Context,
    rng: &mut impl CryptoRng,
    progress: &mut dyn FnMut(Stage<'_>),
) -> Result<(HidingStatement, Vec<u8>), ProveError> {
    let slot = model.used;
    let slots = model.verifying_key().slots;
    if slot >= slots {
        return Err(ProveError::Slots { limit: slots });
    }
    model.used += 1;
    let (requests, nodes) = run(&model.program, inputs)?;
    let mut statement = HidingStatement {
        statement: Statement { requests, context },
        inputs: None,
    };
    let key = model.verifying_key();
    let graph = &key.graph;
    let columns = statement
        .statement
        .gather(graph.inputs.len(), |request| &request.inputs);
    let mut own = None;
    if let Secret::WeightsAndInputs(seed) = secret {
        statement.statement.check(graph)?;
        let plan = Plan::with_secret_inputs(graph, inputs.len())?;
        let committed = commit_columns(key, &plan.inputs, &columns, seed);
        statement.inputs = Some(InputRoot(committed.2.root()));
        statement
            .statement
            .requests
            .iter_mut()
            .for_each(|request| request.inputs.clear());
        own = Some(committed);
    }
    statement.check(key)?;
    let plan = statement.plan(key)?;
    progress(Stage::Commit);
    let witness = Witness::new(graph, &plan, columns.clone(), nodes, &model.constants);
    let weights = weight_layout(graph).stack(&model.constants);
    let (rows, tree) = commit(&key.code, &weights, &model.key_material.derive(Use::Slot(slot)));
    let material = proof_key(model, slot, rng);
    let (input_values, input_rows, input_tree) = match own {
        Some((values, rows, tree)) => (values, rows, Some(tree)),
        None => (Vec::new(), Vec::new(), None),
    };
    let proving = HidingProving {
        key,
        root: key.root(),
        statement: &statement,
        witness: &witness,
        inputs: &columns,
        slot,
        slot_root: tree.root(),
        path: model.list.path(slot),
        weights: (&weights, &rows, &tree),
        secret_inputs: input_tree
            .as_ref()
            .map(|tree| (input_values.as_slice(), input_rows.as_slice(), tree)),
        material: &material,
        checks: Checks::default(),
        forge: Forge::default(),
    };
    let proof = prove_secrets(&proving, progress)?;
    Ok((statement, proof))
}

/// The key of a proof's own randomness: fresh, and bound to the model's secret and the slot.
pub(crate) fn proof_key(model: &HidingModel, slot: u32, rng: &mut impl CryptoRng) -> Key {
    let own = model.key_material.derive(Use::Slot(slot)).stream(Use::Wires).bytes(32);
    Seed::random(rng).key(Tag::HidingProof, [own.as_slice()])
}

/// Values on the cube, rows with tails, and the tree over them.
pub(crate) type Committed<'a> = (&'a [F], &'a [Vec<F>], &'a Tree);

/// Everything that a hiding proof is made from. In an honest proof all parts belong together; tests of the verifier's
/// checks put parts together that do not.
pub(crate) struct HidingProving<'a> {
    pub(crate) key: &'a HidingKey,
    pub(crate) root: ModelRoot,
    pub(crate) statement: &'a HidingStatement,
    pub(crate) witness: &'a Witness<'a>,
    /// All inputs, requests one after the other.
    pub(crate) inputs: &'a [Vec<i64>],
    pub(crate) slot: u32,
    pub(crate) slot_root: Digest,
    pub(crate) path: Vec<Digest>,
    pub(crate) weights: Committed<'a>,
    pub(crate) secret_inputs: Option<Committed<'a>>,
    /// Where the proof's randomness comes from.
    pub(crate) material: &'a Key,
    pub(crate) checks: Checks,
    pub(crate) forge: Forge,
}

/// Proves from a filled witness.
pub(crate) fn prove_secrets(
    proving: &HidingProving<'_>,
    progress: &mut dyn FnMut(Stage<'_>),
) -> Result<Vec<u8>, ProveError> {
    let HidingProving {
        key,
        witness,
        statement,
        checks,
        forge,
        ..
    } = *proving;
    let (plan, code) = (witness.plan, &key.code);
    let stack = Stack::new(code, plan)?;
    let wires = walk(&key.graph, plan, checks)?.wires(stack.layout.variables);
    let masks = Masks::draw(code, wires, proving.material, forge);
    let own = plan.layout.stack(&witness.columns);
    let own_rows = with_tails(code, &own, proving.material);
    let mut fresh: Vec<Vec<F>> = own_rows.iter().cloned().chain(masks.rows()).collect();
    if let (Some(wire), true) = (
        fresh.get_mut(own_rows.len()).and_then(|row| row.first_mut()),
        forge.does(Trick::Wire),
    ) {
        *wire += F::ONE;
    }
    let tree = Tree::new(code.encode(&fresh), fresh.len(), proving.material);
    let root = if forge.does(Trick::Root) { [7; 32] } else { tree.root() };

    let mut writer = Writer::default();
    writer.bytes.extend(MAGIC);
    writer.bytes.extend([key.parameters.id(), statement.profile()]);
    writer.bytes.extend(proving.slot.to_le_bytes());
    writer.digest(&proving.slot_root);
    proving.path.iter().for_each(|digest| writer.digest(digest));
    writer.digest(&root);
    let mut challenger = statement.transcript(key, &proving.root, checks);
    observe_bytes(&mut challenger, &proving.slot.to_le_bytes());
    observe_bytes(&mut challenger, &proving.slot_root);
    observe_bytes(&mut challenger, &root);

    let outputs = statement
        .statement
        .gather(key.graph.outputs.len(), |request| &request.outputs);
    let end = ProverEnd {
        challenger: &mut challenger,
        writer: &mut writer,
        witness,
        wires: &masks.wires,
        forge,
    };
    let mut protocol = Protocol {
        graph: &key.graph,
        plan,
        inputs: proving.inputs,
        channel: HidingChannel::new(end, checks, wires),
        open: vec![Vec::new(); key.graph.nodes.len()],
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
    let none: Committed<'_> = (&[], &[], &tree);
    let inputs = proving.secret_inputs.unwrap_or(none);
    let secrets = Secrets {
        values: stack.values(&[&own, proving.weights.0, inputs.0]),
        rows: [&own_rows, proving.weights.1, inputs.1],
        masks: &masks,
    };
    close(&mut channel, code, &stack, &claims, Some(&secrets))?;
    let mut trees = vec![&tree, proving.weights.2];
    trees.extend(proving.secret_inputs.map(|inputs| inputs.2));
    let grinding = key.parameters.grinding_bits();
    answer(&mut challenger, &mut writer, code, grinding, &trees, forge);
    progress(Stage::Done);
    Ok(writer.bytes)
}
