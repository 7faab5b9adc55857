//! Registered models: the weight commitment and the root that names everything.

use opg_integer_program::program::{Graph, Program};
use opg_primitives::domain::Tag;

use crate::{
    commit::{Committed, Digest, ParameterSet, Scheme},
    error::PlanError,
    layout::Layout,
};

/// Who holds the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// The verifier holds the root only; the proof opens the weight commitment.
    Committed,
    /// The verifier holds the weights and evaluates them itself: smaller, faster proofs.
    Open,
}

impl Profile {
    /// Number in the encoding of proofs.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::Committed => 1,
            Self::Open => 2,
        }
    }

    /// The profile of a number.
    #[must_use]
    pub const fn from_id(id: u64) -> Option<Self> {
        match id {
            1 => Some(Self::Committed),
            2 => Some(Self::Open),
            _ => None,
        }
    }
}

/// 32 bytes that name a model: parameter set, graph with tables and shapes, weight commitment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ModelRoot(pub [u8; 32]);

/// What a verifier needs of a model: 32 bytes for the weights, and the graph.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifyingKey {
    /// Everything but the weights.
    pub graph: Graph,
    /// Root of the weight commitment.
    pub weights: Digest,
    /// Parameter set of the commitment.
    pub parameters: ParameterSet,
    digest: [u8; 32],
    root: ModelRoot,
}

impl VerifyingKey {
    /// Joins a graph and a weight commitment.
    #[must_use]
    pub fn new(graph: Graph, weights: Digest, parameters: ParameterSet) -> Self {
        let digest: [u8; 32] = graph.digest().into();
        let mut hasher = blake3::Hasher::new_derive_key(Tag::ZkModel.as_str());
        hasher.update(blake3::hash(parameters.describe().as_bytes()).as_bytes());
        hasher.update(&digest);
        hasher.update(&weights);
        let root = ModelRoot(*hasher.finalize().as_bytes());
        Self {
            graph,
            weights,
            parameters,
            digest,
            root,
        }
    }

    /// The model's root.
    #[must_use]
    pub const fn root(&self) -> ModelRoot {
        self.root
    }

    /// Digest of the graph.
    #[must_use]
    pub const fn graph_digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

/// A program with its weight commitment: what a prover keeps between proofs.
#[derive(Debug)]
pub struct RegisteredModel {
    pub(crate) program: Program,
    pub(crate) constants: Vec<Vec<i64>>,
    pub(crate) committed: Committed,
    key: VerifyingKey,
}

impl RegisteredModel {
    /// Commits to the weights of a validated program. Anybody who holds the program gets the same root.
    ///
    /// # Errors
    /// [`PlanError`]: the weights do not fit one commitment.
    pub fn new(program: Program, parameters: ParameterSet) -> Result<Self, PlanError> {
        let constants: Vec<Vec<i64>> = program
            .weights
            .constants
            .iter()
            .map(|constant| constant.to_i64())
            .collect();
        let layout = Layout::new(
            program
                .graph
                .constants
                .iter()
                .map(|constant| constant.shape.clone())
                .collect(),
        );
        let scheme = Scheme::new(parameters, layout.variables)?;
        let committed = scheme.commit(layout.stack(&constants))?;
        let key = VerifyingKey::new(program.graph.clone(), committed.root, parameters);
        Ok(Self {
            program,
            constants,
            committed,
            key,
        })
    }

    /// What verifiers need.
    #[must_use]
    pub const fn verifying_key(&self) -> &VerifyingKey {
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
}
