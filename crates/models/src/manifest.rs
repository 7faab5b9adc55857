//! The manifest of a model and its content root.

use crate::hasher::{FileHasher, GitId};
use opg_primitives::{
    B256,
    cbor::{self, CborError, Limits, Value},
    domain::Tag,
    hash,
    ids::ModelRoot,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, fmt, str::FromStr};

/// Most bytes of an encoded manifest.
pub const MANIFEST_LIMIT: usize = 1 << 20;
/// Most files of a model.
const FILES_LIMIT: usize = 4_096;
/// Longest path, in bytes.
const PATH_LIMIT: usize = 255;
/// Deepest path, in components.
const DEPTH_LIMIT: usize = 8;

/// How the bytes of a model are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Format {
    /// One ONNX `ModelProto`.
    Onnx,
    /// GGUF (llama.cpp).
    Gguf,
}

impl Format {
    /// Number in the canonical encoding.
    #[must_use]
    pub const fn code(self) -> u64 {
        match self {
            Self::Onnx => 1,
            Self::Gguf => 2,
        }
    }

    /// The format of a code, if known.
    #[must_use]
    pub const fn from_code(code: u64) -> Option<Self> {
        match code {
            1 => Some(Self::Onnx),
            2 => Some(Self::Gguf),
            _ => None,
        }
    }

    /// Lower-case name, as in JSON and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Onnx => "onnx",
            Self::Gguf => "gguf",
        }
    }

    /// Path of the only file of a single-file model. It is part of the root, so it does not depend on what a local
    /// copy happens to be called.
    #[must_use]
    pub const fn canonical_path(self) -> &'static str {
        match self {
            Self::Onnx => "model.onnx",
            Self::Gguf => "model.gguf",
        }
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Format {
    type Err = ManifestError;

    fn from_str(text: &str) -> Result<Self, ManifestError> {
        match text {
            "onnx" => Ok(Self::Onnx),
            "gguf" => Ok(Self::Gguf),
            _ => Err(ManifestError::Format {
                got: text.chars().take(40).collect(),
            }),
        }
    }
}

/// Why a manifest was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ManifestError {
    /// Not deterministic CBOR.
    #[error("manifest: {0}")]
    Cbor(#[from] CborError),
    /// A field is missing, of another type or not known.
    #[error("manifest.{field}: expected {expected}")]
    Field {
        /// Path of the field.
        field: &'static str,
        /// What belongs there.
        expected: &'static str,
    },
    /// An unknown format.
    #[error("manifest.format: expected onnx or gguf, got {got:?}")]
    Format {
        /// What was found.
        got: String,
    },
    /// A path that could leave the model's directory or mean two things.
    #[error("manifest.files: path {path:?} is not accepted: {reason}")]
    Path {
        /// The path, cut to a bounded length.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// No file, or too many.
    #[error("manifest.files: expected 1 to {limit} files, got {got}")]
    Files {
        /// Most files.
        limit: usize,
        /// Files found.
        got: usize,
    },
    /// The entry file is not among the files.
    #[error("manifest.entry: {entry:?} is not one of the files")]
    Entry {
        /// The entry's path.
        entry: String,
    },
    /// A file lacks a hash that the manifest's version commits to, or has one that it does not.
    #[error("manifest.files: {path:?} must have {expected} in version {version}")]
    Hashes {
        /// The file's path, cut to a bounded length.
        path: String,
        /// The manifest's version.
        version: u64,
        /// What belongs there.
        expected: &'static str,
    },
    /// Sizes add up to more than 2^64 bytes.
    #[error("manifest.files: the sizes overflow 64 bits")]
    Size,
}

/// What a manifest's root commits to. Both versions live side by side: a root on chain stays what it is for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
#[non_exhaustive]
pub enum ManifestVersion {
    /// Path, size and SHA-256 of each file: a wrong byte shows at the end of a file.
    #[default]
    V1,
    /// Also BLAKE3, by which every 16 KiB of a file can be checked alone while they arrive, and git's SHA-1, the name of
    /// the file in repositories.
    V2,
}

impl ManifestVersion {
    /// What new models are named with.
    pub const NEWEST: Self = Self::V2;

    /// Number in the canonical encoding and in JSON.
    #[must_use]
    pub const fn code(self) -> u64 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }

    /// Domain of the root.
    const fn tag(self) -> Tag {
        match self {
            Self::V1 => Tag::Model,
            Self::V2 => Tag::ModelV2,
        }
    }
}

