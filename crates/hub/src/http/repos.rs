//! Create, delete, move and set up repositories.

use super::{Ctx, JsonBody, RepoPath};
use crate::{
    commit,
    db::{history, repos},
    error::{Answer, ApiError},
    names::{RepoKind, RepoName},
    quota,
    state::{Caller, Hub, Want},
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::{Arc, atomic::Ordering};

/// A repository in the body of a request. Keys that Hugging Face's clients send and that mean nothing here are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct Target {
    name: String,
    organization: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    private: Option<bool>,
    visibility: Option<String>,
}

impl Target {
    /// The kind and name. `name` alone is in the caller's name space; `owner/name` is accepted too.
    fn resolve(&self, caller: &Caller) -> Answer<(RepoKind, RepoName)> {
        let kind = RepoKind::parse(self.kind.as_deref())?;
        let account = caller.writer()?;
        let name = match (&self.organization, self.name.split_once('/')) {
            (Some(owner), _) => RepoName::new(&owner.to_ascii_lowercase(), &self.name)?,
            (None, Some((owner, name))) => RepoName::new(&owner.to_ascii_lowercase(), name)?,
            (None, None) => RepoName::new(&account.name, &self.name)?,
        };
        Ok((kind, name))
    }
}

fn private(private: Option<bool>, visibility: Option<&str>) -> Answer<Option<bool>> {
    match (private, visibility) {
        (_, Some("private")) => Ok(Some(true)),
        (_, Some("public")) => Ok(Some(false)),
        (private, None) => Ok(private),
        _ => Err(
            ApiError::bad_request("InvalidVisibility", "visibility: expected public or private").param("visibility"),
        ),
    }
}

fn url(hub: &Hub, kind: RepoKind, name: &RepoName) -> String {
    format!("{}/{}{name}", hub.public_url, kind.url_prefix())
}

/// Whether the caller may make repositories in a name space.
fn may_create(caller: &Caller, owner: &str) -> Answer<()> {
    match caller.role(owner) {
        Some(role) if role >= crate::db::accounts::Role::Write => Ok(()),
        _ => Err(ApiError::forbidden(format!(
            "{} may not make repositories in {owner}: it is neither its address, nor its name, nor an organisation of it",
            caller.account()?.name
        ))),
    }
}

pub(super) async fn create(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    JsonBody(body): JsonBody<Target>,
) -> Answer<Json<Value>> {
    let (kind, name) = body.resolve(&caller)?;
    may_create(&caller, &name.owner)?;
    let private = private(body.private, body.visibility.as_deref())?.unwrap_or(false);
    let (first, objects) = commit::first(&caller.writer()?.name)?;
    let answer = json!({"url": url(&hub, kind, &name), "name": name.to_string(), "id": name.to_string()});
    let (wanted, shared) = (name.clone(), Arc::clone(&hub));
    let made = hub
        .db
        .write(move |tx| {
            // First whether it exists: who has all it may have still gets the URL of what it has.
            let Some(id) = repos::create(tx, kind, &wanted, private)? else {
                return Ok::<_, ApiError>(false);
            };
            quota::check_created(tx, &shared.config, &wanted.owner)?;
            history::add_commit(tx, id, &first, &objects)?;
            history::add_ref(tx, id, "branch", "main", &first.oid, None)?;
            history::touch(tx, id, "main", &first.oid)?;
            Ok(true)
        })
        .await?;
    if made {
        return Ok(Json(answer));
    }
    // Clients with exist_ok go on with the URL of this answer.
    Err(ApiError::new(
        StatusCode::CONFLICT,
        "RepoExists",
        format!("you already created this {} repo", kind.as_str()),
    )
    .with("url", url(&hub, kind, &name))
    .with("name", name.to_string()))
}

pub(super) async fn delete(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    JsonBody(body): JsonBody<Target>,
) -> Answer<Json<Value>> {
    let (kind, name) = body.resolve(&caller)?;
    let repo = hub.repo(kind, &name.owner, &name.name, &caller, Want::Admin).await?;
    // Never through a former name: that would delete what somebody else may know under another one.
    if !repo.name.to_string().eq_ignore_ascii_case(&name.to_string()) {
        return Err(ApiError::repo_not_found());
    }
    hub.db
        .write(move |tx| Ok::<_, ApiError>(repos::delete(tx, repo.id)?))
        .await?;
    hub.deleted.store(true, Ordering::Relaxed);
    tracing::info!(%name, "repository deleted");
    Ok(Json(json!({"deleted": true})))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Move {
    from_repo: String,
    to_repo: String,
    #[serde(rename = "type")]
    kind: Option<String>,
}

pub(super) async fn rename(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    JsonBody(body): JsonBody<Move>,
) -> Answer<Json<Value>> {
    let kind = RepoKind::parse(body.kind.as_deref())?;
    let (from, to) = (RepoName::parse(&body.from_repo)?, RepoName::parse(&body.to_repo)?);
    let to = RepoName::new(&to.owner.to_ascii_lowercase(), &to.name)?;
    let repo = hub.repo(kind, &from.owner, &from.name, &caller, Want::Admin).await?;
    may_create(&caller, &to.owner)?;
    let (target, shared) = (to.clone(), Arc::clone(&hub));
    let done = hub
        .db
        .write(move |tx| {
            let done = repos::rename(tx, &repo, &target)?;
            if done && !repo.name.owner.eq_ignore_ascii_case(&target.owner) {
                // It may come from another account.
                quota::check_created(tx, &shared.config, &target.owner)?;
                quota::check_bytes(tx, &shared.config, &target.owner, 0)?;
            }
            Ok::<_, ApiError>(done)
        })
        .await?;
    if done {
        return Ok(Json(json!({"url": url(&hub, kind, &to), "name": to.to_string()})));
    }
    Err(ApiError::new(
        StatusCode::CONFLICT,
        "RepoExists",
        format!("{to} exists"),
    ))
}

#[derive(Debug, Deserialize)]
pub(super) struct Settings {
    private: Option<bool>,
    visibility: Option<String>,
    gated: Option<Value>,
}

pub(super) async fn settings(
    (State(hub), kind, caller): Ctx,
    Path((owner, name)): RepoPath,
    JsonBody(body): JsonBody<Settings>,
) -> Answer<Json<Value>> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::Admin).await?;
    let private = private(body.private, body.visibility.as_deref())?;
    let gated = match body.gated {
        None => None,
        Some(Value::Bool(false)) => Some("false"),
        Some(Value::String(mode)) if mode == "auto" => Some("auto"),
        Some(Value::String(mode)) if mode == "manual" => Some("manual"),
        Some(_) => {
            return Err(
                ApiError::bad_request("InvalidGated", "gated: expected false, \"auto\" or \"manual\"").param("gated"),
            );
        }
    };
    hub.db
        .write(move |tx| Ok::<_, ApiError>(repos::set_settings(tx, repo.id, private, gated)?))
        .await?;
    Ok(Json(
        json!({"private": private.unwrap_or(repo.private), "gated": gated.unwrap_or(&repo.gated)}),
    ))
}
