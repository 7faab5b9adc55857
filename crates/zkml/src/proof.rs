//! Bytes of a proof. One byte string for one proof: every element is reduced, every length but one kind follows from
//! the model, and nothing is left over.
//!
//! The exception are the sibling digests of a pruned Merkle opening, whose number depends on the queried positions: it
//! is written down, bounded before any allocation, and the scheme refuses one digest too few or too many.

use std::cell::Cell;

use p3_field::{BasedVectorSpace, PrimeCharacteristicRing, PrimeField32, integers::QuotientMap};
use p3_merkle_tree::PrunedMerklePaths;
use p3_multi_stark::fractional_gkr::{FractionGkrLayerProof, FractionGkrProof, SplitFraction};
use p3_multilinear_util::poly::Poly;
use p3_sumcheck::{OpeningBatch, SumcheckData};
use p3_whir::pcs::proof::{PcsProof, QueryOpenings, SharedProofOpening, WhirProof, WhirRoundProof};

use crate::{
    channel::coefficients,
    commit::{Digest, LOG_INVERSE_RATE, Opening, Scheme},
    error::VerifyError,
    field::{EF, F},
};

/// Most bytes of a proof.
pub const MAX_PROOF_BYTES: usize = 8 << 20;
/// First bytes of every proof.
pub(crate) const MAGIC: [u8; 8] = *b"opgzkml1";

/// An element, if the number is below `p`.
pub(crate) fn canonical(value: u32) -> Option<F> {
    <F as QuotientMap<u32>>::from_canonical_checked(value)
}

/// Collects the bytes of a proof.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn base(&mut self, value: F) {
        self.bytes.extend(value.as_canonical_u32().to_le_bytes());
    }

    pub(crate) fn ext(&mut self, value: EF) {
        for coefficient in coefficients(&value) {
            self.base(*coefficient);
        }
    }

    pub(crate) fn digest(&mut self, digest: &Digest) {
        self.bytes.extend(digest);
    }

    pub(crate) fn fractions(&mut self, proof: &FractionGkrProof<EF>) {
        self.ext(proof.root_denominator);
        for layer in &proof.layers {
            for value in layer.round_polys.iter().flatten() {
                self.ext(*value);
            }
            for value in [layer.claims.n0, layer.claims.d0, layer.claims.n1, layer.claims.d1] {
                self.ext(value);
            }
        }
    }

    fn sumcheck(&mut self, data: &SumcheckData<F, EF>) {
        for value in data.polynomial_evaluations.iter().flatten() {
            self.ext(*value);
        }
        data.pow_witnesses.iter().for_each(|value| self.base(*value));
    }

    fn queries(&mut self, openings: &QueryOpenings<F, EF, PrunedMerklePaths<u8, 32>>) {
        let siblings = match openings {
            QueryOpenings::Base(opening) => {
                opening.rows.iter().flatten().for_each(|value| self.base(*value));
                &opening.proof.sibling_hashes
            }
            QueryOpenings::Extension(opening) => {
                opening.rows.iter().flatten().for_each(|value| self.ext(*value));
                &opening.proof.sibling_hashes
            }
        };
        self.bytes
            .extend(u32::try_from(siblings.len()).unwrap_or(u32::MAX).to_le_bytes());
        siblings.iter().for_each(|digest| self.digest(digest));
    }

    /// An opening; its value is not written, both ends know it.
    pub(crate) fn opening(&mut self, opening: &Opening) {
        let whir = &opening.whir;
        whir.initial_ood_answers.iter().for_each(|value| self.ext(*value));
        self.sumcheck(&whir.initial_sumcheck);
        for round in &whir.rounds {
            if let Some([digest]) = round.commitment.as_ref().map(p3_symmetric::MerkleCap::roots) {
                self.digest(digest);
            }
            round.ood_answers.iter().for_each(|value| self.ext(*value));
            self.base(round.pow_witness);
            self.queries(&round.openings);
            self.sumcheck(&round.sumcheck);
        }
        if let Some(poly) = &whir.final_poly {
            poly.as_slice().iter().for_each(|value| self.ext(*value));
        }
        self.base(whir.final_pow_witness);
        self.queries(&whir.final_openings);
        if let Some(data) = &whir.final_sumcheck {
            self.sumcheck(data);
        }
    }
}

