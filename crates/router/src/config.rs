//! Configuration (TOML) of a router. Unknown keys are refused.

use opg_primitives::ids::NodeId;
use serde::{Deserialize, Serialize};
use std::{
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

/// A router.
///
/// ```
/// let text = "listen = '127.0.0.1:8600'\nchain_id = 10740\nrpc = ['http://127.0.0.1:8545']";
/// let config: opg_router::config::RouterConfig = toml::from_str(text)?;
/// assert_eq!(config.limits.body_bytes, 8 << 20);
/// assert!(config.relay.enabled && !config.private_endpoints);
/// assert!(toml::from_str::<opg_router::config::RouterConfig>("listen = '127.0.0.1:1'\nx = 1").is_err());
/// # Ok::<(), toml::de::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouterConfig {
    /// Address to serve on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Chain id, checked against the full nodes.
    pub chain_id: u64,
    /// JSON-RPC URLs of full nodes, in order of preference. May be empty if `nodes` is not.
    #[serde(default)]
    pub rpc: Vec<String>,
    /// The genesis file: nodes that are registered in block 0 have no event that announces them. Relative to the
    /// configuration file.
    #[serde(default)]
    pub genesis: Option<PathBuf>,
    /// Nodes that are known without looking at the chain.
    #[serde(default)]
    pub nodes: Vec<StaticNode>,
    /// Whether nodes may have private and loopback addresses. For networks on one machine: endpoints come from the chain,
    /// and this lets anybody who registers a node make the router connect to its own neighbourhood.
    #[serde(default)]
    pub private_endpoints: bool,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
    /// How nodes are chosen.
    #[serde(default)]
    pub quality: Quality,
    /// The Oblivious HTTP relay.
    #[serde(default)]
    pub relay: Relay,
}

/// A node that is known without looking at the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StaticNode {
    /// Its id.
    pub id: NodeId,
    /// Its base URL; by default the registered one.
    #[serde(default)]
    pub url: Option<String>,
}

/// Bounds on what one client, or all of them, can make the router do, and how often it looks at nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Largest request body, bytes.
    pub body_bytes: u64,
    /// Bytes of an unpaid request that are held so that it can be sent to a second node.
    pub hold_bytes: usize,
    /// Bytes of unpaid requests that are held at the same time, by all of them; more get 503.
    pub held_bytes: u32,
    /// Open connections of clients; more wait.
    pub connections: usize,
    /// Requests worked on at the same time; more get 503.
    pub concurrent: usize,
    /// Requests a minute of one network address.
    pub requests_per_minute: u32,
    /// Most nodes; those with the largest bonds.
    pub nodes: usize,
    /// Seconds to connect to a node.
    pub connect_seconds: u64,
    /// Seconds for the head of a node's answer. A whole answer is generated before it.
    pub head_seconds: u64,
    /// Seconds between two pieces of a body, for the head of a request, and for a client that does not read.
    pub idle_seconds: u64,
    /// Seconds between looks at the registry.
    pub discovery_seconds: u64,
    /// Seconds between looks at each node.
    pub probe_seconds: u64,
    /// Seconds that running requests get at shutdown.
    pub shutdown_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 8 << 20,
            hold_bytes: 1 << 20,
            held_bytes: 512 << 20,
            connections: 8192,
            concurrent: 1024,
            requests_per_minute: 1_200,
            nodes: 1024,
            connect_seconds: 5,
            head_seconds: 300,
            idle_seconds: 120,
            discovery_seconds: 15,
            probe_seconds: 10,
            shutdown_seconds: 30,
        }
    }
}

/// Weights of the score and what goes with it. They are public: `GET /health` shows them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quality {
    /// Share of requests that succeed.
    pub success: f64,
    /// Median time to the first byte of an answer.
    pub first_byte: f64,
    /// Median speed of answers.
    pub speed: f64,
    /// Price, squared.
    pub price: f64,
    /// Audit record; the same for every node until there are audits.
    pub audit: f64,
    /// Bond.
    pub stake: f64,
    /// Share of requests that go to a node without measurements, if there is one.
    pub explore: f64,
    /// Bounds of the wait before a second node is asked for a quote, milliseconds. Between them, the first node's own 95th
    /// percentile counts. `[0, 0]` asks no second one.
    pub hedge_ms: [u64; 2],
}

impl Default for Quality {
    fn default() -> Self {
        Self {
            success: 0.35,
            first_byte: 0.20,
            speed: 0.15,
            price: 0.15,
            audit: 0.10,
            stake: 0.05,
            explore: 0.05,
            hedge_ms: [50, 2_000],
        }
    }
}

