//! The receipt file (receipt.md §7): one JSON document from which a receipt is verified with nothing but the genesis.
//!
//! The encoding is canonical: two-space indent, fixed key order, lower-case hex, standard padded base64, one final
//! newline. [`ReceiptFile::parse_strict`] refuses a file that differs from its own re-encoding, so no byte of a file can
//! change without being noticed here or by a check of what it says.

use crate::{commit::LeafKind, error::ReceiptError};
use alloy_primitives::{Address, B256, Bytes};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use opg_primitives::ids::Keyset;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Most bytes of a file; bodies and answers are the large parts.
pub const MAX_FILE_BYTES: usize = 64 << 20;
/// Bytes of a consensus envelope: `parent (32) || height (8) || evm hash (32) || body hash (32)`.
pub const ENVELOPE_BYTES: usize = 104;
/// Most envelopes between a block and the certificate that covers it.
pub const MAX_ENVELOPES: usize = 1_024;

/// Most hand-overs: one for each epoch since the genesis or a trusted checkpoint.
pub const MAX_HANDOVERS: usize = 4_096;

/// Version of the file format.
const VERSION: u32 = 1;

/// A whole receipt file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReceiptFile {
    #[serde(rename = "type")]
    kind: FileType,
    version: u32,
    /// COSE bytes of the receipt.
    pub core: Bytes,
    /// The keys of the node, opening the keyset digest.
    pub keyset: Keyset,
    /// COSE bytes of the quote.
    pub quote: Bytes,
    /// What opens the commitments; absent if the holder keeps the content private.
    pub opening: Option<Opening>,
    /// Where the receipt stands in the chain; absent before it is final.
    pub inclusion: Option<Inclusion>,
    /// Proof of the keyset's registration.
    pub registration: Option<StateProof>,
    /// Proof of the payment's settlement.
    pub payment: Option<StateProof>,
    /// The proof after the answer; only in files of modes that have one, and not written otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<ProofAfter>,
    /// The evidence of the keyset; only in files of mode tee, and not written otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<Attestation>,
    /// How the validator sets of later epochs follow from the genesis, oldest first; not written where none is needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handovers: Vec<HandOver>,
}

/// One change of the validator set: the last block of an epoch, and the set that its state names for the next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandOver {
    /// The epoch that begins.
    pub epoch: u64,
    /// The last block of the epoch before, and the slot `setHash[epoch]` of the staking contract after it.
    pub state: StateProof,
    /// `abi.encode(Seat[])`, which opens the hash.
    pub seats: Bytes,
}

/// Evidence of the keyset: the document, everything that it binds beside the keyset, and its registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attestation {
    /// Number of the kind: 1 Nitro, 2 TDX, 3 SGX, 4 SEV-SNP.
    pub kind: u8,
    /// The document.
    pub document: Base64Bytes,
    /// What a verifier needs beside it.
    pub collateral: Base64Bytes,
    /// Hash of the block that makes it fresh.
    pub nonce_hash: B256,
    /// Policy epoch at its submission.
    pub epoch: u64,
    /// Account that owns the node.
    pub operator: Address,
    /// The node's registered URL.
    pub endpoint: String,
    /// What the node is.
    pub role: String,
    /// Digest of its configuration.
    pub config: B256,
    /// The record in the evidence registry.
    pub registration: StateProof,
}

/// A proof after the answer, and the registration of the program that it is about (D10).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProofAfter {
    /// The artefact.
    pub artefact: Base64Bytes,
    /// The program's slot in the model registry.
    pub registration: StateProof,
}

/// The only value of the field `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum FileType {
    #[serde(rename = "opg-receipt-file")]
    ReceiptFile,
}

/// What opens the commitments of the core.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Opening {
    /// Salt of every commitment.
    pub salt: B256,
    /// HTTP method of the request.
    pub method: String,
    /// HTTP path of the request.
    pub path: String,
    /// Raw body of the request.
    pub body: Base64Bytes,
    /// Canonical JSON of the effective parameters.
    pub params: String,
    /// Parts of the answer.
    pub leaves: Vec<Leaf>,
}

