//! The project's task runner: `cargo xtask COMMAND`.
//!
//! It stands on a Rust toolchain alone. What else the build needs (libclang for RocksDB's bindings,
//! the ONNX Runtime library, OpenSSL's headers) is taken from the system when it is there and
//! unpacked below the user's cache when it is not; nothing here needs root.
//!
//! Invariants:
//! - a downloaded library is used only after its SHA-256 matched the table in [`wheels`] (or apt
//!   checked its own signature), and appears under its final name in one rename;
//! - every command runs with the same environment ([`context::Context::env`]), so that no build
//!   script sees a changed variable and compiles again;
//! - each step's time is printed, and a failed step does not hide the following ones.

mod checks;
mod context;
mod contracts;
mod contracts_bench;
mod debian;
mod fuzz_step;
mod native;
mod npm;
mod openssl;
mod process;
mod static_check;
mod steps;
mod tests_step;
mod toolchain;
mod wheels;
mod zkml_bench;

use clap::{Args, Parser, Subcommand};
use context::Context;
use eyre::Result;
use process::Cmd;
use steps::Steps;

#[derive(Debug, Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Builds, tests, benchmarks and starts OpenGradient",
    after_help = "Environment:\n  \
        CARGO_TARGET_DIR   where cargo builds (default: ~/.cache/opg-target)\n  \
        LIBCLANG_PATH      directory of libclang, if you bring your own\n  \
        ORT_DYLIB_PATH     file of libonnxruntime 1.20 or newer, if you bring your own\n  \
        OPENSSL_DIR        OpenSSL with headers, if you bring your own (Linux)\n  \
        CARGO_BUILD_JOBS   parallel compilations (default: by cores and memory)\n\n\
        Start a network:  cargo xtask up\n\
        Run every test:   cargo xtask test"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Installs what is missing, builds and starts a local network with one paid, verified inference
    #[command(disable_help_flag = true)]
    Up(Passed),
    /// Installs what is missing and runs every test that needs no special hardware
    Test(TestArgs),
    /// Formatting, clippy, documentation and dependency policy, all with warnings denied
    Lint,
    /// Runs benchmarks in release mode; writes bench/results/NAME.json and prints a table
    Bench(BenchArgs),
    /// Runs fuzz targets, and property and mutation tests with many cases, for a long time
    Fuzz(FuzzArgs),
    /// Compiles the Solidity sources again and replaces the committed artifacts (needs Node)
    Contracts {
        /// Only compare; fail if the committed artifacts differ
        #[arg(long)]
        check: bool,
        /// Only analyse them with Slither; fail on findings that are not reviewed (needs Node and Python)
        #[arg(long, conflicts_with = "check")]
        analyze: bool,
    },
    /// Installs the native libraries and prints where they are
    Setup {
        /// Pretend that the system has none of the libraries
        #[arg(long)]
        no_system: bool,
    },
    /// Prints shell exports for plain cargo commands: eval "$(cargo xtask env)"
    Env,
    /// Runs the release build of opg, e.g. cargo xtask opg receipt verify FILE
    #[command(disable_help_flag = true)]
    Opg(Passed),
}

/// Everything after the subcommand, handed on untouched.
#[derive(Debug, Args)]
struct Passed {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Debug, Args)]
struct TestArgs {
    /// Also run what takes hours or a lot of memory (sets OPG_HEAVY=1, many property-test cases)
    #[arg(long)]
    heavy: bool,
    /// Skip formatting, clippy, documentation and dependency policy
    #[arg(long)]
    no_lint: bool,
    /// Skip the checks when the steps before them took longer than this many minutes
    #[arg(long, default_value_t = 35, value_name = "MINUTES")]
    lint_budget: u64,
    /// Only tests whose name contains this
    filter: Option<String>,
}

