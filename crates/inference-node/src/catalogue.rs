//! The models that the node serves, with their terms on chain.

use crate::{
    attest::Attested,
    chain::Chain,
    closed::Closed,
    config::{EngineSettings, ModelConfig, ModelKind},
    engine,
    offer::Terms,
    rpc::RpcError,
    usd::{Oracle, Unpriced},
};
use alloy_primitives::B256;
use opg_artefact::MAX_ARTEFACT_BYTES;
use opg_integer_program::{MAX_PROGRAM_BYTES, program::Program};
use opg_models::{Format, Manifest};
use opg_primitives::{
    ids::{ModelRoot, NodeId},
    mode::{Grade, Mode},
    money::{Price, Usage, UsdPrice, charge},
};
use opg_runtime::{
    LoadOptions, LoadedModel, ModelRuntime, ModelSpec, Models, RuntimeError, runtime_digest, worker::EngineStatus,
};
use opg_zkml::{ParameterSet, Plan, RegisteredModel};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    io::Read as _,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// A model with its present terms.
#[derive(Debug)]
pub(crate) struct Served {
    pub(crate) model: ServedModel,
    /// Its exact integer program, if the node has one.
    pub(crate) program: Option<ProvableProgram>,
    terms: RwLock<OnChain>,
    /// Its price in USD, if it has one.
    usd: Option<UsdPrice>,
    oracle: Arc<Oracle>,
}

/// Terms of a model on chain.
#[derive(Debug, Clone, Copy)]
struct OnChain {
    /// This node's ask.
    ask: Price,
    royalty_bps: u16,
    /// The creator's price.
    reference: Price,
}

/// A model under its name and root.
#[derive(Debug)]
pub(crate) struct ServedModel {
    pub(crate) name: String,
    pub(crate) root: ModelRoot,
    /// What the root is the hash of, if the node has the model's files.
    pub(crate) manifest: Option<Manifest>,
    engine: Engine,
}

/// What answers.
#[derive(Debug)]
enum Engine {
    /// An engine of this process.
    Loaded(Arc<LoadedModel>),
    /// A provider.
    Closed(Closed),
}

impl ServedModel {
    /// The engine of this process that runs it, if one does.
    pub(crate) fn runtime(&self) -> Option<&ModelRuntime> {
        match &self.engine {
            Engine::Loaded(model) => Some(&model.runtime),
            Engine::Closed(_) => None,
        }
    }

    /// The provider that answers, if one does.
    pub(crate) const fn closed(&self) -> Option<&Closed> {
        match &self.engine {
            Engine::Closed(closed) => Some(closed),
            Engine::Loaded(_) => None,
        }
    }
}

/// An exact integer program with its weight commitment.
#[derive(Debug)]
pub(crate) struct ProvableProgram {
    pub(crate) model: RegisteredModel,
    /// The chain knows it as a program of the model.
    registered: AtomicBool,
}

impl ProvableProgram {
    /// Root that names it on chain.
    pub(crate) fn root(&self) -> B256 {
        self.model.root().0.into()
    }
}

/// What is loaded from files.
#[derive(Debug)]
pub(crate) struct Loaded {
    models: Models,
    closed: Vec<ServedModel>,
    /// Roots that the configuration names, by model.
    roots: HashMap<String, ModelRoot>,
    programs: HashMap<String, RegisteredModel>,
    usd: HashMap<String, UsdPrice>,
}

impl Served {
    /// Price and royalty that a quote carries now.
    fn ask(&self) -> Result<(Price, u16), Unpriced> {
        let on_chain = *self.terms.read().unwrap_or_else(PoisonError::into_inner);
        let ask = match &self.usd {
            Some(usd) => self.oracle.quote(usd, &on_chain.ask, &on_chain.reference)?,
            None => on_chain.ask,
        };
        Ok((ask, on_chain.royalty_bps))
    }