impl TryFrom<u64> for ManifestVersion {
    type Error = ManifestError;

    fn try_from(code: u64) -> Result<Self, ManifestError> {
        match code {
            1 => Ok(Self::V1),
            2 => Ok(Self::V2),
            _ => Err(ManifestError::Field {
                field: "version",
                expected: "1 or 2",
            }),
        }
    }
}

impl From<ManifestVersion> for u64 {
    fn from(version: ManifestVersion) -> Self {
        version.code()
    }
}

/// One file of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileEntry {
    /// Relative path, `/` between components.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// SHA-256 of the content.
    pub sha256: B256,
    /// BLAKE3 of the content; from version 2 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blake3: Option<B256>,
    /// SHA-1 that git gives to the content as a blob; from version 2 on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git_sha1: Option<GitId>,
}

impl FileEntry {
    /// The same file as an older version describes it.
    #[must_use]
    pub fn without_ranges(&self) -> Self {
        Self {
            blake3: None,
            git_sha1: None,
            ..self.clone()
        }
    }
}

/// The files that make up a model. Files are sorted by path.
///
/// Canonical form: `{1: version, 2: format, 3: [file, …], 4: entry path}`, a file being `{1: path, 2: size, 3: sha256}` in
/// version 1 and `{1: path, 2: size, 3: sha256, 4: blake3, 5: git_sha1}` in version 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// What the root commits to. JSON without it is of version 1.
    #[serde(default)]
    pub version: ManifestVersion,
    /// How the entry file is read.
    pub format: Format,
    /// Path of the file that a runtime opens.
    pub entry: String,
    /// All files, sorted by path.
    pub files: Vec<FileEntry>,
}

impl Manifest {
    /// The manifest of a model that is one file, from the file's bytes.
    #[must_use]
    pub fn single(version: ManifestVersion, format: Format, bytes: &[u8]) -> Self {
        let mut hasher = FileHasher::new(version, bytes.len() as u64);
        hasher.update(bytes);
        Self::single_hashed(version, format, hasher)
    }

    /// The manifest of a model that is one file, from a hasher of the same version that saw all of the file.
    #[must_use]
    pub fn single_hashed(version: ManifestVersion, format: Format, hasher: FileHasher) -> Self {
        let entry = format.canonical_path().to_owned();
        Self {
            version,
            format,
            files: vec![hasher.finish(&entry)],
            entry,
        }
    }

    /// This manifest, and those of the same files in older versions: the newest first. Each has a root of its own, and any
    /// of them may be the one that is registered.
    pub fn versions(&self) -> impl Iterator<Item = Self> {
        let older = (self.version > ManifestVersion::V1).then(|| Self {
            version: ManifestVersion::V1,
            files: self.files.iter().map(FileEntry::without_ranges).collect(),
            ..self.clone()
        });
        std::iter::once(self.clone()).chain(older)
    }

    /// The version of this manifest that has a root, if one does.
    #[must_use]
    pub fn with_root(&self, root: ModelRoot) -> Option<Self> {
        self.versions()
            .find(|manifest| manifest.root().is_ok_and(|got| got == root))
    }

    /// A manifest of several files, sorted and checked.
    ///
    /// # Errors
    /// [`ManifestError`] for paths that are unsafe or ambiguous, no file, or an entry that is not a file.
    pub fn new(
        version: ManifestVersion,
        format: Format,
        entry: &str,
        mut files: Vec<FileEntry>,
    ) -> Result<Self, ManifestError> {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let manifest = Self {
            version,
            format,
            entry: entry.to_owned(),
            files,
        };
        manifest.check()?;
        Ok(manifest)
    }

