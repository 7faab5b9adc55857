//! Hashing a file from its front while the rest of it arrives in any order.

use std::{
    fmt,
    fs::File,
    io,
    os::unix::fs::FileExt as _,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

/// Bytes that are read and hashed in turn: few enough for a processor's own cache.
const BUFFER: usize = 256 << 10;
/// Bytes after which a thread looks whether anybody still wants the hash.
const TURN: u64 = 32 << 20;

/// Hashes the front of a file in a thread of its own as far as it is there, so that little is left to do when the last byte
/// arrives. Bytes that are written again after they were hashed make what was hashed worthless; the file is then hashed as a
/// whole at its end, so that nobody can have it hashed again and again.
pub struct PrefixHasher<H> {
    file: File,
    fresh: H,
    update: fn(&mut H, &[u8]),
    state: Mutex<State<H>>,
    /// Notified when the hasher is back.
    returned: Condvar,
}

struct State<H> {
    /// Has all bytes before `hashed`; absent while a thread adds those after them.
    hasher: Option<H>,
    hashed: u64,
    /// Bytes before this one are there.
    there: u64,
    /// Bytes before `there` were written again: what was hashed does not count.
    stale: bool,
}

impl<H> fmt::Debug for PrefixHasher<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrefixHasher").finish_non_exhaustive()
    }
}

