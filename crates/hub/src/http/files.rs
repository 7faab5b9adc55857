//! Downloads.

use super::{Ctx, FilePath, REPO_COMMIT, commits::file_at, ranges};
use crate::{
    db::blobs,
    error::{Answer, ApiError},
    inspect,
    outboards::Outboards,
    state::{Hub, Want},
    tree::{Blob, File},
    validate::{FileKind, kind_of},
};
use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures::StreamExt as _;
use opg_model_store::{
    Pieces, pieces,
    ranges::{Checked, Span as VerifiedSpan},
};
use std::{
    io::{self, Read as _},
    sync::Arc,
};

/// Hash and size of a large file, which clients compare with what they have.
pub(super) const LINKED_ETAG: HeaderName = HeaderName::from_static("x-linked-etag");
pub(super) const LINKED_SIZE: HeaderName = HeaderName::from_static("x-linked-size");

/// The network's name of a model file.
pub(super) const MODEL_ROOT: HeaderName = HeaderName::from_static("x-opg-root");
/// BLAKE3 of the whole file.
const BLAKE3: HeaderName = HeaderName::from_static("x-opg-blake3");

/// First byte and number of bytes to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    start: u64,
    length: u64,
}

/// What a `Range` header asks for (RFC 9110 §14): `None` for the whole, an error for a range outside.
fn range(value: Option<&str>, size: u64) -> Result<Option<Span>, ()> {
    // Several ranges, and units other than bytes, may be ignored.
    let Some(spec) = value
        .and_then(|v| v.trim().strip_prefix("bytes="))
        .filter(|spec| !spec.contains(','))
    else {
        return Ok(None);
    };
    let Some((first, last)) = spec.split_once('-') else {
        return Ok(None);
    };
    let (first, last) = (first.trim(), last.trim());
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if !digits(first) || !digits(last) {
        return Ok(None);
    }
    // A number too large for 64 bits is beyond every file.
    let number = |text: &str| text.parse::<u64>().unwrap_or(u64::MAX);
    let (start, end) = match (first.is_empty(), last.is_empty()) {
        (true, true) => return Ok(None),
        (true, false) => match number(last) {
            0 => return Err(()),
            n => (size.saturating_sub(n), size),
        },
        (false, true) => (number(first), size),
        (false, false) => {
            if number(last) < number(first) {
                return Ok(None);
            }
            (number(first), number(last).saturating_add(1).min(size))
        }
    };
    if start >= size {
        return Err(());
    }
    Ok(Some(Span {
        start,
        length: end - start,
    }))
}

fn text_header(response: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.insert(name, value);
    }
}

/// Type to answer with. Nothing that a browser would run: a page of somebody's repository must not act as the hub.
fn content_type(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    match name.rsplit_once('.').map_or("", |(_, extension)| extension) {
        "json" => "application/json",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "md" | "txt" | "yaml" | "yml" | "toml" | "csv" | "py" | "jinja" | "cfg" | "ini" | "jsonl" | "gitattributes" => {
            "text/plain; charset=utf-8"
        }
        _ => "application/octet-stream",
    }
}

pub(super) async fn resolve(
    (State(hub), kind, caller): Ctx,
    Path((owner, name, revision, path)): FilePath,
    method: Method,
    headers: HeaderMap,
) -> Answer<Response> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::Content).await?;
    let commit = hub.revision(&repo, &revision).await?;
    let found = file_at(&hub, commit.tree, &path).await?;
    let file = found.ok_or_else(|| ApiError::entry_not_found(&path, &commit.oid))?;
    let asked = headers.get(header::RANGE).and_then(|value| value.to_str().ok());
    if let Some(span) = asked.and_then(|range| VerifiedSpan::of_header(range, file.blob.size)) {
        let mut response = ranges::send(&hub, file.blob, span, &method).await?;
        text_header(response.headers_mut(), REPO_COMMIT, &commit.oid);
        return Ok(response);
    }
    let mut response = send(&hub, &file, &method, &headers).await?;
    let out = response.headers_mut();
    text_header(out, REPO_COMMIT, &commit.oid);
    out.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(&path)));
    let name = path.rsplit('/').next().unwrap_or(&path);
    let encoded = percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC);
    let ascii: String = name
        .chars()
        .map(|c| if c.is_ascii() && c != '"' { c } else { '_' })
        .collect();
    let disposition = format!("inline; filename*=UTF-8''{encoded}; filename=\"{ascii}\"");
    text_header(out, header::CONTENT_DISPOSITION, &disposition);
    text_header(out, BLAKE3, &hex::encode(file.blob.blake3));
    if file.lfs {
        text_header(out, LINKED_ETAG, &format!("\"{}\"", hex::encode(file.blob.sha256)));
        out.insert(LINKED_SIZE, HeaderValue::from(file.blob.size));
    }
    if let FileKind::Model(format) = kind_of(&path)
        && let Some(root) = inspect::root(&hub, &file.blob, format).await?
    {
        text_header(out, MODEL_ROOT, &root.to_string());
    }
    Ok(response)
}

