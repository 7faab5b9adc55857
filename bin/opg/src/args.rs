//! The command line: every command, option and value that `opg` accepts.

use std::{net::SocketAddr, path::PathBuf};

use alloy_primitives::{Address, B256, Bytes};
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use opg_primitives::money::Amount;

use crate::home_args::{CheckpointCommand, DeployArgs, HomeCommand, PayoutCommand};

/// OpenGradient: pay for inference with a wallet, get a receipt, check it offline.
#[derive(Debug, Parser)]
#[command(name = "opg", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 success, 1 a check failed or was refused, 2 bad usage or bad input.")]
pub(crate) struct Cli {
    /// Print one JSON document (or JSON lines) on stdout and everything else on stderr
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Log more on stderr: -v, -vv, -vvv (RUST_LOG overrides)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a local network in one process, or write the files to run it as several
    Up(UpArgs),
    /// Show what runs where, heights and balances
    Status(StatusArgs),
    /// Run one role from a configuration file
    #[command(subcommand)]
    Node(NodeCommand),
    /// Use a model hub
    #[command(subcommand)]
    Hub(HubCommand),
    /// Make a wallet, look at it, send from it
    #[command(subcommand)]
    Wallet(WalletCommand),
    /// Open, fill, list and close prepaid payment channels
    #[command(subcommand)]
    Channel(ChannelCommand),
    /// Send OPG from a development network's faucet
    Faucet(FaucetArgs),
    /// List validators, their stake and state
    Validators(ValidatorsArgs),
    /// Lock OPG behind one's own validator
    Stake(StakeArgs),
    /// Lock OPG behind somebody's validator, for a part of its rewards
    Delegate(DelegateArgs),
    /// Take stake back; it unbonds first
    Unstake(UnstakeArgs),
    /// Collect rewards, and stake that has unbonded
    Claim(ClaimArgs),
    /// Propose changes of what governance decides, vote on them, and carry them out
    #[command(subcommand)]
    Gov(GovCommand),
    /// List and show models
    #[command(subcommand)]
    Models(ModelsCommand),
    /// Run a model on tensors, paid per call
    Infer(InferArgs),
    /// Ask a language model, paid per token
    Chat(ChatArgs),
    /// Show and verify receipt files
    #[command(subcommand)]
    Receipt(ReceiptCommand),
    /// Verify attestation documents of trusted execution environments
    #[command(subcommand)]
    Evidence(EvidenceCommand),
    /// Prove what a model computed, and check such proofs
    #[command(subcommand)]
    Zk(ZkCommand),
    /// Run a local chain with the id of Base, to try out deployments
    #[command(subcommand)]
    Home(HomeCommand),
    /// Deploy what belongs on the chain where OPG lives, from a plan file
    Deploy(DeployArgs),
    /// Relay certified blocks to the home chain, and prove receipts there
    #[command(subcommand)]
    Checkpoint(CheckpointCommand),
    /// Say, publish and claim payouts on the home chain
    #[command(subcommand)]
    Payout(PayoutCommand),
    /// Print the completion script of a shell
    Completions {
        /// bash, zsh, fish, elvish or powershell
        shell: Shell,
    },
}

/// Options of `opg up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Folder of the network; an existing one continues where it was [default: the user's data folder]
    #[arg(long, value_name = "DIR", conflicts_with_all = ["ephemeral", "split"])]
    pub(crate) dir: Option<PathBuf>,
    /// Number of validators, at least the four that survive one failure [default: 4, or that of the existing folder]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(4..=16))]
    pub(crate) validators: Option<u16>,
    /// Use a temporary folder that is removed at the end
    #[arg(long, conflicts_with = "split")]
    pub(crate) ephemeral: bool,
    /// First port; RPC, p2p, node and metrics ports follow from it [default: 8545, or that of the existing folder]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..=64_900))]
    pub(crate) port_base: Option<u16>,
    /// JSON file with parameters of a new network that differ from the usual ones, as in a genesis file's `parameters`
    #[arg(long, value_name = "FILE")]
    pub(crate) parameters: Option<PathBuf>,
    /// Do not serve web pages (this version has none)
    #[arg(long)]
    pub(crate) no_web: bool,
    /// Write configurations and keys, one folder per role, and start nothing
    #[arg(long, value_name = "DIR")]
    pub(crate) split: Option<PathBuf>,
    /// After start-up do one paid job on each demo engine and print every step
    #[arg(long, conflicts_with = "split")]
    pub(crate) demo: bool,
}

/// Which network a command means.
#[derive(Debug, Clone, Args)]
pub(crate) struct NetworkArgs {
    /// Folder of the network [default: $OPG_NETWORK, else that of the last `opg up`]
    #[arg(long, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
}

/// Which key signs and pays.
#[derive(Debug, Clone, Args)]
pub(crate) struct KeyArgs {
    /// Key file of the wallet [default: $OPG_WALLET, else the demo wallet of the network]
    #[arg(long, value_name = "FILE", env = "OPG_WALLET", hide_env_values = true)]
    pub(crate) key: Option<PathBuf>,
}

