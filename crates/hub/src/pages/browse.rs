//! Lists with search and facets.

use super::{
    layout::{date, encode, page},
    show,
};
use crate::{
    db::{
        DbError,
        repos::{self, Facets, Query, Repo, Sort},
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
/// Values of a group that are shown.
const FACETS: usize = 40;
/// Most tags at once.
const TAGS: usize = 16;

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

/// What a visitor chose: any number of tags, and one of every other group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Choice {
    base: String,
    search: String,
    tags: Vec<String>,
    format: Option<String>,
    pipeline: Option<String>,
    library: Option<String>,
    license: Option<String>,
    sort: String,
}

impl Choice {
    fn of(base: String, params: &Params) -> Self {
        let text = |key: &str| params.get(key).map(|value| value.chars().take(200).collect::<String>());
        let mut tags = params.all("filter");
        tags.retain(|tag| !tag.is_empty());
        tags.truncate(TAGS);
        Self {
            base,
            search: text("search").unwrap_or_default(),
            tags,
            format: text("format").filter(|format| FORMATS.contains(&format.as_str())),
            pipeline: text("pipeline_tag"),
            library: text("library"),
            license: text("license"),
            sort: text("sort")
                .filter(|sort| ["likes", "created"].contains(&sort.as_str()))
                .unwrap_or_else(|| "updated".to_owned()),
        }
    }

    /// The URL of a page of the list.
    fn url(&self, cursor: usize) -> String {
        let mut pairs = Vec::new();
        let mut add = |key: &str, value: &str| pairs.push(format!("{key}={}", encode(value)));
        if !self.search.is_empty() {
            add("search", &self.search);
        }
        for tag in &self.tags {
            add("filter", tag);
        }
        for (key, value) in [
            ("format", &self.format),
            ("pipeline_tag", &self.pipeline),
            ("library", &self.library),
            ("license", &self.license),
        ] {
            if let Some(value) = value {
                add(key, value);
            }
        }
        if self.sort != "updated" {
            add("sort", &self.sort);
        }
        if cursor > 0 {
            add("cursor", &cursor.to_string());
        }
        if pairs.is_empty() {
            self.base.clone()
        } else {
            format!("{}?{}", self.base, pairs.join("&"))
        }
    }

    /// The first page with something changed.
    fn with(&self, change: impl FnOnce(&mut Self)) -> String {
        let mut changed = self.clone();
        change(&mut changed);
        changed.url(0)
    }

    /// The first page with a tag more or, if it was chosen, less.
    fn with_tag(&self, tag: &str) -> String {
        self.with(|choice| {
            let before = choice.tags.len();
            choice.tags.retain(|chosen| chosen != tag);
            if choice.tags.len() == before {
                choice.tags.push(tag.to_owned());
            }
        })
    }

    /// The values of a group as links that choose them, or take the choice back.
    fn group(&self, title: &str, values: &[(String, i64)], field: fn(&mut Self) -> &mut Option<String>) -> Markup {
        let chosen = field(&mut self.clone()).take();
        // A choice that is rare, or a visitor's own invention, can be taken back as well.
        let other = chosen
            .as_ref()
            .filter(|chosen| !values.iter().take(FACETS).any(|(value, _)| value == *chosen));
        let values = values.iter().take(FACETS).map(|(value, n)| (value, Some(*n)));
        let values = other.into_iter().map(|value| (value, None)).chain(values);
        let links = values.map(|(value, n)| {
            let on = chosen.as_ref() == Some(value);
            let to = self.with(|choice| *field(choice) = (!on).then(|| value.clone()));
            link(value, n, on, &to)
        });
        let links: Vec<Markup> = links.collect();
        html! {
            @if !links.is_empty() { h2 { (title) } ul class="tags" { @for link in &links { (link) } } }
        }
    }

    fn query(&self, author: Option<String>, offset: usize, caller: &Caller) -> Query {
        Query {
            search: Some(self.search.clone()),
            author,
            tags: self.tags.clone(),
            format: self.format.clone(),
            pipeline: self.pipeline.clone(),
            library: self.library.clone(),
            license: self.license.clone(),
            sort: match self.sort.as_str() {
                "likes" => Sort::Likes,
                "created" => Sort::Created,
                _ => Sort::Updated,
            },
            limit: PAGE + 1,
            offset,
            spaces: caller.spaces(),
            ..Query::default()
        }
    }
}

/// A facet, with how many repositories have it where that is known.
fn link(value: &str, n: Option<i64>, on: bool, to: &str) -> Markup {
    html! {
        li {
            a class=[on.then_some("on")] aria-current=[on.then_some("true")] href=(to) {
                (value) @if let Some(n) = n { " " span class="soft" { (n) } }
            }
        }
    }
}

/// Tags that are no other facet: those of the other groups are among a repository's tags too.
fn own_tags(facets: &Facets) -> Vec<&(String, i64)> {
    let taken = |tag: &str| {
        let groups = [&facets.pipelines, &facets.libraries];
        FORMATS.contains(&tag)
            || tag.starts_with("license:")
            || groups.iter().any(|group| group.iter().any(|(value, _)| value == tag))
    };
    facets.tags.iter().filter(|(tag, _)| !taken(tag)).take(FACETS).collect()
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
    let choice = Choice::of(base, params);
    let offset = params.cursor();
    let query = choice.query(owner.clone(), offset, caller);
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
    let body = html! {
        h1 { (title) }
        div class="columns" {
            section {
                p class="soft" {
                    "Sorted by "
                    @for (key, word) in [("updated", "last change"), ("created", "age"), ("likes", "likes")] {
                        @if key == choice.sort { strong { (word) } } @else { a href=(choice.with(|choice| key.clone_into(&mut choice.sort))) { (word) } }
                        @if key != "likes" { " · " }
                    }
                    @if !choice.search.is_empty() { " · matching “" (choice.search) "”" }
                }
                @if found.is_empty() { p { "No " (what) " here." } }
                ul class="list" { @for (tags, repo) in &found { (item(repo, tags)) } }
                p {
                    @if offset > 0 { a href=(choice.url(offset.saturating_sub(PAGE))) { "← Previous" } " " }
                    @if more { a href=(choice.url(offset + PAGE)) { "Next →" } }
                }
            }
            aside { (facet_lists(kind, &choice, &facets)) }
        }
    };
    Ok(show(page(&title, &choice.search, &body)))
}

/// Everything by which a list can be made shorter.
fn facet_lists(kind: RepoKind, choice: &Choice, facets: &Facets) -> Markup {
    let tags = own_tags(facets);
    // A chosen tag that is not in the list can be taken back as well.
    let others = choice
        .tags
        .iter()
        .filter(|chosen| !tags.iter().any(|(tag, _)| tag == *chosen));
    html! {
        @if kind == RepoKind::Model {
            h2 { "Format" }
            ul class="tags" {
                @for format in FORMATS {
                    @let on = choice.format.as_deref() == Some(format);
                    (link(format, None, on, &choice.with(|choice| choice.format = (!on).then(|| format.to_owned()))))
                }
            }
        }
        (choice.group("Task", &facets.pipelines, |choice| &mut choice.pipeline))
        (choice.group("Library", &facets.libraries, |choice| &mut choice.library))
        (choice.group("License", &facets.licenses, |choice| &mut choice.license))
        h2 { "Tags" }
        @if facets.tags.is_empty() { p class="soft" { "No tags yet." } }
        ul class="tags" {
            @for tag in others { (link(tag, None, true, &choice.with_tag(tag))) }
            @for (tag, n) in &tags { (link(tag, Some(*n), choice.tags.contains(tag), &choice.with_tag(tag))) }
        }
    }
}

fn item(repo: &Repo, tags: &[String]) -> Markup {
    let prefix = repo.kind.url_prefix();
    html! {
        li {
            a class="name" href={ "/" (prefix) (repo.name) } { (repo.name) }
            @if let Some(reason) = repo.deprecated() { " " span class="tag bad" title=(reason) { "deprecated" } }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_facets_are_chosen_and_taken_back() {
        let uri = "/models?search=a%20b&filter=x&filter=y%26z&format=gguf&format=no&pipeline_tag=text-generation&library=l&license=mit&sort=likes&cursor=30";
        let choice = Choice::of("/models".into(), &Params::of(&uri.parse().unwrap()));
        let all = "/models?search=a%20b&filter=x&filter=y%26z&format=gguf&pipeline_tag=text%2Dgeneration&library=l&license=mit&sort=likes";
        assert_eq!(choice.url(0), all);
        assert_eq!(choice.url(60), format!("{all}&cursor=60"));
        assert_eq!(choice.with_tag("x"), all.replace("filter=x&", ""));
        assert_eq!(choice.with_tag("w"), all.replace("&format", "&filter=w&format"));
        assert_eq!(
            choice.with(|choice| choice.license = None),
            all.replace("&license=mit", "")
        );
        let none = Choice::of(
            "/models".into(),
            &Params::of(&"/models?format=exe&sort=x&filter=".parse().unwrap()),
        );
        assert_eq!(none.url(0), "/models");
    }

    #[test]
    fn tags_of_other_groups_are_not_shown_twice() {
        let counted = |values: &[&str]| values.iter().map(|value| ((*value).to_owned(), 1)).collect::<Vec<_>>();
        let facets = Facets {
            tags: counted(&["gguf", "license:mit", "text-generation", "candle", "digits"]),
            pipelines: counted(&["text-generation"]),
            libraries: counted(&["candle"]),
            licenses: counted(&["mit"]),
        };
        let own: Vec<_> = own_tags(&facets).into_iter().map(|(tag, _)| tag.as_str()).collect();
        assert_eq!(own, ["digits"]);
    }
}
