//! The files of one revision, and the directory objects they are stored as.
//!
//! A directory is one object: its entries sorted by name in deterministic CBOR, named by SHA-256. Unchanged directories
//! are shared between revisions and repositories. An entry of a file carries everything a listing shows, so listing
//! reads no other table.

use crate::git;
use opg_primitives::cbor::{self, CborError, Limits, Value};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};

/// SHA-256 of a blob or directory object.
pub type Hash = [u8; 32];

/// Most entries of one directory.
pub const ENTRIES_LIMIT: usize = 100_000;

/// What is known of a stored blob: three hashes of the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob {
    /// SHA-256: the key of the store.
    pub sha256: Hash,
    /// BLAKE3.
    pub blake3: Hash,
    /// Git blob id (SHA-1 over `blob SIZE\0` and the bytes).
    pub git: git::Oid,
    /// Size in bytes.
    pub size: u64,
}

/// One file of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// Its content.
    pub blob: Blob,
    /// Whether git sees a pointer (large file) instead of the content.
    pub lfs: bool,
}

impl File {
    /// The id in the git tree: of the content, or of the pointer.
    #[must_use]
    pub fn oid(&self) -> git::Oid {
        if self.lfs {
            git::object("blob", self.pointer().as_bytes())
        } else {
            self.blob.git
        }
    }

    /// The pointer file of a large file.
    #[must_use]
    pub fn pointer(&self) -> String {
        git::lfs_pointer(&self.blob.sha256, self.blob.size)
    }
}

/// All files of a revision by path.
pub type Files = BTreeMap<String, File>;

/// One entry of a directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    /// A file.
    File(File),
    /// A directory.
    Directory(Directory),
}

/// Names of a directory: ours and git's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Directory {
    /// SHA-256 of the directory object.
    pub id: Hash,
    /// Git tree id.
    pub git: git::Oid,
}

/// Why a set of files is no tree, or a stored directory is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// A path is a file and a directory.
    #[error("path {path:?} is a file and a directory")]
    FileAndDirectory {
        /// The path.
        path: String,
    },
    /// Two paths differ only in case: one file on some file systems.
    #[error("path {path:?} differs from another path in case only")]
    Case {
        /// The path.
        path: String,
    },
    /// Too many entries in one directory.
    #[error("a directory has {got} entries, at most {limit} are accepted")]
    Entries {
        /// Accepted number.
        limit: usize,
        /// Number found.
        got: usize,
    },
    /// The stored bytes are not those of a directory object.
    #[error("stored directory {id}: {problem}")]
    Damaged {
        /// Its id.
        id: String,
        /// What is wrong.
        problem: String,
    },
}

/// Checks that paths can exist together on every file system.
///
/// # Errors
/// [`TreeError::FileAndDirectory`], [`TreeError::Case`].
pub fn check(files: &Files) -> Result<(), TreeError> {
    let mut folded = BTreeSet::new();
    let mut directories: BTreeMap<String, &str> = BTreeMap::new();
    for path in files.keys() {
        if !folded.insert(path.to_lowercase()) {
            return Err(TreeError::Case { path: path.clone() });
        }
        for (at, _) in path.match_indices('/') {
            let directory = path.get(..at).unwrap_or_default();
            let known = directories.entry(directory.to_lowercase()).or_insert(directory);
            if *known != directory {
                return Err(TreeError::Case { path: path.clone() });
            }
        }
    }
    match directories.iter().find(|(key, _)| folded.contains(*key)) {
        Some((_, path)) => Err(TreeError::FileAndDirectory {
            path: (*path).to_owned(),
        }),
        None => Ok(()),
    }
}

/// Directory objects of a revision: the root, and every object by id.
#[derive(Debug, Clone)]
pub struct Objects {
    /// The root directory.
    pub root: Directory,
    /// Every directory's encoding, the root's included.
    pub bodies: BTreeMap<Hash, Vec<u8>>,
}

/// Builds the directory objects of a set of files.
///
/// # Errors
/// [`TreeError`].
pub fn build(files: &Files) -> Result<Objects, TreeError> {
    check(files)?;
    let mut bodies = BTreeMap::new();
    let all: Vec<(&str, &File)> = files.iter().map(|(path, file)| (path.as_str(), file)).collect();
    let root = build_directory(&all, &mut bodies)?;
    Ok(Objects { root, bodies })
}

/// `files` is sorted by path, paths relative to this directory. Depth is bounded by the rules for paths.
fn build_directory(files: &[(&str, &File)], bodies: &mut BTreeMap<Hash, Vec<u8>>) -> Result<Directory, TreeError> {
    let mut entries: BTreeMap<&str, Entry> = BTreeMap::new();
    let mut rest = files;
    while let Some(((path, file), tail)) = rest.split_first() {
        let Some((name, _)) = path.split_once('/') else {
            entries.insert(path, Entry::File(**file));
            rest = tail;
            continue;
        };
        // Paths of one directory are not contiguous ("a-b" sorts between "a" and "a/x"), but those with one prefix are.
        let inside = |path: &str| path.strip_prefix(name).is_some_and(|rest| rest.starts_with('/'));
        let count = rest.iter().take_while(|(path, _)| inside(path)).count();
        let (group, tail) = rest.split_at_checked(count).unwrap_or((rest, &[]));
        let below: Vec<(&str, &File)> = group
            .iter()
            .map(|(path, file)| (path.get(name.len() + 1..).unwrap_or_default(), *file))
            .collect();
        entries.insert(name, Entry::Directory(build_directory(&below, bodies)?));
        rest = tail;
    }
    if entries.len() > ENTRIES_LIMIT {
        return Err(TreeError::Entries {
            limit: ENTRIES_LIMIT,
            got: entries.len(),
        });
    }
    let git_entries: Vec<git::TreeEntry<'_>> = entries
        .iter()
        .map(|(name, entry)| git::TreeEntry {
            name,
            directory: matches!(entry, Entry::Directory(_)),
            oid: match entry {
                Entry::File(file) => file.oid(),
                Entry::Directory(directory) => directory.git,
            },
        })
        .collect();
    let body = encode(&entries);
    let id = Sha256::digest(&body).into();
    bodies.insert(id, body);
    Ok(Directory {
        id,
        git: git::tree(&git_entries),
    })
}

