//! Flushing a file while it is still being written, so that little is left to flush at its end.

use std::{
    fs::File,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
};

/// Bytes after which a flush begins. The system alone would begin at a tenth of the memory, and keep the disk idle until then.
const EACH: u64 = 32 << 20;

/// A file that is being written, flushed by a thread of its own whenever enough has come.
#[derive(Debug)]
pub struct WriteBehind {
    file: File,
    unflushed: AtomicU64,
    busy: AtomicBool,
    /// Locked while the file is flushed. The system says an error once, so it is kept here until the end.
    failed: Mutex<Option<io::Error>>,
}

impl WriteBehind {
    /// For the file behind this handle.
    pub fn new(file: File) -> Arc<Self> {
        Arc::new(Self {
            file,
            unflushed: AtomicU64::new(0),
            busy: AtomicBool::new(false),
            failed: Mutex::new(None),
        })
    }

    /// Bytes were written. Does not block.
    pub fn wrote(self: &Arc<Self>, bytes: u64) {
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
}
