//! Why a request is not forwarded, and why an answer is not given out.

use std::time::Duration;

/// A request that cannot be expressed in the provider's format. Nothing was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// Stable machine-readable word: `invalid_parameter`, `missing_parameter`, `unsupported_parameter` or
    /// `unknown_parameter`.
    pub code: &'static str,
    /// The field, as in `messages[1].content[0]`.
    pub param: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl RequestError {
    pub(crate) fn invalid(param: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        let param = param.into();
        Self {
            code: "invalid_parameter",
            message: format!("{param}: {problem}"),
            param,
        }
    }

    pub(crate) fn missing(param: impl Into<String>) -> Self {
        let param = param.into();
        Self {
            code: "missing_parameter",
            message: format!("{param} is missing"),
            param,
        }
    }

    pub(crate) fn unsupported(param: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            code: "unsupported_parameter",
            param: param.into(),
            message: problem.into(),
        }
    }

    pub(crate) fn unknown(param: &str) -> Self {
        let param: String = param.chars().take(80).collect();
        Self {
            code: "unknown_parameter",
            message: format!("unrecognized request argument: {param}"),
            param,
        }
    }
}

/// Bytes of a provider that are not the answer which its interface defines.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// More bytes than accepted.
    #[error("{what} of the provider is longer than {limit} bytes")]
    TooLong {
        /// Which part.
        what: &'static str,
        /// Most bytes accepted.
        limit: usize,
    },
    /// Not UTF-8, not JSON, a field that is missing or has another type.
    #[error("the provider's answer is not understood: {what}: {why}")]
    Malformed {
        /// Field or part.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// The stream ended before the event that ends it: what came is not the whole answer.
    #[error("the provider's stream was cut: it ended without {missing}")]
    Truncated {
        /// The event or field that is missing.
        missing: &'static str,
    },
    /// The provider reported an error inside its answer.
    #[error("the provider gave up: {code}: {message}")]
    Provider {
        /// The provider's word, cleaned.
        code: String,
        /// The provider's message, cleaned.
        message: String,
    },
}

impl AnswerError {
    pub(crate) fn malformed(what: impl Into<String>, why: impl std::fmt::Display) -> Self {
        Self::Malformed {
            what: what.into(),
            why: why.to_string(),
        }
    }
}

/// Why no answer of a provider is given out.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum UpstreamError {
    /// The request cannot be expressed for this provider.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// No connection.
    #[error("cannot connect to {host}: {reason}")]
    Connect {
        /// The provider's host.
        host: String,
        /// The system's reason.
        reason: String,
    },
    /// The peer did not prove to be the provider.
    #[error("{host} is not authenticated by TLS: {reason}")]
    Tls {
        /// The provider's host.
        host: String,
        /// The verifier's reason.
        reason: String,
    },
    /// A deadline passed.
    #[error("{host}: {phase} took longer than {} s", limit.as_secs_f32())]
    Timeout {
        /// The provider's host.
        host: String,
        /// What was waited for.
        phase: &'static str,
        /// The deadline.
        limit: Duration,
    },
    /// The connection broke, or HTTP's own framing is wrong, before the answer was whole.
    #[error("the connection to {host} broke {when}: {reason}")]
    Broken {
        /// The provider's host.
        host: String,
        /// `before the answer` or `inside the answer`.
        when: &'static str,
        /// The transport's reason.
        reason: String,
    },
    /// The provider does not accept the API key, or the key may not do this. Its words are left out: they may quote the
    /// key.
    #[error("the provider refuses the node's API key (HTTP {status})")]
    Key {
        /// HTTP status.
        status: u16,
    },
    /// Too many requests or tokens, or the account's quota is used up.
    #[error("the provider limits the rate of requests (HTTP {status}): {message}")]
    RateLimited {
        /// HTTP status.
        status: u16,
        /// The provider's words, cleaned.
        message: String,
        /// When to try again, if the provider says so.
        retry_after: Option<Duration>,
    },
    /// The provider does not know the model.
    #[error("the provider does not know the model: {message}")]
    UnknownModel {
        /// The provider's words, cleaned.
        message: String,
    },
    /// The provider refuses this request.
    #[error("the provider refuses the request (HTTP {status}): {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// The provider's words, cleaned.
        message: String,
    },
    /// The provider fails.
    #[error("the provider fails (HTTP {status}): {message}")]
    Failing {
        /// HTTP status.
        status: u16,
        /// The provider's words, cleaned.
        message: String,
        /// When to try again, if the provider says so.
        retry_after: Option<Duration>,
    },
    /// A status that the provider's interface does not have, such as a redirect.
    #[error("{host} answered HTTP {status}, which its interface does not have")]
    Status {
        /// The provider's host.
        host: String,
        /// HTTP status.
        status: u16,
    },
    /// The answer is not what the provider's interface defines.
    #[error(transparent)]
    Answer(#[from] AnswerError),
}

impl UpstreamError {
    /// HTTP status with which a node reports this to its client.
    #[must_use]
    pub const fn client_status(&self) -> u16 {
        match self {
            Self::Request(_) | Self::Refused { .. } => 400,
            Self::RateLimited { .. } => 429,
            Self::Failing { .. } | Self::Connect { .. } => 503,
            Self::Timeout { .. } => 504,
            Self::UnknownModel { .. }
            | Self::Key { .. }
            | Self::Tls { .. }
            | Self::Broken { .. }
            | Self::Status { .. }
            | Self::Answer(_) => 502,
        }
    }

    /// Stable machine-readable word for the client.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Request(error) => error.code,
            Self::Connect { .. } => "upstream_unreachable",
            Self::Tls { .. } => "upstream_not_authenticated",
            Self::Timeout { .. } => "upstream_timeout",
            Self::Broken { .. } => "upstream_broken",
            Self::Key { .. } => "upstream_key_refused",
            Self::RateLimited { .. } => "upstream_rate_limited",
            Self::UnknownModel { .. } => "upstream_model_unknown",
            Self::Refused { .. } => "upstream_refused",
            Self::Failing { .. } => "upstream_failing",
            Self::Status { .. } => "upstream_unexpected_status",
            Self::Answer(AnswerError::Truncated { .. }) => "upstream_truncated",
            Self::Answer(AnswerError::Provider { .. }) => "upstream_failed",
            Self::Answer(_) => "upstream_malformed",
        }
    }

    /// When the client may try again, if the provider said so.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Failing { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
