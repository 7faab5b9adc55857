//! Identifiers, hashes, money, canonical CBOR and domain tags: what every other crate agrees on.
//!
//! Nothing above this crate re-implements hashing, encoding or money.
//!
//! # Invariants
//! - Pure: no I/O, no clock, no randomness, no panic on any input.
//! - One value has one encoding: [`cbor::decode_strict`] accepts exactly what [`cbor::Encoder`] writes.
//! - Money is `u128` wei ([`money::Amount`]); there are no floats and no silent overflow.
//! - Every domain separation string is a [`domain::Tag`], and no two are equal.
//!
//! # Example
//! ```
//! use opg_primitives::{domain::Tag, hash, merkle, money::{Price, Usage, charge, Amount}};
//!
//! // What a call costs: 1 000 tokens in, 200 out, royalty 10 %.
//! let ask = Price {
//!     per_call: Amount::ZERO,
//!     per_mtok_in: Amount::parse_opg("2")?,
//!     per_mtok_out: Amount::parse_opg("10")?,
//! };
//! let fee = charge(&ask, Usage { input: 1_000, output: 200 }, 1_000)?;
//! assert_eq!(fee.to_string(), "0.004444444444444445");
//!
//! // A batch of two receipts and the proof of the second.
//! let leaves = [merkle::leaf(hash::keccak(b"a")), merkle::leaf(hash::keccak(b"b"))];
//! let path = merkle::prove(&leaves, 1).unwrap_or_default();
//! assert_eq!(merkle::verify_tree(leaves[1], 1, 2, &path), Ok(merkle::root(&leaves)));
//! let _digest = hash::tagged(Tag::Request, &[b"salt", b"body"]);
//! # Ok::<(), opg_primitives::money::MoneyError>(())
//! ```
//!
//! # Status
//! Complete for receipts of modes `none` and `zk`; formats are frozen by `testing/vectors`.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod cbor;
pub mod domain;
pub mod hash;
pub mod ids;
pub mod merkle;
pub mod mode;
pub mod money;

pub use alloy_primitives::{Address, B256, FixedBytes, U256};
