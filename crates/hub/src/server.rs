//! Starting and stopping a hub.

use crate::{
    blobs::{BlobError, BlobStore},
    bucket::{self, Bucket},
    chain::{BooksError, Chain},
    config::{ConfigError, HubConfig},
    db::{self, Db, DbError, HUB},
    gc::{self, Collected},
    http,
    metrics::Metrics,
    outboards::Outboards,
    state::Hub,
};
use opg_model_store::Gather;
use opg_rate_limit::Buckets;
use std::{
    fs::{self, File, TryLockError},
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, atomic::AtomicBool},
    time::Duration,
};
use tokio::{net::TcpListener, sync::RwLock, sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Why a hub cannot start or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database.
    #[error(transparent)]
    Database(#[from] DbError),
    /// The blobs.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// What models have earned.
    #[error(transparent)]
    Books(#[from] BooksError),
    /// Another process uses the directory.
    #[error("{} is in use by another process", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// A backup was being restored into the directory, and that did not finish.
    #[error("restoring a backup into {} did not finish; run `opg hub restore` again", path.display())]
    Restoring {
        /// The directory.
        path: PathBuf,
    },
    /// A file or socket.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
    /// Requests were still running when the time for shutdown was over.
    #[error("requests were still running after {seconds} s")]
    Shutdown {
        /// Seconds waited.
        seconds: u64,
    },
    /// A collection failed; the log has the reason.
    #[error("garbage collection failed: {0}")]
    Collection(String),
}

/// A running hub.
#[derive(Debug)]
pub struct ModelHub {
    hub: Arc<Hub>,
    address: SocketAddr,
    server: JoinHandle<io::Result<()>>,
    collector: JoinHandle<()>,
    follower: Option<JoinHandle<()>>,
    /// Held as long as the process uses the directory.
    _lock: File,
}

impl ModelHub {
    /// Opens the data directory, starts serving, and returns when requests are answered.
    ///
    /// # Errors
    /// [`HubError`].
    pub async fn start(config: HubConfig) -> Result<Self, HubError> {
        config.check()?;
        let dir = config.data_dir.clone();
        let io = |what: String| move |source| HubError::Io { what, source };
        fs::create_dir_all(&dir).map_err(io(format!("cannot make {}", dir.display())))?;
        let lock_path = dir.join("lock");
        let lock = File::create(&lock_path).map_err(io(format!("cannot make {}", lock_path.display())))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(HubError::Locked { path: dir }),
            Err(TryLockError::Error(source)) => return Err(io(format!("cannot lock {}", lock_path.display()))(source)),
        }
        if dir.join(crate::backup::RESTORING).exists() {
            return Err(HubError::Restoring { path: dir });
        }
        let bucket = config.blobs.as_ref().map(Bucket::new).transpose()?.map(Arc::new);
        let adopt = config.blobs.as_ref().is_some_and(|blobs| blobs.adopt);
        let blobs = Arc::new(BlobStore::open(&dir)?.with(bucket.clone()));
        let outboards = Outboards::open(&dir)?;
        let (place, books) = (config.place("hub.sqlite")?, config.place("chain.sqlite")?);
        let watched = config.chain.clone();
        let opened = tokio::task::spawn_blocking(move || -> Result<_, HubError> {
            let database = Db::open(place, HUB)?;
            if let Some(bucket) = bucket {
                bucket::begin(&bucket, &database, adopt)?;
            }
            let chain = watched.map(|chain| Chain::open(books, chain)).transpose()?;
            Ok((database, chain.map(Arc::new)))
        });
        let (database, chain) = opened.await.map_err(DbError::from)??;
        let link_key = database.write(|tx| db::secret(tx, "upload_links")).await?;
        let listener = TcpListener::bind(config.listen)
            .await
            .map_err(io(format!("cannot listen on {}", config.listen)))?;
        let address = listener.local_addr().map_err(io("cannot read the address".into()))?;
        let public_url = config.public_url.clone().unwrap_or_else(|| format!("http://{address}"));
        let stopping = CancellationToken::new();
        let hub = Arc::new(Hub {
            uploads: Semaphore::new(config.limits.uploads),
            config,
            public_url,
            db: database,
            blobs,
            outboards,
            link_key,
            metrics: Metrics::new(),
            rates: Buckets::default(),
            publishing: RwLock::new(()),
            collecting: tokio::sync::Mutex::default(),
            fresh: Mutex::default(),
            pieces: Gather::pool(),
            parts: Mutex::default(),
            facets: Mutex::default(),
            inspecting: Semaphore::new(1),
            deleted: AtomicBool::new(true),
            stopping: stopping.clone(),
            chain: chain.clone(),
        });
        let follower = chain.map(|chain| tokio::spawn(chain.run(stopping.clone())));
        let app = http::router(Arc::clone(&hub)).into_make_service_with_connect_info::<SocketAddr>();
        let server = tokio::spawn(async move {
            axum::serve(listener, app)
                .with_graceful_shutdown(async move { stopping.cancelled().await })
                .await
        });
        let collector = tokio::spawn(collect_forever(Arc::clone(&hub)));
        tracing::info!(url = hub.public_url, %address, "hub serving");
        Ok(Self {
            hub,
            address,
            server,
            collector,
            follower,
            _lock: lock,
        })
    }

    /// URL for clients: the value of `HF_ENDPOINT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.hub.public_url
    }

    /// The address served on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Removes what nothing refers to and what is older than `hours`. Also runs every hour by itself.
    ///
    /// # Errors
    /// [`HubError::Collection`].
    pub async fn collect_garbage(&self, hours: u32) -> Result<Collected, HubError> {
        let done = gc::collect(&self.hub, hours).await;
        done.map_err(|e| HubError::Collection(e.message))
    }

    /// Ends the hub: no new requests, running ones get the configured time.
    ///
    /// # Errors
    /// [`HubError::Shutdown`] if some were still running; [`HubError::Io`] if the server had failed.
    pub async fn shutdown(self) -> Result<(), HubError> {
        self.hub.stopping.cancel();
        self.collector.abort();
        // It stops by itself between two transactions; one that waits for a full node need not be waited for.
        if let Some(follower) = self.follower {
            follower.abort();
        }
        let seconds = self.hub.config.limits.shutdown_seconds;
        let mut server = self.server;
        let ended = match tokio::time::timeout(Duration::from_secs(seconds), &mut server).await {
            Ok(Ok(result)) => result.map_err(|source| HubError::Io {
                what: "the server failed".into(),
                source,
            }),
            Ok(Err(panic)) => Err(HubError::Database(panic.into())),
            Err(_) => {
                server.abort();
                Err(HubError::Shutdown { seconds })
            }
        };
        self.hub.db.close().await;
        if let Some(chain) = &self.hub.chain {
            chain.close().await;
        }
        ended
    }
}

/// How long an upload in parts may keep memory without sending anything.
const IDLE: Duration = Duration::from_secs(60);

async fn collect_forever(hub: Arc<Hub>) {
    let (mut memory, mut garbage) = (tokio::time::interval(IDLE), tokio::time::interval(gc::EVERY));
    loop {
        tokio::select! {
            _ = memory.tick() => {
                http::parts::free_idle(&hub, IDLE);
                continue;
            }
            _ = garbage.tick() => {}
        }
        http::parts::forget_idle(&hub, 24 * 3600);
        match gc::collect(&hub, hub.config.limits.garbage_hours).await {
            Ok(done) if done != Collected::default() => {
                tracing::info!(
                    blobs = done.blobs,
                    directories = done.directories,
                    orphans = done.orphans,
                    "garbage collected"
                );
            }
            Ok(_) => {}
            Err(error) => tracing::error!(error = error.message, "garbage collection failed"),
        }
    }
}
