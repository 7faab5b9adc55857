//! The three hashes of a blob.

use crate::{
    blobs::{BlobError, Incoming},
    git,
    tree::Blob,
};
use opg_model_store::PrefixHasher;
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use std::{io, sync::Arc};

/// BLAKE3 and git's id of content that comes in pieces. Together they take about as long as SHA-256, so that two threads can
/// share the work.
#[derive(Clone)]
pub(crate) struct Others {
    blake3: blake3::Hasher,
    git: Sha1,
}

impl Others {
    /// For content of an announced size: git's id needs it first.
    fn new(size: u64) -> Self {
        Self {
            blake3: blake3::Hasher::new(),
            git: git::header("blob", size),
        }
    }

    /// Adds the next bytes.
    fn update(&mut self, bytes: &[u8]) {
        self.blake3.update(bytes);
        self.git.update(bytes);
    }

    /// The blob of these hashes. It is wrong if not all of `size` bytes came.
    fn finish(self, sha256: Sha256, size: u64) -> Blob {
        Blob {
            sha256: sha256.finalize().into(),
            blake3: self.blake3.finalize().into(),
            git: self.git.finalize().into(),
            size,
        }
    }
}

/// The three hashes of content that comes in pieces.
#[derive(Clone)]
pub struct Hasher {
    sha256: Sha256,
    others: Others,
    announced: u64,
    size: u64,
}

impl std::fmt::Debug for Hasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hasher")
            .field("size", &self.size)
            .finish_non_exhaustive()
    }
}

impl Hasher {
    /// A hasher for content of an announced size (git's id needs it first).
    #[must_use]
    pub fn new(size: u64) -> Self {
        Self {
            sha256: Sha256::new(),
            others: Others::new(size),
            announced: size,
            size: 0,
        }
    }

    fn wrong_size(&self) -> BlobError {
        BlobError::Size {
            expected: self.announced,
            got: self.size,
        }
    }

    /// Adds the next bytes.
    ///
    /// # Errors
    /// [`BlobError::Size`] as soon as there are more than announced.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        self.size = self.size.saturating_add(bytes.len() as u64);
        if self.size > self.announced {
            return Err(self.wrong_size());
        }
        self.sha256.update(bytes);
        self.others.update(bytes);
        Ok(())
    }

    /// The hashes.
    ///
    /// # Errors
    /// [`BlobError::Size`] if bytes are missing.
    pub fn finish(self) -> Result<Blob, BlobError> {
        if self.size != self.announced {
            return Err(self.wrong_size());
        }
        Ok(self.others.finish(self.sha256, self.size))
    }
}

/// Hashes a file from its front while it arrives, in two threads. They read it back: it is in memory still, and that costs no more
/// than handing the same bytes to three threads.
#[derive(Debug)]
pub(crate) struct FrontHasher {
    size: u64,
    sha256: Arc<PrefixHasher<Sha256>>,
    others: Arc<PrefixHasher<Others>>,
}

impl FrontHasher {
    /// For a file of `size` bytes, of which none are there yet.
    pub(crate) fn new(file: &Incoming, size: u64) -> Result<Self, BlobError> {
        let update: fn(&mut Sha256, &[u8]) = |hasher, bytes| hasher.update(bytes);
        Ok(Self {
            size,
            sha256: PrefixHasher::new(file.clone_file()?, Sha256::new(), update),
            others: PrefixHasher::new(file.clone_file()?, Others::new(size), Others::update),
        })
    }

    /// All bytes before `there` are in the file. Does not block.
    pub(crate) fn grown(&self, there: u64) {
        self.sha256.grown(there);
        self.others.grown(there);
    }

    /// Bytes from `at` on may have changed, or are about to.
    pub(crate) fn rewritten(&self, at: u64) {
        self.sha256.rewritten(at);
        self.others.rewritten(at);
    }

    /// The hashes of the whole. Blocks. To be called once, when nothing is written any more.
    ///
    /// # Errors
    /// Those of reading, also that of a file that is shorter.
    pub(crate) fn finish(&self) -> Result<Blob, BlobError> {
        let failed = |source: io::Error| BlobError::Io {
            path: "an upload".into(),
            source,
        };
        let sha256 = self.sha256.finish(self.size).map_err(failed)?;
        let others = self.others.finish(self.size).map_err(failed)?;
        Ok(others.finish(sha256, self.size))
    }
}

/// The hashes of bytes at hand.
#[must_use]
pub fn describe(bytes: &[u8]) -> Blob {
    Blob {
        sha256: Sha256::digest(bytes).into(),
        blake3: *blake3::hash(bytes).as_bytes(),
        git: git::object("blob", bytes),
        size: bytes.len() as u64,
    }
}
