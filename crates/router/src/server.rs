//! Starting and stopping a router.

use crate::{
    config::{ConfigError, RouterConfig},
    discovery::{self, Discovery},
    metrics::Metrics,
    nodes::{Clock, Nodes},
    outbound::Outbound,
    probe,
    rate::Rates,
    receipts::Places,
    routes, serve,
    state::State,
};
use opg_client::Rpc;
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::TcpListener,
    sync::{Mutex, Notify, Semaphore},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// Why a router cannot start or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RouterError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The HTTP or TLS client.
    #[error("the client for nodes cannot be set up: {0}")]
    Client(String),
    /// A socket.
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
}

/// A running router. Call [`RouterHandle::shutdown`] to end it; dropped, it goes on.
#[derive(Debug)]
pub struct RouterHandle {
    state: Arc<State>,
    address: SocketAddr,
    server: JoinHandle<()>,
    background: [JoinHandle<()>; 2],
}

/// Starts a router and returns when it serves. Nodes are looked for from then on: until the first is found, requests get
/// 503.
///
/// # Errors
/// [`RouterError`].
pub async fn start(config: RouterConfig) -> Result<RouterHandle, RouterError> {
    config.check()?;
    let client = |error: &dyn std::fmt::Display| RouterError::Client(error.to_string());
    let limits = &config.limits;
    let connect = Duration::from_secs(limits.connect_seconds);
    let outbound = Outbound::new(config.private_endpoints, connect).map_err(|error| client(&error))?;
    let http = reqwest::Client::builder()
        .connect_timeout(connect)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(|error| client(&error))?;
    let discovery = Discovery::new(&config, http.clone())?;
    let listener = TcpListener::bind(config.listen)
        .await
        .map_err(|source| RouterError::Io {
            what: format!("cannot listen on {}", config.listen),
            source,
        })?;
    let address = listener.local_addr().map_err(|source| RouterError::Io {
        what: "cannot read the address".into(),
        source,
    })?;
    let stopping = CancellationToken::new();
    let state = Arc::new(State {
        nodes: Nodes::default(),
        discovery: Mutex::new(discovery),
        rpc: Rpc::new(http, config.rpc.clone()),
        outbound,
        metrics: Arc::new(Metrics::new()),
        clock: Clock::start(),
        slots: Arc::new(Semaphore::new(limits.concurrent)),
        memory: Arc::new(Semaphore::new((limits.held_bytes / 1024).max(1) as usize)),
        rates: Rates::new(limits.requests_per_minute),
        relay_rates: Rates::new(config.relay.requests_per_minute),
        places: Places::default(),
        look_again: Notify::new(),
        stopping: stopping.clone(),
        config,
    });
    let app = routes::router(Arc::clone(&state));
    let limits = &state.config.limits;
    let idle = Duration::from_secs(limits.idle_seconds);
    let server = tokio::spawn(serve::serve(listener, app, stopping, limits.connections, idle));
    let background = [
        tokio::spawn(discovery::run(Arc::clone(&state))),
        tokio::spawn(probe::run(Arc::clone(&state))),
    ];
    tracing::info!(%address, "router serving");
    Ok(RouterHandle {
        state,
        address,
        server,
        background,
    })
}

impl RouterHandle {
    /// The address served on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// URL of the router on this machine.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// How many nodes are up now.
    #[must_use]
    pub fn nodes_up(&self) -> usize {
        self.state.nodes.all().iter().filter(|node| node.is_up()).count()
    }

    /// Ends the router: no new requests, running ones get the configured time.
    ///
    /// # Errors
    /// [`RouterError::Shutdown`] if some were still running; [`RouterError::Io`] if the server had failed.
    pub async fn shutdown(self) -> Result<(), RouterError> {
        self.state.stopping.cancel();
        for task in &self.background {
            task.abort();
        }
        let seconds = self.state.config.limits.shutdown_seconds;
        let mut server = self.server;
        let failed = |source| RouterError::Io {
            what: "the server failed".into(),
            source,
        };
        match tokio::time::timeout(Duration::from_secs(seconds), &mut server).await {
            Ok(ended) => ended.map_err(|panic| failed(io::Error::other(panic))),
            Err(_) => {
                server.abort();
                Err(RouterError::Shutdown { seconds })
            }
        }
    }
}
