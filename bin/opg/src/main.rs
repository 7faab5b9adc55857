//! `opg`: every role of the network and the user's command line in one binary.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 success, 1 a check failed or was refused, 2 bad usage or bad input.
#![deny(unsafe_code)]

mod args;
mod commands;
mod demo;
mod failure;
mod home_args;
mod log;
mod output;

use std::{process::ExitCode, time::Duration};

use clap::{CommandFactory as _, Parser as _};
use opg_runtime::worker;

use crate::{
    args::{Cli, Command},
    failure::Failure,
    log::Log,
    output::Output,
};

/// Time for threads that outlive their command.
const STRAGGLERS: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    // Before anything else: a worker locks itself in while it has one thread. Its command is not for people, and not in the help.
    if std::env::args_os()
        .nth(1)
        .is_some_and(|command| command == worker::COMMAND)
    {
        return worker::main();
    }
    if let Err(error) = worker::offer_this_program(&[worker::COMMAND]) {
        eprintln!(
            "warning: the path of this program is not known, so models cannot run in processes of their own: {error}"
        );
    }
    pin_engine_threads();
    let cli = Cli::parse();
    let role = matches!(&cli.command, Command::Node(command) if command.runs());
    let log = Log::start(role, cli.verbose);
    let output = Output { json: cli.json };
    match run(cli, output) {
        Ok(code) => code,
        Err(failure) => {
            // The cause may quote text from a server or a file.
            log.failure(&opg_client::text::one_line(&failure.to_string(), 2_000));
            failure.exit_code()
        }
    }
}

/// One thread per generation: the language model engine would otherwise spin on every core and starve the validators beside it.
#[allow(unsafe_code)]
fn pin_engine_threads() {
    if std::env::var_os("CANDLE_NUM_THREADS").is_none() {
        // SAFETY: first statement of `main`; no other thread exists that could read the environment.
        unsafe { opg_runtime::pin_engine_threads(1) };
    }
}

fn run(cli: Cli, output: Output) -> Result<ExitCode, Failure> {
    match cli.command {
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "opg", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
        Command::Receipt(command) => commands::receipt::run(command, output),
        Command::Evidence(command) => commands::evidence::run(command, output),
        Command::Zk(command) => commands::zk::run(command, output),
        Command::Node(command) => commands::node::run(command, output),
        other => block_on(async {
            match other {
                Command::Up(args) => commands::up::run(args, output).await,
                Command::Status(args) => commands::status::run(args, output).await,
                Command::Hub(command) => commands::hub::run(command, output).await,
                Command::Wallet(command) => commands::wallet::run(command, output).await,
                Command::Channel(command) => commands::channel::run(command, output).await,
                Command::Validators(args) => commands::staking::validators(args, output).await,
                Command::Stake(args) => commands::staking::stake(args, output).await,
                Command::Delegate(args) => commands::staking::delegate(args, output).await,
                Command::Unstake(args) => commands::staking::unstake(args, output).await,
                Command::Claim(args) => commands::staking::claim(args, output).await,
                Command::Home(command) => commands::home::run(command, output).await,
                Command::Deploy(args) => commands::deploy::run(args, output).await,
                Command::Checkpoint(command) => commands::home::checkpoint(command, output).await,
                Command::Payout(command) => commands::home::payout(command, output).await,
                Command::Gov(command) => commands::gov::run(command, output).await,
                Command::Faucet(args) => commands::wallet::faucet(args, output).await,
                Command::Models(command) => commands::models::run(command, output).await,
                Command::Infer(args) => commands::infer::run(args, output).await,
                Command::Chat(args) => commands::chat::run(args, output).await,
                Command::Completions { .. }
                | Command::Receipt(_)
                | Command::Evidence(_)
                | Command::Node(_)
                | Command::Zk(_) => Ok(ExitCode::SUCCESS),
            }
        }),
    }
}

/// Runs a command that talks to the network.
pub(crate) fn block_on(command: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::failed)?;
    let outcome = runtime.block_on(command);
    // Everything orderly has been done; a thread that still waits for something must not keep the process.
    runtime.shutdown_timeout(STRAGGLERS);
    outcome
}
