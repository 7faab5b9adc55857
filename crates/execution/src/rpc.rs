//! ethrex's JSON-RPC handlers, called in process.
//!
//! No listener is opened and no devp2p object exists: the handlers take a context whose fields are
//! public, and those that belong to devp2p are optional. Three methods that depend on the missing
//! parts are answered here, and those that could move the chain's head are refused.

use crate::{
    Execution,
    error::{ExecutionError, RpcFailure},
};
use alloy_primitives::Bytes;
use ethrex_blockchain::Blockchain;
use ethrex_common::H512;
use ethrex_p2p::types::{Node, NodeRecord};
use ethrex_rpc::{
    ClientVersion, GasTipEstimator, NodeData, RpcApiContext, RpcErrorMetadata, RpcNamespace, clean_outdated_filters,
    map_http_requests, utils::RpcRequest,
};
use ethrex_storage::Store;
use secp256k1::{PublicKey, SECP256K1, SecretKey};
use serde_json::{Value, json};
use std::{net::Ipv4Addr, sync::Arc, time::Duration};

/// Filters that nobody polled for this long are forgotten.
const FILTER_LIFETIME: Duration = Duration::from_secs(300);

/// Methods of allowed namespaces that would rewrite the chain.
const REFUSED: &[&str] = &["debug_setHead"];

const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_REQUEST: i32 = -32600;
const INVALID_PARAMS: i32 = -32602;
const INTERNAL: i32 = -32603;

/// Everything ethrex's handlers want to see.
pub(crate) struct RpcBackend {
    context: RpcApiContext,
}

impl RpcBackend {
    pub(crate) fn new(store: Store, chain: Arc<Blockchain>, gas_ceil: u64) -> Result<Self, ExecutionError> {
        let failed = |e: &dyn std::fmt::Display| ExecutionError::Client(format!("rpc context: {e}"));
        // The context names a devp2p node. None runs, so the key is a constant and signs nothing else.
        let key = SecretKey::from_byte_array(&[1; 32]).map_err(|e| failed(&e))?;
        let point = PublicKey::from_secret_key(SECP256K1, &key).serialize_uncompressed();
        let node = Node::new(Ipv4Addr::LOCALHOST.into(), 0, 0, H512::from_slice(&point[1..]));
        let record = NodeRecord::from_node(&node, 1, &key).map_err(|e| failed(&e))?;
        let [name, version, branch, commit, arch, rustc] = [
            "opg",
            env!("CARGO_PKG_VERSION"),
            "ethrex",
            "24.0.0",
            std::env::consts::ARCH,
            env!("CARGO_PKG_RUST_VERSION"),
        ]
        .map(String::from);
        let namespaces = [
            RpcNamespace::Eth,
            RpcNamespace::Net,
            RpcNamespace::Web3,
            RpcNamespace::Debug,
            RpcNamespace::Mempool,
        ];
        let context = RpcApiContext {
            storage: store,
            blockchain: chain,
            active_filters: Arc::default(),
            syncer: None,
            peer_handler: None,
            node_data: NodeData {
                jwt_secret: bytes::Bytes::new(),
                local_p2p_node: node,
                local_node_record: record,
                client_version: ClientVersion::new(name, version, branch, commit, arch, rustc),
                extra_data: bytes::Bytes::new(),
            },
            gas_tip_estimator: Arc::new(tokio::sync::Mutex::new(GasTipEstimator::new())),
            log_filter_handler: None,
            gas_ceil,
            // Blocks submitted by the Engine API go here. That API is not served, so nobody listens.
            block_worker_channel: tokio::sync::mpsc::unbounded_channel().0,
            ws: None,
            allowed_namespaces: Arc::new(namespaces.into_iter().collect()),
        };
        Ok(Self { context })
    }
}

impl Execution {
    /// Answers one JSON-RPC 2.0 request object with one response object. Batches are the caller's.
    ///
    /// Served: `eth_*`, `net_*`, `web3_*`, `debug_*` and `txpool_*` as far as ethrex has them.
    pub async fn rpc(&self, request: Value) -> Value {
        let id = request.get("id").cloned().unwrap_or(Value::Null);
        let answer = match request.get("method").and_then(Value::as_str) {
            Some(method) => {
                let params = request.get("params").cloned().unwrap_or_else(|| json!([]));
                self.call(method, params).await
            }
            None => Err(RpcFailure::new(INVALID_REQUEST, "request has no method")),
        };
        match answer {
            Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
            Err(error) => json!({ "jsonrpc": "2.0", "id": id, "error": error.to_json() }),
        }
    }

    /// Calls one method with an array of parameters and returns its result.
    ///
    /// # Errors
    /// The error object that a JSON-RPC client would get.
    pub async fn call(&self, method: &str, params: Value) -> Result<Value, RpcFailure> {
        let params = match params {
            Value::Array(params) => params,
            Value::Null => Vec::new(),
            _ => return Err(RpcFailure::new(INVALID_PARAMS, "params must be an array")),
        };
        match method {
            _ if REFUSED.contains(&method) => {
                return Err(RpcFailure::new(METHOD_NOT_FOUND, format!("Method not found: {method}")));
            }
            // consensus delivers blocks in order: what is answered is never behind what is final here
            "eth_syncing" => return Ok(Value::Bool(false)),
            "net_peerCount" => return Ok(json!("0x0")),
            "eth_sendRawTransaction" => return self.send_raw_transaction(&params).await,
            "eth_newFilter" => clean_outdated_filters(self.inner.rpc.context.active_filters.clone(), FILTER_LIFETIME),
            _ => {}
        }
        let context = self.inner.rpc.context.clone();
        let request = RpcRequest::new(method, Some(params));
        // Calls execute EVM code inside their future: polled on a blocking thread they do not hold up
        // the caller's runtime, and a panic in a handler ends there.
        let runtime = tokio::runtime::Handle::current();
        let served = tokio::task::spawn_blocking(move || {
            runtime.block_on(Box::pin(async { map_http_requests(&request, context).await }))
        });
        match served.await {
            Ok(answer) => answer.map_err(|error| {
                let error: RpcErrorMetadata = error.into();
                RpcFailure {
                    code: error.code,
                    message: error.message,
                    data: error.data.map(Value::String),
                }
            }),
            Err(error) => Err(RpcFailure::new(INTERNAL, format!("handler did not finish: {error}"))),
        }
    }

    async fn send_raw_transaction(&self, params: &[Value]) -> Result<Value, RpcFailure> {
        let [Value::String(hex)] = params else {
            return Err(RpcFailure::new(
                INVALID_PARAMS,
                "expected one parameter: the signed transaction in hex",
            ));
        };
        let raw: Bytes = hex
            .parse()
            .map_err(|e| RpcFailure::new(INVALID_PARAMS, format!("transaction is not hex: {e}")))?;
        match self.add_transaction(raw).await {
            Ok(hash) => Ok(json!(hash)),
            Err(rejection) => Err(RpcFailure::new(rejection.code(), rejection.to_string())),
        }
    }
}
