//! Backup of a hub that keeps running, and restoring it.
//!
//! A backup is a directory: a snapshot of the database (`hub.sqlite`), the blobs it knows (`blobs/`), and, written last,
//! `backup.json`. The snapshot is one state between two transactions; while blobs are copied the hub removes none, so each of
//! the snapshot is there. Every blob is hashed on its way in both directions. A second backup into the same directory
//! copies only blobs that are new. Uploads that no commit refers to yet are part of it; xorbs that wait for their shard
//! are not: clients send them again.

use crate::{
    blobs::{BlobError, BlobStore, CHUNK, Hasher},
    config::HubConfig,
    db::{self, DbError},
    time::{iso, now_ms},
    tree::{Blob, Hash},
};
use bytes::Bytes;
use rusqlite::{Connection, OpenFlags};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, File, TryLockError},
    io::{self, Read, Write as _},
    path::{Path, PathBuf},
};

/// What `backup.json` begins with.
const FORMAT: &str = "opg-hub-backup/1";
const MANIFEST: &str = "backup.json";
/// Stands in the directory of a backup until it is complete.
const BEGUN: &str = "backup.partial";
const DATABASE: &str = "hub.sqlite";
/// In a data directory that is being restored: a hub does not start on it.
pub(crate) const RESTORING: &str = "restoring";

