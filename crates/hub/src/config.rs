//! Configuration (TOML) of a hub. Unknown keys are refused.

use crate::{
    db::{Place, Target},
    quota::Quota,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
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
    /// A value that cannot work.
    #[error("{field} {problem}")]
    Value {
        /// Field of the configuration.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// A hub.
///
/// ```
/// let config: opg_hub::config::HubConfig = toml::from_str("listen = '127.0.0.1:8700'\ndata_dir = 'hub'")?;
/// assert_eq!(config.limits.file_bytes, 64 << 30);
/// assert!(toml::from_str::<opg_hub::config::HubConfig>("data_dir = 'hub'\nlisten = '127.0.0.1:1'\nx = 1").is_err());
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubConfig {
    /// Address to serve on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Directory of database and blobs, as far as they are not elsewhere, and of uploads under way. One process at a time.
    pub data_dir: PathBuf,
    /// URL under which clients reach the hub, without a slash at the end; by default `http://` and the address served
    /// on. Upload links and sign-in messages name it.
    #[serde(default)]
    pub public_url: Option<String>,
    /// Where metadata is kept instead of `data_dir`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseConfig>,
    /// Where blobs are kept instead of `data_dir`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blobs: Option<BlobsConfig>,
    /// The chain on which models are registered and paid; without it, prices and earnings are not known here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<ChainConfig>,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
    /// Accounts, by address in lower case, that may store more or less than `limits` says.
    #[serde(default)]
    pub quotas: BTreeMap<String, Quota>,
}

/// A text that is not shown: it may hold a password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

/// A PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `postgres://user:password@host:port/database`; the password may be in the environment instead, as `PGPASSWORD`.
    pub url: Secret,
    /// Certificates of the authority that the server's is signed by (PEM), instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

/// A bucket of an S3-compatible server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BlobsConfig {
    /// `s3://bucket/prefix?endpoint=https://host&region=name`. Without an endpoint it is Amazon's.
    pub url: String,
    /// Name of the key; without it `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY` of the environment are used, and
    /// `AWS_SESSION_TOKEN` if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_key_id: Option<String>,
    /// The key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_access_key: Option<Secret>,
    /// Certificates of the authority that the server's is signed by (PEM), instead of the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Takes over a bucket whose blobs are this hub's, but that is not as this database left it. For one start: it
    /// switches off what keeps two copies of a hub apart.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub adopt: bool,
}

/// The network whose registry and ledger the hub reads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChainConfig {
    /// Chain id, checked against the full nodes.
    pub chain_id: u64,
    /// JSON-RPC URLs of full nodes, in order of preference. What the hub shows is as good as they are.
    pub rpc: Vec<String>,
}

/// Most parts of an upload.
const PARTS: u64 = 1_000;
/// Largest `part_bytes`.
const PART_LIMIT: u64 = 1 << 40;

/// Bounds on what one client, or all of them, can make the hub do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest file, bytes.
    pub file_bytes: u64,
    /// Largest file inside a commit request, bytes; larger ones are uploaded apart.
    pub regular_bytes: u64,
    /// From this size on, clients are told to upload a file apart even if it is text.
    pub large_bytes: u64,
    /// Largest commit request, bytes.
    pub commit_bytes: u64,
    /// Most operations of a commit.
    pub commit_operations: usize,
    /// Most files of a revision.
    pub files: usize,
    /// Least size of an upload's part, bytes; files above it are uploaded in parts. Parts are of a power of two, and larger where
    /// there would be more than 1,000.
    pub part_bytes: u64,
    /// Most bytes that an account may store, in all its name spaces; 0 for no bound.
    pub owner_bytes: u64,
    /// Most repositories of an account, in all its name spaces.
    pub owner_repos: u64,
    /// Requests a minute of one account.
    pub account_requests: u32,
    /// Requests a minute of one network address without a token.
    pub anonymous_requests: u32,
    /// Sign-ins a minute of one network address.
    pub sign_ins: u32,
    /// Uploads worked on at the same time; more get 503.
    pub uploads: usize,
    /// Longest life of a token, days.
    pub token_days: u32,
    /// Hours for which an upload without a commit is kept.
    pub garbage_hours: u32,
    /// Seconds that running requests get at shutdown.
    pub shutdown_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 64 << 30,
            regular_bytes: 10 << 20,
            large_bytes: 1 << 20,
            commit_bytes: 256 << 20,
            commit_operations: 20_000,
            files: 100_000,
            part_bytes: 16 << 20,
            owner_bytes: 0,
            owner_repos: 10_000,
            account_requests: 6_000,
            anonymous_requests: 3_000,
            sign_ins: 60,
            uploads: 64,
            token_days: 365,
            garbage_hours: 24,
            shutdown_seconds: 30,
        }
    }
}

