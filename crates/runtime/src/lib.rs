//! Runs models: ONNX through ONNX Runtime, Llama-architecture GGUF through candle. No network, no payment, no receipt.
//!
//! A request is checked and run in two steps, because a node must refuse bad input before it takes money:
//! [`onnx::OnnxModel::validate`] then [`onnx::OnnxModel::run`], [`llm::Llama::prepare`] then [`llm::Llama::run`].
//! [`Models`] loads what a configuration names and finds models by name and by content root.
//!
//! # Invariants
//! - Every file passes the readers of `opg-models` before an engine sees it, and is hashed from the same bytes.
//! - Native code (ONNX Runtime, C++) can run in processes of its own that the kernel locks in before they see a model
//!   ([`worker`]): no network, no files, no other processes, bounded memory and time. A process that fails costs the call
//!   that it had. What came from a caller is checked here before it is sent there, and what comes back after.
//! - Engines use one thread by default. Two threads on shared cores are 10 to 20 times slower (barrier spinning).
//! - The same model, runtime ([`runtime_digest`]), input and seed give the same bits.
//! - No NaN or infinity enters a model; every input error names the input, what was expected and what was there.
//! - All calls block. Callers run them on threads of their own and bound how many run at once.
//!
//! # Example
//! ```
//! use opg_runtime::onnx::{OnnxModel, OnnxOptions};
//! use serde_json::json;
//!
//! let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testing/fixtures/digits/logreg.onnx");
//! let model = OnnxModel::load(&std::fs::read(file)?, &OnnxOptions::default())?;
//! assert_eq!(model.signature().inputs[0].to_string(), "X: f32[null,64]");
//!
//! let refused = model.validate(&json!({ "X": [[1, 2, 3]] })).unwrap_err();
//! assert_eq!(refused.to_string(), "X: expected shape [null,64], got [1,3]");
//!
//! let blank = model.validate(&json!({ "X": [vec![0; 64]] }))?;
//! let answer = model.run(blank)?;
//! assert_eq!(answer["label"].as_array().map(Vec::len), Some(1));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Status
//! ONNX on CPU: all element types that JSON can carry, sequence and map outputs. LLM: dense Llama with a GPT-2 style
//! tokenizer and ChatML. ONNX models run in the caller's process unless [`onnx::OnnxOptions::worker`] says otherwise;
//! nodes say so. Locking in needs Linux (Landlock from 5.13 on, seccomp); elsewhere a worker is a process of its own with
//! a bound on its time only. Language models run in the caller's process: candle and the tokenizer are Rust, and how much
//! memory a model needs follows from its file, which was checked. Side channels of the processor are not closed by any of
//! this: whoever must keep two models' data apart from each other gives them two machines.
#![deny(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod bench;
mod error;
mod identity;
pub mod llm;
mod models;
pub mod onnx;
mod threads;
pub mod worker;

pub use error::{InputError, RuntimeError};
pub use identity::{ENGINES, runtime_digest};
pub use models::{LoadOptions, LoadedModel, ModelRuntime, ModelSpec, Models};
pub use opg_models::Format;
pub use threads::{THREADS_VARIABLE, engine_threads, pin_engine_threads};