/// Why a backup or a restoration did not succeed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// A file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The blobs.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The database.
    #[error(transparent)]
    Database(#[from] DbError),
    /// The directory has no database of a hub.
    #[error("{} has no hub.sqlite; is it the data_dir of a hub?", path.display())]
    NoHub {
        /// The directory.
        path: PathBuf,
    },
    /// The data is not in the data directory.
    #[error("{what}; `opg hub backup` and `opg hub restore` are for a hub whose data is all in data_dir: {instead}")]
    Elsewhere {
        /// What is elsewhere.
        what: &'static str,
        /// What to use.
        instead: &'static str,
    },
    /// The directory is not a finished backup.
    #[error("{} is no finished backup: {problem}", path.display())]
    NoBackup {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The target holds something else.
    #[error("{} is not empty and not a backup; choose another directory", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// A hub, or another backup, uses the directory.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// Stored bytes do not have their hash.
    #[error("{count} blobs are missing or damaged, the first is {first}: {reason}")]
    Damaged {
        /// How many.
        count: usize,
        /// SHA-256 of the first.
        first: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Summary {
    /// Format of the directory.
    pub format: String,
    /// When the snapshot was taken, RFC 3339.
    pub created: String,
    /// Schema version of the database.
    pub schema: i32,
    /// SHA-256 of the snapshot.
    pub database_sha256: String,
    /// Repositories.
    pub repositories: u64,
    /// Blobs, also those inside the database.
    pub blobs: u64,
    /// Bytes of them.
    pub bytes: u64,
}

/// A finished backup or restoration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Done {
    /// What the backup holds.
    pub summary: Summary,
    /// Blobs that were copied; the others were there.
    pub copied: u64,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> BackupError + '_ {
    |source| BackupError::Io {
        path: path.to_owned(),
        source,
    }
}

/// Refuses if a part of the data is on a server: a copy of the rest would be no backup.
fn all_here(config: &HubConfig) -> Result<(), BackupError> {
    if config.blobs.is_some() {
        return Err(BackupError::Elsewhere {
            what: "the blobs are in a bucket",
            instead: "use the bucket's versioning and replication, and for the metadata pg_dump, or a copy of hub.sqlite \
                      while the hub is stopped",
        });
    }
    if config.database.is_some() {
        return Err(BackupError::Elsewhere {
            what: "the metadata is in PostgreSQL",
            instead: "stop the hub, take pg_dump and copy data_dir/blobs, or archive the server's log continuously",
        });
    }
    Ok(())
}

/// Copies a hub's data to a directory, while the hub runs or not. Blocks.
///
/// The directory is made, or holds an earlier backup, which is replaced when the new one is complete.
///
/// # Errors
/// [`BackupError`]. Without `backup.json` of this call the directory is not a backup of this moment.
pub fn backup(config: &HubConfig, target: &Path) -> Result<Done, BackupError> {
    all_here(config)?;
    let source = &config.data_dir;
    if !source.join(DATABASE).is_file() {
        return Err(BackupError::NoHub { path: source.clone() });
    }
    let known = target.join(MANIFEST).is_file() || target.join(BEGUN).is_file();
    if !known && target.exists() && fs::read_dir(target).map_err(at(target))?.next().is_some() {
        return Err(BackupError::NotEmpty { path: target.into() });
    }
    private_directory(target)?;
    let _lock = lock(target)?;
    let begun = target.join(BEGUN);
    write(&begun, b"")?;
    // Until this is dropped the hub removes no blob.
    let from = BlobStore::attach(source)?;
    let _kept = from.keep()?;
    let snapshot = target.join("snapshot.sqlite");
    if snapshot.exists() {
        fs::remove_file(&snapshot).map_err(at(&snapshot))?;
    }
    let created = iso(now_ms());
    db::snapshot(&source.join(DATABASE), &snapshot)?;
    let to = BlobStore::open(target)?;
    let (blobs, bytes, copied) = copy_blobs(&snapshot, &from, &to)?;
    let summary = Summary {
        format: FORMAT.into(),
        created,
        schema: db::VERSION,
        database_sha256: hash_file(&snapshot)?,
        repositories: open(&snapshot)?.0,
        blobs,
        bytes,
    };
    // The old description goes before the old database, and the new one comes last: at no moment does a description stand
    // beside another database.
    let manifest = target.join(MANIFEST);
    if manifest.exists() {
        fs::remove_file(&manifest).map_err(at(&manifest))?;
    }
    sync(&snapshot)?;
    let database = target.join(DATABASE);
    fs::rename(&snapshot, &database).map_err(at(&database))?;
    sync(target)?;
    write(&manifest, &serde_json::to_vec_pretty(&summary).unwrap_or_default())?;
    fs::remove_file(&begun).map_err(at(&begun))?;
    sync(target)?;
    Ok(Done { summary, copied })
}

/// Checks every hash of a backup. Blocks.
///
/// # Errors
/// [`BackupError`].
pub fn verify(backup: &Path) -> Result<Summary, BackupError> {
    let summary = read_summary(backup)?;
    let database = backup.join(DATABASE);
    let store = BlobStore::attach(backup)?;
    let mut damage = Damage::default();
    each_blob(&database, |blob, inline| {
        if inline.is_none() {
            let checked = read_blob(&store, blob, |_| Ok(()));
            damage.note(&blob.sha256, checked);
        }
        Ok(())
    })?;
    damage.result()?;
    Ok(summary)
}

/// Puts a backup into the data directory of a configuration, which must be empty, or left by a restoration that did not
/// finish. Blocks.
///
/// # Errors
/// [`BackupError`]. A hub does not start on a directory whose restoration did not finish; call this again.
pub fn restore(config: &HubConfig, backup: &Path) -> Result<Done, BackupError> {
    all_here(config)?;
    let target = &config.data_dir;
    let summary = read_summary(backup)?;
    let marker = target.join(RESTORING);
    if !marker.exists() {
        if target.exists() && fs::read_dir(target).map_err(at(target))?.next().is_some() {
            return Err(BackupError::NotEmpty { path: target.clone() });
        }
        private_directory(target)?;
        write(&marker, backup.to_string_lossy().as_bytes())?;
        sync(target)?;
    }
    let _lock = lock(target)?;
    let (from, to) = (BlobStore::attach(backup)?, BlobStore::open(target)?);
    let source = backup.join(DATABASE);
    let (_, _, copied) = copy_blobs(&source, &from, &to)?;
    let partial = target.join("hub.sqlite.partial");
    fs::copy(&source, &partial).map_err(at(&partial))?;
    if hash_file(&partial)? != summary.database_sha256 {
        return Err(BackupError::NoBackup {
            path: backup.into(),
            problem: "its database changed while it was read".into(),
        });
    }
    sync(&partial)?;
    let database = target.join(DATABASE);
    fs::rename(&partial, &database).map_err(at(&database))?;
    sync(target)?;
    fs::remove_file(&marker).map_err(at(&marker))?;
    sync(target)?;
    Ok(Done { summary, copied })
}

/// The description of a backup whose database is the one it describes.
fn read_summary(backup: &Path) -> Result<Summary, BackupError> {
    let no = |problem: String| BackupError::NoBackup {
        path: backup.into(),
        problem,
    };
    let path = backup.join(MANIFEST);
    let text = fs::read(&path).map_err(|error| no(format!("{MANIFEST}: {error}")))?;
    let summary: Summary = serde_json::from_slice(&text).map_err(|error| no(format!("{MANIFEST}: {error}")))?;
    if summary.format != FORMAT {
        return Err(no(format!(
            "its format is {:?}, this program reads {FORMAT:?}",
            summary.format
        )));
    }
    if summary.schema != db::VERSION {
        return Err(no(format!(
            "its database has schema version {}, this program reads {}",
            summary.schema,
            db::VERSION
        )));
    }
    let got = hash_file(&backup.join(DATABASE))?;
    if got != summary.database_sha256 {
        return Err(no(format!(
            "{DATABASE} has SHA-256 {got}, not the {} it should have",
            summary.database_sha256
        )));
    }
    let (repositories, sound) = open(&backup.join(DATABASE))?;
    if sound != "ok" || repositories != summary.repositories {
        return Err(no(format!("{DATABASE}: {sound}, {repositories} repositories")));
    }
    Ok(summary)
}

/// Blobs that did not have their hash.
#[derive(Default)]
struct Damage {
    count: usize,
    first: Option<(String, String)>,
}

impl Damage {
    fn note<T>(&mut self, sha256: &Hash, result: Result<T, BlobError>) -> Option<T> {
        result
            .inspect_err(|error| {
                self.count += 1;
                self.first
                    .get_or_insert_with(|| (hex::encode(sha256), error.to_string()));
            })
            .ok()
    }

    fn result(self) -> Result<(), BackupError> {
        match self.first {
            Some((first, reason)) => Err(BackupError::Damaged {
                count: self.count,
                first,
                reason,
            }),
            None => Ok(()),
        }
    }
}

/// Copies what a database knows, and gives blobs, bytes and how many were copied. Blobs in the target are hashed instead.
fn copy_blobs(database: &Path, from: &BlobStore, to: &BlobStore) -> Result<(u64, u64, u64), BackupError> {
    let (mut blobs, mut bytes, mut copied) = (0, 0u64, 0);
    let mut damage = Damage::default();
    each_blob(database, |blob, inline| {
        blobs += 1;
        bytes = bytes.saturating_add(blob.size);
        if inline.is_some() || to.verify(&blob.sha256).is_ok() {
            return Ok(());
        }
        // A damaged one in the target makes room.
        to.remove(&blob.sha256)?;
        let mut incoming = to.incoming()?;
        let read = read_blob(from, blob, |piece| incoming.write(piece));
        if damage.note(&blob.sha256, read).is_some() {
            to.publish(incoming, blob)?;
            copied += 1;
        }
        Ok(())
    })?;
    damage.result()?;
    Ok((blobs, bytes, copied))
}

/// Calls with each blob of a database, and its content if that is inside; a damaged one inside is an error.
fn each_blob(
    database: &Path,
    mut call: impl FnMut(&Blob, Option<&[u8]>) -> Result<(), BackupError>,
) -> Result<(), BackupError> {
    let connection = read_only(database)?;
    let mut damage = Damage::default();
    let mut failed = None;
    db::blobs::each(&db::Connection::sqlite(&connection), |blob, inline| {
        let inline = inline.as_deref();
        let good = inline.is_none_or(|content| {
            let sound = crate::blobs::describe(content) == blob;
            let error = || BlobError::Hash {
                expected: hex::encode(blob.sha256),
                got: hex::encode(Sha256::digest(content)),
            };
            damage
                .note(&blob.sha256, sound.then_some(()).ok_or_else(error))
                .is_some()
        });
        if good {
            failed = call(&blob, inline).err();
        }
        failed.is_none()
    })?;
    failed.map_or(Ok(()), Err)?;
    damage.result()
}

/// Reads a stored blob, gives its pieces away, and checks its hashes.
fn read_blob(
    store: &BlobStore,
    blob: &Blob,
    mut call: impl FnMut(&Bytes) -> Result<(), BlobError>,
) -> Result<(), BlobError> {
    let mut reader = store.open_at(&blob.sha256, 0, blob.size)?;
    let mut hasher = Hasher::new(blob.size);
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = reader.read(&mut buffer).map_err(|source| BlobError::Io {
            path: store.path(&blob.sha256),
            source,
        })?;
        let Some(bytes) = buffer.get(..n).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        hasher.update(bytes)?;
        call(&Bytes::copy_from_slice(bytes))?;
    }
    let got = hasher.finish()?;
    crate::blobs::expect_hash(&got, &blob.sha256)?;
    if got == *blob {
        return Ok(());
    }
    Err(BlobError::Hash {
        expected: hex::encode(blob.blake3),
        got: hex::encode(got.blake3),
    })
}

fn read_only(database: &Path) -> Result<Connection, BackupError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    Ok(Connection::open_with_flags(database, flags).map_err(DbError::from)?)
}

