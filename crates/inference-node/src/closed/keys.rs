//! API keys of providers: they come sealed to the node's attested key and signed by its operator, and live in memory.
//!
//! `POST /v1/upstream-keys` takes a [`KeyInjection`]. The sealing keeps the key from everybody who carries it, the host of the enclave
//! included; the signature keeps strangers from putting their own accounts under the node. What is kept for a restart are the
//! sealed bytes as they came: whoever reads the disk reads nothing.

use crate::{catalogue::Catalogue, error::ApiError, node::Node, time::unix_seconds};
use alloy_primitives::{Address, B256};
use axum::{Json, body::Bytes, extract::State};
use opg_payments::signature::recover;
use opg_primitives::ids::KeysetDigest;
use opg_sealed::PrivateKey;
use opg_upstream::{ApiKey, KeyBinding, KeyInjection, Provider, open_api_key};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
};

pub(crate) const PATH: &str = "/v1/upstream-keys";
/// A signature is taken for this long, and from a clock that is ahead by as much.
const FRESH: u64 = 600;
/// Largest file of sealed keys.
const MAX_FILE: usize = 1 << 20;
/// Largest request.
const MAX_BODY: usize = 16 << 10;

/// Whose key: provider and host.
type Account = (Provider, String);

/// The keys of the node's providers.
pub(crate) struct ClosedKeys {
    chain_id: u64,
    node_id: B256,
    keyset: KeysetDigest,
    operator: Address,
    /// Without it nothing can be opened.
    private: Option<PrivateKey>,
    file: PathBuf,
    keys: RwLock<BTreeMap<Account, (u64, ApiKey)>>,
    /// What the keys came in, for the file; also the lock of every change.
    kept: Mutex<BTreeMap<Account, KeyInjection>>,
}

impl std::fmt::Debug for ClosedKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClosedKeys")
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}

/// Why a key is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InjectError {
    #[error("this node has no key that anything could be sealed to")]
    NoKey,
    #[error("no model of this node is served by {provider} at {host}")]
    NotServed { provider: String, host: String },
    #[error("the request is not signed by the node's operator {operator}")]
    NotOperator { operator: Address },
    #[error(
        "the request was signed at {issued}; this node takes signatures of the last {FRESH} s, and none older than its newest key"
    )]
    Stale { issued: u64 },
    #[error(transparent)]
    Key(#[from] opg_upstream::KeyError),
    #[error("sealed keys cannot be kept: {0}")]
    File(String),
}

