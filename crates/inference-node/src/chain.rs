//! What the node reads from the chain. None of it happens while a paid request waits, except for a payer seen for the first time.

use crate::{
    bond::Standing,
    rpc::{Rpc, RpcError, quantity},
    usd::Reading,
};
use alloy_primitives::{Address, B256, Bytes, U256};
use alloy_sol_types::SolCall;
use opg_contracts::{
    EvidenceRegistry, FeatureTiers, NodeRegistry, PriceOracle, addresses,
    evidence::{self, EvidenceRecord, PolicyEpoch},
    state::{self, KeysetRecord, ModelTerms, NodeRecord, Settlement, Spent, StateReader},
    x402::{self, ChannelStanding},
};
use opg_payments::{
    channels::{ChainState, Withdrawal},
    permit2::Permit,
};
use opg_primitives::money::{Amount, Price};
use serde_json::{Value, json};
use std::{collections::HashMap, sync::Arc};

/// Reader of the newest state through JSON-RPC.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    rpc: Arc<Rpc>,
}

/// Slots fetched so far for one reading.
#[derive(Default)]
struct Fetched(HashMap<(Address, U256), U256>);

/// A slot that has to be fetched before the reader can go on.
struct Missing(Address, U256);

impl StateReader for Fetched {
    type Error = Missing;

    fn storage(&self, address: Address, slot: U256) -> Result<U256, Missing> {
        self.0.get(&(address, slot)).copied().ok_or(Missing(address, slot))
    }
}

impl Chain {
    /// A reader over these full nodes.
    #[must_use]
    pub(crate) fn new(rpc: Arc<Rpc>) -> Self {
        Self { rpc }
    }

    /// The JSON-RPC client.
    #[must_use]
    pub(crate) const fn rpc(&self) -> &Arc<Rpc> {
        &self.rpc
    }

    /// Runs one of the tested storage readers of `opg-contracts`, fetching the slots it asks for at one block.
    async fn read<T>(&self, reader: impl Fn(&Fetched) -> Result<T, Missing>) -> Result<T, RpcError> {
        const METHOD: &str = "eth_getStorageAt";
        let mut fetched = Fetched::default();
        // A record of several slots is read at one block, so that it is never put together from two states.
        let mut block = None;
        loop {
            let Missing(address, slot) = match reader(&fetched) {
                Ok(value) => return Ok(value),
                Err(missing) => missing,
            };
            if fetched.0.len() == 1 && block.is_none() {
                block = Some(self.rpc.call("eth_blockNumber", json!([])).await?);
                fetched.0.clear();
                continue;
            }
            let at = block.clone().unwrap_or_else(|| json!("latest"));
            let value = self.rpc.call(METHOD, json!([address, B256::from(slot), at])).await?;
            let value = value
                .as_str()
                .and_then(|t| t.parse::<U256>().ok())
                .ok_or_else(|| RpcError::unexpected(METHOD, &value))?;
            fetched.0.insert((address, slot), value);
        }
    }

    /// A registered keyset.
    pub(crate) async fn keyset(&self, digest: B256) -> Result<Option<KeysetRecord>, RpcError> {
        self.read(|s| state::read_keyset(s, digest)).await
    }

    /// A registered node.
    pub(crate) async fn node(&self, node_id: B256) -> Result<Option<NodeRecord>, RpcError> {
        self.read(|s| state::read_node(s, node_id)).await
    }

    /// A registered node's bond, the least one, and the fees that it has to cover.
    pub(crate) async fn standing(&self, node_id: B256, now: u64) -> Result<Option<Standing>, RpcError> {
        let least = self
            .view(addresses::NODE_REGISTRY, NodeRegistry::minBondCall {})
            .await?;
        self.read(|s| {
            let Some(record) = state::read_node(s, node_id)? else {
                return Ok(None);
            };
            Ok(Some(Standing {
                bond: record.bond,
                least: Amount(least),
                fees: Amount(state::vault_recent_fees(s, node_id, now)?),
            }))
        })
        .await
    }

    /// This node's ask for a model.
    pub(crate) async fn ask(&self, node_id: B256, root: B256) -> Result<Price, RpcError> {
        self.read(|s| state::read_ask(s, node_id, root)).await
    }

    /// Terms of a model.
    pub(crate) async fn model(&self, root: B256) -> Result<Option<ModelTerms>, RpcError> {
        self.read(|s| state::read_model_terms(s, root)).await
    }

    /// Block of the commitment by which a model was registered; `None` if it is not.
    pub(crate) async fn model_committed(&self, root: B256) -> Result<Option<u64>, RpcError> {
        self.read(|s| state::read_model_committed(s, root)).await
    }

    /// Hash of the registration report of a model's program.
    pub(crate) async fn program(&self, root: B256, program: B256) -> Result<Option<B256>, RpcError> {
        self.read(|s| state::read_program(s, root, program)).await
    }

