//! Oblivious HTTP (RFC 9458) and its chunked form (draft-ietf-ohai-chunked-ohttp-08), client and gateway.
//!
//! The relay between them sees the client's address and opaque bytes, the gateway the request and the relay's address.
//! That holds only while the two do not pool what they see.
//!
//! ```
//! use opg_sealed::{PrivateKey, Suite, ohttp::{Client, Gateway, KeyConfig}};
//!
//! let gateway = Gateway::new(vec![(1, PrivateKey::derive(&[7; 32]))]);
//! let keys = KeyConfig::parse_list(&gateway.keys())?;
//!
//! let (sealed, waiting) = Client::new(&keys[0], Suite::Aes128Gcm)?.encapsulate(b"request", &[8; 32])?;
//! let (request, answer) = gateway.decapsulate(&sealed)?;
//! assert_eq!(request, b"request");
//! assert_eq!(waiting.decapsulate(&answer.encapsulate(b"answer", &[9; 32])?)?, b"answer");
//! # Ok::<(), opg_sealed::SealedError>(())
//! ```

mod config;

pub use config::{KeyConfig, MAX_KEYS};

use crate::{
    chunk::{ChunkOpener, ChunkSealer, Open, Seal},
    error::SealedError,
    hpke::{PrivateKey, PublicKey, Receiver, Sender},
    response::{ResponseOpener, ResponseSecret},
    suite::{Header, KEY, Suite},
};
use sha2::{Digest as _, Sha256};

/// Media type of a request.
pub const REQUEST_TYPE: &str = "message/ohttp-req";
/// Media type of a response.
pub const RESPONSE_TYPE: &str = "message/ohttp-res";
/// Media type of a chunked request.
pub const CHUNKED_REQUEST_TYPE: &str = "message/ohttp-chunked-req";
/// Media type of a chunked response.
pub const CHUNKED_RESPONSE_TYPE: &str = "message/ohttp-chunked-res";
/// Media type of a list of key configurations.
pub const KEYS_TYPE: &str = "application/ohttp-keys";
/// Most bytes of a message that is not chunked.
pub const MAX_MESSAGE: usize = 16 << 20;

const REQUEST: &str = "message/bhttp request";
const RESPONSE: &str = "message/bhttp response";
const CHUNKED_REQUEST: &str = "message/bhttp chunked request";
const CHUNKED_RESPONSE: &str = "message/bhttp chunked response";

fn check(what: &'static str, got: usize) -> Result<(), SealedError> {
    if got > MAX_MESSAGE {
        return Err(SealedError::TooLong {
            what,
            limit: MAX_MESSAGE,
            got,
        });
    }
    Ok(())
}

/// One request of a client.
#[derive(Debug, Clone, Copy)]
pub struct Client {
    header: Header,
    key: PublicKey,
}

impl Client {
    /// A request under a key of a gateway.
    ///
    /// # Errors
    /// [`SealedError::Algorithm`] if the gateway does not take the suite.
    pub fn new(config: &KeyConfig, suite: Suite) -> Result<Self, SealedError> {
        if !config.suites.contains(&suite) {
            return Err(SealedError::Algorithm {
                what: "the AEAD",
                expected: "one that the gateway takes",
                got: suite.aead_id(),
            });
        }
        let key_id = config.key_id;
        Ok(Self {
            header: Header { key_id, suite },
            key: config.key,
        })
    }

    fn sender(&self, label: &str, entropy: &[u8; 32]) -> Result<Sender, SealedError> {
        Sender::new(self.header.suite, &self.key, &self.header.info(label), entropy)
    }

    /// Encapsulates a whole request, a Binary HTTP message. `entropy` must be 32 random bytes, used once.
    ///
    /// # Errors
    /// [`SealedError::BadKey`], [`SealedError::TooLong`].
    pub fn encapsulate(self, request: &[u8], entropy: &[u8; 32]) -> Result<(Vec<u8>, ClientResponse), SealedError> {
        check("the request", request.len())?;
        let mut sender = self.sender(REQUEST, entropy)?;
        let sealed = sender.seal(b"", request)?;
        let secret = exported(&sender, RESPONSE)?;
        let message = [&self.header.to_bytes()[..], sender.encapsulated(), &sealed].concat();
        Ok((message, ClientResponse(secret)))
    }

    /// Starts a chunked request: its first bytes, a sealer for the rest, and what opens the chunked answer.
    ///
    /// # Errors
    /// As [`Client::encapsulate`].
    pub fn start(self, entropy: &[u8; 32]) -> Result<(Vec<u8>, ChunkSealer, ResponseOpener), SealedError> {
        let sender = self.sender(CHUNKED_REQUEST, entropy)?;
        let opener = exported(&sender, CHUNKED_RESPONSE)?.opener();
        let start = [&self.header.to_bytes()[..], sender.encapsulated()].concat();
        Ok((start, ChunkSealer::new(Seal::Request(sender)), opener))
    }
}