impl<H: Clone + Send + Sync + 'static> PrefixHasher<H> {
    /// For a file of which nothing is there, with a hasher that has seen nothing.
    pub fn new(file: File, hasher: H, update: fn(&mut H, &[u8])) -> Arc<Self> {
        Arc::new(Self {
            file,
            state: Mutex::new(State {
                hasher: Some(hasher.clone()),
                hashed: 0,
                there: 0,
                stale: false,
            }),
            fresh: hasher,
            update,
            returned: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State<H>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All bytes before `there` are in the file. Does not block.
    pub fn grown(self: &Arc<Self>, there: u64) {
        let mut state = self.state();
        state.there = state.there.max(there);
        if state.stale || state.hashed == state.there {
            return;
        }
        let Some(hasher) = state.hasher.take() else { return };
        let at = state.hashed;
        drop(state);
        let lent = Lent {
            of: Arc::clone(self),
            hasher: Some(hasher),
            at,
        };
        // Without a thread, everything is hashed at the end.
        let _ = thread::Builder::new().name("prefix-hasher".into()).spawn(|| lent.run());
    }

    /// Bytes from `at` on may have changed, or are about to.
    pub fn rewritten(&self, at: u64) {
        let mut state = self.state();
        state.stale |= at < state.there;
    }

    /// Adds bytes of the file to a hasher.
    fn add(&self, hasher: &mut H, mut from: u64, to: u64, buffer: &mut [u8]) -> io::Result<()> {
        while from < to {
            let size = buffer.len().min(usize::try_from(to - from).unwrap_or(usize::MAX));
            let bytes = buffer.get_mut(..size).unwrap_or_default();
            self.file.read_exact_at(bytes, from)?;
            (self.update)(hasher, bytes);
            from += size as u64;
        }
        Ok(())
    }

    /// The hasher after all `size` bytes of the file. Waits for the thread that hashes, then does the rest itself. Blocks. To be
    /// called once, when nothing is written any more.
    ///
    /// # Errors
    /// Those of reading.
    pub fn finish(&self, size: u64) -> io::Result<H> {
        let mut state = self.state();
        let (mut hasher, from) = loop {
            match state.hasher.take() {
                Some(hasher) if !state.stale => break (hasher, state.hashed),
                Some(_) => break (self.fresh.clone(), 0),
                None => state = self.returned.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(state);
        self.add(&mut hasher, from, size, &mut vec![0; BUFFER])?;
        Ok(hasher)
    }
}

/// The hasher in the hands of a thread. Dropping returns it.
struct Lent<H: Clone + Send + Sync + 'static> {
    of: Arc<PrefixHasher<H>>,
    /// Absent while it has a part of what it is to get, and when it was returned.
    hasher: Option<H>,
    at: u64,
}

impl<H: Clone + Send + Sync + 'static> Lent<H> {
    fn run(mut self) {
        let mut buffer = vec![0; BUFFER];
        loop {
            // The upload was given up: its file, which has no name any more, must not be kept until all of it is hashed.
            if Arc::strong_count(&self.of) == 1 {
                return;
            }
            let mut state = self.of.state();
            state.hashed = self.at;
            // Decided under the lock: what arrives later finds the hasher there.
            if state.stale || state.hashed == state.there {
                state.hasher = self.hasher.take();
                drop(state);
                self.of.returned.notify_all();
                return;
            }
            let to = state.there.min(self.at.saturating_add(TURN));
            drop(state);
            let Some(mut hasher) = self.hasher.take() else { return };
            // An error is met again, and said, at the end.
            if self.of.add(&mut hasher, self.at, to, &mut buffer).is_err() {
                self.give_up();
                return;
            }
            self.hasher = Some(hasher);
            self.at = to;
        }
    }

    fn give_up(&self) {
        let mut state = self.of.state();
        state.hasher = Some(self.of.fresh.clone());
        state.stale = true;
        drop(state);
        self.of.returned.notify_all();
    }
}

impl<H: Clone + Send + Sync + 'static> Drop for Lent<H> {
    fn drop(&mut self) {
        // Never run: no thread could be had.
        if self.hasher.is_some() {
            self.give_up();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        collections::BTreeSet,
        sync::atomic::{AtomicU64, Ordering},
    };

    /// SplitMix64.
    fn random(state: &AtomicU64) -> u64 {
        let mut z = state.fetch_add(0x9E37_79B9_7F4A_7C15, Ordering::Relaxed);
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn hasher(file: &File) -> Arc<PrefixHasher<Vec<u8>>> {
        // What it was given, whole: a stronger thing to compare than a hash.
        PrefixHasher::new(file.try_clone().unwrap(), Vec::new(), |all, bytes| {
            all.extend_from_slice(bytes);
        })
    }

    #[test]
    fn what_is_hashed_is_the_file_whatever_order_it_comes_in_and_comes_again() {
        let seed = AtomicU64::new(7);
        let (mut stale, mut ahead) = (0, 0);
        for round in 0..300u64 {
            let file = tempfile::tempfile().unwrap();
            let hasher = hasher(&file);
            let (each, parts) = (1 + random(&seed) % 200_000, 1 + random(&seed) % 9);
            let mut order: Vec<u64> = (0..parts).collect();
            // In every second round some parts come again.
            order.extend((0..(round % 2) * 3).map(|_| random(&seed) % parts));
            for i in (1..order.len()).rev() {
                order.swap(i, usize::try_from(random(&seed) % (i as u64 + 1)).unwrap());
            }
            let mut here = BTreeSet::new();
            for part in order {
                hasher.rewritten(part * each);
                let bytes = vec![random(&seed) as u8; usize::try_from(each).unwrap()];
                file.write_all_at(&bytes, part * each).unwrap();
                here.insert(part);
                let front = (0..).find(|part| !here.contains(part)).unwrap();
                hasher.grown(front * each);
                if random(&seed).is_multiple_of(3) {
                    thread::yield_now();
                }
            }
            {
                let state = hasher.state();
                stale += u64::from(state.stale);
                ahead += u64::from(state.hashed > 0);
                assert!(round % 2 == 1 || !state.stale, "nothing came twice");
            }
            let mut expected = vec![0; usize::try_from(each * parts).unwrap()];
            file.read_exact_at(&mut expected, 0).unwrap();
            assert!(hasher.finish(each * parts).unwrap() == expected, "round {round}");
        }
        assert!(stale > 20, "parts came again after they could be hashed: {stale}");
        assert!(ahead > 20, "something was hashed before the end: {ahead}");
    }

    #[test]
    fn what_nobody_wants_is_not_hashed_to_its_end() {
        static HASHED: AtomicU64 = AtomicU64::new(0);
        let file = tempfile::tempfile().unwrap();
        // Holes: they take no room.
        let size = 40 * TURN;
        file.set_len(size).unwrap();
        let hasher = PrefixHasher::new(file, (), |(), bytes| {
            thread::sleep(std::time::Duration::from_micros(100));
            HASHED.fetch_add(bytes.len() as u64, Ordering::SeqCst);
        });
        let left = Arc::downgrade(&hasher);
        hasher.grown(size);
        drop(hasher);
        while left.strong_count() > 0 {
            thread::yield_now();
        }
        assert!(HASHED.load(Ordering::SeqCst) <= TURN);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error_at_the_end_and_nobody_waits_for_ever() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 100], 0).unwrap();
        let short = hasher(&file);
        // More than there is.
        short.grown(200);
        assert_eq!(short.finish(200).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let whole = hasher(&file);
        whole.grown(200);
        assert_eq!(whole.finish(100).unwrap(), [1; 100]);
    }
}
