//! Where the node's models come from: files of this machine, or sources that nobody trusts, checked against content roots.

use crate::{
    config::{InferenceNodeConfig, ModelConfig},
    metrics::Metrics,
};
use opg_model_store::{Cache, FetchError, Fetcher, Outcome, Report, Source, SourceError, SourceKind, Wanted};
use opg_primitives::ids::ModelRoot;
use serde::{Deserialize, Serialize};
use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

const CONNECT: Duration = Duration::from_secs(5);
/// Between two rounds of asking all sources.
const PAUSE: Duration = Duration::from_millis(500);

/// A model that is fetched. Its root decides: a name at a hub can be made to mean something else at any time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubModel {
    /// Content root, as registered on chain.
    pub root: ModelRoot,
    /// `owner/name` at the hubs, where it differs from the model's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<String>,
    /// Branch, tag or commit there; the newest revision of `main` that has the root if not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Path of the file there, if the repository has several models.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
}

/// Where fetched models lie, and whom to ask for them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelStoreConfig {
    /// Folder of the cache; each node has its own.
    pub dir: PathBuf,
    /// Most bytes of the cache.
    #[serde(default = "default_max_bytes")]
    pub max_bytes: u64,
    /// Other inference nodes that share their files, asked first.
    #[serde(default)]
    pub peers: Vec<String>,
    /// Model hubs, asked in this order.
    #[serde(default)]
    pub hubs: Vec<String>,
    /// Give fetched models to other nodes, at `/v1/model-files`. What is configured by path is never given.
    #[serde(default = "yes")]
    pub share: bool,
    /// How long sources that are away are asked again when the node starts, seconds.
    #[serde(default = "default_patience")]
    pub patience_seconds: u64,
}

const fn default_max_bytes() -> u64 {
    64 << 30
}

const fn yes() -> bool {
    true
}

const fn default_patience() -> u64 {
    60
}

impl ModelStoreConfig {
    /// A store in `dir` that asks these hubs.
    #[must_use]
    pub fn new(dir: PathBuf, hubs: Vec<String>) -> Self {
        Self {
            dir,
            max_bytes: default_max_bytes(),
            peers: Vec::new(),
            hubs,
            share: true,
            patience_seconds: default_patience(),
        }
    }

    /// Peers, then hubs: what a peer sends costs the hub nothing.
    pub(crate) fn sources(&self) -> Result<Vec<Source>, SourceError> {
        let peers = self.peers.iter().map(|url| Source::new(SourceKind::Peer, url));
        let hubs = self.hubs.iter().map(|url| Source::new(SourceKind::Hub, url));
        peers.chain(hubs).collect()
    }
}

/// Why the models are not here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SupplyError {
    /// One cannot be fetched.
    #[error("model {name}: {source}")]
    Fetch {
        /// Name of the model.
        name: String,
        /// Why not.
        source: FetchError,
    },
    /// The cache cannot be used.
    #[error("model_store: {0}")]
    Cache(#[from] opg_model_store::CacheError),
    /// A source is no URL.
    #[error("model_store: {0}")]
    Source(#[from] SourceError),
    /// The HTTP client cannot be set up.
    #[error("HTTP client: {0}")]
    Http(#[from] reqwest::Error),
    /// A worker thread ended.
    #[error("opening the cache of models ended early")]
    Worker,
}

/// The models with the paths of their files, fetched ones included. The cache stays locked as long as the second part lives.
pub(crate) async fn fetch(
    config: &InferenceNodeConfig,
    metrics: &Metrics,
) -> Result<(Vec<ModelConfig>, Option<Arc<Cache>>), SupplyError> {
    let mut models = config.models.clone();
    let Some(store) = &config.model_store else {
        return Ok((models, None));
    };
    let (dir, limit) = (store.dir.clone(), store.max_bytes);
    let cache = tokio::task::spawn_blocking(move || Cache::open(&dir, limit))
        .await
        .map_err(|_| SupplyError::Worker)??;
    let cache = Arc::new(cache);
    let http = reqwest::Client::builder()
        .connect_timeout(CONNECT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("opg/", env!("CARGO_PKG_VERSION")))
        .build()?;
    let fetcher = Fetcher::new(http, Arc::clone(&cache), store.sources()?);
    let patience = Duration::from_secs(store.patience_seconds);
    let began = Instant::now();
    for model in &mut models {
        let Some(hub) = &model.hub else { continue };
        let wanted = Wanted {
            root: hub.root,
            repository: hub.repository.clone().unwrap_or_else(|| model.name.clone()),
            revision: hub.revision.clone(),
            file: hub.file.clone(),
        };
        let report = |report: &Report| metrics.model_source(&report.source, report.outcome, report.bytes);
        model.path = loop {
            match fetcher.get(&wanted, &report).await {
                Ok(cached) => break cached.path,
                Err(error) if may_pass(&error) && began.elapsed() < patience => tokio::time::sleep(PAUSE).await,
                Err(source) => {
                    return Err(SupplyError::Fetch {
                        name: model.name.clone(),
                        source,
                    });
                }
            }
        };
    }
    Ok((models, Some(cache)))
}

/// Whether asking again may help: not where every source has sent wrong bytes.
fn may_pass(error: &FetchError) -> bool {
    match error {
        FetchError::Nowhere { reports, .. } => reports.iter().any(|report| report.outcome != Outcome::Lied),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: &str = "[model_store]\ndir = 'cache'\nhubs = ['http://127.0.0.1:8700']\n";
    const HUB: &str = "[models.hub]\nroot = '1111111111111111111111111111111111111111111111111111111111111111'\n";

    fn load(store: &str, path: &str, hub: &str) -> Result<InferenceNodeConfig, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.toml");
        let text = format!(
            "chain_id = 1\noperator = '0x0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e0e'\nkeys = 'keys.json'\ndata_dir = 'data'\n\
             listen = '127.0.0.1:0'\nrpc = ['http://127.0.0.1:1']\n{store}[[models]]\nname = 'a/b'\nkind = 'gguf'\n{path}{hub}"
        );
        std::fs::write(&file, text).unwrap();
        InferenceNodeConfig::load(&file).map_err(|error| error.to_string())
    }

    #[test]
    fn a_fetched_model_needs_a_root_and_a_store_and_has_no_path() {
        let config = load(STORE, "", HUB).unwrap();
        let store = config.model_store.as_ref().unwrap();
        assert!(store.share && store.dir.is_absolute() && config.models[0].path.as_os_str().is_empty());
        assert_eq!(store.sources().unwrap().len(), 1);
        // As written, so read: a network that moves to other ports rewrites the file.
        let again: InferenceNodeConfig = toml::from_str(&config.to_toml()).unwrap();
        assert_eq!(again, config);
        for (store, path, hub, words) in [
            ("", "", HUB, "model_store"),
            (STORE, "path = 'x.gguf'\n", HUB, "choose one"),
            (STORE, "", "", "no path and no section hub"),
            (STORE, "", "[models.hub]\nroot = '11'\n", "root"),
            (STORE, "", "[models.hub]\nrevision = 'main'\n", "root"),
            ("[model_store]\ndir = 'c'\npeers = ['ftp://x']\n", "", HUB, "ftp://x"),
        ] {
            let error = load(store, path, hub).unwrap_err();
            assert!(error.contains(words), "{words} in {error}");
        }
    }
}
