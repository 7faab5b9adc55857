//! Sign-In with Ethereum (EIP-4361): the message a wallet signs to get an access token.
//!
//! The message names the hub (domain and URI), a nonce that the hub gave out once, what the token may do (a resource
//! `urn:opg:hub:scope:read` or `…:write`) and when it ends (`Expiration Time`). So a signature made for another site,
//! another time or fewer rights is worth nothing here, and the wallet shows the rights before it signs.
//!
//! ```
//! use opg_hub::siwe::{Message, Scope};
//!
//! let message = Message {
//!     domain: "hub.example".into(),
//!     address: "0xFCAd0B19bB29D4674531d6f115237E16AfCE377c".parse()?,
//!     uri: "https://hub.example".into(),
//!     chain_id: 10_740,
//!     nonce: "5f2c8a90b1d34e67".into(),
//!     issued_at: "2026-11-21T08:00:00Z".into(),
//!     expires_at: "2026-12-21T08:00:00Z".into(),
//!     scope: Scope::Write,
//! };
//! assert_eq!(Message::parse(&message.to_string())?, message);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use alloy_primitives::{Address, eip191_hash_message};
use secp256k1::{
    Message as Digest, SECP256K1, SecretKey,
    ecdsa::{RecoverableSignature, RecoveryId},
};
use std::fmt;

/// Longest message, in bytes.
pub const MESSAGE_LIMIT: usize = 2_048;
/// The sentence in the message.
pub const STATEMENT: &str = "Create an access token for this model hub. This costs nothing and moves no money.";
const SCOPE_URN: &str = "urn:opg:hub:scope:";

/// What a token may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Read what its account may read.
    Read,
    /// Also change what its account may change.
    Write,
}

impl Scope {
    /// The word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
}

/// Why a message or signature is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SiweError {
    /// The text is not the message that this module writes.
    #[error("message line {line}: expected {expected}")]
    Line {
        /// Line, from 1.
        line: usize,
        /// What belongs there.
        expected: &'static str,
    },
    /// The text is too long.
    #[error("message of {got} bytes, at most {MESSAGE_LIMIT} are accepted")]
    TooLong {
        /// Size found.
        got: usize,
    },
    /// The signature is not 65 bytes `r ‖ s ‖ v` with a low `s`.
    #[error("signature: {0}")]
    Signature(&'static str),
    /// Another key signed.
    #[error("the signature is of {got}, the message names {expected}")]
    Signer {
        /// Address in the message.
        expected: Address,
        /// Address of the signing key.
        got: Address,
    },
}

/// A sign-in message. Times are RFC 3339, kept as text so that the signed bytes are reproduced exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Host and port of the hub.
    pub domain: String,
    /// Who signs in.
    pub address: Address,
    /// URL of the hub.
    pub uri: String,
    /// Chain the wallet is connected to; the hub takes any.
    pub chain_id: u64,
    /// Nonce from the hub.
    pub nonce: String,
    /// When the message was made.
    pub issued_at: String,
    /// When the token ends.
    pub expires_at: String,
    /// What the token may do.
    pub scope: Scope,
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} wants you to sign in with your Ethereum account:\n{}\n\n{STATEMENT}\n\nURI: {}\nVersion: 1\nChain ID: {}\n\
             Nonce: {}\nIssued At: {}\nExpiration Time: {}\nResources:\n- {SCOPE_URN}{}",
            self.domain,
            self.address.to_checksum(None),
            self.uri,
            self.chain_id,
            self.nonce,
            self.issued_at,
            self.expires_at,
            self.scope.as_str()
        )
    }
}

