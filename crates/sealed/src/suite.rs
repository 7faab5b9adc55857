//! Cipher suites: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256 and one of two AEADs (RFC 9180, section 7).

use crate::error::SealedError;

/// `DHKEM(X25519, HKDF-SHA256)`.
pub(crate) const KEM: u16 = 0x0020;
/// `HKDF-SHA256`.
pub(crate) const KDF: u16 = 0x0001;
/// Bytes of a public key and of an encapsulated one.
pub(crate) const KEY: usize = 32;
/// Bytes of a nonce of every AEAD here.
pub(crate) const NONCE: usize = 12;
/// Bytes of a tag of every AEAD here.
pub(crate) const TAG: usize = 16;

/// The AEAD of a suite; its other algorithms are fixed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Suite {
    /// AES-128-GCM: what every implementation of Oblivious HTTP has.
    Aes128Gcm,
    /// AES-256-GCM: the default of direct requests; in browsers' own cryptography.
    Aes256Gcm,
}

impl Suite {
    /// Every suite, the preferred one first.
    pub const ALL: [Self; 2] = [Self::Aes256Gcm, Self::Aes128Gcm];

    /// Identifier of the AEAD.
    #[must_use]
    pub const fn aead_id(self) -> u16 {
        match self {
            Self::Aes128Gcm => 0x0001,
            Self::Aes256Gcm => 0x0002,
        }
    }

    /// The suite of three identifiers.
    ///
    /// # Errors
    /// [`SealedError::Algorithm`].
    pub fn from_ids(kem: u16, kdf: u16, aead: u16) -> Result<Self, SealedError> {
        let wrong = |what, expected, got| Err(SealedError::Algorithm { what, expected, got });
        if kem != KEM {
            return wrong("the KEM", "0x0020 (X25519, HKDF-SHA256)", kem);
        }
        if kdf != KDF {
            return wrong("the KDF", "0x0001 (HKDF-SHA256)", kdf);
        }
        match Self::ALL.into_iter().find(|suite| suite.aead_id() == aead) {
            Some(suite) => Ok(suite),
            None => wrong("the AEAD", "0x0001 (AES-128-GCM) or 0x0002 (AES-256-GCM)", aead),
        }
    }

    /// Bytes of a key (`Nk`).
    pub(crate) const fn key_bytes(self) -> usize {
        match self {
            Self::Aes128Gcm => 16,
            Self::Aes256Gcm => 32,
        }
    }

    /// Bytes of an exported secret and of a response nonce: `max(Nn, Nk)` (RFC 9458, section 4.4).
    pub(crate) const fn secret_bytes(self) -> usize {
        let key = self.key_bytes();
        if key > NONCE { key } else { NONCE }
    }
}

/// Key identifier and algorithms at the start of every sealed request (RFC 9458, section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) key_id: u8,
    pub(crate) suite: Suite,
}

impl Header {
    /// Its length.
    pub(crate) const BYTES: usize = 7;

    pub(crate) fn to_bytes(self) -> [u8; Self::BYTES] {
        let ([a, b], [c, d], [e, f]) = (KEM.to_be_bytes(), KDF.to_be_bytes(), self.suite.aead_id().to_be_bytes());
        [self.key_id, a, b, c, d, e, f]
    }

    /// Reads a header and the encapsulated key after it; returns what follows.
    pub(crate) fn read(bytes: &[u8]) -> Result<(Self, [u8; KEY], &[u8]), SealedError> {
        let short = SealedError::Truncated {
            what: "the sealed request",
        };
        let Some(([key_id, a, b, c, d, e, f], rest)) = bytes.split_first_chunk::<{ Self::BYTES }>() else {
            return Err(short);
        };
        let id = |high: &u8, low: &u8| u16::from_be_bytes([*high, *low]);
        let suite = Suite::from_ids(id(a, b), id(c, d), id(e, f))?;
        let (encapsulated, rest) = rest.split_first_chunk::<KEY>().ok_or(short)?;
        let key_id = *key_id;
        Ok((Self { key_id, suite }, *encapsulated, rest))
    }

    /// `label || 0 || header`, the HPKE `info` (RFC 9458, section 4.3).
    pub(crate) fn info(self, label: &str) -> Vec<u8> {
        [label.as_bytes(), &[0], &self.to_bytes()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers() {
        for suite in Suite::ALL {
            assert_eq!(Suite::from_ids(KEM, KDF, suite.aead_id()), Ok(suite));
        }
        for (kem, kdf, aead) in [(0x10, 1, 1), (0x20, 2, 1), (0x20, 1, 0xffff), (0x20, 1, 0)] {
            assert!(matches!(
                Suite::from_ids(kem, kdf, aead),
                Err(SealedError::Algorithm { .. })
            ));
        }
    }
}
