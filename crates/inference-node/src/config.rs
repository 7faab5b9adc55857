//! Configuration (TOML) and key file (JSON) of an inference node.

pub use crate::{
    closed::config::ClosedConfig,
    engine::EngineSettings,
    supply::{HubModel, ModelStoreConfig},
};
use alloy_primitives::{Address, B256, U256};
pub use opg_payments::channel::{MAX_WITHDRAW_DELAY, MIN_WITHDRAW_DELAY};
use opg_payments::{
    reserve::Caps,
    signature::{SecretKey, address_of_secret},
};
use opg_primitives::{
    ids::{Keyset, NodeId, node_id},
    money::{Amount, UsdPrice},
};
use serde::{Deserialize, Serialize};
use std::{
    fmt,
    fs::TryLockError,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Largest request body by default, bytes.
pub const DEFAULT_BODY_LIMIT: usize = 8 * 1024 * 1024;

/// Why a configuration or key file is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Not TOML, an unknown field, or a value of the wrong type.
    #[error("{}: {source}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Position and reason.
        source: Box<toml::de::Error>,
    },
    /// The key file is not the expected JSON.
    #[error("{}: {problem}", path.display())]
    Keys {
        /// The file.
        path: PathBuf,
        /// What is wrong; never the key.
        problem: String,
    },
    /// Another process serves with the same keys.
    #[error(
        "{}: another process serves with this key file. One node is one process: two would work on one payment twice and sign two receipts with one number",
        path.display()
    )]
    Locked {
        /// The key file.
        path: PathBuf,
    },
    /// A value that cannot work.
    #[error("{field} {problem}")]
    Value {
        /// Field of the configuration.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// What runs a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ModelKind {
    /// An ONNX graph, for `/v1/infer`.
    Onnx,
    /// A Llama-architecture GGUF, for `/v1/chat/completions`.
    Gguf,
    /// A provider's model, for `/v1/chat/completions`: see [`ClosedConfig`].
    Upstream,
}

impl ModelKind {
    /// The word used in the configuration and in `/v1/models`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Onnx => "onnx",
            Self::Gguf => "gguf",
            Self::Upstream => "upstream",
        }
    }
}

/// One model to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// `owner/name`, as registered on chain.
    pub name: String,
    /// The model's file; none for kind `upstream` and for models that are fetched.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub path: PathBuf,
    /// What runs it.
    pub kind: ModelKind,
    /// Its exact integer program (`opg zk compile`): answers of mode zk are this program's, and are proven. Served if
    /// the program is registered on chain for the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub program: Option<PathBuf>,
    /// Where the model is, for kind `upstream`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<ClosedConfig>,
    /// Which model to fetch, instead of a path: see [`ModelStoreConfig`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hub: Option<HubModel>,
    /// Its price in micro-USD. What it is in OPG follows from the chain's oracle when a quote is made; the ask that is registered on
    /// chain is then the most that is quoted. Without it, the registered ask is the price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usd: Option<UsdPrice>,
}

fn is_empty(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

/// Bounds on what one client, or all of them, can make the node do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest request body, bytes.
    pub body_bytes: usize,
    /// Requests worked on at the same time; more get 503.
    pub concurrent: usize,
    /// Language-model generations that run at the same time; more wait.
    pub generations: usize,
    /// Most tokens one chat answer may have.
    pub max_tokens: u32,
    /// Seconds a quote holds.
    pub quote_seconds: u64,
    /// Seconds of validity asked for in a payment (`maxTimeoutSeconds`).
    pub payment_seconds: u64,
    /// Seconds of validity that a payment must still have when it arrives.
    pub min_validity_seconds: u64,
    /// Seconds to wait for a settlement before work.
    pub settle_seconds: u64,
    /// Milliseconds between settlement batches.
    pub settle_interval_ms: u64,
    /// Seconds for which a receipt's openings (answer and salt) are kept for its holder (D11).
    pub opening_seconds: u64,
    /// Seconds that running work gets at shutdown.
    pub shutdown_seconds: u64,
    /// Seconds after an answer of mode zk by which its proof is promised, at most [`opg_receipt::MAX_PROOF_SECONDS`].
    pub proof_seconds: u64,
    /// Answers that may wait for their proof; more requests of mode zk get 503.
    pub proof_queue: usize,
    /// Whether payers are held to the rate and size that their OPG unlocks (`FeatureTiers`); without it, whoever pays is served.
    pub feature_tiers: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: DEFAULT_BODY_LIMIT,
            concurrent: 512,
            generations: 2,
            max_tokens: 4096,
            quote_seconds: 120,
            payment_seconds: 600,
            min_validity_seconds: 20,
            settle_seconds: 8,
            settle_interval_ms: 2000,
            opening_seconds: 3600,
            shutdown_seconds: 30,
            proof_seconds: 600,
            proof_queue: 256,
            feature_tiers: false,
        }
    }
}

