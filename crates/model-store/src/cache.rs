//! The folder: files and their outboards by SHA-256, manifests by root, a limit on all of it.

use crate::ranges;
use opg_models::{FileEntry, FileHasher, Manifest, ManifestError, ModelRoot};
use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

/// Bytes read at a time.
const PIECE: usize = 1 << 20;

/// Why the cache cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CacheError {
    /// A file or folder.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Another process uses the folder.
    #[error("{} is in use by another process; give each node a cache of its own", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// The model is larger than the cache may be, or than what is not in use leaves.
    #[error(
        "a model of {need} bytes does not fit: the cache may have {limit} bytes, of which models in use take {used}"
    )]
    Full {
        /// Size of the model.
        need: u64,
        /// Limit of the cache.
        limit: u64,
        /// Bytes of models that are in use.
        used: u64,
    },
    /// A manifest breaks a rule, or has several files.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The network runs models of one file.
    #[error("the model {root} has {files} files; models of one file can be fetched")]
    Files {
        /// The model.
        root: ModelRoot,
        /// Its files.
        files: usize,
    },
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    let path = path.to_owned();
    move |source| CacheError::Io { path, source }
}

/// A model that is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    /// What the root is the hash of.
    pub manifest: Manifest,
    /// Its file.
    pub path: PathBuf,
}

/// Model files of one node below a folder.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    limit: u64,
    /// File names of models in use: never removed to make room.
    used: Mutex<BTreeSet<String>>,
    _lock: File,
}

