//! Verified ranges of files (`Range: bao-blake3=FIRST-LAST`).

use super::files::body;
use crate::{
    db::blobs,
    error::{Answer, ApiError},
    outboards::Outboards,
    state::Hub,
    tree::Blob,
};
use axum::{
    body::Body,
    http::{HeaderValue, Method, StatusCode, header},
    response::Response,
};
use opg_model_store::ranges::{Encoder, MEDIA_TYPE, Span, SpanError, make_outboard};
use std::{
    io::{self, Read},
    sync::Arc,
};

/// A part of a file with the hashes that prove it.
pub(super) async fn send(
    hub: &Arc<Hub>,
    blob: Blob,
    span: Result<Span, SpanError>,
    method: &Method,
) -> Answer<Response> {
    let span = span.map_err(|error| {
        ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "InvalidRange", error.to_string()).param("Range")
    })?;
    let body = if method == Method::HEAD {
        Body::empty()
    } else if let Some(bytes) = hub.db.read(move |db| blobs::inline(db, &blob.sha256)).await? {
        let mut outboard = Vec::new();
        make_outboard(bytes.as_slice(), bytes.len() as u64, &mut outboard).map_err(ApiError::internal)?;
        let mut data = io::Cursor::new(bytes);
        data.set_position(span.start());
        body(hub, blob, Encoder::new(blob.blake3, blob.size, span, data, outboard))
    } else {
        let outboard = Outboards::get(hub, blob).await?;
        let store = Arc::clone(&hub.blobs);
        let data = hub
            .blocking(move || {
                let data = store.open_at(&blob.sha256, span.start(), span.length())?;
                Ok(Box::new(data) as Box<dyn Read + Send>)
            })
            .await?;
        body(hub, blob, Encoder::new(blob.blake3, blob.size, span, data, outboard))
    };
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let out = response.headers_mut();
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    out.insert(
        header::CONTENT_LENGTH,
        HeaderValue::from(span.encoded_length(blob.size)),
    );
    let range = HeaderValue::try_from(span.content_range(blob.size)).map_err(ApiError::internal)?;
    out.insert(header::CONTENT_RANGE, range);
    Ok(response)
}
