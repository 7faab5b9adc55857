//! The one registry of domain separation strings.
//!
//! A hash or signature made for one purpose must never be valid for another, so each purpose has its own string and
//! the strings live in one place where a test can see that none is used twice.

use std::fmt;

macro_rules! tags {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What a hash or signature is for.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Tag { $($(#[$doc])* $name,)* }

        impl Tag {
            /// Every tag, in declaration order.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The string that is hashed or signed; ASCII, at most 255 bytes.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

tags! {
    /// Additional authenticated data of a receipt's COSE signature.
    Receipt = "opg/receipt/v1",
    /// Additional authenticated data of a quote's COSE signature.
    Quote = "opg/quote/v1",
    /// Identifier of a receipt: chain, node, quote nonce.
    ReceiptId = "opg/receipt-id/v1",
    /// Salted commitment to the raw request body.
    Request = "opg/request/v1",
    /// Salted commitment to the effective parameters.
    Params = "opg/params/v1",
    /// Salted commitment to one typed part of the answer.
    ResponseLeaf = "opg/response-leaf/v1",
    /// Commitment to all leaves of the answer.
    Response = "opg/response/v1",
    /// Rolling hash over the chunks of a streamed answer.
    Stream = "opg/stream/v1",
    /// Digest of a genesis file.
    Genesis = "opg/genesis/v1",
    /// Signature namespace of consensus; the genesis digest in lower-case hex follows.
    Consensus = "opg/consensus/v1/",
    /// Network handshakes and messages between full nodes.
    Network = "opg/p2p/v1",
    /// Proof of possession of a validator's BLS key.
    BlsPossession = "opg/bls-possession/v1",
    /// Proof of possession of a validator's system account.
    SystemPossession = "opg/system-possession/v1",
    /// Settlement slot of a cancelled ERC-3009 authorization.
    AuthorizationCancelled = "opg/authorization-cancelled/v1",
    /// Content root of a model's files that commits to SHA-256.
    Model = "opg/model/v1",
    /// Content root of a model's files that commits to BLAKE3 and git's SHA-1 as well.
    ModelV2 = "opg/model/v2",
    /// Root of a model that only a provider has.
    ClosedModel = "opg/closed-model/v1",
    /// Salted commitment to the body that was sent to a provider.
    UpstreamRequest = "opg/upstream-request/v1",
    /// Salted commitment to a provider's answer before translation.
    UpstreamAnswer = "opg/upstream-answer/v1",
    /// Digest of the runtime that served a model.
    Runtime = "opg/runtime/v1",
    /// Digest of an integer program without its weights.
    IntegerGraph = "opg/integer-graph/v1",
    /// Digest of an integer program with its weights.
    IntegerProgram = "opg/integer-program/v1",
    /// Root of a model registered for proofs.
    ZkModel = "opg/zk-model/v1",
    /// Randomness of a hiding commitment to weights.
    HiddenWeights = "opg/zk-hidden-weights/v1",
    /// Randomness of a hiding commitment to inputs.
    HiddenInputs = "opg/zk-hidden-inputs/v1",
    /// Randomness of a hiding proof.
    HidingProof = "opg/zk-hiding-proof/v1",
    /// Salted leaf of a hiding commitment.
    HidingLeaf = "opg/zk-hiding-leaf/v1",
    /// Inner node of the tree over such leaves.
    HidingNode = "opg/zk-hiding-node/v1",
    /// Slot in the list of a hiding model.
    HidingSlot = "opg/zk-hiding-slot/v1",
    /// Transcript of a proof of inference.
    ZkProof = "opg/zk-proof/v1",
    /// Name of a part of vendor collateral that has versions.
    Collateral = "opg/collateral/v1",
    /// Identity of an attestation document.
    Evidence = "opg/evidence/v1",
    /// What a quote's report data commits to.
    Binding = "opg/bind/v1",
    /// Digest of a node's attested keys.
    Keyset = "opg/keyset/v1",
    /// Nonce of an attestation.
    AttestationNonce = "opg/attest-nonce/v1",
    /// Nonce of a GPU's report inside a composite attestation.
    GpuNonce = "opg/gpu-nonce/v1",
    /// Binding of a CPU quote to the reports of its GPUs.
    CompositeEvidence = "opg/composite/v1",
    /// Request body sealed to an attested key.
    SealedRequest = "opg/sealed-request/v1",
    /// Keys of the answer to such a request.
    SealedResponse = "opg/sealed-response/v1",
    /// Development keys of the software attester.
    SoftwareAttester = "opg/software-attester/v1",
    /// Inputs and outputs in the transcript of a proof of inference.
    Statement = "opg/statement/v1",
    /// Statement that a proof after the answer must prove (D10).
    ProofStatement = "opg/proof-statement/v1",
    /// Challenge that a payer signs to fetch a receipt core (D11).
    ReceiptAccess = "opg/receipt-access/v1",
    /// Bearer secret of one receipt (D11).
    ReceiptSecret = "opg/receipt-secret/v1",
    /// Deterministic key derivation of development networks.
    DevelopmentKey = "opg/development-key/v1",
    /// First word under the nonce of a Permit2 payment, so that it never meets an ERC-3009 nonce.
    Permit2Payment = "opg/payments/permit2",
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn tags_are_unique_ascii_and_short() {
        let texts: BTreeSet<_> = Tag::ALL.iter().map(|tag| tag.as_str()).collect();
        assert_eq!(texts.len(), Tag::ALL.len());
        for text in texts {
            assert!(
                text.is_ascii() && text.len() <= 255 && text.starts_with("opg/"),
                "{text}"
            );
        }
    }

    /// `Consensus` is used as a prefix: no other tag may start with it, nor be a prefix of another.
    #[test]
    fn no_tag_is_a_prefix_of_another() {
        for a in Tag::ALL {
            for b in Tag::ALL {
                assert!(a == b || !b.as_str().starts_with(a.as_str()), "{a} {b}");
            }
        }
    }
}
