//! `eth_*` methods that ethrex lacks, or that need this node's pool, gossip or bounds.

use super::{
    Front,
    filters::{Kind, Poll},
    message::{INTERNAL, Params, RpcError, hex_value, number, quantity},
};
use crate::shared::TransactionError;
use alloy_primitives::{B256, Bytes};
use serde_json::{Value, json};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

/// Largest raw transaction: EIP-7623-era clients use the same bound.
const MAX_TRANSACTION: usize = 128 * 1024;
/// Error code of `eth_sendRawTransactionSync` when the transaction is not in a block in time (EIP-7966).
const NOT_CONFIRMED: i64 = 4;
/// Members of a block object that a header object does not have.
const BODY_MEMBERS: [&str; 4] = ["transactions", "uncles", "withdrawals", "size"];

impl Front {
    pub(super) async fn send_raw(&self, p: &Params<'_>) -> Result<Value, RpcError> {
        p.at_most(1)?;
        let raw = p.bytes(0, "transaction", MAX_TRANSACTION)?;
        Ok(hex_value(self.submit_transaction(raw.into()).await?))
    }

    async fn submit_transaction(&self, raw: Bytes) -> Result<B256, RpcError> {
        self.node.add_transaction(raw, true).await.map_err(|error| match error {
            TransactionError::SystemSender(sender) => RpcError::with_field(
                super::message::SERVER_ERROR,
                error.to_string(),
                "from",
                "an ordinary account",
                format!("the system account {sender}"),
            ),
            TransactionError::Refused(refused) => RpcError::new(i64::from(refused.code()), refused.to_string()),
        })
    }

    /// EIP-7966: returns the receipt, as blocks are final at once.
    pub(super) async fn send_raw_sync(self: &Arc<Self>, p: &Params<'_>) -> Result<Value, RpcError> {
        p.at_most(2)?;
        let raw = p.bytes(0, "transaction", MAX_TRANSACTION)?;
        let most = Duration::from_secs(self.node.limits.rpc_timeout_secs).saturating_sub(Duration::from_millis(500));
        let timeout = match p.get(1) {
            None => Duration::from_secs(5),
            Some(value) => Duration::from_millis(
                number(value).ok_or_else(|| RpcError::field("timeout", "milliseconds", value.to_string()))?,
            ),
        };
        let mut finalized = self.node.execution.subscribe_finalized();
        let hash = self.submit_transaction(raw.into()).await?;
        let included = async {
            loop {
                match finalized.recv().await {
                    Ok(block) if block.receipts.iter().any(|r| r.transaction_hash == hash) => return true,
                    Ok(_) => {}
                    // a block may have been missed: look it up
                    Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {
                        if self
                            .node
                            .execution
                            .transaction(hash)
                            .await
                            .is_ok_and(|t| t.is_some_and(|t| t.location.is_some()))
                        {
                            return true;
                        }
                    }
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return false,
                }
            }
        };
        match tokio::time::timeout(timeout.min(most), included).await {
            Ok(true) => self.forward("eth_getTransactionReceipt", vec![hex_value(hash)]).await,
            _ => Err(RpcError {
                code: NOT_CONFIRMED,
                message: format!(
                    "the transaction is in the pool but was in no block within {} ms",
                    timeout.min(most).as_millis()
                ),
                data: Some(hex_value(hash)),
            }),
        }
    }

    /// ethrex knows transactions in blocks; those in the pool are found through `txpool_contentFrom`.
    pub(super) async fn transaction_by_hash(&self, p: &Params<'_>) -> Result<Value, RpcError> {
        let hash = p.fixed::<32>(0, "hash")?;
        let found = self.forward("eth_getTransactionByHash", vec![hex_value(hash)]).await?;
        if !found.is_null() {
            return Ok(found);
        }
        let Some(pooled) = self
            .node
            .execution
            .transaction(hash.into())
            .await
            .map_err(RpcError::internal)?
        else {
            return Ok(Value::Null);
        };
        let Some((sender, _)) = crate::system::sender(&pooled.raw) else {
            return Ok(Value::Null);
        };
        let content = self
            .forward("txpool_contentFrom", vec![json!(format!("{sender:#x}"))])
            .await?;
        let wanted = hex_value(hash);
        let transactions = content.get("pending").and_then(Value::as_object);
        Ok(transactions
            .and_then(|by_nonce| by_nonce.values().find(|t| t.get("hash") == Some(&wanted)).cloned())
            .unwrap_or(Value::Null))
    }

