//! Branches, tags and the list of commits.

use super::{Ctx, JsonBody, Params, RepoPath, RevisionPath, next_link, page};
use crate::{
    db::history::{self, Commit, Ref},
    error::{Answer, ApiError},
    git,
    names::check_ref,
    state::Want,
    time::{iso, now},
};
use axum::{
    Json,
    extract::{OriginalUri, Path, State},
    http::StatusCode,
    response::Response,
};
use serde::Deserialize;
use serde_json::{Value, json};

const PAGE: usize = 50;
/// Most branches and tags of a repository.
const REFS: usize = 10_000;

pub(super) async fn list((State(hub), kind, caller): Ctx, Path((owner, name)): RepoPath) -> Answer<Json<Value>> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::See).await?;
    let (branches, tags) = hub
        .db
        .read(move |db| {
            Ok((
                history::refs(db, repo.id, "branch")?,
                history::refs(db, repo.id, "tag")?,
            ))
        })
        .await?;
    let show = |refs: &[Ref], place: &str| -> Vec<Value> {
        refs.iter()
            .map(|r| json!({"name": r.name, "ref": format!("refs/{place}/{}", r.name), "targetCommit": r.oid}))
            .collect()
    };
    Ok(Json(json!({
        "branches": show(&branches, "heads"), "tags": show(&tags, "tags"), "converts": [], "pullRequests": [],
    })))
}

fn describe(commit: &Commit) -> Value {
    json!({
        "id": commit.oid,
        "title": commit.title,
        "message": commit.body,
        "authors": [{"user": commit.author, "avatar": ""}],
        "date": iso(commit.time),
        "formatted": {"title": commit.title, "message": commit.body},
    })
}

pub(super) async fn commits(
    (State(hub), kind, caller): Ctx,
    Path((owner, name, revision)): RevisionPath,
    OriginalUri(uri): OriginalUri,
) -> Answer<Response> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::See).await?;
    let head = hub.revision(&repo, &revision).await?;
    let params = Params::of(&uri);
    let (limit, offset) = (params.limit(PAGE, 1_000), params.cursor());
    let mut found = hub
        .db
        .read(move |db| history::ancestors(db, repo.id, &head.oid, offset, limit + 1))
        .await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let link = if more {
        next_link(&hub, &uri, offset + limit)
    } else {
        None
    };
    Ok(page(found.iter().map(describe).collect(), link))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NewBranch {
    starting_point: Option<String>,
}

pub(super) async fn create_branch(
    (State(hub), kind, caller): Ctx,
    Path((owner, name, branch)): RevisionPath,
    JsonBody(body): JsonBody<NewBranch>,
) -> Answer<Json<Value>> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::Write).await?;
    check_ref("branch", &branch)?;
    let start = hub
        .revision(&repo, body.starting_point.as_deref().unwrap_or("main"))
        .await?;
    add(&hub, repo.id, "branch", branch, start.oid, None).await
}

async fn add(
    hub: &crate::state::Hub,
    repo: i64,
    kind: &'static str,
    name: String,
    oid: String,
    message: Option<String>,
) -> Answer<Json<Value>> {
    let answer = json!({"name": name, "targetCommit": oid});
    let added = hub
        .db
        .write(move |tx| {
            let other = if kind == "tag" { "branch" } else { "tag" };
            // One name must not mean two revisions.
            if history::target(tx, repo, other, &name)?.is_some() {
                return Ok(false);
            }
            if history::refs(tx, repo, kind)?.len() >= REFS {
                return Err(ApiError::forbidden(format!("a repository may have {REFS} of these")));
            }
            Ok(history::add_ref(tx, repo, kind, &name, &oid, message.as_deref())?)
        })
        .await?;
    if added {
        return Ok(Json(answer));
    }
    Err(ApiError::new(
        StatusCode::CONFLICT,
        "RefExists",
        "a branch or tag of this name exists",
    ))
}

pub(super) async fn delete_branch(
    (State(hub), kind, caller): Ctx,
    Path((owner, name, branch)): RevisionPath,
) -> Answer<Json<Value>> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::Write).await?;
    if branch == "main" {
        return Err(ApiError::forbidden("main cannot be deleted"));
    }
    remove(&hub, repo.id, "branch", branch).await
}

async fn remove(hub: &crate::state::Hub, repo: i64, kind: &'static str, name: String) -> Answer<Json<Value>> {
    let shown = name.clone();
    let gone = hub
        .db
        .write(move |tx| Ok::<_, ApiError>(history::remove_ref(tx, repo, kind, &name)?))
        .await?;
    if gone {
        return Ok(Json(json!({"deleted": true})));
    }
    Err(ApiError::revision_not_found(&shown))
}

#[derive(Debug, Deserialize)]
pub(super) struct NewTag {
    tag: String,
    message: Option<String>,
}

pub(super) async fn create_tag(
    (State(hub), kind, caller): Ctx,
    Path((owner, name, revision)): RevisionPath,
    JsonBody(body): JsonBody<NewTag>,
) -> Answer<Json<Value>> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::Write).await?;
    check_ref("tag", &body.tag)?;
    let target = hub.revision(&repo, &revision).await?;
    let message = body.message.map(|text| text.chars().take(2_000).collect());
    add(&hub, repo.id, "tag", body.tag, target.oid, message).await
}

pub(super) async fn delete_tag(
    (State(hub), kind, caller): Ctx,
    Path((owner, name, tag)): RevisionPath,
) -> Answer<Json<Value>> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::Write).await?;
    remove(&hub, repo.id, "tag", tag).await
}

#[derive(Debug, Deserialize)]
pub(super) struct Squash {
    message: Option<String>,
}

/// Replaces a branch's history by one commit of the same files. The old commits stay: revisions are immutable, and what
/// refers to one by id must find it.
pub(super) async fn squash(
    (State(hub), kind, caller): Ctx,
    Path((owner, name, branch)): RevisionPath,
    JsonBody(body): JsonBody<Squash>,
) -> Answer<Json<Value>> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::Admin).await?;
    let author = caller.writer()?.name.clone();
    let title: String = body
        .message
        .unwrap_or_else(|| format!("Squash branch {branch}"))
        .chars()
        .filter(|c| !c.is_control())
        .take(500)
        .collect();
    let oid = hub
        .db
        .write(move |tx| {
            let missing = || ApiError::revision_not_found(&branch);
            let from = history::target(tx, repo.id, "branch", &branch)?.ok_or_else(missing)?;
            let head = history::by_oid(tx, repo.id, &from)?.ok_or_else(missing)?;
            let objects = crate::tree::build(&history::files(tx, &head.tree)?)?;
            let time = now().max(head.time / 1000);
            let commit = Commit {
                oid: git::commit(&objects.root.git, None, &author, time, &format!("{title}\n")),
                parent: None,
                tree: objects.root.id,
                author,
                title,
                body: String::new(),
                time: time * 1000,
            };
            history::add_commit(tx, repo.id, &commit, &objects)?;
            history::advance(tx, repo.id, &branch, &from, &commit.oid)?;
            Ok::<_, ApiError>(commit.oid)
        })
        .await?;
    Ok(Json(json!({"commitOid": oid})))
}
