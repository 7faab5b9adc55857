//! The Solidity sources and their committed artifacts.

use crate::context::Context;
use crate::npm;
use crate::process::Cmd;
use crate::steps::Steps;
use eyre::{Result, bail};

/// The check as a step of `test`: loud, but no failure, where Node is missing, because nothing else
/// needs it.
pub(crate) fn step(context: &Context, steps: &mut Steps) {
    if npm::is_there() {
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
    if !npm::is_there() {
        bail!("Node.js with npm is missing: it runs the Solidity compiler");
    }
    let dir = context.root.join("contracts");
    npm::install(context, &dir)?;
    let compile = Cmd::new(context, "node").arg("compile.mjs").dir(&dir);
    if check {
        compile.arg("--check").run()
    } else {
        compile.run()
    }
}
