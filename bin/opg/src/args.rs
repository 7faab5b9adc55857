//! The command line: every command, option and value that `opg` accepts.

use std::path::PathBuf;

use alloy_primitives::Address;
use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use opg_primitives::money::Amount;

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
    /// Make a wallet, look at it, send from it
    #[command(subcommand)]
    Wallet(WalletCommand),
    /// Send OPG from a development network's faucet
    Faucet(FaucetArgs),
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
    /// How the answer is to be proven; this version serves `none`
    #[arg(long, value_enum, default_value = "none")]
    pub(crate) mode: ModeArg,
    /// Wait until the receipt is final and settled, and write the receipt file there
    #[arg(long, value_name = "FILE")]
    pub(crate) receipt: Option<PathBuf>,
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
            "opg completions bash",
        ] {
            Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
    }

    #[test]
    fn bad_usage_is_refused() {
        for line in [
            "opg up --dir D --ephemeral",
            "opg up --validators 3",
            "opg wallet send 0xf39F 1",
            "opg faucet 0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266 --amount -1",
            "opg chat m p --temperature 9",
            "opg infer m",
            "opg hub token",
        ] {
            assert_eq!(
                Cli::try_parse_from(line.split(' ')).unwrap_err().exit_code(),
                2,
                "{line}"
            );
        }
    }
}