/// `[[name, sha256, blake3, git, size, lfs] | [name, id, git], …]`, sorted by name.
fn encode(entries: &BTreeMap<&str, Entry>) -> Vec<u8> {
    let bytes = |hash: &[u8]| Value::Bytes(hash.to_vec());
    let list = entries.iter().map(|(name, entry)| {
        let name = Value::Text((*name).to_owned());
        Value::Array(match entry {
            Entry::File(File { blob, lfs }) => vec![
                name,
                bytes(&blob.sha256),
                bytes(&blob.blake3),
                bytes(&blob.git),
                Value::Uint(blob.size),
                Value::Bool(*lfs),
            ],
            Entry::Directory(directory) => vec![name, bytes(&directory.id), bytes(&directory.git)],
        })
    });
    Value::Array(list.collect()).to_vec()
}

/// Reads a directory object and checks it against its id.
///
/// # Errors
/// [`TreeError::Damaged`].
pub fn decode(id: &Hash, body: &[u8]) -> Result<BTreeMap<String, Entry>, TreeError> {
    let damaged = |problem: String| TreeError::Damaged {
        id: hex::encode(id),
        problem,
    };
    if <Hash>::from(Sha256::digest(body)) != *id {
        return Err(damaged("its bytes do not have this hash".into()));
    }
    let limits = Limits {
        bytes: body.len(),
        depth: 4,
        items: 8 * ENTRIES_LIMIT,
        tags: false,
    };
    let value = cbor::decode_strict(body, limits).map_err(|e: CborError| damaged(e.to_string()))?;
    let Value::Array(list) = value else {
        return Err(damaged("not a list".into()));
    };
    list.into_iter()
        .map(|entry| read_entry(entry).ok_or_else(|| damaged("an entry has another shape".into())))
        .collect()
}

fn read_entry(value: Value) -> Option<(String, Entry)> {
    fn hash<const N: usize>(value: &Value) -> Option<[u8; N]> {
        match value {
            Value::Bytes(bytes) => bytes.as_slice().try_into().ok(),
            _ => None,
        }
    }
    let Value::Array(fields) = value else { return None };
    match fields.as_slice() {
        [
            Value::Text(name),
            sha256,
            blake3,
            git,
            Value::Uint(size),
            Value::Bool(lfs),
        ] => {
            let blob = Blob {
                sha256: hash(sha256)?,
                blake3: hash(blake3)?,
                git: hash(git)?,
                size: *size,
            };
            Some((name.clone(), Entry::File(File { blob, lfs: *lfs })))
        }
        [Value::Text(name), id, git] => {
            let directory = Directory {
                id: hash(id)?,
                git: hash(git)?,
            };
            Some((name.clone(), Entry::Directory(directory)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(n: u8) -> File {
        let blob = Blob {
            sha256: [n; 32],
            blake3: [n; 32],
            git: [n; 20],
            size: u64::from(n),
        };
        File {
            blob,
            lfs: n.is_multiple_of(2),
        }
    }

    fn load(objects: &Objects, id: &Hash, prefix: &str, into: &mut Files) {
        for (name, entry) in decode(id, &objects.bodies[id]).unwrap() {
            match entry {
                Entry::File(file) => {
                    into.insert(format!("{prefix}{name}"), file);
                }
                Entry::Directory(directory) => load(objects, &directory.id, &format!("{prefix}{name}/"), into),
            }
        }
    }

    #[test]
    fn what_is_built_is_read_back() {
        let paths = ["a", "b/x", "b-c", "b/y/z", "b.d", "z/1", "b/y/a"];
        let files: Files = paths
            .iter()
            .zip(1u8..)
            .map(|(p, n)| ((*p).to_owned(), file(n)))
            .collect();
        let objects = build(&files).unwrap();
        let mut back = Files::new();
        load(&objects, &objects.root.id, "", &mut back);
        assert_eq!(back, files);
        // An edit changes the objects on its way to the root and no others.
        let mut edited = files.clone();
        edited.insert("z/1".into(), file(99));
        let after = build(&edited).unwrap();
        let new = after
            .bodies
            .keys()
            .filter(|id| !objects.bodies.contains_key(*id))
            .count();
        assert_eq!(new, 2);
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let files = Files::from([("a".to_owned(), file(1))]);
        let objects = build(&files).unwrap();
        let mut body = objects.bodies[&objects.root.id].clone();
        *body.last_mut().unwrap() ^= 1;
        assert!(matches!(
            decode(&objects.root.id, &body),
            Err(TreeError::Damaged { .. })
        ));
    }

    #[test]
    fn paths_that_cannot_coexist_are_refused() {
        for (a, b) in [("a", "a/b"), ("A", "a"), ("x/A", "x/a"), ("X/1", "x/2"), ("A", "a/b")] {
            let files = Files::from([(a.to_owned(), file(1)), (b.to_owned(), file(2))]);
            assert!(build(&files).is_err(), "{a} {b}");
        }
    }
}
