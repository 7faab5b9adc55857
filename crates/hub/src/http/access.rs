//! Likes, gated access, and checks of rights.

use super::{Ctx, JsonBody, RepoPath, RevisionPath};
use crate::{
    db::{DbError, accounts, repos::Repo, social},
    error::{Answer, ApiError},
    state::{Caller, Hub, Want},
    time::iso,
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

async fn set_like(hub: &Hub, repo: Repo, caller: &Caller, like: bool) -> Answer<Json<Value>> {
    let address = caller.writer()?.address.clone();
    hub.db
        .write(move |tx| Ok::<_, ApiError>(social::set_like(tx, repo.id, &address, like)?))
        .await?;
    Ok(Json(json!({"liked": like})))
}

pub(super) async fn like((State(hub), kind, caller): Ctx, Path((owner, name)): RepoPath) -> Answer<Json<Value>> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::See).await?;
    set_like(&hub, repo, &caller, true).await
}

pub(super) async fn unlike((State(hub), kind, caller): Ctx, Path((owner, name)): RepoPath) -> Answer<Json<Value>> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::See).await?;
    set_like(&hub, repo, &caller, false).await
}

pub(super) async fn likers((State(hub), kind, caller): Ctx, Path((owner, name)): RepoPath) -> Answer<Json<Value>> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::See).await?;
    let list = hub
        .db
        .read(move |db| {
            let likers = social::likers(db, repo.id)?.into_iter();
            likers
                .map(|address| {
                    let name = accounts::name_of(db, &address)?;
                    Ok(json!({"user": name, "fullname": name, "avatarUrl": "", "type": "user"}))
                })
                .collect::<Result<Vec<_>, DbError>>()
        })
        .await?;
    Ok(Json(list.into()))
}

pub(super) async fn likes(State(hub): State<Arc<Hub>>, _: Caller, Path(user): Path<String>) -> Answer<Json<Value>> {
    let list = hub
        .db
        .read(move |db| match accounts::address_of(db, &user)? {
            Some(address) => Ok(Some(social::liked(db, &address)?)),
            None => Ok(None),
        })
        .await?;
    let list = list.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, "UserNotFound", "no such account"))?;
    let likes = list
        .iter()
        .map(|(kind, name, created)| json!({"createdAt": iso(*created), "repo": {"name": name, "type": kind}}));
    Ok(Json(likes.collect()))
}

pub(super) async fn check_read((State(hub), kind, caller): Ctx, Path((owner, name)): RepoPath) -> Answer<Json<Value>> {
    hub.repo(kind.0, &owner, &name, &caller, Want::Content).await?;
    Ok(Json(json!({})))
}

pub(super) async fn check_write((State(hub), kind, caller): Ctx, Path((owner, name)): RepoPath) -> Answer<Json<Value>> {
    hub.repo(kind.0, &owner, &name, &caller, Want::Write).await?;
    Ok(Json(json!({})))
}

/// Asks for access to a gated repository: granted at once if its mode is `auto`.
pub(super) async fn ask((State(hub), kind, caller): Ctx, Path((owner, name)): RepoPath) -> Answer<Json<Value>> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::See).await?;
    let address = caller.account()?.address.clone();
    let status = match repo.gated.as_str() {
        "auto" => "accepted",
        "manual" => "pending",
        _ => return Err(ApiError::bad_request("NotGated", "this repository is not gated")),
    };
    let status = hub
        .db
        .write(move |tx| {
            // A decision stands: asking again does not undo a rejection.
            if let Some(known) = social::access(tx, repo.id, &address)? {
                return Ok(known);
            }
            social::set_access(tx, repo.id, &address, status)?;
            Ok::<_, ApiError>(status.to_owned())
        })
        .await?;
    Ok(Json(json!({"status": status})))
}

/// Requests in a state, for administrators.
pub(super) async fn requests(
    (State(hub), kind, caller): Ctx,
    Path((owner, name, status)): RevisionPath,
) -> Answer<Json<Value>> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::Admin).await?;
    if !["pending", "accepted", "rejected"].contains(&status.as_str()) {
        return Err(ApiError::bad_request(
            "InvalidStatus",
            "expected pending, accepted or rejected",
        ));
    }
    let list = hub
        .db
        .read(move |db| {
            let requests = social::requests(db, repo.id, &status)?.into_iter();
            requests
                .map(|(address, created)| {
                    let name = accounts::name_of(db, &address)?;
                    Ok(json!({
                        "requestId": address, "status": status, "timestamp": iso(created),
                        "user": {"_id": address, "user": name, "fullname": name, "email": null, "avatarUrl": ""},
                    }))
                })
                .collect::<Result<Vec<_>, DbError>>()
        })
        .await?;
    Ok(Json(list.into()))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Decision {
    user: Option<String>,
    request_id: Option<String>,
    status: Option<String>,
}

/// `handle` changes the state of a request, `grant` gives access without one.
pub(super) async fn answer_request(
    (State(hub), kind, caller): Ctx,
    Path((owner, name, action)): RevisionPath,
    JsonBody(body): JsonBody<Decision>,
) -> Answer<Json<Value>> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::Admin).await?;
    if repo.gated == "false" {
        return Err(ApiError::bad_request("NotGated", "this repository is not gated"));
    }
    let grant = match action.as_str() {
        "grant" => true,
        "handle" => false,
        _ => {
            return Err(ApiError::new(
                StatusCode::NOT_FOUND,
                "NotFound",
                "expected handle or grant",
            ));
        }
    };
    let status = if grant {
        "accepted".to_owned()
    } else {
        body.status.unwrap_or_default()
    };
    if !["pending", "accepted", "rejected"].contains(&status.as_str()) {
        return Err(
            ApiError::bad_request("InvalidStatus", "status: expected pending, accepted or rejected").param("status"),
        );
    }
    let user = body
        .user
        .or(body.request_id)
        .ok_or_else(|| ApiError::bad_request("InvalidBody", "expected user or requestId").param("user"))?;
    hub.db
        .write(move |tx| {
            let missing = |code, text: &str| ApiError::new(StatusCode::NOT_FOUND, code, text);
            let address = accounts::address_of(tx, &user)?.ok_or_else(|| missing("UserNotFound", "no such account"))?;
            let before = social::access(tx, repo.id, &address)?;
            match &before {
                None if !grant => return Err(missing("RequestNotFound", "this account did not ask for access")),
                Some(before) if grant && before == "accepted" => {
                    return Err(ApiError::bad_request(
                        "AlreadyGranted",
                        "this account has access already",
                    ));
                }
                Some(before) if *before == status => {
                    return Err(missing("RequestNotFound", "the request is in this state already"));
                }
                _ => {}
            }
            Ok(social::set_access(tx, repo.id, &address, &status)?)
        })
        .await?;
    Ok(Json(json!({"ok": true})))
}