    /// What a request of at most this usage costs at most.
    pub(crate) fn terms(&self, most: Usage, mode: Mode, min_grade: Grade) -> Result<Terms, Unpriced> {
        let (ask, royalty_bps) = self.ask()?;
        Ok(Terms {
            floating: self.usd.is_some(),
            model_root: self.model.root,
            ask,
            royalty_bps,
            max_amount: charge(&ask, most, royalty_bps)?,
            mode,
            min_grade,
        })
    }

    /// The program that answers of mode zk are given and proven by.
    pub(crate) fn provable(&self) -> Option<&ProvableProgram> {
        self.program
            .as_ref()
            .filter(|program| program.registered.load(Ordering::Acquire))
    }

    /// Modes that requests may ask for.
    fn modes(&self, attested: bool) -> Vec<Mode> {
        let zk = self.provable().map(|_| Mode::Zk);
        let tee = attested.then_some(Mode::Tee);
        [Mode::None].into_iter().chain(tee).chain(zk).collect()
    }

    /// The model's kind.
    pub(crate) fn kind(&self) -> ModelKind {
        match self.model.runtime() {
            None => ModelKind::Upstream,
            Some(ModelRuntime::Llama(_)) => ModelKind::Gguf,
            Some(_) => ModelKind::Onnx,
        }
    }