/// Exposure caps in wei, decimal text (D3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Exposure {
    /// Largest unsettled amount of one payer; `"0"`: always settle first.
    pub per_payer: Amount,
    /// Largest unsettled amount of all payers.
    pub per_node: Amount,
}

impl Default for Exposure {
    fn default() -> Self {
        let caps = Caps::default();
        Self {
            per_payer: caps.per_payer,
            per_node: caps.per_node,
        }
    }
}

/// Payment channels. Amounts in wei, decimal text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ChannelSettings {
    /// Seconds between a payer's withdrawal request and the withdrawal, in channels to this node; 900 to 2,592,000.
    pub withdraw_delay: u64,
    /// Smallest deposit that the node carries to the chain, at its own gas.
    pub min_deposit: Amount,
    /// What a channel owes before it is claimed, unless it is claimed earlier for its age or a withdrawal.
    pub claim_value: Amount,
}

impl Default for ChannelSettings {
    fn default() -> Self {
        Self {
            withdraw_delay: 86_400,
            min_deposit: Amount(opg_primitives::money::WEI_PER_OPG / 100),
            claim_value: Caps::default().per_payer,
        }
    }
}

/// Configuration of an inference node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InferenceNodeConfig {
    /// Chain id, checked against the full nodes.
    pub chain_id: u64,
    /// Account that registered the node.
    pub operator: Address,
    /// Salt of the node's registration.
    #[serde(default)]
    pub salt: B256,
    /// Key file, see [`NodeKeys`]. Relative paths are relative to the configuration file.
    pub keys: PathBuf,
    /// Folder of the journal.
    pub data_dir: PathBuf,
    /// Address to serve on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// URL in 402 answers, where it differs from `http://<listen>`.
    #[serde(default)]
    pub public_url: Option<String>,
    /// JSON-RPC URLs of full nodes, in order of preference.
    pub rpc: Vec<String>,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
    /// Exposure caps.
    #[serde(default)]
    pub exposure: Exposure,
    /// Payment channels.
    #[serde(default)]
    pub channels: ChannelSettings,
    /// Settle payments to others too, at this node's gas (`/facilitator/settle`).
    #[serde(default)]
    pub facilitator_for_others: bool,
    /// How the node attests its keys; without it, mode tee is not served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attestation: Option<AttestationConfig>,
    /// Cache and sources of models that are fetched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_store: Option<ModelStoreConfig>,
    /// How ONNX models run.
    #[serde(default, skip_serializing_if = "EngineSettings::is_default")]
    pub engine: EngineSettings,
    /// Models to serve.
    pub models: Vec<ModelConfig>,
}

/// Which attester makes the node's evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttestationConfig {
    /// `auto`, `nitro`, `tdx`, `snp` or `software`. `auto` takes the hardware of the machine and fails where there is none.
    pub attester: AttesterName,
    /// The software attester, for development networks only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub software: Option<SoftwareConfig>,
}

/// The word of an attester in a configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttesterName(pub opg_attester::Choice);

impl Serialize for AttesterName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.as_str())
    }
}

impl<'de> Deserialize<'de> for AttesterName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let word = String::deserialize(deserializer)?;
        word.parse().map(Self).map_err(serde::de::Error::custom)
    }
}

/// A software attester: its evidence is simulated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SoftwareConfig {
    /// Whose format it makes.
    pub format: SoftwareFormatName,
    /// Seed of its keys; the genesis file names the root that follows from it. It protects nothing.
    pub seed: B256,
}

