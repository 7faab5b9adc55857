//! Where a provider is, whom to trust to be it, and how long to wait.

use crate::provider::Target;
use rustls::pki_types::{CertificateDer, pem::PemObject as _};
use std::{net::SocketAddr, time::Duration};

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {problem}")]
pub struct ConfigError {
    /// Field.
    pub field: &'static str,
    /// What is wrong with it.
    pub problem: String,
}

pub(crate) fn bad(field: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError {
        field,
        problem: problem.into(),
    }
}

/// Base URL of a provider.
///
/// ```
/// use opg_upstream::Endpoint;
///
/// let endpoint = Endpoint::parse("https://api.openai.com/v1")?;
/// assert_eq!((endpoint.host.as_str(), endpoint.port, endpoint.path.as_str()), ("api.openai.com", 443, "/v1"));
/// assert!(Endpoint::parse("https://user:key@api.openai.com/").is_err());
/// # Ok::<(), opg_upstream::ConfigError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Whether TLS is spoken. Without it, only loopback addresses are connected to.
    pub tls: bool,
    /// Host name or IP address, in lower case.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path before the provider's own, without a slash at the end.
    pub path: String,
}

impl Endpoint {
    /// Reads `https://host[:port][/path]`, or `http://` for a server on the same machine.
    ///
    /// # Errors
    /// [`ConfigError`] for anything else, also for user names, queries and fragments.
    pub fn parse(url: &str) -> Result<Self, ConfigError> {
        let uri: http::Uri = url.parse().map_err(|e| bad("url", format!("{url:?}: {e}")))?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad("url", format!("{url:?} must start with https://"))),
        };
        let authority = uri.authority().ok_or_else(|| bad("url", "has no host"))?;
        if authority.as_str().contains('@') || uri.query().is_some() || url.contains('#') {
            return Err(bad("url", "must have no user name, query or fragment"));
        }
        let host = authority.host().to_ascii_lowercase();
        if host.is_empty() || host.len() > 200 {
            return Err(bad("url", "must have a host of 1 to 200 bytes"));
        }
        Ok(Self {
            tls,
            port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            host,
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// The host as addresses are looked up: without the brackets of an IPv6 address.
    pub(crate) fn name(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }

    /// Value of the header `Host`.
    pub(crate) fn authority(&self) -> String {
        let default = if self.tls { 443 } else { 80 };
        if self.port == default {
            self.host.clone()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

/// Whose certificates are believed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Roots {
    /// The authorities of the Web PKI, compiled in and so part of what is measured.
    #[default]
    WebPki,
    /// Only these.
    Only(Vec<CertificateDer<'static>>),
}

impl Roots {
    /// Roots of a PEM text.
    ///
    /// # Errors
    /// [`ConfigError`] if there is no certificate in it.
    pub fn from_pem(pem: &str) -> Result<Self, ConfigError> {
        let roots: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        match roots {
            Ok(roots) if !roots.is_empty() => Ok(Self::Only(roots)),
            Ok(_) => Err(bad("roots", "has no certificate")),
            Err(error) => Err(bad("roots", format!("is not PEM: {error}"))),
        }
    }
}

/// How long to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// For a connection with TLS.
    pub connect: Duration,
    /// For the status of the answer. A whole answer is generated before it.
    pub first_byte: Duration,
    /// Between two pieces of the answer.
    pub idle: Duration,
    /// For everything.
    pub total: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(300),
            idle: Duration::from_secs(90),
            total: Duration::from_secs(900),
        }
    }
}

/// One model of a provider and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamConfig {
    /// The model.
    pub target: Target,
    /// Where.
    pub endpoint: Endpoint,
    /// Whom to trust.
    pub roots: Roots,
    /// Address to connect to instead of the host's own: a proxy that moves bytes out of an enclave without a network. TLS
    /// still authenticates the host.
    pub address: Option<SocketAddr>,
    /// How long to wait.
    pub deadlines: Deadlines,
    /// Largest answer, bytes; at most [`crate::MAX_ANSWER`].
    pub max_answer: usize,
    /// Connections kept open for the next request.
    pub idle_connections: usize,
}

impl UpstreamConfig {
    /// The provider's own endpoint, Web PKI roots and default deadlines.
    ///
    /// # Errors
    /// [`ConfigError`] for [`crate::Provider::Compatible`], which has no endpoint of its own: use
    /// [`UpstreamConfig::at`].
    pub fn new(target: Target) -> Result<Self, ConfigError> {
        let url = target.provider.base_url();
        let url = url.ok_or_else(|| bad("url", "is needed for a server beside the node"))?;
        Self::at(target, url)
    }

    /// The same at another base URL.
    ///
    /// # Errors
    /// [`ConfigError`] for the URL.
    pub fn at(target: Target, url: &str) -> Result<Self, ConfigError> {
        Ok(Self {
            target,
            endpoint: Endpoint::parse(url)?,
            roots: Roots::WebPki,
            address: None,
            deadlines: Deadlines::default(),
            max_answer: 16 << 20,
            idle_connections: 16,
        })
    }
}
