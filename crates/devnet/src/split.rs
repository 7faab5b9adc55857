//! The same network as separate processes: one folder per role.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::{DevnetError, layout::Layout, lock::DirLock};

/// What [`crate::Devnet::split`] wrote.
#[derive(Debug, Clone, Serialize)]
pub struct Split {
    /// The folder.
    pub dir: PathBuf,
    /// Its `network.json`.
    pub network: PathBuf,
    /// The processes to start, in any order.
    pub roles: Vec<SplitRole>,
}

/// One process.
#[derive(Debug, Clone, Serialize)]
pub struct SplitRole {
    /// `full`, `hub`, `inference` or `router`, as in `opg node full`.
    pub kind: &'static str,
    /// Its configuration.
    pub config: PathBuf,
}

pub(crate) fn split(
    dir: &Path,
    validators: Option<u16>,
    port_base: Option<u16>,
    parameters: Option<&Path>,
) -> Result<Split, DevnetError> {
    std::fs::create_dir_all(dir).map_err(|source| DevnetError::io(dir, source))?;
    let _lock = DirLock::acquire(dir)?;
    if dir.join("genesis.json").exists() {
        return Err(DevnetError::NotEmpty { dir: dir.into() });
    }
    let layout = Layout::open_or_create(dir, validators, port_base, parameters)?;
    layout.network.write(&layout.dir)?;
    let full = layout.validators.iter().map(|config| SplitRole {
        kind: "full",
        config: config.clone(),
    });
    let roles = full
        .chain([
            SplitRole {
                kind: "hub",
                config: layout.hub.clone(),
            },
            SplitRole {
                kind: "inference",
                config: layout.inference.clone(),
            },
            SplitRole {
                kind: "router",
                config: layout.router.clone(),
            },
        ])
        .collect();
    Ok(Split {
        network: layout.network_file(),
        dir: layout.dir,
        roles,
    })
}
