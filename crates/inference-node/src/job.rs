//! One paid request, from the quote to the signed receipt.

use crate::attest::Attested;
use alloy_primitives::{B256, Bytes};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use opg_contracts::addresses;
use opg_primitives::{
    domain::Tag,
    hash::tagged,
    ids::ReceiptId,
    mode::{Grade, Mode},
    money::{Amount, Usage, charge},
};
use opg_receipt::{
    Core, Evidence, FinishReason, ModeRecord, ModelRef, PaymentRecord, PriceRecord, QuoteRef, RequestCommitments,
    Response, SignedQuote, SignedReceipt, StreamRecord, Times, UsageRecord, UsageUnit,
    commit::{self, LeafKind},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What is known about a paid request before its work starts. Kept in the journal, so that a crash cannot leave a payment without a
/// receipt.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    /// COSE bytes of the accepted quote.
    pub(crate) quote: Bytes,
    /// Model as the client named it.
    pub(crate) asked: String,
    /// Digest of the runtime that serves it.
    pub(crate) runtime: B256,
    /// `tokens` or `calls`.
    pub(crate) unit: UsageUnit,
    /// Salt of all commitments; only the client gets it (D11).
    pub(crate) salt: B256,
    /// Commitment to the raw body.
    pub(crate) body: B256,
    /// Canonical JSON of the effective parameters.
    pub(crate) params: String,
    /// HTTP method.
    pub(crate) method: String,
    /// HTTP path.
    pub(crate) path: String,
    /// [`secret_hash`] of the bearer secret.
    pub(crate) secret_hash: B256,
    /// Unix milliseconds.
    pub(crate) received: u64,
    /// Mode asked for.
    pub(crate) mode: Mode,
    /// Evidence of the keyset, for mode tee.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) attested: Option<Attested>,
}

/// What came out of the work.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) finish: FinishReason,
    /// HTTP status of the answer.
    pub(crate) status: u16,
    pub(crate) usage: Usage,
    pub(crate) leaves: Vec<(LeafKind, Vec<u8>)>,
    /// Unix milliseconds.
    pub(crate) first_output: u64,
    /// Unix milliseconds.
    pub(crate) done: u64,
    pub(crate) stream: StreamRecord,
    /// The proof that follows, for an answer of mode zk.
    pub(crate) proof: Option<ProofToCome>,
    /// Where the answer came from, for a closed model.
    pub(crate) upstream: Option<opg_receipt::UpstreamRecord>,
}

/// What a proof after the answer will be about.
#[derive(Debug, Clone)]
pub(crate) struct ProofToCome {
    /// Root of the program that answered.
    pub(crate) program: B256,
    /// Body of the request.
    pub(crate) body: axum::body::Bytes,
    /// Seconds that it may take.
    pub(crate) seconds: u64,
}

impl ProofToCome {
    /// Unix seconds by which it must be there, for an answer at `done` (Unix milliseconds).
    pub(crate) const fn deadline(&self, done: u64) -> u64 {
        (done / 1_000).saturating_add(self.seconds)
    }
}

impl Outcome {
    /// The work failed: nothing was delivered and nothing is charged.
    pub(crate) fn failed(status: u16, now: u64, stream: StreamRecord) -> Self {
        let usage = Usage { input: 0, output: 0 };
        Self {
            finish: FinishReason::Error,
            status,
            usage,
            leaves: Vec::new(),
            first_output: now,
            done: now,
            stream,
            proof: None,
            upstream: None,
        }
    }
}

