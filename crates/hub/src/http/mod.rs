//! Routes. The paths and bodies under `/api`, `/{owner}/{name}/resolve` and `/…/info/lfs` are those that
//! `huggingface_hub` uses; `/api/opg` is our own.

mod access;
mod account;
mod commits;
mod drain;
mod files;
mod lfs;
mod lists;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
pub(crate) mod llama;
mod opg;
pub(crate) mod parts;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
mod ranges;
mod refs;
mod repos;
mod trees;
mod xet;

use crate::{
    error::{Answer, ApiError},
    names::RepoKind,
    pages,
    state::{Caller, Hub},
};
use axum::{
    Extension, Json, Router,
    body::Body,
    extract::{DefaultBodyLimit, FromRequest, MatchedPath, Request, State, rejection::JsonRejection},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{delete, get, post, put},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::{sync::Arc, time::Instant};
use tower_http::cors::{Any, CorsLayer};
use tracing::Instrument as _;

/// Header with the commit that an answer is of.
pub(crate) const REPO_COMMIT: HeaderName = HeaderName::from_static("x-repo-commit");
/// Header with the id of a request; `huggingface_hub` prints it in its errors, and the log has it.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Most characters of a path in the log.
const LOGGED_PATH: usize = 300;
/// Largest JSON body: listings of paths in requests.
const JSON_LIMIT: usize = 8 << 20;

/// A JSON body; what is wrong with it is said in this interface's errors.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Arc<Hub>> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, hub: &Arc<Hub>) -> Answer<Self> {
        match Json::<T>::from_request(request, hub).await {
            Ok(Json(value)) => Ok(Self(value)),
            Err(JsonRejection::BytesRejection(_)) => Err(ApiError::too_large(format!(
                "the body is larger than {JSON_LIMIT} bytes or broke off"
            ))),
            Err(error) => Err(ApiError::bad_request("InvalidBody", error.body_text())),
        }
    }
}

/// Routes of one kind of repository, below `/api/models` or `/api/datasets`.
fn repo_api(kind: RepoKind) -> Router<Arc<Hub>> {
    Router::new()
        .route("/", get(lists::list))
        .route("/{owner}/{name}", get(lists::info))
        .route("/{owner}/{name}/revision/{revision}", get(lists::info_at))
        .route("/{owner}/{name}/tree/{revision}", get(trees::tree))
        .route("/{owner}/{name}/tree/{revision}/{*path}", get(trees::tree_below))
        .route("/{owner}/{name}/paths-info/{revision}", post(trees::paths_info))
        .route("/{owner}/{name}/refs", get(refs::list))
        .route("/{owner}/{name}/commits/{revision}", get(refs::commits))
        .route(
            "/{owner}/{name}/branch/{branch}",
            post(refs::create_branch).delete(refs::delete_branch),
        )
        .route(
            "/{owner}/{name}/tag/{revision}",
            post(refs::create_tag).delete(refs::delete_tag),
        )
        .route("/{owner}/{name}/super-squash/{branch}", post(refs::squash))
        .route("/{owner}/{name}/preupload/{revision}", post(commits::preupload))
        .route(
            "/{owner}/{name}/commit/{revision}",
            post(commits::commit).layer(DefaultBodyLimit::disable()),
        )
        .route("/{owner}/{name}/xet-write-token/{revision}", get(xet::write_token))
        .route("/{owner}/{name}/settings", put(repos::settings))
        .route("/{owner}/{name}/like", post(access::like).delete(access::unlike))
        .route("/{owner}/{name}/likers", get(access::likers))
        .route("/{owner}/{name}/lfs-files", get(trees::large_files))
        .route("/{owner}/{name}/auth-check", get(access::check_read))
        .route("/{owner}/{name}/auth-check/write", get(access::check_write))
        .route(
            "/{owner}/{name}/user-access-request/{status}",
            get(access::requests).post(access::answer_request),
        )
        .route(
            "/{owner}/{name}/safetensors-metadata/{*path}",
            get(trees::safetensors_metadata),
        )
        .layer(Extension(kind))
}

/// Routes of one kind of repository outside `/api`.
fn repo_files(kind: RepoKind) -> Router<Arc<Hub>> {
    Router::new()
        .route("/{owner}/{name}/resolve/{revision}/{*path}", get(files::resolve))
        .route("/{owner}/{name}/raw/{revision}/{*path}", get(files::raw))
        // `{name}` is the repository's name with `.git`.
        .route("/{owner}/{name}/info/lfs/objects/batch", post(lfs::batch))
        .route("/{owner}/{name}/ask-access", post(access::ask))
        .layer(Extension(kind))
}