    /// Checks every rule of a manifest: number of files, paths, order, hashes, entry, total size.
    ///
    /// # Errors
    /// The first rule broken.
    pub fn check(&self) -> Result<(), ManifestError> {
        if self.files.is_empty() || self.files.len() > FILES_LIMIT {
            return Err(ManifestError::Files {
                limit: FILES_LIMIT,
                got: self.files.len(),
            });
        }
        let refuse = |path: &str, reason| ManifestError::Path {
            path: path.chars().take(80).collect(),
            reason,
        };
        // Compared without case: two paths that differ in case only are one file on some file systems.
        let mut seen = BTreeSet::new();
        let mut folders = BTreeSet::new();
        let mut total = 0u64;
        let mut previous: Option<&str> = None;
        for file in &self.files {
            let path = file.path.as_str();
            check_path(path).map_err(|reason| refuse(path, reason))?;
            if previous.is_some_and(|previous| previous >= path) {
                return Err(refuse(path, "paths must be sorted and unique"));
            }
            let folded = path.to_ascii_lowercase();
            for (at, _) in folded.match_indices('/') {
                folders.insert(folded.get(..at).unwrap_or_default().to_owned());
            }
            if !seen.insert(folded) {
                return Err(refuse(path, "differs from another path in case only"));
            }
            let ranges = (file.blake3.is_some(), file.git_sha1.is_some());
            let expected = match self.version {
                ManifestVersion::V1 => ((false, false), "SHA-256 alone"),
                ManifestVersion::V2 => ((true, true), "SHA-256, BLAKE3 and git's SHA-1"),
            };
            if ranges != expected.0 {
                return Err(ManifestError::Hashes {
                    path: path.chars().take(80).collect(),
                    version: self.version.code(),
                    expected: expected.1,
                });
            }
            total = total.checked_add(file.size).ok_or(ManifestError::Size)?;
            previous = Some(path);
        }
        if let Some(path) = seen.intersection(&folders).next() {
            return Err(refuse(path, "is a file and a folder"));
        }
        if !self.files.iter().any(|file| file.path == self.entry) {
            return Err(ManifestError::Entry {
                entry: self.entry.chars().take(80).collect(),
            });
        }
        Ok(())
    }

    /// Size of all files in bytes. A checked manifest does not overflow.
    #[must_use]
    pub fn total_size(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.size))
    }

    /// The file that a runtime opens.
    #[must_use]
    pub fn entry_file(&self) -> Option<&FileEntry> {
        self.files.iter().find(|file| file.path == self.entry)
    }

    /// Canonical CBOR.
    ///
    /// # Errors
    /// [`ManifestError`] if the manifest breaks a rule of [`Manifest::check`].
    pub fn encode(&self) -> Result<Vec<u8>, ManifestError> {
        self.check()?;
        let files = self.files.iter().map(|file| {
            let blake3 = file.blake3.map(|hash| (4, Value::Bytes(hash.to_vec())));
            let git_sha1 = file.git_sha1.map(|hash| (5, Value::Bytes(hash.to_vec())));
            let always = [
                (1, Value::Text(file.path.clone())),
                (2, Value::Uint(file.size)),
                (3, Value::Bytes(file.sha256.to_vec())),
            ];
            Value::int_map(always.into_iter().chain(blake3).chain(git_sha1).collect())
        });
        let bytes = Value::int_map(vec![
            (1, Value::Uint(self.version.code())),
            (2, Value::Uint(self.format.code())),
            (3, Value::Array(files.collect())),
            (4, Value::Text(self.entry.clone())),
        ])
        .to_vec();
        if bytes.len() > MANIFEST_LIMIT {
            return Err(CborError::TooLong {
                limit: MANIFEST_LIMIT,
                got: bytes.len(),
            }
            .into());
        }
        Ok(bytes)
    }

    /// Reads canonical CBOR and checks every rule.
    ///
    /// # Errors
    /// [`ManifestError`]; nothing but the canonical encoding of a valid manifest is accepted.
    pub fn decode(bytes: &[u8]) -> Result<Self, ManifestError> {
        let limits = Limits {
            bytes: MANIFEST_LIMIT,
            depth: 4,
            items: 16 + 11 * FILES_LIMIT,
            tags: false,
        };
        let [version, format, files, entry] = fields(cbor::decode_strict(bytes, limits)?, "manifest")?;
        let Value::Uint(version) = version else {
            return Err(ManifestError::Field {
                field: "version",
                expected: "an unsigned integer",
            });
        };
        let version = ManifestVersion::try_from(version)?;
        let Value::Uint(code) = format else {
            return Err(ManifestError::Field {
                field: "format",
                expected: "an unsigned integer",
            });
        };
        let format = Format::from_code(code).ok_or_else(|| ManifestError::Format { got: code.to_string() })?;
        let (Value::Array(files), Value::Text(entry)) = (files, entry) else {
            return Err(ManifestError::Field {
                field: "files",
                expected: "a list of files and the entry's path",
            });
        };
        let files = files
            .into_iter()
            .map(|file| match version {
                ManifestVersion::V1 => {
                    let [path, size, sha256] = fields(file, "files[]")?;
                    file_entry(path, size, &sha256, None)
                }
                ManifestVersion::V2 => {
                    let [path, size, sha256, blake3, git_sha1] = fields(file, "files[]")?;
                    file_entry(path, size, &sha256, Some((&blake3, &git_sha1)))
                }
            })
            .collect::<Result<Vec<_>, ManifestError>>()?;
        let manifest = Self {
            version,
            format,
            entry,
            files,
        };
        manifest.check()?;
        Ok(manifest)
    }

    /// The content root: `tagged("opg/model/v1", canonical CBOR)`, in version 2 with `opg/model/v2`.
    ///
    /// # Errors
    /// [`ManifestError`] if the manifest breaks a rule.
    pub fn root(&self) -> Result<ModelRoot, ManifestError> {
        Ok(ModelRoot(hash::tagged(self.version.tag(), &[&self.encode()?])))
    }
}

