//! Log criteria of `eth_subscribe("logs")` and log objects of finalized blocks.

use super::message::{RpcError, hex_value, quantity};
use alloy_primitives::{Address, B256};
use opg_execution::{FinalizedBlock, Log};
use serde_json::{Map, Value, json};

/// Addresses, and alternatives in one topic position.
const MAX_ALTERNATIVES: usize = 1_024;

/// Parsed log criteria. Empty lists match everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Criteria {
    addresses: Vec<Address>,
    topics: Vec<Vec<B256>>,
}

impl Criteria {
    /// Parses `{address?, topics?}`; other members are ignored, as wallets send some.
    ///
    /// # Errors
    /// A wrong member, by name.
    pub(crate) fn parse(value: Option<&Value>) -> Result<Self, RpcError> {
        let Some(value) = value else { return Ok(Self::default()) };
        let object = value
            .as_object()
            .ok_or_else(|| RpcError::field("filter", "an object", value.to_string()))?;
        let addresses = many(object, "address")?;
        let topics = match object.get("topics") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(positions)) if positions.len() <= 4 => {
                positions.iter().map(|p| list(p, "topics")).collect::<Result<_, _>>()?
            }
            Some(other) => {
                return Err(RpcError::field(
                    "topics",
                    "an array of at most 4 positions",
                    other.to_string(),
                ));
            }
        };
        Ok(Self { addresses, topics })
    }

    /// Whether a log meets the criteria.
    pub(crate) fn matches(&self, log: &Log) -> bool {
        (self.addresses.is_empty() || self.addresses.contains(&log.address))
            && self.topics.len() <= log.topics.len()
            && self
                .topics
                .iter()
                .zip(&log.topics)
                .all(|(any_of, topic)| any_of.is_empty() || any_of.contains(topic))
    }
}

fn many<T: std::str::FromStr>(object: &Map<String, Value>, field: &str) -> Result<Vec<T>, RpcError> {
    object.get(field).map_or(Ok(Vec::new()), |v| list(v, field))
}

/// One value, or an array of alternatives, or null for "any".
fn list<T: std::str::FromStr>(value: &Value, field: &str) -> Result<Vec<T>, RpcError> {
    let one = |v: &Value| {
        let text = v.as_str().filter(|s| s.starts_with("0x"));
        text.and_then(|s| s.parse().ok())
            .ok_or_else(|| RpcError::field(field, "0x hex of the right length", v.to_string()))
    };
    match value {
        Value::Null => Ok(Vec::new()),
        // a null among alternatives makes the position a wildcard, as in geth
        Value::Array(items) if items.iter().any(Value::is_null) => Ok(Vec::new()),
        Value::Array(items) if items.len() <= MAX_ALTERNATIVES => items.iter().map(one).collect(),
        Value::Array(items) => Err(RpcError::field(
            field,
            format!("at most {MAX_ALTERNATIVES} values"),
            items.len().to_string(),
        )),
        single => Ok(vec![one(single)?]),
    }
}

/// The log objects of a block that meet the criteria.
pub(crate) fn matching(block: &FinalizedBlock, criteria: &Criteria) -> Vec<Value> {
    let mut out = Vec::new();
    let mut log_index = 0u64;
    for receipt in &block.receipts {
        for log in &receipt.logs {
            if criteria.matches(log) {
                out.push(json!({
                    "address": format!("{:#x}", log.address),
                    "topics": log.topics.iter().map(|t| format!("{t:#x}")).collect::<Vec<_>>(),
                    "data": hex_value(&log.data),
                    "blockNumber": quantity(block.block.number()),
                    "blockTimestamp": quantity(block.block.timestamp()),
                    "blockHash": format!("{:#x}", block.block.hash()),
                    "transactionHash": format!("{:#x}", receipt.transaction_hash),
                    "transactionIndex": quantity(receipt.index),
                    "logIndex": quantity(log_index),
                    "removed": false,
                }));
            }
            log_index += 1;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(address: u8, topics: &[u8]) -> Log {
        Log {
            address: Address::repeat_byte(address),
            topics: topics.iter().map(|t| B256::repeat_byte(*t)).collect(),
            data: Default::default(),
        }
    }

    #[test]
    fn criteria_match_like_eth_get_logs() {
        let a = format!("{:#x}", Address::repeat_byte(1));
        let t = |b: u8| format!("{:#x}", B256::repeat_byte(b));
        let all = Criteria::parse(None).unwrap();
        assert!(all.matches(&log(9, &[])));
        let by_address = Criteria::parse(Some(&json!({ "address": a }))).unwrap();
        assert!(by_address.matches(&log(1, &[5])) && !by_address.matches(&log(2, &[5])));
        let topics = Criteria::parse(Some(
            &json!({ "address": [a, format!("{:#x}", Address::repeat_byte(2))], "topics": [null, [t(3), t(4)]] }),
        ))
        .unwrap();
        assert!(topics.matches(&log(2, &[7, 4])));
        assert!(!topics.matches(&log(2, &[7])), "fewer topics than positions");
        assert!(!topics.matches(&log(2, &[7, 5])));
        assert!(!topics.matches(&log(3, &[7, 4])));
        let wildcard = Criteria::parse(Some(&json!({ "topics": [[t(3), null]] }))).unwrap();
        assert!(wildcard.matches(&log(3, &[9])));
    }

    #[test]
    fn bad_criteria_name_the_field() {
        for (value, field) in [
            (json!("x"), "filter"),
            (json!({ "address": "0x12" }), "address"),
            (json!({ "address": 5 }), "address"),
            (json!({ "topics": ["0x"] }), "topics"),
            (json!({ "topics": [null, null, null, null, null] }), "topics"),
        ] {
            assert!(
                Criteria::parse(Some(&value)).unwrap_err().message.contains(field),
                "{value}"
            );
        }
    }
}
