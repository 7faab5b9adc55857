//! Content-addressed files on disk, or in a bucket.
//!
//! A blob is written to `incoming/`, past the page cache where that works, while it is hashed, flushed, and then renamed to
//! `blobs/aa/bb/<sha256>`: it is there whole or not at all. With a bucket it is uploaded instead, and the file removed. Whatever
//! lies in `incoming/` at start-up is of uploads that ended with the process. A published file is read-only and never written again.

use crate::{
    bucket::Bucket,
    tree::{Blob, Hash},
};
use opg_model_store::WriteBehind;
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};
use subtle::ConstantTimeEq as _;

pub use crate::hasher::{Hasher, describe};

/// Bytes read or written at a time.
pub const CHUNK: usize = 1 << 20;

/// Why a blob was refused or could not be stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BlobError {
    /// The disk's reason.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The bucket cannot be used as it should.
    #[error("{what}: {reason}")]
    Store {
        /// The bucket and what was asked of it.
        what: String,
        /// What it, or the network, said.
        reason: String,
    },
    /// The bucket is not this hub's.
    #[error("{place} is not for this hub: {problem}")]
    Foreign {
        /// The bucket.
        place: String,
        /// What speaks against it.
        problem: String,
    },
    /// More or fewer bytes than were announced.
    #[error("the content has {got} bytes, {expected} were announced")]
    Size {
        /// Announced size.
        expected: u64,
        /// Size found.
        got: u64,
    },
    /// The content is not what its name says.
    #[error("the content has SHA-256 {got}, {expected} was announced")]
    Hash {
        /// Announced hash.
        expected: String,
        /// Hash found.
        got: String,
    },
}

impl BlobError {
    /// What is received could not be stored or read back.
    pub(crate) fn upload(source: io::Error) -> Self {
        let path = "an upload".into();
        Self::Io { path, source }
    }
}

/// Fails unless a blob has the announced hash.
///
/// # Errors
/// [`BlobError::Hash`].
pub fn expect_hash(blob: &Blob, expected: &Hash) -> Result<(), BlobError> {
    if bool::from(blob.sha256.ct_eq(expected)) {
        return Ok(());
    }
    Err(BlobError::Hash {
        expected: hex::encode(expected),
        got: hex::encode(blob.sha256),
    })
}

/// The directory of blobs. All calls block.
#[derive(Debug)]
pub struct BlobStore {
    blobs: PathBuf,
    incoming: PathBuf,
    waiting: PathBuf,
    counter: AtomicU64,
    /// Where published blobs are instead of `blobs`.
    bucket: Option<Arc<Bucket>>,
}

fn at(path: &Path) -> impl Fn(io::Error) -> BlobError + '_ {
    |source| BlobError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Makes a rename or a new name in a directory durable.
fn sync_directory(path: &Path) -> Result<(), BlobError> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(at(path))
}