impl ClosedKeys {
    /// Opens what the last run of the node was given.
    pub(crate) fn open(
        chain_id: u64,
        node_id: B256,
        keyset: KeysetDigest,
        operator: Address,
        private: Option<PrivateKey>,
        file: PathBuf,
    ) -> Self {
        let keys = Self {
            chain_id,
            node_id,
            keyset,
            operator,
            private,
            file,
            keys: RwLock::default(),
            kept: Mutex::default(),
        };
        let kept: Vec<KeyInjection> = match std::fs::read(&keys.file) {
            Ok(bytes) if bytes.len() <= MAX_FILE => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::warn!(%error, "the file of sealed API keys is not understood; inject them again");
                Vec::new()
            }),
            _ => Vec::new(),
        };
        for injection in kept {
            // A keyset that was replaced, or a file that somebody changed: the operator has to inject again.
            if let Err(error) = keys.take(&injection, None) {
                tracing::warn!(%error, host = injection.host, "a kept API key does not open; inject it again");
            }
        }
        keys
    }

    /// The key for a provider at a host.
    pub(crate) fn get(&self, provider: Provider, host: &str) -> Option<ApiKey> {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.get(&(provider, host.to_owned())).map(|(_, key)| key.clone())
    }

    /// Checks and opens; `now` is absent for what was checked when it came.
    fn take(&self, injection: &KeyInjection, now: Option<u64>) -> Result<(), InjectError> {
        let private = self.private.as_ref().ok_or(InjectError::NoKey)?;
        let digest = injection.digest(self.chain_id, &self.node_id, &self.keyset.0);
        let signer = recover(digest, &injection.signature);
        if signer.ok() != Some(self.operator) {
            return Err(InjectError::NotOperator {
                operator: self.operator,
            });
        }
        let provider = Provider::from_word(&injection.provider).ok_or_else(|| injection.not_served())?;
        let account = (provider, injection.host.clone());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let issued = injection.issued;
        let newest = kept.get(&account).map_or(0, |known| known.issued);
        let fresh = now.is_none_or(|now| issued.abs_diff(now) <= FRESH);
        // A recorded request must not bring a key back that was replaced.
        if !fresh || issued <= newest {
            return Err(InjectError::Stale { issued });
        }
        let binding = KeyBinding {
            chain_id: self.chain_id,
            keyset: self.keyset.0.0,
            operator: self.operator.into_array(),
            provider,
            host: &injection.host,
        };
        let key = open_api_key(&[(crate::gateway::KEY_ID, private)], &binding, &injection.sealed)?;
        let before = kept.insert(account.clone(), injection.clone());
        if now.is_some()
            && let Err(error) = self.save(&kept)
        {
            match before {
                Some(before) => kept.insert(account, before),
                None => kept.remove(&account),
            };
            return Err(error);
        }
        let mut keys = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        keys.insert(account, (issued, key));
        Ok(())
    }

    /// Writes the sealed bytes, never a key.
    fn save(&self, kept: &BTreeMap<Account, KeyInjection>) -> Result<(), InjectError> {
        let list: Vec<&KeyInjection> = kept.values().collect();
        let problem = |error: String| InjectError::File(error);
        let bytes = serde_json::to_vec_pretty(&list).map_err(|error| problem(error.to_string()))?;
        let new = self.file.with_extension("new");
        std::fs::write(&new, bytes)
            .and_then(|()| std::fs::rename(&new, &self.file))
            .map_err(|error| problem(error.to_string()))
    }
}

trait NotServed {
    fn not_served(&self) -> InjectError;
}

impl NotServed for KeyInjection {
    fn not_served(&self) -> InjectError {
        InjectError::NotServed {
            provider: self.provider.clone(),
            host: self.host.clone(),
        }
    }
}

fn serves(catalogue: &Catalogue, injection: &KeyInjection) -> bool {
    catalogue
        .iter()
        .filter_map(|served| served.model.closed())
        .any(|closed| closed.provider().as_str() == injection.provider && closed.host() == injection.host)
}