    /// An entry of `/v1/models`.
    pub(crate) fn describe(&self, attested: Option<Attested>) -> Value {
        let now = self.ask();
        let on_chain = *self.terms.read().unwrap_or_else(PoisonError::into_inner);
        let mut entry = json!({
            "id": self.model.name,
            "object": "model",
            "created": 0,
            "owned_by": self.model.name.split('/').next().unwrap_or_default(),
            "root": self.model.root,
            "kind": self.kind().as_str(),
            "modes": self.modes(attested.is_some()),
            "royalty_bps": on_chain.royalty_bps,
        });
        match now {
            Ok((ask, _)) => {
                entry["price"] =
                    json!({"per_call": ask.per_call, "per_mtok_in": ask.per_mtok_in, "per_mtok_out": ask.per_mtok_out});
            }
            Err(why) => entry["unpriced"] = json!(why.to_string()),
        }
        if let Some(usd) = &self.usd {
            entry["price_micro_usd"] = json!(usd);
        }
        if let Some(attested) = attested {
            entry["attestation"] =
                json!({"evidence_id": attested.evidence_id, "grade": attested.grade, "until": attested.until});
        }
        if let Some(program) = self.provable() {
            entry["program"] = json!(program.root());
        }
        if let Some(closed) = self.model.closed() {
            entry["upstream"] =
                json!({"provider": closed.provider().as_str(), "host": closed.host(), "model": closed.model()});
        }
        match self.model.runtime() {
            Some(ModelRuntime::Onnx(onnx)) => entry["signature"] = json!(onnx.signature()),
            Some(ModelRuntime::Llama(llama)) => entry["context_length"] = json!(llama.context_length()),
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
    /// A closed model's section cannot be used.
    #[error("model {model}: upstream.{source}")]
    Closed {
        /// Name of the model.
        model: String,
        /// What is wrong.
        source: opg_upstream::ConfigError,
    },
    /// The chain does not answer.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// An integer program cannot be used.
    #[error("program {} of model {model}: {reason}", .path.display())]
    Program {
        /// Name of the model.
        model: String,
        /// File of the program.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The file changed between its check and its use.
    #[error("model {name}: the file loaded has root {got}, expected {expected}")]
    OtherRoot {
        /// Name in the configuration.
        name: String,
        /// Root in the configuration.
        expected: ModelRoot,
        /// Root of the file.
        got: ModelRoot,
    },
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
    oracle: Arc<Oracle>,
    pub(crate) runtime: B256,
}

impl Catalogue {
    /// Loads the files. Blocks while it hashes and maps weights.
    pub(crate) fn load(models: &[ModelConfig], settings: &EngineSettings) -> Result<Loaded, CatalogueError> {
        let specs: Vec<ModelSpec> = models
            .iter()
            .filter_map(|model| {
                let kind = match model.kind {
                    ModelKind::Onnx => Format::Onnx,
                    ModelKind::Gguf => Format::Gguf,
                    ModelKind::Upstream => return None,
                };
                Some(ModelSpec {
                    name: model.name.clone(),
                    path: model.path.clone(),
                    kind,
                })
            })
            .collect();
        let mut closed = Vec::new();
        for model in models {
            if let Some(opened) = Closed::open(model) {
                let opened = opened.map_err(|source| CatalogueError::Closed {
                    model: model.name.clone(),
                    source,
                })?;
                closed.push(ServedModel {
                    name: model.name.clone(),
                    root: opened.root(),
                    manifest: None,
                    engine: Engine::Closed(opened),
                });
            }
        }
        let options = LoadOptions {
            onnx: settings.options(),
            ..LoadOptions::default()
        };
        let mut programs = HashMap::new();
        for model in models {
            if let Some(path) = &model.program {
                programs.insert(model.name.clone(), load_program(&model.name, path)?);
            }
        }
        let usd = models.iter().filter_map(|model| Some((model.name.clone(), model.usd?)));
        let usd = usd.collect();
        let loaded = Models::load(&specs, &options)?;
        engine::announce(settings, loaded.engine());
        let mut roots = HashMap::new();
        for model in models {
            let (Some(hub), Some(loaded)) = (&model.hub, loaded.get(&model.name)) else {
                continue;
            };
            if loaded.manifest.with_root(hub.root).is_none() {
                return Err(CatalogueError::OtherRoot {
                    name: model.name.clone(),
                    expected: hub.root,
                    got: loaded.root,
                });
            }
            roots.insert(model.name.clone(), hub.root);
        }
        Ok(Loaded {
            usd,
            roots,
            models: loaded,
            closed,
            programs,
        })
    }

    /// Joins loaded models with their terms on chain.
    pub(crate) async fn open(loaded: Loaded, chain: &Chain, node_id: NodeId) -> Result<Self, CatalogueError> {
        let Loaded {
            models,
            closed,
            roots,
            mut programs,
            mut usd,
        } = loaded;
        let oracle = Arc::new(Oracle::default());
        if !usd.is_empty()
            && let Err(error) = oracle.refresh(chain).await
        {
            tracing::warn!(%error, "the price oracle cannot be read: models with prices in USD are not sold yet");
        }
        let mut served = Vec::new();
        let mut named = Vec::new();
        for model in models.iter() {
            let manifest = match roots.get(&model.name) {
                Some(root) => model.manifest.with_root(*root),
                None => Some(registered_version(chain, &model.manifest).await?),
            };
            let manifest = manifest.unwrap_or_else(|| model.manifest.clone());
            named.push(ServedModel {
                name: model.name.clone(),
                root: manifest.root().map_err(RuntimeError::from)?,
                manifest: Some(manifest),
                engine: Engine::Loaded(Arc::clone(model)),
            });
        }
        for model in named.into_iter().chain(closed) {
            let terms = read_terms(chain, node_id, &model).await?;
            let program = match programs.remove(&model.name) {
                None => None,
                Some(program) => {
                    let registered = is_registered(chain, &model, &program).await?;
                    if !registered {
                        tracing::warn!(
                            model = model.name,
                            program = %B256::from(program.root().0),
                            "the program is not registered for the model: mode zk is not served"
                        );
                    }
                    Some(ProvableProgram {
                        model: program,
                        registered: registered.into(),
                    })
                }
            };
            served.push(Arc::new(Served {
                usd: usd.remove(&model.name),
                oracle: Arc::clone(&oracle),
                model,
                program,
                terms: RwLock::new(terms),
            }));
        }
        Ok(Self {
            served,
            oracle,
            runtime: runtime_digest(),
        })
    }

    /// Whether a model has its price in USD.
    pub(crate) fn needs_oracle(&self) -> bool {
        self.served.iter().any(|served| served.usd.is_some())
    }

    /// Where the ONNX models run; none if there are none.
    pub(crate) fn engine(&self) -> Option<EngineStatus> {
        let onnx = self.served.iter().filter_map(|served| match served.model.runtime() {
            Some(ModelRuntime::Onnx(onnx)) => Some(onnx.engine()),
            _ => None,
        });
        onnx.reduce(EngineStatus::and)
    }

    /// Asks the price oracle again.
    pub(crate) async fn refresh_oracle(&self, chain: &Chain) {
        if let Err(error) = self.oracle.refresh(chain).await {
            tracing::debug!(%error, "price oracle not read");
        }
    }

    /// Reads the terms again. What cannot be read keeps its last terms.
    pub(crate) async fn refresh(&self, chain: &Chain, node_id: NodeId) {
        for served in &self.served {
            match read_terms(chain, node_id, &served.model).await {
                Ok(terms) => *served.terms.write().unwrap_or_else(PoisonError::into_inner) = terms,
                Err(error) => tracing::debug!(%error, model = served.model.name, "terms not refreshed"),
            }
            // Registrations are final: what was found once need not be looked up again.
            if let Some(program) = &served.program
                && !program.registered.load(Ordering::Acquire)
                && matches!(is_registered(chain, &served.model, &program.model).await, Ok(true))
            {
                program.registered.store(true, Ordering::Release);
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

/// Reads a program, checks it and commits to its weights.
fn load_program(model: &str, path: &Path) -> Result<RegisteredModel, CatalogueError> {
    let refuse = |reason: String| CatalogueError::Program {
        model: model.to_owned(),
        path: path.to_owned(),
        reason,
    };
    let file = std::fs::File::open(path).map_err(|error| refuse(error.to_string()))?;
    let mut bytes = Vec::new();
    file.take(MAX_PROGRAM_BYTES as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| refuse(error.to_string()))?;
    let program = Program::decode(&bytes).map_err(|error| refuse(error.to_string()))?;
    // What cannot be proven must not be promised.
    Plan::new(&program.graph, 1).map_err(|error| refuse(error.to_string()))?;
    let registered = RegisteredModel::new(program, ParameterSet::Bits100).map_err(|error| refuse(error.to_string()))?;
    let graph = registered.verifying_key().graph.encode().len();
    if graph > MAX_ARTEFACT_BYTES / 2 {
        let limit = MAX_ARTEFACT_BYTES / 2;
        return Err(refuse(format!(
            "its graph has {graph} bytes, proofs of receipts carry at most {limit}"
        )));
    }
    Ok(registered)
}

/// Under which of its roots a file of this machine is registered: under several, the one that was committed to first; the
/// newest if it is under none.
async fn registered_version(chain: &Chain, manifest: &Manifest) -> Result<Manifest, CatalogueError> {
    let mut first: Option<(u64, Manifest)> = None;
    for version in manifest.versions() {
        let root = version.root().map_err(RuntimeError::from)?;
        if let Some(block) = chain.model_committed(root.0).await?
            && first.as_ref().is_none_or(|(earlier, _)| block < *earlier)
        {
            first = Some((block, version));
        }
    }
    Ok(first.map_or_else(|| manifest.clone(), |(_, version)| version))
}

async fn is_registered(chain: &Chain, model: &ServedModel, program: &RegisteredModel) -> Result<bool, RpcError> {
    let report = chain.program(model.root.0, program.root().0.into()).await?;
    Ok(report.is_some())
}

async fn read_terms(chain: &Chain, node_id: NodeId, model: &ServedModel) -> Result<OnChain, CatalogueError> {
    let (terms, ask) = futures::try_join!(chain.model(model.root.0), chain.ask(node_id.0, model.root.0))?;
    let terms = terms.ok_or_else(|| CatalogueError::Unregistered {
        name: model.name.clone(),
        root: model.root,
    })?;
    Ok(OnChain {
        ask,
        royalty_bps: terms.royalty_bps,
        reference: terms.price,
    })
}
