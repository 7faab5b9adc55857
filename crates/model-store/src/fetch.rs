//! Getting the bytes: one source after the other, hashed while they arrive.

use crate::{
    cache::{Cache, CacheError, Cached, only_file},
    source::{Source, SourceError, Wanted, sentence},
};
use bytes::Bytes;
use opg_models::{FileEntry, FileHasher, Manifest, ModelRoot};
use reqwest::{Client, StatusCode, Url, header};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

/// Longest silence of a source.
const SILENCE: Duration = Duration::from_secs(20);
/// A source must send [`PROGRESS`] bytes in this time.
const WINDOW: Duration = Duration::from_secs(30);
const PROGRESS: u64 = 64 << 10;
/// Attempts at one source without a byte in between.
const IDLE_ATTEMPTS: usize = 3;
/// Attempts at one source in all.
const ATTEMPTS: usize = 100;
const PAUSE: Duration = Duration::from_millis(200);
/// Pieces that wait for the disk.
const PIECES: usize = 64;
const BUFFER: usize = 1 << 20;

/// What became of asking one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The model came from it.
    Whole,
    /// It sent bytes that are not the model's.
    Lied,
    /// It does not have the model.
    Absent,
    /// It is away, slow, or broke off.
    Failed,
}

impl Outcome {
    /// The word for metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Whole => "whole",
            Self::Lied => "lied",
            Self::Absent => "absent",
            Self::Failed => "failed",
        }
    }
}

/// One source's part in getting a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The source.
    pub source: Source,
    /// What became of it.
    pub outcome: Outcome,
    /// Bytes it sent.
    pub bytes: u64,
    /// Why not, for people.
    pub reason: String,
}

/// Why a model could not be got.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// No source is configured.
    #[error("model {root} is not here, and no hub or peer is configured")]
    NoSource {
        /// The model.
        root: ModelRoot,
    },
    /// No source has it.
    #[error("model {root} cannot be had: {}", list(.reports))]
    Nowhere {
        /// The model.
        root: ModelRoot,
        /// What each source did.
        reports: Vec<Report>,
    },
    /// A local file.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The file that came is not the expected one.
    #[error("{url} sent other bytes than those of SHA-256 {expected}")]
    Lied {
        /// Where it came from.
        url: String,
        /// SHA-256 of the file, hexadecimal.
        expected: String,
    },
    /// The source did not send the file.
    #[error("{url}: {reason}")]
    Source {
        /// Where it was to come from.
        url: String,
        /// Why not.
        reason: String,
        /// Whether it said that it does not have it.
        absent: bool,
    },
}

fn list(reports: &[Report]) -> String {
    let lines: Vec<String> = reports
        .iter()
        .map(|report| format!("{}: {}", report.source, report.reason))
        .collect();
    lines.join("; ")
}

/// Gets models from a list of sources into a cache.
#[derive(Debug)]
pub struct Fetcher {
    http: Client,
    cache: Arc<Cache>,
    sources: Vec<Source>,
    /// Which sources have sent wrong bytes of which model: they are not asked for it again.
    liars: Mutex<BTreeSet<(Source, [u8; 32])>>,
}

impl Fetcher {
    /// Asks `sources` in this order.
    #[must_use]
    pub fn new(http: Client, cache: Arc<Cache>, sources: Vec<Source>) -> Self {
        Self {
            http,
            cache,
            sources,
            liars: Mutex::default(),
        }
    }

