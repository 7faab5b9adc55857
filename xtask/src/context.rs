//! Where things are, and the environment that every command gets.

use crate::{native, openssl, toolchain};
use eyre::{OptionExt, Result};
use std::fs::File;
use std::path::{Path, PathBuf};

/// How much a set-up prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// Only what is being downloaded.
    Quiet,
    /// One line.
    Brief,
    /// A line for each library.
    Full,
}

/// A machine that is ready to build.
#[derive(Debug)]
pub(crate) struct Context {
    /// The repository.
    pub(crate) root: PathBuf,
    /// Where cargo builds.
    pub(crate) target_dir: PathBuf,
    env: Vec<(String, String)>,
}

impl Context {
    /// Finds or installs everything that a build needs. Safe to run in several processes at once.
    pub(crate) fn set_up(no_system: bool, report: Report) -> Result<Self> {
        // Set by `cargo run`; the compiled-in one serves a binary that is started by hand.
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = manifest.parent().ok_or_eyre("xtask has no parent folder")?.to_owned();
        let home = PathBuf::from(
            std::env::var_os("HOME")
                .ok_or_eyre("HOME is not set; it holds the cache of native libraries (~/.cache/opg)")?,
        );
        let target_dir = std::env::var_os("CARGO_TARGET_DIR")
            .filter(|value| !value.is_empty())
            .map_or_else(|| home.join(".cache/opg-target"), PathBuf::from);
        // A relative directory would mean another place for commands that run in a subfolder.
        let target_dir = std::path::absolute(target_dir)?;

        let store = home.join(".cache/opg/native");
        std::fs::create_dir_all(&store)?;
        toolchain::check_cxx(&store)?;
        let libraries = {
            // One process installs at a time; a second one waits, then finds everything there.
            let lock = File::create(store.join(".lock"))?;
            lock.lock()?;
            let mut found = native::ensure(&store, no_system)?;
            found.extend(openssl::ensure(&store, no_system)?);
            found
        };

        let mut env = vec![("CARGO_TARGET_DIR".to_owned(), text(&target_dir)?)];
        for library in &libraries {
            env.extend(library.env.iter().cloned());
        }
        if std::env::var_os("CARGO_BUILD_JOBS").is_none() {
            env.push(("CARGO_BUILD_JOBS".to_owned(), toolchain::build_jobs().to_string()));
        }
        match report {
            Report::Quiet => {}
            Report::Brief => {
                let names: Vec<_> = libraries.iter().map(|library| library.name).collect();
                eprintln!("native libraries: {} (cargo xtask setup shows where)", names.join(", "));
            }
            Report::Full => {
                for library in &libraries {
                    println!("{:<14} {:<10} {}", library.name, library.source, library.path.display());
                }
                println!("{:<14} {:<10} {}", "target", "", target_dir.display());
            }
        }
        Ok(Self { root, target_dir, env })
    }

    /// Variables for every command, in a fixed order.
    pub(crate) fn env(&self) -> impl Iterator<Item = (&str, &str)> {
        self.env.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// A library that the build uses.
#[derive(Debug)]
pub(crate) struct Library {
    pub(crate) name: &'static str,
    /// `system`, `cache` or `installed`.
    pub(crate) source: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) env: Vec<(String, String)>,
}

/// A path as text, for an environment variable.
pub(crate) fn text(path: &Path) -> Result<String> {
    Ok(path
        .to_str()
        .ok_or_else(|| eyre::eyre!("{} is not UTF-8, which build scripts cannot take", path.display()))?
        .to_owned())
}
