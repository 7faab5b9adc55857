//! Fuzz targets (`testing/fuzz`): twenty seconds each with every test run, longer on request.

use crate::{context::Context, process::Cmd, steps::Steps};
use eyre::Result;

/// Seconds for each target in `cargo xtask test` (D19).
const SHORT: u64 = 20;

/// After the workspace was built for tests: every target for a short time, in that build.
pub(crate) fn short(context: &Context, steps: &mut Steps) {
    steps.step("fuzz targets", |_| {
        let program = context.target_dir.join("debug/opg-fuzz");
        Cmd::new(context, program)
            .args(["--seconds".to_owned(), SHORT.to_string()])
            .run()
    });
}

/// Runs one target, or all of them, optimised. Whether property tests should follow: not after one target, and not after `list`.
///
/// # Errors
/// The program cannot be built.
pub(crate) fn run(context: &Context, steps: &mut Steps, target: Option<&str>, seconds: u64) -> Result<bool> {
    Cmd::cargo(context)
        .args(["build", "--release", "--locked", "--package", "opg-fuzz"])
        .run()?;
    let program = || Cmd::new(context, context.target_dir.join("release/opg-fuzz"));
    if target == Some("list") {
        program().arg("--list").run()?;
        return Ok(false);
    }
    let mut known = false;
    program()
        .arg("--list")
        .watch(crate::process::Stream::Out, |line| known |= target == Some(line.trim()))?;
    // A word that is no target is part of a test's name.
    if target.is_some() && !known {
        return Ok(true);
    }
    steps.step("fuzz targets", |_| {
        program()
            .args(target)
            .args(["--seconds".to_owned(), seconds.to_string()])
            .run()
    });
    Ok(target.is_none())
}
