//! A file that comes in verified ranges. What is on disk of it and of its outboard says by itself what is here: a process that
//! ends at any point goes on with the next chunk group. Its front is read back, hashed as a whole and flushed while the rest
//! comes, so that a file is ready when its last byte is here.

use crate::{
    fetch::{ATTEMPTS, FetchError, IDLE_ATTEMPTS, PAUSE, PIECES, Pace, SILENCE, Trouble, blocking, cause, refusal},
    prefix::PrefixHasher,
    ranges::{self, MEDIA_TYPE, RangeError, Span, WriteAt},
    write_behind::WriteBehind,
};
use bytes::{Buf as _, Bytes};
use opg_models::{FileEntry, FileHasher};
use reqwest::{Client, StatusCode, Url, header};
use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

/// Largest file that is taken in ranges: the tree above it is walked when the transfer begins.
const FILE_LIMIT: u64 = 1 << 43;

/// One file on its way here in ranges, from one source or several.
pub(crate) struct Ranged {
    path: PathBuf,
    outboard_path: PathBuf,
    outboard: Arc<File>,
    expected: FileEntry,
    blake3: [u8; 32],
    hasher: Arc<PrefixHasher<FileHasher>>,
    behind: Arc<WriteBehind>,
    state: Mutex<State>,
}

/// What is not here.
struct State {
    /// Not asked of anybody.
    open: VecDeque<Span>,
    /// Being asked of somebody.
    asked: Vec<Span>,
}

impl State {
    fn is_whole(&self) -> bool {
        self.open.is_empty() && self.asked.is_empty()
    }

    /// Everything before this byte is here.
    fn front(&self, size: u64) -> u64 {
        let missing = self.open.iter().chain(&self.asked);
        missing.map(|span| span.start()).min().unwrap_or(size)
    }
}

/// The file, which is flushed while it is written.
struct Target(Arc<WriteBehind>);

