//! Runs ONNX Runtime in processes of their own, locked in before they see a model.
//!
//! ONNX Runtime is a large C++ library and a model is a program for it. The readers of `opg-models` refuse files that
//! are not well formed; what a well-formed graph makes the library do, they cannot know. So a session lives in a
//! *worker*: this executable, started again ([`Program`]), which gives up everything that it does not need and is then
//! sent the model's bytes and one call after the other over the socket that is its standard input.
//!
//! ```text
//! node                                        worker (one per session)
//!   │ Setup: library, bounds  ───────────────▶ close descriptors, limits, load the library,
//!   │                                          no_new_privs, Landlock, seccomp
//!   │ ◀─────────────── Ready: what is in force
//!   │ Load: bytes of the model ──────────────▶ session
//!   │ ◀──────────── Loaded: inputs and outputs
//!   │ Run: tensors ──────────────────────────▶
//!   │ ◀──────────────────────── Done: tensors    … until the socket closes
//! ```
//!
//! # Invariants
//! - A worker is hostile from the moment it has a model. Everything it says is bounded before it is read and checked
//!   before it is used; a worker that breaks the protocol, is late, or dies is killed, reaped and started again.
//! - No call waits longer than twice its time (once to send, once to receive), whatever the worker does.
//! - A worker gets no environment, no descriptor and no file of the node but its socket. The model comes as bytes: those
//!   that were checked and hashed, so nothing can be changed in between.
//! - A worker ends with the node: its socket closes, and the kernel kills it (`PR_SET_PDEATHSIG`) should it not listen.
//! - Answers have the same bits as those of a session in this process: it is the same engine, called by the same code.
//!
//! What is locked how is in `sandbox`, the bytes on the wire are in `wire`.

mod keeper;
mod process;
pub mod sandbox;
mod serve;
mod supervisor;
mod wire;

pub use sandbox::{Protection, Sandbox};
pub use serve::main;
pub(crate) use supervisor::{Source, Supervisor};

use serde::Serialize;
use std::{
    ffi::OsString,
    fmt,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

/// Argument with which `opg` runs as a worker.
pub const COMMAND: &str = "engine-worker";

/// How a worker is started: a program that calls [`main`] when it is run with these arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// The executable.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
}

impl Program {
    /// A program of another path.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, arguments: &[&str]) -> Self {
        Self {
            path: path.into(),
            arguments: arguments.iter().map(Into::into).collect(),
        }
    }
}

static THIS: OnceLock<Arc<Program>> = OnceLock::new();

/// Says that this executable, run with these arguments, calls [`main`]. Call it at the start of `main`.
///
/// # Errors
/// The executable's path is not known.
pub fn offer_this_program(arguments: &[&str]) -> std::io::Result<()> {
    // The link still means this very executable after the file has been replaced by a new release.
    let link = PathBuf::from("/proc/self/exe");
    let path = if cfg!(target_os = "linux") && link.exists() {
        link
    } else {
        std::env::current_exe()?
    };
    THIS.get_or_init(|| Arc::new(Program::new(path, arguments)));
    Ok(())
}

/// What [`offer_this_program`] said, if anything.
#[must_use]
pub fn this_program() -> Option<Arc<Program>> {
    THIS.get().cloned()
}

/// How and within what bounds models run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerOptions {
    /// How much of the sandbox must be had.
    pub sandbox: Sandbox,
    /// What is started. Without it models run in this process, and [`Sandbox::Required`] refuses to load them.
    pub program: Option<Arc<Program>>,
    /// Bytes of memory of a worker, beside what its model needs.
    pub memory: u64,
    /// Bytes of memory for each byte of the model's file.
    pub memory_per_byte: u64,
    /// Longest time from the start of a worker until its model is loaded.
    pub load_time: Duration,
    /// Longest time of one call.
    pub run_time: Duration,
}

impl Default for WorkerOptions {
    /// No worker: models run in the process of the caller.
    fn default() -> Self {
        Self {
            sandbox: Sandbox::Off,
            program: None,
            memory: 1 << 30,
            // The file, its parsed form, the weights and their packed copies, and as much again for the tensors between.
            memory_per_byte: 8,
            load_time: Duration::from_secs(300),
            run_time: Duration::from_secs(120),
        }
    }
}

/// Why a worker could not answer. The call may be repeated: models keep nothing between calls.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerFault {
    /// It could not be started.
    #[error("could not be started: {0}")]
    Start(#[source] std::io::Error),
    /// The kernel does not have what the configuration requires.
    #[error(
        "cannot be locked in: this machine has no {missing}; with sandbox = \"best-effort\" the node goes on without"
    )]
    NotLocked {
        /// What is missing.
        missing: String,
    },
    /// It ended, or closed its socket.
    #[error("ended during {task}: {how}")]
    Died {
        /// What it was doing.
        task: Task,
        /// Exit status or signal.
        how: String,
    },
    /// It did not answer in time and was killed.
    #[error("did not finish {task} within {limit:?} and was killed")]
    Late {
        /// What it was doing.
        task: Task,
        /// The time that it had.
        limit: Duration,
    },
    /// It said something that is not in the protocol and was killed.
    #[error("answered nonsense to {task} and was killed: {reason}")]
    Nonsense {
        /// What it was doing.
        task: Task,
        /// What is wrong with the answer.
        reason: String,
    },
    /// It failed before and is not started again yet.
    #[error("has failed {failures} times in a row and is started again in {wait:?}")]
    Resting {
        /// Failures in a row.
        failures: u32,
        /// Time until the next start.
        wait: Duration,
    },
}

/// What a worker is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Lock itself in.
    Setup,
    /// Load the model.
    Load,
    /// Answer a call.
    Run,
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Setup => "its start",
            Self::Load => "loading the model",
            Self::Run => "a call",
        })
    }
}

/// How the models of a node run now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct EngineStatus {
    /// Whether sessions are in processes of their own.
    pub processes: bool,
    /// What the workers reported to be in force; of several, the least.
    pub protection: Option<Protection>,
    /// Workers alive.
    pub workers: usize,
    /// Workers started so far.
    pub starts: u64,
    /// Workers that ended by themselves, were killed from outside, or for memory.
    pub died: u64,
    /// Workers killed because they were late.
    pub late: u64,
    /// Workers killed because of what they said.
    pub nonsense: u64,
}

impl EngineStatus {
    /// The status of this and another model together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            processes: self.processes && other.processes,
            protection: match (self.protection, other.protection) {
                (Some(this), Some(other)) => Some(this.least(other)),
                _ => None,
            },
            workers: self.workers + other.workers,
            starts: self.starts + other.starts,
            died: self.died + other.died,
            late: self.late + other.late,
            nonsense: self.nonsense + other.nonsense,
        }
    }
}