/// Options of `opg status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// The network
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// Roles that run alone.
#[derive(Debug, Subcommand)]
pub(crate) enum NodeCommand {
    /// A full node: consensus, chain, verification of receipts, JSON-RPC
    Full(NodeArgs),
    /// An inference node: models, payments, receipts
    Inference(NodeArgs),
    /// A router: one URL in front of all nodes, and the relay of sealed requests
    Router(NodeArgs),
    /// A model hub: repositories for Hugging Face's tools
    Hub(NodeArgs),
    /// Write keys and configuration of one more full node for a network
    Init(NodeInitArgs),
    /// Write keys and configuration of one more inference node for a network
    InitInference(InitInferenceArgs),
    /// Register a node on chain
    #[command(subcommand)]
    Register(RegisterCommand),
    /// Add to the bond of an inference node; for its operator
    Bond {
        /// How much, in OPG
        #[arg(value_parser = amount, value_name = "OPG")]
        more: Amount,
        /// The node
        #[command(flatten)]
        node: OwnNodeArgs,
    },
    /// Ask an inference node at its registered URL who it is, and compare that with the chain; exits 1 if callers cannot use it
    Heartbeat {
        /// Its id [default: the network's first inference node]
        #[arg(long, value_name = "ID")]
        node: Option<B256>,
        /// The network
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Take an inference node out of the network for ever; its bond begins to unbond
    Leave {
        /// The node
        #[command(flatten)]
        node: OwnNodeArgs,
    },
    /// Pay out what is released of the wallet's credits from a node's receipts, and the bond of a node that left
    Withdraw {
        /// Who is paid [default: the wallet]
        #[arg(long, value_name = "ADDRESS", conflicts_with = "bond")]
        payee: Option<Address>,
        /// The bond instead, once the node has left and the bond is free; for its operator
        #[arg(long)]
        bond: bool,
        /// The node
        #[command(flatten)]
        node: OwnNodeArgs,
    },
    /// Give the wallet's validator other keys, from its next seat on
    RotateKeys(RotateKeysArgs),
    /// Set the commission of the wallet's validator; once an epoch, by one step
    Commission {
        /// Part of the rewards that the operator keeps, basis points
        #[arg(value_parser = clap::value_parser!(u16).range(..=10_000))]
        bps: u16,
        /// Wallet and network
        #[command(flatten)]
        operator: OperatorArgs,
    },
    /// Take the wallet's validator out of jail, once its time there is over
    Unjail {
        /// Wallet and network
        #[command(flatten)]
        operator: OperatorArgs,
    },
    /// Take the wallet's validator out of the network for ever; its stake is taken out with `opg unstake` afterwards
    Exit {
        /// Wallet and network
        #[command(flatten)]
        operator: OperatorArgs,
    },
    /// Seal a provider's API key to a node's attested key and give it to the node; for the node's operator
    InjectKey(InjectKeyArgs),
    /// Set what a node asks for a model, within a quarter and four times the reference price; for the node's operator
    Ask {
        /// Name of the model, or its root
        model: String,
        /// The price
        #[command(flatten)]
        price: PriceArgs,
        /// The node [default: the network's first one]
        #[arg(long, value_name = "ID")]
        node: Option<alloy_primitives::B256>,
        /// The operator's wallet
        #[command(flatten)]
        key: KeyArgs,
        /// The network
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Show faults that full nodes hold evidence of, report them, and follow cases
    #[command(args_conflicts_with_subcommands = true)]
    SlashEvidence {
        /// What to do [default: show the faults]
        #[command(subcommand)]
        command: Option<SlashCommand>,
        /// The network
        #[command(flatten)]
        network: NetworkArgs,
    },
}

impl NodeCommand {
    /// Whether the command is a role that runs until it is stopped.
    pub(crate) const fn runs(&self) -> bool {
        matches!(
            self,
            Self::Full(_) | Self::Inference(_) | Self::Router(_) | Self::Hub(_)
        )
    }
}

/// `opg node slash-evidence`.
#[derive(Debug, Subcommand)]
pub(crate) enum SlashCommand {
    /// Report a fault; locks a bond, which is lost if validators do not find it proven
    Report(ReportArgs),
    /// Bring a validator's downtime, which the chain has on record, before the contract; takes no bond
    Downtime {
        /// Operator of the validator
        validator: Address,
        /// Wallet and network
        #[command(flatten)]
        purse: PurseArgs,
    },
    /// List cases, or show one
    Cases {
        /// Its number
        case: Option<u64>,
        /// The network
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Ask for a second verdict, as the accused; locks a bond, which is lost if the verdict stays
    Appeal {
        /// Number of the case
        case: u64,
        /// Say what would be locked, and send nothing
        #[arg(long)]
        dry_run: bool,
        /// Wallet and network
        #[command(flatten)]
        purse: PurseArgs,
    },
    /// Slash and distribute, once the time for an appeal is over
    Execute {
        /// Number of the case
        case: u64,
        /// Wallet and network
        #[command(flatten)]
        purse: PurseArgs,
    },
    /// End a case that got no verdict in time
    Expire {
        /// Number of the case
        case: u64,
        /// Wallet and network
        #[command(flatten)]
        purse: PurseArgs,
    },
    /// Collect what cases have credited to the wallet
    Withdraw {
        /// Wallet and network
        #[command(flatten)]
        purse: PurseArgs,
    },
}

/// Options of `opg node slash-evidence report`.
#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// Operator of a validator that equivocated or voted for an invalid proof: its newest fault that full nodes hold is reported
    #[arg(required_unless_present = "node", conflicts_with = "node")]
    pub(crate) validator: Option<Address>,
    /// Epoch of the fault, if not the newest
    #[arg(long, value_name = "N", conflicts_with = "node")]
    pub(crate) epoch: Option<u64>,
    /// Two conflicting votes, or a vote for an invalid proof (with --artefact), in the place of what full nodes hold
    #[arg(long, value_name = "HEX", requires = "epoch", conflicts_with = "node")]
    pub(crate) evidence: Option<Bytes>,
    /// The invalid proof that the validator voted for, if `--evidence` is a vote for one
    #[arg(long, value_name = "FILE", requires = "evidence")]
    pub(crate) artefact: Option<PathBuf>,
    /// An inference node
    #[arg(long, value_name = "ID", requires = "receipt")]
    pub(crate) node: Option<B256>,
    /// Receipt file of that node: two with one number, one that claims attestation which is not registered, or one with a wrong answer
    /// (with --program)
    #[arg(long, value_name = "FILE", requires = "node", num_args = 1)]
    pub(crate) receipt: Vec<PathBuf>,
    /// Program of mode zk that the one receipt names: proves that its answer is another one, and reports that
    #[arg(long, value_name = "FILE", requires = "node")]
    pub(crate) program: Option<PathBuf>,
    /// Say what would be locked and what a full node finds, and send nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Report it though the full node finds nothing proven
    #[arg(long)]
    pub(crate) force: bool,
    /// Wallet and network
    #[command(flatten)]
    pub(crate) purse: PurseArgs,
}

/// Options of `opg node init`.
#[derive(Debug, Args)]
pub(crate) struct NodeInitArgs {
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// A validator to connect to, IDENTITY@HOST:PORT; may be given more than once [default: those of a local network's folder]
    #[arg(long = "peer", value_name = "PEER", value_parser = peer)]
    pub(crate) peers: Vec<Peer>,
    /// Address of JSON-RPC [default: a free port beside a local network's]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) rpc: Option<SocketAddr>,
    /// Address of the p2p listener [default: a free port beside a local network's]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) p2p: Option<SocketAddr>,
    /// Address of the metrics [default: a free port beside a local network's, else none]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) metrics: Option<SocketAddr>,
    /// The network
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// A validator's identity and where it listens.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    /// Ed25519 identity, 64 hex digits.
    pub(crate) identity: String,
    /// Its p2p listener.
    pub(crate) address: SocketAddr,
}

fn peer(text: &str) -> Result<Peer, String> {
    const FORM: &str = "must be IDENTITY@HOST:PORT, the identity as 64 hex digits";
    let (identity, address) = text.split_once('@').ok_or(FORM)?;
    let identity = identity.strip_prefix("0x").unwrap_or(identity).to_ascii_lowercase();
    if identity.len() != 64 || !identity.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(FORM.into());
    }
    let address = address.parse().map_err(|_| FORM)?;
    Ok(Peer { identity, address })
}

/// What is registered.
#[derive(Debug, Subcommand)]
pub(crate) enum RegisterCommand {
    /// A full node as a validator, with the wallet as its operator: shows that it has its keys, and locks a bond
    #[command(alias = "validator")]
    Full(RegisterFullArgs),
    /// An inference node of the wallet: locks its bond, publishes its keys and URL, and asks the reference price of its models. Run again after
    /// keys or URL have changed
    Inference(RegisterInferenceArgs),
}

/// Options of `opg node register inference`.
#[derive(Debug, Args)]
pub(crate) struct RegisterInferenceArgs {
    /// Configuration of the inference node
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Bond of a new node, in OPG [default: the network's least]
    #[arg(long, value_parser = amount, value_name = "OPG")]
    pub(crate) bond: Option<Amount>,
    /// Native coin that the settlement account is filled up to; it pays the gas of settlements
    #[arg(long, default_value = "1", value_parser = Amount::parse_opg, value_name = "OPG")]
    pub(crate) gas: Amount,
    /// Wallet and network
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
}

/// Options of `opg node init-inference`.
#[derive(Debug, Args)]
pub(crate) struct InitInferenceArgs {
    /// Folder to write
    #[arg(long, value_name = "DIR")]
    pub(crate) out: PathBuf,
    /// A model to serve, OWNER/NAME=FILE, with the file in ONNX or GGUF; may be given more than once
    #[arg(long = "model", value_name = "MODEL=FILE", value_parser = model_file, required = true)]
    pub(crate) models: Vec<(String, PathBuf)>,
    /// Where it listens [default: a free port of this machine]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Its base URL for others, where that is not http://HOST:PORT
    #[arg(long, value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// The network
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

fn model_file(text: &str) -> Result<(String, PathBuf), String> {
    let (name, file) = text.split_once('=').ok_or("must be OWNER/NAME=FILE")?;
    Ok((name.to_owned(), file.into()))
}

/// A node, and the operator's wallet.
#[derive(Debug, Args)]
pub(crate) struct OwnNodeArgs {
    /// Its id [default: the network's first inference node]
    #[arg(long, value_name = "ID")]
    pub(crate) node: Option<B256>,
    /// Wallet and network
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
}

/// Options of `opg node register full`.
#[derive(Debug, Args)]
pub(crate) struct RegisterFullArgs {
    /// Configuration of the full node, as `opg node init` and `opg up --split` write it; its keys are registered
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Own stake to lock, in OPG [default: the network's least]
    #[arg(long, value_parser = amount, value_name = "OPG")]
    pub(crate) bond: Option<Amount>,
    /// Part of the rewards that the operator keeps, basis points
    #[arg(long, default_value_t = 0, value_name = "BPS", value_parser = clap::value_parser!(u16).range(..=10_000))]
    pub(crate) commission: u16,
    /// Native coin that the system account is filled up to; it pays the gas of system transactions
    #[arg(long, default_value = "10", value_parser = Amount::parse_opg, value_name = "OPG")]
    pub(crate) gas: Amount,
    /// Wallet and network
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
}

/// Options of `opg node rotate-keys`.
#[derive(Debug, Args)]
pub(crate) struct RotateKeysArgs {
    /// Configuration of the full node with the new keys
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// Native coin that the new system account is filled up to
    #[arg(long, default_value = "10", value_parser = Amount::parse_opg, value_name = "OPG")]
    pub(crate) gas: Amount,
    /// Wallet and network
    #[command(flatten)]
    pub(crate) operator: OperatorArgs,
}

/// An operator's wallet, and whether it only asks.
#[derive(Debug, Clone, Args)]
pub(crate) struct OperatorArgs {
    /// Say what would be done, and send nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The operator's wallet and the network
    #[command(flatten)]
    pub(crate) purse: PurseArgs,
}

/// `opg gov`.
#[derive(Debug, Subcommand)]
pub(crate) enum GovCommand {
    /// List proposals, newest first: state, votes, times
    Ls {
        /// Show this proposal alone, with all that it says and does
        id: Option<String>,
        /// Wallet and network
        #[command(flatten)]
        purse: PurseArgs,
    },
    /// Propose a change
    Propose(ProposeArgs),
    /// Vote on a proposal with all votes that the wallet had when the vote began
    Vote {
        /// Number of the proposal, or its first digits
        id: String,
        /// What to say
        #[arg(value_enum)]
        support: SupportArg,
        /// Why; it goes on chain
        #[arg(long, default_value = "")]
        reason: String,
        /// Waiting, wallet and network
        #[command(flatten)]
        how: GovStepArgs,
    },
    /// Hand a proposal that passed to the timelock
    Queue {
        /// Number of the proposal, or its first digits
        id: String,
        /// Waiting, wallet and network
        #[command(flatten)]
        how: GovStepArgs,
    },
    /// Carry out a queued proposal once its delay is over
    Execute {
        /// Number of the proposal, or its first digits
        id: String,
        /// Waiting, wallet and network
        #[command(flatten)]
        how: GovStepArgs,
    },
    /// Give the wallet's votes to an account; OPG that is held votes only after this
    Delegate {
        /// Who gets them [default: the wallet itself]
        to: Option<Address>,
        /// Leave the votes of stake where they are
        #[arg(long)]
        held_only: bool,
        /// Say what would be done, and send nothing
        #[arg(long)]
        dry_run: bool,
        /// Wallet and network
        #[command(flatten)]
        purse: PurseArgs,
    },
    /// Take votes of others' stake, so that they can name this wallet
    AcceptVotes {
        /// Take them no longer; who has named the wallet stays
        #[arg(long)]
        stop: bool,
        /// Wallet and network
        #[command(flatten)]
        purse: PurseArgs,
    },
}

/// Options that vote, queue and execute share.
#[derive(Debug, Args)]
pub(crate) struct GovStepArgs {
    /// Wait until it is possible, at most so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "600", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub(crate) wait: Option<u64>,
    /// Say what would be done, and send nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Wallet and network
    #[command(flatten)]
    pub(crate) purse: PurseArgs,
}

/// What to say to a proposal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SupportArg {
    /// Yes
    For,
    /// No
    Against,
    /// Neither; counts for the quorum
    Abstain,
}

/// Options of `opg gov propose`.
#[derive(Debug, Args)]
pub(crate) struct ProposeArgs {
    /// Title, one line [default: what the proposal does]
    #[arg(long, global = true)]
    pub(crate) title: Option<String>,
    /// Reasons, as text, @FILE, or - for stdin
    #[arg(long, global = true, value_name = "TEXT|@FILE|-")]
    pub(crate) description: Option<String>,
    /// Print the draft and what it would do, and send nothing
    #[arg(long, global = true)]
    pub(crate) dry_run: bool,
    /// Key file of the wallet [default: $OPG_WALLET, else the demo wallet of the network]
    #[arg(long, global = true, value_name = "FILE", env = "OPG_WALLET", hide_env_values = true)]
    pub(crate) key: Option<PathBuf>,
    /// Folder of the network [default: $OPG_NETWORK, else that of the last `opg up`]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) dir: Option<PathBuf>,
    /// What to change
    #[command(subcommand)]
    pub(crate) change: ProposeCommand,
}

/// What can be proposed. Options that are not given stay what they are.
#[derive(Debug, Subcommand)]
pub(crate) enum ProposeCommand {
    /// Rules of blocks: gas limit, verification budget
    ChainParameters {
        /// Gas limit of a block, 120,000,000 to 1,000,000,000
        #[arg(long)]
        gas_limit: Option<u64>,
        /// Cost units of 100 µs of one core that a block's receipts and proofs may need, 1,000 to 1,000,000,000
        #[arg(long)]
        verification_budget: Option<u64>,
        /// First height with the new rules [default: after the earliest execution, with room]
        #[arg(long, value_name = "HEIGHT")]
        at: Option<u64>,
    },
    /// Weights by which a charge is split, without the royalty: the node has 60 % or more, nobody else over 20 %
    FeeSplit {
        /// Of the node
        #[arg(long)]
        node: u16,
        /// Of the auditors
        #[arg(long)]
        auditors: u16,
        /// Of the treasury
        #[arg(long)]
        treasury: u16,
        /// Of the router
        #[arg(long)]
        router: u16,
    },
    /// The same for closed models, whose price passes through to the provider: the node has 90 % or more, nobody else over 5 %
    ClosedFeeSplit {
        /// Of the node
        #[arg(long)]
        node: u8,
        /// Of the auditors
        #[arg(long)]
        auditors: u8,
        /// Of the treasury
        #[arg(long)]
        treasury: u8,
        /// Of the router
        #[arg(long)]
        router: u8,
    },
    /// Escrow windows of receipts by mode, seconds
    EscrowWindows {
        /// Signature only
        #[arg(long, value_name = "SECONDS")]
        none: Option<u64>,
        /// Attested
        #[arg(long, value_name = "SECONDS")]
        tee: Option<u64>,
        /// Proven
        #[arg(long, value_name = "SECONDS")]
        zk: Option<u64>,
        /// Replayable
        #[arg(long, value_name = "SECONDS")]
        replay: Option<u64>,
    },
    /// Parameters of staking
    Staking {
        /// Least own stake of a validator, in OPG
        #[arg(long, value_parser = amount, value_name = "OPG")]
        min_self_bond: Option<Amount>,
        /// How long stake unbonds
        #[arg(long, value_name = "SECONDS")]
        unbonding: Option<u64>,
        /// Jail for being down
        #[arg(long, value_name = "SECONDS")]
        jail_time: Option<u64>,
        /// Most seats, 4 to 100
        #[arg(long)]
        max_seats: Option<u16>,
        /// Most that a commission may change in an epoch
        #[arg(long, value_name = "BPS")]
        commission_step: Option<u16>,
        /// Fewest leader views of an epoch from which a seat can be down
        #[arg(long)]
        min_views: Option<u32>,
        /// Least part of them that a seat must win, millionths
        #[arg(long)]
        min_led_ppm: Option<u32>,
    },
    /// Parameters of slashing
    Slashing {
        /// Least bond of a report, in OPG
        #[arg(long, value_parser = amount, value_name = "OPG")]
        challenger_bond: Option<Amount>,
        /// Between a verdict and the slash
        #[arg(long, value_name = "SECONDS")]
        appeal_window: Option<u64>,
        /// Least slash for equivocation, millionths of the stake
        #[arg(long)]
        equivocation_ppm: Option<u32>,
        /// Slash for being down, millionths of the stake
        #[arg(long)]
        downtime_ppm: Option<u32>,
        /// Factor on the share of seats with the same fault
        #[arg(long)]
        correlation: Option<u8>,
    },
    /// Drop a slashing case
    DismissCase {
        /// Its number
        id: u64,
    },
    /// Division of what the bucket for staking releases
    Emission {
        /// For auditors, millionths
        #[arg(long)]
        auditors_ppm: Option<u32>,
        /// For inference nodes, millionths
        #[arg(long)]
        nodes_ppm: Option<u32>,
    },
    /// Who gets what is set aside of the emission
    EmissionRecipient {
        /// For whom it is set aside
        #[arg(value_enum)]
        pool: PoolArg,
        /// Who gets it
        to: Address,
    },
    /// Pay out of the treasury
    Spend {
        /// To whom
        to: Address,
        /// How much, in OPG
        #[arg(value_parser = amount)]
        amount: Amount,
        /// Native coin instead of OPG
        #[arg(long)]
        native: bool,
    },
    /// One feature tier: change it, or add one after the highest
    Tier {
        /// Its number, from 0
        index: usize,
        /// Least OPG held and staked
        #[arg(long, value_parser = Amount::parse_opg, value_name = "OPG")]
        threshold: Option<Amount>,
        /// Taken off a gateway's own fee, at most 5,000
        #[arg(long, value_name = "BPS")]
        discount_bps: Option<u16>,
        /// Rate limit
        #[arg(long)]
        requests_per_minute: Option<u32>,
        /// Size limit of one request
        #[arg(long, value_name = "BYTES")]
        max_request_bytes: Option<u32>,
    },
    /// Limits of the price oracle
    Oracle {
        /// Fewest feeds of a round, 3 to 100
        #[arg(long)]
        min_feeds: Option<u8>,
        /// For how long a price is usable, 60 to 14,400
        #[arg(long, value_name = "SECONDS")]
        max_age: Option<u32>,
    },
    /// What attestation evidence is judged by
    EvidencePolicy {
        /// The policy (JSON)
        file: PathBuf,
    },
    /// Revoke a measurement or signer of attestation evidence for ever
    EvidenceRevoke {
        /// Its hash
        subject: alloy_primitives::B256,
    },
    /// Periods and limits of governance itself
    Governance {
        /// Between a proposal and its vote
        #[arg(long, value_name = "SECONDS")]
        delay: Option<u64>,
        /// Length of a vote
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
        period: Option<u32>,
        /// Votes that a proposer needs, in OPG
        #[arg(long, value_parser = Amount::parse_opg, value_name = "OPG")]
        threshold: Option<Amount>,
        /// Part of wrapped OPG that has to vote
        #[arg(long, value_name = "BPS", value_parser = clap::value_parser!(u16).range(..=10_000))]
        quorum_bps: Option<u16>,
        /// Between queueing and execution
        #[arg(long, value_name = "SECONDS")]
        timelock_delay: Option<u64>,
    },
    /// Any call in the timelock's name
    Call {
        /// Contract
        #[arg(long)]
        target: Address,
        /// Function and arguments as bytes
        #[arg(
            long,
            value_name = "HEX",
            required_unless_present = "signature",
            conflicts_with = "signature"
        )]
        calldata: Option<alloy_primitives::Bytes>,
        /// Function, such as 'setLimits(uint8,uint32)'
        #[arg(long)]
        signature: Option<String>,
        /// Its arguments
        #[arg(requires = "signature", conflicts_with = "calldata")]
        arguments: Vec<String>,
        /// Native coin to send, out of the timelock's own
        #[arg(long, default_value = "0", value_parser = Amount::parse_opg, value_name = "OPG")]
        value: Amount,
    },
    /// A draft with one call or several, as `--dry-run --json` prints it
    Draft {
        /// The file
        file: PathBuf,
    },
}

/// Parts of the emission that are set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PoolArg {
    /// Auditors
    Auditors,
    /// Inference nodes
    Nodes,
}

