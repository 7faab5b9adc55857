//! The inference node over real sockets and real models, with a fake full node behind it.

mod bad_input;
mod chain;
mod harness;
mod paying;
mod proving;
mod recovery;
mod streaming;