/// A round that would query more positions than there are opens each of them once.
fn distinct(queries: usize, log_positions: usize) -> usize {
    1usize
        .checked_shl(u32::try_from(log_positions).unwrap_or(u32::MAX))
        .map_or(queries, |all| queries.min(all))
}

/// Reads a proof from bytes that anybody may have sent.
#[derive(Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    /// Kept equal to what is left, for a caller that measures parts of a proof.
    left: Option<&'a Cell<usize>>,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            left: None,
        }
    }

    /// Tells how many bytes are left while it reads.
    pub(crate) const fn counted(bytes: &'a [u8], left: &'a Cell<usize>) -> Self {
        Self {
            rest: bytes,
            left: Some(left),
        }
    }

    fn advance(&mut self, rest: &'a [u8]) {
        self.rest = rest;
        if let Some(left) = self.left {
            left.set(rest.len());
        }
    }

    pub(crate) const fn left(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], VerifyError> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or(VerifyError::Truncated(what))?;
        self.advance(tail);
        Ok(head)
    }

    pub(crate) fn word(&mut self, what: &'static str) -> Result<u32, VerifyError> {
        let (head, tail) = self.rest.split_first_chunk::<4>().ok_or(VerifyError::Truncated(what))?;
        self.advance(tail);
        Ok(u32::from_le_bytes(*head))
    }

    pub(crate) fn base(&mut self, what: &'static str) -> Result<F, VerifyError> {
        let value = self.word(what)?;
        canonical(value).ok_or(VerifyError::NonCanonical { what, value })
    }

    pub(crate) fn ext(&mut self, what: &'static str) -> Result<EF, VerifyError> {
        let mut values = [F::ZERO; 5];
        for value in &mut values {
            *value = self.base(what)?;
        }
        EF::from_basis_coefficients_slice(&values).ok_or(VerifyError::Truncated(what))
    }

    fn exts(&mut self, count: usize, what: &'static str) -> Result<Vec<EF>, VerifyError> {
        // Bounded by what is there before anything is allocated.
        if self.rest.len() / 20 < count {
            return Err(VerifyError::Truncated(what));
        }
        (0..count).map(|_| self.ext(what)).collect()
    }

    pub(crate) fn digest(&mut self, what: &'static str) -> Result<Digest, VerifyError> {
        let (head, tail) = self
            .rest
            .split_first_chunk::<32>()
            .ok_or(VerifyError::Truncated(what))?;
        self.advance(tail);
        Ok(*head)
    }

    pub(crate) fn fractions(&mut self, variables: usize) -> Result<FractionGkrProof<EF>, VerifyError> {
        const WHAT: &str = "the lookup argument";
        let root_denominator = self.ext(WHAT)?;
        let mut layers = Vec::new();
        for layer in 0..variables {
            let mut round_polys = Vec::new();
            for _ in 0..layer {
                round_polys.push([self.ext(WHAT)?, self.ext(WHAT)?, self.ext(WHAT)?]);
            }
            let [n0, d0, n1, d1] = [self.ext(WHAT)?, self.ext(WHAT)?, self.ext(WHAT)?, self.ext(WHAT)?];
            layers.push(FractionGkrLayerProof {
                round_polys,
                claims: SplitFraction { n0, d0, n1, d1 },
            });
        }
        Ok(FractionGkrProof {
            root_denominator,
            layers,
        })
    }

    fn sumcheck(&mut self, rounds: usize, grinding: usize) -> Result<SumcheckData<F, EF>, VerifyError> {
        const WHAT: &str = "a folding sumcheck";
        let mut polynomial_evaluations = Vec::new();
        for _ in 0..rounds {
            polynomial_evaluations.push([self.ext(WHAT)?, self.ext(WHAT)?]);
        }
        let witnesses = if grinding > 0 { rounds } else { 0 };
        let pow_witnesses = (0..witnesses).map(|_| self.base(WHAT)).collect::<Result<_, _>>()?;
        Ok(SumcheckData {
            polynomial_evaluations,
            pow_witnesses,
        })
    }

    fn queries(
        &mut self,
        base: bool,
        count: usize,
        width: usize,
        depth: usize,
    ) -> Result<QueryOpenings<F, EF, PrunedMerklePaths<u8, 32>>, VerifyError> {
        const WHAT: &str = "the queries of an opening";
        let each = if base { 4 } else { 20 };
        let need = count.checked_mul(width).and_then(|cells| cells.checked_mul(each));
        if need.is_none_or(|need| need > self.rest.len()) {
            return Err(VerifyError::Truncated(WHAT));
        }
        let mut base_rows = Vec::new();
        let mut ext_rows = Vec::new();
        for _ in 0..count {
            if base {
                base_rows.push((0..width).map(|_| self.base(WHAT)).collect::<Result<Vec<F>, _>>()?);
            } else {
                ext_rows.push(self.exts(width, WHAT)?);
            }
        }
        let siblings = self.word(WHAT)? as usize;
        let limit = count.saturating_mul(depth);
        if siblings > limit {
            return Err(VerifyError::Length {
                what: "the list of sibling digests",
                got: siblings,
                limit,
            });
        }
        if siblings > self.rest.len() / 32 {
            return Err(VerifyError::Truncated(WHAT));
        }
        let sibling_hashes = (0..siblings)
            .map(|_| self.digest(WHAT))
            .collect::<Result<Vec<_>, _>>()?;
        let proof = PrunedMerklePaths { sibling_hashes };
        Ok(if base {
            QueryOpenings::Base(SharedProofOpening { rows: base_rows, proof })
        } else {
            QueryOpenings::Extension(SharedProofOpening { rows: ext_rows, proof })
        })
    }

    /// An opening of the value that the caller expects.
    pub(crate) fn opening(&mut self, scheme: &Scheme, value: EF) -> Result<Opening, VerifyError> {
        const WHAT: &str = "an opening";
        let config = scheme.config();
        let schedule = config.folding_schedule();
        let fold = |round: usize| schedule.get(round).copied().unwrap_or(0);
        let initial_ood_answers = self.exts(config.commitment_ood_samples(), WHAT)?;
        let initial_sumcheck = self.sumcheck(fold(0), config.starting_folding_pow_bits())?;
        let mut rounds = Vec::new();
        let mut folded = 0;
        let mut rate = LOG_INVERSE_RATE;
        for (index, round) in config.round_parameters().iter().enumerate() {
            let depth = config.num_variables() - folded + rate;
            let commitment = Some(p3_symmetric::MerkleCap::new(vec![self.digest(WHAT)?]));
            let ood_answers = self.exts(round.ood_samples, WHAT)?;
            let pow_witness = self.base(WHAT)?;
            let queries = distinct(round.num_queries, round.log_folded_domain_size);
            let openings = self.queries(index == 0, queries, 1 << fold(index), depth)?;
            let sumcheck = self.sumcheck(fold(index + 1), round.folding_pow_bits)?;
            rounds.push(WhirRoundProof {
                commitment,
                ood_answers,
                pow_witness,
                openings,
                sumcheck,
            });
            folded += fold(index);
            rate = rate.max(round.log_inv_rate);
        }
        let total: usize = schedule.iter().sum();
        let last = config.num_variables().saturating_sub(total);
        let final_poly = Some(Poly::new(self.exts(1 << last.min(20), WHAT)?));
        let final_pow_witness = self.base(WHAT)?;
        let terminal = config.terminal();
        let index = config.round_parameters().len();
        let depth = config.num_variables() + rate;
        let queries = distinct(terminal.num_queries, config.final_round_config().log_folded_domain_size);
        let final_openings = self.queries(index == 0, queries, 1 << fold(index), depth)?;
        let closing = config.final_sumcheck_rounds();
        let final_sumcheck = if closing > 0 {
            Some(self.sumcheck(closing, config.final_folding_pow_bits())?)
        } else {
            None
        };
        Ok(PcsProof {
            whir: WhirProof {
                initial_ood_answers,
                initial_sumcheck,
                rounds,
                final_poly,
                final_pow_witness,
                final_openings,
                final_sumcheck,
            },
            evals: vec![OpeningBatch::new(vec![value], Vec::new())],
        })
    }
}