/// Options of `opg node inject-key`.
#[derive(Debug, Args)]
pub(crate) struct InjectKeyArgs {
    /// Whose key: openai, anthropic, google, xai, or compatible
    #[arg(long)]
    pub(crate) provider: String,
    /// The one host that it may be sent to [default: the provider's own]
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// File with the API key [default: stdin]
    #[arg(long, value_name = "FILE")]
    pub(crate) api_key_file: Option<PathBuf>,
    /// The node [default: the network's first one]
    #[arg(long, value_name = "ID")]
    pub(crate) node: Option<alloy_primitives::B256>,
    /// The operator's wallet
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// The network
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// A price; what is not named is zero.
#[derive(Debug, Clone, Args)]
pub(crate) struct PriceArgs {
    /// OPG a call
    #[arg(long, visible_alias = "price", default_value = "0", value_parser = Amount::parse_opg, value_name = "OPG")]
    pub(crate) per_call: Amount,
    /// OPG a million input tokens
    #[arg(long, default_value = "0", value_parser = Amount::parse_opg, value_name = "OPG")]
    pub(crate) per_mtok_in: Amount,
    /// OPG a million output tokens
    #[arg(long, default_value = "0", value_parser = Amount::parse_opg, value_name = "OPG")]
    pub(crate) per_mtok_out: Amount,
}

/// Options of `opg models register-closed`.
#[derive(Debug, Args)]
pub(crate) struct RegisterClosedArgs {
    /// `owner/name` under which it is listed
    pub(crate) name: String,
    /// Whose model: openai, anthropic, google, xai, or compatible
    #[arg(long)]
    pub(crate) provider: String,
    /// The provider's name of it
    #[arg(long)]
    pub(crate) model: String,
    /// Host of the provider [default: the provider's own]
    #[arg(long)]
    pub(crate) host: Option<String>,
    /// The reference price
    #[command(flatten)]
    pub(crate) price: PriceArgs,
    /// Print the root and register nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The wallet of whoever registers it
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// The network
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// Hub commands.
#[derive(Debug, Subcommand)]
pub(crate) enum HubCommand {
    /// Sign in with the wallet and print an access token (the value of HF_TOKEN)
    Token {
        /// URL of the hub
        #[arg(
            long,
            env = "HF_ENDPOINT",
            default_value = "http://127.0.0.1:8700",
            value_name = "URL"
        )]
        hub: String,
        /// What the token allows
        #[arg(long, value_enum, default_value = "write")]
        scope: HubScopeArg,
        /// How long it lives
        #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=365))]
        days: u32,
        /// Chain id in the signed message
        #[arg(long, default_value_t = 10_740)]
        chain_id: u64,
        /// The wallet
        #[command(flatten)]
        key: KeyArgs,
    },
    /// Copy a hub's database and files to a directory, also while the hub runs; again into the same one copies what is new
    Backup {
        /// Configuration of the hub
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Directory of the backup: a new one, or one of an earlier backup
        directory: PathBuf,
    },
    /// Check a backup, and put it into the empty data directory of a hub that does not run
    Restore {
        /// Configuration of the hub
        #[arg(long, value_name = "FILE", required_unless_present = "check")]
        config: Option<PathBuf>,
        /// Only check every hash of the backup
        #[arg(long, conflicts_with = "config")]
        check: bool,
        /// Directory of the backup
        directory: PathBuf,
    },
}

