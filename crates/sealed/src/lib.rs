//! Confidential requests: a body sealed to the key that an enclave attests, an answer that only its sender can read.
//!
//! Two envelopes share one key schedule:
//! - [`direct`]: HPKE (RFC 9180) over a request body, bound to route, model, quote, keyset and payer; the answer, streamed
//!   or whole, under keys exported from the same HPKE context.
//! - [`ohttp`]: Oblivious HTTP (RFC 9458, and its chunked form) over Binary HTTP ([`bhttp`], RFC 9292), for the path
//!   through a relay that learns the client's address and nothing else.
//!
//! # Invariants
//! - Pure: no I/O, no clock, no randomness (32 fresh bytes of it are an argument), no panic on any input.
//! - A stream is authenticated in order and to its end: a chunk that is changed, left out, repeated, moved or added is
//!   refused, and so is a stream that ends without its final chunk.
//! - Nothing is given out before it is authenticated.
//! - Keys and exported secrets are wiped when dropped, by the primitives below where they hold them, and never shown by
//!   `Debug`.
//!
//! # Not protected
//! Lengths and times of chunks. Replay: HPKE's base mode accepts the same bytes twice, so whoever answers must remember
//! [`direct::Opened::replay_id`] or [`ohttp::replay_id`] while the key lives, or rely on the payment's nonce. A key that leaks later opens what
//! was recorded earlier: keys live as long as a keyset, hours.
//!
//! # Example
//! ```
//! use opg_sealed::{Suite, PrivateKey, direct::{self, Binding}};
//!
//! let enclave = PrivateKey::derive(&[7; 32]);
//! let binding = Binding {
//!     chain_id: 10_740,
//!     route: "POST /v1/chat/completions",
//!     model: "demo/tiny-llama",
//!     quote: [1; 32],
//!     keyset: [2; 32],
//!     payer: [3; 20],
//! };
//! let entropy = [9; 32]; // fresh random bytes
//! let (sealed, secret) = direct::seal(1, Suite::Aes256Gcm, &enclave.public(), &binding, b"{}", &entropy)?;
//!
//! let opened = direct::open(&[(1, &enclave)], &binding, &sealed)?;
//! assert_eq!(opened.body, b"{}");
//! let (mut answer, mut sealer) = opened.secret.sealer(&[8; 32])?;
//! answer.extend(sealer.chunk(b"Hel")?);
//! answer.extend(sealer.finish(b"lo")?);
//!
//! let mut opener = secret.opener();
//! let mut text = opener.push(&answer)?.concat();
//! text.extend(opener.finish()?);
//! assert_eq!(text, b"Hello");
//! # Ok::<(), opg_sealed::SealedError>(())
//! ```
//!
//! # Status
//! X25519 with AES-GCM only: no post-quantum hybrid and no ChaCha20-Poly1305 yet.
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod bhttp;
mod chunk;
pub mod direct;
mod error;
mod hpke;
pub mod ohttp;
mod response;
mod suite;
mod varint;

pub use crate::{
    chunk::{ChunkOpener, ChunkSealer, MAX_CHUNK},
    error::SealedError,
    hpke::{PrivateKey, PublicKey, Receiver, Sender},
    response::{ResponseOpener, ResponseSecret},
    suite::Suite,
};
