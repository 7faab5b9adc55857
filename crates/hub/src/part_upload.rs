//! A file that arrives in parts, in any order, and is hashed while it does.

use crate::{
    blobs::{BlobError, Incoming},
    hasher::{self, Hasher},
    tree::Blob,
};
use blake3::hazmat::ChainingValue;
use bytes::Bytes;
use opg_model_store::{Pool, PrefixHasher, WriteBehind};
use opg_models::ShaHasher;
use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs::File,
    io::{self, Seek as _},
    ops::Range,
    os::unix::fs::FileExt as _,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

/// Bytes of all uploads together that may be in memory until they are hashed. Above this, the page cache has them.
const KEPT: usize = 96 << 20;
/// Bytes of whole parts, all before them there, by which hashing may be late before who sends waits.
const LATE: u64 = 48 << 20;

/// An upload that is under way.
#[derive(Debug)]
pub(crate) struct PartUpload {
    size: u64,
    /// Bytes of every part but the last.
    each: u64,
    /// Read while a part is written; written, and emptied, at completion.
    file: Arc<RwLock<Option<Incoming>>>,
    hasher: Arc<PrefixHasher<ShaHasher>>,
    /// What pieces are made of.
    pool: Arc<Pool>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Parts that are here, with their chaining values in the tree of the whole's BLAKE3, which are their tags.
    done: BTreeMap<u64, ChainingValue>,
    /// Parts that are being written.
    writers: BTreeMap<u64, Writers>,
    /// A part was written by two at the same time: what is in the file may be of both, and no tag is of that.
    mixed: bool,
    touched: Instant,
}

/// Those who write one part at the same time.
#[derive(Debug, Default)]
struct Writers {
    now: u32,
    /// Since none was there.
    all: u32,
}

