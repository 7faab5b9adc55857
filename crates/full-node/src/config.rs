//! Configuration of a full node: one TOML file, plus a JSON file with its three secret keys.
//!
//! Both are parsed strictly: an unknown field, a missing one or a value out of range is an error that names the field, so
//! that a misspelt option can not be ignored silently. Relative paths are resolved against the folder of the file.

use serde::{Deserialize, Serialize};
use std::{
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Largest configuration or keys file that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// What is wrong with a configuration or keys file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file can not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file can not be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than any valid one.
    #[error("{path} has {got} bytes, expected at most {expected}")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Upper bound in bytes.
        expected: u64,
        /// Its size.
        got: u64,
    },
    /// The file does not have the right form.
    #[error("{path}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The parser's message; names the field.
        message: String,
    },
    /// A field has a value that can not be used.
    #[error("{path}: field `{field}`: expected {expected}, got {got}")]
    Field {
        /// The file.
        path: PathBuf,
        /// Dotted name of the field.
        field: String,
        /// What would be valid.
        expected: String,
        /// What was found; secrets are never printed.
        got: String,
    },
}

/// One peer validator: where to reach it and who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// Ed25519 identity, 64 hex digits.
    pub identity: String,
    /// Address of its p2p listener.
    pub address: SocketAddr,
}

/// Upper bounds; every field has a default.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Receipts in one block that this node proposes (a proposal of another may hold more; the consensus codec bounds it).
    pub receipts_per_block: usize,
    /// Receipt bytes in one block that this node proposes; at most 4 MiB.
    pub receipt_bytes_per_block: usize,
    /// Receipts waiting in the pool.
    pub pool_receipts: usize,
    /// Bytes of the receipts waiting in the pool.
    pub pool_bytes: usize,
    /// Receipts in flight for a node with the minimum bond; a larger bond raises it in proportion, up to 16 times.
    pub node_receipts: usize,
    /// Seconds of block time after which a receipt that no block took is dropped.
    pub pool_expiry_secs: u64,
    /// Threads that verify receipts; 0 takes half of the cores, at least one.
    pub verify_threads: usize,
    /// Calls in one JSON-RPC batch.
    pub rpc_batch: usize,
    /// Body of a JSON-RPC request without `og_submitReceipt`, in bytes.
    pub rpc_body: usize,
    /// Body of any JSON-RPC request, in bytes.
    pub rpc_og_body: usize,
    /// Seconds after which an unfinished request is answered with an error.
    pub rpc_timeout_secs: u64,
    /// Calls per second and address (sustained); 0 switches the limit off.
    pub rpc_per_second: u32,
    /// Calls that an address may make at once.
    pub rpc_burst: u32,
    /// Factor on both for loopback addresses.
    pub rpc_loopback_factor: u32,
    /// WebSocket connections at once.
    pub ws_connections: usize,
    /// Subscriptions of one WebSocket connection.
    pub ws_subscriptions: usize,
    /// Filters in the table, and seconds without a poll after which one is dropped.
    pub filters: usize,
    /// Seconds without a poll after which a filter is dropped.
    pub filter_expiry_secs: u64,
    /// Blocks that one `eth_getLogs` may span.
    pub log_range: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            receipts_per_block: 2_000,
            receipt_bytes_per_block: 4 << 20,
            pool_receipts: 50_000,
            pool_bytes: 128 << 20,
            node_receipts: 8_192,
            pool_expiry_secs: 600,
            verify_threads: 0,
            rpc_batch: 100,
            rpc_body: 1 << 20,
            rpc_og_body: (2 << 20) + (64 << 10),
            rpc_timeout_secs: 20,
            rpc_per_second: 200,
            rpc_burst: 1_000,
            rpc_loopback_factor: 100,
            ws_connections: 1_024,
            ws_subscriptions: 128,
            filters: 4_096,
            filter_expiry_secs: 300,
            log_range: 10_000,
        }
    }
}

