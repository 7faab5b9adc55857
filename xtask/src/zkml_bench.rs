//! `cargo xtask bench zkml`: `opg zk` beside ezkl, whose wheel comes from PyPI into a virtual environment of its own.

use crate::context::Context;
use crate::process::Cmd;
use eyre::{Result, WrapErr as _};
use std::path::Path;

/// Measured with both provers. ezkl needs 6 GiB and minutes for `lenet`.
const BOTH: &str = "mlp17k,mlp200k,lenet";
/// Measured alone.
const ALONE: [&str; 5] = ["tblock", "mlp1m", "cnn264k", "dense4m", "nanogpt"];

/// Installs ezkl, writes the models and runs the comparison.
pub(crate) fn run(context: &Context, opg: &Path, names: &[String]) -> Result<()> {
    let sources = context.root.join("bench/zkml");
    let folder = context.target_dir.join("bench-zkml");
    let python = folder.join("venv/bin/python");
    if !python.exists() {
        Cmd::new(context, "python3")
            .args(["-m", "venv"])
            .arg(folder.join("venv"))
            .run()?;
    }
    Cmd::new(context, &python)
        .args(["-m", "pip", "install", "--quiet", "--requirement"])
        .arg(sources.join("requirements.txt"))
        .run()
        .wrap_err(
            "ezkl and onnx cannot be installed: the comparison needs Python 3.11 with venv, and a package registry",
        )?;
    let models = folder.join("models");
    let mut written: Vec<String> = BOTH.split(',').map(str::to_owned).collect();
    written.extend(ALONE.map(str::to_owned));
    written.extend(names.iter().cloned());
    Cmd::new(context, &python)
        .arg(sources.join("make_models.py"))
        .arg(&models)
        .args(written)
        .run()?;
    let alone: Vec<String> = if names.is_empty() {
        ALONE.map(str::to_owned).to_vec()
    } else {
        names.to_vec()
    };
    Cmd::new(context, &python)
        .arg(sources.join("run.py"))
        .arg("--opg")
        .arg(opg)
        .arg("--models")
        .arg(&models)
        .arg("--out")
        .arg(context.root.join("bench/results/zkml.json"))
        .args(["--ezkl", BOTH])
        .args(alone)
        .run()
}
