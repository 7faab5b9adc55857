//! Pages for people: plain HTML made here, one small style sheet, no scripts. Everything shown is what the API shows, and
//! private repositories are not shown: a browser sends no token.

mod browse;
mod layout;
mod model;
mod snippets;

use crate::state::Hub;
use axum::{
    Router,
    http::{HeaderValue, header},
    response::{Html, IntoResponse as _, Response},
    routing::get,
};
use maud::Markup;
use std::sync::Arc;

/// Routes of the pages.
pub(crate) fn router() -> Router<Arc<Hub>> {
    Router::new()
        .route("/", get(browse::models))
        .route("/models", get(browse::models))
        .route("/datasets", get(browse::datasets))
        .route("/assets/style.css", get(style))
        .route("/{owner}", get(browse::owner))
        .route("/{owner}/{name}", get(model::card))
        .route("/{owner}/{name}/tree/{revision}", get(model::files))
        .route("/{owner}/{name}/commits/{revision}", get(model::versions))
        .route("/{owner}/{name}/commit/{revision}", get(model::commit))
        .route("/datasets/{owner}/{name}", get(model::dataset_card))
        .route("/datasets/{owner}/{name}/tree/{revision}", get(model::dataset_files))
        .route(
            "/datasets/{owner}/{name}/commits/{revision}",
            get(model::dataset_versions),
        )
        .route("/datasets/{owner}/{name}/commit/{revision}", get(model::dataset_commit))
}

async fn style() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/css; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=3600"),
    ];
    (headers, include_str!("style.css")).into_response()
}

/// A page, with a policy that lets nothing run and nothing load but the style sheet.
fn show(markup: Markup) -> Response {
    let mut response = Html(markup.into_string()).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
