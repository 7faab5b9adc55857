//! What an operator does with an inference node: register it, add to its bond, take out what it earned, leave (docs/specs/ledger.md §4).

use alloy_primitives::{Address, B256, U256};
use alloy_sol_types::SolCall as _;
use opg_contracts::{FeeVault, NodeRegistry, addresses};
use opg_primitives::{
    ids::{Keyset, NodeId, node_id},
    money::Amount,
};
use serde::Serialize;

use crate::{
    Client, ClientError,
    chain::{Sent, amount},
    registry::Model,
    wallet::Wallet,
};

/// Queue items that one withdrawal looks at: each costs some 10,000 gas.
const WITHDRAW_ITEMS: u64 = 500;

/// An inference node that cannot be registered or changed so. Nothing was sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NodeError {
    /// No such node.
    #[error("node {node} is not registered; `opg node register inference` registers one")]
    Unknown {
        /// The node.
        node: B256,
    },
    /// Another account's node.
    #[error("node {node} belongs to {operator}, not to {wallet}; name the operator's wallet with --key")]
    Operator {
        /// The node.
        node: B256,
        /// Whose it is.
        operator: Address,
        /// Who asks.
        wallet: Address,
    },
    /// A node leaves for ever.
    #[error("node {node} has left for ever; register another one with another `salt`")]
    Left {
        /// The node.
        node: B256,
    },
    /// A bond below the network's least.
    #[error("field `bond`: expected at least {needed} OPG (the network's least), got {got}")]
    Bond {
        /// The least.
        needed: Amount,
        /// What was offered.
        got: Amount,
    },
    /// Receipts of a revoked keyset never count.
    #[error("the keyset {digest} of the keys file was revoked, for ever; make new keys")]
    Revoked {
        /// The keyset.
        digest: B256,
    },
    /// A bond that cannot be had back now.
    #[error("the bond of node {node} cannot be withdrawn: {reason}")]
    Locked {
        /// The node.
        node: B256,
        /// Why, and when it can.
        reason: String,
    },
}

/// What the chain knows of an inference node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeStanding {
    /// Its id.
    pub id: B256,
    /// Who registered it.
    pub operator: Address,
    /// Its base URL.
    pub endpoint: String,
    /// Block time of its registration, Unix seconds.
    pub registered_at: u64,
    /// Block time at which it left.
    pub left_at: Option<u64>,
    /// OPG that it is bonded with.
    pub bond: Amount,
    /// What the bond has to be for its receipts to count: the network's least, or its fees of today and yesterday.
    pub needed_bond: Amount,
    /// Gross fees of its receipts on this UTC day and the one before.
    pub recent_fees: Amount,
    /// Unix seconds from which on the bond can be withdrawn, once it has left.
    pub bond_free_at: Option<u64>,
    /// Slashing cases that await their end; the bond stays until then.
    pub open_cases: u64,
}

/// A node as its operator wants it registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewNode {
    /// Tells the nodes of an operator apart.
    pub salt: B256,
    /// Its base URL.
    pub endpoint: String,
    /// Its keys.
    pub keyset: Keyset,
    /// What a new node is bonded with; a registered one's bond stays.
    pub bond: Amount,
}

/// What registering a node takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeStep {
    /// The node is new: its bond is locked.
    Register,
    /// It is there, with other keys.
    AddKeyset,
    /// It is there, at another URL.
    SetEndpoint,
}

/// Whether a node that is registered can be called, and its receipts count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Heartbeat {
    /// What the chain knows.
    pub standing: NodeStanding,
    /// The keyset that it publishes at its registered URL.
    pub keyset: Option<B256>,
    /// Models that it lists.
    pub models: Vec<String>,
    /// What is wrong; nothing if callers can use it.
    pub problems: Vec<String>,
}

