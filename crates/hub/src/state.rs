//! What all requests share, and who is asking.

use crate::{
    blobs::{BlobError, BlobStore},
    chain::Chain,
    config::HubConfig,
    db::{
        Db, DbError,
        accounts::{self, Account, Role},
        history::{self, Commit},
        repos::{self, Repo},
        social,
    },
    error::{Answer, ApiError},
    metrics::Metrics,
    names::{NameError, RepoKind, RepoName},
    outboards::Outboards,
    part_upload::PartUpload,
    tree::Hash,
};
use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{HeaderValue, StatusCode, header, request::Parts},
};
use opg_model_store::Pool;
use opg_rate_limit::{Buckets, Limit, subscriber};
use sha2::{Digest as _, Sha256};
use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
    time::{Duration, Instant},
};
use tokio::sync::{RwLock, Semaphore};
use tokio_util::sync::CancellationToken;

/// State of a running hub.
#[derive(Debug)]
pub(crate) struct Hub {
    pub(crate) config: HubConfig,
    /// Without a slash at the end.
    pub(crate) public_url: String,
    pub(crate) db: Db,
    pub(crate) blobs: Arc<BlobStore>,
    /// Hash trees of large blobs.
    pub(crate) outboards: Outboards,
    /// Key of the signatures in upload links.
    pub(crate) link_key: [u8; 32],
    pub(crate) metrics: Metrics,
    pub(crate) rates: Buckets<Key>,
    /// Read while a blob becomes fresh and while it is recorded, written while garbage is removed: a blob that comes again while it is
    /// being removed must not lose its file.
    pub(crate) publishing: RwLock<()>,
    /// Held by the collection that runs: the next one waits, instead of taking its right to remove for a backup.
    pub(crate) collecting: tokio::sync::Mutex<()>,
    /// Blobs that are being stored and have no row yet, with how many do it: they are no garbage, however long it takes.
    pub(crate) fresh: Mutex<HashMap<Hash, usize>>,
    pub(crate) uploads: Semaphore,
    /// What comes is put into these buffers.
    pub(crate) pieces: Arc<Pool>,
    /// Uploads in parts that are under way, by repository, SHA-256 and size.
    pub(crate) parts: Mutex<HashMap<(i64, Hash, u64), Arc<PartUpload>>>,
    /// Tags in use with how many use them, and since when that is known.
    pub(crate) facets: Mutex<HashMap<RepoKind, (Instant, Facets)>>,
    /// Taken while a large file is in memory to be checked.
    pub(crate) inspecting: Semaphore,
    /// Whether a repository was deleted since directory objects were last collected.
    pub(crate) deleted: AtomicBool,
    pub(crate) stopping: CancellationToken,
    /// The chain on which models are registered, if the hub is told of one.
    pub(crate) chain: Option<Arc<Chain>>,
}

/// What repositories have, counted.
pub(crate) type Facets = Arc<repos::Facets>;

/// How long counted tags are shown before they are counted again: counting reads all of them.
const FACETS_LIFE: Duration = Duration::from_secs(60);

/// Who sent a request.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// The account of the token, if there was one.
    pub(crate) account: Option<Account>,
    /// The network it came from.
    pub(crate) network: IpAddr,
}

/// What a request wants with a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Want {
    /// See that it exists and what is in it.
    See,
    /// Read the content of files.
    Content,
    /// Change files and references.
    Write,
    /// Delete, rename, change settings.
    Admin,
}

impl Caller {
    /// The account, or 401.
    pub(crate) fn account(&self) -> Answer<&Account> {
        self.account
            .as_ref()
            .ok_or_else(|| ApiError::unauthorized("this needs an access token: Authorization: Bearer <token>"))
    }

    /// The account if its token may write, else 401 or 403.
    pub(crate) fn writer(&self) -> Answer<&Account> {
        let account = self.account()?;
        if account.write {
            Ok(account)
        } else {
            Err(ApiError::forbidden(
                "this token may only read; make one with the scope write",
            ))
        }
    }

    pub(crate) fn role(&self, space: &str) -> Option<Role> {
        self.account.as_ref()?.spaces.get(&space.to_ascii_lowercase()).copied()
    }

    /// Name spaces whose private repositories the caller sees.
    pub(crate) fn spaces(&self) -> Vec<String> {
        let spaces = |account: &Account| account.spaces.keys().cloned().collect();
        self.account.as_ref().map(spaces).unwrap_or_default()
    }
}

fn bearer(parts: &Parts) -> Answer<Option<&str>> {
    let Some(value) = parts.headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    let token = value
        .to_str()
        .ok()
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    token
        .map(|(_, token)| Some(token.trim()))
        .ok_or_else(|| ApiError::unauthorized("Invalid credentials in Authorization header"))
}

/// Whose rate it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Account(String),
    Network(IpAddr),
    SignIn(IpAddr),
}

/// 429 with the time to wait.
pub(crate) fn too_many(wait: Duration) -> ApiError {
    let seconds = wait.as_secs() + 1;
    let mut error = ApiError::new(
        StatusCode::TOO_MANY_REQUESTS,
        "RateLimited",
        format!("too many requests; try again in {seconds} s"),
    );
    error.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    error
}

