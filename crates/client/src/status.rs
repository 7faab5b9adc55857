//! What of a network runs, and how far it is.

use alloy_primitives::{B256, U64};
use serde::Serialize;
use serde_json::json;

use crate::{Client, rpc::root_cause};

/// One full node.
#[derive(Debug, Clone, Serialize)]
pub struct EndpointStatus {
    /// JSON-RPC URL.
    pub url: String,
    /// Newest (final) block; absent if the node does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub height: Option<u64>,
    /// Connected validators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub peers: Option<u64>,
    /// Why it does not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// One inference node.
#[derive(Debug, Clone, Serialize)]
pub struct NodeStatus {
    /// Node id.
    pub id: B256,
    /// Base URL.
    pub url: String,
    /// Whether `/health` says yes.
    pub healthy: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The model hub.
#[derive(Debug, Clone, Serialize)]
pub struct HubStatus {
    /// Base URL.
    pub url: String,
    /// Whether `/health` says yes.
    pub healthy: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Client {
    /// Why a service is not healthy; `None` if it is.
    async fn ill(&self, url: &str) -> Option<String> {
        let asked = self.http.get(format!("{url}/health")).timeout(crate::HEALTH_TIMEOUT);
        match asked.send().await {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("HTTP {}", answer.status())),
            Err(error) => Some(root_cause(&error)),
        }
    }

    /// Asks the model hub for its health; `None` if the network has none. Never fails.
    pub async fn hub(&self) -> Option<HubStatus> {
        let url = self.network().file.hub.clone()?;
        let error = self.ill(&url).await;
        Some(HubStatus {
            url,
            healthy: error.is_none(),
            error,
        })
    }

    /// Asks every full node how far it is. Never fails: what does not answer is listed as such.
    pub async fn full_nodes(&self) -> Vec<EndpointStatus> {
        let ask = |index: usize| async move {
            let url = self.rpc().urls().get(index).cloned().unwrap_or_default();
            match self.rpc().call_at::<_, U64>(index, "eth_blockNumber", &json!([])).await {
                Ok(height) => {
                    let peers = self.rpc().call_at::<_, U64>(index, "net_peerCount", &json!([])).await;
                    EndpointStatus {
                        url,
                        height: Some(height.to()),
                        peers: peers.ok().map(|peers| peers.to()),
                        error: None,
                    }
                }
                Err(error) => EndpointStatus {
                    url,
                    height: None,
                    peers: None,
                    error: Some(error.to_string()),
                },
            }
        };
        futures::future::join_all((0..self.rpc().urls().len()).map(ask)).await
    }

    /// Asks every inference node for its health. Never fails.
    pub async fn inference_nodes(&self) -> Vec<NodeStatus> {
        let nodes = self.network().file.nodes.iter().filter(|node| node.role == "inference");
        futures::future::join_all(nodes.map(|node| async move {
            let error = self.ill(&node.url).await;
            NodeStatus {
                id: node.id,
                url: node.url.clone(),
                healthy: error.is_none(),
                error,
            }
        }))
        .await
    }
}
