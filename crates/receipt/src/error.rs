//! Why a receipt, quote or receipt file was refused.

use opg_primitives::{cbor::CborError, money::MoneyError};

/// Why an encoding was refused. Fields are named as in the specification, such as `payment.amount`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiptError {
    /// More bytes than a receipt or quote may have.
    #[error("{what} of {got} bytes, at most {limit} are allowed")]
    TooLong {
        /// What was being read.
        what: &'static str,
        /// Most bytes.
        limit: usize,
        /// Bytes found.
        got: usize,
    },
    /// Not deterministic CBOR.
    #[error("{what}: {source}")]
    Cbor {
        /// What was being read.
        what: &'static str,
        /// Where and why.
        source: CborError,
    },
    /// CBOR of another shape than COSE_Sign1 with our headers.
    #[error("{what}: not a COSE_Sign1 of this kind, {part} is wrong")]
    Cose {
        /// What was being read.
        what: &'static str,
        /// Which part.
        part: &'static str,
    },
    /// A field is absent.
    #[error("field {field} is missing")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A key that the format does not have.
    #[error("unexpected key in {within}")]
    Unexpected {
        /// The map.
        within: &'static str,
    },
    /// A field has another CBOR type or length.
    #[error("field {field}: expected {expected}")]
    Type {
        /// The field.
        field: &'static str,
        /// Type expected.
        expected: &'static str,
    },
    /// A field has a value that is not allowed.
    #[error("field {field}: expected {expected}, got {got}")]
    Value {
        /// The field.
        field: &'static str,
        /// What is allowed.
        expected: String,
        /// What was found.
        got: String,
    },
    /// The charge cannot be computed.
    #[error("field price: {0}")]
    Money(#[from] MoneyError),
    /// The signature is not valid.
    #[error("{what}: {source}")]
    Signature {
        /// What was signed.
        what: &'static str,
        /// Why.
        source: SignatureError,
    },
    /// A receipt file that is not canonical JSON of the specified shape.
    #[error("receipt file: {reason}")]
    File {
        /// Why.
        reason: String,
    },
}

/// Why an Ed25519 signature was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignatureError {
    /// The key is no canonical point of the curve, or has small order.
    #[error("the Ed25519 key is not a valid point")]
    Key,
    /// The signature does not belong to these bytes and this key.
    #[error("the Ed25519 signature is not valid for this key")]
    Mismatch,
}

impl ReceiptError {
    pub(crate) fn value(field: &'static str, expected: impl ToString, got: impl ToString) -> Self {
        Self::Value {
            field,
            expected: expected.to_string(),
            got: got.to_string(),
        }
    }
}