/// What git has: the pointer of a large file, else the content.
pub(super) async fn raw(
    (State(hub), kind, caller): Ctx,
    Path((owner, name, revision, path)): FilePath,
    method: Method,
    headers: HeaderMap,
) -> Answer<Response> {
    let repo = hub.repo(kind.0, &owner, &name, &caller, Want::Content).await?;
    let commit = hub.revision(&repo, &revision).await?;
    let found = file_at(&hub, commit.tree, &path).await?;
    let file = found.ok_or_else(|| ApiError::entry_not_found(&path, &commit.oid))?;
    let mut response = if file.lfs {
        file.pointer().into_response()
    } else {
        send(&hub, &file, &method, &headers).await?
    };
    let out = response.headers_mut();
    text_header(out, REPO_COMMIT, &commit.oid);
    out.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    Ok(response)
}

async fn send(hub: &Arc<Hub>, file: &File, method: &Method, headers: &HeaderMap) -> Answer<Response> {
    let blob = file.blob;
    let tag = if file.lfs {
        hex::encode(blob.sha256)
    } else {
        hex::encode(blob.git)
    };
    let tag = format!("\"{tag}\"");
    let mut out = HeaderMap::new();
    text_header(&mut out, header::ETAG, &tag);
    out.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    out.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; sandbox"),
    );
    let text = |name: HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
    let matches = |list: &str| {
        list.split(',')
            .any(|one| one.trim().trim_start_matches("W/") == tag || one.trim() == "*")
    };
    if text(header::IF_NONE_MATCH).is_some_and(matches) {
        return Ok((StatusCode::NOT_MODIFIED, out).into_response());
    }
    // A range of another version must not be glued to what the client has.
    let fresh = text(header::IF_RANGE).is_none_or(|given| given == tag);
    let wanted = if fresh {
        range(text(header::RANGE), blob.size)
    } else {
        Ok(None)
    };
    let span = match wanted {
        Ok(span) => span,
        Err(()) => {
            let mut error = ApiError::new(
                StatusCode::RANGE_NOT_SATISFIABLE,
                "InvalidRange",
                format!("the file has {} bytes", blob.size),
            );
            text_header(
                &mut error.headers,
                header::CONTENT_RANGE,
                &format!("bytes */{}", blob.size),
            );
            return Err(error);
        }
    };
    let status = if span.is_some() {
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    };
    if let Some(span) = span {
        let last = span.start + span.length - 1;
        text_header(
            &mut out,
            header::CONTENT_RANGE,
            &format!("bytes {}-{last}/{}", span.start, blob.size),
        );
    }
    let span = span.unwrap_or(Span {
        start: 0,
        length: blob.size,
    });
    out.insert(header::CONTENT_LENGTH, HeaderValue::from(span.length));
    let body = if method == Method::HEAD {
        Body::empty()
    } else {
        content(hub, blob, span).await?
    };
    Ok((status, out, body).into_response())
}