/// `POST /v1/upstream-keys`.
pub(crate) async fn inject(State(node): State<Arc<Node>>, body: Bytes) -> Result<Json<Value>, ApiError> {
    let refuse = |message: String| ApiError::bad_request("upstream_key_refused", message);
    if body.len() > MAX_BODY {
        return Err(refuse(format!("at most {MAX_BODY} bytes are taken")));
    }
    // serde's message could quote what was meant to be secret.
    let injection: KeyInjection = serde_json::from_slice(&body)
        .map_err(|_| refuse("expected {provider, host, issued, sealed, signature}".to_owned()))?;
    if !serves(&node.catalogue, &injection) {
        return Err(refuse(injection.not_served().to_string()));
    }
    node.closed_keys
        .take(&injection, Some(unix_seconds()))
        .map_err(|error| refuse(error.to_string()))?;
    tracing::info!(provider = injection.provider, host = injection.host, "API key injected");
    Ok(Json(
        json!({"provider": injection.provider, "host": injection.host, "issued": injection.issued}),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use opg_payments::signature::{SecretKey, address_of_secret, sign_digest};
    use opg_upstream::seal_api_key;

    const NOW: u64 = 1_790_000_000;
    const HOST: &str = "api.openai.com";

    struct Operator {
        key: SecretKey,
        enclave: PrivateKey,
        dir: tempfile::TempDir,
    }

    impl Operator {
        fn new() -> Self {
            Self {
                key: SecretKey::from_byte_array(&[5; 32]).unwrap(),
                enclave: PrivateKey::derive(&[7; 32]),
                dir: tempfile::tempdir().unwrap(),
            }
        }

        fn keys(&self) -> ClosedKeys {
            ClosedKeys::open(
                10_740,
                B256::repeat_byte(1),
                KeysetDigest(B256::repeat_byte(2)),
                address_of_secret(&self.key),
                Some(PrivateKey::derive(&[7; 32])),
                self.dir.path().join("upstream-keys.json"),
            )
        }

        fn inject(&self, key: &str, issued: u64, signer: &SecretKey) -> KeyInjection {
            let binding = KeyBinding {
                chain_id: 10_740,
                keyset: [2; 32],
                operator: address_of_secret(&self.key).into_array(),
                provider: Provider::OpenAi,
                host: HOST,
            };
            let key = ApiKey::new(key).unwrap();
            let sealed = seal_api_key(1, &self.enclave.public(), &binding, &key, &[9; 32]).unwrap();
            let mut injection = KeyInjection::new(Provider::OpenAi, HOST, issued, sealed);
            let digest = injection.digest(10_740, &B256::repeat_byte(1), &B256::repeat_byte(2));
            injection.signature = sign_digest(digest, signer).to_vec();
            injection
        }
    }

    #[test]
    fn keys_come_from_the_operator_only_last_over_a_restart_and_never_go_back() {
        let operator = Operator::new();
        let keys = operator.keys();
        let good = operator.inject("sk-first", NOW, &operator.key);
        let stranger = SecretKey::from_byte_array(&[6; 32]).unwrap();
        let theirs = operator.inject("sk-stranger", NOW, &stranger);
        assert!(matches!(
            keys.take(&theirs, Some(NOW)),
            Err(InjectError::NotOperator { .. })
        ));
        // Every signed field, changed after the signature.
        for change in [
            |i: &mut KeyInjection| i.host = "api.openai.com.example".into(),
            |i: &mut KeyInjection| i.provider = "xai".into(),
            |i: &mut KeyInjection| i.issued += 1,
            |i: &mut KeyInjection| i.sealed[40] ^= 1,
        ] {
            let mut bad = good.clone();
            change(&mut bad);
            assert!(matches!(
                keys.take(&bad, Some(NOW)),
                Err(InjectError::NotOperator { .. })
            ));
        }
        for now in [NOW + FRESH + 1, NOW - FRESH - 1] {
            assert_eq!(keys.take(&good, Some(now)), Err(InjectError::Stale { issued: NOW }));
        }
        assert!(keys.get(Provider::OpenAi, HOST).is_none());
        keys.take(&good, Some(NOW)).unwrap();
        assert_eq!(
            keys.take(&good, Some(NOW)),
            Err(InjectError::Stale { issued: NOW }),
            "a replay"
        );
        let second = operator.inject("sk-second", NOW + 1, &operator.key);
        keys.take(&second, Some(NOW)).unwrap();
        assert!(keys.take(&good, Some(NOW)).is_err(), "the older key does not come back");
        assert!(keys.get(Provider::OpenAi, "elsewhere").is_none());

        let file = std::fs::read_to_string(operator.dir.path().join("upstream-keys.json")).unwrap();
        assert!(!file.contains("sk-"), "only sealed bytes are on disk");
        assert!(!format!("{keys:?}").contains("sk-"));
        let again = operator.keys();
        assert!(again.get(Provider::OpenAi, HOST).is_some());
        // The memory of what was newest is in the file as well.
        assert!(again.take(&good, Some(NOW)).is_err());
        std::fs::write(
            operator.dir.path().join("upstream-keys.json"),
            file.replace("api.", "xapi."),
        )
        .unwrap();
        assert!(
            operator.keys().get(Provider::OpenAi, HOST).is_none(),
            "a changed file gives nothing"
        );
    }
}
