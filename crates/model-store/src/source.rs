//! Who may have a model, and how to ask.

use crate::ranges::{OFFER_HEADER, UNIT};
use opg_models::{Manifest, ModelRoot};
use reqwest::{Client, StatusCode, Url};
use serde::Deserialize;
use std::{fmt, time::Duration};

/// Most bytes of a description: a manifest in hexadecimal, and as JSON.
const DESCRIPTION: usize = 4 << 20;
/// Time for a description.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceKind {
    /// A model hub.
    Hub,
    /// An inference node that shares its files.
    Peer,
}

impl SourceKind {
    /// The word for logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Peer => "peer",
        }
    }
}

/// Somebody who may have a model. Nothing it says is believed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    kind: SourceKind,
    url: String,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.url)
    }
}

/// A model to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its content root: what decides.
    pub root: ModelRoot,
    /// `owner/name` at hubs.
    pub repository: String,
    /// Branch, tag or commit there; the newest revision of `main` that has the root if not given.
    pub revision: Option<String>,
    /// Path of the file there, if the repository has several models.
    pub file: Option<String>,
}

/// Why a source has not given a description.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// Not a URL of HTTP.
    #[error("{url:?} is no http:// or https:// URL")]
    Url {
        /// What was given.
        url: String,
    },
    /// No connection, or the answer broke off.
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    /// It has no such model.
    #[error("HTTP {status}: {reason}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// What it says.
        reason: String,
    },
    /// An answer that no hub or node gives.
    #[error("unexpected answer: {0}")]
    Answer(String),
    /// It has another model under this name.
    #[error("has {got} there")]
    OtherRoot {
        /// Root of what it has.
        got: ModelRoot,
    },
}

impl SourceError {
    /// Whether asking later may help: the source is away or does not have the model yet.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        !matches!(self, Self::Url { .. })
    }
}

/// What a source says about a model, checked against its root.
pub(crate) struct Described {
    pub(crate) manifest: Manifest,
    /// Where its file is.
    pub(crate) url: Url,
    /// Whether verified ranges of it are offered.
    pub(crate) ranges: bool,
}

#[derive(Deserialize)]
struct HubRoot {
    revision: String,
    file: String,
    manifest_cbor: String,
    /// The unit of verified ranges; hubs that do not know them say nothing.
    #[serde(default)]
    verified_ranges: Option<String>,
}

impl Source {
    /// A hub, or an inference node.
    ///
    /// # Errors
    /// [`SourceError::Url`].
    pub fn new(kind: SourceKind, url: &str) -> Result<Self, SourceError> {
        let wrong = || SourceError::Url {
            url: url.chars().take(200).collect(),
        };
        let parsed = Url::parse(url).map_err(|_| wrong())?;
        if !matches!(parsed.scheme(), "http" | "https") || parsed.cannot_be_a_base() || parsed.host().is_none() {
            return Err(wrong());
        }
        Ok(Self {
            kind,
            url: url.trim_end_matches('/').to_owned(),
        })
    }

    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> SourceKind {
        self.kind
    }