/// The bytes of a span, verified on their way, so that the client sees a broken download instead of a wrong file if the disk has
/// lost a bit. A whole file is hashed, and its last piece withheld if it is wrong; of a part, each chunk group is verified before it
/// is sent.
async fn content(hub: &Arc<Hub>, blob: Blob, span: Span) -> Answer<Body> {
    let inline = hub.db.read(move |db| blobs::inline(db, &blob.sha256)).await?;
    if let Some(bytes) = inline {
        let whole = Bytes::from(bytes);
        if *blake3::hash(&whole).as_bytes() != blob.blake3 {
            hub.metrics.damaged_reads.inc();
            return Err(ApiError::internal(format!(
                "blob {} is damaged",
                hex::encode(blob.sha256)
            )));
        }
        let part = usize::try_from(span.start)
            .ok()
            .zip(usize::try_from(span.start + span.length).ok())
            .filter(|(start, end)| start <= end && *end <= whole.len())
            .map(|(start, end)| whole.slice(start..end));
        let part = part.ok_or_else(|| ApiError::internal("a stored blob is shorter than recorded"))?;
        hub.metrics.sent.inc_by(part.len() as u64);
        return Ok(part.into());
    }
    let (store, from, until) = (Arc::clone(&hub.blobs), span.start, span.start + span.length);
    if span.length == blob.size {
        let file = hub
            .blocking(move || Ok(store.open_at(&blob.sha256, 0, blob.size)?))
            .await?;
        let whole = Whole {
            file,
            hasher: blake3::Hasher::new(),
            blob,
            left: blob.size,
        };
        return Ok(body(hub, blob, whole));
    }
    let groups = VerifiedSpan::covering(from, until, blob.size);
    let groups = groups.ok_or_else(|| ApiError::internal("a range without a byte"))?;
    let outboard = Outboards::get(hub, blob).await?;
    let data = hub
        .blocking(move || Ok(store.open_at(&blob.sha256, groups.start(), groups.length())?))
        .await?;
    let part = Checked::new(blob.blake3, blob.size, (from, until), groups, data, outboard);
    Ok(body(hub, blob, part))
}

/// Sends what a blob's reader has found good.
pub(super) fn body(hub: &Arc<Hub>, blob: Blob, source: impl Pieces) -> Body {
    let hub = Arc::clone(hub);
    Body::from_stream(pieces(source).inspect(move |piece| match piece {
        Ok(piece) => {
            hub.metrics.sent.inc_by(piece.len() as u64);
        }
        Err(error) => {
            hub.metrics.damaged_reads.inc();
            tracing::error!(%error, blob = hex::encode(blob.sha256), "download cut");
            // The blob or its outboard; the latter can be made again.
            let hub = Arc::clone(&hub);
            tokio::task::spawn_blocking(move || {
                if let Err(error) = hub.outboards.examine(&blob) {
                    tracing::error!(%error, "an outboard cannot be examined");
                }
            });
        }
    }))
}

/// A whole file on its way out.
struct Whole {
    file: Box<dyn io::Read + Send>,
    hasher: blake3::Hasher,
    blob: Blob,
    left: u64,
}

impl Pieces for Whole {
    fn fill(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        let size = piece.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let piece = piece.get_mut(..size).unwrap_or_default();
        self.file.read_exact(piece)?;
        self.left -= size as u64;
        self.hasher.update(piece);
        if self.left == 0 && *self.hasher.finalize().as_bytes() != self.blob.blake3 {
            return Err(io::Error::other("the stored bytes do not have their hash"));
        }
        Ok(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_those_of_rfc_9110() {
        let some = |start, length| Ok(Some(Span { start, length }));
        for (value, expected) in [
            ("bytes=0-0", some(0, 1)),
            ("bytes=2-", some(2, 8)),
            ("bytes=-3", some(7, 3)),
            ("bytes=-30", some(0, 10)),
            ("bytes=5-99", some(5, 5)),
            ("bytes=5-99999999999999999999999", some(5, 5)),
            ("bytes=10-", Err(())),
            ("bytes=-0", Err(())),
            ("bytes=99999999999999999999999-", Err(())),
            ("bytes=5-4", Ok(None)),
            ("bytes=0-1,3-4", Ok(None)),
            ("bytes=x-1", Ok(None)),
            ("bytes=-", Ok(None)),
            ("items=0-1", Ok(None)),
        ] {
            assert_eq!(range(Some(value), 10), expected, "{value}");
        }
        assert_eq!(range(Some("bytes=0-"), 0), Err(()));
        assert_eq!(range(None, 10), Ok(None));
    }

    #[test]
    fn nothing_is_answered_as_a_page_or_script() {
        for path in ["x.html", "x.svg", "x.js", "x.xhtml", "x", "x.htm"] {
            assert_eq!(content_type(path), "application/octet-stream", "{path}");
        }
    }
}
