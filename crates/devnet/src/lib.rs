//! A whole network on one machine: `opg up`.
//!
//! [`Devnet::up`] makes a folder with keys, a genesis file, the demo models and a configuration per role, starts four full nodes, a model
//! hub, a router and an inference node in this process, and gives a [`Running`] network once a block is final everywhere. [`Devnet::split`] writes the same
//! folder and starts nothing: each role then runs as a process of its own from its configuration file.
//!
//! # Invariants
//! - A folder belongs to one process at a time, and an existing one is continued with the same keys and chain.
//! - Keys are created with mode 0600 and never overwritten; `genesis.json` is written last, so an interrupted making is
//!   completed by the next start.
//! - `network.json` is there only when the network works, and is replaced in one step.
//! - The genesis accounts for every wei of the supply; node, demo models and prices stand in block 0.
//! - Every listener is bound to the loopback address.
//!
//! # Example
//! ```no_run
//! use opg_devnet::{Devnet, Options};
//!
//! # async fn example() -> Result<(), opg_devnet::DevnetError> {
//! let running = Devnet::up(Options { ephemeral: true, ..Options::default() }).await?;
//! println!("{}", running.network().file.rpc[0]);
//! running.shutdown().await
//! # }
//! ```
//!
//! # Status
//! Full nodes, a router, a model hub and one inference node, which has its models from the hub; other roles join with their issues (D20). Epochs, staking, slashing and governance are on, with
//! periods for development; [`Devnet::join`] makes the files of one more full node.
#![forbid(unsafe_code)]

mod assets;
mod error;
mod genesis;
mod home;
mod hub;
mod join;
mod join_inference;
mod layout;
mod lock;
mod ports;
mod split;
mod up;

pub use crate::{
    assets::{DEMO_MODELS, DEMO_ROYALTY_BPS, DemoModel, DemoProgram, DemoProgramError},
    error::DevnetError,
    genesis::CHAIN_ID,
    home::{DEFAULT_HOME_PORT_BASE, HOME_CHAIN_ID, RunningHome},
    join::{JoinOptions, Joined},
    join_inference::{InferenceOptions, JoinedInference},
    ports::{DEFAULT_PORT_BASE, Ports},
    split::{Split, SplitRole},
    up::{Options, Running},
};

use std::path::Path;

use opg_client::Network;

/// Entry points.
#[derive(Debug, Clone, Copy)]
pub struct Devnet;

impl Devnet {
    /// Starts a network, or continues the one in the folder, and waits until it works.
    ///
    /// # Errors
    /// If the folder or a port is in use, a file is malformed, a role does not start, or no block is made.
    pub async fn up(options: Options) -> Result<Running, DevnetError> {
        up::up(options).await
    }

    /// Writes the files of a network into `dir`, one folder per role. `parameters` is a JSON file as in [`Options::parameters`].
    ///
    /// # Errors
    /// If `dir` holds a network already or cannot be written, or a parameter is not good.
    pub fn split(
        dir: &Path,
        validators: Option<u16>,
        port_base: Option<u16>,
        parameters: Option<&Path>,
    ) -> Result<Split, DevnetError> {
        split::split(dir, validators, port_base, parameters)
    }

    /// Puts the demo models into the hub of a network that [`Devnet::split`] wrote and that does not run, so that its roles
    /// can be started in any order.
    ///
    /// # Errors
    /// If the network runs, or the hub's folder cannot be written.
    pub async fn stock(dir: &Path) -> Result<(), DevnetError> {
        hub::stock_offline(dir).await
    }

    /// Writes keys and configuration of one more full node of `network` into `out`.
    ///
    /// # Errors
    /// If `out` holds a node already or cannot be written, or nobody says where the validators are.
    pub fn join(network: &Network, out: &Path, options: JoinOptions) -> Result<Joined, DevnetError> {
        join::join(network, out, options)
    }

    /// Writes keys and configuration of one more inference node of `network` into `out`.
    ///
    /// # Errors
    /// If `out` holds a node already or cannot be written, or a model's file is none.
    pub fn join_inference(
        network: &Network,
        out: &Path,
        options: InferenceOptions,
    ) -> Result<JoinedInference, DevnetError> {
        join_inference::join(network, out, options)
    }
}
