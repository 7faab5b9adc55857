//! What a hiding proof says, and what it keeps to itself.

use crate::{
    channel::absorb,
    checks::Checks,
    commit::{Challenger, Digest},
    error::{PlanError, VerifyError},
    hiding::{
        model::{HidingKey, commit, describe},
        random::{Key, Seed},
        tree::Tree,
    },
    layout::Layout,
    model::ModelRoot,
    plan::Plan,
    statement::Statement,
};
use opg_primitives::domain::Tag;

use crate::field::F;

/// What a hiding proof says nothing about.
#[derive(Debug, Clone, Copy)]
pub enum Secret<'a> {
    /// The weights. Inputs and outputs are public.
    Weights,
    /// The weights and all inputs. Outputs are public, inputs are named by a salted commitment: the seed is for one
    /// proof only, and is what its owner needs to show later which inputs these were.
    WeightsAndInputs(&'a Seed),
}

/// A salted commitment to the inputs of all requests of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InputRoot(pub Digest);

/// "The model with this root, whose weights you do not see, gives these outputs for these inputs (or for the inputs
/// under this commitment)."
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HidingStatement {
    /// Requests and occasion. With secret inputs the requests hold outputs only.
    pub statement: Statement,
    /// The commitment to the inputs if they are secret; `None` if they are public.
    pub inputs: Option<InputRoot>,
}

/// Numbers in the encoding of proofs; 1 and 2 are the profiles that hide nothing.
const WEIGHTS: u8 = 3;
const WEIGHTS_AND_INPUTS: u8 = 4;

impl HidingStatement {
    /// Number of what is hidden, in proofs and transcripts.
    pub(crate) const fn profile(&self) -> u8 {
        if self.inputs.is_some() {
            WEIGHTS_AND_INPUTS
        } else {
            WEIGHTS
        }
    }

    pub(crate) fn check(&self, key: &HidingKey) -> Result<(), VerifyError> {
        self.statement.check_with(&key.graph, self.inputs.is_some())
    }

    /// The plan of the statement's proof.
    pub(crate) fn plan(&self, key: &HidingKey) -> Result<Plan, PlanError> {
        let requests = self.statement.requests.len();
        if self.inputs.is_some() {
            Plan::with_secret_inputs(&key.graph, requests)
        } else {
            Plan::new(&key.graph, requests)
        }
    }

    /// The transcript after the statement and before the first commitment of the proof.
    pub(crate) fn transcript(&self, key: &HidingKey, root: &ModelRoot, checks: Checks) -> Challenger {
        let describe = describe(key.parameters, &key.code);
        let mut transcript =
            self.statement
                .transcript(&key.graph, &describe, self.profile(), root, key.graph_digest(), checks);
        if let (Some(InputRoot(root)), true) = (&self.inputs, checks.is_made(crate::Check::Transcript)) {
            absorb(&mut transcript, root);
        }
        transcript
    }
}

/// Rows and tree of the commitment to inputs, requests one after the other.
pub(crate) fn commit_columns(
    key: &HidingKey,
    layout: &Layout,
    inputs: &[Vec<i64>],
    seed: &Seed,
) -> (Vec<F>, Vec<Vec<F>>, Tree) {
    let mut hasher = blake3::Hasher::new();
    for value in inputs.iter().flatten() {
        hasher.update(&value.to_le_bytes());
    }
    let material: Key = seed.key(
        Tag::HiddenInputs,
        [key.graph_digest().as_slice(), hasher.finalize().as_bytes().as_slice()],
    );
    let values = layout.stack(inputs);
    let (rows, tree) = commit(&key.code, &values, &material);
    (values, rows, tree)
}

/// Commits to the inputs of all requests, one vector per request and input: what a statement with secret inputs names.
/// Whoever is given inputs and seed can compute it again.
///
/// # Errors
/// [`PlanError`]: such inputs cannot be secret (see [`Plan::with_secret_inputs`]).
pub fn commit_inputs(key: &HidingKey, inputs: &[Vec<Vec<i64>>], seed: &Seed) -> Result<InputRoot, PlanError> {
    let plan = Plan::with_secret_inputs(&key.graph, inputs.len())?;
    let columns: Vec<Vec<i64>> = (0..key.graph.inputs.len())
        .map(|index| {
            let own = inputs.iter().filter_map(|request| request.get(index));
            own.flatten().copied().collect()
        })
        .collect();
    Ok(InputRoot(commit_columns(key, &plan.inputs, &columns, seed).2.root()))
}
