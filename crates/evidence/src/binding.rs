//! The binding statement: one digest that ties every key, the operator and the configuration to one piece of evidence.
//!
//! `bound = SHA-512/256("opg/bind/v1" || dCBOR(statement))`, 32 bytes, put into the report data of a quote (zeros
//! after it) or the user data of a Nitro document. Without it whoever sees a fresh document could register it with a
//! payment address of their own.
//!
//! The statement is a deterministic CBOR map with integer keys:
//!
//! | key | field | form |
//! |---|---|---|
//! | 1 | keyset digest | 32 bytes |
//! | 2 | nonce, derived from the chain | 32 bytes |
//! | 3 | chain id | integer |
//! | 4 | registry address | 20 bytes |
//! | 5 | operator | 20 bytes |
//! | 6 | payment address | 20 bytes |
//! | 7 | endpoint | text, 1 to 256 bytes |
//! | 8 | role | text, 1 to 32 bytes |
//! | 9 | configuration digest | 32 bytes |
//!
//! and the keyset a map of 1 receipt key (Ed25519), 2 settlement key (secp256k1, compressed), 3 HPKE key (X25519), 4
//! TLS keys (SHA-256 of each SPKI, ascending, unique), 5 last valid second; its digest is
//! `SHA-512/256("opg/keyset/v1" || dCBOR(keyset))`.

use crate::{claims::UnixSeconds, reject::Reject};
use opg_primitives::{cbor::Encoder, domain::Tag};
use sha2::{Digest, Sha512_256};

/// Most TLS keys of a keyset.
pub const MAX_TLS_KEYS: usize = 8;

/// Public keys of one node, made inside its enclave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyset {
    /// Ed25519 key that signs receipts.
    pub receipt: [u8; 32],
    /// secp256k1 key that settles, compressed.
    pub settlement: [u8; 33],
    /// X25519 key to which prompts are sealed.
    pub hpke: [u8; 32],
    /// SHA-256 of the SubjectPublicKeyInfo of each TLS key, ascending and unique.
    pub tls_spki_sha256: Vec<[u8; 32]>,
    /// Last second at which the keys may be used.
    pub not_after: UnixSeconds,
}

impl Keyset {
    /// The one digest of all keys.
    ///
    /// # Errors
    /// [`Reject`] if the TLS keys are too many, out of order or repeated: one keyset has one encoding.
    pub fn digest(&self) -> Result<[u8; 32], Reject> {
        let tls = &self.tls_spki_sha256;
        if tls.len() > MAX_TLS_KEYS {
            return Err(Reject::FieldLength {
                what: "the list of TLS keys",
                min: 0,
                max: MAX_TLS_KEYS,
                got: tls.len(),
            });
        }
        if !tls.windows(2).all(|pair| pair.first() < pair.get(1)) {
            return Err(Reject::Duplicate {
                what: "a TLS key (or the list is not ascending)",
            });
        }
        let mut cbor = Encoder::with_capacity(256);
        cbor.map(5);
        cbor.uint(1).bytes(&self.receipt);
        cbor.uint(2).bytes(&self.settlement);
        cbor.uint(3).bytes(&self.hpke);
        cbor.uint(4).array(tls.len());
        for key in tls {
            cbor.bytes(key);
        }
        cbor.uint(5).uint(self.not_after);
        Ok(tagged(Tag::Keyset, &cbor.finish()))
    }
}

/// What one piece of evidence binds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// [`Keyset::digest`].
    pub keyset: [u8; 32],
    /// [`attestation_nonce`].
    pub nonce: [u8; 32],
    /// Chain on which the keyset is registered.
    pub chain_id: u64,
    /// Registry contract there.
    pub registry: [u8; 20],
    /// Operator that registers it.
    pub operator: [u8; 20],
    /// Where payments go.
    pub payment: [u8; 20],
    /// Public endpoint of the node.
    pub endpoint: String,
    /// Role of the node: `inference`, `router`.
    pub role: String,
    /// Digest of the node's configuration: providers, authorities, facilitator, price table.
    pub config: [u8; 32],
}

impl Binding {
    /// The 32 bytes that the attester puts into the evidence.
    ///
    /// # Errors
    /// [`Reject::FieldLength`] for an empty or overlong endpoint or role.
    pub fn digest(&self) -> Result<[u8; 32], Reject> {
        text("the endpoint", &self.endpoint, 256)?;
        text("the role", &self.role, 32)?;
        let mut cbor = Encoder::with_capacity(512);
        cbor.map(9);
        cbor.uint(1).bytes(&self.keyset);
        cbor.uint(2).bytes(&self.nonce);
        cbor.uint(3).uint(self.chain_id);
        cbor.uint(4).bytes(&self.registry);
        cbor.uint(5).bytes(&self.operator);
        cbor.uint(6).bytes(&self.payment);
        cbor.uint(7).text(&self.endpoint);
        cbor.uint(8).text(&self.role);
        cbor.uint(9).bytes(&self.config);
        Ok(tagged(Tag::Binding, &cbor.finish()))
    }
}

