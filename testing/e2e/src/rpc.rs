//! A plain JSON-RPC client: no knowledge of the node's crates.

use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// One JSON-RPC endpoint.
#[derive(Clone, Debug)]
pub struct Rpc {
    url: String,
    http: reqwest::Client,
}

impl Rpc {
    /// Client of `url` with a timeout of 10 s per call.
    pub fn new(url: &str) -> Self {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(10))
            .build()
            .expect("client");
        Self { url: url.into(), http }
    }

    /// Calls `method`; `Err` is the error object, or the transport's error as text.
    pub async fn try_call(&self, method: &str, params: Value) -> Result<Value, Value> {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let answer = self
            .http
            .post(&self.url)
            .json(&body)
            .send()
            .await
            .map_err(|e| json!(e.to_string()))?;
        let mut answer: Value = answer.json().await.map_err(|e| json!(e.to_string()))?;
        match answer.get_mut("error") {
            Some(error) if !error.is_null() => Err(error.take()),
            _ => Ok(answer["result"].take()),
        }
    }

    /// Calls `method` and panics on an error.
    #[track_caller]
    pub fn call(&self, method: &str, params: Value) -> impl Future<Output = Value> + use<> {
        let (me, method) = (self.clone(), method.to_owned());
        async move {
            me.try_call(&method, params)
                .await
                .unwrap_or_else(|e| panic!("{method} at {}: {e}", me.url))
        }
    }

    /// Newest block number.
    pub async fn height(&self) -> u64 {
        number(&self.call("eth_blockNumber", json!([])).await)
    }

    /// Newest block number; `None` if the node does not answer.
    pub async fn try_height(&self) -> Option<u64> {
        self.try_call("eth_blockNumber", json!([]))
            .await
            .ok()
            .map(|v| number(&v))
    }

    /// Hash, state root and receipts of the block at `height`, as the node tells them.
    pub async fn fingerprint(&self, height: u64) -> (Value, Value, Value) {
        let tag = json!(format!("{height:#x}"));
        let block = self.call("eth_getBlockByNumber", json!([tag, false])).await;
        let receipts = self.call("eth_getBlockReceipts", json!([tag])).await;
        (block["hash"].clone(), block["stateRoot"].clone(), receipts)
    }
}

fn number(value: &Value) -> u64 {
    let text = value.as_str().expect("hex number");
    u64::from_str_radix(text.trim_start_matches("0x"), 16).expect("hex number")
}

/// Polls `check` every 100 ms until it says true.
///
/// # Panics
/// With `what` if `timeout` passes first.
pub async fn wait_until<F: Future<Output = bool>>(what: &str, timeout: Duration, mut check: impl FnMut() -> F) {
    let end = Instant::now() + timeout;
    while !check().await {
        assert!(Instant::now() < end, "not within {timeout:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