impl Message {
    /// Reads a message. Only the exact form that `Display` writes is accepted.
    ///
    /// # Errors
    /// [`SiweError`] with the first line that differs.
    pub fn parse(text: &str) -> Result<Self, SiweError> {
        if text.len() > MESSAGE_LIMIT {
            return Err(SiweError::TooLong { got: text.len() });
        }
        let mut lines = text.split('\n').zip(1usize..);
        let mut next = |expected: &'static str, prefix: &str, suffix: &str| {
            let (text, line) = lines.next().unwrap_or(("", 0));
            text.strip_prefix(prefix)
                .and_then(|rest| rest.strip_suffix(suffix))
                .map(str::to_owned)
                .ok_or(SiweError::Line { line, expected })
        };
        let domain = next(
            "\"<domain> wants you to sign in with your Ethereum account:\"",
            "",
            " wants you to sign in with your Ethereum account:",
        )?;
        let address = next("an address", "", "")?;
        let address = Address::parse_checksummed(&address, None).map_err(|_| SiweError::Line {
            line: 2,
            expected: "an address with the checksum of EIP-55",
        })?;
        let empty = "an empty line";
        let lone = |got: String, line, expected| {
            if got.is_empty() {
                Ok(())
            } else {
                Err(SiweError::Line { line, expected })
            }
        };
        lone(next(empty, "", "")?, 3, empty)?;
        lone(next(STATEMENT, STATEMENT, "")?, 4, STATEMENT)?;
        lone(next(empty, "", "")?, 5, empty)?;
        let uri = next("URI: <url>", "URI: ", "")?;
        lone(next("Version: 1", "Version: 1", "")?, 7, "Version: 1")?;
        let chain_id = next("Chain ID: <number>", "Chain ID: ", "")?;
        let chain_id = chain_id.parse().map_err(|_| SiweError::Line {
            line: 8,
            expected: "Chain ID: <number>",
        })?;
        let nonce = next("Nonce: <nonce>", "Nonce: ", "")?;
        let issued_at = next("Issued At: <time>", "Issued At: ", "")?;
        let expires_at = next("Expiration Time: <time>", "Expiration Time: ", "")?;
        lone(next("Resources:", "Resources:", "")?, 12, "Resources:")?;
        let scope = match next("- urn:opg:hub:scope:<read or write>", "- urn:opg:hub:scope:", "")?.as_str() {
            "read" => Scope::Read,
            "write" => Scope::Write,
            _ => {
                return Err(SiweError::Line {
                    line: 13,
                    expected: "scope read or write",
                });
            }
        };
        let message = Self {
            domain,
            address,
            uri,
            chain_id,
            nonce,
            issued_at,
            expires_at,
            scope,
        };
        // Also refuses what follows, numbers with leading zeros, and carriage returns.
        if message.to_string() != text {
            return Err(SiweError::Line {
                line: 0,
                expected: "exactly the lines of an EIP-4361 message with one scope",
            });
        }
        Ok(message)
    }

    /// Signs as a wallet does (`personal_sign`, EIP-191).
    #[must_use]
    pub fn sign(&self, key: &SecretKey) -> [u8; 65] {
        let digest = Digest::from_digest(eip191_hash_message(self.to_string()).0);
        let (id, compact) = SECP256K1.sign_ecdsa_recoverable(&digest, key).serialize_compact();
        let mut signature = [0; 65];
        for (to, from) in signature.iter_mut().zip(compact) {
            *to = from;
        }
        // The recovery id of a signature is 0 or 1 in practice; 27 is Ethereum's offset.
        if let Some(last) = signature.last_mut() {
            *last = 27 + u8::try_from(i32::from(id)).unwrap_or(0);
        }
        signature
    }

    /// Checks that the address in the message signed it.
    ///
    /// # Errors
    /// [`SiweError::Signature`], [`SiweError::Signer`].
    pub fn verify(&self, signature: &[u8]) -> Result<(), SiweError> {
        let no = SiweError::Signature;
        let bytes: &[u8; 65] = signature.try_into().map_err(|_| no("expected 65 bytes"))?;
        let (compact, v) = bytes.split_at(64);
        let v = match v.first() {
            Some(0 | 27) => RecoveryId::Zero,
            Some(1 | 28) => RecoveryId::One,
            _ => return Err(no("expected v of 0, 1, 27 or 28")),
        };
        let recoverable = RecoverableSignature::from_compact(compact, v).map_err(|_| no("r or s is out of range"))?;
        let standard = recoverable.to_standard();
        let mut low = standard;
        low.normalize_s();
        if low != standard {
            return Err(no("s is in the upper half; normalise it (EIP-2)"));
        }
        let digest = Digest::from_digest(eip191_hash_message(self.to_string()).0);
        let key = SECP256K1
            .recover_ecdsa(&digest, &recoverable)
            .map_err(|_| no("no key belongs to it"))?;
        let got = address_of(&key);
        if got != self.address {
            return Err(SiweError::Signer {
                expected: self.address,
                got,
            });
        }
        Ok(())
    }
}

