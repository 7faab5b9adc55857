//! Closed models: a provider answers, the node says in the receipt which bytes came from whom.

mod answer;
pub(crate) mod config;
mod handle;
pub(crate) mod keys;

pub(crate) use config::Closed;
pub(crate) use handle::handle;
