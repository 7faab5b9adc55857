//! Tests: all of them once, or the property tests for a long time.

use crate::context::Context;
use crate::npm;
use crate::process::{Cmd, Stream, works};
use crate::steps::{Steps, Tests};
use eyre::Result;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) heavy: bool,
    pub(crate) filter: Option<String>,
}

/// Cases of a property test in `--heavy`.
const HEAVY_CASES: &str = "20000";

/// Rounds leave out whole networks: they have no random inputs, and take most of the time.
const ROUND: &str = "not (package(opg-e2e) | package(opg-devnet))";

/// Installs the programs of other people that tests drive: wallets, x402 clients, servers of databases and buckets. Those tests say
/// loudly that they skip where this did not work: a machine without Node, or one that does not reach the registries.
pub(crate) fn programs(context: &Context, steps: &mut Steps) {
    for (name, users) in [
        ("x402-reqwest", "the test that pays with crates.io's client skips"),
        ("s3-server", "the tests that use an S3 bucket skip"),
    ] {
        rust_program(context, steps, name, users);
    }
    if !npm::is_there() {
        steps.skip(
            "wallets",
            "no Node.js: the tests that use `cast`, npm's x402 clients and a PostgreSQL server skip",
        );
        return;
    }
    for (name, folder, users) in [
        ("wallets", "testing/e2e/wallets", "`cast`"),
        ("clients", "testing/e2e/clients", "npm's x402 clients"),
        (
            "postgres",
            "testing/postgres",
            "a PostgreSQL server (where Debian's is not installed)",
        ),
    ] {
        let start = Instant::now();
        match npm::install(context, &context.root.join(folder)) {
            Ok(()) => steps.done(name, start.elapsed()),
            Err(error) => steps.skip(name, &format!("{error:#}: the tests that use {users} skip")),
        }
    }
}

