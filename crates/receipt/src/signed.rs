//! A core with its signature.

use crate::{
    core::Core,
    cose::{self, Kind, Sign1},
    error::ReceiptError,
    prepared::{self, Item, PreparedKey},
};
use alloy_primitives::{B256, Bytes};
use ed25519_dalek::SigningKey;
use opg_primitives::hash::keccak;

/// A core with its signature. Fields are read-only: the core, its bytes and its hash always belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedReceipt {
    cose: Bytes,
    core: Core,
    payload: Bytes,
    core_hash: B256,
    signature: [u8; 64],
}

impl SignedReceipt {
    /// Signs a core.
    ///
    /// # Errors
    /// [`ReceiptError::TooLong`] above [`crate::MAX_BYTES`], [`ReceiptError::Value`] for a core that nobody could
    /// decode (such as a model name with control characters).
    pub fn sign(core: Core, key: &SigningKey) -> Result<Self, ReceiptError> {
        let cose = cose::sign(Kind::Receipt, &core.keyset, &core.encode(), key)?;
        Self::decode(&cose)
    }

    /// Decodes COSE bytes without checking the signature.
    ///
    /// # Errors
    /// [`ReceiptError`] for anything but the one encoding of a receipt of at most [`crate::MAX_BYTES`] bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReceiptError> {
        let message = cose::decode(Kind::Receipt, bytes)?;
        let core = Core::decode(&message.payload)?;
        if core.keyset != message.keyset {
            return Err(ReceiptError::value("keyset", message.keyset, core.keyset));
        }
        Ok(Self {
            cose: Bytes::copy_from_slice(bytes),
            core,
            core_hash: keccak(&message.payload),
            payload: message.payload.into(),
            signature: message.signature,
        })
    }

    /// Checks the signature against the keyset's receipt key.
    ///
    /// # Errors
    /// [`ReceiptError::Signature`].
    pub fn verify_signature(&self, receipt_key: &[u8; 32]) -> Result<(), ReceiptError> {
        let message = Sign1 {
            keyset: self.core.keyset,
            payload: self.payload.to_vec(),
            signature: self.signature,
        };
        cose::verify(Kind::Receipt, &message, &cose::key(Kind::Receipt, receipt_key)?)
    }

    /// The same against a key that was prepared for many verifications.
    ///
    /// # Errors
    /// [`ReceiptError::Signature`].
    pub fn verify_prepared(&self, key: &PreparedKey) -> Result<(), ReceiptError> {
        verify_batch(&[(self, key)]).into_iter().collect()
    }

    /// The core.
    #[must_use]
    pub const fn core(&self) -> &Core {
        &self.core
    }

    /// `keccak256` of the payload.
    #[must_use]
    pub const fn core_hash(&self) -> B256 {
        self.core_hash
    }

    /// The COSE bytes: what is sent, stored and put into blocks.
    #[must_use]
    pub const fn cose(&self) -> &Bytes {
        &self.cose
    }
}

/// Checks many signatures, each against its prepared key; the verdicts are those of [`SignedReceipt::verify_signature`], in order.
///
/// This is no batch equation: see the note in `cose::verify` on why one could not be part of a consensus verdict.
#[must_use]
pub fn verify_batch(items: &[(&SignedReceipt, &PreparedKey)]) -> Vec<Result<(), ReceiptError>> {
    let items: Vec<_> = items
        .iter()
        .map(|(receipt, key)| Item {
            key,
            message: cose::signed_bytes(Kind::Receipt, &receipt.core.keyset, &receipt.payload),
            signature: &receipt.signature,
        })
        .collect();
    let verdict = |good| {
        if good {
            Ok(())
        } else {
            Err(cose::mismatch(Kind::Receipt))
        }
    };
    prepared::verify(&items).into_iter().map(verdict).collect()
}
