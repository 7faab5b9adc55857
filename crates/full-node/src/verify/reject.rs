//! Why a receipt is refused: one rule each, with a stable code.

use std::fmt;

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $field:literal, $message:literal;)*) => {
        /// The rules of receipt.md §6 (in its order), of a batch, and of the pool.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Rule { $($(#[$doc])* $name,)* }

        impl Rule {
            /// All rules.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// Stable code: part of the RPC interface.
            pub const fn code(self) -> &'static str {
                match self { $(Self::$name => $code,)* }
            }

            /// The field of the receipt that the rule is about.
            pub const fn field(self) -> &'static str {
                match self { $(Self::$name => $field,)* }
            }

            /// One sentence for people.
            pub const fn message(self) -> &'static str {
                match self { $(Self::$name => $message,)* }
            }
        }
    };
}

rules! {
    /// More than 4,096 bytes.
    Size = "size", "receipt", "the receipt is too large";
    /// Not a canonical COSE_Sign1 with a canonical core.
    Encoding = "encoding", "receipt", "the receipt is not canonically encoded";
    /// Made for another chain.
    ChainId = "chain_id", "chain_id", "the receipt is for another chain";
    /// Names another node registry.
    Registry = "registry", "registry", "the receipt names another node registry";
    /// The keyset is not registered.
    KeysetUnknown = "keyset_unknown", "keyset", "the keyset is not registered";
    /// The keyset was revoked.
    KeysetRevoked = "keyset_revoked", "keyset", "the keyset is revoked";
    /// The keyset belongs to another node.
    KeysetNode = "keyset_node", "node_id", "the keyset belongs to another node";
    /// The node is not registered.
    NodeUnknown = "node_unknown", "node_id", "the node is not registered";
    /// The node was deactivated.
    NodeInactive = "node_inactive", "node_id", "the node is deactivated";
    /// The node's bond is below the minimum, or below its fees of today and yesterday.
    Bond = "bond", "node_id", "the node's bond is below the minimum or the fees of its last receipts: its operator has to add to it";
    /// The receipt key did not sign this.
    Signature = "signature", "signature", "the receipt is not signed by the keyset's receipt key";
    /// The ledger has this sequence number of the keyset.
    SeqUsed = "seq_used", "seq", "this sequence number of the keyset is recorded already";
    /// Another receipt with this sequence number waits or stands in the same block.
    SeqDuplicate = "seq_duplicate", "seq", "another receipt has this keyset and sequence number";
    /// The payment goes to another address than the node's deposit address.
    Payee = "payee", "payment.payee", "the payment does not go to the node's deposit address";
    /// Another token.
    Asset = "asset", "price.asset", "the payment is not in OPG";
    /// The ledger has a receipt for this payment.
    PaymentSpent = "payment_spent", "payment.nonce", "a receipt is recorded for this payment already";
    /// Another receipt with this payment waits or stands in the same block.
    PaymentDuplicate = "payment_duplicate", "payment.nonce", "another receipt has this payment";
    /// The payer cancelled the authorization.
    PaymentCancelled = "payment_cancelled", "payment.nonce", "the payment authorization is cancelled";
    /// The authorization was used for something else.
    PaymentSettled = "payment_settled", "payment.amount", "the payment authorization was used for another payee or amount";
    /// The payer's account did not sign it.
    PaymentSignature = "payment_signature", "payment.signature", "the payment is not signed by the payer (a contract's payment must be settled first)";
    /// Not valid yet at the block's time.
    PaymentEarly = "payment_early", "payment.valid_after", "the payment authorization is not valid yet";
    /// Not valid any more at the block's time.
    PaymentExpired = "payment_expired", "payment.valid_before", "the payment authorization is expired";
    /// The payer's balance does not cover it.
    PaymentFunds = "payment_funds", "payment.amount", "the payer's OPG balance does not cover the payment";
    /// The channel's id does not follow from its configuration, or no contract would take it.
    Channel = "channel", "payment.channel", "the payment channel is not the one that payment.nonce names";
    /// The channel does not hold what the voucher promises.
    ChannelFunds = "channel_funds", "payment.channel.ceiling", "the channel's balance does not cover the voucher";
    /// The channel's money is recorded for other receipts already.
    ChannelSpent = "channel_spent", "price.charge", "the channel's balance does not cover what is recorded for it and this charge";
    /// The receipt id does not follow from chain, node and quote nonce.
    ReceiptId = "receipt_id", "receipt_id", "the receipt id does not follow from chain, node and quote nonce";
    /// Another model was served than asked.
    ModelServed = "model_served", "model.served", "another model was served than asked";
    /// The model root is not registered.
    ModelUnknown = "model_unknown", "model.served", "the model root is not registered";
    /// Another royalty than the registry's.
    Royalty = "royalty", "price.royalty_bps", "the royalty is not the registry's";
    /// Another ask than the registry's.
    Ask = "ask", "price", "the price is neither the node's registered ask nor between a quarter of the reference price and that ask";
    /// The charge does not follow from price and usage.
    Charge = "charge", "price.charge", "the charge does not follow from price, usage and payment";
    /// A mode without a verifier in this version.
    Mode = "mode", "mode", "this mode has no verifier on this network yet (replay is refused until statistical audits exist): use mode none, tee or zk";
    /// A grade that the mode does not have.
    Grade = "grade", "mode.grade", "this mode does not have this grade";
    /// Evidence on a mode without evidence.
    Evidence = "evidence", "evidence", "mode none carries no evidence";
    /// The proof of the answer is not here.
    EvidenceMissing = "evidence_missing", "evidence.statement_hash", "the proof of the answer is missing: submit it with the receipt";
    /// The proof came after its deadline.
    EvidenceLate = "evidence_late", "evidence.proof_deadline", "the deadline of the proof is over";
    /// The proof does not prove the receipt's statement.
    EvidenceInvalid = "evidence_invalid", "evidence.statement_hash", "the proof does not prove the receipt's statement";
    /// The program of the proof is not one of the model's.
    ProgramUnknown = "program_unknown", "evidence.statement_hash", "the program of the proof is not registered for the model";
    /// The evidence is not registered.
    EvidenceUnknown = "evidence_unknown", "evidence.evidence_id", "the attestation evidence is not registered";
    /// The evidence binds another keyset.
    EvidenceKeyset = "evidence_keyset", "evidence.evidence_id", "the attestation evidence binds another keyset";
    /// The evidence has another grade.
    EvidenceGrade = "evidence_grade", "mode.grade", "the attestation evidence has another grade";
    /// The evidence was accepted by another policy.
    EvidenceEpoch = "evidence_epoch", "evidence.policy_epoch", "the attestation evidence was accepted under another policy";
    /// What the evidence says is revoked.
    EvidenceRevoked = "evidence_revoked", "evidence.evidence_id", "the measurement or the signer of the attestation evidence is revoked";
    /// The evidence is too old.
    EvidenceExpired = "evidence_expired", "evidence.evidence_id", "the attestation evidence counts no more: the node has to attest again";
    /// Fields of the core contradict each other.
    Consistency = "consistency", "receipt", "fields of the receipt contradict each other";
    /// The node has too much in flight.
    Quota = "quota", "node_id", "the node has too many receipts in flight for its bond: resubmit after the next block";
    /// The pool is full.
    PoolFull = "pool_full", "receipt", "the receipt pool is full: resubmit later";
}

