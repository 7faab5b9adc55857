//! What a client of the hub needs beyond HTTP: signing in with a wallet's key, uploading a folder as a version, and
//! downloading a model that is checked against its content root.

pub mod folder;
pub mod push;

pub use folder::{Folder, FolderError, LocalFile};
pub use push::{Pushed, Session};

use crate::siwe::{Message, Scope, address_of};
use opg_models::{FileHasher, Format, Manifest, ManifestError, ManifestVersion, ModelRoot};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use secp256k1::{SECP256K1, SecretKey};
use serde::Deserialize;
use std::{io, path::Path, time::Duration};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::io::AsyncWriteExt as _;

/// Why a call to a hub failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The request did not reach the hub, or its answer broke off.
    #[error("hub: {0}")]
    Http(#[from] reqwest::Error),
    /// The hub refused.
    #[error("the hub answered {status}: {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The hub's sentence.
        message: String,
    },
    /// The hub wants a message for another place signed.
    #[error("the hub at {asked} calls itself {got}; signing that would sign in somewhere else")]
    OtherHub {
        /// URL that was asked.
        asked: String,
        /// URL in the hub's answer.
        got: String,
    },
    /// A local file.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The bytes are not those of the root.
    #[error("the hub sent bytes of root {got}, expected {expected}")]
    Root {
        /// Root asked for.
        expected: ModelRoot,
        /// Root of what came.
        got: ModelRoot,
    },
    /// The manifest of what came cannot be made.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// An answer that no hub gives.
    #[error("the hub's answer is not understood: {0}")]
    Answer(String),
    /// The model card.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A repository that everybody sees, where a private one was wanted.
    #[error(
        "{name} is there already, and public; change that in its settings (PUT /api/models/{name}/settings) or take another name"
    )]
    Public {
        /// `owner/name`.
        name: String,
    },
    /// A token that cannot be sent.
    #[error("the access token has characters that no token has")]
    Token,
    /// A life of a token that is no time.
    #[error("a token cannot live {days} days")]
    Days {
        /// Days asked for.
        days: u32,
    },
}

impl ClientError {
    /// Whether trying again may help.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Http(error) => !error.is_builder(),
            Self::Refused { status, .. } => matches!(status, 429 | 500..=599),
            _ => false,
        }
    }
}

/// How tokens of these hubs begin: as tools of this API expect it, and unlike those of other services.
pub const TOKEN_PREFIX: &str = "hf_opg";

/// An HTTP client that sends an access token with every request, but not to other hosts that it is redirected to.
///
/// # Errors
/// [`ClientError::Token`] if it cannot be a token.
pub fn authorized(token: &str) -> Result<reqwest::Client, ClientError> {
    let mut value = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| ClientError::Token)?;
    value.set_sensitive(true);
    let headers = [(AUTHORIZATION, value)].into_iter().collect();
    Ok(reqwest::Client::builder().default_headers(headers).build()?)
}

/// An access token.
#[derive(Debug, Clone, Deserialize)]
pub struct Token {
    /// The secret: the value of `HF_TOKEN`.
    pub token: String,
    /// Its public name, to revoke it.
    pub id: String,
    /// Account it belongs to.
    pub address: String,
    /// `read` or `write`.
    pub scope: String,
    /// When it ends.
    pub expires: String,
}

#[derive(Debug, Deserialize)]
struct Nonce {
    nonce: String,
    domain: String,
    uri: String,
}

async fn answer(response: reqwest::Response) -> Result<reqwest::Response, ClientError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let message = response
        .headers()
        .get("x-error-message")
        .and_then(|value| value.to_str().ok())
        .unwrap_or("no reason given")
        .to_owned();
    Err(ClientError::Refused {
        status: status.as_u16(),
        message,
    })
}

/// Signs in with a wallet's key and returns a token.
///
/// # Errors
/// [`ClientError`]; nothing is signed for a hub that calls itself something else than `hub`.
pub async fn sign_in(
    http: &reqwest::Client,
    hub: &str,
    key: &SecretKey,
    scope: Scope,
    days: u32,
    label: &str,
    chain_id: u64,
) -> Result<Token, ClientError> {
    let hub = hub.trim_end_matches('/');
    let nonce: Nonce = answer(http.post(format!("{hub}/api/opg/auth/nonce")).send().await?)
        .await?
        .json()
        .await?;
    let host = hub.split_once("://").map_or(hub, |(_, host)| host);
    if nonce.uri != hub || nonce.domain != host {
        return Err(ClientError::OtherHub {
            asked: hub.to_owned(),
            got: nonce.uri.chars().take(200).collect(),
        });
    }
    let now = OffsetDateTime::now_utc()
        .replace_nanosecond(0)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let wrong = || ClientError::Days { days };
    let end = now
        .checked_add(
            Duration::from_secs(u64::from(days) * 86_400)
                .try_into()
                .map_err(|_| wrong())?,
        )
        .ok_or_else(wrong)?;
    let message = Message {
        domain: nonce.domain,
        address: address_of(&key.public_key(SECP256K1)),
        uri: nonce.uri,
        chain_id,
        nonce: nonce.nonce,
        issued_at: now.format(&Rfc3339).map_err(|_| wrong())?,
        expires_at: end.format(&Rfc3339).map_err(|_| wrong())?,
        scope,
    };
    let body = serde_json::json!({
        "message": message.to_string(),
        "signature": format!("0x{}", hex::encode(message.sign(key))),
        "label": label,
    });
    let response = http
        .post(format!("{hub}/api/opg/auth/token"))
        .json(&body)
        .send()
        .await?;
    Ok(answer(response).await?.json().await?)
}

/// Downloads a model file and keeps it only if it has the expected root: a hub cannot serve a wrong byte unnoticed.
///
/// `url` is the file's `/resolve/` URL. The file is written beside `to` and renamed when it is whole and checked.
///
/// # Errors
/// [`ClientError`]; [`ClientError::Root`] if other bytes came, and then `to` is not touched.
pub async fn download(
    http: &reqwest::Client,
    url: &str,
    token: Option<&str>,
    format: Format,
    root: ModelRoot,
    to: &Path,
) -> Result<u64, ClientError> {
    let mut request = http.get(url);
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let mut response = answer(request.send().await?).await?;
    let part = to.with_extension("part");
    let failed = |source| ClientError::File {
        path: part.display().to_string(),
        source,
    };
    let mut file = tokio::fs::File::create(&part).await.map_err(failed)?;
    let length = response
        .content_length()
        .ok_or_else(|| ClientError::Answer("a file without its length".into()))?;
    let mut hasher = FileHasher::new(ManifestVersion::NEWEST, length);
    let mut size = 0;
    while let Some(piece) = response.chunk().await? {
        hasher.update(&piece);
        size += piece.len() as u64;
        file.write_all(&piece).await.map_err(failed)?;
    }
    file.sync_all().await.map_err(failed)?;
    let manifest = Manifest::single_hashed(ManifestVersion::NEWEST, format, hasher);
    if manifest.with_root(root).is_none() {
        let got = manifest.root()?;
        tokio::fs::remove_file(&part).await.map_err(failed)?;
        return Err(ClientError::Root { expected: root, got });
    }
    tokio::fs::rename(&part, to).await.map_err(failed)?;
    Ok(size)
}
