//! Benchmarks of a whole network: `cargo xtask bench [NAME]`.
//!
//! Everything that a user would feel is measured from outside, against the release `opg` binary over real sockets; only the bare
//! model and the verification of receipts run in this process. Each benchmark prints the machine, the versions and its figures,
//! and writes them to `NAME.json`.
//!
//! Invariants: figures carry their unit and number of samples; a bar that is missed is printed as missed, and does not make the
//! command fail (timings are not tests); nothing is written outside the results folder and temporary folders.
#![forbid(unsafe_code)]

mod finality;
mod forge;
mod infer;
mod ledger;
mod machine;
mod metrics;
mod network;
mod report;
mod rpc;
mod startup;

use clap::{Args, Parser, Subcommand};
use eyre::Result;
use std::path::PathBuf;

#[derive(Debug, Parser)]
#[command(
    name = "opg-bench",
    about = "Measures start-up, finality, paid inference and the ledger"
)]
struct Cli {
    /// The release build of opg
    #[arg(long, value_name = "FILE")]
    opg: PathBuf,
    /// Where NAME.json goes
    #[arg(long, value_name = "DIR", default_value = "bench/results")]
    results: PathBuf,
    /// First port that the networks may use
    #[arg(long, default_value_t = 20_000)]
    port_base: u16,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    /// First start on an empty folder, restart, memory
    Startup {
        /// Starts and restarts
        #[arg(long, default_value_t = 10)]
        runs: u16,
    },
    /// From an accepted receipt or transaction to finality at all validators
    Finality(Count),
    /// Paid inference inside the exposure cap, settle-first, and the bare model
    Infer(Count),
    /// Receipts verified per core, and blocks full of receipts
    Ledger {
        /// Receipts
        #[arg(long, default_value_t = 6_000)]
        count: usize,
    },
    /// All of them, one after the other
    All,
}

#[derive(Debug, Clone, Copy, Args)]
struct Count {
    /// Samples
    #[arg(long, default_value_t = 100)]
    count: usize,
}

/// What every benchmark gets.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) opg: PathBuf,
    pub(crate) results: PathBuf,
    pub(crate) port_base: u16,
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    let setting = Setting {
        opg: std::path::absolute(cli.opg)?,
        results: cli.results,
        port_base: cli.port_base,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(&setting, cli.command))
}

async fn run(setting: &Setting, command: Command) -> Result<()> {
    let report = match command {
        Command::Startup { runs } => startup::run(setting, runs).await?,
        Command::Finality(Count { count }) => finality::run(setting, count).await?,
        Command::Infer(Count { count }) => infer::run(setting, count).await?,
        Command::Ledger { count } => ledger::run(setting, count).await?,
        Command::All => {
            for command in [
                Command::Startup { runs: 10 },
                Command::Finality(Count { count: 100 }),
                Command::Infer(Count { count: 100 }),
                Command::Ledger { count: 6_000 },
            ] {
                Box::pin(run(setting, command)).await?;
            }
            return Ok(());
        }
    };
    report.print();
    report.write(&setting.results)
}
