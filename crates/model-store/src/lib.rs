//! Model files on a machine that runs them: fetched from sources that nobody trusts, kept by hash, bounded in size.
//!
//! A model is named by its content root. Whoever wants it asks a list of [`Source`]s, hubs and inference nodes, one after
//! the other: the first answer that fits the root counts for what the files are, and bytes are hashed while they arrive.
//! What does not have its hash is thrown away, the source is named, and the next one is asked.
//!
//! ```text
//! root ── manifest from any source, hashed ──> SHA-256 and size of the file
//!      └─ bytes from any source ── hashed while written ──> parts/SHA256 ── flushed, renamed ──> files/SHA256
//! ```
//!
//! # Invariants
//! - A file below `files/` had its SHA-256 when it was put there, and is hashed again before [`Cache::get`] gives its path
//!   in another process.
//! - No source can make the cache hold more than [`Cache`]'s limit, or be read for longer than its progress justifies.
//! - A source is called a liar only for bytes that it alone sent. If a file came together from several and is wrong, one
//!   of them sends it again, alone.
//! - An interrupted transfer goes on where it ended, also after a crash.
//!
//! # Example
//! ```
//! use opg_model_store::Cache;
//! use opg_models::{Format, Manifest};
//!
//! let dir = tempfile::tempdir()?;
//! let cache = Cache::open(dir.path(), 1 << 20)?;
//! let root = Manifest::single(Format::Onnx, b"not here").root()?;
//! assert!(cache.get(root)?.is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Status
//! Models of one file, as everything that the network runs today. Ranges are not verified one by one: the root holds
//! SHA-256, which only whole files have (ADR 19).
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod cache;
mod fetch;
mod source;

pub use cache::{Cache, CacheError, Cached};
pub use fetch::{FetchError, Fetcher, Outcome, Report, fetch_file};
pub use source::{Source, SourceError, SourceKind, Wanted};
