//! Which method goes where.

use super::{
    Front,
    message::{METHOD_NOT_FOUND, Params, RpcError, UNSUPPORTED},
};
use opg_execution::RpcFailure;
use serde_json::{Value, json};
use std::sync::Arc;

/// Methods that ethrex answers as they are.
const FORWARDED: &[&str] = &[
    "eth_blobBaseFee",
    "eth_blockNumber",
    "eth_call",
    "eth_chainId",
    "eth_config",
    "eth_createAccessList",
    "eth_estimateGas",
    "eth_feeHistory",
    "eth_gasPrice",
    "eth_getBalance",
    "eth_getBlockByHash",
    "eth_getBlockByNumber",
    "eth_getBlockReceipts",
    "eth_getBlockTransactionCountByHash",
    "eth_getBlockTransactionCountByNumber",
    "eth_getCode",
    "eth_getProof",
    "eth_getStorageAt",
    "eth_getTransactionByBlockHashAndIndex",
    "eth_getTransactionByBlockNumberAndIndex",
    "eth_getTransactionCount",
    "eth_getTransactionReceipt",
    "eth_maxPriorityFeePerGas",
    "eth_syncing",
    "debug_chainConfig",
    "debug_getRawBlock",
    "debug_getRawHeader",
    "debug_getRawReceipts",
    "debug_getRawTransaction",
    "debug_traceBlockByNumber",
    "debug_traceTransaction",
    "net_version",
    "txpool_content",
    "txpool_contentFrom",
    "txpool_inspect",
    "txpool_status",
    "web3_clientVersion",
];

/// Storage keys of one `eth_getProof` or `og_getStateProof`.
pub(super) const MAX_PROOF_SLOTS: usize = 256;