    /// Newest accepted evidence of a keyset: its identity, the record, and until when it counts, `None` if it is revoked.
    pub(crate) async fn evidence(&self, keyset: B256) -> Result<Option<(B256, EvidenceRecord, Option<u64>)>, RpcError> {
        let grace = self.evidence_grace().await?;
        self.read(|s| {
            let Some(id) = evidence::latest(s, keyset)? else {
                return Ok(None);
            };
            let Some(record) = evidence::read(s, id)? else {
                return Ok(None);
            };
            let until = evidence::valid_until(s, &record, grace)?;
            Ok(Some((id, record, until)))
        })
        .await
    }

    /// The evidence policy in force.
    pub(crate) async fn policy_epoch(&self) -> Result<PolicyEpoch, RpcError> {
        self.read(evidence::policy_epoch).await
    }

    /// Seconds for which evidence of an older policy stays good.
    async fn evidence_grace(&self) -> Result<u64, RpcError> {
        let grace = self.view(addresses::EVIDENCE_REGISTRY, EvidenceRegistry::graceCall {});
        Ok(grace.await?.to::<u64>())
    }

    /// What an account's OPG unlocks.
    pub(crate) async fn tier(&self, account: Address) -> Result<FeatureTiers::Tier, RpcError> {
        let call = FeatureTiers::tierOfCall { account };
        Ok(self.view(addresses::FEATURE_TIERS, call).await?.tier)
    }

    /// The endpoint that a node has registered.
    pub(crate) async fn endpoint(&self, node_id: B256) -> Result<String, RpcError> {
        let node = self.view(addresses::NODE_REGISTRY, NodeRegistry::nodesCall { nodeId: node_id });
        Ok(node.await?.endpoint)
    }

    /// Calls a view function.
    async fn view<C: SolCall>(&self, to: Address, call: C) -> Result<C::Return, RpcError> {
        const METHOD: &str = "eth_call";
        let found = self.simulate(Address::ZERO, to, &call.abi_encode()).await?;
        let data: Option<Bytes> = found.as_str().and_then(|text| text.parse().ok());
        data.and_then(|data| C::abi_decode_returns(&data).ok())
            .ok_or_else(|| RpcError::unexpected(METHOD, &found))
    }

    /// Whether, and for what, a permit was used.
    pub(crate) async fn permit_settlement(&self, permit: &Permit) -> Result<Settlement, RpcError> {
        self.read(|s| {
            let slot = x402::settlement_slot(permit.token, permit.from, permit.nonce);
            let value = s.storage(permit.witness.spender(), slot)?;
            if !value.is_zero() {
                return Ok(Settlement::Used(value.into()));
            }
            let word = x402::permit2_nonces_slot(permit.from, permit.nonce >> 8);
            let used = s.storage(addresses::PERMIT2, word)?;
            let spent = used.bit(usize::from(permit.nonce.byte(0)));
            Ok(if spent {
                Settlement::Cancelled
            } else {
                Settlement::Unused
            })
        })
        .await
    }

    /// A payment channel.
    pub(crate) async fn channel(&self, id: B256) -> Result<ChainState, RpcError> {
        self.read(|s| {
            let (channel, exit) = (x402::read_channel(s, id)?, x402::read_exit(s, id)?);
            Ok(ChainState {
                balance: Amount(channel.balance),
                total_claimed: Amount(channel.total_claimed),
                withdrawal: exit.initiated_at.map(|requested_at| Withdrawal {
                    amount: Amount(exit.amount),
                    requested_at,
                }),
                refund_nonce: U256::from(exit.refund_nonce),
            })
        })
        .await
    }

    /// A payment channel, and what the ledger knows of it.
    pub(crate) async fn channel_standing(&self, id: B256) -> Result<ChannelStanding, RpcError> {
        self.read(|s| x402::read_channel_standing(s, id)).await
    }

    /// Number and timestamp of the newest block.
    pub(crate) async fn head(&self) -> Result<(u64, u64), RpcError> {
        const METHOD: &str = "eth_getBlockByNumber";
        let block = self.rpc.call(METHOD, json!(["latest", false])).await?;
        Ok((
            quantity(METHOD, &block["number"])?,
            quantity(METHOD, &block["timestamp"])?,
        ))
    }

    /// The first indexed field of all logs of `address` with this first topic, in blocks `from..=to`.
    pub(crate) async fn indexed(
        &self,
        address: Address,
        topic: B256,
        (from, to): (u64, u64),
    ) -> Result<Vec<B256>, RpcError> {
        const METHOD: &str = "eth_getLogs";
        let filter = json!([{
            "address": address, "topics": [topic], "fromBlock": format!("0x{from:x}"), "toBlock": format!("0x{to:x}"),
        }]);
        let logs = self.rpc.call(METHOD, filter).await?;
        let logs = logs.as_array().ok_or_else(|| RpcError::unexpected(METHOD, &logs))?;
        let indexed = |log: &Value| {
            log["topics"][1]
                .as_str()
                .and_then(|text| text.parse().ok())
                .ok_or_else(|| RpcError::unexpected(METHOD, log))
        };
        logs.iter().map(indexed).collect()
    }