    /// The model, from the cache or from the first source that has it whole. `report` hears of every source that was asked.
    ///
    /// # Errors
    /// [`FetchError::Nowhere`] with what each source did; it may pass when one of them comes up.
    pub async fn get(&self, wanted: &Wanted, report: &(dyn Fn(&Report) + Sync)) -> Result<Cached, FetchError> {
        let (cache, root) = (Arc::clone(&self.cache), wanted.root);
        let cached = blocking(move || cache.get(root)).await??;
        if let Some(cached) = cached {
            return Ok(cached);
        }
        if self.sources.is_empty() {
            return Err(FetchError::NoSource { root });
        }
        let mut transfer: Option<Transfer> = None;
        let mut reports = Vec::new();
        for source in &self.sources {
            let key = (source.clone(), root.0.0);
            let mut done = Report {
                source: source.clone(),
                outcome: Outcome::Lied,
                bytes: 0,
                reason: "has sent wrong bytes of this model before".into(),
            };
            if self.liars.lock().unwrap_or_else(PoisonError::into_inner).contains(&key) {
                reports.push(done);
                continue;
            }
            match self.from(source, wanted, &mut transfer, &mut done.bytes).await {
                Ok(cached) => {
                    done.outcome = Outcome::Whole;
                    done.reason = String::new();
                    tracing::info!(%root, %source, bytes = done.bytes, "model fetched");
                    report(&done);
                    return Ok(cached);
                }
                Err(Trouble::Lied(reason)) => {
                    tracing::error!(%root, %source, reason, "a source has sent wrong bytes; they are thrown away and the next source is asked");
                    self.liars.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
                    done.reason = reason;
                }
                Err(Trouble::Absent(reason)) => {
                    tracing::info!(%root, %source, reason, "a source does not have the model");
                    (done.outcome, done.reason) = (Outcome::Absent, reason);
                }
                Err(Trouble::Failed(reason)) => {
                    tracing::warn!(%root, %source, reason, "a source did not send the model");
                    (done.outcome, done.reason) = (Outcome::Failed, reason);
                }
                Err(Trouble::Local(error)) => return Err(error),
            }
            report(&done);
            reports.push(done);
        }
        Err(FetchError::Nowhere { root, reports })
    }

    async fn from(
        &self,
        source: &Source,
        wanted: &Wanted,
        transfer: &mut Option<Transfer>,
        bytes: &mut u64,
    ) -> Result<Cached, Trouble> {
        let described = source.describe(&self.http, wanted).await?;
        let manifest: Manifest = described.manifest;
        let local = |error: CacheError| Trouble::Local(error.into());
        let entry = only_file(wanted.root, &manifest).map_err(local)?;
        if transfer.is_none() {
            let (cache, kept, entry) = (Arc::clone(&self.cache), manifest.clone(), entry.clone());
            let part = blocking(move || {
                cache.make_room(&entry.sha256.0, entry.size)?;
                cache.put_manifest(&kept)?;
                Ok::<_, CacheError>(cache.part(&entry.sha256.0))
            })
            .await
            .map_err(Trouble::Local)?
            .map_err(local)?;
            *transfer = Some(Transfer::new(part, entry.clone()));
        }
        let Some(transfer) = transfer else {
            return Err(Trouble::Failed("no transfer".into()));
        };
        transfer.run(&self.http, &described.url, bytes).await?;
        let cache = Arc::clone(&self.cache);
        let path = blocking(move || cache.publish(&entry.sha256.0))
            .await
            .map_err(Trouble::Local)?
            .map_err(local)?;
        Ok(Cached { manifest, path })
    }
}

/// Downloads one file of known hash to `to`, beside which the unfinished file lies (`.part`) and from which an interrupted
/// download goes on.
///
/// # Errors
/// [`FetchError::Lied`] if other bytes came; `to` is then not touched, and nothing of them is kept.
pub async fn fetch_file(http: &Client, url: &str, expected: &FileEntry, to: &Path) -> Result<u64, FetchError> {
    let failed = |reason: String, absent| FetchError::Source {
        url: url.to_owned(),
        reason,
        absent,
    };
    let parsed = Url::parse(url).map_err(|error| failed(error.to_string(), false))?;
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".part");
    let part = to.with_file_name(name);
    let mut bytes = 0;
    let done = Transfer::new(part.clone(), expected.clone())
        .run(http, &parsed, &mut bytes)
        .await;
    match done {
        Ok(()) => {}
        Err(Trouble::Lied(_)) => {
            return Err(FetchError::Lied {
                url: url.to_owned(),
                expected: hex::encode(expected.sha256),
            });
        }
        Err(Trouble::Absent(reason)) => return Err(failed(reason, true)),
        Err(Trouble::Failed(reason)) => return Err(failed(reason, false)),
        Err(Trouble::Local(error)) => return Err(error),
    }
    tokio::fs::rename(&part, to).await.map_err(|source| FetchError::File {
        path: to.to_owned(),
        source,
    })?;
    Ok(bytes)
}

