//! The models of one node.

use crate::{
    RuntimeError,
    llm::{Llama, LlamaOptions},
    onnx::{OnnxModel, OnnxOptions},
    worker::EngineStatus,
};
use opg_models::{Format, Manifest, ManifestVersion, ModelRoot};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// One model of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelSpec {
    /// Name under which it is served: `owner/name`.
    pub name: String,
    /// Its file.
    pub path: PathBuf,
    /// How the file is read.
    pub kind: Format,
}

/// How models are loaded.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// For ONNX models.
    pub onnx: OnnxOptions,
    /// For language models.
    pub llama: LlamaOptions,
}

/// A model that can answer.
#[derive(Debug)]
#[non_exhaustive]
pub enum ModelRuntime {
    /// Tensors in, tensors out.
    Onnx(OnnxModel),
    /// Text in, text out.
    Llama(Llama),
}

/// A model with its names.
#[derive(Debug)]
pub struct LoadedModel {
    /// Name under which it is served.
    pub name: String,
    /// Content root of the newest version.
    pub root: ModelRoot,
    /// Files behind the root; [`Manifest::versions`] has those of older roots, which may be what is registered.
    pub manifest: Manifest,
    /// What runs it.
    pub runtime: ModelRuntime,
}

/// All models of a node, by name and by root. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Models {
    by_name: BTreeMap<String, Arc<LoadedModel>>,
    by_root: BTreeMap<ModelRoot, Arc<LoadedModel>>,
}

impl Models {
    /// Reads, checks, hashes and loads every model of a configuration.
    ///
    /// # Errors
    /// The first model that cannot be served, or a name that is not `owner/name` or is used twice.
    pub fn load(specs: &[ModelSpec], options: &LoadOptions) -> Result<Self, RuntimeError> {
        let mut models = Self::default();
        for spec in specs {
            check_name(&spec.name).map_err(|reason| name_error(&spec.name, reason))?;
            if models.by_name.contains_key(&spec.name) {
                return Err(name_error(&spec.name, "is used twice"));
            }
            let bytes = std::fs::read(&spec.path).map_err(|source| RuntimeError::Read {
                path: spec.path.clone(),
                source,
            })?;
            let manifest = Manifest::single(ManifestVersion::NEWEST, spec.kind, &bytes);
            let root = manifest.root()?;
            let runtime = match spec.kind {
                Format::Onnx => ModelRuntime::Onnx(load_onnx(spec, &bytes, &manifest, options)?),
                Format::Gguf => ModelRuntime::Llama(Llama::load_gguf(&bytes, &options.llama)?),
                other => {
                    return Err(RuntimeError::Model {
                        reason: format!("no engine reads {other}"),
                    });
                }
            };
            let model = Arc::new(LoadedModel {
                name: spec.name.clone(),
                root,
                manifest,
                runtime,
            });
            for older in model.manifest.versions() {
                models.by_root.insert(older.root()?, Arc::clone(&model));
            }
            models.by_name.insert(spec.name.clone(), model);
        }
        Ok(models)
    }

    /// The model served under a name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<LoadedModel>> {
        self.by_name.get(name)
    }

    /// The model with a content root of any version. Of two names for one root, the one loaded last.
    #[must_use]
    pub fn by_root(&self, root: ModelRoot) -> Option<&Arc<LoadedModel>> {
        self.by_root.get(&root)
    }

    /// All models, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<LoadedModel>> {
        self.by_name.values()
    }

    /// Where the ONNX models run, all together; none if there are none.
    #[must_use]
    pub fn engine(&self) -> Option<EngineStatus> {
        let onnx = self.iter().filter_map(|model| match &model.runtime {
            ModelRuntime::Onnx(onnx) => Some(onnx.engine()),
            ModelRuntime::Llama(_) => None,
        });
        onnx.reduce(EngineStatus::and)
    }

    /// Number of models.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there is no model.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

fn load_onnx(
    spec: &ModelSpec,
    bytes: &[u8],
    manifest: &Manifest,
    options: &LoadOptions,
) -> Result<OnnxModel, RuntimeError> {
    match manifest.files.iter().find(|file| file.path == manifest.entry) {
        Some(file) => OnnxModel::load_read(bytes, &spec.path, file.sha256, &options.onnx),
        None => OnnxModel::load(bytes, &options.onnx),
    }
}

fn name_error(name: &str, reason: &'static str) -> RuntimeError {
    RuntimeError::Name {
        name: name.chars().take(80).collect(),
        reason,
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    const SHAPE: &str = "expected owner/name of ASCII letters, digits and ._-, at most 96 bytes";
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    match name.split_once('/') {
        Some((owner, rest)) if name.len() <= 96 && part(owner) && part(rest) => Ok(()),
        _ => Err(SHAPE),
    }
}
