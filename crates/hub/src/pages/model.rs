//! One repository: card, files, versions.

use super::{
    layout::{count, date, encode, encode_path, page, size},
    show, snippets,
};
use crate::{
    card,
    chain::{Earnings, Registration},
    db::{
        history::{self, Commit},
        repos::{self, Repo},
    },
    error::Answer,
    http::{Params, RepoPath, RevisionPath},
    inspect::{self, Model},
    names::RepoKind,
    state::{Caller, Hub, Want},
    tree::Files,
    validate::{FileKind, kind_of},
};
use axum::{
    extract::{OriginalUri, Path, State},
    response::Response,
};
use maud::{Markup, PreEscaped, html};
use opg_models::ModelRoot;
use opg_primitives::mode::Mode;
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};

/// Most files and versions of one page.
const FILES: usize = 500;
const VERSIONS: usize = 50;

pub(super) struct View {
    pub(super) repo: Repo,
    tags: Vec<String>,
    commit: Commit,
    pub(super) files: Files,
    revision: String,
}

impl View {
    fn url(&self) -> String {
        format!("/{}{}", self.repo.kind.url_prefix(), self.repo.name)
    }

    fn frame(&self, tab: &str, body: &Markup) -> Response {
        let (url, revision) = (self.url(), encode(&self.revision));
        let body = html! {
            h1 { a href={ "/" (self.repo.name.owner) } { (self.repo.name.owner) } " / " a href=(url) { (self.repo.name.name) } }
            div class="soft" {
                "changed " (date(self.repo.updated)) " · " (self.repo.likes) " likes"
                @if self.repo.deprecated().is_some() { " · " span class="bad" { "deprecated" } }
                @if self.repo.private { " · private" }
                @if self.repo.gated != "false" { " · gated: the owner grants access to the files" }
            }
            @if !self.tags.is_empty() {
                ul class="tags" { @for tag in self.tags.iter().take(30) { li { a href={ "/models?filter=" (encode(tag)) } { (tag) } } } }
            }
            nav class="tabs" {
                @for (key, word, to) in [
                    ("card", "Card", url.clone()),
                    ("files", "Files", format!("{url}/tree/{revision}")),
                    ("versions", "Versions", format!("{url}/commits/{revision}")),
                ] {
                    a href=(to) aria-current=[(key == tab).then_some("page")] { (word) }
                }
            }
            (body)
        };
        show(page(&self.repo.name.to_string(), "", &body))
    }
}

async fn view(hub: &Hub, kind: RepoKind, path: (String, String), revision: &str, caller: &Caller) -> Answer<View> {
    let repo = hub.repo(kind, &path.0, &path.1, caller, Want::See).await?;
    let commit = hub.revision(&repo, revision).await?;
    let (id, tree) = (repo.id, commit.tree);
    let (tags, files) = hub
        .db
        .read(move |db| Ok((repos::tags(db, id)?, history::files(db, &tree)?)))
        .await?;
    Ok(View {
        repo,
        tags,
        commit,
        files,
        revision: revision.to_owned(),
    })
}

pub(super) async fn card(State(hub): State<Arc<Hub>>, caller: Caller, Path(path): RepoPath) -> Answer<Response> {
    show_card(&hub, RepoKind::Model, path, &caller).await
}

pub(super) async fn dataset_card(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path(path): RepoPath,
) -> Answer<Response> {
    show_card(&hub, RepoKind::Dataset, path, &caller).await
}

async fn show_card(hub: &Hub, kind: RepoKind, path: (String, String), caller: &Caller) -> Answer<Response> {
    let view = view(hub, kind, path, "main", caller).await?;
    // The card of a gated repository is shown, as its metadata is; its files are not.
    let text = inspect::card_text(hub, &view.files).await?;
    let (yaml, markdown) = card::split(&text);
    let problem = yaml.and_then(|yaml| card::read_yaml(yaml).err());
    let deprecated = view.repo.deprecated();
    let mut models = inspect::models(hub, &view.files, 50).await?;
    inspect::add_settings(hub, &view.files, &mut models).await;
    let standing = standing(hub, &models).await;
    let body = html! {
        div class="columns" {
            article class="card" {
                @if let Some(reason) = &deprecated { p class="bad" { "Deprecated: " (reason) } }
                @if let Some(problem) = problem { p class="bad" { "The card's metadata was not read: " (problem) } }
                @if markdown.trim().is_empty() { p class="soft" { "No model card. Add a README.md." } }
                (PreEscaped(card::render(markdown)))
            }
            aside {
                @for model in &models { (panel(model, &standing)) (market(model, &standing)) }
                (snippets::panel(&hub.public_url, &view, &models, &standing))
            }
        }
    };
    Ok(view.frame("card", &body))
}

