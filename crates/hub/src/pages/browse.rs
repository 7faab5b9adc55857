//! Lists with search and facets.

use super::{
    layout::{date, encode, page},
    show,
};
use crate::{
    db::{
        DbError,
        repos::{self, Query, Repo, Sort},
    },
    error::{Answer, ApiError},
    http::Params,
    names::RepoKind,
    state::{Caller, Hub},
};
use axum::{
    extract::{OriginalUri, Path, State},
    response::Response,
};
use maud::{Markup, html};
use std::sync::Arc;

const PAGE: usize = 30;
const FACETS: usize = 40;

/// Formats that are offered as facets.
const FORMATS: [&str; 3] = ["onnx", "gguf", "safetensors"];

pub(super) async fn models(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
) -> Answer<Response> {
    list(&hub, &caller, RepoKind::Model, &Params::of(&uri), None).await
}

pub(super) async fn datasets(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    OriginalUri(uri): OriginalUri,
) -> Answer<Response> {
    list(&hub, &caller, RepoKind::Dataset, &Params::of(&uri), None).await
}

/// Models of a name space.
pub(super) async fn owner(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(owner): Path<String>,
    OriginalUri(uri): OriginalUri,
) -> Answer<Response> {
    if crate::names::check_name("owner", &owner).is_err() {
        return Err(ApiError::repo_not_found());
    }
    list(&hub, &caller, RepoKind::Model, &Params::of(&uri), Some(owner)).await
}

/// What a visitor chose.
struct Choice {
    base: String,
    search: String,
    tag: Option<String>,
    format: Option<String>,
    sort: String,
}

impl Choice {
    /// The URL with one choice changed; from the first page.
    fn url(&self, tag: Option<&str>, format: Option<&str>, sort: &str, cursor: usize) -> String {
        let mut pairs = Vec::new();
        if !self.search.is_empty() {
            pairs.push(format!("search={}", encode(&self.search)));
        }
        pairs.extend(tag.map(|tag| format!("filter={}", encode(tag))));
        pairs.extend(format.map(|format| format!("format={}", encode(format))));
        if sort != "updated" {
            pairs.push(format!("sort={}", encode(sort)));
        }
        if cursor > 0 {
            pairs.push(format!("cursor={cursor}"));
        }
        if pairs.is_empty() {
            self.base.clone()
        } else {
            format!("{}?{}", self.base, pairs.join("&"))
        }
    }
}

async fn list(
    hub: &Arc<Hub>,
    caller: &Caller,
    kind: RepoKind,
    params: &Params,
    owner: Option<String>,
) -> Answer<Response> {
    let base = match (&owner, kind) {
        (Some(owner), _) => format!("/{owner}"),
        (None, RepoKind::Model) => "/models".to_owned(),
        (None, RepoKind::Dataset) => "/datasets".to_owned(),
    };
    let choice = Choice {
        base,
        search: params.get("search").unwrap_or_default().chars().take(200).collect(),
        tag: params.get("filter").map(str::to_owned),
        format: params.get("format").filter(|f| FORMATS.contains(f)).map(str::to_owned),
        sort: params
            .get("sort")
            .filter(|s| ["likes", "created"].contains(s))
            .unwrap_or("updated")
            .to_owned(),
    };
    let offset = params.cursor();
    let query = Query {
        search: Some(choice.search.clone()),
        author: owner.clone(),
        tags: choice.tag.iter().cloned().collect(),
        format: choice.format.clone(),
        sort: match choice.sort.as_str() {
            "likes" => Sort::Likes,
            "created" => Sort::Created,
            _ => Sort::Updated,
        },
        limit: PAGE + 1,
        offset,
        spaces: caller.spaces(),
        ..Query::default()
    };
    let facets = hub.facets(kind).await?;
    let mut found = hub
        .db
        .read(move |db| {
            let repos = repos::list(db, kind, &query)?.into_iter();
            repos
                .map(|repo| Ok((repos::tags(db, repo.id)?, repo)))
                .collect::<Result<Vec<_>, DbError>>()
        })
        .await?;
    let more = found.len() > PAGE;
    found.truncate(PAGE);
    let what = if kind == RepoKind::Model { "models" } else { "data sets" };
    let title = owner
        .clone()
        .unwrap_or_else(|| if kind == RepoKind::Model { "Models" } else { "Data sets" }.to_owned());
    let (tag, format) = (choice.tag.as_deref(), choice.format.as_deref());
    let body = html! {
        h1 { (title) }
        div class="columns" {
            section {
                p class="soft" {
                    "Sorted by "
                    @for (key, word) in [("updated", "last change"), ("created", "age"), ("likes", "likes")] {
                        @if key == choice.sort { strong { (word) } } @else { a href=(choice.url(tag, format, key, 0)) { (word) } }
                        @if key != "likes" { " · " }
                    }
                    @if !choice.search.is_empty() { " · matching “" (choice.search) "”" }
                }
                @if found.is_empty() { p { "No " (what) " here." } }
                ul class="list" { @for (tags, repo) in &found { (item(repo, tags)) } }
                p {
                    @if offset > 0 { a href=(choice.url(tag, format, &choice.sort, offset.saturating_sub(PAGE))) { "← Previous" } " " }
                    @if more { a href=(choice.url(tag, format, &choice.sort, offset + PAGE)) { "Next →" } }
                }
            }
            aside {
                @if kind == RepoKind::Model {
                    h2 { "Format" }
                    ul class="tags" {
                        @for one in FORMATS {
                            @let on = format == Some(one);
                            li { a class=[on.then_some("on")] href=(choice.url(tag, if on { None } else { Some(one) }, &choice.sort, 0)) { (one) } }
                        }
                    }
                }
                h2 { "Tags" }
                @if facets.is_empty() { p class="soft" { "No tags yet." } }
                ul class="tags" {
                    @for (name, n) in facets.iter().filter(|(name, _)| !FORMATS.contains(&name.as_str())).take(FACETS) {
                        @let on = tag == Some(name.as_str());
                        li { a class=[on.then_some("on")] href=(choice.url(if on { None } else { Some(name) }, format, &choice.sort, 0)) { (name) " " span class="soft" { (n) } } }
                    }
                }
            }
        }
    };
    Ok(show(page(&title, &choice.search, &body)))
}

fn item(repo: &Repo, tags: &[String]) -> Markup {
    let prefix = repo.kind.url_prefix();
    html! {
        li {
            a class="name" href={ "/" (prefix) (repo.name) } { (repo.name) }
            div class="soft" {
                @if let Some(pipeline) = &repo.pipeline { (pipeline) " · " }
                "changed " (date(repo.updated))
                @if repo.likes > 0 { " · " (repo.likes) " likes" }
                @if let Some(license) = &repo.license { " · " (license) }
                @if repo.private { " · private" }
                @if repo.gated != "false" { " · gated" }
            }
            @if !tags.is_empty() {
                ul class="tags" { @for tag in tags.iter().take(8) { li { span class="tag" { (tag) } } } }
            }
        }
    }
}