/// What a hub token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum HubScopeArg {
    /// Download, also private and gated models
    Read,
    /// Upload and change as well
    Write,
}

/// Options of `opg node`.
#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// Its configuration (TOML), as `opg up --split` writes it
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
}

/// Wallet commands.
#[derive(Debug, Subcommand)]
pub(crate) enum WalletCommand {
    /// Make a new key file
    New {
        /// Where to write it [default: wallet.key in the user's data folder]
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Show the address of a wallet
    Show {
        /// The wallet
        #[command(flatten)]
        key: KeyArgs,
        /// The network
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Show balances: native coin, OPG, and credits that can be withdrawn
    Balance {
        /// Whose [default: the wallet's]
        address: Option<Address>,
        /// The wallet
        #[command(flatten)]
        key: KeyArgs,
        /// The network
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Show what the OPG that an account holds and has staked unlocks at gateways: its feature tier
    Tier {
        /// Whose [default: the wallet's]
        address: Option<Address>,
        /// The wallet
        #[command(flatten)]
        key: KeyArgs,
        /// The network
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Show or set what this wallet may spend on calls; a limit that is not named stays as it is
    Limits {
        /// The most that one call may cost, in OPG; `none` removes the limit
        #[arg(long, value_parser = limit, value_name = "OPG")]
        per_call: Option<Limit>,
        /// The most that all calls of 24 hours may cost, in OPG; `none` removes the limit
        #[arg(long, value_parser = limit, value_name = "OPG")]
        per_day: Option<Limit>,
        /// The most that one node may get in 24 hours, in OPG; `none` removes the limit
        #[arg(long, value_parser = limit, value_name = "OPG")]
        per_payee: Option<Limit>,
        /// Wallet and network
        #[command(flatten)]
        purse: PurseArgs,
    },
    /// Let Permit2 move this wallet's OPG, for --pay permit and --pay upto; needs gas
    Permit2 {
        /// Take it back
        #[arg(long)]
        revoke: bool,
        /// The wallet
        #[command(flatten)]
        key: KeyArgs,
        /// The network
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Send OPG (ERC-20), or native coin with --native
    Send {
        /// To whom
        to: Address,
        /// How much, in OPG (for example 1.5)
        #[arg(value_parser = amount)]
        amount: Amount,
        /// Send the native coin, which pays gas
        #[arg(long)]
        native: bool,
        /// The wallet
        #[command(flatten)]
        key: KeyArgs,
        /// The network
        #[command(flatten)]
        network: NetworkArgs,
    },
}

/// Whose purse: channels and limits of a wallet on a network.
#[derive(Debug, Clone, Args)]
pub(crate) struct PurseArgs {
    /// The wallet
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// The network
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// Options of `opg validators`.
#[derive(Debug, Args)]
pub(crate) struct ValidatorsArgs {
    /// Show this account's stake, rewards and unbonding stake as well
    #[arg(long)]
    pub(crate) account: Option<Address>,
    /// Show those that have left as well
    #[arg(long)]
    pub(crate) all: bool,
    /// The network
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// Options of `opg stake`.
#[derive(Debug, Args)]
pub(crate) struct StakeArgs {
    /// How much, in OPG
    #[arg(value_parser = amount)]
    pub(crate) amount: Amount,
    /// Say what would be locked, and send nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Wallet and network
    #[command(flatten)]
    pub(crate) purse: PurseArgs,
}

/// Options of `opg delegate`.
#[derive(Debug, Args)]
pub(crate) struct DelegateArgs {
    /// Operator of the validator (`opg validators`)
    pub(crate) validator: Address,
    /// What to lock
    #[command(flatten)]
    pub(crate) stake: StakeArgs,
}

/// Options of `opg unstake`.
#[derive(Debug, Args)]
pub(crate) struct UnstakeArgs {
    /// Operator of the validator
    pub(crate) validator: Address,
    /// How much, in OPG
    #[arg(value_parser = amount, required_unless_present = "all", conflicts_with = "all")]
    pub(crate) amount: Option<Amount>,
    /// Everything behind this validator
    #[arg(long)]
    pub(crate) all: bool,
    /// Say what would be done, and send nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Wallet and network
    #[command(flatten)]
    pub(crate) purse: PurseArgs,
}

/// Options of `opg claim`.
#[derive(Debug, Args)]
pub(crate) struct ClaimArgs {
    /// Say what there is to collect, and send nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Wallet and network
    #[command(flatten)]
    pub(crate) purse: PurseArgs,
}

/// A limit, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) Option<Amount>);

fn limit(text: &str) -> Result<Limit, String> {
    match text {
        "none" => Ok(Limit(None)),
        text => amount(text).map(|amount| Limit(Some(amount))),
    }
}

/// The id of a channel, or its first digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChannelId(pub(crate) String);

fn channel_id(text: &str) -> Result<ChannelId, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text).to_ascii_lowercase();
    if digits.len() < 4 || digits.len() > 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err("must be 4 to 64 hex digits of a channel's id".into());
    }
    Ok(ChannelId(digits))
}

/// `opg channel`.
#[derive(Debug, Subcommand)]
pub(crate) enum ChannelCommand {
    /// Open a channel to the node of a model with one signature; the node carries the deposit to the chain
    Open {
        /// A model that the node serves
        model: String,
        /// How much to lock, in OPG
        #[arg(long, value_parser = amount, value_name = "OPG")]
        deposit: Amount,
        /// Say what would be locked, and sign nothing
        #[arg(long)]
        dry_run: bool,
        /// Wallet and network
        #[command(flatten)]
        purse: PurseArgs,
    },
    /// Deposit more into a channel
    TopUp {
        /// The channel's id, or its first digits
        #[arg(value_parser = channel_id)]
        channel: ChannelId,
        /// How much, in OPG
        #[arg(value_parser = amount)]
        amount: Amount,
        /// Wallet and network
        #[command(flatten)]
        purse: PurseArgs,
    },
    /// Take back what is not charged: the node pays it out at once
    Close {
        /// The channel's id, or its first digits
        #[arg(value_parser = channel_id)]
        channel: ChannelId,
        /// Announce the withdrawal on chain instead of asking the node; needs native OPG for gas
        #[arg(long, conflicts_with = "finish")]
        withdraw: bool,
        /// Take back an announced withdrawal once its delay is over; needs native OPG for gas
        #[arg(long)]
        finish: bool,
        /// Wallet and network
        #[command(flatten)]
        purse: PurseArgs,
    },
    /// List the wallet's channels
    Ls {
        /// Wallet and network
        #[command(flatten)]
        purse: PurseArgs,
    },
}

/// How a call is paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum PayArg {
    /// Out of a channel to the node if there is one that can, else by a payment of its own
    Auto,
    /// Out of a channel to the node
    Channel,
    /// By a payment of its own (ERC-3009): the bound is taken, the rest comes back as a credit
    Exact,
    /// As exact, by Permit2: see `opg wallet permit2`
    Permit,
    /// By Permit2, after the work and only what it cost: see `opg wallet permit2`
    Upto,
}

/// Options of `opg faucet`.
#[derive(Debug, Args)]
pub(crate) struct FaucetArgs {
    /// Who gets it
    pub(crate) address: Address,
    /// How much OPG (ERC-20)
    #[arg(long, default_value = "10", value_parser = amount, value_name = "OPG")]
    pub(crate) amount: Amount,
    /// How much native coin for gas
    #[arg(long, default_value = "1", value_parser = Amount::parse_opg, value_name = "OPG")]
    pub(crate) gas: Amount,
    /// The network
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// Model commands.
#[derive(Debug, Subcommand)]
pub(crate) enum ModelsCommand {
    /// List the models that the network serves
    Ls {
        /// The network
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Show one model: root, creator, royalty, prices, inputs and outputs
    Show {
        /// `owner/name[@revision]` or a 64-hex content root
        model: String,
        /// The network
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Upload a folder as a model's newest version, and register it on chain
    Push(PushArgs),
    /// Download a model, every byte checked
    Pull(PullArgs),
    /// Say on a model's page that it should not be used any more, and why
    Deprecate(DeprecateArgs),
    /// Remove a model from the hub; its registration on chain stays
    Rm(RemoveArgs),
    /// Give a model and its future royalties to another account, for good; for its creator. Its repository at the hub stays where it is
    Transfer {
        /// `owner/name[@revision]` or a 64-hex content root
        model: String,
        /// Who is its creator from then on
        #[arg(value_name = "ADDRESS")]
        to: Address,
        /// The creator's wallet
        #[command(flatten)]
        key: KeyArgs,
        /// The network
        #[command(flatten)]
        network: NetworkArgs,
    },
    /// Register a provider's model, so that nodes can serve it through their proxies
    RegisterClosed(RegisterClosedArgs),
    /// Register an exact integer program of a model, so that nodes can serve it in mode zk; for the model's creator
    RegisterProgram {
        /// `owner/name[@revision]` or a 64-hex content root
        model: String,
        /// The program (`opg zk compile -o`)
        #[arg(long, value_name = "PROGRAM")]
        program: PathBuf,
        /// Its registration report (`opg zk compile --report`); it goes on chain, at most 4,096 bytes
        #[arg(long, value_name = "REPORT.json")]
        report: PathBuf,
        /// The creator's wallet
        #[command(flatten)]
        key: KeyArgs,
        /// The network
        #[command(flatten)]
        network: NetworkArgs,
    },
}

/// Which hub.
#[derive(Debug, Args)]
pub(crate) struct HubArgs {
    /// URL of the hub [default: the network's]
    #[arg(long, env = "HF_ENDPOINT", value_name = "URL")]
    pub(crate) hub: Option<String>,
}

/// Options of `opg models push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// Folder with the model's files; hidden ones are left out
    #[arg(value_name = "DIR")]
    pub(crate) folder: PathBuf,
    /// `owner/name`: the owner is your address, your name at the hub, or an organisation
    pub(crate) name: String,
    /// The reference price of a new model; of one that is registered, what it becomes
    #[command(flatten)]
    pub(crate) price: PriceArgs,
    /// The model costs nothing
    #[arg(long)]
    pub(crate) free: bool,
    /// Your part of each charge, in basis points, at most 3,000
    #[arg(long, visible_alias = "royalty", value_name = "BPS", value_parser = clap::value_parser!(u16).range(..=3_000))]
    pub(crate) royalty_bps: Option<u16>,
    /// License, written into the metadata of the uploaded README.md
    #[arg(long)]
    pub(crate) license: Option<String>,
    /// The file that is the model, if the folder has several
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<String>,
    /// Make the repository for its members only: nodes cannot fetch the model there, and what is registered on chain is public all the same
    #[arg(long)]
    pub(crate) private: bool,
    /// Title of the version
    #[arg(long, short, default_value = "Upload with opg models push")]
    pub(crate) message: String,
    /// Upload, and register nothing
    #[arg(long)]
    pub(crate) no_register: bool,
    /// Check the files and print the root; upload and register nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The hub
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    /// The creator's wallet
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// The network
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// Options of `opg models pull`.
#[derive(Debug, Args)]
pub(crate) struct PullArgs {
    /// `owner/name[@revision]` or a 64-hex content root
    pub(crate) model: String,
    /// Where to [default: a folder with the model's name]
    #[arg(long, short, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// Access token of the hub (`opg hub token`), sent only if the model is not public
    #[arg(long, env = "HF_TOKEN", hide_env_values = true, value_name = "TOKEN")]
    pub(crate) token: Option<String>,
    /// The wallet that signs in without a token, if the model is not public
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// The hub
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    /// The network
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// Options of `opg models deprecate`.
#[derive(Debug, Args)]
pub(crate) struct DeprecateArgs {
    /// `owner/name`
    pub(crate) name: String,
    /// Why, and what to use instead
    #[arg(long)]
    pub(crate) reason: String,
    /// The hub
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    /// Wallet of an account that may change the repository
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// The network
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// Options of `opg models rm`.
#[derive(Debug, Args)]
pub(crate) struct RemoveArgs {
    /// `owner/name`
    pub(crate) name: String,
    /// Really: all revisions are lost
    #[arg(long)]
    pub(crate) yes: bool,
    /// The hub
    #[command(flatten)]
    pub(crate) hub: HubArgs,
    /// Wallet of an account that may delete the repository
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// The network
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// How an answer is to be proven.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ModeArg {
    /// Signature of the node only
    None,
    /// Attested hardware
    Tee,
    /// Zero-knowledge proof
    Zk,
    /// Sampled re-execution
    Replay,
}

/// Options that `infer` and `chat` share.
#[derive(Debug, Args)]
pub(crate) struct JobArgs {
    /// How the answer is to be proven: `infer` has `none`, `tee` and `zk`, `chat` has `none` and `tee`
    #[arg(long, value_enum, default_value = "none")]
    pub(crate) mode: ModeArg,
    /// Wait until the receipt is final and settled, and write the receipt file there
    #[arg(long, value_name = "FILE")]
    pub(crate) receipt: Option<PathBuf>,
    /// Seal request and answer to the node's attested key; only that node can read them
    #[arg(long)]
    pub(crate) encrypted: bool,
    /// Send the sealed request through this router's relay, so that the node does not learn this machine's address; the relay
    /// sees only ciphertext, as long as it does not share what it sees with the node
    #[arg(long, value_name = "URL", requires = "encrypted")]
    pub(crate) relay: Option<String>,
    /// How to pay
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) pay: PayArg,
    /// Never sign a payment above this, in OPG
    #[arg(long, default_value = "1", value_parser = amount, value_name = "OPG")]
    pub(crate) max_spend: Amount,
    /// How long to wait for finality and settlement, in seconds
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
    /// The wallet
    #[command(flatten)]
    pub(crate) key: KeyArgs,
    /// The network
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

/// Options of `opg infer`.
#[derive(Debug, Args)]
pub(crate) struct InferArgs {
    /// `owner/name[@revision]` or a 64-hex content root
    pub(crate) model: String,
    /// Tensors by name: JSON, @FILE, or - for stdin
    #[arg(long, value_name = "JSON|@FILE|-")]
    pub(crate) input: String,
    /// Mode, payment, receipt
    #[command(flatten)]
    pub(crate) job: JobArgs,
}

/// Options of `opg chat`.
#[derive(Debug, Args)]
pub(crate) struct ChatArgs {
    /// `owner/name[@revision]` or a 64-hex content root
    pub(crate) model: String,
    /// The prompt, or - for stdin
    pub(crate) prompt: String,
    /// Print the answer while it is generated
    #[arg(long)]
    pub(crate) stream: bool,
    /// Most tokens to generate; bounds the price
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) max_tokens: u32,
    /// Sampling temperature; 0 takes the likeliest token each time
    #[arg(long, value_name = "T", value_parser = temperature)]
    pub(crate) temperature: Option<f64>,
    /// Seed of the sampler
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Tools that the model may call: a JSON list as OpenAI's interface has it (models of providers)
    #[arg(long, value_name = "FILE")]
    pub(crate) tools: Option<PathBuf>,
    /// none, auto, required, or the name of the one tool to call
    #[arg(long, value_name = "CHOICE", requires = "tools")]
    pub(crate) tool_choice: Option<String>,
    /// Mode, payment, receipt
    #[command(flatten)]
    pub(crate) job: JobArgs,
}

/// Receipt commands.
#[derive(Debug, Subcommand)]
pub(crate) enum ReceiptCommand {
    /// Show what a receipt file says, without judging it
    Show {
        /// The receipt file
        file: PathBuf,
    },
    /// Check a receipt file, step by step
    Verify(VerifyArgs),
}

/// Options of `opg receipt verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The receipt file
    pub(crate) file: PathBuf,
    /// Genesis file to trust [default: that of the network]
    #[arg(long, value_name = "FILE")]
    pub(crate) genesis: Option<PathBuf>,
    /// Use no network: only the file and the genesis
    #[arg(long)]
    pub(crate) offline: bool,
    /// What must be proven: none, tee, zk or replay, with a grade (simulated or hardware) after a comma
    #[arg(long, value_name = "MODE[,GRADE]")]
    pub(crate) require: Option<String>,
    /// A checkpoint (consensus block digest, 64 hex digits) that is trusted beside the genesis
    #[arg(long, value_name = "HASH")]
    pub(crate) trust_checkpoint: Option<alloy_primitives::B256>,
    /// Accept an anchor that is older than the unbonding period
    #[arg(long)]
    pub(crate) accept_old_anchor: bool,
    /// Neither use nor keep checkpoints that were verified before
    #[arg(long)]
    pub(crate) no_keep: bool,
    /// The network, whose genesis is used when --genesis is not given
    #[command(flatten)]
    pub(crate) network: NetworkArgs,
}

fn amount(text: &str) -> Result<Amount, String> {
    let amount = Amount::parse_opg(text).map_err(|error| error.to_string())?;
    if amount == Amount::ZERO {
        Err("must be more than zero".into())
    } else {
        Ok(amount)
    }
}

fn temperature(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if (0.0..=2.0).contains(&value) => Ok(value),
        _ => Err("must be a number from 0 to 2".into()),
    }
}

/// Commands on attestation evidence.
#[derive(Debug, Subcommand)]
pub(crate) enum EvidenceCommand {
    /// Check a document's signatures, chain and platform, then judge it by a policy
    Verify(EvidenceVerifyArgs),
    /// Hand newer vendor collateral to a chain, which from then on refuses evidence with older
    Renew(EvidenceRenewArgs),
}

/// Options of `opg evidence renew`.
#[derive(Debug, Args)]
pub(crate) struct EvidenceRenewArgs {
    /// Intel's collateral (JSON), or revocation lists of AMD's roots (PEM or DER)
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// tdx, sgx or snp
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: opg_evidence::Kind,
    /// Check it and compare it with what the chain has, and send nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The wallet that pays the gas
    #[command(flatten)]
    pub(crate) purse: PurseArgs,
}

/// Options of `opg evidence verify`.
#[derive(Debug, Args)]
pub(crate) struct EvidenceVerifyArgs {
    /// The document, as it is or in text, JSON or a cloud's wrapper
    pub(crate) file: PathBuf,
    /// nitro, tdx, sgx, snp or gpu
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: opg_evidence::Kind,
    /// Time to judge at, as 2026-11-21T04:00:00Z [default: now]
    #[arg(long, value_name = "RFC3339")]
    pub(crate) at: Option<String>,
    /// File or folder with what belongs to the document: certificates, revocation lists, Intel's collateral (JSON), Azure's wrapper, a TPM quote, an event log; may be repeated
    #[arg(long, value_name = "PATH")]
    pub(crate) collateral: Vec<PathBuf>,
    /// Rules (JSON) [default: no debug guest, TCB up to date, any measurement]
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Nonce that the document must carry (Nitro, GPU)
    #[arg(long, value_name = "HEX")]
    pub(crate) nonce: Option<String>,
    /// Digest or report data that the document must bind
    #[arg(long, value_name = "HEX")]
    pub(crate) bound: Option<String>,
    /// Judge under this root of a software attester instead of the vendors'; the verdict is then simulated; may be repeated
    #[arg(long, value_name = "FILE")]
    pub(crate) development_root: Vec<PathBuf>,
    /// Take the file as the document, without looking for wrappers around it
    #[arg(long)]
    pub(crate) raw: bool,
}

/// Commands on exact integer programs and proofs of what they computed.
#[derive(Debug, Subcommand)]
pub(crate) enum ZkCommand {
    /// Turn an ONNX model into an exact integer program and compare the two
    Compile(ZkCompileArgs),
    /// Commit to a program's weights and print the model root that verifiers need
    Commit(ZkCommitArgs),
    /// Run a program on inputs and prove the outputs
    Prove(ZkProveArgs),
    /// Check a proof against a model root, inputs and outputs; needs no weights
    Verify(ZkVerifyArgs),
    /// Show what a program or a proof holds, and what proving costs layer by layer
    Inspect(ZkInspectArgs),
}

/// Precision of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PrecisionArg {
    /// 8-bit weights and activations: fastest to prove
    Int8,
    /// 16-bit activations: closest to the float model
    Int16,
}

/// Who holds the weights when a proof is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProofProfileArg {
    /// The verifier holds the model root only
    Committed,
    /// The verifier holds the program: smaller and faster proofs
    Open,
}

/// Security of the commitments, which is part of the model root.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SecurityArg {
    /// At least 100 bits
    #[value(name = "100")]
    Bits100,
    /// At least 128 bits
    #[value(name = "128")]
    Bits128,
}

/// Options of `opg zk compile`.
#[derive(Debug, Args)]
pub(crate) struct ZkCompileArgs {
    /// The model, in ONNX
    #[arg(value_name = "MODEL.onnx")]
    pub(crate) model: PathBuf,
    /// Where to write the program
    #[arg(short = 'o', value_name = "PROGRAM", required = true)]
    pub(crate) out: PathBuf,
    /// Requests as they will come, from which scales are chosen: a list of {"INPUT": nested numbers} [default: random numbers]
    #[arg(long, value_name = "DATA.json")]
    pub(crate) calibrate: Option<PathBuf>,
    /// Write how the program's results compare with the model's there, as `opg models register-program` takes it
    #[arg(long, value_name = "REPORT.json")]
    pub(crate) report: Option<PathBuf>,
    /// Precision
    #[arg(long, value_enum, default_value = "int8")]
    pub(crate) profile: PrecisionArg,
}

/// Options of `opg zk commit`.
#[derive(Debug, Args)]
pub(crate) struct ZkCommitArgs {
    /// The program
    pub(crate) program: PathBuf,
    /// Bits of security; another number is another root
    #[arg(long, value_enum, default_value = "100", value_name = "BITS")]
    pub(crate) security: SecurityArg,
    /// Commit so that proofs can hide the weights, and write what makes them (a secret) there
    #[arg(long, value_name = "SECRET")]
    pub(crate) hide: Option<PathBuf>,
    /// How many hiding proofs can be made
    #[arg(long, default_value_t = 64, value_name = "N", requires = "hide", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(crate) slots: u32,
}

/// Options of `opg zk prove`.
#[derive(Debug, Args)]
pub(crate) struct ZkProveArgs {
    /// The program
    pub(crate) program: PathBuf,
    /// Inputs: {"INPUT": nested numbers}, or a list of such objects for one proof of several requests
    #[arg(long, value_name = "IN.json")]
    pub(crate) input: PathBuf,
    /// Where to write the proof
    #[arg(short = 'o', value_name = "PROOF", required = true)]
    pub(crate) proof: PathBuf,
    /// Where to write the outputs that the proof is about
    #[arg(long, value_name = "OUT.json")]
    pub(crate) output: Option<PathBuf>,
    /// Who holds the weights when the proof is checked
    #[arg(long, value_enum, default_value = "committed")]
    pub(crate) profile: ProofProfileArg,
    /// Hide the weights: the secret of `opg zk commit --hide`, of which one slot is used up
    #[arg(long, value_name = "SECRET", conflicts_with_all = ["profile", "security"])]
    pub(crate) hide: Option<PathBuf>,
    /// Hide the inputs too, and write what opens their commitment (a secret) there
    #[arg(long, value_name = "OPENING", requires = "hide")]
    pub(crate) hide_inputs: Option<PathBuf>,
    /// Ties the proof to a receipt (64 hex digits)
    #[arg(long, value_name = "HASH")]
    pub(crate) receipt: Option<alloy_primitives::B256>,
    /// Bits of security; must be those of the model root
    #[arg(long, value_enum, default_value = "100", value_name = "BITS")]
    pub(crate) security: SecurityArg,
}

/// Options of `opg zk verify`.
#[derive(Debug, Args)]
pub(crate) struct ZkVerifyArgs {
    /// The proof
    pub(crate) proof: PathBuf,
    /// Root of the model that is trusted (64 hex digits), as `opg zk commit` prints it
    #[arg(long, value_name = "ROOT")]
    pub(crate) root: alloy_primitives::B256,
    /// Inputs, as for prove; they count as what they are rounded to by the program. Left out for a proof that hides them
    #[arg(long, value_name = "IN.json")]
    pub(crate) input: Option<PathBuf>,
    /// What opens the commitment to hidden inputs, from their owner: shows that they are those of --input
    #[arg(long, value_name = "OPENING", requires = "input")]
    pub(crate) opening: Option<PathBuf>,
    /// Outputs, as prove writes them; labels may be left out
    #[arg(long, value_name = "OUT.json")]
    pub(crate) output: PathBuf,
    /// The program: needed for proofs of profile open, not read for others
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) program: Option<PathBuf>,
    /// The receipt that the proof must be tied to (64 hex digits)
    #[arg(long, value_name = "HASH")]
    pub(crate) receipt: Option<alloy_primitives::B256>,
}

/// Options of `opg zk inspect`.
#[derive(Debug, Args)]
pub(crate) struct ZkInspectArgs {
    /// A program or a proof
    #[arg(value_name = "PROGRAM|PROOF")]
    pub(crate) file: PathBuf,
    /// Inputs: a program is run and proven with them, a proof is verified, and time and bytes of each part are shown
    #[arg(long, value_name = "IN.json")]
    pub(crate) input: Option<PathBuf>,
    /// Outputs, for a proof
    #[arg(long, value_name = "OUT.json", requires = "input")]
    pub(crate) output: Option<PathBuf>,
    /// The program, for a proof of profile open
    #[arg(long, value_name = "PROGRAM", requires = "output")]
    pub(crate) program: Option<PathBuf>,
    /// Profile to prove a program in
    #[arg(long, value_enum, default_value = "committed")]
    pub(crate) profile: ProofProfileArg,
    /// Bits of security to prove a program with
    #[arg(long, value_enum, default_value = "100", value_name = "BITS")]
    pub(crate) security: SecurityArg,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_commands_of_the_interface_parse() {
        for line in [
            "opg up --dir D --validators 4 --port-base 8545 --no-web",
            "opg up --ephemeral --demo",
            "opg up --split D --validators 4",
            "opg status --dir D --json",
            "opg node full --config F",
            "opg node inference --config F",
            "opg node hub --config F",
            "opg hub token",
            "opg hub backup --config F D",
            "opg hub restore --config F D",
            "opg hub restore --check D",
            "opg hub token --hub http://127.0.0.1:8700 --scope read --days 7 --key F",
            "opg zk commit P --hide S --slots 8",
            "opg zk prove P --hide S --hide-inputs O --input I -o X",
            "opg models register-program M --program P --report R",
            "opg models push D a/b --private --price 1",
            "opg models pull a/b --token T",
            "opg models transfer a/b 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
            "opg models pull a/b --key K",
            "opg infer M --input {} --mode zk",
            "opg wallet new",
            "opg wallet show",
            "opg wallet balance",
            "opg wallet send 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266 1.5 --native",
            "opg faucet 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
            "opg models ls",
            "opg models show demo/digits-mlp",
            "opg infer demo/digits-mlp --input {} --mode none --receipt F",
            "opg chat demo/tiny-llama - --stream --receipt F",
            "opg receipt show F",
            "opg receipt verify F --genesis G --offline --require tee,hardware --accept-old-anchor",
            "opg evidence verify F --kind nitro --at 2026-11-21T04:00:00Z --collateral D --policy P",
            "opg evidence verify F --kind snp --collateral A --collateral B --nonce 00 --bound 00 --development-root R --raw",
            "opg zk compile MODEL.onnx -o PROGRAM --calibrate DATA.json --profile int16",
            "opg zk commit PROGRAM --json",
            "opg zk prove PROGRAM --input IN.json -o PROOF --output OUT.json --profile open --json",
            "opg zk verify --root 0x0000000000000000000000000000000000000000000000000000000000000001 --input IN.json --output OUT.json PROOF",
            "opg zk inspect PROGRAM --input IN.json --json",
            "opg home up --dir D --port-base 9545",
            "opg deploy --home base --plan P --dry-run --key K --dir D",
            "opg checkpoint show",
            "opg checkpoint relay --key K",
            "opg checkpoint prove F --key K",
            "opg payout show",
            "opg payout say L --dry-run --key K",
            "opg payout publish --key K",
            "opg payout claim L --payee 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266 --node 0x0000000000000000000000000000000000000000000000000000000000000001",
            "opg receipt verify F --no-keep",
            "opg completions bash",
            "opg gov ls",
            "opg gov propose spend 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266 5 --dry-run --title T --dir D --json",
            "opg gov propose --title T call --target 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266 --signature f(uint8) 3",
            "opg gov vote 0x12ab for --wait --reason because",
            "opg gov execute 12ab --wait 5 --key K",
            "opg node init --out D --peer 1111111111111111111111111111111111111111111111111111111111111111@127.0.0.1:1",
            "opg node register full --config C --bond 25000 --commission 500",
            "opg node exit --dry-run",
            "opg node init-inference --out D --model demo/digits-mlp=F.onnx --listen 127.0.0.1:1",
            "opg node register inference --config C --bond 1000 --dry-run",
            "opg node bond 5 --node 0x0000000000000000000000000000000000000000000000000000000000000001",
            "opg node heartbeat --json",
            "opg node leave --dry-run",
            "opg node withdraw --payee 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
            "opg node withdraw --bond --key K",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn bad_usage_is_refused() {
        for line in [
            "opg up --dir D --ephemeral",
            "opg up --validators 3",
            "opg node init-inference --out D",
            "opg node init-inference --out D --model F.onnx",
            "opg node withdraw --bond --payee 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
            "opg wallet send 0xf39F 1",
            "opg faucet 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266 --amount -1",
            "opg chat m p --temperature 9",
            "opg infer m",
            "opg evidence verify F --kind other",
            "opg zk compile MODEL.onnx",
            "opg zk verify --root 0x12 --input I --output O PROOF",
            "opg zk inspect PROOF --output O",
            "opg gov propose",
            "opg gov propose call --target 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
            "opg gov propose call --target 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266 --calldata 0x12 3",
            "opg gov vote 0x12ab maybe",
            "opg node init --out D --peer 11@127.0.0.1:1",
            "opg node register full --config C --commission 10001",
        ] {
            assert_eq!(
                Cli::try_parse_from(line.split(' ')).unwrap_err().exit_code(),
                2,
                "{line}"
            );
        }
    }
}
