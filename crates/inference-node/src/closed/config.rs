//! Which closed model is served, and how its provider is reached.

use crate::config::{ModelConfig, ModelKind};
use opg_primitives::ids::ModelRoot;
use opg_receipt::{
    closed_model_root,
    core::upstream::{MAX_UPSTREAM_HOST, MAX_UPSTREAM_TEXT},
};
use opg_upstream::{ConfigError, Provider, Roots, Target, Upstream, UpstreamConfig};
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, sync::Arc};
use tokio::sync::Semaphore;

/// Requests to one closed model that run at the same time; more get 503.
const CONCURRENT: usize = 64;

/// A provider's model. The price is the node's ask on chain, as of every model; the API key is never here: it is injected, sealed to
/// the node's attested key (`opg node inject-key`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClosedConfig {
    /// `openai`, `anthropic`, `google`, `xai`, or `compatible` for another server with OpenAI's format.
    pub provider: String,
    /// The provider's name of the model.
    pub model: String,
    /// Base URL, if it is not the provider's own. `http://` goes to loopback addresses only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Address to connect to instead of the host's: whatever moves bytes out of an enclave. TLS still authenticates the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// PEM text of the only authorities that are believed for this host, instead of those of the Web PKI. As all of this section it is
    /// part of the configuration's digest, which evidence binds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roots: Option<String>,
    /// Tokens of an answer if the request names no limit.
    #[serde(default = "default_max_tokens")]
    pub max_tokens: u32,
    /// Whether images may be sent to it.
    #[serde(default)]
    pub images: bool,
    /// Whether it takes `temperature` and `top_p`.
    #[serde(default = "yes")]
    pub sampling: bool,
}

const fn default_max_tokens() -> u32 {
    4096
}

const fn yes() -> bool {
    true
}

impl ClosedConfig {
    fn open(&self) -> Result<UpstreamConfig, ConfigError> {
        let refuse = |field, problem: String| ConfigError { field, problem };
        let provider = Provider::from_word(&self.provider).ok_or_else(|| {
            let words = Provider::ALL.map(Provider::as_str).join(", ");
            refuse("provider", format!("{:?} must be one of {words}", self.provider))
        })?;
        let mut target = Target::new(provider, &self.model);
        target.max_tokens = self.max_tokens;
        target.images = self.images;
        target.sampling = self.sampling;
        let mut config = match &self.url {
            Some(url) => UpstreamConfig::at(target, url)?,
            None => UpstreamConfig::new(target)?,
        };
        config.address = self.address;
        if let Some(pem) = &self.roots {
            config.roots = Roots::from_pem(pem)?;
        }
        // What would not fit the receipt must not be asked.
        if self.model.len() > MAX_UPSTREAM_TEXT {
            return Err(refuse("model", format!("must have at most {MAX_UPSTREAM_TEXT} bytes")));
        }
        if config.endpoint.host.len() > MAX_UPSTREAM_HOST {
            return Err(refuse(
                "url",
                format!("must have a host of at most {MAX_UPSTREAM_HOST} bytes"),
            ));
        }
        Ok(config)
    }
}

impl ModelConfig {
    /// What is wrong with a model of kind `upstream`, or with a section of that name elsewhere.
    pub(crate) fn problem(&self) -> Option<String> {
        match (&self.upstream, self.kind) {
            (Some(closed), ModelKind::Upstream) => {
                if !self.path.as_os_str().is_empty() {
                    return Some("goes without path".to_owned());
                }
                closed
                    .open()
                    .and_then(Upstream::new)
                    .err()
                    .map(|error| error.to_string())
            }
            (None, ModelKind::Upstream) => Some("is needed for models of kind upstream".to_owned()),
            (Some(_), _) => Some("goes with models of kind upstream".to_owned()),
            (None, _) if self.hub.is_some() && self.path.as_os_str().is_empty() => None,
            (None, _) if self.hub.is_some() => {
                Some(format!("{:?} has a path and a section hub; choose one", self.name))
            }
            (None, _) if self.path.as_os_str().is_empty() => {
                Some(format!("{:?} has no path and no section hub", self.name))
            }
            (None, _) => None,
        }
    }
}

/// A closed model that can be asked.
#[derive(Debug)]
pub(crate) struct Closed {
    pub(crate) upstream: Upstream,
    pub(crate) slots: Arc<Semaphore>,
}

impl Closed {
    /// Sets a model of a configuration up; `None` for other kinds.
    pub(crate) fn open(model: &ModelConfig) -> Option<Result<Self, ConfigError>> {
        let closed = model.upstream.as_ref()?;
        Some(closed.open().and_then(Upstream::new).map(|upstream| Self {
            upstream,
            slots: Arc::new(Semaphore::new(CONCURRENT)),
        }))
    }

    pub(crate) fn provider(&self) -> Provider {
        self.upstream.config().target.provider
    }

    pub(crate) fn host(&self) -> &str {
        &self.upstream.config().endpoint.host
    }

    /// The provider's name of the model.
    pub(crate) fn model(&self) -> &str {
        &self.upstream.config().target.model
    }

    /// The root under which it is registered on chain.
    pub(crate) fn root(&self) -> ModelRoot {
        closed_model_root(self.provider().as_str(), self.host(), self.model())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(text: &str) -> ModelConfig {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn sections_are_checked_before_anything_starts() {
        let openai =
            "name = \"openai/gpt\"\nkind = \"upstream\"\n[upstream]\nprovider = \"openai\"\nmodel = \"gpt-5.2\"\n";
        let good = model(openai);
        assert_eq!(good.problem(), None);
        let closed = Closed::open(&good).unwrap().unwrap();
        assert_eq!(closed.root(), closed_model_root("openai", "api.openai.com", "gpt-5.2"));
        for (text, word) in [
            (openai.replace("\"openai\"", "\"nobody\""), "must be one of openai"),
            (openai.replace("gpt-5.2", "gpt 5\\n"), "visible ASCII"),
            (openai.replace("gpt-5.2", &"m".repeat(129)), "128 bytes"),
            (openai.replace("\"openai\"", "\"compatible\""), "url"),
            (openai.replace("kind", "path = \"x\"\nkind"), "without path"),
            (
                openai.replace("\"upstream\"", "\"gguf\""),
                "goes with models of kind upstream",
            ),
            (format!("{openai}url = \"https://key@host/\"\n"), "user name"),
            (format!("{openai}roots = \"none\"\n"), "certificate"),
            ("name = \"a/b\"\nkind = \"upstream\"\n".to_owned(), "is needed"),
            ("name = \"a/b\"\nkind = \"onnx\"\n".to_owned(), "no path"),
        ] {
            let problem = model(&text).problem().unwrap_or_else(|| panic!("accepted: {text}"));
            assert!(problem.contains(word), "{problem}");
        }
        // A key has no place in a configuration.
        assert!(toml::from_str::<ModelConfig>(&format!("{openai}api_key = \"sk\"\n")).is_err());
    }
}