/// A format of the software attester.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SoftwareFormatName {
    /// AWS Nitro documents.
    Nitro,
    /// Intel TDX quotes.
    Tdx,
    /// AMD SEV-SNP reports.
    Snp,
}

impl InferenceNodeConfig {
    /// Reads and checks a file; paths inside become relative to its folder.
    ///
    /// # Errors
    /// The file cannot be read, is not this TOML, or holds a value that cannot work.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::File {
            path: path.into(),
            source,
        })?;
        let mut config: Self = toml::from_str(&text).map_err(|source| ConfigError::Toml {
            path: path.into(),
            source: Box::new(source),
        })?;
        let base = path.parent().unwrap_or(Path::new("."));
        config.keys = base.join(&config.keys);
        config.data_dir = base.join(&config.data_dir);
        if let Some(store) = &mut config.model_store {
            store.dir = base.join(&store.dir);
        }
        for model in &mut config.models {
            if !model.path.as_os_str().is_empty() {
                model.path = base.join(&model.path);
            }
            model.program = model.program.take().map(|program| base.join(program));
        }
        config.check()?;
        Ok(config)
    }

    /// The file's text.
    ///
    /// # Panics
    /// Never: every field has a TOML form.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).expect("the configuration has a TOML form")
    }

    /// Checks values that the types do not.
    ///
    /// # Errors
    /// [`ConfigError::Value`] names the field.
    pub fn check(&self) -> Result<(), ConfigError> {
        let bad = |field, problem: &str| {
            Err(ConfigError::Value {
                field,
                problem: problem.into(),
            })
        };
        if self.rpc.is_empty() {
            return bad("rpc", "needs at least one URL of a full node");
        }
        if self.models.is_empty() {
            return bad("models", "needs at least one model");
        }
        for (i, model) in self.models.iter().enumerate() {
            if model.name.is_empty() || model.name.len() > 200 {
                return bad("models.name", "must have 1 to 200 bytes");
            }
            if self.models[..i].iter().any(|other| other.name == model.name) {
                return bad("models.name", &format!("{:?} appears twice", model.name));
            }
            if let Some(problem) = model.problem() {
                return bad("models.upstream", &problem);
            }
            if model.hub.is_some() && self.model_store.is_none() {
                return bad("model_store", "is needed for models with a section hub");
            }
            if model.usd == Some(UsdPrice::default()) {
                return bad("models.usd", "has no price: leave it out to sell at the registered ask");
            }
            if model.program.is_some() && model.kind != ModelKind::Onnx {
                return bad("models.program", "goes with models of kind onnx");
            }
        }
        if let Some(problem) = self.engine.problem() {
            return bad("engine", problem);
        }
        if let Some(store) = &self.model_store
            && let Err(error) = store.sources()
        {
            return bad("model_store", &error.to_string());
        }
        if let Some(attestation) = &self.attestation
            && (attestation.attester.0 == opg_attester::Choice::Software) != attestation.software.is_some()
        {
            return bad(
                "attestation.software",
                "goes with attestation.attester = \"software\", and only with it",
            );
        }
        if !(MIN_WITHDRAW_DELAY..=MAX_WITHDRAW_DELAY).contains(&self.channels.withdraw_delay) {
            let range = format!("must be {MIN_WITHDRAW_DELAY} to {MAX_WITHDRAW_DELAY} seconds");
            return bad("channels.withdraw_delay", &range);
        }
        let limits = &self.limits;
        if limits.body_bytes == 0 || limits.concurrent == 0 || limits.generations == 0 || limits.max_tokens == 0 {
            return bad("limits", "must not be zero");
        }
        if limits.proof_seconds > opg_receipt::MAX_PROOF_SECONDS {
            let most = opg_receipt::MAX_PROOF_SECONDS;
            return bad("limits.proof_seconds", &format!("must be at most {most}"));
        }
        if limits.opening_seconds < limits.proof_seconds {
            return bad(
                "limits.opening_seconds",
                "must be at least limits.proof_seconds: a proof is kept as long as what it opens",
            );
        }
        if limits.payment_seconds <= limits.min_validity_seconds {
            return bad(
                "limits.payment_seconds",
                "must be larger than limits.min_validity_seconds",
            );
        }
        Ok(())
    }

    /// The node's identifier.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        node_id(self.operator, self.salt)
    }

    /// Its base URL for others. With port 0 in `listen`, the node learns its own only when it starts.
    #[must_use]
    pub fn url(&self) -> String {
        self.public_url
            .clone()
            .unwrap_or_else(|| format!("http://{}", self.listen))
    }
}

