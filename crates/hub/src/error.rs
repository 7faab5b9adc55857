//! Errors as clients see them: the platform's `{"error":{"message","type","code","param"}}`, and beside it the headers
//! `X-Error-Code` and `X-Error-Message` from which `huggingface_hub` picks its exception.

use crate::db::DbError;
use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

/// Header with the machine-readable word of an error.
pub(crate) const ERROR_CODE: HeaderName = HeaderName::from_static("x-error-code");
/// Header with the sentence of an error.
pub(crate) const ERROR_MESSAGE: HeaderName = HeaderName::from_static("x-error-message");

/// Result of a request handler.
pub(crate) type Answer<T> = Result<T, ApiError>;

/// One error of the HTTP interface.
#[derive(Debug)]
pub(crate) struct ApiError {
    /// HTTP status.
    pub(crate) status: StatusCode,
    /// Stable machine-readable word; those of Hugging Face where it has one.
    pub(crate) code: &'static str,
    /// What was wrong and what to do.
    pub(crate) message: String,
    /// The field that is wrong.
    pub(crate) param: Option<&'static str>,
    /// Further members of the body, beside `error`.
    pub(crate) extra: Map<String, Value>,
    /// Further headers.
    pub(crate) headers: HeaderMap,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
            param: None,
            extra: Map::new(),
            headers: HeaderMap::new(),
        }
    }

    /// 400: the request is not what the interface defines.
    pub(crate) fn bad_request(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// 401: no valid token came with a request that needs one.
    pub(crate) fn unauthorized(message: impl Into<String>) -> Self {
        let mut error = Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", message);
        error
            .headers
            .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        error
    }

    /// 403: the account may not do this.
    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// 404 for a repository that does not exist or that the caller may not see: one answer for both.
    pub(crate) fn repo_not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "RepoNotFound",
            "repository not found; if it is private, send an access token of an account that may read it",
        )
    }

    /// 404 for a branch, tag or commit.
    pub(crate) fn revision_not_found(revision: &str) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "RevisionNotFound",
            format!(
                "revision {:?} is no branch, tag or commit of this repository",
                cut(revision)
            ),
        )
    }

    /// 404 for a path, with the commit that lacks it: clients remember that pair.
    pub(crate) fn entry_not_found(path: &str, commit: &str) -> Self {
        let mut error = Self::new(
            StatusCode::NOT_FOUND,
            "EntryNotFound",
            format!("no file {:?} in this revision", cut(path)),
        );
        if let Ok(value) = HeaderValue::from_str(commit) {
            error.headers.insert(crate::http::REPO_COMMIT, value);
        }
        error
    }

    /// 413: more than the configuration allows.
    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "TooLarge", message)
    }

    /// 412: the branch is not where the request says it is.
    pub(crate) fn stale_parent(expected: &str, head: &str) -> Self {
        Self::new(
            StatusCode::PRECONDITION_FAILED,
            "StaleParent",
            format!(
                "a commit has happened since: the branch is at {head}, the request builds on {}; fetch and try again",
                cut(expected)
            ),
        )
    }

    /// 500, with the cause in the log only.
    pub(crate) fn internal(error: impl std::fmt::Display) -> Self {
        tracing::error!(%error, "request failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "Internal",
            "the hub could not finish the request; its log has the reason",
        )
    }

    /// Names the field.
    #[must_use]
    pub(crate) fn param(mut self, param: &'static str) -> Self {
        self.param = Some(param);
        self
    }

    /// Adds a member to the body.
    #[must_use]
    pub(crate) fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.extra.insert(key.to_owned(), value.into());
        self
    }

    fn kind(&self) -> &'static str {
        match self.status.as_u16() {
            401 | 403 => "authentication_error",
            404 => "not_found_error",
            409 | 412 => "conflict_error",
            429 => "rate_limit_error",
            400..500 => "invalid_request_error",
            _ => "server_error",
        }
    }
}

/// A text from outside, bounded for a message.
pub(crate) fn cut(text: &str) -> String {
    text.chars().take(120).collect()
}

impl From<DbError> for ApiError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Nul => Self::bad_request("InvalidText", error.to_string()),
            DbError::Unavailable { .. } | DbError::Uncertain { .. } | DbError::Taken { .. } => {
                tracing::error!(%error, "request failed");
                let outcome = match error {
                    DbError::Uncertain { .. } => "whether the change was made is not known, look before trying again",
                    _ => "nothing was changed, try again",
                };
                let message = format!("the hub's database cannot be reached; {outcome}");
                let mut answer = Self::new(StatusCode::SERVICE_UNAVAILABLE, "DatabaseUnavailable", message);
                answer
                    .headers
                    .insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
                answer
            }
            error => Self::internal(error),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        tracing::debug!(
            status = self.status.as_u16(),
            code = self.code,
            message = self.message,
            "refused"
        );
        let mut body = json!({
            "error": {"message": self.message, "type": self.kind(), "code": self.code, "param": self.param},
        });
        if let Some(object) = body.as_object_mut() {
            object.extend(self.extra);
        }
        let mut response = (self.status, axum::Json(body)).into_response();
        let headers = response.headers_mut();
        headers.extend(self.headers);
        headers.insert(ERROR_CODE, HeaderValue::from_static(self.code));
        // A header holds visible ASCII only; what is quoted from a request may hold more.
        let ascii: String = self
            .message
            .chars()
            .map(|c| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' })
            .collect();
        if let Ok(value) = HeaderValue::from_str(&ascii) {
            headers.insert(ERROR_MESSAGE, value);
        }
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_name_the_error_and_hold_ascii_only() {
        let response = ApiError::entry_not_found("ü\r\nX-Evil: 1", &"a".repeat(40)).into_response();
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()["x-error-code"], "EntryNotFound");
        assert_eq!(response.headers()["x-repo-commit"], "a".repeat(40).as_str());
        assert!(response.headers().get("x-evil").is_none());
        assert!(response.headers()[ERROR_MESSAGE].to_str().unwrap().contains("no file"));
    }
}
