//! JSON-RPC with as little as possible between the clock and the socket.

use eyre::{Result, bail, eyre};
use serde_json::{Value, json};
use std::time::Duration;

/// One validator.
#[derive(Debug, Clone)]
pub(crate) struct Rpc {
    url: String,
    http: reqwest::Client,
}

impl Rpc {
    pub(crate) fn new(url: &str) -> Result<Self> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(20)).build()?;
        Ok(Self { url: url.into(), http })
    }

    pub(crate) async fn call(&self, method: &str, params: Value) -> Result<Value> {
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let mut answer: Value = self.http.post(&self.url).json(&request).send().await?.json().await?;
        match answer.get("error") {
            Some(error) if !error.is_null() => bail!("{method} at {}: {error}", self.url),
            _ => Ok(answer["result"].take()),
        }
    }

    /// Many calls of one method; an answer for each, in order.
    pub(crate) async fn batch(&self, method: &str, params: &[Value]) -> Result<Vec<Result<Value>>> {
        let requests: Vec<_> = params
            .iter()
            .enumerate()
            .map(|(id, params)| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
            .collect();
        let answers: Value = self.http.post(&self.url).json(&requests).send().await?.json().await?;
        let Value::Array(answers) = answers else {
            bail!("{method} at {}: {answers}", self.url)
        };
        let mut ordered: Vec<_> = params.iter().map(|_| Err(eyre!("{method}: no answer"))).collect();
        for mut answer in answers {
            let id = answer["id"].as_u64().and_then(|id| usize::try_from(id).ok());
            if let Some(slot) = id.and_then(|id| ordered.get_mut(id)) {
                *slot = match answer.get("error") {
                    Some(error) if !error.is_null() => Err(eyre!("{method}: {error}")),
                    _ => Ok(answer["result"].take()),
                };
            }
        }
        Ok(ordered)
    }

    pub(crate) async fn height(&self) -> Result<u64> {
        let value = self.call("eth_blockNumber", json!([])).await?;
        let text = value.as_str().ok_or_else(|| eyre!("eth_blockNumber: {value}"))?;
        Ok(u64::from_str_radix(text.trim_start_matches("0x"), 16)?)
    }
}