/// Secret keys of a node.
#[derive(Clone, PartialEq, Eq)]
pub struct NodeKeys {
    /// Seed of the Ed25519 key that signs quotes and receipts.
    pub receipt: [u8; 32],
    /// Key of the account that relays settlements and pays their gas.
    pub settlement: SecretKey,
    /// Seed of the X25519 key that requests are sealed to; a node without one takes no sealed requests.
    pub hpke: Option<[u8; 32]>,
}

impl fmt::Debug for NodeKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeKeys")
            .field("settlement", &self.settlement_address())
            .finish_non_exhaustive()
    }
}

/// Holds a key file for one process.
#[derive(Debug)]
pub(crate) struct KeyLock(#[expect(dead_code, reason = "held for its lock")] std::fs::File);

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    receipt_key: B256,
    settlement_key: B256,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hpke_key: Option<B256>,
}

impl NodeKeys {
    /// Reads a key file: `{"receipt_key": "0x…", "settlement_key": "0x…", "hpke_key": "0x…"}`, the last one optional.
    ///
    /// # Errors
    /// The file cannot be read or holds something else.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read(path).map_err(|source| ConfigError::File {
            path: path.into(),
            source,
        })?;
        let bad = |problem: &str| ConfigError::Keys {
            path: path.into(),
            problem: problem.into(),
        };
        // serde's message could quote the key.
        let file: KeyFile = serde_json::from_slice(&text)
            .map_err(|_| bad("expected {\"receipt_key\": \"0x… 32 bytes\", \"settlement_key\": \"0x… 32 bytes\"}"))?;
        let settlement = SecretKey::from_byte_array(&file.settlement_key.0)
            .map_err(|_| bad("settlement_key is not a secp256k1 key"))?;
        Ok(Self {
            receipt: file.receipt_key.0,
            settlement,
            hpke: file.hpke_key.map(|key| key.0),
        })
    }

    /// Writes the key file, readable by its owner only.
    ///
    /// # Errors
    /// The file exists or cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), ConfigError> {
        use std::io::Write as _;
        let file = KeyFile {
            receipt_key: B256::from(self.receipt),
            settlement_key: B256::from(self.settlement.secret_bytes()),
            hpke_key: self.hpke.map(B256::from),
        };
        let error = |source| ConfigError::File {
            path: path.into(),
            source,
        };
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let text = serde_json::to_string_pretty(&file).map_err(|e| error(e.into()))?;
        options
            .open(path)
            .and_then(|mut f| f.write_all(text.as_bytes()))
            .map_err(error)
    }

    /// Keeps every other process from serving with this key file, whatever data folder it has: two journals would know nothing of
    /// each other's payments and sequence numbers. Where the file system has no locks, that is logged and nothing is kept.
    ///
    /// # Errors
    /// Another process serves with the file, or it cannot be read.
    pub(crate) fn lock(path: &Path) -> Result<KeyLock, ConfigError> {
        let file = |source| ConfigError::File {
            path: path.into(),
            source,
        };
        let open = std::fs::File::open(path).map_err(file)?;
        match open.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(ConfigError::Locked { path: path.into() }),
            Err(TryLockError::Error(error)) => {
                tracing::warn!(%error, path = %path.display(), "the key file cannot be locked: start one node with it only");
            }
        }
        Ok(KeyLock(open))
    }

    /// Account of the settlement key.
    #[must_use]
    pub fn settlement_address(&self) -> Address {
        address_of_secret(&self.settlement)
    }

    /// The Ed25519 key that signs quotes and receipts.
    #[must_use]
    pub fn receipt_key(&self) -> ed25519_dalek::SigningKey {
        ed25519_dalek::SigningKey::from_bytes(&self.receipt)
    }

    /// The X25519 key that requests are sealed to.
    #[must_use]
    pub fn hpke_key(&self) -> Option<opg_sealed::PrivateKey> {
        self.hpke.as_ref().map(opg_sealed::PrivateKey::derive)
    }

    /// The keyset that the node registers on chain.
    #[must_use]
    pub fn keyset(&self, node_id: NodeId) -> Keyset {
        Keyset {
            node_id,
            receipt_key: B256::from(self.receipt_key().verifying_key().to_bytes()),
            settlement_key: self.settlement_address(),
            hpke_key: self.hpke_key().map_or(B256::ZERO, |key| B256::from(key.public().0)),
            tls_spki: B256::ZERO,
        }
    }
}