/// Takes a map with exactly the keys 1 to `N` apart.
fn fields<const N: usize>(value: Value, field: &'static str) -> Result<[Value; N], ManifestError> {
    let wrong = ManifestError::Field {
        field,
        expected: "a map with exactly the keys of its version",
    };
    let Value::Map(pairs) = value else { return Err(wrong) };
    let numbered = pairs.iter().zip(1u64..).all(|((key, _), n)| *key == Value::Uint(n));
    let values: Vec<Value> = pairs.into_iter().map(|(_, value)| value).collect();
    match <[Value; N]>::try_from(values) {
        Ok(values) if numbered => Ok(values),
        _ => Err(wrong),
    }
}

/// A file of a decoded manifest.
fn file_entry(
    path: Value,
    size: Value,
    sha256: &Value,
    ranges: Option<(&Value, &Value)>,
) -> Result<FileEntry, ManifestError> {
    let (Value::Text(path), Value::Uint(size)) = (path, size) else {
        return Err(ManifestError::Field {
            field: "files[]",
            expected: "a path and a size",
        });
    };
    let (blake3, git_sha1) = match ranges {
        None => (None, None),
        Some((blake3, git)) => (
            Some(digest(blake3, "files[].blake3", "32 bytes")?.into()),
            Some(digest(git, "files[].git_sha1", "20 bytes")?.into()),
        ),
    };
    Ok(FileEntry {
        path,
        size,
        sha256: digest(sha256, "files[].sha256", "32 bytes")?.into(),
        blake3,
        git_sha1,
    })
}

fn digest<const N: usize>(
    value: &Value,
    field: &'static str,
    expected: &'static str,
) -> Result<[u8; N], ManifestError> {
    let Value::Bytes(bytes) = value else {
        return Err(ManifestError::Field { field, expected });
    };
    <[u8; N]>::try_from(bytes.as_slice()).map_err(|_| ManifestError::Field { field, expected })
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.is_empty() || path.len() > PATH_LIMIT {
        return Err("must have 1 to 255 bytes");
    }
    if path.split('/').count() > DEPTH_LIMIT {
        return Err("has more than 8 components");
    }
    for component in path.split('/') {
        if component.is_empty() {
            return Err("has an empty component or is absolute");
        }
        // Also refuses `.`, `..` and hidden files.
        if component.starts_with('.') {
            return Err("has a component that starts with a dot");
        }
        if !component
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte))
        {
            return Err("may only have ASCII letters, digits and ._+-");
        }
    }
    Ok(())
}