    /// Its URL, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    fn at(&self, segments: impl IntoIterator<Item = String>) -> Result<Url, SourceError> {
        let wrong = || SourceError::Url { url: self.url.clone() };
        let mut url = Url::parse(&self.url).map_err(|_| wrong())?;
        url.path_segments_mut()
            .map_err(|()| wrong())?
            .pop_if_empty()
            .extend(segments);
        Ok(url)
    }

    /// Asks for the model's manifest, and where its file is.
    pub(crate) async fn describe(&self, http: &Client, wanted: &Wanted) -> Result<Described, SourceError> {
        let described = match self.kind {
            SourceKind::Hub => self.ask_hub(http, wanted).await?,
            SourceKind::Peer => self.ask_peer(http, wanted.root).await?,
        };
        let got = described
            .manifest
            .root()
            .map_err(|error| SourceError::Answer(error.to_string()))?;
        if got != wanted.root {
            return Err(SourceError::OtherRoot { got });
        }
        Ok(described)
    }

    async fn ask_hub(&self, http: &Client, wanted: &Wanted) -> Result<Described, SourceError> {
        let names = || wanted.repository.split('/').map(str::to_owned);
        let api = ["api", "opg", "models"].map(str::to_owned).into_iter();
        let mut url = self.at(api.chain(names()).chain(["root".to_owned()]))?;
        match &wanted.revision {
            Some(revision) => url.query_pairs_mut().append_pair("revision", revision),
            // The repository may have moved on: the newest revision with this model is wanted.
            None => url.query_pairs_mut().append_pair("root", &wanted.root.to_string()),
        };
        if let Some(file) = &wanted.file {
            url.query_pairs_mut().append_pair("file", file);
        }
        let answer: HubRoot = serde_json::from_slice(&read(http, url).await?.0)
            .map_err(|error| SourceError::Answer(error.to_string()))?;
        let cbor = hex::decode(answer.manifest_cbor).map_err(|error| SourceError::Answer(error.to_string()))?;
        let file = ["resolve".to_owned(), answer.revision]
            .into_iter()
            .chain(answer.file.split('/').map(str::to_owned));
        Ok(Described {
            manifest: decode(&cbor)?,
            url: self.at(names().chain(file))?,
            ranges: answer.verified_ranges.as_deref() == Some(UNIT),
        })
    }

    async fn ask_peer(&self, http: &Client, root: ModelRoot) -> Result<Described, SourceError> {
        let path = ["v1".to_owned(), "model-files".to_owned(), hex::encode(root.0)];
        let mut url = self.at(path)?;
        let (manifest, ranges) = read(http, url.clone()).await?;
        let manifest = decode(&manifest)?;
        let [file] = manifest.files.as_slice() else {
            return Err(SourceError::Answer(format!(
                "a model of {} files",
                manifest.files.len()
            )));
        };
        url.path_segments_mut()
            .map_err(|()| SourceError::Url { url: self.url.clone() })?
            .push(&hex::encode(file.sha256));
        Ok(Described { manifest, url, ranges })
    }
}

fn decode(cbor: &[u8]) -> Result<Manifest, SourceError> {
    Manifest::decode(cbor).map_err(|error| SourceError::Answer(error.to_string()))
}

/// A whole answer, within bounds of size and time, and whether its header offers verified ranges.
async fn read(http: &Client, url: Url) -> Result<(Vec<u8>, bool), SourceError> {
    let mut answer = http.get(url).timeout(PATIENCE).send().await?;
    let ranges = answer.headers().get(OFFER_HEADER).is_some_and(|value| value == UNIT);
    let mut bytes = Vec::new();
    while let Some(piece) = answer.chunk().await? {
        if bytes.len() + piece.len() > DESCRIPTION {
            return Err(SourceError::Answer(format!("more than {DESCRIPTION} bytes")));
        }
        bytes.extend_from_slice(&piece);
    }
    match answer.status() {
        StatusCode::OK => Ok((bytes, ranges)),
        status => Err(SourceError::Refused {
            status: status.as_u16(),
            reason: sentence(&bytes),
        }),
    }
}

/// The message of an error document, in one short line of printable characters.
pub(crate) fn sentence(bytes: &[u8]) -> String {
    let document: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let message = document.pointer("/error/message").and_then(|message| message.as_str());
    let message: String = message.unwrap_or("no reason given").chars().take(200).collect();
    message.replace(|c: char| c.is_control(), " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_urls_of_http() {
        for url in ["", "hub", "ftp://hub", "http://", "file:///models", "data:,x"] {
            assert!(Source::new(SourceKind::Hub, url).is_err(), "{url}");
        }
        let source = Source::new(SourceKind::Peer, "http://127.0.0.1:1/base/").unwrap();
        assert_eq!(source.to_string(), "peer http://127.0.0.1:1/base");
        // What a repository is called cannot lead to another path.
        let url = source.at(["a".to_owned(), "../?x#y".to_owned()]).unwrap();
        assert_eq!(url.as_str(), "http://127.0.0.1:1/base/a/..%2F%3Fx%23y");
    }
}
