//! ONNX models through ONNX Runtime.

pub(crate) mod engine;
mod input;
pub mod library;
mod output;
pub(crate) mod pool;
mod signature;
pub(crate) mod value;

pub use signature::{Port, Signature};

use crate::{
    InputError, RuntimeError,
    worker::{EngineStatus, Sandbox, Source, Supervisor, WorkerFault, WorkerOptions},
};
use engine::{Engine, Ports};
use opg_models::onnx::{OnnxHeader, ValueInfo, ValueType};
use opg_primitives::{B256, hash};
use pool::Pool;
use serde_json::{Map, Value};
use std::{
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

/// How an ONNX model is loaded and what it accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxOptions {
    /// Threads of one run. More than the cores that the node owns makes it many times slower.
    pub threads: usize,
    /// Runs at the same time. Each has a session with its own copy of the weights, and its own worker. JSON is read and
    /// checked outside of a session, so for models as small as the digits more sessions than one make no difference
    /// (measured in one process: 26 000 calls/s on 2 cores either way); a model that computes for milliseconds wants one
    /// per core.
    pub sessions: usize,
    /// Most elements of all inputs of a call.
    pub input_elements: usize,
    /// Most elements of all outputs of a call.
    pub output_elements: usize,
    /// Where sessions run: in this process by default.
    pub worker: WorkerOptions,
}

impl Default for OnnxOptions {
    fn default() -> Self {
        Self {
            threads: 1,
            sessions: 1,
            input_elements: 1 << 22,
            output_elements: 1 << 22,
            worker: WorkerOptions::default(),
        }
    }
}

/// A loaded model. Calls from several threads share its sessions and wait for a free one.
#[derive(Debug)]
pub struct OnnxModel {
    id: u64,
    header: OnnxHeader,
    signature: Signature,
    input_elements: usize,
    output_elements: usize,
    backend: Backend,
}

/// Where the sessions are.
#[derive(Debug)]
enum Backend {
    /// In this process.
    Here(Pool<Engine>),
    /// In workers.
    Workers(Supervisor),
}

/// Inputs that passed every check for one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    model: u64,
    inputs: Vec<value::Tensor>,
}

impl Prepared {
    /// Number of elements of all inputs.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.inputs
            .iter()
            .map(|input| input.shape.iter().product::<usize>())
            .sum()
    }
}

impl OnnxModel {
    /// Checks a file and loads it.
    ///
    /// # Errors
    /// [`RuntimeError::Onnx`] if the file is not accepted, [`RuntimeError::Model`] if a call could not carry its
    /// inputs or outputs or the engine refuses it, or an error of the library.
    pub fn load(bytes: &[u8], options: &OnnxOptions) -> Result<Self, RuntimeError> {
        Self::load_from(bytes, || Source::Memory(bytes.into()), options)
    }