/// Configuration of one full node (validator).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FullNodeConfig {
    /// Genesis file of the network.
    pub genesis: PathBuf,
    /// Keys file, see [`Keys`].
    pub keys: PathBuf,
    /// Folder for everything that the node stores. It belongs to one genesis.
    pub data_dir: PathBuf,
    /// JSON-RPC over HTTP and WebSocket. Port 0 takes a free one.
    pub rpc: SocketAddr,
    /// Consensus p2p listener.
    pub p2p: SocketAddr,
    /// Prometheus metrics and health; absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<SocketAddr>,
    /// The other validators.
    #[serde(default)]
    pub peers: Vec<PeerConfig>,
    /// Upper bounds.
    #[serde(default)]
    pub limits: Limits,
    /// Feeds the price oracle; absent: this validator has no say in the price.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oracle: Option<OracleConfig>,
}

/// Where this validator takes the price of OPG from, and who sends its feeds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OracleConfig {
    /// The source: USD of one OPG in decimal digits, such as `0.25`.
    pub source: PriceSource,
    /// File with the secret key (64 hex digits) of an account that sends the feeds and pays their gas. Not the system key: blocks take no
    /// ordinary transactions of system accounts.
    pub relayer: PathBuf,
    /// Seconds after which what a file says counts for nothing.
    #[serde(default = "default_max_age")]
    pub max_age_secs: u64,
}

const fn default_max_age() -> u64 {
    300
}

/// A source of prices. None is built in: validators that read one source are one source.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum PriceSource {
    /// A file that something else keeps up to date.
    File(PathBuf),
    /// A program and its arguments, run once a minute; it prints the price and ends with 0 within ten seconds.
    Command(Vec<String>),
}

impl FullNodeConfig {
    /// Reads and checks the file at `path`.
    ///
    /// # Errors
    /// [`ConfigError`] that names the file and the field.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&read(path)?, path)
    }

    /// Parses `text`, with relative paths resolved against the folder of `path`.
    ///
    /// # Errors
    /// [`ConfigError`] that names the file and the field.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = toml::from_str(text).map_err(|e| ConfigError::Syntax {
            path: path.into(),
            message: e.to_string().trim_end().replace('\n', " | "),
        })?;
        let base = path.parent().unwrap_or(Path::new(""));
        for entry in [&mut config.genesis, &mut config.keys, &mut config.data_dir] {
            if entry.is_relative() {
                *entry = base.join(&*entry);
            }
        }
        if let Some(oracle) = &mut config.oracle {
            oracle.relayer = base.join(&oracle.relayer);
            if let PriceSource::File(file) = &mut oracle.source {
                *file = base.join(&*file);
            }
        }
        config.check(path)?;
        Ok(config)
    }

    /// The file's text.
    ///
    /// # Errors
    /// If a path is not UTF-8.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(|e| ConfigError::Syntax {
            path: PathBuf::new(),
            message: e.to_string(),
        })
    }

    /// Checks ranges; `path` only names the file in errors.
    ///
    /// # Errors
    /// [`ConfigError::Field`].
    pub fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let wrong = |field: &str, expected: &str, got: String| {
            Err(ConfigError::Field {
                path: path.into(),
                field: field.into(),
                expected: expected.into(),
                got,
            })
        };
        for (i, peer) in self.peers.iter().enumerate() {
            if bytes_of::<32>(&peer.identity).is_none() {
                return wrong(
                    &format!("peers[{i}].identity"),
                    "64 hex digits",
                    format!("{:?}", peer.identity),
                );
            }
            if self.peers[..i].iter().any(|other| other.identity == peer.identity) {
                return wrong(&format!("peers[{i}].identity"), "each peer once", peer.identity.clone());
            }
        }
        if let Some(oracle) = &self.oracle {
            if matches!(&oracle.source, PriceSource::Command(command) if command.is_empty()) {
                return wrong("oracle.source.command", "a program and its arguments", "nothing".into());
            }
            if !(60..=3_600).contains(&oracle.max_age_secs) {
                return wrong("oracle.max_age_secs", "60 to 3600", oracle.max_age_secs.to_string());
            }
        }
        let l = &self.limits;
        let bounds: [(&str, u64, u64, u64); 14] = [
            ("receipts_per_block", l.receipts_per_block as u64, 1, 4_096),
            (
                "receipt_bytes_per_block",
                l.receipt_bytes_per_block as u64,
                4_096,
                4 << 20,
            ),
            ("pool_receipts", l.pool_receipts as u64, 1, 10_000_000),
            ("pool_bytes", l.pool_bytes as u64, 4_096, 16 << 30),
            ("node_receipts", l.node_receipts as u64, 1, 1_000_000),
            ("pool_expiry_secs", l.pool_expiry_secs, 1, 86_400 * 30),
            ("verify_threads", l.verify_threads as u64, 0, 1_024),
            ("rpc_batch", l.rpc_batch as u64, 1, 10_000),
            ("rpc_body", l.rpc_body as u64, 1_024, 64 << 20),
            ("rpc_og_body", l.rpc_og_body as u64, l.rpc_body as u64, 64 << 20),
            ("rpc_timeout_secs", l.rpc_timeout_secs, 1, 3_600),
            ("ws_connections", l.ws_connections as u64, 0, 1_000_000),
            ("filters", l.filters as u64, 1, 1_000_000),
            ("log_range", l.log_range, 1, u64::MAX),
        ];
        for (field, got, min, max) in bounds {
            if got < min || got > max {
                return wrong(&format!("limits.{field}"), &format!("{min} to {max}"), got.to_string());
            }
        }
        Ok(())
    }
}