/// Builds a program of crates.io, a workspace of its own beside this one's build: its dependencies would change features here.
fn rust_program(context: &Context, steps: &mut Steps, name: &str, users: &str) {
    let start = Instant::now();
    let target = context.target_dir.join(name);
    let manifest = context.root.join("testing").join(name).join("Cargo.toml");
    let built = Cmd::cargo(context)
        .args(["build", "--locked", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(target)
        .run();
    match built {
        Ok(()) => steps.done(name, start.elapsed()),
        Err(error) => steps.skip(name, &format!("{error:#}: {users}")),
    }
}

/// Builds everything, then runs unit, integration and documentation tests.
pub(crate) fn run(context: &Context, steps: &mut Steps, options: &Options) {
    // The end-to-end tests start the `opg` binary, which a test build alone does not produce.
    // Asking for both at once keeps one set of features, and so one build of each dependency.
    let built = steps.step("build", |_| {
        Cmd::cargo(context)
            .args(["build", "--workspace", "--lib", "--bins", "--tests", "--locked"])
            .run()
    });
    if !built {
        steps.skip("tests", "the build failed");
        return;
    }
    if options.filter.is_none() {
        crate::fuzz_step::short(context, steps);
    }
    if nextest_is_there() {
        steps.step("tests (nextest)", |tests| {
            // The time limit of the default profile is for the usual number of cases.
            let profile = if options.heavy { "fuzz" } else { "default" };
            let command = Cmd::cargo(context).args(["nextest", "run", "--workspace", "--locked", "--profile", profile]);
            nextest(heavy(command, options).args(&options.filter), tests)
        });
    } else {
        eprintln!("\ncargo-nextest is not installed: using plain `cargo test` (slower)");
        steps.step("unit tests (cargo test)", |tests| {
            let command =
                Cmd::cargo(context).args(["test", "--workspace", "--lib", "--bins", "--no-fail-fast", "--locked"]);
            libtest(heavy(command, options).args(&options.filter), tests)
        });
        // Whole networks run in these: one at a time, which nextest knows from its configuration.
        steps.step("integration (cargo test)", |tests| {
            let command = Cmd::cargo(context)
                .args(["test", "--workspace", "--test", "*", "--no-fail-fast", "--locked"])
                .env("RUST_TEST_THREADS", "1");
            libtest(heavy(command, options).args(&options.filter), tests)
        });
    }
    if options.filter.is_none() {
        // nextest does not run documentation tests.
        steps.step("doc tests", |tests| {
            let command = Cmd::cargo(context).args(["test", "--workspace", "--doc", "--no-fail-fast", "--locked"]);
            libtest(command, tests)
        });
    }
}

/// Rounds of the randomised tests with new seeds, until the time is up or one fails.
pub(crate) fn fuzz(context: &Context, steps: &mut Steps, seconds: u64, cases: u32, filter: Option<&str>) {
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut round = 1;
    loop {
        let passed = steps.step(&format!("fuzz round {round}"), |tests| {
            let cases = cases.to_string();
            if nextest_is_there() {
                let command = Cmd::cargo(context)
                    .args(["nextest", "run", "--workspace", "--locked", "--profile", "fuzz"])
                    .args(["-E", ROUND])
                    .args(filter)
                    .env("PROPTEST_CASES", &cases);
                nextest(command, tests)
            } else {
                let command = Cmd::cargo(context)
                    .args(["test", "--workspace", "--lib", "--locked"])
                    .args(filter)
                    .env("PROPTEST_CASES", &cases);
                libtest(command, tests)
            }
        });
        if !passed || Instant::now() >= end {
            return;
        }
        round += 1;
    }
}

fn heavy(command: Cmd, options: &Options) -> Cmd {
    if options.heavy {
        command.env("OPG_HEAVY", "1").env("PROPTEST_CASES", HEAVY_CASES)
    } else {
        command
    }
}

fn nextest_is_there() -> bool {
    works("cargo-nextest", &["nextest", "--version"])
}

fn nextest(command: Cmd, tests: &mut Tests) -> Result<()> {
    command.watch(Stream::Err, |line| {
        if let Some(found) = nextest_summary(line) {
            add(tests, found);
        }
    })
}

fn libtest(command: Cmd, tests: &mut Tests) -> Result<()> {
    command.watch(Stream::Out, |line| {
        if let Some(found) = libtest_summary(line) {
            add(tests, found);
        }
    })
}

fn add(tests: &mut Tests, found: Tests) {
    tests.passed += found.passed;
    tests.failed += found.failed;
    tests.skipped += found.skipped;
}

/// `     Summary [   3.2s] 12 tests run: 10 passed (1 slow), 1 failed, 1 timed out, 4 skipped`
fn nextest_summary(line: &str) -> Option<Tests> {
    let counts = line.trim_start().strip_prefix("Summary")?.split_once("run:")?.1;
    Some(read(counts, ','))
}

/// `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s`
fn libtest_summary(line: &str) -> Option<Tests> {
    let counts = line.trim_start().strip_prefix("test result:")?.split_once(". ")?.1;
    Some(read(counts, ';'))
}

fn read(counts: &str, separator: char) -> Tests {
    let mut tests = Tests::default();
    for part in counts.split(separator) {
        let mut words = part.split_whitespace();
        let Some(count) = words.next().and_then(|word| word.parse::<u64>().ok()) else {
            continue;
        };
        match words.next() {
            Some("passed") => tests.passed += count,
            // A test that ran out of time or could not be started is a failed one.
            Some("failed" | "timed" | "exec") => tests.failed += count,
            Some("skipped" | "ignored") => tests.skipped += count,
            _ => {}
        }
    }
    tests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_summaries() {
        let line = "     Summary [   3.214s] 13/14 tests run: 10 passed (1 slow), 2 failed, 1 timed out, 4 skipped";
        assert_eq!(
            nextest_summary(line),
            Some(Tests {
                passed: 10,
                failed: 3,
                skipped: 4
            })
        );
        let line = "     Summary [   0.004s] 1 test run: 1 passed, 0 skipped";
        assert_eq!(
            nextest_summary(line),
            Some(Tests {
                passed: 1,
                failed: 0,
                skipped: 0
            })
        );
        let line = "test result: FAILED. 3 passed; 1 failed; 2 ignored; 0 measured; 7 filtered out; finished in 0.02s";
        assert_eq!(
            libtest_summary(line),
            Some(Tests {
                passed: 3,
                failed: 1,
                skipped: 2
            })
        );
        assert_eq!(
            nextest_summary("        PASS [   0.003s] xtask tests::run: 1 passed"),
            None
        );
        assert_eq!(libtest_summary("running 3 tests"), None);
    }
}
