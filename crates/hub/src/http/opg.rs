//! The network's view of a revision: content roots of its models, hashes of all its files, and what the chain says about
//! them: creator, price, royalty, earnings.

use super::{Params, RepoPath};
use crate::{
    chain::{Chain, Registration},
    db::{
        history::{self, Commit},
        repos::Repo,
    },
    error::{Answer, ApiError},
    inspect::{self, Model},
    names::RepoKind,
    state::{Caller, Hub, Want},
    validate::{FileKind, kind_of},
};
use axum::{
    Json,
    extract::{OriginalUri, Path, State},
    http::{StatusCode, Uri},
};
use opg_model_store::ranges::UNIT;
use opg_models::{Manifest, ModelRoot};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};

/// Most model files of a revision that are described.
const MODELS: usize = 1_000;

/// Newest revisions among which a root is looked for.
const SEARCHED: usize = 500;

/// A model file as the API shows it.
pub(super) fn describe(model: &Model) -> Value {
    let mut object = json!({
        "path": model.path,
        "format": model.report.format,
        "size": model.blob.size,
        "sha256": hex::encode(model.blob.sha256),
        "servable": model.report.servable,
        "problem": model.report.problem,
        "panel": model.report.panel,
    });
    if let Some((root, manifest)) = &model.named {
        object["root"] = root.to_string().into();
        object["roots"] = roots(manifest);
    }
    object
}

/// The roots of a model by the version of the manifest.
fn roots(manifest: &Manifest) -> Value {
    let roots = inspect::names(manifest);
    roots
        .into_iter()
        .map(|(root, manifest)| (manifest.version.code().to_string(), Value::from(root.to_string())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

/// The newest revision that has the model of a root, with the path of its file.
async fn revision_with(hub: &Hub, repo: &Repo, head: &Commit, wanted: ModelRoot) -> Answer<(Commit, String)> {
    let (id, oid) = (repo.id, head.oid.clone());
    let found = hub
        .db
        .read(move |db| {
            let mut seen = BTreeSet::new();
            for commit in history::ancestors(db, id, &oid, 0, SEARCHED)? {
                if !seen.insert(commit.tree) {
                    continue;
                }
                let files = history::files(db, &commit.tree)?;
                let path = files.iter().find_map(|(path, file)| {
                    let FileKind::Model(format) = kind_of(path) else {
                        return None;
                    };
                    let (_, manifest) = inspect::name_model(format, &file.blob)?;
                    manifest.with_root(wanted).map(|_| path.clone())
                });
                if let Some(path) = path {
                    return Ok(Some((commit, path)));
                }
            }
            Ok(None)
        })
        .await?;
    found.ok_or_else(|| {
        let message = format!("none of the newest {SEARCHED} revisions has the model {wanted}");
        ApiError::new(StatusCode::NOT_FOUND, "RootNotFound", message).param("root")
    })
}

/// The root of a model: of the only model file, or of the one that `file` names. With `root`, the newest revision that has
/// that model: repositories move on, and roots on chain stay. A root of an older version is answered with its own manifest.
pub(super) async fn root(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, name)): RepoPath,
    OriginalUri(uri): OriginalUri,
) -> Answer<Json<Value>> {
    let repo = hub.repo(RepoKind::Model, &owner, &name, &caller, Want::See).await?;
    let params = Params::of(&uri);
    let mut commit = hub.revision(&repo, params.get("revision").unwrap_or("main")).await?;
    let mut file = params.get("file").map(str::to_owned);
    let mut wanted = None;
    if let Some(root) = params.get("root") {
        let root = root
            .parse()
            .map_err(|_| ApiError::bad_request("InvalidRoot", "root: expected 64 hexadecimal digits").param("root"))?;
        let (older, path) = revision_with(&hub, &repo, &commit, root).await?;
        (commit, file, wanted) = (older, Some(path), Some(root));
    }
    let tree = commit.tree;
    let files = hub.db.read(move |db| history::files(db, &tree)).await?;
    let models = inspect::models(&hub, &files, MODELS).await?;
    let no = |message: String| ApiError::new(StatusCode::NOT_FOUND, "EntryNotFound", message);
    let model = match file.as_deref() {
        Some(file) => models
            .iter()
            .find(|m| m.path == file)
            .ok_or_else(|| no(format!("no model file {file:?}")))?,
        None => {
            let mut named = models.iter().filter(|m| m.named.is_some());
            match (named.next(), named.next()) {
                (Some(only), None) => only,
                (None, _) => return Err(no("this revision has no servable ONNX or GGUF file".into())),
                _ => {
                    return Err(ApiError::new(
                        StatusCode::CONFLICT,
                        "SeveralModels",
                        "this revision has several models; choose one with ?file=PATH (see /manifest)",
                    )
                    .param("file"));
                }
            }
        }
    };
    let Some((root, manifest)) = &model.named else {
        let why = model
            .report
            .problem
            .clone()
            .unwrap_or_else(|| "its format has no content root".into());
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "NotServable", why));
    };
    let asked = wanted.and_then(|root| Some((root, manifest.with_root(root)?)));
    let (root, manifest) = asked
        .as_ref()
        .map_or((root, manifest), |(root, manifest)| (root, manifest));
    let roots = model.named.as_ref().map(|(_, newest)| roots(newest));
    Ok(Json(json!({
        "id": repo.name.to_string(),
        "revision": commit.oid,
        "file": model.path,
        "format": model.report.format,
        "root": root.to_string(),
        "roots": roots,
        "verified_ranges": UNIT,
        "manifest": manifest,
        "manifest_cbor": hex::encode(manifest.encode().map_err(ApiError::internal)?),
    })))
}

