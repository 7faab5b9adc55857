//! Getting the bytes: from one source after the other, or from several at once where each range can be verified.

use crate::{
    cache::{Cache, CacheError, Cached, only_file},
    plain::Transfer,
    ranged::Ranged,
    source::{Described, Source, SourceError, Wanted, sentence},
};
use bytes::Bytes;
use futures::future::join_all;
use opg_models::{FileEntry, ModelRoot};
use reqwest::{Client, StatusCode, Url};
use std::{
    collections::{BTreeSet, VecDeque},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::time::timeout;

/// Longest silence of a source.
pub(crate) const SILENCE: Duration = Duration::from_secs(20);
/// A source must send [`PROGRESS`] bytes in this time.
const WINDOW: Duration = Duration::from_secs(30);
const PROGRESS: u64 = 64 << 10;
/// Attempts at one source without a byte in between.
pub(crate) const IDLE_ATTEMPTS: usize = 3;
/// Attempts at one source in all.
pub(crate) const ATTEMPTS: usize = 100;
pub(crate) const PAUSE: Duration = Duration::from_millis(200);
/// Pieces that wait for the disk.
pub(crate) const PIECES: usize = 64;
/// Sources that one file is taken from at a time.
const PARALLEL: usize = 4;
/// Files up to this size are taken from one source.
const SPLIT_FROM: u64 = 8 << 20;
/// Smallest and largest range that a source is asked for; two are on their way at a time.
const SEGMENT: (u64, u64) = (1 << 20, 32 << 20);
/// How long a first source that is ready waits for descriptions of others that could help.
const HELPERS: Duration = Duration::from_secs(3);

/// What became of asking one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The model came from it, or the part of it that it was asked for.
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
    /// The hashes of a manifest are not those of one file: whoever made it has to make another.
    #[error(
        "model {root}: its manifest contradicts itself: the bytes of its BLAKE3 do not have its SHA-256, size and git id"
    )]
    Contradiction {
        /// The model.
        root: String,
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

/// One model on its way here.
struct Job<'a> {
    wanted: &'a Wanted,
    report: &'a (dyn Fn(&Report) + Sync),
    reports: Vec<Report>,
    /// What came as it is.
    plain: Option<Transfer>,
    /// What came in verified ranges.
    ranged: Option<Arc<Ranged>>,
}

impl Fetcher {
    /// Asks `sources` in this order; neighbours of one kind may be asked at once.
    #[must_use]
    pub fn new(http: Client, cache: Arc<Cache>, sources: Vec<Source>) -> Self {
        Self {
            http,
            cache,
            sources,
            liars: Mutex::default(),
        }
    }

