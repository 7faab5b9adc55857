//! Proofs of inference for receipts of mode zk.

use crate::error::ArtefactError;
use alloy_primitives::B256;
use opg_integer_program::{
    interpret,
    json::Entries,
    program::Graph,
    request,
    response::{self, ResponseError},
};
use opg_primitives::cbor::{Encoder, Limits, Value, decode_strict};
use opg_receipt::{
    Core, FinishReason,
    commit::{self, LeafKind},
};
use opg_zkml::{
    Context, ParameterSet, Profile, RegisteredModel, Request, Stage, Statement, VerifyingKey, prove_unless, verify,
};
use std::sync::atomic::AtomicBool;

/// Largest artefact that full nodes take.
pub const MAX_ARTEFACT_BYTES: usize = 1 << 20;
const MAGIC: &str = "opg/zk-artefact";
const VERSION: u64 = 1;
const FIELDS: usize = 9;

/// A proof of the answer of one receipt, with everything that opens the receipt's commitments.
#[derive(Debug, Clone, PartialEq)]
pub struct ZkArtefact {
    /// Graph, weight commitment and parameter set of the program.
    key: VerifyingKey,
    salt: B256,
    body: Vec<u8>,
    answer: Vec<u8>,
    proof: Vec<u8>,
}

/// Integers of the inputs in the body of a request, `{"inputs": {...}, ...}`.
///
/// # Errors
/// [`ArtefactError::Body`] and [`ArtefactError::Inputs`].
pub fn inputs(graph: &Graph, body: &[u8]) -> Result<Vec<Vec<i64>>, ArtefactError> {
    let entries = Entries::parse(body).map_err(|error| ArtefactError::Body(error.to_string()))?;
    let text = entries
        .get("inputs")
        .ok_or_else(|| ArtefactError::Body("inputs is missing".to_owned()))?;
    Ok(request::read(graph, text.as_bytes())?)
}

/// Bytes of the answer's one part: the outputs as JSON.
#[must_use]
pub fn answer(graph: &Graph, outputs: &[Vec<i64>]) -> Vec<u8> {
    response::document(graph, outputs).to_string().into_bytes()
}

/// The statement that a core with these commitments and this program has (D10).
#[must_use]
pub fn statement(core: &Core, program: &B256) -> B256 {
    let (input, output) = (&core.request.body, &core.response.commitment);
    commit::proof_statement(&core.model.served_root, program, input, output, &core.receipt_id)
}