impl Quality {
    /// Weights in the order of a score.
    pub(crate) const fn weights(&self) -> [f64; 6] {
        [
            self.success,
            self.first_byte,
            self.speed,
            self.price,
            self.audit,
            self.stake,
        ]
    }
}

/// The Oblivious HTTP relay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Relay {
    /// Whether there is one.
    pub enabled: bool,
    /// Largest sealed request, bytes.
    pub body_bytes: u64,
    /// Largest sealed answer, bytes.
    pub answer_bytes: u64,
    /// Requests a minute of one network address.
    pub requests_per_minute: u32,
}

impl Default for Relay {
    fn default() -> Self {
        Self {
            enabled: true,
            body_bytes: 9 << 20,
            answer_bytes: 256 << 20,
            requests_per_minute: 600,
        }
    }
}

impl RouterConfig {
    /// A router with default bounds.
    #[must_use]
    pub fn new(listen: SocketAddr, chain_id: u64, rpc: Vec<String>) -> Self {
        Self {
            listen,
            chain_id,
            rpc,
            genesis: None,
            nodes: Vec::new(),
            private_endpoints: false,
            limits: Limits::default(),
            quality: Quality::default(),
            relay: Relay::default(),
        }
    }

    /// Reads and checks a file.
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
        let base = path.parent().unwrap_or(Path::new("."));
        config.genesis = config.genesis.map(|genesis| base.join(genesis));
        config.check()?;
        Ok(config)
    }

    /// The file's text.
    ///
    /// # Errors
    /// If a value has no TOML form, such as an integer above 2⁶³.
    pub fn to_toml(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
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
        if self.rpc.is_empty() && self.nodes.is_empty() {
            return no("rpc", "needs at least one URL of a full node, or there must be nodes");
        }
        if self.rpc.is_empty() && self.nodes.iter().any(|node| node.url.is_none()) {
            return no("nodes.url", "is needed where no full node can be asked");
        }
        let limits = &self.limits;
        let zero = limits.body_bytes == 0
            || limits.held_bytes == 0
            || limits.connections == 0
            || limits.concurrent == 0
            || limits.requests_per_minute == 0
            || limits.nodes == 0
            || limits.connect_seconds == 0
            || limits.head_seconds == 0
            || limits.idle_seconds == 0
            || limits.discovery_seconds == 0
            || limits.probe_seconds == 0;
        if zero {
            return no("limits", "must not be zero");
        }
        if self.relay.enabled
            && (self.relay.body_bytes == 0 || self.relay.answer_bytes == 0 || self.relay.requests_per_minute == 0)
        {
            return no("relay", "must not be zero; enabled = false turns it off");
        }
        let quality = &self.quality;
        let weights = quality.weights();
        if weights.iter().any(|w| !w.is_finite() || *w < 0.0) || (weights.iter().sum::<f64>() - 1.0).abs() > 1e-6 {
            return no("quality", "weights must not be negative and must sum to 1");
        }
        if !(0.0..=1.0).contains(&quality.explore) {
            return no("quality.explore", "must be 0 to 1");
        }
        let [least, most] = quality.hedge_ms;
        if least > most {
            return no("quality.hedge_ms", "must be a lower and an upper bound");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_cannot_work_name_their_field() {
        let good = RouterConfig::new(([127, 0, 0, 1], 0).into(), 1, vec!["http://127.0.0.1:1".into()]);
        good.check().unwrap();
        let field = |change: fn(&mut RouterConfig)| {
            let mut config = good.clone();
            change(&mut config);
            match config.check() {
                Err(ConfigError::Value { field, .. }) => field,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(field(|c| c.rpc.clear()), "rpc");
        assert_eq!(field(|c| c.limits.concurrent = 0), "limits");
        assert_eq!(field(|c| c.relay.body_bytes = 0), "relay");
        assert_eq!(field(|c| c.quality.success = 0.5), "quality");
        assert_eq!(field(|c| c.quality.price = f64::NAN), "quality");
        assert_eq!(field(|c| c.quality.explore = 1.5), "quality.explore");
        assert_eq!(field(|c| c.quality.hedge_ms = [2, 1]), "quality.hedge_ms");
        let id = NodeId([1; 32].into());
        let mut lonely = good.clone();
        lonely.rpc.clear();
        lonely.nodes = vec![StaticNode { id, url: None }];
        assert!(matches!(
            lonely.check(),
            Err(ConfigError::Value { field: "nodes.url", .. })
        ));
        let text = good.to_toml().unwrap();
        assert_eq!(toml::from_str::<RouterConfig>(&text).unwrap(), good);
    }
}
