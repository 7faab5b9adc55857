//! `/v1/models`: what all nodes together serve.

use crate::{error::ApiError, state::State};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Models of all nodes that are up, by name; each once per content root, with the nodes that serve it and their prices.
/// Everything else in an entry is what the first of these nodes says.
pub(crate) fn list(state: &State) -> Vec<Value> {
    let mut merged: BTreeMap<(String, Option<String>), (Value, Vec<Value>)> = BTreeMap::new();
    for node in state.nodes.all().into_iter().filter(|node| node.is_up()) {
        for model in node.models() {
            let offer = json!({"node_id": node.id(), "price": model.entry.get("price")});
            let (_, offers) = merged
                .entry((model.name, model.root))
                .or_insert_with(|| (model.entry, Vec::new()));
            offers.push(offer);
        }
    }
    merged
        .into_values()
        .map(|(mut entry, offers)| {
            if let Some(entry) = entry.as_object_mut() {
                entry.insert("nodes".into(), offers.into());
            }
            entry
        })
        .collect()
}

/// One model, by name or content root.
pub(crate) fn one(state: &State, name: &str) -> Result<Value, ApiError> {
    let is = |entry: &Value, member: &str| entry.get(member).and_then(Value::as_str) == Some(name);
    list(state)
        .into_iter()
        .find(|entry| is(entry, "id") || is(entry, "root"))
        .ok_or_else(|| {
            let shown: String = name.chars().take(120).collect();
            ApiError::not_found("model_not_found", format!("no node serves {shown:?}; see /v1/models")).param("model")
        })
}
