//! Looks at every node: is it the one that is registered, and what does it serve?

use crate::{
    nodes::{Listed, MAX_MODELS, Node},
    state::State,
};
use futures::StreamExt as _;
use serde_json::Value;
use std::{sync::Arc, time::Duration};

/// Nodes that are looked at at the same time.
const AT_ONCE: usize = 16;
/// Time for one question.
const WITHIN: Duration = Duration::from_secs(5);
const MAX_HEALTH: usize = 1 << 20;
const MAX_LIST: usize = 4 << 20;
/// Longest name of a model.
const MAX_NAME: usize = 256;
/// Tokens of the request by which prices are compared: prompt and answer.
const TYPICAL: (f64, f64) = (1_000.0, 500.0);

/// Looks at all nodes for ever, and at once when the set of nodes may have changed.
pub(crate) async fn run(state: Arc<State>) {
    let every = Duration::from_secs(state.config.limits.probe_seconds);
    loop {
        all(&state).await;
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = state.look_again.notified() => {}
        }
    }
}

async fn all(state: &State) {
    let nodes = state.nodes.all();
    futures::stream::iter(&nodes)
        .for_each_concurrent(AT_ONCE, |node| async move {
            let found = one(state, node).await;
            match found {
                Ok(models) => node.looked(Some(models)),
                Err(reason) => {
                    tracing::debug!(node = %node.id(), reason, "a node is down");
                    node.looked(None);
                }
            }
        })
        .await;
    let up = nodes.iter().filter(|node| node.is_up()).count();
    let parked = nodes.iter().filter(|node| node.is_parked()).count();
    state.metrics.nodes(up, nodes.len() - up, parked);
}

async fn one(state: &State, node: &Node) -> Result<Vec<Listed>, String> {
    let health = state.outbound.get(&node.url("/health"), MAX_HEALTH, WITHIN).await?;
    let health: Value = serde_json::from_slice(&health).map_err(|error| error.to_string())?;
    // Somebody may register the URL of another node.
    let claimed = health
        .get("node_id")
        .and_then(Value::as_str)
        .and_then(|id| id.parse().ok());
    if claimed != Some(node.id()) {
        return Err("the endpoint belongs to another node".into());
    }
    let list = state.outbound.get(&node.url("/v1/models"), MAX_LIST, WITHIN).await?;
    let list: Value = serde_json::from_slice(&list).map_err(|error| error.to_string())?;
    let entries = list
        .get("data")
        .and_then(Value::as_array)
        .ok_or("/v1/models has no data")?;
    Ok(entries.iter().take(MAX_MODELS).filter_map(listed).collect())
}

fn listed(entry: &Value) -> Option<Listed> {
    let name = entry
        .get("id")?
        .as_str()
        .filter(|name| (1..=MAX_NAME).contains(&name.len()))?;
    Some(Listed {
        name: name.to_owned(),
        root: entry.get("root").and_then(Value::as_str).map(str::to_owned),
        price: entry.get("price").and_then(price),
        entry: entry.clone(),
    })
}

/// Price of a typical request in wei.
fn price(price: &Value) -> Option<f64> {
    let part = |name: &str| -> Option<f64> {
        let part = price.get(name)?;
        let number = part.as_str().map_or_else(|| part.as_f64(), |text| text.parse().ok())?;
        (number.is_finite() && number >= 0.0).then_some(number)
    };
    let (prompt, answer) = TYPICAL;
    Some(part("per_call")? + (part("per_mtok_in")? * prompt + part("per_mtok_out")? * answer) / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn prices_of_entries() {
        let of = |value: Value| listed(&json!({"id": "a/b", "price": value})).unwrap().price;
        assert_eq!(
            of(json!({"per_call": "100", "per_mtok_in": "2000", "per_mtok_out": "4000"})),
            Some(104.0)
        );
        assert_eq!(
            of(json!({"per_call": 5, "per_mtok_in": 0, "per_mtok_out": 0})),
            Some(5.0)
        );
        for bad in [
            json!(null),
            json!({}),
            json!({"per_call": "-1", "per_mtok_in": "0", "per_mtok_out": "0"}),
            json!({"per_call": "NaN", "per_mtok_in": "0", "per_mtok_out": "0"}),
        ] {
            assert_eq!(of(bad), None);
        }
        assert!(
            listed(&json!({"id": ""})).is_none() && listed(&json!({"id": 5})).is_none() && listed(&json!([])).is_none()
        );
    }
}