impl Client {
    /// Asks a node at its registered URL who it is, and compares that with the chain.
    ///
    /// # Errors
    /// [`NodeError::Unknown`], or if no full node answers. A node that does not answer is a problem in the answer.
    pub async fn heartbeat(&self, node: NodeId) -> Result<Heartbeat, ClientError> {
        let standing = self.node_standing(node).await?;
        let standing = standing.ok_or(NodeError::Unknown { node: node.0 })?;
        let mut problems = Vec::new();
        if let Some(at) = standing.left_at {
            problems.push(format!("it left the network for ever (Unix time {at})"));
        }
        if standing.bond < standing.needed_bond {
            problems.push(format!(
                "its bond is {} OPG and has to be {}: its receipts do not count until `opg node bond` has added the rest",
                standing.bond, standing.needed_bond
            ));
        }
        if standing.open_cases != 0 {
            problems.push(format!("{} slashing cases against it are open", standing.open_cases));
        }
        let mut digest = None;
        match self.published_keyset(&standing.endpoint).await {
            Err(error) => problems.push(error.to_string()),
            Ok(keyset) if keyset.node_id != node => problems.push(format!(
                "another node answers at {}: {}",
                standing.endpoint, keyset.node_id
            )),
            Ok(keyset) => {
                let published = keyset.digest();
                digest = Some(published.0);
                match self.keyset(published, &standing.endpoint).await? {
                    None => problems.push(format!(
                        "its keyset {published} is not registered; `opg node register inference` adds it"
                    )),
                    Some((registered, _)) if registered.revoked => {
                        problems.push(format!("its keyset {published} is revoked"));
                    }
                    Some((registered, _)) if registered.node_id != node => {
                        problems.push(format!("its keyset {published} is another node's"));
                    }
                    Some(_) => {}
                }
            }
        }
        let models = match self.models_at(&standing.endpoint).await {
            Ok(models) => models,
            // Said above, if it does not answer at all.
            Err(_) if digest.is_none() => Vec::new(),
            Err(error) => {
                problems.push(error.to_string());
                Vec::new()
            }
        };
        Ok(Heartbeat {
            standing,
            keyset: digest,
            models,
            problems,
        })
    }

    /// Asks the reference price of a model for a node, unless the node asks something already. `None` if it does.
    ///
    /// # Errors
    /// If the wallet is not the operator's, or no full node answers.
    pub async fn ask_reference(
        &self,
        operator: &Wallet,
        node: NodeId,
        model: &Model,
    ) -> Result<Option<Sent>, ClientError> {
        let call = NodeRegistry::asksCall {
            nodeId: node.0,
            modelRoot: model.root.0,
        };
        let ask = self.view(addresses::NODE_REGISTRY, call).await?;
        if (ask.perCall, ask.perMtokIn, ask.perMtokOut) != (0, 0, 0) {
            return Ok(None);
        }
        self.set_ask(operator, node, model.root, &model.reference_price)
            .await
            .map(Some)
    }

    /// What the chain knows of a node; `None` if it is not registered.
    ///
    /// # Errors
    /// If no full node answers.
    pub async fn node_standing(&self, node: NodeId) -> Result<Option<NodeStanding>, ClientError> {
        let (registry, vault, id) = (addresses::NODE_REGISTRY, addresses::FEE_VAULT, node.0);
        let (record, fees, least, unbonding, cases) = futures::try_join!(
            self.view(registry, NodeRegistry::nodesCall { nodeId: id }),
            self.view(vault, FeeVault::recentFeesCall { nodeId: id }),
            self.view(registry, NodeRegistry::minBondCall {}),
            self.view(registry, NodeRegistry::unbondingCall {}),
            self.view(registry, NodeRegistry::openCasesCall { nodeId: id }),
        )?;
        if record.operator.is_zero() {
            return Ok(None);
        }
        let left_at: u64 = record.inactiveAt.to();
        let recent_fees = amount(fees)?;
        Ok(Some(NodeStanding {
            id,
            operator: record.operator,
            endpoint: crate::text::one_line(&record.endpoint, 256),
            registered_at: record.registeredAt.to(),
            left_at: (left_at != 0).then_some(left_at),
            bond: Amount(record.bond),
            needed_bond: recent_fees.max(Amount(least)),
            recent_fees,
            bond_free_at: (left_at != 0).then(|| left_at.saturating_add(unbonding.to())),
            open_cases: cases.saturating_to(),
        }))
    }

