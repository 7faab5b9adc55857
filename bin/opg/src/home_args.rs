//! Arguments of the commands about the chain where OPG lives.

use std::path::PathBuf;

use alloy_primitives::{Address, B256};
use clap::{Args, Subcommand};

use crate::args::{NetworkArgs, PurseArgs};

/// A local chain with Base's id.
#[derive(Debug, Subcommand)]
pub(crate) enum HomeCommand {
    /// Start a chain with the id of Base, for development, and keep it up until Ctrl-C or SIGTERM
    Up {
        /// Folder of the chain; an existing one continues where it was
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// First port: JSON-RPC; p2p is 20 above [default: 9545]
        #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..=65_000))]
        port_base: Option<u16>,
    },
}

/// Options of `opg deploy`.
#[derive(Debug, Args)]
pub(crate) struct DeployArgs {
    /// The home chain, as the plan names it: base
    #[arg(long, value_name = "NAME")]
    pub(crate) home: String,
    /// The plan (JSON): chain id, endpoints, what to deploy
    #[arg(long, value_name = "FILE")]
    pub(crate) plan: PathBuf,
    /// Print each transaction, its address and cost, and send nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Take a new deployment where the network file has another one
    #[arg(long)]
    pub(crate) replace: bool,
    /// The deployer's wallet, and the network
    #[command(flatten)]
    pub(crate) purse: PurseArgs,
}

/// The light client of the network on its home chain.
#[derive(Debug, Subcommand)]
pub(crate) enum CheckpointCommand {
    /// Show what the contract believes
    Show {
        /// The network
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Relay every hand-over since, and the newest certified block
    Relay {
        /// Who pays the gas there, and the network
        #[command(flatten)]
        purse: PurseArgs,
    },
    /// Have the contract prove a receipt of a receipt file, by a block that is relayed for it
    Prove {
        /// The receipt file
        file: PathBuf,
        /// Who pays the gas there, and the network
        #[command(flatten)]
        purse: PurseArgs,
    },
}

/// Payouts on the home chain.
#[derive(Debug, Subcommand)]
pub(crate) enum PayoutCommand {
    /// Show the payout root on the network and on the home chain
    Show {
        /// The network
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Say what the next payout root is; for operators of validators with a seat, of whom a quorum has to say the same
    Say {
        /// List of payouts (JSON): payee, node_id, cumulative wei
        list: PathBuf,
        /// Print the root, and send nothing
        #[arg(long)]
        dry_run: bool,
        /// The operator's wallet, and the network
        #[command(flatten)]
        purse: PurseArgs,
    },
    /// Take the network's payout root over into the vault, by a block that is relayed for it
    Publish {
        /// Who pays the gas there, and the network
        #[command(flatten)]
        purse: PurseArgs,
    },
    /// Pay a payee what it was credited from a node and not yet paid, as far as the node's deposits go
    Claim {
        /// The list whose root is published
        list: PathBuf,
        /// Who is paid
        #[arg(long)]
        payee: Address,
        /// From which node
        #[arg(long, value_name = "ID")]
        node: B256,
        /// Who pays the gas there, and the network
        #[command(flatten)]
        purse: PurseArgs,
    },
}
