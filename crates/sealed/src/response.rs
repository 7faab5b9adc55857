//! Keys of an answer, exported from the context of its request (RFC 9458, section 4.4), so that nobody who cannot open
//! the request can answer it.

use crate::{
    chunk::{ChunkOpener, ChunkSealer, Open, Seal},
    error::SealedError,
    suite::{KEY, NONCE, Suite},
};
use aes_gcm::{
    Aes128Gcm, Aes256Gcm, KeyInit as _,
    aead::{Aead as _, Payload},
};
use hkdf::Hkdf;
use sha2::Sha256;
use std::fmt;
use zeroize::Zeroizing;

/// What both sides hold for one answer, until its nonce is known.
pub struct ResponseSecret {
    suite: Suite,
    encapsulated: [u8; KEY],
    secret: Zeroizing<Vec<u8>>,
}

impl ResponseSecret {
    pub(crate) const fn new(suite: Suite, encapsulated: [u8; KEY], secret: Zeroizing<Vec<u8>>) -> Self {
        Self {
            suite,
            encapsulated,
            secret,
        }
    }

    /// Keys under a response nonce of [`Suite::secret_bytes`].
    pub(crate) fn keyed(&self, nonce: &[u8]) -> Result<Keyed, SealedError> {
        let salt = [&self.encapsulated[..], nonce].concat();
        let derive = Hkdf::<Sha256>::new(Some(&salt), &self.secret);
        let mut key = Zeroizing::new(vec![0; self.suite.key_bytes()]);
        let mut base = [0; NONCE];
        // Both lengths are far below HKDF's limit.
        derive
            .expand(b"key", &mut key)
            .and_then(|()| derive.expand(b"nonce", &mut base))
            .map_err(|_| SealedError::Exhausted)?;
        Keyed::new(self.suite, &key, base)
    }

    /// The part of 32 random bytes that is used as a nonce.
    pub(crate) fn nonce<'a>(&self, entropy: &'a [u8; 32]) -> &'a [u8] {
        entropy.get(..self.suite.secret_bytes()).unwrap_or(entropy)
    }

    /// Nonce and sealed bytes of a whole response.
    pub(crate) fn split<'a>(&self, response: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        response.split_at_checked(self.suite.secret_bytes())
    }

    /// A sealer for the answer, and the first bytes of the answer (its nonce). `entropy` must be random and used once.
    ///
    /// # Errors
    /// None with the suites of this crate.
    pub fn sealer(self, entropy: &[u8; 32]) -> Result<(Vec<u8>, ChunkSealer), SealedError> {
        let nonce = self.nonce(entropy);
        let keyed = self.keyed(nonce)?;
        Ok((nonce.to_vec(), ChunkSealer::new(Seal::Response(keyed))))
    }

    /// An opener for the answer.
    #[must_use]
    pub const fn opener(self) -> ResponseOpener {
        ResponseOpener(Stage::Nonce(self, Vec::new()))
    }
}

impl fmt::Debug for ResponseSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseSecret")
            .field("suite", &self.suite)
            .finish_non_exhaustive()
    }
}

/// Opens an answer that arrives in pieces of any size.
#[derive(Debug)]
pub struct ResponseOpener(Stage);

#[derive(Debug)]
enum Stage {
    Nonce(ResponseSecret, Vec<u8>),
    Chunks(ChunkOpener),
}

impl ResponseOpener {
    /// Takes bytes of the answer and returns the chunks that they complete, without the last one.
    ///
    /// # Errors
    /// As [`ChunkOpener::push`].
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Vec<u8>>, SealedError> {
        let mut bytes = bytes;
        if let Stage::Nonce(secret, held) = &mut self.0 {
            let missing = secret.suite.secret_bytes().saturating_sub(held.len());
            let (part, rest) = bytes.split_at(missing.min(bytes.len()));
            held.extend(part);
            if part.len() < missing {
                return Ok(Vec::new());
            }
            bytes = rest;
            let keyed = secret.keyed(held)?;
            self.0 = Stage::Chunks(ChunkOpener::new(Open::Response(keyed)));
        }
        match &mut self.0 {
            Stage::Chunks(opener) => opener.push(bytes),
            Stage::Nonce(..) => Ok(Vec::new()),
        }
    }

    /// To be called when the answer has ended: opens the last chunk.
    ///
    /// # Errors
    /// As [`ChunkOpener::finish`].
    pub fn finish(&mut self) -> Result<Vec<u8>, SealedError> {
        match &mut self.0 {
            Stage::Chunks(opener) => opener.finish(),
            Stage::Nonce(..) => Err(SealedError::Truncated {
                what: "the sealed stream",
            }),
        }
    }
}

enum Cipher {
    Aes128Gcm(Box<Aes128Gcm>),
    Aes256Gcm(Box<Aes256Gcm>),
}

/// An AEAD key with a nonce that counts.
pub(crate) struct Keyed {
    cipher: Cipher,
    base: [u8; NONCE],
    next: u64,
}

impl Keyed {
    fn new(suite: Suite, key: &[u8], base: [u8; NONCE]) -> Result<Self, SealedError> {
        let cipher = match suite {
            Suite::Aes128Gcm => Aes128Gcm::new_from_slice(key).map(|it| Cipher::Aes128Gcm(Box::new(it))),
            Suite::Aes256Gcm => Aes256Gcm::new_from_slice(key).map(|it| Cipher::Aes256Gcm(Box::new(it))),
        };
        let cipher = cipher.map_err(|_| SealedError::Malformed {
            what: "an AEAD key",
            why: "of another length than the suite's",
        })?;
        Ok(Self { cipher, base, next: 0 })
    }

    /// `base XOR counter`, the counter big-endian on the right (RFC 9180, section 5.2).
    fn nonce(&mut self) -> Result<[u8; NONCE], SealedError> {
        let counter = self.next;
        self.next = counter.checked_add(1).ok_or(SealedError::Exhausted)?;
        let mut nonce = self.base;
        for (byte, count) in nonce.iter_mut().rev().zip(counter.to_be_bytes().iter().rev()) {
            *byte ^= count;
        }
        Ok(nonce)
    }

    pub(crate) fn seal(&mut self, aad: &[u8], message: &[u8]) -> Result<Vec<u8>, SealedError> {
        let nonce = self.nonce()?.into();
        let payload = Payload { msg: message, aad };
        match &self.cipher {
            Cipher::Aes128Gcm(cipher) => cipher.encrypt(&nonce, payload),
            Cipher::Aes256Gcm(cipher) => cipher.encrypt(&nonce, payload),
        }
        .map_err(|_| SealedError::Exhausted)
    }

    pub(crate) fn open(&mut self, aad: &[u8], sealed: &[u8]) -> Result<Vec<u8>, SealedError> {
        let nonce = self.nonce()?.into();
        let payload = Payload { msg: sealed, aad };
        match &self.cipher {
            Cipher::Aes128Gcm(cipher) => cipher.decrypt(&nonce, payload),
            Cipher::Aes256Gcm(cipher) => cipher.decrypt(&nonce, payload),
        }
        .map_err(|_| SealedError::Forged { what: "a chunk" })
    }
}
