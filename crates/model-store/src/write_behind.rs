//! Writing a file so that little is left to flush at its end: past the page cache, or flushed while it is still being written.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

/// Bytes after which a flush begins. The system alone would begin at a tenth of the memory, and keep the disk idle until then.
const EACH: u64 = 32 << 20;
/// What must divide places and lengths of bytes that go past the page cache: at least a disk's block and a page of any processor, so
/// that no page has bytes that were written both ways.
const BLOCK: usize = 64 << 10;

/// A file that is being written, flushed by a thread of its own whenever enough has come.
#[derive(Debug)]
pub struct WriteBehind {
    file: File,
    /// The same file, for writes that the disk takes from where they are. Nothing is copied into the page cache, whose fresh
    /// pages cost more processor time than three hashes, and nothing is left to flush.
    direct: Option<File>,
    unflushed: AtomicU64,
    busy: AtomicBool,
    /// Locked while the file is flushed. The system says an error once, so it is kept here until the end.
    failed: Mutex<Option<io::Error>>,
}

#[cfg(target_os = "linux")]
fn open_direct(path: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).ok()?;
    File::options().write(true).custom_flags(flags).open(path).ok()
}

#[cfg(not(target_os = "linux"))]
fn open_direct(_: &Path) -> Option<File> {
    None
}

impl WriteBehind {
    /// For the file behind this handle.
    #[must_use]
    pub fn new(file: File) -> Arc<Self> {
        Self::with(file, None)
    }

    /// For the file behind this handle, which has a path, to use [`Self::write_past_cache`].
    #[must_use]
    pub fn at(file: File, path: &Path) -> Arc<Self> {
        Self::with(file, open_direct(path))
    }

    fn with(file: File, direct: Option<File>) -> Arc<Self> {
        Arc::new(Self {
            file,
            direct,
            unflushed: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            failed: Mutex::new(None),
        })
    }

    /// Writes bytes at a place of the file, through the page cache, where they are read back fast.
    ///
    /// # Errors
    /// The disk's.
    pub fn write(self: &Arc<Self>, bytes: &[u8], at: u64) -> io::Result<()> {
        self.file.write_all_at(bytes, at)?;
        self.wrote(bytes.len() as u64);
        Ok(())
    }

    /// Writes bytes that nobody will read soon at a place of the file: past the page cache if memory and place are aligned, as those
    /// of a [`Gather`](crate::Gather) are, and the file system does that; else, and what is left of them at their end, as
    /// [`Self::write`] does.
    ///
    /// # Errors
    /// The disk's.
    pub fn write_past_cache(self: &Arc<Self>, bytes: &[u8], at: u64) -> io::Result<()> {
        let (blocks, rest) = bytes.split_at(bytes.len() - bytes.len() % BLOCK);
        let placed = at.is_multiple_of(BLOCK as u64) && !blocks.is_empty();
        let Some(direct) = self.direct.as_ref().filter(|_| placed) else {
            return self.write(bytes, at);
        };
        match direct.write_all_at(blocks, at) {
            // Memory or disk are not aligned as this file system wants them.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => self.write(bytes, at),
            Ok(()) if !rest.is_empty() => self.write(rest, at.saturating_add(blocks.len() as u64)),
            result => result,
        }
    }

    /// Bytes were written through the page cache. Does not block.
    fn wrote(self: &Arc<Self>, bytes: u64) {
        let unflushed = self.unflushed.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if unflushed < EACH || self.busy.swap(true, Ordering::AcqRel) {
            return;
        }
        self.unflushed.store(0, Ordering::Relaxed);
        let behind = Arc::clone(self);
        let started = thread::Builder::new().name("write-behind".into()).spawn(move || {
            let mut failed = behind.failed.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(error) = behind.file.sync_data() {
                failed.get_or_insert(error);
            }
            drop(failed);
            behind.busy.store(false, Ordering::Release);
        });
        if started.is_err() {
            // Everything is flushed at the end.
            self.busy.store(false, Ordering::Release);
        }
    }

    /// Flushes all of the file.
    ///
    /// # Errors
    /// The disk's, also those of flushes before.
    pub fn finish(&self) -> io::Result<()> {
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        match failed.take() {
            Some(error) => Err(error),
            None => self.file.sync_all(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn wait(behind: &WriteBehind) {
        let start = Instant::now();
        while behind.busy.load(Ordering::Acquire) {
            assert!(start.elapsed() < Duration::from_secs(30));
            thread::yield_now();
        }
    }

    #[test]
    fn a_flush_that_failed_is_said_at_the_end() {
        // A pipe cannot be flushed.
        let (_reader, writer) = io::pipe().unwrap();
        let behind = WriteBehind::new(File::from(std::os::fd::OwnedFd::from(writer)));
        behind.wrote(EACH - 1);
        wait(&behind);
        assert!(behind.failed.lock().unwrap().is_none(), "too early");
        behind.wrote(1);
        wait(&behind);
        assert!(behind.failed.lock().unwrap().is_some());
        assert_eq!(behind.finish().unwrap_err().kind(), io::ErrorKind::InvalidInput);

        let behind = WriteBehind::new(tempfile::tempfile().unwrap());
        for _ in 0..5 {
            behind.wrote(EACH);
        }
        behind.finish().unwrap();
    }

    #[test]
    fn the_file_has_what_was_written_whichever_way_it_went() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        let behind = WriteBehind::at(file.try_clone().unwrap(), &path);
        let pool = crate::Gather::pool();
        let mut expected = Vec::new();
        // Whole blocks, some more, an odd place, less than a block, memory that is not aligned.
        for (n, (length, skip)) in (1u8..).zip([
            (BLOCK, 0),
            (3 * BLOCK, 0),
            (2 * BLOCK + 5, 0),
            (BLOCK, 0),
            (BLOCK - 5, 0),
            (7, 0),
            (BLOCK - 7, 0),
            (BLOCK, 8),
            (BLOCK, 0),
        ]) {
            let mut buffer = pool.take();
            buffer.fill(n);
            let bytes = &buffer[skip..skip + length];
            behind.write_past_cache(bytes, expected.len() as u64).unwrap();
            expected.extend_from_slice(bytes);
        }
        // Again over what is there, in both directions.
        for (n, from, length) in [(91, 0, 2 * BLOCK), (92, BLOCK / 2, BLOCK), (93, BLOCK, 2 * BLOCK)] {
            let mut buffer = pool.take();
            buffer.fill(n);
            let bytes = &buffer[..length];
            behind.write_past_cache(bytes, from as u64).unwrap();
            expected[from..from + length].copy_from_slice(bytes);
        }
        behind.finish().unwrap();
        assert!(std::fs::read(&path).unwrap() == expected);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn aligned_pieces_leave_nothing_to_flush() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let file = File::create(&path).unwrap();
        let behind = WriteBehind::at(file, &path);
        if behind.direct.is_none() {
            println!("the file system of temporary files does not write past the page cache");
            return;
        }
        let pool = crate::Gather::pool();
        behind.write_past_cache(&pool.take(), 0).unwrap();
        assert_eq!(behind.unflushed.load(Ordering::Relaxed), 0);
        behind.write_past_cache(&pool.take()[..BLOCK + 9], 1 << 20).unwrap();
        assert_eq!(behind.unflushed.load(Ordering::Relaxed), 9);
    }
}
