//! Commitments to stacked polynomials: a thin layer over WHIR that opens one polynomial at one point.

use p3_blake3::Blake3;
use p3_challenger::{HashChallenger, SerializingChallenger32};
use p3_commit::MultilinearPcs;
use p3_dft::Radix2DFTSmallBatch;
use p3_matrix::dense::RowMajorMatrix;
use p3_merkle_tree::MerkleTreeMmcs;
use p3_multilinear_util::point::Point;
use p3_sumcheck::{
    OpeningBatch, OpeningProtocol, PrescribedPointPcs, TableShape, TableSpec,
    layout::{Layout as _, SuffixProver, Table},
};
use p3_symmetric::{CompressionFunctionFromHasher, SerializingHasher};
use p3_whir::{
    parameters::{FoldingFactor, ProtocolParameters, SecurityAssumption, WhirConfig},
    pcs::{proof::PcsProof, prover::WhirProver},
};

use crate::{
    error::{PlanError, VerifyError},
    field::{EF, F},
};

type LeafHash = SerializingHasher<Blake3>;
type NodeHash = CompressionFunctionFromHasher<Blake3, 2, 32>;
pub(crate) type Mmcs = MerkleTreeMmcs<F, u8, LeafHash, NodeHash, 2, 32>;
/// The sponge that both ends share.
pub(crate) type Challenger = SerializingChallenger32<F, HashChallenger<u8, Blake3, 32>>;
type Whir = WhirProver<EF, F, Radix2DFTSmallBatch<F>, Mmcs, Challenger, SuffixProver<F, EF>>;
pub(crate) type Opening = PcsProof<F, EF, Mmcs>;
type Root = <Mmcs as p3_commit::Mmcs<F>>::Commitment;
type Data = <Whir as MultilinearPcs<EF, Challenger>>::ProverData;

/// BLAKE3: the root of a Merkle tree.
pub type Digest = [u8; 32];

/// Which security level a proof has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParameterSet {
    /// At least 100 bits, Johnson bound, at most 20 of them by grinding.
    Bits100,
    /// At least 128 bits, Johnson bound: 134 for each error term, at most 20 of them by grinding. BLAKE3's 256-bit
    /// digests resist collisions with 128 bits, no more.
    Bits128,
}

impl ParameterSet {
    /// Number in the encoding of proofs and roots.
    #[must_use]
    pub const fn id(self) -> u8 {
        match self {
            Self::Bits100 => 1,
            Self::Bits128 => 2,
        }
    }

    /// The set of a number.
    #[must_use]
    pub const fn from_id(id: u64) -> Option<Self> {
        match id {
            1 => Some(Self::Bits100),
            2 => Some(Self::Bits128),
            _ => None,
        }
    }

    /// Target of every error term of the commitment.
    #[must_use]
    pub const fn term_bits(self) -> usize {
        match self {
            Self::Bits100 => 106,
            Self::Bits128 => 134,
        }
    }

    /// Bits of the target that grinding provides.
    #[must_use]
    pub const fn grinding_bits(self) -> usize {
        match self {
            Self::Bits100 => 14,
            Self::Bits128 => 20,
        }
    }

    /// Everything that fixes the protocol, for hashing.
    #[must_use]
    pub fn describe(self) -> String {
        format!(
            "koalabear^5 blake3 whir johnson rate 1/4 step 3 fold 5|6,4 terms {} grinding {} version 1",
            self.term_bits(),
            self.grinding_bits()
        )
    }
}

/// Binary logarithm of the inverse rate of committed codewords.
pub(crate) const LOG_INVERSE_RATE: usize = 2;
/// Variables that one round of WHIR folds, after the first.
const FOLD: usize = 4;
/// By how much a round divides the rate (binary logarithm): higher means fewer queries and longer codewords.
const RATE_STEP: usize = 3;

/// Variables that the first round folds: large polynomials are cut down more before they are encoded again.
pub(crate) const fn first_fold(variables: usize) -> usize {
    if variables > 16 { 6 } else { 5 }
}

/// Commits to, opens and verifies polynomials of one size.
pub(crate) struct Scheme {
    whir: Whir,
    variables: usize,
}

/// What the prover keeps of a commitment.
pub(crate) struct Committed {
    data: Data,
    pub(crate) root: Digest,
}

impl std::fmt::Debug for Committed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Committed")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