impl PartUpload {
    /// A new upload of `size` bytes in parts of `each`, a power of two of at least 1,024. It will come in pieces of a pool.
    pub(crate) fn new(incoming: Incoming, size: u64, each: u64, pool: &Arc<Pool>) -> Result<Self, BlobError> {
        let hasher = PrefixHasher::new(incoming.clone_file()?, ShaHasher::new(size), |hasher, bytes| {
            hasher.update(bytes);
        });
        Ok(Self {
            size,
            each,
            file: Arc::new(RwLock::new(Some(incoming))),
            hasher,
            pool: Arc::clone(pool),
            state: Mutex::new(State {
                done: BTreeMap::new(),
                writers: BTreeMap::new(),
                mixed: false,
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

    /// First byte and bytes of a part, if an upload of a size, in parts of `each`, has it.
    pub(crate) fn place(size: u64, each: u64, part: u64) -> Option<(u64, u64)> {
        let start = part.checked_sub(1)?.checked_mul(each).filter(|start| *start < size)?;
        Some((start, each.min(size - start)))
    }

    /// Where a part is in the file.
    fn range(&self, part: u64) -> Range<u64> {
        let (start, length) = Self::place(self.size, self.each, part).unwrap_or_default();
        start..start + length
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
        let state = self.state();
        state.done.iter().map(|(part, tag)| (*part, hex::encode(tag))).collect()
    }

    /// Leaves its memory to others.
    pub(crate) fn free(&self) {
        self.hasher.forget();
    }

    /// The right to write a part; `None` if the upload is complete.
    pub(crate) async fn write(self: Arc<Self>, part: u64) -> Result<Option<Writing>, BlobError> {
        let file = Arc::clone(&self.file).read_owned().await;
        let Some(incoming) = file.as_ref() else { return Ok(None) };
        let (target, behind) = (incoming.clone_file()?, incoming.behind());
        let range = self.range(part);
        let blake3 = hasher::part_hasher(range.start, range.end - range.start);
        let blake3 = blake3.ok_or_else(|| BlobError::upload(io::ErrorKind::InvalidInput.into()))?;
        let mut state = self.state();
        // First the tag: no longer here, then changed.
        state.done.remove(&part);
        let writers = state.writers.entry(part).or_default();
        (writers.now, writers.all) = (writers.now + 1, writers.all + 1);
        self.hasher.rewritten(range.clone());
        drop(state);
        Ok(Some(Writing {
            upload: self,
            part,
            blake3,
            length: 0,
            range,
            target,
            behind,
            kept: Vec::new(),
            ended: false,
            _file: file,
        }))
    }

    /// The right to complete the upload, which keeps parts from being written; `None` while one is.
    pub(crate) fn completion(&self) -> Option<OwnedRwLockWriteGuard<Option<Incoming>>> {
        Arc::clone(&self.file).try_write_owned().ok()
    }

    /// The hashes of the whole. Blocks. To be called once, when no part is written any more.
    ///
    /// # Errors
    /// Those of reading, also that of a file that is shorter.
    pub(crate) fn hash(&self, incoming: &mut Incoming) -> Result<Blob, BlobError> {
        let parts: Option<Vec<ChainingValue>> = {
            let state = self.state();
            (!state.mixed).then(|| state.done.values().copied().collect())
        };
        let merged = parts.and_then(|parts| hasher::merge_parts(self.size, self.each, &parts));
        let Some(blake3) = merged else {
            let file = incoming.file();
            file.rewind().map_err(BlobError::upload)?;
            return Hasher::new(self.size).read(file, BlobError::upload);
        };
        let shas = self.hasher.finish(self.size).map_err(BlobError::upload)?;
        Ok(hasher::blob(shas, blake3, self.size))
    }
}

/// The right to write one part. It can outlive the request that took it.
#[derive(Debug)]
pub(crate) struct Writing {
    upload: Arc<PartUpload>,
    part: u64,
    range: Range<u64>,
    target: File,
    behind: Option<Arc<WriteBehind>>,
    /// Of the part, as far as it is written.
    blake3: blake3::Hasher,
    length: u64,
    /// What need not be read back to be hashed.
    kept: Vec<(u64, Bytes)>,
    ended: bool,
    _file: OwnedRwLockReadGuard<Option<Incoming>>,
}

impl Writing {
    /// Appends bytes to the part. Blocks.
    ///
    /// # Errors
    /// [`BlobError::Size`] if the part is shorter, else the disk's.
    pub(crate) fn write(&mut self, bytes: Bytes) -> Result<(), BlobError> {
        let at = self.range.start + self.length;
        self.length += bytes.len() as u64;
        if at + bytes.len() as u64 > self.range.end {
            return Err(self.wrong_size());
        }
        self.blake3.update(&bytes);
        let keep = self.upload.pool.taken() <= KEPT;
        let written = match &self.behind {
            Some(behind) if keep => behind.write_past_cache(&bytes, at),
            Some(behind) => behind.write(&bytes, at),
            None => self.target.write_all_at(&bytes, at),
        };
        written.map_err(BlobError::upload)?;
        if keep {
            self.kept.push((at, bytes));
        }
        Ok(())
    }

    fn wrong_size(&self) -> BlobError {
        hasher::wrong_size(self.range.end - self.range.start, self.length)
    }

    /// All bytes of the part are written: answers its tag. Blocks while hashing is late.
    ///
    /// # Errors
    /// [`BlobError::Size`] if bytes are missing.
    pub(crate) fn finish(mut self) -> Result<String, BlobError> {
        if self.range.start + self.length != self.range.end {
            return Err(self.wrong_size());
        }
        let tag = hasher::finish_part(&self.blake3);
        let upload = Arc::clone(&self.upload);
        let mut state = upload.state();
        let alone = state.writers.get(&self.part).is_some_and(|writers| writers.all == 1);
        self.end(&mut state);
        if alone {
            upload.hasher.keep(std::mem::take(&mut self.kept));
        } else {
            state.mixed = true;
        }
        state.done.insert(self.part, tag);
        state.touched = Instant::now();
        let front = (1..).zip(state.done.keys()).take_while(|(n, part)| n == *part).count() as u64;
        // Before the lock is released: a part that is written again takes its tag away after this.
        upload.hasher.grown(front.saturating_mul(upload.each).min(upload.size));
        drop(state);
        drop(self);
        upload.hasher.wait(LATE);
        Ok(hex::encode(tag))
    }

    /// It is not written any more.
    fn end(&mut self, state: &mut State) {
        self.ended = true;
        if let Entry::Occupied(mut writers) = state.writers.entry(self.part) {
            writers.get_mut().now -= 1;
            if writers.get().now == 0 {
                writers.remove();
            }
        }
        // The same part may have come a second time meanwhile, and been hashed.
        self.upload.hasher.rewritten(self.range.clone());
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        if !self.ended {
            let upload = Arc::clone(&self.upload);
            self.end(&mut upload.state());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blobs::{BlobStore, describe};
    use opg_model_store::Gather;
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
        let (_, size) = PartUpload::place(upload.size, upload.each, part).unwrap();
        let upload = tokio::task::spawn_blocking(move || {
            let half = usize::try_from(size / 2).unwrap();
            let piece = |bytes| Bytes::from(vec![byte; bytes]);
            let mut writing = writing;
            writing.write(piece(half)).unwrap();
            std::thread::yield_now();
            if whole {
                let rest = piece(usize::try_from(size).unwrap() - half);
                writing.write(rest).unwrap();
                writing.finish().unwrap();
            }
        });
        upload.await.unwrap();
    }

    async fn check(upload: Arc<PartUpload>) {
        let mut completion = upload.completion().unwrap();
        let mut incoming = completion.take().unwrap();
        let hash = tokio::task::spawn_blocking(move || (upload.hash(&mut incoming), incoming));
        let (hashed, mut incoming) = hash.await.unwrap();
        let mut content = Vec::new();
        incoming.file().rewind().unwrap();
        std::io::Read::read_to_end(incoming.file(), &mut content).unwrap();
        assert_eq!(hashed.unwrap(), describe(&content));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn the_hash_is_that_of_the_file_whatever_order_parts_come_in_and_come_again() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        let seed = AtomicU64::new(7);
        let (plenty, scarce) = (Gather::pool(), Gather::pool());
        let taken: Vec<Gather> = (0..=KEPT / Gather::PIECE)
            .map(|_| {
                let mut gather = Gather::new(&scarce);
                gather.add(&mut &[1][..]);
                gather
            })
            .collect();
        assert!(scarce.taken() > KEPT);
        let mut mixed = 0;
        for round in 0..300u64 {
            let (each, parts) = (1024 << (random(&seed) % 9), 1 + random(&seed) % 9);
            let size = each * parts - random(&seed) % each;
            let pool = if round % 3 == 0 { &scarce } else { &plenty };
            let upload = Arc::new(PartUpload::new(store.incoming().unwrap(), size, each, pool).unwrap());
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
            mixed += u64::from(upload.state().mixed);
            check(upload).await;
        }
        drop(taken);
        assert!(mixed > 10, "parts were written by two at the same time: {mixed}");
    }

    #[tokio::test]
    async fn no_part_is_written_after_completion_began() {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path()).unwrap();
        let upload = Arc::new(PartUpload::new(store.incoming().unwrap(), 2500, 1024, &Gather::pool()).unwrap());
        let writing = Arc::clone(&upload).write(3).await.unwrap().unwrap();
        assert!(upload.completion().is_none());
        drop(writing);
        let mut writing = Arc::clone(&upload).write(3).await.unwrap().unwrap();
        let too_much = writing.write(vec![1; 453].into());
        assert!(matches!(
            too_much,
            Err(BlobError::Size {
                expected: 452,
                got: 453
            })
        ));
        drop(writing);
        let mut writing = Arc::clone(&upload).write(3).await.unwrap().unwrap();
        writing.write(vec![1; 451].into()).unwrap();
        assert!(matches!(
            writing.finish(),
            Err(BlobError::Size {
                expected: 452,
                got: 451
            })
        ));
        assert!(upload.done().is_empty());
        drop(upload.completion().unwrap().take());
        assert!(Arc::clone(&upload).write(3).await.unwrap().is_none());
        assert_eq!(PartUpload::place(2500, 1024, 3), Some((2048, 452)));
        for part in [0, 4, u64::MAX] {
            assert_eq!(PartUpload::place(2500, 1024, part), None);
        }
    }
}
