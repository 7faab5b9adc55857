//! The models that the node serves, with their terms on chain.

use crate::{
    chain::Chain,
    config::{ModelConfig, ModelKind},
    offer::Terms,
    rpc::RpcError,
};
use alloy_primitives::B256;
use opg_models::Format;
use opg_primitives::{
    ids::{ModelRoot, NodeId},
    money::{MoneyError, Price, Usage, charge},
};
use opg_runtime::{
    LoadOptions, LoadedModel, ModelRuntime, ModelSpec, Models, RuntimeError, onnx::OnnxOptions, runtime_digest,
};
use serde_json::{Value, json};
use std::sync::{Arc, PoisonError, RwLock};

/// A model with its present terms.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) model: Arc<LoadedModel>,
    terms: RwLock<(Price, u16)>,
}

impl Served {
    /// Price and royalty that a quote carries now.
    fn ask(&self) -> (Price, u16) {
        *self.terms.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a request of at most this usage costs at most.
    pub(crate) fn terms(&self, most: Usage) -> Result<Terms, MoneyError> {
        let (ask, royalty_bps) = self.ask();
        Ok(Terms {
            model_root: self.model.root,
            ask,
            royalty_bps,
            max_amount: charge(&ask, most, royalty_bps)?,
        })
    }

    /// The model's kind.
    pub(crate) fn kind(&self) -> ModelKind {
        match self.model.runtime {
            ModelRuntime::Llama(_) => ModelKind::Gguf,
            _ => ModelKind::Onnx,
        }
    }

    /// An entry of `/v1/models`.
    pub(crate) fn describe(&self) -> Value {
        let (ask, royalty_bps) = self.ask();
        let mut entry = json!({
            "id": self.model.name,
            "object": "model",
            "created": 0,
            "owned_by": self.model.name.split('/').next().unwrap_or_default(),
            "root": self.model.root,
            "kind": self.kind().as_str(),
            "modes": ["none"],
            "price": {"per_call": ask.per_call, "per_mtok_in": ask.per_mtok_in, "per_mtok_out": ask.per_mtok_out},
            "royalty_bps": royalty_bps,
        });
        match &self.model.runtime {
            ModelRuntime::Onnx(onnx) => entry["signature"] = json!(onnx.signature()),
            ModelRuntime::Llama(llama) => entry["context_length"] = json!(llama.context_length()),
            _ => {}
        }
        entry
    }
}

/// Why the models cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CatalogueError {
    /// A file cannot be loaded.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    /// The chain does not answer.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// The model is not on chain: a receipt for it would be refused.
    #[error("model {name} (root {root}) is not registered on chain")]
    Unregistered {
        /// Name in the configuration.
        name: String,
        /// Its content root.
        root: ModelRoot,
    },
}

/// All models of the node.
#[derive(Debug)]
pub(crate) struct Catalogue {
    served: Vec<Arc<Served>>,
    pub(crate) runtime: B256,
}

impl Catalogue {
    /// Loads the files. Blocks while it hashes and maps weights.
    pub(crate) fn load(models: &[ModelConfig]) -> Result<Models, RuntimeError> {
        let specs: Vec<ModelSpec> = models
            .iter()
            .map(|model| ModelSpec {
                name: model.name.clone(),
                path: model.path.clone(),
                kind: match model.kind {
                    ModelKind::Onnx => Format::Onnx,
                    ModelKind::Gguf => Format::Gguf,
                },
            })
            .collect();
        let sessions = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
        let options = LoadOptions {
            onnx: OnnxOptions {
                sessions,
                ..OnnxOptions::default()
            },
            ..LoadOptions::default()
        };
        Models::load(&specs, &options)
    }

    /// Joins loaded models with their terms on chain.
    pub(crate) async fn open(models: &Models, chain: &Chain, node_id: NodeId) -> Result<Self, CatalogueError> {
        let mut served = Vec::new();
        for model in models.iter() {
            let terms = read_terms(chain, node_id, model).await?;
            served.push(Arc::new(Served {
                model: Arc::clone(model),
                terms: RwLock::new(terms),
            }));
        }
        Ok(Self {
            served,
            runtime: runtime_digest(),
        })
    }

    /// Reads the terms again. What cannot be read keeps its last terms.
    pub(crate) async fn refresh(&self, chain: &Chain, node_id: NodeId) {
        for served in &self.served {
            match read_terms(chain, node_id, &served.model).await {
                Ok(terms) => *served.terms.write().unwrap_or_else(PoisonError::into_inner) = terms,
                Err(error) => tracing::debug!(%error, model = served.model.name, "terms not refreshed"),
            }
        }
    }

    /// A model by name, or by content root in hex.
    pub(crate) fn find(&self, asked: &str) -> Option<&Arc<Served>> {
        let by_name = self.served.iter().find(|s| s.model.name == asked);
        by_name.or_else(|| {
            let root: ModelRoot = asked.parse().ok()?;
            self.served.iter().find(|s| s.model.root == root)
        })
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Served>> {
        self.served.iter()
    }
}

async fn read_terms(chain: &Chain, node_id: NodeId, model: &LoadedModel) -> Result<(Price, u16), CatalogueError> {
    let (terms, ask) = futures::try_join!(chain.model(model.root.0), chain.ask(node_id.0, model.root.0))?;
    let terms = terms.ok_or_else(|| CatalogueError::Unregistered {
        name: model.name.clone(),
        root: model.root,
    })?;
    Ok((ask, terms.royalty_bps))
}
