//! The model hub: repositories of model files that Hugging Face's own tools read and write.
//!
//! Unmodified `huggingface_hub` (with and without `hf_xet`) and the `hf` command work with `HF_ENDPOINT` set to a hub's
//! URL. Accounts are wallets: a signed message gives an access token ([`siwe`]). Every file is kept under three hashes,
//! and a servable ONNX or GGUF file has the same 32-byte content root here as everywhere in the network
//! ([`opg_models::Manifest`]).
//!
//! ```text
//! upload: LFS (whole, parts) | hf_xet (xorbs, shards) | inside a commit
//!           └── hashed while written ── flushed ── renamed to its SHA-256 ── row
//! commit: operations → files → directory objects → one transaction that moves the branch (or 412)
//! read:   revision → directory objects → blob; a whole file is hashed on its way out
//! ```
//!
//! # Invariants
//! - A revision is a commit whose id is a git commit id over all its files; it never changes. What a commit refers to is
//!   never collected.
//! - A blob is published whole, under a hash that was checked, or not at all; what was acknowledged is on disk.
//! - Of several commits on one parent exactly one succeeds.
//! - Knowing a hash gives no access: a repository may use a blob that was uploaded through it or that its writer may read.
//! - Tokens are stored as hashes. Upload links and upload tokens are signed, bound to one repository, and expire.
//! - Nothing here loads a model. Formats that can carry code are stored and marked; ONNX, GGUF and safetensors are
//!   servable if the whole header is accepted ([`validate`]).
//!
//! # Example
//! ```
//! use opg_hub::{ModelHub, client, config::HubConfig, siwe::Scope};
//! use secp256k1::SecretKey;
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let dir = tempfile::tempdir()?;
//! let hub = ModelHub::start(HubConfig::new(([127, 0, 0, 1], 0).into(), dir.path().into())).await?;
//!
//! let http = reqwest::Client::new();
//! let key = SecretKey::from_byte_array(&[7; 32])?;
//! let token = client::sign_in(&http, hub.url(), &key, Scope::Write, 30, "example", 1).await?;
//! let new = http.post(format!("{}/api/repos/create", hub.url())).bearer_auth(&token.token);
//! new.json(&serde_json::json!({"name": "first"})).send().await?.error_for_status()?;
//! let url = format!("{}/api/models/{}/first", hub.url(), token.address);
//! let info: serde_json::Value = http.get(url).send().await?.json().await?;
//! assert_eq!(info["id"], format!("{}/first", token.address));
//! hub.shutdown().await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Status
//! Complete for one process, with metadata in SQLite or PostgreSQL and blobs in a directory or an S3 bucket; with a chain in its configuration it shows who registered a
//! model, its terms and its earnings. Not here yet: verified ranges (bao), pull requests and discussions.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
pub mod backup;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
pub mod blobs;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
mod bucket;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
pub mod card;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
mod chain;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
pub mod client;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
mod commit;
pub mod config;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
mod db;
mod error;
mod gc;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
pub mod git;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
mod hasher;
mod http;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
mod ingest;
mod inspect;
mod metrics;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
pub mod names;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
mod outboards;
mod pages;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
mod part_upload;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
pub mod quota;
mod server;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
pub mod siwe;
mod state;
mod time;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
mod tls;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
pub mod tree;
#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
pub mod validate;

#[cfg_attr(not(test), deny(clippy::indexing_slicing))]
pub mod xet;

pub use chain::BooksError;
pub use db::DbError;
pub use gc::Collected;
pub use server::{HubError, ModelHub};
