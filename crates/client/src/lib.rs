//! Rust SDK of the network: find it, pay for inference, and check every answer before believing it.
//!
//! A call has three steps, so that a program can look at the price before it pays: [`Client::quote`] asks and checks the
//! offer, [`Quoted::authorize`] signs an ERC-3009 payment to the node's own deposit address, [`Client::infer`] or
//! [`Client::chat`] sends it and checks the receipt that comes back. [`Client::fetch_receipt_file`] then waits for finality
//! and settlement and gives a file that `opg receipt verify --offline` accepts.
//!
//! # Invariants
//! - Nothing is signed unless chain, asset, payee, amount and the node's signed quote are as expected ([`offer`]).
//! - No answer is returned as good unless its receipt commits to exactly this request, payment and answer ([`answer`]).
//! - Keys stay in files of mode 0600 and never appear in errors, logs or `Debug` texts.
//! - Every byte from a server is bounded before it is kept, and cleaned before it is printed ([`text`]).
//!
//! What the client reads from a full node (registry entries, balances) is as good as that node; the receipt file is
//! what needs no trust but the genesis file.
//!
//! # Example
//! ```no_run
//! use opg_client::{Client, Job, Network};
//! use opg_primitives::money::Amount;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let network = Network::discover(None)?;
//! let wallet = network.wallet().ok_or("no demo wallet")??;
//! let client = Client::new(network)?;
//!
//! let inputs = serde_json::json!({ "X": [vec![0.0; 64]] });
//! let quoted = client.quote(Job::infer("demo/digits-mlp", &inputs, Amount::parse_opg("0.01")?)).await?;
//! println!("pays at most {} OPG for {}", quoted.amount(), quoted.receipt_id());
//! let answer = client.infer(&quoted.authorize(&wallet)?).await?;
//! println!("{}", answer.outputs);
//! # Ok(())
//! # }
//! ```
//!
//! # Status
//! Pays by `exact` or out of channels ([`Purse`]), delegates stake ([`Client::stake`]), registers validators, reports faults
//! ([`Client::report_fault`]), proposes and votes ([`Client::propose`]), modes `none`, `tee` and `zk`; plain HTTP to nodes of a local network, or
//! requests sealed to an attested key.
#![forbid(unsafe_code)]

pub mod answer;
mod chain;
mod channel;
mod chat;
mod closed;
mod confidential;
mod deploy;
mod error;
mod evidence;
mod evm_chain;
mod governance;
mod home;
mod infer;
mod kept;
mod model_uri;
mod network;
mod node;
pub mod offer;
mod pay;
mod purse;
mod receipt_file;
mod registry;
mod rpc;
mod slashing;
mod sse;
mod staking;
mod status;
pub mod text;
mod validator;
mod wallet;

pub use crate::{
    chain::{Asset, Balances, Credits, Sent, Tier},
    channel::ChannelOffer,
    chat::{Chat, ChatEvent, ChatRequest, ChatStream, FunctionCall, Message, ToolCall},
    closed::NewModel,
    confidential::{AttestedKey, Via},
    deploy::{CANONICAL_OPG, DeployError, Deployment, On, Plan, Standing, Step},
    error::ClientError,
    evm_chain::{EvmChain, GasPrice},
    governance::{
        Call, Change, Draft, GovernanceError, GovernanceState, Proposal, ProposalId, ProposalState, Setting, Support,
        Tally, Votes,
    },
    home::{CheckpointState, Home, HomeError, PayoutRoots, Relayed, submit_call},
    infer::Inference,
    kept::{KeptCheckpoints, KeptError},
    model_uri::ModelUri,
    network::{
        Contracts, HomeContracts, HomeEntry, KeyRef, NETWORK_ENV, NETWORK_FILE, Network, NetworkError, NetworkFile,
        NodeEntry, load_genesis, locate, remember, user_data_dir, write_atomically, write_secret_atomically,
    },
    node::{Heartbeat, NewNode, NodeError, NodeStanding, NodeStep},
    pay::{Authorized, Job, Paid, Quoted, Way},
    purse::{Channel, Purse, PurseError},
    receipt_file::Stage,
    registry::{Model, Registered},
    rpc::{Rpc, RpcError},
    slashing::{CaseStatus, Fault, FaultReport, Judgement, MAX_CASES, SlashingCase},
    staking::{Position, Positions, StakingState, Unbonding, Validator},
    status::{EndpointStatus, HubStatus, NodeStatus},
    validator::{NewValidator, RegistrationError},
    wallet::{Wallet, WalletError},
};

use std::time::Duration;

/// Time for a small question to a node.
pub(crate) const HEALTH_TIMEOUT: Duration = Duration::from_secs(10);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to one network.
#[derive(Debug)]
pub struct Client {
    network: Network,
    rpc: Rpc,
    pub(crate) http: reqwest::Client,
}

impl Client {
    /// A client of `network`. Nothing is sent yet.
    ///
    /// # Errors
    /// If the HTTP client cannot be set up.
    pub fn new(network: Network) -> Result<Self, ClientError> {
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // A redirect could lead a signed payment to somebody else.
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("opg/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ClientError::Http(error.to_string()))?;
        let rpc = Rpc::new(http.clone(), network.file.rpc.clone());
        Ok(Self { network, rpc, http })
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Its JSON-RPC endpoints.
    pub fn rpc(&self) -> &Rpc {
        &self.rpc
    }
}
