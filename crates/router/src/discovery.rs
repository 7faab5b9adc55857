//! Which nodes there are: the registry of the chain, read from full nodes.
//!
//! What full nodes say decides where requests go, and nothing else: payments name a node by its deposit address, which is
//! computed here, and receipts are checked by clients.

use crate::{
    address::base_url,
    config::{ConfigError, RouterConfig},
    nodes::Registered,
    state::State,
};
use alloy_primitives::{B256, Bytes, U64};
use alloy_sol_types::{SolCall, SolEvent as _};
use futures::{StreamExt as _, TryStreamExt as _};
use opg_client::{Rpc, RpcError};
use opg_contracts::{NodeRegistry, addresses};
use opg_primitives::ids::NodeId;
use serde::Deserialize;
use serde_json::json;
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// Blocks whose events are asked for at once.
const RANGE: u64 = 5_000;
/// Ranges of one look; the next one goes on.
const RANGES: u64 = 40;
/// Most ids that are remembered. Every one cost its registrant the minimum bond.
const MAX_IDS: usize = 65_536;
/// Entries that are read at the same time.
const AT_ONCE: usize = 8;

/// Ids seen so far.
#[derive(Debug)]
pub(crate) struct Discovery {
    rpc: Rpc,
    chain_id: u64,
    ids: BTreeSet<NodeId>,
    next_block: u64,
    /// The chain's first block after genesis, to notice another chain at the same address.
    anchor: Option<B256>,
}

/// Why a look at the registry failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiscoveryError {
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error("the full node is of chain {got}, expected {expected}")]
    Chain { expected: u64, got: u64 },
    #[error("the full node's answer to {what} is not understood")]
    Shape { what: &'static str },
}

#[derive(Debug, Deserialize)]
struct Log {
    topics: Vec<B256>,
}

#[derive(Debug, Deserialize)]
struct Header {
    hash: B256,
}

impl Discovery {
    pub(crate) fn new(config: &RouterConfig, http: reqwest::Client) -> Result<Self, ConfigError> {
        let mut ids: BTreeSet<NodeId> = config.nodes.iter().map(|node| node.id).collect();
        if let Some(path) = &config.genesis {
            let genesis = opg_client::load_genesis(path).map_err(|error| ConfigError::Value {
                field: "genesis",
                problem: error.to_string(),
            })?;
            if genesis.chain_id != config.chain_id {
                return Err(ConfigError::Value {
                    field: "genesis",
                    problem: format!("is of chain {}, chain_id is {}", genesis.chain_id, config.chain_id),
                });
            }
            ids.extend(genesis.nodes.iter().map(|node| NodeId(node.node_id())));
        }
        Ok(Self {
            rpc: Rpc::new(http, config.rpc.clone()),
            chain_id: config.chain_id,
            ids,
            next_block: 0,
            anchor: None,
        })
    }

    /// The nodes that may serve now.
    pub(crate) async fn look(&mut self, config: &RouterConfig) -> Result<Vec<Registered>, DiscoveryError> {
        let mut found = if self.rpc.urls().is_empty() {
            Vec::new()
        } else {
            self.same_chain().await?;
            self.new_ids().await?;
            self.entries().await?
        };
        for node in &config.nodes {
            if let Some(url) = &node.url {
                let bond = found.iter().find(|r| r.id == node.id).map_or(0, |r| r.bond);
                found.retain(|r| r.id != node.id);
                found.push(Registered {
                    id: node.id,
                    url: url.clone(),
                    bond,
                });
            }
        }
        found.retain_mut(|node| match base_url(&node.url, config.private_endpoints) {
            Ok(url) => {
                node.url = url;
                true
            }
            Err(problem) => {
                tracing::debug!(node = %node.id, problem, "endpoint is not used");
                false
            }
        });
        found.sort_by_key(|node| (std::cmp::Reverse(node.bond), node.id));
        found.truncate(config.limits.nodes);
        Ok(found)
    }

    async fn same_chain(&mut self) -> Result<(), DiscoveryError> {
        let got: U64 = self.rpc.call("eth_chainId", json!([])).await?;
        let got: u64 = got.to();
        if got != self.chain_id {
            return Err(DiscoveryError::Chain {
                expected: self.chain_id,
                got,
            });
        }
        let first: Option<Header> = self.rpc.call("eth_getBlockByNumber", json!(["0x1", false])).await?;
        let first = first.map(|header| header.hash);
        if self.anchor.is_some() && first != self.anchor {
            tracing::warn!("the full node is of another chain with the same id; its registry is read anew");
            self.next_block = 0;
        }
        self.anchor = first;
        Ok(())
    }

    /// Ids of registrations since the last look.
    async fn new_ids(&mut self) -> Result<(), DiscoveryError> {
        let head: U64 = self.rpc.call("eth_blockNumber", json!([])).await?;
        let head: u64 = head.to();
        for _ in 0..RANGES {
            if self.next_block > head {
                break;
            }
            let to = head.min(self.next_block.saturating_add(RANGE - 1));
            let filter = json!([{
                "address": addresses::NODE_REGISTRY,
                "topics": [NodeRegistry::NodeRegistered::SIGNATURE_HASH],
                "fromBlock": U64::from(self.next_block),
                "toBlock": U64::from(to),
            }]);
            let logs: Vec<Log> = self.rpc.call("eth_getLogs", filter).await?;
            for log in logs {
                let id = log.topics.get(1).ok_or(DiscoveryError::Shape { what: "eth_getLogs" })?;
                if self.ids.len() < MAX_IDS {
                    self.ids.insert(NodeId(*id));
                }
            }
            self.next_block = to + 1;
        }
        Ok(())
    }

    /// Entries of nodes that are active and have the bond.
    async fn entries(&self) -> Result<Vec<Registered>, DiscoveryError> {
        let least = self.view(NodeRegistry::minBondCall {}).await?;
        let entries = futures::stream::iter(self.ids.iter().copied())
            .map(|id| async move {
                let entry = self.view(NodeRegistry::nodesCall { nodeId: id.0 }).await?;
                let active = !entry.operator.is_zero() && entry.inactiveAt.is_zero() && entry.bond >= least;
                Ok::<_, DiscoveryError>(active.then_some(Registered {
                    id,
                    url: entry.endpoint,
                    bond: entry.bond,
                }))
            })
            .buffer_unordered(AT_ONCE)
            .try_filter_map(|entry| async { Ok(entry) });
        entries.try_collect().await
    }

    async fn view<C: SolCall>(&self, call: C) -> Result<C::Return, DiscoveryError> {
        let request = json!({"to": addresses::NODE_REGISTRY, "input": Bytes::from(call.abi_encode())});
        let data: Bytes = self.rpc.call("eth_call", (request, "latest")).await?;
        C::abi_decode_returns(&data).map_err(|_| DiscoveryError::Shape { what: "eth_call" })
    }
}

/// Looks at the registry for ever.
pub(crate) async fn run(state: Arc<State>) {
    let every = Duration::from_secs(state.config.limits.discovery_seconds);
    let mut failures = 0u32;
    loop {
        let looked = state.discovery.lock().await.look(&state.config).await;
        match looked {
            Ok(nodes) => {
                failures = 0;
                state.nodes.set(nodes);
                state.look_again.notify_one();
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                state.metrics.discovery_failures.inc();
                tracing::warn!(%error, failures, "the registry cannot be read; the nodes known so far are kept");
            }
        }
        // Full nodes that are just starting are asked again soon.
        let wait = if failures > 0 {
            every.min(Duration::from_secs(2))
        } else {
            every
        };
        tokio::time::sleep(wait).await;
    }
}
