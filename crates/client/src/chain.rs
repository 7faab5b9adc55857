//! The chain as a wallet sees it: balances, transfers, registry entries.

use std::time::{Duration, Instant};

use alloy::{
    consensus::{SignableTransaction as _, TxEip1559, TxEnvelope},
    eips::eip2718::Encodable2718 as _,
};
use alloy_primitives::{Address, B256, Bytes, TxKind, U64, U256};
use alloy_sol_types::SolCall;
use opg_contracts::{FeatureTiers, FeeVault, ModelRegistry, OPG, addresses};
use opg_primitives::{
    ids::{ModelRoot, NodeId},
    money::Amount,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{Client, ClientError, rpc::RpcError, wallet::Wallet};

const TRANSFER_TIMEOUT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
/// Used where the node does not suggest a tip: 1 gwei.
const DEFAULT_TIP: u128 = 1_000_000_000;

/// What an account holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Balances {
    /// Native coin, which pays gas.
    pub native: Amount,
    /// OPG (ERC-20), which pays for inference.
    pub opg: Amount,
}

/// Credits of one payee from one node's receipts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Credits {
    /// All of them.
    pub credited: Amount,
    /// Those past their escrow window.
    pub withdrawable: Amount,
}

/// What to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asset {
    /// The native coin.
    Native,
    /// The ERC-20.
    Opg,
}

/// A feature tier (`FeatureTiers`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tier {
    /// Its number, from 0.
    pub index: u64,
    /// Least OPG held and staked.
    pub threshold: Amount,
    /// What the account holds and has staked.
    pub weight: Amount,
    /// Taken off a gateway's own fee, basis points.
    pub discount_bps: u16,
    /// Rate limit.
    pub requests_per_minute: u32,
    /// Size limit of one request.
    pub max_request_bytes: u32,
}

/// A transaction in a final block.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Sent {
    /// Transaction hash.
    pub hash: B256,
    /// Block number.
    pub block: u64,
    /// Gas used.
    pub gas_used: u64,
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
    timestamp: U64,
    base_fee_per_gas: Option<U256>,
}

impl Client {
    /// Native and OPG balance of `address`.
    ///
    /// # Errors
    /// If no full node answers.
    pub async fn balances(&self, address: Address) -> Result<Balances, ClientError> {
        let native = self.rpc().call("eth_getBalance", (address, "latest"));
        let opg = self.view(addresses::OPG, OPG::balanceOfCall { account: address });
        let (native, opg): (U256, U256) = futures::try_join!(async { Ok(native.await?) }, opg)?;
        Ok(Balances {
            native: amount(native)?,
            opg: amount(opg)?,
        })
    }

    /// What the OPG that an account holds and has staked unlocks at gateways. They ask for the account that signs a request.
    ///
    /// # Errors
    /// If no full node answers.
    pub async fn tier(&self, account: Address) -> Result<Tier, ClientError> {
        let call = FeatureTiers::tierOfCall { account };
        let found = self.view(addresses::FEATURE_TIERS, call).await?;
        Ok(Tier {
            index: found.index.saturating_to(),
            threshold: Amount(found.tier.threshold),
            weight: amount(found.weight)?,
            discount_bps: found.tier.discountBps,
            requests_per_minute: found.tier.requestsPerMinute,
            max_request_bytes: found.tier.maxRequestBytes,
        })
    }

    /// Credits of `payee` from the receipts of node `node`.
    ///
    /// # Errors
    /// If no full node answers.
    pub async fn credits(&self, payee: Address, node: NodeId) -> Result<Credits, ClientError> {
        let credited = self.view(addresses::FEE_VAULT, FeeVault::creditedCall { payee, nodeId: node.0 });
        let withdrawable = self.view(
            addresses::FEE_VAULT,
            FeeVault::withdrawableCall { payee, nodeId: node.0 },
        );
        let (credited, withdrawable) = futures::try_join!(credited, withdrawable)?;
        Ok(Credits {
            credited: amount(U256::from(credited))?,
            withdrawable: amount(U256::from(withdrawable))?,
        })
    }

    /// The newest block number.
    ///
    /// # Errors
    /// If no full node answers.
    pub async fn height(&self) -> Result<u64, ClientError> {
        Ok(self.rpc().call::<_, U64>("eth_blockNumber", json!([])).await?.to())
    }

    /// Timestamp of the newest block, Unix seconds: the clock by which payments are judged.
    ///
    /// # Errors
    /// If no full node answers.
    pub async fn block_time(&self) -> Result<u64, ClientError> {
        Ok(self.head().await?.timestamp.to())
    }

    /// Sends `amount` to `to` and waits until the block is final.
    ///
    /// # Errors
    /// If the wallet has too little, the transaction is refused or reverts, or a minute passes.
    pub async fn send(&self, wallet: &Wallet, to: Address, amount: Amount, asset: Asset) -> Result<Sent, ClientError> {
        let nonce = self.nonce(wallet.address()).await?;
        let hash = self.submit_transfer(wallet, nonce, to, amount, asset).await?;
        self.wait_for_transaction(hash).await
    }

