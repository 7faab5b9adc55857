//! What a model is, before anything runs it: its files, its name in hashes, and whether its bytes may be loaded.
//!
//! A model is a [`Manifest`] (format and files with sizes and hashes), and its name everywhere in the network is the
//! [`ModelRoot`]: the tagged hash of the manifest's canonical CBOR. Before native code or an engine sees a model's
//! bytes, the readers of this crate walk them: [`onnx::OnnxHeader`] for ONNX, [`gguf::GgufHeader`] for GGUF with
//! [`llama::LlamaConfig`] and [`tokenizer::BpeVocabulary`] on top. Formats that can carry code (pickle, TorchScript,
//! Keras, custom operators) are not readable here and so not servable.
//!
//! # Invariants
//! - Pure: bytes in, values out; no I/O, no clock, no randomness.
//! - No panic on any input; memory is bounded by a small multiple of the bytes given (tested with mutations).
//! - One manifest has one encoding, so a root names exactly one set of bytes.
//! - What a reader accepts is complete: sizes, offsets and shapes agree with the bytes, nothing points outside them.
//!
//! # Example
//! ```
//! use opg_models::{Format, Manifest, ManifestVersion};
//!
//! let manifest = Manifest::single(ManifestVersion::NEWEST, Format::Onnx, b"the file's bytes");
//! let bytes = manifest.encode()?;
//! assert_eq!(Manifest::decode(&bytes)?, manifest);
//! // Roots of version 1, which commit to SHA-256 alone, stay valid: the same files have both.
//! let older = manifest.versions().nth(1).ok_or("no older version")?;
//! assert_eq!(
//!     older.root()?.to_string(),
//!     "0xe91bbc51db1f783fcdc3860f59a9a3fe440fb7e0d4e6a5dac53b7c2aa9606a0e",
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Status
//! Complete for single-file ONNX and Llama-architecture GGUF models with a GPT-2 style tokenizer. Manifests of several
//! files are encoded and checked; nothing loads one yet.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod gguf;
mod hasher;
pub mod llama;
mod manifest;
pub mod onnx;
pub mod protobuf;
pub mod tokenizer;

pub use hasher::{FileHasher, GitId, ShaHasher};
pub use manifest::{FileEntry, Format, MANIFEST_LIMIT, Manifest, ManifestError, ManifestVersion};
pub use opg_primitives::ids::ModelRoot;
