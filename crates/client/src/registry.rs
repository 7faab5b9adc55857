//! The registries as a client reads them: models, asks, keysets.

use alloy_primitives::{Address, B256};
use opg_contracts::{ModelRegistry, NodeRegistry, addresses};
use opg_primitives::{
    ids::{Keyset, KeysetDigest, ModelRoot, NodeId, deposit_address, parse_b256},
    money::{Amount, Price},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Client, ClientError,
    model_uri::ModelUri,
    network::NodeEntry,
    offer::RegisteredKeyset,
    rpc::{read_body, root_cause},
};

const MAX_MODEL_LIST: usize = 4 << 20;

/// The part of `/v1/keyset` that is not on chain in the clear.
#[derive(Debug, Deserialize)]
struct PublishedKeyset {
    keyset: Keyset,
}

/// A registered model and what it costs at the node that this network names for it.
#[derive(Debug, Clone, Serialize)]
pub struct Model {
    /// Name in the registry.
    pub name: String,
    /// Content root.
    pub root: ModelRoot,
    /// Page of its repository, as the creator registered it; anybody can name any page.
    pub page: Option<String>,
    /// Licence at the registration.
    pub license: Option<String>,
    /// Who gets the royalty.
    pub creator: Address,
    /// Royalty in basis points of the charge.
    pub royalty_bps: u16,
    /// The creator's reference price.
    pub reference_price: Price,
    /// The node's ask; all zero if it does not serve the model.
    pub ask: Price,
    /// The node.
    pub node: B256,
    /// Its URL.
    pub url: String,
    /// Whether the node lists the model right now.
    pub served: bool,
    /// What the node says about it: format, inputs, outputs, context.
    #[serde(skip_serializing_if = "serde_json::Value::is_null")]
    pub details: serde_json::Value,
}

/// What the registry says about a root, whoever serves it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Registered {
    /// Name in the registry, cleaned for printing.
    pub name: String,
    /// Page of its repository, as the creator registered it; anybody can name any page.
    pub page: Option<String>,
    /// Licence at the registration.
    pub license: Option<String>,
    /// Who gets the royalty.
    pub creator: Address,
    /// Royalty in basis points of the charge.
    pub royalty_bps: u16,
    /// The creator's reference price.
    pub price: Price,
    /// Block of the commitment that came first; 0 for models of the genesis.
    pub committed_at: u64,
}

#[derive(Debug, Deserialize)]
struct ModelList {
    data: Vec<serde_json::Value>,
}

impl Client {
    /// All models that the network's nodes list, with their registry entries.
    ///
    /// # Errors
    /// If the node or every full node is away.
    pub async fn models(&self) -> Result<Vec<Model>, ClientError> {
        let node = self.any_node()?;
        let listed = self.listed(&node).await?;
        let mut models = Vec::new();
        for item in listed {
            // A listing is only a hint: what is not in the registry under this root is not offered.
            if let Some((root, name)) = listed_root(&item)
                && let Some(model) = self.registered(&node, root, Some(&item)).await?
                && model.name == name
            {
                models.push(model);
            }
        }
        Ok(models)
    }

    /// One model, by name or content root. Names of the genesis file are taken from it; others from the node's list, if the
    /// registry agrees.
    ///
    /// # Errors
    /// [`ClientError::UnknownModel`] if it is not registered.
    pub async fn model(&self, asked: &str) -> Result<Model, ClientError> {
        let node = self.node_for(asked)?;
        let listed = self.listed(&node).await?;
        let genesis = &self.network().genesis;
        let root = match parse_b256(asked) {
            Some(root) => Some(ModelRoot(root)),
            None => genesis
                .models
                .iter()
                .find(|model| model.name == asked)
                .map(|model| ModelRoot(model.root))
                .or_else(|| {
                    listed
                        .iter()
                        .filter_map(listed_root)
                        .find(|(_, name)| name == asked)
                        .map(|(root, _)| root)
                }),
        };
        let unknown = || ClientError::UnknownModel {
            model: crate::text::one_line(asked, 200),
        };
        let root = root.ok_or_else(unknown)?;
        let item = listed
            .iter()
            .find(|item| listed_root(item).is_some_and(|(listed, _)| listed == root));
        let model = self.registered(&node, root, item).await?.ok_or_else(unknown)?;
        if parse_b256(asked).is_none() && model.name != asked {
            return Err(unknown());
        }
        Ok(model)
    }

    /// The registration of a root; `None` if nobody has registered it.
    ///
    /// # Errors
    /// If every full node is away.
    pub async fn registration(&self, root: ModelRoot) -> Result<Option<Registered>, ClientError> {
        let call = ModelRegistry::modelsCall { modelRoot: root.0 };
        let model = self.view(addresses::MODEL_REGISTRY, call).await?;
        let uri = ModelUri::read(&model.uri);
        Ok((!model.creator.is_zero()).then(|| Registered {
            name: crate::text::one_line(&model.name, 200),
            page: uri.as_ref().map(|uri| uri.page.clone()),
            license: uri.and_then(|uri| uri.license),
            creator: model.creator,
            royalty_bps: model.royaltyBps,
            price: Price {
                per_call: Amount(model.price.perCall),
                per_mtok_in: Amount(model.price.perMtokIn),
                per_mtok_out: Amount(model.price.perMtokOut),
            },
            committed_at: model.committedAt,
        }))
    }