/// The three secret keys of a validator (D16), as hex. `Debug` prints none of them.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysFile {
    /// Ed25519 seed of the network and consensus identity, 32 bytes.
    pub identity: String,
    /// BLS12-381 secret scalar that signs certificates, 32 bytes.
    pub bls: String,
    /// secp256k1 secret key that signs system transactions and nothing else, 32 bytes.
    pub system: String,
}

impl fmt::Debug for KeysFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeysFile(secret)")
    }
}

/// The decoded keys. `Debug` prints none of them.
#[derive(Clone)]
pub struct Keys {
    /// Ed25519 seed.
    pub identity: [u8; 32],
    /// BLS12-381 secret scalar, big-endian.
    pub bls: [u8; 32],
    /// secp256k1 key for system transactions.
    pub system: secp256k1::SecretKey,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(secret)")
    }
}

impl Keys {
    /// Reads a keys file.
    ///
    /// # Errors
    /// [`ConfigError`] that names the field; the key itself is never in the message.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        // serde's messages may quote the offending value, which here is a secret: name only the place
        let file: KeysFile = serde_json::from_str(&read(path)?).map_err(|e| ConfigError::Syntax {
            path: path.into(),
            message: format!(
                "line {}: expected an object with the hex strings `identity`, `bls`, `system`, and nothing else",
                e.line()
            ),
        })?;
        Self::decode(&file, path)
    }

    /// Decodes the hex strings; `path` only names the file in errors.
    ///
    /// # Errors
    /// [`ConfigError::Field`].
    pub fn decode(file: &KeysFile, path: &Path) -> Result<Self, ConfigError> {
        let field = |name: &str, text: &str| {
            bytes_of::<32>(text).ok_or_else(|| ConfigError::Field {
                path: path.into(),
                field: name.into(),
                expected: "64 hex digits".into(),
                got: format!("{} characters", text.len()),
            })
        };
        let system =
            secp256k1::SecretKey::from_byte_array(&field("system", &file.system)?).map_err(|_| ConfigError::Field {
                path: path.into(),
                field: "system".into(),
                expected: "a secp256k1 secret key".into(),
                got: "zero or a number above the group order".into(),
            })?;
        Ok(Self {
            identity: field("identity", &file.identity)?,
            bls: field("bls", &file.bls)?,
            system,
        })
    }

    /// The file's content.
    pub fn to_file(&self) -> KeysFile {
        KeysFile {
            identity: hex::encode(self.identity),
            bls: hex::encode(self.bls),
            system: hex::encode(self.system.secret_bytes()),
        }
    }

    /// Writes the keys to `path`, readable by the owner only (on Unix). An existing file is not overwritten.
    ///
    /// # Errors
    /// [`ConfigError::Write`].
    pub fn save(&self, path: &Path) -> Result<(), ConfigError> {
        use std::io::Write as _;
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let text = serde_json::to_string_pretty(&self.to_file()).map_err(|e| ConfigError::Syntax {
            path: path.into(),
            message: e.to_string(),
        })?;
        let wrote = options.open(path).and_then(|mut file| {
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")?;
            file.sync_all()
        });
        wrote.map_err(|source| ConfigError::Write {
            path: path.into(),
            source,
        })
    }
}

