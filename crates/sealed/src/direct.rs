//! A request body sealed to an attested key, without a relay.
//!
//! `key id (1) || KEM (2) || KDF (2) || AEAD (2) || encapsulated key (32) || sealed body`, as an Oblivious HTTP request,
//! with labels of its own, so that neither is ever taken for the other. The associated data is
//! `"opg/sealed-request/v1" || header || dCBOR(binding)`; the binding is not sent, both sides know it:
//!
//! | key | field | form |
//! |---|---|---|
//! | 1 | chain id | integer |
//! | 2 | route: method and path | text, 1 to 256 bytes |
//! | 3 | model asked for | text, 1 to 256 bytes |
//! | 4 | digest of the quote that is accepted | 32 bytes |
//! | 5 | keyset digest that the evidence binds | 32 bytes |
//! | 6 | payer | 20 bytes |
//!
//! The answer is its nonce and a stream of chunks ([`crate::ChunkSealer`]) under keys exported with the label
//! `opg/sealed-response/v1`.

use crate::{
    error::SealedError,
    hpke::{PrivateKey, PublicKey, Receiver, Sender},
    response::ResponseSecret,
    suite::{Header, Suite},
};
use opg_primitives::{cbor::Encoder, domain::Tag};
use sha2::{Digest as _, Sha256};

/// Most bytes of a body.
pub const MAX_BODY: usize = 16 << 20;

/// What a sealed request is bound to. A request that is opened under another binding does not authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Binding<'a> {
    /// Chain on which the keyset is registered.
    pub chain_id: u64,
    /// Method and path.
    pub route: &'a str,
    /// Model asked for.
    pub model: &'a str,
    /// Digest of the quote (price and terms) that the client accepts.
    pub quote: [u8; 32],
    /// Digest of the attested keyset that holds the key.
    pub keyset: [u8; 32],
    /// Who pays.
    pub payer: [u8; 20],
}

impl Binding<'_> {
    fn aad(&self, header: Header) -> Result<Vec<u8>, SealedError> {
        for (what, text) in [("the route", self.route), ("the model", self.model)] {
            if text.is_empty() {
                return Err(SealedError::Malformed { what, why: "empty" });
            }
            if text.len() > 256 {
                return Err(SealedError::TooLong {
                    what,
                    limit: 256,
                    got: text.len(),
                });
            }
        }
        let mut cbor = Encoder::with_capacity(640);
        cbor.map(6);
        cbor.uint(1).uint(self.chain_id);
        cbor.uint(2).text(self.route);
        cbor.uint(3).text(self.model);
        cbor.uint(4).bytes(&self.quote);
        cbor.uint(5).bytes(&self.keyset);
        cbor.uint(6).bytes(&self.payer);
        Ok([
            Tag::SealedRequest.as_str().as_bytes(),
            &header.to_bytes(),
            &cbor.finish(),
        ]
        .concat())
    }
}

/// Seals a body. `entropy` must be 32 random bytes, used once.
///
/// # Errors
/// [`SealedError::BadKey`], [`SealedError::TooLong`] for more than [`MAX_BODY`] bytes, [`SealedError::Malformed`] or
/// [`SealedError::TooLong`] for the binding's texts.
pub fn seal(
    key_id: u8,
    suite: Suite,
    key: &PublicKey,
    binding: &Binding<'_>,
    body: &[u8],
    entropy: &[u8; 32],
) -> Result<(Vec<u8>, ResponseSecret), SealedError> {
    check_body(body.len())?;
    let header = Header { key_id, suite };
    let mut sender = Sender::new(suite, key, &header.info(Tag::SealedRequest.as_str()), entropy)?;
    let sealed = sender.seal(&binding.aad(header)?, body)?;
    let secret = sender.export(Tag::SealedResponse.as_str().as_bytes(), suite.secret_bytes())?;
    let secret = ResponseSecret::new(suite, *sender.encapsulated(), secret);
    Ok((
        [&header.to_bytes()[..], sender.encapsulated(), &sealed].concat(),
        secret,
    ))
}

/// A request that was opened.
#[derive(Debug)]
pub struct Opened {
    /// The body.
    pub body: Vec<u8>,
    /// Keys of the answer.
    pub secret: ResponseSecret,
    /// The same for the same sealed bytes, and for no others: SHA-256 of the encapsulated key, which a sender makes anew
    /// for every request. Refuse one that was seen while the key lives.
    pub replay_id: [u8; 32],
}

/// Opens a request with the key that it names.
///
/// # Errors
/// [`SealedError::UnknownKey`], [`SealedError::Algorithm`], [`SealedError::Truncated`], [`SealedError::TooLong`],
/// [`SealedError::BadKey`], [`SealedError::Forged`] for altered bytes or another binding.
pub fn open(keys: &[(u8, &PrivateKey)], binding: &Binding<'_>, sealed: &[u8]) -> Result<Opened, SealedError> {
    check_body(sealed.len().saturating_sub(64))?;
    let (header, encapsulated, body) = Header::read(sealed)?;
    let (_, key) = keys
        .iter()
        .find(|(key_id, _)| *key_id == header.key_id)
        .ok_or(SealedError::UnknownKey { got: header.key_id })?;
    let info = header.info(Tag::SealedRequest.as_str());
    let mut receiver = Receiver::new(header.suite, key, &encapsulated, &info)?;
    let body = receiver.open(&binding.aad(header)?, body)?;
    let secret = receiver.export(Tag::SealedResponse.as_str().as_bytes(), header.suite.secret_bytes())?;
    Ok(Opened {
        body,
        secret: ResponseSecret::new(header.suite, encapsulated, secret),
        replay_id: Sha256::digest(encapsulated).into(),
    })
}

const fn check_body(got: usize) -> Result<(), SealedError> {
    if got > MAX_BODY {
        return Err(SealedError::TooLong {
            what: "the body",
            limit: MAX_BODY,
            got,
        });
    }
    Ok(())
}
