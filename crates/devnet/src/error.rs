//! Why a local network could not be made, started or kept running.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// Any failure of a local network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevnetError {
    /// A file or folder cannot be used.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// Another process runs this network.
    #[error("{dir} is in use by another `opg up` (process {holder}); stop it, or choose another folder with --dir")]
    Locked {
        /// The folder.
        dir: PathBuf,
        /// Process id of the holder, as far as it is known.
        holder: String,
    },
    /// A port is taken.
    #[error("{address} is in use ({source}); choose other ports with --port-base")]
    Port {
        /// The address.
        address: SocketAddr,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The folder holds a network of another size.
    #[error(
        "{dir} holds a network of {got} validators, asked for {expected}; leave out --validators, or choose another folder"
    )]
    Validators {
        /// The folder.
        dir: PathBuf,
        /// What was asked for.
        expected: u16,
        /// What is there.
        got: usize,
    },
    /// The folder holds a network, whose parameters stand in its genesis file.
    #[error(
        "{dir} holds a network already, and its parameters stay those of its genesis.json; leave out --parameters, or choose another folder"
    )]
    ParametersOfExisting {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder for a split network is in use already.
    #[error("{dir} holds a network already; choose an empty folder")]
    NotEmpty {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder for one more node has one already.
    #[error("{dir} holds the configuration of a node already; choose another folder with --out")]
    NodeExists {
        /// The folder.
        dir: PathBuf,
    },
    /// A new node would know nobody.
    #[error(
        "the network's folder has no configurations of validators; say where some are with --peer IDENTITY@HOST:PORT"
    )]
    NoPeers,
    /// Nobody can say what runs the file.
    #[error("{path}: expected a model's file that ends in .onnx or .gguf")]
    ModelKind {
        /// The file.
        path: PathBuf,
    },
    /// A new node's address can only be chosen where the network is on this machine.
    #[error("no free port beside the network's; say where the node listens with {option} HOST:PORT")]
    NoAddress {
        /// The option.
        option: &'static str,
    },
    /// A file of the network does not have the right content.
    #[error("{path}: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A wallet's key file cannot be used.
    #[error(transparent)]
    Wallet(#[from] opg_client::WalletError),
    /// The network's description cannot be written or read.
    #[error(transparent)]
    Network(#[from] opg_client::NetworkError),
    /// The client that asks whether the network is ready cannot be made.
    #[error(transparent)]
    Client(#[from] opg_client::ClientError),
    /// A role did not start, or stopped by itself.
    #[error("{role}: {reason}")]
    Role {
        /// Which one.
        role: String,
        /// Why.
        reason: String,
    },
    /// The network started but made no block.
    #[error("the network was not ready within {seconds} s: {missing}; run again with -v for the log")]
    NotReady {
        /// How long it was waited for.
        seconds: u64,
        /// What was missing.
        missing: String,
    },
    /// A genesis could not be made.
    #[error("genesis: {0}")]
    Genesis(String),
}

impl DevnetError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io {
            path: path.into(),
            source,
        }
    }

    pub(crate) fn role(role: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Role {
            role: role.into(),
            reason: reason.to_string(),
        }
    }

    pub(crate) fn stopped<E: std::fmt::Display>(role: impl Into<String>, result: Result<(), E>) -> Self {
        match result {
            Ok(()) => Self::role(role, "stopped by itself"),
            Err(error) => Self::role(role, error),
        }
    }

    /// Whether the caller's arguments are at fault, rather than the machine or the network.
    #[must_use]
    pub fn is_input(&self) -> bool {
        matches!(
            self,
            Self::Locked { .. }
                | Self::Port { .. }
                | Self::Validators { .. }
                | Self::NotEmpty { .. }
                | Self::ParametersOfExisting { .. }
                | Self::NodeExists { .. }
                | Self::NoPeers
                | Self::NoAddress { .. }
                | Self::ModelKind { .. }
                | Self::Malformed { .. }
                | Self::Wallet(_)
                | Self::Network(_)
        )
    }
}