/// Decodes exactly `N` bytes of hex, with or without `0x`.
pub(crate) fn bytes_of<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let mut out = [0u8; N];
    hex::decode_to_slice(digits, &mut out).ok()?;
    Some(out)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read {
        path: path.into(),
        source,
    };
    let got = std::fs::metadata(path).map_err(failed)?.len();
    if got > MAX_FILE {
        return Err(ConfigError::TooLarge {
            path: path.into(),
            expected: MAX_FILE,
            got,
        });
    }
    std::fs::read_to_string(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        genesis = "genesis.json"
        keys = "/etc/opg/keys.json"
        data_dir = "data"
        rpc = "127.0.0.1:8545"
        p2p = "127.0.0.1:8565"
        [[peers]]
        identity = "1111111111111111111111111111111111111111111111111111111111111111"
        address = "127.0.0.1:8566"
        [limits]
        rpc_batch = 50
    "#;

    #[test]
    fn paths_are_resolved_and_defaults_filled() {
        let config = FullNodeConfig::parse(GOOD, Path::new("/net/v0/node.toml")).unwrap();
        assert_eq!(config.genesis, Path::new("/net/v0/genesis.json"));
        assert_eq!(config.keys, Path::new("/etc/opg/keys.json"));
        assert_eq!((config.limits.rpc_batch, config.limits.receipts_per_block), (50, 2_000));
        let again = FullNodeConfig::parse(&config.to_toml().unwrap(), Path::new("/elsewhere/node.toml")).unwrap();
        assert_eq!(again, config);
    }

    #[test]
    fn errors_name_the_field() {
        let cases = [
            (GOOD.replace("rpc_batch = 50", "rpc_bach = 50"), "rpc_bach"),
            (GOOD.replace("rpc_batch = 50", "rpc_batch = 0"), "limits.rpc_batch"),
            (GOOD.replace("p2p =", "pp ="), "pp"),
            (GOOD.replace("127.0.0.1:8545", "8545"), "rpc"),
            (GOOD.replace("11111111", "zz"), "peers[0].identity"),
            (GOOD.replace("data_dir", "# "), "data_dir"),
        ];
        for (text, field) in cases {
            let error = FullNodeConfig::parse(&text, Path::new("node.toml"))
                .unwrap_err()
                .to_string();
            assert!(error.contains(field), "{error} does not name {field}");
        }
    }

    #[test]
    fn keys_round_trip_and_never_print() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys.json");
        let file = KeysFile {
            identity: "11".repeat(32),
            bls: "22".repeat(32),
            system: "33".repeat(32),
        };
        let keys = Keys::decode(&file, &path).unwrap();
        keys.save(&path).unwrap();
        assert!(keys.save(&path).is_err(), "an existing keys file is never overwritten");
        assert_eq!(Keys::load(&path).unwrap().system, keys.system);
        assert!(!format!("{keys:?} {file:?}").contains("1111"));

        std::fs::write(&path, r#"{"identity":"SECRETSECRET","bls":"","system":""}"#).unwrap();
        let error = Keys::load(&path).unwrap_err().to_string();
        assert!(error.contains("`") && !error.contains("SECRET"), "{error}");
        std::fs::write(&path, r#"{"identity":"SECRETSECRET","bls":7}"#).unwrap();
        assert!(!Keys::load(&path).unwrap_err().to_string().contains("SECRET"));
        let zero = KeysFile {
            system: "00".repeat(32),
            ..file
        };
        assert!(Keys::decode(&zero, &path).unwrap_err().to_string().contains("`system`"));
    }
}