/// Every file of a revision with its hashes and whether it may be served, and the models with their roots.
pub(super) async fn manifest(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, name)): RepoPath,
    OriginalUri(uri): OriginalUri,
) -> Answer<Json<Value>> {
    let repo = hub.repo(RepoKind::Model, &owner, &name, &caller, Want::See).await?;
    let params = Params::of(&uri);
    let commit = hub.revision(&repo, params.get("revision").unwrap_or("main")).await?;
    let tree = commit.tree;
    let files = hub.db.read(move |db| history::files(db, &tree)).await?;
    let mut models = inspect::models(&hub, &files, MODELS).await?;
    inspect::add_settings(&hub, &files, &mut models).await;
    let list: Vec<Value> = files
        .iter()
        .map(|(path, file)| {
            let (class, detail) = match kind_of(path) {
                FileKind::Model(format) => ("model", Some(format.as_str())),
                FileKind::Executable(kind) => ("executable", Some(kind)),
                FileKind::Archive => ("archive", None),
                FileKind::Other => ("other", None),
            };
            let servable = models.iter().any(|m| m.path == *path && m.report.servable);
            json!({
                "path": path,
                "size": file.blob.size,
                "sha256": hex::encode(file.blob.sha256),
                "blake3": hex::encode(file.blob.blake3),
                "git_sha1": hex::encode(file.blob.git),
                "class": class,
                "format": detail,
                "servable": servable,
            })
        })
        .collect();
    Ok(Json(json!({
        "id": repo.name.to_string(),
        "revision": commit.oid,
        "files": list,
        "models": models.iter().map(describe).collect::<Vec<_>>(),
        "verified_ranges": UNIT,
    })))
}

/// The chain that this hub follows, or why there is none.
fn chain(hub: &Hub) -> Answer<&Chain> {
    hub.chain.as_deref().ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            "NoChain",
            "this hub follows no chain: it does not know registrations and earnings",
        )
    })
}

/// The models of a revision that have a name on chain.
async fn named(hub: &Hub, caller: &Caller, (owner, name): (String, String), uri: &Uri) -> Answer<(Value, Vec<Model>)> {
    let repo = hub.repo(RepoKind::Model, &owner, &name, caller, Want::See).await?;
    let params = Params::of(uri);
    let commit = hub.revision(&repo, params.get("revision").unwrap_or("main")).await?;
    let tree = commit.tree;
    let files = hub.db.read(move |db| history::files(db, &tree)).await?;
    let mut models = inspect::models(hub, &files, MODELS).await?;
    models.retain(|model| model.named.is_some());
    Ok((json!({"id": repo.name.to_string(), "revision": commit.oid}), models))
}

/// A registration as the API shows it; null for a model that nobody has registered.
fn registered(found: Option<Registration>) -> Value {
    found.map_or(Value::Null, |found| {
        let mut object = json!(found);
        object["modes"] = json!(found.modes());
        object
    })
}

/// Who registered the models of a revision, and on what terms.
pub(super) async fn registration(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(path): RepoPath,
    OriginalUri(uri): OriginalUri,
) -> Answer<Json<Value>> {
    let (mut answer, models) = named(&hub, &caller, path, &uri).await?;
    let chain = chain(&hub)?;
    let mut list = Vec::new();
    for model in &models {
        let Some((root, found)) = chain.registration_of(model).await? else {
            continue;
        };
        list.push(json!({"path": model.path, "root": root, "registration": registered(found)}));
    }
    answer["models"] = list.into();
    Ok(Json(answer))
}

/// What the models of a revision have earned, up to the block that is named. Amounts in wei, decimal texts.
pub(super) async fn earnings(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(path): RepoPath,
    OriginalUri(uri): OriginalUri,
) -> Answer<Json<Value>> {
    let (mut answer, models) = named(&hub, &caller, path, &uri).await?;
    let chain = chain(&hub)?;
    let (mut list, mut block) = (Vec::new(), None);
    for model in &models {
        let Some((root, found)) = chain.registration_of(model).await? else {
            continue;
        };
        let (sums, at) = chain.earnings(root).await?;
        // Read one after the other: what all of them are complete to is the first one's.
        block = block.or(at);
        list.push(json!({
            "path": model.path, "root": root, "calls": sums.calls, "charged": sums.charged, "earned": sums.earned,
            "waiting": sums.waiting, "registration": registered(found),
        }));
    }
    answer["models"] = list.into();
    answer["block"] = block.into();
    Ok(Json(answer))
}