    /// Terms for paying `asked`: without the node's list, so that the hot path makes few calls.
    pub(crate) async fn terms(&self, node: &NodeEntry, asked: &str) -> Result<Model, ClientError> {
        let known = self.network().genesis.models.iter().find(|model| model.name == asked);
        let root = parse_b256(asked).or_else(|| known.map(|model| model.root));
        match root {
            Some(root) => {
                self.registered(node, ModelRoot(root), None)
                    .await?
                    .ok_or_else(|| ClientError::UnknownModel {
                        model: crate::text::one_line(asked, 200),
                    })
            }
            None => self.model(asked).await,
        }
    }

    async fn registered(
        &self,
        node: &NodeEntry,
        root: ModelRoot,
        listed: Option<&serde_json::Value>,
    ) -> Result<Option<Model>, ClientError> {
        let model = self.view(
            addresses::MODEL_REGISTRY,
            ModelRegistry::modelsCall { modelRoot: root.0 },
        );
        let ask = self.view(
            addresses::NODE_REGISTRY,
            NodeRegistry::asksCall {
                nodeId: node.id,
                modelRoot: root.0,
            },
        );
        let (model, ask) = futures::try_join!(model, ask)?;
        if model.creator.is_zero() {
            return Ok(None);
        }
        let uri = ModelUri::read(&model.uri);
        Ok(Some(Model {
            name: crate::text::one_line(&model.name, 200),
            root,
            page: uri.as_ref().map(|uri| uri.page.clone()),
            license: uri.and_then(|uri| uri.license),
            creator: model.creator,
            royalty_bps: model.royaltyBps,
            reference_price: Price {
                per_call: Amount(model.price.perCall),
                per_mtok_in: Amount(model.price.perMtokIn),
                per_mtok_out: Amount(model.price.perMtokOut),
            },
            ask: Price {
                per_call: Amount(ask.perCall),
                per_mtok_in: Amount(ask.perMtokIn),
                per_mtok_out: Amount(ask.perMtokOut),
            },
            node: node.id,
            url: node.url.clone(),
            served: listed.is_some(),
            details: listed.cloned().unwrap_or_default(),
        }))
    }

    async fn listed(&self, node: &NodeEntry) -> Result<Vec<serde_json::Value>, ClientError> {
        let list: ModelList = self.get_from(&node.url, "/v1/models").await?;
        Ok(list.data)
    }

    /// Names of the models that a node lists.
    pub(crate) async fn models_at(&self, url: &str) -> Result<Vec<String>, ClientError> {
        let list: ModelList = self.get_from(url, "/v1/models").await?;
        let names = list.data.iter().filter_map(|item| item["id"].as_str());
        Ok(names.map(|name| crate::text::one_line(name, 200)).collect())
    }

    /// A JSON document of a node.
    async fn get_from<T: DeserializeOwned>(&self, url: &str, path: &str) -> Result<T, ClientError> {
        let unreachable = |reason| ClientError::NodeUnreachable {
            url: url.to_owned(),
            reason,
        };
        let response = self
            .http
            .get(format!("{url}{path}"))
            .timeout(crate::HEALTH_TIMEOUT)
            .send()
            .await
            .map_err(|error| unreachable(root_cause(&error)))?;
        let bytes = read_body(response, MAX_MODEL_LIST)
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|error| ClientError::NodeAnswer {
            what: format!("{path}: {error}"),
        })
    }

    /// What a node says its keys are.
    pub(crate) async fn published_keyset(&self, url: &str) -> Result<Keyset, ClientError> {
        Ok(self.get_from::<PublishedKeyset>(url, "/v1/keyset").await?.keyset)
    }

    /// The keyset behind a quote, with the node's whole record; `None` if it is not registered. Keys for encryption and TLS are
    /// asked from the node at `url`: the chain has their digest.
    pub(crate) async fn keyset(
        &self,
        digest: KeysetDigest,
        url: &str,
    ) -> Result<Option<(RegisteredKeyset, Keyset)>, ClientError> {
        let record = self
            .view(
                addresses::NODE_REGISTRY,
                NodeRegistry::keysetsCall { keysetDigest: digest.0 },
            )
            .await?;
        if record.registeredAt.is_zero() {
            return Ok(None);
        }
        let plain = Keyset {
            node_id: NodeId(record.nodeId),
            receipt_key: record.receiptKey,
            settlement_key: record.settlementKey,
            hpke_key: B256::ZERO,
            tls_spki: B256::ZERO,
        };
        let keyset = if plain.digest() == digest {
            plain
        } else {
            self.published_keyset(url).await?
        };
        if keyset.digest() != digest {
            return Err(ClientError::Proof {
                what: format!("the keys that the node publishes are not those of the registered keyset {digest}"),
            });
        }
        let registered = RegisteredKeyset {
            node_id: keyset.node_id,
            receipt_key: keyset.receipt_key,
            revoked: !record.revokedAt.is_zero(),
        };
        Ok(Some((registered, keyset)))
    }

    /// Where payments for a node must go (D1). Computed here, not asked for.
    pub fn deposit_address(&self, node: NodeId) -> Address {
        deposit_address(addresses::FEE_VAULT, addresses::DEPOSIT_IMPLEMENTATION, node)
    }

    pub(crate) fn node_for(&self, model: &str) -> Result<NodeEntry, ClientError> {
        self.network()
            .inference_node(model)
            .cloned()
            .ok_or(ClientError::NoInferenceNode)
    }

    fn any_node(&self) -> Result<NodeEntry, ClientError> {
        self.node_for("")
    }
}

/// Root and name of an item of `/v1/models`.
fn listed_root(item: &serde_json::Value) -> Option<(ModelRoot, String)> {
    let name = item.get("id")?.as_str()?;
    let root = parse_b256(item.get("root")?.as_str()?)?;
    Some((ModelRoot(root), name.to_owned()))
}