impl BlobStore {
    /// Opens or makes the store, and removes what unfinished uploads left.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn open(root: &Path) -> Result<Self, BlobError> {
        let (blobs, incoming, waiting) = (root.join("blobs"), root.join("incoming"), root.join("waiting"));
        for dir in [&blobs, &incoming, &waiting] {
            fs::create_dir_all(dir).map_err(at(dir))?;
        }
        for entry in fs::read_dir(&incoming).map_err(at(&incoming))?.flatten() {
            let path = entry.path();
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.map_err(at(&path))?;
        }
        sync_directory(root)?;
        Ok(Self {
            blobs,
            incoming,
            waiting,
            counter: AtomicU64::new(0),
            bucket: None,
        })
    }

    /// Keeps blobs in a bucket, from now on.
    pub(crate) fn with(mut self, bucket: Option<Arc<Bucket>>) -> Self {
        self.bucket = bucket;
        self
    }

    /// A store that another process may be using: nothing is made or removed.
    ///
    /// # Errors
    /// [`BlobError::Io`] if there is none.
    pub fn attach(root: &Path) -> Result<Self, BlobError> {
        let store = Self {
            blobs: root.join("blobs"),
            incoming: root.join("incoming"),
            waiting: root.join("waiting"),
            counter: AtomicU64::new(0),
            bucket: None,
        };
        fs::metadata(&store.blobs).map_err(at(&store.blobs))?;
        Ok(store)
    }

    fn keep_file(&self) -> Result<File, BlobError> {
        let path = self.blobs.with_file_name("keep.lock");
        let open = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
        open.map_err(at(&path))
    }

    /// As long as the result lives, no process removes a blob that a database refers to or referred to: waits for a
    /// removal that is under way.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn keep(&self) -> Result<File, BlobError> {
        let file = self.keep_file()?;
        file.lock_shared().map_err(at(&self.blobs))?;
        Ok(file)
    }

    /// Fails if the bucket has another hub now.
    pub(crate) fn check_own(&self) -> Result<(), BlobError> {
        self.bucket.as_ref().map_or(Ok(()), |bucket| bucket.check_run())
    }

    /// The right to remove blobs, as long as the result lives; `None` while somebody keeps them ([`Self::keep`]).
    ///
    /// # Errors
    /// [`BlobError::Io`]; [`BlobError::Foreign`] if the bucket has another hub now.
    pub fn removal(&self) -> Result<Option<File>, BlobError> {
        self.check_own()?;
        let file = self.keep_file()?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(at(&self.blobs)(source)),
        }
    }

    /// Directory of xorbs that wait for their shard. They survive a restart, and are removed by age.
    #[must_use]
    pub fn waiting(&self) -> &Path {
        &self.waiting
    }

    /// Removes waiting xorbs that are older than `age`, and returns how many.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn forget_waiting(&self, age: std::time::Duration) -> Result<usize, BlobError> {
        let mut removed = 0;
        for entry in fs::read_dir(&self.waiting).map_err(at(&self.waiting))?.flatten() {
            let path = entry.path();
            let modified = entry.metadata().and_then(|meta| meta.modified()).map_err(at(&path))?;
            if modified.elapsed().is_ok_and(|elapsed| elapsed >= age) {
                fs::remove_file(&path).map_err(at(&path))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Where a blob lies, whether it is there or not.
    #[must_use]
    pub fn path(&self, sha256: &Hash) -> PathBuf {
        let name = hex::encode(sha256);
        let (a, b) = (name.get(..2).unwrap_or_default(), name.get(2..4).unwrap_or_default());
        self.blobs.join(a).join(b).join(&name)
    }

    /// Opens a blob for reading `length` bytes from a position on.
    ///
    /// # Errors
    /// [`BlobError::Io`], also if it is not there.
    pub fn open_at(&self, sha256: &Hash, start: u64, length: u64) -> Result<Box<dyn io::Read + Send>, BlobError> {
        if let Some(bucket) = &self.bucket {
            return Ok(Box::new(bucket.open_at(sha256, start, length)?));
        }
        let path = self.path(sha256);
        let mut file = File::open(&path).map_err(at(&path))?;
        if start > 0 {
            file.seek(SeekFrom::Start(start)).map_err(at(&path))?;
        }
        Ok(Box::new(file.take(length)))
    }

    /// A fresh file for incoming bytes. It is removed when dropped unless published.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn incoming(&self) -> Result<Incoming, BlobError> {
        let name = self.counter.fetch_add(1, Ordering::Relaxed);
        let path = self.incoming.join(format!("{name:016x}"));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(at(&path))?;
        // What goes to a bucket need not reach this disk.
        let behind = match &self.bucket {
            None => Some(WriteBehind::at(file.try_clone().map_err(at(&path))?, &path)),
            Some(_) => None,
        };
        Ok(Incoming {
            file,
            length: 0,
            behind,
            path: Some(path),
        })
    }

    /// Publishes a file under its hash, durably. If the blob is there already, the file is dropped.
    ///
    /// # Errors
    /// [`BlobError`].
    pub fn publish(&self, mut incoming: Incoming, blob: &Blob) -> Result<(), BlobError> {
        if let Some(bucket) = &self.bucket {
            return bucket.publish(&mut incoming.file, blob);
        }
        let target = self.path(&blob.sha256);
        let Some(source) = incoming.path.as_ref() else {
            return Ok(());
        };
        // Same hash and size: the same bytes, unless the disk lost some; then the new file replaces it.
        if fs::metadata(&target).is_ok_and(|meta| meta.len() == blob.size) {
            return Ok(());
        }
        incoming.flush().map_err(at(source))?;
        let mut permissions = incoming.file.metadata().map_err(at(source))?.permissions();
        permissions.set_readonly(true);
        fs::set_permissions(source, permissions).map_err(at(source))?;
        let parents: Vec<&Path> = target.ancestors().skip(1).take(3).collect();
        if let Some(parent) = parents.first() {
            fs::create_dir_all(parent).map_err(at(parent))?;
        }
        fs::rename(source, &target).map_err(at(&target))?;
        incoming.path = None;
        // The file's name, and those of the two directories above it, which may be new.
        for parent in parents {
            sync_directory(parent)?;
        }
        Ok(())
    }

    /// Removes a blob; not an error if it is gone.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn remove(&self, sha256: &Hash) -> Result<(), BlobError> {
        if let Some(bucket) = &self.bucket {
            return bucket.remove(sha256);
        }
        let path = self.path(sha256);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&path)(error)),
            _ => Ok(()),
        }
    }

    /// Hashes of all stored blobs, in no order.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn list(&self) -> Result<Vec<Hash>, BlobError> {
        if let Some(bucket) = &self.bucket {
            return bucket.list();
        }
        let mut found = Vec::new();
        let mut pending = vec![(self.blobs.clone(), 0)];
        while let Some((dir, depth)) = pending.pop() {
            for entry in fs::read_dir(&dir).map_err(at(&dir))? {
                let entry = entry.map_err(at(&dir))?;
                if depth < 2 {
                    pending.push((entry.path(), depth + 1));
                } else if let Some(hash) = entry
                    .file_name()
                    .to_str()
                    .and_then(|n| hex::decode(n).ok()?.try_into().ok())
                {
                    found.push(hash);
                }
            }
        }
        Ok(found)
    }

    /// Reads a blob's first bytes, at most `limit`.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn front(&self, sha256: &Hash, limit: u64) -> Result<Vec<u8>, BlobError> {
        let mut bytes = Vec::new();
        let mut stored = self.open_at(sha256, 0, limit)?;
        stored.read_to_end(&mut bytes).map_err(at(&self.path(sha256)))?;
        Ok(bytes)
    }

    /// Hashes a stored blob again.
    ///
    /// # Errors
    /// [`BlobError`]: not readable, or not the bytes of its name.
    pub fn verify(&self, sha256: &Hash) -> Result<Blob, BlobError> {
        let path = self.path(sha256);
        let file = File::open(&path).map_err(at(&path))?;
        let size = file.metadata().map_err(at(&path))?.len();
        let blob = Hasher::new(size).read(file, at(&path))?;
        expect_hash(&blob, sha256)?;
        Ok(blob)
    }
}

