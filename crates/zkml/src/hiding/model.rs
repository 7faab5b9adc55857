//! Models whose weights nobody but the prover sees: the commitment, and the root that names everything.

use opg_integer_program::program::{Graph, Program};
use opg_primitives::domain::Tag;
use p3_maybe_rayon::prelude::*;

use crate::{
    checks::Checks,
    commit::{Digest, ParameterSet},
    error::PlanError,
    field::F,
    hiding::{
        code::Code,
        random::{Key, Seed, Use},
        stack::{rows, with_tails},
        tree::{Roots, Tree},
    },
    layout::Layout,
    model::ModelRoot,
    plan::Plan,
    security::walk,
};

/// Most slots of a model.
pub const MAX_SLOTS: u32 = 1 << 16;

/// What a verifier needs of a model with secret weights: 32 bytes for the weights, their number of slots, and the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct HidingKey {
    /// Everything but the weights.
    pub graph: Graph,
    /// Digest of the list of weight commitments.
    pub weights: Digest,
    /// How many commitments the list has.
    pub slots: u32,
    /// Parameter set of the commitments.
    pub parameters: ParameterSet,
    pub(crate) code: Code,
    digest: [u8; 32],
    root: ModelRoot,
}

/// Everything that fixes the hiding protocol, for hashing.
pub(crate) fn describe(parameters: ParameterSet, code: &Code) -> String {
    format!(
        "koalabear^5 blake3 hiding, rows of 2^{} + {} in reed-solomon 2^{}, unique decoding, terms {} grinding {} \
         version 1",
        code.log_message,
        code.tail,
        code.log_length,
        parameters.term_bits(),
        parameters.grinding_bits()
    )
}

impl HidingKey {
    /// Joins a graph and a list of weight commitments.
    ///
    /// # Errors
    /// [`PlanError`]: the graph cannot be proven, or the list has no slots or more than [`MAX_SLOTS`].
    pub fn new(graph: Graph, weights: Digest, slots: u32, parameters: ParameterSet) -> Result<Self, PlanError> {
        if slots == 0 || slots > MAX_SLOTS {
            return Err(PlanError::Size {
                what: "slots",
                got: slots as usize,
                limit: MAX_SLOTS as usize,
            });
        }
        let code = code(&graph, parameters)?;
        let digest: [u8; 32] = graph.digest().into();
        let mut hasher = blake3::Hasher::new_derive_key(Tag::ZkModel.as_str());
        hasher.update(blake3::hash(describe(parameters, &code).as_bytes()).as_bytes());
        hasher.update(&digest);
        hasher.update(&weights);
        hasher.update(&slots.to_le_bytes());
        let root = ModelRoot(*hasher.finalize().as_bytes());
        Ok(Self {
            graph,
            weights,
            slots,
            parameters,
            code,
            digest,
            root,
        })
    }

    /// The model's root.
    #[must_use]
    pub const fn root(&self) -> ModelRoot {
        self.root
    }

    /// The code of all commitments.
    #[must_use]
    pub const fn code(&self) -> Code {
        self.code
    }