/// Number of repositories of a snapshot, and what SQLite says about it.
fn open(database: &Path) -> Result<(u64, String), BackupError> {
    let connection = read_only(database)?;
    let count: i64 = connection
        .query_row("SELECT COUNT(*) FROM repos", [], |row| row.get(0))
        .map_err(DbError::from)?;
    let sound = connection
        .query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))
        .map_err(DbError::from)?;
    Ok((u64::try_from(count).unwrap_or(0), sound))
}

fn hash_file(path: &Path) -> Result<String, BackupError> {
    let mut file = File::open(path).map_err(at(path))?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK];
    loop {
        let n = file.read(&mut buffer).map_err(at(path))?;
        match buffer.get(..n) {
            Some(bytes) if n > 0 => hasher.update(bytes),
            _ => return Ok(hex::encode(hasher.finalize())),
        }
    }
}

/// Makes a directory that only its owner reads: the database has hashes of tokens and the key of upload links.
fn private_directory(path: &Path) -> Result<(), BackupError> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(at(path))
}

fn lock(dir: &Path) -> Result<File, BackupError> {
    let path = dir.join("lock");
    let file = File::create(&path).map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(BackupError::InUse { path: dir.into() }),
        Err(TryLockError::Error(source)) => Err(at(&path)(source)),
    }
}

fn write(path: &Path, content: &[u8]) -> Result<(), BackupError> {
    let mut file = File::create(path).map_err(at(path))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(at(path))
}

fn sync(path: &Path) -> Result<(), BackupError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(at(path))
}
