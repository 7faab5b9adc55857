//! Proof files: a proof with everything that a verifier needs beside root, inputs and outputs.

use std::{fs::File, io::Read as _, path::Path};

use opg_integer_program::{error::ProgramError, program::Graph};
use opg_primitives::cbor::{CborError, Encoder, Limits, Value, decode_strict};
use opg_zkml::{MAX_BATCH, MAX_PROOF_BYTES, ParameterSet, Profile, VerifyingKey};

use super::files::read;
use crate::failure::Failure;

/// Largest proof file.
pub(super) const MAX_PROOF_FILE: usize = 64 << 20;
/// Largest graph that leaves room for a proof in its file.
const MAX_GRAPH_IN_PROOF: usize = MAX_PROOF_FILE - MAX_PROOF_BYTES - 1_024;
/// Bytes from which the kind of a file is told.
const PREFIX: u64 = 64;
/// First element of a proof file.
const MAGIC: &str = "opg/zk-proof-file";
/// Layout of proof files.
const VERSION: u64 = 1;

/// Whether a file starts like a proof file.
pub(super) fn is_proof(path: &Path) -> Result<bool, Failure> {
    starts_with(path, MAGIC)
}

/// Whether a file starts like a file of hiding proofs.
pub(super) fn is_hiding_proof(path: &Path) -> Result<bool, Failure> {
    starts_with(path, super::hiding::MAGIC)
}

/// Whether a file is a list whose first entry is this short text.
fn starts_with(path: &Path, magic: &str) -> Result<bool, Failure> {
    let cannot = |error: std::io::Error| Failure::usage(format!("cannot read {}: {error}", path.display()));
    let mut start = Vec::new();
    File::open(path)
        .map_err(cannot)?
        .take(PREFIX)
        .read_to_end(&mut start)
        .map_err(cannot)?;
    // One byte of array header; one of text header, or two from 24 bytes on.
    let header = if magic.len() < 24 { 2 } else { 3 };
    Ok(start
        .get(header..)
        .is_some_and(|rest| rest.starts_with(magic.as_bytes())))
}

/// Refuses a graph that is too large for a proof file, before anything is proven.
pub(super) fn check_graph(graph: &Graph) -> Result<(), Failure> {
    let bytes = graph.encode().len();
    if bytes <= MAX_GRAPH_IN_PROOF {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "the program without weights has {bytes} bytes, a proof file holds {MAX_GRAPH_IN_PROOF}: compile with --profile int8, whose tables are smaller"
    )))
}

/// Number of a parameter set for people and command lines.
pub(super) const fn security_bits(set: ParameterSet) -> u16 {
    match set {
        ParameterSet::Bits100 => 100,
        ParameterSet::Bits128 => 128,
    }
}

/// Name of a profile.
pub(super) const fn profile_name(profile: Profile) -> &'static str {
    match profile {
        Profile::Committed => "committed",
        Profile::Open => "open",
    }
}