/// Why a receipt could not be made: a fault of this program, never of a client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum JobError {
    /// Quote or receipt cannot be encoded.
    #[error(transparent)]
    Receipt(#[from] opg_receipt::ReceiptError),
    /// The charge does not fit.
    #[error(transparent)]
    Money(#[from] opg_primitives::money::MoneyError),
    /// A number of the job does not fit the format.
    #[error("{0} does not fit the receipt")]
    Range(&'static str),
}

/// Hash under which a bearer secret is kept.
pub(crate) fn secret_hash(id: ReceiptId, secret: &str) -> B256 {
    tagged(Tag::ReceiptSecret, &[id.as_ref(), secret.as_bytes()])
}

impl Job {
    /// What an outcome costs: the formula for work delivered, nothing for a failure.
    pub(crate) fn charge(&self, quote: &SignedQuote, outcome: &Outcome, signed: Amount) -> Result<Amount, JobError> {
        if outcome.finish == FinishReason::Error {
            return Ok(Amount::ZERO);
        }
        let quote = quote.quote();
        Ok(charge(&quote.ask, outcome.usage, quote.royalty_bps)?.min(signed))
    }

    /// The receipt's core at position (`seq`, `prev`) of the node's chain.
    pub(crate) fn core(
        &self,
        quote: &SignedQuote,
        payment: PaymentRecord,
        outcome: &Outcome,
        (seq, prev): (u64, B256),
    ) -> Result<Core, JobError> {
        let charge = self.charge(quote, outcome, payment.amount)?;
        let leaves: Vec<B256> = (0_u32..)
            .zip(&outcome.leaves)
            .map(|(i, (kind, bytes))| commit::response_leaf(&self.salt, *kind, i, bytes))
            .collect();
        let q = quote.quote();
        let first_output = outcome.first_output.max(self.received);
        let done = outcome.done.max(first_output);
        let mut core = Core {
            chain_id: q.chain_id,
            registry: addresses::NODE_REGISTRY,
            node_id: q.node_id,
            keyset: q.keyset,
            seq,
            prev,
            receipt_id: q.receipt_id,
            quote: QuoteRef {
                digest: quote.digest(),
                nonce: q.nonce,
            },
            request: RequestCommitments {
                body: self.body,
                params: commit::params(&self.salt, &self.params),
            },
            model: ModelRef {
                asked: self.asked.clone(),
                asked_root: q.model_root,
                served_root: q.model_root,
                runtime: self.runtime,
            },
            response: Response {
                commitment: commit::response(&leaves).ok_or(JobError::Range("leaves"))?,
                leaves: u32::try_from(leaves.len()).map_err(|_| JobError::Range("leaves"))?,
                finish: outcome.finish,
                status: outcome.status,
            },
            usage: UsageRecord {
                unit: self.unit,
                input: outcome.usage.input,
                output: outcome.usage.output,
            },
            price: PriceRecord {
                ask: q.ask,
                royalty_bps: q.royalty_bps,
                charge,
                asset: q.asset,
            },
            payment,
            // A clock that was set back between two readings must not make the receipt contradict itself.
            times: Times {
                received: self.received,
                first_output,
                done,
            },
            mode: self.mode_record(q.min_grade, outcome),
            stream: outcome.stream,
            evidence: None,
            router: None,
            upstream: outcome.upstream.clone(),
        };
        if let Some(proof) = &outcome.proof {
            core.evidence = Some(Evidence {
                statement_hash: Some(opg_artefact::statement(&core, &proof.program)),
                proof_deadline: Some(proof.deadline(done)),
                ..Evidence::default()
            });
        }
        if let (Mode::Tee, Some(attested)) = (core.mode.served, &self.attested) {
            core.evidence = Some(Evidence {
                evidence_id: Some(attested.evidence_id),
                policy_epoch: Some(attested.policy_epoch),
                ..Evidence::default()
            });
        }
        Ok(core)
    }

    /// What was asked for and what this outcome gives: a failure gives no evidence, and earns nothing.
    fn mode_record(&self, min_grade: Grade, outcome: &Outcome) -> ModeRecord {
        let delivered = outcome.finish != FinishReason::Error;
        let (served, grade) = match (&outcome.proof, &self.attested) {
            (Some(_), _) => (Mode::Zk, Grade::Hardware),
            (None, Some(attested)) if delivered => (Mode::Tee, attested.grade),
            (None, _) => (Mode::None, Grade::None),
        };
        ModeRecord {
            asked: self.mode,
            min_grade,
            served,
            grade,
        }
    }

    /// The `opg` object: what the client needs to check the receipt and to keep it as a file.
    pub(crate) fn envelope(
        &self,
        receipt: &SignedReceipt,
        leaves: &[(LeafKind, Vec<u8>)],
        secret: Option<&str>,
    ) -> Value {
        let core = receipt.core();
        let leaves: Vec<Value> = leaves
            .iter()
            .map(|(kind, bytes)| json!({"kind": kind.code(), "bytes": STANDARD.encode(bytes)}))
            .collect();
        json!({
            "receipt_id": core.receipt_id,
            "receipt": receipt.cose(),
            "quote": self.quote,
            "salt": self.salt,
            "secret": secret,
            "params": self.params,
            "leaves": leaves,
            "charge": core.price.charge,
            "state": "executed",
            "mode": core.mode.served.as_str(),
            "grade": core.mode.grade.as_str(),
        })
    }
}
