//! The hashes of a file, in one pass.

use crate::manifest::{FileEntry, ManifestVersion};
use opg_primitives::{B256, FixedBytes};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

/// SHA-1 that git gives to a file: over `blob SIZE\0` and the content.
pub type GitId = FixedBytes<20>;

/// Hashes a file that is fed in pieces of any size.
///
/// ```
/// use opg_models::{FileHasher, ManifestVersion};
/// let mut hasher = FileHasher::new(ManifestVersion::V2, 3);
/// hasher.update(b"ab").update(b"c");
/// let file = hasher.finish("weights.bin");
/// assert_eq!(file.size, 3);
/// assert_eq!(file.sha256.to_string(), "0xba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
/// assert!(file.blake3.is_some_and(|hash| hash.to_string().starts_with("0x6437b3ac38465133ffb63b75273a8db5")));
/// assert!(file.git_sha1.is_some_and(|hash| hash.to_string() == "0xf2ba8f84ab5c1bce84a7b441cb1959cfc7093b7f"));
/// ```
#[derive(Debug, Clone)]
pub struct FileHasher {
    sha256: Sha256,
    ranges: Option<(blake3::Hasher, Sha1)>,
    size: u64,
}

impl FileHasher {
    /// A hasher that saw nothing yet, of what a version commits to. `size` is what the file is said to have: git hashes it
    /// first. If it is wrong, so are the size and git's id that come out, and nothing equals them.
    #[must_use]
    pub fn new(version: ManifestVersion, size: u64) -> Self {
        Self::with(version != ManifestVersion::V1, size)
    }

    /// A hasher whose result can be compared with an entry.
    #[must_use]
    pub fn like(entry: &FileEntry) -> Self {
        Self::with(entry.blake3.is_some() || entry.git_sha1.is_some(), entry.size)
    }

    fn with(ranges: bool, size: u64) -> Self {
        Self {
            sha256: Sha256::new(),
            ranges: ranges.then(|| {
                let git = Sha1::new().chain_update(format!("blob {size}\0"));
                (blake3::Hasher::new(), git)
            }),
            size: 0,
        }
    }

    /// Adds the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) -> &mut Self {
        self.sha256.update(bytes);
        if let Some((blake3, git)) = &mut self.ranges {
            blake3.update(bytes);
            git.update(bytes);
        }
        self.size = self.size.saturating_add(bytes.len() as u64);
        self
    }

    /// The entry of the file under a path.
    #[must_use]
    pub fn finish(self, path: &str) -> FileEntry {
        let (blake3, git) = self.ranges.unzip();
        FileEntry {
            path: path.to_owned(),
            size: self.size,
            sha256: B256::new(self.sha256.finalize().into()),
            blake3: blake3.map(|hash| B256::new(hash.finalize().into())),
            git_sha1: git.map(|hash| GitId::new(hash.finalize().into())),
        }
    }
}
