//! Checkpoints that this user has verified, kept between runs (decisions D12).
//!
//! One file for each genesis, replaced in one step and synced, and a lock file beside it so that two commands do not lose each other's
//! points. A file that cannot be read is an error and never an empty book: who could spoil the file could otherwise take a client back.

use std::path::{Path, PathBuf};

use alloy_primitives::B256;
use opg_light_client::{Checkpoint, CheckpointBook, CheckpointError, checkpoint::MAX_REMEMBERED};

use crate::network::{NetworkError, read_bounded, user_data_dir, write_atomically};

/// Bytes of one point in the file are about 350.
const MAX_FILE: u64 = (MAX_REMEMBERED as u64 + 1) * 512;

/// Why the kept checkpoints cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeptError {
    /// The file cannot be read or written.
    #[error(transparent)]
    File(#[from] NetworkError),
    /// The file is none of ours.
    #[error(
        "{path}: {reason}; if the file is lost, remove it, and name a checkpoint that you trust with --trust-checkpoint"
    )]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// What was verified contradicts what was verified before.
    #[error("{path}: {source}")]
    Conflict {
        /// The file.
        path: PathBuf,
        /// How.
        source: CheckpointError,
    },
}

/// The file of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptCheckpoints {
    path: PathBuf,
    genesis: B256,
}

impl KeptCheckpoints {
    /// The file of the network with this genesis digest in a folder.
    #[must_use]
    pub fn in_folder(folder: &Path, genesis: B256) -> Self {
        Self {
            path: folder.join(format!("{genesis:x}.json")),
            genesis,
        }
    }

    /// The same in the user's folder; `None` if the user has none.
    #[must_use]
    pub fn of_user(genesis: B256) -> Option<Self> {
        let folder = user_data_dir()?.join("checkpoints");
        Some(Self::in_folder(&folder, genesis))
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is kept; empty if there is no file yet.
    ///
    /// # Errors
    /// If the file cannot be read, or is no book of this network.
    pub fn load(&self) -> Result<CheckpointBook, KeptError> {
        let malformed = |reason: String| KeptError::Malformed {
            path: self.path.clone(),
            reason,
        };
        let bytes = match read_bounded(&self.path, MAX_FILE) {
            Ok(bytes) => bytes,
            Err(NetworkError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                return Ok(CheckpointBook::new(self.genesis));
            }
            Err(error) => return Err(error.into()),
        };
        let book: CheckpointBook = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        book.validate(self.genesis)
            .map_err(|error| malformed(error.to_string()))?;
        Ok(book)
    }

    /// Adds verified points to what is kept, and syncs it to disk. The newest point never goes back. Nothing is written if nothing is new.
    ///
    /// # Errors
    /// [`KeptError::Conflict`] if they show another history than the kept one; the file stays as it is. Else as [`Self::load`].
    pub fn keep(&self, points: &[Checkpoint]) -> Result<CheckpointBook, KeptError> {
        if points.is_empty() {
            return self.load();
        }
        let io = |source| NetworkError::Io {
            path: self.path.clone(),
            source,
        };
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder).map_err(io)?;
        }
        let lock = std::fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(self.path.with_extension("lock"))
            .map_err(io)?;
        // Held until the file is dropped.
        lock.lock().map_err(io)?;
        let before = self.load()?;
        let mut book = before.clone();
        book.merge(self.genesis, points).map_err(|source| KeptError::Conflict {
            path: self.path.clone(),
            source,
        })?;
        if book != before {
            let bytes = serde_json::to_vec(&book).map_err(|error| KeptError::Malformed {
                path: self.path.clone(),
                reason: error.to_string(),
            })?;
            write_atomically(&self.path, &bytes)?;
        }
        Ok(book)
    }
}
