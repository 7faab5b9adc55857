//! Any EVM chain by its JSON-RPC: views, estimates, transactions. The network itself is [`Client`](crate::Client).

use std::time::{Duration, Instant};

use alloy::{
    consensus::{SignableTransaction as _, TxEip1559, TxEnvelope},
    eips::eip2718::Encodable2718 as _,
};
use alloy_primitives::{Address, B256, Bytes, TxKind, U64, U256};
use alloy_sol_types::SolCall;
use opg_primitives::money::Amount;
use serde::Deserialize;
use serde_json::json;

use crate::{
    ClientError, Sent,
    rpc::{Rpc, RpcError},
    wallet::Wallet,
};

const TIMEOUT: Duration = Duration::from_secs(90);
const POLL: Duration = Duration::from_millis(100);
/// Used where the node does not suggest a tip: a thousandth of a gwei, which is what Base takes.
const DEFAULT_TIP: u128 = 1_000_000;
/// Most gas of a transaction (EIP-7825).
const MAX_GAS: u64 = 1 << 24;

/// A chain.
#[derive(Debug)]
pub struct EvmChain {
    rpc: Rpc,
    chain_id: u64,
}

/// What gas costs now, wei.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GasPrice {
    /// Base fee of the newest block.
    pub base: u128,
    /// Suggested tip.
    pub tip: u128,
}