/// Why one source did not give the file.
#[derive(Debug)]
enum Trouble {
    Lied(String),
    Absent(String),
    Failed(String),
    Local(FetchError),
}

impl From<SourceError> for Trouble {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::Refused { status: 404, .. } | SourceError::OtherRoot { .. } => Self::Absent(error.to_string()),
            SourceError::Http(error) => Self::Failed(cause(&error)),
            other => Self::Failed(other.to_string()),
        }
    }
}

/// The innermost reason of a failed request.
fn cause(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, FetchError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| FetchError::File {
            path: PathBuf::new(),
            source: io::Error::other(error),
        })
}

/// One file on its way here, from one source or several.
struct Transfer {
    part: PathBuf,
    expected: FileEntry,
    /// Who sent the bytes of the part, as far as this process knows.
    senders: BTreeMap<String, u64>,
    /// Whether some of it came in an earlier run, from whom nobody knows.
    earlier: bool,
}

/// How a stream ended.
struct Written {
    /// Bytes of the part now.
    length: u64,
    /// Whether the source sent more than the file has.
    surplus: bool,
    /// Whether the part is whole and has its hash; it is then flushed.
    good: bool,
}

impl Transfer {
    fn new(part: PathBuf, expected: FileEntry) -> Self {
        let earlier = std::fs::metadata(&part).is_ok_and(|meta| meta.len() > 0);
        Self {
            part,
            expected,
            senders: BTreeMap::new(),
            earlier,
        }
    }

    fn file_error(&self, source: io::Error) -> Trouble {
        Trouble::Local(FetchError::File {
            path: self.part.clone(),
            source,
        })
    }

    /// Begins anew: nothing is known about the bytes that were there.
    async fn discard(&mut self) -> Result<(), Trouble> {
        self.senders.clear();
        self.earlier = false;
        match tokio::fs::remove_file(&self.part).await {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(self.file_error(error)),
            _ => Ok(()),
        }
    }

    /// Gets what is missing from one source.
    async fn run(&mut self, http: &Client, url: &Url, bytes: &mut u64) -> Result<(), Trouble> {
        let (mut idle, mut reason) = (0, String::new());
        for _ in 0..ATTEMPTS {
            let have = tokio::fs::metadata(&self.part).await.map_or(0, |meta| meta.len());
            let have = if have > self.expected.size {
                self.discard().await?;
                0
            } else {
                have
            };
            let before = *bytes;
            match self.attempt(http, url, have, bytes).await {
                Ok(written) if written.good => return Ok(()),
                Ok(written) if written.surplus || written.length == self.expected.size => {
                    let alone = !self.earlier && self.senders.keys().all(|sender| sender == url.as_str());
                    self.discard().await?;
                    if alone {
                        return Err(Trouble::Lied(format!(
                            "sent bytes that do not have SHA-256 {}",
                            hex::encode(self.expected.sha256)
                        )));
                    }
                    // Somebody of several sent a wrong byte. This one now sends all of it.
                    tracing::warn!(part = %self.part.display(), "a file that came from several sources is wrong; it is fetched anew from one");
                    continue;
                }
                Ok(_) => reason = "the transfer broke off".into(),
                Err(Trouble::Failed(why)) => reason = why,
                Err(trouble) => return Err(trouble),
            }
            if *bytes > before {
                idle = 0;
            } else {
                idle += 1;
                if idle == IDLE_ATTEMPTS {
                    break;
                }
            }
            sleep(PAUSE).await;
        }
        Err(Trouble::Failed(reason))
    }

