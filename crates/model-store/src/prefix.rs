//! Hashing a file from its front while the rest of it arrives in any order.

use bytes::Bytes;
use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io,
    ops::Range,
    os::unix::fs::FileExt as _,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

/// Bytes that are read and hashed in turn: few enough for a processor's own cache.
const BUFFER: usize = 256 << 10;
/// Bytes after which a thread looks whether anybody still wants the hash.
const TURN: u64 = 32 << 20;

/// Hashes the front of a file in a thread of its own as far as it is there, so that little is left to do when the last byte
/// arrives. What somebody kept of it in memory is not read from the file. Bytes that are written again after they were hashed make
/// what was hashed worthless; the file is then hashed as a whole at its end, so that nobody can have it hashed again and again.
pub struct PrefixHasher<H> {
    file: File,
    fresh: H,
    update: fn(&mut H, &[u8]),
    state: Mutex<State<H>>,
    /// Notified when more is hashed, and when the hasher is back.
    progress: Condvar,
}

struct State<H> {
    /// Has all bytes before `hashed`; absent while a thread adds those after them.
    hasher: Option<H>,
    hashed: u64,
    /// Bytes before this one are there.
    there: u64,
    /// Bytes before `there` were written again: what was hashed does not count.
    stale: bool,
    /// Pieces of the file after `hashed`, by their first byte.
    kept: BTreeMap<u64, Bytes>,
}

/// What is to be hashed next.
enum Next {
    Kept(Bytes),
    /// What is in the file before this byte.
    Read(u64),
}

impl<H> State<H> {
    /// What comes at `at`; at most what is before `to`.
    fn next(&mut self, at: u64, to: u64) -> Next {
        // What lies before is hashed.
        while let Some(first) = self.kept.first_entry() {
            let (start, length) = (*first.key(), first.get().len() as u64);
            if start == at && length <= to.saturating_sub(at) {
                return Next::Kept(first.remove());
            }
            if start > at {
                return Next::Read(start.min(to));
            }
            first.remove();
        }
        Next::Read(to)
    }
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
                kept: BTreeMap::new(),
            }),
            fresh: hasher,
            update,
            progress: Condvar::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State<H>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps pieces in memory until they are hashed, by their places in the file, which has the same bytes there. Does not block.
    pub fn keep(&self, pieces: impl IntoIterator<Item = (u64, Bytes)>) {
        let mut state = self.state();
        if !state.stale {
            state.kept.extend(pieces);
        }
    }

    /// Gives up what is kept: it is read from the file when its turn comes.
    pub fn forget(&self) {
        let kept = std::mem::take(&mut self.state().kept);
        drop(kept);
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

    /// Waits until at most `behind` bytes that are there are not hashed, unless nobody is hashing them. Blocks.
    pub fn wait(&self, behind: u64) {
        let mut state = self.state();
        while state.hasher.is_none() && state.there.saturating_sub(state.hashed) > behind {
            state = self.progress.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Bytes of a range may have changed, or are about to.
    pub fn rewritten(&self, range: Range<u64>) {
        let mut state = self.state();
        state.stale |= !range.is_empty() && range.start < state.there;
        if state.stale {
            state.kept.clear();
        } else {
            state.kept.retain(|at, _| !range.contains(at));
        }
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

    /// Adds what is next to a hasher, and says where that ends.
    fn step(&self, hasher: &mut H, next: Next, at: u64, buffer: &mut [u8]) -> io::Result<u64> {
        match next {
            Next::Kept(piece) => {
                (self.update)(hasher, &piece);
                Ok(at.saturating_add(piece.len() as u64))
            }
            Next::Read(to) => self.add(hasher, at, to, buffer).map(|()| to),
        }
    }

    /// The hasher after all `size` bytes of the file. Waits for the thread that hashes, then does the rest itself. Blocks. To be
    /// called once, when nothing is written any more.
    ///
    /// # Errors
    /// Those of reading.
    pub fn finish(&self, size: u64) -> io::Result<H> {
        let mut state = self.state();
        let (mut hasher, mut at) = loop {
            match state.hasher.take() {
                Some(hasher) if !state.stale => break (hasher, state.hashed),
                Some(_) => break (self.fresh.clone(), 0),
                None => state = self.progress.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        };
        let mut buffer = vec![0; BUFFER];
        while at < size {
            let next = state.next(at, size);
            drop(state);
            at = self.step(&mut hasher, next, at, &mut buffer)?;
            state = self.state();
        }
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
            let ended = state.stale || state.hashed == state.there;
            let next = if ended {
                state.hasher = self.hasher.take();
                None
            } else {
                let to = state.there.min(self.at.saturating_add(TURN));
                Some(state.next(self.at, to))
            };
            drop(state);
            self.of.progress.notify_all();
            let (Some(next), Some(mut hasher)) = (next, self.hasher.take()) else {
                return;
            };
            // An error is met again, and said, at the end.
            let Ok(at) = self.of.step(&mut hasher, next, self.at, &mut buffer) else {
                self.give_up();
                return;
            };
            self.hasher = Some(hasher);
            self.at = at;
        }
    }

    fn give_up(&self) {
        let mut state = self.of.state();
        state.hasher = Some(self.of.fresh.clone());
        state.stale = true;
        state.kept.clear();
        drop(state);
        self.of.progress.notify_all();
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
                hasher.rewritten(part * each..(part + 1) * each);
                let bytes = Bytes::from(vec![random(&seed) as u8; usize::try_from(each).unwrap()]);
                file.write_all_at(&bytes, part * each).unwrap();
                // Of every other part, some pieces are kept.
                if random(&seed).is_multiple_of(2) {
                    let piece = usize::try_from(1 + each / 3).unwrap();
                    let pieces = (0..bytes.len()).step_by(piece);
                    let pieces = pieces.filter(|_| !random(&seed).is_multiple_of(4));
                    hasher.keep(pieces.map(|from| {
                        let to = bytes.len().min(from + piece);
                        (part * each + from as u64, bytes.slice(from..to))
                    }));
                }
                here.insert(part);
                let front = (0..).find(|part| !here.contains(part)).unwrap();
                hasher.grown(front * each);
                match random(&seed) % 12 {
                    0..4 => thread::yield_now(),
                    4 => hasher.wait(each),
                    5 => hasher.forget(),
                    _ => {}
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
    fn what_is_kept_is_not_read_and_what_was_rewritten_is_not_kept() {
        let kept = |at: u64| (at, Bytes::from(vec![9; 10]));
        for (rewritten, expected) in [(40..50, [1, 9, 9, 1]), (10..20, [1, 1, 9, 1]), (0..30, [1, 1, 1, 1])] {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&[1; 40], 0).unwrap();
            let hasher = hasher(&file);
            hasher.keep([kept(10), kept(20)]);
            hasher.rewritten(rewritten);
            hasher.grown(35);
            hasher.wait(0);
            assert_eq!(hasher.state().hashed, 35);
            let all = hasher.finish(40).unwrap();
            let each: Vec<u8> = all.chunks(10).map(|ten| ten[0]).collect();
            assert_eq!((all.len(), each), (40, expected.to_vec()));
        }
        // What was hashed does not count any more: all is read.
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[1; 40], 0).unwrap();
        let hasher = hasher(&file);
        hasher.keep([kept(10), kept(30)]);
        hasher.grown(20);
        hasher.rewritten(10..20);
        hasher.keep([kept(20)]);
        assert!(hasher.state().kept.is_empty());
        assert_eq!(hasher.finish(40).unwrap(), [1; 40]);
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
