//! Key configurations (RFC 9458, section 3), media type `application/ohttp-keys`.

use crate::{
    error::SealedError,
    hpke::PublicKey,
    suite::{KDF, KEM, KEY, Suite},
};

/// Most bytes of a list of configurations.
pub const MAX_KEYS: usize = 16_384;
const WHAT: &str = "the key configuration";

/// One key of a gateway and the suites that it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyConfig {
    /// Identifier that requests name.
    pub key_id: u8,
    /// The key.
    pub key: PublicKey,
    /// Suites that both sides have, in the gateway's order. Never empty.
    pub suites: Vec<Suite>,
}

impl KeyConfig {
    /// Writes one configuration.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = vec![self.key_id];
        out.extend(KEM.to_be_bytes());
        out.extend(self.key.0);
        out.extend(u16::try_from(self.suites.len() * 4).unwrap_or(u16::MAX).to_be_bytes());
        for suite in &self.suites {
            out.extend(KDF.to_be_bytes());
            out.extend(suite.aead_id().to_be_bytes());
        }
        out
    }

    /// Reads one configuration. Suites that are not offered here are left out.
    ///
    /// # Errors
    /// [`SealedError::Truncated`], [`SealedError::Malformed`], [`SealedError::Algorithm`] for another KEM or no common
    /// suite.
    pub fn parse(bytes: &[u8]) -> Result<Self, SealedError> {
        let short = SealedError::Truncated { what: WHAT };
        let ([key_id, high, low], rest) = bytes.split_first_chunk().ok_or(short.clone())?;
        let kem = u16::from_be_bytes([*high, *low]);
        if kem != KEM {
            return Err(SealedError::Algorithm {
                what: "the KEM of the key configuration",
                expected: "0x0020 (X25519, HKDF-SHA256)",
                got: kem,
            });
        }
        let (key, rest) = rest.split_first_chunk::<KEY>().ok_or(short.clone())?;
        let (length, rest) = rest.split_first_chunk().ok_or(short)?;
        let length = usize::from(u16::from_be_bytes(*length));
        if length != rest.len() || length % 4 != 0 || length == 0 {
            return Err(SealedError::Malformed {
                what: WHAT,
                why: "the list of algorithms does not end with it",
            });
        }
        let suites: Vec<Suite> = rest
            .chunks_exact(4)
            .filter_map(|ids| match ids {
                [a, b, c, d] => Suite::from_ids(KEM, u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])).ok(),
                _ => None,
            })
            .collect();
        if suites.is_empty() {
            return Err(SealedError::Algorithm {
                what: "every suite of the key configuration",
                expected: "HKDF-SHA256 with an AEAD of this crate",
                got: 0,
            });
        }
        Ok(Self {
            key_id: *key_id,
            key: PublicKey(*key),
            suites,
        })
    }

    /// Writes a list, each configuration behind its length.
    #[must_use]
    pub fn list_to_bytes(list: &[Self]) -> Vec<u8> {
        let mut out = Vec::new();
        for config in list {
            let bytes = config.to_bytes();
            out.extend(u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes());
            out.extend(bytes);
        }
        out
    }

    /// Reads a list. Configurations of other algorithms are left out, as the RFC asks; broken ones are refused.
    ///
    /// # Errors
    /// [`SealedError::TooLong`] beyond [`MAX_KEYS`], [`SealedError::Truncated`], [`SealedError::Malformed`].
    pub fn parse_list(bytes: &[u8]) -> Result<Vec<Self>, SealedError> {
        if bytes.len() > MAX_KEYS {
            return Err(SealedError::TooLong {
                what: "the list of key configurations",
                limit: MAX_KEYS,
                got: bytes.len(),
            });
        }
        let mut found = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let short = SealedError::Truncated { what: WHAT };
            let (length, tail) = rest.split_first_chunk().ok_or(short.clone())?;
            let length = usize::from(u16::from_be_bytes(*length));
            let (one, tail) = tail.split_at_checked(length).ok_or(short)?;
            match Self::parse(one) {
                Ok(config) => found.push(config),
                Err(SealedError::Algorithm { .. }) => {}
                Err(error) => return Err(error),
            }
            rest = tail;
        }
        Ok(found)
    }
}
