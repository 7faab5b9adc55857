//! A redb file with one writing thread that groups what many requests write into one fsync.
//!
//! Everything that must survive a crash together (a reservation, the receipt that ends it, the receipt's sequence number)
//! goes through one journal, in one order. Writers never wait for the disk: they get a [`Commit`] and wait for it when they
//! are about to tell the outside world. A write that nobody waits for yet lingers a little, so that the reservation and the
//! receipt of a fast model share one fsync.
//!
//! After a failed commit the journal refuses everything: what memory believes and what the disk holds may differ, and only a
//! restart makes them equal again.

use redb::{Database, ReadTransaction, ReadableDatabase, StorageBackend, WriteTransaction};
use std::{
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard},
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::watch;

/// How long a write that nobody waits for may stay in memory.
pub const LINGER: Duration = Duration::from_millis(2);

const ENDED: &str = "its thread ended";

type Write = Box<dyn FnOnce(&WriteTransaction) -> Result<(), redb::Error> + Send>;

/// Why the journal does not answer.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The file cannot be opened, read or written.
    #[error("journal: {0}")]
    Storage(Arc<redb::Error>),
    /// An earlier commit failed, or the journal was closed.
    #[error("journal stopped: {0}")]
    Stopped(Arc<str>),
}

macro_rules! from_redb {
    ($($error:ty),*) => {
        $(impl From<$error> for JournalError {
            fn from(error: $error) -> Self {
                Self::Storage(Arc::new(error.into()))
            }
        })*
    };
}

from_redb!(
    redb::Error,
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError
);

/// What the writing thread has done so far.
#[derive(Debug, Clone, Default)]
struct Progress {
    /// Writes with a number up to this one are on disk.
    durable: u64,
    /// Set once, when a commit failed.
    failed: Option<Arc<str>>,
}

#[derive(Default)]
struct Queue {
    writes: Vec<Write>,
    /// Number of the newest write.
    newest: u64,
    /// Somebody waits for this write.
    wanted: u64,
    closed: bool,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

impl Shared {
    /// A writer that panicked under this lock left whole values behind: each critical section is a few assignments.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// The journal. Dropping it writes what is queued and ends the thread.
pub struct Journal {
    database: Arc<Database>,
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("progress", &*self.progress.borrow())
            .finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens or creates the file. A file left by a crash is repaired first.
    ///
    /// # Errors
    /// The file is held by another process, is not a redb file, or cannot be written.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, JournalError> {
        Self::start(Database::create(path)?)
    }

    /// The same over any storage; tests use it to lose unsynced writes.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn with_backend(backend: impl StorageBackend) -> Result<Self, JournalError> {
        Self::start(Database::builder().create_with_backend(backend)?)
    }

    fn start(database: Database) -> Result<Self, JournalError> {
        let database = Arc::new(database);
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            wake: Condvar::new(),
        });
        let (report, progress) = watch::channel(Progress::default());
        let thread = std::thread::Builder::new()
            .name("journal".into())
            .spawn({
                let (database, shared) = (Arc::clone(&database), Arc::clone(&shared));
                move || run(&database, &shared, &report)
            })
            .map_err(redb::Error::Io)?;
        Ok(Self {
            database,
            shared,
            progress,
            thread: Some(thread),
        })
    }

    /// Queues a write. Writes are applied in the order of these calls; all of one call is applied or nothing.
    pub fn write(&self, write: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error> + Send + 'static) -> Commit {
        let mut queue = self.shared.lock();
        queue.newest += 1;
        queue.writes.push(Box::new(write));
        let number = queue.newest;
        drop(queue);
        self.shared.wake.notify_one();
        Commit {
            number,
            shared: Arc::clone(&self.shared),
            progress: self.progress.clone(),
        }
    }

    /// A consistent view of what is on disk.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn read(&self) -> Result<ReadTransaction, JournalError> {
        Ok(self.database.begin_read()?)
    }

    /// The number of the newest write that is on disk.
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.progress.borrow().durable
    }

    /// Whether writes still reach the disk.
    ///
    /// # Errors
    /// The reason why they do not.
    pub fn health(&self) -> Result<(), JournalError> {
        if let Some(reason) = &self.progress.borrow().failed {
            return Err(JournalError::Stopped(Arc::clone(reason)));
        }
        // The sender lives as long as the thread.
        self.progress
            .has_changed()
            .map(drop)
            .map_err(|_| JournalError::Stopped(ENDED.into()))
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was reported to every waiter when its sender was dropped.
            let _ = thread.join();
        }
    }
}

/// A queued write.
#[derive(Clone)]
pub struct Commit {
    number: u64,
    shared: Arc<Shared>,
    progress: watch::Receiver<Progress>,
}