impl ZkArtefact {
    /// Proves the answer of a receipt, unless `cancel` is set. `body` and `answer` are the bytes that its core commits to with
    /// `salt`.
    ///
    /// # Errors
    /// [`ArtefactError`]: the bytes are others than those of the core, the program has another result, or it was cancelled.
    pub fn prove(
        cancel: &AtomicBool,
        model: &RegisteredModel,
        core: &Core,
        salt: B256,
        body: &[u8],
        answer: &[u8],
        progress: &mut dyn FnMut(Stage<'_>),
    ) -> Result<Self, ArtefactError> {
        let inputs = inputs(&model.verifying_key().graph, body)?;
        let (_, proof) = prove_unless(cancel, model, &[inputs], context(core), Profile::Committed, progress)?;
        let artefact = Self {
            key: model.verifying_key().clone(),
            salt,
            body: body.to_vec(),
            answer: answer.to_vec(),
            proof,
        };
        let got = artefact.encode().len();
        if got > MAX_ARTEFACT_BYTES {
            let limit = MAX_ARTEFACT_BYTES;
            return Err(ArtefactError::TooLarge { limit, got });
        }
        // What its own verifier refuses must not leave this machine.
        artefact.verify(core)?;
        Ok(artefact)
    }

    /// Proves what the answer of a receipt should have been, if the receipt has another one: the proof of wrong inference. `body` is
    /// what its core commits to with `salt`. Anyone with the program can make it.
    ///
    /// # Errors
    /// [`ArtefactError`]: the body is another than that of the core, the answer is right ([`ArtefactError::Agrees`]), or it was
    /// cancelled.
    pub fn refute(
        cancel: &AtomicBool,
        model: &RegisteredModel,
        core: &Core,
        salt: B256,
        body: &[u8],
        progress: &mut dyn FnMut(Stage<'_>),
    ) -> Result<Self, ArtefactError> {
        let graph = &model.verifying_key().graph;
        let inputs = inputs(graph, body)?;
        let trace = interpret::run(model.program(), &inputs)?;
        let mut artefact = Self {
            key: model.verifying_key().clone(),
            salt,
            body: body.to_vec(),
            // A program that ran to its end has its outputs.
            answer: answer(graph, &trace.outputs(model.program()).unwrap_or_default()),
            proof: Vec::new(),
        };
        // Before the work, as it is the usual case.
        artefact.differs(core)?;
        (_, artefact.proof) = prove_unless(cancel, model, &[inputs], context(core), Profile::Committed, progress)?;
        let got = artefact.encode().len();
        if got > MAX_ARTEFACT_BYTES {
            let limit = MAX_ARTEFACT_BYTES;
            return Err(ArtefactError::TooLarge { limit, got });
        }
        artefact.contradicts(core)?;
        Ok(artefact)
    }

    /// Root of the program that the proof is about. The caller must find it registered for the core's model.
    #[must_use]
    pub fn program(&self) -> B256 {
        self.key.root().0.into()
    }

    /// Bytes of the proof itself.
    #[must_use]
    pub const fn proof_bytes(&self) -> usize {
        self.proof.len()
    }

    /// Checks that the answer of this core is the program's answer to its request.
    ///
    /// # Errors
    /// The first thing that does not hold. No input makes it panic.
    pub fn verify(&self, core: &Core) -> Result<(), ArtefactError> {
        let got = self.opens(core)?;
        if got != core.response.commitment {
            let (what, expected) = ("the answer", core.response.commitment);
            return Err(ArtefactError::Commitment { what, expected, got });
        }
        self.holds(core)
    }

    /// Checks that the program's answer to the request of this core is another one than the core's: its node answered wrongly.
    ///
    /// # Errors
    /// The first thing that does not hold. No input makes it panic.
    pub fn contradicts(&self, core: &Core) -> Result<(), ArtefactError> {
        self.differs(core)?;
        self.holds(core)
    }

    fn differs(&self, core: &Core) -> Result<(), ArtefactError> {
        if self.opens(core)? == core.response.commitment {
            return Err(ArtefactError::Agrees);
        }
        Ok(())
    }

    /// Checks that the core claims an answer of this program to this request. Returns what the answer in here would be committed as.
    fn opens(&self, core: &Core) -> Result<B256, ArtefactError> {
        let receipt = |field, expected: &str, got: String| {
            let expected = expected.to_owned();
            Err(ArtefactError::Receipt { field, expected, got })
        };
        if core.response.finish != FinishReason::Stop {
            return receipt("response.finish", "stop", core.response.finish.as_str().to_owned());
        }
        if core.response.leaves != 1 {
            return receipt("response.leaves", "1", core.response.leaves.to_string());
        }
        let Some(expected) = core.evidence.and_then(|evidence| evidence.statement_hash) else {
            return receipt("evidence.statement_hash", "a statement", "none".to_owned());
        };
        let equal = |what, expected, got| {
            if expected == got {
                Ok(())
            } else {
                Err(ArtefactError::Commitment { what, expected, got })
            }
        };
        equal("the statement", expected, statement(core, &self.program()))?;
        equal(
            "the request's body",
            core.request.body,
            commit::request(&self.salt, &self.body),
        )?;
        let leaf = commit::response_leaf(&self.salt, LeafKind::Tensors, 0, &self.answer);
        Ok(commit::response(&[leaf]).unwrap_or_default())
    }

    /// Checks that the answer in here is the program's to the request in here.
    fn holds(&self, core: &Core) -> Result<(), ArtefactError> {
        let graph = &self.key.graph;
        let inputs = inputs(graph, &self.body)?;
        let outputs = response::read(graph, &self.answer)?;
        // One answer has one encoding, so that nobody can be shown another text for the same integers.
        if answer(graph, &outputs) != self.answer {
            let reason = "it is not the canonical text of these outputs".to_owned();
            return Err(ResponseError::Form(reason).into());
        }
        let statement = Statement {
            requests: vec![Request { inputs, outputs }],
            context: context(core),
        };
        Ok(verify(&self.key, &self.key.root(), &statement, &self.proof)?)
    }

    /// The one encoding: a CBOR list of nine fields.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let graph = self.key.graph.encode();
        let size = graph.len() + self.body.len() + self.answer.len() + self.proof.len() + 256;
        let mut out = Encoder::with_capacity(size);
        out.array(FIELDS).text(MAGIC).uint(VERSION);
        out.uint(self.key.parameters.id().into()).bytes(self.salt.as_slice());
        out.bytes(&self.body).bytes(&self.answer).bytes(&graph);
        out.bytes(&self.key.weights).bytes(&self.proof);
        out.finish()
    }

    /// Reads exactly what [`Self::encode`] writes.
    ///
    /// # Errors
    /// [`ArtefactError`] naming the field.
    pub fn decode(bytes: &[u8]) -> Result<Self, ArtefactError> {
        let limits = Limits {
            bytes: MAX_ARTEFACT_BYTES,
            depth: 2,
            items: FIELDS + 1,
            tags: false,
        };
        let field = |field, reason| ArtefactError::Field { field, reason };
        let Value::Array(items) = decode_strict(bytes, limits)? else {
            return Err(field("artefact", "it is not a list"));
        };
        let Ok([magic, version, set, salt, body, answer, graph, weights, proof]) = <[Value; FIELDS]>::try_from(items)
        else {
            return Err(field("artefact", "another number of fields than 9"));
        };
        if magic != Value::Text(MAGIC.to_owned()) {
            return Err(field("magic", "another kind of document"));
        }
        if version != Value::Uint(VERSION) {
            return Err(field("version", "this release reads version 1"));
        }
        let parameters = match set {
            Value::Uint(id) => ParameterSet::from_id(id),
            _ => None,
        };
        let parameters = parameters.ok_or(field("parameter set", "this release knows sets 1 and 2"))?;
        let bytes = |value, name| match value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(field(name, "expected a byte string")),
        };
        let digest =
            |value, name| <[u8; 32]>::try_from(bytes(value, name)?).map_err(|_| field(name, "expected 32 bytes"));
        let graph = Graph::decode(&bytes(graph, "graph")?)?;
        Ok(Self {
            key: VerifyingKey::new(graph, digest(weights, "weights")?, parameters),
            salt: digest(salt, "salt")?.into(),
            body: bytes(body, "body")?,
            answer: bytes(answer, "answer")?,
            proof: bytes(proof, "proof")?,
        })
    }
}

/// What ties the proof to its receipt: it is no proof for another receipt, quote or node.
fn context(core: &Core) -> Context {
    Context {
        receipt: core.receipt_id.0.0,
        nonce: core.quote.nonce.0,
        prover: core.node_id.0.0,
    }
}