/// What the header of a model file says.
fn panel(model: &Model, standing: &Standing) -> Markup {
    let newest = model.named.as_ref().map(|(root, _)| *root);
    let registered = standing.get(&model.path).map(|registered| registered.root);
    let panel = &model.report.panel;
    let number = |key: &str| panel[key].as_u64();
    let text = |key: &str| panel[key].as_str();
    let types = panel["parameters"].as_object().or_else(|| panel["types"].as_object());
    html! {
        section class="panel" {
            h2 { (model.path) }
            @if model.report.servable {
                span class="good" { "Checked" } " " span class="soft" { (model.report.format.as_str()) ", " (size(model.blob.size)) }
            } @else {
                span class="bad" { "Not servable" } ": " (model.report.problem.as_deref().unwrap_or("not checked"))
            }
            dl {
                @if let Some(root) = registered.or(newest) { dt { "Content root" } dd { code class="hash" { (root) } } }
                @if let Some(root) = newest.filter(|_| registered.is_some_and(|registered| Some(registered) != newest)) {
                    dt { "Newest root, not registered" } dd { code class="hash" { (root) } }
                }
                @if let Some(total) = number("total") { dt { "Parameters" } dd { (count(total)) } }
                @if let Some(types) = types {
                    dt { "Types" }
                    dd { @for (name, n) in types { (name) " " span class="soft" { (count(n.as_u64().unwrap_or(0))) } " " } }
                }
                @if let Some(architecture) = text("architecture") { dt { "Architecture" } dd { (architecture) } }
                @if let Some(context) = number("context_length") { dt { "Context length" } dd { (context) " tokens" } }
                @if let Some(template) = text("chat_template") {
                    dt { "Chat template" }
                    dd { details { summary { "yes" } pre { (template.chars().take(4_000).collect::<String>()) } } }
                } @else if number("context_length").is_some() {
                    dt { "Chat template" } dd { "none" }
                }
                @if let Some(nodes) = number("nodes") { dt { "Nodes" } dd { (nodes) } }
                @for (key, word) in [("inputs", "Inputs"), ("outputs", "Outputs")] {
                    @if let Some(ports) = panel[key].as_array().filter(|ports| !ports.is_empty()) {
                        dt { (word) }
                        dd { @for port in ports { code { (port["name"].as_str().unwrap_or_default()) ": " (port["type"].as_str().unwrap_or_default()) } " " } }
                    }
                }
                @if let Some(operators) = panel["operators"].as_array() {
                    dt { "Operators" }
                    dd { (operators.iter().filter_map(Value::as_str).take(60).collect::<Vec<_>>().join(", ")) }
                }
            }
        }
    }
}

/// A model that is registered.
pub(super) struct Registered {
    /// The root that it is registered under; it may be of an older version than the file's newest one.
    pub(super) root: ModelRoot,
    terms: Registration,
    earnings: Earnings,
}

/// The models that are registered, by path; nothing where the chain does not answer: a page is shown without them.
pub(super) type Standing = BTreeMap<String, Registered>;

async fn standing(hub: &Hub, models: &[Model]) -> Standing {
    let mut found = Standing::new();
    let Some(chain) = &hub.chain else { return found };
    for model in models {
        match chain.registration_of(model).await {
            Ok(Some((root, Some(terms)))) => {
                let Ok((earnings, _)) = chain.earnings(root).await else {
                    break;
                };
                let registered = Registered { root, terms, earnings };
                found.insert(model.path.clone(), registered);
            }
            Ok(_) => {}
            // The next one would wait as long.
            _ => break,
        }
    }
    found
}

/// What the chain says about how an answer of a model can be verified.
fn modes(terms: &Registration) -> Markup {
    let offered = terms.modes();
    html! {
        ul class="modes" {
            @for mode in Mode::ALL {
                li {
                    code { (mode) } ": "
                    @match mode {
                        Mode::None => "signed by the node, not verified",
                        Mode::Tee => "on nodes whose hardware evidence the chain has accepted",
                        Mode::Zk if offered.contains(&mode) => {
                            "proven, by " (terms.programs.len()) " registered exact integer program" @if terms.programs.len() != 1 { "s" }
                            @for program in &terms.programs { " " code class="hash" { (program) } }
                        }
                        Mode::Zk => "not possible, no exact integer program of it is registered",
                        Mode::Replay => "not offered by the network yet",
                    }
                }
            }
        }
    }
}

