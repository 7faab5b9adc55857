//! Debian packages without root: downloaded by apt, which checks their signatures, and unpacked somewhere else.

use crate::context::text;
use crate::process::works;
use eyre::{OptionExt, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Whether this system has apt and dpkg.
pub(crate) fn available() -> bool {
    works("apt-get", &["--version"]) && works("dpkg-deb", &["--version"])
}

/// Unpacks a package below `scratch`; its files lie in the returned folder as they would below `/`.
pub(crate) fn unpack(package: &str, scratch: &Path) -> Result<PathBuf> {
    eprintln!("downloading {package} (unpacked below the cache, not installed)");
    let dir = scratch.join(package);
    std::fs::create_dir_all(&dir)?;
    download(package, &dir)?;
    let file = std::fs::read_dir(&dir)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .ok_or_eyre("apt-get said it downloaded the package, but it is not there")?;
    let tree = dir.join("tree");
    let status = Command::new("dpkg-deb").arg("-x").arg(&file).arg(&tree).status()?;
    ensure!(status.success(), "dpkg-deb cannot unpack {}", file.display());
    Ok(tree)
}

/// With the system's package lists, or, if there are none (a fresh image), with lists of our own.
fn download(package: &str, dir: &Path) -> Result<()> {
    if apt(dir, &[], &["download", package]).is_ok() {
        return Ok(());
    }
    let lists = dir.join("lists");
    let cache = dir.join("cache");
    std::fs::create_dir_all(lists.join("partial"))?;
    std::fs::create_dir_all(cache.join("archives/partial"))?;
    let options = [
        format!("Dir::State::lists={}", text(&lists)?),
        format!("Dir::Cache={}", text(&cache)?),
    ];
    apt(dir, &options, &["update"])?;
    apt(dir, &options, &["download", package])
}

fn apt(dir: &Path, options: &[String], args: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.current_dir(dir).args(["-q", "-o", "Debug::NoLocking=1"]);
    for option in options {
        command.arg("-o").arg(option);
    }
    let output = command.args(args).output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