    /// Whether, and for what, an authorization was used.
    pub(crate) async fn settlement(&self, payer: Address, nonce: B256) -> Result<Settlement, RpcError> {
        self.read(|s| state::settlement(s, payer, nonce)).await
    }

    /// What the price oracle says of OPG.
    pub(crate) async fn oracle(&self) -> Result<Reading, RpcError> {
        let (latest, tripped) = futures::try_join!(
            self.view(addresses::PRICE_ORACLE, PriceOracle::latestCall {}),
            self.view(addresses::PRICE_ORACLE, PriceOracle::trippedCall {}),
        )?;
        Ok(Reading {
            price: latest._0,
            updated_at: latest._1.to::<u64>(),
            usable: latest._2,
            tripped,
        })
    }

    /// State of a payment in the ledger.
    pub(crate) async fn spent(&self, payment: B256) -> Result<Spent, RpcError> {
        self.read(|s| state::read_spent(s, payment)).await
    }

    /// OPG balance.
    pub(crate) async fn balance(&self, address: Address) -> Result<Amount, RpcError> {
        self.read(|s| state::opg_balance(s, address)).await
    }

    /// Whether the account has code: its signatures are checked by the chain (ERC-1271).
    pub(crate) async fn is_contract(&self, address: Address) -> Result<bool, RpcError> {
        const METHOD: &str = "eth_getCode";
        let code = self.rpc.call(METHOD, json!([address, "latest"])).await?;
        let code = code.as_str().ok_or_else(|| RpcError::unexpected(METHOD, &code))?;
        Ok(code.len() > 2)
    }

    /// The chain id.
    pub(crate) async fn chain_id(&self) -> Result<u64, RpcError> {
        quantity("eth_chainId", &self.rpc.call("eth_chainId", json!([])).await?)
    }

    /// Transactions of an account that are in blocks.
    pub(crate) async fn nonce(&self, address: Address) -> Result<u64, RpcError> {
        const METHOD: &str = "eth_getTransactionCount";
        quantity(METHOD, &self.rpc.call(METHOD, json!([address, "latest"])).await?)
    }

    /// Base fee of the newest block, wei.
    pub(crate) async fn base_fee(&self) -> Result<u64, RpcError> {
        const METHOD: &str = "eth_getBlockByNumber";
        let block = self.rpc.call(METHOD, json!(["latest", false])).await?;
        quantity(METHOD, &block["baseFeePerGas"])
    }

    /// Whether a transaction is in a block, and then whether it succeeded.
    pub(crate) async fn transaction_status(&self, hash: B256) -> Result<Option<bool>, RpcError> {
        const METHOD: &str = "eth_getTransactionReceipt";
        let receipt = self.rpc.call(METHOD, json!([hash])).await?;
        if receipt.is_null() {
            return Ok(None);
        }
        quantity(METHOD, &receipt["status"]).map(|status| Some(status == 1))
    }

    /// Hands a signed transaction to every full node.
    pub(crate) async fn send_raw(&self, raw: &[u8]) -> Result<(), RpcError> {
        self.rpc
            .call_all("eth_sendRawTransaction", json!([Bytes::copy_from_slice(raw)]))
            .await
            .map(drop)
    }

    /// Runs a call without a transaction; `Err(Remote)` if it reverts.
    pub(crate) async fn simulate(&self, from: Address, to: Address, data: &[u8]) -> Result<Value, RpcError> {
        let call = json!({"from": from, "to": to, "data": Bytes::copy_from_slice(data)});
        self.rpc.call("eth_call", json!([call, "latest"])).await
    }

    /// The data of the logs of `address` with these topics in one block.
    pub(crate) async fn logs_at(&self, address: Address, topics: &[B256], height: u64) -> Result<Vec<Bytes>, RpcError> {
        const METHOD: &str = "eth_getLogs";
        let block = format!("0x{height:x}");
        let filter = json!([{"address": address, "topics": topics, "fromBlock": block, "toBlock": block}]);
        let logs = self.rpc.call(METHOD, filter).await?;
        let logs = logs.as_array().ok_or_else(|| RpcError::unexpected(METHOD, &logs))?;
        let data = |log: &Value| {
            log["data"]
                .as_str()
                .and_then(|t| t.parse().ok())
                .ok_or_else(|| RpcError::unexpected(METHOD, log))
        };
        logs.iter().map(data).collect()
    }
}
