//! `/v1/receipts/{id}`: a receipt is at the node that signed it.

use crate::{
    answer::deliver,
    error::ApiError,
    forward::{self, no_answer, send, unknown_node},
    headers,
    nodes::{Attempt, Node},
    state::State,
    upload::Passing,
};
use axum::{
    Json,
    body::Body,
    response::{IntoResponse as _, Response},
};
use http::{HeaderMap, Method, header};
use opg_primitives::ids::{NodeId, ReceiptId};
use serde_json::{Value, json};
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

/// Receipts whose node is remembered; the oldest go first.
const PLACES: usize = 100_000;

/// Which node gave which receipt.
#[derive(Debug, Default)]
pub(crate) struct Places(Mutex<Remembered>);

#[derive(Debug, Default)]
struct Remembered {
    nodes: HashMap<ReceiptId, NodeId>,
    order: VecDeque<ReceiptId>,
}

impl Places {
    /// Remembers a receipt's node. The first claim stays: a node that names a receipt of another one later gets neither
    /// its readers nor their secrets.
    pub(crate) fn claim(&self, receipt: ReceiptId, node: NodeId) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.nodes.contains_key(&receipt) {
            return;
        }
        if known.order.len() >= PLACES
            && let Some(oldest) = known.order.pop_front()
        {
            known.nodes.remove(&oldest);
        }
        known.order.push_back(receipt);
        known.nodes.insert(receipt, node);
    }

    fn of(&self, receipt: ReceiptId) -> Option<NodeId> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .nodes
            .get(&receipt)
            .copied()
    }
}

/// Forwards a question about a receipt; `tail` is empty or `/proof`.
pub(crate) async fn get(state: &Arc<State>, id: &str, tail: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
    let id: ReceiptId = id.parse().map_err(|error: opg_primitives::ids::IdError| {
        ApiError::bad_request("invalid_receipt_id", "id", error.to_string())
    })?;
    let asked = match forward::pinned(headers)? {
        Some(pinned) => Some(state.nodes.get(pinned).ok_or_else(unknown_node)?),
        None => state.places.of(id).and_then(|node| state.nodes.get(node)),
    };
    let path = format!("/v1/receipts/{id}{tail}");
    if let Some(node) = asked {
        return from_node(state, &node, &path, headers).await;
    }
    // The chain says whose receipt it is, once it is verified.
    let public = chain(state, "og_getReceipt", id).await?;
    let unknown = || {
        let message =
            format!("receipt {id} is not known here: name its node in X-OPG-Node, or wait until it is verified");
        ApiError::not_found("receipt_not_found", message).param("id")
    };
    if public.is_null() {
        return Err(unknown());
    }
    let signer = public
        .get("nodeId")
        .and_then(Value::as_str)
        .and_then(|text| text.parse().ok());
    if let Some(node) = signer
        .and_then(|signer| state.nodes.get(signer))
        .filter(|node| node.is_up())
    {
        return from_node(state, &node, &path, headers).await;
    }
    if !tail.is_empty() || headers.contains_key(header::AUTHORIZATION) {
        let message =
            "the node that signed this receipt cannot be reached; without Authorization, its public state is shown";
        return Err(ApiError::unavailable("node_unreachable", message));
    }
    // State and inclusion proof are anybody's (D11), also when the node is gone.
    let inclusion = chain(state, "og_getInclusionProof", id).await.unwrap_or(Value::Null);
    let mut answer = public;
    if let Some(object) = answer.as_object_mut() {
        object.insert("receipt_id".into(), json!(id));
        object.insert("inclusion".into(), inclusion);
    }
    Ok(Json(answer).into_response())
}

async fn chain(state: &State, method: &str, id: ReceiptId) -> Result<Value, ApiError> {
    use opg_client::RpcError;
    match state.rpc.call(method, json!([id])).await {
        Ok(value) => Ok(value),
        Err(RpcError::Refused { .. }) => Ok(Value::Null),
        Err(error) if state.rpc.urls().is_empty() => {
            tracing::debug!(%error, "no full node is configured");
            Ok(Value::Null)
        }
        Err(error) => {
            tracing::warn!(%error, "a receipt cannot be looked up");
            Err(ApiError::unavailable(
                "chain_unreachable",
                "no full node answers now; try again",
            ))
        }
    }
}

async fn from_node(
    state: &Arc<State>,
    node: &Arc<Node>,
    path: &str,
    headers: &HeaderMap,
) -> Result<Response, ApiError> {
    let attempt = Attempt::begin(node, &state.metrics, state.clock);
    let answer = send(state, node, Method::GET, path, headers::request(headers), Body::empty()).await;
    match answer {
        Ok(answer) => Ok(deliver(state, answer, attempt, Passing::default(), None)),
        Err(error) => Err(no_answer(node, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_claim_stays_and_memory_is_bounded() {
        let places = Places::default();
        let id = |n: u32| {
            ReceiptId({
                let mut bytes = [0; 32];
                bytes[..4].copy_from_slice(&n.to_be_bytes());
                bytes.into()
            })
        };
        let (honest, thief) = (NodeId([1; 32].into()), NodeId([2; 32].into()));
        places.claim(id(0), honest);
        places.claim(id(0), thief);
        assert_eq!(places.of(id(0)), Some(honest));
        for n in 1..=PLACES as u32 {
            places.claim(id(n), thief);
        }
        assert_eq!(places.of(id(0)), None);
        assert_eq!(places.0.lock().unwrap().nodes.len(), PLACES);
    }
}