    /// The model, from the cache or from the first sources that have it whole. `report` hears of every source that was asked.
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
        let mut job = Job {
            wanted,
            report,
            reports: Vec::new(),
            plain: None,
            ranged: None,
        };
        for group in self.sources.chunk_by(|a, b| a.kind() == b.kind()) {
            if let Some(cached) = self.ask(group, &mut job).await? {
                return Ok(cached);
            }
        }
        Err(FetchError::Nowhere {
            root,
            reports: job.reports,
        })
    }

    fn is_liar(&self, source: &Source, root: ModelRoot) -> bool {
        let liars = self.liars.lock().unwrap_or_else(PoisonError::into_inner);
        liars.contains(&(source.clone(), root.0.0))
    }

    /// Tries sources of one kind, until the model is here or none is left.
    async fn ask(&self, group: &[Source], job: &mut Job<'_>) -> Result<Option<Cached>, FetchError> {
        let root = job.wanted.root;
        let mut queue = VecDeque::new();
        for source in group {
            if self.is_liar(source, root) {
                job.reports.push(Report {
                    source: source.clone(),
                    outcome: Outcome::Lied,
                    bytes: 0,
                    reason: "has sent wrong bytes of this model before".into(),
                });
            } else {
                queue.push_back(source);
            }
        }
        while let Some(source) = queue.pop_front() {
            let described = match source.describe(&self.http, job.wanted).await {
                Ok(described) => described,
                Err(error) => {
                    self.failed(job, source, 0, error.into())?;
                    continue;
                }
            };
            let entry = only_file(root, &described.manifest)?;
            if !described.ranges || entry.blake3.is_none() {
                let mut bytes = 0;
                match self.plain(&described, &entry, job, &mut bytes).await {
                    Ok(cached) => {
                        self.succeeded(job, source, bytes);
                        return Ok(Some(cached));
                    }
                    Err(trouble) => self.failed(job, source, bytes, trouble)?,
                }
                continue;
            }
            let mut team = vec![(source, described.url.clone())];
            if entry.size > SPLIT_FROM {
                team.extend(self.helpers(&mut queue, job.wanted).await);
            }
            if let Some(cached) = self.ranged(team, &described, &entry, job).await? {
                return Ok(Some(cached));
            }
        }
        Ok(None)
    }

    /// Those of the next sources that soon say that they give verified ranges of the same model. The others keep their turn.
    async fn helpers<'s>(&self, queue: &mut VecDeque<&'s Source>, wanted: &Wanted) -> Vec<(&'s Source, Url)> {
        let asked: Vec<&Source> = queue.drain(..queue.len().min(PARALLEL - 1)).collect();
        let answers = join_all(
            asked
                .iter()
                .map(|source| timeout(HELPERS, source.describe(&self.http, wanted))),
        );
        let mut team = Vec::new();
        for (source, answer) in asked.into_iter().zip(answers.await).rev() {
            match answer {
                Ok(Ok(described)) if described.ranges => team.push((source, described.url)),
                _ => queue.push_front(source),
            }
        }
        team.reverse();
        team
    }

    /// Notes that what a source sent is part of the model.
    fn succeeded(&self, job: &mut Job<'_>, source: &Source, bytes: u64) {
        let done = Report {
            source: source.clone(),
            outcome: Outcome::Whole,
            bytes,
            reason: String::new(),
        };
        tracing::info!(root = %job.wanted.root, %source, bytes, "model fetched");
        (job.report)(&done);
        job.reports.push(done);
    }

    /// Notes why a source did not give the model.
    fn failed(&self, job: &mut Job<'_>, source: &Source, bytes: u64, trouble: Trouble) -> Result<(), FetchError> {
        let root = job.wanted.root;
        let (outcome, reason) = match trouble {
            Trouble::Lied(reason) => {
                tracing::error!(%root, %source, reason, "a source has sent wrong bytes; they are thrown away and the next source is asked");
                let mut liars = self.liars.lock().unwrap_or_else(PoisonError::into_inner);
                liars.insert((source.clone(), root.0.0));
                (Outcome::Lied, reason)
            }
            Trouble::Absent(reason) => {
                tracing::info!(%root, %source, reason, "a source does not have the model");
                (Outcome::Absent, reason)
            }
            Trouble::Failed(reason) => {
                tracing::warn!(%root, %source, reason, "a source did not send the model");
                (Outcome::Failed, reason)
            }
            Trouble::Unverified => {
                let reason = "gives no verified ranges, although it said so".to_owned();
                tracing::warn!(%root, %source, reason, "a source did not send the model");
                (Outcome::Failed, reason)
            }
            Trouble::Local(error) => return Err(error),
        };
        let done = Report {
            source: source.clone(),
            outcome,
            bytes,
            reason,
        };
        (job.report)(&done);
        job.reports.push(done);
        Ok(())
    }

    /// Room for the file, and its manifest on disk.
    async fn prepare(&self, described: &Described, entry: &FileEntry) -> Result<(), FetchError> {
        let (cache, kept, entry) = (Arc::clone(&self.cache), described.manifest.clone(), entry.clone());
        blocking(move || {
            cache.make_room(&entry)?;
            cache.put_manifest(&kept)
        })
        .await?
        .map_err(FetchError::from)
    }

    /// The file as it is, from one source.
    async fn plain(
        &self,
        described: &Described,
        entry: &FileEntry,
        job: &mut Job<'_>,
        bytes: &mut u64,
    ) -> Result<Cached, Trouble> {
        let transfer = match &mut job.plain {
            Some(transfer) => transfer,
            none => {
                self.prepare(described, entry).await.map_err(Trouble::Local)?;
                none.insert(Transfer::new(self.cache.part(&entry.sha256.0), entry.clone()))
            }
        };
        transfer.run(&self.http, &described.url, bytes).await?;
        self.publish(described, entry, false).await.map_err(Trouble::Local)
    }

    async fn publish(&self, described: &Described, entry: &FileEntry, ranged: bool) -> Result<Cached, FetchError> {
        let (cache, entry) = (Arc::clone(&self.cache), entry.clone());
        let path = blocking(move || cache.publish(&entry, ranged)).await??;
        Ok(Cached {
            manifest: described.manifest.clone(),
            path,
        })
    }

    /// The file in verified ranges, from several sources at once. Each is asked until nothing is left to ask for, or it fails;
    /// what it left undone is asked of the others.
    async fn ranged(
        &self,
        mut team: Vec<(&Source, Url)>,
        described: &Described,
        entry: &FileEntry,
        job: &mut Job<'_>,
    ) -> Result<Option<Cached>, FetchError> {
        let ranged = match &job.ranged {
            Some(ranged) => Arc::clone(ranged),
            None => {
                self.prepare(described, entry).await?;
                let (part, outboard) = self.cache.ranged_parts(&entry.sha256.0);
                let ranged = Arc::new(Ranged::open(&part, &outboard, entry).await?);
                Arc::clone(job.ranged.insert(ranged))
            }
        };
        let segment = match team.len() as u64 {
            0 | 1 => SEGMENT.1,
            n => (entry.size / (4 * n)).clamp(SEGMENT.0, SEGMENT.1),
        };
        let mut sent = vec![0u64; team.len()];
        while !team.is_empty() && !ranged.is_whole() {
            let work = team.iter().map(|(_, url)| ranged.work(&self.http, url, segment));
            let done = join_all(work).await;
            let (mut left, mut left_sent) = (Vec::new(), Vec::new());
            for (((source, url), before), (bytes, result)) in team.into_iter().zip(sent).zip(done) {
                let bytes = before.saturating_add(bytes);
                match result {
                    Ok(()) => {
                        left.push((source, url));
                        left_sent.push(bytes);
                    }
                    Err(trouble) => self.failed(job, source, bytes, trouble)?,
                }
            }
            (team, sent) = (left, left_sent);
        }
        if !ranged.is_whole() {
            return Ok(None);
        }
        job.ranged = None;
        ranged.check(&job.wanted.root.to_string()).await?;
        let cached = self.publish(described, entry, true).await?;
        for ((source, _), bytes) in team.into_iter().zip(sent) {
            if bytes > 0 {
                self.succeeded(job, source, bytes);
            }
        }
        Ok(Some(cached))
    }
}

