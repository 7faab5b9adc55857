//! Where ONNX models run: in processes of their own, as far as the machine can lock them in.

use opg_runtime::{
    onnx::OnnxOptions,
    worker::{EngineStatus, Sandbox, WorkerOptions, this_program},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{num::NonZeroUsize, time::Duration};

/// Sessions of one model by default, however many cores there are: each has its own copy of the weights.
const MOST_SESSIONS: usize = 4;
const MIB: u64 = 1 << 20;

/// How ONNX models run (`[engine]`). Language models run in the node's process: their engine is Rust.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineSettings {
    /// `required`: in processes that the kernel locks in, or not at all. `best-effort`: in processes of their own, locked in
    /// as far as the kernel can; the log and `/health` say how far. `off`: in the node's process.
    pub sandbox: Sandbox,
    /// MiB of memory that a process of a model may use beside `memory_per_byte`.
    pub memory_mib: u64,
    /// Bytes of memory for each byte of the model's file.
    pub memory_per_byte: u64,
    /// Seconds that starting a process and loading its model may take.
    pub load_seconds: u64,
    /// Seconds that a call may take. A call that takes longer fails and costs nothing.
    pub run_seconds: u64,
    /// Calls of one model that run at the same time, each in a process with its own copy of the weights; one for each core
    /// if not given, at most 4.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<NonZeroUsize>,
}

impl Default for EngineSettings {
    fn default() -> Self {
        let worker = WorkerOptions::default();
        Self {
            sandbox: Sandbox::default(),
            memory_mib: worker.memory / MIB,
            memory_per_byte: worker.memory_per_byte,
            load_seconds: worker.load_time.as_secs(),
            run_seconds: worker.run_time.as_secs(),
            sessions: None,
        }
    }
}

impl EngineSettings {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// What is wrong with the values, if anything.
    pub(crate) const fn problem(&self) -> Option<&'static str> {
        match self {
            Self { memory_mib: 0..64, .. } => {
                Some("memory_mib must be at least 64: the engine needs that much for itself")
            }
            Self { load_seconds: 0, .. } | Self { run_seconds: 0, .. } => {
                Some("load_seconds and run_seconds must not be zero")
            }
            _ => None,
        }
    }

    pub(crate) fn options(&self) -> OnnxOptions {
        let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST_SESSIONS));
        OnnxOptions {
            sessions: self.sessions.map_or_else(cores, NonZeroUsize::get),
            worker: WorkerOptions {
                sandbox: self.sandbox,
                program: this_program(),
                memory: self.memory_mib.saturating_mul(MIB),
                memory_per_byte: self.memory_per_byte,
                load_time: Duration::from_secs(self.load_seconds),
                run_time: Duration::from_secs(self.run_seconds),
            },
            ..OnnxOptions::default()
        }
    }
}

/// Says what holds the models in: at the level of a warning if anything is missing.
pub(crate) fn announce(settings: &EngineSettings, status: Option<EngineStatus>) {
    let Some(status) = status else { return };
    let sandbox = settings.sandbox.as_str();
    match status.protection {
        Some(protection) => match protection.missing() {
            None => {
                tracing::info!(sandbox, %protection, workers = status.workers, "ONNX models run in locked-in processes")
            }
            Some(missing) => tracing::warn!(
                sandbox,
                %protection,
                "ONNX models run in processes of their own that this machine cannot lock in wholly: no {missing}"
            ),
        },
        None if settings.sandbox == Sandbox::Off => {
            tracing::warn!(
                "ONNX models run in the node's own process (engine.sandbox = \"off\"): serve only models that you chose"
            );
        }
        None => tracing::warn!(
            "ONNX models run in the node's own process: this program cannot run as an engine worker. Serve only models that you chose"
        ),
    }
}

/// The entry `engine` of `/health`.
pub(crate) fn describe(settings: &EngineSettings, status: Option<EngineStatus>) -> Value {
    match status {
        Some(status) => json!({ "sandbox": settings.sandbox, "status": status }),
        None => Value::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_have_words_and_bounds() {
        let settings: EngineSettings = toml::from_str("sandbox = \"required\"\nrun_seconds = 7\nsessions = 3").unwrap();
        let options = settings.options();
        assert_eq!((options.sessions, options.worker.sandbox), (3, Sandbox::Required));
        assert_eq!((options.worker.run_time.as_secs(), options.worker.memory), (7, 1 << 30));
        assert!(settings.problem().is_none() && !settings.is_default());
        for text in ["memory_mib = 63", "load_seconds = 0", "run_seconds = 0"] {
            assert!(
                toml::from_str::<EngineSettings>(text).unwrap().problem().is_some(),
                "{text}"
            );
        }
        for text in ["sandbox = \"on\"", "sessions = 0", "sandbx = \"off\""] {
            assert!(toml::from_str::<EngineSettings>(text).is_err(), "{text}");
        }
        assert_eq!(
            toml::to_string(&EngineSettings::default()).unwrap().lines().next(),
            Some("sandbox = \"best-effort\"")
        );
    }
}
