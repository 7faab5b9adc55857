//! JSON-RPC over several full nodes: the first that answers is used until it fails.

use reqwest::Client;
use serde_json::{Value, json};
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

/// Largest answer accepted, bytes.
const MAX_ANSWER: usize = 16 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a call has no result.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RpcError {
    /// No full node answered.
    #[error("no full node answers: {problem}")]
    Unreachable {
        /// What the last one failed with.
        problem: String,
    },
    /// A full node answered with an error.
    #[error("{method}: {message} (code {code})")]
    Remote {
        /// Method called.
        method: &'static str,
        /// JSON-RPC error code.
        code: i64,
        /// Its message.
        message: String,
        /// Its data, null if absent.
        data: Value,
    },
    /// A full node answered with something that the method does not return.
    #[error("{method}: unexpected result {got}")]
    Unexpected {
        /// Method called.
        method: &'static str,
        /// The result, shortened.
        got: String,
    },
}

impl RpcError {
    /// The result of `method` was not what it should be.
    pub(crate) fn unexpected(method: &'static str, got: &Value) -> Self {
        Self::Unexpected {
            method,
            got: got.to_string().chars().take(200).collect(),
        }
    }

    /// Whether another try may succeed: nobody answered.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// Client of one or more full nodes of the same chain.
#[derive(Debug)]
pub(crate) struct Rpc {
    urls: Vec<String>,
    http: Client,
    preferred: AtomicUsize,
}

impl Rpc {
    /// A client of these URLs, in order of preference.
    ///
    /// # Errors
    /// The TLS or resolver set-up of this machine does not work.
    pub(crate) fn new(urls: Vec<String>) -> Result<Self, reqwest::Error> {
        let http = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .no_proxy()
            .build()?;
        Ok(Self {
            urls,
            http,
            preferred: AtomicUsize::new(0),
        })
    }

    /// Calls a method. Full nodes that cannot be reached are passed over; an error that one answers with is final.
    ///
    /// # Errors
    /// [`RpcError`].
    pub(crate) async fn call(&self, method: &'static str, params: Value) -> Result<Value, RpcError> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut problem = "no URL configured".to_owned();
        for step in 0..self.urls.len() {
            let at = (first + step) % self.urls.len();
            match self.call_one(&self.urls[at], method, &params).await {
                Ok(result) => {
                    self.preferred.store(at, Ordering::Relaxed);
                    return result;
                }
                Err(failure) => {
                    tracing::debug!(url = self.urls[at], method, failure, "full node did not answer");
                    problem = failure;
                }
            }
        }
        Err(RpcError::Unreachable { problem })
    }

    /// Calls a method on every full node and returns the first success: for what must reach at least one mempool.
    ///
    /// # Errors
    /// The last failure.
    pub(crate) async fn call_all(&self, method: &'static str, params: Value) -> Result<Value, RpcError> {
        let calls = self.urls.iter().map(|url| self.call_one(url, method, &params));
        let mut last = Err(RpcError::Unreachable {
            problem: "no URL configured".into(),
        });
        for outcome in futures::future::join_all(calls).await {
            match outcome {
                Ok(Ok(result)) => return Ok(result),
                Ok(Err(error)) => last = Err(error),
                Err(problem) if matches!(last, Err(RpcError::Unreachable { .. })) => {
                    last = Err(RpcError::Unreachable { problem })
                }
                Err(_) => {}
            }
        }
        last
    }

    async fn call_one(
        &self,
        url: &str,
        method: &'static str,
        params: &Value,
    ) -> Result<Result<Value, RpcError>, String> {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let text = |e: reqwest::Error| e.without_url().to_string();
        let mut response = self.http.post(url).json(&request).send().await.map_err(text)?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(text)? {
            if bytes.len() + chunk.len() > MAX_ANSWER {
                return Err(format!("answer is longer than {MAX_ANSWER} bytes"));
            }
            bytes.extend_from_slice(&chunk);
        }
        let mut answer: Value =
            serde_json::from_slice(&bytes).map_err(|e| format!("status {status}, not JSON: {e}"))?;
        if let Some(error) = answer.get("error").filter(|e| !e.is_null()) {
            return Ok(Err(RpcError::Remote {
                method,
                code: error["code"].as_i64().unwrap_or(0),
                message: error["message"]
                    .as_str()
                    .unwrap_or("no message")
                    .chars()
                    .take(500)
                    .collect(),
                data: error.get("data").cloned().unwrap_or(Value::Null),
            }));
        }
        match answer.get_mut("result") {
            Some(result) => Ok(Ok(result.take())),
            None => Err(format!("status {status}, neither result nor error")),
        }
    }
}

/// An unsigned integer of at most 64 bits in JSON-RPC's hex form.
pub(crate) fn quantity(method: &'static str, value: &Value) -> Result<u64, RpcError> {
    let parsed = value
        .as_str()
        .and_then(|t| t.strip_prefix("0x"))
        .and_then(|t| u64::from_str_radix(t, 16).ok());
    parsed.ok_or_else(|| RpcError::unexpected(method, value))
}
