//! Payments of OPG over HTTP: x402 version 2, scheme `exact` by ERC-3009, and the engine that takes each payment once.
//!
//! - [`eip3009`]: the authorization a payer signs; digest, signing, recovery.
//! - [`x402`]: wire types and headers, compatible with the stock clients.
//! - [`reserve`]: exactly-once reservation before work, exposure caps (D3), states up to settlement.
//! - [`journal`]: one redb file with group commit, shared by reservations and receipts so that they survive a crash together.
//!
//! Invariants: of any number of copies of one (payer, nonce), over threads and restarts, one is served; a payment whose settlement
//! may have happened keeps its transaction hash and is reconciled, never charged again; nothing in this crate talks to a network.
//!
//! ```
//! use opg_payments::{eip3009::{Authorization, Domain}, journal::Journal, reserve::{Caps, Decision, Request, Reservations}};
//! use opg_payments::signature::{SecretKey, address_of_secret};
//! use opg_primitives::money::Amount;
//! use std::sync::Arc;
//!
//! let key = SecretKey::from_byte_array(&[1; 32])?;
//! let domain = Domain::opg(10740, "0x0000000000000000000000000000000000001001".parse()?);
//! let authorization = Authorization {
//!     from: address_of_secret(&key), to: "0x00000000000000000000000000000000000000aa".parse()?,
//!     value: "1000".parse()?, valid_after: 0, valid_before: 2_000_000_000, nonce: [7; 32].into(),
//! };
//! let signature = authorization.sign(&domain, &key);
//! authorization.verify(&domain, &signature)?;
//!
//! let dir = tempfile::tempdir()?;
//! let reservations = Reservations::open(Arc::new(Journal::open(dir.path().join("journal.redb"))?), Caps::default())?;
//! let request = Request {
//!     authorization, signature: signature.to_vec().into(), receipt_id: [9; 32].into(), context: Default::default(), force_settle_first: false,
//! };
//! let reserved = reservations.reserve(request.clone(), 1_900_000_000)?;
//! assert_eq!(reserved.decision, Decision::Serve);
//! assert!(reservations.reserve(request, 1_900_000_000).is_err(), "the copy is refused");
//! reservations.serve(reserved.key, Amount(900), |_transaction| Ok(()))?.wait()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Feature `engine` (default) is the part with threads and a file: [`reserve`] and [`journal`]. Without it the crate is pure.
//!
//! Status: `exact` by ERC-3009 is complete; channels (`batch-settlement`) and Permit2 (`upto`) are not in this crate yet.
#![forbid(unsafe_code)]

pub mod eip3009;
#[cfg(feature = "engine")]
pub mod journal;
#[cfg(feature = "engine")]
pub mod reserve;
pub mod signature;
pub mod x402;
