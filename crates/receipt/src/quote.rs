//! The signed quote (receipt.md §5): what a node promises before it is paid. It travels with the client, so the node
//! keeps no state for it.

use crate::{
    commit,
    cose::{self, Kind, Sign1},
    error::ReceiptError,
    fields::{Fields, write_price},
};
use alloy_primitives::{Address, B256, Bytes};
use ed25519_dalek::SigningKey;
use opg_primitives::{
    cbor::{Encoder, Limits, decode_strict},
    hash::sha256,
    ids::{KeysetDigest, ModelRoot, NodeId, ReceiptId},
    mode::{Grade, Mode},
    money::{Amount, Price},
};
use serde::{Deserialize, Serialize};

/// Version of the quote that this crate writes and reads.
pub const VERSION: u64 = 1;

/// What a node promises: this request, this model, at most this amount, until then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// EVM chain id.
    pub chain_id: u64,
    /// The node.
    pub node_id: NodeId,
    /// Keyset whose receipt key signs quote and receipt.
    pub keyset: KeysetDigest,
    /// Random, never used twice.
    pub nonce: B256,
    /// Identifier that the receipt will have.
    pub receipt_id: ReceiptId,
    /// See [`request_digest`].
    pub request_digest: B256,
    /// Content root of the model.
    pub model_root: ModelRoot,
    /// The node's ask.
    pub ask: Price,
    /// Royalty in basis points.
    pub royalty_bps: u16,
    /// Amount to sign: the charge is never more.
    pub max_amount: Amount,
    /// The node's deposit address.
    pub payee: Address,
    /// The token.
    pub asset: Address,
    /// Unix second from which the quote is void.
    pub expires: u64,
    /// Mode asked for.
    pub mode_asked: Mode,
    /// Lowest grade that satisfies.
    pub min_grade: Grade,
}

/// `SHA-256(method || 0x00 || path || 0x00 || body)`: which request a quote is for.
#[must_use]
pub fn request_digest(method: &str, path: &str, body: &[u8]) -> B256 {
    // Neither a method nor a path can hold a zero byte in HTTP, so the parts cannot run into each other.
    let mut bytes = Vec::with_capacity(method.len() + path.len() + body.len() + 2);
    bytes.extend_from_slice(method.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(path.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(body);
    sha256(&bytes)
}

impl Quote {
    /// Deterministic CBOR, the payload of the COSE message.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut e = Encoder::with_capacity(512);
        e.map(16).uint(1).uint(VERSION).uint(2).uint(self.chain_id);
        e.uint(3)
            .bytes(self.node_id.as_ref())
            .uint(4)
            .bytes(self.keyset.as_ref());
        e.uint(5)
            .bytes(self.nonce.as_slice())
            .uint(6)
            .bytes(self.receipt_id.as_ref());
        e.uint(7)
            .bytes(self.request_digest.as_slice())
            .uint(8)
            .bytes(self.model_root.as_ref());
        e.uint(9).map(3);
        write_price(&mut e, &self.ask);
        e.uint(10).uint(self.royalty_bps.into());
        e.uint(11).bytes(&self.max_amount.to_be_bytes());
        e.uint(12)
            .bytes(self.payee.as_slice())
            .uint(13)
            .bytes(self.asset.as_slice());
        e.uint(14).uint(self.expires);
        e.uint(15).uint(self.mode_asked.code().into());
        e.uint(16).uint(self.min_grade.code().into());
        e.finish()
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// [`ReceiptError`] naming the field for anything but the deterministic encoding of a quote with a receipt id that
    /// follows from chain, node and nonce.
    pub fn decode(payload: &[u8]) -> Result<Self, ReceiptError> {
        let limits = Limits {
            bytes: crate::MAX_BYTES,
            depth: 3,
            items: 64,
            tags: false,
        };
        let value = decode_strict(payload, limits).map_err(|source| ReceiptError::Cbor {
            what: "quote payload",
            source,
        })?;
        let mut f = Fields::of(value, "quote")?;
        let version = f.uint(1, "version")?;
        if version != VERSION {
            return Err(ReceiptError::value("version", VERSION, version));
        }
        let quote = Self {
            chain_id: f.uint(2, "chain_id")?,
            node_id: NodeId(f.b256(3, "node_id")?),
            keyset: KeysetDigest(f.b256(4, "keyset")?),
            nonce: f.b256(5, "quote_nonce")?,
            receipt_id: ReceiptId(f.b256(6, "receipt_id")?),
            request_digest: f.b256(7, "request_digest")?,
            model_root: ModelRoot(f.b256(8, "model_root")?),
            ask: {
                let mut ask = f.map(9, "ask")?;
                let price = ask.price()?;
                ask.end()?;
                price
            },
            royalty_bps: f.small(10, "royalty_bps")?,
            max_amount: f.amount(11, "max_amount")?,
            payee: f.address(12, "payee")?,
            asset: f.address(13, "asset")?,
            expires: f.uint(14, "expires")?,
            mode_asked: f.mode(15, "mode_asked")?,
            min_grade: f.grade(16, "min_grade")?,
        };
        f.end()?;
        let id = commit::receipt_id(quote.chain_id, &quote.node_id, &quote.nonce);
        if id != quote.receipt_id {
            return Err(ReceiptError::value("receipt_id", id, quote.receipt_id));
        }
        Ok(quote)
    }
}

/// A quote with its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedQuote {
    cose: Bytes,
    quote: Quote,
    signature: [u8; 64],
}

impl SignedQuote {
    /// Signs a quote.
    ///
    /// # Errors
    /// [`ReceiptError::Value`] if the receipt id does not follow from the other fields.
    pub fn sign(quote: Quote, key: &SigningKey) -> Result<Self, ReceiptError> {
        let cose = cose::sign(Kind::Quote, &quote.keyset, &quote.encode(), key)?;
        Self::decode(&cose)
    }

    /// Decodes COSE bytes without checking the signature.
    ///
    /// # Errors
    /// [`ReceiptError`] for anything but the one encoding of a quote.
    pub fn decode(bytes: &[u8]) -> Result<Self, ReceiptError> {
        let message = cose::decode(Kind::Quote, bytes)?;
        let quote = Quote::decode(&message.payload)?;
        if quote.keyset != message.keyset {
            return Err(ReceiptError::value("keyset", message.keyset, quote.keyset));
        }
        Ok(Self {
            cose: Bytes::copy_from_slice(bytes),
            quote,
            signature: message.signature,
        })
    }

    /// Checks the signature.
    ///
    /// # Errors
    /// [`ReceiptError::Signature`].
    pub fn verify_signature(&self, receipt_key: &[u8; 32]) -> Result<(), ReceiptError> {
        let key = cose::key(Kind::Quote, receipt_key)?;
        let payload = self.quote.encode();
        let message = Sign1 {
            keyset: self.quote.keyset,
            payload,
            signature: self.signature,
        };
        cose::verify(Kind::Quote, &message, &key)
    }

    /// The quote.
    #[must_use]
    pub const fn quote(&self) -> &Quote {
        &self.quote
    }

    /// The COSE bytes.
    #[must_use]
    pub const fn cose(&self) -> &Bytes {
        &self.cose
    }

    /// SHA-256 of the COSE bytes, as the core names it.
    #[must_use]
    pub fn digest(&self) -> B256 {
        sha256(&self.cose)
    }
}
