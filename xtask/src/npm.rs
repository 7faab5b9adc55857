//! Packages from the npm registry, by a folder's lock file.

use crate::context::Context;
use crate::process::{Cmd, works};
use eyre::Result;
use std::path::Path;

/// Whether Node.js and npm are there.
pub(crate) fn is_there() -> bool {
    works("node", &["--version"]) && works("npm", &["--version"])
}

/// Installs what `package-lock.json` in `dir` names, unless that has been done. No package runs a script of its own.
pub(crate) fn install(context: &Context, dir: &Path) -> Result<()> {
    // npm writes this file last; a lock file newer than it means other packages.
    let installed = modified(&dir.join("node_modules/.package-lock.json"));
    if installed.is_none() || installed < modified(&dir.join("package-lock.json")) {
        Cmd::new(context, "npm")
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
            .dir(dir)
            .run()?;
    }
    Ok(())
}

fn modified(path: &Path) -> Option<std::time::SystemTime> {
    std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok()
}
