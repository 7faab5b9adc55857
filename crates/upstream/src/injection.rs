//! A sealed API key on its way to a node, signed by the node's operator.

use crate::provider::Provider;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use opg_primitives::{B256, hash};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most bytes of the sealed part.
pub const MAX_SEALED_KEY: usize = 4_096;

/// What an operator sends to `POST /v1/upstream-keys` of the node. Nothing in it is secret.
///
/// HPKE in base mode tells nobody who sealed: without the signature a stranger could put an account of his own under the node, and
/// read there what its clients ask.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyInjection {
    /// Whose key, as [`Provider::as_str`].
    pub provider: String,
    /// The one host that it may be sent to, in lower case.
    pub host: String,
    /// Unix seconds; a node takes none that is not newer than what it has.
    pub issued: u64,
    /// [`crate::seal_api_key`]'s bytes.
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub sealed: Vec<u8>,
    /// The operator's signature (65 bytes) over [`KeyInjection::digest`].
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub signature: Vec<u8>,
}

impl KeyInjection {
    /// An injection that has to be signed.
    pub fn new(provider: Provider, host: impl Into<String>, issued: u64, sealed: Vec<u8>) -> Self {
        Self {
            provider: provider.as_str().to_owned(),
            host: host.into(),
            issued,
            sealed,
            signature: Vec::new(),
        }
    }

    /// What the operator's wallet shows before it signs.
    #[must_use]
    pub fn message(&self, chain_id: u64, node: &B256, keyset: &B256) -> String {
        // Line breaks and quotes inside a word are escaped, so that no word can pretend to be the next line.
        format!(
            "OpenGradient: API key for a node\nchain: {chain_id}\nnode: {node}\nkeyset: {keyset}\nprovider: {:?}\nhost: {:?}\nissued: {}\nsealed: {}",
            self.provider,
            self.host,
            self.issued,
            hash::sha256(&self.sealed)
        )
    }

    /// EIP-191 digest of [`KeyInjection::message`].
    #[must_use]
    pub fn digest(&self, chain_id: u64, node: &B256, keyset: &B256) -> B256 {
        let message = self.message(chain_id, node, keyset);
        let prefixed = format!("\u{19}Ethereum Signed Message:\n{}{message}", message.len());
        hash::keccak(prefixed.as_bytes())
    }
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&STANDARD.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let bytes = STANDARD
        .decode(text)
        .map_err(|_| serde::de::Error::custom("not base64"))?;
    if bytes.len() > MAX_SEALED_KEY {
        return Err(serde::de::Error::custom("too long"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_cannot_pretend_to_be_the_next_line() {
        let plain = KeyInjection::new(Provider::OpenAi, "api.openai.com", 7, vec![1]);
        let mut sly = plain.clone();
        sly.host = "api.openai.com\"\nissued: 7".into();
        let (node, keyset) = (B256::repeat_byte(1), B256::repeat_byte(2));
        assert_eq!(
            sly.message(1, &node, &keyset).lines().count(),
            plain.message(1, &node, &keyset).lines().count()
        );
        let digests = [
            plain.digest(1, &node, &keyset),
            sly.digest(1, &node, &keyset),
            plain.digest(2, &node, &keyset),
            plain.digest(1, &keyset, &node),
        ];
        for (i, a) in digests.iter().enumerate() {
            assert!(digests[..i].iter().all(|b| a != b));
        }
    }

    #[test]
    fn json_round_trips_and_is_bounded() {
        let injection = KeyInjection::new(Provider::Google, "h", 7, vec![1, 2, 3]);
        let text = serde_json::to_string(&injection).unwrap();
        assert_eq!(serde_json::from_str::<KeyInjection>(&text).unwrap(), injection);
        let long = text.replace("AQID", &"A".repeat(4 * MAX_SEALED_KEY));
        assert!(serde_json::from_str::<KeyInjection>(&long).is_err());
        assert!(serde_json::from_str::<KeyInjection>(&text.replace("issued", "when")).is_err());
    }
}