/// `U256` amount as [`Amount`], if it fits.
pub(crate) fn to_amount(value: U256) -> Option<Amount> {
    u128::try_from(value).ok().map(Amount)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
chain_id = 10740
operator = "0x00000000000000000000000000000000000000aa"
keys = "keys.json"
data_dir = "data"
listen = "127.0.0.1:0"
rpc = ["http://127.0.0.1:8545"]

[exposure]
per_payer = "0"
per_node = "1000"

[[models]]
name = "demo/digits-mlp"
path = "models/digits"
kind = "onnx"
"#;

    fn load(text: &str) -> Result<InferenceNodeConfig, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        InferenceNodeConfig::load(&path)
    }

    #[test]
    fn a_file_loads_with_defaults_and_paths_relative_to_it() {
        let config = load(TEXT).unwrap();
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.exposure.per_payer, Amount::ZERO);
        assert!(config.keys.is_absolute() && config.keys.ends_with("keys.json"));
        assert!(config.models[0].path.ends_with("models/digits"));
        let again: InferenceNodeConfig = toml::from_str(&config.to_toml()).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn unknown_fields_and_impossible_values_are_refused() {
        assert!(matches!(
            load(&TEXT.replace("chain_id", "chain_idd")),
            Err(ConfigError::Toml { .. })
        ));
        assert!(matches!(
            load(&TEXT.replace("\"onnx\"", "\"tf\"")),
            Err(ConfigError::Toml { .. })
        ));
        assert!(matches!(
            load(&TEXT.replace("[\"http://127.0.0.1:8545\"]", "[]")),
            Err(ConfigError::Value { field: "rpc", .. })
        ));
        let twice = format!("{TEXT}\n[[models]]\nname = \"demo/digits-mlp\"\npath = \"x\"\nkind = \"onnx\"\n");
        assert!(matches!(
            load(&twice),
            Err(ConfigError::Value {
                field: "models.name",
                ..
            })
        ));
        let free = format!("{TEXT}\n[models.usd]\nper_call = 0\n");
        assert!(matches!(
            load(&free),
            Err(ConfigError::Value {
                field: "models.usd",
                ..
            })
        ));
        let usd = load(&format!("{TEXT}\n[models.usd]\nper_call = 500\n")).unwrap();
        assert_eq!(usd.models[0].usd.unwrap().per_call, 500);
        let limits = format!("{TEXT}\n[limits]\nconcurrent = 0\n");
        assert!(matches!(load(&limits), Err(ConfigError::Value { field: "limits", .. })));
    }

    #[test]
    fn keys_round_trip_and_never_appear_in_messages() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        let keys = NodeKeys {
            receipt: [7; 32],
            settlement: SecretKey::from_byte_array(&[8; 32]).unwrap(),
            hpke: Some([13; 32]),
        };
        keys.save(&path).unwrap();
        assert_eq!(NodeKeys::load(&path).unwrap(), keys);
        assert!(keys.save(&path).is_err(), "an existing key is never overwritten");
        let lock = NodeKeys::lock(&path).unwrap();
        assert!(matches!(NodeKeys::lock(&path), Err(ConfigError::Locked { .. })));
        drop(lock);
        NodeKeys::lock(&path).unwrap();
        assert!(!format!("{keys:?}").contains("0808"));
        let secret = "ab".repeat(31);
        std::fs::write(&path, format!("{{\"receipt_key\":\"0x{secret}\"}}")).unwrap();
        assert!(!NodeKeys::load(&path).unwrap_err().to_string().contains(&secret));
    }
}