fn exported(sender: &Sender, label: &str) -> Result<ResponseSecret, SealedError> {
    let secret = sender.export(label.as_bytes(), sender.suite().secret_bytes())?;
    Ok(ResponseSecret::new(sender.suite(), *sender.encapsulated(), secret))
}

/// What opens the answer to one request.
#[derive(Debug)]
pub struct ClientResponse(ResponseSecret);

impl ClientResponse {
    /// Opens a whole response.
    ///
    /// # Errors
    /// [`SealedError::Truncated`], [`SealedError::TooLong`], [`SealedError::Forged`].
    pub fn decapsulate(self, sealed: &[u8]) -> Result<Vec<u8>, SealedError> {
        check("the response", sealed.len())?;
        let (nonce, sealed) = self.0.split(sealed).ok_or(SealedError::Truncated {
            what: "the sealed response",
        })?;
        self.0.keyed(nonce)?.open(b"", sealed)
    }
}

/// Keys of a gateway.
#[derive(Debug, Clone)]
pub struct Gateway(Vec<(u8, PrivateKey)>);

impl Gateway {
    /// A gateway of keys by identifier; the newest first. Old ones stay while clients may still hold them.
    #[must_use]
    pub const fn new(keys: Vec<(u8, PrivateKey)>) -> Self {
        Self(keys)
    }

    /// The list of configurations that clients fetch.
    #[must_use]
    pub fn keys(&self) -> Vec<u8> {
        let configs: Vec<KeyConfig> = self
            .0
            .iter()
            .map(|(key_id, key)| KeyConfig {
                key_id: *key_id,
                key: key.public(),
                suites: Suite::ALL.to_vec(),
            })
            .collect();
        KeyConfig::list_to_bytes(&configs)
    }

    fn receiver(&self, header: Header, encapsulated: &[u8; KEY], label: &str) -> Result<Receiver, SealedError> {
        let (_, key) = self
            .0
            .iter()
            .find(|(key_id, _)| *key_id == header.key_id)
            .ok_or(SealedError::UnknownKey { got: header.key_id })?;
        Receiver::new(header.suite, key, encapsulated, &header.info(label))
    }

    /// Opens a whole request.
    ///
    /// # Errors
    /// [`SealedError::UnknownKey`], [`SealedError::Algorithm`], [`SealedError::Truncated`], [`SealedError::TooLong`],
    /// [`SealedError::BadKey`], [`SealedError::Forged`].
    pub fn decapsulate(&self, sealed: &[u8]) -> Result<(Vec<u8>, GatewayResponse), SealedError> {
        check("the request", sealed.len())?;
        let (header, encapsulated, sealed) = Header::read(sealed)?;
        let mut receiver = self.receiver(header, &encapsulated, REQUEST)?;
        let request = receiver.open(b"", sealed)?;
        let secret = receiver.export(RESPONSE.as_bytes(), header.suite.secret_bytes())?;
        let secret = ResponseSecret::new(header.suite, encapsulated, secret);
        Ok((request, GatewayResponse(secret)))
    }

    /// Starts to open a chunked request, of which the first [`START`] bytes have come: an opener for the bytes after
    /// them, and the keys of the chunked answer.
    ///
    /// # Errors
    /// As [`Gateway::decapsulate`].
    pub fn start(&self, start: &[u8; START]) -> Result<(ChunkOpener, ResponseSecret), SealedError> {
        let (header, encapsulated, _) = Header::read(start)?;
        let receiver = self.receiver(header, &encapsulated, CHUNKED_REQUEST)?;
        let secret = receiver.export(CHUNKED_RESPONSE.as_bytes(), header.suite.secret_bytes())?;
        let secret = ResponseSecret::new(header.suite, encapsulated, secret);
        Ok((ChunkOpener::new(Open::Request(receiver)), secret))
    }
}

/// What is the same for the same request bytes and for no others, whole or chunked: SHA-256 of the encapsulated key,
/// which a client makes anew for every request. Only its first [`START`] bytes are needed. Refuse one that was seen while
/// the key lives (RFC 9458, section 6.5), and remember it only after the request has authenticated.
///
/// # Errors
/// [`SealedError::Truncated`], [`SealedError::Algorithm`].
pub fn replay_id(sealed: &[u8]) -> Result<[u8; 32], SealedError> {
    let (_, encapsulated, _) = Header::read(sealed)?;
    Ok(Sha256::digest(encapsulated).into())
}

/// Bytes of a chunked request before its first chunk.
pub const START: usize = Header::BYTES + KEY;

/// What seals the answer to one request.
#[derive(Debug)]
pub struct GatewayResponse(ResponseSecret);

impl GatewayResponse {
    /// Seals a whole response, a Binary HTTP message. `entropy` must be 32 random bytes, used once.
    ///
    /// # Errors
    /// [`SealedError::TooLong`].
    pub fn encapsulate(self, response: &[u8], entropy: &[u8; 32]) -> Result<Vec<u8>, SealedError> {
        check("the response", response.len())?;
        let nonce = self.0.nonce(entropy);
        let sealed = self.0.keyed(nonce)?.seal(b"", response)?;
        Ok([nonce, &sealed].concat())
    }
}