/// Why one source did not give the file.
#[derive(Debug)]
pub(crate) enum Trouble {
    Lied(String),
    Absent(String),
    Failed(String),
    /// It answers with the file as it is.
    Unverified,
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
pub(crate) fn cause(error: &reqwest::Error) -> String {
    let mut inner: &dyn std::error::Error = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}

pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, FetchError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| FetchError::File {
            path: PathBuf::new(),
            source: io::Error::other(error),
        })
}

/// What an answer says that is not the file.
pub(crate) async fn refusal(mut answer: reqwest::Response) -> Trouble {
    let status = answer.status();
    let body = match timeout(SILENCE, answer.chunk()).await {
        Ok(Ok(Some(body))) => body,
        _ => Bytes::new(),
    };
    let reason = format!("HTTP {}: {}", status.as_u16(), sentence(&body));
    match status {
        StatusCode::NOT_FOUND => Trouble::Absent(reason),
        _ => Trouble::Failed(reason),
    }
}

/// Whether a source sends fast enough to be waited for.
pub(crate) struct Pace {
    since: Instant,
    bytes: u64,
}

impl Pace {
    pub(crate) fn new() -> Self {
        Self {
            since: Instant::now(),
            bytes: 0,
        }
    }

    /// Notes bytes that have come.
    pub(crate) fn goes_on(&mut self, bytes: u64) -> bool {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.since.elapsed() <= WINDOW {
            return true;
        }
        let enough = self.bytes >= PROGRESS;
        *self = Self::new();
        enough
    }
}