    /// The least bond of a node.
    ///
    /// # Errors
    /// If no full node answers.
    pub async fn least_node_bond(&self) -> Result<Amount, ClientError> {
        let least = self
            .view(addresses::NODE_REGISTRY, NodeRegistry::minBondCall {})
            .await?;
        Ok(Amount(least))
    }

    /// What is missing for a node to be registered as wanted, in the order in which it is sent; nothing if all is there.
    ///
    /// # Errors
    /// [`NodeError`], too little OPG for the bond, or if no full node answers.
    pub async fn node_steps(&self, operator: Address, wanted: &NewNode) -> Result<Vec<NodeStep>, ClientError> {
        let node = node_id(operator, wanted.salt);
        let Some(standing) = self.node_standing(node).await? else {
            let needed = self.least_node_bond().await?;
            if wanted.bond < needed {
                return Err(NodeError::Bond {
                    needed,
                    got: wanted.bond,
                }
                .into());
            }
            self.has_opg(operator, wanted.bond).await?;
            return Ok(vec![NodeStep::Register]);
        };
        if standing.left_at.is_some() {
            return Err(NodeError::Left { node: node.0 }.into());
        }
        let digest = wanted.keyset.digest().0;
        let call = NodeRegistry::keysetsCall { keysetDigest: digest };
        let keyset = self.view(addresses::NODE_REGISTRY, call).await?;
        if !keyset.revokedAt.is_zero() {
            return Err(NodeError::Revoked { digest }.into());
        }
        let mut steps = Vec::new();
        if keyset.registeredAt.is_zero() {
            steps.push(NodeStep::AddKeyset);
        }
        if standing.endpoint != wanted.endpoint {
            steps.push(NodeStep::SetEndpoint);
        }
        Ok(steps)
    }

    /// Registers a node of the wallet, or brings keys and URL of a registered one to what is wanted.
    ///
    /// # Errors
    /// As [`Client::node_steps`], or if a transaction is refused or reverts.
    pub async fn register_node(&self, operator: &Wallet, wanted: &NewNode) -> Result<Vec<Sent>, ClientError> {
        let node = node_id(operator.address(), wanted.salt).0;
        let Keyset {
            receipt_key,
            settlement_key,
            hpke_key,
            tls_spki,
            ..
        } = wanted.keyset;
        let keyset = NodeRegistry::Keyset {
            receiptKey: receipt_key,
            settlementKey: settlement_key,
            hpkeKey: hpke_key,
            tlsSpki: tls_spki,
        };
        let mut sent = Vec::new();
        for step in self.node_steps(operator.address(), wanted).await? {
            let input = match step {
                NodeStep::Register => {
                    sent.append(&mut self.allow(operator, addresses::NODE_REGISTRY, wanted.bond).await?);
                    NodeRegistry::registerCall {
                        salt: wanted.salt,
                        endpoint: wanted.endpoint.clone(),
                        keyset: keyset.clone(),
                        bond: wanted.bond.wei(),
                    }
                    .abi_encode()
                }
                NodeStep::AddKeyset => NodeRegistry::addKeysetCall {
                    nodeId: node,
                    keyset: keyset.clone(),
                }
                .abi_encode(),
                NodeStep::SetEndpoint => NodeRegistry::setEndpointCall {
                    nodeId: node,
                    endpoint: wanted.endpoint.clone(),
                }
                .abi_encode(),
            };
            sent.push(self.call(operator, addresses::NODE_REGISTRY, input.into()).await?);
        }
        Ok(sent)
    }

    /// A node that the wallet registered and that has not left.
    ///
    /// # Errors
    /// [`NodeError`], or if no full node answers.
    pub async fn own_node(&self, operator: Address, node: NodeId) -> Result<NodeStanding, ClientError> {
        let standing = self.owned(operator, node).await?;
        if standing.left_at.is_some() {
            return Err(NodeError::Left { node: node.0 }.into());
        }
        Ok(standing)
    }