/// A file that is being received.
#[derive(Debug)]
pub struct Incoming {
    file: File,
    /// Bytes that were appended.
    length: u64,
    behind: Option<Arc<WriteBehind>>,
    path: Option<PathBuf>,
}

impl Incoming {
    /// The open file.
    pub fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Flushes the file and gives it a name of its own.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn keep_as(mut self, target: &Path) -> Result<(), BlobError> {
        self.flush().map_err(at(target))?;
        if let Some(source) = &self.path {
            fs::rename(source, target).map_err(at(target))?;
            self.path = None;
        }
        target.parent().map_or(Ok(()), sync_directory)
    }

    /// A second handle to the same file, for writes at a position.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn clone_file(&self) -> Result<File, BlobError> {
        let path = self.path.clone().unwrap_or_default();
        self.file.try_clone().map_err(at(&path))
    }

    /// Appends bytes. Pieces of a [`Gather`](opg_model_store::Gather) go past the page cache.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        let written = match &self.behind {
            Some(behind) => behind.write_past_cache(bytes, self.length),
            None => self.file.write_all_at(bytes, self.length),
        };
        written.map_err(at(self.path.as_deref().unwrap_or(Path::new(""))))?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// What flushes the file while it is written, if it is to stay on this disk.
    pub(crate) fn behind(&self) -> Option<Arc<WriteBehind>> {
        self.behind.clone()
    }

    fn flush(&self) -> io::Result<()> {
        self.behind
            .as_ref()
            .map_or_else(|| self.file.sync_all(), |behind| behind.finish())
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Also removed at the next start.
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_published_whole_and_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        let content = b"hello";
        let mut hasher = Hasher::new(5);
        let mut incoming = store.incoming().unwrap();
        incoming.write(content).unwrap();
        hasher.update(content).unwrap();
        let blob = hasher.finish().unwrap();
        assert_eq!(blob, describe(b"hello"));
        // Known answers: sha256sum, b3sum, git hash-object.
        assert!(hex::encode(blob.sha256).starts_with("2cf24dba5fb0a30e"));
        assert!(hex::encode(blob.blake3).starts_with("ea8f163db3868292"));
        assert_eq!(hex::encode(blob.git), "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0");
        store.publish(incoming, &blob).unwrap();
        assert_eq!(store.front(&blob.sha256, 3).unwrap(), b"hel");
        assert_eq!(store.list().unwrap(), [blob.sha256]);
        assert_eq!(store.verify(&blob.sha256).unwrap(), blob);
        store.remove(&blob.sha256).unwrap();
        store.remove(&blob.sha256).unwrap();
        assert!(store.open_at(&blob.sha256, 0, 1).is_err());
    }

    #[test]
    fn leftovers_are_removed_and_wrong_sizes_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        let mut incoming = store.incoming().unwrap();
        incoming.write(b"half").unwrap();
        let _left = std::mem::ManuallyDrop::new(incoming);
        assert_eq!(fs::read_dir(dir.path().join("incoming")).unwrap().count(), 1);
        drop(store);
        BlobStore::open(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path().join("incoming")).unwrap().count(), 0);
        assert!(matches!(Hasher::new(3).update(b"four"), Err(BlobError::Size { .. })));
        assert!(matches!(Hasher::new(3).finish(), Err(BlobError::Size { .. })));
    }
}