/// The whole service.
pub(crate) fn router(hub: Arc<Hub>) -> Router {
    let cors = CorsLayer::new()
        .allow_origin(Any)
        .allow_methods([Method::GET, Method::HEAD, Method::OPTIONS])
        .allow_headers([header::AUTHORIZATION, header::RANGE])
        .expose_headers([
            REPO_COMMIT,
            header::ETAG,
            header::ACCEPT_RANGES,
            header::CONTENT_RANGE,
            crate::error::ERROR_CODE,
            REQUEST_ID,
            files::LINKED_ETAG,
            files::LINKED_SIZE,
            files::MODEL_ROOT,
        ]);
    let upload = || DefaultBodyLimit::disable();
    Router::new()
        .route("/api/whoami-v2", get(account::whoami))
        .route("/api/validate-yaml", post(account::validate_yaml))
        .route("/api/repos/create", post(repos::create))
        .route("/api/repos/delete", delete(repos::delete))
        .route("/api/repos/move", post(repos::rename))
        .route("/api/models-tags-by-type", get(lists::tags_by_type))
        .route("/api/users/{user}/overview", get(account::user))
        .route("/api/users/{user}/likes", get(access::likes))
        .route("/api/organizations/{org}/overview", get(account::organisation))
        .route("/api/organizations/{org}/members", get(account::members))
        .nest("/api/models", repo_api(RepoKind::Model))
        .nest("/api/datasets", repo_api(RepoKind::Dataset))
        .route("/api/opg/auth/nonce", post(account::nonce))
        .route("/api/opg/auth/token", post(account::create_token))
        .route("/api/opg/tokens", get(account::tokens))
        .route("/api/opg/tokens/{id}", delete(account::revoke_token))
        .route("/api/opg/usage", get(account::usage))
        .route("/api/opg/names/{name}", put(account::claim))
        .route("/api/opg/organizations/{org}", put(account::found))
        .route(
            "/api/opg/organizations/{org}/members/{user}",
            put(account::set_member).delete(account::remove_member),
        )
        .route("/api/opg/models/{owner}/{name}/root", get(opg::root))
        .route("/api/opg/models/{owner}/{name}/manifest", get(opg::manifest))
        .route("/api/opg/models/{owner}/{name}/earnings", get(opg::earnings))
        .route("/api/opg/models/{owner}/{name}/registration", get(opg::registration))
        .merge(
            Router::new()
                .route("/v2/{owner}/{name}/manifests/{tag}", get(llama::manifest))
                .layer(Extension(RepoKind::Model)),
        )
        .route("/lfs/{repo}/{oid}", put(lfs::put).layer(upload()))
        .route("/lfs/{repo}/{oid}/parts", get(parts::listed).post(parts::complete))
        .route("/lfs/{repo}/{oid}/parts/{part}", put(parts::put).layer(upload()))
        .route("/xet/v1/xorbs/{prefix}/{hash}", post(xet::xorb).layer(upload()))
        .route("/xet/v1/shards", post(xet::shard).layer(upload()))
        .merge(repo_files(RepoKind::Model))
        .nest("/datasets", repo_files(RepoKind::Dataset))
        .merge(pages::router())
        .route("/health", get(health))
        .route("/metrics", get(metrics))
        .fallback(fallback)
        .method_not_allowed_fallback(|| async {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "MethodNotAllowed",
                "this path does not take this method",
            )
        })
        .layer(DefaultBodyLimit::max(JSON_LIMIT))
        .layer(cors)
        .layer(middleware::from_fn(drain::refused))
        .layer(middleware::from_fn_with_state(Arc::clone(&hub), observe))
        .with_state(hub)
}

/// Names without an owner are names of no repository here; everything else is no path.
async fn fallback(request: Request) -> ApiError {
    let path = request.uri().path();
    let api = ["/api/models/", "/api/datasets/"]
        .iter()
        .find_map(|prefix| path.strip_prefix(prefix));
    let file = path.contains("/resolve/");
    if api.is_some_and(|rest| !rest.contains('/')) || file {
        return ApiError::repo_not_found();
    }
    ApiError::new(
        StatusCode::NOT_FOUND,
        "NotFound",
        "no such path; the API is described in docs/hub.md",
    )
}

/// Counts and logs requests, refuses them during shutdown, and sets headers that every answer has.
async fn observe(State(hub): State<Arc<Hub>>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let method = request.method().clone();
    // Without the query: signatures of links are in it.
    let path: String = request.uri().path().chars().take(LOGGED_PATH).collect();
    let id = hex::encode(rand::random::<[u8; 8]>());
    let mut response = if hub.stopping.is_cancelled() && route != "/health" {
        ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ShuttingDown",
            "the hub is shutting down; try again",
        )
        .into_response()
    } else {
        hub.metrics.in_flight.inc();
        // What is logged on the way has the id, too.
        let span = tracing::info_span!("request", id);
        let response = next.run(request).instrument(span).await;
        hub.metrics.in_flight.dec();
        response
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, value);
    }
    let status = response.status();
    if status == StatusCode::INSUFFICIENT_STORAGE {
        hub.metrics.quota_refusals.inc();
    }
    let code = response.headers().get(crate::error::ERROR_CODE);
    if let Some(code) = code {
        hub.metrics.failed(code.as_bytes());
    }
    let (took, number) = (started.elapsed(), status.as_u16());
    let ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    if status.is_server_error() {
        let code = code.and_then(|code| code.to_str().ok());
        tracing::info!(%method, path, status = number, ms, id, code, "request not served");
    } else {
        tracing::debug!(%method, path, status = number, ms, id, "request");
    }
    hub.metrics.request(&route, number, took);
    response
}

