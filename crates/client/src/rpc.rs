//! JSON-RPC over HTTP to any of a network's full nodes.
//!
//! One request goes to one node; if that node cannot be reached, or gives no JSON-RPC answer, the next one is asked. An answer that is an error of
//! the method itself is final: another node would say the same.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// Largest answer that is read. Inclusion proofs and blocks are far below.
const MAX_ANSWER: usize = 16 << 20;
const TIMEOUT: Duration = Duration::from_secs(25);

/// Why a JSON-RPC request failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RpcError {
    /// No full node answered.
    #[error("no full node answers {method} (last tried {url}: {reason}); is the network up? `opg status` shows it")]
    Unreachable {
        /// The method asked for.
        method: String,
        /// The endpoint tried last.
        url: String,
        /// What happened there.
        reason: String,
    },
    /// The node refused the request.
    #[error("{method}: {message} (code {code})")]
    Refused {
        /// The method asked for.
        method: String,
        /// JSON-RPC error code.
        code: i64,
        /// The node's words.
        message: String,
    },
    /// The answer does not have the shape that the method promises.
    #[error("{method}: answer is not understood: {reason}")]
    Shape {
        /// The method asked for.
        method: String,
        /// What did not fit.
        reason: String,
    },
}

/// A pool of equivalent JSON-RPC endpoints.
#[derive(Debug)]
pub struct Rpc {
    http: reqwest::Client,
    urls: Vec<String>,
    preferred: AtomicUsize,
    id: AtomicU64,
}

#[derive(Serialize)]
struct Request<'a, P> {
    jsonrpc: &'static str,
    id: u64,
    method: &'a str,
    params: P,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    result: Value,
    error: Option<ErrorObject>,
}

#[derive(Deserialize)]
struct ErrorObject {
    code: i64,
    message: String,
}

impl Rpc {
    /// A pool over `urls`, asked in that order.
    pub fn new(http: reqwest::Client, urls: Vec<String>) -> Self {
        Self {
            http,
            urls,
            preferred: AtomicUsize::new(0),
            id: AtomicU64::new(1),
        }
    }

    /// The endpoints.
    pub fn urls(&self) -> &[String] {
        &self.urls
    }

    /// Calls `method` on the first endpoint that answers, starting with the one that answered last.
    ///
    /// # Errors
    /// If none answers, the method fails, or the result is not an `R`.
    pub async fn call<P: Serialize, R: DeserializeOwned>(&self, method: &str, params: P) -> Result<R, RpcError> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut last = None;
        for turn in 0..self.urls.len() {
            let index = (first + turn) % self.urls.len();
            match self.call_at(index, method, &params).await {
                Err(error @ RpcError::Unreachable { .. }) => last = Some(error),
                result => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return result;
                }
            }
        }
        Err(last.unwrap_or_else(|| RpcError::Unreachable {
            method: method.into(),
            url: "none".into(),
            reason: "the network names no endpoint".into(),
        }))
    }

    /// Calls `method` on endpoint `index` only.
    ///
    /// # Errors
    /// As [`Rpc::call`].
    pub async fn call_at<P: Serialize, R: DeserializeOwned>(
        &self,
        index: usize,
        method: &str,
        params: &P,
    ) -> Result<R, RpcError> {
        let url = self.urls.get(index).map_or("", String::as_str);
        let unreachable = |reason: String| RpcError::Unreachable {
            method: method.into(),
            url: url.into(),
            reason,
        };
        let request = Request {
            jsonrpc: "2.0",
            id: self.id.fetch_add(1, Ordering::Relaxed),
            method,
            params,
        };
        let response = self
            .http
            .post(url)
            .timeout(TIMEOUT)
            .json(&request)
            .send()
            .await
            .map_err(|error| unreachable(root_cause(&error)))?;
        let status = response.status();
        let bytes = read_body(response, MAX_ANSWER)
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        let answer: Response = serde_json::from_slice(&bytes)
            .map_err(|error| unreachable(format!("HTTP {status}, not a JSON-RPC answer: {error}")))?;
        if let Some(error) = answer.error {
            return Err(RpcError::Refused {
                method: method.into(),
                code: error.code,
                message: crate::text::one_line(&error.message, 500),
            });
        }
        serde_json::from_value(answer.result).map_err(|error| RpcError::Shape {
            method: method.into(),
            reason: error.to_string(),
        })
    }
}

/// Why a body was not read to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// More bytes than any honest answer.
    #[error("answer longer than {0} bytes")]
    TooLong(usize),
    /// The connection broke.
    #[error("{0}")]
    Broken(String),
}

/// Reads a body of at most `max` bytes.
pub(crate) async fn read_body(mut response: reqwest::Response, max: usize) -> Result<Vec<u8>, BodyError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| BodyError::Broken(root_cause(&error)))?
    {
        if bytes.len() + chunk.len() > max {
            return Err(BodyError::TooLong(max));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The innermost message of an error: "connection refused" says more than "error sending request".
pub(crate) fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
