//! Why a program cannot be proven, and why a proof is refused.

use opg_integer_program::range::Range;

/// A check of the verifier. Every one passes through [`crate::Checks`], so that tests can remove exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Check {
    /// The statement's numbers lie in the declared ranges of inputs and outputs.
    PublicRange,
    /// The model root names this graph, weight commitment and parameter set.
    ModelRoot,
    /// The transcript starts with the statement: model root, inputs, outputs, receipt, nonce, prover.
    Transcript,
    /// A value that the prover states about an input is the input's.
    Input,
    /// The last claim of a matrix product, convolution, division or elementwise product.
    Product,
    /// The values that the prover states about the operands of a sum or concatenation.
    Sum,
    /// The last claim of the constraints `e * d = 0`.
    Pair,
    /// The last claim of a merge of several claims on one tensor.
    Merge,
    /// The lookup argument: its fractions add up to zero and are those of the committed columns.
    Lookup,
    /// The last claim of the reduction to one point of the witness commitment.
    WitnessBatch,
    /// The last claim of the reduction to one point of the weight commitment.
    WeightBatch,
    /// The opening of the witness commitment.
    WitnessOpening,
    /// The opening of the weight commitment.
    WeightOpening,
    /// The weights that an open-model verifier holds give the claimed values.
    OpenWeights,
    /// The proof ends where its last message ends.
    Trailing,
    /// Hiding: the commitment to the weights is on the model's list.
    Slot,
    /// Hiding: the columns read of the inputs are those of the statement's commitment.
    InputOpening,
    /// Hiding: the combined rows have the claimed value.
    Evaluation,
    /// Hiding: the combined rows are those of the committed columns.
    Columns,
    /// Hiding: what must be zero is zero on the wires.
    Wires,
    /// Hiding: the wires are those of the committed columns.
    WireColumns,
    /// Hiding: what is sent of the factors of products is what they differ from wires by.
    Differences,
    /// Hiding: the products of wires are their products.
    Triples,
    /// Hiding: the proof of work before the queries.
    Grinding,
}

impl Check {
    /// All checks.
    pub const ALL: [Self; 24] = [
        Self::PublicRange,
        Self::ModelRoot,
        Self::Transcript,
        Self::Input,
        Self::Product,
        Self::Sum,
        Self::Pair,
        Self::Merge,
        Self::Lookup,
        Self::WitnessBatch,
        Self::WeightBatch,
        Self::WitnessOpening,
        Self::WeightOpening,
        Self::OpenWeights,
        Self::Trailing,
        Self::Slot,
        Self::InputOpening,
        Self::Evaluation,
        Self::Columns,
        Self::Wires,
        Self::WireColumns,
        Self::Differences,
        Self::Triples,
        Self::Grinding,
    ];
}

/// A graph that the protocol cannot prove.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The graph breaks the rules of integer programs.
    #[error("node {node} ({op}): {reason}; compile the model again and use the graph as it comes out")]
    Graph {
        /// Name of the node.
        node: String,
        /// Its operation.
        op: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// A relation of integers could hold modulo `p` only.
    #[error(
        "node {node} ({op}): values up to {magnitude} could wrap modulo 2130706433; \
         use a profile with fewer bits, or a smaller layer"
    )]
    Wrap {
        /// Name of the node.
        node: String,
        /// Its operation.
        op: &'static str,
        /// Greatest absolute value that the relation's difference could have.
        magnitude: i128,
    },
    /// More is needed than a proof can hold.
    #[error("the {what} of one proof: {got}, at most {limit}; prove fewer requests at a time, or a smaller model")]
    Size {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        got: usize,
        /// How much there may be.
        limit: usize,
    },
    /// No requests, or too many of them.
    #[error("a proof covers 1 to {limit} requests, not {got}")]
    Batch {
        /// Number of requests.
        got: usize,
        /// Most requests.
        limit: usize,
    },
    /// The commitment scheme has no parameters for this size.
    #[error("no parameters of the commitment for 2^{variables} elements: {reason}")]
    Commitment {
        /// Binary logarithm of the number of elements.
        variables: usize,
        /// What the scheme says.
        reason: String,
    },
}

/// A request that the prover cannot prove.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ProveError {
    /// The program itself.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The program has no result for these inputs.
    #[error("request {request}: {reason}")]
    Run {
        /// Position of the request.
        request: usize,
        /// What the interpreter says.
        reason: String,
    },
    /// The statement's outputs are not those of the program.
    #[error("request {request}: output {output} is not what the program computes; state the program's own outputs")]
    Output {
        /// Position of the request.
        request: usize,
        /// Position of the output.
        output: usize,
    },
    /// The weights do not belong to the registered model.
    #[error("the program is not the one that was registered: model root {got} instead of {expected}")]
    Model {
        /// Root of the registration, in hexadecimal.
        expected: String,
        /// Root of the program, in hexadecimal.
        got: String,
    },
    /// The witness breaks a relation: a defect of the prover, since the program has a result.
    #[error("the witness breaks a relation of the protocol: {0}; please report the model")]
    Witness(#[from] VerifyError),
    /// Every commitment to the weights has been opened once.
    #[error("all {limit} slots of the model are used up; register the model again, with other slots")]
    Slots {
        /// Number of slots.
        limit: u32,
    },
    /// The caller asked to stop.
    #[error("proving was cancelled")]
    Cancelled,
}

/// Why a proof is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum VerifyError {
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
    /// The model itself.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The statement has another number of something than the model.
    #[error("the statement has {got} {what} where the model has {expected}")]
    Shape {
        /// What is counted.
        what: &'static str,
        /// What the model has.
        expected: usize,
        /// What the statement has.
        got: usize,
    },
    /// A number of the statement lies outside its range.
    #[error("{what} {index} of the statement: element {element} is {value}, outside {}..={}", range.lo, range.hi)]
    Value {
        /// Input or output.
        what: &'static str,
        /// Its position.
        index: usize,
        /// Position of the element.
        element: usize,
        /// Its value.
        value: i64,
        /// Where it must lie.
        range: Range,
    },
    /// The proof is larger than any proof of this model.
    #[error("the proof has {got} bytes; proofs have at most {limit}")]
    Size {
        /// Bytes.
        got: usize,
        /// Most bytes.
        limit: usize,
    },
    /// The proof does not start like one, or is for another version, profile or parameter set.
    #[error("the proof's header names another {0} than the verifier expects")]
    Header(&'static str),
    /// The proof ends too early.
    #[error("the proof ends inside {0}")]
    Truncated(&'static str),
    /// A number that is not reduced modulo `p`.
    #[error("{what} holds {value}, not below 2130706433")]
    NonCanonical {
        /// Where it stands.
        what: &'static str,
        /// The number.
        value: u32,
    },
    /// A length inside the proof is impossible.
    #[error("{what} has length {got}, at most {limit}")]
    Length {
        /// What is counted.
        what: &'static str,
        /// The length.
        got: usize,
        /// The greatest possible one.
        limit: usize,
    },
    /// A check failed.
    #[error("the proof is wrong: check {check:?} of {place} failed")]
    Check {
        /// Which.
        check: Check,
        /// Node or argument.
        place: String,
    },
    /// A commitment's opening is wrong.
    #[error("the opening of the {what} commitment is wrong: {reason}")]
    Opening {
        /// Witness or weights.
        what: &'static str,
        /// What the scheme says.
        reason: String,
    },
    /// The verifier lacks what the profile needs.
    #[error("an open-model proof is checked with the weights: give the program, not the graph alone")]
    WeightsMissing,
}