impl Front {
    pub(super) async fn dispatch(self: &Arc<Self>, method: &str, params: Vec<Value>) -> Result<Value, RpcError> {
        let p = Params(&params);
        match method {
            "og_submitReceipt" => self.submit_receipt(&p).await,
            "og_getReceipt" => self.get_receipt(&p).await,
            "og_getInclusionProof" => self.get_inclusion_proof(&p).await,
            "og_getCertificate" => self.get_certificate(&p).await,
            "og_getCheckpoint" => self.get_checkpoint(&p).await,
            "og_getHandovers" => self.get_handovers(&p).await,
            "og_getFaults" => self.get_faults(&p).await,
            "og_judgeFault" => self.judge_fault(&p).await,
            "og_getFaultArtefact" => self.get_fault_artefact(&p).await,
            "og_getStateProof" => self.get_state_proof(&p).await,
            "og_getNodeStats" => self.get_node_stats(&p).await,
            "og_status" => self.status(&p).await,

            "eth_sendRawTransaction" => self.send_raw(&p).await,
            "eth_sendRawTransactionSync" => self.send_raw_sync(&p).await,
            "eth_getTransactionByHash" => self.transaction_by_hash(&p).await,
            "eth_getRawTransactionByHash" => self.raw_transaction_by_hash(&p).await,
            "eth_getRawTransactionByBlockHashAndIndex" | "eth_getRawTransactionByBlockNumberAndIndex" => {
                self.raw_transaction_at(method, &p).await
            }
            "eth_getHeaderByHash" | "eth_getHeaderByNumber" => self.header(method, &p).await,
            "eth_getUncleCountByBlockHash" | "eth_getUncleCountByBlockNumber" => self.uncle_count(method, &p).await,
            "eth_getUncleByBlockHashAndIndex" | "eth_getUncleByBlockNumberAndIndex" => Ok(Value::Null),
            "eth_getLogs" => self.get_logs(&p).await,
            "eth_newFilter" => self.new_log_filter(&p).await,
            "eth_newBlockFilter" => self.new_filter(super::filters::Kind::Blocks),
            "eth_newPendingTransactionFilter" => self.new_filter(super::filters::Kind::Pending(Vec::new())),
            "eth_uninstallFilter" => self.uninstall_filter(&p),
            "eth_getFilterChanges" => self.filter_changes(&p).await,
            "eth_getFilterLogs" => self.filter_logs(&p).await,

            "eth_accounts" => Ok(json!([])),
            "eth_coinbase" => Ok(Value::String(format!("{:#x}", self.node.system_address))),
            "eth_mining" => Ok(Value::Bool(false)),
            "eth_hashrate" => Ok(Value::String("0x0".into())),
            "eth_protocolVersion" => Ok(Value::String("0x44".into())),
            "net_listening" => Ok(Value::Bool(true)),
            "net_peerCount" => Ok(super::message::quantity(self.peers())),
            "web3_sha3" => {
                let data = p.bytes(0, "data", self.node.limits.rpc_body)?;
                Ok(super::message::hex_value(opg_primitives::hash::keccak(&data)))
            }
            "rpc_modules" => Ok(
                json!({ "debug": "1.0", "eth": "1.0", "net": "1.0", "og": "1.0", "rpc": "1.0", "txpool": "1.0", "web3": "1.0" }),
            ),

            "eth_subscribe" | "eth_unsubscribe" => Err(RpcError::new(
                UNSUPPORTED,
                format!(
                    "{method} needs a WebSocket connection: connect to the same address with ws://, or poll with eth_newFilter"
                ),
            )),
            "eth_sendTransaction"
            | "eth_sign"
            | "eth_signTransaction"
            | "eth_signTypedData"
            | "eth_signTypedData_v3"
            | "eth_signTypedData_v4"
            | "personal_sign"
            | "personal_sendTransaction"
            | "personal_unlockAccount" => Err(RpcError::new(
                UNSUPPORTED,
                format!(
                    "{method} needs an account that this node does not hold: sign in the wallet and use eth_sendRawTransaction"
                ),
            )),
            "eth_simulateV1" | "debug_traceCall" | "eth_callMany" | "eth_getTransactionBySenderAndNonce" => {
                Err(RpcError::new(
                    UNSUPPORTED,
                    format!(
                        "{method} is not available on this node: use eth_call, eth_estimateGas or debug_traceTransaction"
                    ),
                ))
            }
            "eth_call" | "eth_estimateGas" | "eth_createAccessList" if p.get(2).is_some() || p.get(3).is_some() => {
                Err(RpcError::with_field(
                    UNSUPPORTED,
                    format!("{method} with a state or block override is not available on this node"),
                    "params[2]",
                    "at most two parameters",
                    "an override",
                ))
            }
            // ethrex takes at most two, and wallets send a null where there is no override
            "eth_call" | "eth_estimateGas" | "eth_createAccessList" => {
                self.forward(method, params.into_iter().take(2).collect()).await
            }
            "eth_getProof" => {
                self.check_proof_slots(&p)?;
                self.forward(method, params).await
            }
            _ if method.starts_with("trace_") => Err(RpcError::new(
                UNSUPPORTED,
                format!("{method} is not available on this node: use debug_traceTransaction"),
            )),
            _ if FORWARDED.contains(&method) => self.forward(method, params).await,
            _ => Err(RpcError::new(
                METHOD_NOT_FOUND,
                format!(
                    "method {} does not exist on this node",
                    super::message::clip(method.into())
                ),
            )),
        }
    }

    /// Asks ethrex.
    pub(super) async fn forward(&self, method: &str, params: Vec<Value>) -> Result<Value, RpcError> {
        let _permit = match method {
            "eth_call"
            | "eth_estimateGas"
            | "eth_createAccessList"
            | "debug_traceTransaction"
            | "debug_traceBlockByNumber" => Some(self.executing.acquire().await.map_err(RpcError::internal)?),
            _ => None,
        };
        self.node
            .execution
            .call(method, Value::Array(params))
            .await
            .map_err(failure)
    }

    pub(super) fn peers(&self) -> u64 {
        self.node.consensus.get().map_or(0, |c| c.stats().peers as u64)
    }

    fn check_proof_slots(&self, p: &Params<'_>) -> Result<(), RpcError> {
        match p.get(1) {
            Some(Value::Array(slots)) if slots.len() > MAX_PROOF_SLOTS => Err(RpcError::field(
                "storageKeys",
                format!("at most {MAX_PROOF_SLOTS}"),
                slots.len().to_string(),
            )),
            _ => Ok(()),
        }
    }
}

pub(super) fn failure(error: RpcFailure) -> RpcError {
    RpcError {
        code: i64::from(error.code),
        message: error.message,
        data: error.data,
    }
}