async fn health(State(hub): State<Arc<Hub>>) -> Response {
    let database = hub.db.read(|db| crate::db::blobs::get(db, &[0; 32])).await;
    let ok = database.is_ok() && !hub.stopping.is_cancelled();
    let status = if ok {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let body = json!({
        "status": if ok { "ok" } else { "failing" },
        "version": env!("CARGO_PKG_VERSION"),
        "error": database.err().map(|error| error.to_string()),
    });
    (status, Json(body)).into_response()
}

async fn metrics(State(hub): State<Arc<Hub>>) -> Answer<Response> {
    let counted = hub
        .db
        .read(|db| {
            let repos = crate::db::repos::count(db, RepoKind::Model)?;
            Ok((crate::db::blobs::totals(db)?, repos))
        })
        .await;
    match counted {
        Ok(((blobs, bytes), repos)) => hub.metrics.gauges(blobs, bytes, repos),
        // The other numbers are wanted most while the database is away.
        Err(error) => tracing::warn!(%error, "the gauges are those of the last time"),
    }
    if let Some(chain) = &hub.chain
        && let Ok(block) = chain.block().await
    {
        let block = block.unwrap_or(0);
        hub.metrics.chain_block.set(i64::try_from(block).unwrap_or(i64::MAX));
    }
    let content = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content)], Body::from(hub.metrics.text())).into_response())
}

/// `Link: <…>; rel="next"` with the offset of the next page.
pub(crate) fn next_link(hub: &Hub, uri: &axum::http::Uri, offset: usize) -> Option<HeaderValue> {
    let query: Vec<&str> = uri
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with("cursor="))
        .collect();
    let separator = if query.is_empty() { "" } else { "&" };
    let url = format!(
        "{}{}?{}{separator}cursor={offset}",
        hub.public_url,
        uri.path(),
        query.join("&")
    );
    HeaderValue::from_str(&format!("<{url}>; rel=\"next\"")).ok()
}

/// An answer in JSON with an optional link to the next page.
pub(crate) fn page(body: Value, link: Option<HeaderValue>) -> Response {
    let mut response = Json(body).into_response();
    if let Some(link) = link {
        response.headers_mut().insert(header::LINK, link);
    }
    response
}

/// All values of a query parameter, also in the forms `name[]` and repeated.
#[derive(Debug, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    pub(crate) fn of(uri: &axum::http::Uri) -> Self {
        Self::of_query(uri.query().unwrap_or_default(), 256)
    }

    /// The first `most` pairs of a query or form.
    pub(crate) fn of_query(query: &str, most: usize) -> Self {
        let decode = |text: &str| {
            let text = text.replace('+', " ");
            percent_encoding::percent_decode_str(&text)
                .decode_utf8_lossy()
                .into_owned()
        };
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let split = |pair: &str| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(key).trim_end_matches("[]").to_owned(), decode(value))
        };
        Self(pairs.map(split).take(most).collect())
    }

    pub(crate) fn all(&self, key: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(k, _)| k == key)
            .map(|(_, v)| v.clone())
            .collect()
    }

    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(k, v)| k == key && !v.is_empty())
            .map(|(_, v)| v.as_str())
    }

    pub(crate) fn flag(&self, key: &str) -> bool {
        self.get(key)
            .is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "1" | "true" | "on"))
    }

    /// Offset of the page.
    pub(crate) fn cursor(&self) -> usize {
        self.get("cursor")
            .and_then(|v| v.parse().ok())
            .unwrap_or(0)
            .min(10_000_000)
    }

    /// Size of the page.
    pub(crate) fn limit(&self, default: usize, most: usize) -> usize {
        self.get("limit")
            .and_then(|v| v.parse().ok())
            .unwrap_or(default)
            .clamp(1, most)
    }
}

/// Path of a request to a repository.
pub(crate) type RepoPath = axum::extract::Path<(String, String)>;
/// The same with a revision, branch or tag.
pub(crate) type RevisionPath = axum::extract::Path<(String, String, String)>;
/// The same with a path.
pub(crate) type FilePath = axum::extract::Path<(String, String, String, String)>;

/// Common parts of a handler.
pub(crate) type Ctx = (State<Arc<Hub>>, Extension<RepoKind>, Caller);