/// Ethereum address of a public key.
#[must_use]
pub fn address_of(key: &secp256k1::PublicKey) -> Address {
    let point = key.serialize_uncompressed();
    // Without the prefix byte 0x04.
    let (_, xy) = point.split_first().unwrap_or((&0, &[]));
    Address::from_raw_public_key(xy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloy_primitives::hex;

    fn message(address: Address) -> Message {
        Message {
            domain: "127.0.0.1:8700".into(),
            address,
            uri: "http://127.0.0.1:8700".into(),
            chain_id: 10_740,
            nonce: "0123456789abcdef".into(),
            issued_at: "2026-11-21T08:00:00Z".into(),
            expires_at: "2026-12-21T08:00:00Z".into(),
            scope: Scope::Write,
        }
    }

    /// Key 1 and its well-known address; the digest and signature are those of `eth_account` 0.14.0:
    /// `Account.sign_message(encode_defunct(text=m), key)` (deterministic nonces, RFC 6979).
    #[test]
    fn signatures_are_those_of_eth_account() {
        let key = SecretKey::from_byte_array(&hex!(
            "0000000000000000000000000000000000000000000000000000000000000001"
        ))
        .unwrap();
        let address = address_of(&key.public_key(SECP256K1));
        assert_eq!(address.to_checksum(None), "0x7E5F4552091A69125d5DfCb7b8C2659029395Bdf");
        let message = message(address);
        let signature = message.sign(&key);
        assert_eq!(
            hex::encode(signature),
            include_str!("../tests/data/siwe-signature.txt").trim()
        );
        message.verify(&signature).unwrap();
    }

    #[test]
    fn anything_changed_is_refused() {
        let key = SecretKey::from_byte_array(&[7; 32]).unwrap();
        let message = message(address_of(&key.public_key(SECP256K1)));
        let signature = message.sign(&key);
        for n in 0..65 {
            let mut bad = signature;
            bad[n] ^= 1;
            assert!(message.verify(&bad).is_err(), "byte {n}");
        }
        let mut other = message.clone();
        other.domain = "evil.example".into();
        assert!(matches!(other.verify(&signature), Err(SiweError::Signer { .. })));
        let text = message.to_string();
        for bad in [
            text.replace("\nURI", "\r\nURI"),
            text.clone() + "\n- urn:opg:hub:scope:read",
            text.replace("scope:write", "scope:admin"),
            text.replace("Chain ID: 10740", "Chain ID: 010740"),
            text.replace("Version: 1", "Version: 2"),
            text.to_lowercase(),
            String::new(),
            "x".repeat(5000),
        ] {
            assert!(Message::parse(&bad).is_err(), "{bad}");
        }
    }

    /// The mirror image of a signature, with the upper `s`, also recovers to the key; it must not be a second valid one.
    #[test]
    fn the_upper_s_is_refused() {
        let key = SecretKey::from_byte_array(&[7; 32]).unwrap();
        let message = message(address_of(&key.public_key(SECP256K1)));
        let mut signature = message.sign(&key);
        let n = hex!("fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141");
        let mut borrow = 0i16;
        for at in (0..32).rev() {
            let value = i16::from(n[at]) - i16::from(signature[32 + at]) - borrow;
            borrow = i16::from(value < 0);
            signature[32 + at] = value.rem_euclid(256) as u8;
        }
        signature[64] = 27 + (28 - signature[64]);
        assert!(
            matches!(message.verify(&signature), Err(SiweError::Signature(reason)) if reason.contains("upper half"))
        );
    }
}