/// Nonce of an attestation: `SHA-512/256("opg/attest-nonce/v1" || block hash || node id || u64be(policy epoch))`. Fresh
/// by the block, useless to another node.
#[must_use]
pub fn attestation_nonce(block_hash: &[u8; 32], node_id: &[u8; 32], policy_epoch: u64) -> [u8; 32] {
    tagged(
        Tag::AttestationNonce,
        &[block_hash.as_slice(), node_id, &policy_epoch.to_be_bytes()].concat(),
    )
}

fn text(what: &'static str, value: &str, max: usize) -> Result<(), Reject> {
    let got = value.len();
    if (1..=max).contains(&got) {
        Ok(())
    } else {
        Err(Reject::FieldLength { what, min: 1, max, got })
    }
}

fn tagged(tag: Tag, bytes: &[u8]) -> [u8; 32] {
    Sha512_256::new()
        .chain_update(tag.as_str())
        .chain_update(bytes)
        .finalize()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keyset() -> Keyset {
        Keyset {
            receipt: [1; 32],
            settlement: [2; 33],
            hpke: [3; 32],
            tls_spki_sha256: vec![[4; 32], [5; 32]],
            not_after: 1_800_000_000,
        }
    }

    fn binding() -> Binding {
        Binding {
            keyset: keyset().digest().unwrap(),
            nonce: attestation_nonce(&[6; 32], &[7; 32], 9),
            chain_id: 10_740,
            registry: [10; 20],
            operator: [11; 20],
            payment: [12; 20],
            endpoint: "https://node.example:8443".to_owned(),
            role: "inference".to_owned(),
            config: [13; 32],
        }
    }

    /// Values of a separate encoder in Python (hashlib's SHA-512/256 over RFC 8949 §4.2.1 CBOR written there).
    #[test]
    fn golden_vectors() {
        assert_eq!(
            hex::encode(keyset().digest().unwrap()),
            "b53fbafbb5fdfd3d411b31391ffb44a95a50aef44fdc62818fc6c4b01a7edf83"
        );
        assert_eq!(
            hex::encode(binding().nonce),
            "a09705f1b5ee5ec69c65c681074839743d593ce90a14dbccd1f06b0fd664fb99"
        );
        assert_eq!(
            hex::encode(binding().digest().unwrap()),
            "a02650153b1805851e9fad362aa185f2f99e17b77260ceb2b3361e76eb8d2030"
        );
    }

    #[test]
    fn every_field_counts() {
        let base = binding();
        let changed = [
            Binding {
                keyset: [0; 32],
                ..base.clone()
            },
            Binding {
                nonce: [0; 32],
                ..base.clone()
            },
            Binding {
                chain_id: 1,
                ..base.clone()
            },
            Binding {
                registry: [0; 20],
                ..base.clone()
            },
            Binding {
                operator: [0; 20],
                ..base.clone()
            },
            Binding {
                payment: [0; 20],
                ..base.clone()
            },
            Binding {
                endpoint: "https://other.example".to_owned(),
                ..base.clone()
            },
            Binding {
                role: "router".to_owned(),
                ..base.clone()
            },
            Binding {
                config: [0; 32],
                ..base.clone()
            },
            // The payment address and the operator swapped.
            Binding {
                operator: base.payment,
                payment: base.operator,
                ..base.clone()
            },
        ];
        let digests: std::collections::BTreeSet<_> = changed
            .iter()
            .chain([&base])
            .map(|binding| binding.digest().unwrap())
            .collect();
        assert_eq!(digests.len(), changed.len() + 1);
    }

    #[test]
    fn one_keyset_has_one_encoding() {
        let refused = |tls| {
            Keyset {
                tls_spki_sha256: tls,
                ..keyset()
            }
            .digest()
            .is_err()
        };
        assert!(refused(vec![[5; 32], [4; 32]]));
        assert!(refused(vec![[4; 32], [4; 32]]));
        assert!(refused((0..9).map(|n| [n; 32]).collect()));
        assert!(!refused(Vec::new()));
        assert!(
            Binding {
                endpoint: String::new(),
                ..binding()
            }
            .digest()
            .is_err()
        );
        assert!(
            Binding {
                role: "r".repeat(33),
                ..binding()
            }
            .digest()
            .is_err()
        );
    }
}