impl WriteAt for Target {
    fn write_at(&mut self, at: u64, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes, at)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What two requests at a time to one source know of each other.
struct Lanes {
    active: AtomicUsize,
    /// Nothing more is wanted of it.
    stop: AtomicBool,
}

/// The pieces of an answer as they come. Ends where the answer ends.
struct Pieces {
    receiver: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Read for Pieces {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.receiver.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let n = self.piece.len().min(to.len());
        if let Some(to) = to.get_mut(..n) {
            self.piece.copy_to_slice(to);
        }
        Ok(n)
    }
}

fn open(path: &Path) -> Result<File, FetchError> {
    File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(path)
        .map_err(file_error(path))
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> FetchError {
    let path = path.to_owned();
    move |source| FetchError::File { path, source }
}

impl Ranged {
    /// Opens or makes the two files, and finds out what of an earlier run can be kept.
    pub(crate) async fn open(data: &Path, outboard: &Path, expected: &FileEntry) -> Result<Self, FetchError> {
        let (path, outboard_path, expected) = (data.to_owned(), outboard.to_owned(), expected.clone());
        blocking(move || {
            let Some(blake3) = expected.blake3.filter(|_| expected.size <= FILE_LIMIT) else {
                let source = io::Error::other("a file without BLAKE3, or of more than 8 TiB, cannot come in ranges");
                return Err(FetchError::File { path, source });
            };
            let (data, outboard) = (open(&path)?, open(&outboard_path)?);
            let length = data.metadata().map_err(file_error(&path))?.len();
            if length > expected.size {
                data.set_len(expected.size).map_err(file_error(&path))?;
            }
            let missing = if length == 0 {
                Span::covering(0, expected.size, expected.size).into_iter().collect()
            } else {
                ranges::missing(blake3.0, expected.size, &data, &outboard).map_err(file_error(&path))?
            };
            let handle = data.try_clone().map_err(file_error(&path))?;
            let hasher = FileHasher::like(&expected);
            let ranged = Self {
                hasher: PrefixHasher::new(handle, hasher, |hasher, bytes| {
                    hasher.update(bytes);
                }),
                behind: WriteBehind::new(data),
                path,
                outboard_path,
                outboard: Arc::new(outboard),
                expected,
                blake3: blake3.0,
                state: Mutex::new(State {
                    open: missing.into(),
                    asked: Vec::new(),
                }),
            };
            ranged.hash_front();
            Ok(ranged)
        })
        .await?
    }

    fn state<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether every byte is here.
    pub(crate) fn is_whole(&self) -> bool {
        self.state(|state| state.is_whole())
    }

    /// Lets what is here be hashed, as far as nothing is missing.
    fn hash_front(&self) {
        self.hasher.grown(self.state(|state| state.front(self.expected.size)));
    }

    /// The next range to ask for.
    fn take(&self, most: u64) -> Option<Span> {
        self.state(|state| {
            let (first, rest) = state.open.pop_front()?.split(most);
            if let Some(rest) = rest {
                state.open.push_front(rest);
            }
            state.asked.push(first);
            Some(first)
        })
    }

    /// Notes how far a range came.
    fn put_back(&self, asked: Span, until: u64) {
        self.state(|state| {
            if let Some(i) = state.asked.iter().position(|span| *span == asked) {
                state.asked.swap_remove(i);
            }
            if let Some(rest) = asked.after(until) {
                state.open.push_front(rest);
            }
        });
        self.hash_front();
    }

    /// Asks one source for ranges of at most `segment` bytes until nothing is left to ask for, or it fails. Returns the bytes
    /// that it sent. One range is asked for while another is on its way, so that the link is never idle.
    pub(crate) async fn work(&self, http: &Client, url: &Url, segment: u64) -> (u64, Result<(), Trouble>) {
        let lanes = Lanes {
            active: AtomicUsize::new(2),
            stop: AtomicBool::new(false),
        };
        let lane = || self.lane(http, url, segment, &lanes);
        let ((bytes, first), (more, second)) = tokio::join!(lane(), lane());
        let result = match (first, second) {
            // Not that it broke off, if it broke off because of what the other lane found.
            (_, Err(trouble)) if !matches!(trouble, Trouble::Failed(_)) => Err(trouble),
            (first, second) => first.and(second),
        };
        (bytes.saturating_add(more), result)
    }

    /// One range after the other.
    async fn lane(&self, http: &Client, url: &Url, segment: u64, lanes: &Lanes) -> (u64, Result<(), Trouble>) {
        let (bytes, result) = self.requests(http, url, segment, &lanes.stop).await;
        let last = lanes.active.fetch_sub(1, Ordering::AcqRel) == 1;
        let result = match result {
            // A source that has no room for two goes on with one, which does what this lane has left.
            Err(Trouble::Failed(_)) if !last => Ok(()),
            Err(trouble) => {
                lanes.stop.store(true, Ordering::Release);
                Err(trouble)
            }
            Ok(()) => Ok(()),
        };
        (bytes, result)
    }

    async fn requests(&self, http: &Client, url: &Url, segment: u64, stop: &AtomicBool) -> (u64, Result<(), Trouble>) {
        let (mut bytes, mut idle, mut attempts) = (0, 0, 0);
        // Why the last attempt failed, if it did: when others have done the rest meanwhile, that is what is known of this source.
        let mut trouble = Ok(());
        while !stop.load(Ordering::Acquire)
            && let Some(span) = self.take(segment)
        {
            let until = Arc::new(AtomicU64::new(span.start()));
            let result = self.attempt(http, url, span, &until, &mut bytes, stop).await;
            let until = until.load(Ordering::Acquire);
            self.put_back(span, until);
            let reason = match result {
                Ok(()) => {
                    (idle, attempts, trouble) = (0, 0, Ok(()));
                    continue;
                }
                Err(Trouble::Failed(reason)) => reason,
                Err(trouble) => return (bytes, Err(trouble)),
            };
            idle = if until > span.start() { 0 } else { idle + 1 };
            attempts += 1;
            trouble = Err(Trouble::Failed(reason));
            if idle == IDLE_ATTEMPTS || attempts == ATTEMPTS {
                break;
            }
            sleep(PAUSE).await;
        }
        (bytes, trouble)
    }

    /// One request. `until` says how far the range is here, whatever the result.
    async fn attempt(
        &self,
        http: &Client,
        url: &Url,
        span: Span,
        until: &Arc<AtomicU64>,
        bytes: &mut u64,
        stop: &AtomicBool,
    ) -> Result<(), Trouble> {
        let size = self.expected.size;
        let request = http
            .get(url.clone())
            .header(header::RANGE, span.range())
            .header(header::ACCEPT, format!("{MEDIA_TYPE}, */*;q=0.1"));
        let mut answer = timeout(SILENCE, request.send())
            .await
            .map_err(|_| Trouble::Failed("no answer".into()))?
            .map_err(|error| Trouble::Failed(cause(&error)))?;
        match answer.status() {
            StatusCode::PARTIAL_CONTENT => {}
            // Whoever does not know the unit sends the whole file.
            StatusCode::OK => return Err(Trouble::Unverified),
            _ => return Err(refusal(answer).await),
        }
        let says = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        if says(header::CONTENT_TYPE) != Some(MEDIA_TYPE)
            || says(header::CONTENT_RANGE) != Some(&span.content_range(size))
        {
            return Err(Trouble::Failed("sent something else than the range asked for".into()));
        }
        let length = span.encoded_length(size);
        if answer.content_length().is_some_and(|got| got != length) {
            return Err(Trouble::Failed(format!(
                "an answer of {} bytes for a range that takes {length}",
                answer.content_length().unwrap_or_default()
            )));
        }
        let (sender, receiver) = mpsc::channel::<Bytes>(PIECES);
        let mut data = Target(Arc::clone(&self.behind));
        let (outboard, blake3) = (Arc::clone(&self.outboard), self.blake3);
        let verified = Arc::clone(until);
        let decoder = tokio::task::spawn_blocking(move || {
            let encoded = Pieces {
                receiver,
                piece: Bytes::new(),
            };
            let mut outboard = outboard.try_clone()?;
            ranges::decode(blake3, size, span, encoded, &mut data, &mut outboard, |at| {
                verified.store(at, Ordering::Release);
            })
        });
        let (mut pace, mut came) = (Pace::new(), 0u64);
        while came < length
            && let Ok(Ok(Some(mut piece))) = timeout(SILENCE, answer.chunk()).await
        {
            // What is behind the end of the range is nothing of the file.
            piece.truncate(usize::try_from(length - came).unwrap_or(usize::MAX));
            came += piece.len() as u64;
            *bytes = bytes.saturating_add(piece.len() as u64);
            let enough = pace.goes_on(piece.len() as u64);
            // The decoder ends at the first wrong byte.
            if sender.send(piece).await.is_err() || !enough || stop.load(Ordering::Acquire) {
                break;
            }
        }
        drop(sender);
        let local = |error: io::Error| Trouble::Local(file_error(&self.path)(error));
        match decoder.await.map_err(|error| local(io::Error::other(error)))? {
            Ok(()) => Ok(()),
            Err(error @ RangeError::Lied { .. }) => Err(Trouble::Lied(error.to_string())),
            Err(error @ RangeError::Short { .. }) => Err(Trouble::Failed(error.to_string())),
            Err(RangeError::Io(error)) => Err(local(error)),
        }
    }

    /// Compares the whole file, read back from the disk, with all that its entry says, and flushes it: the bytes on disk may have
    /// changed, and the hashes that the ranges do not prove may be of another file.
    pub(crate) async fn check(&self, root: &str) -> Result<(), FetchError> {
        let (path, outboard_path, outboard, expected) = (
            self.path.clone(),
            self.outboard_path.clone(),
            Arc::clone(&self.outboard),
            self.expected.clone(),
        );
        let (hasher, behind) = (Arc::clone(&self.hasher), Arc::clone(&self.behind));
        let root = root.to_owned();
        blocking(move || {
            let error = || file_error(&path);
            let got = hasher.finish(expected.size).map_err(error())?.finish(&expected.path);
            if got == expected {
                outboard.sync_all().map_err(file_error(&outboard_path))?;
                return behind.finish().map_err(error());
            }
            for path in [&path, &outboard_path] {
                std::fs::remove_file(path).map_err(file_error(path))?;
            }
            if got.blake3 == expected.blake3 {
                return Err(FetchError::Contradiction { root });
            }
            let changed = io::Error::new(io::ErrorKind::InvalidData, "the disk has changed bytes that were good");
            Err(FetchError::File { path, source: changed })
        })
        .await?
    }
}