impl FromRequestParts<Arc<Hub>> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, hub: &Arc<Hub>) -> Answer<Self> {
        let address = parts
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |info| info.0.ip());
        let network = subscriber(address);
        let limits = &hub.config.limits;
        let Some(token) = bearer(parts)? else {
            let key = Key::Network(network);
            hub.rates
                .take(key, 1.0, Limit::per_minute(limits.anonymous_requests), Instant::now())
                .map_err(too_many)?;
            return Ok(Self { account: None, network });
        };
        let hash: Hash = Sha256::digest(token.as_bytes()).into();
        let account = hub.db.read(move |db| accounts::by_token(db, &hash)).await?;
        let Some(account) = account else {
            // Guessing tokens uses up the network's rate.
            let key = Key::Network(network);
            hub.rates
                .take(key, 1.0, Limit::per_minute(limits.anonymous_requests), Instant::now())
                .map_err(too_many)?;
            return Err(ApiError::unauthorized("Invalid credentials in Authorization header"));
        };
        let key = Key::Account(account.address.clone());
        hub.rates
            .take(key, 1.0, Limit::per_minute(limits.account_requests), Instant::now())
            .map_err(too_many)?;
        Ok(Self {
            account: Some(account),
            network,
        })
    }
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        Self::bad_request("InvalidName", error.to_string())
    }
}

impl From<BlobError> for ApiError {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::Size { .. } => Self::bad_request("SizeMismatch", error.to_string()),
            BlobError::Hash { .. } => Self::bad_request("HashMismatch", error.to_string()),
            BlobError::Store { .. } => {
                tracing::error!(%error, "request failed");
                let message = "the hub's bucket cannot be reached; nothing was changed, try again";
                let mut answer = Self::new(StatusCode::SERVICE_UNAVAILABLE, "StoreUnavailable", message);
                answer
                    .headers
                    .insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
                answer
            }
            BlobError::Io { .. } | BlobError::Foreign { .. } => Self::internal(error),
        }
    }
}

/// The call that asks for access to a gated repository.
fn ask(repo: &Repo) -> String {
    format!("POST /{}{}/ask-access", repo.kind.url_prefix(), repo.name)
}

impl Hub {
    /// A repository that the caller may use as wanted.
    pub(crate) async fn repo(
        &self,
        kind: RepoKind,
        owner: &str,
        name: &str,
        caller: &Caller,
        want: Want,
    ) -> Answer<Repo> {
        // A name that cannot exist does not.
        let name = RepoName::new(owner, name).map_err(|_| ApiError::repo_not_found())?;
        let found = self.db.read(move |db| repos::find(db, kind, &name)).await?;
        let repo = found.ok_or_else(ApiError::repo_not_found)?;
        self.allow(&repo, caller, want).await?;
        Ok(repo)
    }

    /// Checks what a caller wants with a repository.
    pub(crate) async fn allow(&self, repo: &Repo, caller: &Caller, want: Want) -> Answer<()> {
        let role = caller.role(&repo.name.owner);
        if repo.private && role.is_none() {
            return Err(ApiError::repo_not_found());
        }
        let need = match want {
            Want::See => return Ok(()),
            Want::Content => {
                if repo.gated == "false" || role.is_some() {
                    return Ok(());
                }
                return self.gate(repo, caller).await;
            }
            Want::Write => Role::Write,
            Want::Admin => Role::Admin,
        };
        let account = caller.writer()?;
        if role.is_some_and(|role| role >= need) {
            return Ok(());
        }
        Err(ApiError::forbidden(format!(
            "{} may not change {}; that needs the role {} in {}",
            account.name,
            repo.name,
            need.as_str(),
            repo.name.owner
        )))
    }

    async fn gate(&self, repo: &Repo, caller: &Caller) -> Answer<()> {
        let Some(account) = &caller.account else {
            let mut error = ApiError::unauthorized(format!(
                "access to {} is restricted; send the access token of an account that has access (to ask for it: {})",
                repo.name,
                ask(repo)
            ));
            error.code = "GatedRepo";
            return Err(error);
        };
        let (id, address) = (repo.id, account.address.clone());
        let status = self.db.read(move |db| social::access(db, id, &address)).await?;
        if status.as_deref() == Some("accepted") {
            return Ok(());
        }
        let state = match status.as_deref() {
            Some("pending") => "your request waits for its owner".to_owned(),
            Some(_) => "your request was rejected".to_owned(),
            None => format!("ask for access first: {}, with your access token", ask(repo)),
        };
        Err(ApiError::new(
            StatusCode::FORBIDDEN,
            "GatedRepo",
            format!("access to {} is restricted: {state}", repo.name),
        ))
    }

    /// The most used tags, at most a minute old.
    pub(crate) async fn facets(&self, kind: RepoKind) -> Answer<Facets> {
        let known = {
            let facets = self.facets.lock().unwrap_or_else(PoisonError::into_inner);
            facets
                .get(&kind)
                .filter(|(at, _)| at.elapsed() < FACETS_LIFE)
                .map(|(_, found)| Arc::clone(found))
        };
        if let Some(known) = known {
            return Ok(known);
        }
        let found = Arc::new(self.db.read(move |db| repos::facets(db, kind, 1_000)).await?);
        let entry = (Instant::now(), Arc::clone(&found));
        self.facets
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(kind, entry);
        Ok(found)
    }

    /// The commit of a revision.
    pub(crate) async fn revision(&self, repo: &Repo, revision: &str) -> Answer<Commit> {
        let (id, wanted) = (repo.id, revision.to_owned());
        let found = self.db.read(move |db| history::resolve(db, id, &wanted)).await?;
        found.ok_or_else(|| ApiError::revision_not_found(revision))
    }

    /// Runs blocking work off the async threads.
    pub(crate) async fn blocking<T, F>(&self, work: F) -> Answer<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Answer<T> + Send + 'static,
    {
        tokio::task::spawn_blocking(work)
            .await
            .map_err(|e| ApiError::from(DbError::from(e)))?
    }
}