    /// Gives `opg` (ERC-20) and `native` (for gas) from the faucet of a development network. An amount of zero is left out.
    ///
    /// # Errors
    /// If the network has no faucet or a transfer fails.
    pub async fn faucet(&self, to: Address, opg: Amount, native: Amount) -> Result<Vec<Sent>, ClientError> {
        let key = self.network().file.faucet.as_ref().ok_or(ClientError::NoFaucet)?;
        let wallet = Wallet::load(&key.key_file)?;
        let mut nonce = self.nonce(wallet.address()).await?;
        let mut hashes = Vec::new();
        // Both wait in the pool together and land in one block.
        for (amount, asset) in [(opg, Asset::Opg), (native, Asset::Native)] {
            if !amount.is_zero() {
                hashes.push(self.submit_transfer(&wallet, nonce, to, amount, asset).await?);
                nonce += 1;
            }
        }
        let mut sent = Vec::new();
        for hash in hashes {
            sent.push(self.wait_for_transaction(hash).await?);
        }
        Ok(sent)
    }

    /// Calls a view function at the newest block.
    pub(crate) async fn view<C: SolCall>(&self, to: Address, call: C) -> Result<C::Return, ClientError> {
        let request = json!({ "to": to, "input": Bytes::from(call.abi_encode()) });
        let data: Bytes = self.rpc().call("eth_call", (request, "latest")).await?;
        C::abi_decode_returns(&data).map_err(|error| {
            RpcError::Shape {
                method: format!("eth_call {}", C::SIGNATURE),
                reason: error.to_string(),
            }
            .into()
        })
    }

    pub(crate) async fn nonce(&self, address: Address) -> Result<u64, ClientError> {
        Ok(self
            .rpc()
            .call::<_, U64>("eth_getTransactionCount", (address, "pending"))
            .await?
            .to())
    }

    async fn head(&self) -> Result<BlockHead, ClientError> {
        Ok(self.rpc().call("eth_getBlockByNumber", ("latest", false)).await?)
    }

    async fn submit_transfer(
        &self,
        wallet: &Wallet,
        nonce: u64,
        to: Address,
        amount: Amount,
        asset: Asset,
    ) -> Result<B256, ClientError> {
        let from = wallet.address();
        let (target, value, input) = match asset {
            Asset::Native => (to, amount.to_u256(), Bytes::new()),
            Asset::Opg => {
                let call = OPG::transferCall {
                    to,
                    value: amount.to_u256(),
                };
                (addresses::OPG, U256::ZERO, call.abi_encode().into())
            }
        };
        let balances = self.balances(from).await?;
        let (available, name) = match asset {
            Asset::Native => (balances.native, "native OPG"),
            Asset::Opg => (balances.opg, "OPG"),
        };
        if available < amount {
            return Err(ClientError::InsufficientFunds {
                address: from,
                asset: name,
                available,
                needed: amount,
            });
        }
        self.submit(wallet, nonce, target, value, input, balances.native).await
    }

    /// Registers an exact integer program of a model, with its registration report, and waits until the block is final. Only the
    /// model's creator can.
    ///
    /// # Errors
    /// If the wallet is not the creator's or cannot pay the gas, or the registry refuses the program.
    pub async fn register_program(
        &self,
        wallet: &Wallet,
        model: ModelRoot,
        program: B256,
        report: &str,
    ) -> Result<Sent, ClientError> {
        let call = ModelRegistry::registerProgramCall {
            modelRoot: model.0,
            program,
            report: report.into(),
        };
        self.call(wallet, addresses::MODEL_REGISTRY, call.abi_encode().into())
            .await
    }

    /// Sends a call of a contract and waits until the block is final. The wallet pays the gas.
    pub(crate) async fn call(&self, wallet: &Wallet, to: Address, input: Bytes) -> Result<Sent, ClientError> {
        let from = wallet.address();
        let (nonce, balances) = futures::try_join!(self.nonce(from), self.balances(from))?;
        let hash = self
            .submit(wallet, nonce, to, U256::ZERO, input, balances.native)
            .await?;
        self.wait_for_transaction(hash).await
    }

    /// Whether an account has that much OPG.
    pub(crate) async fn has_opg(&self, address: Address, needed: Amount) -> Result<(), ClientError> {
        let available = self.balances(address).await?.opg;
        if available < needed {
            return Err(ClientError::InsufficientFunds {
                address,
                asset: "OPG",
                available,
                needed,
            });
        }
        Ok(())
    }

    /// Lets a contract take `value` of the wallet's OPG, by an approval of exactly that if the one there is smaller.
    pub(crate) async fn allow(
        &self,
        wallet: &Wallet,
        spender: Address,
        value: Amount,
    ) -> Result<Vec<Sent>, ClientError> {
        let owner = wallet.address();
        self.has_opg(owner, value).await?;
        let allowed = self.view(addresses::OPG, OPG::allowanceCall { owner, spender }).await?;
        if allowed >= value.to_u256() {
            return Ok(Vec::new());
        }
        let approve = OPG::approveCall {
            spender,
            value: value.to_u256(),
        };
        let input = approve.abi_encode().into();
        Ok(vec![self.call(wallet, addresses::OPG, input).await?])
    }

