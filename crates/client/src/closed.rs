//! What it takes to offer a model, one of files or a provider's: its registration, and what a node asks for it.

use crate::{Client, ClientError, Sent, Wallet, wallet::random_bytes};
use alloy_primitives::{Address, B256, keccak256};
use alloy_sol_types::{SolCall as _, SolValue as _};
use opg_contracts::{ModelRegistry, NodeRegistry, addresses};
use opg_primitives::{
    ids::{ModelRoot, NodeId},
    money::Price,
};
use std::time::Duration;

/// Blocks between a commitment and its reveal (D6).
const REVEAL_DELAY: u64 = 2;
const POLL: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(60);

/// A model as it is registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewModel {
    /// Content root, or [`opg_receipt::closed_model_root`].
    pub root: ModelRoot,
    /// `owner/name`.
    pub name: String,
    /// [`ModelUri`](crate::ModelUri) as text, or nothing.
    pub uri: String,
    /// Royalty of the creator, basis points.
    pub royalty_bps: u16,
    /// Reference price.
    pub price: Price,
}

impl Client {
    /// Registers a model of the wallet's own by commitment and reveal, and waits until both are final.
    ///
    /// # Errors
    /// If the root is somebody else's, the wallet cannot pay the gas, or a transaction is not included within a minute.
    pub async fn register_model(&self, wallet: &Wallet, model: &NewModel) -> Result<Sent, ClientError> {
        let salt = B256::from(random_bytes()?);
        let commitment = keccak256((model.root.0, wallet.address(), salt).abi_encode());
        let commit = ModelRegistry::commitCall { commitment };
        let committed = self
            .call(wallet, addresses::MODEL_REGISTRY, commit.abi_encode().into())
            .await?;
        // Full nodes estimate gas in the newest block: in that one the reveal has to be allowed already.
        let start = std::time::Instant::now();
        while self.height().await? < committed.block + REVEAL_DELAY {
            if start.elapsed() > PATIENCE {
                return Err(ClientError::Timeout {
                    what: "blocks after the commitment".into(),
                    seconds: PATIENCE.as_secs(),
                });
            }
            tokio::time::sleep(POLL).await;
        }
        let reveal = ModelRegistry::revealCall {
            modelRoot: model.root.0,
            salt,
            name: model.name.clone(),
            uri: model.uri.clone(),
            royaltyBps: model.royalty_bps,
            price: ModelRegistry::Price {
                perCall: model.price.per_call.wei(),
                perMtokIn: model.price.per_mtok_in.wei(),
                perMtokOut: model.price.per_mtok_out.wei(),
            },
        };
        self.call(wallet, addresses::MODEL_REGISTRY, reveal.abi_encode().into())
            .await
    }

    /// Changes royalty and reference price of a model; for its creator, and not more often than the registry's notice.
    ///
    /// # Errors
    /// If the wallet is not the creator's, or the last change is too young.
    pub async fn set_terms(
        &self,
        wallet: &Wallet,
        root: ModelRoot,
        royalty_bps: u16,
        price: &Price,
    ) -> Result<Sent, ClientError> {
        let call = ModelRegistry::setTermsCall {
            modelRoot: root.0,
            royaltyBps: royalty_bps,
            price: ModelRegistry::Price {
                perCall: price.per_call.wei(),
                perMtokIn: price.per_mtok_in.wei(),
                perMtokOut: price.per_mtok_out.wei(),
            },
        };
        self.call(wallet, addresses::MODEL_REGISTRY, call.abi_encode().into())
            .await
    }

    /// Gives a model, with its future royalties, to another account; for its creator.
    ///
    /// # Errors
    /// If the wallet is not the creator's, or the account is zero.
    pub async fn transfer_model(&self, wallet: &Wallet, root: ModelRoot, to: Address) -> Result<Sent, ClientError> {
        let call = ModelRegistry::transferCreatorCall { modelRoot: root.0, to };
        self.call(wallet, addresses::MODEL_REGISTRY, call.abi_encode().into())
            .await
    }

    /// Proves to the registry that a registered model is a provider's: its royalty ends, and its charges pass through to whoever pays the
    /// provider. `None` if it is known already.
    ///
    /// # Errors
    /// If the model is not registered, or the transaction is refused.
    pub async fn mark_closed(
        &self,
        wallet: &Wallet,
        provider: &str,
        host: &str,
        model: &str,
    ) -> Result<Option<Sent>, ClientError> {
        let root = opg_receipt::closed_model_root(provider, host, model).0;
        let call = ModelRegistry::payeeOfCall { modelRoot: root };
        if self.view(addresses::MODEL_REGISTRY, call).await?.closed {
            return Ok(None);
        }
        let call = ModelRegistry::markClosedCall {
            provider: provider.to_owned(),
            host: host.to_owned(),
            model: model.to_owned(),
        };
        let sent = self.call(wallet, addresses::MODEL_REGISTRY, call.abi_encode().into());
        sent.await.map(Some)
    }

    /// Sets what a node asks for a model; for the node's operator.
    ///
    /// # Errors
    /// If the wallet is not the operator's, or a component is not within a quarter and four times the reference price.
    pub async fn set_ask(
        &self,
        wallet: &Wallet,
        node: NodeId,
        model: ModelRoot,
        ask: &Price,
    ) -> Result<Sent, ClientError> {
        let call = NodeRegistry::setAskCall {
            nodeId: node.0,
            modelRoot: model.0,
            ask: NodeRegistry::Price {
                perCall: ask.per_call.wei(),
                perMtokIn: ask.per_mtok_in.wei(),
                perMtokOut: ask.per_mtok_out.wei(),
            },
        };
        self.call(wallet, addresses::NODE_REGISTRY, call.abi_encode().into())
            .await
    }
}
