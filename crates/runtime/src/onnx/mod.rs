//! ONNX models through ONNX Runtime.

mod input;
pub mod library;
mod output;
mod signature;

pub use signature::{Port, Signature};

use crate::{InputError, RuntimeError};
use opg_models::onnx::{OnnxHeader, ValueInfo, ValueType};
use ort::{logging::LogLevel, session::Session};
use serde_json::{Map, Value};
use std::{
    path::Path,
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// How an ONNX model is loaded and what it accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnnxOptions {
    /// Threads of one run. More than the cores that the node owns makes it many times slower.
    pub threads: usize,
    /// Runs at the same time. Each has a session with its own copy of the weights. JSON is read and checked outside
    /// of a session, so for models as small as the digits more sessions than one make no difference (measured: 26 000
    /// calls/s on 2 cores either way); a model that computes for milliseconds wants one per core.
    pub sessions: usize,
    /// Most elements of all inputs of a call.
    pub input_elements: usize,
    /// Most elements of all outputs of a call.
    pub output_elements: usize,
}

impl Default for OnnxOptions {
    fn default() -> Self {
        Self {
            threads: 1,
            sessions: 1,
            input_elements: 1 << 22,
            output_elements: 1 << 22,
        }
    }
}

/// A loaded model. Calls from several threads share its sessions and wait for a free one.
#[derive(Debug)]
pub struct OnnxModel {
    id: u64,
    header: OnnxHeader,
    signature: Signature,
    options: OnnxOptions,
    pool: Pool,
}

/// Inputs that passed every check for one model.
#[derive(Debug, Clone, PartialEq)]
pub struct Prepared {
    model: u64,
    inputs: Vec<input::Input>,
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
        let environment = &library::get()?.environment;
        let sessions = (0..options.sessions.max(1))
            .map(|_| {
                let refuse = |reason: String| RuntimeError::Model { reason };
                Session::builder(environment)
                    .map_err(|error| refuse(error.to_string()))?
                    .with_intra_threads(options.threads.max(1))
                    .map_err(|error| refuse(error.to_string()))?
                    .with_inter_threads(1)
                    .map_err(|error| refuse(error.to_string()))?
                    // Errors come back as values; a bad call must not fill the node's log.
                    .with_log_level(LogLevel::Fatal)
                    .map_err(|error| refuse(error.to_string()))?
                    // Waiting threads of this session must not burn the cores of the others.
                    .with_intra_op_spinning(false)
                    .map_err(|error| refuse(error.to_string()))?
                    .commit_from_memory(bytes)
                    .map_err(|error| refuse(error.to_string()))
            })
            .collect::<Result<Vec<_>, _>>()?;
        for session in &sessions {
            let inputs: Vec<&str> = session.inputs().iter().map(|port| port.name()).collect();
            let outputs: Vec<&str> = session.outputs().iter().map(|port| port.name()).collect();
            if !same(&inputs, &header.inputs) || !same(&outputs, &header.outputs) {
                return Err(RuntimeError::Model {
                    reason: "engine and file disagree about the signature".into(),
                });
            }
        }
        Ok(Self {
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            signature: Signature::new(&header.inputs, &header.outputs),
            header,
            options: *options,
            pool: Pool {
                idle: Mutex::new(sessions),
                freed: Condvar::new(),
            },
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
        Self::load(&bytes, options)
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
        let inputs = input::read(input, &self.header.inputs, self.options.input_elements)?;
        Ok(Prepared { model: self.id, inputs })
    }

    /// Runs the model. Blocks while it computes and while all sessions are busy.
    ///
    /// Returns `{output name: nested lists}`; sequences are lists, maps are objects with text keys.
    ///
    /// # Errors
    /// [`RuntimeError::Engine`] if the engine fails, [`RuntimeError::OutputTooLarge`], or
    /// [`InputError::WrongModel`] for inputs of another model.
    pub fn run(&self, prepared: Prepared) -> Result<Value, RuntimeError> {
        if prepared.model != self.id {
            return Err(InputError::WrongModel.into());
        }
        let tensors = prepared
            .inputs
            .into_iter()
            .map(input::Input::into_tensor)
            .collect::<ort::Result<Vec<_>>>()
            .map_err(RuntimeError::engine)?;
        let limit = self.options.output_elements;
        let mut left = limit;
        let mut session = self.pool.take();
        let outputs = session.get().run(tensors).map_err(RuntimeError::engine)?;
        let mut answer = Map::new();
        for info in &self.header.outputs {
            let value = outputs
                .get(&info.name)
                .ok_or_else(|| RuntimeError::engine(format_args!("no output {:?}", info.name)))?;
            answer.insert(info.name.clone(), output::write(value, limit, &mut left)?);
        }
        Ok(Value::Object(answer))
    }
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

fn same(names: &[&str], declared: &[ValueInfo]) -> bool {
    names.len() == declared.len() && names.iter().zip(declared).all(|(name, info)| *name == info.name)
}

/// Sessions that wait for work.
#[derive(Debug)]
struct Pool {
    idle: Mutex<Vec<Session>>,
    freed: Condvar,
}

impl Pool {
    fn take(&self) -> Busy<'_> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(session) = idle.pop() {
                return Busy {
                    pool: self,
                    session: Some(session),
                };
            }
            idle = self.freed.wait(idle).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// A session in use; goes back when dropped.
struct Busy<'a> {
    pool: &'a Pool,
    session: Option<Session>,
}

impl Busy<'_> {
    #[allow(clippy::expect_used, reason = "the session is taken by drop only")]
    fn get(&mut self) -> &mut Session {
        self.session.as_mut().expect("a busy session")
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            self.pool
                .idle
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(session);
            self.pool.freed.notify_one();
        }
    }
}