    pub(super) async fn raw_transaction_by_hash(&self, p: &Params<'_>) -> Result<Value, RpcError> {
        let hash = p.fixed::<32>(0, "hash")?;
        let found = self
            .node
            .execution
            .transaction(hash.into())
            .await
            .map_err(RpcError::internal)?;
        Ok(found.map_or(Value::Null, |t| hex_value(&t.raw)))
    }

    pub(super) async fn raw_transaction_at(&self, method: &str, p: &Params<'_>) -> Result<Value, RpcError> {
        let index = p
            .get(1)
            .and_then(number)
            .ok_or_else(|| RpcError::field("index", "a number", p.get(1).map_or("nothing".into(), Value::to_string)))?;
        let block = if method.contains("ByBlockHash") {
            self.node
                .execution
                .block(B256::from(p.fixed::<32>(0, "blockHash")?))
                .await
        } else {
            self.node.execution.block(self.block_number(p, 0)?).await
        };
        let block = block.map_err(RpcError::internal)?;
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        Ok(block
            .and_then(|b| b.raw_transaction(index))
            .map_or(Value::Null, hex_value))
    }

    pub(super) async fn header(&self, method: &str, p: &Params<'_>) -> Result<Value, RpcError> {
        p.at_most(1)?;
        let block_method = method.replace("Header", "Block");
        let id = p
            .get(0)
            .cloned()
            .ok_or_else(|| RpcError::field("block", "a hash, number or tag", "nothing"))?;
        let mut block = self.forward(&block_method, vec![id, Value::Bool(false)]).await?;
        if let Some(object) = block.as_object_mut() {
            BODY_MEMBERS.iter().for_each(|member| drop(object.remove(*member)));
        }
        Ok(block)
    }

    pub(super) async fn uncle_count(&self, method: &str, p: &Params<'_>) -> Result<Value, RpcError> {
        let block_method = if method.ends_with("Hash") {
            "eth_getBlockByHash"
        } else {
            "eth_getBlockByNumber"
        };
        let id = p
            .get(0)
            .cloned()
            .ok_or_else(|| RpcError::field("block", "a hash, number or tag", "nothing"))?;
        let block = self.forward(block_method, vec![id, Value::Bool(false)]).await?;
        Ok(if block.is_null() { Value::Null } else { quantity(0) })
    }

    /// A block number or tag; every tag but `earliest` is the newest finalized block, as nothing else is public.
    pub(super) fn block_number(&self, p: &Params<'_>, index: usize) -> Result<u64, RpcError> {
        self.resolve(p.get(index), "block")
    }

    fn resolve(&self, value: Option<&Value>, name: &str) -> Result<u64, RpcError> {
        match value {
            None => Ok(self.node.execution.head().number),
            Some(Value::String(tag)) if matches!(tag.as_str(), "latest" | "pending" | "safe" | "finalized") => {
                Ok(self.node.execution.head().number)
            }
            Some(Value::String(tag)) if tag == "earliest" => Ok(0),
            Some(value) => {
                number(value).ok_or_else(|| RpcError::field(name, "a block number or tag", value.to_string()))
            }
        }
    }

    /// `eth_getLogs` with a bounded range.
    pub(super) async fn get_logs(&self, p: &Params<'_>) -> Result<Value, RpcError> {
        p.at_most(1)?;
        let criteria = p.get(0).cloned().unwrap_or_else(|| json!({}));
        self.logs(criteria).await
    }