impl Rule {
    /// Whether a receipt that breaks this rule now may keep it in a later block, so that resubmitting makes sense.
    pub const fn may_pass_later(self) -> bool {
        matches!(
            self,
            Self::KeysetUnknown
                | Self::NodeUnknown
                | Self::NodeInactive
                | Self::Bond
                | Self::PaymentSignature
                | Self::PaymentEarly
                | Self::PaymentExpired
                | Self::PaymentFunds
                | Self::ChannelFunds
                | Self::ChannelSpent
                | Self::ModelUnknown
                | Self::EvidenceMissing
                | Self::EvidenceUnknown
                | Self::ProgramUnknown
                | Self::Royalty
                | Self::Ask
                | Self::Quota
                | Self::PoolFull
        )
    }
}

/// A refused receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reject {
    /// The first rule that it breaks.
    pub rule: Rule,
    /// What would have passed.
    pub expected: String,
    /// What the receipt has.
    pub got: String,
}

impl Reject {
    /// `rule` is broken: `expected` against `got`.
    pub fn new(rule: Rule, expected: impl fmt::Display, got: impl fmt::Display) -> Self {
        Self {
            rule,
            expected: expected.to_string(),
            got: got.to_string(),
        }
    }
}

impl fmt::Display for Reject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} (field {}: expected {}, got {})",
            self.rule.message(),
            self.rule.field(),
            self.expected,
            self.got
        )
    }
}

impl std::error::Error for Reject {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique() {
        let mut codes: Vec<_> = Rule::ALL.iter().map(|r| r.code()).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), Rule::ALL.len());
    }
}