/// Why the bytes of a proof file were refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(super) enum ProofFileError {
    /// Not strict CBOR, too long, or something follows.
    #[error("not a proof file: {0}")]
    Cbor(#[from] CborError),
    /// CBOR of something else.
    #[error("not a proof file: {field}: {reason}")]
    Field {
        /// Which field.
        field: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// A layout of another release.
    #[error("proof file of layout {got}, this release reads layout {VERSION}: verify it with the release that made it")]
    Version {
        /// Layout found.
        got: u64,
    },
    /// The graph inside cannot be proven.
    #[error("the graph in the proof file: {0}")]
    Plan(String),
    /// The graph inside is not one.
    #[error("the graph in the proof file: {0}")]
    Graph(#[from] ProgramError),
}

/// A proof with everything that a verifier needs beside root, inputs and outputs.
///
/// Nothing in it has to be believed: the root that the verifier trusts names graph, weight commitment and parameter
/// set, and the other fields are compared with what the verifier was told.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ProofFile {
    /// Graph, weight commitment, parameter set.
    pub(super) key: VerifyingKey,
    /// Who holds the weights.
    pub(super) profile: Profile,
    /// Requests that the proof covers.
    pub(super) requests: usize,
    /// Receipt that the proof is tied to; zeros for none.
    pub(super) receipt: [u8; 32],
    /// The proof itself.
    pub(super) proof: Vec<u8>,
}

impl ProofFile {
    /// The one encoding: a CBOR list of nine fields.
    pub(super) fn encode(&self) -> Vec<u8> {
        let graph = self.key.graph.encode();
        let mut out = Encoder::with_capacity(graph.len() + self.proof.len() + 256);
        out.array(9).text(MAGIC).uint(VERSION);
        out.uint(self.key.parameters.id().into())
            .uint(self.profile.id().into())
            .uint(self.requests as u64);
        out.bytes(&self.receipt)
            .bytes(&graph)
            .bytes(&self.key.weights)
            .bytes(&self.proof);
        out.finish()
    }

    /// Reads exactly what [`Self::encode`] writes.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, ProofFileError> {
        let limits = Limits {
            bytes: MAX_PROOF_FILE,
            depth: 2,
            items: 10,
            tags: false,
        };
        let value = decode_strict(bytes, limits)?;
        let field = |field, reason| ProofFileError::Field { field, reason };
        let Value::Array(items) = value else {
            return Err(field("file", "it is not a list"));
        };
        // The version is read first, so that a newer layout is refused by name.
        match items.as_slice() {
            [Value::Text(magic), Value::Uint(VERSION), ..] if magic == MAGIC => {}
            [Value::Text(magic), Value::Uint(got), ..] if magic == MAGIC => {
                return Err(ProofFileError::Version { got: *got });
            }
            _ => return Err(field("magic", "another kind of file")),
        }
        let Ok([_, _, set, profile, requests, receipt, graph, weights, proof]) = <[Value; 9]>::try_from(items) else {
            return Err(field("file", "another number of fields than 9"));
        };
        let number = |value: &Value| match value {
            Value::Uint(number) => Some(*number),
            _ => None,
        };
        let parameters = number(&set)
            .and_then(ParameterSet::from_id)
            .ok_or(field("parameter set", "this release knows sets 1 and 2"))?;
        let profile = number(&profile)
            .and_then(Profile::from_id)
            .ok_or(field("profile", "expected 1 or 2"))?;
        let requests = match requests {
            Value::Uint(count) => usize::try_from(count)
                .ok()
                .filter(|count| (1..=MAX_BATCH).contains(count)),
            _ => None,
        };
        let requests = requests.ok_or(field("requests", "expected 1 to 65536"))?;
        let bytes = |value, name| match value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(field(name, "expected a byte string")),
        };
        let digest =
            |value, name| <[u8; 32]>::try_from(bytes(value, name)?).map_err(|_| field(name, "expected 32 bytes"));
        let receipt = digest(receipt, "receipt")?;
        let graph = Graph::decode(&bytes(graph, "graph")?)?;
        let weights = digest(weights, "weights")?;
        let proof = bytes(proof, "proof")?;
        Ok(Self {
            key: VerifyingKey::new(graph, weights, parameters),
            profile,
            requests,
            receipt,
            proof,
        })
    }

    /// Reads a proof file. What is wrong with its content is a failed check, not a wrong command.
    pub(super) fn open(path: &Path) -> Result<Self, Failure> {
        let bytes = read(path, "proof file", MAX_PROOF_FILE)?;
        Self::decode(&bytes).map_err(|error| Failure::failed(eyre::eyre!("{}: {error}", path.display())))
    }
}

#[cfg(test)]
mod tests {
    use opg_integer_program::compile::{Options, compile};

    use super::*;

    fn sample() -> ProofFile {
        let onnx = include_bytes!(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../testing/fixtures/digits/logreg.onnx"
        ));
        let graph = compile(onnx, None, &Options::default()).unwrap().program.graph;
        let key = VerifyingKey::new(graph, [7; 32], ParameterSet::Bits100);
        ProofFile {
            key,
            profile: Profile::Committed,
            requests: 3,
            receipt: [1; 32],
            proof: vec![1, 2, 3],
        }
    }

    #[test]
    fn a_proof_file_has_one_encoding() {
        let file = sample();
        let bytes = file.encode();
        assert_eq!(ProofFile::decode(&bytes), Ok(file));
        for end in [0, 1, 20, bytes.len() / 2, bytes.len() - 1] {
            assert!(ProofFile::decode(&bytes[..end]).is_err(), "{end}");
        }
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(matches!(
            ProofFile::decode(&longer),
            Err(ProofFileError::Cbor(CborError::Trailing { .. }))
        ));
        // A flipped bit either is refused or gives another file with that very encoding.
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 1;
            if let Ok(file) = ProofFile::decode(&other) {
                assert_eq!(file.encode(), other, "byte {at}");
            }
        }
    }

    #[test]
    fn newer_layouts_and_wrong_numbers_are_named() {
        let bytes = sample().encode();
        let at = 2 + MAGIC.len();
        for (offset, value, words) in [
            (0, 2, "layout 2"),
            (1, 3, "parameter set"),
            (2, 0, "profile"),
            (3, 0, "requests"),
        ] {
            let mut other = bytes.clone();
            other[at + offset] = value;
            let text = ProofFile::decode(&other).unwrap_err().to_string();
            assert!(text.contains(words), "{text}");
        }
    }
}