    async fn owned(&self, wallet: Address, node: NodeId) -> Result<NodeStanding, ClientError> {
        let standing = self.node_standing(node).await?;
        let standing = standing.ok_or(NodeError::Unknown { node: node.0 })?;
        if standing.operator != wallet {
            let operator = standing.operator;
            return Err(NodeError::Operator {
                node: node.0,
                operator,
                wallet,
            }
            .into());
        }
        Ok(standing)
    }

    /// Adds to a node's bond.
    ///
    /// # Errors
    /// [`NodeError`], too little OPG, or if a transaction is refused.
    pub async fn add_bond(&self, operator: &Wallet, node: NodeId, more: Amount) -> Result<Vec<Sent>, ClientError> {
        self.own_node(operator.address(), node).await?;
        let mut sent = self.allow(operator, addresses::NODE_REGISTRY, more).await?;
        let call = NodeRegistry::addBondCall {
            nodeId: node.0,
            amount: more.wei(),
        };
        let input = call.abi_encode().into();
        sent.push(self.call(operator, addresses::NODE_REGISTRY, input).await?);
        Ok(sent)
    }

    /// Takes a node out of the network for ever; its bond begins to unbond.
    ///
    /// # Errors
    /// [`NodeError`], or if the transaction is refused.
    pub async fn leave_node(&self, operator: &Wallet, node: NodeId) -> Result<Sent, ClientError> {
        self.own_node(operator.address(), node).await?;
        let call = NodeRegistry::deactivateCall { nodeId: node.0 };
        self.call(operator, addresses::NODE_REGISTRY, call.abi_encode().into())
            .await
    }

    /// The bond that the operator of a node that left can take out now.
    ///
    /// # Errors
    /// [`NodeError`], or if no full node answers.
    pub async fn own_bond(&self, operator: Address, node: NodeId) -> Result<Amount, ClientError> {
        let standing = self.owned(operator, node).await?;
        let locked = |reason: String| NodeError::Locked { node: node.0, reason };
        let Some(free_at) = standing.bond_free_at else {
            return Err(locked("the node has not left; `opg node leave` takes it out for ever".into()).into());
        };
        let now = self.block_time().await?;
        if now < free_at {
            return Err(locked(format!("it unbonds for {} more seconds", free_at - now)).into());
        }
        if standing.open_cases != 0 {
            return Err(locked(format!(
                "{} slashing cases against the node are open",
                standing.open_cases
            ))
            .into());
        }
        if standing.bond.is_zero() {
            return Err(locked("there is none left".into()).into());
        }
        Ok(standing.bond)
    }

    /// Pays the bond of a node that left back to its operator.
    ///
    /// # Errors
    /// As [`Client::own_bond`], or if the transaction is refused.
    pub async fn withdraw_bond(&self, operator: &Wallet, node: NodeId) -> Result<(Amount, Sent), ClientError> {
        let bond = self.own_bond(operator.address(), node).await?;
        let call = NodeRegistry::withdrawBondCall { nodeId: node.0 };
        let input = call.abi_encode().into();
        let sent = self.call(operator, addresses::NODE_REGISTRY, input).await?;
        Ok((bond, sent))
    }

    /// Pays a payee what is released of its credits from a node's receipts, whoever's wallet pays the gas. `None` if nothing is.
    ///
    /// # Errors
    /// If the transaction is refused, or no full node answers.
    pub async fn withdraw_credits(
        &self,
        wallet: &Wallet,
        payee: Address,
        node: NodeId,
    ) -> Result<Option<(Amount, Sent)>, ClientError> {
        let free = self.credits(payee, node).await?.withdrawable;
        if free.is_zero() {
            return Ok(None);
        }
        let before = self.balances(payee).await?.opg;
        let call = FeeVault::withdrawCall {
            payee,
            nodeId: node.0,
            max: U256::from(WITHDRAW_ITEMS),
        };
        let input = call.abi_encode().into();
        let sent = self.call(wallet, addresses::FEE_VAULT, input).await?;
        let paid = self.balances(payee).await?.opg;
        Ok(Some((Amount(paid.wei().saturating_sub(before.wei())), sent)))
    }
}
