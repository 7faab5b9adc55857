//! Lists, search and information about repositories.

use super::{Ctx, Params, RepoPath, RevisionPath, next_link, page};
use crate::{
    db::{
        DbError, history,
        repos::{self, Query, Repo, Sort},
    },
    error::Answer,
    inspect,
    names::RepoKind,
    state::{Caller, Hub, Want},
    time::iso,
    tree::{File, Files},
    validate::ModelFormat,
};
use axum::{
    Json,
    extract::{OriginalUri, Path, State},
    response::Response,
};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Repositories of a page by default, and at most.
const PAGE: usize = 100;
const PAGE_MOST: usize = 1_000;
/// Files listed with the information about a revision.
const SIBLINGS: usize = 100_000;

/// The query of a list.
pub(crate) fn query(params: &Params, caller: &Caller) -> Query {
    let mut tags = params.all("filter");
    tags.extend(params.all("tags"));
    let limit = params.limit(PAGE, PAGE_MOST);
    Query {
        search: params.get("search").map(|s| s.chars().take(200).collect()),
        author: params.get("author").map(str::to_owned),
        tags: tags
            .iter()
            .flat_map(|t| t.split(','))
            .filter(|t| !t.is_empty())
            .map(str::to_owned)
            .collect(),
        pipeline: params.get("pipeline_tag").map(str::to_owned),
        library: params.get("library").map(str::to_owned),
        license: params.get("license").map(str::to_owned),
        gated: params.get("gated").map(|_| params.flag("gated")),
        format: params.get("format").map(str::to_owned),
        // What Hugging Face calls downloads and trending is not counted here; likes are the nearest.
        sort: match params.get("sort") {
            Some("likes" | "downloads" | "trendingScore") => Sort::Likes,
            Some("createdAt") => Sort::Created,
            _ => Sort::Updated,
        },
        limit,
        offset: params.cursor(),
        spaces: caller.spaces(),
    }
}

/// Members of every description of a repository.
pub(crate) fn describe(repo: &Repo, tags: &[String]) -> Map<String, Value> {
    let name = repo.name.to_string();
    let gated = if repo.gated == "false" {
        Value::Bool(false)
    } else {
        repo.gated.clone().into()
    };
    let mut object = json!({
        "_id": format!("{:024x}", repo.id),
        "id": name,
        "author": repo.name.owner,
        "sha": repo.head,
        "private": repo.private,
        "gated": gated,
        "disabled": false,
        "likes": repo.likes,
        "tags": tags,
        "createdAt": iso(repo.created),
        "lastModified": iso(repo.updated),
    });
    if repo.kind == RepoKind::Model {
        object["modelId"] = name.into();
        object["formats"] = repo.formats.split_whitespace().collect();
    }
    for (key, value) in [("pipeline_tag", &repo.pipeline), ("library_name", &repo.library)] {
        if let Some(value) = value {
            object[key] = value.clone().into();
        }
    }
    match object {
        Value::Object(map) => map,
        _ => Map::new(),
    }
}

fn card(repo: &Repo) -> Value {
    serde_json::from_str(&repo.card).unwrap_or(Value::Null)
}

pub(super) async fn list((State(hub), kind, caller): Ctx, OriginalUri(uri): OriginalUri) -> Answer<Response> {
    let params = Params::of(&uri);
    let query = query(&params, &caller);
    let (limit, offset) = (query.limit, query.offset);
    let kind = kind.0;
    // One more than asked for tells whether there is a next page.
    let look = Query {
        limit: limit + 1,
        ..query
    };
    let mut found = hub
        .db
        .read(move |db| {
            let repos = repos::list(db, kind, &look)?.into_iter();
            repos
                .map(|repo| Ok((repos::tags(db, repo.id)?, repo)))
                .collect::<Result<Vec<_>, DbError>>()
        })
        .await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let (full, cards) = (params.flag("full"), params.flag("cardData"));
    let expand = params.all("expand");
    let mut out = Vec::with_capacity(found.len());
    for (tags, repo) in found {
        let mut object = describe(&repo, &tags);
        if full || expand.iter().any(|e| e == "siblings") {
            let head = hub.revision(&repo, &repo.head).await?;
            let files = hub.db.read(move |db| history::files(db, &head.tree)).await?;
            let names = files.keys().take(PAGE_MOST).map(|path| json!({"rfilename": path}));
            object.insert("siblings".into(), names.collect());
        }
        if cards || full || expand.iter().any(|e| e == "cardData") {
            object.insert("cardData".into(), card(&repo));
        }
        out.push(Value::Object(object));
    }
    let link = if more {
        next_link(&hub, &uri, offset + limit)
    } else {
        None
    };
    Ok(page(out.into(), link))
}