/// What a model costs, and what it has brought its creator.
fn market(model: &Model, standing: &Standing) -> Markup {
    let Some(Registered { terms, earnings, .. }) = standing.get(&model.path) else {
        return html! {};
    };
    let price = &terms.price;
    html! {
        section class="panel" {
            h2 { "On the network" }
            dl {
                dt { "Creator" } dd { code class="hash" { (terms.creator) } }
                @if !terms.name.is_empty() { dt { "Registered as" } dd { (terms.name) } }
                @if !price.per_call.is_zero() { dt { "Price" } dd { (price.per_call) " OPG a call" } }
                @if !price.per_mtok_in.is_zero() || !price.per_mtok_out.is_zero() {
                    dt { "Price" } dd { (price.per_mtok_in) " OPG in, " (price.per_mtok_out) " OPG out, a million tokens" }
                }
                dt { "Verification modes" } dd { (modes(terms)) }
                dt { "Royalty" } dd { (terms.royalty_bps / 100) "." (format!("{:02}", terms.royalty_bps % 100)) " %" }
                dt { "Paid calls" } dd { (count(earnings.calls)) }
                dt { "Earned" } dd { (earnings.earned) " OPG" }
                @if !earnings.waiting.is_zero() { dt { "Waits for payment" } dd { (earnings.waiting) " OPG" } }
            }
        }
    }
}

pub(super) async fn files(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, name, revision)): RevisionPath,
) -> Answer<Response> {
    show_files(&hub, RepoKind::Model, (owner, name), &revision, &caller).await
}

pub(super) async fn dataset_files(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, name, revision)): RevisionPath,
) -> Answer<Response> {
    show_files(&hub, RepoKind::Dataset, (owner, name), &revision, &caller).await
}

async fn show_files(
    hub: &Hub,
    kind: RepoKind,
    path: (String, String),
    revision: &str,
    caller: &Caller,
) -> Answer<Response> {
    let view = view(hub, kind, path, revision, caller).await?;
    let models = inspect::models(hub, &view.files, FILES).await?;
    let total = view
        .files
        .values()
        .fold(0u64, |sum, file| sum.saturating_add(file.blob.size));
    let state = |path: &str| match kind_of(path) {
        FileKind::Model(_) => match models.iter().find(|m| m.path == path) {
            Some(model) if model.report.servable => html! { span class="good" { "checked" } },
            Some(_) => html! { span class="bad" { "not servable" } },
            None => html! {},
        },
        FileKind::Executable("script") => html! { span class="soft" { "code, never run" } },
        FileKind::Executable(kind) => html! { span class="bad" { "not servable: " (kind) " can run code" } },
        FileKind::Archive => html! { span class="bad" { "not servable: archive" } },
        FileKind::Other => html! {},
    };
    let body = html! {
        p class="soft" {
            (view.files.len()) " files, " (size(total)) " · revision " code { (view.commit.oid) }
        }
        div class="scroll" {
            table {
                thead { tr { th { "Path" } th { "State" } th { "Size" } th { "SHA-256" } } }
                tbody {
                    @for (path, file) in view.files.iter().take(FILES) {
                        tr {
                            td { a href={ (view.url()) "/resolve/" (encode(&view.revision)) "/" (encode_path(path)) } { (path) } }
                            td { (state(path)) }
                            td class="num" { (size(file.blob.size)) }
                            td { code title=(hex::encode(file.blob.sha256)) { (hex::encode(file.blob.sha256).chars().take(16).collect::<String>()) "…" } }
                        }
                    }
                }
            }
        }
        @if view.files.len() > FILES { p class="soft" { "The first " (FILES) " files are shown; the API lists all." } }
    };
    Ok(view.frame("files", &body))
}

pub(super) async fn versions(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, name, revision)): RevisionPath,
    OriginalUri(uri): OriginalUri,
) -> Answer<Response> {
    show_versions(
        &hub,
        RepoKind::Model,
        (owner, name),
        &revision,
        &caller,
        &Params::of(&uri),
    )
    .await
}

pub(super) async fn dataset_versions(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, name, revision)): RevisionPath,
    OriginalUri(uri): OriginalUri,
) -> Answer<Response> {
    show_versions(
        &hub,
        RepoKind::Dataset,
        (owner, name),
        &revision,
        &caller,
        &Params::of(&uri),
    )
    .await
}