impl std::fmt::Debug for Commit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Commit")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Commit {
    /// Position of this write in the journal's order.
    #[must_use]
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// Returns once this write, and every earlier one, survives a crash.
    ///
    /// # Errors
    /// A commit failed; the write may or may not be on disk.
    pub async fn durable(mut self) -> Result<(), JournalError> {
        self.want();
        let number = self.number;
        let waited = self
            .progress
            .wait_for(|p| p.durable >= number || p.failed.is_some())
            .await
            .map(|progress| check(&progress, number));
        waited.unwrap_or_else(|_| Err(JournalError::Stopped(ENDED.into())))
    }

    /// [`durable`](Self::durable) for threads outside an async runtime.
    ///
    /// # Errors
    /// As [`durable`](Self::durable).
    pub fn wait(self) -> Result<(), JournalError> {
        self.want();
        loop {
            let progress = self.progress.borrow().clone();
            if progress.durable >= self.number || progress.failed.is_some() {
                return check(&progress, self.number);
            }
            if self.progress.has_changed().is_err() {
                return Err(JournalError::Stopped(ENDED.into()));
            }
            std::thread::sleep(Duration::from_micros(100));
        }
    }

    fn want(&self) {
        let mut queue = self.shared.lock();
        if queue.wanted < self.number {
            queue.wanted = self.number;
            drop(queue);
            self.shared.wake.notify_one();
        }
    }
}

fn check(progress: &Progress, number: u64) -> Result<(), JournalError> {
    match &progress.failed {
        Some(reason) if progress.durable < number => Err(JournalError::Stopped(Arc::clone(reason))),
        _ => Ok(()),
    }
}

/// The writing thread.
fn run(database: &Database, shared: &Shared, report: &watch::Sender<Progress>) {
    let mut done = 0;
    loop {
        let mut queue = shared.lock();
        while queue.writes.is_empty() && !queue.closed {
            queue = shared
                .wake
                .wait(queue)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
        if queue.writes.is_empty() {
            return;
        }
        if queue.wanted <= done && !queue.closed {
            let idle = |queue: &mut Queue| queue.wanted <= done && !queue.closed;
            queue = shared
                .wake
                .wait_timeout_while(queue, LINGER, idle)
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .0;
        }
        let writes = std::mem::take(&mut queue.writes);
        let newest = queue.newest;
        drop(queue);
        match commit(database, writes) {
            Ok(()) => {
                done = newest;
                report.send_modify(|progress| progress.durable = newest);
            }
            Err(error) => {
                tracing::error!(%error, "journal commit failed; refusing all further work");
                report.send_modify(|progress| progress.failed = Some(error.to_string().into()));
                return;
            }
        }
    }
}

fn commit(database: &Database, writes: Vec<Write>) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for write in writes {
        write(&transaction)?;
    }
    Ok(transaction.commit()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use redb::TableDefinition;

    const TABLE: TableDefinition<'_, u64, u64> = TableDefinition::new("numbers");

    fn put(journal: &Journal, key: u64) -> Commit {
        journal.write(move |transaction| {
            transaction.open_table(TABLE)?.insert(key, key)?;
            Ok(())
        })
    }

    fn stored(journal: &Journal) -> u64 {
        use redb::ReadableTableMetadata;
        journal.read().unwrap().open_table(TABLE).unwrap().len().unwrap()
    }

    #[tokio::test]
    async fn waiting_for_one_write_makes_all_earlier_ones_durable() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path().join("j")).unwrap();
        let commits: Vec<_> = (0..100).map(|i| put(&journal, i)).collect();
        commits.last().unwrap().clone().durable().await.unwrap();
        assert_eq!(stored(&journal), 100);
        assert_eq!(journal.durable(), 100);
        for commit in commits {
            commit.wait().unwrap();
        }
    }

    #[tokio::test]
    async fn a_write_that_nobody_waits_for_arrives_anyway() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path().join("j")).unwrap();
        put(&journal, 1);
        let mut progress = journal.progress.clone();
        tokio::time::timeout(Duration::from_secs(5), progress.wait_for(|p| p.durable == 1))
            .await
            .unwrap()
            .unwrap();
    }

    #[test]
    fn dropping_writes_the_queue() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path().join("j")).unwrap();
        for i in 0..10 {
            put(&journal, i);
        }
        drop(journal);
        assert_eq!(stored(&Journal::open(dir.path().join("j")).unwrap()), 10);
    }

    #[tokio::test]
    async fn a_failed_commit_stops_everything_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path().join("j")).unwrap();
        put(&journal, 1).durable().await.unwrap();
        let failing = journal.write(|_| Err(redb::Error::Corrupted("test".into())));
        assert!(matches!(failing.durable().await, Err(JournalError::Stopped(_))));
        assert!(matches!(
            put(&journal, 2).durable().await,
            Err(JournalError::Stopped(_))
        ));
        assert!(matches!(put(&journal, 3).wait(), Err(JournalError::Stopped(_))));
        assert!(journal.health().is_err());
        drop(journal);
        assert_eq!(stored(&Journal::open(dir.path().join("j")).unwrap()), 1);
    }

    #[tokio::test]
    async fn a_write_that_panics_is_reported_to_everybody() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path().join("j")).unwrap();
        let panicking = journal.write(|_| panic!("a fault in a write"));
        assert!(matches!(panicking.durable().await, Err(JournalError::Stopped(_))));
        assert!(matches!(put(&journal, 2).wait(), Err(JournalError::Stopped(_))));
        assert!(journal.health().is_err());
    }
}