    /// How much of an account's OPG Permit2 may move.
    ///
    /// # Errors
    /// If no full node answers.
    pub async fn permit2_allowance(&self, owner: Address) -> Result<U256, ClientError> {
        let spender = addresses::PERMIT2;
        self.view(addresses::OPG, OPG::allowanceCall { owner, spender }).await
    }

    /// Lets Permit2 move this much of the wallet's OPG, for payments that are permits; zero takes it back. Permit2 moves nothing without a
    /// signature of the wallet over payee and amount.
    ///
    /// # Errors
    /// If the wallet cannot pay the gas, or a minute passes.
    pub async fn allow_permit2(&self, wallet: &Wallet, value: U256) -> Result<Sent, ClientError> {
        let spender = addresses::PERMIT2;
        let approve = OPG::approveCall { spender, value };
        self.call(wallet, addresses::OPG, approve.abi_encode().into()).await
    }

    /// Programs that are registered for a model, in the order of their registration.
    ///
    /// # Errors
    /// If no full node answers.
    pub async fn programs(&self, model: ModelRoot) -> Result<Vec<B256>, ClientError> {
        let call = ModelRegistry::programsOfCall { modelRoot: model.0 };
        self.view(addresses::MODEL_REGISTRY, call).await
    }

    /// Signs and sends a transaction of a wallet that holds `native` for value and gas.
    pub(crate) async fn submit(
        &self,
        wallet: &Wallet,
        nonce: u64,
        target: Address,
        value: U256,
        input: Bytes,
        native: Amount,
    ) -> Result<B256, ClientError> {
        let from = wallet.address();
        let base_fee = self.head().await?.base_fee_per_gas.unwrap_or_default();
        let tip = self.rpc().call::<_, U256>("eth_maxPriorityFeePerGas", json!([])).await;
        let tip = tip.ok().and_then(|tip| tip.try_into().ok()).unwrap_or(DEFAULT_TIP);
        // Twice the base fee outlasts six full blocks; what is not needed is not charged.
        let max_fee = u128::try_from(base_fee)
            .unwrap_or(u128::MAX / 4)
            .saturating_mul(2)
            .saturating_add(tip);
        let estimate = json!({ "from": from, "to": target, "value": value, "input": input });
        let gas: u64 = if input.is_empty() && native.to_u256() == value {
            // An estimate would not leave room for the fee; the check below says so in clear words.
            21_000
        } else {
            self.rpc().call::<_, U64>("eth_estimateGas", (estimate,)).await?.to()
        };
        // State may shift between estimate and inclusion, except for a plain transfer. And an estimate may be what is used after refunds for
        // cleared slots, which are at most a fifth (EIP-3529): until the end, five quarters of it are needed.
        let gas_limit = if gas == 21_000 {
            gas
        } else {
            gas.saturating_add(gas / 2)
        };
        let fee = Amount(u128::from(gas_limit).saturating_mul(max_fee));
        let needed = fee.saturating_add(amount(value)?);
        if native < needed {
            return Err(ClientError::InsufficientFunds {
                address: from,
                asset: "native OPG for the transaction and its gas",
                available: native,
                needed,
            });
        }
        let transaction = TxEip1559 {
            chain_id: self.network().file.chain_id,
            nonce,
            gas_limit,
            max_fee_per_gas: max_fee,
            max_priority_fee_per_gas: tip.min(max_fee),
            to: TxKind::Call(target),
            value,
            access_list: Default::default(),
            input,
        };
        let signature = wallet.sign_digest(transaction.signature_hash());
        let raw = TxEnvelope::from(transaction.into_signed(signature)).encoded_2718();
        Ok(self.rpc().call("eth_sendRawTransaction", (Bytes::from(raw),)).await?)
    }

    pub(crate) async fn wait_for_transaction(&self, hash: B256) -> Result<Sent, ClientError> {
        let start = Instant::now();
        loop {
            let receipt: Option<TransactionReceipt> = self.rpc().call("eth_getTransactionReceipt", (hash,)).await?;
            if let Some(receipt) = receipt {
                if receipt.status.is_zero() {
                    return Err(ClientError::Reverted { hash });
                }
                // A node shows the receipt a moment before the state of its block is the newest: what is read next is read after it.
                if self.height().await? >= receipt.block_number.to::<u64>() {
                    return Ok(Sent {
                        hash,
                        block: receipt.block_number.to(),
                        gas_used: receipt.gas_used.to(),
                    });
                }
            }
            if start.elapsed() > TRANSFER_TIMEOUT {
                return Err(ClientError::Timeout {
                    what: format!("inclusion of transaction {hash}"),
                    seconds: TRANSFER_TIMEOUT.as_secs(),
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

/// A word of the chain as an amount.
pub(crate) fn amount(value: U256) -> Result<Amount, ClientError> {
    // The whole supply fits 90 bits; anything larger is not an amount of OPG.
    Amount::try_from(value).map_err(|error| ClientError::Proof {
        what: error.to_string(),
    })
}
