//! The Solidity sources and their committed artifacts.

use crate::context::Context;
use crate::process::{Cmd, works};
use crate::steps::Steps;
use eyre::{Result, bail};

/// The check as a step of `test`: loud, but no failure, where Node is missing, because nothing else
/// needs it.
pub(crate) fn step(context: &Context, steps: &mut Steps) {
    if node_is_there() {
        steps.step("contracts", |_| run(context, true));
    } else {
        steps.skip(
            "contracts",
            "no Node.js: the committed artifacts were not compared with the sources",
        );
    }
}

/// Compiles the sources; with `check` only compares.
pub(crate) fn run(context: &Context, check: bool) -> Result<()> {
    if !node_is_there() {
        bail!("Node.js with npm is missing: it runs the Solidity compiler");
    }
    let dir = context.root.join("contracts");
    // npm writes this file last; a lock file newer than it means other packages.
    let installed = modified(&dir.join("node_modules/.package-lock.json"));
    if installed.is_none() || installed < modified(&dir.join("package-lock.json")) {
        Cmd::new(context, "npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .dir(&dir)
            .run()?;
    }
    let compile = Cmd::new(context, "node").arg("compile.mjs").dir(&dir);
    if check {
        compile.arg("--check").run()
    } else {
        compile.run()
    }
}

fn node_is_there() -> bool {
    works("node", &["--version"]) && works("npm", &["--version"])
}

fn modified(path: &std::path::Path) -> Option<std::time::SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}