    /// One request for everything from `have` on.
    async fn attempt(&mut self, http: &Client, url: &Url, have: u64, bytes: &mut u64) -> Result<Written, Trouble> {
        let mut start = have;
        let mut answer = None;
        // A part that is as long as the file only has to be hashed.
        if have < self.expected.size || have == 0 {
            let mut request = http.get(url.clone());
            if have > 0 {
                request = request.header(header::RANGE, format!("bytes={have}-"));
            }
            let mut sent = timeout(SILENCE, request.send())
                .await
                .map_err(|_| Trouble::Failed("no answer".into()))?
                .map_err(|error| Trouble::Failed(cause(&error)))?;
            match sent.status() {
                StatusCode::OK => start = 0,
                StatusCode::PARTIAL_CONTENT if have > 0 => {
                    let range = sent.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
                    if !range.is_some_and(|range| range.starts_with(&format!("bytes {have}-"))) {
                        return Err(Trouble::Failed("sent another range than asked for".into()));
                    }
                }
                status => {
                    let body = match timeout(SILENCE, sent.chunk()).await {
                        Ok(Ok(Some(body))) => body,
                        _ => Bytes::new(),
                    };
                    let reason = format!("HTTP {}: {}", status.as_u16(), sentence(&body));
                    return Err(match status {
                        StatusCode::NOT_FOUND => Trouble::Absent(reason),
                        _ => Trouble::Failed(reason),
                    });
                }
            }
            answer = Some(sent);
        }
        if start == 0 {
            self.discard().await?;
        }
        let (sender, pieces) = mpsc::channel::<Bytes>(PIECES);
        let (part, expected) = (self.part.clone(), self.expected.clone());
        let writer = tokio::task::spawn_blocking(move || write(&part, start, &expected, pieces));
        if let Some(mut answer) = answer {
            let (mut since, mut window) = (Instant::now(), 0u64);
            // An answer that ends early shows as a part that is too short.
            while let Ok(Ok(Some(piece))) = timeout(SILENCE, answer.chunk()).await {
                let length = piece.len() as u64;
                *bytes = bytes.saturating_add(length);
                *self.senders.entry(url.to_string()).or_default() += length;
                window = window.saturating_add(length);
                if sender.send(piece).await.is_err() {
                    break;
                }
                if since.elapsed() > WINDOW {
                    if window < PROGRESS {
                        break;
                    }
                    (since, window) = (Instant::now(), 0);
                }
            }
        }
        drop(sender);
        writer
            .await
            .map_err(|error| self.file_error(io::Error::other(error)))?
            .map_err(|error| self.file_error(error))
    }
}

/// Hashes what is there, then writes and hashes what comes. Blocks.
fn write(part: &Path, start: u64, expected: &FileEntry, mut pieces: mpsc::Receiver<Bytes>) -> io::Result<Written> {
    let mut file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(part)?;
    file.set_len(start)?;
    let mut hasher = FileHasher::new();
    if start > 0 {
        let mut buffer = vec![0; BUFFER];
        loop {
            let n = file.read(&mut buffer)?;
            match buffer.get(..n) {
                Some(bytes) if !bytes.is_empty() => hasher.update(bytes),
                _ => break,
            };
        }
    }
    file.seek(SeekFrom::Start(start))?;
    let (mut length, mut surplus) = (start, false);
    while let Some(piece) = pieces.blocking_recv() {
        if length.saturating_add(piece.len() as u64) > expected.size {
            surplus = true;
            break;
        }
        hasher.update(&piece);
        file.write_all(&piece)?;
        length += piece.len() as u64;
    }
    let good = !surplus && hasher.finish(&expected.path) == *expected;
    if good {
        file.sync_all()?;
    }
    Ok(Written { length, surplus, good })
}