/// One part of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Leaf {
    /// What it is.
    pub kind: LeafKind,
    /// Its bytes.
    pub bytes: Base64Bytes,
}

/// Where the receipt stands in the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inclusion {
    /// Height of the block.
    pub height: u64,
    /// Index in the block's batch.
    pub index: u32,
    /// Receipts in the batch.
    pub count: u32,
    /// Merkle path from the leaf up.
    pub siblings: Vec<B256>,
    /// The block and its certificate.
    pub finality: Finality,
}

/// A finalised block: header, and the way from a certificate to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finality {
    /// RLP of the EVM header.
    pub header: Bytes,
    /// Envelopes of the consensus blocks: the target first, each the parent of the next, the certified one last. Each
    /// has [`ENVELOPE_BYTES`] bytes.
    pub envelopes: Vec<Bytes>,
    /// The signed simplex proposal.
    pub proposal: Bytes,
    /// The finalization certificate over it.
    pub certificate: Bytes,
}

/// Storage slots of accounts under a certified state root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateProof {
    /// The block whose state is proved.
    pub finality: Finality,
    /// The accounts.
    pub accounts: Vec<AccountProof>,
}

/// Slots of one account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountProof {
    /// The account.
    pub address: Address,
    /// Nodes of the state trie from the root to the account's leaf.
    pub proof: Vec<Bytes>,
    /// The slots.
    pub slots: Vec<SlotProof>,
}

/// One slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlotProof {
    /// Storage slot.
    pub key: B256,
    /// Its value, zero if unused.
    pub value: B256,
    /// Nodes of the storage trie from the root down.
    pub proof: Vec<Bytes>,
}

/// Bytes that are standard padded base64 in JSON.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Base64Bytes(pub Bytes);

impl ReceiptFile {
    /// A file with the given core, keys and quote; the other parts are absent.
    #[must_use]
    pub const fn new(core: Bytes, keyset: Keyset, quote: Bytes) -> Self {
        Self {
            kind: FileType::ReceiptFile,
            version: VERSION,
            core,
            keyset,
            quote,
            opening: None,
            inclusion: None,
            registration: None,
            payment: None,
            proof: None,
            attestation: None,
            handovers: Vec::new(),
        }
    }

    /// Reads a file; it must be byte for byte what [`Self::to_bytes`] writes.
    ///
    /// # Errors
    /// [`ReceiptError::TooLong`] above [`MAX_FILE_BYTES`], [`ReceiptError::File`] saying what is wrong otherwise.
    pub fn parse_strict(bytes: &[u8]) -> Result<Self, ReceiptError> {
        if bytes.len() > MAX_FILE_BYTES {
            let (what, limit, got) = ("receipt file", MAX_FILE_BYTES, bytes.len());
            return Err(ReceiptError::TooLong { what, limit, got });
        }
        let file: Self = serde_json::from_slice(bytes).map_err(|error| ReceiptError::File {
            reason: error.to_string(),
        })?;
        if file.version != VERSION {
            return Err(ReceiptError::value("version", VERSION, file.version));
        }
        if file.handovers.len() > MAX_HANDOVERS {
            let (what, limit, got) = ("list of hand-overs", MAX_HANDOVERS, file.handovers.len());
            return Err(ReceiptError::TooLong { what, limit, got });
        }
        let canonical = file.to_bytes();
        if canonical != bytes {
            let at = canonical.iter().zip(bytes).take_while(|(a, b)| a == b).count();
            let reason = format!("not the canonical encoding, it differs at byte {at}");
            return Err(ReceiptError::File { reason });
        }
        Ok(file)
    }

    /// The canonical encoding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // No map keys but struct fields and no fallible `Serialize`, so writing to memory cannot fail; an empty
        // document would be refused by every reader.
        let mut bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}

impl From<Vec<u8>> for Base64Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl Serialize for Base64Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD
            .decode(text.as_bytes())
            .map(Self::from)
            .map_err(D::Error::custom)
    }
}
