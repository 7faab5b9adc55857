//! How sound a proof of a given model is: the error of every step, and their sum.
//!
//! Nothing here is assumed that the protocol does not do: the steps are found by walking it with a channel that counts
//! challenges instead of sending messages. The terms of the commitments come from the commitment scheme's own report
//! (Johnson bound; the capacity conjecture is not used anywhere).

use opg_integer_program::program::Graph;
use p3_field::{Field, PrimeCharacteristicRing};

use crate::{
    channel::{Channel, Fractions, Reduced},
    checks::Checks,
    commit::Scheme,
    error::{Check, PlanError, VerifyError},
    field::{EF, F},
    hiding::Wires,
    model::{Profile, VerifyingKey},
    plan::Plan,
    protocol::Protocol,
    sumcheck::Table,
    witness::Witness,
};

/// Bits of resistance of BLAKE3's 256-bit digests against collisions.
pub const HASH_BITS: f64 = 128.0;

/// One way for a wrong proof to slip through, and how improbable it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Term {
    /// The step.
    pub name: &'static str,
    /// Minus the binary logarithm of the error's probability.
    pub bits: f64,
}

/// The soundness of proofs of one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Security {
    /// The error of every step.
    pub terms: Vec<Term>,
    /// All terms together (union bound): proven bits, with [`Self::grinding_bits`] of them by proof of work.
    pub total_bits: f64,
    /// Bits that a cheater has to pay in hashes instead of luck, contained in the terms of the commitments.
    pub grinding_bits: usize,
    /// Resistance of the hash function against collisions, a bound of its own.
    pub hash_bits: f64,
}

impl Security {
    /// The smaller of the algebraic bound and that of the hash.
    #[must_use]
    pub fn bits(&self) -> f64 {
        self.total_bits.min(self.hash_bits)
    }
}

/// The soundness of a proof of `batch` requests.
///
/// # Errors
/// [`PlanError`]: such a proof cannot be made.
pub fn security(key: &VerifyingKey, batch: usize, profile: Profile) -> Result<Security, PlanError> {
    let plan = Plan::new(&key.graph, batch)?;
    let count = walk(&key.graph, &plan, Checks::default())?;
    let weights = count.claims[1];
    let field = EF::order_bits();
    let mut terms = count.terms(key.graph.nodes.len());
    let witness = Scheme::new(key.parameters, plan.layout.variables)?;
    let mut reductions = plan.layout.variables as f64 * 2.0;
    let mut schemes = vec![("witness opening", witness)];
    if profile == Profile::Committed && weights > 0 {
        reductions += plan.weights.variables as f64 * 2.0;
        schemes.push(("weight opening", Scheme::new(key.parameters, plan.weights.variables)?));
    }
    terms.push(Term {
        name: "reductions to one point",
        bits: field - reductions.log2(),
    });
    // Within the Johnson radius a commitment stands for a list of polynomials: the challenges above must be
    // lucky for any of them.
    let mut candidates = 0.0;
    let mut openings = Vec::new();
    let mut grinding_bits = 0;
    for (name, scheme) in &schemes {
        let variables = scheme.config().num_variables();
        let unknown = || PlanError::Commitment {
            variables,
            reason: "the scheme gives no bound".to_owned(),
        };
        let report = scheme.security().ok_or_else(unknown)?;
        candidates += report.log2_max_candidates;
        openings.push(Term {
            name,
            bits: report.error().bits(),
        });
        grinding_bits = grinding_bits.max(scheme.config().max_pow_bits());
    }
    terms.iter_mut().for_each(|term| term.bits -= candidates);
    terms.extend(openings);
    let total: f64 = terms.iter().map(|term| (-term.bits).exp2()).sum();
    Ok(Security {
        terms,
        total_bits: -total.log2(),
        grinding_bits,
        hash_bits: HASH_BITS,
    })
}

/// Walks the protocol of a plan and counts.
pub(crate) fn walk(graph: &Graph, plan: &Plan, checks: Checks) -> Result<Count, PlanError> {
    let mut protocol = Protocol {
        graph,
        plan,
        inputs: &[],
        channel: Count {
            checks,
            ..Count::default()
        },
        open: vec![Vec::new(); graph.nodes.len()],
        witness: Vec::new(),
        weights: Vec::new(),
        secrets: Vec::new(),
        progress: &mut |_| {},
        cancel: &crate::protocol::NEVER,
    };
    let outputs = vec![Vec::new(); graph.outputs.len()];
    match protocol.run(&outputs) {
        Ok(()) => {}
        Err(VerifyError::Plan(error)) => return Err(error),
        // The counting channel checks nothing and reads nothing.
        Err(_) => {}
    }
    let claims = [&protocol.witness, &protocol.weights, &protocol.secrets].map(Vec::len);
    Ok(Count {
        claims,
        ..protocol.channel
    })
}