impl Limits {
    /// Size of a part of a file, bytes. Each part is a link in the answer that announces them, so they are not too many; by its size
    /// it is a subtree of the file's BLAKE3.
    pub(crate) fn part_of(&self, file: u64) -> u64 {
        // Cannot overflow: a thousandth of any number, or less than the limit.
        file.div_ceil(PARTS)
            .max(self.part_bytes.min(PART_LIMIT))
            .next_power_of_two()
    }
}

impl HubConfig {
    /// A hub with default bounds.
    #[must_use]
    pub fn new(listen: SocketAddr, data_dir: PathBuf) -> Self {
        Self {
            listen,
            data_dir,
            public_url: None,
            database: None,
            blobs: None,
            chain: None,
            limits: Limits::default(),
            quotas: BTreeMap::new(),
        }
    }

    /// The file's text.
    ///
    /// # Errors
    /// Never for a configuration that [`check`](Self::check) accepts: every field has a TOML form.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }

    /// Reads and checks a file. A relative `data_dir` is relative to the file's folder, as in every role's configuration.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::File {
            path: path.to_owned(),
            source,
        })?;
        let mut config: Self = toml::from_str(&text).map_err(|source| ConfigError::Toml {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let folder = path.parent().unwrap_or(Path::new("."));
        config.data_dir = folder.join(&config.data_dir);
        if let Some(ca) = config.database.as_mut().and_then(|database| database.ca.as_mut()) {
            *ca = folder.join(&ca);
        }
        if let Some(ca) = config.blobs.as_mut().and_then(|blobs| blobs.ca.as_mut()) {
            *ca = folder.join(&ca);
        }
        config.check()?;
        Ok(config)
    }

    /// Where the tables are that lie in `file` of the data directory unless there is a server.
    pub(crate) fn place(&self, file: &str) -> Result<Place, ConfigError> {
        let Some(database) = &self.database else {
            return Ok(Place::File(self.data_dir.join(file)));
        };
        let password = std::env::var("PGPASSWORD").ok();
        let target = Target::read(&database.url.0, password.as_deref(), database.ca.as_deref());
        let target = target.map_err(|problem| ConfigError::Value {
            field: "database.url",
            problem,
        })?;
        Ok(Place::Server(Box::new(target)))
    }

    /// Checks the values.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub fn check(&self) -> Result<(), ConfigError> {
        let no = |field, problem: &str| {
            Err(ConfigError::Value {
                field,
                problem: problem.to_owned(),
            })
        };
        if let Some(url) = &self.public_url {
            let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
            let fine = |host: &str| {
                !host.is_empty()
                    && host
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b))
            };
            if !host.is_some_and(fine) {
                return no(
                    "public_url",
                    "must be http:// or https:// and a host, with nothing after it",
                );
            }
        }
        if self.public_url.is_none() && self.listen.ip().is_unspecified() {
            return no(
                "public_url",
                "must be set when listening on all addresses: clients need one to come back to",
            );
        }
        let address = |name: &str| {
            name.strip_prefix("0x")
                .is_some_and(|hex| hex.len() == 40 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
        };
        if !self.quotas.keys().all(|account| address(account)) {
            return no("quotas", "must be named by addresses in lower case");
        }
        if self.chain.as_ref().is_some_and(|chain| chain.rpc.is_empty()) {
            return no("chain.rpc", "needs at least one URL of a full node");
        }
        self.place("hub.sqlite")?;
        self.blobs.as_ref().map_or(Ok(()), crate::bucket::check)?;
        let limits = &self.limits;
        if !(1 << 20..=PART_LIMIT).contains(&limits.part_bytes) {
            return no("limits.part_bytes", "must be at least 1048576, and at most 2^40");
        }
        if limits.large_bytes > limits.regular_bytes || limits.regular_bytes > limits.commit_bytes {
            return no("limits", "must have large_bytes <= regular_bytes <= commit_bytes");
        }
        if limits.account_requests == 0 || limits.anonymous_requests == 0 || limits.sign_ins == 0 || limits.uploads == 0
        {
            return no("limits", "must allow at least one request, sign-in and upload");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_values_are_named() {
        let mut config = HubConfig::new(([127, 0, 0, 1], 0).into(), "x".into());
        config.check().unwrap();
        for url in ["ftp://x", "http://", "http://x/", "http://x/y", "x", "http://a b"] {
            config.public_url = Some(url.into());
            assert!(
                config.check().unwrap_err().to_string().starts_with("public_url"),
                "{url}"
            );
        }
        config.public_url = Some("https://hub.example:8443".into());
        config.check().unwrap();
        config.listen = ([0, 0, 0, 0], 80).into();
        config.check().unwrap();
        config.public_url = None;
        assert!(config.check().is_err());
        config.listen = ([127, 0, 0, 1], 80).into();
        config.limits.part_bytes = 1;
        assert!(config.check().is_err());
    }
}
