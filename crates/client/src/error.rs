//! What can go wrong between a wallet and an answer.

use alloy_primitives::{Address, B256};
use opg_primitives::money::Amount;

use crate::{
    answer::AnswerError, governance::GovernanceError, network::NetworkError, node::NodeError, offer::OfferError,
    purse::PurseError, rpc::RpcError, validator::RegistrationError, wallet::WalletError,
};

/// Any failure of the client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The network is not described, or not as expected.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The wallet's key cannot be used.
    #[error(transparent)]
    Wallet(#[from] WalletError),
    /// A full node does not answer, or refuses.
    #[error(transparent)]
    Rpc(#[from] RpcError),
    /// Channels and limits of the payer.
    #[error(transparent)]
    Purse(#[from] PurseError),
    /// The node asks for a payment that this client will not sign. Nothing was paid.
    #[error("the node's offer is refused, nothing was paid: {0}")]
    Offer(#[from] OfferError),
    /// The node was paid, but its answer does not prove what it must.
    #[error("the node's answer is refused: {0}")]
    Answer(#[from] AnswerError),
    /// The inference node cannot be reached.
    #[error("inference node {url} does not answer: {reason}; `opg status` shows what runs")]
    NodeUnreachable {
        /// Its base URL.
        url: String,
        /// What happened.
        reason: String,
    },
    /// The inference node refused the request.
    #[error("inference node: {message}{} (HTTP {status}, {code})", .param.as_ref().map(|p| format!(", field `{p}`")).unwrap_or_default())]
    NodeRefused {
        /// HTTP status.
        status: u16,
        /// The node's words, on one line.
        message: String,
        /// The node's error code.
        code: String,
        /// The field that is wrong, if the node named one.
        param: Option<String>,
    },
    /// An answer of the inference node is not what its interface promises.
    #[error("inference node: answer is not understood: {what}")]
    NodeAnswer {
        /// What did not fit.
        what: String,
    },
    /// No node of the network serves the model.
    #[error("model {model:?} is not served by this network; `opg models ls` lists what is")]
    UnknownModel {
        /// What was asked for.
        model: String,
    },
    /// The network has no inference node.
    #[error("this network has no inference node")]
    NoInferenceNode,
    /// A mode that cannot be served.
    #[error("{0}")]
    Mode(String),
    /// The account has too little.
    #[error(
        "{address} has {available} {asset}, needs {needed}; `opg faucet {address}` gives some on a development network"
    )]
    InsufficientFunds {
        /// The account.
        address: Address,
        /// `OPG` or `native OPG`.
        asset: &'static str,
        /// What it has.
        available: Amount,
        /// What was to be spent.
        needed: Amount,
    },
    /// An endpoint belongs to another chain.
    #[error("{url} is chain {got}, expected {expected}")]
    OtherChain {
        /// The endpoint.
        url: String,
        /// Chain id that was named.
        expected: u64,
        /// Chain id that it says.
        got: u64,
    },
    /// The account cannot pay for gas on another chain.
    #[error("{address} has {available} of the native coin on chain {chain_id}, a transaction needs up to {needed}")]
    NoGasMoney {
        /// The account.
        address: Address,
        /// The chain.
        chain_id: u64,
        /// What it has.
        available: Amount,
        /// What it needs.
        needed: Amount,
    },
    /// A transaction was included and failed.
    #[error("transaction {hash} failed on chain (reverted)")]
    Reverted {
        /// Its hash.
        hash: B256,
    },
    /// Something did not happen in time. What was sent may still take effect.
    #[error("{what} did not happen within {seconds} s")]
    Timeout {
        /// What was waited for.
        what: String,
        /// For how long.
        seconds: u64,
    },
    /// The network has no faucet.
    #[error("this network has no faucet; only development networks have one")]
    NoFaucet,
    /// The network has no staking.
    #[error("this network has no staking: its genesis file has no `parameters.staking`")]
    NoStaking,
    /// A proposal or vote that is not possible.
    #[error(transparent)]
    Governance(#[from] GovernanceError),
    /// A validator that cannot be registered or changed so.
    #[error(transparent)]
    Registration(#[from] RegistrationError),
    /// An inference node that cannot be registered or changed so.
    #[error(transparent)]
    Node(#[from] NodeError),
    /// What a full node told does not fit the receipt, or itself.
    #[error("full node: {what}")]
    Proof {
        /// What did not fit.
        what: String,
    },
    /// The HTTP client could not be set up.
    #[error("HTTP client: {0}")]
    Http(String),
}

impl ClientError {
    /// Whether the caller's input is at fault (a wrong model, shape or file), as opposed to a check that failed or a service
    /// that is away.
    pub fn is_input(&self) -> bool {
        match self {
            Self::Network(_)
            | Self::UnknownModel { .. }
            | Self::Mode(_)
            | Self::OtherChain { .. }
            | Self::Governance(_)
            | Self::Registration(_) => true,
            Self::Node(error) => !matches!(error, NodeError::Locked { .. }),
            Self::Purse(error) => matches!(error, PurseError::File { .. } | PurseError::Unknown(_)),
            Self::Wallet(error) => !matches!(error, WalletError::Randomness(_)),
            Self::NodeRefused { status, .. } => (400..500).contains(status) && !matches!(status, 402 | 408 | 429),
            _ => false,
        }
    }
}
