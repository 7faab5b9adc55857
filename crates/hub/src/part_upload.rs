//! A file that arrives in parts, in any order, and is hashed while it does.

use crate::{
    blobs::{BlobError, Incoming},
    hasher::FrontHasher,
    tree::Blob,
};
use opg_model_store::WriteBehind;
use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// An upload that is under way.
#[derive(Debug)]
pub(crate) struct PartUpload {
    size: u64,
    /// Bytes of every part but the last.
    each: u64,
    /// Read while a part is written; written, and emptied, at completion.
    file: Arc<RwLock<Option<Incoming>>>,
    hasher: FrontHasher,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Parts that are here, with their tags.
    done: BTreeMap<u64, String>,
    touched: Instant,
}

impl PartUpload {
    /// A new upload of `size` bytes in parts of `each`.
    pub(crate) fn new(incoming: Incoming, size: u64, each: u64) -> Result<Self, BlobError> {
        let hasher = FrontHasher::new(&incoming, size)?;
        Ok(Self {
            size,
            each,
            file: Arc::new(RwLock::new(Some(incoming))),
            hasher,
            state: Mutex::new(State {
                done: BTreeMap::new(),
                touched: Instant::now(),
            }),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many parts there are.
    pub(crate) fn parts(&self) -> u64 {
        self.size.div_ceil(self.each)
    }

    /// First byte and bytes of a part, if the upload has it.
    pub(crate) fn place(size: u64, each: u64, part: u64) -> Option<(u64, u64)> {
        let start = part.checked_sub(1)?.checked_mul(each).filter(|start| *start < size)?;
        Some((start, each.min(size - start)))
    }

    /// Somebody asked for it.
    pub(crate) fn touch(&self) {
        self.state().touched = Instant::now();
    }

    /// How long nobody asked for it.
    pub(crate) fn idle(&self) -> Duration {
        self.state().touched.elapsed()
    }

    /// Parts that are here, with their tags.
    pub(crate) fn done(&self) -> BTreeMap<u64, String> {
        self.state().done.clone()
    }

    /// The right to write a part; `None` if the upload is complete.
    pub(crate) async fn write(self: Arc<Self>, part: u64) -> Result<Option<Writing>, BlobError> {
        let file = Arc::clone(&self.file).read_owned().await;
        let Some(incoming) = file.as_ref() else { return Ok(None) };
        let (target, behind) = (incoming.clone_file()?, incoming.behind());
        // First the tag: no longer here, then changed.
        self.state().done.remove(&part);
        self.written(part);
        Ok(Some(Writing {
            upload: self,
            part,
            target,
            behind,
            _file: file,
        }))
    }

    /// The right to complete the upload, which keeps parts from being written; `None` while one is.
    pub(crate) fn completion(&self) -> Option<OwnedRwLockWriteGuard<Option<Incoming>>> {
        Arc::clone(&self.file).try_write_owned().ok()
    }

    /// Bytes of a part may have changed.
    fn written(&self, part: u64) {
        if let Some((start, _)) = Self::place(self.size, self.each, part) {
            self.hasher.rewritten(start);
        }
    }

    /// A part is here.
    fn arrived(&self, part: u64, tag: String) {
        let mut state = self.state();
        state.done.insert(part, tag);
        state.touched = Instant::now();
        let front = (1..).zip(state.done.keys()).take_while(|(n, part)| n == *part).count() as u64;
        // Before the lock is released: a part that is written again takes its tag away after this.
        self.hasher.grown(front.saturating_mul(self.each).min(self.size));
    }

    /// The hashes of the whole. Blocks. To be called once, when no part is written any more.
    pub(crate) fn hash(&self) -> Result<Blob, BlobError> {
        self.hasher.finish()
    }
}

/// The right to write one part. It can outlive the request that took it.
#[derive(Debug)]
pub(crate) struct Writing {
    upload: Arc<PartUpload>,
    part: u64,
    target: File,
    behind: Option<Arc<WriteBehind>>,
    _file: OwnedRwLockReadGuard<Option<Incoming>>,
}

impl Writing {
    /// Writes bytes at a place of the file.
    pub(crate) fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        self.target.write_all_at(bytes, at)?;
        if let Some(behind) = &self.behind {
            behind.wrote(bytes.len() as u64);
        }
        Ok(())
    }

    /// All bytes of the part are written.
    pub(crate) fn finish(self, tag: String) {
        let (upload, part) = (Arc::clone(&self.upload), self.part);
        drop(self);
        upload.arrived(part, tag);
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        // The same part may have come a second time meanwhile, and been hashed.
        self.upload.written(self.part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::{BlobStore, describe};
    use std::sync::atomic::{AtomicU64, Ordering};

    /// SplitMix64.
    fn random(state: &AtomicU64) -> u64 {
        let mut z = state.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    async fn put(upload: &Arc<PartUpload>, part: u64, byte: u8, whole: bool) {
        let writing = Arc::clone(upload).write(part).await.unwrap().unwrap();
        let (start, size) = PartUpload::place(upload.size, upload.each, part).unwrap();
        let upload = tokio::task::spawn_blocking(move || {
            let half = usize::try_from(size / 2).unwrap();
            writing.write_at(&vec![byte; half], start).unwrap();
            std::thread::yield_now();
            if whole {
                let rest = vec![byte; usize::try_from(size).unwrap() - half];
                writing.write_at(&rest, start + half as u64).unwrap();
                writing.finish(format!("{part}-{byte}"));
            }
        });
        upload.await.unwrap();
    }

    async fn check(upload: Arc<PartUpload>) {
        let mut completion = upload.completion().unwrap();
        let mut incoming = completion.take().unwrap();
        let hashed = tokio::task::spawn_blocking(move || upload.hash()).await.unwrap();
        let mut content = Vec::new();
        io::Seek::rewind(incoming.file()).unwrap();
        io::Read::read_to_end(incoming.file(), &mut content).unwrap();
        assert_eq!(hashed.unwrap(), describe(&content));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn the_hash_is_that_of_the_file_whatever_order_parts_come_in_and_come_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        let seed = AtomicU64::new(7);
        for round in 0..200u64 {
            let (each, parts) = (1 + random(&seed) % 300_000, 1 + random(&seed) % 9);
            let size = each * parts - random(&seed) % each;
            let upload = Arc::new(PartUpload::new(store.incoming().unwrap(), size, each).unwrap());
            assert_eq!(upload.parts(), parts);
            let mut order: Vec<u64> = (1..=parts).collect();
            // Every second round some parts come again, and some of these only by half.
            let again = if round % 2 == 0 { 0 } else { random(&seed) % 4 };
            order.extend((0..again).map(|_| 1 + random(&seed) % parts));
            for i in (1..order.len()).rev() {
                order.swap(i, usize::try_from(random(&seed) % (i as u64 + 1)).unwrap());
            }
            let puts = order.iter().map(|part| {
                let (upload, byte, whole) = (&upload, random(&seed) as u8, !random(&seed).is_multiple_of(8));
                put(upload, *part, byte, whole || round % 2 == 0)
            });
            futures::future::join_all(puts).await;
            // What is missing is sent at last.
            for part in 1..=parts {
                if !upload.done().contains_key(&part) {
                    put(&upload, part, 1, true).await;
                }
            }
            check(upload).await;
        }
    }

    #[tokio::test]
    async fn no_part_is_written_after_completion_began() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        let upload = Arc::new(PartUpload::new(store.incoming().unwrap(), 10, 4).unwrap());
        let writing = Arc::clone(&upload).write(3).await.unwrap().unwrap();
        assert!(upload.completion().is_none());
        drop(writing);
        drop(upload.completion().unwrap().take());
        assert!(Arc::clone(&upload).write(3).await.unwrap().is_none());
        assert_eq!(PartUpload::place(10, 4, 3), Some((8, 2)));
        for part in [0, 4, u64::MAX] {
            assert_eq!(PartUpload::place(10, 4, part), None);
        }
    }
}