impl GasPrice {
    /// What so much gas costs now.
    #[must_use]
    pub const fn cost(self, gas: u64) -> Amount {
        Amount((gas as u128).saturating_mul(self.base.saturating_add(self.tip)))
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TransactionReceipt {
    status: U64,
    block_number: U64,
    gas_used: U64,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct BlockHead {
    base_fee_per_gas: Option<U256>,
}

impl EvmChain {
    /// Connects to endpoints of one chain and asks for its id.
    ///
    /// # Errors
    /// If none answers, or it is another chain.
    pub async fn connect(urls: Vec<String>, chain_id: u64) -> Result<Self, ClientError> {
        let http = reqwest::Client::builder()
            .connect_timeout(crate::CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("opg/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ClientError::Http(error.to_string()))?;
        let rpc = Rpc::new(http, urls);
        let got: u64 = rpc.call::<_, U64>("eth_chainId", json!([])).await?.to();
        if got != chain_id {
            return Err(ClientError::OtherChain {
                url: rpc.urls().first().cloned().unwrap_or_default(),
                expected: chain_id,
                got,
            });
        }
        Ok(Self { rpc, chain_id })
    }

    /// Its EIP-155 id.
    #[must_use]
    pub const fn chain_id(&self) -> u64 {
        self.chain_id
    }

    /// Its endpoints.
    #[must_use]
    pub const fn rpc(&self) -> &Rpc {
        &self.rpc
    }

    /// Code of an account at the newest block.
    ///
    /// # Errors
    /// If no endpoint answers.
    pub async fn code(&self, address: Address) -> Result<Bytes, ClientError> {
        Ok(self.rpc.call("eth_getCode", (address, "latest")).await?)
    }

    /// Native coin of an account at the newest block.
    ///
    /// # Errors
    /// If no endpoint answers.
    pub async fn balance(&self, address: Address) -> Result<Amount, ClientError> {
        let balance: U256 = self.rpc.call("eth_getBalance", (address, "latest")).await?;
        Ok(Amount(balance.saturating_to()))
    }

    /// Calls a view function at the newest block.
    ///
    /// # Errors
    /// If no endpoint answers, or the call reverts.
    pub async fn view<C: SolCall>(&self, to: Address, call: C) -> Result<C::Return, ClientError> {
        let request = json!({ "to": to, "input": Bytes::from(call.abi_encode()) });
        let data: Bytes = self.rpc.call("eth_call", (request, "latest")).await?;
        C::abi_decode_returns(&data).map_err(|error| {
            RpcError::Shape {
                method: format!("eth_call {}", C::SIGNATURE),
                reason: error.to_string(),
            }
            .into()
        })
    }

    /// What gas costs now.
    ///
    /// # Errors
    /// If no endpoint answers.
    pub async fn gas_price(&self) -> Result<GasPrice, ClientError> {
        let head: BlockHead = self.rpc.call("eth_getBlockByNumber", ("latest", false)).await?;
        let tip = self.rpc.call::<_, U256>("eth_maxPriorityFeePerGas", json!([])).await;
        Ok(GasPrice {
            base: head.base_fee_per_gas.unwrap_or_default().saturating_to(),
            tip: tip.ok().and_then(|tip| tip.try_into().ok()).unwrap_or(DEFAULT_TIP),
        })
    }

    /// Gas that a call would use now.
    ///
    /// # Errors
    /// If no endpoint answers, or the call reverts.
    pub async fn estimate(&self, from: Address, to: Address, input: &Bytes) -> Result<u64, ClientError> {
        let call = json!({ "from": from, "to": to, "input": input });
        Ok(self.rpc.call::<_, U64>("eth_estimateGas", (call,)).await?.to())
    }

    /// Sends a call of a contract and waits until it is in a block. Nothing is sent if it would revert now, or if the wallet
    /// cannot pay for it.
    ///
    /// # Errors
    /// If it reverts, the wallet has too little, or it is in no block after a minute and a half.
    pub async fn send(&self, wallet: &Wallet, to: Address, value: U256, input: Bytes) -> Result<Sent, ClientError> {
        let from = wallet.address();
        let estimate = json!({ "from": from, "to": to, "value": value, "input": input });
        let gas: u64 = self.rpc.call::<_, U64>("eth_estimateGas", (estimate,)).await?.to();
        // State may shift until then, and refunds are a fifth at most.
        let gas_limit = gas.saturating_add(gas / 2).min(MAX_GAS.max(gas));
        let price = self.gas_price().await?;
        let max_fee = price.base.saturating_mul(2).saturating_add(price.tip);
        let needed =
            Amount(u128::from(gas_limit).saturating_mul(max_fee)).saturating_add(Amount(value.saturating_to()));
        let native = self.balance(from).await?;
        if native < needed {
            return Err(ClientError::NoGasMoney {
                address: from,
                chain_id: self.chain_id,
                available: native,
                needed,
            });
        }
        let nonce = self
            .rpc
            .call::<_, U64>("eth_getTransactionCount", (from, "pending"))
            .await?
            .to();
        let transaction = TxEip1559 {
            chain_id: self.chain_id,
            nonce,
            gas_limit,
            max_fee_per_gas: max_fee,
            max_priority_fee_per_gas: price.tip.min(max_fee),
            to: TxKind::Call(to),
            value,
            access_list: Default::default(),
            input,
        };
        let signature = wallet.sign_digest(transaction.signature_hash());
        let raw = TxEnvelope::from(transaction.into_signed(signature)).encoded_2718();
        let hash: B256 = self.rpc.call("eth_sendRawTransaction", (Bytes::from(raw),)).await?;
        self.wait(hash).await
    }

    async fn wait(&self, hash: B256) -> Result<Sent, ClientError> {
        let start = Instant::now();
        loop {
            let receipt: Option<TransactionReceipt> = self.rpc.call("eth_getTransactionReceipt", (hash,)).await?;
            if let Some(receipt) = receipt {
                if receipt.status.is_zero() {
                    return Err(ClientError::Reverted { hash });
                }
                return Ok(Sent {
                    hash,
                    block: receipt.block_number.to(),
                    gas_used: receipt.gas_used.to(),
                });
            }
            if start.elapsed() > TIMEOUT {
                return Err(ClientError::Timeout {
                    what: format!("inclusion of transaction {hash} on chain {}", self.chain_id),
                    seconds: TIMEOUT.as_secs(),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}