pub(super) async fn info(
    (state, kind, caller): Ctx,
    Path((owner, name)): RepoPath,
    uri: OriginalUri,
) -> Answer<Json<Value>> {
    let State(hub) = state;
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::See).await?;
    describe_at(&hub, repo, None, &Params::of(&uri.0)).await
}

pub(super) async fn info_at(
    (State(hub), kind, caller): Ctx,
    Path((owner, name, revision)): RevisionPath,
    uri: OriginalUri,
) -> Answer<Json<Value>> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::See).await?;
    describe_at(&hub, repo, Some(&revision), &Params::of(&uri.0)).await
}

/// A file as `siblings` has it.
fn sibling(path: &str, file: &File, blobs: bool) -> Value {
    if !blobs {
        return json!({"rfilename": path});
    }
    let mut object = json!({"rfilename": path, "size": file.blob.size, "blobId": hex::encode(file.oid())});
    if file.lfs {
        object["lfs"] = json!({
            "sha256": hex::encode(file.blob.sha256), "size": file.blob.size, "pointerSize": file.pointer().len(),
        });
    }
    object
}

async fn describe_at(hub: &Arc<Hub>, repo: Repo, revision: Option<&str>, params: &Params) -> Answer<Json<Value>> {
    let commit = hub.revision(&repo, revision.unwrap_or("main")).await?;
    let id = repo.id;
    let (tags, files) = hub
        .db
        .read(move |db| Ok((repos::tags(db, id)?, history::files(db, &commit.tree)?)))
        .await?;
    let mut object = describe(&repo, &tags);
    object.insert("sha".into(), commit.oid.into());
    object.insert("cardData".into(), card(&repo));
    let used = files
        .values()
        .fold(0u64, |sum, file| sum.saturating_add(file.blob.size));
    object.insert("usedStorage".into(), used.into());
    let blobs = params.flag("blobs");
    let siblings = files
        .iter()
        .take(SIBLINGS)
        .map(|(path, file)| sibling(path, file, blobs));
    object.insert("siblings".into(), siblings.collect());
    if repo.kind == RepoKind::Model {
        panels(hub, &files, &mut object).await?;
    }
    // With `expand`, clients get the properties they ask for and `id`.
    let expand = params.all("expand");
    if !expand.is_empty() {
        object.retain(|key, _| key == "id" || key == "_id" || expand.iter().any(|e| e == key));
    }
    Ok(Json(Value::Object(object)))
}

/// Sums over the model files, in Hugging Face's shape, and the network's names of them.
async fn panels(hub: &Hub, files: &Files, object: &mut Map<String, Value>) -> Answer<()> {
    let mut models = inspect::models(hub, files, 1_000).await?;
    inspect::add_settings(hub, files, &mut models).await;
    let mut parameters: Map<String, Value> = Map::new();
    let mut total = 0u64;
    for model in models
        .iter()
        .filter(|m| m.report.format == ModelFormat::Safetensors && m.report.servable)
    {
        for (dtype, count) in model.report.panel["parameters"].as_object().into_iter().flatten() {
            let count = count.as_u64().unwrap_or(0);
            let sum = parameters
                .get(dtype)
                .and_then(Value::as_u64)
                .unwrap_or(0)
                .saturating_add(count);
            parameters.insert(dtype.clone(), sum.into());
            total = total.saturating_add(count);
        }
    }
    if !parameters.is_empty() {
        object.insert("safetensors".into(), json!({"parameters": parameters, "total": total}));
    }
    if let Some(model) = models
        .iter()
        .find(|m| m.report.format == ModelFormat::Gguf && m.report.servable)
    {
        object.insert("gguf".into(), model.report.panel.clone());
    }
    let opg = models.iter().take(100).map(super::opg::describe);
    object.insert("opg".into(), json!({"models": opg.collect::<Vec<_>>()}));
    Ok(())
}

/// Tags in use, by the kind that their prefix tells.
pub(super) async fn tags_by_type(State(hub): State<Arc<Hub>>, _: Caller) -> Answer<Json<Value>> {
    let facets = hub.facets(RepoKind::Model).await?;
    let mut groups: Map<String, Value> = Map::new();
    for (tag, _) in &facets.tags {
        let (group, label) = match tag.split_once(':') {
            Some((group @ ("license" | "dataset" | "metric" | "base_model"), label)) => (group, label.to_owned()),
            _ => ("other", tag.clone()),
        };
        let entry = json!({"id": tag, "label": label, "type": group});
        match groups.entry(group).or_insert_with(|| json!([])) {
            Value::Array(list) => list.push(entry),
            _ => continue,
        }
    }
    Ok(Json(Value::Object(groups)))
}
