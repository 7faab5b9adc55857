//! Receipts: request, model, answer, price and payment under one signature (`docs/specs/receipt.md`).
//!
//! [`Core`] is the signed document, [`SignedReceipt`] its COSE_Sign1 form, [`quote::SignedQuote`] the promise before
//! it, [`Lifecycle`] the one state machine that names where a request stands, [`file::ReceiptFile`] everything that an
//! offline verifier needs.
//!
//! # Invariants
//! - Pure: no I/O, no clock, no randomness, no panic on any input.
//! - One receipt has one encoding; decoding refuses everything else, so `decode` then `encode` is the identity.
//! - Verification of a signature gives the same verdict on every machine (strict Ed25519, never a random batch).
//! - A receipt of mode none is never called verified: the state machine has no such transition.
//!
//! # Example
//! ```
//! use opg_receipt::{Event, Lifecycle, State, commit};
//! use opg_primitives::{B256, ids::NodeId, mode::Mode};
//!
//! let id = commit::receipt_id(10_740, &NodeId(B256::repeat_byte(1)), &B256::repeat_byte(2));
//! assert_eq!(id.to_string().len(), 66);
//!
//! let request = Lifecycle::quoted(Mode::None)
//!     .apply(Event::Authorise)?
//!     .apply(Event::Execute)?
//!     .apply(Event::Check)?;
//! assert_eq!(request.state(), State::Checked);
//! assert_eq!(request.to_string(), "checked, unproven (signature only)");
//! # Ok::<(), opg_receipt::lifecycle::TransitionError>(())
//! ```
//!
//! # Status
//! Complete for modes none and zk; the evidence field and its types are there for the other modes. Formats are frozen by
//! `testing/vectors`.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod commit;
pub mod core;
mod cose;
pub mod error;
mod fields;
pub mod file;
pub mod lifecycle;
mod prepared;
pub mod quote;
mod signed;
pub mod stream;

pub use crate::{
    commit::{LeafKind, receipt_id},
    core::{
        ChannelRecord, Core, Evidence, FinishReason, MAX_PROOF_SECONDS, ModeRecord, ModelRef, PaymentMethod,
        PaymentRecord, PaymentScheme, PriceRecord, QuoteRef, RequestCommitments, Response, StreamRecord, Times,
        UsageRecord, UsageUnit,
        upstream::{UpstreamPeer, UpstreamRecord, closed_model_root},
    },
    cose::MAX_BYTES,
    error::{ReceiptError, SignatureError},
    file::ReceiptFile,
    lifecycle::{Event, Lifecycle, State},
    prepared::PreparedKey,
    quote::{Quote, SignedQuote},
    signed::{SignedReceipt, verify_batch},
    stream::rolling_hash,
};