    /// Digest of the graph.
    #[must_use]
    pub const fn graph_digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

/// The code that suits proofs of one request.
fn code(graph: &Graph, parameters: ParameterSet) -> Result<Code, PlanError> {
    let plan = Plan::new(graph, 1)?;
    let wires = walk(graph, &plan, Checks::default())?.wires(plan.layout.variables.max(plan.weights.variables) + 2);
    let [witness, weights, _] = plan.sizes();
    Code::choose(parameters, witness + weights, wires.total())
}

/// A program with its hiding weight commitments.
///
/// A proof reads some symbols of a commitment to the weights; a commitment stays secret for as many symbols as it has
/// random ones, which is one proof. So a model has a list of commitments to the same weights, its *slots*, and every
/// proof uses up one. A caller that keeps a model beyond the life of this value stores [`Self::used`] **before** a proof
/// leaves its hands, and gives it back with [`Self::skip`].
#[derive(Debug)]
pub struct HidingModel {
    pub(crate) program: Program,
    pub(crate) constants: Vec<Vec<i64>>,
    pub(crate) key_material: Key,
    pub(crate) list: Roots,
    pub(crate) used: u32,
    key: HidingKey,
}

impl HidingModel {
    /// Commits to the weights of a validated program, `slots` times with other randomness. The same program, seed and
    /// number of slots give the same root; another seed gives an unrelated one. The graph that verifiers get names no
    /// source file: a hash of the weights would tell them from guessed ones.
    ///
    /// # Errors
    /// [`PlanError`]: the program cannot be proven, or the number of slots is 0 or above [`MAX_SLOTS`].
    pub fn new(mut program: Program, parameters: ParameterSet, slots: u32, seed: &Seed) -> Result<Self, PlanError> {
        program.graph.metadata.source = [0; 32];
        // The list's digest is not known yet; everything else of the key is.
        let draft = HidingKey::new(program.graph.clone(), [0; 32], slots, parameters)?;
        let constants: Vec<Vec<i64>> = program
            .weights
            .constants
            .iter()
            .map(|constant| constant.to_i64())
            .collect();
        let mut hasher = blake3::Hasher::new();
        for values in &constants {
            hasher.update(&(values.len() as u64).to_le_bytes());
            values.iter().for_each(|value| {
                hasher.update(&value.to_le_bytes());
            });
        }
        let key_material = seed.key(
            Tag::HiddenWeights,
            [draft.graph_digest().as_slice(), hasher.finalize().as_bytes().as_slice()],
        );
        let values = weight_layout(&program.graph).stack(&constants);
        let code = draft.code;
        let roots: Vec<Digest> = (0..slots)
            .into_par_iter()
            .map(|slot| commit(&code, &values, &key_material.derive(Use::Slot(slot))).1.root())
            .collect();
        let list = Roots::new(&roots);
        let key = HidingKey::new(program.graph.clone(), list.root(), slots, parameters)?;
        Ok(Self {
            program,
            constants,
            key_material,

            list,
            used: 0,
            key,
        })
    }

    /// What verifiers need.
    #[must_use]
    pub const fn verifying_key(&self) -> &HidingKey {
        &self.key
    }

    /// The program.
    #[must_use]
    pub const fn program(&self) -> &Program {
        &self.program
    }

    /// The model's root.
    #[must_use]
    pub const fn root(&self) -> ModelRoot {
        self.key.root()
    }

    /// How many slots are used up: the number of the next one.
    #[must_use]
    pub const fn used(&self) -> u32 {
        self.used
    }

    /// Marks slots as used up. Never goes back.
    pub fn skip(&mut self, used: u32) {
        self.used = self.used.max(used);
    }

    /// Whether a program is what every slot of a root holds: for whoever registers a model. As with the other profiles
    /// a root binds what was registered, and only who has seen the program knows that it was validated; here also that
    /// all slots hold the same weights.
    ///
    /// # Errors
    /// [`PlanError`]: the program cannot be proven.
    pub fn is_root_of(
        root: &ModelRoot,
        program: Program,
        parameters: ParameterSet,
        slots: u32,
        seed: &Seed,
    ) -> Result<bool, PlanError> {
        Ok(Self::new(program, parameters, slots, seed)?.root() == *root)
    }
}

pub(crate) fn weight_layout(graph: &Graph) -> Layout {
    Layout::new(graph.constants.iter().map(|constant| constant.shape.clone()).collect())
}

/// Rows with tails, and the tree over their symbols.
pub(crate) fn commit(code: &Code, values: &[F], key: &Key) -> (Vec<Vec<F>>, Tree) {
    debug_assert_eq!(
        values.len().div_ceil(code.message()),
        rows(code, crate::field::log2_ceil(values.len()))
    );
    let rows = with_tails(code, values, key);
    let tree = Tree::new(code.encode(&rows), rows.len(), key);
    (rows, tree)
}