    /// As [`Self::load`], from the bytes of a file. The file is read again when a worker has to be started again; if it has
    /// another hash then, calls fail.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_read(bytes: &[u8], path: &Path, sha256: B256, options: &OnnxOptions) -> Result<Self, RuntimeError> {
        let path = path.to_owned();
        Self::load_from(bytes, || Source::File { path, sha256 }, options)
    }

    fn load_from(bytes: &[u8], source: impl FnOnce() -> Source, options: &OnnxOptions) -> Result<Self, RuntimeError> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let header = OnnxHeader::parse(bytes)?;
        for info in &header.inputs {
            if !matches!(&info.ty, ValueType::Tensor { dtype, .. } if signature::is_json(*dtype)) {
                return Err(unservable(info, "input"));
            }
        }
        for info in &header.outputs {
            if !is_output(&info.ty) {
                return Err(unservable(info, "output"));
            }
        }
        let names = |infos: &[ValueInfo]| infos.iter().map(|info| info.name.clone()).collect();
        let ports = Ports {
            inputs: names(&header.inputs),
            outputs: names(&header.outputs),
        };
        let worker = &options.worker;
        let backend = match (worker.sandbox, &worker.program) {
            (Sandbox::Required | Sandbox::BestEffort, Some(program)) => Backend::Workers(Supervisor::start(
                bytes,
                source(),
                ports,
                &header.outputs,
                program.clone(),
                options,
            )?),
            (Sandbox::Required, None) => {
                let missing = "program to run as a worker".to_owned();
                return Err(WorkerFault::NotLocked { missing }.into());
            }
            (Sandbox::BestEffort | Sandbox::Off, _) => Backend::Here(here(bytes, &ports, options)?),
        };
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            signature: Signature::new(&header.inputs, &header.outputs),
            header,
            input_elements: options.input_elements,
            output_elements: options.output_elements,
            backend,
        })
    }

    /// Reads, checks and loads a file.
    ///
    /// # Errors
    /// [`RuntimeError::Read`], or as [`OnnxModel::load`].
    pub fn load_file(path: &Path, options: &OnnxOptions) -> Result<Self, RuntimeError> {
        let bytes = std::fs::read(path).map_err(|source| RuntimeError::Read {
            path: path.to_owned(),
            source,
        })?;
        let source = || Source::File {
            path: path.to_owned(),
            sha256: hash::sha256(&bytes),
        };
        Self::load_from(&bytes, source, options)
    }

    /// Names, element types and shapes.
    #[must_use]
    pub const fn signature(&self) -> &Signature {
        &self.signature
    }

    /// What the file declares.
    #[must_use]
    pub const fn header(&self) -> &OnnxHeader {
        &self.header
    }

    /// Reads `{input name: nested lists}`. Does not touch the engine: a node calls it before it takes a payment.
    ///
    /// Numbers for `f32` and `f64`; integers without fraction or exponent for integer types; `true` and `false` for
    /// `bool`; texts for `string`. Texts that spell NaN or infinity are refused like every other text.
    ///
    /// # Errors
    /// [`RuntimeError::Input`] naming input and index, what was expected and what was there.
    pub fn validate(&self, input: &Value) -> Result<Prepared, RuntimeError> {
        let inputs = input::read(input, &self.header.inputs, self.input_elements)?;
        Ok(Prepared { model: self.id, inputs })
    }

    /// Runs the model. Blocks while it computes and while all sessions are busy.
    ///
    /// Returns `{output name: nested lists}`; sequences are lists, maps are objects with text keys.
    ///
    /// # Errors
    /// [`RuntimeError::Engine`] if the engine fails, [`RuntimeError::Worker`] if its process does,
    /// [`RuntimeError::OutputTooLarge`], or [`InputError::WrongModel`] for inputs of another model.
    pub fn run(&self, prepared: Prepared) -> Result<Value, RuntimeError> {
        if prepared.model != self.id {
            return Err(InputError::WrongModel.into());
        }
        let outputs = match &self.backend {
            Backend::Here(pool) => pool.take().get().run(prepared.inputs, self.output_elements)?,
            Backend::Workers(workers) => workers.run(&prepared.inputs)?,
        };
        let names = self.header.outputs.iter().map(|info| info.name.clone());
        Ok(Value::Object(Map::from_iter(
            names.zip(outputs.into_iter().map(output::write)),
        )))
    }

    /// Where the sessions run, and what became of their processes.
    #[must_use]
    pub fn engine(&self) -> EngineStatus {
        match &self.backend {
            Backend::Here(_) => EngineStatus::default(),
            Backend::Workers(workers) => workers.status(),
        }
    }

    /// Process ids of the workers that wait for a call; none if sessions run in this process.
    #[must_use]
    pub fn idle_workers(&self) -> Vec<u32> {
        match &self.backend {
            Backend::Here(_) => Vec::new(),
            Backend::Workers(workers) => workers.idle_ids(),
        }
    }
}

/// Sessions in this process.
fn here(bytes: &[u8], ports: &Ports, options: &OnnxOptions) -> Result<Pool<Engine>, RuntimeError> {
    let sessions = (0..options.sessions.max(1))
        .map(|_| {
            let engine = Engine::load(bytes, options.threads)?;
            if engine.ports() == ports {
                Ok(engine)
            } else {
                Err(RuntimeError::Model {
                    reason: "engine and file disagree about the signature".into(),
                })
            }
        })
        .collect::<Result<Vec<_>, RuntimeError>>()?;
    Ok(Pool::new(sessions))
}

fn unservable(info: &ValueInfo, what: &str) -> RuntimeError {
    RuntimeError::Model {
        reason: format!(
            "{what} {:?} has type {}, which a JSON call cannot carry",
            info.name, info.ty
        ),
    }
}

/// Tensors, lists of tensors or maps, and maps of numbers.
fn is_output(ty: &ValueType) -> bool {
    let plain = |ty: &ValueType| match ty {
        ValueType::Tensor { dtype, .. } => signature::is_json(*dtype),
        ValueType::Map { key, value } => {
            use opg_models::onnx::DType;
            matches!(key, DType::I64 | DType::String)
                && matches!(
                    &**value,
                    ValueType::Tensor {
                        dtype: DType::F32 | DType::F64 | DType::I64,
                        ..
                    }
                )
        }
        _ => false,
    };
    match ty {
        ValueType::Sequence(item) => plain(item),
        other => plain(other),
    }
}