pub(crate) trait OrderBits {
    fn order_bits() -> f64;
}

impl OrderBits for EF {
    /// `log2(p^5)`.
    fn order_bits() -> f64 {
        f64::from(crate::field::P).log2() * 5.0
    }
}

/// Counts challenges.
#[derive(Debug, Default)]
pub(crate) struct Count {
    points: f64,
    rounds: f64,
    challenges: f64,
    fractions: f64,
    layers: f64,
    /// Messages of a run whose values are hidden, and products of hidden values.
    pub(crate) messages: usize,
    pub(crate) products: usize,
    checks: Checks,
    /// Claims on witness, weights and secret inputs.
    pub(crate) claims: [usize; 3],
}

impl Count {
    /// Errors of the steps before the openings, of a protocol with so many nodes.
    pub(crate) fn terms(&self, nodes: usize) -> Vec<Term> {
        let field = EF::order_bits();
        // A lone challenge combines at most all claims that there are.
        let combined = (self.claims.iter().sum::<usize>() + nodes) as f64;
        let mut terms = vec![
            Term {
                name: "evaluation points",
                bits: field - self.points.max(1.0).log2(),
            },
            Term {
                name: "sumchecks",
                bits: field - self.rounds.max(1.0).log2(),
            },
            Term {
                name: "combinations of claims",
                bits: field - ((self.challenges + 2.0) * combined).max(1.0).log2(),
            },
        ];
        if self.fractions > 0.0 {
            terms.push(Term {
                name: "lookup fingerprints",
                bits: field - self.fractions.log2(),
            });
            terms.push(Term {
                name: "lookup sumchecks",
                bits: field - self.layers.max(1.0).log2(),
            });
        }
        terms
    }

    /// Wires of a hiding proof whose last reduction has so many variables: also those of its messages.
    pub(crate) const fn wires(&self, variables: usize) -> Wires {
        Wires {
            messages: self.messages + 2 * variables + 2,
            products: self.products,
        }
    }
}

impl Channel for Count {
    type Value = EF;

    fn values(&mut self, count: usize, _: impl FnOnce(&Witness<'_>) -> Vec<EF>) -> Result<Vec<EF>, VerifyError> {
        self.messages += count;
        Ok(vec![EF::ZERO; count])
    }

    fn challenge(&mut self) -> EF {
        self.challenges += 1.0;
        EF::GENERATOR
    }

    fn challenges(&mut self, count: usize) -> Vec<EF> {
        self.points += count as f64;
        vec![EF::GENERATOR; count]
    }

    fn sumcheck(
        &mut self,
        _: EF,
        variables: usize,
        degree: usize,
        _: impl FnOnce(&Witness<'_>) -> Vec<Table>,
    ) -> Result<Reduced<EF>, VerifyError> {
        self.rounds += (variables * degree) as f64;
        self.messages += variables * degree;
        Ok(Reduced {
            point: vec![EF::GENERATOR; variables],
            expected: EF::ZERO,
            finals: Vec::new(),
        })
    }

    fn fractions(
        &mut self,
        variables: usize,
        _: impl FnOnce(&Witness<'_>) -> (Vec<F>, Vec<EF>),
    ) -> Result<Fractions<EF>, VerifyError> {
        // The difference of both sides, cleared of denominators: a polynomial of that degree in the two challenges.
        self.fractions += (2 * (1usize << variables)) as f64;
        // Each layer: its sumcheck (degree 3), the combination of numerator and denominator, the joining variable.
        self.layers += (0..variables).map(|layer| (3 * layer + 2) as f64).sum::<f64>();
        // The root's denominator and its inverse; three values a round and four children a layer.
        self.messages += 2 + (0..variables).map(|layer| 3 * layer + 4).sum::<usize>();
        self.products += 1 + 2 * variables;
        Ok(Fractions {
            point: vec![EF::GENERATOR; variables],
            numerator: EF::ZERO,
            denominator: EF::ZERO,
        })
    }

    fn makes(&self, check: Check) -> bool {
        self.checks.is_made(check)
    }

    fn zero(&mut self, _: Check, _: EF, _: &str) -> Result<(), VerifyError> {
        Ok(())
    }

    fn product(&mut self, _: Check, _: EF, _: &EF, _: &EF, _: &EF, _: &str) -> Result<(), VerifyError> {
        self.products += 1;
        Ok(())
    }
}