#[derive(Debug, Args)]
struct BenchArgs {
    /// startup, finality, infer, ledger, all of these if absent; contracts (gas); payments; hub; zkml (beside ezkl, from PyPI)
    name: Option<String>,
    /// Passed to the benchmark; for hub, some of files, many, dedup, cold; for zkml, names of models instead of those that are measured alone
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

#[derive(Debug, Args)]
struct FuzzArgs {
    /// Seconds for each fuzz target, and seconds for which rounds of property tests are started
    #[arg(long, default_value_t = 600)]
    seconds: u64,
    /// Cases in a round of every property test, or more where a test asks for more (PROPTEST_CASES)
    #[arg(long, default_value_t = 5_000)]
    cases: u32,
    /// Calls of `cargo xtask fuzz contracts`
    #[arg(long, default_value_t = 1_000_000)]
    calls: u64,
    /// contracts (all of them together), one fuzz target (`cargo xtask fuzz list` names them), or only tests whose name contains this
    target: Option<String>,
}

fn main() -> std::process::ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<std::process::ExitCode> {
    let ok = std::process::ExitCode::SUCCESS;
    match cli.command {
        Command::Env => {
            let context = Context::set_up(false, context::Report::Quiet)?;
            for (name, value) in context.env() {
                println!("export {name}={}", process::shell_quote(value));
            }
            Ok(ok)
        }
        Command::Setup { no_system } => {
            Context::set_up(no_system, context::Report::Full)?;
            Ok(ok)
        }
        Command::Up(passed) => {
            let context = Context::set_up(false, context::Report::Brief)?;
            let opg = build(&context, &["opg"])?;
            Err(Cmd::new(&context, opg).args(["up", "--demo"]).args(passed.args).exec())
        }
        Command::Opg(passed) => {
            let context = Context::set_up(false, context::Report::Quiet)?;
            let opg = build(&context, &["opg"])?;
            Err(Cmd::new(&context, opg).args(passed.args).exec())
        }
        Command::Bench(args) => {
            let context = Context::set_up(false, context::Report::Brief)?;
            if args.name.as_deref() == Some("zkml") {
                let opg = build(&context, &["opg"])?;
                zkml_bench::run(&context, &opg, &args.args)?;
                return Ok(ok);
            }
            if args.name.as_deref() == Some("payments") {
                // The books of one process, in a binary of their own: built in a minute.
                let run = [
                    "run",
                    "--release",
                    "--locked",
                    "-p",
                    "opg-payments",
                    "--example",
                    "bench_channels",
                    "--",
                ];
                Cmd::new(&context, "cargo")
                    .args(run)
                    .arg(context.root.join("bench/results/payments.json"))
                    .run()?;
                return Ok(ok);
            }
            if args.name.as_deref() == Some("hub") {
                // The hub alone, in a process of its own beside the program that measures it.
                let build = [
                    "build",
                    "--release",
                    "--locked",
                    "-p",
                    "opg-hub",
                    "--bin",
                    "opg-model-hub",
                    "--example",
                    "bench_hub",
                ];
                Cmd::cargo(&context).args(build).run()?;
                let directory = std::env::var("OPG_BENCH_DIR").map_or_else(|_| context.target_dir.clone(), Into::into);
                Cmd::new(&context, context.target_dir.join("release/examples/bench_hub"))
                    .env("OPG_BENCH_DIR", &directory.to_string_lossy())
                    .arg(context.root.join("bench/results/hub.json"))
                    .args(args.args)
                    .run()?;
                return Ok(ok);
            }
            if args.name.as_deref() == Some("contracts") {
                contracts_bench::gas(&context)?;
                return Ok(ok);
            }
            let opg = build(&context, &["opg", "opg-bench"])?;
            let mut bench = Cmd::new(&context, context.target_dir.join("release/opg-bench"));
            bench = bench.arg("--opg").arg(opg);
            bench = bench.arg("--results").arg(context.root.join("bench/results"));
            bench
                .args([args.name.unwrap_or_else(|| "all".into())])
                .args(args.args)
                .run()?;
            Ok(ok)
        }
        Command::Contracts { analyze: true, .. } => {
            let mut steps = Steps::default();
            let context = steps.must("setup", || Context::set_up(false, context::Report::Quiet))?;
            static_check::step(&context, &mut steps);
            Ok(steps.finish("contracts"))
        }
        Command::Contracts { check, .. } => {
            let context = Context::set_up(false, context::Report::Quiet)?;
            contracts::run(&context, check)?;
            Ok(ok)
        }
        Command::Lint => {
            let mut steps = Steps::default();
            let context = steps.must("setup", || Context::set_up(false, context::Report::Brief))?;
            checks::run(&context, &mut steps);
            Ok(steps.finish("lint"))
        }
        Command::Test(args) => {
            let mut steps = Steps::default();
            let context = steps.must("setup", || Context::set_up(false, context::Report::Brief))?;
            contracts::step(&context, &mut steps);
            if args.heavy {
                static_check::step(&context, &mut steps);
            }
            tests_step::programs(&context, &mut steps);
            let options = tests_step::Options {
                heavy: args.heavy,
                filter: args.filter,
            };
            tests_step::run(&context, &mut steps, &options);
            let budget = std::time::Duration::from_secs(args.lint_budget * 60);
            if args.no_lint {
                steps.skip("lint", "asked not to");
            } else if steps.elapsed() > budget {
                // Clippy checks every dependency once more. On a slow machine that starts from
                // nothing this would break the one-hour promise; the next, incremental run has it.
                steps.skip("lint", "over the time budget; run `cargo xtask lint`");
            } else {
                checks::run(&context, &mut steps);
            }
            Ok(steps.finish("test"))
        }
        Command::Fuzz(args) => {
            let mut steps = Steps::default();
            let context = steps.must("setup", || Context::set_up(false, context::Report::Brief))?;
            if args.target.as_deref() == Some("contracts") {
                steps.step("contracts", |_| contracts_bench::fuzz(&context, args.calls));
                return Ok(steps.finish("fuzz"));
            }
            if fuzz_step::run(&context, &mut steps, args.target.as_deref(), args.seconds)? {
                tests_step::fuzz(&context, &mut steps, args.seconds, args.cases, args.target.as_deref());
            }
            Ok(steps.finish("fuzz"))
        }
    }
}

/// Builds release binaries and returns the path of `opg`. All in one go: built apart, two packages may want their
/// dependencies with different features, and so twice.
fn build(context: &Context, packages: &[&str]) -> Result<std::path::PathBuf> {
    let mut cargo = Cmd::cargo(context).args(["build", "--release", "--locked"]);
    for package in packages {
        cargo = cargo.args(["--package", package]);
    }
    cargo.run()?;
    Ok(context.target_dir.join("release/opg"))
}