impl Cache {
    /// Opens or makes the folder. `limit` bounds the bytes of files and of unfinished ones.
    ///
    /// # Errors
    /// If it cannot be used, or another process uses it.
    pub fn open(dir: &Path, limit: u64) -> Result<Self, CacheError> {
        for folder in ["files", "manifests", "outboards", "parts"] {
            let folder = dir.join(folder);
            fs::create_dir_all(&folder).map_err(io_error(&folder))?;
        }
        let path = dir.join("lock");
        let lock = File::create(&path).map_err(io_error(&path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(CacheError::Locked { path: dir.into() }),
            Err(TryLockError::Error(source)) => return Err(CacheError::Io { path, source }),
        }
        Ok(Self {
            dir: dir.into(),
            limit,
            used: Mutex::default(),
            _lock: lock,
        })
    }

    /// The model, if it is here and whole. The file is hashed: one that the disk has changed is removed. Blocks. From here
    /// on the model is in use.
    ///
    /// # Errors
    /// If the folder cannot be read.
    pub fn get(&self, root: ModelRoot) -> Result<Option<Cached>, CacheError> {
        let Some(manifest) = self.manifest(root)? else {
            return Ok(None);
        };
        let entry = only_file(root, &manifest)?;
        let path = self.file(&entry.sha256.0);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CacheError::Io { path, source }),
        };
        if !self.is_good(&file, &entry)? {
            tracing::error!(%root, file = %path.display(), "the cached file does not have its hash any more; it is fetched again");
            drop(file);
            self.remove(&hex::encode(entry.sha256))?;
            return Ok(None);
        }
        // Only the order in which files make room hangs on this time.
        let _ = file.set_modified(SystemTime::now());
        self.hold(&entry.sha256.0);
        Ok(Some(Cached { manifest, path }))
    }

    /// Whether a file has what its entry says. BLAKE3 is enough where it is known (all of it was compared when the file came),
    /// and its outboard is made on the way if it is not there.
    fn is_good(&self, mut file: &File, entry: &FileEntry) -> Result<bool, CacheError> {
        let path = self.file(&entry.sha256.0);
        let Some(blake3) = entry.blake3 else {
            let mut hasher = FileHasher::like(entry);
            let mut piece = vec![0; PIECE];
            loop {
                let n = file.read(&mut piece).map_err(io_error(&path))?;
                let Some(bytes) = piece.get(..n).filter(|bytes| !bytes.is_empty()) else {
                    break;
                };
                hasher.update(bytes);
            }
            return Ok(hasher.finish(&entry.path) == *entry);
        };
        if file.metadata().map_err(io_error(&path))?.len() != entry.size {
            return Ok(false);
        }
        let outboard = self.outboard(&entry.sha256.0);
        let length = ranges::outboard_length(entry.size);
        if fs::metadata(&outboard).is_ok_and(|meta| meta.len() == length) {
            let got = ranges::make_outboard(file, entry.size, io::sink()).map_err(io_error(&path))?;
            return Ok(got == blake3.0);
        }
        let temporary = outboard.with_extension("new");
        let mut writer = io::BufWriter::with_capacity(PIECE, File::create(&temporary).map_err(io_error(&temporary))?);
        let got = ranges::make_outboard(file, entry.size, &mut writer).map_err(io_error(&path))?;
        writer
            .into_inner()
            .map_err(|error| error.into_error())
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&temporary, &outboard))
            .map_err(io_error(&outboard))?;
        Ok(got == blake3.0)
    }

    /// Where the outboard of a file is; files of models whose manifest has BLAKE3 have one.
    #[must_use]
    pub fn outboard(&self, sha256: &[u8; 32]) -> PathBuf {
        self.dir.join("outboards").join(hex::encode(sha256))
    }

    /// Removes a file and its outboard.
    fn remove(&self, name: &str) -> Result<(), CacheError> {
        for folder in ["files", "outboards"] {
            let path = self.dir.join(folder).join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(&path)(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// The manifest of a root, if it is here.
    pub(crate) fn manifest(&self, root: ModelRoot) -> Result<Option<Manifest>, CacheError> {
        let path = self.dir.join("manifests").join(hex::encode(root.0));
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(CacheError::Io { path, source }),
        };
        // A damaged one is as good as none.
        let manifest = Manifest::decode(&bytes).ok();
        Ok(manifest.filter(|manifest| manifest.root().is_ok_and(|got| got == root)))
    }

    /// Keeps a manifest, which is checked to be that of the root.
    pub(crate) fn put_manifest(&self, manifest: &Manifest) -> Result<(), CacheError> {
        let root = manifest.root()?;
        let path = self.dir.join("manifests").join(hex::encode(root.0));
        let temporary = path.with_extension("new");
        let bytes = manifest.encode()?;
        File::create(&temporary)
            .and_then(|mut file| {
                file.write_all(&bytes)?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(io_error(&path))
    }

    /// Where a file is while it is fetched.
    pub(crate) fn part(&self, sha256: &[u8; 32]) -> PathBuf {
        self.dir.join("parts").join(hex::encode(sha256))
    }

    /// Where a file and its outboard are while they are fetched in ranges.
    pub(crate) fn ranged_parts(&self, sha256: &[u8; 32]) -> (PathBuf, PathBuf) {
        let part = self.part(sha256);
        (part.with_extension("ranges"), part.with_extension("outboard"))
    }

    fn file(&self, sha256: &[u8; 32]) -> PathBuf {
        self.dir.join("files").join(hex::encode(sha256))
    }

    fn hold(&self, sha256: &[u8; 32]) {
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.insert(hex::encode(sha256));
    }

    /// Moves a part whose bytes were hashed and flushed to its place; `ranged` with its outboard.
    pub(crate) fn publish(&self, entry: &FileEntry, ranged: bool) -> Result<PathBuf, CacheError> {
        let sha256 = &entry.sha256.0;
        let (plain, (part, outboard)) = (self.part(sha256), self.ranged_parts(sha256));
        let path = self.file(sha256);
        // The outboard first: a file without one gets it when it is next looked at, which costs reading it.
        if ranged {
            let to = self.outboard(sha256);
            fs::rename(&outboard, &to).map_err(io_error(&to))?;
        }
        fs::rename(if ranged { &part } else { &plain }, &path).map_err(io_error(&path))?;
        for folder in ["outboards", "files"] {
            let folder = self.dir.join(folder);
            File::open(&folder)
                .and_then(|folder| folder.sync_all())
                .map_err(io_error(&folder))?;
        }
        // What came the other way is of no use any more.
        for left in [plain, part, outboard] {
            match fs::remove_file(&left) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io_error(&left)(error)),
                _ => {}
            }
        }
        if !ranged && entry.blake3.is_some() {
            let file = File::open(&path).map_err(io_error(&path))?;
            self.is_good(&file, entry)?;
        }
        self.hold(sha256);
        Ok(path)
    }

    /// Removes what was not used for the longest time until a file fits, and unfinished files other than this one.
    pub(crate) fn make_room(&self, entry: &FileEntry) -> Result<(), CacheError> {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let own = hex::encode(entry.sha256);
        let outboard = entry.blake3.map_or(0, |_| ranges::outboard_length(entry.size));
        let need = entry.size.saturating_add(outboard);
        let (mut held, mut total, mut idle) = (0u64, 0u64, Vec::new());
        for (folder, unfinished) in [("files", false), ("parts", true)] {
            let folder = self.dir.join(folder);
            for entry in fs::read_dir(&folder).map_err(io_error(&folder))? {
                let entry = entry.map_err(io_error(&folder))?;
                let meta = entry.metadata().map_err(io_error(&folder))?;
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.split('.').next() == Some(&own) {
                    continue;
                }
                let outboard = self.dir.join("outboards").join(&name);
                let outboard = if unfinished {
                    0
                } else {
                    fs::metadata(outboard).map_or(0, |meta| meta.len())
                };
                let size = meta.len().saturating_add(outboard);
                total = total.saturating_add(size);
                if !unfinished && used.contains(&name) {
                    held = held.saturating_add(size);
                } else {
                    let age = meta.modified().unwrap_or(SystemTime::UNIX_EPOCH);
                    // Unfinished files first: nothing was ever answered with them.
                    idle.push((!unfinished, age, size, entry.path()));
                }
            }
        }
        if need > self.limit.saturating_sub(held) {
            return Err(CacheError::Full {
                need,
                limit: self.limit,
                used: held,
            });
        }
        idle.sort();
        for (finished, _, size, path) in idle {
            if total.saturating_add(need) <= self.limit {
                break;
            }
            if finished {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                self.remove(&name)?;
            } else {
                fs::remove_file(&path).map_err(io_error(&path))?;
            }
            tracing::info!(file = %path.display(), size, "removed from the cache of models to make room");
            total = total.saturating_sub(size);
        }
        Ok(())
    }
}

/// The file of a model that has one.
pub(crate) fn only_file(root: ModelRoot, manifest: &Manifest) -> Result<opg_models::FileEntry, CacheError> {
    match manifest.files.as_slice() {
        [file] => Ok(file.clone()),
        files => Err(CacheError::Files {
            root,
            files: files.len(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use opg_models::{Format, ManifestVersion};

    fn put(cache: &Cache, bytes: &[u8]) -> ModelRoot {
        put_version(cache, ManifestVersion::V1, bytes)
    }

    fn put_version(cache: &Cache, version: ManifestVersion, bytes: &[u8]) -> ModelRoot {
        let manifest = Manifest::single(version, Format::Gguf, bytes);
        let entry = &manifest.files[0];
        cache.make_room(entry).unwrap();
        cache.put_manifest(&manifest).unwrap();
        fs::write(cache.part(&entry.sha256.0), bytes).unwrap();
        cache.publish(entry, false).unwrap();
        manifest.root().unwrap()
    }

    #[test]
    fn what_the_disk_has_changed_is_not_given_out() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), 1_000).unwrap();
        let root = put(&cache, b"weights");
        let path = cache.get(root).unwrap().unwrap().path;
        assert_eq!(fs::read(&path).unwrap(), b"weights");
        fs::write(&path, b"weightz").unwrap();
        assert_eq!(cache.get(root).unwrap(), None);
        assert!(!path.exists());
        // A manifest that is damaged counts as none.
        let root = put(&cache, b"others");
        let manifest = dir.path().join("manifests").join(hex::encode(root.0));
        let mut bytes = fs::read(&manifest).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&manifest, bytes).unwrap();
        assert_eq!(cache.get(root).unwrap(), None);
    }

    #[test]
    fn what_is_in_use_stays_and_the_oldest_of_the_rest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let old = |name: &str, seconds| {
            let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
            let file = File::options().write(true).open(dir.path().join("files").join(name));
            file.unwrap().set_modified(at).unwrap();
        };
        let roots: Vec<_> = {
            let cache = Cache::open(dir.path(), 100).unwrap();
            [[1u8; 30], [2; 30], [3; 30]].iter().map(|b| put(&cache, b)).collect()
        };
        for (i, bytes) in [[1u8; 30], [2; 30], [3; 30]].iter().enumerate() {
            let name = hex::encode(
                Manifest::single(ManifestVersion::V1, Format::Gguf, bytes).files[0]
                    .sha256
                    .0,
            );
            old(&name, 10 + i as u64);
        }
        let cache = Cache::open(dir.path(), 100).unwrap();
        // The oldest is in use now, so the second makes room.
        cache.get(roots[0]).unwrap().unwrap();
        put(&cache, &[4; 35]);
        assert!(cache.get(roots[0]).unwrap().is_some());
        assert!(cache.get(roots[1]).unwrap().is_none());
        assert!(cache.get(roots[2]).unwrap().is_some());
        // All three are in use: nothing may go.
        let new = |size| FileEntry {
            size,
            sha256: [0; 32].into(),
            path: "model.gguf".into(),
            blake3: None,
            git_sha1: None,
        };
        let error = cache.make_room(&new(10)).unwrap_err();
        assert!(
            matches!(
                error,
                CacheError::Full {
                    need: 10,
                    limit: 100,
                    used: 95
                }
            ),
            "{error}"
        );
        cache.make_room(&new(5)).unwrap();
        assert!(matches!(
            Cache::open(dir.path(), 1).unwrap_err(),
            CacheError::Locked { .. }
        ));
    }
}