    async fn logs(&self, mut criteria: Value) -> Result<Value, RpcError> {
        super::logs::Criteria::parse(Some(&criteria))?;
        let Some(object) = criteria.as_object_mut() else {
            return Err(RpcError::field("filter", "an object", "another JSON type"));
        };
        object.retain(|_, v| !v.is_null());
        if !object.contains_key("blockHash") {
            let from = self.resolve(object.get("fromBlock"), "fromBlock")?;
            let to = self
                .resolve(object.get("toBlock"), "toBlock")?
                .min(self.node.execution.head().number);
            if from > to {
                return Ok(json!([]));
            }
            let most = self.node.limits.log_range;
            if to - from >= most {
                let got = format!("{} blocks", to - from + 1);
                return Err(RpcError::with_field(
                    super::message::LIMIT,
                    "block range too large",
                    "fromBlock",
                    format!("at most {most} blocks"),
                    got,
                ));
            }
            object.insert("fromBlock".into(), quantity(from));
            object.insert("toBlock".into(), quantity(to));
        }
        self.forward("eth_getLogs", vec![criteria]).await
    }

    pub(super) async fn new_log_filter(&self, p: &Params<'_>) -> Result<Value, RpcError> {
        p.at_most(1)?;
        let criteria = p.get(0).cloned().unwrap_or_else(|| json!({}));
        super::logs::Criteria::parse(Some(&criteria))?;
        if criteria.get("blockHash").is_some_and(|v| !v.is_null()) {
            return Err(RpcError::field(
                "blockHash",
                "a block range: a filter moves forward",
                "one block",
            ));
        }
        for bound in ["fromBlock", "toBlock"] {
            self.resolve(criteria.get(bound).filter(|v| !v.is_null()), bound)?;
        }
        self.new_filter(Kind::Logs(Box::new(criteria)))
    }

    pub(super) fn new_filter(&self, kind: Kind) -> Result<Value, RpcError> {
        let id = random_id()?;
        let head = self.node.execution.head().number;
        self.filters().add(id, kind, head, Instant::now()).map(quantity)
    }

    pub(super) fn uninstall_filter(&self, p: &Params<'_>) -> Result<Value, RpcError> {
        let id = filter_id(p)?;
        Ok(Value::Bool(self.filters().remove(id)))
    }

    pub(super) async fn filter_changes(&self, p: &Params<'_>) -> Result<Value, RpcError> {
        let (id, head) = (filter_id(p)?, self.node.execution.head().number);
        let poll = self
            .filters()
            .poll(id, head, self.node.limits.log_range, Instant::now())?;
        match poll {
            Poll::Pending(hashes) => Ok(hashes.into_iter().map(hex_value).collect()),
            Poll::Blocks { from, to } => {
                let mut hashes = Vec::new();
                for number in from..=to {
                    let block = self.node.execution.block(number).await.map_err(RpcError::internal)?;
                    hashes.extend(block.map(|b| hex_value(b.hash())));
                }
                Ok(Value::Array(hashes))
            }
            Poll::Logs { criteria, from, to } => {
                let mut criteria = *criteria;
                // a filter for a past range has no news
                let from = from.max(criteria.get("fromBlock").and_then(number).unwrap_or(0));
                let to = criteria.get("toBlock").and_then(number).map_or(to, |last| last.min(to));
                if from > to {
                    return Ok(json!([]));
                }
                if let Some(object) = criteria.as_object_mut() {
                    object.insert("fromBlock".into(), quantity(from));
                    object.insert("toBlock".into(), quantity(to));
                }
                self.logs(criteria).await
            }
        }
    }

    pub(super) async fn filter_logs(&self, p: &Params<'_>) -> Result<Value, RpcError> {
        let id = filter_id(p)?;
        let criteria = self.filters().criteria(id, Instant::now())?;
        self.logs(criteria).await
    }
}

fn filter_id(p: &Params<'_>) -> Result<u64, RpcError> {
    p.at_most(1)?;
    let value = p
        .get(0)
        .ok_or_else(|| RpcError::field("filter", "a filter id", "nothing"))?;
    number(value).ok_or_else(|| RpcError::field("filter", "a filter id", value.to_string()))
}

/// Ids can not be guessed, so that clients do not remove each other's filters.
pub(super) fn random_id() -> Result<u64, RpcError> {
    let bytes = B256::try_random().map_err(|_| RpcError::new(INTERNAL, "no randomness on this machine"))?;
    let mut id = [0; 8];
    id.copy_from_slice(&bytes[..8]);
    Ok(u64::from_be_bytes(id) | 1)
}
