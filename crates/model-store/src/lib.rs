//! Model files on a machine that runs them: fetched from sources that nobody trusts, kept by hash, bounded in size.
//!
//! A model is named by its content root. Whoever wants it asks a list of [`Source`]s, hubs and inference nodes: the first
//! answer that fits the root counts for what the files are. If the root commits to BLAKE3 (manifest of version 2), the file comes
//! in [`ranges`] that are verified group by group while they arrive, from several sources at once if it is large; else, and
//! from sources that know no ranges, as a whole that is hashed while it is written. What does not have its hash is thrown away,
//! the source is named, and the next one is asked.
//!
//! ```text
//! root ── manifest from any source, hashed ──> hashes and size of the file
//!      ├─ ranges from several sources ── each 16 KiB verified, written ──> parts/SHA256.ranges, parts/SHA256.outboard
//!      │                                                └── whole file hashed, flushed ──> files/SHA256, outboards/SHA256
//!      └─ bytes from any source ── hashed while written ──> parts/SHA256 ── flushed, renamed ──> files/SHA256
//! ```
//!
//! # Invariants
//! - A file below `files/` had every hash of its manifest when it was put there, and is hashed again before [`Cache::get`] gives
//!   its path in another process.
//! - No source can make the cache hold more than [`Cache`]'s limit, or be read for longer than its progress justifies. The length
//!   of an answer is known before it is asked for.
//! - A source is called a liar only for bytes that it alone sent: in ranges for the group that is wrong, at once; else if the
//!   whole file came from it. If a whole file came together from several and is wrong, one of them sends it again, alone.
//! - An interrupted transfer goes on where it ended, also after a crash: what is on disk of a file and of its outboard proves
//!   itself, from the BLAKE3 down to each group.
//!
//! # Example
//! ```
//! use opg_model_store::Cache;
//! use opg_models::{Format, Manifest, ManifestVersion};
//!
//! let dir = tempfile::tempdir()?;
//! let cache = Cache::open(dir.path(), 1 << 20)?;
//! let root = Manifest::single(ManifestVersion::NEWEST, Format::Onnx, b"not here").root()?;
//! assert!(cache.get(root)?.is_none());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Status
//! Models of one file, as everything that the network runs today. Sources are reached by HTTP; nodes behind NAT can fetch and
//! not share (ADR 19).
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

mod cache;
mod fetch;
mod file;
mod plain;
mod pool;
mod prefix;
mod ranged;
pub mod ranges;
mod source;
mod stream;
mod write_behind;

pub use cache::{Cache, CacheError, Cached};
pub use fetch::{FetchError, Fetcher, Outcome, Report};
pub use file::fetch_file;
pub use pool::{Gather, Pool};
pub use prefix::PrefixHasher;
pub use source::{Source, SourceError, SourceKind, Wanted};
pub use stream::{Pieces, pieces};
pub use write_behind::WriteBehind;