async fn show_versions(
    hub: &Hub,
    kind: RepoKind,
    path: (String, String),
    revision: &str,
    caller: &Caller,
    params: &Params,
) -> Answer<Response> {
    let view = view(hub, kind, path, revision, caller).await?;
    let (id, oid, offset) = (view.repo.id, view.commit.oid.clone(), params.cursor());
    let (mut commits, branches, tags) = hub
        .db
        .read(move |db| {
            Ok((
                history::ancestors(db, id, &oid, offset, VERSIONS + 1)?,
                history::refs(db, id, "branch")?,
                history::refs(db, id, "tag")?,
            ))
        })
        .await?;
    let more = commits.len() > VERSIONS;
    commits.truncate(VERSIONS);
    let url = view.url();
    let refs = |refs: &[history::Ref]| {
        html! {
            ul class="tags" {
                @for r in refs.iter().take(100) {
                    li { a class=[(r.name == view.revision).then_some("on")] href={ (url) "/commits/" (encode(&r.name)) } { (r.name) } }
                }
            }
        }
    };
    let body = html! {
        h2 { "Branches" } (refs(&branches))
        @if !tags.is_empty() { h2 { "Tags" } (refs(&tags)) }
        h2 { "Commits" }
        ul class="list" {
            @for commit in &commits {
                li {
                    a class="name" href={ (url) "/commit/" (commit.oid) } { (commit.title) }
                    div class="soft" {
                        code { (commit.oid.chars().take(12).collect::<String>()) } " · " (commit.author) " · " (date(commit.time))
                        @for tag in tags.iter().filter(|tag| tag.oid == commit.oid) { " · " span class="tag" { (tag.name) } }
                    }
                }
            }
        }
        p {
            @if offset > 0 { a href={ (url) "/commits/" (encode(&view.revision)) "?cursor=" (offset.saturating_sub(VERSIONS)) } { "← Newer" } " " }
            @if more { a href={ (url) "/commits/" (encode(&view.revision)) "?cursor=" (offset + VERSIONS) } { "Older →" } }
        }
    };
    Ok(view.frame("versions", &body))
}

pub(super) async fn commit(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, name, revision)): RevisionPath,
) -> Answer<Response> {
    show_commit(&hub, RepoKind::Model, (owner, name), &revision, &caller).await
}

pub(super) async fn dataset_commit(
    State(hub): State<Arc<Hub>>,
    caller: Caller,
    Path((owner, name, revision)): RevisionPath,
) -> Answer<Response> {
    show_commit(&hub, RepoKind::Dataset, (owner, name), &revision, &caller).await
}

/// What a commit changed.
async fn show_commit(
    hub: &Hub,
    kind: RepoKind,
    path: (String, String),
    revision: &str,
    caller: &Caller,
) -> Answer<Response> {
    let view = view(hub, kind, path, revision, caller).await?;
    let (id, parent) = (view.repo.id, view.commit.parent.clone());
    let before = hub
        .db
        .read(move |db| match parent {
            Some(parent) => match history::by_oid(db, id, &parent)? {
                Some(commit) => history::files(db, &commit.tree),
                None => Ok(Files::new()),
            },
            None => Ok(Files::new()),
        })
        .await?;
    let mut changes: Vec<(&str, &str)> = Vec::new();
    for (path, file) in &view.files {
        match before.get(path) {
            None => changes.push(("added", path)),
            Some(old) if old.blob.sha256 != file.blob.sha256 => changes.push(("changed", path)),
            Some(_) => {}
        }
    }
    changes.extend(
        before
            .keys()
            .filter(|path| !view.files.contains_key(*path))
            .map(|path| ("deleted", path.as_str())),
    );
    let body = html! {
        h2 { (view.commit.title) }
        @if !view.commit.body.is_empty() { pre { (view.commit.body) } }
        p class="soft" {
            (view.commit.author) " · " (date(view.commit.time)) " · " code { (view.commit.oid) }
            @if let Some(parent) = &view.commit.parent { " · parent " a href={ (view.url()) "/commit/" (parent) } { code { (parent.chars().take(12).collect::<String>()) } } }
        }
        table {
            tbody { @for (what, path) in changes.iter().take(FILES) { tr { td { (what) } td { (path) } } } }
        }
        @if changes.is_empty() { p { "No file changed." } }
        p { a href={ (view.url()) "/tree/" (view.commit.oid) } { "All files of this version" } }
    };
    Ok(view.frame("versions", &body))
}