/// An empty transcript.
pub(crate) fn challenger() -> Challenger {
    Challenger::from_hasher(
        opg_primitives::domain::Tag::ZkProof.as_str().as_bytes().to_vec(),
        Blake3,
    )
}

pub(crate) fn whir_parameters(set: ParameterSet, variables: usize) -> ProtocolParameters {
    let folding_factor = FoldingFactor::ConstantFromSecondRound(first_fold(variables), FOLD);
    let rounds = folding_factor
        .compute_number_of_rounds(variables)
        .map_or(0, |(rounds, _)| rounds);
    let round_log_inv_rates = (1..=rounds).map(|round| LOG_INVERSE_RATE + round * RATE_STEP).collect();
    ProtocolParameters {
        starting_log_inv_rate: LOG_INVERSE_RATE,
        round_log_inv_rates,
        folding_factor,
        soundness_type: SecurityAssumption::JohnsonBound,
        security_level: set.term_bits(),
        pow_bits: set.grinding_bits(),
    }
}

impl Scheme {
    pub(crate) fn new(set: ParameterSet, variables: usize) -> Result<Self, PlanError> {
        let config =
            WhirConfig::new(variables, whir_parameters(set, variables)).map_err(|error| PlanError::Commitment {
                variables,
                reason: error.to_string(),
            })?;
        let mmcs = Mmcs::new(LeafHash::new(Blake3), NodeHash::new(Blake3), 0);
        Ok(Self {
            whir: Whir::new(config, Radix2DFTSmallBatch::default(), mmcs),
            variables,
        })
    }

    pub(crate) fn config(&self) -> &WhirConfig<EF, F, Challenger> {
        &self.whir
    }

    pub(crate) fn protocol(&self) -> OpeningProtocol {
        OpeningProtocol::new(vec![TableSpec::new(
            TableShape::new(self.variables, 1),
            vec![OpeningBatch::new(vec![0], Vec::new())],
        )])
    }

    pub(crate) fn security(&self) -> Option<p3_sumcheck::PrescribedOpeningSecurity> {
        self.whir.prescribed_security(&self.protocol())
    }

    /// Commits to `2^variables` values. Nothing enters a transcript.
    pub(crate) fn commit(&self, values: Vec<F>) -> Result<Committed, PlanError> {
        let failed = |reason: String| PlanError::Commitment {
            variables: self.variables,
            reason,
        };
        let table = Table::new(RowMajorMatrix::new(values, 1 << self.variables));
        let witness = SuffixProver::<F, EF>::new_witness(vec![table], first_fold(self.variables));
        // The scheme binds its root to a transcript; ours is bound where the protocol says, see `observe`.
        let mut unused = challenger();
        let (root, data) = MultilinearPcs::<EF, Challenger>::commit(&self.whir, witness, &mut unused)
            .map_err(|error| failed(error.to_string()))?;
        match root.roots() {
            [digest] => Ok(Committed { data, root: *digest }),
            _ => Err(failed("the commitment has several roots".to_owned())),
        }
    }

    /// Absorbs a root.
    pub(crate) fn observe(&self, digest: &Digest, challenger: &mut Challenger) {
        let root = Root::new(vec![*digest]);
        MultilinearPcs::<EF, Challenger>::observe_commitment(&self.whir, &root, challenger);
    }

    /// Proves the value at a point.
    pub(crate) fn open(
        &self,
        committed: &Committed,
        point: &[EF],
        challenger: &mut Challenger,
    ) -> Result<Opening, PlanError> {
        let points = [Point::new(point.to_vec())];
        self.whir
            .open_at(committed.data.clone(), &self.protocol(), &points, challenger)
            .map_err(|error| PlanError::Commitment {
                variables: self.variables,
                reason: error.to_string(),
            })
    }

    /// Verifies the value at a point; the value is in the opening.
    pub(crate) fn verify(
        &self,
        what: &'static str,
        digest: &Digest,
        point: &[EF],
        opening: &Opening,
        challenger: &mut Challenger,
    ) -> Result<(), VerifyError> {
        let points = [Point::new(point.to_vec())];
        let root = Root::new(vec![*digest]);
        self.whir
            .verify_at(&root, opening, &self.protocol(), &points, challenger)
            .map(|_| ())
            .map_err(|error| VerifyError::Opening {
                what,
                reason: error.to_string(),
            })
    }
}
