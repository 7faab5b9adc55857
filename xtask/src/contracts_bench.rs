//! `cargo xtask bench contracts` and `cargo xtask fuzz contracts`: gas of the compiled contracts, and the whole system of them under
//! random calls. Both are tests of `opg-genesis` which write down what they found; here it is put together with where and how.

use crate::{
    context::Context,
    process::{Cmd, capture},
};
use eyre::{Result, WrapErr};
use serde_json::{Value, json};
use std::{fs, path::Path};

/// Tests that measure gas, by binary and name.
const MEASURED: [(&str, &str); 5] = [
    ("gas_table", "the_document_says_what_is_measured"),
    ("x402_ledger", "a_thousand_receipts_of_twenty_channels"),
    ("checkpoint", "certified_headers_are_taken"),
    ("checkpoint", "a_hand_over_to_a_hundred_seats_fits_a_transaction"),
    ("staking", "any_number_of_validators_and_a_bounded_end_of_the_epoch"),
];

/// Measures gas and writes `bench/results/contracts.json`. Gas is the same on every machine; the machine is named because every result names it.
///
/// # Errors
/// A test fails: a bar is not met, or `docs/specs/gas.md` says something else.
pub(crate) fn gas(context: &Context) -> Result<()> {
    let folder = context.target_dir.join("bench-contracts");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).wrap_err("folder for figures")?;
    for (test, name) in MEASURED {
        Cmd::cargo(context)
            .args(["test", "--workspace", "--locked", "--test", test, "--", name, "--exact"])
            .env("OPG_BENCH_FIGURES", &folder.to_string_lossy())
            .run()?;
    }
    let mut figures = Vec::new();
    for entry in fs::read_dir(&folder)? {
        figures.push(serde_json::from_slice::<Value>(&fs::read(entry?.path())?)?);
    }
    // Those with a bar first, then by name.
    figures.sort_by_key(|figure| {
        let name = figure["name"].as_str().unwrap_or_default().to_owned();
        (figure.get("bars").is_none(), name)
    });
    for figure in figures.iter().filter(|figure| figure.get("bars").is_some()) {
        println!("{:>12} gas  {}  {}", figure["p50"], figure["bars"], figure["name"]);
    }
    let notes = [
        "whole transactions on the compiled contracts in revm (Osaka); the same everywhere",
        "a batch is 1,000 receipts, 50 of each of 20 channels with five payees each; all slots exist before. Settling is what moves a channel's money to its payee's vault",
    ];
    write(
        context,
        "contracts",
        "cargo xtask bench contracts",
        json!({ "figures": figures, "notes": notes }),
    )
}

/// Runs so many random calls against all contracts and writes `bench/results/fuzz-contracts.json`.
///
/// # Errors
/// A promise is broken; the test says with which seed.
pub(crate) fn fuzz(context: &Context, calls: u64) -> Result<()> {
    let report = context.target_dir.join("fuzz-contracts.json");
    // Another search each time.
    let seed = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(1, |now| now.as_secs());
    let build = [
        "test",
        "--release",
        "--locked",
        "--package",
        "opg-genesis",
        "--test",
        "system_fuzz",
    ];
    Cmd::cargo(context)
        .args(build)
        .args(["--", "the_system_keeps_its_promises", "--exact", "--nocapture"])
        .env("OPG_SYSTEM_CALLS", &calls.to_string())
        .env("OPG_SYSTEM_SEED", &seed.to_string())
        .env("OPG_SYSTEM_REPORT", &report.to_string_lossy())
        .run()?;
    let found: Value = serde_json::from_slice(&fs::read(&report)?)?;
    write(
        context,
        "fuzz-contracts",
        &format!("cargo xtask fuzz contracts --calls {calls}"),
        json!({ "runs": [found] }),
    )
}

fn write(context: &Context, name: &str, command: &str, rest: Value) -> Result<()> {
    let mut document = json!({ "name": name, "command": command, "machine": machine(&context.root) });
    if let (Some(document), Value::Object(rest)) = (document.as_object_mut(), rest) {
        document.extend(rest);
    }
    let path = context.root.join(format!("bench/results/{name}.json"));
    let mut text = serde_json::to_string_pretty(&document)?;
    text.push('\n');
    fs::write(&path, text).wrap_err_with(|| path.display().to_string())
}

fn machine(root: &Path) -> Value {
    let line = |file: &str, key: &str| {
        let text = fs::read_to_string(file).ok()?;
        let line = text.lines().find(|line| line.starts_with(key))?.to_owned();
        Some(line.split_once([':', '='])?.1.trim().trim_matches('"').to_owned())
    };
    let root = root.to_string_lossy();
    json!({
        "cpu": line("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        "cores": std::thread::available_parallelism().map_or(1, usize::from),
        "os": line("/etc/os-release", "PRETTY_NAME").unwrap_or_else(|| std::env::consts::OS.to_owned()),
        "rustc": capture("rustc", &["--version"]),
        "commit": capture("git", &["-C", &root, "describe", "--always", "--dirty"]),
        "solc": "0.8.37, optimiser 200 runs, via IR",
        "evm": "revm 43, Osaka",
    })
}
